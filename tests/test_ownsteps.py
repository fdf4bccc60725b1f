"""A user's own steps: the packaged example, what a step may give, and how mistakes in one are told."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from provision.actions import File
from provision.errors import UsageError
from provision.model import CHANGE, OK, Facts, Item, OsRelease, PathFact
from provision.ownsteps import Step, load_steps
from provision.playbook import load
from provision.spec import Spec

FACTS = Facts(host="here", arch="x86_64", os=OsRelease("debian", "13"))
GOOD = "def step(facts, spec, platform):\n    return []\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real installed distribution, as far as Python's own metadata reader is concerned."""
    def installed(entry_points: str, **modules: str) -> None:
        info = tmp_path / "site" / "example_steps-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-steps\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[mlhost.steps]\n{entry_points}\n", encoding="utf-8")
        for name, text in modules.items():
            (tmp_path / "site" / f"{name}.py").write_text(text, encoding="utf-8")
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return installed


def one(path: Path) -> Step:
    (step,) = load_steps([path.name], str(path.parent))
    return step


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        one(path)
    assert caught.value.fix
    return str(caught.value)


def asked(path: Path) -> str:
    step = one(path)
    with pytest.raises(UsageError) as caught:
        step(FACTS, Spec(), None)
    assert caught.value.fix
    return str(caught.value)


# ---------------------------------------------------------------- the example

def example() -> Step:
    loaded = load("example-own-step")
    (step,) = load_steps(loaded.step_files, "")
    return step


def test_the_example_wants_its_file_where_it_is_absent() -> None:
    step = example()
    (item,) = step(FACTS, Spec(), None)
    assert item.state == CHANGE
    assert isinstance(item.action, File)
    assert item.action.path == "/etc/profile.d/cuda-device-order.sh"
    assert step.watch == (item.action.path,)
    assert step.name == item.step == "gpu-order"


def test_the_example_wants_nothing_once_its_file_is_there() -> None:
    (item,) = example()(FACTS, Spec(), None)
    assert isinstance(item.action, File)
    digest = hashlib.sha256((item.action.content or "").encode()).hexdigest()
    there = Facts(host="here", arch="x86_64", os=FACTS.os, paths={item.action.path: PathFact(item.action.path, "file", sha256=digest)})
    (after,) = example()(there, Spec(), None)
    assert (after.state, after.action) == (OK, None)


def test_the_example_puts_a_changed_file_right() -> None:
    path = example().watch[0]
    changed = Facts(host="here", arch="x86_64", os=FACTS.os, paths={path: PathFact(path, "file", sha256="0" * 64)})
    (item,) = example()(changed, Spec(), None)
    assert item.state == CHANGE


def test_the_example_leaves_a_docker_host_alone() -> None:
    assert example()(FACTS, Spec(gpu="ignore"), None) == ()


# ---------------------------------------------------------------- loading

def test_a_step_is_named_after_its_file_unless_it_says_otherwise(write: Any) -> None:
    assert one(write(GOOD, "My_Step.py")).name == "my_step"
    assert one(write('NAME = "other"\n' + GOOD)).name == "other"


def test_a_step_may_define_dataclasses_of_its_own(write: Any) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass, field\n@dataclass\nclass Row:\n    path: str = field(default='/x')\n"
    assert one(write(text + GOOD))(FACTS, Spec(), None) == ()


def test_loading_a_step_leaves_no_bytecode_beside_it(write: Any, tmp_path: Path) -> None:
    one(write(GOOD))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_steps_keep_the_order_of_the_playbook(write: Any, tmp_path: Path) -> None:
    for name in ("b.py", "a.py"):
        write(GOOD, name)
    assert [step.name for step in load_steps(["b.py", "a.py"], str(tmp_path))] == ["b", "a"]


def test_a_missing_file_is_named_with_the_systems_reason(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.py").startswith(f"{tmp_path}/none.py: the step cannot be read: no such file or directory.")


def test_a_directory_is_no_step(tmp_path: Path) -> None:
    (tmp_path / "dir.py").mkdir()
    assert "is a directory" in refused(tmp_path / "dir.py")


@pytest.mark.parametrize(("text", "place", "what"), [
    ("x = 1\ndef step(:\n", ":2: the step cannot be loaded: SyntaxError", ""),
    ("import os\n\nraise RuntimeError('boom')\n", ":3: the step cannot be loaded: RuntimeError: boom.", ""),
    ("def helper():\n    return 1 / 0\n\nhelper()\n", ":2: the step cannot be loaded: ZeroDivisionError", ""),
    ("import json\njson.loads('{')\n", ":2: the step cannot be loaded: JSONDecodeError", ""),
    ("import no_such_module_here\n", ":1: the step cannot be loaded: ModuleNotFoundError", "no_such_module_here"),
    ("import sys\nsys.exit(3)\n", ":2: the step cannot be loaded: SystemExit: 3.", ""),
    ("x = 1\n", ": there is no function `step` in it.", "def step(facts, spec, platform)"),
    ("step = 3\n", ": there is no function `step` in it.", ""),
    ("NAME = 'Not A Name'\n" + GOOD, ": the step's name is 'Not A Name'.", ""),
    ("watch = '/etc/motd'\n" + GOOD, ": `watch` is '/etc/motd'.", "tuple"),
    ("watch = ('etc/motd',)\n" + GOOD, ": `watch` is ('etc/motd',).", "absolute"),
])
def test_a_step_that_cannot_be_loaded_is_told_with_its_line(write: Any, text: str, place: str, what: str) -> None:
    path = write(text)
    message = refused(path)
    assert message.startswith(f"{path}{place}"), message
    assert what in message


def test_a_step_that_failed_to_load_leaves_no_module_behind(write: Any) -> None:
    before = set(sys.modules)
    refused(write("raise RuntimeError\n"))
    assert {name for name in set(sys.modules) - before if name.startswith("mlhost_step")} == set()


def test_an_interrupt_while_loading_is_not_swallowed(write: Any) -> None:
    path = write("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        one(path)


def test_two_steps_of_one_name_are_refused(write: Any, tmp_path: Path) -> None:
    write(GOOD, "a.py")
    write("NAME = 'a'\n" + GOOD, "b.py")
    with pytest.raises(UsageError, match=r"b\.py: a step named `a` comes from .*a\.py too"):
        load_steps(["a.py", "b.py"], str(tmp_path))


# ---------------------------------------------------------------- what a step gives

ITEM = "from provision.model import Item\nfrom provision.actions import File\ndef step(facts, spec, platform):\n"


@pytest.mark.parametrize(("body", "what"), [
    ("    yield 1 / 0\n", ":4: the step failed: ZeroDivisionError: division by zero."),
    ("    return facts.nothing\n", ":4: the step failed: AttributeError"),
    ("    return None\n", ": the step failed: TypeError"),
    ("    yield 'motd'\n", ": `step` gave a str, not an Item."),
    ("    yield Item('a', 'a', 'file', 'maybe', 'why')\n", ": item `a` has the state 'maybe'."),
    ("    yield Item('a', 'a', 'file', 'change', 'why')\n", ": item `a` is to change but has no action."),
    ("    yield Item('a', 'a', 'file', 'ok', 'why', action=File('/x', ''))\n", ": item `a` is `ok` but has an action."),
    ("    yield Item('a', 'a', 'file', 'ok', 'why')\n" * 2, ": two items have the id `a`."),
])
def test_what_a_step_may_not_give_is_told_with_its_file(write: Any, body: str, what: str) -> None:
    path = write(ITEM + body)
    message = asked(path)
    assert message.startswith(str(path))
    assert what in message


def test_a_step_sees_facts_spec_and_platform(write: Any) -> None:
    path = write(ITEM + "    yield Item(facts.host, 'mine', platform, 'ok', spec.gpu)\n")
    assert one(path)(FACTS, Spec(gpu="required"), "debian") == (Item("here", "mine", "debian", OK, "required"),)


# ---------------------------------------------------------------- entry points

def test_an_entry_point_may_be_a_module_or_the_function_itself(installed: Any) -> None:
    installed("motd = example_motd\nissue = example_motd:step", example_motd='watch = ("/etc/motd",)\n' + GOOD)
    motd, issue = load_steps(["motd", "issue"], "/nowhere")
    assert (motd.name, motd.watch, motd.origin) == ("motd", ("/etc/motd",), "entry point `motd`")
    assert issue.name == "issue"
    assert motd(FACTS, Spec(), None) == issue(FACTS, Spec(), None) == ()


def test_an_unknown_entry_point_tells_the_nearest_one(installed: Any) -> None:
    installed("motd = example_motd", example_motd=GOOD)
    with pytest.raises(UsageError, match=r"no step named `modt` among the entry points `mlhost\.steps`\. Did you mean `motd`\?"):
        load_steps(["modt"], "")
    with pytest.raises(UsageError, match=r"Installed are .*motd.*A file is named by its path, such as `steps/zzzzzz\.py`"):
        load_steps(["zzzzzz"], "")


def test_an_entry_point_that_cannot_be_loaded_is_told_with_its_line(installed: Any) -> None:
    installed("broken = example_broken\nabsent = example_absent", example_broken="\nraise RuntimeError('boom')\n")
    with pytest.raises(UsageError, match=r"entry point `broken`, .*example_broken\.py:2: the step cannot be loaded: RuntimeError: boom"):
        load_steps(["broken"], "")
    with pytest.raises(UsageError, match=r"^entry point `absent`: the step cannot be loaded: ModuleNotFoundError"):
        load_steps(["absent"], "")
