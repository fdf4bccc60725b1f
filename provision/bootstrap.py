"""From a checkout on a fresh machine to a running mlhost: a private virtual environment with what pyproject.toml names. Standard library only.

A fresh Debian has python3, but neither pip nor the venv module, and forbids installing into its own Python (PEP 668). As root mlhost adds
the distribution's venv package; otherwise it says which one. Nothing is put outside the environment's folder.

Every start from a checkout comes through here, nearly all without anything to do; what only the first needs is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from provision.single import local_only

CHECKOUT = Path(__file__).resolve().parent.parent
IMPORTS = (
    "click",
    "distro",
    "fabric",
    "jinja2",
    "paramiko",
    "requests",
    "rich",
    "yaml",
    *(("tomli",) if sys.version_info < (3, 11) else ()),
)


def missing() -> tuple[str, ...]:
    """The modules mlhost always needs that this Python does not have. The single file has those it can use."""
    if local_only():
        return ()
    return tuple(name for name in IMPORTS if importlib.util.find_spec(name) is None)


def home() -> Path:
    """Where mlhost keeps its own environment: `$MLHOST_HOME`, for root /var/lib/mlhost, else the user's data folder."""
    if os.environ.get("MLHOST_HOME"):
        return Path(os.environ["MLHOST_HOME"])
    if os.geteuid() == 0:
        return Path("/var/lib/mlhost")
    return Path(os.environ.get("XDG_DATA_HOME", str(Path.home() / ".local/share"))) / "mlhost"


def environment(extras: str = "") -> Path:
    """The environment's folder for this checkout's pyproject.toml, this Python and these extras: another one, another folder."""
    import hashlib

    text = (CHECKOUT / "pyproject.toml").read_bytes() + sys.version.encode() + extras.encode()
    return home() / "venv" / hashlib.sha256(text).hexdigest()[:12]


def _say(text: str) -> None:
    sys.stderr.write(f"mlhost: {text}\n")


def _run(*command: str) -> None:
    import subprocess

    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", PIP_DISABLE_PIP_VERSION_CHECK="1")
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace")[-3000:])
        raise SystemExit(f"mlhost: `{' '.join(command)}` failed (exit code {done.returncode}); its last words are above.")


def _venv_module() -> None:
    """Make `python3 -m venv` work: Debian and Ubuntu keep it in a package of its own."""
    import shutil
    import subprocess

    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = f"python3.{sys.version_info[1]}-venv"
    apt = shutil.which("apt-get")
    if not apt:
        raise SystemExit(
            f"mlhost: this Python has no venv module ({package} or the like), which mlhost needs for its own environment. Install it and run this again."
        )
    if os.geteuid() != 0:
        raise SystemExit(
            f"mlhost: this Python has no venv module. Run `sudo apt-get install {package}`, then this again (or run this with sudo)."
        )
    _say(f"adding {package}, which mlhost's own environment needs")
    lock = ("-o", "DPkg::Lock::Timeout=600")
    if subprocess.run(
        [apt, "install", "-y", "-q", "--no-install-recommends", *lock, package],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode:
        _run(apt, "update", "-q")
        _run(apt, "install", "-y", "-q", "--no-install-recommends", *lock, package)


def prepare(extras: str = "") -> Path:
    """Make the environment (once) and return its python. `extras` are optional dependency groups of pyproject.toml, comma separated."""
    import shutil

    folder = environment(extras)
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    _venv_module()
    _say(f"making its own Python environment in {folder} (once)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "--editable", f"{CHECKOUT}{'[' + extras + ']' if extras else ''}")
    (folder / "ready").write_text("")
    return python


def rerun(extras: str = "") -> None:
    """Start the same command again with the environment's python."""
    python = prepare(extras)
    env = dict(os.environ, MLHOST_BOOTSTRAPPED="1")
    os.execve(str(python), [str(python), "-m", "provision", *sys.argv[1:]], env)  # noqa: S606
