"""Errors and correlations of numbers, and what is left out of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.bootstrap import Resampling
from batchllm.consensus.deviation import deviation

NO_INTERVALS = Resampling(0)
numbers = st.integers(-20, 20).map(float)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30))
def test_errors_and_correlations_are_the_textbook_ones(rows: list[tuple[float, float]]) -> None:
    right, voted = np.array(rows).T
    found = deviation(right, voted, NO_INTERVALS)
    assert found.mean_absolute.value == pytest.approx(np.abs(voted - right).mean())
    assert found.root_mean_square.value == pytest.approx(np.sqrt(((voted - right) ** 2).mean()))
    assert found.bias.value == pytest.approx((voted - right).mean(), abs=1e-12)
    if np.ptp(right) == 0 or np.ptp(voted) == 0:
        assert found.pearson.why == found.spearman.why == "all votes, or all right numbers, are the same"
        return
    assert found.pearson.value == pytest.approx(np.corrcoef(right, voted)[0, 1], abs=1e-9)
    ranks = [[(side < value).sum() + (side == value).sum() / 2 for value in side] for side in (right, voted)]
    assert found.spearman.value == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-9)


def test_missing_and_infinite_numbers_are_left_out_and_the_latter_counted() -> None:
    right = np.array([1.0, 2.0, np.nan, 4.0, np.inf, 6.0])
    voted = np.array([1.0, 4.0, 3.0, np.nan, 5.0, -np.inf])
    found = deviation(right, voted, NO_INTERVALS)
    assert (found.mean_absolute.value, found.mean_absolute.n, found.infinite) == (1.0, 2, 2)


def test_nothing_to_compare_is_said() -> None:
    found = deviation(np.array([np.nan, np.inf]), np.array([1.0, 2.0]), Resampling())
    assert {found.mean_absolute.why, found.pearson.why} == {"no row has both a vote and a right number"}


def test_the_largest_numbers_have_errors_or_a_reason() -> None:
    near = deviation(np.array([1e308, -1e308]), np.array([1.5e308, -1e308]), NO_INTERVALS)
    assert near.root_mean_square.value == pytest.approx(np.sqrt(0.5) * 5e307)
    assert near.pearson.value == pytest.approx(1.0)
    far = deviation(np.array([1.7e308]), np.array([-1.7e308]), NO_INTERVALS)
    assert far.mean_absolute.why == "the numbers are too far apart"


def test_intervals_hold_the_value() -> None:
    dice = np.random.default_rng(4)
    right = dice.normal(size=6_000)
    voted = right + dice.normal(0.5, 1.0, 6_000)
    for resampling in (Resampling(200), Resampling(200, most_patterns=10_000)):
        found = deviation(right, voted, resampling)
        for each, true in ((found.bias, 0.5), (found.root_mean_square, 1.25**0.5), (found.pearson, 0.5**0.5)):
            assert each.low is not None
            assert each.high is not None
            assert each.low < true < each.high
            assert each.high - each.low < 0.1
