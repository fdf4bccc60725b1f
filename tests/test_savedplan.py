"""Plan files: written, read back, and compared with a plan made again. Captured hosts; no host is touched."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision import catalog, playbook, savedplan
from provision.actions import JsonMerge
from provision.capture import split
from provision.errors import UsageError
from provision.facts import parse
from provision.model import CHANGE, Facts, Plan, Problem
from provision.plan import plan
from provision.playbook import Loaded

HOSTS = Path(__file__).parent / "hosts"
VALUES = (
    "docker.source=distro",
    "docker.users=[ada]",
    "docker.live_restore=yes",
    "docker.ulimits.memlock=unlimited",
    "docker.daemon.debug=true",
    "docker.daemon.max-download-attempts=7",
    "docker.log.max_size=50m",
    "driver.branch=580",
    "proxy.http=http://me:secret@proxy.invalid:3128",
    "proxy.no_proxy=[a.invalid]",
    "preflight.root_free_gb=1",
    "preflight.docker_free_gb=1",
)


def facts(name: str = "debian12-cloud") -> Facts:
    return parse(split((HOSTS / name / "probe.txt").read_bytes()))


def decided(loaded: Loaded, seen: Facts | None = None) -> Plan:
    made = plan(seen or facts(), loaded.spec, catalog.load())
    # whether sources can be reached, which a capture does not say, is not this test's business
    return replace(made, problems=tuple(p for p in made.problems if not p.id.startswith("network")))


def stripped(made: Plan) -> Plan:
    """The plan without what needs a key from the network."""
    return replace(made, items=tuple(i for i in made.items if not i.kind.endswith("repository")))


def saved(*sets: str, name: str = "debian12-cloud") -> tuple[savedplan.Saved, Loaded, Plan]:
    loaded = playbook.load(None, sets)
    made = stripped(decided(loaded, facts(name)))
    text = savedplan.write([savedplan.saved_host("root@gpu-7", made, made)], loaded, made="2026-11-23T07:00:00Z", by="me@here")
    return savedplan.read(text.encode(), "x.plan"), loaded, made


def texts(found: list[savedplan.Difference]) -> str:
    return "\n".join(f"{d.id}: {d.text}" for d in found)


def test_a_plan_is_read_back_with_every_value_it_was_made_from() -> None:
    back, loaded, _ = saved(*VALUES)
    assert back.loaded.digest == loaded.digest
    assert back.loaded.spec.docker == loaded.spec.docker
    assert back.loaded.spec.proxy == loaded.spec.proxy
    assert back.hosts[0].target == "root@gpu-7"
    assert (back.made, back.by) == ("2026-11-23T07:00:00Z", "me@here")


@pytest.mark.parametrize("name", ["debian12-cloud", "ubuntu2404-aws-l4", "rhel9-h100", "debian13-h100"])
def test_the_same_host_gives_no_difference(name: str) -> None:
    back, loaded, _ = saved(name=name)
    again = stripped(decided(back.loaded, facts(name)))
    assert savedplan.differences(back.hosts[0], again, again) == []
    assert loaded.digest == back.loaded.digest


def test_a_changed_daemon_json_is_a_difference_even_where_only_a_blank_was_added() -> None:
    back, _, _ = saved("docker.log.max_size=50m")
    seen = replace(facts(), daemon_json="{ }\n", daemon_json_sha256="0" * 64)
    again = stripped(decided(back.loaded, seen))
    item = next(i for i in again.items if isinstance(i.action, JsonMerge))
    assert item.state == CHANGE
    found = savedplan.differences(back.hosts[0], again, again)
    assert "docker/daemon.json: what would be done for it is something else now" in texts(found)


def test_every_kind_of_difference_is_told_in_words() -> None:
    back, _, made = saved()
    other = facts("debian13-h100")
    found = texts(savedplan.differences(back.hosts[0], stripped(decided(back.loaded, other)), None))
    assert "platform.version: was 12, is 13" in found
    assert "gpus: were none, are NVIDIA H100" in found
    assert "decision driver" in found
    assert "is new (change" in found
    worse = replace(made, problems=(Problem("disk/root", "The disk is full.", "Empty it."),))
    assert "problem disk/root: The disk is full." in texts(savedplan.differences(back.hosts[0], worse, None))
    told = replace(made, restarts=("docker.service (3 containers are running and will stop)",))
    assert "3 containers are running" in texts(savedplan.differences(back.hosts[0], told, None))
    assert "the plan is for" in texts(savedplan.differences(back.hosts[0], replace(made, host="another"), None))
    fewer = replace(made, items=made.items[1:])
    assert "is not in the plan any more" in texts(savedplan.differences(back.hosts[0], fewer, None))


def test_another_script_for_the_same_plan_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    back, _, made = saved()
    monkeypatch.setattr(savedplan, "_script", lambda _ready: "another")
    assert [d.id for d in savedplan.differences(back.hosts[0], made, made)] == ["script"]


def test_the_reasons_may_be_in_other_words() -> None:
    back, _, made = saved()
    again = replace(made, items=tuple(replace(i, why="another reason") for i in made.items))
    assert savedplan.differences(back.hosts[0], again, again) == []


def document() -> dict[str, object]:
    loaded = playbook.load(None, VALUES)
    made = stripped(decided(loaded))
    text = savedplan.write([savedplan.saved_host(None, made, made)], loaded, made="x", by="y")
    value: dict[str, object] = json.loads(text)
    return value


def signed(value: dict[str, object]) -> bytes:
    """As somebody would forge it who knows how the checksum is made."""
    value.pop("sha256", None)
    return json.dumps({**value, "sha256": savedplan._sum(value)}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no plan file"),
        (b'{"schema": 1}', "no plan file"),
        (b'{"mlhost_plan": 2, "version": "9"}', "was made by mlhost 9"),
        (json.dumps({**document(), "version": "0.0.1"}).encode(), "was made by mlhost 0.0.1"),
        (json.dumps({**document(), "by": "somebody else"}).encode(), "edited or damaged"),
        (json.dumps(document()).encode()[:-20], "not JSON"),
        (signed({**document(), "hosts": []}), "names no host"),
        (signed({**document(), "hosts": [{"target": 1}]}), "lacks a part"),
        (signed({**document(), "hosts": document()["hosts"] * 2}), "one twice"),  # type: ignore[operator]
        (signed({**document(), "values": {"docker": {"users": "$(id)"}}}), "wants a list"),
        (signed({**document(), "values": {"dokker": {}}}), "unknown key"),
        (signed({**document(), "values": 3}), "lacks a part"),
        (signed({**document(), "steps": [3]}), "lacks a part"),
    ],
)
def test_what_is_no_whole_plan_file_is_a_usage_error(content: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        savedplan.read(content, "x.plan")
    assert caught.value.exit_code == 2
    assert caught.value.fix


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.sampled_from(["values", "steps", "hosts", "made", "by"]), JSON)
def test_no_forged_part_ends_in_anything_but_a_usage_error(part: str, value: object) -> None:
    with contextlib.suppress(UsageError):
        savedplan.read(signed({**document(), part: value}), "x.plan")
