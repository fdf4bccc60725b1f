"""Images from one Docker to another: here to there, there to here, or from host to host through this machine, packed all the way, and nowhere in a file.

Layers that the other side has are left out where that is certain to work: Docker's own image store looks a layer up by its chain id before it opens its
file (github.com/moby/moby, image/tarexport/load.go). containerd's store does not, so that with it everything is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from provision.errors import Failed, Unreachable
from provision.images.archive import chain_ids
from provision.shipping import engine, load, pipes, remote
from provision.shipping.gauge import Gauge, megabytes
from provision.shipping.save import checked
from provision.shipping.save import source as local_source
from provision.transport import SshOptions, Transport


@dataclass(frozen=True)
class End:
    """One end of a copy: None is this machine; else the target for ssh, its options, and what opens a transport to it."""

    target: str
    options: SshOptions
    open: Callable[[], Transport]


@dataclass(frozen=True)
class Copied:
    """What came of it for one target: bytes on the wire, layers sent and left out, and each image's id there. `sent` is 0 where all was there."""

    host: str
    sent: int
    layers: int
    skipped: int
    images: tuple[tuple[str, str], ...]


def copy(names: Sequence[str], source: End | None, target: End | None, gauge: Gauge, retries: int = 1, level: int = 3) -> Copied:
    """Copy images. A lost connection is tried again, from what has arrived by then. Raises NoDocker, NoSuchImage, Unreachable, Failed."""
    for attempt in range(retries + 1):
        try:
            return _copy(names, source, target, gauge, level)
        except Unreachable as error:
            if attempt == retries:
                raise
            gauge.note(f"{error.message} Trying again.")
    raise AssertionError("the loop returns or raises")


def _copy(names: Sequence[str], source: End | None, target: End | None, gauge: Gauge, level: int) -> Copied:
    with contextlib.ExitStack() as stack:
        giver, taker = (stack.enter_context(end.open()) if end else None for end in (source, target))
        there = remote.look(giver, names) if giver else None
        if there and there.absent:
            raise engine.NoSuchImage(f"{there.name}: Docker has no such image: {', '.join(there.absent)}", "See `docker images` there.")
        images = there.images if there else engine.images(names)
        host = taker.name if taker else "this machine"
        wanted = [image.asked for image in images]
        got = remote.look(taker, wanted) if taker else _here(wanted)
        if _same(images, got):
            return Copied(host, 0, 0, len({d for image in images for d in image.diff_ids}), tuple((i.asked, i.id) for i in images))
        without = _known(images, there, got)
        skipped = tuple(dict.fromkeys(d for image in images for d, c in zip(image.diff_ids, chain_ids(image.diff_ids)) if c in without))
        all_layers = {d for image in images for d in image.diff_ids}
        size = sum(image.size for image in images)
        if 0 <= got.space < size and not without:
            raise Failed(f"{host}: {megabytes(size)} are to come, and {megabytes(got.space)} are free where Docker keeps images.", "Make room: `docker system prune` there.")
        gauge.begin(f"{there.name if there else 'this machine'} to {host}", 0)
        if skipped:
            gauge.note(f"{len(skipped)} of {len(all_layers)} layers are there already")
        packing = remote.common(there, got) if there or target else "tar"
        chunks = _from_there(source, there, images, packing, skipped, level) if source and there else _from_here(images, packing, without, level, gauge)
        counter = _Counted(chunks, gauge)
        if target and taker:
            _into_there(target, got, packing, counter, host)
            got = remote.look(taker, wanted)
        else:
            pieces = iter(counter)
            load.into_docker(pipes.through(pieces, pipes.packing(packing).unpack, "Unpacking"))
            got = _here(wanted)
        if not _same(images, got):
            raise Failed(f"{host}: Docker took the archive, but the images there are not the ones that were sent.", "Something else tagged them meanwhile; run the same command again.")
        return Copied(host, counter.size, len(all_layers) - len(skipped), len(skipped), tuple((image.asked, image.id) for image in got.images))


class _Counted:
    def __init__(self, chunks: Iterator[bytes], gauge: Gauge) -> None:
        self._chunks, self._gauge, self.size = chunks, gauge, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._chunks:
            self.size += len(piece)
            self._gauge.moved(len(piece))
            yield piece


def _here(names: Sequence[str]) -> remote.There:
    """This machine as an end."""
    import json

    about = engine.about()
    ids = sorted(set(engine.call("image", "ls", "--no-trunc", "-q").split()))
    rows = engine.call("image", "inspect", "--format", "{{json .RootFS.Layers}}", *ids).splitlines() if ids else []
    found, absent = [], []
    for name in names:
        try:
            found.append(engine.images([name])[0])
        except engine.NoSuchImage:
            absent.append(name)
    chains = frozenset(chain for row in rows for chain in chain_ids(json.loads(row) or []))
    return remote.There("this machine", "docker", about, frozenset(), -1, tuple(found), tuple(absent), chains)


def _same(images: Sequence[engine.Image], got: remote.There) -> bool:
    """Whether a Docker has just these images under these names: the same ids, or with another kind of store the same layers."""
    by_name = {image.asked: image for image in got.images}
    pairs = [(image, by_name.get(image.asked)) for image in images]
    return all(other is not None and (image.id == other.id or (got.about.containerd_store and image.diff_ids == other.diff_ids)) for image, other in pairs)


def _known(images: Sequence[engine.Image], there: remote.There | None, got: remote.There) -> frozenset[str]:
    """The chain ids that need not be sent."""
    if got.about.containerd_store or (there and (there.about.containerd_store or "gnutar" not in there.tools or remote.major(there.about.version) < 25)):
        return frozenset()
    every = {image.diff_ids: chain_ids(image.diff_ids) for image in images}
    known = frozenset(chain for chains in every.values() for chain in chains if chain in got.chains)
    # In an archive a layer has one place, whatever it stands upon: it is left out only if that suits every image that has it.
    needed = {d for diff_ids, chains in every.items() for d, chain in zip(diff_ids, chains) if chain not in known}
    return frozenset(chain for diff_ids, chains in every.items() for d, chain in zip(diff_ids, chains) if chain in known and d not in needed)


def _from_here(images: Sequence[engine.Image], packing: str, without: frozenset[str], level: int, gauge: Gauge) -> Iterator[bytes]:
    from provision.shipping.gauge import Silent

    found = local_source(images, engine.about(), gauge, without=without)
    packed = pipes.packing(packing, level)
    return pipes.through(checked(found.chunks, images, Silent()), packed.pack, packed.program)


def _from_there(
    source: End, there: remote.There, images: Sequence[engine.Image], packing: str, skipped: Sequence[str], level: int
) -> Iterator[bytes]:
    program = pipes.Program(remote.ssh(source.target, source.options, remote.sending(there, images, packing, skipped, level)), stdin=False)
    try:
        yield from pipes.read_all(program.out)
        code = program.wait()
        if code or "docker save failed" in program.said():
            raise remote.lost(program, code, there.name, "sending")
    finally:
        program.end()


def _into_there(target: End, got: remote.There, packing: str, chunks: _Counted, host: str) -> None:
    program = pipes.Program(remote.ssh(target.target, target.options, remote.taking(got, packing)))
    try:
        try:
            for piece in chunks:
                program.write(piece)
        except BrokenPipeError:
            program.no_more()
            raise remote.lost(program, program.wait(), host, "loading") from None
        program.no_more()
        for _ in pipes.read_all(program.out):
            pass
        code = program.wait()
        if code:
            raise remote.lost(program, code, host, "loading")
    finally:
        program.end()
