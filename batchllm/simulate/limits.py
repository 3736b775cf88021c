"""What a provider lets in: requests and tokens a minute, requests a day, and requests at once. Time is an argument.

How much may come at once is the `Enforcement`'s to say (budgets.py); by default requests and tokens refill steadily:

- Requests: one second's worth (at least one). Real providers enforce by the second: 60,000 a minute may mean 1,000
  a second. In any window of W seconds at most `capacity + rate * W` requests are let in.
- Tokens: the whole figure for a minute. A request in flight counts with its full estimate (prompt and the most that
  it may answer); when it is answered the estimate is dropped and what was used counts instead, and drains at a
  sixtieth of the limit a second. In flight and used together never pass the limit when a request is let in.

What is refused costs nothing, unless refused requests are counted.
"""

from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

from batchllm.simulate.budgets import (
    TOLERANCE_S,
    Allowance,
    Budget,
    Enforcement,
    new_budget,
    request_allowance,
)
from batchllm.spec.lanes import SimulatedLimits

_DAY_S: Final = 86_400.0


class Scope(StrEnum):
    """Which limit refuses."""

    REQUESTS = "requests"
    DAY = "day"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


class Refusal(NamedTuple):
    """`wait_s` is None where nobody can know it: when a slot frees, or never, for what is larger than the limit."""

    scope: Scope
    limit: int
    used: int
    requested: int
    wait_s: float | None
    is_too_large: bool = False


class Meter(NamedTuple):
    """What the rate limit headers say. `reset_s`: until a steady refill has all of it back."""

    limit: int
    remaining: int
    reset_s: float


class Gate:
    """All limits of one provider. `admit` charges only when every one of them has room."""

    def __init__(
        self, limits: SimulatedLimits, enforcement: Enforcement = "refill", *, counts_refused: bool = False
    ) -> None:
        self._enforcement = enforcement
        self._counts_refused = counts_refused
        self._requests: Budget | None = None
        self._day: Budget | None = None
        self._tokens: Budget | None = None
        self._reserved = 0
        self.in_flight = 0
        self.change(limits)

    def change(self, limits: SimulatedLimits) -> None:
        """Other limits from now on; what was used and what is in flight counts against them."""
        self._limits = limits
        how = self._enforcement
        self._requests = _moved(self._requests, limits.rpm and request_allowance(limits.rpm, how), how)
        self._day = _moved(self._day, limits.rpd and Allowance(limits.rpd, _DAY_S), "refill")
        self._tokens = _moved(self._tokens, limits.tpm and Allowance(limits.tpm, 60.0), how)

    def admit(self, tokens: int, now_s: float) -> Refusal | None:
        refusal = self._refusal(tokens, now_s)
        if refusal is not None:
            return self._counted(refusal, tokens, now_s) if self._counts_refused else refusal
        for budget in (self._requests, self._day):
            if budget is not None:
                budget.charge(1, now_s)
        self._reserved += tokens
        self.in_flight += 1
        return None

    def settle(self, reserved: int, used: int, now_s: float) -> None:
        """The request that was let in with `reserved` tokens is over and has used `used`."""
        self._reserved -= reserved
        self.in_flight -= 1
        if self._tokens is not None:
            self._tokens.charge(used, now_s)

    def request_meter(self, now_s: float) -> Meter | None:
        return _meter(self._requests, self._limits.rpm, 0, now_s)

    def day_meter(self, now_s: float) -> Meter | None:
        return _meter(self._day, self._limits.rpd, 0, now_s)

    def token_meter(self, now_s: float) -> Meter | None:
        return _meter(self._tokens, self._limits.tpm, self._reserved, now_s)

    def _refusal(self, tokens: int, now_s: float) -> Refusal | None:
        return (
            self._refuse_slot()
            or _refuse_request(self._requests, Scope.REQUESTS, self._limits.rpm, now_s)
            or _refuse_request(self._day, Scope.DAY, self._limits.rpd, now_s)
            or self._refuse_tokens(tokens, now_s)
        )

    def _counted(self, refusal: Refusal, tokens: int, now_s: float) -> Refusal:
        """The same refusal after it was charged: whoever waits as told must be let in."""
        for budget in (self._requests, self._day):
            if budget is not None:
                budget.charge_refused(now_s)
        return self._refusal(tokens, now_s) or refusal

    def _refuse_slot(self) -> Refusal | None:
        cap = self._limits.concurrency
        if cap is None or self.in_flight < cap:
            return None
        return Refusal(Scope.CONCURRENCY, cap, self.in_flight, 1, None)

    def _refuse_tokens(self, tokens: int, now_s: float) -> Refusal | None:
        budget, limit = self._tokens, self._limits.tpm
        if budget is None or limit is None:
            return None
        if tokens > limit:
            return Refusal(Scope.TOKENS, ceil(limit), 0, tokens, None, is_too_large=True)
        wait_s = budget.wait_s(self._reserved + tokens, now_s)
        if not wait_s:
            return None
        used = ceil(budget.used(now_s)) + self._reserved
        return Refusal(Scope.TOKENS, ceil(limit), used, tokens, wait_s)


def _moved(budget: Budget | None, allowance: Allowance | float | None, how: Enforcement) -> Budget | None:
    if not isinstance(allowance, Allowance):
        return None
    if budget is None:
        return new_budget(allowance, how)
    budget.change(allowance)
    return budget


def _refuse_request(budget: Budget | None, scope: Scope, limit: float | None, now_s: float) -> Refusal | None:
    if budget is None or limit is None:
        return None
    wait_s = budget.wait_s(1, now_s)
    if not wait_s:
        return None
    # Told in terms of the whole limit, so that (used + requested - limit) / rate is the wait, as in real refusals.
    used = limit - budget.allowance.capacity + budget.used(now_s)
    return Refusal(scope, ceil(limit), ceil(used), 1, wait_s)


def _meter(budget: Budget | None, limit: float | None, reserved: int, now_s: float) -> Meter | None:
    if budget is None or limit is None:
        return None
    used = budget.used(now_s) + reserved
    remaining = max(0, ceil(limit) - ceil(used - TOLERANCE_S))
    return Meter(ceil(limit), remaining, used / budget.allowance.rate_per_s)


def go_duration(seconds: float) -> str:
    """As Go prints durations, in whole milliseconds, rounded up: `0s`, `20ms`, `1.5s`, `6m0s`, `1h0m2s`."""
    total_ms = ceil(seconds * 1000 - 1e-6)
    if total_ms <= 0:
        return "0s"
    if total_ms < 1000:
        return f"{total_ms}ms"
    minutes, rest_ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest_ms // 1000}.{rest_ms % 1000:03d}".rstrip("0").rstrip(".") if rest_ms % 1000 else ""
    text = (text or str(rest_ms // 1000)) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
