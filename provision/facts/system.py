"""Operating system, machine, firmware, containment, cloud-init."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from provision.facts.text import ABSENT, Sections, get, json_object, line, mapping, pairs, rows
from provision.model import OsRelease, Unit

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
# Values that mean the same with and without a shell: no quote, escape or expansion inside.
_PLAIN = re.compile(r"(?:\"([^\"'\\$`]*)\"|'([^']*)'|([^\s\"'\\$`#;&|<>()]*))\s*\Z")
# No value of os-release comes near these; they bound what a broken file can cost.
_LONGEST, _MOST_LINES = 8192, 16

# Debian's architecture names to those of `uname -m`.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armel": "armv7l", "i386": "i686", "ppc64el": "ppc64le",
                 "riscv64": "riscv64", "s390x": "s390x"}


class MountPoint(NamedTuple):
    """A row of /proc/mounts."""

    device: str
    path: str
    filesystem: str
    options: tuple[str, ...]


def assignments(text: str) -> dict[str, str]:
    """The assignments of an os-release text, unquoted as a shell would (freedesktop.org, os-release(5)). The last of two counts."""
    values: dict[str, str] = {}
    pending = ""
    for row in text.replace("\r", "").split("\n"):
        joined = f"{pending}\n{row}" if pending else row
        if not joined.strip() or (not pending and joined.lstrip().startswith("#")):
            continue
        found = _ASSIGNMENT.match(joined)
        if not found:
            pending = ""
            continue
        key, raw = found.groups()
        if len(raw) > _LONGEST:
            pending = ""
            continue
        plain = _PLAIN.match(raw)
        if plain:
            values[key] = plain.group(1) or plain.group(2) or plain.group(3) or ""
            continue
        try:
            parts = shlex.split(raw, comments=True)
        except ValueError:
            # An open quote: the value goes on, but not for ever in a broken file.
            pending = joined if len(joined) < 4096 and joined.count("\n") < _MOST_LINES else ""
            continue
        pending = ""
        values[key] = parts[0] if parts else ""
    return values


def os_release(sections: Sections) -> OsRelease | None:
    """/etc/os-release, or the vendor's in its place. None where neither could be read; an empty id where there is none."""
    found = [get(sections, name) for name in ("os_release", "os_release_vendor")]
    text = next((section.text for section in found if section.rc == 0 and section.text.strip()), None)
    if text is None:
        return OsRelease("") if all(section.rc in (0, ABSENT) for section in found) else None
    values = assignments(text)
    return OsRelease(
        id=values.get("ID", "").strip().lower() or "linux",
        version_id=values.get("VERSION_ID", "").strip(),
        codename=values.get("VERSION_CODENAME", "").strip().lower(),
        id_like=tuple(values.get("ID_LIKE", "").lower().split()),
        ubuntu_codename=values.get("UBUNTU_CODENAME", "").strip().lower(),
        debian_codename=values.get("DEBIAN_CODENAME", "").strip().lower(),
        pretty_name=values.get("PRETTY_NAME", "").strip(),
        variant_id=values.get("VARIANT_ID", "").strip().lower(),
        platform_id=values.get("PLATFORM_ID", "").strip().lower(),
    )


def mounts(sections: Sections) -> tuple[MountPoint, ...]:
    """The mounts that matter, from /proc/mounts, in the kernel's order."""
    found = []
    for row in rows(get(sections, "mounts").text):
        parts = row.split()
        if len(parts) >= 4:
            found.append(MountPoint(_unescaped(parts[0]), _unescaped(parts[1]), parts[2], tuple(parts[3].split(","))))
    return tuple(found)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda found: chr(int(found.group(1), 8)), text)


def container(sections: Sections, present: frozenset[str], found: tuple[MountPoint, ...]) -> str:
    """The kind of container this is (docker, podman, lxc, …), "" for none that is known.

    Docker's mark also stays in machines whose disk was made from an image, so it does not count where / is on a disk of its own.
    """
    named = line(sections, "container")
    if named:
        return named
    if "/run/.containerenv" in present:
        return "podman"
    on_disk = any(mount.path == "/" and re.match(r"/dev/(?:[shv]d|xvd|nvme|mmcblk)", mount.device) for mount in found)
    return "docker" if "/.dockerenv" in present and not on_disk else ""


def secure_boot(sections: Sections, present: frozenset[str]) -> bool | None:
    """Whether the firmware enforces Secure Boot. The variable is four bytes of attributes and one of value (UEFI 2.10, section 3.3)."""
    section = get(sections, "secure_boot")
    if section.rc == 0:
        values = section.text.split()
        return values[4] == "1" if len(values) >= 5 and values[4] in ("0", "1") else None
    if section.rc != ABSENT or "/sys/firmware" not in present:
        return None
    if "/sys/firmware/efi" in present:
        return False if section.text.strip() == "none" else None
    return False


def usr_writable(found: tuple[MountPoint, ...]) -> bool | None:
    """Whether /usr is mounted writable, None where no mount says so."""
    by_path = {mount.path: mount for mount in found}
    mount = by_path.get("/usr") or by_path.get("/")
    return "ro" not in mount.options if mount else None


def cloud_init(sections: Sections, present: frozenset[str], programs: frozenset[str]) -> str:
    """"" where there is none, else disabled, running, done, degraded or error (cloud-init's docs, "status.json" and "result.json")."""
    off = {"/etc/cloud/cloud-init.disabled", "/run/cloud-init/disabled"} & present
    told = [row.partition("=")[2] for row in rows(get(sections, "cmdline").text) if row.startswith("cloud-init=")]
    status = mapping((json_object(get(sections, "cloud_status").text) or {}).get("v1"))
    result = mapping((json_object(get(sections, "cloud_result").text) or {}).get("v1"))
    if not status and not result:
        if get(sections, "cloud_status").rc == 0:
            return "running"
        if off or "disabled" in told:
            return "disabled"
        if "/run/cloud-init/enabled" in present:
            return "running"
        return "disabled" if "cloud-init" in programs else ""
    if not result and (status.get("stage") or not mapping(status.get("modules-final")).get("finished")):
        return "running"
    stages = [mapping(stage) for stage in status.values()]
    if result.get("errors") or any(stage.get("errors") for stage in stages):
        return "error"
    if any(stage.get("recoverable_errors") for stage in stages):
        return "degraded"
    return "done"


def firewalls(sections: Sections, units: Mapping[str, Unit]) -> tuple[str, ...]:
    """The firewalls that are at work. ufw's unit is active even where ufw is off, so its own configuration counts."""
    firewalld = units.get("firewalld.service")
    found = ["firewalld"] if firewalld and firewalld.active == "active" else []
    if any(row.strip().lower() == "enabled=yes" for row in rows(get(sections, "ufw").text)):
        found.append("ufw")
    return tuple(found)


def instance(sections: Sections) -> dict[str, str]:
    """`type`, `region` and `zone` as the cloud's metadata service tells them; empty where it was not or could not be asked."""
    told = pairs(get(sections, "metadata").text)
    return {key: told[key] for key in ("type", "region", "zone") if re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", told.get(key, ""))}


def kernels(sections: Sections) -> dict[str, bool] | None:
    """The installed kernels and whether each has an nvidia module; None where the probe did not look."""
    section = get(sections, "kernels")
    if "kernels" not in sections or section.rc != 0:
        return None
    return {words[0]: len(words) > 1 and words[1] == "nvidia" for words in map(str.split, rows(section.text)) if words}
