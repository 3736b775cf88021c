"""What refusals teach of a rate: where the limit is not told, or is not what was told. Pure, the clock is an argument.

Without a refusal nothing is known, and nothing is governed. A refusal says that the limit was met; how much it
allows follows from what was let through before. Providers count in two ways:

- One that keeps a log of the last second refuses when just its limit went in that second, each time. What went since
  the refusal before says little.
- One with a bucket was empty at the refusal before and is empty now, so that what it let through in between is its
  rate. What went in the last second may be as much as its burst more.

So both are counted at each refusal, and whichever comes out the same twice while the other does not tells how this
provider counts; as long as neither does it is taken for a bucket, which is the lower of the two. Where the last second
stays the same and is the higher of the two, it is tried whether that is the limit.

The rate is set a little below, held for a while, and then raised in steps that grow until the next refusal. A limit
that stayed costs one refusal a cycle; one that was raised is found within seconds. How long a rate is held follows
from what a refusal costs: a place among the refused, and the silence that the provider asks for.

The unit is whatever is counted: requests a second for one governor, tokens a second for another.
"""

from collections import deque
from math import inf
from typing import NamedTuple

#: The rate after a refusal, of what was let through.
BACK_OFF = 0.97
#: Growth of the first second after a hold; doubled each second, up to `_FASTEST`.
_FIRST_STEP = 0.03
_FASTEST = 0.4
_STEP_S = 0.25
#: What was let through is counted over at most this long, so that a limit that moved is seen.
LOOK_BACK_S = 10.0
_SLOT_S = 0.02
#: A provider's burst, the length of its log, and the time in which another refusal is about the same excess.
_SECOND_S = 1.0
#: A rate is held for so many amounts for each refusal (1 in 75 is 1.3 %), and at least so long.
_HELD_AMOUNTS = 75.0
_HELD_S = 2.0
#: The least where the limit has stayed.
_HELD_AGAIN_S = 4.0
_LONGEST_HOLD_S = 60.0
#: A silence that the provider asked for is paid for by so many times its length without one: more, the longer the
#: limit has stayed where it was.
_FIRST_HELD_SILENCES = 2.0
_MOST_HELD_SILENCES = 20.0
#: A rate this near to the one before is the same limit.
_NEAR = 0.15
#: Two counts that differ by less are the same number; by more than the second, they are not. Of fewer amounts one
#: more or less is too much.
_SAME, _OTHER = 0.04, 0.08
_COMPARABLE = 4
#: Where both stay the same the higher one is tried at once; if in vain, or against what was seen before, after so many
#: times as many refusals.
_MORE_PATIENCE = 4
#: Fewer amounts than this are no measure; the rate is then lowered to this part of it.
_COUNTABLE = 5
_GUESSED = 0.75
_LEAST_RATE = 1 / 60
_WEIGHT = 0.05


class _Counts(NamedTuple):
    """What was let through a second, at a refusal: in the last second, and since the refusal before."""

    last: float
    since: float


class Governor:
    """`note_sent` for each amount that goes, `note_refused` for each refusal; `rate(now)` is what may go a second."""

    __slots__ = (
        "_changed_s", "_counts", "_doubts", "_echoes", "_growth", "_has_log", "_held_silences", "_hold_until_s",
        "_is_bucket", "_is_first", "_is_measured", "_is_pressed", "_is_trial", "_mean", "_patience", "_rate",
        "_refused_s", "_resumed_s", "_sent", "_settled", "_started_s", "_steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self._rate: float | None = None
        self._settled = 0.0  # the rate that was set at the last refusal but for echoes
        self._has_log = self._is_bucket = False  # how the provider counts, once its refusals have told
        self._doubts = 0  # refusals that told neither, while the two counts are not the same
        self._patience = 1
        self._is_trial = False  # it is taken for a log to see what comes of it
        self._counts: _Counts | None = None  # at the last refusal but for echoes
        self._started_s: float | None = None  # of the first amount
        self._refused_s = -inf  # the last refusal but for echoes
        self._resumed_s = -inf  # an empty bucket has taken in at most a second's worth by then
        self._hold_until_s = -inf
        self._held_silences = _FIRST_HELD_SILENCES
        self._changed_s = -inf
        self._growth = _FIRST_STEP
        self._is_pressed = False
        self._echoes = 0  # of the last refusal
        self._is_first = False
        self._is_measured = False  # else the rate is a guess, and not held for long
        self._mean = 0.0  # of an amount
        self._sent: deque[list[float]] = deque()  # [start of a slot, amount that was let through]
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

    @property
    def oblivion_s(self) -> float:
        """How long a log needs to forget everything, where nothing is known yet of how the provider counts."""
        return _SECOND_S if self._is_first else 0.0

    def note_sent(self, amount: float, now_s: float) -> None:
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

    def note_bounced(self, amount: float, sent_s: float) -> None:
        """What was sent at `sent_s` was refused: it was not let through."""
        for slot in reversed(self._sent):
            if slot[0] <= sent_s:
                slot[1] = max(0.0, slot[1] - amount)
                return

    def note_refused(
        self, amount: float, sent_s: float, now_s: float, *, silence_s: float, most: float
    ) -> None:
        """What was sent at `sent_s` met the limit; `most` is the rate that was told or said until now.

        To be called after `note_bounced`.
        """
        believed = most if self._rate is None else min(self._rate, most)
        is_echo = self._rate is not None and now_s < self._refused_s + _SECOND_S + silence_s
        if is_echo:
            self._echoes += 1
            self._is_first = False
            rate = min(believed, self._echoed(sent_s))
        else:
            self._is_first = self._counts is None
            rate = min(believed, self._measured(amount, sent_s, is_paced=believed < inf))
            self._settle(rate, amount)
            self._echoes = 0
            self._refused_s = now_s
            self._resumed_s = now_s + max(0.0, silence_s - _SECOND_S)
        self._rate = max(rate, amount / 60.0, _LEAST_RATE)
        self._hold_until_s = now_s + silence_s + min(self._held_s(amount, silence_s), _LONGEST_HOLD_S)
        self._changed_s = now_s
        self._growth = _FIRST_STEP
        self._is_pressed = False
        self._steps.clear()

    def hold_briefly(self, now_s: float) -> None:
        """The refusal may have been about something else than the rate."""
        self._hold_until_s = min(self._hold_until_s, now_s + _HELD_S)

    def _held_s(self, amount: float, silence_s: float) -> float:
        if not self._is_measured or self._is_first or self._rate is None:
            return max(_HELD_S, self._held_silences * silence_s)
        held_s = _HELD_AMOUNTS * (2 if self._echoes else 1) * max(self._mean, amount / 2) / self._rate
        is_settled = self._held_silences > _FIRST_HELD_SILENCES
        return max(_HELD_AGAIN_S if is_settled else _HELD_S, held_s, self._held_silences * silence_s)

    def _echoed(self, sent_s: float) -> float:
        """The same excess again: the limit is lower than what was set, or the silence was too short."""
        if self._is_trial and self._counts is not None:
            self._has_log = self._is_trial = False
            return self._counts.since * BACK_OFF
        least = _COUNTABLE * self._mean
        passed, span_s = self._total(self._refused_s, sent_s), sent_s - self._resumed_s
        rate = passed / span_s if passed >= least and span_s > 0.0 else inf
        if not self._has_log:
            return rate * BACK_OFF
        last = self._last(sent_s)
        # Silences alone make the last second small, whatever the limit is.
        half = 0.0 if self._counts is None else self._counts.last / 2
        return max(last, half, 0.0 if rate == inf else rate) * BACK_OFF if last >= least else inf

    def _measured(self, refused: float, sent_s: float, *, is_paced: bool) -> float:
        """What the provider lets through a second, a little less."""
        last, started_s = self._last(sent_s), sent_s if self._started_s is None else self._started_s
        since_s = max(self._resumed_s, started_s, sent_s - LOOK_BACK_S)
        passed = self._total(since_s - _SLOT_S, sent_s)
        counted = min(passed, last) if self._has_log else passed
        self._is_measured = passed > 0.0 and counted >= (_COUNTABLE - 1) * self._mean
        if not self._is_measured:
            return max(max(last, refused) / 2, (self._rate or 0.0) * _GUESSED)
        # A bucket from which was taken without measure gave out its burst as well.
        span_s = max(sent_s - since_s, _SLOT_S) + (0.0 if is_paced else _SECOND_S)
        counts = _Counts(last, passed / span_s)
        self._compare(counts)
        self._counts = counts
        if self._has_log:
            return max(counts) * BACK_OFF
        rate = counts.since * BACK_OFF
        if not is_paced:
            return rate
        is_same = self._is_bucket and abs(rate - self._settled) <= _NEAR * self._settled
        return max(rate, self._held(sent_s) if is_same else self._stood(sent_s))

    def _compare(self, counts: _Counts) -> None:
        """Whichever of two counts is the same as at the refusal before, while the other is not, is the provider's."""
        before, self._is_trial = self._counts, False
        if before is None or counts.last < _COMPARABLE * self._mean:
            return
        last, since = _apart(counts.last, before.last), _apart(counts.since, before.since)
        if last <= _SAME and since >= _OTHER:
            self._has_log, self._is_bucket, self._doubts = True, False, 0
        elif since <= _SAME and last >= _OTHER:
            self._has_log, self._is_bucket, self._doubts = False, True, 0
            self._patience = max(self._patience, _MORE_PATIENCE)
        elif last <= _SAME and not self._has_log and counts.last > counts.since * (1.0 + _OTHER):
            self._doubts += 1
            if self._doubts >= self._patience:  # the next refusal tells what came of it
                self._has_log = self._is_trial = True
                self._doubts = 0
                self._patience *= _MORE_PATIENCE

    def _last(self, sent_s: float) -> float:
        return self._total(sent_s - _SECOND_S - _SLOT_S, sent_s)

    def _total(self, since_s: float, until_s: float) -> float:
        return sum(amount for at_s, amount in self._sent if since_s < at_s <= until_s)

    def _held(self, sent_s: float) -> float:
        """The rate that was held until it was raised, a second before or earlier: nothing was refused at it."""
        return self._steps[0][1] if self._steps and self._steps[0][0] <= sent_s - _SECOND_S else 0.0

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


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(one, other) if one != other else 0.0
