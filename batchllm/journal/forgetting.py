"""Failures that are to be asked again: their lines leave the record, their attempts stay in usage/.

Their rows are remembered until the record is complete. A start that is cut off before it has asked them all leaves them
without an outcome, like rows that were never reached; the next one to ask failures again asks these, too.
"""

import base64
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.database import Database, store_meta
from batchllm.journal.finished import Finished
from batchllm.journal.parts import Store
from batchllm.journal.recall import failed_rows
from batchllm.matching import Places

_NOTE = "asked_again"
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Failures that are no more: so many units of work, of rows that `in` finds."""

    units: int
    rows: bytearray = field(repr=False)

    def __contains__(self, row: int) -> bool:
        place = row >> 3
        return place < len(self.rows) and bool(self.rows[place] >> (row & 7) & 1)


def rows_to_forget(store: Store, finished: Finished) -> bytearray:
    """A bit for each row that failed, or whose failure was forgotten before and that has no outcome since."""
    rows = Finished(1)
    rows.mark_all(_rows_in(failed_rows(store)))
    for piece in _pieces(_rows_in(_noted(store.database))):
        rows.mark(row for row in piece.to_pylist() if not finished.has_row(row))
    return rows.bits()


def forget_failures(store: Store, rows: bytearray) -> None:
    """All of them; the manifest is to be written after it, and what is left of their parts to be removed."""
    counts = store.database.counts()
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE parts SET state = 'retired' WHERE state = 'committed' AND kind = 'failures'"
        )
        connection.execute("DELETE FROM failures")
        store_meta(connection, "complete", "0")
        store.database.store_counts(connection, counts._replace(failed=0))
        _note(connection, rows)


def forgotten(rows: bytearray, finished: Finished) -> Forgotten:
    """`finished` as it is without the failures."""
    units = 0
    for piece in _pieces(_rows_in(rows)):
        units += sum(len(finished.open_slots(row)) for row in piece.to_pylist())
    return Forgotten(units, rows)


def move_forgotten(connection: sqlite3.Connection, database: Database, places: Places) -> None:
    """With the rows of another input, inside the transaction that takes it up."""
    rows = Finished(1)
    for piece in _pieces(_rows_in(_noted(database))):
        rows.mark_all(places.of(piece).drop_null())
    _note(connection, rows.bits())


def note_all_asked(connection: sqlite3.Connection) -> None:
    _note(connection, bytearray())


def _note(connection: sqlite3.Connection, rows: bytearray) -> None:
    if any(rows):
        store_meta(connection, _NOTE, base64.b85encode(zlib.compress(rows, 1)).decode())
    else:
        connection.execute("DELETE FROM meta WHERE name = ?", (_NOTE,))


def _noted(database: Database) -> bytearray:
    text = database.meta(_NOTE)
    return bytearray() if text is None else bytearray(zlib.decompress(base64.b85decode(text)))


def _rows_in(bits: bytearray) -> pa.Array:
    flags = pa.Array.from_buffers(pa.bool_(), len(bits) * 8, [None, pa.py_buffer(bits)])
    return pc.indices_nonzero(flags).cast(pa.int64())


def _pieces(rows: pa.Array) -> Iterator[pa.Array]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows.slice(start, _ROWS_AT_ONCE)
