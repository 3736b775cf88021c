"""Repeated keys are suspected by their hashes, in the order in which they repeat."""

from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.source.keys import KeyIndex, hash_key

KEYS = st.lists(st.integers(-3, 30), max_size=60) | st.lists(st.text("ab", max_size=3), max_size=60)


def suspects(index: KeyIndex) -> set[int]:
    return {one for found in index.suspects() for one in found}


@settings(deadline=None)
@given(KEYS)
def test_exactly_the_repeated_keys_are_suspects(keys: list[int] | list[str]) -> None:
    index = KeyIndex()
    index.add(keys[: len(keys) // 2])
    index.add(keys[len(keys) // 2 :])
    assert suspects(index) == {hash_key(key) for key in keys if keys.count(key) > 1}


@settings(deadline=None)
@given(KEYS, st.integers(1, 9))
def test_sorting_in_shares_finds_the_same_in_the_same_order(
    keys: list[int] | list[str], at_once: int
) -> None:
    whole, shared = KeyIndex(), KeyIndex(sorted_at_once=at_once)
    whole.add(keys)
    shared.add(keys)
    assert list(shared.suspects()) == list(whole.suspects())


def test_no_keys_raise_no_suspicion() -> None:
    assert suspects(KeyIndex()) == set()


def test_the_extremes_of_int64_are_told_apart() -> None:
    index = KeyIndex()
    index.add([-(2**63), 2**63 - 1, -1, -2, 0])
    assert suspects(index) == set()


def test_a_key_that_comes_a_thousand_times_is_suspected_once() -> None:
    index = KeyIndex()
    index.add(["a"] * 1000)
    assert list(index.suspects()) == [frozenset({hash_key("a")})]


def test_suspects_come_in_the_order_of_their_second_row() -> None:
    index = KeyIndex()
    keys = [f"k{at}" for at in range(600)]
    index.add(keys + keys[::-1])
    first, *_ = index.suspects()
    assert first == frozenset(hash_key(key) for key in keys[::-1][:256])


def test_more_keys_may_follow_a_check() -> None:
    index = KeyIndex()
    index.add(["a"])
    assert suspects(index) == set()
    index.add(["a"])
    assert suspects(index) == {hash_key("a")}


def test_unequal_keys_of_one_hash_are_both_suspected() -> None:
    index = KeyIndex(lambda _: 7)
    index.add(["a", "b"])
    assert suspects(index) == {7}
    assert index.is_suspect("never seen", frozenset({7}))
