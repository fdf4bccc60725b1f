"""The HTML page and what it is made of: the grid, skew, causes, and results read back from JSON. What a browser makes of the page is in
tests/test_report_browser.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision import layers
from provision.cli import main
from provision.errors import UsageError
from provision.model import Check, HostReport, Plan
from provision.report import grid, saved
from provision.report.jsonout import error_json, many_json, plan_json, report_json, report_json_text
from provision.report.page import FULL, page
from provision.report.verdict import report_of_plan
from tests import report_samples as samples
from tests.report_fleet import ABOUT, LAST, PROVED, SEEN, fleet

EVERY = [
    samples.CHANGED_REPORT, samples.SAME_REPORT, samples.FAILED_REPORT, samples.UNREACHABLE_REPORT, samples.UNVERIFIED_REPORT,
    replace(PROVED, target="gpu-1", last_run=LAST, drift=("docker/service",)),
    report_of_plan("gpu-2", samples.PENDING), report_of_plan("gpu-3", samples.REFUSED), report_of_plan("gpu-4", samples.UNSUPPORTED),
]
EVIL = "\x1b]0;x\x07'\"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e</pre></style>\x00"


class Read(HTMLParser):
    """Every element of a page with its attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("style", "script") else self._raw

    def handle_endtag(self, tag: str) -> None:
        self._raw = "" if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data


# ---------------------------------------------------------------- the grid


def test_a_layer_is_as_bad_as_its_worst_part() -> None:
    cells = grid.cells(fleet(14)[13])
    assert {layer: cell.state for layer, cell in cells.items()} == {
        "system": "ok", "gpu": "ok", "driver": "failed", "docker": "ok", "toolkit": "ok", "smoke": "ok"
    }
    assert cells["driver"].why == "nvidia-smi: 8 GPUs on the PCI bus, and the driver sees 7"
    assert (cells["docker"].text, cells["gpu"].text) == ("29.1.3", "8 × H100 80GB HBM3")


def test_what_waits_what_failed_and_what_drifted_are_told_apart() -> None:
    pending, failed = grid.cells(report_of_plan("a", samples.PENDING)), grid.cells(samples.FAILED_REPORT)
    assert (pending["docker"].state, pending["smoke"].state, pending["driver"].state) == ("change", "later", "ok")
    assert failed["docker"].state == "failed"
    assert grid.cells(replace(report_of_plan("a", samples.PENDING), drift=("docker/packages",)))["docker"].state == "drift"
    assert {cell.state for cell in grid.cells(samples.UNREACHABLE_REPORT).values()} == {"unknown"}
    assert grid.cells(report_of_plan("a", samples.REFUSED))["docker"].state == "refused"


def test_a_user_s_own_step_has_a_column_of_its_own() -> None:
    own = replace(samples.PACKAGES, id="mount-data", step="mount-data")
    cells = grid.cells(report_of_plan("a", replace(samples.CONVERGED, items=(*samples.CONVERGED.items, own))))
    assert cells["own"].state == "change"
    assert all(cell.state != "change" for layer, cell in cells.items() if layer != "own")


def test_every_check_that_verify_makes_has_a_layer(checkout: Path) -> None:
    text = (checkout / "provision/layers.py").read_text() + (checkout / "provision/prove.py").read_text()
    names = set(layers._NAMES.values()) | set(re.findall(r'Check\("([a-z-]+)"', text))
    names |= set(re.findall(r"check_line ([a-z]+) ", (checkout / "provision/scripts/actions/verify.sh").read_text()))
    assert {name for name in names - {"", "plan", "reboot"} if not grid.layer_of(name)} == set()


def test_versions_that_few_hosts_have_are_odd() -> None:
    parts = {part.name: part for part in grid.skew(fleet(40))}
    driver = parts["Driver"]
    assert [(version.text, len(version.hosts), version.odd) for version in driver.versions] == [("580.95.05 open", 36, False), ("570.172.08 open", 3, True)]
    assert driver.unknown == 1
    assert [version.text for version in parts["GPUs"].versions] == ["8 × NVIDIA H100 80GB HBM3 (hopper)"]


def test_what_is_not_there_is_no_version_and_what_is_unknown_is_not_absent() -> None:
    hosts = [replace(PROVED, target="a", versions={**SEEN, "toolkit": ""}), replace(PROVED, target="b", versions={})]
    toolkit = next(part for part in grid.skew(hosts) if part.name == "Container Toolkit")
    assert [(version.text, version.hosts) for version in toolkit.versions] == [("", (0,))]
    assert toolkit.unknown == 1


def test_the_same_trouble_on_several_hosts_is_told_once() -> None:
    causes = grid.causes(fleet(130))
    assert [(cause.status, len(cause.hosts)) for cause in causes] == [("unverified", 4), ("unreachable", 2), ("failed", 2), ("pending", 2)]
    assert causes[1].text == "connection refused on port 22."
    assert causes[2].text == "docker/packages failed."


def test_times_are_told_with_the_slowest_host() -> None:
    look = grid.spans(fleet(20))[0]
    assert (look.name, look.most, look.slowest, look.hosts) == ("look", 10.0, 7, 20)


# ---------------------------------------------------------------- read back


def test_what_was_printed_as_json_is_read_back_as_it_was() -> None:
    about, reports = saved.read(json.dumps(report_json(EVERY, ABOUT)), "x")
    assert about == ABOUT
    assert report_json(reports, about) == report_json(EVERY, ABOUT)


def test_a_fleet_s_json_in_pieces_is_the_same() -> None:
    assert json.loads("".join(report_json_text(EVERY, ABOUT))) == json.loads(json.dumps(report_json(EVERY, ABOUT)))
    assert json.loads("".join(report_json_text([], ABOUT)))["hosts"] == []


UNSUPPORTED = replace(samples.UNSUPPORTED, problems=(replace(samples.UNSUPPORTED.problems[0], id="system/unsupported"),))


@pytest.mark.parametrize("plan", [samples.PENDING, samples.CONVERGED, samples.REFUSED, UNSUPPORTED])
def test_a_plan_s_json_is_results_too(plan: Plan) -> None:
    about, reports = saved.read(json.dumps(plan_json(plan)), "x")
    assert about.command == "plan"
    assert [(r.target, r.status, r.exit_code) for r in reports] == [("gpu-7", report_of_plan("", plan).status, report_of_plan("", plan).exit_code)]


def test_the_plans_of_several_hosts_are_results_with_those_that_gave_none() -> None:
    parts = [{"target": "a", **plan_json(samples.PENDING)}, error_json("b", UsageError("b: no.", "Yes."))]
    about, reports = saved.read(json.dumps(many_json(parts)), "x")
    assert [(r.target, r.status, r.message) for r in reports] == [("a", "pending", ""), ("b", "failed", "b: no.")]
    assert about.command == "plan"


def test_of_several_files_the_last_one_counts() -> None:
    first = (ABOUT, [samples.UNREACHABLE_REPORT, replace(PROVED, target="a")])
    second = (replace(ABOUT, command="setup", made="2026-08-02T00:00:00Z"), [replace(PROVED, target="gpu-9")])
    about, reports = saved.merged([first, second])
    assert [(r.target, r.status) for r in reports] == [("gpu-9", "verified"), ("a", "verified")]
    assert (about.command, about.made) == ("verify, setup", "2026-08-02T00:00:00Z")


GOOD = json.loads(json.dumps(report_json(EVERY, ABOUT)))


@st.composite
def damaged(draw: Any) -> Any:
    """Good results with one value somewhere in them replaced."""
    value = json.loads(json.dumps(GOOD))
    at, key = value, draw(st.sampled_from(sorted(value)))
    while isinstance(at[key], (dict, list)) and at[key] and draw(st.integers(0, 4)):
        at = at[key]
        key = draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else draw(st.integers(0, len(at) - 1))
    at[key] = draw(st.sampled_from([None, 1, -1, "x", [], {}, [1], {"a": 1}, True, 1e30, "\ud800", EVIL]))
    return value


@settings(max_examples=40)
@given(damaged())
def test_damaged_results_are_refused_in_words_or_make_a_page(value: Any) -> None:
    try:
        about, reports = saved.read(json.dumps(value), "results.json")
    except UsageError as error:
        assert "results.json" in error.message  # noqa: PT017 - either is right
    else:
        assert page(reports, about).endswith("</html>")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema": 2}', '{"schema": 1, "hosts": [3]}', '{"schema": 1}', "[" * 100_000])
def test_what_is_no_results_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"results\.json"):
        saved.read(text, "results.json")


# ---------------------------------------------------------------- the page


def test_the_page_needs_nothing_from_outside() -> None:
    read = Read(page(EVERY, ABOUT))
    for tag, attributes in read.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "img", "audio", "video")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href", "action", "srcset", "data"):
                assert (value or "").startswith(("#", "data:,")), (tag, value)
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none';")
    assert "unsafe" not in str(policy)


def test_the_page_tells_of_every_host_what_its_report_does() -> None:
    text = Read(page(EVERY, ABOUT)).text
    for report in EVERY:
        assert report.target in text
        for check in report.checks:
            assert check.id in text
    for words in ("connection refused on port 22.", "Unable to locate package docker-ce", "the host has 8 GPUs, the container sees 7", "2026-08-01 10:15:00 UTC"):
        assert words in text


def hostile() -> HostReport:
    """A report in which every text is an attack."""
    plan = replace(
        samples.PENDING, host=EVIL, platform=replace(samples.PLATFORM, name=EVIL, codename=EVIL, id=EVIL),
        items=tuple(replace(i, id=EVIL, step=EVIL, state=EVIL, why=EVIL, expected={EVIL: EVIL}, actual={EVIL: [EVIL]}) for i in samples.PENDING.items),
    )
    return replace(
        samples.FAILED_REPORT, target=EVIL, status=EVIL, before=plan, message=EVIL, fix=f"`{EVIL}`", log=EVIL * 50, drift=(EVIL,),
        last_run=replace(LAST, id=EVIL, state=EVIL, since=EVIL, owner=EVIL), checks=(Check(EVIL, EVIL, EVIL, EVIL),), versions={"docker": EVIL, "system": EVIL},
    )


def test_what_hosts_say_stays_text() -> None:
    tags = {tag for tag, _ in Read(page([*EVERY, fleet(14)[13]], ABOUT)).elements}
    text = page([hostile(), *EVERY], replace(ABOUT, command=EVIL, version=EVIL, made=EVIL))
    read = Read(text)
    assert {tag for tag, _ in read.elements} <= tags
    assert [tag for tag, _ in read.elements].count("script") == 1
    assert not set(text) & set("\x00\x1b\x07\u202e")


def test_a_password_in_a_url_is_not_on_the_page() -> None:
    text = page([replace(samples.FAILED_REPORT, log="GET http://ada:secret-1@proxy.test/", message="http://ada:secret-1@proxy.test/ said no")], ABOUT)
    assert "secret-1" not in text
    assert "http://***@proxy.test/" in text


def test_of_a_large_fleet_only_hosts_in_trouble_are_folded_in_and_the_page_says_so() -> None:
    small, large = page(fleet(FULL), ABOUT), page(fleet(FULL + 100), ABOUT)
    assert [text.count("<details") for text in (small, large)] == [FULL, sum(report.exit_code != 0 for report in fleet(FULL + 100))]
    assert "The JSON report has them for all" in large
    assert "The JSON report has them for all" not in small


def test_a_page_of_nothing_is_a_page() -> None:
    assert "0 hosts" in Read(page([], ABOUT)).text


# ---------------------------------------------------------------- the command


@pytest.fixture
def results(tmp_path: Path) -> str:
    (tmp_path / "results.json").write_text(json.dumps(report_json(EVERY, ABOUT)))
    return str(tmp_path / "results.json")


@pytest.mark.parametrize(("name", "begins"), [
    ("x.html", "<!doctype html>"), ("x.xml", "<?xml"), ("x.prom", "# HELP mlhost_up"), ("x.json", '{\n  "schema": 1,\n  "command": "verify"'), ("x.txt", "root@gpu-7")
])
def test_kept_results_become_what_the_file_s_name_says(name: str, begins: str, results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", results, "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text().startswith(begins)
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"results.json", name})


def test_without_a_file_the_page_is_printed(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", results]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert main(["report", results, "--format", "text"]) == 0
    assert "gpu-9" in capsys.readouterr().out


def test_a_file_that_holds_no_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text('{"schema": 1, "hosts": [{"target": "a"}]}')
    for name in ("x.json", "missing.json"):
        assert main(["report", str(tmp_path / name), "-o", str(tmp_path / "page.html")]) == 2
        assert name in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
