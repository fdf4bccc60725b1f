"""A namespace host with a real Docker Engine, GPUs' doubles, mlhost itself, and a small image: for what people do on a host that is set up."""

from __future__ import annotations

import contextlib
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.lab.gpus import TWO_A10G
from tests.lab.nshost import Network, NsHost
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vendor import publish

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DAEMON = '{"features": {"cdi": true}, "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}'
SHOWN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build (test double)"
# What `mlhost run` imports beyond Python's own; requests asks a registry. Without their compiled parts they fit every Python.
LIBRARIES = ("click", "requests", "urllib3", "idna", "certifi", "charset_normalizer")
MLHOST = """#!/bin/sh
PYTHONPATH=/opt/mlhost:/opt/libraries exec python3 -c 'from provision.cli import entrypoint; entrypoint()' "$@"
"""
# Debian's own busybox with what it links against; `nvidia-smi`'s double needs a shell.
SMALL = """set -e
rm -rf /srv/small && mkdir -p /srv/small/bin /srv/small/sbin /srv/small/usr/bin /srv/small/etc /srv/small/tmp /srv/small/img && cd /srv/small
chmod 1777 tmp
cp /bin/busybox bin/
for name in $(busybox --list); do ln -sf busybox "bin/$name"; done
cp --parents $(ldd /bin/busybox | grep -o '/[^ ]*') .
printf 'root:x:0:0:root:/root:/bin/sh\\nimg:x:4242:4242::/img:/bin/sh' > etc/passwd
tar -c . | docker import -c 'ENV PATH=/usr/bin:/bin' - small
tar -c . | docker import -c 'ENV NVIDIA_REQUIRE_CUDA=cuda>=99.0' -c 'ENV PATH=/usr/bin:/bin' - toonew"""


@contextlib.contextmanager
def day_host(network: Network, apt: CachingProxy, folder: Path, packages: str = "busybox") -> Iterator[NsHost]:
    """Install everything with the host's own apt (20 seconds on a quiet machine); `admin` may use Docker. `/usr/local/bin/mlhost` is this checkout's.

    Docker's and NVIDIA's packages are doubles, Docker's with Debian's engine inside.
    """
    host = network.host(systemd=True)
    try:
        host.wait()
        host.use_proxy(apt)
        with publish(folder, suites=("trixie",), real_engine=True, gpus=TWO_A10G) as vendors, FileServer(vendors.root, network.address) as server:
            for name, place in {"docker": "linux/debian trixie stable", "toolkit": "stable/deb/amd64 /", "cuda": "debian13/x86_64 /"}.items():
                line = f"deb [trusted=yes] {vendors.url(name, server.url)}/{place}\n"
                host.run(f"cat > /etc/apt/sources.list.d/{name}.list", user="root", stdin=line)
            host.run(
                f"mkdir -p /etc/docker /srv/driver/nvidia && printf '%s' '{DAEMON}' > /etc/docker/daemon.json && apt-get -q update && "
                f"apt-get -qy --no-install-recommends install docker-ce nvidia-driver-cuda nvidia-container-toolkit {packages} && "
                f"echo '{SHOWN}' > /srv/driver/nvidia/version && mount --bind /srv/driver /proc/driver && usermod -aG docker admin",
                user="root",
            )
        install_mlhost(host)
        host.run(SMALL, user="root")
        yield host
    finally:
        host.stop()


def install_mlhost(host: NsHost) -> None:
    """This checkout's package and its few libraries, for the host's own Python."""
    host.run("mkdir -p /opt/mlhost /opt/libraries && cat > /usr/local/bin/mlhost && chmod 755 /usr/local/bin/mlhost", user="root", stdin=MLHOST)
    site = Path(sysconfig.get_paths()["purelib"])
    for source, names, target in ((CHECKOUT, ("provision", "playbooks"), "/opt/mlhost"), (site, LIBRARIES, "/opt/libraries")):
        words = ["ssh", *host.ssh.options(), "-p", str(host.port), f"root@{host.address}", f"tar -x --no-same-owner -C {target}"]
        with subprocess.Popen(["tar", "-C", str(source), "--exclude=__pycache__", "--exclude=*.so", "-c", *names], stdout=subprocess.PIPE) as packed:
            done = subprocess.run(words, stdin=packed.stdout, check=False)
        if packed.returncode or done.returncode:
            raise RuntimeError(f"{source} could not be copied to {host.name}")
