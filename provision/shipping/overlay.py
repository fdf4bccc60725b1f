"""Layers read where Docker's overlay2 driver keeps them, instead of asking Docker for a copy of a copy.

`docker save` writes every layer to a temporary folder before it sends the first byte. Where this process may read Docker's folder, the same tar is put
together here from the same two parts that Docker takes it from: the layer's files, and its tar-split record, which holds every byte of the tar that
is not file content (github.com/vbatts/tar-split, tar/storage; github.com/moby/moby, layer/filestore.go). Docker's folder is only read, and nothing is
believed: a config must have the digest that is the image's id, and each layer must come out with the digest that the config names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from provision.errors import Failed
from provision.images import archive, tarstream
from provision.shipping.engine import About, Image

CHUNK = 1 << 20
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_CACHE_ID = re.compile(r"[0-9a-z]{1,80}")


class Unreadable(Failed):
    """Docker's folder cannot be read as expected; `docker save` can do it."""


@dataclass(frozen=True)
class Layer:
    """A layer's digest, its files, its tar-split record, and how long its tar is."""

    diff_id: str
    files: str
    record: str
    size: int


@dataclass(frozen=True)
class Export:
    """Everything that an archive of some images needs, found and checked but for the layers' content."""

    images: tuple[Image, ...]
    configs: tuple[bytes, ...]
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers' tars."""
        return sum(layer.size for layer in self.layers)


def prepare(about: About, images: Sequence[Image], without: Collection[str] = ()) -> Export:
    """Find the parts of these images, less the layers whose chain ids are in `without`. Raises Unreadable where `docker save` must be used."""
    if about.driver != "overlay2" or about.containerd_store:
        raise Unreadable(f"Docker's storage driver is {about.driver}, which is not read directly.")
    store = os.path.join(about.root, "image", "overlay2")
    layers: dict[str, Layer] = {}
    configs = []
    try:
        for image in images:
            matched = _SHA256.fullmatch(image.id)
            if matched is None:
                raise Unreadable(f"{image.asked} has no plain id.")
            with open(os.path.join(store, "imagedb", "content", "sha256", matched[1]), "rb") as file:
                config = file.read(tarstream.KEEP)
            if hashlib.sha256(config).hexdigest() != matched[1]:
                raise Unreadable(f"The config of {image.asked} is not the one that its id says.")
            configs.append(config)
            diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
            for diff_id, chain in zip(diff_ids, archive.chain_ids(diff_ids)):
                if diff_id not in layers and chain not in without:
                    layers[diff_id] = _layer(about.root, store, diff_id, chain)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise Unreadable(f"Docker's folder cannot be read: {type(error).__name__}: {error}") from None
    return Export(tuple(images), tuple(configs), tuple(layers.values()))


def _layer(root: str, store: str, diff_id: str, chain: str) -> Layer:
    folder = os.path.join(store, "layerdb", "sha256", chain.partition(":")[2])
    with open(os.path.join(folder, "cache-id"), encoding="ascii") as file:
        cache_id = file.read().strip()
    if not _CACHE_ID.fullmatch(cache_id):
        raise Unreadable("A layer's folder has a strange name.")
    files, record = os.path.join(root, "overlay2", cache_id, "diff"), os.path.join(folder, "tar-split.json.gz")
    if not os.path.isdir(files):
        raise Unreadable("A layer's folder is not there.")
    size = 0
    for row in _rows(record):
        size += _length(row["payload"]) if row["type"] == 2 else row.get("size", 0)
    return Layer(diff_id, files, record, size)


def _rows(record: str) -> Iterator[dict[str, Any]]:
    with gzip.open(record, "rb") as file:
        loads = json.loads
        for text in file:
            yield loads(text)


def _length(payload: str) -> int:
    return len(payload) // 4 * 3 - payload[-2:].count("=")


def chunks(export: Export) -> Iterator[bytes]:
    """The archive, as Docker 25 and newer lay it out, piece by piece. Raises Unreadable where a layer is not what its image says."""
    blobs = "blobs/sha256/"
    sizes = {layer.diff_id: layer.size for layer in export.layers}
    for layer in export.layers:
        yield tarstream.header(archive.blob_name(layer.diff_id), layer.size)
        yield from content(layer)
        yield tarstream.padding(layer.size)
    saved = []
    tail = []
    for image, config in zip(export.images, export.configs):
        diff_ids = tuple(json.loads(config)["rootfs"].get("diff_ids") or ())
        saved.append(archive.Saved(image.id, image.names, tuple(archive.blob_name(d) for d in diff_ids), diff_ids))
        tail.append(tarstream.member(archive.blob_name(image.id), config))
    unique = {part[:100]: part for part in tail}
    yield tarstream.joined([*unique.values(), *_oci(saved, export.configs, sizes, blobs), tarstream.member(archive.MANIFEST, archive.manifest(saved))])


def _oci(saved: Sequence[archive.Saved], configs: Sequence[bytes], sizes: dict[str, int], blobs: str) -> Iterator[bytes]:
    """The OCI layout's own files, where no layer was left out, for other programs that read images."""
    if any(diff_id not in sizes for image in saved for diff_id in image.diff_ids):
        return
    entries = []
    for image, config in zip(saved, configs):
        layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": sizes[d]} for d in image.diff_ids]
        described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.id, "size": len(config)}
        kind = "application/vnd.oci.image.manifest.v1+json"
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described, "layers": layers}).encode()
        digest = hashlib.sha256(body).hexdigest()
        yield tarstream.member(blobs + digest, body)
        for tag in image.tags or ("",):
            named = {"annotations": {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}} if tag else {}
            entries.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(body), **named})
    yield tarstream.member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield tarstream.member(archive.INDEX, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())


def content(layer: Layer) -> Iterator[bytes]:
    """One layer's tar; what has the wrong digest at its end raises Unreadable."""
    digest = hashlib.sha256()
    held: list[bytes] = []
    waiting = 0
    top = os.fsencode(layer.files)
    decode, read, flags = base64.b64decode, os.read, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        for row in _rows(layer.record):
            if row["type"] == 2:
                piece = decode(row["payload"])
                held.append(piece)
                waiting += len(piece)
            elif size := row.get("size", 0):
                name = base64.b64decode(row["name_raw"]) if row.get("name_raw") else os.fsencode(row["name"])
                if b".." in name.split(b"/"):
                    raise Unreadable("A layer's record names a file outside of it.")
                handle = os.open(top + b"/" + name, flags)
                try:
                    while size:
                        piece = read(handle, min(size, CHUNK))
                        if not piece:
                            raise Unreadable(f"A file of layer {layer.diff_id[7:19]} is shorter than it was.")
                        size -= len(piece)
                        held.append(piece)
                        waiting += len(piece)
                        if waiting >= CHUNK:
                            block = b"".join(held) if len(held) > 1 else piece
                            digest.update(block)
                            yield block
                            held, waiting = [], 0
                finally:
                    os.close(handle)
            if waiting >= CHUNK:
                block = b"".join(held)
                digest.update(block)
                yield block
                held, waiting = [], 0
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise Unreadable(f"Layer {layer.diff_id[7:19]} cannot be read: {error}") from None
    block = b"".join(held)
    digest.update(block)
    yield block
    if "sha256:" + digest.hexdigest() != layer.diff_id:
        raise Unreadable(f"Layer {layer.diff_id[7:19]} on disk is not what its image says.", "Something has changed Docker's files; `docker pull` or build it again.")
