"""What the image commands decide, as values: archives, layers, Dockerfiles, contexts, a fleet's CUDA, histories. No Docker; real tar and gzip."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from provision.catalog import packaged
from provision.cli import main
from provision.errors import Failed, UsageError
from provision.images import (
    archive,
    compare,
    cuda,
    dockerfile,
    history,
    ignore,
    layers,
    normal,
    portability,
    project,
    tarstream,
    template,
)
from provision.shipping import context, engine, load, overlay, pipes, remote
from provision.shipping import copy as copying
from provision.transport import SshOptions

DATA = packaged("images")
DIGEST = "sha256:" + "5" * 64


# ---------------------------------------------------------------- archives


def archived(config: dict[str, Any], tags: tuple[str, ...] = ("train:1",), layer: bytes = b"x" * 1500) -> bytes:
    body = json.dumps(config).encode()
    saved = archive.Saved("sha256:" + tarstream.digest(body), tags, ("blobs/sha256/" + "a" * 64,))
    parts = [tarstream.member("blobs/sha256/" + "a" * 64, layer), tarstream.member(archive.blob_name(saved.id), body)]
    return tarstream.joined([*parts, tarstream.member(archive.MANIFEST, archive.manifest([saved]))])


def test_our_archives_are_ones_that_tar_reads() -> None:
    with tarfile.open(fileobj=io.BytesIO(archived({"rootfs": {"diff_ids": []}}))) as tar:
        assert next(len(tar.extractfile(m).read()) if m.isreg() else -1 for m in tar) == 1500  # type: ignore[union-attr]
        assert tar.getnames()[-1] == "manifest.json"


@pytest.mark.parametrize("step", [1, 511, 512, 513, 100_000])
def test_an_archive_is_understood_whatever_pieces_it_comes_in(step: int) -> None:
    content = archived({"rootfs": {"diff_ids": [DIGEST]}})
    scanner = tarstream.Scanner(archive.is_small_part)
    for start in range(0, len(content), step):
        scanner.feed(content[start : start + step])
    assert scanner.complete
    assert scanner.position == len(content)
    (found,) = archive.images(scanner.kept)
    assert (found.tags, found.diff_ids) == (("train:1",), (DIGEST,))
    assert found.id in archive.ids(scanner.kept)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_sizes_beyond_octal_digits_are_read(kind: int) -> None:
    file, seen = io.BytesIO(), list[tarstream.Member]()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        info = tarfile.TarInfo("d/" * 80 + "name")
        tar.addfile(info)
    big = tarfile.TarInfo("big")
    big.size = 9 << 30
    scanner = tarstream.Scanner(seen=seen.append)
    scanner.feed(file.getvalue().rstrip(b"\0").ljust(-(-len(file.getvalue().rstrip(b"\0")) // 512) * 512, b"\0"))
    scanner.feed(big.tobuf(kind))
    assert [(member.name, member.size) for member in seen] == [("d/" * 80 + "name", 0), ("big", 9 << 30)]
    assert tarfile.TarInfo.frombuf(tarstream.header("big", 9 << 30), "utf-8", "strict").size == 9 << 30


def test_what_is_cut_short_or_no_tar_is_told_from_a_whole_archive() -> None:
    content = archived({"rootfs": {"diff_ids": []}})
    scanner = tarstream.Scanner()
    scanner.feed(content[:2000])
    assert not scanner.complete
    with pytest.raises(tarstream.BadTar, match="no tar archive"):
        tarstream.Scanner().feed(b"<html>" + b"x" * 600)


def test_a_config_that_is_not_what_its_name_says_is_refused() -> None:
    body = json.dumps({"rootfs": {"diff_ids": []}}).encode()
    kept = {"manifest.json": archive.manifest([archive.Saved(DIGEST, (), ())]), archive.blob_name(DIGEST): body}
    with pytest.raises(archive.NoImage, match="damaged"):
        archive.images(kept)
    with pytest.raises(archive.NoImage, match=r"no manifest\.json"):
        archive.images({})


def test_chain_ids_are_those_of_the_image_specification() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert archive.chain_ids([one, two]) == (one, "sha256:" + hashlib.sha256(f"{one} {two}".encode()).hexdigest())


# ---------------------------------------------------------------- Docker's folder, read directly


def docker_folder(root: Path, files: dict[str, bytes]) -> tuple[engine.About, engine.Image, bytes]:
    """A folder as Docker's overlay2 driver keeps it, with one image of one layer; its tar-split record is made from a real tar."""
    tar, rows = io.BytesIO(), []
    diff = root / "overlay2/cache1/diff"
    diff.mkdir(parents=True)
    with tarfile.open(fileobj=tar, mode="w") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
            (diff / name).write_bytes(content)
    content, position = tar.getvalue(), 0
    import base64

    def segment(end: int) -> None:
        nonlocal position
        rows.append({"type": 2, "payload": base64.b64encode(content[position:end]).decode()})
        position = end

    with tarfile.open(fileobj=io.BytesIO(content)) as read:
        for info in read:
            segment(info.offset_data)
            rows.append({"type": 1, "name": info.name, "size": info.size, "payload": "x"})
            position += info.size
    segment(len(content))
    diff_id = "sha256:" + hashlib.sha256(content).hexdigest()
    store = root / "image/overlay2"
    layer = store / "layerdb/sha256" / diff_id[7:]
    layer.mkdir(parents=True)
    (layer / "cache-id").write_text("cache1")
    (layer / "tar-split.json.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    image_id = "sha256:" + hashlib.sha256(config).hexdigest()
    folder = store / "imagedb/content/sha256"
    folder.mkdir(parents=True)
    (folder / image_id[7:]).write_bytes(config)
    image = engine.Image(image_id, "train:1", ("train:1",), (), (diff_id,), len(content), "amd64")
    return engine.About("overlay2", str(root), False, "26.1", "x86_64"), image, content


def test_an_archive_is_put_together_from_dockers_own_records_byte_for_byte(tmp_path: Path) -> None:
    about, image, content = docker_folder(tmp_path, {"a": b"A" * 700, "empty": b"", "big": os.urandom(3 << 20)})
    whole = b"".join(overlay.chunks(overlay.prepare(about, [image])))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert tar.extractfile("blobs/sha256/" + image.diff_ids[0][7:]).read() == content  # type: ignore[union-attr]
        listed = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
        assert listed["manifests"][0]["annotations"]["io.containerd.image.name"] == "train:1"
    scanner = tarstream.Scanner(archive.is_small_part)
    scanner.feed(whole)
    assert [found.id for found in archive.images(scanner.kept)] == [image.id]


def test_a_layer_that_the_other_side_has_is_not_read(tmp_path: Path) -> None:
    about, image, _ = docker_folder(tmp_path, {"a": b"A"})
    export = overlay.prepare(about, [image], archive.chain_ids(image.diff_ids))
    assert export.layers == ()
    scanner = tarstream.Scanner(archive.is_small_part)
    scanner.feed(b"".join(overlay.chunks(export)))
    assert [found.id for found in archive.images(scanner.kept)] == [image.id]


def test_a_file_changed_behind_dockers_back_is_found_out(tmp_path: Path) -> None:
    about, image, _ = docker_folder(tmp_path, {"a": b"A" * 700})
    (tmp_path / "overlay2/cache1/diff/a").write_bytes(b"B" * 700)
    with pytest.raises(overlay.Unreadable, match="not what its image says"):
        list(overlay.chunks(overlay.prepare(about, [image])))


@pytest.mark.parametrize("name", ["../../secret", "link"])
def test_a_record_cannot_make_it_read_other_files(tmp_path: Path, name: str) -> None:
    about, image, _ = docker_folder(tmp_path, {"a": b"A" * 6})
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "overlay2/cache1/diff/link").symlink_to(tmp_path / "secret")
    record = next(tmp_path.rglob("tar-split.json.gz"))
    record.write_bytes(gzip.compress(gzip.decompress(record.read_bytes()).replace(b'"name": "a"', f'"name": "{name}"'.encode())))
    with pytest.raises(overlay.Unreadable):
        list(overlay.chunks(overlay.prepare(about, [image])))


@pytest.mark.parametrize(("driver", "containerd"), [("btrfs", False), ("overlay2", True)])
def test_other_stores_are_left_to_docker_itself(tmp_path: Path, driver: str, containerd: bool) -> None:
    _, image, _ = docker_folder(tmp_path, {"a": b"A"})
    with pytest.raises(overlay.Unreadable):
        overlay.prepare(engine.About(driver, str(tmp_path), containerd, "29.1", "x86_64"), [image])


# ---------------------------------------------------------------- streams through programs


def test_bytes_go_through_a_program_and_come_back() -> None:
    pieces = [os.urandom(300_000) for _ in range(7)]
    packing = pipes.packing("gz")
    packed = b"".join(pipes.through(iter(pieces), packing.pack, "packing"))
    assert pipes.format_of(packed[:512]) == "gz"
    assert b"".join(pipes.through(iter([packed]), packing.unpack, "unpacking")) == b"".join(pieces)


def test_what_goes_wrong_with_the_input_is_told_and_the_output_does_not_end_well() -> None:
    def broken() -> Any:
        yield b"x" * 100_000
        raise Failed("the disk is on fire")

    packing = pipes.packing("gz")
    came = []
    with pytest.raises(Failed, match="on fire"):
        came.extend(pipes.through(broken(), packing.pack, "packing"))
    with pytest.raises((EOFError, gzip.BadGzipFile)):
        gzip.decompress(b"".join(came) or b"x")


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(Failed, match=r"exit 3.*no luck"):
        list(pipes.through(iter([b"x"]), ("sh", "-c", "cat; echo no luck >&2; exit 3"), "This"))
    with pytest.raises(Failed, match="exit 7"):
        list(pipes.output_of(("sh", "-c", "echo half; exit 7"), "This"))


def test_a_program_that_reads_nothing_blocks_nobody() -> None:
    assert list(pipes.through(iter([b"x" * (4 << 20)]), ("true",), "This")) == []


@pytest.mark.parametrize(
    ("head", "kind"), [(b"\x28\xb5\x2f\xfd...", "zst"), (b"\x5a\x2a\x4d\x18...", "zst"), (b"\x1f\x8b\x08", "gz"), (b"manifest", "tar"), (b"", "tar")]
)
def test_the_format_is_told_by_the_first_bytes(head: bytes, kind: str) -> None:
    assert pipes.format_of(head) == kind


# ---------------------------------------------------------------- layers and configs without time


def layer_tar(moment: int, **contents: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            info.size, info.mtime, info.mode, info.uname = len(content), moment, 0o755, "somebody"
            info.pax_headers = {"SCHILY.xattr.security.capability": "\x01\x02", "mtime": f"{moment}.25", "atime": f"{moment}.5"}
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "a", moment
        tar.addfile(link)
    return file.getvalue()


def test_two_layers_that_differ_in_time_alone_become_one() -> None:
    outs = [io.BytesIO(), io.BytesIO()]
    one, two = (layers.rewritten(io.BytesIO(layer_tar(moment, a=b"A" * 5000)), out, 1_600_000_000) for moment, out in zip((1_700_000_000, 1_700_000_123), outs))
    assert one == two
    assert outs[0].getvalue() == outs[1].getvalue()
    assert one.diff_id == "sha256:" + hashlib.sha256(outs[0].getvalue()).hexdigest()
    assert one.size == len(outs[0].getvalue())
    with tarfile.open(fileobj=io.BytesIO(outs[0].getvalue())) as tar:
        info = tar.getmember("a")
        assert (info.mtime, info.mode, info.uname, info.pax_headers["SCHILY.xattr.security.capability"]) == (1_600_000_000, 0o755, "", "\x01\x02")
        assert tar.getmember("link").linkname == "a"


def test_what_is_older_keeps_its_time() -> None:
    out = io.BytesIO()
    assert layers.rewritten(io.BytesIO(layer_tar(1_500_000_000, a=b"A")), out, 1_600_000_000).entries[0].time == 1_500_000_000


def test_compiled_python_that_hangs_on_its_sources_time_is_noticed() -> None:
    by_time = b"\xa7\r\r\n" + b"\0" * 4 + b"\x01" * 8 + b"code"
    by_hash = b"\xa7\r\r\n" + b"\x03\0\0\0" + b"\x01" * 8 + b"code"
    entries = layers.listed(io.BytesIO(layer_tar(0, a_dot_pyc=by_time, b_dot_pyc=by_hash)))
    assert layers.stamped(entries) == ("a.pyc",)


def test_differences_are_named_by_file_and_kind_with_what_they_usually_come_from() -> None:
    first = layers.listed(io.BytesIO(layer_tar(5, a=b"A", var__log__x=b"1", gone=b"")))
    second = layers.listed(io.BytesIO(layer_tar(6, a=b"B", var__log__x=b"22", new=b"")))
    found = {one.path: (one.what, one.hint) for one in compare.layers(3, first, second, DATA["varies"])}
    assert found["a"] == ("content and time (5 and 6)", "")
    assert found["var/log/x"][0] == "content (1 and 2 bytes) and time (5 and 6)"
    assert "log" in found["var/log/x"][1]
    assert found["gone"][0] == "is in the first only"
    assert found["new"][0] == "is in the second only"
    assert compare.layers(1, first, first) == ()


def test_a_config_depends_on_nothing_of_the_build() -> None:
    def built(container: str, created: str) -> dict[str, Any]:
        rows = [{"created": "2019-01-01T00:00:00Z", "created_by": "base"}, {"created": created, "created_by": "RUN x"}]
        return {"architecture": "amd64", "os": "linux", "container": container, "docker_version": container, "created": created,
                "config": {"Env": ["A=1"], "Image": container, "Hostname": container}, "history": rows, "rootfs": {"diff_ids": ["x"]}}  # fmt: skip

    one, two = (normal.config(built(*words), [DIGEST], 1_600_000_000) for words in (("abc", "2026-01-01T00:00:00.5Z"), ("def", "2026-02-02T00:00:00Z")))
    assert one == two
    read = json.loads(one)
    assert read["config"] == {"Env": ["A=1"]}
    assert [row["created"] for row in read["history"]] == ["2019-01-01T00:00:00Z", "2020-09-13T12:26:40Z"]
    assert read["rootfs"]["diff_ids"] == [DIGEST]


# ---------------------------------------------------------------- Dockerfiles

TEXT = """# syntax=docker/dockerfile:1
ARG CUDA=12.4.1
ARG BASE=nvidia/cuda:${CUDA}-base
FROM ${BASE} AS fetch
RUN apt-get update && \\
    # a comment inside
    apt-get install -y x
FROM --platform=linux/amd64 python:3.12 as build
COPY --from=fetch /wheels /wheels
RUN <<EOF
FROM nothing
pip install x
EOF
FROM build
COPY --from=busybox:1 /bin/sh /sh
"""


def test_stages_arguments_continuations_and_here_documents_are_read() -> None:
    found = dockerfile.stages(TEXT)
    assert [(stage.name, stage.base) for stage in found] == [("fetch", "nvidia/cuda:12.4.1-base"), ("build", "python:3.12"), ("", "build")]
    assert [(one.keyword, one.first, one.last) for one in found[0].instructions] == [("RUN", 5, 7)]
    assert found[1].instructions[1].value.endswith("pip install x")
    assert [stage.base for stage in dockerfile.outside(found)] == ["nvidia/cuda:12.4.1-base", "python:3.12"]
    assert [one.first for one in dockerfile.copied_from(found)] == [15]
    assert dockerfile.stages(TEXT, {"CUDA": "13.0.3"})[0].base == "nvidia/cuda:13.0.3-base"


def test_digests_are_written_where_the_names_stand() -> None:
    text = "ARG BASE=x:1\nFROM ${BASE} AS a\nFROM ${BASE}\nFROM y:2 AS c\nFROM a\nFROM scratch\n"
    new = dockerfile.pinned(text, {"x:1": DIGEST, "y:2": DIGEST})
    assert new == text.replace("x:1", f"x:1@{DIGEST}").replace("y:2", f"y:2@{DIGEST}")
    assert dockerfile.moving(dockerfile.stages(new)) == ()
    with pytest.raises(dockerfile.BadDockerfile, match="several ARGs"):
        dockerfile.pinned(TEXT, {"nvidia/cuda:12.4.1-base": DIGEST})


def test_a_stage_is_replaced_and_all_other_lines_stay_where_they_are() -> None:
    new = dockerfile.with_stage_from(TEXT, "fetch", "ready:1")
    assert dockerfile.stages(new)[0].base == "ready:1"
    assert dockerfile.stages(new)[0].instructions == ()
    assert new.splitlines()[7:] == TEXT.splitlines()[7:]


@pytest.mark.parametrize("text", ["", "RUN x\n", "FROM\n", "FROM x\nRUN <<EOF\nnever ended\n", "FROM x\n<<<\n"])
def test_what_is_no_dockerfile_is_said_to_be_none(text: str) -> None:
    with pytest.raises(dockerfile.BadDockerfile):
        dockerfile.stages(text)


@pytest.mark.parametrize(
    ("rules", "path", "out"),
    [
        ("*.pyc", "a.pyc", True), ("*.pyc", "d/a.pyc", False), ("**/*.pyc", "a.pyc", True), ("**/*.pyc", "d/e/a.pyc", True),
        ("data", "data/x", True), ("/data/", "data/x", True), ("data", "mydata", False), ("d?ta", "data", True), ("# data\n\n", "data", False),
        ("*\n!src", "src/a.py", False), ("*\n!src", "other", True), ("*\n!src\nsrc/*.log", "src/a.log", True), (".env*", ".env.local", True),
        ("a[bc]d", "abd", True), ("a/**/z", "a/z", True), ("a/**/z", "a/b/c/z", True), ("[", "[", False),
    ],
)  # fmt: skip
def test_dockerignore_means_what_it_means_to_docker(rules: str, path: str, out: bool) -> None:
    assert ignore.ignored(path, ignore.rules(rules)) is out


def test_the_context_is_copied_without_what_is_ignored_and_with_modes_of_no_umask(tmp_path: Path) -> None:
    source, spool = tmp_path / "source", tmp_path / "spool"
    (source / "src").mkdir(parents=True)
    spool.mkdir()
    (source / ".dockerignore").write_text("*\n!src\n**/*.log\n")
    (source / "secret").write_text("x")
    for name, mode in (("a.py", 0o664), ("run.sh", 0o775), ("b.log", 0o600)):
        (source / "src" / name).write_text(name)
        (source / "src" / name).chmod(mode)
    (source / "src/link").symlink_to("a.py")
    with context.staged(str(source), "FROM x\n", str(spool)) as (folder, file):
        found = {str(p.relative_to(folder)): oct(p.lstat().st_mode & 0o777) for p in Path(folder).rglob("*") if not p.is_dir() and not p.is_symlink()}
        # The two files a build needs beside the context are the builder's own: each is kept out of the image by name.
        assert found == {"src/a.py": "0o644", "src/run.sh": "0o755", ".dockerignore": "0o644", ".mlhost.Dockerfile": "0o644"}
        assert os.readlink(Path(folder) / "src/link") == "a.py"
        assert Path(file).read_text() == "FROM x\n"
    assert list(spool.iterdir()) == []


def test_what_ties_an_image_to_one_machine_is_warned_of_with_its_line() -> None:
    files = {
        "Dockerfile": "FROM x\n# -march=native\nRUN CFLAGS='-O3 -march=native' pip install x\nENV TORCH_CUDA_ARCH_LIST=8.6\n",
        "build.sh": "cmake -DGGML_NATIVE=ON\nRUSTFLAGS='-C target-cpu=native' cargo build\n",
    }
    found = {(one.file, one.line) for one in portability.warnings(files, DATA["portability"])}
    assert found == {("Dockerfile", 3), ("Dockerfile", 4), ("build.sh", 1), ("build.sh", 2)}
    good = {"Dockerfile": "RUN gcc -march=x86-64-v3 -mtune=native\nENV TORCH_CUDA_ARCH_LIST='8.0 8.6+PTX'\n"}
    assert portability.warnings(good, DATA["portability"]) == ()
    assert [one.found for one in portability.missing({"requirements.txt": "torch\nflash-attn==2.6\n"}, DATA["needs"])] == ["flash-attn"]
    assert portability.missing({"requirements.txt": "flash-attn\n", "Dockerfile": "ENV TORCH_CUDA_ARCH_LIST=8.0+PTX"}, DATA["needs"]) == ()


def test_the_patterns_in_the_data_are_patterns() -> None:
    for row in (*DATA["portability"], *DATA["needs"]):
        re.compile(row["pattern"])


# ---------------------------------------------------------------- a Dockerfile for a fleet


@pytest.mark.parametrize(
    ("hosts", "release"),
    [
        ([cuda.Host("a", "550.163.01")], "12.4.1"),
        ([cuda.Host("a", "580.95.05"), cuda.Host("b", "535.261.03")], "12.2.0"),
        ([cuda.Host("a", "580"), cuda.Host("b", "595.58.03", ("hopper",))], "13.0.3"),
        ([cuda.Host("a", "580.95.05", ("pascal",))], "12.9.0"),
        ([cuda.Host("a", "570.211.01", ("blackwell",)), cuda.Host("b", "575", ("ada",))], "12.8.1"),
        ([], "13.0.3"),
    ],
)
def test_the_cuda_of_an_image_runs_on_every_driver_and_every_gpu(hosts: list[cuda.Host], release: str) -> None:
    assert cuda.choose(hosts, DATA).release == release


@pytest.mark.parametrize("hosts", [
    [cuda.Host("old", "550.163.01"), cuda.Host("new", "580.95.05", ("blackwell",))],
    [cuda.Host("old", "470.256.02", ("kepler",)), cuda.Host("new", "580.95.05", ("hopper",))],
    [cuda.Host("ancient", "304.137")],
])  # fmt: skip
def test_hosts_that_no_one_image_suits_are_named(hosts: list[cuda.Host]) -> None:
    with pytest.raises(cuda.NoFit, match="|".join(host.name for host in hosts)):
        cuda.choose(hosts, DATA)


LOCK = "torch==2.4.0 \\\n    --hash=sha256:aa\n--index-url https://x\nnumpy==1 --hash=sha256:bb  # why\n"


@pytest.mark.parametrize(
    ("files", "kind", "file", "hashed"),
    [
        ({"requirements.txt": "torch\n"}, "pip", "requirements.txt", False),
        ({"requirements.txt": "torch\n", "requirements.lock": LOCK}, "pip", "requirements.lock", True),
        ({"pyproject.toml": "[project]\ndependencies=['jax']", "uv.lock": ""}, "pip", "requirements.lock", False),
        ({"environment.yml": "dependencies: [pytorch]"}, "conda", "environment.yml", False),
        ({}, "none", "", True),
    ],
)
def test_a_project_says_how_its_dependencies_are_named_and_whether_they_are_locked(files: dict[str, str], kind: str, file: str, hashed: bool) -> None:
    found = project.detect(files, list(files), DATA)
    assert (found.kind, found.file, found.hashed) == (kind, file, hashed)
    assert bool(found.make_lock) == (not hashed)


@pytest.mark.parametrize(
    ("text", "flavor"), [("torch\n", "base"), ("cupy-cuda12x\n", "cudnn-runtime"), ("torch\nflash-attn\n", "cudnn-devel"), ("numpy\n", "base")]
)
def test_the_kind_of_cuda_image_follows_from_the_dependencies(text: str, flavor: str) -> None:
    assert template.flavor(project.detect({"requirements.txt": text}, [], DATA))[0] == flavor


@pytest.mark.parametrize("files", [{"requirements.lock": LOCK}, {"requirements.txt": "x"}, {"environment.yml": "x"}, {}])
def test_every_dockerfile_that_is_written_is_one_that_is_read(files: dict[str, str]) -> None:
    written = template.write(project.detect(files, ["train.py"], DATA), cuda.choose([cuda.Host("a", "550.1")], DATA), ["libgl1"])
    found = dockerfile.stages(written.dockerfile)
    assert next(stage.name for stage in found if stage.name != "conda") == "fetch"
    base = "docker.io/nvidia/cuda:12.4.1-base-ubuntu22.04"
    assert {stage.base for stage in dockerfile.outside(found)} - {"docker.io/mambaorg/micromamba:2"} == {base}
    last = found[-1].instructions
    assert [one.value for one in last if one.keyword == "USER"] == ["app"]
    assert last[-1].value == '["python3", "train.py"]'
    networked = [one for stage in found if stage.name != "fetch" for one in stage.instructions if re.search(r"apt-get|pip download|curl", one.value)]
    assert networked == [], "only the stage `fetch` may need a network"
    assert all(len(row) < 160 for row in written.dockerfile.splitlines())


def test_init_looks_at_captures_and_replaces_nothing_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str], checkout: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch\n")
    capture = str(checkout / "tests/hosts/ubuntu2404-aws-l4/probe.txt")
    assert main(["image", "init", str(tmp_path), "--capture", capture, "--driver", "550.x"]) == 0
    text = (tmp_path / "Dockerfile").read_text()
    assert "ARG BASE=docker.io/nvidia/cuda:12.4.1-base-ubuntu22.04" in text
    assert "driver 550" in text
    assert "uv pip compile --generate-hashes" in capsys.readouterr().out
    assert main(["image", "init", str(tmp_path), "--driver", "550"]) == 2
    assert (tmp_path / "Dockerfile").read_text() == text
    for words in (["--driver", "new"], ["--driver", "550", "--apt", "a b"], ["--driver", "550", "--cuda", "x"]):
        assert main(["image", "init", str(tmp_path), "--force", *words]) == 2


# ---------------------------------------------------------------- histories


CLASSIC = [
    {"CreatedAt": "2026-01-02T00:00:00Z", "CreatedBy": '/bin/sh -c #(nop)  CMD ["python3"]', "Size": "0", "Comment": ""},
    {"CreatedAt": "2026-01-02T00:00:00Z", "CreatedBy": "|1 SOURCE_DATE_EPOCH=5 /bin/sh -c apt-get update &&     apt-get install -y x", "Size": "1234", "Comment": ""},
    {"CreatedAt": "2026-01-01T00:00:00Z", "CreatedBy": "/bin/sh -c #(nop) ADD file:1 in / ", "Size": "5000", "Comment": ""},
]  # fmt: skip
BUILDKIT = [
    {"CreatedAt": "2026-01-02T00:00:00Z", "CreatedBy": 'CMD ["python3"]', "Size": "0B", "Comment": "buildkit.dockerfile.v0"},
    {"CreatedAt": "2026-01-02T00:00:00Z", "CreatedBy": "RUN |1 SOURCE_DATE_EPOCH=5 /bin/sh -c apt-get update && apt-get install -y x # buildkit", "Size": "1234B",
     "Comment": "buildkit.dockerfile.v0"},
    {"CreatedAt": "2026-01-01T00:00:00Z", "CreatedBy": "/bin/sh -c #(nop) ADD file:1 in / ", "Size": "5000B", "Comment": ""},
]  # fmt: skip


@pytest.mark.parametrize("rows", [CLASSIC, BUILDKIT])
def test_a_history_reads_like_the_dockerfile_whichever_builder_wrote_it(rows: list[dict[str, str]]) -> None:
    steps = history.steps("\n".join(map(json.dumps, rows)), ["sha256:" + "1" * 64, "sha256:" + "2" * 64])
    assert [step.command.split()[0] for step in steps] == ["ADD", "RUN", "CMD"]
    assert "|1" not in steps[1].command
    assert [step.size for step in steps] == [5000, 1234, 0]
    assert [step.layer[7:9] for step in steps] == ["11", "22", ""]
    text = "FROM x\nARG SOURCE_DATE_EPOCH\nRUN apt-get update && \\\n    apt-get install -y x\nCMD [\"python3\"]\n"
    assert [step.lines for step in history.placed(steps, text)] == ["", "3-4", "5"]
    assert [step.lines for step in history.placed(steps, "FROM x\nRUN something else\nENTRYPOINT y\n")] == ["", "", ""]
    whole = history.text("head", steps, "Dockerfile", 60, False, lambda size: f"{size:.0f}")
    assert "apt-get install -y x" in whole


# ---------------------------------------------------------------- other machines


def test_what_a_host_says_of_its_docker_becomes_a_value() -> None:
    info = json.dumps({"ServerVersion": "26.1.5", "Driver": "overlay2", "DockerRootDir": "/var/lib/docker", "DriverStatus": [["Backing Filesystem", "extfs"]]})
    row = json.dumps({"Id": DIGEST, "RepoTags": ["train:1"], "RootFS": {"Layers": [DIGEST]}, "Size": 5, "Architecture": "amd64"})
    text = f"docker sudo -n docker\ntool zstd\ntool gnutar\ninfo {info}\nspace 1000\nimage {row}\nabsent other:2\nlayers [\"{DIGEST}\"]\nlayers null\n"
    there = remote.parsed("gpu-7", ["train:1", "other:2"], text)
    assert (there.docker, there.space, there.absent, there.chains) == ("sudo -n docker", 1_024_000, ("other:2",), frozenset({DIGEST}))
    assert [image.id for image in there.images] == [DIGEST]
    assert remote.sending(there, there.images, "zst", [DIGEST]) == (
        "LC_ALL=C; export LC_ALL; { sudo -n docker save train:1 || echo 'docker save failed' >&2; } | "
        f"tar --delete -f - blobs/sha256/{'5' * 64} | zstd -T0 -3 -q -c"
    )
    assert remote.taking(there, "zst").endswith("zstd -dc -q | sudo -n docker load -q")
    for said in ("docker none\n", "docker closed permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n"):
        with pytest.raises(engine.NoDocker, match="gpu-7"):
            remote.parsed("gpu-7", [], said)


@pytest.mark.parametrize("name", ["-x", "a b", "a;b", "$(x)", "", "a'b"])
def test_a_name_that_could_be_more_than_a_name_is_refused_before_any_shell_sees_it(name: str) -> None:
    with pytest.raises(UsageError):
        remote.check(name)


def test_ssh_gets_the_same_choices_as_mlhosts_own_transport() -> None:
    options = SshOptions(config_file="none", identity_files=("/k",), host_keys="enforce", known_hosts_file="/kh", connect_timeout=7.5)
    words = remote.ssh("ada@[2001:db8::1]:2222", options, "echo 'x'")
    joined = " ".join(words)
    for part in ("-F none", "-i /k", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/kh", "ConnectTimeout=8", "-l ada", "-p 2222", "BatchMode=yes"):
        assert part in joined
    assert words[-2] == "2001:db8::1"


def test_a_layer_is_left_out_only_where_that_suits_every_image_that_has_it() -> None:
    a, b, c = (f"sha256:{digit * 64}" for digit in "abc")

    def image(*diff_ids: str) -> engine.Image:
        return engine.Image(DIGEST, "x", ("x",), (), diff_ids, 1, "amd64")

    def there(chains: tuple[str, ...], containerd: bool = False) -> remote.There:
        about = engine.About("overlay2", "/", containerd, "26.1", "x86_64")
        return remote.There("b", "docker", about, frozenset(), -1, (), (), frozenset(chains))

    has = there(archive.chain_ids([a]))
    assert copying._known([image(a, b)], None, has) == frozenset({a})
    assert copying._known([image(a, b), image(c, a)], None, has) == frozenset(), "the second needs it upon another layer"
    assert copying._known([image(a, b)], None, there((a,), containerd=True)) == frozenset()


def test_a_checksum_file_is_read_as_sha256sum_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.zst"
    assert load._wanted(str(file), None) == ""
    (tmp_path / "x.tar.zst.sha256").write_text(f"{'a' * 64}  x.tar.zst\n")
    assert load._wanted(str(file), None) == "a" * 64
    (tmp_path / "x.tar.zst.sha256").write_text("nothing\n")
    with pytest.raises(UsageError, match="no checksum"):
        load._wanted(str(file), None)


def test_every_command_of_the_group_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    from provision.cli.image import COMMANDS

    for name in COMMANDS:
        assert main(["image", name, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"mlhost image {name}" in said
        assert "Exit codes" in said
    assert main(["image", "bild"]) == 2
