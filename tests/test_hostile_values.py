"""Values that try to become commands, taken all the way to real shells: refused with a word why, or arriving as what they are. A canary tells.

They come from a playbook, from `--set`, from a host's own answer, from a target; the shells are dash, bash and busybox, with stubs for the programs.
"""
# ruff: noqa: PT017 - a value may be taken or refused, and a refusal is looked at

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import actions, capture, render_back
from provision.actions import TakeBack
from provision.errors import Error, UsageError
from provision.facts import parse
from provision.model import OK, Item, Plan, PlatformRow, Section
from provision.plan import plan
from provision.playbook import load
from provision.render import RenderError, stage
from provision.sh import Sh, join
from provision.transport import SshOptions, open_transport, parse_target
from provision.transport.errors import BadTarget, WireError
from tests.machines import CATALOG, machine, with_docker
from tests.test_render import Host, host  # noqa: F401 - the fixture

pytestmark = pytest.mark.slow

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
# Each makes the file {c} if it is read as a command anywhere, or stands for something else to a shell.
INJECTIONS = (
    "$(touch {c})", "`touch {c}`", "'; touch {c}; '", '"; touch {c}; "', "\ntouch {c}\n", "\r\ntouch {c}", "; touch {c} #", "&& touch {c}", "| touch {c}", "$(touch${{IFS}}{c})",
    "${{x:-$(touch {c})}}", "\\$(touch {c})", "\\", "x\\\ntouch {c}\n", "--help", "-oProxyCommand=touch${{IFS}}{c}", "-o=APT::Update::Pre-Invoke::=touch${{IFS}}{c}",
    "*", "?", "[a-z]", "~root", "{{a,b}}", "!!", "%s%n", "$IFS", "\t", "é$(touch {c})", "\u2028touch {c}", "\x1b[2J", "'", '"', "$'\\n'", "a b", "#", "&", "<{c}", ">{c}", "\nEOF\ntouch {c}\n",
    "http://x/$(touch${{IFS}}{c})", 'http://x:1";DPkg::Pre-Invoke{{"touch {c}"}};"', "/data/$(touch${{IFS}}{c})", "reg.lan/x:$(touch${{IFS}}{c})", "29.$(touch${{IFS}}{c})", "ada$(touch${{IFS}}{c})",
)
SETTINGS = (
    "docker.users", "docker.version", "docker.data_root", "docker.insecure_registries", "docker.log.max_size", "docker.shm_size", "docker.daemon.label", "docker.ulimits.nofile", "driver.branch",
    "driver.minimum", "toolkit.version", "smoke.image", "mirrors.docker.url", "mirrors.docker.key_url", "mirrors.docker.fingerprint", "mirrors.registry", "proxy.http", "proxy.no_proxy",
    "storage.disk", "storage.path", "name",
)


def injections(canary: Path) -> list[str]:
    return [text.format(c=canary) for text in INJECTIONS]


def share(canary: Path, host: Host) -> list[str]:  # noqa: F811
    """What one of the three shells is tried with: all of it in the long run, else a third, so that each meets some shell every time."""
    first = ["dash", "bash", "busybox"].index(Path(host.shell[0]).name)
    return injections(canary) if "MLHOST_FUZZ" in os.environ else injections(canary)[first::3]


def accepted(key: str, value: str, folder: Path) -> list[str]:
    """The value as --set for this key, if it is taken; a refusal names the setting and says what to do. The same value in a file is judged the same."""
    texts = f"[{json.dumps(value)}]" if key in ("docker.users", "docker.insecure_registries", "mirrors.registry", "proxy.no_proxy") else value
    word = f"{key}={json.dumps(value) if key.startswith('docker.daemon') else texts}"
    verdicts = []
    *sections, last = key.split(".")
    lines = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    (folder / "p.yaml").write_text(f"{lines}{'  ' * len(sections)}{last}: {texts if texts != value else json.dumps(value)}\n")
    for source, sets in ((None, (word,)), (str(folder / "p.yaml"), ())):
        try:
            load(source, sets)
            verdicts.append(True)
        except UsageError as refused:
            assert refused.fix
            assert refused.exit_code == 2
            verdicts.append(False)
    assert verdicts[0] == verdicts[1] or verdicts[0] is False, (key, value)
    return [word] if verdicts[0] else []


def run_everything(host: Host, decided: Plan) -> None:  # noqa: F811
    """Carry the plan's stage out, whatever becomes of it."""
    host.run(stage(decided, run_id="run-1"))


def test_values_of_a_playbook(host: Host, tmp_path: Path) -> None:  # noqa: F811
    canary = tmp_path / "canary"
    taken = 0
    for text in share(canary, host):
        sets: list[str] = []
        for key in SETTINGS:
            sets += accepted(key, text, tmp_path)
        taken += len(sets)
        if not sets:
            continue
        try:
            loaded = load(None, (*sets, "docker.source=distro", "smoke.enabled=true"))
        except UsageError:  # two that are fine alone contradict each other
            loaded = load(None, (*[one for one in sets if one.startswith(("docker.daemon", "name", "smoke.image"))], "docker.source=distro"))
        run_everything(host, plan(machine(), loaded.spec, CATALOG))
        assert not canary.exists(), text
    assert taken > 10


def test_values_that_a_host_gives_itself(host: Host, tmp_path: Path) -> None:  # noqa: F811
    """Names, versions, files and codenames of a hostile machine, in a plan for it that another machine's operator carries out."""
    canary = tmp_path / "canary"
    real = dict(capture.split((Path(__file__).parent / "hosts/debian12-cloud/probe.txt").read_bytes()))
    ran = 0
    for text in share(canary, host):
        row = text.replace("\n", " ").replace("\r", " ")
        sections = dict(real)
        sections["hostname"] = Section(0, row)
        sections["kernel"] = Section(0, row)
        sections["os_release"] = Section(0, f"ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME={shlex.quote(row)}\nPRETTY_NAME={shlex.quote(row)}\n")
        word = row.replace(" ", "${IFS}")
        sections[f"file:/etc/apt/sources.list.d/{word.replace('/', '_')}.list"] = Section(0, f"deb [signed-by={word}] https://download.docker.com/linux/debian bookworm stable\n# {row}\ndeb http://{word} {word} main\n")
        sections["dpkg"] = Section(0, sections["dpkg"].text + f"\ndocker.io amd64 {word} install ok installed\n{word} amd64 1 install ok installed\n")
        sections["daemon_json"] = Section(0, json.dumps({"label": text, "data-root": row}))
        try:
            facts = parse(capture.split(capture.join(sections)))
            decided = plan(facts, load(None, ("docker.log.max_size=50m", "docker.remove_conflicts=true", "docker.source=distro")).spec, CATALOG)
            text_of_stage = stage(decided, run_id="run-1")
        except (RenderError, Error):
            continue
        ran += 1
        host.run(text_of_stage)
        assert not canary.exists(), text
    assert ran > 6


@pytest.mark.slow
def test_every_action_by_itself(host: Host, tmp_path: Path) -> None:  # noqa: F811
    canary = tmp_path / "canary"
    refused = 0
    for text in share(canary, host):
        kinds: tuple[actions.Action, ...] = (
            actions.File(f"/etc/x/{text}", text, owner="root:root"), actions.File("/etc/y", text), actions.JsonMerge("/etc/docker/daemon.json", "", text),
            actions.Packages((actions.Package(text),)), actions.Packages((actions.Package("docker-ce", text),)), actions.Packages((), (text,)), actions.Hold((text,)),
            actions.Service(text), actions.Service("docker.service", newer_than=(f"/{text}",), restore=f"/{text}"), actions.KernelModule((text,)), actions.GroupMember(text, "docker"),
            actions.GroupMember("bob", text), actions.Mount(f"/dev/{text}", f"/{text}"), actions.Smoke(text, 0), actions.Command("false", 'printf %s "$WORD" >"$MLHOST_ROOT/etc/own"', env=(("WORD", text),)),
            actions.AptRepository("docker", "/etc/apt/sources.list.d/x.sources", text, None),
        )
        items = []
        for number, action in enumerate(kinds):
            item = Item(f"x/{number}", "x", actions.kind(action), "change", text, action=action)
            try:
                stage(one(item, text), run_id="run-1")
            except (RenderError, ValueError):
                refused += 1
                continue
            items.append(item)
        for item in items:
            host.run(stage(one(item, text), run_id="run-1"))
            assert not canary.exists(), (item.kind, text)
            if isinstance(item.action, actions.File) and item.action.path == "/etc/y":
                assert host.read("/etc/y") == text.replace("\r\n", "\n") or Path(f"{host.root}/etc/y").read_bytes() == text.encode()
    assert refused > 50


def one(item: Item, name: str) -> Plan:
    first = plan(with_docker(machine()), load(None).spec, CATALOG)
    kept = tuple(replace(other, state=OK) for other in first.items[:1])
    return replace(first, host=name, items=(*kept, item), problems=(), platform=PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None))


@pytest.mark.parametrize("shell", SHELLS)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=12))
def test_the_one_mechanism_of_quoting(shell: str, words: list[str]) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"there is no {shell} here")
    done = subprocess.run([*SHELLS[shell], "-s"], input=f"printf '%s\\0' {join(words)}".encode(), capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_text_that_is_shell_already_is_only_what_says_so() -> None:
    assert join(["$(id)"]) == "'$(id)'"
    assert join([Sh("$(id)")]) == "$(id)"
    with pytest.raises(ValueError, match="NUL"):
        join(["a\0b"])


def test_targets_in_a_proxy_command(tmp_path: Path) -> None:
    """ssh_config hands host and user to a shell: what could be a command there is refused before."""
    canary, seen = tmp_path / "canary", tmp_path / "seen"
    config = tmp_path / "config"
    config.write_text(f"Host *\n  ProxyCommand printf '%%s\\n' %h %r %n >>{seen}\nMatch exec \"true %h %n %r\"\n  Port 22\n")
    refused = 0
    for text in injections(canary):
        for target in (text, f"{text}@gpu-7", f"ada@{text}:22", f"[{text}]:22"):
            try:
                parse_target(target)
            except BadTarget as error:
                assert error.fix
                refused += 1
                continue
            with open_transport(target, SshOptions(config_file=str(config), connect_timeout=3)) as transport, pytest.raises((WireError, Error)):
                transport.run("true")
            assert not canary.exists(), target
    assert refused > 100


def test_a_verify_script_and_a_rollback_take_only_what_they_know() -> None:
    for text in INJECTIONS:
        with pytest.raises(RenderError):
            render_back.take_back(TakeBack(text, (), "x"))
        try:
            check = render_back.take_back(TakeBack("file", ("run-1", text, "absent"), "x")).check
        except RenderError:
            continue
        assert join([text]) in check
