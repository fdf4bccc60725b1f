"""`mlhost run` on a host with a real Docker Engine, as a user who is not root: what is written, how it ends, what is seen, and what is left behind.

The host is of namespaces; its engine, sshd and terminals are real. `nvidia-smi`, the toolkit and the driver are doubles, named so in their files; the
GPUs come into containers by a real CDI request, Docker's real --gpus, and the runtime's double.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dayhost import day_host
from tests.lab.keys import lab_keys
from tests.lab.nshost import Network, NsHost
from tests.lab.proxy import CachingProxy
from tests.program import CHECKOUT, Ran, environment

pytestmark = pytest.mark.host

UUIDS = ("GPU-7e57d0b1-0000-4000-8000-000000000000", "GPU-7e57d0b1-0000-4000-8000-000000000001")
MLHOST = "[e]ntrypoint.*run small"  # for pgrep, which must not find the shell that calls it
STOP = "for tree in .cache/mlhost/run/trees/proj-*; do touch \"$tree/stop\"; done"
LONG = 120.0  # seconds that anything may take here; what is waited for takes one


@pytest.fixture(scope="module")
def host(network: Network, network_apt_proxy: CachingProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NsHost]:
    with day_host(network, network_apt_proxy, tmp_path_factory.mktemp("vendors")) as machine:
        machine.run("mkdir -p proj/data && echo one > proj/data/in.txt && printf '#!/bin/sh\\necho mine \"$@\"\\n' > proj/go.sh && chmod 755 proj/go.sh")
        yield machine


def run(host: NsHost, words: str, *, before: str = "", user: str = "admin", stdin: str = "") -> Ran:
    """`mlhost run WORDS` in the user's project. Standard input is a pipe."""
    done = host.run(f"cd ~/proj && {before} mlhost run {words}", user=user, stdin=stdin, check=False)
    return Ran(done.code, done.out, done.err)


def start(host: NsHost, script: str, words: str = "small sh script", before: str = "") -> None:
    """`mlhost run` on a script in the background, as its own session; `code` has its exit code once it has ended. Waits until the script says `up`."""
    host.run("cd ~/proj && rm -f up code signals seen stop log && cat > script", stdin=script)
    host.run(f"cd ~/proj && {before} setsid -f sh -c 'mlhost run {words} >log 2>&1 </dev/null; echo $? >code' >/dev/null 2>&1 </dev/null")
    until("the command runs", lambda: host.run("cat proj/up", check=False).out != "")


def ended(host: NsHost) -> int:
    """The exit code, once there is one."""
    until("mlhost has ended", lambda: host.run("cat proj/code", check=False).out.strip() != "")
    return int(host.run("cat proj/code").out)


def command_line(path: Path) -> str:
    """What a process here was started with; nothing for one that has just gone."""
    with contextlib.suppress(OSError):
        return path.read_bytes().decode(errors="replace")
    return ""


def containers(host: NsHost) -> str:
    return host.run("docker ps -a --format '{{.Names}} {{.Status}}'").out


def until(what: str, holds: object) -> None:
    """Wait for a state; `holds` is called again and again."""
    assert callable(holds)
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline, f"after {LONG:.0f} s still not: {what}"
        time.sleep(0.1)


class TestWhatIsWritten:
    def test_it_belongs_to_the_caller_and_is_where_the_caller_is(self, host: NsHost) -> None:
        ran = run(host, "small sh -c 'mkdir -p out && cat data/in.txt > out/result && id -u && id -g'")
        assert ran.code == 0, str(ran)
        assert ran.out.split() == ["1000", "1000"]
        assert host.run("stat -c '%U:%G' proj/out proj/out/result; cat proj/out/result").out.split() == ["admin:admin", "admin:admin", "one"]

    def test_behind_sudo_it_is_still_the_callers(self, host: NsHost) -> None:
        ran = run(host, "small touch by-sudo", before="sudo")
        assert ran.code == 0, str(ran)
        assert host.run("stat -c %U proj/by-sudo").out == "admin\n"
        assert host.run("stat -c %U .cache/mlhost/run .cache/mlhost/run/home").out == "admin\nadmin\n"

    def test_the_caller_has_an_account_a_home_and_the_images_users_stay(self, host: NsHost) -> None:
        ran = run(host, "small sh -c 'whoami; id -u img; echo kept > ~/kept; echo \"$HOME\"; test -w \"$CUDA_CACHE_PATH\" && echo writable'")
        assert ran.out.split() == ["admin", "4242", "/mlhost/home", "writable"], str(ran)
        assert run(host, "small cat /mlhost/home/kept").out == "kept\n"

    def test_the_tree_alone_is_all_that_is_seen(self, host: NsHost) -> None:
        ran = run(host, "--tree small sh -c 'ls /host /host/home /host/home/admin; touch in-tree'")
        assert ran.out.split() == ["/host:", "home", "/host/home:", "admin", "/host/home/admin:", "proj"], str(ran)
        assert host.run("stat -c %U proj/in-tree").out == "admin\n"


class TestPaths:
    def test_paths_of_this_machine_are_found_inside(self, host: NsHost) -> None:
        ran = run(host, "small cat /home/admin/proj/data/in.txt")
        assert ran.out == "one\n", str(ran)
        assert run(host, "small /home/admin/proj/go.sh --data=/home/admin/proj/data x:/home").out == "mine --data=/host/home/admin/proj/data x:/home\n"

    def test_what_every_system_has_is_the_images(self, host: NsHost) -> None:
        assert "img:x:4242" in run(host, "small cat /etc/passwd").out
        assert run(host, "small /bin/echo /bin/sh /dev/null /nowhere").out == "/bin/sh /dev/null /nowhere\n"

    def test_a_path_to_be_made_is_made_here(self, host: NsHost) -> None:
        assert run(host, "small sh -c 'echo made > \"$1\"' sh /home/admin/made.txt").code == 0
        assert host.run("cat made.txt").out == "made\n"

    def test_they_can_be_left_alone(self, host: NsHost) -> None:
        assert run(host, "-T small echo /home/admin/proj").out == "/home/admin/proj\n"
        assert run(host, "small echo //home/admin/proj").out == "//home/admin/proj\n"


class TestHowItEnds:
    @pytest.mark.parametrize(("command", "code"), [("true", 0), ("sh -c 'exit 3'", 3), ("sh -c 'exit 255'", 255), ("sh -c 'kill -9 $$'", 137), ("nope", 127), ("/etc/passwd", 126)])
    def test_the_exit_code_is_the_commands(self, host: NsHost, command: str, code: int) -> None:
        ran = run(host, f"small {command}")
        assert ran.code == code, str(ran)
        assert containers(host) == ""

    def test_125_to_127_are_explained(self, host: NsHost) -> None:
        assert "no program nope on its PATH" in run(host, "small nope").err
        assert "no program nope on its PATH" in run(host, "--docker=--init=false small nope").err
        assert "x bit" in run(host, "small /etc/passwd").err
        refused = run(host, "--docker=--cap-add=NOPE small true")
        assert refused.code == 125
        assert "never ran" in refused.err

    def test_input_and_both_outputs_are_the_commands(self, host: NsHost) -> None:
        ran = run(host, "small sh -c 'cat; echo err >&2'", stdin="in\n")
        assert (ran.out, ran.err) == ("in\n", "err\n")

    @pytest.mark.parametrize("number", ["INT", "TERM", "USR1", "HUP"])
    def test_a_signal_reaches_the_command_once(self, host: NsHost, number: str) -> None:
        start(host, f"trap 'echo got >> signals' {number}\necho up > up\nuntil [ -e signals ]; do sleep 0.1; done\nsleep 0.5\nexit 11\n")
        host.run(f"kill -{number} $(pgrep -u admin -f '{MLHOST}')")
        assert ended(host) == 11
        assert host.run("cat proj/signals").out == "got\n"

    def test_a_command_that_knows_no_signal_ends_by_it(self, host: NsHost) -> None:
        start(host, "echo up > up\nexec sleep 600\n")
        host.run(f"kill -TERM $(pgrep -u admin -f '{MLHOST}')")
        assert ended(host) == 143
        assert containers(host) == ""

    @pytest.mark.parametrize("victim", ["[e]ntrypoint.*run small", "[d]ocker run --rm"])
    def test_killed_for_good_it_leaves_no_container_behind(self, host: NsHost, victim: str) -> None:
        start(host, "echo up > up\nexec sleep 600\n")
        assert "Up" in containers(host)
        host.run(f"kill -KILL $(pgrep -u admin -f '{victim}')")
        until("the container is gone", lambda: containers(host) == "")
        until("the guard is gone", lambda: host.run("pgrep -u admin -f '[r]un_guard'", check=False).code == 1)

    def test_killed_before_the_container_is_there_it_leaves_none_either(self, host: NsHost) -> None:
        for delay in ("0.3", "0.6", "0.9"):
            host.run(f"cd proj && (mlhost run small sleep 600 >log 2>&1 </dev/null & echo $! > pid; wait) >/dev/null 2>&1 & sleep {delay}; kill -KILL $(cat proj/pid)")
            until("the container is gone", lambda: host.run("pgrep -u admin -f '[r]un_guard|[d]ocker run --rm'", check=False).code == 1 and containers(host) == "")


class TestATerminal:
    def terminal(self, host: NsHost, command: str) -> tuple[int, int]:
        """ssh on a pseudo-terminal of this machine, with one of the host's behind it: a person's. Returns the process and our end."""
        words = ["ssh", "-tt", *host.ssh.options(), "-p", str(host.port), f"admin@{host.address}", f"cd proj && {command}"]
        pid, end = pty.fork()
        if pid == 0:
            os.execvp(words[0], words)
        return pid, end

    def read_until(self, end: int, pattern: str) -> str:
        text, deadline = "", time.monotonic() + LONG
        while not re.search(pattern, text):
            assert time.monotonic() < deadline, f"no {pattern!r} in {text!r}"
            ready, _, _ = select.select([end], [], [], 1.0)
            if ready:
                try:
                    text += os.read(end, 4096).decode(errors="replace")
                except OSError:
                    break
        return text

    def test_the_command_has_a_terminal_of_the_same_kind(self, host: NsHost) -> None:
        pid, end = self.terminal(host, "TERM=vt220 mlhost run small sh -c 'test -t 0 && test -t 1 && echo \"terminal $TERM\"'; echo code=$?")
        text = self.read_until(end, r"code=\d+")
        os.close(end)
        os.waitpid(pid, 0)
        assert "terminal vt220" in text
        assert "code=0" in text

    def test_ctrl_c_reaches_the_command_and_nothing_is_left(self, host: NsHost) -> None:
        script = "trap \"echo caught; exit 7\" INT; echo ready; while :; do sleep 0.1; done"
        pid, end = self.terminal(host, f"mlhost run small sh -c '{script}'; echo code=$?")
        self.read_until(end, "ready")
        os.write(end, b"\x03")
        text = self.read_until(end, r"code=\d+")
        os.close(end)
        os.waitpid(pid, 0)
        assert "caught" in text
        assert "code=7" in text
        assert containers(host) == ""

    def test_ctrl_c_reaches_a_command_whose_output_is_piped_once(self, host: NsHost) -> None:
        # As in a person's shell: all of the pipeline hears the key; the shell itself and `cat` are told to live on, to see what the command says.
        host.run("cat > proj/inner", stdin="trap 'echo caught; n=9' INT\necho ready\nn=0\nwhile [ $n -lt 9 ]; do sleep 0.2; done\nsleep 1\nexit 5\n")
        host.run("cat > proj/piped", stdin="trap : INT\nmlhost run small sh inner | (trap '' INT; exec cat)\necho code=${PIPESTATUS[0]}\n")
        pid, end = self.terminal(host, "bash piped")
        self.read_until(end, "ready")
        os.write(end, b"\x03")
        text = self.read_until(end, r"code=\d+")
        os.close(end)
        os.waitpid(pid, 0)
        assert text.count("caught") == 1, text
        assert "code=5" in text

    def test_a_terminal_that_is_gone_takes_the_container_with_it(self, host: NsHost) -> None:
        pid, end = self.terminal(host, "mlhost run small sh -c 'echo ready; exec sleep 600'")
        self.read_until(end, "ready")
        os.kill(pid, 9)
        os.close(end)
        os.waitpid(pid, 0)
        until("the container is gone", lambda: containers(host) == "")


class TestSecrets:
    def test_no_value_is_in_any_command_line(self, host: NsHost) -> None:
        host.run("printf 'FILE_KEY=in-file-s3cret\\n' > proj/.env; chmod 600 proj/.env")
        start(host, "echo $NAMED $FILE_KEY > up\nuntil [ -e stop ]; do sleep 0.1; done\n", "-e NAMED --env-file .env small sh script", "NAMED=by-name-s3cret")
        lines = host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", user="root", check=False).out
        seen = host.run("cat proj/up").out
        host.run("touch proj/stop")
        assert ended(host) == 0
        assert "--env NAMED" in lines
        assert "s3cret" not in lines
        assert seen.split() == ["by-name-s3cret", "in-file-s3cret"]

class TestGpus:
    """nvidia-smi is a double: it tells which way the request took, never that a GPU works."""

    def test_all_come_by_cdi(self, host: NsHost) -> None:
        ran = run(host, "small sh -c 'nvidia-smi -L; echo $MLHOST_TEST_DOUBLE'")
        assert all(uuid in ran.out for uuid in UUIDS), str(ran)
        assert "all" in ran.out.split()

    def test_one_comes_by_its_number(self, host: NsHost) -> None:
        ran = run(host, "--gpus device=1 small sh -c 'echo $MLHOST_TEST_DOUBLE'")
        assert ran.out.strip() in ("1", UUIDS[1]), str(ran)

    def test_none_is_none(self, host: NsHost) -> None:
        assert run(host, "--gpus none small nvidia-smi").code == 127

    def test_visible_devices_are_passed_on_and_checked(self, host: NsHost) -> None:
        assert run(host, "small sh -c 'echo $CUDA_VISIBLE_DEVICES'", before="CUDA_VISIBLE_DEVICES=1").out == "1\n"
        refused = run(host, "small true", before="CUDA_VISIBLE_DEVICES=2")
        assert refused.code == 2, str(refused)
        assert "there is no GPU 2" in refused.err

    def test_an_image_that_is_too_new_is_refused(self, host: NsHost) -> None:
        refused = run(host, "toonew true")
        assert refused.code == 1, str(refused)
        assert "cuda>=99.0" in refused.err
        assert run(host, "--gpus none toonew true").code == 0

    def test_without_cdi_docker_gives_them_by_gpus_and_without_the_hook_by_the_runtime(self, host: NsHost) -> None:
        host.run("cp /etc/docker/daemon.json /root/; sed -i 's/\"cdi\": true/\"cdi\": false/' /etc/docker/daemon.json; systemctl restart docker", user="root")
        try:
            assert "--gpus all" in run(host, "--dry-run small true").out
            assert UUIDS[1] in run(host, "small nvidia-smi -L").out
            host.run("mv /usr/bin/nvidia-container-runtime-hook /root/", user="root")
            assert "--runtime=nvidia" in run(host, "--dry-run small true").out
            assert UUIDS[1] in run(host, "small nvidia-smi -L").out
        finally:
            host.run("mv /root/nvidia-container-runtime-hook /usr/bin/ 2>/dev/null; cp /root/daemon.json /etc/docker/; systemctl restart docker", user="root")

    def test_a_broken_driver_is_told_before_anything_runs(self, host: NsHost) -> None:
        host.run("mv /usr/bin/nvidia-smi /root/; printf '#!/bin/sh\\necho broken; exit 9\\n' > /usr/bin/nvidia-smi; chmod 755 /usr/bin/nvidia-smi", user="root")
        try:
            refused = run(host, "small true")
            assert refused.code == 1, str(refused)
            assert "broken" in refused.err
            assert run(host, "--gpus none small true").code == 0
        finally:
            host.run("mv /root/nvidia-smi /usr/bin/nvidia-smi", user="root")


class TestOnAnotherMachine:
    """From this machine to the host, both ways, over its real sshd."""

    def there(self, host: NsHost, folder: Path, *words: str) -> Ran:
        """`mlhost run --host` in a folder here."""
        done = subprocess.run(self.line(host, *words), cwd=folder, env={**environment(), "PYTHONPATH": str(CHECKOUT)},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def line(self, host: NsHost, *words: str) -> list[str]:
        return [sys.executable, "-m", "provision", "run", "--host", f"admin@{host.address}", "-F", "none", "--identity", str(lab_keys().client),
                "--known-hosts", str(host.ssh.known_hosts), *words]

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        folder = tmp_path / "proj"
        (folder / "data").mkdir(parents=True)
        (folder / "data/in.txt").write_text("from here\n")
        (folder / "train.sh").write_text("cat data/in.txt > result\necho \"$@\"\n")
        (folder / ".mlhostignore").write_text("huge\n")
        (folder / "huge").write_text("not to be sent")
        return folder

    def test_the_tree_goes_there_and_the_results_come_back(self, host: NsHost, project: Path) -> None:
        ran = self.there(host, project, "small", "sh", "train.sh", str(project / "data"))
        assert ran.code == 0, str(ran)
        assert ran.out == f"/host{project}/data\n"
        assert (project / "result").read_text() == "from here\n"
        assert "fetched 1 file" in ran.err
        again = self.there(host, project, "small", "sh", "-c", "ls; exit 9")
        assert again.code == 9, str(again)
        assert again.out.split() == ["data", "result", "train.sh"]
        assert "sending" not in again.err

    @contextlib.contextmanager
    def begun(self, host: NsHost, project: Path, script: str, *words: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """`mlhost run --host` with a script, once that has said its first line; ended whatever happens."""
        (project / "script").write_text(script)
        process = subprocess.Popen(self.line(host, *words, "small", "sh", "script"), cwd=project, env={**environment(), "PYTHONPATH": str(CHECKOUT), **environ},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            try:
                yield process
            finally:
                process.kill()
        until("nothing runs there any more", lambda: host.run(STOP).code == 0 and containers(host) == "")

    def said(self, process: subprocess.Popen[str]) -> str:
        """The command's next line."""
        assert process.stdout is not None
        return process.stdout.readline()

    def test_an_edit_made_meanwhile_is_not_lost(self, host: NsHost, project: Path) -> None:
        with self.begun(host, project, "echo theirs > train.sh; echo up; until [ -e stop ]; do sleep 0.1; done") as process:
            assert self.said(process) == "up\n"
            (project / "train.sh").write_text("mine\n")
            host.run(STOP)
            assert process.wait(LONG) == 0
        assert (project / "train.sh").read_text() == "mine\n"
        assert (project / f"train.sh.from-{host.address}").read_text() == "theirs\n"

    def test_a_signal_goes_there_and_the_results_come_back_all_the_same(self, host: NsHost, project: Path) -> None:
        with self.begun(host, project, "trap 'echo caught > result; exit 4' INT; echo up; while :; do sleep 0.1; done") as process:
            assert self.said(process) == "up\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(LONG) == 4
        assert (project / "result").read_text() == "caught\n"

    def test_killed_here_it_is_gone_there(self, host: NsHost, project: Path) -> None:
        with self.begun(host, project, "echo up; exec sleep 600") as process:
            assert self.said(process) == "up\n"
            assert "Up" in containers(host)
            process.kill()
            until("the container there is gone", lambda: containers(host) == "")

    def test_a_connection_that_breaks_leaves_it_running_and_the_next_run_fetches(self, host: NsHost, project: Path) -> None:
        with self.begun(host, project, "echo up; until [ -e stop ]; do sleep 0.1; done; echo late > result") as process:
            assert self.said(process) == "up\n"
            # The host's end of the connection, as a network that goes away would take it.
            host.run("pkill -KILL -u admin -x sshd-session; pkill -KILL -u admin -x sshd", user="root", check=False)
            _, said = process.communicate(timeout=LONG)
            assert process.returncode == 4, said
            assert "goes on there" in said
            assert "Up" in containers(host)
        ran = self.there(host, project, "small", "true")
        assert ran.code == 0, str(ran)
        assert (project / "result").read_text() == "late\n"

    def test_no_secret_is_in_any_command_line_on_either_side(self, host: NsHost, project: Path) -> None:
        (project.parent / "env").write_text("FILE_KEY=in-file-s3cret\n")
        options = ("-e", "NAMED", "--env-file", str(project.parent / "env"))
        with self.begun(host, project, "echo $NAMED $FILE_KEY; until [ -e stop ]; do sleep 0.1; done", *options, NAMED="by-name-s3cret") as process:
            assert self.said(process) == "by-name-s3cret in-file-s3cret\n"
            there = host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", user="root", check=False).out
            here = "".join(command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
            host.run(STOP)
            assert process.wait(LONG) == 0
        assert "NAMED" in here
        assert "--env-file" in there
        assert "s3cret" not in there + here
        assert host.run("ls .cache/mlhost/run/env").out == ""

    def test_gpus_are_checked_there(self, host: NsHost, project: Path) -> None:
        refused = self.there(host, project, "--gpus", "device=7", "small", "true")
        assert refused.code == 2, str(refused)
        assert UUIDS[0] in refused.err

    def test_a_host_that_does_not_answer_is_exit_code_4(self, host: NsHost, project: Path) -> None:
        done = subprocess.run([sys.executable, "-m", "provision", "run", "--host", f"admin@{host.address}:9", "-F", "none", "small", "true"], cwd=project,
                              env={**environment(), "PYTHONPATH": str(CHECKOUT)}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 4, done.stderr
        assert "ssh" in done.stderr

    def test_an_unknown_host_key_is_refused(self, host: NsHost, project: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("")
        done = subprocess.run([sys.executable, "-m", "provision", "run", "--host", f"admin@{host.address}", "-F", "none", "--identity", str(lab_keys().client),
                               "--known-hosts", str(tmp_path / "empty"), "small", "true"], cwd=project, env={**environment(), "PYTHONPATH": str(CHECKOUT)},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 4, done.stderr
        assert "accept-new" in done.stderr
