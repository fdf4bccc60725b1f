"""From actions to one readable sh script per stage, and to the script that proves a host.

Each kind of action is a check and a change made of calls to the functions in `provision/scripts/actions`; every value in them is quoted by
`provision.sh`. Pure: values in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from provision import actions, render_back, render_rpm, shtext
from provision.model import CHANGE, Item, Plan
from provision.sh import Sh, join, template
from provision.shtext import Bodies, RenderError

__all__ = ["LOCK_WAIT", "REBOOT_NEEDED", "REBOOT_NOW", "RenderError", "smoke_script", "stage"]

LOCK_WAIT = 600
"""How long a script waits for other package work on the host, in seconds."""

REBOOT_NOW, REBOOT_NEEDED = 75, 76
"""Exit codes of a stage: it ends at a planned reboot; or something in it turned out to need one."""

REQUESTS = ("cdi", "gpus", "runtime")
"""The ways in which a container asks for GPUs."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]+\*?|\*", re.ASCII)
_APT = ("others", "apt")
_ALWAYS = ("prelude.sh", "happened.sh")
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+", re.ASCII)
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class _Rendered:
    """One item of the script, ready for the template. The Sh fields pass unquoted."""

    number: int
    id: str
    title: str
    label: Sh
    check: Sh
    change: Sh


def stage(plan: Plan, *, run_id: str, proxy: str = "", no_proxy: str = "", lock_wait: int = LOCK_WAIT) -> Sh:
    """The script of the plan's next stage: every item to be changed, in order, up to and including the first reboot.

    `run_id` names the run in the host's journal and backups. `proxy` and `no_proxy` become the environment of all commands.
    `lock_wait` bounds the wait for other package work, in seconds. Raises RenderError for a value that no script should hold.
    """
    if not _RUN.fullmatch(run_id):
        raise RenderError(f"{run_id!r} is not a run id.", "Use letters, digits, dots, dashes and underscores.")
    items = _items_of_stage(plan)
    rpm = plan.platform.family not in ("debian", "")
    bodies = [_bodies(items, index, run_id, rpm) for index in range(len(items))]
    rendered = [
        _Rendered(number, item.id, shtext.line(item.why or item.id), Sh(shtext.line(f"{item.id}: {item.why}")), body.check, body.change)
        for number, (item, body) in enumerate(zip(items, bodies), 1)
    ]
    fragments = list(dict.fromkeys(name for body in bodies for name in body.fragments))
    prelude = "\n".join([*map(shtext.fragment, _ALWAYS), *map(_fragment, fragments)])
    if "others" in fragments:
        prelude += f"\nLOCK_WAIT=${{MLHOST_LOCK_WAIT:-{int(lock_wait)}}}\n"
    return template(
        "stage.sh.j2",
        host=Sh(shtext.line(plan.host)),
        host_word=shtext.line(plan.host),
        run=run_id,
        items=rendered,
        prelude=Sh(prelude),
        environment=[*_environment(proxy, no_proxy), *_first(fragments)],
    )


def _fragment(name: str) -> str:
    return render_back.either() if name == render_back.EITHER else shtext.fragment(f"actions/{name}.sh")


def smoke_script(
    smoke: actions.Smoke, *, write_proof: bool = False, paths: Sequence[str] = (), reload: Sequence[str] = (), workload: str = ""
) -> Sh:
    """A script for `verify`: prints `check<TAB>id<TAB>ok|failed<TAB>evidence` lines; exits 0 when all are ok, 1 otherwise.

    `paths` are further ways to ask for GPUs that must work (gpus, runtime, cdi); `reload` those in which a running container must keep them
    through `systemctl daemon-reload`; `workload` an image whose own command computes on a GPU.
    It changes nothing but the image it makes or pulls and, with `write_proof`, the proof in `/var/lib/mlhost`.
    """
    for request in (*paths, *reload):
        if request not in REQUESTS:
            raise RenderError(f"{request!r} is no way to ask for GPUs.", "Use cdi, gpus or runtime.")
    lines = [Sh(f"{shtext.call('verify', 'yes' if write_proof else 'no', *_smoke_words(smoke))} || return 1"), Sh("verify_rc=0")]
    more = [shtext.call("verify_paths", *paths)] if paths else []
    more += [shtext.call("verify_reload", *reload)] if reload else []
    more += [shtext.call("verify_workload", shtext.word(workload, "image"), smoke.request)] if workload else []
    lines += [*(Sh(f"{call} || verify_rc=1") for call in more), Sh('return "$verify_rc"')]
    prelude = "\n".join(shtext.fragment(name) for name in ("prelude.sh", "actions/smoke.sh", "actions/verify.sh"))
    return template(
        "verify.sh.j2", prelude=Sh(prelude), smoke=Sh("\n    ".join(lines))
    )


def _items_of_stage(plan: Plan) -> list[Item]:
    chosen: list[Item] = []
    for item in plan.items:
        if item.state == CHANGE and item.action is not None:
            chosen.append(item)
            if isinstance(item.action, actions.Reboot):
                break
    return chosen


def _bodies(items: Sequence[Item], index: int, run_id: str, rpm: bool) -> Bodies:
    action = items[index].action
    if isinstance(action, actions.Packages):
        together = _together(items, index)
        following = range(index + 2, index + 1 + len(together))
        return render_rpm.packages(together, following) if rpm else _packages(together, following)
    if isinstance(action, actions.Hold) and rpm:
        return render_rpm.hold(action)
    if isinstance(action, actions.Reboot):
        return Bodies(shtext.body(shtext.call("rebooted", run_id)), shtext.body(shtext.call("reboot_wanted", run_id, shtext.line(action.reason))), ("reboot",))
    try:
        return _KINDS[type(action)](action)
    except ValueError as error:
        raise RenderError(f"{items[index].id}: {error}.") from error


def _apt_repository(action: actions.AptRepository) -> Bodies:
    path = shtext.absolute(action.path)
    checks, puts = [], []
    if action.key is not None:
        if not action.key.text:
            raise RenderError(
                f"The signing key of {action.name} has not been fetched ({action.key.url}).",
                "Fetch and compare it before the script is made.",
            )
        checks.append(shtext.has(action.key.path, action.key.text, "0644", "root:root"))
        puts.append(shtext.put(action.key.path, "0644", "root:root", action.key.text))
    checks.append(shtext.has(path, action.text, "0644", "root:root"))
    puts.append(shtext.put(path, "0644", "root:root", action.text))
    if action.obsolete:
        checks.append(shtext.call("has_no_file", *map(shtext.absolute, action.obsolete)))
        puts.append(shtext.call("aside", *map(shtext.absolute, action.obsolete)))
    for other, text in action.edits:
        checks.append(shtext.has(other, text))
        puts.append(shtext.put(other, "0644", "root:root", text))
    checks.append(shtext.call("apt_refreshed", path))
    puts.append(shtext.call("apt_refresh", path))
    undo = 'put_back || note "the old package sources could not all be put back"'
    return Bodies(shtext.every(checks), shtext.body(Sh(" &&\n        ".join([*puts, "return 0"])), Sh(undo), Sh("return 1")), _APT)


def _together(items: Sequence[Item], index: int) -> list[actions.Packages]:
    """The package items from this one on that make one transaction."""
    found: list[actions.Packages] = []
    for item in items[index:]:
        action = item.action
        if not isinstance(action, actions.Packages):
            break
        if item.phase != items[index].phase:  # what another transaction needs (a package that brings a source) goes before it
            break
        if found and (action.recommends, action.disable_repositories) != (found[0].recommends, found[0].disable_repositories):
            break
        found.append(action)
    return found


def _packages(together: Sequence[actions.Packages], following: Sequence[int]) -> Bodies:
    """One transaction for all of `together`; the check is of the first. `following` are the numbers of the others' items."""
    first = together[0]
    install = list(dict.fromkeys(package for action in together for package in action.install))
    remove = list(dict.fromkeys(name for action in together for name in action.remove))
    checks = [shtext.call("has_package", *_package(package)) for package in first.install]
    if first.remove:
        checks.append(shtext.call("has_no_package", *map(_name, first.remove)))
    words = ["=".join(word for word in _package(package) if word) for package in install]
    change = shtext.call("apt_install", "yes" if first.recommends else "no", *words, "--", *map(_name, remove))
    numbers = " ".join(map(str, following))
    lines = [Sh(f"{change} || return 1"), Sh(f"TOGETHER={join([numbers])}")] if numbers else [change]
    pins = dict.fromkeys(pin for action in together for pin in action.pins)
    if pins:
        lines.insert(0, Sh(f"{shtext.call('apt_locked', *(word for pin in pins for word in _pin(pin)))} || return 1"))
    return Bodies(shtext.every(checks), shtext.body(*lines), _APT)


def _pin(pin: actions.Pin) -> tuple[str, str, str]:
    if not re.fullmatch(r"[A-Za-z0-9.+:~-]+", pin.version, re.ASCII):
        raise RenderError(f"{pin.version!r} is not one version of {pin.name}.")
    return _name(pin.name), pin.version, _sha256(pin.sha256)


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
        raise RenderError(f"{text!r} is not a SHA-256 checksum.")
    return text


def _bundle_repository(action: actions.BundleRepository) -> Bodies:
    folder = shtext.absolute(action.folder)
    for path in (folder, *(f"/{path}" for path, _ in action.files)):
        if not re.fullmatch(r"[A-Za-z0-9/._:+~@-]+", shtext.absolute(path), re.ASCII):
            raise RenderError(f"{path!r} cannot be a file of a bundle.")
    words = [word for path, sha256 in action.files for word in (path, _sha256(sha256))]
    return Bodies(shtext.body(shtext.call("bundle_used", folder)), shtext.body(shtext.call("bundle_use", folder, *words)), (*_APT, "bundle"))


def _bundle_images(action: actions.BundleImages) -> Bodies:
    checks, changes = [], []
    for path, reference, sha256 in action.images:
        name = shtext.word(reference, "image")
        checks.append(shtext.call("image_there", name))
        changes.append(shtext.call("image_load", shtext.absolute(path), name, _sha256(sha256)))
    return Bodies(shtext.every(checks), shtext.every(changes), ("bundle",))


def _hold(action: actions.Hold) -> Bodies:
    names = [_name(name) for name in action.packages]
    return Bodies(shtext.body(shtext.call("held", *names)), shtext.body(shtext.call("hold", *names)), _APT)


def _file(action: actions.File) -> Bodies:
    path = shtext.absolute(action.path)
    reload = shtext.call("unit_files_changed", path)
    if action.content is None:
        return Bodies(shtext.body(shtext.call("has_no_file", path)), shtext.every([shtext.call("aside", path), reload]), ("file",))
    mode = shtext.octal(action.mode)
    check = shtext.has(path, action.content, mode, action.owner)
    return Bodies(shtext.body(check), shtext.every([shtext.put(path, mode, action.owner, action.content), reload]), ("file",))


def _json_merge(action: actions.JsonMerge) -> Bodies:
    change = shtext.call("json_merge", shtext.absolute(action.path), action.base, shtext.octal(action.mode), action.content)
    return Bodies(shtext.body(shtext.has(action.path, action.content)), shtext.body(change), ("json_merge",))


def _service(action: actions.Service) -> Bodies:
    if not _UNIT.fullmatch(action.name) or action.name.startswith("-"):
        raise RenderError(f"{action.name!r} is not the name of a service.")
    wanted = [action.name, _wanted(action.enabled), _wanted(action.running), "yes" if action.optional else "no"]
    checks = [shtext.call("service_is", *wanted)]
    if action.newer_than:
        checks.append(shtext.call("service_fresh", action.name, *map(shtext.absolute, action.newer_than), "--", *map(shtext.absolute, action.stamps)))
    if action.probe:
        checks.append(shtext.call("service_says", action.probe))
    restore = shtext.absolute(action.restore) if action.restore else ""
    return Bodies(shtext.every(checks), shtext.body(shtext.call("service_change", *wanted, action.act, restore, action.probe)), ("service",))


def _enable(action: actions.Enable) -> Bodies:
    if not _UNIT.fullmatch(action.unit) or action.unit.startswith("-"):
        raise RenderError(f"{action.unit!r} is not the name of a unit.")
    return Bodies(shtext.body(shtext.call("starts_at_boot", action.unit)), shtext.body(shtext.call("start_at_boot", action.unit)), ("enable",))


def _runfile(action: actions.Runfile) -> Bodies:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", action.version, re.ASCII):
        raise RenderError(f"{action.version!r} is not a driver's version.")
    _sha256(action.sha256)
    if not re.fullmatch(r"https?://[!-~]+", action.url, re.ASCII):
        raise RenderError(f"{action.url!r} is not an address to fetch from.")
    for option in action.options:
        if not re.fullmatch(r"--[a-z0-9-]+(=[A-Za-z0-9._-]+)?", option, re.ASCII):
            raise RenderError(f"{option!r} is not an option of the installer.")
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)*", action.cc, re.ASCII):
        raise RenderError(f"{action.cc!r} is not the path of a compiler.")
    change = shtext.call("runfile_install", action.version, action.url, action.sha256, action.cc, *action.options)
    return Bodies(shtext.body(shtext.call("runfile_there", action.version)), shtext.body(change), ("kernel_module", "runfile"))


def _kernel_module(action: actions.KernelModule) -> Bodies:
    names, unload = [_name(n.replace("_", "-"), n) for n in action.names], [_name(n.replace("_", "-"), n) for n in action.unload]
    checks, changes = [], []
    if unload:
        checks.append(shtext.call("module_gone", *unload))
        changes.append(Sh(f"{shtext.call('modules_unload', *unload)} || return $?"))
    if names:
        checks.append(shtext.call("module_loaded", *names))
        changes.append(shtext.call("modules_load", *names))
    return Bodies(shtext.every(checks), shtext.body(*changes), ("kernel_module",))


def _group_member(action: actions.GroupMember) -> Bodies:
    words = [shtext.word(action.group, "group"), shtext.word(action.user, "user")]
    return Bodies(shtext.body(shtext.call("group_has", *words)), shtext.body(shtext.call("group_add", *words)), ("group_member",))


def _mount(action: actions.Mount) -> Bodies:
    words = [shtext.absolute(action.device), shtext.absolute(action.path), shtext.word(action.filesystem, "file system")]
    for word in words:
        # they become words of a unit file, which has its own quoting
        if not re.fullmatch(r"[A-Za-z0-9/._:+@-]+", word, re.ASCII):
            raise RenderError(f"{word!r} cannot be used to mount a disk.", "Use a path of letters, digits and . _ : + @ -")
    return Bodies(shtext.body(shtext.call("mount_done", *words)), shtext.body(shtext.call("mount_make", *words)), ("file", "mount"))


def _smoke(action: actions.Smoke) -> Bodies:
    words = _smoke_words(action)
    return Bodies(shtext.body(shtext.call("smoke_proved", *words)), shtext.body(shtext.call("smoke_prove", *words)), ("smoke",))


def _command(action: actions.Command) -> Bodies:
    """A user's own texts run by `eval` in a subshell: their `exit`, their variables and their syntax errors stay their own."""
    exports = []
    for name, value in action.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise RenderError(f"{name!r} is not the name of an environment variable.")
        exports.append(Sh(f"    export {name}={join([value])}\n"))

    def body(text: str) -> Sh:
        return Sh("(\n" + "".join(exports) + f"    eval {join([text])}\n)")

    if action.undo == ":":
        return Bodies(body(action.check), body(action.change), action.needs)
    keep = shtext.call("undo_keep", _undo_script(action, "".join(exports)) if action.undo else "")
    return Bodies(body(action.check), shtext.every([body(action.change), keep]), action.needs)


def _undo_script(action: actions.Command, exports: str) -> str:
    """What a rollback runs later: `sh FILE undo`, and `sh FILE check` to see whether it worked."""
    check, undo = join([action.check]), join([action.undo])
    return f"# Written by mlhost: how to take back what a step of the user's own has done here.\n{exports}case $1 in\ncheck) eval {check} ;;\nundo) eval {undo} ;;\nesac\n"


_KINDS: dict[type, Callable[[Any], Bodies]] = {
    actions.AptRepository: _apt_repository,
    actions.RpmRepository: render_rpm.repository,
    actions.BundleRepository: _bundle_repository,
    actions.BundleImages: _bundle_images,
    actions.Hold: _hold,
    actions.File: _file,
    actions.JsonMerge: _json_merge,
    actions.Service: _service,
    actions.Enable: _enable,
    actions.Runfile: _runfile,
    actions.KernelModule: _kernel_module,
    actions.GroupMember: _group_member,
    actions.Mount: _mount,
    actions.Smoke: _smoke,
    actions.Command: _command,
    actions.TakeBack: render_back.take_back,
}


def _name(name: str, result: str | None = None) -> str:
    if not _PACKAGE.fullmatch(name):
        raise RenderError(f"{name!r} is not the name of a package or module.")
    return result if result is not None else name


def _package(package: actions.Package) -> tuple[str, str]:
    if package.version and not _VERSION.fullmatch(package.version):
        raise RenderError(f"{package.version!r} is not a version of {package.name}.")
    return _name(package.name), package.version


def _wanted(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _smoke_words(smoke: actions.Smoke) -> list[object]:
    image = smoke.image if smoke.image == "embedded" or not smoke.registry else f"{smoke.registry}/{smoke.image}"
    if smoke.request and smoke.request not in REQUESTS:
        raise RenderError(f"{smoke.request!r} is no way to ask for GPUs.", "Use cdi, gpus or runtime.")
    return [shtext.word(image, "image"), int(smoke.gpus), smoke.request]


def _first(fragments: Sequence[str]) -> list[Sh]:
    """What comes before all items. What cannot be mended is told, and is no reason to leave the rest undone."""
    if "rollback" in fragments:
        return [shtext.call("rollback_begin")]
    return [Sh(f"{shtext.call('rpm_mend')} || :")] if "rpm" in fragments else []


def _environment(proxy: str, no_proxy: str) -> list[Sh]:
    values = [("http_proxy", proxy), ("https_proxy", proxy), ("no_proxy", no_proxy)]
    return [Sh(f"{name}={join([value])} && export {name}") for name, value in values if value]
