"""A consensus over votes that are there already: nothing is asked, nothing is paid."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from batchllm.carry import CarryCodec
from batchllm.clock import Clock, SystemClock
from batchllm.consensus.concluding import Facts, decided, weigh
from batchllm.consensus.doubts import doubts
from batchllm.consensus.foreign import Elections, Known, open_votes
from batchllm.consensus.motion import Motion, motion_of
from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Poll
from batchllm.consensus.voteless import is_voteless, voteless
from batchllm.engine.agreeing import gold_notes
from batchllm.engine.heartbeat import beating
from batchllm.engine.publishing import Edition, publish
from batchllm.engine.summary import shown
from batchllm.engine.vitals import Moment, Vitals
from batchllm.errors import ExitCode, InputDataError, JobError
from batchllm.journal import OutputLock
from batchllm.journal.manifest import instant
from batchllm.ports import Source
from batchllm.records import BadRow, Row
from batchllm.report.agreement import agreement_lines
from batchllm.report.summary import RunSummary
from batchllm.source import frame_source, open_source
from batchllm.spec.loading import LoadedVotes
from batchllm.spec.models import Input
from batchllm.wiring.consensus import Told, kind_faults, lone_faults, name_faults, voter_faults

_OR_LEAVE_OUT = {"output.carry": ", or leave it out"}


def _silence(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Tools:
    clock: Clock
    say: Callable[[str], None] = _silence
    beat_s: float | None = None


def agree_offline(
    loaded: LoadedVotes, tools: Tools | None = None, *, frame: object | None = None
) -> dict[str, Any]:
    """What agreement.json holds. With `tools.beat_s` it is a run, and has the heartbeat of one.

    Raises JobError, InputDataError, InputMissingError, OutputError, StorageError, and LockedError while a run is at
    work in the folder of its output.
    """
    tools = tools or Tools(SystemClock())
    out = Path(str(loaded.job.output.path))
    job, started = loaded.job.name, tools.clock.wall_s()
    about = {"started": started, "job": job}
    if out.is_dir():  # its own answers may be among the votes
        with OutputLock.acquire(out, about=about, tables=()), _beating(out, job, started, tools) as rows:
            return rows.note(publish(_edition(loaded, tools, frame)))
    edition = _edition(loaded, tools, frame)
    with OutputLock.acquire(out, about=about, tables=()), _beating(out, job, started, tools) as rows:
        return rows.note(publish(edition))


class _Rows:
    """What a heartbeat can tell of it: there is no row before all are there."""

    def __init__(self) -> None:
        self._count = 0

    def note(self, told: dict[str, Any]) -> dict[str, Any]:
        self._count = int(told["rows"])
        return told

    def __call__(self, _now: Moment) -> Vitals:
        return Vitals(phase="agreeing", total=self._count, ok=self._count, cost_usd=0.0, spent_usd=0.0)


@contextmanager
def _beating(out: Path, job: str, started: float, tools: Tools) -> Iterator[_Rows]:
    rows = _Rows()
    if tools.beat_s is None:
        yield rows
        return
    with beating(out, job=job, started=started, every_s=tools.beat_s, say=tools.say) as heart:
        heart.follow(rows)
        yield rows


def _edition(loaded: LoadedVotes, tools: Tools, frame: object | None) -> Edition:
    job, section = loaded.job, loaded.job.consensus
    source = _source(loaded, frame)
    votes = open_votes(section.votes or [], over=section.over, key=job.input.key)
    votes.gold = section.gold
    if source is not None:
        votes.known = _known(source, job.input.key)
    votes.carried = _carried(loaded, votes)
    motion = _motion(loaded, votes)
    votes.check(motion.kind)
    _refuse(loaded, kind_faults(section, motion))
    poll = votes.poll(vocabulary(motion.kind, motion.labels, section.normalise))
    motion = Motion(section, votes.over, motion.kind, motion.labels, poll.votes.voters)
    _refuse_voteless(votes, motion, poll)
    _refuse(loaded, [*lone_faults(section, motion.voters), *voter_faults(section, motion.voters)])
    _refuse_strangers(votes, motion, poll)
    _check_names(loaded, votes)
    weighed = weigh(poll, motion)
    notes = [*votes.notes, *gold_notes(poll), *doubts(poll, motion), *filter(None, [weighed.why])]
    for note in notes:
        tools.say(note)
    return Edition(
        out=Path(str(job.output.path)),
        job=job.name,
        motion=motion,
        decided=decided(poll, motion, weighed),
        facts=Facts(created=instant(tools.clock.wall_s())),
        rows=votes,
        key=votes.key,
        carried=[one for one in votes.carried_fields if one.name != section.gold],
        stamp="",
        notes=notes,
        offline=None if frame is not None else _kept(loaded),
    )


def summary_of(loaded: LoadedVotes, told: Mapping[str, Any], *, cwd: Path, python: Path) -> RunSummary:
    """Of a start of the job that had nothing to ask."""
    rows = int(told["rows"])
    return RunSummary(
        job=loaded.job.name,
        exit_code=int(ExitCode.OK),
        ending="the votes were there already",
        remedy="",
        is_complete=True,
        is_simulated=False,
        rows=rows,
        units=0,
        ok=0,
        failed=0,
        reused=0,
        failed_before=0,
        pending=0,
        prompt_tokens=0,
        completion_tokens=0,
        cost_usd=0.0,
        spent_usd=0.0,
        seconds=0.0,
        output=shown(Path(str(loaded.job.output.path)), cwd),
        python=shown(python, cwd),
        agreement=agreement_lines(told),
        figures=told,
    )


def _kept(loaded: LoadedVotes) -> dict[str, object]:
    """The job with its paths as they were found."""
    return loaded.job.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def _source(loaded: LoadedVotes, frame: object | None) -> Source | None:
    """The rows that there are, where the job says so."""
    given, gold = loaded.job.input, loaded.job.consensus.gold
    carry = loaded.job.output.carry
    if carry != "all" and gold is not None and gold not in carry:
        carry = [*carry, gold]
    if frame is not None:
        columns = given.columns if isinstance(frame, list) else None
        return frame_source(frame, key=given.key, carry=carry, needed=frozenset(), columns=columns)
    if given.path is None:
        return None
    spec = Input(path=given.path, format=given.format, key=given.key, columns=given.columns)
    return open_source(spec, carry=carry, needed=frozenset())


def _known(source: Source, name: str | None) -> Known:
    """All rows of an input by their ids, which must be different ones."""
    source.scan()
    shape = source.shape
    codec = CarryCodec(shape.carry)
    kind = pa.int64() if shape.key is None else CarryCodec((shape.key,)).fields[0].type
    keys: list[pa.Array] = []
    pieces: list[list[pa.Array]] = []
    for batch in source.batches():
        bad = next((row for row in batch if isinstance(row, BadRow)), None)
        if bad is not None:
            raise InputDataError(f"{bad.place}: {bad.message}", remedy="mend the line, or take it out")
        rows = [row for row in batch if isinstance(row, Row)]
        keys.append(pa.array([row.ordinal if row.key is None else row.key for row in rows], kind))
        pieces.append(codec.decode([row.carry for row in rows]))
    ids = pa.chunked_array(keys, kind)
    columns = [
        pa.chunked_array([piece[at] for piece in pieces], one.type) for at, one in enumerate(codec.fields)
    ]
    names = [name or "row", *(one.name for one in codec.fields)]
    return Known(pl.Series(names[0], ids), pa.Table.from_arrays([ids, *columns], names=names))


def _carried(loaded: LoadedVotes, votes: Elections) -> tuple[str, ...]:
    """All that is not a vote's own, with `carry: all`."""
    carry = loaded.job.output.carry
    if carry != "all":
        return tuple(carry)
    own = {votes.by, votes.over, "voter", "lane", "sample", "row"}
    if votes.known is not None:
        return tuple(name for name in votes.known.table.schema.names if name not in own)
    met = dict.fromkeys(name for file in votes.files for name in file.schema.names)
    return tuple(name for name in met if name not in own)


def _motion(loaded: LoadedVotes, votes: Elections) -> Motion:
    """Voters are known once the votes are read."""
    first = votes.files[0]
    column = first.schema.field(votes.over)
    motion = motion_of(loaded.job.consensus, column, (), None)
    if motion is None or motion.kind == "vector":
        raise InputDataError(
            f"{first.path}: the column {votes.over!r} is {column.type}, which holds no votes",
            remedy="votes are text, numbers, truth values or lists of text; name another column in consensus.over",
        )
    return motion


def _refuse_voteless(votes: Elections, motion: Motion, poll: Poll) -> None:
    """Raises InputDataError, before an earlier consensus is lost to one that decides nothing."""
    if is_voteless(poll):
        path, value = votes.first_value()
        message, remedy = voteless(motion, f"its first value is {value!r}")
        raise InputDataError(f"{path}: {message}", remedy=remedy)


def _refuse(loaded: LoadedVotes, faults: Iterable[Told]) -> None:
    """Raises JobError with all of them."""
    found = [
        loaded.fault(f"consensus.{path}" if path else "consensus", message, remedy)
        for path, message, remedy in faults
    ]
    if found:
        raise JobError(loaded.file, found)


def _refuse_strangers(votes: Elections, motion: Motion, poll: Poll) -> None:
    """Raises InputDataError where no two voters voted on the same row, so that nothing can be said of them."""
    cast = poll.votes.cast
    if not poll.rows:
        return
    if not cast.any():
        raise InputDataError(
            f"the column {motion.over!r} is null in every line of the files: there are no votes",
            remedy="name the column that holds them in consensus.over",
        )
    if motion.section.gold is not None or cast.sum(axis=1).max() > 1:
        return
    speaking = [at for at in range(len(poll.voters)) if cast[:, at].any()]
    if len(speaking) == 1:
        silent = [voter.name for at, voter in enumerate(poll.voters) if at not in speaking]
        message = f"{poll.voters[speaking[0]].name} alone has votes on any row"
        remedy = f"look at those of {', '.join(silent[:5])}; or name gold, to measure that one voter by it"
    else:
        told = [
            f"{poll.voters[at].name} votes on {votes.listed(np.flatnonzero(cast[:, at]))}"
            for at in speaking[:2]
        ]
        message = f"no two voters vote on the same row: {', '.join(told)}"
        remedy = "join by a column whose values are the same in all files (input.key)"
    raise InputDataError(message, remedy=remedy)


def _check_names(loaded: LoadedVotes, votes: Elections) -> None:
    key = None if votes.key is None else votes.key.name
    carried = [one.name for one in votes.carried_fields if one.name != "row"]
    faults = [
        loaded.fault(path, message, "rename it in the files" + _OR_LEAVE_OUT.get(path, ""))
        for path, message in name_faults(loaded.job.consensus, key, carried)
    ]
    if faults:
        raise JobError(loaded.file, faults)
