"""Intervals: the same for a seed, those of the rows drawn one by one, and right about as often as they say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchllm.consensus import agreement, alpha
from batchllm.consensus.accuracy import confusion
from batchllm.consensus.bootstrap import Estimate, Resampling, Statistic
from batchllm.consensus.comparing import compare_labels
from batchllm.consensus.deviation import deviation
from batchllm.consensus.patterns import Patterns, patterns_of

#: Each measure of three voters' rows (codes below 4), as a function of how its intervals are made.
MEASURES: dict[str, Callable[[Patterns, Resampling], Estimate]] = {
    "percent": agreement.percent,
    "fleiss": agreement.fleiss,
    "cohen": lambda patterns, how: agreement.cohen(patterns.of(0, 1), how),
    "quadratic": lambda patterns, how: agreement.quadratic(numbers(patterns)[:, :2], patterns.counts, how),
    "nominal": alpha.nominal,
    "ordinal": alpha.ordinal,
    "interval": lambda patterns, how: alpha.interval(numbers(patterns), patterns.counts, how),
    "accuracy": lambda patterns, how: matched(patterns).accuracy(how),
    "macro_f1": lambda patterns, how: matched(patterns).macro_f1(how),
    "difference": lambda patterns, how: compare_labels(*rows_of(patterns).T, how).difference,
    "bias": lambda patterns, how: deviation(*numbers_of_rows(patterns), how).bias,
    "root_mean_square": lambda patterns, how: deviation(*numbers_of_rows(patterns), how).root_mean_square,
    "pearson": lambda patterns, how: deviation(*numbers_of_rows(patterns), how).pearson,
}


#: Where one asks for several estimates: which of them it is.
PLACES = {"root_mean_square": 1, "bias": 2, "pearson": 3}


def numbers(patterns: Patterns) -> np.ndarray:
    return np.where(patterns.codes < 0, np.nan, patterns.codes)


def rows_of(patterns: Patterns) -> np.ndarray:
    return np.repeat(patterns.codes, patterns.counts.astype(int), axis=0)


def numbers_of_rows(patterns: Patterns) -> np.ndarray:
    rows = rows_of(patterns)
    return np.where(rows < 0, np.nan, rows)[:, :2].T


def matched(patterns: Patterns):
    rows = rows_of(patterns)
    return confusion(rows[:, 0], rows[:, 1], patterns.values)


class Probe(Resampling):
    """Keeps the statistics that it is asked to estimate."""

    def __init__(self) -> None:
        super().__init__(0)
        object.__setattr__(self, "seen", list[Statistic]())

    def estimate(self, statistic: Statistic, undefined: str) -> Estimate:
        self.seen.append(statistic)
        return super().estimate(statistic, undefined)


def sample(dice: np.random.Generator, rows: int, hit: float = 0.8, labels: int = 3) -> np.ndarray:
    """Rows × 3 voters, each right with probability `hit`, else any other label; a tenth of the votes is missing."""
    right = dice.integers(0, labels, rows)[:, None]
    wrong = (right + dice.integers(1, labels, (rows, 3))) % labels
    codes = np.where(dice.random((rows, 3)) < hit, right, wrong)
    return np.where(dice.random((rows, 3)) < 0.1, -1, codes).astype(np.int32)


@pytest.mark.parametrize("name", MEASURES)
@given(rows=st.lists(st.tuples(*[st.integers(-1, 3)] * 3), min_size=3, max_size=12))
def test_the_variance_is_that_of_how_a_value_moves_with_a_row_more(
    name: str, rows: list[tuple[int, ...]]
) -> None:
    probe = Probe()
    estimate = MEASURES[name](patterns_of(np.array(rows, np.int32), 4), probe)
    assume(estimate.value is not None)
    statistic = probe.seen[PLACES.get(name, 0)]
    step = 1e-4
    steps = np.eye(len(statistic.counts)) * step
    slopes = (statistic.at(statistic.counts + steps) - statistic.at(statistic.counts - steps)) / (2 * step)
    assume(name != "root_mean_square" or estimate.value > 0)  # a root has no slope at 0
    mean = statistic.counts @ slopes / statistic.counts.sum()
    expected = statistic.counts @ (slopes - mean) ** 2
    assert statistic.variance() == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_the_limit_is_the_interval_of_many_rows(name: str) -> None:
    patterns = patterns_of(sample(np.random.default_rng(7), 1_500), 3)
    drawn = MEASURES[name](patterns, Resampling(1_000, most_patterns=10_000))
    limit = MEASURES[name](patterns, Resampling(1, most_patterns=0))
    assert drawn.value == limit.value
    width = drawn.high - drawn.low
    assert limit.high - limit.low == pytest.approx(width, rel=0.12)
    assert limit.low == pytest.approx(drawn.low, abs=0.12 * width)
    assert limit.high == pytest.approx(drawn.high, abs=0.12 * width)


@pytest.mark.parametrize("name", MEASURES)
def test_a_seed_gives_one_interval_and_another_seed_another(name: str) -> None:
    patterns = patterns_of(sample(np.random.default_rng(3), 97), 3)
    first, again, other = (MEASURES[name](patterns, Resampling(100, seed)) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.low < first.value < first.high


@pytest.mark.parametrize("name", MEASURES)
def test_no_resamples_and_a_single_row_give_no_interval(name: str) -> None:
    rows = sample(np.random.default_rng(3), 97)
    without = MEASURES[name](patterns_of(rows, 3), Resampling(0))
    assert without.value is not None
    assert (without.low, without.high) == (None, None)
    single = MEASURES[name](patterns_of(np.array([[0, 1, 1]], np.int32), 3), Resampling(10))
    assert (single.low, single.high) == (None, None)


def test_it_is_the_bootstrap_of_rows_drawn_one_by_one() -> None:
    rows = sample(np.random.default_rng(5), 60)
    found = alpha.nominal(patterns_of(rows, 3), Resampling(2_000))
    dice = np.random.default_rng(11)
    drawn = [
        alpha.nominal(patterns_of(rows[dice.integers(0, 60, 60)], 3), Resampling(0)).value
        for _ in range(2_000)
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.025)


@pytest.mark.parametrize(("others", "has_interval"), [(2, True), (1, True), (0.5, False)])
def test_resamples_without_a_value_are_left_out_while_half_have_one(
    others: float, has_interval: bool
) -> None:
    """Alpha has none where all votes are for one value. Of a million rows, `others` as a mean have another one."""
    counts = np.array([1e6 - others, others])
    found = alpha.nominal(Patterns(np.array([[0, 0], [0, 1]], np.int32), counts, 2), Resampling(400))
    assert found.value == pytest.approx(0.0, abs=1e-5)
    assert (found.low is not None) == has_interval


@pytest.mark.parametrize(("n", "least"), [(3, 0.2924), (10, 0.6915), (50, 0.9289), (1_000_000, 0.9999963)])
def test_shares_of_rows_that_all_say_the_same_have_the_exact_interval(n: int, least: float) -> None:
    """Clopper and Pearson's, from tables: three right of three may be a voter that errs in every second row."""
    same = np.ones(n, np.int32)
    every, none = (confusion(same, voted, 2).accuracy(Resampling(100)) for voted in (same, 1 - same))
    assert (every.low, every.high) == pytest.approx((least, 1.0), abs=5e-5)
    assert (none.low, none.high) == pytest.approx((0.0, 1 - least), abs=5e-5)
    agreed = agreement.percent(patterns_of(np.column_stack([same, same]), 2), Resampling(100))
    assert (agreed.value, agreed.low, agreed.high) == (1.0, every.low, 1.0)


def test_what_is_no_mean_over_rows_has_no_interval_where_all_say_the_same() -> None:
    patterns = patterns_of(np.array([[0, 0], [1, 1], [0, 0]], np.int32), 2)
    for found in (
        alpha.nominal(patterns, Resampling(100)),
        agreement.fleiss(patterns, Resampling(100)),
        agreement.cohen(patterns, Resampling(100)),
    ):
        assert (found.value, found.low, found.high) == (1.0, None, None)


@pytest.mark.parametrize("most_patterns", [0, 10_000])
def test_intervals_hold_the_truth_about_as_often_as_they_say(most_patterns: int) -> None:
    """Two votes agree with 0.8^2 + 0.2^2 / 2 = 0.66, by chance with 1/3: alpha 0.49; accuracy against another 0.66."""
    dice = np.random.default_rng(23)
    how = Resampling(200, most_patterns=most_patterns)
    held = {"alpha": 0, "accuracy": 0}
    for _ in range(200):
        patterns = patterns_of(sample(dice, 300), 3)
        for name, found, true in (
            ("alpha", alpha.nominal(patterns, how), 0.49),
            ("accuracy", matched(patterns).accuracy(how), 0.66),
        ):
            held[name] += found.low <= true <= found.high
    assert all(180 <= times <= 198 for times in held.values()), held  # 190 of 200, within 3 standard errors
