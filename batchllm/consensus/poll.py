"""All the votes of a consensus, with what is known of each: why one is missing, what a row cost, what was right."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchllm.consensus.normalising import Vocabulary, Whys
from batchllm.consensus.votes import MISSING, Codes, LabelVotes, Numbers, NumberVotes, Votes
from batchllm.spec.consensus import VoteKind

#: Of gold: a value that is none of the labels.
OUTSIDE = -2
States = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class State(IntEnum):
    """What became of a vote; lower case names are what the table says."""

    OPEN = 0  # it may still come
    CAST = 1
    FAILED = 2  # the row was given up on this lane
    NOT_ASKED = 3
    UNREADABLE = 4  # there is an answer, and it is no vote
    ABSENT = 5  # of votes from files: there is none, and nobody was asked


@dataclass(frozen=True, slots=True)
class Voter:
    """`lane` is None for votes from elsewhere; costs are None where a price is not known; latencies in ms."""

    name: str
    lane: str | None = None
    cost_usd: float | None = None
    latency_ms: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Gold:
    """The right values, typed as the votes; -1 or NaN where none is known, -2 a value that is none of the labels.

    `strange`: the first values that are no vote, of so many rows.
    """

    values: Codes | Numbers
    strange_rows: int = 0
    strange: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Poll:
    """`states` and `whys` are rows × voters; `whys` holds places in `reasons`, 0 where there is nothing to say.

    `row_usd`: what all calls for a row cost, NaN where that is not known. `late`: how many of the voters, the last
    ones, were asked for open rows alone.
    """

    kind: VoteKind
    votes: Votes
    voters: tuple[Voter, ...]
    states: States
    whys: Whys
    reasons: tuple[str, ...]
    row_usd: Floats
    gold: Gold | None = None
    late: int = 0

    @property
    def votes_wanted(self) -> int:
        """Voters that are asked for every row."""
        return len(self.voters) - self.late

    @property
    def rows(self) -> int:
        return len(self.states)


class Ballots:
    """Where votes are gathered: `vote` and `fail` in any order, then `poll`."""

    def __init__(self, rows: int, voters: tuple[str, ...], vocabulary: Vocabulary, *, has_gold: bool) -> None:
        self._voters = voters
        self._vocabulary = vocabulary
        size = (rows, len(voters))
        self._is_number = vocabulary.kind == "number"
        self._codes: npt.NDArray[Any] = (
            np.full(size, np.nan) if self._is_number else np.full(size, MISSING, np.int32)
        )
        self.states: States = np.zeros(size, np.uint8)
        self._whys: Whys = np.zeros(size, np.int16)
        self._reasons: list[str] = []
        self._gold = self._codes[:, 0].copy() if has_gold else None
        self._gold_rows = np.zeros(rows, bool)
        self._strange: dict[str, None] = {}
        self._strange_rows = 0

    def vote(self, rows: npt.NDArray[np.int64], voters: npt.NDArray[np.int64], values: pa.Array) -> None:
        """A vote for each line; a later one of the same row and voter takes its place."""
        votes, whys = self._read(values)
        self._codes[rows, voters] = votes
        self._whys[rows, voters] = whys
        self.states[rows, voters] = np.where(whys == 0, State.CAST, State.UNREADABLE)

    def fail(self, rows: npt.NDArray[np.int64], voters: npt.NDArray[np.int64], reasons: pa.Array) -> None:
        """Votes that will not come, with a few words why; one that was cast stays."""
        encoded = reasons.fill_null("unknown").dictionary_encode()
        places = [self._place(reason) for reason in encoded.dictionary.to_pylist()]
        whys = np.array([*places, 0], np.int16)[encoded.indices.to_numpy(zero_copy_only=False)]
        is_open = self.states[rows, voters] == State.OPEN
        self._whys[rows[is_open], voters[is_open]] = whys[is_open]
        self.states[rows[is_open], voters[is_open]] = State.FAILED

    def skip(self, rows: npt.NDArray[np.int64], voters: npt.NDArray[np.int64]) -> None:
        """Votes that nobody was asked for."""
        is_open = self.states[rows, voters] == State.OPEN
        self.states[rows[is_open], voters[is_open]] = State.NOT_ASKED

    def note_gold(self, rows: npt.NDArray[np.int64], values: pa.Array) -> None:
        """The right values of these rows; what is null is not known."""
        if self._gold is None:
            return
        is_new = ~self._gold_rows[rows]
        if not is_new.any():
            return
        rows, values = rows[is_new], values.filter(pa.array(is_new))
        rows, first = np.unique(rows, return_index=True)
        values = values.take(pa.array(first))
        self._gold_rows[rows] = True
        votes, whys = self._read(values)
        is_strange = (whys != 0) & ~values.is_null().to_numpy(zero_copy_only=False)
        if not self._is_number:
            votes = np.where(is_strange, np.int32(OUTSIDE), np.maximum(votes, MISSING))
        self._gold[rows] = votes
        self._strange_rows += int(is_strange.sum())
        if len(self._strange) < 5 and is_strange.any():
            texts = values.filter(pa.array(is_strange)).cast(pa.string()).unique().to_pylist()
            self._strange.update(dict.fromkeys(texts[: 5 - len(self._strange)]))

    def is_other_gold(self, rows: npt.NDArray[np.int64], values: pa.Array) -> npt.NDArray[np.bool_]:
        """Of which rows another right value is known than this."""
        if self._gold is None:
            return np.zeros(len(rows), np.bool_)
        told, _ = self._read(values)
        known = self._gold[rows]
        return np.asarray(_is_value(told) & _is_value(known) & (told != known))

    def poll(self, voters: tuple[Voter, ...], row_usd: Floats, *, rest: State) -> Poll:
        """`rest`: what became of the votes of which nothing was told."""
        self.states[self.states == State.OPEN] = rest
        gold = self._gold
        votes: Votes
        if self._is_number:
            votes = NumberVotes(self._voters, self._codes)
        else:
            values, place = self._vocabulary.in_order()
            table = np.append(place, np.int32(MISSING))  # what is below 0 is taken from the end
            votes = LabelVotes(self._voters, values, table[np.maximum(self._codes, MISSING)])
            gold = None if gold is None else np.where(gold < MISSING, gold, table[np.maximum(gold, MISSING)])
        told = None if gold is None else Gold(gold, self._strange_rows, tuple(self._strange))
        reasons = (*self._vocabulary.reasons, *self._reasons)
        self._whys[self._whys < 0] += len(reasons)
        return Poll(self._vocabulary.kind, votes, voters, self.states, self._whys, reasons, row_usd, told)

    def _read(self, values: pa.Array) -> tuple[Codes | Numbers, Whys]:
        if self._is_number:
            return self._vocabulary.numbers(values)
        codes = self._vocabulary.codes(values)
        return codes, self._vocabulary.reason_of(codes)

    def _place(self, reason: str) -> int:
        """Counted from the end as long as the vocabulary's own reasons may become more."""
        if reason not in self._reasons:
            self._reasons.insert(0, reason)
        return self._reasons.index(reason) - len(self._reasons)


def _is_value(cells: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(cells >= 0 if cells.dtype.kind == "i" else ~np.isnan(cells))
