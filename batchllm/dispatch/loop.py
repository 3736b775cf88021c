"""The loop that moves requests.

Each lane has one pump. It waits, in this order, for room in the window, for the lane to be fit and not silenced,
for there to be something to send, for its turn under the requests limit, and for the request's tokens; then it
starts the call as a task of its own and looks for the next one. A request is chosen only after the lane has been
admitted, so that no lane sits on a request that another could send; and a lane asks to be admitted only when there
is one, since an admission that is kept for later would be a burst then. Everything that decides is called with values;
this module waits, and `admission` for it until a request may go.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from batchllm.budget import Budget
from batchllm.clock import Clock
from batchllm.dispatch.admission import LONGEST_NAP_S, SHORTEST_NAP_S, Admission
from batchllm.dispatch.aftermath import Aftermath, FailedCall
from batchllm.dispatch.calls import Calls, Out
from batchllm.dispatch.endings import Ending, all_dealt_with
from batchllm.dispatch.exposure import Exposure
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.outcomes import CallFacts, attempt_record, cost_of, done_records
from batchllm.dispatch.polls import Polling
from batchllm.dispatch.safety import Safety
from batchllm.dispatch.work import Board, Work
from batchllm.errors import BatchllmError
from batchllm.events import RunStats
from batchllm.fallback import LaneState
from batchllm.limit.bucket import Reservation
from batchllm.limit.lane_limits import Sent
from batchllm.ports import Recorder
from batchllm.records import (
    Action,
    Billed,
    Failure,
    FailureCode,
    JournalRecord,
    Reading,
    Request,
    Response,
    RowFailed,
)
from batchllm.retry import RetryPolicy

#: How often calls are looked at that take too long. Late by more than the second figure, the process stood still.
_LOOK_EVERY_S = 1.0
_STOOD_STILL_S = 5.0
_TOO_MANY, _FIRST_ERROR = 429, 300
#: Rows that may wait for a lane beside what is in flight: packed requests hold up to 2,048 of them each.
_WAITING_ROWS = 512
_LEAST_WAITING = 8
#: So many bytes of a request (it may hold images) take the place of one row. Of requests that take the place of so
#: many, only the least number waits beside those in flight.
_WAITING_BYTES, _HEAVY = 64 * 1024, 16

FeedBatch = Sequence[Request | RowFailed]


class Portion(NamedTuple):
    """The part of a request that is still to be answered: by this lane (None: by any), as its so many-th sample."""

    lane: int | None
    request: Request
    sample: int = 0


#: For a request, each answer that it wants.
Spreading = Callable[[Request], Sequence[Portion]]


def _silence(_text: str) -> None:
    """Says nothing."""


class Dispatcher:
    """Moves what `run` is fed through `lanes` into `recorder`.

    `spreading` is given where a row gets several answers, `slots` of them; without it one lane answers a request, any
    one, or the first fit one when `in_order`. With `polling` no more of them are asked than a row's vote needs.
    """

    def __init__(  # noqa: PLR0913 - the loop's parts are passed in, each for itself
        self,
        lanes: Sequence[Lane],
        *,
        recorder: Recorder,
        policy: RetryPolicy,
        stats: RunStats,
        clock: Clock,
        in_order: bool = False,
        budget: Budget | None = None,
        spreading: Spreading | None = None,
        slots: int = 1,
        polling: Polling | None = None,
        dice: random.Random | None = None,
        say: Callable[[str], None] = _silence,
    ) -> None:
        self._lanes = lanes
        self._say = say
        self._recorder = recorder
        self._stats = stats
        self._clock = clock
        self._spreading = spreading
        self._slots = slots
        self._board = Board(lanes, in_order=in_order)
        self._aftermath = Aftermath(
            lanes,
            self._board,
            policy=policy,
            stats=stats,
            dice=dice or random.Random(),  # noqa: S311 - jitter, not secrets
            stop=self.stop,
            put=self._put,
            polling=polling,
        )
        self._polls = self._aftermath.polls
        self._calls = Calls(self._note_crash)
        self._exposure = Exposure(recorder, sum(lane.window.most for lane in lanes), budget)
        self._admission = Admission(
            lanes,
            self._board,
            self._aftermath,
            self._exposure,
            budget=budget,
            clock=clock,
            in_flight=lambda: len(self._calls),
            stop=self.stop,
        )
        self._safe = Safety(self._exposure)
        recorder.watch(self._note_committed)
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Future[Ending] | None = None

    async def run(self, feed: AsyncIterator[FeedBatch]) -> Ending:
        """Until all that `feed` yields has been dealt with, or nothing more can be done, or `stop` is called."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        for lane in self._lanes:
            lane.limits.watch(self._board.wake)
        tasks = [asyncio.create_task(self._feed(feed))]
        tasks.append(asyncio.create_task(self._watch_record()))
        tasks.append(asyncio.create_task(self._watch_time()))
        tasks += [asyncio.create_task(self._pump(lane)) for lane in self._lanes]
        for task in tasks:
            task.add_done_callback(self._note_crash)
        try:
            return await self._ended
        finally:
            self._board.close()
            self._aftermath.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self, ending: Ending) -> None:
        """Send nothing more. Calls in flight go on: wait for them with `drain`."""
        self._board.close()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ending)

    async def drain(self, timeout_s: float) -> int:
        """Wait for the calls in flight; returns how many were left and have been abandoned."""
        await self._calls.drain(timeout_s)
        return await self._calls.abandon()

    async def abandon(self) -> int:
        """Cancel the calls in flight; returns how many there were."""
        return await self._calls.abandon()

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def calls(self) -> list[Out]:
        """Those in flight, the oldest first."""
        return self._calls.table(self._clock.monotonic_s())

    @property
    def outstanding(self) -> int:
        """Requests that were fed and are still to have their outcome in this run."""
        return self._board.outstanding

    @property
    def owed(self) -> int:
        """Answers that lanes left open when they died, with routing `all`."""
        return sum(self._aftermath.owed.values())

    async def _watch_record(self) -> None:
        """Meet an error of the record even when all else waits for places that only a commit gives back."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._recorder.room()

    async def _watch_time(self) -> None:
        """Give up calls that take far longer than any before, and notice when the process itself stood still."""
        while True:
            before_s = self._clock.monotonic_s()
            await asyncio.sleep(_LOOK_EVERY_S)
            now_s = self._clock.monotonic_s()
            late_s = now_s - before_s - _LOOK_EVERY_S
            for lane in self._lanes:
                lane.limits.tick(now_s, is_asking=self._board.has_waiting(lane.index))
            if late_s > _STOOD_STILL_S:
                self._wake_up(late_s, now_s)
            elif late_s < _LOOK_EVERY_S:  # else replies may lie unread
                self._calls.end_overdue(now_s)

    def _wake_up(self, late_s: float, now_s: float) -> None:
        """Stopped by a signal, or the machine slept: what could have gone meanwhile does not go now."""
        for lane in self._lanes:
            lane.limits.restart(now_s)
            lane.provider.drop_idle()
        self._say(f"the process stood still for {late_s:.0f} s; limits start anew")

    def _note_committed(self, records: int) -> None:
        self._safe.note_committed(records)
        self._news.set()

    async def _feed(self, feed: AsyncIterator[FeedBatch]) -> None:
        widest, largest = 1, 0
        async for batch in feed:
            for item in batch:
                if isinstance(item, RowFailed):
                    self._aftermath.record_failed([item], units=self._slots)
                else:
                    widest = max(widest, len(item.rows))
                    largest = max(largest, item.size)
                    self._add(item)
            await self._recorder.room()
            await self._board.below(self._most_waiting(widest, largest // _WAITING_BYTES))
        await self._board.below(1)
        self.stop(all_dealt_with(self._lanes, self._aftermath.owed))

    def _most_waiting(self, rows: int, weight: int) -> int:
        """Requests that may be outstanding, of so many rows or of such a weight: contents lie in memory."""
        calls = len(self._calls)
        ahead = calls if weight < _HEAVY else 0
        return max(_WAITING_ROWS // max(rows, weight), _LEAST_WAITING) + calls + ahead

    def _add(self, request: Request) -> None:
        if self._polls is not None:
            if records := self._polls.begin(request):
                self._put(records)
            return
        if self._spreading is None:
            self._board.add(Work(request))
            return
        for lane, part, sample in self._spreading(request):
            if lane is not None and self._lanes[lane].health.state is LaneState.DEAD:
                self._aftermath.leave_open(self._lanes[lane], part)
            else:
                self._board.add(Work(part, lane, sample))

    async def _pump(self, lane: Lane) -> None:
        board = self._board
        while await self._admission.is_fit(lane):
            if not board.has_waiting(lane.index):
                await board.has_for(lane.index)
                continue  # the lane may have changed meanwhile
            wait_s = lane.limits.wait_s(self._clock.monotonic_s())
            if wait_s > 0:
                await asyncio.sleep(min(max(wait_s, SHORTEST_NAP_S), LONGEST_NAP_S))
                continue
            if not self._recorder.has_room:
                lane.stats.state, lane.stats.reason = "waiting", "the disk takes no more at the moment"
                await self._recorder.room()
                continue
            work = board.take(lane.index)
            if work is None:
                continue
            made = await self._admission.ready(lane, work)
            if made is not None:
                self._start(lane, work, made)

    def _start(self, lane: Lane, work: Work, made: Reservation) -> None:
        now_s = self._clock.monotonic_s()
        lane.window.enter()
        self._exposure.enter(work.cost)
        lane.stats.in_flight = lane.window.in_flight
        lane.newest, lane.newest_s = work, now_s
        sent = lane.limits.take(made, now_s)
        self._calls.start(self._call(lane, work, made, sent), lane, work, now_s, self._loop)

    async def _call(self, lane: Lane, work: Work, made: Reservation, sent: Sent) -> None:
        request = work.request
        started_at = self._clock.wall_s()
        was_probe = lane.health.state is LaneState.PROBING
        lane.stats.sent += 1
        work.tries.sent += 1
        verdict: Reading | Failure = _ABANDONED
        try:
            verdict = await self._exchange(lane, request, sent)
        finally:
            now_s = self._clock.monotonic_s()
            lane.window.land()
            if lane.newest is work:
                lane.newest = None
            tokens = made.tokens
            facts = CallFacts(started_at, now_s - sent.at_s, cost_of(lane, verdict, started_at))
            self._settle(lane, work, verdict, made, facts)
            if isinstance(verdict, Failure):
                self._keep(lane, work, [attempt_record(lane, request, verdict, facts)])
        if isinstance(verdict, Failure):
            self._aftermath.follow(FailedCall(lane, work, verdict, sent, tokens, now_s, was_probe))
            return
        records = done_records(lane, request, verdict, facts, work.tries.sent, work.sample)
        if self._polls is not None:
            records += self._polls.hear(work, verdict.answers[0].value)
        self._keep(lane, work, records)
        lane.limits.note_accepted(sent, now_s)
        lane.latency.learn(facts.latency_s)
        lane.health.note_success()
        lane.streak.clear()
        lane.stats.answered += 1
        self._stats.ok += len(request.rows)
        self._board.finish()

    def _put(self, records: Sequence[JournalRecord]) -> None:
        self._safe.expect(len(records))
        self._recorder.put(records)

    def _keep(self, lane: Lane, work: Work, records: Sequence[JournalRecord]) -> None:
        self._safe.expect_call(len(records), lane, work.cost)
        self._recorder.put(records)

    async def _exchange(self, lane: Lane, request: Request, sent: Sent) -> Reading | Failure:
        billed = Billed.NO
        try:
            body = lane.encode(request)
            billed = Billed.UNKNOWN
            reply = await lane.provider.send(lane.path, body, lane.latency.longest_s)
            if isinstance(reply, Failure):
                return reply
            self._heed(lane, reply, sent)
            return lane.judge(reply, request)
        except (BatchllmError, MemoryError):
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._calls.is_overdue(task):
                return _overdue(self._clock.monotonic_s() - sent.at_s)
            if task is None or task.cancelling():
                raise
            return _CANCELLED  # by the connection, not by us: nobody would ever hear of the request again
        except Exception as error:  # noqa: BLE001 - a bug costs one row and is counted; it must not cost the run
            message = lane.redact(f"bug in batchllm: {type(error).__name__}: {error}")
            return Failure(Action.GIVE_UP, FailureCode.INTERNAL, message, billed=billed)

    def _heed(self, lane: Lane, reply: Response, sent: Sent) -> None:
        """Learn the limits that the provider states; refusals always tell, other replies now and then."""
        now_s = self._clock.monotonic_s()
        if reply.status == _TOO_MANY or lane.limits.wants_hints(now_s):
            hints = lane.read_hints(reply.headers)
            lane.limits.heed(hints, sent, now_s, is_answer=reply.status < _FIRST_ERROR)
            if lane.quiet_s:
                self._board.wake()  # with `in_order`, the next lane steps in
            lane.stats.rpm, lane.stats.tpm = lane.limits.rpm, lane.limits.tpm

    def _settle(
        self, lane: Lane, work: Work, verdict: Reading | Failure, made: Reservation, facts: CallFacts
    ) -> None:
        """Bring the reservations of tokens and money to what the call really took."""
        stats, usage, now_s = lane.stats, verdict.usage, self._clock.monotonic_s()
        stats.in_flight = lane.window.in_flight
        stats.latency_total_s += facts.latency_s
        if verdict.ttft_s is not None:
            stats.ttft.note(verdict.ttft_s)
        if usage is not None and usage.prompt_tokens is not None:
            completion = usage.completion_tokens or 0
            lane.limits.settle(made, usage.prompt_tokens + completion, now_s)
            lane.prompt_size.learn(work.request.prompt_tokens, usage.prompt_tokens)
            if completion:  # 0 is what a refusal has, and what stands for "not told"
                lane.output_size.learn(completion)
            stats.prompt_tokens += usage.prompt_tokens
            stats.completion_tokens += completion
        elif isinstance(verdict, Failure) and verdict.billed is Billed.NO:
            lane.limits.settle(made, 0, now_s)
        cost = facts.cost_usd
        if cost is not None:
            stats.cost_usd = None if stats.cost_usd is None else stats.cost_usd + cost
        elif isinstance(verdict, Reading) or verdict.billed is Billed.YES:
            stats.cost_usd = None
        self._admission.settle(lane, work, cost)

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        """An exception in a pump, the feed or a call is a bug or a full disk: it ends the run, never silently."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)


def _overdue(waited_s: float) -> Failure:
    return Failure(
        Action.AGAIN,
        FailureCode.TIMEOUT,
        f"no answer in {waited_s:.0f} s, far longer than others took (timeout_s sets a limit of your own)",
        billed=Billed.UNKNOWN,
    )


_CANCELLED = Failure(
    Action.AGAIN,
    FailureCode.CONNECTION,
    "the connection cancelled the call; it may have been paid for",
    billed=Billed.UNKNOWN,
)
_ABANDONED = Failure(
    Action.AGAIN,
    FailureCode.TIMEOUT,
    "abandoned when the run was stopped; it may have been paid for",
    billed=Billed.UNKNOWN,
)
