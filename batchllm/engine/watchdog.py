"""When the loop does not turn, or somebody asks: where does each thread stand?

A loop that is held up by a call that never returns can neither say so nor hear of it; a thread beside it can. What it
prints are files, lines and names of functions, and no values: there may be answers and keys among them.
"""

import asyncio
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

#: Ten times what the slowest step on the loop is allowed to take.
_STUCK_S = 60.0
_TICK_S = 1.0
#: The watching thread itself is late by so much: the process was stopped, or the machine slept.
_STOPPED_S = 5.0


class Pulse:
    """Decides whether the loop has stood still for too long; told of each beat and of each look."""

    def __init__(self, now_s: float, stuck_s: float) -> None:
        self._stuck_s = stuck_s
        self._beat_s = self._looked_s = now_s
        self._is_told = False

    @property
    def beat_s(self) -> float:
        """When the loop last turned, on the monotonic clock."""
        return self._beat_s

    def beat(self, now_s: float) -> None:
        self._beat_s = now_s

    def look(self, now_s: float) -> bool:
        """Whether to tell now; true once a run."""
        if now_s - self._looked_s > _TICK_S + _STOPPED_S:
            self._beat_s = now_s  # nothing ran meanwhile, the loop as little as this thread
        self._looked_s = now_s
        is_stuck = now_s - self._beat_s >= self._stuck_s
        tells, self._is_told = is_stuck and not self._is_told, self._is_told or is_stuck
        return tells


@contextmanager
def watching_loop(
    loop: asyncio.AbstractEventLoop,
    *,
    say: Callable[[str], None],
    show: Callable[[], None] = lambda: None,
    stuck_s: float = _STUCK_S,
    file: TextIO | None = None,
) -> Iterator[Pulse]:
    """While the block runs, a loop that stands still is told with the stacks of all threads. Yields when it turned.

    SIGQUIT prints them as well, and then, once the loop turns, calls `show`.
    """
    target = file or sys.__stderr__
    pulse = Pulse(time.monotonic(), stuck_s)
    done = threading.Event()
    timer: asyncio.TimerHandle | None = None

    def beat() -> None:
        nonlocal timer
        pulse.beat(time.monotonic())
        timer = loop.call_later(_TICK_S, beat)

    def watch() -> None:
        while not done.wait(min(_TICK_S, stuck_s)):
            if pulse.look(time.monotonic()):
                say(
                    f"nothing has moved for {stuck_s:.0f} s: the stacks of all threads follow; the run goes on"
                )
                _dump(target)

    beat()
    thread = threading.Thread(target=watch, name="batchllm-watchdog", daemon=True)
    thread.start()
    try:
        with _stacks_on_quit(target, show):
            yield pulse
    finally:
        done.set()
        thread.join()
        if timer is not None:
            timer.cancel()


@contextmanager
def _stacks_on_quit(target: TextIO | None, show: Callable[[], None]) -> Iterator[None]:
    """SIGQUIT (Ctrl-backslash) shows where it stands and changes nothing, unless the host program has a use for it."""
    is_ours = (
        _has_descriptor(target)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
    )
    if not is_ours or target is None:
        yield
        return
    signal.signal(signal.SIGQUIT, lambda _number, _frame: show())
    faulthandler.register(signal.SIGQUIT, file=target, all_threads=True, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGQUIT)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _dump(target: TextIO | None) -> None:
    if target is not None and _has_descriptor(target):
        faulthandler.dump_traceback(file=target, all_threads=True)


def _has_descriptor(target: TextIO | None) -> bool:
    """Notebooks and closed streams have none, and there is nowhere to print to."""
    try:
        return target is not None and target.fileno() >= 0
    except (OSError, ValueError):
        return False
