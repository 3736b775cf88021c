"""Why a row is what it is: each sentence is of its own row, however alike the rows are."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from batchllm.consensus.concluding import Weighed, decided
from batchllm.consensus.motion import motion_of
from batchllm.consensus.poll import Poll, State, Voter
from batchllm.consensus.rules import decide
from batchllm.consensus.telling import Telling
from batchllm.consensus.terms import Rule, Terms
from batchllm.consensus.values import Values
from batchllm.consensus.votes import LabelVotes, NumberVotes, Votes
from batchllm.spec.consensus import Consensus, VoteKind

NAN = float("nan")


def labels(rows: Sequence[Sequence[int]], values: Sequence[str] = "abc") -> LabelVotes:
    codes = np.array(rows, np.int32)
    return LabelVotes(tuple(f"v{at}" for at in range(codes.shape[1])), tuple(values), codes)


def numbers(rows: Sequence[Sequence[float]]) -> NumberVotes:
    return NumberVotes(tuple(f"v{at}" for at in range(len(rows[0]))), np.array(rows, np.float64))


def polled(kind: VoteKind, votes: Votes) -> Poll:
    states = np.where(votes.cast, State.CAST, State.NOT_ASKED).astype(np.uint8)
    voters = tuple(map(Voter, votes.voters))
    return Poll(kind, votes, voters, states, np.zeros(states.shape, np.int16), ("",), np.zeros(len(states)))


def telling(
    votes: Votes, rule: Rule, kind: VoteKind = "label", weights: Sequence[float] | None = None
) -> Telling:
    terms, poll = Terms(rule, len(votes.voters), 1), polled(kind, votes)
    return Telling(poll, decide(votes, terms, weights), terms, Values(poll))


def told(
    votes: Votes, rule: Rule, kind: VoteKind = "label", weights: Sequence[float] | None = None
) -> list[str]:
    found: list[str] = telling(votes, rule, kind, weights).reasons(slice(0, len(votes.cast))).to_pylist()
    return found


def test_rows_of_another_slice_have_their_own_sentences() -> None:
    """The first tie of each slice was taken for that of the slice before."""
    teller = telling(labels([[0, 1], [0, 2]]), "majority")
    assert teller.reasons(slice(0, 1)).to_pylist() == ["of 2 votes 1 for a, 1 for b"]
    assert teller.reasons(slice(1, 2)).to_pylist() == ["of 2 votes 1 for a, 1 for c"]


def test_equal_weight_of_unequal_votes_is_counted_in_each_row() -> None:
    weights = [2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    rows = [[0, 0, 2, 1, 1, 1, 1, 2], [0, 0, 1, 1, 1, 2, 2, 2]]
    assert told(labels(rows), "weighted", weights=weights) == [
        "of 8 votes 2 for a, 4 for b",
        "of 8 votes 2 for a, 3 for b",
    ]


def test_what_weight_has_decided_is_told_with_the_weight() -> None:
    rows = [[0, 1, 1], [0, 1, 2], [0, -1, 0]]
    assert told(labels(rows), "weighted", weights=[3.0, 1.0, 1.0]) == [
        "1 of 3 votes for a, 60% of the weight",
        "1 of 3 votes for a, 60% of the weight",
        "2 of 2 votes for a, 100% of the weight; v1 was not asked",
    ]


def test_a_tie_of_numbers_says_which_ones_lead() -> None:
    rows = [[1.0, 2.5], [1234567.25, 1234567.25], [3.0, NAN]]
    assert told(numbers(rows), "plurality", "number") == [
        "of 2 votes 1 for 1, 1 for 2.5",
        "2 of 2 votes for 1234567.25",
        "1 of 1 vote for 3; v1 was not asked",
    ]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(4.0, "4"), (12345678901.0, "12345678901"), (0.1 + 0.2, "0.3"), (-0.5, "-0.5"), (1e200, "1e+200")],
)
def test_a_number_has_its_digits(number: float, shown: str) -> None:
    assert told(numbers([[number] * 3]), "median", "number") == [f"the median of 3 votes is {shown}"]


def test_a_set_that_is_nobodys_vote_is_not_said_to_be_one() -> None:
    """Label by label, two of three are for a, for b and for c."""
    votes = labels([[0, 1, 2], [0, 0, 1]], ['["a","b"]', '["a","c"]', '["b","c"]'])
    motion = motion_of(Consensus(), pa.field("over", pa.list_(pa.string())), votes.voters, None)
    assert motion is not None
    found = decided(polled("labels", votes), motion, Weighed())
    teller = Telling(found.poll, found.decisions, motion.terms, Values(found.poll))
    assert teller.reasons(slice(0, 2)).to_pylist() == [
        "of 3 votes, label by label, 2 for a, 2 for b, 2 for c",
        "of 3 votes, label by label, 3 for a, 2 for b",
    ]
