"""What is told of the limits, in each provider's words; `batchllm.provider.hints` reads it back."""

import orjson
import pytest

from batchllm.provider.hints import limits as read_limits
from batchllm.simulate.hints import ABSURD, Hints
from batchllm.simulate.limits import Gate, Refusal, Scope
from batchllm.spec.lanes import SimulatedLimits as Limits
from batchllm.spec.lanes import Simulation

WAIT = Refusal(Scope.TOKENS, 1000, 900, 200, 1.2001)
SLOT = Refusal(Scope.CONCURRENCY, 8, 8, 1, None)
TOO_LARGE = Refusal(Scope.TOKENS, 1000, 0, 2000, None, is_too_large=True)


def told(gate: Gate, style: str = "openai", turn: int = 1) -> dict[str, str]:
    return dict(Hints(Simulation(headers=style)).limits(gate, 0.0, turn))


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (
            Refusal(Scope.TOKENS, 200_000, 162_960, 42_288, 1.5744),
            "tokens",
            (
                "Rate limit reached for m in organization org-simulated on tokens per min (TPM): "
                "Limit 200000, Used 162960, Requested 42288. Please try again in 1.575s."
            ),
        ),
        (
            Refusal(Scope.REQUESTS, 3000, 3000, 1, 0.02),
            "requests",
            (
                "Rate limit reached for m in organization org-simulated on requests per min (RPM): "
                "Limit 3000, Used 3000, Requested 1. Please try again in 20ms."
            ),
        ),
        (
            Refusal(Scope.TOKENS, 1000, 0, 2000, None, is_too_large=True),
            "tokens",
            (
                "Request too large for m in organization org-simulated on tokens per min (TPM): Limit 1000, "
                "Requested 2000. The input or output tokens must be reduced in order to run successfully."
            ),
        ),
        (
            Refusal(Scope.CONCURRENCY, 8, 8, 1, None),
            "requests",
            (
                "Rate limit reached for m in organization org-simulated on concurrent requests: "
                "Limit 8, Used 8, Requested 1. Please try again later."
            ),
        ),
    ],
)
def test_a_refusal_is_said_as_openai_says_it(refusal: Refusal, kind: str, message: str) -> None:
    status, body = Hints(Simulation()).refusal(refusal, "m")
    assert status == 429
    assert orjson.loads(body) == {
        "error": {"message": message, "type": kind, "param": None, "code": "rate_limit_exceeded"}
    }


def test_waits_are_rounded_up_in_both_units() -> None:
    assert Hints(Simulation()).retry(1.2001, 1) == [("retry-after", "2"), ("retry-after-ms", "1201")]
    assert Hints(Simulation()).retry(None, 1) == []


def test_limit_headers_are_those_of_openai() -> None:
    gate = Gate(Limits(rpm=500, tpm=200_000))
    gate.admit(1000, 0.0)
    assert told(gate) == {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "199000",
        "x-ratelimit-reset-tokens": "300ms",
    }


def test_only_limits_that_are_set_are_told() -> None:
    assert told(Gate(Limits(concurrency=3))) == {}
    assert list(told(Gate(Limits(tpm=5)))) == [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ]


def used_gate(**limits: float) -> Gate:
    gate = Gate(Limits(**limits))
    gate.admit(1000, 0.0)
    return gate


def test_groq_counts_the_day_under_the_same_names_and_tells_no_minute() -> None:
    gate = used_gate(rpm=30, rpd=1000, tpm=8000)
    headers = told(gate, "groq")
    assert headers == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "999",
        "x-ratelimit-reset-requests": "1m26.4s",
        "x-ratelimit-limit-tokens": "8000",
        "x-ratelimit-remaining-tokens": "7000",
        "x-ratelimit-reset-tokens": "7.5s",
    }
    windows = {hint.scope: hint.window_s for hint in read_limits(headers, dialect="groq")}
    assert windows == {"requests": 86_400.0, "tokens": 60.0}
    assert told(used_gate(rpm=30), "groq") == {}


def test_mistral_names_the_minute_and_no_reset() -> None:
    assert told(used_gate(rpm=30, rpd=1000, tpm=8000), "mistral") == {
        "x-ratelimit-limit-req-minute": "30",
        "x-ratelimit-remaining-req-minute": "29",
        "x-ratelimit-limit-tokens-minute": "8000",
        "x-ratelimit-remaining-tokens-minute": "7000",
    }


def test_an_unknown_gateway_tells_nothing() -> None:
    hints = Hints(Simulation(headers="none"))
    assert hints.limits(used_gate(rpm=30, tpm=8000), 0.0, 1) == []
    for refusal in (WAIT, SLOT):
        status, body = hints.refusal(refusal, "m")
        assert (status, orjson.loads(body)) == (429, {"error": {"message": "Too Many Requests"}})
    assert hints.refusal(TOO_LARGE, "m")[0] == 413


def test_mistral_refuses_in_a_flat_body() -> None:
    body = orjson.loads(Hints(Simulation(headers="mistral")).refusal(WAIT, "m")[1])
    assert (body["object"], body["type"], body["code"]) == ("error", "rate_limited", "1300")


@pytest.mark.parametrize(
    ("style", "headers", "phrase"),
    [
        ("exact", {"retry-after": "2", "retry-after-ms": "1201"}, "try again in 1.201s."),
        ("seconds", {"retry-after": "2"}, "try again in 2s."),
        ("none", {}, "try again later."),
    ],
)
def test_a_wait_is_told_in_header_and_body_alike(style: str, headers: dict[str, str], phrase: str) -> None:
    hints = Hints(Simulation(retry_after=style))
    assert dict(hints.retry(WAIT.wait_s, 1)) == headers
    assert phrase in orjson.loads(hints.refusal(WAIT, "m")[1])["error"]["message"]


def test_absurd_headers_show_every_value_in_every_place() -> None:
    hints = Hints(Simulation(headers="absurd", retry_after="absurd"))
    seen: dict[str, set[str]] = {}
    pairs = set()
    for turn in range(len(ABSURD) ** 2):
        headers = dict(hints.limits(Gate(Limits()), 0.0, turn) + hints.retry(1.0, turn))
        for name, value in headers.items():
            seen.setdefault(name, set()).add(value)
        pairs.add((headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]))
    assert len(seen) == 8
    assert all(values == set(ABSURD) for values in seen.values())
    assert len(pairs) == len(ABSURD) ** 2
