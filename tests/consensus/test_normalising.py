"""Values → votes: what is read, what is no vote, and why."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.normalising import Vocabulary, set_text, vocabulary
from batchllm.prompt import TemplateError


def read(words: Vocabulary, values: list[object], kind: pa.DataType | None = None) -> list[str | None]:
    """Each value as the vote that it is."""
    codes = words.codes(pa.array(values, kind))
    named, place = words.in_order()
    return [named[place[code]] if code >= 0 else None for code in codes.tolist()]


def test_labels_are_taken_as_they_are_and_others_are_no_vote() -> None:
    words = vocabulary("label", ["pos", "neg"], None)
    assert read(words, ["neg", "pos", "Pos", None]) == ["neg", "pos", None, None]
    codes = words.codes(pa.array(["Pos", None, "pos"]))
    assert [words.reasons[why] for why in words.reason_of(codes)] == [
        '"Pos" is none of the labels',
        "the answer has no value there",
        "",
    ]
    assert words.in_order()[0] == ("pos", "neg")


def test_without_labels_all_texts_are_votes_in_the_order_of_their_text() -> None:
    words = vocabulary("label", None, None)
    read(words, ["b", "a"])
    assert read(words, ["c", "a"]) == ["c", "a"]
    assert words.in_order()[0] == ("a", "b", "c")


def test_normalise_is_applied_to_each_different_value() -> None:
    words = vocabulary("text", None, "{{ value | trim | lower }}")
    assert read(words, [" Yes", "yes ", "NO", "  "]) == ["yes", "yes", "no", None]
    assert "normalise leaves nothing of it" in words.reasons


def test_normalise_reads_value_alone() -> None:
    with pytest.raises(TemplateError, match="'valu'"):
        vocabulary("label", None, "{{ valu }}")
    with pytest.raises(TemplateError):
        vocabulary("label", None, "{{ value")


def test_truth_values_are_read_from_their_words() -> None:
    words = vocabulary("boolean", None, None)
    assert read(words, ["Yes", "FALSE", "no", "true", "maybe"]) == ["true", "false", "false", "true", None]
    assert read(words, [True, False, None]) == ["true", "false", None]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_sets_know_neither_order_nor_repeats(kind: pa.DataType) -> None:
    words = vocabulary("labels", None, None)
    found = read(words, [["b", "a"], ["a", "b", "a"], [], None], kind)
    assert found == ['["a","b"]', '["a","b"]', "[]", None]
    assert read(words, ['["b", "a"]', "a, b", "[1]"]) == ['["a","b"]', None, None]


def test_sets_of_known_labels() -> None:
    words = vocabulary("labels", ["a", "b"], "{{ value | lower }}")
    assert read(words, [["A"], ["a", "c"]], pa.list_(pa.string())) == ['["a"]', None]
    assert '"c" is none of the labels' in words.reasons


def test_numbers_are_parsed_and_only_finite_ones_are_votes() -> None:
    words = vocabulary("number", None, None)
    numbers, whys = words.numbers(pa.array(["1", " 2.5 ", "x", None, "inf", "1e3"]))
    assert np.array_equal(numbers, [1, 2.5, np.nan, np.nan, np.nan, 1000], equal_nan=True)
    assert [words.reasons[why] for why in whys] == [
        "",
        "",
        "is no finite number",
        "the answer has no value there",
        "is no finite number",
        "",
    ]
    assert words.numbers(pa.array([1, None], pa.int32()))[0][0] == 1


def test_very_many_reasons_become_one() -> None:
    words = vocabulary("label", ["a", "b"], None)
    read(words, [f"strange {n}" for n in range(1000)])
    assert len(words.reasons) < 250
    assert words.reasons[-1] == "is no vote"


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcdef"), st.text(max_size=3))), st.integers(1, 5))
def test_batches_make_no_difference(values: list[str | None], size: int) -> None:
    whole, pieces = vocabulary("label", None, None), vocabulary("label", None, None)
    at_once = read(whole, list(values), pa.string())
    for start in range(0, len(values), size):
        pieces.codes(pa.array(values[start : start + size], pa.string()))
    assert read(pieces, list(values), pa.string()) == at_once == values


@given(st.lists(st.text(max_size=3), max_size=5))
def test_a_list_and_its_json_are_one_set(labels: list[str]) -> None:
    words = vocabulary("labels", None, None)
    assert (
        read(words, [labels], pa.list_(pa.string())) == read(words, [set_text(labels)]) == [set_text(labels)]
    )


def test_numbers_that_cannot_be_counted_with_are_no_votes() -> None:
    words = vocabulary("number", None, None)
    whole, whys = words.numbers(pa.array([2**53, 2**53 + 2, None, -(2**60)]))
    assert whole[0] == 2**53
    assert np.isnan(whole[1:]).all()
    assert [words.reasons[why] for why in whys] == [
        "",
        *(TOO_LARGE, "the answer has no value there", TOO_LARGE),
    ]
    numbers, _ = words.numbers(pa.array([1e150, 1e151, -1e308]))
    assert np.isnan(numbers).tolist() == [False, True, True]


TOO_LARGE = "is too large to be counted with"


def test_there_is_one_zero() -> None:
    found, _ = vocabulary("number", None, None).numbers(pa.array(["-0", "0", "-0.0"], pa.string()))
    assert [str(number) for number in found] == ["0.0"] * 3
