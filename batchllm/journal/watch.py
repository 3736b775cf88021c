"""What else may become of the disk while a run goes on: it is slow, the journal is taken away, its WAL grows.

SQLite goes on writing to a file that has lost its name, and every commit succeeds: only a look at the name tells.
"""

from collections.abc import Callable

from batchllm.errors import StorageError
from batchllm.journal.files import Layout, size_text

_LOOK_S = 0.25
#: An fsync of a healthy disk takes milliseconds; what waits this long holds up the calls.
_SLOW_S = 2.0
#: Reused every 8 MB unless a reader holds it open.
_LARGE_WAL_BYTES = 1 << 30


class Watch:
    """Looks at most every quarter of a second; says each thing once."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._say = say
        self._is_slow_said = self._is_large_said = False
        self._looked_s = float("-inf")
        self._identity = self._found()

    def note(self, now_s: float, took_s: float) -> StorageError | None:
        """A commit took so long; an error when the journal is not where it was any more."""
        if took_s >= _SLOW_S and not self._is_slow_said:
            self._is_slow_said = True
            self._say(
                f"the disk of {self._layout.out} is slow: a commit took {took_s:.0f} s;"
                " no more is sent than it can keep up with"
            )
        if now_s - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now_s
        self._look_at_wal()
        return None if self._found() == self._identity else self._taken_away()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self._layout.database.lstat()
        except OSError:
            return None  # not there, or its folder is not: the same to us
        return found.st_dev, found.st_ino

    def _look_at_wal(self) -> None:
        wal = self._layout.database.with_name(self._layout.database.name + "-wal")
        if self._is_large_said or not wal.exists() or wal.stat().st_size < _LARGE_WAL_BYTES:
            return
        self._is_large_said = True
        self._say(
            f"{wal} has grown to {size_text(_LARGE_WAL_BYTES)}: another program has the journal open and keeps it from"
            " being reused; close that program"
        )

    def _taken_away(self) -> StorageError:
        path = self._layout.database
        return StorageError(
            f"{path} was moved, removed or replaced while the run went on",
            remedy="if the folder was moved, move it back and start again: nothing is paid twice; if it was removed,"
            " its answers went with it, and a new start pays for them again",
        )
