"""The page in a real Chromium: nothing fetched, nothing of a host's run, and everything a reader does with it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.model import Check, HostReport
from provision.report.page import MOST_FOLDED, page
from tests import report_samples as samples
from tests.browser import Browser, browser
from tests.report_fleet import ABOUT, LAST, fleet

pytestmark = pytest.mark.slow

SHOWN = "return [...document.querySelectorAll('#grid > tbody')].filter((body) => !body.hidden).map((body) => body.rows[0].cells[0].textContent)"
VISIBLE = "return arguments[0].checkVisibility()"
# How far a text stands out from what is behind it (WCAG 2.2, relative luminance and contrast ratio).
CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (color) => { const [r, g, b] = color.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
const behind = (node) => { for (; node; node = node.parentElement) { const c = rgb(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
let seen = 0;
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || ["STYLE", "SCRIPT"].includes(node.tagName) || !node.checkVisibility()) continue;
  const [a, b] = [light(rgb(getComputedStyle(node).color).slice(0, 3)), light(behind(node))].sort((x, y) => y - x);
  seen += 1;
  if ((a + .05) / (b + .05) < 4.5) low.push(`${node.tagName}.${node.className}: ${walk.currentNode.data.slice(0, 40)} ${((a + .05) / (b + .05)).toFixed(2)}`);
}
return [seen, low];
"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a fleet of 60."""
    place = tmp_path_factory.mktemp("page") / "fleet.html"
    place.write_text(page(fleet(60), ABOUT), encoding="utf-8")
    return place


def quiet(window: Browser, place: Path) -> None:
    """Nothing in the console, and no request but for the page itself (its empty icon is no request)."""
    assert window.console() == []
    assert [url for url in window.requests() if not url.startswith("data:,")] == [place.as_uri()]


def typed(window: Browser, text: str) -> list[str]:
    """The hosts that are shown once the page has taken in what was typed into its filter; it waits a moment in a large fleet."""
    window.js("const box = document.getElementById('filter'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))", text)
    return shown(window)


def shown(window: Browser) -> list[str]:
    """The hosts that are shown, once that has stayed the same for longer than the page waits for more letters."""
    before: Any = None
    while before != (now := window.js(SHOWN)):
        before = now
        time.sleep(0.4)
    return before  # type: ignore[no-any-return]


def by_css(window: Browser, selector: str) -> Any:
    return window.driver.find_element("css selector", selector)


def test_it_asks_for_nothing_and_complains_of_nothing(window: Browser, written: Path) -> None:
    window.open(written)
    assert by_css(window, "h1").text == "Verification of 60 hosts"
    typed(window, "gpu-01")
    window.js("document.querySelectorAll('#open, #close, thead button, .chip').forEach((button) => button.click())")
    quiet(window, written)


def test_hosts_are_filtered_as_one_types(window: Browser, written: Path) -> None:
    window.open(written)
    by_css(window, "#filter").send_keys("gpu-01 !not")
    assert shown(window) == [f"gpu-01{n}" for n in range(10) if n != 3]
    assert by_css(window, "#shown").text == "9 of 60 hosts"
    assert typed(window, "570.172") == [f"gpu-{n:03d}" for n in (4, 22, 31, 40, 49, 58)]
    assert typed(window, "no such host") == []
    assert len(typed(window, "")) == 60
    by_css(window, "button.chip[data-status=unverified]").click()
    assert window.js(SHOWN) == ["gpu-013", "gpu-047"]
    by_css(window, "button.chip[data-status=unreachable]").click()
    assert window.js(SHOWN) == ["gpu-007", "gpu-013", "gpu-047"]


def test_columns_are_sorted_and_put_back(window: Browser, written: Path) -> None:
    window.open(written)
    given = window.js(SHOWN)
    heads = {head.text.split("\n")[0].strip(" ↕↑↓"): head for head in window.driver.find_elements("css selector", "#grid thead th")}
    button = heads["Time"].find_element("css selector", "button")
    button.click()
    assert heads["Time"].get_attribute("aria-sort") == "ascending"
    times = window.js("return [...document.querySelectorAll('tr.row')].map((row) => Number(row.cells[row.cells.length - 1].dataset.k))")
    assert times == sorted(times) != times[::-1]
    button.click()
    assert heads["Time"].get_attribute("aria-sort") == "descending"
    assert window.js(SHOWN)[0] == "gpu-007"
    button.click()
    assert window.js(SHOWN) == given
    heads["State"].find_element("css selector", "button").click()
    assert window.js(SHOWN)[:4] == ["gpu-029", "gpu-007", "gpu-013", "gpu-047"]  # trouble first
    heads["Driver"].find_element("css selector", "button").click()
    assert [name for name in window.js(SHOWN) if name in ("gpu-004", "gpu-005")] == ["gpu-004", "gpu-005"]  # 570 before 580


def test_a_host_folds_out_by_mouse_and_by_keyboard(window: Browser, written: Path) -> None:
    window.open(written)
    button, inside = by_css(window, "#h2 th button"), by_css(window, "#h2 .inside")
    assert not window.js(VISIBLE, inside)
    button.click()
    assert window.js(VISIBLE, inside)
    assert button.get_attribute("aria-expanded") == "true"
    button.send_keys("\ue007")
    assert not window.js(VISIBLE, inside)
    by_css(window, "#open").click()
    assert all(window.js(VISIBLE, part) for part in window.driver.find_elements("css selector", ".inside")[:20])
    by_css(window, "#close").click()
    assert not window.js(VISIBLE, inside)


def test_a_link_to_a_host_unfolds_it_though_it_is_filtered_away(window: Browser, written: Path) -> None:
    window.open(written)
    assert typed(window, "gpu-001") == ["gpu-001"]
    window.js("document.querySelector('.causes a[href=\"#h13\"]').click()")
    shown(window)
    assert "gpu-013" in window.js(SHOWN)
    assert window.js(VISIBLE, by_css(window, "#h13 .inside"))
    window.open(written, fragment="#h5")
    assert window.js(VISIBLE, by_css(window, "#h5 .inside"))


def test_without_scripts_everything_is_there_to_read(window: Browser, written: Path) -> None:
    window.scripts(False)
    try:
        window.open(written)
        assert "tools" not in [e.get_attribute("id") for e in window.driver.find_elements("css selector", "#tools") if e.is_displayed()]
        summary = by_css(window, "#h2 summary")
        assert summary.is_displayed()
        summary.click()
        assert by_css(window, "#h2 .inside").is_displayed()
        assert len(window.driver.find_elements("css selector", "tr.row")) == 60
        assert not window.console()
    finally:
        window.scripts(True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(scheme: str, window: Browser, written: Path) -> None:
    window.open(written, scheme=scheme)
    window.js("document.getElementById('open').click()")
    lightness = window.js("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b) / 3")
    assert lightness > 200 if scheme == "light" else lightness < 50
    seen, low = window.js(CONTRAST)
    assert seen > 1000
    assert low == []


def test_a_narrow_window_scrolls_only_the_table(window: Browser, written: Path) -> None:
    window.open(written, width=390)
    assert window.js("return document.documentElement.scrollWidth") <= 390
    assert window.js("const grid = document.querySelector('.grid'); return grid.scrollWidth > grid.clientWidth")


def test_it_can_be_used_by_those_who_hear_it(window: Browser, written: Path) -> None:
    window.open(written)
    assert window.js("return [...document.querySelectorAll('table.times th, #grid > thead th, #grid > tbody > tr > th')].every((head) => head.scope)")
    assert window.js("return document.documentElement.lang") == "en"
    assert window.js("return [...document.querySelectorAll('h1, h2')].map((head) => head.tagName)") == ["H1", *["H2"] * 4]
    assert window.js("return [...document.querySelectorAll('button, input')].every((one) => (one.textContent || (one.labels && one.labels[0].textContent)).trim())")
    # no id twice, and no link to nowhere
    assert window.js("const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); return new Set(ids).size === ids.length")
    assert window.js("return [...document.querySelectorAll('a')].every((link) => document.getElementById(link.hash.slice(1)))")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_it_prints_with_everything_unfolded(scripts: bool, window: Browser, tmp_path: Path) -> None:
    place = tmp_path / "x.html"
    place.write_text(page(fleet(14), ABOUT), encoding="utf-8")
    window.scripts(scripts)
    try:
        window.open(place, scheme="dark")
        pdf = window.pdf()
    finally:
        window.scripts(True)
    assert pdf.startswith(b"%PDF")
    if shutil.which("pdftotext"):
        (tmp_path / "x.pdf").write_bytes(pdf)
        text = subprocess.run(["pdftotext", "-layout", str(tmp_path / "x.pdf"), "-"], capture_output=True, text=True, check=True).stdout
        assert text.count("/var/run/cdi/nvidia.yaml") == 13  # a check of every host that could be reached
        assert "GPU has fallen off the bus" in text
        assert "Unfold all" not in text
    window.open(place, scheme="dark")
    window.media("dark", "print")
    assert window.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


ATTACKS = (
    "<script>window.pwned = 1</script>",
    "\"><img src=x onerror='window.pwned = 2'>",
    "' onmouseover='window.pwned = 3' autofocus onfocus='window.pwned = 4' x='",
    "</title></style></script><script>window.pwned = 5</script>",
    "</pre></details></td></tr></table><svg onload=window.pwned=6>",
    "<iframe srcdoc='<script>parent.pwned = 7</script>'></iframe>",
    "<a href='javascript:window.pwned=8'>x</a><base href='http://evil.test/'><meta http-equiv=refresh content='0;url=http://evil.test/'>",
    "{{ 7 * 7 }}{% raw %}${window.pwned = 9}`<b>${1}`",
    "\u202etxt.exe\u2066\u200b\x1b[31m\x00\x9b",
    "<link rel=stylesheet href=http://evil.test/x.css><style>@import 'http://evil.test/y.css';</style>",
)


def attacked(number: int, evil: str) -> HostReport:
    """A host all of whose words are one attack."""
    plan = replace(
        samples.PENDING, host=evil, platform=replace(samples.PLATFORM, name=evil, codename=evil),
        items=tuple(replace(item, id=f"{evil}{at}", why=evil, expected={evil: evil}, actual={}) for at, item in enumerate(samples.PENDING.items)),
    )
    return replace(
        samples.FAILED_REPORT, target=f"{number} {evil}", status=evil if number % 2 else "failed", before=plan, message=evil, fix=f"`{evil}` {evil}",
        log=f"{evil}\n" * 20, checks=(Check(evil, "failed", evil, evil),), versions={"docker": evil, "system": evil, "kernel": evil}, drift=(evil,),
        last_run=replace(LAST, id=evil, since=evil, state=evil, playbook=evil), run_ids=(evil,),
    )


def test_nothing_that_a_host_says_is_ever_run(window: Browser, tmp_path: Path) -> None:
    place = tmp_path / "evil.html"
    place.write_text(page([attacked(number, evil) for number, evil in enumerate(ATTACKS)], replace(ABOUT, version=ATTACKS[3], command=ATTACKS[0])), encoding="utf-8")
    window.open(place)
    window.js("document.getElementById('open').click()")
    window.js("document.querySelectorAll('thead button, .chip, tr.row button').forEach((button) => { button.focus(); button.dispatchEvent(new MouseEvent('mouseover')); button.click() })")
    typed(window, ATTACKS[1])
    typed(window, "")
    assert window.js("return window.pwned") is None
    assert window.js("return [...document.querySelectorAll('img, iframe, base, script:not(:last-of-type), svg[onload], a[href^=\"javascript\"], meta[http-equiv=refresh]')].length") == 0
    assert window.js("return document.querySelectorAll('script, style').length") == 2
    assert window.js("return /[\\u202a-\\u202e\\u2066-\\u2069\\u0000\\u001b\\u009b]/.test(document.documentElement.outerHTML)") is False
    quiet(window, place)


def test_the_page_s_policy_stops_what_might_get_in_all_the_same(window: Browser, tmp_path: Path, written: Path) -> None:
    """Were there a hole in the escaping: the policy lets nothing but the page's own run."""
    place = tmp_path / "hole.html"
    hole = "<script>window.pwned = 1</script><img src=http://evil.test/x onerror='window.pwned = 2'><b style='color: red'>x</b>"
    place.write_text(written.read_text().replace("<main>", f"<main>{hole}", 1), encoding="utf-8")
    window.open(place)
    assert window.js("return window.pwned") is None
    assert len([text for text in window.console() if "Content Security Policy" in text]) >= 3


def test_more_hosts_in_trouble_than_are_folded_in_are_all_there(window: Browser, tmp_path: Path) -> None:
    place = tmp_path / "trouble.html"
    place.write_text(page([replace(samples.UNREACHABLE_REPORT, target=f"gpu-{n}") for n in range(MOST_FOLDED + 20)], ABOUT), encoding="utf-8")
    window.open(place, fragment=f"#h{MOST_FOLDED + 10}")
    by_css(window, "#open").click()
    by_css(window, "#close").click()
    assert by_css(window, "#shown").text == f"{MOST_FOLDED + 20} hosts"
    assert "connection refused" in window.js("return document.querySelector('tbody:last-of-type').textContent")
    assert len(window.driver.find_elements("css selector", "details")) == MOST_FOLDED
    assert window.console() == []


@pytest.mark.timeout(900)
def test_ten_thousand_hosts_open_and_can_be_filtered_and_sorted(window: Browser, tmp_path: Path) -> None:
    place = tmp_path / "large.html"
    place.write_text(page(fleet(10_000), ABOUT), encoding="utf-8")
    assert place.stat().st_size < 20_000_000
    began = time.monotonic()
    window.open(place)
    assert window.js("return document.getElementById('shown').textContent") == "10000 hosts"
    assert len(typed(window, "gpu-9999")) == 1
    assert len(typed(window, "unreachable")) == 100
    typed(window, "")
    by_css(window, "#grid thead th:nth-child(2) button").click()
    assert window.js(SHOWN)[0] in {report.target for report in fleet(100) if report.status == "failed"}
    assert time.monotonic() - began < 400  # seconds; some 6 are usual where nothing else runs
    quiet(window, place)
