"""What makes of the record of one input that of another: where rows stand now, which are gone, what they carry.

Values and decisions. `batchllm.journal.pending` keeps them on the disk, `batchllm.journal.moving` carries them out.
"""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.carries import Carries, KeptCarries
from batchllm.journal.finished import Finished
from batchllm.journal.parts import PartInfo
from batchllm.matching import Places

#: The row of a call whose row is no longer in the input.
GONE = -1
_MOVED_AT_ONCE = 1 << 19
_MARKED_AT_ONCE = 1 << 20


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
    slots, now = finished.slots, Finished(finished.slots)
    bits = pa.py_buffer(finished.bits().ljust(-(-places.rows * slots // 8), b"\0"))
    now.mark_bits(bits.to_pybytes(), places.head * slots)
    waiting: list[pa.Array] = []
    for first in range(places.head, places.rows, _MOVED_AT_ONCE):
        rows = min(_MOVED_AT_ONCE, places.rows - first)
        piece = places.tail.slice(first - places.head, rows)
        flags = pa.Array.from_buffers(pa.bool_(), rows * slots, [None, bits], offset=first * slots)
        waiting += [_units_of(piece, flags, slot, slots) for slot in range(slots)]
        if sum(map(len, waiting)) >= _MARKED_AT_ONCE:
            now.mark_all(pa.concat_arrays(waiting))
            waiting.clear()
    if waiting:
        now.mark_all(pa.concat_arrays(waiting))
    return now


def _units_of(places: pa.Array, flags: pa.Array, slot: int, slots: int) -> pa.Array:
    """The units of one slot that are finished, and whose rows are somewhere."""
    of_slot = flags if slots == 1 else flags.take(pa.arange(slot, len(flags), slots))
    rows = places.filter(of_slot).drop_null().cast(pa.int64())
    return rows if slots == 1 else pc.add(pc.multiply(rows, slots), slot)
