import pytest
from hypothesis import given
from hypothesis import strategies as st
from timers_rig import MovedTimers

from batchllm.provider.deadlines import GRACE_S, LATE_S, Deadlines


class Rig:
    def __init__(self) -> None:
        self.timers = MovedTimers()
        self.overdue: list[tuple[str, float]] = []
        self.deadlines: Deadlines[str] = Deadlines(self.timers, self._hear)

    def _hear(self, call: str) -> None:
        self.overdue.append((call, self.timers.now_s - 1_000.0))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_call_is_overdue_at_its_deadline_and_once(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.timers.advance(9.9)
    assert rig.overdue == []
    rig.timers.advance(1_000.0)
    assert rig.overdue == [("a", 10.0)]


def test_call_that_ended_is_not_overdue(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.deadlines.end("a")
    rig.timers.advance(100.0)
    assert rig.overdue == []


def test_shorter_deadline_overtakes(rig: Rig) -> None:
    rig.deadlines.start("long", 10.0)
    rig.deadlines.start("short", 1.0)
    rig.timers.advance(100.0)
    assert rig.overdue == [("short", 1.0), ("long", 10.0)]


def test_many_calls_need_one_timer(rig: Rig) -> None:
    for number in range(1_000):
        rig.deadlines.start(f"{number}", 600.0)
        rig.timers.advance(0.01)
        rig.deadlines.end(f"{number}")
    assert len(rig.timers.timers) == 1


def test_endless_deadline_sets_no_timer(rig: Rig) -> None:
    rig.deadlines.start("a", float("inf"))
    assert rig.timers.waiting == []


def test_timer_that_comes_late_gives_grace_once(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.timers.stall(60.0)
    rig.timers.advance(GRACE_S - 0.5)
    assert rig.overdue == []
    rig.timers.stall(60.0)
    assert rig.overdue == [("a", 124.5)]


def test_grace_is_for_calls_that_are_due(rig: Rig) -> None:
    rig.deadlines.start("due", 10.0)
    rig.deadlines.start("later", 62.0)
    rig.timers.stall(60.0)
    rig.timers.advance(100.0)
    assert rig.overdue == [("later", 62.0), ("due", 65.0)]


def test_grace_ends_with_the_call(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.timers.stall(60.0)
    rig.deadlines.end("a")
    rig.deadlines.start("a", 10.0)
    rig.timers.stall(60.0)
    assert rig.overdue == []
    rig.timers.advance(GRACE_S)
    assert len(rig.overdue) == 1


def test_loop_that_is_a_little_late_gives_none(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.timers.stall(10.0 + LATE_S)
    assert [call for call, _ in rig.overdue] == ["a"]


def test_timer_that_comes_a_little_early_does_not_spin(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    rig.timers.now_s += 9.9995
    rig.timers.waiting[0].act()
    assert len(rig.overdue) == 1


def test_nothing_is_left_after_close(rig: Rig) -> None:
    rig.deadlines.start("a", 10.0)
    assert rig.deadlines.open_calls() == ("a",)
    rig.deadlines.close()
    assert rig.timers.waiting == []


@given(st.lists(st.tuples(st.floats(0.01, 50), st.floats(0.01, 20), st.booleans()), min_size=1, max_size=30))
def test_each_call_that_is_not_ended_is_overdue_at_its_time(calls: list[tuple[float, float, bool]]) -> None:
    rig = Rig()
    due_s: dict[str, float] = {}
    for number, (pause_s, after_s, ends) in enumerate(calls):
        name = f"{number}"
        rig.deadlines.start(name, after_s)
        due_s[name] = rig.timers.now_s - 1_000.0 + after_s
        if ends:
            rig.deadlines.end(name)
            del due_s[name]
        rig.timers.advance(pause_s)
    rig.timers.advance(1_000.0)
    assert dict(rig.overdue) == pytest.approx(due_s, abs=0.002)
    assert len(rig.overdue) == len(due_s)
