"""Locks and bundles on hosts made of namespaces: real sshd, apt, dpkg, systemd and Docker Engine; the vendors' packages are doubles.

Docker's doubles hold the distribution's real engine. The hosts of the bundle know no way to any package source.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.fresh import Fresh
from tests.lab.gpus import TWO_A10G, show_on_pci
from tests.lab.nshost import NsHost
from tests.program import CHECKOUT, Ran, environment, mlhost
from tests.test_setup_host import install_driver_by_hand

pytestmark = pytest.mark.host


def here(*words: str) -> Ran:
    """mlhost without a host: what works from captures and locks."""
    command = [sys.executable, "-m", "provision", *words]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def sets(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def settings(fresh: Fresh) -> list[str]:
    return fresh.settings()


@pytest.fixture(scope="module")
def connected(fresh: Fresh) -> NsHost:
    return fresh.host()


@pytest.fixture(scope="module")
def lock(connected: NsHost, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lock that the connected host's own apt has answered for."""
    path = tmp_path_factory.mktemp("lock") / "fleet.lock"
    before = connected.run("find /etc /usr /var/lib/dpkg /var/lib/apt /var/lib/mlhost /tmp -newer /proc/1 -type f 2>/dev/null | sort", user="root").out
    ran = mlhost("lock", connected, "-o", str(path), settings=settings)
    assert ran.code == 0, str(ran)
    after = connected.run("find /etc /usr /var/lib/dpkg /var/lib/apt /var/lib/mlhost /tmp -newer /proc/1 -type f 2>/dev/null | sort", user="root").out
    assert after == before, "locking changes nothing on the host"
    return path


class TestALockedHost:
    """One host through its life, in order."""

    def test_the_lock_holds_versions_hashes_and_the_pinned_key(self, lock: Path, fresh: Fresh) -> None:
        (kind,) = yaml.safe_load(lock.read_text())["classes"].values()
        engine = kind["packages"]["docker-ce"]
        assert engine["asked"] is True
        assert len(engine["sha256"]) == 64
        assert kind["repositories"]["docker"]["keys"] == [fresh.vendors.fingerprint("docker")]
        assert len(kind["packages"]) > len([p for p in kind["packages"].values() if p.get("asked")]), "what they depend on is there too"

    def test_a_lock_of_a_version_that_is_gone_is_refused_before_anything_changes(
        self, connected: NsHost, lock: Path, settings: list[str], tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone.lock"
        version = next(iter(yaml.safe_load(lock.read_text())["classes"].values()))["packages"]["docker-ce"]["version"]
        gone.write_text(lock.read_text().replace(f"version: {version}\n", f"version: {version}.gone\n"))
        ran = mlhost("setup", connected, "--locked", str(gone), settings=settings)
        assert ran.code == 1, str(ran)
        assert "docker-ce" in ran.out + ran.err
        assert "is in none of this host's package sources any more" in " ".join((ran.out + ran.err).split())
        assert connected.run("dpkg-query -W docker-ce; ls /etc/apt/sources.list.d /var/lib/mlhost", check=False).out.count("docker") == 0

    def test_a_lock_of_another_file_under_the_same_version_is_refused(
        self, connected: NsHost, lock: Path, settings: list[str], tmp_path: Path
    ) -> None:
        document = yaml.safe_load(lock.read_text())
        (kind,) = document["classes"].values()
        kind["packages"]["containerd.io"]["sha256"] = "0" * 64
        other = tmp_path / "other.lock"
        other.write_text(yaml.safe_dump(document))
        ran = mlhost("setup", connected, "--locked", str(other), settings=settings)
        assert ran.code == 1, str(ran)
        assert "is another file here" in " ".join((ran.out + ran.err).split())

    def test_it_gets_exactly_what_is_locked(self, connected: NsHost, lock: Path, settings: list[str]) -> None:
        ran = mlhost("setup", connected, "--locked", str(lock), settings=settings)
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        (kind,) = yaml.safe_load(lock.read_text())["classes"].values()
        for name, package in kind["packages"].items():
            assert connected.run(f"dpkg-query -W -f '${{Version}}' {name}").out == package["version"]

    def test_a_second_run_changes_nothing_and_verify_agrees(self, connected: NsHost, lock: Path, settings: list[str]) -> None:
        ran = mlhost("setup", connected, "--locked", str(lock), settings=settings)
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        verified = mlhost("verify", connected, "--locked", str(lock), "-v", settings=settings)
        assert verified.code == 0, str(verified)
        assert "exactly the locked versions" in " ".join(verified.out.split())

    def test_a_lock_of_it_as_it_is_now_names_the_same_versions(
        self, connected: NsHost, lock: Path, settings: list[str], tmp_path: Path
    ) -> None:
        again = tmp_path / "again.lock"
        ran = mlhost("lock", connected, "-o", str(again), settings=settings)
        assert ran.code == 0, str(ran)
        (before,), (after,) = (yaml.safe_load(path.read_text())["classes"].values() for path in (lock, again))
        for name, package in after["packages"].items():
            assert package["version"] == before["packages"][name]["version"]
            assert package["sha256"] == before["packages"][name]["sha256"]


def saved_image(path: Path) -> Path:
    """An image with one file in it, in the form in which `docker save` writes them."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["lab/plain:1"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in (("config.json", config), ("layer.tar", layer.getvalue()), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def lonely(fresh: Fresh) -> NsHost:
    """A host with GPUs and a driver (doubles), which knows no way to any package source."""
    host = fresh.host(apt=False)
    host.run("sh -s", user="root", stdin=show_on_pci(TWO_A10G))
    install_driver_by_hand(host, fresh)
    return host


@pytest.fixture(scope="module")
def bundle(lonely: NsHost, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle made from the host's capture alone, with its hash."""
    folder = tmp_path_factory.mktemp("bundle")
    capture = mlhost("facts", lonely, "--format", "raw", "--packages", "--out", str(folder / "capture"))
    assert capture.code == 0, str(capture)
    image = saved_image(folder / "plain.tar")
    ran = here("bundle", *sets(settings), "--capture", str(folder / "capture"), "--image", str(image), "-o", str(folder / "hosts.bundle"))
    assert ran.code == 0, str(ran)
    return folder / "hosts.bundle", ran.out.split("sha256: ")[1].strip()


class TestAHostWithoutAnyPackageSource:
    """One host that nothing but ssh reaches, in order."""

    def test_a_bundle_that_is_not_the_one_meant_is_refused(self, lonely: NsHost, bundle: tuple[Path, str], settings: list[str]) -> None:
        ran = mlhost("setup", lonely, "--bundle", str(bundle[0]), "--bundle-sha256", "0" * 64, settings=settings)
        assert ran.code == 1, str(ran)
        assert "is not the bundle you mean" in ran.err

    def test_it_is_set_up_and_proved_from_the_bundle(self, lonely: NsHost, bundle: tuple[Path, str], settings: list[str], fresh: Fresh) -> None:
        asked = len(fresh.server.requests)
        sources = lonely.run("cat /etc/apt/sources.list.d/*", user="root").out
        ran = mlhost("setup", lonely, "--bundle", str(bundle[0]), "--bundle-sha256", bundle[1], settings=settings)
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        assert lonely.run("dpkg-query -W -f '${db:Status-Status} ' docker-ce nvidia-container-toolkit").out == "installed installed "
        assert lonely.run("docker image inspect -f '{{.Os}}' lab/plain:1", user="root").out == "linux\n"
        assert fresh.server.requests[asked:] == [], "the vendors were asked nothing"
        assert lonely.run("cat /etc/apt/sources.list.d/*", user="root").out == sources
        assert lonely.run("ls /var/lib/mlhost/bundle", user="root", check=False).code != 0, "its files are gone again"

    def test_a_second_run_changes_nothing(self, lonely: NsHost, bundle: tuple[Path, str], settings: list[str]) -> None:
        ran = mlhost("setup", lonely, "--bundle", str(bundle[0]), "--bundle-sha256", bundle[1], settings=settings)
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
