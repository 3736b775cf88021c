"""Votes while they come in: what `stop_early` needs to know whether a row is settled.

An answer is looked at as the column of output/ that it will become, and read as the finished table is, so that a vote
is the same one from a reply, from a kept answer on resume, and in the consensus.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchllm.ballot import Ballot, Roll, SetBallot, Votes
from batchllm.consensus.alike import Ints, alike, distinct_rows
from batchllm.consensus.motion import Motion
from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Poll, State
from batchllm.consensus.votes import MISSING, Codes, LabelVotes
from batchllm.consensus.weighting import given_weights


@dataclass(frozen=True, slots=True)
class EarlyVotes:
    """`over`: the column that holds the votes. `read`: its values → a vote each, None where there is none.

    `digest` is of all that a vote depends on, beside the answers: units that were skipped under another one have to be
    looked at again.
    """

    over: str
    read: Callable[[pa.Array], list[Hashable | None]]
    ballot: Callable[[], Votes]
    digest: str


def early_votes(motion: Motion) -> EarlyVotes:
    given = motion.section.weights
    weights = given_weights(given, motion.voters) if isinstance(given, Mapping) else None
    roll = Roll(motion.terms, weights)
    make = SetBallot if motion.kind == "labels" else Ballot
    return EarlyVotes(motion.over, _reader(motion), lambda: make(roll), _digest(motion))


def unsettled(poll: Poll, motion: Motion) -> int:
    """Rows that were not put to all voters, and whose votes to come could change what is decided on these terms.

    Rows that stopped on the same terms are none of them; other terms may need votes that nobody was asked for.
    """
    skipped = poll.states[:, : poll.votes_wanted] == State.NOT_ASKED
    rows = np.flatnonzero(skipped.any(axis=1) & ~(poll.states == State.OPEN).any(axis=1))
    if not len(rows) or not motion.section.can_stop_early:
        return len(rows)
    heard, voted = _heard(poll, rows)
    found = distinct_rows(np.where(skipped[rows], MISSING, heard).astype(np.int32))
    make = early_votes(motion).ballot
    is_open = np.array([not _replayed(make(), row, voted).is_settled for row in found.rows], np.bool_)
    return int(found.counts[is_open].sum())


def _heard(poll: Poll, rows: Ints) -> tuple[Ints, Callable[[int], Hashable]]:
    """Rows × voters: 0 where there is no vote, else a number for it; and the value of such a number."""
    votes = poll.votes
    cast = votes.cast[rows, : poll.votes_wanted]
    if poll.kind == "labels" and isinstance(votes, LabelVotes):
        sets = [frozenset(json.loads(text)) for text in votes.values]
        return np.where(cast, votes.codes[rows, : poll.votes_wanted] + 1, 0), lambda number: sets[number - 1]
    cells = votes.codes if isinstance(votes, LabelVotes) else votes.numbers
    return np.where(cast, alike(cells[rows, : poll.votes_wanted], cast) + 1, 0), lambda number: number


def _replayed(ballot: Votes, heard: Codes, voted: Callable[[int], Hashable]) -> Votes:
    """`heard`: of each voter a number for its vote, 0 for none that will come, -1 for one that may."""
    for voter, number in enumerate(heard.tolist()):
        if number != MISSING:
            ballot.note(voter, voted(number) if number else None)
    return ballot


def _reader(motion: Motion) -> Callable[[pa.Array], list[Hashable | None]]:
    """Equal votes are equal values: numbers, codes of texts, or sets of labels."""
    words = vocabulary(motion.kind, motion.labels, motion.section.normalise)

    def numbers(column: pa.Array) -> list[Hashable | None]:
        found, _ = words.numbers(column)
        return [None if np.isnan(number) else float(number) for number in found]

    def codes(column: pa.Array) -> list[Hashable | None]:
        return [None if code < 0 else int(code) for code in words.codes(column)]

    def sets(column: pa.Array) -> list[Hashable | None]:
        found = words.codes(column)
        values = words.values
        return [None if code < 0 else frozenset(json.loads(values[code])) for code in found]

    return {"number": numbers, "labels": sets}.get(motion.kind, codes)


def _digest(motion: Motion) -> str:
    """No lane of the section is in it, for a lane holds a key."""
    section = motion.section
    names = {"normalise", "rule", "weights", "min_votes", "priority"}
    told = section.model_dump(mode="json", include=names)
    ties = section.ties if isinstance(section.ties, str) else "escalate"
    voted = [motion.over, motion.kind, list(motion.labels), ties, list(motion.voters)]
    text = json.dumps([told, voted], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
