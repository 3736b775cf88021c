"""Parts: immutable Parquet files, each made by one protocol that may be cut off anywhere.

    1  the intent, a line in `parts`, is committed
    2  a temporary file is made (never over another one), written, fsynced
    3  the file is linked under its final name (a link never replaces), the temporary name goes, the folder is fsynced
    4  one transaction: the part is committed, and the journal lines that it holds are deleted

Before 4 the lines are in the journal and the file is nobody's; after 4 it is the other way round.
"""

import hashlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchllm.errors import BatchllmError, InvariantError, StorageError
from batchllm.journal.database import Database
from batchllm.journal.files import (
    BY_UNIT,
    STANDING,
    Fault,
    Kind,
    Layout,
    make_table_folder,
    open_new,
    remove_files,
    storage_fault,
    sync,
    sync_folder,
)
from batchllm.journal.tables import Tables

SOURCE_TABLE: dict[Kind, str] = {
    "output": "results",
    "failures": "failures",
    "usage": "attempts",
    "skipped": "skipped",
}
#: A quarter of the default: pages are what a merge holds of each column of each part, decompressed.
_PAGE_BYTES = 1 << 18


class PartInfo(NamedTuple):
    """A committed part. `min_row` and `max_row` are None when it has no rows."""

    part: int
    kind: Kind
    name: str
    rows: int
    bytes: int
    sha256: str
    min_row: int | None
    max_row: int | None


class Intent(NamedTuple):
    """A part that is to be written, or is being written. Lines up to `hi_seq` go into it."""

    part: int
    kind: Kind
    name: str
    hi_seq: int


class Sealed(NamedTuple):
    """A whole file, on disk under its temporary name."""

    intent: Intent
    rows: int
    bytes: int
    sha256: str
    min_row: int | None
    max_row: int | None

    @property
    def info(self) -> PartInfo:
        """As it will be once it is committed."""
        part, kind, name, _ = self.intent
        return PartInfo(part, kind, name, *self[1:])


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bounds of what is held in memory and of what a file may become."""

    slice_rows: int = 2048  # journal lines read between two commits
    slice_bytes: int = 2 << 20
    group_rows: int = 16_384
    group_bytes: int = 8 << 20
    part_rows: int = 1_000_000
    part_bytes: int = 512 << 20
    drain_rows: int = 65_536
    drain_bytes: int = 64 << 20
    merge_bytes: int = 4 << 20  # read ahead over all parts that are merged at a time
    merge_parts: int = 16  # open at a time: each holds a page of each of its columns


@dataclass(frozen=True, slots=True)
class Store:
    """What drains and merges work on."""

    database: Database
    layout: Layout
    tables: Tables
    sizes: Sizes
    fault: Fault

    def intend(self, kind: Kind, hi_seq: int) -> Intent:
        """Step 1. The number orders the parts of a folder by name; the random half keeps a name from coming back."""
        if kind not in STANDING:
            make_table_folder(self.layout, kind)
        name = uuid.uuid4().hex
        with self.database.transaction() as connection:
            part = connection.execute(
                "INSERT INTO parts (kind, name, state, hi_seq) VALUES (?, ?, 'intent', ?)",
                (kind, name, hi_seq),
            ).lastrowid
            name = f"part-{part or 0:08d}-{name}.parquet"
            connection.execute("UPDATE parts SET name = ? WHERE part = ?", (name, part))
        self.fault("after_intent")
        return Intent(part or 0, kind, name, hi_seq)

    def commit(
        self,
        sealed: Sequence[Sealed],
        *,
        retired: Sequence[PartInfo] = (),
        is_complete: bool = False,
        along: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Step 4, for parts that are linked. `retired` parts are replaced by them; `along` writes what goes with it."""
        self.fault("before_part_commit")
        with self.database.transaction() as connection:
            for part in sealed:
                connection.execute(
                    "UPDATE parts SET state = 'committed', rows = ?, bytes = ?, sha256 = ?, min_row = ?, max_row = ?"
                    " WHERE part = ?",
                    (part.rows, part.bytes, part.sha256, part.min_row, part.max_row, part.intent.part),
                )
                _delete_drained(connection, part.intent)
            for old in retired:
                connection.execute("UPDATE parts SET state = 'retired' WHERE part = ?", (old.part,))
            if is_complete:
                connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('complete', '1')")
            if along is not None:
                along(connection)
        self.fault("after_part_commit")

    def abandon(self, intent: Intent) -> None:
        """Undo steps 1 to 3, as a start would."""
        remove_files([self.layout.draft(intent.name), self.layout.part(intent.kind, intent.name)])
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM parts WHERE part = ? AND state = 'intent'", (intent.part,))

    def parts(self, kind: Kind) -> list[PartInfo]:
        """Committed parts, in the order of their names."""
        found = self.database.rows(
            "SELECT part, kind, name, rows, bytes, sha256, min_row, max_row FROM parts"
            " WHERE state = 'committed' AND kind = ? ORDER BY part",
            (kind,),
        )
        return [PartInfo(*line) for line in found]


def _delete_drained(connection: sqlite3.Connection, intent: Intent) -> None:
    table = SOURCE_TABLE[intent.kind]
    newest = connection.execute(f"SELECT max(seq) FROM {table}").fetchone()[0]  # noqa: S608 - our own names
    if newest is not None and newest <= intent.hi_seq:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - all of it: SQLite then drops whole pages
    else:
        connection.execute(f"DELETE FROM {table} WHERE seq <= ?", (intent.hi_seq,))  # noqa: S608


class HashingFile:
    """A file for Arrow to write to, whose SHA-256 is known at its end without reading it again."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()
        sync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def sha256(self) -> str:
        return self._hash.hexdigest()


@dataclass(slots=True)
class Draft:
    """Step 2 and 3 of one part. Rows come in order."""

    store: Store
    intent: Intent
    after: int = -1  # the rank of the last row so far
    rows: int = 0
    min_row: int | None = None
    max_row: int | None = None
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _waiting_rows: int = 0
    _waiting_bytes: int = 0
    _file: HashingFile = field(init=False)
    _writer: pq.ParquetWriter = field(init=False)

    def __post_init__(self) -> None:
        kind, tables = self.intent.kind, self.store.tables
        path = self.store.layout.draft(self.intent.name)
        try:
            self._file = HashingFile(open_new(path, 0o644))
        except OSError as error:
            raise storage_fault("create", path, error) from error
        try:
            self.store.fault("after_tmp")
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"),
                tables.schemas[kind],
                compression="zstd",
                use_dictionary=tables.dictionary_columns(kind),
                write_page_checksum=True,
                data_page_size=_PAGE_BYTES,
            )
        except BaseException:
            self._file.close()
            raise

    @property
    def bytes(self) -> int:
        return self._file.bytes

    def add(self, batch: pa.RecordBatch) -> None:
        """Rows that follow all the earlier ones; written when a row group is full."""
        if not batch.num_rows:
            return
        self._check_order(batch)
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        sizes = self.store.sizes
        if self._waiting_rows >= sizes.group_rows or self._waiting_bytes >= sizes.group_bytes:
            self._write_group()

    def seal(self) -> Sealed:
        """Write the rest, and fsync."""
        self._write_group()
        try:
            self._writer.close()
            self._file.sync()
            self._file.close()
        except OSError as error:
            raise self._fault(error) from error
        self.store.fault("after_fsync")
        return Sealed(
            self.intent, self.rows, self._file.bytes, self._file.sha256(), self.min_row, self.max_row
        )

    def close(self) -> None:
        """Let go of a draft that will not be sealed; its file is removed by `Store.abandon`, or by the next start."""
        self._waiting.clear()
        with suppress(OSError, pa.ArrowException):  # the footer of a file that nobody will read
            self._writer.close()
        with suppress(OSError):
            self._file.close()

    def _write_group(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        try:
            self._writer.write_table(table, row_group_size=table.num_rows)
        except OSError as error:
            raise self._fault(error) from error
        del table
        pa.default_memory_pool().release_unused()

    def _check_order(self, batch: pa.RecordBatch) -> None:
        """Units in order and each once where they are ranked by, else rows in order: proven, not assumed."""
        rows = batch.column("row")
        ranks = self.store.tables.ranks(self.intent.kind, batch)
        first, last = ranks[0].as_py(), ranks[-1].as_py()
        steps = pc.subtract(ranks.slice(1), ranks.slice(0, len(ranks) - 1))
        least = 1 if self.intent.kind in BY_UNIT else 0
        if first - self.after < least or pc.any(pc.less(steps, least)).as_py():
            raise InvariantError(
                f"rows of {self.intent.kind} are twice or out of order in {self.intent.name}"
            )
        self.after = last
        self.rows += batch.num_rows
        self.min_row = rows[0].as_py() if self.min_row is None else self.min_row
        self.max_row = rows[-1].as_py()

    def _fault(self, error: OSError) -> StorageError:
        return storage_fault("write", self.store.layout.draft(self.intent.name), error)


def publish(store: Store, sealed: Sequence[Sealed]) -> None:
    """Step 3. A name that is taken is an error: nothing is ever replaced."""
    for part in sealed:
        draft = store.layout.draft(part.intent.name)
        target = store.layout.part(part.intent.kind, part.intent.name)
        try:
            os.link(draft, target, follow_symlinks=False)
        except FileExistsError as error:
            raise InvariantError(f"{target} exists already; it was left as it is") from error
        except OSError as error:
            raise storage_fault("create", target, error) from error
        store.fault("after_link")
        remove_files([draft])
    for folder in {store.layout.folder(part.intent.kind) for part in sealed}:
        sync_folder(folder)


def abandon_all(store: Store, intents: Sequence[Intent]) -> None:
    """After an error, undo what was begun, as far as that is possible."""
    if store.database.broken is not None:
        return  # what the database holds is known at the next start only, which undoes or keeps accordingly
    with suppress(BatchllmError):  # the error that led here is the one to hear of
        for intent in intents:
            store.abandon(intent)


def verify_part(path: Path, part: PartInfo) -> None:
    """Raises StorageError unless the file is byte for byte what was written. Parquet's footer has no checksum."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged_part(path, error) from error
    if found != part.sha256:
        raise damaged_part(path, ValueError("its checksum does not fit"))


def open_part(path: Path) -> pq.ParquetFile:
    """For reading in small batches: the file is streamed, and its pages' checksums are compared."""
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise damaged_part(path, error) from error


def read_part(
    store: Store, part: PartInfo, columns: list[str] | None, most_rows: int
) -> Iterator[pa.RecordBatch]:
    """All of a part, in batches of bounded rows and bytes."""
    path = store.layout.part(part.kind, part.name)
    rows = 0
    with open_part(path) as file:
        size = most_rows if columns else rows_within(file.metadata, store.sizes.drain_bytes, most_rows)
        try:
            for batch in file.iter_batches(size, columns=columns, use_threads=False):
                rows += batch.num_rows
                if batch.num_rows:
                    yield batch if columns is None else batch.select(columns)
        except (OSError, pa.ArrowException) as error:
            raise damaged_part(path, error) from error
    if rows != part.rows:
        raise InvariantError(f"{path} has {rows} rows, where the journal knows {part.rows}")


def rows_within(metadata: pq.FileMetaData, budget_bytes: int, most: int) -> int:
    """How many rows of a file, on the average, come to so many bytes; from 16 to `most`."""
    size: int = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    fitting = budget_bytes * int(metadata.num_rows) // max(1, size)
    return max(16, min(most, fitting))


def damaged_part(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} cannot be read: {str(error) or 'it ends too early'}",
        remedy="put the file back from a copy; or run `batchllm rebuild JOB --drop-missing`, after which its rows are"
        " asked, and paid for, again",
    )
