"""docs/pix2pix.md, executed: every command on the page, in its order, here or on the fresh host that the page calls gpu-7.

Real: sshd, systemd, apt, git, the Docker Engine, the containers, the training. Stand-ins, each of which says so: the repository (tests/walkthrough), the
image (Debian's Python and numpy under PyTorch's name), the vendors' packages, the GPUs.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.lab.dayhost import install_mlhost
from tests.lab.gpus import TWO_A10G, show_on_pci
from tests.lab.keys import lab_keys
from tests.lab.nshost import NsHost
from tests.program import CHECKOUT
from tests.test_setup_host import install_driver_by_hand

PAGE = CHECKOUT / "docs" / "pix2pix.md"
IMAGE = "pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime"
REPOSITORY = "https://github.com/junyanz/"
# What a plan with something to do ends with; everything else on the page ends with 0.
PENDING = {"mlhost plan": 3}
# Debian's Python and numpy with all they link against, and a pip that says what it is.
STAND_IN = r"""set -e
cd /
mkdir -p /srv/standin/usr/local/bin /srv/standin/tmp
printf '#!/bin/sh\necho "a stand-in of mlhost tests for pip: nothing is installed"\n' > /srv/standin/usr/local/bin/pip
ln -sf /usr/bin/python3 /srv/standin/usr/local/bin/python
chmod 755 /srv/standin/usr/local/bin/pip && chmod 1777 /srv/standin/tmp
tar -c --exclude='usr/lib/x86_64-linux-gnu/perl*' --exclude='*/__pycache__' --exclude='usr/lib/x86_64-linux-gnu/gconv' bin lib lib64 \
    usr/bin/env usr/bin/python3* usr/bin/dash usr/bin/sh usr/bin/ls usr/bin/cat usr/lib/python3 usr/lib/python3.13 usr/lib/x86_64-linux-gnu usr/lib64 \
    etc/alternatives etc/ld.so.cache etc/ld.so.conf etc/ld.so.conf.d etc/passwd etc/group -C /srv/standin usr/local tmp |
    docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -m 'a stand-in of mlhost tests' - IMAGE
rm -rf /srv/standin"""


@dataclass(frozen=True)
class Block:
    """The commands of one block of the page, and where they are typed."""

    number: int
    place: str
    commands: tuple[str, ...]


def blocks() -> list[Block]:
    found = re.findall(r"^```sh (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(number, place, tuple(text.strip().splitlines())) for number, (place, text) in enumerate(found)]


def test_every_block_of_the_page_says_where_it_is_typed() -> None:
    assert {block.place for block in blocks()} == {"here", "gpu-7"}
    assert PAGE.read_text().count("\n```") == 2 * len(blocks())


@dataclass(frozen=True)
class Scene:
    """The two machines of the page. A shell here and one there each keep their directory from block to block."""

    host: NsHost
    home: Path
    environment: dict[str, str]

    def type(self, place: str, command: str) -> subprocess.CompletedProcess[str]:
        """One line, typed into the shell of a place; where it leaves off, the next one begins."""
        text = f'cd "$(cat ~/.where 2>/dev/null || echo ~)" || exit 99\n{command}\ncode=$?; pwd > ~/.where; exit $code\n'
        if place == "here":
            return subprocess.run(["bash", "-c", text], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=280)
        done = self.host.run(f"bash -c '{text.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'", user="ada", check=False, timeout=280)
        return subprocess.CompletedProcess(command, done.code, done.out, done.err)


@pytest.fixture(scope="module")
def scene(fresh: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    host = fresh.host()
    host.run("sh -s", user="root", stdin=show_on_pci(TWO_A10G))
    install_driver_by_hand(host, fresh)
    host.run(
        "useradd -m -s /bin/bash ada && cp -r /home/admin/.ssh /home/ada/ && chown -R ada: /home/ada/.ssh && echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada && "
        "apt-get -qy --no-install-recommends install python3-numpy zstd && hostname gpu-7",
        user="root",
    )
    install_mlhost(host)
    home = tmp_path_factory.mktemp("home")
    stand_in_repository(home / "repositories")
    config = f"Host gpu-7\n  HostName {host.address}\n  UserKnownHostsFile {host.ssh.known_hosts}\n  IdentityFile {lab_keys().client}\n  IdentitiesOnly yes\n"
    (home / "ssh_config").write_text(config)
    (home / "bin").mkdir()
    settings = " ".join(f"--set '{setting}'" for setting in fresh.settings())
    # The page's `mlhost`, told where the lab is: its ssh_config, and its mirrors where a playbook is read.
    (home / "bin/mlhost").write_text(
        f"#!/bin/sh\ncommand=$1; shift\ncase $command in setup|plan|verify|doctor|status) set -- {settings} \"$@\" ;; esac\n"
        f"cd_back=$PWD; export PYTHONPATH={CHECKOUT}\nexec \"$LAB_PYTHON\" -m provision \"$command\" -F {home}/ssh_config \"$@\"\n"
    )
    (home / "bin/mlhost").chmod(0o755)
    import sys

    kept = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    environment = {**kept, "HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "LAB_PYTHON": sys.executable, "GIT_CONFIG_GLOBAL": str(home / "gitconfig")}
    (home / "gitconfig").write_text(f'[url "{home}/repositories/"]\n  insteadOf = {REPOSITORY}\n[safe]\n  directory = *\n')
    host.put([home / "repositories"], "/home/ada", user="ada")
    host.run("cat > .gitconfig", user="ada", stdin=f'[url "/home/ada/repositories/"]\n  insteadOf = {REPOSITORY}\n[safe]\n  directory = *\n')
    yield Scene(host, home, environment)
    host.stop()


def stand_in_repository(folder: Path) -> None:
    """The repository that the page clones, under its own name."""
    work = folder / "pytorch-CycleGAN-and-pix2pix.git"
    work.mkdir(parents=True)
    subprocess.run(["cp", "-r", f"{CHECKOUT}/tests/walkthrough/.", str(work)], check=True)
    git = ["git", "-C", str(work), "-c", "user.name=a stand-in", "-c", "user.email=nobody@invalid", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a stand-in of mlhost's tests"]):
        subprocess.run([*git, *words], check=True)


@pytest.mark.host
@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.number}-{block.place}-{block.commands[-1][:40]}")
class TestThePage:
    """One block after the other, each test going on where the last has left off."""

    def test_its_commands_do_what_it_says(self, scene: Scene, block: Block) -> None:
        if block.place == "gpu-7" and not scene.host.run(f"docker image inspect {IMAGE} >/dev/null 2>&1 && echo there", user="root", check=False).out:
            scene.host.run(STAND_IN.replace("IMAGE", IMAGE), user="root")
        for command in block.commands:
            done = scene.type(block.place, command)
            wanted = next((code for beginning, code in PENDING.items() if command.startswith(beginning)), 0)
            assert done.returncode == wanted, f"{command}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
            check(command, done.stdout)


def check(command: str, said: str) -> None:
    """What the page promises of a command's output."""
    if "train.py" in command and "--explain" not in command:
        losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
        assert len(losses) == 5
        assert losses[-1] < losses[0]
        assert "stand-in" in said
    promised = {
        "mlhost setup": "set up and proved", "--explain": "docker run --rm", "nvidia-smi -L": "UUID: GPU-", "python --version": "Python 3", "ls results": "fake.npy",
        "stat -c": "ada checkpoints/facades_pix2pix/latest_net_G.pth", "sha256sum": "OK",
    }
    for beginning, expected in promised.items():
        if beginning in command:
            assert expected in said, f"{command}\n{said}"
