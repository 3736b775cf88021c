"""The SQLite file in which the members of all processes stand: its tables and its transactions.

WAL, so that a reader sees who is there even while the file is locked. Nothing is synced: what is in it means nothing
after a power cut but the learned limits, and a beat must never wait for a disk. A file that a power cut did tear is
found by its checks and replaced.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from batchllm.errors import StorageError
from batchllm.limit.processes import Process
from batchllm.limit.sharing import Learned
from batchllm.limit.state_folder import FOLDER_VARIABLE, Generation, newest

APPLICATION_ID = 0x626C6C6C
FORMAT = 1
#: A transaction takes a third of a millisecond; whoever holds the lock for longer than this is stopped or foreign.
_BUSY_S = 0.05
_LEAST_BYTES = 512

#: `member` has AUTOINCREMENT because a number must never come back: the line of a member that was given up for dead
#: must not turn into another's while it sleeps.
_SCHEMA = """
CREATE TABLE opening (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, opens_s REAL);
CREATE TABLE pools (
    pool BLOB PRIMARY KEY, boot TEXT NOT NULL, next_free_s REAL NOT NULL, quiet_until_s REAL NOT NULL,
    rpm REAL, tpm REAL, concurrency REAL, learned_wall_s REAL NOT NULL, seen_wall_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE members (
    member INTEGER PRIMARY KEY AUTOINCREMENT, pool BLOB NOT NULL, boot TEXT NOT NULL, namespace TEXT NOT NULL,
    pid INTEGER NOT NULL CHECK (typeof(pid) = 'integer' AND pid BETWEEN 1 AND 2147483647), started TEXT NOT NULL,
    lease_until_s REAL NOT NULL CHECK (typeof(lease_until_s) = 'real'),
    wanted REAL NOT NULL CHECK (typeof(wanted) = 'real' AND wanted BETWEEN 0 AND 1),
    granted REAL NOT NULL CHECK (typeof(granted) = 'real' AND granted BETWEEN 0 AND 1)
)"""


class FileBusyError(Exception):
    """Locked by somebody; the next beat may find it free."""


class FileDamagedError(Exception):
    """Not, or no longer, a file of this program; the text says how."""


@dataclass(slots=True)
class Line:
    """One member as the table has it."""

    member: int
    pool: bytes
    process: Process
    lease_until_s: float
    wanted: float
    granted: float


class PoolFacts(NamedTuple):
    """What is common to a pool. The moments count from the start of the machine that `boot` names."""

    boot: str
    next_free_s: float
    quiet_until_s: float
    learned: Learned
    learned_wall_s: float
    seen_wall_s: float


class Opening(NamedTuple):
    """When a file that followed another may grant the first share; None: nobody has asked yet."""

    boot: str
    opens_s: float | None


class LimitsFile:
    """One connection, used by one thread. All methods between `transaction`'s two ends raise what it raises."""

    def __init__(
        self, connection: sqlite3.Connection, generation: Generation, inode: tuple[int, int]
    ) -> None:
        self._connection = connection
        self._inode = inode
        self.generation = generation

    @property
    def path(self) -> Path:
        return self.generation.path

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else in between.

        Raises FileBusyError, FileDamagedError, StorageError.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _fault(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):  # a dead disk refuses this too; the file's next reader discards it
                self._connection.execute("ROLLBACK")

    def is_current(self) -> bool:
        """Whether this is still the file that everyone uses. Raises OSError."""
        return newest(self.path.parent) == self.generation and _inode(self.path) == self._inode

    def last_lease_s(self, boot: str) -> float:
        """When the last lease ends; works while the file is locked. Raises like `transaction`."""
        try:
            found = self._connection.execute("SELECT max(lease_until_s) FROM members WHERE boot = ?", (boot,))
            return float(found.fetchone()[0] or 0.0)
        except sqlite3.Error as error:
            raise _fault(error, self.path) from error

    def opening(self) -> Opening:
        found = self._connection.execute("SELECT boot, opens_s FROM opening").fetchone()
        if found is None:
            raise FileDamagedError("it lacks its first line")
        return Opening(*found)

    def set_opening(self, opening: Opening) -> None:
        self._connection.execute("UPDATE opening SET boot = ?, opens_s = ?", opening)

    def lines(self) -> list[Line]:
        found = self._connection.execute(
            "SELECT member, pool, boot, namespace, pid, started, lease_until_s, wanted, granted FROM members"
        )
        return [Line(row[0], row[1], Process(*row[2:6]), *row[6:]) for row in found]

    def add(self, line: Line) -> int:
        """The new member's number; that in `line` is not looked at."""
        process = line.process
        added = self._connection.execute(
            "INSERT INTO members (pool, boot, namespace, pid, started, lease_until_s, wanted, granted)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                line.pool,
                process.boot,
                process.namespace,
                process.pid,
                process.started,
                line.lease_until_s,
                line.wanted,
                line.granted,
            ),
        )
        return int(added.lastrowid or 0)

    def store(self, lines: Sequence[Line]) -> None:
        self._connection.executemany(
            "UPDATE members SET lease_until_s = ?, wanted = ?, granted = ? WHERE member = ?",
            [(line.lease_until_s, line.wanted, line.granted, line.member) for line in lines],
        )

    def remove(self, members: Sequence[int]) -> None:
        self._connection.executemany(
            "DELETE FROM members WHERE member = ?", [(member,) for member in members]
        )

    def facts(self, pool: bytes) -> PoolFacts | None:
        found = self._connection.execute(
            "SELECT boot, next_free_s, quiet_until_s, rpm, tpm, concurrency, learned_wall_s, seen_wall_s"
            " FROM pools WHERE pool = ?",
            (pool,),
        ).fetchone()
        if found is None:
            return None
        boot, next_free_s, quiet_until_s, rpm, tpm, concurrency, learned_wall_s, seen_wall_s = found
        learned = Learned(rpm, tpm, concurrency)
        return PoolFacts(boot, next_free_s, quiet_until_s, learned, learned_wall_s, seen_wall_s)

    def store_facts(self, pool: bytes, facts: PoolFacts) -> None:
        learned = facts.learned
        self._connection.execute(
            "REPLACE INTO pools VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                pool,
                *facts[:3],
                learned.rpm,
                learned.tpm,
                learned.concurrency,
                facts.learned_wall_s,
                facts.seen_wall_s,
            ),
        )

    def forget_pools(self, before_wall_s: float) -> None:
        self._connection.execute("DELETE FROM pools WHERE seen_wall_s < ?", (before_wall_s,))

    def close(self) -> None:
        with suppress(sqlite3.Error):  # nothing is lost by it: every commit has returned
            self._connection.close()


def open_limits_file(generation: Generation) -> LimitsFile:
    """Raises FileBusyError, FileDamagedError, StorageError; OSError when it is gone."""
    path = generation.path
    if path.is_symlink() or not path.is_file():
        raise StorageError(f"{path} is not a file of its own", remedy="remove what stands there instead")
    if path.stat().st_size < _LEAST_BYTES:  # SQLite would take it for a new database
        raise FileDamagedError(f"it has {path.stat().st_size} bytes only")
    inode = _inode(path)
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw",
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
    except sqlite3.Error as error:
        raise _fault(error, path) from error
    try:
        _check(connection, path)
        connection.execute("PRAGMA synchronous = OFF")
    except sqlite3.Error as error:
        connection.close()
        raise _fault(error, path) from error
    except BaseException:
        connection.close()
        raise
    return LimitsFile(connection, generation, inode)


def fill_limits_file(draft: Path) -> None:
    """Raises StorageError."""
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("BEGIN")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO opening VALUES (1, '', NULL)")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _unusable(error, draft.parent) from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise FileDamagedError("it belongs to another program")
    version = _pragma(connection, "user_version")
    if version > FORMAT:
        raise StorageError(
            f"{path} has format {version}; this version of batchllm knows format {FORMAT} and left it as it is",
            remedy="use one version of batchllm for all runs of this user",
        )
    if version != FORMAT:
        raise FileDamagedError(f"it has format {version}")
    if (mode := _pragma(connection, "journal_mode")) != "wal":
        raise FileDamagedError(f"it is in journal mode {mode}")
    if (said := _pragma(connection, "quick_check(1)")) != "ok":
        raise FileDamagedError(str(said))


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _fault(error: sqlite3.Error, path: Path) -> Exception:
    """SQLite's words as ours, by result code and never by text."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return FileBusyError(str(error))
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR | sqlite3.SQLITE_MISMATCH:
            return FileDamagedError(str(error))
        case _:
            return _unusable(error, path)


def _unusable(error: sqlite3.Error, path: Path) -> StorageError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    what = "free some space on its disk" if code == sqlite3.SQLITE_FULL else "check its disk and permissions"
    return StorageError(
        f"cannot use {path}: {error} ({name})",
        remedy=f"{what}, or set {FOLDER_VARIABLE} to a folder on a local disk that this user may write",
    )
