"""The pages about running: what they show is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from provision.cli import COMMANDS, CommandGroup, cli
from provision.cli.run import ALIAS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def commands(text: str) -> list[list[str]]:
    """What stands after `mlhost` in a page's code, word by word, up to where a shell would go on."""
    blocks = "\n".join(re.findall(r"^```sh.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\|", "|"))
    return [line.split() for line in re.findall(r"(?:^|[|;] |\")mlhost ([^|#&;>\n]*)", "\n".join([blocks, *spans]), re.MULTILINE)]


@pytest.mark.parametrize("page", ["run.md", "from-curl-pipe.md", "pix2pix.md"])
def test_every_command_and_option_on_a_page_exists(page: str) -> None:
    assert isinstance(cli, CommandGroup)
    shown = commands((DOCS / page).read_text())
    assert shown
    for words in shown:
        name = next((word for word in words if not word.startswith("-")), "")
        if not name or not re.fullmatch(r"[a-z-]+", name):
            continue
        assert name in COMMANDS, words
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            sub = words[words.index(name) + 1]
            command = command.get_command(click.Context(command), sub)
            assert command is not None, words
        assert command is not None
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        rest = words[words.index(name) + 1 :]
        if name == "run" and "IMAGE" in rest:
            rest = rest[: rest.index("IMAGE")]  # what follows is the command's own
        for word in rest:
            if re.fullmatch(r"--[a-z-]+(=.*)?", word) and not _of_the_program(rest, word, name):
                assert word.partition("=")[0] in known, f"{page}: mlhost {' '.join(words)}"


def _of_the_program(words: list[str], option: str, name: str) -> bool:
    """Whether an option of `mlhost run` stands behind a program's name, and so is the program's."""
    return name == "run" and any(word.startswith(("python", "sh")) and ":" not in word for word in words[: words.index(option)])


def test_the_alias_is_as_printed() -> None:
    assert ALIAS in (DOCS / "run.md").read_text()
    assert ALIAS in (DOCS / "from-curl-pipe.md").read_text()


def test_every_command_of_the_article_has_its_row() -> None:
    text = (DOCS / "from-curl-pipe.md").read_text()
    for typed in (
        "setup-docker.py", "setup-nvidia-docker.py", "nvidia-docker run --rm nvidia/cuda nvidia-smi", "--volume /:/host --workdir /host$PWD", "PYTHONUNBUFFERED=x",
        "CUDA_CACHE_PATH=/host/tmp/cuda-cache", "alias dockrun=", "git clone https://github.com/phillipi/pix2pix.git", "datasets/download_dataset.sh facades", "th train.lua",
        "git clone https://github.com/affinelayer/pix2pix-tensorflow.git", "tools/download-dataset.py facades", "--mode train --output_dir facades_train", "docker/Dockerfile",
        "docker build --rm --no-cache --tag pix2pix .", "docker images pix2pix", "docker tag pix2pix", "docker push", "docker save pix2pix", "docker load",
        "docker history --no-trunc pix2pix", "--network none", "gpu=0 cudnn=0",
    ):
        assert typed in text, typed
