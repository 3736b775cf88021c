"""Rows are found again by their marks: only ones that occur once on either side, wherever they have moved."""

import random
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.matching import Marks, find_repeats, match_marks


def marks(values: list[int]) -> Marks:
    array = pa.array(values, pa.uint64())
    return Marks(len(values), lambda first, end: array.slice(first, end - first))


def found(old: list[int], new: list[int], at_once: int = 4) -> list[int | None]:
    matches = match_marks(marks(old), marks(new), looked_up_at_once=at_once)
    tail = matches.tail.to_pylist()
    assert matches.unmatched().to_pylist() == [at for at, one in enumerate(tail, matches.head) if one is None]
    assert matches.rows == matches.head + sum(one is not None for one in tail)
    return [*range(matches.head), *tail]


def expected(old: list[int], new: list[int]) -> list[int | None]:
    """The same, a row at a time."""
    stayed = {at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one == other and one}
    left = {at: value for at, value in enumerate(old) if at not in stayed}
    rest, counts = Counter(value for at, value in enumerate(new) if at not in stayed), Counter(left.values())
    places = {value: at for at, value in left.items()}
    return [
        at if at in stayed else places[value] if value and counts[value] == 1 and rest[value] == 1 else None
        for at, value in enumerate(new)
    ]


@pytest.mark.parametrize(
    ("old", "new", "matches"),
    [
        ([], [], []),
        ([], [1, 2], [None, None]),
        ([1, 2], [], []),
        ([1, 2], [1, 2, 3], [0, 1, None]),
        ([1, 2, 3], [3, 1, 2], [2, 0, 1]),
        ([1, 2, 3], [9, 1, 2, 3], [None, 0, 1, 2]),
        ([1, 2, 3], [1, 3], [0, 2]),
        ([1, 5, 5], [5, 1], [None, 0]),
        ([1, 2, 3, 4], [9, 2, 8, 4], [None, 1, None, 3]),
        ([1, 2, 3, 4], [3, 2, 1, 4, 5], [2, 1, 0, 3, None]),
        ([7, 2, 2], [2, 2, 8], [2, 1, None]),
        ([1, 2], [2, 2, 1], [None, 1, 0]),
        ([1, 0, 3], [1, 0, 3], [0, None, 2]),
        ([1, 1, 2], [1, 1, 3], [0, 1, None]),
    ],
)
def test_rows_are_found_again(old: list[int], new: list[int], matches: list[int | None]) -> None:
    assert found(old, new) == matches


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.integers(0, 12), max_size=30), st.lists(st.integers(0, 12), max_size=30), st.integers(1, 9)
)
def test_as_one_by_one(old: list[int], new: list[int], at_once: int) -> None:
    assert found(old, new, at_once) == expected(old, new)


def test_rows_that_stayed_in_their_place_are_not_looked_up() -> None:
    """Of many, among which a few have changed."""
    read: list[int] = []
    old = list(range(1, 20_001))
    new = [one if at % 1000 else 50_000 + at for at, one in enumerate(old)]
    array = pa.array(new, pa.uint64())

    def noted(first: int, end: int) -> pa.Array:
        read.append(end - first)
        return array.slice(first, end - first)

    matches = match_marks(marks(old), Marks(len(new), noted), looked_up_at_once=100)
    assert matches.unmatched().to_pylist() == list(range(0, 20_000, 1000))
    assert sum(read) <= 4 * len(new)  # a pass for each share of a hundred would be 256 of them


def test_a_shuffle_with_changes_over_many_shares() -> None:
    dice = random.Random(1)
    old = [dice.getrandbits(64) for _ in range(20_000)]
    new = [*old[100:15_000], *(dice.getrandbits(64) for _ in range(50))]
    dice.shuffle(new)
    assert found(old, new, at_once=500) == expected(old, new)


def test_marks_of_all_64_bits_are_told_apart() -> None:
    most = 2**64 - 1
    assert found([most, 1], [1, most]) == [1, 0]
    assert found([most, most - 1], [5, most - 1]) == [None, 1]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 9))
def test_repeats_point_to_the_first_of_their_kind(values: list[int], at_once: int) -> None:
    repeats = find_repeats(marks(values), looked_at_at_once=at_once)
    assert list(zip(repeats.later.to_pylist(), repeats.first.to_pylist(), strict=True)) == [
        (at, values.index(value)) for at, value in enumerate(values) if value and values.index(value) < at
    ]
