"""Marks: eight bytes a row that tell cheaply whether the same row was in an earlier input.

Equal marks mean that the row is the same in all that is read of it, so what it asks and what it carries are the same
too, and nothing has to be parsed or rendered to know that: ten million known rows cost a hash of their bytes each.
Unequal marks mean nothing: the row is then read, and its key and its request decide.

Sixty-four bits are enough because a false match needs two rows of one input and its successor: one in 180,000 for ten
million rows that were all exchanged for others.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import orjson

from batchllm.records import BadRow, Row

#: The mark of a row about which nothing is known: it is like no other.
UNKNOWN = bytes(8)

digest8 = partial(blake2b, digest_size=8)


@dataclass(frozen=True, slots=True)
class Marked:
    """The digest of an input, as `Scan` has it, and the mark of each of its rows (bad ones too), by ordinal.

    `basis` says what the marks are of: only marks of one basis compare. `file_rows`: how many rows each file holds.
    """

    digest: str
    marks: "array[int]"
    basis: str
    file_rows: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.marks)


def columns_basis(columns: Iterable[str]) -> str:
    """For marks of the values of these columns."""
    return f"columns {' '.join(sorted(map(repr, columns)))}"


def marks_of(batches: Iterable[Sequence[Row | BadRow]]) -> Iterator[bytes]:
    """The marks of rows that were read already, a batch at a time."""
    for batch in batches:
        yield b"".join([digest8(_bytes(row)).digest() for row in batch])


def _bytes(row: Row | BadRow) -> bytes:
    if isinstance(row, BadRow):
        return f"{row.key!r}\0{row.message}".encode("utf-8", "backslashreplace")
    try:
        return b"%b\0%b" % (orjson.dumps([row.key, row.values]), row.carry)
    except TypeError:  # integers beyond 64 bits
        return repr((row.key, row.values, row.carry)).encode("utf-8", "backslashreplace")


def chosen_of(
    batches: Iterable[Sequence[Row | BadRow]], wanted: "bytearray"
) -> Iterator[Sequence[Row | BadRow]]:
    """The rows whose byte in `wanted` is 1; batches without any are left out."""
    for batch in batches:
        if not batch:
            continue
        first = batch[0].ordinal
        if wanted.find(1, first, first + len(batch)) < 0:
            continue
        picked = [row for row in batch if wanted[row.ordinal]]
        if picked:
            yield picked
