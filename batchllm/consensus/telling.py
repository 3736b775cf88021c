"""Why a row is what it is, in words for people. Equal rows have equal words, so each sentence is made once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchllm.consensus.naming import MOST_TOLD, Naming
from batchllm.consensus.poll import Poll, State
from batchllm.consensus.rules import By, Decisions, Status
from batchllm.consensus.terms import Terms
from batchllm.consensus.values import Values
from batchllm.consensus.votes import MISSING, Codes, LabelVotes

_MOST_SHOWN = 4
_WORDS = {
    State.FAILED: "failed",
    State.NOT_ASKED: "was not asked",
    State.UNREADABLE: "is no vote",
    State.OPEN: "is still to come",
    State.ABSENT: "has no vote",
}
_CHOOSERS = {By.ESCALATED: "the lane asked in a tie", By.JUDGE: "the judge", By.FIRST: "priority"}

Ints = npt.NDArray[np.int64]


class Telling:
    def __init__(self, poll: Poll, made: Decisions, terms: Terms, values: Values) -> None:
        self._poll = poll
        self._made = made
        self._terms = terms
        self._values = values
        self._naming = _naming(poll)

    def reasons(self, rows: slice) -> pa.Array:
        """A sentence for each of these rows."""
        facts = self._facts(rows)
        _, first, inverse = np.unique(_as_bytes(facts), return_index=True, return_inverse=True)
        sentences = [self._sentence(facts[at], rows.start + int(at)) for at in first]
        return pa.array(sentences, pa.string()).take(pa.array(inverse))

    def _facts(self, rows: slice) -> Ints:
        """A line of numbers a row: of these rows, those with equal lines get the same sentence."""
        poll, made = self._poll, self._made
        cells, winner = self._cells(rows), made.winner[rows]
        missing = np.where(
            poll.states[rows] == State.CAST, 0, poll.states[rows] + 16 * poll.whys[rows].astype(np.int64)
        )
        facts = [
            made.status[rows], made.by[rows], made.cast[rows], (cells == winner[:, None]).sum(1),
            _as_whole(winner), _as_whole(made.share[rows]), *_standings(made, rows, cells), missing,
        ]  # fmt: skip
        if self._naming is not None:  # of a set each label is told, with the votes that name it
            told = np.where(made.by[rows] == By.RULE, winner, self._largest(rows))
            facts += self._naming.counts(told, cells)
        return np.column_stack([fact.astype(np.int64) for fact in facts])

    def _cells(self, rows: slice) -> npt.NDArray[Any]:
        """Rows × those who are asked for every row: codes or numbers."""
        votes = self._poll.votes
        cells = votes.codes if isinstance(votes, LabelVotes) else votes.numbers
        return cells[rows, : self._poll.votes_wanted]

    def _sentence(self, facts: Ints, row: int) -> str:
        return "; ".join(self._parts(facts, row))

    def _parts(self, facts: Ints, row: int) -> Iterator[str]:
        status, by, cast, mine = (int(fact) for fact in facts[:4])
        yield self._decision(Status(status), By(by), cast, mine, row)
        yield from self._missing(row, 0 if cast < self._poll.votes_wanted else self._poll.votes_wanted)

    def _decision(self, status: Status, by: By, cast: int, mine: int, row: int) -> str:
        match status:
            case Status.DECIDED:
                return self._decided(by, cast, mine, row)
            case Status.TIED | Status.UNDECIDED:
                return self._standing(row)
            case Status.PENDING:
                return f"{_votes(cast)} so far"
            case Status.TOO_FEW:
                needed = self._terms.min_votes
                are = "is" if needed == 1 else "are"
                return f"{cast} of {self._terms.voters} votes where {needed} {are} needed"

    def _decided(self, by: By, cast: int, mine: int, row: int) -> str:
        winner = self._winner(row)
        if by in _CHOOSERS:
            return f"{_CHOOSERS[by]} chose {winner} ({self._standing(row)})"
        if self._terms.rule in ("median", "trimmed_mean"):
            return f"the {self._terms.rule.replace('_', ' ')} of {_votes(cast)} is {winner}"
        if self._naming is not None and mine < cast:
            return self._label_by_label(self._naming, row, int(self._made.winner[row]))
        weight = f", {self._made.share[row]:.0%} of the weight" if self._terms.rule == "weighted" else ""
        return f"{mine} of {_votes(cast)} for {winner}{weight}"

    def _winner(self, row: int) -> str:
        return self._values.shown(self._made.winner[row])

    def _standing(self, row: int) -> str:
        """How the votes stand: what leads, with how many votes each."""
        made = self._made
        mine = self._cells(slice(row, row + 1))[0]
        leading = made.leading[made.offsets[row] : made.offsets[row + 1]]
        if self._naming is not None:
            return self._label_by_label(self._naming, row, int(self._largest(slice(row, row + 1))[0]))
        told = [
            f"{int((mine == value).sum())} for {self._values.shown(value)}" for value in leading[:_MOST_SHOWN]
        ]
        more = len(leading) - _MOST_SHOWN
        if more > 0:
            as_much = "as much weight" if self._terms.rule == "weighted" else "as many"
            told.append(f"{more} more values with {as_much}")
        return f"of {_votes(int(made.cast[row]))} " + ", ".join(told)

    def _largest(self, rows: slice) -> Codes:
        """Of each row the largest set that leads, of two at most; -1 where none does."""
        made, sizes = self._made, self._naming.sizes if self._naming is not None else np.zeros(1, np.int64)
        starts, ends = made.offsets[rows.start : rows.stop], made.offsets[rows.start + 1 : rows.stop + 1]
        found = np.full(len(starts), MISSING, np.int32)
        some = ends > starts
        first, last = made.leading[starts[some]], made.leading[ends[some] - 1]
        found[some] = np.where(sizes[first] > sizes[last], first, last)
        return found

    def _label_by_label(self, naming: Naming, row: int, cell: int) -> str:
        """Of a set that nobody need have voted for: how many votes name each of its labels."""
        labels = naming.members[cell]
        sets = [
            naming.members[code] for code in self._cells(slice(row, row + 1))[0].tolist() if code > MISSING
        ]
        told = [
            f"{sum(label in some for some in sets)} for {self._values.line(label)}"
            for label in labels[:MOST_TOLD]
        ]
        if len(labels) > MOST_TOLD:
            told.append(f"{len(labels) - MOST_TOLD} more labels")
        if not told:
            return f"no label has enough of {_votes(int(self._made.cast[row]))}"
        return f"of {_votes(int(self._made.cast[row]))}, label by label, " + ", ".join(told)

    def _missing(self, row: int, first: int) -> Iterator[str]:
        """From the voter at `first` on. Of those asked for open rows alone only what came to nothing is told."""
        poll = self._poll
        for at, (voter, state, why) in enumerate(
            zip(poll.voters, poll.states[row], poll.whys[row], strict=True)
        ):
            is_left_out = at >= poll.votes_wanted and state == State.NOT_ASKED
            if at >= first and state != State.CAST and not is_left_out:
                reason = f" ({poll.reasons[why]})" if why else ""
                yield f"{voter.name} {_WORDS[State(int(state))]}{reason}"


def _naming(poll: Poll) -> Naming | None:
    votes = poll.votes
    return Naming(votes.values) if poll.kind == "labels" and isinstance(votes, LabelVotes) else None


def _standings(made: Decisions, rows: slice, cells: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Of each row what leads first, with how many votes, and, where several do, a number for all of that."""
    offsets = made.offsets[rows.start : rows.stop + 1]
    leading, lengths = made.leading[offsets[0] : offsets[-1]], np.diff(offsets)
    row_of = np.repeat(np.arange(len(cells)), lengths)
    both = np.column_stack([_as_whole(leading), (cells[row_of] == leading[:, None]).sum(1)])
    starts, some = offsets[:-1] - offsets[0], lengths > 0
    first = np.full((len(cells), 2), MISSING, np.int64)
    first[some] = both[starts[some]]
    which = np.zeros(len(cells), np.int64)
    met: dict[bytes, int] = {}
    for at in np.flatnonzero(lengths > 1).tolist():
        standing = both[starts[at] : starts[at] + lengths[at]].tobytes()
        which[at] = met.setdefault(standing, len(met) + 1)
    return first[:, 0], first[:, 1], which


def _as_whole(cells: npt.NDArray[Any]) -> Ints:
    """Codes, or numbers by their bits."""
    return cells.view(np.int64) if cells.dtype.kind == "f" else cells.astype(np.int64)


def _votes(count: int) -> str:
    return "1 vote" if count == 1 else f"{count:,} votes"


def _as_bytes(facts: Ints) -> npt.NDArray[np.void]:
    flat = np.ascontiguousarray(facts)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).reshape(-1)
