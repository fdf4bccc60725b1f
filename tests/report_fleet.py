"""A fleet's results for tests of the page: written down by hand from the samples, with what goes wrong in real fleets. A double of what hosts say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provision.model import Check, HostReport, LastRun, Outcome, Timing
from provision.results import About
from tests import report_samples as samples

ABOUT = About("verify", "2026-08-01T10:15:00Z", "0.1.0")
SEEN = {
    "system": "Debian GNU/Linux 13 (trixie)", "kernel": "6.12.48+deb13-cloud-amd64", "driver": "580.95.05 open", "docker": "29.1.3", "toolkit": "1.18.1",
}
RIGHT = tuple(
    Check(name, "ok", evidence)
    for name, evidence in (
        ("system", "Debian GNU/Linux 13 (trixie), x86_64, Linux 6.12.48, systemd"),
        ("disk", "/var/lib/docker has 812.4 GB free"),
        ("pci", "8 NVIDIA H100 80GB HBM3"),
        ("kernel-module", "driver 580.95.05 (open) is loaded; module, disk and libraries agree"),
        ("nvidia-smi", "it sees 8 GPUs"),
        ("docker", "Docker Engine 29.1.3, overlay2, cgroups by systemd"),
        ("runtime", "toolkit 1.18.1; Docker knows the runtime nvidia"),
        ("cdi", "/var/run/cdi/nvidia.yaml describes the GPUs for driver 580.95.05"),
        ("container", "nvidia-smi in a container sees the same 8 GPUs as the host"),
        ("plan", "all 4 things are as the playbook wants"),
    )
)
LAST = LastRun("20260731T221500-4f2a1c", "done", "2026-07-31T22:15:00Z", "ada@desk", "0.1.0", "gpu-host")
PROVED = HostReport(
    "", "verified", 0, samples.CONVERGED, samples.CONVERGED, checks=RIGHT, timings=(Timing("look", 0.4), Timing("prove", 2.2)), versions=SEEN
)


def fleet(size: int) -> Sequence[HostReport]:
    """So many hosts: most are proved, some behind, and of every hundred a few in each kind of trouble."""
    return [_host(number) for number in range(size)]


def _host(number: int) -> HostReport:
    name, wait = f"gpu-{number:03d}", 0.3 + number % 7 * 0.11
    fine = replace(PROVED, target=name, timings=(Timing("look", wait), Timing("prove", 2 + number % 5 * 0.4)))
    place = number % 100
    if place == 7:
        return HostReport(
            name, "unreachable", 4, message=f"{name}: connection refused on port 22.", fix="Is sshd running there, and is the port right?",
            timings=(Timing("look", 10.0),),
        )
    if place in (13, 47, 71):
        broken = Check("nvidia-smi", "failed", "8 GPUs on the PCI bus, and the driver sees 7", "`sudo dmesg | grep -iE 'nvrm|xid'` tells why one is missing.")
        checks = tuple(broken if check.id == "nvidia-smi" else check for check in RIGHT)
        log = "NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off the bus.\nNVRM: GPU 0000:17:00.0: GPU has fallen off the bus.\n" * 3
        return replace(fine, status="unverified", exit_code=7, checks=checks, message=f"{broken.id}: {broken.evidence}", fix=broken.fix, log=log)
    if place == 29:
        return replace(samples.FAILED_REPORT, target=name, message=f"docker/packages failed on {name}.", log="E: Unable to locate package docker-ce\n", versions={
            **SEEN, "docker": "", "toolkit": ""}, outcomes=(*samples.FAILED_REPORT.outcomes, Outcome("driver/module", "ok", 0.2)))
    if place in (34, 35):
        return replace(fine, status="pending", exit_code=3, before=samples.PENDING, after=None, checks=(), versions={**SEEN, "docker": "27.5.1"})
    if place % 9 == 4:
        return replace(fine, versions={**SEEN, "kernel": "6.12.41+deb13-cloud-amd64", "driver": "570.172.08 open"})
    return fine
