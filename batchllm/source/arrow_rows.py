"""Arrow record batches → rows, for Parquet files and frames.

A batch is cut until its text fits the memory that a batch may take; what one row holds alone is then known, and a
cell beyond the cap is refused with its row. Text is checked to be UTF-8 before anything touches it: Parquet readers
pass on whatever bytes a file holds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from batchllm.carry import CarryCodec, is_bytes, is_text
from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source.columns import KeyFault, RowFault, Shape, unknown_column
from batchllm.source.rendering import is_known_zone, render, time_zones
from batchllm.source.rows import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_CELL_BYTES,
    Place,
    bad_row,
    key_type,
    missing_key,
)
from batchllm.source.settling import carried_type, settle_batch, undictionary

_SHOWN_BYTES = 80


def pin_arrow(where: str, schema: pa.Schema, key: str | None, carry: Collection[str] | None) -> Shape:
    """The shape of rows of this schema; `carry` None: all columns."""
    names = list(schema.names)
    for role, wanted in (("input.key", [key] if key is not None else []), ("output.carry", carry or [])):
        for name in wanted:
            if name not in names:
                raise unknown_column(where, name, role, names)
            if names.count(name) > 1:
                raise InputDataError(f'{where} has several columns "{name}"', remedy="rename all but one")
    key_field = None
    if key is not None:
        kind = schema.field(key).type
        made = key_type(kind)
        if made is None:
            raise InputDataError(
                f'{where}: the key column "{key}" is of type {kind}; a key is text or a whole number',
                remedy="cast the column to string or int64 in the input",
            )
        key_field = pa.field(key, made)
    carried = dict.fromkeys(names if carry is None else carry)
    fields = [pa.field(name, carried_type(schema.field(name).type)) for name in carried if name != key]
    return Shape(key_field, tuple(fields))


def check_zones(where: str, schema: pa.Schema, names: Collection[str]) -> None:
    """A zone that this machine does not know would render differently from one that does."""
    for field in schema:
        for zone in time_zones(field.type) if field.name in names else ():
            if not is_known_zone(zone):
                raise InputDataError(
                    f'{where}: the time zone "{zone}" of column "{field.name}" is not known on this machine',
                    remedy="install the package tzdata, or cast the column to UTC",
                )


class ArrowRows:
    """`shown`: the columns that templates see, beside the key."""

    def __init__(self, where: str, shape: Shape, shown: Sequence[str]) -> None:
        self._where = where
        self._shape = shape
        self._codec = CarryCodec(shape.carry)
        self._shown = [name for name in shown if shape.key is None or name != shape.key.name]

    def batches(
        self, batch: pa.RecordBatch, first: int, place: Place, wanted: bytearray | None = None
    ) -> Iterator[list[Row | BadRow]]:
        """`place` tells where the n-th row of `batch` stands. Pieces without a row that is `wanted` are left out."""
        for start, part in cut(batch):
            if wanted is not None and wanted.find(1, first + start, first + start + part.num_rows) < 0:
                continue
            yield self._rows(part, first + start, lambda at, start=start: place(start + at))  # type: ignore[misc]

    def _rows(self, batch: pa.RecordBatch, first: int, place: Place) -> list[Row | BadRow]:
        faults = find_faults(batch)
        faults |= self._key_faults(batch, faults)
        if not faults:
            return list(self._good_rows(batch, range(first, first + batch.num_rows)))
        self._add_keys(batch, faults)
        good = [at for at in range(batch.num_rows) if at not in faults]
        made: dict[int, Row | BadRow] = {
            at: bad_row(first + at, place(at), fault) for at, fault in faults.items()
        }
        rows = self._good_rows(take(batch, good), [first + at for at in good])
        made.update(zip(good, rows, strict=True))
        return [made[at] for at in range(batch.num_rows)]

    def _good_rows(self, batch: pa.RecordBatch, ordinals: Sequence[int]) -> list[Row]:
        keys = self._keys(batch)
        names = list(self._shown)
        columns = [render(batch.column(name)) for name in names]
        if self._shape.key is not None:
            names.append(self._shape.key.name)
            columns.append(keys)
        values = (
            [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            if names
            else [{} for _ in ordinals]
        )
        blobs = self._codec.encode_batch(batch)
        return list(map(Row._make, zip(ordinals, keys, values, blobs, strict=True)))

    def _keys(self, batch: pa.RecordBatch) -> list[object]:
        if self._shape.key is None:
            return [None] * int(batch.num_rows)
        name, kind = self._shape.key.name, self._shape.key.type
        column = undictionary(batch.column(name))
        try:
            return list(column.cast(kind).to_pylist())
        except pa.ArrowInvalid:
            raise InputDataError(
                f'{self._where}: the key column "{name}" holds {pc.max(column)}, which is beyond int64',
                remedy="cast the column to string in the input",
            ) from None

    def _add_keys(self, batch: pa.RecordBatch, faults: Mapping[int, RowFault]) -> None:
        """A row that is faulty elsewhere is still known by its key."""
        if self._shape.key is None:
            return
        column = batch.column(self._shape.key.name)
        for at, fault in faults.items():
            one = undictionary(column.slice(at, 1)).take(pa.array([0]))
            if (
                isinstance(fault, KeyFault)
                or decoded_bytes(one) > MAX_CELL_BYTES
                or _fault_in(one) is not None
            ):
                continue
            try:
                fault.key = one.cast(self._shape.key.type)[0].as_py() or None
            except pa.ArrowInvalid:
                continue  # beyond int64

    def _key_faults(self, batch: pa.RecordBatch, faults: Collection[int]) -> dict[int, RowFault]:
        if self._shape.key is None:
            return {}
        column = undictionary(batch.column(self._shape.key.name))
        is_empty = column.is_null()
        if types.is_string(self._shape.key.type):
            is_empty = pc.or_kleene(is_empty, pc.equal(pc.binary_length(column), 0))
        return {
            at: missing_key(self._shape.key.name, column[at].as_py())
            for at in pc.indices_nonzero(is_empty).to_pylist()
            if at not in faults
        }


def take(batch: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    """Copies of these rows, with nothing of the others beneath; dictionaries are decoded."""
    columns = [undictionary(column) for column in batch.columns]
    at = pa.array(rows, pa.int64())
    return pa.RecordBatch.from_arrays(
        [column.take(at) for column in columns],
        schema=pa.schema(
            [field.with_type(column.type) for field, column in zip(batch.schema, columns, strict=True)]
        ),
    )


def cut(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Parts of at most 512 rows and about 4 MiB, each with the place of its first row."""
    for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
        yield from _halve(start, settle_batch(batch.slice(start, MAX_BATCH_ROWS)))


def _halve(start: int, part: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    left = [(start, part)]
    while left:
        start, part = left.pop()
        if part.num_rows > 1 and sum(map(decoded_bytes, part.columns)) > MAX_BATCH_BYTES:
            half = part.num_rows // 2
            left.append((start + half, part.slice(half)))
            left.append((start, part.slice(0, half)))
        else:
            yield start, part


def decoded_bytes(array: pa.Array) -> int:
    """What the values take without their dictionary: a dictionary of one long text may stand for gigabytes."""
    if types.is_dictionary(array.type) and (
        is_text(array.type.value_type) or is_bytes(array.type.value_type)
    ):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    return int(array.nbytes)


def find_faults(batch: pa.RecordBatch) -> dict[int, RowFault]:
    """Rows with a cell that is too large or no value. A large one has its batch for itself (see `cut`)."""
    found: dict[int, RowFault] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if batch.num_rows == 1 and (size := decoded_bytes(column)) > MAX_CELL_BYTES:
            found[0] = RowFault(f'column "{name}" holds {size:,} bytes in one cell, where 64 MiB are read')
        elif _fault_in(column) is not None:
            values = undictionary(column)
            for at in range(len(values)):
                # A copy: in a slice, what is beneath the other rows is looked at too.
                if at not in found and (reason := _fault_in(values.take(pa.array([at])))) is not None:
                    found[at] = RowFault(f'column "{name}" holds {_excerpt(values, at) or reason}')
    return found


def _fault_in(column: pa.Array) -> str | None:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        return f"an invalid value: {error}"
    return None


def _excerpt(values: pa.Array, at: int) -> str | None:
    if not is_text(values.type):
        return None
    raw: bytes = values.slice(at, 1).cast(pa.large_binary())[0].as_py()
    return f"text that is no UTF-8: {raw[:_SHOWN_BYTES].decode('utf-8', 'backslashreplace')}"
