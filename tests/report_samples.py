"""Values for tests of reports and of the command line: what the planner and the run loop would hand over, written down by hand."""

from __future__ import annotations

from dataclasses import replace

from provision import actions
from provision.model import (
    Check,
    Decision,
    GpuRow,
    HostReport,
    Item,
    Notice,
    Outcome,
    Plan,
    PlatformRow,
    Problem,
    Timing,
)

KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
PLATFORM = PlatformRow("debian", "13", "trixie", "debian", "x86_64", "aws", "Debian GNU/Linux 13 (trixie)")
H100 = GpuRow("0000:17:00.0", "10de:2330", "NVIDIA H100 80GB HBM3", "hopper")

DOCKER = Decision(
    "install",
    "no Docker Engine here; from docker-ce, because Docker's repository serves debian trixie and can be reached",
    {
        "source": "docker-ce",
        "packages": ["docker-ce", "docker-ce-cli", "containerd.io"],
        "repository": {"uri": "https://download.docker.com/linux/debian", "suite": "trixie", "components": ["stable"], "key_fingerprint": KEY},
        "remove": [],
    },
)
REPOSITORY = Item(
    "docker/repository",
    "docker",
    "apt-repository",
    "change",
    "no apt source names https://download.docker.com/linux/debian",
    {"uri": "https://download.docker.com/linux/debian", "suite": "trixie"},
    {},
    actions.AptRepository(
        "docker", "/etc/apt/sources.list.d/docker.sources", "Types: deb\n",
        actions.Key("docker", "https://download.docker.com/linux/debian/gpg", (KEY,), "/etc/apt/keyrings/docker.asc"),
    ),
)
PACKAGES = Item(
    "docker/packages",
    "docker",
    "packages",
    "change",
    "no Docker Engine here; from docker-ce, because Docker's repository serves debian trixie and can be reached",
    {"docker-ce": "any", "containerd.io": "any"},
    {},
    actions.Packages((actions.Package("docker-ce"), actions.Package("docker-ce-cli"), actions.Package("containerd.io"))),
)
SERVICE = Item("docker/service", "docker", "service", "ok", "docker is enabled and running", {"active": "active"}, {"active": "active"})
SMOKE = Item(
    "smoke", "smoke", "smoke", "later", "the driver has to be loaded first", {"gpus": 8}, {}, None
)

PENDING = Plan(
    host="gpu-7",
    platform=PLATFORM,
    gpus=(H100,) * 8,
    decisions={
        "docker": DOCKER,
        "driver": Decision("keep", "580.95.05 is loaded and drives all 8 GPUs", {
            "branch": "580", "flavor": "open", "source": "cuda", "packages": []}),
        "smoke": Decision("run", "an image made on the host needs no registry", {"image": "embedded"}),
    },
    items=(REPOSITORY, PACKAGES, SERVICE, SMOKE),
    notices=(Notice("docker/group", "Members of the docker group (ada) can become root on this host."),),
    reboot="needed",
    restarts=("docker",),
    download_mb=118,
)
CONVERGED = replace(
    PENDING,
    items=tuple(replace(item, state="ok", action=None, actual=item.expected) for item in PENDING.items),
    reboot="no",
    restarts=(),
    download_mb=None,
    notices=(),
)
REFUSED = replace(
    PENDING,
    decisions={"docker": Decision("refuse", "docker.io conflicts with the engine from docker-ce", {"source": "docker-ce", "remove": ["docker.io"]})},
    items=(replace(PACKAGES, state="refused", action=None),),
    problems=(Problem("docker/conflicts", "docker.io conflicts with the engine from docker-ce and would be removed.", "Allow it with --yes."),),
)
UNSUPPORTED = replace(
    REFUSED,
    platform=PlatformRow("plan9", "4", "", "other", "x86_64", None, "Plan 9"),
    problems=(Problem("platform", "Plan 9 is not a system that mlhost sets up.", "Use one of: Debian 12, Debian 13.", True),),
)

CHANGED_REPORT = HostReport(
    target="root@gpu-7",
    status="changed",
    exit_code=0,
    before=PENDING,
    after=CONVERGED,
    outcomes=(
        Outcome("docker/repository", "changed", 1.24),
        Outcome("docker/packages", "changed", 48.3),
        Outcome("docker/service", "ok", 0.01),
        Outcome("smoke", "changed", 2.0),
    ),
    checks=(
        Check("plan", "ok", "a second look finds nothing left to do"),
        Check("smoke", "ok", "nvidia-smi in a container sees 8 GPUs, as the host and the PCI bus do"),
    ),
    timings=(Timing("look", 0.4), Timing("work", 51.6), Timing("reboot", 62.0), Timing("proof", 2.1)),
    run_ids=("20260801-101500-4f2a",),
)
SAME_REPORT = HostReport(
    target="root@gpu-7",
    status="converged",
    exit_code=0,
    before=CONVERGED,
    after=CONVERGED,
    checks=(Check("smoke", "ok", "nvidia-smi in a container sees 8 GPUs, as the host and the PCI bus do"),),
    timings=(Timing("look", 0.4),),
)
FAILED_REPORT = HostReport(
    target="root@gpu-8",
    status="failed",
    exit_code=1,
    before=PENDING,
    outcomes=(
        Outcome("docker/repository", "changed", 1.24),
        Outcome("docker/packages", "failed", 3.0, "apt-get ended with 100: Unable to locate package docker-ce"),
        Outcome("smoke", "skipped", 0.0, "docker/packages failed"),
    ),
    timings=(Timing("look", 0.4), Timing("work", 4.2)),
    message="docker/packages failed on root@gpu-8.",
    fix="Read the log, put the cause right and run the same command again; what was done stays done.",
    run_ids=("20260801-101500-4f2b",),
)
UNREACHABLE_REPORT = HostReport(
    "gpu-9", "unreachable", 4, message="gpu-9: connection refused on port 22.", fix="Is sshd running there, and is the port right?"
)
UNVERIFIED_REPORT = HostReport(
    target="root@gpu-7",
    status="unverified",
    exit_code=7,
    before=CONVERGED,
    after=CONVERGED,
    checks=(
        Check("plan", "ok", "all 4 things are as the playbook wants"),
        Check("gpus", "failed", "the host has 8 GPUs, the container sees 7"),
    ),
    timings=(Timing("look", 0.4), Timing("prove", 2.2)),
    message="gpus: the host has 8 GPUs, the container sees 7",
    fix="Run `mlhost setup` to put it right, or `mlhost plan` to see what is missing.",
)
