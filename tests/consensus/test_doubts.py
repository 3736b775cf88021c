"""What looks wrong in votes that can all be read: told where it is so, and nowhere else."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from batchllm.consensus.doubts import doubts
from batchllm.consensus.motion import motion_of
from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Ballots, State, Voter
from batchllm.spec.consensus import Consensus


def told(
    *columns: Sequence[object],
    gold: Sequence[object] | None = None,
    kind: pa.DataType | None = None,
    rest: State = State.ABSENT,
    **section: object,
) -> list[str]:
    """`columns`: the votes of a, b, and so on."""
    names = tuple("abcdef"[: len(columns)])
    type_ = kind or pa.string()
    consensus = Consensus.model_validate({**section, **({"gold": "gold"} if gold else {})})
    motion = motion_of(consensus, pa.field("vote", type_), names, None)
    assert motion is not None
    words = vocabulary(motion.kind, motion.labels, consensus.normalise)
    rows = np.arange(len(columns[0]))
    ballots = Ballots(len(rows), names, words, has_gold=gold is not None)
    for voter, votes in enumerate(columns):
        there = np.array([vote is not None for vote in votes], np.bool_)
        column = pa.array([vote for vote in votes if vote is not None], type_)
        ballots.vote(rows[there], np.full(there.sum(), voter), column)
    if gold is not None:
        ballots.note_gold(rows, pa.array(gold, type_))
    poll = ballots.poll(tuple(map(Voter, names)), np.zeros(len(rows)), rest=rest)
    return doubts(poll, motion)


def test_votes_of_one_set_of_labels_are_in_no_doubt() -> None:
    assert told(["x", "y", "z"], ["x", "z", "y"], ["z", "y", "x"], gold=["x", "y", "z"]) == []


def test_two_of_opposite_opinions_are_in_no_doubt() -> None:
    assert told(["yes", "yes"], ["no", "no"]) == []


def test_a_voter_with_other_labels_is_told_of() -> None:
    assert told(["x", "y"], ["y", "x"], ["P", "N"]) == [
        "c ('N', 'P') gives no value that another voter gives; normalise may make the same what is meant to be"
    ]


def test_labels_that_the_job_names_are_those_of_all() -> None:
    assert told(["x", "y"], ["z", "z"], labels=["x", "y", "z"]) == []


def test_free_text_of_which_no_two_are_alike_is_told_of() -> None:
    rows = [[f"{voter} says {row}" for row in range(4)] for voter in "abc"]
    assert told(*rows) == [
        "no two voters give the same value anywhere; normalise may make the same what is meant to be"
    ]


def test_values_that_differ_in_case_or_space_are_told_of_until_they_are_normalised() -> None:
    columns = (["Yes", "no"], ["yes", "no "])
    normalise = "{{ value | trim | lower }}"
    assert told(*columns)[1] == (
        "'Yes' and 'yes' are different values, and 1 more such; normalise: \"{{ value | trim | lower }}\" makes the"
        " same of them"
    )
    assert told(*columns, normalise=normalise) == []
    sets = [[["A", "b"]], [["a"]]]
    assert "'A' and 'a' are different values; normalise:" in told(*sets, kind=pa.list_(pa.string()))[0]


def test_gold_that_nobody_votes_for_is_told_of() -> None:
    votes = ["x", "y", "x"]
    assert told(votes, votes, gold=["X1", "Y1", None]) == [
        "gold: nobody votes for any of its values ('X1', 'Y1'; votes are 'x', 'y')"
    ]
    assert told(votes, votes, gold=["x", "q", "x"]) == ["gold: 1 value is one that nobody votes for: 'q'"]
    assert told(votes, votes, gold=["x", "q", "x"], labels=["x", "y", "q"]) == []


@pytest.mark.parametrize(
    ("rest", "said"),
    [(State.ABSENT, ["b has no vote on any row"]), (State.NOT_ASKED, []), (State.OPEN, [])],
)
def test_who_has_no_vote_is_told_of_if_one_was_to_come(rest: State, said: list[str]) -> None:
    assert told(["x", "y"], [None, None], rest=rest) == said


def test_numbers_and_no_rows_are_in_no_doubt() -> None:
    assert told([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], kind=pa.float64()) == []
    assert told([], []) == []
