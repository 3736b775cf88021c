"""Pinned types and what fits them."""

import json
import math
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputDataError
from batchllm.source.columns import (
    RowFault,
    check_columns,
    fit_column,
    fit_text,
    fit_value,
    json_text,
    nearest,
    pin_seen,
    pin_text,
    shown,
    unknown_column,
)
from batchllm.spec.models import ColumnType


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, None),
        (5, "5"),
        (2**70, str(2**70)),
        (True, "true"),
        (1.5, "1.5"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ([1, "é", None], '[1,"é",null]'),
        ({"a": [math.inf]}, '{"a":[Infinity]}'),
        (Decimal("1.50"), "1.50"),
        ([datetime(2024, 5, 6)], '["2024-05-06 00:00:00"]'),  # noqa: DTZ001
    ],
)
def test_a_value_that_is_no_text_has_its_json_text(value: object, text: str | None) -> None:
    assert json_text(value) == text


def deep() -> list[object]:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [[b"bytes"], {1: object()}, 10**5000, deep()], ids=["bytes", "object", "digits", "deep"]
)
def test_what_has_no_json_text_is_a_fault_of_its_row(value: object) -> None:
    with pytest.raises(RowFault):
        json_text(value)


@settings(deadline=None)
@given(st.integers())
def test_an_int64_column_holds_exactly_the_integers_in_range(number: int) -> None:
    if -(2**63) <= number < 2**63:
        assert fit_value("n", "int64", number) == number
        assert fit_text("n", "int64", str(number)) == number
    else:
        for fit in (lambda: fit_value("n", "int64", number), lambda: fit_text("n", "int64", str(number))):
            with pytest.raises(RowFault):
                fit()


def test_a_whole_float_fits_int64_while_it_names_one_integer() -> None:
    assert fit_value("n", "int64", 3.0) == 3
    assert fit_value("n", "int64", float(2**53)) == 2**53
    for number in (float(2**54), math.nan, math.inf, 0.5):
        with pytest.raises(RowFault):
            fit_value("n", "int64", number)


def test_an_integer_too_large_for_a_float_does_not_fit() -> None:
    assert fit_value("f", "float64", 2) == 2.0
    with pytest.raises(RowFault, match='column "f" is declared float64'):
        fit_value("f", "float64", 10**400)


@settings(deadline=None)
@given(st.floats())
def test_what_str_wrote_of_a_float_is_read(number: float) -> None:
    read = fit_text("f", "float64", str(number))
    assert read == number or (math.isnan(number) and isinstance(read, float) and math.isnan(read))


def test_a_column_that_fits_already_is_not_copied() -> None:
    values: list[object] = ["a", None]
    assert fit_column("c", "string", values) is values
    assert fit_column("c", "int64", [1, None]) == [1, None]


@pytest.mark.parametrize("kind", ["int64", "float64", "bool"])
def test_blank_text_is_null_unless_the_column_is_text(kind: ColumnType) -> None:
    assert fit_text("c", kind, " ") is None
    assert fit_text("c", "string", " ") == " "


def test_a_long_value_is_cut_in_a_message() -> None:
    assert len(shown("x" * 1000)) < 100
    assert shown(deep()) == "a list"


def test_the_shape_has_the_key_and_each_carried_column_once() -> None:
    shape, pinned = pin_text("id", ["b", "id", "a", "b"], {"a": "int64", "x": "bool"})
    assert shape.key == pa.field("id", pa.string())
    assert shape.carry == (pa.field("b", pa.string()), pa.field("a", pa.int64()))
    assert pinned == {"a": "int64", "x": "bool", "b": "string", "id": "string"}


@pytest.mark.parametrize("kind", ["float64", "bool"])
def test_a_key_is_text_or_a_whole_number(kind: ColumnType) -> None:
    with pytest.raises(InputDataError, match="a key is text or a whole number"):
        pin_text("id", [], {"id": kind})


def test_all_columns_are_the_declared_ones() -> None:
    shape, _ = pin_seen("a.jsonl", ["a", "b"], None, "all", {"a": "string"})
    assert [field.name for field in shape.carry] == ["a"]
    with pytest.raises(InputDataError) as caught:
        pin_seen("a.jsonl", ["a", "b"], None, "all", {})
    assert "seen so far: a, b" in caught.value.remedy


def test_without_any_row_no_column_is_missing() -> None:
    shape, _ = pin_seen("a.jsonl", [], "id", ["c"], {"d": "bool"})
    assert shape.key is not None


@pytest.mark.parametrize(
    ("name", "near"),
    [("lable", "label"), ("LABEL", "label"), ("reviewid", "review_id"), ("zzz", None), ("", None)],
)
def test_the_nearest_name_is_offered(name: str, near: str | None) -> None:
    assert nearest(name, ["review_id", "label", "text"]) == near


def test_a_missing_column_is_told_with_its_role_and_all_columns() -> None:
    check_columns("a.csv", ["a"], "a", ["a"], {"a": "int64"})
    with pytest.raises(InputDataError, match=r'a\.csv has no column "b" \(input.columns\)'):
        check_columns("a.csv", ["a"], "a", ["a"], {"b": "int64"})
    many = unknown_column("a.csv", "x", "input.key", [f"c{at}" for at in range(60)])
    assert many.remedy.endswith("c49 and 10 more")


def test_shown_values_are_json() -> None:
    assert shown({"a": [1]}) == json.dumps({"a": [1]})
