"""What is decided, against plain Python that decides one row at a time."""

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean, median

import numpy as np
import pytest
from consensus_rig import outcome, shares
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.consensus.dawid_skene import estimate
from batchllm.consensus.rules import By, Decisions, Status, break_ties, decide, overrule
from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import LabelVotes, NumberVotes

NAN = math.nan
RULES = ("majority", "plurality", "unanimous", "at_least", "weighted")


def ballots(*rows: str) -> LabelVotes:
    """Rows as words: a letter for each voter, `.` for no vote."""
    values = tuple(sorted({letter for row in rows for letter in row if letter != "."}))
    codes = [[-1 if letter == "." else values.index(letter) for letter in row] for row in rows]
    voters = tuple(f"v{number}" for number in range(len(rows[0])))
    return LabelVotes(voters, values, np.array(codes, np.int32))


def statuses(decisions: Decisions) -> list[str]:
    return [Status(status).name.lower() for status in decisions.status]


def winners(votes: LabelVotes, decisions: Decisions) -> list[str | None]:
    return [None if code < 0 else votes.values[code] for code in decisions.winner.astype(int)]


def leading(votes: LabelVotes, decisions: Decisions, row: int) -> list[str]:
    part = decisions.leading[decisions.offsets[row] : decisions.offsets[row + 1]]
    return [votes.values[code] for code in part.astype(int)]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str | None]], Terms, list[Fraction] | None]:
    voters = draw(st.one_of(st.integers(1, 6), st.just(40)))
    rule = draw(st.sampled_from(RULES))
    terms = Terms(
        rule,  # type: ignore[arg-type]
        voters,
        draw(st.integers(1, voters)),
        at_least=draw(st.integers(1, voters)) if rule == "at_least" else None,
        ties=draw(st.sampled_from(["fail", "first", "keep", "escalate"])),
        priority=tuple(draw(st.permutations(range(voters)))[: draw(st.integers(0, voters))]),
    )
    one = st.integers(0, 40).map(lambda tenths: Fraction(tenths, 10))
    weights = draw(st.none() | st.lists(one, min_size=voters, max_size=voters))
    row = st.lists(st.sampled_from([*"aabbcd", None]), min_size=voters, max_size=voters)
    return draw(st.lists(row, max_size=8)), terms, weights


@given(tables())
@settings(deadline=None, max_examples=60)
def test_every_rule_decides_what_its_words_say(
    table: tuple[list[list[str | None]], Terms, list[Fraction] | None],
) -> None:
    rows, terms, weights = table
    codes = np.array([["abcd".find(vote or "-") for vote in row] for row in rows], np.int32)
    votes = LabelVotes(
        tuple(map(str, range(terms.voters))), tuple("abcd"), codes.reshape(len(rows), terms.voters)
    )
    found = decide(votes, terms, None if weights is None else [float(weight) for weight in weights])
    values, told = winners(votes, found), statuses(found)
    for at, row in enumerate(rows):
        status, value, leads = outcome(row, terms, weights)
        assert (told[at], values[at], leading(votes, found, at)) == (status, value, sorted(leads))
        assert found.cast[at] == sum(vote is not None for vote in row)
        assert [found.share[at], found.margin[at], found.entropy[at]] == pytest.approx(
            shares(row, terms, weights), nan_ok=True
        )
        assert (found.by[at] != By.NOTHING) == (status == "decided")


def test_labels_may_be_as_many_as_votes() -> None:
    """Free text: nothing of the size of rows × values is made (it would be 144 GB here)."""
    rows = 60_000
    codes = np.arange(rows * 5, dtype=np.int32).reshape(rows, 5)
    codes[::2, 3] = codes[::2, 1]
    votes = LabelVotes(tuple("abcde"), tuple(map(str, range(rows * 5))), codes)
    found = decide(votes, Terms("plurality", 5, 3))
    assert np.array_equal(found.winner[::2], codes[::2, 1])
    assert (found.status[1::2] == Status.TIED).all()
    assert np.array_equal(np.diff(found.offsets)[:2], [1, 5])


def test_a_tie_is_told_with_the_values_that_lead() -> None:
    votes = ballots("abca", "abab", "a...")
    found = decide(votes, Terms("majority", 4, 2, ties="keep"))
    assert statuses(found) == ["undecided", "tied", "too_few"]
    assert [leading(votes, found, row) for row in range(3)] == [["a"], ["a", "b"], ["a"]]
    assert winners(votes, found) == [None, None, None]


def test_first_goes_by_priority_among_the_values_that_lead() -> None:
    votes = ballots("cbabac", "..baba")
    found = decide(votes, Terms("majority", 6, 4, ties="first", priority=(3,)))
    assert winners(votes, found) == ["b", "a"]
    assert list(found.by) == [By.FIRST, By.FIRST]
    assert decide(votes, Terms("plurality", 6, 4, ties="first")).winner[0] == 2


def test_one_more_voter_breaks_ties_between_what_leads() -> None:
    votes = ballots("aabb", "aabb", "aabb", "aaab", "abcc", "a...")
    found = decide(votes, Terms("majority", 4, 2, ties="escalate"))
    told = break_ties(found, np.array([1, 2, -1, 1, 2, 0], np.int32))
    assert statuses(told) == ["decided", "tied", "tied", "decided", "decided", "too_few"]
    assert winners(votes, told) == ["b", None, None, "a", "c", None]
    assert list(told.by) == [By.ESCALATED, By.NOTHING, By.NOTHING, By.RULE, By.ESCALATED, By.NOTHING]


def test_a_judge_may_decide_against_the_votes() -> None:
    votes = ballots("aab", "abc", "aaa")
    told = overrule(decide(votes, Terms("majority", 3, 2)), np.array([1, 2, -1], np.int32))
    assert winners(votes, told) == ["b", "c", "a"]
    assert list(told.by) == [By.JUDGE, By.JUDGE, By.RULE]


def test_a_voter_without_weight_has_no_say_and_yet_has_voted() -> None:
    votes = ballots("ab", ".b")
    found = decide(votes, Terms("weighted", 2, 1), [1.0, 0.0])
    assert winners(votes, found) == ["a", None]
    assert statuses(found) == ["decided", "undecided"]
    assert list(found.cast) == [2, 1]


def test_equal_weights_are_equal_whatever_the_order_of_their_sum() -> None:
    found = decide(ballots("aab"), Terms("weighted", 3, 2), [0.1, 0.2, 0.3])
    assert statuses(found) == ["tied"]


def test_weights_that_do_not_fit_are_refused() -> None:
    terms = Terms("weighted", 3, 2)
    with pytest.raises(ValueError, match="2 weights for 3 voters"):
        decide(ballots("aab"), terms, [1.0, 2.0])
    with pytest.raises(ValueError, match="not a weight"):
        decide(ballots("aab"), terms, [1.0, 2.0, NAN])


def test_without_rows_nothing_is_decided() -> None:
    for votes in (
        LabelVotes(("a", "b"), (), np.empty((0, 2), np.int32)),
        NumberVotes(("a", "b"), np.empty((0, 2))),
    ):
        assert len(decide(votes, Terms("majority", 2, 1)).status) == 0
    assert len(decide(NumberVotes(("a",), np.empty((0, 1))), Terms("median", 1, 1)).status) == 0


def test_when_nobody_has_voted_there_are_too_few() -> None:
    found = decide(LabelVotes(("a", "b"), (), np.full((2, 2), -1, np.int32)), Terms("majority", 2, 1))
    assert statuses(found) == ["too_few", "too_few"]
    assert np.isnan(found.share).all()
    assert len(found.leading) == 0


numbers = st.floats(-1e6, 1e6, allow_nan=False) | st.just(NAN) | st.integers(0, 3).map(float)


def trimmed(cast: Sequence[float], trim: Fraction) -> float:
    off = math.floor(trim * len(cast))
    return fmean(sorted(cast)[off : len(cast) - off])


@given(
    st.integers(1, 7).flatmap(lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1)),
    st.sampled_from([Fraction(part, 100) for part in range(50)]),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=50)
def test_numbers_meet_in_the_middle(rows: list[list[float]], trim: Fraction, min_votes: int) -> None:
    voters = len(rows[0])
    votes = NumberVotes(tuple(map(str, range(voters))), np.array(rows))
    middle = decide(votes, Terms("median", voters, min_votes))
    mean = decide(votes, Terms("trimmed_mean", voters, min_votes, trim=float(trim)))
    for at, row in enumerate(rows):
        cast = [number for number in row if not math.isnan(number)]
        assert middle.cast[at] == mean.cast[at] == len(cast)
        if len(cast) < min_votes:
            assert statuses(middle)[at] == statuses(mean)[at] == "too_few"
            assert math.isnan(middle.winner[at])
        else:
            assert middle.winner[at] == pytest.approx(median(cast))
            assert mean.winner[at] == pytest.approx(trimmed(cast, trim), abs=1e-6)


def test_a_share_of_a_hundred_votes_is_cut_off_to_the_vote() -> None:
    """0.29 × 100 is 28.999999999999996 in floats."""
    votes = NumberVotes(tuple(map(str, range(100))), np.array([[1e6] * 29 + [5.0] * 71]))
    assert decide(votes, Terms("trimmed_mean", 100, 51, trim=0.29)).winner[0] == 5.0


def test_what_is_no_finite_number_decides_nothing() -> None:
    votes = NumberVotes(("a", "b"), np.array([[math.inf, -math.inf], [math.inf, math.inf], [1.0, 3.0]]))
    assert statuses(decide(votes, Terms("median", 2, 2))) == ["undecided", "undecided", "decided"]


def test_numbers_may_be_voted_for_like_labels() -> None:
    votes = NumberVotes(("a", "b", "c"), np.array([[0.0, -0.0, 2.0], [3.0, 1.0, 2.0], [NAN, NAN, 4.0]]))
    found = decide(votes, Terms("majority", 3, 2, ties="keep"))
    assert statuses(found) == ["decided", "tied", "too_few"]
    assert found.winner[0] == 0.0
    assert list(found.leading[found.offsets[1] : found.offsets[2]]) == [1.0, 2.0, 3.0]
    assert list(break_ties(found, np.array([NAN, 2.0, NAN])).winner[:2]) == [0.0, 2.0]


def test_the_middle_is_of_numbers_alone() -> None:
    with pytest.raises(TypeError, match="median is of numbers"):
        decide(ballots("ab"), Terms("median", 2, 1))


def test_the_most_probable_value_wins_where_errors_were_estimated() -> None:
    """Two that are hardly better than chance do not outvote one that is nearly always right."""
    right = np.random.default_rng(3).integers(0, 2, 3_000)
    dice = np.random.default_rng(4).random((3_000, 4))
    codes = np.where(dice < [0.97, 0.62, 0.62, 0.95], right[:, None], 1 - right[:, None]).astype(np.int32)
    votes = LabelVotes(tuple("wxyz"), ("a", "b"), codes)
    known = estimate(votes)
    found = decide(votes, Terms("weighted", 4, 3), known)
    plain = decide(votes, Terms("majority", 4, 3, ties="first", priority=(1, 2)))
    assert np.mean(found.winner == right) > np.mean(plain.winner == right) + 0.02
    assert np.nanmin(found.confidence) >= 0.5
    assert np.mean(found.confidence) == pytest.approx(np.mean(found.winner == right), abs=0.02)


def test_a_value_nobody_voted_for_has_no_share() -> None:
    """The last voter says the opposite of what is right: known as that, it is believed the other way round."""
    right = np.random.default_rng(5).integers(0, 2, 4_000)
    dice = np.random.default_rng(6).random((4_000, 5))
    odds = [0.95, 0.95, 0.95, 0.9, 0.03]
    codes = np.where(dice < odds, right[:, None], 1 - right[:, None]).astype(np.int32)
    known = estimate(LabelVotes(tuple("uvwxy"), ("a", "b"), codes))
    alone = LabelVotes(tuple("uvwxy"), ("a", "b"), np.array([[-1, -1, -1, -1, 0]], np.int32))
    found = decide(alone, Terms("weighted", 5, 1), known)
    assert found.winner[0] == 1
    assert statuses(found) == ["decided"]
    assert math.isnan(found.share[0]), "the only voter has no weight"
    with_another = LabelVotes(alone.voters, alone.values, np.array([[-1, -1, -1, 0, 0]], np.int32))
    told = decide(with_another, Terms("weighted", 5, 1), known)
    assert told.share[0] in (0.0, 1.0)
    assert told.margin[0] == pytest.approx(2 * told.share[0] - 1)


def test_even_probabilities_are_a_tie_and_go_by_priority() -> None:
    codes = np.array(
        [[0, 1, 0, 1]] * 8 + [[0, 0, 1, 1]] * 8 + [[1, 0, 1, 0]] * 8 + [[1, 1, 0, 0]] * 8, np.int32
    )
    votes = LabelVotes(tuple("wxyz"), ("a", "b"), codes)
    known = estimate(votes)
    tied = decide(votes, Terms("weighted", 4, 3, ties="keep"), known)
    assert set(statuses(tied)) == {"tied"}
    assert leading(votes, tied, 0) == ["a", "b"]
    assert np.isnan(tied.confidence).all()
    first = decide(votes, Terms("weighted", 4, 3, ties="first", priority=(1,)), known)
    assert list(first.winner) == list(codes[:, 1])
    assert set(first.by) == {By.FIRST}


def test_what_could_not_be_estimated_leaves_the_votes_as_they_are() -> None:
    votes = ballots("a.", "b.")
    found = decide(votes, Terms("weighted", 2, 1), estimate(votes))
    assert winners(votes, found) == ["a", "b"]
    assert np.isnan(found.confidence).all()


def test_an_estimate_is_of_labels() -> None:
    votes = ballots("aab", "abb", "bbb")
    numbers = NumberVotes(votes.voters, votes.codes.astype(float))
    with pytest.raises(TypeError, match="of labels"):
        decide(numbers, Terms("weighted", 3, 2), estimate(votes))
    with pytest.raises(ValueError, match="of other values"):
        decide(ballots("xxy", "xyy", "yyy"), Terms("weighted", 3, 2), estimate(votes))
