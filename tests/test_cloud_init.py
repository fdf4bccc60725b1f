"""Machines that set themselves up: what user-data says, whether a platform takes it, and what the machine then does.

Doubles: the payload is a small archive that notes how it was called and ends as it is told to; systemctl and sync only note their arguments. The driver, the
installer, the shells, curl and Python are real. A whole machine is in test_cloud_init_vm.py.
"""

from __future__ import annotations

import base64
import email
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from provision import pyz
from provision.cli import cli
from provision.cli.cloud_init import FORMATS, PLATFORMS
from provision.errors import Error, UsageError
from provision.pull import model, others, userdata
from provision.pull.model import Pull, Report
from provision.pull.render import UNIT_TEXT, files, installer
from tests.lab.listener import Listener
from tests.lab.server import FileServer

HOSTS = Path(__file__).parent / "hosts"
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
FETCHED = model.fetched("https://files.example.com/mlhost.pyz", "ab" * 32)

DOUBLE = """\
import json, os, sys
lab = os.environ["LAB"]
codes = open(lab + "/codes").read().split()
code = int(codes.pop(0)) if codes else 0
open(lab + "/codes", "w").write(" ".join(codes))
with open(lab + "/calls", "a") as file:
    file.write(json.dumps({"argv": sys.argv[1:], "setup": os.environ.get("MLHOST_CONTINUES", ""), "proxy": os.environ.get("http_proxy", "")}) + "\\n")
if "--out" in sys.argv and code != 2:
    host = {"target": "here", "status": "failed" if code else "changed", "message": "the mirror said 'no'" if code else "", "before": None, "after": None}
    with open(sys.argv[sys.argv.index("--out") + 1], "w") as file:
        json.dump({"schema": 1, "exit_code": code, "hosts": [host]}, file, indent=2)
        file.write("\\n")
if code == 2:
    print("mlhost: playbook.yaml:1: that is no playbook.", file=sys.stderr)
sys.exit(code)
"""


def double() -> bytes:
    return pyz.archive({"__main__.py": DOUBLE.encode()})


@dataclass
class Machine:
    """A folder that is a machine for the driver: its state, its units, its console."""

    folder: Path
    shell: Sequence[str] = ("sh",)

    def __post_init__(self) -> None:
        for name in ("bin", "units", "lab"):
            (self.folder / name).mkdir(exist_ok=True)
        for name in ("systemctl", "reboot-double", "sync"):
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >>{self.folder}/lab/ran\n')
            program.chmod(0o755)

    @property
    def state(self) -> Path:
        return self.folder / "pull"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        return {
            **kept,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "LAB": str(self.folder / "lab"),
            "MLHOST_PULL_STATE": str(self.state),
            "MLHOST_PULL_UNITS": str(self.folder / "units"),
            "MLHOST_PULL_CONSOLE": str(self.folder / "console"),
            "MLHOST_PULL_PAUSE": "0",
            "MLHOST_PULL_REBOOT": "reboot-double",
            "HOME": str(self.folder),
        }

    def bring(self, pull: Pull) -> None:
        """Put the files in place, as cloud-init would."""
        self.state.mkdir(exist_ok=True)
        for file in files(pull):
            (self.state / file.name).write_bytes(file.data)
        (self.folder / "units" / model.UNIT).write_text(UNIT_TEXT)

    def codes(self, *codes: int) -> None:
        """How the payload will end, call by call."""
        (self.folder / "lab" / "codes").write_text(" ".join(map(str, codes)))

    def run(self, mode: str = "boot", script: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        words = [*self.shell, str(script or self.state / "run.sh"), mode]
        return subprocess.run(words, env={**self.environment, **more}, capture_output=True, text=True, timeout=120, check=False)

    @property
    def calls(self) -> list[dict[str, object]]:
        path = self.folder / "lab" / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def ran(self) -> str:
        path = self.folder / "lab" / "ran"
        return path.read_text() if path.exists() else ""

    @property
    def report(self) -> dict[str, object]:
        return json.loads((self.state / "report.json").read_text())  # type: ignore[no-any-return]

    @property
    def waits_for_the_next_boot(self) -> bool:
        return (self.folder / "units" / model.UNIT).exists() and (self.state / "run.sh").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.codes()
    return made


def brought(**more: object) -> Pull:
    return replace(Pull(model.embedded(double()), playbook='{"name": "mine"}\n'), **more)  # type: ignore[arg-type]


def cloud_init(*words: str) -> Result:
    return CliRunner().invoke(cli, ["cloud-init", *words])


def failed(*words: str) -> Error:
    result = cloud_init(*words)
    assert isinstance(result.exception, Error), result.output
    return result.exception


class TestTheCloudConfig:
    def test_holds_the_files_for_root_alone_byte_for_byte(self) -> None:
        pull = brought()
        config = yaml.safe_load(userdata.cloud_config(pull))
        for file in files(pull):
            entry = next(entry for entry in config["write_files"] if entry["path"] == f"{model.STATE}/{file.name}")
            content = base64.b64decode(entry["content"]) if entry.get("encoding") == "b64" else entry["content"].encode()
            assert content == file.data
            assert entry["permissions"] == "0600"

    def test_starts_the_unit_without_waiting_for_it(self) -> None:
        """cloud-final waits for its runcmd, and the unit for cloud-final."""
        commands = yaml.safe_load(userdata.cloud_config(brought()))["runcmd"]
        assert commands[-1] == ["systemctl", "start", "--no-block", model.UNIT]

    @pytest.mark.parametrize("text", ["a: $b 'c' \"d\" \\ `e` {{ f }} {% g %}\n", "\ttab\n  indented\n\n\nlines\n", "no end", "  first\n", "\n\n  x: 1\n\n\n", " \n", "\r\n", "päßword\n", "\x00\x1b\n", ""])
    def test_any_playbook_text_arrives_as_it_is(self, text: str) -> None:
        config = yaml.safe_load(userdata.cloud_config(brought(playbook=text)))
        found = [e for e in config["write_files"] if e["path"].endswith("playbook.yaml")]
        assert [base64.b64decode(e["content"]).decode() if e.get("encoding") else e["content"] for e in found] == ([text] if text else [])

    def test_no_address_is_in_the_unit_that_everybody_may_read(self) -> None:
        pull = brought(report=Report("https://a.example/?token=s3cret"))
        unit = next(e for e in yaml.safe_load(userdata.cloud_config(pull))["write_files"] if e["path"].endswith(model.UNIT))
        assert "s3cret" not in unit["content"]


class TestMultipart:
    def test_other_parts_come_first_with_their_types_and_contents(self) -> None:
        more = [("mine.yaml", b"#cloud-config\npackages: [jq]\n"), ("ü.sh", "#!/bin/sh\necho ü\n".encode()), ("x", b"## template: jinja\n#cloud-config\n")]
        message = email.message_from_string(userdata.multipart(brought(), more))
        parts = message.get_payload()
        assert [part.get_content_type() for part in parts] == ["text/cloud-config", "text/x-shellscript", "text/jinja2", "text/x-shellscript"]
        for part, (_, content) in zip(parts, more):
            assert part.get_payload(decode=True).rstrip(b"\n") == content.rstrip(b"\n")
        assert parts[-1].get_payload(decode=True).rstrip(b"\n").decode() == installer(brought()).rstrip("\n")

    def test_a_part_of_no_known_kind_is_refused(self, tmp_path: Path) -> None:
        part = tmp_path / "what"
        part.write_text("hello\n")
        error = failed("--format", "multipart", "--with", str(part), "--source", FETCHED.source, "--sha256", FETCHED.sha256)
        assert error.exit_code == 2
        assert str(part) in error.message


class TestWhatAPlatformTakes:
    def test_every_platform_takes_user_data_that_fetches_mlhost(self) -> None:
        report = model.checked(Report("https://a.example/" + "x" * 500, "https://b.example/" + "y" * 1500, ("Authorization: Bearer z",), True))
        for platform in userdata.platforms().values():
            for text in (userdata.cloud_config(Pull(FETCHED, report)), userdata.multipart(Pull(FETCHED, report))):
                assert userdata.fitted(text, platform).content

    @pytest.mark.parametrize("name", [name for name in PLATFORMS if name != "nocloud"])
    def test_the_last_byte_that_fits_is_taken_and_the_next_compresses_or_refuses(self, name: str) -> None:
        platform = userdata.platforms()[name]
        assert not userdata.fitted("x" * platform.limit, platform).compressed
        packed = userdata.fitted("x" * (platform.limit + 1), platform)
        assert packed.compressed
        assert packed.base64 is (name == "gcp")
        small = base64.b64decode(packed.content) if packed.base64 else packed.content
        assert gzip.decompress(small) == b"x" * (platform.limit + 1)
        with pytest.raises(userdata.TooBig) as error:
            userdata.fitted("x" * (platform.limit + 1), platform, compress=False)
        assert f"{platform.limit + 1:,}" in error.value.message
        assert f"{platform.limit:,}" in error.value.message

    def test_mlhost_itself_is_too_big_for_a_metadata_service_and_the_error_has_the_numbers(self, tmp_path: Path) -> None:
        file = tmp_path / "mlhost.pyz"
        file.write_bytes(pyz.archive({"__main__.py": b"", "noise": os.urandom(1 << 20)}))
        for name, limit in (("aws", "16,384"), ("azure", "65,535"), ("gcp", "262,144")):
            error = failed("--for", name, "--embed", str(file))
            assert isinstance(error, userdata.TooBig)
            assert limit in error.message
            assert "--source" in error.fix
        assert cloud_init("--for", "nocloud", "--embed", str(file), "-q").exit_code == 0

    def test_the_script_for_a_stated_system_fits_where_it_does(self) -> None:
        words = ["--capture", str(HOSTS / "debian13-cloud/probe.txt"), "-p", "docker-host", "--set", "docker.source=distro"]
        assert cloud_init("--for", "azure", *words).exit_code == 0
        assert cloud_init("--for", "gcp", *words).exit_code == 0
        assert isinstance(failed("--for", "aws", *words), userdata.TooBig)

    def test_the_rows_name_their_sources(self) -> None:
        from provision.shipped import shipped_toml

        rows = shipped_toml("data/userdata.toml")["platform"]
        assert tuple(row["id"] for row in rows) == PLATFORMS
        assert all(row["source"] and row["use"] for row in rows)


class TestTheCommand:
    @pytest.mark.parametrize("form", FORMATS)
    def test_writes_every_format_for_its_owner_alone_and_the_same_each_time(self, form: str, tmp_path: Path) -> None:
        words = ["--format", form, "--source", FETCHED.source, "--sha256", FETCHED.sha256, "--report-url", "https://a.example/?t=1"]
        first, second = tmp_path / "1", tmp_path / "2"
        result = cloud_init(*words, "-o", str(first))
        assert result.exit_code == 0, result.output
        assert "keep it to yourself" in result.output
        assert "a.example" not in result.output
        cloud_init(*words, "-o", str(second))
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--source", "https://a.example/m"], "--sha256"),
            (["--source", "ftp://a.example/m", "--sha256", "0" * 64], "--source"),
            (["--source", "https://a.example/m x", "--sha256", "0" * 64], "--source"),
            (["--source", "https://a.example/m", "--sha256", "0" * 63], "--sha256"),
            (["--sha256", "0" * 64], "--source"),
            (["--source", "https://a.example/m", "--capture", "x"], "exclude"),
            (["--embed", "/nowhere/at/all"], "/nowhere/at/all"),
            (["--embed", "/etc/passwd"], "not an mlhost.pyz"),
            (["--capture", "/nowhere/at/all"], "/nowhere/at/all"),
            (["--capture", "/etc/passwd"], ""),
            (["--report-url", "https://a.example/ b"], "--report-url"),
            (["--report-put", "file:///etc/passwd"], "--report-put"),
            (["--report-url", "@/nowhere/at/all"], "/nowhere/at/all"),
            (["--report-header", "no header"], "--report-header"),
            (["--report-header", "a: b\nurl = file:///etc/passwd"], "--report-header"),
            (["--with", "/etc/passwd"], "--with"),
            (["--gzip", "--format", "ansible"], "--gzip"),
            (["-p", "/nowhere/at.yaml"], "/nowhere/at.yaml"),
            (["--source", "https://a.example/m", "--sha256", "0" * 64, "-o", "/nowhere/at/all"], "/nowhere/at/all"),
        ],
    )
    def test_says_what_is_wrong_with_what_was_asked(self, words: list[str], says: str) -> None:
        error = failed(*words)
        assert error.exit_code in (1, 2)
        assert says in f"{error.message} {error.fix}"
        assert error.fix

    def test_an_address_can_come_out_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "address").write_text("https://a.example/?sig=s3cret\n")
        result = cloud_init("--source", FETCHED.source, "--sha256", FETCHED.sha256, "--report-put", f"@{tmp_path}/address", "-q")
        assert "https://a.example/?sig=s3cret" in result.output

    def test_a_blob_store_gets_the_header_that_it_insists_on(self) -> None:
        report = model.checked(Report(put="https://me.blob.core.windows.net/c/r?sig=1"))
        assert report.headers == ("x-ms-blob-type: BlockBlob",)
        assert model.checked(Report(put="https://blob.core.windows.net.example/")).headers == ()

    def test_own_steps_cannot_be_brought_but_their_script_can(self, tmp_path: Path) -> None:
        (tmp_path / "step.py").write_text("def step(facts, spec, platform):\n    return ()\n")
        (tmp_path / "site.yaml").write_text("extends: docker-host\nsteps: [./step.py]\n")
        error = failed("-p", str(tmp_path / "site.yaml"), "--source", FETCHED.source, "--sha256", FETCHED.sha256)
        assert "--capture" in error.fix

    def test_a_script_is_refused_where_a_reboot_would_decide_how_it_goes_on(self) -> None:
        error = failed("--capture", str(HOSTS / "ubuntu2204-vgpu/probe.txt"), "--for", "nocloud")
        assert error.exit_code in (1, 2, 5)

    def test_the_playbook_that_travels_says_what_was_chosen_here(self, tmp_path: Path) -> None:
        from provision import playbook

        (tmp_path / "base.yaml").write_text("extends: deep-learning\nproxy: {http: 'http://me:pw@proxy.example:3128'}\n")
        (tmp_path / "site.yaml").write_text("extends: ./base.yaml\nreboot: never\n")
        loaded = playbook.load(str(tmp_path / "site.yaml"), ["docker.source=distro"])
        (tmp_path / "alone.yaml").write_text(playbook.standalone(loaded.spec))
        assert playbook.load(str(tmp_path / "alone.yaml")).digest == loaded.digest
        result = cloud_init("-p", str(tmp_path / "site.yaml"), "--source", FETCHED.source, "--sha256", FETCHED.sha256, "-q")
        assert "http_proxy=http://me:pw@proxy.example:3128" in result.output
        assert "REBOOT=no" in result.output


class TestTheDriver:
    @pytest.mark.parametrize("shell", [pytest.param(name, marks=() if name == "dash" else pytest.mark.slow) for name in SHELLS])
    def test_sets_up_reports_and_leaves_nothing_to_do(self, tmp_path: Path, shell: str) -> None:
        if not shutil.which(SHELLS[shell][0]):
            pytest.skip(f"{shell} is missing")
        machine = Machine(tmp_path, SHELLS[shell])
        machine.codes(0)
        with Listener() as listener:
            machine.bring(brought(report=Report(listener.url + "/up", listener.url + "/put?sig=a%2Fb", ("X-Who: me \"and\" \\you",), True)))
            ended = machine.run()
        assert ended.returncode == 0, ended
        assert ended.stderr == ""
        assert [(heard.method, heard.path) for heard in listener.heard] == [("POST", "/up"), ("PUT", "/put?sig=a%2Fb")]
        assert all(heard.headers["x-who"] == 'me "and" \\you' for heard in listener.heard)
        assert listener.heard[0].json == machine.report
        assert machine.report["result"] == "done"
        assert machine.report["exit_code"] == 0
        assert machine.report["setup"]["hosts"][0]["status"] == "changed"  # type: ignore[index]
        console = (tmp_path / "console").read_text()
        told = json.loads(re.findall(r"mlhost: report (\{.*\})", console)[-1])
        assert told["result"] == "done"
        assert not machine.waits_for_the_next_boot
        assert sorted(os.listdir(machine.state)) == ["done", "log", "report.json"]
        (call,) = machine.calls
        assert call["argv"] == ["setup", "--playbook", str(machine.state / "playbook.yaml"), "--yes", "--no-reboot", "--timeout", "7200", "--format", "json",
                                "--out", str(machine.state / "setup.json")]

    @pytest.mark.slow
    def test_tries_again_and_says_why_in_the_end(self, machine: Machine) -> None:
        machine.codes(1, 7, 1, 1)
        machine.bring(brought(tries=3, report=Report(console=True)))
        ended = machine.run()
        assert ended.returncode == 1
        assert len(machine.calls) == 3
        assert machine.report["result"] == "failed"
        assert machine.report["try"] == 3
        assert machine.report["message"] == "the mirror said 'no'"
        assert machine.waits_for_the_next_boot
        machine.codes(0)
        assert machine.run().returncode == 0
        assert machine.report["result"] == "done"

    @pytest.mark.slow
    @pytest.mark.parametrize("code", [2, 5])
    def test_what_will_not_get_better_is_not_tried_again(self, machine: Machine, code: int) -> None:
        machine.codes(code, 0)
        machine.bring(brought())
        assert machine.run().returncode == code
        assert len(machine.calls) == 1
        assert machine.report["message"]

    @pytest.mark.slow
    def test_goes_on_after_a_reboot_as_the_same_setup(self, machine: Machine) -> None:
        machine.codes(6, 0)
        machine.bring(brought())
        assert machine.run().returncode == 0
        assert "reboot-double" in machine.ran
        assert not (machine.state / "report.json").exists()
        assert machine.waits_for_the_next_boot
        assert machine.run().returncode == 0
        assert machine.report["result"] == "done"
        assert machine.report["reboots"] == 1
        first, second = machine.calls
        assert first["setup"] == second["setup"] != ""

    @pytest.mark.slow
    def test_does_not_reboot_for_ever(self, machine: Machine) -> None:
        machine.codes(*[6] * 9)
        machine.bring(brought())
        codes = [machine.run().returncode for _ in range(4)]
        assert codes == [0, 0, 0, 1]
        assert machine.ran.count("reboot-double") == 3
        assert "3 reboots" in str(machine.report["message"])

    @pytest.mark.slow
    def test_does_not_reboot_where_it_must_not(self, machine: Machine) -> None:
        machine.codes(6)
        machine.bring(brought(reboot=False))
        assert machine.run().returncode == 6
        assert "reboot-double" not in machine.ran
        assert machine.report["result"] == "reboot"
        assert machine.waits_for_the_next_boot

    @pytest.mark.slow
    def test_a_power_cut_in_the_middle_loses_nothing(self, machine: Machine) -> None:
        machine.bring(brought())
        (machine.folder / "lab" / "codes").unlink()
        (machine.folder / "lab" / "codes").mkdir()  # the double breaks down, as a process does that is killed
        assert machine.run(MLHOST_PULL_PAUSE="0").returncode == 1
        assert machine.waits_for_the_next_boot
        (machine.folder / "lab" / "codes").rmdir()
        machine.codes(0)
        assert machine.run().returncode == 0

    @pytest.mark.slow
    def test_mlhost_is_fetched_again_until_it_is_there_and_the_right_one(self, machine: Machine, tmp_path: Path) -> None:
        served = tmp_path / "served"
        served.mkdir()
        with FileServer(served) as server:
            machine.bring(Pull(model.fetched(f"{server.url}/m.pyz?token=s3cret", hashlib.sha256(double()).hexdigest()), tries=2))
            absent = machine.run()
            assert absent.returncode == 1
            assert machine.calls == []
            assert "cannot be fetched" in str(machine.report["message"])
            assert "404" in str(machine.report["message"])
            assert "s3cret" not in absent.stdout + absent.stderr
            (served / "m.pyz").write_bytes(double() + b"more")
            assert machine.run().returncode == 1
            assert machine.calls == []
            assert "is not the mlhost that was meant" in str(machine.report["message"])
            (served / "m.pyz").write_bytes(double())
            assert machine.run().returncode == 0
        assert len(machine.calls) == 1

    @pytest.mark.slow
    def test_without_curl_python_fetches_and_reports(self, machine: Machine, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        bare.mkdir()
        for name in ("sh", "cat", "sed", "tr", "cut", "head", "tail", "grep", "date", "uname", "mkdir", "chmod", "rm", "mv", "sync", "sha256sum", "sleep", "timeout", "od"):
            found = shutil.which(name)
            assert found
            (bare / name).symlink_to(found)
        (bare / "python3").symlink_to(sys.executable)
        (tmp_path / "m.pyz").write_bytes(double())
        with FileServer(tmp_path) as server, Listener(refuse=2) as listener:
            report = Report(listener.url + "/up", listener.url + "/put", ("X-Who: me",))
            machine.bring(Pull(model.fetched(f"{server.url}/m.pyz", hashlib.sha256(double()).hexdigest()), report))
            driver = machine.state / "run.sh"
            # what the driver itself adds to PATH would bring curl back
            driver.write_text(driver.read_text().replace(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ""))
            ended = machine.run(PATH=str(bare))
        assert ended.returncode == 0, ended
        assert listener.refused == 2
        assert [(heard.method, heard.headers["x-who"]) for heard in listener.heard] == [("POST", "me"), ("PUT", "me")]

    @pytest.mark.slow
    def test_a_report_that_nobody_takes_is_told_at_the_next_boot(self, machine: Machine) -> None:
        machine.codes(0)
        with Listener(refuse=5) as listener:
            machine.bring(brought(report=Report(listener.url + "/up?sig=s3cret")))
            first = machine.run()
            assert first.returncode == 0
            assert "could not be delivered" in first.stdout
            assert "s3cret" not in first.stdout
            assert listener.heard == []
            assert machine.waits_for_the_next_boot
            assert machine.run().returncode == 0
            assert listener.heard[0].json["result"] == "done"
        assert len(machine.calls) == 1
        assert not machine.waits_for_the_next_boot

    def test_a_payload_that_was_changed_on_the_disk_does_not_run(self, machine: Machine) -> None:
        machine.bring(brought(tries=1))
        with open(machine.state / "payload", "ab") as file:
            file.write(b"x")
        assert machine.run().returncode == 1
        assert machine.calls == []

    @pytest.mark.slow
    def test_the_proxy_is_there_for_all_of_it(self, machine: Machine) -> None:
        machine.codes(0)
        machine.bring(brought(environment={"http_proxy": "http://me:p'w@proxy.example:3128", "no_proxy": "a,b"}))
        assert machine.run().returncode == 0
        assert machine.calls[0]["proxy"] == "http://me:p'w@proxy.example:3128"

    def test_a_state_directory_that_is_a_link_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        machine.bring(brought())
        machine.state.rename(tmp_path / "elsewhere")
        machine.state.symlink_to(tmp_path / "elsewhere")
        assert machine.run().returncode == 1
        assert machine.calls == []

    def test_odd_words_of_the_log_make_no_odd_report(self, machine: Machine) -> None:
        machine.bring(Pull(model.script('printf \'\\055> failed x: \\033[1m"\\\\ \\303\\244\\n\\377\\t\\n\'; exit 1\n', os_release()), tries=1))
        assert machine.run().returncode == 1
        assert str(machine.report["message"]).startswith("x: [1m")


class TestAScriptForOneSystem:
    @pytest.mark.parametrize(("ends", "code", "result"), [(0, 0, "done"), (1, 1, "failed"), (75, 0, ""), (76, 0, "")])
    def test_its_exit_code_decides(self, machine: Machine, ends: int, code: int, result: str) -> None:
        machine.bring(Pull(model.script(f"echo '-> failed it: it broke'\nexit {ends}\n", os_release()), tries=1))
        assert machine.run().returncode == code
        assert ("reboot-double" in machine.ran) is (ends in (75, 76))
        if result:
            assert machine.report["result"] == result
        if ends == 1:
            assert machine.report["message"] == "it: it broke"

    def test_is_not_run_on_another_system(self, machine: Machine, tmp_path: Path) -> None:
        machine.bring(Pull(model.script(f"touch {tmp_path}/ran-it\n", "plan9 4 mips")))
        assert machine.run().returncode == 5
        assert "plan9 4 mips" in str(machine.report["message"])
        assert not (tmp_path / "ran-it").exists()

    def test_is_the_one_that_plan_prints(self) -> None:
        result = cloud_init("--capture", str(HOSTS / "debian13-cloud/probe.txt"), "-p", "docker-host", "--set", "docker.source=distro", "-q")
        entry = next(e for e in yaml.safe_load(result.output)["write_files"] if e["path"].endswith("payload"))
        assert "# mlhost: one stage of the set-up of" in entry["content"]
        assert "debian 13 x86_64" in result.output


def os_release() -> str:
    """This machine as the driver sees it."""
    words = subprocess.run(["sh", "-c", '. /etc/os-release; printf "%s %s %s" "$ID" "$VERSION_ID" "$(uname -m)"'], capture_output=True, text=True, check=True)
    return words.stdout.lower()


@pytest.mark.slow
class TestTheInstaller:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_does_the_work_at_once_and_only_once(self, tmp_path: Path, shell: str) -> None:
        if not shutil.which(SHELLS[shell][0]):
            pytest.skip(f"{shell} is missing")
        machine = Machine(tmp_path, SHELLS[shell])
        machine.codes(0)
        script = tmp_path / "install.sh"
        script.write_text(installer(brought()))
        assert machine.run("test", script).returncode == 0
        assert not (tmp_path / "units" / model.UNIT).exists()
        assert machine.run("now", script).returncode == 0
        assert machine.report["result"] == "done"
        again = machine.run("now", script)
        assert again.returncode == 0
        assert "has set itself up already" in again.stdout
        assert [call["argv"][0] for call in machine.calls] == ["facts", "setup"]  # type: ignore[index]

    def test_other_settings_are_done_all_the_same(self, machine: Machine, tmp_path: Path) -> None:
        script = tmp_path / "install.sh"
        for tries in (1, 2):
            script.write_text(installer(brought(tries=tries)))
            assert machine.run("now", script).returncode == 0
        assert len(machine.calls) == 2

    def test_what_needs_a_reboot_is_left_to_the_unit(self, machine: Machine, tmp_path: Path) -> None:
        machine.codes(6, 0)
        script = tmp_path / "install.sh"
        script.write_text(installer(brought()))
        assert machine.run("now", script).returncode == 6
        assert (tmp_path / "units/multi-user.target.wants" / model.UNIT).resolve() == tmp_path / "units" / model.UNIT
        assert (tmp_path / "units" / model.UNIT).read_text() == UNIT_TEXT
        assert machine.waits_for_the_next_boot
        assert machine.run().returncode == 0

    def test_its_files_are_roots_alone(self, machine: Machine, tmp_path: Path) -> None:
        machine.codes(1)
        script = tmp_path / "install.sh"
        script.write_text(installer(brought(tries=1)))
        machine.run("now", script)
        assert machine.state.stat().st_mode & 0o077 == 0
        for path in machine.state.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


class TestRealTools:
    @pytest.mark.parametrize("kind", ["mlhost", "script"])
    def test_shellcheck_has_nothing_to_say(self, kind: str, tmp_path: Path) -> None:
        if not shutil.which("shellcheck"):
            pytest.skip("shellcheck is missing")
        payload = FETCHED if kind == "mlhost" else model.script("#!/bin/sh\nexit 0\n", "debian 13 x86_64")
        pull = Pull(payload, Report("https://a.example/'$(x)'\"`y`"), '{"name": "it\'s"}\n', {"http_proxy": "http://a'b"})
        for name, text in (("run.sh", files(pull)[0].data.decode()), ("install.sh", str(installer(pull)))):
            (tmp_path / name).write_text(text)
            done = subprocess.run(["shellcheck", "-s", "sh", str(tmp_path / name)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout

    def test_systemd_takes_the_unit(self, tmp_path: Path) -> None:
        if not shutil.which("systemd-analyze"):
            pytest.skip("systemd-analyze is missing")
        unit = tmp_path / model.UNIT
        unit.write_text(UNIT_TEXT)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        assert model.UNIT not in done.stderr.replace(str(unit), ""), done.stderr
        assert "Unknown" not in done.stderr
        assert "cycle" not in done.stderr

    def test_ansible_is_given_yaml_whose_script_is_the_installer(self) -> None:
        class Loader(yaml.SafeLoader):
            pass

        Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
        tasks = yaml.load(others.ansible(brought()), Loader)
        copy = next(task["ansible.builtin.copy"] for task in tasks if "ansible.builtin.copy" in task)
        assert copy["content"] == installer(brought())
        assert copy["mode"] == "0600"

    @pytest.mark.slow
    def test_ansible_finds_nothing_wrong_with_the_tasks(self, tmp_path: Path) -> None:
        program = Path(sys.executable).parent / "ansible-playbook"
        if not program.exists():
            pytest.skip("ansible-core is missing")
        (tmp_path / "mlhost.yml").write_text(others.ansible(brought()))
        (tmp_path / "play.yml").write_text("- hosts: all\n  become: true\n  tasks:\n    - ansible.builtin.import_tasks: mlhost.yml\n")
        words = [str(program), "--syntax-check", "-i", "localhost,", str(tmp_path / "play.yml")]
        env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr

    def test_a_packer_template_is_hcl(self) -> None:
        hcl2 = pytest.importorskip("hcl2")
        (build,) = hcl2.loads(f"build {{\n{others.packer(brought())}}}\n")["build"]
        ((_, shell),) = build["provisioner"][0].items()
        assert shell["valid_exit_codes"] == [0, 6]

    def test_a_dockerfile_holds_the_installer_in_lines_that_a_builder_reads(self) -> None:
        text = others.dockerfile(brought())
        assert max(map(len, text.splitlines())) < 65_535
        pieces = re.findall(r"^RUN printf '%s' '([A-Za-z0-9+/=]+)' >>/mlhost.b64$", text, re.M)
        assert gzip.decompress(base64.b64decode("".join(pieces))).decode() == installer(brought())

    def test_the_lines_of_a_dockerfile_do_what_they_say(self, machine: Machine) -> None:
        """Without a container: its commands one by one, in a folder."""
        commands = [line[4:] for line in others.dockerfile(brought()).splitlines() if line.startswith("RUN ")]
        script = machine.folder / "run-lines"
        script.write_text("\n".join(["set -e", *commands]).replace("/mlhost.", f"{machine.folder}/mlhost."))
        done = machine.run("", script)
        assert done.returncode == 0, done
        assert "this system can run it" in done.stdout
        assert machine.calls[0]["argv"] == ["facts", "--format", "json"]

    def test_a_packer_template_keeps_the_script_as_it_is(self) -> None:
        text = others.packer(brought())
        body = text.split("<<-MLHOST\n", 1)[1].split("\n  MLHOST\n", 1)[0] + "\n"
        assert "{{" not in body
        assert re.search(r"(?<!\$)\$\{", body) is None
        assert body.replace("$${", "${").replace("%%{", "%{") == installer(brought())


def test_every_error_of_the_command_is_an_error_with_a_remedy() -> None:
    assert issubclass(userdata.TooBig, Error)
    assert issubclass(UsageError, Error)
