"""Whether a driver can run what was built with a CUDA release, and what an image's own NVIDIA_REQUIRE_* variables ask for.

The rules: docs.nvidia.com/deploy/cuda-compatibility (minor-version compatibility) and libnvidia-container, which reads the variables so: words apart by
spaces are alternatives, conditions joined by commas must all hold, and every variable must be satisfied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.rows import version_key

_CONDITION = re.compile(r"^(?P<name>[a-z]+)(?P<operator>>=|<=|!=|==|=|>|<)(?P<value>[\w.+-]+)$")
_VERSIONS = ("cuda", "driver", "arch")


@dataclass(frozen=True)
class Condition:
    """`cuda>=13.2`: a name (cuda, driver, arch, brand), an operator and what to compare with."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"


@dataclass(frozen=True)
class ImageConfig:
    """What a registry says of an image for one architecture. `size` is that of its compressed layers, in bytes.

    `offered` is empty where the image is there for the machine's architecture, else what there is instead (`linux/arm64`). `error` says why nothing
    could be learnt; everything else is empty then.
    """

    reference: str
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    size: int = 0
    offered: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Unmet:
    """A requirement that a machine does not meet: its words, and the first condition of its first alternative that fails."""

    variable: str
    text: str
    condition: str



def cuda_fit(driver_version: str, needed: str, data: Mapping[str, Any] | None = None) -> bool:
    """Whether a driver ("580.126.20") runs programs built with CUDA `needed` ("13.2", "12.4.1"), with minor-version compatibility.

    True where the driver is as new as the release itself, or as its major release asks for at least; every older major release runs too. An unknown
    newer minor release counts by its major. False where nothing is known of the major release and it is newer than all that is.
    `data` is the content of cuda.toml (the packaged one by default). Programs that take PTX from newer compilers, or use newer driver functions, need the
    release's own driver all the same; `native_fit` asks for that.
    """
    table = _table(data)
    majors = {int(major): str(driver) for major, driver in table["major"].items()}
    wanted = version_key(needed)
    if not wanted or not version_key(driver_version):
        return False
    if wanted[0] in majors:
        return version_key(driver_version) >= version_key(majors[wanted[0]])
    return wanted[0] < min(majors) and native_fit(driver_version, needed, table)


def native_fit(driver_version: str, needed: str, data: Mapping[str, Any] | None = None) -> bool:
    """Whether a driver is at least as new as CUDA `needed` itself: what `nvidia-smi` shows as its CUDA version is not older."""
    shown = native_cuda(driver_version, data)
    return shown is not None and version_key(shown) >= version_key(needed)[:2]


def native_cuda(driver_version: str, data: Mapping[str, Any] | None = None) -> str | None:
    """The newest CUDA ("13.0") that a driver serves by itself; for an unlisted branch that of the next older one."""
    branches: Mapping[str, str] = _table(data)["branch"]
    branch = version_key(driver_version)[:1]
    older = [number for number in branches if version_key(number) <= branch]
    return branches[max(older, key=version_key)] if older and branch else None


def parse_require(text: str) -> tuple[tuple[Condition, ...], ...]:
    """The alternatives of one NVIDIA_REQUIRE_* value. Raises ValueError naming the word that is no condition."""
    found = []
    for word in text.split():
        conditions = []
        for part in word.split(","):
            match = _CONDITION.match(part)
            if match is None:
                raise ValueError(f"{part!r} is not a condition like cuda>=12.4")
            conditions.append(Condition(match["name"], match["operator"], match["value"]))
        found.append(tuple(conditions))
    return tuple(found)


def holds(condition: Condition, machine: Mapping[str, str]) -> bool | None:
    """Whether a condition holds for a machine ({"cuda": "13.0", "driver": "580.126.20", "brand": "tesla", "arch": "9.0"}); None = not known of it."""
    actual = machine.get(condition.name, "")
    if not actual:
        return None
    if condition.name not in _VERSIONS:
        same = actual.lower() == condition.value.lower()
        return {"=": same, "==": same, "!=": not same}.get(condition.operator)
    # A condition of two numbers says nothing of the third: driver<536 holds for 535.104, driver=535 for all of 535.
    wanted = version_key(condition.value)
    have = (*version_key(actual), *(0,) * len(wanted))
    cut = have[: len(wanted)] if condition.operator in ("=", "==", "!=") else have
    return {
        ">=": have >= wanted,
        ">": have[: len(wanted)] > wanted,
        "<=": have[: len(wanted)] <= wanted,
        "<": have < wanted,
        "=": cut == wanted,
        "==": cut == wanted,
        "!=": cut != wanted,
    }[condition.operator]


def unmet(environment: Mapping[str, str], machine: Mapping[str, str]) -> tuple[Unmet, ...]:
    """The NVIDIA_REQUIRE_* variables of an image that this machine does not satisfy, () where it satisfies all or nothing can be said.

    `environment` is the image's; NVIDIA_DISABLE_REQUIRE with a true value switches the whole check off. What is not known of the machine, and what
    cannot be read, refuses nothing.
    """
    if environment.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "true", "t", "yes", "on"):
        return ()
    found = []
    for variable in sorted(name for name in environment if name.startswith("NVIDIA_REQUIRE_")):
        text = environment[variable]
        try:
            alternatives = parse_require(text)
        except ValueError:
            continue
        failures = [_failure(conditions, machine) for conditions in alternatives]
        if failures and all(failures):
            found.append(Unmet(variable, text, str(failures[0])))
    return tuple(found)


def asked_by(image: ImageConfig) -> Mapping[str, str]:
    """The variables of an image that count as its requirements.

    An image that says nothing by NVIDIA_REQUIRE_CUDA but has a CUDA_VERSION, or its label of the days before there were such variables, asks for that
    release (nvidia-container-toolkit, internal/config/image: legacy images).
    """
    found = {name: text for name, text in image.environment.items() if name.startswith(("NVIDIA_REQUIRE_", "NVIDIA_DISABLE_REQUIRE"))}
    if "NVIDIA_REQUIRE_CUDA" not in found:
        release = re.match(r"\d+\.\d+", image.environment.get("CUDA_VERSION", "") or image.labels.get("com.nvidia.cuda.version", ""))
        found.update({"NVIDIA_REQUIRE_CUDA": f"cuda>={release[0]}"} if release else {})
    return found


def refused(image: ImageConfig, driver_version: str, names: Iterable[str] = (), data: Mapping[str, Any] | None = None) -> Unmet | None:
    """The requirement of an image that a driver surely does not meet with GPUs of these names, None where it does or nothing can be said.

    Of the names only one thing is taken: GPUs that are all GeForce or all TITAN are none of the brands whose older drivers some images admit.
    """
    machine = {"cuda": native_cuda(driver_version, data) or "", "driver": driver_version}
    brands: tuple[str, ...] = ("",)
    for word, family in (("geforce", ("geforce", "geforcertx")), ("titan", ("titan", "titanrtx"))):
        if names and all(word in name.lower() for name in names):
            brands = family
    findings = [unmet(asked_by(image), {**machine, "brand": brand}) for brand in brands]
    return findings[0][0] if driver_version and all(findings) else None


def _failure(conditions: tuple[Condition, ...], machine: Mapping[str, str]) -> Condition | None:
    return next((condition for condition in conditions if holds(condition, machine) is False), None)


def _table(data: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if data is not None:
        return data
    from provision.catalog import packaged

    return packaged("cuda")
