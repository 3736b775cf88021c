import random
from collections.abc import Sequence
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.pace import CATCH_UP_S, USED_SHARE, Pace

#: From one request in a hundred minutes to far more than any process sends.
LIMITS = st.one_of(st.floats(0.01, 600), st.floats(600, 300_000), st.floats(1e6, 1e9))
#: How long after it may go each request goes: at once, late by a little, or after a long pause.
DELAYS = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.3), st.floats(0, 200)), min_size=1, max_size=300)


def go(pace: Pace, delays: Sequence[float], now_s: float = 0.0) -> list[float]:
    """When each request goes, by a clock that only goes on."""
    times = []
    for delay_s in delays:
        now_s = max(now_s, pace.next_s) + delay_s
        pace.take(now_s)
        times.append(now_s)
    return times


def most_in(times: Sequence[float], window_s: float) -> int:
    """The most in any half-open window."""
    most, first = 0, 0
    for last, at_s in enumerate(times):
        while times[first] + window_s <= at_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def a_second_of(per_minute: float) -> int:
    """The law: rounded down where one per cent below the limit still fits, else up."""
    rate = per_minute / 60
    return floor(rate) if floor(rate) >= rate * USED_SHARE else ceil(rate)


@given(LIMITS, DELAYS)
def test_no_second_and_no_minute_is_ever_over_the_limit(per_minute: float, delays: list[float]) -> None:
    times = go(Pace(per_minute, now_s=0.0), delays)
    assert most_in(times, 1.0) <= a_second_of(per_minute)
    assert most_in(times, 60.0) <= max(1, ceil(per_minute))


@given(st.floats(60, 60_000), st.integers(0, 2**32))
def test_requests_that_go_a_little_late_cost_no_rate(per_minute: float, seed: int) -> None:
    """Late by less than can be made up for, each for itself: a caller that always asks has the whole pace."""
    pace, dice = Pace(per_minute, now_s=0.0), random.Random(seed)
    interval_s = 60 / per_minute / USED_SHARE
    now_s = due_s = 0.0
    for number in range(400):
        due_s = number * interval_s
        now_s = max(now_s, pace.next_s, due_s + dice.uniform(0, CATCH_UP_S / 2))
        pace.take(now_s)
    assert now_s <= due_s + 2 * CATCH_UP_S + 0.02 * due_s


@given(st.floats(60, 60_000), st.floats(0, 10_000))
def test_neither_a_start_nor_a_pause_brings_a_burst(per_minute: float, pause_s: float) -> None:
    pace = Pace(per_minute, now_s=0.0)
    times = go(pace, [pause_s] + [0.0] * 200)
    soon = sum(1 for at_s in times if at_s < times[0] + 0.05)
    assert soon <= 2 + per_minute / 60 * (CATCH_UP_S + 0.05)


@given(LIMITS, LIMITS, DELAYS, DELAYS)
def test_after_a_change_the_lower_limit_holds(
    before: float, after: float, first: list[float], then: list[float]
) -> None:
    """The second in which the limit changes may hold what the higher of the two allows, and no more."""
    pace = Pace(before, now_s=0.0)
    times = go(pace, first)
    pace.change(after)
    later = go(pace, then, now_s=times[-1])
    assert most_in(later, 1.0) <= a_second_of(after)
    assert most_in([*times, *later], 1.0) <= max(a_second_of(before), a_second_of(after))


def test_the_pace_is_one_per_cent_below_the_limit() -> None:
    times = go(Pace(3_000, now_s=0.0), [0.0] * 3_001)
    assert times[-1] == pytest.approx(3_000 / (50 * USED_SHARE))


def test_a_process_that_stood_still_makes_nothing_up() -> None:
    pace = Pace(60_000, now_s=0.0)
    pace.take(0.0)
    pace.restart(60.0)
    assert most_in(go(pace, [0.0] * 100, now_s=60.0), 0.01) <= 11


def test_a_start_can_be_told_to_come_after_what_went_before() -> None:
    assert go(Pace(60, now_s=5.0), [0.0]) == [5.0]


def test_a_limit_that_changes_in_a_silence_does_not_end_it() -> None:
    pace = Pace(3_000.0, now_s=0.0)
    pace.take(0.0)
    pace.restart(10.0)
    pace.change(1_500.0)
    assert pace.next_s == 10.0
