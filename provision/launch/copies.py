"""A tree and its copy on a host: read, compared (`provision.dockrun.trees`), sent and fetched as tar through the connection."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from provision.dockrun import trees
from provision.dockrun.trees import Both
from provision.errors import Failed, UsageError
from provision.launch.look import Place, Say, call
from provision.shipped import shipped

LIMIT = 3600.0
MANY, MUCH = 100_000, 20 << 30


class Copies:
    """The working directory `root` and its copy. `folder` is where the copy is, in the caches of the user there. `say` tells of what moves."""

    def __init__(self, place: Place, cache: str, root: str, say: Say) -> None:
        self._place, self._root, self._say = place, Path(root), say
        # Whose tree it is: two machines, or two users of one, must not share a copy.
        own = hashlib.sha256(f"{socket.gethostname()}\0{os.getuid()}\0{root}".encode(errors="surrogateescape")).hexdigest()[:12]
        label = "".join(c if c.isalnum() or c in "._-" else "-" for c in self._root.name)[:40]
        self.folder = f"{cache}/trees/{label}-{own}"
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mlhost" / "run"
        where = hashlib.sha256(f"{place.name}\0{cache}".encode()).hexdigest()[:12]
        self._state = state / f"{own}-{where}.json"

    def forth(self) -> None:
        """Make the copy what is here; what changed there since the last time is fetched first."""
        with self._alone():
            base, here = self._base(), self._here()
            there = trees.listing(self._call("list"))
            moves = trees.moves(base, here, self._seen(there), trees.FORTH)
            if moves.fetch or moves.aside:
                self._say(f"{self._place.name} has what an earlier run wrote and never brought back: fetching it first.")
                base, here = self._fetch(moves, base, here, there)
            removed = [name for name in moves.remove if name in there]
            if removed:
                self._call("remove", data=_names(removed))
            send = [name for name in moves.send if name in here]
            if send:
                size = sum(os.lstat(self._root / name).st_size for name in send)
                self._say(f"sending {trees.summary(len(send), size)} to {self._place.name}")
                there = self._send(send)
            for name in send:
                if name in there:
                    base[name] = Both(here[name], there[name])
            for name in removed:
                base.pop(name, None)
            self._keep(base, here, there)

    def back(self) -> None:
        """Fetch what the command wrote. A file that was edited here meanwhile stays; the other version is put beside it."""
        with self._alone():
            base, here = self._base(), self._here()
            there = trees.listing(self._call("list"))
            moves = trees.moves(base, here, self._seen(there), trees.BACK)
            if moves.gone:
                self._say(f"removed on {self._place.name}, and kept here: {', '.join(moves.gone[:5])}{' …' if len(moves.gone) > 5 else ''}")
            base, here = self._fetch(moves, base, here, there)
            self._keep(base, here, there)

    # ------------------------------------------------------------ the two sides

    def _here(self) -> dict[str, str]:
        """The files and links here, with their marks. Raises UsageError for a tree that is too big to be meant."""
        found: dict[str, str] = {}
        size = 0
        ruled = self._rules()
        pending = [""]
        while pending:
            folder = pending.pop()
            with os.scandir(self._root / folder if folder else self._root) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if trees.ignored(name, is_folder, ruled):
                        continue
                    if is_folder:
                        pending.append(name)
                        continue
                    info = entry.stat(follow_symlinks=False)
                    if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)) or not trees.safe(name):
                        continue
                    found[name] = f"{info.st_size} {info.st_mode:x} {info.st_mtime_ns}"
                    size += info.st_size
            if len(found) > MANY or size > MUCH:
                raise UsageError(f"{self._root} holds more than {MANY} files or {MUCH >> 30} GiB.",
                                 f"Name what needs not go to the host in {trees.IGNORE_FILE} (as in .gitignore), or work in the project's own directory.")
        return found

    def _rules(self) -> tuple[trees.Rule, ...]:
        try:
            return trees.rules((self._root / trees.IGNORE_FILE).read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return trees.rules("")
        except OSError as error:
            raise UsageError(f"{trees.IGNORE_FILE} cannot be read: {error.strerror}.", "Make it readable.") from None

    def _seen(self, there: dict[str, str]) -> dict[str, str]:
        ruled = self._rules()
        return {name: mark for name, mark in there.items() if not trees.hidden(name, ruled)}

    def _call(self, what: str, data: bytes = b"") -> bytes:
        return call(self._place, "tree", what, self.folder, limit=LIMIT, data=data)

    def _words(self, what: str) -> list[str]:
        return self._place.words(["sh", "-c", shipped("scripts/run/tree.sh"), "sh", what, self.folder])

    # ------------------------------------------------------------ moving

    def _send(self, names: Sequence[str]) -> dict[str, str]:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(self._words("put"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            with process:
                assert process.stdin is not None  # noqa: S101 - narrows the type
                assert process.stdout is not None  # noqa: S101 - narrows the type
                with contextlib.suppress(BrokenPipeError):
                    with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                        for name in names:
                            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                                tar.add(self._root / name, name, recursive=False, filter=_nobodys)
                    process.stdin.close()
                listed = process.stdout.read()
            if process.returncode:
                raise self._failed("send files to", errors)
        return trees.listing(listed)

    def _fetch(self, moves: trees.Moves, base: dict[str, Both], here: dict[str, str], there: dict[str, str]) -> tuple[dict[str, Both], dict[str, str]]:
        wanted = [*moves.fetch, *moves.aside]
        if not wanted:
            return base, here
        came, size, kept = 0, 0, []
        for name, temporary in self._received(wanted):
            target = self._root / name
            if name in moves.aside or self._mark(name) != here.get(name):
                ours = target if os.path.lexists(target) else None
                if ours is not None and _same(ours, temporary):
                    os.unlink(temporary)
                    base[name] = Both(self._mark(name) or "", there[name])
                    continue
                beside = trees.beside(name, self._place.name, [n for n in self._taken(target) if n])
                os.replace(temporary, self._root / beside)
                kept.append(beside)
                old = base.get(name)
                base[name] = Both(old.here if old else "", there[name])
                continue
            os.replace(temporary, target)
            came += 1
            size += os.lstat(target).st_size
            here[name] = self._mark(name) or ""
            base[name] = Both(here[name], there[name])
        if came:
            self._say(f"fetched {trees.summary(came, size)} from {self._place.name}")
        if kept:
            self._say(f"edited here meanwhile, so that theirs is beside yours: {', '.join(kept[:5])}{' …' if len(kept) > 5 else ''}")
        return base, here

    def _received(self, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
        """Each file as it comes, in a temporary file of its own folder here."""
        wanted = set(names)
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
            asked.write(_names(names))
            asked.seek(0)
            process = subprocess.Popen(self._words("get"), stdin=asked, stdout=subprocess.PIPE, stderr=errors)
            with process:
                assert process.stdout is not None  # noqa: S101 - narrows the type
                try:
                    with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                        for member in tar:
                            name = member.name[2:] if member.name.startswith("./") else member.name
                            temporary = self._unpacked(tar, member, name) if name in wanted else None
                            if temporary is not None:
                                yield name, temporary
                except tarfile.TarError as error:
                    raise Failed(f"{self._place.name}: what came back is no whole archive: {error}.", "Run it again: what has not come yet will.") from None
            if process.returncode > 1:  # 1: a file changed while it was read
                raise self._failed("fetch files from", errors)

    def _unpacked(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Path | None:
        target = self._root / name
        # A link in the way, which the host itself may have sent, must not lead out of the tree.
        if not trees.safe(name) or not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(self._root)):
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        number, path = tempfile.mkstemp(prefix=".mlhost-", dir=target.parent)
        temporary = Path(path)
        try:
            with os.fdopen(number, "wb") as file:
                if member.isfile():
                    source = tar.extractfile(member)
                    if source is not None:
                        shutil.copyfileobj(source, file, 1 << 20)
            if member.issym():
                inside = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
                if os.path.isabs(member.linkname) or inside.startswith(".."):
                    self._say(f"{name} is a link to {member.linkname}, out of the tree; it stays on {self._place.name}")
                    temporary.unlink()
                    return None
                temporary.unlink()
                os.symlink(member.linkname, temporary)
                return temporary
            if not member.isfile():
                temporary.unlink()
                return None
            os.chmod(temporary, member.mode & 0o777)
            os.utime(temporary, (member.mtime, member.mtime))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        return temporary

    def _mark(self, name: str) -> str | None:
        try:
            info = os.lstat(self._root / name)
        except FileNotFoundError:
            return None
        return f"{info.st_size} {info.st_mode:x} {info.st_mtime_ns}"

    def _taken(self, target: Path) -> list[str]:
        with contextlib.suppress(OSError):
            folder = target.parent
            return [str((folder / name).relative_to(self._root)) for name in os.listdir(folder)]
        return []

    def _failed(self, what: str, errors: IO[bytes]) -> Failed:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        return Failed(f"Could not {what} {self._place.name}: {said[-1] if said else 'tar failed there'}.", "Is there space left, here and there?")

    # ------------------------------------------------------------ what is remembered

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._state.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._say("waiting for another `mlhost run --host` that copies this tree")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _base(self) -> dict[str, Both]:
        try:
            content = json.loads(self._state.read_text(encoding="utf-8", errors="surrogateescape"))
            return {name: Both(str(pair[0]), str(pair[1])) for name, pair in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return {}  # as before the first run: what differs is put beside, nothing is lost

    def _keep(self, base: dict[str, Both], here: dict[str, str], there: dict[str, str]) -> None:
        alive = {name: both for name, both in base.items() if name in here or name in there}
        text = json.dumps({"tree": str(self._root), "files": {name: [both.here, both.there] for name, both in alive.items()}})
        temporary = self._state.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        temporary.replace(self._state)


def _names(names: Sequence[str]) -> bytes:
    """As tar and the shell there read them; `./` so that none is taken for an option."""
    return "".join(f"./{name}\n" for name in names).encode("utf-8", "surrogateescape")


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without this machine's users, whom the host does not know."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return filecmp.cmp(one, other, shallow=False)
