"""When is a call given up that nobody set a deadline for?

Ten times the longest that any recent answer took, and never below half a minute: a call that hangs is asked again
while the others go on, and the last rows of a run do not wait for ten minutes on a connection that is dead. A
provider that slows down tenfold stays within it. Answers that take long raise it; it falls slowly.
"""

#: Until enough is known, and never more: what the SDKs wait.
LONGEST_DEADLINE_S = 600.0
SHORTEST_DEADLINE_S = 30.0
_TIMES_LONGEST = 10.0
_LONGER_EACH_TIME = 4.0
#: Fewer answers say little of the tail.
_ENOUGH = 20
#: Of the longest, what is left after each shorter answer: half of it after about seven hundred.
_DECAY = 0.999


class Latency:
    """`told_s` is a deadline that the job names; it is kept to as it is."""

    __slots__ = ("_answers", "_longest_s", "_told_s")

    def __init__(self, told_s: float | None = None) -> None:
        self._told_s = told_s
        self._answers = 0
        self._longest_s = 0.0

    def learn(self, latency_s: float) -> None:
        self._answers += 1
        self._longest_s = max(latency_s, self._longest_s * _DECAY)

    @property
    def longest_s(self) -> float:
        """No call is waited for longer than this, whatever is learned meanwhile."""
        return LONGEST_DEADLINE_S if self._told_s is None else self._told_s

    def deadline_s(self, overdue: int = 0) -> float:
        """Of a request that was given up `overdue` times before: it may take long instead of hanging.

        Answers that were not waited for teach nothing, so each time it is waited for four times as long.
        """
        if self._told_s is not None:
            return self._told_s
        if self._answers < _ENOUGH:
            return LONGEST_DEADLINE_S
        usual_s = max(SHORTEST_DEADLINE_S, _TIMES_LONGEST * self._longest_s)
        return min(LONGEST_DEADLINE_S, usual_s * _LONGER_EACH_TIME**overdue)
