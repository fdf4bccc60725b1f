"""A local user without rights, against mlhost at work as root on the same machine: a real user id in a mount namespace of its own.

Reads what root leaves behind, puts links, pipes and folders where root is about to write, and looks at the arguments of everything that runs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from provision import actions, journal, reach, render
from provision.spec import Proxy
from provision.transport.shell import call
from tests.sshd import can_have_a_world, needs
from tests.test_render import plan

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_have_a_world(), reason="needs root and private mount namespaces")]

SECRET = "s3cret-of-the-proxy"
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --"
WORLD = """
set -e
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /etc
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /home
mkdir /home/eve /home/eve/app && chown -R 65534:65534 /home/eve
printf 'root:x:0:0:root:/root:/bin/sh\\neve:x:65534:65534::/home/eve:/bin/sh\\n' >/etc/passwd
printf 'root:x:0:\\neve:x:65534:\\n' >/etc/group
printf 'of root\\n' >/etc/secret && chmod 600 /etc/secret
"""


def world(text: str, *, shell: str = "sh", share: Path) -> subprocess.CompletedProcess[str]:
    """Run shell text as root in a private world, with `share` at the same place in it (its /tmp is empty)."""
    needs("setpriv", "util-linux")
    kept = shlex.quote(str(share))
    head = f"set -e; exec 9<{kept}\n{WORLD}mkdir -p {kept}; mount --bind /proc/self/fd/9 {kept}; exec 9<&-; set +e\n"
    return subprocess.run(
        [needs("unshare", "util-linux"), "--mount", "--propagation", "private", *shell.split(), "-c", head + text], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def share() -> Iterator[Path]:
    """A folder that is not under /tmp, which is a fresh one in the world."""
    folder = Path("/var/tmp") / f"mlhost-users-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def stage(share: Path, *wanted: actions.Action) -> str:
    path = share / "stage.sh"
    path.write_text(render.stage(plan(*wanted), run_id="run-1", proxy=f"http://ada:{SECRET}@proxy.lan:3128"))
    path.chmod(0o600)
    return str(path)


PROXY_FILE = actions.File("/etc/mlhost/proxy.env", f"HTTP_PROXY=http://ada:{SECRET}@proxy.lan:3128\n", "0600")


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_what_a_run_leaves_behind_only_root_can_read(shell: str, share: Path) -> None:
    needs(shell.split(maxsplit=1)[0])
    changed = replace(PROXY_FILE, content=f"HTTP_PROXY=http://ada:{SECRET}-2@proxy.lan:3128\n")
    first = stage(share, PROXY_FILE)
    (share / "second.sh").write_text(render.stage(plan(changed), run_id="run-2"))
    done = world(
        f"umask 022; {shell} {first} && {shell} {share}/second.sh\n"
        f"echo FOUND; grep -rl {SECRET} /var/lib/mlhost /etc /run /tmp\n"
        f"echo NOBODY; {NOBODY} grep -rs {SECRET} /var/lib/mlhost /etc /run /tmp\n"
        f"echo READABLE; {NOBODY} find /var/lib/mlhost -type f -readable 2>/dev/null; {NOBODY} find /var/lib/mlhost /etc/mlhost -writable 2>/dev/null\n"
        f"echo RECEIPTS; stat -c %a /var/lib/mlhost/receipts\n",
        share=share,
    )
    sections = done.stdout.split("FOUND\n")[1]
    found, _, rest = sections.partition("NOBODY\n")
    assert "/var/lib/mlhost/backup/run-2/etc/mlhost/proxy.env" in found, done.stdout + done.stderr
    seen, _, rest = rest.partition("READABLE\n")
    assert seen == ""
    readable, _, modes = rest.partition("RECEIPTS\n")
    assert readable == ""
    assert modes == "600\n"


@pytest.mark.parametrize("what", ["mkdir -m 755 /var/lib/mlhost && chown 65534 /var/lib/mlhost", "ln -s /etc /var/lib/mlhost", "mkfifo /var/lib/mlhost", "mkdir -m 777 /var/lib/mlhost", "mkdir /var/lib/mlhost && chmod 775 /var/lib/mlhost"])
@pytest.mark.parametrize("way", ["by hand", "journal"])
def test_a_state_folder_that_is_not_roots_alone_is_refused(what: str, way: str, share: Path) -> None:
    script = stage(share, PROXY_FILE)
    if way == "journal":
        text = journal.launch(render.Sh(Path(script).read_text()), run_id="run-1", owner="ada@laptop")
        (share / "launch.sh").write_text(text)
        script = str(share / "launch.sh")
    done = world(f"{what}\nMLHOST_NO_SYSTEMD=1 sh {script}; echo RC=$?; ls /etc/mlhost; ls -A /etc\nstat -c '%u %a' /var/lib/mlhost", share=share)
    if way == "journal" and what.startswith("mkdir") and "chown" not in what:
        # root's own folder with a mode too wide is put right
        assert "0 755" in done.stdout, done.stdout + done.stderr
        return
    assert "RC=1" in done.stdout, done.stdout + done.stderr
    assert "mlhost" not in done.stdout.split("RC=1")[1].replace("/var/lib/mlhost", "").split("\n")[0]
    assert "/var/lib/mlhost" in done.stdout + done.stderr
    assert "runs" not in done.stdout.split("RC=1")[1]


def test_another_users_link_is_replaced_and_not_followed(share: Path) -> None:
    """A step of somebody's own writes into a user's folder, where the user has put links to root's files."""
    script = stage(share, actions.File("/home/eve/app/config", "wanted\n"), actions.File("/home/eve/app/other", "wanted\n"))
    done = world(
        f"{NOBODY} ln -s /etc/secret /home/eve/app/config; ln /etc/secret /home/eve/app/other 2>/dev/null || cp /etc/secret /home/eve/app/other\n"
        f"sh {script}; echo RC=$?; cat /etc/secret; cat /home/eve/app/config /home/eve/app/other; stat -c %F /home/eve/app/config\n",
        share=share,
    )
    assert "RC=0" in done.stdout, done.stdout + done.stderr
    assert done.stdout.split("RC=0\n")[1] == "of root\nwanted\nwanted\nregular file\n"


@pytest.mark.parametrize("what", [actions.File("/home/eve/app/pipe", "wanted\n"), actions.File("/home/eve/app/pipe", None), actions.JsonMerge("/home/eve/app/pipe", "", "{}\n"), actions.JsonMerge("/home/eve/app/pipe", "0" * 64, "{}\n")])
def test_a_pipe_in_a_files_place_is_an_error_and_no_wait_for_ever(what: actions.Action, share: Path) -> None:
    script = stage(share, what)
    done = world(f"{NOBODY} mkfifo /home/eve/app/pipe; sh {script}; echo RC=$?; stat -c %F /home/eve/app/pipe", share=share)
    assert done.stdout.endswith("RC=1\nfifo\n"), done.stdout + done.stderr
    assert "is no ordinary file" in done.stdout + done.stderr


def test_roots_own_link_is_followed_as_before(share: Path) -> None:
    script = stage(share, actions.File("/etc/link", "wanted\n"))
    done = world(f"ln -s secret /etc/link; sh {script}; echo RC=$?; cat /etc/secret; readlink /etc/link", share=share)
    assert done.stdout.endswith("RC=0\nwanted\nsecret\n"), done.stdout + done.stderr


def test_a_run_of_the_journal_shows_others_nothing(share: Path) -> None:
    run = render.stage(plan(PROXY_FILE), run_id="run-1")
    (share / "launch.sh").write_text(journal.launch(run, run_id="run-1", owner="ada@laptop"))
    done = world(
        f"umask 000; MLHOST_NO_SYSTEMD=1 sh {share}/launch.sh >/dev/null; echo ROOT; find /var/lib/mlhost -name script.sh -o -name log -o -name events\n"
        f"echo EVE; {NOBODY} find /var/lib/mlhost -type f -readable 2>/dev/null; {NOBODY} find /var/lib/mlhost -writable 2>/dev/null; stat -c %a /var/lib/mlhost/runs /etc/mlhost/proxy.env",
        share=share,
    )
    of_root, _, of_eve = done.stdout.partition("ROOT\n")[2].partition("EVE\n")
    assert of_root.count("/var/lib/mlhost/runs/run-1/") == 3, done.stdout + done.stderr
    assert of_eve == "700\n600\n"


WATCH = """
( while :; do for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done >>{out}/argv; done ) 2>/dev/null &
watcher=$!
"""


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_no_secret_is_among_the_arguments_of_anything_that_runs(shell: str, share: Path) -> None:
    """Every program that the scripts start is replaced by one that writes its arguments down, or is watched in /proc while it runs."""
    needs(shell.split(maxsplit=1)[0])
    stubs = share / "bin"
    stubs.mkdir()
    for name in ("apt-get", "curl", "wget", "docker", "systemctl", "dpkg-query", "getent", "timeout", "mktemp", "stat", "mv", "chmod", "chown", "sha256sum", "sync", "find", "sed", "cut", "grep", "base64", "sudo"):
        program = shutil.which(name)
        passes = f'exec {program} "$@"' if program and name not in ("apt-get", "docker", "systemctl", "sudo") else "exit 0"
        if name == "sudo":
            passes = 'while [ "${1#-}" != "$1" ]; do [ "$1" != -p ] || shift; shift; done; [ "$1" != sh ] || [ "$2" != -c ] || [ "$3" != : ] || { read -r x; exit 0; }; exec "$@"'
        (stubs / name).write_text(f'#!/bin/sh\nprintf \'%s\\n\' "$0 $*" >>{share}/called\n{passes}\n')
        (stubs / name).chmod(0o755)
    proxy = Proxy(http=f"http://ada:{SECRET}@127.0.0.1:1", no_proxy=("localhost",))
    (share / "reach.sh").write_text(reach.script((resources.files("provision") / "scripts" / "reach.sh").read_text(), proxy))
    framed = call(Path(stage(share, PROXY_FILE)).read_text(), (SECRET,), sudo=True, sudo_password=SECRET)
    (share / "called").touch()
    (share / "called").chmod(0o666)
    (share / "stdin").write_bytes(framed.stdin)
    (share / "framed.sh").write_text(framed.argv[2])
    assert SECRET not in " ".join(framed.argv)
    done = world(
        f"PATH={stubs}:$PATH; export PATH\n{WATCH.format(out=share)}"
        f"{shell} {share}/reach.sh m get http://a.lan/InRelease </dev/null >{share}/reached\n"
        f'{shell} {share}/framed.sh <{share}/stdin >{share}/ran 2>&1; echo RC=$?\n'
        f"{NOBODY} {shell} {share}/framed.sh <{share}/stdin >{share}/ran2 2>&1\n"
        "kill $watcher; wait $watcher 2>/dev/null\n",
        share=share,
    )
    called, argv = (share / "called").read_text(), (share / "argv").read_text(errors="replace")
    assert "RC=0" in done.stdout, done.stdout + done.stderr + (share / "ran").read_text()
    assert "sudo" in called, "the password's own way was taken"
    assert "mktemp" in called
    assert len(argv) > 1000
    assert SECRET not in called
    assert SECRET not in argv
    assert SECRET not in (share / "reached").read_text()


def test_the_helper_that_asks_for_sources_works_in_a_folder_of_its_own(share: Path) -> None:
    stubs = share / "bin"
    stubs.mkdir()
    (stubs / "curl").write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nstat -c "%a %u" "$(dirname "$2")" >{share}/mode; dirname "$2" >{share}/where\nexit 7\n')
    (stubs / "curl").chmod(0o755)
    text = (resources.files("provision") / "scripts" / "reach.sh").read_text().replace("/usr/lib/apt/apt-helper", "/nonexistent")
    (share / "reach.sh").write_text(text)
    done = world(f"umask 000; PATH={stubs}:$PATH sh {share}/reach.sh m head http://127.0.0.1:1/InRelease; ls -A /tmp", share=share)
    assert (share / "mode").read_text() == "700 0\n", done.stderr
    assert "tmp." not in done.stdout.split("end 0")[1], "nothing is left"


