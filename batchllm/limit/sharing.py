"""The door to whoever else uses the same limit, and its twin for runs that share with nobody.

A *member* is one lane of one process; a *pool* is what a provider limits as a whole. Moments are seconds of the
monotonic clock, which all processes of one machine have in common. Shares are parts of the limit (`shares.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from batchllm.limit.pool import Pool


@dataclass(frozen=True, slots=True)
class Learned:
    """Limits that a run found out, a minute's worth and calls at once; None where it did not."""

    rpm: float | None = None
    tpm: float | None = None
    concurrency: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member may do, as of its last beat. One object, so that its fields belong together."""

    share: float  # of the limit, in [0, 1]; 0: the others have not made room yet
    lease_until_s: float  # from then on the others may have taken the share
    quiet_until_s: float = 0.0  # the latest moment that a provider asked any member to wait for
    next_free_s: float = (
        0.0  # the latest slot that any member, gone ones too, has taken or waits for: a start begins there
    )
    others: int = 0  # living members beside this one

    def share_at(self, now_s: float) -> float:
        """The part of the limit that may be used now: none once the lease is over, until the next beat."""
        return self.share if now_s < self.lease_until_s else 0.0


ALONE = Standing(share=1.0, lease_until_s=math.inf)
#: Joined, but not yet heard: no beat has come through.
NOT_YET = Standing(share=0.0, lease_until_s=-math.inf)


@dataclass(frozen=True, slots=True)
class Report:
    """What a member tells the others. Numbers that are none, negative or far in the future are put right."""

    demand: float = (
        math.inf
    )  # part of the limit that it could use: rate it could send / limit; inf: all it can get
    used: float = 0.0  # part of the limit that it used of late
    next_free_s: float = 0.0
    quiet_until_s: float = 0.0
    learned: Learned | None = None


class Membership(Protocol):
    """Belongs to the loop's thread; nothing here waits or takes a lock."""

    @property
    def standing(self) -> Standing: ...

    @property
    def learned(self) -> Learned | None:
        """What an earlier or another run had learned when this one joined, if that is less than a day ago."""

    def report(self, report: Report) -> None:
        """For the next beat; a longer silence goes out at once."""

    def watch(self, told: Callable[[], None]) -> None:
        """`told` is called on the loop's thread after a beat that changed the standing in anything but its lease."""

    def leave(self) -> None:
        """The share is the others' from now on; more calls do nothing."""


class Sharing(Protocol):
    async def join(self, pool: Pool, demand: float = math.inf) -> Membership:
        """Answers within some milliseconds; alone in the pool, with the whole limit at once."""

    async def close(self) -> None:
        """Every member leaves."""


class LoneMember:
    """A member of nothing: the whole limit, for ever. Keeps what it was told, for tests."""

    def __init__(self, standing: Standing = ALONE, learned: Learned | None = None) -> None:
        self.standing = standing
        self.learned = learned
        self.reported = Report()
        self.has_left = False
        self._told: Callable[[], None] | None = None

    def report(self, report: Report) -> None:
        self.reported = report

    def watch(self, told: Callable[[], None]) -> None:
        self._told = told

    def leave(self) -> None:
        self.has_left = True

    def set(self, standing: Standing) -> None:
        """What a beat would do: for tests of those who hold a membership."""
        self.standing = standing
        if self._told is not None:
            self._told()


class NoSharing:
    """For runs whose limits are nobody else's: simulators inside the process, and tests."""

    def __init__(self) -> None:
        self.members: list[tuple[Pool, LoneMember]] = []

    async def join(self, pool: Pool, demand: float = math.inf) -> LoneMember:
        member = LoneMember()
        member.report(Report(demand=demand))
        self.members.append((pool, member))
        return member

    async def close(self) -> None:
        for _, member in self.members:
            member.leave()
