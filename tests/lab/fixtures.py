"""pytest fixtures of the lab. What this machine lacks becomes a skip that names it.

With $MLHOST_LAB_REQUIRE=1 such a skip is a failure: a CI job that is there to boot machines must not pass without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Callable, TypeVar

import pytest

from tests.lab.image import debian_image
from tests.lab.mirror import read_mirror
from tests.lab.need import LabUnavailable
from tests.lab.nshost import Network, NsHost
from tests.lab.proxy import CachingProxy
from tests.lab.registry import Registry
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, publish
from tests.lab.vm import VM

T = TypeVar("T")


@contextlib.contextmanager
def skipping() -> Iterator[None]:
    """Turn LabUnavailable into a skip, or into a failure where $MLHOST_LAB_REQUIRE is set."""
    try:
        yield
    except LabUnavailable as missing:
        if os.environ.get("MLHOST_LAB_REQUIRE"):
            pytest.fail(f"the lab is required here, but {missing}")
        pytest.skip(str(missing))


def available(make: Callable[[], T]) -> T:
    """Call `make`, skipping the test where the machine lacks what it needs."""
    with skipping():
        return make()
    raise AssertionError("skipping() let a failure through")


@pytest.fixture(scope="session")
def apt_proxy() -> Iterator[CachingProxy]:
    """A caching proxy in front of this machine's Debian mirror."""
    mirror = available(read_mirror)
    with CachingProxy(tls_hosts=mirror.hosts_with_tls()) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    """Signed vendor repositories whose Docker packages are doubles without an engine."""
    with available(lambda: publish(tmp_path_factory.mktemp("vendors"))) as published:
        yield published


@pytest.fixture(scope="session")
def vendor_server(vendors: Vendors) -> Iterator[FileServer]:
    """A web server for `vendors`."""
    with FileServer(vendors.root) as server:
        yield server


@pytest.fixture(scope="session")
def engine_vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    """The same, but Docker's doubles hold the distribution's real engine."""
    folder = tmp_path_factory.mktemp("engine-vendors")
    with available(lambda: publish(folder, real_engine=True)) as published:
        yield published


@pytest.fixture(scope="session")
def engine_vendor_server(engine_vendors: Vendors) -> Iterator[FileServer]:
    """A web server for `engine_vendors`."""
    with FileServer(engine_vendors.root) as server:
        yield server


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A real container registry on this machine's loopback."""
    with available(Registry) as running:
        yield running


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The bridge of the namespace hosts; `network.host(systemd=...)` starts one (stop it, or it stays for the session)."""
    with available(Network) as bridge:
        yield bridge


@pytest.fixture(scope="session")
def network_apt_proxy(network: Network) -> Iterator[CachingProxy]:
    """A caching proxy in front of this machine's Debian mirror, for namespace hosts."""
    mirror = available(read_mirror)
    with network.proxy(mirror.hosts_with_tls()) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def network_vendor_server(network: Network, engine_vendors: Vendors) -> Iterator[FileServer]:
    """A web server for `engine_vendors` that namespace hosts can reach at its `url`."""
    with FileServer(engine_vendors.root, network.address) as server:
        yield server


@pytest.fixture
def sshd_host(network: Network, network_apt_proxy: CachingProxy) -> Iterator[NsHost]:
    """A fresh namespace host with sshd as process 1: accounts, sudo, apt, files; no services, no reboot."""
    yield from _started(network, network_apt_proxy, systemd=False)


@pytest.fixture
def systemd_host(network: Network, network_apt_proxy: CachingProxy) -> Iterator[NsHost]:
    """A fresh namespace host with systemd: services, reboot, Docker; not its own kernel."""
    yield from _started(network, network_apt_proxy, systemd=True)


def _started(network: Network, proxy: CachingProxy, systemd: bool) -> Iterator[NsHost]:
    host = available(lambda: network.host(systemd=systemd))
    try:
        host.wait()
        host.use_proxy(proxy)
        yield host
    finally:
        host.stop()


@pytest.fixture(scope="module")
def trixie(apt_proxy: CachingProxy) -> Iterator[VM]:
    """A fresh Debian 13, as it is just after its boot, for the tests of one module; its apt is behind the caching proxy."""
    yield from _booted("trixie", apt_proxy)


@pytest.fixture(scope="module")
def bookworm(apt_proxy: CachingProxy) -> Iterator[VM]:
    """A fresh Debian 12, likewise."""
    yield from _booted("bookworm", apt_proxy)


def _booted(suite: str, proxy: CachingProxy) -> Iterator[VM]:
    machine = available(lambda: VM(debian_image(suite), warm=True))
    with machine:
        machine.use_proxy(proxy)
        yield machine
