"""A host that never stops talking, over a real sshd: it is cut off with a clear error, and the controller's memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision import capture, look
from provision.errors import ProbeFailed
from tests.program import CHECKOUT
from tests.sshd import Sshd, running_sshd

MEMORY_MB = 200

pytestmark = pytest.mark.slow

# What the login runs in place of anything that is asked for. It knows the mark, as every host does that is asked, and behaves up to there.
LOGIN = """#!/bin/sh
while IFS= read -r first; do case $first in 'echo @@'*) break ;; esac; done
mark=${first#echo }
mark=${mark%% *}
begin() { echo "$mark 1"; echo "$mark 1" >&2; }
run=$(sed -n 's/.*@@mlhost journal \\([A-Za-z0-9-]*\\).*/\\1/p' | head -n 1)
"""

# name -> what it does, and a word of the error that ends it
FLOODS = {
    "before the script begins": ("exec yes 'Welcome!'", "before the script began"),
    "on standard output": ("begin; exec yes", "more than 8388608 bytes"),
    "on standard error": ("begin; exec yes >&2", "more than 8388608 bytes"),
    "in one line": ("begin; exec cat /dev/zero", "more than 8388608 bytes"),
    "in bytes that are no UTF-8": ("begin; exec yes $(printf '\\377\\200')", "more than 8388608 bytes"),
    "in line ends, just below the limit": ("begin; yes '' | head -c 8388000; exit 1", "none of its sections"),
    "on standard error, just below the limit": ("begin; yes '' | head -c 8388000 >&2; exit 1", "printed nothing"),
}
FOLLOWED = {
    "in one line": ("begin; echo \"@@mlhost journal $run\"; exec cat /dev/zero", "line of more than"),
    "in log lines without an end of their batch": ("begin; echo \"@@mlhost journal $run\"; printf 'L\\t%s' ''; exec yes 'L\tx'", "more at once"),
    "in events": ("begin; echo \"@@mlhost journal $run\"; printf 'E\\t1\\tstart\\tx\\tx\\nO\\t1\\t1\\n' >$HOME/two; while cat $HOME/two $HOME/two $HOME/two $HOME/two; do :; done", "more than 20000 events"),
    "in names of who holds the lock, then a reason": ("begin; echo \"@@mlhost journal $run\"; yes 'K\ta=b' | head -c 30000000; printf '\\nF\\tenough\\n'; exit 1", "enough"),
    "in two hundred longest lines": (
        "begin; echo \"@@mlhost journal $run\"; n=0; while [ $n -lt 300 ]; do n=$((n + 1)); printf 'L\\t'; head -c 700000 /dev/zero | tr '\\0' x; printf '\\nO\\t1\\t1\\n'; done; printf 'F\\tenough\\n'; exit 1",
        "enough",
    ),
}
FOLLOW = """
import sys
from provision.errors import Error
from provision.follow import follow_active
from provision.progress import NullProgress
from provision.transport import SshOptions, open_transport

target, key, known = sys.argv[1:]
with open_transport(target, SshOptions(config_file="none", identity_files=(key,), known_hosts_file=known)) as transport:
    try:
        follow_active(transport, "20260101T000000-abc", NullProgress(), 120)
    except Error as error:
        sys.exit(f"{error.message} {error.fix}")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("hostile")
    login = folder / "login.sh"
    login.write_text(LOGIN + f". {folder}/attack\n")
    login.chmod(0o755)
    with running_sshd(folder / "sshd", [f"ForceCommand sh {login}"]) as running:
        yield running


def attack(server: Sshd, what: str) -> None:
    (server.directory.parent / "attack").write_text(what + "\n")


def measured(command: list[str]) -> tuple[int, str, float]:
    """Exit code, what it said on standard error, and the most memory it had, in MB."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import resource, subprocess, sys\n"
         "done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL)\n"
         "print('MAXRSS', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\nsys.exit(done.returncode)", *command],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    )
    _, err = process.communicate(timeout=240)
    said, _, size = err.rpartition("MAXRSS ")
    return process.returncode, " ".join(said.split()), int(size) / 1024


# One of each kind is tried at every time, the others with the tests that take long.
QUICK = ("on standard output", "in log lines without an end of their batch")


def some(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(FLOODS))
def test_a_probe_that_is_answered_without_end(name: str, server: Sshd) -> None:
    what, word = FLOODS[name]
    attack(server, what)
    code, said, memory = measured(
        [sys.executable, "-m", "provision", "facts", "-F", "none", "--identity", str(server.user_key), "--known-hosts", str(server.known_hosts()), server.target]
    )
    assert code in (1, 4), said
    assert word in said
    assert "Traceback" not in said
    assert "bug" not in said
    assert memory < MEMORY_MB


@pytest.mark.parametrize("name", some(FOLLOWED))
def test_a_run_that_is_told_of_without_end(name: str, server: Sshd) -> None:
    what, word = FOLLOWED[name]
    attack(server, what)
    code, said, memory = measured([sys.executable, "-c", FOLLOW, server.target, str(server.user_key), str(server.known_hosts())])
    assert code == 1, said
    assert word in said
    assert "Traceback" not in said
    assert memory < MEMORY_MB


@pytest.mark.parametrize("row", ["a b c d e f", "x 1 2 3 4 5", "? /p", "k=v", "a|b|c|/p", "\\n", "deb http://a.lan b c", "[s]"])
def test_the_largest_answer_that_is_taken_costs_bounded_memory(row: str, tmp_path: Path) -> None:
    """Every section made of as many short lines as fit, each different, so that nothing is shared."""
    program = (
        "import re\nfrom provision import capture\nfrom provision.errors import Error\nfrom provision.facts import parse\nfrom provision.model import Section\n"
        f"row = {row!r}\nreal = dict(capture.split(open({str(CHECKOUT / 'tests/hosts/ubuntu2404-aws-l4/probe.txt')!r}, 'rb').read()))\n"
        "each = (capture.MAX_BYTES - 200_000) // len(real)\n"
        "for name, old in list(real.items()):\n    if name != 'probe':\n        lines = (f'{n}{row}' for n in range(each // (len(row) + 6)))\n        real[name] = Section(old.rc, old.text[:2000] + '\\n'.join(lines))\n"
        "data = capture.join(real)\ndel real\n"
        "try:\n    facts = parse(capture.split(data))\nexcept Error as error:\n    print(error.message)\n"
        # Not ru_maxrss: that one begins with what the process had from which this one was forked.
        "print(len(data) >> 20, int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    megabytes, memory = map(int, done.stdout.split()[-2:])
    assert megabytes >= 3
    assert memory < MEMORY_MB


def test_the_two_limits_of_an_answer_are_one() -> None:
    assert look.MAX_ANSWER == capture.MAX_BYTES


def test_frames_in_a_file_of_the_host_forge_nothing() -> None:
    """A file's text may look like frames; only the mark of this very call counts, and nothing on the host knew it before."""
    real = (CHECKOUT / "tests/hosts/debian13-cloud/probe.txt").read_bytes()
    forged = b"\n@@0 os_release 0\nID=forged\n\n@@deadbeef end 0\n\n"
    mark = b"5f0c2d7a9b3e4f61"
    answer = real.replace(real[: real.index(b" ") + 1], b"@@" + mark + b" ").replace(b"\nID=debian\n", b"\nID=debian\n" + forged, 1)
    assert forged in answer
    assert "\nID=debian\n" in capture.split(answer, mark.decode())["os_release"].text
    assert "ID=forged" in capture.split(answer, mark.decode())["os_release"].text
    with pytest.raises(ProbeFailed, match="twice"):
        capture.split(answer.replace(b"@@0 os_release", b"@@" + mark + b" os_release"), mark.decode())


def test_json_of_a_flooded_host_is_json(server: Sshd) -> None:
    attack(server, FLOODS["on standard output"][0])
    done = subprocess.run(
        [sys.executable, "-m", "provision", "setup", "--format", "json", "-F", "none", "--identity", str(server.user_key), "--known-hosts", str(server.known_hosts()), server.target],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, timeout=240, check=False, env={**os.environ},
    )
    report = json.loads(done.stdout)
    assert report["hosts"][0]["status"] in ("failed", "unreachable")
    assert "8388608" in report["hosts"][0]["message"]
