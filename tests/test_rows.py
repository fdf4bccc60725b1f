"""Every row of the catalog: it has a host under tests/hosts, and what is rendered for it is shell that shellcheck accepts."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision import actions, render
from provision.capture import split
from provision.catalog import load
from provision.facts import parse
from provision.model import CHANGE, Item, Plan
from provision.plan import plan
from provision.spec import DockerSpec, DriverSpec, Log, Proxy, Spec, Storage
from tests import captures, captures_gpus, captures_rpm
from tests.machines import CATALOG, EVERY_SYSTEM, KEY, SWITCH, machine, with_gpus
from tests.test_plan import mixes

HOSTS = Path(__file__).parent / "hosts"
GPUS = ((), ("2330", SWITCH), ("1db5",), ("102d",), ("2901", "2901"), ("27b8",))
SPECS = (
    Spec(docker=DockerSpec(remove_conflicts=True)),
    Spec(
        docker=DockerSpec(remove_conflicts=True, users=("ada",), log=Log("50m"), version="28.5.2"),
        driver=DriverSpec(drift="hold"),
        proxy=Proxy("http://proxy.example:3128"),
        storage=Storage("instance-store"),
    ),
)


def test_every_row_of_the_catalog_has_a_host() -> None:
    known = load()
    rows = {(row["id"], row["version"]) for row in known.systems}
    for path in HOSTS.glob("*/probe.txt"):
        facts = parse(split(path.read_bytes()))
        rows -= {(facts.os.id, version) for version in (facts.os.version_id, facts.os.version_id.partition(".")[0])}
    assert rows == set()


@pytest.mark.parametrize("name", sorted({**captures.ASSEMBLED, **captures_rpm.ASSEMBLED, **captures_gpus.ASSEMBLED}))
def test_an_assembled_host_says_that_it_is_one(name: str) -> None:
    assert (HOSTS / name / "README").read_text().startswith("Assembled, not captured")


def plans() -> list[Plan]:
    return [plan(with_gpus(machine(system), *gpus), spec, CATALOG) for system in EVERY_SYSTEM for gpus in GPUS for spec in SPECS]


def everything(every: list[Plan], family: str) -> Plan:
    """One plan of all the different things that any plan of this family does, refused ones too."""
    found: dict[str, Item] = {}
    one = next(p for p in every if p.platform.family == family)
    for decided in every:
        for item in decided.items if decided.platform.family == family else ():
            action = item.action
            if action is None or isinstance(action, actions.Reboot):
                continue
            if isinstance(action, (actions.AptRepository, actions.RpmRepository)) and action.key:
                action = replace(action, key=replace(action.key, text=KEY))
            number = str(len(found))
            # Packages of one phase would become one transaction.
            found.setdefault(repr(action), replace(item, id=f"{item.id}/{number}", state=CHANGE, action=action, phase=int(number)))
    return replace(one, items=tuple(found.values()), problems=())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("family", ["debian", "rhel", "suse"])
def test_all_that_is_rendered_for_any_row_is_accepted_by_shellcheck(family: str, tmp_path: Path) -> None:
    whole = everything(plans(), family)
    assert len(whole.items) > 30
    script = tmp_path / "stage.sh"
    script.write_text(render.stage(whole, run_id="rows"))
    checked = subprocess.run(["shellcheck", "-s", "sh", str(script)], capture_output=True, text=True, check=False)
    assert checked.stdout == ""
    assert checked.returncode == 0


def test_every_system_can_be_set_up_as_a_docker_host_and_no_plan_mixes_families() -> None:
    for system in EVERY_SYSTEM:
        facts = machine(system)
        decided = plan(facts, Spec(docker=DockerSpec(remove_conflicts=True)), CATALOG)
        assert decided.problems == (), system
        assert decided.decisions["docker"].action == "install", system
        assert mixes(decided, facts) == [], system


def test_every_refusal_of_any_row_has_a_remedy() -> None:
    refusals = {p for decided in plans() for p in decided.problems}
    assert refusals
    assert all(p.fix and p.message.endswith(".") for p in refusals)
