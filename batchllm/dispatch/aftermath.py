"""What follows a failed attempt: the lane's health, the request's next way, the record of rows given up.

A row that only one lane may answer (`routing: all`) outlives that lane: it gets no outcome, and a later start asks it.

No waiting happens here; a backoff is a timer that puts the request back on the board.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchllm.dispatch.endings import Ending, no_lane_left
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.outcomes import failed_records
from batchllm.dispatch.polls import Polling, Polls
from batchllm.dispatch.work import Board, Work
from batchllm.errors import ExitCode
from batchllm.events import RunStats
from batchllm.fallback import LaneState, is_about_lane, remaining
from batchllm.limit.lane_limits import Sent
from batchllm.plan import halves
from batchllm.provider.refusals import refused_limit
from batchllm.records import (
    LANE_TROUBLE,
    Action,
    Failure,
    FailureCode,
    JournalRecord,
    Request,
    RowFailed,
)
from batchllm.retry import Next, RetryPolicy, decide

#: The first so many rows all refused the same way: the job is wrong, not the rows.
SAME_FAULT_ROWS = 20
#: After a failure another lane is preferred for this long.
PREFER_OTHER_S = 1.0
_LAST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class FailedCall:
    """One attempt that failed, with what is known of it."""

    lane: Lane
    work: Work
    failure: Failure
    sent: Sent
    tokens: float
    now_s: float
    was_probe: bool


class Aftermath:
    def __init__(  # noqa: PLR0913 - the loop's parts, each for itself
        self,
        lanes: Sequence[Lane],
        board: Board,
        *,
        put: Callable[[Sequence[JournalRecord]], None],
        policy: RetryPolicy,
        stats: RunStats,
        dice: random.Random,
        stop: Callable[[Ending], None],
        polling: Polling | None = None,
    ) -> None:
        self._lanes = lanes
        self._board = board
        self._put = put
        self._policy = policy
        self._stats = stats
        self._dice = dice
        self._stop = stop
        self._timers: set[asyncio.TimerHandle] = set()
        self._same_fault = 0
        #: Lane → answers that nobody will give in this run, since the lane is dead and has its rows for itself.
        self.owed: dict[int, int] = {}
        self.polls: Polls | None = None
        if polling is not None:
            self.polls = Polls(polling, lanes, stats, add=board.add, owe=lambda lane: self._owe(lane, 1))

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def follow(self, call: FailedCall) -> None:
        """Decide what becomes of the request, and do it."""
        lane, work, failure = call.lane, call.work, call.failure
        work.last_failure = failure
        work.content = failure.content or work.content
        work.last_lane = lane.index
        work.causes[lane.info.name] = f"{lane.info.name}: {failure.message}"
        counted = work.tries.counted
        work.tries.note(failure, was_probe=call.was_probe)
        if work.tries.counted > counted:
            work.note_fall(lane.index)
            lane.streak.append(work.tries)
        self._note_health(call)
        _forgive_rows_of_a_failing(lane)
        is_dead = lane.health.state is LaneState.DEAD
        if is_dead and work.pinned is not None and is_about_lane(failure):
            self._leave_open(lane, work)
        else:
            self._move_on(call)
        if is_dead:
            self._bury(lane)

    def _move_on(self, call: FailedCall) -> None:
        work = call.work
        decision = decide(call.failure, work.tries, len(work.request.rows), self._policy, self._dice.random())
        match decision.next:
            case Next.SPLIT:
                self._split(work)
            case Next.GIVE_UP:
                self._give_up(work, call.lane)
            case Next.ELSEWHERE:
                self._elsewhere(work, call.lane)
            case Next.AGAIN:
                work.request = call.lane.reask(work.request, call.failure)
                self._again(work, decision.after_s)

    def pass_on(self, lane: Lane, work: Work) -> None:
        """The prompt is larger than a whole minute of this lane: nothing is sent, another lane may take it."""
        limit = lane.limits.tpm or 0
        tokens = work.request.prompt_tokens
        message = (
            f"about {tokens:,} prompt tokens, and the lane's limit is {limit:,.0f} a minute"
            " (shorten the row, or raise limits.tpm if the provider allows more)"
        )
        work.last_failure = Failure(Action.ELSEWHERE, FailureCode.TOO_LARGE, message)
        work.causes[lane.info.name] = f"{lane.info.name}: {message}"
        if len(work.request.rows) > 1:
            self._split(work)
        else:
            self._elsewhere(work, lane)

    def give_back(self, work: Work) -> None:
        """A lane took it and cannot send it now. The lanes that could may have died since."""
        if self._is_lost(work):
            self._end_lost(work)
        else:
            self._board.give_back(work)

    def record_failed(self, records: Sequence[JournalRecord], *, units: int = 1) -> None:
        """Each record is so many units of work: a row that no lane was asked for is as many as it has slots."""
        self._put(records)
        for record in records:
            if isinstance(record, RowFailed):
                by_class = self._stats.failures_by_class
                self._stats.failed += units
                by_class[record.code] = by_class.get(record.code, 0) + units
                self._stats.last_failures.append(f"row {record.row.ordinal}: {record.message}")
        del self._stats.last_failures[:-_LAST_FAILURES]

    def leave_open(self, lane: Lane, request: Request) -> None:
        """The lane that had it for itself is dead. No outcome is recorded: a later start asks it."""
        self._owe(lane.index, len(request.rows))

    def _owe(self, lane: int, answers: int) -> None:
        self.owed[lane] = self.owed.get(lane, 0) + answers

    def _note_health(self, call: FailedCall) -> None:
        lane, failure = call.lane, call.failure
        if failure.code is FailureCode.RATE_LIMIT:
            self._note_refusal(call)
        else:
            lane.stats.failed += 1
            lane.limits.note_accepted(call.sent, call.now_s)
            if failure.retry_after_s:
                lane.limits.quiet(failure.retry_after_s)
        if failure.code in LANE_TROUBLE or failure.lane_is_dead:
            lane.health.note_failure(failure, sent_s=call.sent.at_s, now_s=call.now_s)
        elif failure.code is not FailureCode.RATE_LIMIT:
            lane.health.note_answer()
            lane.streak.clear()
        self._board.wake()

    def _note_refusal(self, call: FailedCall) -> None:
        lane, failure = call.lane, call.failure
        lane.stats.refused += 1
        named = refused_limit(failure.message)
        refused = lane.limits.refuse(
            failure, call.sent, call.tokens, call.now_s, scope=named.scope, named=named.hint
        )
        if refused.silence_s:
            lane.limits.quiet(refused.silence_s)
        if refused.is_news:
            lane.health.note_refusal(
                failure, now_s=call.now_s, silence_s=refused.silence_s, goes_on=refused.goes_on
            )

    def _leave_open(self, lane: Lane, work: Work) -> None:
        if self.polls is None:
            self.leave_open(lane, work.request)
        elif records := self.polls.lose(work):
            self._put(records)
        self._board.finish()

    def _split(self, work: Work) -> None:
        parts = [Work(half, work.pinned, work.sample) for half in halves(work.request)]
        for part in parts:
            part.excluded = work.excluded
            part.tries = work.tries.copy()
            part.overdue = work.overdue
            part.causes = dict(work.causes)
            part.last_failure = work.last_failure
        self._board.replace(parts)

    def _elsewhere(self, work: Work, lane: Lane) -> None:
        work.excluded |= {lane.index}
        if not remaining(self._lanes, frozenset()):
            self._board.give_back(work)  # the run is about to stop; the row stays pending
        elif work.pinned is not None or not remaining(self._lanes, work.excluded):
            self._give_up(work, lane)
        else:
            self._board.return_failed(work)

    def _again(self, work: Work, after_s: float) -> None:
        def back() -> None:
            if self._is_lost(work):  # its lanes died during the wait
                self._end_lost(work)
                return
            self._board.return_failed(work)
            self._later(PREFER_OTHER_S, forget)

        def forget() -> None:
            work.last_lane = None
            self._board.wake()

        self._later(after_s, back)

    def _later(self, after_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(after_s, act)
        self._timers.add(timer)

    def _give_up(self, work: Work, lane: Lane | None) -> None:
        failure = work.last_failure
        if failure is None:
            raise ValueError("a request is given up only after a failure")
        if not failure.content and len(work.request.rows) == 1:
            failure = failure._replace(content=work.content)  # of an earlier call: it was paid for, too
        records = failed_records(
            work.request,
            failure,
            lane=None if lane is None else lane.index,
            attempts=work.tries.sent,
            causes=list(work.causes.values()),
            sample=work.sample,
        )
        self.record_failed(records if self.polls is None else [*records, *self.polls.fail(work)])
        self._board.finish()
        self._note_same_fault(failure, len(work.request.rows))

    def _note_same_fault(self, failure: Failure, rows: int) -> None:
        if self._stats.ok or failure.code not in (FailureCode.INVALID_REQUEST, FailureCode.INTERNAL):
            return
        self._same_fault += rows
        if self._same_fault < SAME_FAULT_ROWS:
            return
        if failure.code is FailureCode.INTERNAL:
            self._stop(
                Ending(
                    ExitCode.SOFTWARE,
                    f"{self._same_fault} rows in a row: {failure.message}",
                    "report it with the message above; finished rows are kept",
                )
            )
        else:
            self._stop(
                Ending(
                    ExitCode.CONFIG,
                    f"the first {self._same_fault} rows were all refused as invalid: {failure.message}",
                    "correct the job's model or params",
                )
            )

    def _bury(self, lane: Lane) -> None:
        """A lane is dead: rows that only it could answer end with it; with no lane left the run stops."""
        lane.stats.state, lane.stats.reason = "dead", lane.health.reason
        if not remaining(self._lanes, frozenset()):
            self._stop(no_lane_left(self._lanes))
            return
        for work in self._board.sweep(self._is_lost):
            self._end_lost(work)
        self._board.wake()

    def _is_lost(self, work: Work) -> bool:
        """No lane is left for this one. With no lane left for any the run stops, and what waits stays pending."""
        if not remaining(self._lanes, frozenset()):
            return False
        if work.pinned is not None:
            return self._lanes[work.pinned].health.state is LaneState.DEAD
        return not remaining(self._lanes, work.excluded)

    def _end_lost(self, work: Work) -> None:
        if work.pinned is not None:
            self._leave_open(self._lanes[work.pinned], work)
            return
        for lane in self._lanes:
            if lane.health.state is LaneState.DEAD:
                failure = _dead_lane(lane)
                work.last_failure = work.last_failure or failure
                work.causes.setdefault(lane.info.name, f"{lane.info.name}: {failure.message}")
        self._give_up(work, None)


def _dead_lane(lane: Lane) -> Failure:
    killer = lane.health.killer
    return Failure(
        Action.GIVE_UP,
        FailureCode.LANE_DEAD,
        f"the lane {lane.info.name} was given up: {lane.health.reason}",
        status=None if killer is None else killer.status,
    )


def _forgive_rows_of_a_failing(lane: Lane) -> None:
    """An outage shows itself by failing several requests in a row: none of them has had its attempt for that.

    One request that fails alone is no outage, however often it does; one that was out when others showed it is.
    """
    if lane.health.state not in (LaneState.RESTING, LaneState.DEAD):
        return
    several = list({id(tries): tries for tries in lane.streak}.values())
    is_straggler = lane.outage_s == lane.health.changed_s
    if len(several) > 1 or is_straggler or lane.health.state is LaneState.DEAD:
        for tries in several:
            tries.forgive()
        lane.outage_s = lane.health.changed_s
        lane.streak.clear()
