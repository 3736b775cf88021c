"""One run an output folder: a lock that dies with its process and is never a file's mere existence.

`flock` is dropped by the kernel however the holder ends, so no age or process number has to be guessed at. The file
is never removed: a second process could then lock a new file of the same name while the first still holds the old
one. Should somebody else remove it, the comparison of inodes after locking finds that out.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import orjson

from batchllm.errors import LockedError, OutputError, StorageError
from batchllm.journal.files import STANDING, Kind, Layout, cannot_create, make_folders, probe, storage_fault
from batchllm.journal.manifest import instant

_TRIES = 10
#: Whoever asks for a run's status holds the lock for a moment beside others: a start that meets it looks again.
_GLANCES, _GLANCE_S = 25, 0.02


class Holder(NamedTuple):
    """Who holds an output, as far as it has written that down; `started` as it did."""

    pid: int | None = None
    host: str = ""
    started: object = None


class OutputLock:
    """Held until `release` or the end of the process. Not inherited by child processes."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: int | None = descriptor
        self.path = path

    @classmethod
    def acquire(
        cls, out: Path, *, about: Mapping[str, object], tables: Sequence[Kind] = STANDING
    ) -> "OutputLock":
        """Create the folder where it is missing, with these tables, prove that it can be written, and lock it.

        `about` (such as `started`) is written into the lock file, for humans only. Raises LockedError,
        OutputError, and StorageError when the disk is full.
        """
        layout = Layout(out)
        make_folders(layout, tables)
        descriptor = _lock(layout.lock)
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname(), **about}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, orjson.dumps(holder, default=str), 0)
            probe(layout, tables)
        except OSError as error:
            os.close(descriptor)
            raise cannot_create(layout.lock, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, layout.lock)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(path: Path) -> int:
    for _ in range(_TRIES):
        descriptor = _open(path)
        try:
            _lock_alone(descriptor)
            if is_current(descriptor, path):
                os.fchmod(descriptor, 0o600)
                return descriptor
        except BlockingIOError as error:
            fault = _in_use(descriptor, path)
            os.close(descriptor)
            raise fault from error
        except OSError as error:
            os.close(descriptor)
            raise cannot_create(path, error) from error
        os.close(descriptor)
    raise LockedError(
        f"{path} is replaced again and again by somebody else",
        remedy="find the program that removes files in this folder",
    )


def _lock_alone(descriptor: int) -> None:
    """Raises BlockingIOError while another one holds it alone, or others share it for more than a glance."""
    for glance in range(_GLANCES + 1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if glance == _GLANCES or _is_held_alone(descriptor):
                raise
            time.sleep(_GLANCE_S)
        else:
            return


def _is_held_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _in_use(descriptor: int, path: Path) -> LockedError:
    if _is_held_alone(descriptor):
        return LockedError(
            f"{path.parent.parent} is in use: held by {_holder(descriptor)}",
            remedy="wait for that run to end, or choose another output path",
        )
    return LockedError(
        f"{path.parent.parent} is being verified: nothing may change meanwhile",
        remedy="start again when `batchllm verify` has ended",
    )


@contextmanager
def shared_lock(out: Path) -> Iterator[None]:
    """Nobody changes `out` meanwhile; nothing is written for it. Raises LockedError while a run holds it.

    Where there is no lock file (a copy, an archive) nobody is kept out, and nobody is there.
    """
    path = Layout(out).lock
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise storage_fault("read", path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise LockedError(
            f"{out} is in use: held by {_holder(descriptor)}",
            remedy="verify it when that run has ended: its parts change as it goes on",
        ) from error
    finally:
        os.close(descriptor)


def holder_of(out: Path) -> Holder | None:
    """Who holds `out` alone at this moment; None where nobody does. Nothing is written, and a start does not mind.

    Raises StorageError where the lock file cannot be read.
    """
    path = Layout(out).lock
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise StorageError(
            f"cannot read {path}: {error.strerror}",
            remedy="only the user who runs the job has permission to look there: ask as that one",
        ) from error
    except OSError as error:
        raise storage_fault("read", path, error) from error
    try:
        return _said(descriptor) or Holder() if _is_held_alone(descriptor) else None
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutputError(
                f"{path} is a symbolic link", remedy="remove it; the lock is a file of its own"
            ) from error
        raise cannot_create(path, error) from error


def is_current(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    held = os.fstat(descriptor)
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - beside fstat
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)


def _instant(started: object) -> str:
    """A time as a reader knows it; whatever else was written there, as it is."""
    try:
        return instant(started) if isinstance(started, int | float) else str(started)
    except (ValueError, OverflowError, OSError):
        return str(started)


def _holder(descriptor: int) -> str:
    held = _said(descriptor)
    if held is None:
        return "another process"
    since = "" if held.started is None else f" since {_instant(held.started)}"
    return f"pid {held.pid or 'unknown'} on {held.host or 'this host'}{since}"


def _said(descriptor: int) -> Holder | None:
    """What the lock file says; a holder that has locked but not yet written is not an error."""
    try:
        said = orjson.loads(os.pread(descriptor, 4096, 0))
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(said, dict):
        return None
    pid, host = said.get("pid"), said.get("host")
    return Holder(pid if isinstance(pid, int) else None, str(host or ""), said.get("started"))
