"""From the journal into parts, a slice at a time, so that commits never wait for a whole part.

Lines up to a number that is fixed at the start are read in the order that the part has, at most 2048 lines or 2 MiB
at a time, and the drain hands control back after each slice. Usage has no index by row (one would cost more than
it saves): its lines are small, so they are sorted in memory.
"""

from collections.abc import Generator, Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import FullDiskError, InvariantError
from batchllm.journal.files import KINDS, Kind
from batchllm.journal.parts import SOURCE_TABLE, Draft, Intent, Store, abandon_all, publish
from batchllm.journal.tables import SELECTED, Line

_BYTES_OF: dict[Kind, str] = {
    "output": "length(answer) + length(carry) + coalesce(length(body), 0)",
    "failures": "length(message) + coalesce(length(content), 0) + coalesce(length(body), 0)",
    "usage": "0",
    "skipped": "0",
}
#: Positions in `SELECTED` of what may be large.
_WEIGHED: dict[Kind, tuple[int, ...]] = {
    "output": (5, 6, 16),
    "failures": (6, 10, 11),
    "usage": (),
    "skipped": (),
}


#: So many times what a drain waits for may gather while a renewal is pending: 256 MiB of answers.
_CROWD = 4


class Drains:
    """At most one drain at a time. `step` is called between commits, by the thread that commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[Kind, int] = {}
        self._bytes: dict[Kind, int] = {}
        self._running: Generator[None] | None = None
        for kind in KINDS:
            self._rows[kind], self._bytes[kind] = store.database.rows(
                f"SELECT count(*), CAST(total({_BYTES_OF[kind]}) AS INTEGER) FROM {SOURCE_TABLE[kind]}"  # noqa: S608
            )[0]

    @property
    def is_due(self) -> bool:
        return self._running is not None or self._due() is not None

    @property
    def is_crowded(self) -> bool:
        """Whether so many lines have gathered, while nothing could be drained, that no more should come."""
        sizes = self._store.sizes
        return any(
            self._rows[kind] >= _CROWD * sizes.drain_rows or self._bytes[kind] >= _CROWD * sizes.drain_bytes
            for kind in KINDS
        )

    @property
    def has_lines(self) -> bool:
        return any(self._rows.values())

    def note(self, kind: Kind, rows: int, size: int = 0) -> None:
        """So much more is in the journal."""
        self._rows[kind] += rows
        self._bytes[kind] += size

    def step(self) -> None:
        """One slice of the drain that is running or due."""
        if self._running is None:
            kind = self._due()
            if kind is None:
                return
            self._running = self._drain(kind)
        self._advance(self._running)

    def drain_all(self) -> None:
        """Everything into parts, to the last line."""
        while self._running is not None:
            self.step()
        for kind in KINDS:
            while self._rows[kind]:
                for _ in self._drain(kind):
                    pass

    def cancel(self) -> None:
        """Leave the drain that is running; its lines stay in the journal."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _advance(self, running: Generator[None]) -> None:
        try:
            next(running)
        except StopIteration:
            self._running = None
        except BaseException:
            self._running = None
            raise

    def _due(self) -> Kind | None:
        sizes = self._store.sizes
        for kind in KINDS:
            if self._rows[kind] >= sizes.drain_rows or self._bytes[kind] >= sizes.drain_bytes:
                return kind
        return None

    def _drain(self, kind: Kind) -> Generator[None]:
        store = self._store
        rows, size = self._rows[kind], self._bytes[kind]
        intent = store.intend(kind, self._hi_seq(kind))
        is_committing = False
        try:
            draft = Draft(store, intent)
            try:
                for batch in _batches(store, intent):
                    draft.add(batch)
                    yield
                sealed = draft.seal()
            finally:
                draft.close()
            publish(store, [sealed])
            is_committing = True
            store.commit([sealed])
        except BaseException as error:
            # A commit that failed may still be found committed by the next start, so its file must stay; one that the
            # disk had no space for was undone.
            if not is_committing or isinstance(error, FullDiskError):
                abandon_all(store, [intent])
            raise
        pa.default_memory_pool().release_unused()
        self._rows[kind] -= sealed.rows
        # The share of what was there at the start: lines that came in meanwhile are still to be drained.
        self._bytes[kind] -= size if sealed.rows >= rows else int(size * sealed.rows / rows)

    def _hi_seq(self, kind: Kind) -> int:
        """The last line of one part: not more than what a drain waits for, however much is there."""
        least, most = self._store.database.rows(
            f"SELECT min(seq), max(seq) FROM {SOURCE_TABLE[kind]}"  # noqa: S608
        )[0]
        if most is None:
            raise InvariantError(
                f"{self._rows[kind]} lines of {kind} are counted, and none is in {self._store.layout.database}",
                remedy="if another program has written to it, `batchllm verify JOB` says what is wrong, and `batchllm"
                " rebuild JOB` makes a new one; else this is a bug",
            )
        return int(min(most, least + self._store.sizes.drain_rows - 1))


def _batches(store: Store, intent: Intent) -> Iterator[pa.RecordBatch]:
    if intent.kind == "usage":
        yield from _sorted_usage(store, intent)
        return
    selected, table = SELECTED[intent.kind], SOURCE_TABLE[intent.kind]
    # The plus keeps SQLite from looking lines up by `seq` and sorting all of them again for each slice.
    sql = (
        f"SELECT {selected} FROM {table} WHERE +seq <= ? AND (row, slot) > (?, ?)"  # noqa: S608
        " ORDER BY row, slot LIMIT ?"
    )
    place: tuple[int, int] | None = (-1, -1)
    while place is not None:
        lines = _slice(store, intent.kind, sql, (intent.hi_seq, *place))
        place = (lines[-1][1], lines[-1][2]) if lines else None
        yield store.tables.batch(intent.kind, lines)


def _sorted_usage(store: Store, intent: Intent) -> Iterator[pa.RecordBatch]:
    sql = f"SELECT {SELECTED['usage']} FROM attempts WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"  # noqa: S608
    found: list[pa.RecordBatch] = []
    last: int | None = 0
    while last is not None:
        lines = _slice(store, "usage", sql, (last, intent.hi_seq))
        last = lines[-1][0] if lines else None
        found.append(store.tables.batch("usage", lines))
        yield found[-1].slice(0, 0)
    table = pa.Table.from_batches(found)
    found.clear()
    order = pc.sort_indices(table.column("row"))
    for start in range(0, table.num_rows, store.sizes.slice_rows):
        lines = table.take(order.slice(start, store.sizes.slice_rows))
        yield lines.combine_chunks().to_batches()[0]


def _slice(store: Store, kind: Kind, sql: str, values: tuple[int, ...]) -> list[Line]:
    """So many lines as fit the bounds; a single line may be larger than they are."""
    sizes, weighed = store.sizes, _WEIGHED[kind]
    lines: list[Line] = []
    size = 0
    with closing(store.database.chunks(sql, (*values, sizes.slice_rows))) as chunks:
        for chunk in chunks:
            lines += chunk
            for position in weighed:
                size += sum([len(line[position] or "") for line in chunk])
            if size >= sizes.slice_bytes:
                break
    return lines
