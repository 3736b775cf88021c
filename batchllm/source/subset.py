"""Some rows of another source, each as one or several rows of its own: what a consensus asks another lane about."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pyarrow as pa

from batchllm.ports import RowMarks, Source
from batchllm.records import BadRow, Row
from batchllm.source.columns import Shape
from batchllm.source.holding import Held
from batchllm.source.marks import Marked, chosen_of, marks_of
from batchllm.source.rows import MAX_BATCH_ROWS
from batchllm.source.scan import Scan, Tally, first_rows

#: A row of the other source → of each row that is made of it its key, its values, and what it carries.
Made = Callable[[Row], Iterable[tuple[str, Mapping[str, object], bytes]]]


@dataclass(frozen=True, slots=True)
class Subset:
    """`wanted`: a byte for each row of `whole`, 1 for those that are taken. `key` is what the new rows go by."""

    whole: Source
    wanted: bytearray
    made: Made
    key: str
    carry: tuple[pa.Field, ...] = ()
    _held: list[Held] = field(default_factory=list, repr=False)  # one, once rows are held to their marks

    @property
    def shape(self) -> Shape:
        return Shape(pa.field(self.key, pa.string()), self.carry)

    @property
    def column_names(self) -> None:
        """Known by looking at rows only."""
        return

    def stamps(self) -> tuple[()]:
        """Which rows are taken hangs on more than the files."""
        return ()

    def check_unchanged(self) -> None:
        self.whole.check_unchanged()

    def scan(self) -> Scan:
        tally = Tally(self.key)
        digest = sha256()
        for batch in self.batches():
            tally.add(batch)
            digest.update(b"".join(marks_of([batch])))
        tally.check_keys(self.batches, lambda ordinals: {at: f"row {at}" for at in ordinals})
        return Scan(tally.rows, digest.hexdigest(), (), tally.bad_rows)

    def mark(self) -> Marked:
        digest, marks = sha256(), array("Q")
        for piece in marks_of(self.batches()):
            digest.update(piece)
            marks.frombytes(piece)
        return Marked(digest.hexdigest(), marks, "rows of a consensus")

    def hold_to(self, marks: RowMarks, /) -> None:
        self._held[:] = [Held(marks)]

    def chosen(self, wanted: bytearray, _file_rows: Sequence[int], /) -> Iterator[Sequence[Row | BadRow]]:
        return chosen_of(self.batches(), wanted)

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        ordinal = 0
        for batch in chosen_of(self.whole.batches(), self.wanted):
            made: list[Row | BadRow] = []
            for row in batch:
                if isinstance(row, BadRow):  # it has failed for every voter
                    continue
                for key, values, carried in self.made(row):
                    made.append(Row(ordinal, key, values, carried))
                    ordinal += 1
            for start in range(0, len(made), MAX_BATCH_ROWS):
                piece = made[start : start + MAX_BATCH_ROWS]
                for held in self._held:
                    held.check_rows("the input", piece)
                yield piece

    def peek(self, rows: int) -> Sequence[Row]:
        return first_rows(self.batches(), rows)
