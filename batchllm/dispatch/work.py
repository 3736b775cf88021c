"""Requests that wait for a lane.

Waiting costs an entry in a queue and nothing else: no task, no slot, no timer but that of a backoff. Lanes come
and take; nobody pushes. That is what lets each lane take what it can without being told weights, and what gives
the rows of a resting lane to the others at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from batchllm.fallback import Candidate, is_available, is_open_to, remaining
from batchllm.records import Failure, Request
from batchllm.retry import RetryShare, Tries

#: With `routing: fallback`, so many failures of one request send it to the next lane, however fit the first one is.
TRIES_IN_ORDER = 2


_NONE: frozenset[int] = frozenset()


class Work:
    """One request on its way, with what it has been through."""

    __slots__ = (
        "causes",
        "content",
        "cost",
        "excluded",
        "falls",
        "last_failure",
        "last_lane",
        "overdue",
        "pinned",
        "poll",
        "request",
        "sample",
        "tries",
    )

    def __init__(self, request: Request, pinned: int | None = None, sample: int = 0) -> None:
        self.request = request
        self.pinned = pinned
        self.sample = sample  # which answer of several to its rows
        self.poll: object | None = None  # what its answer is a vote in
        self.tries = Tries()
        self.excluded = _NONE
        self.last_lane: int | None = None
        self.last_failure: Failure | None = None
        self.causes: dict[str, str] = {}  # lane name → its last message
        self.content: str | None = None  # what came last and was not accepted
        self.cost: int | None = None  # of the call that is out, in nano-dollars at most; None when unknown
        self.overdue = 0  # how often it was given up for taking too long
        self.falls: dict[int, int] = {}  # lane → how often it failed this request

    def note_fall(self, lane: int) -> None:
        self.falls[lane] = self.falls.get(lane, 0) + 1

    @property
    def tired(self) -> frozenset[int]:
        """Lanes that have had their tries: in order, the next one is asked before these."""
        return frozenset(lane for lane, falls in self.falls.items() if falls >= TRIES_IN_ORDER)


class Board:
    """Everything that waits, in three kinds of queue: fresh, pinned to a lane, and returned after a failure."""

    def __init__(self, lanes: Sequence[Candidate], *, in_order: bool) -> None:
        self._lanes = lanes
        self._in_order = in_order
        self._fresh: deque[Work] = deque()
        self._pinned: list[deque[Work]] = [deque() for _ in lanes]
        self._returned: deque[Work] = deque()
        self._shares = [RetryShare() for _ in lanes]
        self._wakers = [asyncio.Event() for _ in lanes]
        self._drained = asyncio.Event()
        self._drained.set()
        self.outstanding = 0  # added and not finished, wherever it is
        self.is_closed = False

    def add(self, work: Work) -> None:
        self.outstanding += 1
        if work.pinned is None:
            self._fresh.append(work)
        else:
            self._pinned[work.pinned].append(work)
        self.wake()

    def give_back(self, work: Work) -> None:
        """A lane took it and cannot send it now: first in line again."""
        if work.tries.sent or work.excluded:
            self._returned.appendleft(work)
        elif work.pinned is None:
            self._fresh.appendleft(work)
        else:
            self._pinned[work.pinned].appendleft(work)
        self.wake()

    def return_failed(self, work: Work) -> None:
        """It failed and may be tried again."""
        self._returned.append(work)
        self.wake()

    def replace(self, parts: Sequence[Work]) -> None:
        """A request was split into these."""
        self.outstanding += len(parts) - 1
        self._returned.extendleft(reversed(parts))
        self.wake()

    def finish(self) -> None:
        """One request has its outcome, or will have none in this run."""
        self.outstanding -= 1
        self._drained.set()

    def close(self) -> None:
        """Nothing more will be taken."""
        self.is_closed = True
        self.wake()
        self._drained.set()

    def wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def below(self, bound: int) -> None:
        """Return when fewer than `bound` requests are outstanding, or the board is closed."""
        while self.outstanding >= bound and not self.is_closed:
            self._drained.clear()
            await self._drained.wait()

    def has_waiting(self, lane: int) -> bool:
        """Whether there is a request now that this lane may take."""
        return self._returned_for(lane) is not None or bool(self._fresh_for(lane))

    async def has_for(self, lane: int) -> bool:
        """Wait until there is a request for this lane; False when the board is closed."""
        waker = self._wakers[lane]
        while not self.is_closed:
            if self.has_waiting(lane):
                return True
            waker.clear()
            await waker.wait()
        return False

    def take(self, lane: int) -> Work | None:
        """The next request for this lane; None when another lane was quicker, or the board is closed."""
        if self.is_closed:
            return None
        position, fresh = self._returned_for(lane), self._fresh_for(lane)
        if position is not None:
            work = self._returned[position]
            del self._returned[position]
            self._shares[lane].note_retry()
            return work
        if fresh:
            self._shares[lane].note_fresh()
            return fresh.popleft()
        return None

    def sweep(self, is_hopeless: Callable[[Work], bool]) -> list[Work]:
        """Take out every waiting request for which no lane is left."""
        out: list[Work] = []
        for queue in (self._fresh, self._returned, *self._pinned):
            hopeless = [work for work in queue if is_hopeless(work)]
            if hopeless:
                kept = [work for work in queue if not is_hopeless(work)]
                queue.clear()
                queue.extend(kept)
                out.extend(hopeless)
        return out

    def _fresh_for(self, lane: int) -> "deque[Work] | None":
        if self._pinned[lane]:
            return self._pinned[lane]
        fresh = self._fresh
        if not fresh or not is_open_to(lane, self._lanes, excluded=_NONE, in_order=self._in_order):
            return None
        return fresh

    def _returned_for(self, lane: int) -> int | None:
        """The place of the first returned request that this lane may take now."""
        if not self._returned or not (self._shares[lane].allows_retry or not self._fresh_for(lane)):
            return None
        return next((place for place, work in enumerate(self._returned) if self._may_take(lane, work)), None)

    def _may_take(self, lane: int, work: Work) -> bool:
        if work.pinned is not None:
            return work.pinned == lane
        if self._in_order:
            tired = work.tired
            barred = work.excluded | tired if tired and self._has_other(tired, work) else work.excluded
            return is_open_to(lane, self._lanes, excluded=barred, in_order=True)
        if not is_open_to(lane, self._lanes, excluded=work.excluded, in_order=False):
            return False
        return work.last_lane != lane or not self._has_other(frozenset({lane}), work)

    def _has_other(self, lanes: frozenset[int], work: Work) -> bool:
        """After a failure another lane is the better bet, when there is one that runs."""
        others = remaining(self._lanes, work.excluded | lanes)
        return any(is_available(self._lanes[other]) for other in others)
