"""Rows that are in memory already: frames of polars, pyarrow and pandas, and lists of dicts.

Frames come in by Arrow's C stream, which all of them speak; none of the libraries has to be installed for it. What
can be read once only (a lazy frame, a stream of batches) is read into memory first: a run reads its input twice, and
a second evaluation may give other rows.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import pyarrow as pa

from batchllm.carry import CarryCodec
from batchllm.errors import InputDataError
from batchllm.ports import RowMarks
from batchllm.records import BadRow, Row
from batchllm.source.arrow_rows import ArrowRows, check_zones, cut, find_faults, pin_arrow, take
from batchllm.source.columns import RowFault, Shape, pin_seen
from batchllm.source.jsonl import repaired
from batchllm.source.marks import Marked, chosen_of, fields_basis, marks_of
from batchllm.source.rows import MAX_BATCH_ROWS, BatchMaker, ValueRows, Values
from batchllm.source.scan import Scan, Tally, first_rows
from batchllm.source.settling import settled_type
from batchllm.spec.models import ColumnType

_SAMPLE_ROWS = 1000
WHERE = "the frame"


class Table(Protocol):
    """One kind of rows in memory."""

    def batches(self) -> Iterator[Sequence[Row | BadRow]]: ...
    def digest(self) -> str: ...
    @property
    def mark_basis(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FrameSource:
    table: Table
    shape: Shape
    column_names: tuple[str, ...] | None

    def stamps(self) -> tuple[()]:
        """Nothing tells whether a frame is the same again but reading it."""
        return ()

    def check_unchanged(self) -> None:
        """What is in memory is its owner's to leave alone."""

    def scan(self) -> Scan:
        tally = Tally(None if self.shape.key is None else self.shape.key.name)
        for batch in self.batches():
            tally.add(batch)
        tally.check_keys(self.batches, lambda ordinals: {at: place(at) for at in ordinals})
        return Scan(tally.rows, self.table.digest(), (), tally.bad_rows)

    def mark(self) -> Marked:
        marks = array("Q")
        for piece in marks_of(self.batches()):
            marks.frombytes(piece)
        return Marked(self.table.digest(), marks, self.table.mark_basis)

    def hold_to(self, _marks: RowMarks, /) -> None:
        """What is in memory is its owner's to leave alone."""

    def chosen(self, wanted: bytearray, _file_rows: Sequence[int], /) -> Iterator[Sequence[Row | BadRow]]:
        return chosen_of(self.batches(), wanted)

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        return self.table.batches()

    def peek(self, rows: int) -> Sequence[Row]:
        return first_rows(self.batches(), rows)


def place(row: int) -> str:
    return f"row {row}, counted from 0"


@dataclass(frozen=True, slots=True)
class ArrowTable:
    table: pa.Table
    read: pa.Table  # the columns that are used
    rows: ArrowRows

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        first = 0
        for batch in self.read.to_batches(max_chunksize=MAX_BATCH_ROWS):
            yield from self.rows.batches(batch, first, lambda at, first=first: place(first + at))  # type: ignore[misc]
            first += batch.num_rows

    @property
    def mark_basis(self) -> str:
        return fields_basis(self.read.schema)

    def digest(self) -> str:
        """Of all columns, used or not: what a job reads of a frame may change while the frame stays the same.

        By value, so that neither chunks nor what lies beneath nulls counts.
        """
        fields = [pa.field(field.name, settled_type(field.type)) for field in self.table.schema]
        codec = CarryCodec(fields)
        digest = sha256(repr([(field.name, str(field.type)) for field in fields]).encode())
        faulty = sha256()
        first = 0
        for batch in self.table.to_batches(max_chunksize=MAX_BATCH_ROWS):
            for start, part in cut(batch):
                faults = find_faults(part)
                good = [at for at in range(part.num_rows) if at not in faults]
                for blob in codec.encode_batch(take(part, good) if faults else part):
                    digest.update(blob + b"\n")
                for at in sorted(faults):
                    faulty.update(f"{first + start + at}: {faults[at]}\n".encode())
            first += batch.num_rows
        return sha256(digest.digest() + faulty.digest()).hexdigest()


@dataclass(frozen=True, slots=True)
class DictTable:
    table: Sequence[object]
    rows: ValueRows

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        for first in range(0, len(self.table), MAX_BATCH_ROWS):
            batch = BatchMaker(self.rows, first, place)
            for ordinal, row in enumerate(self.table[first : first + MAX_BATCH_ROWS], first):
                try:
                    values: Values | RowFault = _values(row)
                except RowFault as fault:
                    values = fault
                batch.add(ordinal, values, 0)
            yield batch.take()

    @property
    def mark_basis(self) -> str:
        return "dicts"

    def digest(self) -> str:
        digest = sha256()
        for row in self.table:
            digest.update(_canonical(row) + b"\n")
        return digest.hexdigest()


def _values(row: object) -> Values:
    if not isinstance(row, Mapping):
        raise RowFault(f"the row is a {type(row).__name__}, where a dict is read")
    strange = next((name for name in row if not isinstance(name, str)), None)
    if strange is not None:
        raise RowFault(f"the column name {strange!r} is no text")
    try:
        fixed = repaired(dict(row))
    except RecursionError:
        raise RowFault("the row is nested too deeply") from None
    return fixed if isinstance(fixed, dict) else {}


def _canonical(row: object) -> bytes:
    """Equal rows, equal bytes; of what is no JSON, and so no row, its `repr` must do."""
    try:
        text = json.dumps(row, sort_keys=True, default=repr)
    except (TypeError, ValueError):
        text = repr(row)
    except RecursionError:
        text = "nested too deeply"
    return text.encode("utf-8", "backslashreplace")


def frame_source(
    frame: object,
    *,
    key: str | None,
    carry: str | Sequence[str],
    needed: frozenset[str] | None,
    columns: Mapping[str, ColumnType] | None = None,
) -> FrameSource:
    """`carry`: names, or "all". `columns` are the declared types of a list of dicts; frames have their own."""
    if isinstance(frame, list):
        return _dict_source(frame, key, carry, columns or {})
    if columns:
        raise InputDataError("a frame has its own types", remedy="leave input.columns out")
    return _arrow_source(read_table(frame), key, carry, needed)


def _arrow_source(
    table: pa.Table, key: str | None, carry: str | Sequence[str], needed: frozenset[str] | None
) -> FrameSource:
    names = list(table.schema.names)
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise InputDataError(f'{WHERE} has several columns "{repeated}"', remedy="rename all but one")
    shape = pin_arrow(WHERE, table.schema, key, None if carry == "all" else carry)
    shown = [name for name in names if needed is None or name in needed]
    check_zones(WHERE, table.schema, shown)
    travels = {key, *(field.name for field in shape.carry)}
    used = [name for name in names if name in shown or name in travels]
    # A table without columns would forget how many rows it has.
    read = table.select(used or names[:1])
    return FrameSource(ArrowTable(table, read, ArrowRows(WHERE, shape, shown)), shape, tuple(names))


def _dict_source(
    rows: list[object], key: str | None, carry: str | Sequence[str], declared: Mapping[str, ColumnType]
) -> FrameSource:
    sample = [row for row in rows[:_SAMPLE_ROWS] if isinstance(row, Mapping)]
    seen = list(dict.fromkeys(str(name) for row in sample for name in row))
    shape, pinned = pin_seen(f"{WHERE} (in its first rows)", seen, key, carry, declared)
    return FrameSource(DictTable(rows, ValueRows(shape, pinned)), shape, None)


def read_table(frame: object) -> pa.Table:
    """Any frame as an Arrow table, without a copy where the library allows it."""
    frame = _collected(frame)
    if not hasattr(frame, "__arrow_c_stream__") and not hasattr(frame, "__arrow_c_array__"):
        raise InputDataError(
            f"rows cannot be read from an object of type {type(frame).__name__}",
            remedy="give a polars, pyarrow or pandas frame, or a list of dicts",
        )
    try:
        return pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputDataError(
            f"{WHERE} cannot be read as an Arrow table: {error}",
            remedy="cast columns of types that Arrow does not have, such as Python objects and 128-bit integers",
        ) from error


def _collected(frame: object) -> object:
    if type(frame).__module__.partition(".")[0] != "polars":
        return frame
    import polars as pl

    try:
        return frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputDataError(
            f"the lazy frame cannot be collected: {error}", remedy="correct its query"
        ) from error
