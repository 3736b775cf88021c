"""Percent agreement and kappas: published tables, scikit-learn, and plain loops over pairs of votes."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus import agreement
from batchllm.consensus.bootstrap import Estimate, Resampling
from batchllm.consensus.patterns import Patterns, patterns_of

NO_INTERVALS = Resampling(0)
GAP = -1
#: Fleiss' kappa as Wikipedia works it: 14 raters, 10 subjects, 5 categories; votes by subject and category.
FLEISS_TABLE = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
#: Krippendorff's four observers, which Gwet's Handbook (2014) uses too; irrCAC gives Fleiss' kappa 0.76117 for it.
FOUR_OBSERVERS = [
    [0, 0, GAP, 0],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [2, 2, 2, 2],
    [1, 1, 1, 1],
    [0, 1, 2, 3],
    [3, 3, 3, 3],
    [0, 0, 1, 0],
    [1, 1, 1, 1],
    [GAP, 4, 4, 4],
    [GAP, GAP, 0, 0],
    [GAP, 2, GAP, GAP],
]


def of_rows(rows: list[list[int]], values: int = 5) -> Patterns:
    return patterns_of(np.array(rows, np.int32), values)


@pytest.fixture(scope="module")
def kappa_score() -> Callable[..., Any]:
    from sklearn.metrics import cohen_kappa_score

    return cohen_kappa_score


def test_the_published_fleiss_example() -> None:
    rows = [[value for value, votes in enumerate(subject) for _ in range(votes)] for subject in FLEISS_TABLE]
    found = agreement.fleiss(of_rows(rows), NO_INTERVALS)
    assert found == Estimate(pytest.approx(0.2099, abs=5e-5), None, None, 10)
    assert agreement.percent(of_rows(rows), NO_INTERVALS).value == pytest.approx(0.3780, abs=5e-5)


def test_the_published_fleiss_example_with_missing_votes() -> None:
    found = agreement.fleiss(of_rows(FOUR_OBSERVERS), NO_INTERVALS)
    assert found == Estimate(pytest.approx(0.76117, abs=5e-6), None, None, 12)


def test_the_published_cohen_example() -> None:
    """Wikipedia's: of 50 grants both readers say yes to 20 and no to 15, A alone to 5, B alone to 10."""
    pair = of_rows([[1, 1]] * 20 + [[1, 0]] * 5 + [[0, 1]] * 10 + [[0, 0]] * 15)
    assert agreement.cohen(pair, NO_INTERVALS) == Estimate(pytest.approx(0.4), None, None, 50)
    assert agreement.percent(pair, NO_INTERVALS) == Estimate(pytest.approx(0.7), None, None, 50)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=20))
def test_kappas_of_two_are_those_of_scikit_learn(
    kappa_score: Callable[..., Any], rows: list[list[int]]
) -> None:
    first, second = zip(*rows, strict=True)
    if len({*first, *second}) == 1:
        return  # 0 / 0, of which the other makes a warning
    pair = of_rows(rows)
    assert agreement.cohen(pair, NO_INTERVALS).value == pytest.approx(kappa_score(first, second), abs=1e-12)
    weighted = kappa_score(first, second, weights="quadratic", labels=range(4))
    found = agreement.quadratic(pair.codes.astype(np.float64), pair.counts, NO_INTERVALS)
    assert found.value == pytest.approx(weighted, abs=1e-12)


votes = st.integers(1, 5).flatmap(
    lambda voters: st.lists(
        st.lists(st.integers(-1, 3), min_size=voters, max_size=voters), min_size=1, max_size=12
    )
)


def without_missing(rows: list[list[int]]) -> list[list[int]]:
    return [[vote for vote in row if vote >= 0] for row in rows]


def close(found: Estimate, expected: float | None) -> bool:
    return found.value is None if expected is None else found.value == pytest.approx(expected, abs=1e-12)


@given(votes)
def test_percent_agreement_counts_pairs(rows: list[list[int]]) -> None:
    pairs = [one == other for row in without_missing(rows) for one, other in combinations(row, 2)]
    found = agreement.percent(of_rows(rows), NO_INTERVALS)
    assert close(found, sum(pairs) / len(pairs) if pairs else None)
    assert found.n == sum(len(row) > 1 for row in without_missing(rows))


@given(votes)
def test_fleiss_is_the_mean_over_rows_beyond_chance(rows: list[list[int]]) -> None:
    voted = [row for row in without_missing(rows) if row]
    by_row = [
        sum(one == other for one, other in combinations(row, 2)) / math.comb(len(row), 2)
        for row in voted
        if len(row) > 1
    ]
    used = [sum(row.count(value) / len(row) for row in voted) / max(1, len(voted)) for value in range(4)]
    chance = sum(share**2 for share in used)
    is_defined = bool(by_row) and chance < 1 - 1e-9
    expected = (sum(by_row) / len(by_row) - chance) / (1 - chance) if is_defined else None
    assert close(agreement.fleiss(of_rows(rows), NO_INTERVALS), expected)


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
    found = agreement.fleiss(of_rows(rows), Resampling(50))
    assert (found.value, found.low, found.high, found.why) == (None, None, None, why)
    if "two votes" in why:
        assert agreement.percent(of_rows(rows), Resampling(50)).why == why


def test_two_voters_that_never_met_or_never_differed_have_no_kappa() -> None:
    apart, alike = of_rows([[0, GAP], [GAP, 1]]), of_rows([[2, 2], [2, 2], [2, GAP]])
    resampling = Resampling(50)
    assert agreement.cohen(apart, resampling) == Estimate(None, None, None, 0, "no row has votes of both")
    assert agreement.cohen(alike, resampling) == Estimate(None, None, None, 2, "all votes are for one value")
    numbers = np.array([[1.0, np.nan], [np.inf, 2.0], [3.0, 3.0]])
    assert agreement.quadratic(numbers[:2], np.ones(2), resampling).why == "no row has votes of both"
    assert agreement.quadratic(numbers, np.ones(3), resampling).why == "all votes are for one value"


def test_two_voters_of_one_value_each_agree_as_chance_has_it() -> None:
    assert agreement.cohen(of_rows([[0, 1], [0, 1]]), NO_INTERVALS).value == 0


def test_as_many_values_as_votes_take_no_table_of_values() -> None:
    """200,000 texts squared would be 320 GB."""
    texts = np.arange(200_000, dtype=np.int32).reshape(-1, 2)
    texts[::2, 1] = texts[::2, 0]
    patterns = patterns_of(texts, 200_000)
    for found in (agreement.cohen(patterns, Resampling()), agreement.fleiss(patterns, Resampling())):
        assert found.value == pytest.approx(0.5, abs=1e-4)
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0.5 < found.high
