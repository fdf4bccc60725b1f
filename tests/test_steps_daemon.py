"""daemon.json and the service: what is wanted, what it takes for Docker to see it, and who is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from provision.model import CHANGE, LATER, OK, Facts, Plan
from provision.plan import plan
from provision.spec import DockerSpec, Log, Mirrors, Proxy, Spec
from tests.effects import after
from tests.machines import CATALOG, machine, unit, with_daemon_json, with_docker, with_gpus, with_toolkit, working


def decide(facts: Facts, **docker: object) -> Plan:
    return plan(facts, Spec(docker=DockerSpec(**docker)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str):
    return next(i for i in decided.items if i.id == identifier)


def written(decided: Plan):
    return json.loads(item(decided, "docker/daemon.json").action.content)


def gpu_host(**docker: object) -> Facts:
    """A GPU host set up and proved, with Docker 29."""
    facts = with_toolkit(working(with_gpus(with_docker(machine(), version="5:29.7.2-1~x"), "2330")), spec="580.126.20")
    facts = after(plan(facts, Spec(), CATALOG), facts)
    assert plan(facts, Spec(), CATALOG).converged
    return replace(facts, docker=replace(facts.docker, **docker))  # type: ignore[arg-type]


def test_every_setting_of_the_playbook_becomes_a_key():
    spec = DockerSpec(
        log=Log("50m", 5),
        live_restore="yes",
        shm_size="8g",
        ulimits={"memlock": "unlimited", "nofile": "1048576"},
        insecure_registries=("r.example:5000",),
        data_root="/data",
        daemon={"bip": "10.9.0.1/24", "features": {"buildkit": True}},
    )
    keys = written(plan(machine(), Spec(docker=spec, mirrors=Mirrors(registry=("https://m.example",))), CATALOG))
    assert keys == {
        "log-driver": "json-file",
        "log-opts": {"max-size": "50m", "max-file": "5"},
        "live-restore": True,
        "default-shm-size": "8g",
        "default-ulimits": {
            "memlock": {"Name": "memlock", "Hard": -1, "Soft": -1},
            "nofile": {"Name": "nofile", "Hard": 1048576, "Soft": 1048576},
        },
        "insecure-registries": ["r.example:5000"],
        "registry-mirrors": ["https://m.example"],
        "data-root": "/data",
        "features": {"containerd-snapshotter": False, "buildkit": True},
        "bip": "10.9.0.1/24",
    }


def test_the_users_driver_that_rotates_stays():
    facts = with_daemon_json(with_docker(machine()), '{"log-driver": "local"}')
    assert written(decide(facts, log=Log("50m"))) == {"log-driver": "local", "log-opts": {"max-size": "50m", "max-file": "3"}}


@pytest.mark.parametrize(
    ("keys", "act"), [({"shm_size": "8g"}, "reload"), ({"log": Log("50m")}, "restart"), ({"daemon": {"debug": True}}, "reload")]
)
def test_docker_is_restarted_only_for_what_a_reload_does_not_bring(keys, act):
    decided = decide(with_docker(machine(), running_containers=2), **keys)
    assert item(decided, "docker/service").action.act == act
    assert bool(decided.restarts) == (act == "restart")


@pytest.mark.parametrize(
    ("live_restore", "words"), [(True, "will go on (live-restore)"), (False, "will stop; those with a restart policy come back")]
)
def test_a_restart_says_what_becomes_of_running_containers(live_restore, words):
    decided = decide(with_docker(machine(), running_containers=2, live_restore=live_restore), log=Log("50m"))
    assert decided.restarts == (f"docker.service (2 containers are running and {words})",)


def test_a_toolkit_put_beside_a_running_docker_restarts_it_though_the_file_needs_a_reload_only():
    facts = working(with_gpus(with_docker(machine()), "2330"))
    decided = decide(facts)
    assert item(decided, "docker/daemon.json").state == CHANGE
    assert item(decided, "docker/service").action.act == "restart"
    assert "looks for the NVIDIA toolkit only when it starts" in item(decided, "docker/service").why


def test_a_toolkit_put_beside_a_docker_that_has_its_runtime_already_restarts_it_too():
    facts = working(with_gpus(with_docker(machine()), "2330"))
    facts = with_daemon_json(facts, '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": []}}}')
    decided = decide(facts)
    assert item(decided, "docker/daemon.json").state == OK
    assert item(decided, "docker/service").action.act == "restart"


def test_a_changed_proxy_restarts_docker_in_the_same_run():
    decided = plan(with_docker(machine()), Spec(proxy=Proxy("http://p.example:3128")), CATALOG)
    assert item(decided, "docker/service").action.act == "restart"


def test_a_toolkit_that_was_only_upgraded_restarts_nothing():
    facts = gpu_host(started_before=("/usr/bin/nvidia-container-runtime-hook", "/usr/bin/nvidia-container-runtime"))
    assert plan(facts, Spec(), CATALOG).converged


def test_a_toolkit_that_docker_has_never_seen_restarts_it():
    facts = replace(gpu_host(started_before=("/usr/bin/nvidia-cdi-hook",)), proof={})
    decided = decide(facts)
    assert item(decided, "docker/service").action.act == "restart"
    assert "/usr/bin/nvidia-cdi-hook" in item(decided, "docker/service").action.newer_than


def test_a_drop_in_of_the_users_that_docker_has_not_read_is_looked_at_by_the_script_too():
    path = "/etc/systemd/system/docker.service.d/mine.conf"
    decided = decide(with_docker(machine(), started_before=(path,)))
    assert path in item(decided, "docker/service").action.newer_than
    assert decided.restarts


def test_moving_the_data_directory_says_what_stays_behind():
    decided = decide(with_docker(machine()), data_root="/data")
    assert any("/var/lib/docker stay there" in n.message for n in decided.notices)
    assert "features" not in written(decided)


@pytest.mark.parametrize("text", ["{nope", "[1]", '{"a": 1, "a": 2}'])
def test_a_malformed_file_is_refused_and_nothing_is_touched(text):
    decided = decide(with_daemon_json(with_docker(machine()), text))
    assert [p.id for p in decided.problems] == ["docker/daemon.json"]
    assert "/etc/docker/daemon.json" in decided.problems[0].message
    assert decided.changes == ()


def test_an_unreadable_file_is_refused():
    assert [p.id for p in decide(replace(with_docker(machine()), daemon_json=None)).problems] == ["docker/daemon.json"]


@pytest.mark.parametrize("name", ["docker.service", "docker.socket"])
def test_a_masked_unit_is_somebodys_decision(name):
    facts = with_docker(machine())
    decided = decide(replace(facts, units={**facts.units, **unit(name, "inactive", "masked", "masked")}))
    assert [p.id for p in decided.problems] == ["docker/service"]
    assert f"systemctl unmask {name}" in decided.problems[0].fix


def test_live_restore_is_refused_in_a_swarm():
    assert [p.id for p in decide(with_docker(machine(), swarm=True), live_restore="yes").problems] == ["docker/service"]


def test_a_host_without_systemd_is_content_with_a_daemon_that_answers():
    facts = replace(with_docker(machine()), systemd=False, units={})
    assert item(decide(facts), "docker/service").state == OK
    stopped = replace(facts, docker=replace(facts.docker, server=""))
    assert item(decide(stopped), "docker/service").state == CHANGE


def test_units_that_systemd_did_not_tell_are_looked_at_again_and_not_called_absent():
    facts = replace(with_docker(machine()), units={}, unknown=("units",))
    assert "did not tell" in item(decide(facts), "docker/service").why


def test_a_service_that_runs_and_does_not_answer_is_started_again_with_its_own_words():
    facts = with_docker(machine(), server="", error="Cannot connect to the Docker daemon\nmore")
    assert (
        item(decide(facts), "docker/service").why
        == "the service is not answering and enabled (Cannot connect to the Docker daemon)"
    )


def test_whether_a_service_runs_is_not_guessed_from_an_unpacked_tree():
    facts = replace(with_docker(machine(), server=None), live=False, units={}, systemd=None, uid=None)
    assert item(decide(facts), "docker/service").state == LATER


def test_settings_that_are_there_already_are_no_change():
    facts = with_daemon_json(with_docker(machine()), '{"default-shm-size": "8g", "mtu": 1400}')
    decided = decide(facts, shm_size="8g")
    assert item(decided, "docker/daemon.json").state == OK
    assert item(decided, "docker/service").state == OK
