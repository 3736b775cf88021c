"""Simulated providers inside the runner's process, in a thread with a loop of its own.

On the runner's loop they would take turns with it and bend its timing; over real sockets from another thread they
only share the processor.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Self

from batchllm.errors import InvariantError
from batchllm.simulate.server import SimulatedProvider
from batchllm.spec.lanes import Simulation


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop_factory


class EmbeddedProviders:
    """One simulated provider for each spec. `keeps_details`: see SimulatedProvider; off, so that memory stays flat."""

    def __init__(self, specs: Sequence[Simulation], *, keeps_details: bool = False) -> None:
        self.providers = [SimulatedProvider(spec, keeps_details=keeps_details) for spec in specs]
        self.base_urls: list[str] = []
        self._thread: Thread | None = None
        self._stop: Callable[[], object] | None = None

    def start(self) -> list[str]:
        """The base_url of each, in the order of the specs."""
        if self._thread is not None:
            raise InvariantError(
                "These providers run already.", remedy="Stop them before starting them again."
            )
        started: Future[list[str]] = Future()
        self._thread = Thread(target=self._run, args=(started,), name="simulated-providers", daemon=True)
        self._thread.start()
        try:
            self.base_urls = started.result()
        except BaseException:
            self.stop()
            raise
        return self.base_urls

    def stop(self) -> None:
        """Returns when every socket is closed. Does nothing when they do not run."""
        if self._thread is None:
            return
        if self._stop is not None:
            self._stop()
        self._thread.join()
        self._thread = None
        self._stop = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, started: "Future[list[str]]") -> None:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: "Future[list[str]]") -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        try:
            base_urls = [await provider.start() for provider in self.providers]
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for the start
            await self._stop_all()
            started.set_exception(error)
            return
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        started.set_result(base_urls)
        await stopping.wait()
        await self._stop_all()

    async def _stop_all(self) -> None:
        for provider in self.providers:
            await provider.stop()
