"""The way back on a host made of namespaces: real sshd, sudo, systemd, apt and Docker Engine; the vendors' packages are doubles.

Docker's doubles hold the distribution's real engine. Files, packages and units before the first setup are compared with those after the way back.
"""

from __future__ import annotations

import json

import pytest

from tests.fresh import Fresh
from tests.lab.nshost import NsHost
from tests.program import mlhost
from tests.snapshot import Snapshot, assert_same, snapshot

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    host = fresh.host()
    # as the distribution leaves a machine on which somebody has done something already
    host.run("apt-get -q update && echo 'keep me' > /etc/motd && groupadd -r already", user="root")
    return host


@pytest.fixture(scope="module")
def before(host: NsHost) -> Snapshot:
    return snapshot(host)


class TestThereAndBack:
    """One host, in order: nothing, set up, used, taken back, set up again, uninstalled."""

    def test_there_is_nothing_to_take_back_where_mlhost_never_was(self, host: NsHost, before: Snapshot) -> None:
        for command in ("rollback", "uninstall"):
            ran = mlhost(command, host)
            assert ran.code == 0, str(ran)
            assert "nothing" in ran.out
        assert mlhost("rollback", host, "--plan").code == 0
        assert_same(before, snapshot(host))

    def test_the_plan_shows_what_goes_and_what_stays_and_changes_nothing(self, host: NsHost, before: Snapshot, fresh: Fresh) -> None:
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.users=[admin]", "docker.log.max_size=50m"])
        assert ran.code == 0, str(ran)
        image = host.run("docker images -q --filter label=mlhost.smoke | head -1", user="root").out.strip()
        host.run(f"docker tag {image} mine:1 && docker volume create mine && docker run -d -i --name mine mine:1 sh -c 'read line'", user="root")
        there = snapshot(host)
        ran = mlhost("rollback", host, "--plan", "--format", "json")
        assert ran.code == 3, str(ran)
        planned = json.loads(ran.out)
        items = {item["id"]: item for item in planned["items"]}
        assert items["back/packages"]["state"] == "change"
        assert "back/file/etc/apt/sources.list.d/docker.sources" in items
        assert "back/file/etc/docker/daemon.json" in items
        assert "back/member/docker/admin" in items
        assert any("images, containers and volumes stay" in notice["message"] for notice in planned["notices"])
        assert any("1 container is running and will stop" in told for told in planned["consequences"]["restarts"])
        assert_same(there, snapshot(host))

    def test_packages_are_not_removed_without_consent(self, host: NsHost) -> None:
        there = snapshot(host)
        ran = mlhost("rollback", host)
        assert ran.code == 1, str(ran)
        assert "--yes" in ran.out + ran.err
        assert "docker-ce" in ran.out + ran.err
        assert_same(there, snapshot(host))

    def test_a_rollback_leaves_the_host_as_it_was_but_for_dockers_data(self, host: NsHost, before: Snapshot) -> None:
        ran = mlhost("rollback", host, "--yes")
        assert ran.code == 0, str(ran)
        assert "taken back" in ran.out
        assert_same(before, snapshot(host))
        assert host.run("ls /var/lib/docker/volumes", user="root").out.split()[-1] == "mine"
        assert host.run("ls /var/lib/docker/containers", user="root").out.strip() != ""

    def test_a_second_rollback_changes_nothing(self, host: NsHost, before: Snapshot) -> None:
        ran = mlhost("rollback", host)
        assert ran.code == 0, str(ran)
        assert "nothing to take back" in ran.out
        ran = mlhost("rollback", host, "--plan")
        assert ran.code == 0, str(ran)
        assert_same(before, snapshot(host))

    def test_status_tells_of_the_rollback_as_of_any_run(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("status", host, settings=fresh.settings())
        assert ran.code == 3, str(ran)  # what was taken back is pending
        assert "Drifted" not in ran.out
        assert "ended: done" in " ".join(ran.out.split())

    def test_a_run_that_nobody_knows_is_a_usage_error_that_names_those_there_are(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("rollback", host, "--run", "20200101T000000-abcdef")
        assert ran.code == 2, str(ran)
        assert "none" in ran.out + ran.err

    def test_after_a_new_setup_the_containers_are_there_again(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("setup", host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert host.run("docker start mine && docker volume ls -q", user="root").out.split() == ["mine", "mine"]

    def test_an_uninstall_takes_everything_back_and_mlhost_with_it(self, host: NsHost, before: Snapshot) -> None:
        host.run("mkdir -p /etc/docker && echo '{\"debug\": true}' > /etc/docker/daemon.json", user="root")
        ran = mlhost("uninstall", host, "--yes", "--purge-data")
        assert ran.code == 0, str(ran)
        assert "mlhost is no longer on this host" in ran.out
        assert host.run("find /var/lib/docker /var/lib/containerd /var/lib/mlhost /run/mlhost -mindepth 1", user="root", check=False).out == ""
        left = before.difference(snapshot(host))
        assert [line.split(":")[0] for line in left] == ["/etc/docker", "/etc/docker/daemon.json"], left
        ran = mlhost("uninstall", host)
        assert ran.code == 0, str(ran)
        assert "nothing of mlhost" in ran.out
