"""The input that the outcomes belong to: its digest, its stamps, and the marks of its rows.

The marks (see `batchllm.matching`) lie in a file of their own beside the database: eight bytes a row, in order. They
save work and prove nothing, so a file that is lost or cut short is as good as none: every row is then looked up by its
key.
"""

import os
import sqlite3
import uuid
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchllm.journal.database import Database, store_meta
from batchllm.journal.files import Layout, mapped_faults, remove_files, write_new
from batchllm.matching import Marks

_PREFIX = "marks-"
_MARK_BYTES = 8


@dataclass(frozen=True, slots=True)
class InputState:
    """`stamps_json` tells cheaply whether the input is still the same; `marks` is None without a key, and
    `basis` says what they are of.

    `stale`: so many rows have the answer of an earlier version of theirs; their marks are 0. Who stores marks has to
    hold each row that is read from then on to them.
    """

    digest: str
    rows: int
    stamps_json: str
    marks: "array[int] | None" = None
    basis: str = ""
    stale: int = 0


class InputRecord:
    """What the database and the folder hold of it. Used by one thread at a time, between commits."""

    def __init__(self, database: Database, layout: Layout) -> None:
        self._database = database
        self._layout = layout

    @property
    def digest(self) -> str | None:
        return self._database.meta("input_digest")

    @property
    def stamps_json(self) -> str | None:
        return self._database.meta("input_stamps")

    @property
    def rows(self) -> int:
        return int(self._database.meta("input_rows") or 0)

    @property
    def stale(self) -> int:
        return int(self._database.meta("input_stale") or 0)

    @property
    def is_certain(self) -> bool:
        """Whether all that was answered was read from what the marks are of.

        It is where rows are held to their marks as they are read. A record of a version that did not do that is so
        once a run has read the input to its end and found it still the same.
        """
        return self._database.meta("input_read_whole") == "1"

    def store_certain(self) -> None:
        with self._database.transaction() as connection:
            store_meta(connection, "input_read_whole", "1")

    @property
    def basis(self) -> str | None:
        return self._database.meta("input_basis") or None

    def marks(self, basis: str) -> Marks | None:
        """None when they were never kept, are of something else, or are not whole."""
        if self._database.meta("input_basis") != basis:
            return None
        name = self._database.meta("input_marks")
        rows = self.rows
        if not name:
            return None
        path = self._layout.state / name
        if not path.is_file() or path.is_symlink() or path.stat().st_size != rows * _MARK_BYTES:
            return None
        return Marks(rows, lambda first, end: _read(path, first, end))

    def store(self, state: InputState) -> None:
        write = self.prepare(state)
        with self._database.transaction() as connection:
            write(connection)
        self.clear()

    def store_stamps(self, stamps_json: str) -> None:
        with self._database.transaction() as connection:
            store_meta(connection, "input_stamps", stamps_json)

    def prepare(self, state: InputState) -> Callable[[sqlite3.Connection], None]:
        """Write the marks; what it returns makes them, and the rest, the record's, within a transaction."""
        name = ""
        if state.marks is not None:
            name = f"{_PREFIX}{uuid.uuid4().hex}"
            path = self._layout.state / name
            with mapped_faults("write", path):
                write_new(path, memoryview(state.marks).cast("B"), 0o600)

        def write(connection: sqlite3.Connection) -> None:
            store_meta(connection, "input_digest", state.digest)
            store_meta(connection, "input_rows", str(state.rows))
            store_meta(connection, "input_stamps", state.stamps_json)
            store_meta(connection, "input_marks", name)
            store_meta(connection, "input_basis", state.basis)
            store_meta(connection, "input_read_whole", str(int(state.marks is not None)))
            store_meta(connection, "input_stale", str(state.stale))

        return write

    def clear(self) -> None:
        """Away with marks that are nobody's any more."""
        known = self._database.meta("input_marks")
        with suppress(FileNotFoundError):
            remove_files([path for path in self._layout.state.glob(f"{_PREFIX}*") if path.name != known])


def _read(path: Path, first: int, end: int) -> pa.Array:
    with mapped_faults("read", path), path.open("rb", buffering=0) as file:
        file.seek(first * _MARK_BYTES)
        data = file.read((end - first) * _MARK_BYTES)
        if len(data) != (end - first) * _MARK_BYTES:
            raise OSError(os.strerror(5))
    return pa.Array.from_buffers(pa.uint64(), end - first, [None, pa.py_buffer(data)])
