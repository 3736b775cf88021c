"""Every wait of the dispatcher ends: each test here would hang for ever where one did not."""

import asyncio
from itertools import pairwise

import pytest
from dispatch_rig import (
    BAD_KEY,
    SERVER_ERROR,
    LateRecorder,
    Rig,
    at_times,
    rate_limited,
    rows,
    run,
)

from batchllm.errors import ExitCode, StorageError
from batchllm.fallback import LaneState
from batchllm.records import Action, Failure, FailureCode, Response
from batchllm.retry import RetryPolicy
from batchllm.testing import ScriptedProvider, echo, run_virtual, text_request

MISSING = Failure(Action.ELSEWHERE, FailureCode.CAPABILITY, "HTTP 400: no schema here", 400)


def test_a_record_that_breaks_with_every_place_taken_ends_the_run() -> None:
    async def main() -> None:
        rig = Rig(ScriptedProvider(echo, latency_s=1.0), size=4, recorder=LateRecorder(0.01, breaks_after=1))
        with pytest.raises(StorageError, match="disk full"):
            await rig.run(rows(2_000))

    run_virtual(main())


def test_with_all_the_requests_that_wait_for_a_lane_that_dies_end_the_run_open() -> None:
    """Their lane dies while they wait for their next try."""
    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo, latency_s=0.1),
            ScriptedProvider(lambda body, call: SERVER_ERROR, latency_s=0.1),
            routing="all",
            policy=RetryPolicy(50),
        ),
        rows(20),
    )
    assert ending.code is ExitCode.UNAVAILABLE
    assert len(rig.answers()) == 20
    assert rig.recorder.failed == []
    assert (rig.dispatcher.outstanding, rig.dispatcher.owed) == (0, 20)


def test_with_all_a_backoff_that_outlives_its_lane_ends_with_the_row_open() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return SERVER_ERROR if body["content"] == "row 0" else BAD_KEY

    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo), ScriptedProvider(script), routing="all", policy=RetryPolicy(5, 50.0)
        ),
        rows(3),
    )
    assert ending.code is ExitCode.NO_PERMISSION
    assert rig.recorder.failed == []
    assert (rig.dispatcher.outstanding, rig.dispatcher.owed) == (0, 3)


def test_a_lane_that_dies_while_its_pump_waits_for_tokens_gives_the_request_back_for_good() -> None:
    """With routing all nobody else may take it."""
    requests = [text_request(ordinal, tokens=500) for ordinal in range(4)]
    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo),
            ScriptedProvider(lambda body, call: BAD_KEY, latency_s=5.0),
            routing="all",
            tpm=1_000,
        ),
        requests,
    )
    assert ending.code is ExitCode.NO_PERMISSION
    assert len(rig.answers()) == 4
    assert rig.recorder.failed == []
    assert (rig.dispatcher.outstanding, rig.dispatcher.owed) == (0, 4)


def test_a_request_whose_last_lane_dies_while_it_is_held_fails_with_all_causes() -> None:
    """Lane 0 cannot answer it; lane 1 dies with the request in its pump; lane 0 goes on with the others."""

    def picky(body: dict[str, str], call: int) -> Response | Failure:
        return MISSING if body["content"] in ("row 0", "row 1") else echo(body)

    def dying(body: dict[str, str], call: int) -> Response | Failure:
        return BAD_KEY

    requests = [text_request(ordinal, tokens=500) for ordinal in range(8)]
    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(picky, latency_s=0.1),
            ScriptedProvider(dying, latency_s=20.0),
            tpm=1_000,
            size=2,
        ),
        requests,
    )
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) + len(rig.recorder.failed) == 8
    assert set(rig.answers()) >= {2, 3, 4, 5, 6, 7}


def test_a_provider_that_cancels_its_own_call_costs_an_attempt_and_not_the_run() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        if call == 1:
            raise asyncio.CancelledError
        return echo(body)

    rig, ending = run(lambda: Rig(ScriptedProvider(script), size=1), rows(3))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 3
    assert len(rig.recorder.attempts) == 4


def test_refusals_that_never_end_end_the_run_once_patience_is_over() -> None:
    rig, ending = run(
        lambda: Rig(ScriptedProvider(lambda body, call: rate_limited(None)), patience_s=3_600.0), rows(3)
    )
    assert ending.code is ExitCode.UNAVAILABLE
    assert "HTTP 429" in ending.reason
    assert rig.recorder.failed == []
    assert rig.calls < 100


def test_a_silence_that_was_asked_for_is_not_counted_against_patience() -> None:
    @at_times
    def script(passed_s: float, body: dict[str, str]) -> Response | Failure:
        return rate_limited(20_000.0) if passed_s < 19_000 else echo(body)

    rig, ending = run(lambda: Rig(ScriptedProvider(script), patience_s=3_600.0), rows(3))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 3


def test_one_stalled_call_does_not_keep_a_revived_lane_from_its_work() -> None:
    """Refused twice, the lane goes one at a time; an answer opens it again although an old call still hangs."""

    async def main() -> tuple[Rig, float]:
        rig = Rig(Stalling(), size=4)
        ending = await rig.run(rows(40))
        assert ending.code is ExitCode.OK
        sent = rig.providers[0].sent_s
        return rig, sent[-1] - sent[0]

    rig, took_s = run_virtual(main())
    assert took_s < 100
    assert len(rig.answers()) == 40


class Stalling(ScriptedProvider):
    """The first call takes ten minutes, the next ones are refused, all later ones are answered."""

    def __init__(self) -> None:
        super().__init__(lambda body, call: echo(body))

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        number = len(self.bodies)
        reply = await super().send(path, body, deadline_s)
        if number == 0:
            await asyncio.sleep(600.0)
        elif number < 10:
            return rate_limited(None)
        return reply


def test_a_stalled_call_does_not_hold_up_the_probe_of_a_resting_lane() -> None:
    class StallsThenFails(ScriptedProvider):
        async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
            number = len(self.bodies)
            reply = await super().send(path, body, deadline_s)
            if number == 0:
                await asyncio.sleep(600.0)
            return SERVER_ERROR if 0 < number < 9 else reply

    rig, ending = run(lambda: Rig(StallsThenFails(echo), size=4), rows(40))
    sent = rig.providers[0].sent_s
    assert ending.code is ExitCode.OK
    assert sent[-1] - sent[0] < 100
    assert rig.lanes[0].health.state is LaneState.RUNNING


def test_a_fallback_lane_works_while_the_first_one_is_probed() -> None:
    """A probe of a provider that accepts and never answers lasts as long as its deadline."""

    class Mute(ScriptedProvider):
        async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
            reply = await super().send(path, body, deadline_s)
            if len(self.bodies) == 1:
                return reply
            await asyncio.sleep(deadline_s)
            return Failure(Action.AGAIN, FailureCode.TIMEOUT, "no answer in 600 s")

    rig, ending = run(
        lambda: Rig(
            Mute(echo), ScriptedProvider(echo, latency_s=1.0), routing="fallback", size=1, patience_s=30_000
        ),
        rows(4_000),
    )
    assert ending.code is ExitCode.OK
    sent = rig.providers[1].sent_s[10:]  # by then the first lane has tripped its breaker
    gaps = sorted(after - before for before, after in pairwise(sent))
    assert gaps[-2] < 10  # the last one is the wait for the row that the last probe holds
