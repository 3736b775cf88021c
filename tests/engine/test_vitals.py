"""What a run knows of itself → what its heartbeat says."""

from dataclasses import replace

import pytest

from batchllm.dispatch import Lane
from batchllm.engine.vitals import About, Moment, Teller, Vitals, lane_beat
from batchllm.errors import ExitCode
from batchllm.events import LaneStats
from batchllm.fallback import FIRST_REST_S, TRIP_AFTER, Health
from batchllm.journal.heartbeat import LaneBeat, encoded
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize
from batchllm.limit.window import Window
from batchllm.records import Action, Failure, FailureCode, LaneInfo
from batchllm.testing import ScriptedProvider, SteppedClock, echo, encode_content, judge_echo

WALL, START_S = 1_700_000_000.0, 1_000.0
ABOUT = About("classify", "0.1.0", 7, "here", "boot", WALL)
FREE = LaneBeat("one", "running", in_flight=3)
SILENT = LaneBeat("one", "waiting", "the provider asked for silence", WALL + 3_600)
RESTING = LaneBeat("two", "resting", "it fails (connection)", WALL + 30)
DEAD = LaneBeat("three", "dead", "credentials, HTTP 401")
BAD = Failure(Action.AGAIN, FailureCode.SERVER, "HTTP 500: the text of a row", 500)


def at(seconds: float) -> Moment:
    return Moment(WALL + seconds, START_S + seconds)


def running(*lanes: LaneBeat, **more: object) -> Vitals:
    told = Vitals(phase="running", total=100, lanes=lanes, in_flight=sum(lane.in_flight for lane in lanes))
    return replace(told, **more)


@pytest.mark.parametrize(
    ("vitals", "state", "until_s"),
    [
        (Vitals(), "starting", None),
        (Vitals(phase="reading"), "starting", None),
        (running(FREE), "running", None),
        (running(FREE, SILENT), "running", None),
        (running(SILENT), "waiting", 3_600),
        (running(SILENT, RESTING, DEAD), "waiting", 30),
        (running(SILENT, in_flight=1), "running", None),
        (running(DEAD), "running", None),
        (running(FREE, patient_until_s=START_S + 60), "paused", 60),
        (replace(running(), phase="finishing", patient_until_s=START_S + 60), "paused", 60),
        (replace(running(), phase="draining", drain_timeout_s=20.0), "draining", 20),
        (replace(running(), phase="finishing"), "writing", None),
        (replace(running(), phase="done"), "writing", None),
        (replace(running(), phase="agreeing"), "agreeing", None),
    ],
)
def test_what_a_run_does_and_how_long_it_waits(vitals: Vitals, state: str, until_s: float | None) -> None:
    beat = Teller(ABOUT).beat(vitals, at(0))
    assert beat.state == state
    assert beat.until == (None if until_s is None else WALL + until_s)


def test_the_reason_of_a_wait_is_that_of_the_lane_that_goes_on_first() -> None:
    assert Teller(ABOUT).beat(running(SILENT, RESTING), at(0)).reason == "two: it fails (connection)"


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (ExitCode.OK, "done"),
        (ExitCode.ROWS_FAILED, "done"),
        (ExitCode.LIMIT_STOPPED, "stopped"),
        (ExitCode.TERMINATED, "stopped"),
        (ExitCode.IO, "failed"),
        (ExitCode.BUG, "failed"),
    ],
)
def test_an_end_is_told_with_its_code(code: ExitCode, state: str) -> None:
    beat = Teller(ABOUT).beat(running(), at(0), code=code)
    assert (beat.state, beat.code) == (state, int(code))


def test_since_when_is_that_of_the_last_change() -> None:
    teller = Teller(ABOUT)
    assert teller.beat(running(FREE), at(1)).since == WALL + 1
    assert teller.beat(running(FREE), at(9)).since == WALL + 1
    assert teller.beat(running(SILENT), at(12)).since == WALL + 12


def test_the_rate_is_that_of_the_last_minute_and_says_what_is_left() -> None:
    teller = Teller(ABOUT)
    for second in range(0, 300, 5):
        beat = teller.beat(running(FREE, ok=second // 5, answered=second // 5), at(second))
    assert beat.rate == pytest.approx(0.2)
    assert beat.left_s == pytest.approx((100 - 59) / 0.2)
    for second in range(300, 400, 5):
        beat = teller.beat(running(FREE, ok=59, answered=59), at(second))
    assert (beat.rate, beat.left_s) == (0.0, None)
    beat = teller.beat(running(SILENT, ok=80, answered=80), at(400))
    assert beat.rate is not None
    assert beat.rate > 0
    assert beat.left_s is None  # whoever waits cannot tell


def test_outcomes_that_wait_for_their_commit_are_told_with_how_long_but_not_on_a_full_disk() -> None:
    teller = Teller(ABOUT)
    assert teller.beat(running(committed=5, unsaved=2), at(0)).unsaved_s == 0
    assert teller.beat(running(committed=5, unsaved=9), at(40)).unsaved_s == 40
    assert teller.beat(running(committed=6, unsaved=8), at(50)).unsaved_s == 0
    assert teller.beat(running(committed=6, unsaved=8, patient_until_s=2e3), at(90)).unsaved_s == 0
    assert teller.beat(running(committed=6, unsaved=8), at(95)).unsaved_s == 5
    assert teller.beat(running(committed=6, unsaved=0), at(99)).unsaved_s == 0


def test_a_beat_stays_small_however_many_lanes_there_are() -> None:
    lane = replace(RESTING, name="n" * 64, reason="r" * 60, rpm=123_456.0, tpm=1e9, answered=10**7)
    beat = Teller(replace(ABOUT, job="j" * 5_000)).beat(running(*[lane] * 300), at(0))
    assert (len(beat.lanes), beat.more_lanes) == (24, 276)
    assert len(encoded(beat)) <= 12_288


class Rig:
    def __init__(self, **limits: float) -> None:
        self.clock = SteppedClock(START_S, WALL)
        window = Window(8)
        self.lane = Lane(
            0,
            LaneInfo("one", "custom", "m", False),
            ScriptedProvider(echo),
            "/x",
            encode_content,
            judge_echo,
            LaneLimits(clock=self.clock, window=window, **limits),
            window,
            Health(21_600.0),
            OutputSize(50),
            LaneStats("one", "custom", "m"),
            Latency(),
        )

    def beat(self) -> LaneBeat:
        return lane_beat(self.lane, Moment(self.clock.wall_s(), self.clock.monotonic_s()))

    def fail(self, failure: Failure, times: int) -> None:
        for _ in range(times):
            now_s = self.clock.monotonic_s()
            self.lane.health.note_failure(failure, sent_s=now_s, now_s=now_s)


def test_a_lane_that_nothing_holds_back_runs() -> None:
    rig = Rig()
    rig.lane.stats.in_flight, rig.lane.stats.answered = 2, 5
    beat = rig.beat()
    assert (beat.state, beat.until, beat.in_flight, beat.at_once, beat.answered) == ("running", None, 2, 8, 5)


def test_a_lane_whose_provider_asked_for_silence_waits_until_it_is_over() -> None:
    rig = Rig()
    rig.lane.limits.quiet(3_600)
    rig.clock.advance(100)
    beat = rig.beat()
    assert (beat.state, beat.until) == ("waiting", WALL + 3_600)
    rig.clock.advance(3_500)
    assert rig.beat().state == "running"


def test_a_lane_that_fails_rests_and_is_then_probed_and_its_messages_are_not_told() -> None:
    rig = Rig()
    rig.fail(BAD, TRIP_AFTER)
    beat = rig.beat()
    assert (beat.state, beat.reason) == ("resting", "it fails (server_error, HTTP 500)")
    assert beat.until == WALL + FIRST_REST_S
    rig.clock.advance(FIRST_REST_S)
    rig.lane.health.wake(rig.clock.monotonic_s())
    assert rig.beat().state == "probing"


def test_a_dead_lane_says_what_killed_it_by_its_class() -> None:
    rig = Rig()
    rig.fail(Failure(Action.ELSEWHERE, FailureCode.CREDENTIALS, "no key sk-1", 401, lane_is_dead=True), 1)
    beat = rig.beat()
    assert (beat.state, beat.reason, beat.until) == ("dead", "credentials, HTTP 401", None)


def test_a_lane_with_few_requests_a_minute_is_paced_until_its_next_one() -> None:
    rig = Rig(rpm=1)
    limits, now_s = rig.lane.limits, rig.clock.monotonic_s()
    assert rig.beat().state == "running"
    limits.take(limits.reserve(1, 1, now_s), now_s)
    beat = rig.beat()
    assert (beat.state, beat.reason, beat.rpm) == ("paced", "its limit of requests a minute", 1)
    assert beat.until is not None
    assert 55 < beat.until - WALL < 65


def test_a_lane_whose_next_request_waits_for_tokens_is_paced_too() -> None:
    rig = Rig(tpm=600)
    rig.lane.tokens_at_s = START_S + 40
    beat = rig.beat()
    assert (beat.state, beat.reason) == ("paced", "its limit of tokens a minute")
    assert beat.until == WALL + 40
