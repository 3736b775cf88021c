"""Carried values that are to replace others, by row: on disk, because there may be ten million of them.

A scratch file, without a journal and without a sync: when its process dies it is worth nothing.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from batchllm.journal.database import database_fault
from batchllm.journal.files import mapped_faults, open_new, remove_files

NAME = "carries.tmp"


class Carried(NamedTuple):
    """The carried values of a row, as `batchllm.carry` writes them."""

    row: int
    blob: bytes


class Carries:
    """By the row's old ordinal. To be closed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
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
            self._connection.executemany("INSERT OR REPLACE INTO carries VALUES (?, ?)", carried)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error

    def between(self, first: int, end: int) -> list[Carried]:
        """Of the rows from `first` up to `end`, in order."""
        try:
            found = self._connection.execute(
                "SELECT row, blob FROM carries WHERE row >= ? AND row < ? ORDER BY row", (first, end)
            )
            return [Carried(*line) for line in found]
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error

    def close(self) -> None:
        self._connection.close()
        remove_files([self.path])
