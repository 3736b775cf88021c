"""What the writer's thread does between two looks at its queue: records become lines, and lines become parts.

`counts` and `finished` know committed records only. A disk without space pauses the run (see `batchllm.journal.space`);
what it does not take at all goes elsewhere (see `batchllm.journal.spill`).
"""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from batchllm.clock import Clock
from batchllm.errors import BatchllmError, FullDiskError
from batchllm.journal.database import Counts
from batchllm.journal.drain import Drains
from batchllm.journal.files import mapped_faults
from batchllm.journal.finished import Finished
from batchllm.journal.lines import Harvest, Harvester, flat, statements, storable
from batchllm.journal.parts import Store
from batchllm.journal.renewing import Renewing
from batchllm.journal.space import Space
from batchllm.journal.spillover import Spillover
from batchllm.journal.tuning import Tuning
from batchllm.journal.watch import Watch
from batchllm.journal.witness import LINES, Witness
from batchllm.records import JournalRecord


class Committing:
    """The `Work` of a `Writer`; the rest is called between two commits, too. `numbers` are the lanes', by slot."""

    def __init__(
        self,
        store: Store,
        renewing: Renewing,
        finished: Finished,
        *,
        numbers: Sequence[int],
        clock: Clock,
        tuning: Tuning,
    ) -> None:
        self._store = store
        self._renewing = renewing
        self._database = store.database
        self._clock = clock
        self._space = Space(store.layout, tuning.free_bytes, tuning.disk)
        self._watch = Watch(store.layout, tuning.disk.say)
        self._witness = Witness(store.layout)
        self._spillover = Spillover(store.database, tuning.disk.spill, tuning.disk.say)
        self._has_full_part = False
        self._numbers = numbers
        self.take_up(finished)

    def take_up(self, finished: Finished) -> None:
        """Go on from what the parts and the journal hold by now."""
        self.counts = self._database.counts()
        self.finished = finished
        self.drains = Drains(self._store)
        self._harvester = self._harvester_of(self._numbers)

    def begin(self, version: str) -> None:
        """The journal is this run's; what earlier ones could only save elsewhere comes in."""
        self._space.start(self._clock.monotonic_s())
        now_s, host = self._clock.wall_s(), socket.gethostname()
        self._database.claim(now_s, pid=os.getpid(), host=host, version=version)
        self._take_in()

    def end(self, *, clean: bool, exit_code: int) -> None:
        self.drains.cancel()
        self._space.stop()
        self._witness.close()
        if self._database.broken is not None:
            return
        self._store_end(clean=clean, exit_code=exit_code)
        self._witness.remove()
        self._database.shrink()

    def _store_end(self, *, clean: bool, exit_code: int) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE runs SET ended = ?, exit_code = ?, clean = ? WHERE run = ?",
                (self._clock.wall_s(), int(exit_code), clean, self._database.run),
            )

    def commit(self, records: Sequence[JournalRecord]) -> BatchllmError | None:
        """Store `records`, or raise."""
        began_s = self._clock.monotonic_s()
        harvest = self._insert_all(records)
        self._store.fault("after_commit")
        grown, now_s = harvest.answer_bytes + harvest.failure_bytes, self._clock.monotonic_s()
        full = self._space.note(now_s, grown)
        return harvest.repeated or self._watch.note(now_s, now_s - began_s) or full

    @property
    def is_due(self) -> bool:
        """Whether a slice of a drain is to be done; none while the last one did not fit."""
        is_held_up = self._is_renewing or (self._has_full_part and self._space.is_short)
        return not is_held_up and self.drains.is_due

    def step(self) -> None:
        """One slice of a drain."""
        try:
            with mapped_faults("write", self._store.layout.out):
                self.drains.step()
        except FullDiskError as error:
            self._has_full_part = True
            self.meet_full_part(error)

    @property
    def is_short(self) -> bool:
        """Whether nothing new may be sent for want of space on the disk."""
        return self._space.is_short

    @property
    def patient_until_s(self) -> float | None:
        """When the run ends for want of space; None while there is enough."""
        return self._space.patient_until_s

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be drained that nothing new may be sent."""
        return self._is_renewing and self.drains.is_crowded

    @property
    def _is_renewing(self) -> bool:
        """Parts are of another input than the lines: nothing may go from these to those."""
        return self._renewing.renewal is not None

    def look(self) -> BatchllmError | None:
        """Whether there is space again."""
        return self._space.look(self._clock.monotonic_s())

    def save(self, records: Sequence[JournalRecord], unsure: int) -> None:
        """What the journal does not take any more goes elsewhere, until the next start."""
        self._spillover.save(records, self.counts, self._numbers, unsure)

    def expose(self, calls: int, usd: float | None) -> bool:
        """False where the disk had no space for it: the run is paused then, and the ballast is not for new calls."""
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE runs SET exposed_calls = max(exposed_calls, ?), exposed_usd = max(exposed_usd, ?)"
                    " WHERE run = ?",
                    (calls, usd, self._database.run),
                )
        except FullDiskError as error:
            self.meet_full_part(error)
            return False
        return True

    def unexpose(self) -> None:
        """Nothing is out any more. A full disk leaves what was said, which is more than there is."""
        with suppress(FullDiskError), self._database.transaction() as connection:
            connection.execute(
                "UPDATE runs SET exposed_calls = 0, exposed_usd = 0.0 WHERE run = ?", (self._database.run,)
            )

    def meet_full_part(self, error: FullDiskError) -> None:
        """A part did not fit, or something as little as one: pause."""
        self._space.meet_full_part(self._clock.monotonic_s(), error)

    def note_full(self, error: FullDiskError) -> None:
        """The same, where the run may be paused for it already."""
        if not self._space.is_short:
            self.meet_full_part(error)

    def demand(self, needed_bytes: int) -> None:
        """Raise FullDiskError, and pause, unless so much is free."""
        self._space.demand(self._clock.monotonic_s(), needed_bytes)

    def require(self, needed_bytes: int) -> None:
        """Raise FullDiskError unless so much is free: before the run."""
        self._space.require(needed_bytes)

    def _take_in(self) -> None:
        for path, numbers, missing in self._spillover.found(lambda: self.counts):
            harvester = self._harvester
            self._harvester = self._harvester_of(numbers)
            before = self.counts
            self._insert_all(missing)
            self._harvester = harvester
            self.finished.ok += self.counts.ok - before.ok
            self.finished.failed += self.counts.failed - before.failed
            self.finished.skipped += self.counts.skipped - before.skipped
            self.finished.spent_usd = self.counts.cost_usd
            self._spillover.remove(path, self.counts.ok - before.ok)
        self._spillover.settle()

    def _harvester_of(self, numbers: Sequence[int]) -> Harvester:
        return Harvester(self.finished, numbers, self._store.tables.of_row.samples)

    def _insert_all(self, records: Sequence[JournalRecord]) -> Harvest:
        try:
            harvest, counts = self._kept(records)
        except (UnicodeEncodeError, OverflowError):
            harvest, counts = self._kept(storable(records))
        self.finished.mark(harvest.units)
        self.counts = counts
        self.drains.note("output", len(harvest.results), harvest.answer_bytes)
        self.drains.note("failures", len(harvest.failures), harvest.failure_bytes)
        self.drains.note("usage", len(harvest.attempts))
        self.drains.note("skipped", len(harvest.skipped))
        return harvest

    def _kept(self, records: Sequence[JournalRecord]) -> tuple[Harvest, Counts]:
        """What was paid for may have the ballast."""
        try:
            return self._insert(records)
        except FullDiskError as error:
            if not self._space.meet_full(self._clock.monotonic_s(), error):
                raise
        return self._insert(records)

    def _insert(self, records: Sequence[JournalRecord]) -> tuple[Harvest, Counts]:
        harvest = self._harvester.gather(records)
        counts = self.counts.plus(harvest.added)
        with self._database.transaction() as connection:
            for table, lines in harvest.tables():
                start = 0
                for together, sql in statements(table):
                    while len(lines) - start >= together:
                        connection.execute(sql, flat(lines[start : start + together]))
                        start += together
            self._database.store_counts(connection, counts)
            lines = connection.execute(LINES).fetchone()[0]
        self._witness.note(lines)
        return harvest, counts
