"""What the package manager knows, who holds its locks, and the units of systemd."""

from __future__ import annotations

from provision.facts import rpm
from provision.facts.system import ARCHITECTURES
from provision.facts.text import ABSENT, Sections, get, number, rows
from provision.model import Lock, Package, Unit

_LOCK_HOLDERS = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/cache/apt/", "/rpm/.rpm.lock", "/dnf/rpmtransaction.lock", "/zypp.pid", "/.tdnf-instance-lockfile")


def packages(sections: Sections, present: frozenset[str], live: bool) -> dict[str, Package] | None:
    """The packages that matter, by name (`name:arch` for a foreign architecture beside the native one). None if unknown."""
    dpkg = get(sections, "dpkg")
    if dpkg.rc == ABSENT:
        return rpm.packages(sections) if rpm.has_database(present, live) else {}
    if dpkg.rc != 0 or get(sections, "dpkg_read").rc != 0:
        return None
    found: dict[str, Package] = {}
    entries = [parts for parts in (row.split() for row in rows(dpkg.text)) if len(parts) == 6]
    native = next((parts[1] for parts in entries if parts[0] == "dpkg"), "")
    for name, arch, version, want, flag, was in entries:
        status = was if flag == "ok" or was != "installed" else "reinst-required"
        package = Package(name, "" if version == "-" else version, status, want == "hold", "" if arch == "-" else arch)
        foreign = arch not in (native, "all", "-") and native
        found[f"{name}:{arch}" if foreign else name] = package
        if foreign:
            found.setdefault(name, package)
    return found


def machine(sections: Sections) -> str:
    """The architecture that dpkg itself was built for, as `uname -m` says it; "" if dpkg does not tell."""
    for row in rows(get(sections, "dpkg").text):
        parts = row.split()
        if len(parts) == 6 and parts[0] == "dpkg":
            return ARCHITECTURES.get(parts[1], parts[1])
    return ""


def units(sections: Sections) -> dict[str, Unit]:
    """systemd's units by name; empty where it could not be asked."""
    found: dict[str, Unit] = {}
    for block in get(sections, "units").text.split("\n\n"):
        values = dict(row.split("=", 1) for row in rows(block) if "=" in row)
        name = values.get("Id", "")
        if name:
            found[name] = Unit(
                name, values.get("LoadState", ""), values.get("ActiveState", ""), values.get("UnitFileState", ""), values.get("SubState", "")
            )
    return found


def locks(sections: Sections) -> tuple[Lock, ...]:
    """Who holds a lock of a package manager's.

    /proc/locks names a file by its inode alone, which another file system may use too; as root the probe lists the holder's open
    files, and a holder with none of the locks open is somebody else.
    """
    paths: dict[str, str] = {}
    listed: set[str] = set()
    opened: set[str] = set()
    held: list[tuple[str, str, str]] = []
    for row in rows(get(sections, "locks").text):
        kind, *parts = row.split(None, 3)
        if kind == "inode" and len(parts) == 2:
            paths[parts[0]] = parts[1]
        elif kind == "lock" and len(parts) >= 2:
            held.append((parts[0], parts[1], parts[2] if len(parts) == 3 else ""))
        elif kind == "fds" and parts:
            listed.add(parts[0])
        elif kind == "fd" and len(parts) >= 2 and any(folder in row for folder in _LOCK_HOLDERS):
            opened.add(parts[0])
    found = []
    for inode, pid, command in held:
        if inode in paths and not (pid in listed and pid not in opened):
            found.append(Lock(paths[inode], number(pid) or 0, command))
    named = {lock.path for lock in found}
    found += [lock for lock in rpm.lock_pids(sections) if lock.path not in named]
    return tuple(dict.fromkeys(found))
