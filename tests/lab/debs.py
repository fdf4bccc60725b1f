"""Tiny Debian packages from Python descriptions, by dpkg-deb."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from tests.lab.need import LabError, tool

# No quote marks: it is put into scripts.
DOUBLE = "This is a test double made by the tests of mlhost; no vendor made it."


@dataclass(frozen=True)
class Deb:
    """One package version. `files` maps paths (no leading slash) to content; a text that begins with `#!` is made
    executable. `postinst` is the body of an sh script run after unpacking. Relations are control-file texts."""

    name: str
    version: str
    depends: str = ""
    recommends: str = ""
    conflicts: str = ""
    provides: str = ""
    architecture: str = "amd64"
    section: str = "admin"
    conffiles: str = ""
    files: Mapping[str, Union[str, bytes]] = field(default_factory=dict)
    postinst: str = ""
    prerm: str = ""

    @property
    def filename(self) -> str:
        """As the vendors name them: without the epoch."""
        return f"{self.name}_{self.version.split(':')[-1]}_{self.architecture}.deb"

    def control(self) -> str:
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Section": self.section,
            "Priority": "optional",
            "Maintainer": "mlhost tests <nobody@invalid>",
            "Depends": self.depends,
            "Recommends": self.recommends,
            "Conflicts": self.conflicts,
            "Replaces": self.conflicts,
            "Provides": self.provides,
            "Description": f"test double of {self.name}\n {DOUBLE}",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def build_deb(deb: Deb, folder: Path) -> Path:
    """Build the package into `folder` and return its path; LabError with dpkg-deb's words if it fails."""
    target = folder / deb.filename
    with tempfile.TemporaryDirectory(prefix="mlhost-deb-") as scratch:
        root = Path(scratch) / "root"
        (root / "DEBIAN").mkdir(parents=True)
        root.chmod(0o755)
        _put(root / "DEBIAN/control", deb.control())
        for script, body in (("postinst", deb.postinst), ("prerm", deb.prerm)):
            if body:
                _put(root / "DEBIAN" / script, f"#!/bin/sh\nset -e\n{body}\n")
        if deb.conffiles:
            _put(root / "DEBIAN/conffiles", deb.conffiles)
        _put(root / f"usr/share/doc/{deb.name}/README.test-double", f"{DOUBLE}\n")
        for name, content in deb.files.items():
            _put(root / name, content)
        command = [tool("dpkg-deb", "dpkg"), "--root-owner-group", "-Zgzip", "-z1", "-b", str(root), str(target)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"dpkg-deb failed for {deb.filename}:\n{done.stdout}")
    return target


def _put(path: Path, content: Union[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data)
    path.chmod(0o755 if data.startswith(b"#!") else 0o644)
