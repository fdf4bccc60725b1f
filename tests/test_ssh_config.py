"""ssh_config, read as OpenSSH reads it: `ssh -G` is the judge."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest

from provision.transport import SshOptions, Target
from provision.transport.errors import SshConfigError
from provision.transport.resolve import Host, resolve
from provision.transport.sshconfig import Lookup, read
from tests.sshd import needs

SAMPLES = {
    "first value wins": "Host a*\n  User one\nHost *\n  User two\n  Port 2200\n",
    "settings before any host": "User early\nHost there\n  User late\n",
    "equals signs and quotes": 'Host there\n  HostName="h.example"\n  User = "who ever"\nPort=77\n',
    "case of keywords": "HOST there\n hostNAME H.Example\n PORT 5\n",
    "negation": "Host * !there\n  User wrong\nHost th?re\n  User right\n",
    "several patterns": "Host x there y\n  Port 91\n",
    "comments": "# one\n   # two\nHost there # three\n  Port 92 # four\n",
    "identities add up": "Host there\n  IdentityFile ~/.ssh/a\n  IdentityFile /b/%h-%r-%p\nHost *\n  IdentityFile /c\n  IdentityFile ~/.ssh/a\n",
    "tokens in the host name": "Host there\n  HostName %h.example.com\n",
    "match host": "Host there\n  HostName real\nMatch host real\n  User by-real\nMatch host there\n  User by-alias\n",
    "match original host": "Host there\n  HostName real\nMatch originalhost there user root,x\n  Port 44\nMatch originalhost there\n  Port 45\n",
    "match all and negated": "Match !host there\n  User no\nMatch all\n  User yes\n",
    "match exec": 'Match exec "test %n = there"\n  User ran\nMatch exec "false"\n  Port 1\n',
    "match final": "Host there\n  HostName real\nMatch final host real\n  User final\nHost *\n  User first\n",
    "proxy jump": "Host there\n  ProxyJump a,me@b:99\nHost *\n  ProxyCommand nc %h %p\n",
    "proxy command first": "Host there\n  ProxyCommand nc -X connect %h %p\nHost *\n  ProxyJump a\n",
    "proxy jump none": "Host there\n  ProxyJump none\nHost *\n  ProxyJump a\n",
    "known hosts": "Host there\n  UserKnownHostsFile /k/%h ~/k2\n  GlobalKnownHostsFile /g\n",
    "timeouts": "Host there\n  ConnectTimeout 1m\n  ServerAliveInterval 7\n  ServerAliveCountMax 2\n",
    "strict": "Host there\n  StrictHostKeyChecking accept-new\n  HashKnownHosts yes\n  HostKeyAlias Other\n",
    "include": "Include inc/*.conf\nHost *\n  User after\n",
    "include in a block that does not apply": "Host elsewhere\n  Include inc/*.conf\nHost there\n  User kept\n",
}
KEYWORDS = ("hostname", "user", "port", "proxyjump", "proxycommand", "stricthostkeychecking", "hashknownhosts", "hostkeyalias")


@pytest.fixture
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    # Absolute, because with -F a relative Include means ~/.ssh, and this is nobody's home.
    text = SAMPLES[request.param].replace("Include inc/", f"Include {tmp_path}/inc/")
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "1.conf").write_text("Host there\n  User included\n")
    (tmp_path / "inc" / "2.conf").write_text("Port 2020\n")
    path = tmp_path / "config"
    path.write_text(text)
    return path


@pytest.mark.parametrize("config", SAMPLES, indirect=True)
def test_every_setting_is_what_openssh_says_it_is(config: Path) -> None:
    shown = subprocess.run(
        [needs("ssh", "openssh-client"), "-G", "-F", str(config), "there"], capture_output=True, text=True, check=True
    ).stdout
    theirs: dict[str, list[str]] = {}
    for line in shown.splitlines():
        keyword, _, value = line.partition(" ")
        theirs.setdefault(keyword, []).append(value)
    ours = read(Target("there"), str(config))
    host = resolve(Target("there"), SshOptions(config_file=str(config)))
    assert host.host.lower() == theirs["hostname"][0].lower()
    assert host.user == theirs["user"][0]
    assert str(host.port) == theirs["port"][0]
    for keyword in ("proxyjump", "proxycommand"):
        said = [word for word in ours.values.get(keyword, []) if word != "none"]
        assert " ".join(said) == theirs.get(keyword, [""])[0]
    for keyword, default in (("stricthostkeychecking", "ask"), ("hashknownhosts", None), ("hostkeyalias", None)):
        if ours.first(keyword) or default:
            assert _plain(ours.first(keyword) or default) == _plain(theirs[keyword][0])
    if "identityfile" in ours.values:
        assert [ours.expand(path, tilde=True) for path in ours.values["identityfile"]] == [
            ours.expand(path, tilde=True) for path in theirs["identityfile"]
        ]
    if "userknownhostsfile" in ours.values:
        said = [ours.expand(path, tilde=True) for path in ours.values["userknownhostsfile"]]
        assert said == [ours.expand(path, tilde=True) for path in theirs["userknownhostsfile"][0].split()]
    if "connecttimeout" in ours.values:
        assert (str(int(host.connect_timeout)), str(int(host.keepalive_seconds)), str(host.keepalive_count)) == (
            theirs["connecttimeout"][0],
            theirs["serveraliveinterval"][0],
            theirs["serveralivecountmax"][0],
        )


def _plain(value: object) -> str:
    """ssh -G shows yes and no as yes, true or the like, according to its version."""
    text = str(value).lower()
    return {"yes": "true", "no": "false"}.get(text, text)


def lookup(tmp_path: Path, text: str, target: Target = Target("there")) -> Lookup:  # noqa: B008 - frozen
    path = tmp_path / "config"
    path.write_text(text)
    return read(target, str(path))


def host(tmp_path: Path, text: str, target: Target = Target("there"), **options: object) -> Host:  # noqa: B008 - frozen
    path = tmp_path / "config"
    path.write_text(text)
    return resolve(target, SshOptions(config_file=str(path), **options))  # type: ignore[arg-type]


def test_the_target_wins_over_ssh_config(tmp_path: Path) -> None:
    found = host(tmp_path, "Host there\n  User them\n  Port 99\n", Target("there", "me", 22))
    assert (found.user, found.port) == ("me", 22)


def test_without_any_file_the_defaults_hold() -> None:
    found = resolve(Target("there"), SshOptions(config_file="none"))
    assert (found.host, found.port, found.user, found.host_keys) == ("there", 22, getpass.getuser(), "enforce")
    assert (found.connect_timeout, found.keepalive_seconds, found.keepalive_count) == (10.0, 15.0, 3)
    assert str(found) == f"{getpass.getuser()}@there:22"


def test_the_users_file_comes_before_the_systems(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Include more\n")
    (tmp_path / ".ssh" / "more").write_text("Host there\n  User mine\n")
    system = tmp_path / "ssh_config"
    system.write_text("Host there\n  User system\n  Port 23\n")
    found = read(Target("there"), None, home=str(tmp_path), system_file=str(system))
    assert (found.remote_user, found.remote_port) == ("mine", 23)


def test_all_tokens_of_a_path_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHOST_TEST_KEYS", "/keys")
    found = host(
        tmp_path, "Host there\n  HostName real\n  User u\n  Port 5\n  IdentityFile ${MLHOST_TEST_KEYS}/%%-%h-%n-%p-%r-%i\n"
    )
    assert found.identities == (f"/keys/%-real-there-5-u-{os.getuid()}",)


def test_the_port_is_part_of_the_name_in_known_hosts(tmp_path: Path) -> None:
    assert host(tmp_path, "Host there\n  HostName Real\n").known_as == "real"
    assert host(tmp_path, "Host there\n  HostName Real\n  Port 23\n").known_as == "[real]:23"
    assert host(tmp_path, "Host there\n  HostKeyAlias Alias\n  Port 23\n").known_as == "alias"


def test_a_chain_of_jumps_is_resolved_hop_by_hop(tmp_path: Path) -> None:
    text = "Host there\n  ProxyJump first,me@second:99\nHost first\n  HostName one.example\nHost *\n  User all\n"
    jumps = host(tmp_path, text).jumps
    assert [str(jump) for jump in jumps] == ["all@one.example:22", "me@second:99"]


def test_a_jump_host_for_every_host_is_not_its_own(tmp_path: Path) -> None:
    text = "Host *\n  ProxyJump bastion\n"
    assert [jump.host for jump in host(tmp_path, text).jumps] == ["bastion"]
    assert host(tmp_path, text, Target("bastion")).jumps == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Host there\n  Port many\n", "gives the port 'many'"),
        ("Host there\n  Port 70000\n", "gives the port '70000'"),
        ("Host there\n  User\n", r"config:2: User has no value"),
        ('Host "there\n', r"config:1: unbalanced quotes"),
        ("=\n", r"config:1: cannot be read"),
        ("Match tagged x\n  User y\n", r"config:1: 'Match tagged' is not supported"),
        ("Match host\n", r"config:1: 'Match host' is not supported"),
        ("Host there\n  IdentityFile ${NO_SUCH_VARIABLE_HERE}/x\n", "that variable is not set"),
        ("Host there\n  ProxyCommand nc %Z\n", "token %Z"),
        ("Host there\n  StrictHostKeyChecking perhaps\n", "StrictHostKeyChecking 'perhaps'"),
        ("Host there\n  ConnectTimeout soon\n", "connecttimeout 'soon'"),
        ("CanonicalizeHostname yes\nCanonicalDomains example.com\n", "CanonicalizeHostname"),
        ("Host there\n  ProxyJump a b c:x\n", "port 'x'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_place(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason) as caught:
        host(tmp_path, text)
    assert getattr(caught.value, "exit_code", None) == 2


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SshConfigError, match="nested more than 16 deep"):
        lookup(tmp_path, f"Include {tmp_path}/config\n")


def test_an_unknown_host_key_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SshConfigError, match="'maybe' is no way to treat host keys"):
        host(tmp_path, "", host_keys="maybe")
