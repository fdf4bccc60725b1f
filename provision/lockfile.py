"""A lock: what a playbook comes to for kinds of hosts, in exact versions and hashes, as one readable file. Pure.

The file is YAML, with sorted keys and no dates, so that two of them can be compared line by line. `data/schema/lock.json` describes it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provision.errors import UsageError
from provision.model import Facts

FORMAT = 1
MAX_BYTES = 8 << 20
_AGAIN = "Make the lock again with `mlhost lock`."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?")
_URI = re.compile(r"(https?|ftp|file)://?[!-~]+")
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]+")


@dataclass(frozen=True)
class LockedPackage:
    """A package at one version. `sha256` and `size` (bytes) are those of its file, "" and 0 where it was installed and no source offers that version.

    `asked`: the plan itself names it; the others are what it depends on. `uri` is where the file was offered, without any password.
    """

    version: str
    arch: str = ""
    sha256: str = ""
    size: int = 0
    asked: bool = False
    uri: str = ""


@dataclass(frozen=True)
class LockedRepository:
    """A vendor's repository, with the full fingerprints of the keys that may sign it."""

    uri: str
    suite: str = ""
    components: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostClass:
    """One kind of host. `gpus` are PCI ids, each once, sorted; `playbook` is the sha256 of the effective values; `kernels` those of its hosts.

    `engine` is where Docker comes from ("" where the playbook leaves it), `driver` the branch, flavour and source of the driver in words.
    """

    distro: str
    version: str
    arch: str
    playbook: str
    gpus: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    engine: str = ""
    driver: str = ""
    packages: Mapping[str, LockedPackage] = field(default_factory=dict)
    repositories: Mapping[str, LockedRepository] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def system(self) -> tuple[str, str, str, tuple[str, ...]]:
        return (self.distro, self.version, self.arch, self.gpus)

    @property
    def words(self) -> str:
        """For people: `debian 13 on x86_64 with 10de:2330`."""
        return f"{self.distro} {self.version} on {self.arch} " + (f"with {', '.join(self.gpus)}" if self.gpus else "without an NVIDIA GPU")


@dataclass(frozen=True)
class Lock:
    """Kinds of hosts by a name that is theirs in this lock."""

    classes: Mapping[str, HostClass]


def system_of(facts: Facts) -> tuple[str, str, str, tuple[str, ...]]:
    """What makes a host one of a kind: distribution, version, architecture, and the PCI ids of its GPUs."""
    gpus = tuple(sorted({f"{gpu.vendor}:{gpu.device}" for gpu in facts.gpus}))
    return (facts.os.id, facts.os.version_id or facts.os.codename, facts.arch, gpus)


def name_of(kind: HostClass) -> str:
    """`debian-13-x86_64`, with the GPUs' device ids where there are any."""
    return "-".join((kind.distro, kind.version, kind.arch, *(gpu.partition(":")[2] for gpu in kind.gpus)))


def classified(kinds: Iterable[HostClass]) -> Lock:
    """A lock of these kinds, those of hosts of one kind taken together. Raises UsageError where two have one package at two versions."""
    found: dict[tuple[object, ...], HostClass] = {}
    for kind in kinds:
        key = (*kind.system, kind.playbook)
        found[key] = _together(found[key], kind) if key in found else kind
    classes: dict[str, HostClass] = {}
    for kind in found.values():
        name = name_of(kind)
        classes[name if name not in classes else f"{name}-{kind.playbook[:8]}"] = kind
    return Lock(dict(sorted(classes.items())))


def _together(one: HostClass, other: HostClass) -> HostClass:
    packages = dict(one.packages)
    for name, package in other.packages.items():
        mine = packages.get(name)
        if mine is None or (not mine.sha256 and package.sha256):
            packages[name] = package
        elif mine.version == package.version or not package.sha256:
            packages[name] = dataclasses.replace(mine, asked=mine.asked or package.asked)
        else:
            raise UsageError(
                f"Hosts of one kind ({one.words}) come to different versions of {name}: {mine.version} and {package.version}.",
                "Their package sources differ. Bring them to one version first, or lock one of them.",
            )
    kernels = tuple(sorted({*one.kernels, *other.kernels}))
    return dataclasses.replace(
        one, kernels=kernels, packages=packages, engine=one.engine or other.engine, driver=one.driver or other.driver,
        repositories={**one.repositories, **other.repositories}, images={**one.images, **other.images},
    )


def dump(lock: Lock, header: Sequence[str] = ()) -> str:
    """The file's text: `header` lines as comments, then the lock."""
    import yaml

    document = {"mlhost_lock": FORMAT, "classes": {name: plain(kind) for name, kind in lock.classes.items()}}
    body = yaml.safe_dump(document, sort_keys=True, allow_unicode=False, width=1000, default_flow_style=False)
    return "".join(f"# {line}\n" for line in header) + str(body)


def plain(kind: HostClass) -> dict[str, Any]:
    """A kind of host as JSON values; what is empty is left out."""
    value = _plain(dataclasses.asdict(kind))
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item not in ("", (), [], {}, 0, False, None)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def load(content: bytes, where: str) -> Lock:
    """A lock file's content, checked. `where` names it in messages. Raises UsageError for what is none."""
    import yaml

    if len(content) > MAX_BYTES:
        raise UsageError(f"{where} is too big to be a lock ({len(content)} bytes).", _AGAIN)
    class Plain(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        """Without anchors and what refers to them, which could make much of little."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it refers to an anchor, which no lock does")
            return super().compose_node(parent, index)

    try:
        document = yaml.load(content.decode("utf-8"), Plain)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{where} is no lock: {' '.join(str(error).split())[:200]}.", _AGAIN) from None
    if not isinstance(document, dict) or "mlhost_lock" not in document:
        raise UsageError(f"{where} is no lock of mlhost.", "Make one with `mlhost lock -o FILE`.")
    return of_values(document, where)


def of_values(document: Mapping[str, Any], where: str) -> Lock:
    """A lock from JSON values. Raises UsageError, naming what is wrong."""
    if document.get("mlhost_lock") != FORMAT:
        raise UsageError(f"{where} is a lock of another format ({document.get('mlhost_lock')!r}; this mlhost reads {FORMAT}).", _AGAIN)
    classes = document.get("classes")
    if not isinstance(classes, dict) or not classes:
        raise UsageError(f"{where} holds no class of hosts.", _AGAIN)
    return Lock({str(name): _kind(value, f"{where}: classes.{name}") for name, value in classes.items()})


def _kind(value: object, where: str) -> HostClass:
    fields = _fields(value, HostClass, where)
    texts = {name: _text(fields.get(name, ""), f"{where}.{name}") for name in ("distro", "version", "arch", "playbook", "engine", "driver")}
    for name in ("distro", "version", "arch", "playbook"):
        if not texts[name]:
            raise UsageError(f"{where} has no {name}.", _AGAIN)
    packages = {}
    for name, package in _map(fields.get("packages"), f"{where}.packages").items():
        packages[name] = _package(name, package, f"{where}.packages.{name}")
    repositories = {}
    for name, repository in _map(fields.get("repositories"), f"{where}.repositories").items():
        at = f"{where}.repositories.{name}"
        parts = _fields(repository, LockedRepository, at)
        lists = {key: _texts(parts.get(key), f"{at}.{key}") for key in ("components", "keys")}
        repositories[name] = LockedRepository(_text(parts.get("uri", ""), at), _text(parts.get("suite", ""), at), **lists)
    images = {name: _text(digest, f"{where}.images") for name, digest in _map(fields.get("images"), f"{where}.images").items()}
    lists = {name: _texts(fields.get(name), f"{where}.{name}") for name in ("gpus", "kernels")}
    return HostClass(**texts, **lists, packages=packages, repositories=repositories, images=images)  # type: ignore[arg-type]


def _package(name: str, value: object, where: str) -> LockedPackage:
    parts = _fields(value, LockedPackage, where)
    version, arch, sha256 = (_text(parts.get(key, ""), f"{where}.{key}") for key in ("version", "arch", "sha256"))
    size, asked = parts.get("size", 0), parts.get("asked", False)
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise UsageError(f"{where}: {name!r} at {version!r} is no package.", _AGAIN)
    if sha256 and not _SHA256.fullmatch(sha256):
        raise UsageError(f"{where}: {sha256[:80]!r} is no SHA-256 hash.", _AGAIN)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(asked, bool):
        raise UsageError(f"{where}: size is a number of bytes and asked is true or false.", _AGAIN)
    uri = _text(parts.get("uri", ""), f"{where}.uri")
    if uri and not _URI.fullmatch(uri):
        raise UsageError(f"{where}: {uri[:80]!r} is no address to fetch from.", _AGAIN)
    return LockedPackage(version, arch, sha256, size, asked, uri)


def _fields(value: object, kind: type, where: str) -> Mapping[str, Any]:
    known = {f.name for f in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        raise UsageError(f"{where} is no mapping.", _AGAIN)
    strange = next((str(key) for key in value if key not in known), None)
    if strange is not None:
        raise UsageError(f"{where} has {strange[:80]!r}, which no lock has.", _AGAIN)
    return value


def _map(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{where} is no mapping of names.", _AGAIN)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or any(ord(letter) < 32 for letter in value):
        raise UsageError(f"{where} is no text on one line (a version must be quoted).", _AGAIN)
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise UsageError(f"{where} is no list.", _AGAIN)
    return tuple(_text(item, where) for item in value)
