"""The way back as a plan: what of the receipts is taken back, what stays, and why. Pure: values in, a plan out.

Only what a run has added or changed is touched, and of that only what still is as the run left it. Images, containers and volumes stay
unless `purge` says otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from provision import daemonjson
from provision.actions import Action, Command, JsonMerge, Service, TakeBack
from provision.backfiles import untie, way
from provision.model import CHANGE, OK, REFUSED, Facts, Item, Notice, Plan, PlatformRow, Problem
from provision.steps import plural
from provision.steps.daemon import CONFIGURATION, LOADED_STAMP, PID_FILE
from provision.steps.engine import ENGINE_PACKAGES, fate, restarts
from provision.traces import ABSENT, Installed, Receipt, Traces, whole

STEP = "rollback"
ENGINES = (*ENGINE_PACKAGES, "docker", "docker-engine")
ENGINE_UNITS = ("docker.service", "docker.socket", "containerd.service")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._-]*(:[a-z0-9-]+)?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+:~^_-]+", re.ASCII)


@dataclass(frozen=True)
class Wish:
    """What is to be taken back: these runs (`Traces.runs`), and with `purge` Docker's data too."""

    runs: tuple[str, ...]
    purge: bool = False


@dataclass
class _Draft:
    """A plan being written. `receipts` are the chosen ones, oldest first."""

    facts: Facts
    traces: Traces
    wish: Wish
    receipts: list[Receipt]
    items: list[Item] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    engine_goes: bool = False

    def of(self, *kinds: str) -> list[Receipt]:
        return [r for r in self.receipts if r.kind in kinds]

    def words(self, kind: str) -> list[str]:
        """The first word of each receipt of a kind, each once, the newest first."""
        return list(dict.fromkeys(r.word(0) for r in reversed(self.receipts) if r.kind == kind))

    def change(self, name: str, kind: str, why: str, action: Action, told: Iterable[str] = ()) -> None:
        self.items.append(Item(f"back/{name}", STEP, kind, CHANGE, why, {"back": True}, {"back": False}, action))
        self.told += told

    def settled(self, name: str, kind: str, why: str) -> None:
        self.items.append(Item(f"back/{name}", STEP, kind, OK, why, {"back": True}, {"back": True}))

    def stays(self, name: str, why: str) -> None:
        self.notices.append(Notice(f"back/{name}", why))


def plan_back(facts: Facts, traces: Traces, wish: Wish, platform: PlatformRow, initramfs_update: str = "") -> Plan:
    """What it takes to undo `wish.runs`. An empty wish, or one that is fulfilled, gives a plan without items.

    `initramfs_update` is the platform's command for its boot ramdisk, "" where it has none.
    """
    chosen = [r for r in traces.receipts if r.kind != "undone" and whole(r.run) in wish.runs]
    draft = _Draft(facts, traces, wish, chosen)
    if chosen:
        for part in (_undo, _images, _runfile, _packages, _holds, _services, _mounts, _files, _keys, _docker, _people, _caches):
            part(draft)
        _ramdisk(draft, initramfs_update)
        _modules(draft)
    _data(draft)
    if chosen:
        runs = tuple(dict.fromkeys(r.run for r in chosen))
        title = f"forget {', '.join(wish.runs)}: nothing of {'it' if len(wish.runs) == 1 else 'them'} is left to be taken back"
        draft.change("receipts", "state", "what is taken back is not taken back again", TakeBack("forget", runs, title))
    items = [_refused(item) if draft.problems and item.state == CHANGE else item for item in draft.items]
    return Plan(
        facts.host,
        platform,
        (),
        {},
        tuple(items),
        tuple(draft.problems),
        tuple(draft.notices),
        restarts=tuple(dict.fromkeys(draft.told)),
    )


def _refused(item: Item) -> Item:
    return Item(item.id, item.step, item.kind, REFUSED, item.why, item.expected, item.actual, item.action)


def _undo(draft: _Draft) -> None:
    for receipt in reversed(draft.of("undo")):
        name = receipt.word(1)
        state = draft.traces.undo.get((receipt.run, name), "gone") if name else "none"
        if state == "there":
            draft.change(
                f"step/{receipt.word(0)}", "command", "a step of the playbook's own did this", TakeBack("undo", (receipt.run, name), f"run the undo of {receipt.word(0)}")
            )
        elif state == "done":
            draft.settled(f"step/{receipt.word(0)}", "command", "its undo has run already")
        else:
            draft.stays(f"step/{receipt.word(0)}", f"{receipt.word(0)} has no undo; what it did stays.")


def _images(draft: _Draft) -> None:
    if "mlhost/smoke" in draft.words("image") and "mlhost/smoke" in draft.traces.images:
        draft.change("images", "image", "the proof's own image was made by mlhost", TakeBack("images", (), "remove the image mlhost/smoke"))


def _runfile(draft: _Draft) -> None:
    """A driver that NVIDIA's installer brought; before the packages, as it may need what it was built with."""
    for version in draft.words("runfile"):
        if version in draft.traces.runfiles:
            title = f"uninstall the driver {version} that NVIDIA's installer brought"
            draft.change("driver", "runfile", "the installer was run by mlhost; what is in use stays loaded until a reboot", TakeBack("runfile", (version,), title))


# ---------------------------------------------------------------- packages


def _packages(draft: _Draft) -> None:
    remove, purge, install = [], [], []
    names = dict.fromkeys(r.word(0) for r in draft.of("package", "removed"))
    for name in (n for n in names if _NAME.fullmatch(n)):
        mine = [r for r in draft.of("package", "removed") if r.word(0) == name]
        oldest, newest = mine[0], mine[-1]
        now = draft.traces.packages.get(name)
        there = now is not None and now.state not in ("config-files", "not-installed")
        before = oldest.word(2) if oldest.kind == "package" else oldest.word(1)
        if oldest.kind == "package" and not before:
            if there:
                remove.append(name)
            if now is not None and now.state != "not-installed" and _purgeable(draft, name, now, oldest):
                purge.append(name)
        else:
            install += _comes_back(draft, name, before, newest, now.version if there and now else "")
    draft.engine_goes = any(_bare(draft, name) in ENGINES for name in remove)
    if draft.engine_goes:
        draft.told.append(f"docker.service (goes with its package; {_containers(draft.facts)})")
        draft.stays("network", "Docker's network bridges and firewall rules stay until the next reboot.")
        if not draft.wish.purge:
            text = "Docker's images, containers and volumes stay where they are; `mlhost uninstall --purge-data` would delete them."
            draft.stays("data", text)
    if not (remove or purge or install):
        if names:
            draft.settled("packages", "packages", "none that was added is there, none that was removed is missing")
        return
    engine = [name for name in remove if _bare(draft, name) in ENGINES]
    words = (*install, "--", *_all(draft, remove), "--", *_all(draft, purge), "--", *engine)
    why = "they were added, replaced or removed by mlhost"
    draft.change("packages", "packages", why, TakeBack("packages", words, _packages_title(install, remove, purge)))


def packages_words(words: Sequence[str]) -> tuple[str, ...]:
    """Of a packages item's words the part `INSTALL... -- REMOVE...`, which the host can be asked about."""
    second = [number for number, word in enumerate(words) if word == "--"][1]
    return tuple(words[:second])


def _containers(facts: Facts) -> str:
    """What becomes of the containers when the engine goes: nothing brings them back."""
    running = facts.docker.running_containers if facts.docker else 0
    return f"{plural(running, 'container is', 'containers are')} running and will stop" if running else "no container is running"


def _packages_title(install: Sequence[str], remove: Sequence[str], purge: Sequence[str]) -> str:
    parts = []
    if remove:
        parts.append(f"remove {', '.join(remove)}")
    if install:
        parts.append(f"bring back {', '.join(word.replace('=', ' ') for word in install)}")
    settings = [name for name in purge if name not in remove]
    if settings:
        parts.append(f"remove the settings of {', '.join(settings)}")
    return "; ".join(parts)


def _purgeable(draft: _Draft, name: str, now: Installed, oldest: Receipt) -> bool:
    """Whether its settings may go with it. Says so where they stay."""
    if oldest.word(3) == "settings":
        return False
    if now.settings == "keep" and not draft.wish.purge:
        draft.stays(f"packages/{name}", f"{name} is removed, but its settings stay: taking them away as well would delete Docker's data.")
        return False
    if now.settings == "changed":
        draft.stays(f"packages/{name}", f"{name} is removed, but its settings stay: somebody has changed them.")
        return False
    return True


def _comes_back(draft: _Draft, name: str, before: str, newest: Receipt, now: str) -> list[str]:
    """The words that bring a package back to the version it had; none where it has it, or cannot have it."""
    if now and (not before or now == before):
        return []
    if now and newest.kind == "package" and now != newest.word(1):
        draft.stays(f"packages/{name}", f"{name} was {before} and is {now} now, which mlhost did not install; it stays.")
        return []
    offered = [version for offer, version in draft.traces.offers if offer == name or offer == _bare(draft, name)]
    if before and before in offered and _VERSION.fullmatch(before):
        return [f"{_bare(draft, name)}={before}"]
    if now:
        draft.stays(f"packages/{name}", f"{name} was {before}, which no source has any more; it stays at {now}.")
        return []
    if not offered:
        draft.stays(f"packages/{name}", f"{name}{f' {before}' if before else ''} was removed by mlhost and cannot come back: no source has it.")
        return []
    if before:
        draft.stays(f"packages/{name}", f"{name} comes back, but not as {before}: no source has that version any more.")
    return [_bare(draft, name)]


def _bare(draft: _Draft, name: str) -> str:
    """A package's name as apt takes it: without the architecture where that is the machine's own."""
    base, _, arch = name.partition(":")
    return base if not arch or arch == draft.traces.arch else name


def _all(draft: _Draft, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_bare(draft, name) for name in names))


def _holds(draft: _Draft) -> None:
    ours = list(dict.fromkeys(word for r in draft.of("hold") for word in r.words if _NAME.fullmatch(word)))
    held = [name for name in ours if name in draft.traces.holds]
    if held:
        draft.change("holds", "hold", "they were held by mlhost", TakeBack("holds", tuple(held), f"no longer hold {', '.join(held)}"))
    elif ours:
        draft.settled("holds", "hold", f"{', '.join(ours)} {'is' if len(ours) == 1 else 'are'} not held")


# ---------------------------------------------------------------- services, disks, files


def _services(draft: _Draft) -> None:
    for name in dict.fromkeys([*draft.words("enabled"), *draft.words("disabled"), *draft.words("service")]):
        if draft.engine_goes and name in ENGINE_UNITS:
            continue
        load, active, enabled = draft.traces.units.get(name, ("not-found", "", ""))
        if load in ("not-found", ""):
            draft.settled(f"service/{name}", "service", "there is no such service any more")
            continue
        boot = next(("no" if r.kind == "enabled" else "yes" for r in draft.receipts if r.kind in ("enabled", "disabled") and r.word(0) == name), "-")
        verb = next((r.word(1) for r in draft.receipts if r.kind == "service" and r.word(0) == name), "")
        runs = {"start": "no", "stop": "yes"}.get(verb, "-")
        if boot == ("yes" if enabled.startswith("enabled") else "no"):
            boot = "-"
        if runs == ("yes" if active in ("active", "activating", "reloading") else "no"):
            runs = "-"
        if (boot, runs) == ("-", "-"):
            draft.settled(f"service/{name}", "service", "it is as it was")
            continue
        parts = {"no": "no longer start", "yes": "start"}.get(boot, "")
        title = "; ".join(p for p in (f"{parts} {name} at boot" if parts else "", {"no": f"stop {name}", "yes": f"start {name}"}.get(runs, "")) if p)
        told = (f"{name} (stopped; {_containers(draft.facts)})",) if runs == "no" and name in ENGINE_UNITS else ()
        draft.change(f"service/{name}", "service", "it was so before mlhost changed it", TakeBack("service", (name, boot, runs), title), told)


def _mounts(draft: _Draft) -> None:
    for receipt in reversed(draft.of("mounted")):
        unit, path = receipt.word(0), receipt.word(1)
        if path in draft.traces.mounts or draft.traces.units.get(unit, ("", "", ""))[2].startswith("enabled"):
            title = f"unmount {path}, and no longer mount it at boot"
            draft.change(f"mount{path}", "mount", "what is on the disk stays on it", TakeBack("mount", (unit, path), title))
        else:
            draft.settled(f"mount{path}", "mount", "it is not mounted")


def _files(draft: _Draft) -> None:
    for path in dict.fromkeys(r.word(0) for r in reversed(draft.receipts) if r.kind in ("file", "aside")):
        mine = [r for r in draft.of("file", "aside") if r.word(0) == path]
        found = draft.traces.now.get(path, ABSENT)
        back = way(path, mine, draft.traces)
        if back.run:
            gone = draft.traces.saved.get((back.run, path)) == ABSENT
            title = f"remove {path}" if gone else f"put back {path}"
            why = f"it was {'written' if gone else 'moved aside' if found == ABSENT else 'changed'} by mlhost"
            draft.change(f"file{path}", "file", why, TakeBack("file", (back.run, path, found), title))
        elif back.stays and _json(draft, path, mine, found):
            continue
        elif not back.stays:
            draft.settled(f"file{path}", "file", "it is as it was")
        if back.stays:
            later = any(r.word(0) == path and r.kind in ("file", "aside") and r not in mine for r in draft.traces.receipts)
            draft.stays(f"file{path}", f"{path} was changed by a later run of mlhost; it stays." if later and not back.run else f"{back.stays}.")


def _json(draft: _Draft, path: str, mine: Sequence[Receipt], found: str) -> bool:
    """Our keys out of a JSON file that somebody has changed since. False where that cannot be told."""
    untied = untie(path, mine, draft.traces)
    if untied is None:
        return False
    if untied.left:
        keys = ", ".join(untied.left)
        draft.stays(f"file{path}", f"{keys} in {path} {'has' if len(untied.left) == 1 else 'have'} been changed since; what is there stays.")
    why = "somebody has changed the file since, so only what mlhost had set in it is taken out"
    if untied.text is None:
        draft.change(f"file{path}", "file", "nothing but what mlhost had set is in it", TakeBack("file", (mine[0].run, path, found), f"remove {path}"))
    elif untied.text == draft.traces.texts[f"now:{path}"]:
        draft.settled(f"file{path}", "json-merge", "nothing that mlhost had set is left in it")
    else:
        now = hashlib.sha256(untied.text.encode()).hexdigest()
        if now != found:
            draft.change(f"file{path}", "json-merge", why, JsonMerge(path, found, untied.text))
    return True


def _keys(draft: _Draft) -> None:
    for print_ in draft.words("key"):
        if print_ in draft.traces.keys:
            draft.change(f"key/{print_[-16:]}", "key", "it was mlhost that had rpm trust it", TakeBack("key", (print_,), f"rpm no longer trusts {print_[-16:]}"))


def _docker(draft: _Draft) -> None:
    """An engine that stays has to read its old settings."""
    changed = [p for p in (*CONFIGURATION, daemonjson.PATH) if any(i.id == f"back/file{p}" and i.state == CHANGE for i in draft.items)]
    if not changed or draft.engine_goes or not (draft.facts.docker and draft.facts.docker.server):
        return
    action = Service(
        "docker.service",
        enabled=None,
        running=None,
        act="restart",
        newer_than=tuple(dict.fromkeys(changed)),
        stamps=(PID_FILE, LOADED_STAMP),
        optional=True,
        restore=daemonjson.PATH if daemonjson.PATH in changed else "",
        probe="docker info",
    )
    draft.change("docker", "service", f"Docker has to read its old settings; {fate(draft.facts) or 'no container is running'}", action, restarts(draft.facts))


def _people(draft: _Draft) -> None:
    leaving = [(r.word(0), r.word(1)) for r in draft.of("group")]
    for group, user in dict.fromkeys(leaving):
        if (group, user) in draft.traces.members:
            draft.change(
                f"member/{group}/{user}", "group-member", "the user was put into it by mlhost", TakeBack("member", (group, user), f"take {user} out of the group {group}")
            )
        else:
            draft.settled(f"member/{group}/{user}", "group-member", f"{user} is not in the group {group}")
    for kind, what in (("passwd", "user"), ("group", "group")):
        for name in draft.words(f"made-{kind}"):
            members = draft.traces.accounts.get((kind, name))
            if members is None:
                continue
            others = [m for m in members.split(",") if m and (name, m) not in leaving]
            if others:
                draft.stays(f"{what}/{name}", f"The group {name} stays: {', '.join(others)} belong{'s' if len(others) == 1 else ''} to it.")
            else:
                why = "it came with what mlhost installed; if something still belongs to it, it stays"
                draft.change(f"{what}/{name}", "account", why, TakeBack("account", (kind, name), f"remove the {what} {name}"))


def _caches(draft: _Draft) -> None:
    for name in draft.words("index"):
        if name in draft.traces.indexes:
            draft.change(f"index/{name}", "cache", "it was fetched for a source that goes", TakeBack("index", (name,), f"forget the index of {name}"))
    caches = [path for path in draft.words("cache") if path in draft.traces.caches]
    if caches:
        title = f"remove {len(caches)} fetched package list{'s' if len(caches) > 1 else ''}"
        draft.change("caches", "cache", "they were fetched for sources that go", TakeBack("cache", tuple(caches), title))
    made = sorted((p for p in draft.words("directory") if p in draft.traces.directories), key=lambda p: -p.count("/"))
    if made:
        title = f"remove {', '.join(made)} if nothing is left in {'it' if len(made) == 1 else 'them'}"
        draft.change("directories", "directory", "they were made for what goes", TakeBack("directories", tuple(made), title))


def _ramdisk(draft: _Draft, command: str) -> None:
    if not command or not any(r.word(0).startswith("/etc/modprobe.d/") for r in draft.of("file")):
        return
    action = Command('[ -e "$WORK/ramdisk" ]', f'{command} && : >"$WORK/ramdisk"', undo=":")
    draft.change("ramdisk", "command", "the ramdisk of the next boot holds settings of kernel modules that are taken back", action)


def _modules(draft: _Draft) -> None:
    loaded = [name for name in draft.words("module") if name in draft.traces.modules]
    if loaded:
        text = f"The kernel module{'s' if len(loaded) > 1 else ''} {', '.join(sorted(loaded))} stay{'' if len(loaded) > 1 else 's'} loaded until the next reboot."
        draft.stays("modules", text)


def _data(draft: _Draft) -> None:
    if not draft.wish.purge or not draft.traces.data:
        return
    stays = [name for name in ENGINES if draft.facts.installed(name)]
    if stays and not draft.engine_goes:
        message = f"Docker was on this host before mlhost ({', '.join(stays)}), so its data are not mlhost's to delete."
        draft.problems.append(Problem("data/engine", message, "Leave --purge-data away, or delete them by hand."))
        return
    title = f"delete Docker's data in {', '.join(draft.traces.data)}: images, containers and volumes"
    draft.change("data", "data", "that was asked for", TakeBack("data", draft.traces.data, title))
