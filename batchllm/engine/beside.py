"""What lanes asked beside the voters have cost of the present input's budget.

Their records count all that they have ever cost. As with the voters, what an earlier input cost that came to its
consensus is not the present one's: how much that was is noted in `OUT/consensus/spending.json` when another one comes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from batchllm.journal import read_manifest
from batchllm.journal.files import make_folder, mapped_faults, sync_folder, write_new
from batchllm.wiring.nested import Role

_FILE = "spending.json"
_ROLES: Sequence[Role] = ("embedded", "escalated", "judged")


@dataclass(frozen=True, slots=True)
class _Note:
    """`before_usd`: of earlier inputs; `concluded`: whether this one has come to its consensus."""

    input: str | None
    before_usd: float = 0.0
    concluded: bool = False


def spent_beside(out: Path, digest: str | None) -> float:
    """USD so far, as far as it is known, of the input of this digest."""
    return max(0.0, _lifetime(out) - _note_for(out, digest).before_usd)


def note_input(out: Path, digest: str | None) -> None:
    """To be called before anything is asked for it. Raises StorageError."""
    if _read(out) != (note := _note_for(out, digest)):
        _write(out, note)


def note_concluded(out: Path, digest: str | None) -> None:
    """Raises StorageError."""
    before = _note_for(out, digest)
    if not before.concluded:
        _write(out, _Note(digest, before.before_usd, concluded=True))


def _note_for(out: Path, digest: str | None) -> _Note:
    """One input that was never concluded goes on to count: its rows may be the next one's."""
    note = _read(out)
    if note is None or note.input == digest or not note.concluded:
        return _Note(digest, 0.0 if note is None else note.before_usd, note is not None and note.concluded)
    return _Note(digest, _lifetime(out))


def _lifetime(out: Path) -> float:
    folders = [out / "consensus" / role for role in _ROLES]
    manifests = [read_manifest(folder) for folder in folders if folder.is_dir()]
    return sum((one.cost_usd or 0.0) for one in manifests if one is not None)


def _read(out: Path) -> _Note | None:
    """A note that cannot be read was written by nobody: all counts."""
    try:
        said = orjson.loads((out / "consensus" / _FILE).read_bytes())
        return _Note(said["input"], float(said["before_usd"]), bool(said["concluded"]))
    except (OSError, LookupError, TypeError, ValueError):
        return None


def _write(out: Path, note: _Note) -> None:
    folder = out / "consensus"
    draft = folder / f".{_FILE}.new"
    with mapped_faults("write", folder / _FILE):
        make_folder(folder, 0o777)
        draft.unlink(missing_ok=True)
        write_new(draft, orjson.dumps(asdict(note)), 0o644)
        draft.replace(folder / _FILE)
        sync_folder(folder)
