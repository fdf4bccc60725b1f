"""The page of supported systems and GPUs, made from the catalog: `python -m provision.support_docs > docs/support.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from provision.catalog import Catalog, load, packaged
from provision.model import OsRelease
from provision.rows import Branch, Platform, Repository, Row

_HEAD = """\
# What mlhost supports

<!-- Made by `python -m provision.support_docs`; change provision/data/*.toml instead. -->

Every row below is a row of the catalog (`provision/data/*.toml`), with the day on which its facts were last read from the source that the row names;
"unverified" means that nobody has checked all of them against a source. A vendor's repository is used only where the full fingerprint of its
signing key is known, and only for the systems named here. How a system or a GPU is added: [adding-a-system.md](adding-a-system.md).
"""

_GPUS = """\
## GPUs

The generation is known from the PCI device id alone, so GPUs without a name of their own in the catalog are set up too. The oldest GPU of a machine
decides on the branch. Mixes that no single driver serves (Volta or older beside Blackwell) are refused.
"""

_CLOUDS = """\
## Clouds

Known from the firmware alone; where an instance type decides something that the machine does not show by itself, it is in this table.
"""


def page(waiting: Catalog | None = None, every: Catalog | None = None) -> str:
    """The whole page, Markdown. `waiting` is the catalog as this release uses it, `every` the one with all systems set up."""
    now, whole = waiting or load(), every or load(enable_all=True)
    lines = [_HEAD, *_systems(now, whole), *_derivatives(now), *_gpus(now), *_branches(now), *_clouds(), *_refused(now)]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(head)
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [*lines, ""]


def _platforms(catalog: Catalog, row: Row) -> list[Platform]:
    version = row.get("minimum") or row["version"]
    release = OsRelease(row["id"], version, row.get("codename", ""))
    arches = ("x86_64", "aarch64") if "deb_arch" not in row else ("armv7l",)
    return [catalog.platform(release, arch) for arch in arches]


def _systems(now: Catalog, whole: Catalog) -> Iterator[str]:
    yield "## Systems"
    yield ""
    yield "On x86_64 and, where not said otherwise, aarch64 (arm64 servers).\n"
    yield from _table(_COLUMNS, (_system(whole, row) for row in now.systems))
    if now.waiting:
        yield "### Known, and not set up by this release"
        yield ""
        yield "These are recognised and refused for now, with exit code 5; what would be used on them is in the catalog already.\n"
        yield from _table(_COLUMNS, (_system(whole, row) for row in now.waiting))
    noted = [row for row in whole.systems if row.get("notes") or row.get("withheld")]
    if noted:
        yield "### Notes"
        yield ""
        seen: dict[str, list[str]] = {}
        for row in noted:
            for note in (*row.get("notes", ()), *(f"`{name}` is not used: {why}." for name, why in row.get("withheld", {}).items())):
                seen.setdefault(note, []).append(_title(row))
        yield from (f"- {', '.join(titles)}: {note}" for note, titles in seen.items())
        yield ""


_COLUMNS = ("System", "Docker", "Driver", "Container toolkit", "End of life", "Checked")


def _title(row: Row) -> str:
    name = row.get("name") or {"debian": "Debian", "ubuntu": "Ubuntu"}.get(row["id"], row["id"].capitalize())
    return f"{name} {row['minimum']} and newer" if row.get("minimum") else f"{name} {row['version']}"


def _system(catalog: Catalog, row: Row) -> list[str]:
    both = _platforms(catalog, row)
    first = both[0]
    return [_title(row), _docker(catalog, first), _driver(catalog, both), _toolkit(catalog, first), first.eol or "not announced", row["verified"]]


def _host(repository: Repository | None, name: str) -> str:
    return f"{name} (`{repository.hosts[0]}`)" if repository else ""


def _docker(catalog: Catalog, platform: Platform) -> str:
    vendor = _host(catalog.repository("docker", platform), "Docker's")
    if vendor and platform.docker_frozen:
        vendor += f", frozen at {platform.docker_newest}" if platform.docker_newest else ", frozen"
    own = " ".join(f"`{name}`" for name in platform.distro_docker_packages)
    return " or ".join(filter(None, (vendor, own))) or "none"


def _offers(catalog: Catalog, platform: Platform, source: str) -> list[Branch]:
    """The branches that a source has, by any flavour, for the kernel that the system is delivered with."""
    found = []
    for branch in catalog.branches:
        kernel = _kernel(platform)
        if any(catalog.driver_packages(platform, source, branch.number, flavor, kernel) for flavor in branch.flavors):
            found.append(branch)
    return found


def _kernel(platform: Platform) -> str:
    """A kernel release of the form that the system's own have; only its form counts."""
    old = {"ubuntu:16.04": "4.4.0-210-generic", "amzn:2": f"5.10.245-241.978.amzn2.{platform.rpm_arch}"}
    if platform.base in old:
        return old[platform.base]
    return {
        "ubuntu": "6.8.0-31-generic", "debian": f"6.1.0-37-{platform.deb_arch}", "el": f"6.1.0-1.el{platform.base_version}.{platform.rpm_arch}",
        "fedora": f"6.1.0-1.fc{platform.base_version}.{platform.rpm_arch}", "amzn": f"6.1.0-1.amzn2023.{platform.rpm_arch}",
        "azurelinux": "6.6.57.1-1.azl3",
    }.get(platform.base_id, "6.4.0-1-default")  # fmt: skip


def _driver(catalog: Catalog, both: list[Platform]) -> str:
    parts: dict[str, list[str]] = {}
    for platform in both:
        for source in (*platform.driver_sources, "runfile"):
            offers = _offers(catalog, platform, source)
            if offers:
                text = f"{_SOURCES[source]}: {', '.join(branch.number for branch in offers)}"
                parts.setdefault(text, []).append(platform.arch)
    if not parts:
        why = dict(both[0].withheld).get("cuda", "")
        return "none" + (" (the key is not verified)" if "fingerprint" in why else "")
    arches = [platform.arch for platform in both]
    return "; ".join(text if found == arches else f"{text} ({', '.join(found)} only)" for text, found in parts.items())


_SOURCES = {"cuda": "NVIDIA's", "distro": "the distribution's", "runfile": "NVIDIA's .run installer, where no package serves"}


def _toolkit(catalog: Catalog, platform: Platform) -> str:
    vendor = _host(catalog.repository("toolkit", platform), "NVIDIA's")
    own = " ".join(f"`{name}` of the distribution" for name in platform.toolkit_distro)
    return " or ".join(filter(None, (own, vendor))) or "none"


def _derivatives(catalog: Catalog) -> Iterator[str]:
    yield "Derivatives are set up as the release that they name in os-release: " + ", ".join(row["name"] for row in catalog.derivatives) + ".\n"


def _gpus(catalog: Catalog) -> Iterator[str]:
    yield _GPUS
    data: dict[str, Any] = packaged("gpus")
    named = {group["generation"]: len(group["rows"]) for group in data["parts"]}
    rows = []
    for row in data["generation"]:
        kind = catalog.generation(row["name"])
        served = [branch.number for branch in catalog.branches if catalog.supports(branch, kind.name)]
        preferred = next((number for number in catalog.preferred_branches if number in served), "")
        last = kind.last_branch or "current"
        branches = f"{preferred} first, of {', '.join(served)}" if preferred else "none: refused"
        rows.append([kind.title, kind.capability, branches, last, ", ".join(kind.flavors), str(named.get(kind.name, 0)), row["verified"]])
    yield from _table(("Generation", "Compute capability", "Branches", "Last branch", "Kernel modules, default first", "Named GPUs", "Checked"), rows)
    slices = ", ".join(f"{row['name']} ({row['where']})" for row in data["vgpu"])
    switches = ", ".join(f"{row['name']} (`10de:{row['device']}`)" for row in data["nvswitch"])
    yield f"Slices of a GPU, which need NVIDIA's licensed GRID driver: {slices}.\n"
    yield f"Switches that need the fabric manager: {switches}.\n"


def _branches(catalog: Catalog) -> Iterator[str]:
    yield "## Driver branches\n"
    rows = []
    for row in packaged("drivers")["branch"]:
        branch = catalog.branch(row["number"])
        cuda = catalog.cuda_for_driver(branch.number) or ""
        rows.append([branch.number, branch.kind, branch.newest_release, cuda, ", ".join(branch.flavors), branch.eol or "not announced", row["verified"]])
    yield from _table(("Branch", "Kind", "Newest seen", "CUDA", "Kernel modules", "End of life", "Checked"), rows)


def _clouds() -> Iterator[str]:
    yield _CLOUDS
    data: dict[str, Any] = packaged("instances")
    names = {row["id"]: row["name"] for row in packaged("clouds")["cloud"]}
    rows = []
    for row in data["instance"]:
        needs = {"grid": "GRID driver", "datacenter": "data-center driver"}.get(row["driver"], "not NVIDIA's: nothing is installed for it")
        more = "; fabric manager" if row["nvswitch"] else ""
        types = ", ".join(f"`{pattern}`" for pattern in row["types"])
        rows.append([names[row["cloud"]], types, row["gpu"], needs + more, row["note"], row["verified"]])
    yield from _table(("Cloud", "Instance types", "Accelerator", "Needs", "Note", "Checked"), rows)
    yield "Images that have everything built in, where only what does not work is changed:\n"
    yield from _table(
        ("Image", "Known by", "Has", "Note", "Checked"),
        ([row["name"], ", ".join(f"`{path}`" for path in row["paths"]), ", ".join(row["has"]), row["note"], row["verified"]] for row in data["image"]),
    )


def _refused(catalog: Catalog) -> Iterator[str]:
    yield "## Recognised and refused\n"
    rows = []
    for row in catalog.refused:
        versions = f" {', '.join(row['versions'])}" if "versions" in row else ""
        rows.append([f"{row['name']}{versions}", f"It {row['why']}.", row["fix"]])
    for row in packaged("distros")["environment"]:
        rows.append([row["name"][0].upper() + row["name"][1:], f"It {row['why']}.", row["fix"]])
    yield from _table(("What", "Why", "What to do instead"), rows)


if __name__ == "__main__":
    sys.stdout.write(page())
