"""Rows that ask the same: one of them is sent, the others take over its outcome.

Before anything is sent, the rows that are still to be asked are read once more, and eight bytes are kept of what each
asks; what was answered before stands in the record. Rows that repeat another one are then left out of the run, and
get their lines when it ends, from the record, in bounded memory: a vector that ten rows share is bought once and never
waits in memory for them.

A row whose original has no outcome when the run ends stays open like it.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from batchllm.engine.backfill import as_flags, numbers
from batchllm.journal import Copied, CopyRequests, Journal
from batchllm.matching import Marks, find_repeats
from batchllm.plan import asked_digest
from batchllm.ports import Source, Task
from batchllm.records import BadRow, Row

_MARK_BYTES = 8
_HASH_CHARS = 32
_NOTHING = bytes(_MARK_BYTES)
_COPIED_AT_ONCE = 1 << 16
_COPIED_BYTES = 64 << 20
#: So many rows, at most, are looked up in the record; for more all of it is read.
_LOOKED_UP = 1 << 17


class InputTable(NamedTuple):
    """How many rows the input has, in all and in each file (of a frame: nothing)."""

    rows: int
    file_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Dedupe:
    """`later` (ascending) are the rows that ask what those in `first` do, both by ordinal; `is_later` by ordinal."""

    source: Source
    task: Task
    file_rows: tuple[int, ...]
    later: pa.Array
    first: pa.Array
    is_later: bytearray

    def __len__(self) -> int:
        return len(self.later)

    def fill(self, journal: Journal) -> Copied:
        """Give the rows the outcomes that their originals have by now."""
        ok = failed = 0
        for requests in self._requests(journal):
            copied = journal.copy_outcomes(requests)
            ok, failed = ok + copied.ok, failed + copied.failed
        return Copied(ok, failed)

    def _requests(self, journal: Journal) -> Iterator[CopyRequests]:
        requests, size, at = CopyRequests(), 0, 0
        for batch in self.source.chosen(self.is_later, self.file_rows):
            originals = self.first.slice(at, len(batch)).to_pylist()
            at += len(batch)
            for row, original in zip(batch, originals, strict=True):
                if not isinstance(row, Row) or not journal.finished.has_row(original):
                    continue
                if journal.finished.has_row(row.ordinal):
                    continue
                requests.ordinals.append(row.ordinal)
                requests.originals.append(original)
                requests.keys.append(row.key)
                requests.carries.append(row.carry)
                requests.digests.append(asked_digest(self.task, row).hex())
                size += len(row.carry)
            if len(requests.ordinals) >= _COPIED_AT_ONCE or size >= _COPIED_BYTES:
                yield requests
                requests, size = CopyRequests(), 0
        if requests.ordinals:
            yield requests


def find_dedupe(
    source: Source,
    task: Task,
    journal: Journal,
    *,
    table: InputTable,
    batches: Iterator[Sequence[Row | BadRow]],
    asks_begun: bool = False,
) -> Dedupe:
    """Of the rows in `batches`, those that ask what an earlier one of them asks, or what was answered before.

    `asks_begun`: rows with some of their answers are asked for the rest, since votes of two rows are not to mix.
    """
    new = _Asked()
    begun = journal.finished.has_some if asks_begun else None
    new.add_open(task, batches, begun)
    asked = _Asked()
    if (
        len(new) and journal.counts.ok and not journal.is_mixed
    ):  # there an answer may be of another version of the job
        asked.add_known(journal, table.rows, new.prefixes())
    known = len(asked)
    asked.add(new)
    repeats = find_repeats(asked.marks())
    # Repeats among what is answered already are nobody's concern.
    start = _first_at_least(repeats.later, known)
    ordinals = numbers(asked.ordinals, pa.int64())
    later, first = ordinals.take(repeats.later.slice(start)), ordinals.take(repeats.first.slice(start))
    is_later = bytearray(table.rows)
    for piece in range(0, len(later), _COPIED_AT_ONCE):
        for row in later.slice(piece, _COPIED_AT_ONCE).to_pylist():
            is_later[row] = 1
    return Dedupe(source, task, table.file_rows, later, first, is_later)


class _Asked:
    """Eight bytes of what each row asks, and its ordinal."""

    def __init__(self) -> None:
        self.ordinals = array("q")
        self._marks = array("Q")

    def __len__(self) -> int:
        return len(self.ordinals)

    def add(self, other: "_Asked") -> None:
        self.ordinals.extend(other.ordinals)
        self._marks.extend(other._marks)

    def add_known(self, journal: Journal, rows: int, prefixes: pa.Array | None) -> None:
        """What is answered; with `prefixes` only what may be the same as one of these."""
        # With an answer of each lane a row may lack some: it is asked itself.
        is_whole = as_flags(journal.finished.rows(rows), rows)
        for known in journal.known_hashes(prefixes):
            batch = known.filter(is_whole.take(known.column("row")))
            hashes = batch.column("request_hash").to_pylist()
            data = bytes.fromhex(
                "".join([text.ljust(_HASH_CHARS, "0")[: 2 * _MARK_BYTES] for text in hashes])
            )
            self._marks.frombytes(data)
            self.ordinals.extend(batch.column("row").to_pylist())

    def add_open(
        self,
        task: Task,
        batches: Iterator[Sequence[Row | BadRow]],
        leaves_out: Callable[[int], bool] | None = None,
    ) -> None:
        for batch in batches:
            for row in batch:
                if leaves_out is not None and leaves_out(row.ordinal):
                    continue
                self.ordinals.append(row.ordinal)
                self._marks.frombytes(asked_digest(task, row)[:_MARK_BYTES] or _NOTHING)

    def prefixes(self) -> pa.Array | None:
        """The beginnings of the hashes as the record has them; None when they are too many to look each one up."""
        if len(self) > _LOOKED_UP:
            return None
        text, size = self._marks.tobytes().hex(), 2 * _MARK_BYTES
        return pa.array([text[at : at + size] for at in range(0, len(text), size)], pa.string())

    def marks(self) -> Marks:
        values = numbers(self._marks, pa.uint64())
        return Marks(len(values), lambda first, end: values.slice(first, end - first))


def _first_at_least(ascending: pa.Array, least: int) -> int:
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle].as_py() < least:
            low = middle + 1
        else:
            high = middle
    return low
