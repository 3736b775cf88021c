"""What lies in an output folder, looked at without disturbing whoever is at work there: nothing is written, no database
is opened, and the lock is felt for a moment only. Works on a full disk and on a read-only one.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from batchllm.clock import SystemClock
from batchllm.errors import BatchllmError, InputMissingError
from batchllm.journal.files import Layout
from batchllm.journal.heartbeat import boot_id, read_beat
from batchllm.journal.lock import Holder, holder_of
from batchllm.journal.manifest import read_manifest
from batchllm.report.standing import ENDED, MAX_AGE_S, Now, Seen, Standing, standing

T = TypeVar("T")
#: A run that has just begun, or ended, is seen whole at the second look.
_AGAIN_S = 0.1
_NESTED = ("embedded", "escalated", "judged")


def glance(out: Path, *, max_age_s: float = MAX_AGE_S) -> tuple[Standing, Now]:
    """How `out` stands, and when that was; also where no run was yet. Raises StorageError."""
    seen = _seen(out)
    if _is_in_between(seen):
        time.sleep(_AGAIN_S)
        seen = _seen(out)
    now = now_here()
    return standing(seen, now, max_age_s), now


def now_here() -> Now:
    clock = SystemClock()
    return Now(clock.wall_s(), clock.monotonic_s(), boot_id(), socket.gethostname())


def check_is_output(out: Path) -> None:
    """Raises InputMissingError."""
    layout = Layout(out)
    if layout.state.is_dir() or layout.manifest.is_file():
        return
    what = "is no output of batchllm: it has neither .batchllm nor manifest.json"
    if not out.is_dir():
        what = "is not there" if not out.exists() else "is no folder"
    raise InputMissingError(
        f"{out} {what}", remedy="name the job file, or the folder that its output.path names"
    )


def _is_in_between(seen: Seen) -> bool:
    """The lock was looked at before the heartbeat: between the two a run may have begun or ended."""
    beat, holder = seen.beat, seen.holder
    if beat is None:
        return holder is not None
    if holder is None:
        return beat.state not in ENDED
    return holder.pid != beat.pid or holder.started != beat.started or beat.state in ENDED


def _seen(out: Path) -> Seen:
    holder = holder_of(out)
    notes: list[str] = []
    beat = _noted(lambda: read_beat(out), notes)
    manifest = _noted(lambda: read_manifest(out), notes)
    nested = [out / "consensus" / name for name in _NESTED]
    return Seen(
        str(out),
        holder,
        beat,
        manifest,
        process=_process_state(holder),
        notes=tuple(notes),
        nested=tuple(_seen(one) for one in nested if Layout(one).state.is_dir()),
    )


def _noted(read: Callable[[], T | None], notes: list[str]) -> T | None:
    """A file that cannot be read tells nothing; that is told."""
    try:
        return read()
    except BatchllmError as error:
        notes.append(f"{error.message} ({error.remedy})" if error.remedy else error.message)
        return None


def _process_state(holder: Holder | None) -> str:
    """The system's letter for it: T where it is stopped, D where it waits for a disk; nothing where nobody knows."""
    if holder is None or holder.pid is None or holder.host != socket.gethostname():
        return ""
    try:
        text = Path(f"/proc/{holder.pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return text.rpartition(") ")[2][:1]
