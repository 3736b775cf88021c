"""Values → rows, in bulk and one by one."""

import pyarrow as pa
import pytest

from batchllm.records import BadRow, Row
from batchllm.source.columns import RowFault, pin_text
from batchllm.source.rows import MAX_BATCH_BYTES, BatchMaker, KeylessRow, ValueRows, Values, key_type


def maker(key: str | None = None, carry: tuple[str, ...] = (), **declared: str) -> ValueRows:
    shape, pinned = pin_text(key, carry, declared)  # type: ignore[arg-type]  # declared are column types
    return ValueRows(shape, pinned)


def place(at: int) -> str:
    return f"line {at}"


def test_rows_keep_the_values_that_they_were_made_of() -> None:
    parsed: list[Values] = [{"id": "a", "c": 1}, {"id": "b"}]
    rows = maker("id", ("c",)).make(7, parsed, place)
    assert rows == [Row(7, "a", parsed[0], b'["1"]'), Row(8, "b", parsed[1], b"[null]")]
    assert isinstance(rows[0], Row)
    assert rows[0].values is parsed[0]


def test_one_faulty_row_leaves_the_others_alone() -> None:
    parsed: list[Values] = [{"n": 1}, {"n": "x"}, {"n": 3}]
    assert maker(None, ("n",), n="int64").make(0, parsed, place) == [
        Row(0, None, {"n": 1}, b"[1]"),
        BadRow(1, "line 1", 'column "n" is declared int64 and holds "x"'),
        Row(2, None, {"n": 3}, b"[3]"),
    ]


@pytest.mark.parametrize("values", [{}, {"id": None}, {"id": ""}])
def test_a_row_without_a_key_is_known_as_such(values: Values) -> None:
    found = maker("id").make(0, [{"id": "a"}, values], place)
    assert [type(row) for row in found] == [Row, KeylessRow]
    assert isinstance(found[1], BadRow)


def test_zero_and_false_are_keys() -> None:
    rows = maker("id").make(0, [{"id": 0}, {"id": False}], place)
    assert [row.key for row in rows if isinstance(row, Row)] == ["0", "false"]
    assert maker("id", id="int64").make(0, [{"id": 0}], place) == [Row(0, 0, {"id": 0}, b"[]")]


def test_no_values_make_no_rows() -> None:
    assert maker("id", ("c",)).make(0, [], place) == []


@pytest.mark.parametrize(
    ("kind", "made"),
    [(pa.uint8(), pa.int64()), (pa.string_view(), pa.string()), (pa.float32(), None), (pa.bool_(), None)],
)
def test_only_text_and_whole_numbers_are_key_types(kind: pa.DataType, made: pa.DataType | None) -> None:
    assert key_type(kind) == made


def test_a_batch_is_full_of_rows_or_of_bytes() -> None:
    batch = BatchMaker(maker(), 0, place)
    for _ in range(511):
        batch.add(0, {}, 1)
    assert not batch.is_full
    batch.add(0, RowFault("bad"), 1)
    assert batch.is_full
    assert len(batch.take()) == 512
    batch.add(0, {}, MAX_BATCH_BYTES - 1)
    assert not batch.is_full
    batch.add(0, {}, 1)
    assert batch.is_full


def test_a_batch_keeps_the_order_of_good_and_bad_rows() -> None:
    batch = BatchMaker(maker(), 7, place)
    for at in range(6):
        batch.add(at * 10, RowFault("bad") if at in (0, 3) else {"n": at}, 1)
    made = batch.take()
    assert [row.ordinal for row in made] == list(range(7, 13))
    assert [row.place for row in made if isinstance(row, BadRow)] == ["line 0", "line 30"]
    assert batch.take() == []
    batch.add(0, {}, 1)
    assert batch.take()[0].ordinal == 13
