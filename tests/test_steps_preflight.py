"""What must hold before anything is changed; disks, proxies and the order of a half-finished package operation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.model import CHANGE, OK, REFUSED, BlockDevice, Disk, Facts, Lock, PathFact, Plan, Reach, Run
from provision.plan import plan
from provision.report.verdict import plan_exit_code
from provision.spec import DockerSpec, Preflight, Proxy, Spec, Storage
from tests.effects import after
from tests.machines import CATALOG, machine, with_gpus, with_packages

URL = "https://download.docker.com/linux/debian/dists/bookworm/InRelease"


def decide(facts: Facts, **preflight: object) -> Plan:
    return plan(facts, Spec(preflight=Preflight(**preflight)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str):
    return next(i for i in decided.items if i.id == identifier)


def ids(decided: Plan) -> list[str]:
    return [p.id for p in decided.problems]


# ---------------------------------------------------------------- kinds of machine


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"wsl": True}, "system/wsl"),
        ({"ostree": True}, "system/immutable"),
        ({"usr_writable": False}, "system/immutable"),
        ({"container": "docker"}, "system/container"),
    ],
)
def test_a_machine_that_cannot_be_set_up_is_unsupported(changes, problem):
    decided = decide(replace(machine(), **changes))
    assert ids(decided) == [problem]
    assert plan_exit_code(decided) == 5


def test_a_container_is_allowed_by_name():
    assert ids(decide(machine(container="docker"), allow_container=True)) == []


def test_root_is_wanted_on_a_live_machine_and_never_for_a_tree():
    assert ids(decide(machine(uid=1000))) == ["preflight/root"]
    assert ids(decide(machine(uid=1000, live=False))) == []
    assert ids(decide(machine(uid=None))) == []


# ---------------------------------------------------------------- dpkg


@pytest.mark.parametrize("status", ["half-configured", "half-installed", "unpacked", "triggers-pending", "reinst-required"])
def test_a_package_operation_that_was_cut_off_is_refused_with_both_ways_out(status):
    decided = decide(with_packages(machine(), f"man-db 2.11-1 {status}"))
    assert ids(decided) == ["preflight/dpkg"]
    assert "man-db" in decided.problems[0].message
    assert "dpkg --configure -a" in decided.problems[0].fix
    assert "preflight.repair=true" in decided.problems[0].fix
    assert item(decided, "preflight/dpkg").state == REFUSED


@pytest.mark.parametrize(("state", "own"), [("lost", True), ("failed", True), ("done", False)])
def test_what_an_own_run_left_behind_is_put_right_without_asking(state, own):
    facts = replace(machine(), dpkg_interrupted=True, last_run=Run("20261123T0400-0", state))
    assert (ids(decide(facts)) == []) is own


def test_with_consent_the_repair_comes_first():
    decided = decide(with_packages(machine(), "man-db 2.11-1 half-configured"), repair=True)
    assert decided.problems == ()
    assert decided.items[0].id == "preflight/dpkg"
    assert decided.items[0].state == CHANGE


# ---------------------------------------------------------------- clock, locks, cloud-init


@pytest.mark.parametrize(
    ("host", "asked", "words"),
    [
        (1795400000 - 4000, 1795400000, "4000 s behind"),
        (1795400000 + 301, 1795400000, "301 s ahead"),
        (1000000000, None, "before 2025"),
    ],
)
def test_a_wrong_clock_is_refused(host, asked, words):
    decided = decide(machine(host_time=host, asked_at=asked))
    assert ids(decided) == ["preflight/clock"]
    assert words in decided.problems[0].message


@pytest.mark.parametrize(
    ("host", "asked", "live"),
    [(1795400000 + 299, 1795400000, True), (None, 1795400000, True), (1000000000, None, False), (1795400000, None, True)],
)
def test_a_clock_that_is_right_enough_or_unknown_is_no_problem(host, asked, live):
    assert ids(decide(machine(host_time=host, asked_at=asked, live=live))) == []


def test_whoever_holds_a_lock_is_named_and_waited_for():
    decided = decide(
        machine(locks=(Lock("/var/lib/dpkg/lock-frontend", 812, "unattended-upgr"),), cloud_init="running"), lock_wait=60
    )
    assert decided.problems == ()
    told = " ".join(n.message for n in decided.notices)
    assert "unattended-upgr (pid 812) holds /var/lib/dpkg/lock-frontend" in told
    assert "cloud-init is still at work; mlhost waits for it up to 60 s" in told


# ---------------------------------------------------------------- space


def disks(root: int, docker: int, mount: str = "/", inodes: int = 1_000_000) -> dict[str, Disk]:
    """Free GB of / and of Docker's data directory."""
    gb = 1_000_000_000 // 1024
    return {
        "/": Disk("/", "/", root * gb, 10**9, inodes),
        "/var/lib/docker": Disk("/var/lib/docker", mount, docker * gb, 10**9, inodes),
    }


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (machine(disks=disks(4, 4)), []),
        (machine(disks=disks(2, 2)), ["preflight/space/var/lib/docker"]),
        (machine(disks=disks(2, 3, "/var"), docker=machine().docker), []),
        (machine(disks=disks(0, 3, "/var")), ["preflight/space"]),
        (machine(disks=disks(9, 9, inodes=100)), ["preflight/inodes", "preflight/inodes/var/lib/docker"]),
        (with_gpus(machine(disks=disks(7, 7)), "2330"), ["preflight/space/var/lib/docker"]),
        (machine(disks={}), []),
    ],
)
def test_room_is_wanted_for_what_is_installed_and_one_file_system_is_counted_once(facts, expected):
    assert ids(decide(facts)) == expected


def test_the_playbook_may_ask_for_more_room():
    assert ids(decide(machine(disks=disks(9, 9)), root_free_gb=20)) == ["preflight/space", "preflight/space/var/lib/docker"]


def test_a_disk_without_inodes_of_its_own_has_enough_of_them():
    plenty = {path: replace(disk, free_inodes=None) for path, disk in disks(9, 9).items()}
    assert ids(decide(machine(disks=plenty))) == []


# ---------------------------------------------------------------- reach


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("dns", "resolver"),
        ("connect", "firewall"),
        ("tls", "ca-certificates"),
        ("proxy", "credentials"),
        ("missing", "docker.source=distro"),
        ("http", "Try again"),
    ],
)
def test_each_way_of_not_being_reached_has_its_own_remedy(state, words):
    facts = machine(reach={URL: Reach(URL, state, "said so")})
    decided = plan(facts, Spec(docker=DockerSpec(source="docker-ce")), CATALOG)
    assert ids(decided) == ["preflight/reach"]
    assert "(said so)" in decided.problems[0].message
    assert words in decided.problems[0].fix


@pytest.mark.parametrize("state", ["ok", "no-client"])
def test_a_host_without_a_downloader_is_not_accused_of_having_no_network(state):
    assert ids(decide(machine(reach={URL: Reach(URL, state)}))) == []


# ---------------------------------------------------------------- disks to mount


NVME = BlockDevice("nvme1n1", 10**12, "Amazon EC2 NVMe Instance Storage")


def stored(facts: Facts, disk: str = "instance-store") -> Plan:
    return plan(facts, Spec(storage=Storage(disk, "/mnt/scratch")), CATALOG)


def test_the_first_unused_instance_disk_is_mounted_before_docker_is_installed():
    used = replace(NVME, name="nvme0n1", content="LVM2_member")
    decided = stored(machine(block_devices=(used, NVME, BlockDevice("sda", 10**9))))
    assert item(decided, "storage/mount").action.device == "/dev/nvme1n1"
    order = [i.id for i in decided.items]
    assert order.index("storage/mount") < order.index("docker/packages")


def test_no_instance_disk_is_said_and_no_problem():
    decided = stored(machine(block_devices=(replace(NVME, partitions=1),)))
    assert decided.problems == ()
    assert any("no unused local instance disk" in n.message for n in decided.notices)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (replace(NVME, content="crypto_LUKS"), "holding crypto_LUKS"),
        (replace(NVME, partitions=2), "divided into 2 partitions"),
        (replace(NVME, mounts=("/srv",)), "mounted at /srv"),
    ],
)
def test_a_disk_that_holds_anything_is_refused(device, words):
    decided = stored(machine(block_devices=(device,)), "/dev/nvme1n1")
    assert ids(decided) == ["storage/mount"]
    assert words in decided.problems[0].message


def test_a_mounted_disk_is_left_alone_and_a_missing_one_is_refused():
    assert item(stored(machine(block_devices=(replace(NVME, mounts=("/mnt/scratch",)),))), "storage/mount").state == OK
    assert ids(stored(machine(), "/dev/sdz")) == ["storage/mount"]
    assert ids(stored(machine(block_devices=None))) == ["storage/mount"]
    assert item(stored(machine(), "/dev/disk/by-id/x"), "storage/mount").action.device == "/dev/disk/by-id/x"


# ---------------------------------------------------------------- proxy


PROXY = Spec(proxy=Proxy("http://user:sesame@proxy.example:3128", "", ("localhost", ".local", "10.0.0.0/8")))


def test_a_proxy_with_a_password_is_in_files_only_root_can_read():
    decided = plan(machine(), PROXY, CATALOG)
    files = {i.action.path: i.action for i in decided.items if i.id.startswith("proxy/")}
    assert {path: action.mode for path, action in files.items() if "sesame" in action.content} == {
        "/etc/apt/apt.conf.d/95mlhost-proxy": "0600",
        "/etc/mlhost/docker-proxy.env": "0600",
    }
    assert 'Acquire::https::Proxy "http://user:sesame@proxy.example:3128";' in files["/etc/apt/apt.conf.d/95mlhost-proxy"].content
    assert "NO_PROXY=localhost,.local,10.0.0.0/8\n" in files["/etc/mlhost/docker-proxy.env"].content
    shown = str([(i.why, i.expected, i.actual) for i in decided.items])
    assert "sesame" not in shown


def test_a_proxy_that_is_there_is_left_alone_and_one_readable_by_all_is_closed():
    facts = after(plan(machine(), PROXY, CATALOG), machine())
    assert plan(facts, PROXY, CATALOG).converged
    path = "/etc/mlhost/docker-proxy.env"
    facts = replace(facts, paths={**facts.paths, path: PathFact(path, "file", "0644", "root:root", facts.paths[path].sha256)})
    assert item(plan(facts, PROXY, CATALOG), "proxy/docker-environment").state == CHANGE
