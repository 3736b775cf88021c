"""What a run shows while it goes: counters that the loop adds to, and that panel, status and summary read.

No event is made for a row: at thousands of rows a second the reader polls, the writer only counts.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class LaneStats:
    """Counters of one lane. `state` is one of running, waiting, resting, dead, done; `reason` says why."""

    name: str
    provider: str
    model: str
    is_simulated: bool = False
    sent: int = 0
    answered: int = 0
    refused: int = 0  # 429 and its like
    failed: int = 0  # every other failed attempt
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    latency_total_s: float = 0.0
    state: str = "running"
    reason: str = ""
    rpm: float | None = None
    tpm: float | None = None


@dataclass(slots=True)
class RunStats:
    """Counters of a run, in units of one answer: a row, or each of its slots where it gets several."""

    total: int = 0
    reused: int = 0  # finished in an earlier run
    ok: int = 0  # in this run
    failed: int = 0  # in this run
    failed_before: int = 0
    skipped: int = 0  # in this run: not asked, for the vote of their row is settled
    skipped_before: int = 0
    started_s: float = 0.0
    failures_by_class: dict[str, int] = field(default_factory=dict)
    last_failures: list[str] = field(default_factory=list)
    lanes: list[LaneStats] = field(default_factory=list)
    phase: str = "starting"  # starting, reading, running, draining, finishing, done

    @property
    def finished(self) -> int:
        before = self.reused + self.failed_before + self.skipped_before
        return before + self.ok + self.failed + self.skipped
