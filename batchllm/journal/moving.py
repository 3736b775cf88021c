"""Rows of the parts to the places that they have in another input; those that are gone leave.

A part whose rows all stay where they are, with what they carry, stays as it is; of the others new ones are made, each
sorted in itself, and the completion puts them in order. A line of usage/ is never dropped, for it was paid. While one
part is written, which Arrow does without the interpreter, the next one is read.

Only the journal's own thread may use the database, and this goes on beside it: what has to be done there is handed over
by `call`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import FullDiskError
from batchllm.journal.files import KINDS
from batchllm.journal.merge import MergeStopped
from batchllm.journal.parts import (
    Draft,
    Intent,
    PartInfo,
    Sealed,
    Store,
    abandon_all,
    publish,
    read_part,
    verify_part,
)
from batchllm.journal.renewal import Renewal

T = TypeVar("T")


class Call(Protocol):
    """Runs something where the database is used, and waits for it."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


class Moved(NamedTuple):
    """Parts that take the places of others."""

    sealed: list[Sealed]
    retired: list[PartInfo]


def move(
    store: Store,
    renewal: Renewal,
    *,
    call: Call,
    is_late: Callable[[], bool],
    exchange: Callable[[Moved], None],
) -> None:
    """`exchange` is to put the new parts in the place of the old ones, in one transaction.

    Raises MergeStopped once `is_late`, with everything as it was.
    """
    parts = call(lambda: [part for kind in KINDS for part in store.parts(kind)])
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batchllm-moving") as pool:
        moving = _Moving(store, renewal, pool, call, is_late)
        try:
            for part in parts:
                if renewal.touches(part) and not moving.stays(part):
                    moving.take(part)
            publish(store, moving.moved.sealed)
        except BaseException:
            pool.shutdown()
            call(lambda: abandon_all(store, moving.intents))
            raise
    try:
        call(lambda: exchange(moving.moved))
    except FullDiskError:  # which undid it; after another error the next start may find it done
        call(lambda: abandon_all(store, moving.intents))
        raise


class _Moving:
    def __init__(
        self,
        store: Store,
        renewal: Renewal,
        pool: ThreadPoolExecutor,
        call: Call,
        is_late: Callable[[], bool],
    ) -> None:
        self._store, self._renewal, self._pool = store, renewal, pool
        self._call, self._is_late = call, is_late
        self.moved = Moved([], [])
        self.intents: list[Intent] = []

    def stays(self, part: PartInfo) -> bool:
        """Whether its rows stay after all: carried values that were told anew may be the same."""
        first, end = part.min_row or 0, (part.max_row or 0) + 1
        if part.kind != "output" or not self._renewal.places.keep(first, end):
            return False
        return not self._carries_other(part)

    def take(self, part: PartInfo) -> None:
        self.moved.sealed.extend(self._rewritten(part))
        self.moved.retired.append(part)

    def _carries_other(self, part: PartInfo) -> bool:
        tables, carries = self._store.tables, self._renewal.carries
        if not tables.carried:
            return False
        for batch in read_part(self._store, part, ["row", *tables.carried], self._store.sizes.slice_rows):
            self._stop_in_time()
            rows = batch.column("row")
            new = {one.row: one.blob for one in carries.between(rows[0].as_py(), rows[-1].as_py() + 1)}
            old = tables.encode_carried(batch) if new else []
            if any(new.get(row, blob) != blob for row, blob in zip(rows.to_pylist(), old, strict=False)):
                return True
        return False

    def _rewritten(self, part: PartInfo) -> Iterator[Sealed]:
        store = self._store
        verify_part(store.layout.part(part.kind, part.name), part)  # it will be deleted for what is read here
        writing: Future[Sealed] | None = None
        for batch in read_part(store, part, None, store.sizes.drain_rows):
            self._stop_in_time()
            moved = self._moved(part, batch)
            if writing is not None:
                yield writing.result()  # before the next: no more than two batches are in memory
            writing = self._write(part, moved) if moved.num_rows else None
        if writing is not None:
            yield writing.result()

    def _stop_in_time(self) -> None:
        if self._is_late():
            raise MergeStopped

    def _write(self, part: PartInfo, rows: pa.RecordBatch) -> Future[Sealed]:
        intent = self._call(lambda: self._store.intend(part.kind, 0))
        self.intents.append(intent)
        return self._pool.submit(_written, self._store, intent, rows)

    def _moved(self, part: PartInfo, batch: pa.RecordBatch) -> pa.RecordBatch:
        tables, renewal = self._store.tables, self._renewal
        if part.kind == "usage":
            batch = renewal.moved_calls(batch)
        else:
            if part.kind == "output" and tables.carried:
                rows = batch.column("row")
                found = renewal.carries.between(rows[0].as_py(), rows[-1].as_py() + 1)
                batch = tables.with_carried(batch, [one.row for one in found], [one.blob for one in found])
            batch = renewal.moved(batch)
        ranks = tables.ranks(part.kind, batch)
        return batch if _is_sorted(ranks) else batch.take(pc.array_sort_indices(ranks))


def _is_sorted(numbers: pa.Array) -> bool:
    return bool(pc.all(pc.less_equal(numbers.slice(0, max(0, len(numbers) - 1)), numbers.slice(1))).as_py())


def _written(store: Store, intent: Intent, rows: pa.RecordBatch) -> Sealed:
    draft = Draft(store, intent)
    try:
        for start in range(0, rows.num_rows, store.sizes.slice_rows):
            draft.add(rows.slice(start, store.sizes.slice_rows))
        return draft.seal()
    finally:
        draft.close()
