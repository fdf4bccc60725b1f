"""The JSON Schema of `facts --format json`, made from the model, so that the two cannot part. Needs Python 3.10 or newer (it reads annotations).

`python -m provision.report.schema > provision/data/schema/facts.json` writes it anew after a change of the model.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Mapping
from typing import Any

from provision.model import Facts
from provision.report.jsonout import SCHEMA

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SIMPLE: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def facts_schema() -> dict[str, Any]:
    """The schema as a JSON value."""
    parts: dict[str, Any] = {
        "bytes": _object({"sha256": {"type": "string"}, "bytes": {"type": "integer"}}, "Bytes, by their hash and length."),
        "keyring": _object(
            {
                "fingerprints": {"type": "array", "items": {"type": "string", "pattern": "^[0-9A-F]{40,64}$"}},
                "sha256": {"type": "string"},
                "bytes": {"type": "integer"},
            },
            "The primary keys in a keyring file.",
        ),
    }
    facts = _dataclass(Facts, parts)
    properties = {"schema": {"const": SCHEMA}, **facts["properties"]}
    properties["keyrings"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/keyring"}}
    about = "What `mlhost facts --format json` prints for one host. null is unknown, never absent."
    return {"$schema": DIALECT, "title": "mlhost facts", **_object(properties, about), "$defs": dict(sorted(parts.items()))}


def _object(properties: Mapping[str, Any], about: str) -> dict[str, Any]:
    return {"description": about, "type": "object", "properties": dict(properties), "required": sorted(properties), "additionalProperties": False}


def _dataclass(cls: Any, parts: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    about = (cls.__doc__ or "").strip().split("\n")[0]
    return _object({field.name: _schema(hints[field.name], parts) for field in dataclasses.fields(cls)}, about)


def _schema(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The schema of one annotation; dataclasses are added to `parts` and referred to."""
    arguments = typing.get_args(hint)
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if hint is bytes:
        return {"$ref": "#/$defs/bytes"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in parts:
            parts[hint.__name__] = _dataclass(hint, parts)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(arguments[0], parts)}
    if typing.get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], parts)}
    if not arguments:
        return {}
    either = [_schema(argument, parts) for argument in arguments]
    return {"type": [part["type"] for part in either]} if all(set(part) == {"type"} for part in either) else {"anyOf": either}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts_schema(), indent=2) + "\n")
