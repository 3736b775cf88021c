"""An old record put aside as a whole, so that a new one can begin in its folder: nothing that was paid is deleted.

It goes to `.batchllm/earlier/<time>/`, which is then an output folder like the one it was, by renames that a kill may
cut off anywhere: a note says first where to, and whoever finds the note finishes the move. To be called with the lock
held and the database closed.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from batchllm.errors import StorageError
from batchllm.journal.files import (
    KINDS,
    Fault,
    Layout,
    make_folder,
    mapped_faults,
    no_fault,
    sync_folder,
    write_new,
)

_NOTE = "putting-aside"
_FOLDER = "earlier"
#: What stays: the lock is held, and scratch files are nobody's.
_STATE_FILES = ("journal.db", "journal.db-wal", "journal.db-shm", "journal.seen")
#: What was made of the record: its summary, what its answers agree on (with the records of lanes asked for that).
_OTHERS = ("summary.txt", "consensus", "report.html")
_STATE_PREFIXES = ("marks-", "renewal-", "part-")


def put_aside(layout: Layout, now_s: float, fault: Fault = no_fault) -> Path:
    """Returns where the old record is. Raises StorageError."""
    name = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    note = layout.state / _NOTE
    with mapped_faults("move", layout.out):
        target = _unused(layout.state / _FOLDER / name)
        write_new(note, target.name.encode(), 0o600)
        sync_folder(layout.state)
    fault("after_note")
    return _finish(layout, fault)


def finish_putting_aside(layout: Layout) -> Path | None:
    """What a killed run began; None when there is nothing to finish."""
    return _finish(layout, no_fault) if is_putting_aside(layout) else None


def is_putting_aside(layout: Layout) -> bool:
    """Whether a killed run left a move half done."""
    note = layout.state / _NOTE
    return note.is_file() and not note.is_symlink()


def records_aside(out: Path) -> list[Path]:
    """Output folders of the records that were put aside here, the oldest first."""
    folder = Layout(out).state / _FOLDER
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.name}-{number}") if number else path for number in range(1000))
    return next(one for one in names if not os.path.lexists(one))


def _finish(layout: Layout, fault: Fault) -> Path:
    note = layout.state / _NOTE
    with mapped_faults("move", layout.out):
        name = note.read_text("utf-8")
        if not name or Path(name).name != name:
            raise StorageError(
                f"{note} is damaged: it names no folder",
                remedy="remove it; then look at what is in the folder",
            )
        target = layout.state / _FOLDER / name
        state = target / layout.state.name
        for folder in (target.parent, target, state):
            make_folder(folder, 0o700)
        for path in _state_files(layout):
            _move(path, state / path.name, fault)
        others = [layout.out / name for name in _OTHERS]
        for path in (layout.manifest, *others, *map(layout.folder, KINDS)):
            _move(path, target / path.name, fault)
        for folder in (state, target, target.parent, layout.state, layout.out):
            sync_folder(folder)
        note.unlink()
        sync_folder(layout.state)
    return target


def _state_files(layout: Layout) -> list[Path]:
    known = [layout.state / name for name in _STATE_FILES]
    return known + [path for prefix in _STATE_PREFIXES for path in layout.state.glob(f"{prefix}*")]


def _move(path: Path, target: Path, fault: Fault) -> None:
    """What was moved already is not there any more; a folder that was made anew meanwhile is empty and stays."""
    if not os.path.lexists(path):
        return
    if target.is_dir() and path.is_dir() and not any(path.iterdir()):
        return
    path.rename(target)
    fault("after_move")
