"""Whether a driver runs what was built with a CUDA release, and what an image's own requirements say."""

from __future__ import annotations

import pytest

from provision.catalog import load
from provision.cudafit import Condition, cuda_fit, holds, native_cuda, native_fit, parse_require, unmet

# As in nvidia/cuda:13.2.1-base-ubuntu24.04, shortened.
CUDA_132 = "cuda>=13.2 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=535,driver<536 brand=tesla,driver>=570,driver<571 brand=tesla,driver>=580,driver<581"


@pytest.mark.parametrize(
    ("driver", "needed", "fits", "why"),
    [
        ("580.126.20", "13.0", True, "its own release"),
        ("580.126.20", "13.2", True, "a newer minor release of the same major runs too"),
        ("580.65.06", "13.4.1", True, "the oldest driver of the major is enough"),
        ("580.65.05", "13.0", False, "one patch too old"),
        ("570.211.01", "13.0", False, "the major is newer than the driver"),
        ("570.211.01", "12.9.1", True, "minor-version compatibility"),
        ("525.60.13", "12.8", True, "the oldest driver for CUDA 12"),
        ("525.60.11", "12.0", False, "just too old for CUDA 12"),
        ("470.256.02", "11.4.3", True, "its own release"),
        ("470.256.02", "11.8", True, "minor-version compatibility"),
        ("470.256.02", "12.0", False, "a K80's driver runs no CUDA 12"),
        ("615.71.09", "9.2", True, "old majors always run"),
        ("384.81", "10.0", False, "before minor-version compatibility the release itself counts"),
        ("418.39", "10.1", True, "the release itself"),
        ("580.126.20", "14.0", False, "nothing is known of that major"),
        ("580.126.20", "13", True, "a major alone"),
        ("", "12.4", False, "no driver"),
        ("580.126.20", "", False, "nothing asked for"),
    ],
)
def test_a_driver_runs_what_its_major_release_allows(driver: str, needed: str, fits: bool, why: str) -> None:
    assert cuda_fit(driver, needed) is fits, why


def test_natively_a_driver_serves_only_up_to_its_own_release() -> None:
    assert native_fit("580.126.20", "13.0.3")
    assert not native_fit("580.126.20", "13.1")
    assert not native_fit("", "12.0")
    assert native_cuda("580") == "13.0"
    assert native_cuda("") is None


@pytest.mark.parametrize("driver", ["580.126.20", "550.163.01", "577.1", "620.10", "470", "340.108"])
def test_the_catalog_and_this_module_agree_about_a_drivers_own_cuda(driver: str) -> None:
    assert native_cuda(driver) == load().cuda_for_driver(driver)


def test_words_are_alternatives_and_commas_join_conditions() -> None:
    parsed = parse_require("cuda>=13.2 brand=tesla,driver>=535,driver<536")
    assert parsed == (
        (Condition("cuda", ">=", "13.2"),),
        (Condition("brand", "=", "tesla"), Condition("driver", ">=", "535"), Condition("driver", "<", "536")),
    )
    assert str(parsed[0][0]) == "cuda>=13.2"
    assert parse_require("  ") == ()


@pytest.mark.parametrize("text", ["cuda", "cuda>>13", "cuda>=13.2,", ">=13", "cuda>= 13.2", "cuda>=13;rm"])
def test_what_is_no_condition_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a condition like"):
        parse_require(text)


@pytest.mark.parametrize(
    ("condition", "machine", "answer"),
    [
        ("cuda>=13.2", {"cuda": "13.2"}, True),
        ("cuda>=13.2", {"cuda": "13.0"}, False),
        ("cuda>=9.0", {"cuda": "10.1"}, True),
        ("driver<536", {"driver": "535.309.01"}, True),
        ("driver<536", {"driver": "536.10"}, False),
        ("driver>535", {"driver": "535.309.01"}, False),
        ("driver>535", {"driver": "536.1"}, True),
        ("driver<=535", {"driver": "535.309.01"}, True),
        ("driver=535", {"driver": "535.309.01"}, True),
        ("driver!=535", {"driver": "535.309.01"}, False),
        ("brand=tesla", {"brand": "tesla"}, True),
        ("brand=tesla", {"brand": "geforce"}, False),
        ("brand!=tesla", {"brand": "geforce"}, True),
        ("arch>=9.0", {"arch": "8.6"}, False),
        ("arch>=9.0", {}, None),
        ("brand>=tesla", {"brand": "tesla"}, None),
        ("weather=fine", {"cuda": "13.0"}, None),
    ],
)
def test_a_condition_holds_or_not_or_cannot_be_said(condition: str, machine: dict[str, str], answer: bool | None) -> None:
    assert holds(parse_require(condition)[0][0], machine) is answer


@pytest.mark.parametrize(
    ("machine", "refused"),
    [
        ({"cuda": "13.2", "driver": "595.91.07", "brand": "geforce"}, False),
        ({"cuda": "13.0", "driver": "580.126.20", "brand": "tesla"}, False),
        ({"cuda": "13.0", "driver": "580.126.20", "brand": "geforce"}, True),
        ({"cuda": "12.4", "driver": "550.163.01", "brand": "tesla"}, True),
        ({"cuda": "13.0", "driver": "580.126.20"}, False),
        ({}, False),
    ],
    ids=["new driver", "data-center brand", "other brand", "too old", "brand not known", "nothing known"],
)
def test_an_image_is_refused_only_where_every_alternative_surely_fails(machine: dict[str, str], refused: bool) -> None:
    found = unmet({"NVIDIA_REQUIRE_CUDA": CUDA_132, "PATH": "/bin"}, machine)
    assert bool(found) is refused
    if refused:
        assert (found[0].variable, found[0].condition) == ("NVIDIA_REQUIRE_CUDA", "cuda>=13.2")


def test_every_variable_must_be_satisfied() -> None:
    environment = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0", "NVIDIA_REQUIRE_DRIVER": "driver>=600"}
    assert [found.variable for found in unmet(environment, {"cuda": "13.0", "driver": "580.1"})] == ["NVIDIA_REQUIRE_DRIVER"]


def test_the_check_can_be_switched_off_and_words_nobody_understands_refuse_nothing() -> None:
    machine = {"cuda": "12.4", "driver": "550.163.01", "brand": "tesla"}
    assert unmet({"NVIDIA_REQUIRE_CUDA": CUDA_132, "NVIDIA_DISABLE_REQUIRE": "true"}, machine) == ()
    assert unmet({"NVIDIA_REQUIRE_CUDA": CUDA_132, "NVIDIA_DISABLE_REQUIRE": "0"}, machine)
    assert unmet({"NVIDIA_REQUIRE_CUDA": "what is this"}, machine) == ()
