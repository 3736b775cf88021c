import pytest

from benchmarks.ledgers import Call
from benchmarks.outcomes import Check, Outcome, all_answered, lane_checks, window_checks, windows

MET = Check("share", 0.99, low=0.98)
MISSED = Check("refused", 0.2, high=0.001)
NEVER = Check("up, s", None, high=10.0)
BARE = Check("share while slow", 0.5)


def test_a_figure_is_met_within_its_bounds_and_missed_when_it_never_came() -> None:
    assert [check.is_met for check in (MET, MISSED, NEVER, BARE)] == [True, False, False, True]
    assert Check("x", 1.0, low=1.0, high=1.0).is_met


def test_one_missed_figure_is_enough() -> None:
    assert Outcome(1, 1, 1.0, 0.0, 1.0, 1.0, (MET, BARE)).is_met
    assert not Outcome(1, 1, 1.0, 0.0, 1.0, 1.0, (MET, NEVER)).is_met


def test_one_row_without_an_answer_is_a_miss() -> None:
    assert all_answered(3000, 3000).is_met
    assert not all_answered(2999, 3000).is_met


def test_the_busiest_windows_are_shares_of_what_the_rate_allows() -> None:
    amounts = [(number / 100, 1.0) for number in range(300)]
    assert windows(amounts, 50.0) == pytest.approx((2.0, 0.1))


@pytest.mark.parametrize(
    ("rate", "second", "is_met"),
    [(50.0, 1.02, True), (50.0, 1.04, False), (10.0, 1.1, True), (10.0, 1.2, False), (500.0, 1.03, False)],
)
def test_a_second_may_hold_two_in_a_hundred_more_or_one_call(
    rate: float, second: float, is_met: bool
) -> None:
    checks = window_checks((second, 1.0), rate)
    assert [check.is_met for check in checks] == [is_met, True]


def test_a_lane_is_measured_from_its_own_first_call_to_the_end_of_all() -> None:
    late = [Call(5.0 + number / 10, True) for number in range(50)]
    checks = lane_checks({"late": late, "idle": []}, {"late": 10.0, "idle": 10.0}, 15.0, low=0.9)
    assert [(check.what, check.value, check.is_met) for check in checks] == [
        ("share of late", pytest.approx(0.5), False),
        ("share of idle", 0.0, False),
    ]
