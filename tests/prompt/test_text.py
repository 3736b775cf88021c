import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.prompt.text import missing_column, to_text, well_formed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", "a\nb"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**70, "1180591620717411303424"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (Decimal("1.10"), "1.10"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 12, 30, tzinfo=UTC), "2024-02-29T12:30:00+00:00"),
        (time(8, 5), "08:05:00"),
        (timedelta(minutes=90), "1:30:00"),
        ([1, "a", None, True], '[1, "a", null, true]'),
        ((1, 2), "[1, 2]"),
        ({"ä": [1.5]}, '{"ä": [1.5]}'),
        ({"when": date(2024, 1, 2), "price": Decimal("9.90")}, '{"when": "2024-01-02", "price": "9.90"}'),
        (range(3), "[0, 1, 2]"),
        (iter("ab"), '["a", "b"]'),
    ],
)
def test_a_value_is_printed(value: object, text: str) -> None:
    assert to_text(value) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "{{ x }} is null"),
        (float("nan"), "{{ x }} is NaN"),
        (Decimal("NaN"), "{{ x }} is NaN"),
        (b"\x00", "holds bytes"),
        (bytearray(b"a"), "holds bytes"),
        ("".upper, "is a function"),
        (lambda: 1, "is a function"),
        ({"a": b"\x00"}, "holds bytes"),
        ([float("nan")], "Out of range float"),
    ],
)
def test_what_has_no_text_is_refused(value: object, said: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        to_text(value, "x")
    assert said in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
@settings(max_examples=40)
def test_lists_and_mappings_read_back(value: object) -> None:
    if isinstance(value, list | dict):
        assert json.loads(to_text(value)) == value


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("ä😀", "ä😀"),
        ("\ud800", "\ufffd"),
        ("a\udc00b", "a\ufffdb"),
        ("😀\ud83d", "😀\ufffd"),
        ("\udc00\ud800x", "\ufffd\ufffdx"),
    ],
)
def test_lone_surrogates_are_replaced(text: str, clean: str) -> None:
    assert well_formed(text) == clean


@given(st.text(st.characters()))
def test_what_is_well_formed_can_be_encoded_and_keeps_its_length(text: str) -> None:
    clean = well_formed(text)
    clean.encode()
    assert well_formed(clean) == clean


def test_a_missing_column_is_named_with_the_nearest_and_the_others() -> None:
    said = missing_column("txet", {"id": 1, "text": "x"})
    assert "'txet'" in said
    assert "did you mean 'text'" in said
    assert "id, text" in said


def test_a_row_without_columns_says_so() -> None:
    assert "its columns: none" in missing_column("text", {})


def test_many_columns_are_not_all_listed() -> None:
    assert missing_column("zz", {f"c{at}": at for at in range(100)}).count("c") < 40
