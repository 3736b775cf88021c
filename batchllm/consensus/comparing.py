"""Is one voter better than another? On the same rows, so that hard rows weigh on both.

For labels: McNemar's test of the rows where only one of the two is right, and the difference of their accuracies. For
numbers: the sign test, which is the same test, of the rows where one is nearer to the right number, and the difference
of their mean absolute errors. p-values are of one pair each: who looks at many pairs finds some small ones by chance.
"""

import math
from dataclasses import dataclass

import numpy as np

from batchllm.consensus.bootstrap import Estimate, Resampling
from batchllm.consensus.sums import Sums, ratio
from batchllm.consensus.votes import Codes, Numbers

NO_ROWS = "no row has a right value and votes of both"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of `n` rows, those where only the first voter is right (or nearer), those where only the second is.

    `difference`: of accuracies, above 0 the first is better; of mean absolute errors, below 0 it is.
    """

    n: int
    only_first: int
    only_second: int
    p_value: float
    difference: Estimate


def compare_labels(right: Codes, first: Codes, second: Codes, resampling: Resampling) -> Comparison:
    """Over rows with a right value and both votes; any negative code is none."""
    known = (right >= 0) & (first >= 0) & (second >= 0)
    first_hits, second_hits = (first == right)[known], (second == right)[known]
    n = len(first_hits)
    only_first = int(np.count_nonzero(first_hits & ~second_hits))
    only_second = int(np.count_nonzero(second_hits & ~first_hits))
    counts = np.array([only_first, only_second, n - only_first - only_second], np.float64)
    statistic = ratio(np.array([1.0, -1.0, 0.0]), np.ones(3), counts, (-1.0, 1.0))
    return Comparison(
        n, only_first, only_second, mcnemar(only_first, only_second), resampling.estimate(statistic, NO_ROWS)
    )


def compare_numbers(right: Numbers, first: Numbers, second: Numbers, resampling: Resampling) -> Comparison:
    """Over rows where all three are finite numbers."""
    known = np.isfinite(right) & np.isfinite(first) & np.isfinite(second)
    right, first, second = right[known], first[known], second[known]
    unit = float(max(np.abs(each).max(initial=0.0) for each in (right, first, second))) or 1.0
    errors = np.abs(first / unit - right / unit) - np.abs(second / unit - right / unit)
    only_first, only_second = int(np.count_nonzero(errors < 0)), int(np.count_nonzero(errors > 0))
    rows = np.ones(len(errors))
    statistic = Sums(np.stack([errors, rows]), rows, lambda totals: unit * (totals[0] / totals[1]))
    return Comparison(
        len(errors),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
        resampling.estimate(statistic, NO_ROWS),
    )


def mcnemar(only_first: int, only_second: int, *, is_mid: bool = True) -> float:
    """Two-sided p-value of so uneven a split if each of these rows were a fair coin: exact, from the binomial.

    The mid-p counts the split itself half. It keeps the level where the exact test is far below it, and needs no other
    test for many rows (Fagerland, Lydersen, Laake 2013). 1 where the two never differ.
    """
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    itself = math.exp(
        math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1) - n * math.log(2)
    )
    fewer = np.arange(least, 0, -1)
    tail = itself * (1.0 + float(np.cumprod(fewer / (n - fewer + 1)).sum()))
    if 2 * least == n:
        return 1 - itself / 2 if is_mid else 1.0
    return 2 * tail - itself if is_mid else 2 * tail
