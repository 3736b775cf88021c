"""What is drawn; the drawing itself is looked at."""

from benchmarks.ledgers import Call
from benchmarks.plot import PANELS, curve, limit_corners
from benchmarks.scenarios import SCENARIOS

HALVED = {
    "limits": {"rpm": 3000.0},
    "schedule": [
        {"at_s": 20, "limits": {"rpm": 1500.0}},
        {"at_s": 25, "latency": {"median_s": 1.0}},
        {"at_s": 50},
    ],
}


def test_a_limit_is_drawn_as_steps_to_the_end() -> None:
    assert limit_corners(HALVED, 40.0) == [(0.0, 50.0), (20, 50.0), (20, 25.0), (40.0, 25.0)]
    assert limit_corners(HALVED, 10.0) == [(0.0, 50.0), (10.0, 50.0)]


def test_both_kinds_of_calls_are_drawn_over_the_same_seconds() -> None:
    calls = [Call(100 + number / 10, number % 2 == 0) for number in range(101)]
    seen = curve(calls, HALVED)
    assert seen.at_s[0] == 0.0
    assert seen.at_s[-1] == 10.0
    assert len(seen.at_s) == len(seen.accepted) == len(seen.refused)
    assert seen.accepted[20] == seen.refused[20] == 5.0
    assert seen.limit == [(0.0, 50.0), (10.0, 50.0)]


def test_the_scenarios_drawn_exist() -> None:
    assert {scenario for scenario, _, _ in PANELS} <= set(SCENARIOS)
