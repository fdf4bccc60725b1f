"""The program that mounts a disk at boot, on a real block device (a loop device)."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import render
from tests.lab.need import LabUnavailable, require_root, tool

FRAGMENT = Path(render.__file__).parent / "scripts/actions/mount.sh"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A blank disk of 32 MiB."""
    try:
        require_root("a loop device")
        for name, package in (("losetup", "mount"), ("mkfs.ext4", "e2fsprogs"), ("blkid", "util-linux")):
            tool(name, package)
    except LabUnavailable as missing:
        pytest.skip(str(missing))
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    done = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine gives no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    yield device
    while subprocess.run(["umount", device], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        pass
    subprocess.run(["losetup", "-d", device], check=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "mount-disk"
    file.write_text(
        subprocess.run(["sh", "-c", f". {FRAGMENT}; mount_program"], capture_output=True, text=True, check=True).stdout
    )
    return file


def mount(program: Path, device: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(program), device, str(path), "ext4"], capture_output=True, text=True, check=False)


def mounted(path: Path) -> bool:
    return os.path.ismount(path)


def test_a_blank_disk_is_formatted_and_mounted_and_its_data_stay(program: Path, disk: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    done = mount(program, disk, path)
    assert done.returncode == 0, done.stderr
    assert mounted(path)
    (path / "precious").write_text("x")
    assert mount(program, disk, path).returncode == 0
    subprocess.run(["umount", str(path)], check=True)
    assert mount(program, disk, path).returncode == 0
    assert (path / "precious").read_text() == "x"


@pytest.mark.parametrize("content", ["another file system", "a partition table", "data at the beginning"])
def test_a_disk_with_anything_on_it_is_left_alone(program: Path, disk: str, tmp_path: Path, content: str) -> None:
    if content == "another file system":
        subprocess.run(["mkfs.ext2", "-q", "-F", disk], check=True)
    elif content == "a partition table":
        # one Linux partition of 1000 sectors from sector 2048 on, and the mark of a boot sector
        entry = struct.pack("<B3xB3xII", 0, 0x83, 2048, 1000)
        with Path(disk).open("r+b") as file:
            file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    else:
        with Path(disk).open("r+b") as file:
            file.seek(5000)
            file.write(b"somebody's")
    before = Path(disk).read_bytes()
    done = mount(program, disk, tmp_path / "data")
    assert done.returncode == 1
    assert "is not blank" in done.stderr
    assert not mounted(tmp_path / "data")
    assert Path(disk).read_bytes() == before


def test_a_disk_that_is_mounted_elsewhere_is_left_alone(program: Path, disk: str, tmp_path: Path) -> None:
    assert mount(program, disk, tmp_path / "data").returncode == 0
    done = mount(program, disk, tmp_path / "other")
    assert done.returncode == 1
    assert "is mounted elsewhere" in done.stderr


def test_the_program_is_clean(program: Path) -> None:
    try:
        shellcheck = tool("shellcheck", "shellcheck")
    except LabUnavailable as missing:
        pytest.skip(str(missing))
    done = subprocess.run([shellcheck, "-s", "sh", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
