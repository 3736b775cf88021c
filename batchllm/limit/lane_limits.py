"""What holds one lane back: requests a minute, tokens a minute, calls in flight, and the provider's own word.

Requests are paced by aiolimiter. It fits because a lane has a single waiter (its pump), so its ordering by amount
cannot starve anyone, and because its capacity is kept to a twentieth of a second's worth: the burst that it allows
at a start stays below what any provider notices. Tokens need debt and refunds, which it does not have.
"""

import asyncio

from aiolimiter import AsyncLimiter

from batchllm.clock import Clock
from batchllm.limit.bucket import TokenBucket

#: Part of a second's requests that may go at once: enough to catch up after a late timer, too little to be a burst.
_PACING_S = 0.05


class LaneLimits:
    """Told limits of one lane. `admit` before a request is chosen, `reserve` once its size is known."""

    def __init__(
        self,
        *,
        clock: Clock,
        rpm: float | None = None,
        tpm: float | None = None,
    ) -> None:
        self._clock = clock
        self.rpm = rpm
        self.tpm = tpm
        self._pace = None if rpm is None else _pacer(rpm / 60.0)
        self._tokens = None if tpm is None else TokenBucket(tpm, now_s=clock.monotonic_s())
        self._quiet_until_s = 0.0

    async def admit(self) -> None:
        """Return when one more request may go."""
        if self._pace is not None:
            await self._pace.acquire()

    def reserve(self, tokens: int) -> float:
        """Take `tokens` from the minute's budget; the result is how many seconds to wait first."""
        if self._tokens is None:
            return 0.0
        return self._tokens.reserve(tokens, self._clock.monotonic_s())

    def settle(self, reserved: int, actual: int) -> None:
        if self._tokens is not None:
            self._tokens.settle(reserved, actual, self._clock.monotonic_s())

    def quiet(self, seconds: float) -> None:
        """The provider asked for silence: nothing goes out on this lane before it is over."""
        self._quiet_until_s = max(self._quiet_until_s, self._clock.monotonic_s() + seconds)

    @property
    def quiet_s(self) -> float:
        """Seconds of silence left."""
        return max(0.0, self._quiet_until_s - self._clock.monotonic_s())


def _pacer(rate_per_s: float) -> AsyncLimiter:
    capacity = max(1.0, rate_per_s * _PACING_S)
    return AsyncLimiter(capacity, capacity / rate_per_s)


class Window:
    """Calls in flight: a counter whose one waiter sleeps on an event, never polls."""

    __slots__ = ("_room", "in_flight", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_flight = 0
        self._room = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.size

    def enter(self) -> None:
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
        self._room.set()

    async def room(self) -> None:
        """Return when another call may go."""
        while not self.has_room:
            await self.change()

    async def change(self) -> None:
        """Return after the next call has left."""
        self._room.clear()
        await self._room.wait()
