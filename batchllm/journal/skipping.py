"""Units that were skipped, asked after all: their lines leave skipped/, and they are pending again.

A unit is skipped when the answers of its row settle the vote. Where one of these leaves (a failure is forgotten, a part
is lost), or the vote goes by other terms, the row has to be looked at again. Nothing is lost by reopening too much: a
vote that is settled still is found so by the next run, which reads the kept answers, and asks nothing.
"""

import sqlite3

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.database import store_meta
from batchllm.journal.finished import Finished
from batchllm.journal.parts import Draft, Intent, PartInfo, Sealed, Store, abandon_all, publish, read_part


def reopen(store: Store, rows: bytearray | None) -> int:
    """Units of `rows` (a bit each, lowest first), or all; how many they were. Everything is drained already."""
    kept = _Kept(store, None if rows is None else _flags(rows))
    try:
        for part in store.parts("skipped"):
            kept.take(part)
        publish(store, kept.sealed)
    except BaseException:
        abandon_all(store, kept.intents)
        raise
    if not kept.reopened:
        return 0
    counts = store.database.counts()

    def along(connection: sqlite3.Connection) -> None:
        store_meta(connection, "complete", "0")
        store.database.store_counts(connection, counts._replace(skipped=counts.skipped - kept.reopened))

    store.commit(kept.sealed, retired=kept.retired, along=along)
    return kept.reopened


def open_rows(finished: Finished, rows: int) -> bytearray:
    """A bit for each row that lacks an outcome: one that was skipped there is not to be relied on."""
    whole = int.from_bytes(finished.rows(rows), "little")
    return bytearray((~whole & ((1 << rows) - 1)).to_bytes(-(-rows // 8), "little"))


def _flags(bits: bytearray) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), len(bits) * 8, [None, pa.py_buffer(bits)])


class _Kept:
    """The lines that stay: in their part where it loses none, else in a new one. `wanted` None: none stays."""

    def __init__(self, store: Store, wanted: pa.Array | None) -> None:
        self._store = store
        self._wanted = wanted
        self.reopened = 0
        self.retired: list[PartInfo] = []
        self.sealed: list[Sealed] = []
        self.intents: list[Intent] = []

    def take(self, part: PartInfo) -> None:
        if self._wanted is not None and not self._loses(part):
            return
        self.retired.append(part)
        left = 0 if self._wanted is None else self._remade(part)
        self.reopened += part.rows - left

    def _loses(self, part: PartInfo) -> bool:
        batches = read_part(self._store, part, ["row"], self._store.sizes.drain_rows)
        return any(pc.any(self._are_wanted(batch)).as_py() for batch in batches)

    def _remade(self, part: PartInfo) -> int:
        """How many lines are left."""
        store = self._store
        draft: Draft | None = None
        try:
            for batch in read_part(store, part, None, store.sizes.slice_rows):
                staying = batch.filter(pc.invert(self._are_wanted(batch)))
                if not staying.num_rows:
                    continue
                if draft is None:
                    self.intents.append(store.intend("skipped", 0))
                    draft = Draft(store, self.intents[-1])
                draft.add(staying)
            if draft is not None:
                self.sealed.append(draft.seal())
        finally:
            if draft is not None:
                draft.close()
        return 0 if draft is None else draft.rows

    def _are_wanted(self, batch: pa.RecordBatch) -> pa.Array:
        """Rows beyond the end of the flags are none of them."""
        if self._wanted is None:
            return pa.repeat(True, batch.num_rows)
        rows = batch.column("row")
        inside = pc.less(rows, len(self._wanted))
        places = pc.if_else(inside, rows, 0)
        return pc.and_(inside, self._wanted.take(places)) if len(self._wanted) else inside
