"""What a hard kill may have paid for in vain: the record knows of it before it can happen.

A call is exposed from the moment at which it is sent until what it brought is committed. Before there can be more of
them, or dearer ones, than the record knows of, it is told twice as much, and that is waited for: a handful of commits
in a run. The next start reads there how many calls, and at most how much money, may be paid twice.

Money is counted in whole nano-dollars, rounded up, as in `budget`.
"""

from math import ceil
from typing import NamedTuple

from batchllm.budget import NANO, Budget
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.work import Work
from batchllm.ports import Recorder
from batchllm.pricing import worst_case_usd

#: A run with fewer calls at once tells the record once.
_FIRST_CALLS = 64


class _Known(NamedTuple):
    """What the record knows of; `cost` is None once a call was out whose worst price nobody knows."""

    calls: int = 0
    cost: int | None = 0


class Exposure:
    """`most`: so many calls may be exposed at all, of all lanes together; no more money than `budget` has left."""

    __slots__ = ("_budget", "_calls", "_cost", "_known", "_most", "_recorder")

    def __init__(self, recorder: Recorder, most: int, budget: Budget | None = None) -> None:
        self._recorder = recorder
        self._most = most
        self._budget = budget
        self._calls = 0
        self._cost = 0
        self._known = _Known()

    async def cover(self, cost: int | None) -> None:
        """Return when `covers` holds; to be followed by `enter` at once."""
        while not self.covers(cost):
            await self._tell(cost)

    def enter(self, cost: int | None) -> None:
        self._calls += 1
        self._cost += cost or 0

    def leave(self, cost: int | None) -> None:
        self._calls -= 1
        self._cost -= cost or 0

    def covers(self, cost: int | None) -> bool:
        """Whether the record knows of one more call that costs so much."""
        known = self._known
        if self._calls >= known.calls:
            return False
        return known.cost is None or (cost is not None and self._cost + cost <= known.cost)

    async def _tell(self, cost: int | None) -> None:
        wanted = self._wanted(cost)
        await self._recorder.expose(wanted.calls, None if wanted.cost is None else wanted.cost / NANO)
        self._known = _larger(self._known, wanted)  # another lane may have told more meanwhile

    def _wanted(self, cost: int | None) -> _Known:
        """What grows is doubled; so many calls of this cost if they are the first."""
        known = self._known
        calls = known.calls
        if self._calls >= calls:
            calls = max(self._calls + 1, min(self._most, max(_FIRST_CALLS, 2 * calls)))
        if known.cost is None or cost is None:
            return _Known(calls, None)
        reached = self._cost + cost
        if reached <= known.cost:
            return _Known(calls, known.cost)
        return _Known(calls, max(reached, self._affordable(2 * reached if known.cost else cost * calls)))

    def _affordable(self, cost: int) -> int:
        """What is told is taken from the next run's budget after a kill, so that it is not to be more than can be."""
        return cost if self._budget is None else min(cost, self._budget.left)


def _larger(one: _Known, other: _Known) -> _Known:
    cost = None if one.cost is None or other.cost is None else max(one.cost, other.cost)
    return _Known(max(one.calls, other.calls), cost)


def worst_cost(lane: Lane, work: Work) -> int | None:
    """Nano-dollars that a call costs at most; None without a price, or where nothing caps an answer that costs."""
    if lane.price is None or (not lane.max_output_tokens and lane.price.charges_output):
        return None
    return ceil(worst_usd(lane, work) * NANO)


def worst_usd(lane: Lane, work: Work) -> float:
    """What a call costs at most, as a budget reserves it: nothing without a price."""
    if lane.price is None:
        return 0.0
    request = work.request
    prompt_tokens = ceil(request.prompt_tokens * lane.prompt_margin)
    output_tokens = lane.max_output_tokens * len(request.rows) * request.growth
    return worst_case_usd(lane.price, prompt_tokens, output_tokens)
