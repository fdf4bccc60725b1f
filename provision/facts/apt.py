"""apt's sources, keys and proxy (sources.list(5), apt.conf(5))."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from provision.facts.text import Sections
from provision.model import AptSource

_ONE_LINE = re.compile(r"(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?([^\s\[#]\S*)\s+(\S+)([^#]*)")
_OFF = ("no", "false", "without", "off", "disable", "0")
_PROXY = re.compile(r"Proxy\s+\"?([^\s\";]+)", re.IGNORECASE)
_KEY_BYTES = 65536
# No entry names so many; every URI of one goes with every suite, so that a short text could mean a very great deal.
_MOST = 64


def one_line(path: str, text: str) -> tuple[AptSource, ...]:
    """The entries of a `.list` file."""
    found = []
    for row in text.split("\n"):
        entry = _ONE_LINE.match(row.strip())
        if not entry:
            continue
        kind, bracket, uri, suite, tail = entry.groups()
        options: dict[str, str] = {}
        for word in (bracket or "").split():
            key, equals, value = word.partition("=")
            if equals:
                options[key.rstrip("+-").lower()] = value
        found.append(AptSource(
            path=path, deb822=False, types=(kind,), uris=(uri,), suites=(suite,), components=tuple(tail.split()),
            signed_by=options.get("signed-by", "").replace(",", " "),
            architectures=tuple(part for part in options.get("arch", "").split(",") if part),
        ))
    return tuple(found)


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 text: lower-case field names, values with their continuation lines (one leading blank and a lone dot removed)."""
    fields: dict[str, list[str]] = {}
    name = ""
    for row in (*text.replace("\r", "").split("\n"), ""):
        if row.startswith("#"):
            continue
        if not row.strip():
            if fields:
                yield {key: "\n".join(value) for key, value in fields.items()}
            fields, name = {}, ""
        elif row[0] in " \t":
            if name:
                rest = row[1:].rstrip()
                fields[name].append("" if rest.strip() == "." else rest)
        else:
            key, colon, value = row.partition(":")
            name = key.strip().lower() if colon else ""
            if name:
                fields[name] = [value.strip()]


def deb822(path: str, text: str) -> tuple[AptSource, ...]:
    """The entries of a `.sources` file. A key written into `Signed-By` itself is given whole."""
    found = []
    for fields in paragraphs(text):
        types, uris, suites = (tuple(fields.get(key, "").split()[:_MOST]) for key in ("types", "uris", "suites"))
        if not types or not uris:
            continue
        signed = fields.get("signed-by", "").strip()
        embedded = signed.startswith("-----BEGIN")
        found.append(AptSource(
            path=path, deb822=True, types=types, uris=uris, suites=suites,
            components=tuple(fields.get("components", "").split()),
            signed_by=signed + "\n" if embedded else " ".join(signed.replace(",", " ").split()),
            architectures=tuple(fields.get("architectures", "").replace(",", " ").split()),
            enabled=fields.get("enabled", "yes").strip().lower() not in _OFF,
        ))
    return tuple(found)


def sources(sections: Sections) -> tuple[tuple[AptSource, ...], dict[str, str], tuple[str, ...]]:
    """The entries of all source files, the files' texts by path, and what could not be read."""
    entries: list[AptSource] = []
    texts: dict[str, str] = {}
    unread: list[str] = []
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if kind != "file" or path.endswith(".repo"):
            continue
        if section.rc == 0:
            texts[path] = section.text
            if path.endswith(".sources"):
                entries += deb822(path, section.text)
            elif path.endswith(".list"):
                entries += one_line(path, section.text)
        elif section.rc != 2:
            unread.append(path)
    return tuple(entries), texts, tuple(unread)


def keyrings(sections: Sections) -> dict[str, bytes]:
    """The signing keys by path, byte for byte; armoured ones, which come as text, with a newline at their end."""
    found: dict[str, bytes] = {}
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if section.rc != 0 or kind not in ("key64", "keyhex", "keytext"):
            continue
        try:
            if kind == "keytext":
                content = section.text.encode()
            else:
                content = binascii.a2b_base64(section.text) if kind == "key64" else bytes.fromhex(section.text)
        except ValueError:
            continue
        if len(content) <= _KEY_BYTES:
            found[path] = content
    return found


def proxy(sections: Sections) -> str:
    """The proxy apt is told to use for all hosts: that for https, else that for http, else ""."""
    found: dict[str, str] = {}
    for name, section in sections.items():
        if not name.startswith("proxy:") or section.rc != 0:
            continue
        for row in section.text.split("\n"):
            setting = _PROXY.search(row)
            if not setting or row.lstrip().startswith(("//", "#")) or "://" not in setting.group(1):
                continue
            scheme = "https" if re.search(r"https(?=::|\s*\{)", row[: setting.start() + 5], re.IGNORECASE) else "http"
            found[scheme] = setting.group(1)
    return found.get("https", found.get("http", ""))
