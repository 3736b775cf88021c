"""Layouts that Arrow cannot compute with become ones that it can."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputDataError
from batchllm.source.settling import settle, settle_batch, settled_type

VIEWS = [
    (pa.array(["a", None, "x" * 40], pa.string_view()), pa.large_string()),
    (pa.array([b"a", None], pa.binary_view()), pa.large_binary()),
    (pa.array([["a"], None], pa.list_(pa.string_view())), pa.list_(pa.large_string())),
    (pa.array([[1], None, []], pa.list_view(pa.int8())), pa.list_(pa.int8())),
    (pa.array([["a"]], pa.large_list_view(pa.string_view())), pa.large_list(pa.large_string())),
    (pa.array([{"a": "b"}], pa.struct([("a", pa.string_view())])), pa.struct([("a", pa.large_string())])),
    (
        pa.array([[("a", "b")]], pa.map_(pa.string_view(), pa.string_view())),
        pa.map_(pa.large_string(), pa.large_string()),
    ),
    (pc.run_end_encode(pa.array([7, 7, 8])), pa.int64()),
]


@pytest.mark.parametrize(("array", "kind"), VIEWS, ids=[str(array.type) for array, _ in VIEWS])
def test_the_layout_changes_and_the_values_do_not(array: pa.Array, kind: pa.DataType) -> None:
    settled = settle(array)
    assert settled.type == kind == settled_type(array.type)
    assert settled.to_pylist() == array.to_pylist()


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.list_(pa.field("x", pa.int8(), nullable=False)),
        pa.decimal128(5, 2),
        pa.struct([("a", pa.int8())]),
    ],
)
def test_plain_types_stay(kind: pa.DataType) -> None:
    assert settled_type(kind) == kind
    array = pa.array([None], kind)
    assert settle(array) is array


def test_a_dictionary_stays_around_settled_values() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, None, 0]), pa.array(["a"], pa.string_view()))
    settled = settle(array)
    assert settled.type == pa.dictionary(pa.int64(), pa.large_string())
    assert settled.to_pylist() == ["a", None, "a"]
    assert settled_type(array.type) == pa.large_string()


def test_a_batch_without_columns_keeps_its_rows() -> None:
    batch = pa.record_batch({"a": [1, 2]}).select([])
    assert settle_batch(batch).num_rows == 2


Typed = tuple[pa.DataType, st.SearchStrategy[object]]


def wrapped(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def wrap(typed: Typed) -> st.SearchStrategy[Typed]:
        kind, values = typed
        items = st.lists(st.none() | values, max_size=3)
        lists = [make(kind) for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)]
        struct = (pa.struct([("a", kind)]), st.fixed_dictionaries({"a": st.none() | values}))
        return st.sampled_from([*[(one, items) for one in lists], struct])

    return inner.flatmap(wrap)


TYPED = st.recursive(
    st.sampled_from([(pa.string_view(), st.text(max_size=20)), (pa.int8(), st.integers(0, 9))]),
    wrapped,
    max_leaves=3,
)


@settings(deadline=None, max_examples=200)
@given(TYPED, st.data(), st.integers(0, 2))
def test_any_nest_of_views_keeps_its_values(typed: Typed, data: st.DataObject, start: int) -> None:
    kind, values = typed
    array = pa.array(data.draw(st.lists(st.none() | values, max_size=5)), kind).slice(start)
    settled = settle(array)
    settled.validate(full=True)
    assert settled.type == settled_type(kind)
    assert settled.to_pylist() == array.to_pylist()


def test_a_list_view_where_it_cannot_be_rebuilt_is_refused_with_its_column() -> None:
    array = pa.array([[("a", [1])]], pa.map_(pa.string(), pa.list_view(pa.int8())))
    with pytest.raises(InputDataError, match='column "m" is of type map<string, list_view') as caught:
        settle_batch(pa.record_batch({"m": array}))
    assert caught.value.remedy == "cast it to map<string, list<item: int8>>"
