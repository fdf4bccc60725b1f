"""From texts to facts: values in, values out."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.capture import join, split
from provision.errors import ProbeFailed
from provision.facts import apt, docker, nvidia, packages, parse, system
from provision.model import Facts, Section
from tests import captures, captures_gpus, captures_rpm
from tests.fakeroot import vgpu_config

HOSTS = Path(__file__).parent / "hosts"


def load(name: str) -> Facts:
    return parse(split((HOSTS / name / "probe.txt").read_bytes()))


def as_json(value: object) -> Any:
    """Facts as JSON values; bytes as base64."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------- captured and assembled hosts; a new folder is a new test


@pytest.mark.parametrize("name", sorted(path.parent.name for path in HOSTS.glob("*/probe.txt")))
def test_the_facts_of_a_host_are_those_a_person_has_read(name):
    """`MLHOST_REGEN=1` writes facts.json anew; then read the difference."""
    expected = HOSTS / name / "facts.json"
    text = json.dumps(as_json(load(name)), indent=1) + "\n"
    if os.environ.get("MLHOST_REGEN") == "1":
        expected.write_text(text)
    assert expected.exists(), "run once with MLHOST_REGEN=1 and read what it writes"
    assert text == expected.read_text()
    assert (HOSTS / name / "README").read_text().startswith(("Assembled", "Captured"))


ASSEMBLED = {**captures.ASSEMBLED, **captures_rpm.ASSEMBLED, **captures_gpus.ASSEMBLED}


@pytest.mark.parametrize("name", sorted(ASSEMBLED))
def test_an_assembled_host_is_what_its_assembly_gives(name):
    assert (HOSTS / name / "probe.txt").read_bytes() == join(ASSEMBLED[name][1](), "a55e")


# ---------------------------------------------------------------- os-release

OS_RELEASES = {
    "plain": "ID=debian\nVERSION_ID=12\n",
    "quotes": "ID='ubuntu'\nVERSION_ID=\"24.04\"\nPRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\n",
    "comment": "# Fedora\nID=fedora # not really\nVERSION_ID=42\n",
    "escapes": 'ID=x\nPRETTY_NAME="a \\"b\\" \\\\ c"\nNAME="a \\$ 1"\n',
    "parts": "ID=a'b'\"c\"\nNAME=a\\ b\n",
    "empty": 'ID=fedora\nVERSION_CODENAME=""\nVARIANT_ID=\n',
    "long": 'ID=x\nNAME="two\nlines"\nVERSION_ID=1\n',
    "spaces": '\n  ID=x\n\nID_LIKE="rhel centos fedora"\n',
    "capital": "ID=Deepin\nVERSION_ID=20.9\n",
    "no newline": "ID=arch",
}


@pytest.mark.parametrize("text", OS_RELEASES.values(), ids=OS_RELEASES)
def test_os_release_is_read_as_the_distro_package_reads_it(text, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(text)
    oracle = distro.LinuxDistribution(root_dir=str(tmp_path), include_lsb=False, include_uname=False).os_release_info()
    # shlex and a shell differ on one point: a shell drops the backslash of `\$`.
    ours = {key.lower(): value for key, value in system.assignments(text).items()}
    assert ours == {key: value for key, value in oracle.items() if key in ours}
    assert set(ours) <= set(oracle)
    assert ours["id"]


@given(st.text(alphabet="IDNAME_=\"'\\# ax\n", max_size=60))
def test_no_os_release_raises_or_takes_more_than_its_lines(text):
    values = system.assignments(text)
    assert all(key in text for key in values)


def test_ids_are_lower_case_and_like_is_a_list():
    found = system.os_release({"os_release": Section(0, 'ID="Deepin"\nID_LIKE="Ubuntu debian"\nVERSION_CODENAME=Apricot\n')})
    assert found is not None
    assert (found.id, found.id_like, found.codename) == ("deepin", ("ubuntu", "debian"), "apricot")


def test_a_file_without_an_id_is_some_linux():
    found = system.os_release({"os_release": Section(0, "NAME=Thing\n")})
    assert found is not None
    assert found.id == "linux"


def test_the_vendors_os_release_stands_in_for_an_empty_one():
    found = system.os_release({"os_release": Section(0, "\n"), "os_release_vendor": Section(0, "ID=flatcar\n")})
    assert found is not None
    assert found.id == "flatcar"


def test_no_os_release_is_an_empty_id_and_an_unreadable_one_is_unknown():
    absent = system.os_release({"os_release": Section(2, ""), "os_release_vendor": Section(2, "")})
    assert absent is not None
    assert absent.id == ""
    assert system.os_release({"os_release": Section(13, ""), "os_release_vendor": Section(2, "")}) is None


# ---------------------------------------------------------------- apt

DEB822 = """# a comment
Types: deb deb-src
URIs: https://one.example/a
  https://two.example/b
# a comment between the lines
Suites: noble noble-updates
COMPONENTS: main
\tuniverse
Signed-By: /etc/apt/keyrings/a.asc
Architectures: amd64 arm64

Types: deb
URIs: https://flat.example/deb
Suites: /
Enabled: no
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFit2ioBEADhWpZ8/wvZ6hUTiXOwQHXMAlaFHcPH9hAtr4F1y2+OYdbtMuth
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
"""


def test_deb822_paragraphs_are_entries_with_all_their_lines():
    first, second = apt.deb822("/etc/apt/sources.list.d/a.sources", DEB822)
    assert first.types == ("deb", "deb-src")
    assert first.uris == ("https://one.example/a", "https://two.example/b")
    assert first.suites == ("noble", "noble-updates")
    assert first.components == ("main", "universe")
    assert first.signed_by == "/etc/apt/keyrings/a.asc"
    assert first.architectures == ("amd64", "arm64")
    assert (first.enabled, second.enabled) == (True, False)
    assert second.suites == ("/",)


def test_a_key_written_into_the_source_is_given_whole():
    key = apt.deb822("x.sources", DEB822)[1].signed_by
    assert key == (
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBFit2ioBEADhWpZ8/wvZ6hUTiXOwQHXMAlaFHcPH9hAtr4F1y2+OYdbtMuth\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )


@pytest.mark.parametrize("value", ["no", "No", "false", "0", "off", "disable", "without"])
def test_every_word_for_no_switches_a_source_off(value):
    assert not apt.deb822("x.sources", f"Types: deb\nURIs: https://a.example\nSuites: x\nEnabled: {value}\n")[0].enabled


@pytest.mark.parametrize(("line", "expected"), [
    ("deb http://a.example/debian bookworm main contrib", ((), "", ("main", "contrib"))),
    ("deb [arch=amd64 signed-by=/k.asc] http://a.example/debian bookworm main", (("amd64",), "/k.asc", ("main",))),
    ("  deb\t[ arch=amd64,arm64  signed-by=/k.gpg ] http://a.example/debian\tbookworm\tmain # note", (("amd64", "arm64"), "/k.gpg", ("main",))),
    ("deb [trusted=yes] http://a.example/debian bookworm", ((), "", ())),
    ("deb [Arch+=i386] http://a.example/debian bookworm main", (("i386",), "", ("main",))),
])
def test_one_line_entries_are_read_with_their_options(line, expected):
    (source,) = apt.one_line("/etc/apt/sources.list", line + "\n")
    assert (source.architectures, source.signed_by, source.components) == expected
    assert (source.types, source.uris, source.suites, source.deb822) == (("deb",), ("http://a.example/debian",), ("bookworm",), False)


@pytest.mark.parametrize("line", ["# deb http://a.example x main", "", "rpm http://a.example x", "deb", "deb http://a.example", "debhttp://a.example x y"])
def test_what_is_no_entry_is_none(line):
    assert apt.one_line("/etc/apt/sources.list", line) == ()


@pytest.mark.parametrize(("text", "expected"), [
    ('Acquire::http::Proxy "http://p.example:3128";', "http://p.example:3128"),
    ('Acquire::http::Proxy "http://p.example:3128";\nAcquire::https::Proxy "http://s.example:3128";', "http://s.example:3128"),
    ('Acquire { https { Proxy "http://s.example:1/"; } }', "http://s.example:1/"),
    ('Acquire::http::Proxy::mirror.example "DIRECT";', ""),
    ('Acquire::http::Proxy "DIRECT";', ""),
    ('// Acquire::http::Proxy "http://p.example";\n# Acquire::http::Proxy "http://p.example";', ""),
    ("Acquire::http::Proxy http://bare.example:8080;", "http://bare.example:8080"),
])
def test_the_proxy_of_apt_is_found(text, expected):
    assert apt.proxy({"proxy:/etc/apt/apt.conf.d/95": Section(0, text)}) == expected


# ---------------------------------------------------------------- packages and locks


def test_a_half_read_package_database_is_unknown():
    sections = captures.fresh("debian12")
    sections["dpkg_read"] = Section(2, "")
    facts = parse(sections)
    assert facts.packages is None
    assert "packages" in facts.unknown


def test_a_machine_with_rpm_and_no_dpkg_is_not_taken_for_one_without_packages():
    sections = captures.fresh("debian12")
    sections["dpkg"] = Section(2, "")
    assert parse(sections).packages == {}
    captures.add_present(sections, "/var/lib/rpm")
    assert parse(sections).packages is None
    sections["rpm"] = captures.ok("docker-ce x86_64 3:28.5.1-1.el9\nkernel x86_64 (none):5.14.0-570\n")
    facts = parse(sections)
    assert (facts.installed("docker-ce"), facts.installed("kernel")) == ("3:28.5.1-1.el9", "5.14.0-570")


def test_the_native_architecture_has_the_plain_name():
    sections = captures.fresh("debian12")
    captures.add_packages(sections, "libnvidia-compute-580 i386 1.0\nlibnvidia-compute-580 amd64 2.0\nlibcuda1 i386 3.0")
    facts = parse(sections)
    assert facts.installed("libnvidia-compute-580") == "2.0"
    assert facts.installed("libnvidia-compute-580:i386") == "1.0"
    assert facts.installed("libcuda1") == "3.0"


def test_a_package_that_must_be_installed_again_is_not_installed():
    sections = captures.fresh("debian12")
    captures.add_packages(sections, "docker.io amd64 1.0 install reinstreq installed")
    facts = parse(sections)
    assert facts.installed("docker.io") == ""
    assert (facts.packages or {})["docker.io"].status == "reinst-required"


def test_a_process_with_the_same_inode_open_elsewhere_holds_no_lock():
    text = "inode 7 /var/lib/dpkg/lock\nlock 7 10 systemd\nfds 10\nlock 7 11 dpkg\nfds 11\nfd 11 -> /var/lib/dpkg/lock\n"
    assert [lock.pid for lock in packages.locks({"locks": Section(0, text)})] == [11]


def test_a_holder_whose_files_cannot_be_listed_counts():
    assert [lock.command for lock in packages.locks({"locks": Section(0, "inode 7 /var/lib/dpkg/lock\nlock 7 10 apt-get\n")})] == ["apt-get"]


# ---------------------------------------------------------------- firmware, containment, cloud-init


@pytest.mark.parametrize(("section", "present", "expected"), [
    (Section(0, "   6   0   0   0   1"), {"/sys/firmware", "/sys/firmware/efi"}, True),
    (Section(0, "   6   0   0   0   0"), {"/sys/firmware", "/sys/firmware/efi"}, False),
    (Section(0, "   6   0"), {"/sys/firmware", "/sys/firmware/efi"}, None),
    (Section(13, ""), {"/sys/firmware", "/sys/firmware/efi"}, None),
    (Section(2, ""), {"/sys/firmware"}, False),
    (Section(2, ""), {"/sys/firmware", "/sys/firmware/efi"}, None),
    (Section(2, "none"), {"/sys/firmware", "/sys/firmware/efi"}, False),
    (Section(2, ""), set(), None),
])
def test_secure_boot_is_known_only_where_the_firmware_tells(section, present, expected):
    assert system.secure_boot({"secure_boot": section}, frozenset(present)) is expected


@pytest.mark.parametrize(("sections", "present", "programs", "expected"), [
    ({}, set(), set(), ""),
    ({}, set(), {"cloud-init"}, "disabled"),
    ({}, {"/run/cloud-init/enabled"}, {"cloud-init"}, "running"),
    ({}, {"/run/cloud-init/enabled", "/etc/cloud/cloud-init.disabled"}, {"cloud-init"}, "disabled"),
    ({"cmdline": "cloud-init=disabled\n"}, set(), {"cloud-init"}, "disabled"),
    ({"cloud_status": '{"v1": {"stage": "init", "init": {"errors": [], "finished": null}}}'}, set(), set(), "running"),
    ({"cloud_status": '{"v1": {"stage": null, "init": {"errors": [], "finished": 1}}}'}, set(), set(), "running"),
    ({"cloud_status": "{ cut"}, set(), set(), "running"),
    ({"cloud_status": '{"v1": {"stage": null, "modules-final": {"errors": [], "finished": 1}}}'}, set(), set(), "done"),
    ({"cloud_status": '{"v1": {"stage": null, "modules-final": {"errors": [], "recoverable_errors": {"WARNING": ["x"]}, "finished": 1}}}'}, set(), set(), "degraded"),
    ({"cloud_result": '{"v1": {"errors": ["x"]}}'}, set(), set(), "error"),
])
def test_the_state_of_cloud_init(sections, present, programs, expected):
    found = {name: Section(0, text) for name, text in sections.items()}
    assert system.cloud_init(found, frozenset(present), frozenset(programs)) == expected


@pytest.mark.parametrize(("told", "present", "root", "expected"), [
    ("lxc", set(), "/dev/sda1 / ext4 rw 0 0", "lxc"),
    ("", {"/run/.containerenv"}, "overlay / overlay rw 0 0", "podman"),
    ("", {"/.dockerenv"}, "overlay / overlay rw 0 0", "docker"),
    ("", {"/.dockerenv"}, "/dev/vda / ext4 rw 0 0", ""),
    ("", set(), "/dev/vda1 / ext4 rw 0 0", ""),
])
def test_a_container_is_recognised_and_a_machine_made_from_an_image_is_none(told, present, root, expected):
    sections = {"container": Section(0, told), "mounts": Section(0, root)}
    assert system.container(sections, frozenset(present), system.mounts(sections)) == expected


def test_usr_is_writable_unless_its_mount_says_read_only():
    rows = "/dev/vda1 / ext4 rw,relatime 0 0\n/dev/vda2 /usr ext4 ro,relatime 0 0\n"
    assert system.usr_writable(system.mounts({"mounts": Section(0, rows)})) is False
    assert system.usr_writable(system.mounts({"mounts": Section(0, rows.splitlines()[0])})) is True
    assert system.usr_writable(()) is None


# ---------------------------------------------------------------- NVIDIA


def test_only_a_capability_with_the_mark_is_a_vgpu():
    config = vgpu_config()
    assert nvidia.is_vgpu(config.hex(" "))
    assert not nvidia.is_vgpu(config.replace(b"VF", b"XX").hex())
    assert not nvidia.is_vgpu(config[:64].hex())
    assert not nvidia.is_vgpu("not hex")


@given(st.binary(min_size=256, max_size=256))
def test_no_configuration_space_hangs_or_raises(data):
    marked = bytes([*data[:6], data[6] | 0x10, *data[7:]])
    assert nvidia.is_vgpu(marked.hex()) in (True, False)


@pytest.mark.parametrize(("text", "version", "is_open"), [
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024", "550.90.07", False),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  515.57  Release Build  (builder@host)  x", "515.57", True),
    ("NVRM version: nonsense", "", None),
])
def test_both_flavours_of_the_loaded_module_are_told_apart(text, version, is_open):
    found = nvidia.driver({"nvidia_proc": Section(0, text)}, frozenset())
    assert (found.loaded, found.loaded_open) == (version, is_open)


def test_what_nvidia_smi_says_when_it_fails_is_kept():
    text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    found = nvidia.driver({"nvidia_smi": Section(9, text)}, frozenset())
    assert (found.smi_rc, found.smi_text, found.gpus) == (9, text, ())


def test_the_bus_is_unknown_where_it_could_not_be_read_and_empty_where_there_is_none():
    sections = captures.fresh("debian12")
    for section, expected in ((Section(13, ""), None), (Section(2, ""), ())):
        sections["pci"] = section
        assert parse(sections).nvidia_pci == expected
    sections["probe"] = captures.ok("schema=1\nmode=root")
    assert parse(sections).nvidia_pci is None


# ---------------------------------------------------------------- Docker


@pytest.mark.parametrize(("version", "expected"), [
    ("5:28.5.1-1~debian.12~bookworm", "28.5.1"), ("20.10.24+dfsg1-1+b3", "20.10.24"), ("3:29.0.0-1.el9", "29.0.0"), ("nonsense", ""),
])
def test_the_upstream_version_of_a_package(version, expected):
    assert docker.upstream(version) == expected


@pytest.mark.parametrize(("section", "server", "error"), [
    (Section(0, captures.docker_info()), "28.5.1", ""),
    (Section(0, "WARNING: No swap limit support\n" + captures.docker_info()), "28.5.1", ""),
    (Section(1, '{"ServerErrors":["Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"]}'), "",
     "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"),
    (Section(1, '{"ServerVersion":""}\nerror: permission denied while trying to connect'), None, "error: permission denied while trying to connect"),
    (Section(13, "permission denied: /run/docker.sock"), None, "permission denied: /run/docker.sock"),
    (Section(111, "dockerd does not run"), "", "dockerd does not run"),
    (Section(124, ""), None, "the Docker daemon did not answer in time"),
    (Section(1, "{" * 5000), None, ""),
])
def test_a_daemon_that_was_not_asked_is_not_one_that_does_not_run(section, server, error):
    sections = captures.fresh("debian12")
    sections["docker_info"] = section
    found = parse(sections).docker
    assert found is not None
    assert (found.server, found.error) == (server, error)


@pytest.mark.parametrize(("version", "expected"), [("5:28.5.1-1~d", True), ("5:23.0.0-1", True), ("5:20.10.24~3-0", False)])
def test_validation_of_daemon_json_exists_since_23(version, expected):
    sections = captures.fresh("debian12")
    captures.add_programs(sections, dockerd="/usr/bin/dockerd")
    captures.add_packages(sections, f"docker-ce amd64 {version}")
    found = parse(sections).docker
    assert found is not None
    assert found.supports_validate is expected


def test_dockers_in_other_clothes_are_recognised():
    sections = captures.fresh("ubuntu2404")
    captures.add_present(sections, "/var/snap/docker")
    captures.add_packages(sections, "podman-docker all 4.9")
    sections["rootless"] = captures.ok("/run/user/1000/docker.sock\n/home/ann/.config/systemd/user/docker.service\n/run/user/77/docker.sock\n")
    found = parse(sections).docker
    assert found is not None
    assert (found.snap, found.podman_docker, found.rootless_users) == (True, True, ("ubuntu", "ann", "77"))


# ---------------------------------------------------------------- storage


def test_a_disk_is_blank_only_where_somebody_looked():
    rows = (
        "sda sectors=100 rotational=1 ro=0 parts=sda1, holders= model=A B\n"
        "sdb sectors=100 rotational=0 ro=0 parts= holders= blkid=2 type= model=Blank\n"
        "sdc sectors=100 rotational=0 ro=0 parts= holders= blkid=0 type=ext4 model=\n"
        "sdd sectors=100 rotational=0 ro=0 parts= holders= blkid=13 type= model=\n"
        "sde sectors=100 rotational=0 ro=0 parts= holders=dm-0, model=\n"
        "sdf sectors=100 rotational=0 ro=0 parts= holders= blkid=2 type= model=Mounted\n"
        "sdg sectors=0 rotational=0 ro=0 parts= holders= model=\n"
        "sdh sectors=100 rotational=0 ro=1 parts= holders= blkid=2 type= model=\n"
        "sdi sectors=100 rotational=0 ro=0 parts= holders= blkid=8 type= model=\n"
        "sdj sectors=100 rotational=0 ro=0 parts= holders= blkid=127 type= model=\n"
    )
    sections = captures.fresh("debian12")
    sections["blocks"] = captures.ok(rows)
    sections["mounts"] = captures.ok("/dev/sda1 / ext4 rw 0 0\n/dev/sdf /my\\040data xfs rw 0 0\n")
    found = parse(sections).block_devices
    assert found is not None
    assert {disk.name: disk.content for disk in found} == {
        "sda": "partitions", "sdb": "", "sdc": "ext4", "sdd": "unknown", "sde": "used by dm-0", "sdf": "xfs", "sdi": "unknown", "sdj": "unknown",
    }
    assert (found[0].mounts, found[0].partitions, found[0].model, found[0].size) == (("/",), 1, "A B", 51200)
    assert found[5].mounts == ("/my data",)


def test_free_space_that_cannot_be_assigned_to_a_path_is_unknown():
    sections = captures.fresh("debian12")
    assert parse(sections).disks["/var/lib/docker"].free_kb == 18390280
    sections["df"] = Section(1, sections["df"].text.rsplit("\n", 2)[0] + "\n")
    facts = parse(sections)
    assert facts.disks == {}
    assert "disks" in facts.unknown


def test_a_file_system_without_inodes_has_none():
    sections = captures.fresh("debian12")
    sections["df_inodes"] = captures.ok("Filesystem Inodes IUsed IFree IUse% Mounted on\n/dev/vda1 0 0 0 - /\n/dev/vda1 0 0 0 - /\n")
    assert parse(sections).disks["/"].free_inodes is None


# ---------------------------------------------------------------- the journal

BOOT = captures.fresh("debian12")["boot_id"].text
LOCK = f"run=r2\npid=812\nstart=4711\nboot={BOOT}\nowner=ann@laptop\nsince=1795399000\nhost=fresh\n"
SCRIPT = LOCK.replace("812", "813")
STAT = "812 (a) b) S 1 812 812 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3"


def journal(*, lock: str = LOCK, script: str = "", stats: tuple[str, ...] = (STAT,), result: str | None = None, end: str = "") -> Facts:
    sections = captures.fresh("debian12")
    sections["journal"] = captures.ok()
    sections["journal_lock"] = captures.ok(lock) if lock else Section(2, "")
    for stat in stats:
        sections[f"proc:{stat.split(' ')[0]}"] = captures.ok(stat)
    sections["run:r2:meta"] = captures.ok("run=r2\nowner=ann@laptop\ndigest=d\n")
    sections["run:r2:result"] = Section(2, "") if result is None else captures.ok(result)
    sections["run:r2:runner"] = captures.ok(LOCK)
    sections["run:r2:script"] = captures.ok(script) if script else Section(2, "")
    if end:
        sections["run:r2:end"] = captures.ok(end)
    return parse(sections)


def test_a_run_whose_process_lives_is_running():
    run = journal().run
    assert run is not None
    assert (run.id, run.state, run.owner, run.since, run.pid, run.digest) == ("r2", "running", "ann@laptop", "1795399000", 812, "d")


def test_a_run_whose_runner_was_killed_goes_on_while_its_script_lives():
    run = journal(script=SCRIPT, stats=(STAT.replace("812", "813"),)).run
    assert run is not None
    assert run.state == "running"


@pytest.mark.parametrize("changed", [
    {"stats": ()}, {"stats": (STAT.replace("4711", "4712"),)}, {"stats": ("812 garbage",)}, {"stats": ("812 ) ) )",)},
])
def test_a_lock_whose_process_is_another_one_or_gone_is_a_lost_run(changed):
    found = journal(**changed)
    assert found.run is not None
    assert found.run.state == "lost"
    assert found.last_run == found.run


def test_a_process_of_another_boot_is_another_process():
    sections = captures.fresh("debian12")
    sections |= {"journal": captures.ok(), "journal_lock": captures.ok(LOCK.replace(BOOT, "before")), "proc:812": captures.ok(STAT)}
    run = parse(sections).run
    assert run is not None
    assert run.state == "lost"


def test_a_lock_left_over_from_a_finished_run_holds_nothing():
    found = journal(stats=(), result="0\n")
    assert found.run is None
    assert found.last_run is not None
    assert (found.last_run.state, found.last_run.rc) == ("done", 0)


@pytest.mark.parametrize(("result", "state", "code"), [("100\n", "failed", 100), ("0\n", "done", 0), ("75\n", "reboot", 75), ("76\n", "reboot", 76), ("", "failed", 1)])
def test_the_end_of_a_run(result, state, code):
    last = journal(lock="", stats=(), result=result).last_run
    assert last is not None
    assert (last.state, last.rc) == (state, code)


def test_a_script_that_came_to_its_end_without_its_runner_is_not_lost():
    last = journal(lock="", stats=(), end="1795399020\tend\t-\t75").last_run
    assert last is not None
    assert (last.state, last.rc) == ("reboot", 75)
    lost = journal(lock="", stats=(), end="1795399020\tchanged\tdocker/packages\t").last_run
    assert lost is not None
    assert lost.state == "lost"


@pytest.mark.parametrize("name", ["journal", "journal_lock", "journal_runs"])
def test_a_journal_that_could_not_be_read_is_unknown(name):
    sections = captures.fresh("debian12")
    sections["journal"] = captures.ok()
    sections[name] = Section(13, "")
    assert "journal" in parse(sections).unknown


# ---------------------------------------------------------------- the whole


def test_a_capture_of_another_schema_is_refused():
    sections = captures.fresh("debian12")
    sections["probe"] = captures.ok("schema=2\nmode=live")
    with pytest.raises(ProbeFailed, match="schema 2"):
        parse(sections)


def test_a_probe_that_refused_its_arguments_is_an_error():
    with pytest.raises(ProbeFailed, match="refused its arguments"):
        parse({"probe": Section(22, "unknown argument --frobnicate")})


def test_the_name_of_a_host_can_be_given():
    assert parse(captures.fresh("debian12"), host="gpu7").host == "gpu7"


SAMPLE = captures.ASSEMBLED["ubuntu2404-aws-l4"][1]()
HOSTILE = st.one_of(
    st.text(max_size=80), st.sampled_from(["[" * 4000, '{"v1": ' * 900, "9" * 5000, "=\n=\n", " \n | \n", "\0", ":::::", "a b c d e f\n" * 3, '{"a": 1e999}']),
    st.lists(st.sampled_from([" ", "\n", "=", "|", ":", "/", "-", "0", "x", ",", '"', "{", "}", "[", "]", "1", "'", "\t", "%", "lock", "fd", "inode"])).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SAMPLE)), HOSTILE, st.sampled_from([0, 0, 0, 1, 2, 13, 22, 111, 124, 127]))
def test_no_text_of_a_host_raises_anything_but_probe_failed(name, text, code):
    sections = {**SAMPLE, name: Section(code, text)}
    try:
        facts = parse(sections)
    except ProbeFailed:
        return
    json.dumps(as_json(facts))


@settings(max_examples=100, deadline=None)
@given(st.sets(st.sampled_from(sorted(set(SAMPLE) - {"probe"}))))
def test_missing_sections_are_unknown_and_never_an_accident(gone):
    sections = {name: section for name, section in SAMPLE.items() if name not in gone}
    if {"os_release", "os_release_vendor"} <= gone:
        with pytest.raises(ProbeFailed, match="os-release"):
            parse(sections)
        return
    facts = parse(sections)
    assert ("pci" in gone) == (facts.nvidia_pci is None)
    assert ("daemon_json" in gone) == (facts.daemon_json is None)
    assert bool({"dpkg", "dpkg_read"} & gone) == (facts.packages is None)


def test_reading_facts_needs_no_templates_no_terminal_and_no_network():
    code = "import sys, provision.facts, provision.capture; print(*sorted(m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jinja2", "rich", "yaml", "paramiko", "requests", "socket", "subprocess", "click", "shutil", "tempfile"} & set(done.stdout.split())
