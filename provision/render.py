"""From actions to one readable sh script per stage, and to the script that proves a host.

Each kind of action is a check and a change made of calls to the functions in `provision/scripts/actions`; every value in them is quoted by
`provision.sh`. Pure: values in, text out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from provision import actions
from provision.errors import Failed
from provision.model import CHANGE, Item, Plan
from provision.sh import Sh, join, template
from provision.values import dataclass

LOCK_WAIT = 600
"""How long a script waits for other package work on the host, in seconds."""

REBOOT_NOW, REBOOT_NEEDED = 75, 76
"""Exit codes of a stage: it ends at a planned reboot; or something in it turned out to need one."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]+\*?|\*", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+", re.ASCII)
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class RenderError(Failed):
    """A value cannot become part of a script."""


@dataclass(frozen=True)
class _Bodies:
    """What an action becomes: the bodies of its check and its change, and the fragments that they call."""

    check: Sh
    change: Sh
    fragments: tuple[str, ...] = ()


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
    bodies = [_bodies(items, index, run_id) for index in range(len(items))]
    rendered = [
        _Rendered(number, item.id, _line(item.why or item.id), Sh(_line(f"{item.id}: {item.why}")), body.check, body.change)
        for number, (item, body) in enumerate(zip(items, bodies), 1)
    ]
    fragments = list(dict.fromkeys(name for body in bodies for name in body.fragments))
    prelude = "\n".join([_fragment("prelude.sh"), *(_fragment(f"actions/{name}.sh") for name in fragments)])
    if "apt" in fragments:
        prelude += f"\nLOCK_WAIT=${{MLHOST_LOCK_WAIT:-{int(lock_wait)}}}\n"
    return template(
        "stage.sh.j2",
        host=Sh(_line(plan.host)),
        host_word=_line(plan.host),
        run=run_id,
        items=rendered,
        prelude=Sh(prelude),
        environment=_environment(proxy, no_proxy),
    )


def rollback(host: str, *, run_id: str, runs: Sequence[str] = (), lock_wait: int = LOCK_WAIT) -> Sh:
    """A stage that takes back what the host's receipts say that runs of mlhost have added, and nothing else.

    `runs` are the ids of the runs to be taken back, all of them if empty. Packages are removed, never purged; packages that were removed come
    back; files get their former content unless somebody has changed them since. Upgraded packages stay as they are (with a note).
    """
    for run in (run_id, *runs):
        if not _RUN.fullmatch(run):
            raise RenderError(f"{run!r} is not a run id.", "Use letters, digits, dots, dashes and underscores.")
    rendered = [
        _Rendered(
            number,
            f"rollback/{name}",
            title,
            Sh(f"rollback/{name}: {title}"),
            _body(_call(f"no_{name}")),
            _body(_call(f"take_back_{name}")),
        )
        for number, (name, title) in enumerate(_ROLLBACK, 1)
    ]
    names = ("apt", "service", "file", "group_member", "rollback")
    prelude = "\n".join([_fragment("prelude.sh"), *(_fragment(f"actions/{name}.sh") for name in names)])
    return template(
        "stage.sh.j2",
        host=Sh(_line(host)),
        host_word=_line(host),
        run=run_id,
        items=rendered,
        prelude=Sh(f"{prelude}\nLOCK_WAIT=${{MLHOST_LOCK_WAIT:-{int(lock_wait)}}}\n"),
        environment=[_call("rollback_begin", *runs)],
    )


_ROLLBACK = (
    ("members", "users leave the groups that they were put into"),
    ("holds", "packages are no longer held"),
    ("packages", "added packages go, removed ones come back"),
    ("services", "services are no longer enabled"),
    ("files", "files are as they were"),
    ("receipts", "nothing is left to be taken back"),
)


def smoke_script(smoke: actions.Smoke, *, write_proof: bool = False) -> Sh:
    """A script for `verify`: prints `check<TAB>id<TAB>ok|failed<TAB>evidence` lines; exits 0 when all are ok, 1 otherwise.

    It changes nothing but the image it makes or pulls and, with `write_proof`, the proof in `/var/lib/mlhost`.
    """
    prelude = "\n".join(_fragment(name) for name in ("prelude.sh", "actions/smoke.sh", "actions/verify.sh"))
    return template(
        "verify.sh.j2", prelude=Sh(prelude), smoke=_call("verify", "yes" if write_proof else "no", *_smoke_words(smoke))
    )


def _items_of_stage(plan: Plan) -> list[Item]:
    chosen: list[Item] = []
    for item in plan.items:
        if item.state == CHANGE and item.action is not None:
            chosen.append(item)
            if isinstance(item.action, actions.Reboot):
                break
    return chosen


def _bodies(items: Sequence[Item], index: int, run_id: str) -> _Bodies:
    action = items[index].action
    if isinstance(action, actions.Packages):
        return _packages(items, index)
    if isinstance(action, actions.Reboot):
        return _Bodies(_body(_call("rebooted", run_id)), _body(_call("reboot_wanted", run_id, _line(action.reason))), ("reboot",))
    try:
        return _KINDS[type(action)](action)
    except ValueError as error:
        raise RenderError(f"{items[index].id}: {error}.") from error


def _apt_repository(action: actions.AptRepository) -> _Bodies:
    path = _path(action.path)
    checks, puts = [], []
    if action.key is not None:
        if not action.key.text:
            raise RenderError(
                f"The signing key of {action.name} has not been fetched ({action.key.url}).",
                "Fetch and compare it before the script is made.",
            )
        checks.append(_has(action.key.path, action.key.text, "0644", "root:root"))
        puts.append(_put(action.key.path, "0644", "root:root", action.key.text))
    checks.append(_has(path, action.text, "0644", "root:root"))
    puts.append(_put(path, "0644", "root:root", action.text))
    if action.obsolete:
        checks.append(_call("has_no_file", *map(_path, action.obsolete)))
        puts.append(_call("aside", *map(_path, action.obsolete)))
    for other, text in action.edits:
        checks.append(_has(other, text))
        puts.append(_put(other, "0644", "root:root", text))
    checks.append(_call("apt_refreshed", path))
    puts.append(_call("apt_refresh", path))
    undo = 'put_back || note "the old package sources could not all be put back"'
    return _Bodies(_all(checks), _body(Sh(" &&\n        ".join([*puts, "return 0"])), Sh(undo), Sh("return 1")), ("apt",))


def _packages(items: Sequence[Item], index: int) -> _Bodies:
    """One transaction for this item and for the package items that follow it directly."""
    first = items[index].action
    assert isinstance(first, actions.Packages)  # noqa: S101 - narrows the type, the caller looked
    together: list[actions.Packages] = []
    for item in items[index:]:
        if not isinstance(item.action, actions.Packages) or item.action.recommends != first.recommends:
            break
        together.append(item.action)
    install = list(dict.fromkeys(package for action in together for package in action.install))
    remove = list(dict.fromkeys(name for action in together for name in action.remove))
    checks = [_call("has_package", *_package(package)) for package in first.install]
    if first.remove:
        checks.append(_call("has_no_package", *map(_name, first.remove)))
    words = ["=".join(word for word in _package(package) if word) for package in install]
    change = _call("apt_install", "yes" if first.recommends else "no", *words, "--", *map(_name, remove))
    numbers = " ".join(str(index + 1 + offset) for offset in range(1, len(together)))
    lines = [Sh(f"{change} || return 1"), Sh(f"TOGETHER={join([numbers])}")] if numbers else [change]
    return _Bodies(_all(checks), _body(*lines), ("apt",))


def _hold(action: actions.Hold) -> _Bodies:
    names = [_name(name) for name in action.packages]
    return _Bodies(_body(_call("held", *names)), _body(_call("hold", *names)), ("apt",))


def _file(action: actions.File) -> _Bodies:
    path = _path(action.path)
    reload = _call("unit_files_changed", path)
    if action.content is None:
        return _Bodies(_body(_call("has_no_file", path)), _all([_call("aside", path), reload]), ("file",))
    mode = _mode(action.mode)
    check = _has(path, action.content, mode, action.owner)
    return _Bodies(_body(check), _all([_put(path, mode, action.owner, action.content), reload]), ("file",))


def _json_merge(action: actions.JsonMerge) -> _Bodies:
    change = _call("json_merge", _path(action.path), action.base, _mode(action.mode), action.content)
    return _Bodies(_body(_has(action.path, action.content)), _body(change), ("json_merge",))


def _service(action: actions.Service) -> _Bodies:
    if not _UNIT.fullmatch(action.name) or action.name.startswith("-"):
        raise RenderError(f"{action.name!r} is not the name of a service.")
    wanted = [action.name, _wanted(action.enabled), _wanted(action.running), "yes" if action.optional else "no"]
    checks = [_call("service_is", *wanted)]
    if action.newer_than:
        checks.append(_call("service_fresh", action.name, *map(_path, action.newer_than), "--", *map(_path, action.stamps)))
    restore = _path(action.restore) if action.restore else ""
    return _Bodies(_all(checks), _body(_call("service_change", *wanted, action.act, restore, action.probe)), ("service",))


def _kernel_module(action: actions.KernelModule) -> _Bodies:
    names, unload = [_name(n.replace("_", "-"), n) for n in action.names], [_name(n.replace("_", "-"), n) for n in action.unload]
    checks, changes = [], []
    if unload:
        checks.append(_call("module_gone", *unload))
        changes.append(Sh(f"{_call('modules_unload', *unload)} || return $?"))
    if names:
        checks.append(_call("module_loaded", *names))
        changes.append(_call("modules_load", *names))
    return _Bodies(_all(checks), _body(*changes), ("kernel_module",))


def _group_member(action: actions.GroupMember) -> _Bodies:
    words = [_word(action.group, "group"), _word(action.user, "user")]
    return _Bodies(_body(_call("group_has", *words)), _body(_call("group_add", *words)), ("group_member",))


def _mount(action: actions.Mount) -> _Bodies:
    words = [_path(action.device), _path(action.path), _word(action.filesystem, "file system")]
    for word in words:
        # they become words of a unit file, which has its own quoting
        if not re.fullmatch(r"[A-Za-z0-9/._:+@-]+", word, re.ASCII):
            raise RenderError(f"{word!r} cannot be used to mount a disk.", "Use a path of letters, digits and . _ : + @ -")
    return _Bodies(_body(_call("mount_done", *words)), _body(_call("mount_make", *words)), ("file", "mount"))


def _smoke(action: actions.Smoke) -> _Bodies:
    words = _smoke_words(action)
    return _Bodies(_body(_call("smoke_proved", *words)), _body(_call("smoke_prove", *words)), ("smoke",))


def _command(action: actions.Command) -> _Bodies:
    """A user's own texts run by `eval` in a subshell: their `exit`, their variables and their syntax errors stay their own."""
    exports = []
    for name, value in action.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise RenderError(f"{name!r} is not the name of an environment variable.")
        exports.append(Sh(f"    export {name}={join([value])}\n"))

    def body(text: str) -> Sh:
        return Sh("(\n" + "".join(exports) + f"    eval {join([text])}\n)")

    return _Bodies(body(action.check), body(action.change))


_KINDS: dict[type, Callable[[Any], _Bodies]] = {
    actions.AptRepository: _apt_repository,
    actions.Hold: _hold,
    actions.File: _file,
    actions.JsonMerge: _json_merge,
    actions.Service: _service,
    actions.KernelModule: _kernel_module,
    actions.GroupMember: _group_member,
    actions.Mount: _mount,
    actions.Smoke: _smoke,
    actions.Command: _command,
}


def _call(function: str, *words: object) -> Sh:
    return Sh(f"{function} {join(words)}" if words else function)


def _body(*lines: Sh) -> Sh:
    return Sh("{\n" + "".join(f"    {line}\n" for line in lines) + "}")


def _all(lines: Sequence[Sh]) -> Sh:
    return _body(Sh(" &&\n        ".join(lines or [Sh("true")])))


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")


def _has(path: str, content: str | bytes, *mode_and_owner: str) -> Sh:
    return _call("has_file", _path(path), hashlib.sha256(_bytes(content)).hexdigest(), *mode_and_owner)


def _put(path: str, mode: str, owner: str, content: str | bytes) -> Sh:
    """Text stays readable in the script; what is no text travels as base64."""
    data = _bytes(content)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return _call("put", _path(path), mode, _word(owner, "owner"), base64.b64encode(data).decode(), "base64")
    return _call("put", _path(path), mode, _word(owner, "owner"), text)


def _path(path: str) -> str:
    if not path.startswith("/") or _CONTROL.search(path) or ".." in path.split("/"):
        raise RenderError(f"{path!r} is not an absolute path without detours.")
    return path


def _mode(mode: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3,4}", mode, re.ASCII):
        raise RenderError(f"{mode!r} is not a file mode in octal digits.")
    return mode


def _name(name: str, result: str | None = None) -> str:
    if not _PACKAGE.fullmatch(name):
        raise RenderError(f"{name!r} is not the name of a package or module.")
    return result if result is not None else name


def _package(package: actions.Package) -> tuple[str, str]:
    if package.version and not _VERSION.fullmatch(package.version):
        raise RenderError(f"{package.version!r} is not a version of {package.name}.")
    return _name(package.name), package.version


def _word(text: str, what: str) -> str:
    """A name that programs take as an argument: nothing they could read as an option, several words or several lines."""
    if not text or text.startswith("-") or _CONTROL.search(text) or " " in text:
        raise RenderError(f"{text!r} is not the name of a {what}.")
    return text


def _wanted(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _smoke_words(smoke: actions.Smoke) -> list[object]:
    image = smoke.image if smoke.image == "embedded" or not smoke.registry else f"{smoke.registry}/{smoke.image}"
    if smoke.request not in ("", "cdi", "gpus", "runtime"):
        raise RenderError(f"{smoke.request!r} is no way to ask for GPUs.", "Use cdi, gpus or runtime.")
    return [_word(image, "image"), int(smoke.gpus), smoke.request]


def _environment(proxy: str, no_proxy: str) -> list[Sh]:
    values = [("http_proxy", proxy), ("https_proxy", proxy), ("no_proxy", no_proxy)]
    return [Sh(f"{name}={join([value])} && export {name}") for name, value in values if value]


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _fragment(name: str) -> str:
    scripts = resources.files("provision") / "scripts"
    return (scripts / name).read_text(encoding="utf-8")
