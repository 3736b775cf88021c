"""Whose rows the record is of: the input as it is now against the one that the outcomes belong to."""

from contextlib import closing
from pathlib import Path

import orjson
import pyarrow as pa

from batchllm.engine.backfill import Backfill, Changes
from batchllm.engine.dedupe import InputTable
from batchllm.errors import InputDataError
from batchllm.journal import InputState, Journal, Renewal
from batchllm.matching import Places
from batchllm.ports import Source, Task


class Intake:
    """`changes` is what `take_in` has found, where it had to compare two inputs."""

    def __init__(self, source: Source, task: Task, out: Path, *, only_missing: bool) -> None:
        self._source = source
        self._task = task
        self._out = out
        self._only_missing = only_missing
        self.changes: Changes | None = None

    def is_settled(self, journal: Journal) -> bool:
        """The same input again, by size, time and inode: there is nothing to read, and nothing to send."""
        is_same = bool(self._source.stamps()) and journal.input_stamps == self._stamps()
        return is_same and not self._has_stale(journal)

    def take_in(self, journal: Journal) -> InputTable:
        """The rows of the input; the record is that of this very input afterwards."""
        if self._source.shape.key is None:
            table = self._placed(journal)
        elif journal.input_digest is None:
            table = self._marked(journal)
        else:
            table = self._compared(journal)
        self._hold(journal)
        _give_back_memory()
        return table

    def _hold(self, journal: Journal) -> None:
        """What is answered from now on is read from what the marks of the record are of, or it is not asked."""
        basis = journal.input_basis
        marks = None if basis is None else journal.input_marks(basis)
        if marks is not None:
            self._source.hold_to(marks)

    def _stamps(self) -> str:
        return orjson.dumps(self._source.stamps()).decode()

    def _placed(self, journal: Journal) -> InputTable:
        """Without a key a row is its place, which must not change once something is answered."""
        stamps = self._stamps()
        marked = self._source.mark()
        state = InputState(marked.digest, marked.rows, stamps, marked.marks, marked.basis)
        before = journal.input_digest
        if before == marked.digest and journal.input_marks(marked.basis) is not None:
            if journal.input_stamps != stamps:
                journal.set_input_stamps(stamps)
        elif before in (None, marked.digest):
            journal.set_input(state)
        elif not journal.counts.ok + journal.counts.failed:
            _let_go(journal, state)
        else:
            raise InputDataError(
                f"the input has changed since the answers in {self._out} were made, and without a key its rows"
                " cannot be told apart",
                remedy="for inputs that grow, name a column of unique values in input.key (and choose another"
                " output.path once: the rows answered so far have no key); or put the old input back",
            )
        return InputTable(marked.rows, tuple(marked.file_rows))

    def _marked(self, journal: Journal) -> InputTable:
        """The first input of a record."""
        stamps = self._stamps()
        scan = self._source.scan()
        _give_back_memory()
        marked = self._source.mark()
        if marked.digest != scan.digest:
            raise InputDataError(
                "the input changed while it was read", remedy="start again when nothing writes to it any more"
            )
        journal.set_input(InputState(marked.digest, marked.rows, stamps, marked.marks, marked.basis))
        return InputTable(marked.rows, tuple(marked.file_rows))

    def _compared(self, journal: Journal) -> InputTable:
        stamps = self._stamps()
        marked = self._source.mark()
        # With a version that did not hold rows to their marks, what was answered may have been read from other bytes,
        # unless the file is untouched since, or a run has read it to its end.
        is_certain = journal.is_input_certain or journal.input_stamps == stamps
        has_marks = is_certain and journal.input_marks(marked.basis) is not None
        if marked.digest == journal.input_digest and has_marks and not self._has_stale(journal):
            if journal.input_stamps != stamps:
                journal.set_input_stamps(stamps)
            return InputTable(marked.rows, tuple(marked.file_rows))
        backfill = Backfill(
            self._source,
            self._task,
            journal,
            marked,
            stamps,
            keeps_changed=self._only_missing,
            trusts_marks=is_certain,
        )
        self.changes = backfill.take_up()
        return InputTable(marked.rows, tuple(marked.file_rows))

    def _has_stale(self, journal: Journal) -> bool:
        """Whether rows are to be asked again that kept the answers of earlier versions of theirs."""
        return bool(journal.input_stale) and not self._only_missing


def _let_go(journal: Journal, state: InputState) -> None:
    """The rows of another input were called for in vain: the calls stay, and are of no row of this one."""
    with closing(journal.carries()) as carries:
        nowhere = Places(0, pa.nulls(journal.input_rows, pa.int64()))
        journal.renew(Renewal(nowhere, carries), state)


def _give_back_memory() -> None:
    """Arrow keeps what the search for repeated keys took: 19 MB at a million rows."""
    pa.default_memory_pool().release_unused()
