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

# Seconds that scripts/reach.sh gives one download.
LIMIT = 40

# What downloaders say, by what it means, in the order in which it tells most. From apt's methods (connect.cc, http.cc, gnutls and openssl), curl and
# wget; URLs are taken out of a line before it is compared, as they may hold any of these words.
SAYINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (state, re.compile(words, re.I))
    for state, words in (
        (
            "dns",
            r"could not resolve|temporary failure (resolving|in name resolution)|name or service not known|unable to resolve|no address associated"
            r"|bad address",
        ),
        ("proxy", r"\b407\b|proxy authentication|proxy connect aborted|invalid response from proxy"),
        ("tls", r"certificate|handshake|gnutls|openssl|\b(ssl|tls)(:? |_)"),
        ("missing", r"\b404\b|\b410\b"),
        (
            "connect",
            r"could not connect|unable to connect|connection (refused|timed out|failed|reset)|no route|network is unreachable|timed? ?out"
            r"|failed to connect|cannot initiate|couldn't connect",
        ),
        ("http", r"\b[345]\d\d\b|returned error"),
    )
)
_URL = re.compile(r"\S+://\S+")
# The script sends no more than this of a downloader's words.
_MOST, _LONGEST = 4096, 1000
_PREFIX = re.compile(r"^(E: |W: |Err:\d+ |curl: |wget: |Failed to fetch )+")


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
    lines = [_telling(line[:_LONGEST]) for line in text[:_MOST].splitlines() if line.strip()]
    for state, saying in SAYINGS:
        said = next((line for line in lines if saying.search(line)), None)
        if said is not None:
            return Reach(url, state, said[:200])
    said = next((line for line in reversed(lines) if line), f"exit code {rc}")
    return Reach(url, "connect" if rc in (124, 143) else "error", f"no answer within {LIMIT} s" if rc == 124 else said[:200])


def _telling(line: str) -> str:
    """What a downloader's line says besides naming the URL and itself."""
    return " ".join(_PREFIX.sub("", _URL.sub("", _PREFIX.sub("", line.strip()))).split())
