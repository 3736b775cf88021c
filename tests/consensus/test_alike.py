"""Rows that are alike are found, whatever the width of the matrix and the size of its codes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.consensus.alike import alike, distinct_rows

matrices = st.integers(1, 40).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([-1, 0, 1, 2, 2**31 - 2]), min_size=width, max_size=width),
        min_size=1,
        max_size=12,
    )
)


@given(matrices)
@settings(deadline=None, max_examples=40)
def test_a_vote_is_the_first_voter_with_the_same_one(rows: list[list[int]]) -> None:
    codes = np.array(rows, np.int32)
    expected = [[-1 if code == -1 else row.index(code) for code in row] for row in rows]
    assert alike(codes, codes >= 0).tolist() == expected


@given(matrices)
@settings(deadline=None, max_examples=40)
def test_each_row_has_its_pattern_and_each_pattern_its_count(rows: list[list[int]]) -> None:
    codes = np.array(rows, np.int32)
    found = distinct_rows(codes)
    assert np.array_equal(found.rows[found.of_row], codes)
    counted = {
        tuple(row): count for row, count in zip(found.rows.tolist(), found.counts.tolist(), strict=True)
    }
    assert counted == Counter(map(tuple, rows))


@pytest.mark.parametrize("width", [0, 1, 3])
def test_no_rows_have_no_patterns(width: int) -> None:
    found = distinct_rows(np.empty((0, width), np.int32))
    assert (len(found.rows), len(found.of_row), len(found.counts)) == (0, 0, 0)


def test_more_rows_than_are_worked_on_at_a_time() -> None:
    codes = np.random.default_rng(1).integers(-1, 3, (300_000, 6)).astype(np.int32)
    found = distinct_rows(alike(codes, codes >= 0))
    assert len(found.rows) < 1_000
    assert found.counts.sum() == len(codes)
    last = codes[-1].tolist()
    assert found.rows[found.of_row[-1]].tolist() == [-1 if code < 0 else last.index(code) for code in last]
