"""One run, from a checked job with its parts to a sealed record.

Everything is handed in. What happens here is the order: feed the dispatcher, wait for its end or for a stop, let
the calls in flight come home, commit, seal the parts, and say how it ended. Whatever goes wrong on the way, what
was paid for is committed before the error goes on.

The module is not called `run`, because that is the name of the package's function.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from batchllm.clock import Clock
from batchllm.dispatch import Dispatcher, Ending, FeedBatch
from batchllm.errors import BatchllmError, ExitCode, FullDiskError, OutOfMemoryError
from batchllm.events import RunStats
from batchllm.journal import Journal, Manifest
from batchllm.plan import Planner
from batchllm.records import BadRow, Row


class Stop:
    """A request to stop, from a signal or a caller. The first one drains, the second abandons the calls."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._asked = asyncio.Event()
        self._insisted = asyncio.Event()

    def ask(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._asked.set()
        else:
            self._insisted.set()

    async def asked(self) -> Ending:
        await self._asked.wait()
        if self.ending is None:
            raise ValueError("asked without an ending")
        return self.ending

    async def insisted(self) -> None:
        await self._insisted.wait()


@dataclass(frozen=True, slots=True)
class RunParts:
    """What a run is made of. `batches` gives the rows that may have to be asked, in input order.

    `units` is how many answers are wanted in all, `is_whole` whether that is all rows. `finish` is called in a thread
    when everything is committed, before the parts are sealed.
    """

    batches: Callable[[], Iterator[Sequence[Row | BadRow]]]
    planner: Planner
    journal: Journal
    dispatcher: Dispatcher
    stats: RunStats
    clock: Clock
    units: int
    is_whole: bool
    drain_timeout_s: float
    finish: Callable[[], None] = lambda: None


_CUT_OFF = Ending(
    ExitCode.INTERRUPTED, "the run was cut off", "run the same job again: it goes on where it was"
)


async def carry_out(parts: RunParts, stop: Stop) -> tuple[Ending, Manifest]:
    """Run to the end. Raises StorageError, InvariantError and what the source raises, with everything kept."""
    stats, journal = parts.stats, parts.journal
    stats.started_s = parts.clock.monotonic_s()
    stats.phase = "running"
    journal.start(asyncio.get_running_loop())
    code, is_clean = ExitCode.BUG, False
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="batchllm-read") as reader:
            ending, abandoned = await _dispatch(parts, stop, reader)
        stats.phase = "finishing"
        manifest = await _finish(parts, stop, ending, abandoned)
        if (
            stop.ending is not None
            and ending.code is ExitCode.OK
            and parts.is_whole
            and not manifest.complete
        ):
            ending = stop.ending  # all is answered, and the order of the parts is left to the next start
        code = _exit_code(ending, manifest)
        is_clean = not abandoned
        stats.phase = "done"
        return Ending(code, ending.reason, ending.remedy), manifest
    except BatchllmError as error:
        code = error.exit_code
        raise
    except MemoryError as error:
        code = ExitCode.SYSTEM
        raise OutOfMemoryError from error
    finally:
        await journal.close(clean=is_clean, exit_code=code)


async def _dispatch(parts: RunParts, stop: Stop, reader: ThreadPoolExecutor) -> tuple[Ending, int]:
    """How dispatch ended, and how many calls were abandoned."""
    dispatcher = parts.dispatcher
    running = asyncio.create_task(dispatcher.run(_feed(parts, reader)))
    asked = asyncio.create_task(stop.asked())
    try:
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            dispatcher.stop(asked.result())
        ending = await running
    finally:
        asked.cancel()
        if not running.done():  # this task itself was cancelled: nothing more may be sent
            dispatcher.stop(_CUT_OFF)
            await asyncio.wait({running})
        abandoned = await _drain(parts, stop)
    return ending, abandoned


async def _drain(parts: RunParts, stop: Stop) -> int:
    """Let the calls in flight come home, unless somebody insists."""
    parts.stats.phase = "draining"
    draining = asyncio.create_task(parts.dispatcher.drain(parts.drain_timeout_s))
    insisted = asyncio.create_task(stop.insisted())
    await asyncio.wait({draining, insisted}, return_when=asyncio.FIRST_COMPLETED)
    insisted.cancel()
    abandoned = 0 if draining.done() else await parts.dispatcher.abandon()
    return abandoned + await draining


async def _finish(parts: RunParts, stop: Stop, ending: Ending, abandoned: int) -> Manifest:
    """Commit and seal. A disk without space is waited for, unless somebody wants the run to end."""
    journal = parts.journal
    patience = _Patience(parts.clock, parts.drain_timeout_s)
    waiting = asyncio.create_task(patience.begin(stop))
    try:
        while True:
            try:
                await journal.flush()
                if not abandoned:
                    await journal.unexpose()
                return await asyncio.to_thread(_seal, parts, ending, patience)
            except FullDiskError as error:
                if ending.code is not ExitCode.OK or stop.ending is not None:
                    raise
                await journal.pause(error)  # not all that can meet a full disk has told of it
                await _space_or_stop(journal, stop)
    finally:
        waiting.cancel()


async def _space_or_stop(journal: Journal, stop: Stop) -> None:
    waits = [asyncio.create_task(journal.room()), asyncio.create_task(stop.asked())]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    for wait in done:
        await wait


async def _feed(parts: RunParts, reader: ThreadPoolExecutor) -> AsyncIterator[FeedBatch]:
    """Read, render and count in a thread, a batch at a time, so that the loop never waits for it."""
    loop = asyncio.get_running_loop()
    batches = parts.batches()

    def work() -> FeedBatch | None:
        batch = next(batches, None)
        return None if batch is None else parts.planner.requests(batch)

    while (planned := await loop.run_in_executor(reader, work)) is not None:
        yield planned
    yield parts.planner.flush()


def limited(batches: Iterator[Sequence[Row | BadRow]], limit: int | None) -> Iterator[Sequence[Row | BadRow]]:
    """The first `limit` rows."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
        elif len(batch) < left:
            left -= len(batch)
            yield batch
        else:
            yield batch[:left]
            return


def in_pieces(
    batches: Iterator[Sequence[Row | BadRow]], rows: int | None
) -> Iterator[Sequence[Row | BadRow]]:
    """The same rows, at most so many at a time; None: as they come."""
    if rows is None:
        yield from batches
        return
    for batch in batches:
        for start in range(0, len(batch), rows):
            yield batch[start : start + rows]


class _Patience:
    """A run that is asked to stop while its parts are put in order may go on with that for as long as it would wait
    for calls in flight.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._end_s = math.inf

    async def begin(self, stop: Stop) -> None:
        """Wait for the stop, and count from there."""
        await stop.asked()
        self._end_s = self._clock.monotonic_s() + self._timeout_s

    def is_over(self) -> bool:
        """Callable from any thread."""
        return self._clock.monotonic_s() >= self._end_s


def _seal(parts: RunParts, ending: Ending, patience: _Patience) -> Manifest:
    """Where somebody waits for the end, rows that are on their way to other places stay on it."""
    journal = parts.journal
    if journal.settle(patience.is_over):
        parts.finish()
        if ending.code is ExitCode.OK and parts.is_whole:
            return journal.complete(parts.units, patience.is_over)
    return journal.seal()


def _exit_code(ending: Ending, manifest: Manifest) -> ExitCode:
    if ending.code is not ExitCode.OK:
        return ending.code
    return ExitCode.ROWS_FAILED if manifest.failed else ExitCode.OK
