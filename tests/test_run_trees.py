"""What of a tree goes to a host and comes back, and that nobody's edits are lost on the way. The place is a folder of this machine, behind the real scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from provision.dockrun.trees import BACK, FORTH, Both, Moves, beside, hidden, moves, rules, safe, summary
from provision.errors import Failed, UsageError
from provision.launch import copies as module
from provision.launch.copies import Copies


class Folder:
    """A double of a host: its shell is this machine's."""

    name = "ada@gpu-7"

    def words(self, argv: Sequence[str], terminal: bool = False) -> list[str]:
        return list(argv)

    def alive(self) -> bool:
        return True


class Two:
    """A tree here and its copy there."""

    def __init__(self, folder: Path) -> None:
        self.here = folder / "proj"
        self.here.mkdir()
        self.said: list[str] = []
        self.copies = Copies(Folder(), str(folder / "cache"), str(self.here), self.said.append)
        self.there = Path(self.copies.folder)

    def write(self, side: str, name: str, text: str) -> None:
        path = (self.here if side == "here" else self.there) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def state(self, side: str) -> dict[str, str]:
        root = self.here if side == "here" else self.there
        return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()}


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Two(tmp_path)


class TestAFolderAndItsCopy:
    def test_the_tree_goes_there_and_what_was_written_comes_back(self, two: Two) -> None:
        two.write("here", "train.py", "one")
        two.write("here", "pkg/ü b.py", "two")
        two.copies.forth()
        assert two.state("there") == two.state("here")
        two.write("there", "out/model", "weights")
        two.write("there", "train.py", "rewritten")
        two.copies.back()
        assert two.state("here") == {"train.py": "rewritten", "pkg/ü b.py": "two", "out/model": "weights"}

    def test_only_what_changed_moves(self, two: Two) -> None:
        for number in range(5):
            two.write("here", f"f{number}", "x" * number)
        two.copies.forth()
        two.copies.back()
        two.write("here", "f3", "changed")
        two.said.clear()
        two.copies.forth()
        assert two.said == ["sending 1 file, 7 bytes to ada@gpu-7"]
        two.said.clear()
        two.copies.forth()
        two.copies.back()
        assert two.said == []

    def test_an_edit_made_during_the_run_stays_and_theirs_is_put_beside_it(self, two: Two) -> None:
        two.write("here", "notes", "before")
        two.copies.forth()
        two.write("here", "notes", "mine")
        two.write("there", "notes", "theirs")
        two.copies.back()
        assert two.state("here") == {"notes": "mine", "notes.from-gpu-7": "theirs"}
        assert "notes.from-gpu-7" in two.said[-1]
        two.copies.forth()
        assert two.state("there")["notes"] == "mine"
        assert two.state("here") == {"notes": "mine", "notes.from-gpu-7": "theirs"}

    def test_a_new_file_on_both_sides_is_a_collision_too(self, two: Two) -> None:
        two.copies.forth()
        two.write("here", "log", "mine")
        two.write("there", "log", "theirs")
        two.copies.back()
        assert two.state("here") == {"log": "mine", "log.from-gpu-7": "theirs"}

    def test_the_same_edit_on_both_sides_is_none(self, two: Two) -> None:
        two.write("here", "notes", "before")
        two.copies.forth()
        two.write("here", "notes", "same")
        two.write("there", "notes", "same")
        two.copies.back()
        assert two.state("here") == {"notes": "same"}

    def test_a_second_collision_replaces_nothing(self, two: Two) -> None:
        two.write("here", "notes", "0")
        two.copies.forth()
        for number in ("1", "2"):
            two.write("here", "notes", "mine" + number)
            two.write("there", "notes", "theirs" + number)
            two.copies.back()
        assert two.state("here") == {"notes": "mine2", "notes.from-gpu-7": "theirs1", "notes.from-gpu-7.2": "theirs2"}

    def test_what_a_lost_run_wrote_is_fetched_before_anything_is_sent(self, two: Two) -> None:
        two.write("here", "train.py", "one")
        two.write("here", "notes", "before")
        two.copies.forth()
        two.write("there", "out/model", "weights")
        two.write("there", "notes", "theirs")
        two.write("here", "notes", "mine")
        two.copies.forth()
        assert two.state("here") == {"train.py": "one", "out/model": "weights", "notes": "mine", "notes.from-gpu-7": "theirs"}
        assert two.state("there")["notes"] == "mine"

    def test_what_is_removed_here_goes_there_and_what_is_removed_there_stays_here(self, two: Two) -> None:
        two.write("here", "a/b/old", "1")
        two.write("here", "keep", "2")
        two.copies.forth()
        (two.here / "a/b/old").unlink()
        two.copies.forth()
        assert two.state("there") == {"keep": "2"}
        assert not (two.there / "a").exists()
        (two.there / "keep").unlink()
        two.copies.back()
        assert two.state("here") == {"keep": "2"}
        assert "kept here" in two.said[-1]
        two.copies.forth()
        assert two.state("there") == {"keep": "2"}

    def test_ignored_files_go_neither_way(self, two: Two) -> None:
        two.write("here", ".mlhostignore", "data/\n*.ckpt\n!best.ckpt\n")
        for name in ("data/big", "x.ckpt", "best.ckpt", ".git/HEAD", "pkg/__pycache__/x.pyc", "train.py"):
            two.write("here", name, name)
        two.copies.forth()
        assert set(two.state("there")) == {".mlhostignore", "best.ckpt", "train.py"}
        two.write("there", "data/made", "x")
        two.write("there", "last.ckpt", "x")
        two.write("there", "best.ckpt", "better")
        two.copies.back()
        assert not (two.here / "data/made").exists()
        assert not (two.here / "last.ckpt").exists()
        assert (two.here / "best.ckpt").read_text() == "better"

    def test_modes_and_times_are_kept(self, two: Two) -> None:
        two.write("here", "run.sh", "#!/bin/sh\n")
        (two.here / "run.sh").chmod(0o755)
        os.utime(two.here / "run.sh", (1_700_000_000, 1_700_000_000))
        two.copies.forth()
        assert (two.there / "run.sh").stat().st_mode & 0o777 == 0o755
        assert (two.there / "run.sh").stat().st_mtime == 1_700_000_000

    def test_a_link_goes_and_comes_but_never_leads_out(self, two: Two) -> None:
        two.write("here", "runs/1/model", "x")
        (two.here / "latest").symlink_to("runs/1")
        two.copies.forth()
        assert os.readlink(two.there / "latest") == "runs/1"
        (two.there / "newest").symlink_to("runs/1/model")
        (two.there / "out").symlink_to("/etc")
        (two.there / "up").symlink_to("../..")
        two.copies.back()
        assert os.readlink(two.here / "newest") == "runs/1/model"
        assert not os.path.lexists(two.here / "out")
        assert not os.path.lexists(two.here / "up")

    def test_a_host_cannot_write_outside_of_the_tree(self, two: Two, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        two.copies.forth()
        (two.here / "gate").symlink_to(outside)
        two.write("there", "gate/evil", "x")
        two.copies.back()
        assert not any(outside.iterdir())

    def test_strange_names_go_and_come(self, two: Two) -> None:
        for name in ("-rf", "a b", "a\tb", "'q\"", "$(x)", "*", "\\n", "ünïcode", "--checkpoint-action=exec=x"):
            two.write("here", name, name)
        two.copies.forth()
        assert two.state("there") == two.state("here")
        for name in list(two.state("there")):
            two.write("there", name, "new " + name)
        two.copies.back()
        assert two.state("here") == two.state("there")
        for name in list(two.state("here")):
            (two.here / name).unlink()
        two.copies.forth()
        assert two.state("there") == {}

    def test_a_state_that_is_lost_loses_no_file(self, two: Two, tmp_path: Path) -> None:
        two.write("here", "notes", "mine")
        two.copies.forth()
        two.copies.back()
        shutil.rmtree(tmp_path / "state")
        two.write("there", "notes", "theirs")
        two.write("here", "notes", "mine, later")
        two.copies.forth()
        assert two.state("here") == {"notes": "mine, later", "notes.from-gpu-7": "theirs"}

    def test_a_tree_that_cannot_be_meant_is_refused(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MANY", 3)
        for number in range(5):
            two.write("here", str(number), "x")
        with pytest.raises(UsageError, match="more than 3 files") as refused:
            two.copies.forth()
        assert ".mlhostignore" in refused.value.fix

    def test_a_full_disk_there_is_told(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        two.write("here", "a", "x")
        # A double of tar where the disk is full.
        monkeypatch.setattr(module, "shipped", lambda _name: "cat >/dev/null; echo 'tar: a: Cannot write: No space left on device' >&2; exit 2")
        with pytest.raises(Failed, match="No space left") as failed:
            two.copies.forth()
        assert "space" in failed.value.fix

    @pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda s: s[0])
    def test_the_script_lists_the_same_in_every_shell(self, two: Two, shell: list[str]) -> None:
        if not shutil.which(shell[0]):
            pytest.skip(f"{shell[0]} is not installed")
        from provision.shipped import shipped

        two.write("there", "a/b c", "x")
        (two.there / "l").symlink_to("a")
        done = subprocess.run([*shell, "-c", shipped("scripts/run/tree.sh"), "sh", "list", str(two.there)], capture_output=True, check=True, text=True)
        assert sorted(row.partition("\t")[2] for row in done.stdout.splitlines()) == ["a/b c", "l"]


# gitignore(5), by its own examples and by what people write.
IGNORES = {
    "*.log": (["a.log", "x/a.log"], ["log", "a.log.txt"]),
    "/build": (["build", "build/x"], ["x/build"]),
    "data/": (["data/x", "a/data/x"], ["data"]),
    "doc/frotz": (["doc/frotz", "doc/frotz/x"], ["a/doc/frotz"]),
    "foo/*": (["foo/x", "foo/x/y"], ["foo", "a/foo/x"]),
    "**/foo": (["foo", "a/foo", "a/b/foo/x"], ["food"]),
    "abc/**": (["abc/x", "abc/x/y"], ["abc"]),
    "a/**/b": (["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/c"]),
    "f?o": (["foo", "x/fao"], ["fo", "f/o"]),
    "[ab].txt": (["a.txt", "x/b.txt"], ["c.txt"]),
    "[!a-c]x": (["dx"], ["ax", "bx"]),
    "[": (["["], ["x"]),
    "a[b": (["a[b"], ["ab"]),
    "[z-a]": ([], ["z"]),
    "\\#x": (["#x"], ["x"]),
    "\\!x": (["!x"], ["x"]),
    "# comment": ([], ["# comment", "comment"]),
    "*.ckpt\n!best.ckpt": (["x.ckpt"], ["best.ckpt", "a/best.ckpt"]),
    "out/\n!out/keep": (["out/keep"], []),
    "!.git/": ([], [".git/HEAD"]),
    "": ([".git/HEAD", "a/__pycache__/x", ".venv/bin/python"], [".gitignore", "git/x"]),
}


@pytest.mark.parametrize("text", IGNORES, ids=repr)
def test_an_ignore_file_is_read_as_gits(text: str) -> None:
    ruled = rules(text)
    assert {name: hidden(name, ruled) for names in IGNORES[text] for name in names} == {name: hide for names, hide in zip(IGNORES[text], (True, False)) for name in names}


OLD = Both("h", "t")
MOVES = [
    ({}, {}, {}, Moves(), Moves()),
    ({}, {"a": "1"}, {}, Moves(send=("a",)), Moves()),
    ({}, {}, {"a": "1"}, Moves(fetch=("a",)), Moves(fetch=("a",))),
    ({}, {"a": "1"}, {"a": "2"}, Moves(aside=("a",), send=("a",)), Moves(aside=("a",))),
    ({"a": OLD}, {"a": "h"}, {"a": "t"}, Moves(), Moves()),
    ({"a": OLD}, {"a": "h2"}, {"a": "t"}, Moves(send=("a",)), Moves()),
    ({"a": OLD}, {"a": "h"}, {"a": "t2"}, Moves(fetch=("a",)), Moves(fetch=("a",))),
    ({"a": OLD}, {"a": "h2"}, {"a": "t2"}, Moves(aside=("a",), send=("a",)), Moves(aside=("a",))),
    ({"a": OLD}, {}, {"a": "t"}, Moves(remove=("a",)), Moves()),
    ({"a": OLD}, {}, {"a": "t2"}, Moves(aside=("a",)), Moves(aside=("a",))),
    ({"a": OLD}, {"a": "h"}, {}, Moves(send=("a",)), Moves(gone=("a",))),
    ({"a": OLD}, {"a": "h2"}, {}, Moves(send=("a",)), Moves()),
    ({"a": OLD}, {}, {}, Moves(), Moves()),
]


@pytest.mark.parametrize(("base", "here", "there", "forth", "back"), MOVES)
def test_three_states_decide(base: dict[str, Both], here: dict[str, str], there: dict[str, str], forth: Moves, back: Moves) -> None:
    assert moves(base, here, there, FORTH) == forth
    assert moves(base, here, there, BACK) == back


def test_names_and_amounts() -> None:
    assert not any(safe(name) for name in ("", "/a", "../a", "a/../b", "a//b", "a/", ".", "a\nb", "a\0b"))
    assert safe("a/.b/-c d")
    assert beside("m", "ada@gpu-7:22", []) == "m.from-gpu-7-22"
    assert (summary(1, 11), summary(3, 1_200), summary(3, 1_200_000)) == ("1 file, 11 bytes", "3 files, 1.2 kB", "3 files, 1.2 MB")
