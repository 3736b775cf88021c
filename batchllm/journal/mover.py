"""Whoever carries out a pending renewal: a thread beside the run, or at once who cannot wait.

A disk without space holds it up like anything else that is written: the run pauses, and once there is space again it is
begun anew.
"""

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from batchllm.errors import FullDiskError
from batchllm.journal.merge import MergeStopped
from batchllm.journal.moving import Call

T = TypeVar("T")
_LOOK_S = 0.05
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """What the thread needs of the run beside which it works; all but `call` from any thread.

    `pause` is for want of space, by `call`; `told` when rows have moved; `fail` when they never will.
    """

    call: Call
    pause: Callable[[FullDiskError], None]
    is_short: Callable[[], bool]
    told: Callable[[], None]
    fail: Callable[[BaseException], None]


class Mover:
    """`move` does it, by `call`, until it is late; then it raises MergeStopped, and has done nothing.

    `settle` is not for the thread of `call`.
    """

    def __init__(self, move: Callable[[Call, Callable[[], bool]], None]) -> None:
        self._move = move
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._short: FullDiskError | None = None
        self._failure: BaseException | None = None
        self._is_done = False

    @property
    def is_given_up(self) -> bool:
        """It was stopped before it was done."""
        return self._stopping.is_set() and not self._is_done

    def start(self, run: Run) -> None:
        """In a thread of its own."""
        # It must neither keep the process from ending nor be cut down inside Arrow (see `batchllm.journal.writer`).
        self._thread = threading.Thread(target=self._go_on, args=(run,), name="batchllm-mover", daemon=True)
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it has not finished is as if it had not begun."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.stop)

    def settle(self, is_late: Callable[[], bool]) -> bool:
        """Wait until it is done, or give it up once it `is_late`: False. Raises what went wrong.

        FullDiskError while the disk holds it up, which does not end it.
        """
        if self._thread is None:
            return self._is_done or self._at_once(is_late)
        while self._thread.is_alive():
            self._thread.join(_LOOK_S)
            if self._short is not None:
                raise self._short
            if is_late():
                self.stop()
        if self._failure is not None:
            raise self._failure
        return self._is_done

    def _at_once(self, is_late: Callable[[], bool]) -> bool:
        if self._stopping.is_set():
            return False
        try:
            self._move(_here, is_late)
        except MergeStopped:
            self._stopping.set()
            return False
        self._is_done = True
        return True

    def _go_on(self, run: Run) -> None:
        try:
            while not self._is_done and not self._stopping.is_set():
                self._try(run)
        except BaseException as failure:  # noqa: BLE001 - a thread that dies in silence leaves all others waiting
            self._failure = failure
            run.fail(failure)

    def _try(self, run: Run) -> None:
        try:
            self._move(run.call, self._stopping.is_set)
        except MergeStopped:
            return
        except FullDiskError as error:
            self._short = short = error  # `error` is gone when the block ends
            run.call(lambda: run.pause(short))
            while run.is_short() and not self._stopping.wait(_LOOK_AGAIN_S):
                pass
            self._short = None
            return
        self._is_done = True
        run.told()


def _here(work: Callable[[], T]) -> T:
    return work()
