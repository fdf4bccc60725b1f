"""GPUs that are divided into MIG devices: what is read of them, what the plan says, and what the proof compares.

The listings are the driver's own, from public pages, with the blanks that each driver's age puts between the words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from provision.capture import split
from provision.facts.nvidia import driver
from provision.facts.text import pairs
from provision.model import CHANGE, OK, REFUSED, Facts, Item, Plan, Section
from provision.plan import plan
from provision.spec import Spec
from provision.steps import smoke
from tests.captures_gpus import GPU, H100, OTHER
from tests.effects import after
from tests.machines import CATALOG, machine, with_docker, with_gpus, with_toolkit, working
from tests.test_steps_smoke import SHELLS

# github.com/DicardoX/Oh_My_TensorRT_ToolKit: driver 460, where a MIG device was named after its GPU.
OLD = """GPU 0: A100-PCIE-40GB (UUID: GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23)
  MIG 4g.20gb Device 0: (UUID: MIG-GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23/2/0)
  MIG 2g.10gb Device 1: (UUID: MIG-GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23/3/0)
  MIG 1g.5gb Device 2: (UUID: MIG-GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23/9/0)
"""
OTHER_LISTED = f"GPU 1: NVIDIA H100 NVL (UUID: {OTHER})\n"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    if not shutil.which(SHELLS[request.param][0]):
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


def sections(query: str, listing: str = "") -> dict[str, Section]:
    return {"nvidia_smi": Section(0, query), **({"nvidia_mig": Section(0, listing)} if listing else {})}


def test_mig_devices_belong_to_the_gpu_above_them() -> None:
    query = f"0, {GPU}, NVIDIA H100 NVL, 00000000:17:00.0, 580.105.08, Enabled\n1, {OTHER}, NVIDIA H100 NVL, 00000000:65:00.0, 580.105.08, Disabled\n"
    read = driver(sections(query, H100 + OTHER_LISTED), frozenset())
    assert [(g.uuid, g.name, g.bus_id, g.mig, len(g.mig_devices)) for g in read.gpus] == [
        (GPU, "NVIDIA H100 NVL", "00000000:17:00.0", True, 4),
        (OTHER, "NVIDIA H100 NVL", "00000000:65:00.0", False, 0),
    ]
    assert read.gpus[0].mig_devices["MIG-dbf12406-b888-52e8-80ee-025b6412f6e4"] == "1g.12gb"
    assert read.driver_version == "580.105.08"


def test_the_names_of_drivers_before_470_are_read_too() -> None:
    query = "0, GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23, A100-PCIE-40GB, 00000000:17:00.0, 460.80, Enabled\n"
    devices = driver(sections(query, OLD), frozenset()).gpus[0].mig_devices
    assert list(devices.values()) == ["4g.20gb", "2g.10gb", "1g.5gb"]
    assert "MIG-GPU-9de3d0e8-33f5-10dc-0c79-2c88a7ab0a23/9/0" in devices


@pytest.mark.parametrize("last", [", [N/A]", ", [Not Supported]", ""])
def test_of_a_gpu_without_such_a_mode_nothing_is_said(last: str) -> None:
    read = driver(sections(f"0, {GPU}, Tesla T4, 00000000:17:00.0, 470.256.02{last}\n"), frozenset())
    assert (read.gpus[0].mig, read.gpus[0].name, read.gpus[0].bus_id, read.driver_version) == (None, "Tesla T4", "00000000:17:00.0", "470.256.02")


@pytest.mark.parametrize(("knows", "asked", "read"), [(True, 2, 4), (False, 2, 0)], ids=["a driver with MIG", "a driver before 450"])
def test_the_probe_lists_mig_devices_and_old_drivers_are_asked_without(tmp_path: Path, shell: list[str], knows: bool, asked: int, read: int) -> None:
    """The probe's own function, told that a driver is loaded; nvidia-smi is a double."""
    smi = tmp_path / "nvidia-smi"
    old = f"echo '0, {GPU}, NVIDIA H100 NVL, 00000000:17:00.0, 440.33'"
    new = f"echo '0, {GPU}, NVIDIA H100 NVL, 00000000:17:00.0, 580.105.08, Enabled'" if knows else (
        "echo 'Field \"mig.mode.current\" is not a valid field to query.'; exit 2"
    )
    smi.write_text(
        f'#!/bin/sh\n# a double\necho x >>"{tmp_path}/asked"\ncase "$*" in *,mig.mode.current*) {new} ;; -L) cat <<END\n{H100}END\n;; *) {old} ;; esac\n'
    )
    smi.chmod(0o755)
    text = (resources.files("provision") / "scripts/probe.sh").read_text(encoding="utf-8")
    functions = text.rpartition("\nmain ")[0].replace("/proc/driver/nvidia/version", str(smi))
    script = f"{functions}\nMARK=m GPU=1 P_smi={smi} P_timeout='' P_modinfo='' P_ctk=''\nPATH={tmp_path}:$PATH\nemit probe 0 ''\ndriver\nemit end 0 ''\nflush\n"
    done = subprocess.run([*shell, "-s"], input=script.encode(), capture_output=True, timeout=60, check=False)
    gpus = driver(split(done.stdout, "m"), frozenset()).gpus
    assert [(g.uuid, len(g.mig_devices)) for g in gpus] == [(GPU, read)], done
    assert (tmp_path / "asked").read_text().count("x") == asked


# ---------------------------------------------------------------- the plan


def divided(*devices: dict[str, str]) -> Facts:
    """A working host with a GPU for each of `devices`, all with MIG on."""
    facts = with_toolkit(working(with_gpus(with_docker(machine(), version="5:29.7.2-1~x"), *(["2331"] * len(devices)))), spec="580.126.20")
    assert facts.nvidia is not None
    gpus = tuple(replace(gpu, name="NVIDIA H100 PCIe", mig=True, mig_devices=parts) for gpu, parts in zip(facts.nvidia.gpus, devices))
    return replace(facts, nvidia=replace(facts.nvidia, gpus=gpus))


FOUR = {f"MIG-{n}": "2g.24gb" for n in range(4)}


def item(decided: Plan) -> Item:
    return next(i for i in decided.items if i.step == "smoke")


def test_the_plan_tells_of_gpus_and_of_mig_devices() -> None:
    decided = plan(divided(FOUR), Spec(), CATALOG)
    assert decided.decisions["driver"].why == "driver 580.126.20 works with 1 GPU and its 4 MIG devices"
    assert item(decided).why == "to prove that nvidia-smi in a container sees 1 GPU and its 4 MIG devices"
    assert not decided.notices


def test_mig_without_a_device_leaves_cuda_nothing_and_is_refused_with_both_remedies() -> None:
    decided = plan(divided({}, {}), Spec(), CATALOG)
    problem = next(p for p in decided.problems if p.id == "smoke/mig")
    assert problem.message == "MIG is on, but there is no MIG device, on GPU 0 (NVIDIA H100 PCIe), GPU 1 (NVIDIA H100 PCIe): CUDA finds nothing there."
    assert "nvidia-smi mig -i 0 -cgi PROFILE -C" in problem.fix
    assert "nvidia-smi -i 0 -mig 0" in problem.fix
    assert item(decided).state == REFUSED


def test_one_gpu_without_a_mig_device_beside_a_usable_one_is_told_and_not_expected_in_a_container() -> None:
    decided = plan(divided(FOUR, {}), Spec(), CATALOG)
    assert not decided.problems
    assert any(n.id == "driver/mig" and "GPU 1 (NVIDIA H100 PCIe): CUDA finds nothing there" in n.message for n in decided.notices)
    assert item(decided).why == "to prove that nvidia-smi in a container sees 1 GPU and its 4 MIG devices"


def proved(facts: Facts) -> Facts:
    made = after(plan(facts, Spec(), CATALOG), facts)
    assert plan(made, Spec(), CATALOG).converged
    return made


def test_a_proof_falls_with_the_number_of_mig_devices_whichever_way_it_changes() -> None:
    made = proved(divided(FOUR))
    assert made.proof["mig"] == "4"
    for now in ({"MIG-1": "3g.47gb"}, {}):
        fewer = replace(made, nvidia=divided(now).nvidia)
        assert item(plan(fewer, Spec(), CATALOG)).state != OK
    whole = replace(made, nvidia=working(made).nvidia)
    assert item(plan(whole, Spec(), CATALOG)).state == CHANGE


# ---------------------------------------------------------------- the proof (the script's own functions; nvidia-smi and docker are doubles)

SMI = """#!/bin/sh
# A double for tests: it prints what a test has put beside it.
case "$*" in
    *query-gpu=uuid,mig*) [ -e "$DOUBLE/modes" ] || { echo 'Field "mig.mode.current" is not a valid field to query.'; exit 2; }; cat "$DOUBLE/modes" ;;
    *query-gpu=uuid*) cat "$DOUBLE/uuids" ;;
    *query-gpu=driver_version,mig*) [ -e "$DOUBLE/modes" ] || exit 2; sed 's/.*,/580.126.20,/' "$DOUBLE/modes" ;;
    *query-gpu=driver_version*) echo 580.126.20 ;;
    -L) cat "$DOUBLE/list" ;;
    *) exit 99 ;;
esac
"""
DOCKER = """#!/bin/sh
# A double for tests: a container prints what a test has put into `inside`, or fails with what is in `fails`.
case "$*" in
    version*) echo 29.7.2 ;;
    'image inspect'*) echo sha256:0 ;;
    run*-L) [ ! -e "$DOUBLE/fails" ] || { cat "$DOUBLE/fails" >&2; exit 125; }; cat "$DOUBLE/inside" ;;
    run*) [ ! -e "$DOUBLE/fails" ] || { cat "$DOUBLE/fails" >&2; exit 125; }; sed -n 's/.*UUID: \\(GPU-[^)]*\\).*/\\1/p' "$DOUBLE/inside" ;;
    *) exit 99 ;;
esac
"""


def prove(folder: Path, shell: list[str], count: int, **files: str) -> tuple[int, str, dict[str, str]]:
    """Exit code, what was said, and the proof."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in {"nvidia-smi": SMI, "docker": DOCKER, "nvidia-ctk": "#!/bin/sh\n# a double\n"}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "work").mkdir()
    scripts = resources.files("provision") / "scripts"
    prelude = "\n".join((scripts / name).read_text(encoding="utf-8") for name in ("prelude.sh", "actions/smoke.sh"))
    script = (
        f"{prelude}\nWORK={folder}/work ITEM=smoke RUN=x STATE={folder} MLHOST_EVENTS={folder}/events\n"
        f'smoke_prove lab/x:1 {count} gpus; rc=$?; [ "$rc" = 0 ] || cat "$WORK/why"; exit "$rc"\n'
    )
    env = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "MLHOST_ROOT": str(folder / "root"), "DOUBLE": str(folder)}
    done = subprocess.run([*shell, "-s"], input=script, capture_output=True, text=True, timeout=120, check=False, env=env)
    proof = folder / "proof"
    events = (folder / "events").read_text() if (folder / "events").exists() else ""
    return done.returncode, done.stdout + events, pairs(proof.read_text()) if proof.exists() else {}


def test_the_proof_compares_gpus_and_mig_devices(tmp_path: Path, shell: list[str]) -> None:
    code, said, proof = prove(tmp_path, shell, 1, modes=f"{GPU}, Enabled\n", list=H100, inside=H100)
    assert (code, proof["gpus"], proof["mig"], len(proof["uuids"].split(","))) == (0, "1", "4", 5), said
    facts = divided(FOUR)
    wanted = smoke.inputs(facts, smoke.Smoke("lab/x:1", 1, "gpus"))
    assert {key: proof.get(key) for key in wanted if key in ("image", "gpus", "request", "driver", "mig")} == {
        key: wanted[key] for key in ("image", "gpus", "request", "driver", "mig")
    }, "the planner means the same"


def test_a_container_that_sees_fewer_mig_devices_proves_nothing_and_the_remedy_is_named(tmp_path: Path, shell: list[str]) -> None:
    fewer = "".join(H100.splitlines(keepends=True)[:3])
    code, said, _ = prove(tmp_path, shell, 1, modes=f"{GPU}, Enabled\n", list=H100, inside=fewer)
    assert code == 1
    assert "the container sees 1 of the host's 1 GPUs and 2 of its 4 MIG devices" in said
    assert "systemctl restart nvidia-cdi-refresh.service" in said


def test_mig_without_any_device_is_named_before_a_container_is_tried(tmp_path: Path, shell: list[str]) -> None:
    alone = H100.splitlines(keepends=True)[0]
    code, said, _ = prove(tmp_path, shell, 1, modes=f"{GPU}, Enabled\n", list=alone, inside=alone)
    assert code == 1
    assert f"MIG is on, but there is no MIG device, on {GPU}: CUDA finds nothing there" in said
    assert "nvidia-smi mig -cgi PROFILE -C" in said


@pytest.mark.parametrize("seen", [H100, H100 + OTHER_LISTED], ids=["as a container leaves it out", "as it might be listed"])
def test_a_gpu_without_a_mig_device_is_not_expected_in_the_container(tmp_path: Path, shell: list[str], seen: str) -> None:
    modes = f"{GPU}, Enabled\n{OTHER}, Enabled\n"
    code, said, proof = prove(tmp_path, shell, 2, modes=modes, list=H100 + OTHER_LISTED, inside=seen)
    assert (code, proof["mig"]) == (0, "4"), said
    assert OTHER not in proof["uuids"]
    assert f"no MIG device, on {OTHER}" in said


def test_where_mig_is_off_or_unknown_gpus_alone_are_compared(tmp_path: Path, shell: list[str]) -> None:
    alone = H100.splitlines(keepends=True)[0]
    code, said, proof = prove(tmp_path, shell, 1, uuids=f"{GPU}\n", list=alone, inside=alone)
    assert (code, proof["uuids"], proof["driver"], proof.get("mig", "")) == (0, GPU, "580.126.20", ""), said


# The first line is Docker's of 2025 (github.com/MauriceNino/dashdot issue 1226), then those of 2020 and 2018 (NVIDIA/nvidia-docker issues 1442, 536).
REFUSALS = {
    "cuda>=12.8": "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create failed: runc create "
    "failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected "
    "mode as 'legacy'\nnvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a newer version, or use an "
    "earlier cuda container: unknown\n",
    "cuda>=11.0": "docker: Error response from daemon: OCI runtime create failed: container_linux.go:370: starting container process caused: "
    "process_linux.go:459: container init caused: Running hook #0:: error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: requirement "
    "error: unsatisfied condition: cuda>=11.0, please update your driver to a newer version, or use an earlier cuda container: unknown.\n",
    "brand=tesla": 'docker: Error response from daemon: OCI runtime create failed: container_linux.go:345: starting container process caused "process_linux.go'
    ':424: container init caused \\"process_linux.go:407: running prestart hook 1 caused \\\\\\"error running hook: exit status 1, stdout: , stderr: exec '
    "command: [/usr/bin/nvidia-container-cli --load-kmods configure]\\\\\\\\nnvidia-container-cli: requirement error: unsatisfied condition: brand = tesla"
    '\\\\\\\\n\\\\\\"\\"": unknown.\n',
}


@pytest.mark.parametrize("condition", REFUSALS)
def test_a_refusal_for_what_the_image_asks_for_is_put_into_plain_words(tmp_path: Path, shell: list[str], condition: str) -> None:
    alone = H100.splitlines(keepends=True)[0]
    code, said, _ = prove(tmp_path, shell, 1, modes=f"{GPU}, Disabled\n", list=alone, inside=alone, fails=REFUSALS[condition])
    assert code == 1
    assert f"lab/x:1 asks for {condition}, which driver 580.126.20 does not give: name an image for an older CUDA" in said
