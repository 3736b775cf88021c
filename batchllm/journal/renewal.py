"""The record for another input: rows move to their new places, and those that are gone leave.

Everything is drained before. A part whose rows all stay where they are, with what they carry, stays as it is; of the
others new ones are made, each sorted in itself, and the completion puts them in order. One transaction exchanges
parts, totals and input, so that a kill leaves the record of the old input or of the new one.

A line of usage/ is never dropped, for it was paid: a call whose row is gone is row -1, one whose row has changed is
still that row's. While a part is written, which Arrow does without the interpreter, the next one is read.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.carries import Carried
from batchllm.journal.files import KINDS
from batchllm.journal.finished import Finished
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
from batchllm.journal.recall import check_units, gather
from batchllm.matching import Places

#: The row of a call whose row is no longer in the input.
GONE = -1


class CarriedRows(Protocol):
    """What `Carries` offers here."""

    def between(self, first: int, end: int) -> Sequence[Carried]: ...


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
    carries: CarriedRows
    changed: Changed = field(default_factory=Changed)


@dataclass(frozen=True, slots=True)
class _CallPlaces:
    """Where the row of a call stands now: also that of a row which has changed."""

    places: Places
    changed: Changed

    def of(self, rows: pa.Array) -> pa.Array:
        places = self.places.of(rows)
        if not places.null_count or not len(self.changed.old):
            return places
        return pc.coalesce(places, self.changed.new.take(pc.index_in(rows, value_set=self.changed.old)))

    def keep(self, first: int, end: int) -> bool:
        if self.places.keep(first, end):
            return True
        rows = pa.arange(first, end, 1)
        return bool(len(self.changed.old)) and bool(self.of(rows).equals(rows))


def renew(store: Store, renewal: Renewal, along: Callable[[sqlite3.Connection], None]) -> Finished:
    """`along` writes the new input, in the transaction that exchanges the parts. Returns what is finished now."""
    counts = store.database.counts()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batchllm-renewal") as pool:
        renewed = _Renewed(store, renewal, pool)
        try:
            parts = {kind: renewed.parts(store.parts(kind)) for kind in KINDS}
            publish(store, renewed.sealed)
            finished = gather(store, parts)
            check_units(finished)
        except BaseException:
            pool.shutdown()
            abandon_all(store, renewed.intents)
            raise

    def write(connection: sqlite3.Connection) -> None:
        along(connection)
        now = counts._replace(ok=finished.ok, failed=finished.failed, skipped=finished.skipped)
        store.database.store_counts(connection, now)
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('complete', '0')")

    store.commit(renewed.sealed, retired=renewed.retired, along=write)
    finished.spent_usd = counts.cost_usd
    return finished


class _Renewed:
    """Which parts stay, and those that others become."""

    def __init__(self, store: Store, renewal: Renewal, pool: ThreadPoolExecutor) -> None:
        self._store = store
        self._renewal = renewal
        self._pool = pool
        self._calls = _CallPlaces(renewal.places, renewal.changed)
        self.sealed: list[Sealed] = []
        self.retired: list[PartInfo] = []
        self.intents: list[Intent] = []

    def parts(self, old: Sequence[PartInfo]) -> list[PartInfo]:
        """What is committed in the place of these."""
        leaving = [part for part in old if not self._stays(part)]
        sealed = [one for part in leaving for one in self._rewritten(part)]
        self.retired += leaving
        self.sealed += sealed
        return [*(part for part in old if part not in leaving), *(one.info for one in sealed)]

    def _stays(self, part: PartInfo) -> bool:
        if part.min_row is None or part.max_row is None:
            return True
        first, end = part.min_row, part.max_row + 1
        if part.kind == "usage":
            first = max(first, 0)  # calls whose rows were gone before stay so
            return first >= end or self._calls.keep(first, end)
        return self._renewal.places.keep(first, end) and not self._carries_other(part)

    def _carries_other(self, part: PartInfo) -> bool:
        """Whether a row of it is to carry something else than it does."""
        tables = self._store.tables
        if part.kind != "output" or not tables.carried or part.min_row is None or part.max_row is None:
            return False
        if not self._renewal.carries.between(part.min_row, part.max_row + 1):
            return False
        for batch in read_part(self._store, part, ["row", *tables.carried], self._store.sizes.slice_rows):
            rows = batch.column("row")
            new = {
                one.row: one.blob
                for one in self._renewal.carries.between(rows[0].as_py(), rows[-1].as_py() + 1)
            }
            old = tables.encode_carried(batch) if new else []
            if any(new.get(row, blob) != blob for row, blob in zip(rows.to_pylist(), old, strict=False)):
                return True
        return False

    def _rewritten(self, part: PartInfo) -> Iterator[Sealed]:
        store = self._store
        path = store.layout.part(part.kind, part.name)
        verify_part(path, part)  # it will be deleted for what is read here
        writing: Future[Sealed] | None = None
        for batch in read_part(store, part, None, store.sizes.drain_rows):
            moved = self._moved(part, batch)
            if writing is not None:
                yield writing.result()  # before the next: no more than two batches are in memory
            writing = self._write(part, moved) if moved.num_rows else None
        if writing is not None:
            yield writing.result()

    def _write(self, part: PartInfo, rows: pa.RecordBatch) -> Future[Sealed]:
        intent = self._store.intend(part.kind, 0)
        self.intents.append(intent)
        return self._pool.submit(_written, self._store, intent, rows)

    def _moved(self, part: PartInfo, batch: pa.RecordBatch) -> pa.RecordBatch:
        tables, kind = self._store.tables, part.kind
        rows = batch.column("row")
        if kind == "output" and tables.carried:
            found = self._renewal.carries.between(rows[0].as_py(), rows[-1].as_py() + 1)
            batch = tables.with_carried(batch, [one.row for one in found], [one.blob for one in found])
        if kind == "usage":
            known = pc.if_else(pc.less(rows, 0), pa.scalar(None, pa.int64()), rows)
            places = pc.fill_null(self._calls.of(known), GONE)
        else:
            places = self._renewal.places.of(rows)
        at = batch.schema.get_field_index("row")
        batch = batch.set_column(at, batch.schema.field(at), places)
        if places.null_count:
            batch = batch.filter(places.is_valid())
        ranks = tables.ranks(kind, batch)
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
