"""What lanes asked beside the voters have cost of the present input's budget.

Their records count all that they have ever cost, those put aside for another judge or lane as well. As with the voters,
what an earlier input cost that came to its consensus is not the present one's: how much that was of each record is
noted in `OUT/consensus/spending.json` when another one comes. A record is known by when it was begun, so that one that
was put aside is still the same, and one that somebody removed takes its own money with it and no other.

What `--new-run` puts aside as a whole is another output, whose budget was its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from batchllm.journal import EverSpent, ever_spent, records_aside
from batchllm.journal.files import make_folder, mapped_faults, sync_folder, write_new
from batchllm.wiring.nested import Role

_FILE = "spending.json"
_ROLES: Sequence[Role] = ("embedded", "escalated", "judged")


@dataclass(frozen=True, slots=True)
class _Note:
    """`before_usd`: of each record, what earlier inputs cost; `concluded`: whether this one has its consensus."""

    input: str | None
    before_usd: Mapping[str, float] = field(default_factory=dict)
    concluded: bool = False


def spent_beside(out: Path, digest: str | None) -> float:
    """USD of the input of this digest: as far as it is known, and at most so much for calls that kills cut off."""
    before = _note_for(out, digest).before_usd
    return sum(max(0.0, usd - before.get(created, 0.0)) for created, usd in _most_usd(out).items())


def cost_beside(out: Path) -> float | None:
    """USD over all inputs and runs; None when the price of something is not known."""
    records = list(_records(out))
    return sum(one.cost_usd for one in records) if all(one.is_priced for one in records) else None


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
        return _Note(digest, {} if note is None else note.before_usd, note is not None and note.concluded)
    return _Note(digest, _most_usd(out))


def _most_usd(out: Path) -> dict[str, float]:
    return {one.created: one.cost_usd + one.exposed_usd for one in _records(out)}


def _records(out: Path) -> Iterator[EverSpent]:
    for role in _ROLES:
        folder = out / "consensus" / role
        if folder.is_dir():
            yield from filter(None, map(ever_spent, (folder, *records_aside(folder))))


def _read(out: Path) -> _Note | None:
    """A note that cannot be read was written by nobody: all counts."""
    try:
        said = orjson.loads((out / "consensus" / _FILE).read_bytes())
        before = {str(created): float(usd) for created, usd in said["before_usd"].items()}
        return _Note(said["input"], before, bool(said["concluded"]))
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
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
