"""The way back in a fake root, under three shells, with stub programs (tests/stubs: no real apt, Docker or GPU)."""

from __future__ import annotations

import json
import subprocess

import pytest

from provision import actions, render
from provision.model import CHANGE, Plan
from provision.traces import Traces
from tests import back
from tests.test_render import ALL_KINDS, DAEMON, Host, give_the_host_a_past, host, plan, script

pytestmark = pytest.mark.slow

__all__ = ["host"]


def looked(host: Host) -> Traces:
    def run(text: str) -> bytes:
        (host.folder / "look.sh").write_text(text)
        env = {"PATH": host.path, "STUB": str(host.stub), "MLHOST_ROOT": str(host.root), "MLHOST_PROC_MOUNTS": str(host.stub / "mounts")}
        done = subprocess.run([*host.shell, str(host.folder / "look.sh")], env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return back.traces(run)


def take_back(host: Host, *runs: str, run_id: str = "back-1") -> Plan:
    """Plan and do it; the plan made after it."""
    planned = back.way_back(looked(host), *runs)
    assert host.run(back.script(planned, run_id)) == 0, host.log
    return planned


def ids(planned: Plan) -> list[str]:
    return [item.id for item in planned.items if item.state == CHANGE]


def test_everything_that_was_added_goes_what_was_removed_comes_back_and_a_second_look_finds_nothing(host: Host) -> None:
    give_the_host_a_past(host)
    host.knows("offers/docker.io", "20.10\n")
    before = {path: text for path, (_, text) in host.snapshot().items()}
    assert host.run(script(*ALL_KINDS)) == 0, host.log
    take_back(host)
    left = {path: text for path, (_, text) in host.snapshot().items()}
    # the own step of this test has no undo; what is loaded is a matter of the running system
    assert {path for path in left if path not in before} == {str(host.root / "etc/own"), str(host.root / "run/mlhost/docker.loaded")}
    assert {path: left[path] for path in before} == before
    assert sorted(path.name for path in (host.stub / "packages").iterdir()) == ["docker.io"]
    assert (host.stub / "groups/docker").read_text() == ""
    for made in ("etc/motd.d", "etc/apt/keyrings", "etc/docker", "etc/systemd"):
        assert not (host.root / made).exists(), made
    again = looked(host)
    assert again.runs == ()
    assert again.last == ""
    assert again.undone == ("run-1",)
    assert back.way_back(again).items == ()


def test_the_same_script_again_changes_nothing(host: Host) -> None:
    give_the_host_a_past(host)
    host.knows("offers/docker.io", "20.10\n")
    assert host.run(script(*ALL_KINDS)) == 0, host.log
    planned = back.way_back(looked(host))
    assert host.run(back.script(planned)) == 0, host.log
    assert "changed" in host.states()
    before = host.snapshot()
    assert host.run(back.script(planned)) == 0, host.log
    assert set(host.states()) == {"ok"}
    assert host.snapshot() == before


def test_what_somebody_has_changed_since_stays_and_the_plan_says_so(host: Host) -> None:
    assert host.run(script(actions.File("/etc/a", "ours\n"), actions.File("/etc/b", "ours\n"))) == 0
    host.write("/etc/a", "theirs\n")
    planned = take_back(host)
    assert host.read("/etc/a") == "theirs\n"
    assert not host.has("/etc/b")
    assert "/etc/a has been changed since; it stays." in [notice.message for notice in planned.notices]


def test_a_file_that_is_changed_between_the_plan_and_the_script_is_not_overwritten(host: Host) -> None:
    host.write("/etc/a", "first\n")
    assert host.run(script(actions.File("/etc/a", "ours\n"))) == 0
    planned = back.way_back(looked(host))
    host.write("/etc/a", "theirs\n")
    assert host.run(back.script(planned)) == 1
    assert host.detail() == "/etc/a has changed since the plan was made; plan again"
    assert host.read("/etc/a") == "theirs\n"


def test_a_file_that_two_runs_have_written_goes_back_step_by_step_or_at_once(host: Host) -> None:
    host.write("/etc/a", "first\n", 0o640)
    for number, text in enumerate(("second\n", "third\n"), 1):
        assert host.run(render.stage(plan(actions.File("/etc/a", text)), run_id=f"run-{number}")) == 0
    assert looked(host).last == "run-2"
    take_back(host, "run-2")
    assert host.read("/etc/a") == "second\n"
    assert looked(host).last == "", "what was taken back last is not taken back again by asking twice"
    assert looked(host).runs == ("run-1",)
    take_back(host, "run-1", run_id="back-2")
    assert host.read("/etc/a") == "first\n"
    assert (host.root / "etc/a").stat().st_mode & 0o777 == 0o640


def test_an_older_run_is_not_taken_back_from_under_a_newer_one(host: Host) -> None:
    host.write("/etc/a", "first\n")
    for number, text in enumerate(("second\n", "third\n"), 1):
        assert host.run(render.stage(plan(actions.File("/etc/a", text)), run_id=f"run-{number}")) == 0
    planned = take_back(host, "run-1")
    assert host.read("/etc/a") == "third\n"
    assert [notice.message for notice in planned.notices] == ["/etc/a was changed by a later run of mlhost; it stays."]


def test_the_stages_of_one_setup_are_one_run(host: Host) -> None:
    for number, run in enumerate(("20261123T070000-abc", "20261123T070000-abc.2"), 1):
        assert host.run(render.stage(plan(actions.File(f"/etc/a{number}", "x")), run_id=run)) == 0
    assert looked(host).last == "20261123T070000-abc"
    take_back(host, "20261123T070000-abc")
    assert not host.has("/etc/a1")
    assert not host.has("/etc/a2")


def test_only_our_keys_leave_a_daemon_json_that_somebody_has_changed_since(host: Host) -> None:
    old = '{"labels": ["mine"], "log-opts": {"max-size": "1m"}, "registry-mirrors": ["https://a"]}'
    host.write(DAEMON, old, 0o600)
    base = subprocess.run(["sha256sum", f"{host.root}{DAEMON}"], capture_output=True, text=True, check=True).stdout.split()[0]
    ours = json.loads(old) | {
        "runtimes": {"nvidia": {"path": "x"}},
        "log-opts": {"max-size": "50m", "max-file": "3"},
        "shutdown-timeout": 5,
        "registry-mirrors": ["https://b", "https://a"],
    }
    assert host.run(script(actions.JsonMerge(DAEMON, base, json.dumps(ours)))) == 0, host.log
    theirs = ours | {"debug": True, "shutdown-timeout": 9, "runtimes": {"nvidia": {"path": "x"}, "kata": {"path": "k"}}}
    host.write(DAEMON, json.dumps(theirs), 0o600)
    planned = take_back(host)
    assert json.loads(host.read(DAEMON)) == json.loads(old) | {
        "debug": True,
        "shutdown-timeout": 9,
        "runtimes": {"kata": {"path": "k"}},
    }
    assert (host.root / DAEMON.lstrip("/")).stat().st_mode & 0o777 == 0o600
    assert any("shutdown-timeout" in notice.message for notice in planned.notices)


def test_a_daemon_json_in_which_only_our_keys_are_left_goes_altogether(host: Host) -> None:
    assert host.run(script(actions.JsonMerge(DAEMON, "", '{"runtimes": {"nvidia": {}}, "debug": true}'))) == 0, host.log
    host.write(DAEMON, '{"runtimes": {"nvidia": {}}}')
    take_back(host)
    assert not host.has(DAEMON)


def test_a_daemon_json_that_is_no_json_any_more_stays(host: Host) -> None:
    assert host.run(script(actions.JsonMerge(DAEMON, "", '{"debug": true}'))) == 0, host.log
    host.write(DAEMON, '{"debug": true} // mine')
    planned = take_back(host)
    assert host.read(DAEMON) == '{"debug": true} // mine'
    assert [notice.message for notice in planned.notices] == [f"{DAEMON} has been changed since; it stays."]


def test_services_are_enabled_disabled_started_and_stopped_as_they_were(host: Host) -> None:
    for unit in ("ours", "theirs"):
        (host.stub / "units" / f"{unit}.service").mkdir(parents=True)
    host.knows("units/theirs.service/enabled")
    host.knows("units/theirs.service/active")
    wanted = (actions.Service("ours.service"), actions.Service("theirs.service", enabled=False, running=False))
    assert host.run(script(*wanted)) == 0, host.log
    assert (host.stub / "units/ours.service/active").exists()
    assert not (host.stub / "units/theirs.service/enabled").exists()
    take_back(host)
    assert not (host.stub / "units/ours.service/active").exists()
    assert not (host.stub / "units/ours.service/enabled").exists()
    assert (host.stub / "units/theirs.service/active").exists()
    assert (host.stub / "units/theirs.service/enabled").exists()


def test_a_step_s_own_undo_runs_with_its_values_and_must_have_an_effect(host: Host) -> None:
    own = actions.Command(
        'test -e "$MLHOST_ROOT/etc/$NAME"', ': >"$MLHOST_ROOT/etc/$NAME"', 'rm "$MLHOST_ROOT/etc/$NAME"', env=(("NAME", "a 'b\" $c"),)
    )
    idle = actions.Command('test -e "$MLHOST_ROOT/etc/idle"', ': >"$MLHOST_ROOT/etc/idle"', "true")
    assert host.run(script(own)) == 0, host.log
    kept = next((host.root / "var/lib/mlhost/backup/run-1.undo").iterdir())
    assert kept.stat().st_mode & 0o77 == 0
    assert kept.parent.stat().st_mode & 0o77 == 0
    take_back(host)
    assert not host.has("/etc/a 'b\" $c")
    assert host.run(render.stage(plan(idle), run_id="run-2")) == 0, host.log
    assert host.run(back.script(back.way_back(looked(host)), "back-2")) == 1
    assert host.detail() == "its undo ran, but its check still finds what it had done"


def test_a_rollback_that_was_stopped_half_way_is_finished_by_the_next_one(host: Host) -> None:
    host.write("/etc/a", "first\n")
    assert host.run(script(actions.File("/etc/a", "ours\n"), actions.File("/etc/b/c", "ours\n"))) == 0
    planned = back.way_back(looked(host))
    # whoever followed it pulled the plug after the first item
    cut = back.script(planned).replace("    finish\n", "").replace("item 2 ", "exit 9; item 2 ")
    assert host.run(cut) == 9
    rest = back.way_back(looked(host))
    assert 0 < len(ids(rest)) < len(ids(planned))
    assert host.run(back.script(rest, "back-2")) == 0, host.log
    assert host.read("/etc/a") == "first\n"
    assert not host.has("/etc/b")
    assert back.way_back(looked(host)).items == ()


@pytest.mark.parametrize("line", ["run-1\tfile", "run-1\tfile\t/etc/a", "\tfile\t/etc/a\tabc", "run-1\tfile\t../etc/passwd\tabc", "\udcff\t\t", "x"])
def test_a_damaged_receipt_takes_nothing_back(host: Host, line: str) -> None:
    host.write("/etc/a", "first\n")
    path = host.root / "var/lib/mlhost/receipts"
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n", errors="surrogateescape")
    planned = back.way_back(looked(host))
    assert all(i.id == "back/receipts" or i.state != CHANGE for i in planned.items)
    assert host.read("/etc/a") == "first\n"


def test_only_dockers_own_goes_from_a_data_directory_that_others_use_too(host: Host) -> None:
    host.write(DAEMON, '{"data-root": "/data"}')
    for path in ("/data/overlay2/x", "/data/containers/y", "/data/volumes/z", "/data/mine/a", "/data/readme", "/var/lib/docker/b"):
        host.write(path, "x")
    found = looked(host)
    assert found.data == ("/var/lib/docker", "/data")
    assert host.run(back.script(back.way_back(found, purge=True))) == 0, host.log
    assert sorted(str(p.relative_to(host.root)) for p in (host.root / "data").rglob("*") if p.is_file()) == ["data/mine/a", "data/readme"]
    assert not host.has("/var/lib/docker")


def test_a_data_directory_that_is_the_whole_machine_loses_nothing(host: Host) -> None:
    host.write(DAEMON, '{"data-root": "/"}')
    host.write("/tmp/mine", "x")
    host.write("/containers/readme", "x")
    assert looked(host).data == ()


def test_a_link_that_enabled_a_unit_goes_with_the_units_package(host: Host) -> None:
    unit = host.write("/usr/lib/systemd/system/x.service", "[Unit]\n")
    theirs = host.write("/usr/lib/systemd/system/y.service", "[Unit]\n")
    wants = host.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    assert host.run(script(actions.Packages((actions.Package("x"),)))) == 0, host.log
    (wants / "x.service").symlink_to(unit)
    (wants / "y.service").symlink_to(theirs)
    (wants / "gone.service").symlink_to("/nowhere")
    planned = back.script(back.way_back(looked(host)))
    # the stub of apt does not know what files a package has
    assert host.run(planned.replace("    packages_change $(cat", f"    rm -f {unit}; packages_change $(cat")) == 0, host.log
    assert sorted(path.name for path in wants.iterdir()) == ["gone.service", "y.service"]
