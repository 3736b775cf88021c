import pytest

from batchllm.simulate.schedule import Timetable, phases, schedule_faults
from batchllm.spec.lanes import Simulation


def simulation(*changes: dict[str, object], **fields: object) -> Simulation:
    return Simulation.model_validate({**fields, "schedule": list(changes)})


def test_a_change_lays_only_what_it_names_over_what_was() -> None:
    spec = simulation(
        {"at_s": 20, "limits": {"rpm": 1500.0}},
        {"at_s": 40, "limits": {"tpm": None}, "faults": {"stall_rate": 0.5}},
        {"at_s": 60, "latency": {"median_s": 4.0}},
        limits={"rpm": 3000.0, "tpm": 9000.0},
        latency={"median_s": 0.4},
    )
    found = [
        (at_s, phase.limits.rpm, phase.limits.tpm, phase.faults.stall_rate, phase.latency.median_s)
        for at_s, phase in phases(spec)
    ]
    assert found == [
        (0.0, 3000.0, 9000.0, 0.0, 0.4),
        (20.0, 1500.0, 9000.0, 0.0, 0.4),
        (40.0, 1500.0, None, 0.5, 0.4),
        (60.0, 1500.0, None, 0.5, 4.0),
    ]


def test_time_counts_from_the_first_question_and_each_change_comes_once() -> None:
    timetable = Timetable(
        simulation({"at_s": 10, "limits": {"rpm": 1.0}}, {"at_s": 20, "limits": {"rpm": 2.0}})
    )
    assert timetable.turn(500.0) is None
    assert timetable.turn(509.9) is None
    changed = timetable.turn(510.0)
    assert changed is not None
    assert changed.limits.rpm == 1.0
    assert timetable.turn(511.0) is None


def test_of_changes_that_nobody_saw_the_last_one_holds() -> None:
    timetable = Timetable(
        simulation({"at_s": 10, "limits": {"rpm": 1.0}}, {"at_s": 20, "limits": {"rpm": 2.0}})
    )
    timetable.turn(0.0)
    changed = timetable.turn(100.0)
    assert changed is not None
    assert changed.limits.rpm == 2.0


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ([{"at_s": 5}, {"at_s": 5}], []),
        ([{"at_s": 5}, {"at_s": 4}], ["schedule.1.at_s"]),
        ([{"at_s": 5, "latency": {"median_s": 4.0}}], ["schedule.0.latency.p99_s"]),
    ],
)
def test_what_cannot_be_is_told_with_its_place(changes: list[dict[str, object]], places: list[str]) -> None:
    spec = simulation(*changes, latency={"median_s": 1.0, "p99_s": 2.0})
    assert [fault.path for fault in schedule_faults(spec)] == places
