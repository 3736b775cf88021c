"""Record batches → rows: cutting, faulty cells, keys."""

import pyarrow as pa
import pytest

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source.arrow_rows import (
    ArrowRows,
    check_zones,
    cut,
    decoded_bytes,
    find_faults,
    pin_arrow,
    take,
)
from batchllm.source.rows import MAX_BATCH_BYTES, KeylessRow

MIB = 1 << 20


def raw_text(*values: bytes) -> pa.Array:
    """A string column of bytes that need not be text."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def rows(batch: pa.RecordBatch, key: str | None = None, carry: tuple[str, ...] = ()) -> list[Row | BadRow]:
    shape = pin_arrow("a.parquet", batch.schema, key, carry)
    maker = ArrowRows("a.parquet", shape, batch.schema.names)
    return [row for made in maker.batches(batch, 100, lambda at: f"row {at}") for row in made]


def test_rows_have_values_key_and_carry() -> None:
    batch = pa.record_batch({"id": pa.array([5, 6], pa.int16()), "t": ["a", None], "n": [1, 2]})
    assert rows(batch, "id", ("n",)) == [
        Row(100, 5, {"t": "a", "n": 1, "id": 5}, b"[1]"),
        Row(101, 6, {"t": None, "n": 2, "id": 6}, b"[2]"),
    ]


def test_a_long_batch_is_cut_at_512_rows() -> None:
    parts = list(cut(pa.record_batch({"a": list(range(1300))})))
    assert [(start, part.num_rows) for start, part in parts] == [(0, 512), (512, 512), (1024, 276)]


def test_a_large_batch_is_cut_until_it_fits() -> None:
    batch = pa.record_batch({"a": ["x" * MIB] * 20 + ["y"] * 100})
    parts = list(cut(batch))
    assert sum(part.num_rows for _, part in parts) == 120
    assert all(part.num_rows == 1 or decoded_bytes(part.column(0)) <= MAX_BATCH_BYTES for _, part in parts)
    assert pa.concat_batches([part for _, part in parts]).equals(batch)


def test_a_dictionary_counts_with_what_it_stands_for() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0] * 100 + [1, None]), pa.array(["x" * 1000, "y"]))
    assert decoded_bytes(array) == 100_001
    batch = pa.record_batch({"a": pa.DictionaryArray.from_arrays(pa.array([0] * 100), pa.array(["x" * MIB]))})
    assert max(part.num_rows for _, part in cut(batch)) <= 4


def test_a_cell_beyond_64_mib_is_a_bad_row() -> None:
    large = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), pa.array(["x" * (64 * MIB + 1), "fine"]))
    first, second, third = rows(pa.record_batch({"t": large}))
    assert isinstance(first, Row)
    assert isinstance(second, BadRow)
    assert (second.ordinal, second.place) == (101, "row 1")
    assert second.message == 'column "t" holds 67,108,865 bytes in one cell, where 64 MiB are read'
    assert isinstance(third, Row)


def test_text_that_is_no_utf8_is_a_bad_row() -> None:
    batch = pa.record_batch({"t": raw_text(b"fine", b"caf\xe9", b"\xff" * 200), "n": [1, 2, 3]})
    first, second, third = rows(batch, None, ("n",))
    assert first == Row(100, None, {"t": "fine", "n": 1}, b"[1]")
    assert second == BadRow(101, "row 1", r'column "t" holds text that is no UTF-8: caf\xe9')
    assert isinstance(third, BadRow)
    assert len(third.message) < 500


@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), bad),
        lambda bad: pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), bad),
        lambda bad: pa.StructArray.from_arrays([bad], ["s"]),
        lambda bad: bad.cast(pa.large_binary()).view(pa.large_string()),
    ],
    ids=["dictionary", "list", "struct", "large"],
)
def test_bad_text_is_found_at_every_depth(wrap) -> None:  # type: ignore[no-untyped-def]
    batch = pa.record_batch({"t": wrap(raw_text(b"a", b"\xff", b"c"))})
    assert [type(row) for row in rows(batch)] == [Row, BadRow, Row]


def test_bad_text_under_a_slice_spoils_no_other_row() -> None:
    batch = pa.record_batch(
        {"t": pa.ListArray.from_arrays(pa.array([0, 1, 2]), raw_text(b"\xff", b"fine"))}
    ).slice(1)
    assert find_faults(batch) == {}


def test_what_is_copied_has_nothing_of_other_rows_beneath() -> None:
    batch = pa.record_batch({"t": pa.array(["x" * MIB, "y"])})
    assert take(batch, [1]).nbytes < 100


@pytest.mark.parametrize("keys", [["a", None], ["a", ""], pa.array(["a", None]).dictionary_encode()])
def test_a_row_without_a_key_is_known_as_such(keys: object) -> None:
    found = rows(pa.record_batch({"id": keys}), "id")
    assert [type(row) for row in found] == [Row, KeylessRow]


def test_a_null_number_is_a_missing_key() -> None:
    assert [type(row) for row in rows(pa.record_batch({"id": pa.array([1, None])}), "id")] == [
        Row,
        KeylessRow,
    ]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (pa.string(), pa.string()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.int8(), pa.int64()),
        (pa.uint64(), pa.int64()),
    ],
)
def test_a_key_is_text_or_a_whole_number(kind: pa.DataType, made: pa.DataType) -> None:
    assert pin_arrow("a", pa.schema([("id", kind)]), "id", ()).key == pa.field("id", made)


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.date32(), pa.binary(), pa.list_(pa.int8())])
def test_a_key_of_another_type_is_refused_with_a_remedy(kind: pa.DataType) -> None:
    with pytest.raises(InputDataError, match=r"a\.parquet: the key column") as caught:
        pin_arrow("a.parquet", pa.schema([("id", kind)]), "id", ())
    assert "cast the column" in caught.value.remedy


def test_a_key_beyond_int64_is_refused() -> None:
    batch = pa.record_batch({"id": pa.array([1, 2**63], pa.uint64())})
    with pytest.raises(InputDataError, match=r"holds 9223372036854775808, which is beyond int64"):
        rows(batch, "id")


def test_a_view_travels_in_a_plain_layout() -> None:
    batch = pa.record_batch({"t": pa.array(["a"], pa.string_view())})
    assert pin_arrow("a", batch.schema, None, ("t",)).carry == (pa.field("t", pa.string()),)
    assert rows(batch, None, ("t",)) == [Row(100, None, {"t": "a"}, b'["a"]')]


def test_field_metadata_does_not_travel() -> None:
    schema = pa.schema([pa.field("t", pa.string(), nullable=False, metadata={"a": "b"})])
    (field,) = pin_arrow("a", schema, None, None).carry
    assert (field.metadata, field.nullable) == (None, True)


def test_carry_none_means_all_but_the_key() -> None:
    schema = pa.schema([("a", pa.int8()), ("id", pa.string()), ("b", pa.int8())])
    assert [field.name for field in pin_arrow("a", schema, "id", None).carry] == ["a", "b"]


def test_a_column_that_is_there_twice_is_refused() -> None:
    schema = pa.schema([("a", pa.int8()), ("a", pa.int8())])
    with pytest.raises(InputDataError, match='several columns "a"'):
        pin_arrow("a.parquet", schema, None, ("a",))


def test_an_unknown_time_zone_is_refused_where_templates_see_it() -> None:
    schema = pa.schema([("at", pa.list_(pa.timestamp("us", "Mars/Phobos")))])
    with pytest.raises(InputDataError, match='time zone "Mars/Phobos" of column "at"'):
        check_zones("a.parquet", schema, {"at"})
    check_zones("a.parquet", schema, {"other"})


@pytest.mark.parametrize("keys", [["a", "b", "c"], [1, 2, 3]])
def test_a_bad_row_tells_its_key(keys: list[object]) -> None:
    batch = pa.record_batch({"id": keys, "t": raw_text(b"fine", b"caf\xe9", b"\xff")})
    _, second, third = rows(batch, "id")
    assert isinstance(second, BadRow)
    assert isinstance(third, BadRow)
    assert [second.key, third.key] == keys[1:]


def test_a_bad_row_whose_key_is_no_text_has_none() -> None:
    batch = pa.record_batch({"id": raw_text(b"a", b"caf\xe9")})
    _, second = rows(batch, "id")
    assert isinstance(second, BadRow)
    assert second.key is None
