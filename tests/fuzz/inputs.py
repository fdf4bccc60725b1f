"""Inputs: real texts bent out of shape, and texts that are nothing at all.

What is random is drawn by hypothesis, so that a finding shrinks to its smallest form and comes back with its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTS = ROOT / "tests" / "hosts"

# What breaks parsers: terminal sequences, marks of other formats, numbers beyond any machine, quotes, blanks that are none, text that reorders text.
SPITEFUL = (
    "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x07", "\x08" * 5, "\r", "\x85", "\u2028",
    "9" * 5000, "-" + "9" * 30, "1e999", "nan", "-inf", "0x", "٣", "²", "1_000", "ſ", "İ", "ﬃ",
    "'", '"', "\\", "`id`", "$(id)", "${IFS}", ";id;", "|id", "&&id", "\n-x", "--help", "-oProxyCommand=id", "../../../etc/passwd", "%s%n", "*", "?", "[",
    "@@", "@@0 end 0", "\n@@0 end 0\n", "{", "}", "[]", "{{", "{%", "<script>", "]]>", "&amp;", "=", "==", ":", "::", "#", ",", "\t", " ", "\udcff",
    "ünïcode", "日本", "😀" * 4, "a\u0301" * 50, "\ufdd0", "\U000e0041",
)
# Units of long runs: what a repetition in a regular expression can be made to go over again and again.
UNITS = (" ", "\t", "a", "0", "-", ".", "/", "=", ":", ",", '"', "'", "\\", "(", "[", "{", "<", "$a", "${a}", "a=", "a ", "1 ", " 1", "://", "a.1", "A: ", "\n", "\n ", "#", "@", "\x1b[")


def runs(longest: int) -> st.SearchStrategy[str]:
    """One unit many times over."""
    return st.builds(lambda unit, count: unit * (count // len(unit)), st.sampled_from(UNITS), st.sampled_from([64, 4096, longest]))


def scraps(longest: int = 20_000) -> st.SearchStrategy[str]:
    """Small pieces of malice."""
    return st.one_of(st.sampled_from(SPITEFUL), st.text(max_size=12), runs(longest))


@st.composite
def bent(draw: st.DrawFn, texts: Sequence[str], longest: int = 20_000) -> str:
    """One of these texts with up to five changes: pieces put in, taken out, doubled, exchanged or cut off."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(text)))
        to = min(len(text), at + draw(st.sampled_from([0, 1, 2, 8, 64, 512])))
        how = draw(st.sampled_from(["put", "put", "replace", "drop", "double", "cut", "line"]))
        if how == "put":
            text = text[:at] + draw(scraps(longest)) + text[at:]
        elif how == "replace":
            text = text[:at] + draw(scraps(longest)) + text[to:]
        elif how == "drop":
            text = text[:at] + text[to:]
        elif how == "double":
            text = text[:to] + text[at:to] + text[to:]
        elif how == "line":
            lines = text.split("\n")
            number = draw(st.integers(0, len(lines) - 1))
            lines[number] = draw(st.one_of(scraps(longest), st.sampled_from(lines)))
            text = "\n".join(lines)
        else:
            text = text[:at]
    return text


@lru_cache(maxsize=1)
def captures() -> tuple[bytes, ...]:
    """What the probe said on real machines."""
    return tuple(path.read_bytes() for path in sorted(HOSTS.glob("*/probe.txt")))


@lru_cache(maxsize=1)
def playbooks() -> tuple[str, ...]:
    """Playbooks that are in use, and one that sets everything."""
    everything = """\
name: all
gpu: auto
reboot: ask
docker:
  source: docker-ce
  version: "29.7"
  users: [ada, grace]
  data_root: /data/docker
  log: {max_size: 50m, max_file: 3}
  live_restore: yes
  shm_size: 8g
  ulimits: {memlock: unlimited, nofile: 1048576}
  insecure_registries: [registry.lan:5000]
  daemon: &daemon {debug: false, dns: [10.0.0.1], log-driver: local}
driver: {branch: "580", minimum: "570.86", drift: hold}
smoke: {image: "registry.lan:5000/cuda:12@sha256:DIGEST"}
mirrors:
  docker: {url: "https://mirror.lan/docker", fingerprint: "FINGERPRINT"}
  registry: ["https://hub.lan"]
proxy: {http: "http://ada:secret@proxy.lan:3128", no_proxy: [localhost, .lan, 10.0.0.0/8]}
storage: {disk: /dev/disk/by-id/nvme-1, path: /mnt/scratch}
preflight: {lock_wait: 900}
""".replace("DIGEST", "a" * 64).replace("FINGERPRINT", "0123456789" * 4)
    return (everything, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "playbooks").glob("*.yaml"))))
