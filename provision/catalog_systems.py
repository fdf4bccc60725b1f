"""Which row of `data/distros.toml` a system is: itself, the release it is derived from, or Unsupported with the nearest one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from provision.errors import Unsupported
from provision.rows import Row, version_key

if TYPE_CHECKING:
    from provision.model import OsRelease

Distros = Mapping[str, Any]
FAMILIES = ("debian", "rhel", "suse")


def joined(apt: Distros, rpm: Distros, enable_all: bool) -> dict[str, Any]:
    """The rows of both files as one. What is for later stands under "waiting"; a row of an rpm system has its base's values too."""
    later = () if enable_all else tuple(apt.get("later", ()))
    whole = {**apt, **{name: [*apt[name], *rpm[name]] for name in ("base", "refused")}}
    rows = [*apt["system"], *({**base_of(whole, row), **row} for row in rpm["system"])]
    waits = [base_of(whole, row)["family"] in later or f"{row['id']}:{row['version']}" in later for row in rows]
    whole["system"] = [row for row, wait in zip(rows, waits) if not wait]
    whole["waiting"] = [row for row, wait in zip(rows, waits) if wait]
    # A row of [[later_refused]] refuses only while its family is for later; afterwards what it names is just not known.
    whole["later_refused"] = [row for row in apt["later_refused"] if row["family"] in later]
    return whole


def exact(distros: Distros, os: OsRelease) -> Row | None:
    """The row of a system by its id and version."""
    identity = os.id.lower()
    return next((row for row in distros["system"] if row["id"] == identity and _same(row, os.version_id)), None)


def _same(row: Row, version: str) -> bool:
    if row.get("match") != "major":
        return bool(row["version"] == version)
    return version.split(".", 1)[0] == row["version"] and version_key(version) >= version_key(row.get("minimum", ""))


def identify(distros: Distros, os: OsRelease) -> tuple[Row, Row | None]:
    """The system's row, and the derivative's own row where it is one. Raises Unsupported.

    Order: the exact id and version; systems known and refused; a derivative that names its base's release (UBUNTU_CODENAME, DEBIAN_CODENAME, a
    codename that is the base's). ID_LIKE alone never decides: Oracle Linux says fedora, Nobara says rhel, and both are neither.
    """
    systems: list[Row] = distros["system"]
    identity = os.id.lower()
    row = exact(distros, os)
    if row is not None:
        return row, None
    _refuse(distros, os)
    own = [row for row in systems if row["id"] == identity]
    if own:
        raise _unknown(distros, os, _title(distros, _nearest(own, os.version_id)))
    known = next((row for row in distros["derivative"] if row["id"] == identity), None)
    parent = _parent(systems, os, known)
    if parent is not None:
        return parent, known or {"name": os.pretty_name or identity}
    raise _unknown(distros, os, _alike(distros, os))


def supported(distros: Distros) -> str:
    """The sentence that lists what is supported."""
    versions: dict[str, list[str]] = {}
    for row in distros["system"]:
        if "deb_arch" not in row:
            versions.setdefault(_called(distros, row), []).append(row["version"])
    parts = [f"{name} {', '.join(found)}" for name, found in versions.items()]
    names = [row["name"] for row in distros["derivative"]]
    return f"Supported are {'; '.join(parts)}; and {', '.join(names)} of the same age."


def base_of(distros: Distros, row: Row) -> Row:
    """The row of the base that a system belongs to."""
    name = row.get("base", row["id"])
    found: Row = next(base for base in distros["base"] if base["id"] == name)
    return found


def _parent(systems: list[Row], os: OsRelease, known: Row | None) -> Row | None:
    """The supported release that a derivative says it is made from. A codename of its own making says nothing."""
    bases = known["bases"] if known else ("ubuntu", "debian")
    named = [("ubuntu", os.ubuntu_codename), ("debian", os.debian_codename)]
    named += [(base, os.codename) for base in ("ubuntu", "debian") if known or base in os.id_like]
    for base, codename in named:
        for row in systems:
            if base in bases and row["id"] == base and codename and row["codename"] == codename:
                return row
    if not known or os.ubuntu_codename or os.debian_codename:
        return None
    declared = known.get("versions", {}).get(os.version_id, "")
    return next((row for row in systems if f"{row['id']} {row['version']}" == declared), None)


def _refuse(distros: Distros, os: OsRelease) -> None:
    """Raise Unsupported for a system that is known and is not set up."""
    identity, likes = os.id.lower(), set(os.id_like)
    row: Row | None = next(
        (r for r in distros["refused"] if r["id"] == identity and os.version_id in r.get("versions", (os.version_id,))), None
    )
    if row is None:
        # A derivative of a base that is set up is not refused for what else it says it is like.
        ours = {"debian", "ubuntu"} & {identity, *likes}
        rows = () if ours else (*distros["later_refused"], *distros["refused"])
        row = next((r for r in rows if _matches(r, identity, os.platform_id, likes)), None)
        row = row or next((r for r in distros["later_refused"] if identity in r["ids"] and os.version_id in r.get("versions", ())), None)
    if row is not None:
        raise Unsupported(f"{_name(os)} {row['why']}.", f"{row['fix']} {supported(distros)}")


def _matches(row: Row, identity: str, platform: str, likes: set[str]) -> bool:
    return identity in row.get("ids", ()) or platform in row.get("platforms", ()) or bool(likes & set(row.get("likes", ())))


def _unknown(distros: Distros, os: OsRelease, nearest: str) -> Unsupported:
    hint = f"The nearest supported system is {nearest}. " if nearest else ""
    return Unsupported(f"{_name(os)} is not a system that mlhost knows how to set up.", hint + supported(distros))


def _name(os: OsRelease) -> str:
    return os.pretty_name or f"{os.id or 'This system'} {os.version_id or os.codename}".strip()


def _called(distros: Distros, row: Row) -> str:
    """The name of a system without its version."""
    own = base_of(distros, row)["name"] if row["id"] in ("debian", "ubuntu") else row["id"].capitalize()
    return str(row.get("name", own))


def _title(distros: Distros, row: Row) -> str:
    return f"{_called(distros, row)} {row.get('minimum') or row['version']}"


def _alike(distros: Distros, os: OsRelease) -> str:
    """The supported system whose id resembles this one's, or what it is derived from; "" where nothing does."""
    import difflib  # only for refusals

    newest = {row["id"]: row for row in distros["system"]}
    names = {row["id"]: str(row["name"]) for row in distros["derivative"]}
    names.update({key: _title(distros, row) for key, row in newest.items()})
    # What a clone is built against says more than what it says it is like: Nobara is like rhel, and is Fedora.
    kind = re.match(r"platform:(el|f)(\d+)$", os.platform_id)
    relatives = [row for row in distros["system"] if kind and row["id"] == {"el": "rocky", "f": "fedora"}[kind[1]]]
    if kind and relatives:
        return _title(distros, _nearest(relatives, kind[2]))
    for word in (os.id.lower(), *os.id_like):
        for close in difflib.get_close_matches(word, names, 1):
            return names[close]
    return ""


def _nearest(rows: list[Row], version: str) -> Row:
    """The row with the newest version that is not newer than `version`; the newest where `version` is none, the oldest where it is older than all."""
    ordered = sorted(rows, key=lambda row: version_key(row["version"]))
    wanted = version_key(version)
    older = [row for row in ordered if version_key(row["version"]) <= wanted]
    return older[-1] if older else ordered[0] if wanted else ordered[-1]
