"""How far a statistic would move with other rows of the same kind: 95 % intervals.

Rows are drawn with replacement, as many as there are, and the interval is what the middle 95 % of the resamples give
(the percentile method). Rows of one pattern are alike, so a resample of a million rows is one multinomial draw over
the patterns; a thousand of them take milliseconds for the few patterns that accuracies or kappas of two have.

Where a statistic has more than `MOST_PATTERNS` patterns (free text, numbers), there are more rows than that, and the
interval is the bootstrap's limit for many rows, with nothing drawn: the normal one with the infinitesimal jackknife's
variance (Efron 1982, chapter 6), which comes from how the value moves with one row more of each pattern. It uses all
rows, and from some thousand on the two agree to a few per cent of their width.

Rows that all say the same (three right of three) say so however they are drawn, and that is not certainty: other rows
may well exist, as long as n of n were likely to be none of them. Of shares that gives the exact interval (Clopper and
Pearson 1934; three of three: 29 to 100 %); of what is no mean over rows there is none.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from batchllm.consensus.patterns import Floats

#: A thousand resamples of as many patterns take half a second; with more rows than that the limit has been reached.
MOST_PATTERNS = 4096
LEVEL = 0.95
#: Numbers drawn at a time (2 MB); a statistic may hold some arrays of that times the voters.
_DRAWN_AT_ONCE = 1 << 18
#: Resamples for which a statistic is not defined (all rows of one label) are left out; with fewer left: no interval.
_LEAST_DEFINED = 0.5


class Statistic(Protocol):
    """A function of how often each pattern of rows occurs."""

    @property
    def counts(self) -> Floats:
        """Rows of each pattern."""

    @property
    def bounds(self) -> tuple[float, float]:
        """No value is below or above."""

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean of something that each row has, within the bounds."""

    def at(self, counts: Floats) -> Floats:
        """Resamples × patterns, how often each occurs → a value for each resample; NaN where it is not defined."""

    def variance(self) -> float:
        """Of the value, by the infinitesimal jackknife: see `variance`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`value` of `n` rows, with its interval; None where there is none. `why`: why there is no value."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Resampling:
    """`resamples`: 0 gives no intervals. The same seed gives the same interval, whatever else is measured.

    `most_patterns`: with more, the bootstrap's limit stands in for it.
    """

    resamples: int = 1000
    seed: int = 0
    most_patterns: int = MOST_PATTERNS

    def estimate(self, statistic: Statistic, undefined: str) -> Estimate:
        """The value and its interval; `undefined` says why, when there is no value."""
        counts = statistic.counts
        n = int(counts.sum())
        value = float(statistic.at(counts[None])[0]) if n else math.nan
        if not math.isfinite(value):
            return Estimate(None, None, None, n, undefined)
        low, high = self._interval(statistic, value, n)
        if low is not None and low == high:
            low, high = _of_equal_rows(statistic, value, n)
        return Estimate(value, low, high, n)

    def _interval(self, statistic: Statistic, value: float, n: int) -> tuple[float | None, float | None]:
        """A single row says nothing about others."""
        if self.resamples == 0 or n < 2:
            return None, None
        if len(statistic.counts) > self.most_patterns:
            return _limit(statistic, value)
        drawn = np.concatenate([statistic.at(counts) for counts in self._drawn(statistic.counts)])
        defined = drawn[np.isfinite(drawn)]
        if len(defined) < _LEAST_DEFINED * self.resamples:
            return None, None
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def _drawn(self, counts: Floats) -> Iterator[Floats]:
        """Resamples × patterns, some resamples at a time: how often each pattern was drawn."""
        dice = np.random.default_rng(self.seed)
        n = counts.sum()
        at_once = max(1, _DRAWN_AT_ONCE // len(counts))
        for first in range(0, self.resamples, at_once):
            size = min(at_once, self.resamples - first)
            yield dice.multinomial(int(n), counts / n, size).astype(np.float64)


def variance(slopes: Floats, counts: Floats) -> float:
    """What drawing rows anew adds up to, where a row more of each pattern moves the value by its slope."""
    mean = float(counts @ slopes) / float(counts.sum())
    return float(counts @ (slopes - mean) ** 2)


def _of_equal_rows(statistic: Statistic, value: float, n: int) -> tuple[float | None, float | None]:
    """How many other rows there may be, none of which was met, and what they could make of a mean."""
    least, most = statistic.bounds
    if not statistic.is_mean or not (math.isfinite(least) and math.isfinite(most)):
        return None, None
    unmet = 1 - ((1 - LEVEL) / 2) ** (1 / n)
    return value - unmet * (value - least), value + unmet * (most - value)


def _limit(statistic: Statistic, value: float) -> tuple[float | None, float | None]:
    variance = statistic.variance()
    if not math.isfinite(variance):
        return None, None
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance)
    least, most = statistic.bounds
    return max(least, value - reach), min(most, value + reach)
