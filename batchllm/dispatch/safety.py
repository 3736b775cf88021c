"""When a call's place in its lane becomes free: once what it brought is safe.

A place that is free as soon as the reply is there would be taken by the next call while the answer still waits for
its commit, and a kill at that moment would lose both. Held until the commit, calls in flight and answers not yet
safe are together never more than the window, and that is all that can ever be bought twice.
"""

from collections import deque

from batchllm.dispatch.exposure import Exposure
from batchllm.dispatch.lane import Lane


class Safety:
    """Records are counted in the order in which they are put, and become safe in that order."""

    __slots__ = ("_exposure", "_put", "_waiting")

    def __init__(self, exposure: Exposure) -> None:
        self._exposure = exposure
        self._put = 0
        self._waiting: deque[tuple[int, Lane, int | None]] = deque()

    def expect(self, records: int) -> None:
        """So many records are about to be put."""
        self._put += records

    def expect_call(self, records: int, lane: Lane, cost: int | None) -> None:
        """The same; they are those of a call, which holds a place of `lane` until they are safe."""
        self._put += records
        self._waiting.append((self._put, lane, cost))

    def note_committed(self, records: int) -> None:
        """Of all records put so far, so many are safe."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= records:
            _, lane, cost = waiting.popleft()
            lane.window.leave()
            self._exposure.leave(cost)
            lane.stats.in_flight = lane.window.in_flight
