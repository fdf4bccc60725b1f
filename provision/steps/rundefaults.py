"""What `mlhost run` does by default on a host: the playbook's `run:` section as /etc/mlhost/run.toml."""

from __future__ import annotations

import dataclasses
import json

from provision.actions import File
from provision.spec import RunSpec
from provision.steps import FILES, Context, Result
from provision.steps.files import file_item
from provision.watched import RUN_DEFAULTS

STEP = "run"


def text(spec: RunSpec) -> str:
    """The file: only what differs from what `mlhost run` does by itself. JSON's texts and lists of texts are TOML's too (toml.io/en/v1.0.0)."""
    usual = dataclasses.asdict(RunSpec())
    rows = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in dataclasses.asdict(spec).items() if value != usual[key]]
    return "# mlhost: defaults of `mlhost run`, from the playbook; a user's own are in ~/.config/mlhost/run.toml\n" + "".join(rows)


def decide(ctx: Context) -> Result:
    """The file where the playbook says anything about it."""
    if ctx.spec.run == RunSpec():
        return Result()
    why = "the playbook says what `mlhost run` does by default"
    return Result((file_item(ctx.facts, STEP, "run/defaults", File(RUN_DEFAULTS, text(ctx.spec.run)), why, FILES),))
