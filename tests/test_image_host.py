"""Images on real hosts of namespaces with Debian's Docker Engine (overlay2): built with the classic builder and with BuildKit, saved, loaded, pushed to a real
registry, and copied from host to host over SSH. mlhost runs on the host itself, as a user there would run it, but for `copy`, which runs here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.lab.fixtures import available
from tests.lab.keys import lab_keys
from tests.lab.nshost import NsHost
from tests.lab.registry import Registry
from tests.program import CHECKOUT, Ran, environment

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]

# What mlhost needs of this environment on the host for `image`, all pure Python.
NEEDED = ("click", "distro", "requests", "urllib3", "idna", "certifi", "charset_normalizer", "yaml", "rich", "pygments", "markdown_it", "mdurl")
# A small system of the host's own programs: a shell, Python and a few more, with their libraries.
SYSTEM = r"""set -e
base=/root/system python=$(readlink -f /usr/bin/python3)
mkdir -p $base/usr/bin $base/usr/lib $base/usr/lib64 $base/etc $base/var $base/tmp $base/dev $base/proc $base/sys
for name in bin lib lib64; do ln -s usr/$name $base/$name; done
for name in sh date env id ls mkdir cat head touch chmod; do cp -L "$(command -v $name)" $base/usr/bin/$name; done
cp "$python" $base/usr/bin/ && ln -s "${python##*/}" $base/usr/bin/python3
cp -a "/usr/lib/${python##*/}" $base/usr/lib/
cp /etc/passwd /etc/group $base/etc/
ldd $base/usr/bin/* "/usr/lib/${python##*/}"/lib-dynload/*.so 2>/dev/null | grep -o '/lib[^ ]*[^: )]' | sort -u | while read -r library; do
    [ -f "$library" ] || continue
    mkdir -p "$base/usr${library%/*}"
    cp -L "$library" "$base/usr$library"
done
"""
INSTALL = "apt-get -q update && apt-get -q -y install --no-install-recommends docker.io docker-cli zstd"


@dataclass
class Pair:
    """Two hosts with Docker, `first` with the classic builder and `second` with BuildKit, and a registry that both reach."""

    first: NsHost
    second: NsHost
    registry: Registry
    known_hosts: Path

    @property
    def base(self) -> str:
        """A small system in the registry, which both hosts have."""
        return f"{self.registry.address}/lab/system:1"


@pytest.fixture(scope="module")
def pair(fresh: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    known = tmp_path_factory.mktemp("pair") / "known_hosts"
    with available(lambda: Registry(host=fresh.network.address)) as registry:
        hosts = [fresh.host(), fresh.host()]
        known.write_text("".join(host.known_hosts() for host in hosts))
        for host in hosts:
            host.run(f"mkdir -p /etc/docker /root/packages /root/code; echo '{{\"insecure-registries\": [\"{registry.address}\"]}}' > /etc/docker/daemon.json", user="root")
        # Both at the same time: they mostly wait for each other's disk.
        with_buildx = (INSTALL, f"{INSTALL} docker-buildx")
        installs = [subprocess.Popen(ssh(host, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for host, command in zip(hosts, with_buildx)]
        for install in installs:
            said = install.communicate()[0]
            assert install.returncode == 0, said[-2000:]
        packages = Path(sysconfig.get_paths()["purelib"])
        for host in hosts:
            send(host, CHECKOUT, ("provision", "playbooks"), "/root/code")
            send(host, packages, tuple(name for name in NEEDED if (packages / name).exists()), "/root/packages")
        hosts[0].run("sh -s", user="root", stdin=SYSTEM)
        sh(hosts[0], f"tar -C /root/system -c . | docker import - {registry.address}/lab/system:1 && docker push -q {registry.address}/lab/system:1")
        hosts[1].run(f"docker pull -q {registry.address}/lab/system:1", user="root")
        try:
            yield Pair(hosts[0], hosts[1], registry, known)
        finally:
            for host in hosts:
                host.stop()


def ssh(host: NsHost, command: str) -> list[str]:
    options = ["-q", "-F", "none", "-i", str(lab_keys().client), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={host.ssh.known_hosts}"]
    return ["ssh", *options, f"root@{host.address}", command]


def send(host: NsHost, folder: Path, names: tuple[str, ...], target: str) -> None:
    with subprocess.Popen(["tar", "-C", str(folder), "--exclude=__pycache__", "-c", *names], stdout=subprocess.PIPE) as tar:
        subprocess.run(ssh(host, f"tar -x -C {target}"), stdin=tar.stdout, check=True)
    assert tar.returncode == 0


def image(host: NsHost, *words: str, folder: str = "/root", before: str = "") -> Ran:
    """`mlhost image …` on the host itself."""
    program = "PYTHONPATH=/root/code:/root/packages python3 -c 'from provision.cli import entrypoint; entrypoint()' image"
    done = host.run(f"mkdir -p {folder}; cd {folder}; {before} {program} {shlex.join(words)}", user="root", check=False)
    return Ran(done.code, done.out, done.err)


def sh(host: NsHost, command: str) -> str:
    return host.run(command, user="root").out.strip()


def id_of(host: NsHost, name: str) -> str:
    return sh(host, f"docker image inspect --format '{{{{.Id}}}}' {name} 2>/dev/null || true")


def copied(pair: Pair, *words: str) -> Ran:
    """`mlhost image copy …` here."""
    line = [sys.executable, "-m", "provision", "image", "copy", *words, "-F", "none", "--identity", str(lab_keys().client), "--known-hosts", str(pair.known_hosts)]
    done = subprocess.run(line, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def write(host: NsHost, folder: str, **files: str) -> None:
    for name, text in files.items():
        host.run(f"mkdir -p {folder}; cat > {folder}/{name.replace('__', '.')}", user="root", stdin=text)


@pytest.fixture(scope="module")
def program(pair: Pair) -> str:
    """An image with some files of its own on the first host."""
    write(pair.first, "/root/program", Dockerfile=f"FROM {pair.base}\nCOPY data /data\nRUN date > /when\nCMD [\"cat\", \"/when\"]\n")
    sh(pair.first, "cd /root/program && head -c 3000000 /dev/urandom > data && DOCKER_BUILDKIT=0 docker build -q -t program:1 .")
    return id_of(pair.first, "program:1")


class TestSavingAndLoading:
    @pytest.mark.parametrize(("how", "way"), [((), "read directly"), (("--through-docker",), "through docker save"), (("--format", "gz"), "gzip")])
    def test_what_was_saved_is_loaded_again_with_the_same_id(self, pair: Pair, program: str, how: tuple[str, ...], way: str) -> None:
        file = "out.tar.gz" if "gz" in how else "out.tar.zst"
        ran = image(pair.first, "save", "program:1", "--out", file, "--force", *how)
        assert ran.code == 0, str(ran)
        assert way in ran.out
        assert sh(pair.first, f"sha256sum -c {file}.sha256") == f"{file}: OK"
        sh(pair.first, "docker image rm program:1")
        assert id_of(pair.first, "program:1") == ""
        ran = image(pair.first, "load", file)
        assert ran.code == 0, str(ran)
        assert "its id is the saved one" in ran.out
        assert "is right" in ran.out
        assert id_of(pair.first, "program:1") == program

    def test_docker_reads_it_without_mlhost(self, pair: Pair, program: str) -> None:
        assert image(pair.first, "save", "program:1", pair.base, "--out", "two.tar.zst", "--force").code == 0
        sh(pair.first, "docker image rm program:1 && docker load -q -i two.tar.zst")
        assert id_of(pair.first, "program:1") == program

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            ("printf X | dd of=bad.tar.zst bs=1 seek=1000000 conv=notrunc status=none", "not what was saved|Unpacking"),
            ("truncate -s -100000 bad.tar.zst; rm bad.tar.zst.sha256", "Nothing was loaded|Unpacking"),
            ("echo hello > bad.tar.zst; rm bad.tar.zst.sha256", "no tar archive|ends in the middle|no image"),
            ("tar -cf bad.tar.zst /etc/passwd; rm bad.tar.zst.sha256", "no image"),
        ],
    )
    def test_a_damaged_file_is_refused_and_docker_has_nothing_of_it(self, pair: Pair, program: str, spoil: str, said: str) -> None:
        assert image(pair.first, "save", "program:1", "--out", "bad.tar.zst", "--force").code == 0
        sh(pair.first, f"cd /root; {spoil}; docker tag program:1 spare:1; docker image rm program:1")
        ran = image(pair.first, "load", "bad.tar.zst")
        assert ran.code == 1, str(ran)
        assert re.search(said, ran.err), str(ran)
        assert "Traceback" not in ran.err
        assert id_of(pair.first, "program:1") == ""
        sh(pair.first, "docker tag spare:1 program:1; docker image rm spare:1")

    def test_a_save_that_is_ended_leaves_nothing_under_the_name(self, pair: Pair, program: str) -> None:
        """The output is a pipe that nobody reads from, so that the save is surely under way when it is ended."""
        command = "cd /root; rm -f cut*; mkdir -p slow; printf '#!/bin/sh\\ncat >/dev/null; sleep 600\\n' > slow/zstd; chmod +x slow/zstd; " \
            "PATH=/root/slow:$PATH PYTHONPATH=/root/code:/root/packages setsid python3 -c 'from provision.cli import entrypoint; entrypoint()' " \
            "image save program:1 --out cut.tar.zst >/dev/null 2>cut.log & pid=$!; " \
            "n=0; until [ -e .cut.tar.zst.part ] || [ $n -gt 600 ]; do sleep 0.1; n=$((n+1)); done; [ -e .cut.tar.zst.part ] || exit 9; " \
            "kill -TERM $pid; wait $pid; echo $?; ls -A | grep cut.tar || true"  # fmt: skip
        done = pair.first.run(command, user="root", check=False)
        assert done.out.split() == ["130"], done

    def test_a_file_that_is_there_is_not_replaced_unasked_and_what_is_no_image_is_said(self, pair: Pair, program: str) -> None:
        sh(pair.first, "cd /root; echo mine > there.tar.zst")
        assert image(pair.first, "save", "program:1", "--out", "there.tar.zst").code == 2
        assert sh(pair.first, "cat /root/there.tar.zst") == "mine"
        ran = image(pair.first, "save", "nosuch:1")
        assert (ran.code, "no such image" in ran.err.lower()) == (1, True), str(ran)
        assert image(pair.first, "save", "--", "-x").code == 2
        assert image(pair.first, "load", "nowhere.tar").code == 2


DOCKERFILE = """ARG BASE={base}
FROM ${{BASE}} AS fetch
RUN mkdir /got && cat /proc/net/dev > /got/net && date > /got/when
FROM ${{BASE}}
ARG SOURCE_DATE_EPOCH
COPY --from=fetch /got/net /got/net
WORKDIR /app
COPY . .
RUN python3 -m compileall -q /app && \\
    cat /proc/net/dev > /net; mkdir -p /var/log && touch /var/log/empty
CMD ["python3", "/app/train.py"]
"""


@pytest.fixture(scope="module")
def pinned(pair: Pair) -> str:
    """The folder of the same project on both hosts; the first test of the class pins the first host's base, later ones the second's."""
    for host in (pair.first, pair.second):
        write(host, "/root/project", Dockerfile=DOCKERFILE.format(base=pair.base), train__py="print('trained')\n", __dockerignore="*.log\n", x__log="x")
    return "/root/project"


class TestBuilding:
    def test_a_base_by_tag_is_refused_until_its_digest_is_written_in(self, pair: Pair, pinned: str) -> None:
        ran = image(pair.first, "build", "--reproducible", "-t", "trained:1", ".", folder=pinned)
        assert ran.code == 2, str(ran)
        assert "moves" in ran.err or "move" in ran.err
        ran = image(pair.first, "build", "--pin", "--reproducible", "-q", "-t", "trained:1", ".", folder=pinned)
        assert ran.code == 0, str(ran)
        assert re.search(rf"^ARG BASE={re.escape(pair.base)}@sha256:[0-9a-f]{{64}}$", sh(pair.first, f"cat {pinned}/Dockerfile"), re.MULTILINE)

    @pytest.mark.parametrize("builder", ["classic", "buildkit"])
    def test_two_builds_are_one_image_and_the_build_proper_had_no_network(self, pair: Pair, pinned: str, builder: str) -> None:
        host = pair.first if builder == "classic" else pair.second
        ran = image(host, "build", "--pin", "--check", "-q", "--builder", builder, "-t", "trained:1", ".", folder=pinned)
        assert ran.code == 0, str(ran)
        assert "identical" in ran.out
        assert sh(host, "docker run --rm trained:1") == "trained"
        networks = sh(host, "docker run --rm trained:1 sh -c 'cat /got/net; echo ==; cat /net; ls /app'")
        fetched, _, built = networks.partition("==")
        assert "eth0:" in fetched
        assert "eth0:" not in built
        assert "x.log" not in built
        again = id_of(host, "trained:1")
        assert image(host, "build", "--reproducible", "-q", "--builder", builder, "-t", "trained:2", ".", folder=pinned).code == 0
        assert id_of(host, "trained:2") == again
        assert "mlhost-" not in sh(host, "docker images"), "what was made on the way is gone"

    def test_both_builders_put_the_same_files_into_it(self, pair: Pair, pinned: str) -> None:
        assert copied(pair, "trained:1", "--from", f"root@{pair.first.address}", "--to", f"root@{pair.second.address}").code == 0
        sh(pair.second, "docker tag trained:1 classic:1")
        ran = image(pair.second, "compare", "classic:1", "trained:2")
        # resolv.conf is laid into /etc for the while of a build, which leaves the folder itself, and no file, in the layer of one of them
        assert [line.strip() for line in ran.out.splitlines() if line.strip().startswith("layer")] in ([], ["layer 5: etc: is in the second only"]), str(ran)
        assert image(pair.second, "compare", "trained:2", "trained:2").code == 0

    def test_what_differs_between_two_builds_is_named_with_a_hint(self, pair: Pair, pinned: str) -> None:
        base = sh(pair.first, f"sed -n 's/^ARG BASE=//p' {pinned}/Dockerfile")
        write(pair.first, "/root/moody", Dockerfile=f"FROM {base}\nRUN mkdir -p /var/log && head -c 8 /dev/urandom > /var/log/luck && date > /same-size\n")
        ran = image(pair.first, "build", "--check", "-q", "-t", "moody:1", ".", folder="/root/moody")
        assert ran.code == 1, str(ran)
        assert re.search(r"layer \d+: var/log/luck: content", ran.out), str(ran)
        assert "a log has the time in it" in ran.out

    def test_what_needs_a_network_outside_of_fetch_is_told_where_it_belongs(self, pair: Pair, pinned: str) -> None:
        base = sh(pair.first, f"sed -n 's/^ARG BASE=//p' {pinned}/Dockerfile")
        code = "import socket; socket.create_connection(('10.77.0.1', 80), 3)"
        write(pair.first, "/root/online", Dockerfile=f"FROM {base}\nRUN python3 -c \"{code}\"\n")
        ran = image(pair.first, "build", "--reproducible", "-q", "-t", "online:1", ".", folder="/root/online")
        assert ran.code == 1, str(ran)
        assert "stage named `fetch`" in ran.err

    def test_the_history_is_whole_and_knows_the_dockerfiles_lines(self, pair: Pair, pinned: str) -> None:
        for host in (pair.first, pair.second):
            ran = image(host, "history", "trained:1", folder=pinned)
            assert ran.code == 0, str(ran)
            assert re.search(r"Dockerfile:9-10\n\s+RUN python3 -m compileall -q /app &&", ran.out), str(ran)
            assert "touch /var/log/empty" in ran.out


class TestMoving:
    def test_only_missing_layers_go_from_host_to_host_and_the_ids_agree(self, pair: Pair, program: str) -> None:
        sh(pair.second, "docker image rm program:1 2>/dev/null || true")
        ran = copied(pair, "program:1", "--from", f"admin@{pair.first.address}", "--to", f"root@{pair.second.address}")
        assert ran.code == 0, str(ran)
        assert id_of(pair.second, "program:1") == program
        assert "2 layers sent, 1 were there" in ran.out
        again = copied(pair, "program:1", "--from", f"root@{pair.first.address}", "--to", f"admin@{pair.second.address}")
        assert (again.code, "already" in again.out) == (0, True), str(again)

    def test_a_name_that_is_there_for_another_image_is_moved(self, pair: Pair, program: str) -> None:
        sh(pair.second, f"docker tag {pair.base} program:1")
        ran = copied(pair, "program:1", "--from", f"root@{pair.first.address}", "--to", f"root@{pair.second.address}")
        assert ran.code == 0, str(ran)
        assert id_of(pair.second, "program:1") == program

    def test_what_cannot_be_copied_is_said_with_the_right_code(self, pair: Pair, program: str) -> None:
        here, there = f"root@{pair.first.address}", f"root@{pair.second.address}"
        ran = copied(pair, "nosuch:1", "--from", here, "--to", there)
        assert (ran.code, "no such image" in ran.err) == (1, True), str(ran)
        ran = copied(pair, "program:1", "--from", here, "--to", "root@127.0.0.1:1", "--connect-timeout", "5")
        assert ran.code == 4, str(ran)
        ran = copied(pair, "program:1", "--from", f"secure@{pair.first.address}", "--to", there)
        assert (ran.code, "may not talk to Docker" in ran.err) == (1, True), str(ran)
        assert copied(pair, "program:1; reboot", "--from", here, "--to", there).code == 2
        assert copied(pair, "program:1").code == 2

    def test_a_docker_that_stops_in_the_middle_leaves_no_image_and_the_next_try_succeeds(self, pair: Pair, program: str) -> None:
        sh(pair.second, "docker image rm -f program:1; mkdir -p /root/real; cp /usr/bin/docker /root/real/docker")
        wrapper = '#!/bin/sh\n[ "$1" = load ] && { head -c 200000 | /root/real/docker "$@"; exit 1; }\nexec /root/real/docker "$@"\n'
        write(pair.second, "/root", wrapper=wrapper)
        sh(pair.second, "install -m 755 /root/wrapper /usr/local/bin/docker")
        try:
            ran = copied(pair, "program:1", "--from", f"root@{pair.first.address}", "--to", f"root@{pair.second.address}")
            assert ran.code == 1, str(ran)
            assert id_of(pair.second, "program:1") == ""
        finally:
            sh(pair.second, "rm /usr/local/bin/docker")
        ran = copied(pair, "program:1", "--from", f"root@{pair.first.address}", "--to", f"root@{pair.second.address}")
        assert ran.code == 0, str(ran)
        assert id_of(pair.second, "program:1") == program

    def test_a_push_says_the_digest_that_the_registry_has(self, pair: Pair, program: str) -> None:
        name = f"{pair.registry.address}/lab/program:1"
        ran = image(pair.first, "push", "program:1", name)
        assert ran.code == 0, str(ran)
        digest = ran.out.split()[0]
        assert re.fullmatch(rf"{re.escape(pair.registry.address)}/lab/program@sha256:[0-9a-f]{{64}}", digest), ran.out
        sh(pair.second, f"docker pull -q {digest}")
        assert id_of(pair.second, digest) == program
        assert "0 layers sent, 3 were there" in image(pair.first, "push", name).out
        assert image(pair.first, "push", "program:1", "127.0.0.1:1/x:1").code == 1
