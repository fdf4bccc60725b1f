"""Building: with BuildKit where its client is there, else with the classic builder; in a reproducible way where that is asked for.

A reproducible build is done in four parts. What is needed is pulled, by digest. The stage named `fetch`, if there is one, is built with a network. The
rest is built without one (`--network=none`), without cache, with SOURCE_DATE_EPOCH, from a copy of the context whose modes depend on no umask. At last the
layers that were added are written anew with no time after that (provision/images/layers.py), as the classic builder cannot, and Docker loads the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from provision.errors import Failed, UsageError
from provision.images import archive, compare, layers, normal, tarstream
from provision.images.dockerfile import Stage, outside, with_stage_from
from provision.report.sanitize import block
from provision.shipping import context, engine, load
from provision.shipping.gauge import Gauge
from provision.shipping.parts import SPOOL, Parts

FETCH = "fetch"


@dataclass(frozen=True)
class Wanted:
    """What is to be built: the context's folder, the Dockerfile's text and stages, the tag, `--build-arg`s, the moment for SOURCE_DATE_EPOCH, the target stage."""

    folder: str
    text: str
    stages: tuple[Stage, ...]
    tag: str
    arguments: Mapping[str, str]
    epoch: int
    buildkit: bool
    target: str = ""
    quiet: bool = False


@dataclass
class Normal:
    """A built image after its times were taken out: its id and config, and the layers that were added, with their rewritten tars."""

    id: str
    config: dict[str, Any]
    raw: bytes
    base: int
    added: list[layers.Layer]
    files: list[IO[bytes]]

    def close(self) -> None:
        for file in self.files:
            file.close()


def has_buildkit() -> bool:
    """Whether Docker's client can build with BuildKit: it has buildx."""
    if os.environ.get("DOCKER_BUILDKIT") == "0":
        return False
    return subprocess.run(engine.ours("buildx", "version"), capture_output=True, check=False).returncode == 0


def command(wanted: Wanted, folder: str, dockerfile: str, tag: str, *, no_cache: bool = False, network: str = "", target: str = "") -> tuple[str, ...]:
    """The words of one `docker build`."""
    words = ["buildx", "build", "--load", "--provenance=false", "--progress=plain"] if wanted.buildkit else ["build"]
    words += ["-f", dockerfile, "-t", tag]
    words += [word for name, value in wanted.arguments.items() for word in ("--build-arg", f"{name}={value}")]
    words += ["--build-arg", f"SOURCE_DATE_EPOCH={wanted.epoch}"] if wanted.epoch >= 0 else []
    words += [f"--network={network}"] if network else []
    words += ["--no-cache"] if no_cache else []
    goal = target or wanted.target
    words += ["--target", goal] if goal else []
    return (*words, "--", folder)


def run(wanted: Wanted, words: Sequence[str], offline: bool = False) -> None:
    """Run one `docker build`; its output goes to standard error, and with `quiet` only into the error. Raises Failed."""
    env = {**os.environ, "DOCKER_BUILDKIT": "1" if wanted.buildkit else "0"}
    out = subprocess.PIPE if wanted.quiet else sys.stderr.fileno()
    done = subprocess.run(
        engine.ours(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT if wanted.quiet else out, env=env, check=False
    )
    if done.returncode:
        said = block((done.stdout or b"").decode("utf-8", "replace")[-2000:].strip(), 2000) if wanted.quiet else ""
        what = " The build proper has no network: what it needs belongs into a stage named `fetch`, or into the context." if offline else ""
        raise Failed(f"The build failed (exit {done.returncode}).{' It said: ' + said if said else ''}", f"{'' if wanted.quiet else 'What it said is above.'}{what}".strip())


def reproducible(wanted: Wanted, gauge: Gauge, check: bool = False) -> tuple[str, tuple[compare.Difference, ...], tuple[str, ...]]:
    """Build so that the same inputs give the same image, and load it under its tag.

    Gives its id, what differed from a second build (with `check`), and compiled Python files that will be out of date. Raises Failed kinds.
    """
    _pull(wanted.stages, gauge)
    text, temporary = wanted.text, []
    try:
        if any(stage.name == FETCH for stage in wanted.stages):
            tag = f"mlhost-fetch:{secrets.token_hex(6)}"
            gauge.note("fetching, with a network")
            with context.staged(wanted.folder, text, SPOOL) as (folder, dockerfile):
                run(wanted, command(wanted, folder, dockerfile, tag, target=FETCH))
            temporary.append(tag)
            text = with_stage_from(wanted.text, FETCH, tag)
        first = _once(wanted, text, gauge, temporary)
        differences: tuple[compare.Difference, ...] = ()
        with contextlib.closing(first):
            if check:
                gauge.note("building a second time")
                with contextlib.closing(_once(wanted, text, gauge, temporary)) as second:
                    differences = _differences(first, second)
            _load(wanted, first, temporary[-1], gauge)
            stale = tuple(path for layer in first.added for path in layers.stamped(layer.entries))
        return first.id, differences, stale
    finally:
        for name in temporary:
            with contextlib.suppress(Failed):
                # The fetched stage stays as a cache; what was built without one is of no more use to anybody.
                engine.call("image", "rm", *(["--no-prune"] if name.startswith("mlhost-fetch:") else []), name)


def _pull(stages: Sequence[Stage], gauge: Gauge) -> None:
    """Have every base here before the network goes."""
    for name in dict.fromkeys(stage.base for stage in outside(stages)):
        try:
            engine.images([name])
        except engine.NoSuchImage:
            gauge.note(f"pulling {name}")
            engine.call("pull", "-q", name)


def _once(wanted: Wanted, text: str, gauge: Gauge, temporary: list[str]) -> Normal:
    tag = f"mlhost-build:{secrets.token_hex(6)}"
    gauge.note("building, without a network")
    with context.staged(wanted.folder, text, SPOOL) as (folder, dockerfile):
        run(wanted, command(wanted, folder, dockerfile, tag, no_cache=True, network="none"), offline=True)
    temporary.append(tag)
    with Parts(tag, gauge) as parts:
        return normalised(parts, _base_layers(wanted, parts.diff_ids), wanted.epoch, gauge)


def _base_layers(wanted: Wanted, diff_ids: Sequence[str]) -> int:
    """How many layers come from the image that the last stage is built on, at the end."""
    by_name = {stage.name: stage for stage in wanted.stages if stage.name}
    stage = by_name[wanted.target.lower()] if wanted.target else wanted.stages[-1]
    while stage.base.lower() in by_name and by_name[stage.base.lower()] is not stage:
        stage = by_name[stage.base.lower()]
    if stage.base == "scratch":
        return 0
    below = engine.images([stage.base])[0].diff_ids
    return len(below) if tuple(diff_ids[: len(below)]) == below else 0


def normalised(parts: Parts, base: int, epoch: int, gauge: Gauge) -> Normal:
    """The image without its build's times; its first `base` layers stay as they are."""
    gauge.note("taking the times out")
    added: list[layers.Layer] = []
    files: list[IO[bytes]] = []
    try:
        for diff_id in parts.diff_ids[base:]:
            file: IO[bytes] = tempfile.TemporaryFile(dir=SPOOL)  # noqa: SIM115 - closed with the result
            files.append(file)
            added.append(layers.rewritten(parts.layer(diff_id), file, epoch))
    except BaseException:
        for file in files:
            file.close()
        raise
    raw = normal.config(parts.config, [*parts.diff_ids[:base], *(layer.diff_id for layer in added)], epoch)
    return Normal(f"sha256:{tarstream.digest(raw)}", json.loads(raw), raw, base, added, files)


def _load(wanted: Wanted, image: Normal, built: str, gauge: Gauge) -> None:
    """Have Docker load the rewritten image under its tag. Layers of the base that Docker has already are not sent again, where its store allows that."""
    with Parts(built, gauge) as parts:
        all_ids = image.config["rootfs"]["diff_ids"]
        below = all_ids[: image.base] if engine.about().containerd_store else []

        def chunks() -> Iterator[bytes]:
            sent = set[str]()
            for diff_id in below:
                if diff_id not in sent:
                    yield tarstream.header(archive.blob_name(diff_id), parts.size(diff_id))
                    yield from parts.pieces(diff_id)
                    yield tarstream.padding(parts.size(diff_id))
                sent.add(diff_id)
            for layer, file in zip(image.added, image.files):
                if layer.diff_id in sent:
                    continue
                sent.add(layer.diff_id)
                yield tarstream.header(archive.blob_name(layer.diff_id), layer.size)
                file.seek(0)
                while piece := file.read(1 << 20):
                    yield piece
                yield tarstream.padding(layer.size)
            saved = archive.Saved(image.id, (wanted.tag,), tuple(archive.blob_name(d) for d in all_ids), tuple(all_ids))
            yield tarstream.joined(
                [tarstream.member(archive.blob_name(image.id), image.raw), tarstream.member(archive.MANIFEST, archive.manifest([saved]))]
            )

        load.into_docker(chunks())


def _differences(first: Normal, second: Normal) -> tuple[compare.Difference, ...]:
    from provision.catalog import packaged

    if first.id == second.id:
        return ()
    hints = packaged("images")["varies"]
    found = list(compare.configs(first.config, second.config))
    for number, pair in enumerate(zip(first.added, second.added), first.base + 1):
        if pair[0].diff_id != pair[1].diff_id:
            found += compare.layers(number, pair[0].entries, pair[1].entries, hints)
    if len(first.added) != len(second.added):
        found.append(compare.Difference("image", "", f"{first.base + len(first.added)} and {second.base + len(second.added)} layers"))
    return tuple(found)


def differences(first: str, second: str, gauge: Gauge) -> tuple[bool, tuple[compare.Difference, ...]]:
    """Whether two images of this machine's Docker are one and the same, and what differs, times included. Raises Failed kinds."""
    from provision.catalog import packaged

    hints = packaged("images")["varies"]
    with Parts(first, gauge) as one, Parts(second, gauge) as other:
        if one.image.id == other.image.id:
            return True, ()
        found = list(compare.configs(one.config, other.config))
        for number, pair in enumerate(zip(one.diff_ids, other.diff_ids), 1):
            if pair[0] != pair[1]:
                gauge.note(f"comparing layer {number}")
                found += compare.layers(number, layers.listed(one.layer(pair[0])), layers.listed(other.layer(pair[1])), hints)
        if len(one.diff_ids) != len(other.diff_ids):
            found.append(compare.Difference("image", "", f"{len(one.diff_ids)} and {len(other.diff_ids)} layers"))
    return False, tuple(found)


def epoch_of(folder: str) -> tuple[int, str]:
    """The moment for SOURCE_DATE_EPOCH, and where it is from: the environment, the last commit, or 1980 (zip files know nothing earlier). Raises UsageError."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not given.isascii() or not given.isdigit() or len(given) > 11:
            raise UsageError(f"SOURCE_DATE_EPOCH={given!r} is no number of seconds since 1970.", "Unset it, or see reproducible-builds.org/specs/source-date-epoch.")
        return int(given), "SOURCE_DATE_EPOCH"
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "-C", folder, "log", "-1", "--format=%ct", "--", "."], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip().isdigit():
            return int(done.stdout), "the last commit"
    return 315532800, "no commit to take it from"
