"""What is carried comes back: same values, same Arrow types."""

import math
from decimal import Decimal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.carry import CarryCodec, plain_type

FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def ints(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def decimals(kind: pa.DataType) -> st.SearchStrategy[Decimal]:
    most = 10**kind.precision - 1
    return st.integers(-most, most).map(lambda unscaled: Decimal(f"{unscaled}E{-kind.scale}"))


TEXT = st.text(max_size=12)
BYTES = st.binary(max_size=12)
LEAVES: list[tuple[pa.DataType, st.SearchStrategy[object]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *[(kind, ints(kind.bit_width)) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())],
    *[
        (kind, ints(kind.bit_width, signed=False))
        for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    ],
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    *[(kind, TEXT) for kind in (pa.string(), pa.large_string(), pa.string_view())],
    *[(kind, BYTES) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())],
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    *[
        (kind, decimals(kind))
        for kind in (
            pa.decimal32(9, 2),
            pa.decimal64(18, 6),
            pa.decimal128(38, 10),
            pa.decimal128(5, -3),
            pa.decimal256(76, 0),
        )
    ],
    (pa.date32(), ints(32)),
    (pa.date64(), ints(32).map(lambda days: days * 86_400_000)),
    *[(pa.time32(unit), st.integers(0, 86_399)) for unit in ("s", "ms")],
    *[(pa.time64(unit), st.integers(0, 86_399_999_999)) for unit in ("us", "ns")],
    *[(pa.timestamp(unit), ints(64)) for unit in ("s", "ms", "us", "ns")],
    (pa.timestamp("ns", "Europe/Berlin"), ints(64)),
    (pa.timestamp("us", "+05:30"), ints(64)),
    *[(pa.duration(unit), ints(64)) for unit in ("s", "ms", "us", "ns")],
    (pa.month_day_nano_interval(), st.tuples(ints(32), ints(32), ints(64))),
]

Typed = tuple[pa.DataType, st.SearchStrategy[object]]


def with_nulls(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


def nest(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def a_list(item: Typed) -> st.SearchStrategy[Typed]:
        kind, values = item
        items = st.lists(with_nulls(values), max_size=3)
        pair = st.lists(with_nulls(values), min_size=2, max_size=2)
        return st.sampled_from(
            [
                (pa.list_(kind), items),
                (pa.large_list(pa.field("piece", kind)), items),
                (pa.list_view(kind), items),
                (pa.large_list_view(kind), items),
                (pa.list_(kind, 2), pair),
            ]
        )

    def a_struct(members: list[Typed]) -> Typed:
        kind = pa.struct([pa.field(f"f{n % 2}", member) for n, (member, _) in enumerate(members)])
        return kind, st.tuples(*[with_nulls(values) for _, values in members]).map(
            lambda row: [(f"f{n % 2}", value) for n, value in enumerate(row)]
        )

    def a_map(members: tuple[Typed, Typed]) -> Typed:
        (key, keys), (item, values) = members
        return pa.map_(key, item), st.lists(st.tuples(keys, with_nulls(values)), max_size=3)

    key = inner.filter(lambda typed: not pa.types.is_null(typed[0]))
    return (
        inner.flatmap(a_list) | st.lists(inner, max_size=3).map(a_struct) | st.tuples(key, inner).map(a_map)
    )


TYPED = st.recursive(st.sampled_from(LEAVES), nest, max_leaves=4)


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    kind, values = draw(TYPED)
    array = pa.array(draw(st.lists(with_nulls(values), max_size=5)), kind)
    return array.slice(draw(st.integers(0, 2)))


def round_trip(array: pa.Array) -> pa.Array:
    codec = CarryCodec((pa.field("c", array.type),))
    return codec.decode(codec.encode_batch(pa.record_batch([array], names=["c"])))[0]


def assert_same(back: pa.Array, array: pa.Array) -> None:
    assert back.type == array.type
    back.validate(full=True)
    assert len(back) == len(array)
    for one, other in zip(physical(back), physical(array), strict=True):
        assert one == other


def physical(array: pa.Array) -> list[str]:
    """A rendering that tells NaN from null and raises on nothing."""
    return [array.slice(at, 1).to_string() for at in range(len(array))]


@FEW
@given(arrays())
def test_every_type_comes_back_exactly(array: pa.Array) -> None:
    assert_same(round_trip(array), array)


@pytest.mark.parametrize(("kind", "values"), LEAVES, ids=[str(kind) for kind, _ in LEAVES])
def test_each_leaf_type_comes_back_exactly(kind: pa.DataType, values: st.SearchStrategy[object]) -> None:
    @settings(max_examples=12, deadline=None)
    @given(st.lists(with_nulls(values), max_size=4))
    def check(row: list[object]) -> None:
        array = pa.array(row, kind)
        back = round_trip(array)
        if pa.types.is_floating(kind):
            assert back.type == kind
            assert [*map(repr, back.to_pylist())] == [*map(repr, array.to_pylist())]
        else:
            assert back.equals(array)

    check()


def test_a_dictionary_comes_back_as_its_values() -> None:
    array = pa.array(["a", None, "b", "a"]).dictionary_encode()
    assert round_trip(array).equals(pa.array(["a", None, "b", "a"]))


def test_a_dictionary_of_nanoseconds_comes_back_as_its_values() -> None:
    stamps = pa.array([1, None, 2**62 + 1], pa.timestamp("ns"))
    assert round_trip(stamps.dictionary_encode()).equals(stamps)


def test_an_extension_type_inside_a_list_comes_back_as_its_storage() -> None:
    ids = pa.array([b"0123456789abcdef", None], pa.uuid())
    back = round_trip(pa.ListArray.from_arrays(pa.array([0, 1, 2]), ids))
    assert back.equals(pa.array([[b"0123456789abcdef"], [None]], pa.list_(pa.binary(16))))


def test_a_dictionary_inside_a_list_comes_back_as_its_values() -> None:
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    array = pa.ListArray.from_arrays(pa.array([0, 2, 3]), words)
    assert round_trip(array).equals(pa.array([["a", "b"], ["a"]]))


def test_a_run_end_encoding_comes_back_as_its_values() -> None:
    array = pc.run_end_encode(pa.array([7, 7, None, 8]))
    assert round_trip(array).equals(pa.array([7, 7, None, 8]))


def test_a_null_map_hides_the_content_beneath() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    full = pa.array([[("a", 1)], [("b", 2)], [("c", 3), ("d", 4)]], kind)
    entries = pa.StructArray.from_arrays([full.keys, full.items], fields=[kind.key_field, kind.item_field])
    validity = pa.array([True, False, True]).buffers()[1]
    array = pa.Array.from_buffers(kind, 3, [validity, full.buffers()[1]], children=[entries])
    assert round_trip(array).to_pylist() == [[("a", 1)], None, [("c", 3), ("d", 4)]]


def test_a_null_list_hides_the_content_beneath() -> None:
    array = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4]), pa.array([1, 2, 3, 4]), mask=pa.array([False, True, False])
    )
    assert round_trip(array).to_pylist() == [[1], None, [4]]


def test_an_extension_type_comes_back() -> None:
    array = pa.array([b"0123456789abcdef", None], pa.uuid())
    back = round_trip(array)
    assert back.type == pa.uuid()
    assert back.equals(array)


def test_plain_type_keeps_what_has_no_encoding() -> None:
    kind = pa.struct([pa.field("a", pa.list_(pa.field("x", pa.int8(), nullable=False)), nullable=False)])
    assert plain_type(kind) == kind


def test_several_fields_keep_their_order_and_names() -> None:
    codec = CarryCodec((pa.field("b", pa.string()), pa.field("a", pa.int64())))
    batch = pa.record_batch({"a": pa.array([1, None]), "other": pa.array([0, 0]), "b": pa.array(["x", ""])})
    blobs = codec.encode_batch(batch)
    assert blobs == [b'["x",1]', b'["",null]']
    assert [column.to_pylist() for column in codec.decode(blobs)] == [["x", ""], [1, None]]


def test_values_of_a_row_come_back() -> None:
    fields = tuple(
        pa.field(name, kind)
        for name, kind in (("s", pa.string()), ("i", pa.int64()), ("f", pa.float64()), ("b", pa.bool_()))
    )
    codec = CarryCodec(fields)
    rows = [
        ["", -(2**63), 0.1, True],
        [None, None, None, None],
        ["\u2028\x00é", 2**63 - 1, -math.inf, False],
    ]
    back = codec.decode([codec.encode_values(row) for row in rows])
    assert [column.type for column in back] == [field.type for field in fields]
    assert [list(row) for row in zip(*[column.to_pylist() for column in back], strict=True)] == rows


def test_nan_among_values_stays_nan() -> None:
    codec = CarryCodec((pa.field("f", pa.float64()),))
    back = codec.decode([codec.encode_values([math.nan]), codec.encode_values([None])])[0]
    assert math.isnan(back[0].as_py())
    assert back[1].as_py() is None


def test_the_text_nan_is_no_number_in_a_text_column() -> None:
    codec = CarryCodec((pa.field("s", pa.string()),))
    assert codec.decode([codec.encode_values(["nan"])])[0].to_pylist() == ["nan"]


def test_no_fields_make_an_empty_array_a_row() -> None:
    codec = CarryCodec(())
    assert codec.encode_values(()) == b"[]"
    assert codec.encode_batch(pa.record_batch({"x": [1, 2]})) == [b"[]", b"[]"]
    assert codec.decode([b"[]", b"[]"]) == []


def test_no_blobs_make_empty_arrays_of_the_right_types() -> None:
    fields = (pa.field("t", pa.timestamp("ns", "UTC")), pa.field("d", pa.decimal128(5, 2)))
    back = CarryCodec(fields).decode([])
    assert [(len(column), column.type) for column in back] == [(0, field.type) for field in fields]


def test_blobs_are_json_that_a_person_can_read() -> None:
    batch = pa.record_batch(
        {"d": pa.array([Decimal("1.50")]), "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8()))}
    )
    codec = CarryCodec(tuple(batch.schema))
    assert orjson.loads(codec.encode_batch(batch)[0]) == ["1.50", [["k", 1]]]


def test_a_blob_of_other_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        CarryCodec((pa.field("a", pa.string()),)).decode([b'["x","y"]'])
