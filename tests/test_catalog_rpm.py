"""The rows of systems with rpm packages: complete, honest about keys, and out of use until they are switched on."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from typing import Any

import pytest

from provision.catalog import Catalog, load, packaged
from provision.catalog_platform import repo_file
from provision.errors import Unsupported
from provision.facts.system import os_release
from provision.model import OsRelease, Section
from provision.rows import DriverPackages, Platform

ARCHES = ("x86_64", "aarch64")
# The parts that decide of real os-release files.
RELEASES = {
    "RHEL 8.10": 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.10"\nPLATFORM_ID="platform:el8"\n',
    "RHEL 9.4": 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\nPLATFORM_ID="platform:el9"\n',
    "RHEL 10.0": 'ID="rhel"\nID_LIKE="centos fedora"\nVERSION_ID="10.0"\nPLATFORM_ID="platform:el10"\n',
    "Rocky 9.6": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\nPLATFORM_ID="platform:el9"\n',
    "Alma 10.0": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.0"\nPLATFORM_ID="platform:el10"\n',
    "Oracle 9.5": 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.5"\nPLATFORM_ID="platform:el9"\n',
    "Stream 9": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\nPLATFORM_ID="platform:el9"\n',
    "Fedora 44": "ID=fedora\nVERSION_ID=44\nPLATFORM_ID=platform:f44\n",
    "AL2": 'ID="amzn"\nID_LIKE="centos rhel fedora"\nVERSION_ID="2"\nSUPPORT_END="2026-06-30"\n',
    "AL2023": 'ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\nPLATFORM_ID="platform:al2023"\n',
    "Azure Linux": 'ID=azurelinux\nVERSION_ID="3.0"\nPRETTY_NAME="Microsoft Azure Linux 3.0"\n',
    "SLES 15.7": 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.7"\n',
    "SLES 16.0": 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="16.0"\n',
    "Leap 15.6": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
    "Leap 16.0": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="16.0"\n',
}
KERNELS = {
    "el:8": "4.18.0-553.el8_10.{}", "el:9": "5.14.0-503.11.1.el9_5.{}", "el:10": "6.12.0-55.9.1.el10_0.{}", "fedora:42": "6.14.0-63.fc42.{}",
    "fedora:43": "6.17.4-200.fc43.{}", "fedora:44": "6.19.2-300.fc44.{}", "amzn:2": "5.10.245-241.978.amzn2.{}", "amzn:2023": "6.12.20-23.97.amzn2023.{}", "azurelinux:3.0": "6.6.57.1-1.azl3",
    "sles:15": "6.4.0-150600.23.47-default", "suse:16": "6.12.0-160000.4-default",
}  # fmt: skip


def parsed(text: str) -> OsRelease:
    found = os_release({"os_release": Section(0, text)})
    assert found is not None
    return found


@pytest.fixture(scope="module")
def every() -> Catalog:
    return load(enable_all=True)


def platform(catalog: Catalog, name: str, arch: str = "x86_64") -> Platform:
    return catalog.platform(parsed(RELEASES[name]), arch)


def rpm_platforms(catalog: Catalog) -> Iterator[Platform]:
    for row in catalog.systems:
        for arch in ARCHES:
            if row.get("family"):
                yield catalog.platform(OsRelease(row["id"], row.get("minimum") or row["version"]), arch)


# ---------------------------------------------------------------- the switch


def off(name: str) -> dict[str, Any]:
    """The data with both families of rpm systems left for later."""
    return {**packaged(name), "later": ["rhel", "suse", "ubuntu:16.04"]} if name == "distros" else packaged(name)


@pytest.mark.parametrize("name", RELEASES)
def test_every_system_with_rpm_packages_is_set_up(name: str) -> None:
    assert platform(load(), name).family in ("rhel", "suse")


@pytest.mark.parametrize("name", [name for name in RELEASES if name != "Leap 15.6"])
def test_a_family_that_is_left_for_later_is_refused_and_not_offered(name: str) -> None:
    with pytest.raises(Unsupported, match="which this release of mlhost cannot do yet") as caught:
        load(off).platform(parsed(RELEASES[name]), "x86_64")
    assert caught.value.exit_code == 5
    assert "Rocky" not in caught.value.fix, "what is not set up is not offered either"


def test_removing_one_line_of_the_data_switches_them_all_on() -> None:
    def read(name: str) -> dict[str, Any]:
        data = packaged(name)
        return {key: value for key, value in data.items() if (name, key) != ("distros", "later")}

    catalog = load(read)
    assert {platform(catalog, name).family for name in RELEASES} == {"rhel", "suse"}
    assert catalog.platform(OsRelease("ubuntu", "16.04", "xenial"), "x86_64").base == "ubuntu:16.04"
    assert catalog.waiting == ()


def test_one_family_can_be_switched_on_alone() -> None:
    def read(name: str) -> dict[str, Any]:
        return {**packaged(name), "later": ["suse"]} if name == "distros" else packaged(name)

    assert platform(load(read), "Rocky 9.6").base == "el:9"
    with pytest.raises(Unsupported, match="with zypper"):
        platform(load(read), "SLES 15.7")


def test_one_release_can_be_left_for_later_too_and_says_why() -> None:
    with pytest.raises(Unsupported, match="takes signing keys in another form"):
        load(off).platform(OsRelease("ubuntu", "16.04", "xenial", ("debian",)), "x86_64")


def test_most_machines_are_known_without_reading_the_rows_of_others() -> None:
    asked: list[str] = []

    def read(name: str) -> dict[str, Any]:
        asked.append(name)
        return packaged(name)

    load(read).platform(OsRelease("ubuntu", "24.04", "noble"), "x86_64")
    assert asked == ["distros"]


# ---------------------------------------------------------------- systems


@pytest.mark.parametrize(
    ("name", "base", "family", "manager", "tree"),
    [
        ("RHEL 9.4", "el:9", "rhel", "dnf", "rhel"),
        ("Oracle 9.5", "el:9", "rhel", "dnf", "rhel"),
        ("Stream 9", "el:9", "rhel", "dnf", "centos"),
        ("Fedora 44", "fedora:44", "rhel", "dnf5", "fedora"),
        ("AL2", "amzn:2", "rhel", "yum", ""),
        ("AL2023", "amzn:2023", "rhel", "dnf", ""),
        ("Azure Linux", "azurelinux:3.0", "rhel", "tdnf", ""),
        ("SLES 15.7", "sles:15", "suse", "zypper", ""),
        ("Leap 16.0", "suse:16", "suse", "zypper", ""),
    ],
)
def test_a_system_is_known_by_its_major_version(every: Catalog, name: str, base: str, family: str, manager: str, tree: str) -> None:
    found = platform(every, name)
    assert (found.base, found.family, found.package_manager, found.docker_tree) == (base, family, manager, tree)
    assert (found.init, found.initramfs) == ("systemd", "dracut")


def test_every_platform_has_valid_values(every: Catalog) -> None:
    count = 0
    for found in rpm_platforms(every):
        count += 1
        assert found.family in ("rhel", "suse")
        assert found.package_manager in ("dnf", "dnf5", "yum", "tdnf", "zypper")
        assert found.locks in ("versionlock", "tdnf", "zypper")
        assert found.package_arch == found.arch
        assert found.selinux in ("", "enforcing", "permissive")
        assert found.firewall in ("", "firewalld")
        assert found.eol == "" or re.fullmatch(r"20\d\d-\d\d-\d\d", found.eol)
        assert found.docker_tree or found.distro_docker_packages, "there is a Docker everywhere"
        assert found.source
        assert not found.docker_starts
        assert not any("{" in name for name in found.extra_repositories)
        assert hash(found)
        for rule in found.kernels:
            re.compile(rule.match)
    assert count == 50


@pytest.mark.parametrize(
    ("name", "release", "flavor", "headers"),
    [
        ("RHEL 8.10", "4.18.0-553.el8_10.x86_64", "default", "kernel-devel-4.18.0-553.el8_10.x86_64"),
        ("RHEL 9.4", "5.14.0-427.13.1.el9_4.x86_64", "default", "kernel-devel-5.14.0-427.13.1.el9_4.x86_64"),
        ("Stream 9", "5.14.0-522.el9.x86_64", "default", "kernel-devel-5.14.0-522.el9.x86_64"),
        ("RHEL 9.4", "5.14.0-427.13.1.el9_4.aarch64+64k", "64k", "kernel-64k-devel-5.14.0-427.13.1.el9_4.aarch64"),
        ("RHEL 10.0", "6.12.0-55.9.1.el10_0.x86_64", "default", "kernel-devel-6.12.0-55.9.1.el10_0.x86_64"),
        ("Oracle 9.5", "5.15.0-302.167.6.el9uek.x86_64", "uek", "kernel-uek-devel-5.15.0-302.167.6.el9uek.x86_64"),
        ("Oracle 9.5", "6.12.0-1.23.3.2.el9uek.x86_64", "uek8", "kernel-uek-devel-6.12.0-1.23.3.2.el9uek.x86_64"),
        ("Oracle 9.5", "5.14.0-503.11.1.el9_5.x86_64", "default", "kernel-devel-5.14.0-503.11.1.el9_5.x86_64"),
        ("Fedora 44", "6.19.2-300.fc44.x86_64", "default", "kernel-devel-6.19.2-300.fc44.x86_64"),
        ("AL2", "4.14.355-280.695.amzn2.x86_64", "4.14", "kernel-devel-4.14.355-280.695.amzn2.x86_64"),
        ("AL2", "5.10.245-241.978.amzn2.aarch64", "5.10", "kernel-devel-5.10.245-241.978.amzn2.aarch64"),
        ("AL2023", "6.1.134-150.224.amzn2023.x86_64", "6.1", "kernel-devel-6.1.134-150.224.amzn2023.x86_64"),
        ("AL2023", "6.12.20-23.97.amzn2023.x86_64", "6.12", "kernel6.12-devel-6.12.20-23.97.amzn2023.x86_64"),
        ("Azure Linux", "6.6.57.1-1.azl3", "default", "kernel-devel-6.6.57.1-1.azl3"),
        ("SLES 15.7", "6.4.0-150700.53.3-default", "default", "kernel-default-devel"),
        ("SLES 15.7", "6.4.0-150700.20.3-azure", "azure", "kernel-azure-devel"),
    ],
)
def test_the_headers_are_those_of_the_running_kernel(every: Catalog, name: str, release: str, flavor: str, headers: str) -> None:
    found = every.kernel(platform(every, name), release)
    assert found
    assert (found.flavor, found.headers[0]) == (flavor, headers)
    if not headers.endswith(release.replace("+64k", "")):
        assert found.versions[headers] == release.rsplit("-", 1)[0] + "*", "the name does not carry the release, so the version must"


def test_a_kernel_of_nobodys_making_is_not_known(every: Catalog) -> None:
    assert every.kernel(platform(every, "Rocky 9.6"), "6.11.2-1.el9.elrepo.x86_64") is None
    assert every.kernel(platform(every, "AL2023"), "6.8.0-generic") is None


def test_uek_8_says_which_compiler_its_modules_need(every: Catalog) -> None:
    found = every.kernel(platform(every, "Oracle 9.5"), "6.12.0-1.23.3.2.el9uek.x86_64")
    assert found
    assert found.compiler == "gcc-toolset-14"


@pytest.mark.parametrize(("release", "compiler"), [("4.14.355-280.695", ""), ("5.4.301-214.403", ""), ("5.10.245-241.978", "gcc10"), ("5.15.196-134.220", "gcc10")])
def test_amazon_linux_2_builds_modules_with_what_its_kernel_was_built_with(every: Catalog, release: str, compiler: str) -> None:
    found = every.kernel(platform(every, "AL2"), f"{release}.amzn2.x86_64")
    assert found
    assert (found.compiler, found.cc) == (compiler, f"/usr/bin/{compiler}-cc" if compiler else "")


def test_docker_on_enterprise_linux_10_needs_a_module_of_exactly_the_running_kernel(every: Catalog) -> None:
    found = every.kernel(platform(every, "Alma 10.0"), "6.12.0-55.9.1.el10_0.x86_64")
    assert found
    assert found.docker == ("kernel-modules-extra-6.12.0-55.9.1.el10_0.x86_64",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ID="amzn"\nID_LIKE="rhel fedora"\nVERSION_ID="2018.03"\n', "maintenance ended on 2023-12-31"),
        ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n', "past its end of life"),
        ('ID="sl-micro"\nID_LIKE="suse"\nVERSION_ID="6.1"\n', "read-only root"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nVERSION_ID="20261101"\n', "rolling release"),
    ],
)
@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
def test_a_system_that_is_never_set_up_says_so_with_the_switch_on_or_off(text: str, says: str, on: bool) -> None:
    with pytest.raises(Unsupported, match=says):
        load(enable_all=on).platform(parsed(text), "x86_64")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ('ID="springdale"\nID_LIKE="rhel fedora"\nVERSION_ID="9.2"\nPLATFORM_ID="platform:el9"\n', "Rocky Linux 9"),
        ('ID="rocky"\nID_LIKE="rhel"\nVERSION_ID="11.0"\nPLATFORM_ID="platform:el11"\n', "Rocky Linux 10"),
        ("ID=fedora\nVERSION_ID=45\n", "Fedora 44"),
        ("ID=fedora\nVERSION_ID=40\n", "Fedora 42"),
        ('ID=nobara\nID_LIKE="rhel centos fedora"\nVERSION_ID=40\nPLATFORM_ID="platform:f40"\n', "Fedora 42"),
        ('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.5"\n', "SUSE Linux Enterprise Server 15.6"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.5"\n', "openSUSE Leap 15.6"),
    ],
)
def test_with_the_switch_on_an_unknown_relative_is_told_the_nearest_system(every: Catalog, text: str, nearest: str) -> None:
    with pytest.raises(Unsupported) as caught:
        every.platform(parsed(text), "x86_64")
    assert f"The nearest supported system is {nearest}." in caught.value.fix


# ---------------------------------------------------------------- repositories


def test_every_url_is_complete_and_has_no_variable_of_a_package_manager(every: Catalog) -> None:
    count = 0
    for found in rpm_platforms(every):
        for name in ("docker", "toolkit", "cuda", "epel", "microsoft"):
            repository = every.repository(name, found)
            if repository is None:
                continue
            count += 1
            assert re.fullmatch(r"https://[a-z.]+(/[A-Za-z0-9._-]+)+", repository.uri)
            assert repository.index_url == f"{repository.uri}/repodata/repomd.xml"
            assert repository.uri.startswith(repository.base)
            assert repository.fingerprints
            assert all(re.fullmatch(r"[0-9A-F]{40}", fingerprint) for fingerprint in repository.fingerprints)
            assert repository.gpgcheck or repository.repo_gpgcheck, "nothing is ever installed unsigned"
            folder = {"rhel": "/etc/yum.repos.d", "suse": "/etc/zypp/repos.d"}[found.family]
            assert re.fullmatch(folder + r"/[a-z0-9-]+\.repo", repository.source_path)
            assert re.fullmatch(r"[a-z0-9_-]+", repository.section)
            assert bool(repository.key_url) is not bool(repository.installed_keys)
            assert not any("{" in text for text in (*repository.legacy_sources, *repository.legacy_sections, repository.key_path))
    assert count > 120


def test_a_minor_release_never_gets_into_dockers_url(every: Catalog) -> None:
    docker = every.repository("docker", platform(every, "RHEL 9.4"))
    assert docker
    assert docker.uri == "https://download.docker.com/linux/rhel/9/x86_64/stable"
    assert dict(docker.epochs) == {"docker-ce": "3", "docker-ce-cli": "1"}


@pytest.mark.parametrize("name", ["RHEL 10.0", "Alma 10.0"])
def test_a_repository_whose_key_is_known_by_short_id_only_is_not_offered_and_says_why(every: Catalog, name: str) -> None:
    found = platform(every, name)
    assert every.repository("cuda", found) is None
    assert "CDF6BA43" in dict(found.withheld)["cuda"]
    assert every.driver_packages(found, "cuda", "580", "open", "6.12.0-55.9.1.el10_0.x86_64") is None


def test_every_key_without_a_fingerprint_is_withheld_everywhere(every: Catalog) -> None:
    unknown = {system for key in packaged("repositories")["key"] if not key["fingerprint"] for system in key["systems"]}
    assert unknown == {"rhel10", "fedora43"}
    rows = packaged("distros_rpm")
    bases = {row["id"]: row for row in rows["base"]}
    for row in rows["system"]:
        whole = {**bases[row.get("base", row["id"])], **row}
        assert ("cuda" in whole.get("withheld", {})) is (whole.get("cuda") in unknown or whole["id"] == "azurelinux")


def test_arm_servers_get_the_sbsa_directory_of_cuda_and_their_own_name_elsewhere(every: Catalog) -> None:
    found = platform(every, "Rocky 9.6", "aarch64")
    cuda, toolkit = every.repository("cuda", found), every.repository("toolkit", found)
    assert cuda
    assert cuda.uri.endswith("/rhel9/sbsa")
    assert toolkit
    assert toolkit.uri.endswith("/stable/rpm/aarch64")


def test_the_toolkits_packages_are_checked_by_their_index(every: Catalog) -> None:
    toolkit = every.repository("toolkit", platform(every, "SLES 15.7"))
    assert toolkit
    assert (toolkit.gpgcheck, toolkit.repo_gpgcheck) == (False, True)
    assert toolkit.source_path == "/etc/zypp/repos.d/nvidia-container-toolkit.repo"


def test_epel_is_written_only_where_the_distribution_has_no_package_for_it(every: Catalog) -> None:
    rhel, rocky = platform(every, "RHEL 9.4"), platform(every, "Rocky 9.6")
    epel = every.repository("epel", rhel)
    assert epel
    assert epel.fingerprints == ("FF8AD1344597106ECE813B918A3872BF3228467C",)
    assert epel.includes == ("dkms",)
    assert every.repository("epel", rocky) is None
    assert rocky.epel_package == "epel-release"
    assert rhel.extra_repositories == ("codeready-builder-for-rhel-9-x86_64-rpms",)


def test_azure_linux_takes_microsofts_packages_with_the_keys_it_has(every: Catalog) -> None:
    found = every.repository("microsoft", platform(every, "Azure Linux"))
    assert found
    assert found.installed_keys == ("/etc/pki/rpm-gpg/MICROSOFT-RPM-GPG-KEY", "/etc/pki/rpm-gpg/MICROSOFT-METADATA-GPG-KEY")
    assert (found.gpgcheck, found.repo_gpgcheck) == (True, True)


def test_the_repo_file_of_every_repository_asks_for_signatures_by_a_key_on_the_machine(every: Catalog) -> None:
    for found in rpm_platforms(every):
        for name in ("docker", "toolkit", "cuda", "epel", "microsoft"):
            repository = every.repository(name, found)
            if repository is None:
                continue
            text = repo_file(repository)
            parsed_file = configparser.ConfigParser(interpolation=None)
            parsed_file.read_string(text)
            values = dict(parsed_file[repository.section])
            assert "1" in (values["gpgcheck"], values["repo_gpgcheck"])
            assert all(key.startswith("file:///etc/pki/rpm-gpg/") for key in values["gpgkey"].split())
            assert values["baseurl"] == repository.uri
            assert "$" not in text


def test_epel_gives_dkms_and_nothing_else(every: Catalog) -> None:
    epel = every.repository("epel", platform(every, "RHEL 9.4"))
    assert epel
    assert "includepkgs=dkms\n" in repo_file(epel)


# ---------------------------------------------------------------- drivers


def combinations(catalog: Catalog) -> Iterator[tuple[Platform, DriverPackages]]:
    for found in rpm_platforms(catalog):
        kernel = KERNELS[found.base].format(found.arch)
        for source in ("distro", "cuda"):
            for branch in catalog.branches:
                for flavor in ("open", "proprietary", "grid"):
                    bundle = catalog.driver_packages(found, source, branch.number, flavor, kernel)
                    if bundle:
                        yield found, bundle


def test_every_driver_is_complete_and_has_its_module_by_exactly_one_way(every: Catalog) -> None:
    count = 0
    for found, bundle in combinations(every):
        count += 1
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]+", name) for name in (*bundle.packages, *bundle.headers, *bundle.extra))
        assert bundle.prebuilt is not bool(bundle.headers)
        assert bundle.locks, "a branch is kept somehow"
        # A star only at the end is what every package manager, and the renderer, can be asked for.
        assert all(re.fullmatch(r"[A-Za-z0-9.+:~^_-]+\*", glob) for glob in bundle.versions.values())
        assert not any("{" in text for text in (*bundle.locks, bundle.stream, bundle.follows, *bundle.versions.values()))
        assert bundle.flavor in every.branch(bundle.branch).flavors
        assert (bundle.repository is None) is bool(bundle.release)
        assert bundle.repository is None or every.repository(bundle.repository, found)
        modules = [name for name in bundle.packages if re.search(r"kmod|kmp|^cuda", name)]
        assert len(modules) == 1
        assert (bundle.needs == ("epel",)) is (found.epel and bundle.repository == "cuda")
        assert bool(bundle.stream) is (found.modular and bundle.repository == "cuda")
        assert bundle.stream or bundle.versions, "without a stream only the versions keep the branch"
    assert count > 150


@pytest.mark.parametrize(
    ("name", "source", "branch", "flavor", "packages", "stream"),
    [
        ("RHEL 9.4", "cuda", "580", "open", ("nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-open-dkms"), "nvidia-driver:580-open"),
        ("RHEL 8.10", "cuda", "470", "proprietary", ("nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-latest-dkms"), "nvidia-driver:470-dkms"),
        ("Fedora 44", "cuda", "610", "open", ("nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-open-dkms"), ""),
        ("AL2023", "distro", "580", "open", ("nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-open-dkms"), ""),
        ("Azure Linux", "distro", "580", "open", ("cuda-open",), ""),
        ("Azure Linux", "distro", "580", "proprietary", ("cuda",), ""),
        ("SLES 15.7", "cuda", "580", "open", ("nvidia-open-driver-G06-signed-cuda-kmp-default", "nvidia-compute-utils-G06", "nvidia-persistenced"), ""),
        ("Leap 16.0", "cuda", "595", "open", ("nvidia-open-driver-G07-signed-cuda-kmp-default", "nvidia-compute-utils-G07", "nvidia-persistenced"), ""),
    ],
)
def test_a_driver_is_installed_by_these_packages(
    every: Catalog, name: str, source: str, branch: str, flavor: str, packages: tuple[str, ...], stream: str
) -> None:
    found = platform(every, name)
    bundle = every.driver_packages(found, source, branch, flavor, KERNELS[found.base].format("x86_64"))
    assert bundle
    assert (bundle.packages, bundle.stream) == (packages, stream)


@pytest.mark.parametrize(
    ("name", "source", "branch", "flavor", "why"),
    [
        ("RHEL 9.4", "cuda", "470", "proprietary", "rhel9 begins after it"),
        ("RHEL 9.4", "cuda", "615", "proprietary", "there is no proprietary module any more"),
        ("Fedora 44", "cuda", "580", "open", "fedora44 begins with 610"),
        ("Azure Linux", "cuda", "580", "open", "NVIDIA's packages replace Microsoft's there"),
        ("SLES 16.0", "cuda", "580", "proprietary", "SUSE signs the open one only"),
        ("Rocky 9.6", "distro", "580", "open", "Rocky packages none"),
    ],
)
def test_a_driver_that_a_source_does_not_have_is_none(every: Catalog, name: str, source: str, branch: str, flavor: str, why: str) -> None:
    found = platform(every, name)
    assert every.driver_packages(found, source, branch, flavor, KERNELS[found.base].format("x86_64")) is None, why


def test_an_exact_driver_version_is_asked_for_by_name(every: Catalog) -> None:
    bundle = every.driver_packages(platform(every, "RHEL 9.4"), "cuda", "580", "open", KERNELS["el:9"].format("x86_64"), version="580.126.20")
    assert bundle
    assert set(bundle.versions.values()) == {"580.126.20-*"}


def test_microsofts_driver_is_the_one_for_the_running_kernel(every: Catalog) -> None:
    bundle = every.driver_packages(platform(every, "Azure Linux"), "distro", "580", "open", "6.6.57.1-1.azl3")
    assert bundle
    assert bundle.versions == {"cuda-open": "580.*"}
    assert bundle.kernel_suffix == "_6.6.57.1.1.azl3"
    assert bundle.prebuilt


def test_suses_programs_follow_the_version_of_its_module(every: Catalog) -> None:
    bundle = every.driver_packages(platform(every, "SLES 15.7"), "cuda", "580", "open", "6.4.0-150700.20.3-azure")
    assert bundle
    assert bundle.follows == "nvidia-open-driver-G06-signed-cuda-kmp-azure"
    assert bundle.follows in bundle.packages


def test_a_foreign_kernel_gets_no_module_that_was_built_for_another(every: Catalog) -> None:
    assert every.driver_packages(platform(every, "SLES 15.7"), "cuda", "580", "open", "6.9.1-vanilla") is None
    built = every.driver_packages(platform(every, "Rocky 9.6"), "cuda", "580", "open", "6.11.2-1.el9.elrepo.x86_64")
    assert built
    assert built.headers == (), "no package has its headers, which whoever builds must say"


def test_fedora_44_prefers_the_branches_that_exist_for_it(every: Catalog) -> None:
    assert platform(every, "Fedora 44").preferred_branches == ("615", "610")
    assert platform(every, "Rocky 9.6").preferred_branches == ()


@pytest.mark.parametrize(
    ("name", "source", "branch", "packages"),
    [
        ("RHEL 9.4", "cuda", "580", ("nvidia-fabricmanager",)),
        ("RHEL 8.10", "cuda", "570", ("nvidia-fabric-manager",)),
        ("AL2023", "distro", "580", ("nvidia-fabric-manager",)),
        ("Azure Linux", "distro", "580", ("nvidia-fabric-manager",)),
    ],
)
def test_the_fabric_manager_has_the_name_of_its_source_and_branch(every: Catalog, name: str, source: str, branch: str, packages: tuple[str, ...]) -> None:
    found = every.fabric_packages(platform(every, name), source, branch, f"{branch}.1.2")
    assert found
    assert found.packages == packages
    assert found.versions == {packages[0]: f"{branch}.1.2*"}


# ---------------------------------------------------------------- clouds


@pytest.mark.parametrize(
    ("cloud", "kind", "driver", "nvswitch", "vendor"),
    [
        ("aws", "g6f.large", "grid", False, "nvidia"),
        ("aws", "gr6f.4xlarge", "grid", False, "nvidia"),
        ("aws", "g6.xlarge", "datacenter", False, "nvidia"),
        ("aws", "p5.48xlarge", "datacenter", True, "nvidia"),
        ("aws", "p5.4xlarge", "datacenter", False, "nvidia"),
        ("aws", "trn2.48xlarge", "", False, "aws"),
        ("aws", "g4ad.xlarge", "", False, "amd"),
        ("azure", "Standard_NV6ads_A10_v5", "grid", False, "nvidia"),
        ("azure", "standard_nv36adms_a10_v5", "grid", False, "nvidia"),
        ("azure", "Standard_NC24ads_A100_v4", "datacenter", False, "nvidia"),
        ("azure", "Standard_ND96isr_MI300X_v5", "", False, "amd"),
        ("azure", "Standard_ND96isr_H100_v5", "datacenter", True, "nvidia"),
        ("gcp", "a3-highgpu-8g", "datacenter", True, "nvidia"),
        ("gcp", "a3-highgpu-1g", "datacenter", False, "nvidia"),
        ("gcp", "g2-standard-4", "datacenter", False, "nvidia"),
    ],
)
def test_an_instance_type_says_which_driver_its_gpu_takes(every: Catalog, cloud: str, kind: str, driver: str, nvswitch: bool, vendor: str) -> None:
    found = every.instance(cloud, kind)
    assert found
    assert (found.driver, found.nvswitch, found.vendor) == (driver, nvswitch, vendor)


def test_an_instance_type_without_a_row_says_nothing(every: Catalog) -> None:
    assert every.instance("aws", "m7i.large") is None
    assert every.instance("hetzner", "g6f.large") is None


def test_every_instance_row_belongs_to_a_known_cloud_and_its_own_words_hold_together() -> None:
    clouds = {row["id"] for row in packaged("clouds")["cloud"]}
    for row in packaged("instances")["instance"]:
        assert row["cloud"] in clouds
        assert row["driver"] in ("", "grid", "datacenter")
        assert (row["vendor"] == "nvidia") is bool(row["driver"])
        assert row["arch"] in ARCHES
        assert not row["nvswitch"] or row["driver"] == "datacenter"
    for row in packaged("instances")["image"]:
        assert set(row["clouds"]) <= clouds
        assert set(row["has"]) <= {"driver", "docker", "toolkit"}


@pytest.mark.parametrize(
    ("there", "pretty", "image"),
    [
        (["/opt/dlami"], "Ubuntu 24.04.3 LTS", "dlami"),
        (["/opt/azurehpc", "/opt/azurehpc/component_versions.txt"], "Ubuntu 22.04.5 LTS", "azure-hpc"),
        (["/opt/deeplearning"], "Debian GNU/Linux 11 (bullseye)", "dlvm"),
        (["/etc/dgx-release"], "Ubuntu 24.04.3 LTS", "dgx-os"),
        ([], "NVIDIA DGX OS 7", "dgx-os"),
        (["/opt"], "Ubuntu 24.04.3 LTS", None),
    ],
)
def test_an_official_image_is_known_by_files_that_only_it_has(every: Catalog, there: list[str], pretty: str, image: str | None) -> None:
    found = every.image(there.__contains__, pretty)
    assert (found.id if found else None) == image
    assert set(there) - {"/opt"} <= set(every.image_paths)
