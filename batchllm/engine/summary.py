"""Counters and manifest → the summary. Paths are shown as a person in this folder would type them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchllm.dispatch import Ending
from batchllm.events import LaneStats, RunStats
from batchllm.journal import Manifest
from batchllm.journal.files import write_new
from batchllm.report.summary import (
    NOTHING_TO_DO,
    SUMMARY_FILE,
    TTFT_SHARES,
    LaneSummary,
    RunSummary,
    page,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What neither counters nor manifest know."""

    job: str
    out: Path
    cwd: Path
    python: Path
    limit: int | None
    slots: int
    seconds: float
    notes: tuple[str, ...]
    changes: Mapping[str, int]
    copied: int
    retries_failed: bool = False


def summarise(figures: Figures, ending: Ending, manifest: Manifest, stats: RunStats) -> RunSummary:
    units = stats.total if stats.lanes else (manifest.rows or 0) * figures.slots
    reused = stats.reused if stats.lanes else manifest.ok
    failed_before = stats.failed_before if stats.lanes else manifest.failed
    skipped = stats.skipped + stats.skipped_before if stats.lanes else manifest.skipped
    pending = max(0, units - reused - failed_before - skipped - stats.ok - stats.failed)
    settled = manifest.ok + manifest.failed + manifest.skipped
    costs = [lane.cost_usd for lane in stats.lanes]
    return RunSummary(
        job=figures.job,
        exit_code=int(ending.code),
        ending=ending.reason or _ending(figures, stats, manifest, pending),
        remedy=ending.remedy,
        is_complete=manifest.complete,
        is_simulated=manifest.simulated,
        rows=manifest.rows or 0,
        units=units,
        ok=stats.ok,
        failed=stats.failed,
        reused=reused,
        failed_before=failed_before,
        pending=pending,
        prompt_tokens=sum(lane.prompt_tokens for lane in stats.lanes),
        completion_tokens=sum(lane.completion_tokens for lane in stats.lanes),
        cost_usd=None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
        spent_usd=manifest.cost_usd,
        seconds=figures.seconds,
        output=shown(figures.out, figures.cwd),
        python=shown(figures.python, figures.cwd),
        lanes=tuple(_lane(lane) for lane in stats.lanes),
        failures_by_class=dict(stats.failures_by_class),
        last_failures=tuple(stats.last_failures),
        notes=figures.notes,
        changes=figures.changes,
        copied=figures.copied,
        saved=manifest.skipped,
        saved_share=manifest.skipped / settled if settled else 0.0,
    )


def write_page(summary: RunSummary, out: Path) -> None:
    """Leave the summary of this start beside what it made. Raises OSError."""
    draft = out / ".batchllm" / "summary.new"
    draft.unlink(missing_ok=True)
    write_new(draft, f"{page(summary)}\n".encode(), 0o644)
    draft.replace(out / SUMMARY_FILE)


def _ending(figures: Figures, stats: RunStats, manifest: Manifest, pending: int) -> str:
    if not stats.lanes:
        return NOTHING_TO_DO
    if figures.limit is not None and not manifest.complete:
        return f"the first {figures.limit:,} rows (--limit)"
    others = (manifest.pending or 0) - pending
    if figures.retries_failed and others > 0:
        are = "other is" if others == 1 else "others are"
        return f"{others:,} {are} still to be asked: start without --retry-failed"
    return ""


def _lane(lane: LaneStats) -> LaneSummary:
    calls = lane.answered + lane.failed + lane.refused
    return LaneSummary(
        name=lane.name,
        provider=lane.provider,
        model=lane.model,
        is_simulated=lane.is_simulated,
        sent=lane.sent,
        answered=lane.answered,
        refused=lane.refused,
        failed=lane.failed,
        prompt_tokens=lane.prompt_tokens,
        completion_tokens=lane.completion_tokens,
        cost_usd=lane.cost_usd,
        mean_latency_s=lane.latency_total_s / calls if calls else None,
        state=lane.state,
        reason=lane.reason,
        ttft_s=lane.ttft.quantiles(*TTFT_SHARES),
    )


def shown(path: Path, cwd: Path) -> str:
    """Relative where that is shorter; a link (as in a virtual environment) is not followed."""
    try:
        return str(path.relative_to(cwd))
    except ValueError:
        return str(path)
