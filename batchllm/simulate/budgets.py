"""One limit's arithmetic: so much in each window, enforced in one of the ways that providers have. Time is an argument.

A `Bucket` refills steadily, as the numbers in real refusals of OpenAI and Groq show. A `SlidingLog` remembers each
charge until its window is over and is exact: in any window at most the capacity, wherever the window starts. The
first lets a burst in and then the rate on top of it; the second lets the burst in and nothing else for a window.
"""

from collections import deque
from math import ceil
from typing import Final, Literal, NamedTuple, Protocol

Enforcement = Literal["refill", "second", "minute"]
#: A client that comes exactly when it was told to must not be refused over the last bit of a float.
TOLERANCE_S: Final = 1e-6
#: What is told when the room is held by requests in flight, whose end nobody knows.
_UNKNOWN_WAIT_S: Final = 1.0


class Allowance(NamedTuple):
    """At most `capacity` at once, and that much again in each `window_s`."""

    capacity: float
    window_s: float

    @property
    def rate_per_s(self) -> float:
        return self.capacity / self.window_s


class Budget(Protocol):
    allowance: Allowance

    def change(self, allowance: Allowance) -> None:
        """The limit moves; what was used before still counts."""

    def used(self, now_s: float) -> float: ...

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` fits; 0 when it fits now."""

    def charge(self, amount: float, now_s: float) -> None: ...

    def charge_refused(self, now_s: float) -> None:
        """One request that was refused: it takes what is left and no more, or hammering would bar the door for ever."""


class Bucket:
    """Continuous refill, kept as the moment at which it is full again: one number, no drift from many additions."""

    __slots__ = ("_full_at_s", "allowance")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._full_at_s = float("-inf")

    def change(self, allowance: Allowance) -> None:
        self.allowance = (
            allowance  # the share that is used stays: the bucket is full again at the same moment
        )

    def used(self, now_s: float) -> float:
        return max(0.0, self._full_at_s - now_s) * self.allowance.rate_per_s

    def wait_s(self, amount: float, now_s: float) -> float:
        capacity, rate_per_s = self.allowance.capacity, self.allowance.rate_per_s
        wait_s = (self.used(now_s) + amount - capacity) / rate_per_s
        return wait_s if wait_s > TOLERANCE_S else 0.0

    def charge(self, amount: float, now_s: float) -> None:
        self._full_at_s = max(self._full_at_s, now_s) + amount / self.allowance.rate_per_s

    def charge_refused(self, now_s: float) -> None:
        empty_s = now_s + self.allowance.window_s
        self._full_at_s = max(self._full_at_s, min(empty_s, self._full_at_s + 1 / self.allowance.rate_per_s))


class SlidingLog:
    """Every charge of the last window, exactly."""

    __slots__ = ("_charges", "_sum", "allowance")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._charges: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def change(self, allowance: Allowance) -> None:
        self.allowance = allowance

    def used(self, now_s: float) -> float:
        until_s = now_s + TOLERANCE_S - self.allowance.window_s
        while self._charges and self._charges[0][0] <= until_s:
            self._forget_oldest()
        return self._sum

    def wait_s(self, amount: float, now_s: float) -> float:
        excess = self.used(now_s) + amount - self.allowance.capacity
        if excess <= 0:
            return 0.0
        for at_s, charged in self._charges:
            excess -= charged
            if excess <= 0:
                return max(at_s + self.allowance.window_s - now_s, TOLERANCE_S)
        return _UNKNOWN_WAIT_S

    def charge(self, amount: float, now_s: float) -> None:
        if amount:
            self._charges.append((now_s, amount))
            self._sum += amount

    def charge_refused(self, now_s: float) -> None:
        self.charge(1, now_s)
        while self._sum - self._charges[0][1] >= self.allowance.capacity:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._sum -= self._charges.popleft()[1]
        if not self._charges:
            self._sum = 0.0  # no dust of floats


def request_allowance(rpm: float, enforcement: Enforcement) -> Allowance:
    """A log counts whole requests: where the limit is no whole number a second, the window is longer than that."""
    match enforcement:
        case "refill":
            capacity = max(1.0, rpm / 60)
        case "second":
            capacity = max(1, ceil(rpm / 60 - TOLERANCE_S))
        case "minute":
            capacity = max(1, ceil(rpm - TOLERANCE_S))
    return Allowance(capacity, capacity * 60 / rpm)


def new_budget(allowance: Allowance, enforcement: Enforcement) -> Budget:
    return Bucket(allowance) if enforcement == "refill" else SlidingLog(allowance)
