"""The SQLite file: how it is made, opened, checked and written.

WAL with `synchronous=FULL`: a transaction whose commit returned survives a power cut. An error of the disk is final.
After a failed fsync a second one may report success for pages that were dropped, so nothing is tried again: the
connection refuses every further transaction, and the next start reads what the disk really holds.

A disk without space is no such error. The write was refused before anything of it counted, the transaction is rolled
back, and what follows in the WAL is written over it.

The file is made under another name and linked when it is whole, so an empty or headless `journal.db` was never ours
to begin with and is refused instead of being started afresh.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from batchllm.errors import ChangedJobError, FullDiskError, InvariantError, OutputError, StorageError
from batchllm.journal.checksums import has_its_schema, know_checksums, note_schema, triggers, wrong_lines
from batchllm.journal.files import (
    Layout,
    cannot_create,
    cannot_link,
    full_disk,
    lacks_space,
    mapped_faults,
    open_new,
    remove_files,
    wal_of,
)
from batchllm.journal.migrations import MIGRATIONS, migrate, newest
from batchllm.journal.witness import check_witness, lines_seen

APPLICATION_ID = 0x626C6C6D
FORMAT = newest(MIGRATIONS)
_PAGE_BYTES = 8192  # half the overflow pages of 4096 for answers of about 1 KB, measured 10 % less CPU a row
_WAL_PAGES = 1000
_CACHE_KIB = 8192
_BUSY_S = 10.0
_CHUNK_LINES = 64
_LEAST_BYTES = 512
_DRAFT = "journal.new"
_MOST = 2**63 - 1

#: `exposed_calls` and `exposed_usd` are what a kill may have paid for in vain; NULL is money that nobody can bound.
#: `seq` has AUTOINCREMENT because a number must never come back: without it SQLite starts at 1 again once a drain has
#: emptied the table, and a part's `hi_seq` would then speak of other rows.
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, line_crc INTEGER) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, started REAL NOT NULL, ended REAL, pid INTEGER NOT NULL, host TEXT NOT NULL,
    version TEXT NOT NULL, exposed_calls INTEGER NOT NULL DEFAULT 0, exit_code INTEGER,
    clean INTEGER NOT NULL DEFAULT 0, exposed_usd REAL, line_crc INTEGER
);
CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY, name TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    simulated INTEGER NOT NULL, line_crc INTEGER
);
CREATE TABLE totals (
    one INTEGER PRIMARY KEY CHECK (one = 1), run INTEGER NOT NULL, ok INTEGER NOT NULL, failed INTEGER NOT NULL,
    attempts INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL, unpriced INTEGER NOT NULL, uncertain INTEGER NOT NULL, skipped INTEGER NOT NULL DEFAULT 0,
    line_crc INTEGER
);
CREATE TABLE results (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, slot INTEGER NOT NULL, lane INTEGER NOT NULL, key,
    carry BLOB NOT NULL, answer NOT NULL, finish_reason TEXT, model TEXT, prompt_tokens INTEGER,
    completion_tokens INTEGER, cost_usd REAL, latency_ms REAL, attempts INTEGER NOT NULL, request_id TEXT,
    digest BLOB NOT NULL, body TEXT, crc INTEGER NOT NULL, line_crc INTEGER, UNIQUE (row, slot)
);
CREATE TABLE failures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, slot INTEGER NOT NULL, lane INTEGER, key,
    class TEXT NOT NULL, message TEXT NOT NULL, status INTEGER, attempts INTEGER NOT NULL, digest BLOB NOT NULL,
    content TEXT, body TEXT, line_crc INTEGER, UNIQUE (row, slot)
);
CREATE TABLE attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, rows INTEGER NOT NULL, lane INTEGER NOT NULL,
    model TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
    cost_usd REAL, billed TEXT NOT NULL, status INTEGER, class TEXT, latency_ms REAL, started_at REAL, request_id TEXT,
    ttft_ms REAL, line_crc INTEGER
);
CREATE TABLE skipped (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, slot INTEGER NOT NULL, key, digest BLOB NOT NULL,
    line_crc INTEGER, UNIQUE (row, slot)
);
CREATE TABLE parts (
    part INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('intent', 'committed', 'retired')), hi_seq INTEGER NOT NULL,
    rows INTEGER, bytes INTEGER, sha256 TEXT, min_row INTEGER, max_row INTEGER,
    line_crc INTEGER
)"""
#: After the triggers, which give it its checksum.
_TOTALS = "INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0, NULL)"


class Counts(NamedTuple):
    """What is committed. `ok`, `failed` and `skipped` count units of work; the rest counts attempts.

    `cost_usd` sums what is known; `unpriced` attempts were charged at an unknown price, `uncertain` ones may have
    been charged.
    """

    ok: int = 0
    failed: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    uncertain: int = 0
    skipped: int = 0

    @property
    def settled(self) -> int:
        """Units that nothing is left to ask of."""
        return self.ok + self.failed + self.skipped

    def plus(self, other: "Counts") -> "Counts":
        return Counts(
            self.ok + other.ok,
            self.failed + other.failed,
            self.attempts + other.attempts,
            min(self.prompt_tokens + other.prompt_tokens, _MOST),
            min(self.completion_tokens + other.completion_tokens, _MOST),
            self.cost_usd + other.cost_usd,
            self.unpriced + other.unpriced,
            self.uncertain + other.uncertain,
            self.skipped + other.skipped,
        )


class Database:
    """One connection. Made on one thread and then used by the writer's alone."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self.run = 0
        self.broken: StorageError | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. The first error of the database is the last thing that it says (see above).

        FullDiskError is none: the transaction did not happen, and another one may.
        """
        if self.broken is not None:
            raise self.broken
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._check_fence()
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            self._roll_back()
            raise InvariantError(
                f"{self.path} refuses a line that it holds already: {error}",
                remedy="report this as a bug; the first line was kept",
            ) from error
        except sqlite3.Error as error:
            fault = _no_space(error, self.path)
            is_undone = self._roll_back()
            if fault is not None and is_undone:
                raise fault from error
            self.broken = database_fault(error, self.path)
            raise self.broken from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> bool:
        """Whether no transaction is open any more. SQLite undoes some by itself."""
        if self._connection.in_transaction:
            with suppress(
                sqlite3.Error
            ):  # a dead disk refuses this as well; recovery discards the transaction
                self._connection.execute("ROLLBACK")
        return not self._connection.in_transaction

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [line for chunk in self.chunks(sql, values) for line in chunk]

    def chunks(self, sql: str, values: Sequence[object]) -> Generator[list[tuple[Any, ...]]]:
        """Lines, a few at a time; to be closed when left early: an open read keeps the WAL from being reused."""
        try:
            with closing(self._connection.execute(sql, values)) as found:
                while lines := found.fetchmany(_CHUNK_LINES):
                    yield lines
        except sqlite3.Error as error:
            self.broken = database_fault(error, self.path)
            raise self.broken from error

    def meta(self, name: str) -> str | None:
        found = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return None if not found else str(found[0][0])

    def counts(self) -> Counts:
        names = ", ".join(Counts._fields)
        return Counts(*self.rows(f"SELECT {names} FROM totals")[0])  # noqa: S608 - our own names

    def _check_fence(self) -> None:
        """Of a run that has claimed the journal: nothing more is written once another one has, not even a part's line.

        A lock can be removed by hand; then two runs believe that they hold it, and the later one is right.
        """
        if self.run and self._connection.execute("SELECT run FROM totals").fetchone() != (self.run,):
            raise InvariantError(
                f"another run has taken over {self.path}",
                remedy="let one run at a time use an output folder; what this one could not commit is asked again",
            )

    def fence(self) -> None:
        """From here on a commit of any other run fails, so that what is read now stays true until `claim`."""
        with self.transaction() as connection:
            connection.execute("UPDATE totals SET run = 0")

    def claim(self, started_s: float, *, pid: int, host: str, version: str) -> None:
        """A line in `runs`; the journal is this run's until another one fences it off."""
        with self.transaction() as connection:
            run = connection.execute(
                "INSERT INTO runs (started, pid, host, version, exposed_usd) VALUES (?, ?, ?, ?, 0.0)",
                (started_s, pid, host, version),
            ).lastrowid
            connection.execute("UPDATE totals SET run = ?", (run,))
        self.run = run or 0

    def store_counts(self, connection: sqlite3.Connection, counts: Counts) -> None:
        """Inside a transaction."""
        fields = ", ".join(f"{name} = ?" for name in Counts._fields)
        connection.execute(f"UPDATE totals SET {fields}", counts)  # noqa: S608 - our own names

    def shrink(self) -> None:
        """Give back the space of rows that were drained, if there is much of it and little to copy for it."""
        free, pages = self.rows("PRAGMA freelist_count")[0][0], self.rows("PRAGMA page_count")[0][0]
        if free > _WAL_PAGES > pages - free:
            with suppress(sqlite3.Error):  # a full disk, say: the file stays as large as it is
                self._connection.execute("VACUUM")

    def close(self) -> None:
        self._connection.close()


def store_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


def open_database(
    layout: Layout,
    *,
    is_network: bool,
    max_page_count: int | None = None,
    migrations: Mapping[int, Sequence[str]] = MIGRATIONS,
    say: Callable[[str], None] = lambda _: None,
) -> Database:
    """Open the journal that is there, in the present format. Raises StorageError when it is damaged or not ours.

    `say` hears of a WAL that was cut off.

    On a network disk WAL works without shared memory, as the lock lets one process in; nobody can look on then.
    """
    with mapped_faults("open", layout.database):
        _check_file(layout.database)
        if wal_of(layout.database).exists():
            from batchllm.journal.wal import check_wal  # numpy, which no clean start needs for this

            check_wal(layout.database, say)
        connection = _connect(layout.database, is_network=is_network)
        try:
            version = _check_origin(connection, layout.database, newest(migrations))
            _check_pages(connection, layout.database)
            check_witness(connection, layout)
            _configure(connection, max_page_count)
            migrate(connection, layout.database, version, migrations)
            check_lines(connection, layout.database)
        except sqlite3.Error as error:
            _close_as_it_is(connection, layout.database)
            raise database_fault(error, layout.database) from error
        except BaseException:
            _close_as_it_is(connection, layout.database)
            raise
    return Database(connection, layout.database)


def _check_file(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise OutputError(f"{path} is not a file of its own", remedy="remove what stands there instead")
    _clear_drafts(path)
    size = path.stat().st_size
    if size < _LEAST_BYTES:  # SQLite would take it for a new database
        raise damaged(path, f"it has {size} bytes only")


def _connect(path: Path, *, is_network: bool) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw",
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
    except sqlite3.Error as error:
        raise database_fault(error, path) from error
    know_checksums(connection)
    if is_network:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    return connection


def _close_as_it_is(connection: sqlite3.Connection, path: Path) -> None:
    """Leave the WAL where it is: whoever closes the file last plays it back, unless that one only reads."""
    with ExitStack() as stack:
        with suppress(sqlite3.Error):  # what cannot be read is not played back, either
            uri = f"file:{quote(str(path.absolute()))}?mode=ro"
            reader = stack.enter_context(closing(sqlite3.connect(uri, timeout=0, uri=True)))
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_master").fetchone()
        connection.close()


def create_database(layout: Layout) -> None:
    """A new journal. Raises OutputError when there are results already that it would not know of."""
    with mapped_faults("create", layout.database):
        refuse_leftovers(layout)
    make_database(layout)


def make_database(
    layout: Layout,
    fill: Callable[[sqlite3.Connection], None] | None = None,
    make_way: Callable[[], None] | None = None,
) -> None:
    """A journal with what `fill` puts into it, all of it at once; nothing that is there is replaced.

    `make_way` is called once the file is whole, before it gets its name.
    """
    path = layout.database
    _clear_drafts(path)
    draft = path.with_name(_DRAFT)
    try:
        os.close(open_new(draft, 0o600))
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            _make_tables(connection, fill)
    except sqlite3.Error as error:
        raise database_fault(error, path) from error
    except OSError as error:
        raise cannot_create(path, error) from error
    if make_way is not None:
        make_way()
    try:
        os.link(draft, path)
    except OSError as error:
        raise cannot_link(path, error) from error
    remove_files([draft])


def refuse_leftovers(layout: Layout) -> None:
    """Raise OutputError where results are there whose journal is not."""
    path = layout.database
    if layout.has_results():
        raise OutputError(
            f"{layout.out} holds results, but their journal {path} is missing",
            remedy="run `batchllm rebuild JOB`, which makes it anew from the results, or put it back, or move the"
            " results away: starting afresh would pay for them again",
        )
    leftovers = [wal_of(path), path.with_name(f"{path.name}-journal")]
    if any(leftover.exists() for leftover in leftovers):
        raise damaged(path, f"it is missing, but {leftovers[0].name} is there")
    if seen := lines_seen(layout.witness):
        raise damaged(path, f"it is missing, with {seen:,} lines of answers and calls or more")


def _clear_drafts(path: Path) -> None:
    """Away with what a creation that was killed left, before or after it gave the journal its name."""
    drafts = [path.with_name(_DRAFT + tail) for tail in ("", "-journal")]
    remove_files([draft for draft in drafts if draft.exists()])


def _make_tables(connection: sqlite3.Connection, fill: Callable[[sqlite3.Connection], None] | None) -> None:
    for pragma in (f"page_size = {_PAGE_BYTES}", "synchronous = FULL", "fullfsync = ON"):
        connection.execute(f"PRAGMA {pragma}")
    know_checksums(connection)
    connection.execute("BEGIN")
    for statement in (*_SCHEMA.split(";"), *triggers(), _TOTALS):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    note_schema(connection)
    if fill is not None:
        fill(connection)
    connection.execute("COMMIT")


def _check_origin(connection: sqlite3.Connection, path: Path, newest_format: int) -> int:
    """The journal's format, at most `newest_format`."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StorageError(
            f"{path} is not a journal of batchllm; it was left as it is",
            remedy="move it away, or choose another output path",
        )
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 1 <= version <= newest_format:
        raise ChangedJobError(
            f"{path} has journal format {version}; this version of batchllm reads formats up to {newest_format}",
            remedy="use the version of batchllm that made it, or choose another output path",
        )
    return version


def _configure(connection: sqlite3.Connection, max_page_count: int | None) -> None:
    pragmas = [
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
        f"wal_autocheckpoint = {_WAL_PAGES}",
        f"cache_size = -{_CACHE_KIB}",
    ]
    if max_page_count is not None:
        pragmas.append(f"max_page_count = {max_page_count:d}")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    said = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    if said != ["ok"]:
        raise damaged(path, "; ".join(said))


def check_lines(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StorageError, and sqlite3.Error where there is something that is no line."""
    if not has_its_schema(connection):
        raise damaged(path, "its tables are not those that were made")
    if wrong := wrong_lines(connection):
        raise damaged(path, f"lines of {' and '.join(wrong)} do not fit their checksums")


def damaged(path: Path, how: str) -> StorageError:
    return StorageError(
        f"the journal {path} is damaged: {how}",
        remedy="put back a copy of the whole .batchllm folder, or run `batchllm rebuild JOB`: it makes a new one from"
        " the parts, which stay readable; nothing was changed",
    )


def _no_space(error: sqlite3.Error, path: Path) -> FullDiskError | None:
    """A write that was refused for want of space. SQLite says FULL for ENOSPC, and a write error for a full quota."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR_WRITE and lacks_space(path.parent)):
        return full_disk(path, f"cannot write {path}: {error}")
    return None


def database_fault(error: sqlite3.Error, path: Path) -> StorageError:
    """SQLite's words as ours, by result code and never by text."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return full_disk(path, f"cannot write {path}: {error}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"{path} is locked by another program: {error}",
            remedy="close what has it open (a database browser?) and start again",
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN):
        return StorageError(
            f"cannot open {path} for writing: {error} ({name})",
            remedy="mount its disk for writing if it is read-only, and give this user permission (files: r and w,"
            " folders: r, w and x); what was committed is kept",
        )
    return StorageError(
        f"cannot read or write {path}: {error} ({name})",
        remedy="check the disk (space, quota, file size limit, health) and start again:"
        " what was committed is kept and not paid again",
    )
