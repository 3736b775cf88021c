"""What is close is one vote: against plain Python, against scikit-learn, and whoever gave it."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering

from batchllm.consensus.rules import Status, decide
from batchllm.consensus.similarity import grouped, merged
from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import LabelVotes

ANGLES = st.integers(0, 359)


def pointing(degrees: object) -> np.ndarray:
    """Vectors of two dimensions: their cosine is that of the angle between them."""
    angles = np.radians(np.array(degrees, float))
    return np.stack((np.cos(angles), np.sin(angles)), axis=-1)


def texts(codes: list[list[int]], degrees: list[int]) -> tuple[LabelVotes, np.ndarray]:
    matrix = np.array(codes, np.int32)
    voters = tuple(map(str, range(matrix.shape[1])))
    return LabelVotes(voters, tuple(map(str, range(len(degrees)))), matrix), pointing(degrees)


def test_texts_that_are_close_are_one_vote_under_the_name_of_the_one_in_the_middle() -> None:
    votes, vectors = texts([[0, 1, 2, 3], [0, 0, 3, 3], [0, 1, -1, 4]], [0, 8, 17, 90, 200])
    found = merged(votes, vectors, 0.95)
    assert found.codes.tolist() == [[1, 1, 1, 3], [0, 0, 3, 3], [0, 0, -1, 4]]
    assert found.values == votes.values
    assert votes.codes.tolist()[0] == [0, 1, 2, 3], "the votes themselves are as they were"


def test_a_text_given_twice_draws_the_middle_to_itself() -> None:
    votes, vectors = texts([[0, 1, 1], [0, 0, 1]], [0, 10])
    assert merged(votes, vectors, 0.9).codes.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_chain_of_small_steps_does_not_join_its_ends() -> None:
    votes, vectors = texts([[0, 1, 2, 3]], [0, 20, 41, 62])
    found = merged(votes, vectors, float(np.cos(np.radians(25))))
    assert found.codes.tolist() == [[0, 0, 2, 2]]


def test_grouped_texts_can_have_a_majority() -> None:
    votes, vectors = texts([[0, 1, 2]], [0, 5, 90])
    assert decide(votes, Terms("majority", 3, 2)).status[0] == Status.TIED
    found = decide(merged(votes, vectors, 0.95), Terms("majority", 3, 2))
    assert (found.status[0], found.winner[0]) == (Status.DECIDED, 0)


def partition(codes: list[int]) -> set[frozenset[int]]:
    return {frozenset(at for at, other in enumerate(codes) if other == code) for code in codes}


@given(st.lists(ANGLES, min_size=2, max_size=6, unique=True), st.integers(1, 90))
@settings(deadline=None, max_examples=60)
def test_groups_are_those_of_scikit_learn_where_no_two_distances_are_equal(
    degrees: list[int], within: int
) -> None:
    gaps = [min(abs(a - b), 360 - abs(a - b)) for a, b in combinations(degrees, 2)]
    if len(set(gaps)) < len(gaps) or within in gaps:
        return
    cosines = np.clip(pointing(degrees) @ pointing(degrees).T, -1, 1)
    model = AgglomerativeClustering(
        None, metric="precomputed", linkage="complete", distance_threshold=1 - np.cos(np.radians(within))
    )
    expected = partition(model.fit_predict(1 - cosines).tolist())
    votes, vectors = texts([list(range(len(degrees)))], degrees)
    assert partition(merged(votes, vectors, float(np.cos(np.radians(within)))).codes[0].tolist()) == expected
    direct = grouped(votes.voters, vectors[None], float(np.cos(np.radians(within))))
    assert partition(direct.codes[0].tolist()) == expected


@given(
    st.lists(st.lists(ANGLES, min_size=4, max_size=4), min_size=1, max_size=5),
    st.permutations(range(4)),
    st.integers(1, 120),
)
@settings(deadline=None, max_examples=60)
def test_who_gave_which_vote_makes_no_difference(
    rows: list[list[int]], order: list[int], within: int
) -> None:
    threshold = float(np.cos(np.radians(within)))
    votes, vectors = texts(rows, list(range(360)))
    found = merged(votes, vectors, threshold).codes
    mixed = merged(LabelVotes(votes.voters, votes.values, votes.codes[:, order]), vectors, threshold).codes
    assert np.array_equal(found[:, order], mixed)
    directions = pointing(rows)
    one, other = (
        grouped(votes.voters, directions, threshold),
        grouped(votes.voters, directions[:, order], threshold),
    )
    for at in range(len(rows)):
        led = directions[at, one.codes[at]][order]
        assert led == pytest.approx(directions[at][order][other.codes[at]], abs=1e-6)


def test_votes_that_are_vectors_have_the_name_of_the_voter_that_leads() -> None:
    vectors = pointing([[0, 90, 6, 13], [0, 0, 90, 180]])
    vectors[1, 3] = np.nan
    found = grouped(("a", "b", "c", "d"), vectors.astype(np.float32), 0.95)
    assert found.values == ("a", "b", "c", "d")
    assert found.codes[0].tolist() == [2, 1, 2, 2]
    assert found.codes[1, 0] == found.codes[1, 1]
    assert found.codes[1].tolist()[2:] == [2, -1]


def test_lengths_do_not_matter_and_a_vector_of_zeros_is_close_to_none() -> None:
    found = grouped(("a", "b", "c"), np.array([[[1e-3, 0.0], [5e6, 1.0], [0.0, 0.0]]]), 0.9)
    codes = found.codes[0].tolist()
    assert codes[0] == codes[1] != codes[2]


def test_more_rows_than_are_held_at_a_time() -> None:
    dice = np.random.default_rng(0)
    votes, vectors = texts(dice.integers(0, 360, (3_000, 5)).tolist(), list(range(360)))
    wide = np.concatenate((vectors, np.zeros((360, 510))), axis=1)
    found = merged(votes, wide, 0.98)
    assert np.array_equal(
        found.codes[-1:], merged(LabelVotes(votes.voters, votes.values, votes.codes[-1:]), wide, 0.98).codes
    )
    assert np.array_equal(found.codes, merged(votes, vectors, 0.98).codes)


def test_vectors_that_do_not_fit_are_refused() -> None:
    votes, vectors = texts([[0, 1]], [0, 8])
    with pytest.raises(ValueError, match="2 values need as many vectors, and there are 1"):
        merged(votes, vectors[:1], 0.9)
    vectors[1, 0] = np.inf
    with pytest.raises(ValueError, match="vector of '1' is not finite"):
        merged(votes, vectors, 0.9)


def test_no_votes_have_no_groups() -> None:
    nothing = LabelVotes(("a", "b"), (), np.full((2, 2), -1, np.int32))
    assert merged(nothing, np.empty((0, 3)), 0.9).codes.tolist() == [[-1, -1], [-1, -1]]
    assert grouped(("a", "b"), np.empty((0, 2, 3)), 0.9).codes.shape == (0, 2)
