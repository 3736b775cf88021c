"""What a provider's ledger proves about a client: rates, shares of a limit, windows, waits. Arithmetic only.

Times are seconds on the machine's monotonic clock. A window is half open, [t, t + width), and every t counts: the
busiest one is found exactly. Rates are per second.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: The span over which a rate is read when it changes: long enough to count, short against the ten seconds allowed.
RATE_WINDOW_S = 2.0
#: Two times of one clock that lie this near are one window apart: a float's last bit is no overrun.
_TOLERANCE_S = 1e-6


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the provider saw it. `row` is the number in its text, `source` the word before it."""

    at_s: float
    is_accepted: bool
    tokens: int = 0
    source: str = ""
    row: int = -1
    attempt: int = 0
    status: int | None = 200
    latency_s: float = 0.0


def call_of(entry: Mapping[str, object]) -> Call | None:
    """A line of a ledger; None for what was no call for a row (wrong in itself, or of another text)."""
    source, _, rest = str(entry["text"]).partition(" ")
    number = rest.partition(" ")[0]
    if entry["verdict"] == "rejected" or not number.isdigit():
        return None
    prompt, completion = entry["prompt_tokens"], entry["completion_tokens"]
    at_s, latency_s, attempt, status = (entry[name] for name in ("at_s", "latency_s", "attempt", "status"))
    return Call(
        float(str(at_s)),
        entry["verdict"] == "accepted",
        int(str(prompt)) + int(str(completion)),
        source,
        int(number),
        int(str(attempt)),
        None if status is None else int(str(status)),
        float(str(latency_s)),
    )


def busiest(calls: Sequence[tuple[float, float]], width_s: float) -> float:
    """The largest sum of amounts in any window; `calls` are (time, amount) in order of time."""
    most = running = 0.0
    first = 0
    for at_s, amount in calls:
        running += amount
        while calls[first][0] <= at_s - width_s + _TOLERANCE_S:
            running -= calls[first][1]
            first += 1
        most = max(most, running)
    return most


def counted(calls: Iterable[Call]) -> list[tuple[float, float]]:
    """Each call as one, for `busiest`."""
    return sorted((call.at_s, 1.0) for call in calls)


def weighed(calls: Iterable[Call]) -> list[tuple[float, float]]:
    """Each accepted call as its tokens, for `busiest`."""
    return sorted((call.at_s, float(call.tokens)) for call in calls if call.is_accepted)


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate over time: (from when, rate), the first of them before everything."""

    steps: tuple[tuple[float, float], ...]

    @classmethod
    def steady(cls, rate: float) -> "Limit":
        return cls(((float("-inf"), rate),))

    @property
    def highest(self) -> float:
        return max(rate for _, rate in self.steps)

    def amount(self, start_s: float, end_s: float) -> float:
        """What the limit allows between two moments."""
        bounds = [*(at_s for at_s, _ in self.steps), float("inf")]
        return sum(
            rate * max(0.0, min(end_s, until_s) - max(start_s, from_s))
            for (from_s, until_s), (_, rate) in zip(pairwise(bounds), self.steps, strict=True)
        )


def accepted_times(calls: Iterable[Call]) -> list[float]:
    return sorted(call.at_s for call in calls if call.is_accepted)


def share_of(amounts: Sequence[tuple[float, float]], limit: Limit, *, skip_s: float = 0.0) -> float:
    """What went through between the first and the last one, of what the limit allows in that time.

    `skip_s`: so long after the first one nothing counts yet. The last one closes the span and is not in it.
    """
    if len(amounts) < 2:
        return 0.0
    start_s, end_s = amounts[0][0] + skip_s, amounts[-1][0]
    allowed = limit.amount(start_s, end_s)
    done = sum(amount for at_s, amount in amounts if start_s <= at_s < end_s)
    return done / allowed if allowed > 0 else 0.0


def share_between(times: Sequence[float], limit: Limit, start_s: float, end_s: float) -> float:
    """The same between two given moments; `times` in order."""
    allowed = limit.amount(start_s, end_s)
    done = bisect_left(times, end_s) - bisect_left(times, start_s)
    return done / allowed if allowed > 0 else 0.0


def refused_share(calls: Sequence[Call], *, after_s: float = float("-inf")) -> float:
    seen = [call for call in calls if call.at_s >= after_s]
    return sum(not call.is_accepted for call in seen) / len(seen) if seen else 0.0


def rates(
    times: Sequence[float], start_s: float, end_s: float, *, width_s: float, step_s: float
) -> list[float]:
    """Calls a second in windows centred on `start_s`, `start_s + step_s`, … up to `end_s`; `times` in order.

    At both ends the window is what of it lies between them, so that a steady client is level from its first call on.
    """
    found = []
    for number in range(int((end_s - start_s) / step_s + _TOLERANCE_S) + 1):
        middle_s = start_s + number * step_s
        from_s, to_s = max(start_s, middle_s - width_s / 2), min(end_s, middle_s + width_s / 2)
        found.append((bisect_left(times, to_s) - bisect_left(times, from_s)) / (to_s - from_s))
    return found


def seconds_until(
    times: Sequence[float], since_s: float, rate: float, *, share: float = 0.9, end_s: float | None = None
) -> float | None:
    """From `since_s` until the first window in which `share` of `rate` goes through; None when there is none.

    `times` in order; `end_s` is when there was nothing left to send (default: the last of them).
    """
    last_s = end_s if end_s is not None else (times[-1] if times else since_s)
    needed = rate * share * RATE_WINDOW_S
    for start_s in (since_s, *(at_s for at_s in times if at_s > since_s)):
        if start_s + RATE_WINDOW_S > last_s + _TOLERANCE_S:
            return None
        inside = bisect_left(times, start_s + RATE_WINDOW_S) - bisect_left(times, start_s)
        if inside >= needed - _TOLERANCE_S:
            return start_s - since_s
    return None


def seconds_until_quiet(
    calls: Sequence[Call], since_s: float, end_s: float, *, most_refused: float
) -> float | None:
    """From `since_s` until the last window whose share of refused calls is above `most_refused`; 0 when none is.

    A window that `end_s` cuts off is none: one refusal would be too much for the few calls in it.
    """
    seen = sorted(
        (call for call in calls if since_s <= call.at_s < end_s),
        key=lambda call: (call.at_s, call.is_accepted),
    )
    times = [call.at_s for call in seen]
    loud_s = since_s
    for first, call in enumerate(seen):
        if call.at_s + RATE_WINDOW_S > end_s:
            break
        window = seen[first : bisect_left(times, call.at_s + RATE_WINDOW_S)]
        refused = [other for other in window if not other.is_accepted]
        if len(refused) > most_refused * len(window):
            loud_s = refused[-1].at_s
    return loud_s - since_s


def longest_overtaken_s(calls: Iterable[Call]) -> float:
    """How long the unluckiest row waited while a later one had been let in; rows are numbered in input order."""
    first_s: dict[int, float] = {}
    for call in sorted((call for call in calls if call.is_accepted), key=lambda call: call.at_s):
        first_s.setdefault(call.row, call.at_s)
    longest, earliest_later_s = 0.0, float("inf")
    for row in sorted(first_s, reverse=True):
        longest = max(longest, first_s[row] - earliest_later_s)
        earliest_later_s = min(earliest_later_s, first_s[row])
    return longest


def fairness(counts: Sequence[int]) -> float:
    """The least of them as a share of the most: 1 when all are equal."""
    return min(counts) / max(counts) if counts and max(counts) else 0.0


def mean_latency_s(calls: Iterable[Call]) -> float:
    latencies = [call.latency_s for call in calls if call.is_accepted]
    return sum(latencies) / len(latencies) if latencies else 0.0


def longest_give_away_s(failed: Iterable[Call], others: Iterable[Call]) -> float:
    """From a row's failure on one lane until another took it, at the longest; never taken counts as for ever."""
    taken: dict[int, list[float]] = {}
    for call in others:
        if call.is_accepted:
            taken.setdefault(call.row, []).append(call.at_s)
    longest = 0.0
    for call in failed:
        failed_s = call.at_s + call.latency_s
        waits = [at_s - failed_s for at_s in taken.get(call.row, ()) if at_s >= failed_s - _TOLERANCE_S]
        longest = max(longest, min(waits, default=float("inf")))
    return longest
