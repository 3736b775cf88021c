"""Krippendorff's alpha: as published, and as defined on pairs of votes."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus import alpha
from batchllm.consensus.bootstrap import Resampling
from batchllm.consensus.patterns import Patterns, patterns_of

NO_INTERVALS = Resampling(0)
GAP = -1
#: Krippendorff 2011, section C: four observers of twelve units (columns), values 1 to 5 as codes.
RELIABILITY_DATA = [
    [0, 1, 2, 2, 1, 0, 3, 0, 1, GAP, GAP, GAP],
    [0, 1, 2, 2, 1, 1, 3, 0, 1, 4, GAP, 2],
    [GAP, 2, 2, 2, 1, 2, 3, 1, 1, 4, 0, GAP],
    [0, 1, 2, 2, 1, 3, 3, 0, 1, 4, 0, GAP],
]


def of_rows(rows: Sequence[Sequence[int]], values: int) -> Patterns:
    return patterns_of(np.array(rows, np.int32), values)


def numbers_of(patterns: Patterns) -> np.ndarray:
    return np.where(patterns.codes < 0, np.nan, patterns.codes)


def test_the_published_example_with_missing_votes() -> None:
    patterns = of_rows(np.array(RELIABILITY_DATA).T.tolist(), 5)
    found = [
        alpha.nominal(patterns, NO_INTERVALS),
        alpha.ordinal(patterns, NO_INTERVALS),
        alpha.interval(numbers_of(patterns), patterns.counts, NO_INTERVALS),
    ]
    assert [round(each.value or 0, 3) for each in found] == [0.743, 0.815, 0.849]
    assert [each.n for each in found] == [11, 11, 11]  # the last unit has one vote


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("abaaaaaaba", "bbbaabaaaa", 0.095), ("aabbdcccedda", "babbbccceddd", 0.692)],
)
def test_the_published_examples_of_two_observers(first: str, second: str, expected: float) -> None:
    """Krippendorff 2011, sections A and B."""
    rows = [[ord(one) - ord("a"), ord(other) - ord("a")] for one, other in zip(first, second, strict=True)]
    assert alpha.nominal(of_rows(rows, 5), NO_INTERVALS).value == pytest.approx(expected, abs=5e-4)


def by_definition(rows: list[list[int]], apart: Callable[[int, int], float]) -> float:
    rows = [votes for row in rows if len(votes := [vote for vote in row if vote >= 0]) > 1]
    everything = [vote for row in rows for vote in row]
    total = len(everything)
    observed = sum(
        apart(one, other) / (len(row) - 1)
        for row in rows
        for at, one in enumerate(row)
        for to, other in enumerate(row)
        if at != to
    )
    expected = sum(apart(one, other) for one in everything for other in everything)
    return 1 - observed * (total - 1) / expected if expected else math.nan


def ordinal_distance(rows: list[list[int]]) -> Callable[[int, int], float]:
    used = Counter(vote for row in rows if sum(v >= 0 for v in row) > 1 for vote in row if vote >= 0)

    def apart(one: int, other: int) -> float:
        low, high = min(one, other), max(one, other)
        return (sum(used[value] for value in range(low, high + 1)) - (used[low] + used[high]) / 2) ** 2

    return apart


votes = st.integers(1, 5).flatmap(
    lambda voters: st.lists(
        st.lists(st.integers(-1, 4), min_size=voters, max_size=voters), min_size=1, max_size=12
    )
)


@given(votes)
def test_it_is_what_its_definition_on_pairs_says(rows: list[list[int]]) -> None:
    patterns = of_rows(rows, 5)
    scales = [
        (alpha.nominal(patterns, NO_INTERVALS), lambda one, other: float(one != other)),
        (alpha.ordinal(patterns, NO_INTERVALS), ordinal_distance(rows)),
        (
            alpha.interval(numbers_of(patterns), patterns.counts, NO_INTERVALS),
            lambda one, other: float(one - other) ** 2,
        ),
    ]
    for found, apart in scales:
        expected = by_definition(rows, apart)
        assert found.value is None if math.isnan(expected) else found.value == pytest.approx(expected)
        assert (found.why is None) == (found.value is not None)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([[0], [1]], "no row has two votes"),
        ([[GAP, GAP], [GAP, GAP]], "no row has two votes"),
        ([[0, GAP], [GAP, 1]], "no row has two votes"),
        ([[1, 1], [1, 1]], "all votes are for one value"),
    ],
)
def test_what_cannot_be_computed_says_why(rows: list[list[int]], why: str) -> None:
    patterns = of_rows(rows, 2)
    resampling = Resampling(50)
    for found in (
        alpha.nominal(patterns, resampling),
        alpha.ordinal(patterns, resampling),
        alpha.interval(numbers_of(patterns), patterns.counts, resampling),
    ):
        assert (found.value, found.low, found.high, found.why) == (None, None, None, why)


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2, max_size=8))
def test_the_interval_scale_knows_no_unit_and_no_origin(rows: list[list[int]]) -> None:
    numbers, counts = np.array(rows, np.float64), np.ones(len(rows))
    plain = alpha.interval(numbers, counts, NO_INTERVALS).value
    moved = alpha.interval(numbers * 1e300 - 5e300, counts, NO_INTERVALS).value
    assert moved == (None if plain is None else pytest.approx(plain))


def test_the_largest_numbers_and_the_closest_ones() -> None:
    largest = np.array([[1.7e308, -1.7e308], [1.7e308, 1.7e308], [-1.7e308, -1.7e308]])
    closest = np.array([[1e9, 1e9 + 1e-6], [1e9 + 1e-6, 1e9 + 1e-6], [1e9, 1e9]])
    found = [alpha.interval(numbers, np.ones(3), NO_INTERVALS).value for numbers in (largest, closest)]
    assert found == [pytest.approx(4 / 9), pytest.approx(4 / 9)]
