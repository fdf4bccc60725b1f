"use strict";
(() => {
  const root = document.documentElement, table = document.getElementById("grid");
  if (!table) return;
  root.classList.add("js");
  const bodies = [...table.tBodies], order = new Map(bodies.map((body, at) => [body, at]));
  const box = document.getElementById("filter"), shown = document.getElementById("shown");
  const chips = [...document.querySelectorAll("[data-status]")];
  const texts = new Map();
  const text = (body) => {
    if (!texts.has(body)) texts.set(body, (body.rows[0].textContent + " " + (body.querySelector("summary") || body.rows[0]).textContent).toLowerCase());
    return texts.get(body);
  };

  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.status));
    let count = 0;
    for (const body of bodies) {
      const fits = (!wanted.size || wanted.has(body.dataset.s)) && words.every((word) => (word[0] === "!" && word.length > 1 ? !text(body).includes(word.slice(1)) : text(body).includes(word)));
      body.hidden = !fits;
      count += fits;
    }
    shown.textContent = count === bodies.length ? `${count} ${count === 1 ? "host" : "hosts"}` : `${count} of ${bodies.length} hosts`;
  };
  let later = 0;
  box.addEventListener("input", () => { clearTimeout(later); later = setTimeout(filter, bodies.length > 1000 ? 150 : 0); });
  chips.forEach((chip, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = chip.className;
    button.dataset.status = chip.dataset.status;
    button.setAttribute("aria-pressed", "false");
    button.append(...chip.childNodes);
    chip.replaceWith(button);
    chips[at] = button;
    button.addEventListener("click", () => { button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")); filter(); });
  });
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  const key = (body, column) => { const cell = body.rows[0].cells[column]; return cell.dataset.k === undefined ? cell.textContent.trim() : cell.dataset.k; };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort"), now = was === "ascending" ? "descending" : was === "descending" ? "" : "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (now) head.setAttribute("aria-sort", now);
      const sign = now === "descending" ? -1 : 1;
      const keyed = bodies.map((body) => [now ? key(body, column) : "", order.get(body), body]);
      keyed.sort((a, b) => sign * compare(a[0], b[0]) || a[1] - b[1]);
      const all = document.createDocumentFragment();
      for (const [, , body] of keyed) all.append(body);
      table.append(all);
    });
  });

  const foldOf = new Map(bodies.map((body) => [body, body.querySelector("details")]));
  const open = (body, wish) => {
    const fold = foldOf.get(body);
    if (!fold) return;
    body.rows[1].classList.toggle("open", wish);
    fold.open = wish;
    body.rows[0].querySelector("th button").setAttribute("aria-expanded", String(wish));
  };
  for (const [body, fold] of foldOf) {
    if (!fold) continue;
    const name = body.rows[0].cells[0], button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-expanded", String(fold.open));
    button.append(...name.childNodes);
    name.append(button);
    button.addEventListener("click", () => open(body, button.getAttribute("aria-expanded") !== "true"));
    fold.addEventListener("toggle", () => button.setAttribute("aria-expanded", String(fold.open)));
  }
  document.getElementById("open").addEventListener("click", () => { for (const body of bodies) if (!body.hidden) open(body, true); });
  document.getElementById("close").addEventListener("click", () => { for (const body of bodies) open(body, false); });
  const visit = () => { const body = document.getElementById(location.hash.slice(1)); if (body && order.has(body)) { if (body.hidden) { box.value = ""; chips.forEach((chip) => chip.setAttribute("aria-pressed", "false")); filter(); } open(body, true); body.scrollIntoView({ block: "start" }); } };
  addEventListener("hashchange", visit);
  let unfolded = [];
  addEventListener("beforeprint", () => { unfolded = bodies.filter((body) => foldOf.get(body) && !foldOf.get(body).open); unfolded.forEach((body) => open(body, true)); });
  addEventListener("afterprint", () => { unfolded.forEach((body) => open(body, false)); });
  document.getElementById("tools").hidden = bodies.length < 2;
  filter();
  visit();
})();
