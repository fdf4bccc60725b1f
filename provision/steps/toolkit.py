"""The NVIDIA Container Toolkit: one repository, four packages at one version, Docker's runtime registered, CDI specs there."""

from __future__ import annotations

from typing import Any

from provision import daemonjson
from provision.actions import Command, Package, Packages
from provision.model import CHANGE, OK, REFUSED, Decision, Item, Notice, Problem
from provision.steps import PACKAGES, SERVICES, Context, Result, repository
from provision.steps.docker import Engine, numbers, satisfies
from provision.steps.driver import Driver

STEP = "toolkit"
# Since 1.18 the four depend on each other's exact version. Source: NVIDIA/nvidia-container-toolkit packaging/debian/control.
PACKAGES_AT_ONE_VERSION = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
RUNTIME = "nvidia-container-runtime"
CDI_CHECK = "nvidia-ctk cdi list 2>/dev/null | grep -q '^nvidia[.]com/gpu='"
CDI_CHANGE = """\
if [ -d /run/systemd/system ] && systemctl cat nvidia-cdi-refresh.service >/dev/null 2>&1; then
    systemctl restart nvidia-cdi-refresh.service || return 1
else
    mkdir -p /var/run/cdi && nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml || return 1
fi"""


def decide(ctx: Context, engine: Engine | None, driver: Driver) -> Result:
    """The toolkit's items, and the daemon.json keys Docker needs for it."""
    if not driver.count or driver.state == "none":
        why = (
            "there is no NVIDIA GPU"
            if not ctx.facts.gpus
            else "there will be no working driver"
            if ctx.spec.gpu != "ignore"
            else "the playbook asks for a Docker host only"
        )
        return Result(decisions={STEP: Decision("skip", why, _details("", [], None))})
    spec, facts = ctx.spec.toolkit, ctx.facts
    have = facts.installed("nvidia-container-toolkit") or facts.toolkit.version
    if spec.install == "never":
        why = f"the playbook leaves the toolkit alone ({have or 'not installed'})"
        return Result(
            decisions={STEP: Decision("skip", why, _details(have, [], None))}, daemon=_daemon(ctx, engine) if have else {}
        )
    versions = {name: facts.installed(name) for name in PACKAGES_AT_ONE_VERSION}
    whole = len(set(versions.values())) == 1 and bool(have)
    foreign = bool(facts.toolkit.ctk) and not any(versions.values())
    if have and satisfies(have, spec.version) and (whole or foreign):
        why = f"toolkit {have} is installed" + (f" and satisfies {spec.version}" if spec.version else "")
        items: tuple[Item, ...] = (
            Item("toolkit/packages", STEP, "packages", OK, why, {"version": have}, {"version": have}, phase=PACKAGES),
        )
        notices: tuple[Notice, ...] = ()
        if numbers(have) < (1, 17, 8):
            notices = (
                Notice(
                    "toolkit/insecure",
                    f"Toolkit {have} has known container escapes (CVE-2025-23266); 1.17.8 or newer is advised.",
                ),
            )
        items = (*items, *_cdi(ctx, engine))
        return Result(
            items, {STEP: Decision("keep", why, _details(have, [], None))}, notices=notices, daemon=_daemon(ctx, engine)
        )
    repo = ctx.catalog.repository("toolkit", ctx.platform)
    if repo is None:
        message = f"NVIDIA's toolkit repository has nothing for {ctx.platform.id} {ctx.platform.version} on {ctx.platform.arch}."
        problem = Problem("toolkit/source", message, "Install the toolkit by hand and use `--set toolkit.install=never`.")
        return Result(
            (Item("toolkit/packages", STEP, "packages", REFUSED, message, phase=PACKAGES),),
            {STEP: Decision("refuse", message, _details("", [], None))},
            (problem,),
        )
    if have and spec.version and numbers(have) > numbers(spec.version) and not satisfies(have, spec.version):
        message = (
            f"Toolkit {have} is installed, the playbook pins {spec.version}, which is older; mlhost does not downgrade by itself."
        )
        problem = Problem("toolkit/version", message, "Set `toolkit.version` to what is there (or drop it).")
        return Result(
            (Item("toolkit/packages", STEP, "packages", REFUSED, message, phase=PACKAGES),),
            {STEP: Decision("refuse", message, _details(have, [], None))},
            (problem,),
        )
    repo = repository.mirrored(repo, ctx.spec.mirrors.toolkit)
    glob = "" if not spec.version else f"{spec.version}-*" if len(numbers(spec.version)) > 2 else f"{spec.version}.*"
    packages = tuple(Package(name, glob) for name in PACKAGES_AT_ONE_VERSION)
    if not have:
        why = "containers need it to see the GPUs"
    elif not whole:
        why = "its packages are at different versions, which it does not work with"
    else:
        why = f"{have} is installed, the playbook wants {spec.version}"
    actual = {name: version for name, version in versions.items() if version}
    items = (
        repository.item(ctx, repo, STEP),
        Item(
            "toolkit/packages",
            STEP,
            "packages",
            CHANGE,
            why,
            {p.name: p.version or "any" for p in packages},
            actual,
            Packages(packages),
            phase=PACKAGES,
        ),
        *_cdi(ctx, engine),
    )
    decision = Decision("install", why, _details(spec.version, list(PACKAGES_AT_ONE_VERSION), repository.details(repo)))
    return Result(items, {STEP: decision}, urls=(repo.index_url,), daemon=_daemon(ctx, engine))


def _details(version: str, packages: list[str], repo: dict[str, object] | None) -> dict[str, object]:
    return {"version": version or None, "packages": packages, "repository": repo}


def _daemon(ctx: Context, engine: Engine | None) -> dict[str, Any]:
    """What `nvidia-ctk runtime configure` would set, merged: a runtime entry that is there already is kept, and so are other `features`."""
    keys: dict[str, Any] = {}
    try:
        there = daemonjson.parse(ctx.facts.daemon_json or "")
    except daemonjson.Malformed:
        there = {}
    runtimes = there.get("runtimes")
    entry = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    if not (isinstance(entry, dict) and str(entry.get("path", "")).rsplit("/", maxsplit=1)[-1] == RUNTIME):
        keys["runtimes"] = {"nvidia": {"args": [], "path": RUNTIME}}
    else:
        keys["runtimes"] = {"nvidia": entry}
    if ctx.spec.toolkit.default_runtime:
        keys["default-runtime"] = "nvidia"
    # CDI is on by default from 28.2; from 25.0 on it can be switched on. Source: moby cmd/dockerd at v28.1.1 and v28.2.0.
    if engine and engine.version and engine.at_least(25) and not engine.at_least(28, 2):
        keys["features"] = {"cdi": True}
    return keys


def cdi_usable(engine: Engine | None) -> bool:
    """Whether the engine takes `--device nvidia.com/gpu=…`."""
    return bool(engine and engine.at_least(25))


def _cdi(ctx: Context, engine: Engine | None) -> tuple[Item, ...]:
    facts = ctx.facts
    if not cdi_usable(engine):
        return ()
    driver = facts.nvidia.driver_version if facts.nvidia else ""
    specs = facts.toolkit.cdi_specs
    expected = {"spec": "present", "driver": driver}
    fitting = [path for path, version in specs.items() if not driver or not version or version == driver]
    if fitting and facts.toolkit.version:
        return (Item("toolkit/cdi", STEP, "command", OK, f"{fitting[0]} describes the GPUs", expected, expected, phase=SERVICES),)
    stale = next(iter(specs), "")
    why = f"{stale} was made for another driver" if stale else "Docker finds GPUs through a CDI spec"
    check = "false" if stale else CDI_CHECK
    return (
        Item(
            "toolkit/cdi",
            STEP,
            "command",
            CHANGE,
            why,
            expected,
            {"spec": stale, "driver": specs.get(stale, "")},
            Command(check if not stale else f"grep -q -F -- '{driver}' {stale}", CDI_CHANGE),
            phase=SERVICES - 1,
        ),
    )
