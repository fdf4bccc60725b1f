"""Deciding what of an image is made now and what at its first boot; the machines of these tests are doubles (values), the scripts are real text."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision import firstboot, offline
from provision.actions import ON_BUS, Command, Enable, File, Reboot, Service, Smoke
from provision.catalog import Catalog
from provision.catalog import load as load_catalog
from provision.errors import Failed, UsageError
from provision.hardware import SWITCH_CLASS, devices
from provision.model import CHANGE, LATER, OK, Facts, Item, PathFact, Plan, Unit
from provision.plan import plan
from provision.spec import DockerSpec, SmokeSpec, Spec
from provision.transport import tree as trees
from provision.transport.tree import TreeTransport
from tests.effects import after
from tests.machines import CATALOG, machine

KERNEL = "6.12.48+deb13-cloud-amd64"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def a_tree(system: str = "debian 13", *words: str, **changes: object) -> Facts:
    """A fresh system's tree, with the GPUs that the words name."""
    facts = machine(system)
    facts = replace(facts, live=False, systemd=True, nvidia_pci=None, kernel=None, units={}, boot_id=None, host_time=None, kernels={KERNEL: False}, disks={})
    return offline.as_image(replace(facts, **changes), devices(words, CATALOG), None)  # type: ignore[arg-type]


def decided(facts: Facts, spec: Spec = Spec()) -> Plan:  # noqa: B008 - frozen
    now = offline.split(plan(facts, spec, CATALOG), facts)
    return firstboot.with_first_boot(now, facts, lock_wait=600, reboot=False)


def items(decided: Plan) -> dict[str, Item]:
    return {item.id: item for item in decided.items}


class TestWhatIsDoneNowAndWhatLater:
    def test_packages_files_and_sources_are_done_in_the_tree(self) -> None:
        found = items(decided(a_tree("debian 13", "l4"), Spec(docker=DockerSpec(users=("ada",)))))
        for name in ("docker/repository", "docker/packages", "docker/daemon.json", "docker/user/ada", "driver/packages", "driver/nouveau", "toolkit/packages"):
            assert found[name].state == CHANGE, name
        assert found["toolkit/device-rule"].state == CHANGE

    def test_what_needs_the_machine_is_left_for_the_first_boot_with_its_action(self) -> None:
        found = items(decided(a_tree("debian 13", "l4")))
        later = {name for name, item in found.items() if item.state == LATER}
        assert later == {"driver/module", "driver/persistenced", "toolkit/device-nodes", "toolkit/cdi", "docker/service", "smoke/container"}
        assert all(found[name].action is not None for name in later)

    def test_a_service_is_enabled_now_and_started_later(self) -> None:
        found = items(decided(a_tree()))
        assert found["docker/service-enabled"].action == Enable("docker.service")
        later = found["docker/service"].action
        assert isinstance(later, Service)
        assert not later.newer_than

    def test_a_service_that_starts_at_boot_already_is_left_alone(self) -> None:
        found = items(decided(a_tree(units={"docker.service": Unit("docker.service", "loaded", "", "enabled")})))
        assert found["docker/service-enabled"].state == OK

    def test_the_proof_counts_the_gpus_of_the_machine_that_boots(self) -> None:
        smoke = items(decided(a_tree("debian 13", "l4")))["smoke/container"].action
        assert isinstance(smoke, Smoke)
        assert smoke.gpus == ON_BUS

    def test_the_module_is_there_for_the_kernel_that_will_be_booted_not_for_the_one_that_runs_here(self) -> None:
        kernels = {"6.12.9+deb13-cloud-amd64": False, KERNEL: False, "6.12.5+deb13-cloud-amd64": False}
        found = items(decided(a_tree("debian 13", "l4", kernels=kernels)))["image/module"]
        assert isinstance(found.action, Command)
        assert found.action.env == (("KERNEL", KERNEL),)

    def test_nothing_is_said_of_a_reboot(self) -> None:
        assert decided(a_tree("debian 13", "l4")).reboot == "no"

    def test_without_a_gpu_said_it_is_a_docker_image_and_the_plan_tells(self) -> None:
        made = decided(a_tree())
        assert made.decisions["driver"].action == "skip"
        assert any("running machine" in notice.message for notice in made.notices)

    def test_a_gpu_that_is_required_must_be_said(self) -> None:
        made = decided(a_tree(), Spec(gpu="required"))
        assert any("--for-gpu" in problem.fix for problem in made.problems)

    def test_a_driver_for_a_tree_without_a_kernel_is_refused_with_the_remedy(self) -> None:
        made = decided(a_tree("debian 13", "l4", kernels={}, packages={}))
        assert "Install a kernel in the tree first" in made.problems[0].fix

    def test_a_step_that_wants_a_reboot_halfway_is_refused(self) -> None:
        facts = a_tree()
        item = Item("mine/boot", "mine", "reboot", CHANGE, "it must", action=Reboot("it must"), phase=15)
        made = offline.split(plan(facts, Spec(), CATALOG, [lambda *_: [item]]), facts)  # type: ignore[list-item]
        assert [problem.id for problem in made.problems] == ["image/reboot"]
        assert not made.changes

    def test_a_tree_without_systemd_is_refused_where_something_is_left(self) -> None:
        assert [p.id for p in decided(a_tree(systemd=False)).problems] == ["image/systemd"]
        assert not decided(a_tree(systemd=False), Spec(smoke=SmokeSpec(enabled=False))).problems


class TestTheFirstBoot:
    def test_its_program_is_the_same_before_and_after_the_work(self) -> None:
        facts = a_tree("debian 13", "l4")
        first = decided(facts)
        done = replace(after(first, facts), live=False, kernels={KERNEL: True})
        program, again = (items(made)["image/first-boot"].expected for made in (first, decided(done)))
        assert program == again

    def test_once_all_is_done_nothing_is_to_be_changed(self) -> None:
        facts = a_tree("debian 13", "l4")
        facts = replace(after(decided(facts), facts), live=False, kernels={KERNEL: True})
        facts = replace(after(decided(facts), facts), live=False)
        assert [item.id for item in decided(facts).changes] == []

    def test_there_is_none_where_only_services_start(self) -> None:
        found = items(decided(a_tree(), Spec(smoke=SmokeSpec(enabled=False))))
        assert not [name for name in found if name.startswith("image/")]

    def test_one_that_is_no_longer_needed_goes(self) -> None:
        old = {path: PathFact(path, "file", "0644", "0:0") for path in firstboot.PATHS}
        found = items(decided(a_tree(paths=old), Spec(smoke=SmokeSpec(enabled=False))))
        assert {item.action for item in found.values() if item.step == "image"} == {File(path, None) for path in firstboot.PATHS}

    def test_it_skips_what_is_about_gpus_where_there_is_none(self) -> None:
        text = firstboot.text(decided(a_tree("debian 13", "l4")), lock_wait=1, reboot=False)
        assert "first_boot 'driver/module driver/persistenced toolkit/device-nodes toolkit/cdi' no" in text

    @pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
    def test_every_shell_can_read_it(self, shell: str, tmp_path: Path) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"the program {shell} is missing")
        file = tmp_path / "first-boot"
        file.write_text(firstboot.text(decided(a_tree("debian 13", "l4")), lock_wait=1, reboot=True))
        done = subprocess.run([shell, *(["sh"] if shell == "busybox" else []), "-n", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_shellcheck_accepts_it_and_the_scripts_around_it(self, tmp_path: Path, checkout: Path) -> None:
        if shutil.which("shellcheck") is None:
            pytest.skip("the program shellcheck is missing")
        file = tmp_path / "first-boot"
        file.write_text(firstboot.text(decided(a_tree()), lock_wait=1, reboot=False))
        scripts = [str(checkout / "provision/scripts" / name) for name in ("room.sh", "image.sh", "actions/enable.sh")]
        done = subprocess.run(["shellcheck", "-s", "sh", str(file), *scripts], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


class TestTheGpuThatItIsFor:
    @pytest.mark.parametrize(
        ("word", "name"),
        [
            ("l4", "NVIDIA L4"),
            ("T4", "NVIDIA Tesla T4"),
            ("10de:27b8", "NVIDIA L4"),
            ("0x2237", "NVIDIA A10G"),
            ("aws:g6.xlarge", "NVIDIA L4"),
            ("aws:g5.48xlarge", "NVIDIA A10G"),
            ("azure:Standard_NC4as_T4_v3", "NVIDIA Tesla T4"),
            ("gcp:g2-standard-4", "NVIDIA L4"),
        ],
    )
    def test_it_is_named_by_model_id_or_instance_type(self, catalog: Catalog, word: str, name: str) -> None:
        assert catalog.gpu(devices([word], catalog)[0].device).name == name

    def test_a_generation_stands_for_one_of_its_gpus(self, catalog: Catalog) -> None:
        assert catalog.gpu(devices(["hopper"], catalog)[0].device).generation == "hopper"

    def test_l4_is_not_l40(self, catalog: Catalog) -> None:
        assert devices(["l4"], catalog)[0].device != devices(["l40"], catalog)[0].device

    def test_an_instance_with_switches_gets_them_and_so_a_fabric_manager(self, catalog: Catalog) -> None:
        found = devices(["aws:p5.48xlarge"], catalog)
        assert sum(device.is_gpu for device in found) == 8
        assert [catalog.is_nvswitch(device.device) for device in found if device.pci_class == SWITCH_CLASS] == [True]

    @pytest.mark.parametrize("word", ["", "l5", "10de:ffff", "nvidia", "aws:m5.large", "aws:g4ad.xlarge", "aws:g6f.large", "10de:27b8; reboot"])
    def test_anything_else_is_refused_with_examples(self, catalog: Catalog, word: str) -> None:
        with pytest.raises(UsageError) as refused:
            devices([word], catalog)
        assert "aws:g6.xlarge" in refused.value.fix

    def test_the_examples_of_the_page_are_gpus(self, catalog: Catalog, checkout: Path) -> None:
        page = (checkout / "docs/baking.md").read_text().partition("| Word | Example |")[2].partition("\n\n")[0]
        words = [word.strip('"') for word in re.findall(r"`([^`]+)`", page)]
        assert len(words) > 6
        for word in words:
            assert devices([word], catalog), word

    def test_every_model_of_the_table_of_instance_types_is_a_known_gpu(self, catalog: Catalog) -> None:
        for model in {model for group in catalog._read("instances")["model"] for _, model in group["rows"]}:
            assert catalog.gpu(devices([model], catalog)[0].device).name.startswith("NVIDIA")


class TestWhatIsNoTree:
    @pytest.fixture(autouse=True)
    def _as_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A double: whoever runs the tests is root in the eyes of the check."""
        monkeypatch.setattr(trees.os, "geteuid", lambda: 0)

    def test_who_is_not_root_is_told_to_be(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(trees.os, "geteuid", lambda: 1000)
        with pytest.raises(Failed, match="needs root"):
            TreeTransport(str(tmp_path))

    def test_this_machine_itself_is_no_image(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/")
        for root in ("/", "/etc/..", str(tmp_path / "link")):
            with pytest.raises(UsageError, match="this machine itself"):
                TreeTransport(root)

    def test_a_folder_that_is_no_system_is_named_with_what_it_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="it has no usr"):
            TreeTransport(str(tmp_path))
        for part in ("usr", "etc", "var", "dev"):
            (tmp_path / part).mkdir()
        with pytest.raises(UsageError, match="it has no etc/os-release"):
            TreeTransport(str(tmp_path))

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a directory"):
            TreeTransport(str(tmp_path / "nothing"))


class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["setup", "--for-gpu", "l4"], "--for-gpu belongs to --root"),
            (["setup", "--arch", "aarch64", "gpu-7"], "--arch belongs to --root"),
            (["setup", "--root", "/tmp", "gpu-7"], "exclude each other"),
            (["plan", "--bake"], "--bake belongs to --root"),
            (["plan", "--root", "/tmp", "--for-gpu", "l4"], "--for-gpu belongs to --bake"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(self, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
        from provision.cli import main

        assert main(words) == 2
        assert says in capsys.readouterr().err
