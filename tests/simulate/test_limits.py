"""Laws of what is let in. A bucket of capacity C and rate R lets in at most C + R x W in any window of W seconds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.limits import TOLERANCE_S, Gate, Scope, go_duration
from batchllm.spec.lanes import SimulatedLimits as Limits

STEPS_S = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 90)), min_size=1, max_size=120)


def greedy_times(gate: Gate, steps_s: list[float], tokens: int = 1) -> list[float]:
    """When requests were let in, of one asked after each step; each is answered at once."""
    now_s, admitted = 1000.0, []
    for step_s in steps_s:
        now_s += step_s
        if gate.admit(tokens, now_s) is None:
            gate.settle(tokens, tokens, now_s)
            admitted.append(now_s)
    return admitted


@given(steps_s=STEPS_S, rpm=st.floats(1, 6000))
def test_in_any_window_at_most_a_seconds_worth_and_the_rate_is_let_in(
    steps_s: list[float], rpm: float
) -> None:
    times = greedy_times(Gate(Limits(rpm=rpm)), steps_s)
    capacity = max(1.0, rpm / 60)
    for first in range(len(times)):
        for last in range(first, len(times)):
            window_s = times[last] - times[first] + TOLERANCE_S
            assert last - first + 1 <= capacity + rpm / 60 * window_s + 1e-6


def test_at_3000_a_minute_50_come_at_once_and_50_more_each_second() -> None:
    times = greedy_times(Gate(Limits(rpm=3000)), [0.0] * 200 + [0.001] * 60_000)
    assert times[49] == 1000.0
    assert sum(time_s < 1000.0 + 1e-9 for time_s in times) == 50
    assert sum(1000.0 < time_s <= 1001.0 for time_s in times) == 50
    assert sum(time_s <= 1060.0 for time_s in times) == 3050


def test_a_rate_below_one_a_second_lets_in_one_at_a_time() -> None:
    times = greedy_times(Gate(Limits(rpm=30)), [0.0] * 5 + [0.25] * 40)
    assert times == [1000.0, 1002.0, 1004.0, 1006.0, 1008.0, 1010.0]


@given(rpm=st.floats(1, 100_000), burst=st.integers(1, 40))
def test_who_waits_as_told_is_let_in(rpm: float, burst: int) -> None:
    gate = Gate(Limits(rpm=rpm))
    now_s = 5e6
    for _ in range(burst):
        refusal = gate.admit(1, now_s)
        if refusal is not None:
            assert refusal.wait_s is not None
            now_s += refusal.wait_s
            assert gate.admit(1, now_s) is None


@given(
    calls=st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1), st.floats(0, 5)), min_size=1, max_size=80),
    tpm=st.integers(400, 3000),
)
def test_tokens_used_in_any_window_stay_within_the_limit_and_the_rate(
    calls: list[tuple[int, float, float]], tpm: int
) -> None:
    gate = Gate(Limits(tpm=tpm))
    now_s, settled, waiting = 0.0, [], []
    for reserved, used_share, step_s in calls:
        now_s += step_s
        if gate.admit(reserved, now_s) is None:
            waiting.append((reserved, int(reserved * used_share)))
        if len(waiting) > 3:
            oldest, used = waiting.pop(0)
            gate.settle(oldest, used, now_s)
            settled.append((now_s, used))
    for first in range(len(settled)):
        total = 0
        for at_s, used in settled[first:]:
            total += used
            assert total <= tpm + tpm / 60 * (at_s - settled[first][0] + TOLERANCE_S) + 1e-6


@given(
    calls=st.lists(st.tuples(st.integers(1, 1500), st.floats(0, 2)), min_size=1, max_size=60),
    limits=st.builds(Limits, rpm=st.just(120.0), tpm=st.just(1000.0), concurrency=st.just(3)),
)
def test_what_is_refused_costs_nothing(calls: list[tuple[int, float]], limits: Limits) -> None:
    """A twin that is only asked what the first one let in stands the same."""
    gate, twin = Gate(limits), Gate(limits)
    now_s = 0.0
    for tokens, step_s in calls:
        now_s += step_s
        if gate.admit(tokens, now_s) is None:
            assert twin.admit(tokens, now_s) is None
            if tokens % 2:
                gate.settle(tokens, tokens, now_s)
                twin.settle(tokens, tokens, now_s)
    assert gate.request_meter(now_s) == twin.request_meter(now_s)
    assert gate.token_meter(now_s) == twin.token_meter(now_s)
    assert gate.in_flight == twin.in_flight


def test_the_whole_figure_of_tokens_may_come_at_once() -> None:
    gate = Gate(Limits(tpm=600))
    assert gate.admit(600, 0.0) is None
    assert gate.admit(1, 0.0) is not None


def test_a_refusal_for_tokens_tells_the_wait_that_its_numbers_give() -> None:
    gate = Gate(Limits(tpm=200_000))
    assert gate.admit(162_960, 0.0) is None
    gate.settle(162_960, 162_960, 0.0)
    refusal = gate.admit(42_288, 0.0)
    assert refusal is not None
    assert (refusal.scope, refusal.limit, refusal.used, refusal.requested) == (
        Scope.TOKENS,
        200_000,
        162_960,
        42_288,
    )
    assert refusal.wait_s == pytest.approx(1.5744)


def test_a_refusal_for_requests_tells_the_wait_that_its_numbers_give() -> None:
    gate = Gate(Limits(rpm=3000))
    for _ in range(50):
        assert gate.admit(1, 0.0) is None
    refusal = gate.admit(1, 0.0)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx((refusal.used + refusal.requested - refusal.limit) / 50)


def test_what_is_larger_than_the_limit_is_never_let_in() -> None:
    refusal = Gate(Limits(tpm=1000)).admit(1001, 0.0)
    assert refusal is not None
    assert refusal.is_too_large
    assert refusal.wait_s is None


def test_tokens_in_flight_count_until_they_are_settled() -> None:
    gate = Gate(Limits(tpm=1000))
    assert gate.admit(900, 0.0) is None
    assert gate.admit(200, 60.0) is not None
    gate.settle(900, 10, 60.0)
    assert gate.admit(200, 60.0) is None


def test_an_unused_reservation_is_given_back() -> None:
    gate = Gate(Limits(tpm=1000))
    assert gate.admit(1000, 0.0) is None
    gate.settle(1000, 0, 0.0)
    meter = gate.token_meter(0.0)
    assert meter is not None
    assert (meter.remaining, meter.reset_s) == (1000, 0.0)


def test_more_used_than_reserved_is_owed() -> None:
    gate = Gate(Limits(tpm=600))
    assert gate.admit(1, 0.0) is None
    gate.settle(1, 1200, 0.0)
    refusal = gate.admit(1, 0.0)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(60.1)
    assert gate.token_meter(0.0) is not None
    assert gate.token_meter(0.0).remaining == 0


def test_no_more_than_the_cap_are_in_flight() -> None:
    gate = Gate(Limits(concurrency=2))
    assert gate.admit(1, 0.0) is None
    assert gate.admit(1, 0.0) is None
    refusal = gate.admit(1, 0.0)
    assert refusal is not None
    assert (refusal.scope, refusal.limit, refusal.wait_s) == (Scope.CONCURRENCY, 2, None)
    gate.settle(1, 1, 0.0)
    assert gate.admit(1, 0.0) is None


def test_without_limits_everything_is_let_in_and_nothing_is_told() -> None:
    gate = Gate(Limits())
    assert all(gate.admit(10**9, 0.0) is None for _ in range(1000))
    assert gate.request_meter(0.0) is None
    assert gate.token_meter(0.0) is None


def test_the_meter_shows_what_openai_shows() -> None:
    """Captured there: of 500 a minute one was used: 499 remain, reset in 120ms."""
    gate = Gate(Limits(rpm=500))
    assert gate.admit(1, 0.0) is None
    meter = gate.request_meter(0.0)
    assert meter is not None
    assert (meter.limit, meter.remaining, go_duration(meter.reset_s)) == (500, 499, "120ms")


@given(rpm=st.integers(60, 60_000), count=st.integers(1, 60), later_s=st.floats(0, 0.1))
def test_the_window_can_be_read_from_the_meter(rpm: int, count: int, later_s: float) -> None:
    gate = Gate(Limits(rpm=rpm))
    for _ in range(count):
        gate.admit(1, 0.0)
    meter = gate.request_meter(later_s)
    assert meter is not None
    if meter.remaining < meter.limit:
        assert meter.limit * meter.reset_s / (meter.limit - meter.remaining) <= 60 + 1e-6


def test_a_bucket_does_not_drift_over_many_charges() -> None:
    gate = Gate(Limits(rpm=60_000))
    now_s = 4e6
    admitted = 0
    for tick in range(200_000):
        now_s = 4e6 + tick / 1000
        admitted += gate.admit(1, now_s) is None
    assert admitted == 200_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.012, "12ms"),
        (0.12, "120ms"),
        (0.0001, "1ms"),
        (1, "1s"),
        (1.574, "1.574s"),
        (1.5, "1.5s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (172.8, "2m52.8s"),
        (252.172, "4m12.172s"),
        (3600, "1h0m0s"),
        (83_909.144, "23h18m29.144s"),
        (0.9999, "1s"),
        (59.9999, "1m0s"),
    ],
)
def test_durations_are_printed_as_go_prints_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@given(st.floats(0, 1e6))
def test_a_printed_duration_is_never_shorter_than_the_wait(seconds: float) -> None:
    parts = re.fullmatch(
        r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", go_duration(seconds)
    )
    assert parts is not None
    hours, minutes, whole, milliseconds = (float(part or 0) for part in parts.groups())
    read_s = hours * 3600 + minutes * 60 + whole + milliseconds / 1000
    assert seconds - 1e-6 <= read_s <= seconds + 0.001 + 1e-6
