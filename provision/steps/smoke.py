"""The proof: a container that runs, and sees exactly the GPUs the machine has. A proof holds while what it was made with is unchanged."""

from __future__ import annotations

from provision.actions import Smoke
from provision.model import CHANGE, LATER, OK, Decision, Facts, Item
from provision.steps import PROOF, Context, Result
from provision.steps.docker import Engine
from provision.steps.driver import Driver
from provision.steps.toolkit import cdi_usable

STEP = "smoke"


def inputs(facts: Facts, image: str, gpus: int) -> dict[str, str]:
    """What a proof depends on, as the host's proof file records it."""
    nvidia = facts.nvidia
    return {
        "image": image,
        "docker": (facts.docker.server or "") if facts.docker else "",
        "driver": (nvidia.driver_version or nvidia.loaded) if nvidia and gpus else "",
        "toolkit": facts.toolkit.version if gpus else "",
        "daemon_json": facts.daemon_json_sha256,
        "kernel": facts.kernel or "",
        "gpus": str(gpus),
    }


def action(ctx: Context, engine: Engine | None, driver: Driver) -> Smoke:
    """The container to run, and by which path it asks for the GPUs."""
    count = driver.count if driver.state != "none" else 0
    request = "" if not count else "cdi" if cdi_usable(engine) else "gpus"
    return Smoke(ctx.spec.smoke.image, count, request)


def decide(ctx: Context, engine: Engine | None, driver: Driver, toolkit_there: bool) -> Result:
    """Whether the proof on the host still holds."""
    image = ctx.spec.smoke.image
    if not ctx.spec.smoke.enabled:
        return Result(decisions={STEP: Decision("skip", "the playbook asks for no proof", {"image": image})})
    if engine is None:
        item = Item("smoke/container", STEP, "smoke", LATER, "there is no engine to run it", phase=PROOF)
        return Result((item,), {STEP: Decision("skip", "there is no engine to run it", {"image": image})})
    smoke = action(ctx, engine, driver)
    if smoke.gpus and not toolkit_there:
        smoke = Smoke(image, 0)
    wanted = inputs(ctx.facts, image, smoke.gpus)
    proof = ctx.facts.proof
    differs = [key for key, value in wanted.items() if proof.get(key, "") != value]
    what = (
        f"nvidia-smi in a container sees {smoke.gpus} GPU{'s' if smoke.gpus != 1 else ''}"
        if smoke.gpus
        else "a container runs (there is no GPU to show)"
    )
    if proof and not differs:
        return Result(
            (
                Item(
                    "smoke/container",
                    STEP,
                    "smoke",
                    OK,
                    f"proved {proof.get('time', '')}: {what}",
                    wanted,
                    wanted,
                    smoke,
                    phase=PROOF,
                ),
            ),
            {STEP: Decision("keep", f"proved {proof.get('time', '')}, and nothing it depends on has changed", {"image": image})},
        )
    why = f"to prove that {what}" if not proof else f"{', '.join(differs)} changed since the last proof"
    return Result(
        (Item("smoke/container", STEP, "smoke", CHANGE, why, wanted, {k: proof.get(k, "") for k in wanted}, smoke, phase=PROOF),),
        {STEP: Decision("run", why, {"image": image})},
    )
