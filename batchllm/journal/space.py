"""Is there still room on the disk for what is in flight? If not, the run pauses until there is.

The system is not asked at each commit: at hundreds of commits a second that is 1 % of what a row costs. It is asked
after so much time or so many bytes, whichever comes first. What can come in between is in the floor: 8 MiB of answers,
once in the WAL and once in the tables. What others write to the disk in a quarter of a second is not; against a
neighbour that fast there is the ballast, which is given up once a commit finds the disk full.

While space is short nothing new is sent; what comes home is kept. The disk is looked at every second, and the run goes
on by itself, or ends with an error when its patience is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchllm.errors import FullDiskError
from batchllm.journal.ballast import Ballast
from batchllm.journal.files import Layout, ballast_bytes, floor_bytes, full_disk, lacks_inodes, size_text
from batchllm.journal.spill import spill_folder

LOOK_S = 0.25
LOOK_BYTES = 8 << 20
#: Between what pauses a run and what lets it go on, so that it does neither every second.
_MARGIN = 1.25


def _silence(_text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class DiskRules:
    """How long to wait for space (0: not at all), what to hold in reserve, whom to tell, and where to go at last."""

    wait_s: float = 0.0
    ballast_bytes: int = 0
    say: Callable[[str], None] = _silence
    spill: Path | None = None

    @classmethod
    def of(
        cls, out: Path, *, wait_s: float, say: Callable[[str], None], environ: Mapping[str, str]
    ) -> "DiskRules":
        return cls(wait_s, ballast_bytes(out), say, spill_folder(environ))


class Space:
    """Of the disk that `layout` lies on. `free_bytes` gives what may still be written, None where nobody knows."""

    def __init__(self, layout: Layout, free_bytes: Callable[[Path], int | None], rules: DiskRules) -> None:
        self._layout = layout
        self._out = layout.out
        self._free_bytes = free_bytes
        self._rules = rules
        self._ballast = Ballast(layout.ballast, rules.ballast_bytes)
        self._has_ballast = False
        self._floor_bytes = floor_bytes(layout.out)
        self._look_bytes = min(LOOK_BYTES, self._floor_bytes // 5)
        self._looked_s = float("-inf")
        self._grown_bytes = 0
        self._shortage: FullDiskError | None = None
        self._short_since_s = 0.0
        self._needed_bytes = 0
        self._is_refused = False  # the last commit was, whatever is said to be free

    @property
    def is_short(self) -> bool:
        return self._shortage is not None

    @property
    def patient_until_s(self) -> float | None:
        """When the run ends for want of space; None while there is enough. Callable from any thread."""
        return self._short_since_s + self._rules.wait_s if self._shortage is not None else None

    def start(self, now_s: float) -> None:
        """Before anything is asked: refuse a disk that is almost full, else take the ballast if it fits beside."""
        self._ballast.drop()
        free = self._look_at(now_s)
        if free is not None and free < self._floor_bytes:
            raise self._almost_full(self._enough_bytes)
        if free is None or free >= self._enough_bytes + self._ballast.size:
            self._take_ballast()

    def stop(self) -> None:
        self._ballast.drop()

    def note(self, now_s: float, grown_bytes: int) -> FullDiskError | None:
        """So much more was committed; what `look` says if it is time to look."""
        self._is_refused = False
        self._grown_bytes += grown_bytes
        if now_s - self._looked_s < LOOK_S and self._grown_bytes < self._look_bytes:
            return None
        return self.look(now_s)

    def look(self, now_s: float) -> FullDiskError | None:
        """Pause, go on, or, once space has been short for too long, an error."""
        free = self._look_at(now_s)
        has_enough = free is None or free >= self._needed_bytes
        if self._shortage is not None and has_enough and not self._is_refused and not lacks_inodes(self._out):
            self._go_on(free)
        if self._shortage is None and free is not None:
            if free < self._floor_bytes:
                self._pause(now_s, self._almost_full(self._enough_bytes), self._enough_bytes)
            elif not self._has_ballast and free >= self._enough_bytes + self._ballast.size:
                self._take_ballast()
        return self._error(now_s)

    def meet_full(self, now_s: float, error: FullDiskError) -> bool:
        """A commit found the disk full: pause. Whether it may be tried again at once.

        A quota is in no figure of what is free, so the run does not go on before a commit has gone through.
        """
        self._is_refused = True
        had_ballast, self._has_ballast = self._has_ballast, False
        has_room = had_ballast and self._ballast.drop()
        self._pause(now_s, error, self._enough_bytes + self._ballast.size)
        return has_room

    def meet_full_part(self, now_s: float, error: FullDiskError) -> None:
        """A part did not fit: pause. Its rows are in the journal, so that the ballast is not for it.

        With what is free now it has failed, so there must be more before it is tried again: more files where no more
        could be created, else more bytes.
        """
        free = 0 if lacks_inodes(self._out) else self._free_bytes(self._out) or 0
        self._pause(now_s, error, max(self._enough_bytes, int(free * _MARGIN)))

    def demand(self, now_s: float, needed_bytes: int) -> None:
        """Raise FullDiskError, and pause, unless so much is free."""
        free = self._look_at(now_s)
        if free is None or free >= needed_bytes:
            return
        self._pause(now_s, self._almost_full(needed_bytes), needed_bytes)
        raise self._almost_full(needed_bytes)

    def require(self, needed_bytes: int) -> None:
        """The same, where nothing goes on that could be paused."""
        free = self._free_bytes(self._out)
        if free is not None and free < needed_bytes:
            raise self._almost_full(needed_bytes)

    def _look_at(self, now_s: float) -> int | None:
        self._looked_s, self._grown_bytes = now_s, 0
        return self._free_bytes(self._out)

    def _pause(self, now_s: float, shortage: FullDiskError, needed_bytes: int) -> None:
        self._needed_bytes = max(self._needed_bytes, needed_bytes)
        if self._shortage is None:
            self._short_since_s = now_s
            if self._rules.wait_s:
                self._rules.say(
                    f"paused: {self._lack_text()}; nothing is sent until they are there,"
                    f" for {_span(self._rules.wait_s)} at most"
                )
        self._shortage = shortage

    def _go_on(self, free: int | None) -> None:
        self._shortage, self._needed_bytes = None, 0
        has = "space" if free is None else f"{size_text(free)} free"
        self._rules.say(f"the disk of {self._out} has {has} again: going on")

    def _take_ballast(self) -> None:
        """A disk that says it has the space and does not give it (a quota) is not asked again."""
        self._has_ballast = True
        if self._ballast.size and not self._ballast.fill():
            self._ballast = Ballast(self._layout.ballast, 0)

    def _error(self, now_s: float) -> FullDiskError | None:
        if self._shortage is None or now_s - self._short_since_s < self._rules.wait_s:
            return None
        return self._shortage

    def _almost_full(self, needed_bytes: int) -> FullDiskError:
        return full_disk(self._out, f"the disk of {self._out} is almost full", needed_bytes)

    @property
    def _enough_bytes(self) -> int:
        return int(self._floor_bytes * _MARGIN)

    def _lack_text(self) -> str:
        if lacks_inodes(self._out):
            return f"all inodes of the disk of {self._out} are in use, and a few are needed"
        free = self._free_bytes(self._out)
        has = "nothing" if free is None else size_text(free)
        return f"the disk of {self._out} has {has} free, {size_text(self._needed_bytes)} are needed"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
