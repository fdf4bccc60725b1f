"""A set-up that is killed, at every point where that makes a difference, and the one after it, which must bring the host to where it would have been.

Real: the script, the journal, the planner, apt, dpkg, sh (bash, whose DEBUG trap does the killing), the file tree. Doubles: Docker and NVIDIA's
packages, systemd (there is none). $MLHOST_KILL_POINTS=all walks every command of the script: three quarters of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab.faults import Fault
from tests.lab.figures import count
from tests.lab.fixtures import skipping
from tests.lab.gpuland import gpu_land
from tests.lab.killpoints import KILLS, Point
from tests.lab.walk import Walk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

T = TypeVar("T")
ALL = os.environ.get("MLHOST_KILL_POINTS") == "all"
# Functions that only look, or only tell: dying in them is dying in whoever called them.
ONLY_LOOKING = ("event", "now", "has_file", "sha256", "real", "decoded", "lock_holder", "relabel", "has_package", "package_state", "reason", "note")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with skipping(), gpu_land(tmp_path_factory.mktemp("land")) as land:
        yield Walk(land, tmp_path_factory.mktemp("keys"))


def each(row: str, what: str, tries: Sequence[T], one: Callable[[T], list[str]]) -> None:
    """Try all, several at a time, and tell of all that went wrong at once."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        results = list(pool.map(one, tries))
    wrong = {str(tried): result for tried, result in zip(tries, results) if result}
    count(row, what, len(tries), len(tries) - len(wrong))
    assert not wrong, "\n".join(f"{tried}: {'; '.join(result)[:1500]}" for tried, result in wrong.items())


def killed(walk: Walk, points: Sequence[Point]) -> tuple[list[tuple[Point, str]], Callable[[tuple[Point, str]], list[str]]]:
    """Points with the three ways to be killed in turn."""
    hows = list(KILLS)
    return [(point, hows[number % len(hows)]) for number, point in enumerate(points)], lambda tried: walk.kill_at(*tried)


def test_killed_at_every_boundary_of_every_item(walk: Walk) -> None:
    marks = ['"change_$1" ||', "case $item_rc in", 'event changed "$2"', *(['if "check_$1"', 'event ok "$2"', 'event start "$2"'] if ALL else [])]
    lines = set().union(*(walk.lines(mark) for mark in marks))
    chosen = [point for point in walk.points if point.function == "item" and point.line in lines]
    items = {point.item for point in walk.points} - {"-"}
    assert {point.item for point in chosen} == items
    assert len(chosen) >= 2 * len(items)
    each("kill-boundaries", "script killed at a boundary of an item", *killed(walk, chosen))


def test_killed_inside_the_items(walk: Walk) -> None:
    inside = [point for point in walk.points if point.function not in (*ONLY_LOOKING, "item")]
    places = list({(point.function, point.line): point for point in reversed(inside)}.values())[::-1]
    assert len(places) > 200
    chosen = walk.points if ALL else places[::12]
    each("kill-inside", "script killed between two of its commands", *killed(walk, chosen))


def test_killed_inside_dpkg(walk: Walk) -> None:
    assert walk.dpkg_points > 40
    numbers = range(1, walk.dpkg_points + 1, 1 if ALL else 7)
    each("kill-dpkg", "killed while dpkg unpacks and configures", numbers, walk.kill_in_dpkg)


def test_killed_inside_a_maintainer_script(walk: Walk) -> None:
    each("kill-postinst", "killed inside a maintainer script", ["postinst"], lambda _: walk.kill_in_maintainer_script())


@pytest.mark.parametrize("where", [r"docker.*InRelease$", r"docker.*Packages", r"/docker-ce_.*\.deb$", r"/nvidia-container-toolkit_.*\.deb$"])
def test_power_cut_during_a_download(walk: Walk, where: str) -> None:
    weather = walk.land.server.weather
    # HEAD and the first GET belong to whoever asks whether the source is there; apt's own comes after it and gets half an answer
    wrong = walk.kill_when(weather.has_struck, lambda _: weather.brings(Fault(where, "stall")), weather.sunny)
    name = "".join(c for c in where if c.isalnum())
    count(f"kill-download-{name}", "power cut in the middle of a download", 1, int(not wrong))
    assert not wrong


def test_the_walk_would_see_what_is_lost(walk: Walk) -> None:
    """The comparison itself: a file more, a package less and a lost receipt are differences."""
    from dataclasses import replace

    other = replace(walk.reference, packages=walk.reference.packages[1:], receipts=walk.reference.receipts[:-1], leftovers=["x/.mlhost.abc"])
    assert [line.split()[:2] for line in walk.reference.differences(other)] == [["packages", "lacks"], ["receipts", "lacks"], ["leftovers", "has"]]


def test_nothing_is_left_lying_about_by_the_uninterrupted_run(walk: Walk, tmp_path: Path) -> None:
    assert walk.reference.leftovers == []
