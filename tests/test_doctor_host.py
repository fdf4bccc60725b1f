"""Real faults on a real host (of namespaces, with real systemd, apt and Docker; driver and toolkit are doubles): planted, diagnosed, taken away.

One warm host serves all. Each fault is a pair of shell texts; `mlhost doctor` runs as a user does, over SSH, and must name the fault first.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from provision.cli import main
from tests.fresh import Fresh
from tests.lab.gpus import TWO_A10G, show_on_pci
from tests.lab.need import tool
from tests.lab.nshost import NsHost
from tests.program import Ran, mlhost, words
from tests.test_setup_host import install_driver_by_hand

pytestmark = pytest.mark.host

SCHEMA = json.loads((Path(__file__).parent.parent / "provision/data/schema/doctor.json").read_text())
SPEC = "/var/run/cdi/nvidia.yaml"
JSON = "/etc/docker/daemon.json"
START = "systemctl reset-failed docker containerd 2>/dev/null; systemctl start docker"
RESTART = "systemctl reset-failed docker containerd 2>/dev/null; systemctl restart docker"  # systemd counts starts, and these are many
RESTORE = f"cp /root/daemon.json {JSON}; {RESTART}"


@dataclass(frozen=True)
class Fault:
    """What to do, what the doctor must then name first, how to undo it, and an error text that a user would have."""

    expected: str
    plant: str
    undo: str
    error: str = ""


def smi(text: str, code: int) -> str:
    return f"cp /usr/bin/nvidia-smi /root/nvidia-smi; printf '#!/bin/sh\\necho \"{text}\"\\nexit {code}\\n' > /usr/bin/nvidia-smi"


def status(package: str, state: str) -> str:
    return f"cp /var/lib/dpkg/status /root/status; awk -v p={package} '$1 == \"Package:\" {{ on = $2 == p }} on && $1 == \"Status:\" {{ $4 = \"{state}\" }} {{ print }}' /root/status > /var/lib/dpkg/status"


SMI_BACK = "cp /root/nvidia-smi /usr/bin/nvidia-smi"
STATUS_BACK = "cp /root/status /var/lib/dpkg/status"
HOLD = "import fcntl,time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(900)"
NO_KEY = "deb [signed-by=/etc/apt/keyrings/gone.gpg] https://download.docker.com/linux/debian trixie stable"
TWICE = "deb [signed-by=/etc/apt/keyrings/{0}.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /"
LIST = "/etc/apt/sources.list.d/planted"

FAULTS = {
    # Packages and their sources.
    "a lock held": Fault("lock-held", f"setsid python3 -c \"{HOLD}\" </dev/null >/dev/null 2>&1 & echo $! > /root/holder; sleep 0.5", "kill $(cat /root/holder)"),
    "dpkg cut off": Fault("dpkg-interrupted", "touch /var/lib/dpkg/updates/0001", "rm /var/lib/dpkg/updates/0001"),
    "a package half configured": Fault("package-half-installed", status("nvidia-persistenced", "half-configured"), STATUS_BACK),
    "a source without its key": Fault("signing-key-missing", f"echo '{NO_KEY}' > {LIST}.list", f"rm {LIST}.list"),
    "one repository, two keys": Fault("conflicting-signed-by",
        f"for k in one two; do cp /usr/share/keyrings/debian-archive-keyring.* /etc/apt/keyrings/$k.gpg 2>/dev/null || cp /etc/apt/keyrings/docker* /etc/apt/keyrings/$k.gpg; done; "
        f"echo '{TWICE.format('one')}' > {LIST}-1.list; echo '{TWICE.format('two')}' > {LIST}-2.list", f"rm {LIST}-1.list {LIST}-2.list /etc/apt/keyrings/one.gpg /etc/apt/keyrings/two.gpg"),
    "a key that only root reads": Fault("signing-key-unreadable", "chmod 600 /etc/apt/keyrings/*docker*", "chmod 644 /etc/apt/keyrings/*docker*"),
    "an empty key": Fault("signing-key-empty", f": > /etc/apt/keyrings/gone.gpg; echo '{NO_KEY}' > {LIST}.list", f"rm {LIST}.list /etc/apt/keyrings/gone.gpg"),
    "a source that is an error page": Fault("source-is-an-error-page", f"echo '# Unsupported distribution!' > {LIST}.list", f"rm {LIST}.list"),
    # Disk and network.
    "Docker's disk full": Fault("docker-disk-full", "mount -t tmpfs -o size=8m tmpfs /var/lib/docker", "umount /var/lib/docker"),
    "no inodes left": Fault("inodes-used-up", "mount -t tmpfs -o size=1g,nr_inodes=5 tmpfs /var/lib/docker", "umount /var/lib/docker"),
    "no DNS": Fault("dns-broken", "cp /etc/resolv.conf /root/; echo 'nameserver 127.0.0.1' > /etc/resolv.conf; mv /etc/apt/apt.conf.d/00lab-proxy /root/",
        "mv /root/00lab-proxy /etc/apt/apt.conf.d/; cp /root/resolv.conf /etc/resolv.conf"),
    "a proxy without a name": Fault("proxy-name-lost", "cp /etc/resolv.conf /root/; echo 'nameserver 127.0.0.1' > /etc/resolv.conf; "
        "echo 'Acquire::https::Proxy \"http://proxy.invalid:3128\";' > /etc/apt/apt.conf.d/01planted", "rm /etc/apt/apt.conf.d/01planted; cp /root/resolv.conf /etc/resolv.conf"),
    # The GPU and its driver.
    "module and userspace differ": Fault("version-mismatch", "cp /srv/driver/nvidia/version /root/; sed -i s/580.178.04/550.54.14/ /srv/driver/nvidia/version", "cp /root/version /srv/driver/nvidia/version",
        "Failed to initialize NVML: Driver/library version mismatch"),
    "no headers for this kernel": Fault("module-missing-headers", "umount /proc/driver; mkdir -p /lib/modules/$(uname -r); touch /lib/modules/$(uname -r)/modules.dep",
        "rm /lib/modules/$(uname -r)/modules.dep; rmdir /lib/modules/$(uname -r); mount --bind /srv/driver /proc/driver"),
    "nouveau has the GPU": Fault("gpu-held-by-nouveau", "umount /proc/driver; mkdir -p /srv/drivers/nouveau; for d in 65 66; do ln -s /srv/drivers/nouveau /usr/local/lib/lab-pci/0000:$d:00.0/driver; done",
        "rm /usr/local/lib/lab-pci/0000:6?:00.0/driver; mount --bind /srv/driver /proc/driver"),
    "nvidia-smi finds nothing": Fault("no-devices-found", smi("No devices were found", 6), SMI_BACK),
    "a GPU is lost": Fault("gpu-fell-off-the-bus", smi("Unable to determine the device handle for GPU 0000:65:00.0: GPU is lost.  Reboot the system to recover this GPU", 15), SMI_BACK),
    "one GPU of two": Fault("gpu-missing-from-smi", smi("0, GPU-7e57d0b1-0000-4000-8000-000000000000, NVIDIA A10G, 00000000:65:00.0, 580.178.04", 0), SMI_BACK),
    "the persistence daemon fails": Fault("persistenced-failed",
        "mkdir -p /run/systemd/system/nvidia-persistenced.service.d; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > /run/systemd/system/nvidia-persistenced.service.d/planted.conf; "
        "systemctl daemon-reload; systemctl restart nvidia-persistenced || :",
        "rm -r /run/systemd/system/nvidia-persistenced.service.d; systemctl daemon-reload; systemctl reset-failed nvidia-persistenced; systemctl start nvidia-persistenced"),
    # CDI and the toolkit.
    "a stale CDI specification": Fault("cdi-stale", f"cp {SPEC} /root/spec; echo '# libcuda.so.550.54.14' >> {SPEC}", f"cp /root/spec {SPEC}"),
    "no CDI specification": Fault("cdi-missing", f"mv {SPEC} /root/spec", f"mv /root/spec {SPEC}", "unresolvable CDI devices nvidia.com/gpu=all"),
    "the hook gone": Fault("gpus-hook-missing", "mv /usr/bin/nvidia-container-runtime-hook /root/", "cp -p /root/nvidia-container-runtime-hook /usr/bin/; " + RESTART,
        'could not select device driver "" with capabilities: [[gpu]]'),
    "the runtime's program gone": Fault("runtime-program-missing", "mv /usr/bin/nvidia-container-runtime /root/", "cp -p /root/nvidia-container-runtime /usr/bin/; " + RESTART),
    "no-cgroups for root": Fault("no-cgroups-on-rootful", "sed -i 's/^#no-cgroups = false/no-cgroups = true/' /etc/nvidia-container-runtime/config.toml",
        "sed -i 's/^no-cgroups = true/#no-cgroups = false/' /etc/nvidia-container-runtime/config.toml", "Failed to initialize NVML: Unknown Error"),
    "the runtime not registered": Fault("runtime-not-registered", f"echo '{{}}' > {JSON}; {RESTART}", "true", "unknown or invalid runtime name: nvidia"),
    "Docker not restarted since": Fault("runtime-not-loaded", f"sleep 1; cp /root/daemon.json {JSON}", RESTORE),
    # Docker.
    "forwarding off": Fault("forwarding-off", "echo 0 > /proc/sys/net/ipv4/ip_forward", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
    "not in the group": Fault("docker-group-missing", "true", "true", "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock"),
    "a key that Docker does not know": Fault("daemon-json-unknown-key", f"echo '{{\"no-such-key\": 1}}' > {JSON}", f"cp /root/daemon.json {JSON}"),
    "Docker disabled": Fault("docker-not-at-boot", "systemctl disable docker.service docker.socket", "systemctl enable docker.service docker.socket"),
    "Docker stopped": Fault("docker-stopped", "systemctl stop docker.socket docker", "true", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"),
    "containerd stopped too": Fault("containerd-down", "systemctl stop containerd", "systemctl start containerd"),
    "Docker masked": Fault("docker-masked", "systemctl mask --runtime docker.service", "systemctl unmask --runtime docker.service"),
    "daemon.json broken": Fault("daemon-json-malformed", f"printf '{{ // mine\\n}}' > {JSON}; systemctl start docker || :", "true"),
    "daemon.json says where to listen": Fault("daemon-json-hosts-twice", f"echo '{{\"hosts\": [\"tcp://127.0.0.1:2375\"]}}' > {JSON}; systemctl reset-failed docker; systemctl start docker || :", RESTORE),
}


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    host = fresh.host()
    host.run("sh -s", user="root", stdin=show_on_pci(TWO_A10G))
    install_driver_by_hand(host, fresh)
    ran = mlhost("setup", host, settings=fresh.settings())
    assert ran.code == 0, str(ran)
    host.run(f"cp {JSON} /root/daemon.json", user="root")
    return host


def doctor(host: NsHost, *arguments: str) -> tuple[Ran, dict[str, object]]:
    """The command itself, in this process: a new one for each fault would only start Python anew."""
    with tempfile.NamedTemporaryFile() as out:
        code = main([*words("doctor", host)[3:], *arguments, "--format", "json", "--out", out.name])
        ran = Ran(code, out.read().decode(), "")
    assert ran.code in (0, 1, 7), str(ran)
    document = json.loads(ran.out)
    jsonschema.validate(document, SCHEMA)
    return ran, document


def names(document: dict[str, object]) -> list[str]:
    findings = document["findings"]
    assert isinstance(findings, list)
    return [finding["id"] for finding in findings if finding["certainty"] == "confirmed"]


@pytest.fixture
def planted(host: NsHost, request: pytest.FixtureRequest) -> Iterator[Fault]:
    fault = FAULTS[request.param]
    host.run(fault.plant, user="root")
    yield fault
    host.run(fault.undo, user="root")


def test_a_host_just_set_up_has_no_finding(host: NsHost) -> None:
    assert doctor(host)[1]["findings"] == []


@pytest.mark.parametrize("planted", FAULTS, ids=lambda name: str(name).replace(" ", "-"), indirect=True)
def test_a_planted_fault_is_named_first(planted: Fault, host: NsHost) -> None:
    ran, document = doctor(host, *(("--error", planted.error) if planted.error else ()))
    assert names(document)[:1] == [planted.expected], document["findings"]
    assert ran.code == 7, str(ran)


def test_an_expired_key_is_named(host: NsHost, tmp_path: Path) -> None:
    gpg = [tool("gpg", "gnupg"), "--homedir", str(tmp_path), "--batch", "--quiet", "--no-tty"]
    subprocess.run([*gpg, "--faked-system-time", "20200101T000000", "--passphrase", "", "--quick-generate-key", "lab <lab@invalid>", "rsa2048", "sign", "30d"],
                   check=True, capture_output=True)
    key = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
    subprocess.run([tool("gpgconf", "gnupg"), "--homedir", str(tmp_path), "--kill", "all"], check=False, capture_output=True)
    host.run(f"base64 -d > /etc/apt/keyrings/gone.gpg; echo '{NO_KEY}' > {LIST}.list", user="root", stdin=base64.b64encode(key).decode())
    _, document = doctor(host)
    host.run(f"rm {LIST}.list /etc/apt/keyrings/gone.gpg", user="root")
    assert names(document) == ["signing-key-expired"]


def test_when_all_is_taken_away_again_the_host_has_no_finding(host: NsHost) -> None:
    assert doctor(host)[1]["findings"] == []


def test_a_bundle_from_the_host_tells_elsewhere_what_the_host_shows(host: NsHost, tmp_path: Path) -> None:
    host.run("systemctl stop docker.socket docker", user="root")
    bundle = tmp_path / "bundle.tar.gz"
    made = mlhost("support-bundle", host, "--out", str(bundle))
    assert made.code == 0, str(made)
    here = doctor(host)[1]
    there = json.loads(subprocess.run(
        [sys.executable, "-m", "provision", "doctor", "--capture", str(bundle), "--format", "json"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=Path(__file__).parent.parent,
    ).stdout)
    assert names(there) == names(here) == ["docker-stopped"]


def test_fix_does_what_is_safe_and_looks_again(host: NsHost, fresh: Fresh) -> None:
    host.run(f"systemctl stop docker.socket docker; mv {SPEC} /root/spec", user="root")
    ran = mlhost("doctor", host, "--fix", "--format", "json", settings=fresh.settings())
    document = json.loads(ran.out)
    assert ran.code == 0, str(ran)
    assert set(document["fixed"]["before"]) == {"docker-stopped", "cdi-missing"} or document["fixed"]["before"][0] == "docker-stopped"
    assert document["findings"] == []
    assert host.run("systemctl is-active docker").out.strip() == "active"
