"""The plan as a whole: what it promises of itself, whatever the host and the playbook."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision import catalog, render
from provision.actions import AptRepository, File, Packages, RpmRepository
from provision.capture import split
from provision.facts import parse
from provision.model import CHANGE, LATER, OK, REFUSED, BlockDevice, Facts, Lock, Nvidia, Plan, Reach, Run
from provision.plan import digest, plan
from provision.playbook import load
from provision.report import jsonout, text
from provision.report.verdict import plan_exit_code
from provision.spec import (
    DockerSpec,
    DriverSpec,
    Log,
    Mirror,
    Mirrors,
    Preflight,
    Proxy,
    RunSpec,
    SmokeSpec,
    Spec,
    Storage,
    ToolkitSpec,
)
from provision.watched import watched, watched_disks
from tests import machines
from tests.effects import after
from tests.machines import (
    CATALOG,
    EVERY_SYSTEM,
    KEY,
    SWITCH,
    gpu,
    machine,
    unit,
    with_daemon_json,
    with_docker,
    with_gpus,
    with_packages,
    with_toolkit,
    working,
)

HOSTS = Path(__file__).parent / "hosts"
PLAYBOOKS = ("gpu-host", "docker-host", "deep-learning")
DECISIONS = {
    "docker": {"action", "source", "packages", "repository", "remove", "why"},
    "driver": {"action", "branch", "flavor", "source", "packages", "repository", "secure_boot", "why"},
    "toolkit": {"action", "version", "packages", "repository", "why"},
    "fabricmanager": {"action", "packages", "why"},
    "smoke": {"image", "why"},
}


def captured(name: str) -> Facts:
    return parse(split((HOSTS / name / "probe.txt").read_bytes()))


def contract(decided: Plan) -> None:
    """Every plan has what the outside contract says, whatever it decides."""
    shown = json.loads(json.dumps(jsonout.plan_json(decided)))
    for name, keys in DECISIONS.items():
        assert keys <= set(shown["decisions"][name]), name
        repository = shown["decisions"][name].get("repository")
        assert repository is None or {"uri", "suite", "components", "key_fingerprint"} <= set(repository)
    docker, driver = shown["decisions"]["docker"], shown["decisions"]["driver"]
    assert docker["action"] in ("install", "keep", "skip", "refuse")
    assert docker["source"] in ("docker-ce", "distro", None)
    assert driver["branch"] is None or driver["branch"].isdigit()
    assert driver["flavor"] in ("open", "proprietary", "grid", None)
    assert driver["source"] in ("distro", "cuda", "runfile", None)
    assert {i["state"] for i in shown["items"]} <= {"ok", "change", "later", "refused"}
    assert all(i["why"] for i in shown["items"])
    assert len({i["id"] for i in shown["items"]}) == len(shown["items"])
    for problem in decided.problems:
        assert problem.message.endswith((".", ")", ")."))
        assert problem.fix
        assert "  " not in problem.message + problem.fix
    if decided.problems:
        assert not decided.changes
        assert plan_exit_code(decided) in (1, 5)


# ---------------------------------------------------------------- captured and assembled hosts; a new folder is a new test


def mixes(decided: Plan, facts: Facts) -> list[str]:
    """What in a plan belongs to another family of systems."""
    rpm = machines.is_rpm(facts)
    wrong = [i.id for i in decided.items if i.kind == ("apt-repository" if rpm else "rpm-repository")]
    for item in decided.items:
        action = item.action
        if isinstance(action, Packages):
            foreign = ("linux-", "docker.io") if rpm else ("kernel", "kmod-")
            wrong += [p.name for p in action.install if p.name.startswith(foreign)]
            wrong += [] if rpm else list(action.modules)
        if rpm and isinstance(action, File) and "/apt/" in action.path:
            wrong.append(action.path)
    return wrong


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.parametrize("name", sorted(path.parent.name for path in HOSTS.glob("*/probe.txt")))
def test_the_plan_for_a_host_is_the_one_a_person_has_read(name, playbook):
    """`MLHOST_REGEN=1` writes the plans anew; then read the difference."""
    decided = plan(captured(name), load(playbook).spec, catalog.load())
    contract(decided)
    shown = {
        f"plan-{playbook}.json": json.dumps(jsonout.plan_json(decided), indent=1, ensure_ascii=False) + "\n",
        f"plan-{playbook}.txt": text.plan_text(decided, verbose=True),
    }
    for file, content in shown.items():
        path = HOSTS / name / file
        if os.environ.get("MLHOST_REGEN") == "1":
            path.write_text(content)
        assert path.exists(), "run once with MLHOST_REGEN=1 and read what it writes"
        assert content == path.read_text()


# ---------------------------------------------------------------- properties


def a_run(state: str) -> Run:
    return Run("20261123T040000-000000", state)


def engine(facts: Facts, kind: str) -> Facts:
    """A host with one kind of engine, or of what stands in its way."""
    if machines.is_rpm(facts) and kind.startswith("docker.io"):
        return with_docker(facts, "docker", "0:25.0.18-1", live_restore=True)
    return {
        "none": facts,
        "docker-ce": with_docker(facts, "docker-ce", "5:28.5.2-1~x"),
        "docker-ce old": with_docker(facts, "docker-ce", "5:24.0.9-1~x", running_containers=2),
        "docker.io": with_docker(facts, "docker.io", "20.10.24+dfsg1-1", live_restore=True),
        "moby": with_docker(facts, "moby-engine", "28.0.1-1"),
        "static": with_docker(facts, "", "27.1.0-0"),
        "podman-docker": with_packages(facts, "podman-docker 5.4-1\ncontainerd 1.7-1"),
        "snap": replace(facts, docker=replace(facts.docker, snap=True)),
        "rootless": replace(facts, docker=replace(facts.docker, rootless_users=("ada",))),
    }[kind]


def service(facts: Facts, state: str) -> Facts:
    if state == "as it is" or not facts.docker or not facts.docker.server:
        return facts
    if state == "stopped":
        stopped = replace(facts.docker, server="", error="Cannot connect")
        return replace(facts, docker=stopped, units={**facts.units, **unit("docker.service", "failed", "disabled")})
    return replace(facts, docker=replace(facts.docker, started_before=("/etc/docker/daemon.json",)))


def source(facts: Facts, kind: str) -> Facts:
    tree = "ubuntu" if facts.os.id != "debian" else "debian"
    suite = facts.os.ubuntu_codename or facts.os.codename
    line = machines.DOCKER_SOURCE.format(tree, suite)
    if kind == "none":
        return facts
    if machines.is_rpm(facts):
        return repo_file(facts, kind)
    if kind == "one-line":
        return machines.with_source(
            replace(facts, keyrings={"/etc/apt/keyrings/docker.asc": KEY}), "/etc/apt/sources.list.d/docker.list", line
        )
    if kind == "unsigned":
        return machines.with_source(
            facts, "/etc/apt/sources.list", f"deb http://mirror.example/x {suite} main\n" + line.replace("signed-by=", "x=")
        )
    shared = f"Types: deb\nURIs: https://download.docker.com/linux/{tree} https://other.example/x\nSuites: {suite}\nComponents: stable\n"
    return machines.with_source(
        machines.with_source(facts, "/etc/apt/sources.list.d/docker.list", line), "/etc/apt/sources.list.d/docker.sources", shared
    )


def repo_file(facts: Facts, kind: str) -> Facts:
    """Docker's own .repo file as Docker ships it, one with the literal release, or two that name it."""
    folder = "/etc/zypp/repos.d" if "suse" in facts.os.id_like else "/etc/yum.repos.d"
    tree = "fedora" if facts.os.id == "fedora" else "centos" if facts.os.id == "centos" else "rhel"
    head = "name=Docker\nenabled=1\ngpgcheck=1\n"
    url = f"baseurl=https://download.docker.com/linux/{tree}/$releasever/$basearch/stable\n"
    own = f"[docker-ce-stable]\n{head}{url}gpgkey=https://download.docker.com/linux/{tree}/gpg\n\n[docker-ce-test]\nbaseurl=x\nenabled=0\n"
    if kind == "one-line":
        return machines.with_source(facts, f"{folder}/docker-ce.repo", own)
    other = f"[other]\nbaseurl=http://mirror.example/x\nenabled=1\n\n[dockers]\n{head}{url}"
    facts = machines.with_source(facts, f"{folder}/company.repo", other)
    return facts if kind == "unsigned" else machines.with_source(facts, f"{folder}/docker.repo", own)


def nvidia(facts: Facts, kind: str) -> Facts:
    if not facts.gpus or kind == "none":
        return facts
    if kind == "nouveau":
        return replace(facts, nvidia=Nvidia(nouveau_loaded=True))
    if kind == "working":
        return working(facts)
    if kind == "working old":
        return working(facts, "470.256.02", is_open=False)
    if kind == "pending":
        return working(
            facts, smi_rc=18, gpus=(), smi_text="Failed to initialize NVML: Driver/library version mismatch", on_disk="580.178.04"
        )
    if kind == "broken":
        return working(
            facts, smi_rc=15, gpus=(), smi_text="Unable to determine the device handle for GPU0000:17:00.0: GPU is lost"
        )
    return with_packages(facts, "nvidia-driver-cuda 595.91.07-1\nnvidia-kernel-open-dkms 595.91.07-1")


def toolkit(facts: Facts, kind: str) -> Facts:
    if not facts.gpus or kind == "none":
        return facts
    if kind == "legacy":
        return with_packages(facts, "nvidia-docker2 2.13.0-1\nnvidia-container-toolkit 1.13.5-1")
    if kind == "partial":
        return with_packages(facts, "nvidia-container-toolkit-base 1.20.0-1")
    return with_toolkit(facts, kind, "580.126.20")


FINE = [
    (),
    ("2330",),
    ("2330", "2335", SWITCH),
    ("1db5",),
    ("1db5", "26b9"),
    ("102d",),
    ("2901", "2901"),
    ("27b8",),
    ("102d", "1eb8"),
]
HARD = [("1db5", "2901"), (gpu("27b8", subsystem="10de:1733"),), ("0fff",), ("fff0",), (gpu(driver="vfio-pci"),)]
SHARED = (gpu(), gpu("2330", "0000:19:00.0", driver="vfio-pci"))
TEXTS = ["{}", '{"debug": true, "runtimes": {"other": {"path": "x"}}}', '{"log-driver": "journald", "log-opts": {"tag": "x"}}']
TEXTS += ['{"features": {"buildkit": true}, "registry-mirrors": ["https://m.example"]}', ""]


def mostly(usual: object, *others: object) -> st.SearchStrategy[object]:
    """What does not stand in the way, and now and then what does: else nearly every plan would be refused for one of a dozen reasons."""
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(others) if n == 9 else st.just(usual))


GPUS = st.one_of(st.sampled_from([*FINE, SHARED]), mostly((), *HARD))
DAEMON = st.sampled_from(TEXTS).flatmap(lambda text: mostly(text, "{nope"))


@st.composite
def hosts(draw: st.DrawFn, systems: tuple[str, ...] = EVERY_SYSTEM) -> Facts:
    facts = machine(draw(st.sampled_from(sorted(systems))))
    facts = with_gpus(facts, *draw(GPUS), secure_boot=draw(st.sampled_from([False, True, None])))
    facts = engine(
        facts,
        draw(
            st.sampled_from(
                ["none", "docker-ce", "docker-ce old", "docker.io", "moby", "static", "podman-docker", "snap", "rootless"]
            )
        ),
    )
    facts = service(facts, draw(st.sampled_from(["as it is", "stopped", "stale"])))
    facts = source(facts, draw(st.sampled_from(["none", "one-line", "unsigned", "two"])))
    facts = nvidia(facts, draw(st.sampled_from(["none", "nouveau", "working", "working old", "pending", "broken", "half"])))
    facts = toolkit(facts, draw(st.sampled_from(["none", "legacy", "partial", "1.17.7", "1.20.0"])))
    facts = with_daemon_json(facts, draw(DAEMON))
    if draw(mostly(False, True)):
        facts = with_packages(facts, "man-db 2.11-1 half-configured")
        facts = replace(facts, last_run=draw(st.sampled_from([None, a_run("lost"), a_run("done")])))
    return replace(
        facts,
        systemd=draw(mostly(True, False)),
        uid=draw(mostly(0, 1000)),
        host_time=draw(mostly(1795400000, 1795300000)),
        locks=draw(st.sampled_from([(), (Lock("/var/lib/dpkg/lock", 7, "unattended-upgr"),)])),
        block_devices=draw(mostly((BlockDevice("nvme1n1", 10**12, "Amazon EC2 NVMe Instance Storage"),), None, ())),
        packages=draw(mostly(facts.packages, None)),
    )


VERSIONS = mostly("", "28", "28.5.2", "29", "29.7.2", "20.10.21")


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    mirror = draw(st.sampled_from([Mirror(), Mirror("https://mirror.example/vendor")]))
    return Spec(
        gpu=draw(mostly("auto", "required", "ignore")),
        docker=DockerSpec(
            source=draw(st.sampled_from(["auto", "auto", "docker-ce", "distro"])),
            version=draw(VERSIONS),
            users=draw(st.sampled_from([(), ("ada",), ("jenkins",)])),
            remove_conflicts=draw(mostly(True, False)),
            beside=draw(mostly(("snap", "rootless"), ())),
            data_root=draw(st.sampled_from(["", "/data/docker"])),
            log=draw(st.sampled_from([Log(), Log("50m")])),
            live_restore=draw(st.sampled_from(["", "yes"])),
            ulimits=draw(st.sampled_from([{}, {"memlock": "unlimited"}])),
            daemon=draw(st.sampled_from([{}, {"bip": "10.9.0.1/24"}, {"features": {"buildkit": False}}])),
        ),
        driver=DriverSpec(
            install=draw(mostly("auto", "never")),
            branch=draw(mostly("auto", "580", "595", "999")),
            flavor=draw(mostly("auto", "open", "proprietary")),
            source=draw(mostly("auto", "distro", "cuda", "runfile")),
            minimum=draw(mostly("", "550", "590.48.01")),
            replace=draw(mostly(True, False)),
            drift=draw(mostly("auto", "hold", "dkms", "prebuilt")),
        ),
        toolkit=ToolkitSpec(
            install=draw(mostly("auto", "never")),
            version=draw(mostly("", "1.20", "1.18.2")),
            default_runtime=draw(st.booleans()),
        ),
        smoke=SmokeSpec(enabled=draw(mostly(True, False))),
        mirrors=Mirrors(mirror, mirror, mirror, draw(st.sampled_from([(), ("https://m.example",)]))),
        proxy=draw(st.sampled_from([Proxy(), Proxy("http://user:secret@proxy.example:3128", "", (".local",))])),
        storage=Storage(draw(st.sampled_from(["", "instance-store"]))),
        run=RunSpec(draw(st.sampled_from(["host", "tree"]))),
        preflight=Preflight(repair=draw(mostly(True, False))),
    )


def armed(decided: Plan) -> Plan:
    """The plan with a key in every source, as `keys.gather` leaves it."""
    return replace(
        decided,
        items=tuple(
            replace(i, action=replace(i.action, key=replace(i.action.key, text=KEY)))
            if isinstance(i.action, (AptRepository, RpmRepository)) and i.action.key
            else i
            for i in decided.items
        ),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts(), specs())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(facts, spec):
    decided = plan(facts, spec, CATALOG)
    contract(decided)
    assert mixes(decided, facts) == []
    allowed = [row["base"] for row in catalog._packaged("repositories")["repository"]] + [
        "https://mirror.example/vendor",
        "http://mirror.example/",
        catalog._packaged("drivers")["installer"]["base"],
    ]
    assert all(any(url.startswith(base) for base in allowed) for url in decided.urls)
    for item in decided.items:
        key = getattr(item.action, "key", None)
        assert key is None or (set(key.fingerprints) <= {machines.PINNED} and any(key.url.startswith(base) for base in allowed))
    assert "secret" not in json.dumps([dict(i.expected) for i in decided.items], default=str)
    for _ in range(3):
        if decided.problems or not decided.changes:
            break
        render.stage(armed(decided), run_id="r")
        facts = after(decided, facts)
        decided = plan(facts, spec, CATALOG)
        contract(decided)
    assert not decided.problems or not any(i.state == CHANGE for i in decided.items)
    if not decided.problems:
        assert [f"{i.id}: {i.why}" for i in decided.items if i.state != OK] == []
        assert decided.converged
        assert decided.restarts == ()
        assert decided.urls == ()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts(), specs())
def test_a_plan_never_depends_on_chance_and_its_digest_names_it(facts, spec):
    first, second = plan(facts, spec, CATALOG), plan(facts, spec, CATALOG)
    assert first == second
    assert digest(first) == digest(second)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hosts(), specs(), st.sampled_from(["nvidia_pci", "docker", "packages", "daemon_json"]))
def test_what_could_not_be_read_is_refused_and_not_guessed(facts, spec, unknown):
    decided = plan(replace(facts, **{unknown: None}), spec, CATALOG)
    contract(decided)
    if unknown != "nvidia_pci" or spec.gpu != "ignore":
        assert decided.problems


# ---------------------------------------------------------------- purity and speed


def test_a_plan_opens_no_file_and_asks_nobody(monkeypatch):
    facts, spec = captured("debian13-h100"), load("gpu-host").spec
    known = catalog.load()
    plan(facts, spec, known)  # the catalog reads its files once

    def forbidden(*words, **options):
        raise AssertionError(f"the planner did something: {words}")

    for place, name in ((builtins, "open"), (os, "stat"), (subprocess, "Popen"), (socket, "socket")):
        monkeypatch.setattr(place, name, forbidden)
    assert plan(facts, spec, known).changes


def test_a_plan_takes_less_than_three_milliseconds():
    facts, spec, known = captured("debian13-h100"), load("gpu-host").spec, catalog.load()
    plan(facts, spec, known)
    spent = []
    for _ in range(20):
        began = time.process_time()
        plan(facts, spec, known)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.003


# ---------------------------------------------------------------- the whole of it


def test_an_unsupported_system_gets_a_whole_plan_and_exit_code_5():
    decided = plan(replace(machine(), os=replace(machine().os, id="gentoo", version_id="2")), Spec(), CATALOG)
    contract(decided)
    assert plan_exit_code(decided) == 5
    assert decided.decisions["docker"].action == "refuse"


def test_a_container_is_refused_with_the_whole_plan_shown():
    decided = plan(machine(container="lxc"), Spec(), CATALOG)
    contract(decided)
    assert plan_exit_code(decided) == 5
    assert "lxc" in decided.problems[0].message
    assert {i.state for i in decided.items} == {REFUSED}
    assert decided.decisions["docker"].details["packages"]


def test_what_comes_after_a_reboot_is_left_for_later():
    facts = nvidia(with_docker(with_gpus(machine(), "2330")), "pending")
    decided = plan(facts, Spec(), CATALOG)
    assert decided.reboot == "needed"
    states = {i.id: i.state for i in decided.items}
    assert states["driver/reboot"] == CHANGE
    assert states["smoke/container"] == LATER


def test_a_proof_is_made_anew_in_the_run_that_changes_what_it_rests_on():
    facts = with_docker(machine())
    proved = after(plan(facts, Spec(), CATALOG), facts)
    assert plan(proved, Spec(), CATALOG).converged
    decided = plan(proved, Spec(docker=DockerSpec(log=Log("50m"))), CATALOG)
    assert {i.id for i in decided.changes} == {"docker/daemon.json", "docker/service", "smoke/container"}


def test_a_fresh_engine_finds_its_configuration_at_its_very_first_start():
    decided = plan(with_gpus(machine(), "2330"), Spec(docker=DockerSpec(data_root="/data")), CATALOG)
    order = [i.id for i in decided.items]
    assert order.index("docker/daemon.json") < order.index("docker/packages")


def test_a_driver_and_its_fabric_manager_name_their_source_once():
    decided = plan(with_gpus(machine("debian 12"), "2330", SWITCH), Spec(), CATALOG)
    assert [i.id for i in decided.items].count("driver/repository") == 1


def test_a_source_that_cannot_be_reached_stops_the_plan_before_anything_is_changed():
    facts = with_gpus(machine("ubuntu 24.04"), "2330")
    url = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64/InRelease"
    decided = plan(replace(facts, reach={url: Reach(url, "dns", "Could not resolve 'nvidia.github.io'")}), Spec(), CATALOG)
    contract(decided)
    assert [p.id for p in decided.problems] == ["preflight/reach"]
    assert "Could not resolve 'nvidia.github.io'" in decided.problems[0].message


def test_a_converged_host_with_a_wrong_clock_or_a_full_disk_is_left_in_peace():
    facts = with_docker(machine())
    facts = after(plan(facts, Spec(), CATALOG), facts)
    facts = replace(facts, host_time=1700000000, disks={})
    assert plan(facts, Spec(), CATALOG).converged


def test_the_paths_and_disks_to_look_at_follow_the_playbook():
    assert "/etc/mlhost/docker-proxy.env" in watched(Spec(proxy=Proxy("http://p:1")))
    assert "/etc/mlhost/docker-proxy.env" not in watched(Spec())
    assert watched_disks(Spec(docker=DockerSpec(data_root="/data"))) == ("/", "/data")
