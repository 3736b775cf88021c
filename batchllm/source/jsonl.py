"""JSONL: one JSON object a line.

orjson parses whole runs of lines; the standard library gets the few lines that orjson refuses or would change:
NaN and infinities (kept), a byte order mark (skipped), lone surrogates (U+FFFD in their place, since no UTF-8 holds
them), and integers beyond 64 bits, which orjson turns into floats without a word. What only the standard library can
tell is not looked for in each line: a block of lines without nineteen digits in a row holds no such integer.

When a line names a field twice, the last one counts; to see the first would cost more than the parsing.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

import orjson

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source.columns import NumberFault, RowFault, too_large
from batchllm.source.files import Format, InputFile
from batchllm.source.holding import Held
from batchllm.source.lines import LineBlock, LongLine, Piece, line_blocks, refuse_foreign
from batchllm.source.marks import UNKNOWN, digests
from batchllm.source.rows import MAX_BATCH_ROWS, BatchMaker, ValueRows, Values
from batchllm.source.spans import Spans

_HEAD_BYTES = 16
_FIRST_LINES = 20
_NO_UTF8 = "invalid UTF-8"
_UNPACK_ARRAY = (
    'python -c "import json,sys; [print(json.dumps(row)) for row in json.load(sys.stdin)]" < a.json > a.jsonl'
)
_SAMPLE_BYTES = 8 << 20
_SHOWN_BYTES = 40
_BRACE = frozenset(b"{")
_first_byte = itemgetter(0)
_DIGITS_AS_ZERO = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_NINETEEN = b"0" * 19  # 2**63 has nineteen digits
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class JsonlReader:
    format: Format = "jsonl"
    mark_basis = "lines"

    def __init__(self, rows: ValueRows) -> None:
        self._rows = rows
        self._spans: dict[str, Spans] = {}  # by path, once its marks were made
        self.held: Held | None = None

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
                if self.held is not None:
                    lines = _picked(piece.lines)
                    self.held.check(file.path, range(first, first + len(lines)), digests(lines))
                for batch in self._batches(file, first, piece):
                    yield batch
                    first += len(batch)

    def marks(self, file: InputFile, tap: Callable[[bytes], object]) -> Iterator[bytes]:
        """A line is known by its bytes: nothing is parsed."""
        spans = Spans()
        with file.text_stream(tap) as stream:
            for piece in line_blocks(stream.read):
                marks = UNKNOWN if isinstance(piece, LongLine) else digests(_picked(piece.lines))
                spans.add(piece, len(marks) // len(UNKNOWN))
                yield marks
        if file.is_random:
            self._spans[file.path] = spans

    def chosen(self, file: InputFile, first: int, wanted: bytearray) -> Iterator[Sequence[Row | BadRow]]:
        """The rows whose byte in `wanted` (by ordinal, of the whole input) is 1; other lines are not parsed.

        Where the marks were made by this reader the other blocks are not even read.
        """
        spans = self._spans.get(file.path)
        pieces = _wanted(file, first, wanted) if spans is None else spans.wanted(file, first, wanted)
        for at, piece in pieces:
            if isinstance(piece, LongLine):
                yield [BadRow(at, _place(file, piece.line, piece.offset), _too_long(piece))]
            else:
                yield from self._chosen_lines(file, at, piece, wanted)

    def _chosen_lines(
        self, file: InputFile, first: int, block: LineBlock, wanted: bytearray
    ) -> Iterator[list[Row | BadRow]]:
        lines, filled = block.lines, _filled(block.lines)
        if self.held is not None:
            ordinals = [row for row in range(first, first + len(filled)) if wanted[row]]
            self.held.check(file.path, ordinals, digests(lines[filled[row - first]] for row in ordinals))
        for start, end in _runs(wanted, first, first + len(filled)):
            for run in range(start, end, MAX_BATCH_ROWS):
                indices = filled[run - first : min(end, run + MAX_BATCH_ROWS) - first]
                yield self._lines(run, lines, indices, _Places(file, block, 0))

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
        all_lines = block.lines
        for start in range(0, len(all_lines), MAX_BATCH_ROWS):
            lines = all_lines[start : start + MAX_BATCH_ROWS]
            parsed = None if is_suspect else _parse_all(lines)
            if parsed is None:
                filled = [at for at, line in enumerate(lines, start) if not _is_blank(line)]
                batch = self._lines(first, all_lines, filled, _Places(file, block, 0))
            else:
                places = _Places(file, block, start)
                batch = self._rows.make(first, parsed, places)
            if batch:
                yield batch
                first += len(batch)

    def _lines(
        self, first: int, lines: Sequence[bytes], indices: Sequence[int], places: "_Places"
    ) -> list[Row | BadRow]:
        """One line after the other, those of `indices`, none of which is blank."""
        batch = BatchMaker(self._rows, first, places)
        for at in indices:
            line = lines[at]
            try:
                values: Values | RowFault = parse_line(line)
            except NumberFault as fault:
                fault.key = self._rows.key_in(fault.values)
                values = fault
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


def _runs(wanted: bytearray, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive ones between `first` and `end`."""
    while (start := wanted.find(1, first, end)) >= 0:
        zero = wanted.find(0, start, end)
        first = end if zero < 0 else zero
        yield start, first


def _place(file: InputFile, line: int, offset: int) -> str:
    return f"{file.label}:{line} (byte {offset})"


def _too_long(line: LongLine) -> str:
    return f"the line is too long: {line.bytes:,} bytes, where 64 MiB are read"


def _is_blank(line: bytes) -> bool:
    return not line.strip() or line.strip() == b"\xef\xbb\xbf"


def _wanted(file: InputFile, first: int, wanted: bytearray) -> Iterator[tuple[int, Piece]]:
    """What holds a row whose byte in `wanted` is 1, with the ordinal of its first row."""
    with file.text_stream() as stream:
        for piece in line_blocks(stream.read):
            end = first + (1 if isinstance(piece, LongLine) else len(_filled(piece.lines)))
            if wanted.find(1, first, end) >= 0:
                yield first, piece
            first = end


def _picked(lines: Sequence[bytes]) -> Sequence[bytes]:
    """Those that are not blank."""
    filled = _filled(lines)
    return lines if len(filled) == len(lines) else [lines[at] for at in filled]


def _filled(lines: Sequence[bytes]) -> Sequence[int]:
    """The lines that are not blank, by index. Where all begin with a brace none has to be looked at in full."""
    try:
        if _BRACE.issuperset(map(_first_byte, lines)):
            return range(len(lines))
    except IndexError:  # an empty line
        pass
    return [at for at, line in enumerate(lines) if not _is_blank(line)]


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
            f"{_NO_UTF8} at byte {error.start + 1} of the line: {escaped(line, error.start)}"
        ) from None
    numbers = _Numbers()
    try:
        value = repaired(json.loads(text, parse_int=numbers.read_int, parse_float=numbers.read_float))
    except json.JSONDecodeError as error:
        near = json.dumps(text[max(0, error.pos - 20) : error.pos + 20])
        raise RowFault(f"not valid JSON: {error.msg}, at character {error.pos + 1}, near {near}") from None
    except RecursionError:
        raise RowFault("the JSON is nested too deeply") from None
    if numbers.has_unread and isinstance(value, dict):
        _refuse_unread(value)
    return value


@dataclass(frozen=True, slots=True)
class _Unread:
    """In the place of a number that cannot be held."""

    why: str


class _Numbers:
    """Reads the numbers of one line. What cannot be held is marked and not raised: the key may still be read."""

    def __init__(self) -> None:
        self.has_unread = False

    def read_int(self, digits: str) -> object:
        most = sys.get_int_max_str_digits()
        count = len(digits.lstrip("-"))
        if most and count > most:
            return self._mark(f"the number has {count:,} digits, where {most:,} are read")
        return int(digits)

    def read_float(self, digits: str) -> object:
        number = float(digits)
        return self._mark(too_large(digits)) if math.isinf(number) else number

    def _mark(self, why: str) -> _Unread:
        self.has_unread = True
        return _Unread(why)


def _refuse_unread(values: Values) -> None:
    """Raises NumberFault, unless all that was marked belonged to fields that a later one of the name replaced."""
    faults = {name: found for name, value in values.items() if (found := _find_unread(value)) is not None}
    for name, found in faults.items():
        rest = {other: value for other, value in values.items() if other not in faults}
        raise NumberFault(f'column "{name}": {found.why}', rest)


def _find_unread(value: object) -> _Unread | None:
    return next((one for one in _leaves(value) if isinstance(one, _Unread)), None)


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
    return any(isinstance(one, float) and abs(one) >= 2**63 for one in _leaves(value))


def _leaves(value: object) -> Iterator[object]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        else:
            yield one


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


def check_first_lines(files: Sequence[InputFile]) -> None:
    """Refuse an input whose first file with lines holds no object in the first ones: it is of another format.

    Each of its lines would become a failure, and the fault is one. A line beyond the cap tells nothing.
    """
    for file in files:
        found = list(islice(_numbered_lines(file), _FIRST_LINES))
        if not found:
            continue
        lines = [line for _, line in found if line is not None]
        if len(lines) == len(found) and not _has_object(lines):
            raise _no_jsonl(file, found[0][0], lines[0])
        return


def _numbered_lines(file: InputFile) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank; None for one beyond the cap."""
    with file.text_stream() as stream:
        for piece in line_blocks(stream.read):
            if isinstance(piece, LongLine):
                yield piece.line, None
                continue
            for number, line in enumerate(piece.lines, piece.first_line):
                if not _is_blank(line):
                    yield number, line


def _has_object(lines: Sequence[bytes]) -> bool:
    """An array over several lines has objects too: its last element ends without a comma."""
    is_array = _bare(lines[0]) == b"["
    ends = [is_array and _bare(line).startswith(b"]") for line in (*lines[1:], b"")]
    return any(_is_object(line) and not is_last for line, is_last in zip(lines, ends, strict=True))


def _bare(line: bytes) -> bytes:
    return line.removeprefix(b"\xef\xbb\xbf").strip()


def _is_object(line: bytes) -> bool:
    try:
        parse_line(line)
    except NumberFault:
        return True
    except RowFault:
        return False
    return True


def _fault_of(line: bytes) -> str:
    try:
        parse_line(line)
    except RowFault as fault:
        return str(fault)
    return "the line holds an object within an array"


def _no_jsonl(file: InputFile, number: int, line: bytes) -> InputDataError:
    bare = _bare(line)
    fault = "an array begins here" if bare == b"[" else _fault_of(line)
    if fault.startswith(_NO_UTF8):
        remedy = "convert it to UTF-8"
    elif bare.startswith(b"["):
        remedy = f"write one JSON object a line, for example with: {_UNPACK_ARRAY}"
    elif b"," in bare and not bare.startswith(b"{"):
        remedy = "if it is CSV, say input.format: csv, or let its name end in .csv"
    else:
        remedy = "write one JSON object a line; say input.format if the file is of another format"
    return InputDataError(f"{file.path} is not JSONL: line {number}: {fault}", remedy=remedy)


def check_head(file: InputFile) -> None:
    """Refuse a file that is no text before its rows are."""
    with file.text_stream() as stream:
        refuse_foreign(file.path, stream.read(_HEAD_BYTES))
