"""Which words of a command are this machine's paths: a table of what people type, against a disk that is a dictionary (a double)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

import pytest

from provision.dockrun.paths import Mount, View, command, inside, word


@dataclass(frozen=True)
class PretendedDisk:
    """A double of a disk: the paths that exist, with their folders, and links."""

    paths: frozenset[str]
    links: dict[str, str] = field(default_factory=dict)

    def exists(self, path: str) -> bool:
        return path == "/" or path in self.links or any(p == path or p.startswith(path + "/") for p in self.paths)

    def link(self, path: str) -> Optional[str]:
        return self.links.get(path)


DISK = PretendedDisk(
    frozenset({
        "/home/ada/proj/train.py", "/home/ada/proj/data", "/home/ada/old/weights.pt", "/data/faces/1.png", "/opt/tools/run.sh", "/usr/bin/python3", "/bin/sh",
        "/etc/hosts", "/dev/null", "/proc/self", "/tmp/x", "/var/log", "/mnt/nas/set", "/usr/share/dict/words", "/srv/a:b/c", "/data/a b", "/raid/deep/file",
    }),
    {"/scratch": "/mnt/nas", "/home/ada/current": "proj"},
)
WHOLE = View((Mount("/", "/host"),), "/home/ada/proj", "/home/ada", DISK)
TREE = View((Mount("/home/ada/proj", "/host/home/ada/proj", True), Mount("/data/faces", "/faces", True)), "/home/ada/proj", "/home/ada", DISK, True)

# What is typed, and what arrives with the whole machine at /host. Not the first word.
WORDS = {
    # Paths that are there.
    "/home/ada/proj/train.py": "/host/home/ada/proj/train.py",
    "/data/faces": "/host/data/faces",
    "/data/faces/": "/host/data/faces/",
    "/data//faces/./1.png": "/host/data/faces/1.png",
    "/data/faces/../faces/1.png": "/host/data/faces/1.png",
    "/tmp/x": "/host/tmp/x",
    "/opt/tools/run.sh": "/host/opt/tools/run.sh",
    "/data/a b": "/host/data/a b",
    # Paths to be made in a folder that is there.
    "/home/ada/proj/out/run-7": "/host/home/ada/proj/out/run-7",
    "/home/ada/new/deeper": "/host/home/ada/new/deeper",
    "/data/out": "/host/data/out",
    "/raid/deep/results/1": "/host/raid/deep/results/1",
    "/tmp/new.npz": "/host/tmp/new.npz",
    # What every system has is the image's own.
    "/usr/bin/python3": "/usr/bin/python3",
    "/bin/sh": "/bin/sh",
    "/etc/hosts": "/etc/hosts",
    "/dev/null": "/dev/null",
    "/dev/shm/cache": "/dev/shm/cache",
    "/proc/self/status": "/proc/self/status",
    "/usr/share/dict/words": "/usr/share/dict/words",
    "/": "/",
    # What only looks like a path of this machine.
    "/predict": "/predict",
    "/api/v1/models": "/api/v1/models",
    "/home/jovyan/work": "/home/jovyan/work",
    "/opt/conda/bin/python": "/opt/conda/bin/python",
    "/workspace/out": "/workspace/out",
    "/root/.keras": "/root/.keras",
    "/var/lib/thing": "/var/lib/thing",
    "/host/data/faces": "/host/data/faces",
    # The escape.
    "//data/faces": "//data/faces",
    # Inside words.
    "--data=/data/faces": "--data=/host/data/faces",
    "--lr=/0.1": "--lr=/0.1",
    "data.dir=/data/faces": "data.dir=/host/data/faces",
    "+data.dir=/data/faces": "+data.dir=/host/data/faces",
    "DATA_ROOT=/data/faces": "DATA_ROOT=/host/data/faces",
    "-I/data/faces": "-I/host/data/faces",
    "@/data/faces/1.png": "@/host/data/faces/1.png",
    "--config=@/data/faces/1.png": "--config=@/host/data/faces/1.png",
    "file:///data/faces": "file:///host/data/faces",
    "--url=file:///data/faces": "--url=file:///host/data/faces",
    "PYTHONPATH=/data/faces:/home/ada/old": "PYTHONPATH=/host/data/faces:/host/home/ada/old",
    "--sets=/data/faces,/mnt/nas/set": "--sets=/host/data/faces,/host/mnt/nas/set",
    "/data/faces:/usr/share": "/host/data/faces:/usr/share",
    "/srv/a:b/c": "/host/srv/a:b/c",
    # What holds a slash and is none of these.
    "http://gpu-7/data/faces": "http://gpu-7/data/faces",
    "http://gpu-7/?path=/data/faces": "http://gpu-7/?path=/data/faces",
    "s3://data/faces": "s3://data/faces",
    "gpu-7:/data/faces": "gpu-7:/data/faces",
    "a:/b": "a:/b",
    "C:/data/faces": "C:/data/faces",
    "data/faces": "data/faces",
    "./data": "./data",
    "s/x/y/": "s/x/y/",
    "cat /data/faces/1.png": "cat /data/faces/1.png",
    "/data/faces\n": "/data/faces\n",
    "": "",
    "-": "-",
    "--": "--",
    "=": "=",
    "x=": "x=",
    "=/data/faces": "=/data/faces",
    "1=/data/faces": "1=/data/faces",
    # An absolute link would lead to the image's own files; a relative one works.
    "/scratch/set": "/host/mnt/nas/set",
    "/home/ada/current/train.py": "/host/home/ada/current/train.py",
}


@pytest.mark.parametrize(("typed", "arrives"), WORDS.items(), ids=repr)
def test_a_word_arrives(typed: str, arrives: str) -> None:
    assert word(typed, WHOLE).text == arrives


PROGRAMS = {
    "python": "python",
    "/usr/bin/python3": "/usr/bin/python3",
    "/opt/tools/run.sh": "/opt/tools/run.sh",
    "/opt/conda/bin/python": "/opt/conda/bin/python",
    "/home/ada/proj/train.py": "/host/home/ada/proj/train.py",
    "/home/ada/old/weights.pt": "/host/home/ada/old/weights.pt",
    "/data/faces/1.png": "/host/data/faces/1.png",
    "/data/none": "/data/none",
    "./train.py": "./train.py",
}


@pytest.mark.parametrize(("typed", "arrives"), PROGRAMS.items(), ids=repr)
def test_the_first_word_is_a_program_and_the_image_comes_first(typed: str, arrives: str) -> None:
    assert command([typed], WHOLE)[0].text == arrives


IN_A_TREE = {
    "/home/ada/proj/data": ("/host/home/ada/proj/data", ""),
    "/home/ada/proj/new": ("/host/home/ada/proj/new", ""),
    "/data/faces/1.png": ("/faces/1.png", ""),
    "/data/faces/new/one": ("/faces/new/one", ""),
    "/mnt/nas/set": ("/mnt/nas/set", "add -v /mnt/nas/set"),
    "../old": ("../old", "--whole-host"),
    "../nothing": ("../nothing", ""),
    "data/../train.py": ("data/../train.py", ""),
    "--w=/home/ada/old/weights.pt": ("--w=/home/ada/old/weights.pt", "not in the container"),
    "/predict": ("/predict", ""),
}


@pytest.mark.parametrize(("typed", "expected"), IN_A_TREE.items(), ids=repr)
def test_with_the_tree_alone_what_is_outside_is_told(typed: str, expected: tuple[str, str]) -> None:
    arrived = word(typed, TREE)
    assert arrived.text == expected[0]
    assert expected[1] in arrived.warning
    assert bool(arrived.warning) == bool(expected[1])


def test_the_innermost_mount_holds_a_path() -> None:
    mounts = (Mount("/", "/host"), Mount("/data", "/d"), Mount("/data/faces", "/f/"))
    assert [inside(p, mounts) for p in ("/data/faces/1", "/data/x", "/data", "/x", "/")] == ["/f/1", "/d/x", "/d", "/host/x", "/host"]


def test_every_changed_word_says_why() -> None:
    assert all(word(typed, WHOLE).why for typed, arrives in WORDS.items() if typed != arrives)
    assert not any(word(typed, WHOLE).why for typed, arrives in WORDS.items() if typed == arrives)


def test_a_circle_of_links_ends() -> None:
    disk = PretendedDisk(frozenset({"/a/b"}), {"/a/x": "/a/y", "/a/y": "/a/x"})
    view = View((Mount("/", "/host"),), "/w", "/h", disk)
    assert word("/a/x/z", view).text.startswith("/host/a/")
