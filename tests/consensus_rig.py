"""What votes decide, in plain Python and fractions: a row at a time, by the words of the rules, not by their code."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from batchllm.consensus.terms import Terms

Outcome = tuple[str, str | None, frozenset[str]]


def outcome(votes: Sequence[str | None], terms: Terms, weights: Sequence[Fraction] | None = None) -> Outcome:
    """Status, value, and the values that lead."""
    cast = [vote for vote in votes if vote is not None]
    leading = leaders(votes, terms, weights)
    if len(cast) < terms.min_votes:
        return "too_few", None, leading
    status = _status(cast, tallies(votes, terms, weights), leading, terms)
    if status == "decided":
        return status, next(iter(leading)), leading
    if terms.ties == "first" and leading:
        order = [*terms.priority, *(voter for voter in range(len(votes)) if voter not in terms.priority)]
        return "decided", next(votes[voter] for voter in order if votes[voter] in leading), leading
    return status, None, leading


def tallies(
    votes: Sequence[str | None], terms: Terms, weights: Sequence[Fraction] | None
) -> Mapping[str, Fraction]:
    found: Counter[str] = Counter()
    for voter, vote in enumerate(votes):
        if vote is not None:
            is_weighed = weights is not None and terms.rule in ("majority", "plurality", "weighted")
            found[vote] += weights[voter] if is_weighed else Fraction(1)  # type: ignore[index,assignment]
    return found  # type: ignore[return-value]


def leaders(votes: Sequence[str | None], terms: Terms, weights: Sequence[Fraction] | None) -> frozenset[str]:
    found = tallies(votes, terms, weights)
    most = max(found.values(), default=0)
    return frozenset(value for value, weight in found.items() if weight == most and weight > 0)


def _status(cast: Sequence[str], found: Mapping[str, Fraction], leading: frozenset[str], terms: Terms) -> str:
    most = max(found.values())
    if terms.rule == "unanimous":
        return "decided" if len(set(cast)) == 1 else "undecided"
    if terms.rule == "at_least" and most < (terms.at_least or 0):
        return "undecided"
    if len(leading) > 1:
        return "tied"
    if not leading or (terms.rule == "majority" and most * 2 <= sum(found.values())):
        return "undecided"
    return "decided"


def shares(
    votes: Sequence[str | None], terms: Terms, weights: Sequence[Fraction] | None
) -> tuple[float, float, float]:
    """Share of what leads, margin, entropy in bits; NaN without votes."""
    ranked = sorted(tallies(votes, terms, weights).values(), reverse=True)
    total = sum(ranked)
    if not total:
        return math.nan, math.nan, math.nan
    second = ranked[1] if len(ranked) > 1 else Fraction(0)
    bits = -sum(float(part / total) * math.log2(part / total) for part in ranked if part)
    return float(ranked[0] / total), float((ranked[0] - second) / total), bits


def kinds_of_rows(voters: int) -> Iterator[tuple[str | None, ...]]:
    """Every way in which so many may vote or fail, up to the names of the values: the first is a, the next is b."""
    if voters == 0:
        yield ()
        return
    for before in kinds_of_rows(voters - 1):
        known = sorted({vote for vote in before if vote is not None})
        for vote in (None, *known, chr(ord("a") + len(known))):
            yield (*before, vote)
