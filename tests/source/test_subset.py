"""Some rows of another source, as rows of their own."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pytest

from batchllm.errors import InputDataError
from batchllm.matching import Marks
from batchllm.records import Row
from batchllm.source import frame_source
from batchllm.source.subset import Subset

ROWS: list[object] = [{"id": f"r{n}", "text": f"t{n}"} for n in range(2000)]


def subset(wanted: set[int], rows: list[object] = ROWS) -> Subset:
    """Each wanted row twice."""
    whole = frame_source(rows, key="id", carry=(), needed=None)

    def made(row: Row) -> Iterator[tuple[str, Mapping[str, object], bytes]]:
        for order in "12":
            yield f"{row.key}#{order}", {**row.values, "order": order}, b"[]"

    return Subset(whole, bytearray(n in wanted for n in range(len(rows))), made, "of")


def test_rows_are_numbered_anew_under_keys_of_their_own() -> None:
    rows = [row for batch in subset({3, 1500}).batches() for row in batch]
    assert [(row.ordinal, row.key) for row in rows] == [
        (0, "r3#1"),
        (1, "r3#2"),
        (2, "r1500#1"),
        (3, "r1500#2"),
    ]
    assert subset({3}).peek(1)[0] == Row(0, "r3#1", {"id": "r3", "text": "t3", "order": "1"}, b"[]")


def test_equal_rows_have_equal_marks_wherever_they_stand() -> None:
    one, other = subset({3, 4}).mark(), subset({2, 4}).mark()
    assert one.rows == 4
    assert one.marks[2:] == other.marks[2:]
    assert one.marks[0] != other.marks[0]
    assert one.digest != other.digest
    assert one.digest == subset({3, 4}).scan().digest


def test_what_is_chosen_is_of_the_new_numbers() -> None:
    chosen = [row for batch in subset({3, 4}).chosen(bytearray([0, 1, 0, 1]), ()) for row in batch]
    assert [row.key for row in chosen] == ["r3#2", "r4#2"]


def test_nothing_wanted_is_no_row() -> None:
    assert subset(set()).scan().rows == 0
    assert list(subset(set()).batches()) == []


def test_rows_are_held_to_their_marks() -> None:
    values = pa.array(subset({3, 4}).mark().marks, pa.uint64())
    marks = Marks(len(values), lambda first, end: values.slice(first, end - first))
    same, other = subset({3, 4}), subset({3, 5})
    for one in (same, other):
        one.hold_to(marks)
    assert sum(len(batch) for batch in same.batches()) == 4
    with pytest.raises(InputDataError, match="changed while it was read"):
        list(other.batches())
