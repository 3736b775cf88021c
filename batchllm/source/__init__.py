"""Rows in: JSONL, CSV and Parquet files, and frames in memory, streamed in bounded batches.

    formats, finding, remote    which files the input is
    files                       one file: its bytes, and that it stays as it is
    lines, jsonl, csv           text → values
    parquet, arrow_rows         Arrow → values; settling and rendering say how each type reads
    frame                       the same for what is in memory
    columns, rows               pinned types; values → rows
    keys, scan, reading         the pass before a run, and the source that a run reads

Each line that is not blank has an ordinal, counted from 0 over all files, and comes out as a Row or a BadRow. Nothing
of a file's content is remembered between passes: memory does not grow with the input, except by 8 bytes a key while
keys are checked.
"""

from collections.abc import Sequence
from typing import Literal

from batchllm.errors import InputDataError
from batchllm.source.arrow_rows import check_zones, pin_arrow
from batchllm.source.columns import Shape, check_columns, pin_seen, pin_text
from batchllm.source.csv import CsvReader, read_header
from batchllm.source.files import FileStamp, InputFile
from batchllm.source.finding import find_files
from batchllm.source.frame import FrameSource, frame_source
from batchllm.source.jsonl import JsonlReader, check_first_lines, check_head, first_objects
from batchllm.source.parquet import ParquetReader, read_schema, shared_schema
from batchllm.source.reading import FileSource
from batchllm.source.rows import ValueRows
from batchllm.source.scan import Scan
from batchllm.spec.models import Input

__all__ = ["FileSource", "FileStamp", "FrameSource", "Scan", "Shape", "frame_source", "open_source"]

_SAMPLE_ROWS = 1000

Carry = Literal["all"] | Sequence[str]


def open_source(spec: Input, *, carry: Carry, needed: frozenset[str] | None) -> FileSource:
    """`needed`: the columns that templates use (None = all); the key and what is carried are added here.

    Finds the files, sees that each can be opened, and pins the types. Raises InputMissingError when there is no such
    input, InputDataError for whatever else is wrong with it.
    """
    kind, files = find_files(spec.path, spec.format)
    if kind == "parquet" and files:
        return _open_parquet(spec, files, carry, needed)
    if kind == "csv":
        return _open_csv(spec, files, carry, needed)
    return _open_jsonl(spec, files, carry)


def _open_jsonl(spec: Input, files: tuple[InputFile, ...], carry: Carry) -> FileSource:
    for file in files:
        check_head(file)
    check_first_lines(files)
    seen = list(dict.fromkeys(name for values in first_objects(files, _SAMPLE_ROWS) for name in values))
    where = f"{_where(files)} (in its first rows)"
    shape, pinned = pin_seen(where, seen, spec.key, carry, spec.columns)
    return FileSource(files, JsonlReader(ValueRows(shape, pinned)), shape, None)


def _open_csv(
    spec: Input, files: tuple[InputFile, ...], carry: Carry, needed: frozenset[str] | None
) -> FileSource:
    headers = {file.path: read_header(file) for file in files}
    known = {path: names for path, names in headers.items() if names is not None}
    shared = [
        name for name in next(iter(known.values()), []) if all(name in names for names in known.values())
    ]
    carried = [name for name in shared if name != spec.key] if carry == "all" else list(carry)
    for path, names in known.items():
        check_columns(path, names, spec.key, carried, spec.columns)
        lost = (
            sorted(needed & {name for one in known.values() for name in one} - set(names)) if needed else []
        )
        if lost:
            raise InputDataError(
                f'{path} has no column "{lost[0]}", which other files of the input have',
                remedy="give all files the same header",
            )
    shape, pinned = pin_text(spec.key, carried, spec.columns)
    wanted = None if needed is None else needed | pinned.keys()
    reader = CsvReader(ValueRows(shape, pinned), headers, wanted, pinned)
    return FileSource(files, reader, shape, tuple(shared) if known else None)


def _open_parquet(
    spec: Input, files: tuple[InputFile, ...], carry: Carry, needed: frozenset[str] | None
) -> FileSource:
    if spec.columns:
        raise InputDataError(
            f"{_where(files)}: Parquet has types of its own, so input.columns cannot say others",
            remedy="remove input.columns; cast the columns in the file where other types are wanted",
        )
    named = frozenset([] if spec.key is None else [spec.key]) | frozenset([] if carry == "all" else carry)
    wanted = None if needed is None or carry == "all" else needed | named
    schema = shared_schema(files, [read_schema(file) for file in files], wanted)
    shape = pin_arrow(_where(files), schema, spec.key, None if carry == "all" else carry)
    shown = [name for name in schema.names if needed is None or name in needed]
    check_zones(_where(files), schema, shown)
    travels = {spec.key, *(field.name for field in shape.carry)}
    fields = [field for field in schema if field.name in shown or field.name in travels]
    return FileSource(files, ParquetReader(shape, shown, fields), shape, tuple(schema.names))


def _where(files: Sequence[InputFile]) -> str:
    if not files:
        return "the input"
    return files[0].path if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
