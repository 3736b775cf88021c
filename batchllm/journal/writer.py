"""The writer thread: the only one that touches the journal while a run goes on.

It commits whatever has queued, and again: while one commit waits for the disk the next batch gathers, so the batches
grow with the load, and an answer waits for the rest of one commit and the whole of the next, never for a timer. A
pause of 5 ms after large commits, to make the next one larger, was tried: on a disk whose fsync takes nothing it saved
5 % of a run's CPU with 64 calls in flight (54 rows a commit instead of 27) and nothing with 1,024, and doubled what an
answer waits (3.0 ms instead of 1.5 ms in the median). Between two commits the writer does one slice of a drain.

Want of space is no error at first. What could not be committed is held and tried again every second, and nothing new
is let in meanwhile; the work says when its patience is over.

An error has two degrees. Some (a repeated row, a disk that stays full, a part that cannot be written) stop the run,
but what is still coming in can be stored, and is. After an error of the journal itself nothing can be stored any more,
and what is left is handed to the work to be saved elsewhere. Either way `room` and `flush` raise it.
"""

import asyncio
import atexit
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from batchllm.errors import BatchllmError, FullDiskError, InvariantError, OutOfMemoryError, StorageError
from batchllm.records import JournalRecord, RowDone, RowFailed

T = TypeVar("T")
#: How often a disk without space is looked at again.
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """So much may be waiting for its commit before `room` waits: what a crash would have to buy again."""

    rows: int = 4096
    bytes: int = 64 << 20


class Work(Protocol):
    """What the thread does. An error that `commit` returns stops the run, one that it raises stops the writer too.

    Apart from FullDiskError: it means that nothing was stored, that `is_short` holds, and that it may be tried again.
    """

    def commit(self, records: Sequence[JournalRecord]) -> BatchllmError | None: ...
    def step(self) -> None: ...
    def look(self) -> BatchllmError | None:
        """While space is short: is it still? An error once that has lasted too long; it stops the run."""

    def save(self, records: Sequence[JournalRecord], unsure: int) -> None:
        """Last of all: what could not be committed; the first `unsure` may have been, all or none. Does not raise."""

    @property
    def is_short(self) -> bool:
        """Whether there is too little space to let anything new in."""

    @property
    def is_crowded(self) -> bool:
        """Whether what is there has to be put away before anything new is let in; `tell` says when it was."""

    @property
    def is_due(self) -> bool:
        """Whether `step` has something to do."""


class Writer:
    """Queue and thread. `put`, `room`, `flush` belong to the loop's thread; `call` to any but the writer's own."""

    def __init__(self, work: Work, limits: QueueLimits) -> None:
        self._work = work
        self._limits = limits
        self._wake = threading.Condition()
        self._records: list[JournalRecord] = []
        self._calls: list[Callable[[], None]] = []
        self._waiting_rows = 0  # put and not yet committed
        self._waiting_bytes = 0
        self._is_stopping = False
        self._is_idle = False  # the thread waits for the next record, whatever it is
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_commit: Callable[[], None] | None = None
        self._watcher: Callable[[int], None] | None = None
        self._committed = 0  # of all records put
        self._waiters: list[asyncio.Future[None]] = []
        self._is_broken = False
        self._holding: FullDiskError | None = None  # why the records at hand could not be committed
        self._lost: list[JournalRecord] = []  # what the writer broke at, and what came after
        self._unsure = 0  # so many of them were in the commit that failed
        self._drains = True
        self._error: BatchllmError | None = None
        self.is_error_known = False

    def start(self, loop: asyncio.AbstractEventLoop, on_commit: Callable[[], None] | None) -> None:
        """`on_commit` is called on the loop's thread after commits."""
        self._loop, self._on_commit = loop, on_commit
        # A thread that nobody stops must neither keep the process from ending nor be cut down inside Arrow or SQLite.
        thread = threading.Thread(target=self._run, name="batchllm-journal", daemon=True)
        thread.start()  # which a system that is short of memory refuses
        self._thread = thread
        atexit.register(self._end)

    def put(self, records: Sequence[JournalRecord]) -> None:
        """Take the records over; never waits."""
        size = _size(records)
        with self._wake:
            if self._is_stopping:
                raise InvariantError(f"{len(records)} records came in after the journal was closed")
            self._records.extend(records)
            self._waiting_rows += len(records)
            self._waiting_bytes += size
            if self._is_idle:
                self._is_idle = False
                self._wake.notify()

    def watch(self, committed: Callable[[int], None]) -> None:
        """`committed` hears, on the loop's thread, how many of the records put so far are committed."""
        self._watcher = committed

    async def room(self) -> None:
        while not self.has_room:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def flush(self) -> None:
        """Everything put so far is committed when this returns; FullDiskError while that is not possible."""
        await self.perform(self._raise_holding)
        self.raise_error()

    def _raise_holding(self) -> None:
        if self._holding is not None:
            raise self._holding

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` between commits, after what has been put; waits for it."""
        return self._submit(work).result()

    async def perform(self, work: Callable[[], T]) -> T:
        """Like `call`, for the loop's thread while the writer runs: the loop goes on meanwhile."""
        return await asyncio.wrap_future(self._submit(work))

    async def stop(self) -> None:
        """Commit what is there and end the thread."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread is None:
            self._round()
        else:
            self._thread.join()
            atexit.unregister(self._end)
        lost, self._lost = self._lost, []
        if lost:
            self._work.save(lost, self._unsure)

    @property
    def error(self) -> BatchllmError | None:
        return self._error

    def raise_error(self) -> None:
        if self._error is not None:
            self.is_error_known = True
            raise self._error

    @property
    def has_room(self) -> bool:
        """Raises what went wrong."""
        self.raise_error()
        has_place = self._waiting_rows < self._limits.rows and self._waiting_bytes < self._limits.bytes
        return has_place and not self._work.is_short and not self._work.is_crowded

    @property
    def progress(self) -> tuple[int, int]:
        """How many records are committed, and how many wait for that. Callable from any thread."""
        return self._committed, self._waiting_rows

    def tell(self) -> None:
        """There may be room. Callable from any thread."""
        self._tell()

    def fail(self, failure: BaseException) -> None:
        """Stop the run for what went wrong beside it; what comes in is still stored. Callable from any thread."""
        self._fail(failure)

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # nobody waits for it any more
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
                future.set_exception(error)

        with self._wake:
            if self._is_stopping:
                raise InvariantError("the journal is closed")
            self._calls.append(run)
            self._wake.notify()
        if self._thread is None:
            self._round()
        return future

    def _run(self) -> None:
        while True:
            try:
                if not self._round():
                    return
                with self._wake:
                    self._await_work()
            except BaseException as failure:  # noqa: BLE001 - a thread that dies in silence leaves all others waiting
                self._break(failure)

    def _await_work(self) -> None:
        if self._is_short:
            self._is_idle = self._holding is None
            self._wake.wait_for(
                lambda: self._is_called or self._may_commit or self._may_drain(), _LOOK_AGAIN_S
            )
            return
        while not (self._records or self._is_called or self._may_drain()):
            self._is_idle = True
            self._wake.wait()
        self._is_idle = False

    @property
    def _is_called(self) -> bool:
        return bool(self._calls) or self._is_stopping

    @property
    def _is_short(self) -> bool:
        return not self._is_broken and self._work.is_short

    @property
    def _may_commit(self) -> bool:
        return bool(self._records) and self._holding is None

    def _round(self) -> bool:
        """Commit what there is, do what was asked, drain a slice; False when there is no more to come."""
        with self._wake:
            records, self._records = self._records, []
            calls, self._calls = self._calls, []
            size, is_stopping = self._waiting_bytes, self._is_stopping
        self._look()
        self._commit(records, size)
        for call in calls:
            call()
        if not is_stopping and self._may_drain():
            self._step()
        return bool(records or calls or not is_stopping)

    def _look(self) -> None:
        if self._error is not None:
            return
        try:
            was_short = self._work.is_short
            error = self._work.look() if was_short else None
            is_over = was_short and not self._work.is_short
        except BaseException as failure:  # noqa: BLE001 - as in `_commit`
            self._break(failure)
            return
        if error is not None:
            self._fail(error)
        elif is_over:
            self._tell()

    def _commit(self, records: list[JournalRecord], size: int) -> None:
        if not records:
            return
        if self._is_broken:
            self._lost += records
            return
        try:
            error = self._work.commit(records)
        except FullDiskError as failure:
            self._hold(records, failure)
            return
        except BaseException as failure:  # noqa: BLE001 - a thread that dies in silence leaves all others waiting
            self._lost += records
            self._unsure = len(records)
            self._break(failure)
            return
        self._holding = None
        with self._wake:
            self._waiting_rows -= len(records)
            self._committed += len(records)
            self._waiting_bytes -= size
        if error is not None:
            self._fail(error)
        self._tell()

    def _hold(self, records: list[JournalRecord], failure: FullDiskError) -> None:
        """Keep them in hand, before whatever has come meanwhile; at the very end there is nothing to wait for."""
        self._holding = failure
        with self._wake:
            is_last = self._is_stopping
            if not is_last:
                self._records[:0] = records
        if is_last:
            self._lost += records
            self._break(failure)

    def _break(self, failure: BaseException) -> None:
        """Nothing can be stored any more."""
        self._is_broken, self._drains = True, False
        self._fail(failure)

    def _may_drain(self) -> bool:
        return self._drains and not self._is_broken and self._work.is_due

    def _step(self) -> None:
        try:
            self._work.step()
        except BaseException as failure:  # noqa: BLE001 - the lines are still in the journal; the run stops
            self._drains = False
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        if self._error is None:
            self._error = _as_ours(failure)
        self._tell()

    def _tell(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._watcher is not None:
            self._watcher(self._committed)
        if self._on_commit is not None:
            self._on_commit()


def _as_ours(failure: BaseException) -> BatchllmError:
    if isinstance(failure, BatchllmError):
        return failure
    if isinstance(failure, MemoryError):
        short = OutOfMemoryError()
        short.__cause__ = failure
        return short
    what = f"the journal's writer failed: {type(failure).__name__}: {failure}"
    error = (
        StorageError(
            what, remedy="check the disk; what was committed is kept, and the next start goes on from there"
        )
        if isinstance(failure, OSError)
        else InvariantError(what)
    )
    error.__cause__ = failure
    return error


def _size(records: Sequence[JournalRecord]) -> int:
    size = 0
    for record in records:
        if type(record) is RowDone:
            size += len(record.answer) + len(record.row.carry) + len(record.body or "")
        elif type(record) is RowFailed:
            size += len(record.content or "") + len(record.message) + len(record.body or "")
    return size
