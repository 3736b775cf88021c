"""A job, carried out in this process.

The order matters. What can be wrong with the job is found before the output folder is touched; the lock is taken
before the record is opened; the record says whether there is anything to do before a provider is started; and
everything that was opened is closed again whatever happens.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from batchllm.budget import Budget
from batchllm.clock import Clock, SystemClock
from batchllm.dispatch import Dispatcher, Ending, Lane, Polling
from batchllm.engine.again import price_again
from batchllm.engine.backfill import ones, open_rows
from batchllm.engine.beside import spent_beside
from batchllm.engine.collecting import collecting_seldom
from batchllm.engine.dedupe import Dedupe, InputTable, find_dedupe
from batchllm.engine.descriptors import most_connections
from batchllm.engine.footprint import check_room
from batchllm.engine.identity import identity_of, slots_of, way_of_reading
from batchllm.engine.intake import Intake
from batchllm.engine.interruption import shown_up, told_calls, told_interruption
from batchllm.engine.polling import early_votes_of, has_other_terms, polling_of, reopen
from batchllm.engine.signals import RemoteStop, stopping_on_signals
from batchllm.engine.simulators import simulators_of
from batchllm.engine.spreading import spreading_of
from batchllm.engine.summary import Figures, summarise, write_page
from batchllm.engine.watchdog import watching_loop
from batchllm.errors import BatchllmError, ChangedJobError, ExitCode
from batchllm.events import RunStats
from batchllm.journal import (
    DiskRules,
    Forgotten,
    Journal,
    Manifest,
    OutputLock,
    StoredJob,
    Tuning,
    finish_putting_aside,
    put_aside,
    read_manifest,
    stored_job,
)
from batchllm.journal.files import Layout, free_bytes, is_network_folder, read_mounts
from batchllm.limit.shared_limits import SharedLimits
from batchllm.limit.sharing import Membership, NoSharing, Sharing
from batchllm.plan import Planner
from batchllm.ports import Source
from batchllm.provider.overlay import open_catalogue
from batchllm.records import BadRow, Row
from batchllm.report.summary import RunSummary
from batchllm.retry import RetryPolicy
from batchllm.running import RunParts, Stop, carry_out, in_pieces, limited
from batchllm.spec.fingerprint import differences, semantic_sections
from batchllm.spec.loading import LoadedJob
from batchllm.task import reasking
from batchllm.wiring import CheckedJob, Frame, build_lanes, check, mark_simulated

Watch = Callable[[RunStats, str], AbstractContextManager[None]]


def _silence(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, apart from the job. `watch` shows the counters while the run goes; `say` gets single lines.

    `retries_failed`: only rows that failed. `only_missing`: only rows without an outcome, not changed ones. On another
    job's record, `new_run` puts it aside and `keep_old` leaves its answers as they are. `spends_anew`: the budget is
    of this start alone.
    """

    limit: int | None = None
    retries_failed: bool = False
    only_missing: bool = False
    new_run: bool = False
    keep_old: bool = False
    spends_anew: bool = False
    watch: Watch = lambda _stats, _title: nullcontext()
    say: Callable[[str], None] = _silence
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Clock = field(default_factory=SystemClock)
    remote: RemoteStop = field(default_factory=RemoteStop, repr=False)


def execute(loaded: LoadedJob, options: Options, *, frame: object | None = None) -> RunSummary:
    """Run a job to its end; raises a BatchllmError for what keeps it from starting or from being kept."""
    checked = check(
        loaded,
        catalogue=open_catalogue(options.environ),
        environ=options.environ,
        clock=options.clock,
        frame=frame,
    )
    out = Path(str(checked.job.output.path))
    with OutputLock.acquire(out, about={"started": options.clock.wall_s(), "job": checked.job.name}):
        run = _Run(checked, options, out)
        summary = run.execute()
        if checked.motion is None:
            return summary
        from batchllm.engine.concluding import conclude  # which most jobs do not need

        return conclude(
            checked,
            summary,
            lambda nested, source: _execute_nested(nested, options, source),
            spent_usd=run.spent_before_usd + (summary.cost_usd or 0.0),
            clock=options.clock,
            say=options.say,
            again=options.retries_failed,
        )


def _execute_nested(loaded: LoadedJob, options: Options, source: Source) -> RunSummary:
    """A job of a lane that is asked beside the voters. Where it has changed, what was asked before is put aside."""
    checked = check(
        loaded,
        catalogue=open_catalogue(options.environ),
        environ=options.environ,
        clock=options.clock,
        source=source,
    )
    out = Path(str(checked.job.output.path))
    with OutputLock.acquire(out, about={"started": options.clock.wall_s(), "job": checked.job.name}):
        before = stored_job(out)
        changed = before is not None and differences(before.sections, semantic_sections(checked.job))
        own = replace(
            options, limit=None, new_run=bool(changed), keep_old=False, only_missing=False, spends_anew=True
        )
        return _Run(checked, own, out).execute()


class _Run:
    """One start of a job whose output is locked."""

    def __init__(self, checked: CheckedJob, options: Options, out: Path) -> None:
        self._checked = replace(checked, lanes=mark_simulated(checked.lanes))
        self._options = options
        self._out = out
        self._sections = semantic_sections(checked.job)
        self._votes = early_votes_of(checked)
        self._stats = RunStats(phase="reading")
        self._intake = Intake(checked.source, checked.task, out, only_missing=options.only_missing)
        self._again: Forgotten | None = None
        self._dedupe: Dedupe | None = None
        self._copied = 0
        self._table = InputTable(0)
        self._started_s = options.clock.monotonic_s()
        self.spent_before_usd = 0.0

    def execute(self) -> RunSummary:
        finish_putting_aside(Layout(self._out))
        self._meet_old_record()
        with self._opened() as journal:
            self._note_unknown_files(journal)
            manifest = read_manifest(self._out)
            is_wanted = self._options.retries_failed and journal.counts.failed
            if (
                manifest is not None
                and manifest.complete
                and not is_wanted
                and not has_other_terms(journal, self._votes)
                and self._intake.is_settled(journal)
            ):
                self.spent_before_usd = journal.spending.most_usd
                return self._summary(Ending(_settled_code(manifest)), manifest)
            self._table = table = self._taken_in(journal)
            reopen(journal, self._votes)
            if self._options.retries_failed:
                self._again = journal.forget_failures()
            self._dedupe = self._repeats(journal, table)
            runners = asyncio.Runner(loop_factory=_loop_factory())
            with simulators_of(self._checked.lanes) as base_urls, runners as runner:
                ending, manifest = runner.run(self._go(journal, table.rows, base_urls))
        summary = self._summary(ending, manifest)
        try:
            write_page(summary, self._out)
        except OSError as error:
            self._options.say(f"the summary could not be written to {self._out}: {error.strerror or error}")
        return summary

    def _repeats(self, journal: Journal, table: InputTable) -> Dedupe | None:
        """Rows that need not be asked, for another one asks the same."""
        job = self._checked.job
        if not (job.task.type == "embedding" if job.dedupe is None else job.dedupe):
            return None
        found = find_dedupe(
            self._checked.source,
            self._checked.task,
            journal,
            table=table,
            batches=self._batches(journal)(),
            asks_begun=self._votes is not None,
        )
        return found if len(found) else None

    def _finish(self, journal: Journal) -> None:
        self._checked.source.check_unchanged()
        journal.note_input_read_whole()
        if self._dedupe is not None:
            copied = self._dedupe.fill(journal)
            self._stats.ok += copied.ok
            self._stats.failed += copied.failed
            self._stats.skipped += copied.skipped
            self._copied = copied.ok + copied.failed

    def _meet_old_record(self) -> None:
        """Another job's answers are never taken for this one's: refused, put aside or kept, as the options say."""
        before = stored_job(self._out)
        if before is None or self._options.keep_old:
            return
        changes = differences(before.sections, self._sections)
        if self._options.new_run:
            self._put_aside(bool(changes))
        elif changes:
            raise ChangedJobError(
                f"the answers in {self._out} were made with another job:\n    " + "\n    ".join(changes),
                remedy=self._ways_on(before),
            )

    def _put_aside(self, is_changed: bool) -> None:
        manifest = read_manifest(self._out)
        if not is_changed and (manifest is None or not manifest.complete):
            self._options.say(
                "the record is of this very job and not complete, so --new-run goes on with it; to begin once more,"
                f" move {self._out} away"
            )
            return
        where = put_aside(Layout(self._out), self._options.clock.wall_s())
        self._options.say(f"the old record was put aside: {where}; remove it when it is not needed any more")

    def _ways_on(self, before: StoredJob) -> str:
        counts = before.counts
        again = price_again(counts, self._checked.lanes)
        reparse = way_of_reading(before.sections, self._sections)
        return (
            f"{reparse}undo the change; or start with --new-run: all rows again, {again}, and the old record is put"
            f" aside; or with --keep-old: the {counts.ok:,} answers stay as they are, and only rows without an outcome"
            " are asked"
        )

    def _note_unknown_files(self, journal: Journal) -> None:
        """Whoever reads the folders as they are would read these, too; they are not ours to remove."""
        if journal.unknown_files:
            names = ", ".join(str(path) for path in journal.unknown_files[:5])
            self._options.say(
                f"files that this output does not know lie among its own: {names}; move them away"
            )

    @contextmanager
    def _opened(self) -> Iterator[Journal]:
        checked = self._checked
        journal = Journal.open(
            self._out,
            identity=identity_of(checked.job),
            lanes=[lane.info for lane in checked.lanes],
            slots=self._slots,
            samples=checked.job.samples,
            task=checked.task,
            shape=checked.source.shape,
            clock=self._options.clock,
            keeps_old=self._options.keep_old,
            tuning=Tuning(
                disk=DiskRules.of(
                    self._out,
                    wait_s=checked.job.disk_wait_s,
                    say=self._options.say,
                    environ=self._options.environ,
                )
            ),
        )
        code = ExitCode.OK
        try:
            yield journal
        except BatchllmError as error:
            code = error.exit_code
            raise
        except BaseException as error:
            code = ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.BUG
            raise
        finally:
            # A run that got as far as its loop has closed it there, with its own exit code.
            asyncio.run(journal.close(clean=True, exit_code=code))

    def _taken_in(self, journal: Journal) -> InputTable:
        """The rows of the input, once the record is that of this very input."""
        table = self._intake.take_in(journal)
        self._check_room(journal, table)
        self._report_interruption(journal)
        if not table.rows:
            paths = self._checked.job.input.path
            shown = paths if isinstance(paths, str) else ", ".join(paths)
            self._options.say(f"the input {shown} has no rows: the output is complete and empty")
        return table

    def _check_room(self, journal: Journal, table: InputTable) -> None:
        rows = table.rows if self._options.limit is None else min(table.rows, self._options.limit)
        answers = max(0, rows * self._slots - journal.counts.settled)
        check_room(self._out, self._checked.task, answers, free_bytes(self._out), self._options.say)

    def _report_interruption(self, journal: Journal) -> None:
        if journal.interrupted is not None and journal.interrupted.calls:
            self._options.say(told_interruption(journal.interrupted))

    async def _go(self, journal: Journal, rows: int, base_urls: Mapping[int, str]) -> tuple[Ending, Manifest]:
        sharing = self._sharing()
        try:
            members = [await sharing.join(plan.pool) for plan in self._checked.lanes]
            return await self._go_on(journal, rows, self._lanes(base_urls, members))
        finally:
            await sharing.close()

    def _sharing(self) -> Sharing:
        """Simulators inside this process have their limits for themselves."""
        if all(plan.is_embedded for plan in self._checked.lanes):
            return NoSharing()
        return SharedLimits.open(
            say=self._options.say,
            environ=self._options.environ,
            is_network=lambda folder: is_network_folder(folder, read_mounts()),
            clock=self._options.clock,
        )

    def _lanes(self, base_urls: Mapping[int, str], members: Sequence[Membership]) -> list[Lane]:
        checked = self._checked
        return build_lanes(
            checked.lanes,
            Frame(
                task=checked.task,
                retry=checked.job.retry,
                clock=self._options.clock,
                prompt_margin=checked.prompt_margin,
                most_in_flight=max(1, most_connections() // len(checked.lanes)),
                say=self._options.say,
                keeps_bodies=checked.keeps_bodies,
                reask=reasking(checked.job.task),
            ),
            base_urls=base_urls,
            members=members,
        )

    async def _go_on(self, journal: Journal, input_rows: int, lanes: list[Lane]) -> tuple[Ending, Manifest]:
        checked, stats = self._checked, self._stats
        stats.lanes = [lane.stats for lane in lanes]
        rows = input_rows if self._options.limit is None else min(input_rows, self._options.limit)
        stats.reused, stats.failed_before, stats.skipped_before = self._finished_before(journal, rows)
        stats.total = rows * self._slots if self._again is None else stats.finished + self._again.units
        parts = self._parts(journal, lanes, input_rows, rows)
        stop = Stop()
        loop = asyncio.get_running_loop()
        self._options.remote.bind(loop, stop)
        try:
            with (
                collecting_seldom(),
                stopping_on_signals(
                    loop,
                    stop,
                    in_flight=lambda: parts.dispatcher.in_flight,
                    is_finishing=lambda: stats.phase == "finishing",
                    say=self._options.say,
                ),
                watching_loop(
                    loop,
                    say=self._options.say,
                    show=lambda: self._options.say(told_calls(parts.dispatcher.calls())),
                ),
                self._options.watch(stats, checked.job.name),
            ):
                return await carry_out(parts, stop)
        finally:
            for lane in lanes:
                lane.limits.leave()
                lane.window.close()
            await asyncio.gather(*(lane.provider.close() for lane in lanes))

    def _parts(self, journal: Journal, lanes: list[Lane], input_rows: int, rows: int) -> RunParts:
        checked, job = self._checked, self._checked.job
        budget = None if job.budget is None else self._budget(job.budget.usd, journal)
        dispatcher = Dispatcher(
            lanes,
            recorder=journal,
            policy=RetryPolicy(job.retry.max_attempts, job.retry.backoff_s, job.retry.max_backoff_s),
            stats=self._stats,
            clock=self._options.clock,
            in_order=job.routing == "fallback",
            budget=budget,
            say=self._options.say,
            spreading=spreading_of(journal, job.samples) if self._slots > 1 else None,
            slots=self._slots,
            polling=self._polling(journal, input_rows),
        )
        planner = Planner(
            checked.task,
            checked.starting_counter(),
            max_inputs=checked.max_inputs,
            max_tokens=checked.max_tokens,
            max_request_tokens=None if checked.most_tokens is None else int(checked.most_tokens),
            is_finished=self._is_finished(journal),
            ruler=checked.ruler,
        )
        return RunParts(
            batches=self._batches(journal),
            planner=planner,
            journal=journal,
            dispatcher=dispatcher,
            stats=self._stats,
            clock=self._options.clock,
            units=input_rows * self._slots,
            is_whole=rows == input_rows and self._is_all(journal, input_rows),
            drain_timeout_s=job.drain_timeout_s,
            finish=lambda: self._finish(journal),
        )

    def _budget(self, limit_usd: float, journal: Journal) -> Budget:
        """What is left of it, whatever became of the calls that kills cut off."""
        before, say = journal.spending, self._options.say
        if before.exposed_usd:
            say(
                f"calls that were cut off may have cost up to ${shown_up(before.exposed_usd)}, which counts against"
                " the budget"
            )
        unknown = [] if before.exposed_usd is not None else ["calls that were cut off"]
        if journal.counts.uncertain:
            unknown.append(f"{journal.counts.uncertain:,} calls of earlier runs")
        if unknown:
            say(
                f"{' and '.join(unknown)} may have been paid for without an answer; what they cost is not known and"
                " not counted against the budget"
            )
        if self._options.spends_anew:
            return Budget(limit_usd)
        self.spent_before_usd = before.most_usd
        return Budget(limit_usd, before.most_usd + spent_beside(self._out, journal.input_digest))

    def _batches(self, journal: Journal) -> Callable[[], Iterator[Sequence[Row | BadRow]]]:
        """What the run reads: after an earlier one only what is left, without a look at the other rows."""
        source, limit, table = self._checked.source, self._options.limit, self._table
        wanted, at_once = self._wanted(journal), self._checked.rows_at_once
        if wanted is None:
            return lambda: in_pieces(limited(source.batches(), limit), at_once)
        return lambda: in_pieces(source.chosen(wanted, table.file_rows), at_once)

    def _wanted(self, journal: Journal) -> bytearray | None:
        """A byte for each row: 1 for those that are to be asked. None: all of them, up to the limit."""
        limit, table = self._options.limit, self._table
        if not journal.counts.ok + journal.counts.failed and self._dedupe is None and self._again is None:
            return None
        wanted = open_rows(journal.finished.rows(table.rows), table.rows, limit)
        is_finished = self._is_finished(journal)
        if self._dedupe is not None or self._again is not None:
            for row in ones(wanted):
                wanted[row] = not is_finished(row)
        return wanted

    def _is_finished(self, journal: Journal) -> Callable[[int], bool]:
        """What need not be asked. With --retry-failed that is all that had not failed."""
        again, has_row = self._again, journal.finished.has_row
        if self._dedupe is not None:
            is_later = self._dedupe.is_later
            return lambda row: has_row(row) or bool(is_later[row]) or (again is not None and row not in again)
        if again is None:
            return has_row
        return lambda row: has_row(row) or row not in again

    def _is_all(self, journal: Journal, input_rows: int) -> bool:
        """Whether the run, if it ends well, leaves no row without an outcome."""
        if self._again is None:
            return True
        counts = journal.counts
        return counts.settled + self._again.units == input_rows * self._slots

    def _polling(self, journal: Journal, input_rows: int) -> Polling | None:
        votes, checked = self._votes, self._checked
        if votes is None:
            return None
        return polling_of(votes, checked.task, journal, input_rows, samples=checked.job.samples)

    def _finished_before(self, journal: Journal, rows: int) -> tuple[int, int, int]:
        """Answers, failures and skipped units of earlier runs among the first `rows`."""
        counts = journal.counts
        if self._options.limit is None:
            return counts.ok, counts.failed, counts.skipped
        return journal.finished_among(rows)

    @property
    def _slots(self) -> int:
        return slots_of(self._checked.job)

    def _summary(self, ending: Ending, manifest: Manifest) -> RunSummary:
        return summarise(
            Figures(
                job=self._checked.job.name,
                out=self._out,
                cwd=Path.cwd(),
                python=Path(sys.executable),
                limit=self._options.limit,
                slots=self._slots,
                seconds=self._options.clock.monotonic_s() - self._started_s,
                notes=self._checked.notes,
                changes={} if self._intake.changes is None else asdict(self._intake.changes),
                copied=self._copied,
            ),
            ending,
            manifest,
            self._stats,
        )


def _settled_code(manifest: Manifest) -> ExitCode:
    return ExitCode.ROWS_FAILED if manifest.failed else ExitCode.OK


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
