"""Data moves forward only: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROVISION = Path(__file__).resolve().parent.parent / "provision"

# From first to last; a module may import only what stands in an earlier layer or its own.
LAYERS = (
    ("errors", "shipped", "actions", "sources", "single"),
    ("model", "sh", "shtext", "results"),
    ("openpgp", "rows", "spec", "debversion", "lockfile", "watched", "daemonjson", "capture", "traces", "backfiles", "versions"),
    ("aptsource", "rpmsource", "catalog*", "cudafit", "facts", "playbook*", "ownsteps", "probe", "hardware"),
    ("steps",),
    ("plan", "layers", "backplan", "offline", "lockplan"),
    ("render", "render_rpm", "render_back", "journal", "report", "remedies", "keys", "reach", "imageconfig", "doctor", "redaction", "images", "firstboot", "pull", "aptroot", "bundlefile"),
    ("dockrun",),
    ("transport", "progress", "fleet"),
    ("inventory",),
    ("follow", "reboot", "look", "aptask", "upload"),
    ("run", "launch"),
    ("prove", "status", "examine", "supportbundle", "rollback", "savedplan", "shipping", "bake", "pyz", "locking", "bundling", "bundled"),
    ("library", "cli", "spread"),
    ("specs",),
    ("bootstrap", "__main__", "refresh", "support_docs", "failure_docs", "vendors", "unpack"),
)
# These touch the world; everything in the layers before `transport` is values in, values out.
WORLDLY = {"subprocess", "socket", "paramiko", "fabric", "threading", "random", "secrets"}
PURE = ("errors", "debversion", "lockfile", "lockplan", "aptroot", "bundlefile", "results", "versions", "actions", "model", "sh", "openpgp", "rows", "spec", "daemonjson", "capture", "aptsource", "rpmsource", "facts", "steps", "plan", "layers", "render", "render_rpm", "shtext", "journal", "doctor", "redaction", "traces", "backfiles", "backplan", "render_back", "savedplan", "remedies", "images", "dockrun", "hardware", "offline", "firstboot", "pull")


def unit(path: Path) -> str:
    return path.relative_to(PROVISION).parts[0].removesuffix(".py") if hasattr(str, "removesuffix") else path.stem


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if any(name == n or (n.endswith("*") and name.startswith(n[:-1])) for n in names):
            return number
    raise AssertionError(f"provision/{name} stands in no layer; give it one in tests/test_layers.py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file; imports for type checking only do not count."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "provision")
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


FILES = sorted(p for p in PROVISION.rglob("*.py") if p.name != "__init__.py" or p.parent != PROVISION)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PROVISION)))
def test_a_module_imports_only_what_comes_before_it(path: Path) -> None:
    own = layer(unit(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "provision" and len(parts) > 1 and (PROVISION / parts[1]).with_suffix("").name:
            if not ((PROVISION / f"{parts[1]}.py").exists() or (PROVISION / parts[1]).is_dir()):
                continue
            assert layer(parts[1]) <= own, f"{path.name} imports {name}, which stands later on the way"


@pytest.mark.parametrize("path", [p for p in FILES if unit(p) in PURE], ids=lambda p: str(p.relative_to(PROVISION)))
def test_what_decides_touches_nothing(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & WORLDLY


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PROVISION)))
def test_no_module_is_longer_than_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


def test_the_shipped_specs_know_nothing_of_what_they_judge() -> None:
    for path in (PROVISION / "specs").glob("*.py"):
        assert not any(name.startswith("provision") for name in imports(path)), path.name
