"""The driver: which one for which GPUs on which system, what is kept, and why there can be none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.actions import KernelModule
from provision.facts import apt
from provision.model import CHANGE, LATER, OK, Facts, Nvidia, Plan, Reach
from provision.plan import plan
from provision.report.verdict import plan_exit_code
from provision.spec import DriverSpec, Spec
from tests.machines import CATALOG, SWITCH, gpu, machine, unit, with_docker, with_gpus, with_packages, with_toolkit, working


def decide(facts: Facts, gpu: str = "auto", **driver: object) -> Plan:
    return plan(facts, Spec(gpu=gpu, driver=DriverSpec(**driver)), CATALOG)  # type: ignore[arg-type]


def item(decided: Plan, identifier: str):
    return next(i for i in decided.items if i.id == identifier)


def chosen(decided: Plan) -> tuple[object, ...]:
    details = decided.decisions["driver"].details
    return details["branch"], details["flavor"], details["source"]


def ids(decided: Plan) -> list[str]:
    return [p.id for p in decided.problems]


def kernel(facts: Facts, release: str, *images: str) -> Facts:
    """Another running kernel, and the image packages that are installed."""
    kept = {n: p for n, p in (facts.packages or {}).items() if not n.startswith("linux-image")}
    return with_packages(replace(facts, kernel=release, packages=kept), "\n".join(f"{image} 1" for image in images))


KEPLER, VOLTA, TURING, ADA, HOPPER, BLACKWELL = "102d", "1db5", "1eb8", "26b9", "2330", "2901"


# ---------------------------------------------------------------- the matrix


@pytest.mark.parametrize(
    ("system", "devices", "expected"),
    [
        ("debian 12", (HOPPER,), ("580", "open", "cuda")),
        ("debian 13", (HOPPER,), ("580", "open", "cuda")),
        ("ubuntu 22.04", (HOPPER,), ("580", "open", "distro")),
        ("ubuntu 24.04", (HOPPER,), ("580", "open", "distro")),
        ("mint 22", (HOPPER,), ("580", "open", "distro")),
        ("debian 12", (VOLTA,), ("580", "proprietary", "cuda")),
        ("ubuntu 24.04", (VOLTA,), ("580", "proprietary", "distro")),
        ("ubuntu 24.04", (VOLTA, ADA), ("580", "proprietary", "distro")),
        ("ubuntu 24.04", (TURING, HOPPER), ("580", "open", "distro")),
        ("debian 12", (KEPLER,), ("470", "proprietary", "distro")),
        ("ubuntu 24.04", (KEPLER,), ("470", "proprietary", "distro")),
        ("ubuntu 24.04", (KEPLER, TURING), ("470", "proprietary", "distro")),
        ("ubuntu 24.04", (BLACKWELL,), ("580", "open", "distro")),
        ("debian 11", (VOLTA,), ("470", "proprietary", "distro")),
    ],
)
def test_branch_flavour_and_source_follow_the_oldest_gpu_and_the_system(system, devices, expected):
    decided = decide(with_gpus(machine(system), *devices))
    assert ids(decided) == []
    assert chosen(decided) == expected
    assert decided.decisions["driver"].details["secure_boot"] is False


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ((VOLTA, BLACKWELL), "driver/mixed"),
        ((KEPLER, ADA), "driver/mixed"),
        (("1040",), "driver/too-old"),
        (("ffff",), "driver/unknown-gpu"),
        ((gpu("27b8", subsystem="10de:1733"),), "driver/vgpu"),
        ((gpu("2236", vgpu=True),), "driver/vgpu"),
        ((gpu(driver="vfio-pci"),), "driver/vfio"),
    ],
)
def test_gpus_that_no_driver_serves_are_refused_with_the_whole_plan_shown(devices, problem):
    decided = decide(with_gpus(machine("ubuntu 24.04"), *devices))
    assert ids(decided) == [problem]
    assert decided.decisions["driver"].action == "refuse"
    assert decided.decisions["driver"].details["flavor"] == ("grid" if problem == "driver/vgpu" else None)
    assert decided.decisions["docker"].action == "install"
    assert plan_exit_code(decided) == 1


def test_a_virtual_gpu_that_works_is_kept():
    facts = working(with_gpus(machine("ubuntu 24.04"), gpu("27b8", subsystem="10de:1733")))
    assert decide(facts).decisions["driver"].action == "keep"


def test_a_gpu_handed_on_to_a_virtual_machine_is_not_counted_while_another_is_ours():
    facts = with_gpus(
        machine("ubuntu 24.04"),
        gpu(),
        gpu(address="0000:19:00.0", driver="vfio-pci"),
        gpu(address="0000:17:00.4", virtual_function=True),
    )
    assert item(decide(facts), "smoke/container").action.gpus == 1


def test_a_display_card_of_old_beside_gpus_that_work_disturbs_nobody():
    facts = with_gpus(machine("ubuntu 24.04"), "1040", HOPPER)
    facts = replace(working(facts), nvidia=replace(working(facts).nvidia, gpus=working(facts).nvidia.gpus[:1]))
    decided = decide(facts)
    assert decided.decisions["driver"].action == "keep"
    assert any("2 GPUs are on the PCI bus, but the driver shows 1" in n.message for n in decided.notices)


def test_no_gpu_is_a_docker_host_unless_one_is_required():
    assert decide(machine()).decisions["driver"].action == "skip"
    assert ids(decide(machine(), gpu="required")) == ["driver/no-gpu"]
    assert decide(with_gpus(machine(), HOPPER), gpu="ignore").decisions["toolkit"].action == "skip"


def test_a_bus_that_could_not_be_read_is_no_empty_bus():
    assert ids(decide(replace(machine(), nvidia_pci=None))) == ["driver/unknown"]


# ---------------------------------------------------------------- prebuilt modules, kernels, Secure Boot


def test_ubuntu_gets_signed_modules_for_the_running_kernel_and_those_to_come():
    facts = with_gpus(machine("ubuntu 24.04"), HOPPER, secure_boot=True)
    decided = decide(facts)
    assert decided.decisions["driver"].details["packages"] == [
        "linux-modules-nvidia-580-server-open-6.8.0-1040-aws",
        "linux-modules-nvidia-580-server-open-aws",
        "nvidia-headless-no-dkms-580-server-open",
        "nvidia-utils-580-server",
    ]
    assert decided.problems == ()
    assert decided.decisions["driver"].details["secure_boot"] is True


@pytest.mark.parametrize(
    ("release", "images", "meta"),
    [
        ("6.8.0-85-generic", ("linux-image-6.8.0-85-generic", "linux-image-virtual"), "generic"),
        ("6.14.0-33-generic", ("linux-image-6.14.0-33-generic", "linux-image-generic-hwe-24.04"), "generic-hwe-24.04"),
        ("6.14.0-33-generic", ("linux-image-6.14.0-33-generic", "linux-image-virtual-hwe-24.04"), "generic-hwe-24.04"),
        ("6.8.0-1040-aws", ("linux-image-6.8.0-1040-aws", "linux-image-aws-lts-24.04"), "aws-lts-24.04"),
    ],
)
def test_the_metapackage_follows_the_one_of_the_kernel(release, images, meta):
    decided = decide(kernel(with_gpus(machine("ubuntu 24.04"), HOPPER), release, *images))
    assert f"linux-modules-nvidia-580-server-open-{meta}" in decided.decisions["driver"].details["packages"]


def test_a_kernel_that_is_not_the_distributions_own_build_has_its_module_built_here():
    facts = kernel(
        with_gpus(machine("ubuntu 24.04"), HOPPER),
        "6.9.3-060903-generic",
        "linux-image-unsigned-6.9.3-060903-generic",
        "linux-image-generic",
    )
    decided = decide(facts)
    packages = decided.decisions["driver"].details["packages"]
    assert "nvidia-dkms-580-server-open" in packages
    assert "linux-headers-6.9.3-060903-generic" in packages
    assert not any(name.startswith("linux-modules") for name in packages)
    assert ids(decide(replace(facts, secure_boot=True))) == ["driver/secure-boot"]


def test_a_tree_without_a_package_database_is_taken_to_have_the_distributions_kernel():
    facts = replace(with_gpus(machine("ubuntu 24.04"), HOPPER), packages={}, live=False)
    assert "linux-modules-nvidia-580-server-open-6.8.0-1040-aws" in decide(facts).decisions["driver"].details["packages"]


def test_secure_boot_without_signed_modules_is_refused_with_the_choice_shown():
    decided = decide(with_gpus(machine("debian 12"), HOPPER, secure_boot=True))
    assert ids(decided) == ["driver/secure-boot"]
    assert chosen(decided) == ("580", "open", "cuda")
    assert decided.decisions["driver"].action == "refuse"
    assert "mokutil" in decided.problems[0].fix


def test_secure_boot_that_could_not_be_read_is_said():
    decided = decide(with_gpus(machine("debian 12"), HOPPER, secure_boot=None))
    assert decided.problems == ()
    assert any("Secure Boot" in n.message for n in decided.notices)


def test_an_unknown_kernel_is_not_guessed():
    assert ids(decide(replace(with_gpus(machine("debian 12"), HOPPER), kernel=None))) == ["driver/kernel"]


def test_a_tree_without_a_running_kernel_is_set_up_for_the_only_one_installed_in_it():
    tree = replace(with_gpus(machine("debian 12"), HOPPER), kernel=None, live=False, systemd=None, units={})
    assert "linux-headers-6.1.0-40-cloud-amd64" in decide(tree).decisions["driver"].details["packages"]
    two = with_packages(tree, "linux-image-6.1.0-41-cloud-amd64 1")
    assert ids(decide(two)) == ["driver/kernel"]


def test_headers_come_for_the_running_kernel_and_for_those_to_come():
    packages = decide(with_gpus(machine("debian 12"), HOPPER)).decisions["driver"].details["packages"]
    assert packages[-2:] == ["linux-headers-6.1.0-40-cloud-amd64", "linux-headers-cloud-amd64"]


# ---------------------------------------------------------------- sources


def test_debians_own_driver_needs_more_components_of_the_same_mirror_signed_by_the_same_key():
    decided = decide(with_gpus(machine("debian 12"), HOPPER), source="distro")
    assert chosen(decided) == ("535", "open", "distro")
    text = item(decided, "driver/components").action.text
    source = apt.deb822("x", text)[0]
    assert (source.uris, source.suites) == (("http://mirror.example/debian",), ("bookworm",))
    assert source.components == ("contrib", "non-free", "non-free-firmware")
    assert source.signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_components_that_are_there_are_not_added_again():
    facts = with_gpus(machine("debian 12"), HOPPER)
    own = facts.apt_sources[0]
    part = replace(facts, apt_sources=(replace(own, components=("main", "non-free-firmware")),))
    assert apt.deb822("x", item(decide(part, source="distro"), "driver/components").action.text)[0].components == (
        "contrib",
        "non-free",
    )
    whole = replace(facts, apt_sources=(replace(own, components=("main", "contrib", "non-free", "non-free-firmware")),))
    assert item(decide(whole, source="distro"), "driver/components").state == OK
    assert ids(decide(replace(facts, apt_sources=()), source="distro")) == ["driver/components"]


def test_an_unreachable_repository_of_nvidias_makes_way_for_the_distributions_driver():
    url = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/InRelease"
    facts = replace(with_gpus(machine("debian 12"), HOPPER), reach={url: Reach(url, "connect", "timed out")})
    assert chosen(decide(facts)) == ("535", "open", "distro")
    assert ids(decide(with_gpus(facts, BLACKWELL))) == ["preflight/reach"]


def test_the_branch_is_pinned_before_the_packages_are_installed():
    decided = decide(with_gpus(machine("debian 12"), HOPPER))
    order = [i.id for i in decided.items]
    assert order.index("driver/pin") < order.index("driver/packages")
    assert "Pin: version 580.*" in item(decided, "driver/pin").action.content
    assert dict(item(decided, "driver/packages").expected)["nvidia-driver-cuda"] == "580.*"


def test_what_the_playbook_asks_for_is_taken_or_refused():
    facts = with_gpus(machine("debian 12"), HOPPER)
    assert chosen(decide(facts, branch="595", flavor="proprietary")) == ("595", "proprietary", "cuda")
    assert chosen(decide(facts, minimum="590")) == ("595", "open", "cuda")
    assert ids(decide(facts, branch="123")) == ["driver/branch"]
    assert ids(decide(with_gpus(facts, VOLTA), branch="595")) == ["driver/branch"]
    assert ids(decide(with_gpus(facts, BLACKWELL), branch="535")) == ["driver/branch"]
    assert ids(decide(with_gpus(facts, VOLTA), flavor="open")) == ["driver/flavor"]
    assert ids(decide(facts, branch="580", minimum="590")) == ["driver/branch"]
    assert ids(decide(facts, branch="470", source="cuda")) == ["driver/branch"]


# ---------------------------------------------------------------- what is there already


def test_a_working_driver_is_kept_and_its_origin_is_told_by_its_packages():
    host = working(with_gpus(machine("ubuntu 24.04"), HOPPER))
    rows = {
        "distro": "nvidia-utils-580-server 580.126.20-0ubuntu0.24.04.1",
        "cuda": "libnvidia-compute-580 580.126.20-1ubuntu1\nnvidia-open-580 580.126.20-1ubuntu1",
    }
    for source, packages in rows.items():
        decided = decide(with_packages(host, packages))
        assert decided.decisions["driver"].action == "keep"
        assert chosen(decided) == ("580", "open", source)
    assert chosen(decide(replace(host, nvidia=replace(host.nvidia, installed_by_runfile=True)))) == ("580", "open", "runfile")
    assert chosen(decide(host)) == ("580", "open", None)
    debian = working(with_gpus(machine("debian 12"), HOPPER))
    assert chosen(decide(with_packages(debian, "nvidia-smi 535.261.03-1~deb12u1")))[2] == "distro"
    assert chosen(decide(with_packages(debian, "nvidia-driver-cuda 580.126.20-1")))[2] == "cuda"


@pytest.mark.parametrize("wish", [{"branch": "595"}, {"minimum": "590"}, {"flavor": "proprietary"}])
def test_a_working_driver_is_replaced_only_with_consent(wish):
    facts = working(with_gpus(machine("debian 12"), HOPPER))
    decided = decide(facts, **wish)
    assert ids(decided) == ["driver/replace"]
    assert decided.decisions["driver"].details["branch"] == "580"
    agreed = decide(facts, replace=True, **wish)
    assert agreed.problems == ()
    assert agreed.decisions["driver"].action == "install"


def test_a_driver_that_waits_for_a_reboot_gets_one_and_nothing_else():
    facts = working(with_gpus(machine(), HOPPER), smi_rc=18, gpus=(), on_disk="580.178.04")
    decided = decide(facts)
    assert decided.reboot == "needed"
    assert item(decided, "driver/reboot").state == CHANGE
    assert chosen(decided)[0] == "580"


def test_a_loaded_driver_that_shows_nothing_is_a_matter_for_a_person():
    facts = working(
        with_gpus(machine(), HOPPER), smi_rc=15, gpus=(), smi_text="\nUnable to determine the device handle: GPU is lost.\n"
    )
    decided = decide(facts)
    assert ids(decided) == ["driver/broken"]
    assert "GPU is lost." in decided.problems[0].message
    assert decide(facts, replace=True).problems == ()


def test_a_loaded_module_of_the_wrong_flavour_is_replaced():
    facts = working(with_gpus(machine(), VOLTA), is_open=True, smi_rc=6, gpus=(), smi_text="No devices were found")
    assert chosen(decide(facts)) == ("580", "proprietary", "cuda")


def test_a_runfile_driver_that_does_not_work_is_not_mixed_with_packages():
    facts = with_gpus(machine(), HOPPER, nvidia=Nvidia(installed_by_runfile=True))
    decided = decide(facts)
    assert ids(decided) == ["driver/runfile"]
    assert "nvidia-uninstall" in decided.problems[0].fix


def test_what_is_half_there_is_gone_on_with_and_not_mixed():
    facts = with_packages(
        with_gpus(machine("debian 12"), HOPPER), "nvidia-driver-cuda 595.91.07-1\nnvidia-kernel-open-dkms 595.91.07-1"
    )
    decided = decide(facts)
    assert chosen(decided) == ("595", "open", "cuda")
    assert "are there already" in decided.decisions["driver"].why
    ubuntu = with_packages(
        with_gpus(machine("ubuntu 24.04"), HOPPER), "nvidia-dkms-open 595.91.07-1ubuntu1\nlibnvidia-compute 595.91.07-1ubuntu1"
    )
    assert chosen(decide(ubuntu)) == ("595", "open", "cuda")


def test_modules_of_another_flavour_make_way_with_consent_only():
    facts = with_packages(
        with_gpus(machine("debian 12"), HOPPER), "nvidia-driver-cuda 580.126.20-1\nnvidia-kernel-open-dkms 580.126.20-1"
    )
    decided = decide(facts, flavor="proprietary")
    assert ids(decided) == ["driver/conflicts"]
    assert "nvidia-kernel-open-dkms" in decided.problems[0].message
    agreed = decide(facts, flavor="proprietary", replace=True)
    assert item(agreed, "driver/packages").action.remove == ("nvidia-kernel-open-dkms",)
    assert decide(facts).problems == ()


def test_modules_of_the_same_branch_for_other_kernels_stay():
    facts = with_gpus(machine("ubuntu 24.04"), HOPPER)
    facts = with_packages(facts, "linux-modules-nvidia-580-server-open-6.8.0-1039-aws 1\nlinux-modules-nvidia-580-server-aws 1")
    assert item(decide(facts, replace=True), "driver/packages").action.remove == ("linux-modules-nvidia-580-server-aws",)


def test_packages_that_are_all_there_are_left_and_only_the_module_is_loaded():
    facts = with_gpus(machine("debian 12"), HOPPER)
    wanted = decide(facts).decisions["driver"].details["packages"]
    facts = with_packages(facts, "\n".join(f"{name} {'580.178.04-1' if 'nvidia' in name else '6.1'}" for name in wanted))
    decided = decide(facts)
    assert item(decided, "driver/packages").state == OK
    assert item(decided, "driver/module").state == CHANGE


def test_the_module_is_loaded_by_the_name_it_has_in_the_kernel():
    action = item(decide(with_gpus(machine("debian 12"), HOPPER), source="distro"), "driver/module").action
    assert action == KernelModule(("nvidia", "nvidia-uvm"), unload=("nouveau",))


def test_nouveau_in_the_ramdisk_would_be_back_at_the_next_boot():
    facts = with_gpus(machine("debian 12"), HOPPER, nvidia=Nvidia(nouveau_loaded=True))
    decided = decide(facts)
    assert item(decided, "driver/initramfs").action.change == "update-initramfs -u"
    order = [i.id for i in decided.items]
    assert order.index("driver/nouveau") < order.index("driver/initramfs") < order.index("driver/module")
    assert "driver/initramfs" not in [i.id for i in decide(with_gpus(machine("debian 12"), HOPPER)).items]


def test_a_driver_left_alone_by_the_playbook_is_no_change_and_is_said():
    decided = decide(with_gpus(with_docker(machine()), HOPPER), install="never")
    assert decided.decisions["driver"].action == "skip"
    assert any(n.id == "driver/none" for n in decided.notices)
    assert item(decided, "smoke/container").action.gpus == 0
    assert "without GPUs" in item(decided, "smoke/container").why


def test_an_unpacked_tree_tells_of_its_driver_by_the_module_it_names():
    facts = replace(
        with_gpus(machine(), HOPPER, nvidia=Nvidia(loaded="580.126.20", loaded_open=True)), live=False, systemd=None, units={}
    )
    decided = decide(facts)
    assert decided.decisions["driver"].action == "keep"
    assert chosen(decided)[:2] == ("580", "open")


def test_a_tree_without_a_bus_leaves_the_gpu_to_the_running_machine_unless_one_is_required():
    tree = replace(machine(), nvidia_pci=None, live=False, systemd=None, units={})
    decided = decide(tree)
    assert decided.problems == ()
    assert decided.decisions["driver"].action == "skip"
    assert any("running machine" in n.message for n in decided.notices)
    assert ids(decide(tree, gpu="required")) == ["driver/unknown"]


def test_a_tree_without_apt_sources_still_gets_its_driver_decided():
    tree = replace(
        with_gpus(machine("debian 12"), HOPPER), live=False, apt_sources=(), apt_source_texts={}, systemd=None, units={}
    )
    decided = decide(tree)
    assert decided.problems == ()
    assert chosen(decided) == ("580", "open", "cuda")
    assert item(decided, "driver/components").state == LATER


# ---------------------------------------------------------------- beside the driver


def test_a_machine_with_switches_gets_a_fabric_manager_of_exactly_the_drivers_version():
    decided = decide(with_gpus(machine("debian 12"), HOPPER, "2335", SWITCH))
    newest = CATALOG.branch("580").newest_release
    assert decided.decisions["fabricmanager"].action == "install"
    wanted = {p.name: p.version for i in decided.items if i.kind == "packages" and i.action for p in i.action.install}
    assert wanted["nvidia-fabricmanager"] == wanted["nvidia-driver-cuda"] == f"{newest}-*"


def test_b200_have_switches_that_are_not_on_the_bus():
    decided = decide(with_gpus(machine("debian 12"), BLACKWELL, BLACKWELL))
    assert "nvlsm" in decided.decisions["fabricmanager"].details["packages"]
    newest = CATALOG.branch("580").newest_release
    assert dict(item(decided, "driver/packages").expected)["nvidia-driver-cuda"] == f"{newest}-*"


def test_a_fabric_manager_of_another_version_is_brought_to_the_drivers():
    facts = working(with_gpus(machine("debian 12"), HOPPER, SWITCH))
    facts = with_packages(facts, "nvidia-driver-cuda 580.126.20-1\nnvidia-fabricmanager 580.95.05-1")
    decided = decide(facts)
    assert item(decided, "driver/fabricmanager").action.install[0].version == "580.126.20-*"
    assert item(decided, "driver/repository").state == CHANGE
    right = with_packages(facts, "nvidia-fabricmanager 580.126.20-1")
    right = replace(right, units={**right.units, **unit("nvidia-fabricmanager.service")})
    assert decide(right).decisions["fabricmanager"].action == "keep"
    assert item(decide(right), "driver/fabricmanager-service").state == OK


def test_the_persistence_daemon_is_started_where_it_is_installed_and_left_where_it_is_masked():
    host = working(with_gpus(with_docker(machine()), HOPPER))
    stopped = replace(host, units={**host.units, **unit("nvidia-persistenced.service", "inactive", "static")})
    assert item(decide(stopped), "driver/persistenced").state == CHANGE
    masked = replace(host, units={**host.units, **unit("nvidia-persistenced.service", "inactive", "masked", "masked")})
    assert "driver/persistenced" not in [i.id for i in decide(masked).items]


def test_a_gpu_host_in_order_is_left_alone():
    facts = with_toolkit(working(with_gpus(with_docker(machine("debian 12")), HOPPER)), spec="580.126.20")
    states = {i.id: i.state for i in decide(facts).items}
    assert states["driver/packages"] == states["toolkit/packages"] == states["toolkit/cdi"] == OK
