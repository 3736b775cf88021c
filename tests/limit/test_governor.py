"""What a governor makes of a provider's refusals, by a clock that the test moves."""

from collections import deque
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.governor import Governor


class Provider:
    """Refuses by a bucket of a second, or by an exact log of the last second."""

    def __init__(self, rate: float, *, has_log: bool) -> None:
        self.rate = rate
        self._has_log = has_log
        self._level, self._at_s = rate, 0.0
        self._log: deque[float] = deque()

    def admits(self, now_s: float) -> bool:
        if self._has_log:
            while self._log and self._log[0] <= now_s - 1.0:
                self._log.popleft()
            if len(self._log) >= self.rate:
                return False
            self._log.append(now_s)
            return True
        self._level = min(max(1.0, self.rate), self._level + (now_s - self._at_s) * self.rate)
        self._at_s = now_s
        if self._level < 1.0 - 1e-9:
            return False
        self._level -= 1.0
        return True


class Caller:
    """Always asks, as fast as the governor lets it; without one, `free_rate` a second."""

    def __init__(self, provider: Provider, *, free_rate: float) -> None:
        self.governor = Governor()
        self.provider = provider
        self.free_rate = free_rate
        self.now_s = 0.0
        self.accepted = self.refused = 0

    def go_for(self, seconds: float) -> float:
        """Accepted a second."""
        end_s, before = self.now_s + seconds, self.accepted
        while self.now_s < end_s:
            self.governor.press()
            rate = min(self.free_rate, self.governor.rate(self.now_s))
            self.now_s += 1.0 / rate
            self.governor.note_sent(1.0, self.now_s)
            if self.provider.admits(self.now_s):
                self.accepted += 1
            else:
                self.refused += 1
                self.governor.note_bounced(1.0, self.now_s)
                self.governor.note_refused(1.0, self.now_s, self.now_s, silence_s=0.0, most=inf)
                self.now_s += self.governor.recovery_s(1.0)
        return (self.accepted - before) / seconds


def test_without_a_refusal_nothing_is_governed() -> None:
    governor = Governor()
    governor.note_sent(1.0, 5.0)
    assert governor.rate(10.0) == inf
    assert governor.is_free


@pytest.mark.parametrize("has_log", [True, False])
@pytest.mark.parametrize("rate", [20.0, 50.0, 500.0])
def test_a_limit_is_found_and_used_with_few_refusals(rate: float, has_log: bool) -> None:
    caller = Caller(Provider(rate, has_log=has_log), free_rate=rate * 3)
    caller.go_for(30.0)
    assert caller.go_for(30.0) >= 0.93 * rate
    assert caller.refused <= 0.02 * (caller.accepted + caller.refused)


@pytest.mark.parametrize("has_log", [True, False])
def test_a_limit_that_moves_is_followed_both_ways(has_log: bool) -> None:
    provider = Provider(50.0, has_log=has_log)
    caller = Caller(provider, free_rate=100.0)
    caller.go_for(30.0)
    provider.rate = 25.0
    caller.go_for(10.0)
    assert 0.9 * 25.0 <= caller.go_for(10.0) <= 1.1 * 25.0
    provider.rate = 50.0
    caller.go_for(10.0)
    assert caller.go_for(10.0) >= 0.9 * 50.0


def test_a_log_is_told_from_a_bucket_by_what_comes_out_the_same_each_time() -> None:
    """A log refuses at the same number in a second, however long the rate took to get there."""
    caller = Caller(Provider(50.0, has_log=True), free_rate=400.0)
    caller.go_for(20.0)
    assert caller.go_for(30.0) >= 0.96 * 50.0


class Told:
    """Refusals at the ends of stretches, each sent at one rate for eight seconds and at another for two."""

    def __init__(self) -> None:
        self.governor = Governor()
        self.now_s = 0.0

    def go(self, rate: float, at_last: float) -> float:
        """What the governor lets go after the refusal, if nothing but the counts speaks."""
        self.governor.free()
        for each, seconds in ((rate, 8), (at_last, 2)):
            for _ in range(int(each * seconds)):
                self.now_s += 1.0 / each
                self.governor.note_sent(1.0, self.now_s)
        return self.refuse()

    def refuse(self) -> float:
        self.governor.note_refused(1.0, self.now_s, self.now_s, silence_s=0.0, most=100.0)
        return self.governor.rate(self.now_s)


def test_a_bucket_lets_the_same_through_between_refusals_and_a_log_in_the_last_second() -> None:
    told = Told()
    told.go(50.0, 50.0)
    told.go(40.0, 90.0)
    assert told.go(35.0, 110.0) == pytest.approx(0.97 * 50.0, rel=0.03), "a bucket of 50: all three had it"
    told.go(30.0, 60.0)
    assert told.go(45.0, 60.0) == pytest.approx(0.97 * 60.0, rel=0.03), (
        "a log of 60: twice in the last second"
    )


def test_where_both_stay_the_same_the_higher_is_tried_and_given_up_at_the_next_refusal() -> None:
    told = Told()
    told.go(40.0, 55.0)
    assert told.go(40.0, 55.0) == pytest.approx(0.97 * 55.0, rel=0.05)
    for _ in range(20):
        told.now_s += 0.02
        told.governor.note_sent(1.0, told.now_s)
    assert told.refuse() == pytest.approx(0.97 * 43.0, rel=0.03)


def test_what_bounced_was_not_let_through() -> None:
    def rate(bounced: int) -> float:
        governor = Governor()
        for number in range(100):
            governor.note_sent(1.0, number / 50)
        for number in range(bounced):
            governor.note_bounced(1.0, (70 + number) / 50)
        governor.note_refused(1.0, 2.0, 2.0, silence_s=0.0, most=inf)
        return governor.rate(2.0)

    assert rate(20) == pytest.approx(0.8 * rate(0))


def test_a_spell_of_nothing_but_refusals_says_nothing_of_the_rate() -> None:
    governor = Governor()
    for number in range(100):
        governor.note_sent(1.0, number / 50)
    for at_s in (2.0, 2.2, 2.3, 2.5, 2.9, 3.7):
        governor.note_sent(1.0, at_s)
        governor.note_bounced(1.0, at_s)
        governor.note_refused(1.0, at_s, at_s, silence_s=0.0, most=50.0)
    assert governor.rate(3.7) >= 20.0


def test_the_first_refusal_asks_for_a_silence_in_which_a_log_forgets_everything() -> None:
    governor = Governor()
    for number in range(100):
        governor.note_sent(1.0, number / 50)
    governor.note_refused(1.0, 2.0, 2.0, silence_s=0.0, most=inf)
    assert governor.oblivion_s == 1.0
    governor.note_refused(1.0, 3.1, 3.1, silence_s=0.0, most=inf)
    assert governor.oblivion_s == 0.0


def test_a_rate_that_does_not_hold_the_lane_back_does_not_grow() -> None:
    governor = Governor()
    governor.note_sent(1.0, 1.0)
    governor.note_refused(1.0, 1.0, 1.0, silence_s=0.0, most=10.0)
    before = governor.rate(1.0)
    assert governor.rate(1_000.0) == before
    governor.press()
    assert governor.rate(1_001.0) > before


def test_a_told_rate_is_where_the_search_begins() -> None:
    governor = Governor()
    for number in range(100):
        governor.note_sent(1.0, number / 50)
    governor.note_refused(1.0, 2.0, 2.0, silence_s=0.0, most=50.0)
    assert 40.0 < governor.rate(2.0) <= 50.0


def test_long_silences_are_risked_less_and_less_often_at_a_limit_that_stays() -> None:
    def held_s(refusals: int) -> float:
        governor, now_s = Governor(), 0.0
        for _ in range(refusals):
            for _ in range(500):
                now_s += 0.02
                governor.note_sent(1.0, now_s)
            governor.note_refused(1.0, now_s, now_s, silence_s=1.0, most=50.0)
        governor.press()
        before = governor.rate(now_s)
        start_s = now_s
        while governor.rate(now_s) == before:
            now_s += 0.25
        return now_s - start_s

    assert held_s(1) < held_s(3) < held_s(5)


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0.001, 1e6), st.booleans(), st.floats(0, 100)), max_size=100
    ),
    st.one_of(st.just(inf), st.floats(0.001, 1e6)),
)
def test_a_rate_is_always_a_positive_number(
    steps: list[tuple[float, float, bool, float]], most: float
) -> None:
    governor, now_s = Governor(), 0.0
    for pause_s, amount, is_refused, silence_s in steps:
        now_s += pause_s
        governor.note_sent(amount, now_s)
        governor.press()
        if is_refused:
            governor.note_refused(amount, now_s, now_s, silence_s=silence_s, most=most)
            assert governor.rate(now_s) < inf
        assert governor.rate(now_s) > 0
