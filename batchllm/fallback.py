"""Which lanes may take a request, and whether a lane is fit to be asked.

A lane that fails several times in a row rests; then one request at a time probes it, and the first success
revives it. Failures of calls that were sent before the rest began say nothing new and are ignored, so that a
thousand calls in flight make one rest and not a thousand. Pure: the time is an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from batchllm.records import LANE_TROUBLE, Failure, FailureCode

#: Failures in a row that open the breaker. At 5 % of errors that happens by chance once in three million calls.
TRIP_AFTER = 5
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
#: A lane that never answered is given up this long after its first failure: a wrong URL should not wait for hours.
FIRST_CONTACT_S = 30.0
#: A fallback lane steps in when the one before it is silenced for longer than this.
PATIENT_QUIET_S = 5.0


class LaneState(StrEnum):
    RUNNING = "running"
    RESTING = "resting"
    PROBING = "probing"
    DEAD = "dead"


#: What each request asks of: a member of an enumeration is looked up by a call.
_RUNNING, _RESTING, _PROBING, _DEAD = LaneState


@dataclass(slots=True)
class Health:
    """One lane's breaker."""

    patience_s: float
    state: LaneState = LaneState.RUNNING
    reason: str = ""
    killer: Failure | None = None
    trouble: Failure | None = None  # what the last rest is for
    rest_until_s: float = 0.0
    changed_s: float = float("-inf")  # calls sent before this know nothing of what has changed
    _in_a_row: int = 0
    _rests: int = 0
    _refuses_on: bool = False
    _refused_since_s: float | None = None
    _longest_silence_s: float = 0.0
    _down_since_s: float | None = None
    _has_answered: bool = False

    def note_success(self) -> None:
        self._refuses_on = False
        self._refused_since_s = None
        self._longest_silence_s = 0.0
        self.note_answer()

    def note_answer(self) -> None:
        """The lane answers, be it with a refusal of this one request."""
        self._has_answered = True
        self._in_a_row = self._rests = 0
        self._down_since_s = None
        if self.state is not _RUNNING and self.state is not _DEAD:
            self.state = _RUNNING
            self.reason = ""

    def note_failure(self, failure: Failure, *, sent_s: float, now_s: float) -> None:
        if self.state is LaneState.DEAD:
            return
        if failure.lane_is_dead:
            self._die(failure)
        elif (
            failure.code in LANE_TROUBLE and self.state is not LaneState.RESTING and sent_s >= self.changed_s
        ):
            self._note_trouble(failure, now_s)

    def note_refusal(self, failure: Failure, *, now_s: float, silence_s: float, goes_on: bool) -> None:
        """A refusal by a rate limit that was new, and the silence that follows; `goes_on`: it came right after one.

        Somebody is there, but the lane has not answered: a rest goes on, and so does the probing after it. A lane
        that refuses everything for its patience, and longer than any silence it asked for, is given up.
        """
        self._has_answered = True
        self._in_a_row = 0
        self._down_since_s = None
        if self.state in (LaneState.RESTING, LaneState.DEAD):
            return
        self.changed_s = now_s
        self._refuses_on = goes_on
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        elif now_s - self._refused_since_s >= self.patience_s + self._longest_silence_s:
            self._die(failure)
        self._longest_silence_s = max(self._longest_silence_s, silence_s)

    @property
    def is_up(self) -> bool:
        """Whether requests may go, be it one at a time."""
        state = self.state
        return state is _RUNNING or state is _PROBING

    @property
    def wants_one_at_a_time(self) -> bool:
        """While a rest is tried for its end, or refusals go on after a silence: the first answer opens it again."""
        return self.state is _PROBING or self._refuses_on

    def wake(self, now_s: float) -> None:
        """When the rest is over the lane is probed."""
        if self.state is _RESTING and now_s >= self.rest_until_s:
            self.state = _PROBING
            self.changed_s = now_s

    def rest_s(self, now_s: float) -> float:
        return max(0.0, self.rest_until_s - now_s) if self.state is LaneState.RESTING else 0.0

    def _note_trouble(self, failure: Failure, now_s: float) -> None:
        self._in_a_row += 1
        if self._down_since_s is None:
            self._down_since_s = now_s
        patience_s = self.patience_s if self._has_answered else min(FIRST_CONTACT_S, self.patience_s)
        if self.state is LaneState.PROBING or self._in_a_row >= TRIP_AFTER:
            if now_s - self._down_since_s >= patience_s:
                self._die(failure)
                return
            self.state = LaneState.RESTING
            self.reason, self.trouble = failure.message, failure
            self.rest_until_s = now_s + min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self._rests, 10))
            self._rests += 1
            self.changed_s = now_s

    def _die(self, failure: Failure) -> None:
        self.state = LaneState.DEAD
        self.reason = failure.message
        self.killer = failure


class Candidate(Protocol):
    """What choosing needs to know of a lane."""

    @property
    def health(self) -> Health: ...
    @property
    def quiet_s(self) -> float: ...


def is_available(lane: Candidate) -> bool:
    """Could this lane take a request within a few seconds? One that is probed has its one request already."""
    return lane.health.state is LaneState.RUNNING and lane.quiet_s <= PATIENT_QUIET_S


def is_open_to(lane: int, lanes: Sequence[Candidate], *, excluded: frozenset[int], in_order: bool) -> bool:
    """May `lane` take a request that is not for the `excluded` ones? With `in_order`, only when none before it can."""
    if lane in excluded or lanes[lane].health.state is _DEAD:
        return False
    if not in_order:
        return True
    return not any(is_available(lanes[other]) for other in range(lane) if other not in excluded)


def remaining(lanes: Sequence[Candidate], excluded: frozenset[int]) -> list[int]:
    """Lanes that could still answer a request, now or later."""
    return [
        index
        for index, lane in enumerate(lanes)
        if index not in excluded and lane.health.state is not LaneState.DEAD
    ]


def is_credentials(failure: Failure | None) -> bool:
    return failure is not None and failure.code is FailureCode.CREDENTIALS


def is_about_lane(failure: Failure) -> bool:
    """Does it speak of the lane, and say nothing of the request that met it?"""
    return failure.lane_is_dead or failure.code in LANE_TROUBLE or failure.code is FailureCode.RATE_LIMIT
