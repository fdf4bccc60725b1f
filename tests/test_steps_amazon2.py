"""Amazon Linux 2: its engine is in Amazon's extras, its driver comes by NVIDIA's installer without DKMS, and its kernel is held."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.actions import Command, File, Hold, Packages, Runfile
from provision.model import CHANGE, OK, Facts, Item, Plan
from provision.plan import plan
from provision.spec import DriverSpec, Spec, ToolkitSpec
from tests.effects import after
from tests.machines import CATALOG, machine, with_gpus, with_packages, with_source, working

T4, V100, A10G, K80 = "1eb8", "1db1", "2237", "102d"
EXTRAS = "/etc/yum.repos.d/amzn2-extras.repo"
OLD, NEW = "4.14.355-280.695.amzn2.x86_64", "5.10.245-241.978.amzn2.x86_64"


def host(*devices: str, kernel: str = NEW, extras: str | None = "[amzn2extra-docker]\nenabled = 0\nname = Extras\n") -> Facts:
    facts = with_gpus(machine("amazon 2", kernel=kernel), *devices)
    facts = replace(facts, rpm_sources=(), rpm_source_texts={})
    return with_source(facts, EXTRAS, extras) if extras else facts


def decide(facts: Facts, **driver: object) -> Plan:
    return plan(facts, Spec(driver=DriverSpec(**driver)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str) -> Item:
    return next(i for i in decided.items if i.id == identifier)


def test_extras_that_are_off_are_switched_on_where_they_stand_and_nothing_else_of_the_file_changes():
    found = item(decide(host(extras="[amzn2extra-docker]\nenabled = 0\nname = Extras\n[amzn2extra-epel]\nenabled = 0\n")), "docker/repository")
    assert isinstance(found.action, File)
    assert found.action.path == EXTRAS
    assert found.action.content == "[amzn2extra-docker]\nenabled=1\nname = Extras\n[amzn2extra-epel]\nenabled = 0\n"


def test_extras_that_no_file_names_are_switched_on_by_amazons_own_tool():
    found = item(decide(host(extras=None)), "docker/repository")
    assert isinstance(found.action, Command)
    assert found.action.change == "amazon-linux-extras enable docker"


def test_extras_that_are_on_are_left_alone():
    assert item(decide(host(extras="[amzn2extra-docker]\nenabled = 1\nname = Extras\n")), "docker/repository").state == OK


@pytest.mark.parametrize(
    ("device", "kernel", "version", "flavor", "compiler"),
    [
        (T4, NEW, "580.178.04", "open", "gcc10"),
        (A10G, NEW, "580.178.04", "open", "gcc10"),
        (V100, NEW, "580.178.04", "proprietary", "gcc10"),
        (K80, NEW, "470.256.02", "proprietary", "gcc10"),
        (T4, OLD, "550.163.01", "proprietary", ""),
        (A10G, OLD, "550.163.01", "proprietary", ""),
        (V100, OLD, "550.163.01", "proprietary", ""),
        (K80, OLD, "470.256.02", "proprietary", ""),
    ],
)
def test_each_of_amazons_gpus_gets_the_newest_installer_that_builds_for_the_kernel(device, kernel, version, flavor, compiler):
    decided = decide(host(device, kernel=kernel))
    assert decided.problems == ()
    assert decided.decisions["driver"].details["flavor"] == flavor
    action, packages = item(decided, "driver/runfile").action, item(decided, "driver/packages").action
    assert isinstance(action, Runfile)
    assert isinstance(packages, Packages)
    assert (action.version, action.cc) == (version, f"/usr/bin/{compiler}-cc" if compiler else "")
    assert "--dkms" not in action.options
    assert [p.name for p in packages.install] == [f"kernel-devel-{kernel}", "gcc", "make", *([compiler] if compiler else [])]


def test_arm_servers_with_the_old_kernel_are_told_that_nothing_builds_for_it():
    decided = decide(replace(host("1eb4", kernel=OLD.replace("x86_64", "aarch64")), arch="aarch64"))
    (problem,) = decided.problems
    assert "580.178.04 is not known to build for kernel 4.14" in problem.message


def test_without_dkms_the_kernel_is_held_after_the_plugin_for_it_and_an_update_takes_no_gpu_away():
    decided = decide(host(T4))
    held = item(decided, "driver/drift").action
    assert isinstance(held, Hold)
    assert held.packages == ("kernel", "kernel-devel")
    order = [i.id for i in decided.items]
    assert order.index("driver/locks") < order.index("driver/drift") < order.index("driver/runfile")


def test_a_playbook_that_wants_dkms_is_told_that_there_is_none():
    (problem,) = decide(host(T4), drift="dkms").problems
    assert "there is no dkms for Amazon Linux 2" in problem.message
    assert "driver.drift=hold" in problem.fix


@pytest.mark.parametrize("kernel", [OLD, NEW])
def test_once_it_is_set_up_nothing_is_left_to_do_and_a_lock_that_went_missing_is_set_again(kernel):
    facts = host(T4, kernel=kernel)
    for _ in range(3):
        facts = after(decide(facts), facts)
    assert [i.id for i in decide(facts).items if i.state == CHANGE] == []
    free = replace(facts, packages={**(facts.packages or {}), "kernel": replace((facts.packages or {})["kernel"], held=False)})
    assert [i.id for i in decide(free).items if i.state == CHANGE] == ["driver/drift"]


def test_a_driver_of_amazons_own_gpu_image_is_kept():
    facts = working(host(T4, kernel=NEW), "550.163.01", is_open=False)
    facts = with_packages(facts, "nvidia-driver-latest-dkms 3:550.163.01-1.el7\ndkms 3.0.13-1.el7")
    assert decide(facts).decisions["driver"].action == "keep"


@pytest.mark.parametrize(("version", "refused"), [("1.19.1", True), ("1.19.0", True), ("1.20.1", False), ("1.18.2", False)])
def test_a_toolkit_whose_packages_its_rpm_cannot_read_is_refused_before_anything_is_installed(version, refused):
    decided = plan(host(T4), Spec(toolkit=ToolkitSpec(version=version)), CATALOG)
    assert bool(decided.problems) == refused
    if refused:
        assert "rpm there does not know" in decided.problems[0].message
        assert "1.20.1" in decided.problems[0].fix


def test_its_end_of_support_is_told_and_only_once_it_has_come():
    def told(facts: Facts) -> list[str]:
        return [n.message for n in decide(facts).notices if n.id == "preflight/end-of-support"]

    assert "since 2026-06-30" in told(host())[0]
    assert told(replace(host(), host_time=1782777600, asked_at=1782777600)) == [], "the last day of support"
    assert told(machine("amazon 2023")) == []
