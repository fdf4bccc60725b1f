"""What a registry says of an image before anybody pulls it: its environment, its labels, its digest and its size.

The protocol: distribution.github.io/distribution/spec/api (registry HTTP API v2), …/spec/auth/token, and the manifests of
github.com/opencontainers/image-spec; what Docker makes of a short name: github.com/distribution/reference. Only manifests and the small config are
fetched, never a layer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from provision.cudafit import ImageConfig
from provision.errors import Failed

LIMIT = 20.0
"""Seconds that all requests for one image may take together."""
MAX_BYTES = 4 << 20
"""The largest manifest or config that is read, which is also Docker's limit for manifests."""
MAX_REDIRECTS = 5

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# `uname -m` -> Go's names, which images use.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}
HUB, HUB_HOST = "docker.io", "registry-1.docker.io"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NETWORK = "Check the network here, or name a mirror (`mirrors.registry`)."
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Failed):
    """A registry did not say what an image is."""


@dataclass(frozen=True)
class Reference:
    """An image by its registry (`docker.io`, `host[:port]`), repository, and tag or digest ("" where not given)."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def wanted(self) -> str:
        """What the manifest is asked for by."""
        return self.digest or self.tag or "latest"


def reference(text: str) -> Reference:
    """Read a reference as Docker does: what stands before the first slash is a registry only if it looks like a host."""
    name, _, digest = text.partition("@")
    head, slash, tail = name.rpartition("/")
    tail, _, tag = tail.partition(":")
    name = head + slash + tail
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        return Reference(HUB, name if slash else f"library/{name}", tag, digest)
    if first in (HUB, "index.docker.io"):
        return Reference(HUB, rest if "/" in rest else f"library/{rest}", tag, digest)
    return Reference(first, rest, tag, digest)


def is_loopback(registry: str) -> bool:
    """Whether a registry is on the machine that asks, where no TLS is needed, as for Docker."""
    host = urlsplit(f"//{registry}").hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def ask(
    image: str,
    arch: str,
    *,
    mirrors: Sequence[str] = (),
    insecure: Sequence[str] = (),
    docker_config: Path | None = None,
    limit: float = LIMIT,
) -> ImageConfig:
    """Ask for an image's config, for a machine of the architecture `arch` (as `uname -m` says it).

    `mirrors` are URLs asked first for images of Docker Hub; `insecure` are registries (`host:port`) that may be spoken to without TLS, besides this
    machine's own. Credentials are those in `docker_config` (default: Docker's own config.json), never sent without TLS except to this machine itself.
    Raises RegistryError.
    """
    found: list[ImageConfig | BaseException] = []

    def work() -> None:
        try:
            found.append(_asked(image, arch, mirrors, insecure, docker_config, time.monotonic() + limit))
        except BaseException as problem:  # handed to the thread that waits
            found.append(problem)

    # A thread, as an answer that comes byte by byte outlives every timeout of a socket.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit + 1)
    if not found:
        raise _NoAnswer(f"The registry of {image} sends too slowly.", _NETWORK)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _asked(image: str, arch: str, mirrors: Sequence[str], insecure: Sequence[str], docker_config: Path | None, deadline: float) -> ImageConfig:
    wanted = reference(image)
    failed: RegistryError = _NoAnswer(f"{image} names no registry.", "Write `[registry[:port]/]name[:tag]`.")
    for base, own in _places(wanted, mirrors, insecure):
        credentials = _credentials(wanted.registry, docker_config) if own else ""
        try:
            return _Registry(base, wanted, credentials, deadline).config(image, ARCHITECTURES.get(arch, arch))
        except RegistryError as error:
            # Over https there was an answer: that is what is wrong, not that http is closed.
            failed = failed if base.startswith("http:") and not isinstance(failed, _NoAnswer) else error
    raise failed


class _NoAnswer(RegistryError):
    """Nobody answered at that address."""


def _places(wanted: Reference, mirrors: Sequence[str], insecure: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The URLs to ask in turn, and whether each is the registry itself (a mirror is asked without credentials)."""
    if wanted.registry == HUB:
        for mirror in mirrors:
            yield mirror.rstrip("/"), False
        yield f"https://{HUB_HOST}", True
        return
    yield f"https://{wanted.registry}", True
    if is_loopback(wanted.registry):
        yield f"http://{wanted.registry}", True
    elif wanted.registry in insecure:
        yield f"http://{wanted.registry}", False


def _credentials(registry: str, config: Path | None) -> str:
    """`user:password` for a registry from Docker's config.json, "" for none. Helper programs that it names are not run."""
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        auths = json.loads(path.read_text(encoding="utf-8")).get("auths", {})
        for name, entry in auths.items():
            host = urlsplit(name if "//" in name else f"//{name}").netloc
            if host == registry or (registry == HUB and host == "index.docker.io"):
                text = base64.b64decode(entry.get("auth", ""), validate=True).decode()
                if ":" in text and not entry.get("identitytoken"):
                    return text
    except (OSError, ValueError, AttributeError, binascii.Error):
        return ""
    return ""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Registry:
    """One registry, asked for one repository until a deadline."""

    def __init__(self, base: str, wanted: Reference, credentials: str, deadline: float) -> None:
        self._base, self._wanted, self._credentials, self._deadline = base, wanted, credentials, deadline
        self._authorization = ""

    def config(self, image: str, arch: str) -> ImageConfig:
        kind, manifest, digest = self._manifest(self._wanted.wanted)
        offered: list[str] = []
        if kind in INDEXES or "manifests" in manifest:
            entries = [(entry, _dict(entry.get("platform"))) for entry in _dicts(manifest.get("manifests"))]
            named = [(e, f"{p.get('os')}/{p.get('architecture')}") for e, p in entries if p.get("architecture") not in (None, "unknown")]
            chosen = next((entry for entry, platform in named if platform == f"linux/{arch}"), None)
            if chosen is None:
                offered = list(dict.fromkeys(platform for _, platform in named)) or ["nothing"]
                return ImageConfig(image, digest=digest, offered=tuple(offered))
            kind, manifest, _ = self._manifest(self._digest(chosen))
        if kind not in MANIFESTS and "config" not in manifest:
            raise self._error(f"its manifest is of a kind that is not read here ({kind or 'none named'})", "Publish it anew with a current Docker.")
        described = _dict(manifest.get("config"))
        content = _json(self._blob(self._digest(described)))
        if content is None:
            raise self._error("its config is not JSON", "Publish it anew.")
        platform = f"{content.get('os') or 'linux'}/{content.get('architecture') or arch}"
        settings = _dict(content.get("config"))
        environment = dict(str(row).partition("=")[::2] for row in _list(settings.get("Env")))
        labels = {str(name): str(value) for name, value in _dict(settings.get("Labels")).items()}
        size = sum(size for layer in _dicts(manifest.get("layers")) if isinstance(size := layer.get("size"), int))
        return ImageConfig(image, environment, labels, digest, size, () if platform == f"linux/{arch}" else (platform,))

    def _manifest(self, wanted: str) -> tuple[str, dict[str, Any], str]:
        """The media type, the content and the digest of a manifest."""
        answer = self._ask(f"manifests/{wanted}", ", ".join((*INDEXES, *MANIFESTS)))
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        named = wanted if _DIGEST.fullmatch(wanted) else answer.headers.get("Docker-Content-Digest", "")
        if _DIGEST.fullmatch(named) and named != digest:
            raise self._error(f"what it sent for {named} is {digest}", "Something changes what is fetched: an inspecting proxy, or a broken mirror.")
        content = _json(answer.body)
        if content is None:
            raise self._error("its manifest is not JSON", "Check that nothing (a captive portal, a proxy) answers in the registry's place.")
        kind = content.get("mediaType") or answer.headers.get("Content-Type", "").partition(";")[0]
        return str(kind).strip(), content, digest

    def _blob(self, digest: str) -> bytes:
        body = self._ask(f"blobs/{digest}", "*/*").body
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            raise self._error(f"what it sent for {digest} is something else", "Something changes what is fetched: an inspecting proxy, or a broken mirror.")
        return body

    def _digest(self, entry: Mapping[str, Any]) -> str:
        digest = str(entry.get("digest", ""))
        if not _DIGEST.fullmatch(digest):
            raise self._error("its manifest names a part without a sha256 digest", "Publish it anew with a current Docker.")
        return digest

    # ------------------------------------------------------------ HTTP

    def _ask(self, path: str, accept: str) -> _Answer:
        url = f"{self._base}/v2/{self._wanted.repository}/{path}"
        answer = self._get(url, accept, self._authorization)
        if answer.status == 401:
            self._authorization = self._authorize(answer.headers.get("Www-Authenticate", ""))
            answer = self._get(url, accept, self._authorization)
        if answer.status == 200:
            return answer
        if answer.status in (401, 403):
            raise self._error(f"it does not let {'these credentials' if self._credentials else 'everybody'} read it (HTTP {answer.status})",
                              "Check the name; for a private image run `docker login` here (its password, not a helper, is what is read).")
        if answer.status == 404:
            raise self._error("it has no such image (HTTP 404)", "Check the name and the tag.")
        if answer.status == 429:
            raise self._error("it has been asked too often (HTTP 429)", "Wait, log in with `docker login`, or name a mirror (`mirrors.registry`).")
        raise self._error(f"it answered HTTP {answer.status}", "Try again later.")

    def _authorize(self, challenge: str) -> str:
        """The Authorization header that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        basic = "Basic " + base64.b64encode(self._credentials.encode()).decode() if self._credentials else ""
        if scheme.lower() == "basic" and basic and self._may_carry(self._base):
            return basic
        values = dict(_PARAMETER.findall(rest))
        realm = values.get("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise self._error("it asks for a name and a password", "Run `docker login` for it here (its password, not a helper, is what is read).")
        if not self._may_carry(realm):
            raise self._error(f"it sends for a token to {realm}, which is without TLS", "A registry's token service needs https.")
        query = urlencode({"service": values.get("service", ""), "scope": f"repository:{self._wanted.repository}:pull"})
        answer = self._get(f"{realm}{'&' if '?' in realm else '?'}{query}", "application/json", basic)
        content = _json(answer.body) or {}
        token = str(content.get("token") or content.get("access_token") or "")
        if answer.status != 200 or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise self._error(f"{urlsplit(realm).netloc} gives no token for it (HTTP {answer.status})",
                              "Check the name; for a private image run `docker login` here (its password, not a helper, is what is read).")
        return f"Bearer {token}"

    def _may_carry(self, url: str) -> bool:
        """Whether something secret may go to a URL."""
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))

    def _get(self, url: str, accept: str, authorization: str) -> _Answer:
        """One GET with its redirects, within what is left of the time."""
        import requests

        with requests.Session() as session:
            for _ in range(MAX_REDIRECTS):
                headers = {"Accept": accept, **({"Authorization": authorization} if authorization else {})}
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise self._silent(f"no answer within {LIMIT:.0f} s")
                try:
                    # With `auth` set, requests does not look for another password in a .netrc of its own accord.
                    with session.get(url, headers=headers, auth=_as_it_is, timeout=(min(5.0, left), min(10.0, left)), stream=True,
                                     allow_redirects=False) as answer:
                        if not answer.is_redirect:
                            return _Answer(answer.status_code, answer.headers, self._body(answer.iter_content(1 << 16)))
                        to = urljoin(url, answer.headers["Location"])
                except requests.RequestException as error:
                    raise self._silent(f"{type(error).__name__}: {str(error)[:150]}") from None
                if urlsplit(url).scheme == "https" and urlsplit(to).scheme != "https":
                    raise self._error(f"it redirects to {urlsplit(to).netloc} without TLS", "A registry must not do that; name another.")
                if urlsplit(to).netloc != urlsplit(url).netloc:
                    authorization = ""
                url = to
        raise self._error("it redirects without end", "Try again later.")

    def _body(self, parts: Iterator[bytes]) -> bytes:
        body = b""
        for part in parts:
            body += part
            if len(body) > MAX_BYTES:
                raise self._error(f"it sends more than {MAX_BYTES >> 20} MiB for a manifest or config", "Look at it by hand.")
        return body

    def _error(self, what: str, fix: str) -> RegistryError:
        return RegistryError(f"{urlsplit(self._base).netloc}/{self._wanted.repository}:{self._wanted.wanted}: {what}.".replace(":sha256:", "@sha256:"), fix)

    def _silent(self, what: str) -> RegistryError:
        return _NoAnswer(f"The registry {urlsplit(self._base).netloc} cannot be asked: {what}", _NETWORK)


def _as_it_is(request: Any) -> Any:
    return request


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]
