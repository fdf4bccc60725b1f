"""The lab itself: what other tests stand on must hold."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.delay import DelayProxy
from tests.lab.mirror import Mirror, mirror_from
from tests.lab.need import LabUnavailable
from tests.lab.nshost import Network, NsHost
from tests.lab.proxy import CachingProxy
from tests.lab.registry import Registry
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors
from tests.lab.vm import VM


class AptRoot:
    """A scratch apt of its own: real apt-get, other folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/preferences.d"):
            (folder / name).mkdir(parents=True)
        for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "var/lib/dpkg").mkdir(parents=True)
        (folder / "var/lib/dpkg/status").touch()
        # Read before any other configuration, so that this machine's own apt settings stay out of it.
        (folder / "apt.conf").write_text(
            f'Dir "{folder}/";\nDir::State::status "{folder}/var/lib/dpkg/status";\n'
            'APT::Architecture "amd64";\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n'
        )

    def run(self, *words: str, tool: str = "apt-get") -> tuple[int, str]:
        env = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(self.folder / "apt.conf")}
        env.pop("http_proxy", None)
        done = subprocess.run([tool, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.returncode, done.stdout

    def sources(self, text: str) -> None:
        (self.folder / "etc/apt/sources.list.d/vendor.list").write_text(text)


@pytest.fixture
def apt(tmp_path: Path) -> AptRoot:
    return AptRoot(tmp_path)


def vendor_line(vendors: Vendors, server: FileServer, vendor: str, key: Path) -> str:
    places = {"docker": "linux/debian trixie stable", "toolkit": "stable/deb/amd64 /", "cuda": "debian13/x86_64 /"}
    return f"deb [signed-by={key}] {vendors.url(vendor, server.url)}/{places[vendor]}\n"


@pytest.mark.parametrize(
    ("vendor", "package"),
    [
        ("docker", "docker-ce=5:29.7.2-1~debian.13~trixie"),
        ("toolkit", "nvidia-container-toolkit=1.20.0-1"),
        ("cuda", "nvidia-driver-cuda=580.178.04-1"),
    ],
)
def test_real_apt_takes_a_vendor_repository_with_its_key(
    apt: AptRoot, vendors: Vendors, vendor_server: FileServer, vendor: str, package: str
) -> None:
    key = apt.folder / "key.asc"
    key.write_bytes(vendors.keys[vendor].public())
    apt.sources(vendor_line(vendors, vendor_server, vendor, key))
    code, said = apt.run("update")
    assert code == 0, said
    assert "W:" not in said
    name, version = package.split("=")
    _, versions = apt.run("madison", name, tool="apt-cache")
    assert version in versions
    code, said = apt.run("install", "--no-install-recommends", "-y", "--download-only", package)
    assert code == 0, said
    assert list((apt.folder / "var/cache/apt/archives").glob(f"{name}_*.deb"))


def test_real_apt_refuses_a_vendor_repository_with_another_vendors_key(
    apt: AptRoot, vendors: Vendors, vendor_server: FileServer, tmp_path: Path
) -> None:
    key = tmp_path / "key.asc"
    key.write_bytes(vendors.keys["cuda"].public())
    apt.sources(vendor_line(vendors, vendor_server, "docker", key))
    code, said = apt.run("update")
    assert code == 100
    assert "is not signed" in said


def test_the_published_key_is_the_one_with_the_named_fingerprint(
    vendors: Vendors, vendor_server: FileServer, tmp_path: Path
) -> None:
    key = tmp_path / "gpg"
    key.write_bytes((vendors.root / "download.docker.com/linux/debian/gpg").read_bytes())
    done = subprocess.run(
        ["gpg", "--homedir", str(tmp_path), "--with-colons", "--show-keys", str(key)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert f"fpr:::::::::{vendors.fingerprint('docker')}:" in done.stdout


def ask(conn: socket.socket, question: bytes) -> None:
    conn.sendall(question)
    conn.shutdown(socket.SHUT_WR)


def everything(conn: socket.socket) -> bytes:
    return b"".join(iter(lambda: conn.recv(65536), b""))


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that reads to the end of its input and only then answers with all of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                with conn:
                    conn.sendall(everything(conn))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_delay_proxy_keeps_the_answer_that_follows_the_end_of_the_question(echo_port: int) -> None:
    question = os.urandom(3_000_000)
    with DelayProxy(("127.0.0.1", echo_port), one_way=0.01) as line, socket.create_connection(("127.0.0.1", line.port)) as conn:
        sender = threading.Thread(target=ask, args=(conn, question))
        sender.start()
        answer = everything(conn)
        sender.join()
    assert answer == question


def test_the_delay_proxy_delays_by_a_round_trip_and_a_handshake(echo_port: int) -> None:
    with DelayProxy(("127.0.0.1", echo_port), one_way=0.05) as line:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", line.port)) as conn:
            ask(conn, b"x")
            assert everything(conn) == b"x"
        taken = time.monotonic() - start
    assert 0.2 <= taken < 0.4


def test_the_mirror_is_the_debian_archive_among_other_sources() -> None:
    listing = (
        "http://tools.invalid/apt/|nodistro|Somebody\n"
        "http://mirror.invalid/debian/|trixie|Debian\n"
        "http://mirror.invalid/debian/|trixie-updates|Debian\n"
        "http://mirror.invalid/debian-security/|trixie-security|Debian\n"
    )
    assert mirror_from(listing) == Mirror("http://mirror.invalid/debian", "http://mirror.invalid/debian-security")


def test_a_machine_without_a_debian_archive_is_told_what_to_set() -> None:
    with pytest.raises(LabUnavailable, match="MLHOST_LAB_MIRROR"):
        mirror_from("http://archive.invalid/ubuntu/|noble|Ubuntu\n")


def test_the_caching_proxy_fetches_a_pool_file_once_and_an_index_every_time(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "pool").mkdir(parents=True)
    (site / "pool/a.deb").write_bytes(b"package" * 1000)
    (site / "InRelease").write_text("index")
    with FileServer(site) as server, CachingProxy(tmp_path / "kept") as proxy:
        for path, body in (("pool/a.deb", b"package" * 1000), ("InRelease", b"index")) * 2:
            command = ["/usr/lib/apt/apt-helper", "-o", f"Acquire::http::Proxy={proxy.url}", "download-file"]
            target = tmp_path / "got"
            target.unlink(missing_ok=True)
            subprocess.run([*command, f"{server.url}/{path}", str(target)], check=True, stdout=subprocess.DEVNULL)
            assert target.read_bytes() == body
    assert server.requests.count("GET /pool/a.deb 200") == 1
    assert server.requests.count("GET /InRelease 200") == 2


def test_the_registry_speaks_the_registry_protocol(registry: Registry) -> None:
    with socket.create_connection(("127.0.0.1", registry.port)) as conn:
        conn.sendall(b"GET /v2/_catalog HTTP/1.0\r\n\r\n")
        answer = everything(conn)
    assert b'{"repositories":[' in answer, "what other tests have put there does not matter"


@pytest.mark.host
class TestNamespaceHost:
    def test_it_is_a_debian_of_its_own_with_the_labs_accounts(self, sshd_host: NsHost) -> None:
        assert "VERSION_CODENAME=trixie" in sshd_host.run("cat /etc/os-release").out
        assert sshd_host.run("sudo -n id -u").out == "0\n"
        assert sshd_host.run("sudo -n id -u", user="secure", check=False).code == 1
        assert sshd_host.run("sudo -S id -u", user="secure", stdin="correct horse\n").out == "0\n"

    def test_two_hosts_see_nothing_of_each_other(self, network: Network, sshd_host: NsHost) -> None:
        other = network.host()
        other.wait()
        other.run("touch /etc/only-here", user="root")
        assert sshd_host.run("test -e /etc/only-here", check=False).code == 1
        other.stop()

    def test_with_systemd_it_runs_services_and_reboots(self, systemd_host: NsHost) -> None:
        systemd_host.run("systemctl is-system-running --wait", timeout=60)
        systemd_host.run("echo kept > kept")
        before = systemd_host.boot_id()
        systemd_host.reboot()
        assert systemd_host.boot_id() != before
        assert systemd_host.run("cat kept").out == "kept\n"

    @pytest.mark.slow
    def test_a_container_sees_the_doubles_gpus_in_every_way_docker_has(
        self, systemd_host: NsHost, engine_vendors: Vendors, network_vendor_server: FileServer
    ) -> None:
        add_sources(systemd_host, engine_vendors, network_vendor_server.url)
        packages = "docker-ce nvidia-driver-cuda nvidia-container-toolkit"
        systemd_host.run(f"sudo apt-get update && sudo apt-get install -qy --no-install-recommends {packages}")
        systemd_host.run("sudo tee /etc/docker/daemon.json && sudo systemctl restart docker", stdin=DAEMON)
        systemd_host.run(SHELL_IMAGE)
        expected = systemd_host.run("nvidia-smi -L").out
        assert "UUID: GPU-" in expected
        for words in ("--gpus all", "--device nvidia.com/gpu=all", "--runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all"):
            assert systemd_host.run(f"sudo docker run --rm {words} lab-shell nvidia-smi -L").out == expected
        without = systemd_host.run("sudo docker run --rm lab-shell nvidia-smi -L", check=False)
        assert without.code == 127


DAEMON = '{"features": {"cdi": true}, "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}'
SHELL_IMAGE = (
    "mkdir -p image/bin image/usr/bin && cd image && cp /bin/sh bin/ && cp --parents $(ldd /bin/sh | grep -o '/[^ ]*') . "
    "&& tar -c . | sudo docker import -c 'ENV PATH=/usr/bin:/bin' - lab-shell"
)


def add_sources(host: NsHost, vendors: Vendors, base: str) -> None:
    places = {"docker": "linux/debian trixie stable", "toolkit": "stable/deb/amd64 /", "cuda": "debian13/x86_64 /"}
    for name, place in places.items():
        key = f"/etc/apt/keyrings/{name}.asc"
        host.run(f"mkdir -p /etc/apt/keyrings && cat > {key}", user="root", stdin=vendors.keys[name].public().decode())
        line = f"deb [signed-by={key}] {vendors.url(name, base)}/{place}\n"
        host.run(f"cat > /etc/apt/sources.list.d/{name}.list", user="root", stdin=line)


@pytest.mark.vm
@pytest.mark.slow
class TestVirtualMachine:
    def test_it_is_a_fresh_debian_with_systemd_and_without_pip(self, trixie: VM) -> None:
        said = trixie.run("cat /etc/os-release; ps -p 1 -o comm=; python3 -m pip --version; python3 -m venv /tmp/v", check=False)
        assert "VERSION_CODENAME=trixie" in said.out
        assert "systemd" in said.out
        assert "No module named pip" in said.err
        assert trixie.run("test -e /tmp/v/bin/pip", check=False).code == 1

    def test_admin_needs_no_password_for_sudo_and_secure_does(self, trixie: VM) -> None:
        assert trixie.run("sudo -n id -u").out == "0\n"
        assert trixie.run("sudo -n id -u", user="secure", check=False).code == 1
        assert trixie.run("sudo -S id -u", user="secure", stdin="correct horse\n").out == "0\n"

    def test_it_reboots_and_keeps_its_files(self, trixie: VM) -> None:
        trixie.run("echo kept > kept && sync")
        before = trixie.boot_id()
        trixie.reboot()
        assert trixie.boot_id() != before
        assert trixie.run("cat kept").out == "kept\n"

    def test_a_power_cut_is_a_new_boot_too(self, trixie: VM) -> None:
        before = trixie.boot_id()
        trixie.reset()
        assert trixie.boot_id() != before
