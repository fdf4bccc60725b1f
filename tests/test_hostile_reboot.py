"""What goes on after a reboot of this machine may hold a proxy's password: only root can read it, and nothing shows it on the way."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from provision.cli.options import Playbook
from provision.cli.setup import self_command
from provision.errors import Failed
from provision.playbook import load
from provision.reboot import CONTINUE, RECORD, continue_record, continue_unit, take_record
from tests.program import CHECKOUT
from tests.sshd import can_have_a_world, needs

SECRET = "s3cret-of-the-proxy"
SETS = (f"proxy.http=http://ada:{SECRET}@proxy.lan:3128",)


def command() -> tuple[str, ...]:
    return self_command(Playbook("gpu-host", SETS), load("gpu-host", SETS), yes=True, reboot=True, lock_wait=None, timeout=None)


def test_the_unit_names_the_program_and_where_the_rest_is() -> None:
    unit = continue_unit(command())
    assert SECRET not in unit
    assert "proxy" not in unit
    assert f'"provision" "{CONTINUE}" "{RECORD}"' in unit
    assert not [line for line in unit.split("\n") if line and line[0] not in "#[" and "=" not in line]


def test_a_strange_directory_or_program_adds_no_line_to_the_unit() -> None:
    unit = continue_unit(("/usr/bin/env", "PYTHONPATH=/srv/a\nExecStartPost=/bin/touch /x\r$HOME%h\"\\", "-m", "provision", "setup"))
    assert sum(line.startswith("Exec") for line in unit.split("\n")) == 2
    assert "\r" not in unit
    assert r"\x0aExecStartPost" in unit
    assert "$$HOME%%h" in unit


def test_what_was_kept_comes_back_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    words = ("/usr/bin/env", "python3", "-m", "provision", "setup", "--set", "a=b c\n'\"$(id)`\\", "--playbook", "/srv/\udcff.yaml")
    kept = tmp_path / "continue.json"
    kept.write_text(continue_record(words, str(tmp_path)))
    kept.chmod(0o600)
    assert take_record(str(kept)) == list(words[4:])
    assert Path.cwd() == tmp_path
    assert not kept.exists()


@pytest.mark.parametrize("what", ["symlink", "fifo", "readable", "hard link", "directory", "garbage", "other json", "absent"])
def test_a_file_that_is_not_ours_is_refused(what: str, tmp_path: Path) -> None:
    real, kept = tmp_path / "real", tmp_path / "continue.json"
    real.write_text(continue_record(command(), "/"))
    real.chmod(0o600)
    if what == "symlink":
        kept.symlink_to(real)
    elif what == "fifo":
        os.mkfifo(kept, 0o600)
    elif what == "readable":
        kept.write_text(real.read_text())
        kept.chmod(0o640)
    elif what == "hard link":
        kept.hardlink_to(real) if sys.version_info >= (3, 10) else os.link(real, kept)
    elif what == "directory":
        kept.mkdir(0o700)
    elif what in ("garbage", "other json"):
        kept.write_text("{" if what == "garbage" else "[1]")
        kept.chmod(0o600)
    with pytest.raises(Failed) as refused:
        take_record(str(kept))
    assert "mlhost setup" in refused.value.fix


def test_the_process_that_goes_on_shows_nobody_the_password(tmp_path: Path) -> None:
    kept = tmp_path / "continue.json"
    kept.write_text(json.dumps({"directory": str(CHECKOUT), "arguments": ["plan", "--set", SETS[0], "--capture", "-"]}))
    kept.chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "provision", CONTINUE, str(kept)], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 60
        while kept.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not kept.exists(), "the file is read once and is gone"
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"provision" in seen
        assert SECRET.encode() not in seen
        out, err = process.communicate((CHECKOUT / "tests/hosts/debian13-cloud/probe.txt").read_bytes(), timeout=120)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert SECRET.encode() not in out + err


@pytest.mark.skipif(not can_have_a_world(), reason="needs root and private mount namespaces")
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_script_writes_both_files_for_root_alone(shell: str, tmp_path: Path) -> None:
    needs(shell.split(maxsplit=1)[0])
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in ("systemctl", "systemd-run"):
        (stubs / name).write_text(f'#!/bin/sh\nprintf \'%s\\n\' "$0 $*" >>{tmp_path}/called\nexit 0\n')
        (stubs / name).chmod(0o755)
    (tmp_path / "reboot.sh").write_text((resources.files("provision") / "scripts" / "reboot.sh").read_text())
    (tmp_path / "unit").write_text(continue_unit(command()))
    (tmp_path / "record").write_text(continue_record(command(), "/"))
    script = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd/system
mount -t tmpfs -o mode=755 tmpfs /etc && mkdir -p /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /var/lib
umask 022
PATH={stubs}:$PATH {shell} {tmp_path}/reboot.sh "$(cat {tmp_path}/unit)" "$(cat {tmp_path}/record)"
stat -c '%a %n' /etc/systemd/system/mlhost-continue.service {RECORD}
ls -A /var/lib/mlhost /etc/systemd/system
grep -c {SECRET} {RECORD}
"""
    done = subprocess.run(
        [needs("unshare", "util-linux"), "--mount", "--propagation", "private", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["600 /etc/systemd/system/mlhost-continue.service", f"600 {RECORD}"]
    assert shlex.split(done.stdout)[-1] == "1"
    assert SECRET not in (tmp_path / "called").read_text()
