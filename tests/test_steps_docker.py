"""The engine: kept, installed, replaced, refused; where it comes from; who may use it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from provision.model import CHANGE, OK, Docker, Facts, Plan, Reach
from provision.plan import plan
from provision.spec import DockerSpec, Mirror, Mirrors, Preflight, Spec
from provision.steps.docker import glob
from provision.steps.engine import numbers, satisfies
from tests.effects import after
from tests.machines import CATALOG, DOCKER_SOURCE, KEY, OTHER_KEY, PINNED, machine, unit, with_docker, with_packages, with_source

LINE = DOCKER_SOURCE.format("debian", "bookworm")
INDEX = "https://download.docker.com/linux/debian/dists/bookworm/InRelease"
ARCHIVE = "http://mirror.example/debian/dists/bookworm/InRelease"
LIST = "/etc/apt/sources.list.d/docker.list"


def decide(facts: Facts, **docker: object) -> Plan:
    return plan(facts, Spec(docker=DockerSpec(**docker)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str):
    return next(i for i in decided.items if i.id == identifier)


def ids(decided: Plan) -> list[str]:
    return [p.id for p in decided.problems]


# ---------------------------------------------------------------- which engine


def test_a_fresh_machine_gets_dockers_own_with_all_the_contract_names():
    decided = decide(machine())
    details = decided.decisions["docker"].details
    assert decided.decisions["docker"].action == "install"
    assert details["source"] == "docker-ce"
    assert details["packages"] == ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
    assert details["repository"] == {
        "uri": "https://download.docker.com/linux/debian",
        "suite": "bookworm",
        "components": ["stable"],
        "key_fingerprint": PINNED,
    }
    assert details["remove"] == []
    assert decided.urls == (INDEX, ARCHIVE)


def test_an_unreachable_repository_makes_way_for_the_distributions_and_the_plan_says_why():
    facts = replace(machine(), reach={INDEX: Reach(INDEX, "dns", "Could not resolve 'download.docker.com'")})
    decided = decide(facts)
    assert decided.decisions["docker"].details["source"] == "distro"
    assert decided.decisions["docker"].details["packages"] == ["docker.io", "apparmor"]
    assert "Could not resolve 'download.docker.com'" in decided.decisions["docker"].why
    assert decided.urls == (ARCHIVE,)
    assert decided.problems == ()


def test_an_unreachable_archive_of_the_distribution_is_a_matter_of_its_own_sources():
    facts = replace(machine(), reach={ARCHIVE: Reach(ARCHIVE, "missing", "404  Not Found")})
    decided = decide(facts)
    assert ids(decided) == ["preflight/reach"]
    assert "own apt sources" in decided.problems[0].fix


def test_an_unreachable_repository_that_the_playbook_names_is_refused():
    facts = replace(machine(), reach={INDEX: Reach(INDEX, "connect", "connection timed out")})
    assert ids(decide(facts, source="docker-ce")) == ["preflight/reach"]


@pytest.mark.parametrize(
    ("package", "version"),
    [("docker-ce", "5:28.5.2-1~x"), ("docker.io", "20.10.24+dfsg1-1"), ("moby-engine", "28.0.1-1"), ("", "27.1.0-1")],
)
def test_an_engine_that_works_is_kept_whoever_packaged_it(package, version):
    decided = decide(with_docker(machine(), package, version))
    assert decided.decisions["docker"].action == "keep"
    assert decided.decisions["docker"].details["source"] == {"docker-ce": "docker-ce", "docker.io": "distro"}.get(package)
    assert not any(i.kind == "packages" and i.state == CHANGE for i in decided.items)


def test_a_package_left_half_configured_is_still_the_engine_that_is_there():
    facts = with_packages(with_docker(machine()), "docker-ce 5:28.5.2-1~x half-configured")
    assert decide(facts).decisions["docker"].action == "keep"


def test_a_removed_package_that_left_its_configuration_is_no_engine():
    facts = with_packages(machine(), "docker-ce 5:28.5.2-1~x config-files")
    assert decide(facts).decisions["docker"].action == "install"


def test_a_distribution_without_a_repository_of_dockers_gets_its_own():
    facts = replace(machine("debian 13"), arch="riscv64")
    decided = decide(facts)
    assert decided.decisions["docker"].details["packages"] == ["docker.io", "docker-cli"]
    assert ids(decide(facts, source="docker-ce")) == ["docker/source"]


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("version", "epoch", "pattern"),
    [
        ("29", "5:", "5:29.*"),
        ("29.7", "5:", "5:29.7.*"),
        ("29.7.2", "5:", "5:29.7.2-*"),
        ("20.10.21", "5:", "5:20.10.21~*"),
        ("26.1.5", "", "26.1.5*"),
        ("26", "", "26.*"),
        ("", "5:", ""),
    ],
)
def test_a_pin_becomes_apts_pattern(version, epoch, pattern):
    assert glob(version, epoch) == pattern


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("29.7.2", "29.7", True),
        ("29.70.1", "29.7", False),
        ("5:29.7.2-1~x", "29.7.2", True),
        ("28.1", "29", False),
        ("", "29", False),
        ("1", "", True),
    ],
)
def test_a_prefix_is_one_of_whole_numbers(version, wanted, fits):
    assert satisfies(version, wanted) is fits


def test_the_leading_numbers_of_versions():
    assert [numbers(v) for v in ("5:29.7.2-1~debian", "v1.2", "20.10.24+dfsg1", "")] == [(29, 7, 2), (1, 2), (20, 10, 24), ()]


def test_a_newer_version_is_an_upgrade_that_names_the_containers_it_stops():
    decided = decide(with_docker(machine(), running_containers=3), version="29.7")
    change = item(decided, "docker/packages")
    assert change.state == CHANGE
    assert {(p.name, p.version) for p in change.action.install} >= {
        ("docker-ce", "5:29.7.*"),
        ("docker-ce-cli", "5:29.7.*"),
        ("containerd.io", ""),
    }
    assert decided.restarts == ("docker.service (3 containers are running and will stop; those with a restart policy come back)",)


def test_a_downgrade_is_refused():
    decided = decide(with_docker(machine()), version="27")
    assert ids(decided) == ["docker/version"]
    assert "28.5.2" in decided.problems[0].message
    assert "'28.5.2'" in decided.problems[0].fix


def test_an_engine_without_a_package_cannot_be_upgraded():
    assert ids(decide(with_docker(machine(), "", "27.1.0-1"), version="29")) == ["docker/version"]


# ---------------------------------------------------------------- what stands in the way


def test_switching_to_dockers_own_needs_consent_and_names_what_goes():
    facts = with_docker(machine(), "docker.io", "20.10.24+dfsg1-1", running_containers=1)
    facts = with_packages(facts, "containerd 1.6.20-1\nrunc 1.1.5-1")
    decided = decide(facts, source="docker-ce")
    assert ids(decided) == ["docker/conflicts"]
    assert decided.decisions["docker"].action == "refuse"
    assert decided.decisions["docker"].details["remove"] == ["docker.io", "containerd", "runc"]
    assert "1 container is running" in decided.problems[0].message
    agreed = decide(facts, source="docker-ce", remove_conflicts=True)
    assert agreed.problems == ()
    assert item(agreed, "docker/packages").action.remove == ("docker.io", "containerd", "runc")
    assert agreed.restarts


def test_microsofts_engine_makes_way_with_all_that_belongs_to_it():
    facts = with_packages(with_docker(machine("ubuntu 24.04"), "moby-engine", "28.0.1-1"), "moby-cli 28-1\nmoby-containerd 1.7-1")
    for source in ("docker-ce", "distro"):
        decided = decide(facts, source=source, remove_conflicts=True)
        assert item(decided, "docker/packages").action.remove == ("moby-engine", "moby-cli", "moby-containerd")


def test_the_distributions_engine_on_request_takes_the_place_of_dockers_own():
    decided = decide(with_docker(machine("debian 13"), "docker-ce"), source="distro", remove_conflicts=True)
    assert decided.decisions["docker"].details["packages"] == ["docker.io", "docker-cli"]
    assert "docker-ce" in decided.decisions["docker"].details["remove"]
    assert decided.decisions["docker"].details["repository"] is None


@pytest.mark.parametrize(
    ("docker", "problem"),
    [
        ({"snap": True}, "docker/snap"),
        ({"rootless_users": ("ada",)}, "docker/rootless"),
        ({"podman_docker": True}, "docker/podman"),
    ],
)
def test_another_docker_is_never_silently_doubled(docker, problem):
    assert ids(decide(replace(machine(), docker=Docker(**docker)))) == [problem]


def test_another_docker_may_stay_where_the_playbook_says_so():
    facts = replace(machine(), docker=Docker(snap=True, rootless_users=("ada",)))
    assert decide(facts, beside=("snap", "rootless")).problems == ()


def test_podmans_package_is_a_conflict_like_any_other():
    facts = with_packages(replace(machine(), docker=Docker(podman_docker=True)), "podman-docker 5.4-1")
    assert ids(decide(facts)) == ["docker/conflicts"]


# ---------------------------------------------------------------- sources that are there


GOOD = {"/etc/apt/keyrings/docker.asc": KEY}


def planned(facts: Facts) -> Plan:
    """A plan that installs from Docker's repository."""
    return decide(facts, source="docker-ce")


@pytest.mark.parametrize(
    "text",
    [
        LINE,
        LINE.replace("arch=amd64", "arch=amd64,arm64"),
        LINE.replace("stable", "stable test"),
        LINE + LINE.replace("deb ", "deb-src ").replace("stable", "test"),
    ],
)
def test_a_source_with_the_pinned_key_is_adopted(text):
    facts = replace(with_source(machine(), LIST, text), keyrings=GOOD)
    assert item(planned(facts), "docker/repository").state == OK


@pytest.mark.parametrize(
    ("text", "keyrings"),
    [
        (LINE, {}),
        (LINE, {"/etc/apt/keyrings/docker.asc": OTHER_KEY}),
        (LINE, {"/etc/apt/keyrings/docker.asc": KEY + OTHER_KEY}),
        (LINE.replace("bookworm", "bullseye"), GOOD),
        (LINE.replace("amd64", "arm64"), GOOD),
        (LINE.replace("stable", "nightly"), GOOD),
        (LINE.replace("deb ", "deb-src "), GOOD),
        ("deb https://download.docker.com/linux/debian bookworm stable\n", {"/etc/apt/trusted.gpg.d/docker.gpg": KEY}),
        (LINE + LINE.replace("docker.asc", "other.asc"), {**GOOD, "/etc/apt/keyrings/other.asc": KEY}),
    ],
)
def test_any_other_source_is_converged_so_that_one_stays_with_the_pinned_key(text, keyrings):
    facts = replace(with_source(machine(), LIST, text), keyrings=keyrings)
    change = item(planned(facts), "docker/repository")
    assert change.state == CHANGE
    assert change.action.obsolete == (LIST,)
    facts = after(planned(facts), facts)
    assert item(planned(facts), "docker/repository").state == OK


def test_a_source_of_a_kept_engine_is_left_as_it_is_unless_it_stops_apt():
    facts = with_source(with_docker(machine()), LIST, "deb https://download.docker.com/linux/debian bookworm stable\n")
    assert item(decide(facts), "docker/repository").state == OK
    clashing = with_source(facts, "/etc/apt/sources.list.d/other.list", LINE)
    decided = decide(clashing)
    assert item(decided, "docker/repository").state == CHANGE
    assert decided.urls == (INDEX,)
    assert set(item(decided, "docker/repository").action.obsolete) == {LIST, "/etc/apt/sources.list.d/other.list"}


def test_no_order_of_two_files_leaves_apt_with_two_keys():
    """Whatever files name the repository, after the change they do not contradict each other."""
    from provision.aptsource import clash

    lines = [LINE, LINE.replace("docker.asc", "docker.gpg"), LINE.replace(" signed-by=/etc/apt/keyrings/docker.asc", ""), ""]
    paths = (LIST, "/etc/apt/sources.list", "/etc/apt/sources.list.d/aa.list")
    for texts in itertools.product(lines, repeat=3):
        facts = replace(machine(), keyrings=GOOD)
        for path, text in zip(paths, texts):
            facts = with_source(facts, path, "deb http://mirror.example/x bookworm main\n" + text if path == paths[1] else text)
        facts = after(planned(facts), facts)
        assert clash(facts.apt_sources, "amd64") == ()
        assert item(planned(facts), "docker/repository").state == OK
        assert any("mirror.example/x" in uri for s in facts.apt_sources for uri in s.uris)


def test_a_mirror_stands_in_for_the_vendors_source_and_may_sign_anew():
    mirror = Mirror("https://mirror.example/docker/", fingerprint=" ".join(PINNED[i : i + 4] for i in range(0, 40, 4)).lower())
    spec = Spec(docker=DockerSpec(source="docker-ce"), mirrors=Mirrors(docker=mirror))
    facts = replace(with_source(machine(), LIST, LINE), keyrings=GOOD)
    decided = plan(facts, spec, CATALOG)
    change = item(decided, "docker/repository")
    assert change.state == CHANGE
    assert "URIs: https://mirror.example/docker/linux/debian\n" in change.action.text
    assert change.action.obsolete == (LIST,)
    assert change.action.key.url == "https://mirror.example/docker/linux/debian/gpg"
    assert change.action.key.fingerprints == (PINNED,)
    assert decided.urls == ("https://mirror.example/docker/linux/debian/dists/bookworm/InRelease", ARCHIVE)


def test_a_key_that_the_host_has_already_is_carried_over_and_not_fetched():
    from provision import keys

    armoured = keys.armoured(KEY)
    facts = replace(machine(), keyrings={"/usr/share/keyrings/docker-old.asc": armoured})
    assert item(planned(facts), "docker/repository").action.key.text == armoured
    assert keys.needed(planned(facts)) == ()


# ---------------------------------------------------------------- who may use it


def test_a_user_is_put_into_the_group_with_the_consequence_said():
    decided = decide(machine(), users=("ada",))
    assert item(decided, "docker/user/ada").state == CHANGE
    assert "as good as root" in item(decided, "docker/user/ada").why
    assert any("root" in n.message for n in decided.notices)


def test_a_member_is_left_alone_and_a_service_user_is_not_refused():
    facts = replace(machine(), groups={"docker": ("ada",)})
    decided = decide(facts, users=("ada", "jenkins"))
    assert item(decided, "docker/user/ada").state == OK
    assert item(decided, "docker/user/jenkins").state == CHANGE
    assert decided.problems == ()


# ---------------------------------------------------------------- a host that cannot be read


def test_packages_that_could_not_be_read_are_not_taken_for_none():
    decided = decide(replace(machine(), packages=None))
    assert ids(decided) == ["docker/unknown"]
    assert decided.decisions["docker"].details["packages"] == []


def test_a_tree_without_a_package_database_has_nothing_installed():
    facts = replace(machine(), live=False, packages={}, uid=None, units={}, systemd=None, host_time=None)
    decided = plan(facts, Spec(preflight=Preflight()), CATALOG)
    assert decided.problems == ()
    assert decided.decisions["docker"].action == "install"


def test_a_stopped_engine_is_started_and_not_reinstalled():
    facts = with_docker(machine())
    facts = replace(facts, docker=replace(facts.docker, server=""), units=unit("docker.service", "inactive", "disabled"))
    decided = decide(facts)
    assert [i.id for i in decided.changes] == ["docker/service", "smoke/container"]
    assert decided.restarts == ()
