"""Trees that stand for a machine's files, for `--root`. They are test doubles: nothing in them ever ran."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
UBUNTU_2404 = (
    'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n'
)
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def tree(top: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (path below `top` -> content) and return `top`. A content of `-> target` makes a symbolic link."""
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return top


def gpu(
    address: str = "0000:65:00.0", device: str = "2330", *, pci_class: str = "030200", subsystem: str = "16c1", driver: str = "", config: bytes = b""
) -> dict[str, str | bytes]:
    """The files of one NVIDIA function on the bus."""
    folder = f"sys/bus/pci/devices/{address}"
    files: dict[str, str | bytes] = {
        f"{folder}/vendor": "0x10de\n",
        f"{folder}/device": f"0x{device}\n",
        f"{folder}/class": f"0x{pci_class}\n",
        f"{folder}/subsystem_vendor": "0x10de\n",
        f"{folder}/subsystem_device": f"0x{subsystem}\n",
    }
    if driver:
        files[f"{folder}/driver"] = f"-> ../../../../bus/pci/drivers/{driver}"
    if config:
        files[f"{folder}/config"] = config
    return files


def vgpu_config() -> bytes:
    """A configuration space of 256 bytes whose second capability carries the mark of a vGPU."""
    data = bytearray(256)
    data[6] = 0x10
    data[0x34] = 0x60
    data[0x60:0x63] = bytes((0x01, 0x80, 0x08))
    data[0x80:0x85] = bytes((0x09, 0x00, 0x20)) + b"VF"
    return bytes(data)


def fingerprint(top: Path) -> str:
    """One digest over every path below `top`: kind, mode, times, content and link target."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted((*names, *folders)):
            path = Path(folder, name)
            status = path.lstat()
            digest.update(f"{path.relative_to(top)} {status.st_mode} {status.st_uid} {status.st_mtime_ns} {status.st_size}\n".encode())
            if path.is_symlink():
                digest.update(os.readlink(path).encode())
            elif path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()
