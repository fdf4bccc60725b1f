"""A bundle that hosts are set up from: opened and compared here, laid on a host before its script runs, taken away when it is done."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from provision import bundlefile, upload
from provision.actions import BundleImages, BundleRepository
from provision.bundlefile import Manifest
from provision.errors import Failed, Refused, UsageError
from provision.lockplan import Bundled, Pinned
from provision.model import CHANGE, Plan
from provision.transport import Transport

PLACE = "/var/lib/mlhost/bundle"
_UNPROVED = "Give the hash that was printed when it was made (--bundle-sha256), or the public key of who signed it (--verify-key)."


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `folder` is where its files lie on hosts."""

    path: str
    manifest: Manifest
    folder: str
    _packed: dict[tuple[tuple[str, str], ...], BinaryIO] = field(default_factory=dict, repr=False, compare=False)
    _packing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All packages in its lock."""
        return Pinned(self.manifest.lock, "").names

    def pinned(self, playbook: str) -> Pinned:
        """What a host whose desired state has this digest is held to."""
        bundles = {
            name: Bundled(f"{self.folder}/files", bundlefile.files_of(self.manifest, name), content.images, self.manifest.key)
            for name, content in self.manifest.classes.items()
        }
        return Pinned(self.manifest.lock, playbook, os.path.basename(self.path), bundles)

    def lay(self, transport: Transport, plan: Plan, told: Callable[[str], None] = lambda _text: None) -> None:
        """Bring what the plan needs onto the host. Raises Failed, also where a file is not that of the manifest."""
        wanted = self._wanted(plan)
        if not wanted:
            return
        key = tuple(sorted(wanted.items()))
        with self._packing:  # hosts of one kind share one file, however many are at work
            if key not in self._packed:
                archive = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it has no name, and goes with this process
                try:
                    self._pack(wanted, archive)
                    archive.flush()
                except BaseException:
                    archive.close()
                    raise
                self._packed[key] = archive
        upload.send(transport, cast(BinaryIO, _Reader(self._packed[key].fileno())), self.folder, told)

    def close(self) -> None:
        """Forget what was packed for hosts."""
        for archive in self._packed.values():
            archive.close()
        self._packed.clear()

    def clear(self, transport: Transport) -> None:
        """Take it off the host."""
        upload.remove(transport, self.folder)

    def _wanted(self, plan: Plan) -> dict[str, str]:
        """Path on the host -> member, for what the plan's items name."""
        wanted: set[tuple[str, str]] = set()
        for item in plan.items:
            if item.state != CHANGE:
                continue
            if isinstance(item.action, BundleRepository):
                wanted.update(item.action.files)
            elif isinstance(item.action, BundleImages):
                wanted.update((path[len(f"{self.folder}/files/") :], sha256) for path, _, sha256 in item.action.images)
        paths = {path for path, _ in wanted}
        return {path: member for content in self.manifest.classes.values() for path, member in content.files.items()
                if path in paths and (path, self.manifest.members[member].sha256) in wanted}

    def _pack(self, wanted: dict[str, str], target: BinaryIO) -> None:
        """A tar archive of these members under their paths on the host, each compared with the manifest."""
        with tarfile.open(self.path, "r:") as source, tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, member in sorted(wanted.items()):
                expected = self.manifest.members[member]
                try:
                    entry = source.getmember(member)
                    file = source.extractfile(entry)
                except KeyError:
                    file = None
                if file is None or entry.size != expected.size:
                    raise _damaged(self.path, member)
                made = tarfile.TarInfo(path)
                made.size, made.mode = expected.size, 0o644
                reader = _Hashing(file)
                archive.addfile(made, cast("io.BufferedReader", reader))
                if reader.digest.hexdigest() != expected.sha256:
                    raise _damaged(self.path, member)


class _Reader:
    """An open file with a place of its own in it."""

    def __init__(self, handle: int) -> None:
        self._handle, self._at = handle, 0

    def seek(self, at: int) -> int:
        self._at = at
        return at

    def read(self, size: int) -> bytes:
        content = os.pread(self._handle, size, self._at)
        self._at += len(content)
        return content


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: object) -> None:
        self._file = cast(BinaryIO, file)
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _damaged(path: str, member: str) -> Failed:
    return Failed(f"{path} is damaged or has been changed: {member} is not the file that its manifest names.", "Copy the bundle again, or make it again. Nothing was changed.")


def open_bundle(path: str, sha256: str | None = None, key: str | None = None) -> Bundle:
    """A bundle, proved by the SHA-256 of the whole file or by the signature of its manifest, or both.

    `key` is a file with an SSH public key, or one in the form of `ssh-keygen -Y`'s allowed signers. Raises Refused where it is not proved, UsageError
    for what is no bundle.
    """
    if not sha256 and not key:
        raise UsageError(f"{path}: nothing is installed from a bundle of which nobody says that it is the right one.", _UNPROVED)
    try:
        if sha256:
            _compare(path, sha256)
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            if first is None or first.name != bundlefile.MANIFEST or first.size > bundlefile.MAX_MANIFEST:
                raise UsageError(f"{path} is no bundle of mlhost.", "Make one with `mlhost bundle`.")
            text = _content(archive, first)
            second = archive.next() if key else None
            signature = _content(archive, second) if second and second.name == bundlefile.SIGNATURE and second.size < 65536 else b""
    except (tarfile.TarError, EOFError):
        raise UsageError(f"{path} is no bundle of mlhost, or not all of one.", "Make one with `mlhost bundle`, or copy it again.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a file that `mlhost bundle` wrote.") from None
    if key:
        _verify(path, text, signature, key)
    return Bundle(path, bundlefile.load(text, path), f"{PLACE}/{bundlefile.identity(text)}")


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    return file.read() if file else b""


def _compare(path: str, sha256: str) -> None:
    wanted, digest = sha256.strip().lower(), hashlib.sha256()
    if len(wanted) != 64 or set(wanted) - set("0123456789abcdef"):
        raise UsageError(f"{sha256[:80]!r} is no SHA-256 hash.", "It has 64 hex digits; `mlhost bundle` prints it.")
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise Refused(f"{path} is not the bundle you mean: its SHA-256 is {digest.hexdigest()}, not {wanted}.", "Copy it again, or find out who has changed it. Nothing was changed.")


def _verify(path: str, text: bytes, signature: bytes, key: str) -> None:
    if not signature:
        raise Refused(f"{path} is not signed.", "Have it made with `mlhost bundle --sign KEY`, or prove it by --bundle-sha256. Nothing was changed.")
    try:
        content = Path(key).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--verify-key {key} cannot be read: {error}.", "Name an SSH public key (a .pub file).") from None
    words = content.split()
    if len(words) >= 2 and words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        content = f"mlhost {words[0]} {words[1]}"
        identity = "mlhost"
    else:
        identity = words[0].split(",")[0] if words else ""
    with tempfile.TemporaryDirectory(prefix="mlhost-verify-") as scratch:
        (Path(scratch) / "allowed").write_text(content + "\n", encoding="utf-8")
        (Path(scratch) / "signature").write_bytes(signature)
        command = ["ssh-keygen", "-Y", "verify", "-f", f"{scratch}/allowed", "-I", identity, "-n", bundlefile.NAMESPACE, "-s", f"{scratch}/signature"]
        try:
            done = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
        except FileNotFoundError:
            raise Failed("Comparing the bundle's signature needs ssh-keygen on this machine.", "Install OpenSSH's client (8.2 or newer).") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise Refused(f"{path}: its signature is not one of {key} ({said[-1][:200] if said else 'ssh-keygen refuses it'}).", "Find out who made it. Nothing was changed.")
