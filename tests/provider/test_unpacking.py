import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.provider.unpacking import Unpacker, UnpackingError

MANY = 10**6


def unpacker(coding: str) -> Unpacker:
    made = Unpacker.of(coding)
    assert made is not None
    return made


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_nothing_is_to_be_done(coding: str) -> None:
    assert Unpacker.of(coding) is None


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, deflate"])
def test_unknown_coding_is_refused_by_name(coding: str) -> None:
    with pytest.raises(UnpackingError, match=coding):
        Unpacker.of(coding)


@pytest.mark.parametrize("coding", ["gzip", "X-GZIP", "deflate", "raw"])
@given(text=st.binary(max_size=500), cuts=st.lists(st.integers(0, 600), max_size=5))
def test_what_was_packed_comes_back_however_it_is_cut(coding: str, text: bytes, cuts: list[int]) -> None:
    packed = gzip.compress(text) if "zip" in coding.lower() else zlib.compress(text)
    if coding == "raw":
        packed = packed[2:-4]
    one = unpacker("deflate" if coding == "raw" else coding)
    marks = sorted({0, len(packed), *(cut for cut in cuts if cut < len(packed))})
    pieces = [one.feed(packed[start:end], MANY) for start, end in pairwise(marks)]
    assert (b"".join(pieces), one.is_whole) == (text, True)


def test_members_follow_each_other() -> None:
    one = unpacker("gzip")
    first, second = gzip.compress(b"one"), gzip.compress(b"two")
    assert one.feed(first + second[:1], MANY) + one.feed(second[1:], MANY) == b"onetwo"
    assert one.is_whole


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_padding_behind_the_stream_is_passed_over(coding: str) -> None:
    packed = gzip.compress(b"one") if coding == "gzip" else zlib.compress(b"one")
    one = unpacker(coding)
    assert one.feed(packed + b"\0\0", MANY) + one.feed(b"\0" * 9, MANY) == b"one"
    assert one.is_whole


def test_stream_that_ends_early_is_not_whole() -> None:
    one = unpacker("gzip")
    one.feed(gzip.compress(b"one")[:-1], MANY)
    assert not one.is_whole


def test_nothing_at_all_is_whole() -> None:
    assert unpacker("gzip").is_whole


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_damage_is_told(coding: str) -> None:
    with pytest.raises(UnpackingError, match="damaged"):
        unpacker(coding).feed(b"\xff" * 40, MANY)


@pytest.mark.parametrize("room", [1, 10, 1_000])
def test_no_more_comes_out_than_there_is_room_for(room: int) -> None:
    assert len(unpacker("gzip").feed(gzip.compress(b"\0" * MANY), room)) == room


def test_what_swells_beyond_any_text_is_refused_before_it_fills_the_memory() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(UnpackingError, match="swells"):
        unpacker("gzip").feed(bomb, 256 << 20)


def test_long_text_that_repeats_itself_is_unpacked_whole() -> None:
    text = b"".join(b'{"label": "positive", "number": %d}' % number for number in range(300_000))
    assert unpacker("gzip").feed(gzip.compress(text), 256 << 20) == text
