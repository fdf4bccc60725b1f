"""One value of a playbook: from its place in the tree to the Python value that `provision.spec` wants, by the setting's kind."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from provision import playbook_grammar as grammar
from provision.errors import UsageError
from provision.playbook_grammar import Bad
from provision.playbook_schema import Setting, nearest
from provision.playbook_yaml import BOOL, FLOAT, INT, NULL, STR, Map, Node, Scalar, Seq, show

# What the texts of a kind may look like, and of single settings whose kind says too little.
_KINDS: Mapping[str, Callable[[str], str]] = {
    "text": grammar.text, "path": grammar.own_path, "url": grammar.url, "version": grammar.version, "size": grammar.size, "limit": grammar.limit,
}
_KEYS: Mapping[str, Callable[[str], str]] = {
    "extends": grammar.filled,
    "docker.users": grammar.user,
    "docker.beside": grammar.beside,
    "docker.insecure_registries": grammar.registry_host,
    "driver.branch": grammar.branch,
    "smoke.image": grammar.image,
    "mirrors.docker.fingerprint": grammar.fingerprint,
    "mirrors.toolkit.fingerprint": grammar.fingerprint,
    "mirrors.cuda.fingerprint": grammar.fingerprint,
    "mirrors.registry": grammar.registry_mirror,
    "proxy.http": grammar.proxy_url,
    "proxy.https": grammar.proxy_url,
    "proxy.no_proxy": grammar.no_proxy,
    "storage.disk": grammar.disk,
    "run.volumes": grammar.volume,
    "run.env": grammar.variable,
    "steps": grammar.filled,
}
_COUNTS: Mapping[str, Callable[[int], int]] = {
    "docker.log.max_file": grammar.count(1, 1000),
    "preflight.lock_wait": grammar.count(0, 86400),
}
_ANY_COUNT = grammar.count(0, 1_000_000)
_ELEMENT = {"texts": "text", "limits": "limit"}
_WANTS = {"bool": "`true` or `false`", "int": "a whole number", "texts": "a list", "json": "a mapping", "limits": "a mapping", "section": "a mapping"}

# Keys of daemon.json that other settings write, and which those are. Nested keys are dotted.
_OWNED = {
    "data-root": "docker.data_root", "graph": "docker.data_root", "live-restore": "docker.live_restore", "default-shm-size": "docker.shm_size",
    "default-ulimits": "docker.ulimits", "insecure-registries": "docker.insecure_registries", "log-opts.max-size": "docker.log.max_size",
    "log-opts.max-file": "docker.log.max_file", "registry-mirrors": "mirrors.registry", "proxies": "proxy", "http-proxy": "proxy.http",
    "https-proxy": "proxy.https", "no-proxy": "proxy.no_proxy", "runtimes.nvidia": "toolkit.install", "features.cdi": "toolkit.install",
}


def convert(setting: Setting, node: Node) -> Any:
    """The value of `setting` in `node`: str, int, bool, tuple of str, or a mapping. Raises UsageError naming the place."""
    try:
        return _CONVERT[setting.kind](setting, node)
    except Bad as exc:
        raise error(node, setting.key, exc) from None


def error(node: Node, key: str, bad: Bad) -> UsageError:
    """The error a user sees for a value that will not do."""
    return UsageError(f"{node.where}: `{show(key)}` {bad.what}.", bad.fix)


def _kind_of(node: Node) -> str:
    if isinstance(node, (Map, Seq)):
        return "a mapping" if isinstance(node, Map) else "a list"
    return {STR: "a text", INT: "a number", FLOAT: "a number", BOOL: "a boolean", NULL: "nothing"}.get(node.tag, "a date")


def _scalar(setting: Setting, node: Node, wants: str) -> Scalar:
    if not isinstance(node, Scalar):
        raise Bad(f"wants {wants}, not {_kind_of(node)}", "Write one value after the colon.")
    if node.tag == NULL:
        raise Bad("has no value",
                  "Leave the key out for its default, or write the value after the colon" + (' ("" for none).' if setting.default == "" else "."))
    return node


def _as_text(setting: Setting, node: Node, kind: str) -> str:
    scalar = _scalar(setting, node, "a text")
    shown = "it" if setting.secret or kind == "url" else f"`{show(scalar.text)}`"
    if scalar.tag == STR:
        return scalar.text
    if kind == "limit" and scalar.tag == INT:
        return str(_decimal(scalar))
    quoted = "Quote it" + (f': "{show(scalar.text)}".' if shown != "it" else ".")
    if scalar.tag == BOOL:
        raise Bad(f"wants a text, but unquoted {shown} is a boolean to YAML", quoted)
    if kind == "size" and scalar.tag == INT:
        raise Bad(f"is {shown}, a size without a unit", "Say the unit: k, m, g or t, for example `50m`.")
    if scalar.tag == FLOAT:
        raise Bad(f"wants a text, but unquoted {shown} is a number to YAML and loses its last zeros (29.70 becomes 29.7)", quoted)
    raise Bad(f"wants a text, but unquoted {shown} is {_kind_of(scalar)} to YAML", quoted)


def _decimal(scalar: Scalar) -> int:
    # YAML 1.1 reads 010 as eight and 1:30 as ninety; nobody means that here.
    if not re.fullmatch(r"-?(?:0|[1-9][0-9]{0,17})", scalar.text):
        raise Bad(f"is `{show(scalar.text)}`, which YAML does not read as plain decimal",
                  "Write the digits alone, without leading zeros, underscores or colons.")
    return int(scalar.text)


def _choice(setting: Setting, node: Node) -> str:
    scalar = _scalar(setting, node, "one word")
    # `yes` and `no` are booleans to YAML; where they are among the choices the word as written is what is meant.
    if scalar.text in setting.choices:
        return scalar.text
    offered = ", ".join(f"`{choice}`" if choice else '`""`' for choice in setting.choices)
    near = nearest(scalar.text, setting.choices)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise Bad(f"cannot be `{show(scalar.text)}`", f"{hint}It is one of {offered}.")


def _bool(setting: Setting, node: Node) -> bool:
    scalar = _scalar(setting, node, _WANTS["bool"])
    if scalar.tag != BOOL:
        raise Bad(f"wants `true` or `false`, not {_kind_of(scalar)}",
                  "Write it without quotes." if scalar.tag == STR else "Write `true` or `false`.")
    return scalar.text.lower() in ("true", "yes", "on")


def _int(setting: Setting, node: Node) -> int:
    scalar = _scalar(setting, node, _WANTS["int"])
    if scalar.tag != INT:
        fix = "Write it without quotes." if scalar.tag == STR and scalar.text.isdigit() else "Write a whole number."
        raise Bad(f"wants a whole number, not {_kind_of(scalar)}", fix)
    return _COUNTS.get(setting.key, _ANY_COUNT)(_decimal(scalar))


def _text(setting: Setting, node: Node) -> str:
    value = _as_text(setting, node, setting.kind)
    return _KEYS.get(setting.key, _KINDS[setting.kind])(value)


def _texts(setting: Setting, node: Node) -> tuple[str, ...]:
    if not isinstance(node, Seq):
        word = show(node.text) if isinstance(node, Scalar) and node.tag == STR and not setting.secret else "…"
        raise Bad(f"wants a list, not {_kind_of(node)}",
                  f"Write `[{word}]`, or `[]` for none." if not isinstance(node, Map) else "Begin each entry with `- `.")
    found: list[str] = []
    for item in node.items:
        try:
            value = _KEYS[setting.key](_as_text(setting, item, "text"))
            if value in found:
                raise Bad(f"names `{show(value)}` twice", "Keep one of them.")
        except Bad as exc:
            raise error(item, setting.key, exc) from None
        found.append(value)
    return tuple(found)


def _limits(setting: Setting, node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _mapping(node).entries:
        path = f"{setting.key}.{key.text}"
        if key.text not in grammar.ULIMITS:
            near = nearest(key.text, grammar.ULIMITS)
            raise UsageError(f"{key.where}: `{show(key.text)}` is not a limit.",
                             f"Did you mean `{near[0]}`?" if near else f"Limits are {', '.join(grammar.ULIMITS)}.")
        try:
            found[key.text] = grammar.limit(_as_text(setting, value, "limit"))
        except Bad as exc:
            raise error(value, path, exc) from None
    return found


def _mapping(node: Node) -> Map:
    if not isinstance(node, Map):
        empty = isinstance(node, Scalar) and node.tag == NULL
        raise Bad("has no value" if empty else f"wants a mapping, not {_kind_of(node)}",
                  "Leave the key out, or write `{}`." if empty else "Write `key: value` lines under it.")
    return node


def _json(setting: Setting, node: Node) -> dict[str, Any]:
    return _json_map(setting.key, (), _mapping(node))


def _json_map(root: str, path: tuple[str, ...], node: Map) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.entries:
        inner = (*path, key.text)
        name = ".".join((root, *inner))
        if key.tag != STR:
            raise UsageError(f"{key.where}: the key `{show(key.text)}` of `{root}` is {_kind_of(key)} to YAML.",
                             f'Quote it: "{show(key.text)}".')
        _refuse_owned(root, ".".join(inner), value, key.where)
        try:
            grammar.filled(key.text)
            found[key.text] = _json_value(root, inner, value)
        except Bad as exc:
            raise error(value, name, exc) from None
    return found


def _json_value(root: str, path: tuple[str, ...], node: Node) -> Any:
    if isinstance(node, Map):
        return _json_map(root, path, node)
    if isinstance(node, Seq):
        return [_json_value(root, path, item) for item in node.items]
    if node.tag == STR:
        return grammar.text(node.text)
    if node.tag == BOOL:
        return node.text.lower() in ("true", "yes", "on")
    if node.tag == INT:
        return _decimal(node)
    if node.tag == FLOAT:
        try:
            number = float(node.text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        raise Bad(f"is `{show(node.text)}`, which JSON cannot hold", "Write a plain number, or quote it if it is a text.")
    if node.tag == NULL:
        raise Bad("has no value", "Leave the key out, or write its value.")
    raise Bad(f"is `{show(node.text)}`, which is {_kind_of(node)} to YAML and nothing to JSON", f'Quote it: "{show(node.text)}".')


def _refuse_owned(root: str, key: str, value: Node, where: str) -> None:
    if key == "hosts":
        raise UsageError(f"{where}: `{root}.hosts` is refused: the systemd unit already passes `-H fd://`, and with `hosts` in daemon.json as well "
                         "the daemon does not start; listening on TCP also gives root on the host to whoever reaches the port.",
                         "Reach the daemon with `docker -H ssh://user@host`, or change the unit yourself with `systemctl edit docker`.")
    if key == "default-runtime" and isinstance(value, Scalar) and value.text == "nvidia":
        raise UsageError(f"{where}: `{root}.default-runtime: nvidia` belongs to another setting.",
                         "Use `toolkit.default_runtime: true`.")
    if key in _OWNED:
        raise UsageError(f"{where}: `{root}.{key}` belongs to another setting.", f"Use `{_OWNED[key]}`.")


_CONVERT: Mapping[str, Callable[[Setting, Node], Any]] = {
    "choice": _choice, "bool": _bool, "int": _int, "text": _text, "path": _text, "url": _text, "version": _text, "size": _text, "limit": _text,
    "texts": _texts, "limits": _limits, "json": _json,
}
