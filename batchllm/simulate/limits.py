"""What a provider lets in: requests and tokens a minute, and requests at once. Time is an argument.

Both budgets refill continuously, as the numbers in real refusals show (`(used + requested - limit) / rate` is the
wait that they print), and differ in how much may come at once:

- Requests: one second's worth (at least one). Real providers enforce by the second: 60,000 a minute may mean 1,000
  a second. In any window of W seconds at most `capacity + rate * W` requests are let in.
- Tokens: the whole figure for a minute. A request in flight counts with its full estimate (prompt and the most that
  it may answer); when it is answered the estimate is dropped and what was used counts instead, and drains at a
  sixtieth of the limit a second. In flight and used together never pass the limit when a request is let in.

What is refused costs nothing.
"""

from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

from batchllm.spec.models import Limits

#: A client that comes exactly when it was told to must not be refused over the last bit of a float.
TOLERANCE_S: Final = 1e-6


class Scope(StrEnum):
    """Which limit refuses. The value is the `type` in the body of a refusal."""

    REQUESTS = "requests"
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
    """What the rate limit headers say. `reset_s` is the time until all of it is there again."""

    limit: int
    remaining: int
    reset_s: float


class Bucket:
    """Continuous refill, kept as the moment at which it is full again: one number, no drift from many additions."""

    __slots__ = ("_full_at_s", "capacity", "rate_per_s")

    def __init__(self, rate_per_s: float, capacity: float) -> None:
        self.rate_per_s = rate_per_s
        self.capacity = capacity
        self._full_at_s = float("-inf")

    def used(self, now_s: float) -> float:
        return max(0.0, self._full_at_s - now_s) * self.rate_per_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` fits; 0 when it fits now."""
        wait_s = (self.used(now_s) + amount - self.capacity) / self.rate_per_s
        return wait_s if wait_s > TOLERANCE_S else 0.0

    def charge(self, amount: float, now_s: float) -> None:
        self._full_at_s = max(self._full_at_s, now_s) + amount / self.rate_per_s


class Gate:
    """All limits of one provider. `admit` charges only when every one of them has room."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests = Bucket(limits.rpm / 60, max(1.0, limits.rpm / 60)) if limits.rpm else None
        self._tokens = Bucket(limits.tpm / 60, limits.tpm) if limits.tpm else None
        self._reserved = 0
        self.in_flight = 0

    def admit(self, tokens: int, now_s: float) -> Refusal | None:
        refusal = self._refuse_slot() or self._refuse_request(now_s) or self._refuse_tokens(tokens, now_s)
        if refusal is not None:
            return refusal
        if self._requests is not None:
            self._requests.charge(1, now_s)
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
        if self._requests is None or self._limits.rpm is None:
            return None
        used = self._requests.used(now_s)
        return _meter(self._limits.rpm, used, used / self._requests.rate_per_s)

    def token_meter(self, now_s: float) -> Meter | None:
        if self._tokens is None or self._limits.tpm is None:
            return None
        used = self._tokens.used(now_s) + self._reserved
        return _meter(self._limits.tpm, used, used / self._tokens.rate_per_s)

    def _refuse_slot(self) -> Refusal | None:
        cap = self._limits.concurrency
        if cap is None or self.in_flight < cap:
            return None
        return Refusal(Scope.CONCURRENCY, cap, self.in_flight, 1, None)

    def _refuse_request(self, now_s: float) -> Refusal | None:
        bucket = self._requests
        if bucket is None or self._limits.rpm is None:
            return None
        wait_s = bucket.wait_s(1, now_s)
        if not wait_s:
            return None
        # Told in terms of the minute, so that (used + requested - limit) / rate is the wait, as in real refusals.
        used = self._limits.rpm - bucket.capacity + bucket.used(now_s)
        return Refusal(Scope.REQUESTS, ceil(self._limits.rpm), ceil(used), 1, wait_s)

    def _refuse_tokens(self, tokens: int, now_s: float) -> Refusal | None:
        bucket = self._tokens
        if bucket is None:
            return None
        limit = ceil(bucket.capacity)
        if tokens > bucket.capacity:
            return Refusal(Scope.TOKENS, limit, 0, tokens, None, is_too_large=True)
        wait_s = bucket.wait_s(self._reserved + tokens, now_s)
        if not wait_s:
            return None
        used = ceil(bucket.used(now_s)) + self._reserved
        return Refusal(Scope.TOKENS, limit, used, tokens, wait_s)


def _meter(limit: float, used: float, reset_s: float) -> Meter:
    return Meter(ceil(limit), max(0, ceil(limit) - ceil(used - TOLERANCE_S)), reset_s)


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
