"""Weights: as given, by name; and by accuracy where the right values are known."""

import math

import numpy as np
import pytest

from batchllm.consensus.votes import LabelVotes
from batchllm.consensus.weighting import WeightsError, given_weights, log_odds, weights_from_gold


def votes_of(right: list[int], rows: int = 100, values: int = 2) -> tuple[LabelVotes, np.ndarray]:
    """Voters that are right in so many of the rows; gold is the first value everywhere."""
    codes = np.array([[0 if row < good else 1 for good in right] for row in range(rows)], np.int32)
    voters = tuple(f"v{number}" for number in range(len(right)))
    return LabelVotes(voters, tuple(map(str, range(values))), codes), np.zeros(rows, np.int32)


def test_weights_are_by_lane_and_samples_have_that_of_theirs() -> None:
    weights = {"swift": 2, "deep": 3.5}
    assert given_weights(weights, ["deep", "swift"]) == [3.5, 2.0]
    assert given_weights(weights, ["swift#1", "swift#2", "deep"]) == [2.0, 2.0, 3.5]


def test_all_names_that_do_not_fit_are_told_at_once() -> None:
    with pytest.raises(WeightsError) as raised:
        given_weights({"swift": 1, "swfit": 2, "dep": 1}, ["swift", "deep", "calm"])
    told = str(raised.value)
    assert "weights has swfit, dep, of whom there is no vote" in told
    assert "weights lacks deep, calm" in told
    assert "the voters are swift, deep, calm" in told


def test_who_is_right_more_often_weighs_more_and_who_is_always_right_not_endlessly() -> None:
    half, most, all_ = weights_from_gold(*votes_of([50, 80, 100]))
    assert half == 0.0
    assert most == pytest.approx(math.log(81 / 21))
    assert all_ == pytest.approx(math.log(101))


def test_worse_than_chance_is_no_say_and_never_less() -> None:
    weights = weights_from_gold(*votes_of([90, 0, 49]))
    assert weights[1:] == [0.0, 0.0]


def test_chance_depends_on_how_many_values_there_are() -> None:
    votes, gold = votes_of([25, 60], values=4)
    chance, better = weights_from_gold(votes, gold)
    assert chance == 0.0
    assert better == pytest.approx(math.log(60.5 * 3 / 41.5))


def test_rows_without_gold_and_missing_votes_count_for_nobody() -> None:
    votes, gold = votes_of([80, 80])
    votes.codes[:50, 1] = -1
    gold[90:] = -1
    assert weights_from_gold(votes, gold) == pytest.approx([math.log(81 / 11), math.log(31 / 11)])


def test_who_has_not_voted_beside_gold_has_no_say() -> None:
    votes, gold = votes_of([80, 80])
    votes.codes[:, 1] = -1
    assert weights_from_gold(votes, gold)[1] == 0.0


def test_gold_that_weighs_nobody_is_told() -> None:
    votes, gold = votes_of([80, 80])
    with pytest.raises(WeightsError, match="no vote stands beside a known value"):
        weights_from_gold(votes, np.full_like(gold, -1))
    with pytest.raises(WeightsError, match="100 rows with gold no voter is right more often than by chance"):
        weights_from_gold(*votes_of([50, 20]))


def test_gold_outside_the_labels_is_a_vote_that_nobody_cast() -> None:
    """Its code is beyond all of theirs: each voter errs there."""
    votes, gold = votes_of([80])
    gold[:40] = 7
    with pytest.raises(WeightsError, match="by chance"):
        weights_from_gold(votes, gold)


def test_certainty_is_finite() -> None:
    weights = log_odds(np.array([0.0, 0.5, 1.0]), 2)
    assert weights[0] == weights[1] == 0.0
    assert math.isfinite(weights[2])
    assert weights[2] > 10
