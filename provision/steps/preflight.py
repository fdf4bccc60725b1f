"""What must hold before anything is changed: root, a system mlhost knows, disk, clock, a sound dpkg, reachable sources."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping

from provision.actions import Command, Package, Packages
from provision.model import CHANGE, Facts, Item, Notice, Problem, Reach
from provision.steps import REPAIR, SOURCES, Context, Result, plural, refused, repository, settled

STEP = "preflight"
MAX_SKEW = 300
# Nothing released before this exists in the catalog; a clock before it is wrong whatever the controller's says.
EPOCH_2025 = 1735689600
# What the parts take unpacked, in GB: measured for docker-ce with plugins on Debian 12/13 (0.5) and for the 580 driver with DKMS (1.5); rounded up.
PARTS_GB = {"docker/packages": 1, "driver/packages": 4, "toolkit/packages": 1}
DOCKER_DATA_GB = 2
MIN_INODES = 20_000
KIB, GB = 1024, 1_000_000_000
BROKEN = ("half-configured", "half-installed", "unpacked", "triggers-pending", "triggers-awaited", "reinst-required")

# With the functions of every transaction, which also wait for the dpkg that a killed script has left running.
DPKG_REPAIR = Command("dpkg_sound", "dpkg_repair", undo=":", needs=("others", "apt"))


def system(facts: Facts, allow_container: bool) -> tuple[Problem, ...]:
    """Kinds of machine on which mlhost can do nothing sensible."""
    if facts.wsl:
        message = "This is Windows' Subsystem for Linux, where the GPU and Docker belong to Windows."
        fix = "Install NVIDIA's Windows driver and Docker Desktop with the WSL 2 backend."
        return (Problem("system/wsl", message, fix, unsupported=True),)
    if facts.ostree or (facts.usr_writable is False and facts.live):
        message = (
            f"{facts.os.pretty_name or facts.os.id} keeps its programs read-only; packages cannot be installed the ordinary way."
        )
        fix = "Use the vendor's image or extension with the NVIDIA stack built in."
        return (Problem("system/immutable", message, fix, unsupported=True),)
    if facts.container and not allow_container:
        message = f"This is a {facts.container} container; drivers and the Docker Engine belong on its host."
        fix = "Run mlhost on the machine itself (or, to build an image, `--set preflight.allow_container=true`)."
        return (Problem("system/container", message, fix, unsupported=True),)
    return ()


def decide(ctx: Context) -> Result:
    """The repair of a package operation that was cut off, and what the user should know while mlhost waits."""
    facts, wait = ctx.facts, ctx.spec.preflight.lock_wait
    item, problems = _dpkg(ctx)
    if facts.live and facts.uid not in (0, None):
        message = "mlhost was not root on this host, so it could neither read all it needs nor change anything."
        problems = (Problem("preflight/root", message, "Run it with sudo, or give the user sudo rights."), *problems)
    notices = [
        Notice(
            "preflight/lock",
            f"{lock.command or 'a process'} (pid {lock.pid}) holds {lock.path}; mlhost waits for it up to {wait} s.",
        )
        for lock in facts.locks
    ]
    if facts.cloud_init == "running":
        notices.append(Notice("preflight/cloud-init", f"cloud-init is still at work; mlhost waits for it up to {wait} s."))
    elif facts.cloud_init == "error":
        text = "cloud-init ended with an error (see /var/log/cloud-init.log); mlhost goes on."
        notices.append(Notice("preflight/cloud-init", text))
    notices += _ended(ctx)
    image = ctx.catalog.image(lambda path: path in facts.paths and facts.paths[path].kind != "absent", facts.os.pretty_name)
    if image:
        built_in = listed(image.has)
        text = f"This is {image.name}, with {built_in} built in: what works is kept, and only what is missing is added. {image.note}"
        notices.append(Notice("preflight/image", text.strip()))
    return Result((*([item] if item else []), *_prerequisites(ctx)), {}, problems, tuple(notices))


def _ended(ctx: Context) -> list[Notice]:
    """That nobody mends this system any more, by the host's own clock; by the catalog's own day where that cannot be told."""
    platform, now = ctx.platform, ctx.facts.host_time
    today = platform.verified
    if ctx.facts.live and now is not None and now >= EPOCH_2025:
        today = time.strftime("%Y-%m-%d", time.gmtime(now))
    if not platform.eol or not re.match(r"\d", today) or today <= platform.eol:
        return []
    text = f"{platform.name} is past its end of support since {platform.eol}: holes found since then stay open in what it brings itself. Plan its upgrade."
    return [Notice("preflight/end-of-support", text)]


def listed(words: tuple[str, ...]) -> str:
    """`driver, docker and toolkit`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _prerequisites(ctx: Context) -> tuple[Item, ...]:
    """Packages without which the package manager of an old system cannot use a vendor's source."""
    wanted = ctx.platform.prerequisites
    missing = [name for name in wanted if not ctx.facts.installed(name)]
    if not wanted or ctx.facts.packages is None:
        return ()
    expected: dict[str, object] = dict.fromkeys(wanted, "any")
    identifier = "preflight/prerequisites"
    if not missing:
        return (settled(STEP, identifier, "packages", f"{listed(wanted)} {'is' if len(wanted) == 1 else 'are'} installed", expected, REPAIR),)
    why = f"{listed(tuple(missing))} {'is' if len(missing) == 1 else 'are'} needed before a vendor's https source can be used"
    action = Packages(tuple(map(Package, missing)))
    return (Item(identifier, STEP, "packages", CHANGE, why, expected, {}, action, phase=SOURCES - 2),)


def _dpkg(ctx: Context) -> tuple[Item | None, tuple[Problem, ...]]:
    facts = ctx.facts
    broken = tuple(p for p in (facts.packages or {}).values() if p.status in BROKEN)
    if not facts.dpkg_interrupted and not broken:
        return None, ()
    names = ", ".join(dict.fromkeys(p.name for p in broken[:5])) or "a package operation"
    own = facts.last_run is not None and facts.last_run.state in ("lost", "failed")
    expected = {"dpkg": "sound"}
    if not own and not ctx.spec.preflight.repair:
        message = f"An earlier package operation was cut off on this host ({names})."
        fix = "Finish it with `sudo dpkg --configure -a`, or let mlhost do that: `--set preflight.repair=true`."
        problem = Problem("preflight/dpkg", message, fix)
        return refused(STEP, "command", problem, REPAIR, expected), (problem,)
    by = " by an earlier run of mlhost" if own else ""
    why = f"{names} was left half done{by}; dpkg finishes it first"
    return Item("preflight/dpkg", STEP, "command", CHANGE, why, expected, {"dpkg": names}, DPKG_REPAIR, phase=REPAIR), ()


def before(ctx: Context, items: Iterable[Item], urls: tuple[str, ...]) -> tuple[Problem, ...]:
    """What forbids changing anything, asked only where something is going to be changed."""
    changes = [i for i in items if i.state == CHANGE]
    if not changes:
        return ()
    installs = [i.id for i in changes if i.kind == "packages"]
    return (
        *_clock(ctx.facts),
        *(space(ctx, installs) if installs else ()),
        *reachable(urls, ctx.facts.reach, repository.own_index(ctx)),
    )


def _clock(facts: Facts) -> tuple[Problem, ...]:
    if facts.host_time is None or not facts.live:
        return ()
    skew = facts.host_time - facts.asked_at if facts.asked_at is not None else 0
    if abs(skew) > MAX_SKEW:
        by = f"{abs(skew)} s {'behind' if skew < 0 else 'ahead'}"
    elif facts.host_time < EPOCH_2025:
        by = "before 2025"
    else:
        return ()
    message = f"The host's clock is {by}; signatures and certificates would be judged wrongly."
    fix = "Set it: `sudo timedatectl set-ntp true` (or `sudo date -s …`), then run mlhost again."
    return (Problem("preflight/clock", message, fix),)


def space(ctx: Context, installs: Iterable[str]) -> tuple[Problem, ...]:
    """Room on `/` and in Docker's data directory for what is going to be installed (item ids). A disk that could not be measured is no problem."""
    spec, ids = ctx.spec.preflight, set(installs)
    data = ctx.spec.docker.data_root or "/var/lib/docker"
    wanted = {
        "/": spec.root_free_gb or sum(gb for item, gb in PARTS_GB.items() if item in ids),
        data: spec.docker_free_gb or (DOCKER_DATA_GB if "docker/packages" in ids else 0),
    }
    problems = []
    by_mount: dict[str, int] = {}
    for path, gb in wanted.items():
        disk = ctx.facts.disks.get(path)
        if disk is None or not gb:
            continue
        needed = by_mount[disk.mount] = by_mount.get(disk.mount, 0) + gb
        suffix = "" if path == "/" else path
        if disk.free_kb * KIB < needed * GB:
            message = f"{path} has {disk.free_kb * KIB / GB:.1f} GB free on {disk.mount}; {needed} GB are needed for what the plan installs there."
            fix = (
                "Free some (the package manager's cache, old kernels, `docker system df`), enlarge the disk, or put Docker's data elsewhere with "
                "`docker.data_root`."
            )
            problems.append(Problem(f"preflight/space{suffix}", message, fix))
        elif disk.free_inodes is not None and disk.free_inodes < MIN_INODES:
            message = f"{path} has only {plural(disk.free_inodes, 'inode')} free on {disk.mount}."
            problems.append(
                Problem(f"preflight/inodes{suffix}", message, "Delete small files there, or enlarge the file system.")
            )
    return tuple(problems)


REMEDIES = {
    "dns": (
        "its name cannot be resolved there",
        "Check the host's resolver (/etc/resolv.conf, `getent hosts NAME`), or name a mirror (`mirrors:`) or proxy (`proxy:`) in the playbook.",
    ),
    "connect": (
        "it cannot be reached from there",
        "Check the host's route and firewall (a private subnet needs a NAT gateway), or name a mirror (`mirrors:`) or proxy (`proxy:`) in the "
        "playbook.",
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
        "it has nothing for this release there",
        "Check the mirror's layout (`mirrors:`), or take the packages from the distribution (`--set docker.source=distro`, "
        "`--set driver.source=distro`).",
    ),
}


OWN = "Correct the system's own apt sources (/etc/apt/sources.list and sources.list.d) or its network; `sudo apt-get update` must work."


def reachable(urls: tuple[str, ...], reach: Mapping[str, Reach], own: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    """A problem for each source that the plan needs and the host could not reach; `own` are the distribution's. One not asked for is no problem."""
    problems = []
    for url in urls:
        answer = reach.get(url)
        if answer is None or answer.ok or answer.state == "no-client":
            continue
        other = ("it does not answer as it should", "Try again; if it stays, name a mirror (`mirrors:`) in the playbook.")
        said, fix = REMEDIES.get(answer.state, other)
        fix = OWN if url in own and answer.state != "proxy" else fix
        detail = f" ({answer.detail})" if answer.detail else ""
        problems.append(Problem("preflight/reach", f"The host needs {url}, but {said}{detail}.", fix))
    return tuple(problems)
