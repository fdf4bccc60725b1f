"""`sudo python3 -m tests`: everything the tests need, then all of them: the fast ones first, then namespace hosts and virtual machines side by side.

`--fast` runs those alone; other arguments go to pytest.

As root the Debian packages of tests/packages.txt and tests/lab/packages.txt are installed; otherwise what is missing is named and its tests skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FAST = "not vm and not host and not slow"
# Hosts, emulated machines and real daemons share two cores for half an hour: what fails is tried once more, alone in its place, and is then named
# as RERUN in the summary, so that it is seen. What fails twice fails.
AGAIN = ("--reruns", "1", "--reruns-delay", "5", "-raR")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def packages() -> list[str]:
    """The Debian packages the tests use, from the two lists."""
    names: list[str] = []
    for file in (ROOT / "tests/packages.txt", ROOT / "tests/lab/packages.txt"):
        lines = file.read_text().splitlines() if file.exists() else []
        names += [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    return list(dict.fromkeys(names))


def installed(name: str) -> bool:
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "installed"


def install() -> None:
    """Install the missing packages; a name the archive does not have is reported and its tests skip. Services are not started."""
    try:
        wanted = [name for name in packages() if not installed(name)]
    except FileNotFoundError:
        print("tests: this is no Debian system; tests that need its packages skip", file=sys.stderr)
        return
    if not wanted:
        return
    if os.geteuid() != 0:
        print("tests: not root, so these are missing and their tests skip: " + " ".join(wanted), file=sys.stderr)
        return
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1", NEEDRESTART_SUSPEND="1")
    base = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    subprocess.run([*base, "update"], env=env, check=False, stdout=subprocess.DEVNULL)
    if subprocess.run(
        [*base, "install", "--no-install-recommends", *wanted], env=env, check=False, stdout=subprocess.DEVNULL
    ).returncode:
        for name in wanted:
            if subprocess.run(
                [*base, "install", "--no-install-recommends", name], env=env, check=False, stdout=subprocess.DEVNULL
            ).returncode:
                print(f"tests: {name} cannot be installed here; its tests skip", file=sys.stderr)


def lanes(python: str, arguments: list[str]) -> list[list[list[str]]]:
    """The calls of pytest, those of one group side by side. The fast tests wait as much as they compute, so they have two workers for each core;
    after them virtual machines, which are emulated and each keep one core busy, go beside hosts made of namespaces."""
    if arguments and arguments[0] != "--fast":
        return [[[python, "-m", "pytest", *arguments]]]
    pytest = [python, "-m", "pytest", *AGAIN]
    fast = [*pytest, "-m", FAST, "-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal", *arguments[1:]]
    slow = [[*pytest, "-m", marks] for marks in (f"not vm and not ({FAST})", "vm")]
    return [[fast]] if arguments else [[fast], slow]


def run(commands: list[list[str]], environment: dict[str, str]) -> int:
    """Run commands side by side: the first speaks as it goes, the others once they have ended. 0, or the exit code of one that failed."""
    quiet = []
    for command in commands[1:]:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - read when the command has ended
        quiet.append((command, said, subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)))
    print("== " + " ".join(commands[0][2:]), flush=True)
    status = subprocess.run(commands[0], env=environment, check=False).returncode
    for command, said, process in quiet:
        status = process.wait() or status
        said.seek(0)
        print("== " + " ".join(command[2:]), said.read().decode(errors="replace"), sep="\n", flush=True)
    return status


def main() -> int:
    install()
    from provision import bootstrap

    python = str(bootstrap.prepare("test"))
    os.chdir(ROOT)
    environment = dict(os.environ, PATH=f"{Path(python).parent}:{os.environ.get('PATH', '')}")
    # A thousand programs import the same modules: they are compiled once, by whichever comes first.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    status = 0
    calls = lanes(python, sys.argv[1:])
    # While mypy keeps one core busy, pytest rewrites and compiles the tests, which each of its workers would else do for itself.
    compiled = [[python, "-m", "pytest", "--collect-only", "-qqq"]] if "-n" in calls[0][0] else []
    for group in ([[python, "-m", "ruff", "check", "."]], [[python, "-m", "mypy"], *compiled], *calls):
        status = run(group, environment) or status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
