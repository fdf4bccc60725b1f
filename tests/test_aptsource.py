"""Apt sources found, taken over and written; the results are read by the real apt where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provision import aptsource
from provision.facts import apt
from provision.model import AptSource

DOCKER = "https://download.docker.com/linux/debian"
URIS = (DOCKER,)
KEY = "/etc/apt/keyrings/docker.asc"
DEBIAN = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian.gpg\n"
OURS = "/etc/apt/sources.list.d/docker.sources"


def sources(texts: dict[str, str]) -> tuple[AptSource, ...]:
    found: tuple[AptSource, ...] = ()
    for path, text in texts.items():
        found += apt.deb822(path, text) if path.endswith(".sources") else apt.one_line(path, text)
    return found


def taken_over(texts: dict[str, str], **options: tuple[str, ...]) -> dict[str, str]:
    """The files as they are after mlhost has written its own and cleared the others."""
    moved = aptsource.takeover(OURS, URIS, sources(texts), texts, **options)
    kept = {path: text for path, text in texts.items() if path not in moved.obsolete}
    return {**kept, **dict(moved.edits), OURS: aptsource.deb822(DOCKER, "bookworm", ("stable",), KEY, "amd64")}


def read_by_apt(folder: Path, texts: dict[str, str]) -> list[str]:
    """The release file of every repository and suite that the real apt would fetch. Fails where apt refuses the files."""
    if not shutil.which("apt-get"):
        pytest.skip("there is no apt-get here")
    parts = folder / "sources.list.d"
    parts.mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(texts.get("/etc/apt/sources.list", ""))
    for path, text in texts.items():
        if path != "/etc/apt/sources.list":
            (parts / Path(path).name).write_text(text)
    options = (
        f"Dir::Etc::sourcelist={folder}/sources.list",
        f"Dir::Etc::sourceparts={parts}",
        f"Dir::State::lists={folder}/lists",
    )
    words = [word for option in (*options, "APT::Architecture=amd64") for word in ("-o", option)]
    done = subprocess.run(
        ["apt-get", "-q", "update", "--print-uris", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return sorted({line.split("'")[1] for line in done.stdout.splitlines() if "Release' " in line})


EMBEDDED = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBFit2ioBEADhWpZ8\n -----END PGP PUBLIC KEY BLOCK-----\n"
FORMS = {
    "one line with options": {
        "/etc/apt/sources.list.d/docker.list": f"deb [arch=amd64 signed-by=/x.gpg] {DOCKER} bookworm stable\n"
    },
    "two lines, one of them source": {
        "/etc/apt/sources.list.d/docker.list": f"deb {DOCKER} bookworm stable\ndeb-src [signed-by=/x] {DOCKER} bookworm stable\n"
    },
    "http and a doubled slash": {
        "/etc/apt/sources.list.d/d.list": "deb http://download.docker.com//linux/debian/ bookworm stable\n"
    },
    "in sources.list among others": {
        "/etc/apt/sources.list": f"# mine\ndeb http://mirror.example/debian bookworm main\ndeb {DOCKER} bookworm stable # docker\n"
    },
    "deb822 of its own": {
        "/etc/apt/sources.list.d/x.sources": f"Types: deb\nURIs: {DOCKER}/\nSuites: bookworm\nComponents: stable\n{EMBEDDED}"
    },
    "deb822 with an embedded key beside another": {
        "/etc/apt/sources.list.d/all.sources": f"{DEBIAN}\nEnabled: yes\nTypes: deb\nURIs: {DOCKER}\nSuites: bookworm\nComponents: stable\n{EMBEDDED}\n\n{DEBIAN}".replace(
            "bookworm bookworm-updates", "bookworm-security", 1
        )
    },
    "several URIs in one entry": {
        "/etc/apt/sources.list.d/all.sources": f"Types: deb\nURIs: http://mirror.example/x\n {DOCKER}\n# why not\nSuites: bookworm\nComponents: stable\n"
    },
    "our own path shared with another repository": {
        OURS: f"{DEBIAN}\nTypes: deb\nURIs: {DOCKER}\nSuites: bookworm\nComponents: stable\nSigned-By: /x.gpg\n"
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_after_a_takeover_apt_reads_the_repository_once_and_all_others_still(tmp_path, form):
    texts = FORMS[form]
    path = aptsource.own_path(OURS, URIS, sources(texts))
    moved = aptsource.takeover(path, URIS, sources(texts), texts)
    after = {p: t for p, t in texts.items() if p not in moved.obsolete}
    after = {**after, **dict(moved.edits), path: aptsource.deb822(DOCKER, "bookworm", ("stable",), KEY, "amd64")}
    assert [s.path for s in aptsource.naming(sources(after), URIS)] == [path]
    assert aptsource.clash(sources(after), "amd64") == ()
    others = {aptsource.normal(u) for s in sources(texts) for u in s.uris} - {aptsource.normal(DOCKER)}
    assert {aptsource.normal(u) for s in sources(after) for u in s.uris} - {aptsource.normal(DOCKER)} == others
    sites = read_by_apt(tmp_path, after)
    assert len([s for s in sites if "docker" in s]) == 1
    assert bool([s for s in sites if "mirror.example" in s]) == bool(others)


def test_a_disabled_entry_is_left_alone(tmp_path):
    off = f"Enabled: no\nTypes: deb\nURIs: {DOCKER}\nSuites: bookworm\nComponents: stable\nSigned-By: /old.gpg\n"
    texts = {"/etc/apt/sources.list.d/a.sources": off, "/etc/apt/sources.list.d/b.list": f"# deb {DOCKER} bookworm stable\n"}
    after = taken_over(texts)
    assert {**after, **texts} == after
    read_by_apt(tmp_path, after)


def test_two_files_with_different_keys_clash_as_they_do_for_apt(tmp_path):
    texts = {
        "/etc/apt/sources.list.d/a.list": f"deb [signed-by=/a.gpg] {DOCKER} bookworm stable\n",
        "/etc/apt/sources.list.d/b.sources": f"Types: deb\nURIs: {DOCKER}\nSuites: bookworm\nComponents: stable\nSigned-By: /b.gpg\n",
    }
    assert aptsource.clash(sources(texts), "amd64") == tuple(texts)
    with pytest.raises(AssertionError, match="Conflicting values set for option Signed-By"):
        read_by_apt(tmp_path, texts)


def test_two_suites_with_different_keys_do_not_clash(tmp_path):
    texts = {
        "/etc/apt/sources.list.d/a.list": f"deb [signed-by=/a.gpg] {DOCKER} bullseye stable\n",
        "/etc/apt/sources.list.d/b.list": f"deb [signed-by=/b.gpg] {DOCKER} bookworm stable\n",
    }
    assert aptsource.clash(sources(texts), "amd64") == ()
    read_by_apt(tmp_path, texts)


def test_the_architecture_written_out_and_left_to_apt_are_one_repository(tmp_path):
    base = "https://nvidia.github.io/libnvidia-container/stable/deb"
    texts = {
        "/etc/apt/sources.list.d/a.list": f"deb [signed-by=/a.gpg] {base}/$(ARCH) /\n",
        "/etc/apt/sources.list.d/b.list": f"deb [signed-by=/b.gpg] {base}/amd64 /\n",
    }
    assert aptsource.clash(sources(texts), "amd64") == tuple(texts)
    with pytest.raises(AssertionError, match="Conflicting values"):
        read_by_apt(tmp_path, texts)


def test_an_older_form_of_the_vendors_repository_makes_way_and_a_file_of_that_name_with_more_in_it_stays():
    old = "/etc/apt/sources.list.d/nvidia-docker.list"
    options = {"legacy": ("nvidia-docker.list",), "hosts": ("nvidia.github.io",)}
    line = "deb https://nvidia.github.io/nvidia-docker/ubuntu18.04/$(ARCH) /\n"
    assert old not in taken_over({old: line}, **options)
    assert old in taken_over({old: line + "deb http://mirror.example/debian bookworm main\n"}, **options)
    assert "/etc/apt/sources.list.d/mine.list" in taken_over({"/etc/apt/sources.list.d/mine.list": line}, **options)


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:pw@download.docker.com/linux/debian/",
        "http://download.docker.com:80/linux/debian",
        "https://DOWNLOAD.docker.com//linux/debian",
    ],
)
def test_one_repository_is_known_by_all_its_spellings(uri):
    assert aptsource.normal(uri) == aptsource.normal(DOCKER)


@pytest.mark.parametrize(
    "uri",
    [
        "https://download.docker.com/linux/ubuntu",
        "https://download.docker.com:8443/linux/debian",
        "https://x:nonsense/linux/debian",
    ],
)
def test_another_repository_is_not(uri):
    assert aptsource.normal(uri) != aptsource.normal(DOCKER)


@pytest.mark.parametrize("write", [aptsource.deb822, aptsource.one_line])
@pytest.mark.parametrize(("suite", "components"), [("bookworm", ("stable",)), ("/", ())])
def test_what_is_written_is_read_back_the_same(tmp_path, write, suite, components):
    text = write(DOCKER, suite, components, KEY, "amd64")
    path = "/etc/apt/sources.list.d/x" + (".sources" if write is aptsource.deb822 else ".list")
    found = sources({path: text})
    assert found == (AptSource(path, path.endswith(".sources"), ("deb",), (DOCKER,), (suite,), components, KEY, ("amd64",)),)
    assert len(read_by_apt(tmp_path, {path: text})) == 1
