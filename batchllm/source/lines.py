"""Bytes → lines, cut at the newline byte alone.

`str.splitlines` and text files cut at U+2028, U+0085 and form feeds too, which are legal inside JSON and CSV text.
Blocks are cut instead of lines, because one call for ten thousand lines costs less than ten thousand calls; and a
line that exceeds the cap is counted and dropped piece by piece, so that it never is in memory as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchllm.errors import InputDataError

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines. `offset` is the first one's byte, `first_line` its number, counted from 1."""

    offset: int
    first_line: int
    body: bytes
    lines: list[bytes]


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line beyond the cap, of which only this is known. `quotes` counts its double quotes, for CSV."""

    offset: int
    line: int
    bytes: int
    quotes: int


Piece = LineBlock | LongLine


class _Cutter:
    """The state between two blocks: where we are, and the line that has begun but not ended."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._offset = 0
        self._line = 1
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._quotes = 0
        self._is_dropping = False

    def feed(self, block: bytes) -> Iterator[Piece]:
        end = block.find(b"\n")
        if end < 0:
            self._extend(block)
            return
        if self._is_dropping or self._begun_bytes + end > self._max:
            self._drop(block[:end])
            yield self._long_line()
            block = block[end + 1 :]
        last = block.rfind(b"\n")
        if last >= 0:
            yield self._lines(b"".join([*self._begun, block[:last]]))
            block = block[last + 1 :]
        self._extend(block)

    def finish(self) -> Iterator[Piece]:
        if self._is_dropping:
            yield self._long_line()
        elif self._begun_bytes:
            yield self._lines(b"".join(self._begun))

    def _extend(self, part: bytes) -> None:
        if self._is_dropping or self._begun_bytes + len(part) > self._max:
            self._drop(part)
        elif part:
            self._begun.append(part)
            self._begun_bytes += len(part)

    def _drop(self, part: bytes) -> None:
        self._quotes += sum(piece.count(b'"') for piece in self._begun) + part.count(b'"')
        self._begun.clear()
        self._begun_bytes += len(part)
        self._is_dropping = True

    def _long_line(self) -> LongLine:
        long_line = LongLine(self._offset, self._line, self._begun_bytes, self._quotes)
        self._offset += self._begun_bytes + 1
        self._line += 1
        self._begun_bytes = self._quotes = 0
        self._is_dropping = False
        return long_line

    def _lines(self, body: bytes) -> LineBlock:
        block = LineBlock(self._offset, self._line, body, body.split(b"\n"))
        self._offset += len(body) + 1
        self._line += len(block.lines)
        self._begun = []
        self._begun_bytes = 0
        return block


def line_blocks(
    read: Callable[[int], bytes], *, block_bytes: int = BLOCK_BYTES, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Piece]:
    """Each line of the stream once, in order; the newlines themselves are left out."""
    cutter = _Cutter(max_line_bytes)
    while block := read(block_bytes):
        yield from cutter.feed(block)
    yield from cutter.finish()


#: What a text file may begin with by mistake → what it is, and what to do.
_FOREIGN = (
    (b"PAR1", "a Parquet file", "name it .parquet, or say format: parquet"),
    (b"\x1f\x8b", "packed with gzip", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "let its name end in .zst"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text", "convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it to UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "convert it to UTF-8"),
)


def refuse_foreign(path: str, head: bytes) -> None:
    """A whole file of another kind is one fault, not a million bad rows."""
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise InputDataError(f"{path} is {what}, not lines of UTF-8 text", remedy=remedy)
