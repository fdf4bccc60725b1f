"""mlhost from Python: the functions of docs/library.md, as a notebook would call them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision import library as mlhost
from provision.errors import ProbeFailed, UsageError
from provision.model import Facts, HostReport, Plan

CAPTURE = Path(__file__).parent / "hosts/debian13-cloud/probe.txt"


def test_a_capture_becomes_facts_and_a_plan_without_any_host() -> None:
    facts = mlhost.parse(CAPTURE.read_bytes())
    assert isinstance(facts, Facts)
    todo = mlhost.plan(facts)
    assert isinstance(todo, Plan)
    assert [item.id for item in todo.changes][-1] == "smoke/container"
    assert "docker" in mlhost.report(todo)


def test_the_same_facts_and_playbook_give_the_same_plan() -> None:
    facts = mlhost.parse(CAPTURE.read_bytes())
    assert mlhost.plan(facts) == mlhost.plan(facts)


def test_values_on_the_way_count_and_wrong_ones_are_refused() -> None:
    wanted = mlhost.playbook("docker-host", "docker.source=distro")
    assert mlhost.plan(mlhost.parse(CAPTURE.read_bytes()), wanted).decisions["docker"].details["source"] == "distro"
    with pytest.raises(UsageError, match=r"docker\.sauce"):
        mlhost.playbook(None, "docker.sauce=distro")


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(ProbeFailed):
        mlhost.parse(b"hello")


def test_this_machine_can_be_probed_planned_and_rendered() -> None:
    wanted = mlhost.playbook(None, "docker.source=distro", "preflight.allow_container=true")
    with mlhost.connect() as host:
        todo = mlhost.plan(mlhost.parse(mlhost.probe(host, wanted)), wanted)
    if not todo.problems:
        assert 'main "$@" </dev/null' in mlhost.render(todo, wanted)


def test_verify_gives_a_report_and_never_an_exception_for_what_the_host_is() -> None:
    with mlhost.connect() as host:
        report = mlhost.verify(host)
    assert isinstance(report, HostReport)
    assert report.exit_code in (0, 1, 5, 7)
    assert mlhost.report(report)


def test_the_page_about_it_names_every_function_and_no_other() -> None:
    page = (Path(__file__).parent.parent / "docs/library.md").read_text()
    named = set(re.findall(r"mlhost\.(\w+)\(", page)) | set(re.findall(r"^\| `(\w+)`", page, re.M))
    functions = {name for name in mlhost.__all__ if name[0].islower()}
    assert named == functions
