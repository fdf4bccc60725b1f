"""A tree host whose apt knows one repository, and rendered stages run on it by the journal: for faults between it and its mirror."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Optional

from provision import actions, render
from provision.errors import Error
from provision.follow import Followed, apply
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.progress import NullProgress
from provision.sh import Sh
from tests.lab import tree
from tests.lab.aptrepo import SigningKey, index_packages, write_release
from tests.lab.cache import built_once, recipe_hash
from tests.lab.debs import Deb, build_deb
from tests.lab.faults import FaultServer
from tests.lab.nshost import base_tree
from tests.lab.treehost import TreeHost

SUITE = "stable"
SOURCE = "/etc/apt/sources.list.d/lab.sources"
KEY_PATH = "/etc/apt/keyrings/lab.asc"
OUTLIVED = "20250101T000000"  # the day when the key was made that has expired since
PACKAGES = ("ca-certificates", "procps")
# Short waits, or a hanging mirror would take two minutes. What is waited for is apt's own.
APT_CONF = 'Acquire::http::Timeout "2";\nAcquire::Retries::Delay "false";\nAcquire::Languages "none";\n'
DEBS = (
    Deb("engine", "1.0-1", depends="client", files={"opt/engine": "one"}),
    Deb("engine", "2.0-1", depends="client", files={"opt/engine": "two"}),
    Deb("client", "1.0-1", files={"opt/client": b"\x00" * 300_000}),
)


def base_of(suite: str) -> Path:
    """The tree of a Debian suite: the namespace hosts' own, or a small one made for this (half a minute, once)."""
    if suite == "trixie":
        return base_tree()
    recipe = [suite, PACKAGES, 1]
    return built_once("bases", f"{suite}-{recipe_hash(recipe)}", lambda folder: tree.debootstrap(folder, suite, PACKAGES))


@dataclass(frozen=True)
class Mirror:
    """One signed repository in bad weather. `outlived` is a key of its keeper's that has expired. `spoiled` holds InReleases that an honest mirror would not serve, by name."""

    server: FaultServer
    key: SigningKey
    outlived: SigningKey
    spoiled: dict[str, Path]

    def repository(self, remark: str = "", signer: Optional[SigningKey] = None) -> actions.AptRepository:
        """The source as an action; another `remark` makes it another text, another `signer` the one that it trusts."""
        key = signer or self.key
        text = f"{'# ' + remark + chr(10) if remark else ''}Types: deb\nURIs: {self.server.url}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEY_PATH}\n"
        return actions.AptRepository("lab", SOURCE, text, actions.Key("lab", "", (key.fingerprint,), KEY_PATH, key.public()))


@contextmanager
def mirror(folder: Path) -> Iterator[Mirror]:
    """Publish the repository below `folder` and serve it."""
    (folder / "served/pool").mkdir(parents=True)
    for deb in DEBS:
        build_deb(deb, folder / "served/pool")
    top = folder / "served" / "dists" / SUITE
    index_packages(folder / "served", "pool", top / "main/binary-amd64")
    fields = {"Suite": SUITE, "Codename": SUITE, "Components": "main", "Architectures": "amd64", "Acquire-By-Hash": "no"}
    with SigningKey("lab test double <l@invalid>") as key, SigningKey("stranger <s@invalid>") as stranger, SigningKey("old <o@invalid>", OUTLIVED) as old:
        spoiled = {}
        for name, signer, more in (
            ("stranger", stranger, {}),
            ("expired", key, {"Date": "Mon, 01 Dec 2025 00:00:00 UTC"}),
            ("old", old, {}),
            ("future", key, {"Date": "Fri, 01 Jan 2038 00:00:00 UTC"}),
        ):
            made = folder / name
            shutil.copytree(top, made)
            write_release(made, signer, {**fields, **more})
            if name == "expired":  # a field that apt-ftparchive does not write
                release = made / "Release"
                release.write_text(release.read_text().replace("Date: ", "Valid-Until: Mon, 08 Dec 2025 00:00:00 UTC\nDate: ", 1))
                signer.sign(release)
            spoiled[name] = made / "InRelease"
        write_release(top, key, fields)
        with FaultServer(folder / "served") as server:
            yield Mirror(server, key, old, spoiled)


@dataclass
class AptHost:
    """A tree host with that mirror's neighbourhood; `apply` runs a stage of actions as mlhost would."""

    host: TreeHost
    _runs: Iterator[int] = field(default_factory=lambda: count(1))

    def apply(self, *wanted: actions.Action, lock_wait: int = 20, fetch_wait: int = 900) -> Followed:
        items = tuple(Item(f"step/{n}", "step", actions.kind(a), CHANGE, "x", action=a) for n, a in enumerate(wanted, 1))
        plan = Plan("h", PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None), (), {}, items)
        run_id = f"run-{next(self._runs)}"
        script = render.stage(plan, run_id=run_id, lock_wait=lock_wait)
        # what a person would put into the environment; a host's is empty
        script = Sh(script.replace("\n", f"\nMLHOST_FETCH_WAIT={fetch_wait}\n", 1))
        return apply(self.host, script, run_id, "lab", "", {}, NullProgress(), None)

    def refused(self, *wanted: actions.Action, lock_wait: int = 20, fetch_wait: int = 900) -> str:
        """The reason why it could not be done, whether the script or the journal gives it; "" if it could."""
        try:
            followed = self.apply(*wanted, lock_wait=lock_wait, fetch_wait=fetch_wait)
        except Error as error:
            return f"{error.message} {error.fix}"
        return followed.reason() if followed.rc else ""

    def read(self, path: str) -> str:
        file = self.host.root / path.lstrip("/")
        return file.read_text() if file.exists() else ""


@contextmanager
def apt_host(suite: str, boot: str = "") -> Iterator[AptHost]:
    """A fresh one with no sources at all."""
    with TreeHost(boot=boot, base=base_of(suite)) as host:
        host.sh("rm -rf /etc/apt/sources.list.d/* /etc/apt/sources.list; mkdir -p /etc/apt/keyrings")
        (host.root / "etc/apt/apt.conf.d/99lab").write_text(APT_CONF)
        yield AptHost(host)
