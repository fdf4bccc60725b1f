"""Rendered stages: their text, and what they do to a fake root under three shells with stub programs (tests/stubs: no real apt, Docker or GPU)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provision import actions, render, render_back
from provision.journal import Event, outcomes, parse_event
from provision.model import CHANGE, LATER, OK, Item, Plan, PlatformRow
from provision.sh import Sh

STUBS = Path(__file__).parent / "stubs"
PLATFORM = PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None)
KEY = actions.Key(
    "docker",
    "https://download.docker.com/linux/debian/gpg",
    ("9DC8",),
    "/etc/apt/keyrings/docker.asc",
    b"-- a key, not really --\n",
)
REPOSITORY = actions.AptRepository(
    "docker",
    "/etc/apt/sources.list.d/docker.sources",
    "Types: deb\nURIs: https://download.docker.com/linux/debian\n",
    KEY,
    obsolete=("/etc/apt/sources.list.d/docker.list",),
    edits=(("/etc/apt/sources.list", "# ours is gone\n"),),
)
HOSTILE = "a'b\"c $(touch /tmp/mlhost-was-here) `id` \\ \n-rf\t%s ;|&\n"
SOURCE_BEFORE = "deb https://download.docker.com/linux/debian bookworm stable\n"
DAEMON = "/etc/docker/daemon.json"


def plan(*wanted: actions.Action, states: dict[int, str] | None = None, why: str = "it is not so") -> Plan:
    items = [
        Item(f"step/{number}", "step", actions.kind(action), (states or {}).get(number, CHANGE), why, action=action)
        for number, action in enumerate(wanted, 1)
    ]
    return Plan("a-host", PLATFORM, (), {}, tuple(items))


def script(*wanted: actions.Action, **options: object) -> Sh:
    return render.stage(plan(*wanted), run_id="run-1", **options)  # type: ignore[arg-type]


@dataclass
class Host:
    """A fake root and the stubs' state; `run` runs a script on it."""

    folder: Path
    shell: list[str]
    path: str
    events: list[Event] = field(default_factory=list)
    log: str = ""

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def stub(self) -> Path:
        return self.folder / "stub"

    def run(self, text: str) -> int:
        journal = self.folder / "events"
        journal.write_text("")
        (self.folder / "script.sh").write_text(text, encoding="utf-8", errors="surrogateescape")
        env = {
            "PATH": self.path,
            "STUB": str(self.stub),
            "MLHOST_ROOT": str(self.root),
            "MLHOST_EVENTS": str(journal),
            "MLHOST_PAUSE": "0.01",
            "MLHOST_PATIENCE": "3",
            "MLHOST_PROC_MOUNTS": str(self.stub / "mounts"),
        }
        done = subprocess.run(
            [*self.shell, str(self.folder / "script.sh")],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        self.log = done.stdout.decode(errors="replace")
        parsed = [parse_event(line) for line in journal.read_text().splitlines()]
        assert None not in parsed
        self.events = [event for event in parsed if event is not None]
        return done.returncode

    def states(self) -> list[str]:
        return [outcome.state for outcome in outcomes(self.events)]

    def detail(self) -> str:
        return next(event.detail for event in self.events if event.kind in ("failed", "reboot"))

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = Path(f"{self.root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def read(self, path: str) -> str:
        return Path(f"{self.root}{path}").read_text()

    def has(self, path: str) -> bool:
        return os.path.lexists(f"{self.root}{path}")

    def knows(self, name: str, text: str = "") -> None:
        file = self.stub / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def calls(self, program: str) -> list[str]:
        lines = (self.stub / "calls").read_text().splitlines() if (self.stub / "calls").exists() else []
        return [line for line in lines if line.split(" ")[0] == program]

    def snapshot(self) -> dict[str, tuple[int, str]]:
        """Every file outside mlhost's own state, with its time of change and content."""
        files = [path for path in self.root.rglob("*") if path.is_file() and "var/lib/mlhost" not in str(path)]
        return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


@pytest.fixture(params=["dash", "bash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"the shell {request.param} is missing")
    path = str(STUBS)
    shell = [program]
    if request.param == "busybox":
        shell = [program, "sh"]
        applets = tmp_path / "applets"
        applets.mkdir()
        for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
            (applets / name).symlink_to(program)
        path += f":{applets}"
    (tmp_path / "root" / "run" / "systemd" / "system").mkdir(parents=True)
    (tmp_path / "root" / "etc").mkdir()
    (tmp_path / "stub").mkdir()
    found = Host(tmp_path, shell, f"{path}:{os.environ['PATH']}")
    for unit in ("docker.service", "containerd.service"):
        (found.stub / "units" / unit).mkdir(parents=True)
    found.knows("users", "bob\n")
    found.knows("groups/docker")
    found.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
    found.write("/var/lib/apt/lists/archive_dists_trixie_main_binary-amd64_Packages", "")
    return found


ALL_KINDS = (
    REPOSITORY,
    actions.Packages((actions.Package("docker-ce", "5:29.7.*"), actions.Package("containerd.io")), ("docker.io",)),
    actions.Packages((actions.Package("nvidia-container-toolkit", "1.18.0-1"),)),
    actions.Hold(("docker-ce",)),
    actions.File("/etc/motd.d/mlhost", "hello\n", "0600"),
    actions.File("/etc/old", None),
    actions.File("/etc/systemd/system/docker.service.d/mlhost.conf", "[Service]\n"),
    actions.JsonMerge(DAEMON, "", '{"runtimes": {}}\n'),
    actions.Service(
        "docker.service", act="restart", newer_than=(DAEMON,), stamps=("/run/docker.pid",), restore=DAEMON, probe="docker info"
    ),
    actions.Service("nvidia-persistenced.service", optional=True),
    actions.KernelModule(("nvidia",), ("nouveau",)),
    actions.GroupMember("bob", "docker"),
    actions.Command(
        'test -e "$MLHOST_ROOT/etc/own"', 'printf %s "$WORD" >"$MLHOST_ROOT/etc/own"; exit 0', env=(("WORD", "two words"),)
    ),
    actions.Smoke("embedded", 2, "cdi"),
)


BUNDLE = (
    actions.BundleRepository("/var/lib/mlhost/bundle/x/files", (("key.asc", "ab" * 32),)),
    actions.Packages((actions.Package("docker.io", "26.1.5+dfsg1-9"),), pins=(actions.Pin("tini", "0.19.0-3+b8", "ab" * 32),)),
    actions.BundleImages((("/var/lib/mlhost/bundle/x/files/images/1.tar", "a/b:1", "ab" * 32),)),
)


def give_the_host_a_past(host: Host) -> None:
    host.write("/etc/apt/sources.list.d/docker.list", SOURCE_BEFORE)
    host.write("/etc/apt/sources.list", f"deb x y z\n{SOURCE_BEFORE}")
    host.write("/etc/old", "old\n")
    host.knows("packages/docker.io", "20.10\n")
    host.knows("gpus", "GPU-b\nGPU-a\n")
    host.knows("gpus.inside", "GPU-a\nGPU-b\n")
    (host.root / "sys/module/nouveau").mkdir(parents=True)


# ---------------------------------------------------------------- text


def test_every_kind_renders_to_a_script_that_shellcheck_accepts(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("the program shellcheck is missing")
    mount = actions.Mount("/dev/disk/by-id/nvme-Amazon_EC2_1", "/var/lib/docker")
    own = actions.Command(HOSTILE, HOSTILE, env=(("A", HOSTILE),))
    texts = [
        script(*ALL_KINDS, *BUNDLE, mount, own, actions.File("/etc/hostile", HOSTILE), actions.Reboot("a kernel")),
        render.smoke_script(actions.Smoke("embedded", 1, "gpus")),
        render.smoke_script(actions.Smoke("embedded", 1, "cdi"), paths=("gpus", "runtime"), reload=("cdi",), workload="a/b:c"),
        render_back.lookback(),
        render_back.tidy(("/var/lib/mlhost", "/etc/mlhost")),
        script(),
        script(mount),
        script(actions.Command("true", "true")),
    ]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.sh").write_text(text)
    names = [str(tmp_path / f"{number}.sh") for number in range(len(texts))]
    done = subprocess.run(["shellcheck", "-s", "sh", *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:5000]


def test_the_shell_fragments_are_clean_on_their_own() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("the program shellcheck is missing")
    scripts = Path(render.__file__).parent / "scripts"
    files = [
        str(scripts / "prelude.sh"),
        str(scripts / "happened.sh"),
        *map(str, sorted((scripts / "actions").glob("*.sh"))),
        str(scripts / "tidy.sh"),
        *map(str, sorted(STUBS.iterdir())),
    ]
    done = subprocess.run(["shellcheck", "-s", "sh", "-e", "SC2034", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:5000]


def test_only_items_to_be_changed_are_rendered_and_none_after_a_reboot() -> None:
    wanted = [actions.File(f"/etc/{name}", "x") for name in "abc"]
    text = render.stage(plan(wanted[0], wanted[1], actions.Reboot("now"), wanted[2], states={2: OK}), run_id="r")
    assert "/etc/a" in text
    assert "/etc/b" not in text
    assert "/etc/c" not in text
    assert text.rstrip().endswith('main "$@" </dev/null')
    assert "/etc/a" not in render.stage(plan(wanted[0], states={1: LATER}), run_id="r")


def test_a_key_that_was_not_fetched_is_refused_with_its_address() -> None:
    missing = actions.AptRepository(
        "docker", "/etc/apt/sources.list.d/d.sources", "x", actions.Key("d", KEY.url, ("A",), KEY.path)
    )
    with pytest.raises(render.RenderError, match=r"has not been fetched .*download\.docker\.com"):
        script(missing)


@pytest.mark.parametrize(
    "action",
    [
        actions.Packages((actions.Package("-o=Dpkg::Pre-Invoke::=id"),)),
        actions.Packages((actions.Package("docker-ce", "1 2"),)),
        actions.Packages((), ("a;b",)),
        actions.File("etc/relative", "x"),
        actions.File("/etc/../x", "x"),
        actions.File("/etc/a\nb", "x"),
        actions.File("/etc/a", "x", "rwx"),
        actions.File("/etc/a", "NUL \0 in it", owner=""),
        actions.Service("--now"),
        actions.GroupMember("-R", "docker"),
        actions.GroupMember("bob", "a b"),
        actions.Smoke("-v/:/host", 0),
        actions.Smoke("img", 1, "magic"),
        actions.Mount("/dev/x y", "/data"),
        actions.Command("true", "true", env=(("A B", "x"),)),
    ],
)
def test_a_value_that_programs_could_misread_is_refused(action: actions.Action) -> None:
    with pytest.raises(render.RenderError):
        script(action)


def test_a_run_id_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(render.RenderError, match="not a run id"):
        render.stage(plan(), run_id="../x")


def test_the_proxy_is_environment_and_not_an_argument() -> None:
    text = script(*ALL_KINDS, proxy="http://user:p'w@proxy:3128", no_proxy="localhost")
    lines = [line.strip() for line in text.splitlines() if "@proxy" in line]
    assert lines == [
        """http_proxy='http://user:p'"'"'w@proxy:3128' && export http_proxy""",
        """https_proxy='http://user:p'"'"'w@proxy:3128' && export https_proxy""",
    ]


# ---------------------------------------------------------------- all kinds, twice


def test_every_kind_changes_the_host_and_a_second_run_changes_nothing(host: Host) -> None:
    give_the_host_a_past(host)
    text = script(*ALL_KINDS)
    assert host.run(text) == 0, host.log
    assert host.states() == ["changed"] * 9 + ["ok"] + ["changed"] * 4, host.events
    assert host.read("/etc/own") == "two words"
    assert host.read(KEY.path) == KEY.text.decode()
    assert not host.has("/etc/apt/sources.list.d/docker.list")
    assert not host.has("/etc/old")
    assert host.read("/var/lib/mlhost/backup/run-1/etc/old") == "old\n"
    assert (host.root / "etc/motd.d/mlhost").stat().st_mode & 0o777 == 0o600
    assert (host.stub / "packages/docker-ce").read_text() == "5:29.7.1\n"
    assert not (host.stub / "packages/docker.io").exists()
    before = host.snapshot()
    mutations = len(host.calls("apt-get")), len(host.calls("modprobe")), len(host.calls("usermod"))
    restarts = [call for call in host.calls("systemctl") if "<restart>" in call or "<start>" in call]
    assert host.run(text) == 0, host.log
    assert host.states() == ["ok"] * len(ALL_KINDS), host.events
    assert host.snapshot() == before
    # the one more apt-get only asks whether the index is there
    assert (len(host.calls("apt-get")) - 1, len(host.calls("modprobe")), len(host.calls("usermod"))) == mutations
    assert [call for call in host.calls("systemctl") if "<restart>" in call or "<start>" in call] == restarts
    assert not list((host.root / "var/lib/mlhost").glob("work.*"))


def test_by_hand_the_events_are_for_people(host: Host) -> None:
    (host.folder / "x.sh").write_text(script(actions.File("/etc/x", "x")))
    env = {"PATH": host.path, "STUB": str(host.stub), "MLHOST_ROOT": str(host.root)}
    done = subprocess.run([*host.shell, str(host.folder / "x.sh")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "== step/1: it is not so" in done.stdout
    assert "-> changed step/1" in done.stdout


def test_hostile_text_arrives_byte_for_byte(host: Host) -> None:
    value = HOSTILE + "é \\n %d\r\n"
    own = actions.Command('[ -e "$MLHOST_ROOT/etc/got" ]', 'printf %s "$VALUE" >"$MLHOST_ROOT/etc/got"', env=(("VALUE", value),))
    text = render.stage(plan(actions.File("/etc/with 'quote\" $(x)", value), own, why=HOSTILE), run_id="run-1")
    assert host.run(text) == 0, host.log
    assert (host.root / "etc/with 'quote\" $(x)").read_bytes() == value.encode()
    assert (host.root / "etc/got").read_bytes() == value.encode()
    assert not Path("/tmp/mlhost-was-here").exists()
    assert {event.kind for event in host.events} == {"begin", "start", "changed", "end"}


def test_a_key_that_is_not_text_arrives_byte_for_byte(host: Host) -> None:
    binary = bytes(range(256)) * 3
    key = actions.Key("k", KEY.url, KEY.fingerprints, KEY.path, binary)
    assert host.run(script(actions.AptRepository("docker", REPOSITORY.path, REPOSITORY.text, key))) == 0, host.log
    assert Path(f"{host.root}{KEY.path}").read_bytes() == binary


# ---------------------------------------------------------------- the item loop


def test_a_failed_change_stops_the_stage_and_the_rest_is_skipped(host: Host) -> None:
    broken = actions.Command("false", "echo some words; false")
    assert host.run(script(actions.File("/etc/a", "a"), broken, actions.File("/etc/b", "b"))) == 1
    assert host.states() == ["changed", "failed", "skipped"]
    assert not host.has("/etc/b")
    assert "some words" in host.log
    assert host.events[-1].kind == "end"
    assert host.events[-1].detail == "1"


def test_a_change_without_effect_is_a_failure(host: Host) -> None:
    assert host.run(script(actions.Command("false", "true"))) == 1
    assert host.detail().startswith("did not take effect")


def test_an_own_step_with_broken_syntax_fails_alone(host: Host) -> None:
    assert host.run(script(actions.File("/etc/a", "a"), actions.Command("false", "if } ("))) == 1
    assert host.states() == ["changed", "failed"]


def test_a_reboot_ends_the_stage_and_is_done_when_the_boot_id_has_changed(host: Host) -> None:
    text = script(actions.File("/etc/a", "a"), actions.Reboot("the kernel is not the one on disk"))
    assert host.run(text) == render.REBOOT_NOW
    assert host.states() == ["changed", "reboot"]
    assert host.run(text) == render.REBOOT_NOW
    host.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    assert host.run(text) == 0
    assert host.states() == ["ok", "ok"]


def test_a_run_that_is_asked_to_stop_ends_between_items(host: Host) -> None:
    stopper = actions.Command('test -e "$MLHOST_STOP"', ': >"$MLHOST_STOP"')
    text = script(stopper, actions.File("/etc/a", "a")).replace(
        "ROOT=${MLHOST_ROOT:-}", f"export MLHOST_STOP={host.folder}/stop; ROOT=${{MLHOST_ROOT:-}}", 1
    )
    assert host.run(text) == 1
    assert host.states() == ["changed", "skipped"]


def test_by_hand_the_script_does_not_run_beside_a_run_of_the_journal(host: Host) -> None:
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    host.write("/var/lib/mlhost/lock", f"run=r0\npid={os.getpid()}\nstart={start}\nboot={boot}\nowner=ann\n")
    (host.folder / "x.sh").write_text(script(actions.File("/etc/x", "x")))
    env = {"PATH": host.path, "STUB": str(host.stub), "MLHOST_ROOT": str(host.root)}
    done = subprocess.run([*host.shell, str(host.folder / "x.sh")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "owner=ann" in done.stderr
    assert not host.has("/etc/x")


def test_a_state_folder_that_is_a_link_is_refused(host: Host) -> None:
    (host.root / "var/lib").mkdir(parents=True, exist_ok=True)
    (host.root / "var/lib/mlhost").symlink_to(host.folder)
    assert host.run(script(actions.File("/etc/x", "x"))) == 1
    assert "symbolic link" in host.log
    assert not host.has("/etc/x")


# ---------------------------------------------------------------- apt


@pytest.mark.parametrize(
    ("says", "rc"),
    [
        (
            "Err:1 https://download.docker.com bookworm InRelease\n  404  Not Found\nE: The repository has no Release file.\n",
            "100",
        ),
        ("W: GPG error: https://download.docker.com bookworm InRelease: NO_PUBKEY 7EA0A9C3F273FCD8\n", "0"),
        ("W: Failed to fetch https://download.docker.com/x  Could not resolve\nW: Some index files failed to download.\n", "0"),
    ],
)
def test_a_source_that_cannot_be_fetched_fails_with_apts_words_and_everything_is_put_back(host: Host, says: str, rc: str) -> None:
    give_the_host_a_past(host)
    host.write(REPOSITORY.path, "Types: deb\nURIs: https://older.example\n")
    before = host.snapshot()
    host.knows("update.says", says)
    if rc != "0":
        host.knows("update.rc", rc)
    assert host.run(script(REPOSITORY)) == 1
    reason = host.detail()
    assert "cannot be fetched" in reason
    assert any(line in reason for line in says.splitlines() if line[:2] in ("E:", "W:")), reason
    after = host.snapshot()
    assert {path: content for path, (_, content) in after.items()} == {path: content for path, (_, content) in before.items()}


def test_only_the_new_source_is_refreshed(host: Host) -> None:
    assert host.run(script(REPOSITORY)) == 0
    updates = [call for call in host.calls("apt-get") if "<update>" in call]
    assert len(updates) == 1
    assert f"<Dir::Etc::sourcelist={host.root}{REPOSITORY.path}>" in updates[0]
    assert "<Dir::Etc::sourceparts=->" in updates[0]
    assert "<APT::Get::List-Cleanup=0>" in updates[0]
    assert "<APT::Update::Error-Mode=any>" in updates[0]


def test_neighbouring_packages_are_one_transaction(host: Host) -> None:
    host.knows("packages/docker.io", "1")
    first = actions.Packages((actions.Package("docker-ce", "5:29.7.*"),), ("docker.io", "podman-docker"))
    second = actions.Packages((actions.Package("nvidia-container-toolkit"),))
    assert host.run(script(first, second)) == 0, host.log
    assert host.states() == ["changed", "changed"]
    installs = [call for call in host.calls("apt-get") if "<install>" in call and "<-s>" not in call]
    assert len(installs) == 1
    assert "<docker-ce=5:29.7.*> <nvidia-container-toolkit> <docker.io->" in installs[0]
    assert "podman-docker" not in installs[0]
    assert "<--no-install-recommends>" in installs[0]
    assert "purge" not in installs[0]
    assert not any("<update>" in call for call in host.calls("apt-get"))
    assert "run-1\tpackage\tdocker-ce\t5:29.7.1\t\n" in host.read("/var/lib/mlhost/receipts")


def test_a_machine_without_package_lists_gets_them_once(host: Host) -> None:
    host.knows("unknown", "docker.io")
    next(host.root.glob("var/lib/apt/lists/*_Packages")).unlink()
    assert host.run(script(actions.Packages((actions.Package("docker.io"),)))) == 0, host.log
    assert [re.findall("<(update|install|-s)>", call) for call in host.calls("apt-get")] == [["update"], ["install"]]


def test_a_package_that_old_lists_do_not_know_is_looked_for_in_new_ones(host: Host) -> None:
    host.knows("unknown", "docker.io")
    assert host.run(script(actions.Packages((actions.Package("docker.io"),)))) == 0, host.log
    assert [re.findall("<(update|install|-s)>", call) for call in host.calls("apt-get")] == [["install"], ["update"], ["install"]]
    assert (host.stub / "packages/docker.io").exists()


def test_apt_is_told_to_remove_nothing_unless_something_is_to_be_removed(host: Host) -> None:
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)))) == 0, host.log
    assert ["<--no-remove>" in call for call in host.calls("apt-get")] == [True]
    host.knows("packages/docker.io", "1")
    assert host.run(script(actions.Packages((actions.Package("other"),), ("docker.io",)))) == 0, host.log
    assert [("<-s>" in call, "<--no-remove>" in call) for call in host.calls("apt-get")[1:]] == [(True, False), (False, False)]


def test_nothing_that_the_plan_does_not_name_is_removed(host: Host) -> None:
    host.knows("also-removes", "ubuntu-desktop")
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)))) == 1
    assert "would also remove ubuntu-desktop" in host.detail()
    assert not (host.stub / "packages/docker-ce").exists()


def test_apts_own_complaint_is_the_reason(host: Host) -> None:
    host.knows(
        "install.says",
        "E: You don't have enough free space in /var/cache/apt/archives/.\nE: Sub-process x returned an error code (1)\n",
    )
    host.knows("install.rc", "100")
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)))) == 1
    assert host.detail() == "apt failed: E: You don't have enough free space in /var/cache/apt/archives/."


def test_an_install_that_installs_nothing_is_a_failure(host: Host) -> None:
    host.knows("installs-nothing")
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)))) == 1
    assert host.detail().startswith("did not take effect")


def test_an_interrupted_dpkg_is_repaired_first(host: Host) -> None:
    host.knows("audit", "iF \n")
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)))) == 0, host.log
    assert any("<--configure>" in call for call in host.calls("dpkg"))
    assert [event.detail for event in host.events if event.kind == "note"] == [
        "dpkg was interrupted before; running dpkg --configure -a"
    ]


def test_the_holder_of_apts_lock_is_named_and_waited_for(host: Host) -> None:
    lock = host.write("/var/lib/dpkg/lock-frontend", "")
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(float(sys.argv[2]))"
    with subprocess.Popen(["python3", "-c", holder, str(lock), "1.5"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code = host.run(script(actions.Packages((actions.Package("docker-ce"),))))
        waits = [event.detail for event in host.events if event.kind == "wait"]
        process.kill()
    assert code == 0, host.log
    assert waits == [f"python3 ({process.pid}) holds /var/lib/dpkg/lock-frontend"]


def test_the_wait_for_a_lock_has_an_end_and_its_holder_lives(host: Host) -> None:
    lock = host.write("/var/lib/apt/lists/lock", "")
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(["python3", "-c", holder, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code = host.run(script(actions.Packages((actions.Package("docker-ce"),)), lock_wait=3))
        alive = process.poll() is None
        process.kill()
    assert (code, alive) == (1, True)
    assert host.detail() == f"waited 3 s for other package work: python3 ({process.pid}) holds /var/lib/apt/lists/lock"


def test_cloud_init_is_waited_for_but_not_for_ever(host: Host) -> None:
    host.write("/run/cloud-init/status.json", "{}")
    assert host.run(script(actions.Packages((actions.Package("docker-ce"),)), lock_wait=2)) == 0, host.log
    assert [event.kind for event in host.events if event.kind in ("wait", "note")] == ["wait", "note"]
    host.write("/run/cloud-init/result.json", "{}")
    assert host.run(script(actions.Packages((actions.Package("other"),)), lock_wait=2)) == 0, host.log
    assert not [event for event in host.events if event.kind in ("wait", "note")]


# ---------------------------------------------------------------- daemon.json and services


def restart_docker() -> actions.Service:
    return actions.Service(
        "docker.service", act="restart", newer_than=(DAEMON,), stamps=("/run/docker.pid",), restore=DAEMON, probe="docker info"
    )


def merge(host: Host, before: str, after: str) -> actions.JsonMerge:
    host.write(DAEMON, before, 0o640)
    return actions.JsonMerge(DAEMON, hashlib.sha256(before.encode()).hexdigest(), after)


def test_a_merged_file_keeps_its_mode_and_has_a_backup(host: Host) -> None:
    action = merge(host, '{"a": 1}', '{"a": 1, "b": 2}')
    assert host.run(script(action)) == 0, host.log
    assert host.read(DAEMON) == '{"a": 1, "b": 2}'
    assert (host.root / "etc/docker/daemon.json").stat().st_mode & 0o777 == 0o640
    assert host.read(f"/var/lib/mlhost/backup/run-1{DAEMON}") == '{"a": 1}'


def test_a_merge_into_a_linked_file_replaces_the_file_and_not_the_link(host: Host) -> None:
    target = host.write("/etc/real.json", "{}")
    link = host.root / "etc/docker/daemon.json"
    link.parent.mkdir()
    link.symlink_to(target)
    assert host.run(script(actions.JsonMerge(DAEMON, hashlib.sha256(b"{}").hexdigest(), '{"b": 2}'))) == 0, host.log
    assert link.is_symlink()
    assert target.read_text() == '{"b": 2}'


@pytest.mark.parametrize("now", ['{"a": 2}', None])
def test_a_file_that_changed_since_the_plan_is_left_alone(host: Host, now: str | None) -> None:
    action = merge(host, '{"a": 1}', '{"b": 2}')
    if now is None:
        (host.root / "etc/docker/daemon.json").unlink()
    else:
        host.write(DAEMON, now)
    assert host.run(script(action)) == 1
    assert "since the plan was made; plan again" in host.detail()
    assert (host.read(DAEMON) if now else None) == now


def test_a_file_that_appeared_since_the_plan_is_left_alone(host: Host) -> None:
    host.write(DAEMON, "{}")
    assert host.run(script(actions.JsonMerge(DAEMON, "", '{"b": 2}'))) == 1
    assert host.read(DAEMON) == "{}"


def test_what_dockerd_refuses_is_never_written(host: Host) -> None:
    action = merge(host, "{}", '{"INVALID": 1}')
    assert host.run(script(action)) == 1
    assert "stub says INVALID" in host.detail()
    assert host.read(DAEMON) == "{}"


@pytest.mark.parametrize("before", ['{"a": 1}', None])
def test_docker_gets_its_old_settings_back_if_it_does_not_come_up_with_the_new_ones(host: Host, before: str | None) -> None:
    host.knows("units/docker.service/active")
    action = merge(host, before, '{"BROKEN": 1}') if before else actions.JsonMerge(DAEMON, "", '{"BROKEN": 1}')
    assert host.run(script(action, restart_docker())) == 1
    assert host.states() == ["changed", "failed"]
    assert "the old one is back and docker.service runs again: failed to start daemon: stub says why" in host.detail()
    assert (host.read(DAEMON) if before else host.has(DAEMON)) == (before or False)
    assert (host.stub / "units/docker.service/active").exists()


def test_a_service_older_than_its_settings_is_restarted_once(host: Host) -> None:
    for name in ("active", "enabled"):
        host.knows(f"units/docker.service/{name}")
    host.write("/run/docker.pid", "1")
    os.utime(host.root / "run/docker.pid", (1, 1))
    host.write(DAEMON, "{}")
    text = script(restart_docker())
    assert host.run(text) == 0, host.log
    assert host.states() == ["changed"]
    assert len([call for call in host.calls("systemctl") if "<restart>" in call]) == 1
    assert host.run(text) == 0
    assert host.states() == ["ok"]


def test_a_service_that_does_not_exist_fails_unless_it_is_optional(host: Host) -> None:
    assert host.run(script(actions.Service("nothing.service", optional=True))) == 0
    assert host.run(script(actions.Service("nothing.service"))) == 1
    assert "there is no service nothing.service" in host.detail()


def test_a_service_that_never_answers_is_not_waited_for_for_ever(host: Host) -> None:
    assert host.run(script(actions.Service("containerd.service", probe="false"))) == 1
    assert "cannot be brought to start" in host.detail()


def test_unit_files_are_reloaded_only_when_they_changed(host: Host) -> None:
    unit = actions.File("/etc/systemd/system/x.service", "[Unit]\n")
    other = actions.File("/etc/x", "x")
    assert host.run(script(unit, other)) == 0
    assert host.run(script(unit, other)) == 0
    assert len([call for call in host.calls("systemctl") if "daemon-reload" in call]) == 1


# ---------------------------------------------------------------- mounts, modules, groups


def test_a_disk_is_mounted_by_a_unit_before_docker(host: Host) -> None:
    host.knows("mounts", "/dev/root / ext4 rw 0 0\n")
    text = script(actions.Mount("/dev/disk/by-id/nvme-1", "/data"))
    assert host.run(text) == 0, host.log
    unit = host.read("/etc/systemd/system/mlhost-mount-data.service")
    assert "Before=containerd.service docker.service" in unit
    assert "ExecStart=/bin/sh /usr/local/lib/mlhost/mount-disk /dev/disk/by-id/nvme-1 /data ext4" in unit
    assert host.run(text) == 0
    assert host.states() == ["ok"]
    host.knows("mounts")
    assert host.run(text) == 0, host.log
    assert host.states() == ["changed"]


def test_a_module_with_a_dash_in_its_name_is_found_under_its_other_name(host: Host) -> None:
    text = script(actions.KernelModule(("nvidia-uvm",)))
    assert host.run(text) == 0, host.log
    assert host.run(text) == 0
    assert host.states() == ["ok"]


def test_a_module_in_use_needs_a_reboot_and_the_rest_waits_for_it(host: Host) -> None:
    (host.root / "sys/module/nouveau").mkdir(parents=True)
    host.knows("modprobe.nouveau", "modprobe: FATAL: Module nouveau is in use.\n")
    assert host.run(script(actions.KernelModule(("nvidia",), ("nouveau",)), actions.File("/etc/a", "a"))) == render.REBOOT_NEEDED
    assert host.states() == ["reboot", "skipped"]
    assert "nouveau is loaded and in use" in host.detail()


def test_a_module_that_secure_boot_rejects_is_a_failure_and_no_reason_to_reboot(host: Host) -> None:
    host.knows("modprobe.nvidia", "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n")
    assert host.run(script(actions.KernelModule(("nvidia",)))) == 1
    assert "Secure Boot does not accept" in host.detail()


def test_a_module_without_a_file_is_a_failure_but_one_for_another_kernel_needs_a_reboot(host: Host) -> None:
    host.knows("modprobe.nvidia", "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1\n")
    assert host.run(script(actions.KernelModule(("nvidia",)))) == 1
    host.write("/lib/modules/6.12/updates/dkms/nvidia.ko.xz", "")
    assert host.run(script(actions.KernelModule(("nvidia",)))) == render.REBOOT_NEEDED


def test_a_user_that_does_not_exist_is_named(host: Host) -> None:
    assert host.run(script(actions.GroupMember("eve", "docker"))) == 1
    assert host.detail() == "there is no user eve"


def test_a_group_that_does_not_exist_is_made(host: Host) -> None:
    assert host.run(script(actions.GroupMember("bob", "gpu"))) == 0, host.log
    assert any("<gpu>" in call for call in host.calls("groupadd"))


# ---------------------------------------------------------------- the proof


def proof(host: Host) -> dict[str, str]:
    return dict(line.split("=", 1) for line in host.read("/var/lib/mlhost/proof").splitlines())


def with_docker(host: Host, *gpus: str) -> None:
    host.knows("units/docker.service/active")
    host.knows("gpus", "".join(f"{gpu}\n" for gpu in gpus))
    host.knows("gpus.inside", "".join(f"{gpu}\n" for gpu in reversed(gpus)))


@pytest.mark.parametrize(
    ("request_by", "arguments"),
    [
        ("cdi", "<--device> <nvidia.com/gpu=all>"),
        ("gpus", "<--gpus> <all>"),
        ("runtime", "<--runtime=nvidia> <-e> <NVIDIA_VISIBLE_DEVICES=all>"),
    ],
)
def test_gpus_are_asked_for_in_the_way_that_was_decided_and_the_proof_is_kept(
    host: Host, request_by: str, arguments: str
) -> None:
    with_docker(host, "GPU-1", "GPU-2")
    assert host.run(script(actions.Smoke("embedded", 2, request_by))) == 0, host.log
    runs = [call for call in host.calls("docker") if "<run>" in call]
    assert len(runs) == 1
    assert arguments in runs[0]
    kept = proof(host)
    assert (kept["gpus"], kept["uuids"], kept["image"], kept["docker"], kept["driver"], kept["toolkit"], kept["boot_id"]) == (
        "2", "GPU-1,GPU-2", "embedded", "28.2.2", "580.95.05", "1.18.0", "boot-1"
    )  # fmt: skip
    assert (host.root / "var/lib/mlhost/proof").stat().st_mode & 0o777 == 0o644


def test_a_proof_does_not_outlive_a_reboot_or_new_settings(host: Host) -> None:
    with_docker(host)
    text = script(actions.Smoke("embedded", 0))
    assert host.run(text) == 0, host.log
    assert host.run(text) == 0
    assert host.states() == ["ok"]
    host.write(DAEMON, '{"new": 1}')
    assert host.run(text) == 0
    assert host.states() == ["changed"]
    host.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    assert host.run(text) == 0
    assert host.states() == ["changed"]


@pytest.mark.parametrize(
    ("seen", "inside", "reason"),
    [
        ("GPU-1\n", "GPU-1\n", "there are 2 GPUs on the PCI bus and the driver sees 1"),
        ("GPU-1\nGPU-2\n", "GPU-1\n", "the container sees 1 of the host's 2 GPUs"),
        ("GPU-1\nGPU-2\n", "GPU-1\nGPU-3\n", "the container sees 2 of the host's 2 GPUs"),
        ("GPU-1\nGPU-2\n", None, 'could not select device driver "" with capabilities: [[gpu]]'),
    ],
)
def test_gpus_that_do_not_agree_fail_the_proof(host: Host, seen: str, inside: str | None, reason: str) -> None:
    with_docker(host)
    host.knows("gpus", seen)
    if inside is None:
        (host.stub / "gpus.inside").unlink()
    else:
        host.knows("gpus.inside", inside)
    assert host.run(script(actions.Smoke("embedded", 2, "gpus"))) == 1
    assert reason in host.detail()
    assert not host.has("/var/lib/mlhost/proof")


def test_a_named_image_is_pulled_and_its_digest_kept(host: Host) -> None:
    with_docker(host)
    assert host.run(script(actions.Smoke("registry.example/tools/busy:1", 0))) == 0, host.log
    assert any("<pull>" in call for call in host.calls("docker"))
    assert proof(host)["digest"] == "sha256:stub"
    host.knows("no-registry")
    assert host.run(script(actions.Smoke("other:1", 0))) == 1
    assert "the image other:1 cannot be pulled: Error response from daemon: stub has no registry" in host.detail()


def verify(host: Host, smoke: actions.Smoke, **more: Any) -> tuple[int, list[list[str]]]:
    (host.folder / "verify.sh").write_text(render.smoke_script(smoke, **more))
    env = {"PATH": host.path, "STUB": str(host.stub), "MLHOST_ROOT": str(host.root), "TMPDIR": str(host.folder)}
    done = subprocess.run([*host.shell, str(host.folder / "verify.sh")], env=env, capture_output=True, text=True, check=False)
    return done.returncode, [line.split("\t") for line in done.stdout.splitlines()]


def test_verify_prints_one_line_per_check_and_writes_no_proof(host: Host) -> None:
    with_docker(host, "GPU-1")
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"))
    assert code == 0
    assert [line[:3] for line in lines] == [["check", "docker", "ok"], ["check", "driver", "ok"], ["check", "container", "ok"]]
    assert "GPU-1" in lines[2][3]
    assert not host.has("/var/lib/mlhost/proof")


def test_verify_names_the_layer_that_is_broken(host: Host) -> None:
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"))
    assert (code, [line[:3] for line in lines]) == (1, [["check", "docker", "failed"]])
    assert "Cannot connect to the Docker daemon" in lines[0][3]
    with_docker(host, "GPU-1")
    code, lines = verify(host, actions.Smoke("embedded", 2, "cdi"))
    assert (code, lines[-1][:3]) == (1, ["check", "driver", "failed"])
    with_docker(host, "GPU-1")
    host.knows("gpus.inside", "")
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"))
    assert (code, lines[-1][:3]) == (1, ["check", "container", "failed"])


def test_verify_asks_in_every_way_and_names_the_one_that_fails(host: Host) -> None:
    with_docker(host, "GPU-1")
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"), paths=("gpus", "runtime"))
    assert code == 0
    assert [line[1:3] for line in lines[2:]] == [["container", "ok"], ["container-gpus", "ok"], ["container-runtime", "ok"]]
    runs = [call for call in host.calls("docker") if "<run>" in call]
    assert "<--gpus> <all>" in runs[1]
    assert "<--runtime=nvidia>" in runs[2]


def test_verify_shows_whether_a_running_container_outlives_a_reload_of_systemd(host: Host) -> None:
    with_docker(host, "GPU-1", "GPU-2")
    code, lines = verify(host, actions.Smoke("embedded", 2, "cdi"), reload=("cdi",))
    assert (code, lines[-1][1:3]) == (0, ["reload-cdi", "ok"])
    host.knows("gpus.reloaded", "Failed to initialize NVML: Unknown Error\n")
    (host.stub / "reloaded").unlink()
    code, lines = verify(host, actions.Smoke("embedded", 2, "cdi"), reload=("cdi", "gpus"))
    assert (code, [line[1:3] for line in lines[-2:]]) == (1, [["reload-cdi", "failed"], ["reload-gpus", "failed"]])
    assert "has lost its GPUs after systemctl daemon-reload: Failed to initialize NVML: Unknown Error" in lines[-2][3]
    assert [call for call in host.calls("docker") if "<rm> <-f> <mlhost-reload-" in call], "no container is left behind"


def test_verify_runs_a_program_on_a_gpu_when_asked_to(host: Host) -> None:
    with_docker(host, "GPU-1")
    host.knows("workload", "Test PASSED\nDone\n")
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"), workload="nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0")
    assert (code, lines[-1][1:3]) == (0, ["workload", "ok"])
    assert "Test PASSED" in lines[-1][3]
    (host.stub / "workload").unlink()
    code, lines = verify(host, actions.Smoke("embedded", 1, "cdi"), workload="nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0")
    assert (code, lines[-1][1:3]) == (1, ["workload", "failed"])


@pytest.mark.docker
def test_on_a_real_engine_the_image_made_from_this_machine_runs(tmp_path: Path) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker Engine answers on this machine")
    for shell in ("dash", "bash", "busybox sh"):
        (tmp_path / "verify.sh").write_text(render.smoke_script(actions.Smoke("embedded", 0)))
        done = subprocess.run([*shell.split(), str(tmp_path / "verify.sh")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [line.split("\t")[:3] for line in done.stdout.splitlines()] == [
            ["check", "docker", "ok"],
            ["check", "container", "ok"],
        ]
