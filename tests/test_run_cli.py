"""`mlhost run` from its command line: what is printed, what is refused, and what it costs to start. Docker is a double on the PATH, or is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provision.cli import COMMANDS
from tests.program import CHECKOUT, Ran

Call = Callable[..., Ran]

# A double: knows one image, says what it was called with, and ends as it is told to.
DOCKER = """#!/bin/sh
case "$1" in
info) echo '{"ServerVersion": "29.7.2", "Runtimes": {"runc": {}}, "MemTotal": 8589934592, "InitCommit": {"ID": "de40ad0"}, "Architecture": "x86_64"}' ;;
image) [ "$6" = missing ] && exit 1; echo '{"Id": "sha256:abcd", "Config": {"Env": ["PATH=/bin"]}}' ;;
create) echo made ;;
cp) exit 1 ;;
run) for word in "$@"; do printf '[%s]\\n' "$word"; done; env | grep '^KEY=' ; exit "${DOUBLE_EXIT:-0}" ;;
pull) echo "no such image" >&2; exit 1 ;;
*) exit 0 ;;
esac
"""


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Programs of this machine without nvidia-smi, and docker's double."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    return folder


@pytest.fixture
def call(tmp_path: Path, bin_folder: Path) -> Call:
    project = tmp_path / "proj"
    project.mkdir()
    (project / "data").mkdir()

    def run(*words: str, docker: bool = True, cwd: Path = project, **environ: str) -> Ran:
        env = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SUDO_UID", "SUDO_GID", "SUDO_USER")}
        env.update(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config"), PYTHONPATH=str(CHECKOUT), **environ)
        env["PATH"] = f"{bin_folder}:/usr/bin:/bin" if docker else "/nowhere"
        # no sh on that PATH either, so that one is linked in
        if not docker:
            env["PATH"] = str(bare(tmp_path))
        done = subprocess.run([sys.executable, "-c", "from provision.cli import entrypoint; entrypoint()", "run", *words], cwd=cwd, env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def bare(folder: Path) -> Path:
    """The few programs that every machine has."""
    made = folder / "bare"
    if not made.exists():
        made.mkdir()
        for name in ("sh", "id", "uname", "mktemp", "rm", "cat", "grep", "cut", "getent"):
            for place in ("/usr/bin", "/bin"):
                if Path(place, name).exists():
                    (made / name).symlink_to(Path(place, name))
                    break
    return made


class TestWhatIsPrinted:
    def test_a_dry_run_prints_the_docker_command_and_runs_nothing(self, call: Call, tmp_path: Path) -> None:
        ran = call("--dry-run", "img", "python", "train.py", str(tmp_path / "proj/data"))
        assert ran.code == 0, str(ran)
        assert ran.out.startswith("docker run --rm")
        assert f"/host{tmp_path}/proj/data" in ran.out
        assert not (tmp_path / ".cache/mlhost/run").exists()

    def test_it_does_so_without_a_docker_and_says_that_it_guesses(self, call: Call) -> None:
        ran = call("--dry-run", "img", "true", docker=False)
        assert ran.code == 0, str(ran)
        assert ran.out.startswith("docker run --rm")
        assert "not installed" in ran.err

    def test_explained_every_part_has_its_reason(self, call: Call) -> None:
        ran = call("--explain", "img", "true")
        assert ran.code == 0, str(ran)
        assert "#     the container is removed when the command has ended" in ran.out
        assert subprocess.run(["sh", "-n"], input=ran.out, text=True, check=False).returncode == 0

    def test_the_alias_is_a_line_for_the_shell(self, call: Call) -> None:
        ran = call("--alias")
        script = f'{ran.out}\nmlhost() {{ echo "mlhost $*"; }}\ndockrun img x\n'
        assert subprocess.run(["sh", "-c", f"eval '{ran.out.strip().replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'; alias dockrun"], capture_output=True, text=True, check=True).stdout
        done = subprocess.run(["bash", "-O", "expand_aliases", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "mlhost run img x\n"


@pytest.mark.slow  # each starts Python several times
class TestWhatIsRun:
    def test_the_exit_code_is_the_commands(self, call: Call) -> None:
        for code in (0, 3, 42):
            assert call("img", "x", DOUBLE_EXIT=str(code)).code == code

    def test_words_after_the_image_are_the_commands(self, call: Call) -> None:
        ran = call("img", "python", "--tree", "-v", "--help", "--", "-x", "a b", "")
        assert ran.out.splitlines()[-9:] == ["[img]", "[python]", "[--tree]", "[-v]", "[--help]", "[--]", "[-x]", "[a b]", "[]"]

    def test_a_value_goes_by_the_environment_and_not_by_argv(self, call: Call) -> None:
        ran = call("-e", "KEY=s3cret", "img")
        assert "[KEY]" in ran.out
        assert "KEY=s3cret" in ran.out.splitlines()
        assert "[KEY=s3cret]" not in ran.out
        assert "--env-file" in ran.err

    def test_quietly_it_says_nothing_itself(self, call: Call) -> None:
        assert call("-q", "-e", "NOT_THERE", "img").err == ""


@pytest.mark.slow  # each starts Python several times
class TestDefaults:
    def test_the_users_file_says_what_is_mounted(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "config/mlhost").mkdir(parents=True)
        (tmp_path / "config/mlhost/run.toml").write_text('mount = "tree"\nshm_size = "1g"\n')
        ran = call("--dry-run", "img")
        assert f"source={tmp_path}/proj,target=/host{tmp_path}/proj" in ran.out
        assert "--shm-size 1g" in ran.out
        assert "source=/,target=/host" in call("--dry-run", "--whole-host", "img").out

    def test_a_playbook_says_it(self, call: Call, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("run: {mount: tree, volumes: ['/data:ro']}\n")
        ran = call("--dry-run", "-p", str(tmp_path / "mine.yaml"), "img", "x", "/data/faces")
        assert ran.code == 0, str(ran)
        assert "source=/data,target=/host/data,readonly" in ran.out
        assert "source=/,target=/host" not in ran.out

    @pytest.mark.parametrize("text", ["mount = tree\n", "nope = 1\n", 'mount = "all"\n', "\xff"])
    def test_a_file_that_is_wrong_is_refused_by_name(self, call: Call, tmp_path: Path, text: str) -> None:
        (tmp_path / "config/mlhost").mkdir(parents=True)
        (tmp_path / "config/mlhost/run.toml").write_bytes(text.encode("latin-1"))
        ran = call("img")
        assert ran.code == 2, str(ran)
        assert "run.toml" in ran.err


REFUSED = {
    "no image": ((), "Which image"),
    "an option behind the image's place": (("--nope", "img"), "--nope"),
    "a blank in the image": (("a b",), "no image"),
    "a volume that is none": (("-v", "data", "img"), "HOST[:CONTAINER]"),
    "a variable that is none": (("-e", "1=x", "img"), "no name"),
    "an env file that is not there": (("--env-file", "/nope/env", "img"), "/nope/env"),
    "a GPU where there is none": (("--gpus", "all", "img"), "no NVIDIA GPU"),
    "shared memory in words": (("--shm-size", "much", "img"), "no size"),
}


@pytest.mark.slow  # each starts Python several times
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_usage_is_exit_code_2_with_a_remedy(call: Call, case: str) -> None:
    words, expected = REFUSED[case]
    ran = call(*words)
    assert ran.code == 2, str(ran)
    assert expected in ran.err
    assert "Traceback" not in ran.err


def test_without_docker_the_remedy_is_setup(call: Call) -> None:
    ran = call("img", "true", docker=False)
    assert ran.code == 1, str(ran)
    assert "mlhost setup" in ran.err


def test_an_image_that_cannot_be_pulled_is_told_in_dockers_words(call: Call) -> None:
    ran = call("missing", "true")
    assert ran.code == 1, str(ran)
    assert "no such image" in ran.err


def test_an_engine_on_another_machine_is_refused(call: Call) -> None:
    ran = call("img", "true", DOCKER_HOST="ssh://ada@gpu-7")
    assert ran.code == 2, str(ran)
    assert "--host" in ran.err


def test_starting_imports_none_of_the_machinery(call: Call) -> None:
    program = (
        "import sys\nfrom provision.cli import main\n"
        "code = main(['run', '--dry-run', 'img', 'true'])\n"
        "heavy = {'paramiko', 'fabric', 'jinja2', 'yaml', 'requests', 'rich', 'provision.catalog', 'provision.plan', 'provision.playbook', 'provision.doctor'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow  # each starts Python several times
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    """click's own protocol: what the line's shell function asks, and what comes back (click.palletsprojects.com, Shell Completion)."""
    env = {**os.environ, "_MLHOST_COMPLETE": f"{shell}_complete", "COMP_WORDS": "mlhost run --dr", "COMP_CWORD": "2" if shell != "fish" else "--dr"}
    program = "from provision.cli import entrypoint; entrypoint()"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert "--dry-run" in done.stdout, done.stderr
    assert "run" in COMMANDS
