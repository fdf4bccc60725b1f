"""Predicates over the machine itself: time, disks, names, package sources, packages. Each says what it found, False, or None for unknown."""

from __future__ import annotations

import re
from typing import Union

from provision.doctor.keytime import expiries
from provision.doctor.seen import Seen
from provision.facts.text import rows
from provision.model import Disk

Answer = Union[str, bool, None]

CLOCK_SKEW = 300  # seconds; package signatures and certificates forgive less than a day, logs and tokens less than minutes
ROOT_KB, DATA_KB, INODES = 256 * 1024, 512 * 1024, 1000
TOOLKIT_PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")


def clock_wrong(seen: Seen) -> Answer:
    facts = seen.facts
    if facts.asked_at is None or facts.host_time is None:
        return None
    skew = facts.host_time - facts.asked_at
    if abs(skew) <= CLOCK_SKEW:
        return False
    return f"the host's clock is {abs(skew)} seconds {'ahead of' if skew > 0 else 'behind'} that of the machine that asks"


def wsl(seen: Seen) -> Answer:
    return seen.facts.wsl and "the kernel is Microsoft's (WSL)"


def secure_boot_on(seen: Seen) -> Answer:
    return None if seen.facts.secure_boot is None else seen.facts.secure_boot and "Secure Boot is on (firmware variable SecureBoot)"


def locked_down(seen: Seen) -> Answer:
    if seen.settings is None:
        return None
    told = seen.settings.get("lockdown", "")
    return bool(re.search(r"\[(integrity|confidentiality)\]", told)) and f"/sys/kernel/security/lockdown: {told}"


def running_modules_gone(seen: Seen) -> Answer:
    """The running kernel's modules were removed by an upgrade; containers without any folder of kernels do not count."""
    if seen.kernels is None or not seen.facts.kernel or seen.facts.container:
        return None
    others = [kernel.release for kernel in seen.kernels if kernel.modules]
    gone = bool(others) and not (seen.running_kernel and seen.running_kernel.modules)
    return gone and f"/lib/modules has {', '.join(others)}, and kernel {seen.facts.kernel} runs"


# ---------------------------------------------------------------- disks


def _data(seen: Seen) -> list[Disk]:
    root = seen.facts.docker.root_dir if seen.facts.docker else ""
    return [disk for path, disk in seen.facts.disks.items() if path in ("/var/lib/docker", root)]


def _short(disk: Disk, least: int) -> bool:
    # A tiny file system is no data disk that ran full.
    return disk.free_kb < least and disk.total_kb > 0


def root_full(seen: Seen) -> Answer:
    disk = seen.facts.disks.get("/")
    return None if disk is None else _short(disk, ROOT_KB) and f"/ has {disk.free_kb // 1024} MiB free of {disk.total_kb // 1024}"


def docker_disk_full(seen: Seen) -> Answer:
    disks = _data(seen)
    if not disks:
        return None
    short = [disk for disk in disks if _short(disk, DATA_KB)]
    return bool(short) and f"{short[0].path} has {short[0].free_kb // 1024} MiB free of {short[0].total_kb // 1024}"


def inodes_gone(seen: Seen) -> Answer:
    if not seen.facts.disks:
        return None
    short = [disk for disk in seen.facts.disks.values() if disk.free_inodes is not None and 0 <= disk.free_inodes < INODES and disk.filesystem not in ("btrfs", "zfs", "vfat")]
    return bool(short) and f"{short[0].path} has {short[0].free_inodes} inodes free"


def root_read_only(seen: Seen) -> Answer:
    told = seen.said("mounts")
    if told is None or seen.facts.ostree:
        return None
    for row in rows(told):
        parts = row.split()
        if len(parts) > 3 and parts[1] == "/" and re.match(r"/dev/", parts[0]) and parts[2] in ("ext3", "ext4", "xfs", "btrfs"):
            return "ro" in parts[3].split(",") and f"/proc/mounts: {row}"
    return False


# ---------------------------------------------------------------- network


def names_unresolved(seen: Seen) -> Answer:
    """None of the machine's own package sources is found by name. Behind a proxy it is the proxy that resolves."""
    told = seen.said("deep_resolve")
    if told is None:
        return None
    found = [row.split() for row in rows(told)]
    names = [(parts[1], parts[2]) for parts in found if len(parts) == 3 and parts[0] == "name"]
    proxies = [parts for parts in found if len(parts) == 3 and parts[0] == "proxy"]
    if not names:
        return None
    if proxies or seen.facts.apt_proxy or all(rc in ("126", "127") for _, rc in names):
        return False
    return all(rc != "0" for _, rc in names) and f"getent ahosts {names[0][0]} finds nothing (exit code {names[0][1]})"


def proxy_unresolved(seen: Seen) -> Answer:
    told = seen.said("deep_resolve")
    if told is None:
        return None
    found = [row.split() for row in rows(told) if row.startswith("proxy ")]
    lost = [parts[1] for parts in found if len(parts) == 3 and parts[2] not in ("0", "126", "127")]
    return bool(lost) and f"apt's proxy {lost[0]} is not found by name"


# ---------------------------------------------------------------- package sources


def _keyed_sources(seen: Seen) -> list[tuple[str, str]]:
    return [(source.path, key) for source in seen.facts.apt_sources if source.enabled and source.signed_by.startswith("/") for key in source.signed_by.split()]


def signing_key_missing(seen: Seen) -> Answer:
    """Only folders that the probe reads whole can tell that a key is missing."""
    for path, key in _keyed_sources(seen):
        whole = key.startswith("/etc/apt/keyrings/") or (key.startswith("/usr/share/keyrings/") and re.search(r"docker|nvidia|cuda", key))
        if whole and not any(f"{form}:{key}" in seen.sections for form in ("keytext", "key64", "keyhex")):
            return f"{path} is signed by {key}, which does not exist"
    return False


def signing_key_expired(seen: Seen) -> Answer:
    now = seen.facts.host_time or seen.facts.asked_at
    if now is None:
        return None
    for path, key in _keyed_sources(seen):
        ends = expiries(seen.facts.keyrings.get(key, b""))
        if ends and all(end and end < now for end in ends):
            return f"{path} is signed by {key}, whose key ended {(now - max(ends)) // 86400} days ago"
    return False


def signing_key_unreadable(seen: Seen) -> Answer:
    told = seen.said("deep_keyrings")
    if told is None:
        return None
    used = {key for _, key in _keyed_sources(seen)}
    for row in rows(told):
        mode, _, path = (*row.split(" ", 2), "", "")[:3]
        need = 5 if path == "/etc/apt/keyrings" else 4
        if mode[-1:].isdigit() and int(mode[-1]) & need != need and (path in used or (need == 5 and any(k.startswith(path) for k in used))):
            return f"{path} has mode {mode}: apt's user _apt cannot read it"
    return False


def signing_key_empty(seen: Seen) -> Answer:
    told = seen.said("deep_keyrings")
    if told is None:
        return None
    used = {key for _, key in _keyed_sources(seen)}
    empty = [path for _, size, path in (row.split(" ", 2) for row in rows(told) if row.count(" ") >= 2) if size == "0" and path in used]
    return bool(empty) and f"{empty[0]} is empty"


def two_sources_two_keys(seen: Seen) -> Answer:
    seen_by: dict[tuple[str, str], tuple[str, str]] = {}
    for source in seen.facts.apt_sources:
        if not source.enabled or "deb" not in source.types:
            continue
        for uri in source.uris:
            for suite in source.suites:
                place, before = (uri.rstrip("/"), suite), seen_by.get((uri.rstrip("/"), suite))
                if before and before[1] != source.signed_by:
                    return f"{before[0]} and {source.path} both name {uri} {suite}, with different keys"
                seen_by[place] = (source.path, source.signed_by)
    return False


def toolkit_source_of_old(seen: Seen) -> Answer:
    """The per-distribution folders that the toolkit's repository had until 2023."""
    for path, text in (*seen.facts.apt_source_texts.items(), *seen.facts.rpm_source_texts.items()):
        for row in rows(text):
            if not row.lstrip().startswith("#") and re.search(r"nvidia\.github\.io/(nvidia-docker|nvidia-container-runtime|libnvidia-container)/(?!stable|experimental)\w", row):
                return f"{path}: {' '.join(row.split())}"
    return False


def unsupported_distribution(seen: Seen) -> Answer:
    for path, text in seen.facts.apt_source_texts.items():
        if "Unsupported distribution!" in text or re.search(r"^\s*<(!DOCTYPE|html)", text, re.IGNORECASE):
            return f"{path} holds an error page instead of a source"
    return False


def releasever_in_docker_source(seen: Seen) -> Answer:
    for source in seen.facts.rpm_sources:
        url = " ".join(source.baseurl)
        if source.enabled and "docker.com" in url and "$releasever" in url and "." in (seen.facts.releasever or seen.facts.os.version_id):
            return f"{source.path}: {url} with release {seen.facts.releasever or seen.facts.os.version_id}"
    return False


# ---------------------------------------------------------------- packages


def dpkg_interrupted(seen: Seen) -> Answer:
    return seen.facts.dpkg_interrupted and "/var/lib/dpkg/updates is not empty"


def half_installed(seen: Seen) -> Answer:
    if seen.facts.packages is None:
        return None
    bad = [p for p in seen.facts.packages.values() if p.status in ("half-installed", "half-configured", "unpacked", "reinst-required", "triggers-pending", "triggers-awaited")]
    return bool(bad) and f"package {bad[0].name} {bad[0].version} is {bad[0].status}"


def lock_held(seen: Seen) -> Answer:
    held = seen.facts.locks
    return bool(held) and f"{held[0].path} is held by process {held[0].pid} ({held[0].command})"


def lock_held_by_another(seen: Seen) -> Answer:
    return not lock_held_by_upgrades(seen) and lock_held(seen)


def lock_held_by_upgrades(seen: Seen) -> Answer:
    held = [lock for lock in seen.facts.locks if re.search(r"unattended-upgr|apt-daily|apt\.systemd|dnf-automatic|packagekit", lock.command)]
    return bool(held) and f"{held[0].path} is held by process {held[0].pid} ({held[0].command})"


def cloud_init_running(seen: Seen) -> Answer:
    return seen.facts.cloud_init == "running" and "cloud-init is still running"


def toolkit_versions_differ(seen: Seen) -> Answer:
    versions = {name: seen.facts.installed(name) for name in TOOLKIT_PACKAGES if seen.facts.installed(name)}
    return len(set(versions.values())) > 1 and ", ".join(f"{name} {version}" for name, version in versions.items())


def driver_packages_held(seen: Seen) -> Answer:
    if seen.facts.packages is None:
        return None
    held = [p.name for p in seen.facts.packages.values() if p.held and re.search(r"nvidia|cuda|docker|containerd", p.name)]
    return bool(held) and f"held: {', '.join(held[:6])}"


def driver_packages_of_two_branches(seen: Seen) -> Answer:
    if seen.facts.packages is None:
        return None
    found: dict[str, str] = {}
    for package in seen.facts.packages.values():
        named = re.match(r"(?:nvidia-(?:driver|dkms|utils|compute-utils|headless|kernel-common)|libnvidia-compute)-(\d{3})\b", package.name)
        if named and package.installed and "+really" not in package.version and "~trans" not in package.version:
            real = re.match(r"(?:\d+:)?(\d{3})\.", package.version)
            if real and real.group(1) == named.group(1):
                found.setdefault(named.group(1), package.name)
    return len(found) > 1 and f"{' and '.join(found.values())} are installed side by side"


CHECKS = {function.__name__.replace("_", "-"): function for function in (
    clock_wrong, wsl, secure_boot_on, locked_down, running_modules_gone, root_full,
    docker_disk_full, inodes_gone, root_read_only, names_unresolved, proxy_unresolved, signing_key_missing, signing_key_expired,
    signing_key_unreadable, signing_key_empty, two_sources_two_keys, toolkit_source_of_old, unsupported_distribution, releasever_in_docker_source,
    dpkg_interrupted, half_installed, lock_held_by_another, lock_held_by_upgrades, cloud_init_running, toolkit_versions_differ,
    driver_packages_held, driver_packages_of_two_branches,
)}
