"""What a hard kill may pay for in vain, told to the record before it can happen."""

import asyncio
from collections.abc import Sequence

import pytest
from dispatch_rig import SERVER_ERROR, LateRecorder, Rig, Script, failing_first, rows

from batchllm.budget import NANO, Budget
from batchllm.dispatch.exposure import Exposure, worst_cost
from batchllm.dispatch.work import Work
from batchllm.errors import StorageError
from batchllm.limit.window import Window
from batchllm.pricing import Price
from batchllm.records import Failure, Response
from batchllm.testing import MemoryRecorder, ScriptedProvider, echo, run_virtual, text_request

PRICE = Price(1.0, 2.0, "job")


async def entered(exposure: Exposure, costs: Sequence[int | None]) -> None:
    for cost in costs:
        await exposure.cover(cost)
        exposure.enter(cost)


def told(
    costs: Sequence[int | None], most: int = 1_000, budget: Budget | None = None
) -> list[tuple[int, float | None]]:
    recorder = MemoryRecorder()
    asyncio.run(entered(Exposure(recorder, most, budget), costs))
    return recorder.exposed


def test_a_few_calls_of_one_price_are_told_once() -> None:
    assert told([NANO] * 64) == [(64, 64.0)]


def test_what_grows_is_doubled_up_to_what_can_be() -> None:
    assert [calls for calls, _ in told([0] * 500, most=500)] == [64, 128, 256, 500]


def test_a_dearer_call_is_told_before_it_may_go() -> None:
    assert told([NANO, 100 * NANO, NANO]) == [(64, 64.0), (64, 202.0)]


def test_no_more_is_told_than_the_budget_has_left() -> None:
    budget = Budget(11.0, 1.0)
    assert told([NANO] * 8, budget=budget) == [(64, 10.0)]
    assert told([4 * NANO, 5 * NANO, NANO], budget=budget) == [(64, 10.0)]


def test_what_is_exposed_is_told_though_it_is_more_than_is_left() -> None:
    """Answered calls are spent before they are committed: they are exposed, and no part of what is left."""
    assert told([NANO] * 3, budget=Budget(3.0, 2.0)) == [(64, 1.0), (64, 2.0), (64, 3.0)]


def test_a_price_that_is_not_known_is_told_as_such_and_never_taken_back() -> None:
    assert told([NANO, None, NANO]) == [(64, 64.0), (64, None)]


def test_what_is_committed_is_exposed_no_more() -> None:
    recorder = MemoryRecorder()
    exposure = Exposure(recorder, 1_000)

    async def main() -> None:
        for _ in range(500):
            await entered(exposure, [NANO])
            exposure.leave(NANO)

    asyncio.run(main())
    assert recorder.exposed == [(64, 64.0)]


@pytest.mark.parametrize(
    ("price", "cap", "cost"),
    [
        (None, 5, None),
        (PRICE, 0, None),  # an answer without an end
        (PRICE.without_output(), 0, 10_000),
        (PRICE, 5, 20_000),
    ],
)
def test_the_worst_price_of_a_call_is_unknown_rather_than_zero(price, cap, cost) -> None:
    async def main() -> int | None:
        lane = Rig(ScriptedProvider(echo), price=price).lanes[0]
        lane.max_output_tokens = cap
        return worst_cost(lane, Work(text_request(0, tokens=10)))

    assert run_virtual(main()) == cost


class SlowRecorder(LateRecorder):
    """Half a second late with everything."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.known = (0, 0.0)

    async def expose(self, calls: int, usd: float | None) -> None:
        await asyncio.sleep(0.5)
        self.known = (calls, usd or 0.0)


class WatchfulProvider(ScriptedProvider):
    """Sees at each call how many are exposed and what the record knows of."""

    def __init__(self, script: Script, recorder: SlowRecorder) -> None:
        super().__init__(script, latency_s=0.3)
        self.recorder = recorder
        self.window: Window | None = None
        self.seen: list[tuple[int, int, float]] = []

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        assert self.window is not None
        self.seen.append((self.window.in_flight, *self.recorder.known))
        return await super().send(path, body, deadline_s)


def test_no_call_is_sent_before_the_record_knows_of_it() -> None:
    recorder = SlowRecorder()
    once = failing_first(1, SERVER_ERROR)
    provider = WatchfulProvider(
        lambda body, call: once(body, call) if body["content"].endswith("00") else echo(body), recorder
    )

    async def main() -> None:
        rig = Rig(provider, size=300, recorder=recorder, price=PRICE)
        provider.window = rig.lanes[0].window
        await rig.run(rows(1_000))

    run_virtual(main())
    assert len(provider.seen) == 1_009
    assert max(held for held, _, _ in provider.seen) == 300
    assert all(held <= calls and held * 20e-6 <= usd + 1e-12 for held, calls, usd in provider.seen)


def test_a_record_that_cannot_be_told_ends_the_run_before_anything_is_sent() -> None:
    class Broken(MemoryRecorder):
        async def expose(self, calls: int, usd: float | None) -> None:
            raise StorageError("disk full")

    provider = ScriptedProvider(echo)

    async def main() -> None:
        await Rig(provider, recorder=Broken()).run(rows(3))

    with pytest.raises(StorageError, match="disk full"):
        run_virtual(main())
    assert provider.bodies == []


def test_money_for_a_call_that_may_not_go_any_more_is_given_back() -> None:
    """The provider asks for silence while the record is told of the call."""

    rigs: list[Rig] = []

    class Silencing(MemoryRecorder):
        async def expose(self, calls: int, usd: float | None) -> None:
            await asyncio.sleep(0.1)
            if not self.exposed:
                rigs[0].lanes[0].limits.quiet(5.0)
            await super().expose(calls, usd)

    recorder, provider = Silencing(), ScriptedProvider(echo)
    budget = Budget(20e-6)  # just one call at its dearest

    async def main() -> None:
        rigs.append(Rig(provider, recorder=recorder, price=PRICE, budget=budget))
        await rigs[0].run(rows(1))

    run_virtual(main())
    assert len(provider.bodies) == 1
    assert budget.reserved_usd == 0
    assert budget.spent_usd > 0
