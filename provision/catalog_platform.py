"""From rows of `data/*.toml` to what they mean for one machine: its platform, its repositories, the parts of an rpm driver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from provision.catalog_systems import Distros, base_of
from provision.errors import Unsupported
from provision.rows import DriverPackages, Installer, Kernel, KernelRule, Platform, Repository, Row, filled, version_key

if TYPE_CHECKING:
    from provision.model import OsRelease

# Where a package manager looks for sources, by family.
REPOS = {"debian": "/etc/apt/sources.list.d", "rhel": "/etc/yum.repos.d", "suse": "/etc/zypp/repos.d"}


def platform(distros: Distros, row: Row, derivative: Row | None, os: OsRelease, arch: str) -> Platform:
    """The platform of a system with this row. Raises Unsupported for an architecture that is in no row."""
    machine = next((entry for entry in distros["arch"] if entry["machine"] == arch), None)
    if machine is None:
        known = ", ".join(entry["machine"] for entry in distros["arch"])
        raise Unsupported(f"The architecture {arch!r} is not supported.", f"mlhost knows {known}.")
    base = base_of(distros, row)
    rpm = base["family"] != "debian"
    release = f"{row.get('name') or base['name']} {row['version']}"
    cuda_arch = machine.get("cuda", "")
    has_cuda = cuda_arch in row.get("cuda_arches", ()) and "cuda" not in row.get("withheld", {})
    first, last = row.get("cuda_branches", ("", ""))
    common = Platform(
        id=os.id.lower(),
        name=os.pretty_name or release,
        version=os.version_id or row["version"],
        codename=row.get("codename", ""),
        family=base["family"],
        arch=arch,
        deb_arch=row.get("deb_arch", machine["deb"]),
        base_id=base.get("base_id", base["id"]),
        base_version=base.get("base_version", row["version"]),
        derivative_of=release if derivative else "",
        deb822=row.get("deb822", False),
        apt=row.get("apt", ""),
        docker_tree=row["docker_tree"] if machine.get("docker") else "",
        docker_suite=row["docker_suite"],
        docker_version_suffix=row["docker_version_suffix"],
        docker_frozen=row.get("docker_frozen", False),
        docker_remove=tuple(base["docker_remove"]),
        distro_docker_packages=tuple(row["distro_docker"]),
        distro_docker_version=row["distro_docker_version"],
        distro_docker_remove=tuple(base["distro_docker_remove"]),
        toolkit=bool(machine.get("toolkit")) and "deb_arch" not in row and arch in row.get("toolkit_arches", (arch,)),
        cuda=row["cuda"] if has_cuda else "",
        cuda_arch=cuda_arch if has_cuda else "",
        cuda_key=row["cuda_key"] if has_cuda else "",
        cuda_first=first,
        cuda_last=last,
        driver_sources=tuple(base["driver_sources"]),
        components=tuple(row.get("components", ())),
        nonfree=base.get("nonfree", ""),
        distro_driver=row["distro_driver"],
        kernel_flavor_pattern=base.get("kernel_flavor", ""),
        headers=tuple(base.get("headers", ())),
        headers_meta=base.get("headers_meta", ""),
        initramfs=base["initramfs"],
        initramfs_update=base["initramfs_update"],
        init=base["init"],
        python3=row["python3"],
        eol=row["eol"],
        lock_wait=row.get("lock_wait", True),
        key_armor=row.get("key_armor", True),
        prerequisites=tuple(row.get("prerequisites", ())),
        docker_newest=row.get("docker_newest", ""),
        docker_packages=tuple(row.get("docker_packages", ())),
        toolkit_tree=row.get("toolkit_tree", "deb"),
        toolkit_newest=row.get("toolkit_newest", ""),
        toolkit_avoid=tuple(row.get("toolkit_avoid", ())),
        dkms=row.get("dkms", True),
        notes=tuple(row.get("notes", ())),
        withheld=tuple(row.get("withheld", {}).items()),
        source=row["source"],
        verified=row["verified"],
    )
    return _rpm(common, row, arch) if rpm else common


def _rpm(common: Platform, row: Row, arch: str) -> Platform:
    return common._replace(
        package_manager=row["package_manager"],
        locks=row["locks"],
        lock_packages=tuple(row["lock_packages"]),
        rpm_arch=arch,
        modular=row["modular"],
        epel=row["epel"],
        epel_package=row.get("epel_package", ""),
        extra_repositories=_fill(row.get("repositories", ()), {"rpm_arch": arch}),
        kernels=tuple(_rule(rule) for rule in row["kernels"]),
        docker_starts=row["docker_starts"],
        docker_repository=row.get("docker_repository", ""),
        docker_enable=row.get("docker_enable", ""),
        toolkit_distro=tuple(row.get("toolkit_distro", ())),
        driver_remove=tuple(row["driver_remove"]),
        preferred_branches=tuple(row.get("preferred", ())),
        selinux=row["selinux"],
        firewall=row["firewall"],
    )


def kernel(system: Platform, release: str) -> Kernel | None:
    """The kind of kernel that `uname -r` names on an rpm system; None for one that is not the distribution's."""
    for rule in system.kernels:
        match = re.search(rule.match, release)
        if match:
            values = {"kernel": release, **match.groupdict()}
            headers = _fill(rule.headers, values)
            version = filled(rule.headers_version, values) + "*" if rule.headers_version else ""
            return Kernel(
                flavor=filled(rule.flavor, values),
                headers=headers,
                meta=filled(rule.meta, values),
                versions=MappingProxyType(dict.fromkeys(headers, version) if version else {}),
                extra=_fill(rule.extra, values),
                docker=_fill(rule.docker, values),
                compiler=rule.compiler,
                cc=rule.cc,
            )
    return None


def _rule(row: Row) -> KernelRule:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return KernelRule(**values)


def repository(data: Mapping[str, Any], name: str, system: Platform) -> Repository | None:
    """The repository of this name for a platform, from repositories.toml; None where nobody serves it or its key is not known in full."""
    row = next((r for r in data["repository"] if r["name"] == name and _of(r, system.family)), None)
    served = {
        "docker": bool(system.docker_tree),
        "toolkit": system.toolkit,
        "cuda": bool(system.cuda),
        "epel": system.epel and not system.epel_package,
        "microsoft": system.base_id == "azurelinux",
    }
    if row is None or not served[name]:
        return None
    values = {
        "tree": system.docker_tree,
        "toolkit_tree": system.toolkit_tree,
        "suite": system.docker_suite,
        "deb_arch": system.deb_arch,
        "rpm_arch": system.rpm_arch,
        "major": system.base_version,
        "cuda": system.cuda,
        "cuda_arch": system.cuda_arch,
        "key": system.cuda_key,
        "repos": REPOS[system.family],
    }
    fingerprints = row["fingerprints"]
    if not fingerprints:
        wanted = {"cuda": system.cuda, "epel": f"epel-{system.base_version}"}[name]
        fingerprints = [key["fingerprint"] for key in data["key"] if wanted in key["systems"] and key["fingerprint"]]
        if not fingerprints:
            return None
    uri = filled(row["uri"], values)
    rpm = system.family != "debian"
    key_path = filled(row["key_path"], values)
    if not system.key_armor:
        key_path = re.sub(r"\.asc$", ".gpg", key_path)
    packages = (system.docker_packages if name == "docker" else ()) or tuple(row["packages"])
    newest = (system.toolkit_newest if name == "toolkit" else "") or row.get("newest", "")
    return Repository(
        name=name,
        title=row["title"],
        base=row["base"],
        uri=uri,
        suite="" if rpm else filled(row["suite"], values),
        components=tuple(row.get("components", ())),
        architectures=(system.package_arch,),
        key_url=filled(row["key_url"], values),
        key_path=key_path,
        fingerprints=tuple(fingerprints),
        source_path=filled(row["source_path"], values),
        index_url=f"{uri}/repodata/repomd.xml" if rpm else f"{uri}/{filled(row['index'], values)}",
        hosts=tuple(row["hosts"]),
        packages=packages,
        epoch=row.get("epoch", ""),
        minimum=row.get("minimum", ""),
        newest=newest,
        avoid=(*row.get("avoid", ()), *(system.toolkit_avoid if name == "toolkit" else ())),
        legacy_sources=_fill(row["legacy_sources"], values),
        legacy_keys=tuple(row["legacy_keys"]),
        legacy_packages=tuple(row.get("legacy_packages", ())),
        obsolete_fingerprints=tuple(row.get("obsolete_fingerprints", ())),
        family=system.family,
        section=filled(row.get("section", ""), values),
        gpgcheck=row.get("gpgcheck", True),
        repo_gpgcheck=row.get("repo_gpgcheck", not rpm),
        epochs=tuple(row.get("epochs", {}).items()),
        includes=tuple(row.get("includes", ())),
        installed_keys=tuple(row.get("installed_keys", ())),
        legacy_sections=_fill(row.get("legacy_sections", ()), values),
    )


def repo_file(repository: Repository) -> str:
    """The text of the .repo file of an rpm repository, for dnf, yum, tdnf and zypper alike. Its key is the file at `key_path`, never a URL."""
    keys = repository.installed_keys or (repository.key_path,)
    lines = [
        f"[{repository.section}]",
        f"name={repository.title}",
        f"baseurl={repository.uri}",
        "enabled=1",
        f"gpgcheck={int(repository.gpgcheck)}",
        f"repo_gpgcheck={int(repository.repo_gpgcheck)}",
        "gpgkey=" + " ".join(f"file://{path}" for path in keys),
    ]
    if repository.family == "suse" and repository.gpgcheck:
        lines.append("pkg_gpgcheck=1")  # else zypper is content with a signed index
    if repository.includes:
        lines.append(f"includepkgs={' '.join(repository.includes)}")
    return "\n".join(lines) + "\n"


def rpm_driver(
    row: Row, system: Platform, kind: Kernel | None, release: str, branch: str, version: str
) -> DriverPackages | None:
    """The driver that a row of drivers_rpm.toml describes. None where its module can neither be had nor built for this kernel."""
    values = {
        "branch": branch,
        "version": f"{version}-" if version else f"{branch}.",
        "kernel_flavor": kind.flavor if kind else "",
        "kernel_dotted": release.replace("-", "."),
    }
    prebuilt = _fill(row.get("prebuilt", ()), values)
    if prebuilt and kind is None:
        return None
    programs = prebuilt + _fill(row["packages"], values)
    dkms = _fill(row["dkms"], values)
    glob = filled(row["version"], values) if "version" in row else filled("{version}*", values) if version else ""
    built = not prebuilt
    needs = tuple(row.get("needs", ()))
    return DriverPackages(
        packages=programs + dkms,
        headers=kind.headers if kind and built else (),
        headers_meta=kind.meta if kind and built else "",
        repository=row["repository"] or None,
        components=(),
        pinning="",
        preferences="",
        versions=MappingProxyType({**(kind.versions if kind and built else {}), **(dict.fromkeys(programs + dkms, glob) if glob else {})}),
        prebuilt=bool(prebuilt),
        metapackage="",
        module=row["module"],
        source=row["source_name"],
        branch=branch,
        flavor=row["flavor"],
        fallback=None,
        stream=filled(row.get("stream", ""), values) if system.modular else "",
        locks=_fill(row["locks"], values),
        needs=needs if system.epel else (),
        release=row.get("release", ""),
        follows=filled(row.get("follows", ""), values),
        extra=kind.extra if kind else (),
        compiler=kind.compiler if kind and built else "",
        kernel_suffix=filled(row.get("kernel_suffix", ""), values),
    )


def run_driver(
    data: Mapping[str, Any], system: Platform, kind: Kernel | None, release: str, branch: str, flavor: str
) -> DriverPackages | None:
    """The driver by NVIDIA's .run installer, from drivers.toml; None where it is not known to work for this system and kernel."""
    row = next((r for r in data["runfile"] if r["branch"] == branch and r["arch"] == system.arch and system.base in r["systems"]), None)
    if row is None or flavor not in row["flavors"]:
        return None
    oldest, newest = map(version_key, row["kernels"])
    if release and not oldest <= version_key(release)[:2] <= newest:
        return None
    common = data["installer"]
    base = common["base"]
    options = (*(("--dkms",) if system.dkms else ()), *_fill(row["options"], {"flavor": flavor}))
    tools = tuple(name for name in common["tools"][system.family] if name != "dkms" or system.dkms)
    file = Installer(row["version"], base, f"{base}/{row['path']}", f"{base}/{common['check']}", row["sha256"], options, kind.cc if kind else "")
    return DriverPackages(
        packages=(),
        headers=kind.headers if kind else (),
        headers_meta=kind.meta if kind else "",
        repository=None,
        components=(),
        pinning="",
        preferences="",
        versions=MappingProxyType(dict(kind.versions) if kind else {}),
        prebuilt=False,
        metapackage="",
        module="nvidia",
        source="runfile",
        branch=branch,
        flavor=flavor,
        fallback=None,
        needs=("epel",) if system.epel else (),
        extra=(*tools, *(kind.extra if kind else ())),
        compiler=kind.compiler if kind else "",
        installer=file,
        rebuilt=system.dkms,
    )


def _of(row: Row, family: str) -> bool:
    return family == row["family"] or (isinstance(row["family"], list) and family in row["family"])


def _fill(templates: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filled(template, values) for template in templates)
