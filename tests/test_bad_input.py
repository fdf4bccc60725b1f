"""What users get wrong, and hosts that are not as they should be: one paragraph with the remedy, the right exit code, nothing changed."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.lab.nshost import NsHost
from tests.program import CHECKOUT, Ran, environment, mlhost

CAPTURE = CHECKOUT / "tests/hosts/debian13-cloud/probe.txt"


def run(*words: str) -> Ran:
    """mlhost in a process of its own, with no terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "provision", *words],
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def said(ran: Ran) -> str:
    assert "Traceback" not in ran.out + ran.err, str(ran)
    return " ".join((ran.out + ran.err).split())


def state(host: NsHost) -> str:
    """What setup could change: files of the system by change time, packages, services, mlhost's own."""
    look = (
        "find /etc /usr/local /var/lib/mlhost /var/lib/dpkg/status -printf '%p %C@\\n' 2>/dev/null | grep -v 'mtab\\|/etc/\\.pwd.lock' | sort;"
        " systemctl list-units --no-legend --type=service --state=active --plain 2>/dev/null | awk '{print $1}' | grep -v 'ssh\\|user@\\|session\\|tmpfiles'"
    )
    return host.run(look, user="root", check=False).out


class TestBeforeAnyHostIsAsked:
    def test_yaml_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_text("docker: [unclosed\n")
        ran = run("plan", "-p", str(tmp_path / "p.yaml"), "--capture", str(CAPTURE))
        assert ran.code == 2, str(ran)
        assert "p.yaml:" in said(ran)

    def test_an_unknown_key_is_told_with_its_place_and_the_nearest_one(self, tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_text("docker:\n  verison: '29'\n")
        ran = run("setup", "-p", str(tmp_path / "p.yaml"), "nobody@nowhere.invalid")
        assert ran.code == 2, str(ran)
        assert "p.yaml:2" in said(ran)
        assert "version" in said(ran)

    def test_a_playbook_that_is_not_there(self) -> None:
        ran = run("plan", "-p", "./missing.yaml", "--capture", str(CAPTURE))
        assert ran.code == 2, str(ran)
        assert "missing.yaml" in said(ran)

    def test_a_truncated_probe_is_never_taken_for_an_empty_machine(self, tmp_path: Path) -> None:
        (tmp_path / "cut.txt").write_bytes(CAPTURE.read_bytes()[: CAPTURE.stat().st_size // 2])
        ran = run("plan", "--capture", str(tmp_path / "cut.txt"))
        assert ran.code == 1, str(ran)
        assert "cut short" in said(ran)

    def test_a_capture_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"\x00\xff not a capture")
        assert run("plan", "--capture", str(tmp_path / "x")).code == 1
        assert run("plan", "--capture", str(tmp_path / "absent")).code == 2

    def test_an_unsupported_system_is_named_with_what_is_supported(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text('ID=slackware\nVERSION_ID="15.0"\nPRETTY_NAME="Slackware 15.0"\n')
        ran = run("plan", "--root", str(tmp_path), "--format", "json")
        assert ran.code == 5, str(ran)
        plan = json.loads(ran.out)
        assert plan["problems"][0]["fix"]
        assert all(item["state"] == "refused" for item in plan["items"])


class TestTheWayToTheHost:
    def test_a_name_that_does_not_resolve(self) -> None:
        ran = run("setup", "admin@no-such-host.invalid", "-F", "none")
        assert ran.code == 4, str(ran)
        assert "no-such-host.invalid" in said(ran)

    def test_nothing_listens(self) -> None:
        ran = run("plan", "admin@127.0.0.1:1", "-F", "none")
        assert ran.code == 4, str(ran)
        assert "127.0.0.1:1" in said(ran)

    def test_a_key_that_cannot_be_read(self) -> None:
        ran = run("setup", "admin@127.0.0.1:1", "-F", "none", "--identity", "/nonexistent/key")
        assert ran.code == 2, str(ran)
        assert "/nonexistent/key" in said(ran)

    def test_a_target_that_is_an_option_in_disguise(self) -> None:
        ran = run("setup", "--", "-oProxyCommand=id")
        assert ran.code == 2, str(ran)


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    return fresh.host()


@pytest.mark.host
class TestAHostThatIsNotAsItShouldBe:
    """Each leaves the host exactly as it was."""

    def refused(self, host: NsHost, fresh: Fresh, *words: str, user: str = "admin") -> Ran:
        before = state(host)
        ran = mlhost("setup", host, "--yes", *words, user=user, settings=fresh.settings())
        assert state(host) == before, str(ran)
        return ran

    def test_an_unknown_host_key_is_shown_and_nothing_is_sent(self, host: NsHost, fresh: Fresh, tmp_path: Path) -> None:
        (tmp_path / "known").write_text("")
        ran = self.refused(host, fresh, "--known-hosts", str(tmp_path / "known"))
        assert ran.code == 4, str(ran)
        assert "SHA256:" in said(ran)
        assert "accept-new" in said(ran)

    def test_a_user_without_sudo(self, host: NsHost, fresh: Fresh) -> None:
        host.run(
            "id plain 2>/dev/null || { useradd -m plain && cp -r /home/admin/.ssh /home/plain/ && chown -R plain: /home/plain; }",
            user="root",
        )
        ran = self.refused(host, fresh, user="plain")
        assert ran.code == 1, str(ran)
        assert "sudo" in said(ran)

    def test_a_package_left_half_done_by_somebody_else(self, host: NsHost, fresh: Fresh) -> None:
        host.run("cd /tmp && apt-get -q update && apt-get -q download hello && dpkg --unpack hello_*.deb", user="root")
        try:
            ran = self.refused(host, fresh)
            assert ran.code == 1, str(ran)
            assert "dpkg --configure -a" in said(ran)
        finally:
            host.run("dpkg --purge hello", user="root")

    def test_a_malformed_daemon_json(self, host: NsHost, fresh: Fresh) -> None:
        host.run("mkdir -p /etc/docker && printf '{\"a\": 1,}' > /etc/docker/daemon.json", user="root")
        try:
            ran = self.refused(host, fresh, "--set", "docker.log.max_size=50m")
            assert ran.code == 1, str(ran)
            assert "/etc/docker/daemon.json" in said(ran)
            assert "line 1" in said(ran)
        finally:
            host.run("rm -r /etc/docker", user="root")

    def test_a_daemon_json_that_cannot_be_written(self, host: NsHost, fresh: Fresh) -> None:
        host.run("mkdir -p /etc/docker && mount -t tmpfs -o ro tmpfs /etc/docker", user="root")
        try:
            ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.log.max_size=50m", "docker.source=distro"])
            assert ran.code == 1, str(ran)
            assert "/etc/docker" in said(ran)
            assert "docker.io" not in host.run("dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' | grep ^ii").out
        finally:
            host.run("umount /etc/docker; rmdir /etc/docker", user="root")

    def test_no_room_on_the_disk(self, host: NsHost, fresh: Fresh) -> None:
        ran = self.refused(host, fresh, "--set", "preflight.root_free_gb=100000")
        assert ran.code == 1, str(ran)
        assert "GB" in said(ran)

    def test_a_repository_that_has_no_such_suite(self, host: NsHost, fresh: Fresh) -> None:
        ran = self.refused(
            host, fresh, "--set", f"mirrors.docker.url={fresh.server.url}/nothing-here", "--set", "docker.source=docker-ce"
        )
        assert ran.code == 1, str(ran)
        assert "404" in said(ran)

    def test_a_proxy_that_is_not_there(self, fresh: Fresh) -> None:
        host = fresh.host(apt=False)
        ran = self.refused(
            host, fresh, "--set", "proxy.http=http://127.0.0.1:1", "--set", "docker.source=docker-ce"
        )
        assert ran.code == 1, str(ran)
        assert "cannot be reached from there" in said(ran)


@pytest.mark.host
def test_behind_a_proxy_apt_and_docker_both_use_it_and_its_password_stays_secret(fresh: Fresh) -> None:
    host = fresh.host(apt=False)
    scheme, rest = fresh.apt.url.split("://")
    proxy = f"{scheme}://someone:s3cret@{rest}"
    settings = [
        *fresh.settings()[:3],
        "docker.source=distro",
        f"proxy.http={proxy}",
        f"proxy.no_proxy=[localhost, {fresh.network.address}]",
    ]
    ran = mlhost("setup", host, settings=settings)
    assert ran.code == 0, str(ran)
    assert "s3cret" not in ran.out + ran.err
    assert host.run("docker info --format '{{.HTTPProxy}}'", user="root").out.strip() == f"{scheme}://xxxxx:xxxxx@{rest}"
    assert host.run("cat /etc/apt/apt.conf.d/95mlhost-proxy", check=False).code != 0, "only root may read it"
    leaks = host.run(
        f"grep -rl {shlex.quote('s3cret')} /var/lib/mlhost /etc 2>/dev/null | xargs -r stat -c '%a %n'", user="root"
    ).out.split("\n")
    assert all(line.split()[0] in ("600", "700", "400") for line in leaks if line), leaks
    again = mlhost("setup", host, settings=settings)
    assert again.code == 0, str(again)
    assert "nothing to change" in again.out
