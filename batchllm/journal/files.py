"""Where the record lies, and the few file operations that its durability rests on.

    OUT/output, failures, usage     part-*.parquet: immutable, for readers
    OUT/skipped                     the same, where a vote was settled before all were asked
    OUT/manifest.json               replaced atomically, last
    OUT/.batchllm                   0700: lock, journal.db, journal.seen, status.json, ballast, parts that are being
                                    written

Parts are written in `.batchllm` and then linked, so that a folder of parts never shows a half-written file to
those who read it while the run goes on. Nothing here follows a symbolic link inside OUT: one that somebody planted
would let a run write elsewhere.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from batchllm.errors import FullDiskError, OutputError, StorageError

Kind: TypeAlias = Literal["output", "failures", "usage", "skipped"]
KINDS: tuple[Kind, ...] = ("output", "failures", "usage", "skipped")
#: Tables that every output has; the others come with their first lines.
STANDING: tuple[Kind, ...] = ("output", "failures", "usage")
#: Tables whose lines stand in the order of their units, each once; elsewhere rows order them.
BY_UNIT: frozenset[Kind] = frozenset({"output", "skipped"})
Fault: TypeAlias = Callable[[str], None]

STATE_FOLDER = ".batchllm"
PROBE = ".batchllm-probe"
_PROBE_BYTES = 1 << 16
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
NOT_WRITABLE = "its disk is mounted read-only: mount it for writing"
NOT_PERMITTED = "this user may not write there: give permission (files: r and w, folders: r, w and x)"
_REMEDIES = {
    errno.EROFS: NOT_WRITABLE,
    errno.EACCES: NOT_PERMITTED,
    errno.EPERM: NOT_PERMITTED,
    errno.EEXIST: "a file is in the way: remove it",
    errno.ENOTDIR: "a file is in the way: remove it",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
    errno.EMFILE: "raise how many files this process may have open (ulimit -n)",
    errno.EFBIG: "raise the file size limit of this process (ulimit -f) or of its disk",
}
_MOST_PATH_BYTES = 511
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}

#: Where several hosts may map one file: SQLite's shared memory does not work across them.
_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "afs",
    "9p",
}


def no_fault(point: str) -> None:
    """Nothing happens at `point`; tests pass a function that dies there."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one output folder."""

    out: Path

    @property
    def state(self) -> Path:
        return self.out / STATE_FOLDER

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def database(self) -> Path:
        return self.state / "journal.db"

    @property
    def ballast(self) -> Path:
        return self.state / "ballast"

    @property
    def witness(self) -> Path:
        return self.state / "journal.seen"

    @property
    def manifest(self) -> Path:
        return self.out / "manifest.json"

    def folder(self, kind: Kind) -> Path:
        return self.out / kind

    def part(self, kind: Kind, name: str) -> Path:
        return self.out / kind / name

    def draft(self, name: str) -> Path:
        """Where a part is written until it is whole."""
        return self.state / f"{name}.tmp"

    def has_results(self) -> bool:
        """Whether parts or a manifest are there, whoever wrote them."""
        return self.manifest.exists() or any(any(self.folder(kind).glob("part-*.parquet")) for kind in KINDS)


def wal_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def make_folders(layout: Layout, tables: Sequence[Kind] = STANDING) -> None:
    """Create what is missing. Raises OutputError, also when something else stands in the way."""
    _check_length(layout)
    try:
        new = [folder for folder in (layout.out, *layout.out.parents) if not folder.exists()]
        layout.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_create(layout.out, error) from error
    for folder in new:
        with suppress(StorageError):  # a folder that may be written but not listed cannot be fsynced
            sync_folder(folder.parent)
    make_folder(layout.state, 0o700)
    _make_private(layout.state)
    for kind in tables:
        make_folder(layout.folder(kind), 0o777)
    sync_folder(layout.out)


def _check_length(layout: Layout) -> None:
    """Of what SQLite opens, which takes links out of a path and then refuses one of 512 bytes or more."""
    longest = f"{os.path.realpath(layout.database)}-journal"
    over = len(os.fsencode(longest)) - _MOST_PATH_BYTES
    if over > 0:
        raise OutputError(
            f"{layout.out} is a path too long for the journal in it, by {over} bytes",
            remedy="choose a shorter output path",
        )


def make_table_folder(layout: Layout, kind: Kind) -> None:
    """Of a table that comes with its first lines. Raises OutputError, as above."""
    if not layout.folder(kind).is_dir() or layout.folder(kind).is_symlink():
        make_folder(layout.folder(kind), 0o777)
        sync_folder(layout.out)


def _make_private(folder: Path) -> None:
    try:
        os.chmod(folder, 0o700)  # noqa: PTH101 - the mode that mkdir gave went through the umask
    except OSError as error:
        raise cannot_create(folder, error) from error


def make_folder(path: Path, mode: int) -> None:
    """Where it is missing. Raises OutputError, also for a link to one: what is done in it would be done elsewhere."""
    try:
        path.mkdir(mode=mode, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise cannot_create(path, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise OutputError(
            f"{path} is a symbolic link, not a folder of its own",
            remedy="remove it, or choose another output path",
        )


def probe(layout: Layout, tables: Sequence[Kind] = STANDING) -> None:
    """Write, fsync, link and remove a file: permissions alone tell nothing to root or on a read-only mount."""
    source = layout.state / PROBE
    try:
        source.unlink(missing_ok=True)
        write_new(source, b"batchllm", 0o600)
        for folder in (layout.out, *map(layout.folder, tables)):
            target = folder / PROBE
            target.unlink(missing_ok=True)
            _link_probe(source, target)
            target.unlink()
        source.unlink()
    except OSError as error:
        raise cannot_create(Path(error.filename or layout.out), error) from error


def _link_probe(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        raise cannot_link(target, error) from error


def write_new(path: Path, data: bytes | memoryview, mode: int) -> None:
    """A new file, on disk when this returns. An existing one, or a link, is an error."""
    with os.fdopen(open_new(path, mode), "wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def open_new(path: Path, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def sync(descriptor: int) -> None:
    """To the medium. Darwin's fsync stops at the drive's cache; it has an own call for the rest."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def sync_folder(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_fault("write", path, error) from error


def remove_files(paths: list[Path]) -> None:
    """Remove what is there of `paths` (all in one folder or another of ours), durably."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_fault("remove", path, error) from error
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            sync_folder(folder)


def cannot_create(path: Path, error: OSError) -> OutputError | StorageError:
    if error.errno in NO_SPACE:
        return storage_fault("create", path, error)
    remedy = _REMEDIES.get(error.errno or 0)
    return OutputError(
        f"cannot create {path}: {_obstacle(path, error) or error.strerror or error}",
        remedy=f"{remedy}, or choose another output path"
        if remedy
        else "choose an output path on a disk that can be written",
    )


def cannot_link(path: Path, error: OSError) -> OutputError | StorageError:
    if error.errno not in _NO_LINKS:
        return cannot_create(path, error)
    if error.errno == errno.EXDEV:
        return OutputError(
            f"cannot create a hard link {path}: {path.parent} is on another disk than {STATE_FOLDER} beside it",
            remedy="mount a disk on the whole output folder, not on one of those in it, or choose another output path",
        )
    return OutputError(
        f"cannot create a hard link {path}: {error.strerror or error}",
        remedy="choose an output path on a disk that knows hard links (FAT and some network disks do not)",
    )


def _obstacle(path: Path, error: OSError) -> str | None:
    """The file that stands where a folder has to be."""
    if error.errno not in (errno.EEXIST, errno.ENOTDIR):
        return None
    for place in (path, *path.parents):
        with suppress(OSError):
            if not stat.S_ISDIR(place.stat().st_mode):
                return f"{place} is a file"
    return None


@contextmanager
def mapped_faults(action: str, path: Path) -> Iterator[None]:
    """What the system refuses, with its path and a remedy; `path` where the error names none."""
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        raise storage_fault(action, named, error) from error


def storage_fault(action: str, path: Path, error: OSError) -> StorageError:
    if error.errno in NO_SPACE:
        return full_disk(path, f"cannot {action} {path}: {error.strerror}")
    return StorageError(
        f"cannot {action} {path}: {error.strerror or error}",
        remedy=f"{_REMEDIES.get(error.errno or 0, 'check the disk')}; what was committed is kept, and the next start"
        " goes on from there",
    )


def full_disk(path: Path, message: str, needed_bytes: int = 0) -> FullDiskError:
    """`needed_bytes` is what has to be free; where it is not known, what a run keeps free and in reserve."""
    if lacks_inodes(path):
        return FullDiskError(
            f"{message} (no more files may be created there: all inodes of the disk are in use)",
            remedy="remove files there, and start again: what was committed is kept and not paid again",
        )
    free = free_bytes(path)
    needed = needed_bytes or floor_bytes(path) + ballast_bytes(path)
    has = "" if free is None else f" ({size_text(free)} are free, {size_text(needed)} are needed)"
    missing = max(needed - (free or 0), 1)
    return FullDiskError(
        f"{message}{has}",
        remedy=f"free at least {size_text(missing)} there, or raise the quota, and start again: what was committed is"
        " kept and not paid again",
    )


def lacks_space(folder: Path) -> bool:
    """Whether a few pages more are refused there, by the disk or by a quota that no figure tells of."""
    path = folder / PROBE
    try:
        path.unlink(missing_ok=True)
        descriptor = open_new(path, 0o600)
        try:
            os.pwrite(descriptor, bytes(_PROBE_BYTES), 0)
        finally:
            os.close(descriptor)
            path.unlink()
    except OSError as error:
        return error.errno in NO_SPACE
    return False


def free_bytes(path: Path) -> int | None:
    """What this user may still write on the disk of `path`, or of the nearest folder above it that is there."""
    found = _disk_of(path)
    return None if found is None else found.f_bavail * found.f_frsize


def lacks_inodes(path: Path) -> bool:
    """Whether its disk has a fixed number of files, and this user has none of them left."""
    found = _disk_of(path)
    return found is not None and found.f_files > 0 and found.f_favail == 0


def floor_bytes(path: Path) -> int:
    """Below this much free space nothing new is asked: what is in flight must still find room.

    64 MiB hold the fullest queue and the calls in flight, 16 MiB what `journal.space` lets pass between two looks;
    a small disk keeps a twentieth of itself.
    """
    return min(80 << 20, _disk_bytes(path) // 20)


def ballast_bytes(path: Path) -> int:
    """What is held in reserve for the moment at which the disk is full all the same; twice what may be queued then.

    Twice, since an answer is written once into the WAL and once into the tables.
    """
    return min(64 << 20, _disk_bytes(path) // 20)


def _disk_bytes(path: Path) -> int:
    """The size of the disk of `path`, or of the nearest folder above it that is there; 0 where nobody knows."""
    found = _disk_of(path)
    return 0 if found is None else found.f_blocks * found.f_frsize


def _disk_of(path: Path) -> os.statvfs_result | None:
    for folder in (path, *path.parents):
        with suppress(OSError):  # not there (any more): the folder above tells as well
            return os.statvfs(folder)
    return None


def size_text(size: int) -> str:
    """Rounded up, so that what is said to be needed is enough."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 10 << shift:
            return f"{-(-size // (1 << shift)):,} {unit}"
    return f"{size:,} bytes"


def is_on_network(layout: Layout) -> bool:
    return is_network_folder(layout.out.resolve(), read_mounts())


def is_network_folder(path: Path, mounts: str) -> bool:
    """Whether `path` (resolved) lies on a network file system, by the text of /proc/self/mountinfo."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 5 or not rest[0]:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest[0]
    return kind in _NETWORK_FILE_SYSTEMS or kind.startswith("fuse.")


def read_mounts() -> str:
    """Empty where the system has no such list."""
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
