"""Where the lines of a file stand, as one pass has met them, for later ones that want only some of its rows.

A block of lines takes a hundred bytes here. A file of which nothing is wanted up to its last line is then read there
alone, which at ten million rows saves each pass some seconds.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from batchllm.source.files import InputFile, changed, named_faults
from batchllm.source.lines import LineBlock, LongLine, Piece


class _Span(NamedTuple):
    """A block of lines, by what is needed to read it again; of a line beyond the cap, all that is known of it."""

    rows: int
    offset: int
    first_line: int
    bytes: int
    long: LongLine | None


class Spans:
    """All of one file, in its order. It has to be one of which any part can be read (`InputFile.is_random`)."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []

    def add(self, piece: Piece, rows: int) -> None:
        """`rows` of the lines are rows."""
        if isinstance(piece, LongLine):
            self._spans.append(_Span(rows, piece.offset, piece.line, piece.bytes, piece))
        else:
            self._spans.append(_Span(rows, piece.offset, piece.first_line, len(piece.body), None))

    def wanted(self, file: InputFile, first: int, wanted: bytearray) -> Iterator[tuple[int, Piece]]:
        """What holds a row whose byte in `wanted` is 1, with the ordinal of its first row; `first` is the file's."""
        with named_faults(file.path), closing(file.store.open_random()) as source:
            for span in self._spans:
                end = first + span.rows
                if wanted.find(1, first, end) >= 0:
                    if span.long is not None:
                        yield first, span.long
                    else:
                        source.seek(span.offset)
                        body = source.read(span.bytes)
                        if len(body) < span.bytes:
                            raise changed(file.path)
                        yield first, LineBlock(span.offset, span.first_line, body, body.split(b"\n"))
                first = end
