"""What refusals teach of a rate: where the limit is not told, or is not what was told. Pure, the clock is an argument.

Without a refusal nothing is known, and nothing is governed. A refusal says that the limit was met; how much it
allows follows from what was let through before. Providers count in two ways. One that keeps a log of the last second
refuses when just its limit went in that second. One with a bucket gave out its burst as well then; but a bucket that
was empty at one refusal and is empty at the next has given out just its rate in between. So the last second is
believed first; if the next refusal follows at once it was a bucket, and the long count is believed from then on.

The rate is set a little below, held for a while, and then raised in steps that grow until the next refusal. A limit
that stayed costs one refusal a cycle; one that was raised is found within seconds. How long a rate is held follows
from what a refusal costs: a place among the refused, and the silence that the provider asks for.

The unit is whatever is counted: requests a second for one governor, tokens a second for another.
"""

from collections import deque
from math import inf

#: The rate after a refusal, of what was let through.
BACK_OFF = 0.97
#: Growth of the first second after a hold; doubled each second, up to `_FASTEST`.
_FIRST_STEP = 0.03
_FASTEST = 0.4
_STEP_S = 0.25
#: What was let through is counted over at most this long, so that a limit that moved is seen.
LOOK_BACK_S = 5.0
_SLOT_S = 0.02
#: A provider's burst, the length of its log, and the time in which another refusal is about the same excess.
_SECOND_S = 1.0
#: A rate is held for so many amounts for each refusal (1 in 75 is 1.3 %), and at least so long.
_HELD_AMOUNTS = 75.0
_HELD_S = 2.0
_LONGEST_HOLD_S = 60.0
#: A silence that the provider asked for is paid for by so many times its length without one: more, the longer the
#: limit has stayed where it was.
_FIRST_HELD_SILENCES = 2.0
_MOST_HELD_SILENCES = 20.0
#: A rate this near to the one before is the same limit.
_NEAR = 0.15
#: Fewer amounts than this are no measure.
_COUNTABLE = 5
_LEAST_RATE = 1 / 60
_WEIGHT = 0.05


class Governor:
    """`note_sent` for each amount that goes, `note_refused` for each refusal; `rate(now)` is what may go a second."""

    __slots__ = (
        "_believes_last_second", "_careful", "_changed_s", "_count", "_echoes", "_growth", "_held_silences",
        "_hold_until_s", "_is_measured", "_is_pressed", "_mean", "_rate", "_refused_s", "_sent", "_settled",
        "_started_s", "_steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self._rate: float | None = None
        self._careful = inf  # what the long count said at the last refusal
        self._settled = 0.0  # the rate that was set then
        self._believes_last_second = True
        self._started_s: float | None = None  # of the first amount
        self._refused_s = -inf
        self._hold_until_s = -inf
        self._held_silences = _FIRST_HELD_SILENCES
        self._changed_s = -inf
        self._growth = _FIRST_STEP
        self._is_pressed = False
        self._count = 0  # amounts sent since the last refusal
        self._echoes = 0  # of the last refusal
        self._is_measured = False  # else the rate is a guess, and not held for long
        self._mean = 0.0  # of an amount
        self._sent: deque[list[float]] = deque()  # [start of a slot, amount]
        self._steps: deque[tuple[float, float]] = deque(maxlen=16)  # when the rate grew, and from what

    @property
    def is_free(self) -> bool:
        """No refusal has taught anything, or all of it is forgotten."""
        return self._rate is None

    def free(self) -> None:
        """What was learned is no longer true: the provider names another limit."""
        self._rate = None

    def press(self) -> None:
        """The rate is what holds the lane back; without that it does not grow."""
        self._is_pressed = True

    def rate(self, now_s: float) -> float:
        """A second; infinite as long as nothing is known."""
        if self._rate is None:
            return inf
        if now_s - max(self._hold_until_s, self._changed_s) >= _STEP_S:
            self._grow(now_s)
        return self._rate

    def recovery_s(self, amount: float) -> float:
        """How long a bucket that is empty needs until it takes this, or two of the usual size."""
        return 0.0 if self._rate is None else max(1.5 * amount, 2.0 * self._mean) / self._rate

    def note_sent(self, amount: float, now_s: float) -> None:
        self._count += 1
        self._mean += (amount - self._mean) * (_WEIGHT if self._mean else 1.0)
        if self._started_s is None:
            self._started_s = now_s
        sent = self._sent
        if sent and now_s - sent[-1][0] < _SLOT_S:
            sent[-1][1] += amount
            return
        sent.append([now_s, amount])
        while sent[0][0] + LOOK_BACK_S + _SLOT_S < now_s:
            sent.popleft()

    def note_refused(
        self, amount: float, sent_s: float, now_s: float, *, silence_s: float, most: float
    ) -> None:
        """What was sent at `sent_s` met the limit; `most` is the rate that was told or said until now."""
        believed = most if self._rate is None else min(self._rate, most)
        is_echo = self._rate is not None and now_s < self._refused_s + _SECOND_S + silence_s
        if is_echo:
            # The same excess again. If the last second was believed it was a bucket; else the silence was too short.
            self._believes_last_second = False
            self._echoes += 1
            rate = min(believed, self._careful)
        else:
            rate = min(believed, self._measured(amount, sent_s))
            self._settle(rate, amount)
            self._count = self._echoes = 0
            self._refused_s = now_s
        self._rate = max(rate, amount / 60.0, _LEAST_RATE)
        held_s = _HELD_AMOUNTS * (1 + self._echoes) * max(self._mean, amount / 2) / self._rate
        held_s = max(_HELD_S, held_s if self._is_measured else 0.0, self._held_silences * silence_s)
        self._hold_until_s = now_s + silence_s + min(held_s, _LONGEST_HOLD_S)
        self._changed_s = now_s
        self._growth = _FIRST_STEP
        self._is_pressed = False
        self._steps.clear()

    def _measured(self, refused: float, sent_s: float) -> float:
        """What the provider lets through a second, a little less."""
        last = self._total(sent_s - _SECOND_S, sent_s) - refused
        self._is_measured = self._started_s is not None and self._count >= _COUNTABLE
        if self._started_s is None or not self._is_measured:
            self._careful = max(last, refused) / 2
            return self._careful
        since_s = max(self._refused_s, self._started_s, sent_s - LOOK_BACK_S)
        span_s = max(sent_s - since_s, _SLOT_S) + (_SECOND_S if self._rate is None else 0.0)
        passed = (self._total(since_s - _SLOT_S, sent_s) - refused) / span_s
        self._careful = max(passed * BACK_OFF, self._stood(sent_s))
        return max(self._careful, last * BACK_OFF) if self._believes_last_second else self._careful

    def _total(self, since_s: float, until_s: float) -> float:
        return sum(amount for at_s, amount in self._sent if since_s < at_s <= until_s)

    def _stood(self, sent_s: float) -> float:
        """The rate of a second before, if it was raised since: it was within the limit."""
        return max((rate for at_s, rate in self._steps if at_s <= sent_s - _SECOND_S), default=0.0)

    def _settle(self, rate: float, amount: float) -> None:
        """A limit that stays where it was is tried less and less often."""
        is_near = abs(rate - self._settled) <= _NEAR * self._settled
        grown = self._held_silences * 2.0 if is_near else _FIRST_HELD_SILENCES
        self._held_silences = min(_MOST_HELD_SILENCES, grown)
        self._settled = max(rate, amount / 60.0, _LEAST_RATE)

    def _grow(self, now_s: float) -> None:
        if self._rate is None:
            return
        if self._is_pressed:
            self._steps.append((now_s, self._rate))
            elapsed_s = min(now_s - max(self._changed_s, self._hold_until_s), _SECOND_S)
            self._rate *= 1.0 + self._growth * elapsed_s
            self._growth = min(_FASTEST, self._growth * 2.0**elapsed_s)
            self._is_pressed = False
        self._changed_s = now_s
