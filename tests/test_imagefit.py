"""An image that needs more CUDA than the driver gives is refused before it is pulled, by what the image says of itself.

The requirements are those of published images, spelled out by their parts: every alternative is a brand and a branch of drivers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provision import catalog, prove, run
from provision.cudafit import ImageConfig, asked_by, parse_require, refused
from provision.look import RunOptions
from provision.model import CHANGE, REFUSED, Facts, Item, Plan
from provision.plan import plan
from provision.playbook import load
from provision.progress import NullProgress
from provision.spec import SmokeSpec, Spec
from provision.steps import smoke
from tests.lab.images import Publisher
from tests.lab.registry import Registry
from tests.machines import CATALOG, machine, with_docker, with_gpus, with_toolkit, working
from tests.test_run import HOSTS, Double

pytestmark = pytest.mark.slow

PROFESSIONAL = ("unknown", "grid", "tesla", "nvidia", "quadro", "quadrortx", "nvidiartx", "vapps", "vpc", "vcs", "vws", "cloudgaming")
EVERYBODY = ("tesla", "unknown", "nvidia", "nvidiartx", "geforce", "geforcertx", "quadro", "quadrortx", "titan", "titanrtx")


def alternatives(cuda: str, brands: tuple[str, ...], branches: tuple[int, ...]) -> str:
    return " ".join([f"cuda>={cuda}", *(f"brand={brand},driver>={branch},driver<{branch + 1}" for branch in branches for brand in brands)])


# gitlab.com/nvidia/container-images/cuda, dist/<release>/…/base/Dockerfile; 10.2 as quoted in many Dockerfiles; NGC's images ask for cuda>=9.0 and
# bring their own newer libcuda.
PUBLISHED = {
    "13.0.3": alternatives("13.0", PROFESSIONAL, (535, 550, 565, 570, 575)),
    "12.4.1": alternatives("12.4", EVERYBODY, (470, 525, 535)),
    "12.0.0": alternatives("12.0", ("tesla",), (450,)) + " " + alternatives("12.0", EVERYBODY, (470, 510, 515, 520)).partition(" ")[2],
    "10.2": alternatives("10.2", ("tesla",), (396, 410, 418, 440)),
    "ngc": "cuda>=9.0",
}


def image(name: str, **more: str) -> ImageConfig:
    return ImageConfig("x", {"NVIDIA_REQUIRE_CUDA": PUBLISHED[name], "PATH": "/bin", **more})


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_images_ask_for_is_understood_to_the_last_word(name: str) -> None:
    assert [str(condition) for conditions in parse_require(PUBLISHED[name]) for condition in conditions] == PUBLISHED[name].replace(",", " ").split()


@pytest.mark.parametrize(
    ("name", "driver", "gpus", "fails"),
    [
        ("13.0.3", "580.126.20", ("NVIDIA L4",), ""),
        ("13.0.3", "570.211.01", ("NVIDIA L4",), ""),  # by forward compatibility
        ("13.0.3", "570.211.01", ("NVIDIA GeForce RTX 4090",), "cuda>=13.0"),
        ("13.0.3", "570.211.01", ("NVIDIA GeForce RTX 4090", "NVIDIA L4"), ""),  # nobody knows which one is asked
        ("13.0.3", "570.211.01", (), ""),
        ("13.0.3", "560.35.05", ("NVIDIA L4",), "cuda>=13.0"),  # no branch that has forward compatibility
        ("13.0.3", "470.256.02", ("NVIDIA Tesla K80",), "cuda>=13.0"),
        ("12.4.1", "550.163.01", ("NVIDIA T4",), ""),
        ("12.4.1", "535.261.03", ("NVIDIA GeForce GTX 1080",), ""),
        ("12.4.1", "545.29.06", ("NVIDIA GeForce GTX 1080",), "cuda>=12.4"),
        ("12.4.1", "470.256.02", ("NVIDIA Tesla K80",), ""),
        ("12.0.0", "450.248.02", ("NVIDIA TITAN V",), "cuda>=12.0"),
        ("10.2", "390.157", ("NVIDIA Tesla V100",), "cuda>=10.2"),
        ("ngc", "390.157", ("NVIDIA Tesla V100",), ""),
        ("ngc", "", ("NVIDIA Tesla V100",), ""),
    ],
)
def test_a_published_image_is_refused_only_where_it_surely_would_not_start(name: str, driver: str, gpus: tuple[str, ...], fails: str) -> None:
    found = refused(image(name), driver, gpus)
    assert (found.condition if found else "") == fails


def test_an_image_from_before_there_were_requirements_asks_for_the_cuda_that_it_names() -> None:
    assert asked_by(ImageConfig("x", {"CUDA_VERSION": "13.1.80"})) == {"NVIDIA_REQUIRE_CUDA": "cuda>=13.1"}
    assert asked_by(ImageConfig("x", {}, {"com.nvidia.cuda.version": "8.0.61"})) == {"NVIDIA_REQUIRE_CUDA": "cuda>=8.0"}
    assert asked_by(ImageConfig("x", {"CUDA_VERSION": "latest"})) == {}
    assert asked_by(image("ngc", CUDA_VERSION="13.1.80")) == {"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"}
    assert refused(image("13.0.3", NVIDIA_DISABLE_REQUIRE="true"), "470.1") is None


# ---------------------------------------------------------------- the plan


def gpu_host(device: str = "27b8", driver: str = "550.163.01") -> Facts:
    return with_toolkit(working(with_gpus(with_docker(machine()), device), driver), spec=driver)


def planned(known: ImageConfig | None, facts: Facts | None = None, name: str = "registry.example/x:1") -> Plan:
    return plan(facts or gpu_host(), Spec(smoke=SmokeSpec(image=name)), CATALOG, (), replace(known, reference=name) if known else None)


def item(decided: Plan) -> Item:
    return next(i for i in decided.items if i.step == "smoke")


def test_an_image_that_asks_for_too_much_is_refused_with_both_remedies() -> None:
    decided = planned(ImageConfig("", {"NVIDIA_REQUIRE_CUDA": "cuda>=13.0"}))
    assert item(decided).state == REFUSED
    problem = decided.problems[0]
    assert problem.message == "registry.example/x:1 asks for cuda>=13.0 (NVIDIA_REQUIRE_CUDA), but driver 550.163.01 gives no more than CUDA 12.4."
    assert "Name an image for CUDA 12.4 or older (`smoke.image`), or `embedded`; or have driver 580.65.06 or newer" in problem.fix


def test_for_gpus_that_no_newer_driver_serves_only_an_older_image_is_proposed() -> None:
    decided = planned(ImageConfig("", {"NVIDIA_REQUIRE_CUDA": "cuda>=12.0"}), gpu_host("102d", "470.256.02"))
    assert decided.problems[0].fix == "Name an image for CUDA 11.4 or older (`smoke.image`), or `embedded`."


def test_an_image_that_fits_says_so_with_its_digest_and_size() -> None:
    known = ImageConfig("", {"NVIDIA_REQUIRE_CUDA": PUBLISHED["12.4.1"]}, digest="sha256:0123456789abcdef" + "0" * 48, size=123_456_789)
    assert item(planned(known)).why == (
        "to prove that nvidia-smi in a container sees 1 GPU; the image (sha256:0123456789ab, 123 MB) asks for cuda>=12.4, "
        "which driver 550.163.01 satisfies"
    )


def test_an_image_that_asks_for_nothing_says_so() -> None:
    assert "asks for no CUDA in particular" in item(planned(ImageConfig("", digest="sha256:0"))).why


def test_an_image_for_other_architectures_alone_is_refused() -> None:
    decided = planned(ImageConfig("", offered=("linux/arm64",)))
    assert decided.problems[0].message == "registry.example/x:1 is not there for x86_64, only for linux/arm64."


def test_a_registry_that_cannot_be_asked_refuses_nothing_and_the_plan_says_why() -> None:
    decided = planned(ImageConfig("", error="The registry registry.example cannot be asked: no route."))
    assert not decided.problems
    assert item(decided).why.endswith(
        "; what the image needs could not be asked beforehand (The registry registry.example cannot be asked: no route), so it shows once the host has pulled it"
    )


def test_without_an_answer_the_tag_of_nvidias_own_images_is_judged() -> None:
    decided = planned(None, name="nvidia/cuda:13.0.1-base-ubuntu24.04")
    assert decided.problems[0].message.startswith("nvidia/cuda:13.0.1-base-ubuntu24.04 is built with CUDA 13.0.1, but driver 550.163.01")
    assert not planned(None, name="nvidia/cuda:12.8.1-base-ubuntu24.04").problems, "minor releases of one major run on its drivers"
    assert not planned(ImageConfig("", {"NVIDIA_REQUIRE_CUDA": "cuda>=9.0"}), name="nvidia/cuda:13.0.1-base-ubuntu24.04").problems, "its own word counts more"


def test_only_an_image_that_is_to_be_run_with_gpus_is_asked_about() -> None:
    assert smoke.unasked(planned(None)) == "registry.example/x:1"
    assert smoke.unasked(planned(None, name="embedded")) == ""
    assert smoke.unasked(planned(None, with_docker(machine()))) == ""
    assert smoke.unasked(planned(None, name="nvidia/cuda:13.0.1-base-ubuntu24.04")) == "", "refused already"


# ---------------------------------------------------------------- all the way, with a real registry


@pytest.fixture
def demanding(registry: Registry) -> Registry:
    """A registry that has one image whose CUDA is newer than any, and one that fits. Both are there as Docker Hub's, which it mirrors."""
    for name, cuda in (("demanding", "99.0"), ("modest", "12.4")):
        Publisher(f"http://{registry.address}", f"lab/{name}").image("1", [f"NVIDIA_REQUIRE_CUDA=cuda>={cuda} brand=geforce,driver>=470,driver<471"])
    return registry


def chosen(registry: Registry, name: str) -> tuple[Double, object]:
    """A host with a working driver (a transport double, answering from a capture), and a playbook with that image."""
    double = Double((HOSTS / "ubuntu2404-aws-l4/probe.txt").read_bytes())
    return double, load(None, (f"smoke.image=lab/{name}:1", f"mirrors.registry=[http://{registry.address}]"))


def test_plan_setup_and_verify_refuse_it_and_nothing_is_sent_to_the_host(demanding: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    double, loaded = chosen(demanding, "demanding")
    known, said = catalog.load(), "lab/demanding:1 asks for cuda>=99.0 (NVIDIA_REQUIRE_CUDA), but driver 580.95.05 gives no more than CUDA 13.0."
    _, decided = run.plan_of(double, loaded, known, RunOptions(), NullProgress())  # type: ignore[arg-type]
    assert [p.message for p in decided.problems] == [said]
    assert not decided.changes
    report = run.setup(double, loaded, known, RunOptions(), NullProgress())  # type: ignore[arg-type]
    assert (report.status, report.exit_code) == ("refused", 1)
    verified = prove.verify(double, loaded, known, RunOptions(), NullProgress())  # type: ignore[arg-type]
    assert verified.exit_code == 7
    assert said in {c.evidence for c in verified.checks if c.state == "failed"}
    assert double.other == []


def test_an_image_that_fits_is_planned(demanding: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    double, loaded = chosen(demanding, "modest")
    _, decided = run.plan_of(double, loaded, catalog.load(), RunOptions(), NullProgress())  # type: ignore[arg-type]
    assert item(decided).state == CHANGE
    assert "asks for cuda>=12.4, which driver 580.95.05 satisfies" in item(decided).why


def test_a_workload_that_asks_for_too_much_is_not_pulled_either(demanding: Registry) -> None:
    """The first thing that the double is sent is the script that runs containers; it must not hold the workload's."""
    double = Double((HOSTS / "ubuntu2404-aws-l4/probe.txt").read_bytes())
    sent = []
    for name in ("modest", "demanding"):
        loaded = load(None, (f"smoke.workload=lab/{name}:1", f"mirrors.registry=[http://{demanding.address}]"))
        double.other.clear()
        prove.verify(double, loaded, catalog.load(), RunOptions(), NullProgress(), prove.Depth(deep=True))  # type: ignore[arg-type]
        sent.append(f"lab/{name}:1" in double.other[0])
    assert sent == [True, False]


def test_offline_no_registry_is_asked(demanding: Registry) -> None:
    double, loaded = chosen(demanding, "demanding")
    _, decided = run.plan_of(double, loaded, catalog.load(), RunOptions(offline=True), NullProgress())  # type: ignore[arg-type]
    assert not decided.problems


def test_the_hosts_own_registry_is_not_taken_for_this_machines(demanding: Registry) -> None:
    double, _ = chosen(demanding, "demanding")
    loaded = load(None, (f"smoke.image={demanding.address}/lab/demanding:1",))
    _, decided = run.plan_of(double, loaded, catalog.load(), RunOptions(), NullProgress())  # type: ignore[arg-type]
    assert not decided.problems
    assert "the registry is the host's own, which only the host can ask" in item(decided).why
