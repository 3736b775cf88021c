"""The votes of one row while they come in: is the row settled, or may a vote still to come change what is decided?

The law: once a row is settled, whatever the voters not heard yet would say, and whichever of them would fail, the rule
decides the same value with the same status as it does now; of a row left open with `ties: keep` or `escalate` the
leading values stay the same, too. So who is not asked then is not missed. What the rule decides is written in
`batchllm.consensus.rules`; here is only how far away a change is.

Counted in whole units of weight, here and there: sums of floats depend on their order, and a tie must be a tie.
"""

import math
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, Protocol

Rule = Literal["majority", "plurality", "unanimous", "at_least", "weighted", "median", "trimmed_mean"]
Ties = Literal["fail", "first", "keep", "escalate"]

#: Rules whose votes are weighed where voters have weights; the others count heads.
WEIGHED = frozenset({"majority", "plurality", "weighted"})
#: All weights together are about this many units: finer than any weight is known, coarser than the dust of floats.
_UNITS_EXPONENT = 12


@dataclass(frozen=True, slots=True)
class Terms:
    """The rule, and what it needs. `voters`: how many votes are wanted of each row.

    `at_least`: votes for one value that decide, with that rule. `trim`: share of the numbers cut off at each end.
    `min_votes`: fewer votes decide nothing. `priority`: voters by their place, the first first; those not named come
    after them, as they stand.
    """

    rule: Rule
    voters: int
    min_votes: int
    at_least: int | None = None
    trim: float = 0.0
    ties: Ties = "fail"
    priority: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.voters < 1 or self.min_votes < 1:
            raise ValueError(f"no votes wanted: {self.voters} voters, at least {self.min_votes}")
        if (self.rule == "at_least") != (self.at_least is not None):
            raise ValueError("at_least goes with its number, and that with it")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"cannot cut {self.trim} off at each end")

    def ranks(self, voters: int) -> list[int]:
        """The rank of each voter, 0 is first; `voters` may be more than are wanted (one of an escalation, say)."""
        order = [*dict.fromkeys(voter for voter in self.priority if voter < voters)]
        named = set(order)
        order += [voter for voter in range(voters) if voter not in named]
        ranks = [0] * voters
        for rank, voter in enumerate(order):
            ranks[voter] = rank
        return ranks


def least_votes(wanted: int) -> int:
    """The default of `min_votes`: more than half of the votes wanted."""
    return wanted // 2 + 1


def in_units(weights: Sequence[float]) -> list[int]:
    """Weights in whole units, of which all together have about 10¹²: 0.1 and 0.2 weigh what 0.3 does.

    A weight too small to be one unit is one: it still breaks a tie.
    """
    wrong = [weight for weight in weights if not (math.isfinite(weight) and weight >= 0)]
    if wrong:
        raise ValueError(f"not a weight: {wrong[0]}")
    largest = max(weights, default=0.0)
    if largest == 0:
        return [0] * len(weights)
    digits = _UNITS_EXPONENT - math.ceil(math.log10(largest) + math.log10(len(weights)))
    return [0 if weight == 0 else max(1, round(_shifted(weight, digits))) for weight in weights]


def _shifted(weight: float, digits: int) -> float:
    """Times 10 to the power of `digits`, which alone may be more than a float can be."""
    half = digits // 2
    return float(weight * 10.0**half * 10.0 ** (digits - half))


class Roll:
    """The voters of a job: their weights, their ranks, and how many of them to ask first. One for all rows.

    `weights`: one for each voter, each more than 0; without them all weigh the same.
    """

    __slots__ = ("by_rank", "first_wave", "ranks", "terms", "total", "units")

    def __init__(self, terms: Terms, weights: Sequence[float] | None = None) -> None:
        self.terms = terms
        self.units = [1] * terms.voters
        if weights is not None and terms.rule in WEIGHED:
            if len(weights) != terms.voters or not all(weights):
                raise ValueError(f"{terms.voters} voters need as many weights, each more than 0: {weights}")
            self.units = in_units(weights)
        self.total = sum(self.units)
        self.ranks = terms.ranks(terms.voters)
        self.by_rank = sorted(range(terms.voters), key=self.ranks.__getitem__)
        self.first_wave = Ballot(self).least_to_ask()


class Votes(Protocol):
    """What has been heard of one row; `Ballot` or `SetBallot`, by the kind of the votes."""

    def note(self, voter: int, value: object) -> None: ...
    @property
    def is_settled(self) -> bool: ...
    def least_to_ask(self) -> int: ...


class Ballot:
    """One row's votes, each for one value: text, number, boolean."""

    __slots__ = ("_best_rank", "_cast", "_heard", "_left", "_roll", "_tally", "_to_come", "_weight")

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self._tally: dict[Hashable, int] = {}
        self._best_rank: dict[Hashable, int] = {}  # of the voters for a value; kept when ties go by priority
        self._heard = 0  # voters as bits
        self._cast = 0
        self._weight = 0
        self._to_come = roll.terms.voters
        self._left = roll.total  # the weight of those

    def note(self, voter: int, value: Hashable | None) -> None:
        """A vote that was cast, or None for one that will not come: a failed call, an answer without a vote."""
        bit = 1 << voter
        if self._heard & bit:
            raise ValueError(f"voter {voter} has voted before")
        roll = self._roll
        units = roll.units[voter]
        self._heard |= bit
        self._to_come -= 1
        self._left -= units
        if value is None:
            return
        self._cast += 1
        self._weight += units
        self._tally[value] = self._tally.get(value, 0) + units
        if roll.terms.ties == "first":
            rank = roll.ranks[voter]
            if rank < self._best_rank.get(value, roll.terms.voters):
                self._best_rank[value] = rank

    @property
    def is_settled(self) -> bool:
        """Nothing that may still come changes what is decided."""
        if not self._to_come:
            return True
        terms = self._roll.terms
        if self._cast < terms.min_votes:
            return self._cast + self._to_come < terms.min_votes
        lead = second = 0
        for weight in self._tally.values():
            if weight > lead:
                second, lead = lead, weight
            elif weight > second:
                second = weight
        ahead = lead - second
        if terms.ties == "first":  # whatever the bar, one of the leading values decides
            return ahead > self._left or (ahead == self._left and self._wins_ties(lead, second))
        return self._has_settled(lead, stays_ahead=ahead > self._left)

    def _has_settled(self, lead: int, *, stays_ahead: bool) -> bool:
        """`lead` is the weight of what leads; `stays_ahead`: it does so alone, come what may."""
        terms, left = self._roll.terms, self._left
        # What is told of a row that is undecided, come what may.
        is_told = stays_ahead or terms.ties == "fail"
        match terms.rule:
            case "plurality" | "weighted":
                return stays_ahead
            case "majority":
                # Another vote may part a tie, so that one alone must lead even if none can have a majority.
                return 2 * lead > self._weight + left or (2 * lead + left <= self._weight and stays_ahead)
            case "at_least":
                bar = terms.at_least or 0
                return stays_ahead if lead >= bar else lead + left < bar and is_told
            case "unanimous":
                return len(self._tally) > 1 and is_told
            case _:
                return False

    def _wins_ties(self, lead: int, second: int) -> bool:
        """A rival draws level if all to come vote for it: has what leads now a voter that ranks before all theirs?"""
        best = next(self._best_rank[value] for value, weight in self._tally.items() if weight == lead)
        to_come = next(rank for rank, voter in enumerate(self._roll.by_rank) if not self._heard >> voter & 1)
        return best < to_come and all(
            best < self._best_rank[value] for value, weight in self._tally.items() if weight == second
        )

    def least_to_ask(self) -> int:
        """How many of the voters not heard yet, in their order, have to be heard before the row can be settled.

        0 when it is. Tried are the votes that settle soonest: for what leads, for a new value each, or one for a new
        value and the others for what leads (unanimous and at_least are settled by dissent, too).
        """
        if self.is_settled:
            return 0
        next_ones = [voter for voter in range(self._roll.terms.voters) if not self._heard >> voter & 1]
        leading = max(self._tally, key=self._tally.__getitem__, default=_NEW[0])
        for wave in range(1, len(next_ones)):
            same = [leading] * wave
            if any(
                self._with(next_ones, votes).is_settled
                for votes in (same, [object() for _ in same], [*same[1:], _NEW[1]])
            ):
                return wave
        return len(next_ones)

    def _with(self, voters: Sequence[int], values: Sequence[Hashable]) -> "Ballot":
        """A copy that has heard these, too: as many voters as there are values."""
        ballot = Ballot(self._roll)
        ballot._tally, ballot._best_rank = self._tally.copy(), self._best_rank.copy()
        ballot._heard, ballot._cast, ballot._weight = self._heard, self._cast, self._weight
        ballot._to_come, ballot._left = self._to_come, self._left
        for voter, value in zip(voters, values, strict=False):
            ballot.note(voter, value)
        return ballot


#: Values that nobody votes for.
_NEW = (object(), object())


class SetBallot:
    """One row's votes, each a set of labels: the rule decides each label, in or out, and all have to be settled."""

    __slots__ = ("_labels", "_roll", "_votes")

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self._votes: list[tuple[int, AbstractSet[object] | None]] = []
        self._labels: set[object] = {None}  # None stands for each label that nobody has named

    def note(self, voter: int, value: object) -> None:
        """A set of labels, or None for a vote that will not come."""
        if value is not None and not isinstance(value, AbstractSet):
            raise TypeError(f"a vote that is no set of labels: {value!r}")
        self._votes.append((voter, value))
        self._labels.update(value or ())

    @property
    def is_settled(self) -> bool:
        return all(self._of(label).is_settled for label in self._labels)

    def least_to_ask(self) -> int:
        return max(self._of(label).least_to_ask() for label in self._labels)

    def _of(self, label: object) -> Ballot:
        ballot = Ballot(self._roll)
        for voter, value in self._votes:
            ballot.note(voter, None if value is None else label in value)
        return ballot
