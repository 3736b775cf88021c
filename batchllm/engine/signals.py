"""Signals → a stop that drains, then one that abandons, then the door.

The first INT, TERM or HUP stops dispatch and waits for the calls in flight. The second abandons them; if that does
not end the process within a few seconds, or a third comes, it leaves at once: what is committed is safe.
A HUP that the shell has set to be ignored (nohup) stays ignored.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def stopping_on_signals(
    loop: asyncio.AbstractEventLoop, stop: Stop, *, in_flight: Callable[[], int], say: Callable[[str], None]
) -> Iterator[None]:
    """While the block runs, signals ask `stop`. Only in the main thread; elsewhere signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def handle(number: signal.Signals) -> None:
        nonlocal seen
        seen += 1
        code = _CODES[number]
        if seen == 1:
            say(
                f"{_WORDS[number]}: sending nothing more, waiting for {in_flight():,} calls in flight"
                " (once more to abandon them)"
            )
            stop.ask(
                Ending(
                    code,
                    f"stopped by {_WORDS[number]}",
                    "run the same command again: it goes on where it was",
                )
            )
        elif seen == 2:
            say(f"{_WORDS[number]}: abandoning {in_flight():,} calls; they may have been paid for")
            stop.ask(Ending(code))
            _leave_later(int(code))
        else:
            os._exit(int(code))

    caught = [number for number in _CODES if signal.getsignal(number) is not signal.SIG_IGN]
    for number in caught:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def _leave_later(code: int) -> None:
    timer = threading.Timer(_LAST_GRACE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()
