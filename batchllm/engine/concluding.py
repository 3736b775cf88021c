"""After a run: what its answers agree on, as a part of the same start of the job, with one summary and exit code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from batchllm.clock import Clock
from batchllm.consensus.motion import Motion
from batchllm.consensus.reading import Record, open_record
from batchllm.engine.agreeing import Agreeing, Ask, StoppedError
from batchllm.engine.beside import cost_beside
from batchllm.engine.inquiries import Inquiry
from batchllm.engine.summary import write_page
from batchllm.errors import ExitCode
from batchllm.report.agreement import agreement_lines
from batchllm.report.summary import RunSummary
from batchllm.wiring import CheckedJob
from batchllm.wiring.nested import Beside, Nested


def conclude(
    checked: CheckedJob,
    summary: RunSummary,
    ask: Ask,
    *,
    spent_usd: float,
    clock: Clock,
    say: Callable[[str], None],
    again: bool = False,
) -> RunSummary:
    """The run's summary with what was agreed, and with what asking for that has cost.

    `spent_usd`: of the budget, by the voters.

    A run that was stopped leaves the consensus as it was; so does one whose nested run is stopped, and the whole then
    ended as that did.
    """
    out = Path(str(checked.job.output.path))
    if summary.exit_code not in (ExitCode.OK, ExitCode.ROWS_FAILED):
        shows = f"`batchllm consensus {summary.output}` shows what the answers so far agree on, for nothing"
        return replace(summary, notes=(*summary.notes, f"the consensus was left as it was; {shows}"))
    if checked.motion is None:
        return summary
    agreeing = _agreeing(checked, checked.motion, ask, spent_usd=spent_usd, now_s=clock.wall_s(), again=again)
    try:
        told = agreeing.run()
    except StoppedError as stopped:
        budget = None if checked.job.budget is None else checked.job.budget.usd
        return _left(_with(summary, agreeing), stopped.summary, budget, out, say)
    summary = _with(summary, agreeing)
    notes = (*summary.notes, *(f"consensus: {note}" for note in told["notes"]))
    whole = replace(summary, agreement=agreement_lines(told), figures=told, notes=notes)
    return _written(whole, out, say)


def _agreeing(
    checked: CheckedJob, motion: Motion, ask: Ask, *, spent_usd: float, now_s: float, again: bool
) -> Agreeing:
    job, out = checked.job, Path(str(checked.job.output.path))
    manifest = open_record(out)
    record = Record(
        out,
        manifest,
        tuple(lane.info.name for lane in checked.lanes),
        job.samples,
        spreads=job.routing != "all",
    )
    return Agreeing(
        record=record,
        motion=motion,
        beside=checked.nested,
        job=job.name,
        key=record.schema.field(0) if checked.source.shape.key is not None else None,
        carried=[record.schema.field(one.name) for one in checked.source.shape.carry],
        now_s=now_s,
        inquiry=Inquiry(checked.source, checked.task),
        ask=ask,
        budget_usd=None if job.budget is None else job.budget.usd - spent_usd,
        again=again,
    )


def _left(
    summary: RunSummary,
    stopped: RunSummary,
    budget_usd: float | None,
    out: Path,
    say: Callable[[str], None],
) -> RunSummary:
    ending = f"{stopped.job}: {stopped.ending}" if stopped.ending else f"{stopped.job} was stopped"
    if stopped.exit_code == ExitCode.LIMIT_STOPPED and budget_usd is not None:
        ending = f"the budget of {budget_usd:g} USD is spent: the next call of {stopped.job} could exceed it"
    whole = replace(
        summary,
        exit_code=stopped.exit_code,
        ending=ending,
        remedy=stopped.remedy or "run the same job again: it goes on where it was",
        is_complete=False,
    )
    return _written(whole, out, say)


def _with(summary: RunSummary, agreeing: Agreeing) -> RunSummary:
    """One summary of all that was asked in this start, and of what earlier ones have left."""
    out = agreeing.record.out
    for beside in agreeing.beside:
        where = f"{summary.output}/{beside.out.relative_to(out)}"
        summary = _with_failures(summary, beside, agreeing.failed.get(beside.role, 0), where)
    for one in agreeing.summaries:
        summary = replace(
            summary,
            prompt_tokens=summary.prompt_tokens + one.prompt_tokens,
            completion_tokens=summary.completion_tokens + one.completion_tokens,
            cost_usd=_sum(summary.cost_usd, one.cost_usd),
            seconds=summary.seconds + one.seconds,
            lanes=(*summary.lanes, *one.lanes),
        )
    return replace(summary, spent_usd=_sum(summary.spent_usd, cost_beside(out)))


def _with_failures(summary: RunSummary, beside: Beside, failed: int, where: str) -> RunSummary:
    """Rows that a nested run gave up have failed, whenever that was, as long as it is about open ones."""
    if not failed:
        return summary
    job = beside.loaded.job.name if isinstance(beside, Nested) else beside.role
    told = f"{job}: {failed:,} {'row' if failed == 1 else 'rows'} failed, see {where}/failures/*.parquet"
    if summary.exit_code:
        return replace(summary, notes=(*summary.notes, told))
    return replace(
        summary,
        exit_code=int(ExitCode.ROWS_FAILED),
        ending=told,
        remedy="`--retry-failed` asks for them again",
        notes=(*summary.notes, told),
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _written(summary: RunSummary, out: Path, say: Callable[[str], None]) -> RunSummary:
    try:
        write_page(summary, out)
    except OSError as error:
        say(f"the summary could not be written to {out}: {error.strerror or error}")
    return summary
