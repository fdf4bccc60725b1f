"""The shipped specs for machines that Vagrant made: `vagrant up debian13 && python3 -m pytest tests/system --vagrant=debian13`.

What the Vagrantfile left of a machine (an ssh_config) is all that is needed to reach it. `--hosts` of testinfra works too; without either nothing here is run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.specs.conftest import *  # noqa: F403 - the specs' own fixtures

ROOT = Path(__file__).resolve().parent.parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vagrant", metavar="NAMES", nargs="?", const="", default=None,
        help="judge these machines of the Vagrantfile, separated by commas (without a value: all that are set up)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say the same in testinfra's own options."""
    names = config.getoption("--vagrant")
    if names is None:
        return
    found = {path.parent.parent.name: path for path in sorted(machines().glob("*/*/mlhost-ssh-config")) if (path.parent / "id").exists()}
    wanted = [name for name in names.split(",") if name] or list(found)
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        raise pytest.UsageError(f"Vagrant has set up no machine {' '.join(missing)}: run `vagrant up {' '.join(missing or ['NAME'])}` first")
    together = machines() / "mlhost-ssh-config"
    together.write_text("".join(found[name].read_text() for name in wanted))
    config.option.hosts = ",".join(f"ssh://{name}" for name in wanted)
    config.option.ssh_config = str(together)
    config.option.sudo = True


def machines() -> Path:
    """Where Vagrant keeps what it knows of the machines of this Vagrantfile."""
    import os

    return Path(os.environ.get("VAGRANT_DOTFILE_PATH") or ROOT / ".vagrant") / "machines"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """No machine was named: the machine that runs the tests is none to be judged."""
    if config.getoption("hosts", None) is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs --vagrant=NAME or --hosts=…"))
