"""A changed input on an existing record: which rows are new, changed, gone or the same, and the record for it.

Rows are known by their key. First by their marks (see `batchllm.matching`): equal marks, equal rows, wherever they
stand. Only what is left is read: its key finds the outcome that there is, and the digest of what it asks decides
whether that outcome is still the row's. So a million known rows cost a second, and ten million that moved cost no
more memory than their marks.

Nothing is sent here and nothing is paid. What leaves the record is what its rows no longer ask.
"""

from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal import Carried, Carries, Changed, InputState, Journal, Renewal
from batchllm.matching import Marks, Matches, Places, match_marks, places_of
from batchllm.plan import asked_digest
from batchllm.ports import Marked, Source, Task
from batchllm.records import Key, Row
from batchllm.source.keys import KeyIndex
from batchllm.source.rows import KeylessRow

_CHUNK_ROWS = 1 << 18
_CHUNK_BYTES = 64 << 20
_LISTED_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of the new input, and those that are gone. `kept`: changed ones that keep the outcome they had."""

    new: int
    changed: int
    kept: int
    removed: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class Backfill:
    """What is needed to compare an input with the one before. `keeps_changed`: send nothing that has an outcome."""

    source: Source
    task: Task
    journal: Journal
    marked: Marked
    stamps_json: str
    keeps_changed: bool = False
    trusts_marks: bool = True

    def take_up(self) -> Changes:
        """Make the record that of the input. Raises InputDataError for missing and repeated keys."""
        # In a record of several versions of the job a digest may be of another version, and tells nothing.
        is_blind = self.journal.is_mixed
        with closing(self.journal.carries()) as carries:
            found = self._found(carries, keeps_changed=self.keeps_changed or is_blind)
            places = found.all_places()
            old_rows = self.journal.input_rows
            was_finished = as_flags(self.journal.finished.rows(old_rows), old_rows)
            removed = pc.sum(was_finished.take(places.gone())).as_py() or 0
            stale = array("q") if is_blind else found.kept_rows
            self.journal.renew(Renewal(places, carries, found.all_changed()), self._state(stale))
        kept = len(found.kept_rows)
        new = self.marked.rows - found.unchanged - found.changed - kept
        return Changes(new, found.changed, kept, max(0, removed - found.changed), found.unchanged)

    def _found(self, carries: Carries, *, keeps_changed: bool) -> "_Found":
        """Where all rows are. What is needed for that alone is given back: at ten million rows 100 MB."""
        old_rows = self.journal.input_rows
        old_marks = self.journal.input_marks(self.marked.basis) if self.trusts_marks else None
        matches = match_marks(old_marks or NO_MARKS, marks_of(self.marked.marks))
        wanted = _wanted(matches, as_flags(self.journal.finished.rows(old_rows), old_rows))
        self.source.hold_to(marks_of(self.marked.marks))
        found = _Found(self.journal, places_of(matches, old_rows), carries, keeps_changed)
        found.unchanged = matches.rows
        del matches  # 40 MB at ten million rows
        pa.default_memory_pool().release_unused()
        keys = KeyIndex()
        for chunk in self._chunks(wanted, keys):
            found.look_up(chunk)
        if found.is_twice or next(keys.suspects(), None) is not None:
            self._refuse_repeats()
        return found

    def _state(self, stale: "array[int]") -> InputState:
        """The marks of stale rows say nothing, so that the next comparison looks them up."""
        marks = self.marked.marks
        for row in stale:
            marks[row] = 0
        return InputState(
            self.marked.digest, self.marked.rows, self.stamps_json, marks, self.marked.basis, len(stale)
        )

    def _refuse_repeats(self) -> None:
        """The scan of the whole input names the rows; it ends here when there are none."""
        self.source.scan()

    def _chunks(self, wanted: bytearray, keys: KeyIndex) -> Iterator["_Chunk"]:
        """What is to be looked up; `keys` gets its keys. The other rows had keys of their own before."""
        chunk = _Chunk()
        for batch in self.source.chosen(wanted, self.marked.file_rows):
            for row in batch:
                if isinstance(row, KeylessRow):
                    self._refuse_repeats()
                if isinstance(row, Row) and row.key is not None:
                    chunk.add(row.ordinal, row.key, asked_digest(self.task, row), row.carry)
            keys.add([row.key for row in batch if isinstance(row, Row)])
            if chunk.is_full:
                yield chunk
                chunk = _Chunk()
        if chunk.ordinals:
            yield chunk


@dataclass(slots=True)
class _Chunk:
    """Rows that are looked up together."""

    ordinals: "array[int]" = field(default_factory=lambda: array("q"))
    keys: list[Key] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    carries: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes

    def add(self, ordinal: int, key: Key, digest: bytes, carry: bytes) -> None:
        self.ordinals.append(ordinal)
        self.keys.append(key)
        self.digests.append(digest)
        self.carries.append(carry)
        self.size += len(carry) + (len(key) if isinstance(key, str) else 8)

    @property
    def is_full(self) -> bool:
        return len(self.ordinals) >= _CHUNK_ROWS or self.size >= _CHUNK_BYTES


class _Found:
    """What the record holds under the keys that are asked for."""

    def __init__(self, journal: Journal, places: Places, carries: Carries, keeps_changed: bool) -> None:
        self._journal = journal
        self._places = places
        self._carries = carries
        self._keeps_changed = keeps_changed
        self._old, self._new = array("q"), array("q")
        self._changed_old, self._changed_new = array("q"), array("q")
        self._carried: list[Carried] = []
        self.unchanged = 0
        self.kept_rows = array("q")
        self.is_twice = False  # a key stands in a row that was found by its mark, and in another one

    def look_up(self, chunk: _Chunk) -> None:
        keys = self._journal.key_column(chunk.keys)
        known: dict[int, tuple[int, set[str]]] = {}
        for batch in self._journal.known_rows(keys):
            rows = batch.column("row")
            lines = zip(
                pc.index_in(batch.column(0), value_set=keys).to_pylist(),
                rows.to_pylist(),
                batch.column("request_hash").to_pylist(),
                self._places.of(rows).to_pylist(),
                strict=True,
            )
            for index, row, digest, place in lines:
                if place is not None:
                    self.is_twice |= place != chunk.ordinals[index]
                    continue
                first_row, digests = known.setdefault(index, (row, set()))
                if row == first_row:
                    digests.add(digest)
        for index, (row, digests) in known.items():
            self._judge(chunk, index, row, digests)
        self._carries.add(self._carried)
        self._carried = []
        pa.default_memory_pool().release_unused()

    def _judge(self, chunk: _Chunk, index: int, old_row: int, digests: set[str]) -> None:
        """`digests` of all that the record holds for the row: each lane may have been asked another version of it."""
        is_same = digests == {chunk.digests[index].hex()}
        if not is_same and not self._keeps_changed:
            self._changed_old.append(old_row)
            self._changed_new.append(chunk.ordinals[index])
            return
        if is_same:
            self.unchanged += 1
        else:
            self.kept_rows.append(chunk.ordinals[index])
        self._old.append(old_row)
        self._new.append(chunk.ordinals[index])
        self._carried.append(Carried(old_row, chunk.carries[index]))

    @property
    def changed(self) -> int:
        return len(self._changed_old)

    def all_changed(self) -> Changed:
        return Changed(numbers(self._changed_old, pa.int64()), numbers(self._changed_new, pa.int64()))

    def all_places(self) -> Places:
        return self._places.with_pairs(numbers(self._old, pa.int64()), numbers(self._new, pa.int64()))


NO_MARKS = Marks(0, lambda _first, _end: pa.nulls(0, pa.uint64()))


def marks_of(marks: "array[int]") -> Marks:
    values = numbers(marks, pa.uint64())
    return Marks(len(marks), lambda first, end: values.slice(first, end - first))


def numbers(values: "array[int]", kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def as_flags(bits: bytearray, count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), count, [None, pa.py_buffer(bits)])


def _wanted(matches: Matches, was_finished: pa.Array) -> bytearray:
    """A byte for each new row: 1 where it has to be looked up, because it is unknown or has no outcome yet."""
    wanted = bytearray(matches.head + len(matches.tail))
    _set(wanted, matches.unmatched())
    if not pc.all(was_finished).as_py():
        _set(wanted, pc.indices_nonzero(pc.invert(was_finished.slice(0, matches.head))))
        is_open = pc.invert(was_finished.take(matches.tail))
        _set(wanted, pc.add(pc.indices_nonzero(is_open).cast(pa.int64()), matches.head))
    return wanted


def _set(wanted: bytearray, rows: pa.Array) -> None:
    for start in range(0, len(rows), _LISTED_ROWS):
        for row in rows.slice(start, _LISTED_ROWS).to_pylist():
            wanted[row] = 1


def open_rows(finished: bytearray, rows: int, limit: int | None) -> bytearray:
    """A byte for each of `rows` rows: 1 where the bit in `finished` is not set, among the first `limit`."""
    flags = pc.invert(as_flags(finished, rows)).cast(pa.uint8())
    wanted = bytearray(flags.buffers()[1] or b"")[:rows]
    if limit is not None and limit < rows:
        wanted[limit:] = bytes(rows - limit)
    return wanted


def ones(wanted: bytearray) -> Iterator[int]:
    """Where it is 1, lowest first; what was passed may be changed meanwhile."""
    at = wanted.find(1)
    while at >= 0:
        yield at
        at = wanted.find(1, at + 1)
