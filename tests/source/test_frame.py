"""Rows that are in memory: frames of every library by Arrow's stream, and lists of dicts."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.carry import CarryCodec
from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source import FrameSource, frame_source

TABLE = pa.table({"id": ["x", "y"], "t": ["a", None], "n": [1, 2]})


class Foreign:
    """A frame of a library that we do not know, such as pandas."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def opened(
    frame: object, key: str | None = None, carry: object = (), needed: frozenset[str] | None = None
) -> FrameSource:
    return frame_source(frame, key=key, carry=carry, needed=needed)  # type: ignore[arg-type]


def rows(source: FrameSource) -> list[Row | BadRow]:
    return [row for batch in source.batches() for row in batch]


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
        TABLE.to_batches()[0],
        pl.from_arrow(TABLE),
        pl.from_arrow(TABLE).lazy(),  # type: ignore[union-attr]
        Foreign(TABLE),
    ],
    ids=["table", "chunked table", "record batch", "polars", "lazy polars", "other library"],
)
def test_every_kind_of_frame_gives_the_same_rows(frame: object) -> None:
    source = opened(frame, "id", ["n"], frozenset({"t"}))
    expected = [Row(0, "x", {"t": "a", "id": "x"}, b"[1]"), Row(1, "y", {"t": None, "id": "y"}, b"[2]")]
    assert rows(source) == expected
    assert rows(source) == expected
    assert source.column_names == ("id", "t", "n")
    assert source.scan().rows == 2
    assert source.peek(1) == expected[:1]


def test_a_stream_of_batches_can_be_read_again() -> None:
    source = opened(pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches()))
    assert source.scan().rows == 2
    assert len(rows(source)) == 2


def test_a_list_of_dicts_is_read_like_jsonl() -> None:
    source = frame_source(
        [{"id": 1, "c": [1, 2], "n": 5}, {"id": "b", "c": None, "n": None}],
        key="id",
        carry=["c", "n"],
        needed=None,
        columns={"n": "int64"},
    )
    assert source.shape.carry == (pa.field("c", pa.string()), pa.field("n", pa.int64()))
    assert [(row.key, row.carry) for row in rows(source) if isinstance(row, Row)] == [
        ("1", b'["[1,2]",5]'),
        ("b", b"[null,null]"),
    ]
    assert source.column_names is None


def test_values_beside_json_s_travel_as_text() -> None:
    source = opened([{"at": datetime(2024, 5, 6), "price": Decimal("1.50")}], None, ["at", "price"])  # noqa: DTZ001
    assert orjson.loads(rows(source)[0].carry) == ["2024-05-06 00:00:00", "1.50"]  # type: ignore[union-attr]


def deep() -> list[object]:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("text", "a str, where a dict is read"),
        ({1: "a"}, "column name 1 is no text"),
        ({"c": b"bytes"}, "no JSON"),
        ({"c": deep()}, "nested too deeply"),
    ],
    ids=["text", "number as a name", "bytes", "deep"],
)
def test_an_item_that_is_no_row_is_a_bad_row(row: object, says: str) -> None:
    first, second, third = rows(opened([{"c": "x"}, row, {"c": "y"}], None, ["c"]))
    assert isinstance(first, Row)
    assert isinstance(third, Row)
    assert isinstance(second, BadRow)
    assert says in second.message
    assert second.place == "row 1, counted from 0"
    scan = opened([{"c": "x"}, row]).scan()
    assert scan.rows == 2
    assert scan.digest == opened([{"c": "x"}, row]).scan().digest


def test_surrogates_in_dicts_are_replaced() -> None:
    source = opened([{"t": "a\ud800"}], None, ["t"])
    assert rows(source) == [Row(0, None, {"t": "a\ufffd"}, orjson.dumps(["a\ufffd"]))]


def test_the_users_dicts_are_not_changed() -> None:
    mine = {"t": "a\ud800"}
    rows(opened([mine]))
    assert mine == {"t": "a\ud800"}


def test_types_travel_as_the_frame_has_them_with_small_offsets() -> None:
    frame = pl.DataFrame(
        {
            "cat": pl.Series(["x"], dtype=pl.Categorical),
            "dec": pl.Series(["1.5"]).cast(pl.Decimal(10, 2)),
            "at": pl.Series([1]).cast(pl.Datetime("ns", "Europe/Berlin")),
            "text": ["x"],
            "bytes": [b"\xff"],
            "list": [[1, None]],
            "vector": pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2)),
            "struct": [{"a": "b"}],
            "none": [None],
            "cats": pl.Series([["x"]], dtype=pl.List(pl.Categorical)),
        }
    )
    source = opened(frame, None, "all")
    (row,) = rows(source)
    assert isinstance(row, Row)
    back = CarryCodec(source.shape.carry).decode([row.carry])
    assert {field.name: str(field.type) for field in source.shape.carry} == {
        "cat": "string",
        "dec": "decimal128(10, 2)",
        "at": "timestamp[ns, tz=Europe/Berlin]",
        "text": "string",
        "bytes": "binary",
        "list": "list<item: int64>",
        "vector": "fixed_size_list<item: float>[2]",
        "struct": "struct<a: string>",
        "none": "null",
        "cats": "list<item: string>",
    }
    again = pl.from_arrow(pa.table(back, names=[field.name for field in source.shape.carry]))
    assert isinstance(again, pl.DataFrame)
    categories = pl.col("cat").cast(pl.Categorical), pl.col("cats").cast(pl.List(pl.Categorical))
    assert again.with_columns(categories).equals(frame)


def test_no_needed_column_makes_empty_rows() -> None:
    assert rows(opened(TABLE, needed=frozenset())) == [Row(0, None, {}, b"[]"), Row(1, None, {}, b"[]")]


def test_a_long_frame_comes_in_batches() -> None:
    source = opened(pa.table({"a": list(range(1300))}))
    assert [len(batch) for batch in source.batches()] == [512, 512, 276]
    assert [row.ordinal for row in rows(source)] == list(range(1300))


def test_repeated_keys_are_refused_with_their_rows() -> None:
    with pytest.raises(InputDataError, match='row 0, counted from 0 and row 2, counted from 0: "a"'):
        opened(pa.table({"id": ["a", "b", "a"]}), "id").scan()
    with pytest.raises(InputDataError, match="row 1, counted from 0"):
        opened([{"id": "a"}, {"id": None}], "id").scan()


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pa.table([[1], [2]], names=["a", "a"]), 'several columns "a"'),
        (pl.DataFrame({"a": [1]}, schema={"a": pl.Int128}), "128-bit"),
        (pl.Series("a", [1]), "cannot be read as an Arrow table"),
        (pl.LazyFrame({"a": [1]}).select("b"), "the lazy frame cannot be collected"),
        ({"a": [1]}, "object of type dict"),
        (17, "object of type int"),
    ],
    ids=["equal names", "int128", "series", "query", "dict", "number"],
)
def test_what_is_no_table_is_refused(frame: object, says: str) -> None:
    with pytest.raises(InputDataError) as caught:
        opened(frame)
    assert says in str(caught.value)


def test_a_frame_has_its_own_types() -> None:
    with pytest.raises(InputDataError, match="own types"):
        frame_source(TABLE, key=None, carry=(), needed=None, columns={"n": "string"})


def test_a_column_that_is_nowhere_is_refused_with_the_nearest_name() -> None:
    for frame in (TABLE, TABLE.to_pylist()):
        with pytest.raises(InputDataError, match="the frame") as caught:
            opened(frame, "idd")
        assert 'did you mean "id"?' in caught.value.remedy


def test_the_digest_is_of_the_values_and_not_of_their_layout() -> None:
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    encoded = TABLE.set_column(1, "t", TABLE.column("t").dictionary_encode())
    digests = {opened(frame).scan().digest for frame in (TABLE, chunked, encoded)}
    assert len(digests) == 1


def test_the_digest_does_not_depend_on_what_is_read() -> None:
    one = opened(TABLE, None, (), frozenset()).scan().digest
    assert one == opened(TABLE, "id", ["n"], None).scan().digest


@pytest.mark.parametrize(
    "other",
    [
        TABLE.slice(0, 1),
        TABLE.rename_columns(["id", "t", "m"]),
        TABLE.set_column(2, "n", pa.array([1, 3])),
        TABLE.set_column(2, "n", pa.array([1, 2], pa.int32())),
        TABLE.take(pa.array([1, 0])),
        TABLE.to_pylist(),
    ],
    ids=["fewer rows", "name", "value", "type", "order", "dicts"],
)
def test_another_table_has_another_digest(other: object) -> None:
    assert opened(other).scan().digest != opened(TABLE).scan().digest


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.dictionaries(st.text("ab"), st.integers() | st.floats() | st.none() | st.text(max_size=3)),
        max_size=4,
    )
)
def test_equal_dicts_have_equal_digests(table: list[dict[str, object]]) -> None:
    again = [dict(reversed(row.items())) for row in table]
    assert opened(table).scan().digest == opened(again).scan().digest
    assert opened([*table, {}]).scan().digest != opened(table).scan().digest


def test_bad_text_in_chunks_has_one_digest() -> None:
    raw = pa.array([b"a", b"\xff", b"c", b"\xfe"])
    table = pa.table({"t": pa.Array.from_buffers(pa.string(), 4, raw.buffers())})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert opened(table).scan().digest == opened(chunked).scan().digest


def test_a_frame_has_no_stamps() -> None:
    assert opened(TABLE).stamps() == ()


def test_bad_text_in_a_frame_is_a_bad_row_and_counts_in_the_digest() -> None:
    def frame(raw: bytes) -> pa.Table:
        return pa.table({"t": pa.Array.from_buffers(pa.string(), 1, pa.array([raw]).buffers())})

    scan = opened(frame(b"\xff")).scan()
    assert (scan.rows, scan.bad_rows) == (1, 1)
    assert scan.digest != opened(frame(b"\xfe")).scan().digest


def test_pandas_is_not_needed(tmp_path: Path) -> None:
    """A frame that is no polars one comes by the stream alone."""
    assert rows(opened(Foreign(pa.table({"t": pa.array(["a"], pa.string_view())})))) == [
        Row(0, None, {"t": "a"}, b"[]")
    ]
