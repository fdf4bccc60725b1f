"""What runs of mlhost have left on a host, and how each of these things stands now: the answer of `scripts/lookback.sh` as values. Pure.

The receipts are lines of `RUN<TAB>KIND<TAB>WORDS…` in `/var/lib/mlhost/receipts`, in the order in which things were changed. `undone` is a
kind of its own: that line's run has taken back the run it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from provision.errors import Failed
from provision.model import Section

ABSENT, GONE = "absent", "gone"
"""What is said of a path in place of its hash: there is nothing; its backup is not there any more."""


@dataclass(frozen=True)
class Receipt:
    """One thing that a run has changed."""

    run: str
    kind: str
    words: tuple[str, ...]

    def word(self, number: int) -> str:
        """A word, "" where the line has fewer."""
        return self.words[number] if number < len(self.words) else ""


@dataclass(frozen=True)
class Installed:
    """A package as it is now. `settings`: clean, changed (by somebody), or keep (removing them would remove containers' data)."""

    state: str
    version: str
    settings: str = "clean"


@dataclass(frozen=True)
class Traces:
    """Everything a way back is planned with. Paths map to a hash, `link:TARGET`, `absent`, `other` or `gone`."""

    receipts: tuple[Receipt, ...] = ()
    manager: str = ""
    arch: str = ""
    now: Mapping[str, str] = field(default_factory=dict)
    saved: Mapping[tuple[str, str], str] = field(default_factory=dict)
    caches: frozenset[str] = frozenset()
    directories: frozenset[str] = frozenset()
    packages: Mapping[str, Installed] = field(default_factory=dict)
    offers: frozenset[tuple[str, str]] = frozenset()
    units: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    members: frozenset[tuple[str, str]] = frozenset()
    accounts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    undo: Mapping[tuple[str, str], str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    modules: tuple[str, ...] = ()
    mounts: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    runfiles: frozenset[str] = frozenset()
    indexes: frozenset[str] = frozenset()
    data: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    state: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that have changed something which is not taken back yet, oldest first; those of one call of `setup` are one."""
        return tuple(dict.fromkeys(whole(r.run) for r in self.receipts if r.kind != "undone"))

    @property
    def undone(self) -> tuple[str, ...]:
        """The runs that are taken back, in the order in which that was done."""
        return tuple(dict.fromkeys(whole(r.word(0)) for r in self.receipts if r.kind == "undone"))

    @property
    def last(self) -> str:
        """The run that changed something last, "" where that is taken back already or there is none."""
        newest = self.receipts[-1] if self.receipts else None
        return whole(newest.run) if newest and newest.kind != "undone" else ""


def whole(run: str) -> str:
    """The name that all stages of one call of `setup` share: the stages after the first add `.2`, `.3` … to it."""
    return run.partition(".")[0]


def parse(sections: Mapping[str, Section]) -> Traces:
    """The traces in the sections of a look back. Raises Failed where the receipts are there and cannot be read."""
    receipts = sections.get("receipts", Section(1, ""))
    if receipts.rc not in (0, 2):
        raise Failed(
            "What mlhost has changed on this host could not be read (/var/lib/mlhost/receipts).", "Run it as root or with sudo rights on the host."
        )
    manager, _, arch = _text(sections, "manager").strip().partition(" ")
    files, rest, people = (_table(sections, name) for name in ("files", "rest", "people"))
    return Traces(
        receipts=(*_receipts(receipts.text), *_receipts(_text(sections, "pending"))),
        manager=manager,
        arch=arch,
        now={r[1]: r[2] for r in _of(files, "now", 3)},
        saved={(r[1], r[2]): r[3] for r in _of(files, "saved", 4)},
        caches=frozenset(r[1] for r in _of(files, "cache", 2)),
        directories=frozenset(r[1] for r in _of(files, "directory", 2)),
        packages={r[0]: Installed(r[1], r[2], r[3]) for r in _table(sections, "packages") if len(r) >= 4},
        offers=frozenset((r[0], r[1]) for r in _table(sections, "offers") if len(r) >= 2),
        units={r[0]: (r[1], r[2], r[3]) for r in _table(sections, "units") if len(r) >= 4},
        members=frozenset((r[1], r[2]) for r in _of(people, "member", 3)),
        accounts={(r[0], r[1]): r[2] for kind in ("group", "passwd") for r in _of(people, kind, 3)},
        holds=frozenset(_text(sections, "holds").split()),
        undo={(r[1], r[2]): r[3] for r in _of(rest, "undo", 4)},
        keys=_named(rest, "key"),
        modules=tuple(sorted(_named(rest, "module"))),
        mounts=_named(rest, "mount"),
        images=_named(rest, "image"),
        runfiles=_named(rest, "runfile"),
        indexes=_named(rest, "index"),
        data=tuple(dict.fromkeys(r[1] for r in _of(rest, "data", 2))),
        left=tuple(r[1] for r in _of(rest, "left", 2)),
        state=any(r[1].strip() not in ("", "0") for r in _of(rest, "own", 2)),
        texts={name: section.text for name, section in sections.items() if name.partition(":")[0] in ("now", "saved", "written")},
    )


def _receipts(text: str) -> Iterable[Receipt]:
    for line in text.splitlines():
        words = line.split("\t")
        # a line that a full disk cut short says nothing that could be relied on
        if len(words) >= 3 and words[0] and words[1]:
            yield Receipt(words[0], words[1], tuple(words[2:]))


def _text(sections: Mapping[str, Section], name: str) -> str:
    section = sections.get(name)
    return section.text if section and section.rc == 0 else ""


def _table(sections: Mapping[str, Section], name: str) -> list[list[str]]:
    return [line.split("\t") for line in _text(sections, name).splitlines() if line]


def _of(rows: Iterable[list[str]], kind: str, width: int) -> list[list[str]]:
    return [row for row in rows if row[0] == kind and len(row) >= width]


def _named(rows: Iterable[list[str]], kind: str) -> frozenset[str]:
    return frozenset(row[1] for row in _of(rows, kind, 2))
