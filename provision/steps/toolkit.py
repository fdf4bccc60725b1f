"""The NVIDIA Container Toolkit: one repository, four packages at one version, Docker's runtime registered, CDI specs there."""

from __future__ import annotations

from typing import Any

from provision.actions import Command, Package, Packages
from provision.model import CHANGE, Decision, Facts, Item, Notice, Problem
from provision.rows import Repository
from provision.steps import PACKAGES, SERVICES, Context, Result, daemon, nodes, refused, repository, settled
from provision.steps.driver import Driver
from provision.steps.engine import Engine, numbers, satisfies, there, upstream

STEP = "toolkit"
# Since 1.18 the four depend on each other's exact version. Source: NVIDIA/nvidia-container-toolkit packaging/debian/control.
PACKAGES_AT_ONE_VERSION = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
RUNTIME = "nvidia-container-runtime"
# Docker prefers a spec in /var/run/cdi to one of the same devices in /etc/cdi. A spec names the files of one driver version.
CDI_CHECK = r"""nvidia-ctk cdi list 2>/dev/null | grep -q '^nvidia[.]com/gpu=' || exit 1
driver=$(cat /sys/module/nvidia/version 2>/dev/null)
for spec in /var/run/cdi/nvidia.yaml /etc/cdi/nvidia.yaml; do
    [ -f "$spec" ] || continue
    made=$(sed -n -e 's/.*libcuda[.]so[.]\([0-9][0-9]*[.][0-9.]*\).*/\1/p' -e 's/.*libnvidia-ml[.]so[.]\([0-9][0-9]*[.][0-9.]*\).*/\1/p' "$spec" | head -n 1)
    [ -z "$made" ] || [ -z "$driver" ] || [ "$made" = "$driver" ]
    exit
done"""
CDI_CHANGE = """\
if [ -d /run/systemd/system ] && systemctl cat nvidia-cdi-refresh.service >/dev/null 2>&1; then
    systemctl restart nvidia-cdi-refresh.service || exit 1
else
    mkdir -p /var/run/cdi && nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml || exit 1
fi"""


def decide(ctx: Context, engine: Engine | None, driver: Driver) -> Result:
    """The toolkit's items, and the daemon.json keys Docker needs for it."""
    if not driver.count or driver.state == "none":
        return Result(decisions={STEP: Decision("skip", _idle(ctx), _details("", (), None))})
    spec, facts = ctx.spec.toolkit, ctx.facts
    have = upstream(there(facts, "nvidia-container-toolkit")) or facts.toolkit.version
    if spec.install == "never":
        why = f"the playbook leaves the toolkit alone ({have or 'not installed'})"
        keys = _daemon(ctx, engine) if have else {}
        return Result(decisions={STEP: Decision("skip", why, _details(have, (), None))}, daemon=keys)
    vendor = repository.of(ctx, "toolkit")
    names = _names(ctx, driver, vendor)
    short = _short(ctx, have, vendor, names)
    if not short:
        return _kept(ctx, engine, have, vendor)
    if vendor is None and names == PACKAGES_AT_ONE_VERSION:
        message = f"NVIDIA's toolkit repository has nothing for {ctx.platform.id} {ctx.platform.version} on {ctx.platform.arch}."
        return _refusal(message, "Install the toolkit by hand and use `--set toolkit.install=never`.", have)
    if spec.version and spec.version in ctx.platform.toolkit_avoid:
        message = f"Toolkit {spec.version}, which the playbook pins, cannot be installed on {ctx.platform.name}: its packages are compressed in a way that rpm there does not know."
        return _refusal(message, f"Set `toolkit.version` to {vendor.newest!r} (or drop it)." if vendor else "Drop `toolkit.version`.", have)
    if have and spec.version and numbers(have) > numbers(spec.version) and not satisfies(have, spec.version):
        message = (
            f"Toolkit {have} is installed, the playbook pins {spec.version}, which is older; mlhost does not downgrade by itself."
        )
        return _refusal(message, "Set `toolkit.version` to what is there (or drop it).", have)
    return _installed(ctx, engine, short, vendor, names)


def _names(ctx: Context, driver: Driver, vendor: Repository | None) -> tuple[str, ...]:
    """The packages: the distribution's own where the driver is the distribution's too, as the two are made to fit there; else NVIDIA's."""
    own = ctx.platform.toolkit_distro
    if own and not ctx.spec.toolkit.version and (driver.source == "distro" or vendor is None):
        return own
    return PACKAGES_AT_ONE_VERSION


def _idle(ctx: Context) -> str:
    if ctx.spec.gpu == "ignore":
        return "the playbook asks for a Docker host only"
    if ctx.facts.nvidia_pci is None:
        return "whether there is an NVIDIA GPU is not known"
    return "there will be no working driver" if ctx.facts.gpus else "there is no NVIDIA GPU"


def _details(version: str, packages: tuple[str, ...], repo: Repository | None) -> dict[str, object]:
    return {"version": version or None, "packages": list(packages), "repository": repository.details(repo) if repo else None}


def _refusal(message: str, fix: str, have: str) -> Result:
    problem = Problem("toolkit/packages", message, fix)
    decision = Decision("refuse", message, _details(have, (), None))
    return Result((refused(STEP, "packages", problem, PACKAGES),), {STEP: decision}, (problem,))


def _short(ctx: Context, have: str, vendor: Repository | None, names: tuple[str, ...]) -> str:
    """Why what is installed does not do; "" if it does."""
    wanted = ctx.spec.toolkit.version
    if not have:
        return "containers need it to see the GPUs"
    versions = {name: there(ctx.facts, name) for name in names}
    if any(versions.values()) and not all(versions.values()):
        return f"{', '.join(n for n, v in versions.items() if not v)} of it is missing"
    if len(set(versions.values())) > 1:
        return "its packages are at different versions, which it does not work with"
    if not satisfies(have, wanted):
        return f"{have} is installed, the playbook wants {wanted}"
    if vendor and have in vendor.avoid and not wanted:
        return f"{have} is installed, a release known to be broken"
    return ""


def _kept(ctx: Context, engine: Engine | None, have: str, vendor: Repository | None) -> Result:
    why = f"toolkit {have} is installed" + (f" and satisfies {ctx.spec.toolkit.version}" if ctx.spec.toolkit.version else "")
    items = [settled(STEP, "toolkit/packages", "packages", why, {"version": have}, PACKAGES)]
    source = repository.kept(ctx, vendor, STEP) if vendor else None
    if source:
        items.insert(0, source)
    notices = list(_insecure(ctx, have, vendor))
    old = _legacy(ctx.facts, vendor)
    if old:
        text = (
            f"{', '.join(old)} is no longer needed. Remove it without purging it: a purge of nvidia-docker2 deletes daemon.json."
        )
        notices.append(Notice("toolkit/legacy", text))
    if ctx.facts.toolkit.no_cgroups:
        text = "no-cgroups is set in /etc/nvidia-container-runtime/config.toml, for rootless Docker; the root daemon's containers may not get their GPUs."
        notices.append(Notice("toolkit/no-cgroups", text))
    details = _details(have, PACKAGES_AT_ONE_VERSION if there(ctx.facts, STEP_PACKAGE) else (), vendor if source else None)
    return Result(
        (*items, *nodes.decide(ctx), *_cdi(ctx, engine)),
        {STEP: Decision("keep", why, details)},
        notices=tuple(notices),
        daemon=_daemon(ctx, engine),
        urls=(vendor.index_url,) if vendor and source and source.state == CHANGE else (),
    )


def _insecure(ctx: Context, version: str, vendor: Repository | None) -> tuple[Notice, ...]:
    """What is to be said of an old toolkit: there is a newer one, or none for this system."""
    if not vendor or not vendor.minimum or numbers(version) >= numbers(vendor.minimum):
        return ()
    text = f"Toolkit {version} has known container escapes; {vendor.minimum} or newer is advised (`--set toolkit.version={vendor.newest}`)."
    if numbers(vendor.newest) < numbers(vendor.minimum):
        text = (
            f"Toolkit {version} has known container escapes, and {vendor.newest} is the last that NVIDIA published for {ctx.platform.name}: "
            "run only images that you trust, or upgrade the system."
        )
    return (Notice("toolkit/insecure", text),)


STEP_PACKAGE = PACKAGES_AT_ONE_VERSION[0]


def _legacy(facts: Facts, vendor: Repository | None) -> tuple[str, ...]:
    return tuple(n for n in (vendor.legacy_packages if vendor else ()) if there(facts, n))


def _installed(ctx: Context, engine: Engine | None, why: str, vendor: Repository | None, names: tuple[str, ...]) -> Result:
    facts, version = ctx.facts, ctx.spec.toolkit.version
    glob = "" if not version else f"{version}-*" if len(numbers(version)) > 2 else f"{version}.*"
    packages = tuple(Package(name, glob) for name in names)
    source = vendor if names == PACKAGES_AT_ONE_VERSION else None
    why += "" if source else "; the distribution's own, as its driver is"
    remove = _legacy(facts, vendor)
    problems = []
    if remove and not ctx.spec.docker.remove_conflicts:
        problems.append(
            Problem(
                "toolkit/conflicts",
                f"{', '.join(remove)} is what the toolkit has replaced and would be removed (not purged).",
                "Allow it with `--yes` or `--set docker.remove_conflicts=true`.",
            )
        )
    items = (
        *([repository.item(ctx, source, STEP)] if source else []),
        Item(
            "toolkit/packages",
            STEP,
            "packages",
            CHANGE,
            why,
            {p.name: p.version or "any" for p in packages},
            {n: there(facts, n) for n in (*names, *remove) if there(facts, n)},
            Packages(packages, remove),
            phase=PACKAGES,
        ),
        *nodes.decide(ctx),
        *_cdi(ctx, engine),
    )
    action = "refuse" if problems else "install"
    decision = Decision(action, problems[0].message if problems else why, _details(version, names, source))
    # Docker looks for the hooks when it starts; those of an older toolkit it has found.
    restart = "" if facts.toolkit.hook or facts.toolkit.cdi_hook else "it looks for the NVIDIA toolkit only when it starts"
    return Result(
        items,
        {STEP: decision},
        tuple(problems),
        _insecure(ctx, version or vendor.newest, vendor) if vendor and ctx.platform.toolkit_newest else (),
        urls=(source.index_url,) if source else (),
        daemon=_daemon(ctx, engine),
        restart=restart,
    )


def _daemon(ctx: Context, engine: Engine | None) -> dict[str, Any]:
    """What `nvidia-ctk runtime configure` would set, merged: a runtime entry that is there already is kept, and so are other `features`."""
    keys: dict[str, Any] = {}
    runtimes = daemon.there(ctx.facts).get("runtimes")
    entry = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    kept = isinstance(entry, dict) and str(entry.get("path", "")).rsplit("/", maxsplit=1)[-1] == RUNTIME
    keys["runtimes"] = {"nvidia": entry if kept else {"args": [], "path": RUNTIME}}
    if ctx.spec.toolkit.default_runtime:
        keys["default-runtime"] = "nvidia"
    # CDI is on by default from 28.2; from 25.0 on it can be switched on. Source: moby cmd/dockerd at v28.1.1 and v28.2.0.
    if engine and engine.version and engine.at_least(25) and not engine.at_least(28, 2):
        keys["features"] = {"cdi": True}
    return keys


def cdi_usable(engine: Engine | None) -> bool:
    """Whether the engine takes `--device nvidia.com/gpu=…`."""
    return bool(engine and engine.at_least(25))


def _spec(facts: Facts) -> tuple[str, str]:
    """The CDI spec that Docker goes by and the driver it was made for, both "" if there is none."""
    found = {p: v for p, v in facts.toolkit.cdi_specs.items() if v or "nvidia" in p.rsplit("/", maxsplit=1)[-1]}
    ordered = sorted(found, key=lambda p: p.startswith("/etc/"))
    return (ordered[0], found[ordered[0]]) if ordered else ("", "")


def _cdi(ctx: Context, engine: Engine | None) -> tuple[Item, ...]:
    facts = ctx.facts
    if not cdi_usable(engine):
        return ()
    driver = (facts.nvidia.loaded or facts.nvidia.driver_version) if facts.nvidia else ""
    path, made = _spec(facts)
    expected = {"spec": "present", "driver": driver}
    if path and facts.toolkit.version and (not driver or not made or made == driver):
        return (settled(STEP, "toolkit/cdi", "command", f"{path} describes the GPUs", expected, SERVICES - 1),)
    why = f"{path} was made for driver {made}" if made and made != driver else "Docker finds GPUs through a CDI spec"
    actual = {"spec": path, "driver": made}
    action = Command(CDI_CHECK, CDI_CHANGE, undo=":", live=True)
    return (Item("toolkit/cdi", STEP, "command", CHANGE, why, expected, actual, action, phase=SERVICES - 1),)
