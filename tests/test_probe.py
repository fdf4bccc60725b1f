"""The probe, run by real shells on trees that stand for machines, and on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from provision.capture import split
from provision.errors import ProbeFailed, UsageError
from provision.facts import parse
from provision.model import Facts, Section
from provision.probe import probe_args, probe_script
from tests.fakeroot import DEBIAN_12, SECURE_BOOT, UBUNTU_2404, fingerprint, gpu, tree, vgpu_config

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
MARK = "5eed"


@pytest.fixture(params=SHELLS)
def shell(request):
    command = SHELLS[request.param]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    return command


def ask(shell: list[str], *args: str, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        [*prefix, *shell, "-s", "--", *args], input=probe_script().encode(), capture_output=True, timeout=60, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return done.stdout


def read(shell: list[str], root: Path, **options: object) -> Facts:
    return parse(split(ask(shell, *probe_args(MARK, root=str(root), arch="x86_64", **options)), MARK))  # type: ignore[arg-type]


STATUS = """Package: docker-ce
Status: hold ok installed
Priority: optional
Architecture: amd64
Version: 5:28.5.1-1~debian.12~bookworm
Description: a long
 text with
 Status: lines in it

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2

Package: broken
Status: install ok half-configured
Architecture: all
Version: 1.0

Package: libnvidia-compute-580
Status: deinstall ok config-files
Architecture: amd64
Version: 580.1

Package: rsync
Status: install ok installed
Architecture: amd64
Version: 3.2.7-1

Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22
"""

KEY = bytes(range(256)) * 40

FULL = {
    "usr/lib/os-release": DEBIAN_12,
    "etc/os-release": "-> ../usr/lib/os-release",
    "etc/hostname": "gpu-box\n",
    "proc/sys/kernel/osrelease": "6.1.0-40-cloud-amd64\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (builder@host)\nGCC version: 12\n",
    "sys/module/nvidia/version": "580.95.05\n",
    "sys/class/dmi/id/sys_vendor": "Amazon EC2\n",
    "sys/class/dmi/id/product_name": "p5.48xlarge\n",
    SECURE_BOOT: b"\x06\0\0\0\x01",
    "var/lib/dpkg/status": STATUS,
    "var/lib/dpkg/updates/0001": "",
    "etc/docker/daemon.json": '{"log-driver": "local"}\n',
    "etc/apt/sources.list": "deb http://mirror.example/debian bookworm main\n",
    "etc/apt/sources.list.d/docker.sources": "Types: deb\nURIs: https://download.docker.com/linux/debian\nSuites: bookworm\nComponents: stable\n",
    "etc/apt/sources.list.d/ignored by apt.list": "deb http://nowhere.example x y\n",
    "etc/apt/keyrings/docker.gpg": KEY,
    "usr/share/keyrings/somebody-elses.gpg": b"not asked for",
    "etc/apt/apt.conf.d/95proxy": '// a comment\nAcquire::http::Proxy "http://proxy.example:3128/";\n',
    "etc/group": "root:x:0:\ndocker:x:999:ann,bob\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nmail:x:8:8::/var/mail:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    "etc/cdi/nvidia.yaml": "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n  - hostPath: /usr/lib/libcuda.so.580.95.05\n",
    "etc/nvidia-container-runtime/config.toml": "[nvidia-container-cli]\nno-cgroups = true\n",
    "usr/bin/dockerd": "#!/bin/sh\nexit 1\n",
    "var/lib/mlhost/proof": "image=embedded\ngpus=2\n",
    "var/lib/mlhost/runs/20261101T000000Z-aa/meta": "run=x\nowner=ann\ndigest=abc\n",
    "var/lib/mlhost/runs/20261101T000000Z-aa/result": "100\n",
    "var/lib/mlhost/runs/20261001T000000Z-bb/result": "0\n",
    **gpu("0000:17:00.0", driver="nvidia"),
    **gpu("0000:65:00.0", device="27b8", config=vgpu_config()),
    **gpu("0000:05:00.0", device="22a3", pci_class="068000"),
    "sys/bus/pci/devices/0000:00:1f.0/vendor": "0x8086\n",
}


def test_everything_in_a_tree_is_found_by_every_shell(shell, tmp_path):
    facts = read(shell, tree(tmp_path, FULL), paths=["/etc/hostname", "/etc/absent", "/usr"], packages=["rsync"])
    assert (facts.host, facts.os.id, facts.os.codename, facts.arch, facts.live) == ("gpu-box", "debian", "bookworm", "x86_64", False)
    assert facts.kernel == "6.1.0-40-cloud-amd64"
    assert facts.secure_boot is True
    assert facts.dmi == {"sys_vendor": "Amazon EC2", "product_name": "p5.48xlarge"}
    assert [(d.address, d.device, d.driver, d.vgpu) for d in facts.gpus] == [
        ("0000:17:00.0", "2330", "nvidia", False), ("0000:65:00.0", "27b8", "", True),
    ]
    assert [d.device for d in facts.nvidia_pci or () if d.is_bridge] == ["22a3"]
    assert facts.nvidia is not None
    assert (facts.nvidia.loaded, facts.nvidia.loaded_open) == ("580.95.05", True)
    assert facts.packages is not None
    assert sorted(facts.packages) == ["broken", "docker-ce", "dpkg", "libnvidia-compute-580", "rsync"]
    assert facts.packages["docker-ce"].held
    assert facts.packages["broken"].status == "half-configured"
    assert not facts.packages["libnvidia-compute-580"].installed
    assert facts.dpkg_interrupted
    assert facts.daemon_json == '{"log-driver": "local"}\n'
    assert facts.daemon_json_sha256 == hashlib.sha256(b'{"log-driver": "local"}\n').hexdigest()
    assert [s.path for s in facts.apt_sources] == ["/etc/apt/sources.list", "/etc/apt/sources.list.d/docker.sources"]
    assert facts.keyrings == {"/etc/apt/keyrings/docker.gpg": KEY}
    assert facts.apt_proxy == "http://proxy.example:3128/"
    assert facts.groups == {"docker": ("ann", "bob")}
    assert facts.users == ("root", "ann")
    assert facts.toolkit.cdi_specs == {"/etc/cdi/nvidia.yaml": "580.95.05"}
    assert facts.toolkit.no_cgroups
    assert facts.docker is not None
    assert (facts.docker.dockerd, facts.docker.supports_validate, facts.docker.server) == ("28.5.1", True, None)
    assert facts.proof == {"image": "embedded", "gpus": "2"}
    assert facts.last_run is not None
    assert (facts.last_run.id, facts.last_run.state, facts.last_run.rc, facts.last_run.owner) == ("20261101T000000Z-aa", "failed", 100, "ann")
    assert facts.run is None
    assert facts.paths["/etc/hostname"].sha256 == hashlib.sha256(b"gpu-box\n").hexdigest()
    assert [facts.paths[path].kind for path in ("/etc/hostname", "/etc/absent", "/usr")] == ["file", "absent", "dir"]


def test_all_shells_give_the_same_answer_and_give_it_again(tmp_path):
    root = tree(tmp_path, FULL)
    commands = [command for command in SHELLS.values() if shutil.which(command[0])]
    answers = {ask(command, *probe_args(MARK, root=str(root), arch="x86_64", paths=["/etc/hostname"])) for command in commands * 2}
    assert len(answers) == 1


def test_a_tree_is_left_as_it_was(shell, tmp_path):
    root = tree(tmp_path, FULL)
    before = fingerprint(root)
    read(shell, root, paths=["/etc/passwd"], deep=True)
    assert fingerprint(root) == before


def test_nothing_of_the_live_system_leaks_into_the_answer_about_an_empty_tree(shell, tmp_path):
    facts = read(shell, tree(tmp_path / "root", {"etc/os-release": DEBIAN_12}))
    expected = {
        "host": "localhost", "arch": "x86_64", "kernel": None, "uid": None, "boot_id": None, "host_time": None, "container": "", "systemd": None,
        "usr_writable": None, "secure_boot": None, "nvidia_pci": None, "packages": {}, "apt_sources": (), "keyrings": {}, "units": {}, "locks": (),
        "disks": {}, "block_devices": None, "groups": {}, "users": None, "daemon_json": "", "cloud_init": "", "dmi": {}, "run": None, "last_run": None,
    }
    assert {name: getattr(facts, name) for name in expected} == expected
    assert facts.docker is not None
    assert (facts.docker.cli, facts.docker.dockerd, facts.docker.server) == ("", "", "")


def test_no_program_of_the_live_system_is_asked_about_a_tree(shell, tmp_path):
    stubs = tmp_path / "bin"
    log = tmp_path / "asked"
    for name in ("docker", "systemctl", "nvidia-smi", "nvidia-ctk", "modinfo", "uname", "date", "id", "df", "blkid", "hostname", "rpm", "curl", "dmesg", "ldconfig"):
        stub = tree(stubs, {name: f"#!/bin/sh\necho {name} >>{log}\necho leaked\n"}) / name
        stub.chmod(0o755)
    env = {**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}"}
    answer = ask(shell, *probe_args(MARK, root=str(tree(tmp_path / "root", FULL)), arch="x86_64", deep=True), env=env)
    assert b"leaked" not in answer
    assert not log.exists()


def test_a_link_that_is_absolute_is_followed_inside_the_tree(shell, tmp_path):
    root = tree(tmp_path / "root", {
        "etc/os-release": "-> /usr/lib/os-release", "usr/lib/os-release": UBUNTU_2404, "etc/hostname": "-> ../../../../../../data/name", "data/name": "inside\n",
        "etc/docker": "-> /opt/docker", "opt/docker/daemon.json": "{}\n", "etc/apt/sources.list.d": "-> /opt/sources",
        "opt/sources/a.list": "-> /opt/real.list", "opt/real.list": "deb http://mirror.example/x noble main\n",
    })
    facts = read(shell, root)
    assert facts.os.codename == "noble"
    assert facts.host == "inside"
    assert facts.daemon_json == "{}\n"
    assert [s.uris for s in facts.apt_sources] == [("http://mirror.example/x",)]


def test_a_link_that_leads_out_of_the_tree_or_round_in_circles_shows_nothing_of_the_outside(shell, tmp_path):
    outside = tree(tmp_path / "outside", {"daemon.json": '{"secret": 1}', "name": "outside"})
    root = tree(tmp_path / "root", {
        "etc/os-release": DEBIAN_12, "etc/hostname": f"-> {outside}/name", "etc/docker": f"-> {outside}", "etc/group": "-> group",
        "etc/apt/keyrings": f"-> {outside}", "var/lib/dpkg": "-> ../../../../../../../../../../../../var/lib/dpkg",
    })
    answer = ask(shell, *probe_args(MARK, root=str(root), arch="x86_64"))
    assert b"secret" not in answer
    assert b"outside\n" not in answer
    facts = parse(split(answer, MARK))
    assert facts.packages is None
    assert {"packages", "group"} <= set(facts.unknown)


def test_the_architecture_of_a_tree_is_that_of_its_dpkg_where_nobody_states_it(shell, tmp_path):
    root = tree(tmp_path, {"etc/os-release": DEBIAN_12, "var/lib/dpkg/status": STATUS.replace("amd64", "arm64")})
    assert parse(split(ask(shell, *probe_args(MARK, root=str(root))), MARK)).arch == "aarch64"


def test_files_that_are_no_files_or_too_big_are_unknown_and_do_not_hang(shell, tmp_path):
    root = tree(tmp_path, {"etc/os-release": DEBIAN_12, "etc/apt/sources.list": "deb http://mirror.example/x y z\n" * 9000,
                           "etc/apt/keyrings/huge.gpg": b"x" * 70000, "etc/docker/keep": ""})
    os.mkfifo(root / "etc/docker/daemon.json")
    facts = read(shell, root)
    assert facts.daemon_json is None
    assert "/etc/apt/sources.list" in facts.unknown
    assert facts.apt_sources == ()
    assert facts.keyrings == {}


def test_a_key_of_exactly_the_greatest_size_is_read(shell, tmp_path):
    root = tree(tmp_path, {"etc/os-release": DEBIAN_12, "etc/apt/keyrings/docker.gpg": b"k" * 65536})
    assert read(shell, root).keyrings["/etc/apt/keyrings/docker.gpg"] == b"k" * 65536


def test_a_root_that_does_not_exist_is_an_error_with_a_remedy(shell, tmp_path):
    with pytest.raises(ProbeFailed, match="--root"):
        read(shell, tmp_path / "nowhere")


def test_odd_names_of_roots_and_paths_are_taken_literally(shell, tmp_path):
    root = tree(tmp_path / "a root; $(touch pwned) *", {"etc/os-release": DEBIAN_12, "srv/a b*c": "x", "srv/a bxc": "y", "srv/it's": "z"})
    facts = read(shell, root, paths=["/srv/a b*c", "/srv/it's", "/srv/$(id)"])
    assert facts.os.id == "debian"
    assert facts.paths["/srv/a b*c"].sha256 == hashlib.sha256(b"x").hexdigest()
    assert facts.paths["/srv/it's"].kind == "file"
    assert facts.paths["/srv/$(id)"].kind == "absent"


def test_this_machine_is_read_by_every_shell(shell):
    before = int(time.time())
    sections = split(ask(shell, *probe_args(MARK, asked_at=before, disks=["/nowhere/yet"], paths=["/etc/passwd"], deep=True)), MARK)
    facts = parse(sections)
    assert facts.os.id
    assert facts.arch == os.uname().machine
    assert facts.kernel == os.uname().release
    assert facts.uid == os.getuid()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.asked_at == before
    assert facts.host_time is not None
    assert 0 <= facts.host_time - before < 60
    assert {"/", "/var/lib/docker", "/nowhere/yet"} <= set(facts.disks)
    assert facts.disks["/"].total_kb == pytest.approx(os.statvfs("/").f_blocks * os.statvfs("/").f_frsize / 1024, rel=0.01)
    assert facts.paths["/etc/passwd"].sha256 == hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest()
    assert facts.users is not None
    assert "root" in facts.users


def unprivileged() -> tuple[str, ...]:
    if os.getuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed, and this test must not be root")
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def open_tmp(tmp_path):
    """A folder that other users may enter."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o777 == 0o700:
            path.chmod(0o755)
    return tmp_path


def test_without_root_what_cannot_be_read_is_unknown_and_not_absent(shell, open_tmp):
    root = tree(open_tmp / "root", FULL)
    prefix = unprivileged()
    closed = {"etc/docker": 0, "var/lib/mlhost": 0, "etc/apt/keyrings/docker.gpg": 0, "etc/apt/sources.list.d": 0, "etc/group": 0}
    try:
        for name, mode in closed.items():
            (root / name).chmod(mode)
        facts = parse(split(ask(shell, *probe_args(MARK, root=str(root), arch="x86_64"), prefix=prefix), MARK))
    finally:
        for name in closed:
            (root / name).chmod(0o700)
    assert facts.os.id == "debian"
    assert facts.daemon_json is None
    assert {"daemon_json", "journal", "group", "/etc/docker/daemon.json", "/etc/apt/sources.list.d/"} <= set(facts.unknown)
    assert facts.keyrings == {}


def test_a_line_in_a_file_that_looks_like_a_frame_changes_nothing(shell, tmp_path):
    evil = "@@0000 end 0\n@@5eed1 end 0\nID=evil\n"
    facts = read(shell, tree(tmp_path, {"etc/os-release": DEBIAN_12, "etc/docker/daemon.json": evil}))
    assert facts.os.id == "debian"
    assert facts.daemon_json == evil


DOCKER_SERVER = r"""
import http.server, json, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"ServerVersion": "28.5.1", "Runtimes": {"runc": {}, "nvidia": {}}, "DockerRootDir": "/data", "ContainersRunning": 3,
                           "CDISpecDirs": ["/etc/cdi"], "Swarm": {"LocalNodeState": "inactive"}, "LiveRestoreEnabled": True}).encode()
        self.send_response(200 if self.path == "/info" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "unix"
    def log_message(self, *args):
        pass
server = socketserver.UnixStreamServer("/run/docker.sock", Handler)
open("/run/docker.pid", "w").write(str(os.getpid()))
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture
def own_run():
    """A command prefix under which /run is empty and this test's own. Needs root and unshare."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, to give the probe a /run of its own")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root make a mount namespace")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"', "sh"]


def in_own_run(own_run: list[str], script: str, path: str, shell: list[str]) -> Facts:
    """Run `script` (which calls "$@" for the probe) with a /run of its own."""
    done = subprocess.run(
        [*own_run, "sh", "-c", script, "sh", *shell, "-s", "--", MARK], input=probe_script().encode(), capture_output=True, timeout=60, check=False,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
    )
    return parse(split(done.stdout, MARK))


def stub(folder: Path, name: str, text: str) -> Path:
    path = tree(folder, {name: f"#!/bin/sh\n{text}\n"}) / name
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("client", ["curl", "perl"])
def test_a_running_daemon_is_asked_once_over_its_socket(shell, own_run, tmp_path, client):
    """The daemon is a test double that answers /info."""
    server = tree(tmp_path, {"server.py": DOCKER_SERVER}) / "server.py"
    stub(tmp_path / "bin", "docker", "exit 9")
    stub(tmp_path / "bin", "systemctl", 'printf "Id=docker.service\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n"')
    if not shutil.which(client):
        pytest.skip(f"{client} is not installed")
    hide = "for p in curl wget; do p=$(command -v $p) && mount --bind /dev/null $p; done; " if client == "perl" else ""
    script = (
        f"{hide}"
        f"exec 3<&0; touch /run/systemd/system/docker.service; python3 {server} </dev/null >/run/ready & "
        'while ! grep -q ready /run/ready; do sleep 0.05; done; "$@" <&3; kill $!'
    )
    facts = in_own_run(own_run, script, str(tmp_path / "bin"), shell)
    docker = facts.docker
    assert docker is not None
    assert (docker.server, docker.root_dir, docker.running_containers, docker.live_restore) == ("28.5.1", "/data", 3, True)
    assert docker.runtimes == ("runc", "nvidia")
    assert facts.units["docker.service"].active == "active"


def test_systemd_is_asked_only_for_units_that_have_a_file(shell, own_run, tmp_path):
    stub(tmp_path / "bin", "systemctl", f'echo "$@" >>{tmp_path}/asked; printf "Id=docker.service\\nLoadState=masked\\nActiveState=inactive\\nSubState=dead\\nUnitFileState=masked\\n"')
    none = 'for d in /etc/systemd /usr/lib/systemd /sys/fs/cgroup; do [ ! -d $d ] || mount -t tmpfs tmpfs $d; done; '
    without = in_own_run(own_run, none + '"$@"', str(tmp_path / "bin"), shell)
    assert not (tmp_path / "asked").exists()
    assert {unit.load for unit in without.units.values()} == {"not-found"}
    masked = in_own_run(own_run, none + 'mkdir /etc/systemd/system; ln -s /dev/null /etc/systemd/system/docker.service; "$@"', str(tmp_path / "bin"), shell)
    assert [word for word in (tmp_path / "asked").read_text().split() if word.endswith((".service", ".socket", ".path"))] == ["docker.service"]
    assert (masked.units["docker.service"].load, masked.units["containerd.service"].load) == ("masked", "not-found")
    assert set(masked.units) == set(without.units)


def test_a_daemon_that_does_not_run_is_not_woken_through_its_socket(shell, own_run, tmp_path):
    stub(tmp_path / "bin", "docker", "touch /run/woken")
    stub(tmp_path / "bin", "curl", "touch /run/woken")
    stub(tmp_path / "bin", "systemctl", "exit 1")
    script = (
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")' </dev/null; "
        f'"$@"; [ ! -e /run/woken ] || touch {tmp_path}/woken'
    )
    facts = in_own_run(own_run, script, str(tmp_path / "bin"), shell)
    assert facts.docker is not None
    assert facts.docker.server == ""
    assert facts.docker.cli
    assert not (tmp_path / "woken").exists()


def test_what_docker_says_when_it_refuses_is_kept(shell, own_run, tmp_path):
    """The client is a test double that prints a captured refusal."""
    stub(tmp_path / "bin", "docker", "echo '{\"ServerVersion\":\"\",\"ServerErrors\":[\"Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\"]}'; exit 1")
    stub(tmp_path / "bin", "curl", "exit 7")
    stub(tmp_path / "bin", "systemctl", "exit 1")
    script = (
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")' </dev/null; echo $$ >/run/docker.pid; "
        '"$@"'
    )
    docker = in_own_run(own_run, script, str(tmp_path / "bin"), shell).docker
    assert docker is not None
    assert (docker.server, docker.error) == ("", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")


def test_a_program_installed_after_docker_started_counts_though_its_file_is_older(shell, own_run, tmp_path):
    """A package's files keep the time they were built at; only the change time tells when they came."""
    stub(tmp_path / "bin", "systemctl", "exit 1")
    if "-cnewer" not in subprocess.run(["find", "--help"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("this machine's find knows no -cnewer")
    folder = "/etc/systemd/system/docker.service.d"
    script = (
        f"mount -t tmpfs tmpfs /etc/systemd && mkdir -p {folder} && touch {folder}/x.conf; "
        "sleep 0.05; echo 1 >/run/docker.pid; sleep 0.05; "
        'mkdir -p /run/mlhost; "$@"'
    )
    before = in_own_run(own_run, script, str(tmp_path / "bin"), shell).docker
    late = script.replace("mkdir -p /run/mlhost;", f"touch {folder}/x.conf; touch -d 2001-01-01 {folder}/x.conf;")
    after = in_own_run(own_run, late, str(tmp_path / "bin"), shell).docker
    reloaded = late.replace('"$@"', 'sleep 0.05; mkdir -p /run/mlhost; touch /run/mlhost/docker.loaded; "$@"')
    reread = in_own_run(own_run, reloaded, str(tmp_path / "bin"), shell).docker
    assert before is not None
    assert after is not None
    assert reread is not None
    assert (before.started_before, after.started_before, reread.started_before) == ((), (f"{folder}/x.conf",), ())


def test_who_holds_dpkgs_lock_is_named(shell):
    lock = Path("/var/lib/dpkg/lock-frontend")
    if os.getuid() != 0 or not lock.exists():
        pytest.skip("needs root and dpkg's lock file")
    holder = subprocess.Popen(
        ["python3", "-c", f"import fcntl, sys\nf = open('{lock}', 'r+')\nfcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\nprint('held', flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"held\n":
            pytest.skip("somebody else holds dpkg's lock just now")
        facts = parse(split(ask(shell, MARK), MARK))
    finally:
        holder.communicate()
    assert [(held.path, held.pid, held.command) for held in facts.locks] == [(str(lock), holder.pid, "python3")]


def test_an_unknown_argument_is_refused_by_the_script(shell):
    done = subprocess.run([*shell, "-s", "--", MARK, "--frobnicate"], input=probe_script().encode(), capture_output=True, check=False, timeout=30)
    assert done.returncode == 2


@pytest.mark.parametrize("path", ["relative", "/new\nline", "/nul\0"])
def test_paths_that_no_probe_could_ask_about_are_refused(path):
    with pytest.raises(UsageError, match="not an absolute path"):
        probe_args(MARK, paths=[path])


@pytest.mark.parametrize("mark", ["", "a b", "$(id)", "x" * 65, "ä"])
def test_a_mark_is_one_plain_word(mark):
    with pytest.raises(ValueError, match="mark"):
        probe_args(mark)


def test_the_script_is_clean_shell():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=probe_script(), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_script_is_one_function_called_on_the_last_line():
    lines = probe_script().rstrip().splitlines()
    assert lines[-1] == 'main "$@" </dev/null 2>/dev/null'


@pytest.mark.parametrize("awk", ["mawk", "gawk", "original-awk", "busybox"])
def test_every_awk_gives_the_same_answer(awk, tmp_path):
    real, usual = shutil.which(awk), shutil.which("awk")
    if not real or not usual:
        pytest.skip(f"{awk} is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "awk").symlink_to(real)
    args = probe_args(MARK, root=str(tree(tmp_path / "root", FULL)), arch="x86_64")
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    assert ask(["sh"], *args, env=env) == ask(["sh"], *args)


def test_a_host_that_has_only_busybox_is_read(tmp_path):
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (programs / name).symlink_to(busybox)
    folders = "in ${PATH:-/usr/bin:/bin} /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /snap/bin"
    assert folders in probe_script()
    script = probe_script().replace(folders, "in $PATH")
    for root in (["--root", str(tree(tmp_path / "root", FULL))], []):
        done = subprocess.run([busybox, "sh", "-s", "--", MARK, *root], input=script.encode(), capture_output=True, check=False, timeout=30, env={"PATH": str(programs)})
        facts = parse(split(done.stdout, MARK))
        assert facts.os.id
        if root:
            assert facts.daemon_json_sha256
            assert sorted(facts.packages or {}) == ["broken", "docker-ce", "dpkg", "libnvidia-compute-580"]
            if (programs / "base64").exists():
                assert facts.keyrings == {"/etc/apt/keyrings/docker.gpg": KEY}
        else:
            assert facts.kernel == os.uname().release
            assert facts.disks["/"].total_kb > 0


def test_without_base64_keys_come_as_hex(tmp_path):
    """The PATH holds links to the real programs, all but base64."""
    dash = shutil.which("dash")
    if not dash:
        pytest.skip("dash is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("awk", "sed", "od", "dd", "head", "stat", "readlink", "sha256sum", "tr", "cat", "printf"):
        real = shutil.which(name)
        assert real, name
        (programs / name).symlink_to(real)
    root = tree(tmp_path / "root", {"etc/os-release": DEBIAN_12, "etc/apt/keyrings/docker.gpg": KEY})
    folders = "in ${PATH:-/usr/bin:/bin} /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /snap/bin"
    assert folders in probe_script()
    script = probe_script().replace(folders, "in $PATH")
    done = subprocess.run(
        [dash, "-s", "--", MARK, "--root", str(root)], input=script.encode(), capture_output=True, check=False, timeout=30, env={"PATH": str(programs)}
    )
    sections = split(done.stdout, MARK)
    assert "keyhex:/etc/apt/keyrings/docker.gpg" in sections
    assert parse(sections).keyrings == {"/etc/apt/keyrings/docker.gpg": KEY}


def test_armoured_keys_come_as_they_are_and_others_as_base64(shell, tmp_path):
    armoured = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nbm90IGEga2V5\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    keys = {"etc/apt/keyrings/docker.asc": armoured, "etc/apt/keyrings/docker.gpg": KEY, "etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia": armoured[:-1]}
    root = tree(tmp_path / "root", {"etc/os-release": DEBIAN_12, **keys, "etc/apt/keyrings/much.asc": b"x" * 70_000})
    sections = split(ask(shell, *probe_args(MARK, root=str(root), arch="x86_64")), MARK)
    assert {name for name in sections if name.startswith("key")} == {
        "keytext:/etc/apt/keyrings/docker.asc", "keytext:/etc/apt/keyrings/much.asc", "keytext:/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia", "key64:/etc/apt/keyrings/docker.gpg"}
    assert sections["keytext:/etc/apt/keyrings/much.asc"] == Section(27, "")
    assert parse(sections).keyrings == {
        "/etc/apt/keyrings/docker.asc": armoured, "/etc/apt/keyrings/docker.gpg": KEY, "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia": armoured}


def test_without_awk_the_answer_says_so(tmp_path):
    dash = shutil.which("dash")
    if not dash:
        pytest.skip("dash is not installed")
    root = tree(tmp_path / "root", {"etc/os-release": DEBIAN_12})
    folders = "in ${PATH:-/usr/bin:/bin} /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /snap/bin"
    assert folders in probe_script()
    script = probe_script().replace(folders, "in $PATH")
    done = subprocess.run([dash, "-s", "--", MARK, "--root", str(root)], input=script.encode(), capture_output=True, check=False, env={"PATH": str(tmp_path)})
    with pytest.raises(ProbeFailed, match="there is no awk"):
        parse(split(done.stdout, MARK))


