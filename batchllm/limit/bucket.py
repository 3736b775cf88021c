"""Token budgets as a continuous-refill bucket: arithmetic only, the clock is an argument.

Providers refill continuously rather than by the calendar minute (their own refusals say so: used + requested −
limit, divided by limit / 60, is the wait that they print). So does this. A reservation is taken at once and may
drive the level below zero; what it owes is the wait. Waiting on a debt keeps first in, first out: a long prompt
cannot be overtaken for ever by short ones, and one that is larger than a second's worth still gets its turn.
"""

#: Seconds of the rate that may go at once. Providers enforce by the second: 60,000 a minute may mean 1,000 a second.
BURST_S = 1.0


class TokenBucket:
    """`per_minute` tokens a minute; at most a second's worth at once."""

    __slots__ = ("_level", "_updated_s", "capacity", "rate")

    def __init__(self, per_minute: float, *, now_s: float) -> None:
        self.rate = per_minute / 60.0
        self.capacity = self.rate * BURST_S
        self._level = self.capacity
        self._updated_s = now_s

    def reserve(self, amount: float, now_s: float) -> float:
        """Take `amount` and return the seconds to wait before it may be used."""
        self._refill(now_s)
        self._level -= amount
        return max(0.0, -self._level / self.rate)

    def settle(self, reserved: float, actual: float, now_s: float) -> None:
        """Correct a reservation once the real figure is known; 0 gives all of it back."""
        self._refill(now_s)
        self._level = min(self.capacity, self._level + reserved - actual)

    def _refill(self, now_s: float) -> None:
        elapsed = max(0.0, now_s - self._updated_s)
        self._level = min(self.capacity, self._level + elapsed * self.rate)
        self._updated_s = max(now_s, self._updated_s)
