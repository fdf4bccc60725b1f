"""What is fuzzed, and with what. A harness feeds one input to one reader; it may raise the errors that the reader promises, and nothing else.

Each also asserts what must hold for an input that was taken: what it printed is safe for a terminal, what it wrote can be read again.
"""
# ruff: noqa: PT017 - that nothing is raised is fine here, and what is raised is looked at

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from provision import aptsource, capture, daemonjson, journal, openpgp, reach, rpmsource, vendors
from provision import plan as planner
from provision.actions import Smoke
from provision.cli.facts import named
from provision.errors import Error
from provision.facts import apt, parse, rpm, system
from provision.follow import apply
from provision.model import HostReport, Section, Timing
from provision.playbook import load
from provision.progress import NullProgress
from provision.render import RenderError, stage
from provision.report import jsonout, junit, sanitize
from provision.report.factstext import facts_text
from provision.report.text import host_report_text, plan_text
from provision.sh import Sh
from provision.spec import Spec
from provision.transport import RunResult, SshOptions, hostcert, hostkeys, parse_target
from provision.transport.resolve import resolve
from tests.fuzz.inputs import SPITEFUL, bent, captures, playbooks, runs, scraps
from tests.machines import CATALOG, KEY, a_key

# Nothing that moves a cursor, recolours, reorders or hides; a newline is the report's own.
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Harness:
    """`inputs` draws, `feed` reads; `weight` is how many inputs of it are worth one of the slowest."""

    name: str
    inputs: st.SearchStrategy[Any]
    feed: Callable[[Any], None]
    weight: int = 1


def safe(text: str) -> None:
    found = UNSAFE.search(text)
    assert found is None, f"U+{ord(found.group()):04X} reaches the terminal: {text[max(0, found.start() - 40) : found.end() + 40]!r}"


# ---------------------------------------------------------------- the probe's answer


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A real answer, bent: sections changed, doubled, exchanged, lost, with forged frames in them, cut short; or bytes changed anywhere."""
    real = draw(st.sampled_from(captures()))
    how = draw(st.sampled_from(["sections", "sections", "sections", "bytes", "cut", "noise"]))
    if how == "cut":
        return real[: draw(st.integers(0, len(real)))]
    if how == "noise":
        return draw(st.binary(max_size=200)) + real + draw(st.binary(max_size=200))
    if how == "bytes":
        at = draw(st.integers(0, len(real)))
        return real[:at] + draw(st.binary(max_size=64)) + real[at + draw(st.integers(0, 64)) :]
    sections = dict(capture.split(real))
    names = sorted(sections)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names))
        old = sections.get(name, Section(0, ""))
        change = draw(st.sampled_from(["text", "text", "text", "rc", "lose", "swap", "frame", "name"]))
        if change == "text":
            sections[name] = Section(old.rc, draw(bent([old.text or "x"])))
        elif change == "rc":
            sections[name] = Section(draw(st.sampled_from([0, 1, 2, 13, 22, 27, 40, 111, 124, 127, 255])), old.text)
        elif change == "lose":
            sections.pop(name, None)
        elif change == "swap":
            sections[name] = Section(old.rc, sections.get(draw(st.sampled_from(names)), old).text)
        elif change == "frame":
            sections[name] = Section(old.rc, f"{old.text}\n@@{draw(st.sampled_from(['0', '1', 'ffff']))} {draw(st.sampled_from(names))} 0\nforged\n")
        else:
            prefix = draw(st.sampled_from(["file:/etc/apt/sources.list.d/", "path:/", "key64:/", "keyhex:/", "cdi:/", "run:1:", "proc:", "module:", "lock:", "proxy:"]))
            sections[prefix + draw(st.sampled_from(["x", "x.list", "x.sources", "x.repo", "meta", "end", "result", "a b", "²"]))] = Section(0, draw(scraps()))
    return capture.join(sections)


def read_answer(data: bytes) -> None:
    """The whole way from bytes to a printed plan and to the script that would run."""
    try:
        facts = parse(capture.split(data))
    except Error as error:
        assert error.message
        assert error.fix
        return
    json.dumps(jsonout.facts_json(facts), ensure_ascii=True, allow_nan=False)
    safe(facts_text(facts, *named(facts, CATALOG), verbose=True))
    decided = planner.plan(facts, Spec(), CATALOG)
    safe(plan_text(decided, verbose=True))
    json.dumps(jsonout.plan_json(decided), ensure_ascii=True, allow_nan=False)
    with contextlib.suppress(RenderError):
        stage(decided, run_id="fuzz")


# ---------------------------------------------------------------- playbooks


yaml_words = st.sampled_from(
    ["docker", "gpu", "driver", "&a", "*a", "<<", "!!python/object:os.system", "!!int", "!x", "|", ">", "? ", "- ", ": ", "[", "]", "{", "}", ",", "---", "...",
     "%YAML 1.2", "%TAG ! tag:x:", "'", '"', "~", "null", "yes", "0o17", "0x1f", "1:30", "1e400", ".nan", "2001-01-01", "@", "`", "\n", "\n  ", "\n    ", "\t", "#", "=",
     '"\\ud800"', '"\\x00"', '"\\U00110000"', "daemon", "users", "steps", "extends", "../x.yaml", "/dev/null", *SPITEFUL]
)
bombs = st.builds(
    lambda depth, width, kind: "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} {kind[0]}{', '.join([f'{kind[2]}*a{i - 1}'] * width)}{kind[1]}\n" for i in range(1, depth)),
    st.integers(2, 30), st.integers(1, 12), st.sampled_from(["[] ", "{}k: "]),
)
nested = st.builds(lambda unit, count: unit * count, st.sampled_from(["[", "{a: ", "- ", "? ", "{? ", "[{a: ["]), st.integers(1, 20_000))
yaml_texts = st.one_of(bent(playbooks()), bent(playbooks()), st.lists(yaml_words, max_size=40).map("".join), st.lists(yaml_words, max_size=40).map(" ".join), bombs, nested, runs(200_000))


def read_playbook(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "p.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape" if not re.search("[\ud800-\udc7f]", text) else "surrogatepass"))
        try:
            loaded = load(str(path))
        except Error as error:
            assert error.exit_code == 2
            assert error.message
            safe(error.message.replace("\n", ""))
            return
    assert len(loaded.digest) == 64
    # What was taken can be planned with, and what comes of it is a script or a refusal.
    decided = planner.plan(_machine(), loaded.spec, CATALOG)
    safe(plan_text(decided, verbose=True))
    with contextlib.suppress(RenderError):
        stage(decided, run_id="fuzz")


def _machine() -> Any:
    from tests import machines

    return machines.machine()


set_keys = st.sampled_from(
    ["gpu", "docker.version", "docker.users", "docker.daemon", "docker.daemon.x.y", "docker.ulimits.nofile", "docker.log.max_size", "docker.log.max_file", "driver.branch",
     "proxy.http", "proxy.no_proxy", "mirrors.docker.url", "mirrors.docker.fingerprint", "smoke.image", "storage.disk", "storage.path", "steps", "preflight.lock_wait", "docker", "", "x.y"]
)
sets = st.one_of(st.builds(lambda key, value: f"{key}={value}", set_keys, st.one_of(scraps(), yaml_texts)), scraps())


def read_set(text: str) -> None:
    try:
        loaded = load(None, (text,))
    except Error as error:
        assert error.exit_code == 2
        safe(error.message)
        return
    with contextlib.suppress(RenderError):
        stage(planner.plan(_machine(), loaded.spec, CATALOG), run_id="fuzz")


# ---------------------------------------------------------------- targets and ssh_config


targets = st.one_of(
    st.lists(st.sampled_from(["ada", "@", ":", "[", "]", "22", "::1", "fe80::1%eth0", "gpu-7", ".", "-", "%h", "/", "65536", *SPITEFUL]), max_size=7).map("".join), st.text(max_size=40)
)


def read_target(text: str) -> None:
    try:
        target = parse_target(text)
    except Error as error:
        assert error.exit_code == 2
        return
    assert parse_target(str(target)) == target
    assert not re.search(r"[\s\x00-\x1f'\"`$\\;&<>|()]", target.host + (target.user or ""))
    assert not target.host.startswith("-")


SSH_CONFIG = """\
Host gpu-* !gpu-9
    HostName %h.example.com
    User "ada b"
    Port 2222
    IdentityFile ~/.ssh/%r_%h
    ProxyJump bastion,two
    ConnectTimeout 1m30s
Match host *.example.com user ada,grace
    ProxyCommand nc -X connect %h %p
    UserKnownHostsFile ~/.ssh/a ~/.ssh/b
    IdentityAgent ${SSH_AUTH_SOCK}
Host *
    CanonicalizeHostname yes
    CanonicalDomains example.com
    CanonicalizeMaxDots 1
    StrictHostKeyChecking accept-new
    ServerAliveInterval 15
    Include more/*.conf
    SetEnv A=b
"""


def read_ssh_config(text: str) -> None:
    def refuse(*_args: object, **_kwargs: object) -> Any:
        raise OSError("no command is run here")

    with TemporaryDirectory() as folder:
        path = Path(folder) / "config"
        path.write_bytes(text.encode("utf-8", "replace"))
        # A doubled `Match exec` is a command of the user's own; none is run while fuzzing, and nothing outside of the folder is read.
        done = mock.Mock(returncode=1)
        with mock.patch("provision.transport.sshconfig.subprocess.run", return_value=done), mock.patch("provision.transport.sshconfig.glob.glob", return_value=[str(path)]):
            for target in ("gpu-7", "ada@gpu-9:22"):
                try:
                    host = resolve(parse_target(target), SshOptions(config_file=str(path)))
                except Error as error:
                    assert error.exit_code in (2, 4)
                    continue
                assert 0 < host.port < 65536


def read_known_hosts(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "known_hosts"
        path.write_bytes(data)
        lines = hostkeys.read_known_hosts([str(path)])
    for name in ("gpu-7", "[gpu-7]:2222"):
        known = hostkeys.known_keys(lines, name)
        blob = data[:200]
        hostkeys.check(blob, known, [])
        hostkeys.preferred(known, ["ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"])
        safe(sanitize.line(hostkeys.unknown_error("gpu-7:22", name, blob, "ssh gpu-7").message))


def read_host_key(blob: bytes) -> None:
    """What a server shows before anybody has logged in."""
    authority = [hostkeys.KnownKey("cert-authority", "ssh-ed25519", blob[:51], "known_hosts:1")]
    with contextlib.suppress(ValueError):
        if "-cert-" in hostkeys.kind_of(blob):
            assert hostcert.refusal(blob, authority, "gpu-7", 1e9)
            hostcert.plain_key(blob)


def ssh_blob(kind: str, *parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *parts))


blobs = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda kind, parts: ssh_blob(kind, *parts), st.sampled_from(["ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com", "x-cert-y"]), st.lists(st.binary(max_size=64), max_size=12)),
)
known_hosts = st.one_of(
    bent(["gpu-7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhr\n|1|c2FsdA==|ZGlnZXN0|x ssh-rsa AAAA\n@cert-authority *.example.com ssh-ed25519 AAAA\n@revoked [gpu-7]:2222,!gpu-9 ssh-rsa AAAA\n"]).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=200),
)

# ---------------------------------------------------------------- files of the host


DAEMON = ['{"log-driver": "local", "dns": ["10.0.0.1"], "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}, "mtu": 1450.0, "labels": ["é"]}', "{}", "\ufeff{\n}\n"]
daemons = st.one_of(
    bent(DAEMON),
    st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12).map(json.dumps),
    nested,
    st.builds(lambda count: '{"a":' * count, st.integers(1, 50_000)),
)
WANTED = {"default-runtime": "nvidia", "registry-mirrors": ["https://hub.lan"], "log-driver": "json-file", "log-opts": {"max-size": "50m"}}


def merge_daemon(text: str) -> None:
    try:
        merged = daemonjson.merge(text, WANTED)
        before = daemonjson.parse(text)
    except daemonjson.Malformed as error:
        assert str(error)
        return
    merged.text.encode("utf-8")
    after = json.loads(merged.text, parse_constant=lambda name: 1 / 0)
    assert all(after[key] == value for key, value in before.items() if key not in WANTED)
    assert daemonjson.merge(merged.text, WANTED).changed == ()


APT = [
    "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm stable\n# deb-src x y z\ndeb http://mirror.lan/debian bookworm main contrib\n",
    "Types: deb deb-src\nURIs: https://download.docker.com/linux/debian http://other.lan\nSuites: bookworm\nComponents: stable\nEnabled: yes\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n\n# c\nTypes: deb\nURIs: x\n",
]
YUM = [
    "[docker-ce-stable]\nname=Docker\nbaseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/stable\nenabled=1\ngpgcheck=1\ngpgkey=https://download.docker.com/linux/rhel/gpg\nexclude=a b\n\n"
    "[other]\nbaseurl=http://a.lan/\n http://b.lan/\nmirrorlist=http://m.lan\n[main]\nx=1\n"
]
DOCKER_DEB, DOCKER_RPM = ("https://download.docker.com/linux/debian",), ("https://download.docker.com/linux/rhel/9/x86_64/stable",)


def read_apt(text: str) -> None:
    for name, entries in (("a.list", apt.one_line("a.list", text)), ("a.sources", apt.deb822("a.sources", text))):
        aptsource.naming(entries, DOCKER_DEB)
        aptsource.clash(entries, "amd64")
        taken = aptsource.takeover("docker.sources", DOCKER_DEB, entries, {name: text}, ("docker*",), ("download.docker.com",))
        for _, rest in taken.edits:
            assert not aptsource.naming(apt.one_line(name, rest) if name.endswith(".list") else apt.deb822(name, rest), DOCKER_DEB)


def read_yum(text: str) -> None:
    entries = rpm.repo_file("a.repo", text)
    hits = rpmsource.naming(entries, DOCKER_RPM, "x86_64")
    rpmsource.takeover("docker.repo", "docker-ce-stable", hits, entries, {"a.repo": text}, ("docker*",), ("download.docker.com",))
    rpmsource.switched_on(text, "docker-ce-stable")


OS_RELEASE = ['ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nexport X=\'a b\'\n# c\nANSI_COLOR="0;31"\nY="a\nb"\nZ=$HOME\n']


def read_os_release(text: str) -> None:
    found = system.assignments(text)
    assert all(isinstance(value, str) for value in found.values())


keys = st.one_of(
    st.builds(lambda at, junk, cut: (KEY + a_key(2))[:at] + junk + (KEY + a_key(2))[at + cut :], st.integers(0, 2 * len(KEY)), st.binary(max_size=20), st.integers(0, 40)),
    st.binary(max_size=200),
    bent([f"-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\n\n{'mQENBF' * 8}\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"]).map(lambda text: text.encode("utf-8", "replace")),
)


def read_key(data: bytes) -> None:
    try:
        found = openpgp.fingerprints(data)
    except ValueError as error:
        assert "Traceback" not in str(error)
        assert str(error)
        return
    assert found
    assert all(re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", one) for one in found)


# ---------------------------------------------------------------- a run's journal


JOURNAL = (
    "motd\n@@mlhost journal 1-a\nS\t1-a\nE\t1700000000.5\tbegin\t-\thost, run 1-a\nE\t1700000001\tstart\tdocker/packages\tinstall\nL\tReading package lists...\nO\t120\t25\nH\n"
    "E\t1700000009.25\tchanged\tdocker/packages\t\nE\t1700000010\twait\tsmoke\tapt (812)\nE\t1700000011\tfailed\tsmoke\tno\nE\t1700000012\tend\t-\t1\nO\t300\t25\nR\t1\n"
)
locked = "@@mlhost journal 1-a\nK\trun=2\nK\towner=eve\nK\tsince=now\nK\n"
frames = st.lists(
    st.builds(lambda letter, rest: f"{letter}\t{rest}\n", st.sampled_from("ELOKRSFHX"), st.one_of(scraps(), st.builds("\t".join, st.lists(st.sampled_from(["0", "1", "nan", "inf", "-1e308", "²", "start", "end", "failed", "-", "x", *SPITEFUL]), max_size=5)))),
    max_size=30,
).map(lambda rows: "@@mlhost journal 1-a\n" + "".join(rows))


class _Host:
    """A double of a transport: what its script prints is the fuzzed text, in pieces."""

    name = "fuzz"

    def __init__(self, out: bytes) -> None:
        self._out = out

    def run(self, script: str, *args: str, on_output: Callable[[bytes], None] | None = None, **_: Any) -> RunResult:
        for at in range(0, len(self._out), 777):
            assert on_output is not None
            on_output(self._out[at : at + 777])
        return RunResult(1, self._out, self._out, 0.1)

    def close(self) -> None:
        pass


def read_journal(text: str) -> None:
    host: Any = _Host(text.encode("utf-8", "surrogateescape" if not re.search("[\ud800-\udc7f]", text) else "replace"))
    try:
        followed = apply(host, Sh(":\n"), "1-a", "ada@laptop", "", {}, NullProgress(), 5)
    except Error as error:
        safe(sanitize.line(error.message))
        return
    report = HostReport("fuzz", "failed", 1, outcomes=followed.outcomes, timings=(Timing("work", 1.0),), message=followed.reason(), run_ids=("1-a",), log=followed.log)
    safe(host_report_text(report, verbose=True))
    junit.junit_xml([report])
    json.dumps(jsonout.report_json([report]), ensure_ascii=True, allow_nan=False)


def read_event(text: str) -> None:
    event = journal.parse_event(text)
    if event is not None:
        journal.outcomes([event, event])


REACH = "@@m probe 0\n\n@@m reach:1 100\nE: Failed to fetch https://a.lan/x  Could not resolve 'a.lan'\nErr:1 https://a.lan\n\n@@m body:1 0\naGVsbG8=\n\n@@m reach:2 0\n\n@@m end 0\n\n"


def read_reach(text: str) -> None:
    asked = [("get", "https://a.lan/x"), ("head", "https://b.lan/y")]
    with contextlib.suppress(Error):
        for answer in reach.parse(text.encode("utf-8", "replace"), asked, "m").values():
            assert len(answer.said if hasattr(answer, "said") else "") <= 300


# ---------------------------------------------------------------- what the vendors serve


class _Served(vendors.Vendors):
    """A double of the vendors: every URL has the fuzzed bytes."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        object.__setattr__(self, "body", body)

    def get(self, url: str) -> bytes | None:
        if url.endswith("repomd.xml"):
            return b'<data type="primary"><location href="p.xml.%s"/></data>' % (b"xz" if self.body[:1] == b"\xfd" else b"gz")  # type: ignore[attr-defined]
        return self.body  # type: ignore[attr-defined,no-any-return]


PACKAGES = "Package: docker-ce\nArchitecture: amd64\nVersion: 5:29.7.2-1~debian.12~bookworm\nPriority: optional\n\nPackage: nvidia-driver\nVersion: 580.105.08-1\n\n"
PRIMARY = '<package><name>docker-ce</name><arch>x86_64</arch><version epoch="3" ver="29.7.2" rel="1.el9"/></package>\n'
RELEASES = '{"580": {"driver_info": [{"release_version": "580.105.08", "type": "LTS"}]}, "x": []}'


def read_vendor(data: bytes) -> None:
    served = _Served(data)
    for ask in (served.deb_packages, served.rpm_packages, served.key, served.releases):
        with contextlib.suppress(Error):
            ask("https://vendor.lan/x")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


served_bytes = st.one_of(
    bent([PACKAGES, PRIMARY, RELEASES]).map(_bytes), bent([PACKAGES]).map(lambda text: gzip.compress(_bytes(text))), bent([PRIMARY]).map(lambda text: lzma.compress(_bytes(text))),
    st.builds(lambda data, at: gzip.compress(data)[:at] + b"\x00" * (at % 3), st.binary(max_size=80), st.integers(0, 60)), st.builds(lambda data, at: lzma.compress(data)[:at], st.binary(max_size=80), st.integers(0, 90)),
    st.recursive(st.one_of(st.none(), st.integers(), st.text(max_size=4)), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["580", "driver_info", "release_version"]), inner, max_size=3), max_leaves=10).map(lambda value: json.dumps(value).encode()),
)

# ---------------------------------------------------------------- what is printed


def print_text(text: str) -> None:
    for shown in (sanitize.line(text), sanitize.block(text)):
        safe(shown)
        assert len(shown) <= sanitize.BLOCK + 1
    assert "\n" not in sanitize.line(text)
    assert sanitize.line(sanitize.line(text)) in (sanitize.line(text), sanitize.line(text) + "…")
    safe(sanitize.xml(text))


def word_in_script(image: str) -> None:
    """Values that the catalog does not vouch for still come out as one word, or not at all."""
    from provision.render import smoke_script

    with contextlib.suppress(RenderError, ValueError):
        smoke_script(Smoke(image, 0))


def texts(*real: str) -> st.SearchStrategy[str]:
    return st.one_of(bent(list(real)), st.text(max_size=60), runs(60_000))


HARNESSES: tuple[Harness, ...] = (
    Harness("probe answers", answers(), read_answer),
    Harness("random bytes as an answer", st.one_of(st.binary(max_size=400), st.binary(max_size=100).map(lambda data: b"@@0 probe 0\nschema=1\n\n@@0 os_release 0\n" + data + b"\n@@0 end 0\n\n")), read_answer, 2),
    Harness("playbooks", yaml_texts, read_playbook, 2),
    Harness("--set", sets, read_set, 2),
    Harness("targets", targets, read_target, 8),
    Harness("ssh_config", texts(SSH_CONFIG), read_ssh_config, 2),
    Harness("known_hosts", known_hosts, read_known_hosts, 4),
    Harness("host keys and certificates", blobs, read_host_key, 8),
    Harness("daemon.json", daemons, merge_daemon, 8),
    Harness("apt sources", texts(*APT), read_apt, 4),
    Harness("yum repositories", texts(*YUM), read_yum, 4),
    Harness("os-release", texts(*OS_RELEASE), read_os_release, 4),
    Harness("OpenPGP keys", keys, read_key, 8),
    Harness("journal streams", st.one_of(bent([JOURNAL, locked]), frames), read_journal, 2),
    Harness("journal events", st.one_of(bent(["1700000000.5\tstart\tdocker/packages\tinstall"]), st.builds("\t".join, st.lists(st.sampled_from(["0", "nan", "1e999", "x", *SPITEFUL]), min_size=4, max_size=4))), read_event, 8),
    Harness("reach answers", texts(REACH), read_reach, 4),
    Harness("vendors' files", served_bytes, read_vendor, 4),
    Harness("texts for a terminal", st.one_of(texts(*SPITEFUL), st.lists(st.sampled_from(SPITEFUL), max_size=20).map("".join)), print_text, 8),
    Harness("image names for a script", st.one_of(scraps(), st.text(max_size=40)), word_in_script, 4),
)


def by_name(names: Mapping[str, object] | Iterator[str] | tuple[str, ...]) -> tuple[Harness, ...]:
    """The harnesses of these names, all for none."""
    wanted = tuple(names)
    return tuple(harness for harness in HARNESSES if not wanted or harness.name in wanted)
