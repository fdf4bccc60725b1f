"""Files that come with the package: data and scripts."""

from __future__ import annotations

import pkgutil


def shipped(path: str) -> str:
    """The text of a file by its path inside the package ("data/gpus.toml"). importlib.resources would do the same and import a dozen modules first."""
    content = pkgutil.get_data("provision", path)
    if content is None:  # only a loader that cannot read data answers so
        raise FileNotFoundError(f"provision/{path}")
    return content.decode("utf-8")
