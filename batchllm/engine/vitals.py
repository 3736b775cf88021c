"""What a run knows of itself at one moment → what its heartbeat says. Pure: the moment is an argument."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from batchllm.dispatch import Lane
from batchllm.errors import ExitCode
from batchllm.events import Rates
from batchllm.fallback import LaneState
from batchllm.journal.heartbeat import Beat, LaneBeat
from batchllm.records import Failure

#: A lane that waits for less is one that keeps to its pace.
_WORTH_TELLING_S = 1.0
_RATE_WINDOW_S = 60.0
#: Beats are a few KiB, however many lanes there are.
_MOST_LANES = 24
_MOST_NAME_CHARS = 120
_STATES = {"running": "running", "draining": "draining", "agreeing": "agreeing"}
_REASONS = {"reading": "reading the input", "agreeing": "what the answers agree on is worked out"}


class Moment(NamedTuple):
    """The same on both clocks."""

    wall: float
    monotonic_s: float

    def at(self, monotonic_s: float) -> float:
        """On the wall clock."""
        return self.wall + monotonic_s - self.monotonic_s


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of a run, at one moment. `committed` records of it are, `unsaved` ones wait; `answered` is its own count of units
    that were dealt with. `patient_until_s`: when it ends for want of space on the disk, None while there is enough.
    """

    phase: str = "starting"
    slots: int = 1
    total: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    answered: int = 0
    cost_usd: float | None = None
    spent_usd: float | None = None
    budget_usd: float | None = None
    reserved_usd: float | None = None
    in_flight: int = 0
    lanes: Sequence[LaneBeat] = ()
    committed: int = 0
    unsaved: int = 0
    patient_until_s: float | None = None
    drain_timeout_s: float | None = None
    turned_s: float | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What stays the same for a whole run."""

    job: str
    version: str
    pid: int
    host: str
    boot: str
    started: float


class Teller:
    """Told of a run's vitals again and again, it says since when things are as they are, and how fast they go."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._rates = Rates(_RATE_WINDOW_S)
        self._state = ""
        self._since = about.started
        self._committed = -1
        self._committed_s = 0.0

    def beat(self, vitals: Vitals, now: Moment, *, code: ExitCode | None = None) -> Beat:
        """`code`: how the run ended."""
        state, reason = _state(vitals) if code is None else (_ending(code), "")
        if state != self._state:
            self._state, self._since = state, now.wall
        rate = self._rates.note(now.monotonic_s, vitals.answered)
        left = max(0, vitals.total - vitals.ok - vitals.failed - vitals.skipped)
        return Beat(
            job=self._about.job[:_MOST_NAME_CHARS],
            version=self._about.version,
            pid=self._about.pid,
            host=self._about.host,
            boot=self._about.boot,
            started=self._about.started,
            state=state,
            since=self._since,
            written=now.wall,
            written_s=now.monotonic_s,
            reason=reason,
            until=self._until(state, vitals, now),
            turned_s=vitals.turned_s,
            code=None if code is None else int(code),
            slots=vitals.slots,
            total=vitals.total,
            ok=vitals.ok,
            failed=vitals.failed,
            skipped=vitals.skipped,
            rate=rate,
            left_s=left / rate if rate > 0 and state == "running" else None,
            cost_usd=vitals.cost_usd,
            spent_usd=vitals.spent_usd,
            budget_usd=vitals.budget_usd,
            reserved_usd=vitals.reserved_usd,
            unsaved=vitals.unsaved,
            unsaved_s=self._unsaved_s(vitals, now.monotonic_s),
            in_flight=vitals.in_flight,
            simulated=vitals.simulated,
            lanes=tuple(vitals.lanes[:_MOST_LANES]),
            more_lanes=max(0, len(vitals.lanes) - _MOST_LANES),
        )

    def _until(self, state: str, vitals: Vitals, now: Moment) -> float | None:
        if state == "draining" and vitals.drain_timeout_s is not None:
            return self._since + vitals.drain_timeout_s
        if state == "paused" and vitals.patient_until_s is not None:
            return now.at(vitals.patient_until_s)
        if state == "waiting":
            return min((lane.until for lane in vitals.lanes if lane.until is not None), default=None)
        return None

    def _unsaved_s(self, vitals: Vitals, now_s: float) -> float:
        """For how long nothing was committed that waits for it; a disk that is known to be full has its own reason."""
        has_moved = vitals.committed != self._committed
        if has_moved or not vitals.unsaved or vitals.patient_until_s is not None:
            self._committed, self._committed_s = vitals.committed, now_s
        return now_s - self._committed_s


def _state(vitals: Vitals) -> tuple[str, str]:
    """What the run does, and why it waits if it does."""
    phase = vitals.phase
    if phase in ("starting", "reading"):
        return "starting", _REASONS.get(phase, "")
    if vitals.patient_until_s is not None and phase in ("running", "finishing"):
        return "paused", "the disk is full"
    if phase == "running" and _all_wait(vitals):
        return "waiting", _first_reason(vitals.lanes)
    return _STATES.get(phase, "writing"), _REASONS.get(phase, "")


def _all_wait(vitals: Vitals) -> bool:
    alive = [lane for lane in vitals.lanes if lane.state != "dead"]
    return not vitals.in_flight and bool(alive) and all(lane.until is not None for lane in alive)


def _first_reason(lanes: Sequence[LaneBeat]) -> str:
    """Of the lane that is the first to go on."""
    first = min((lane for lane in lanes if lane.until is not None), key=lambda lane: lane.until or math.inf)
    return f"{first.name}: {first.reason}"


def _ending(code: ExitCode) -> str:
    if code in (ExitCode.OK, ExitCode.ROWS_FAILED):
        return "done"
    stopped = (ExitCode.LIMIT_STOPPED, ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    return "stopped" if code in stopped else "failed"


def lane_beat(lane: Lane, now: Moment) -> LaneBeat:
    """What one lane does. Only reads, each value once: callable from any thread while the lane works."""
    state, reason, until_s = _lane_state(lane, now.monotonic_s)
    stats, window = lane.stats, lane.window
    return LaneBeat(
        name=lane.info.name,
        state=state,
        reason=reason,
        until=None if until_s is None else now.at(until_s),
        in_flight=stats.in_flight,
        at_once=window.size if window.learned is None else min(window.size, window.learned),
        rpm=lane.limits.rpm,
        tpm=lane.limits.tpm,
        answered=stats.answered,
        refused=stats.refused,
        failed=stats.failed,
    )


def _lane_state(lane: Lane, now_s: float) -> tuple[str, str, float | None]:
    health, quiet_until_s = lane.health, now_s + lane.quiet_s
    if health.state is LaneState.DEAD:
        return "dead", _class_of(health.killer), None
    if health.state is LaneState.RESTING and health.rest_until_s >= quiet_until_s:
        return "resting", f"it fails ({_class_of(health.trouble)})", max(now_s, health.rest_until_s)
    if quiet_until_s > now_s:
        return "waiting", "the provider asked for silence", quiet_until_s
    if health.state is LaneState.PROBING:
        return "probing", f"it failed ({_class_of(health.trouble)})", None
    next_s = max(lane.limits.next_s, lane.tokens_at_s)
    if next_s - now_s > _WORTH_TELLING_S:
        what = "tokens" if lane.tokens_at_s == next_s else "requests"
        return "paced", f"its limit of {what} a minute", next_s
    return "running", "", None


def _class_of(failure: Failure | None) -> str:
    """Its class and status, and not its message, which may repeat what was asked."""
    if failure is None:
        return "unknown"
    return f"{failure.code}, HTTP {failure.status}" if failure.status else str(failure.code)
