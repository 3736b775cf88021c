"""JSONL: one JSON object a line.

orjson parses whole runs of lines; the standard library gets the few lines that orjson refuses or would change:
NaN and infinities (kept), a byte order mark (skipped), lone surrogates (U+FFFD in their place, since no UTF-8 holds
them), and integers beyond 64 bits, which orjson turns into floats without a word. What only the standard library can
tell is not looked for in each line: a block of lines without nineteen digits in a row holds no such integer.

When a line names a field twice, the last one counts; to see the first would cost more than the parsing.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import orjson

from batchllm.records import BadRow, Row
from batchllm.source.columns import RowFault
from batchllm.source.files import Format, InputFile
from batchllm.source.lines import LineBlock, LongLine, line_blocks, refuse_foreign
from batchllm.source.rows import MAX_BATCH_ROWS, BatchMaker, ValueRows, Values

_HEAD_BYTES = 16
_SAMPLE_BYTES = 8 << 20
_SHOWN_BYTES = 40
_DIGITS_AS_ZERO = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_NINETEEN = b"0" * 19  # 2**63 has nineteen digits
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class JsonlReader:
    format: Format = "jsonl"

    def __init__(self, rows: ValueRows) -> None:
        self._rows = rows

    def read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        """All rows of the file; the first one's ordinal is `first`."""
        with file.text_stream(tap) as stream:
            for piece in line_blocks(stream.read):
                if isinstance(piece, LongLine):
                    yield [BadRow(first, _place(file, piece.line, piece.offset), _too_long(piece))]
                    first += 1
                    continue
                for batch in self._batches(file, first, piece):
                    yield batch
                    first += len(batch)

    def places(self, file: InputFile, ordinals: frozenset[int]) -> dict[int, str]:
        """Where the rows stand that have these ordinals, counted from 0 in this file."""
        found: dict[int, str] = {}
        ordinal = 0
        with file.text_stream() as stream:
            for piece in line_blocks(stream.read):
                lines = [b"-"] if isinstance(piece, LongLine) else piece.lines
                line = piece.line if isinstance(piece, LongLine) else piece.first_line
                for number, text in enumerate(lines, line):
                    if _is_blank(text):
                        continue
                    if ordinal in ordinals:
                        found[ordinal] = f"{file.label}:{number}"
                    ordinal += 1
        return found

    def _batches(self, file: InputFile, first: int, block: LineBlock) -> Iterator[list[Row | BadRow]]:
        is_suspect = _NINETEEN in block.body.translate(_DIGITS_AS_ZERO)
        for start in range(0, len(block.lines), MAX_BATCH_ROWS):
            lines = block.lines[start : start + MAX_BATCH_ROWS]
            parsed = None if is_suspect else _parse_all(lines)
            if parsed is None:
                batch = self._line_by_line(file, first, block, start)
            else:
                places = _Places(file, block, start)
                batch = self._rows.make(first, parsed, places)
            if batch:
                yield batch
                first += len(batch)

    def _line_by_line(self, file: InputFile, first: int, block: LineBlock, start: int) -> list[Row | BadRow]:
        batch = BatchMaker(self._rows, first, _Places(file, block, start))
        for at, line in enumerate(block.lines[start : start + MAX_BATCH_ROWS]):
            if _is_blank(line):
                continue
            try:
                values: Values | RowFault = parse_line(line)
            except RowFault as fault:
                values = fault
            batch.add(at, values, len(line))
        return batch.take()


class _Places:
    """Where the n-th line of a run stands; the bytes before it are added up only when someone asks."""

    def __init__(self, file: InputFile, block: LineBlock, start: int) -> None:
        self._file = file
        self._block = block
        self._start = start

    def __call__(self, at: int) -> str:
        index = self._start + at
        offset = self._block.offset + sum(len(line) + 1 for line in self._block.lines[:index])
        return _place(self._file, self._block.first_line + index, offset)


def _place(file: InputFile, line: int, offset: int) -> str:
    return f"{file.label}:{line} (byte {offset})"


def _too_long(line: LongLine) -> str:
    return f"the line is too long: {line.bytes:,} bytes, where 64 MiB are read"


def _is_blank(line: bytes) -> bool:
    return not line.strip() or line.strip() == b"\xef\xbb\xbf"


def _parse_all(lines: list[bytes]) -> list[Values] | None:
    """None when one of them needs a closer look."""
    try:
        parsed = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    return parsed if {dict}.issuperset(map(type, parsed)) else None


def parse_line(line: bytes) -> Values:
    """The object of a line that is not blank. Raises RowFault."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = _parse_slowly(line)
    else:
        if _LONG_NUMBER.search(line) and _has_big_float(value):
            value = _parse_slowly(line)
    if not isinstance(value, dict):
        raise RowFault(f"the line holds {_JSON_NAMES[type(value)]}, where a JSON object is read")
    return value


_JSON_NAMES: dict[type, str] = {
    list: "a JSON array",
    str: "a JSON string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _parse_slowly(line: bytes) -> object:
    try:
        text = line.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RowFault(
            f"invalid UTF-8 at byte {error.start + 1} of the line: {escaped(line, error.start)}"
        ) from None
    try:
        return repaired(json.loads(text))
    except json.JSONDecodeError as error:
        near = json.dumps(text[max(0, error.pos - 20) : error.pos + 20])
        raise RowFault(f"not valid JSON: {error.msg}, at character {error.pos + 1}, near {near}") from None
    except RecursionError:
        raise RowFault("the JSON is nested too deeply") from None
    except ValueError as error:
        raise RowFault(f"a number cannot be read: {error}") from None


def escaped(data: bytes, at: int) -> str:
    """The surroundings of a byte that is no text."""
    start = max(0, at - _SHOWN_BYTES // 2)
    return data[start : at + _SHOWN_BYTES // 2].decode("utf-8", "backslashreplace")


def repaired(value: object) -> object:
    """The same JSON value, with U+FFFD for each lone surrogate."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {repaired(name): repaired(member) for name, member in value.items()}
    if isinstance(value, list):
        return [repaired(member) for member in value]
    return value


def _has_big_float(value: object) -> bool:
    """Whether a float is in it that may have been an integer beyond 64 bits."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, float) and abs(one) >= 2**63:
            return True
    return False


def first_objects(files: Sequence[InputFile], most: int) -> list[Values]:
    """The first readable objects (fewer where they are large), to see which fields there are."""
    return list(islice(_objects(files), most))


def _objects(files: Sequence[InputFile]) -> Iterator[Values]:
    seen_bytes = 0
    for file in files:
        with file.text_stream() as stream:
            for piece in line_blocks(stream.read):
                if isinstance(piece, LongLine):
                    continue
                for line in piece.lines:
                    try:
                        yield parse_line(line)
                    except RowFault:
                        continue
                seen_bytes += len(piece.body)
                if seen_bytes > _SAMPLE_BYTES:
                    return


def check_head(file: InputFile) -> None:
    """Refuse a file that is no text before its rows are."""
    with file.text_stream() as stream:
        refuse_foreign(file.path, stream.read(_HEAD_BYTES))
