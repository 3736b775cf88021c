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

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from batchllm.carry import is_bytes, is_text
from batchllm.records import BadRow, Row
from batchllm.source.settling import carried_type, undictionary

#: The mark of a row about which nothing is known: it is like no other.
UNKNOWN = bytes(8)
_SEPARATOR = pa.scalar(b":", pa.large_binary())

_digest8 = partial(blake2b, digest_size=8)


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


def digests(texts: Iterable[bytes]) -> bytes:
    """The mark of each, one after the other."""
    return b"".join([one.digest() for one in map(_digest8, texts)])


def columns_basis(columns: Iterable[str]) -> str:
    """For marks of the values of these columns."""
    return f"columns {' '.join(sorted(map(repr, columns)))}"


def fields_basis(fields: Iterable[pa.Field]) -> str:
    """For marks of the values of Arrow columns: the same text may stand for values of two types."""
    told = sorted(f"{field.name!r}: {carried_type(field.type)}" for field in fields)
    return f"columns {' '.join(told)}"


def marks_of_arrow(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The marks of Arrow rows, by the text of each value and its length; all columns must be `is_plain`."""
    for batch in batches:
        columns = [piece for column in batch.columns for piece in _told(undictionary(column))]
        told = pc.binary_join_element_wise(*columns, _SEPARATOR)
        yield digests(told.to_pylist())


def is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow can write the values as text, no two of them alike."""
    if types.is_dictionary(kind):
        return is_plain(kind.value_type)
    return bool(
        is_text(kind)
        or is_bytes(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or (types.is_temporal(kind) and not types.is_interval(kind))
    )


def _told(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Length and bytes of each value; a null has no length."""
    kind = column.type
    text = column if is_text(kind) or is_bytes(kind) else _as_text(column)
    data = text.cast(pa.large_binary())
    lengths = pc.binary_length(data).cast(pa.string()).cast(pa.large_binary())
    return (lengths, data) if not data.null_count else (pc.fill_null(lengths, b"-"), pc.fill_null(data, b""))


def _as_text(column: pa.Array) -> pa.Array:
    kind = column.type
    if types.is_temporal(kind):  # as the number that it is: quicker than a calendar, and no zone is asked
        column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    return column.cast(pa.string())


def marks_of(batches: Iterable[Sequence[Row | BadRow]]) -> Iterator[bytes]:
    """The marks of rows that were read already, a batch at a time."""
    for batch in batches:
        yield digests(map(_bytes, batch))


def _bytes(row: Row | BadRow) -> bytes:
    if isinstance(row, BadRow):
        return f"{row.key!r}\0{row.message}".encode("utf-8", "backslashreplace")
    return repr((row.key, row.values, row.carry)).encode("utf-8", "backslashreplace")  # JSON has no NaN


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
