"""What makes of the record of one input that of another: where rows stand now, which are gone, what they carry.

Values and decisions. `batchllm.journal.pending` keeps them on the disk, `batchllm.journal.moving` carries them out.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.carries import Carries, KeptCarries
from batchllm.journal.finished import Finished
from batchllm.journal.parts import PartInfo
from batchllm.matching import Places

#: The row of a call whose row is no longer in the input.
GONE = -1
_MOVED_AT_ONCE = 1 << 19


def _no_rows() -> pa.Array:
    return pa.nulls(0, pa.int64())


@dataclass(frozen=True, slots=True)
class Changed:
    """Rows whose outcomes are to be forgotten, and where they stand now; both int64."""

    old: pa.Array = field(default_factory=_no_rows)
    new: pa.Array = field(default_factory=_no_rows)


@dataclass(frozen=True, slots=True)
class Renewal:
    """`places` by old ordinal: null for rows that are gone, and for those that have changed."""

    places: Places
    carries: Carries | KeptCarries
    changed: Changed = field(default_factory=Changed)

    def moved(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Lines of outcomes, of the rows as they stand now; without those that have none any more."""
        places = self.places.of(batch.column("row"))
        at = batch.schema.get_field_index("row")
        batch = batch.set_column(at, batch.schema.field(at), places)
        return batch.filter(places.is_valid()) if places.null_count else batch

    def moved_calls(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Lines of usage/, all of them: one whose row is gone is of none, one whose row has changed is still its."""
        places = pc.fill_null(self._of_calls(batch.column("row")), GONE)
        at = batch.schema.get_field_index("row")
        return batch.set_column(at, batch.schema.field(at), places)

    def touches(self, part: PartInfo) -> bool:
        """Whether its rows move or go, or may carry something else."""
        if part.min_row is None or part.max_row is None:
            return False
        first, end = part.min_row, part.max_row + 1
        if part.kind == "usage":
            first = max(first, 0)  # calls whose rows were gone before stay so
            return first < end and not self._keeps_calls(first, end)
        if not self.places.keep(first, end):
            return True
        return part.kind == "output" and self.carries.has(first, end)

    def _of_calls(self, rows: pa.Array) -> pa.Array:
        """A row that was called for in vain may be beyond the last one that is known of."""
        is_known = pc.and_(pc.greater_equal(rows, 0), pc.less(rows, self.places.rows))
        rows = pc.if_else(is_known, rows, pa.scalar(None, pa.int64()))
        places = self.places.of(rows)
        if not places.null_count or not len(self.changed.old):
            return places
        return pc.coalesce(places, self.changed.new.take(pc.index_in(rows, value_set=self.changed.old)))

    def _keeps_calls(self, first: int, end: int) -> bool:
        if self.places.keep(first, end):
            return True
        rows = pa.arange(first, end, 1)
        return bool(len(self.changed.old)) and bool(self._of_calls(rows).equals(rows))


def lines_left(places: Places, part: PartInfo, slots: int) -> int | None:
    """How many lines of a part of outcomes are left of it, where its rows tell: one line for each unit of a range.

    None where its lines have to be looked at.
    """
    if part.min_row is None or part.max_row is None:
        return 0
    first, end = part.min_row, part.max_row + 1
    if places.keep(first, end):
        return part.rows
    if part.kind == "failures" or part.rows != (end - first) * slots:
        return None
    left: int = places.left(first, end) * slots
    return left


def moved_units(finished: Finished, places: Places) -> Finished:
    """The bits of the units as they stand now; nothing is counted yet."""
    slots = finished.slots
    bits = np.frombuffer(finished.bits().ljust(-(-places.rows * slots // 8), b"\0"), np.uint8)
    units = places.end * slots
    flags = np.zeros((places.end, slots), np.bool_)
    head = places.head * slots
    flags.reshape(units)[:head] = np.unpackbits(bits[: -(-head // 8)], count=head, bitorder="little")
    # From a row whose units begin with a byte on.
    for first in range(places.head & ~7, places.rows, _MOVED_AT_ONCE):
        rows = min(_MOVED_AT_ONCE, places.rows - first)
        was = np.unpackbits(bits[first * slots // 8 :], count=rows * slots, bitorder="little")
        start = max(first, places.head)
        tail = places.tail.slice(start - places.head, first + rows - start)
        now = pc.fill_null(tail, -1).to_numpy()
        is_there = now >= 0
        flags[now[is_there]] = was.reshape(rows, slots)[start - first :][is_there]
    moved = Finished(slots)
    moved.mark_bits(np.packbits(flags.reshape(units), bitorder="little").tobytes(), units)
    return moved
