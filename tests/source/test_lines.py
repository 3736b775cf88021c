"""Bytes are cut at the newline byte alone, whatever the size of the blocks that they arrive in."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputDataError
from batchllm.source.lines import LineBlock, LongLine, line_blocks, refuse_foreign

TEXT = st.lists(
    st.sampled_from([b"a", b"\n", b'"', "\u2028".encode(), b"\x0c", b"\r", b"\x85"]), max_size=60
).map(b"".join)


def pieces(data: bytes, block_bytes: int, most: int = 1 << 20) -> list[LineBlock | LongLine]:
    return list(line_blocks(io.BytesIO(data).read, block_bytes=block_bytes, max_line_bytes=most))


def expected_lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


@settings(deadline=None, max_examples=200)
@given(TEXT, st.integers(1, 20))
def test_each_line_comes_once_whatever_the_block_size(data: bytes, block_bytes: int) -> None:
    found = pieces(data, block_bytes)
    assert [
        line for piece in found if isinstance(piece, LineBlock) for line in piece.lines
    ] == expected_lines(data)


@settings(deadline=None, max_examples=200)
@given(TEXT, st.integers(1, 20), st.integers(1, 12))
def test_number_and_offset_say_where_a_piece_begins(data: bytes, block_bytes: int, most: int) -> None:
    lines = expected_lines(data)
    starts = [sum(len(line) + 1 for line in lines[:at]) for at in range(len(lines))]
    seen = 0
    for piece in pieces(data, block_bytes, most):
        number = piece.line if isinstance(piece, LongLine) else piece.first_line
        assert number == seen + 1
        assert piece.offset == starts[seen]
        seen += 1 if isinstance(piece, LongLine) else len(piece.lines)
    assert seen == len(lines)


@settings(deadline=None, max_examples=200)
@given(TEXT, st.integers(1, 20), st.integers(1, 12))
def test_only_lines_beyond_the_cap_are_dropped(data: bytes, block_bytes: int, most: int) -> None:
    found = pieces(data, block_bytes, most)
    kept = [line for piece in found if isinstance(piece, LineBlock) for line in piece.lines]
    dropped = [(piece.bytes, piece.quotes) for piece in found if isinstance(piece, LongLine)]
    lines = expected_lines(data)
    # A line that ends inside the block that it began in is in memory anyway, so it may pass the cap by a block.
    too_long = {(len(line), line.count(b'"')) for line in lines if len(line) > most}
    assert set(dropped) <= too_long
    assert len(kept) + len(dropped) == len(lines)
    assert all(len(line) <= most + block_bytes for line in kept)


def test_a_line_beyond_the_cap_is_never_in_memory() -> None:
    class Endless:
        def __init__(self) -> None:
            self.left = 200

        def read(self, size: int) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b"\nok\n" if self.left == 0 else b""

    found = list(line_blocks(Endless().read, block_bytes=1000, max_line_bytes=5000))
    assert found[0] == LongLine(0, 1, 199_000, 0)
    assert isinstance(found[1], LineBlock)
    assert (found[1].offset, found[1].first_line, found[1].lines) == (199_001, 2, [b"ok"])


def test_an_empty_stream_has_no_pieces() -> None:
    assert pieces(b"", 10) == []


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PAR1\x15", "Parquet"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        ("\ufeff{}".encode("utf-16-le"), "UTF-16"),
        ("\ufeff{}".encode("utf-16-be"), "UTF-16"),
        ("\ufeff{}".encode("utf-32-be"), "UTF-32"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_first_bytes(head: bytes, says: str) -> None:
    with pytest.raises(InputDataError, match=says):
        refuse_foreign("/data/a.jsonl", head)


def test_text_with_a_byte_order_mark_is_not_refused() -> None:
    refuse_foreign("/data/a.jsonl", b"\xef\xbb\xbf{}")
