"""What holds one lane back: requests a minute, tokens a minute, calls at once, and the provider's own word.

What may go is the least of what the job tells, what the provider's headers say, and what its refusals have taught;
of what is told or said, other processes with the same key have their shares. Headers may lower what is believed, and
what they take back they give back at once; what refusals taught is tried again (`governor`). Nothing here waits:
`wait_s` says how long, the pump of the lane waits, and `take` is said when the request goes.
"""

from collections.abc import Callable, Collection, Sequence
from math import inf, isfinite
from typing import NamedTuple

from batchllm.clock import Clock
from batchllm.limit.allowance import Allowance
from batchllm.limit.bucket import Reservation, TokenBucket
from batchllm.limit.crowding import Crowding
from batchllm.limit.governor import Governor
from batchllm.limit.pace import Pace
from batchllm.limit.sharing import Learned, LoneMember, Membership, Report
from batchllm.limit.window import Window
from batchllm.records import Failure, LimitHint, LimitScope

#: Headers are read at most so often: limits move by the minute, and reading costs as much as a tenth of a call.
_HEED_EVERY_S = 0.1
#: Budgets of an hour or a day do not set a pace; they only end.
_LONGEST_PACED_S = 60.0
#: After a refusal that names no time: as long as two requests take, within these bounds, doubled while refusals go on.
_SHORTEST_SILENCE_S = 0.05
_FIRST_SILENCE_S = 0.5
_LONGEST_SILENCE_S = 60.0
#: A provider that asks for more than a day is asked again after one.
_LONGEST_QUIET_S = 86_400.0
#: How often the others are told; their shares change with each beat of the registry.
_REPORT_EVERY_S = 0.4
#: While the others have not made room, or this process stood still and its lease is over.
_UNSHARED_NAP_S = 0.02
#: A refusal so soon after another one is about the same excess.
_ECHO_S = 1.0
#: Limits outside of these are none, whoever states them.
_LEAST_LIMIT, _MOST_LIMIT = 0.01, 1e12


class Sent(NamedTuple):
    """What was so when a request went."""

    at_s: float
    on_wire: int
    tokens_before: float  # sent on this lane so far, as the provider may count them


class Refused(NamedTuple):
    """What a refusal asks for. `is_news`: its request was sent knowing of all refusals before it."""

    silence_s: float
    is_news: bool
    goes_on: bool


class _Lesson(NamedTuple):
    """What a refusal says of the limit that was met."""

    scope: LimitScope | None
    named: LimitHint | None
    silence_s: float

    @property
    def per_minute(self) -> float:
        """What it names of a rate that is paced; infinite when it names none.

        Believed for as long as a rate is held: headers tell when a limit is raised again, a refusal cannot.
        """
        named = self.named
        if named is None or named.limit is None or named.window_s > _LONGEST_PACED_S:
            return inf
        return max(_LEAST_LIMIT, named.limit) * 60.0 / named.window_s

    @property
    def concurrency(self) -> int | None:
        return None if self.named is None or self.named.limit is None else int(self.named.limit)


def _silence(text: str) -> None:
    """Says nothing."""


class LaneLimits:
    """`window` belongs to it: what limits calls at once is learned with the rest."""

    def __init__(
        self,
        *,
        clock: Clock,
        window: Window,
        rpm: float | None = None,
        tpm: float | None = None,
        member: Membership | None = None,
        say: Callable[[str], None] = _silence,
    ) -> None:
        self._clock = clock
        self._window = window
        self._requests = Allowance(rpm)
        self._tokens = Allowance(tpm)
        self._member = member or LoneMember()
        self._say = say
        self._pace: Pace | None = None
        self._bucket: TokenBucket | None = None
        self._share = self._member.standing.share or 1.0
        self._pressed_s = -inf  # when the pace last held the lane back
        self._used = 0.0  # requests since the last report
        self._reported_s = clock.monotonic_s()
        self._quiet_until_s = -inf
        self._heeded_s = -inf
        self._epoch_s = -inf  # requests sent before knew nothing of the last refusal
        self._sent_since = 0
        self._streak = 0  # refusals that came soon after one another
        self._refusals_on_end = 0  # with nothing let through between them
        self._crowding = Crowding()
        self._tokens_sent = 0.0
        self._slack: tuple[float, float] | None = None  # tokens that the provider says are left, and when
        self._is_recalled = False  # what is heard was heard by an earlier run
        self._said: set[str] = set()
        self._retune(clock.monotonic_s())

    @property
    def rpm(self) -> float | None:
        """Requests a minute, as told or heard; None: nobody says."""
        return _or_none(self._requests.known)

    @property
    def tpm(self) -> float | None:
        return _or_none(self._tokens.known)

    def wait_s(self, now_s: float) -> float:
        """Seconds until one more request may go, as far as requests a minute and other processes say."""
        if not self._follow_share(now_s):
            return _UNSHARED_NAP_S
        if now_s - self._reported_s >= _REPORT_EVERY_S:
            self._report(now_s)
        if not self._requests.governor.is_free or not self._tokens.governor.is_free:
            self._retune(now_s)
        if self._pace is None:
            return 0.0
        wait_s = self._pace.next_s - now_s
        if wait_s > 0.0:
            self._pressed_s = self._pace.next_s
            self._requests.governor.press()
            return wait_s
        return 0.0

    def reserve(self, tokens: float, most: int, now_s: float) -> Reservation:
        """Take tokens for a request; `ready_s` of the result is when it may go.

        `tokens` is what it will probably take, `most` what the provider may count until it is answered.
        """
        bucket = self._bucket
        made = Reservation(tokens, now_s, now_s) if bucket is None else bucket.reserve(tokens, now_s)
        made.most = most
        if self._slack is not None:
            made.ready_s = max(made.ready_s, self._slack_s(most, now_s))
        if made.ready_s > now_s and bucket is not None:
            self._pressed_s = max(self._pressed_s, made.ready_s)
            self._tokens.governor.press()
        return made

    def tick(self, now_s: float, *, is_asking: bool) -> None:
        """For once a second: follow the others' shares, and tell them, also while the pump waits for something else."""
        if not is_asking:
            self._pressed_s = min(self._pressed_s, now_s - 2 * _REPORT_EVERY_S)
        self._follow_share(now_s)
        if now_s - self._reported_s >= _REPORT_EVERY_S:
            self._report(now_s)

    def has_share(self, now_s: float) -> bool:
        return self._member.standing.share_at(now_s) > 0.0

    def watch(self, told: Callable[[], None]) -> None:
        """`told` hears when the others' word changes what may go here."""
        self._member.watch(told)

    @property
    def is_recalled(self) -> bool:
        """Whether what is heard was heard by an earlier run, and the provider has not spoken in this one."""
        return self._is_recalled

    def take(self, made: Reservation, now_s: float) -> Sent:
        """A request goes."""
        if self._pace is not None:
            self._pace.take(now_s)
        if self._bucket is not None:
            self._bucket.take(made, now_s)
        self._requests.governor.note_sent(1.0, now_s)
        self._tokens.governor.note_sent(made.tokens, now_s)
        self._sent_since += 1
        self._used += 1.0
        sent = Sent(now_s, self._window.on_wire, self._tokens_sent)
        self._tokens_sent += made.most
        if self._slack is not None:
            left, at_s = self._slack
            self._slack = (left - made.most, at_s)
        return sent

    def settle(self, made: Reservation, actual: float, now_s: float) -> None:
        if self._bucket is not None:
            self._bucket.settle(made, actual, now_s)

    def note_accepted(self, sent: Sent, now_s: float) -> None:
        """The provider took it in, whatever came of it."""
        self._crowding.note_taken(sent.on_wire)
        self._window.note_answer(now_s)

    def wants_hints(self, now_s: float) -> bool:
        """Whether the headers of a reply should be read: limits move by the minute, and reading costs."""
        return now_s - self._heeded_s >= _HEED_EVERY_S

    def heed(self, hints: Sequence[LimitHint], sent: Sent, now_s: float, *, is_answer: bool = True) -> None:
        """Learn from what the headers of a reply say; `is_answer`: not those of an error, which often say nothing."""
        self._heeded_s = now_s
        if self._is_recalled and is_answer:
            self._forget_recalled({hint.scope for hint in hints}, now_s)
        for hint in hints:
            self._hear(hint, sent, now_s)

    def note_nonsense(self, scope: LimitScope, header: str, *, is_believed: bool) -> None:
        """A header of a limit that states none. Who writes nonsense there once is not believed there any more."""
        if is_believed:
            self._say_once("nonsense", f"the header {header} states no limit and is not heeded")
            return
        self._say_once(
            f"nonsense of {scope}",
            f"the header {header} states no limit: what the provider says of {scope} a minute is not heeded any more",
        )
        allowance = self._allowance(scope)
        if not allowance.is_distrusted:
            allowance.distrust()
            self._slack = None if scope == "tokens" else self._slack
            self._retune(self._clock.monotonic_s())

    def refuse(
        self,
        failure: Failure,
        sent: Sent,
        tokens: float,
        now_s: float,
        *,
        scope: LimitScope | None = None,
        named: LimitHint | None = None,
    ) -> Refused:
        """A refusal by a rate limit: what it teaches, and the silence that it asks for.

        `scope` and `named` are what its message says of the limit that was met.
        """
        asked_s = failure.retry_after_s
        self._requests.governor.note_bounced(1.0, sent.at_s)
        self._tokens.governor.note_bounced(tokens, sent.at_s)
        if (
            sent.at_s < self._epoch_s
        ):  # an old one says nothing new but for a time that the provider itself names
            return Refused(asked_s or 0.0, is_news=False, goes_on=False)
        is_echo = self._sent_since <= 1 or now_s < self._epoch_s + _ECHO_S
        self._streak = self._streak + 1 if is_echo and self._epoch_s > -inf else 0
        self._refusals_on_end = self._refusals_on_end + 1 if self._sent_since <= 1 else 0
        self._epoch_s = now_s
        self._sent_since = 0
        governor = self._learn(_Lesson(scope, named, asked_s or 0.0), sent, tokens, now_s)
        self._retune(now_s)
        silence_s = (
            self._own_silence_s(governor, tokens if scope is LimitScope.TOKENS else 1.0)
            if asked_s is None
            else asked_s
        )
        return Refused(silence_s, is_news=True, goes_on=self._refusals_on_end > 1)

    def quiet(self, seconds: float) -> None:
        """The provider asked for silence: nothing goes out on this lane before it is over, in no process."""
        now_s = self._clock.monotonic_s()
        self._quiet_until_s = max(self._quiet_until_s, now_s + min(seconds, _LONGEST_QUIET_S))
        if self._pace is not None:
            self._pace.restart(self._quiet_until_s)  # what could have gone meanwhile does not go after it
        self._report(now_s)

    @property
    def quiet_s(self) -> float:
        """Seconds of silence left."""
        until_s = self._member.standing.quiet_until_s
        if self._quiet_until_s > until_s:
            until_s = self._quiet_until_s
        left_s = until_s - self._clock.monotonic_s()
        return left_s if left_s > 0.0 else 0.0

    @property
    def next_s(self) -> float:
        """When the pace of requests lets the next one go; a moment that has passed where nothing holds it back."""
        return -inf if self._pace is None else self._pace.next_s

    def recall(self, learned: Learned | None) -> None:
        """Start from what an earlier run found out; the provider's next word replaces it."""
        if learned is None:
            return
        self._requests.heard, self._tokens.heard = learned.rpm, learned.tpm
        self._is_recalled = True
        self._retune(self._clock.monotonic_s())

    def _forget_recalled(self, said: Collection[LimitScope], now_s: float) -> None:
        """The provider's first word: what it says no more is no limit any more."""
        self._is_recalled = False
        if LimitScope.REQUESTS not in said:
            self._requests.heard = None
        if LimitScope.TOKENS not in said:
            self._tokens.heard = None
        self._retune(now_s)
        if self._pace is None:
            self._window.start_over()

    def leave(self) -> None:
        """The share is the others' from now on."""
        self._report(self._clock.monotonic_s())
        self._member.leave()

    def restart(self, now_s: float) -> None:
        """The process stood still: nothing that could have gone meanwhile goes now."""
        if self._pace is not None:
            self._pace.restart(now_s)
        if self._bucket is not None:
            self._bucket.restart(now_s)

    def _learn(self, lesson: "_Lesson", sent: Sent, tokens: float, now_s: float) -> Governor | None:
        """The governor that has learned from it; None when it was the number of calls at once."""
        scope = lesson.scope
        if scope is LimitScope.CONCURRENCY or (
            scope is None and self._crowding.is_shown(sent.on_wire, self._window)
        ):
            self._window.note_refused(sent.on_wire, now_s, told=lesson.concurrency)
            if scope is None:
                self._requests.governor.free()
            return None
        allowance, amount = (self._tokens, tokens) if scope is LimitScope.TOKENS else (self._requests, 1.0)
        most = min(allowance.known, lesson.per_minute) * self._share / 60.0
        governor = allowance.governor
        governor.note_refused(amount, sent.at_s, now_s, silence_s=lesson.silence_s, most=most)
        if scope is None and self._crowding.is_likely:
            governor.hold_briefly(now_s + lesson.silence_s)  # the next refusals will tell
        return governor

    def _own_silence_s(self, governor: Governor | None, amount: float) -> float:
        """As long as two requests take, doubled while refusals go on."""
        base_s = _SHORTEST_SILENCE_S if governor is None else governor.recovery_s(amount)
        base_s = min(_FIRST_SILENCE_S, max(_SHORTEST_SILENCE_S, base_s))
        silence_s = min(_LONGEST_SILENCE_S, base_s * 2.0 ** min(self._streak, 11))
        return silence_s if governor is None else max(silence_s, governor.oblivion_s)

    def _allowance(self, scope: str) -> Allowance:
        return self._requests if scope == "requests" else self._tokens

    def _hear(self, hint: LimitHint, sent: Sent, now_s: float) -> None:
        if self._allowance(hint.scope).is_distrusted:
            return
        if hint.limit is not None and not _LEAST_LIMIT <= hint.limit <= _MOST_LIMIT:
            self._say_once("absurd", f"a limit of {hint.limit:g} {hint.scope} is absurd and not heeded")
            return
        if hint.window_s > _LONGEST_PACED_S:
            if hint.remaining == 0:
                spent_s = hint.window_s / hint.limit if hint.limit else 1.0
                self.quiet(max(1.0, spent_s if hint.reset_s is None else min(spent_s, hint.reset_s)))
            return
        if hint.limit is not None:
            allowance = self._allowance(hint.scope)
            if allowance.hear(hint.limit * 60.0 / hint.window_s):
                self._retune(now_s)
                self._say_lower(hint.scope, allowance)
        if hint.scope == "tokens" and hint.remaining is not None:
            self._slack = (hint.remaining - (self._tokens_sent - sent.tokens_before), now_s)

    def _slack_s(self, most: int, now_s: float) -> float:
        """When the provider has so many tokens left, by its own last word and what went since."""
        if self._slack is None or not isfinite(self._tokens.known):
            return now_s
        left, at_s = self._slack
        rate = self._tokens.known / 60.0
        wanted = min(most, self._tokens.known * 0.9)
        return now_s + max(0.0, wanted - left - (now_s - at_s) * rate) / rate

    def _follow_share(self, now_s: float) -> bool:
        """Whether there is one."""
        share = self._member.standing.share_at(now_s)
        if share > 0.0 and share != self._share:
            self._share = share
            self._retune(now_s)
        return share > 0.0

    def _report(self, now_s: float) -> None:
        """Tell the others what this lane could use, what it used, and when its next request goes."""
        elapsed_s = max(now_s - self._reported_s, _REPORT_EVERY_S / 2)
        limit = self._requests.known / 60.0
        used = self._used / elapsed_s / limit
        is_pressed = now_s - self._pressed_s < 2 * _REPORT_EVERY_S
        self._member.report(
            Report(
                demand=inf if is_pressed or limit == inf else used,
                used=used,
                next_free_s=now_s if self._pace is None else self._pace.next_s,
                quiet_until_s=self._quiet_until_s,
                learned=Learned(self._requests.heard, self._tokens.heard),
            )
        )
        self._used, self._reported_s = 0.0, now_s

    def _retune(self, now_s: float) -> None:
        """Bring pace and bucket to what is believed now."""
        requests = self._requests.per_minute(now_s, self._share)
        if requests == inf:
            self._pace = None
        elif self._pace is None:
            self._pace = Pace(requests, now_s=max(now_s, self._member.standing.next_free_s))
        else:
            self._pace.change(requests)
        tokens = self._tokens.per_minute(now_s, self._share)
        if tokens == inf:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = TokenBucket(tokens, now_s=now_s)
        elif tokens != self._bucket.per_minute:
            self._bucket.change(tokens, now_s)
        if self._pace is not None:
            self._window.open_up()
        elif self._bucket is not None:
            self._window.widen()

    def _say_lower(self, kind: str, allowance: Allowance) -> None:
        heard = allowance.lower_than_told
        if heard is not None:
            self._say_once(
                kind,
                f"the provider allows {heard:,.0f} {kind} a minute, fewer than the {allowance.told:,.0f} told",
            )

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(text)


def _or_none(limit: float) -> float | None:
    return limit if limit < inf else None
