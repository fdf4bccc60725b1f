"""The container toolkit: four packages at one version, a runtime, a CDI spec."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.model import CHANGE, OK, Facts, Plan
from provision.plan import plan
from provision.spec import DockerSpec, Spec, ToolkitSpec
from provision.steps.toolkit import CDI_CHANGE, CDI_CHECK
from tests.machines import (
    CATALOG,
    PINNED,
    TOOLKIT,
    machine,
    with_daemon_json,
    with_docker,
    with_gpus,
    with_packages,
    with_toolkit,
    working,
)

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


def host(version: str = "5:29.7.2-1~x") -> Facts:
    return working(with_gpus(with_docker(machine(), version=version), "2330"))


def decide(facts: Facts, docker: DockerSpec | None = None, **toolkit: object) -> Plan:
    return plan(facts, Spec(docker=docker or DockerSpec(), toolkit=ToolkitSpec(**toolkit)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str):
    return next(i for i in decided.items if i.id == identifier)


def daemon_json(decided: Plan):
    return json.loads(item(decided, "docker/daemon.json").action.content)


def test_a_fresh_toolkit_comes_from_nvidias_repository_as_four_packages():
    decided = decide(host())
    details = decided.decisions["toolkit"].details
    assert details["packages"] == list(TOOLKIT)
    assert details["version"] is None
    assert details["repository"] == {
        "uri": "https://nvidia.github.io/libnvidia-container/stable/deb/amd64",
        "suite": "/",
        "components": [],
        "key_fingerprint": PINNED,
    }


@pytest.mark.parametrize(("pin", "pattern"), [("1.20.0", "1.20.0-*"), ("1.20", "1.20.*"), ("", "")])
def test_a_pin_is_the_same_for_all_four(pin, pattern):
    action = item(decide(host(), version=pin), "toolkit/packages").action
    assert {p.version for p in action.install} == {pattern}


@pytest.mark.parametrize(
    ("rows", "pin", "why"),
    [
        ("nvidia-container-toolkit-base 1.20.0-1", "", "of it is missing"),
        ("\n".join(f"{n} 1.1{8 + (n == TOOLKIT[3])}.0-1" for n in TOOLKIT), "", "at different versions"),
        ("\n".join(f"{n} 1.17.7-1" for n in TOOLKIT), "", "known to be broken"),
        ("\n".join(f"{n} 1.18.0-1" for n in TOOLKIT), "1.20", "the playbook wants 1.20"),
    ],
)
def test_a_toolkit_that_does_not_do_is_brought_up(rows, pin, why):
    facts = with_packages(host(), rows)
    facts = replace(facts, toolkit=replace(facts.toolkit, version=rows.split()[1].split("-")[0]))
    change = item(decide(facts, version=pin), "toolkit/packages")
    assert change.state == CHANGE
    assert why in change.why


def test_a_broken_release_that_the_playbook_names_is_its_own_decision():
    assert item(decide(with_toolkit(host(), "1.17.7"), version="1.17.7"), "toolkit/packages").state == OK


def test_a_downgrade_is_refused():
    assert [p.id for p in decide(with_toolkit(host(), "1.20.0"), version="1.18").problems] == ["toolkit/packages"]


def test_an_old_toolkit_is_kept_and_its_holes_are_named():
    decided = decide(with_toolkit(host(), "1.17.4"))
    assert decided.decisions["toolkit"].action == "keep"
    assert any(n.id == "toolkit/insecure" for n in decided.notices)


def test_what_the_toolkit_has_replaced_goes_with_consent_and_is_only_named_where_all_is_well():
    facts = with_packages(host(), "nvidia-docker2 2.13.0-1")
    assert [p.id for p in decide(facts).problems] == ["toolkit/conflicts"]
    agreed = decide(facts, DockerSpec(remove_conflicts=True))
    assert item(agreed, "toolkit/packages").action.remove == ("nvidia-docker2",)
    kept = decide(with_packages(with_toolkit(host()), "nvidia-docker2 2.13.0-1"))
    assert kept.problems == ()
    assert any("Remove it without purging" in n.message for n in kept.notices)


def test_no_cgroups_is_pointed_out():
    facts = with_toolkit(host())
    assert any(
        n.id == "toolkit/no-cgroups" for n in decide(replace(facts, toolkit=replace(facts.toolkit, no_cgroups=True))).notices
    )


def test_a_toolkit_left_alone_is_used_where_it_is_there():
    assert daemon_json(decide(with_toolkit(host()), install="never"))["runtimes"]
    decided = decide(host(), install="never")
    assert decided.decisions["toolkit"].action == "skip"
    assert item(decided, "smoke/container").action.gpus == 0


# ---------------------------------------------------------------- daemon.json


def test_the_runtime_is_registered_as_nvidia_ctk_does():
    assert daemon_json(decide(host())) == {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}


@pytest.mark.parametrize("path", ["nvidia-container-runtime", "/usr/bin/nvidia-container-runtime"])
def test_a_runtime_that_is_there_keeps_its_arguments(path):
    facts = with_daemon_json(
        with_toolkit(host()), json.dumps({"runtimes": {"nvidia": {"path": path, "runtimeArgs": ["--debug"]}}})
    )
    assert item(decide(facts), "docker/daemon.json").state == OK


@pytest.mark.parametrize(
    ("engine", "features"),
    [
        ("5:24.0.9-1~x", None),
        ("5:25.0.1-1~x", {"cdi": True}),
        ("5:28.1.1-1~x", {"cdi": True}),
        ("5:28.2.0-1~x", None),
        ("5:29.7.2-1~x", None),
    ],
)
def test_cdi_is_switched_on_for_the_engines_that_have_it_off(engine, features):
    assert daemon_json(decide(host(engine))).get("features") == features


def test_other_features_of_the_user_stay():
    facts = with_daemon_json(host("5:25.0.1-1~x"), '{"features": {"buildkit": true}}')
    assert daemon_json(decide(facts))["features"] == {"buildkit": True, "cdi": True}


def test_the_playbooks_own_word_on_the_runtime_wins():
    spec = DockerSpec(daemon={"runtimes": {"nvidia": {"path": "/opt/nvidia-container-runtime"}}})
    assert daemon_json(decide(host(), spec))["runtimes"]["nvidia"]["path"] == "/opt/nvidia-container-runtime"


def test_the_default_runtime_on_request():
    assert daemon_json(decide(host(), default_runtime=True))["default-runtime"] == "nvidia"


# ---------------------------------------------------------------- CDI


@pytest.mark.parametrize(
    ("specs", "state"),
    [
        ({"/var/run/cdi/nvidia.yaml": "580.126.20"}, OK),
        ({"/run/cdi/nvidia.yaml": ""}, OK),
        ({"/etc/cdi/nvidia.yaml": "580.126.20"}, OK),
        ({}, CHANGE),
        ({"/etc/cdi/intel.yaml": ""}, CHANGE),
        ({"/var/run/cdi/nvidia.yaml": "570.86.15"}, CHANGE),
        ({"/var/run/cdi/nvidia.yaml": "580.126.20", "/etc/cdi/nvidia.yaml": "535.1.1"}, OK),
        ({"/var/run/cdi/nvidia.yaml": "570.86.15", "/etc/cdi/nvidia.yaml": "580.126.20"}, CHANGE),
    ],
)
def test_the_spec_that_docker_goes_by_must_fit_the_driver(specs, state):
    facts = with_toolkit(host())
    facts = replace(facts, toolkit=replace(facts.toolkit, cdi_specs=specs))
    assert item(decide(facts), "toolkit/cdi").state == state


def test_an_engine_too_old_for_cdi_asks_for_gpus_by_the_hook():
    decided = decide(with_toolkit(host("5:24.0.9-1~x")))
    assert "toolkit/cdi" not in [i.id for i in decided.items]
    assert item(decided, "smoke/container").action.request == "gpus"
    assert item(decide(with_toolkit(host())), "smoke/container").action.request == "cdi"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("listed", "made", "loaded", "rc"),
    [
        ("nvidia.com/gpu=0", "580.126.20", "580.126.20", 0),
        ("nvidia.com/gpu=0", "570.86.15", "580.126.20", 1),
        ("nvidia.com/gpu=0", "", "580.126.20", 0),
        ("nvidia.com/gpu=0", "580.126.20", "", 0),
        ("intel.com/gpu=0", "580.126.20", "580.126.20", 1),
        ("", "580.126.20", "580.126.20", 1),
    ],
)
def test_the_check_of_the_spec_runs_in_every_shell(tmp_path, shell, listed, made, loaded, rc):
    """With a double of nvidia-ctk, and the paths moved under a temporary root."""
    if not shutil.which(SHELLS[shell][0]):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-ctk").write_text(f"#!/bin/sh\necho {listed}\n")
    (tmp_path / "bin/nvidia-ctk").chmod(0o755)
    for path, text in {
        "var/run/cdi/nvidia.yaml": f"hostPath: /usr/lib/libcuda.so.{made}\n" if made else "kind: nvidia.com/gpu\n",
        "sys/module/nvidia/version": f"{loaded}\n",
    }.items():
        if text.strip():
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(text)
    text = (
        CDI_CHECK.replace("/var/run/cdi", f"{tmp_path}/var/run/cdi")
        .replace("/etc/cdi", f"{tmp_path}/etc/cdi")
        .replace("/sys/module", f"{tmp_path}/sys/module")
    )
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    assert subprocess.run([*SHELLS[shell], "-c", text], check=False, env=env, timeout=30).returncode == rc


@pytest.mark.parametrize("text", [CDI_CHECK, CDI_CHANGE])
def test_the_scripts_are_clean(tmp_path: Path, text):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    (tmp_path / "x.sh").write_text(f"#!/bin/sh\n{text}\n")
    subprocess.run(["shellcheck", "-s", "sh", str(tmp_path / "x.sh")], check=True, timeout=60)
