"""Which rows a run asks about, out of what the record, the copies and the options leave of the input."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from batchllm.engine.backfill import ones, open_rows
from batchllm.engine.dedupe import Dedupe, InputTable
from batchllm.journal import Forgotten, Journal
from batchllm.ports import Source
from batchllm.records import BadRow, Row
from batchllm.running import in_pieces, limited


@dataclass(frozen=True, slots=True)
class Asking:
    """`limit`: of the first rows alone. `dedupe` knows the rows that get a copy.

    `again`: rows whose failures were forgotten, to be asked once more, and no others.
    """

    journal: Journal
    table: InputTable
    limit: int | None
    dedupe: Dedupe | None
    again: Forgotten | None

    def batches(self, source: Source, at_once: int | None) -> Callable[[], Iterator[Sequence[Row | BadRow]]]:
        """What the run reads: after an earlier one only what is left, without a look at the other rows."""
        wanted = self._wanted()
        if wanted is None:
            return lambda: in_pieces(limited(source.batches(), self.limit), at_once)
        return lambda: in_pieces(source.chosen(wanted, self.table.file_rows), at_once)

    def is_finished(self) -> Callable[[int], bool]:
        """What need not be asked. With --retry-failed that is all that had not failed."""
        again, has_row = self.again, self.journal.finished.has_row
        if self.dedupe is not None:
            is_later = self.dedupe.is_later
            return lambda row: has_row(row) or bool(is_later[row]) or (again is not None and row not in again)
        if again is None:
            return has_row
        return lambda row: has_row(row) or row not in again

    def is_all(self, units: int) -> bool:
        """Whether the run, if it ends well, leaves none of so many units without an outcome."""
        return self.again is None or self.journal.counts.settled + self.again.units == units

    def _wanted(self) -> bytearray | None:
        """A byte for each row: 1 for those that are to be asked. None: all of them, up to the limit."""
        counts, rows = self.journal.counts, self.table.rows
        if not counts.ok + counts.failed and self.dedupe is None and self.again is None:
            return None
        wanted = open_rows(self.journal.finished.rows(rows), rows, self.limit)
        is_finished = self.is_finished()
        if self.dedupe is not None or self.again is not None:
            for row in ones(wanted):
                wanted[row] = not is_finished(row)
        return wanted
