"""What a lane may send, by a clock that the test moves."""

from dataclasses import replace
from math import inf

from batchllm.limit.lane_limits import LaneLimits, Sent
from batchllm.limit.sharing import ALONE, Learned, LoneMember, Standing
from batchllm.limit.window import Window
from batchllm.records import Action, Failure, FailureCode, LimitHint, LimitScope
from batchllm.testing import SteppedClock

REFUSED = Failure(Action.AGAIN, FailureCode.RATE_LIMIT, "HTTP 429", 429)
REQUESTS, TOKENS, CONCURRENCY = LimitScope.REQUESTS, LimitScope.TOKENS, LimitScope.CONCURRENCY


class Rig:
    """A caller that always asks."""

    def __init__(self, rpm: float | None = None, tpm: float | None = None, **kept: object) -> None:
        self.clock = SteppedClock(1_000.0)
        self.window = Window(1_000, usual=64, first=4)
        self.said: list[str] = []
        self.limits = LaneLimits(
            clock=self.clock,
            window=self.window,
            rpm=rpm,
            tpm=tpm,
            say=self.said.append,
            **kept,  # type: ignore[arg-type]
        )

    def send(self, tokens: int = 10, most: int | None = None) -> Sent:
        """Wait until one may go, and send it."""
        while (wait_s := self.limits.wait_s(self.clock.now_s)) > 0:
            self.clock.advance(wait_s)
        made = self.limits.reserve(tokens, most or tokens, self.clock.now_s)
        self.clock.advance(max(0.0, made.ready_s - self.clock.now_s))
        self.window.enter()
        sent = self.limits.take(made, self.clock.now_s)
        self.window.land()
        self.window.leave()
        return sent

    def send_for(self, seconds: float) -> int:
        end_s, count = self.clock.now_s + seconds, 0
        while self.clock.now_s < end_s:
            self.send()
            count += 1
        return count

    def hear(
        self, scope: LimitScope, limit: float, remaining: float | None = None, window_s: float = 60
    ) -> None:
        hint = LimitHint(scope, limit, remaining, None, window_s)
        self.limits.heed([hint], Sent(self.clock.now_s, 1, 0.0), self.clock.now_s)


def test_a_told_limit_is_used_up_and_not_passed() -> None:
    assert 2_950 <= Rig(3_000).send_for(60.0) <= 3_000


def test_a_slow_rate_below_one_a_second_works() -> None:
    assert Rig(2).send_for(120.0) in (4, 5)


def test_a_header_lowers_a_told_limit_and_says_so_once() -> None:
    rig = Rig(3_000)
    rig.hear(REQUESTS, 1_500)
    rig.hear(REQUESTS, 1_400)
    assert rig.send_for(60.0) <= 1_400
    assert rig.said == ["the provider allows 1,500 requests a minute, fewer than the 3,000 told"]


def test_a_header_never_raises_what_the_job_tells() -> None:
    rig = Rig(600)
    rig.hear(REQUESTS, 3_000)
    assert rig.send_for(60.0) <= 600
    assert rig.said == []


def test_without_told_limits_the_headers_are_followed_both_ways() -> None:
    rig = Rig()
    assert rig.limits.rpm is None
    for limit in (3_000, 600, 3_000):
        rig.hear(REQUESTS, limit)
        rig.send_for(2.0)
        assert 0.97 * limit <= rig.send_for(60.0) <= limit


def test_a_limit_of_the_day_sets_no_pace_but_its_end_is_a_silence() -> None:
    rig = Rig()
    rig.hear(REQUESTS, 14_400, remaining=5_000, window_s=86_400)
    assert (rig.limits.rpm, rig.limits.quiet_s) == (None, 0.0)
    rig.hear(REQUESTS, 14_400, remaining=0, window_s=86_400)
    assert rig.limits.quiet_s == 6.0


def test_tokens_that_the_provider_says_are_left_are_not_passed() -> None:
    """It counts the most that each request may answer until it is answered; what is sent since its word counts too."""
    rig = Rig(tpm=60_000)
    rig.hear(TOKENS, 60_000, remaining=3_000)
    start_s = rig.clock.now_s
    rig.send(tokens=10, most=2_000)
    assert rig.clock.now_s == start_s
    rig.send(tokens=10, most=2_000)
    assert rig.clock.now_s >= start_s + 0.9


def test_a_request_larger_than_all_that_may_be_left_still_goes() -> None:
    rig = Rig(tpm=60_000)
    rig.hear(TOKENS, 60_000, remaining=0)
    rig.send(tokens=10, most=500_000)
    assert rig.clock.now_s <= 1_060.0


def test_a_refusal_that_names_its_limit_is_believed_until_more_is_let_through() -> None:
    rig = Rig(3_000)
    rig.send_for(5.0)
    named = LimitHint(REQUESTS, 600.0, None, None, 60.0)
    rig.limits.refuse(REFUSED, rig.send(), 10, rig.clock.now_s, scope=REQUESTS, named=named)
    assert rig.send_for(2.0) <= 2 * 10 + 1
    rig.send_for(30.0)
    assert rig.send_for(5.0) >= 5 * 49, "a refusal cannot tell that the limit was raised again"


def test_a_refusal_of_calls_at_once_limits_those_and_not_the_rate() -> None:
    rig = Rig()
    named = LimitHint(CONCURRENCY, 20.0, None, None, 1.0)
    rig.limits.refuse(
        REFUSED, Sent(rig.clock.now_s, 21, 0), 10, rig.clock.now_s, scope=CONCURRENCY, named=named
    )
    assert rig.window.learned == 20
    assert rig.limits.wait_s(rig.clock.now_s) == 0.0


def test_a_refusal_is_news_only_when_its_request_knew_of_the_last_one() -> None:
    rig = Rig(3_000)
    first, second = rig.send(), rig.send()
    rig.clock.advance(0.1)
    assert rig.limits.refuse(REFUSED, first, 10, rig.clock.now_s).is_news
    told = REFUSED._replace(retry_after_s=7.0)
    old = rig.limits.refuse(told, second, 10, rig.clock.now_s)
    assert (old.is_news, old.silence_s) == (False, 7.0)
    assert rig.limits.refuse(REFUSED, second, 10, rig.clock.now_s).silence_s == 0.0


def test_silences_without_a_hint_grow_while_nothing_is_let_through() -> None:
    rig, silences = Rig(), []
    for _ in range(14):
        refused = rig.limits.refuse(REFUSED, rig.send(), 10, rig.clock.now_s)
        rig.clock.advance(refused.silence_s)
        silences.append(refused.silence_s)
    assert silences == sorted(silences)
    assert silences[0] <= 1.0
    assert silences[-1] == 60.0
    assert refused.goes_on


def test_a_told_rate_comes_back_after_refusals() -> None:
    rig = Rig(3_000)
    rig.send_for(10.0)
    rig.limits.refuse(REFUSED, rig.send(), 10, rig.clock.now_s)
    assert rig.send_for(5.0) < 5 * 50
    rig.send_for(20.0)
    assert rig.send_for(10.0) >= 10 * 49


def test_silence_is_the_longest_that_was_asked_for() -> None:
    rig = Rig()
    rig.limits.quiet(10.0)
    rig.limits.quiet(3.0)
    assert rig.limits.quiet_s == 10.0
    rig.clock.advance(10.0)
    assert rig.limits.quiet_s == 0.0


def test_absurd_limits_in_headers_neither_divide_by_zero_nor_burst() -> None:
    rig = Rig(600)
    for limit in (1e13, 1e-9, 5e-324):
        rig.hear(REQUESTS, limit)
        rig.hear(TOKENS, limit)
        rig.limits.wait_s(rig.clock.now_s)
        rig.limits.reserve(10, 10, rig.clock.now_s)
    assert len(rig.said) == 1
    assert 594 <= rig.send_for(60.0) <= 600


HALF = Standing(share=0.5, lease_until_s=inf, others=1)


def test_a_share_is_of_what_is_told_and_follows_the_others() -> None:
    member = LoneMember(HALF)
    rig = Rig(3_000, member=member)
    rig.send_for(2.0)
    assert 0.97 * 1_500 <= rig.send_for(60.0) <= 1_500
    member.set(ALONE)
    rig.send_for(2.0)
    assert 0.97 * 3_000 <= rig.send_for(60.0) <= 3_000


def test_nothing_goes_without_a_share_or_once_the_lease_has_run_out() -> None:
    member = LoneMember(replace(HALF, share=0.0))
    rig = Rig(3_000, member=member)
    assert rig.limits.wait_s(rig.clock.now_s) > 0
    member.set(replace(HALF, lease_until_s=rig.clock.now_s + 3.0))
    rig.send()
    rig.clock.advance(5.0)
    assert rig.limits.wait_s(rig.clock.now_s) > 0
    member.set(HALF)
    assert rig.limits.wait_s(rig.clock.now_s) == 0


def test_a_silence_of_another_process_is_kept_here_and_one_of_ours_is_told() -> None:
    member = LoneMember(HALF)
    rig = Rig(3_000, member=member)
    member.set(replace(HALF, quiet_until_s=rig.clock.now_s + 7.0))
    assert rig.limits.quiet_s == 7.0
    rig.limits.quiet(9.0)
    assert member.reported.quiet_until_s == rig.clock.now_s + 9.0


def test_a_start_goes_on_after_the_last_request_of_a_run_before() -> None:
    rig = Rig(60, member=LoneMember(replace(ALONE, next_free_s=1_000.7)))
    assert rig.send().at_s == 1_000.7


def test_what_a_lane_could_use_and_used_is_told() -> None:
    member = LoneMember(HALF)
    rig = Rig(3_000, member=member)
    rig.send_for(5.0)
    assert member.reported.demand == inf
    assert 0.4 <= member.reported.used <= 0.6
    for _ in range(10):
        rig.clock.advance(1.0)
        rig.send()
    assert 0.01 <= member.reported.demand <= 0.05


def test_what_an_earlier_run_heard_is_believed_until_the_provider_says_more() -> None:
    rig = Rig()
    rig.limits.recall(Learned(rpm=600.0))
    assert rig.limits.rpm == 600.0
    rig.hear(REQUESTS, 900)
    assert rig.limits.rpm == 900.0


def test_what_an_earlier_run_heard_is_forgotten_when_the_provider_says_nothing_of_it() -> None:
    """Another server may answer at this address today."""
    rig = Rig()
    rig.limits.recall(Learned(rpm=60.0, tpm=1_000.0))
    rig.limits.heed([], rig.send(), rig.clock.now_s, is_answer=False)
    assert rig.limits.rpm == 60.0, "an error that says nothing says nothing"
    rig.limits.heed([], rig.send(), rig.clock.now_s)
    assert (rig.limits.rpm, rig.limits.tpm) == (None, None)
    assert rig.window.size == 4, "what was open on its word is felt for again"
    rig.hear(REQUESTS, 900)
    rig.limits.heed([], rig.send(), rig.clock.now_s)
    assert rig.limits.rpm == 900.0, "what was heard in this run stays"


def test_tokens_alone_widen_the_window_and_requests_open_it() -> None:
    rig = Rig(tpm=60_000)
    assert (rig.window.size, rig.window.usual) == (4, 1_000)
    rig.hear(REQUESTS, 600)
    assert rig.window.size == 1_000


def test_long_waits_are_demand_too() -> None:
    """At 20 a minute there are three seconds between two requests."""
    member = LoneMember(HALF)
    rig = Rig(20, member=member)
    rig.send_for(30.0)
    rig.limits.tick(rig.clock.now_s, is_asking=True)
    assert member.reported.demand == inf


def test_a_lane_that_has_nothing_to_send_says_so_although_nobody_asks_it() -> None:
    member = LoneMember(HALF)
    rig = Rig(3_000, member=member)
    rig.send_for(5.0)
    for _ in range(3):
        rig.clock.advance(1.0)
        rig.limits.tick(rig.clock.now_s, is_asking=False)
    assert member.reported.demand == 0.0


def test_a_share_that_grows_brings_a_wait_for_tokens_forward() -> None:
    member = LoneMember(replace(HALF, share=0.02))
    rig = Rig(tpm=60_000, member=member)
    made = rig.limits.reserve(3_000, 3_000, rig.clock.now_s)
    assert made.ready_s > rig.clock.now_s + 100
    member.set(ALONE)
    rig.limits.tick(rig.clock.now_s, is_asking=True)
    assert made.ready_s < rig.clock.now_s + 10


def test_requests_that_went_before_a_limit_was_heard_are_not_held_against_it() -> None:
    rig = Rig()
    early = [rig.limits.reserve(256, 256, rig.clock.now_s) for _ in range(60)]
    rig.hear(TOKENS, 60_000)
    for made in early:
        rig.limits.settle(made, 4_000, rig.clock.now_s)
    assert rig.limits.reserve(400, 400, rig.clock.now_s).ready_s == rig.clock.now_s


def test_a_day_budget_without_a_sane_limit_silences_nothing() -> None:
    rig = Rig()
    rig.hear(REQUESTS, 0.0001, remaining=0, window_s=86_400)
    assert rig.limits.quiet_s == 0.0
    rig.limits.quiet(1e9)
    assert rig.limits.quiet_s == 86_400.0


def test_a_refusal_of_a_request_without_tokens_is_no_division_by_zero() -> None:
    rig = Rig()
    refused = rig.limits.refuse(REFUSED, rig.send(tokens=0), 0, rig.clock.now_s, scope=TOKENS)
    assert refused.silence_s > 0


def test_who_writes_nonsense_where_a_limit_belongs_is_not_believed_there_any_more() -> None:
    rig = Rig(3_000)
    rig.hear(REQUESTS, 60.0)
    assert 55 <= rig.send_for(60.0) <= 61
    rig.limits.note_nonsense(REQUESTS, "x-ratelimit-limit-requests: 'NaN'", is_believed=False)
    rig.hear(REQUESTS, 60.0, remaining=0, window_s=86_400.0)
    assert 2_950 <= rig.send_for(60.0) <= 3_000
    rig.hear(TOKENS, 6_000.0)
    assert rig.limits.tpm == 6_000.0
    assert [said for said in rig.said if "not heeded" in said] == [
        (
            "the header x-ratelimit-limit-requests: 'NaN' states no limit: "
            "what the provider says of requests a minute is not heeded any more"
        )
    ]


def test_a_word_for_no_limit_is_no_reason_to_distrust_what_comes_later() -> None:
    rig = Rig(3_000)
    rig.limits.note_nonsense(REQUESTS, "x-ratelimit-limit-requests: 'unlimited'", is_believed=True)
    rig.hear(REQUESTS, 60.0)
    assert 55 <= rig.send_for(60.0) <= 61
    rig.limits.note_nonsense(REQUESTS, "x-ratelimit-limit-requests: 'NaN'", is_believed=False)
    assert "not heeded any more" in rig.said[-1]
