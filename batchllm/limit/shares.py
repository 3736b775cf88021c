"""How the members of a pool divide one limit: arithmetic only, nothing here reads a clock or a file.

Everything is counted in parts of the limit: 1.0 is all that the provider allows, whatever it limits (requests, tokens,
both) and whatever each member believes the number to be. A member *wants* a part, *is due* its fair share of the
whole, and *holds* what it was granted. What is granted is a promise to all others: a member lowers its grant the
moment that less is due to it, and raises it only into what nobody holds. So the grants never add up to more than the
limit, in whatever order the members come by, and after each has come by twice everybody holds what is due.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

#: What even an idle member keeps: a lane that may send nothing can never show that it wants more. A fiftieth of 3,000
#: requests a minute is one a second.
FLOOR = 0.02
#: A member that wants less than its equal part gets a little more than it wants: one that uses all of what it holds
#: cannot be told from one that is held back by it.
ROOM = 1.25


class Claim(NamedTuple):
    """One living member: the part of the limit that it wants and the part that it holds, both in [0, 1]."""

    wanted: float
    granted: float


def wanted_part(demand: float, used: float) -> float:
    """What to plan for a member that could use `demand` and really used `used`, in parts of the limit.

    Infinity is everything, and so is a number that is none: who does not know is treated like all others.
    """
    if math.isnan(demand) or math.isnan(used):
        return 1.0
    return min(1.0, max(FLOOR, ROOM * max(demand, used)))


def fair_shares(wanted: Sequence[float]) -> list[float]:
    """Each member's due, in the order given; together 1.

    When all want more than there is, nobody is due more than a common level, and who wants less gets that. When all
    want less, nobody is due less than a common level: what is left over is room to grow.
    """
    if not wanted:
        return []
    if sum(wanted) >= 1.0:
        level = _highest_level(wanted)
        return [min(part, level) for part in wanted]
    level = _lowest_level(wanted)
    return [max(part, level) for part in wanted]


def _highest_level(wanted: Sequence[float]) -> float:
    """The level where `sum(min(part, level)) == 1`."""
    left, count = 1.0, len(wanted)
    for part in sorted(wanted):
        if part * count >= left:
            return left / count
        left -= part
        count -= 1
    return max(wanted)  # they add up to 1 but for the last bit


def _lowest_level(wanted: Sequence[float]) -> float:
    """The level where `sum(max(part, level)) == 1`."""
    left, count = 1.0, len(wanted)
    for part in sorted(wanted, reverse=True):
        if part * count <= left:
            return left / count
        left -= part
        count -= 1
    return min(wanted)  # they add up to 1 but for the last bit


class Grant(NamedTuple):
    """What a member may hold from now on, and what is due to it."""

    granted: float
    due: float

    @property
    def is_short(self) -> bool:
        """Whether it waits for others to lower theirs."""
        return self.granted < self.due - 1e-9


def next_grant(wanted: float, others: Sequence[Claim]) -> Grant:
    """Down at once, up only into what the others do not hold; what the member itself held does not matter."""
    due = fair_shares([wanted, *(other.wanted for other in others)])[0]
    free = max(0.0, 1.0 - sum(other.granted for other in others))
    return Grant(min(due, free), due)
