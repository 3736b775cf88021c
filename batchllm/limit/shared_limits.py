"""Limits shared by all processes of a user on one machine: a thread that beats, and the loop that never waits for it.

shared = SharedLimits.open(say=print, environ=os.environ, is_network=..., clock=SystemClock())
member = await shared.join(Pool(base_url, model, api_key))
member.standing.share_at(clock.monotonic_s())     # the part of the limit that may be used now
member.report(Report(demand=math.inf, used=0.4))  # as often as is convenient
await shared.close()
"""

import asyncio
import atexit
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from batchllm.clock import Clock
from batchllm.errors import InvariantError
from batchllm.limit.member import Member
from batchllm.limit.pool import Pool
from batchllm.limit.processes import this_process
from batchllm.limit.registry import Pace, Registry, Surroundings
from batchllm.limit.sharing import Report
from batchllm.limit.state_folder import state_folder


class SharedLimits:
    """`Sharing` over the file. All methods belong to the loop's thread."""

    def __init__(self, make: Callable[[Callable[[Callable[[], None]], None]], Registry]) -> None:
        """`make` gets what runs a callable on this loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._registry = make(self._post)
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        # A thread that nobody stops must neither keep the process from ending nor be cut down inside SQLite.
        self._thread = threading.Thread(target=self._run, name="batchllm-limits", daemon=True)
        atexit.register(self._end)
        self._thread.start()

    @classmethod
    def open(
        cls,
        *,
        say: Callable[[str], None],
        environ: Mapping[str, str],
        is_network: Callable[[Path], bool],
        clock: Clock,
        pace: Pace | None = None,
    ) -> "SharedLimits":
        """Returns at once; the file is opened when the first member joins.

        `clock` is read on another thread. `say` hears, on the loop's thread, why limits are not shared or go on in
        another file, each thing once.
        """
        return cls(
            lambda post: Registry(
                Surroundings(lambda: state_folder(environ), is_network, this_process(), clock, say, post),
                pace or Pace(),
            )
        )

    async def join(self, pool: Pool, demand: float = math.inf) -> Member:
        """Answers after the first transaction; a fault of the file is said, and the member shares with nobody."""
        if self._is_stopping:
            raise InvariantError("limits were asked for after they were given back")
        member = Member(pool, Report(demand=demand), self._wake_for)
        joined: Future[Member] = Future()

        def work() -> None:
            self._guarded(lambda: self._registry.join(member))
            joined.set_result(member)

        self._submit(work)
        try:
            return await asyncio.shield(asyncio.wrap_future(joined))
        except asyncio.CancelledError:
            member.leave()  # comes after the work above, so nobody is left behind in the file
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    @property
    def skipped(self) -> int:
        """Beats that found the file locked."""
        return self._registry.skipped

    def _end(self) -> None:
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        atexit.unregister(self._end)

    def _submit(self, work: Callable[[], None]) -> None:
        self._calls.append(work)
        self._wake.set()

    def _wake_for(self, member: Member, is_leaving: bool) -> None:
        self._submit((lambda: self._registry.leave(member)) if is_leaving else self._registry.beat)

    def _post(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        while not self._is_stopping:
            pause_s = self._registry.pause_s
            is_asked = self._wake.wait(None if math.isinf(pause_s) else pause_s)
            self._wake.clear()
            if not is_asked:
                self._guarded(self._registry.beat)
            self._answer()
        self._answer()
        self._guarded(self._registry.close)

    def _answer(self) -> None:
        while self._calls:
            self._guarded(self._calls.popleft())

    def _guarded(self, work: Callable[[], None]) -> None:
        """A fault that nobody thought of costs the sharing, not the run."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread that dies in silence would leave leases to run out
            self._registry.stop_sharing(
                InvariantError(f"{type(error).__name__}: {error}", remedy="report this as a bug")
            )
