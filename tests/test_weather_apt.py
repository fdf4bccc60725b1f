"""apt in bad weather: every way in which a mirror or the line to it can fail, against the real apt of Debian 13 and 12 in tree hosts.

Each fault ends in a reason whose layer and remedy are known, leaves the host as it was, and is forgotten once it is over: the same stage then converges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision import actions
from provision.remedies import remedy
from provision.spec import Proxy, Spec
from provision.steps import Context, network
from provision.watched import PROXY_APT
from tests.lab.aptweather import KEY_PATH, SOURCE, AptHost, Mirror, apt_host, base_of, mirror
from tests.lab.faults import Fault
from tests.lab.figures import count
from tests.lab.fixtures import available, skipping
from tests.lab.proxy import CachingProxy
from tests.machines import CATALOG, machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RELEASE, INRELEASE, INDEX, DEB = r"/(In)?Release(\.gpg)?$", r"/InRelease$", r"/Packages", r"client_.*\.deb$"


@dataclass(frozen=True)
class Case:
    """A fault; the layer that the reason is put down to; whether an index that is there already hides the fault for good reason (nothing is fetched)."""

    name: str
    fault: Fault
    layer: str
    hidden: bool = False
    swapped: str = ""


CASES = (
    Case("404 for the Release file", Fault(RELEASE, "status", 404), "repository"),
    Case("403 for the Release file", Fault(RELEASE, "status", 403), "repository"),
    Case("500 for the Release file", Fault(RELEASE, "status", 500), "repository"),
    Case("503 for the Release file", Fault(RELEASE, "status", 503), "repository"),
    Case("half a Release file", Fault(INRELEASE, "cut"), "network"),
    Case("a changed Release file", Fault(INRELEASE, "corrupt"), "repository"),
    Case("a connection that is reset", Fault(RELEASE, "reset"), "network"),
    Case("a mirror that never answers", Fault(RELEASE, "hang"), "network"),
    Case("a mirror that trickles", Fault(RELEASE, "trickle"), "network"),
    Case("a captive portal", Fault(".", "portal"), "network"),
    Case("a redirection to itself", Fault(RELEASE, "loop"), "repository"),
    Case("a proxy that wants credentials", Fault(".", "proxy-auth"), "proxy"),
    Case("another key", Fault(INRELEASE, "swap"), "repository", swapped="stranger"),
    Case("an expired key", Fault(INRELEASE, "swap"), "repository", swapped="old"),
    Case("an expired Release file", Fault(INRELEASE, "swap"), "repository", swapped="expired"),
    Case("a Release file of the future", Fault(INRELEASE, "swap"), "clock", swapped="future"),
    Case("404 for the index", Fault(INDEX, "status", 404), "repository", hidden=True),
    Case("500 for the index", Fault(INDEX, "status", 500), "repository", hidden=True),
    Case("half an index, then the end", Fault(INDEX, "cut"), "network", hidden=True),
    Case("half an index as if it were all", Fault(INDEX, "short"), "repository", hidden=True),
    Case("a changed index", Fault(INDEX, "corrupt"), "repository", hidden=True),
    Case("half an index, then silence", Fault(INDEX, "stall"), "network", hidden=True),
    Case("a captive portal for the index", Fault(INDEX, "portal"), "repository", hidden=True),
)
DEB_CASES = (
    Case("404 for a package", Fault(DEB, "status", 404), "repository"),
    Case("500 for a package", Fault(DEB, "status", 500), "repository"),
    Case("a changed package", Fault(DEB, "corrupt"), "repository"),
    Case("half a package, then the end", Fault(DEB, "cut"), "network"),
    Case("half a package as if it were all", Fault(DEB, "short"), "repository"),
    Case("half a package, then silence", Fault(DEB, "stall"), "network"),
    Case("a captive portal for a package", Fault(DEB, "portal"), "repository"),
    Case("a connection that is reset", Fault(DEB, "reset"), "network"),
)


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    with skipping(), mirror(tmp_path_factory.mktemp("mirror")) as made:
        yield made


@pytest.fixture
def host() -> Iterator[AptHost]:
    available(lambda: base_of("trixie"))
    with apt_host("trixie") as made:
        yield made


@pytest.fixture
def older(request: pytest.FixtureRequest) -> Iterator[AptHost]:
    """Debian 12, whose apt checks signatures with gpgv and not with sqv."""
    available(lambda: base_of("bookworm"))
    with apt_host("bookworm") as made:
        yield made


def spoil(weather: Mirror, case: Case) -> None:
    from dataclasses import replace

    weather.server.weather.brings(replace(case.fault, other=weather.spoiled[case.swapped]) if case.swapped else case.fault)


def told(reason: str, layer: str) -> bool:
    known = remedy(reason)
    assert known is not None, f"no remedy is known for: {reason}"
    assert known.layer == layer, f"{known.layer} for: {reason}"
    return True


def bad(host: AptHost, weather: Mirror, case: Case, remark: str = "") -> str:
    """What becomes of the source while the weather is as it is."""
    signer = weather.outlived if case.swapped == "old" else None
    # a mirror that never stops would be waited for a quarter of an hour
    return host.refused(weather.repository(remark, signer), fetch_wait=3 if case.fault.kind == "trickle" else 900)


def packages(*names: str) -> actions.Packages:
    return actions.Packages(tuple(actions.Package(*name.split("=")) for name in names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_new_source_in_bad_weather_leaves_nothing_behind_and_is_there_when_it_is_over(host: AptHost, weather: Mirror, case: Case) -> None:
    spoil(weather, case)
    reason = bad(host, weather, case)
    assert weather.server.weather.has_struck()
    assert told(reason, case.layer)
    if case.swapped == "old":
        assert "key that signs the repository has expired" in getattr(remedy(reason), "fix", ""), reason
    assert not host.read(SOURCE)
    assert not host.read(KEY_PATH)
    weather.server.weather.sunny()
    assert host.refused(weather.repository()) == ""
    count(f"apt-new-{case.name.replace(' ', '-')}", "a new apt source in bad weather", 1, 1)


@pytest.mark.parametrize("case", [case for case in CASES if not case.hidden], ids=lambda case: case.name)
def test_lists_of_better_days_do_not_pass_for_success(host: AptHost, weather: Mirror, case: Case) -> None:
    changed_source(host, weather, case)
    count(f"apt-old-{case.name.replace(' ', '-')}", "a changed apt source in bad weather, with older lists", 1, 1)


@pytest.mark.parametrize("case", [case for case in CASES if case.swapped or case.fault.kind in ("corrupt", "portal")], ids=lambda case: case.name)
def test_the_apt_of_debian_12_lets_no_more_pass(older: AptHost, weather: Mirror, case: Case) -> None:
    if case.hidden:
        spoil(weather, case)
        assert told(bad(older, weather, case), case.layer)
        assert not older.read(SOURCE)
    changed_source(older, weather, case)
    count(f"apt-12-{case.name.replace(' ', '-')}", "a changed apt source in bad weather, Debian 12", 1, 1)


def changed_source(host: AptHost, weather: Mirror, case: Case) -> None:
    """A source with lists, whose text changes in bad weather and again when that is over."""
    weather.server.weather.sunny()
    assert host.refused(weather.repository()) == ""
    spoil(weather, case)
    if case.hidden:
        weather.server.weather.sunny()
        return
    # another text of the same source: its index has to be fetched again, and apt alone would warn and exit 0
    reason = bad(host, weather, case, "changed")
    assert told(reason, case.layer)
    assert host.read(SOURCE) == weather.repository().text, "the source of before is back"
    weather.server.weather.sunny()
    assert host.refused(weather.repository("changed"), packages("engine")) == ""


@pytest.mark.parametrize("case", DEB_CASES, ids=lambda case: case.name)
def test_a_package_that_does_not_come_leaves_dpkg_as_it_was(host: AptHost, weather: Mirror, case: Case) -> None:
    weather.server.weather.sunny()
    assert host.refused(weather.repository()) == ""
    before = host.host.sh("dpkg-query -W; dpkg --audit")
    spoil(weather, case)
    reason = host.refused(packages("engine"))
    assert weather.server.weather.has_struck()
    assert told(reason, case.layer)
    assert host.host.sh("dpkg-query -W; dpkg --audit") == before
    weather.server.weather.sunny()
    assert host.refused(packages("engine")) == ""
    count(f"apt-deb-{case.name.replace(' ', '-')}", "a package download in bad weather", 1, 1)


def test_a_name_that_cannot_be_resolved_is_the_networks_matter(host: AptHost, weather: Mirror) -> None:
    wanted = actions.AptRepository(
        "lab", SOURCE, weather.repository().text.replace(weather.server.url, "http://mirror.invalid"), weather.repository().key
    )
    assert told(host.refused(wanted), "network")
    assert not host.read(SOURCE)


def test_a_proxy_that_demands_credentials_gets_those_of_the_playbook_and_nobody_else_does(host: AptHost, weather: Mirror, tmp_path: Path) -> None:
    """A real proxy, and the very files that the playbook's `proxy.http` makes on a host; only root may read what holds the password."""
    weather.server.weather.sunny()
    secret = "s3cret-of-the-proxy"
    with CachingProxy(tmp_path, credentials=f"someone:{secret}") as proxy:
        bare, full = proxied(proxy.url), proxied(proxy.url.replace("//", f"//someone:{secret}@"))
        assert told(host.refused(bare, weather.repository()), "proxy")
        assert not host.read(SOURCE)
        assert host.refused(full, weather.repository(), packages("engine")) == ""
        assert any("InRelease" in request for request in weather.server.weather.requests), "it was the proxy that asked"
    assert "s3cret" in host.read(full.path)
    holders = host.host.sh("grep -rls s3cret /etc /var/lib /var/log /tmp /run | sort", check=False).split()
    assert full.path in holders
    told_of = [path for path in holders if "/log" in path or "event" in path]
    assert not told_of, "neither log nor journal repeats the password"
    assert host.host.sh(f"stat -c %a%u {' '.join(holders)}").split() == ["6000"] * len(holders), holders
    count("apt-proxy-credentials", "a proxy that demands credentials", 1, 1)


def proxied(url: str) -> actions.File:
    """The file of apt that a playbook with this proxy leads to."""
    facts = machine()
    decided = network.decide(Context(facts, Spec(proxy=Proxy(http=url)), CATALOG.platform(facts.os, facts.arch), CATALOG))
    return next(item.action for item in decided.items if isinstance(item.action, actions.File) and item.action.path == PROXY_APT)


# Small file systems for the places where a full or read-only one hurts most. Full from the beginning, or in the middle of the work.
SMALL = 'mount -t tmpfs -o size={size},mode=755 tmpfs "$1/{at}"'


def full(at: str, size: str = "64k") -> str:
    """A boot script that puts a full file system in place of a folder, with what was in it if that is not much."""
    return f"#!/bin/sh\nset -e\n{SMALL.format(size=size, at=at)}\ndd if=/dev/zero of=\"$1/{at}/ballast\" bs=4k 2>/dev/null || :\n"


@pytest.mark.parametrize("at", ["var/lib/mlhost", "etc/apt/keyrings", "var/lib/apt/lists", "var/cache/apt/archives", "opt"])
def test_a_full_disk_is_named_wherever_it_is_and_the_next_run_goes_on(weather: Mirror, at: str) -> None:
    weather.server.weather.sunny()
    with skipping(), apt_host("trixie", f'#!/bin/sh\nmkdir -p "$1/{at}"\n' + full(at).partition("\n")[2]) as host:
        if at == "var/lib/apt/lists":
            host.host.sh(f"mkdir -p /{at}/partial", check=False)
        reason = host.refused(weather.repository(), packages("engine"))
        assert told(reason, "disk"), reason
        assert host.host.sh("dpkg-query -W engine 2>/dev/null || echo none").strip() == "none" or at == "opt"
        host.host.sh(f"umount /{at}")
        assert host.refused(weather.repository(), packages("engine")) == ""
        assert host.host.sh("dpkg --audit") == ""
    count(f"disk-full-{at.replace('/', '-')}", "a full disk", 1, 1)


@pytest.mark.parametrize("at", ["var/lib/mlhost", "etc/apt", "var/lib/apt", "var/lib/dpkg"])
def test_a_read_only_file_system_is_named_and_the_next_run_goes_on(weather: Mirror, at: str) -> None:
    weather.server.weather.sunny()
    with skipping(), apt_host("trixie") as host:
        host.host.sh(f"mkdir -p /{at} && mount --bind /{at} /{at} && mount -o remount,bind,ro /{at}")
        reason = host.refused(weather.repository(), packages("engine"))
        assert told(reason, "disk"), reason
        host.host.sh(f"umount /{at}")
        assert host.refused(weather.repository(), packages("engine")) == ""
        assert host.host.sh("dpkg --audit") == ""
    count(f"read-only-{at.replace('/', '-')}", "a read-only file system", 1, 1)


HOLDER = "import ctypes, fcntl, sys, time; ctypes.CDLL(None).prctl(15, sys.argv[2].encode(), 0, 0, 0); f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("name", "lock"),
    [
        ("unattended-upgr", "/var/lib/dpkg/lock-frontend"),
        ("packagekitd", "/var/lib/dpkg/lock"),
        ("apt-get", "/var/lib/apt/lists/lock"),
        ("aptd", "/var/cache/apt/archives/lock"),
    ],
)
def test_whoever_holds_a_lock_is_named_waited_for_within_bounds_and_lives(weather: Mirror, name: str, lock: str) -> None:
    weather.server.weather.sunny()
    with skipping(), apt_host("trixie") as host:
        host.host.sh("mkdir -p /var/cache/apt/archives /var/lib/apt/lists")
        host.host.sh(f"python3 -c {HOLDER!r} {lock} {name} >/run/held 2>&1 & until [ -s /run/held ]; do sleep 0.1; done")
        reason = host.refused(weather.repository(), packages("engine"), lock_wait=2)
        assert told(reason, "packages")
        assert f"{name} (" in reason
        assert lock in reason
        assert host.host.sh(f"pgrep -x {name}").strip(), "its holder lives"
        host.host.sh(f"pkill -x {name}")
        assert host.refused(weather.repository(), packages("engine")) == ""
    count(f"lock-{name}", "a package manager's lock held by somebody else", 1, 1)
