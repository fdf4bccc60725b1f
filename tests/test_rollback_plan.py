"""The way back decided from values: no host, no script."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision import render, render_back
from provision.actions import JsonMerge, Service, TakeBack
from provision.backplan import Wish, plan_back
from provision.capture import join, split
from provision.errors import Error, Failed, UsageError
from provision.model import Docker, Facts, OsRelease, Package, Plan, PlatformRow, Section
from provision.report.backtext import back_text
from provision.rollback import Asked, chosen
from provision.traces import Installed, Receipt, Traces, parse

FACTS = Facts("gpu-7", "x86_64", OsRelease("debian", "12"))
PLATFORM = PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None)


def receipts(*lines: str) -> tuple[Receipt, ...]:
    return tuple(Receipt(run, kind, tuple(words)) for run, kind, *words in (line.split(" ") for line in lines))


def planned(traces: Traces, *runs: str, purge: bool = False, facts: Facts = FACTS, ramdisk: str = "") -> Plan:
    return plan_back(facts, traces, Wish(runs or traces.runs, purge), PLATFORM, ramdisk)


def words(plan: Plan, what: str) -> tuple[str, ...]:
    return next(i.action.words for i in plan.changes if isinstance(i.action, TakeBack) and i.action.what == what)


def said(plan: Plan) -> str:
    return " ".join(notice.message for notice in plan.notices)


ENGINE = receipts("r1 package docker-ce 5:29 ", "r1 package containerd.io 2 ", "r1 service docker.service start", "r1 enabled docker.service")
ENGINE_NOW = {"docker-ce": Installed("installed", "5:29"), "containerd.io": Installed("installed", "2", "keep")}
RUNNING = replace(FACTS, docker=Docker(server="29.0.0", dockerd="29.0.0", running_containers=2))


class TestAnEngineThatGoes:
    def test_it_tells_which_containers_stop_and_that_their_data_stay(self) -> None:
        plan = planned(Traces(ENGINE, packages=ENGINE_NOW), facts=RUNNING)
        assert words(plan, "packages") == ("--", "docker-ce", "containerd.io", "--", "docker-ce", "--", "docker-ce")
        assert plan.restarts == ("docker.service (goes with its package; 2 containers are running and will stop)",)
        assert "images, containers and volumes stay" in said(plan)
        assert "containerd.io is removed, but its settings stay" in said(plan)
        assert "back/service/docker.service" not in {item.id for item in plan.items}, "the service goes with its package"

    def test_its_data_go_only_when_that_is_asked_for(self) -> None:
        traces = Traces(ENGINE, packages=ENGINE_NOW, data=("/var/lib/docker", "/srv/docker"))
        assert "back/data" not in {item.id for item in planned(traces).items}
        plan = planned(traces, purge=True)
        assert words(plan, "data") == ("/var/lib/docker", "/srv/docker")
        assert words(plan, "packages")[-3:] == ("containerd.io", "--", "docker-ce"), "then its settings can go too"

    def test_the_data_of_an_engine_that_was_there_before_are_not_mlhosts_to_delete(self) -> None:
        facts = replace(FACTS, packages={"docker-ce": Package("docker-ce", "5:29")})
        plan = planned(Traces(receipts("r1 file /etc/a abc"), data=("/var/lib/docker",)), purge=True, facts=facts)
        assert [problem.id for problem in plan.problems] == ["data/engine"]
        assert not plan.changes

    def test_data_that_are_left_over_can_go_later(self) -> None:
        assert words(planned(Traces(data=("/var/lib/docker",)), purge=True), "data") == ("/var/lib/docker",)


class TestAnEngineThatStays:
    def test_it_reads_its_old_settings_again_and_says_what_that_stops(self) -> None:
        path = "/etc/docker/daemon.json"
        traces = Traces(receipts(f"r1 file {path} new"), now={path: "new"}, saved={("r1", path): "old"})
        plan = planned(traces, facts=RUNNING)
        restart = next(i.action for i in plan.changes if isinstance(i.action, Service))
        assert (restart.name, restart.act, restart.restore) == ("docker.service", "restart", path)
        assert "2 containers are running and will stop" in plan.restarts[0]

    def test_one_that_does_not_run_is_not_started_for_it(self) -> None:
        path = "/etc/docker/daemon.json"
        traces = Traces(receipts(f"r1 file {path} new"), now={path: "new"}, saved={("r1", path): "old"})
        assert not any(isinstance(i.action, Service) for i in planned(traces).changes)


class TestPackages:
    def test_the_first_receipt_says_what_was_there_before(self) -> None:
        # upgraded by one run, and again by another
        traces = Traces(
            receipts("r1 package a 2 1", "r2 package a 3 2"), packages={"a": Installed("installed", "3")}, offers=frozenset({("a", "1"), ("a", "2")})
        )
        assert words(planned(traces), "packages") == ("a=1", "--", "--", "--")
        assert words(planned(traces, "r2"), "packages") == ("a=2", "--", "--", "--")

    def test_what_was_added_and_then_upgraded_by_us_goes(self) -> None:
        traces = Traces(receipts("r1 package a 2 ", "r2 package a 3 2"), packages={"a": Installed("installed", "3")})
        assert words(planned(traces), "packages") == ("--", "a", "--", "a", "--")

    def test_what_was_removed_comes_back_in_another_version_only_with_a_word_about_it(self) -> None:
        traces = Traces(receipts("r1 removed a 1"), offers=frozenset({("a", "9")}))
        plan = planned(traces)
        assert words(plan, "packages") == ("a", "--", "--", "--")
        assert "comes back, but not as 1" in said(plan)
        assert "no source has it" in said(planned(replace(traces, offers=frozenset())))

    def test_the_machines_own_architecture_is_not_said(self) -> None:
        there = Installed("installed", "1")
        traces = Traces(receipts("r1 package a:amd64 1 ", "r1 package b:i386 1 "), arch="amd64", packages={"a:amd64": there, "b:i386": there})
        assert words(planned(traces), "packages") == ("--", "a", "b:i386", "--", "a", "b:i386", "--")

    @pytest.mark.parametrize("name", ["-rf", "a;b", "$(id)", "a b", "", "../a"])
    def test_a_name_that_is_none_never_gets_as_far_as_a_script(self, name: str) -> None:
        traces = Traces((Receipt("r1", "package", (name, "1", "")),), packages={name: Installed("installed", "1")})
        assert not any(isinstance(i.action, TakeBack) and i.action.what == "packages" for i in planned(traces).items)


class TestTheRest:
    def test_a_group_that_others_have_joined_since_stays(self) -> None:
        lines = receipts("r1 made-group docker", "r1 group docker ada")
        traces = Traces(lines, members=frozenset({("docker", "ada")}), accounts={("group", "docker"): "ada,bob"})
        plan = planned(traces)
        assert "The group docker stays: bob belongs to it." in said(plan)
        assert words(plan, "member") == ("docker", "ada")
        alone = planned(replace(traces, accounts={("group", "docker"): "ada"}))
        assert words(alone, "account") == ("group", "docker")

    def test_the_ramdisk_is_made_anew_where_it_holds_what_goes(self) -> None:
        path = "/etc/modprobe.d/mlhost-nouveau.conf"
        traces = Traces(receipts(f"r1 file {path} x"), now={path: "x"}, saved={("r1", path): "absent"})
        assert "back/ramdisk" in {i.id for i in planned(traces, ramdisk="update-initramfs -u").changes}
        assert "back/ramdisk" not in {i.id for i in planned(traces).changes}

    def test_a_loaded_module_is_said_to_stay_until_the_next_boot(self) -> None:
        assert "nvidia stays loaded until the next reboot" in said(planned(Traces(receipts("r1 module nvidia"), modules=("nvidia",))))

    def test_the_text_says_what_goes_what_stays_and_what_stops(self) -> None:
        text = back_text(planned(Traces(ENGINE, packages=ENGINE_NOW), facts=RUNNING), uninstall=True)
        assert "remove docker-ce, containerd.io" in text
        assert "Stops" in text
        assert "Stays" in text
        assert "mlhost's own state goes" in text
        assert "Nothing has been changed." in text
        assert back_text(planned(Traces())) == "gpu-7: nothing to take back"

    def test_only_our_keys_go_by_a_merge_that_starts_from_what_was_seen(self) -> None:
        path = "/etc/docker/daemon.json"
        texts = {f"now:{path}": '{"a": 1, "b": 2, "c": 3}', f"written:r1:{path}": '{"a": 1, "b": 2}', f"saved:r1:{path}": '{"a": 1}'}
        traces = Traces(receipts(f"r1 file {path} ours"), now={path: "theirs"}, saved={("r1", path): "old"}, texts=texts)
        merge = next(i.action for i in planned(traces).changes if isinstance(i.action, JsonMerge))
        assert (merge.base, json.loads(merge.content)) == ("theirs", {"a": 1, "c": 3})


class TestWhichRuns:
    TRACES = Traces(receipts("20261101T000000-a file /a x", "20261101T000000-a.2 file /b x", "20261102T000000-b file /c x"))

    def test_the_last_run_is_the_default(self) -> None:
        assert chosen(self.TRACES, Asked()) == ("20261102T000000-b",)
        assert chosen(self.TRACES, Asked(everything=True)) == ("20261101T000000-a", "20261102T000000-b")

    def test_any_stage_names_its_setup(self) -> None:
        assert chosen(self.TRACES, Asked("20261101T000000-a.2")) == ("20261101T000000-a",)

    def test_after_a_rollback_there_is_no_last_run(self) -> None:
        after = Traces((*self.TRACES.receipts[:2], *receipts("back undone 20261102T000000-b")))
        assert chosen(after, Asked()) == ()
        assert chosen(after, Asked("20261102T000000-b")) == ()
        assert chosen(after, Asked(everything=True)) == ("20261101T000000-a",)

    def test_an_unknown_one_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(UsageError) as caught:
            chosen(self.TRACES, Asked("nosuch"))
        assert "20261101T000000-a, 20261102T000000-b" in caught.value.fix


def test_receipts_that_cannot_be_read_are_an_error_and_not_an_empty_list() -> None:
    with pytest.raises(Failed, match="could not be read"):
        parse({"probe": Section(0, ""), "receipts": Section(13, "")})


KINDS = ("file", "aside", "package", "removed", "hold", "enabled", "service", "group", "made-group", "made-passwd", "undo", "key", "cache", "directory", "mounted", "undone", "module", "image", "index", "put-back", "?")
WORD = st.text(alphabet="ab/.-$(`'\"\\;é\x1b\x07 *", max_size=12)
LINE = st.tuples(st.sampled_from(["r1", "r1.2", "r2", ""]), st.sampled_from(KINDS), st.lists(WORD, max_size=4)).map(lambda t: "\t".join((t[0], t[1], *t[2])))
TABLE = st.lists(st.tuples(st.sampled_from(["now", "saved", "cache", "directory", "member", "group", "passwd", "undo", "key", "mount", "data", "a"]), st.lists(WORD, max_size=4)).map(lambda t: "\t".join((t[0], *t[1]))), max_size=6).map("\n".join)


@settings(max_examples=150)
@given(st.lists(LINE, max_size=8), TABLE, TABLE, TABLE, TABLE)
def test_whatever_a_host_says_the_plan_and_its_script_are_made_or_refused_with_a_reason(lines: list[str], files: str, people: str, rest: str, packages: str) -> None:
    answer = {"probe": "", "receipts": "\n".join(lines), "files": files, "people": people, "rest": rest, "packages": packages, "units": packages, "offers": packages}
    raw = join({name: Section(0, text) for name, text in answer.items()}, "abc")
    with contextlib.suppress(Error):  # which has a message and a remedy; anything else is a bug
        plan = planned(parse(split(raw, "abc")), purge=True, ramdisk="update-initramfs -u")
        back_text(plan)
        render.stage(plan, run_id="back")


def test_the_scripts_that_look_and_tidy_quote_what_they_are_given() -> None:
    assert "'/a b'" in render_back.tidy(("/var/lib/mlhost", "/a b"))
    with pytest.raises(render.RenderError):
        render_back.tidy(("/var/lib/mlhost", "relative"))
    with pytest.raises(render.RenderError):
        render_back.take_back(TakeBack("nosuch", (), "x"))
