"""With `routing: all`, what a dead lane did not answer stays open: a later start asks it, and nothing else."""

from collections.abc import Sequence

import pytest
from dispatch_rig import (
    BAD_ANSWER,
    BAD_KEY,
    INVALID,
    REFUSED,
    SERVER_ERROR,
    Rig,
    at_times,
    rate_limited,
    rows,
    run,
)

from batchllm.dispatch import Ending
from batchllm.errors import ExitCode
from batchllm.fallback import LaneState
from batchllm.records import Action, Failure, FailureCode, Request, Response, RowFailed
from batchllm.retry import RetryPolicy
from batchllm.testing import ScriptedProvider, echo, packed_request, text_request

NO_CREDIT = Failure(Action.ELSEWHERE, FailureCode.QUOTA, "HTTP 402: no credit", 402, lane_is_dead=True)
NO_MODEL = Failure(Action.ELSEWHERE, FailureCode.MODEL_MISSING, "HTTP 404: no model", 404, lane_is_dead=True)
TOO_LONG = Failure(Action.GIVE_UP, FailureCode.CONTEXT_LENGTH, "HTTP 400: too long", 400)
FILTERED = Failure(Action.GIVE_UP, FailureCode.CONTENT_FILTER, "HTTP 400: filtered", 400)


def always(failure: Failure, latency_s: float = 0.0) -> ScriptedProvider:
    return ScriptedProvider(lambda body, call: failure, latency_s=latency_s)


def run_all(
    *providers: ScriptedProvider, requests: Sequence[Request | RowFailed], **more: object
) -> tuple[Rig, Ending]:
    return run(lambda: Rig(*providers, routing="all", **more), requests)  # type: ignore[arg-type] # the rig's


def answered(rig: Rig, lane: int) -> list[int]:
    return sorted(done.row.ordinal for done in rig.recorder.done if done.lane == lane)


@pytest.mark.parametrize("latency_s", [0.0, 0.5])
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (BAD_KEY, ExitCode.NO_PERMISSION),
        (NO_CREDIT, ExitCode.UNAVAILABLE),
        (NO_MODEL, ExitCode.UNAVAILABLE),
        (BAD_KEY._replace(action=Action.GIVE_UP), ExitCode.NO_PERMISSION),
        (NO_MODEL._replace(action=Action.SPLIT), ExitCode.UNAVAILABLE),
        (SERVER_ERROR, ExitCode.UNAVAILABLE),
        (REFUSED, ExitCode.UNAVAILABLE),
        (rate_limited(None), ExitCode.UNAVAILABLE),
    ],
)
def test_rows_of_a_dead_lane_stay_open_and_the_other_lane_answers_all(
    failure: Failure, code: ExitCode, latency_s: float
) -> None:
    rig, ending = run_all(
        ScriptedProvider(echo, latency_s=0.1),
        always(failure, latency_s),
        requests=rows(1_200),
        patience_s=600.0,
        policy=RetryPolicy(50),
    )
    assert rig.lanes[1].health.state is LaneState.DEAD
    assert ending.code is code
    assert answered(rig, 0) == list(range(1_200))
    assert rig.recorder.failed == []
    assert (rig.stats.ok, rig.stats.failed, rig.stats.failures_by_class) == (1_200, 0, {})
    assert rig.dispatcher.owed == 1_200
    assert rig.dispatcher.outstanding == 0


def test_the_ending_names_the_lanes_with_their_reasons_what_is_missing_and_the_remedy() -> None:
    _, ending = run_all(
        ScriptedProvider(echo), always(BAD_KEY), always(NO_CREDIT), requests=rows(700), size=2
    )
    assert ending.code is ExitCode.UNAVAILABLE
    assert "1,400 answers are missing" in ending.reason
    assert "lane1 (700): HTTP 401" in ending.reason
    assert "lane2 (700): HTTP 402: no credit" in ending.reason
    assert "lane0" not in ending.reason
    assert "start again" in ending.remedy
    assert "only the missing answers are asked" in ending.remedy


def test_rejected_keys_alone_are_a_matter_of_permission() -> None:
    _, ending = run_all(always(BAD_KEY), ScriptedProvider(echo), always(BAD_KEY), requests=rows(1), size=2)
    assert ending.code is ExitCode.NO_PERMISSION
    assert "2 answers are missing" in ending.reason
    assert "api_key" in ending.remedy


def test_one_answer_is_missing_and_not_one_answers() -> None:
    _, ending = run_all(ScriptedProvider(echo), always(BAD_KEY), requests=rows(1))
    assert ending.reason.startswith("1 answer is missing")


def test_a_later_start_asks_only_what_is_missing() -> None:
    def dying(body: dict[str, str], call: int) -> Response | Failure:
        return NO_CREDIT if call > 20 else echo(body)

    first, ending = run_all(ScriptedProvider(echo), ScriptedProvider(dying), requests=rows(60), size=1)
    assert ending.code is ExitCode.UNAVAILABLE
    finished = {(done.row.ordinal, done.lane) for done in first.recorder.done}
    assert first.dispatcher.owed == 120 - len(finished) == 40
    second, again = run_all(
        ScriptedProvider(echo), ScriptedProvider(echo), requests=rows(60), finished=finished
    )
    assert again.code is ExitCode.OK
    assert second.calls == 40
    assert second.providers[0].bodies == []
    assert answered(first, 1) + answered(second, 1) == list(range(60))


def test_a_later_start_with_the_key_still_wrong_sends_almost_nothing_and_says_so_again() -> None:
    finished = {(ordinal, 0) for ordinal in range(60)}
    rig, ending = run_all(
        ScriptedProvider(echo), always(BAD_KEY), requests=rows(60), finished=finished, size=2
    )
    assert ending.code is ExitCode.NO_PERMISSION
    assert "60 answers are missing" in ending.reason
    assert rig.calls <= 2


def test_answers_that_come_home_after_their_lane_died_are_kept() -> None:
    class Slow(ScriptedProvider):
        async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
            self._latency_s = 1.0 if b"row 0" in body else 30.0
            return await super().send(path, body, deadline_s)

    def script(body: dict[str, str], call: int) -> Response | Failure:
        return BAD_KEY if body["content"] == "row 0" else echo(body)

    rig, ending = run_all(ScriptedProvider(echo), Slow(script), requests=rows(10), size=4)
    assert ending.code is ExitCode.NO_PERMISSION
    assert answered(rig, 1) == [1, 2, 3]
    assert rig.dispatcher.owed == 7


def test_failures_of_the_row_itself_are_recorded_on_a_lane_that_dies_later() -> None:
    own = {"row 0": TOO_LONG, "row 1": FILTERED, "row 2": BAD_ANSWER, "row 3": INVALID}

    @at_times
    def script(passed_s: float, body: dict[str, str]) -> Response | Failure:
        return own.get(body["content"], BAD_KEY if passed_s > 100 else echo(body))

    # At a request a second the lane dies after the rows above have had their outcomes.
    rig, ending = run_all(
        ScriptedProvider(echo),
        ScriptedProvider(script, latency_s=0.1),
        requests=rows(300),
        size=1,
        rpm=60,
    )
    codes = {failed.row.ordinal: (failed.lane, failed.code) for failed in rig.recorder.failed}
    assert codes == {
        0: (1, "context_length"),
        1: (1, "content_filter"),
        2: (1, "schema_mismatch"),
        3: (1, "invalid_request"),
    }
    assert ending.code is ExitCode.NO_PERMISSION
    assert len(answered(rig, 1)) + 4 + rig.dispatcher.owed == 300


def test_a_row_that_was_too_long_for_a_lane_that_died_meanwhile_is_recorded() -> None:
    """Its call was out when the lane died, and it brought the row's own failure."""

    def script(body: dict[str, str], call: int) -> Response | Failure:
        return BAD_KEY if body["content"] == "row 0" else TOO_LONG

    class Slow(ScriptedProvider):
        async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
            self._latency_s = 1.0 if b"row 0" in body else 5.0
            return await super().send(path, body, deadline_s)

    rig, _ = run_all(ScriptedProvider(echo), Slow(script), requests=rows(5), size=3)
    assert sorted((failed.row.ordinal, failed.code) for failed in rig.recorder.failed) == [
        (1, "context_length"),
        (2, "context_length"),
    ]
    assert rig.dispatcher.owed == 3


def test_attempts_used_up_before_the_lane_died_are_recorded() -> None:
    @at_times
    def script(passed_s: float, body: dict[str, str]) -> Response | Failure:
        if body["content"] == "row 1":
            return SERVER_ERROR
        return BAD_KEY if passed_s > 100 else echo(body)

    rig, ending = run_all(
        ScriptedProvider(echo),
        ScriptedProvider(script, latency_s=0.1),
        requests=rows(300),
        rpm=60,
        policy=RetryPolicy(3),
    )
    assert [(failed.row.ordinal, failed.code) for failed in rig.recorder.failed] == [(1, "server_error")]
    assert ending.code is ExitCode.NO_PERMISSION


@pytest.mark.parametrize("action", list(Action))
def test_all_rows_of_a_packed_request_that_met_the_death_of_its_lane_stay_open(action: Action) -> None:
    rig, ending = run_all(
        ScriptedProvider(echo),
        always(BAD_KEY._replace(action=action)),
        requests=[packed_request(range(5)), packed_request(range(5, 12))],
    )
    assert ending.code is ExitCode.NO_PERMISSION
    assert rig.recorder.failed == []
    assert rig.dispatcher.owed == 12
    assert "12 answers" in ending.reason


def test_a_row_that_cannot_be_asked_is_a_failure_for_the_dead_lane_too() -> None:
    bad = RowFailed(text_request(9).rows[0], None, "input", "no JSON", None, 0, b"")
    rig, _ = run_all(ScriptedProvider(echo), always(BAD_KEY), requests=[*rows(9), bad])
    assert (rig.stats.ok, rig.stats.failed, rig.dispatcher.owed) == (9, 2, 9)


def test_with_every_lane_dead_the_run_stops_and_nothing_has_failed() -> None:
    rig, ending = run_all(always(BAD_KEY, 0.1), always(BAD_KEY, 3.0), requests=rows(2_000))
    assert ending.code is ExitCode.NO_PERMISSION
    assert "lane0: HTTP 401" in ending.reason
    assert "lane1: HTTP 401" in ending.reason
    assert rig.recorder.failed == []
    assert rig.calls <= 8


def test_a_lane_that_dies_when_another_had_died_of_its_key_makes_the_run_unavailable() -> None:
    _, ending = run_all(always(BAD_KEY, 0.1), always(NO_CREDIT, 3.0), requests=rows(20))
    assert ending.code is ExitCode.UNAVAILABLE


def test_with_spread_a_row_whose_only_other_lane_died_fails_with_its_causes() -> None:
    missing = Failure(Action.ELSEWHERE, FailureCode.CAPABILITY, "HTTP 400: no schema here", 400)

    def picky(body: dict[str, str], call: int) -> Response | Failure:
        return missing if body["content"] == "row 0" else echo(body)

    rig, ending = run(
        lambda: Rig(ScriptedProvider(picky, latency_s=0.1), always(BAD_KEY, 0.1), size=1, rpm=60), rows(20)
    )
    assert ending.code is ExitCode.OK
    assert [failed.row.ordinal for failed in rig.recorder.failed] == [0]
    assert "lane0: HTTP 400: no schema here" in rig.recorder.failed[0].message
    assert "lane1" in rig.recorder.failed[0].message
    assert len(rig.answers()) == 19
    assert rig.dispatcher.owed == 0
