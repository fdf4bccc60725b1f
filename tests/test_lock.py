"""Locks: what is written and read back, and the plan that keeps to one. Captured hosts; a lock's packages are made up, no apt is asked here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provision import aptroot, catalog, debversion, lockfile, locking, playbook
from provision.actions import BundleImages, BundleRepository, Packages
from provision.capture import split
from provision.errors import Error, Failed, Unsupported, UsageError
from provision.facts import parse
from provision.lockfile import HostClass, Lock, LockedPackage, LockedRepository
from provision.lockplan import Bundled, Pinned, checks, held, skew
from provision.model import CHANGE, Facts, Package, Plan
from provision.plan import plan
from provision.playbook import Loaded

HOSTS = Path(__file__).parent / "hosts"
SHA = "ab" * 32
VERSIONS = ["1.0", "1.0-1", "1.0~rc1", "1.0~rc1-1", "1:0.1", "5:29.7.2-1~debian.13~trixie", "5:29.7.10-1~debian.13~trixie", "26.1.5+dfsg1-9+b1",
            "26.1.5+dfsg1-9+deb13u1+b1", "1.7.24~ds1-6+deb13u1", "1.7.24~ds1-6", "580.105.08-1", "580.95.05-1", "2.41-12+deb13u2", "a1", "1a"]


def facts(name: str = "debian13-cloud") -> Facts:
    return parse(split((HOSTS / name / "probe.txt").read_bytes()))


def loaded(*sets: str) -> Loaded:
    return playbook.load("gpu-host", ("preflight.root_free_gb=1", "preflight.docker_free_gb=1", *sets))


def version_of(name: str) -> str:
    """A made-up version that the playbook's own patterns admit."""
    return "5:29.7.2-1~debian.13~trixie" if name.startswith("docker-ce") else "1.18.1-1" if "container" in name else "580.105.08-1"


def kind_of(seen: Facts, wanted: Loaded, **more: Any) -> HostClass:
    """A class in which everything is that the plan would install, and one package that it depends on."""
    made = plan(seen, wanted.spec, catalog.load())
    names = {p.name for i in made.items if isinstance(i.action, Packages) for p in i.action.install}
    packages = {name: LockedPackage(version_of(name), "amd64", SHA, 1000, True, f"http://archive.invalid/{name}.deb") for name in names}
    packages["libnftnl11"] = LockedPackage("1.2.9-1", "amd64", SHA, 65012)
    distro, version, arch, gpus = lockfile.system_of(seen)
    values: dict[str, Any] = {"kernels": (seen.kernel,), "engine": "docker-ce", "packages": packages}
    return HostClass(distro, version, arch, wanted.digest, gpus, **{**values, **more})


def planned(seen: Facts, wanted: Loaded, kind: HostClass, **more: Any) -> Plan:
    return held(Pinned(Lock({"it": kind}), wanted.digest, "x.lock"), seen, wanted.spec, catalog.load(), **more)


def only(made: Plan) -> str:
    (problem,) = made.problems
    return problem.id


def installed(seen: Facts, versions: Mapping[str, str]) -> Facts:
    return replace(seen, packages={**(seen.packages or {}), **{name: Package(name, version) for name, version in versions.items()}})


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize("one", VERSIONS)
def test_versions_are_ordered_as_dpkg_orders_them(one: str) -> None:
    """dpkg is asked about each with the next few."""
    at = VERSIONS.index(one)
    for other in (VERSIONS[at + 1 :] + VERSIONS[:at])[:4]:
        asked = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0
        assert (debversion.compare(one, other) < 0) is asked, (one, other)


@given(st.lists(st.from_regex(r"\A([0-9]:)?[0-9][a-z0-9.+~]{0,6}(-[a-z0-9.+~]{1,4})?\Z"), min_size=2, max_size=2))
def test_the_order_of_versions_has_two_sides(pair: list[str]) -> None:
    one, other = pair
    assert debversion.compare(one, one) == 0
    assert (debversion.compare(one, other) > 0) is (debversion.compare(other, one) < 0)


# ---------------------------------------------------------------- the file


def sample() -> Lock:
    kind = HostClass(
        "debian", "13", "x86_64", "d" * 64, ("10de:2330",), ("6.12.48+deb13-amd64",), "docker-ce", "580 open cuda",
        {"docker-ce": LockedPackage("5:29.7.2-1~debian.13~trixie", "amd64", SHA, 17, True, "https://download.docker.com/x.deb")},
        {"docker": LockedRepository("https://download.docker.com/linux/debian", "trixie", ("stable",), ("A" * 40,))},
        {"nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04": "sha256:" + SHA},
    )
    return Lock({"debian-13-x86_64-2330": kind})


def test_a_lock_is_read_back_as_it_was_written_and_written_the_same_again() -> None:
    text = lockfile.dump(sample(), ("how it was made",))
    assert lockfile.load(text.encode(), "x.lock") == sample()
    assert lockfile.dump(lockfile.load(text.encode(), "x.lock"), ("how it was made",)) == text
    assert text.startswith("# how it was made\n")


def test_the_schema_describes_a_lock() -> None:
    import jsonschema

    from provision.shipped import shipped

    schema = json.loads(shipped("data/schema/lock.json"))
    document = yaml.safe_load(lockfile.dump(sample()))
    jsonschema.validate(document, schema)
    document["classes"]["debian-13-x86_64-2330"]["packages"]["docker-ce"]["sha256"] = "short"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mlhost_lock: 1", "mlhost_lock: 2", "another format"),
        ("mlhost_lock: 1", "other: 1", "no lock of mlhost"),
        ("sha256: ab", "sha256: xy", "no SHA-256"),
        ("distro: debian", "distro: 13", "no text"),
        ("engine: docker-ce", "engin: docker-ce", "which no lock has"),
        ("size: 17", "size: -1", "number of bytes"),
        ("version: 5:29.7.2-1~debian.13~trixie", "version: 1 && reboot", "no package"),
        ("docker-ce:\n", "-oDir=/:\n", "no package"),
        ("uri: https://download.docker.com/x.deb", "uri: '-o x'", "no address"),
        ("classes:", "classes: []\nmore:", "no class"),
        ("classes:", "a: &a {b: c}\nd: {<<: [*a, *a]}\nclasses:", "refers to an anchor"),
    ],
)
def test_what_is_wrong_in_a_lock_is_named(old: str, new: str, said: str) -> None:
    text = lockfile.dump(sample())
    assert old in text
    with pytest.raises(UsageError, match=said):
        lockfile.load(text.replace(old, new, 1).encode(), "x.lock")


@given(st.binary(max_size=400))
def test_no_bytes_are_more_than_wrong(content: bytes) -> None:
    try:
        lockfile.load(content, "x.lock")
    except UsageError:
        return
    raise AssertionError("that was no lock")


def test_hosts_of_one_kind_share_a_class_with_all_their_kernels() -> None:
    one = sample().classes["debian-13-x86_64-2330"]
    other = replace(one, kernels=("6.12.50+deb13-amd64",), packages={"iptables": LockedPackage("1.8.11-2", "amd64", SHA, 3)})
    lock = lockfile.classified([one, other])
    (kind,) = lock.classes.values()
    assert kind.kernels == ("6.12.48+deb13-amd64", "6.12.50+deb13-amd64")
    assert set(kind.packages) == {"docker-ce", "iptables"}


def test_two_versions_of_one_package_in_one_class_are_an_error() -> None:
    one = sample().classes["debian-13-x86_64-2330"]
    other = replace(one, packages={"docker-ce": LockedPackage("5:29.7.3-1~debian.13~trixie", "amd64", "cd" * 32, 3, True)})
    with pytest.raises(UsageError, match="different versions of docker-ce"):
        lockfile.classified([one, other])


# ---------------------------------------------------------------- the plan


def test_a_plan_held_to_a_lock_installs_exactly_its_versions() -> None:
    wanted = loaded()
    made = planned(facts(), wanted, kind_of(facts(), wanted))
    assert made.problems == ()
    actions = [i.action for i in made.items if isinstance(i.action, Packages) and i.state == CHANGE]
    assert actions
    for action in actions:
        assert {p.version for p in action.install} == {version_of(p.name) for p in action.install}
        assert "libnftnl11" in {pin.name for pin in action.pins}


def test_a_host_of_another_kind_is_refused_with_what_the_lock_holds() -> None:
    wanted = loaded()
    made = planned(facts("ubuntu2404-cloud"), wanted, kind_of(facts(), wanted))
    assert only(made) == "lock/class"
    assert "debian 13" in made.problems[0].message
    assert not made.changes


def test_other_playbook_values_than_those_of_the_lock_are_refused() -> None:
    made = planned(facts(), loaded("docker.users=[ada]"), kind_of(facts(), loaded()))
    assert only(made) == "lock/playbook"


def test_another_kernel_is_refused() -> None:
    wanted = loaded()
    made = planned(facts(), wanted, kind_of(facts(), wanted, kernels=("6.1.0-1-amd64",)))
    assert only(made) == "lock/kernel"


def test_a_package_of_which_the_lock_knows_nothing_is_refused() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    without = {name: package for name, package in kind.packages.items() if name != "containerd.io"}
    made = planned(facts(), wanted, replace(kind, packages=without))
    assert only(made) == "lock/packages"
    assert "containerd.io" in made.problems[0].message


def test_what_the_sources_no_longer_have_or_have_changed_is_refused_before_anything_is_done() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    everything = {name: {package.version: package.sha256} for name, package in kind.packages.items()}
    assert planned(facts(), wanted, kind, offered=everything).problems == ()
    gone = planned(facts(), wanted, kind, offered={**everything, "docker-ce": {"5:29.8.0-1~debian.13~trixie": SHA}})
    assert only(gone) == "lock/gone"
    assert "there is 5:29.8.0" in gone.problems[0].message
    other = planned(facts(), wanted, kind, offered={**everything, "docker-ce": {version_of("docker-ce"): "cd" * 32}})
    assert only(other) == "lock/hash"
    assert not other.changes


def test_an_older_package_that_the_plan_would_keep_is_upgraded_and_a_newer_one_refused() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    there = {name: package.version for name, package in kind.packages.items()}
    older = installed(facts(), {**there, "containerd.io": "1.0.0-1"})
    assert [d.name for d in skew(older, kind)] == ["containerd.io"]
    made = planned(older, wanted, kind)
    assert made.problems == ()
    (item,) = [i for i in made.items if i.id == "lock/packages"]
    assert item.expected == {"containerd.io": "1.18.1-1"}
    assert only(planned(installed(facts(), {**there, "containerd.io": "9.0.0-1"}), wanted, kind)) == "lock/newer"


def test_a_dependency_of_another_version_is_told_and_left() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    made = planned(installed(facts(), {"libnftnl11": "1.2.9-1+deb13u1"}), wanted, kind)
    assert made.problems == ()
    assert any("libnftnl11 is 1.2.9-1+deb13u1" in notice.message for notice in made.notices)


def test_checks_tell_the_skew() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    pinned = Pinned(Lock({"it": kind}), wanted.digest, "x.lock")
    there = {name: package.version for name, package in kind.packages.items()}
    (fine,) = checks(installed(facts(), there), pinned)
    assert fine.state == "ok"
    (wrong,) = checks(installed(facts(), {**there, "docker-ce": "5:29.7.1-1~debian.13~trixie"}), pinned)
    assert wrong.state == "failed"
    assert "docker-ce is 5:29.7.1-1~debian.13~trixie, locked is 5:29.7.2-1~debian.13~trixie" in wrong.evidence


def test_with_a_bundle_nothing_is_asked_of_the_network() -> None:
    wanted = loaded()
    kind = kind_of(facts(), wanted)
    files = (*((f"repository/pool/ab/{name}_1_amd64.deb", SHA) for name in kind.packages), ("key.asc", SHA), ("images/1.tar", SHA))
    bundled = Bundled("/var/lib/mlhost/bundle/x/files", files, (("images/1.tar", "a/b:1"),), "A" * 40)
    made = held(Pinned(Lock({"it": kind}), wanted.digest, "x.bundle", {"it": bundled}), facts(), wanted.spec, catalog.load())
    assert made.problems == ()
    assert made.urls == ()
    assert not any(i.kind == "apt-repository" and i.state == CHANGE for i in made.items)
    kinds = [type(i.action) for i in made.items if i.state == CHANGE]
    assert kinds.index(BundleRepository) < kinds.index(Packages) < kinds.index(BundleImages)
    lacking = replace(bundled, files=tuple(f for f in files if "containerd.io" not in f[0]))
    refused = held(Pinned(Lock({"it": kind}), wanted.digest, "x.bundle", {"it": lacking}), facts(), wanted.spec, catalog.load())
    assert only(refused) == "bundle/packages"


# ---------------------------------------------------------------- apt's answers

ANSWER = f"""\
@@m1 probe 0

@@m1 update 0
Hit:1 http://archive.invalid trixie InRelease

@@m1 uris:0 0
The following NEW packages will be installed:
'https://download.docker.com/a/docker-ce_29.7.2-1%7edebian.13%7etrixie_amd64.deb' docker-ce_5%3a29.7.2-1~debian.13~trixie_amd64.deb 17 SHA256:{SHA}
'http://archive.invalid/tini_0.19.0-3%2bb8_amd64.deb' tini_0.19.0-3+b8_amd64.deb 280384 SHA256:{SHA}

@@m1 show 0
Package: tini
Version: 0.19.0-3+b8
Architecture: amd64
Size: 280384
SHA256: {SHA}

Package: tini
Status: install ok installed
Version: 0.18

@@m1 end 0

"""


def test_what_apt_would_fetch_is_read_with_its_hashes() -> None:
    sections = aptroot.answer(ANSWER.encode(), "m1", "here")
    engine, tini = aptroot.transactions(sections, "gpu-7")
    assert (engine.name, engine.version, engine.size, engine.sha256) == ("docker-ce", "5:29.7.2-1~debian.13~trixie", 17, SHA)
    assert (tini.version, tini.arch) == ("0.19.0-3+b8", "amd64")
    assert [(o.name, o.version) for o in aptroot.offers(sections)] == [("tini", "0.19.0-3+b8")], "what is only installed is no offer"


def test_what_apt_refuses_is_told_in_its_words() -> None:
    text = ANSWER.replace("@@m1 uris:0 0\n", "@@m1 uris:0 100\nE: Version '1' for 'docker-ce' was not found\n")
    with pytest.raises(Failed, match="Version '1' for 'docker-ce' was not found"):
        aptroot.transactions(aptroot.answer(text.encode(), "m1", "here"), "gpu-7")
    unread = ANSWER.replace("@@m1 update 0\n", "@@m1 update 100\nE: Failed to fetch http://archive.invalid/InRelease  404\n")
    with pytest.raises(Failed, match="cannot read the package sources"):
        aptroot.answer(unread.encode(), "m1", "here")


def test_a_machine_without_apt_says_so() -> None:
    with pytest.raises(Failed, match="has no apt-get"):
        aptroot.answer(b"@@m1 probe 0\n\n@@m1 apt 127\n\n@@m1 end 0\n\n", "m1", "here")


@pytest.mark.parametrize(("name", "kind", "said"), [("alma10", Unsupported, "has no apt"), ("debian13-cloud", Failed, "does not hold what is installed")])
def test_a_capture_that_cannot_be_locked_says_why(name: str, kind: type[Error], said: str) -> None:
    with pytest.raises(kind, match=said):
        locking.system(name, (HOSTS / name / "probe.txt").read_bytes(), loaded())


def test_a_source_whose_key_the_capture_lacks_is_an_error_that_says_how_to_make_a_better_one() -> None:
    with pytest.raises(Failed, match="which the capture does not hold"):
        aptroot.script(facts(), plan(facts(), loaded().spec, catalog.load()), "amd64", "m1", (), status="")
