"""What a run shows while it goes: counters that the loop adds to, and that panel, status and summary read.

No event is made for a row: at thousands of rows a second the reader polls, the writer only counts.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Times that differ by less than this factor are counted as the same.
_STEP = math.log(1.02)
_LEAST_S = 1e-6


class Times:
    """How long something took, many times over: counted by classes 2 % wide, so that millions take no room."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, seconds: float) -> None:
        at = round(math.log(max(seconds, _LEAST_S)) / _STEP)
        self._counts[at] = self._counts.get(at, 0) + 1

    def quantiles(self, *shares: float) -> Mapping[float, float] | None:
        """Share → seconds that so large a share of the times do not exceed, to 1 %; None where there were none."""
        total = sum(self._counts.values())
        if not total:
            return None
        found: dict[float, float] = {}
        passed = 0
        wanted = sorted(shares)
        for at in sorted(self._counts):
            passed += self._counts[at]
            while wanted and passed >= math.ceil(wanted[0] * total):
                found[wanted.pop(0)] = math.exp(at * _STEP)
        return found


class Rates:
    """Answers a second over the last few seconds, from counters seen at known times. Pure."""

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, count: int) -> float:
        self._seen.append((now_s, count))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > self._window_s:
            self._seen.popleft()
        (then_s, before), (now, after) = self._seen[0], self._seen[-1]
        return (after - before) / (now - then_s) if now > then_s else 0.0


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
    ttft: Times = field(default_factory=Times)  # of streams: until the first piece of an answer
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
    phase: str = "starting"  # starting, reading, running, draining, finishing, done, agreeing

    @property
    def finished(self) -> int:
        before = self.reused + self.failed_before + self.skipped_before
        return before + self.ok + self.failed + self.skipped
