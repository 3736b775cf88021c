"""Spent and reserved never pass the limit, to the last nano-dollar."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.budget import Budget

MONEY = st.floats(0, 1000, allow_nan=False)


def test_a_reservation_is_given_back_and_the_cost_stays() -> None:
    budget = Budget(1.0)
    assert budget.reserve(0.5)
    assert (budget.spent_usd, budget.reserved_usd) == (0.0, 0.5)
    budget.settle(0.5, 0.2)
    assert (budget.spent_usd, budget.reserved_usd) == (0.2, 0.0)


def test_an_unknown_cost_counts_in_full() -> None:
    budget = Budget(1.0)
    budget.reserve(0.5)
    budget.settle(0.5, None)
    assert budget.spent_usd == 0.5


def test_a_call_that_did_not_cost_anything_costs_nothing() -> None:
    budget = Budget(1.0)
    budget.reserve(1.0)
    budget.settle(1.0, 0.0)
    assert budget.reserve(1.0)


def test_what_does_not_fit_changes_nothing() -> None:
    budget = Budget(1.0)
    assert budget.reserve(0.75)
    assert not budget.reserve(0.26)
    assert budget.reserved_usd == 0.75
    assert budget.reserve(0.25)


def test_what_was_spent_before_counts() -> None:
    budget = Budget(1.0, spent_usd=0.9)
    assert not budget.reserve(0.2)
    assert budget.reserve(0.1)


def test_a_limit_that_is_met_exactly_is_met_despite_float_dust() -> None:
    budget = Budget(0.3)
    assert all(budget.reserve(0.1) for _ in range(3))
    assert not budget.reserve(1e-9)
    assert Budget(0.3).reserve(0.1 + 0.2)
    assert Budget(0.1 + 0.2).reserve(0.3)
    assert Budget(1.001).reserve(1.001)


def test_ten_thousand_small_costs_add_up_exactly() -> None:
    budget = Budget(1.0)
    for _ in range(10_000):
        assert budget.reserve(0.0001)
        budget.settle(0.0001, 0.0001)
    assert budget.spent_usd == 1.0
    assert budget.exhausted


def test_less_than_a_nano_dollar_is_never_free() -> None:
    budget = Budget(2e-9)
    assert budget.reserve(2.8e-10)
    assert budget.reserve(2.8e-10)
    assert not budget.reserve(2.8e-10)


def test_waiting_helps_only_while_calls_in_flight_may_give_back() -> None:
    budget = Budget(1.0, spent_usd=0.5)
    budget.reserve(0.5)
    assert not budget.reserve(0.4)
    assert budget.could_reserve(0.4)
    assert not budget.could_reserve(0.6)
    assert not budget.exhausted


def test_a_call_that_cost_more_than_reserved_is_told_as_it_is() -> None:
    budget = Budget(1.0)
    budget.reserve(1.0)
    budget.settle(1.0, 1.5)
    assert budget.spent_usd == 1.5
    assert budget.exhausted
    assert not budget.reserve(0.0)


def test_overspent_before_means_exhausted() -> None:
    assert Budget(1.0, spent_usd=2.0).exhausted
    assert not Budget(1.0, spent_usd=2.0).reserve(0.0)


def test_what_was_not_reserved_cannot_be_settled() -> None:
    budget = Budget(1.0)
    budget.reserve(0.1)
    with pytest.raises(ValueError, match=r"only 0\.1"):
        budget.settle(0.2, 0.1)
    assert (budget.spent_usd, budget.reserved_usd) == (0.0, 0.1)


@pytest.mark.parametrize("amount", [-0.01, math.nan, math.inf, -math.inf])
def test_what_is_no_amount_of_money_is_refused_and_changes_nothing(amount: float) -> None:
    budget = Budget(1.0)
    budget.reserve(0.5)
    for attempt in (
        lambda: Budget(amount),
        lambda: Budget(1.0, amount),
        lambda: budget.reserve(amount),
        lambda: budget.settle(amount, 0.1),
        lambda: budget.settle(0.5, amount),
    ):
        with pytest.raises(ValueError, match="not an amount"):
            attempt()
    assert (budget.spent_usd, budget.reserved_usd) == (0.0, 0.5)


@settings(deadline=None)
@given(
    MONEY,
    st.lists(st.tuples(MONEY, st.one_of(st.none(), st.floats(0, 1)), st.booleans()), max_size=40),
)
def test_spent_and_reserved_never_pass_the_limit(
    limit_usd: float, calls: list[tuple[float, float | None, bool]]
) -> None:
    budget = Budget(limit_usd)
    in_flight: list[tuple[float, float | None]] = []
    for worst_usd, share, settles_at_once in calls:
        actual_usd = None if share is None else worst_usd * share
        if budget.reserve(worst_usd):
            in_flight.append((worst_usd, actual_usd))
        if settles_at_once and in_flight:
            budget.settle(*in_flight.pop(0))
        assert budget.spent_usd + budget.reserved_usd <= budget.limit_usd * (1 + 1e-12) + 1e-12
        assert budget.reserved_usd == pytest.approx(sum(worst for worst, _ in in_flight), abs=1e-7)
    for call in in_flight:
        budget.settle(*call)
    assert budget.reserved_usd == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), max_size=30))
def test_the_sum_of_costs_is_never_told_too_low(costs: list[float]) -> None:
    budget = Budget(1e6)
    for cost_usd in costs:
        budget.reserve(cost_usd)
        budget.settle(cost_usd, cost_usd)
    assert budget.spent_usd >= math.fsum(costs) * (1 - 1e-9) - 1e-10
    assert budget.spent_usd <= math.fsum(costs) * (1 + 1e-9) + 1e-9 * len(costs) + 1e-12
