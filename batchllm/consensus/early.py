"""Votes while they come in: what `stop_early` needs to know whether a row is settled.

An answer is looked at as the column of output/ that it will become, so that a vote is read alike from a reply, from a
kept answer on resume, and from the finished table.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types

from batchllm.ballot import Ballot, Roll, SetBallot, Terms, Votes, least_votes
from batchllm.spec.consensus import AtLeast, Consensus, TrimmedMean


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


def early_votes(
    consensus: Consensus, fields: Sequence[pa.Field], typed: Sequence[pa.Field], voters: Sequence[str]
) -> EarlyVotes:
    """`fields` of the answers, `typed` those out of the schema; `voters` by name, a lane's samples as `lane#1`.

    Raises KeyError where there is no such column.
    """
    over = consensus.over or (typed[0].name if len(typed) == 1 else "content")
    kinds = {field.name: field.type for field in fields}
    terms = terms_of(consensus, voters)
    roll = Roll(terms, _weights(consensus, voters))
    make = SetBallot if _is_set(kinds[over]) else Ballot
    return EarlyVotes(over, read_votes, lambda: make(roll), _digest(consensus, over, voters))


def read_votes(column: pa.Array) -> list[Hashable | None]:
    """Values as they are: equal ones are the same vote. Lists are sets.

    Where votes are normalised, or of another kind than their column, this is the place.
    """
    if _is_set(column.type):
        return [None if value is None else frozenset(value) for value in column.to_pylist()]
    encoded = column.dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    places = encoded.indices.fill_null(len(values) - 1).to_pylist()
    return [values[place] for place in places]


def terms_of(consensus: Consensus, voters: Sequence[str]) -> Terms:
    rule = consensus.rule
    name = (
        "at_least" if isinstance(rule, AtLeast) else "trimmed_mean" if isinstance(rule, TrimmedMean) else rule
    )
    return Terms(
        name,
        len(voters),
        consensus.min_votes or least_votes(len(voters)),
        at_least=rule.at_least if isinstance(rule, AtLeast) else None,
        trim=rule.trimmed_mean if isinstance(rule, TrimmedMean) else 0.0,
        ties=consensus.ties if isinstance(consensus.ties, str) else "escalate",
        priority=tuple(
            at
            for named in consensus.priority
            for at, voter in enumerate(voters)
            if named in (voter, _lane(voter))
        ),
    )


def voter_names(lanes: Sequence[str], samples: int) -> list[str]:
    """In the order of the slots; without lanes of its own a voter is a sample."""
    if samples == 1:
        return list(lanes)
    return [f"{lane}#{sample}" for lane in lanes or ("",) for sample in range(1, samples + 1)]


def _lane(voter: str) -> str:
    return voter.rpartition("#")[0] or voter


def _weights(consensus: Consensus, voters: Sequence[str]) -> list[float] | None:
    given = consensus.weights
    if not isinstance(given, dict):
        return None
    return [given.get(voter, given.get(_lane(voter), 1.0)) for voter in voters]


def _is_set(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _digest(consensus: Consensus, over: str, voters: Sequence[str]) -> str:
    """No lane of the section is in it, for a lane holds a key."""
    told = consensus.model_dump(
        mode="json", include={"kind", "labels", "normalise", "rule", "weights", "min_votes", "priority"}
    )
    ties = consensus.ties if isinstance(consensus.ties, str) else "escalate"
    text = json.dumps([told, over, ties, list(voters)], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
