"""A dispatcher over scripted lanes, in virtual time, with a handle on each part."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from batchllm.budget import Budget
from batchllm.dispatch import Dispatcher, Ending, Lane, Polling, Portion
from batchllm.errors import StorageError
from batchllm.events import LaneStats, RunStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize
from batchllm.limit.window import Window
from batchllm.plan import narrow
from batchllm.pricing import Price
from batchllm.records import (
    Action,
    Billed,
    Failure,
    FailureCode,
    JournalRecord,
    LaneInfo,
    Request,
    Response,
    RowFailed,
)
from batchllm.retry import RetryPolicy
from batchllm.testing import (
    LoopClock,
    MemoryRecorder,
    ScriptedProvider,
    echo,
    encode_content,
    judge_echo,
    run_virtual,
    text_request,
)

SERVER_ERROR = Failure(Action.AGAIN, FailureCode.SERVER, "HTTP 500", 500, billed=Billed.UNKNOWN)
REFUSED = Failure(Action.AGAIN, FailureCode.CONNECTION, "connection refused")
BAD_KEY = Failure(Action.ELSEWHERE, FailureCode.CREDENTIALS, "HTTP 401", 401, lane_is_dead=True)
INVALID = Failure(Action.SPLIT, FailureCode.INVALID_REQUEST, "HTTP 400: no", 400)
BAD_ANSWER = Failure(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, "not in enum", 200, billed=Billed.YES)

Script = Callable[..., Response | Failure]
#: In virtual seconds: a run that has not ended by then never will.
FOR_EVER_S = 400_000.0


def rate_limited(retry_after_s: float | None) -> Failure:
    return Failure(Action.AGAIN, FailureCode.RATE_LIMIT, "HTTP 429", 429, retry_after_s)


class LateRecorder(MemoryRecorder):
    """Commits a while after `put`, in a batch, as the journal's writer does; breaks for good after `breaks_after`."""

    def __init__(self, delay_s: float, breaks_after: int | None = None) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._breaks_after = breaks_after
        self._is_due = False
        self.is_broken = False
        self.watcher: Callable[[int], None] = lambda _count: None
        self.committed = 0

    def put(self, records: Sequence[JournalRecord]) -> None:
        self.records.extend(records)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(self._delay_s, self._commit)

    def watch(self, committed: Callable[[int], None]) -> None:
        self.watcher = committed

    @property
    def has_room(self) -> bool:
        return not self.is_broken

    async def room(self) -> None:
        if self.is_broken:
            raise StorageError("disk full")

    def _commit(self) -> None:
        self._is_due = False
        if self._breaks_after is not None and len(self.records) >= self._breaks_after:
            self.is_broken = True
        if not self.is_broken:
            self.committed = len(self.records)
        self.watcher(self.committed)


class Rig:
    def __init__(
        self,
        *providers: ScriptedProvider,
        routing: str = "spread",
        size: int = 4,
        policy: RetryPolicy | None = None,
        budget: Budget | None = None,
        price: Price | None = None,
        prices: Sequence[Price] | None = None,
        patience_s: float = 21_600.0,
        recorder: MemoryRecorder | None = None,
        dice: random.Random | None = None,
        finished: Collection[tuple[int, int]] = (),
        polling: Polling | None = None,
        **limits: float,
    ) -> None:
        self.providers = providers
        self._finished = finished  # row and lane, with routing all
        self.recorder = recorder or MemoryRecorder()
        self.stats = RunStats()
        self.clock = LoopClock()
        windows = [Window(size) for _ in providers]
        self.lanes = [
            Lane(
                index,
                LaneInfo(f"lane{index}", "custom", "echo-1", True),
                provider,
                "/echo",
                encode_content,
                judge_echo,
                LaneLimits(clock=self.clock, window=windows[index], **limits),  # type: ignore[arg-type] # rpm, tpm
                windows[index],
                Health(patience_s),
                OutputSize(5),
                LaneStats(f"lane{index}", "custom", "echo-1"),
                Latency(600.0),
                price=price if prices is None else prices[index],
                max_output_tokens=5,
            )
            for index, provider in enumerate(providers)
        ]
        self.dispatcher = Dispatcher(
            self.lanes,
            recorder=self.recorder,
            policy=policy or RetryPolicy(),
            in_order=routing == "fallback",
            stats=self.stats,
            clock=self.clock,
            budget=budget,
            spreading=self._to_all if routing == "all" else None,
            slots=len(providers) if routing == "all" else 1,
            polling=polling,
            dice=dice,
        )

    def _to_all(self, request: Request) -> Sequence[Portion]:
        spread = []
        for lane in self.lanes:
            open_rows = [
                position
                for position, row in enumerate(request.rows)
                if (row.ordinal, lane.index) not in self._finished
            ]
            if open_rows:
                spread.append(Portion(lane.index, narrow(request, open_rows)))
        return spread

    async def run(self, requests: Sequence[Request | RowFailed]) -> Ending:
        async with asyncio.timeout(FOR_EVER_S):
            ending = await self.dispatcher.run(feed(requests))
            await self.dispatcher.drain(60)
        return ending

    def answers(self) -> dict[int, str]:
        return {done.row.ordinal: str(done.answer) for done in self.recorder.done}

    @property
    def calls(self) -> int:
        return sum(len(provider.bodies) for provider in self.providers)


async def feed(requests: Sequence[Request | RowFailed]) -> AsyncIterator[Sequence[Request | RowFailed]]:
    for start in range(0, len(requests), 50):
        await asyncio.sleep(0)
        yield requests[start : start + 50]


def rows(count: int) -> list[Request]:
    return [text_request(ordinal) for ordinal in range(count)]


def run(make: Callable[[], Rig], requests: Sequence[Request | RowFailed]) -> tuple[Rig, Ending]:
    async def main() -> tuple[Rig, Ending]:
        rig = make()
        return rig, await rig.run(requests)

    return run_virtual(main())


def failing_first(times: int, failure: Failure) -> Script:
    """Each row fails so often before it is answered."""
    seen: dict[str, int] = {}

    def script(body: dict[str, str], call: int) -> Response | Failure:
        seen[body["content"]] = seen.get(body["content"], 0) + 1
        return failure if seen[body["content"]] <= times else echo(body)

    return script


def at_times(script: Callable[[float, dict[str, str]], Response | Failure]) -> Script:
    """A script that is told the seconds since its first call."""
    start_s: list[float] = []

    def timed(body: dict[str, str], call: int) -> Response | Failure:
        now_s = asyncio.get_running_loop().time()
        if not start_s:
            start_s.append(now_s)
        return script(now_s - start_s[0], body)

    return timed
