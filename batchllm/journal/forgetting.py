"""Failures that are to be asked again: their lines leave the record, their attempts stay in usage/.

Their rows are remembered until the record is complete. A start that is cut off before it has asked them all leaves them
without an outcome, like rows that were never reached; the next one to ask failures again asks these, too.
"""

import base64
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
    """Failures that are no more: of rows that `in` finds, of units (`row * slots + slot`) that `has_unit` does.

    `units`: so many units of work are pending again, with those that were skipped since others had failed.
    """

    units: int
    rows: bytearray = field(repr=False)
    failed: bytearray = field(repr=False)

    def __contains__(self, row: int) -> bool:
        return _has(self.rows, row)

    def has_unit(self, unit: int) -> bool:
        return _has(self.failed, unit)

    def alone(self) -> "Forgotten":
        """Where a row is not polled: what was skipped stays open, and is not among what is asked."""
        return replace(self, units=int.from_bytes(self.failed, "little").bit_count())


def difference(before: bytearray, after: bytearray) -> bytearray:
    """The bits that are set no more."""
    was, stays = (int.from_bytes(bits, "little") for bits in (before, after))
    return bytearray((was & ~stays).to_bytes(len(before), "little"))


def _has(bits: bytearray, at: int) -> bool:
    place = at >> 3
    return place < len(bits) and bool(bits[place] >> (at & 7) & 1)


class ToForget(NamedTuple):
    """Bits of rows that failed, or whose failure was forgotten before and that lack an outcome since.

    `open_units`: what the latter lack.
    """

    rows: bytearray
    open_units: Finished


def to_forget(store: Store, finished: Finished) -> ToForget:
    rows, units = Finished(1), Finished(1)
    rows.mark_all(_rows_in(failed_rows(store)))
    for piece in _pieces(_rows_in(_noted(store.database))):
        for row in piece.to_pylist():
            if slots := finished.open_slots(row):
                rows.mark([row])
                units.mark(row * finished.slots + slot for slot in slots)
    return ToForget(rows.bits(), units)


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


def forgotten(again: ToForget, failed: bytearray, finished: Finished) -> Forgotten:
    """`failed`: bits of the units that failed; `finished` as it is without them."""
    count = 0
    for piece in _pieces(_rows_in(again.rows)):
        count += sum(len(finished.open_slots(row)) for row in piece.to_pylist())
    units = again.open_units
    for piece in _pieces(_rows_in(failed)):
        units.mark_all(piece)
    return Forgotten(count, again.rows, units.bits())


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
