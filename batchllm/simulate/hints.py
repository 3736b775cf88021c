"""What a provider tells of its limits: headers on every reply, and the body and headers of a refusal.

Names and formats are those that were captured: OpenAI (Go durations until all is there again), Groq (the same names,
but its requests are those of the day, and the minute's are told nowhere), Mistral (no reset, and a body that names
no wait), Azure (whole seconds, and the window), Together (numbers a second), Fireworks (three budgets of tokens),
OpenRouter (only with its refusals). `none` is a gateway of which nothing is known. `absurd` is for clients that must
survive it.
"""

from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Final

import orjson

from batchllm.simulate.limits import Gate, Meter, Refusal, Scope, go_duration
from batchllm.simulate.replies import Headers, error_body
from batchllm.spec.lanes import Simulation

_UNITS: Final = {
    Scope.REQUESTS: "requests per min (RPM)",
    Scope.DAY: "requests per day (RPD)",
    Scope.TOKENS: "tokens per min (TPM)",
    Scope.CONCURRENCY: "concurrent requests",
}
#: What has been seen, or might be, where a number or a duration belongs. A prime number of them, so that the six
#: headers meet in every combination of two.
ABSURD: Final = (
    "60", "NaN", "-1", "0", "1e30", "unlimited", "", "-100", "9" * 5000, "1s", "-5s", "1970-01-01T00:00:00Z", "inf",
)  # fmt: skip
_MISTRAL_BODY: Final = {
    "object": "error",
    "message": "Rate limit exceeded",
    "type": "rate_limited",
    "param": None,
    "code": "1300",
}
_FIELDS: Final = ("limit", "remaining", "reset")


class Hints:
    """The voice of one provider."""

    def __init__(self, simulation: Simulation) -> None:
        self._style = simulation.headers
        self._retry_after = simulation.retry_after

    def limits(self, gate: Gate, now_s: float, turn: int) -> Headers:
        """Headers of any reply; `turn`, its number, chooses among the absurd ones."""
        if self._style == "absurd":
            return absurd_limits(turn)
        tell = _STYLES.get(self._style)
        return [] if tell is None else list(tell(gate, now_s))

    def refused(self, refusal: Refusal, wall_s: int) -> Headers:
        """What comes with a refusal beside the limits and the wait."""
        if self._style == "fireworks":
            return [("x-ratelimit-over-limit", "yes")]
        if self._style == "openrouter":
            reset_ms = ceil((wall_s + (refusal.wait_s or 0.0)) * 1000)
            return [
                ("x-ratelimit-limit", str(refusal.limit)),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", str(reset_ms)),
            ]
        return []

    def retry(self, wait_s: float | None, turn: int) -> Headers:
        """Rounded up: whoever waits as told is let in."""
        if wait_s is None:
            return []
        match self._retry_after:
            case "exact":
                return [("retry-after", str(ceil(wait_s))), ("retry-after-ms", str(ceil(wait_s * 1000)))]
            case "seconds":
                return [("retry-after", str(ceil(wait_s)))]
            case "absurd":
                return [("retry-after", _absurd(turn, 0)), ("retry-after-ms", _absurd(turn, 1))]
            case "none":
                return []

    def refusal(self, refusal: Refusal, model: str) -> tuple[int, bytes]:
        """Status and body. Where no header tells a limit, the body tells none either."""
        if self._style == "none":
            if refusal.is_too_large:
                return 413, orjson.dumps({"error": {"message": "Request Entity Too Large"}})
            return 429, orjson.dumps({"error": {"message": "Too Many Requests"}})
        if self._style == "mistral" and not refusal.is_too_large:
            return 429, orjson.dumps(_MISTRAL_BODY)
        kind = Scope.TOKENS if refusal.scope is Scope.TOKENS else Scope.REQUESTS
        return 429, error_body(self._message(refusal, model), kind.value, code="rate_limit_exceeded")

    def _message(self, refusal: Refusal, model: str) -> str:
        where = f"for {model} in organization org-simulated on {_UNITS[refusal.scope]}"
        if refusal.is_too_large:
            return (
                f"Request too large {where}: Limit {refusal.limit}, Requested {refusal.requested}. "
                "The input or output tokens must be reduced in order to run successfully."
            )
        numbers = f"Limit {refusal.limit}, Used {refusal.used}, Requested {refusal.requested}."
        return f"Rate limit reached {where}: {numbers} Please try again {self._when(refusal.wait_s)}."

    def _when(self, wait_s: float | None) -> str:
        if wait_s is None or self._retry_after in ("none", "absurd"):
            return "later"
        return f"in {go_duration(wait_s if self._retry_after == 'exact' else ceil(wait_s))}"


def _openai(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    yield from _plain(gate.request_meter(now_s), gate.token_meter(now_s))


def _groq(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    yield from _plain(gate.day_meter(now_s), gate.token_meter(now_s))


def _plain(requests: Meter | None, tokens: Meter | None) -> Iterator[tuple[str, str]]:
    for meter, unit in ((requests, "requests"), (tokens, "tokens")):
        if meter is not None:
            yield f"x-ratelimit-limit-{unit}", str(meter.limit)
            yield f"x-ratelimit-remaining-{unit}", str(meter.remaining)
            yield f"x-ratelimit-reset-{unit}", go_duration(meter.reset_s)


def _mistral(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    for meter, unit in (
        (gate.request_meter(now_s), "req-minute"),
        (gate.token_meter(now_s), "tokens-minute"),
    ):
        if meter is not None:
            yield f"x-ratelimit-limit-{unit}", str(meter.limit)
            yield f"x-ratelimit-remaining-{unit}", str(meter.remaining)


def _azure(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    for meter, unit in ((gate.request_meter(now_s), "requests"), (gate.token_meter(now_s), "tokens")):
        if meter is not None:
            yield f"x-ratelimit-limit-{unit}", str(meter.limit)
            yield f"x-ratelimit-remaining-{unit}", str(meter.remaining)
            yield f"x-ratelimit-reset-{unit}", str(ceil(meter.reset_s))
            yield f"x-ratelimit-renewalperiod-{unit}", "60"


def _together(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    """Numbers of a second, a sixtieth of the minute's; that they are is how clients read them."""
    for meter, name in (
        (gate.request_meter(now_s), "x-ratelimit"),
        (gate.token_meter(now_s), "x-tokenlimit"),
    ):
        if meter is not None:
            limit = max(1, meter.limit // 60)
            yield f"{name}-limit", str(limit)
            yield f"{name}-remaining", str(min(limit, meter.remaining))
            if name == "x-ratelimit":
                yield f"{name}-reset", "1"


def _fireworks(gate: Gate, now_s: float) -> Iterator[tuple[str, str]]:
    """One budget stands for all three; what is left is told when half of it is gone."""
    tokens = gate.token_meter(now_s)
    if tokens is None:
        return
    for kind in ("prompt", "cache-adjusted-prompt", "generated"):
        yield f"x-ratelimit-limit-tokens-{kind}", str(tokens.limit)
        if tokens.remaining * 2 < tokens.limit:
            yield f"x-ratelimit-remaining-tokens-{kind}", str(tokens.remaining)


#: `openrouter` tells its limits with refusals only, `none` nothing.
_STYLES: Final[Mapping[str, Callable[[Gate, float], Iterator[tuple[str, str]]]]] = {
    "openai": _openai,
    "groq": _groq,
    "mistral": _mistral,
    "azure": _azure,
    "together": _together,
    "fireworks": _fireworks,
}


def absurd_limits(turn: int) -> Headers:
    """OpenAI's names with values that make no sense together or at all; the next turn has others."""
    names = [f"x-ratelimit-{field}-{unit}" for unit in ("requests", "tokens") for field in _FIELDS]
    return [(name, _absurd(turn, place)) for place, name in enumerate(names)]


def _absurd(turn: int, place: int) -> str:
    rounds, step = divmod(turn, len(ABSURD))
    return ABSURD[(step + place * (rounds % len(ABSURD))) % len(ABSURD)]
