"""How repositories, packages and holds become sh where packages are rpms. Which manager there is, the script finds out (`actions/rpm.sh`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from provision import actions, openpgp, shtext
from provision.sh import Sh, join
from provision.shtext import Bodies, RenderError

FRAGMENTS = ("others", "rpm")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._-]*", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9.+:~^_-]+\*?|\*", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9._+-]+:[A-Za-z0-9._+-]+", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*", re.ASCII)


def repository(action: actions.RpmRepository) -> Bodies:
    """The key's file, rpm's own trust in it, the repository's file, and its index, fetched; all as it was before if one of them fails.

    Raises RenderError for a repository whose signatures would not be checked, or by another key than its own.
    """
    path = shtext.absolute(action.path)
    _signed(action)
    checks, puts = [], [shtext.call("rpm_repository")]
    if action.key is not None:
        if not action.key.text:
            raise RenderError(
                f"The signing key of {action.name} has not been fetched ({action.key.url}).", "Fetch and compare it before the script is made."
            )
        prints = _prints(action.key)
        checks += [shtext.has(action.key.path, action.key.text, "0644", "root:root"), shtext.call("has_key", *prints)]
        puts += [
            shtext.put(action.key.path, "0644", "root:root", action.key.text),
            shtext.call("key_import", shtext.absolute(action.key.path), *prints),
        ]
    checks.append(shtext.has(path, action.text, "0644", "root:root"))
    puts.append(shtext.put(path, "0644", "root:root", action.text))
    if action.obsolete:
        checks.append(shtext.call("has_no_file", *map(shtext.absolute, action.obsolete)))
        puts.append(shtext.call("aside", *map(shtext.absolute, action.obsolete)))
    for other, text in action.edits:
        checks.append(shtext.has(other, text))
        puts.append(shtext.put(other, "0644", "root:root", text))
    checks.append(shtext.call("rpm_refreshed", action.name, path))
    puts.append(shtext.call("rpm_refresh", action.name, path))
    change = shtext.body(Sh(" &&\n        ".join([*puts, "return 0"])), shtext.call("rpm_undo", action.name), Sh("return 1"))
    return Bodies(shtext.every(checks), change, FRAGMENTS)


def packages(together: Sequence[actions.Packages], following: Sequence[int]) -> Bodies:
    """One transaction for all of `together`; the check is of the first. `following` are the numbers of the others' items."""
    first = together[0]
    checks = [shtext.call("has_package", *_package(package)) for package in first.install]
    if first.remove:
        checks.append(shtext.call("has_no_package", *map(_name, first.remove)))
    if first.modules:
        checks.append(shtext.call("modules_are", *map(_module, first.modules)))
    install = dict.fromkeys(package for action in together for package in action.install)
    change = shtext.call(
        "rpm_install",
        "yes" if first.recommends else "no",
        "yes" if any(action.allow_erasing for action in together) else "no",
        *dict.fromkeys(_module(name) for action in together for name in action.modules),
        "--",
        *dict.fromkeys(_repository_id(name) for name in first.disable_repositories),
        "--",
        *("=".join(word for word in _package(package) if word) for package in install),
        "--",
        *dict.fromkeys(_name(name) for action in together for name in action.remove),
    )
    if not following:
        return Bodies(shtext.every(checks), shtext.body(change), FRAGMENTS)
    mark = Sh(f"TOGETHER={join([' '.join(map(str, following))])}")
    return Bodies(shtext.every(checks), shtext.body(Sh(f"{change} || return 1"), mark), FRAGMENTS)


def hold(action: actions.Hold) -> Bodies:
    """A lock on each of the packages."""
    names = [_name(name) for name in action.packages]
    return Bodies(shtext.body(shtext.call("held", *names)), shtext.body(shtext.call("hold", *names)), FRAGMENTS)


def _signed(action: actions.RpmRepository) -> None:
    if not _ID.fullmatch(action.name):
        raise RenderError(f"{action.name!r} is not the id of a repository.")
    rows = [row.strip().replace(" ", "") for row in action.text.splitlines()]
    if f"[{action.name}]" not in rows:
        raise RenderError(f"The text for {action.path} has no section [{action.name}].")
    if not {"gpgcheck=1", "repo_gpgcheck=1"} & set(rows):
        raise RenderError(
            f"Nothing in {action.path} would be checked for a signature.", "Say gpgcheck=1, or repo_gpgcheck=1 where packages are not signed."
        )
    if action.key is not None and not any(row.startswith("gpgkey=") and f"file://{action.key.path}" in row for row in rows):
        raise RenderError(f"The text for {action.path} does not name its key's file {action.key.path}.", f"Say gpgkey=file://{action.key.path}.")


def _prints(key: actions.Key) -> tuple[str, ...]:
    try:
        found = openpgp.fingerprints(key.text)
    except ValueError as error:
        raise RenderError(f"The signing key of {key.name} cannot be read: {error}.") from error
    if not found or not set(found) <= set(key.fingerprints):
        raise RenderError(f"The signing key of {key.name} is {', '.join(found) or 'none'}, which is not pinned.")
    return found


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RenderError(f"{name!r} is not the name of a package.")
    return name


def _package(package: actions.Package) -> tuple[str, str]:
    if package.version.startswith("@"):
        return _name(package.name), f"@{_name(package.version[1:])}"
    if package.version and not _VERSION.fullmatch(package.version):
        raise RenderError(f"{package.version!r} is not a version of {package.name}.")
    return _name(package.name), package.version


def _module(text: str) -> str:
    if not _MODULE.fullmatch(text):
        raise RenderError(f"{text!r} is not a module and its stream.", "Write it like nvidia-driver:580-open.")
    return text


def _repository_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise RenderError(f"{text!r} is not the id of a repository.")
    return text
