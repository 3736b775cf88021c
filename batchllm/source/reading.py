"""The input as a source of rows: files one after the other, whatever their format."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from batchllm.ports import RowMarks
from batchllm.records import BadRow, Row
from batchllm.source.columns import Shape
from batchllm.source.files import FileStamp, Format, InputFile
from batchllm.source.hashing import hashing
from batchllm.source.holding import Held
from batchllm.source.marks import Marked
from batchllm.source.scan import Scan, Tally, first_rows


class Reader(Protocol):
    """One format, under the name that it has in the job. `held`: what the rows of `read` and `chosen` are held to."""

    format: Format
    held: Held | None

    @property
    def mark_basis(self) -> str:
        """What the marks are of."""

    def read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        """All rows of the file; the first one's ordinal is `first`. `tap` is shown each byte of it."""

    def marks(self, file: InputFile, tap: Callable[[bytes], object]) -> Iterator[bytes]:
        """The mark of each row (see `batchllm.source.marks`), eight bytes each, in pieces."""

    def chosen(self, file: InputFile, first: int, wanted: bytearray) -> Iterator[Sequence[Row | BadRow]]:
        """Of what `read` gives, the rows whose byte in `wanted` (by ordinal) is 1."""

    def places(self, file: InputFile, ordinals: frozenset[int]) -> dict[int, str]:
        """Where the rows stand that have these ordinals, counted from 0 in this file."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """`files` are as they were when the source was opened; if one changes, reading ends with InputDataError."""

    files: tuple[InputFile, ...]
    reader: Reader
    shape: Shape
    column_names: tuple[str, ...] | None

    def stamps(self) -> tuple[FileStamp, ...]:
        """What the file system said of each file, without reading it."""
        return tuple(file.stamp for file in self.files)

    def check_unchanged(self) -> None:
        for file in self.files:
            file.check_unchanged()

    def scan(self) -> Scan:
        tally = Tally(None if self.shape.key is None else self.shape.key.name)
        stamps: list[FileStamp] = []
        for file in self.files:
            first = tally.rows
            with hashing() as digest:
                for batch in self._read(file, first, digest.update):
                    tally.add(batch)
                found = digest.hexdigest()
            stamps.append(replace(file.stamp, sha256=found, rows=tally.rows - first))
        counts = [stamp.rows or 0 for stamp in stamps]
        tally.check_keys(self.batches, lambda ordinals: self._places(ordinals, counts))
        return Scan(tally.rows, self._digest(stamps), tuple(stamps), tally.bad_rows)

    def mark(self) -> Marked:
        """What `chosen` and a later run know the rows by. Cheaper than `scan`, and without its checks."""
        marks = array("Q")
        stamps: list[FileStamp] = []
        for file in self.files:
            first = len(marks)
            file.check_unchanged()
            with hashing() as digest:
                for piece in self.reader.marks(file, digest.update):
                    marks.frombytes(piece)
                found = digest.hexdigest()
            file.check_unchanged()
            stamps.append(replace(file.stamp, sha256=found, rows=len(marks) - first))
        rows = tuple(stamp.rows or 0 for stamp in stamps)
        return Marked(self._digest(stamps), marks, self.reader.mark_basis, rows)

    def hold_to(self, marks: RowMarks, /) -> None:
        self.reader.held = Held(marks)

    def chosen(self, wanted: bytearray, file_rows: Sequence[int], /) -> Iterator[Sequence[Row | BadRow]]:
        """The rows whose byte in `wanted` is 1, in batches like those of `batches`."""
        first = 0
        for file, rows in zip(self.files, file_rows, strict=True):
            file.check_unchanged()
            yield from self.reader.chosen(file, first, wanted)
            file.check_unchanged()
            first += rows

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        first = 0
        for file in self.files:
            for batch in self._read(file, first, None):
                yield batch
                first += len(batch)

    def peek(self, rows: int) -> Sequence[Row]:
        return first_rows(self.batches(), rows)

    def _read(
        self, file: InputFile, first: int, tap: Callable[[bytes], object] | None
    ) -> Iterator[Sequence[Row | BadRow]]:
        file.check_unchanged()
        yield from self.reader.read(file, first, tap)
        file.check_unchanged()

    def _places(self, ordinals: frozenset[int], counts: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        first = 0
        for file, count in zip(self.files, counts, strict=True):
            here = frozenset(at - first for at in ordinals if first <= at < first + count)
            if here:
                found |= {at + first: place for at, place in self.reader.places(file, here).items()}
            first += count
        return found

    def _digest(self, stamps: Sequence[FileStamp]) -> str:
        """Of the bytes in reading order; a file's name and time are no part of what its rows say."""
        lines = [self.reader.format, *(stamp.sha256 or "" for stamp in stamps)]
        return sha256("\n".join(lines).encode()).hexdigest()
