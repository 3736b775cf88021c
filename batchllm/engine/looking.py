"""What there is to see of a run from beside it: its parts as far as they are there by now, looked at from a thread.

Each value is read once and none is changed, so that nothing has to be locked; two of them may be of different moments.
"""

from collections.abc import Sequence

from batchllm.budget import Budget
from batchllm.dispatch import Lane
from batchllm.engine.vitals import Moment, Vitals, lane_beat
from batchllm.engine.watchdog import Pulse
from batchllm.events import RunStats
from batchllm.journal import Journal


class RunLook:
    """`journal`, `lanes`, `budget` and `pulse` are told once they are there."""

    def __init__(self, stats: RunStats, slots: int, drain_timeout_s: float) -> None:
        self._stats = stats
        self._slots = slots
        self._drain_timeout_s = drain_timeout_s
        self.journal: Journal | None = None
        self.lanes: Sequence[Lane] = ()
        self.budget: Budget | None = None
        self.pulse: Pulse | None = None

    def forget_loop(self) -> None:
        """It turns no more, and its lanes are closed."""
        self.pulse, self.lanes = None, ()

    def __call__(self, now: Moment) -> Vitals:
        stats, journal, budget, pulse = self._stats, self.journal, self.budget, self.pulse
        counts = None if journal is None else journal.counts
        committed, unsaved = (0, 0) if journal is None else journal.progress
        costs = [lane.cost_usd for lane in stats.lanes]
        spent = counts.cost_usd if counts is not None and not counts.unpriced else None
        return Vitals(
            phase=stats.phase,
            slots=self._slots,
            total=stats.total,
            ok=stats.ok + stats.reused,
            failed=stats.failed + stats.failed_before,
            skipped=stats.skipped + stats.skipped_before,
            answered=stats.ok + stats.failed + stats.skipped,
            cost_usd=None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
            spent_usd=spent if budget is None else budget.spent_usd,
            budget_usd=None if budget is None else budget.limit_usd,
            reserved_usd=None if budget is None else budget.reserved_usd,
            in_flight=sum(lane.in_flight for lane in stats.lanes),
            lanes=tuple(lane_beat(lane, now) for lane in self.lanes),
            committed=committed,
            unsaved=unsaved,
            patient_until_s=None if journal is None else journal.patient_until_s,
            drain_timeout_s=self._drain_timeout_s,
            turned_s=None if pulse is None else pulse.beat_s,
            simulated=any(lane.is_simulated for lane in stats.lanes),
        )
