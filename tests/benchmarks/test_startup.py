"""Reading /proc, and the medians of the start-up benchmark."""

import pytest

from benchmarks.startup import Start, cpu_of, lines

STAT = (
    "7 (a name) with (parts) S 1 7 7 0 -1 4194560 500 0 0 0 {user} {system} 0 0 20 0 1 0 100 1000 200 0 0 0 0"
)


def test_cpu_is_user_and_system_whatever_the_process_is_called() -> None:
    assert cpu_of(STAT.format(user=150, system=25), 100) == pytest.approx(1.75)


def test_ratios_are_taken_within_a_turn_before_their_median() -> None:
    turns = [
        {"python, imports": Start(1.0, imports), "run": Start(wall, cpu)}
        for imports, cpu, wall in ((0.5, 1.0, 3.0), (2.0, 2.0, 1.0), (1.0, 3.0, 2.0))
    ]
    run = lines(turns)[1]
    assert run == {"what": "run", "cpu_s": 2.0, "wall_s": 2.0, "ratio": 2.0}


def test_a_system_that_does_not_tell_has_no_cpu_figures() -> None:
    assert lines([{"python, imports": Start(1.0, 0.5), "run": Start(2.0, None)}])[1] == {
        "what": "run",
        "cpu_s": None,
        "wall_s": 2.0,
        "ratio": None,
    }
