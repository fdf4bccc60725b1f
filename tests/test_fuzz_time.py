"""No text takes longer than its length: what a repetition in a pattern could be made to go over again and again is fed to every reader.

The inputs are long runs of one unit, put into real texts at every place where a value may stand. A reader that backtracks takes minutes for them.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from provision import aptsource, capture, reach, rpmsource
from provision.errors import Error
from provision.facts import apt, parse, rpm, system
from provision.facts.storage import disks
from provision.model import Section
from provision.plan import plan
from provision.report import sanitize
from provision.rows import version_key
from provision.spec import Spec
from tests.fuzz.bounds import bounded
from tests.fuzz.harnesses import APT, DOCKER_DEB, DOCKER_RPM, OS_RELEASE, YUM
from tests.fuzz.inputs import UNITS, captures
from tests.machines import CATALOG

pytestmark = pytest.mark.slow

LENGTH = 20_000
# Where a value begins: after a separator, or at the beginning of a line.
ROUNDS = 1 if int(os.environ.get("MLHOST_FUZZ", "1")) < 2 else 9
PLACES = ("", " ", "=", ":", '"', "[", "/", "-", ",")


def pumped(text: str, unit: str, first: int) -> str:
    """The text's first lines, each with a long run of the unit: behind the `first` of the separators in the first line, the next one in the next, and so on."""
    run, rows = unit * (LENGTH // len(unit)), []
    for number, row in enumerate(text.split("\n")[: len(PLACES)]):
        before, place, after = row.partition(PLACES[(first + number) % len(PLACES)] or row[:1] or "\n")
        rows.append(before + place + run + after)
    return "\n".join(rows)


def answer(unit: str, first: int) -> bytes:
    """A real answer of the probe with runs in each section but the first."""
    real = max((data for data in captures() if b" file:/etc/apt" in data), key=len)
    sections = {name: Section(found.rc, found.text if name == "probe" else pumped(found.text, unit, first)) for name, found in capture.split(real).items()}
    return capture.join(sections)


@pytest.mark.parametrize("unit", UNITS)
def test_an_answer_of_the_probe(unit: str) -> None:
    for first in range(ROUNDS):
        data = answer(unit, first)
        with bounded(10), contextlib.suppress(Error):
            assert data
            plan(parse(capture.split(data)), Spec(), CATALOG)


@pytest.mark.parametrize("unit", UNITS)
def test_files_and_words_of_the_host(unit: str) -> None:
    with bounded(10):
        for place in range(ROUNDS):
            for text in APT:
                bent = pumped(text, unit, place)
                for entries in (apt.one_line("a.list", bent), apt.deb822("a.sources", bent)):
                    aptsource.takeover("b", DOCKER_DEB, entries, {"a.list": bent, "a.sources": bent}, ("docker*",))
            bent = pumped(YUM[0], unit, place)
            found = rpm.repo_file("a.repo", bent)
            rpmsource.takeover("b.repo", "x", rpmsource.naming(found, DOCKER_RPM, "x86_64"), found, {"a.repo": bent})
            system.assignments(pumped(OS_RELEASE[0], unit, place))
            with contextlib.suppress(Error):
                reach.parse(f"@@m probe 0\n\n@@m reach:1 100\n{unit * LENGTH}\n{pumped('E: Failed https://x', unit, place)}\n\n@@m end 0\n\n".encode(), [("get", "https://x")], "m")
            sanitize.block(pumped("https://ada:secret@host/\x1b]0;x", unit, place))
            version_key(unit * LENGTH)


def test_variables_in_a_row_in_a_repository_file() -> None:
    with bounded(5):
        assert not rpmsource.names("https://download.docker.com/" + "$a" * 6 + "!/x86_64/stable", DOCKER_RPM, "x86_64")
        assert not rpmsource.names("https://download.docker.com/" + "$a" * 60 + "/x86_64/stable", DOCKER_RPM, "x86_64")
        assert rpmsource.names("https://download.docker.com/linux/rhel/$releasever$minor/$basearch/stable", DOCKER_RPM, "x86_64")


def test_an_empty_toolkit_configuration_of_a_million_lines() -> None:
    with bounded(10):
        parse({"probe": Section(0, "schema=1\n"), "os_release": Section(0, "ID=debian\n"), "toolkit_config": Section(0, "\n" * 1_000_000)})


def test_what_df_says_is_read_as_before() -> None:
    text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/nvme0n1p1 1000 400 600 40% /\nover lay - - - - /mnt/a b\n//nas/my share 50 60 -1 102% /srv\n"
    sections = {"df": Section(0, text), "disk_paths": Section(0, "/\n/mnt/a b\n/srv\n")}
    found = disks(sections, ())
    assert {path: (disk.free_kb, disk.mount) for path, disk in found.items()} == {"/": (600, "/"), "/srv": (-1, "/srv")}
