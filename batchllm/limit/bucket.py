"""Tokens a minute: arithmetic only, the clock is an argument.

Providers refill continuously rather than by the calendar minute (their own refusals say so: used + requested −
limit, divided by limit / 60, is the wait that they print). So does this: a reservation is taken at once and may drive
the level below zero; what it owes is the wait. Waiting on a debt keeps first in, first out: a long prompt cannot be
overtaken for ever by short ones, and one that is larger than a second's worth still gets its turn.

A bucket alone would let a minute hold the limit and one large prompt more. A log of the last minute forbids that:
in no half-open window of sixty seconds do the reservations come to more than the limit, unless it is a single one.
What goes within ten milliseconds is one entry of the log, as of the last of it: a thousand calls a second take no more
memory than a hundred, and nothing leaves the log too early.
"""

from collections import deque

#: Share of the limit at which the level refills: play for estimates that are corrected after the fact.
USED_SHARE = 0.99
#: Seconds of the rate that may go at once after a pause.
BURST_S = 0.5
_MINUTE_S = 60.0
_ENTRY_S = 0.01


class _Entry:
    """What was reserved from `since_s` to `at_s`; `is_held`: the last minute still counts it."""

    __slots__ = ("at_s", "is_held", "owner", "since_s", "tokens")

    def __init__(self, owner: "TokenBucket", now_s: float) -> None:
        self.owner = owner
        self.is_held = True
        self.tokens = 0.0
        self.since_s = self.at_s = now_s


class Reservation:
    """Tokens that were taken; `ready_s` is when their request may go, `most` what it may come to in the end."""

    __slots__ = ("at_s", "entry", "most", "ready_s", "tokens")

    def __init__(self, tokens: float, at_s: float, ready_s: float) -> None:
        self.entry: _Entry | None = None  # None: made while no limit was known
        self.tokens = self.most = tokens
        self.at_s = at_s
        self.ready_s = ready_s


class TokenBucket:
    """One caller at a time: it waits until `ready_s`, says `take`, and then asks for the next."""

    __slots__ = ("_held", "_level", "_log", "_updated_s", "_waiting", "capacity", "per_minute", "rate")

    def __init__(self, per_minute: float, *, now_s: float) -> None:
        self._set(per_minute)
        self._level = self.capacity
        self._updated_s = now_s
        self._log: deque[_Entry] = deque()  # in the order of `at_s`
        self._held = 0.0  # what the log comes to
        self._waiting: Reservation | None = None  # made, and its request has not gone

    def change(self, per_minute: float, now_s: float) -> None:
        """From now on another limit; what was taken still counts."""
        self._refill(now_s)
        self._set(per_minute)
        self._level = min(self._level, self.capacity)
        if self._waiting is not None:
            owed_s = max(0.0, -self._level / self.rate)
            self._waiting.ready_s = max(now_s + owed_s, self._room_s(0.0, now_s))

    def reserve(self, tokens: float, now_s: float) -> Reservation:
        self._refill(now_s)
        self._level -= tokens
        ready_s = now_s if self._level >= 0.0 else now_s - self._level / self.rate
        if self._held + tokens > self.per_minute:
            ready_s = max(ready_s, self._room_s(tokens, now_s))
        made = Reservation(tokens, now_s, ready_s)
        self._enter(made)
        self._waiting = made
        return made

    def take(self, made: Reservation, now_s: float) -> None:
        """Its request goes now."""
        self._waiting = None
        entry = made.entry
        if entry is None or entry.owner is not self:  # the limit became known while it waited
            self._level -= made.tokens
        elif entry.is_held:  # as of now, not of when it began to wait
            entry.tokens -= made.tokens
            self._held -= made.tokens
        if now_s > made.at_s:
            made.at_s = now_s
        self._enter(made)

    def settle(self, made: Reservation, actual: float, now_s: float) -> None:
        """Correct a reservation once the real figure is known; 0 gives all of it back.

        A figure beyond a whole minute is no figure of one request: it is not held against the ones after it.
        """
        entry = made.entry
        if entry is None or entry.owner is not self:
            made.tokens = actual  # it went when this limit was not known
            return
        self._refill(now_s)
        actual = min(actual, max(made.tokens, self.per_minute))
        self._level = min(self.capacity, self._level + made.tokens - actual)
        if entry.is_held:
            entry.tokens += actual - made.tokens
            self._held += actual - made.tokens
        made.tokens = actual
        if made is self._waiting:
            self._waiting = None

    def restart(self, now_s: float) -> None:
        """The process stood still: nothing is made up for."""
        self._refill(now_s)
        self._level = min(self._level, 0.0)

    def _set(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self.rate = per_minute / _MINUTE_S * USED_SHARE
        self.capacity = self.rate * BURST_S

    def _refill(self, now_s: float) -> None:
        elapsed_s = now_s - self._updated_s
        if elapsed_s > 0.0:
            level = self._level + elapsed_s * self.rate
            self._level = level if level < self.capacity else self.capacity
            self._updated_s = now_s
        log = self._log
        while log and log[0].at_s + _MINUTE_S <= self._updated_s:
            gone = log.popleft()
            gone.is_held = False
            self._held -= gone.tokens
        if not log:
            self._held = 0.0  # sums of floats leave dust

    def _enter(self, made: Reservation) -> None:
        log = self._log
        if not log or made.at_s - log[-1].since_s >= _ENTRY_S:
            log.append(_Entry(self, made.at_s))
        entry = made.entry = log[-1]
        if made.at_s > entry.at_s:
            entry.at_s = made.at_s
        entry.tokens += made.tokens
        self._held += made.tokens

    def _room_s(self, tokens: float, now_s: float) -> float:
        """When the last minute has room for so many more; for what is larger than a minute, when it is empty."""
        excess = self._held + tokens - self.per_minute
        room_s = now_s
        for entry in self._log:
            if excess <= 0:
                break
            excess -= entry.tokens
            room_s = entry.at_s + _MINUTE_S
        return room_s
