"""What the vendors serve: the suites, versions and keys in their repositories, asked over HTTP and read without trusting more than their words.

Used by `provision.refresh`, never on the way of a plan.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision import openpgp
from provision.errors import Failed
from provision.rows import version_key

MAX_BYTES = 64 << 20
"""The largest index that is read; NVIDIA's largest had 3 MiB compressed in 2026."""

_NAME = re.compile(r"<name>([^<]{1,300})</name>")
_VERSION = re.compile(r"<version epoch=\"\d{0,9}\" ver=\"([^\"]{1,300})\"")
_HREF = re.compile(r"<location href=\"([^\"]{1,1000})\"")
_DRIVER = re.compile(r"^(?:lib)?nvidia-(?:driver|compute|kernel|dkms|open|cfg)")


@dataclass(frozen=True)
class Vendors:
    """Asks the vendors; with `via` ("http://127.0.0.1:8000") a server that has their files under /HOST/PATH instead, as a mirror or a test does."""

    via: str = ""
    timeout: float = 30

    def get(self, url: str) -> bytes | None:
        """The body at a URL; None where the vendor says that there is none (404, 403, 410). Raises Failed for anything else."""
        import requests

        parts = urlsplit(url)
        asked = f"{self.via.rstrip('/')}/{parts.netloc}{parts.path}" if self.via else url
        try:
            with requests.get(asked, timeout=self.timeout, stream=True) as answer:
                if answer.status_code in (403, 404, 410):
                    return None
                answer.raise_for_status()
                body = b""
                for part in answer.iter_content(1 << 16):
                    body += part
                    if len(body) > MAX_BYTES:
                        raise Failed(f"{url} has more than {MAX_BYTES >> 20} MiB.", "Look at it by hand; an index is smaller.")
                return body
        except requests.RequestException as error:
            raise Failed(f"{url} cannot be fetched: {error}", "Try again later, or with --via a mirror.") from None

    def deb_packages(self, base: str) -> dict[str, list[str]] | None:
        """Every package and its versions in a Packages index (plain or .gz) in a directory; None where there is none."""
        for name in ("Packages.gz", "Packages"):
            body = self.get(f"{base}/{name}")
            if body is not None:
                return _collected(_deb(unpacked(body, f"{base}/{name}").decode("utf-8", "replace")))
        return None

    def rpm_packages(self, base: str) -> dict[str, list[str]] | None:
        """Every package and its versions in an rpm repository; None where there is none. Raises Failed for an index in a form that is not read."""
        index = self.get(f"{base}/repodata/repomd.xml")
        if index is None:
            return None
        found = _HREF.search(index.decode("utf-8", "replace").partition('<data type="primary">')[2])
        if found is None:
            raise Failed(f"{base}/repodata/repomd.xml names no primary index.", "Look at it by hand.")
        href = found[1]
        body = self.get(f"{base}/{href}")
        if body is None:
            raise Failed(f"{base}/repodata/repomd.xml names {href}, which is not there.", "The vendor may be publishing just now; try again.")
        if not href.endswith((".gz", ".xz", ".xml")):
            raise Failed(f"{base}/{href} is compressed in a way that is not read here.", "Look at it by hand.")
        return _collected(_rpm(unpacked(body, href).decode("utf-8", "replace")))

    def key(self, url: str) -> tuple[tuple[str, ...], str] | None:
        """The fingerprints of the key file at a URL, and the sha256 of its text without the Version line; None where there is no file."""
        body = self.get(url)
        if body is None:
            return None
        text = b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(b"Version"))
        try:
            return openpgp.fingerprints(body), hashlib.sha256(text).hexdigest()
        except ValueError as error:
            raise Failed(f"{url} is no key: {error}.", "Look at it by hand.") from None

    def releases(self, url: str) -> dict[str, str] | None:
        """The newest release of every driver branch in NVIDIA's releases.json; None where there is no such file."""
        body = self.get(url)
        if body is None:
            return None
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Failed(f"{url} is not JSON: {error}.", "Look at it by hand.") from None
        entries = data.values() if isinstance(data, Mapping) else data if isinstance(data, list) else ()
        versions = [
            str(info.get("release_version", ""))
            for entry in entries
            if isinstance(entry, Mapping)
            for info in _listed(entry.get("driver_info"))
            if isinstance(info, Mapping)
        ]
        return newest_by_branch(versions)


def newest(versions: Iterable[str]) -> str:
    """The newest of some versions, without epoch and package revision; "" for none."""
    plain = [re.split(r"[-~]", version.split(":", 1)[-1], maxsplit=1)[0] for version in versions]
    return max(plain, key=version_key, default="")


def newest_by_branch(versions: Iterable[str]) -> dict[str, str]:
    """Driver branch -> its newest release."""
    found: dict[str, list[str]] = {}
    for version in versions:
        plain = newest([version])
        if re.fullmatch(r"\d{3}(\.\d+){1,2}", plain):
            found.setdefault(plain.split(".", 1)[0], []).append(plain)
    return {branch: newest(of) for branch, of in sorted(found.items())}


def driver_branches(packages: Mapping[str, list[str]]) -> dict[str, str]:
    """The driver branches that a repository's packages belong to, each with its newest release."""
    return newest_by_branch(version for name, versions in packages.items() if _DRIVER.match(name) for version in versions)


def unpacked(body: bytes, name: str) -> bytes:
    """A file's content by the end of its name: `.gz`, `.xz`, anything else as it is. Raises Failed for damaged ones and those that grow beyond MAX_BYTES."""
    if not name.endswith((".gz", ".xz")):
        return body
    try:
        if name.endswith(".gz"):
            inflate = zlib.decompressobj(wbits=31)
            content, whole = inflate.decompress(body, MAX_BYTES + 1), inflate.eof
        else:
            expand = lzma.LZMADecompressor(memlimit=4 * MAX_BYTES)
            content, whole = expand.decompress(body, MAX_BYTES + 1), expand.eof
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise Failed(f"{name} is damaged: {error}.", "The vendor may be publishing just now; try again.") from None
    if len(content) > MAX_BYTES:
        raise Failed(f"{name} has more than {MAX_BYTES >> 20} MiB unpacked.", "Look at it by hand; an index is smaller.")
    if not whole:
        raise Failed(f"{name} is cut short.", "Try again later.")
    return content


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _deb(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each paragraph of a Packages index."""
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.split("\n") if line.startswith(("Package: ", "Version: ")))
        if len(fields) == 2:
            yield fields["Package"].strip(), fields["Version"].strip()


def _rpm(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of each package of a primary index."""
    for part in text.split("<package")[1:]:
        name, version = _NAME.search(part), _VERSION.search(part)
        if name and version:
            yield name[1], version[1]


def _collected(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, version in pairs:
        found.setdefault(name, []).append(version)
    return found
