"""McNemar's test is the binomial's, and the difference is that of the two voters on the same rows."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.bootstrap import Estimate, Resampling
from batchllm.consensus.comparing import compare_labels, compare_numbers, mcnemar

NO_INTERVALS = Resampling(0)


def test_published_examples() -> None:
    """Bentur's 21 children, in Fagerland, Lydersen, Laake 2013 (1 and 7), and the two examples of Wikipedia."""
    assert round(mcnemar(1, 7, is_mid=False), 4) == 0.0703
    assert round(mcnemar(1, 7), 4) == 0.0391
    assert round(mcnemar(6, 16, is_mid=False), 3) == 0.052
    assert round(mcnemar(6, 16), 3) == 0.035
    assert mcnemar(121, 59) == pytest.approx(3.3e-6, rel=0.02)


@given(st.integers(0, 60), st.integers(0, 60))
def test_it_is_the_sum_of_the_binomial(first: int, second: int) -> None:
    n = first + second
    weights = [comb(n, k) / 2**n for k in range(n + 1)]
    itself = weights[first]
    more_extreme = sum(weight for k, weight in enumerate(weights) if abs(2 * k - n) > abs(first - second))
    as_extreme = sum(weight for k, weight in enumerate(weights) if abs(2 * k - n) == abs(first - second))
    assert mcnemar(first, second, is_mid=False) == pytest.approx(more_extreme + as_extreme)
    if n:
        assert mcnemar(first, second) == pytest.approx(more_extreme + as_extreme / 2)
    assert mcnemar(first, second) == mcnemar(second, first)
    assert itself > 0


def test_many_rows_need_no_other_test() -> None:
    assert mcnemar(500_000, 501_000) == pytest.approx(0.3176, abs=5e-4)  # the normal: 1000 / sqrt(1001000)
    assert mcnemar(0, 1_000_000) == 0.0
    assert mcnemar(0, 0) == 1.0


def test_labels_are_compared_where_all_three_are_known() -> None:
    right = np.array([0, 0, 0, 1, 1, -1, -2, 0], np.int32)
    first = np.array([0, 0, 1, 1, 1, 0, 0, -1], np.int32)
    second = np.array([0, 1, 0, 0, 1, 1, 1, 0], np.int32)
    found = compare_labels(right, first, second, NO_INTERVALS)
    assert (found.n, found.only_first, found.only_second) == (5, 2, 1)
    assert found.p_value == mcnemar(2, 1)
    assert found.difference == Estimate(pytest.approx(0.2), None, None, 5)


def test_numbers_are_compared_by_who_is_nearer() -> None:
    right = np.array([0.0, 0.0, 0.0, np.nan, np.inf, 0.0])
    first = np.array([1.0, -3.0, 2.0, 1.0, 1.0, 1.0])
    second = np.array([2.0, 1.0, -2.0, 5.0, 5.0, np.inf])
    found = compare_numbers(right, first, second, NO_INTERVALS)
    assert (found.n, found.only_first, found.only_second) == (3, 1, 1)
    assert found.difference.value == pytest.approx((1 + 3 + 2) / 3 - (2 + 1 + 2) / 3)


def test_no_row_to_compare_says_so() -> None:
    none = np.array([-1, 0], np.int32)
    found = compare_labels(none, none, none[::-1].copy(), Resampling())
    assert (found.n, found.p_value) == (0, 1.0)
    assert found.difference == Estimate(None, None, None, 0, "no row has a right value and votes of both")


def test_the_interval_of_the_difference_tells_a_better_voter_from_an_equal_one() -> None:
    """The same rows are drawn for both: two voters that make the same mistakes hardly differ anywhere."""
    dice = np.random.default_rng(1)
    right = dice.integers(0, 3, 2_000, np.int32)
    good = np.where(dice.random(2_000) < 0.8, right, (right + 1) % 3).astype(np.int32)
    better = np.where(dice.random(2_000) < 0.1, right, good).astype(np.int32)
    same = compare_labels(right, good, good.copy(), Resampling()).difference
    assert same.value == 0.0
    assert (same.low, same.high) == pytest.approx((-0.00184, 0.00184), abs=1e-5)
    found = compare_labels(right, better, good, Resampling()).difference
    assert found.low is not None
    assert found.low > 0
