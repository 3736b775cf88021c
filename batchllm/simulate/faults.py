"""What goes wrong, and how long an answer takes: drawn by hash of seed, request text and attempt.

So a second run meets the same faults at the same requests, and a retry (another attempt) usually passes. Each kind is
drawn on its own: raising the rate of one leaves the draws of the others as they were. When several kinds hit the same
request, the first in the order of `FaultKind` counts.
"""

import math
from enum import StrEnum
from hashlib import blake2b
from statistics import NormalDist
from struct import Struct
from typing import Final, NamedTuple

from batchllm.errors import Fault
from batchllm.spec.lanes import Latency, Simulation

#: The standard normal's 99th percentile: what turns median and p99 into the width of the log-normal.
_P99_Z: Final = NormalDist().inv_cdf(0.99)
_NORMAL: Final = NormalDist()
_LANES: Final = Struct(">7Q")


class FaultKind(StrEnum):
    """`DEAD` is not drawn: it is what every request meets after `die_after`."""

    OVERLOAD = "overload"
    ERROR = "error"
    STALL = "stall"
    CUT = "cut"
    HTML = "html"
    EMPTY = "empty"
    DEAD = "dead"


class Fate(NamedTuple):
    fault: FaultKind | None
    latency_s: float


class Fates:
    """The dice, without dice: attempt and text in, fate out."""

    def __init__(self, simulation: Simulation) -> None:
        faults = simulation.faults
        rates = (
            (FaultKind.OVERLOAD, faults.overload_rate),
            (FaultKind.ERROR, faults.error_rate),
            (FaultKind.STALL, faults.stall_rate),
            (FaultKind.CUT, faults.cut_rate),
            (FaultKind.HTML, faults.html_rate),
            (FaultKind.EMPTY, faults.empty_rate),
        )
        # Each kind keeps its own lane of the digest, so its draws do not depend on which others are switched on.
        self._kinds = [(lane, kind, rate * 2**64) for lane, (kind, rate) in enumerate(rates, 1) if rate > 0]
        self._median_s = simulation.latency.median_s
        self._sigma = latency_sigma(simulation.latency)
        self._key = blake2b(str(simulation.seed).encode(), digest_size=32).digest()
        #: False when every request has the same fate, so that nobody need count attempts.
        self.depends_on_attempt = bool(self._kinds) or self._sigma > 0

    def fate(self, digest: bytes, attempt: int) -> Fate:
        """`digest` stands for the request's text; `attempt` counts from 0."""
        if not self.depends_on_attempt:
            return Fate(None, self._median_s)
        drawn = blake2b(b"%d:%b" % (attempt, digest), key=self._key, digest_size=56).digest()
        lanes = _LANES.unpack(drawn)
        for lane, kind, below in self._kinds:
            if lanes[lane] < below:
                return Fate(kind, self._latency_s(lanes[0]))
        return Fate(None, self._latency_s(lanes[0]))

    def _latency_s(self, lane: int) -> float:
        if not self._sigma:
            return self._median_s
        share = ((lane >> 12) + 0.5) / 2**52  # never 0 and never 1, also as a float
        return self._median_s * math.exp(self._sigma * _NORMAL.inv_cdf(share))


class Attempts:
    """How often a text has been asked since it was last answered. Bounded: the oldest are forgotten.

    A text that was answered is forgotten too: asked again (in the next run) it starts at attempt 0 and meets the
    faults that it met in the first run, and ten million answered rows take no memory.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._counts: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def next_number(self, digest: bytes) -> int:
        number = self._counts.get(digest, 0)
        self._counts[digest] = number + 1
        if len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return number

    def forget(self, digest: bytes) -> None:
        self._counts.pop(digest, None)


def latency_sigma(latency: Latency) -> float:
    if latency.p99_s is None or latency.p99_s <= latency.median_s or latency.median_s == 0:
        return 0.0
    return math.log(latency.p99_s / latency.median_s) / _P99_Z


def latency_faults(simulation: Simulation, path: str = "latency") -> list[Fault]:
    """A spread that no log-normal has."""
    latency = simulation.latency
    if latency.p99_s is None or latency.p99_s == latency.median_s:
        return []
    if latency.p99_s < latency.median_s:
        return [Fault(f"{path}.p99_s", "is below median_s", "the slowest answers cannot be faster than most")]
    if latency.median_s == 0:
        return [Fault(f"{path}.median_s", "is 0 while p99_s is not", "give a median above 0, such as 0.001")]
    return []
