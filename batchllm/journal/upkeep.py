"""What is done to the record as a whole, between the commits of a run or before there are any.

All of it is for the thread that uses the database. What exchanges whole parts wants those of the present input: whoever
calls it has settled a renewal that was pending.
"""

from collections.abc import Callable

import pyarrow as pa

from batchllm.clock import Clock
from batchllm.journal.committing import Committing
from batchllm.journal.copies import Copied, CopyRequests, copy_outcomes
from batchllm.journal.forgetting import (
    Forgotten,
    difference,
    forget_failures,
    forgotten,
    note_all_asked,
    to_forget,
)
from batchllm.journal.inputs import InputRecord, InputState
from batchllm.journal.manifest import Manifest
from batchllm.journal.merge import MergeStopped
from batchllm.journal.parts import Store
from batchllm.journal.recall import OUTCOMES, recall, renewed, rows_end
from batchllm.journal.recovery import purge
from batchllm.journal.renewal import Renewal
from batchllm.journal.renewing import Renewing
from batchllm.journal.sealing import (
    add_empty_parts,
    check_count,
    complete_parts,
    compose_manifest,
    join_tiny_parts,
    mark_incomplete,
    rewritten_bytes,
    save_manifest,
)
from batchllm.journal.skipping import open_rows, reopen
from batchllm.journal.spending import note_complete


class Upkeep:
    """After what changes outcomes, `work` goes on from what is there then."""

    def __init__(self, store: Store, work: Committing, clock: Clock) -> None:
        self._store = store
        self._work = work
        self._clock = clock

    def drain_all(self) -> None:
        """Everything into parts."""
        self._work.drains.drain_all()

    def copy_outcomes(self, requests: CopyRequests) -> Copied:
        self.drain_all()
        copied = copy_outcomes(self._store, requests, self._work.finished)
        self._recall()
        return copied

    def reopen(self, *, all_of_them: bool) -> int:
        rows = None if all_of_them else open_rows(self._work.finished, rows_end(self._store))
        return self._reopen(rows)

    def forget_failures(self) -> Forgotten:
        again = to_forget(self._store, self._work.finished)
        self._reopen(again.rows)  # first: of a row without its failure they would not be relied on
        before = self._work.finished.bits()
        forget_failures(self._store, again.rows)
        self._publish()
        self._recall()
        return forgotten(again, difference(before, self._work.finished.bits()), self._work.finished)

    def renew(self, renewal: Renewal, renewing: Renewing, record: InputRecord, state: InputState) -> None:
        self.drain_all()
        self._work.require(renewing.needed_bytes(renewal))
        store = self._store
        parts = {kind: store.parts(kind) for kind in OUTCOMES}
        finished = renewed(store, parts, self._work.finished, renewal)
        renewing.commit(renewal, finished, record.prepare(state))
        record.clear()
        if renewing.renewal is None:
            self._publish()
        self._work.take_up(finished)
        pa.default_memory_pool().release_unused()

    def seal(self) -> Manifest:
        self.drain_all()
        add_empty_parts(self._store)
        join_tiny_parts(self._store, self._clock.wall_s())
        return mark_incomplete(self._store, self._clock.wall_s())

    def complete(self, expected_units: int, is_late: Callable[[], bool]) -> Manifest:
        check_count(self._work.counts, expected_units)
        self.drain_all()
        self._work.demand(rewritten_bytes(self._store))
        try:
            complete_parts(self._store, self._clock.wall_s(), is_late)
        except MergeStopped:
            return self.seal()
        with self._store.database.transaction() as connection:
            note_complete(connection, self._store.database)
            note_all_asked(connection)
        manifest = self._publish()
        pa.default_memory_pool().release_unused()
        return manifest

    def manifest(self) -> Manifest:
        """What one would say now; it is written nowhere."""
        return compose_manifest(self._store, self._clock.wall_s())

    def _reopen(self, rows: bytearray | None) -> int:
        """Units of `rows` (a bit each, lowest first), or all."""
        if not self._work.counts.skipped:
            return 0
        self.drain_all()
        reopened = reopen(self._store, rows)
        if reopened:
            self._publish()
            self._recall()
        return reopened

    def _publish(self) -> Manifest:
        """The manifest, and then away with what it no longer names."""
        manifest = save_manifest(self._store, self._clock.wall_s())
        purge(self._store)
        return manifest

    def _recall(self) -> None:
        """Take up what the parts and the journal hold, as a start does."""
        self._work.take_up(recall(self._store, self._store.database.counts()))
