"""Faulty keys are found and told with their places."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Key, Row
from batchllm.source.keys import KeyIndex, hash_key
from batchllm.source.rows import KeylessRow
from batchllm.source.scan import Tally, first_rows

Batch = Sequence[Row | BadRow]


def row(ordinal: int, key: Key, raw: object = None) -> Row:
    return Row(ordinal, key, {"id": key if raw is None else raw}, b"[]")


def check(batches: list[Batch], index: KeyIndex | None = None) -> Tally:
    tally = Tally("id", index)
    for batch in batches:
        tally.add(batch)
    tally.check_keys(lambda: iter(batches), lambda ordinals: {at: f"a.jsonl:{at + 1}" for at in ordinals})
    return tally


def test_rows_and_bad_rows_are_counted() -> None:
    tally = check([[row(0, "a"), BadRow(1, "a:2", "no JSON")], [row(2, "b")]])
    assert (tally.rows, tally.bad_rows) == (3, 1)


def test_a_repeated_key_is_told_with_both_places() -> None:
    with pytest.raises(InputDataError) as caught:
        check([[row(0, "r-1"), row(16, "r-17")], [row(202, "r-17")]])
    assert 'a.jsonl:17 and a.jsonl:203: "r-17"' in caught.value.message
    assert "input.key" in caught.value.remedy
    assert caught.value.exit_code == 65


def test_the_first_ten_are_told_in_the_order_of_their_second_row() -> None:
    keys = [f"k{at}" for at in range(30)]
    with pytest.raises(InputDataError) as caught:
        check([[row(at, key) for at, key in enumerate(keys + keys[::-1])]])
    told = [line for line in caught.value.message.splitlines() if " and " in line]
    assert len(told) == 10
    assert told[0].strip() == 'a.jsonl:30 and a.jsonl:31: "k29"'
    assert told[9].strip() == 'a.jsonl:21 and a.jsonl:40: "k20"'
    assert caught.value.message.splitlines()[-1].strip() == "…"


def test_a_key_that_comes_often_is_told_from_its_first_row() -> None:
    with pytest.raises(InputDataError) as caught:
        check([[row(at, "same") for at in range(5)]])
    assert caught.value.message.count("a.jsonl:1 and") == 4


def test_a_number_and_a_text_that_read_alike_are_one_key() -> None:
    with pytest.raises(InputDataError) as caught:
        check([[row(0, "1", 1), row(1, "1", "1")]])
    assert 'a.jsonl:1 (1) and a.jsonl:2 ("1")' in caught.value.message
    assert "a number and a text that read alike are one key" in caught.value.message


def test_rows_without_a_key_are_told_and_counted() -> None:
    keyless = [KeylessRow(at, f"a.jsonl:{at + 1}", 'the key column "id" is empty') for at in range(12)]
    with pytest.raises(InputDataError) as caught:
        check([keyless])
    assert "rows without a key: 12" in caught.value.message
    assert 'a.jsonl:10: the key column "id" is empty' in caught.value.message
    assert "a.jsonl:11" not in caught.value.message


def test_missing_and_repeated_keys_are_told_together() -> None:
    with pytest.raises(InputDataError) as caught:
        check([[row(0, "a"), row(1, "a"), KeylessRow(2, "a.jsonl:3", "no key")]])
    assert "a.jsonl:3" in caught.value.message
    assert "a.jsonl:1 and a.jsonl:2" in caught.value.message


def test_equal_hashes_of_unequal_keys_are_no_fault() -> None:
    check([[row(at, f"k{at}") for at in range(50)]], KeyIndex(lambda key: len(str(key))))


def test_a_repeat_is_found_behind_equal_hashes() -> None:
    """256 innocent pairs are looked at first."""
    innocent = [f"k{at}" for at in range(600)]

    def paired(key: Key) -> int:
        text = str(key)
        return int(text[1:]) // 2 if text.startswith("k") else hash_key(key)

    keys = [*innocent, "twice", "twice"]
    with pytest.raises(InputDataError, match="twice"):
        check([[row(at, key) for at, key in enumerate(keys)]], KeyIndex(paired))


def test_without_a_key_nothing_is_checked() -> None:
    tally = Tally(None)
    tally.add([Row(0, None, {}, b"[]"), Row(1, None, {}, b"[]")])

    def never() -> Iterator[Batch]:
        raise AssertionError("read again")

    tally.check_keys(never, lambda _: {})
    assert tally.rows == 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), max_size=25))
def test_a_fault_is_raised_exactly_when_a_key_repeats(keys: list[int]) -> None:
    batches = [[row(at, key) for at, key in enumerate(keys)]]
    if len(set(keys)) == len(keys):
        check(batches)
    else:
        with pytest.raises(InputDataError):
            check(batches)


def test_first_rows_skip_bad_ones_and_stop() -> None:
    def batches() -> Iterator[Batch]:
        yield [BadRow(0, "", ""), row(1, "a"), row(2, "b")]
        raise AssertionError("read on")

    assert [found.ordinal for found in first_rows(batches(), 2)] == [1, 2]
    assert first_rows(batches(), 0) == []
