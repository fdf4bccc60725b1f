"""What must hold between the settings of a playbook, once all of it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from provision.errors import UsageError
from provision.spec import Mirror, Spec


@dataclass(frozen=True)
class Given:
    """A value somebody wrote: the value, where it stands, and the directory its relative paths start from."""

    value: Any
    where: str
    base: str


Layer = dict[tuple[str, ...], Given]

# With `gpu: ignore` these would be silently without effect unless they have this value.
_GPU_ONLY = {
    ("driver", "branch"): "auto", ("driver", "flavor"): "auto", ("driver", "source"): "auto", ("driver", "minimum"): "", ("driver", "replace"): False,
    ("toolkit", "version"): "", ("toolkit", "default_runtime"): False,
}


def check(spec: Spec, layer: Layer) -> None:
    """Raise UsageError for settings that contradict each other, naming the one to change. `layer` tells where each was written."""
    if spec.gpu == "ignore":
        for path, neutral in _GPU_ONLY.items():
            if path in layer and layer[path].value != neutral:
                _refuse(layer, path, "asks for something on a host whose GPU is ignored (`gpu: ignore`)",
                        "Drop it, or set `gpu: auto`.")
    if spec.driver.install == "never" and spec.driver.replace:
        _refuse(layer, ("driver", "replace"), "contradicts `driver.install: never`", "Drop one of them.")
    if ("docker", "log", "max_file") in layer and not spec.docker.log.max_size:
        _refuse(layer, ("docker", "log", "max_file"), "does nothing without `docker.log.max_size`: logs are not rotated",
                "Set `docker.log.max_size`, for example `50m`.")
    _check_mirrors(spec, layer)
    _check_daemon(spec, layer)
    if spec.storage.disk and spec.storage.path and spec.docker.data_root and spec.storage.path.startswith(spec.docker.data_root + "/"):
        _refuse(layer, ("storage", "path"), f"is a mount inside Docker's data directory `{spec.docker.data_root}`",
                "Put `docker.data_root` on the disk instead.")


def _check_mirrors(spec: Spec, layer: Layer) -> None:
    for name in ("docker", "toolkit", "cuda"):
        mirror: Mirror = getattr(spec.mirrors, name)
        for key in ("fingerprint", "key_url"):
            if getattr(mirror, key) and not mirror.url:
                _refuse(layer, ("mirrors", name, key), f"needs `mirrors.{name}.url`: without it the vendor's own repository is used",
                        "Set the mirror's `url`, or drop this.")
        for key in ("url", "key_url"):
            if "@" in getattr(mirror, key):
                # A source file is for everybody to read, and so is the command line of whoever fetches from it.
                _refuse(layer, ("mirrors", name, key), "holds a user or password, which would stand where everybody can read it",
                        "Write it without; put them into `/etc/apt/auth.conf.d/` on the host, which apt reads.")


def _check_daemon(spec: Spec, layer: Layer) -> None:
    daemon, path = spec.docker.daemon, ("docker", "daemon")
    driver = daemon.get("log-driver", "json-file")
    if spec.docker.log.max_size and driver not in ("json-file", "local"):
        _refuse(layer, path, f"has `log-driver: {driver}`, which does not rotate files, beside `docker.log`", "Drop one of them.")
    if spec.toolkit.default_runtime and daemon.get("default-runtime", "nvidia") != "nvidia":
        _refuse(layer, path, f"has `default-runtime: {daemon['default-runtime']}` beside `toolkit.default_runtime: true`",
                "Drop one of them.")
    features = daemon.get("features")
    if spec.docker.data_root and isinstance(features, dict) and features.get("containerd-snapshotter"):
        _refuse(layer, path, "turns `features.containerd-snapshotter` on, which keeps images outside of `docker.data_root`",
                "Drop one of them.")


def _refuse(layer: Layer, path: tuple[str, ...], what: str, fix: str) -> None:
    where = layer[path].where if path in layer else "playbook"
    raise UsageError(f"{where}: `{'.'.join(path)}` {what}.", fix)
