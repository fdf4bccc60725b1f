"""The .run installer on a host: fetched, compared, run, taken back. The installer is a double; its form (sh and an archive in one file) is makeself's.

What is real: three shells, the download over http, the checksum, the unpacking. No driver, no module, no GPU.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision import actions, render
from provision.shtext import RenderError
from tests import back
from tests.test_render import STUBS, Host, host, script
from tests.test_rollback_render import looked

pytestmark = pytest.mark.slow

__all__ = ["host"]  # the fixture
VERSION = "470.256.02"
HEADER = """#!/bin/sh
# A double of NVIDIA's .run file for tests: it unpacks what follows it, as makeself's files do, and runs it.
folder=$(mktemp -d "${{TMPDIR:-/tmp}}/double.XXXXXX") || exit 1
tail -n +{skip} "$0" | tar -xzf - -C "$folder" && cd "$folder" && ./nvidia-installer "$@"
rc=$?
rm -rf "$folder"
exit $rc
"""
INSTALLER = f"""#!/bin/sh
# A double of nvidia-installer for tests. It puts its uninstaller and the module's version where the real one's would be found.
{{ printf '%s\\n' "$@"; [ -z "${{CC:-}}" ] || printf 'CC=%s\\n' "$CC"; printf 'folder %s\\n' "$(stat -c %a "$TMPDIR")"; }} >"$STUB/installer.ran"
mkdir -p "$MLHOST_ROOT/var/log" "$MLHOST_ROOT/usr/bin"
if [ -e "$STUB/installer.fails" ]; then
    printf 'nvidia-installer log file\\nERROR: Unable to find the development tool `cc` in your path\\nERROR: Installation has failed.\\n' \\
        >"$MLHOST_ROOT/var/log/nvidia-installer.log"
    exit 1
fi
printf '%s\\n' {VERSION} >"$STUB/nvidia.version"
printf '#!/bin/sh\\n# a double\\nrm -f "$STUB/nvidia.version" "$0"\\n' >"$MLHOST_ROOT/usr/bin/nvidia-uninstall"
chmod 755 "$MLHOST_ROOT/usr/bin/nvidia-uninstall"
"""


def run_file() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo("nvidia-installer")
        member.size, member.mode = len(INSTALLER), 0o755
        archive.addfile(member, io.BytesIO(INSTALLER.encode()))
    header = HEADER.format(skip=HEADER.count("\n") + 1)
    return header.encode() + data.getvalue()


FILE = run_file()


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine, and what it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = {"/driver.run": FILE, "/other.run": b"#!/bin/sh\ntouch \"$STUB/installer.ran\"\n"}.get(self.path)
            late = self.path == "/late.run" and asked.count(self.path) > 1
            body = FILE if late else body
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def action(site: tuple[str, list[str]], name: str = "driver.run", *options: str) -> actions.Runfile:
    return actions.Runfile(VERSION, f"{site[0]}/{name}", hashlib.sha256(FILE).hexdigest(), options)


def ran(host: Host) -> list[str]:
    file = host.stub / "installer.ran"
    return file.read_text().splitlines() if file.exists() else []


def left_behind(host: Host) -> list[str]:
    return [str(path) for path in host.root.rglob("*.run")]


def test_the_installer_is_fetched_compared_and_run_and_a_second_run_does_nothing(host, site):
    wanted = action(site, "driver.run", "--kernel-module-type=open", "--no-install-compat32-libs")
    assert host.run(script(wanted)) == 0, host.log
    assert host.states() == ["changed"]
    assert ran(host) == ["--silent", "--no-opengl-files", "--kernel-module-type=open", "--no-install-compat32-libs", "folder 700"]
    assert left_behind(host) == []
    assert f"runfile\t{VERSION}" in host.read("/var/lib/mlhost/receipts")
    (host.stub / "installer.ran").unlink()
    assert host.run(script(wanted)) == 0
    assert host.states() == ["ok"]
    assert ran(host) == []


def test_dkms_and_another_compiler_are_asked_for_only_where_the_system_has_them(host, site):
    assert host.run(script(action(site, "driver.run", "--dkms"))) == 0, host.log
    assert ran(host) == ["--silent", "--no-opengl-files", "--dkms", "folder 700"]
    (host.stub / "nvidia.version").unlink()
    assert host.run(script(replace(action(site), cc="/usr/bin/gcc10-cc"))) == 0, host.log
    assert ran(host) == ["--silent", "--no-opengl-files", "CC=/usr/bin/gcc10-cc", "folder 700"]
    with pytest.raises(RenderError, match="not the path of a compiler"):
        script(replace(action(site), cc="gcc10-cc; reboot"))


def test_another_file_than_the_pinned_one_is_refused_and_nothing_of_it_runs(host, site):
    assert host.run(script(action(site, "other.run"))) == 1
    assert ran(host) == []
    assert left_behind(host) == []
    assert "nothing of it was run" in host.detail()
    assert hashlib.sha256(FILE).hexdigest() in host.detail()


def test_a_download_that_fails_once_is_tried_again(host, site):
    site[1].clear()
    assert host.run(script(action(site, "late.run"))) == 0, host.log
    assert site[1] == ["/late.run"] * 2


def test_a_download_that_keeps_failing_is_given_up_and_says_what_the_server_said(host, site):
    site[1].clear()
    assert host.run(script(action(site, "gone.run"))) == 1
    assert site[1] == ["/gone.run"] * 3
    assert "cannot fetch" in host.detail()
    assert "503" in host.detail()
    assert ran(host) == []


def test_a_failed_installation_says_the_installers_own_first_complaint(host, site):
    host.knows("installer.fails")
    assert host.run(script(action(site))) == 1
    assert "Unable to find the development tool `cc` in your path" in host.detail()
    assert "nvidia-installer.log" in host.detail()
    assert "Installation has failed" in host.log, "the end of its log is in ours"
    assert not (host.root / "var/lib/mlhost/receipts").exists() or "runfile" not in host.read("/var/lib/mlhost/receipts")


def test_nouveau_goes_first_and_where_it_is_in_use_a_reboot_is_asked_for_before_anything_is_fetched(host, site):
    (host.root / "sys/module/nouveau").mkdir(parents=True)
    host.knows("modprobe.nouveau", "modprobe: FATAL: Module nouveau is in use.\n")
    site[1].clear()
    assert host.run(script(action(site))) == render.REBOOT_NEEDED
    assert "nouveau" in host.detail()
    assert site[1] == []
    (host.stub / "modprobe.nouveau").unlink()
    assert host.run(script(action(site))) == 0, host.log
    assert not host.has("/sys/module/nouveau")


def test_a_rollback_uninstalls_what_mlhost_installed_and_nothing_else(host, site):
    assert host.run(script(action(site))) == 0, host.log
    (host.root / "sys/module/nvidia").mkdir(parents=True)
    taken = back.script(back.way_back(looked(host)))
    assert host.run(taken) == 0, host.log
    assert not host.has("/usr/bin/nvidia-uninstall")
    assert any("until the next reboot" in event.detail for event in host.events), "containers may be using it"
    assert host.run(taken) == 0
    # somebody's own: there is no receipt for it
    host.write("/usr/bin/nvidia-uninstall", "#!/bin/sh\nexit 1\n", 0o755)
    host.knows("nvidia.version", f"{VERSION}\n")
    assert back.way_back(looked(host)).items == ()
    assert host.has("/usr/bin/nvidia-uninstall")


def test_a_machine_without_curl_uses_wget(tmp_path: Path, site):
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("the program busybox is missing")
    applets = tmp_path / "applets"
    applets.mkdir()
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (applets / name).symlink_to(program)
    (tmp_path / "root").mkdir()
    (tmp_path / "stub").mkdir()
    found = Host(tmp_path, [program, "sh"], f"{STUBS}:{applets}")
    assert found.run(script(action(site))) == 0, found.log
    assert ran(found)[:2] == ["--silent", "--no-opengl-files"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "470.256.02; id"},
        {"sha256": "d645"},
        {"url": "file:///etc/passwd"},
        {"url": "https://a.example/x y"},
        {"options": ("--silent; id",)},
        {"options": ("-x",)},
    ],
    ids=str,
)
def test_values_that_no_installer_has_make_no_script(wrong):
    right = {"version": VERSION, "url": "https://a.example/x.run", "sha256": "0" * 64, "options": ()}
    with pytest.raises(RenderError):
        script(actions.Runfile(**{**right, **wrong}))
