"""Bundles: made of small real packages, with real gpg, dpkg-deb and ssh-keygen; opened, spoilt and brought onto a folder of this machine."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from provision import bundlefile, upload
from provision.actions import BundleRepository
from provision.bundled import Bundle, open_bundle
from provision.bundling import make, saved_reference
from provision.errors import Failed, Refused, UsageError
from provision.lockfile import HostClass, Lock, LockedPackage
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.transport.collect import MAX_OUTPUT, RunResult
from provision.transport.errors import ConnectionLost
from provision.transport.local import LocalTransport
from tests.lab.debs import Deb, build_deb
from tests.lab.fixtures import available
from tests.lab.need import tool


class Unprivileged(LocalTransport):
    """This machine, never as root: what is tried here needs no rights."""

    def run(
        self, script: str, *args: str, sudo: bool = False, timeout: Optional[float] = None, on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = MAX_OUTPUT,
    ) -> RunResult:
        return super().run(script, *args, timeout=timeout, on_output=on_output, max_output=max_output)


class Breaking(Unprivileged):
    """A double of a connection that is lost after each of the first pieces has arrived."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.sent: list[str] = []

    def run(self, script: str, *args: str, **options: Any) -> RunResult:
        result = super().run(script, *args, **options)
        if "MLHOST_PIECE" not in script:
            return result
        self.sent.append(args[1])
        if self.times:
            self.times -= 1
            raise ConnectionLost("the connection broke", "Try again.")
        return result


def image_file(folder: Path) -> Path:
    """What `docker save lab/plain:1` would write, as far as its name is concerned: no engine is there to make a real one."""
    path = folder / "image.tar"
    with tarfile.open(path, "w") as archive:
        text = json.dumps([{"Config": "x.json", "RepoTags": ["lab/plain:1"], "Layers": []}]).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Lock]:
    """A signed bundle of two packages and an image, its hash, and its lock. The key is `maker`, beside it."""
    for name, package in (("gpg", "gnupg"), ("ssh-keygen", "openssh-client"), ("dpkg-deb", "dpkg")):
        available(lambda name=name, package=package: tool(name, package))
    folder = tmp_path_factory.mktemp("bundle")
    for name in ("maker", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    packages = {}
    for name, version in (("lab-engine", "5:1.0-1~lab"), ("lab-library", "2.0")):
        path = build_deb(Deb(name, version), folder)
        digest = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
        packages[name] = LockedPackage(version, "amd64", digest, path.stat().st_size, name == "lab-engine", f"file:{path}")
    lock = Lock({"debian-13-x86_64": HostClass("debian", "13", "x86_64", "d" * 64, packages=packages)})
    out = folder / "hosts.bundle"
    return out, make(lock, [str(image_file(folder))], str(out), sign=str(folder / "maker")), lock


def spoilt(made: tuple[Path, str, Lock], folder: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the bundle in which one file is another."""
    target = folder / "spoilt.bundle"
    with tarfile.open(made[0]) as source, tarfile.open(target, "w") as archive:
        for entry in source:
            file = source.extractfile(entry)
            content = file.read() if file else b""
            content = change(content) if entry.name.startswith(member) else content
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


def the_plan(bundle: Bundle) -> Plan:
    """A plan that installs from the bundle's repository, all of it."""
    bundled = (bundle.pinned("d" * 64).bundles or {})["debian-13-x86_64"]
    item = Item("bundle/repository", "bundle", "bundle-repository", CHANGE, "why", action=BundleRepository(bundled.folder, bundled.files))
    return Plan("host", PlatformRow("debian", "13", "trixie", "debian", "x86_64", None), (), {}, (item,))


def signed_by(made: tuple[Path, str, Lock], name: str) -> str:
    return str(made[0].parent / f"{name}.pub")


def test_a_bundle_holds_its_lock_and_says_what_every_file_is(made: tuple[Path, str, Lock]) -> None:
    bundle = open_bundle(str(made[0]), made[1])
    assert bundle.manifest.lock == made[2]
    with tarfile.open(made[0]) as archive:
        names = archive.getnames()
        assert names[:2] == ["manifest.json", "manifest.json.sig"]
        assert sorted(names[2:]) == sorted(bundle.manifest.members)
    (content,) = bundle.manifest.classes.values()
    assert content.images == (("images/1.tar", "lab/plain:1"),)
    assert sum(path.endswith(".deb") for path in content.files) == 2


def test_its_index_is_signed_by_the_key_that_the_manifest_names(made: tuple[Path, str, Lock], tmp_path: Path) -> None:
    """gpgv is what apt itself asks, or was for long."""
    if subprocess.run(["sh", "-c", "command -v gpgv"], check=False, capture_output=True).returncode:
        pytest.skip("the program gpgv is missing")
    with tarfile.open(made[0]) as archive:
        for member in ("key.asc", "classes/debian-13-x86_64/InRelease"):
            file = archive.extractfile(member)
            assert file is not None
            (tmp_path / member.rpartition("/")[2]).write_bytes(file.read())
    subprocess.run(["gpg", "--homedir", str(tmp_path), "--dearmor", "-o", str(tmp_path / "key.gpg"), str(tmp_path / "key.asc")], check=True, capture_output=True)
    command = ["gpgv", "--status-fd", "1", "--keyring", str(tmp_path / "key.gpg"), str(tmp_path / "InRelease")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"VALIDSIG {open_bundle(str(made[0]), made[1]).manifest.key}" in done.stdout


def test_nothing_proves_it_but_its_hash_or_its_makers_key(made: tuple[Path, str, Lock]) -> None:
    path = str(made[0])
    with pytest.raises(UsageError, match="nobody says"):
        open_bundle(path)
    with pytest.raises(Refused, match="is not the bundle you mean"):
        open_bundle(path, "0" * 64)
    with pytest.raises(UsageError, match="no SHA-256"):
        open_bundle(path, "sha256")
    assert open_bundle(path, None, signed_by(made, "maker")).manifest.lock == made[2]
    with pytest.raises(Refused, match="its signature is not one of"):
        open_bundle(path, None, signed_by(made, "stranger"))


def test_an_unsigned_bundle_is_not_taken_for_a_signed_one(made: tuple[Path, str, Lock], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not signed"):
        open_bundle(str(spoilt(made, tmp_path, "manifest.json.sig", lambda _: b"")), None, signed_by(made, "maker"))


def test_a_changed_manifest_has_no_signature_any_more(made: tuple[Path, str, Lock], tmp_path: Path) -> None:
    changed = spoilt(made, tmp_path, "manifest.json", lambda text: text.replace(b'"mlhost', b'"Mlhost', 1) if text.startswith(b"{") else text)
    with pytest.raises(Refused, match="its signature is not one of"):
        open_bundle(str(changed), None, signed_by(made, "maker"))


def test_what_the_plan_needs_is_laid_where_the_script_looks_for_it(made: tuple[Path, str, Lock], tmp_path: Path) -> None:
    bundle = open_bundle(str(made[0]), made[1])
    plan = the_plan(bundle)
    for host in ("one", "other"):
        replace(bundle, folder=str(tmp_path / host)).lay(Unprivileged(), plan)
        for path, sha256 in next(i.action.files for i in plan.items if isinstance(i.action, BundleRepository)):
            content = (tmp_path / host / "files" / path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256
    bundle.close()


@pytest.mark.parametrize("change", [lambda text: text[:-1] + b"x", lambda text: text + b"x"], ids=["other content", "longer"])
def test_a_changed_package_is_not_brought_to_a_host(made: tuple[Path, str, Lock], tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    bundle = open_bundle(str(spoilt(made, tmp_path, "pool/", change)), None, signed_by(made, "maker"))
    with pytest.raises(Failed, match="is not the file that its manifest names"):
        replace(bundle, folder=str(tmp_path / "host")).lay(Unprivileged(), the_plan(bundle))
    assert not (tmp_path / "host").exists()


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\0" * 10240], ids=["empty", "text", "empty archive"])
def test_what_is_no_bundle_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no bundle of mlhost"):
        open_bundle(str(path), None, str(path))


def test_a_locked_package_that_is_another_file_now_is_not_bundled(made: tuple[Path, str, Lock], tmp_path: Path) -> None:
    (kind,) = made[2].classes.values()
    wrong = {name: replace(package, sha256="0" * 64) for name, package in kind.packages.items()}
    with pytest.raises(Failed, match=r"cannot be fetched|is not the file that the lock names"):
        make(Lock({"it": replace(kind, packages=wrong)}), (), str(tmp_path / "x.bundle"))
    assert not (tmp_path / "x.bundle").exists()


def test_a_file_without_a_named_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="no image with a name"):
        saved_reference(tmp_path / "x.tar")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "-rf", "a b", ""])
def test_a_manifest_cannot_name_a_place_outside(path: str, made: tuple[Path, str, Lock]) -> None:
    manifest = open_bundle(str(made[0]), made[1]).manifest
    document = json.loads(bundlefile.dump(manifest))
    document["classes"]["debian-13-x86_64"]["files"][path] = "key.asc"
    with pytest.raises(UsageError, match="cannot be"):
        bundlefile.load(json.dumps(document).encode(), "x")


# ---------------------------------------------------------------- bringing it onto a host


def archive_of(size: int) -> io.BytesIO:
    """A tar archive with one file of so many bytes that repeat nothing."""
    content = b"".join(number.to_bytes(4, "big") for number in range(size // 4))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out


def test_files_arrive_in_pieces_and_are_not_sent_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PIECE", 100_000)
    heard: list[str] = []
    upload.send(Unprivileged(), archive_of(350_000), str(tmp_path / "place"), heard.append)
    assert (tmp_path / "place/files/file").read_bytes()[-4:] == (350_000 // 4 - 1).to_bytes(4, "big")
    assert len(heard) == 4
    assert not (tmp_path / "place/part").exists()
    upload.send(Unprivileged(), archive_of(350_000), str(tmp_path / "place"), heard.append)
    assert len(heard) == 4


def test_a_connection_that_breaks_costs_no_piece_that_has_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PIECE", 100_000)
    monkeypatch.setattr(upload.time, "sleep", lambda _seconds: None)
    wire = Breaking(2)
    upload.send(wire, archive_of(350_000), str(tmp_path / "place"))
    assert (tmp_path / "place/files/file").stat().st_size == 350_000
    assert wire.sent == ["0", "100000", "200000", "300000"], "each piece once"


def test_what_was_left_of_another_archive_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place/part").write_bytes(b"something else")
    (tmp_path / "place/part.sha256").write_text("0" * 64 + "\n")
    upload.send(Unprivileged(), archive_of(1000), str(tmp_path / "place"))
    assert (tmp_path / "place/files/file").stat().st_size == 1000


def test_only_a_bundles_folder_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine\n")
    upload.remove(Unprivileged(), str(tmp_path))
    assert (tmp_path / "mine").exists()
