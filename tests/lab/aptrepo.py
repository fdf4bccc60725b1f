"""Signing keys and signed apt indexes, by gpg and apt-ftparchive: what a vendor does on its own machines."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab.need import LabError, tool


class SigningKey:
    """An OpenPGP key in a home of its own, made for one vendor. `fingerprint` is 40 upper-case hex digits.

    With a `day` (YYYYMMDDThhmmss) it was made then, to expire a month later; its owner has prolonged it since, but `public` is still the old one.
    """

    def __init__(self, uid: str, day: str = "") -> None:
        self._gpg = tool("gpg", "gnupg")
        self._outlived = b""
        # A socket path must be short, so the home is under the system's own temporary folder.
        self.home = Path(tempfile.mkdtemp(prefix="lab-gpg-"))
        self.home.chmod(0o700)
        clock = ["--faked-system-time", f"{day}!"] if day else []
        self._call(*clock, "--passphrase", "", "--quick-generate-key", uid, "ed25519", "sign", "30d" if day else "never")
        listing = self._call("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        if day:
            self._outlived = self.public()
            self._call("--quick-set-expire", self.fingerprint, "never")

    def public(self, armored: bool = True) -> bytes:
        """The public key, as vendors publish it."""
        if self._outlived:
            return self._outlived
        return self._call(*(["--armor"] if armored else []), "--export", self.fingerprint)

    def sign(self, release: Path) -> None:
        """Write InRelease and Release.gpg beside a Release file."""
        common = ["--yes", "--default-key", self.fingerprint]
        self._call(*common, "--clearsign", "--output", str(release.with_name("InRelease")), str(release))
        signature = str(release.with_name("Release.gpg"))
        self._call(*common, "--armor", "--detach-sign", "--output", signature, str(release))

    def close(self) -> None:
        """Forget the key and end its agent."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> SigningKey:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _call(self, *words: str) -> bytes:
        command = [self._gpg, "--homedir", str(self.home), "--batch", "--quiet", "--no-tty", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise LabError(f"gpg {' '.join(words)} failed: {done.stderr.decode()}")
        return done.stdout


def index_packages(base: Path, debs: str, index: Path) -> None:
    """Write index/Packages and Packages.gz for the packages below base/debs; names in it are relative to `base`."""
    index.mkdir(parents=True, exist_ok=True)
    text = _ftparchive(base, ["packages", debs])
    (index / "Packages").write_bytes(text)
    (index / "Packages.gz").write_bytes(gzip.compress(text, compresslevel=1, mtime=0))


def write_release(folder: Path, key: SigningKey, fields: Mapping[str, str]) -> None:
    """Write a signed Release for the indexes in and below `folder`."""
    for old in ("Release", "InRelease", "Release.gpg"):
        with_name = folder / old
        if with_name.exists():
            with_name.unlink()
    words: list[str] = []
    for name, value in fields.items():
        words += ["-o", f"APT::FTPArchive::Release::{name}={value}"]
    text = _ftparchive(folder, [*words, "release", "."])
    (folder / "Release").write_bytes(text)
    key.sign(folder / "Release")


def _ftparchive(folder: Path, words: list[str]) -> bytes:
    env: dict[str, str] = {**os.environ, "LC_ALL": "C"}
    command = [tool("apt-ftparchive", "apt-utils"), *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
    if done.returncode != 0:
        raise LabError(f"apt-ftparchive {' '.join(words)} failed: {done.stderr.decode()}")
    return done.stdout
