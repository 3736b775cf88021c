"""The SQLite file: how it is made, opened and checked.

The file is made under another name and linked when it is whole, so an empty or headless `journal.db` was never ours
to begin with and is refused instead of being started afresh.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

from batchllm.errors import ChangedJobError, OutputError, StorageError
from batchllm.journal.checksums import has_its_schema, know_checksums, note_schema, triggers, wrong_lines
from batchllm.journal.database import WAL_PAGES, Database
from batchllm.journal.faults import damaged, database_fault
from batchllm.journal.files import (
    Layout,
    cannot_create,
    cannot_link,
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
_CACHE_KIB = 8192
_BUSY_S = 10.0
_LEAST_BYTES = 512
_DRAFT = "journal.new"

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
        f"wal_autocheckpoint = {WAL_PAGES}",
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
