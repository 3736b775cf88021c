"""What one pass over the input finds out before anything is spent: how many rows, which bytes, and faulty keys.

A bad line is no fault of the scan: it becomes a failure of its row in the run, and is counted here. Keys that are
missing or occur twice are faults of the input as a whole, for no answer could be told apart by them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Key, Row
from batchllm.source.columns import shown
from batchllm.source.files import FileStamp
from batchllm.source.keys import KeyIndex
from batchllm.source.rows import KeylessRow

_LISTED = 10

Batches = Callable[[], Iterator[Sequence[Row | BadRow]]]
Places = Callable[[frozenset[int]], Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class Scan:
    """`rows` counts bad ones too; `digest` (hex sha256) is of all bytes; `files` is empty for frames."""

    rows: int
    digest: str
    files: tuple[FileStamp, ...] = ()
    bad_rows: int = 0

    @property
    def file_rows(self) -> tuple[int, ...]:
        """How many rows each file holds."""
        return tuple(file.rows or 0 for file in self.files)


class Tally:
    """Counts rows and gathers keys, batch by batch."""

    def __init__(self, key: str | None, index: KeyIndex | None = None) -> None:
        self.rows = 0
        self.bad_rows = 0
        self._key = key
        self._index = KeyIndex() if index is None else index
        self._keyless: list[KeylessRow] = []
        self._keyless_rows = 0

    def add(self, batch: Sequence[Row | BadRow]) -> None:
        self.rows += len(batch)
        good = [row.key for row in batch if isinstance(row, Row)]
        if len(good) < len(batch):
            self._add_bad([row for row in batch if isinstance(row, BadRow)])
        if self._key is not None:
            self._index.add(good)

    def _add_bad(self, rows: Iterable[BadRow]) -> None:
        for row in rows:
            self.bad_rows += 1
            if isinstance(row, KeylessRow):
                self._keyless_rows += 1
                if len(self._keyless) < _LISTED:
                    self._keyless.append(row)

    def check_keys(self, batches: Batches, places: Places) -> None:
        """Raise InputDataError for missing and repeated keys; `batches` starts the input again."""
        if self._key is None:
            return
        faults = []
        if self._keyless:
            listed = [f"{row.place}: {row.message}" for row in self._keyless]
            faults.append(_listing(f"rows without a key: {self._keyless_rows:,}", listed, self._keyless_rows))
        repeats = self._first_repeats(self._key, batches)
        if repeats:
            faults.append(_say_repeats(self._key, repeats, places))
        if faults:
            raise InputDataError(
                "\n".join(faults),
                remedy=f'give each row a value of its own in "{self._key}", or leave input.key out: rows are then '
                "known by their position",
            )

    def _first_repeats(self, key: str, batches: Batches) -> list["_Repeat"]:
        """Equal hashes of unequal keys are possible, so the next suspects are asked until one is guilty."""
        for suspects in self._index.suspects():
            first: dict[Key, tuple[int, object]] = {}
            repeats: list[_Repeat] = []
            for row in _rows(batches()):
                if not self._index.is_suspect(row.key, suspects):
                    continue
                now = (row.ordinal, row.values.get(key))
                before = first.setdefault(row.key, now)
                if before is not now:
                    repeats.append(_Repeat(before, now))
                    if len(repeats) > _LISTED:
                        return repeats
            if repeats:
                return repeats
        return []


@dataclass(frozen=True, slots=True)
class _Repeat:
    """Ordinal and value, as the input has it, of a key's first row and of a later one."""

    before: tuple[int, object]
    now: tuple[int, object]

    @property
    def is_mixed(self) -> bool:
        return type(self.before[1]) is not type(self.now[1])

    def text(self, places: Mapping[int, str]) -> str:
        first, second = places[self.before[0]], places[self.now[0]]
        if self.is_mixed:
            return f"{first} ({shown(self.before[1])}) and {second} ({shown(self.now[1])})"
        return f"{first} and {second}: {shown(self.now[1])}"


def _say_repeats(key: str, repeats: Sequence[_Repeat], places: Places) -> str:
    listed = repeats[:_LISTED]
    found = places(frozenset(at for repeat in listed for at in (repeat.before[0], repeat.now[0])))
    lines = [repeat.text(found) for repeat in listed]
    text = _listing(f'several rows have the same key in "{key}"', lines, len(repeats))
    if any(repeat.is_mixed for repeat in listed):
        text += "\n  (a number and a text that read alike are one key)"
    return text


def _rows(batches: Iterable[Sequence[Row | BadRow]]) -> Iterator[Row]:
    for batch in batches:
        for row in batch:
            if isinstance(row, Row):
                yield row


def _listing(title: str, lines: Sequence[str], total: int) -> str:
    more = ["…"] if total > len(lines) else []
    return "\n  ".join([f"{title}:", *lines, *more])


def first_rows(batches: Iterator[Sequence[Row | BadRow]], most: int) -> list[Row]:
    found: list[Row] = []
    if most > 0:
        for row in _rows(batches):
            found.append(row)
            if len(found) == most:
                break
    return found
