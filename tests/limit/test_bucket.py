import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.bucket import BURST_S, USED_SHARE, TokenBucket

STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20_000)), min_size=1, max_size=80)
RATE = 6_000 / 60 * USED_SHARE


def use(per_minute: float, steps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each amount goes, for a caller that waits for one before it asks for the next."""
    now_s, grants = 0.0, []
    bucket = TokenBucket(per_minute, now_s=0.0)
    for pause_s, amount in steps:
        now_s += pause_s
        made = bucket.reserve(amount, now_s)
        now_s = max(now_s, made.ready_s)
        bucket.take(made, now_s)
        grants.append((now_s, amount))
    return grants


def most_in(grants: list[tuple[float, int]], window_s: float) -> float:
    """The most in any half-open window that holds more than one grant."""
    most = held = 0.0
    first = 0
    for last, (at_s, amount) in enumerate(grants):
        held += amount
        while grants[first][0] + window_s <= at_s:
            held -= grants[first][1]
            first += 1
        if last > first:
            most = max(most, held)
    return most


@given(st.floats(60, 1e7), STEPS)
def test_no_minute_holds_more_than_the_limit(per_minute: float, steps: list[tuple[float, int]]) -> None:
    assert most_in(use(per_minute, steps), 60.0) <= per_minute * (1 + 1e-9)


@given(st.floats(60, 1e7), STEPS)
def test_no_second_takes_more_than_its_share_a_burst_and_one_request(
    per_minute: float, steps: list[tuple[float, int]]
) -> None:
    grants = use(per_minute, steps)
    rate = per_minute / 60
    largest = max(amount for _, amount in steps)
    assert most_in(grants, 1.0) <= rate * (1.0 + BURST_S) + largest + 1e-6


@given(st.floats(6e5, 1e7), st.integers(0, 2**32))
def test_a_caller_that_always_asks_gets_the_rate(per_minute: float, seed: int) -> None:
    dice = random.Random(seed)
    amounts = [dice.randint(1, 6_000) for _ in range(200)]
    grants = use(per_minute, [(0.0, amount) for amount in amounts])
    assert grants[-1][0] <= sum(amounts) / (per_minute / 60 * USED_SHARE) + max(amounts) / (per_minute / 60)


def test_a_request_larger_than_a_second_waits_for_its_turn_only() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    level = RATE * BURST_S
    first = bucket.reserve(500, 0.0)
    assert first.ready_s == pytest.approx((500 - level) / RATE)
    assert bucket.reserve(100, first.ready_s).ready_s - first.ready_s == pytest.approx(100 / RATE)


def test_one_that_is_larger_than_a_minute_goes_when_the_minute_is_empty() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    bucket.take(bucket.reserve(40, 0.0), 0.0)
    assert bucket.reserve(7_000, 1.0).ready_s >= 60.0


def test_what_was_not_used_comes_back() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    made = bucket.reserve(49, 0.0)
    bucket.settle(made, 9, 0.0)
    assert bucket.reserve(40, 0.0).ready_s == 0.0


def test_what_was_used_beyond_the_reservation_is_owed() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    bucket.settle(bucket.reserve(50, 0.0), 250, 0.0)
    assert bucket.reserve(1, 0.0).ready_s > 1.5


def test_a_correction_counts_in_its_minute_and_not_after_it() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    made = bucket.reserve(10, 0.0)
    bucket.take(made, 0.0)
    bucket.settle(made, 5_990, 1.0)
    assert bucket.reserve(100, 2.0).ready_s >= 60.0
    late = bucket.reserve(10, 130.0)
    bucket.settle(late, 0, 500.0)
    assert bucket.reserve(45, 500.0).ready_s == 500.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(6_000, now_s=100.0)
    bucket.reserve(RATE * BURST_S + RATE, 100.0)
    assert bucket.reserve(RATE, 50.0).ready_s - 50.0 == pytest.approx(2.0)


def test_a_lower_limit_holds_at_once_and_what_was_taken_still_counts() -> None:
    bucket = TokenBucket(600_000, now_s=0.0)
    bucket.take(bucket.reserve(4_000, 0.0), 0.0)
    bucket.change(6_000, 0.0)
    assert bucket.reserve(2_500, 0.0).ready_s >= 60.0


def test_a_process_that_stood_still_makes_nothing_up() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    bucket.restart(1_000.0)
    assert bucket.reserve(RATE, 1_000.0).ready_s == pytest.approx(1_001.0)


def test_a_figure_beyond_a_whole_minute_is_not_held_against_those_after_it() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    made = bucket.reserve(10, 0.0)
    bucket.take(made, 0.0)
    bucket.settle(made, 10**9, 1.0)
    assert bucket.reserve(10, 1.0).ready_s <= 65.0


def test_a_request_that_waited_for_more_than_a_minute_counts_from_when_it_went() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    made = bucket.reserve(3_000, 0.0)
    bucket.reserve(0, 100.0)  # the log is brought up to date
    bucket.take(made, 100.0)
    assert bucket.reserve(4_000, 101.0).ready_s >= 160.0
