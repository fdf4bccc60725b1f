"""What an action will do, in a few words for a plan's reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision import actions
from provision.report.layout import count, listing


def describe(action: actions.Action) -> str:
    """A short clause such as `install docker-ce 29.7.2 and containerd.io`. Never shows file contents."""
    function = _BY_KIND.get(type(action))
    return function(action) if function else actions.kind(action)


def _repository(action: actions.AptRepository | actions.RpmRepository) -> str:
    words = f"package source {action.path}"
    if action.key:
        words += f", signed by {short_fingerprint(action.key.fingerprints)}"
    moved = [*action.obsolete, *(path for path, _ in action.edits)]
    return f"{words}, in place of {listing(moved)}" if moved else words


def short_fingerprint(fingerprints: tuple[str, ...]) -> str:
    """The last 16 digits of the first fingerprint, enough to recognise a key by."""
    return fingerprints[0][-16:] if fingerprints else "nobody"


def _package(package: actions.Package) -> str:
    if package.version.startswith("@"):
        return f"{package.name} (the version of {package.version[1:]})"
    return f"{package.name} {package.version}".strip()


def _packages(action: actions.Packages) -> str:
    parts = []
    if action.install:
        parts.append("install " + listing(_package(p) for p in action.install))
    if action.remove:
        parts.append("remove " + listing(action.remove))
    return "; ".join(parts) or "nothing to install"


def _service(action: actions.Service) -> str:
    parts = ["enable"] if action.enabled else ["disable"] if action.enabled is False else []
    parts += [action.act] if action.running else ["stop"] if action.running is False else []
    return f"{listing(parts) or action.act} {action.name}"


def _modules(action: actions.KernelModule) -> str:
    words = f"load kernel {'module' if len(action.names) == 1 else 'modules'} {listing(action.names)}"
    return f"unload {listing(action.unload)}, {words}" if action.unload else words


def _smoke(action: actions.Smoke) -> str:
    image = "an image made on the host" if action.image == "embedded" else action.image
    seen = "the machine's GPUs" if action.gpus == actions.ON_BUS else count(action.gpus, "GPU")
    return f"run a container of {image}" + (f" and see {seen} in it" if action.gpus else "")


def _file(action: actions.File) -> str:
    return f"remove {action.path}" if action.content is None else f"write {action.path}"


def _runfile(action: actions.Runfile) -> str:
    return f"fetch {action.url}, compare its SHA-256 with {action.sha256[:12]}…, and run it"


_BY_KIND: dict[type, Callable[[Any], str]] = {
    actions.AptRepository: _repository,
    actions.RpmRepository: _repository,
    actions.Packages: _packages,
    actions.BundleRepository: lambda a: f"package source {a.folder}, {count(len(a.files), 'file')} compared by SHA-256",
    actions.BundleImages: lambda a: "load " + listing(reference for _, reference, _ in a.images),
    actions.Hold: lambda a: f"hold {listing(a.packages)} at this version",
    actions.File: _file,
    actions.JsonMerge: lambda a: f"merge into {a.path}",
    actions.Service: _service,
    actions.Enable: lambda a: f"have {a.unit} start at boot",
    actions.Runfile: _runfile,
    actions.KernelModule: _modules,
    actions.GroupMember: lambda a: f"add {a.user} to the group {a.group}",
    actions.Mount: lambda a: f"mount {a.device} at {a.path} ({a.filesystem}; formatted only if blank)",
    actions.Smoke: _smoke,
    actions.Reboot: lambda a: "reboot",
    actions.TakeBack: lambda a: a.title,
    actions.Command: lambda a: "run its own check and change",
}
