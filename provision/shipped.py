"""Files that come with the package: data and scripts."""

from __future__ import annotations

import pkgutil
import sys
from typing import Any


def shipped(path: str) -> str:
    """The text of a file by its path inside the package ("data/gpus.toml"). importlib.resources would do the same and import a dozen modules first."""
    content = pkgutil.get_data("provision", path)
    if content is None:  # only a loader that cannot read data answers so
        raise FileNotFoundError(f"provision/{path}")
    return content.decode("utf-8")


def shipped_toml(path: str) -> dict[str, Any]:
    """The content of a TOML file by its path inside the package; read anew each time."""
    return parsed_toml(shipped(path))


def parsed_toml(text: str) -> dict[str, Any]:
    """The content of a TOML text. Python has a reader of its own from 3.11 on; it is imported here, as not every run wants one."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
