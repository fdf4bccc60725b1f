"""The proof: a container that runs, and sees exactly the GPUs the machine has. A proof holds while what it was made with is unchanged."""

from __future__ import annotations

import re
from dataclasses import replace

from provision import cudafit
from provision.actions import Smoke
from provision.model import CHANGE, LATER, Decision, Facts, Item, Problem
from provision.steps import PROOF, Context, Result, plural, refused, settled
from provision.steps.driver import Driver
from provision.steps.engine import Engine
from provision.steps.toolkit import cdi_usable

STEP = "smoke"


def inputs(facts: Facts, smoke: Smoke) -> dict[str, str]:
    """What a proof depends on, in the words of the host's proof file (scripts/actions/smoke.sh writes it)."""
    nvidia = facts.nvidia
    return {
        "image": smoke.image,
        "gpus": str(smoke.gpus),
        "request": smoke.request,
        "kernel": facts.kernel or "",
        "docker": (facts.docker.server or "") if facts.docker else "",
        "driver": (nvidia.driver_version or nvidia.loaded) if nvidia and smoke.gpus else "",
        "toolkit": facts.toolkit.version if smoke.gpus else "",
        "daemon_json": facts.daemon_json_sha256,
    }


def action(ctx: Context, engine: Engine, driver: Driver, toolkit_there: bool) -> Smoke:
    """The container to run, and by which path it asks for the GPUs."""
    if driver.state == "none" or not toolkit_there:
        return Smoke(ctx.spec.smoke.image, 0)
    return Smoke(ctx.spec.smoke.image, driver.count, "cdi" if cdi_usable(engine) else "gpus")


def decide(ctx: Context, engine: Engine | None, driver: Driver, toolkit_there: bool, changing: tuple[str, ...] = ()) -> Result:
    """Whether the proof on the host still holds. `changing` are the ids of items that this plan changes and a proof depends on."""
    image = {"image": ctx.spec.smoke.image}
    if not ctx.spec.smoke.enabled:
        return Result(decisions={STEP: Decision("skip", "the playbook asks for no proof", image)})
    if engine is None:
        why = "there is no engine to run it"
        return Result((Item("smoke/container", STEP, "smoke", LATER, why, phase=PROOF),), {STEP: Decision("skip", why, image)})
    smoke = action(ctx, engine, driver, toolkit_there)
    wanted, proof = inputs(ctx.facts, smoke), ctx.facts.proof
    differs = [key for key, value in wanted.items() if proof.get(key, "") != value]
    what = _claim(ctx, smoke)
    if proof and not differs and not changing:
        why = f"proved {proof.get('time', 'before')}: {what}"
        item = settled(STEP, "smoke/container", "smoke", why, wanted, PROOF)
        kept = Decision("keep", f"proved {proof.get('time', 'before')}, and nothing it depends on has changed", image)
        # `verify` proves anew, by the same action.
        return Result((replace(item, action=smoke),), {STEP: kept})
    problem = _unfit(smoke, driver)
    if problem:
        item = refused(STEP, "smoke", problem, PROOF)
        return Result((item,), {STEP: Decision("refuse", problem.message, image)}, (problem,))
    if not proof:
        why = f"to prove that {what}"
    elif changing:
        why = f"to prove anew that {what}, after what this plan changes"
    else:
        why = f"{', '.join(differs)} changed since the last proof"
    actual = {key: proof.get(key, "") for key in wanted}
    change = Item("smoke/container", STEP, "smoke", CHANGE, why, wanted, actual, smoke, phase=PROOF)
    return Result((change,), {STEP: Decision("run", why, image)})


def _unfit(smoke: Smoke, driver: Driver) -> Problem | None:
    """Why the image cannot run with the driver, as far as its tag tells which CUDA it was built with. What its own variables ask for is known later."""
    tag = re.search(r"(?:^|/)cuda:(\d+\.\d+(?:\.\d+)?)(?:-|@|$)", smoke.image)
    if not smoke.gpus or tag is None or not driver.version or cudafit.cuda_fit(driver.version, tag[1]):
        return None
    newest = cudafit.native_cuda(driver.version)
    message = f"{smoke.image} is built with CUDA {tag[1]}, which driver {driver.version} does not run."
    fix = f"Name an image with CUDA {newest} or older (`smoke.image`), or `embedded`; or a newer branch (`driver.branch`)."
    return Problem("smoke/image", message, fix)


def _claim(ctx: Context, smoke: Smoke) -> str:
    if smoke.gpus:
        return f"nvidia-smi in a container sees {plural(smoke.gpus, 'GPU')}"
    if ctx.facts.gpus and ctx.spec.gpu != "ignore":
        return "a container runs (without GPUs, as the driver or the toolkit is missing)"
    return "a container runs (there is no GPU to show)" if ctx.facts.nvidia_pci == () else "a container runs"
