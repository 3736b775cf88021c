"""Which lane is asked again, how often, and for what money."""

from dispatch_rig import REFUSED, SERVER_ERROR, Rig, at_times, rate_limited, rows, run

from batchllm.budget import Budget
from batchllm.errors import ExitCode
from batchllm.pricing import Price
from batchllm.records import Action, Billed, Failure, FailureCode, Response, RowFailed, RowRef
from batchllm.retry import RetryPolicy
from batchllm.testing import ScriptedProvider, echo, packed_request

INVALID_PACK = Failure(Action.SPLIT, FailureCode.INVALID_REQUEST, "HTTP 400: no", 400)


def test_paid_answers_without_a_price_make_the_cost_unknown() -> None:
    bad = Failure(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, "not in enum", 200, billed=Billed.YES)
    rig, _ = run(lambda: Rig(ScriptedProvider(lambda body, call: bad), size=1), rows(1))
    assert rig.lanes[0].stats.cost_usd is None


def test_a_lane_that_goes_down_costs_no_row_an_attempt() -> None:
    """With two attempts each, rows that met the outage may still fail once for themselves."""
    seen: dict[str, int] = {}

    def script(body: dict[str, str], call: int) -> Response | Failure:
        text = body["content"]
        seen[text] = seen.get(text, 0) + 1
        is_own_fault = text in ("row 0", "row 5") and seen[text] == 2
        return SERVER_ERROR if call <= 8 or is_own_fault else echo(body)

    rig, ending = run(
        lambda: Rig(ScriptedProvider(script, latency_s=0.1), policy=RetryPolicy(2), size=8), rows(100)
    )
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 100
    assert seen["row 0"] == seen["row 5"] == 3


def test_halves_of_a_request_go_on_with_the_tries_of_the_whole() -> None:
    def script(body: dict[str, list[str]], call: int) -> Response | Failure:
        return INVALID_PACK if call == 3 else SERVER_ERROR

    rig, _ = run(
        lambda: Rig(ScriptedProvider(script), policy=RetryPolicy(3), size=1), [packed_request(range(2))]
    )
    assert [failed.attempts for failed in rig.recorder.failed] == [4, 4]
    assert rig.calls == 3 + 2


def test_the_last_row_waits_out_an_outage_in_which_nobody_is_there() -> None:
    @at_times
    def script(passed_s: float, body: dict[str, str]) -> Response | Failure:
        return REFUSED if 0 < passed_s < 7_200 else echo(body)

    rig, ending = run(lambda: Rig(ScriptedProvider(script, latency_s=0.1), size=1), rows(2))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 2


def test_fallback_asks_the_next_lane_for_a_row_that_the_first_one_keeps_failing() -> None:
    def script(body: dict[str, str], call: int) -> Response | Failure:
        return SERVER_ERROR if body["content"] == "row 3" else echo(body)

    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(script, latency_s=0.1),
            ScriptedProvider(echo, latency_s=0.1),
            routing="fallback",
        ),
        rows(60),
    )
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 60
    assert [body["content"] for body in rig.providers[1].bodies] == ["row 3"]


def test_a_lane_that_costs_nothing_goes_on_when_the_budget_is_spent() -> None:
    for routing in ("spread", "fallback"):
        rig, ending = run(
            lambda routing=routing: Rig(  # type: ignore[misc] # mypy has no type for a lambda with a default
                ScriptedProvider(echo, latency_s=0.1),
                ScriptedProvider(echo, latency_s=0.1),
                routing=routing,
                budget=Budget(0.0005),
                prices=[Price(1.0, 2.0, "job"), Price(0.0, 0.0, "job")],
            ),
            rows(300),
        )
        assert ending.code is ExitCode.OK
        assert len(rig.answers()) == 300
        assert 0 < len(rig.providers[0].bodies) <= 25


def test_a_budget_that_no_lane_can_stay_in_stops_the_run() -> None:
    rig, ending = run(
        lambda: Rig(
            ScriptedProvider(echo, latency_s=0.1),
            ScriptedProvider(echo, latency_s=0.1),
            budget=Budget(0.0005),
            prices=[Price(1.0, 2.0, "job"), Price(3.0, 5.0, "job")],
        ),
        rows(300),
    )
    assert ending.code is ExitCode.LIMIT_STOPPED
    assert rig.recorder.failed == []
    assert sum(attempt.cost_usd or 0.0 for attempt in rig.recorder.attempts) <= 0.0005


def test_two_silences_in_flight_at_once_are_both_kept() -> None:
    """The longer one comes second, from a call that was sent before the first refusal."""

    def script(body: dict[str, str], call: int) -> Response | Failure:
        return {1: rate_limited(1.0), 2: rate_limited(9.0)}.get(len(sent), echo(body))

    sent: list[str] = []

    def numbered(body: dict[str, str], call: int) -> Response | Failure:
        sent.append(body["content"])
        return script(body, call)

    rig, _ = run(lambda: Rig(ScriptedProvider(numbered, latency_s=0.1), size=2), rows(5))
    calls = rig.providers[0].sent_s
    assert calls[2] - calls[1] >= 9.0
    assert len(rig.answers()) == 5


def test_with_all_a_row_that_cannot_be_asked_is_a_failure_for_each_lane() -> None:
    bad = RowFailed(RowRef(0, None, b"[]"), None, "input", "line 1: no JSON", None, 0, b"")
    rig, _ = run(lambda: Rig(ScriptedProvider(echo), ScriptedProvider(echo), routing="all"), [bad])
    assert rig.stats.failed == 2
    assert rig.stats.failures_by_class == {"input": 2}


def test_a_time_that_a_server_names_holds_the_lane_and_not_the_row() -> None:
    busy = SERVER_ERROR._replace(retry_after_s=3_600.0)
    rig, ending = run(
        lambda: Rig(ScriptedProvider(lambda body, call: busy), ScriptedProvider(echo, latency_s=0.1), size=1),
        rows(20),
    )
    sent = rig.providers[1].sent_s
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 20
    assert sent[-1] - sent[0] < 60
    assert rig.calls == 21
