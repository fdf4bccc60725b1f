"""`mlhost setup --root DIR` and `mlhost plan --root DIR --bake`: an unpacked system becomes an image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from provision.cli import Session
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.cli.options import F, Output, Playbook
    from provision.look import RunOptions
    from provision.model import Facts, PciDevice, Plan
    from provision.playbook import Loaded
    from provision.transport.tree import TreeTransport

T = TypeVar("T")


class Image(NamedTuple):
    """Which tree, and for which machines."""

    root: str | None
    arch: str | None
    for_gpu: tuple[str, ...]

    def check(self, others: Sequence[object]) -> None:
        """Raise UsageError where hosts are named as well, or something is said of a tree and none is named."""
        if self.root is None and (self.arch or self.for_gpu):
            name = "--arch" if self.arch else "--for-gpu"
            raise UsageError(f"{name} belongs to --root.", "A live host says itself what it is.")
        if self.root is not None and any(others):
            raise UsageError("--root and hosts exclude each other.", "Name hosts, or a tree with --root.")

    def for_plan(self, bake: bool, hosts: Sequence[str], capture: str | None) -> Image:
        """Itself. Raises UsageError for options of `plan` that do not go together."""
        from provision.cli.trees import check_source

        check_source(hosts, self.root, self.arch, capture)
        if bake and self.root is None:
            raise UsageError("--bake belongs to --root.", "Name the top of an unpacked or mounted system with --root.")
        if self.for_gpu and not bake:
            raise UsageError("--for-gpu belongs to --bake.", "Say --root DIR --bake --for-gpu GPU.")
        return self

    def devices(self, catalog: Catalog) -> tuple[PciDevice, ...]:
        """What its machines show on their PCI bus. Raises UsageError for a GPU that is not known."""
        from provision.hardware import devices

        return devices(self.for_gpu, catalog)


    def plan(self, loaded: Loaded, catalog: Catalog, options: RunOptions) -> tuple[Facts, Plan]:
        """The facts, and what `setup` would do to the tree now, and what it would leave for the first boot."""
        from provision.bake import plan_tree
        from provision.progress import NullProgress

        devices = self.devices(catalog)
        with _tree(self, quiet=True) as tree:
            return plan_tree(tree, loaded, catalog, options, NullProgress(), devices, self.arch)


def for_gpu_option(function: F) -> F:
    """`--for-gpu`, as `for_gpu: tuple[str, ...]`."""
    text = "With --root: the GPU of the machines it is for: l4, 10de:27b8, ampere or aws:g6.xlarge. Repeatable."
    return click.option("--for-gpu", "for_gpu", multiple=True, metavar="GPU", help=text)(function)


def setup(
    ctx: click.Context, image: Image, desired: Playbook, output: Output, *, yes: bool, reboot: bool | None, lock_wait: int | None, timeout: float | None
) -> int:
    """Make the tree an image and report; the exit code."""
    from provision.bake import bake
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import Terminal, about, print_reports, save_reports
    from provision.cli.output import check_out, fancy
    from provision.look import RunOptions
    from provision.progress import open_progress

    check_out(output)
    loaded, catalog = desired.load(), load_catalog()
    devices, tree = image.devices(catalog), _tree(image)
    ctx.ensure_object(Session).interrupted = f"Stopped. The tree may be half done; go on with the same command: mlhost setup --root {tree.root}"
    allowed = loaded.spec.reboot == "allow" if reboot is None else reboot
    display = open_progress([tree.name], live=fancy(sys.stderr, output.no_color), verbose=output.verbose)
    with display, tree:
        terminal = Terminal(display)
        options = RunOptions(
            yes=yes,
            reboot="allow" if allowed else "never",
            lock_wait=lock_wait,
            timeout=timeout,
            ask=terminal.confirm if terminal.there else None,
            steps=desired.steps(loaded),
        )
        report = bake(tree, loaded, catalog, options, display, devices, image.arch)
    kept = save_reports(ctx, [report], output)
    print_reports([report], output, about(ctx))
    return report.exit_code or kept


def _tree(image: Image, quiet: bool = False) -> TreeTransport:
    from provision.transport.tree import TreeTransport

    assert image.root is not None  # noqa: S101 - narrows the type
    return TreeTransport(image.root, quiet=quiet)
