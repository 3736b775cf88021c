"""How far the journal had come, told beside it: a number that no commit waits for.

What a WAL held and lost leaves no trace in the rest of the journal: with the end of it cut off, or the whole of it
removed, the journal is an earlier one and just as valid. So after each commit of answers the highest numbers of lines
are noted in a file of their own, in place and without fsync. It survives the death of the process. A power cut may
leave an earlier note, or none; never a later one than what was on the disk, so that it accuses nobody wrongly.
"""

import os
import sqlite3
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from batchllm.errors import StorageError
from batchllm.journal.files import Layout

_NOTE = struct.Struct("<QI")
#: Numbers of lines never come back, so that their sum only grows.
LINES = "SELECT CAST(total(seq) AS INTEGER) FROM sqlite_sequence"


class Witness:
    """Of one journal; the file is made with the first note."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.witness
        self._descriptor: int | None = None

    def note(self, lines: int) -> None:
        """After the commit. What the disk does not take is no loss: the commits themselves will say what is wrong."""
        with suppress(OSError):
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, _noted(lines), 0)

    def remove(self) -> None:
        """At a clean end: from here on the tables hold it all. A file that stays tells nothing that is wrong."""
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _noted(lines: int) -> bytes:
    number = lines.to_bytes(8, "little")
    return _NOTE.pack(lines, zlib.crc32(number))


def lines_seen(path: Path) -> int:
    """0 where nothing was noted, or nothing that can be read."""
    try:
        noted = path.read_bytes()
    except OSError:
        return 0
    if len(noted) != _NOTE.size:
        return 0
    lines = int.from_bytes(noted[:8], "little")
    return lines if _noted(lines) == noted else 0


def check_witness(connection: sqlite3.Connection, layout: Layout) -> None:
    """Raises StorageError where the journal had come further than it is."""
    seen = lines_seen(layout.witness)
    if seen:
        check_lines_seen(seen, connection.execute(LINES).fetchone()[0], layout.database)


def check_lines_seen(seen: int, lines: int, database: Path) -> None:
    if seen > lines:
        raise StorageError(
            f"{database} has lost what was committed to it, {seen - lines:,} lines of answers and calls or more:"
            f" {database.name}-wal was cut, damaged or removed, or an older copy was put in its place",
            remedy="put back the whole .batchllm folder as the last run left it; or copy it as it is, then run"
            " `batchllm rebuild JOB`: it keeps what is there, and what is lost is asked, and paid for, again;"
            " nothing was changed",
        )
