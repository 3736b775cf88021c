"""Rows that are alike are counted once, whatever the number of values."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.patterns import Patterns, patterns_of

rows = st.integers(1, 4).flatmap(
    lambda voters: st.lists(st.tuples(*[st.integers(-1, 3)] * voters), min_size=1, max_size=20)
)


def counted(patterns: Patterns) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for row, count in zip(patterns.codes.tolist(), patterns.counts.tolist(), strict=True):
        found[tuple(row)] += int(count)
    return found


@pytest.mark.parametrize("values", [4, 3_000, 2_000_000_000])
@given(rows=rows)
def test_each_different_row_is_there_as_often_as_it_occurs(values: int, rows: list[tuple[int, ...]]) -> None:
    """A table of keys, sorted keys, and rows whose keys do not fit into a number."""
    found = patterns_of(np.array(rows, np.int32), values)
    assert counted(found) == Counter(rows)
    if (values + 1) ** len(rows[0]) < 2**62:
        assert len(found.codes) == len(set(rows))
        assert found.codes.tolist() == sorted(found.codes.tolist())


@pytest.mark.parametrize("values", [4, 3_000])
@given(rows=rows)
def test_patterns_of_some_voters_keep_the_counts(values: int, rows: list[tuple[int, ...]]) -> None:
    found = patterns_of(np.array(rows, np.int32), values).of(len(rows[0]) - 1, 0)
    assert counted(found) == Counter((row[-1], row[0]) for row in rows)


@given(rows, st.integers(0, 2))
def test_values_left_are_numbered_without_gaps_in_their_order(
    rows: list[tuple[int, ...]], least: int
) -> None:
    found = patterns_of(np.array(rows, np.int32), 1_000).with_votes(least)
    kept = sorted({row for row in rows if sum(code >= 0 for code in row) >= least})
    met = sorted({code for row in kept for code in row if code >= 0})
    assert found.values == len(met)
    assert [[-1 if code < 0 else met[code] for code in row] for row in found.codes.tolist()] == [
        *map(list, kept)
    ]
