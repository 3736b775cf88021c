from unittest.mock import patch

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchllm.journal import finished as module
from batchllm.journal.finished import Finished

UNITS = st.integers(0, 300)


@given(st.lists(st.tuples(UNITS, UNITS)), st.lists(UNITS))
def test_ranges_and_single_units_mark_exactly_what_they_name(ranges, singles):
    finished, expected = Finished(1), set(singles)
    for first, end in ranges:
        finished.mark_range(first, end)
        expected.update(range(first, end))
    finished.mark(singles)
    assert {unit for unit in range(400) if finished.has(unit)} == expected
    assert finished.marked() == len(expected)


@given(
    st.lists(UNITS), st.lists(st.lists(UNITS)), st.sampled_from([1, 4096]), st.sampled_from([5, 64, 1 << 20])
)
def test_many_at_once_and_one_by_one_are_the_same(singles, groups, sparse, window):
    finished = Finished(1)
    finished.mark(singles)
    with patch.object(module, "_SPARSE", sparse), patch.object(module, "_WINDOW", window):
        for group in groups:
            finished.mark_all(pa.array(group, pa.int64()))
    expected = set(singles).union(*groups)
    assert {unit for unit in range(400) if finished.has(unit)} == expected
    assert finished.marked() == len(expected)


def test_what_was_never_marked_is_not_finished_however_far_away():
    assert not Finished(1).has(10**12)


@given(st.integers(2, 7), st.integers(0, 50), st.integers(0, 6))
def test_with_several_slots_each_lane_of_a_row_is_a_unit_of_its_own(slots, row, lane):
    finished, lane = Finished(slots), lane % slots
    finished.mark([row * slots + lane])
    assert finished.has(row, lane)
    assert finished.open_slots(row) == [row * slots + other for other in range(slots) if other != lane]


def test_with_one_slot_the_lane_does_not_matter():
    finished = Finished(1)
    finished.mark([4])
    assert finished.has(4, 0)
    assert finished.has(4, 3)


def test_a_row_is_finished_when_all_its_slots_are():
    finished = Finished(2)
    finished.mark([2, 3, 4])
    assert [finished.has_row(row) for row in range(3)] == [False, True, False]
    single = Finished(1)
    single.mark([1])
    assert [single.has_row(row) for row in range(3)] == [False, True, False]


@given(
    st.integers(1, 4),
    st.integers(0, 90),
    st.lists(st.tuples(UNITS, UNITS), max_size=4),
    st.sampled_from([8, 64]),
)
def test_a_bit_for_each_row_says_whether_nothing_is_left_of_it(slots, count, ranges, piece_rows):
    finished = Finished(slots)
    for first, end in ranges:
        finished.mark_range(first, end)
    with patch.object(module, "_PIECE_ROWS", piece_rows):
        bits = finished.rows(count)
    assert len(bits) == -(-count // 8)
    assert [bool(bits[row >> 3] >> (row & 7) & 1) for row in range(count)] == [
        finished.has_row(row) for row in range(count)
    ]
