"""The renewal that is pending, if there is one, and its way: kept, carried out, forgotten."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from batchllm.errors import FullDiskError, InvariantError
from batchllm.journal import pending
from batchllm.journal.carries import KeptCarries, discard_scratch
from batchllm.journal.database import store_meta
from batchllm.journal.files import KINDS, Kind
from batchllm.journal.finished import Finished
from batchllm.journal.forgetting import move_forgotten
from batchllm.journal.merge import never
from batchllm.journal.mover import Mover, Run
from batchllm.journal.moving import Call, Moved, move
from batchllm.journal.parts import SOURCE_TABLE, PartInfo, Store
from batchllm.journal.recovery import purge
from batchllm.journal.renewal import Renewal
from batchllm.journal.sealing import renewals, save_manifest
from batchllm.journal.spending import leave_input


class Renewing:
    """`renewal` is what the parts are yet to go through; None when they are those of the present input."""

    def __init__(self, store: Store, wall_s: Callable[[], float]) -> None:
        self._store = store
        self._wall_s = wall_s
        self._mover: Mover | None = None
        self.renewal: Renewal | None = None
        note = store.database.meta(pending.NOTE)
        pending.clear(store.layout, note)
        discard_scratch(store.layout.state)
        if note is not None:
            self._take(pending.kept(store.layout, note))

    def needed_bytes(self, renewal: Renewal) -> int:
        """What moving the rows will write: the old parts go only when the new ones are there."""
        return sum(part.bytes for part in self._touched(renewal))

    def commit(
        self, renewal: Renewal, finished: Finished, write_input: Callable[[sqlite3.Connection], None]
    ) -> None:
        """From here on the record is that of the new input, of which `finished` is there. Everything is drained."""
        store = self._store
        note = self._kept(renewal)
        store.fault("before_renewal")
        try:
            with store.database.transaction() as connection:
                write_input(connection)
                leave_input(connection, store.database)
                move_forgotten(connection, store.database, renewal.places)
                counts = store.database.counts()
                now = counts._replace(ok=finished.ok, failed=finished.failed, skipped=finished.skipped)
                store.database.store_counts(connection, now)
                store_meta(connection, "renewals", str(renewals(store.database) + 1))
                store_meta(connection, "complete", "0")
                if note is not None:
                    store_meta(connection, pending.NOTE, note)
        except FullDiskError:  # which undid it
            pending.clear(store.layout, None)
            raise
        store.fault("after_renewal")
        if note is not None:
            self._take(replace(renewal, carries=pending.kept_carries(store.layout, note)))

    def settle(self, is_late: Callable[[], bool] = never) -> bool:
        """Whether nothing is pending any more: it is waited for, or done here, until it is late.

        Raises what keeps it from being done.
        """
        return self._mover is None or self._mover.settle(is_late)

    @property
    def is_given_up(self) -> bool:
        """It was late, and the next start is to do it."""
        return self._mover is not None and self._mover.is_given_up

    def start(self, run: Run) -> None:
        """Beside the run."""
        if self._mover is not None and self.renewal is not None:
            self._mover.start(run)

    def stop(self) -> None:
        if self._mover is not None:
            self._mover.stop()

    def _kept(self, renewal: Renewal) -> str | None:
        """The note of it; None where no part has to move: then nothing of it is pending."""
        is_touched = next(self._touched(renewal), None) is not None
        return pending.keep(self._store.layout, renewal) if is_touched else None

    def _touched(self, renewal: Renewal) -> Iterator[PartInfo]:
        return (part for kind in KINDS for part in self._store.parts(kind) if renewal.touches(part))

    def _take(self, renewal: Renewal) -> None:
        self.renewal = renewal
        self._mover = Mover(lambda call, is_late: self._move(renewal, call, is_late))

    def _move(self, renewal: Renewal, call: Call, is_late: Callable[[], bool]) -> None:
        move(self._store, renewal, call=call, is_late=is_late, exchange=self._exchange)
        if isinstance(renewal.carries, KeptCarries):
            renewal.carries.close()
        pa.default_memory_pool().release_unused()

    def _exchange(self, moved: Moved) -> None:
        store = self._store
        for kind in ("output", "skipped"):
            self._check(kind, moved)
        store.commit(moved.sealed, retired=moved.retired, along=_forget_note)
        self.renewal = None
        save_manifest(store, self._wall_s())
        purge(store)
        pending.clear(store.layout, None)

    def _check(self, kind: Kind, moved: Moved) -> None:
        """Each line that is counted is in a part or in the journal."""
        counts = self._store.database.counts()
        counted = counts.ok if kind == "output" else counts.skipped
        lines = self._store.database.rows(f"SELECT count(*) FROM {SOURCE_TABLE[kind]}")[0][0]  # noqa: S608
        parts = [part for part in self._store.parts(kind) if part not in moved.retired]
        parts += [part.info for part in moved.sealed if part.intent.kind == kind]
        if _rows(parts) + lines != counted:
            raise InvariantError(
                f"{_rows(parts)} lines of {kind} would be in parts and {lines} in the journal, {counted} are"
                " counted; the parts were left as they were"
            )


def _forget_note(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM meta WHERE name = ?", (pending.NOTE,))


def _rows(parts: Sequence[PartInfo]) -> int:
    return sum(part.rows for part in parts)
