"""Krippendorff's alpha: one minus observed over expected disagreement, with missing votes, on three scales.

After Krippendorff, *Computing Krippendorff's Alpha-Reliability* (2011). A row of m votes has m (m - 1) ordered pairs,
each of weight 1 / (m - 1); rows with fewer than two votes have none and are left out. Coincidences are never laid out
as values × values: on each scale the sums over them come down to sums over votes.

- nominal: a pair disagrees or does not.
- interval: the squared difference of two numbers; of labels, of their places in the order.
- ordinal: the squared number of votes that lie between two values, half of those for each of the two included. That
  is the difference of their midranks among all votes, so ordinal is interval on midranks.
"""

from dataclasses import dataclass

import numpy as np

from batchllm.consensus.agreement import NO_PAIRS, ONE_VALUE, agreeing_pairs, undefined
from batchllm.consensus.bootstrap import Estimate, Resampling, variance
from batchllm.consensus.patterns import Floats, Patterns, Tally, tally
from batchllm.consensus.sums import Sums, centred
from batchllm.consensus.votes import MISSING, Codes


@dataclass(frozen=True, slots=True)
class _Nominal:
    counts: Floats
    cast: Floats
    apart: Floats  # disagreeing ordered pairs of a row, over its votes less one
    votes: Tally
    bounds: tuple[float, float] = (-1.0, 1.0)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        total, used = counts @ self.cast, self.votes.at(counts)
        return _alpha(counts @ self.apart, total, total**2 - np.einsum("rv,rv->r", used, used))

    def variance(self) -> float:
        total, used = float(self.counts @ self.cast), self.votes.of(self.counts)
        expected = float(total**2 - used @ used)
        by_row = (self.apart, self.cast, 2 * (total * self.cast - self.votes.back(used)))
        return variance(_slopes(float(self.counts @ self.apart), total, expected, by_row), self.counts)


def _alpha(apart: Floats, total: Floats, expected: Floats) -> Floats:
    """`expected`: disagreement of all votes × all votes. None is expected where all are for one value: NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - apart * (total - 1) / expected, np.nan)


def _slopes(apart: float, total: float, expected: float, by_row: tuple[Floats, Floats, Floats]) -> Floats:
    """How alpha moves, from how its three parts move with a row more."""
    more_apart, more_total, more_expected = by_row
    ratio = apart * (total - 1) / expected
    return (ratio * more_expected - more_apart * (total - 1) - apart * more_total) / expected


def nominal(patterns: Patterns, resampling: Resampling) -> Estimate:
    """`n`: rows with two votes or more, as with the other scales."""
    paired = patterns.with_votes(2)
    cast = paired.cast
    apart = cast - 2 * agreeing_pairs(paired) / (cast - 1)
    votes = tally(paired.codes, np.ones(len(cast)), paired.values)
    return resampling.estimate(_Nominal(paired.counts, cast, apart, votes), undefined(paired, NO_PAIRS))


@dataclass(frozen=True, slots=True)
class _Ordinal:
    counts: Floats
    codes: Codes
    cast: Floats
    votes: Tally
    bounds: tuple[float, float] = (-1.0, 1.0)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        total, used = counts @ self.cast, self.votes.at(counts)
        _, squares = self._around_mean(_midranks(used))
        apart = np.einsum("rp,rp->r", counts, 2 * self.cast / (self.cast - 1) * squares)
        return _alpha(apart, total, self._expected(used, total))

    def variance(self) -> float:
        total, used = float(self.counts @ self.cast), self.votes.of(self.counts)
        around, squares = self._around_mean(_midranks(used[None]))
        per_row = 2 * self.cast / (self.cast - 1)
        # A vote more shifts the ranks of all values above its own, and of its own by half.
        pull = (2 * per_row[:, None] * around[0])[self.codes != MISSING]
        of_value = np.bincount(self.votes.values, pull * self.counts[self.votes.patterns], len(used))
        above = of_value[::-1].cumsum()[::-1] - of_value / 2
        more_apart = per_row * squares[0] + self.votes.back(above)
        more_expected = (
            self.cast * (4 * total**3 - (used**3).sum()) - 3 * total * self.votes.back(used**2)
        ) / 6
        expected = float(self._expected(used[None], np.array([total]))[0])
        by_row = (more_apart, self.cast, more_expected)
        slopes = _slopes(float(self.counts @ (per_row * squares[0])), total, expected, by_row)
        return variance(slopes, self.counts)

    def _around_mean(self, ranks: Floats) -> tuple[Floats, Floats]:
        """Resamples × values → each vote's rank less its row's mean (0 where missing), and their squares' sum."""
        missing = self.codes == MISSING
        by_vote = np.where(missing, 0.0, ranks[:, self.codes])
        around = np.where(missing, 0.0, by_vote - (by_vote.sum(axis=2) / self.cast)[:, :, None])
        return around, np.einsum("rpv,rpv->rp", around, around)

    @staticmethod
    def _expected(used: Floats, total: Floats) -> Floats:
        """All votes × all votes, squared distance of ranks: (N^4 - N sum n^3) / 6, from the known mean of midranks."""
        is_one = used.max(axis=1) == total  # exactly 0 then, whatever the rounding
        return np.where(is_one, 0.0, (total**4 - total * (used**3).sum(axis=1)) / 6)


def _midranks(used: Floats) -> Floats:
    """Resamples × values, how often each occurs → votes below each value, and half of those for it."""
    return np.cumsum(used, axis=1) - used / 2


def ordinal(patterns: Patterns, resampling: Resampling) -> Estimate:
    """Values are ordered by their codes."""
    paired = patterns.with_votes(2)
    votes = tally(paired.codes, np.ones(len(paired.codes)), paired.values)
    statistic = _Ordinal(paired.counts, paired.codes, paired.cast, votes)
    return resampling.estimate(statistic, undefined(paired, NO_PAIRS))


def interval(numbers: Floats, counts: Floats, resampling: Resampling) -> Estimate:
    """Of patterns × voters, NaN missing, none infinite."""
    kept = np.count_nonzero(~np.isnan(numbers), axis=1) >= 2
    numbers, counts = centred(numbers[kept]), counts[kept]
    if not counts.any():
        return Estimate(None, None, None, 0, NO_PAIRS)
    cast = np.count_nonzero(~np.isnan(numbers), axis=1).astype(np.float64)
    sums = np.nansum(numbers, axis=1)
    around = np.nansum((numbers - (sums / cast)[:, None]) ** 2, axis=1)
    apart = 2 * cast / (cast - 1) * around
    features = np.stack([apart, cast, sums, np.nansum(numbers**2, axis=1)])
    statistic = Sums(features, counts, _of_moments, (-1.0, 1.0))
    return resampling.estimate(statistic, ONE_VALUE)


def _of_moments(totals: Floats) -> Floats:
    apart, total, sums, squares = totals
    expected = 2 * (total * squares - sums**2)
    return _alpha(apart, total, np.where(expected > 1e-12 * total * squares, expected, 0.0))
