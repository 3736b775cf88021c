"""The estimate against the paper's own, against plain Python, and against truth where it is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.consensus import dawid_skene
from batchllm.consensus.dawid_skene import Estimate, estimate
from batchllm.consensus.rules import decide
from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import LabelVotes

#: Dawid and Skene (1979), table 1: 45 patients, the first anaesthetist three times, four others once; classes 1 to 4.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212
1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111
1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111
2322222 1211111 2222222
""".split()  # noqa: SIM905
ANAESTHETISTS = [0, 0, 0, 1, 2, 3, 4]


def paper() -> LabelVotes:
    codes = np.array([[int(letter) - 1 for letter in patient] for patient in PATIENTS], np.int32)
    return LabelVotes(("1", "1'", "1''", "2", "3", "4", "5"), tuple("1234"), codes)


def election(
    rows: int, rates: list[list[list[float]]], prior: list[float], seed: int
) -> tuple[LabelVotes, np.ndarray]:
    """Votes of voters with these rates, and the right values."""
    dice = np.random.default_rng(seed)
    right = dice.choice(len(prior), rows, p=prior)
    columns = [(dice.random((rows, 1)) > np.cumsum(table, axis=1)[right]).sum(axis=1) for table in rates]
    codes = np.minimum(np.stack(columns, axis=1), len(prior) - 1).astype(np.int32)
    return LabelVotes(tuple(map(str, range(len(rates)))), tuple(map(str, range(len(prior)))), codes), right


def coin(accuracy: float, values: int) -> list[list[float]]:
    other = (1 - accuracy) / (values - 1)
    return [[accuracy if said == right else other for said in range(values)] for right in range(values)]


def test_the_paper_s_figures() -> None:
    """Its prevalences, and the error rates of its first anaesthetist (who sat three times)."""
    found = estimate(paper(), ANAESTHETISTS, smoothing=0)
    assert found.model == "confusion"
    assert found.converged
    assert found.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    assert found.error_rates is not None
    assert found.error_rates[0][:3] == pytest.approx(
        np.array([[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0]]), abs=0.005
    )
    assert np.array_equal(found.error_rates[0], found.error_rates[2])


def test_patients_of_the_paper_are_classified_with_certainty_but_for_few() -> None:
    votes = paper()
    found = decide(votes, Terms("weighted", 7, 4), estimate(votes, ANAESTHETISTS))
    assert np.count_nonzero(found.confidence < 0.9) <= 3


def slowly(
    votes: LabelVotes, smoothing: float, iterations: int
) -> tuple[list[float], list[list[list[float]]]]:
    """The same iterations in plain Python, row by row."""
    values, voters = range(len(votes.values)), range(len(votes.voters))
    rows = [row for row in votes.codes.tolist() if any(code >= 0 for code in row)]
    right = [[row.count(value) / sum(code >= 0 for code in row) for value in values] for row in rows]
    for round_ in range(iterations + 1):
        prior = [smoothing + sum(share[value] for share in right) for value in values]
        prior = [part / sum(prior) for part in prior]
        rates = []
        for voter in voters:
            table = []
            for value in values:
                said = [
                    smoothing
                    + sum(share[value] for row, share in zip(rows, right, strict=True) if row[voter] == code)
                    for code in values
                ]
                table.append([part / sum(said) for part in said])
            rates.append(table)
        if round_ == iterations:
            break
        for at, row in enumerate(rows):
            likely = [
                prior[value]
                * math.prod(rates[voter][value][row[voter]] for voter in voters if row[voter] >= 0)
                for value in values
            ]
            right[at] = [part / sum(likely) for part in likely]
    return prior, rates


@given(
    st.integers(2, 4).flatmap(
        lambda voters: st.lists(
            st.lists(st.integers(-1, 2), min_size=voters, max_size=voters), min_size=2, max_size=12
        )
    )
)
@settings(deadline=None, max_examples=25)
def test_patterns_with_counts_give_what_rows_one_by_one_give(rows: list[list[int]]) -> None:
    votes = LabelVotes(tuple(map(str, range(len(rows[0])))), tuple("abc"), np.array(rows, np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dawid_skene, "MOST_ITERATIONS", 4
        )  # between two equally good estimates the last bit would choose
        found = estimate(votes)
    if found.model == "none":
        return
    prior, rates = slowly(votes, dawid_skene.SMOOTHING, found.iterations)
    assert found.prior == pytest.approx(prior, abs=1e-9)
    assert found.error_rates == pytest.approx(np.array(rates), abs=1e-9)


def test_known_error_rates_are_found_again() -> None:
    rates = [
        [[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.2, 0.1, 0.7]],
        coin(0.8, 3),
        [[0.6, 0.4, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 1.0]],
        coin(0.55, 3),
        coin(0.7, 3),
    ]
    votes, right = election(40_000, rates, [0.5, 0.3, 0.2], seed=7)
    votes.codes[np.random.default_rng(8).random(votes.codes.shape) < 0.2] = -1
    found = estimate(votes)
    assert found.converged
    assert found.prior == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    assert found.error_rates == pytest.approx(np.array(rates), abs=0.04)
    decided = decide(votes, Terms("weighted", 5, 1), found)
    voted = decided.winner >= 0
    accuracy = np.mean(decided.winner[voted] == right[voted])
    assert np.mean(decided.confidence[voted]) == pytest.approx(accuracy, abs=0.01), (
        "it knows how sure it may be"
    )


def test_who_errs_by_habit_helps_and_weighs_nothing() -> None:
    """A voter that says the opposite is as good as one that is right, once that is known."""
    votes, right = election(
        5_000, [coin(0.75, 2), coin(0.75, 2), coin(0.75, 2), coin(0.02, 2)], [0.5, 0.5], seed=1
    )
    found = estimate(votes)
    assert found.accuracy == pytest.approx([0.75, 0.75, 0.75, 0.02], abs=0.03)
    assert found.weights[3] == 0.0
    decided = decide(votes, Terms("weighted", 4, 3), found)
    assert np.mean(decided.winner == right) > 0.95


def test_one_that_guesses_has_almost_no_say() -> None:
    votes, _ = election(
        20_000, [coin(0.9, 3), coin(0.9, 3), coin(0.9, 3), coin(1 / 3, 3)], [1 / 3] * 3, seed=2
    )
    weights = estimate(votes).weights
    assert weights[3] < 0.1 * weights[0]


def test_voters_that_always_agree_agree_with_certainty() -> None:
    codes = np.repeat(np.array([[0], [1], [0], [2]], np.int32), 3, axis=1)
    found = estimate(LabelVotes(tuple("abc"), tuple("xyz"), codes))
    assert found.converged
    assert len(set(found.weights)) == 1
    assert math.isfinite(found.weights[0])
    assert (found.accuracy > 0.95).all()


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        ([[0], [1]], "one voter alone"),
        ([[0, -1], [1, -1]], "one voter alone"),
        ([[-1, -1], [-1, -1]], "nobody has voted"),
        (np.empty((0, 2)), "nobody has voted"),
    ],
)
def test_with_nothing_to_compare_all_weigh_the_same_and_it_says_why(codes: object, why: str) -> None:
    matrix = np.array(codes, np.int32)
    found = estimate(LabelVotes(tuple("ab")[: matrix.shape[1]], ("x", "y"), matrix))
    assert (found.model, found.iterations) == ("none", 0)
    assert why in found.why
    assert set(found.weights) == {1.0}


def test_one_label_alone_needs_no_estimate() -> None:
    found = estimate(LabelVotes(tuple("ab"), ("x",), np.zeros((3, 2), np.int32)))
    assert "one value alone" in found.why
    assert np.array_equal(found.prior, [1.0])


def test_between_two_voters_it_says_that_it_cannot_tell() -> None:
    votes, _ = election(100, [coin(0.9, 2), coin(0.7, 2)], [0.5, 0.5], seed=3)
    found = estimate(votes)
    assert "cannot tell who errs" in found.why
    assert found.model == "confusion"


def test_a_voter_that_never_voted_is_at_chance() -> None:
    votes, _ = election(2_000, [coin(0.9, 3), coin(0.9, 3), coin(0.8, 3)], [1 / 3] * 3, seed=4)
    more = LabelVotes(
        ("0", "1", "2", "3"), votes.values, np.pad(votes.codes, ((0, 0), (0, 1)), constant_values=-1)
    )
    found, before = estimate(more), estimate(votes)
    assert found.weights[3] == 0.0
    assert found.weights[:3] == pytest.approx(before.weights)


def test_samples_of_a_lane_have_its_rates_together() -> None:
    votes, _ = election(10_000, [coin(0.9, 2), coin(0.6, 2), coin(0.7, 2), coin(0.8, 2)], [0.5, 0.5], seed=5)
    found = estimate(votes, lanes=[5, 2, 2, 9])
    assert found.accuracy[1] == found.accuracy[2] == pytest.approx(0.65, abs=0.02)
    assert found.weights[1] == found.weights[2]


def test_the_same_votes_give_the_same_estimate_in_any_order_of_rows() -> None:
    votes, _ = election(500, [coin(0.9, 3), coin(0.7, 3), coin(0.6, 3)], [0.5, 0.3, 0.2], seed=6)
    mixed = LabelVotes(votes.voters, votes.values, votes.codes[::-1])
    one, other = estimate(votes), estimate(mixed)
    assert np.array_equal(one.prior, other.prior)
    assert np.array_equal(one.error_rates, other.error_rates)


def free_text(rows: int, odds: list[float], values: int, seed: int) -> tuple[LabelVotes, np.ndarray]:
    dice = np.random.default_rng(seed)
    right = dice.integers(0, values, rows)
    wrong = dice.integers(0, values, (rows, len(odds)))
    codes = np.where(dice.random((rows, len(odds))) < odds, right[:, None], wrong).astype(np.int32)
    return LabelVotes(tuple(map(str, range(len(odds)))), tuple(map(str, range(values))), codes), right


def test_with_many_values_each_voter_has_one_coin() -> None:
    votes, right = free_text(20_000, [0.9, 0.7, 0.5, 0.6], 100_000, seed=1)
    found = estimate(votes)
    assert (found.model, found.converged, found.error_rates) == ("one_coin", True, None)
    assert found.accuracy == pytest.approx([0.9, 0.7, 0.5, 0.6], abs=0.02)
    decided = decide(votes, Terms("weighted", 4, 1), found)
    accuracy = np.mean(decided.winner == right)
    assert accuracy > 0.93
    assert np.mean(decided.confidence[decided.winner >= 0]) == pytest.approx(accuracy, abs=0.02)


def test_both_models_agree_where_errors_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, _ = election(20_000, [coin(0.9, 4), coin(0.7, 4), coin(0.5, 4), coin(0.8, 4)], [0.25] * 4, seed=9)
    whole = estimate(votes)
    assert whole.model == "confusion"
    monkeypatch.setattr(dawid_skene, "MOST_VALUES", 3)
    found = estimate(votes)
    assert found.model == "one_coin"
    assert found.accuracy == pytest.approx(whole.accuracy, abs=0.005)


@pytest.mark.parametrize("most_values", [3, 50])
def test_what_is_too_much_is_estimated_on_some_of_the_rows(
    most_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [coin(0.9, 5), coin(0.7, 5), coin(0.5, 5), coin(0.8, 5), coin(0.6, 5)]
    votes, _ = election(20_000, lanes, [0.2] * 5, seed=10)
    monkeypatch.setattr(dawid_skene, "MOST_VALUES", most_values)
    whole = estimate(votes)
    monkeypatch.setattr(dawid_skene, "MOST_WORK", 25_000 if most_values > 5 else 150)
    found = estimate(votes)
    assert found.model == whole.model
    assert found.accuracy == pytest.approx(whole.accuracy, abs=0.03)
    assert found.why.startswith("Dawid-Skene: estimated on ")
    assert found.why.endswith(" of 20,000 rows")
    assert found.weights == estimate(votes).weights, "always the same rows"
    assert whole.why == ""


def test_one_coin_is_for_two_lanes_with_samples_too() -> None:
    votes, _ = free_text(5_000, [0.9, 0.9, 0.6, 0.6], 1_000, seed=2)
    found = estimate(votes, lanes=[0, 0, 1, 1])
    assert found.accuracy[0] == found.accuracy[1] > found.accuracy[2] == found.accuracy[3]


def test_what_has_not_converged_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dawid_skene, "MOST_ITERATIONS", 2)
    found = estimate(paper(), ANAESTHETISTS)
    assert isinstance(found, Estimate)
    assert (found.iterations, found.converged) == (2, False)


def test_who_never_voted_is_at_chance_with_one_coin_too() -> None:
    votes, _ = free_text(500, [0.9, 0.8, 0.7], 1_000, seed=3)
    votes.codes[:, 2] = -1
    assert estimate(votes).weights[2] == 0.0


def test_votes_that_are_no_values_are_refused() -> None:
    votes = paper()
    with pytest.raises(ValueError, match="code 3, and there are 3 values"):
        estimate(LabelVotes(votes.voters, votes.values[:3], votes.codes))
    with pytest.raises(ValueError, match="7 voters, and the lanes of 2"):
        estimate(votes, lanes=[0, 1])


def test_what_does_not_come_to_rest_is_not_to_be_built_on() -> None:
    """One voter that is always right among four that guess cannot be told from them, and nothing is certain."""
    dice = np.random.default_rng(1)
    right = dice.integers(0, 3, 5_000)
    guesses = [dice.integers(0, 3, 5_000) for _ in range(4)]
    votes = LabelVotes(tuple("abcde"), ("x", "y", "z"), np.column_stack([right, *guesses]).astype(np.int32))
    found = estimate(votes)
    assert not found.converged
    assert found.why == "Dawid-Skene: it has not come to rest after 200 iterations, so do not build on it"
    assert estimate(LabelVotes(("a", "b", "c"), ("x", "y", "z"), votes.codes[:, [0, 0, 0]])).why == ""
