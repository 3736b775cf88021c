"""A thread beside the run that writes its heartbeat: every few seconds, and when the run begins to do something else.

It looks at the counters that the run keeps anyway, so that a row costs nothing more. What it cannot write it leaves:
no run ends or waits for that.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchllm.clock import Clock, SystemClock
from batchllm.engine.identity import package_version
from batchllm.engine.vitals import About, Moment, Teller, Vitals
from batchllm.errors import BatchllmError, ExitCode
from batchllm.journal.heartbeat import Beat, BeatFile, boot_id

#: How often is looked whether the run does something else by now.
_LOOK_S = 1.0
#: A write that hangs is left behind: so does the disk then, and the thread keeps nothing from ending.
_LAST_WAIT_S = 2.0

Look = Callable[[Moment], Vitals]


def _nothing(_now: Moment) -> Vitals:
    """Of a run that has only begun."""
    return Vitals()


class Heartbeat:
    """`follow` says what to look at, `ended` how the run ended; both at any time. The clock is the machine's own, since
    other processes compare with theirs.
    """

    def __init__(
        self,
        about: About,
        file: BeatFile,
        *,
        every_s: float,
        say: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self._teller = Teller(about)
        self._file = file
        self._every_s = every_s
        self._say = say
        self._clock = clock or SystemClock()
        self._look: Look = _nothing
        self._code = ExitCode.OK
        self._over = threading.Event()
        self._is_broken = False
        self._written: Beat | None = None
        self._thread = threading.Thread(target=self._run, name="batchllm-heartbeat", daemon=True)

    def follow(self, look: Look) -> None:
        """`look` is called in the thread, while the run goes on."""
        self._look = look

    def ended(self, code: ExitCode) -> None:
        self._code = code

    def start(self) -> None:
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(_LAST_WAIT_S)
        if not self._thread.is_alive():
            self._tell(self._code)

    def _run(self) -> None:
        while not self._over.wait(min(_LOOK_S, self._every_s)):
            self._tell()

    def _tell(self, code: ExitCode | None = None) -> None:
        if self._is_broken:
            return
        now = Moment(self._clock.wall_s(), self._clock.monotonic_s())
        try:
            beat = self._teller.beat(self._look(now), now, code=code)
        except Exception as error:  # noqa: BLE001 - a bug here must not cost the run; it is said, and once
            self._say(f"bug in batchllm: no heartbeat any more: {type(error).__name__}: {error}")
            self._is_broken = True
            return
        if self._is_news(beat) and self._file.write(beat):
            self._written = beat

    def _is_news(self, beat: Beat) -> bool:
        before = self._written
        if before is None or beat.written_s - before.written_s >= self._every_s:
            return True
        return (beat.state, beat.reason, beat.code) != (before.state, before.reason, before.code)


@contextmanager
def beating(
    out: Path, *, job: str, started: float, every_s: float, say: Callable[[str], None]
) -> Iterator[Heartbeat]:
    """While the block runs, `out`, which is locked since `started`, has the heartbeat of its run.

    Whoever knows how the run ended says so with `ended`; an error says so itself.
    """
    about = About(job, package_version(), os.getpid(), socket.gethostname(), boot_id(), started)
    with BeatFile(out) as file:
        heart = Heartbeat(about, file, every_s=every_s, say=say)
        heart.start()
        try:
            yield heart
        except BatchllmError as error:
            heart.ended(error.exit_code)
            raise
        except BaseException as error:
            heart.ended(_code_of(error))
            raise
        finally:
            heart.stop()


def _code_of(error: BaseException) -> ExitCode:
    """As the command line ends with it."""
    if isinstance(error, KeyboardInterrupt):  # for SIGTERM and SIGHUP one that has the signal's number
        return ExitCode(128 + getattr(error, "number", signal.SIGINT))
    return ExitCode.IO if isinstance(error, OSError) else ExitCode.BUG
