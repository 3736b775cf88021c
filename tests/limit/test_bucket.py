from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.bucket import BURST_S, TokenBucket

STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20_000)), min_size=1, max_size=60)


def use(per_minute: float, steps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each amount may go, for a caller that waits for one before it asks for the next."""
    now_s, grants = 0.0, []
    bucket = TokenBucket(per_minute, now_s=0.0)
    for pause_s, amount in steps:
        now_s += pause_s
        now_s += bucket.reserve(amount, now_s)
        grants.append((now_s, amount))
    return grants


@given(st.floats(60, 1e7), STEPS)
def test_no_window_takes_more_than_its_share_and_a_burst(
    per_minute: float, steps: list[tuple[float, int]]
) -> None:
    grants = use(per_minute, steps)
    rate = per_minute / 60
    for first, (start_s, _) in enumerate(grants):
        total = 0
        for at_s, amount in grants[first + 1 :]:
            total += amount
            assert total <= rate * (at_s - start_s + BURST_S) * (1 + 1e-6) + 1e-6


@given(st.floats(60, 1e7), st.lists(st.integers(1, 20_000), min_size=2, max_size=60))
def test_a_caller_that_always_asks_gets_the_whole_rate(per_minute: float, amounts: list[int]) -> None:
    grants = use(per_minute, [(0.0, amount) for amount in amounts])
    taken_s = grants[-1][0]
    assert taken_s <= sum(amounts) / (per_minute / 60) + 1e-6


def test_a_request_larger_than_a_second_waits_for_its_turn_only() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    assert bucket.reserve(500, 0.0) == 4.0
    assert bucket.reserve(100, 4.0) == 1.0


def test_what_was_not_used_comes_back() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    bucket.reserve(100, 0.0)
    bucket.settle(100, 20, 0.0)
    assert bucket.reserve(80, 0.0) == 0.0


def test_what_was_used_beyond_the_reservation_is_owed() -> None:
    bucket = TokenBucket(6_000, now_s=0.0)
    bucket.reserve(50, 0.0)
    bucket.settle(50, 250, 0.0)
    assert bucket.reserve(1, 0.0) > 1.5


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(6_000, now_s=100.0)
    bucket.reserve(100, 100.0)
    assert bucket.reserve(100, 50.0) == 1.0
    assert bucket.reserve(0, 100.0) == 1.0
