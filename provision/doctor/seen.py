"""What the diagnosis looks at: the facts, the sections that only a deep probe brings, and the texts in both. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from provision.catalog import Catalog
from provision.doctor.texts import Text, text
from provision.facts.text import Sections, get, pairs, rows
from provision.model import Facts


@dataclass(frozen=True)
class Kernel:
    """A kernel on disk: whether it has its modules, NVIDIA's module, what modules are built with, and an image to boot."""

    release: str
    modules: bool
    nvidia: bool
    build: bool
    image: bool


@dataclass(frozen=True)
class Seen:
    """One host as far as it is known. Without `deep` sections what they tell is unknown."""

    facts: Facts
    sections: Sections
    catalog: Catalog = field(repr=False)

    def said(self, name: str) -> str | None:
        """The text of a section that could be asked, None where it could not."""
        section = self.sections.get(name)
        return None if section is None or section.rc in (13, 124, 127) else section.text

    @cached_property
    def settings(self) -> dict[str, str] | None:
        """The kernel's settings and a few programs, by the probe's names; None where nobody asked."""
        told = self.said("deep_settings")
        return None if told is None else pairs(told)

    @cached_property
    def kernels(self) -> tuple[Kernel, ...] | None:
        """The kernels on disk, oldest first; None where nobody asked."""
        told = self.said("deep_kernels")
        if told is None:
            return None
        found = []
        for row in rows(told):
            name, *words = row.split()
            has = {key: value == "1" for key, _, value in (word.partition("=") for word in words)}
            found.append(Kernel(name, *(has.get(key, False) for key in ("modules", "nvidia", "build", "image"))))
        return tuple(sorted(found, key=lambda kernel: [int(n) for n in re.findall(r"\d+", kernel.release)]))

    @cached_property
    def running_kernel(self) -> Kernel | None:
        """The kernel that runs, as it is on disk; None where that is unknown or it is not there."""
        return next((k for k in self.kernels or () if k.release == self.facts.kernel), None)

    @cached_property
    def loaded_modules(self) -> frozenset[str] | None:
        """Names of the loaded modules that matter; None where nobody asked."""
        told = self.said("deep_modules")
        return None if told is None else frozenset(row.split()[0] for row in rows(told))

    @cached_property
    def failed_units(self) -> frozenset[str] | None:
        """Units that systemd counts as failed; None where nobody asked."""
        told = self.said("deep_failed_units")
        return None if told is None else frozenset(row.split()[0] for row in rows(told))

    @cached_property
    def nodes(self) -> dict[str, tuple[str, str]] | None:
        """Mode and owner of the GPU's device nodes; None where nobody asked."""
        told = self.said("deep_nodes")
        if told is None:
            return None
        return {parts[2]: (parts[0], parts[1]) for parts in (row.split(" ", 2) for row in rows(told)) if len(parts) == 3}

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """What the host's own programs and logs say. A log is of now while what it tells of is broken; a line of it may be old otherwise."""
        return tuple(self._texts())

    def _texts(self) -> Iterator[Text]:
        facts = self.facts
        if facts.nvidia is not None and facts.nvidia.smi_rc not in (None, 0):
            yield text("nvidia-smi", facts.nvidia.smi_text, current=True)
        if facts.docker is not None and facts.docker.error:
            yield text("Docker", facts.docker.error, current=True)
        check = get(self.sections, "deep_validate")
        if "deep_validate" in self.sections and check.rc not in (0, 124):
            yield text("dockerd --validate", check.text, current=True)
        if self.said("deep_smi"):
            yield text("nvidia-smi -q", self.said("deep_smi") or "", current=True)
        for name, where, current in (("deep_dmesg", "the kernel's log", self._gpu_broken()), ("deep_make_log", "DKMS's make.log", self._gpu_broken()),
                                     ("deep_apt", "apt's log", facts.dpkg_interrupted)):
            if self.said(name):
                yield text(where, self.said(name) or "", current=current)
        for name in self.sections:
            if name.startswith("deep_journal:") and self.said(name):
                unit = name.partition(":")[2]
                yield text(f"the journal of {unit}", self.said(name) or "", current=self._unit_broken(f"{unit}.service"))

    def _gpu_broken(self) -> bool:
        nvidia = self.facts.nvidia
        if nvidia is None or not self.facts.gpus:
            return False
        return nvidia.smi_rc not in (None, 0) or (nvidia.smi_rc == 0 and not nvidia.gpus) or (not nvidia.loaded and bool(nvidia.driver_version or nvidia.on_disk))

    def _unit_broken(self, name: str) -> bool:
        unit = self.facts.units.get(name)
        return unit is not None and (unit.active == "failed" or unit.sub == "auto-restart")
