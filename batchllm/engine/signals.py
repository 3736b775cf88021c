"""Signals → a stop that drains, then one that abandons, then the door.

The first INT, TERM or HUP stops dispatch and waits for the calls in flight. The second abandons them; if that does
not end the run within a few seconds, or a third comes, the process leaves at once: what is committed is safe.
A HUP that the shell has set to be ignored (nohup) stays ignored. When the run is over, signals mean what they meant
before it: a program that calls `batchllm.run` keeps its own handlers, and its life.

Signals are heard by a thread, not by the loop: a loop that is held up would hear neither the second nor the third one.
The interpreter writes each signal's number to a descriptor at the moment at which it comes, whatever Python does.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from batchllm.dispatch import Ending
from batchllm.errors import ExitCode
from batchllm.running import Stop

_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HANGUP,
}
_WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
_LAST_GRACE_S = 5.0


class RemoteStop:
    """Asks a run in another thread to stop, also before it has begun to listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._endings: list[Ending] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Stop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
        """On the loop's own thread: from now on `stop` hears what is asked, and what was asked before."""
        with self._lock:
            self._loop, self._stop = loop, stop
            endings, self._endings = self._endings, []
        for ending in endings:
            stop.ask(ending)

    def ask(self, ending: Ending) -> None:
        with self._lock:
            loop, stop = self._loop, self._stop
            if loop is None or stop is None:
                self._endings.append(ending)
                return
        with suppress(RuntimeError):  # the loop is closed: the run has ended by itself
            loop.call_soon_threadsafe(stop.ask, ending)


class _Signals:
    """What the first, the second and the third signal do."""

    def __init__(
        self,
        ask: Callable[[Ending], None],
        *,
        leave: Callable[[int], None],
        in_flight: Callable[[], int] = lambda: 0,
        is_finishing: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._ask = ask
        self._is_finishing = is_finishing
        self._leave = leave
        self._in_flight = in_flight
        self._say = say
        self._seen = 0
        self._timer: threading.Timer | None = None

    def handle(self, number: signal.Signals) -> None:
        self._seen += 1
        code, word = _CODES[number], _WORDS[number]
        if self._seen == 1:
            remedy = "run the same command again: it goes on where it was"
            self._ask(Ending(code, f"stopped by {word}", remedy))
            self._tell(
                f"{word}: all answers are kept, and their files are being written (once more to leave:"
                " the next start writes them, and pays nothing)"
                if self._is_finishing()
                else f"{word}: sending nothing more, waiting for {self._in_flight():,} calls in flight"
                " (once more to abandon them)"
            )
        elif self._seen == 2:
            self._ask(Ending(code))
            calls = self._in_flight()
            self._tell(
                f"{word}: abandoning {calls:,} calls; they may have been paid for"
                if calls
                else f"{word}: leaving in {_LAST_GRACE_S:.0f} s at most (once more to leave at once)"
            )
            self._timer = threading.Timer(_LAST_GRACE_S, self._leave, (int(code),))
            self._timer.daemon = True
            self._timer.start()
        else:
            self._leave(int(code))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that hung up cannot be written to, and need not be
            self._say(text)


class _Listener:
    """A thread that hears of each signal; other listeners of the descriptor go on hearing, too."""

    def __init__(self, hear: Callable[[int], None]) -> None:
        self._hear = hear
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="batchllm-signals", daemon=True)
        self._before = -1

    def start(self) -> None:
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)

    def stop(self) -> None:
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        self._theirs.close()
        self._thread.join()
        self._ours.close()

    def _listen(self) -> None:
        while numbers := self._ours.recv(64):
            if self._before >= 0:
                with suppress(OSError):  # the loop's, which needs it for the handlers of its host program
                    os.write(self._before, numbers)
            for number in numbers:
                self._hear(number)


def _note(_number: int, _frame: FrameType | None) -> None:
    """The listener has heard it."""


@contextmanager
def stopping_on_signals(
    loop: asyncio.AbstractEventLoop,
    stop: Stop,
    *,
    in_flight: Callable[[], int],
    say: Callable[[str], None],
    is_finishing: Callable[[], bool] = lambda: False,
    leave: Callable[[int], None] = os._exit,
) -> Iterator[None]:
    """While the block runs, signals ask `stop`. Only in the main thread; elsewhere signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(ending: Ending) -> None:
        loop.call_soon_threadsafe(stop.ask, ending)

    signals = _Signals(ask, leave=leave, in_flight=in_flight, is_finishing=is_finishing, say=say)
    before = {number: signal.getsignal(number) for number in _CODES}
    caught = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def hear(number: int) -> None:
        for known in caught:
            if known == number:
                signals.handle(known)

    listener = _Listener(hear)
    for number in caught:
        signal.signal(number, _note)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        signals.close()
        for number, handler in caught.items():
            if handler is not None:  # None: set by another language, and cannot be put back
                signal.signal(number, handler)


@contextmanager
def interrupts_for(remote: RemoteStop) -> Iterator[None]:
    """While the main thread waits for a run in another one, Ctrl-C goes to that run.

    A third one leaves it to itself and raises KeyboardInterrupt here.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before is None or before is signal.SIG_IGN:
        yield
        return
    seen = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 2:
            raise KeyboardInterrupt
        remedy = "run the same job again: it goes on where it was"
        remote.ask(Ending(ExitCode.INTERRUPTED, "stopped by Ctrl-C", remedy))

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
