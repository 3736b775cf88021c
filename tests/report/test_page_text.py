import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.report.page.figures import confusion, read
from batchllm.report.page.sections import embedded
from batchllm.report.page.text import clean, cost, counted, decimal, listed, number, p_value, percent, points


@given(st.text(st.characters(), max_size=60))
def test_cleaned_text_can_be_encoded_and_turns_no_direction(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert not set("\x00\x1b\u202a\u202e\u2066\u2069\ufeff") & set(cleaned)


def test_joiners_marks_and_line_breaks_stay() -> None:
    text = "\U0001f469\u200d\U0001f52c \u0645\u06cc\u200c\u062e\n\u05e9\u200f"
    assert clean(text) == text


def test_what_is_cut_is_said() -> None:
    assert clean("abcdef", 4) == "abc…"
    assert clean("abcd", 4) == "abcd"


@given(st.recursive(st.text() | st.none() | st.integers(0, 9), lambda inner: st.lists(inner, max_size=4)))
def test_embedded_json_has_nothing_that_ends_a_script_and_reads_back(value: object) -> None:
    import json

    text = embedded(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (percent(0.9583), "95.8\u00a0%"),
        (percent(1.0), "100.0\u00a0%"),
        (percent(0.99999), ">\u00a099.9\u00a0%"),
        (percent(0.00001), "<\u00a00.1\u00a0%"),
        (points(-0.061), "−6.1"),
        (points(0.061), "+6.1"),
        (decimal(-0.5), "−0.500"),
        (number(1234.5), "1,234"),
        (number(1234.5678, 6), "1,234.57"),
        (number(0.000012345), "1.234e−05"),
        (number(float("nan")), "not a number"),
        (p_value(0.0002), "p\u00a0<\u00a00.001"),
        (p_value(0.04), "p\u00a0=\u00a00.040"),
        (cost(1e-10), "< $0.000000001"),
        (cost(None), "unknown"),
        (counted(1, "row"), "1 row"),
        (counted(1_200, "row"), "1,200 rows"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed(list("abcdef"), 2), "a, b and 4 more"),
    ],
)
def test_numbers_read_as_people_write_them(said: str, wanted: str) -> None:
    assert said == wanted


@pytest.mark.parametrize(
    ("labels", "counts"), [([], []), (["a"], [[1, 2]]), (["a", "b"], [[1, 2]]), ("ab", None), (["a"], [3])]
)
def test_counts_that_are_no_square_are_no_confusion(labels: object, counts: object) -> None:
    assert confusion(labels, counts) is None


def test_a_reason_is_found_in_the_statistic_beside_it_or_in_the_part() -> None:
    assert read({"agreement": {"alpha": {"value": None, "why": "inside"}}}).alpha.why == "inside"
    assert read({"agreement": {"alpha": None, "alpha_why": "beside"}}).alpha.why == "beside"
    assert read({"agreement": {"alpha": None, "why": {"alpha": "part"}}}).alpha.why == "part"
    assert read({"agreement": {"alpha": None, "why": "one voter"}}).alpha.why == "one voter"
