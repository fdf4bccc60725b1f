"""The Debian mirror of this machine, read from its own apt configuration: nothing about it is written down here."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from tests.lab.need import LabUnavailable, tool

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FORMAT = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)"


@dataclass(frozen=True)
class Mirror:
    """Base addresses of the main and the security archive, with no slash at the end.

    `security` is None where this machine has none. Guests and trees always speak plain http to the lab's caching
    proxy, which speaks what the mirror itself speaks.
    """

    main: str
    security: Optional[str]

    def hosts_with_tls(self) -> list[str]:
        """Host names that this machine reaches by https."""
        parts = [urlsplit(uri) for uri in (self.main, self.security) if uri]
        return sorted({part.netloc for part in parts if part.scheme == "https"})

    def lines(self, suite: str, components: str = "main") -> list[str]:
        """One-line apt sources for a suite: the suite itself, its updates and its security archive."""
        main = _plain(self.main)
        lines = [f"deb {main} {suite} {components}", f"deb {main} {suite}-updates {components}"]
        if self.security:
            lines.append(f"deb {_plain(self.security)} {suite}-security {components}")
        return lines

    def deb822(self, suite: str, components: str = "main") -> str:
        """The same as the text of a debian.sources file, signed by Debian's own keyring."""
        text = _stanza(_plain(self.main), f"{suite} {suite}-updates", components)
        if self.security:
            text += "\n" + _stanza(_plain(self.security), f"{suite}-security", components)
        return text


def read_mirror() -> Mirror:
    """Return this machine's mirror. LabUnavailable where its apt configuration names no Debian archive.

    $MLHOST_LAB_MIRROR (and $MLHOST_LAB_MIRROR_SECURITY) come first, for machines that are not Debian.
    """
    given = os.environ.get("MLHOST_LAB_MIRROR")
    if given:
        security = os.environ.get("MLHOST_LAB_MIRROR_SECURITY")
        return Mirror(given.rstrip("/"), security.rstrip("/") if security else None)
    command = [tool("apt-get", "apt"), "indextargets", "--format", FORMAT, "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return mirror_from(done.stdout)


def mirror_from(listing: str) -> Mirror:
    """Choose from lines `uri|release|origin`; origin is empty where the lists were never fetched."""
    main: Optional[str] = None
    security: Optional[str] = None
    for line in listing.splitlines():
        uri, _, rest = line.partition("|")
        release, _, origin = rest.partition("|")
        if origin not in ("Debian", "") or release.startswith("$"):
            continue
        uri = _behind_a_list(uri)
        if release.endswith("-security"):
            security = security or uri
        elif "debian" in uri and re.fullmatch(r"[a-z]+(-updates)?", release):
            main = main or uri
    if main is None:
        raise LabUnavailable("this machine's apt configuration names no Debian archive; set MLHOST_LAB_MIRROR")
    return Mirror(main, security)


def _behind_a_list(uri: str) -> str:
    """Debian's cloud images say mirror+file:PATH, a file of addresses: take its first one."""
    match = re.match(r"mirror\+file:/*(/.*)", uri)
    if match:
        for line in Path(match.group(1).rstrip("/")).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                return line.split()[0].rstrip("/")
    return uri.rstrip("/")


def _plain(uri: str) -> str:
    return re.sub(r"^https:", "http:", uri)


def _stanza(uri: str, suites: str, components: str) -> str:
    return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\nSigned-By: {KEYRING}\n"
