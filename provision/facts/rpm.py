"""rpm's side: packages, repository files, module streams and version locks (dnf.conf(5), zypper's locks(5), versionlock.toml of dnf 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from provision.facts.text import Sections, get, line, rows
from provision.model import Lock, Package, RpmSource

_OFF = ("0", "no", "false", "off")
_DATABASES = ("/var/lib/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db",
              "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/Packages.db")
_FOLDERS = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_MANAGERS = ("apt-get", "dnf5", "dnf", "tdnf", "yum", "microdnf", "zypper")


def has_database(present: frozenset[str], live: bool) -> bool:
    """Whether rpm keeps packages here: a folder says so on a live system, in a tree only a file in it."""
    return bool(present & frozenset(_DATABASES)) or (live and bool(present & frozenset(_FOLDERS)))


def packages(sections: Sections) -> dict[str, Package] | None:
    """The packages that matter, by name; of a name that is installed in several versions (kernels) the one that rpm names last.

    Kernels are there by their full name too (`kernel-devel-5.14.0-427.el9.x86_64`). None if rpm was not or could not be asked.
    """
    section = get(sections, "rpm")
    if section.rc != 0:
        return None
    found: dict[str, Package] = {}
    held = holds(sections)
    for row in rows(section.text):
        parts = row.split()
        if len(parts) != 3 or parts[0] == "gpg-pubkey":
            continue
        name, arch, version = parts[0], parts[1], parts[2].replace("(none):", "")
        found[name] = Package(name, version, held=name in held, arch=arch)
        if name.startswith("kernel"):
            full = f"{name}-{version.partition(':')[2] or version}.{arch}"
            found[full] = replace(found[name], name=full)
    return found


def keys(sections: Sections) -> tuple[str, ...]:
    """The keys that rpm trusts: the last 8 digits of their fingerprints (rpm before 6) or all of them, lower case."""
    found = (row.split() for row in rows(get(sections, "rpm").text))
    versions = (parts[2].replace("(none):", "").partition("-")[0] for parts in found if len(parts) == 3 and parts[0] == "gpg-pubkey")
    return tuple(version.partition(":")[2] or version for version in versions)


def holds(sections: Sections) -> frozenset[str]:
    """The names of packages that a version lock holds. A lock on a pattern stands for itself."""
    found: set[str] = set()
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if kind != "lock" or section.rc != 0:
            continue
        for row in rows(section.text):
            text = row.strip()
            if text.startswith(("#", "!")):
                continue
            if path.endswith(".toml"):
                told = re.match(r'name\s*=\s*"([^"]*)"', text)
            elif path == "/etc/zypp/locks":
                told = re.match(r"solvable_name:\s*(\S+)", text)
            elif path.startswith("/etc/yum/"):
                told = re.match(r"\d+:(\S+)-[^-]+-[^-]+\Z", text)
            elif path.startswith("/etc/tdnf/"):
                told = re.match(r"(\S+)\Z", text)
            else:
                told = re.match(r"(\S+)-\d+:[^-]+-[^-]+\Z", text) or re.match(r"(\S+)\Z", text)
            if told:
                found.add(told.group(1))
    return frozenset(found)


def repo_file(path: str, text: str) -> tuple[RpmSource, ...]:
    """The repositories of a `.repo` file, in their order. A file that is no INI file has none."""
    import configparser  # most machines have no such file

    reader = configparser.RawConfigParser(strict=False, empty_lines_in_values=False, allow_no_value=True, delimiters=("=",))
    try:
        reader.read_string(text.replace("\r", ""), path)
    except (configparser.Error, AttributeError):  # before Python 3.13 a line that goes on from a key without a value is the latter
        return ()
    found = []
    for name in reader.sections():
        if name == "main":
            continue
        values = {key: (value or "").strip() for key, value in reader.items(name)}
        found.append(RpmSource(
            path=path, id=name, name=values.get("name", ""),
            enabled=values.get("enabled", "1").lower() not in _OFF,
            baseurl=_words(values.get("baseurl", "")), mirrorlist=values.get("mirrorlist", ""), metalink=values.get("metalink", ""),
            gpgcheck=_flag(values, "gpgcheck"), repo_gpgcheck=_flag(values, "repo_gpgcheck"), gpgkey=_words(values.get("gpgkey", "")),
            module_hotfixes=bool(_flag(values, "module_hotfixes")),
            exclude=_words(values.get("excludepkgs", "") + " " + values.get("exclude", "")),
        ))
    return tuple(found)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def _flag(values: Mapping[str, str], key: str) -> bool | None:
    value = values.get(key, "").lower()
    return None if not value else value not in _OFF


def sources(sections: Sections) -> tuple[tuple[RpmSource, ...], dict[str, str]]:
    """The repositories of all `.repo` files, and the files' texts by path."""
    entries: list[RpmSource] = []
    texts: dict[str, str] = {}
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if kind == "file" and path.endswith(".repo") and section.rc == 0:
            texts[path] = section.text
            entries += repo_file(path, section.text)
    return tuple(entries), texts


def modules(sections: Sections) -> dict[str, str]:
    """The enabled stream of each dnf module. dnf 5 keeps all in one file, dnf 4 has one each."""
    found: dict[str, str] = {}
    for name, section in sections.items():
        if not name.startswith("module:") or section.rc != 0:
            continue
        here = stream = state = ""
        for row in (*rows(section.text), "[]"):
            text = row.strip()
            if text.startswith("["):
                if here and stream and state == "enabled":
                    found[here] = stream
                here, stream, state = text.strip("[]").replace("modules.", "", 1).strip('"'), "", ""
                continue
            key, _, value = text.partition("=")
            value = value.strip().strip('"')
            if key.strip() in ("stream", "enabled_stream"):
                stream = value
            elif key.strip() == "state":
                state = value.lower()
    return found


def managers(programs: Mapping[str, str]) -> tuple[str, ...]:
    """The package managers that are there."""
    return tuple(name for name in _MANAGERS if name in programs)


def initramfs(programs: Mapping[str, str]) -> str:
    """The program that makes the initial ramdisk, "" if none is known."""
    return next((name for name in ("update-initramfs", "dracut", "mkinitrd") if name in programs), "")


def selinux(sections: Sections, present: frozenset[str], live: bool) -> str | None:
    """enforcing, permissive or disabled; "" where there is no SELinux, None if unknown. Of a tree its configuration tells."""
    if live:
        now = line(sections, "selinux")
        if now in ("0", "1"):
            return "enforcing" if now == "1" else "permissive"
        if now is None and "selinux" in sections:
            return None
    told = [row.partition("=")[2].strip().lower() for row in rows(get(sections, "selinux_config").text) if row.strip().startswith("SELINUX=")]
    if live:
        return "disabled" if told else ""
    return told[-1] if told and told[-1] in ("enforcing", "permissive", "disabled") else ""


def releasever(sections: Sections) -> str:
    """What an administrator has fixed `$releasever` to, "" if nothing."""
    return line(sections, "releasever") or line(sections, "releasever_yum") or ""


def lock_pids(sections: Sections) -> tuple[Lock, ...]:
    """The package managers that say in a file of their own who they are."""
    found = []
    for row in rows(get(sections, "lock_pids").text):
        parts = row.split(None, 2)
        if len(parts) >= 2 and re.fullmatch(r"[0-9]{1,9}", parts[1]):
            found.append(Lock(parts[0], int(parts[1]), parts[2] if len(parts) == 3 else ""))
    return tuple(found)
