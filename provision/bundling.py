"""Making a bundle: what a lock names is fetched, compared, indexed, signed and put into one file. No host is touched."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path

from provision import bundlefile
from provision.bundlefile import Content, Manifest, Member
from provision.errors import Failed, UsageError
from provision.imageconfig import ARCHITECTURES
from provision.lockfile import HostClass, Lock, LockedPackage

APT_HELPER = "/usr/lib/apt/apt-helper"
TIMEOUT = 1800.0
"""How long one file may take to be fetched, in seconds."""
_PROGRAMS = {"dpkg-deb": "dpkg", "gpg": "gnupg", "ssh-keygen": "openssh-client", "docker": "a Docker client and engine"}
Told = Callable[[str], None]


def make(lock: Lock, images: Sequence[str], out: str, *, sign: str | None = None, told: Told = lambda _text: None) -> str:
    """Write a bundle of everything in `lock` and of `images` (references, or files that `docker save` wrote) to `out`; returns its SHA-256.

    `sign` is the file of an SSH private key that signs the manifest. Raises UsageError for a lock or an image that cannot be bundled, Failed where
    a program is missing, or a file cannot be had or is not the locked one; `out` is then as it was before.
    """
    from provision import __version__

    with tempfile.TemporaryDirectory(prefix="mlhost-bundle-") as scratch, _Signer(Path(scratch)) as signer:
        folder = Path(scratch) / "files"
        members: dict[str, Member] = {"key.asc": _write(folder / "key.asc", signer.public)}
        classes: dict[str, Content] = {}
        loaded = _images(lock, images, folder, members, told)
        for name, kind in lock.classes.items():
            files = {"key.asc": "key.asc", **_packages(name, kind, folder, members, signer, told)}
            files.update((path, path) for path, _ in loaded.get(kind.arch, ()))
            classes[name] = Content(files, tuple(loaded.get(kind.arch, ())))
        manifest = bundlefile.dump(Manifest(lock, classes, dict(sorted(members.items())), signer.fingerprint, f"mlhost {__version__}"))
        texts = {bundlefile.MANIFEST: manifest}
        if sign:
            texts[bundlefile.SIGNATURE] = _signature(manifest, sign, Path(scratch))
        told("writing the bundle")
        return _tar(out, texts, folder, members)


def _packages(name: str, kind: HostClass, folder: Path, members: dict[str, Member], signer: _Signer, told: Told) -> dict[str, str]:
    """Fetch a class's packages and index them; path on the host -> member."""
    files, index = {}, []
    wanted = {package: locked for package, locked in kind.packages.items() if locked.sha256}
    nowhere = next((package for package, locked in wanted.items() if not locked.uri), None)
    if nowhere is not None:
        wanted = {package: locked for package, locked in wanted.items() if locked.uri}
    total = sum(locked.size for locked in wanted.values())
    done = 0
    for package, locked in sorted(wanted.items()):
        told(f"{name}: {package} {locked.version} ({done / 1e6:.0f} of {total / 1e6:.0f} MB)")
        path = bundlefile.pool_path(locked.sha256, package, locked.version, locked.arch)
        if path not in members:
            _fetch(package, locked, folder / path)
            members[path] = Member(locked.sha256, (folder / path).stat().st_size)
        done += locked.size
        files[f"repository/{path}"] = path
        index.append(bundlefile.stanza(_run("dpkg-deb", "-f", str(folder / path)).decode("utf-8", "replace"), path, members[path]))
    packages = "\n".join(index).encode()
    arches = sorted({locked.arch for locked in wanted.values()} - {"", "all"})
    release = bundlefile.release(packages, " ".join(arches) or ARCHITECTURES.get(kind.arch, kind.arch), formatdate(_today(), usegmt=True))
    for file, content in (("Packages", packages), ("InRelease", signer.clearsigned(release))):
        member = f"classes/{name}/{file}"
        members[member] = _write(folder / member, content)
        files[f"repository/{file}"] = member
    return files


def _today() -> int:
    """Yesterday's beginning: a host whose clock is a little slow must not take the index for one of the future."""
    return int(time.time()) // 86400 * 86400 - 86400


def _fetch(name: str, package: LockedPackage, target: Path) -> None:
    """The package's file, compared. Raises Failed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remedy = "If it is gone from there, make a new lock; a bundle made in time would have kept it."
    if os.access(APT_HELPER, os.X_OK):
        command = [APT_HELPER, "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root", "download-file", package.uri, str(target), f"SHA256:{package.sha256}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False, env={**os.environ, "LC_ALL": "C"})
        if done.returncode or not target.exists():
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            raise Failed(f"{name} {package.version} cannot be fetched from {package.uri}: {said[-1][:300] if said else 'apt-helper failed'}.", remedy)
    else:
        _download(name, package, target, remedy)
    if _hash(target)[0] != package.sha256:
        raise Failed(f"{package.uri} is not the file that the lock names: its SHA-256 is {_hash(target)[0]}, locked is {package.sha256}.", remedy)


def _download(name: str, package: LockedPackage, target: Path, remedy: str) -> None:
    import requests

    try:
        with requests.get(package.uri, timeout=60, stream=True) as answer, open(target, "wb") as file:
            answer.raise_for_status()
            for part in answer.iter_content(1 << 20):
                file.write(part)
                if file.tell() > package.size:
                    raise Failed(f"{package.uri} is larger than the file that the lock names.", remedy)
    except requests.RequestException as error:
        raise Failed(f"{name} {package.version} cannot be fetched from {package.uri}: {str(error)[:300]}.", remedy) from None


def _images(lock: Lock, images: Sequence[str], folder: Path, members: dict[str, Member], told: Told) -> dict[str, list[tuple[str, str]]]:
    """The image files by the hosts' architecture: (path, reference). Those that the lock names come with those asked for."""
    found: dict[str, list[tuple[str, str]]] = {}
    for arch in sorted({kind.arch for kind in lock.classes.values()}):
        locked = {name: digest for kind in lock.classes.values() if kind.arch == arch for name, digest in kind.images.items()}
        for image in dict.fromkeys([*locked, *images]):
            told(f"the image {image}")
            path = f"images/{len(members)}.tar"
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.isfile(image):
                shutil.copyfile(image, target)
                reference = saved_reference(target)
            else:
                reference = image
                _save(image, locked.get(image, ""), arch, target)
            digest, size = _hash(target)
            members[path] = Member(digest, size)
            found.setdefault(arch, []).append((path, reference))
    return found


def saved_reference(path: Path) -> str:
    """The name of the image in a file that `docker save` wrote. Raises UsageError for what is none, or holds an image without a name."""
    try:
        with tarfile.open(path) as archive:
            file = archive.extractfile("manifest.json")
            entries = json.loads(file.read(1 << 20)) if file else []
            return str(entries[0]["RepoTags"][0])
    except (OSError, tarfile.TarError, KeyError, ValueError, IndexError, TypeError):
        raise UsageError(f"{path.name}: this is no image with a name that `docker save NAME:TAG` wrote.", "Save it again by its name, not by its id.") from None


def _save(image: str, digest: str, arch: str, target: Path) -> None:
    platform = f"linux/{ARCHITECTURES.get(arch, arch)}"
    wanted = f"{image.partition('@')[0]}@{digest}" if digest else image
    _run("docker", "pull", "--quiet", "--platform", platform, wanted)
    if wanted != image:
        _run("docker", "tag", wanted, image)
    _run("docker", "save", "--output", str(target), image)


class _Signer:
    """An OpenPGP key made for one bundle, which goes with the folder it is in: only what it has signed stays."""

    def __init__(self, scratch: Path) -> None:
        self._home = scratch / "gpg"
        self.fingerprint, self.public = "", b""

    def __enter__(self) -> _Signer:
        self._home.mkdir(mode=0o700)
        # RSA, as the oldest systems' programs know nothing newer
        self._gpg("--passphrase", "", "--quick-generate-key", "mlhost bundle <bundle@mlhost.invalid>", "rsa3072", "sign", "never")
        listing = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        self.public = self._gpg("--armor", "--export", self.fingerprint)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False, capture_output=True)

    def clearsigned(self, text: str) -> bytes:
        """The text with its signature around it, as an InRelease file."""
        return self._gpg("--digest-algo", "SHA512", "--local-user", self.fingerprint, "--clearsign", input=text.encode())

    def _gpg(self, *words: str, input: bytes = b"") -> bytes:
        return _run("gpg", "--homedir", str(self._home), "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", *words, input=input)


def _signature(manifest: bytes, key: str, scratch: Path) -> bytes:
    """An SSH signature of the manifest (`ssh-keygen -Y sign`)."""
    path = scratch / bundlefile.MANIFEST
    path.write_bytes(manifest)
    _run("ssh-keygen", "-Y", "sign", "-f", key, "-n", bundlefile.NAMESPACE, str(path))
    return (scratch / bundlefile.SIGNATURE).read_bytes()


def _run(*command: str, input: bytes = b"") -> bytes:
    """A program's standard output. Raises Failed where it is missing or fails."""
    if shutil.which(command[0]) is None:
        raise Failed(f"Making a bundle needs the program {command[0]} on this machine.", f"Install it ({_PROGRAMS[command[0]]}).")
    done = subprocess.run(command, input=input, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}, timeout=TIMEOUT)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Failed(f"{command[0]} failed: {said[-1][:300] if said else f'exit code {done.returncode}'}.", "Put that right and make the bundle again.")
    return done.stdout


def _write(path: Path, content: bytes) -> Member:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Member(hashlib.sha256(content).hexdigest(), len(content))


def _hash(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for chunk in _chunks(file):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _chunks(file: io.BufferedReader) -> Iterator[bytes]:
    while True:
        chunk = file.read(1 << 20)
        if not chunk:
            return
        yield chunk


def _tar(out: str, texts: Mapping[str, bytes], folder: Path, members: Iterable[str]) -> str:
    """The whole bundle, there at once or not at all; its SHA-256. What is in it is compressed already, so it is not compressed again."""
    place, name = os.path.split(os.path.abspath(out))
    temporary = os.path.join(place, f".{name}.{os.getpid()}")
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for path, content in texts.items():
                archive.addfile(_entry(path, len(content)), io.BytesIO(content))
            for path in members:
                with open(folder / path, "rb") as file:
                    archive.addfile(_entry(path, os.fstat(file.fileno()).st_size), file)
        digest, _ = _hash(Path(temporary))
        os.replace(temporary, out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.", "Name another file with --out.") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return digest


def _entry(path: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, 0o644
    return entry
