"""How taking things back becomes sh, and the script that asks a host what there is to be taken back. Pure: values in, text out."""

from __future__ import annotations

from provision import actions, shtext
from provision.sh import Sh
from provision.shtext import Bodies, RenderError

EITHER = "either"
"""The fragment for dpkg or for rpm, whichever a host has: a rollback knows no plan that says so."""

_FRAGMENTS = ("others", EITHER, "service", "file", "group_member", "kernel_module", "runfile", "rollback")
_KINDS = frozenset(
    ("undo", "runfile", "packages", "images", "holds", "key", "file", "cache", "index", "directories", "service", "mount", "member", "account", "data", "forget")
)


def take_back(action: actions.TakeBack) -> Bodies:
    """Two functions of `actions/rollback.sh`: is it so already, and make it so. Raises RenderError for a kind that there is none for."""
    if action.what not in _KINDS:
        raise RenderError(f"There is nothing of the kind {action.what!r} to be taken back.")
    for word in action.words:
        if shtext.line(word) != word:
            raise RenderError(f"{word!r} in the host's receipts is not what mlhost writes there.")
    done, change = shtext.call(f"back_{action.what}_done", *action.words), shtext.call(f"back_{action.what}", *action.words)
    return Bodies(shtext.body(done), shtext.body(change), _FRAGMENTS)


def either() -> str:
    """The functions for dpkg or for rpm."""
    apt, rpm = shtext.fragment("actions/apt.sh"), shtext.fragment("actions/rpm.sh")
    database = '[ -d "$ROOT/var/lib/rpm" ] || [ -d "$ROOT/usr/lib/sysimage/rpm" ]'
    return f'if [ ! -s "$ROOT/var/lib/dpkg/status" ] && {{ {database}; }}; then\n{rpm}\nelse\n{apt}\nfi\n'


def lookback() -> Sh:
    """The read-only script, for `sh -s -- MARK`, whose answer `provision.traces` reads."""
    names = (name for name in _FRAGMENTS if name != EITHER)
    parts = [shtext.fragment("prelude.sh"), shtext.fragment("happened.sh"), either(), *(shtext.fragment(f"actions/{name}.sh") for name in names)]
    return Sh("\n".join([*parts, shtext.fragment("lookback.sh"), 'lookback "$@" </dev/null\n']))


def tidy(paths: tuple[str, ...], *, keep_backups: bool = False) -> Sh:
    """The script that removes what is mlhost's own on a host, once everything is taken back; the state folder is the first of `paths`.

    Exits 73 while a run is under way, 1 where not all could be removed.
    """
    parts = [shtext.fragment("journal/lock.sh"), shtext.fragment("tidy.sh")]
    return Sh("\n".join([*parts, f"{shtext.call('tidy', 'yes' if keep_backups else 'no', *map(shtext.absolute, paths))} </dev/null\n"]))
