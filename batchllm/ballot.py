"""The votes of one row while they come in: is the row settled, or may a vote still to come change what is decided?"""

from dataclasses import dataclass
from typing import Literal

Rule = Literal["majority", "plurality", "unanimous", "at_least", "weighted", "median", "trimmed_mean"]
Ties = Literal["fail", "first", "keep", "escalate"]


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


def least_votes(wanted: int) -> int:
    """The default of `min_votes`: more than half of the votes wanted."""
    return wanted // 2 + 1
