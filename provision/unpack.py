"""What `mlhost.pyz` runs first: it unpacks itself once, beside where a checkout would have its environment, and goes on from there.

Unpacked it starts in half the time, as Python keeps what it compiled, and everything is a file as in any other installation. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path


def unpacked(archive: Path, where: Path) -> Path:
    """The folder below `where` with what the archive holds; made on first use, whole or not at all.

    Its name is the archive's sha256, so that another one goes elsewhere. Raises OSError where it cannot be made, PermissionError for a folder
    that somebody else could have filled.
    """
    content = archive.read_bytes()
    folder = where / hashlib.sha256(content).hexdigest()[:32]
    if not folder.exists():
        where.mkdir(mode=0o755, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=str(where)))  # for this user alone
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as members:
                members.extractall(work)
            _into_place(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    found = os.stat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(13, "it is not this user's own")
    return folder


def _into_place(work: Path, folder: Path) -> None:
    try:
        work.rename(folder)
    except OSError:
        if not folder.exists():  # else another start was quicker
            raise


def main() -> None:
    """Run the mlhost that is in the archive this module was imported from."""
    from provision.bootstrap import home

    archive = Path(os.path.abspath(__file__)).parent.parent
    where = home() / "pyz"
    try:
        folder = unpacked(archive, where)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SystemExit(
            f"mlhost: {archive} cannot be unpacked into {where}: {reason}.\nName another folder in the environment variable MLHOST_HOME."
        ) from None
    sys.path[0] = str(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "provision"]:
        del sys.modules[name]  # they came from the archive
    from provision.__main__ import main as mlhost

    mlhost()
