"""The calls that are out: each a task, with its lane, its request and the moment at which it was sent."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from batchllm.dispatch.lane import Lane
from batchllm.dispatch.work import Work


class Out(NamedTuple):
    """A call in flight, with the first of its rows."""

    lane: str
    row: int
    rows: int
    for_s: float


class Calls:
    """`ended` hears of each task once it is over."""

    def __init__(self, ended: Callable[[asyncio.Task[None]], None]) -> None:
        self._ended = ended
        self._out: dict[asyncio.Task[None], tuple[Lane, Work, float]] = {}
        self._overdue: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._out)

    def start(
        self,
        call: Coroutine[object, object, None],
        lane: Lane,
        work: Work,
        now_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        task = loop.create_task(call)
        self._out[task] = (lane, work, now_s)
        task.add_done_callback(self._end)

    def table(self, now_s: float) -> list[Out]:
        """Those that have been out for the longest first."""
        out = [
            Out(lane.info.name, work.request.rows[0].ordinal, len(work.request.rows), now_s - sent_s)
            for lane, work, sent_s in self._out.values()
        ]
        return sorted(out, key=lambda one: -one.for_s)

    async def drain(self, timeout_s: float) -> None:
        """Until all are over, or the time is."""
        if self._out:
            await asyncio.wait(self._out, timeout=timeout_s)

    async def abandon(self) -> int:
        """Cancel what is out. It may have been paid for: the record says unknown."""
        left = list(self._out)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    def end_overdue(self, now_s: float) -> None:
        """Cancel those that take far longer than any before on their lane."""
        for task, (lane, work, sent_s) in self._out.items():
            if now_s - sent_s > lane.latency.deadline_s(work.overdue) and task not in self._overdue:
                work.overdue += 1
                self._overdue.add(task)
                task.get_loop().call_soon(task.cancel)  # a reply that has come in this turn goes first

    def is_overdue(self, task: "asyncio.Task[object] | None") -> bool:
        """Whether the cancellation that has just reached this task is that of `end_overdue`, and nobody else's."""
        return task is not None and task in self._overdue and task.uncancel() == 0

    def _end(self, task: asyncio.Task[None]) -> None:
        self._out.pop(task, None)
        self._overdue.discard(task)
        self._ended(task)
