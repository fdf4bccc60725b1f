"""NVIDIA's .run installer as the last resort: where it is chosen, what stands in its way, what becomes of the driver it brought."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provision.actions import Packages, Runfile
from provision.model import CHANGE, OK, Facts, Nvidia, PathFact, Plan, Reach
from provision.plan import plan
from provision.spec import DriverSpec, Mirrors, Spec
from tests.effects import after
from tests.machines import CATALOG, SWITCH, machine, unit, with_gpus, with_packages, working

K80, V100, H100, L4 = "102d", "1db5", "2330", "27b8"
DKMS = PathFact("/var/lib/dkms/nvidia", "dir", "0755", "root:root")


def decide(facts: Facts, mirrors: Mirrors | None = None, **driver: object) -> Plan:
    return plan(facts, Spec(driver=DriverSpec(**driver), mirrors=mirrors or Mirrors()), CATALOG)  # type: ignore[arg-type]


def chosen(decided: Plan) -> tuple[object, ...]:
    details = decided.decisions["driver"].details
    return details["branch"], details["flavor"], details["source"]


def ids(decided: Plan) -> list[str]:
    return [p.id for p in decided.problems]


def installer(decided: Plan) -> Runfile:
    action = next(i.action for i in decided.items if i.id == "driver/runfile")
    assert isinstance(action, Runfile)
    return action


def article() -> Facts:
    """The machine of the article: Ubuntu 16.04 and a K80."""
    return with_gpus(machine("ubuntu 16.04"), K80)


@pytest.mark.parametrize(
    ("system", "device", "expected"),
    [
        ("ubuntu 16.04", K80, ("470", "proprietary", "runfile")),
        ("ubuntu 16.04", V100, ("470", "proprietary", "runfile")),
        ("rocky 10", H100, ("580", "open", "runfile")),
        ("rocky 10", V100, ("580", "proprietary", "runfile")),
        ("fedora 43", L4, ("580", "open", "runfile")),
        ("fedora 44", V100, ("580", "proprietary", "runfile")),
        ("debian 11", L4, ("580", "open", "runfile")),
        ("amazon 2", L4, ("580", "open", "runfile")),
        ("amazon 2", V100, ("580", "proprietary", "runfile")),
        ("amazon 2", K80, ("470", "proprietary", "runfile")),
        # packages come first
        ("debian 11", "1eb8", ("470", "proprietary", "distro")),
        ("fedora 44", L4, ("615", "open", "cuda")),
        ("debian 12", K80, ("470", "proprietary", "distro")),
        ("rhel 8", K80, ("470", "proprietary", "cuda")),
    ],
)
def test_it_is_chosen_only_where_no_repository_has_the_branch(system, device, expected):
    decided = decide(with_gpus(machine(system), device))
    assert decided.problems == ()
    assert chosen(decided) == expected
    assert [i.id for i in decided.items if i.kind == "runfile"] == (["driver/runfile"] if expected[2] == "runfile" else [])


def test_the_articles_machine_gets_a_pinned_file_its_build_tools_and_headers_and_keeps_nouveau_away_first():
    decided = decide(replace(article(), nvidia=Nvidia(nouveau_loaded=True)))
    action = installer(decided)
    assert action.url == "https://us.download.nvidia.com/XFree86/Linux-x86_64/470.256.02/NVIDIA-Linux-x86_64-470.256.02.run"
    assert action.sha256 == "d6451862deb695bb0447f3b7cd6268f73e81168c10e2c10597ff3fa01349b1de"
    order = [i.id for i in decided.items]
    steps = ["driver/nouveau", "driver/packages", "driver/initramfs", "driver/runfile", "driver/module", "smoke/container"]
    assert [name for name in order if name in steps] == steps
    packages = next(i.action for i in decided.items if i.id == "driver/packages")
    assert isinstance(packages, Packages)
    assert {"dkms", "gcc", "make", "linux-headers-4.4.0-210-generic"} <= {p.name for p in packages.install}
    assert "https://us.download.nvidia.com/XFree86/Linux-x86_64/latest.txt" in decided.urls


def test_the_persistence_daemon_that_it_brings_gets_a_unit_and_is_started_at_every_boot():
    decided = decide(article())
    file, service = (next(i.action for i in decided.items if i.id == f"driver/{name}") for name in ("persistenced-unit", "persistenced"))
    assert file.path == "/etc/systemd/system/nvidia-persistenced.service"
    assert (service.enabled, service.optional) == (True, False)
    masked = replace(article(), units=unit("nvidia-persistenced.service", "inactive", "masked", "masked"))
    assert not any(i.id.startswith("driver/persistenced") for i in decide(masked).items), "somebody does not want it"


def test_the_flavour_is_told_to_the_installer_by_name():
    assert "--kernel-module-type=open" in installer(decide(with_gpus(machine("rocky 10"), H100))).options
    assert "--kernel-module-type=proprietary" in installer(decide(with_gpus(machine("rocky 10"), V100))).options
    assert not any("kernel-module-type" in option for option in installer(decide(article())).options), "470 has one kind of module"


def test_an_arm_server_gets_the_file_for_its_own_processor():
    action = installer(decide(with_gpus(machine("rocky 10", arch="aarch64", kernel="6.12.0-55.41.1.el10_0.aarch64"), H100)))
    assert action.url.endswith("/XFree86/aarch64/580.178.04/NVIDIA-Linux-aarch64-580.178.04.run")
    assert "--no-install-compat32-libs" not in action.options, "the option exists on x86_64 only, and an unknown one ends the installer"


def test_a_mirror_stands_in_for_the_vendor_and_the_checksum_stays():
    decided = decide(article(), Mirrors(driver="https://mirror.example/nvidia/"))
    assert installer(decided).url == "https://mirror.example/nvidia/XFree86/Linux-x86_64/470.256.02/NVIDIA-Linux-x86_64-470.256.02.run"
    assert installer(decided).sha256 == installer(decide(article())).sha256
    assert not any("us.download" in url for url in decided.urls)


def test_a_vendor_that_cannot_be_reached_is_told_before_anything_is_changed():
    url = "https://us.download.nvidia.com/XFree86/Linux-x86_64/latest.txt"
    decided = decide(replace(article(), reach={url: Reach(url, "dns", "Could not resolve 'us.download.nvidia.com'")}))
    assert ids(decided) == ["preflight/reach"]


def test_secure_boot_is_refused_as_nothing_signs_a_module_that_is_built_here():
    decided = decide(replace(article(), secure_boot=True))
    assert ids(decided) == ["driver/secure-boot"]
    assert chosen(decided)[2] == "runfile"


def test_it_is_never_put_over_packages_of_a_driver():
    facts = with_packages(with_gpus(machine("fedora 43"), V100), "xorg-x11-drv-nvidia 580.119.02-1\nakmod-nvidia 580.119.02-1")
    for consent in (False, True):
        decided = decide(facts, replace=consent)
        assert "driver/runfile" in ids(decided)
        assert "xorg-x11-drv-nvidia" in decided.problems[0].message


def test_a_kernel_newer_than_it_is_known_to_build_for_is_no_case_for_it():
    facts = with_packages(replace(article(), kernel="6.10.0-1-generic"), "linux-image-6.10.0-1-generic 1.0")
    decided = decide(facts)
    assert ids(decided) == ["driver/source"]
    assert "470.256.02 is not known to build for kernel 6.10.0-1-generic" in decided.problems[0].message
    assert "not known to build" not in decide(with_gpus(machine("rocky 10"), K80)).problems[0].message, "580 never served it"


def test_asking_for_it_by_name_does_not_bring_it_where_packages_serve():
    assert ids(decide(with_gpus(machine("debian 12"), H100), source="runfile")) == ["driver/source"]
    assert chosen(decide(article(), source="runfile")) == ("470", "proprietary", "runfile")
    assert ids(decide(article(), source="distro")) == ["driver/source"]


def test_a_machine_with_nvswitch_is_refused_as_no_fabric_manager_comes_with_it():
    decided = decide(with_gpus(machine("rocky 10"), H100, H100, SWITCH))
    assert ids(decided) == ["driver/fabricmanager"]


# ---------------------------------------------------------------- what is there afterwards


def installed(version: str = "470.256.02", **nvidia: object) -> Facts:
    facts = with_packages(article(), "dkms 2.2\ngcc 5.4\nmake 4.1\nlibc6-dev 2.23\nlinux-headers-4.4.0-210-generic 4.4\nlinux-headers-generic 4.4")
    state: dict[str, object] = {"on_disk": version, "installed_by_runfile": True, **nvidia}
    return replace(facts, nvidia=Nvidia(**state), paths={DKMS.path: DKMS})  # type: ignore[arg-type]


def test_after_the_reboot_in_the_middle_it_is_not_run_again():
    decided = decide(installed())
    assert decided.problems == ()
    states = {i.id: i.state for i in decided.items}
    assert (states["driver/runfile"], states["driver/packages"], states["driver/module"]) == (OK, OK, CHANGE)


def test_another_version_of_somebody_else_is_not_replaced():
    assert ids(decide(installed("460.32.03"))) == ["driver/runfile"]


def test_a_new_kernel_without_its_module_gets_one_by_the_same_installer():
    assert installer(decide(installed(""))).version == "470.256.02"


def test_the_driver_it_brought_is_kept_and_guarded_by_dkms():
    facts = working(installed(), "470.256.02", is_open=False, installed_by_runfile=True)
    decided = decide(facts)
    states = {i.id: (i.state, i.why) for i in decided.items}
    assert chosen(decided)[2] == "runfile"
    assert states["driver/drift"][0] == OK
    assert "DKMS builds the module for every new kernel" in states["driver/drift"][1]


def test_one_that_dkms_does_not_know_of_is_kept_and_the_doubt_is_said():
    facts = replace(working(installed(), "470.256.02", is_open=False, installed_by_runfile=True), paths={})
    decided = decide(facts)
    assert not any(i.id == "driver/drift" for i in decided.items)
    assert any("was not installed from packages" in n.message for n in decided.notices)


def test_holding_kernel_and_driver_holds_the_kernel_alone():
    decided = decide(article(), drift="hold")
    hold = next(i for i in decided.items if i.id == "driver/drift")
    assert hold.kind == "hold"
    assert "linux-image-generic" in hold.expected
    assert not {"gcc", "make", "dkms"} & set(hold.expected)


def test_once_carried_out_nothing_is_left_to_do():
    for system, device in (("ubuntu 16.04", K80), ("rocky 10", H100), ("fedora 43", L4)):
        facts = with_gpus(machine(system), device, nvidia=Nvidia(nouveau_loaded=True))
        decided = decide(facts)
        assert plan(after(decided, facts), Spec(), CATALOG).converged, system


def test_the_old_toolkits_holes_are_told_where_no_newer_one_exists():
    decided = decide(article())
    (notice,) = [n for n in decided.notices if n.id == "toolkit/insecure"]
    assert "1.12.0 is the last that NVIDIA published for Ubuntu 16.04" in notice.message
