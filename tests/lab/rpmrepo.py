"""Signed rpm repositories by rpmbuild, rpmsign, createrepo_c and gpg: what a vendor does on its own machines.

The packages are test doubles; signatures, indexes and the dnf and zypper that read them are real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from tests.lab.aptrepo import SigningKey
from tests.lab.debs import DOUBLE
from tests.lab.rpmtree import RpmHost

# The vendors' own layouts below a web server's folder.
DOCKER = "linux/rhel/9/x86_64/stable"
TOOLKIT = "libnvidia-container/stable/rpm/x86_64"
CUDA = "compute/cuda/repos/rhel9/x86_64"


@dataclass(frozen=True)
class Rpm:
    """One package version. Relations are spec-file texts; `files` maps paths (no leading slash) to content."""

    name: str
    version: str
    release: str = "1.el9"
    epoch: int = 0
    requires: str = ""
    recommends: str = ""
    conflicts: str = ""
    obsoletes: str = ""
    provides: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    modularity: str = ""
    post: str = ""
    signed: bool = True

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}-{self.release}.x86_64.rpm"

    @property
    def nevra(self) -> str:
        """As module metadata name it."""
        return f"{self.name}-{self.epoch}:{self.version}-{self.release}.x86_64"

    def spec(self) -> str:
        fields = {
            "Name": self.name,
            "Version": self.version,
            "Release": self.release,
            "Epoch": str(self.epoch) if self.epoch else "",
            "Summary": f"test double of {self.name}",
            "License": "none",
            "AutoReqProv": "no",
            "Requires": self.requires,
            "Recommends": self.recommends,
            "Conflicts": self.conflicts,
            "Obsoletes": self.obsoletes,
            "Provides": self.provides,
            "ModularityLabel": self.modularity,
        }
        head = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
        made = "".join(
            f"mkdir -p %{{buildroot}}/$(dirname {path})\nprintf '%s' '{content}' >%{{buildroot}}/{path}\n"
            for path, content in self.files.items()
        )
        listed = "".join(f"/{path}\n" for path in self.files)
        post = f"%post\n{self.post}\n" if self.post else ""
        return f"%global debug_package %{{nil}}\n%global __os_install_post %{{nil}}\n{head}\n%description\n{DOUBLE}\n%install\n{made}\n{post}%files\n{listed}"


class RpmMaker:
    """Builds, signs and indexes in a tree; what it makes appears below `served`."""

    def __init__(self, base: Path, work: Path, served: Path, keys: Sequence[SigningKey]) -> None:
        binds = {"/served": served, **{key.home.as_posix(): key.home for key in keys}}
        self._host = RpmHost(base, work, binds)

    def close(self) -> None:
        self._host.close()

    def publish(self, place: str, rpms: Sequence[Rpm], key: SigningKey, modules: str = "", signed: Optional[SigningKey] = None) -> None:
        """A repository at `place`: packages and index signed by `key` (the index by `signed`, if that is another)."""
        specs = {f"{number}.spec": rpm.spec() for number, rpm in enumerate(rpms)}
        self._host.must("mkdir", "-p", f"/served/{place}", "/build")
        for name, text in specs.items():
            self._host.path(f"/build/{name}").write_text(text)
        top = f"/served/{place}"
        lines = ["set -e", "cd /build"]
        for number in range(len(rpms)):
            lines.append(
                f"rpmbuild --quiet -bb --target x86_64 --define '_topdir /build' --define '_rpmdir {top}' "
                f"--define '_build_name_fmt %%{{NAME}}-%%{{VERSION}}-%%{{RELEASE}}.%%{{ARCH}}.rpm' {number}.spec"
            )
        signed_files = " ".join(f"{top}/{rpm.filename}" for rpm in rpms if rpm.signed)
        if signed_files:
            lines.append(
                f"rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_path {key.home}' --define '_gpg_name {key.fingerprint}' "
                f"--addsign {signed_files}"
            )
        lines.append(f"createrepo_c --quiet {top}")
        if modules:
            self._host.path("/build/modules.yaml").write_text(modules)
            lines.append(f"modifyrepo_c --mdtype=modules modules.yaml {top}/repodata")
        index = (signed or key)
        lines.append(
            f"gpg --homedir {index.home} --batch --yes --default-key {index.fingerprint} --armor --detach-sign "
            f"--output {top}/repodata/repomd.xml.asc {top}/repodata/repomd.xml"
        )
        lines.append(f"gpg --homedir {index.home} --batch --armor --export {index.fingerprint} >{top}/repodata/repomd.xml.key")
        self._host.must("sh", "-c", "\n".join(lines))


def module(name: str, stream: str, rpms: Sequence[Rpm]) -> str:
    """A module stream's metadata (modulemd v2) with one profile `default` that holds nothing."""
    artifacts = "".join(f"      - {rpm.nevra}\n" for rpm in rpms)
    return (
        f"---\ndocument: modulemd\nversion: 2\ndata:\n  name: {name}\n  stream: \"{stream}\"\n  version: 1\n  context: c0ffee\n  arch: x86_64\n"
        f"  summary: test double\n  description: test double\n  license:\n    module: [none]\n  profiles:\n    default:\n      rpms: []\n"
        f"  artifacts:\n    rpms:\n{artifacts}...\n"
    )
