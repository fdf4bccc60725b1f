"""The catalog's data hold together, and its answers are right for real systems and GPUs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.catalog import Catalog, load
from provision.errors import Unsupported
from provision.facts.system import os_release
from provision.model import OsRelease, Section
from provision.rows import DriverPackages, Platform

DATA = Path(__file__).parent.parent / "provision" / "data"
FILES = sorted(path.stem for path in DATA.glob("*.toml"))
PCI_IDS = [Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids")]

# The parts that decide of real os-release files.
UBUNTU_2404 = """PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
"""
DEBIAN_13 = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
ID=debian
"""
DEBIAN_TESTING = """PRETTY_NAME="Debian GNU/Linux forky/sid"
NAME="Debian GNU/Linux"
VERSION_CODENAME=forky
ID=debian
"""
MINT_22 = """NAME="Linux Mint"
VERSION="22 (Wilma)"
ID=linuxmint
ID_LIKE="ubuntu debian"
PRETTY_NAME="Linux Mint 22"
VERSION_ID="22"
VERSION_CODENAME=wilma
UBUNTU_CODENAME=noble
"""
LMDE_6 = """PRETTY_NAME="LMDE 6 (faye)"
NAME="LMDE"
VERSION_ID="6"
VERSION="6 (faye)"
VERSION_CODENAME=faye
ID=linuxmint
ID_LIKE=debian
DEBIAN_CODENAME=bookworm
"""
POP_2204 = """NAME="Pop!_OS"
VERSION="22.04 LTS"
ID=pop
ID_LIKE="ubuntu debian"
PRETTY_NAME="Pop!_OS 22.04 LTS"
VERSION_ID="22.04"
VERSION_CODENAME=jammy
UBUNTU_CODENAME=jammy
"""
ELEMENTARY_7 = """NAME="elementary OS"
VERSION="7 Horus"
ID=elementary
ID_LIKE="ubuntu debian"
PRETTY_NAME="elementary OS 7 Horus"
VERSION_ID="7"
VERSION_CODENAME=horus
UBUNTU_CODENAME=jammy
"""
ZORIN_16 = """NAME="Zorin OS"
VERSION="16"
ID=zorin
ID_LIKE=ubuntu
PRETTY_NAME="Zorin OS 16"
VERSION_ID="16"
VERSION_CODENAME=focal
UBUNTU_CODENAME=focal
"""
NEON = """NAME="KDE neon"
VERSION="6.0"
ID=neon
ID_LIKE="ubuntu debian"
PRETTY_NAME="KDE neon 6.0"
VERSION_ID="22.04"
VERSION_CODENAME=jammy
UBUNTU_CODENAME=jammy
"""
RASPBIAN_12 = """PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"
NAME="Raspbian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=raspbian
ID_LIKE=debian
"""
KALI = """PRETTY_NAME="Kali GNU/Linux Rolling"
NAME="Kali GNU/Linux"
VERSION_ID="2025.4"
VERSION_CODENAME=kali-rolling
ID=kali
ID_LIKE=debian
"""
NOBARA_40 = """NAME="Nobara Linux"
ID=nobara
ID_LIKE="rhel centos fedora"
VERSION_ID=40
PLATFORM_ID="platform:f40"
PRETTY_NAME="Nobara Linux 40"
"""
TUXEDO = """NAME="TUXEDO OS"
ID=tuxedo
ID_LIKE="ubuntu debian"
PRETTY_NAME="TUXEDO OS"
VERSION_ID="24.04"
VERSION_CODENAME=noble
UBUNTU_CODENAME=noble
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


def parsed(text: str) -> OsRelease:
    found = os_release({"os_release": Section(0, text)})
    assert found is not None
    return found


def everywhere(catalog: Catalog) -> Iterator[Platform]:
    """Every supported system with deb packages on every architecture that has GPUs."""
    for row in catalog.systems:
        for arch in ("x86_64", "aarch64"):
            if "codename" in row and "deb_arch" not in row:
                yield catalog.platform(OsRelease(row["id"], row["version"], row["codename"]), arch)


def raw(name: str) -> dict[str, Any]:
    return load()._read(name)


def rows_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every table that is an element of an array of tables."""
    if isinstance(value, dict):
        for item in value.values():
            yield from rows_of(item)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item


# ---------------------------------------------------------------- the data as such


@pytest.mark.parametrize("name", FILES)
def test_every_row_says_where_its_facts_come_from_and_when_they_were_checked(name: str) -> None:
    data = raw(name)
    for row in rows_of(data):
        source, verified = row.get("source", data.get("source")), row.get("verified", data.get("verified"))
        assert source, row
        assert verified == "unverified" or re.fullmatch(r"20\d\d-\d\d-\d\d", verified), row


def test_every_data_file_is_one_that_the_catalog_reads() -> None:
    others = ["remedies", "userdata", "images"]  # provision.remedies, provision.pull.userdata, provision.images
    assert sorted(["clouds", "cuda", "distros", "distros_rpm", "drivers", "drivers_rpm", "gpus", "instances", "repositories", *others]) == FILES


def test_every_fingerprint_is_forty_upper_case_hex_digits() -> None:
    data = raw("repositories")
    found = [f for row in data["repository"] for f in (*row["fingerprints"], *row.get("obsolete_fingerprints", ()))]
    found += [key["fingerprint"] for key in data["key"] if key["fingerprint"]]
    assert len(found) >= 15
    assert all(re.fullmatch(r"[0-9A-F]{40}", fingerprint) for fingerprint in found)


def test_a_cuda_key_file_is_named_after_the_end_of_its_fingerprint() -> None:
    for key in raw("repositories")["key"]:
        if key["fingerprint"] and key["file"].endswith(".pub"):
            assert key["fingerprint"].endswith(key["file"].split(".")[0].upper())


def test_the_key_of_every_cuda_repository_is_pinned_for_exactly_that_system() -> None:
    keys = {system: key["file"] for key in raw("repositories")["key"] if key["file"].endswith(".pub") for system in key["systems"]}
    rpm = raw("distros_rpm")
    bases = {row["id"]: row for row in rpm["base"]}
    rows = [*raw("distros")["system"], *({**bases[row.get("base", row["id"])], **row} for row in rpm["system"])]
    assert {row["cuda"]: row["cuda_key"] for row in rows if "cuda" in row} == keys


NOT_SERVED = [("debian:11", "cuda", "aarch64"), ("ubuntu:16.04", "cuda", "x86_64"), ("ubuntu:16.04", "cuda", "aarch64"), ("ubuntu:16.04", "toolkit", "aarch64")]


def test_every_url_of_every_platform_is_complete(catalog: Catalog) -> None:
    for platform in everywhere(catalog):
        for name in ("docker", "toolkit", "cuda"):
            repository = catalog.repository(name, platform)
            if repository is None:
                assert (platform.base, name, platform.arch) in NOT_SERVED
                continue
            for url in (repository.uri, repository.key_url, repository.index_url):
                assert re.fullmatch(r"https://[a-z.]+(/[A-Za-z0-9._-]+)+", url), url
                assert url.startswith(repository.base)
            assert repository.fingerprints
            assert repository.source_path.endswith(".sources")
            assert repository.key_path.startswith("/etc/apt/keyrings/")
            assert not any("{" in text for text in (*repository.legacy_sources, repository.suite, repository.source_path))


def test_the_repositories_of_one_platform_use_different_files(catalog: Catalog) -> None:
    for platform in everywhere(catalog):
        repositories = [r for r in (catalog.repository(n, platform) for n in ("docker", "toolkit", "cuda")) if r]
        assert len({r.source_path for r in repositories}) == len({r.key_path for r in repositories}) == len(repositories)


def test_the_oldest_ubuntu_gets_the_last_of_everything_that_exists_for_it(catalog: Catalog) -> None:
    platform = catalog.platform(OsRelease("ubuntu", "16.04", "xenial", ("debian",), "xenial"), "x86_64")
    docker, toolkit = catalog.repository("docker", platform), catalog.repository("toolkit", platform)
    assert docker
    assert toolkit
    assert docker.packages == ("docker-ce", "docker-ce-cli", "containerd.io"), "its tree was frozen before there were plugins"
    assert (toolkit.uri, toolkit.newest) == ("https://nvidia.github.io/libnvidia-container/stable/ubuntu16.04/amd64", "1.12.0")
    assert {docker.key_path, toolkit.key_path} == {"/etc/apt/keyrings/docker.gpg", "/etc/apt/keyrings/nvidia-container-toolkit.gpg"}


def installers() -> list[dict[str, Any]]:
    return list(raw("drivers")["runfile"])


@pytest.mark.parametrize("row", installers(), ids=lambda row: f"{row['version']}-{row['arch']}")
def test_an_installer_is_pinned_and_only_for_systems_that_no_repository_serves(catalog: Catalog, row: dict[str, Any]) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"])
    assert row["path"].endswith(f"/{row['version']}/NVIDIA-Linux-{row['arch']}-{row['version']}.run")
    assert row["version"].startswith(f"{row['branch']}.")
    assert set(row["flavors"]) <= set(catalog.branch(row["branch"]).flavors)
    served = [platform for platform in anywhere(catalog) if platform.arch == row["arch"] and platform.base in row["systems"]]
    assert {platform.base for platform in served} == set(row["systems"])
    for platform in served:
        for source in platform.driver_sources:
            for flavor in row["flavors"]:
                assert catalog.driver_packages(platform, source, row["branch"], flavor, "") is None, "a package comes first"


def anywhere(catalog: Catalog) -> Iterator[Platform]:
    """Every system with deb or rpm packages on both kinds of servers."""
    for row in catalog.systems:
        for arch in ("x86_64", "aarch64") if "deb_arch" not in row else ():
            yield catalog.platform(OsRelease(row["id"], row.get("minimum") or row["version"], row.get("codename", "")), arch)


def test_arm_servers_get_the_sbsa_directory_and_debian_names(catalog: Catalog) -> None:
    platform = catalog.platform(parsed(UBUNTU_2404), "aarch64")
    cuda, toolkit = catalog.repository("cuda", platform), catalog.repository("toolkit", platform)
    assert cuda
    assert cuda.uri.endswith("/ubuntu2404/sbsa")
    assert toolkit
    assert toolkit.uri.endswith("/stable/deb/arm64")
    assert toolkit.architectures == ("arm64",)


@pytest.mark.parametrize(
    ("system", "key"),
    [("12", "EB693B3035CD5710E231E123A4B469963BF863CC"), ("13", "02182E60104FCDC26EAE1B8597A5D4CB8793F200")],
)
def test_the_cuda_repositories_of_two_debian_releases_are_signed_with_different_keys(catalog: Catalog, system: str, key: str) -> None:
    repository = catalog.repository("cuda", catalog.platform(OsRelease("debian", system), "x86_64"))
    assert repository
    assert repository.fingerprints == (key,)
    assert repository.key_url == f"{repository.uri}/{'3bf863cc' if system == '12' else '8793F200'}.pub"


# ---------------------------------------------------------------- systems


@pytest.mark.parametrize(
    ("text", "codename", "base", "derivative_of", "tree"),
    [
        (UBUNTU_2404, "noble", "ubuntu:24.04", "", "ubuntu"),
        (DEBIAN_13, "trixie", "debian:13", "", "debian"),
        (MINT_22, "noble", "ubuntu:24.04", "Ubuntu 24.04", "ubuntu"),
        (LMDE_6, "bookworm", "debian:12", "Debian 12", "debian"),
        (POP_2204, "jammy", "ubuntu:22.04", "Ubuntu 22.04", "ubuntu"),
        (ELEMENTARY_7, "jammy", "ubuntu:22.04", "Ubuntu 22.04", "ubuntu"),
        (ZORIN_16, "focal", "ubuntu:20.04", "Ubuntu 20.04", "ubuntu"),
        (NEON, "jammy", "ubuntu:22.04", "Ubuntu 22.04", "ubuntu"),
        (TUXEDO, "noble", "ubuntu:24.04", "Ubuntu 24.04", "ubuntu"),
    ],
    ids=["ubuntu", "debian", "mint", "lmde", "pop", "elementary", "zorin", "neon", "a derivative without a row"],
)
def test_a_derivative_is_set_up_as_the_release_it_is_made_from(
    catalog: Catalog, text: str, codename: str, base: str, derivative_of: str, tree: str
) -> None:
    release = parsed(text)
    platform = catalog.platform(release, "x86_64")
    assert (platform.codename, platform.base, platform.derivative_of) == (codename, base, derivative_of)
    assert (platform.id, platform.version, platform.family) == (release.id, release.version_id, "debian")
    docker = catalog.repository("docker", platform)
    assert docker
    assert (docker.uri, docker.suite) == (f"https://download.docker.com/linux/{tree}", codename)


def test_an_lmde_that_names_no_debian_release_is_known_by_its_version(catalog: Catalog) -> None:
    release = parsed(LMDE_6.replace("DEBIAN_CODENAME=bookworm\n", "").replace('VERSION_ID="6"', 'VERSION_ID="7"'))
    assert catalog.platform(release, "x86_64").base == "debian:13"


def test_raspbian_is_32_bit_even_under_a_64_bit_kernel_and_has_no_gpu_repositories(catalog: Catalog) -> None:
    platform = catalog.platform(parsed(RASPBIAN_12), "aarch64")
    assert (platform.deb_arch, platform.docker_tree) == ("armhf", "raspbian")
    assert catalog.repository("toolkit", platform) is None
    assert catalog.repository("cuda", platform) is None


def test_docker_has_nothing_for_an_architecture_it_does_not_build_for(catalog: Catalog) -> None:
    platform = catalog.platform(OsRelease("debian", "13"), "riscv64")
    assert catalog.repository("docker", platform) is None
    assert platform.distro_docker_packages == ("docker.io", "docker-cli")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (DEBIAN_TESTING, "The nearest supported system is Debian 13."),
        (UBUNTU_2404.replace("24.04", "28.04").replace("noble", "zesty"), "The nearest supported system is Ubuntu 26.04."),
        (UBUNTU_2404.replace("24.04", "25.10").replace("noble", "questing"), "Use an LTS release: Ubuntu 24.04 or 26.04."),
        (DEBIAN_13.replace("13", "10").replace("trixie", "buster"), "Upgrade the machine to Debian 12 or newer."),
        ("ID=debain\nVERSION_ID=12\n", "The nearest supported system is Debian 13."),
        (MINT_22.replace("noble", "trusty"), "The nearest supported system is Linux Mint."),
        (NOBARA_40, "The nearest supported system is Fedora 42."),
        ('ID="springdale"\nID_LIKE="rhel fedora"\nVERSION_ID="9.2"\nPLATFORM_ID="platform:el9"\n', "The nearest supported system is Rocky Linux 9."),
    ],
    ids=["debian testing", "a future ubuntu", "an interim ubuntu", "an old debian", "a misspelt id", "an old mint", "a fedora", "a clone"],
)
def test_an_unsupported_system_is_told_the_nearest_supported_one(catalog: Catalog, text: str, names: str) -> None:
    release = parsed(text)
    with pytest.raises(Unsupported) as caught:
        catalog.platform(release, "x86_64")
    assert names in caught.value.fix
    assert "Supported are Debian 11, 12, 13; Ubuntu 16.04, 18.04, 20.04, 22.04, 24.04, 26.04;" in caught.value.fix
    assert caught.value.exit_code == 5
    assert release.pretty_name in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ID="amzn"\nID_LIKE="rhel fedora"\nVERSION_ID="2018.03"\n', "maintenance ended on 2023-12-31"),
        (KALI, "rolling release whose packages match no Debian release"),
        ("ID=flatcar\nID_LIKE=coreos\n", "read-only /usr"),
        ("ID=cos\n", "Docker built in"),
        ("ID=bottlerocket\n", "immutable"),
        ("ID=nixos\n", "builds its system from a configuration"),
        ("ID=alpine\n", "musl"),
        ("ID=endeavouros\nID_LIKE=arch\n", "rolling release"),
        ("ID=ubuntu-core\nVERSION_ID=24\n", "snaps only"),
    ],
)
def test_a_system_that_is_known_and_not_set_up_is_told_why_and_what_to_do(catalog: Catalog, text: str, says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        catalog.platform(parsed(text), "x86_64")
    assert says in caught.value.message
    assert caught.value.fix
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["wsl", "container", "ostree", "readonly", "tegra"])
def test_a_surrounding_that_forbids_everything_has_its_own_refusal(catalog: Catalog, name: str) -> None:
    refusal = catalog.environment(name)
    assert refusal.message.startswith("This is ")
    assert refusal.fix


def test_an_unknown_architecture_is_unsupported(catalog: Catalog) -> None:
    with pytest.raises(Unsupported, match="'sparc64' is not supported"):
        catalog.platform(parsed(DEBIAN_13), "sparc64")


def test_no_system_is_both_supported_and_refused() -> None:
    distros = raw("distros")
    supported = {(row["id"], row["version"]) for row in distros["system"]}
    refused = {(row["id"], version) for row in distros["refused"] for version in row.get("versions", ())}
    whole = {row["id"] for row in distros["refused"] if "versions" not in row}
    whole |= {identity for row in distros["later_refused"] if "versions" not in row for identity in row["ids"]}
    assert not supported & refused
    assert not {name for name, _ in supported} & whole
    assert not {row["id"] for row in distros["derivative"]} & whole


# ---------------------------------------------------------------- GPUs


def test_the_ranges_of_device_ids_do_not_overlap_and_are_in_order() -> None:
    ranges = raw("gpus")["ranges"]["rows"]
    assert all(low <= high for low, high, _ in ranges)
    assert all(high < following for (_, high, _), (following, _, _) in zip(ranges, ranges[1:]))


def test_every_named_gpu_lies_in_a_range_of_its_generation() -> None:
    gpus = raw("gpus")
    seen: set[str] = set()
    for group in gpus["parts"]:
        for device, *_ in group["rows"]:
            assert re.fullmatch(r"[0-9a-f]{4}", device)
            assert device not in seen, f"{device} is named twice"
            seen.add(device)
            assert [g for low, high, g in gpus["ranges"]["rows"] if low <= device <= high] == [group["generation"]], device


def test_every_oldest_driver_of_a_gpu_is_of_a_branch_that_its_generation_has() -> None:
    gpus = raw("gpus")
    first = {row["name"]: row["first_branch"] for row in gpus["generation"]}
    for group in gpus["parts"]:
        for device, _, *rest in group["rows"]:
            if rest and rest[0]:
                assert re.fullmatch(r"\d{3}(\.\d+){1,2}", rest[0]), device
                assert int(rest[0][:3]) >= int(first[group["generation"]]), device


CHIPS = {
    "GF": "fermi", "GT": "fermi", "GK": "kepler", "GM": "maxwell", "GP": "pascal", "GV": "volta", "TU": "turing", "GA": "ampere",
    "AD": "ada", "GH": "hopper", "GB": "blackwell", "GR": "rubin",
}  # fmt: skip


def compared(text: str, catalog: Catalog) -> tuple[int, list[str]]:
    """How many GPUs of a pci.ids file were compared, and those whose chip says another generation than the catalog."""
    count, wrong, vendor = 0, [], ""
    for entry in text.splitlines():
        if re.match(r"[0-9a-f]{4} ", entry):
            vendor = entry[:4]
        device = re.match(r"\t([0-9a-f]{4})  ((G[FTKMPVAHBR]|TU|AD)\d\w*.*)", entry)
        if vendor != "10de" or not device or re.search("Audio|USB|UCSI|NVSwitch|Bridge|Root Port|NVLink|PCIe Switch", device[2]):
            continue
        if "22ce" <= device[1] <= "22d1":  # bridges in front of GB10, in the middle of Ampere's range
            continue
        count += 1
        if catalog.gpu(device[1]).generation != CHIPS[device[3]]:
            wrong.append(f"{device[1]} {device[2]}: {catalog.gpu(device[1]).generation}")
    return count, wrong


def test_every_gpu_of_this_machines_pci_ids_is_of_the_generation_that_its_chip_says(catalog: Catalog) -> None:
    path = next((p for p in PCI_IDS if p.exists()), None)
    if path is None:
        pytest.skip("no pci.ids here (package pci.ids)")
    count, wrong = compared(path.read_text("utf-8", "replace"), catalog)
    assert count > 500
    assert wrong == []


@pytest.mark.parametrize(
    ("device", "name", "generation"),
    [
        ("20b2", "NVIDIA A100 SXM4 80GB", "ampere"),
        ("25b6", "NVIDIA A2 / A16", "ampere"),
        ("2328", "NVIDIA H20B", "hopper"),
        ("11bf", "NVIDIA GRID K2", "kepler"),
        ("0x2330", "NVIDIA H100 SXM5 80GB", "hopper"),
        ("1EB8", "NVIDIA Tesla T4", "turing"),
        ("102d", "NVIDIA Tesla K80", "kepler"),
        ("2bb5", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "blackwell"),
        ("2fff", "NVIDIA Blackwell GPU (10de:2fff)", "blackwell"),
        ("2690", "NVIDIA Ada Lovelace GPU (10de:2690)", "ada"),
        ("f00d", "NVIDIA GPU (10de:f00d)", "unknown"),
    ],
)
def test_a_gpu_is_named_by_its_id_or_by_its_generation(catalog: Catalog, device: str, name: str, generation: str) -> None:
    model = catalog.gpu(device)
    assert (model.name, model.generation) == (name, generation)


@pytest.mark.parametrize(("subsystem", "virtual"), [("10de:1733", True), ("1737", True), ("10de:16ca", False), (None, False), ("", False), ("1028:1733", False)])
def test_a_slice_of_an_l4_is_told_from_a_whole_one_by_its_subsystem(catalog: Catalog, subsystem: str | None, virtual: bool) -> None:
    assert catalog.gpu("27b8", subsystem).vgpu is virtual


def test_an_a2_is_told_from_an_a16_by_its_subsystem(catalog: Catalog) -> None:
    assert [catalog.gpu("25b6", f"10de:{sub}").name for sub in ("157e", "14a9", "1234")] == ["NVIDIA A2", "NVIDIA A16", "NVIDIA A2 / A16"]


def test_a_jetsons_gpu_is_known_to_take_its_driver_from_jetpack(catalog: Catalog) -> None:
    assert catalog.gpu("2b00").tegra
    assert not catalog.gpu("2e12").tegra, "a DGX Spark takes the ordinary driver"
    assert catalog.gpu("2e12").grace


def test_blackwell_and_grace_hopper_take_the_open_module_only(catalog: Catalog) -> None:
    assert catalog.gpu("2901").open_only
    assert catalog.gpu("2342").open_only
    assert not catalog.gpu("2330").open_only
    assert catalog.gpu("2901").nvlink5


def test_only_switches_are_switches(catalog: Catalog) -> None:
    assert catalog.is_nvswitch("1af1")
    assert catalog.is_nvswitch("0x22A3")
    assert not catalog.is_nvswitch("20b2")


# ---------------------------------------------------------------- drivers


def test_the_branches_are_in_order_and_their_newest_release_is_their_own(catalog: Catalog) -> None:
    numbers = [int(branch.number) for branch in catalog.branches]
    assert numbers == sorted(set(numbers))
    for branch in catalog.branches:
        assert branch.newest_release.startswith(f"{branch.number}.")
        assert set(branch.flavors) <= {"open", "proprietary"}
        assert branch.eol == "" or re.fullmatch(r"20\d\d-\d\d-\d\d", branch.eol)
        assert catalog.generation(branch.oldest).order < catalog.generation(branch.newest).order


def test_a_branch_and_a_generation_agree_about_each_other(catalog: Catalog) -> None:
    for row in raw("gpus")["generation"]:
        served = [branch.number for branch in catalog.branches if catalog.supports(branch, row["name"])]
        if row["last_branch"] and served:
            assert served[-1] == row["last_branch"]
        for number in served:
            assert int(number) >= int(row["first_branch"])
    assert [b.number for b in catalog.branches if catalog.supports(b, "volta")] == ["470", "535", "550", "570", "580"]
    assert [b.number for b in catalog.branches if catalog.supports(b, "kepler")] == ["470"]
    assert [b.number for b in catalog.branches if catalog.supports(b, "blackwell")] == ["570", "580", "590", "595", "610", "615"]


def test_every_preferred_branch_is_in_the_catalog(catalog: Catalog) -> None:
    for number in catalog.preferred_branches:
        assert catalog.branch(number).number == number
    assert catalog.preferred_branches[0] == "580"


def test_every_driver_row_names_systems_branches_and_flavours_that_exist(catalog: Catalog) -> None:
    bases = {f"{row['id']}:{row['version']}" for row in catalog.systems}
    for row in raw("drivers")["packages"]:
        assert set(row["systems"]) <= bases
        for number in row["branches"]:
            assert row["flavor"] in catalog.branch(number).flavors
        assert set(row["arches"]) <= {"amd64", "arm64"}


def combinations(catalog: Catalog) -> Iterator[tuple[Platform, str, DriverPackages]]:
    kernels = {"debian": "6.12.107+deb13-cloud-{}", "ubuntu": "6.8.0-1021-aws"}
    for platform in everywhere(catalog):
        kernel = kernels[platform.base_id].format(platform.deb_arch)
        for source in ("distro", "cuda"):
            for branch in catalog.branches:
                for flavor in ("open", "proprietary", "grid"):
                    found = catalog.driver_packages(platform, source, branch.number, flavor, kernel)
                    if found:
                        yield platform, kernel, found


def test_every_driver_has_complete_package_names_and_a_module_by_exactly_one_way(catalog: Catalog) -> None:
    count = 0
    for platform, kernel, found in combinations(catalog):
        count += 1
        for bundle in filter(None, (found, found.fallback)):
            assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in (*bundle.packages, *bundle.headers))
            assert all(re.fullmatch(r"[0-9.]+\*(ubuntu1)?", glob) for glob in bundle.versions.values())
            assert (bundle.repository == "cuda") is bool(bundle.versions)
            assert bundle.components or (bundle.repository, platform.base_id) == ("cuda", "ubuntu")
            assert bool(bundle.headers) is not bundle.prebuilt
            assert bundle.headers in ((), (f"linux-headers-{kernel}",))
            assert bundle.flavor in catalog.branch(bundle.branch).flavors
            assert platform.cuda or bundle.repository is None
            kernel_packages = [n for n in bundle.packages if "dkms" in n.replace("no-dkms", "") or n.startswith("linux-modules-")]
            assert len(kernel_packages) == 1
    assert count > 60


@pytest.mark.parametrize(
    ("system", "arch", "source", "branch", "flavor", "packages"),
    [
        (("debian", "13"), "x86_64", "cuda", "580", "open", ("nvidia-driver-cuda", "nvidia-persistenced", "nvidia-kernel-open-dkms")),
        (("debian", "12"), "aarch64", "cuda", "595", "open", ("nvidia-driver-cuda", "nvidia-persistenced", "nvidia-kernel-open-dkms")),
        (("debian", "12"), "x86_64", "cuda", "580", "proprietary", ("nvidia-driver-cuda", "nvidia-persistenced", "nvidia-kernel-dkms")),
        (("debian", "13"), "x86_64", "distro", "550", "proprietary", ("nvidia-smi", "libcuda1", "libnvidia-ml1", "nvidia-persistenced", "nvidia-kernel-dkms")),
        (("debian", "12"), "x86_64", "distro", "535", "open", ("nvidia-smi", "libcuda1", "libnvidia-ml1", "nvidia-persistenced", "nvidia-open-kernel-dkms")),
        (("ubuntu", "26.04"), "x86_64", "cuda", "595", "open", ("libnvidia-compute", "nvidia-persistenced", "nvidia-dkms-open")),
        (("ubuntu", "22.04"), "x86_64", "cuda", "580", "proprietary", ("libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580", "nvidia-dkms-580")),
    ],
)
def test_a_driver_that_is_built_here_is_installed_by_these_packages(
    catalog: Catalog, system: tuple[str, str], arch: str, source: str, branch: str, flavor: str, packages: tuple[str, ...]
) -> None:
    found = catalog.driver_packages(catalog.platform(OsRelease(*system), arch), source, branch, flavor, "6.1.0-37-amd64")
    assert found
    assert found.packages == packages
    assert not found.prebuilt


@pytest.mark.parametrize(
    ("system", "arch", "source", "branch", "flavor", "why"),
    [
        (("ubuntu", "26.04"), "x86_64", "cuda", "580", "open", "NVIDIA builds no 580 for it"),
        (("debian", "11"), "aarch64", "distro", "470", "proprietary", "Debian 11 has it for amd64 only"),
        (("debian", "13"), "x86_64", "distro", "470", "proprietary", "Debian 13 dropped it"),
        (("debian", "13"), "x86_64", "distro", "580", "open", "Debian packages 550"),
        (("ubuntu", "24.04"), "x86_64", "distro", "535", "open", "a transitional package that brings 580"),
        (("debian", "13"), "x86_64", "cuda", "615", "proprietary", "there is no proprietary module any more"),
        (("debian", "13"), "x86_64", "cuda", "580", "grid", "GRID drivers are in no repository"),
    ],
)
def test_a_driver_that_a_source_does_not_have_is_none(
    catalog: Catalog, system: tuple[str, str], arch: str, source: str, branch: str, flavor: str, why: str
) -> None:
    assert catalog.driver_packages(catalog.platform(OsRelease(*system), arch), source, branch, flavor, "6.8.0-31-generic") is None, why


def test_ubuntus_signed_modules_are_those_of_the_running_kernel(catalog: Catalog) -> None:
    platform = catalog.platform(parsed(UBUNTU_2404), "x86_64")
    found = catalog.driver_packages(platform, "distro", "580", "open", "6.8.0-1021-aws", image="linux-image-aws")
    assert found
    assert found.prebuilt
    assert found.packages == (
        "linux-modules-nvidia-580-server-open-6.8.0-1021-aws",
        "linux-modules-nvidia-580-server-open-aws",
        "nvidia-headless-no-dkms-580-server-open",
        "nvidia-utils-580-server",
    )
    assert found.fallback
    assert "nvidia-dkms-580-server-open" in found.fallback.packages
    assert found.fallback.headers == ("linux-headers-6.8.0-1021-aws",)


@pytest.mark.parametrize(
    ("image", "metapackage"),
    [
        ("linux-image-generic-hwe-24.04", "linux-modules-nvidia-580-server-generic-hwe-24.04"),
        ("linux-image-virtual", "linux-modules-nvidia-580-server-generic"),
        ("", "linux-modules-nvidia-580-server-generic"),
    ],
)
def test_the_metapackage_for_future_modules_follows_the_installed_kernel_metapackage(catalog: Catalog, image: str, metapackage: str) -> None:
    platform = catalog.platform(parsed(UBUNTU_2404), "x86_64")
    found = catalog.driver_packages(platform, "distro", "580", "proprietary", "6.8.0-45-generic", image=image)
    assert found
    assert found.metapackage == metapackage
    assert (metapackage in found.packages) is bool(image), "without a kernel metapackage a foreign kernel would come with it"


def test_a_kernel_of_nobodys_making_gets_no_prebuilt_modules(catalog: Catalog) -> None:
    platform = catalog.platform(parsed(UBUNTU_2404), "x86_64")
    found = catalog.driver_packages(platform, "distro", "580", "open", "6.9.1-xanmod1")
    assert found
    assert not found.prebuilt
    assert found.headers == ("linux-headers-6.9.1-xanmod1",)


@pytest.mark.parametrize(
    ("system", "release", "flavor"),
    [
        (("debian", "12"), "6.1.0-37-cloud-amd64", "cloud-amd64"),
        (("debian", "13"), "6.12.107+deb13-amd64", "amd64"),
        (("debian", "12"), "6.12.9+bpo-rt-arm64", "rt-arm64"),
        (("debian", "12"), "6.8.12-4-pve", ""),
        (("ubuntu", "24.04"), "6.8.0-1021-azure-fde", "azure-fde"),
        (("ubuntu", "26.04"), "7.0.0-31-generic", "generic"),
    ],
)
def test_the_kernels_flavour_is_read_from_its_release(catalog: Catalog, system: tuple[str, str], release: str, flavor: str) -> None:
    assert catalog.kernel_flavor(catalog.platform(OsRelease(*system), "x86_64"), release) == flavor


def test_an_exact_driver_version_is_kept_exact_in_every_glob_and_in_the_preferences(catalog: Catalog) -> None:
    platform = catalog.platform(parsed(DEBIAN_13), "x86_64")
    found = catalog.driver_packages(platform, "cuda", "580", "open", "6.12.107+deb13-amd64", version="580.126.20")
    assert found
    assert set(found.versions.values()) == {"580.126.20-*"}
    assert "Pin: version 580.126.20-*\n" in found.preferences
    assert found.pinning == "nvidia-driver-pinning-580"


def test_apt_itself_chooses_by_the_preferences_stanza(catalog: Catalog, tmp_path: Path) -> None:
    """Real apt over a file of package records: the newest of the branch wins over a newer branch and over Ubuntu's own build."""
    apt = next((p for p in ("/usr/bin/apt-cache", "/bin/apt-cache") if Path(p).exists()), None)
    if apt is None:
        pytest.skip("no apt-cache here")
    platform = catalog.platform(parsed(UBUNTU_2404), "x86_64")
    found = catalog.driver_packages(platform, "cuda", "580", "proprietary", "6.8.0-45-generic")
    assert found
    versions = ["615.71.09-1ubuntu1", "580.178.04-0ubuntu0.24.04.1", "580.159.04-1ubuntu1", "580.65.06-0ubuntu1", "470.256.02-1ubuntu1"]
    records = "".join(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x\nFilename: ./{name}_{version}.deb\nSize: 1\nSHA256: {'0' * 64}\n\n"
        for name in ("nvidia-modprobe", "nvidia-container-toolkit")
        for version in (versions if name == "nvidia-modprobe" else ["1.20.0-1", "1.19.0-1"])
    )
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "Packages").write_text(records)
    for folder in ("state/lists/partial", "cache/archives/partial", "parts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "status").touch()
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes arch=amd64] file:{tmp_path}/repo ./\n")
    (tmp_path / "preferences").write_text(found.preferences)
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::State "{tmp_path}/state"; Dir::State::status "{tmp_path}/status"; Dir::Cache "{tmp_path}/cache"; Dir::Etc "{tmp_path}";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "{tmp_path}/parts"; Dir::Etc::preferences "{tmp_path}/preferences";\n'
        f'Dir::Etc::preferencesparts "{tmp_path}/parts"; Dir::Etc::parts "{tmp_path}/parts"; APT::Architecture "amd64"; APT::Architectures "amd64";\n'
        'APT::Sandbox::User "root"; Acquire::Languages "none";\n'
    )
    env = {"APT_CONFIG": str(config), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    subprocess.run(["apt-get", "update"], env=env, check=True, capture_output=True, timeout=60)
    said = subprocess.run([apt, "policy", "nvidia-modprobe", "nvidia-container-toolkit"], env=env, check=True, capture_output=True, text=True, timeout=60).stdout
    assert re.findall(r"Candidate: (\S+)", said) == ["580.159.04-1ubuntu1", "1.20.0-1"]


def test_the_fabric_manager_has_the_name_of_its_source_and_branch(catalog: Catalog) -> None:
    ubuntu, debian = catalog.platform(parsed(UBUNTU_2404), "x86_64"), catalog.platform(parsed(DEBIAN_13), "x86_64")
    own = catalog.fabric_packages(ubuntu, "distro", "580", "580.173.02")
    assert own
    assert own.packages == ("nvidia-fabricmanager-580",)
    vendor = catalog.fabric_packages(debian, "cuda", "580", "580.126.20", nvlink5=True)
    assert vendor
    assert vendor.packages == ("nvidia-fabricmanager", "nvlsm")
    assert vendor.versions == {"nvidia-fabricmanager": "580.126.20-*"}
    old = catalog.fabric_packages(ubuntu, "cuda", "570", "570.211.01")
    assert old
    assert old.packages == ("nvidia-fabricmanager-570",)
    assert catalog.fabric_packages(debian, "distro", "550", "550.163.01") is None


# ---------------------------------------------------------------- CUDA and clouds


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("580.126.20", "13.0"), ("550.163.01", "12.4"), ("470", "11.4"), ("620.10", "13.4"), ("577.1", "12.9"), ("340.108", None), ("", None)],
)
def test_the_cuda_of_a_driver_is_that_of_its_branch(catalog: Catalog, driver: str, cuda: str | None) -> None:
    assert catalog.cuda_for_driver(driver) == cuda


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [("12.4.1", "550.54.15"), ("12.4", "550.54.14"), ("12.6.2", "560.35.03"), ("12", "525.60.13"), ("13", "580.65.06"), ("12.7", None), ("7.5", None), ("", None)],
)
def test_the_oldest_driver_of_a_cuda_release_is_found_by_release_update_or_major(catalog: Catalog, cuda: str, driver: str | None) -> None:
    assert catalog.min_driver_for_cuda(cuda) == driver


def test_a_newer_cuda_never_needs_an_older_driver() -> None:
    releases = raw("cuda")["release"]
    ordered = sorted(releases, key=lambda r: tuple(map(int, r.split("."))))
    drivers = [tuple(map(int, releases[r].split("."))) for r in ordered]
    assert drivers == sorted(drivers)
    assert set(raw("cuda")["unverified"]) <= set(releases)


def test_a_branch_shows_the_cuda_that_it_was_released_with() -> None:
    data = raw("cuda")
    for release, driver in data["release"].items():
        shown = data["branch"][driver.split(".")[0]]
        assert tuple(map(int, shown.split("."))) >= tuple(map(int, release.split(".")[:2]))


@pytest.mark.parametrize(
    ("dmi", "cloud"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge"}, "aws"),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon", "product_name": "HVM domU"}, "aws"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "azure"),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine", "chassis_asset_tag": "1234"}, None),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
        ({"sys_vendor": "Google", "product_name": "Link"}, None),
        ({"chassis_asset_tag": "OracleCloud.com\n"}, "oci"),
        ({"sys_vendor": "QEMU", "product_name": "Standard PC"}, None),
        ({"sys_vendor": "Supermicro"}, None),
        ({}, None),
    ],
)
def test_a_cloud_is_known_by_its_firmware(catalog: Catalog, dmi: dict[str, str], cloud: str | None) -> None:
    assert catalog.cloud(dmi) == cloud


# ---------------------------------------------------------------- cost


def test_everything_is_read_within_40_milliseconds_of_cpu() -> None:
    code = (
        "import time, provision.catalog as c\n"
        "best = 1.0\n"
        "for _ in range(5):\n"
        "    c._packaged.cache_clear(); start = time.process_time()\n"
        f"    [c._packaged(name) for name in {FILES!r}]\n"
        "    best = min(best, time.process_time() - start)\n"
        "print(best)"
    )
    root = DATA.parent.parent
    spent = float(subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert spent < 0.040
