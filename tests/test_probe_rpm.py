"""The probe where packages are rpms, with the real dnf and rpm of Debian's packages in a tree; and what a cloud's metadata service tells it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.capture import split
from provision.facts import parse
from provision.facts.rpm import repo_file
from provision.model import Facts, Section
from provision.probe import probe_args, probe_script
from tests.lab.aptrepo import SigningKey
from tests.lab.fixtures import skipping
from tests.lab.need import tool
from tests.lab.rpmtree import RpmHost, rpm_tree

MARK = "5eed"
SHELLS = {"dash": ("sh",), "bash": ("bash",), "busybox": ("busybox", "sh")}
REPO = """# a comment
[docker-ce-stable]
name=Docker CE Stable - $basearch
baseurl=https://download.docker.com/linux/rhel/9/$basearch/stable
enabled=1
gpgcheck=1
gpgkey=https://download.docker.com/linux/rhel/gpg
   file:///etc/pki/rpm-gpg/docker

[docker-ce-test]
name = Test
mirrorlist = https://mirror.invalid/list
enabled = 0
repo_gpgcheck=yes
excludepkgs=runc, containerd
module_hotfixes=1
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RpmHost]:
    with skipping():
        made = RpmHost(rpm_tree("dnf4"), tmp_path)
    with made:
        yield made


def ask(host: RpmHost, *more: str, shell: str = "dash") -> bytes:
    host.path("/probe").write_text(probe_script())
    done = host.run(*SHELLS[shell], "/probe", *probe_args(MARK), *more)
    assert done.returncode == 0, done.stdout
    return done.stdout.encode()


def read(host: RpmHost, shell: str = "dash") -> Facts:
    return parse(split(ask(host, shell=shell), MARK))


def write(host: RpmHost, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = host.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("shell", SHELLS)
def test_with_only_rpm_real_its_packages_locks_keys_and_repositories_are_read(host: RpmHost, shell: str) -> None:
    spec = "Name: {}\nVersion: 5.14\nRelease: 1.el9\nEpoch: 3\nSummary: x\nLicense: x\nAutoReqProv: no\n%description\nx\n%files\n"
    for name in ("docker-ce", "kernel-devel", "unrelated"):
        write(host, {f"/build/{name}.spec": spec.format(name)})
        host.must("rpmbuild", "--quiet", "-bb", "--target", "x86_64", "--define", "_topdir /build", f"/build/{name}.spec")
        host.must("rpm", "--install", "--nosignature", f"/build/RPMS/x86_64/{name}-5.14-1.el9.x86_64.rpm")
    write(host, {
        "/etc/dnf/plugins/versionlock.list": "# Added lock\ndocker-ce-3:5.14-1.el9.*\n!excluded-0:1-1.*\n",
        "/etc/dnf/modules.d/nvidia-driver.module": "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n",
        "/etc/dnf/modules.d/perl.module": "[perl]\nname=perl\nstream=5.32\nprofiles=\nstate=\n",
        "/etc/yum.repos.d/docker-ce.repo": REPO,
        "/etc/dnf/vars/releasever": "9.4\n",
        "/etc/ufw/ufw.conf": "ENABLED=yes\n",
        "/etc/pki/rpm-gpg/RPM-GPG-KEY-Docker": "not a key, but a text\n",
        "/sys/fs/selinux/enforce": "1",
        "/etc/selinux/config": "SELINUX=permissive\n",
    })
    with skipping():
        key = SigningKey("vendor test double <v@invalid>")
    with key:
        write(host, {"/vendor.asc": key.public().decode()})
    host.must("rpm", "--import", "/vendor.asc")
    facts = read(host, shell)
    assert facts.installed("docker-ce") == "3:5.14-1.el9"
    assert facts.packages is not None
    assert facts.packages["docker-ce"].held
    assert not facts.packages["kernel-devel"].held
    assert facts.installed("kernel-devel-5.14-1.el9.x86_64") == "3:5.14-1.el9"
    assert "unrelated" not in facts.packages
    assert facts.modules == {"nvidia-driver": "580-open"}
    assert [source.id for source in facts.rpm_sources] == ["docker-ce-stable", "docker-ce-test"]
    assert facts.rpm_source_texts["/etc/yum.repos.d/docker-ce.repo"].rstrip() == REPO.rstrip()
    assert not any(path.endswith(".repo") for path in facts.apt_source_texts)
    assert [key.fingerprint.lower().endswith(known) for known in facts.rpm_keys] == [True]
    assert facts.keyrings["/etc/pki/rpm-gpg/RPM-GPG-KEY-Docker"] == b"not a key, but a text\n"
    assert (facts.releasever, facts.selinux, facts.firewalls) == ("9.4", "enforcing", ("ufw",))
    assert {"dnf", "zypper"} <= set(facts.managers)


def test_with_only_rpm_real_a_package_that_was_named_is_told_too(host: RpmHost) -> None:
    assert read(host).packages == {}
    sections = split(ask(host, "--package", "tmux"), MARK)
    assert sections["rpm"].rc == 0


def test_a_trees_rpm_database_is_unknown_and_a_folder_without_one_holds_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text('ID="rocky"\nVERSION_ID="9.6"\n')
    (root / "var/lib/rpm").mkdir(parents=True)
    (root / "etc/selinux").mkdir()
    (root / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=targeted\n")

    def look() -> Facts:
        done = subprocess.run(
            ["sh", "-s", "--", *probe_args(MARK, root=str(root))], input=probe_script().encode(), capture_output=True, check=True, timeout=30
        )
        return parse(split(done.stdout, MARK))

    assert look().packages == {}
    assert look().selinux == "enforcing"
    (root / "var/lib/rpm/rpmdb.sqlite").write_bytes(b"SQLite format 3\0")
    assert look().packages is None


def test_a_holder_that_wrote_its_pid_is_told(host: RpmHost) -> None:
    keeper = host.popen(["sleep", "60"])
    try:
        write(host, {"/run/zypp.pid": f"{keeper.pid}\n", "/var/lib/dnf/rpmdb_lock.pid": "999999999"})
        locks = read(host).locks
    finally:
        keeper.kill()
        keeper.wait()
        if keeper.stdout is not None:
            keeper.stdout.close()
    assert [(lock.path, lock.pid, lock.command) for lock in locks] == [("/run/zypp.pid", keeper.pid, "sleep")]


def test_a_repository_file_is_read_as_dnf_reads_it() -> None:
    stable, test = repo_file("/etc/yum.repos.d/docker-ce.repo", REPO)
    assert (stable.enabled, stable.gpgcheck, stable.repo_gpgcheck) == (True, True, None)
    assert stable.baseurl == ("https://download.docker.com/linux/rhel/9/$basearch/stable",)
    assert stable.gpgkey == ("https://download.docker.com/linux/rhel/gpg", "file:///etc/pki/rpm-gpg/docker")
    assert (test.enabled, test.gpgcheck, test.repo_gpgcheck, test.module_hotfixes) == (False, None, True, True)
    assert test.mirrorlist == "https://mirror.invalid/list"
    assert test.exclude == ("runc", "containerd")


@pytest.mark.parametrize("text", ["", "no section\n", "[open\nx=1", "[a]\n[a]\nenabled=0", "\0\0", "[a]\n  = \n%(x)s=%(y)s"])
def test_no_repository_file_makes_the_reader_stumble(text: str) -> None:
    assert all(source.path == "/x.repo" for source in repo_file("/x.repo", text))


@pytest.mark.parametrize(
    ("path", "text", "held"),
    [
        ("/etc/dnf/versionlock.toml", 'version = "1.0"\n\n[[packages]]\nname = "docker-ce"\n[[packages.conditions]]\nkey = "evr"\n', {"docker-ce"}),
        ("/etc/zypp/locks", "\ntype: package\nmatch_type: glob\ncase_sensitive: on\nsolvable_name: docker-ce\n", {"docker-ce"}),
        ("/etc/yum/pluginconf.d/versionlock.list", "3:docker-ce-29.7.1-1.el7.*\n", {"docker-ce"}),
        ("/etc/tdnf/locks.d/mlhost.conf", "# ours\ndocker-ce\n", {"docker-ce"}),
        ("/etc/dnf/plugins/versionlock.list", "*nvidia*580*\n", {"*nvidia*580*"}),
    ],
)
def test_every_managers_locks_are_read(path: str, text: str, held: set[str]) -> None:
    from provision.facts.rpm import holds

    assert holds({f"lock:{path}": Section(0, text)}) == held


# ---- the metadata service: a double on the real address, in a network of its own, asked by the real curl

SERVICE = """import http.server, sys
sys.stdout = open(sys.argv[1], "w", buffering=1)
CLOUD = sys.argv[2]
H = "HTTP/1.0"
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, text):
        self.send_response(code); self.end_headers(); self.wfile.write(text.encode())
    def do_PUT(self):
        print("PUT", self.path)
        if CLOUD == "aws" and self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            self.answer(200, "SECRETTOKEN==")
        else:
            self.answer(404, "no")
    def do_GET(self):
        print("GET", self.path)
        need = {"aws": ("X-aws-ec2-metadata-token", "SECRETTOKEN=="), "azure": ("Metadata", "true"), "gcp": ("Metadata-Flavor", "Google"),
                "oci": ("Authorization", "Bearer Oracle")}[CLOUD]
        if self.headers.get(need[0]) != need[1]:
            return self.answer(401, "no")
        answers = {
            "/latest/meta-data/instance-type": "g5.xlarge", "/latest/meta-data/placement/region": "eu-west-1",
            "/latest/meta-data/placement/availability-zone": "eu-west-1b",
            "/metadata/instance/compute/vmSize": "Standard_NC24ads_A100_v4", "/metadata/instance/compute/location": "westeurope",
            "/metadata/instance/compute/zone": "",
            "/computeMetadata/v1/instance/machine-type": "projects/123456/machineTypes/a2-highgpu-1g",
            "/computeMetadata/v1/instance/zone": "projects/123456/zones/europe-west4-a",
            "/opc/v2/instance/shape": "VM.GPU.A10.1", "/opc/v2/instance/region": "eu-frankfurt-1",
            "/opc/v2/instance/availabilityDomain": "Uocm:EU-FRANKFURT-1-AD-1"}
        text = answers.get(self.path.partition("?")[0])
        self.answer(404, "no") if text is None else self.answer(200, text)
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("169.254.169.254", 80), Handler)
print("up")
server.serve_forever()
"""
DMI = {
    "aws": {"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge"},
    "azure": {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
    "gcp": {"product_name": "Google Compute Engine"},
    "oci": {"chassis_asset_tag": "OracleCloud.com"},
}


def in_a_cloud(host: RpmHost, cloud: str, tmp_path: Path, *more: str, answers: bool = True) -> tuple[Facts, bytes, list[str], float]:
    """The facts, the capture, what the service was asked, and the seconds it took. Without `answers` nobody is at the address."""
    write(host, {f"/sys/class/dmi/id/{name}": f"{text}\n" for name, text in DMI.get(cloud, {"sys_vendor": "QEMU"}).items()})
    host.path("/probe").write_text(probe_script())
    (tmp_path / "service.py").write_text(SERVICE)
    log = tmp_path / "asked"
    start = f"{sys.executable} {tmp_path}/service.py {log} {cloud or 'aws'} </dev/null >/dev/null 2>&1 & service=$!; until [ -s {log} ]; do sleep 0.05; done"
    # a route to nowhere: packets to the address vanish
    nobody = "ip link add d0 type dummy && ip link set d0 up && ip addr add 10.9.9.1/24 dev d0 && ip route add default via 10.9.9.2"
    address = "ip addr add 169.254.169.254/32 dev lo"
    script = f"ip link set lo up; {address + '; ' + start if answers else nobody}; {{ {host.command('sh', '/probe', *probe_args(MARK), *more)}; }}; kill ${{service:-}} 2>/dev/null; true"
    with skipping():
        unshare = tool("unshare", "util-linux")
        tool("ip", "iproute2")
    began = time.monotonic()
    done = subprocess.run([unshare, "--net", "sh", "-c", script], capture_output=True, timeout=60, check=True)
    took = time.monotonic() - began
    asked = log.read_text().splitlines()[1:] if log.exists() else []
    return parse(split(done.stdout, MARK)), done.stdout, asked, took


@pytest.mark.parametrize(
    ("cloud", "instance"),
    [
        ("aws", {"type": "g5.xlarge", "region": "eu-west-1", "zone": "eu-west-1b"}),
        ("azure", {"type": "Standard_NC24ads_A100_v4", "region": "westeurope"}),
        ("gcp", {"type": "a2-highgpu-1g", "region": "europe-west4", "zone": "europe-west4-a"}),
        ("oci", {"type": "VM.GPU.A10.1", "region": "eu-frankfurt-1", "zone": "Uocm:EU-FRANKFURT-1-AD-1"}),
    ],
)
def test_a_clouds_metadata_service_is_asked_for_three_words_and_no_secret_is_kept(
    host: RpmHost, tmp_path: Path, cloud: str, instance: dict[str, str]
) -> None:
    facts, capture, asked, _ = in_a_cloud(host, cloud, tmp_path)
    assert facts.instance == instance
    assert asked
    assert b"SECRETTOKEN" not in capture
    assert b"123456" not in capture


def test_where_the_firmware_is_silent_nobody_is_asked(host: RpmHost, tmp_path: Path) -> None:
    facts, capture, asked, _ = in_a_cloud(host, "", tmp_path)
    assert (facts.instance, asked) == ({}, [])
    assert b" metadata " not in capture


def test_who_wants_no_question_gets_none(host: RpmHost, tmp_path: Path) -> None:
    facts, _, asked, _ = in_a_cloud(host, "aws", tmp_path, "--no-metadata")
    assert (facts.instance, asked) == ({}, [])
    assert probe_args(MARK, metadata=False)[-1] == "--no-metadata"


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_service_that_does_not_answer_costs_a_second(host: RpmHost, tmp_path: Path, cloud: str) -> None:
    facts, _, _, took = in_a_cloud(host, cloud, tmp_path, answers=False)
    assert facts.instance == {}
    # and what the probe takes itself, on a machine that may be busy
    assert took < 5
