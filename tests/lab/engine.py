"""Docker's packages as test doubles with a real engine inside: Debian's own, under the vendor's names.

docker.io conflicts with docker-ce, so a double cannot depend on it; instead its files, with those of containerd, runc
and docker-cli, are packed anew as docker-ce, containerd.io and docker-ce-cli. The versions say what is really in them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.lab.cache import built_once, recipe_hash
from tests.lab.debs import DOUBLE
from tests.lab.doubles_docker import SUITES
from tests.lab.mirror import KEYRING, read_mirror
from tests.lab.need import LabError, tool
from tests.lab.proxy import CachingProxy

REPLACED = ("containerd", "runc", "docker-cli", "docker.io", "docker-ce-cli", "containerd.io", "docker-buildx")
APT_CONF = (
    'Dir "{folder}/";\nDir::State::status "{folder}/status";\nDir::Etc::parts "/dev/null/";\nAPT::Architecture "amd64";\n'
    'APT::Sandbox::User "root";\nAcquire::Languages "none";\nAcquire::http::Proxy "{proxy}";\n'
)


def engine_packages(suite: str) -> list[Path]:
    """Return docker-ce, docker-ce-cli and containerd.io of a suite, each in two versions (made once, half a minute).

    The newer version is the engine's own; the older one has the same files, so that there is something to upgrade from.
    """
    name = f"{suite}-{recipe_hash([suite, 3])}"
    return sorted(built_once("engine", name, lambda work: _make(work, suite)).glob("*.deb"))


def _make(folder: Path, suite: str) -> None:
    parts = folder / "parts"
    parts.mkdir()
    _download(parts, suite)
    for deb in parts.glob("*.deb"):
        _call(["dpkg-deb", "-R", str(deb), str(parts / deb.name.split("_")[0])])
    if (parts / "docker-cli").exists():
        client = parts / "docker-cli"
    else:  # bookworm's docker.io holds the client
        client = parts / "client"
        for sub in ("usr/bin", "DEBIAN"):
            (client / sub).mkdir(parents=True)
        shutil.move(str(parts / "docker.io/usr/bin/docker"), str(client / "usr/bin/docker"))
        shutil.copy(parts / "docker.io/DEBIAN/control", client / "DEBIAN/control")
    _call(["cp", "-a", f"{parts}/runc/usr", f"{parts}/containerd/"])
    engine = _version(parts / "docker.io")
    tail = SUITES[suite]
    conflicts = {"docker-ce": "docker.io, docker-engine", "docker-ce-cli": "docker-cli", "containerd.io": "containerd, runc"}
    for number in (_before(engine), engine):
        _pack(parts / "docker.io", folder, "docker-ce", f"5:{number}-1~{tail}", conflicts, "containerd.io, docker-ce-cli")
        _pack(client, folder, "docker-ce-cli", f"5:{number}-1~{tail}", conflicts, "")
    runtime = _version(parts / "containerd")
    for number in (_before(runtime), runtime):
        _pack(parts / "containerd", folder, "containerd.io", f"{number}-1~{tail}", conflicts, _fields(parts / "runc")["Depends"])
    shutil.rmtree(parts)


def _download(folder: Path, suite: str) -> None:
    """Fetch the distribution's packages by an apt of their suite, whatever this machine's own is."""
    mirror = read_mirror()
    for name in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    lines = [line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) for line in mirror.lines(suite)]
    (folder / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")
    with CachingProxy(tls_hosts=mirror.hosts_with_tls()) as proxy:
        (folder / "apt.conf").write_text(APT_CONF.format(folder=folder, proxy=proxy.url))
        _call(["apt-get", "-q", "update"], folder)
        names = ["docker.io", "containerd", "runc"]
        if "docker-cli" in _call(["apt-cache", "pkgnames", "docker-cli"], folder).split():
            names.append("docker-cli")
        _call(["apt-get", "-q", "download", *names], folder)


def _pack(root: Path, target: Path, name: str, version: str, conflicts: dict[str, str], depends: str) -> None:
    fields = _fields(root)
    kept = [word for word in fields.get("Depends", "").split(", ") if word.split(" ")[0] not in REPLACED]
    rivals = conflicts[name]
    control = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "mlhost tests <nobody@invalid>",
        "Depends": ", ".join([*depends.split(", "), *kept] if depends else kept),
        "Conflicts": rivals,
        "Replaces": rivals,
        "Provides": "containerd, runc" if name == "containerd.io" else "",
        "Section": "admin",
        "Priority": "optional",
        "Description": f"test double of {name}\n {DOUBLE}\n Its programs are those of Debian's {fields['Package']} {fields['Version']}.",
    }
    original = (root / "DEBIAN/control").read_text()
    (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items() if value))
    file = target / f"{name}_{version.rsplit(':', maxsplit=1)[-1]}_amd64.deb"
    _call([tool("dpkg-deb", "dpkg"), "--root-owner-group", "-Zgzip", "-z1", "-b", str(root), str(file)])
    (root / "DEBIAN/control").write_text(original)


def _fields(root: Path) -> dict[str, str]:
    text = (root / "DEBIAN/control").read_text()
    return dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.MULTILINE))


def _version(root: Path) -> str:
    """The upstream version without Debian's marks."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)+)", _fields(root)["Version"])
    if found is None:
        raise LabError(f"no version in {_fields(root)['Version']}")
    return found.group(1)


def _before(version: str) -> str:
    head, _, last = version.rpartition(".")
    return f"{head}.{int(last) - 1}"


def _call(command: list[str], apt: Path | None = None) -> str:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    if apt is not None:
        env["APT_CONFIG"] = str(apt / "apt.conf")
    done = subprocess.run(
        command, env=env, cwd=apt, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout
