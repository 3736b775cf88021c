"""How far votes that are numbers are from the right ones. Few are hit exactly, so accuracy says little of them.

Pearson's correlation tells whether a voter orders and spaces as the right numbers do, Spearman's whether it orders so;
either is 1 for a voter that is always twice too high, which the errors show.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchllm.consensus.bootstrap import Estimate, Resampling
from batchllm.consensus.patterns import Floats
from batchllm.consensus.sums import Sums, centred
from batchllm.consensus.votes import Numbers

NOTHING_TO_COMPARE = "no row has both a vote and a right number"
CONSTANT = "all votes, or all right numbers, are the same"
TOO_LARGE = "the numbers are too far apart"


@dataclass(frozen=True, slots=True)
class Deviation:
    """`bias`: mean of vote minus right number. `infinite`: rows left out as either is. Spearman has no interval."""

    mean_absolute: Estimate
    root_mean_square: Estimate
    bias: Estimate
    pearson: Estimate
    spearman: Estimate
    infinite: int


def deviation(right: Numbers, voted: Numbers, resampling: Resampling) -> Deviation:
    """Of the rows that have both, NaN being none."""
    known = ~(np.isnan(right) | np.isnan(voted))
    finite = known & np.isfinite(right) & np.isfinite(voted)
    right, voted = right[finite], voted[finite]
    unit = float(max(np.abs(right).max(initial=0.0), np.abs(voted).max(initial=0.0))) or 1.0
    errors = voted / unit - right / unit  # squares of numbers would overflow where these do not
    undefined = TOO_LARGE if len(right) else NOTHING_TO_COMPARE
    rows = np.ones(len(errors))
    features = np.stack([errors, np.abs(errors), errors**2, rows])

    def mean_of(feature: int, least: float, root: float = 1.0) -> Estimate:
        def value(totals: Floats) -> Floats:
            mean: Floats = totals[feature] / totals[3]
            return unit * mean**root

        return resampling.estimate(Sums(features, rows, value, (least, np.inf)), undefined)

    return Deviation(
        mean_absolute=mean_of(1, 0.0),
        root_mean_square=mean_of(2, 0.0, 0.5),
        bias=mean_of(0, -np.inf),
        pearson=correlation(right, voted, resampling),
        spearman=correlation(midranks(right), midranks(voted), Resampling(0)),
        infinite=int(np.count_nonzero(known & ~finite)),
    )


def correlation(first: Numbers, second: Numbers, resampling: Resampling) -> Estimate:
    """Pearson's, of finite numbers."""
    first, second = centred(first), centred(second)
    rows = np.ones(len(first))
    features = np.stack([rows, first, second, first**2, second**2, first * second])
    statistic = Sums(features, rows, _pearson, (-1.0, 1.0))
    return resampling.estimate(statistic, CONSTANT if len(first) else NOTHING_TO_COMPARE)


def _pearson(totals: Floats) -> Floats:
    n, firsts, seconds, first_squares, second_squares, products = totals
    first_spread, second_spread = n * first_squares - firsts**2, n * second_squares - seconds**2
    is_spread = (first_spread > 1e-12 * n * first_squares) & (second_spread > 1e-12 * n * second_squares)
    values = (n * products - firsts * seconds) / np.sqrt(first_spread * second_spread)
    return np.where(is_spread, np.clip(values, -1.0, 1.0), np.nan)


def midranks(numbers: Numbers) -> npt.NDArray[np.float64]:
    """Numbers below each, and half of those equal to it."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - counts / 2)[places]
    return ranks
