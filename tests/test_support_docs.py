"""The page of supported systems is what the catalog says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provision.catalog import load, packaged
from provision.support_docs import page

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert (DOCS / "support.md").read_text(encoding="utf-8") == page(), "run: python -m provision.support_docs > docs/support.md"


def test_the_page_tells_what_is_set_up_from_what_is_only_known() -> None:
    def read(name: str) -> dict[str, Any]:
        return {**packaged(name), "later": ["ubuntu:16.04"]} if name == "distros" else packaged(name)

    before, after = page(load(read)).split("### Known, and not set up by this release")
    assert "| Ubuntu 24.04 |" in before
    assert "| Rocky Linux 9 |" in before
    assert "| Ubuntu 16.04 |" not in before
    assert "| Ubuntu 16.04 |" in after


def test_with_everything_switched_on_the_page_has_one_table_of_systems() -> None:
    text = page(load(enable_all=True))
    assert "not set up by this release" not in text
    assert "| Rocky Linux 9 |" in text


def test_the_page_names_every_system_every_refusal_and_every_reason_to_withhold() -> None:
    text = page()
    every = load(enable_all=True)
    for row in (*every.systems, *every.refused):
        assert row.get("name", row["id"].capitalize()) in text, row["id"]
    for row in every.systems:
        for why in row.get("withheld", {}).values():
            assert why in text


def test_every_cell_of_every_table_is_in_its_column() -> None:
    width = 0
    for line in page().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width, line


def test_how_to_add_a_system_names_files_and_commands_that_exist() -> None:
    text = (DOCS / "adding-a-system.md").read_text(encoding="utf-8")
    root = DOCS.parent
    for name in ("distros", "distros_rpm", "drivers", "drivers_rpm", "repositories", "gpus", "clouds", "instances", "cuda"):
        assert f"{name}.toml" in text
        assert (root / "provision" / "data" / f"{name}.toml").exists()
    for module in ("support_docs", "refresh"):
        assert f"python -m provision.{module}" in text
        assert (root / "provision" / f"{module}.py").exists()
    for test in ("test_catalog.py", "test_catalog_rpm.py"):
        assert test in text
        assert (root / "tests" / test).exists()
