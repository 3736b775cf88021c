"""Fakes for every port, and time that moves by itself: test your jobs the way that batchllm tests itself.

`run_virtual(main())` runs a coroutine on an event loop whose clock jumps over every wait: two hours of an outage
take a few milliseconds, and nothing depends on how fast the machine is. It is for tests without sockets.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from batchllm.errors import RowInputError
from batchllm.records import (
    Answer,
    AttemptRecord,
    Failure,
    JournalRecord,
    Reading,
    Request,
    Response,
    RowDone,
    RowFailed,
    RowRef,
    Usage,
)

T = TypeVar("T")
_START_S = 1_000.0
_TURN_S = (
    1e-6  # a turn of the loop takes some time, or code that waits for "a little later" would spin for ever
)


class SteppedClock:
    """A clock that a test moves: `clock.advance(60)`."""

    def __init__(self, now_s: float = _START_S, wall_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s
        self.since_epoch_s = wall_s

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.since_epoch_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.since_epoch_s += seconds


class LoopClock:
    """The running loop's time; with `run_virtual`, virtual time."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.monotonic_s()


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would wait, its time jumps instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = _START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.now_s += _TURN_S
        if not ready and timeout is None:
            raise RuntimeError("every task waits and no timer is set: this would hang for ever")
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class ScriptedProvider:
    """A lane's wire whose replies a function decides: `script(body, number_of_the_call)`."""

    def __init__(
        self, script: Callable[[Mapping[str, Any], int], Response | Failure], *, latency_s: float = 0.0
    ) -> None:
        self._script = script
        self._latency_s = latency_s
        self.bodies: list[Mapping[str, Any]] = []
        self.sent_s: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.is_closed = False

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:  # noqa: ARG002 - the port's
        loop = asyncio.get_running_loop()
        parsed = orjson.loads(body)
        self.bodies.append(parsed)
        self.sent_s.append(loop.time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._latency_s)
            return self._script(parsed, len(self.bodies))
        finally:
            self.in_flight -= 1

    def drop_idle(self) -> None:
        """There is none."""

    async def close(self) -> None:
        self.is_closed = True


class MemoryRecorder:
    """A record that is a list."""

    def __init__(self) -> None:
        self.records: list[JournalRecord] = []
        self.exposed: list[tuple[int, float | None]] = []
        self._committed: Callable[[int], None] | None = None

    def put(self, records: Sequence[JournalRecord]) -> None:
        self.records.extend(records)
        if self._committed is not None:
            self._committed(len(self.records))

    async def expose(self, calls: int, usd: float | None) -> None:
        self.exposed.append((calls, usd))

    def watch(self, committed: Callable[[int], None]) -> None:
        self._committed = committed

    @property
    def has_room(self) -> bool:
        return True

    async def room(self) -> None:
        return

    @property
    def done(self) -> list[RowDone]:
        return [record for record in self.records if isinstance(record, RowDone)]

    @property
    def failed(self) -> list[RowFailed]:
        return [record for record in self.records if isinstance(record, RowFailed)]

    @property
    def attempts(self) -> list[AttemptRecord]:
        return [record for record in self.records if isinstance(record, AttemptRecord)]


class MemoryImages:
    """Images that lie in a mapping instead of on a disk."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.read_paths: list[str] = []

    def read(self, path: str, most_bytes: int) -> bytes:
        self.read_paths.append(path)
        if path not in self._files:
            raise RowInputError(f"the image {path!r} cannot be opened: it is not there")
        if len(self._files[path]) > most_bytes:
            raise RowInputError(f"the image {path!r} is larger than {most_bytes / 1e6:g} MB")
        return self._files[path]


def text_request(ordinal: int, text: str = "", tokens: int = 10) -> Request:
    """A request of one row whose content is a text."""
    row = RowRef(ordinal, f"k{ordinal}", b"[]")
    return Request((row,), text or f"row {ordinal}", (tokens,), (ordinal.to_bytes(16, "big"),))


def packed_request(ordinals: Sequence[int]) -> Request:
    rows = tuple(RowRef(ordinal, None, b"[]") for ordinal in ordinals)
    digests = tuple(ordinal.to_bytes(16, "big") for ordinal in ordinals)
    return Request(rows, [f"row {ordinal}" for ordinal in ordinals], (10,) * len(rows), digests)


def encode_content(request: Request) -> bytes:
    return orjson.dumps({"content": request.content})


def echo(body: Mapping[str, Any], call: int = 0) -> Response:  # noqa: ARG001 - a script's signature
    """Status 200 with what was asked."""
    return Response(200, {}, orjson.dumps(body), 0.0)


def judge_echo(response: Response, request: Request) -> Reading | Failure:
    """Accepts what `echo` sends: the answer to a row is its own text."""
    content = orjson.loads(response.body)["content"]
    texts = [content] if isinstance(content, str) else content
    usage = Usage(prompt_tokens=request.prompt_tokens, completion_tokens=5 * len(texts))
    return Reading(tuple(Answer(text, "stop") for text in texts), usage, "echo-1", "req-1")
