"""The commands that mend a record: the job is checked and its output locked as for a run, and nothing is sent."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from batchllm.clock import Clock, SystemClock
from batchllm.engine.identity import identity_of, slots_of
from batchllm.engine.interruption import told_interruption
from batchllm.errors import (
    BatchllmError,
    ChangedJobError,
    ExitCode,
    InputDataError,
    InputMissingError,
    JobError,
)
from batchllm.journal import Identity, Journal, OutputLock, finish_putting_aside, stored_job
from batchllm.journal.files import Layout
from batchllm.journal.opening import refuse_leftovers
from batchllm.journal.parts import open_part
from batchllm.journal.rebuilding import Owner, Rebuilt, rebuild
from batchllm.journal.rereading import Reread, reread
from batchllm.plan import digest_of
from batchllm.ports import Source
from batchllm.provider.overlay import open_catalogue
from batchllm.records import Row
from batchllm.spec import models
from batchllm.spec.fingerprint import differences, differs_in_reading_only, fingerprint
from batchllm.spec.loading import LoadedJob
from batchllm.task import ChatTask, CompletionTask, build_task
from batchllm.wiring import CheckedJob, check, mark_simulated

#: So many rows are rendered again to see whether answers without a manifest are this job's.
_COMPARED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Tools:
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Clock = field(default_factory=SystemClock)


def rebuild_job(
    loaded: LoadedJob, tools: Tools | None = None, *, drops_missing: bool = False, frame: object | None = None
) -> Rebuilt:
    """Raises what `journal.rebuilding.rebuild` raises, LockedError, and what is wrong with the job."""
    tools = tools or Tools()
    with locked(loaded, tools, frame) as (checked, out):
        return rebuild(
            out,
            owner_of(checked),
            clock=tools.clock,
            drops_missing=drops_missing,
            check_rows=lambda _out: _compare_rows(checked, out),
        )


def reparse_job(
    loaded: LoadedJob,
    tools: Tools | None = None,
    *,
    frame: object | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Reread:
    """Raises ChangedJobError when more than the reading of answers has changed, and what opening a record raises."""
    tools = tools or Tools()
    with locked(loaded, tools, frame) as (checked, out):
        task = checked.task
        if not isinstance(task, ChatTask | CompletionTask):
            message = f"the answers of a {task.kind} task are no texts: there is nothing to read again"
            raise JobError(loaded.file, [loaded.fault("task.type", message)])
        with _opened_as_it_was(checked, out, tools, say) as journal:
            return reread(
                journal,
                owner_of(checked),
                task,
                carried=_Carried(checked.source, journal.input_digest),
                clock=tools.clock,
            )


@contextmanager
def _opened_as_it_was(
    checked: CheckedJob, out: Path, tools: Tools, say: Callable[[str], None]
) -> Iterator[Journal]:
    """The record of the job as it was before its schema changed."""
    before = _sections_before(checked, out)
    owner = owner_of(checked)
    identity = Identity(
        checked.job.name,
        before,
        fingerprint(before),
        owner.identity.version,
        keeps_bodies=owner.identity.keeps_bodies,
    )
    journal = Journal.open(
        out,
        identity=identity,
        lanes=owner.lanes,
        slots=owner.slots,
        samples=owner.samples,
        task=build_task(models.parse_task(before["task"]), dimensions=None),
        shape=owner.shape,
        clock=tools.clock,
    )
    code = ExitCode.BUG
    try:
        if journal.interrupted is not None and journal.interrupted.calls:
            say(told_interruption(journal.interrupted))
        yield journal
        code = ExitCode.OK
    except BatchllmError as error:
        code = error.exit_code
        raise
    finally:
        asyncio.run(journal.close(clean=True, exit_code=code))


def _sections_before(checked: CheckedJob, out: Path) -> Mapping[str, str]:
    if not Layout(out).database.exists():
        refuse_leftovers(Layout(out))
    stored = stored_job(out)
    if stored is None:
        raise InputMissingError(f"{out} holds no answers yet", remedy="start the job with `batchllm run JOB`")
    before, now = stored.sections, identity_of(checked.job).sections
    changes = differences(before, now)
    if changes and not differs_in_reading_only(before, now):
        raise ChangedJobError(
            f"the answers in {out} were made with another job:\n    " + "\n    ".join(changes),
            remedy="only task.schema and task.truncated (or filtered) may change: undo the other changes,"
            " or choose another output.path for the changed job",
        )
    return before


class _Carried:
    """Carried values out of the input, which must be the one that the answers were made from. Reads it once."""

    def __init__(self, source: Source, digest: str | None) -> None:
        self._source = source
        self._digest = digest
        self._rows: Iterator[tuple[int, bytes]] | None = None
        self._last, self._last_carry = -1, b""

    def __call__(self, rows: Sequence[int]) -> list[bytes]:
        if self._rows is None:
            if self._source.scan().digest != self._digest:
                raise InputDataError(
                    "the input has changed since the answers were made, so carried columns of failures that are"
                    " answers now cannot be read from it",
                    remedy="put the old input back, and start again",
                )
            self._rows = self._read()
        wanted = set(rows)
        found: dict[int, bytes] = {}
        if self._last in wanted:
            found[self._last] = self._last_carry
        while len(found) < len(wanted):
            ordinal, carry = next(self._rows, (-1, b""))
            if ordinal < 0:
                raise InputDataError(
                    f"row {min(wanted - found.keys())} cannot be read from the input any more"
                )
            if ordinal in wanted:
                found[ordinal] = carry
                self._last, self._last_carry = ordinal, carry
        return [found[row] for row in rows]

    def _read(self) -> Iterator[tuple[int, bytes]]:
        for batch in self._source.batches():
            for row in batch:
                if isinstance(row, Row):
                    yield row.ordinal, row.carry


@contextmanager
def locked(loaded: LoadedJob, tools: Tools, frame: object | None) -> Iterator[tuple[CheckedJob, Path]]:
    """The job, checked, and its output folder, which must be there, with nobody else in it."""
    checked = check(
        loaded, catalogue=open_catalogue(tools.environ), environ=tools.environ, clock=tools.clock, frame=frame
    )
    out = Path(str(checked.job.output.path))
    if not out.is_dir():
        raise InputMissingError(f"there is no output {out}", remedy="start the job with `batchllm run JOB`")
    with OutputLock.acquire(out, about={"started": tools.clock.wall_s(), "job": checked.job.name}):
        finish_putting_aside(Layout(out))
        yield checked, out


def owner_of(checked: CheckedJob) -> Owner:
    lanes = [lane.info for lane in mark_simulated(checked.lanes)]
    job = checked.job
    return Owner(identity_of(job), lanes, slots_of(job), checked.task, checked.source.shape, job.samples)


def _compare_rows(checked: CheckedJob, out: Path) -> None:
    """What was asked for the first rows is what the job would ask. Raises ChangedJobError."""
    asked = _asked(Layout(out))
    if not asked:
        return
    for batch in checked.source.batches():
        for row in batch:
            before = asked.pop(row.ordinal, None)
            if before is not None and isinstance(row, Row) and before != _digest(checked, row):
                raise ChangedJobError(
                    f"row {row.ordinal} of the answers in {out} was asked something else than the job asks for it",
                    remedy="undo the change of the input, of its order or of the prompt, and rebuild again",
                )
        if not asked:
            return
    raise ChangedJobError(
        f"the answers in {out} speak of row {min(asked)}, and the input ends before it",
        remedy="put the input back that they were made from, and rebuild again",
    )


def _digest(checked: CheckedJob, row: Row) -> str:
    try:
        return digest_of(checked.task.kind, checked.task.content(row)).hex()
    except (BatchllmError, TypeError):
        return ""  # it cannot be asked (any more), while it was answered before


def _asked(layout: Layout) -> dict[int, str]:
    """Row → hash of what was asked, of the first rows of the first parts that can be read."""
    found: dict[int, str] = {}
    for path in sorted(layout.folder("output").glob("part-*.parquet")):
        try:
            with open_part(path) as file:
                batch = next(file.iter_batches(_COMPARED_ROWS, columns=["row", "request_hash"]), None)
        except (BatchllmError, OSError, pa.ArrowException, KeyError):
            continue  # what cannot be read is told by whoever needs it
        if batch is not None:
            found |= zip(
                batch.column("row").to_pylist(), batch.column("request_hash").to_pylist(), strict=True
            )
        if len(found) >= _COMPARED_ROWS:
            break
    return found
