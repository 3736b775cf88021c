"""The dispatcher against scripted lanes, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from dispatch_rig import (
    BAD_ANSWER,
    BAD_KEY,
    INVALID,
    REFUSED,
    SERVER_ERROR,
    Rig,
    failing_first,
    feed,
    rate_limited,
    rows,
    run,
)

from batchllm.budget import Budget
from batchllm.dispatch import Dispatcher, Ending
from batchllm.errors import ExitCode, StorageError
from batchllm.fallback import LaneState
from batchllm.pricing import Price
from batchllm.records import Failure, Request, Response, RowFailed, RowRef
from batchllm.retry import RetryPolicy
from batchllm.testing import (
    MemoryRecorder,
    ScriptedProvider,
    echo,
    packed_request,
    run_virtual,
    text_request,
)


def test_every_row_gets_its_own_answer() -> None:
    rig, ending = run(lambda: Rig(ScriptedProvider(echo, latency_s=0.1)), rows(200))
    assert ending.code is ExitCode.OK
    assert rig.answers() == {ordinal: f"row {ordinal}" for ordinal in range(200)}
    assert len(rig.recorder.attempts) == 200


def test_the_window_is_never_exceeded_and_is_filled() -> None:
    rig, _ = run(lambda: Rig(ScriptedProvider(echo, latency_s=0.1), size=7), rows(100))
    assert rig.providers[0].most_in_flight == 7


def test_packed_requests_are_not_read_far_ahead() -> None:
    """512 waiting requests of 2,048 rows would be a million rows in memory."""
    read = 0

    async def counted() -> AsyncIterator[Sequence[Request]]:
        nonlocal read
        for first in range(0, 20_000, 100):
            read += 1
            yield [packed_request(range(first, first + 100))]

    most_ahead = 0

    def script(body: dict[str, str], call: int) -> Response:
        nonlocal most_ahead
        most_ahead = max(most_ahead, read - call)
        return echo(body)

    async def main() -> Ending:
        rig = Rig(ScriptedProvider(script, latency_s=0.01), size=2)
        return await rig.dispatcher.run(counted())

    assert run_virtual(main()).code is ExitCode.OK
    assert read == 200
    assert most_ahead <= 8 + 2 * 2 + 2, "eight, twice what is in flight, and what the reader holds"


def test_an_empty_feed_ends_at_once() -> None:
    _, ending = run(lambda: Rig(ScriptedProvider(echo)), [])
    assert ending.code is ExitCode.OK


def test_a_row_that_failed_before_it_could_be_asked_is_recorded() -> None:
    bad = RowFailed(RowRef(0, None, b"[]"), None, "input", "line 1: no JSON", None, 0, bytes(16))
    rig, ending = run(lambda: Rig(ScriptedProvider(echo)), [bad, text_request(1)])
    assert ending.code is ExitCode.OK
    assert [failed.row.ordinal for failed in rig.recorder.failed] == [0]
    assert rig.stats.failed == 1
    assert rig.stats.ok == 1


def test_server_errors_are_tried_again_until_they_pass() -> None:
    rig, ending = run(lambda: Rig(ScriptedProvider(failing_first(2, SERVER_ERROR)), size=1), rows(3))
    assert ending.code is ExitCode.OK
    assert rig.answers() == {0: "row 0", 1: "row 1", 2: "row 2"}
    assert [done.attempts for done in rig.recorder.done] == [3, 3, 3]


def test_attempts_are_capped_and_each_is_recorded() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return SERVER_ERROR if body["content"] == "row 5" else echo(body)

    rig, ending = run(
        lambda: Rig(ScriptedProvider(script, latency_s=0.01), size=2, policy=RetryPolicy(5)), rows(400)
    )
    assert ending.code is ExitCode.OK
    assert [(failed.row.ordinal, failed.attempts) for failed in rig.recorder.failed] == [(5, 5)]
    assert len(rig.recorder.attempts) == 399 + 5


def test_a_paid_answer_that_breaks_the_schema_is_bought_at_most_three_times() -> None:
    rig, _ = run(lambda: Rig(ScriptedProvider(lambda body, call: BAD_ANSWER), size=1), rows(1))
    assert len(rig.recorder.attempts) == 3
    assert rig.recorder.failed[0].code == "schema_mismatch"


def test_a_refusal_silences_the_lane_for_as_long_as_it_asks() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return rate_limited(7.0) if call == 3 else echo(body)

    rig, ending = run(lambda: Rig(ScriptedProvider(script, latency_s=0.01), size=1), rows(10))
    sent = rig.providers[0].sent_s
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 10
    assert sent[3] - sent[2] >= 7.0


def test_a_storm_of_refusals_costs_no_row_its_attempts() -> None:
    storm_s = 300.0

    def make() -> Rig:
        start_s = asyncio.get_running_loop().time()

        def script(body: dict[str, str], call: int) -> Response | Failure:
            now_s = asyncio.get_running_loop().time()
            return rate_limited(None) if now_s - start_s < storm_s else echo(body)

        return Rig(ScriptedProvider(script, latency_s=0.01), size=4)

    rig, ending = run(make, rows(20))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 20
    assert rig.lanes[0].stats.refused < 20


def test_a_lane_that_is_down_for_two_hours_burns_no_rows() -> None:
    outage = (10.0, 7210.0)

    def make() -> Rig:
        start_s = asyncio.get_running_loop().time()

        def script(body: dict[str, str], call: int) -> Response | Failure:
            passed_s = asyncio.get_running_loop().time() - start_s
            return SERVER_ERROR if outage[0] <= passed_s < outage[1] else echo(body)

        return Rig(ScriptedProvider(script, latency_s=0.5), size=8)

    rig, ending = run(make, rows(1000))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 1000
    assert rig.lanes[0].stats.failed < 250


def test_a_lane_that_never_answered_is_given_up_soon() -> None:
    rig, ending = run(lambda: Rig(ScriptedProvider(lambda body, call: REFUSED)), rows(5))
    assert ending.code is ExitCode.UNAVAILABLE
    assert "connection refused" in ending.reason
    assert rig.recorder.failed == []


def test_a_lane_that_dies_half_way_leaves_its_rows_to_the_others() -> None:
    def dying(body: dict[str, str], call: int) -> Response | Failure:
        return SERVER_ERROR if call > 20 else echo(body)

    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo, latency_s=0.2), ScriptedProvider(dying, latency_s=0.1), patience_s=60.0
        ),
        rows(300),
    )
    assert ending.code is ExitCode.OK
    assert rig.answers() == {ordinal: f"row {ordinal}" for ordinal in range(300)}
    assert rig.recorder.failed == []


def test_one_rejected_key_leaves_the_other_lane_to_work() -> None:
    rig, ending = run(
        lambda: Rig(ScriptedProvider(lambda body, call: BAD_KEY), ScriptedProvider(echo, latency_s=0.01)),
        rows(50),
    )
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 50
    assert len(rig.providers[0].bodies) <= 4
    assert rig.lanes[0].health.state is LaneState.DEAD


def test_all_keys_rejected_stops_the_run_with_nothing_failed() -> None:
    rig, ending = run(lambda: Rig(ScriptedProvider(lambda body, call: BAD_KEY)), rows(50))
    assert ending.code is ExitCode.NO_PERMISSION
    assert rig.recorder.failed == []


def test_fallback_uses_the_second_lane_only_when_the_first_cannot() -> None:
    healthy, _ = run(
        lambda: Rig(
            ScriptedProvider(echo, latency_s=0.1), ScriptedProvider(echo, latency_s=0.1), routing="fallback"
        ),
        rows(60),
    )
    assert len(healthy.providers[1].bodies) == 0
    down, ending = run(
        lambda: Rig(
            ScriptedProvider(lambda body, call: SERVER_ERROR, latency_s=0.1),
            ScriptedProvider(echo, latency_s=0.1),
            routing="fallback",
        ),
        rows(60),
    )
    assert ending.code is ExitCode.OK
    assert len(down.answers()) == 60
    assert down.recorder.failed == []


def test_fallback_steps_over_a_lane_that_is_silenced_for_long() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return rate_limited(3600.0)

    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(script), ScriptedProvider(echo, latency_s=0.1), routing="fallback", size=1
        ),
        rows(10),
    )
    assert ending.code is ExitCode.OK
    assert len(rig.providers[0].bodies) == 1
    assert len(rig.answers()) == 10


def test_all_asks_every_lane_for_every_row() -> None:
    rig, ending = run(
        lambda: Rig(ScriptedProvider(echo), ScriptedProvider(echo), routing="all", size=2), rows(30)
    )
    asked = sorted((done.row.ordinal, done.lane) for done in rig.recorder.done)
    assert ending.code is ExitCode.OK
    assert asked == [(ordinal, lane) for ordinal in range(30) for lane in range(2)]


def test_one_bad_row_in_a_packed_request_fails_alone() -> None:
    def script(body: dict[str, list[str]], call: int) -> Response | Failure:
        return INVALID if "row 3" in body["content"] else echo(body)

    rig, ending = run(lambda: Rig(ScriptedProvider(script)), [packed_request(range(8))])
    assert ending.code is ExitCode.OK
    assert [failed.row.ordinal for failed in rig.recorder.failed] == [3]
    assert sorted(rig.answers()) == [0, 1, 2, 4, 5, 6, 7]
    assert all(done.answer == f"row {done.row.ordinal}" for done in rig.recorder.done)


def test_the_same_refusal_for_the_first_rows_stops_the_job() -> None:
    rig, ending = run(lambda: Rig(ScriptedProvider(lambda body, call: INVALID), size=2), rows(500))
    assert ending.code is ExitCode.CONFIG
    assert "refused as invalid" in ending.reason
    assert len(rig.providers[0].bodies) < 30


def test_the_budget_is_never_exceeded_and_stops_the_run() -> None:
    budget = Budget(0.001, 0.0)
    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo, latency_s=0.1), size=8, budget=budget, price=Price(1.0, 2.0, "job")
        ),
        rows(500),
    )
    paid = round(sum(attempt.cost_usd or 0.0 for attempt in rig.recorder.attempts), 9)
    assert ending.code is ExitCode.LIMIT_STOPPED
    assert 0.0009 < paid <= 0.001


def test_requests_are_paced() -> None:
    rig, _ = run(lambda: Rig(ScriptedProvider(echo, latency_s=0.3), size=100, rpm=600), rows(100))
    sent = rig.providers[0].sent_s
    assert 9.5 <= sent[-1] - sent[0] <= 10.5
    assert max(sum(1 for s in sent if start <= s < start + 1.0) for start in sent) <= 11


def test_tokens_are_paced() -> None:
    requests = [text_request(ordinal, tokens=95) for ordinal in range(120)]
    rig, _ = run(lambda: Rig(ScriptedProvider(echo, latency_s=0.1), size=100, tpm=60_000), requests)
    sent = rig.providers[0].sent_s
    assert 10.0 <= sent[-1] - sent[0] <= 12.0


def test_a_stop_lets_calls_in_flight_come_home() -> None:
    async def main() -> tuple[Rig, Ending]:
        rig = Rig(ScriptedProvider(echo, latency_s=5.0), size=10)
        running = asyncio.create_task(rig.dispatcher.run(feed(rows(100))))
        await asyncio.sleep(1.0)
        rig.dispatcher.stop(Ending(ExitCode.INTERRUPTED))
        ending = await running
        assert await rig.dispatcher.drain(60) == 0
        return rig, ending

    rig, ending = run_virtual(main())
    assert ending.code is ExitCode.INTERRUPTED
    assert len(rig.recorder.done) == 10


def test_abandoned_calls_are_recorded_as_maybe_billed() -> None:
    async def main() -> Rig:
        rig = Rig(ScriptedProvider(echo, latency_s=500.0), size=3)
        running = asyncio.create_task(rig.dispatcher.run(feed(rows(100))))
        await asyncio.sleep(1.0)
        rig.dispatcher.stop(Ending(ExitCode.INTERRUPTED))
        await running
        assert await rig.dispatcher.drain(2.0) == 3
        return rig

    rig = run_virtual(main())
    assert [attempt.billed for attempt in rig.recorder.attempts] == ["unknown"] * 3
    assert rig.recorder.done == []


def test_a_full_record_stops_dispatch_and_its_error_ends_the_run() -> None:
    class FullRecorder(MemoryRecorder):
        async def room(self) -> None:
            if len(self.records) >= 10:
                raise StorageError("disk full")

    async def main() -> Rig:
        rig = Rig(ScriptedProvider(echo, latency_s=0.1), size=2)
        rig.recorder = FullRecorder()
        rig.dispatcher = Dispatcher(
            rig.lanes,
            recorder=rig.recorder,
            policy=RetryPolicy(),
            stats=rig.stats,
            clock=rig.clock,
        )
        with pytest.raises(StorageError, match="disk full"):
            await rig.run(rows(100))
        return rig

    rig = run_virtual(main())
    assert len(rig.providers[0].bodies) < 12


def test_a_bug_in_a_verdict_fails_the_row_and_not_the_run() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return Response(200, {}, b"{}" if body["content"] == "row 2" else echo(body).body, 0.0)

    rig, ending = run(lambda: Rig(ScriptedProvider(script), size=1), rows(5))
    assert ending.code is ExitCode.OK
    assert [(failed.row.ordinal, failed.code) for failed in rig.recorder.failed] == [(2, "internal")]


def test_an_error_in_the_feed_ends_the_run() -> None:
    async def broken() -> AsyncIterator[Sequence[Request]]:
        yield rows(3)
        raise OSError("the disk is gone")

    async def main() -> None:
        rig = Rig(ScriptedProvider(echo))
        with pytest.raises(OSError, match="the disk is gone"):
            await rig.dispatcher.run(broken())

    run_virtual(main())


@pytest.mark.parametrize(("size", "most"), [(100, 1_000), (1 << 20, 44), (27 << 20, 20)])
def test_of_requests_that_take_much_memory_few_wait(size: int, most: int) -> None:
    """Beside the four in flight and the four that were read last."""
    ahead = 0

    async def main() -> Rig:
        rig = Rig(ScriptedProvider(echo, latency_s=1.0), size=4)

        async def heavy() -> AsyncIterator[Sequence[Request]]:
            nonlocal ahead
            requests = [request._replace(size=size) for request in rows(600)]
            for start in range(0, 600, 4):
                ahead = max(ahead, start + 4 - len(rig.recorder.done))
                yield requests[start : start + 4]
                await asyncio.sleep(0)

        await rig.dispatcher.run(heavy())
        return rig

    rig = run_virtual(main())
    assert len(rig.recorder.done) == 600
    assert ahead <= most
    assert ahead >= min(most, 500) - 8  # no more is held back than must be
