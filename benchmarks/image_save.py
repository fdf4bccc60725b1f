"""`python -m benchmarks.image_save`: an image saved and loaded by mlhost, and by `docker save | gzip`, side by side.

The host is real: systemd and Docker Engine (overlay2) in namespaces of this machine; mlhost runs on it, as root. The image has a Debian system, the Python
packages of this checkout's environment, and weights that are random, as real ones nearly are to a compressor. Processor time includes that of
Docker's daemon. After each load the image's id is compared with that of the one that was saved.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import ROOT, Broken, Sample, progress
from tests.lab.keys import lab_keys
from tests.lab.mirror import read_mirror
from tests.lab.nshost import Network, NsHost

SLOW, FAST, PLAIN = "docker save | gzip", "mlhost image save", "mlhost image save --through-docker"
SLOW_LOAD, FAST_LOAD = "docker load < tar.gz", "mlhost image load"
# What of this environment mlhost needs on the host for this, all pure Python.
NEEDED = ("click", "rich", "pygments", "markdown_it", "mdurl", "yaml", "jinja2", "markupsafe", "distro")
BENCH = "/root/bench"

# Runs one command line on the host: prints seconds on the clock, of processor time (its own, its children's, and dockerd's), and its peak in MB.
RUNNER = r"""
import json, os, subprocess, sys, time
def daemon():
    pids = subprocess.run(["pidof", "dockerd"], capture_output=True, text=True).stdout.split()
    ticks = sum(sum(map(int, open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13])) for pid in pids)
    return ticks / os.sysconf("SC_CLK_TCK")
before, began = daemon(), time.perf_counter()
done = subprocess.run(["bash", "-o", "pipefail", "-c", sys.argv[1]], capture_output=True, text=True)
wall, after = time.perf_counter() - began, daemon()
times = os.times()
own = times.children_user + times.children_system
print(json.dumps({"rc": done.returncode, "wall": wall, "cpu": own + after - before, "said": (done.stdout + done.stderr)[-2000:]}))
"""


def mlhost(words: str) -> str:
    """A command line of mlhost on the host."""
    return f"cd {BENCH} && PYTHONPATH={BENCH}/code:{BENCH}/packages python3 -c 'from provision.cli import entrypoint; entrypoint()' image {words}"


CASES = {
    SLOW: (f"rm -f {BENCH}/a.tar.gz", f"docker save bench:1 | gzip > {BENCH}/a.tar.gz"),
    FAST: (f"rm -f {BENCH}/b.tar.zst*", mlhost("save bench:1 --out b.tar.zst")),
    PLAIN: (f"rm -f {BENCH}/c.tar.zst*", mlhost("save bench:1 --out c.tar.zst --through-docker")),
    SLOW_LOAD: ("docker image rm bench:1", f"docker load -q < {BENCH}/a.tar.gz"),
    FAST_LOAD: ("docker image rm bench:1", mlhost("load b.tar.zst")),
}


def run(host: NsHost, command: str) -> Sample:
    """Run a command line on the host and measure it there. Raises Broken."""
    told = json.loads(host.run(f"python3 {BENCH}/runner.py {_quoted(command)}", user="root", timeout=3600).out)
    if told["rc"]:
        raise Broken(f"{command}: exit code {told['rc']}\n{told['said']}")
    return Sample(told["wall"], told["cpu"], 0.0)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def prepare(host: NsHost, megabytes: int) -> str:
    """Docker, mlhost and the image on the host; gives the image's id."""
    progress("installing Docker, zstd")
    host.run("apt-get -q update && apt-get -q -y install --no-install-recommends docker.io docker-cli zstd", user="root")
    host.run(f"mkdir -p {BENCH}/code {BENCH}/packages {BENCH}/context/packages", user="root")
    host.run(f"cat > {BENCH}/runner.py", user="root", stdin=RUNNER)
    packages = Path(sysconfig.get_paths()["purelib"])
    _send(host, ROOT, ("provision", "playbooks"), f"{BENCH}/code")
    _send(host, packages, tuple(name for name in NEEDED if (packages / name).exists()), f"{BENCH}/packages")
    progress("making the image")
    _send(host, packages, tuple(sorted(entry.name for entry in packages.iterdir())), f"{BENCH}/context/packages")
    host.run(
        f"head -c {megabytes}000000 /dev/urandom > {BENCH}/context/weights.bin && cd {BENCH}/context && "
        "printf 'FROM system:1\\nCOPY packages /opt/packages\\nCOPY weights.bin /opt/\\n' > Dockerfile && "
        "tar -C / --one-file-system -c bin etc lib lib64 sbin usr | docker import - system:1 && DOCKER_BUILDKIT=0 docker build -q -t bench:1 . && "
        f"docker tag system:1 keep:1 && rm -rf {BENCH}/context",
        user="root",
    )
    return identity(host)


def _send(host: NsHost, folder: Path, names: tuple[str, ...], target: str) -> None:
    ssh = ["ssh", "-q", "-F", "none", "-i", str(lab_keys().client), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={host.ssh.known_hosts}"]
    with subprocess.Popen(["tar", "-C", str(folder), "--exclude=__pycache__", "-c", *names], stdout=subprocess.PIPE) as tar:
        subprocess.run([*ssh, f"root@{host.address}", f"tar -x -C {target}"], stdin=tar.stdout, check=True)
    if tar.returncode:
        raise Broken(f"tar of {folder} failed")


def identity(host: NsHost) -> str:
    return host.run("docker image inspect --format '{{.Id}}' bench:1", user="root").out.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--weights", type=int, default=700, metavar="MB", help="random megabytes in the image")
    given = parser.parse_args()
    before = measure.machine()
    mirror = read_mirror()
    samples: dict[str, list[Sample]] = {name: [] for name in CASES}
    sizes: dict[str, int] = {}
    with Network() as network:
        host = network.host(systemd=True)
        host.wait()
        with network.proxy(mirror.hosts_with_tls()) as proxy:
            host.use_proxy(proxy)
            saved = prepare(host, given.weights)
        size = int(host.run("docker image inspect --format '{{.Size}}' bench:1", user="root").out)
        for number in range(given.repeats):
            for name, (prepared, command) in CASES.items():
                host.run(f"{prepared}; sync", user="root", check=False)
                measure.wait_for_quiet()
                samples[name].append(run(host, command))
                progress(f"round {number + 1}: {name}: {samples[name][-1].wall:.1f} s")
                if identity(host) != saved:
                    raise Broken(f"{name}: the image is another one now: {identity(host)}, not {saved}")
        for name, file in ((SLOW, "a.tar.gz"), (FAST, "b.tar.zst")):
            sizes[name] = int(host.run(f"stat -c %s {BENCH}/{file}", user="root").out)
    return report(before, samples, sizes, size, given.repeats)


def report(before: dict[str, Any], samples: dict[str, list[Sample]], sizes: dict[str, int], size: int, repeats: int) -> int:
    found = measure.summary(samples)
    quicker, busier = measure.ratio(samples, SLOW, FAST), measure.ratio(samples, SLOW, FAST, "cpu")
    loading = measure.ratio(samples, SLOW_LOAD, FAST_LOAD)
    bars = [measure.bar(f"{SLOW} in units of {FAST}, {quicker['min']:.1f} to {quicker['max']:.1f} (at least 4)", quicker["median"], at_least=4)]
    rows = [[name, *(f"{one['wall'][key]:.1f}" for key in ("median", "min", "max")), f"{one['cpu']['median']:.1f}", f"{size / one['wall']['median'] / 1e6:.0f}"]
            for name, one in found.items()]
    text = "\n\n".join([
        f"An image of {size / 1e9:.2f} GB: {sizes[SLOW] / 1e6:.0f} MB by gzip, {sizes[FAST] / 1e6:.0f} MB by mlhost; ids compared after each load.",
        measure.table(["case", "median s", "min s", "max s", "cpu s", "MB/s"], rows),
        f"{SLOW} took {busier['median']:.1f} times the processor time of {FAST}; {SLOW_LOAD} took {loading['median']:.1f} times as long as {FAST_LOAD}.",
        measure.bars_table(bars),
    ])
    document = {"machine": before, "repeats": repeats, "size": size, "sizes": sizes, "cases": found, "bars": bars, "euid": os.geteuid()}
    return measure.publish("image_save", document, text)


if __name__ == "__main__":
    sys.exit(main())
