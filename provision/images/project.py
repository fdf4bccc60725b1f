"""What a Python ML project says of itself: by which files its dependencies are named, whether they are locked, and what they ask of an image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REQUIREMENTS = ("requirements.lock", "requirements.lock.txt", "requirements.txt", "requirements/prod.txt", "requirements/base.txt")
CONDA = ("conda-lock.txt", "explicit.txt", "environment.lock.txt", "environment.yml", "environment.yaml")
ENTRIES = ("train.py", "main.py", "app.py", "run.py")
READ = (*REQUIREMENTS, *CONDA, "pyproject.toml", "setup.py", "uv.lock", "poetry.lock", "Pipfile.lock")
_BUILT = re.compile(r"\b(?:flash-attn|flash_attn|xformers|deepspeed|apex|detectron2|mmcv|causal-conv1d|mamba-ssm|CUDAExtension|CUDA_HOME)\b")


@dataclass(frozen=True)
class Project:
    """`kind`: `pip`, `conda` or `none`. `file` names the dependencies, `hashed` whether each has its hash, `loose` the lines that have none.

    `make_lock` is the command that makes a lock where there is none. `frameworks` are those that were found, `brings` whether all of them carry their
    CUDA libraries in their wheels, `compiles` whether something is built against CUDA. `entry` is the program to run, "" for unknown.
    """

    kind: str
    file: str
    hashed: bool
    loose: tuple[str, ...]
    make_lock: str
    frameworks: tuple[str, ...]
    brings: bool
    compiles: bool
    entry: str


def detect(files: Mapping[str, str], names: Sequence[str], data: Mapping[str, Any]) -> Project:
    """`files` are the texts of those of READ that are there, `names` all files of the top folder, `data` the content of images.toml."""
    everything = "\n".join(files.values())
    known = {row["name"]: row["brings"] for row in data["framework"]}
    found = tuple(name for name in known if re.search(rf"(?m)(?<![\w.-]){re.escape(name)}(?![\w.-])", everything))
    brings = bool(found) and all(known[name] for name in found)
    compiles = _BUILT.search(everything) is not None
    entry = next((name for name in ENTRIES if name in names), "")
    conda = next((name for name in CONDA if name in files), "")
    requirements = next((name for name in REQUIREMENTS if name in files), "")
    lock = ""
    if conda and not requirements:
        hashed = "@EXPLICIT" in files[conda]
        lock = "" if hashed else f"micromamba create -n lock -f {conda} --dry-run, then `micromamba env export -n lock --explicit --md5 > conda-lock.txt`"
        return Project("conda", conda, hashed, (), lock, found, brings, compiles, entry)
    if requirements:
        loose = unhashed(files[requirements])
        lock = "" if not loose else f"uv pip compile --generate-hashes {requirements} -o requirements.lock"
        return Project("pip", requirements, not loose, loose, lock, found, brings, compiles, entry)
    for name, command in (
        ("uv.lock", "uv export --no-emit-project -o requirements.lock"),
        ("poetry.lock", "poetry export -o requirements.lock"),
        ("Pipfile.lock", "pipenv requirements --hash > requirements.lock"),
        ("pyproject.toml", "uv pip compile --generate-hashes pyproject.toml -o requirements.lock"),
        ("setup.py", "uv pip compile --generate-hashes setup.py -o requirements.lock"),
    ):
        if name in files:
            return Project("pip", "requirements.lock", False, (), command, found, brings, compiles, entry)
    return Project("none", "", True, (), "", found, brings, compiles, entry)


def unhashed(text: str) -> tuple[str, ...]:
    """The requirements of a pip file that have no --hash, and those that name other files or folders."""
    joined = re.sub(r"\\\s*\n", " ", text)
    loose = []
    for row in joined.splitlines():
        words = re.sub(r"(^|\s)#.*$", "", row).strip()
        if not words or re.match(r"--?(i|index-url|extra-index-url|f|find-links|no-binary|only-binary|require-hashes|trusted-host|pre|prefer-binary)\b", words):
            continue
        if "--hash=" not in words:
            loose.append(words)
    return tuple(loose)
