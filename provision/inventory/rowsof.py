"""Rows of a shipped TOML table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4)
def rows(text: str, table: str) -> tuple[Mapping[str, Any], ...]:
    """The rows of one array of tables in a TOML text."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tuple(tomllib.loads(text)[table])
