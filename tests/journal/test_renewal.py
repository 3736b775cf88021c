"""What becomes of rows and of units in another input: as a dictionary would have it."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchllm.journal.carries import KeptCarries
from batchllm.journal.finished import Finished
from batchllm.journal.parts import PartInfo
from batchllm.journal.renewal import Changed, Renewal, lines_left, moved_units
from batchllm.matching import Places


@st.composite
def moves(draw: st.DrawFn) -> tuple[Places, dict[int, int]]:
    """Where the rows of an input stand in the next, and the same as a dictionary."""
    head, rest = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    spots = draw(st.permutations(range(head, head + rest + 5)))[:rest]
    tail = [spot if draw(st.booleans()) else None for spot in spots]
    told = {
        **{row: row for row in range(head)},
        **{head + at: spot for at, spot in enumerate(tail) if spot is not None},
    }
    return Places(head, pa.array(tail, pa.int32())), told


@given(moves(), st.sets(st.integers(0, 39)), st.integers(1, 3))
def test_units_move_with_their_rows(move, marked, slots):
    places, told = move
    finished = Finished(slots)
    finished.mark({unit for unit in marked if unit < places.rows * slots})
    moved = moved_units(finished, places)
    rows = range(max(places.rows, places.end) + 1)
    there = {row for row in rows for slot in range(slots) if moved.has(row, slot)}
    assert {(row, slot) for row in rows for slot in range(slots) if moved.has(row, slot)} == {
        (told[row], slot) for row in told for slot in range(slots) if finished.has(row, slot)
    }
    assert moved.marked() == sum(finished.has(row, slot) for row in told for slot in range(slots))
    assert there <= set(told.values())


@given(moves(), st.integers(0, 20), st.integers(1, 20), st.integers(1, 2))
def test_lines_that_are_left_are_counted_where_a_part_has_all_of_a_range(move, first, rows, slots):
    places, told = move
    end = min(first + rows, places.rows)
    if end <= first:
        return
    whole = PartInfo(1, "output", "", (end - first) * slots, 0, "", first, end - 1)
    assert lines_left(places, whole, slots) == slots * sum(row in told for row in range(first, end))
    holes = whole._replace(rows=whole.rows - 1) if whole.rows > 1 else whole
    stays = all(told.get(row) == row for row in range(first, end))
    assert lines_left(places, holes, slots) in (
        {holes.rows} if stays else {None, lines_left(places, whole, slots)}
    )


def test_calls_stay_with_rows_that_changed_and_are_nobodys_where_there_is_none():
    places = Places(1, pa.array([3, None, None], pa.int32()))
    renewal = Renewal(
        places, KeptCarries(None), Changed(pa.array([2], pa.int64()), pa.array([1], pa.int64()))
    )
    batch = pa.record_batch({"row": pa.array([-1, 0, 1, 2, 3, 4, 99], pa.int64())})
    assert renewal.moved_calls(batch).column("row").to_pylist() == [-1, 0, 3, 1, -1, -1, -1]
    assert renewal.moved(batch.slice(1, 4)).column("row").to_pylist() == [0, 3]
