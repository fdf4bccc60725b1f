"""The facts of the world: systems, repositories, signing keys, GPUs, driver branches, CUDA releases, clouds.

They live in `data/*.toml`, nowhere in code. `load()` gives a Catalog, which reads a file when it is first asked something that the file knows.
All answers are frozen (`provision.rows`). Nothing here looks at a machine.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from provision import catalog_platform, catalog_systems
from provision.errors import Unsupported
from provision.rows import (
    Branch,
    DriverPackages,
    FabricPackages,
    Generation,
    GpuModel,
    Image,
    Instance,
    Kernel,
    Platform,
    Repository,
    Row,
    filled,
    version_key,
)
from provision.shipped import shipped_toml

if TYPE_CHECKING:
    from provision.model import OsRelease

__all__ = ["Branch", "Catalog", "DriverPackages", "FabricPackages", "Generation", "GpuModel", "Platform", "Repository", "load", "version_key"]


_reading = threading.Lock()


@lru_cache(maxsize=16)
def _packaged(name: str) -> dict[str, Any]:
    return shipped_toml(f"data/{name}.toml")


def packaged(name: str) -> dict[str, Any]:
    """The parsed content of a packaged data file by its name without ".toml"; shared, so not to be changed."""
    # Many hosts ask at the same moment for what nobody has read yet.
    with _reading:
        return _packaged(name)


def load(read: Callable[[str], dict[str, Any]] = _packaged, enable_all: bool = False) -> Catalog:
    """The catalog. `read` gives the parsed content of a data file by its name without ".toml"; the default reads the packaged ones.

    With `enable_all` the systems count as set up that this release leaves for later (`later` in distros.toml).
    """
    return Catalog(read, enable_all)


class Catalog:
    """Answers about the world. What finds nothing returns None; `platform` raises Unsupported, a name that is in no row KeyError."""

    def __init__(self, read: Callable[[str], dict[str, Any]], enable_all: bool = False) -> None:
        self._read = read
        self._enable_all = enable_all

    # ------------------------------------------------------------ systems

    def platform(self, os: OsRelease, arch: str) -> Platform:
        """The platform of a system, from its os-release and `uname -m`. Raises Unsupported (exit code 5) naming the nearest supported system."""
        apt = self._read("distros")
        found = catalog_systems.exact(apt, os)
        ready = found is not None and (self._enable_all or f"{found['id']}:{found['version']}" not in apt.get("later", ()))
        distros = apt if ready else self._distros  # most machines need no look at the file of the others
        row, derivative = catalog_systems.identify(distros, os)
        return catalog_platform.platform(distros, row, derivative, os, arch)

    def environment(self, name: str) -> Unsupported:
        """The error to raise for a surrounding that forbids everything: wsl, container, ostree, readonly, tegra. KeyError for another name."""
        row = {entry["id"]: entry for entry in self._read("distros")["environment"]}[name]
        return Unsupported(f"This is {row['name']}: it {row['why']}.", row["fix"])

    @property
    def systems(self) -> tuple[Row, ...]:
        """Every system that is set up, for the table of supported systems."""
        return tuple(MappingProxyType(row) for row in self._distros["system"])

    @property
    def waiting(self) -> tuple[Row, ...]:
        """Every system that has a row and is not set up by this release."""
        return tuple(MappingProxyType(row) for row in self._distros["waiting"])

    @property
    def refused(self) -> tuple[Row, ...]:
        """Every system that is recognised and refused: id, versions where only some are, name, why, fix."""
        return tuple(MappingProxyType(row) for row in self._distros["refused"])

    @property
    def derivatives(self) -> tuple[Row, ...]:
        """Every derivative that is set up as the release it is made from."""
        return tuple(MappingProxyType(row) for row in self._distros["derivative"])

    @cached_property
    def _distros(self) -> dict[str, Any]:
        return catalog_systems.joined(self._read("distros"), self._read("distros_rpm"), self._enable_all)

    # ------------------------------------------------------------ repositories

    def repository(self, name: str, platform: Platform) -> Repository | None:
        """The repository (docker, toolkit, cuda, epel, microsoft) as this platform uses it, or None where the vendor does not serve it."""
        return catalog_platform.repository(self._read("repositories"), name, platform)

    # ------------------------------------------------------------ GPUs

    def gpu(self, device_id: str, subsystem: str | None = None) -> GpuModel:
        """What is known of a GPU by its PCI device id (four hex digits) and its subsystem device id ("1733", "10de:1733", None = unknown).

        An id without a row of its own is named after the generation whose range it falls into; outside every range the generation is "unknown".
        """
        device = _hex(device_id)
        generation, row = self._parts.get(device, ("", ()))
        if not generation:
            generation = next((g for low, high, g in self._gpus["ranges"]["rows"] if low <= device <= high), "unknown")
        kind = self.generation(generation)
        vendor, _, sub = (subsystem or "").lower().rpartition(":")
        slices = [r for r in self._gpus["vgpu"] if r["device"] == device and _hex(sub) in r["subsystems"]]
        vgpu = bool(slices) and vendor in ("", "10de", "0x10de")
        board = next((r for r in self._gpus["board"] if r["device"] == device and _hex(sub) == r["subsystem"]), None)
        title = f"{'' if generation == 'unknown' else kind.title + ' '}GPU (10de:{device})"
        flags = row[3].split() if len(row) > 3 else []
        return GpuModel(
            device_id=device,
            name="NVIDIA " + (slices[0]["name"] if vgpu else board["name"] if board else row[1] if row else title),
            generation=generation,
            vgpu=vgpu,
            open_only=kind.flavors == ("open",) or "open" in flags,
            min_driver=row[2] if len(row) > 2 else "",
            nvlink5="nvlink5" in flags,
            grace="grace" in flags,
            tegra="tegra" in flags,
        )

    def is_nvswitch(self, device_id: str) -> bool:
        """Whether this device (PCI class 0680) is a switch that needs the fabric manager."""
        return any(row["device"] == _hex(device_id) for row in self._gpus["nvswitch"])

    def switch_of(self, generation: str) -> str:
        """The device id of the switch that joins GPUs of a generation; "" where none of theirs is on the PCI bus."""
        return next((str(row["device"]) for row in self._gpus["nvswitch"] if row["generation"] == generation), "")

    @property
    def gpu_models(self) -> tuple[GpuModel, ...]:
        """Every GPU that has a row of its own."""
        return tuple(map(self.gpu, self._parts))

    def generation(self, name: str) -> Generation:
        """A GPU generation by name. KeyError for a name that is none."""
        return self._generations[name]

    @cached_property
    def _generations(self) -> Mapping[str, Generation]:
        return {row["name"]: Generation.of(order, row) for order, row in enumerate(self._gpus["generation"])}

    @cached_property
    def _parts(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        return {row[0]: (group["generation"], tuple(row)) for group in self._gpus["parts"] for row in group["rows"]}

    @cached_property
    def _gpus(self) -> dict[str, Any]:
        return self._read("gpus")

    # ------------------------------------------------------------ drivers

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """Every driver branch, oldest first."""
        return tuple(Branch.of(row) for row in self._drivers["branch"])

    def branch(self, number: str) -> Branch:
        """A driver branch by its number ("580"). KeyError for one that is not in the catalog."""
        return {branch.number: branch for branch in self.branches}[number]

    def supports(self, branch: Branch, generation: str) -> bool:
        """Whether the branch drives GPUs of this generation."""
        oldest, newest = (self.generation(name).order for name in (branch.oldest, branch.newest))
        kind = self.generation(generation)
        if kind.last_branch and int(branch.number) > int(kind.last_branch):
            return False
        return oldest <= kind.order <= newest and bool(set(kind.flavors) & set(branch.flavors))

    @property
    def preferred_branches(self) -> tuple[str, ...]:
        """The branches to choose from, best first, where nothing names one."""
        return tuple(self._drivers["preferred"])

    def kernel_flavor(self, platform: Platform, kernel_release: str) -> str:
        """The flavour in a kernel release ("aws" in 6.8.0-1021-aws, "cloud-amd64" in 6.1.0-37-cloud-amd64), "" for a foreign kernel."""
        if platform.family != "debian":
            found = self.kernel(platform, kernel_release)
            return found.flavor if found else ""
        match = re.search(platform.kernel_flavor_pattern, kernel_release)
        return match[1] if match else ""

    def kernel(self, platform: Platform, kernel_release: str) -> Kernel | None:
        """What building modules for a kernel takes, by `uname -r`; None for a kernel that is not the system's own."""
        if platform.family == "debian":
            flavor = self.kernel_flavor(platform, kernel_release)
            values = {"kernel": kernel_release, "kernel_flavor": flavor}
            return Kernel(flavor, _fill(platform.headers, values), filled(platform.headers_meta, values)) if flavor else None
        return catalog_platform.kernel(platform, kernel_release)

    def driver_packages(
        self, platform: Platform, source: str, branch: str, flavor: str, kernel_release: str, *, version: str = "", image: str = ""
    ) -> DriverPackages | None:
        """What installs a driver, or None where `source` (distro, cuda, runfile) does not have this branch and flavour for the platform.

        `version` asks for one exact version of the branch. `image` is the name of the installed linux-image metapackage, if any: with it the
        packages include the one that brings modules for future kernels.
        """
        if source == "runfile":
            kind = self.kernel(platform, kernel_release)
            return catalog_platform.run_driver(self._drivers, platform, kind, kernel_release, branch, flavor)
        row = self._driver_row(platform, source, branch, flavor)
        if row is None:
            return None
        if platform.family != "debian":
            return catalog_platform.rpm_driver(row, platform, self.kernel(platform, kernel_release), kernel_release, branch, version)
        kernel_flavor = self.kernel_flavor(platform, kernel_release)
        prebuilt = self._drivers["prebuilt"]
        suffix = image[len("linux-image-") :] if image.startswith("linux-image-") else ""
        values = {
            "branch": branch,
            "kernel": kernel_release,
            "kernel_flavor": kernel_flavor,
            "image": prebuilt["aliases"].get(suffix, suffix) or kernel_flavor,
            "version": f"{version}-" if version else f"{branch}.",
        }
        glob = filled(row["version"], values) if row.get("version") else ""
        pinned = "pinning" in row and int(branch) >= int(row["pinning_from"])
        programs, dkms = _fill(row["packages"], values), _fill(row["dkms"], values)
        common: dict[str, Any] = {
            "source": source,
            "branch": branch,
            "flavor": flavor,
            "repository": "cuda" if source == "cuda" else None,
            "components": tuple(row.get("components", ())) if source == "cuda" else platform.components,
            "module": row["module"],
            "pinning": filled(row["pinning"], values) if pinned else "",
            "preferences": f"Package: {row['pin']}\nPin: version {glob}\nPin-Priority: 1000\n" if "pin" in row else "",
        }
        built = DriverPackages(
            packages=programs + dkms,
            headers=_fill(platform.headers, values) if kernel_release else (),
            headers_meta=filled(platform.headers_meta, values) if kernel_flavor else "",
            versions=MappingProxyType(dict.fromkeys(programs + dkms, glob) if glob else {}),
            prebuilt=False,
            metapackage="",
            fallback=None,
            **common,
        )
        if "prebuilt" not in row or not any(fnmatch.fnmatchcase(kernel_flavor, p) for p in prebuilt["flavors"]):
            return built
        meta = filled(row["prebuilt_meta"], values)
        return DriverPackages(
            packages=(filled(row["prebuilt"], values), *((meta,) if suffix else ()), *programs),
            headers=(),
            headers_meta="",
            versions=MappingProxyType({}),
            prebuilt=True,
            metapackage=meta,
            fallback=built,
            **common,
        )

    def fabric_packages(self, platform: Platform, source: str, branch: str, version: str, nvlink5: bool = False) -> FabricPackages | None:
        """The fabric manager for a driver of exactly `version` ("580.126.20") from `source` (distro, cuda); None where it has none.

        With `nvlink5` also what B200 and B300 systems need besides.
        """
        for row in self._driver_rows(platform)["fabric"]:
            fits = row["source_name"] == source and row["base"] in ("*", platform.base_id) and (source != "cuda" or platform.cuda)
            if fits and int(row["first"]) <= int(branch) <= int(row["last"] or branch):
                values = {"branch": branch, "version": version}
                manager = _fill(row["packages"], values)
                return FabricPackages(
                    packages=manager + (tuple(row["nvlink5"]) if nvlink5 else ()),
                    versions=MappingProxyType(dict.fromkeys(manager, filled(row["version"], values)) if "version" in row else {}),
                    service=row["service"],
                )
        return None

    def _driver_row(self, platform: Platform, source: str, branch: str, flavor: str) -> Row | None:
        if source == "cuda":
            first, last = platform.cuda_first, platform.cuda_last or branch
            if not platform.cuda or not int(first) <= int(branch) <= int(last):
                return None
        for row in self._driver_rows(platform)["packages"]:
            same = (row["source_name"], row["flavor"]) == (source, flavor) and branch in row["branches"]
            if same and platform.base in row["systems"] and platform.package_arch in row["arches"]:
                return dict(row)
        return None

    def _driver_rows(self, platform: Platform) -> dict[str, Any]:
        return self._drivers if platform.family == "debian" else self._read("drivers_rpm")

    @cached_property
    def _drivers(self) -> dict[str, Any]:
        return self._read("drivers")

    # ------------------------------------------------------------ CUDA and clouds

    def cuda_for_driver(self, driver_version: str) -> str | None:
        """The newest CUDA ("13.0") that a driver ("580.126.20" or "580") serves by itself; for an unlisted branch that of the next older one."""
        table: Mapping[str, str] = self._read("cuda")["branch"]
        branch = version_key(driver_version)[:1]
        older = [number for number in table if version_key(number) <= branch]
        return table[max(older, key=version_key)] if older else None

    def min_driver_for_cuda(self, cuda: str) -> str | None:
        """The oldest driver that serves a CUDA release natively ("12.4", "12.4.1"), or any program of a major release ("12"); None if unknown."""
        data = self._read("cuda")
        if cuda in data["major"]:
            return str(data["major"][cuda])
        wanted = (*version_key(cuda), 0)[:3]
        same = [r for r in data["release"] if version_key(r)[:2] == wanted[:2] and version_key(r) <= wanted]
        return str(data["release"][max(same, key=version_key)]) if same else None

    def cloud(self, dmi: Mapping[str, str]) -> str | None:
        """The cloud a machine is in, from the texts of its firmware (names as under /sys/class/dmi/id); None for none that is known."""
        for row in self._read("clouds")["cloud"]:
            for match in row["match"]:
                if all(fnmatch.fnmatchcase(dmi.get(key, "").strip(), pattern) for key, pattern in match.items()):
                    return str(row["id"])
        return None

    def instance(self, cloud: str, instance_type: str) -> Instance | None:
        """What a cloud's instance type ("g6f.large", "Standard_NV6ads_A10_v5") says of its accelerators; None for one that is in no row."""
        names = ("cloud", "gpu", "vendor", "driver", "count", "nvswitch", "arch", "note")
        for row in self._read("instances")["instance"]:
            if row["cloud"] == cloud and any(fnmatch.fnmatchcase(instance_type.lower(), p.lower()) for p in row["types"]):
                return Instance(**{name: row[name] for name in names})
        return None

    def instance_gpu(self, cloud: str, instance_type: str) -> str:
        """The GPU model of a cloud's instance type, "" where it is not known."""
        rows = [row for group in self._read("instances")["model"] if group["cloud"] == cloud for row in group["rows"]]
        return next((str(model) for pattern, model in rows if fnmatch.fnmatchcase(instance_type.lower(), pattern.lower())), "")

    def image(self, exists: Callable[[str], bool], pretty_name: str = "") -> Image | None:
        """The official GPU image a machine was made from, by files on it (`exists` answers for a path) or its os-release name; None for none known."""
        for row in self._read("instances")["image"]:
            if any(exists(path) for path in row["paths"]) or any(fnmatch.fnmatchcase(pretty_name, p) for p in row["pretty"]):
                return Image(row["id"], row["name"], tuple(row["clouds"]), tuple(row["has"]), row["note"])
        return None

    @property
    def image_paths(self) -> tuple[str, ...]:
        """The paths whose existence `image` asks for."""
        return tuple(path for row in self._read("instances")["image"] for path in row["paths"])


def _fill(templates: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filled(template, values) for template in templates)


def _hex(text: str) -> str:
    return text.lower().replace("0x", "", 1).zfill(4) if text else ""
