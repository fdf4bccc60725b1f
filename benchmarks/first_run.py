"""`python -m benchmarks.first_run`: the first run on a fresh machine against a plain shell script that does the same work.

The machine is a booted Debian 13 in QEMU (see tests/lab), a fresh one for every run, without package lists, as a cloud image has none. All runs fetch
through one caching proxy whose cache is warm. The script is what somebody would write by hand; it is run over ssh, as mlhost's is. It is
measured twice: with the apt work alone, and with a container as proof, which mlhost runs unless told not to; so is mlhost.

Besides the time on the clock it takes the processor time of the machine (of the whole guest, so of QEMU) and of the client that started the run. On a
computer that has other work to do the clock says as much about that work; processor time says more about this one.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.host import mlhost_env
from benchmarks.measure import ROOT, Broken, Sample
from tests.lab.image import debian_image
from tests.lab.keys import lab_keys
from tests.lab.mirror import read_mirror
from tests.lab.proxy import CachingProxy
from tests.lab.qemu import TCG, accelerator, find_qemu
from tests.lab.vm import VM

SCRIPT, PROVED = "script: apt work", "script: apt work and a container"
UNPROVED, MLHOST = "mlhost setup without a container", "mlhost setup"
# What is compared with what: like with like first, then all of mlhost with the least that a script has to do.
PAIRS = ((UNPROVED, SCRIPT), (MLHOST, PROVED), (MLHOST, SCRIPT))
PACKAGES = "docker.io docker-cli"
APT_WORK = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends {PACKAGES}
systemctl enable --now docker.service
usermod -aG docker admin
docker version >/dev/null
"""
PROOF = """
image=$(mktemp -d)
for file in /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*'); do
    mkdir -p "$image${file%/*}"
    cp -L "$file" "$image$file"
done
tar -C "$image" -c . | docker import - bench/proof
docker run --rm bench/proof /bin/sh -c 'echo it runs'
"""
WANTED = ("-p", "docker-host", "--set", "docker.source=distro", "--set", "docker.users=admin")


def one(case: str, proxy: CachingProxy) -> tuple[Sample, str]:
    """A run on a fresh machine, and what was said."""
    # it wakes as it was just after its boot: all runs begin with the very same machine
    with VM(debian_image("trixie"), warm=True) as vm:
        vm.use_proxy(proxy)
        vm.run("rm -rf /var/lib/apt/lists/*; sync; systemctl is-system-running --wait || true", user="root")
        time.sleep(5)
        began, cpu = time.perf_counter(), _cpu(vm)
        if case in (UNPROVED, MLHOST):
            said = _mlhost(vm, *(("--set", "smoke.enabled=false") if case == UNPROVED else ()))
        else:
            said = vm.run("sh -s", user="root", stdin=APT_WORK + (PROOF if case == PROVED else ""), timeout=1800).out
        sample = Sample(time.perf_counter() - began, _cpu(vm) - cpu, 0.0)
        vm.run("docker version", user="root")
        return sample, said


def _cpu(vm: VM) -> float:
    """Seconds of processor time that the machine and the clients waited for so far have taken."""
    clients = resource.getrusage(resource.RUSAGE_CHILDREN)
    return vm.cpu_seconds() + clients.ru_utime + clients.ru_stime


def _mlhost(vm: VM, *settings: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        known_hosts = Path(name) / "known_hosts"
        known_hosts.write_text(vm.known_hosts())
        way = ("-F", "none", "--identity", str(lab_keys().client), "--known-hosts", str(known_hosts))
        command = (sys.executable, "-m", "provision", "setup", f"root@127.0.0.1:{vm.port}", *WANTED, *settings, *way)
        env = {**os.environ, **mlhost_env()}
        done = subprocess.run(
            command,
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise Broken(f"mlhost setup: exit code {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-warmup", action="store_true", help="The proxy's cache is warm from an earlier run.")
    options = parser.parse_args()
    before = measure.machine()
    cases = [SCRIPT, PROVED, UNPROVED, MLHOST]
    samples: dict[str, list[Sample]] = {case: [] for case in cases}
    said = ""
    with CachingProxy(tls_hosts=read_mirror().hosts_with_tls()) as proxy:
        for number in range(-(0 if options.no_warmup else 1), options.repeats):
            turn = number % len(cases)
            for case in [*cases[turn:], *cases[:turn]] if number >= 0 else [SCRIPT]:
                measure.wait_for_quiet()
                sample, text = one(case, proxy)
                measure.progress(f"{case}: {sample.wall:.1f} s, {sample.cpu:.1f} s of processor time")
                if number >= 0:
                    samples[case].append(sample)
                    said = text if case == MLHOST else said
        how = "emulated" if accelerator(find_qemu(), debian_image("trixie")) == TCG else "KVM"
    return publish(before, options.repeats, samples, said, how)


def publish(before: dict[str, Any], repeats: int, samples: dict[str, list[Sample]], said: str, how: str) -> int:
    took = measure.summary(samples)
    ratios = {part: {f"{of} / {to}": measure.ratio(samples, of, to, part) for of, to in PAIRS} for part in ("wall", "cpu")}
    bars = [measure.bar(pair, found["median"], at_most=1.05) for pair, found in ratios["wall"].items()]
    seconds = measure.table(
        ["case", "median s", "min s", "max s", "cpu s", "min cpu s", "max cpu s"],
        [
            [case, *(f"{parts[part][key]:.1f}" for part in ("wall", "cpu") for key in ("median", "min", "max"))]
            for case, parts in took.items()
        ],
    )
    parts = measure.table(
        ["ratio", "median", "min", "max", "cpu: median", "min", "max"],
        [
            [pair, *(f"{ratios[part][pair][key]:.3f}" for part in ratios for key in ("median", "min", "max"))]
            for pair in ratios["wall"]
        ],
    )
    document = {
        "machine": {**before, "guest": how},
        "repeats": repeats,
        "seconds": took,
        "rounds": [
            {case: {"wall": of[number].wall, "cpu": of[number].cpu} for case, of in samples.items()} for number in range(repeats)
        ],
        "ratios": ratios,
        "bars": bars,
        "mlhost_said": said,
    }
    return measure.publish("first_run", document, "\n\n".join([f"Guest: {how}", seconds, parts, measure.bars_table(bars), said]))


if __name__ == "__main__":
    raise SystemExit(main())
