"""An image's config without what differs from build to build for no reason."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

# image-spec, config.md; what else builders write (container, container_config, docker_version, buildkit's own) tells of the build, not of the image.
_KEPT = ("architecture", "variant", "os", "os.version", "os.features", "author", "config")
_OF_THE_BUILD = ("Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce")


def moment(epoch: int) -> str:
    """Seconds since 1970 as configs write them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def config(old: Mapping[str, Any], diff_ids: Sequence[str], epoch: int) -> bytes:
    """The config for these layers, with no time after `epoch`, as bytes that depend on nothing else."""
    new: dict[str, Any] = {name: old[name] for name in _KEPT if name in old}
    settings = old.get("config")
    if isinstance(settings, dict):
        new["config"] = {name: value for name, value in settings.items() if name not in _OF_THE_BUILD}
    new["created"] = moment(epoch)
    new["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    new["history"] = [_row(row, epoch) for row in old.get("history") or () if isinstance(row, dict)]
    return json.dumps(new, sort_keys=True, separators=(",", ":")).encode()


def _row(row: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    # The texts are in UTC and of one form, so that they compare as the moments do.
    created = str(row.get("created") or "")
    return {**row, "created": created if "" < created < moment(epoch) else moment(epoch)}
