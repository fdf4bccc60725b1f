"""Many hosts: what is done once for all of them, and that a late host costs what an early one did."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision import catalog, playbook
from provision.capture import split
from provision.facts import parse
from provision.model import HostReport
from provision.plan import plan
from provision.report.jsonout import report_json, report_json_text
from provision.transport import hostkeys
from provision.transport.dial import Stream

ROOT = Path(__file__).resolve().parent.parent
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"


# ---------------------------------------------------------------- known_hosts

NAMES = st.sampled_from(["gpu-1", "gpu-2", "[gpu-1]:2222", "10.0.0.7", "GPU-1", "gpu-*", "!gpu-2", "gpu-?", "#gpu-1", "|1|c2FsdA==|bm9uZQ=="])
LINES = st.builds(
    lambda marker, names, gap, key: f"{marker}{','.join(names)}{gap}{key}",
    st.sampled_from(["", "", "@cert-authority ", "@revoked ", "  "]), st.lists(NAMES, min_size=1, max_size=3), st.sampled_from([" ", "\t", "  "]),
    st.sampled_from([KEY, KEY[:-4] + "AAAA", "ssh-rsa !", ""]),
)


@settings(max_examples=60)
@given(st.lists(LINES, max_size=12), st.sampled_from(["gpu-1", "gpu-2", "[gpu-1]:2222", "10.0.0.7"]))
def test_the_lines_about_a_host_say_what_the_whole_file_says(lines: list[str], name: str) -> None:
    path = Path(os.environ["XDG_STATE_HOME"]).with_name("known_hosts")
    path.write_text("\n".join(lines))
    hostkeys._by_name.cache_clear()  # as fast as this, two files may be of one age and one size
    about = hostkeys.concerning([str(path)], [name])
    assert hostkeys.known_keys(about, name) == hostkeys.known_keys(hostkeys.read_known_hosts([str(path)]), name)


def test_a_host_that_is_added_is_known_to_the_next_that_asks(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"gpu-1 {KEY}\n")
    assert [line for _, line in hostkeys.concerning([str(path), str(tmp_path / "none")], ["gpu-1", "gpu-2"])] == [f"gpu-1 {KEY}"]
    path.write_text(f"gpu-1 {KEY}\ngpu-2 {KEY}\n")
    assert [where for where, _ in hostkeys.concerning([str(path)], ["gpu-2"])] == [f"{path}:2"]


# ---------------------------------------------------------------- what is read once, and in large pieces


def test_many_hosts_that_ask_at_once_for_a_data_file_have_it_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, together = [], threading.Barrier(8)
    real = catalog.shipped_toml

    def counted(path: str) -> object:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(catalog, "shipped_toml", counted)
    catalog._packaged.cache_clear()
    threads = [threading.Thread(target=lambda: (together.wait(60), catalog.packaged("clouds"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == ["data/clouds.toml"]


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_stream_gives_every_byte_once_however_it_is_asked(data: bytes, sizes: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        stream, taken, turn = Stream(ours), b"", 0
        while piece := stream.recv(sizes[turn % len(sizes)]):
            assert len(piece) <= sizes[turn % len(sizes)]
            taken, turn = taken + piece, turn + 1
        assert taken == data
        assert stream.hung_up
        assert stream.first_bytes == data


# ---------------------------------------------------------------- the report


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_report_that_is_written_host_by_host_is_the_same_document(count: int) -> None:
    facts = parse(split((ROOT / "tests/hosts/debian13-cloud/probe.txt").read_bytes()))
    made = plan(facts, playbook.load(None).spec, catalog.load())
    reports = [HostReport(f"gpu-{number}", "pending", 3, made, made if number else None, message="\u202e öä\n\x1b[2J") for number in range(count)]
    text = "".join(report_json_text(reports))
    assert json.loads(text) == json.loads(json.dumps(report_json(reports)))
    if count:
        assert text == json.dumps(report_json(reports), indent=2) + "\n"
    assert text.isascii()


# ---------------------------------------------------------------- thousands


@pytest.mark.slow
def test_two_thousand_simulated_hosts_take_linear_time_and_little_memory() -> None:
    """In-process doubles of hosts (benchmarks/ten_thousand.py, which takes ten thousand); the room is for a busy machine."""
    from benchmarks.ten_thousand import growth, measured

    found = measured(2000, 50)
    assert (found["exit_code"], found["converged"]) == (0, 2000)
    grown = growth(found)
    assert grown["ratio"] < 2.5, grown
    assert grown["kb"] < 128, grown
