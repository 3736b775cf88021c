"""CSV with a header, as RFC 4180 has it: UTF-8, commas, double quotes, quoted line breaks.

The standard library's parser reads it, fed with lines that are cut at newlines alone. A faulty record becomes a bad
row and reading goes on at the next line; but when a quote is opened and never closed, all rows after it are inside
one field, and the file is refused: a run that loses most of its rows in one bad row would look nearly complete.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source.columns import RowFault, fit_text
from batchllm.source.files import Format, InputFile, Stream
from batchllm.source.holding import Held
from batchllm.source.jsonl import escaped
from batchllm.source.lines import LineBlock, LongLine, line_blocks, refuse_foreign
from batchllm.source.marks import chosen_of, columns_basis, marks_of
from batchllm.source.rows import BatchMaker, ValueRows, Values
from batchllm.spec.models import ColumnType

MAX_FIELD_CHARS = 16 << 20
MAX_RECORD_CHARS = 64 << 20
_HEAD_BYTES = 16


class _TooLong(csv.Error):
    pass


class _Records:
    """The records of one file, blank ones left out, each with the line that it begins in."""

    def __init__(self, file: InputFile, stream: Stream) -> None:
        # The limit is the module's, for the whole process; it is 128 KiB unless someone raised it.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
        self._file = file
        self._source = self._text_lines(stream)
        self._reader = csv.reader(self._feed(), strict=True)
        self._line = 0
        self._damage: dict[int, str] = {}
        self._lines: list[str] = []
        self._quotes = 0
        self._is_at_end = False
        self.chars = 0  # of the last record

    def __iter__(self) -> Iterator[tuple[int, list[str] | RowFault]]:
        while True:
            self._lines.clear()
            self.chars = self._quotes = 0
            start = self._line + 1
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield start, self._recover(start, error)
                continue
            if self._damage:
                fault = self._pop_damage(start)
                if fault is not None:
                    yield start, fault
                    continue
            if fields:
                yield start, fields

    def _feed(self) -> Iterator[str]:
        for line in self._source:
            self._line += 1
            if isinstance(line, LongLine):
                self._quotes += line.quotes
                self.chars += line.bytes
                raise _TooLong("the line is longer than 64 MiB")
            self._lines.append(line)
            self.chars += len(line)
            if self.chars > MAX_RECORD_CHARS and len(self._lines) > 1:
                raise _TooLong("the record is longer than 64 MiB")
            yield line
        self._is_at_end = True

    def _text_lines(self, stream: Stream) -> Iterator[str | LongLine]:
        for piece in line_blocks(stream.read):
            if isinstance(piece, LongLine):
                yield piece
                continue
            try:
                text = piece.body.decode("utf-8")
            except UnicodeDecodeError:
                yield from self._one_by_one(piece)
                continue
            if "\0" in text:
                yield from self._one_by_one(piece)
                continue
            if piece.first_line == 1:
                text = text.removeprefix("\ufeff")
            for line in text.split("\n"):
                yield line + "\n"

    def _one_by_one(self, block: LineBlock) -> Iterator[str]:
        for number, line in enumerate(block.lines, block.first_line):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = escaped(line, error.start)
                self._damage[number] = f"invalid UTF-8 at byte {error.start + 1} of line {number}: {where}"
                text = line.decode("utf-8", "replace")
            if "\0" in text:
                self._damage.setdefault(number, f"a NUL byte in line {number}")
            if number == 1:
                text = text.removeprefix("\ufeff")
            yield text.replace("\0", "\ufffd") + "\n"

    def _pop_damage(self, start: int) -> RowFault | None:
        found = [self._damage.pop(line, None) for line in range(start, self._line + 1)]
        return next((RowFault(message) for message in found if message), None)

    def _recover(self, start: int, error: csv.Error) -> RowFault:
        if self._is_at_end and len(self._lines) > 1:
            raise self._unclosed(start)
        reason = str(error)
        if isinstance(error, _TooLong) or self.chars > MAX_FIELD_CHARS:
            reason = str(error) if isinstance(error, _TooLong) else "a field is larger than 16 MiB"
            self._skip_record(start)
        self._pop_damage(start)
        self._reader = csv.reader(self._feed(), strict=True)
        span = f" (the record takes lines {start} to {self._line})" if self._line > start else ""
        return RowFault(f"not valid CSV: {reason}{span}")

    def _skip_record(self, start: int) -> None:
        """Quotes come in pairs, doubled ones too: the record ends with the line that completes the last pair."""
        quotes = self._quotes + sum(line.count('"') for line in self._lines)
        self._lines.clear()
        while quotes % 2:
            line = next(self._source, None)
            if line is None:
                raise self._unclosed(start)
            self._line += 1
            quotes += line.quotes if isinstance(line, LongLine) else line.count('"')

    def _unclosed(self, start: int) -> InputDataError:
        return InputDataError(
            f"{self._file.path}: a quote opened in line {start} is never closed; all lines to {self._line} are in it",
            remedy="close the quote, or double it where it is part of the text",
        )


def read_header(file: InputFile) -> list[str] | None:
    """The column names; None for an empty file."""
    with file.text_stream() as stream:
        refuse_foreign(file.path, stream.read(_HEAD_BYTES))
    with file.text_stream() as stream:
        first = next(iter(_Records(file, stream)), None)
    if first is None:
        return None
    line, names = first
    if isinstance(names, RowFault):
        reason = "its lines end in carriage returns alone" if "new-line" in str(names) else str(names)
        raise InputDataError(
            f"{file.path}:{line}: the header cannot be read: {reason}",
            remedy="write it as UTF-8 CSV with line feeds",
        )
    for at, name in enumerate(names):
        if not name.strip():
            raise InputDataError(
                f"{file.path}: column {at + 1} of the header has no name", remedy="name it, or drop it"
            )
        if name in names[:at]:
            raise InputDataError(
                f'{file.path}: the header has two columns "{name}"', remedy="rename one of them"
            )
    return names


class CsvReader:
    format: Format = "csv"

    def __init__(
        self,
        rows: ValueRows,
        headers: Mapping[str, list[str] | None],
        wanted: frozenset[str] | None,
        pinned: Mapping[str, ColumnType],
    ) -> None:
        """`headers` by path; `wanted`: the columns that rows hold (None = all)."""
        self._rows = rows
        self._headers = headers
        self._wanted = wanted
        self._typed = {name: kind for name, kind in pinned.items() if kind != "string"}
        self.held: Held | None = None

    def read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        """All rows of the file; the first one's ordinal is `first`."""
        return self._held(file, self._read(file, first, tap))

    def _held(
        self, file: InputFile, batches: Iterator[Sequence[Row | BadRow]]
    ) -> Iterator[Sequence[Row | BadRow]]:
        for batch in batches:
            if self.held is not None:
                self.held.check_rows(file.path, batch)
            yield batch

    def _read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        with file.text_stream(tap) as stream:
            batch = BatchMaker(self._rows, first, lambda line: f"{file.label}:{line}")
            to_values = self._value_maker(self._headers[file.path] or [])
            records = _Records(file, stream)
            for line, fields in _without_header(records):
                values = fields if isinstance(fields, RowFault) else to_values(fields)
                batch.add(line, values, records.chars)
                if batch.is_full:
                    yield batch.take()
            if rest := batch.take():
                yield rest

    @property
    def mark_basis(self) -> str:
        return "all columns" if self._wanted is None else columns_basis(self._wanted)

    def marks(self, file: InputFile, tap: Callable[[bytes], object]) -> Iterator[bytes]:
        """The mark of each row."""
        return marks_of(self._read(file, 0, tap))

    def chosen(self, file: InputFile, first: int, wanted: bytearray) -> Iterator[Sequence[Row | BadRow]]:
        """The rows whose byte in `wanted` (by ordinal, of the whole input) is 1."""
        return self._held(file, chosen_of(self._read(file, first, None), wanted))

    def places(self, file: InputFile, ordinals: frozenset[int]) -> dict[int, str]:
        """Where the rows stand that have these ordinals, counted from 0 in this file."""
        with file.text_stream() as stream:
            return {
                ordinal: f"{file.label}:{line}"
                for ordinal, (line, _) in enumerate(_without_header(_Records(file, stream)))
                if ordinal in ordinals
            }

    def _value_maker(self, header: list[str]) -> Callable[[list[str]], Values | RowFault]:
        picked = [at for at, name in enumerate(header) if self._wanted is None or name in self._wanted]
        names = [header[at] for at in picked]
        typed = [(name, self._typed[name]) for name in names if name in self._typed]
        width = len(header)
        pick = _picker(picked)

        def make(fields: list[str]) -> Values | RowFault:
            if len(fields) != width:
                return RowFault(f"the record has {len(fields)} fields, where the header has {width}")
            values: Values = dict(zip(names, pick(fields), strict=True))
            found: RowFault | None = None
            for name, kind in typed:
                try:
                    values[name] = fit_text(name, kind, str(values[name]))
                except RowFault as fault:
                    found = found or fault
                    values[name] = None
            if found is not None:
                found.key = self._rows.key_in(values)
                return found
            return values

        return make


def _picker(picked: list[int]) -> Callable[[list[str]], Sequence[str]]:
    if len(picked) < 2:
        return lambda fields: [fields[at] for at in picked]
    return itemgetter(*picked)


def _without_header(records: _Records) -> Iterator[tuple[int, list[str] | RowFault]]:
    found = iter(records)
    next(found, None)
    return found
