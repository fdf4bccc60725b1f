"""The packaged playbooks as they are after reading: `python -m provision.playbook_ready > provision/data/playbooks.json`.

The YAML files are what counts. What is stored is found by the sha256 of a file's text, so that a changed file is read as any other; a test
says when it is time to store anew.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from provision.shipped import shipped


def ready(text: str) -> dict[tuple[str, ...], tuple[Any, str]] | None:
    """The settings in this text of a playbook, each with its value and where that stands (`line:column`); None where they are not stored."""
    stored = json.loads(shipped("data/playbooks.json")).get(_name(text))
    if stored is None:
        return None
    return {tuple(key.split(".")): (tuple(value) if isinstance(value, list) else value, at) for key, (value, at) in stored.items()}


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def document() -> str:
    """The content of the stored file, made from the packaged playbooks."""
    from provision import playbook, playbook_yaml

    stored = {}
    for path in playbook.packaged().values():
        text = playbook_yaml.read(path)
        layer = playbook.parsed(text, path)
        stored[_name(text)] = {".".join(key): (given.value, ":".join(given.where.rsplit(":", 2)[1:])) for key, given in layer.items()}
    return json.dumps(stored, indent=1) + "\n"


if __name__ == "__main__":
    print(document(), end="")
