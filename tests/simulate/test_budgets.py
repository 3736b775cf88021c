"""Laws of one limit's arithmetic; time is moved by hand."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.budgets import (
    TOLERANCE_S,
    Allowance,
    Bucket,
    Enforcement,
    SlidingLog,
    new_budget,
    request_allowance,
)

STEPS_S = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 90)), min_size=1, max_size=120)


@given(steps_s=STEPS_S, rpm=st.floats(1, 240), enforcement=st.sampled_from(["second", "minute"]))
def test_a_log_lets_in_no_more_than_its_capacity_in_any_window(
    steps_s: list[float], rpm: float, enforcement: Enforcement
) -> None:
    allowance = request_allowance(rpm, enforcement)
    log = new_budget(allowance, enforcement)
    now_s, times = 1000.0, []
    for step_s in steps_s:
        now_s += step_s
        while not log.wait_s(1, now_s):
            log.charge(1, now_s)
            times.append(now_s)
    for first, start_s in enumerate(times):
        end_s = start_s + allowance.window_s - 2 * TOLERANCE_S
        assert bisect_left(times, end_s) - first <= allowance.capacity


@given(rpm=st.floats(0.5, 100_000), enforcement=st.sampled_from(["refill", "second", "minute"]))
def test_over_time_every_enforcement_gives_the_rate(rpm: float, enforcement: Enforcement) -> None:
    allowance = request_allowance(rpm, enforcement)
    assert abs(allowance.rate_per_s * 60 - rpm) <= 1e-6 * rpm
    assert allowance.capacity >= 1


def test_whole_requests_a_second_are_counted_by_the_second() -> None:
    assert request_allowance(3000, "second") == Allowance(50, 1.0)
    assert request_allowance(100, "second") == Allowance(2, 1.2)
    assert request_allowance(30, "second") == Allowance(1, 2.0)
    assert request_allowance(3000, "minute") == Allowance(3000, 60.0)


@given(
    steps_s=STEPS_S,
    amounts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    enforcement=st.sampled_from(["refill", "minute"]),
)
def test_who_waits_as_told_has_room(
    steps_s: list[float], amounts: list[int], enforcement: Enforcement
) -> None:
    budget = new_budget(Allowance(40.0, 60.0), enforcement)
    now_s = 5e6
    for number, step_s in enumerate(steps_s):
        now_s += step_s
        amount = amounts[number % len(amounts)]
        now_s += budget.wait_s(amount, now_s)
        assert budget.wait_s(amount, now_s) == 0.0
        budget.charge(amount, now_s)


def test_a_log_forgets_what_is_a_window_old() -> None:
    log = SlidingLog(Allowance(10.0, 60.0))
    log.charge(4, 0.0)
    log.charge(6, 10.0)
    assert log.used(59.0) == 10
    assert log.wait_s(4, 20.0) == 40.0
    assert log.wait_s(5, 20.0) == 50.0
    assert log.used(60.0) == 6
    assert log.used(70.0) == 0


def test_a_wait_for_what_is_held_elsewhere_is_a_guess_above_zero() -> None:
    assert SlidingLog(Allowance(10.0, 60.0)).wait_s(11, 0.0) > 0


@given(
    hammered=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
    enforcement=st.sampled_from(["refill", "second", "minute"]),
)
def test_hammering_bars_the_door_for_no_longer_than_a_window(
    hammered: list[float], enforcement: Enforcement
) -> None:
    allowance = request_allowance(120, enforcement)
    budget = new_budget(allowance, enforcement)
    now_s = 100.0
    for step_s in hammered:
        now_s += step_s
        if budget.wait_s(1, now_s):
            budget.charge_refused(now_s)
        else:
            budget.charge(1, now_s)
        assert budget.used(now_s) <= allowance.capacity + 1e-6
    assert budget.wait_s(1, now_s + allowance.window_s) == 0.0


def test_a_refused_request_that_counts_takes_the_place_of_the_next() -> None:
    for budget in (Bucket(Allowance(2.0, 2.0)), SlidingLog(Allowance(2.0, 2.0))):
        budget.charge(1, 0.0)
        budget.charge(1, 0.5)
        before_s = budget.wait_s(1, 0.9)
        budget.charge_refused(0.9)
        assert budget.wait_s(1, 0.9) > before_s


def test_a_limit_that_moves_keeps_what_was_used() -> None:
    bucket = Bucket(Allowance(60.0, 60.0))
    bucket.charge(30, 0.0)
    bucket.change(Allowance(30.0, 60.0))
    assert bucket.used(0.0) == 15.0
    log = SlidingLog(Allowance(60.0, 60.0))
    log.charge(30, 0.0)
    log.change(Allowance(30.0, 60.0))
    assert log.used(0.0) == 30
    assert log.wait_s(1, 1.0) == 59.0
