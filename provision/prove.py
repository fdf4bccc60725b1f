"""Proving a host, layer by layer. Nothing is changed, but where the caller asks for more than looking."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from provision import cudafit, render
from provision.actions import Smoke
from provision.catalog import Catalog
from provision.errors import Error, UsageError
from provision.layers import keeping, layers
from provision.lockplan import checks as lock_checks
from provision.look import RunOptions, ask_image, image_config, made, observe
from provision.model import Check, Facts, HostReport, Plan, Problem
from provision.playbook import Loaded
from provision.progress import Progress
from provision.report.verdict import report_of_error
from provision.run import Clock
from provision.steps import Context
from provision.steps.engine import numbers
from provision.steps.smoke import STEP as SMOKE
from provision.steps.smoke import misfit
from provision.transport import Transport
from provision.transport.errors import SudoPasswordNeeded
from provision.transport.local import LocalTransport
from provision.versions import versions

# NVIDIA's own samples, newest first: (the CUDA they were built with, image). Source: catalog.ngc.nvidia.com, nvidia/k8s/cuda-sample.
WORKLOADS = (
    ("12.5", "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"),
    ("11.7", "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda11.7.1"),
    ("10.2", "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda10.2"),
)


@dataclass(frozen=True)
class Depth:
    """What is asked beyond looking. `reload`: systemd re-reads its units while containers run; `reboot`: the host reboots and is proved again;
    `deep`: a program computes on a GPU, from the playbook's `smoke.workload` or an image of NVIDIA's that fits the driver."""

    reload: bool = False
    reboot: bool = False
    deep: bool = False


def verify(
    transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress, depth: Depth = Depth()
) -> HostReport:
    """Every layer with its own result; exit code 7 with the first broken one. Raises UsageError for a reboot of this very machine."""
    if depth.reboot and isinstance(transport, LocalTransport):
        raise UsageError("--reboot reboots the machine that this command runs on.", "Run it from another machine, over SSH.")
    clock = Clock()
    try:
        facts, report = _once(transport, loaded, catalog, options, progress, depth, clock)
        if depth.reboot and report.exit_code in (0, 7):
            report = _rebooted(transport, loaded, catalog, options, progress, depth, clock, facts, report)
    except SudoPasswordNeeded:
        raise
    except Error as error:
        report = report_of_error(transport.name, error, clock.timings())
    progress.done(transport.name, report)
    return report


def _once(
    transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress, depth: Depth, clock: Clock
) -> tuple[Facts, HostReport]:
    began = time.monotonic()
    progress.stage(transport.name, "looking")
    _, facts = observe(transport, loaded.spec, options.steps, options.first, options.names)
    clock.add("look", began)
    decided = made(facts, loaded.spec, catalog, options)
    image = ask_image(transport, facts, loaded.spec, decided, progress)
    decided = made(facts, loaded.spec, catalog, options, image) if image else decided
    unsupported = next((p for p in decided.problems if p.unsupported), None)
    if unsupported:
        return facts, HostReport(transport.name, "unsupported", 5, decided, decided, message=unsupported.message, fix=unsupported.fix, versions=versions(facts))
    ctx = Context(facts, loaded.spec, catalog.platform(facts.os, facts.arch), catalog)
    seen = layers(ctx, decided)
    progress.stage(transport.name, "proving")
    began = time.monotonic()
    lived = _containers(transport, ctx, decided, seen, depth)
    clock.add("prove", began)
    problems = tuple(Check(p.id, "failed", p.message, p.fix) for p in decided.problems)
    locked = lock_checks(facts, options.pinned) if options.pinned else ()
    problems = tuple(p for p in problems if not (locked and p.id in ("lock/class", "lock/playbook", "lock/kernel", "lock/newer", "lock/driver")))
    checks = (*seen, *lived, *keeping(ctx, decided), *locked, *problems)
    return facts, replace(_judged(transport.name, decided, checks, clock), versions=versions(facts))


def _judged(name: str, decided: Plan, checks: tuple[Check, ...], clock: Clock) -> HostReport:
    broken = next((c for c in checks if c.state == "failed"), None)
    return HostReport(
        name,
        "verified" if broken is None else "unverified",
        0 if broken is None else 7,
        decided,
        decided,
        checks=checks,
        timings=clock.timings(),
        message="" if broken is None else f"{broken.id}: {broken.evidence}",
        fix="" if broken is None else broken.fix or "Run `mlhost setup` to put it right, or `mlhost plan` to see what is missing.",
    )


def _rebooted(
    transport: Transport,
    loaded: Loaded,
    catalog: Catalog,
    options: RunOptions,
    progress: Progress,
    depth: Depth,
    clock: Clock,
    facts: Facts,
    before: HostReport,
) -> HostReport:
    """The host again after a reboot; what had been right and is no longer is the reboot's doing."""
    from provision.reboot import reboot_and_wait

    progress.stage(transport.name, "rebooting")
    began = time.monotonic()
    with options.reboots:
        reboot_and_wait(transport, facts.boot_id or "", lambda text: progress.wait(transport.name, text))
    clock.add("reboot", began)
    _, after = _once(transport, loaded, catalog, replace(options, first=None), progress, depth, clock)
    was = {check.id: check.state for check in before.checks}
    lost = [check.id for check in after.checks if check.state == "failed" and was.get(check.id) == "ok"]
    if lost:
        survived = Check("reboot", "failed", f"the boot id has changed, and this was right before: {', '.join(lost)}")
    else:
        survived = Check("reboot", "ok", "the boot id has changed, and nothing that was right before is broken")
    return replace(after, checks=(*after.checks, survived), timings=clock.timings())


def _containers(transport: Transport, ctx: Context, decided: Plan, seen: Iterable[Check], depth: Depth) -> list[Check]:
    item = next((i for i in decided.items if i.step == SMOKE), None)
    if item is None:
        return [Check("container", "skipped", "the playbook asks for no proof")]
    broken = next((c for c in seen if c.state == "failed" and c.id in ("docker", "disk")), None)
    if broken:
        return [Check("container", "skipped", f"not tried, as {broken.id} is broken")]
    if not isinstance(item.action, Smoke):
        return [Check("container", "failed", item.why)]
    smoke, gpu = item.action, item.action.gpus > 0
    others = _requests(ctx, smoke) if gpu else ()
    said: list[Check] = []
    reload: tuple[str, ...] = ()
    if depth.reload:
        reload, why = _reloadable(ctx.facts, (smoke.request, *others) if gpu else ())
        said += [Check("reload", "skipped", why)] if why else []
    elif gpu:
        said.append(Check("reload", "skipped", "ask with --reload whether running containers keep their GPUs through systemctl daemon-reload"))
    workload = _workload(ctx) if depth.deep and gpu else ""
    if depth.deep and not workload:
        said.append(Check("workload", "skipped", "there is no GPU to compute on" if not gpu else "no image is known that fits the driver"))
    unfit = _unfit(transport, ctx, workload) if workload and ctx.spec.smoke.workload else None
    if unfit:
        said.append(Check("workload", "failed", unfit.message, unfit.fix.replace("`smoke.image`", "`smoke.workload`").replace(", or `embedded`", "")))
        workload = ""
    script = render.smoke_script(smoke, paths=others, reload=reload, workload=workload)
    result = transport.run(script, sudo=True, timeout=900 + (2400 if workload else 0), max_output=1 << 20)
    checks = []
    for line in result.out.decode(errors="replace").splitlines():
        words = line.split("\t")
        if len(words) >= 4 and words[0] == "check" and words[1:3] != ["docker", "ok"]:
            checks.append(Check(words[1], words[2], words[3]))
    if not checks or (result.rc and not any(c.state == "failed" for c in checks)):
        checks.append(Check("container", "failed", result.last_words or f"the script ended with exit code {result.rc}"))
    return [_remedied(check) for check in checks] + said


def _requests(ctx: Context, smoke: Smoke) -> tuple[str, ...]:
    """The other ways to ask for GPUs that this engine is set up for."""
    docker = ctx.facts.docker
    ways = ["gpus"] if docker and numbers(docker.server or "") >= (19, 3) else []
    ways += ["runtime"] if docker and "nvidia" in docker.runtimes else []
    return tuple(way for way in ways if way != smoke.request)


def _reloadable(facts: Facts, requests: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The ways to try, and why none is tried where that is so."""
    if not requests:
        return (), "there are no GPUs to lose"
    if not facts.systemd:
        return (), "there is no systemd on this host"
    running = facts.docker.running_containers if facts.docker else 0
    if running:
        return (), f"{running} of somebody's containers run here, which could lose their GPUs by it"
    return requests, ""


def _workload(ctx: Context) -> str:
    if ctx.spec.smoke.workload:
        return ctx.spec.smoke.workload
    driver = ctx.facts.nvidia.loaded if ctx.facts.nvidia else ""
    return next((image for cuda, image in WORKLOADS if driver and cudafit.cuda_fit(driver, cuda)), "")


def _unfit(transport: Transport, ctx: Context, workload: str) -> Problem | None:
    """Why the driver cannot serve the workload's image, by what its registry says of it before it is pulled."""
    nvidia = ctx.facts.nvidia
    version = (nvidia.loaded or nvidia.driver_version) if nvidia else ""
    asked = replace(ctx, image=image_config(transport, ctx.facts, ctx.spec, workload))
    return misfit(asked, Smoke(workload, len(nvidia.gpus) or 1 if nvidia else 1), version) if version else None


def _remedied(check: Check) -> Check:
    """With the remedy for what a container showed."""
    if check.state != "failed":
        return check
    if check.id.startswith("reload-"):
        fix = (
            "Ask for GPUs with `--device nvidia.com/gpu=all` (Docker 25 or newer), or `--gpus` on Docker 29.2 or newer; or set "
            "`docker.daemon: {exec-opts: [native.cgroupdriver=cgroupfs]}`. Containers that have lost theirs must be made anew."
        )
        return replace(check, fix=fix)
    return check
