"""Is there still room on the disk for what is in flight?

The system is not asked at each commit: at hundreds of commits a second that is 1 % of what a row costs. It is asked
after so much time or so many bytes, whichever comes first. What can come in between is in the floor: 8 MiB of answers,
once in the WAL and once in the tables. What others write to the disk in a quarter of a second is not; against a
neighbour that fast no floor would help, and a full disk then costs the calls in flight, as it always may.
"""

from collections.abc import Callable
from pathlib import Path

from batchllm.errors import StorageError
from batchllm.journal.files import floor_bytes, full_disk

LOOK_S = 0.25
LOOK_BYTES = 8 << 20


class Space:
    """Of the disk that `out` lies on. `free_bytes` gives what may still be written there, None where nobody knows."""

    def __init__(self, out: Path, free_bytes: Callable[[Path], int | None]) -> None:
        self._out = out
        self._free_bytes = free_bytes
        self._floor_bytes = floor_bytes(out)
        self._looked_s = float("-inf")
        self._grown_bytes = 0

    def note(self, now_s: float, grown_bytes: int) -> StorageError | None:
        """So much more was committed: an error when the disk was looked at and is almost full."""
        self._grown_bytes += grown_bytes
        if now_s - self._looked_s < LOOK_S and self._grown_bytes < LOOK_BYTES:
            return None
        return self.look(now_s)

    def look(self, now_s: float) -> StorageError | None:
        """Stop while there is still room for what is in flight: after the disk is full nothing more can be kept."""
        self._looked_s, self._grown_bytes = now_s, 0
        free = self._free_bytes(self._out)
        if free is None or free >= self._floor_bytes:
            return None
        return full_disk(self._out, f"the disk of {self._out} is almost full")
