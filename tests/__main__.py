"""`sudo python3 -m tests`: everything the tests need, then all of them, the fast ones first and side by side.

`--fast` runs those alone; other arguments go to pytest.

As root the Debian packages of tests/packages.txt and tests/lab/packages.txt are installed; otherwise what is missing is named and its tests skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FAST = "not vm and not host and not slow"
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


def pytests(python: str, arguments: list[str]) -> list[list[str]]:
    """The calls of pytest. The fast tests wait more than they compute, so they have two workers for each core; hosts and machines go one by one."""
    if arguments and arguments[0] != "--fast":
        return [[python, "-m", "pytest", *arguments]]
    fast = [python, "-m", "pytest", "-m", FAST, "-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal", *arguments[1:]]
    return [fast] if arguments else [fast, [python, "-m", "pytest", "-m", f"not ({FAST})"]]


def main() -> int:
    install()
    from provision import bootstrap

    python = str(bootstrap.prepare("test"))
    os.chdir(ROOT)
    environment = dict(os.environ, PATH=f"{Path(python).parent}:{os.environ.get('PATH', '')}")
    status = 0
    for command in ([python, "-m", "ruff", "check", "."], [python, "-m", "mypy"], *pytests(python, sys.argv[1:])):
        print("== " + " ".join(command[2:]), flush=True)
        status = subprocess.run(command, env=environment, check=False).returncode or status
    return status


if __name__ == "__main__":
    raise SystemExit(main())
