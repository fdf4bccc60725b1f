"""The maintainers' tool, against a local server that stands in for the vendors: a double with the layouts that they have, holding a handful of files.

Nothing here reaches outside: every URL is asked of the double, and what it does not have is a 404.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provision import openpgp, refresh, vendors
from provision.catalog import load
from provision.errors import Failed
from provision.vendors import Vendors
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors as Published

pytestmark = pytest.mark.slow

TODAY = "2027-01-02"


def public_key(created: int) -> bytes:
    """A version 4 public key packet (a double: it signs nothing) whose fingerprint depends on `created`."""
    body = b"\x04" + created.to_bytes(4, "big") + b"\x01" + b"\x00\x11" + b"\x01\x00\x01" + b"\x00\x11" + b"\x01\x00\x01"
    return bytes([0x99]) + len(body).to_bytes(2, "big") + body


class World:
    """The files that the double has: "/HOST/PATH" -> content."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = ""

    def put(self, url: str, content: bytes) -> None:
        parts = urlsplit(url)
        self.files[f"/{parts.netloc}{parts.path}"] = content

    def debs(self, folder: str, **versions: list[str]) -> None:
        text = "".join(
            f"Package: {name.replace('_', '-')}\nArchitecture: amd64\nVersion: {version}\nDepends: x\n\n" for name, of in versions.items() for version in of
        )
        self.put(f"{folder}/Packages.gz", gzip.compress(text.encode()))

    def rpms(self, base: str, **versions: list[str]) -> None:
        text = "".join(
            f'<package type="rpm"><name>{name.replace("_", "-")}</name><arch>x86_64</arch><version epoch="3" ver="{version}" rel="1.el9"/></package>\n'
            for name, of in versions.items()
            for version in of
        )
        self.put(f"{base}/repodata/ab-primary.xml.gz", gzip.compress(f"<metadata>{text}</metadata>".encode()))
        self.put(f"{base}/repodata/repomd.xml", b'<repomd><data type="primary">\n<location href="repodata/ab-primary.xml.gz"/></data></repomd>')


@pytest.fixture
def world() -> Iterator[World]:
    state = World()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            body = state.files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the catalog's data with the double's key in place of the vendors', which nobody here can serve."""
    folder = tmp_path / "data"
    shutil.copytree(refresh.DATA, folder, ignore=shutil.ignore_patterns("schema"))
    return folder


def stocked(world: World, folder: Path) -> None:
    """The vendors as the catalog in `folder` expects them: every repository that it offers, with a key that the catalog is then told to pin."""
    key = public_key(1)
    fingerprint = openpgp.fingerprints(key)[0]
    path = folder / "repositories.toml"
    text = path.read_text()
    text = re.sub(r'(?m)^(fingerprints = \[)"[^\]]+\]', rf'\1"{fingerprint}"]', text)
    text = re.sub(r'(?m)^fingerprint = "[0-9A-F]{40}"', f'fingerprint = "{fingerprint}"', text)
    path.write_text(text)
    catalog = load(lambda name: refresh._toml(folder, name), enable_all=True)
    drivers = [branch.newest_release for branch in catalog.branches]
    for platform in refresh._platforms(catalog, ("x86_64", "aarch64")):
        current = platform.docker_newest or ("27.0.1" if platform.docker_frozen else "29.8.1")
        served = [f"{platform.cuda_first}.1.1", f"{platform.cuda_last}.2.1" if platform.cuda_last else drivers[-1]]
        for name, packages in {
            "docker": {"docker_ce": [f"5:{current}-1~x", "5:20.10.1~3-0~x"]},
            "toolkit": {"nvidia_container_toolkit": [f"{platform.toolkit_newest or '1.20.1'}-1", "1.11.0-1"]},
            "cuda": {"nvidia_driver_cuda": [f"{version}-1ubuntu1" for version in served]},
        }.items():
            repository = catalog.repository(name, platform)
            if repository is None:
                continue
            if platform.family != "debian":
                plain = {n: [v.split(":")[-1].split("-")[0] for v in versions] for n, versions in packages.items()}
                world.rpms(repository.uri, **plain)
            elif repository.components:
                world.debs(f"{repository.uri}/dists/{repository.suite}/stable/binary-{platform.deb_arch}", **packages)
            else:
                world.debs(repository.uri, **packages)
        for name in ("docker", "toolkit", "epel"):
            repository = catalog.repository(name, platform)
            if repository is not None and repository.key_url:
                world.put(repository.key_url, key)
    for row in refresh._toml(folder, "repositories")["key"]:
        for system in row["systems"]:
            if row["fingerprint"]:
                world.put(f"https://developer.download.nvidia.com/compute/cuda/repos/{system}/x86_64/{row['file']}", key)
    files = refresh._toml(folder, "drivers")
    for row in files["runfile"]:
        name = row["path"].rpartition("/")[2]
        world.put(f"{files['installer']['base']}/{row['path']}.sha256sum", f"{row['sha256']}  {name}\n".encode())
    world.put(refresh.RELEASES, json.dumps({v[:3]: {"type": "x", "driver_info": [{"release_version": v}]} for v in drivers}).encode())


def run(world: World, folder: Path, *options: str) -> tuple[int, dict[str, str]]:
    code = refresh.main(["--via", world.url, "--data", str(folder), *options], today=TODAY)
    return code, {path.name: path.read_text() for path in folder.glob("*.toml")}


# ---------------------------------------------------------------- reading what vendors serve


def test_the_newest_version_is_found_whatever_stands_before_and_behind_it() -> None:
    assert vendors.newest(["5:29.7.2-1~ubuntu.24.04~noble", "5:29.10.0-1~x", "5:20.10.21~3-0~ubuntu-focal"]) == "29.10.0"
    assert vendors.newest([]) == ""


def test_driver_branches_are_read_from_the_packages_that_are_drivers() -> None:
    packages = {"nvidia-driver-cuda": ["580.126.20-1", "580.95.05-1"], "libnvidia-compute-595": ["595.91.07-1ubuntu1"], "cuda-toolkit-13-0": ["13.0.3-1"]}
    assert vendors.driver_branches(packages) == {"580": "580.126.20", "595": "595.91.07"}


def test_a_packages_index_is_read_compressed_or_plain(world: World) -> None:
    asked = Vendors(world.url)
    world.debs("https://vendor.example/deb", a=["1.0-1", "2.0-1"], b=["3"])
    assert asked.deb_packages("https://vendor.example/deb") == {"a": ["1.0-1", "2.0-1"], "b": ["3"]}
    world.put("https://vendor.example/plain/Packages", b"Package: c\nVersion: 4\n\n")
    assert asked.deb_packages("https://vendor.example/plain") == {"c": ["4"]}
    assert asked.deb_packages("https://vendor.example/none") is None


def test_an_rpm_repository_is_read_through_its_index(world: World) -> None:
    world.rpms("https://vendor.example/rpm", docker_ce=["29.7.2", "29.8.1"])
    assert Vendors(world.url).rpm_packages("https://vendor.example/rpm") == {"docker-ce": ["29.7.2", "29.8.1"]}
    assert Vendors(world.url).rpm_packages("https://vendor.example/none") is None


def test_an_index_in_an_unknown_compression_is_told_not_guessed(world: World) -> None:
    world.put("https://vendor.example/z/repodata/repomd.xml", b'<data type="primary"><location href="repodata/p.xml.zst"/></data>')
    world.put("https://vendor.example/z/repodata/p.xml.zst", b"?")
    with pytest.raises(Failed, match=r"compressed in a way that is not read here"):
        Vendors(world.url).rpm_packages("https://vendor.example/z")


def test_a_vendor_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(Failed, match=r"https://vendor\.example/x cannot be fetched"):
        Vendors("http://127.0.0.1:9").get("https://vendor.example/x")


def test_a_web_page_in_place_of_a_key_is_no_key(world: World) -> None:
    world.put("https://vendor.example/k", b"<html>sign in</html>")
    with pytest.raises(Failed, match="is no key"):
        Vendors(world.url).key("https://vendor.example/k")


# ---------------------------------------------------------------- the whole tool


def test_where_nothing_is_new_only_dates_change_and_the_check_passes(world: World, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(world, data)
    for line in ("CDF6BA43", "1940C73E"):  # keys that the catalog does not know in full: as if they did not exist
        path = data / "repositories.toml"
        path.write_text(re.sub(rf'\[\[key\]\]\nfile = "{line}(?s:.*?)(?=\n\[\[|\Z)', "", path.read_text()))
    before = {path.name: path.read_text() for path in data.glob("*.toml")}
    code, after = run(world, data, "--check")
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("!")] == []
    changed = [line for line in said.splitlines() if re.match(r"[+-][^+-]", line)]
    assert changed
    assert all("verified = " in line for line in changed)
    assert code == 0
    assert after == before, "--check writes nothing"
    assert world.asked


def test_a_newer_release_is_shown_as_a_diff_and_written(world: World, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(world, data)
    world.put(refresh.RELEASES, json.dumps([{"driver_info": [{"release_version": "580.190.01"}, {"release_version": "580.178.04"}]}]).encode())
    toolkit = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64"
    world.debs(toolkit, nvidia_container_toolkit=["1.21.0-1", "1.20.1-1"])
    assert run(world, data, "--check")[0] == 1
    _, after = run(world, data)
    said = capsys.readouterr().out
    assert '-newest = "580.178.04"\n+newest = "580.190.01"\n' in said
    assert 'number = "580"' in said, "the diff shows which row it is"
    drivers = refresh._toml(data, "drivers")
    row = next(row for row in drivers["branch"] if row["number"] == "580")
    assert (row["newest"], row["verified"]) == ("580.190.01", TODAY)
    rows = [row for row in refresh._toml(data, "repositories")["repository"] if row["name"] == "toolkit"]
    assert [(row["newest"], row["verified"]) for row in rows] == [("1.21.0", TODAY), ("1.20.1", TODAY)]
    assert "# Driver branches, and the packages" in after["drivers.toml"], "comments stay"


def test_what_a_person_must_decide_is_told_and_not_written(world: World, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(world, data)
    before = (data / "distros.toml").read_text()
    world.put("https://download.docker.com/linux/debian/gpg", public_key(2))
    del world.files["/download.docker.com/linux/ubuntu/dists/noble/stable/binary-amd64/Packages.gz"]
    world.put(refresh.RELEASES, json.dumps({"700": {"driver_info": [{"release_version": "700.10.01"}]}}).encode())
    world.debs("https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64", nvidia_driver_cuda=["595.91.07-1", "615.71.09-1"])
    code, after = run(world, data)
    said = capsys.readouterr().out
    assert code == 1
    assert "THE KEY HAS CHANGED: https://download.docker.com/linux/debian/gpg" in said
    assert "Docker does not serve Ubuntu 24.04 any more" in said
    assert "Driver branch 700 (700.10.01) is new" in said
    assert "debian13/x86_64 begins with branch 595, not 580" in said
    assert after["distros.toml"] == before


def test_a_key_known_by_short_id_only_gets_its_fingerprint_if_it_is_the_one_that_others_pinned(
    world: World, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stocked(world, data)
    key = public_key(77)
    fingerprint = openpgp.fingerprints(key)[0]
    name = f"{fingerprint[-8:]}.pub"
    path = data / "repositories.toml"
    pinned = hashlib.sha256(b"".join(line for line in key.splitlines(keepends=True) if not line.startswith(b"Version"))).hexdigest()
    text = path.read_text().replace("CDF6BA43.pub", name)
    path.write_text(text.replace("afbea87d3b979b3788ef34223aeeb323ade481128e2c133723ae99b8a51368bb", pinned))
    world.put(f"https://developer.download.nvidia.com/compute/cuda/repos/rhel10/x86_64/{name}", key)
    world.put("https://developer.download.nvidia.com/compute/cuda/repos/fedora43/x86_64/1940C73E.pub", key)
    run(world, data)
    said = capsys.readouterr().out
    assert f'+fingerprint = "{fingerprint}"' in said
    assert "once a second source confirms" in said
    assert "which is not the key it is named after" in said, "another key under that name is not taken"
    rows = {row["file"]: row for row in refresh._toml(data, "repositories")["key"]}
    assert rows[name]["fingerprint"] == fingerprint
    assert rows["1940C73E.pub"]["fingerprint"] == ""


def test_one_vendor_that_is_down_does_not_hide_the_others(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = refresh.main(["--check", "--via", "http://127.0.0.1:9", "--data", str(data)], today=TODAY)
    said = capsys.readouterr().out
    assert code == 1
    assert "releases.json cannot be fetched" in said
    assert "download.docker.com" in said


def test_repositories_as_aptftparchive_and_gpg_make_them_are_read_where_the_vendors_have_them(
    vendors: Published, vendor_server: FileServer, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lab's repositories lie below the vendors' own names; only two systems of Debian are there, and the keys are the lab's."""
    code = refresh.main(["--via", vendor_server.url, "--data", str(data)], today=TODAY)
    said = capsys.readouterr().out
    assert code == 1
    for name, url in (("docker", "https://download.docker.com/linux/debian/gpg"), ("toolkit", "https://nvidia.github.io/libnvidia-container/gpgkey")):
        assert f"THE KEY HAS CHANGED: {url} has {vendors.fingerprint(name)}; pinned is " in said
    served = {line.split("(")[-1] for line in said.splitlines() if "does not serve" in line and "Docker" in line}
    assert any("/ubuntu/dists/noble/" in url for url in served)
    assert not any("/debian/dists/trixie/" in url for url in served), "what is there is found"
    rows = [row for row in refresh._toml(data, "repositories")["repository"] if row["name"] == "toolkit"]
    assert [row["verified"] == TODAY for row in rows] == [True, False], "only what was seen is dated"
    assert all(row["source"] for row in rows), "and says from where it is known"
    assert f'+verified = "{TODAY}"' in said
    assert load(lambda name: refresh._toml(data, name), enable_all=True).systems, "what was written can be read"


# ---------------------------------------------------------------- writing


def test_only_the_named_value_of_the_named_row_is_written() -> None:
    text = '# first\n\n[[branch]]\nnumber = "580"\nnewest = "580.1"  \nverified = "a"\n\n# second\n[[branch]]\nnumber = "595"\nnewest = "595.1"\n\n[[other]]\nnewest = "x"\n'
    edit = refresh.Edit("drivers", "branch", (("number", "595"),), "newest", "595.2")
    assert refresh.rewritten(text, edit) == text.replace('"595.1"', '"595.2"')


def test_a_row_that_is_not_there_is_an_error_and_never_another_rows_value() -> None:
    text = '[[branch]]\nnumber = "580"\n\n[[packages]]\nnewest = "x"\n'
    with pytest.raises(KeyError, match=r"no .*branch.* with"):
        refresh.rewritten(text, refresh.Edit("drivers", "branch", (("number", "580"),), "newest", "1"))


def test_a_checksum_that_has_changed_is_told_and_never_written(world: World, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(world, data)
    files = refresh._toml(data, "drivers")
    row = files["runfile"][0]
    world.put(f"{files['installer']['base']}/{row['path']}.sha256sum", f"{'0' * 64}  x.run\n".encode())
    code, after = run(world, data)
    assert code == 1
    assert "THE FILE HAS CHANGED" in capsys.readouterr().out
    assert row["sha256"] in after["drivers.toml"]
    assert "0" * 64 not in after["drivers.toml"]


def test_an_installer_that_is_behind_its_branch_is_told(world: World, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(world, data)
    path = data / "drivers.toml"
    path.write_text(path.read_text().replace('newest = "580.178.04"', 'newest = "580.199.01"'))
    run(world, data, "--check")
    said = capsys.readouterr().out
    assert "Branch 580 is at 580.199.01; the installer for x86_64 is still 580.178.04" in said
