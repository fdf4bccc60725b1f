"""The known failures as data: sound rows, every signature true to texts that people saw, and a page that is what the data says."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from provision import playbook
from provision.cli.setup import command as setup
from provision.doctor.checks import CHECKS
from provision.doctor.failures import FILES, LAYERS, Failure, load, read
from provision.doctor.texts import text
from provision.examine import of_text
from provision.failure_docs import page

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
BY_ID = {failure.id: failure for failure in load()}
CASES: list[dict[str, Any]] = [case for name in FILES for case in tomllib.loads((ROOT / f"tests/failures/{name}.toml").read_text())["case"]]
# Words of every day that are near to messages and mean nothing.
HARMLESS = (
    "Setting up docker-ce (5:28.5.1-1~debian.12~bookworm) ...",
    "Sep 01 10:00:00 h dockerd[1]: time=\"2026-09-01T10:00:00Z\" level=info msg=\"Daemon has completed initialization\"",
    "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)",
    "| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |",
    "Get:1 https://download.docker.com/linux/debian bookworm InRelease [47.0 kB]",
    "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.",
    "Epoch 1/10 loss=0.231 device=cuda:0",
    "nvidia-persistenced.service: Deactivated successfully.",
    "error: something went wrong",
)


def case_name(case: dict[str, Any]) -> str:
    return f"{case['failures'][0]}-{CASES.index(case)}"


def test_at_least_120_failures_are_known_and_every_layer_has_some() -> None:
    assert len(BY_ID) >= 120
    assert {failure.layer for failure in BY_ID.values()} == set(LAYERS)


def test_most_texts_are_reports_of_people_and_every_one_has_its_link() -> None:
    reports = [case for case in CASES if case["from"] == "report"]
    assert len(reports) >= 120
    assert {case["from"] for case in CASES} == {"report", "source"}
    for case in CASES:
        assert case["link"].startswith("https://"), case
        assert bool(re.search(r"github\.com/[^/]+/[^/]+/(issues|pull|discussions)/\d+$", case["link"])) == (case["from"] == "report"), case["link"]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_text_that_was_seen_means_what_it_means(case: dict[str, Any]) -> None:
    seen = text("the text", case["text"], current=True)
    for name in case["failures"]:
        assert seen.find(BY_ID[name].signature), f"{name} does not know {case['text']!r}"
    found = {finding.failure.id for finding in of_text(seen).findings}
    wanted = {name for name in case["failures"] if not BY_ID[name].fallback}
    assert wanted <= found
    assert found, "somebody who has only this text is told nothing"


def test_every_failure_with_a_message_has_a_text() -> None:
    told = {name for case in CASES for name in case["failures"]}
    assert told <= set(BY_ID)
    assert [failure.id for failure in BY_ID.values() if failure.signature and failure.id not in told] == []


@pytest.mark.parametrize("harmless", HARMLESS)
def test_everyday_lines_mean_nothing(harmless: str) -> None:
    assert [f.failure.id for f in of_text(text("the text", harmless, current=True)).findings] == []


@pytest.mark.parametrize("failure", BY_ID.values(), ids=list(BY_ID))
def test_a_row_is_whole(failure: Failure) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", failure.id)
    assert set(failure.check) <= set(CHECKS), set(failure.check) - set(CHECKS)
    assert failure.remedy
    assert failure.source.startswith("https://")
    assert failure.cause.endswith("."), failure.cause
    assert not failure.title.endswith(".")
    assert not failure.fallback or failure.signature or failure.alone


def test_every_predicate_is_used() -> None:
    assert set(CHECKS) - {name for failure in BY_ID.values() for name in failure.check} == set()


def test_every_setting_that_a_remedy_names_is_one_of_the_playbooks() -> None:
    for failure in BY_ID.values():
        for remedy in failure.remedy:
            for key, value in re.findall(r"mlhost setup [^;]*?--set ([a-z_.]+)=(\S+)", remedy):
                given = {"[USER]": "[ada]", "/BIG/docker": "/big/docker", "…": "580", "/…": "/data", "http://HOST:PORT": "http://proxy.example:3128",
                         "http://USER:PASSWORD@HOST:PORT": "http://proxy.example:3128"}
                plain = value.rstrip(",;)")
                playbook.load("gpu-host", (f"{key}={given.get(plain, plain)}",))
            for option in re.findall(r"mlhost setup .*?(--[a-z-]+)", remedy):
                assert option in {name for parameter in setup.params for name in parameter.opts}, remedy


def test_every_item_that_fix_names_is_one_of_the_plans() -> None:
    known = "".join(path.read_text() for path in (ROOT / "provision/steps").glob("*.py"))
    for failure in BY_ID.values():
        for item in failure.fix:
            step, _, rest = item.partition("/")
            assert f'"{item}"' in known or (f"/{rest}" in known and step in ("docker", "toolkit", "driver")), item


def test_nothing_that_needs_consent_is_fixed_without_asking() -> None:
    forbidden = {"docker/conflicts", "toolkit/conflicts", "driver/packages", "driver/reboot", "driver/replace", "docker/packages", "driver/nouveau"}
    assert {item for failure in BY_ID.values() for item in failure.fix} & forbidden == set()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "x"}, "no cause"),
        ({"id": "x", "layer": "moon", "title": "t", "cause": "c.", "remedy": ["r"], "source": "s", "signature": ["a"]}, "layer 'moon'"),
        ({"id": "x", "layer": "disk", "title": "t", "cause": "c.", "remedy": ["r"], "source": "s"}, "neither a signature nor alone"),
        ({"id": "x", "layer": "disk", "title": "t", "cause": "c.", "remedy": ["r"], "source": "s", "alone": True}, "alone without a check"),
        ({"id": "x", "layer": "disk", "title": "t", "cause": "c.", "remedy": ["r"], "source": "s", "signature": ["a"], "cheque": []}, "unknown key cheque"),
    ],
)
def test_a_row_that_is_wrong_is_refused_by_name(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read([row])


def test_all_signatures_together_are_quick_on_a_long_log() -> None:
    log = text("log", "\n".join(f"[{n}.0] NVRM: something 0x{n:x} happened to GPU {n % 8} in {n} ms (error {n})" for n in range(4000)), current=True)
    began = time.process_time()
    of_text(log)
    assert time.process_time() - began < 20


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert (ROOT / "docs/failures.md").read_text(encoding="utf-8") == page(), "run: python -m provision.failure_docs > docs/failures.md"


def test_the_page_has_every_failure_with_its_remedy_and_source() -> None:
    shown = page()
    for failure in BY_ID.values():
        assert f"`{failure.id}`" in shown
        assert f"<{failure.source}>" in shown
