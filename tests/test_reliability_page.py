"""The reliability page's figures: read, added up and put between its marks."""

from __future__ import annotations

import pytest

from benchmarks import reliability


def test_files_of_one_kind_are_added_up_and_fuzzed_inputs_are_no_faults() -> None:
    files = {
        "a.json": {"what": "killed", "tried": 3, "survived": 3, "note": ""},
        "b.json": {"what": "killed", "tried": 2, "survived": 1, "note": ""},
        "fuzz.json": {"inputs": 1000, "harnesses": 7, "failures": 0, "seconds": 3, "seed": 1},
    }
    found = reliability.rows(files)
    assert found == [("inputs fuzzed (7 readers)", 1000, 1000), ("killed", 5, 4)]
    assert reliability.table(found).splitlines()[-1] == "| **faults injected** | **5** | **4** |"


def test_a_file_without_figures_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"x\.json holds no figures"):
        reliability.rows({"x.json": {}})


def test_the_page_has_its_marks() -> None:
    page = reliability.PAGE.read_text()
    assert page.index(reliability.BEGIN) < page.index(reliability.END)
