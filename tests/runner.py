"""A double of GitHub's runner: runs the steps of a composite action as the runner does, as far as this repository's own action needs it.

Real: bash with the runner's options, the scripts, the files behind GITHUB_OUTPUT. Expressions are only those that are listed here; any other one is an error.
Facts: https://docs.github.com/en/actions/reference/workflows-and-actions/metadata-syntax and .../workflow-syntax (`shell`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")  # what `shell: bash` is
_EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


@dataclass
class Job:
    """What became of a run: the steps' exit codes by their names (None: not run), their outputs, and all they said."""

    codes: dict[str, int | None] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""

    @property
    def ok(self) -> bool:
        return all(code in (0, None) for code in self.codes.values())


def run_action(action: Path, workspace: Path, given: Mapping[str, str], environment: Mapping[str, str]) -> Job:
    """Run the action at `action` (its folder) in `workspace` with these inputs."""
    metadata = yaml.safe_load((action / "action.yml").read_text())
    unknown = set(given) - set(metadata["inputs"])
    assert not unknown, f"the action has no input {unknown}"
    inputs = {name: str(about.get("default", "")) for name, about in metadata["inputs"].items()} | dict(given)
    temp = workspace / "_temp"
    temp.mkdir(parents=True, exist_ok=True)
    job, outputs = Job(), {}
    for step in metadata["runs"]["steps"]:
        if not _wanted(step.get("if", ""), inputs, job.ok):
            job.codes[step["name"]] = None
            continue
        job.codes[step["name"]], said, outputs[step.get("id", "")] = _step(step, inputs, workspace, temp, {**environment, "GITHUB_ACTION_PATH": str(action)})
        job.log += said
    values = {"inputs": inputs, "steps": outputs}
    job.outputs = {name: _filled(about["value"], values) for name, about in metadata["outputs"].items()}
    return job


def _step(
    step: Mapping[str, Any], inputs: Mapping[str, str], workspace: Path, temp: Path, environment: Mapping[str, str]
) -> tuple[int, str, dict[str, str]]:
    assert step["shell"] == "bash"
    script, output = temp / "script.sh", temp / "output"
    script.write_text(step["run"])
    output.write_text("")
    env = {**environment, "RUNNER_TEMP": str(temp), "GITHUB_OUTPUT": str(output), "GITHUB_WORKSPACE": str(workspace), "CI": "true", "GITHUB_ACTIONS": "true"}
    env |= {name: _filled(str(value), {"inputs": inputs}) for name, value in step.get("env", {}).items()}
    done = subprocess.run(
        [*BASH, str(script)], cwd=workspace, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout, dict(line.split("=", 1) for line in output.read_text().splitlines())


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """A text with its expressions replaced: `inputs.NAME` and `steps.ID.outputs.NAME`; what is not there is empty."""

    def value(match: re.Match[str]) -> str:
        kind, _, rest = match[1].partition(".")
        if kind == "inputs":
            return str(values["inputs"][rest])
        number, middle, name = rest.split(".")
        assert (kind, middle) == ("steps", "outputs"), f"this double does not know ${{{{ {match[1]} }}}}"
        return str(values["steps"].get(number, {}).get(name, ""))

    return _EXPRESSION.sub(value, text)


def _wanted(condition: str, inputs: Mapping[str, str], ok: bool) -> bool:
    """Whether a step runs: `always()`, or comparisons of inputs with texts joined by `&&`; without `always()` only after success."""
    if condition == "always()":
        return True
    for part in condition.split(" && ") if condition else ():
        match = re.fullmatch(r"inputs\.([a-z-]+) (==|!=) '([^']*)'", part)
        assert match, f"this double does not know the condition {part!r}"
        if (inputs[match[1]] == match[3]) != (match[2] == "=="):
            return False
    return ok


def environment() -> dict[str, str]:
    """What a runner's own environment has of this process's."""
    kept = ("PATH", "HOME", "LANG", "PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "XDG_CACHE_HOME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ}
