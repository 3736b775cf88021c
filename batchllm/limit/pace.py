"""When the next request of a lane may go: arithmetic only, the clock is an argument.

Two laws, and both are exact for any sequence of calls and any clock that does not go back:

- In a half-open window of one second no more requests go than a second's share of the limit, rounded down where that
  costs nothing and up where it must (nobody can send 1.5 requests a second without sending 2 in some second).
- In a half-open window of a minute no more requests go than the limit.

Providers enforce by the second, and some of them by an exact log. What leaves here at exact intervals arrives a few
milliseconds early or late, so the pace is kept one per cent below the limit: that is 10 ms of play in each second.
A request that could not go in time (the loop was busy) may be made up for, but only by what a tenth of a second
holds; so a lane that wakes up, or starts, never bursts.
"""

from collections import deque
from math import ceil, floor, inf

#: Share of the limit that is used. One per cent is 10 ms of play a second against jitter on the way.
USED_SHARE = 0.99
#: Seconds of the pace that may be made up for. The minute's law needs (60 + this) * USED_SHARE <= 60.
CATCH_UP_S = 0.1
#: With so short a time to make up, the second's law holds by arithmetic: (1 + 0.01) * 0.99 < 1. No log is needed.
_SHORT_CATCH_UP_S = 0.01
#: Beyond this many requests a second no log is kept: no process sends as many.
_LONGEST_LOG = 20_000
_SECOND_S = 1.0


class Pace:
    """`per_minute` requests a minute. `next_s` is when the next may go; `take` when it goes."""

    __slots__ = (
        "_interval_s",
        "_last_s",
        "_most",
        "_recent_s",
        "_start_s",
        "catch_up_s",
        "next_s",
        "per_minute",
    )

    def __init__(self, per_minute: float, *, now_s: float) -> None:
        self.next_s = self._start_s = now_s
        self._last_s = -inf
        self._recent_s: deque[float] = deque()
        self._set(per_minute)

    def change(self, per_minute: float) -> None:
        """From now on another limit; what went in the last second still counts."""
        if per_minute == self.per_minute:
            return
        self._set(per_minute)
        if self._last_s > -inf:
            self.next_s = max(self._last_s + self._interval_s, self._log_s(), self._start_s)

    def take(self, now_s: float) -> None:
        """One request goes, not before `next_s`."""
        if now_s < self._last_s:
            now_s = self._last_s
        recent_s = self._recent_s
        while recent_s and recent_s[0] + _SECOND_S <= now_s:
            recent_s.popleft()
        self._last_s = now_s
        due_s = now_s - self.catch_up_s
        self.next_s = (self.next_s if self.next_s > due_s else due_s) + self._interval_s
        if self._most:
            recent_s.append(now_s)
            self.next_s = max(self.next_s, self._log_s())

    def restart(self, now_s: float) -> None:
        """Nothing went until then, and nothing is made up for: a silence, or the process stood still."""
        self.next_s, self._start_s = max(self.next_s, now_s), max(self._start_s, now_s)

    def _set(self, per_minute: float) -> None:
        self.per_minute = per_minute
        rate = per_minute / 60.0
        self._interval_s = 1.0 / (rate * USED_SHARE)
        whole = floor(rate) if floor(rate) >= rate * USED_SHARE else ceil(rate)
        is_logged = whole <= _LONGEST_LOG
        self._most = whole if is_logged else 0
        self.catch_up_s = CATCH_UP_S if is_logged else _SHORT_CATCH_UP_S

    def _log_s(self) -> float:
        """When the second that is full has room again."""
        recent_s, most = self._recent_s, self._most
        return recent_s[-most] + _SECOND_S if most and len(recent_s) >= most else -inf
