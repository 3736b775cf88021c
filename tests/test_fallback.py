from dataclasses import dataclass, field

from batchllm.fallback import (
    FIRST_CONTACT_S,
    LONGEST_REST_S,
    TRIP_AFTER,
    Health,
    LaneState,
    is_about_lane,
    is_available,
    is_open_to,
    remaining,
)
from batchllm.records import Action, Failure, FailureCode

DOWN = Failure(Action.AGAIN, FailureCode.SERVER, "HTTP 500", 500)
DEAD = Failure(Action.ELSEWHERE, FailureCode.QUOTA, "out of credit", 429, lane_is_dead=True)
REFUSED = Failure(Action.AGAIN, FailureCode.RATE_LIMIT, "HTTP 429", 429)


@dataclass
class Lane:
    health: Health = field(default_factory=lambda: Health(3600.0))
    quiet_s: float = 0.0


def fail(health: Health, now_s: float, times: int = 1, sent_s: float | None = None) -> None:
    for _ in range(times):
        health.note_failure(DOWN, sent_s=now_s if sent_s is None else sent_s, now_s=now_s)


def refuse(health: Health, now_s: float, *, goes_on: bool = False) -> None:
    health.note_refusal(REFUSED, now_s=now_s, silence_s=0.5, goes_on=goes_on)


def test_a_lane_rests_after_some_failures_in_a_row() -> None:
    health = Health(3600.0)
    fail(health, 10.0, TRIP_AFTER - 1)
    assert health.state is LaneState.RUNNING
    fail(health, 10.0)
    assert health.state is LaneState.RESTING
    assert health.rest_s(10.0) == 1.0


def test_one_success_between_failures_keeps_it_running() -> None:
    health = Health(3600.0)
    for _ in range(20):
        fail(health, 10.0, TRIP_AFTER - 1)
        health.note_success()
    assert health.state is LaneState.RUNNING


def test_calls_sent_before_the_rest_do_not_lengthen_it() -> None:
    health = Health(3600.0)
    fail(health, 10.0, TRIP_AFTER)
    fail(health, 10.5, 1000, sent_s=9.0)
    assert health.rest_s(10.5) == 0.5


def test_after_the_rest_it_is_probed_and_each_failed_probe_doubles_the_rest() -> None:
    health = Health(1e9)
    health.note_success()
    fail(health, 0.0, TRIP_AFTER)
    now_s, rests = 0.0, []
    for _ in range(9):
        rests.append(health.rest_s(now_s))
        now_s += health.rest_s(now_s)
        health.wake(now_s)
        assert health.state is LaneState.PROBING
        fail(health, now_s)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_REST_S, LONGEST_REST_S, LONGEST_REST_S]


def test_a_successful_probe_revives_it() -> None:
    health = Health(3600.0)
    fail(health, 0.0, TRIP_AFTER)
    health.wake(1.0)
    health.note_success()
    assert health.state is LaneState.RUNNING


def test_a_lane_that_never_answered_is_given_up_after_first_contact_time() -> None:
    health = Health(3600.0)
    fail(health, 0.0, TRIP_AFTER)
    health.wake(FIRST_CONTACT_S + 1)
    fail(health, FIRST_CONTACT_S + 1)
    assert health.state is LaneState.DEAD


def test_a_lane_that_has_answered_is_given_up_after_patience() -> None:
    health = Health(3600.0)
    health.note_success()
    fail(health, 0.0, TRIP_AFTER)
    health.wake(FIRST_CONTACT_S + 1)
    fail(health, FIRST_CONTACT_S + 1)
    assert health.state is LaneState.RESTING
    health.wake(3600.0)
    fail(health, 3600.0)
    assert health.state is LaneState.DEAD


def test_a_final_word_kills_it_and_nothing_revives_it() -> None:
    health = Health(3600.0)
    health.note_failure(DEAD, sent_s=0.0, now_s=1.0)
    health.note_success()
    assert health.state is LaneState.DEAD
    assert health.killer is DEAD


def test_refusals_that_go_on_let_one_through_at_a_time_until_an_answer() -> None:
    health = Health(3600.0)
    refuse(health, 1.0)
    assert not health.wants_one_at_a_time
    refuse(health, 2.0, goes_on=True)
    assert health.wants_one_at_a_time
    health.note_success()
    assert not health.wants_one_at_a_time


def test_in_order_a_lane_waits_for_those_before_it() -> None:
    lanes = [Lane(), Lane(), Lane()]
    none: frozenset[int] = frozenset()
    assert [is_open_to(lane, lanes, excluded=none, in_order=True) for lane in range(3)] == [
        True,
        False,
        False,
    ]
    fail(lanes[0].health, 0.0, TRIP_AFTER)
    assert [is_open_to(lane, lanes, excluded=none, in_order=True) for lane in range(3)] == [True, True, False]
    assert not is_open_to(1, lanes, excluded=frozenset({1}), in_order=True)
    assert is_open_to(2, lanes, excluded=frozenset({1}), in_order=True)


def test_remaining_leaves_out_the_dead_and_the_excluded() -> None:
    lanes = [Lane(), Lane(), Lane()]
    lanes[1].health.note_failure(DEAD, sent_s=0.0, now_s=0.0)
    assert remaining(lanes, frozenset({0})) == [2]


def test_a_probe_that_is_refused_by_a_rate_limit_does_not_open_the_lane() -> None:
    health = Health(3600.0)
    fail(health, 0.0, TRIP_AFTER)
    health.wake(1.0)
    refuse(health, 1.1)
    assert health.state is LaneState.PROBING
    assert health.wants_one_at_a_time


def test_a_refusal_does_not_end_a_rest() -> None:
    health = Health(3600.0)
    fail(health, 10.0, TRIP_AFTER)
    refuse(health, 10.2)
    assert health.state is LaneState.RESTING


def test_a_lane_that_an_old_answer_revives_can_fail_again_at_once() -> None:
    health = Health(3600.0)
    for _ in range(8):
        fail(health, 10.0, TRIP_AFTER)
        health.wake(health.rest_until_s)
    rested_until_s = health.rest_until_s
    fail(health, rested_until_s)
    health.note_success()
    assert health.state is LaneState.RUNNING
    fail(health, rested_until_s + 1.0, TRIP_AFTER)
    assert health.state is LaneState.RESTING
    health.note_success()
    refuse(health, rested_until_s + 1.2)
    assert health.state is LaneState.RUNNING


def test_refusals_without_an_end_use_up_patience_and_an_answer_renews_it() -> None:
    health = Health(100.0)
    for now_s in (0.0, 60.0):
        refuse(health, now_s)
    health.note_success()
    for now_s in (120.0, 180.0):
        refuse(health, now_s)
    assert health.state is LaneState.RUNNING
    refuse(health, 240.0)
    assert health.state is LaneState.DEAD
    assert health.killer is REFUSED


def test_a_lane_on_probation_is_not_the_better_bet() -> None:
    lane = Lane()
    fail(lane.health, 0.0, TRIP_AFTER)
    lane.health.wake(1.0)
    assert lane.health.state is LaneState.PROBING
    assert not is_available(lane)


def test_deaths_outages_and_rate_limits_are_about_the_lane_and_other_failures_about_the_row() -> None:
    missing = Failure(Action.ELSEWHERE, FailureCode.CAPABILITY, "no schema here", 400)
    assert all(is_about_lane(failure) for failure in (DOWN, DEAD, REFUSED))
    assert is_about_lane(missing._replace(lane_is_dead=True))
    for code in (FailureCode.CAPABILITY, FailureCode.CONTEXT_LENGTH, FailureCode.SCHEMA_MISMATCH):
        assert not is_about_lane(missing._replace(code=code))
