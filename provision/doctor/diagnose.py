"""`diagnose`: from what is known of a host, and what somebody saw, to the failures that explain it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Union

from provision.doctor.failures import LAYERS, Failure
from provision.doctor.layers import LayerState, states
from provision.doctor.seen import Seen
from provision.doctor.texts import Text
from provision.redaction import scrub

Answer = Union[str, bool, None]
"""What a predicate says: a sentence of evidence where it holds, False where it does not, None where that is unknown."""

CONFIRMED, POSSIBLE = "confirmed", "possible"


@dataclass(frozen=True)
class Finding:
    """A known failure that explains what is seen. `explains`: also what the user saw. `evidence`: lines and facts, as they are.

    `certainty`: confirmed by what the host shows (or by a text that has one cause only), or possible: the text fits, and the host could not
    be asked which of the text's causes it is.
    """

    failure: Failure
    certainty: str
    evidence: tuple[str, ...]
    explains: bool


@dataclass(frozen=True)
class Diagnosis:
    """The findings, the one to begin with first, and how every layer is."""

    host: str
    findings: tuple[Finding, ...]
    layers: tuple[LayerState, ...] = ()
    asked: bool = False
    looked: bool = True
    unknown: tuple[str, ...] = field(default=())

    @property
    def explained(self) -> bool:
        """Whether what the user saw is explained."""
        return any(finding.explains for finding in self.findings)


def diagnose(seen: Seen | None, given: Text | None, failures: Sequence[Failure], checks: Mapping[str, Callable[[Seen], Answer]]) -> Diagnosis:
    """Every known failure that fits. `seen` None: only the text is there. `given` None: nobody saw anything, only the host is looked at.

    A text of now counts unless the host contradicts it. A line of a log, which may be old, counts only while what it tells of is broken.
    """
    answers: dict[str, Answer] = {}

    def ask(name: str) -> Answer:
        if seen is None:
            return None
        if name not in answers:
            answers[name] = checks[name](seen)
        return answers[name]

    found: list[Finding] = []
    for failure in failures:
        said = [ask(name) for name in failure.check]
        if any(answer is False for answer in said):
            continue
        holds = seen is not None and bool(failure.check) and all(said)
        line = given.find(failure.signature) if given else ""
        shown = [] if line else _shown(seen, failure)
        if not line and not shown and not (failure.alone and holds):
            continue
        evidence = [line] if line else shown
        evidence += [answer for answer in said if isinstance(answer, str)]
        sure = holds or (bool(line or shown) and not failure.check and not (failure.fallback and seen is None))
        lines = tuple(dict.fromkeys(scrub(part) for part in evidence))
        found.append(Finding(failure, CONFIRMED if sure else POSSIBLE, lines, bool(line)))
    found = _without_fallbacks(found, looked=seen is not None)
    found.sort(key=lambda f: (not f.explains, f.certainty != CONFIRMED, LAYERS.index(f.failure.layer)))
    layers = states(seen, {f.failure.layer: f.failure.title for f in reversed(found) if f.certainty == CONFIRMED}) if seen else ()
    return Diagnosis(seen.facts.host if seen else "", tuple(found), layers, given is not None, seen is not None, seen.facts.unknown if seen else ())


def _shown(seen: Seen | None, failure: Failure) -> list[str]:
    """The host's own line that says so."""
    if seen is None or not failure.signature:
        return []
    for text in seen.texts:
        if text.current:
            line = text.find(failure.signature)
            if line:
                return [f"{text.name}: {line}"]
    return []


_GPU = ("pci", "kernel-module", "device-nodes", "nvidia-smi")


def _without_fallbacks(found: list[Finding], looked: bool) -> list[Finding]:
    """On a host, what is not confirmed goes where something confirmed explains the same line; and a fallback where anything else does.

    A fallback that the host alone shows goes where something else is found in its layer (the GPU's are one), which is then what it stands for.
    """

    def same(one: Finding, other: Finding) -> bool:
        if one.explains or other.explains:
            return one.explains is other.explains and one.evidence[0] == other.evidence[0]
        layers = (one.failure.layer, other.failure.layer)
        return layers[0] == layers[1] or all(layer in _GPU for layer in layers)

    own = [f for f in found if not f.failure.fallback]
    sure = [f for f in own if f.certainty == CONFIRMED]
    found = [f for f in found if f.certainty == CONFIRMED or not looked or not any(s.explains and same(f, s) for s in sure)]

    def yields(one: Finding) -> bool:
        better = sure if one.failure.check and one.certainty == CONFIRMED else own
        # What no text names at all is the last to be told.
        others = [*better, *(f for f in found if f.failure.signature)] if not one.failure.signature else better
        return any(other is not one and other in found and same(one, other) for other in others)

    return [f for f in found if not f.failure.fallback or not yields(f)]
