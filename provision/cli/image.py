"""`mlhost image`: a group whose commands are imported when they are called."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "init": ("image_init", "Write a Dockerfile for a Python ML project, with a CUDA that fits the hosts."),
    "build": ("image_build", "Build an image; --reproducible: the same bytes again, wherever."),
    "compare": ("image_look", "Tell which files differ between two images."),
    "history": ("image_look", "Show every layer of an image in full."),
    "save": ("image_ship", "Save images into a compressed file with a checksum."),
    "load": ("image_ship", "Load such a file, checked, all of it or nothing."),
    "push": ("image_push", "Push an image to a registry and check what arrived."),
    "copy": ("image_copy", "Copy images from host to host over SSH."),
}


class ImageGroup(click.Group):
    """Its commands, by name; help lists them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"provision.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101 - narrows the type
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=ImageGroup, epilog="""
\b
Examples:
  mlhost image init -i fleet.yaml                a Dockerfile that runs on the whole fleet
  mlhost image build --reproducible --check .    build twice, and tell whether that gave the same image
  mlhost image save train:1                      train-1.tar.zst and its checksum
  mlhost image copy train:1 --to gpu-7           straight into the Docker of another machine

\b
Run `mlhost image COMMAND --help` for a command's options and examples.

\b
Exit codes: 0 done, 1 failed (or the builds differ), 2 wrong usage, 4 unreachable.
""")
def command() -> None:
    """Make container images and move them: write, build, look into, save, load, push, copy."""
