"""An image into a registry, by Docker's own client, and a look at what has arrived."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.errors import Failed
from provision.imageconfig import RegistryError, ask
from provision.shipping import engine, pipes
from provision.shipping.gauge import Gauge

_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")
_STATE = re.compile(r"^([0-9a-f]{12}): (Pushed|Layer already exists|Mounted from .*)$")


@dataclass(frozen=True)
class Pushed:
    """What was pushed: the name, its digest, layers sent and layers that were there, bytes in the registry (0: unknown), and whether it was asked for it."""

    name: str
    digest: str
    sent: int
    there: int
    size: int
    proof: str


def push(image: str, name: str, gauge: Gauge) -> Pushed:
    """Tag an image of this machine's Docker with `name`, push it, and ask the registry for its digest. Raises NoSuchImage, Failed."""
    found = engine.images([image])[0]
    engine.check_name(name)
    if name != image:
        engine.call("tag", found.id, name)
    gauge.begin(f"pushing {name}", 0)
    states: dict[str, str] = {}
    digest, rest = "", b""
    program = pipes.Program(engine.ours("push", name), stdin=False)
    try:
        for piece in pipes.read_all(program.out):
            *rows, rest = (rest + piece).split(b"\n")
            for row in rows:
                text = row.decode("utf-8", "replace").strip()
                state = _STATE.match(text)
                if state:
                    states[state[1]] = state[2]
                    gauge.note(f"  {text}")
                told = _DIGEST.search(text)
                digest = told[1] if told else digest
        if program.wait():
            raise _refused(program.said(), name)
    finally:
        program.end()
    if not digest:
        raise Failed(f"{name}: Docker told no digest of what it pushed.", "Push it again; see `docker push` for what it says.")
    sent = sum(state == "Pushed" for state in states.values())
    repository = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    try:
        size, proof = ask(f"{repository}@{digest}", found.arch).size, "the registry has it"
    except RegistryError as error:
        size, proof = 0, f"not asked for: {error.message}"
    return Pushed(name, digest, sent, len(states) - sent, size, proof)


def _refused(said: str, name: str) -> Failed:
    text = said.strip().splitlines()[-1] if said.strip() else "nothing"
    low = text.lower()
    if "denied" in low or "unauthorized" in low or "no basic auth" in low:
        return Failed(f"{name}: the registry does not let you push. It said: {text}", f"Run `docker login` for it; does the repository {name.rpartition(':')[0] or name} exist?")
    if "http response to https" in low:
        return Failed(f"{name}: the registry speaks no TLS. It said: {text}", "Name it in `docker.insecure_registries` of a playbook, if it may stay so.")
    return Failed(f"{name}: pushing failed. Docker said: {text}", "Run the same command again: layers that are there are not sent twice.")
