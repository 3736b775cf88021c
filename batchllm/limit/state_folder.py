"""The folder that all runs of a user on one machine know: where the shared limits live.

The file's name is `limits.db`. One that is damaged, or locked by a program that does not move, is never renamed or
removed, since others may have it open: the next number takes its place (`limits.1.db`), everyone finds that at the
next beat, and numbers are never used twice. Anything else would let SQLite join one file with the write-ahead log of
another.
"""

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from batchllm.errors import StorageError

FOLDER_VARIABLE = "BATCHLLM_STATE_DIR"
SECRET_BYTES = 32
_NAME = re.compile(r"limits(?:\.([1-9][0-9]{0,8}))?\.db(-wal|-shm)?")
_DRAFT = "limits.new-"
_SECRET = "limits.key"  # noqa: S105 - a file's name
#: Nobody makes a draft for so long, and nobody uses a file that another has followed.
_LEFTOVER_S = 86_400.0
_TRIES = 10
_ELSEWHERE = f"or set {FOLDER_VARIABLE} to a folder on a local disk that this user may write"
_REMEDIES = {
    errno.EROFS: f"mount its disk for writing, {_ELSEWHERE}",
    errno.EACCES: f"give this user permission, {_ELSEWHERE}",
    errno.EPERM: f"give this user permission, {_ELSEWHERE}",
    errno.ENOTDIR: f"remove the file that is in the way, {_ELSEWHERE}",
    errno.EEXIST: f"remove the file that is in the way, {_ELSEWHERE}",
    errno.ENOSPC: f"free some space, {_ELSEWHERE}",
    errno.EDQUOT: f"free some space, {_ELSEWHERE}",
}


class Generation(NamedTuple):
    """One of the files, by its number; `limits.db` is 0."""

    number: int
    path: Path


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where the file lives. Raises StorageError when nothing tells."""
    if told := environ.get(FOLDER_VARIABLE):
        return Path(told).absolute()
    base = environ.get("XDG_STATE_HOME", "")
    if Path(base).is_absolute():  # a relative one is to be ignored, says the specification
        return Path(base) / "batchllm"
    if home := environ.get("HOME"):
        return Path(home).absolute() / ".local" / "state" / "batchllm"
    raise StorageError(
        "neither XDG_STATE_HOME nor HOME is set", remedy=f"set {FOLDER_VARIABLE} to a folder on a local disk"
    )


def prepare_folder(folder: Path, is_network: Callable[[Path], bool]) -> None:
    """Make it where it is missing, for this user alone. Raises StorageError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        place = folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise cannot_use(folder, error) from error
    if not place.is_dir():
        raise cannot_use(folder, NotADirectoryError(errno.ENOTDIR, "not a folder"))
    if is_network(place):
        raise StorageError(
            f"{folder} is on a network file system, where SQLite's shared memory does not work",
            remedy=f"set {FOLDER_VARIABLE} to a folder on a local disk",
        )


def newest(folder: Path) -> Generation | None:
    """The file that is in use. Raises OSError."""
    found = [number for number, is_database in _numbers(folder) if is_database]
    return _generation(folder, max(found)) if found else None


def create(folder: Path, after: Generation | None, fill: Callable[[Path], None]) -> None:
    """A new file in place of `after`, filled by `fill` before it has its name. Does nothing if somebody was faster.

    Raises OSError and what `fill` raises.
    """
    names = _numbers(folder)
    least = -1 if after is None else after.number
    if any(is_database and number > least for number, is_database in names):
        return
    # A log that was left without its file would be taken for the new file's own.
    number = 1 + max([least, *(number for number, _ in names)])
    descriptor, name = tempfile.mkstemp(prefix=_DRAFT, dir=folder)  # mode 0600
    os.close(descriptor)
    draft = Path(name)
    try:
        fill(draft)
        with contextlib.suppress(FileExistsError):
            _give_name(draft, _generation(folder, number).path)
    finally:
        draft.unlink()


def read_secret(folder: Path) -> bytes:
    """What names of pools are made with; made by whoever comes first. Raises StorageError and OSError."""
    path = folder / _SECRET
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            secret = path.read_bytes()
            if len(secret) != SECRET_BYTES:
                raise StorageError(f"{path} has {len(secret)} bytes, not {SECRET_BYTES}", remedy="remove it")
            return secret
        create_secret(folder, path)
    raise StorageError(f"{path} vanishes again and again", remedy="find the program that removes it")


def create_secret(folder: Path, path: Path) -> None:
    descriptor, draft = tempfile.mkstemp(prefix=_DRAFT, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            _give_name(Path(draft), path)
    finally:
        Path(draft).unlink()


def tidy(folder: Path, now_wall_s: float) -> None:
    """Remove what killed processes left and what nobody has used for a day. Raises OSError."""
    current = newest(folder)
    for path in folder.iterdir():
        named = _NAME.fullmatch(path.name)
        is_old = named is not None and current is not None and int(named[1] or 0) < current.number
        with contextlib.suppress(FileNotFoundError):  # another process tidies as well
            if (is_old or path.name.startswith(_DRAFT)) and now_wall_s - path.lstat().st_mtime > _LEFTOVER_S:
                path.unlink()


def cannot_use(folder: Path, error: OSError | RuntimeError) -> StorageError:
    code = getattr(error, "errno", None)
    why = getattr(error, "strerror", None) or error
    return StorageError(f"cannot use {folder}: {why}", remedy=_REMEDIES.get(code or 0, _ELSEWHERE[3:]))


def _numbers(folder: Path) -> list[tuple[int, bool]]:
    """Number of each file there is, and whether it is a database or what belongs to one."""
    with os.scandir(folder) as entries:
        named = [_NAME.fullmatch(entry.name) for entry in entries]
    return [(int(name[1] or 0), name[2] is None) for name in named if name is not None]


def _generation(folder: Path, number: int) -> Generation:
    return Generation(number, folder / (f"limits.{number}.db" if number else "limits.db"))


def _give_name(draft: Path, path: Path) -> None:
    """Raises FileExistsError when the name is taken: the first wins."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
            raise
        raise StorageError(
            f"{path.parent} is on a file system without links", remedy=_ELSEWHERE[3:]
        ) from error
