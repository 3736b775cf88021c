"""Events out of bytes, however they were cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.provider.event_stream import EventReader


def read(*pieces: bytes) -> list[bytes]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("raw", "events"),
    {
        "one": (b"data: {}\n\n", [b"{}"]),
        "without the space": (b"data:{}\n\n", [b"{}"]),
        "one space only is not data": (b"data:  x\n\n", [b" x"]),
        "carriage returns": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        "several lines are one event": (b"data: {\ndata: }\n\n", [b"{\n}"]),
        "comments": (b": keep-alive\n\n: OPENROUTER PROCESSING\n\ndata: x\n\n", [b"x"]),
        "names and ids": (b"event: ping\nid: 7\nretry: 100\ndata: x\n\n", [b"x"]),
        "a name without data is no event": (b"event: ping\n\n", []),
        "more blank lines": (b"\n\n\ndata: x\n\n\n\n", [b"x"]),
        "a mark at the start": (b"\xef\xbb\xbfdata: x\n\n", [b"x"]),
        "an event without its end": (b"data: x\n", []),
    }.values(),
)
def test_what_is_an_event(raw: bytes, events: list[bytes]) -> None:
    assert read(raw) == events


def test_the_last_event_may_lack_its_blank_line_and_its_line_break() -> None:
    for raw in (b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\n\n"):
        reader = EventReader()
        assert reader.feed(raw) + reader.end() == [b"x"]


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=20).filter(lambda data: not {10, 13} & set(data)), max_size=6),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_cuts_change_nothing(datas: list[bytes], end: bytes, cuts: list[int]) -> None:
    raw = b"".join(b": alive" + end + b"data: " + data + end + end for data in datas)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    assert read(*(raw[start:stop] for start, stop in pairwise(places))) == datas


def test_a_long_line_in_many_pieces_is_joined_once() -> None:
    """As bytes that grow it would be copied 20,000 times, 40 GB in all; the time limit of a test is not enough."""
    reader = EventReader()
    for _ in range(20_000):
        assert reader.feed(b"data: " if not reader._pieces else b"x" * 200) == []
    (event,) = reader.end()
    assert len(event) == 19_999 * 200
