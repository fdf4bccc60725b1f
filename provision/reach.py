"""Whether a host can fetch what a plan needs: the script that asks, and the pure reading of its answer."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from provision.capture import split
from provision.model import Reach
from provision.sh import Sh, quote
from provision.spec import Proxy

# What downloaders say, by what it means. From apt's methods (connect.cc, http.cc, gnutls/openssl), curl and wget; first match wins.
SAYINGS = (
    (
        "dns",
        re.compile(
            r"could not resolve|temporary failure resolving|name or service not known|unable to resolve|no address associated",
            re.I,
        ),
    ),
    ("proxy", re.compile(r"\b407\b|proxy authentication|proxy connect aborted|invalid response from proxy", re.I)),
    ("tls", re.compile(r"certificate|ssl|tls|handshake", re.I)),
    ("missing", re.compile(r"\b404\b|not found", re.I)),
    (
        "connect",
        re.compile(
            r"could not connect|unable to connect|connection (refused|timed out|failed|reset)|no route|network is unreachable|timed? ?out|failed to connect|cannot initiate",
            re.I,
        ),
    ),
    ("http", re.compile(r"\b[345]\d\d\b|returned error", re.I)),
)


def script(text: str, proxy: Proxy) -> Sh:
    """The reach script; with the playbook's proxy in its environment, since apt may not know it yet. Nothing of it goes into argv."""
    lines = []
    http, https = proxy.http or proxy.https, proxy.https or proxy.http
    if http:
        lines.append(f"export http_proxy={quote(http)} https_proxy={quote(https)} no_proxy={quote(','.join(proxy.no_proxy))}")
    return Sh("\n".join([*lines, text]))


def parse(out: bytes, asked: Sequence[tuple[str, str]], mark: str) -> Mapping[str, Reach]:
    """URL -> Reach from the script's output; a URL that is not answered is not in the result."""
    sections = split(out, mark)
    found: dict[str, Reach] = {}
    for number, (_, url) in enumerate(asked, 1):
        section = sections.get(f"reach:{number}")
        if section is None:
            continue
        body = sections.get(f"body:{number}")
        found[url] = _one(url, section.rc, section.text, body.text if body else "")
    return found


def _one(url: str, rc: int, text: str, body: str) -> Reach:
    if rc == 0:
        try:
            content = base64.b64decode(body, validate=False)
        except (binascii.Error, ValueError):
            content = b""
        return Reach(url, "ok", "", content)
    if rc == 127:
        return Reach(url, "no-client", "the host has no apt-helper, curl or wget")
    words = [w.strip() for w in text.splitlines() if w.strip()]
    state = "connect" if rc in (124, 143) else "error"
    for name, pattern in SAYINGS:
        if any(pattern.search(w) for w in words):
            state = name
            break
    chosen = next((w for w in words if w.startswith(("E:", "Err:", "curl:", "W:"))), words[-1] if words else f"exit code {rc}")
    return Reach(url, state, chosen[:200])
