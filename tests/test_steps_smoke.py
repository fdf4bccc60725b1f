"""The proof: when it holds, when it is made anew; and that planner and script mean the same by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from provision.facts.text import pairs
from provision.model import CHANGE, OK, Facts, Item
from provision.plan import plan
from provision.spec import DockerSpec, SmokeSpec, Spec
from provision.steps import smoke
from tests.effects import after
from tests.machines import CATALOG, machine, with_daemon_json, with_docker, with_gpus, with_toolkit, working

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


def decide(facts: Facts, **spec: object) -> Item:
    decided = plan(facts, Spec(smoke=SmokeSpec(**spec)), CATALOG)  # type: ignore[arg-type]
    return next(i for i in decided.items if i.step == "smoke")


def proved(gpus: bool = True) -> Facts:
    facts = with_docker(machine(), version="5:29.7.2-1~x")
    facts = with_toolkit(working(with_gpus(facts, "2330", "2330")), spec="580.126.20") if gpus else facts
    facts = after(plan(facts, Spec(), CATALOG), facts)
    assert plan(facts, Spec(), CATALOG).converged
    return facts


def test_a_host_without_gpus_is_proved_by_a_plain_container_and_says_so():
    item = decide(with_docker(machine()))
    assert item.action.gpus == 0
    assert "there is no GPU to show" in item.why


def test_a_host_with_gpus_is_proved_by_as_many_of_them():
    facts = with_toolkit(working(with_gpus(with_docker(machine()), "2330", "2330")), spec="580.126.20")
    assert decide(facts).action == smoke.Smoke("embedded", 2, "cdi")


def test_a_proof_names_its_time_and_keeps_its_action_for_verify():
    item = decide(proved())
    assert item.state == OK
    assert item.why.startswith("proved 2026-11-23T04:00:00Z: nvidia-smi in a container sees 2 GPUs")
    assert item.action.gpus == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda f: replace(f, kernel="6.1.0-99-amd64"),
        lambda f: replace(f, docker=replace(f.docker, server="29.8.0")),
        lambda f: working(f, "580.178.04"),
        lambda f: replace(f, toolkit=replace(f.toolkit, version="1.20.1")),
        lambda f: with_daemon_json(f, f.daemon_json + "\n"),
        lambda f: working(with_gpus(f, "2330")),
        lambda f: replace(f, proof={}),
    ],
)
def test_a_proof_falls_with_anything_it_rests_on(change):
    assert decide(change(proved())).state == CHANGE


def test_a_reboot_alone_does_not_undo_a_proof():
    assert decide(replace(proved(), boot_id="other")).state == OK


def test_another_image_is_another_proof():
    assert decide(proved(), image="debian:13").state == CHANGE


def test_no_proof_where_the_playbook_wants_none():
    decided = plan(with_docker(machine()), Spec(smoke=SmokeSpec(enabled=False)), CATALOG)
    assert decided.decisions["smoke"].action == "skip"
    assert decided.converged


def test_an_engine_that_is_refused_leaves_nothing_to_prove():
    decided = plan(with_docker(machine()), Spec(docker=DockerSpec(version="20")), CATALOG)
    assert decided.decisions["smoke"].action == "skip"
    assert decided.problems


DOUBLES = {
    "docker": "echo 29.7.2",
    "nvidia-smi": "echo 580.126.20",
    "nvidia-ctk": "printf 'NVIDIA Container Toolkit CLI version 1.20.0\\ncommit: 0\\n'",
    "uname": "echo 6.1.0-40-cloud-amd64",
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("gpus", [True, False])
def test_the_script_writes_the_proof_that_the_planner_expects(tmp_path: Path, shell, gpus):
    """The real function of the real script, with doubles of the programs it asks. Were a word different, no second run would be without a change."""
    if not shutil.which(SHELLS[shell][0]):
        pytest.skip(f"{shell} is not installed")
    facts = proved(gpus)
    (tmp_path / "bin").mkdir()
    for name, text in DOUBLES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n# a double for tests\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    if facts.daemon_json:
        (tmp_path / "root/etc/docker").mkdir(parents=True)
        (tmp_path / "root/etc/docker/daemon.json").write_text(facts.daemon_json)
    scripts = resources.files("provision") / "scripts"
    prelude = "\n".join((scripts / name).read_text(encoding="utf-8") for name in ("prelude.sh", "actions/smoke.sh"))
    action = decide(facts).action
    script = f"{prelude}\nsmoke_now {action.image} {action.gpus} '{action.request}'\n"
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "MLHOST_ROOT": str(tmp_path / "root")}
    done = subprocess.run([*SHELLS[shell], "-s"], input=script, capture_output=True, text=True, timeout=60, check=False, env=env)
    written = pairs(done.stdout)
    expected = smoke.inputs(facts, action)
    assert {key: written.get(key) for key in expected} == expected
    assert decide(replace(facts, proof=written)).state == OK
