"""The reference of playbooks, made from `provision.spec` and the packaged files: `python -m provision.playbook_docs > docs/playbooks.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provision.playbook import MAX_EXTENDS, packaged
from provision.playbook_schema import Setting, children

_HEAD = """\
# Playbooks

<!-- Made by `python -m provision.playbook_docs`; change provision/spec.py instead. -->

A playbook is a YAML file that says what a host should be. Every key has a default, so an empty file is a playbook too, and a short one is normal:

```yaml
extends: gpu-host
docker:
  users: [alice]
  log: {max_size: 50m}
```

`mlhost setup -p NAME` takes a packaged playbook, `mlhost setup -p ./file.yaml` your own; without `-p` it is `gpu-host`.
"""

_RULES = f"""\
## Rules

- Unknown keys, keys given twice, wrong types and contradictions are errors, told with file, line and column. Nothing is guessed and nothing is ignored.
- **Quote versions.** To YAML `29.70` is a number and becomes 29.7; `"29.70"` stays what it is.
- **`yes`, `no`, `on` and `off` are booleans to YAML.** Where a text is wanted they must be quoted.
- `extends` names the playbook whose values are the defaults of this one: a packaged name, or a file relative to this one. Mappings are merged key by key,
  lists are replaced as a whole, `name` is not inherited. At most {MAX_EXTENDS} playbooks extend one another.
- `--set key.path=value` wins over the file and can be repeated, later ones win. Texts are taken literally, so `--set docker.version=29.70` needs no quotes;
  lists are written `--set docker.users=[alice,bob]`, a single entry `--set docker.users=alice`; single keys of a mapping `--set docker.ulimits.nofile=1048576`.
- Anchors, aliases and merge keys (`<<`) work. Tags (`!!…`) and several documents in one file do not.
- Passwords in `proxy` and mirror URLs are never printed, nor are they part of reports.
"""

_STEPS = """\
## Steps of your own

`steps` names Python files (with `/` or ending in `.py`, relative to the playbook), or entry points of the group `mlhost.steps` in installed packages. A step is
one function, and it only looks at facts:

```python
def step(facts, spec, platform):
    yield Item(id="motd/file", step="motd", kind="file", state=..., why="...", action=File("/etc/motd", TEXT))
```

`facts` is `provision.model.Facts`, the items are `provision.model.Item`, the actions those of `provision.actions`; mlhost makes the script, carries it out,
checks it and takes it back like any other. `NAME` beside the function names the step (default: the file's name). `watch = ("/etc/motd",)` asks the probe for what is at those paths:
`facts.paths["/etc/motd"].sha256`. An item has an action exactly when its state is `change`. The file is run by whoever runs mlhost: use only steps you trust.
A whole example: [`playbooks/example-own-step.yaml`](../playbooks/example-own-step.yaml) with [`playbooks/steps/gpu_order.py`](../playbooks/steps/gpu_order.py).
"""

_KINDS: Mapping[str, str] = {
    "bool": "`true` or `false`", "int": "whole number", "text": "text", "path": "absolute path", "url": "http(s) URL", "version": "version, quoted",
    "texts": "list of texts", "json": "mapping", "size": "size (`50m`, `8g`)", "limit": "`unlimited` or a number", "limits": "limit name → `unlimited` or a number",
}


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, (tuple, Mapping)):
        return "none"
    return f"`{value}`" if value != "" else "none"


def _takes(setting: Setting) -> str:
    if setting.kind == "choice":
        return " or ".join(f"`{choice}`" for choice in setting.choices if choice)
    return _KINDS[setting.kind]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(prefix: tuple[str, ...], title: str, doc: str) -> list[str]:
    values = [setting for setting in children(prefix) if setting.section is None]
    lines = [f"### {title}", "", doc, ""]
    if values:
        lines += ["| Key | Takes | Default | What it does |", "|---|---|---|---|"]
        lines += [f"| `{s.key}` | {_cell(_takes(s))} | {_cell(_default(s.default))} | {_cell(s.doc)} |" for s in values]
        lines.append("")
    for setting in children(prefix):
        if setting.section is not None:
            lines += _section(setting.path, f"`{setting.key}`", setting.doc)
    return lines


def _about(path: str) -> str:
    """The comment a packaged playbook begins with, as one line."""
    lines: list[str] = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def reference() -> str:
    """The whole page, Markdown. Reads the packaged playbooks' first comments, nothing else."""
    names = [f"- [`{name}`](../playbooks/{name}.yaml): {_about(path)}" for name, path in packaged().items()]
    lines = [_HEAD, "## Packaged playbooks", "", *names, "", _RULES, "## Settings", "", *_section((), "Top level", "What is not in a section."), _STEPS]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
