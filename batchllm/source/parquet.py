"""Parquet: only the columns that are asked for, and only so many rows at a time as stay within memory.

A file that is cut off, or no Parquet at all, is refused when the source is opened; damage inside it is found by the
scan, which decodes all that a run will decode.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.carry import is_bytes, is_text
from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source.arrow_rows import ArrowRows
from batchllm.source.columns import Shape
from batchllm.source.files import Format, InputFile, LocalStore, named_faults
from batchllm.source.holding import Held
from batchllm.source.marks import chosen_of, fields_basis, is_plain, marks_of, marks_of_arrow
from batchllm.source.parquet_sizes import rows_at_once
from batchllm.source.rows import MAX_BATCH_ROWS
from batchllm.source.settling import settled_type

_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
#: No rows are made of what is marked or passed over: at 512, as elsewhere, the calls would add half a microsecond to
#: each row.
_PASSED_ROWS = 4096


class ParquetReader:
    format: Format = "parquet"

    def __init__(self, shape: Shape, shown: Sequence[str], fields: Sequence[pa.Field]) -> None:
        """`shown`: the columns that templates see; `fields`: these, the key and what is carried."""
        self._shape = shape
        self._shown = shown
        self._fields = list(fields)
        self._columns = [field.name for field in fields]
        self._is_plain = bool(fields) and all(is_plain(field.type) for field in fields)
        self.held: Held | None = None

    def read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        """All rows of the file; the first one's ordinal is `first`."""
        if tap is not None:
            file.feed(tap)
        yield from self._held(file, self._read(file, first, None))

    def _held(
        self, file: InputFile, batches: Iterator[Sequence[Row | BadRow]]
    ) -> Iterator[Sequence[Row | BadRow]]:
        """Where Arrow tells the values they have been compared already."""
        for batch in batches:
            if self.held is not None and not self._is_plain:
                self.held.check_rows(file.path, batch)
            yield batch

    def _compare(self, file: InputFile, first: int, batch: pa.RecordBatch, wanted: bytearray | None) -> None:
        if self.held is None or not self._is_plain:
            return
        rows: Sequence[int] = range(first, first + batch.num_rows)
        read = batch.select(self._columns)
        if wanted is not None:
            rows = [row for row in rows if wanted[row]]
            read = read.take(pa.array([row - first for row in rows], pa.int64()))
        self.held.check(file.path, rows, b"".join(marks_of_arrow([read])))

    def _read(
        self, file: InputFile, first: int, wanted: bytearray | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        """Where none of the rows is wanted nothing is made of them, and of a whole row group nothing is read."""
        rows = ArrowRows(file.path, self._shape, self._shown)
        ordinal = first
        with opened(file) as (parquet, source):
            for group in range(parquet.num_row_groups):
                end = ordinal + parquet.metadata.row_group(group).num_rows
                if wanted is not None and wanted.find(1, ordinal, end) < 0:
                    ordinal = end
                    continue
                # Whole batches are passed over where only some rows are wanted.
                most = MAX_BATCH_ROWS if wanted is None else _PASSED_ROWS
                size = rows_at_once(file.path, parquet, source, group, self._columns, most)
                # Threads would decode little faster, and Arrow keeps memory for each of them: 40 MB with texts of 2 KB.
                batches = parquet.iter_batches(
                    size, row_groups=[group], columns=self._columns, use_threads=False
                )
                for batch in batches:
                    start, ordinal = ordinal, ordinal + batch.num_rows
                    if wanted is not None and wanted.find(1, start, ordinal) < 0:
                        continue
                    self._compare(file, start, batch, wanted)
                    yield from rows.batches(
                        batch,
                        start,
                        lambda at, start=start: place(file, start - first + at),  # type: ignore[misc]
                        wanted,
                    )

    @property
    def mark_basis(self) -> str:
        return fields_basis(self._fields)

    def marks(self, file: InputFile, tap: Callable[[bytes], object]) -> Iterator[bytes]:
        """The mark of each row. Where Arrow can tell all values as text no row is made."""
        if self._is_plain:
            return marks_of_arrow(self._arrow(file, tap))
        file.feed(tap)
        return marks_of(self._read(file, 0, None))

    def _arrow(self, file: InputFile, tap: Callable[[bytes], object]) -> Iterator[pa.RecordBatch]:
        file.feed(tap)
        with opened(file) as (parquet, source):
            for group in range(parquet.num_row_groups):
                size = rows_at_once(file.path, parquet, source, group, self._columns, _PASSED_ROWS)
                for batch in parquet.iter_batches(
                    size, row_groups=[group], columns=self._columns, use_threads=False
                ):
                    yield batch.select(self._columns)

    def chosen(self, file: InputFile, first: int, wanted: bytearray) -> Iterator[Sequence[Row | BadRow]]:
        """The rows whose byte in `wanted` (by ordinal, of the whole input) is 1."""
        return self._held(file, chosen_of(self._read(file, first, wanted), wanted))

    def places(self, file: InputFile, ordinals: frozenset[int]) -> dict[int, str]:
        """Where the rows stand that have these ordinals, counted from 0 in this file."""
        return {ordinal: place(file, ordinal) for ordinal in ordinals}


def place(file: InputFile, row: int) -> str:
    return f"{file.label}: row {row}, counted from 0"


@contextmanager
def opened(file: InputFile) -> Iterator[tuple[pq.ParquetFile, pa.NativeFile]]:
    with named_faults(file.path), closing(file.store.open_random()) as source:
        # Reading ahead and reading unbuffered hold whole column chunks in memory; checksums cost little.
        buffer_bytes = _LOCAL_BUFFER_BYTES if isinstance(file.store, LocalStore) else _REMOTE_BUFFER_BYTES
        parquet = pq.ParquetFile(
            source, pre_buffer=False, buffer_size=buffer_bytes, page_checksum_verification=True
        )
        yield parquet, source


def read_schema(file: InputFile) -> pa.Schema:
    """Raises InputDataError when the file is no whole Parquet file."""
    with opened(file) as (parquet, _):
        return parquet.schema_arrow


def shared_schema(
    files: Sequence[InputFile], schemas: Sequence[pa.Schema], wanted: frozenset[str] | None
) -> pa.Schema:
    """The columns that all files have, as the first one has them; those that are `wanted` must agree in type."""
    for at, (file, schema) in enumerate(zip(files, schemas, strict=True)):
        if at and schema.equals(schemas[0]):
            continue
        for name in dict.fromkeys([*schemas[0].names, *schema.names]):
            if wanted is None or name in wanted:
                _check_agreement(name, (files[0], schemas[0]), (file, schema))
    names = set(schemas[0].names).intersection(*(schema.names for schema in schemas))
    return pa.schema([schemas[0].field(at) for at, name in enumerate(schemas[0].names) if name in names])


def _check_agreement(name: str, one: tuple[InputFile, pa.Schema], other: tuple[InputFile, pa.Schema]) -> None:
    kinds = []
    for (file, schema), (having, _) in ((one, other), (other, one)):
        found = schema.get_all_field_indices(name)
        if not found:
            raise _disagreement(f'{file.path} has no column "{name}", which {having.path} has')
        if len(found) > 1:
            raise InputDataError(f'{file.path} has several columns "{name}"', remedy="rename all but one")
        kinds.append(schema.field(found[0]).type)
    if _comparable(kinds[0]) != _comparable(kinds[1]):
        raise _disagreement(
            f'column "{name}" is {kinds[0]} in {one[0].path} and {kinds[1]} in {other[0].path}'
        )


def _disagreement(message: str) -> InputDataError:
    return InputDataError(
        message, remedy="write the files with one schema, or name those that agree in input.path"
    )


def _comparable(kind: pa.DataType) -> pa.DataType:
    """Text is text and bytes are bytes, whatever the width of their offsets."""
    kind = settled_type(kind)
    if is_text(kind):
        return pa.string()
    return pa.binary() if is_bytes(kind) and not pa.types.is_fixed_size_binary(kind) else kind
