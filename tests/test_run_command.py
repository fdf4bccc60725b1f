"""`mlhost run` decided: machines as the look shows them, requests as people type them, and the docker command that comes of both."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision.cudafit import ImageConfig
from provision.dockrun import compose, ends, gpus
from provision.dockrun.machine import Engine, Gpu, Image, Machine, parse
from provision.dockrun.request import Request, Settings, Volume, env_file, settings, variable, volume
from provision.errors import Error, Failed, UsageError
from provision.launch.look import LocalDisk
from provision.model import Section
from provision.shipped import shipped
from tests.test_run_paths import DISK

A, B = Gpu("0", "NVIDIA A10G", "GPU-aaaa1111"), Gpu("1", "NVIDIA A10G", "GPU-bbbb2222")
PARTED = Gpu("0", "NVIDIA H100", "GPU-cccc3333", (("0", "1g.10gb", "MIG-dddd4444"), ("1", "3g.40gb", "MIG-eeee5555")))
CDI = Engine("29.7.2", runtimes=("runc", "nvidia"), cdi=("0", "1", "GPU-aaaa1111", "GPU-bbbb2222", "all"), memory=64 << 30, arch="x86_64")
LEGACY = replace(CDI, version="20.10.24", cdi=())
IMAGE = Image("sha256:" + "ab" * 32, {}, {}, "amd64")
ADA = Machine("Linux", "x86_64", 1000, 1000, (1000, 999, 44), "ada", "/home/ada", "/home/ada/.cache/mlhost/run", CDI, image=IMAGE, pci=0)
WITH_GPUS = replace(ADA, gpus=(A, B), driver="580.126.20", hook=True, pci=2)
REQUEST = Request("img", ("python", "train.py", "--data=/data/faces"), "/home/ada/proj")


def made(request: Request = REQUEST, machine: Machine = ADA, **more: Any) -> compose.Command:
    return compose.compose(request, machine, DISK, **more)


def option(command: compose.Command, name: str) -> list[str]:
    """The values of an option of docker's."""
    return [value for word, value in zip(command.argv, command.argv[1:]) if word == name]


def environment(command: compose.Command) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in option(command, "--env"))


class TestTheCommand:
    def test_it_is_removed_runs_as_the_caller_and_where_the_caller_is(self) -> None:
        command = made()
        assert command.argv[:3] == ["docker", "run", "--rm"]
        assert option(command, "--user") == ["1000:1000"]
        assert option(command, "--group-add") == ["999", "44"]
        assert option(command, "--workdir") == ["/host/home/ada/proj"]
        assert "type=bind,source=/,target=/host" in option(command, "--mount")
        assert command.argv[-4:] == ["img", "python", "train.py", "--data=/host/data/faces"]

    def test_every_part_has_a_reason(self) -> None:
        assert all(part.why for part in made(machine=WITH_GPUS).parts)
        text = compose.shown(made(), explain=True)
        assert text.count("#     ") == len(made().parts)
        assert "/data/faces is there on this machine" in text

    def test_what_is_printed_is_the_very_command(self) -> None:
        request = replace(REQUEST, command=("sh", "-c", "echo 'a b' > \"$X\"", "", "ü"))
        text = compose.shown(made(request))
        assert subprocess.run(["sh", "-c", f"docker() {{ printf '%s\\0' docker \"$@\"; }}; {text}"], capture_output=True, text=True, check=True).stdout.split("\0")[:-1] == made(request).argv

    def test_python_speaks_at_once_and_cuda_kernels_are_kept(self) -> None:
        env = environment(made())
        assert env["PYTHONUNBUFFERED"] == "1"
        assert env["CUDA_CACHE_PATH"] == "/mlhost/cuda"
        assert "type=bind,source=/home/ada/.cache/mlhost/run,target=/mlhost" in option(made(), "--mount")

    def test_the_caller_has_a_home_a_name_and_an_account(self) -> None:
        env = environment(made())
        assert (env["HOME"], env["USER"], env["LOGNAME"]) == ("/mlhost/home", "ada", "ada")
        stem = made().accounts
        assert stem == f"/home/ada/.cache/mlhost/run/accounts/{'ab' * 8}-1000-1000"
        assert f"type=bind,source={stem}.passwd,target=/etc/passwd,readonly" in option(made(), "--mount")

    def test_the_tree_alone_is_at_the_same_place(self) -> None:
        command = made(replace(REQUEST, settings=Settings(mount="tree")))
        assert "type=bind,source=/home/ada/proj,target=/host/home/ada/proj" in option(command, "--mount")
        assert not any("source=/," in value for value in option(command, "--mount"))
        assert option(command, "--workdir") == ["/host/home/ada/proj"]
        assert command.argv[-1] == "--data=/data/faces"
        assert "add -v /data/faces" in command.notes[0]

    def test_a_volume_is_mounted_and_its_paths_translated(self) -> None:
        command = made(replace(REQUEST, settings=Settings(mount="tree"), volumes=(Volume("/data/faces", read_only=True),)))
        assert "type=bind,source=/data/faces,target=/host/data/faces,readonly" in option(command, "--mount")
        assert command.argv[-1] == "--data=/host/data/faces"

    def test_the_whole_machine_as_a_tree_is_refused(self) -> None:
        with pytest.raises(UsageError, match="whole machine"):
            made(replace(REQUEST, cwd="/", settings=Settings(mount="tree")))

    @pytest.mark.parametrize("path", ["/data/a,b", '/data/"x"', "/data/a=b", "/data/a b", "/data/ü:y"])
    def test_any_path_can_be_mounted(self, path: str) -> None:
        import csv

        fields = dict(field.split("=", 1) for field in next(csv.reader([compose.mount(path, f"/host{path}")])))
        assert fields == {"type": "bind", "source": path, "target": f"/host{path}"}

    def test_nothing_is_translated_where_that_is_not_wanted(self) -> None:
        assert made(replace(REQUEST, translate=False)).argv[-1] == "--data=/data/faces"

    def test_a_terminal_is_one_only_where_there_is_one(self) -> None:
        assert "--tty" not in made().argv
        both = made(replace(REQUEST, terminal=True, environment={"TERM": "xterm-256color"}))
        assert {"--tty", "--interactive"} <= set(both.argv)
        assert "TERM" in option(both, "--env")
        assert "--interactive" not in made(replace(REQUEST, input=False)).argv

    def test_an_engine_without_an_init_is_not_asked_for_one(self) -> None:
        assert "--init" in made().argv
        assert "--init" not in made(machine=replace(ADA, engine=replace(CDI, init=False))).argv

    def test_shared_memory_is_half_the_memory_unless_said_otherwise(self) -> None:
        assert option(made(), "--shm-size") == ["32768m"]
        assert option(made(replace(REQUEST, settings=Settings(shm_size="8g"))), "--shm-size") == ["8g"]
        host = made(replace(REQUEST, settings=Settings(ipc="host", shm_size="8g")))
        assert (option(host, "--ipc"), option(host, "--shm-size")) == (["host"], [])


class TestWhoseFilesTheyAre:
    def test_rootless_docker_makes_root_inside_the_caller_outside(self) -> None:
        command = made(machine=replace(ADA, engine=replace(CDI, rootless=True)))
        assert option(command, "--user") == ["0:0"]
        assert not option(command, "--group-add")
        assert command.accounts == ""

    def test_a_renumbering_engine_is_told_not_to(self) -> None:
        assert option(made(machine=replace(ADA, engine=replace(CDI, remapped=True))), "--userns") == ["host"]

    def test_selinux_is_told_that_the_files_are_meant(self) -> None:
        assert option(made(machine=replace(ADA, engine=replace(CDI, selinux=True))), "--security-opt") == ["label=disable"]

    def test_root_stays_root(self) -> None:
        command = made(machine=Machine(engine=CDI, image=IMAGE))
        assert option(command, "--user") == ["0:0"]
        assert command.accounts == ""


class TestOnAMac:
    MAC = replace(ADA, system="Darwin", arch="arm64", uid=501, gid=20, groups=(20, 12, 61), home="/Users/ada", cache="/Users/ada/.cache/mlhost/run", pci=None)

    def test_its_own_folders_are_mounted_and_there_is_no_gpu(self) -> None:
        command = made(replace(REQUEST, cwd="/Users/ada/proj"), self.MAC)
        assert {f"type=bind,source={f},target=/host{f}" for f in ("/Users", "/Volumes", "/private")} <= set(option(command, "--mount"))
        assert option(command, "--workdir") == ["/host/Users/ada/proj"]
        assert option(command, "--user") == ["501:20"]
        assert not {"--gpus", "--device", "--group-add", "--runtime=nvidia"} & set(command.argv)

    def test_a_folder_that_docker_cannot_show_is_refused(self) -> None:
        with pytest.raises(UsageError, match="not among"):
            made(replace(REQUEST, cwd="/opt/proj"), self.MAC)

    def test_asking_for_one_gpu_is_refused_and_for_all_told(self) -> None:
        with pytest.raises(UsageError, match="Mac"):
            gpus.give("device=0", self.MAC)
        assert "CPU" in gpus.give("all", self.MAC).notes[0]


# How GPUs are asked for: what is wanted, the machine, and docker's words.
WAYS: dict[str, tuple[str, Machine, list[str]]] = {
    "all by CDI": ("", WITH_GPUS, ["--device", "nvidia.com/gpu=all"]),
    "said so": ("all", WITH_GPUS, ["--device", "nvidia.com/gpu=all"]),
    "none": ("none", WITH_GPUS, []),
    "no GPU": ("", ADA, []),
    "one by its number": ("device=1", WITH_GPUS, ["--device", "nvidia.com/gpu=GPU-bbbb2222"]),
    "as docker's own quotes": ('"device=0,1"', WITH_GPUS, ["--device", "nvidia.com/gpu=GPU-aaaa1111", "--device", "nvidia.com/gpu=GPU-bbbb2222"]),
    "a plain list": ("1,0", WITH_GPUS, ["--device", "nvidia.com/gpu=GPU-bbbb2222", "--device", "nvidia.com/gpu=GPU-aaaa1111"]),
    "so many": ("1", WITH_GPUS, ["--device", "nvidia.com/gpu=GPU-aaaa1111"]),
    "the beginning of a UUID": ("GPU-bb", WITH_GPUS, ["--device", "nvidia.com/gpu=GPU-bbbb2222"]),
    "a spec with numbers only": ("device=1", replace(WITH_GPUS, engine=replace(CDI, cdi=("0", "1", "all"))), ["--device", "nvidia.com/gpu=1"]),
    "a spec that lacks it": ("device=1", replace(WITH_GPUS, engine=replace(CDI, cdi=("0", "all"))), ["--gpus", "device=GPU-bbbb2222"]),
    "an engine before CDI": ("", replace(WITH_GPUS, engine=LEGACY), ["--gpus", "all"]),
    "two before CDI": ("device=0,1", replace(WITH_GPUS, engine=LEGACY), ["--gpus", '"device=GPU-aaaa1111,GPU-bbbb2222"']),
    "only the runtime": ("", replace(WITH_GPUS, engine=LEGACY, hook=False), ["--runtime=nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=all"]),
    "an engine before --gpus": ("1", replace(WITH_GPUS, engine=replace(LEGACY, version="18.09.1")), ["--runtime=nvidia", "--env", "NVIDIA_VISIBLE_DEVICES=GPU-aaaa1111"]),
    "a part": ("0:1", replace(WITH_GPUS, gpus=(PARTED,), engine=replace(CDI, cdi=("0:0", "0:1", "all"))), ["--device", "nvidia.com/gpu=0:1"]),
    "a part by its UUID": ("MIG-dd", replace(WITH_GPUS, gpus=(PARTED,), engine=LEGACY), ["--gpus", "device=MIG-dddd4444"]),
}


class TestGpus:
    @pytest.mark.parametrize("case", WAYS)
    def test_they_are_asked_for_in_the_way_the_engine_has(self, case: str) -> None:
        wanted, machine, words = WAYS[case]
        assert [word for group, _ in gpus.give(wanted, machine).words for word in group] == words

    @pytest.mark.parametrize("wanted", ["3", "device=2", "0,5", "GPU-", "GPU-zz", "device=", "x", "0:0", "0,,1", "-1"])
    def test_what_is_not_there_is_refused_with_what_is(self, wanted: str) -> None:
        with pytest.raises(UsageError) as refused:
            gpus.give(wanted, WITH_GPUS)
        assert "GPU-aaaa1111" in refused.value.fix

    def test_without_a_gpu_only_an_explicit_wish_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no NVIDIA GPU"):
            gpus.give("all", ADA)

    def test_a_gpu_without_a_driver_runs_on_the_cpu_and_says_so(self) -> None:
        machine = replace(ADA, pci=1)
        assert "mlhost setup" in gpus.give("", machine).notes[0]
        with pytest.raises(Failed, match="no driver"):
            gpus.give("all", machine)

    def test_a_broken_driver_is_not_passed_over(self) -> None:
        machine = replace(ADA, pci=1, driver="580.126.20", smi_trouble="Failed to initialize NVML: Driver/library version mismatch")
        with pytest.raises(Failed, match="version mismatch") as refused:
            gpus.give("", machine)
        assert "doctor" in refused.value.fix
        assert gpus.give("none", machine).count == 0

    def test_no_toolkit_is_named(self) -> None:
        with pytest.raises(Failed, match="Toolkit"):
            gpus.give("", replace(WITH_GPUS, engine=replace(LEGACY, runtimes=("runc",)), hook=False))

    @pytest.mark.parametrize("value", ["0", "1", "0,1", "1,0", "GPU-aaaa1111", "GPU-bb", "MIG-GPU-aaaa/1/0"])
    def test_visible_devices_that_are_there_are_passed_on(self, value: str) -> None:
        command = made(replace(REQUEST, environment={"CUDA_VISIBLE_DEVICES": value}), WITH_GPUS)
        assert "CUDA_VISIBLE_DEVICES" in option(command, "--env")
        assert command.notes == ()

    @pytest.mark.parametrize("value", ["2", "0,7", "GPU-zz", "GPU-", "zero", "0,x"])
    def test_visible_devices_that_are_not_there_are_refused(self, value: str) -> None:
        with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
            made(replace(REQUEST, environment={"CUDA_VISIBLE_DEVICES": value}), WITH_GPUS)

    def test_inside_they_are_numbered_anew(self) -> None:
        given = gpus.give("device=1", WITH_GPUS)
        assert gpus.visible("0", WITH_GPUS, given) == ""
        with pytest.raises(UsageError, match="numbered anew"):
            gpus.visible("1", WITH_GPUS, given)
        with pytest.raises(UsageError, match="not among"):
            gpus.visible("GPU-aaaa1111", WITH_GPUS, given)

    def test_a_part_of_a_given_gpu_may_be_named(self) -> None:
        machine = replace(WITH_GPUS, gpus=(PARTED, B), engine=LEGACY)
        assert gpus.visible("MIG-dddd4444", machine, gpus.give("device=0", machine)) == ""

    @pytest.mark.parametrize("value", ["", "-1", "-1,0", "NoDevFiles"])
    def test_hiding_all_is_told_and_done(self, value: str) -> None:
        command = made(replace(REQUEST, environment={"CUDA_VISIBLE_DEVICES": value}), WITH_GPUS)
        assert "hides all" in command.notes[0]

    def test_naming_one_where_there_is_none_is_told(self) -> None:
        assert "no GPU" in made(replace(REQUEST, environment={"CUDA_VISIBLE_DEVICES": "0"}), ADA).notes[0]


class TestVariables:
    def test_values_are_in_no_command_line(self) -> None:
        request = replace(REQUEST, env=("TOKEN",), values={"KEY": "s3cret"}, environment={"TOKEN": "t0ken"}, env_files=("/run/secrets/env",))
        command = made(request)
        assert not {"s3cret", "t0ken"} & {part for word in command.argv for part in word.split("=")}
        assert "s3cret" not in compose.shown(command, explain=True)
        assert command.environment == {"KEY": "s3cret"}
        assert {"TOKEN", "KEY"} <= set(option(command, "--env"))
        assert option(command, "--env-file") == ["/run/secrets/env"]

    @pytest.mark.parametrize("name", ["HOME", "PYTHONUNBUFFERED", "CUDA_CACHE_PATH", "USER"])
    def test_the_users_own_value_wins(self, name: str) -> None:
        for request in (replace(REQUEST, values={name: "mine"}), replace(REQUEST, file_names=frozenset({name}), env_files=("f",))):
            assert not any(value.startswith(f"{name}=") for value in option(made(request), "--env"))

    def test_a_variable_that_is_not_there_is_told(self) -> None:
        command = made(replace(REQUEST, env=("NOT_THERE",), environment={}))
        assert "NOT_THERE" in command.notes[0]
        assert "NOT_THERE" not in option(command, "--env")

    def test_env_files_are_read_as_docker_reads_them(self) -> None:
        text = "\ufeff# a comment\n\nA=1\n  B=two words # and this\nC\nD=\nE=\"quoted\"\n"
        assert env_file(text, "f") == {"A": "1", "B": "two words # and this", "C": None, "D": "", "E": '"quoted"'}

    @pytest.mark.parametrize("row", ["export A=s3cret", "=s3cret", "A B=s3cret"])
    def test_a_line_that_docker_refuses_is_named_without_its_value(self, row: str) -> None:
        with pytest.raises(UsageError, match="line 2") as refused:
            env_file(f"A=1\n{row}\n", "f")
        assert "s3cret" not in str(refused.value)

    @pytest.mark.parametrize("text", ["", "=x", "A B=s3cret", "1A", "-x"])
    def test_a_name_that_is_none_is_refused_without_its_value(self, text: str) -> None:
        with pytest.raises(UsageError) as refused:
            variable(text)
        assert "s3cret" not in str(refused.value)


class TestSettings:
    def test_later_layers_win(self) -> None:
        found = settings([("a", {"mount": "tree", "shm_size": "1g"}), ("b", {"mount": "host", "volumes": ["/data:ro"]})])
        assert (found.mount, found.shm_size, found.volumes) == ("host", "1g", ("/data:ro",))

    @pytest.mark.parametrize("values", [{"mount": "all"}, {"nope": "x"}, {"mount": 1}, {"volumes": "/data"}, {"env": ["A=1"]}, {"shm_size": "much"}, {"ipc": "x"}])
    def test_what_means_nothing_is_refused_with_its_place(self, values: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"^run\.toml: "):
            settings([("run.toml", values)])

    @pytest.mark.parametrize(("text", "expected"), [
        ("/data", Volume("/data")), ("/data:ro", Volume("/data", "", True)), ("/data/:/d", Volume("/data", "/d")), ("/data:/d:ro", Volume("/data", "/d", True)), ("/:/all:rw", Volume("/", "/all")),
    ])
    def test_a_volume(self, text: str, expected: Volume) -> None:
        assert volume(text) == expected

    @pytest.mark.parametrize("text", ["data", "", "/a:b", "/a:/b:/c", "/a:/b:zz", "name:/data", ":ro"])
    def test_no_volume(self, text: str) -> None:
        with pytest.raises(UsageError):
            volume(text)


class TestTheImageFits:
    NEW = ImageConfig("img", {"NVIDIA_REQUIRE_CUDA": "cuda>=13.2"})

    def test_one_that_asks_for_more_than_the_driver_gives_is_refused_with_a_remedy(self) -> None:
        old = replace(WITH_GPUS, driver="470.256.02")
        wrong = compose.misfit(REQUEST, old, self.NEW, 2)
        assert wrong is not None
        assert "470.256.02" in wrong.message
        assert "CUDA 11.4" in wrong.fix
        assert compose.misfit(REQUEST, old, Image("sha256:1", self.NEW.environment), 2) is not None

    def test_it_is_taken_without_gpus_or_where_the_user_says_so(self) -> None:
        old = replace(WITH_GPUS, driver="470.256.02")
        assert compose.misfit(REQUEST, old, self.NEW, 0) is None
        assert compose.misfit(replace(REQUEST, values={"NVIDIA_DISABLE_REQUIRE": "1"}), old, self.NEW, 2) is None
        assert compose.misfit(REQUEST, WITH_GPUS, ImageConfig("img", {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}), 2) is None

    def test_one_for_another_architecture_is_refused_unless_asked_for(self) -> None:
        arm = ImageConfig("img", offered=("linux/arm64",))
        assert "linux/arm64" in str(compose.misfit(REQUEST, WITH_GPUS, arm, 0))
        assert compose.misfit(replace(REQUEST, platform="linux/arm64"), WITH_GPUS, arm, 0) is None


DOCKERS = "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
ENDS = [
    (0, "", ["python"], ""),
    (1, "Traceback …", ["python"], ""),
    (125, "docker: Error response from daemon: invalid CapAdd: unknown capability", ["x"], "never ran"),
    (125, "my own words", ["x"], ""),
    (126, DOCKERS + 'exec: "/host/x": permission denied: unknown.', ["/host/x"], "x bit"),
    (126, "[FATAL tini (6)] exec /etc/passwd failed: Permission denied", ["/etc/passwd"], "/etc/passwd is in the container"),
    (127, DOCKERS + 'exec: "python": executable file not found in $PATH: unknown.', ["python", "x"], "python3"),
    (127, "[FATAL tini (7)] exec /opt/run.sh failed: No such file or directory", ["/opt/run.sh"], "/host/opt/run.sh"),
    (127, "[FATAL tini (7)] exec /host/a/b failed: No such file or directory", ["/host/a/b"], "no such file of this machine"),
    (127, "sh: nope: not found", ["sh", "-c", "nope"], ""),
    (135, "", ["python"], "--shm-size"),
    (137, "", ["python"], "memory"),
    (139, "", ["python"], "segmentation"),
    (130, "", ["python"], ""),
]


@pytest.mark.parametrize(("code", "said", "command", "expected"), ENDS, ids=lambda v: str(v)[:30])
def test_an_exit_code_is_explained_where_it_is_docker_that_speaks(code: int, said: str, command: list[str], expected: str) -> None:
    sentence = ends.explained(code, said, command)
    assert expected in sentence
    assert bool(sentence) == bool(expected)


def test_a_kill_of_the_users_own_is_not_explained() -> None:
    assert ends.explained(137, "", ["python"], sent=True) == ""


def test_the_doctor_knows_what_docker_says() -> None:
    said = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'
    assert "Remedy" in ends.known(said)
    assert ends.known("nothing that anybody knows") == ""


class TestTheLook:
    def test_an_answer_is_read(self) -> None:
        info = {"ServerVersion": "26.1.5", "SecurityOptions": ["name=rootless", "name=selinux"], "Runtimes": {"runc": {}, "nvidia": {}}, "MemTotal": 1 << 34,
                "InitCommit": {"ID": "N/A"}, "CDISpecDirs": ["/etc/cdi"], "Architecture": "x86_64"}
        image = {"Id": "sha256:12", "Architecture": "amd64", "Config": {"Env": ["A=b=c", "PATH=/bin"], "Labels": None}}
        smi = "GPU 0: NVIDIA H100 (UUID: GPU-c)\n  MIG 1g.10gb     Device  0: (UUID: MIG-d)\nGPU 1: X (y) (UUID: GPU-e)\n"
        spec = 'cdiVersion: "0.5.0"\nkind: nvidia.com/gpu\ndevices:\n  - name: "0"\n    containerEdits:\n  - name: all\n'
        found = parse({
            "who": Section(0, "system=Linux\narch=x86_64\nuser=ada\nuid=1000\ngid=100\ngroups=100 27\nhome=/home/ada\ncache=/c/mlhost/run\n"),
            "driver": Section(0, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build\n"),
            "hook": Section(0, "yes\n"), "pci": Section(0, "2\n"), "cdi": Section(0, spec), "info": Section(0, json.dumps(info)),
            "image": Section(0, json.dumps(image)), "smi": Section(0, smi),
        })
        assert found.engine == Engine("26.1.5", True, False, True, ("runc", "nvidia"), ("0", "all"), 1 << 34, False, "x86_64")
        assert found.image == Image("sha256:12", {"A": "b=c", "PATH": "/bin"}, {}, "amd64")
        assert found.gpus == (Gpu("0", "NVIDIA H100", "GPU-c", (("0", "1g.10gb", "MIG-d"),)), Gpu("1", "X (y)", "GPU-e"))
        assert (found.uid, found.gid, found.groups, found.driver, found.hook, found.pci) == (1000, 100, (100, 27), "580.178.04", True, 2)

    @pytest.mark.parametrize(("section", "trouble"), [
        (Section(127, ""), "not installed"),
        (Section(1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n"), "Cannot connect"),
        (Section(0, json.dumps({"ServerErrors": ["permission denied while trying to connect"]})), "permission denied"),
        (Section(1, ""), "docker info"),
        (Section(0, "not json"), "not json"),
    ])
    def test_a_docker_that_does_not_answer_is_none(self, section: Section, trouble: str) -> None:
        found = parse({"info": section})
        assert found.engine is None
        assert trouble in found.trouble

    @pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=lambda s: s[0])
    def test_the_script_answers_in_every_shell_and_without_docker(self, shell: list[str], tmp_path: Path) -> None:
        if not shutil.which(shell[0]):
            pytest.skip(f"{shell[0]} is not installed")
        from provision.capture import split

        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("id", "uname", "mktemp", "rm", "cat", "grep", "cut", "getent"):
            found = shutil.which(name)
            if found:
                (programs / name).symlink_to(found)
        done = subprocess.run([shutil.which(shell[0]) or "", *shell[1:], "-c", shipped("scripts/run/look.sh"), "sh", "m4rk", "img"], capture_output=True,
                              check=True, env={"PATH": str(programs), "HOME": "/h", "SUDO_UID": "x;y"})
        found_there = parse(split(done.stdout, "m4rk"))
        assert found_there.engine is None
        assert found_there.trouble == "the docker command is not installed"
        assert found_there.cache == "/h/.cache/mlhost/run"


def test_the_scripts_are_clean_sh() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    for name in ("look", "prepare", "guard", "tree"):
        done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=shipped(f"scripts/run/{name}.sh"), text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_this_machines_disk_is_asked_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    disk = LocalDisk()
    assert disk.exists(str(tmp_path / "link"))
    assert disk.link(str(tmp_path / "link")) == "nowhere"
    assert disk.link(str(tmp_path)) is None
    assert disk.link("/a\0b") is None


def test_errors_are_the_users_to_understand() -> None:
    for call in (lambda: gpus.give("9", WITH_GPUS), lambda: volume("x")):
        with pytest.raises(Error) as refused:
            call()
        assert refused.value.fix
