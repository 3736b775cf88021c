"""Parts into input order, in bounded memory.

Rows finish out of order, so parts overlap. Each is sorted in itself, which leaves a k-way merge: every part whose
first row is due is open with one batch in memory, and all rows up to the lowest of the batches' last rows can go
out, since no part can still bring an earlier one. Arrow sorts what goes out; no row is ever a Python object.

Parts that already follow one another stay as they are: a finished ten million rows are not copied for a thousand
new ones.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import InvariantError
from batchllm.journal.files import BY_UNIT, Kind
from batchllm.journal.parts import (
    Draft,
    Intent,
    PartInfo,
    Sealed,
    Sizes,
    Store,
    abandon_all,
    damaged_part,
    open_part,
    rows_within,
    verify_part,
)

#: So many small parts at the end of a table may stay: rewriting them for each thousand new rows would cost more.
_SMALL_PARTS = 8
_SMALL_SHARE = 4
_BATCH_ROWS = 8192
_NO_BOUND = 2**63 - 1


def first_to_rewrite(parts: Sequence[PartInfo], sizes: Sizes) -> int:
    """Index of the first part (in the order of their names) that cannot stay; `len(parts)` when all can.

    What stays is a head whose parts follow one another and precede everything after them. New parts get higher
    numbers, so the names then tell the order.
    """
    if len(parts) <= 1:
        return len(parts)
    head = _ordered_head(parts)
    first = head
    while first > 0 and _is_small(parts[first - 1], sizes):
        first -= 1
    return head if head == len(parts) and head - first <= _SMALL_PARTS else first


def _ordered_head(parts: Sequence[PartInfo]) -> int:
    """How many parts, from the first one on, have rows and end before everything after them begins."""
    lowest = math.inf
    lowest_after: list[float] = []
    for part in reversed(parts):
        lowest_after.append(lowest)
        if part.min_row is not None:
            lowest = min(lowest, part.min_row)
    for index, part in enumerate(parts):
        after = lowest_after[-1 - index]
        # Where rows rank, the lines of one may be in two parts that follow one another.
        if part.max_row is None or part.max_row > after or (part.kind in BY_UNIT and part.max_row == after):
            return index
    return len(parts)


def _is_small(part: PartInfo, sizes: Sizes) -> bool:
    return part.rows * _SMALL_SHARE < sizes.part_rows and part.bytes * _SMALL_SHARE < sizes.part_bytes


class Rewriting(NamedTuple):
    """What completes a table: parts that go, and whether new ones come with the rows of `merged`."""

    merged: list[PartInfo]
    dropped: list[PartInfo]
    makes_parts: bool


def plan_rewriting(parts: Sequence[PartInfo], sizes: Sizes) -> Rewriting:
    """A table always has a part; one without rows only as long as there is no other."""
    filled = [part for part in parts if part.rows]
    if not filled:
        return Rewriting([], list(parts[1:]), not parts)
    old = filled[first_to_rewrite(filled, sizes) :]
    return Rewriting(old, [part for part in parts if not part.rows], bool(old))


def widest_overlap(parts: Sequence[PartInfo]) -> int:
    """How many parts, at most, hold rows of the same place: so many are open at a time."""
    edges: list[tuple[int, int]] = []
    for part in parts:
        if part.min_row is not None and part.max_row is not None:
            edges += [(part.min_row, 1), (part.max_row + 1, -1)]
    is_open = widest = 0
    for _, change in sorted(edges):
        is_open += change
        widest = max(widest, is_open)
    return widest


class MergeStopped(Exception):  # noqa: N818 - it tells, and no user sees it
    """Nobody waits for the merge any more: it was given up, and the parts are as they were."""


def never() -> bool:
    """Somebody waits, however long it takes."""
    return False


def merged(
    store: Store, kind: Kind, parts: Sequence[PartInfo], is_late: Callable[[], bool] = never
) -> list[Sealed]:
    """New parts with the rows of `parts` in order, sealed but not yet linked; at least one, if without rows.

    Raises StorageError when a part cannot be read, MergeStopped once `is_late`; whatever is raised, the new parts are
    abandoned.
    """
    sealed: list[Sealed] = []
    intents: list[Intent] = []
    try:
        rows = _while_in_time(in_order(store, kind, parts), is_late)
        after = -1
        batch = next(rows, None)
        while batch is not None or not sealed:
            intents.append(store.intend(kind, 0))
            draft = Draft(store, intents[-1], after)
            try:
                batch = _fill(draft, batch, rows)
                sealed.append(draft.seal())
            finally:
                draft.close()
            after = draft.after
        _check_whole(kind, parts, sealed)
    except BaseException:
        abandon_all(store, intents)
        raise
    return sealed


def _while_in_time(rows: Iterator[pa.RecordBatch], is_late: Callable[[], bool]) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        if is_late():
            raise MergeStopped
        yield batch


def _fill(
    draft: Draft, batch: pa.RecordBatch | None, rows: Iterator[pa.RecordBatch]
) -> pa.RecordBatch | None:
    """Add rows until the part is full; returns what is left of the batch that did not fit."""
    sizes = draft.store.sizes
    while batch is not None and draft.rows < sizes.part_rows and draft.bytes < sizes.part_bytes:
        head = batch.slice(0, sizes.part_rows - draft.rows)
        draft.add(head)
        rest = batch.slice(head.num_rows)
        batch = rest if rest.num_rows else next(rows, None)
    return batch


def _check_whole(kind: Kind, parts: Sequence[PartInfo], sealed: Sequence[Sealed]) -> None:
    before, now = sum(part.rows for part in parts), sum(part.rows for part in sealed)
    if before != now:
        raise InvariantError(
            f"{before} rows of {kind} became {now} when put in order; the old parts were kept"
        )


def in_order(store: Store, kind: Kind, parts: Sequence[PartInfo]) -> Iterator[pa.RecordBatch]:
    """All rows of `parts` by rank."""
    waiting = deque(sorted((part for part in parts if part.rows), key=lambda part: part.min_row or 0))
    budget = store.sizes.merge_bytes // max(1, widest_overlap(parts))
    cursors: list[_Cursor] = []
    while waiting or cursors:
        bound = min((cursor.last for cursor in cursors if cursor.left), default=_NO_BOUND)
        if waiting:
            bound = min(bound, store.tables.lowest_rank(kind, waiting[0].min_row or 0) - 1)
        pieces = [piece for cursor in cursors if (piece := cursor.take(bound)).num_rows]
        if pieces:
            yield _sorted(store, kind, pieces)
        elif waiting:
            cursors.append(_Cursor(store, waiting.popleft(), budget))
        cursors = [cursor for cursor in cursors if cursor.refill()]


def _sorted(store: Store, kind: Kind, pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(pieces) == 1:
        return pieces[0]
    table = pa.Table.from_batches(pieces)
    order = pc.sort_indices(store.tables.ranks(kind, table))
    return table.take(order).combine_chunks().to_batches()[0]


class _Cursor:
    """A part that is being read: one batch, of which a head has been taken. `left` rows are not read yet."""

    def __init__(self, store: Store, part: PartInfo, budget_bytes: int) -> None:
        self._tables, self._kind = store.tables, part.kind
        self._path = store.layout.part(part.kind, part.name)
        self.left = part.rows
        verify_part(self._path, part)  # it will be deleted for what is read here
        self._file = open_part(self._path)
        self._batches = self._file.iter_batches(
            rows_within(self._file.metadata, budget_bytes, _BATCH_ROWS), use_threads=False
        )
        self.last = -1
        self._batch: pa.RecordBatch
        self._ranks: pa.Array
        self._read()

    def take(self, bound: int) -> pa.RecordBatch:
        """The rows up to `bound`."""
        count = pc.sum(pc.less_equal(self._ranks, bound)).as_py() or 0
        taken = self._batch.slice(0, count)
        self._batch, self._ranks = self._batch.slice(count), self._ranks.slice(count)
        return taken

    def refill(self) -> bool:
        """Read on when the batch is used up; False at the end of the part."""
        if self._batch.num_rows:
            return True
        if self.left:
            self._read()
            return True
        self._file.close()
        return False

    def _read(self) -> None:
        try:
            self._batch = next(self._batches)
        except (OSError, pa.ArrowException, StopIteration) as error:
            raise damaged_part(self._path, error) from error
        self._ranks = self._tables.ranks(self._kind, self._batch)
        self.left -= self._batch.num_rows
        self.last = self._ranks[-1].as_py()
