"""A job, carried out in this process.

The order matters. What can be wrong with the job is found before the output folder is touched; the lock is taken
before the record is opened; the record says whether there is anything to do before a provider is started; and
everything that was opened is closed again whatever happens.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from batchllm.budget import Budget
from batchllm.dispatch import Dispatcher, Ending, Lane, Polling
from batchllm.engine.asking import Asking
from batchllm.engine.beside import spent_beside
from batchllm.engine.collecting import collecting_seldom
from batchllm.engine.dedupe import Dedupe, InputTable, find_dedupe
from batchllm.engine.descriptors import check_descriptors, most_connections
from batchllm.engine.footprint import check_room
from batchllm.engine.heartbeat import Heartbeat, beating
from batchllm.engine.identity import identity_of, slots_of
from batchllm.engine.intake import Intake
from batchllm.engine.interruption import tell_uncertain, told_calls, told_interruption
from batchllm.engine.looking import RunLook
from batchllm.engine.old_record import meet_old_record
from batchllm.engine.options import Options
from batchllm.engine.polling import early_votes_of, has_other_terms, polling_of, reopen
from batchllm.engine.signals import stopping_on_signals
from batchllm.engine.simulators import simulators_of
from batchllm.engine.spreading import spreading_of
from batchllm.engine.summary import Figures, summarise, write_page
from batchllm.engine.watchdog import watching_loop
from batchllm.errors import BatchllmError, ExitCode
from batchllm.events import RunStats
from batchllm.journal import (
    DiskRules,
    Forgotten,
    Journal,
    Manifest,
    OutputLock,
    Tuning,
    finish_putting_aside,
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
from batchllm.running import RunParts, Stop, carry_out
from batchllm.spec.fingerprint import differences, semantic_sections
from batchllm.spec.loading import LoadedJob
from batchllm.task import reasking
from batchllm.wiring import CheckedJob, Frame, build_lanes, check, mark_simulated


def execute(loaded: LoadedJob, options: Options, *, frame: object | None = None) -> RunSummary:
    """Run a job to its end; raises a BatchllmError for what keeps it from starting or from being kept."""
    check_descriptors()
    checked = check(
        loaded,
        catalogue=open_catalogue(options.environ),
        environ=options.environ,
        clock=options.clock,
        frame=frame,
    )
    with _locked(checked, options) as (out, heart):
        run = _Run(checked, options, out, heart)
        summary = run.execute()
        if checked.motion is not None:
            from batchllm.engine.concluding import conclude  # which most jobs do not need

            run.note_agreeing()
            summary = conclude(
                checked,
                summary,
                lambda nested, source: _execute_nested(nested, options, source),
                spent_usd=run.spent_before_usd + (summary.cost_usd or 0.0),
                clock=options.clock,
                say=options.say,
                again=options.retries_failed,
            )
        heart.ended(ExitCode(summary.exit_code))
        return summary


def _execute_nested(loaded: LoadedJob, options: Options, source: Source) -> RunSummary:
    """A job of a lane that is asked beside the voters. Where it has changed, what was asked before is put aside."""
    checked = check(
        loaded,
        catalogue=open_catalogue(options.environ),
        environ=options.environ,
        clock=options.clock,
        source=source,
    )
    with _locked(checked, options) as (out, heart):
        before = stored_job(out)
        changed = before is not None and differences(before.sections, semantic_sections(checked.job))
        summary = _Run(checked, options.nested(is_changed=bool(changed)), out, heart).execute()
        heart.ended(ExitCode(summary.exit_code))
        return summary


@contextmanager
def _locked(checked: CheckedJob, options: Options) -> Iterator[tuple[Path, Heartbeat]]:
    """The output, which is ours alone meanwhile, and the heartbeat that it has by now."""
    out, job, started = Path(str(checked.job.output.path)), checked.job.name, options.clock.wall_s()
    with (
        OutputLock.acquire(out, about={"started": started, "job": job}),
        beating(out, job=job, started=started, every_s=options.beat_s, say=options.say) as heart,
    ):
        yield out, heart


class _Run:
    """One start of a job whose output is locked."""

    def __init__(self, checked: CheckedJob, options: Options, out: Path, heart: Heartbeat) -> None:
        self._checked = replace(checked, lanes=mark_simulated(checked.lanes))
        self._options = options
        self._out = out
        self._votes = early_votes_of(checked)
        self._stats = RunStats(phase="reading")
        self._intake = Intake(checked.source, checked.task, out, only_missing=options.only_missing)
        self._again: Forgotten | None = None
        self._dedupe: Dedupe | None = None
        self._copied = 0
        self._table = InputTable(0)
        self._started_s = options.clock.monotonic_s()
        self.spent_before_usd = 0.0
        self._look = RunLook(self._stats, self._slots, self._checked.job.drain_timeout_s)
        heart.follow(self._look)

    def note_agreeing(self) -> None:
        """The answers are there; what they agree on is not."""
        self._stats.phase = "agreeing"

    def execute(self) -> RunSummary:
        finish_putting_aside(Layout(self._out))
        meet_old_record(self._checked, self._options, self._out)
        with self._opened() as journal:
            self._note_unknown_files(journal)
            manifest = read_manifest(self._out)
            is_wanted = self._options.retries and journal.counts.failed
            if (
                manifest is not None
                and manifest.complete
                and _tells_of(manifest, journal)
                and not is_wanted
                and not has_other_terms(journal, self._votes)
                and self._intake.is_settled(journal)
            ):
                self.spent_before_usd = journal.spending.most_usd
                return self._summary(Ending(_settled_code(manifest)), manifest)
            self._table = table = self._taken_in(journal)
            reopen(journal, self._votes)
            if self._options.retries_failed:
                again = journal.forget_failures()
                self._again = again if self._votes is not None else again.alone()
            elif is_wanted:
                journal.forget_failures()
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
        self._look.journal = journal
        try:
            yield journal
        except BatchllmError as error:
            code = error.exit_code
            raise
        except BaseException as error:
            code = _code_of(error)
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
                most_open=most_connections(two_ends=any(plan.is_embedded for plan in checked.lanes)),
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
        self._look.lanes = lanes
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
                ) as self._look.pulse,
                self._options.watch(stats, checked.job.name),
            ):
                return await carry_out(parts, stop)
        finally:
            self._look.forget_loop()
            for lane in lanes:
                lane.limits.leave()
                lane.window.close()
            await asyncio.gather(*(lane.provider.close() for lane in lanes))

    def _parts(self, journal: Journal, lanes: list[Lane], input_rows: int, rows: int) -> RunParts:
        checked, job = self._checked, self._checked.job
        budget = None if job.budget is None else self._budget(job.budget.usd, journal)
        self._look.budget = budget
        dispatcher = Dispatcher(
            lanes,
            recorder=journal,
            policy=RetryPolicy(job.retry.max_attempts, job.retry.backoff_s, job.retry.max_backoff_s),
            stats=self._stats,
            clock=self._options.clock,
            in_order=job.routing == "fallback",
            budget=budget,
            say=self._options.say,
            spreading=spreading_of(journal, job.samples, self._again) if self._slots > 1 else None,
            slots=self._slots,
            polling=self._polling(journal, input_rows),
        )
        planner = Planner(
            checked.task,
            checked.starting_counter(),
            max_inputs=checked.max_inputs,
            max_tokens=checked.max_tokens,
            max_request_tokens=None if checked.most_tokens is None else int(checked.most_tokens),
            is_finished=self._asking(journal).is_finished(),
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
            is_whole=rows == input_rows and self._asking(journal).is_all(input_rows * self._slots),
            drain_timeout_s=job.drain_timeout_s,
            finish=lambda: self._finish(journal),
        )

    def _budget(self, limit_usd: float, journal: Journal) -> Budget:
        """What is left of it, whatever became of the calls that kills cut off."""
        tell_uncertain(journal, self._options.say)
        if self._options.spends_anew:
            return Budget(limit_usd)
        self.spent_before_usd = before = journal.spending.most_usd
        return Budget(limit_usd, before + spent_beside(self._out, journal.input_digest))

    def _asking(self, journal: Journal) -> Asking:
        return Asking(journal, self._table, self._options.limit, self._dedupe, self._again)

    def _batches(self, journal: Journal) -> Callable[[], Iterator[Sequence[Row | BadRow]]]:
        return self._asking(journal).batches(self._checked.source, self._checked.rows_at_once)

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
                retries_failed=self._again is not None,
            ),
            ending,
            manifest,
            self._stats,
        )


def _tells_of(manifest: Manifest, journal: Journal) -> bool:
    """Whether it counts what the journal does; else it was edited by hand, and is to be written anew."""
    counts = journal.counts
    return (manifest.ok, manifest.failed, manifest.skipped) == (counts.ok, counts.failed, counts.skipped)


def _code_of(error: BaseException) -> ExitCode:
    """Of what is no error of ours."""
    if isinstance(error, MemoryError):
        return ExitCode.SYSTEM
    return ExitCode.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitCode.BUG


def _settled_code(manifest: Manifest) -> ExitCode:
    return ExitCode.ROWS_FAILED if manifest.failed else ExitCode.OK


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
