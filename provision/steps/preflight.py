"""What must hold before anything is changed: root, a system mlhost knows, disk, clock, a sound dpkg, reachable sources."""

from __future__ import annotations

from provision.actions import Command
from provision.model import CHANGE, REFUSED, Facts, Item, Notice, Problem, Reach
from provision.steps import REPAIR, Context, Result

STEP = "preflight"
MAX_SKEW = 300
# Nothing released before this exists in the catalog; a clock before it is wrong whatever the controller's says.
EPOCH_2025 = 1735689600
# What the parts take unpacked, in GB: measured for docker-ce with plugins on Debian 12/13 (0.5) and for the 580 driver with DKMS (1.5); rounded up.
ENGINE_GB, DRIVER_GB, TOOLKIT_GB = 1, 4, 1

REPAIR_CHECK = "[ -z \"$(dpkg --audit 2>/dev/null)\" ] && ! ls /var/lib/dpkg/updates 2>/dev/null | grep -q '^[0-9]'"
REPAIR_CHANGE = "DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a"


def system(facts: Facts, allow_container: bool) -> tuple[Problem, ...]:
    """Kinds of machine on which mlhost can do nothing sensible."""
    if facts.wsl:
        return (
            Problem(
                "system/wsl",
                "This is Windows' Subsystem for Linux, where the GPU and Docker belong to Windows.",
                "Install NVIDIA's Windows driver and Docker Desktop with the WSL 2 backend.",
                unsupported=True,
            ),
        )
    if facts.ostree or (facts.usr_writable is False and facts.live):
        return (
            Problem(
                "system/immutable",
                f"{facts.os.pretty_name or facts.os.id} keeps its programs read-only; packages cannot be installed the ordinary way.",
                "Use the vendor's image or extension with the NVIDIA stack built in.",
                unsupported=True,
            ),
        )
    if facts.container and not allow_container:
        return (
            Problem(
                "system/container",
                f"This is a {facts.container} container; drivers and the Docker Engine belong on its host.",
                "Run mlhost on the machine itself (or, to build an image, `--set preflight.allow_container=true`).",
                unsupported=True,
            ),
        )
    return ()


def decide(ctx: Context) -> Result:
    """Problems and notices from the machine's state, and the repair of a package operation that was cut off."""
    facts, spec = ctx.facts, ctx.spec.preflight
    problems: list[Problem] = []
    notices: list[Notice] = []
    items: list[Item] = []
    if facts.live and facts.uid not in (0, None):
        problems.append(
            Problem(
                "preflight/root",
                "mlhost was not root on this host, so it could neither read all it needs nor change anything.",
                "Run it with sudo, or give the user sudo rights.",
            )
        )
    problems += _clock(facts)
    broken = tuple(
        p
        for p in (facts.packages or {}).values()
        if p.status
        in ("half-configured", "half-installed", "unpacked", "triggers-pending", "triggers-awaited", "reinst-required")
    )
    if facts.dpkg_interrupted or broken:
        names = ", ".join(p.name for p in broken[:5]) or "a package operation"
        own = facts.last_run is not None and facts.last_run.state in ("lost", "failed")
        if own or spec.repair:
            why = (
                f"{names} was left half done"
                + (" by an earlier run of mlhost that was cut off" if own else "")
                + "; dpkg finishes it first"
            )
            items.append(
                Item(
                    "preflight/dpkg",
                    STEP,
                    "command",
                    CHANGE,
                    why,
                    {"dpkg": "sound"},
                    {"dpkg": names},
                    Command(REPAIR_CHECK, REPAIR_CHANGE),
                    phase=REPAIR,
                )
            )
        else:
            message = f"An earlier package operation was cut off on this host ({names})."
            items.append(
                Item("preflight/dpkg", STEP, "command", REFUSED, message, {"dpkg": "sound"}, {"dpkg": names}, phase=REPAIR)
            )
            problems.append(
                Problem(
                    "preflight/dpkg",
                    message,
                    "Finish it with `sudo dpkg --configure -a`, or let mlhost do that: `--set preflight.repair=true`.",
                )
            )
    for lock in facts.locks:
        notices.append(
            Notice(
                "preflight/lock",
                f"{lock.command or 'a process'} (pid {lock.pid}) holds {lock.path}; mlhost waits for it up to {spec.lock_wait} s.",
            )
        )
    if facts.cloud_init == "running":
        notices.append(
            Notice("preflight/cloud-init", f"cloud-init is still at work; mlhost waits for it up to {spec.lock_wait} s.")
        )
    elif facts.cloud_init == "error":
        notices.append(
            Notice("preflight/cloud-init", "cloud-init ended with an error (see /var/log/cloud-init.log); mlhost goes on.")
        )
    return Result(tuple(items), {}, tuple(problems), tuple(notices))


def _clock(facts: Facts) -> list[Problem]:
    if facts.host_time is None or not facts.live:
        return []
    skew = facts.host_time - facts.asked_at if facts.asked_at is not None else 0
    if facts.host_time < EPOCH_2025 or abs(skew) > MAX_SKEW:
        by = f"{abs(skew)} s {'behind' if skew < 0 else 'ahead'}" if abs(skew) > MAX_SKEW else "before 2025"
        return [
            Problem(
                "preflight/clock",
                f"The host's clock is {by}; signatures and certificates would be judged wrongly.",
                "Set it: `sudo timedatectl set-ntp true` (or `sudo date -s …`), then run mlhost again.",
            )
        ]
    return []


def space(ctx: Context, engine: bool, driver: bool, toolkit: bool, changes: bool) -> tuple[Problem, ...]:
    """Room on `/` and in Docker's data directory, wanted only where something is going to be installed."""
    if not changes:
        return ()
    spec = ctx.spec.preflight
    root_gb = spec.root_free_gb or (ENGINE_GB * engine + DRIVER_GB * driver + TOOLKIT_GB * toolkit)
    problems = []
    docker_dir = ctx.spec.docker.data_root or "/var/lib/docker"
    wanted = {"/": root_gb, docker_dir: spec.docker_free_gb or (2 if engine else 0)}
    disks = ctx.facts.disks
    by_mount: dict[str, int] = {}
    for path, gb in wanted.items():
        disk = disks.get(path)
        if disk is None or not gb:
            continue
        by_mount[disk.mount] = by_mount.get(disk.mount, 0) + gb
        needed = by_mount[disk.mount]
        if disk.free_kb < needed * 1_000_000:
            problems.append(
                Problem(
                    f"preflight/space{path if path != '/' else ''}",
                    f"{path} has {disk.free_kb / 1_000_000:.1f} GB free on {disk.mount}; {needed} GB are needed for what the plan installs there.",
                    "Free some (`sudo apt-get clean`, old kernels, `docker system df`), enlarge the disk, or put Docker's data elsewhere with `docker.data_root`.",
                )
            )
        elif disk.free_inodes is not None and 0 < disk.free_inodes < 20_000:
            problems.append(
                Problem(
                    f"preflight/inodes{path if path != '/' else ''}",
                    f"{path} has only {disk.free_inodes} inodes free on {disk.mount}.",
                    "Delete small files there, or enlarge the file system.",
                )
            )
    return tuple(problems)


REMEDIES = {
    "dns": (
        "its name cannot be resolved there",
        "Check the host's resolver (/etc/resolv.conf, `getent hosts NAME`), or name a mirror (`mirrors:`) or proxy (`proxy:`) in the playbook.",
    ),
    "connect": (
        "it cannot be reached from there",
        "Check the host's route and firewall (a private subnet needs a NAT gateway), or name a mirror (`mirrors:`) or proxy (`proxy:`) in the playbook.",
    ),
    "tls": (
        "its TLS certificate is not trusted there",
        "Install `ca-certificates` (or your inspecting proxy's CA) on the host, and check its clock.",
    ),
    "proxy": (
        "the proxy refuses",
        "Check the proxy's address and credentials (`proxy:` in the playbook, or apt's own settings).",
    ),
    "missing": (
        "it has nothing for this release there (404)",
        "Check the mirror's layout, or take the package from the distribution (`--set docker.source=distro`).",
    ),
}


def reachable(urls: tuple[str, ...], reach: dict[str, Reach]) -> tuple[Problem, ...]:
    """A problem for each source that the plan needs and the host could not reach. Sources not asked for are no problem."""
    problems = []
    for url in dict.fromkeys(urls):
        answer = reach.get(url)
        if answer is None or answer.ok or answer.state == "no-client":
            continue
        said, fix = REMEDIES.get(
            answer.state, ("it does not answer as it should", "Try again; if it stays, name a mirror in the playbook.")
        )
        detail = f": {answer.detail}" if answer.detail else ""
        problems.append(Problem("preflight/reach", f"The host needs {url}, but {said}{detail}.", fix))
    return tuple(problems)
