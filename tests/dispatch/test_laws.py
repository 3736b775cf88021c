"""Laws of the dispatcher, whatever lanes, failures, limits and stops there are: in virtual time, by seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from dispatch_rig import FOR_EVER_S, LateRecorder, Rig, Script, feed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchllm.budget import Budget
from batchllm.dispatch import Ending
from batchllm.errors import ExitCode, StorageError
from batchllm.fallback import LaneState
from batchllm.pricing import Price
from batchllm.records import (
    Action,
    Billed,
    Failure,
    FailureCode,
    Request,
    Response,
    RowFailed,
    RowRef,
    Usage,
)
from batchllm.retry import RetryPolicy
from batchllm.testing import ScriptedProvider, echo, packed_request, run_virtual, text_request

#: After this many virtual seconds nothing fails any more, so that all that goes on for ever is a hang.
HEALED_S = 3_000.0


@dataclass(frozen=True)
class Plan:
    """One random run."""

    seed: int
    lanes: int
    rows: int
    pack: int
    routing: str
    size: int
    failing: float
    killing: float
    budget_usd: float | None
    rpm: float | None
    tpm: float | None
    stop_s: float | None
    commit_s: float
    breaks_after: int | None

    def requests(self) -> list[Request | RowFailed]:
        groups = [range(start, min(start + self.pack, self.rows)) for start in range(0, self.rows, self.pack)]
        made: list[Request | RowFailed] = [
            packed_request(group) if self.pack > 1 else text_request(group[0]) for group in groups
        ]
        bad = RowRef(self.rows, None, b"[]")
        return [*made, RowFailed(bad, None, "input", "no JSON", None, 0, b"")]

    def rig(self) -> Rig:
        dice = random.Random(self.seed)
        limits = {name: limit for name in ("rpm", "tpm") if (limit := getattr(self, name)) is not None}
        return Rig(
            *(
                ScriptedProvider(_script(self, random.Random(dice.random())), latency_s=dice.random() * 3)
                for _ in range(self.lanes)
            ),
            routing=self.routing,
            size=self.size,
            policy=RetryPolicy(3, 0.5, 20.0),
            budget=None if self.budget_usd is None else Budget(self.budget_usd),
            prices=[Price(float(lane), 2.0 * lane, "job") for lane in range(self.lanes)],
            patience_s=200.0,
            recorder=LateRecorder(self.commit_s, self.breaks_after),
            dice=random.Random(self.seed),
            **limits,
        )


def _script(plan: Plan, dice: random.Random) -> Script:
    def script(body: dict[str, object], call: int) -> Response | Failure:
        now_s = asyncio.get_running_loop().time() - 1_000.0
        if now_s < HEALED_S and dice.random() < plan.killing:
            return _failure(dice)._replace(lane_is_dead=True)
        if now_s < HEALED_S and dice.random() < plan.failing:
            return _failure(dice)
        return echo(body)

    return script


def _failure(dice: random.Random) -> Failure:
    return Failure(
        dice.choice(list(Action)),
        dice.choice(list(FailureCode)),
        "scripted",
        dice.choice([None, 400, 429, 500]),
        retry_after_s=dice.choice([None, None, 0.0, 3.0, 70.0]),
        billed=dice.choice(list(Billed)),
        usage=dice.choice([None, Usage(), Usage(10, 5), Usage(0, None)]),
    )


plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    lanes=st.integers(1, 4),
    rows=st.integers(0, 60),
    pack=st.sampled_from([1, 1, 4]),
    routing=st.sampled_from(["spread", "fallback", "all"]),
    size=st.integers(1, 8),
    failing=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    killing=st.sampled_from([0.0, 0.02, 0.3]),
    budget_usd=st.sampled_from([None, None, 0.0002, 0.01]),
    rpm=st.sampled_from([None, None, 30.0, 600.0]),
    tpm=st.sampled_from([None, None, 12.0, 300.0, 60_000.0]),
    stop_s=st.sampled_from([None, None, 0.0, 0.7, 5.0, 100.0]),
    commit_s=st.sampled_from([0.0, 0.01, 2.0]),
    breaks_after=st.sampled_from([None, None, None, 0, 5, 40]),
)


async def carried_out(plan: Plan) -> tuple[Rig, Ending | None]:
    """The ending, or None when the record broke."""
    rig = plan.rig()
    async with asyncio.timeout(FOR_EVER_S):
        running = asyncio.create_task(rig.dispatcher.run(feed(plan.requests())))
        if plan.stop_s is not None:
            await asyncio.wait({running}, timeout=plan.stop_s)
            if not running.done():
                rig.dispatcher.stop(Ending(ExitCode.INTERRUPTED))
        ending = None
        try:
            ending = await running
        except StorageError:
            assert plan.breaks_after is not None
        await rig.dispatcher.drain(1.0)
        await asyncio.sleep(5.0)  # the last commits
    return rig, ending


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans)
def test_every_run_ends_and_each_row_has_at_most_one_outcome(plan: Plan) -> None:
    rig, ending = run_virtual(carried_out(plan))
    recorder, slots = rig.recorder, plan.lanes if plan.routing == "all" else 1
    outcomes: Counter[tuple[int, int]] = Counter()
    for done in recorder.done:
        outcomes[done.row.ordinal, done.lane if slots > 1 else 0] += 1
        assert done.answer == f"row {done.row.ordinal}"
    for failed in recorder.failed:
        own = [failed.lane] if slots > 1 and failed.lane is not None else range(slots)
        outcomes.update((failed.row.ordinal, lane) for lane in own)
        assert failed.message
    assert all(count == 1 for count in outcomes.values())
    assert (rig.stats.ok, rig.stats.failed) == (len(recorder.done), len(outcomes) - len(recorder.done))
    assert len(recorder.attempts) == rig.calls == sum(lane.stats.sent for lane in rig.lanes)
    if ending is not None and _went_through(rig, ending):
        assert rig.dispatcher.outstanding == 0
        _assert_only_dead_lanes_owe(plan, rig, ending, outcomes)
    _assert_nothing_is_held(plan, rig)


def _went_through(rig: Rig, ending: Ending) -> bool:
    """All that was fed was dealt with: by its outcome, or left open since its own lane died and others lived."""
    lives = any(lane.health.state is not LaneState.DEAD for lane in rig.lanes)
    return ending.code is ExitCode.OK or (
        ending.code in (ExitCode.UNAVAILABLE, ExitCode.NO_PERMISSION) and lives
    )


def _assert_only_dead_lanes_owe(
    plan: Plan, rig: Rig, ending: Ending, outcomes: Counter[tuple[int, int]]
) -> None:
    """Each unit is done, failed or open, and an open one belongs to a lane that died under `all`."""
    slots = plan.lanes if plan.routing == "all" else 1
    units = {(row, lane) for row in range(plan.rows + 1) for lane in range(slots)}
    owed = units - set(outcomes)
    assert set(outcomes) <= units
    assert len(owed) == rig.dispatcher.owed
    assert (ending.code is ExitCode.OK) == (not owed)
    if owed:
        dead = {lane.index for lane in rig.lanes if lane.health.state is LaneState.DEAD}
        assert plan.routing == "all"
        assert {lane for _, lane in owed} == dead
        assert all(rig.lanes[lane].info.name in ending.reason for lane in dead)


def _assert_nothing_is_held(plan: Plan, rig: Rig) -> None:
    assert rig.dispatcher.in_flight == 0
    if not rig.recorder.is_broken:  # type: ignore[attr-defined] # a LateRecorder
        assert [lane.window.in_flight for lane in rig.lanes] == [0] * plan.lanes
        assert [lane.stats.in_flight for lane in rig.lanes] == [0] * plan.lanes
    assert all(provider.most_in_flight <= plan.size for provider in rig.providers)


@pytest.mark.parametrize("seed", range(20))
def test_with_money_for_all_and_no_deaths_everything_is_answered(seed: int) -> None:
    plan = Plan(seed, 3, 50, 1, "spread", 4, 0.3, 0.0, None, None, None, None, 0.01, None)
    rig, ending = run_virtual(carried_out(replace(plan, seed=seed)))
    assert ending is not None
    assert ending.code is ExitCode.OK
    assert len(rig.recorder.done) + len(rig.recorder.failed) == 51


def sums(values: Sequence[float | None]) -> float:
    return sum(value or 0.0 for value in values)


@settings(max_examples=60, deadline=None)
@given(plans)
def test_the_budget_holds_with_several_lanes_and_prices(plan: Plan) -> None:
    plan = replace(plan, budget_usd=plan.budget_usd or 0.0005, breaks_after=None)
    rig, _ = run_virtual(carried_out(plan))
    known = sums([attempt.cost_usd for attempt in rig.recorder.attempts])
    assert known <= (plan.budget_usd or 0.0) + 1e-12
