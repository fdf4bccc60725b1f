"""The proof: a container that runs, and sees exactly the GPUs the machine has. A proof holds while what it was made with is unchanged."""

from __future__ import annotations

import re
from dataclasses import replace

from provision import cudafit
from provision.actions import Smoke
from provision.cudafit import ImageConfig
from provision.model import CHANGE, LATER, Decision, Facts, Item, Plan, Problem
from provision.rows import version_key
from provision.steps import PROOF, Context, Result, gpus, refused, settled
from provision.steps.driver import Driver
from provision.steps.engine import Engine
from provision.steps.toolkit import cdi_usable

STEP = "smoke"


def inputs(facts: Facts, smoke: Smoke) -> dict[str, str]:
    """What a proof depends on, in the words of the host's proof file (scripts/actions/smoke.sh writes it)."""
    nvidia, parts = facts.nvidia, gpus.divided(facts)
    return {
        "image": smoke.image,
        "gpus": str(smoke.gpus),
        "request": smoke.request,
        "kernel": facts.kernel or "",
        "docker": (facts.docker.server or "") if facts.docker else "",
        "driver": (nvidia.driver_version or nvidia.loaded) if nvidia and smoke.gpus else "",
        "toolkit": facts.toolkit.version if smoke.gpus else "",
        "daemon_json": facts.daemon_json_sha256,
        **({"mig": str(parts)} if smoke.gpus and parts else {}),
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
    differs = [key for key in dict.fromkeys((*wanted, "mig")) if proof.get(key, "") != wanted.get(key, "")]
    what = _claim(ctx, smoke)
    if proof and not differs and not changing:
        why = f"proved {proof.get('time', 'before')}: {what}"
        item = settled(STEP, "smoke/container", "smoke", why, wanted, PROOF)
        kept = Decision("keep", f"proved {proof.get('time', 'before')}, and nothing it depends on has changed", image)
        # `verify` proves anew, by the same action.
        return Result((replace(item, action=smoke),), {STEP: kept})
    problem = _unfit(ctx, smoke, driver)
    if problem:
        item = refused(STEP, "smoke", problem, PROOF)
        return Result((item,), {STEP: Decision("refuse", problem.message, image)}, (problem,))
    if not proof:
        why = f"to prove that {what}"
    elif changing:
        why = f"to prove anew that {what}, after what this plan changes"
    else:
        why = f"{', '.join(differs)} changed since the last proof"
    why += _asked(ctx, smoke, driver)
    actual = {key: proof.get(key, "") for key in wanted}
    change = Item("smoke/container", STEP, "smoke", CHANGE, why, wanted, actual, smoke, phase=PROOF)
    return Result((change,), {STEP: Decision("run", why, image)})


def unasked(plan: Plan) -> str:
    """The image that a plan would have run with GPUs, and of which a registry can say what it needs; "" for none."""
    action = next((i.action for i in plan.items if i.step == STEP and i.state == CHANGE), None)
    return action.image if isinstance(action, Smoke) and action.gpus and action.image != "embedded" else ""


def _known(ctx: Context, smoke: Smoke) -> ImageConfig | None:
    """What a registry has said of the image to run; None where none was asked, or none answered."""
    image = ctx.image
    return image if image and smoke.gpus and image.reference == smoke.image and not image.error else None


def _unfit(ctx: Context, smoke: Smoke, driver: Driver) -> Problem | None:
    """Why there is nothing to see in a container, or why the image cannot run here."""
    empty = gpus.unusable(ctx.facts)
    if smoke.gpus and empty and len(empty) == len(ctx.facts.nvidia.gpus if ctx.facts.nvidia else ()):
        return Problem("smoke/mig", *gpus.undivided(empty))
    return misfit(ctx, smoke, driver.version) if smoke.gpus and driver.version else None


def misfit(ctx: Context, smoke: Smoke, version: str) -> Problem | None:
    """Why a driver of this version cannot serve the image, by what the image says of itself, else by what its tag tells of the CUDA that it was built with."""
    image = _known(ctx, smoke)
    if image and image.offered:
        message = f"{smoke.image} is not there for {ctx.facts.arch}, only for {' and '.join(image.offered)}."
        return Problem("smoke/image", message, "Name an image of several architectures, or one for this machine's (`smoke.image`), or `embedded`.")
    if image:
        need = cudafit.refused(image, version, [g.model.name for g in gpus.found(ctx)])
        wish = f"asks for {need.condition} ({need.variable})" if need else ""
        asked = re.search(r"cuda>=(\d+(?:\.\d+)*)", need.condition) if need else None
    else:
        tag = re.search(r"(?:^|/)cuda:(\d+\.\d+(?:\.\d+)?)(?:-|@|$)", smoke.image)
        asked = tag if tag and not cudafit.cuda_fit(version, tag[1]) else None
        wish = f"is built with CUDA {asked[1]}" if asked else ""
    if not wish:
        return None
    newest = cudafit.native_cuda(version)
    message = f"{smoke.image} {wish}, but driver {version} gives no more than CUDA {newest}."
    return Problem("smoke/image", message, f"Name an image for CUDA {newest} or older (`smoke.image`), or `embedded`{_newer(ctx, asked[1] if asked else '')}.")


def _newer(ctx: Context, cuda: str) -> str:
    """The other remedy, a driver that is new enough for a CUDA release; "" where the GPUs allow none, or none is known."""
    needed = ctx.catalog.min_driver_for_cuda(cuda)
    last = [ctx.catalog.generation(g.model.generation).last_branch for g in gpus.found(ctx)]
    if not needed or any(branch and version_key(branch) < version_key(needed)[:1] for branch in last):
        return ""
    return f"; or have driver {needed} or newer (`driver.branch`, with `driver.replace` where one works already)"


def _asked(ctx: Context, smoke: Smoke, driver: Driver) -> str:
    """For the reader of the plan: what the registry has said of the image, or why it could not be asked."""
    image = ctx.image
    if image is None or not smoke.gpus or image.reference != smoke.image:
        return ""
    if image.error:
        return f"; what the image needs could not be asked beforehand ({image.error.rstrip('.')}), so it shows once the host has pulled it"
    wants = " and ".join(text.split()[0] for name, text in sorted(cudafit.asked_by(image).items()) if text and name.startswith("NVIDIA_REQUIRE"))
    size = f", {image.size / 1e6:.0f} MB" if image.size else ""
    return f"; the image ({image.digest[:19]}{size}) asks for {wants or 'no CUDA in particular'}, which driver {driver.version} satisfies"


def _claim(ctx: Context, smoke: Smoke) -> str:
    if smoke.gpus:
        return f"nvidia-smi in a container sees {gpus.shown(ctx.facts, smoke.gpus - len(gpus.unusable(ctx.facts)))}"
    if ctx.facts.gpus and ctx.spec.gpu != "ignore":
        return "a container runs (without GPUs, as the driver or the toolkit is missing)"
    return "a container runs (there is no GPU to show)" if ctx.facts.nvidia_pci == () else "a container runs"
