"""Fresh namespace hosts with signed vendor repositories in reach: what the end-to-end tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.fixtures import available
from tests.lab.gpus import TWO_A10G
from tests.lab.nshost import Network, NsHost
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, publish

# The lab's hosts are containers to anybody who asks; the space they have is the machine's.
LAB = ("preflight.allow_container=true", "preflight.root_free_gb=1", "preflight.docker_free_gb=1")
# The engine in the doubles is Debian 13's, which has to be told to use CDI; the pin says so, as a user of an older mirror would.
ENGINE = "docker.version=26.1"


@dataclass(frozen=True)
class Fresh:
    """A network of namespace hosts, Debian's mirror behind a caching proxy, and vendor repositories on a web server."""

    network: Network
    apt: CachingProxy
    vendors: Vendors
    server: FileServer

    def host(self, *, systemd: bool = True, apt: bool = True) -> NsHost:
        """A new host with nothing on it; `apt`: it knows the way to the mirror."""
        host = self.network.host(systemd=systemd)
        host.wait()
        if apt:
            host.use_proxy(self.apt)
        return host

    def settings(self, *names: str) -> list[str]:
        """The playbook values that fit the lab: what its hosts are, and the named mirrors (default: all)."""
        mirrors = self.vendors.settings(self.server.url, names or ("docker", "toolkit", "cuda"))
        return [*LAB, ENGINE, *(word for word in mirrors if word != "--set")]


@pytest.fixture(scope="session")
def fresh(network: Network, network_apt_proxy: CachingProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    folder = tmp_path_factory.mktemp("vendors")
    with (
        available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=TWO_A10G)) as vendors,
        FileServer(vendors.root, network.address) as server,
    ):
        yield Fresh(network, network_apt_proxy, vendors, server)
