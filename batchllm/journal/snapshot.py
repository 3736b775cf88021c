"""The journal as it lies there, for looking at it: nothing in the output folder is written, not even by SQLite.

A WAL that holds something has to be played back, for which SQLite writes beside the file. So file and WAL are copied
into the system's temporary folder first; the journal is bounded, and so is the copy. Without one the file is read
where it is.
"""

import base64
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa

from batchllm.errors import ChangedJobError
from batchllm.journal.checksums import FIRST_FORMAT, know_checksums
from batchllm.journal.database import Counts
from batchllm.journal.faults import damaged, database_fault
from batchllm.journal.files import KINDS, Kind, Layout, mapped_faults, wal_of
from batchllm.journal.opening import APPLICATION_ID, FORMAT, check_lines
from batchllm.journal.parts import Intent, PartInfo
from batchllm.journal.slots import Slots
from batchllm.journal.tables import checksum
from batchllm.journal.wal import find_break, mend
from batchllm.journal.witness import LINES, check_lines_seen, lines_seen
from batchllm.records import LaneInfo

_CHUNK_LINES = 256


class Snapshot:
    """An open journal that is only read. Made by `opened`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [line for chunk in self._chunks(sql, values) for line in chunk]

    def _chunks(self, sql: str, values: Sequence[object] = ()) -> Generator[list[tuple[Any, ...]]]:
        try:
            with closing(self._connection.execute(sql, values)) as found:
                while lines := found.fetchmany(_CHUNK_LINES):
                    yield lines
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        for chunk in self._chunks(sql):
            yield from chunk

    def check(self) -> None:
        """Raises StorageError for a damaged or foreign file, ChangedJobError for a newer one."""
        if self.rows("PRAGMA application_id") != [(APPLICATION_ID,)]:
            raise damaged(self.path, "it is not a journal of batchllm")
        said = [str(text) for (text,) in self.rows("PRAGMA quick_check(3)")]
        if said != ["ok"]:
            raise damaged(self.path, "; ".join(said))
        version = self.rows("PRAGMA user_version")[0][0]
        if not 1 <= version <= FORMAT:
            raise ChangedJobError(
                f"{self.path} has journal format {version}; this version of batchllm reads formats up to {FORMAT}",
                remedy="use the version of batchllm that made it",
            )
        if version >= FIRST_FORMAT:
            self._check_lines()

    def _check_lines(self) -> None:
        try:
            check_lines(self._connection, self.path)
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error

    def meta(self, name: str) -> str | None:
        found = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return None if not found else str(found[0][0])

    def counts(self) -> Counts:
        there = {name for _, name, *_ in self.rows("PRAGMA table_info(totals)")}
        names = [name for name in Counts._fields if name in there]  # an older format counts less
        found = self.rows(f"SELECT {', '.join(names)} FROM totals")  # noqa: S608 - our own names
        if not found:
            raise damaged(self.path, "its totals are missing")
        return Counts(**dict(zip(names, found[0], strict=True)))

    def check_witness(self, layout: Layout) -> None:
        """Raises StorageError where it had come further than it is."""
        if seen := lines_seen(layout.witness):
            check_lines_seen(seen, self.rows(LINES)[0][0], self.path)

    @property
    def lost_usage(self) -> Counts:
        """What the totals know of attempts whose part in usage/ was given up."""
        text = self.meta("lost_usage")
        return Counts() if text is None else Counts(**orjson.loads(text))

    @property
    def input_rows(self) -> int | None:
        """None until an input has been read."""
        told = self.meta("input_rows")
        return None if told is None else int(told)

    @property
    def is_complete(self) -> bool:
        return self.meta("complete") == "1"

    @property
    def of_row(self) -> Slots:
        lanes = [str(name) for name in orjson.loads(self.meta("slot_lanes") or "[]")]
        return Slots.of(lanes, int(self.meta("slots") or 1))

    @property
    def lanes(self) -> tuple[LaneInfo, ...]:
        found = self.rows("SELECT name, provider, model, simulated FROM lanes ORDER BY lane")
        return tuple(LaneInfo(name, provider, model, bool(flag)) for name, provider, model, flag in found)

    def schema(self, kind: Kind) -> pa.Schema | None:
        text = self.meta(f"columns_{kind}")
        return None if text is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))

    def parts(self, kind: Kind) -> list[PartInfo]:
        """Committed ones, in the order of their names."""
        found = self.rows(
            "SELECT part, kind, name, rows, bytes, sha256, min_row, max_row FROM parts"
            " WHERE state = 'committed' AND kind = ? ORDER BY part",
            (kind,),
        )
        return [PartInfo(*line) for line in found]

    def retired(self) -> set[str]:
        """Paths in the output folder, of files that the next start removes."""
        return {
            f"{kind}/{name}"
            for kind, name in self.rows("SELECT kind, name FROM parts WHERE state = 'retired'")
        }

    def intents(self) -> list[Intent]:
        """Parts that were being written when the run before was killed."""
        found = self.rows("SELECT part, kind, name, hi_seq FROM parts WHERE state = 'intent'")
        return [Intent(*line) for line in found]

    def answers(self) -> Iterator[tuple[int, int, bool]]:
        """Row, slot, and whether the checksum fits, of the answers that are in no part yet."""
        sql = "SELECT row, slot, carry, answer, crc FROM results ORDER BY row, slot"
        for chunk in self._chunks(sql):
            for row, slot, carry, answer, crc in chunk:
                yield row, slot, checksum(carry, answer) == crc

    def failure_lines(self) -> list[tuple[int, int]]:
        """Row and slot, -1 for a failure that speaks for all lanes."""
        return [(row, slot) for row, slot in self.rows("SELECT row, slot FROM failures ORDER BY row, slot")]

    def skipped_lines(self) -> list[tuple[int, int]]:
        """Row and slot; none in a journal of an older format."""
        if not self.has_table("skipped"):
            return []
        return [(row, slot) for row, slot in self.rows("SELECT row, slot FROM skipped ORDER BY row, slot")]

    def has_table(self, name: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def usage(self) -> Counts:
        """Sums over the attempts that are in no part yet."""
        sums = self.rows(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0),"
            " coalesce(sum(cost_usd), 0.0), count(*) FILTER (WHERE cost_usd IS NULL AND billed = 'yes'),"
            " count(*) FILTER (WHERE billed = 'unknown') FROM attempts"
        )[0]
        return Counts(0, 0, *sums)

    def part_names(self) -> set[str]:
        """Of all parts that it knows, whatever their state, as paths in the output folder."""
        return {f"{part.kind}/{part.name}" for kind in KINDS for part in self.parts(kind)} | self.retired()


@contextmanager
def opened(layout: Layout) -> Iterator[Snapshot | None]:
    """The journal in `layout`, checked; None where there is none. Raises StorageError, ChangedJobError."""
    path = layout.database
    with ExitStack() as stack:
        with mapped_faults("read", path):
            is_there = path.is_file() and not path.is_symlink()
            snapshot = Snapshot(_connected(path, stack), path) if is_there else None
        if snapshot is not None:
            snapshot.check()
        yield snapshot


def _connected(path: Path, stack: ExitStack) -> sqlite3.Connection:
    if path.stat().st_size == 0:
        raise damaged(path, "it is empty")
    wal = wal_of(path)
    readable, mode = path, "mode=ro&immutable=1"
    if wal.exists() and wal.stat().st_size:
        readable = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchllm-"))) / path.name
        shutil.copyfile(path, readable)
        copied = readable.with_name(wal.name)
        shutil.copyfile(wal, copied)
        if (found := find_break(path)) is not None:
            mend(copied, found.flips)
        mode = "mode=rw"
    try:
        connection = stack.enter_context(
            closing(
                sqlite3.connect(
                    f"file:{quote(str(readable.absolute()))}?{mode}", isolation_level=None, uri=True
                )
            )
        )
        know_checksums(connection)
    except sqlite3.Error as error:
        raise database_fault(error, path) from error
    return connection


def totals_differ(said: Counts, found: Counts) -> str | None:
    """In words; None when they are the same, money to a millionth."""
    for name in Counts._fields:
        here, there = getattr(said, name), getattr(found, name)
        tolerance = 1e-6 * max(1.0, abs(there)) if name == "cost_usd" else 0
        if abs(here - there) > tolerance:
            return f"{name.replace('_', ' ')}: {here:,} are counted, {there:,} are there"
    return None
