"""`parse`: from the sections of a probe's answer to `Facts`. Pure; unknown is never taken for absent.

Each module reads one part of the answer; none opens a file or asks anything.
"""

from __future__ import annotations

from dataclasses import replace

from provision.errors import ProbeFailed
from provision.facts import apt, docker, journal, nvidia, packages, rpm, storage, system
from provision.facts.text import ABSENT, Sections, get, line, number, pairs, rows
from provision.model import Facts, PciDevice

__all__ = ["parse"]


def parse(sections: Sections, host: str = "") -> Facts:
    """All that the sections (from `provision.capture.split`) tell. `host` names the host where its own name is not wanted.

    `Facts.unknown` lists what could not be read. Raises ProbeFailed, and nothing else whatever the texts, where the answer is no answer
    of this version's probe, the root it was to read does not exist, or nothing could be read at all.
    """
    probe = pairs(get(sections, "probe").text)
    live, image = probe.get("mode") not in ("root", "image"), probe.get("mode") == "image"
    _refuse(sections, probe)
    seen = get(sections, "present")
    present = frozenset(row for row in rows(seen.text) if not row.startswith("? "))
    programs = dict(row.split(" ", 1) for row in rows(get(sections, "programs").text) if " " in row)
    os = system.os_release(sections)
    if os is None:
        raise ProbeFailed(
            "The probe could not read /etc/os-release on this host" + (" (there is no awk)." if get(sections, "awk").rc == 127 else "."),
            "Install awk there, or make the file readable.",
        )
    mounts = system.mounts(sections)
    kernel = line(sections, "kernel") or None
    installed = packages.packages(sections, present, live)
    units = packages.units(sections)
    sources, source_texts, unread = apt.sources(sections)
    rpm_sources, rpm_texts = rpm.sources(sections)
    users = dict(row.rsplit(":", 1) for row in rows(get(sections, "passwd").text) if ":" in row)
    paths, unknown_paths = storage.paths(sections)
    configuration = get(sections, "daemon_json")
    boot_id = line(sections, "boot_id") or None
    run, last_run = journal.runs(sections, boot_id)
    facts = Facts(
        host=host or line(sections, "hostname") or "localhost",
        arch=line(sections, "arch") or packages.machine(sections),
        os=os,
        live=live,
        kernel=kernel,
        kernels=system.kernels(sections),
        uid=number(line(sections, "uid")),
        boot_id=boot_id,
        host_time=number(line(sections, "time")),
        asked_at=number(line(sections, "asked_at")),
        container="" if image else system.container(sections, present, mounts),
        wsl="/dev/dxg" in present or "microsoft" in (kernel or "").lower(),
        ostree="/run/ostree-booted" in present,
        usr_writable=system.usr_writable(mounts) if live else None,
        systemd="systemctl" in programs if image else "/run/systemd/system" in present if live and seen.rc == 0 else None,
        dmi=pairs(get(sections, "dmi").text),
        hypervisor_uuid=line(sections, "hypervisor_uuid") or "",
        secure_boot=system.secure_boot(sections, present),
        tegra="/etc/nv_tegra_release" in present,
        nvidia_pci=_bus(sections, present, live),
        nvidia=nvidia.driver(sections, present),
        docker=docker.docker(
            sections, present=present, programs=programs, packages=installed, units=units, users={uid: name for name, uid in users.items()}, live=live
        ),
        toolkit=nvidia.toolkit(sections, programs, installed),
        packages=installed,
        dpkg_interrupted=any(row.isdigit() for row in rows(get(sections, "dpkg_updates").text)),
        apt_sources=sources,
        apt_source_texts=source_texts,
        keyrings=apt.keyrings(sections),
        apt_proxy=apt.proxy(sections),
        managers=rpm.managers(programs),
        rpm_sources=rpm_sources,
        rpm_source_texts=rpm_texts,
        rpm_keys=rpm.keys(sections),
        modules=rpm.modules(sections),
        releasever=rpm.releasever(sections),
        initramfs=rpm.initramfs(programs),
        selinux=rpm.selinux(sections, present, live),
        firewalls=system.firewalls(sections, units),
        instance=system.instance(sections),
        units=units,
        locks=packages.locks(sections),
        cloud_init=system.cloud_init(sections, present, frozenset(programs)),
        disks=storage.disks(sections, mounts),
        block_devices=storage.block_devices(sections, mounts),
        groups=_groups(get(sections, "group").text),
        users=tuple(users) if get(sections, "passwd").rc == 0 else None,
        paths=paths,
        daemon_json=configuration.text if configuration.rc == 0 else "" if configuration.rc == ABSENT else None,
        daemon_json_sha256=paths["/etc/docker/daemon.json"].sha256 if "/etc/docker/daemon.json" in paths else "",
        proof=pairs(get(sections, "proof").text),
        run=run,
        last_run=last_run,
    )
    return _with_unknown(facts, sections, (*unread, *unknown_paths))


def _refuse(sections: Sections, probe: dict[str, str]) -> None:
    section = get(sections, "probe")
    if section.rc == ABSENT and probe.get("mode") == "root":
        raise ProbeFailed("The folder given with --root does not exist or may not be entered.", "Give the top of an unpacked or mounted system.")
    if section.rc != 0:
        raise ProbeFailed(f"The probe refused its arguments (code {section.rc}): {section.text[:200]}.", "Capture again with this version of mlhost.")
    if probe.get("schema") != "1":
        raise ProbeFailed(
            f"This capture has schema {probe.get('schema', '?')[:20]}, and this mlhost reads schema 1.", "Capture again with this version of mlhost."
        )


def _bus(sections: Sections, present: frozenset[str], live: bool) -> tuple[PciDevice, ...] | None:
    """The PCI devices; none on a live machine that has a sysfs without any PCI bus."""
    if get(sections, "pci").rc == ABSENT and live and "/sys/devices" in present:
        return ()
    return nvidia.pci(sections)


def _groups(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in rows(text):
        parts = row.split(":")
        if len(parts) >= 4:
            found[parts[0]] = tuple(name for name in parts[3].split(",") if name)
    return found


def _with_unknown(facts: Facts, sections: Sections, more: tuple[str, ...]) -> Facts:
    optional = ("kernel", "uid", "boot_id", "host_time", "usr_writable", "systemd", "secure_boot", "nvidia_pci", "packages", "block_devices",
                "users", "daemon_json")
    unknown = [name for name in optional if getattr(facts, name) is None]
    if not facts.arch:
        unknown.append("arch")
    if facts.docker and facts.docker.server is None:
        unknown.append("docker.server")
    if facts.gpus and get(sections, "modinfo").rc == 127:
        unknown.append("nvidia.on_disk")
    if facts.gpus and facts.live and facts.uid not in (0, None):
        unknown.append("nvidia_pci.vgpu")
    unknown += [name for name, section in (("units", "units"), ("locks", "locks"), ("disks", "df_both" if "df_both" in sections else "df"), ("group", "group"),
                                           ("proof", "proof"), ("cloud_init", "cloud_status"))
                if _unknown(sections, section) and not (name == "units" and facts.systemd is False)]
    if journal.unknown(sections):
        unknown.append("journal")
    return replace(facts, unknown=tuple(dict.fromkeys((*unknown, *more))))


def _unknown(sections: Sections, name: str) -> bool:
    if name not in sections:
        return name in ("units", "locks", "df", "group")
    return sections[name].rc not in (0, ABSENT)
