"""Why a row is what it is, in words for people. Equal rows have equal words, so each sentence is made once."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchllm.consensus.poll import Poll, State
from batchllm.consensus.rules import By, Decisions, Status
from batchllm.consensus.terms import Terms
from batchllm.consensus.values import Values
from batchllm.consensus.votes import MISSING, LabelVotes

_MOST_SHOWN = 4
_MOST_SENTENCES = 100_000
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
        self._known: dict[bytes, str] = {}

    def reasons(self, rows: slice) -> pa.Array:
        """A sentence for each of these rows."""
        facts = self._facts(rows)
        _, first, inverse = np.unique(_as_bytes(facts), return_index=True, return_inverse=True)
        sentences = [self._sentence(facts[at], rows.start + int(at)) for at in first]
        return pa.array(sentences, pa.string()).take(pa.array(inverse))

    def _facts(self, rows: slice) -> Ints:
        """A line of numbers a row: rows with equal lines get the same sentence."""
        poll, made = self._poll, self._made
        winner = made.winner[rows]
        facts: list[npt.NDArray[Any]] = [made.status[rows], made.by[rows], made.cast[rows]]
        if isinstance(poll.votes, LabelVotes):
            codes = poll.votes.codes[rows, : poll.votes_wanted]
            lead, leaders, which = _lead_facts(made, rows)
            shown = np.where(made.by[rows] == By.RULE, winner, lead)
            facts += [(codes == shown[:, None]).sum(1), winner, lead, leaders, which]
            if poll.kind == "labels":  # of a set each label is told, with the votes that name it
                facts += list(np.sort(codes, axis=1).T)
        else:
            facts += [made.cast[rows], winner.view(np.int64)]
        missing = np.where(
            poll.states[rows] == State.CAST, 0, poll.states[rows] + 16 * poll.whys[rows].astype(np.int64)
        )
        return np.column_stack([*(fact.astype(np.int64) for fact in facts), missing.astype(np.int64)])

    def _sentence(self, facts: Ints, row: int) -> str:
        key = facts.tobytes()
        known = self._known.get(key)
        if known is None:
            known = "; ".join(self._parts(facts, row))
            if len(self._known) < _MOST_SENTENCES:
                self._known[key] = known
        return known

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
        if self._values_are_numbers:
            return f"the {self._terms.rule.replace('_', ' ')} of {_votes(cast)} is {winner}"
        if self._poll.kind == "labels" and mine < cast:
            return self._label_by_label(row, self._made.winner[row])
        return f"{mine} of {_votes(cast)} for {winner}"

    @property
    def _values_are_numbers(self) -> bool:
        return not isinstance(self._poll.votes, LabelVotes)

    def _winner(self, row: int) -> str:
        return self._values.shown(self._made.winner[row])

    def _standing(self, row: int) -> str:
        """How the votes stand: what leads, with how many votes each."""
        made, votes = self._made, self._poll.votes
        if not isinstance(votes, LabelVotes):
            return _votes(made.cast[row])
        leading = made.leading[made.offsets[row] : made.offsets[row + 1]]
        if self._poll.kind == "labels":
            return self._label_by_label(row, max(leading, key=lambda cell: len(self._values.members(cell))))
        mine = votes.codes[row, : self._poll.votes_wanted]
        told = [
            f"{int((mine == code).sum())} for {self._values.shown(code)}" for code in leading[:_MOST_SHOWN]
        ]
        more = len(leading) - _MOST_SHOWN
        if more > 0:
            told.append(f"{more} more values with as many")
        return f"of {_votes(made.cast[row])} " + ", ".join(told)

    def _label_by_label(self, row: int, cell: float) -> str:
        """Of a set that nobody need have voted for: how many votes name each of its labels."""
        votes = self._poll.votes
        codes = votes.codes[row, : self._poll.votes_wanted] if isinstance(votes, LabelVotes) else ()
        named = Counter(label for code in codes if code > MISSING for label in self._values.members(code))
        labels = self._values.members(cell)
        told = [f"{named[label]} for {self._values.line(label)}" for label in labels[:_MOST_SHOWN]]
        if len(labels) > _MOST_SHOWN:
            told.append(f"{len(labels) - _MOST_SHOWN} more labels")
        if not told:
            return f"no label has enough of {_votes(self._made.cast[row])}"
        return f"of {_votes(self._made.cast[row])}, label by label, " + ", ".join(told)

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


def _votes(count: int) -> str:
    return f"{count} vote" if count == 1 else f"{count} votes"


def _lead_facts(made: Decisions, rows: slice) -> tuple[Ints, Ints, Ints]:
    """Of each row the first leading code, how many lead, and a number that is equal where the same ones do."""
    offsets = made.offsets[rows.start : rows.stop + 1]
    counts = np.diff(offsets)
    first = np.full(len(counts), MISSING, np.int64)
    some = counts > 0
    first[some] = made.leading[offsets[:-1][some]]
    which = np.zeros(len(counts), np.int64)
    seen: dict[bytes, int] = {}
    for at in np.flatnonzero(counts > 1).tolist():
        lead = made.leading[offsets[at] : offsets[at + 1]].tobytes()
        which[at] = seen.setdefault(lead, len(seen) + 1)
    return first, counts, which


def _as_bytes(facts: Ints) -> npt.NDArray[np.void]:
    flat = np.ascontiguousarray(facts)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).reshape(-1)
