"""Carried values that are to replace others, by row: on disk, because there may be ten million of them.

A scratch file, without a journal and without a sync: when its process dies it is worth nothing. Where a renewal is kept
(see `batchllm.journal.pending`) it becomes a file of that, whole and on the disk.
"""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from batchllm.journal.faults import database_fault
from batchllm.journal.files import mapped_faults, open_new, remove_files, sync

NAME = "carries.tmp"


class Carried(NamedTuple):
    """The carried values of a row, as `batchllm.carry` writes them."""

    row: int
    blob: bytes


class Carries:
    """By the row's old ordinal. To be closed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.is_empty = True
        with mapped_faults("create", self.path):
            remove_files([self.path])
            open(open_new(self.path, 0o600), "wb").close()  # noqa: PTH123 - never over another file, never a link
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.execute("CREATE TABLE carries (row INTEGER PRIMARY KEY, blob BLOB NOT NULL)")

    def add(self, carried: Iterable[Carried]) -> None:
        """Raises StorageError, such as for a full disk."""
        try:
            self._connection.execute("BEGIN")
            added = self._connection.executemany("INSERT OR REPLACE INTO carries VALUES (?, ?)", carried)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error
        self.is_empty &= not added.rowcount

    def between(self, first: int, end: int) -> list[Carried]:
        """Of the rows from `first` up to `end`, in order."""
        return _between(self._connection, self.path, first, end)

    def has(self, first: int, end: int) -> bool:
        """Whether one of them is to carry something else."""
        return bool(_between(self._connection, self.path, first, end, most=1))

    def keep(self, path: Path) -> None:
        """Under this name, on the disk; nothing is added any more."""
        self._connection.close()
        with mapped_faults("write", path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)
            self.path.rename(path)

    def close(self) -> None:
        self._connection.close()
        remove_files([self.path])


def discard_scratch(folder: Path) -> None:
    """What a killed run has left."""
    remove_files([folder / NAME])


class KeptCarries:
    """A file that `Carries.keep` left, for one thread at a time; None: no row carries anything else. To be closed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def between(self, first: int, end: int) -> list[Carried]:
        """Of the rows from `first` up to `end`, in order."""
        if self._path is None:
            return []
        return _between(self._opened(self._path), self._path, first, end)

    def has(self, first: int, end: int) -> bool:
        """Whether one of them is to carry something else."""
        return self._path is not None and bool(
            _between(self._opened(self._path), self._path, first, end, most=1)
        )

    def _opened(self, path: Path) -> sqlite3.Connection:
        if self._connection is None:
            uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
            try:
                self._connection = sqlite3.connect(uri, check_same_thread=False, uri=True)
            except sqlite3.Error as error:
                raise database_fault(error, path) from error
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _between(
    connection: sqlite3.Connection, path: Path, first: int, end: int, most: int = -1
) -> list[Carried]:
    try:
        found = connection.execute(
            "SELECT row, blob FROM carries WHERE row >= ? AND row < ? ORDER BY row LIMIT ?",
            (first, end, most),
        )
        return [Carried(*line) for line in found]
    except sqlite3.Error as error:
        raise database_fault(error, path) from error
