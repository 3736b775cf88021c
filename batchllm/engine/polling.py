"""How a run with `stop_early` polls its rows: votes as they come, and those that the record holds.

On resume the kept votes of rows that are open are read, and not asked for again: one that is settled by them is asked
nothing, and one that is not is asked the next voter only. Rows whose votes are all in, or of which nothing is known,
are not looked at.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.dispatch import Polling
from batchllm.engine.backfill import as_flags
from batchllm.engine.identity import slots_of
from batchllm.journal import Journal
from batchllm.ports import Task
from batchllm.records import AnswerValue
from batchllm.wiring import CheckedJob

if TYPE_CHECKING:
    from batchllm.consensus.early import EarlyVotes


def early_votes_of(checked: CheckedJob) -> "EarlyVotes | None":
    """None where all answers are asked for."""
    motion = checked.motion
    if motion is None or not motion.section.stop_early or slots_of(checked.job) == 1:
        return None
    from batchllm.consensus.early import early_votes  # which other jobs do not need

    return early_votes(motion)


def has_other_terms(journal: Journal, votes: "EarlyVotes | None") -> bool:
    """Whether units are skipped by a vote that goes by other terms now, or though all are to be asked."""
    return bool(journal.counts.skipped) and journal.skip_terms != (None if votes is None else votes.digest)


def reopen(journal: Journal, votes: "EarlyVotes | None") -> None:
    """What was skipped and is not to be relied on is pending again; kept votes may settle it once more."""
    journal.reopen_skipped(all_of_them=has_other_terms(journal, votes))
    if votes is not None and journal.skip_terms != votes.digest:
        journal.set_skip_terms(votes.digest)


def polling_of(votes: "EarlyVotes", task: Task, journal: Journal, rows: int, *, samples: int) -> Polling:
    """`rows` of the input. To be called before anything of it is asked."""
    finished = journal.finished
    kept = _kept_votes(votes, journal, rows)
    slots = finished.slots

    def heard(row: int) -> Sequence[tuple[int, Hashable | None]]:
        of_row = kept(row * slots, (row + 1) * slots)
        return [(slot, of_row.get(row * slots + slot)) for slot in range(slots) if finished.has(row, slot)]

    return Polling(slots, samples, votes.ballot, _vote_of(votes, task), heard)


def _vote_of(votes: "EarlyVotes", task: Task) -> Callable[[AnswerValue], Hashable | None]:
    at = [field.name for field in task.answer_fields].index(votes.over)
    return lambda answer: votes.read(_flat(task.columns([answer])[at]))[0]


def _kept_votes(
    votes: "EarlyVotes", journal: Journal, rows: int
) -> Callable[[int, int], dict[int, Hashable | None]]:
    """What finds the votes of a range of units: of rows that are begun and not whole, sorted, 16 bytes each."""
    finished = journal.finished
    whole, begun = as_flags(finished.rows(rows), rows), as_flags(finished.begun(rows), rows)
    is_partial = pc.and_not(begun, whole)
    units: list[pa.Array] = []
    found: list[Hashable | None] = []
    if rows and pc.any(is_partial).as_py():
        for of_batch, batch in journal.known_answers(["row", votes.over]):
            chosen = is_partial.take(batch.column("row"))
            units.append(of_batch.filter(chosen))
            found += votes.read(batch.column(votes.over).filter(chosen))
    together = pa.concat_arrays(units) if units else pa.nulls(0, pa.int64())
    order = pc.array_sort_indices(together)
    places = array("q", together.take(order).to_pylist())
    ordered = [found[place] for place in order.to_pylist()]

    def between(first: int, end: int) -> dict[int, Hashable | None]:
        at = bisect_left(places, first)
        told: dict[int, Hashable | None] = {}
        while at < len(places) and places[at] < end:
            told[places[at]] = ordered[at]
            at += 1
        return told

    return between


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
