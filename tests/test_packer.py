"""The Packer template: that it is HCL, and that what it calls is there. Packer itself is not run, nor are its plugins asked about their options."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from provision.cli.plan import command as plan
from provision.cli.setup import command as setup

hcl2 = pytest.importorskip("hcl2")


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(__file__).resolve().parent.parent / "examples/packer"


@pytest.fixture(scope="module")
def template(folder: Path) -> dict[str, Any]:
    with open(folder / "gpu-image.pkr.hcl", encoding="utf-8") as file:
        found = hcl2.load(file)
    assert isinstance(found, dict)
    return found


def bare(text: str) -> str:
    """A name without the quotes that newer parsers leave around it."""
    return text.strip('"')


def named(blocks: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    """Blocks by their labels, joined by dots."""
    found: dict[str, Any] = {}
    for block in blocks:
        for label, inside in block.items():
            if label.startswith("__"):
                continue
            parts = named([inside], depth - 1) if depth > 1 else {"": inside}
            found.update({f"{bare(label)}.{rest}".rstrip("."): value for rest, value in parts.items()})
    return found


def options(command: click.Command) -> set[str]:
    return {word for parameter in command.params for word in parameter.opts}


def test_every_source_that_is_built_is_there(template: dict[str, Any]) -> None:
    sources = {f"source.{name}" for name in named(template["source"], 2)}
    built = {bare(source) for build in template["build"] for source in build["sources"]}
    assert built == sources


def test_every_variable_that_is_used_is_declared_and_used(template: dict[str, Any], folder: Path) -> None:
    text = (folder / "gpu-image.pkr.hcl").read_text()
    used = set(re.findall(r"\bvar\.([a-z_]+)", text))
    assert used == set(named(template["variable"], 1))


def test_what_it_calls_of_mlhost_is_there(template: dict[str, Any]) -> None:
    commands = [bare(text) for text in named(template["source"], 2)["amazon-chroot.image"]["post_mount_commands"]]
    assert [shlex.split(text)[:3] for text in commands] == [["mlhost", "plan", "--root"], ["mlhost", "setup", "--root"]]
    for text, command in zip(commands, (plan, setup)):
        assert {word for word in shlex.split(text) if word.startswith("-")} <= options(command)


def test_the_disk_is_given_back_whatever_becomes_of_the_work(folder: Path, tmp_path: Path) -> None:
    """Loop devices, mounting and mlhost are doubles here, which write down that they were called."""
    calls = tmp_path / "calls"
    for name, body in {
        "losetup": "[ $1 = --detach ] || echo /dev/loop7",
        "mount": ": >$2/mounted",
        "mountpoint": "[ -e $2/mounted ]",
        "umount": "rm $1/mounted",
        "mlhost": "exit 6",
    }.items():
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\n{body}\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", str(folder / "bake-disk.sh"), "x.raw", "1", "--for-gpu", "l4"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 6, done.stderr
    said = calls.read_text().splitlines()
    assert said[0] == "losetup --find --show --partscan x.raw"
    assert said[1].startswith("mount /dev/loop7p1 ")
    assert said[2].startswith("mlhost setup --root ")
    assert said[2].endswith(" --for-gpu l4")
    assert said[-1] == "losetup --detach /dev/loop7"


def test_its_script_passes_shellcheck(folder: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("the program shellcheck is missing")
    done = subprocess.run(["shellcheck", "-s", "sh", str(folder / "bake-disk.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
