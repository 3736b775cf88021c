"""The record of one output folder: what `batchllm.ports.Recorder` is while a run goes on, and what seals it.

A unit of work is finished when the commit that holds its outcome has returned, not before: `counts`, `finished` and
the callback of `start` know committed records only. The rest of this package says how that is kept true.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from batchllm.clock import Clock
from batchllm.errors import FullDiskError
from batchllm.journal.carries import Carries
from batchllm.journal.committing import Committing
from batchllm.journal.copies import Copied, CopyRequests
from batchllm.journal.database import Counts, Database, store_meta
from batchllm.journal.files import (
    Layout,
    is_on_network,
    make_folders,
    mapped_faults,
)
from batchllm.journal.finished import Finished
from batchllm.journal.forgetting import Forgotten
from batchllm.journal.identity import Identity, adopt, register_lanes, slot_lanes
from batchllm.journal.inputs import InputRecord, InputState
from batchllm.journal.interrupted import interrupted
from batchllm.journal.known import known_hashes, known_rows
from batchllm.journal.manifest import Manifest
from batchllm.journal.merge import never
from batchllm.journal.mover import Run
from batchllm.journal.opening import create_database, open_database
from batchllm.journal.parts import Store, read_part
from batchllm.journal.recall import lines_among, recall, rows_end
from batchllm.journal.recovery import recover
from batchllm.journal.renewal import Renewal
from batchllm.journal.renewing import Renewing
from batchllm.journal.sealing import (
    check_manifest,
    is_complete,
    mark_incomplete,
    save_manifest,
)
from batchllm.journal.space import DiskRules
from batchllm.journal.spending import Spending, spending
from batchllm.journal.tables import Tables, table_schemas
from batchllm.journal.tuning import Tuning
from batchllm.journal.upkeep import Upkeep
from batchllm.journal.writer import QueueLimits, Writer
from batchllm.matching import Marks
from batchllm.ports import Shape, Task
from batchllm.records import JournalRecord, Key, LaneInfo

T = TypeVar("T")


class Journal:
    """One at a time for an output folder, under its `OutputLock`. Made by `open`."""

    def __init__(self, store: Store, *, numbers: Sequence[int], clock: Clock, tuning: Tuning) -> None:
        self._store = store
        self._database: Database = store.database
        self._clock = clock
        self._input = InputRecord(store.database, store.layout)
        self._database.fence()
        self._renewing = Renewing(store, clock.wall_s)
        self.unknown_files = recover(store, lambda: save_manifest(store, clock.wall_s()))
        self._finish_renewal(tuning.disk.say)
        finished = recall(store, self._database.counts())
        self.interrupted = interrupted(self._database)
        self.work = Committing(store, self._renewing, finished, numbers=numbers, clock=clock, tuning=tuning)
        self._upkeep = Upkeep(store, self.work, clock)
        self._writer = Writer(self.work, _fitting(tuning.queue, tuning.disk))
        self._is_closed = False

    @classmethod
    def open(  # noqa: PLR0913 - what a record is made of is nine things; the tenth is for tests
        cls,
        out: Path,
        *,
        identity: Identity,
        lanes: Sequence[LaneInfo],
        slots: int,
        samples: int = 1,
        task: Task,
        shape: Shape,
        clock: Clock,
        keeps_old: bool = False,
        tuning: Tuning | None = None,
    ) -> "Journal":
        """Create the record, or take up the one that is there, finishing what a killed run left half done.

        Raises ChangedJobError (another job's answers), StorageError (damaged, foreign, a part is missing, disk
        full) and OutputError (results without their journal). In none of these cases anything is overwritten.
        """
        tuning = tuning or Tuning()
        layout = Layout(out)
        make_folders(layout)
        with mapped_faults("open", out), ExitStack() as undo:
            if not os.path.lexists(layout.database):
                create_database(layout)
            database = open_database(
                layout,
                is_network=is_on_network(layout),
                max_page_count=tuning.max_page_count,
                say=tuning.disk.say,
            )
            undo.callback(database.close)
            check_manifest(database, layout)
            adopt(
                database,
                identity,
                lanes=lanes,
                slots=slots,
                samples=samples,
                schemas=table_schemas(task, shape, samples=samples, keeps_bodies=identity.keeps_bodies),
                created_s=clock.wall_s(),
                keeps_old=keeps_old,
            )
            numbers, known = register_lanes(database, lanes)
            tables = Tables(
                task,
                shape,
                known,
                slot_lanes(lanes, slots, samples),
                samples=samples,
                keeps_bodies=identity.keeps_bodies,
            )
            store = Store(database, layout, tables, tuning.sizes, tuning.fault)
            journal = cls(store, numbers=numbers, clock=clock, tuning=tuning)
            journal.work.begin(identity.version)
            undo.pop_all()
        return journal

    @property
    def counts(self) -> Counts:
        """All that is committed, of this run and the earlier ones."""
        return self.work.counts

    @property
    def finished(self) -> Finished:
        """The units that have their outcome."""
        return self.work.finished

    @property
    def spending(self) -> Spending:
        """What the present input has cost, and may have cost, before this run."""
        return self._writer.call(lambda: spending(self._database))

    @property
    def input_digest(self) -> str | None:
        """The input that the outcomes and the calls belong to, empty when nobody knows any more which it was.

        None as long as there are neither, for then any input will do.
        """
        if not self.counts.ok + self.counts.failed + self.counts.attempts:
            return None
        return self._writer.call(lambda: self._input.digest) or ""

    @property
    def input_stamps(self) -> str | None:
        """What `set_input` was given, to tell cheaply whether the input is still the same."""
        return self._writer.call(lambda: self._input.stamps_json)

    @property
    def is_mixed(self) -> bool:
        """Whether answers of an earlier version of the job were kept on purpose."""
        return self._writer.call(lambda: self._database.meta("mixed")) == "1"

    @property
    def input_rows(self) -> int:
        """Of the input that the outcomes belong to; more where outcomes stand beyond its end."""
        return self._writer.call(lambda: max(self._input.rows, rows_end(self._store)))

    @property
    def is_input_certain(self) -> bool:
        """Whether what was read for the outcomes is certain to be what the digest and the marks are of."""
        return self._writer.call(lambda: self._input.is_certain)

    def note_input_read_whole(self) -> None:
        self._called(self._input.store_certain)

    @property
    def input_stale(self) -> int:
        """So many rows keep the answer of an earlier version of theirs."""
        return self._writer.call(lambda: self._input.stale)

    @property
    def input_basis(self) -> str | None:
        """What the marks are of that are kept; None when there are none."""
        return self._writer.call(lambda: self._input.basis)

    def input_marks(self, basis: str) -> Marks | None:
        """The marks of the input that the outcomes belong to, if they compare with marks of this basis."""
        return self._writer.call(lambda: self._input.marks(basis))

    def set_input(self, state: InputState) -> None:
        self._called(lambda: self._input.store(state))

    def set_input_stamps(self, stamps_json: str) -> None:
        """The same input with other stamps, such as a copy."""
        self._called(lambda: self._input.store_stamps(stamps_json))

    def known_rows(self, keys: pa.Array) -> Iterator[pa.RecordBatch]:
        """Key, `row` and `request_hash` of what was answered or failed under `keys`, batch by batch. Before `start`."""
        self.settle()
        self._called(self._upkeep.drain_all)
        with self._mapped():
            yield from known_rows(self._store, keys)

    def key_column(self, keys: Sequence[Key]) -> pa.Array:
        """Keys as `known_rows` has them."""
        return self._store.tables.keys(keys)

    @property
    def skip_terms(self) -> str | None:
        """By which terms of a vote units were skipped, as `set_skip_terms` was told; None where none ever were."""
        return self._writer.call(lambda: self._database.meta("skip_terms"))

    def set_skip_terms(self, terms: str) -> None:
        """What the next skipped units go by. Before `start`, and only once those of other terms are pending again."""

        def store() -> None:
            with self._database.transaction() as connection:
                store_meta(connection, "skip_terms", terms)

        self._called(store)

    def reopen_skipped(self, *, all_of_them: bool) -> int:
        """Make skipped units pending again: all, or those of rows that lack another outcome. Before `start` only.

        Returns how many; `finished` is another object afterwards.
        """
        if self.counts.skipped:
            self.settle()
        return self._called(lambda: self._upkeep.reopen(all_of_them=all_of_them))

    def known_answers(self, columns: Sequence[str]) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
        """The unit of each answer, and these columns of it, batch by batch. Before `start` only."""
        self._drain_lines()
        tables, renewal = self._store.tables, self._renewing.renewal
        wanted = list(dict.fromkeys((*tables.of_row.columns, *columns)))
        with self._mapped():
            for part in self._store.parts("output"):
                for batch in read_part(self._store, part, wanted, 1 << 16) if part.rows else ():
                    now = batch if renewal is None else renewal.moved(batch)
                    yield tables.units(now), now.select(list(columns))

    def carries(self) -> Carries:
        """A place for what `renew` is to put in the place of carried values. To be closed."""
        return Carries(self._store.layout.state)

    def renew(self, renewal: Renewal, state: InputState) -> None:
        """From now on the record of another input; those of its rows that are gone leave it. Before `start` only.

        `finished` is another object afterwards. Rows that stand elsewhere move while the run goes on: see `settle`.
        """
        self._called(lambda: self._upkeep.renew(renewal, self._renewing, self._input, state))

    def settle(self, is_late: Callable[[], bool] = never) -> bool:
        """Wait until all parts are those of the present input; False once it `is_late`, which leaves it to the next
        start. Blocks; callable from any thread. What reads whole parts does this by itself.
        """
        with self._mapped():
            return self._renewing.settle(is_late)

    async def expose(self, calls: int, usd: float | None) -> None:
        """So many calls may be out from now on, worth so much at most. Returns when that is committed.

        For a run that was started. What was said before stands until `unexpose`: max() of a NULL is NULL.
        """

        while not await self._writer.perform(lambda: self.work.expose(calls, usd)):
            await self.room()

    async def unexpose(self) -> None:
        """All calls are home, and what they brought was flushed: a kill from now on has cost nothing."""
        await self._writer.perform(self.work.unexpose)

    def start(
        self, loop: asyncio.AbstractEventLoop, on_commit: Callable[[Counts], None] | None = None
    ) -> None:
        """Begin to write. `on_commit` hears the counts on the loop's thread, after commits."""
        if is_complete(self._database):
            mark_incomplete(self._store, self._clock.wall_s())
        self._writer.start(loop, None if on_commit is None else lambda: on_commit(self.counts))
        self._renewing.start(
            Run(
                call=self._writer.call,
                pause=self.work.note_full,
                is_short=lambda: self.work.is_short,
                told=self._writer.tell,
                fail=self._writer.fail,
            )
        )

    def put(self, records: Sequence[JournalRecord]) -> None:
        self._writer.put(records)

    def watch(self, committed: Callable[[int], None]) -> None:
        self._writer.watch(committed)

    @property
    def has_room(self) -> bool:
        return self._writer.has_room

    @property
    def progress(self) -> tuple[int, int]:
        """How many records of this run are committed, and how many wait for that. Callable from any thread."""
        return self._writer.progress

    @property
    def patient_until_s(self) -> float | None:
        """When the run ends for want of space on the disk; None while there is enough. Callable from any thread."""
        return self.work.patient_until_s

    async def room(self) -> None:
        await self._writer.room()

    async def pause(self, error: FullDiskError) -> None:
        """Have no room until there is more space: whatever met the full disk may then be done again."""
        await self._writer.perform(lambda: self.work.note_full(error))

    async def flush(self) -> None:
        """Return when everything put so far is committed. Raises what went wrong in the writer."""
        await self._writer.flush()

    def known_hashes(self, prefixes: pa.Array | None) -> Iterator[pa.RecordBatch]:
        """`row` and `request_hash` of all answers, or of those whose hash begins with one of `prefixes` (of one
        length). Before `start` only.
        """
        self._drain_lines()
        with self._mapped():
            yield from known_hashes(self._store, prefixes, self._renewing.renewal)

    def copy_outcomes(self, requests: CopyRequests) -> Copied:
        """Give rows the outcomes of others that asked the same. After `flush`, while nothing is being put."""
        self.settle()
        return self._called(lambda: self._upkeep.copy_outcomes(requests))

    def finished_among(self, rows: int) -> tuple[int, int, int]:
        """Answers, failures and skipped units of the first `rows` rows. Before `start` only."""
        renewal = self._renewing.renewal
        ok = self._called(lambda: lines_among(self._store, "output", rows, renewal))
        skipped = self._called(lambda: lines_among(self._store, "skipped", rows, renewal))
        return ok, self.finished.marked_in(0, rows * self.finished.slots) - ok - skipped, skipped

    def forget_failures(self) -> Forgotten:
        """Make all failed units pending again; their attempts stay in usage/.

        Returns which, with those that an earlier start has made so and that nobody has asked since. To be called before
        `start`; `finished` is another object afterwards.
        """
        self.settle()
        return self._called(self._upkeep.forget_failures)

    def seal(self) -> Manifest:
        """Everything into parts, and a manifest that says that more is to come. Blocks; callable from any thread.

        After a `settle` that was late parts and manifest stay as they are, and what it returns is written nowhere.
        """
        if self._renewing.is_given_up or not self.settle():
            return self._called(self._upkeep.manifest)
        return self._sealing(self._upkeep.seal)

    def complete(self, expected_units: int, is_late: Callable[[], bool] = never) -> Manifest:
        """Everything into parts in input order, and a manifest that says that this is all. Blocks like `seal`.

        Raises InvariantError unless each of `expected_units` has its outcome. Once `is_late` nobody waits for the
        order any more: then it is `seal`.
        """
        if not self.settle(is_late):
            return self.seal()
        return self._sealing(lambda: self._upkeep.complete(expected_units, is_late))

    @property
    def has_lines(self) -> bool:
        """Whether something is in no part yet."""
        return self.work.drains.has_lines

    def rewrite(self, work: Callable[[Store], T]) -> T:
        """Let `work` change the sealed parts; before `start`, and nothing but `close` comes after it."""
        return self._called(lambda: work(self._store))

    async def close(self, clean: bool, exit_code: int) -> None:
        """Commit what is queued, end the writer and this run's line. `clean`: no call was left in flight.

        Raises what went wrong in the writer unless `room` or `flush` did already.
        """
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.to_thread(self._renewing.stop)
        await self._writer.stop()
        error = self._writer.error
        try:
            self.work.end(clean=clean and error is None, exit_code=exit_code)
        except FullDiskError:
            if error is None:  # else that one says it
                raise
        finally:
            self._database.close()
        if not self._writer.is_error_known:
            self._writer.raise_error()

    def _called(self, work: Callable[[], T]) -> T:
        with self._mapped():
            return self._writer.call(work)

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped_faults("write", self._store.layout.out)

    def _drain_lines(self) -> None:
        """Into parts; while a renewal is pending there are none before `start`."""
        if self._renewing.renewal is None:
            self._called(self._upkeep.drain_all)

    def _finish_renewal(self, say: Callable[[str], None]) -> None:
        """What a run before could not do to its end."""
        if self._renewing.renewal is not None:
            say("rows are moved to their places in the changed input, which an earlier run had begun")
            self._renewing.settle()

    def _sealing(self, work: Callable[[], Manifest]) -> Manifest:
        """A part that does not fit pauses the run too: with more space, `work` may be done again."""
        try:
            return self._called(work)
        except FullDiskError as error:
            short = error  # `error` is gone when the block ends
            self._writer.call(lambda: self.work.meet_full_part(short))
            raise


def _fitting(queue: QueueLimits, disk: DiskRules) -> QueueLimits:
    """No more may be queued than the ballast makes room for, once in the WAL and once in the tables."""
    return replace(queue, bytes=min(queue.bytes, disk.ballast_bytes // 2)) if disk.ballast_bytes else queue
