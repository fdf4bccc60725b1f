"""A machine's files and packages as they are at one moment, to be compared with another. What changes by itself is named here, with why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Protocol

from tests.lab.sshcli import Result

# fnmatch patterns: `*` also crosses slashes
VOLATILE = {
    "/etc/passwd-": "the last version but one, kept by the account tools",
    "/etc/group-": "the same",
    "/etc/shadow-": "the same",
    "/etc/gshadow-": "the same",
    "/etc/subuid-": "the same",
    "/etc/subgid-": "the same",
    "/etc/.pwd.lock": "a lock of the account tools",
    "/etc/ld.so.cache": "made anew by ldconfig whenever a library comes or goes",
    "/var/lib/apt/*": "fetched lists, and when; which packages are there automatically is compared with the packages",
    "/var/lib/dpkg/*": "dpkg's own database; the packages in it are compared by themselves",
    "/var/lib/systemd/*": "timers' last runs, random seed, journal catalog; deb-systemd-helper's notes on units are in it too",
    "/var/lib/docker*": "images, containers and volumes, which stay",
    "/var/lib/containerd*": "the same",
    "/var/lib/mlhost*": "mlhost's own state; an uninstall is checked for it by itself",
    "/var/lib/private*": "systemd's own",
    "/var/lib/dbus/*": "made at the first start",
    "/var/lib/ucf/*": "the notes of a tool for settings",
    "/var/lib/logrotate/*": "when logs were rotated",
    "/var/lib/initramfs-tools/*": "the checksum of the boot ramdisk, which is made anew",
    "/var/lib/dkms/mok.*": "the machine's own key for modules, made by DKMS at its first build; it may be enrolled in the firmware by now",
    "/usr/lib/modules/*/modules.*": "made anew by depmod whenever a module comes or goes; the modules themselves are compared",
    "*/__pycache__*": "Python's own",
    "/etc/mtab": "a view of what is mounted",
    "/etc/resolv.conf": "the network's",
    "/etc/machine-id": "made at the first boot",
}
SCRIPT = r"""
find /etc /usr /var/lib -xdev \( -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/mlhost \) -prune -o \
    -printf '%y\t%m %u:%g\t%l\t%p\n'
echo ==hashes
find /etc /usr /var/lib -xdev \( -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/mlhost \) -prune -o -type f -print0 |
    xargs -0 md5sum
echo ==packages
dpkg-query -W -f '${Package}:${Architecture} ${Version} ${db:Status-Abbrev}\n'
apt-mark showhold | sed 's/^/held /'
echo ==units
SYSTEMD_BUS_TIMEOUT=600s systemctl list-unit-files --no-legend --no-pager | awk '{ print $1, $2 }'
"""


class Machine(Protocol):
    """What the lab's hosts and machines have in common."""

    def run(self, command: str, *, user: str | None = None, stdin: str = "", check: bool = True, timeout: float = 600) -> Result: ...


@dataclass(frozen=True)
class Snapshot:
    """`files` maps a path to its kind, mode, owner, and hash or target; the others are sets of lines."""

    files: dict[str, str]
    packages: frozenset[str]
    units: frozenset[str]

    def difference(self, other: Snapshot) -> list[str]:
        """What is not the same in `other`, one line each; the empty list if nothing is."""
        out = [
            f"{path}: {self.files.get(path, 'absent')} -> {other.files.get(path, 'absent')}"
            for path in sorted({*self.files, *other.files})
            if self.files.get(path) != other.files.get(path)
        ]
        for name in ("packages", "units"):
            before, after = getattr(self, name), getattr(other, name)
            out += [f"- {line}" for line in sorted(before - after)] + [f"+ {line}" for line in sorted(after - before)]
        return out


def snapshot(machine: Machine) -> Snapshot:
    """The machine's /etc, /usr, /var/lib, packages with holds, and units, less what is VOLATILE."""
    listing, _, rest = machine.run("sh -s", user="root", stdin=SCRIPT).out.partition("==hashes\n")
    hashing, _, rest = rest.partition("==packages\n")
    packages, _, units = rest.partition("==units\n")
    hashes = {line[34:]: line[:32] for line in hashing.splitlines()}
    files = {}
    for line in listing.splitlines():
        kind, mode, target, path = line.split("\t", 3)
        if not any(fnmatch(path, pattern) for pattern in VOLATILE):
            files[path] = f"{kind} {mode} {hashes.get(path, target)}"
    assert len(files) > 1000, "this is no whole machine"
    assert packages
    assert units, "systemd did not answer"
    return Snapshot(files, frozenset(packages.splitlines()), frozenset(units.splitlines()))


def assert_same(before: Snapshot, after: Snapshot) -> None:
    """Fail with every difference there is."""
    found = before.difference(after)
    assert not found, "\n".join(found)
