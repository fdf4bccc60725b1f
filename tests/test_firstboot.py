"""The program of an image's first boot, run by real shells with a state folder of its own. The script that it carries is a double of two lines."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision import shtext

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


@dataclass(frozen=True)
class Machine:
    """Where the program keeps its state, and what stands for its own files."""

    shell: list[str]
    state: Path
    program: Path
    unit: Path
    calls: Path

    def boot(self, script: str, *, reboot: str = "no", skip: str = "driver/module") -> subprocess.CompletedProcess[str]:
        """One attempt, in which `script` is what there is to do."""
        parts = [*(shtext.fragment(f"journal/{name}.sh") for name in ("lock", "runner")), shtext.fragment("firstboot.sh")]
        parts.append(f"systemctl() {{ echo \"$*\" >>{self.calls}; }}\nwrite_script() {{\n    cat >\"$1\" <<'END'\n{script}\nEND\n}}")
        parts.append(f"STATE={self.state}\nfirst_boot '{skip}' {reboot} {self.program} mlhost-first-boot.service {self.unit}")
        return subprocess.run([*self.shell, "-c", "\n".join(parts)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)

    @property
    def runs(self) -> list[Path]:
        return sorted((self.state / "runs").iterdir())

    @property
    def there(self) -> bool:
        """Whether it would run at the next boot."""
        return self.program.exists() and self.unit.exists()


@pytest.fixture(params=SHELLS)
def booting(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    shell = SHELLS[request.param]
    if shutil.which(shell[0]) is None:
        pytest.skip(f"the program {shell[0]} is missing")
    machine = Machine(shell, tmp_path / "state", tmp_path / "lib/first-boot", tmp_path / "first-boot.service", tmp_path / "calls")
    machine.program.parent.mkdir()
    machine.program.touch()
    machine.unit.touch()
    return machine


EVENT = "printf '1.0\\tchanged\\tdocker/service\\t\\n' >>\"$MLHOST_EVENTS\""


def test_once_all_is_done_it_says_so_and_takes_itself_out(booting: Machine) -> None:
    done = booting.boot(EVENT)
    assert done.returncode == 0, done.stderr
    assert "mlhost: first boot: changed docker/service" in done.stdout
    assert done.stdout.endswith("mlhost: first boot: done\n")
    assert not booting.there
    assert [(run / "result").read_text() for run in booting.runs] == ["0\n"]
    assert not (booting.state / "lock").exists()


def test_while_it_fails_it_stays_and_the_next_attempt_goes_on(booting: Machine) -> None:
    failed = booting.boot("echo no; exit 1")
    assert failed.returncode == 1
    assert "tried again" in failed.stdout
    assert booting.there
    assert (booting.runs[0] / "log").read_text() == "no\n"
    again = booting.boot(EVENT)
    assert again.returncode == 0, again.stderr
    assert not booting.there
    assert len(booting.runs) == 1, "of the attempts the last is kept"


def test_it_reboots_once_where_it_may_and_never_twice(booting: Machine) -> None:
    assert booting.boot("exit 76", reboot="yes").returncode == 0
    assert booting.calls.read_text() == "reboot\n"
    assert booting.there
    assert booting.boot("exit 76", reboot="yes").returncode == 1
    assert booting.calls.read_text() == "reboot\n"


def test_where_it_may_not_reboot_it_waits_for_the_next_one(booting: Machine) -> None:
    done = booting.boot("exit 75")
    assert done.returncode == 1
    assert "a reboot is needed" in done.stdout
    assert booting.there
    assert not booting.calls.exists()


def test_without_a_gpu_the_script_is_told_what_to_skip(booting: Machine) -> None:
    if any(vendor.read_text().strip() == "0x10de" for vendor in Path("/sys/bus/pci/devices").glob("*/vendor")):
        pytest.skip("this machine has a device of NVIDIA's")
    assert booting.boot('echo "skip $MLHOST_SKIP"', skip="driver/module toolkit/cdi").returncode == 0
    assert (booting.runs[0] / "log").read_text() == "skip driver/module toolkit/cdi\n"


def test_a_lock_of_a_run_that_is_gone_is_in_nobodys_way(booting: Machine) -> None:
    booting.state.mkdir()
    (booting.state / "lock").write_text("run=old\npid=1\nstart=1\nboot=of-the-machine-that-made-the-image\n")
    assert booting.boot(EVENT).returncode == 0
