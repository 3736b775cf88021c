"""What a lane waits for before it sends: to be fit, for tokens, for money, and for the record to know of the call.

A request that cannot go now is given back, so that another lane may take it.
"""

import asyncio
from collections.abc import Callable, Sequence

from batchllm.budget import Budget
from batchllm.clock import Clock
from batchllm.dispatch.aftermath import Aftermath
from batchllm.dispatch.endings import Ending
from batchllm.dispatch.exposure import Exposure, worst_cost, worst_usd
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.work import Board, Work
from batchllm.errors import ExitCode
from batchllm.fallback import LaneState, remaining
from batchllm.limit.bucket import Reservation

#: No wait is longer than this without a look at what has changed.
LONGEST_NAP_S = 5.0
#: The loop's timers count milliseconds; a shorter wait would spin. What comes late is made up for.
SHORTEST_NAP_S = 0.001
#: A limit that is raised, or a share, brings the moment of a waiting request forward: it is looked at so often.
_LOOK_EVERY_S = 1.0


class Admission:
    """`in_flight` counts the calls that may still give money back; `stop` ends the run when there is none left."""

    def __init__(  # noqa: PLR0913 - what it asks before a request may go, each for itself
        self,
        lanes: Sequence[Lane],
        board: Board,
        aftermath: Aftermath,
        exposure: Exposure,
        *,
        budget: Budget | None,
        clock: Clock,
        in_flight: Callable[[], int],
        stop: Callable[[Ending], None],
    ) -> None:
        self._lanes = lanes
        self._board = board
        self._aftermath = aftermath
        self._exposure = exposure
        self._budget = budget
        self._clock = clock
        self._in_flight = in_flight
        self._stop = stop
        self._settled = asyncio.Event()

    async def is_fit(self, lane: Lane) -> bool:
        """Wait until the lane may send one more request; False when it never will again."""
        while not self._board.is_closed:
            if lane.is_fit:
                if lane.has_room:
                    lane.stats.state, lane.stats.reason = "running", ""
                    return True
                await lane.window.change()
                continue
            if lane.health.state is LaneState.DEAD:
                break
            now_s = self._clock.monotonic_s()
            lane.health.wake(now_s)
            if not lane.is_fit:
                await self._rest(lane, now_s)
        return False

    async def _rest(self, lane: Lane, now_s: float) -> None:
        rest_s, quiet_s = lane.health.rest_s(now_s), lane.quiet_s
        if rest_s >= quiet_s:
            lane.stats.state = "resting"
            lane.stats.reason = f"next probe in {rest_s:.0f} s: {lane.health.reason}"
        else:
            lane.stats.state = "waiting"
            lane.stats.reason = f"the provider asked for {quiet_s:.0f} s of silence"
        await asyncio.sleep(min(max(rest_s, quiet_s), LONGEST_NAP_S))

    async def ready(self, lane: Lane, work: Work) -> Reservation | None:
        """Reserve tokens and money for a request, and wait for them; when it cannot go now it is given back.

        The lane is fit, and has its share, as of just now.
        """
        now_s = self._clock.monotonic_s()
        tpm = lane.limits.tpm
        if tpm is not None and work.request.prompt_tokens > tpm and not lane.limits.is_recalled:
            self._aftermath.pass_on(lane, work)
            return None
        likely, most = lane.tokens(work.request)  # an estimate of the answer refuses no row
        made = lane.limits.reserve(likely if tpm is None else min(likely, tpm), most, now_s)
        work.cost = worst_cost(lane, work)
        may_go = made.ready_s <= now_s or await self._may_go(lane, made, now_s)
        if may_go and await self._is_secured(lane, work):
            return made
        lane.limits.settle(made, 0, self._clock.monotonic_s())
        await self._give_back(lane, work)
        return None

    async def _may_go(self, lane: Lane, made: Reservation, now_s: float) -> bool:
        """Wait for the tokens; False when the lane is not fit any more."""
        while lane.is_fit:
            lane.tokens_at_s = made.ready_s
            await asyncio.sleep(min(max(made.ready_s - now_s, SHORTEST_NAP_S), _LOOK_EVERY_S))
            now_s = self._clock.monotonic_s()
            if made.ready_s <= now_s and lane.limits.has_share(now_s):
                return lane.is_fit
        return False

    async def _is_secured(self, lane: Lane, work: Work) -> bool:
        """Reserve the money, and let the record know of it; meanwhile the lane may have changed."""
        budget = self._budget
        if budget is not None and not budget.reserve(worst_usd(lane, work)):
            return False
        if self._exposure.covers(work.cost):
            return True
        await self._exposure.cover(work.cost)
        if lane.is_fit:
            return True
        self.settle(lane, work, 0.0)
        return False

    def settle(self, lane: Lane, work: Work, cost_usd: float | None) -> None:
        """The money that was reserved for a request has become this much, None where nobody knows."""
        if self._budget is not None:
            self._budget.settle(worst_usd(lane, work), cost_usd)
            self._settled.set()

    async def _give_back(self, lane: Lane, work: Work) -> None:
        """The lane may not send now, or there is no money for it."""
        budget = self._budget if lane.is_fit else None
        if budget is not None and self._is_for_a_cheaper_lane(lane, work, budget):
            work.excluded |= {lane.index}
            work.causes[lane.info.name] = (
                f"{lane.info.name}: what is left of the budget does not cover the call"
            )
            budget = None
        self._aftermath.give_back(work)
        if budget is not None:
            await self._money_back(budget, worst_usd(lane, work))

    def _is_for_a_cheaper_lane(self, lane: Lane, work: Work, budget: Budget) -> bool:
        """Money never comes back to a lane that is too dear now, but another one may still answer for what is left."""
        if work.pinned is not None or budget.could_reserve(worst_usd(lane, work)):
            return False
        others = remaining(self._lanes, work.excluded | {lane.index})
        return any(budget.could_reserve(worst_usd(self._lanes[other], work)) for other in others)

    async def _money_back(self, budget: Budget, worst_usd: float) -> None:
        """Calls in flight may cost less than was reserved for them; when even that is no use the budget is spent."""
        if self._in_flight() and budget.could_reserve(worst_usd):
            self._settled.clear()
            await self._settled.wait()
            return
        self._stop(
            Ending(
                ExitCode.LIMIT_STOPPED,
                f"the budget of {budget.limit_usd:g} USD is spent: the next call could exceed it",
                "raise budget.usd and start again; finished rows are kept and not paid again",
            )
        )
