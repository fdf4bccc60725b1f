"""Reviewed plans on hosts made of namespaces: real sshd, sudo, systemd, apt and Docker Engine; the vendors' packages are doubles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.lab.keys import lab_keys
from tests.lab.nshost import NsHost
from tests.program import CHECKOUT, Ran, environment, mlhost, words

pytestmark = pytest.mark.host


def target(host: NsHost) -> str:
    return f"admin@{host.ssh.host}:{host.ssh.port}"


def run(folder: Path, *words: str) -> Ran:
    """mlhost with the lab's key, and the host keys of all its hosts."""
    line = [sys.executable, "-m", "provision", *words, "-F", "none", "--identity", str(lab_keys().client), "--known-hosts", str(folder / "known_hosts")]
    done = subprocess.run(line, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def hosts(fresh: Fresh) -> tuple[NsHost, NsHost]:
    return fresh.host(), fresh.host()


@pytest.fixture(scope="module")
def folder(hosts: tuple[NsHost, NsHost], tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("plans")
    (found / "known_hosts").write_text("".join(host.known_hosts() for host in hosts))
    return found


class TestAPlanForTwoHosts:
    """Two hosts, in order: planned, one of them changed by somebody, the plan carried out where it still holds."""

    def test_the_file_is_its_owner_s_alone_and_holds_both_hosts(self, hosts: tuple[NsHost, NsHost], folder: Path, fresh: Fresh) -> None:
        sets = [word for value in [*fresh.settings(), "docker.log.max_size=50m"] for word in ("--set", value)]
        ran = run(folder, "plan", *map(target, hosts), *sets, "--out", str(folder / "fleet.plan"))
        assert ran.code == 3, str(ran)
        assert "docker/packages" in ran.out
        assert (folder / "fleet.plan").stat().st_mode & 0o777 == 0o600
        kept = json.loads((folder / "fleet.plan").read_text())
        assert [host["target"] for host in kept["hosts"]] == [target(host) for host in hosts]

    def test_a_file_that_was_edited_is_refused_before_any_host_is_asked(self, folder: Path) -> None:
        text = (folder / "fleet.plan").read_text()
        (folder / "edited.plan").write_text(text.replace('"50m"', '"60m"'))
        ran = run(folder, "apply", str(folder / "edited.plan"))
        assert ran.code == 2, str(ran)
        assert "edited or damaged" in ran.err

    def test_where_a_host_has_changed_the_difference_is_shown_and_nothing_done_and_the_other_is_set_up(
        self, hosts: tuple[NsHost, NsHost], folder: Path
    ) -> None:
        changed, same = hosts
        changed.run('mkdir -p /etc/docker && echo \'{"debug": true}\' > /etc/docker/daemon.json', user="root")
        before = changed.run("stat -c %Z /var/lib/dpkg/status; ls /var/lib /etc/apt/sources.list.d", user="root").out
        ran = run(folder, "apply", str(folder / "fleet.plan"))
        assert ran.code == 1, str(ran)
        assert "not as reviewed, nothing was changed" in ran.out
        assert "what it starts from has changed" in " ".join(ran.out.split())
        assert changed.run("stat -c %Z /var/lib/dpkg/status; ls /var/lib /etc/apt/sources.list.d", user="root").out == before
        assert "set up and proved" in ran.out
        assert same.run("systemctl is-active docker").out.strip() == "active"

    def test_a_plan_that_is_carried_out_already_changes_nothing(self, hosts: tuple[NsHost, NsHost], folder: Path) -> None:
        ran = run(folder, "apply", str(folder / "fleet.plan"), target(hosts[1]))
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_a_new_plan_for_the_changed_host_is_carried_out(self, hosts: tuple[NsHost, NsHost], folder: Path, fresh: Fresh) -> None:
        changed = hosts[0]
        settings = [*fresh.settings(), "docker.log.max_size=50m"]
        planned = mlhost("plan", changed, "--out", str(folder / "one.plan"), settings=settings)
        assert planned.code == 3, str(planned)
        ran = run(folder, "apply", str(folder / "one.plan"), "--format", "json")
        assert ran.code == 0, str(ran)
        assert json.loads(ran.out)["hosts"][0]["status"] == "changed"
        assert json.loads(changed.run("cat /etc/docker/daemon.json").out)["debug"] is True

    def test_a_target_that_the_plan_does_not_name_is_a_usage_error(self, folder: Path) -> None:
        ran = run(folder, "apply", str(folder / "one.plan"), "root@elsewhere")
        assert ran.code == 2, str(ran)
        assert "is no plan for root@elsewhere" in ran.err


class TestDaemonJsonOnARealEngine:
    """The second host, set up by now: what its real dockerd makes of new settings."""

    def test_settings_that_the_engine_does_not_start_with_are_put_back_and_it_runs_again(self, hosts: tuple[NsHost, NsHost], fresh: Fresh) -> None:
        host = hosts[1]
        host.run("chmod 640 /etc/docker/daemon.json && chown root:docker /etc/docker/daemon.json", user="root")
        before = host.run("cat /etc/docker/daemon.json; stat -c '%a %U:%G' /etc/docker/daemon.json", user="root").out
        # dockerd --validate has nothing against it; the engine looks for the driver only when it starts
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.log.max_size=50m", "docker.daemon.storage-driver=nosuch"])
        assert ran.code == 1, str(ran)
        assert "the old one is back and docker.service runs again" in " ".join(ran.out.split())
        assert host.run("cat /etc/docker/daemon.json; stat -c '%a %U:%G' /etc/docker/daemon.json", user="root").out == before
        assert host.run("docker info --format '{{.Driver}}'", user="root").out.strip() != "nosuch"
        again = mlhost("setup", host, settings=[*fresh.settings(), "docker.log.max_size=50m"])
        assert again.code == 0, str(again)
        assert host.run("stat -c '%a %U:%G' /etc/docker/daemon.json", user="root").out.strip() == "640 root:docker"

    def test_two_controllers_at_once_one_works_the_other_follows_and_both_end_well(self, hosts: tuple[NsHost, NsHost], fresh: Fresh) -> None:
        host = hosts[1]
        host.run("rm -f /var/lib/mlhost/proof", user="root")
        runs = set(host.run("ls /var/lib/mlhost/runs", user="root").out.split())
        settings = [*fresh.settings(), "docker.log.max_size=70m"]
        both = [
            subprocess.Popen(
                words("setup", host, settings=settings),
                cwd=CHECKOUT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=900) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        new = sorted(set(host.run("ls /var/lib/mlhost/runs", user="root").out.split()) - runs)
        assert len(new) == 1, f"one run did it all: {said}"
        assert json.loads(host.run("cat /etc/docker/daemon.json", user="root").out)["log-opts"]["max-size"] == "70m"
