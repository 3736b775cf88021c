"""What a column's votes are."""

import pyarrow as pa
import pytest

from batchllm.consensus.kinds import fits, kind_of, value_type
from batchllm.spec.consensus import VoteKind

TEXT, VECTOR = pa.string(), pa.list_(pa.float32(), 3)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (TEXT, "label"),
        (pa.large_string(), "label"),
        (pa.dictionary(pa.int32(), TEXT), "label"),
        (pa.int64(), "number"),
        (pa.float32(), "number"),
        (pa.bool_(), "boolean"),
        (pa.list_(TEXT), "labels"),
        (VECTOR, "vector"),
        (pa.list_(pa.bool_()), None),
        (pa.struct([]), None),
    ],
)
def test_the_type_tells_the_kind(column: pa.DataType, kind: VoteKind | None) -> None:
    assert kind_of(column) == kind
    assert kind is None or fits(kind, column)


@pytest.mark.parametrize(
    ("kind", "column", "is_fit"),
    [
        ("number", TEXT, True),
        ("boolean", TEXT, True),
        ("labels", TEXT, True),
        ("text", TEXT, True),
        ("vector", TEXT, False),
        ("label", pa.int64(), True),
        ("label", pa.float64(), False),
        ("label", pa.bool_(), True),
        ("number", pa.bool_(), False),
        ("labels", pa.list_(pa.int64()), False),
        ("label", pa.list_(TEXT), False),
        ("text", pa.int64(), False),
    ],
)
def test_a_kind_is_read_from_some_columns(kind: VoteKind, column: pa.DataType, is_fit: bool) -> None:
    assert fits(kind, column) is is_fit


def test_the_table_keeps_the_type_of_a_vote() -> None:
    assert value_type("number") == pa.float64()
    assert value_type("labels") == pa.list_(pa.string())
    assert value_type("vector") == pa.string()
