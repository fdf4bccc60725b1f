"""What the planner does where packages are rpms: sources adopted or put right, EPEL and CodeReady Builder, streams, locks, SUSE's modules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision import rpmsource
from provision.actions import Command, File, Hold, Packages, RpmRepository
from provision.facts import rpm
from provision.model import CHANGE, OK, Facts, Item, PathFact, Plan, Reach
from provision.plan import plan
from provision.spec import DockerSpec, DriverSpec, Mirror, Mirrors, SmokeSpec, Spec, ToolkitSpec
from provision.watched import IMAGES
from tests.effects import after
from tests.machines import (
    CATALOG,
    KEY,
    OTHER_KEY,
    PINNED,
    SWITCH,
    machine,
    with_docker,
    with_gpus,
    with_packages,
    with_source,
    with_toolkit,
    working,
)

ROCKY = "https://download.docker.com/linux/rhel/9/x86_64/stable"
OWN = f"""[docker-ce-stable]
name=Docker
baseurl={ROCKY}
enabled=1
gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/company.asc
"""
SHIPPED = """# shipped by Docker
[docker-ce-stable]
name=Docker CE Stable - $basearch
baseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/stable
enabled=1
gpgcheck=1
gpgkey=https://download.docker.com/linux/rhel/gpg

[docker-ce-test]
name=Docker CE Test - $basearch
baseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/test
enabled=0
gpgcheck=1
"""


def items(decided: Plan) -> dict[str, Item]:
    return {item.id: item for item in decided.items}


def docker(facts: Facts, **spec: object) -> Plan:
    return plan(facts, Spec(**spec), CATALOG)  # type: ignore[arg-type]


def with_repo(text: str, name: str = "docker-ce.repo", key: bytes | None = KEY) -> Facts:
    facts = with_source(machine("rocky 9"), f"/etc/yum.repos.d/{name}", text)
    return replace(facts, keyrings={"/etc/pki/rpm-gpg/company.asc": key} if key else {})


# ---------------------------------------------------------------- repositories


def test_a_missing_repository_is_written_with_the_literal_release_and_its_own_key() -> None:
    item = items(docker(machine("rhel 9")))["docker/repository"]
    action = item.action
    assert isinstance(action, RpmRepository)
    assert (action.path, action.name) == ("/etc/yum.repos.d/docker-ce.repo", "docker-ce-stable")
    assert "baseurl=https://download.docker.com/linux/rhel/9/x86_64/stable\n" in action.text
    assert "gpgkey=file:///etc/pki/rpm-gpg/docker.asc\n" in action.text
    assert action.key is not None
    assert action.key.fingerprints == (PINNED,)


def test_a_section_with_the_pinned_key_is_adopted_however_its_file_is_called() -> None:
    item = items(docker(with_repo(OWN, "company.repo")))["docker/repository"]
    assert (item.state, item.action) == (OK, None)
    assert item.why == "/etc/yum.repos.d/company.repo names it and its key is the pinned one"


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        (SHIPPED, KEY, "by $releasever"),
        (OWN, OTHER_KEY, "with a key that is not known to be the pinned one"),
        (OWN.replace("file:///etc/pki/rpm-gpg/company.asc", "https://download.docker.com/linux/rhel/gpg"), KEY, "with a key that is not known"),
        (OWN.replace("gpgcheck=1", "gpgcheck=0"), KEY, "does not ask for the vendor's signatures"),
        (OWN + OWN.replace("docker-ce-stable", "again"), KEY, "2 sections name it"),
    ],
)
def test_a_section_that_is_not_as_it_should_be_is_put_right(text: str, key: bytes, why: str) -> None:
    item = items(docker(with_repo(text, key=key)))["docker/repository"]
    assert item.state == CHANGE
    assert why in item.why


def test_what_else_stands_in_the_file_stays() -> None:
    action = items(docker(with_repo(SHIPPED)))["docker/repository"].action
    assert isinstance(action, RpmRepository)
    found = {s.id: s for s in rpm.repo_file(action.path, action.text)}
    assert list(found) == ["docker-ce-stable", "docker-ce-test"]
    assert found["docker-ce-stable"].baseurl == (ROCKY,)
    assert not found["docker-ce-test"].enabled


def test_of_somebody_elses_file_only_the_section_in_question_is_commented_out() -> None:
    mine = "[mine]\nbaseurl=https://mine.example/x\nenabled=1\n\n"
    action = items(docker(with_repo(mine + SHIPPED, "mine.repo")))["docker/repository"].action
    assert isinstance(action, RpmRepository)
    ((path, text),) = action.edits
    assert path == "/etc/yum.repos.d/mine.repo"
    assert text.startswith(mine)
    assert [s.id for s in rpm.repo_file(path, text)] == ["mine", "docker-ce-test"]


def test_a_file_with_nothing_else_in_it_is_moved_aside() -> None:
    action = items(docker(with_repo(OWN, "docker.repo", OTHER_KEY)))["docker/repository"].action
    assert isinstance(action, RpmRepository)
    assert action.obsolete == ("/etc/yum.repos.d/docker.repo",)


def test_a_mirror_of_the_playbook_stands_in_for_the_vendors() -> None:
    spec = Mirrors(docker=Mirror("https://mirror.example/docker", fingerprint=PINNED))
    item = items(docker(with_repo(OWN), mirrors=spec))["docker/repository"]
    assert isinstance(item.action, RpmRepository)
    assert "baseurl=https://mirror.example/docker/linux/rhel/9/x86_64/stable\n" in item.action.text
    assert "the playbook's mirror stands in for it" in item.why


def test_an_engine_that_is_kept_leaves_its_source_as_it_is() -> None:
    facts = with_docker(with_repo(SHIPPED), "docker-ce", "3:28.5.2-1.el9")
    item = items(docker(facts))["docker/repository"]
    assert (item.state, item.action) == (OK, None)


def test_a_repository_whose_keys_the_distribution_brings_needs_none_fetched() -> None:
    action = items(plan(with_gpus(machine("azure linux 3"), "1eb8"), Spec(), CATALOG))["driver/repository"].action
    assert isinstance(action, RpmRepository)
    assert action.key is None
    assert "gpgkey=file:///etc/pki/rpm-gpg/MICROSOFT-RPM-GPG-KEY " in action.text


@pytest.mark.parametrize(
    ("url", "same"),
    [
        (ROCKY, True),
        ("http://download.docker.com/linux/rhel/9/$basearch/stable/", True),
        ("https://download.docker.com/linux/rhel/$releasever/${basearch}/stable", True),
        ("https://download.docker.com/linux/rhel/$releasever/$basearch/test", False),
        ("https://download.docker.com/linux/rhel/8/x86_64/stable", False),
    ],
)
def test_a_baseurl_is_known_with_its_variables(url: str, same: bool) -> None:
    assert rpmsource.names(url, (ROCKY,), "x86_64") is same


# ---------------------------------------------------------------- Docker


def test_an_unreachable_repository_is_told_where_the_distribution_has_no_engine_of_its_own() -> None:
    index = f"{ROCKY}/repodata/repomd.xml"
    facts = machine("rocky 9", reach={index: Reach(index, "dns", "Could not resolve host: download.docker.com")})
    assert [p.id for p in docker(facts).problems] == ["preflight/reach"]


def test_podman_and_runc_go_only_with_consent() -> None:
    facts = with_packages(machine("rocky 9"), "podman 6:5.4.0-1.el9\nrunc 4:1.2.5-2.el9")
    refused = docker(facts)
    assert [p.id for p in refused.problems] == ["docker/conflicts"]
    assert "podman, runc" in refused.problems[0].message
    allowed = items(docker(facts, docker=DockerSpec(remove_conflicts=True)))["docker/packages"].action
    assert isinstance(allowed, Packages)
    assert allowed.remove == ("podman", "runc")


@pytest.mark.parametrize(
    ("system", "packages"),
    [("amazon 2023", ["docker"]), ("azure linux 3", ["moby-engine", "moby-cli"]), ("sles 15", ["docker"]), ("leap 16", ["docker"])],
)
def test_where_docker_publishes_nothing_the_distributions_own_is_taken(system: str, packages: list[str]) -> None:
    decision = docker(machine(system)).decisions["docker"]
    assert (decision.action, decision.details["source"], decision.details["packages"]) == ("install", "distro", packages)


def test_a_version_needs_neither_epoch_nor_release() -> None:
    for wanted, asked in (("29.7.2", "29.7.2"), ("29.7", "29.7.*")):
        action = items(docker(machine("rocky 9"), docker=DockerSpec(version=wanted)))["docker/packages"].action
        assert isinstance(action, Packages)
        assert {p.name: p.version for p in action.install if p.version} == {"docker-ce": asked, "docker-ce-cli": asked}


def test_enterprise_linux_10_gets_the_module_that_docker_needs_with_it() -> None:
    packages = docker(machine("rocky 10")).decisions["docker"].details["packages"]
    assert isinstance(packages, list)
    assert "kernel-modules-extra-6.12.0-55.41.1.el10_0.x86_64" in packages


def test_the_service_is_enabled_and_started_as_no_rpm_does_that() -> None:
    assert items(docker(machine("rocky 9")))["docker/service"].expected == {"enabled": "enabled", "running": "active", "stale": ""}


# ---------------------------------------------------------------- the driver and where it comes from


def gpu(system: str, *devices: object, **spec: object) -> Plan:
    return plan(with_gpus(machine(system), *devices), Spec(**spec), CATALOG)  # type: ignore[arg-type]


def test_a_driver_built_on_red_hat_gets_epel_with_its_pinned_key_and_only_dkms_of_it() -> None:
    found = items(gpu("rhel 9", "2330"))
    action = found["driver/epel"].action
    assert isinstance(action, RpmRepository)
    assert "includepkgs=dkms\n" in action.text
    assert isinstance(found["driver/builder"].action, Command), "subscription-manager owns redhat.repo"


def test_a_clone_brings_epel_in_a_package_of_its_own_before_the_one_transaction() -> None:
    decided = gpu("rocky 9", "2330")
    found = items(decided)
    action = found["driver/epel"].action
    assert isinstance(action, Packages)
    assert [p.name for p in action.install] == ["epel-release"]
    assert found["driver/epel"].phase < found["driver/packages"].phase
    builder = found["driver/builder"].action
    assert isinstance(builder, File)
    assert {s.id: s.enabled for s in rpm.repo_file(builder.path, builder.content or "")} == {"base": True, "crb": True}


def test_an_epel_that_is_there_is_adopted() -> None:
    facts = with_source(machine("rhel 9"), "/etc/yum.repos.d/epel.repo", "[epel]\nmetalink=https://m.example\nenabled=1\ngpgcheck=1\n")
    assert items(plan(with_gpus(facts, "2330"), Spec(), CATALOG))["driver/epel"].state == OK


def test_enterprise_linux_9_takes_the_module_stream_of_branch_and_flavour() -> None:
    for device, stream in (("2330", "nvidia-driver:580-open"), ("1db5", "nvidia-driver:580-dkms")):
        action = items(gpu("rocky 9", device))["driver/packages"].action
        assert isinstance(action, Packages)
        assert action.modules == (stream,)


def test_a_fabric_manager_has_the_drivers_exact_version() -> None:
    action = items(gpu("rocky 9", "2330", SWITCH))["driver/fabricmanager"].action
    assert isinstance(action, Packages)
    newest = CATALOG.branch("580").newest_release
    assert [(p.name, p.version) for p in action.install] == [("nvidia-fabricmanager", f"{newest}*")]


def test_rpm_fusions_driver_goes_only_with_consent() -> None:
    facts = with_gpus(with_packages(machine("fedora 42"), "akmod-nvidia 3:580.105.08-1.fc42"), "27b8")
    assert [p.id for p in plan(facts, Spec(), CATALOG).problems] == ["driver/conflicts"]
    action = items(plan(facts, Spec(driver=DriverSpec(replace=True)), CATALOG))["driver/packages"].action
    assert isinstance(action, Packages)
    assert action.remove == ("akmod-nvidia",)


def test_a_repository_that_is_withheld_is_told_with_the_reason() -> None:
    facts = with_gpus(machine("rocky 10"), "2330")
    (problem,) = plan(facts, Spec(driver=DriverSpec(branch="595")), CATALOG).problems
    assert "no full fingerprint could be verified" in problem.message
    assert "driver.install=never" in problem.fix


def test_a_foreign_kernel_is_said_in_the_plan() -> None:
    facts = with_gpus(machine("rocky 9", kernel="6.17.1-1.el9.elrepo.x86_64"), "2330")
    decided = plan(facts, Spec(), CATALOG)
    assert [n.id for n in decided.notices if "elrepo" in n.message] == ["driver/headers"]


def test_secure_boot_refuses_a_module_that_is_built_here_and_takes_suses_signed_one() -> None:
    facts = with_gpus(machine("rocky 9", secure_boot=True), "2330")
    assert [p.id for p in plan(facts, Spec(), CATALOG).problems] == ["driver/secure-boot"]
    facts = with_gpus(machine("sles 15", secure_boot=True), "2330")
    assert plan(facts, Spec(), CATALOG).problems == ()


def test_suses_module_goes_first_and_everything_else_has_its_version() -> None:
    decided = gpu("sles 15", "2330", SWITCH)
    found = items(decided)
    kmp = "nvidia-open-driver-G06-signed-cuda-kmp-default"
    first, then, manager = (found[f"driver/{name}"].action for name in ("kernel-package", "packages", "fabricmanager"))
    assert isinstance(first, Packages)
    assert isinstance(then, Packages)
    assert isinstance(manager, Packages)
    assert [(p.name, p.version) for p in first.install] == [(kmp, "580.*")]
    assert {p.version for p in (*then.install, *manager.install)} == {f"@{kmp}"}
    assert found["driver/kernel-package"].phase < found["driver/packages"].phase
    assert after(decided, with_gpus(machine("sles 15"), "2330", SWITCH)).installed("nvidia-compute-utils-G06").startswith("580.178.04")


# ---------------------------------------------------------------- the drift guard


def drift(decided: Plan) -> Item:
    return items(decided)["driver/drift"]


def test_prebuilt_modules_follow_the_kernel_by_a_metapackage() -> None:
    item = drift(gpu("ubuntu 24.04", "27b8"))
    assert item.expected == {"policy": "prebuilt", "linux-modules-nvidia-580-server-open-aws": "any"}


def test_dkms_follows_the_kernel_by_its_headers_metapackage() -> None:
    assert drift(gpu("debian 13", "27b8")).expected == {"policy": "dkms", "linux-headers-cloud-amd64": "any"}
    assert drift(gpu("rocky 9", "27b8")).expected == {"policy": "dkms", "kernel-devel-matched": "any"}


def test_where_nothing_follows_the_kernel_and_the_driver_are_held() -> None:
    action = drift(gpu("azure linux 3", "1eb8")).action
    assert isinstance(action, Hold)
    assert action.packages == ("kernel", "cuda-open")


@pytest.mark.parametrize(("system", "kernel"), [("debian 13", "linux-image-cloud-amd64"), ("rocky 9", "kernel-core")])
def test_the_playbook_can_have_both_held_everywhere(system: str, kernel: str) -> None:
    decided = gpu(system, "27b8", driver=DriverSpec(drift="hold"))
    action = drift(decided).action
    assert isinstance(action, Hold)
    assert {kernel, "nvidia-driver-cuda"} <= set(action.packages)
    facts = after(decided, with_gpus(machine(system), "27b8"))
    again = plan(facts, Spec(driver=DriverSpec(drift="hold")), CATALOG)
    assert drift(again).state == OK
    assert drift(again).why.startswith("held: ")


def test_prebuilt_modules_where_there_are_none_are_refused_with_a_remedy() -> None:
    (problem,) = gpu("rocky 9", "27b8", driver=DriverSpec(drift="prebuilt")).problems
    assert (problem.id, "driver.drift=dkms" in problem.fix) == ("driver/drift", True)


def test_dkms_where_there_are_prebuilt_modules_builds_them_all_the_same() -> None:
    packages = gpu("ubuntu 24.04", "27b8", driver=DriverSpec(drift="dkms")).decisions["driver"].details["packages"]
    assert isinstance(packages, list)
    assert "nvidia-dkms-580-server-open" in packages


def test_without_module_streams_a_lock_keeps_the_branch() -> None:
    found = items(gpu("fedora 42", "27b8"))
    action = found["driver/branch"].action
    assert isinstance(action, Hold)
    assert action.packages == ("nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-open-dkms")
    assert "driver/branch" not in items(gpu("rocky 9", "27b8"))


def test_a_guard_that_somebody_has_taken_away_is_missed() -> None:
    facts = with_gpus(machine("rocky 9"), "27b8")
    facts = after(plan(facts, Spec(), CATALOG), facts)
    assert plan(facts, Spec(), CATALOG).converged
    packages = {name: package for name, package in (facts.packages or {}).items() if name != "kernel-devel-matched"}
    assert drift(plan(replace(facts, packages=packages), Spec(), CATALOG)).state == CHANGE


def test_a_driver_of_the_run_installer_is_said_to_be_nobodys_package() -> None:
    facts = working(with_gpus(machine("rocky 9"), "27b8"), installed_by_runfile=True)
    assert "driver/drift" in {n.id for n in plan(facts, Spec(), CATALOG).notices}


# ---------------------------------------------------------------- clouds and images

AWS = {"sys_vendor": "Amazon EC2"}


def test_an_instance_type_with_another_vendors_accelerator_is_named() -> None:
    decided = plan(machine("amazon 2023", dmi=AWS, instance={"type": "g4ad.xlarge"}), Spec(), CATALOG)
    assert decided.decisions["driver"].action == "skip"
    assert "Radeon Pro V520, which is not NVIDIA's" in decided.decisions["driver"].why
    assert decided.problems == ()


def test_an_instance_type_whose_gpu_is_not_on_the_bus_is_told() -> None:
    decided = plan(machine("amazon 2023", dmi=AWS, instance={"type": "g5.xlarge"}), Spec(), CATALOG)
    assert next(n.message for n in decided.notices if n.id == "driver/missing").startswith("The instance type g5.xlarge should have")


def test_a_slice_of_a_gpu_is_known_by_its_instance_type_even_where_the_bus_does_not_tell() -> None:
    facts = with_gpus(machine("amazon 2023", dmi=AWS, instance={"type": "g6f.large"}), "27b8")
    (problem,) = plan(facts, Spec(), CATALOG).problems
    assert problem.id == "driver/vgpu"
    assert "g6f.large" in problem.message
    assert "s3://ec2-linux-nvidia-drivers" in problem.message


def test_an_official_image_is_recognised_by_its_files() -> None:
    facts = machine("ubuntu 24.04", paths={"/opt/azurehpc": PathFact("/opt/azurehpc", "dir")})
    (text,) = [n.message for n in plan(facts, Spec(), CATALOG).notices if n.id == "preflight/image"]
    assert text.startswith("This is Azure HPC image, with driver, docker and toolkit built in")


def test_the_probe_looks_for_every_official_image() -> None:
    assert set(IMAGES) == set(CATALOG.image_paths)


# ---------------------------------------------------------------- the toolkit and the proof


def test_the_distributions_toolkit_goes_with_the_distributions_driver() -> None:
    assert gpu("azure linux 3", "1eb8").decisions["toolkit"].details["packages"] == ["nvidia-container-toolkit"]
    vendors = gpu("amazon 2023", "27b8").decisions["toolkit"].details
    assert len(vendors["packages"]) == 4  # type: ignore[arg-type]
    distro = gpu("amazon 2023", "27b8", driver=DriverSpec(source="distro"))
    assert distro.decisions["toolkit"].details["packages"] == ["nvidia-container-toolkit"]
    assert [p.name for p in items(distro)["driver/release"].action.install] == ["nvidia-release"]  # type: ignore[union-attr]


def test_a_pinned_toolkit_is_nvidias_wherever_there_is_one() -> None:
    assert len(gpu("azure linux 3", "1eb8", toolkit=ToolkitSpec(version="1.20.1")).decisions["toolkit"].details["packages"]) == 4  # type: ignore[arg-type]


def test_an_image_whose_cuda_the_driver_does_not_run_is_refused_before_it_is_pulled() -> None:
    facts = with_toolkit(with_docker(working(with_gpus(machine("rocky 9"), "1db5"), "570.211.01", is_open=False), "docker-ce", "3:29.1.3-1.el9"))
    image = "nvidia/cuda:13.2.1-base-ubuntu24.04"
    (problem,) = plan(facts, Spec(smoke=SmokeSpec(image=image)), CATALOG).problems
    assert (problem.id, "CUDA 13.2.1" in problem.message, "CUDA 12.8 or older" in problem.fix) == ("smoke/image", True, True)
    for fine in ("nvidia/cuda:12.8.1-base-ubuntu24.04", "nvidia/cuda:12.9.0-base-ubi9", "embedded", "registry.example/app:13.2"):
        assert plan(facts, Spec(smoke=SmokeSpec(image=fine)), CATALOG).problems == (), fine
