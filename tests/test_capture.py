"""Cutting the probe's answer into sections."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.capture import MAX_BYTES, join, redact, split
from provision.errors import ProbeFailed
from provision.model import Section

ANSWER = b"@@7f3a probe 0\nschema=1\nmode=live\n\n@@7f3a os_release 0\nID=debian\n\n@@7f3a daemon_json 2\n\n@@7f3a end 0\n\n"


def test_sections_have_their_code_and_their_text_byte_for_byte():
    sections = split(ANSWER, "7f3a")
    assert dict(sections) == {
        "probe": Section(0, "schema=1\nmode=live\n"), "os_release": Section(0, "ID=debian\n"), "daemon_json": Section(2, ""),
    }


def test_the_mark_of_a_capture_from_a_file_is_found():
    assert split(ANSWER) == split(ANSWER, "7f3a")


def test_what_a_login_shell_says_before_and_after_is_passed_over():
    noisy = b"Welcome to Ubuntu!\n\n * 3 updates\n@@not a section\n" + ANSWER + b"logout\n"
    assert split(noisy) == split(ANSWER)


def test_noise_without_a_newline_before_the_first_section_is_an_answer_without_sections():
    with pytest.raises(ProbeFailed, match="lacks its first section"):
        split(b"motd" + ANSWER, "7f3a")


def test_lines_that_end_in_carriage_returns_are_read_too():
    assert split(ANSWER.replace(b"\n", b"\r\n")) == split(ANSWER)


def test_bytes_that_are_no_utf_8_are_replaced():
    assert split(ANSWER.replace(b"debian", b"deb\xffian"))["os_release"].text == "ID=deb\ufffdian\n"


def test_only_newlines_end_a_line():
    text = "a\x0b@@7f3a end 0\u2028b\x85c"
    assert split(ANSWER.replace(b"ID=debian", text.encode()))["os_release"].text == text + "\n"


@pytest.mark.parametrize("length", range(15, len(ANSWER) - 2))
def test_an_answer_cut_short_anywhere_is_refused(length):
    with pytest.raises(ProbeFailed, match=r"cut short|no answer of the probe"):
        split(ANSWER[:length])


def test_an_answer_cut_short_names_the_last_section_and_what_to_do():
    with pytest.raises(ProbeFailed) as failed:
        split(ANSWER[: ANSWER.index(b"@@7f3a end")], "7f3a")
    assert "daemon_json" in failed.value.message
    assert "--format raw" in failed.value.fix


def test_no_answer_at_all_quotes_what_the_host_printed():
    with pytest.raises(ProbeFailed, match="This account is currently not available"):
        split(b"This account is currently not available.\n", "7f3a")


def test_a_section_that_comes_twice_is_refused():
    with pytest.raises(ProbeFailed, match="os_release twice"):
        split(ANSWER.replace(b"@@7f3a daemon_json 2", b"@@7f3a os_release 0"))


def test_a_section_after_the_end_is_refused():
    with pytest.raises(ProbeFailed, match="after its end"):
        split(ANSWER + b"@@7f3a packages 0\n\n")


@pytest.mark.parametrize("head", [b"@@7f3a os_release", b"@@7f3a os_release zero", b"@@7f3a os_release 1234", b"@@7f3a  0", b"@@7f3a "])
def test_a_malformed_head_is_refused(head):
    with pytest.raises(ProbeFailed, match="malformed"):
        split(ANSWER.replace(b"@@7f3a os_release 0", head))


def test_a_frame_with_another_mark_is_only_text():
    sections = split(ANSWER.replace(b"ID=debian", b"@@0000 end 0"), "7f3a")
    assert sections["os_release"].text == "@@0000 end 0\n"


def test_a_text_that_is_no_capture_is_refused_with_the_way_to_make_one():
    with pytest.raises(ProbeFailed, match="no answer of the probe") as failed:
        split(b'{"schema": 1}')
    assert "facts --format raw" in failed.value.fix


def test_an_answer_that_is_too_big_is_refused():
    with pytest.raises(ProbeFailed, match="too big"):
        split(b"x" * (MAX_BYTES + 1))


names = st.from_regex(r"[a-z][a-z0-9_:/. -]{0,20}[a-z0-9]", fullmatch=True).filter(lambda name: name not in ("end", "probe"))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60)


@given(st.dictionaries(names, st.builds(Section, st.integers(0, 255), texts), max_size=5))
def test_what_was_joined_is_split_into_the_same(sections):
    whole = {"probe": Section(0, "schema=1"), **sections}
    assert dict(split(join(whole, "c0ffee"), "c0ffee")) == whole


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_probe_failed(data):
    for text in (data, ANSWER[:60] + data + ANSWER[60:]):
        with contextlib.suppress(ProbeFailed):
            split(text)


def test_credentials_in_urls_are_replaced_by_stars():
    assert redact("deb https://me:s3cret@mirror.example/debian x main") == "deb https://***@mirror.example/debian x main"
    assert redact("mail me@example.org https://mirror.example/a@b") == "mail me@example.org https://mirror.example/a@b"
