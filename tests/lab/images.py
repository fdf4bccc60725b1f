"""Images put into a registry without a Docker: a config that says what the test wants, over one tiny layer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import requests

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Pushed:
    """What was pushed: its digest, the number of bytes, and the media type."""

    digest: str
    size: int
    kind: str
    platform: str


def layer() -> bytes:
    """An empty tar, compressed."""
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").close()
    return gzip.compress(file.getvalue(), mtime=0)


class Publisher:
    """Puts images into `repository` of the registry at `base` (http://127.0.0.1:PORT). `headers` are sent with everything (a login)."""

    def __init__(self, base: str, repository: str, headers: Optional[Mapping[str, str]] = None) -> None:
        self._url = f"{base}/v2/{repository}"
        self._headers = dict(headers or {})

    def blob(self, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        place = requests.post(f"{self._url}/blobs/uploads/", headers=self._headers, timeout=20)
        place.raise_for_status()
        url = place.headers["Location"]
        done = requests.put(f"{url}{'&' if '?' in url else '?'}digest={digest}", data=content, headers=self._headers, timeout=20)
        done.raise_for_status()
        return digest

    def manifest(self, content: Mapping[str, Any], tag: str) -> Pushed:
        body = json.dumps(content).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        headers = {**self._headers, "Content-Type": str(content["mediaType"])}
        requests.put(f"{self._url}/manifests/{tag or digest}", data=body, headers=headers, timeout=20).raise_for_status()
        return Pushed(digest, len(body), str(content["mediaType"]), "")

    def image(
        self,
        tag: str = "",
        env: Sequence[str] = (),
        labels: Optional[Mapping[str, str]] = None,
        arch: str = "amd64",
        kind: str = MANIFEST,
        **more: Any,
    ) -> Pushed:
        """An image for linux on `arch`; without a tag it is there by its digest alone. `more` replaces keys of the config."""
        config = {"architecture": arch, "os": "linux", "config": {"Env": list(env), "Labels": labels}, "rootfs": {"type": "layers", "diff_ids": []}, **more}
        body, packed = json.dumps(config).encode(), layer()
        docker = kind == DOCKER_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json" if docker else "application/vnd.oci.image.config.v1+json",
                "digest": self.blob(body),
                "size": len(body),
            },
            "layers": [
                {
                    "mediaType": f"application/vnd.{'docker.image.rootfs.diff.tar.gzip' if docker else 'oci.image.layer.v1.tar+gzip'}",
                    "digest": self.blob(packed),
                    "size": len(packed),
                }
            ],
        }
        pushed = self.manifest(manifest, tag)
        return Pushed(pushed.digest, pushed.size, pushed.kind, f"{config['os']}/{config['architecture']}")

    def index(self, tag: str, images: Sequence[Pushed], kind: str = INDEX) -> Pushed:
        """One name for images of several platforms."""
        entries = [
            {
                "mediaType": image.kind,
                "digest": image.digest,
                "size": image.size,
                "platform": dict(zip(("os", "architecture"), image.platform.split("/"))),
            }
            for image in images
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": kind, "manifests": entries}, tag)
