"""The layers of a host, each judged by itself, and what monitors are told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from provision import facts as facts_package
from provision.capture import split
from provision.layers import keeping, layers
from provision.model import Check, Disk, Facts, HostReport
from provision.plan import plan
from provision.report import monitoring
from provision.spec import DockerSpec, Log, Spec
from provision.steps import Context
from tests.machines import CATALOG, gpu, machine, unit, with_daemon_json, with_docker, with_gpus, with_toolkit, working

VERSION = "580.126.20"
NODES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm")
RUNTIME = '{"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}, "log-opts": {"max-size": "50m"}}'


def healthy() -> Facts:
    """A GPU host on which every layer is right."""
    facts = with_toolkit(with_docker(working(with_gpus(machine("debian 13"), "2330"), VERSION)), spec=VERSION)
    facts = with_daemon_json(facts, RUNTIME)
    assert facts.nvidia is not None
    assert facts.docker is not None
    return replace(
        facts,
        nvidia=replace(facts.nvidia, device_nodes=NODES, on_disk=VERSION, driver_version=VERSION),
        docker=replace(facts.docker, runtimes=("runc", "nvidia"), cdi_spec_dirs=("/etc/cdi", "/var/run/cdi")),
        disks={"/": Disk("/", "/", 40_000_000, 100_000_000, 1_000_000)},
        units={**facts.units, **unit("nvidia-persistenced.service")},
        kernels={"6.12.48+deb13-cloud-amd64": True, "6.9.7-amd64": False},
    )


def judged(facts: Facts, spec: Spec | None = None) -> dict[str, Check]:
    spec = spec or Spec()
    decided = plan(facts, spec, CATALOG)
    ctx = Context(facts, spec, CATALOG.platform(facts.os, facts.arch), CATALOG)
    return {check.id: check for check in (*layers(ctx, decided), *keeping(ctx, decided))}


def first_broken(facts: Facts, spec: Spec | None = None) -> Check:
    return next(check for check in judged(facts, spec).values() if check.state == "failed")


def nvidia(**changes: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, nvidia=replace(facts.nvidia, **changes))  # type: ignore[type-var, arg-type]


def docker(**changes: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, docker=replace(facts.docker, **changes))  # type: ignore[type-var, arg-type]


def toolkit(**changes: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, toolkit=replace(facts.toolkit, **changes))  # type: ignore[arg-type]


def units(name: str, **changes: str) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, units={**facts.units, **unit(name, **changes)})


def switched(facts: Facts) -> Facts:
    """The same host with an NVSwitch on its bus."""
    return replace(facts, nvidia_pci=(*(facts.nvidia_pci or ()), gpu("22a3", "0000:05:00.0", pci_class="068000")))


def test_on_a_healthy_host_no_layer_is_broken() -> None:
    checks = judged(healthy())
    assert [c for c in checks.values() if c.state == "failed" and c.id != "plan"] == []
    assert list(checks)[:11] == [
        "system", "disk", "pci", "kernel-module", "device-nodes", "nvidia-smi", "persistenced", "fabric", "docker", "runtime", "cdi"
    ]  # fmt: skip
    assert checks["kernel-module"].evidence == f"driver {VERSION} (open) is loaded; module, disk and libraries agree"
    assert checks["next-kernel"].evidence.startswith("the newest kernel, 6.12.48+deb13-cloud-amd64, has an nvidia module")


BROKEN: dict[str, tuple[Callable[[Facts], Facts], str, str]] = {
    "a full disk": (lambda f: replace(f, disks={"/": Disk("/", "/", 900_000, 100_000_000)}), "disk", "0.9 GB free"),
    "no inodes": (lambda f: replace(f, disks={"/": Disk("/", "/", 40_000_000, 100_000_000, 12)}), "disk", "12 inodes"),
    "nouveau in the way": (nvidia(loaded="", loaded_open=None, nouveau_loaded=True, smi_rc=9), "kernel-module", "nouveau"),
    "a module that is not loaded": (nvidia(loaded="", loaded_open=None, smi_rc=9), "kernel-module", f"{VERSION} is on disk and not loaded"),
    "no module at all": (nvidia(loaded="", loaded_open=None, on_disk="", smi_rc=9), "kernel-module", "no nvidia module for the running kernel"),
    "an update under the running module": (nvidia(on_disk="580.130.01"), "kernel-module", f"{VERSION} is loaded, 580.130.01 is on disk"),
    "libraries of another version": (nvidia(driver_version="580.130.01"), "kernel-module", "libraries are of 580.130.01"),
    "no node for unified memory": (nvidia(device_nodes=NODES[:2]), "device-nodes", "/dev/nvidia-uvm"),
    "no node of the GPU": (nvidia(device_nodes=NODES[1:]), "device-nodes", "1 node of 1 GPU"),
    "nvidia-smi that fails": (nvidia(smi_rc=255, smi_text="Unable to determine the device handle"), "nvidia-smi", "ends with 255: Unable"),
    "a GPU that the driver does not see": (nvidia(gpus=()), "nvidia-smi", "1 GPU on the PCI bus, and the driver sees 0"),
    "a dead persistence daemon": (units("nvidia-persistenced.service", active="failed"), "persistenced", "failed"),
    "an NVSwitch without fabric manager": (switched, "fabric", "error 802"),
    "a stopped engine": (docker(server="", error="Cannot connect to the Docker daemon"), "docker", "Cannot connect"),
    "no toolkit": (toolkit(version="", runtime=""), "runtime", "not installed"),
    "a runtime that is not registered": (lambda f: with_daemon_json(docker(runtimes=("runc",))(f), "{}"), "runtime", "is not registered"),
    "a runtime Docker has not read of": (docker(runtimes=("runc",)), "runtime", "Docker has not read it"),
    "no CDI spec": (toolkit(cdi_specs={}), "cdi", "no CDI spec"),
    "a CDI spec of an older driver": (toolkit(cdi_specs={"/var/run/cdi/nvidia.yaml": "570.1"}), "cdi", "of driver 570.1"),
    "two CDI specs": (toolkit(cdi_specs={"/etc/cdi/nvidia.yaml": VERSION, "/var/run/cdi/nvidia.yaml": VERSION}), "cdi", "both"),
    "a new kernel without a module": (
        lambda f: replace(f, kernels={**(f.kernels or {}), "6.12.101+deb13-cloud-amd64": False}), "next-kernel", "6.12.101",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_broken_layer_is_the_one_that_was_broken(name: str) -> None:
    breaks, layer, words = BROKEN[name]
    check = first_broken(breaks(healthy()))
    assert (check.id, words in check.evidence, bool(check.fix)) == (layer, True, True), check


def test_the_proprietary_module_under_a_gpu_that_needs_the_open_one_is_named() -> None:
    facts = replace(healthy(), nvidia_pci=(gpu("2901"),))
    check = first_broken(nvidia(loaded_open=False)(facts))
    assert check.id == "kernel-module"
    assert "open" in check.evidence


def test_without_a_gpu_its_layers_are_skipped_and_say_so() -> None:
    facts = replace(healthy(), nvidia_pci=())
    checks = judged(facts)
    assert {checks[name].state for name in ("pci", "kernel-module", "device-nodes", "nvidia-smi", "runtime", "cdi")} == {"skipped"}
    assert "no NVIDIA GPU" in checks["kernel-module"].evidence
    assert first_broken(facts, Spec(gpu="required")).id == "pci"


def test_logs_and_shm_are_judged_by_what_the_playbook_asks_for() -> None:
    plain = with_daemon_json(healthy(), '{"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}')
    assert (judged(plain)["logs"].state, judged(plain)["shm"].state) == ("skipped", "skipped")
    asked = judged(plain, Spec(docker=DockerSpec(log=Log("50m"), shm_size="8g")))
    assert (asked["logs"].state, asked["shm"].state) == ("failed", "failed")


@pytest.mark.parametrize("newer", ["6.12.100+deb13-amd64", "6.13.0-1-amd64", "7.0.0-14-generic"])
def test_kernels_are_compared_by_their_numbers(newer: str) -> None:
    facts = replace(healthy(), kernels={"6.12.9+deb13-amd64": True, newer: False})
    assert first_broken(facts).id == "next-kernel"


def test_every_captured_host_can_be_judged() -> None:
    for folder in sorted((Path(__file__).parent / "hosts").iterdir()):
        facts = facts_package.parse(split((folder / "probe.txt").read_bytes()))
        decided = plan(facts, Spec(), CATALOG)
        if any(problem.unsupported for problem in decided.problems):
            continue
        assert all(check.evidence for check in judged(facts).values()), folder.name


# ---------------------------------------------------------------- monitors

FINE = HostReport("gpu-1", "verified", 0, checks=(Check("docker", "ok", "answers"), Check("fabric", "skipped", "none")))
BAD = HostReport("gpu-2", "unverified", 7, checks=(Check("cdi", "failed", "no | spec"),), message="cdi: no | spec")
AWAY = HostReport("gpu-3", "unreachable", 4, message="refused")


def test_nagios_gets_one_line_with_its_own_exit_code() -> None:
    assert monitoring.nagios([FINE]) == "MLHOST OK - 1 host proved | broken=0;;0 hosts=1"
    assert monitoring.nagios([FINE, BAD]) == "MLHOST CRITICAL - gpu-2: cdi: no / spec | broken=1;;0 hosts=2"
    assert monitoring.nagios([AWAY]).startswith("MLHOST UNKNOWN - gpu-3: refused")
    assert [monitoring.nagios_code(code) for code in (0, 7, 4, 1)] == [0, 2, 3, 3]


def test_prometheus_gets_a_gauge_per_layer_and_none_for_what_was_skipped() -> None:
    text = monitoring.prometheus([FINE, replace(BAD, target='a"b\\c')])
    assert 'mlhost_up{target="gpu-1"} 1\n' in text
    assert 'mlhost_check{target="a\\"b\\\\c",check="cdi"} 0\n' in text
    assert "fabric" not in text
    assert all(line.startswith(("# HELP mlhost_", "# TYPE mlhost_", "mlhost_")) for line in text.splitlines())
