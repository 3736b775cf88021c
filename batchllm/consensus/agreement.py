"""How much voters agree: percent agreement, Cohen's kappa of two, Fleiss' kappa of all.

Votes agree when they are the same value. No array here has values × values: free text has as many values as votes.
Krippendorff's alpha, which knows of distances, is in a module of its own.
"""

from dataclasses import dataclass

import numpy as np

from batchllm.consensus.bootstrap import Estimate, Resampling, variance
from batchllm.consensus.patterns import Floats, Patterns, Tally, patterns_of, tally
from batchllm.consensus.sums import Sums, centred, ratio
from batchllm.consensus.votes import MISSING

#: Expected agreement this close to 1 is 1 but for rounding: all votes are for one value.
_ONE = 1 - 1e-12

NO_ROWS = "no row has votes of both"
NO_PAIRS = "no row has two votes"
ONE_VALUE = "all votes are for one value"


def agreeing_pairs(patterns: Patterns) -> Floats:
    """Pairs of equal votes in a row of each pattern. Sorted votes need a pass for each voter, not for each two."""
    ordered = np.sort(patterns.codes, axis=1)
    alike = np.zeros(len(ordered))
    agreeing = np.zeros(len(ordered))
    for place in range(1, ordered.shape[1]):
        same = (ordered[:, place] == ordered[:, place - 1]) & (ordered[:, place] != MISSING)
        alike = np.where(same, alike + 1, 0.0)
        agreeing += alike
    return agreeing


def percent(patterns: Patterns, resampling: Resampling) -> Estimate:
    """Of all pairs of votes for the same row, the share that agree: the mean of the pairs of voters, by their rows.

    `n`: rows with two votes or more.
    """
    paired = patterns.with_votes(2)
    pairs = paired.cast * (paired.cast - 1) / 2
    both = np.column_stack([agreeing_pairs(paired), pairs]).astype(np.int32)
    different = patterns_of(both, int(pairs.max(initial=0.0)) + 1, paired.counts)
    agreeing, pairs = different.codes.T.astype(np.float64)
    return resampling.estimate(ratio(agreeing, pairs, different.counts, (0.0, 1.0)), NO_PAIRS)


def percent_of_two(pair: Patterns) -> Estimate:
    """Share of the rows where two voters' votes are equal, of those where both have voted; without an interval."""
    first, second = pair.codes.T
    n = int(pair.counts @ ((first != MISSING) & (second != MISSING)))
    equal = float(pair.counts @ ((first == second) & (first != MISSING)))
    return Estimate(equal / n if n else None, None, None, n, None if n else NO_ROWS)


@dataclass(frozen=True, slots=True)
class _Cohen:
    counts: Floats
    equal: Floats
    first: Tally
    second: Tally
    bounds: tuple[float, float] = (-1.0, 1.0)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        n = counts.sum(axis=1)
        expected = np.einsum("rv,rv->r", self.first.at(counts), self.second.at(counts)) / n**2
        return beyond_chance(counts @ self.equal / n, expected)

    def variance(self) -> float:
        n = self.counts.sum()
        firsts, seconds = self.first.of(self.counts) / n, self.second.of(self.counts) / n
        observed, expected = float(self.counts @ self.equal / n), float(firsts @ seconds)
        by_expected = (self.first.back(seconds) + self.second.back(firsts) - 2 * expected) / n
        return _kappa_variance(observed, expected, ((self.equal - observed) / n, by_expected), self.counts)


def beyond_chance(observed: Floats, expected: Floats) -> Floats:
    """(observed - expected) / (1 - expected): a kappa; NaN where all agreement is expected."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < _ONE, (observed - expected) / (1 - expected), np.nan)


def _kappa_variance(observed: float, expected: float, by_row: tuple[Floats, Floats], counts: Floats) -> float:
    """From how its two parts move with a row more of each pattern."""
    more_observed, more_expected = by_row
    slopes: Floats = (more_observed * (1 - expected) - (1 - observed) * more_expected) / (1 - expected) ** 2
    return variance(slopes, counts)


def cohen(pair: Patterns, resampling: Resampling) -> Estimate:
    """Cohen's kappa (1960) of two voters, over the rows where both have voted."""
    both = pair.with_votes(2)
    ones = np.ones(len(both.codes))
    statistic = _Cohen(
        both.counts,
        (both.codes[:, 0] == both.codes[:, 1]).astype(np.float64),
        tally(both.codes[:, :1], ones, both.values),
        tally(both.codes[:, 1:], ones, both.values),
    )
    return resampling.estimate(statistic, undefined(both, NO_ROWS))


def undefined(patterns: Patterns, no_rows: str) -> str:
    """Why a kappa or an alpha has no value."""
    return ONE_VALUE if patterns.counts.any() else no_rows


def quadratic(pair: Floats, counts: Floats, resampling: Resampling) -> Estimate:
    """Cohen's kappa with squared distances (Cohen 1968) of two voters' numbers, or places of labels in their order.

    `pair`: patterns × 2; rows where either is NaN or infinite are left out. Of numbers it is Lin's concordance.
    """
    kept = np.isfinite(pair).all(axis=1)
    counts, (first, second) = counts[kept], centred(pair[kept]).T
    features = np.stack([np.ones(len(first)), first, second, first**2 + second**2, (first - second) ** 2])
    statistic = Sums(features, counts, _quadratic, (-1.0, 1.0))
    return resampling.estimate(statistic, ONE_VALUE if counts.any() else NO_ROWS)


def _quadratic(totals: Floats) -> Floats:
    n, firsts, seconds, squares, apart = totals
    expected = n * squares - 2 * firsts * seconds
    return np.where(expected > 1e-12 * n * squares, 1 - n * apart / expected, np.nan)


@dataclass(frozen=True, slots=True)
class _Fleiss:
    counts: Floats
    paired: Floats  # 1 where there are two votes or more
    agreeing: Floats  # share of a row's pairs
    shares: Tally
    bounds: tuple[float, float] = (-1.0, 1.0)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = counts @ (self.paired * self.agreeing) / (counts @ self.paired)
        used = self.shares.at(counts) / counts.sum(axis=1)[:, None]
        return beyond_chance(observed, np.einsum("rv,rv->r", used, used))

    def variance(self) -> float:
        n, paired = self.counts.sum(), self.counts @ self.paired
        used = self.shares.of(self.counts) / n
        observed = float(self.counts @ (self.paired * self.agreeing) / paired)
        expected = float(used @ used)
        more_observed = self.paired * (self.agreeing - observed) / paired
        more_expected = 2 * (self.shares.back(used) - expected) / n
        return _kappa_variance(observed, expected, (more_observed, more_expected), self.counts)


def fleiss(patterns: Patterns, resampling: Resampling) -> Estimate:
    """Fleiss' kappa (1971) of all voters, who need not be the same for each row.

    Where rows have different numbers of votes it is Gwet's form (2014): observed agreement is the mean over rows with
    two votes or more, use of a value is the mean over rows with any of its share in their votes. `n`: rows with a vote.
    """
    voted = patterns.with_votes(1)
    pairs = voted.cast * (voted.cast - 1) / 2
    statistic = _Fleiss(
        voted.counts,
        (pairs > 0).astype(np.float64),
        agreeing_pairs(voted) / np.maximum(pairs, 1),
        tally(voted.codes, 1 / voted.cast, voted.values),
    )
    return resampling.estimate(statistic, ONE_VALUE if pairs.any() else NO_PAIRS)
