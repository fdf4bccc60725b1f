"""The composite action and the examples for CI: linted, and their scripts really run."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import runner
from tests.fresh import LAB, Fresh
from tests.lab.keys import lab_keys
from tests.lab.nshost import NsHost

pytestmark = pytest.mark.timeout(1500)

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / "examples/ci").glob("github-*.yml"))
GITLAB = ROOT / "examples/ci/gitlab-ci.yml"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def flat(script: Any) -> Iterator[str]:
    for line in script:
        yield from flat(line) if isinstance(line, list) else (line,)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a pipeline for GitLab."""
    return {name: job for name, job in yaml.safe_load(path.read_text()).items() if isinstance(job, dict) and "script" in job}


GITHUB_GIVES = ("RUNNER_TEMP", "GITHUB_OUTPUT", "GITHUB_ACTION_PATH")
GITLAB_GIVES = ("MLHOST", "FLEET_KEY", "FLEET_KNOWN_HOSTS")  # as the pipeline's own first lines say


def scripts() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Every script: where it is -> its shell, its text, and the variables it is given."""
    found = {
        f"action.yml: {step['name']}": ("bash", step["run"], (*GITHUB_GIVES, *step.get("env", {}))) for step in ACTION["runs"]["steps"]
    }
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            for number, step in enumerate(job["steps"]):
                if "run" in step:
                    found[f"{path.name}: {name} {number}"] = ("bash", step["run"], GITHUB_GIVES)
    for name, job in jobs(GITLAB).items():
        found[f"{GITLAB.name}: {name}"] = ("sh", "\n".join([*flat(job["script"]), *job.get("after_script", [])]) + "\n", GITLAB_GIVES)
    return found


@pytest.mark.parametrize("where", scripts())
def test_shellcheck_has_nothing_to_say_of_a_script(where: str) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not on this machine")
    shell, text, given = scripts()[where]
    declared = "".join(f"{name}=\nexport {name}\n" for name in given)  # so that any other variable is found to come from nowhere
    done = subprocess.run(["shellcheck", "-s", shell, "-"], input=declared + text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("where", scripts())
def test_nothing_is_written_into_a_script_from_outside(where: str) -> None:
    assert "${{" not in scripts()[where][1], "an expression in a script lets its value be run"


def test_what_the_examples_give_to_the_action_are_its_inputs() -> None:
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "mlhost" in step.get("uses", ""):
                    assert set(step.get("with", {})) <= set(ACTION["inputs"]), path.name


def test_every_input_is_used_and_is_in_the_docs() -> None:
    text = (ROOT / "action.yml").read_text()
    docs = (ROOT / "docs/ci.md").read_text()
    for name in ACTION["inputs"]:
        assert re.search(rf"inputs\.{name}\b", text), name
        assert f"| `{name}` |" in docs, name
    for name in ACTION["outputs"]:
        assert f"`{name}`" in docs, name


def test_the_command_lines_in_the_pipeline_are_ones_that_mlhost_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from provision.cli import Session, cli

    lines = [line for job in jobs(GITLAB).values() for line in flat(job["script"]) if line.startswith(".mlhost/bin/mlhost ")]
    assert len(lines) >= 2
    for line in lines:
        name, *words = shlex.split(line)[1:]
        with cli.make_context("mlhost", [name, "--help"], obj=Session(), resilient_parsing=True) as group:
            command = cli.get_command(group, name)
            assert command is not None
            command.make_context(name, words, parent=group)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "files", "more"),
    [
        ("vendor.github-actions", [ROOT / "action.yml"], []),
        ("vendor.github-workflows", WORKFLOWS, []),
        ("vendor.gitlab-ci", [GITLAB], ["--data-transform", "gitlab-ci"]),
    ],
    ids=["action", "workflows", "pipeline"],
)
def test_the_file_is_what_the_vendors_schema_says(schema: str, files: list[Path], more: list[str]) -> None:
    pytest.importorskip("check_jsonschema", reason="the schemas come with check-jsonschema")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *more, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def packed(checkout: Path, folder: Path) -> Path:
    """The checkout as the runner has it: without what is lying about."""
    for name in ("provision", "playbooks"):
        shutil.copytree(checkout / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("action.yml", "pyproject.toml", "README.md"):
        shutil.copy(checkout / name, folder / name)
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """A runner's environment, with a home of its own so that nobody's ssh settings are read."""
    return {**runner.environment(), "HOME": str(home), "XDG_CACHE_HOME": str(Path.home() / ".cache"), **more}


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    return fresh.host()


@pytest.mark.host
class TestForReal:
    """One namespace host, with sshd, systemd and apt, as the machine of a fleet; the runner and the pipeline's runner are doubles."""

    @pytest.fixture
    def inputs(self, host: NsHost, fresh: Fresh) -> dict[str, str]:
        return {
            "playbook": "docker-host",
            "set": "\n".join([*LAB, "docker.source=distro"]) + "\n",
            "targets": f"\n  admin@{host.address}\n",
            "ssh-key": lab_keys().client.read_text(),
            "known-hosts": host.known_hosts(),
        }

    def test_the_action_plans_and_then_sets_a_host_up_and_the_specs_agree(
        self, host: NsHost, inputs: dict[str, str], tmp_path: Path, checkout: Path
    ) -> None:
        action = packed(checkout, tmp_path / "action")
        job = runner.run_action(action, tmp_path / "work", {**inputs, "command": "plan"}, environment(tmp_path))
        assert job.ok, job.log
        assert job.outputs == {"exit-code": "3", "report": "mlhost-report"}
        assert job.codes["Run the specs"] is None
        assert not (tmp_path / "work/_temp/mlhost-key").exists()
        assert host.run("command -v docker", check=False).code != 0

        job = runner.run_action(action, tmp_path / "work", inputs, environment(tmp_path))
        assert job.ok, job.log
        assert job.outputs["exit-code"] == "0"
        suites = {name: ET.parse(tmp_path / f"work/mlhost-report/{name}.xml").getroot() for name in ("mlhost", "specs")}
        for suite in suites.values():
            assert not [case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
        assert any("test_a_container_runs_to_its_end" in case.get("name", "") for case in suites["specs"].iter("testcase"))
        assert host.run("docker info", user="root").code == 0

    def test_the_pipeline_s_own_lines_find_nothing_to_do_there(self, host: NsHost, tmp_path: Path, checkout: Path) -> None:
        (job,) = (job for name, job in jobs(GITLAB).items() if name == "fleet")
        lines = [line for line in flat(job["script"]) if not line.startswith("apt-get")]
        assert len(lines) == 4
        values = ", ".join(f"{key}: {value!r}" for key, _, value in (word.partition("=") for word in [*LAB, "docker.source=distro"]))
        (tmp_path / "fleet.yaml").write_text(
            f"defaults: {{user: admin, playbook: docker-host}}\nhosts:\n  gpu-1: {{address: {host.address}, set: {{{values}}}}}\n"
        )
        (tmp_path / "known_hosts").write_text(host.known_hosts())
        source = packed(checkout, tmp_path / "source")
        env = environment(tmp_path, MLHOST=f"file://{source}", FLEET_KEY=str(lab_keys().client), FLEET_KNOWN_HOSTS=str(tmp_path / "known_hosts"))
        script = "\n".join(["set -e", *lines, *job["after_script"]])
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        suite = ET.parse(tmp_path / "mlhost.xml").getroot()
        assert not [case for case in suite.iter("testcase") if case.find("failure") is not None]
        assert not (tmp_path / ".mlhost/key").exists()


@pytest.mark.slow
class TestAWrongInput:
    """The steps without their first one: the environment is this one's, by a link in the place where the action installs it."""

    def refused(self, tmp_path: Path, checkout: Path, **inputs: str) -> runner.Job:
        action = tmp_path / "action"
        action.mkdir()
        metadata = dict(ACTION, runs=dict(ACTION["runs"], steps=ACTION["runs"]["steps"][1:]))
        (action / "action.yml").write_text(yaml.safe_dump(metadata, sort_keys=False))
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        environ = {**environment(tmp_path), "PYTHONPATH": str(checkout)}
        bin_folder = tmp_path / "work/_temp/mlhost/bin"
        real = runner._step

        def prepared(*arguments: Any) -> Any:
            bin_folder.mkdir(parents=True, exist_ok=True)
            (bin_folder / "mlhost").write_text(f'#!/bin/sh\nexec {sys.executable} -m provision "$@"\n')
            (bin_folder / "mlhost").chmod(0o755)
            return real(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "_step", prepared)
            return runner.run_action(action, tmp_path / "work", given, environ)

    def test_a_value_is_a_value_and_never_a_command(self, tmp_path: Path, checkout: Path) -> None:
        for mark, value in zip(itertools.count(), ("docker.version=$(touch pwned)", "`touch pwned`", '"; touch pwned; "')):
            (tmp_path / str(mark)).mkdir()
            job = self.refused(tmp_path / str(mark), checkout, command="plan", set=value)
            assert job.outputs["exit-code"] == "2", job.log
            assert not job.ok
            assert not list(tmp_path.rglob("pwned"))

    def test_a_command_that_is_none_of_the_three_is_refused(self, tmp_path: Path, checkout: Path) -> None:
        job = self.refused(tmp_path, checkout, command="uninstall")
        assert not job.ok
        assert "`command` is setup, plan or verify" in job.log

    def test_a_runner_is_not_rebooted_under_its_own_job(self, tmp_path: Path, checkout: Path) -> None:
        job = self.refused(tmp_path, checkout, reboot="true")
        assert not job.ok
        assert "cannot reboot in the middle of its own job" in job.log

    def test_the_key_is_gone_afterwards_whatever_happened(self, tmp_path: Path, checkout: Path) -> None:
        job = self.refused(tmp_path, checkout, command="plan", ssh_key="a key", targets="admin@127.0.0.1:1")
        assert job.outputs["exit-code"] in ("2", "4"), job.log
        assert not (tmp_path / "work/_temp/mlhost-key").exists()
        assert os.path.exists(tmp_path / "work/_temp")
