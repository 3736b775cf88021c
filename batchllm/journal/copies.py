"""Lines for rows that ask what another row has asked: its outcome under their own key, at no cost.

A copy is a line of a new part like any other. It takes the outcome as it is; calls, tokens and money stay with the row
that was asked, so that sums over the output are what was paid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal.files import Kind
from batchllm.journal.finished import Finished
from batchllm.journal.parts import Draft, Intent, Sealed, Store, abandon_all, publish, read_part
from batchllm.journal.recall import OUTCOMES, check_units, gather
from batchllm.records import Key


@dataclass(slots=True)
class CopyRequests:
    """Rows that take over the outcomes of others (`originals`), as many of each list.

    `digests` (hexadecimal) are of what the rows ask: only an outcome of the same one is taken.
    """

    ordinals: list[int] = field(default_factory=list)
    originals: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    carries: list[bytes] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


class Copied(NamedTuple):
    """Units of work that have their outcome now."""

    ok: int
    failed: int
    skipped: int = 0


def copy_outcomes(store: Store, requests: CopyRequests, done: Finished) -> Copied:
    """New parts with a line for each outcome of the originals, in one transaction. Everything is drained already."""
    counts = store.database.counts()
    maker = _Copies(store, requests, done)
    try:
        for kind in OUTCOMES:
            for part in store.parts(kind):
                if part.rows:
                    for batch in read_part(store, part, None, store.sizes.slice_rows):
                        maker.take(kind, batch)
            maker.seal(kind)
        publish(store, maker.sealed)
        sealed = {kind: [one.info for one in maker.sealed if one.intent.kind == kind] for kind in OUTCOMES}
        finished = gather(store, {kind: [*store.parts(kind), *sealed[kind]] for kind in OUTCOMES})
        check_units(finished)
    except BaseException:
        abandon_all(store, maker.intents)
        raise
    now = counts._replace(ok=finished.ok, failed=finished.failed, skipped=finished.skipped)
    if maker.sealed:
        store.commit(maker.sealed, along=lambda connection: store.database.store_counts(connection, now))
    return Copied(now.ok - counts.ok, now.failed - counts.failed, now.skipped - counts.skipped)


class _Copies:
    """Copied lines gather until they fill a part; each part is sorted in itself."""

    def __init__(self, store: Store, requests: CopyRequests, done: Finished) -> None:
        self._store = store
        self._done = done
        self._requests = requests
        self._originals = pa.array(requests.originals, pa.int64())
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self.sealed: list[Sealed] = []
        self.intents: list[Intent] = []

    def take(self, kind: Kind, batch: pa.RecordBatch) -> None:
        is_asked = pc.is_in(batch.column("row"), value_set=self._originals)
        if not pc.any(is_asked).as_py():
            return
        batch = batch.filter(is_asked)
        for lines, copies in self._pairs(batch):
            self._waiting.append(self._copied(kind, batch.take(lines), copies))
            self._bytes += self._waiting[-1].nbytes
            if self._bytes >= self._store.sizes.drain_bytes:
                self.seal(kind)

    def _pairs(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.Array, list[int]]]:
        """Lines of the batch, and for each the number of the request that it answers; a few at a time."""
        at: dict[int, list[int]] = {}
        for line, row in enumerate(batch.column("row").to_pylist()):
            at.setdefault(row, []).append(line)
        hashes = batch.column("request_hash").to_pylist()
        slots = self._slots(batch)
        wanted = pc.indices_nonzero(pc.is_in(self._originals, value_set=batch.column("row"))).to_pylist()
        lines: list[int] = []
        copies: list[int] = []
        for number in wanted:
            for line in at[self._requests.originals[number]]:
                is_same = hashes[line] == self._requests.digests[number]
                if is_same and self._is_open(self._requests.ordinals[number], slots[line]):
                    lines.append(line)
                    copies.append(number)
            if len(lines) >= self._store.sizes.slice_rows:
                yield pa.array(lines, pa.int64()), copies
                lines, copies = [], []
        if lines:
            yield pa.array(lines, pa.int64()), copies

    def _slots(self, batch: pa.RecordBatch) -> list[int | None]:
        """Of each line; None where a failure speaks for all that the row still owed."""
        units, slots = self._store.tables.units(batch).to_pylist(), self._done.slots
        return [None if unit is None else unit % slots for unit in units]

    def _is_open(self, row: int, slot: int | None) -> bool:
        """A lane that has answered the row itself is not asked for a copy."""
        return bool(self._done.open_slots(row)) if slot is None else not self._done.has(row, slot)

    def _copied(self, kind: Kind, batch: pa.RecordBatch, copies: list[int]) -> pa.RecordBatch:
        requests, tables = self._requests, self._store.tables
        rows = [requests.ordinals[number] for number in copies]
        return tables.copied(
            kind,
            batch,
            rows=rows,
            keys=[requests.keys[number] for number in copies],
            carries=[requests.carries[number] for number in copies],
        )

    def seal(self, kind: Kind) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting).combine_chunks()
        self._waiting, self._bytes = [], 0
        order = pc.array_sort_indices(self._store.tables.ranks(kind, table))
        intent = self._store.intend(kind, 0)
        self.intents.append(intent)
        draft = Draft(self._store, intent)
        try:
            for start in range(0, table.num_rows, self._store.sizes.slice_rows):
                lines = table.take(order.slice(start, self._store.sizes.slice_rows))
                draft.add(lines.combine_chunks().to_batches()[0])
            self.sealed.append(draft.seal())
        finally:
            draft.close()
