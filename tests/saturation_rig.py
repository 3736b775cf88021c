"""Providers that enforce limits, in virtual time, and what a run looked like to them."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from dispatch_rig import feed

from batchllm.dispatch import Dispatcher, Ending, Lane
from batchllm.events import LaneStats, RunStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize
from batchllm.limit.window import FIRST_CALLS, Window
from batchllm.provider.hints import limits as read_limits
from batchllm.records import Action, Failure, FailureCode, LaneInfo, Reading, Request, Response
from batchllm.retry import RetryPolicy
from batchllm.testing import LoopClock, MemoryRecorder, encode_content, judge_echo, text_request

Allowed = Callable[[float], float]
_ROUND_TRIP_S = 0.002


class BucketLimit:
    """Continuous refill; a second's worth at once. `rate(t)` a second at `t` seconds after the first request."""

    def __init__(self, rate: Allowed, capacity_s: float = 1.0) -> None:
        self._rate = rate
        self._capacity_s = capacity_s
        self._level: float | None = None
        self._at_s = 0.0

    def admits(self, t_s: float, amount: float, in_flight: int) -> bool:
        rate = self._rate(t_s)
        capacity = max(1.0, rate * self._capacity_s)
        level = capacity if self._level is None else self._level + (t_s - self._at_s) * rate
        level = min(capacity, level)
        is_admitted = level >= amount - 1e-9
        self._level, self._at_s = level - amount * is_admitted, t_s
        return is_admitted


class LogLimit:
    """At most rate(t) in any second, by an exact log."""

    def __init__(self, rate: Allowed) -> None:
        self._rate = rate
        self._log: deque[tuple[float, float]] = deque()
        self._held = 0.0

    def admits(self, t_s: float, amount: float, in_flight: int) -> bool:
        while self._log and self._log[0][0] <= t_s - 1.0:
            self._held -= self._log.popleft()[1]
        if self._held + amount > self._rate(t_s) + 1e-9:
            return False
        self._log.append((t_s, amount))
        self._held += amount
        return True


class ConcurrencyLimit:
    def __init__(self, most: int) -> None:
        self._most = most

    def admits(self, t_s: float, amount: float, in_flight: int) -> bool:
        return in_flight < self._most


class Enforcing:
    """A lane's wire to a provider with limits. Refusals come at once, answers after their latency."""

    def __init__(
        self,
        limit: object,
        *,
        latency: Callable[[float, random.Random], float] = lambda _t, _dice: 0.3,
        retry_after_s: float | None = None,
        headers: Callable[[float], Mapping[str, str]] = lambda _t: {},
        message: str = "HTTP 429: Too Many Requests",
        tokens: bool = False,
        stalls: float = 0.0,
    ) -> None:
        self.limit = limit
        self.latency = latency
        self.retry_after_s = retry_after_s
        self.headers = headers
        self.message = message
        self.tokens = tokens
        self.stalls = stalls
        self.dice = random.Random(5)
        self.start_s: float | None = None
        self.accepted: list[tuple[float, float]] = []
        self.refused: list[float] = []
        self.in_flight = 0

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        now_s = asyncio.get_running_loop().time()
        self.start_s = now_s if self.start_s is None else self.start_s
        t_s = now_s - self.start_s
        content = orjson.loads(body)["content"]
        amount = float(content.rsplit(" ", 1)[1]) if self.tokens else 1.0
        if not self.limit.admits(t_s, amount, self.in_flight):  # type: ignore[attr-defined]
            self.refused.append(t_s)
            await asyncio.sleep(_ROUND_TRIP_S)
            return Failure(Action.AGAIN, FailureCode.RATE_LIMIT, self.message, 429, self.retry_after_s)
        self.accepted.append((t_s, amount))
        self.in_flight += 1
        try:
            if self.dice.random() < self.stalls:
                await asyncio.sleep(deadline_s)
                return Failure(Action.AGAIN, FailureCode.TIMEOUT, "no whole answer", None)
            await asyncio.sleep(self.latency(t_s, self.dice))
            return Response(200, self.headers(t_s), body, 0.0)
        finally:
            self.in_flight -= 1

    def drop_idle(self) -> None:
        return

    async def close(self) -> None:
        return

    def rate(self, start_s: float = 0.0, end_s: float | None = None) -> float:
        """Accepted a second between two moments; without an end until the last one."""
        end_s = self.accepted[-1][0] if end_s is None else end_s
        amount = sum(amount for t_s, amount in self.accepted if start_s <= t_s < end_s)
        return amount / (end_s - start_s)

    @property
    def refused_share(self) -> float:
        return len(self.refused) / (len(self.refused) + len(self.accepted))

    def most_in(self, window_s: float) -> float:
        """The most that was asked for in any half-open window."""
        sent = sorted([*self.accepted, *((t_s, 1.0) for t_s in self.refused)])
        most = held = 0.0
        first = 0
        for t_s, amount in sent:
            held += amount
            while sent[first][0] <= t_s - window_s:
                held -= sent[first][1]
                first += 1
            most = max(most, held)
        return most


@dataclass
class LaneOf:
    provider: Enforcing
    rpm: float | None = None
    tpm: float | None = None
    concurrency: int | None = None
    dialect: str = "openai"
    output: int = 0
    told: dict[str, float] = field(default_factory=dict)


def _judge(response: Response, request: Request) -> Reading | Failure:
    verdict = judge_echo(response, request)
    if isinstance(verdict, Reading):
        return verdict._replace(usage=verdict.usage._replace(completion_tokens=0))
    return verdict


def make_lane(index: int, spec: LaneOf, clock: LoopClock) -> Lane:
    window = Window(spec.concurrency or 1_000, usual=spec.concurrency or 64, first=FIRST_CALLS)
    return Lane(
        index,
        LaneInfo(f"lane{index}", "custom", "echo-1", True),
        spec.provider,
        "/echo",
        encode_content,
        _judge,
        LaneLimits(clock=clock, window=window, rpm=spec.rpm, tpm=spec.tpm),
        window,
        Health(21_600.0),
        OutputSize(0),
        LaneStats(f"lane{index}", "custom", "echo-1"),
        Latency(),
        read_hints=lambda headers: read_limits(headers, dialect=spec.dialect),
    )


async def saturate(lanes: Sequence[LaneOf], requests: Sequence[Request]) -> tuple[Ending, list[Lane]]:
    clock = LoopClock()
    made = [make_lane(index, spec, clock) for index, spec in enumerate(lanes)]
    dispatcher = Dispatcher(
        made,
        recorder=MemoryRecorder(),
        policy=RetryPolicy(),
        stats=RunStats(),
        clock=clock,
        dice=random.Random(3),
    )
    async with asyncio.timeout(100_000):
        ending = await dispatcher.run(feed(requests))
        await dispatcher.drain(60)
    return ending, made


def sized_requests(count: int, smallest: int, largest: int, seed: int = 2) -> list[Request]:
    dice = random.Random(seed)
    sizes = [dice.randint(smallest, largest) for _ in range(count)]
    return [text_request(number, f"row {number} {size}", tokens=size) for number, size in enumerate(sizes)]
