"""What it costs to move one row: the limits alone, dispatch with them, and the HTTP exchange of the data plane.

Dispatch is the whole loop over a provider that answers at once and a record that keeps nothing; its own part is what
is left when the limits are taken off. CPU is that of the process, in microseconds a row.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import uvloop

from batchllm.clock import SystemClock
from batchllm.dispatch import Dispatcher, Lane
from batchllm.engine.collecting import collecting_seldom
from batchllm.events import LaneStats, RunStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize
from batchllm.limit.window import Window
from batchllm.provider.connection import HttpConnection
from batchllm.records import Answer, Failure, JournalRecord, LaneInfo, Reading, Request, Response, Usage
from batchllm.retry import RetryPolicy
from batchllm.testing import text_request

_IN_FLIGHT = 64
_UNBOUND_RPM, _UNBOUND_TPM = 1e9, 1e12
_BATCH = 500
_BODY = b'{"model":"sim","messages":[{"role":"user","content":"Which sentiment has this review?"}]}'
_READING = Reading((Answer("positive", "stop"),), Usage(45, 6), "sim", "req-1")
_RESPONSE = Response(200, {"content-type": "application/json"}, b"{}", 0.01)


class _Nowhere:
    """A record that takes everything, and has it safe at the next turn of the loop."""

    has_room = True

    def __init__(self) -> None:
        self._put = 0
        self._is_due = False
        self._committed: Callable[[int], None] = lambda _count: None

    def put(self, records: Sequence[JournalRecord]) -> None:
        self._put += len(records)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        self._is_due = False
        self._committed(self._put)

    def watch(self, committed: Callable[[int], None]) -> None:
        self._committed = committed

    async def expose(self, calls: int, usd: float | None) -> None:
        """Nobody asks."""

    async def room(self) -> None:
        return


class _AtOnce:
    """Answers at the next turn of the loop, as a future does that a transport fulfils."""

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response:  # noqa: ARG002 - the port's
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        loop.call_soon(reply.set_result, _RESPONSE)
        found: Response = await reply
        return found

    def drop_idle(self) -> None:
        """There is none."""

    async def close(self) -> None:
        return


def limits_us(rows: int) -> float:
    """All that the limits of a lane do for one row that goes and comes back."""
    clock = SystemClock()
    window = Window(_IN_FLIGHT)
    limits = LaneLimits(clock=clock, window=window, rpm=_UNBOUND_RPM, tpm=_UNBOUND_TPM)
    start_s = time.process_time()
    for _ in range(rows):
        now_s = clock.monotonic_s()
        limits.wait_s(now_s)
        made = limits.reserve(50, 70, now_s)
        window.enter()
        sent = limits.take(made, now_s)
        window.land()
        limits.wants_hints(now_s)
        limits.settle(made, 51, now_s)
        limits.note_accepted(sent, now_s)
        window.leave()
    return (time.process_time() - start_s) / rows * 1e6


def dispatch_us(rows: int) -> float:
    """The loop with its limits."""
    return _cpu_us(_dispatched(rows), rows)


def exchange_us(url: str, calls: int) -> float:
    """One call of the data plane to a server at `url`."""
    return _cpu_us(_exchanged(url, calls), calls)


def _cpu_us(main: Coroutine[None, None, None], count: int) -> float:
    """With the garbage collector as a run has it."""
    with collecting_seldom():
        start_s = time.process_time()
        uvloop.run(main)
        return (time.process_time() - start_s) / count * 1e6


async def _dispatched(rows: int) -> None:
    clock = SystemClock()
    window = Window(_IN_FLIGHT)
    lane = Lane(
        0,
        LaneInfo("local", "custom", "sim", False),
        _AtOnce(),
        "/chat/completions",
        lambda _request: _BODY,
        lambda _response, _request: _READING,
        LaneLimits(clock=clock, window=window, rpm=_UNBOUND_RPM, tpm=_UNBOUND_TPM),
        window,
        Health(3_600.0),
        OutputSize(20),
        LaneStats("local", "custom", "sim"),
        Latency(),
        max_output_tokens=20,
    )
    dispatcher = Dispatcher([lane], recorder=_Nowhere(), policy=RetryPolicy(), stats=RunStats(), clock=clock)
    await dispatcher.run(_requests(rows))


async def _requests(rows: int) -> AsyncIterator[Sequence[Request]]:
    for first in range(0, rows, _BATCH):
        yield [text_request(number, "text") for number in range(first, min(rows, first + _BATCH))]


async def _exchanged(url: str, calls: int) -> None:
    connection = HttpConnection(base_url=url, headers={}, connect_timeout_s=60.0, environ={})
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            if isinstance(await connection.send("/chat/completions", _BODY, 600.0), Failure):
                raise SystemExit("the server did not answer")

    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    await connection.close()
