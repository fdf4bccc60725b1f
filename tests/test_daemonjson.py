"""Merging into daemon.json: nothing of the user's is lost, and nothing is written where nothing changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.daemonjson import Malformed, merge, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


def test_the_result_means_what_nvidia_ctk_gives_and_keeps_the_users_other_runtimes():
    there = '{"runtimes": {"kata": {"path": "/opt/kata"}}, "debug": true}'
    merged = merge(there, {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}})
    assert json.loads(merged.text) == {
        "runtimes": {"kata": {"path": "/opt/kata"}, "nvidia": {"args": [], "path": "nvidia-container-runtime"}},
        "debug": True,
    }
    assert merged.changed == ("runtimes",)
    assert not merged.needs_restart


def test_features_are_merged_and_not_replaced():
    merged = merge('{"features": {"buildkit": true}}', {"features": {"cdi": True}})
    assert json.loads(merged.text)["features"] == {"buildkit": True, "cdi": True}
    assert merged.needs_restart


@given(OBJECTS, OBJECTS)
def test_a_second_merge_changes_nothing_and_every_key_of_the_user_is_still_there(there, wanted):
    text = json.dumps(there)
    once = merge(text, wanted)
    assert merge(once.text, wanted).changed == ()
    new = parse(once.text)
    assert all(key in new for key in there if key != "log-opts")
    assert all(new[key] == value for key, value in there.items() if key not in wanted and key != "log-opts")
    assert once.changed or once.text == text


@pytest.mark.parametrize("text", ['{ "debug" :true,\n\n"mtu": 1400}\n', '{"mtu":1400,"debug":true}'])
def test_what_says_it_already_stays_byte_for_byte(text):
    assert merge(text, {"debug": True}).text == text


def test_true_is_not_one():
    assert merge('{"debug": 1}', {"debug": True}).changed == ("debug",)


def test_mirrors_of_the_user_stay_behind_those_wanted():
    merged = merge('{"registry-mirrors": ["https://mine.example/"]}', {"registry-mirrors": ["https://site.example"]})
    assert json.loads(merged.text)["registry-mirrors"] == ["https://site.example", "https://mine.example/"]
    assert merge(merged.text, {"registry-mirrors": ["https://mine.example"]}).changed == ()


def test_other_lists_are_one_value():
    assert json.loads(merge('{"dns": ["1.1.1.1"]}', {"dns": ["9.9.9.9"]}).text)["dns"] == ["9.9.9.9"]


def test_the_options_of_another_log_driver_go_with_it():
    merged = merge(
        '{"log-driver": "syslog", "log-opts": {"syslog-address": "udp://x"}}',
        {"log-driver": "json-file", "log-opts": {"max-size": "50m"}},
    )
    assert json.loads(merged.text) == {"log-driver": "json-file", "log-opts": {"max-size": "50m"}}


def test_options_of_the_same_log_driver_are_kept():
    merged = merge(
        '{"log-driver": "json-file", "log-opts": {"labels": "a"}}', {"log-driver": "json-file", "log-opts": {"max-size": "50m"}}
    )
    assert json.loads(merged.text)["log-opts"] == {"labels": "a", "max-size": "50m"}


@pytest.mark.parametrize("text", ["", " \n", "\ufeff{}"])
def test_an_empty_file_is_an_empty_object(text):
    assert parse(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,}', "line 1: a comma before a closing bracket"),
        ("{\n  // a comment\n}", "JSON has no comments"),
        ("[]", "not an object"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a":' * 100000, "too deeply"),
        ('{"a": {"b": 1, "b": 2}}', "twice"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(text, words):
    with pytest.raises(Malformed, match=words):
        merge(text, {"debug": True})
