"""The doctor names what is broken, tells apart what shares a message, and finds nothing on a healthy host."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from provision.capture import join, split
from provision.catalog import load as load_catalog
from provision.doctor.checks import CHECKS
from provision.doctor.diagnose import CONFIRMED, POSSIBLE, Diagnosis, diagnose
from provision.doctor.failures import LAYERS, load
from provision.doctor.seen import Seen
from provision.doctor.texts import text
from provision.errors import Error
from provision.examine import of_sections, of_text
from provision.facts import parse
from provision.model import Section
from provision.plan import plan, restricted
from provision.playbook import load as load_playbook
from provision.report.diagnosis import diagnosis_json, diagnosis_text
from provision.report.layout import Look
from tests import doctor_hosts as broken
from tests.captures import add_packages, ok
from tests.doctor_hosts import FAULTS, Sections, working

HOSTS = Path(__file__).parent / "hosts"
SCHEMA = json.loads((Path(__file__).parent.parent / "provision/data/schema/doctor.json").read_text())
CATALOG = load_catalog()
SELECT = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'

# Captured or assembled hosts that are known to be broken; everything else in tests/hosts is healthy, whether it is set up or not.
KNOWN = {
    "amzn2023-dlami": {"runtime-not-registered"},
    "debian12-docker-down": {"daemon-json-malformed"},
    "debian12-half-configured": {"dpkg-interrupted", "package-half-installed"},
    "rocky9-podman": {"docker-releasever-minor"},
    "ubuntu2404-locks-held": {"lock-held-by-upgrades", "cloud-init-at-work"},
}


def diagnosis(sections: Sections, error: str = "") -> Diagnosis:
    return of_sections(sections, text("the text", error, current=True) if error else None, CATALOG)


def ids(found: Diagnosis, certainty: str = "") -> list[str]:
    return [f.failure.id for f in found.findings if not certainty or f.certainty == certainty]


@pytest.mark.parametrize("folder", sorted(p.name for p in HOSTS.iterdir()))
def test_a_healthy_host_gives_no_finding_and_a_broken_one_its_own(folder: str) -> None:
    sections = split((HOSTS / folder / "probe.txt").read_bytes())
    found = of_sections(sections, None, CATALOG)
    assert set(ids(found)) == KNOWN.get(folder, set()), diagnosis_text(found)


def test_the_working_host_gives_no_finding_when_it_is_looked_at_deeply() -> None:
    found = diagnosis(working())
    assert ids(found) == [], diagnosis_text(found)
    assert {state.state for state in found.layers} == {"ok"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: str(name).replace(" ", "-"))
def test_a_planted_fault_is_named_first_with_its_evidence(fault: str) -> None:
    expected, plant = FAULTS[fault]
    sections = working()
    plant(sections)
    found = diagnosis(sections)
    assert ids(found, CONFIRMED)[:1] == [expected], diagnosis_text(found)
    finding = found.findings[0]
    assert finding.evidence
    assert all(finding.evidence)
    assert finding.failure.remedy
    states = {state.layer: state.state for state in found.layers}
    assert states.get(finding.failure.layer, "broken") == "broken"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: str(name).replace(" ", "-"))
def test_what_fix_promises_the_ordinary_plan_does_and_nothing_else(fault: str) -> None:
    sections = working()
    FAULTS[fault][1](sections)
    first = of_sections(sections, None, CATALOG).findings[0].failure
    part = restricted(plan(parse(sections), load_playbook("gpu-host", ()).spec, CATALOG), first.fix)
    assert bool(part.changes) == bool(first.fix)
    assert {item.id for item in part.items} <= set(first.fix)
    assert part.reboot == "no"
    assert not part.problems or not first.fix


def test_at_least_twenty_five_faults_are_planted() -> None:
    assert len({expected for expected, _ in FAULTS.values()}) >= 25


@pytest.mark.parametrize(
    ("expected", "plant"),
    [
        ("gpus-toolkit-missing", broken.no_toolkit),
        ("gpus-hook-missing", broken.hook_gone),
        ("gpus-docker-older-than-toolkit", broken.older_docker),
        ("gpus-snap", broken.snap),
        ("gpus-rootless", broken.rootless),
        ("gpus-podman", broken.podman),
        ("gpus-no-gpu", lambda sections: sections.update(pci=ok(""))),
        ("gpus-desktop", lambda _sections: None),
    ],
)
@pytest.mark.parametrize("message", [SELECT, "docker: Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found", "docker: Error response from daemon: AMD CDI spec not found"])
def test_the_causes_behind_one_message_are_told_apart_on_the_machine(expected: str, plant: broken.Change, message: str) -> None:
    sections = working()
    plant(sections)
    found = diagnosis(sections, message)
    first = found.findings[0]
    assert (first.failure.id, first.certainty, first.explains) == (expected, CONFIRMED, True), diagnosis_text(found)
    assert [f.failure.id for f in found.findings if f.explains and f.failure.layer == "runtime"] == [expected]
    assert message in first.evidence[0]


@pytest.mark.parametrize(
    ("message", "expected", "plant"),
    [
        ("permission denied while trying to connect to the docker API at unix:///var/run/docker.sock", "docker-group-old-session", lambda _s: None),
        ("permission denied while trying to connect to the docker API at unix:///var/run/docker.sock", "docker-group-missing",
         lambda s: s.update(group=ok("docker:x:998:\n"))),
        ("Failed to initialize NVML: Unknown Error", "gpu-lost-by-daemon-reload", lambda _s: None),
        ("Failed to initialize NVML: Unknown Error", "no-cgroups-on-rootful", broken.no_cgroups),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver-upgraded-not-reloaded", broken.upgraded),
        ("Failed to initialize NVML: Driver/library version mismatch", "image-has-own-driver", lambda _s: None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "gpu-held-by-nouveau", broken.nouveau),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "module-missing-headers", broken.headers_missing),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "module-rejected-by-secure-boot", broken.secure_boot),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "docker-stopped", broken.docker_down),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "docker-other-context", lambda _s: None),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "daemon-json-malformed", broken.bad_json),
        ("unresolvable CDI devices nvidia.com/gpu=all", "cdi-stale", broken.stale_cdi),
        ("unresolvable CDI devices nvidia.com/gpu=all", "cdi-missing", broken.no_cdi),
        ("unknown or invalid runtime name: nvidia", "runtime-not-registered", broken.unregistered),
        ("unknown or invalid runtime name: nvidia", "runtime-not-loaded", broken.not_restarted),
        ("unknown or invalid runtime name: nvidia", "runtime-toolkit-missing", broken.no_toolkit),
        ("Error 802: system not yet initialized", "fabric-manager-down", broken.fabric),
        ("Error 802: system not yet initialized", "cuda-not-initialised", lambda _s: None),
        ("write /var/lib/docker/x: no space left on device", "root-disk-full", broken.full),
        ("Temporary failure resolving 'download.docker.com'", "dns-broken", broken.no_names),
        ("Temporary failure resolving 'download.docker.com'", "dns-of-one-name", lambda _s: None),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (apt-get)", "lock-held", broken.lock),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (apt-get)", "lock-was-held", lambda _s: None),
    ],
)
def test_a_message_with_several_causes_gets_the_one_that_the_machine_shows(message: str, expected: str, plant: broken.Change) -> None:
    sections = working()
    plant(sections)
    found = diagnosis(sections, message)
    assert expected in [f.failure.id for f in found.findings if f.explains and f.certainty == CONFIRMED][:2], diagnosis_text(found)


def test_a_kept_docker_io_without_apparmor_is_named_with_its_package() -> None:
    sections = working()
    broken.no_package(sections, "docker-ce")
    add_packages(sections, "docker.io amd64 20.10.24+dfsg1-1+b3\n")
    broken.no_parser(sections)
    found = diagnosis(sections, 'exec: "apparmor_parser": executable file not found in $PATH')
    assert ids(found)[0] == "apparmor-parser-missing"
    assert "apt-get install apparmor" in found.findings[0].failure.remedy[0]


def test_a_line_of_a_log_counts_only_while_what_it_tells_of_is_broken() -> None:
    sections = working()
    sections["deep_dmesg"] = ok("[ 12.1] NVRM: Xid (PCI:0000:31:00): 79, GPU has fallen off the bus.\n")
    sections["deep_journal:docker"] = ok(f"Nov 09 12:05:05 h dockerd[1]: {SELECT}\n")
    assert ids(diagnosis(sections)) == [], "both are past: nvidia-smi and Docker are well now"
    broken.docker_fails(sections)
    sections["deep_journal:docker"] = ok("Nov 09 12:05:05 h dockerd[1]: failed to start daemon: Devices cgroup isn't mounted\n")
    assert ids(diagnosis(sections))[0] == "cgroups-not-mounted"


def test_what_is_not_set_up_is_no_fault_and_the_layers_say_so() -> None:
    found = of_sections(split((HOSTS / "debian13-h100" / "probe.txt").read_bytes()), None, CATALOG)
    assert ids(found) == []
    shown = diagnosis_text(found)
    assert "nothing here is known to be broken" in shown
    assert {s.layer: s.state for s in found.layers}["docker"] == "absent"


def test_what_could_not_be_asked_leaves_a_cause_possible() -> None:
    sections = {name: section for name, section in working().items() if not name.startswith("deep_")}
    found = diagnosis(sections, "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock")
    assert set(ids(found)) == {"docker-group-missing", "docker-group-old-session"}
    assert {f.certainty for f in found.findings} == {POSSIBLE}


def test_a_text_that_nothing_explains_says_so_and_keeps_the_hosts_own_findings() -> None:
    sections = working()
    broken.persistenced(sections)
    found = diagnosis(sections, "something that nobody has ever seen")
    assert ids(found) == ["persistenced-failed"]
    assert not found.explained
    assert "none of which explains the text" in diagnosis_text(found)
    assert ids(of_text(text("t", "something that nobody has ever seen", current=True))) == []


def test_evidence_never_shows_a_secret() -> None:
    sections = working()
    broken.docker_fails(sections)
    sections["deep_journal:docker"] = ok("Nov 09 12:05:05 h dockerd[1]: Devices cgroup isn't mounted HTTP_TOKEN=s3cr3tvalue https://ada:s3cr3tvalue@proxy\n")
    found = diagnosis(sections, "toomanyrequests: from https://ada:s3cr3tvalue@registry, password=s3cr3tvalue")
    assert {"cgroups-not-mounted", "registry-rate-limit"} <= set(ids(found))
    assert "s3cr3tvalue" not in diagnosis_text(found, verbose=True) + json.dumps(diagnosis_json(found))


def test_the_lowest_broken_layer_comes_first() -> None:
    sections = working()
    for plant in (broken.no_cdi, broken.docker_down, broken.full):
        plant(sections)
    layers = [f.failure.layer for f in diagnosis(sections).findings]
    assert layers == sorted(layers, key=LAYERS.index)
    assert layers[0] == "disk"


def test_a_message_broken_by_a_terminal_or_by_the_kernels_log_is_still_read() -> None:
    wrapped = text("t", "docker: Error response from daemon: could not select\n   device driver \"\" with\ncapabilities: [[gpu]].", current=True)
    assert "gpus-toolkit-missing" in ids(of_text(wrapped))
    nvrm = "[  1.0] NVRM: The NVIDIA GPU 0000:09:00.0 (PCI ID: 10de:1d01)\n[  1.1] NVRM: installed in this system is not supported by open\n[  1.2] NVRM: nvidia.ko because it does not include the required GPU\n[  1.3] NVRM: System Processor (GSP).\n"
    assert "open-module-on-old-gpu" in ids(of_text(text("t", nvrm, current=True)))


def test_hostile_text_cannot_take_long_or_move_the_cursor() -> None:
    for hostile in ("NVRM: " * 100_000, "x509: " + "a" * 500_000, "\x1b[2J\x1b]0;x\x07could not select device driver \"\" with capabilities: [[gpu]]", "[[" * 200_000):
        found = of_text(text("t", hostile, current=True))
        assert "\x1b" not in diagnosis_text(found)


def test_every_predicate_survives_a_capture_with_nothing_in_it() -> None:
    empty = {"probe": ok("schema=1\nmode=live"), "os_release": ok("ID=debian\n")}
    seen = Seen(parse(empty), empty, CATALOG)
    for name, check in CHECKS.items():
        answer = check(seen)
        assert answer is None or isinstance(answer, (str, bool)), name
        assert answer is not True or name.startswith("not-") or name in ("daemon-json-sound", "one-library-version", "docker-not-failed"), name
    assert ids(diagnose(seen, None, load(), CHECKS)) == []


@pytest.mark.parametrize("name", sorted(working()))
def test_a_section_that_is_gone_unreadable_or_garbled_is_no_fault_of_the_doctors(name: str) -> None:
    before = working()[name]
    variants = [Section(13, ""), Section(124, ""), Section(1, before.text), Section(0, ""), Section(0, before.text[: len(before.text) // 2]),
                Section(0, "= : / | , ;\n\0 \x1b[1m\n" + "x" * 5000 + "\n1 2 3 4 5 6 7 8 9\n"), Section(0, before.text.replace(" ", "=").replace("\n", " "))]
    for section in (None, *variants):
        sections = working()
        sections.pop(name)
        if section is not None:
            sections[name] = section
        with contextlib.suppress(Error):
            shown = diagnosis_text(diagnosis(sections, SELECT), verbose=True)
            assert "\x1b" not in shown


@pytest.mark.parametrize("look", [Look(), Look(ascii=True, width=60), Look(color=True, width=120)])
def test_the_text_has_cause_evidence_remedy_and_source_and_fits(look: Look) -> None:
    sections = working()
    broken.bad_json(sections)
    shown = diagnosis_text(diagnosis(sections), look, verbose=True)
    for word in ("daemon.json is not JSON", "Cause", "Evidence", "Remedy", "Source", "Layers"):
        assert word in shown
    if look.ascii:
        assert shown.replace("…", "").isascii()


@pytest.mark.parametrize("fault", list(FAULTS)[::5])
def test_the_json_is_what_its_schema_says(fault: str) -> None:
    sections = working()
    FAULTS[fault][1](sections)
    fixed = {"items": ["docker/service"], "before": [], "status": "changed", "message": ""}
    for document in (diagnosis_json(diagnosis(sections), target="x"), diagnosis_json(diagnosis(sections, SELECT), fixed=fixed), diagnosis_json(of_text(text("t", SELECT, current=True)))):
        jsonschema.validate(document, SCHEMA)
    assert SCHEMA["$defs"]["layer"]["enum"] == list(LAYERS)


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")], ids=lambda shell: str(shell[0]))
def test_the_deep_probe_says_the_same_and_more_in_every_shell(shell: tuple[str, ...]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    script = (HOSTS.parent.parent / "provision/scripts/probe.sh").read_text()
    names = re.findall(r"^([a-z_]+)\(\) \{", script, re.MULTILINE)
    assert len(names) == len(set(names)), "of two functions with one name the last one wins"

    def ask(*words: str) -> dict[str, object]:
        done = subprocess.run([*shell, "-s", "--", "c0ffee", "--no-metadata", *words], input=script.encode(), capture_output=True, check=True, timeout=200)
        return dict(split(done.stdout, "c0ffee"))

    plain, deep = ask(), ask("--deep")
    assert plain.keys() == {name for name in deep if not name.startswith("deep_")}
    assert {"deep_dmesg", "deep_kernels", "deep_settings", "deep_resolve", "deep_nodes", "deep_dkms"} <= deep.keys()


# ---------------------------------------------------------------- the command


def mlhost(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([sys.executable, "-m", "provision", *words], capture_output=True, text=True, check=False, timeout=120, cwd=HOSTS.parent.parent, **given)


def test_a_text_given_or_piped_is_explained_without_a_machine() -> None:
    for done in (mlhost("doctor", "--text-only", "--error", SELECT), mlhost("doctor", "--text-only", stdin=SELECT), mlhost("doctor", "--text-only", "--error", "-", stdin=SELECT)):
        assert done.returncode == 7, done
        assert "Container Toolkit is not installed" in " ".join(done.stdout.split())
    assert mlhost("doctor", "--text-only", "--error", "all is well").returncode == 0


def test_a_capture_is_diagnosed_with_and_without_a_text(tmp_path: Path) -> None:
    sections = working()
    file = tmp_path / "capture.txt"
    file.write_bytes(join(sections, "c0ffee"))
    assert mlhost("doctor", "--capture", str(file)).returncode == 0
    broken.hook_gone(sections)
    file.write_bytes(join(sections, "c0ffee"))
    done = mlhost("doctor", "--capture", str(file), "--error", SELECT, "--format", "json")
    assert done.returncode == 7, done
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert [f["id"] for f in document["findings"]] == ["gpus-hook-missing"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--text-only",), "needs a text"),
        (("--text-only", "--error", " "), "empty"),
        (("--text-only", "--capture", "x", "--error", "y"), "exclude each other"),
        (("--fix", "--capture", "x"), "--fix needs a machine"),
        (("--capture", "/nowhere/at/all"), "cannot be read"),
    ],
)
def test_wrong_usage_is_told_in_one_sentence(words: tuple[str, ...], said: str) -> None:
    done = mlhost("doctor", *words)
    assert done.returncode == 2, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_host_ends_with_4() -> None:
    done = mlhost("doctor", "-F", "none", "--connect-timeout", "2", "root@127.0.0.1:1")
    assert done.returncode == 4, done
