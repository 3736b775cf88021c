import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.shares import FLOOR, Claim, fair_shares, next_grant, wanted_part

WANTED = st.lists(st.floats(FLOOR, 1.0), min_size=1, max_size=40)
NEAR = 1e-9


@given(WANTED)
def test_shares_are_all_that_there_is_and_no_more(wanted: list[float]) -> None:
    assert math.isclose(sum(fair_shares(wanted)), 1.0, rel_tol=NEAR)


@given(WANTED, st.randoms())
def test_shares_depend_on_what_is_wanted_and_not_on_who_asks(wanted: list[float], dice: object) -> None:
    due = dict(zip(wanted, fair_shares(wanted), strict=True))
    mixed = list(wanted)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    for part, share in zip(mixed, fair_shares(mixed), strict=True):
        assert share == pytest.approx(due[part], abs=NEAR)


@given(WANTED)
def test_who_gets_less_than_wanted_gets_as_much_as_anyone(wanted: list[float]) -> None:
    due = fair_shares(wanted)
    for part, share in zip(wanted, due, strict=True):
        assert share >= part - NEAR or share >= max(due) - NEAR


@given(WANTED)
def test_nobody_is_due_less_than_wanted_and_less_than_an_equal_part(wanted: list[float]) -> None:
    for part, share in zip(wanted, fair_shares(wanted), strict=True):
        assert share >= min(part, 1 / len(wanted)) - NEAR


@pytest.mark.parametrize(
    ("wanted", "due"),
    [
        ([], []),
        ([0.02], [1.0]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([0.1, 1.0], [0.1, 0.9]),
        ([0.1, 1.0, 1.0], [0.1, 0.45, 0.45]),
        ([0.1, 0.8], [0.2, 0.8]),
        ([0.1, 0.1], [0.5, 0.5]),
        ([1.0] * 100, [0.01] * 100),
    ],
)
def test_shares_by_hand(wanted: list[float], due: list[float]) -> None:
    assert fair_shares(wanted) == pytest.approx(due)


@pytest.mark.parametrize(
    ("demand", "used", "part"),
    [
        (math.inf, 0.0, 1.0),
        (math.nan, 0.0, 1.0),
        (0.2, math.nan, 1.0),
        (0.0, 0.0, FLOOR),
        (-5.0, -1.0, FLOOR),
        (0.4, 0.0, 0.5),
        (0.1, 0.4, 0.5),
        (1e30, 0.0, 1.0),
    ],
)
def test_what_is_wanted_has_room_to_grow_and_no_absurd_number(
    demand: float, used: float, part: float
) -> None:
    assert wanted_part(demand, used) == pytest.approx(part)


def test_a_grant_sinks_at_once_and_rises_only_into_what_is_free() -> None:
    assert next_grant(1.0, [Claim(1.0, 0.0)]).granted == 0.5
    raised = next_grant(1.0, [Claim(1.0, 0.7)])
    assert raised.granted == pytest.approx(0.3)
    assert raised.is_short
    assert not next_grant(1.0, [Claim(1.0, 0.5)]).is_short


@given(st.lists(st.floats(FLOOR, 1.0), min_size=1, max_size=12), st.data())
def test_after_two_rounds_in_any_order_everyone_holds_what_is_due(
    wanted: list[float], data: st.DataObject
) -> None:
    """From any lawful division of the limit, the one of before somebody joined, left or changed its mind."""
    weights = data.draw(st.lists(st.floats(0, 1), min_size=len(wanted), max_size=len(wanted)))
    total = max(1.0, sum(weights))
    granted = [weight / total for weight in weights]
    for _ in range(2):
        for index in data.draw(st.permutations(range(len(wanted)))):
            others = [Claim(wanted[i], granted[i]) for i in range(len(wanted)) if i != index]
            granted[index] = next_grant(wanted[index], others).granted
            assert sum(granted) <= 1.0 + NEAR
    assert granted == pytest.approx(fair_shares(wanted), abs=1e-6)
