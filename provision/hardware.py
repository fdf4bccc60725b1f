"""Hardware that is not there yet: what `--for-gpu` says of the machines that an image is made for, as the PCI devices which they will show.

Pure: words and the catalog in, devices out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from provision.catalog import Catalog
from provision.errors import UsageError
from provision.model import PciDevice

GPU_CLASS, SWITCH_CLASS = "030200", "068000"
FIX = "Say a PCI id (10de:27b8), a model (l4, a10g, h100), a generation (ampere) or an instance type (aws:g6.xlarge)."
CLOUDS = ("aws", "azure", "gcp", "oci")


def devices(words: Sequence[str], catalog: Catalog) -> tuple[PciDevice, ...]:
    """The devices that machines with these GPUs show on their PCI bus; a machine may show more of the same.

    Raises UsageError for a word that names no GPU of NVIDIA's, or one that cannot be prepared for.
    """
    found: list[tuple[str, str]] = []
    for word in words:
        found += _cloud(word, catalog) if word.partition(":")[0].lower() in CLOUDS else [(_gpu(word, catalog), GPU_CLASS)]
    return tuple(PciDevice(f"0000:{number:02x}:00.0", "10de", device, kind) for number, (device, kind) in enumerate(found, 1))


def _gpu(word: str, catalog: Catalog) -> str:
    """A device id."""
    id_ = re.fullmatch(r"(?:10de:|0x)?([0-9a-f]{4})", word.lower())
    named = _named(word, catalog)
    if named:
        return named
    if id_ and catalog.gpu(id_[1]).generation != "unknown":
        return id_[1]
    raise UsageError(f"--for-gpu {word}: no GPU of NVIDIA's is known by that name.", FIX)


def _named(word: str, catalog: Catalog) -> str:
    """The device id of the first model with that name, or of that generation; "" for none. Models of one name are of one generation."""
    wanted = _tokens(word)
    if not wanted:
        return ""
    by_generation = [row.device_id for row in catalog.gpu_models if [row.generation] == wanted and not (row.vgpu or row.tegra)]
    by_name = [row.device_id for row in catalog.gpu_models if _tokens(row.name)[: len(wanted)] == wanted]
    return next(iter([*by_name, *by_generation]), "")


def _tokens(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word not in ("", "nvidia", "tesla", "quadro", "geforce")]


def _cloud(word: str, catalog: Catalog) -> list[tuple[str, str]]:
    """What an instance type has: its GPUs and, where they have them, a switch."""
    cloud, _, type_name = word.partition(":")
    kind = catalog.instance(cloud.lower(), type_name)
    if kind is None or kind.vendor != "nvidia":
        what = "no instance type that is known to have NVIDIA GPUs" if kind is None else f"an instance type with {kind.gpu}, which mlhost does not set up"
        raise UsageError(f"--for-gpu {word}: {type_name} is {what}.", FIX)
    if kind.driver == "grid":
        raise UsageError(f"--for-gpu {word}: it has a slice of a GPU, which needs the cloud's own GRID driver. {kind.note}".strip(), FIX)
    device = _named(catalog.instance_gpu(cloud.lower(), type_name) or kind.gpu, catalog)
    if not device:
        raise UsageError(f"--for-gpu {word}: which GPU it has is not known ({kind.gpu}).", "Say the model: --for-gpu l4.")
    switch = catalog.switch_of(catalog.gpu(device).generation) if kind.nvswitch else ""
    return [(device, GPU_CLASS)] * max(1, kind.count) + ([(switch, SWITCH_CLASS)] if switch else [])
