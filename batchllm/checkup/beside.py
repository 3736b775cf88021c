"""The lanes that a consensus asks beside the voters, with something like the rows that they would be asked about.

What a judge is shown and what is embedded are the voters' answers, which nobody has yet: others stand for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batchllm.clock import Clock
from batchllm.errors import RowError
from batchllm.ports import Task
from batchllm.provider.catalogue import Catalogue
from batchllm.records import Row
from batchllm.source import frame_source
from batchllm.wiring import CheckedJob, check
from batchllm.wiring.nested import CANDIDATES, LETTERS, PROMPT, TEXT, Nested

#: Rows that are looked at for one that can be asked.
PEEK_ROWS = 100
_ANSWERS = ("one answer", "another answer")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A job whose lanes are asked whether they would answer, and rows of which one can be asked."""

    checked: CheckedJob
    rows: Sequence[Row]


def rehearsals(
    checked: CheckedJob, *, catalogue: Catalogue, environ: Mapping[str, str], clock: Clock
) -> list[Rehearsal]:
    """Of the job, and of each that it has nested."""
    rows = checked.source.peek(PEEK_ROWS)
    found = [Rehearsal(checked, rows)]
    for nested in checked.nested:
        nothing = frame_source([], key=None, carry=(), needed=None)
        job = check(nested.loaded, catalogue=catalogue, environ=environ, clock=clock, source=nothing)
        lanes = tuple(replace(lane, place=nested.place) for lane in job.lanes)
        found.append(Rehearsal(replace(job, lanes=lanes), [_row(nested, row, checked) for row in rows]))
    return found


def _row(nested: Nested, row: Row, checked: CheckedJob) -> Row:
    match nested.role:
        case "escalated":
            return row
        case "embedded":
            return row._replace(values={TEXT: _ANSWERS[0]})
        case "judged":
            labels = () if checked.motion is None else checked.motion.labels
            texts = list(labels[: len(LETTERS)] if len(labels) > 1 else _ANSWERS)
            prompt = _prompt(checked.task, row)
            return row._replace(values={**row.values, PROMPT: prompt, CANDIDATES: texts})


def _prompt(task: Task, row: Row) -> str:
    """What the voters are asked; empty where the row cannot be asked at all."""
    try:
        return "\n\n".join(task.texts(task.content(row)))
    except RowError:
        return ""
