"""Reports: values in, text out. What a person reads is compared with texts under tests/golden, which a person has read too."""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from provision import actions
from provision.errors import Unreachable
from provision.model import (
    AptSource,
    Check,
    Decision,
    Disk,
    Docker,
    Facts,
    GpuRow,
    HostReport,
    Item,
    Lock,
    Nvidia,
    OsRelease,
    Outcome,
    Package,
    PciDevice,
    Plan,
    Reach,
    Toolkit,
)
from provision.report import sanitize
from provision.report.describe import describe
from provision.report.factstext import facts_text
from provision.report.jsonout import error_json, facts_json, many_json, plan_json, report_json
from provision.report.junit import junit_xml
from provision.report.layout import Look, duration, listing
from provision.report.monitoring import prometheus
from provision.report.text import error_text, fleet_summary_text, host_report_text, plan_text, sentence
from provision.report.verdict import SEVERITY, plan_exit_code, report_of_plan, worst
from provision.results import LastRun
from tests import report_samples as samples

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path(__file__).parent.parent / "provision" / "data" / "schema"
WIDE = Look(width=100)

FACTS = Facts(
    host="gpu-7",
    arch="x86_64",
    os=OsRelease("debian", "13", "trixie", pretty_name="Debian GNU/Linux 13 (trixie)"),
    kernel="6.12.48+deb13-cloud-amd64",
    uid=0,
    dmi={"sys_vendor": "Amazon EC2", "product_name": "p5.48xlarge"},
    secure_boot=False,
    systemd=True,
    nvidia_pci=(PciDevice("0000:17:00.0", "10de", "2330", "030200"),),
    nvidia=Nvidia(loaded="580.95.05", loaded_open=True, smi_rc=9, smi_text="NVIDIA-SMI has failed\nbecause it could not talk to the driver\n"),
    docker=Docker(cli="29.0.1", dockerd="29.0.1", server="29.0.1", root_dir="/var/lib/docker", runtimes=("nvidia", "runc"), running_containers=2),
    toolkit=Toolkit(ctk="1.18.0", version="1.18.0", cdi_specs={"/var/run/cdi/nvidia.yaml": "580.95.05"}),
    packages={"docker-ce": Package("docker-ce", "5:29.0.1-1")},
    apt_sources=(AptSource("/etc/apt/sources.list.d/a.sources", True, ("deb",), ("https://ada:secret-1@mirror.test/debian",), ("trixie",), ("main",)),),
    apt_source_texts={"/etc/apt/sources.list.d/a.sources": "Types: deb\nURIs: https://ada:secret-1@mirror.test/debian\n"},
    keyrings={"/etc/apt/keyrings/x.asc": b"not a key"},
    apt_proxy="http://ada:secret-1@proxy.test:3128",
    locks=(Lock("/var/lib/dpkg/lock-frontend", 812, "unattended-upgr"),),
    disks={"/": Disk("/", "/", 31 * 1024 * 1024, 62 * 1024 * 1024)},
    daemon_json='{"proxies": {"http-proxy": "http://ada:secret-1@proxy.test:3128"}}',
    reach={"https://x.test/": Reach("https://x.test/", "ok", "", b"\x00\xff")},
    unknown=("secure-boot",),
)


def golden(name: str, text: str) -> None:
    """Compare with the file; with REGEN=1 in the environment write it instead, for a person to read the difference."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("REGEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


def schema(name: str) -> jsonschema.Draft202012Validator:
    value = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(value)
    return jsonschema.Draft202012Validator(value)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("name", "plan"),
    [("pending", samples.PENDING), ("converged", samples.CONVERGED), ("refused", samples.REFUSED), ("unsupported", samples.UNSUPPORTED)],
)
def test_a_plan_reads_as_a_person_has_approved_it(name: str, plan: Plan) -> None:
    golden(f"plan-{name}", plan_text(plan, WIDE))


def test_a_verbose_plan_shows_every_value_that_differs() -> None:
    golden("plan-verbose", plan_text(samples.PENDING, WIDE, verbose=True))


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("changed", samples.CHANGED_REPORT),
        ("same", samples.SAME_REPORT),
        ("failed", samples.FAILED_REPORT),
        ("unreachable", samples.UNREACHABLE_REPORT),
        ("refused", HostReport("gpu-7", "refused", 1, before=samples.REFUSED, after=samples.REFUSED)),
        ("unverified", samples.UNVERIFIED_REPORT),
    ],
)
def test_a_report_reads_as_a_person_has_approved_it(name: str, report: HostReport) -> None:
    golden(f"report-{name}", host_report_text(report, WIDE))


def test_facts_read_as_a_person_has_approved_them() -> None:
    golden("facts", facts_text(FACTS, samples.PLATFORM, [samples.H100], WIDE, verbose=True))


def test_a_fleet_ends_with_one_line_per_host_and_a_count() -> None:
    golden("fleet", fleet_summary_text([samples.CHANGED_REPORT, samples.SAME_REPORT, samples.FAILED_REPORT, samples.UNREACHABLE_REPORT], WIDE))


def test_a_single_host_has_no_fleet_summary() -> None:
    assert fleet_summary_text([samples.CHANGED_REPORT]) == ""


def test_a_second_run_is_one_line_with_the_proof() -> None:
    text = host_report_text(samples.SAME_REPORT)
    assert "\n" not in text
    assert "nothing to change" in text
    assert "nvidia-smi in a container sees 8 GPUs" in text


def test_a_machine_without_a_gpu_is_said_to_have_none_in_the_one_line_too() -> None:
    checks = (Check("container", "ok", "a container ran"), Check("gpus", "skipped", "there is no NVIDIA GPU on this machine"))
    text = host_report_text(replace(samples.SAME_REPORT, checks=checks))
    assert text == "root@gpu-7: nothing to change — a container ran; there is no NVIDIA GPU on this machine (0.4 s)"


def test_one_reason_for_all_decisions_is_told_once() -> None:
    same = Decision("refuse", "Plan 9 is not supported")
    text = plan_text(replace(samples.UNSUPPORTED, decisions={"docker": same, "driver": same, "smoke": same}))
    assert text.count("Plan 9 is not supported") == 1


def test_a_run_without_a_plan_is_told_by_its_message() -> None:
    assert host_report_text(HostReport("gpu-7", "running", 0, message="run 7 of ada goes on")) == "gpu-7: run 7 of ada goes on"


def test_the_account_does_not_call_what_was_changed_already_right() -> None:
    text = host_report_text(samples.CHANGED_REPORT, WIDE)
    right = next(part for part in text.splitlines() if part.lstrip().startswith("Right"))
    assert "docker/service" in right
    assert "docker/packages" not in right


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_line_of_words_is_wider_than_the_terminal(width: int) -> None:
    text = plan_text(samples.PENDING, Look(width=width), verbose=True) + "\n" + host_report_text(samples.CHANGED_REPORT, Look(width=width))
    # A word longer than the line (a path, a fingerprint) is not broken, and a column of text is at least 40 wide.
    too_wide = [part for part in text.splitlines() if len(part) > max(width, 80) and len(part.split()[-1]) < 30]
    assert too_wide == []


def test_ascii_look_prints_ascii_alone() -> None:
    look = Look(ascii=True)
    parts = [plan_text(plan, look, verbose=True) for plan in (samples.PENDING, samples.CONVERGED, samples.REFUSED)]
    parts += [host_report_text(r, look) for r in (samples.CHANGED_REPORT, samples.SAME_REPORT, samples.FAILED_REPORT)]
    assert all(part.isascii() for part in parts)


def test_colour_changes_nothing_but_colour() -> None:
    plain, colored = plan_text(samples.PENDING, Look()), plan_text(samples.PENDING, Look(color=True))
    assert "\x1b[" in colored
    assert "\x1b" not in plain
    assert sanitize.block(colored) == plain


def test_nothing_is_promised_where_gpus_cannot_be_named() -> None:
    unknown = replace(samples.PENDING, gpus=(GpuRow("0000:01:00.0", "10de:ffff", "", ""),))
    assert "PCI 10de:ffff" in plan_text(unknown)
    assert "no NVIDIA GPU" in plan_text(replace(samples.PENDING, gpus=()))


def test_unknown_facts_are_not_told_as_absent() -> None:
    bare = Facts("h", "x86_64", OsRelease("debian"), nvidia=None, docker=None)
    text = facts_text(bare, "debian 13", [])
    for topic in ("GPUs", "Driver", "Docker", "Kernel"):
        row = next(part for part in text.splitlines() if part.strip().startswith(topic))
        assert "unknown" in row
    assert "not installed" in facts_text(replace(bare, nvidia=Nvidia(), docker=Docker(server="")), "debian 13", [])


def test_an_error_of_one_host_names_it_and_the_remedy() -> None:
    assert error_text("gpu-9", Unreachable("connection refused on port 22.", "Start sshd.")) == (
        "gpu-9: connection refused on port 22.\n       Start sshd."
    )


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (actions.Packages((actions.Package("a", "1"), actions.Package("b")), ("c",)), "install a 1 and b; remove c"),
        (actions.Service("docker", act="restart"), "enable and restart docker"),
        (actions.Service("x", enabled=False, running=False), "disable and stop x"),
        (actions.Hold(("a", "b")), "hold a and b at this version"),
        (actions.File("/etc/x", "text"), "write /etc/x"),
        (actions.File("/etc/x", None), "remove /etc/x"),
        (actions.JsonMerge("/etc/docker/daemon.json", "", "{}"), "merge into /etc/docker/daemon.json"),
        (actions.KernelModule(("nvidia",), ("nouveau",)), "unload nouveau, load kernel module nvidia"),
        (actions.GroupMember("ada", "docker"), "add ada to the group docker"),
        (actions.Mount("/dev/nvme1n1", "/mnt"), "mount /dev/nvme1n1 at /mnt (ext4; formatted only if blank)"),
        (actions.Smoke("embedded", 8), "run a container of an image made on the host and see 8 GPUs in it"),
        (actions.Reboot("new kernel"), "reboot"),
        (actions.Command("true", "false"), "run its own check and change"),
    ],
)
def test_every_action_has_words(action: actions.Action, words: str) -> None:
    assert describe(action) == words


def test_a_file_s_content_is_never_part_of_the_words() -> None:
    assert "secret" not in describe(actions.File("/etc/apt/apt.conf.d/proxy", "http://ada:secret@proxy"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (192, "3 min 12 s"), (3720, "1 h 02 min")],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lists_and_sentences_read_naturally() -> None:
    assert [listing(words) for words in ((), ("a",), ("a", "b"), ("a", "b", "c"))] == ["", "a", "a and b", "a, b and c"]
    assert sentence("no engine here") == "No engine here."
    assert sentence("docker.io conflicts") == "docker.io conflicts."
    assert sentence("580 is loaded!") == "580 is loaded!"


# ---------------------------------------------------------------- what hosts say


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone\x9d0;x\x9cback", "goneback"),
        ("a\x08\x08b\x7f\x00c", "abc"),
        ("user\u202egnp.exe\u2066x\u2069", "usergnp.exex"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("half \udc80 byte", "half byte"),
        ("10%\r50%\r100%", "100%"),
        ("  many\t\n\x85 spaces ", "many spaces"),
        ("ß 日本 é ✓", "ß 日本 é ✓"),
    ],
)
def test_a_host_s_words_cannot_steer_a_terminal(said: str, shown: str) -> None:
    assert sanitize.line(said) == shown


def test_a_block_keeps_its_lines_and_shows_a_carriage_return_as_a_terminal_does() -> None:
    assert sanitize.block("a\r\nb 10%\rb 90%\n\tc") == "a\nb 90%\n    c"


def test_a_flood_of_text_is_cut() -> None:
    assert len(sanitize.line("x" * 10_000_000)) == sanitize.LINE + 1
    assert len(sanitize.block("x" * 10_000_000)) == sanitize.BLOCK + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:pw@proxy.test:3128/", "http://***@proxy.test:3128/"),
        ("Proxy \"http://ada:p@w@proxy.test\";", "Proxy \"http://***@proxy.test\";"),
        ("https://token@mirror.test/x", "https://***@mirror.test/x"),
        ("http://ada:p/w@proxy.test", "http://***@proxy.test"),
        ("http://proxy.test:3128/path@2", "http://proxy.test:3128/path@2"),
        ("https://registry.test/image@sha256:00", "https://registry.test/image@sha256:00"),
        ("mail ada@example.test", "mail ada@example.test"),
        ("SOCKS5://a:b@h then http://c:d@h", "SOCKS5://***@h then http://***@h"),
    ],
)
def test_passwords_in_urls_are_replaced_and_nothing_else(text: str, shown: str) -> None:
    assert sanitize.redact(text) == shown


def test_a_hostile_host_cannot_break_out_of_any_report() -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b31m'\"<&]]>\x00"
    plan = replace(
        samples.PENDING,
        host=evil,
        platform=replace(samples.PLATFORM, name=evil, codename=evil),
        gpus=(GpuRow(evil, evil, evil, evil),),
        decisions={evil: Decision(evil, evil, {evil: evil})},
        items=(Item(evil, evil, evil, "change", evil, {evil: evil}, {}),),
    )
    report = replace(
        samples.FAILED_REPORT, target=evil, before=plan, message=evil, fix=evil, log=f"{evil}\n{evil}",
        outcomes=(Outcome(evil, "failed", 1, evil),), checks=(Check(evil, "failed", evil),),
    )
    texts = [plan_text(plan, verbose=True), host_report_text(report), fleet_summary_text([report, report]), junit_xml([report])]
    texts += [json.dumps(plan_json(plan)), json.dumps(report_json([report]))]
    texts += [facts_text(replace(FACTS, host=evil, kernel=evil, dmi={"sys_vendor": evil}), evil, [], verbose=True)]
    for text in texts:
        assert not set(text) & set("\x1b\x9b\x9d\x07\x00\u202e")
    ET.fromstring(junit_xml([report]))


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("plan", [samples.PENDING, samples.CONVERGED, samples.REFUSED, samples.UNSUPPORTED])
def test_every_plan_satisfies_its_schema(plan: Plan) -> None:
    schema("plan").validate(json.loads(json.dumps(plan_json(plan))))


def test_the_plan_s_schema_refuses_what_is_no_plan() -> None:
    plan = plan_json(samples.PENDING)
    for broken in ({**plan, "schema": 2}, {**plan, "extra": 1}, {key: value for key, value in plan.items() if key != "items"}):
        assert list(schema("plan").iter_errors(broken))


def test_a_plan_has_the_keys_that_the_contract_names() -> None:
    plan = plan_json(samples.PENDING)
    assert list(plan) == ["schema", "host", "platform", "gpus", "decisions", "items", "consequences", "problems", "notices"]
    assert plan["platform"] == {"id": "debian", "version": "13", "codename": "trixie", "family": "debian", "arch": "x86_64", "cloud": "aws"}
    assert plan["gpus"][0] == {"pci_id": "10de:2330", "name": "NVIDIA H100 80GB HBM3", "architecture": "hopper"}
    assert plan["decisions"]["docker"]["action"] == "install"
    assert plan["decisions"]["docker"]["repository"]["key_fingerprint"] == samples.KEY
    assert plan["decisions"]["docker"]["why"].startswith("no Docker Engine")
    assert plan["consequences"] == {"reboot": "needed", "restarts": ["docker"], "download_mb": 118}
    assert set(plan["items"][0]) == {"id", "step", "kind", "state", "expected", "actual", "why"}


def test_facts_satisfy_their_schema() -> None:
    for facts in (FACTS, Facts("h", "x86_64", OsRelease("debian"), nvidia=None, docker=None)):
        schema("facts").validate(json.loads(json.dumps(facts_json(facts))))


@pytest.mark.skipif(sys.version_info < (3, 10), reason="reads annotations in the form of Python 3.10")
def test_the_schema_of_facts_is_the_model_s() -> None:
    from provision.report.schema import facts_schema

    written = json.loads((SCHEMAS / "facts.json").read_text(encoding="utf-8"))
    assert written == facts_schema(), "run: python -m provision.report.schema > provision/data/schema/facts.json"


def test_no_report_of_facts_holds_a_password_or_raw_bytes() -> None:
    value = facts_json(FACTS)
    assert "secret-1" not in json.dumps(value)
    assert "secret-1" not in facts_text(FACTS, samples.PLATFORM, [], verbose=True)
    assert value["reach"]["https://x.test/"]["content"]["bytes"] == 2
    assert value["keyrings"]["/etc/apt/keyrings/x.asc"]["fingerprints"] == []
    assert len(value["keyrings"]["/etc/apt/keyrings/x.asc"]["sha256"]) == 64


def test_a_report_for_programs_has_every_host_and_the_exit_code() -> None:
    value = json.loads(json.dumps(report_json([samples.CHANGED_REPORT, samples.UNREACHABLE_REPORT])))
    assert (value["schema"], value["exit_code"]) == (1, 4)
    assert [host["target"] for host in value["hosts"]] == ["root@gpu-7", "gpu-9"]
    schema("plan").validate(value["hosts"][0]["after"])
    assert value["hosts"][1]["before"] is None


def test_a_report_satisfies_its_schema() -> None:
    drifted = replace(report_of_plan("a", samples.PENDING, {"docker": "29.1.3"}), drift=("smoke",), last_run=LastRun("r", "lost"))
    for reports in ([], [drifted, samples.CHANGED_REPORT, samples.FAILED_REPORT, samples.UNREACHABLE_REPORT, samples.UNVERIFIED_REPORT]):
        value = json.loads(json.dumps(report_json(reports)))
        schema("report").validate(value)
    for broken in ({**value, "extra": 1}, {**value, "exit_code": 9}, {key: value[key] for key in value if key != "made"}):
        assert list(schema("report").iter_errors(broken))


def test_a_host_that_gave_no_plan_is_told_among_the_others() -> None:
    value = many_json([plan_json(samples.CONVERGED), error_json("gpu-9", Unreachable("refused.", "Start sshd."))])
    assert value["hosts"][1] == {"schema": 1, "target": "gpu-9", "error": {"message": "refused.", "fix": "Start sshd.", "exit_code": 4}}


# ---------------------------------------------------------------- JUnit and exit codes


def test_junit_has_a_suite_per_host_and_a_case_per_item_and_check() -> None:
    root = ET.fromstring(junit_xml([samples.CHANGED_REPORT, samples.FAILED_REPORT, samples.UNREACHABLE_REPORT]))
    changed, failed, unreachable = root.findall("testsuite")
    assert (changed.get("tests"), changed.get("failures"), changed.get("errors")) == ("6", "0", "0")
    assert {case.get("name") for case in failed.iter("testcase") if case.find("failure") is not None} >= {"docker/packages"}
    assert int(failed.get("failures", 0)) == len(list(failed.iter("failure"))) > 0
    assert int(failed.get("skipped", 0)) == len(list(failed.iter("skipped"))) == 1
    assert unreachable.get("errors") == "1"
    error = unreachable.find("testcase/error")
    assert error is not None
    assert "connection refused" in str(error.text)


def test_junit_of_a_fleet_tells_versions_and_what_drifted() -> None:
    drifted = replace(report_of_plan("gpu-7", samples.PENDING, {"docker": "29.1.3", "driver": ""}), drift=("docker/packages",))
    suite = ET.fromstring(junit_xml([drifted])).find("testsuite")
    assert suite is not None
    assert [(p.get("name"), p.get("value")) for p in suite.iter("property")] == [("docker", "29.1.3"), ("driver", "none")]
    said = {case.get("name"): str(case.find("failure").get("message")) for case in suite.iter("testcase") if case.find("failure") is not None}  # type: ignore[union-attr]
    assert said["docker/packages"].startswith("drifted: ")
    assert said["docker/repository"].startswith("change: ")


SERIES = re.compile(r'(mlhost_[a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\} (-?\d+(?:\.\d+)?)')


def test_prometheus_gets_every_series_once_and_in_its_own_grammar() -> None:
    """The grammar is that of prometheus.io/docs/instrumenting/exposition_formats."""
    evil = 'gpu"7\\\n{x="y"} 1\x00'
    hosts = [
        replace(samples.CHANGED_REPORT, target=evil, versions={"docker": evil, "kernel": "6.1"}, last_run=LastRun("r", "done", "2026-08-01T10:15:00Z")),
        replace(samples.UNVERIFIED_REPORT, target="gpu-8", checks=(*samples.UNVERIFIED_REPORT.checks, Check("plan", "failed", "x"))),
        replace(samples.UNREACHABLE_REPORT, last_run=LastRun("r", "done", "yesterday")),
        replace(report_of_plan("gpu-9b", samples.PENDING), drift=("docker/packages",), last_run=LastRun("r", "done", "2026-08-01T10:15:00Z")),
    ]
    rows = [line for line in prometheus(hosts).splitlines() if not line.startswith("#")]
    found = [SERIES.fullmatch(row) for row in rows]
    assert all(found), [row for row, match in zip(rows, found) if not match]
    series = [(match.group(1), match.group(2)) for match in found if match]
    assert len(series) == len(set(series))
    for expected in (
        'mlhost_up{target="gpu-8"} 0', 'mlhost_exit_code{target="gpu-9"} 4', 'mlhost_check{target="gpu-8",check="plan"} 0',
        'mlhost_items{target="gpu-9b",state="change"} 2', 'mlhost_drift{target="gpu-9b"} 1', 'mlhost_gpus{target="gpu-9b"} 8',
        'mlhost_last_run_timestamp_seconds{target="gpu-9b"} 1785579300',
    ):  # fmt: skip
        assert expected in rows
    assert sum(row.startswith("mlhost_last_run") for row in rows) == 2


@pytest.mark.parametrize(
    ("codes", "code"),
    [((), 0), ((0, 0), 0), ((0, 3), 3), ((3, 6), 6), ((4, 5), 4), ((0, 4, 7), 7), ((7, 1, 4), 1), ((2, 4), 2), ((99, 0), 1)],
)
def test_the_exit_code_is_that_of_the_host_worst_off(codes: tuple[int, ...], code: int) -> None:
    assert worst(codes) == code


def test_every_exit_code_of_the_contract_has_a_severity() -> None:
    assert set(SEVERITY) == set(range(8))


def test_a_plan_s_exit_code_tells_converged_pending_refused_and_unsupported_apart() -> None:
    plans = (samples.CONVERGED, samples.PENDING, samples.REFUSED, samples.UNSUPPORTED)
    assert [plan_exit_code(plan) for plan in plans] == [0, 3, 1, 5]
