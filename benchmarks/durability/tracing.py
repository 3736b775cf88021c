"""Faults at a chosen system call of a run, by strace: a kill as it is entered, or a disk that is full or dead.

strace counts the calls of each thread and of each system call for itself, and `when=N` means the Nth of whichever
thread comes there first. A run's main thread and the writer of its record share many numbers, so that not each call can
be met from outside in one way. That is why there are two doors: a run that is traced from its start, where what the
main thread does first is met, and one that strace joins at its first request, with counters that begin there.

Nothing is injected with --seccomp-bpf: strace 6.1 then lets most calls pass that it should have answered with a signal.
"""

import re
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from benchmarks.harness import BenchmarkError

Door = Literal["start", "first request"]
WRITES = ("write", "pwrite64", "writev", "pwritev")
SYNCS = ("fsync", "fdatasync")
NAMES = (
    "ftruncate",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
)
#: `openat` is traced whole and counts only where it creates.
WRITE_CLASS = (*WRITES, *SYNCS, *NAMES, "openat")
_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_OPEN, _NAMED = re.compile(r"<(/[^>]*)>"), re.compile(r'"([^"]+)"')
_ATTACH_S = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """One traced call: the `nth` of this name in its thread, and the file that it is about, as far as it is told."""

    thread: int
    name: str
    nth: int
    path: str
    rest: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the Nth call of `name`; `lasts`: at all later ones as well. `error` None is a SIGKILL."""

    name: str
    nth: int
    error: str | None = None
    lasts: bool = False

    def __str__(self) -> str:
        what = "signal=SIGKILL" if self.error is None else f"error={self.error}"
        return f"inject={self.name}:{what}:when={self.nth}{'+' if self.lasts else ''}"


@cache
def why_not() -> str | None:
    """Why faults cannot be injected here; None where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    try:
        killed = subprocess.run(
            [
                "strace",
                "-f",
                "-qq",
                "-e",
                "trace=write",
                "-e",
                "inject=write:signal=SIGKILL:when=1",
                "echo",
                "x",
            ],
            capture_output=True,
            timeout=_ATTACH_S,
            check=False,
        )
        if killed.returncode != -signal.SIGKILL:
            return "strace may not trace here: allow ptrace (in a container: --cap-add SYS_PTRACE)"
        return _why_not_attach()
    except subprocess.TimeoutExpired:
        return "strace hangs here"


def _why_not_attach() -> str | None:
    with subprocess.Popen(["sleep", "20"]) as process:
        try:
            with joined(process.pid, options(None, Path("/dev/null"))):
                return None
        except BenchmarkError:
            return "strace may not join a process here: set kernel.yama.ptrace_scope to 0, or be root"
        finally:
            process.kill()


def options(fault: Fault | None, log: Path) -> list[str]:
    """strace on all threads: all calls of the write class, or what `fault` is about."""
    names = WRITE_CLASS if fault is None else (fault.name,)
    chosen = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={','.join(names)}"]
    return chosen if fault is None else [*chosen, "-e", str(fault)]


@contextmanager
def joined(pid: int, chosen: Sequence[str]) -> Iterator[None]:
    """strace with these `options` on a process that runs, until it ends or this is left."""
    tracer = subprocess.Popen(
        [*chosen, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        said = tracer.stderr.readline() if tracer.stderr is not None else ""
        if "attached" not in said:
            raise BenchmarkError(f"strace could not join process {pid}: {said.strip()}")
        yield
    finally:
        if tracer.poll() is None:
            tracer.terminate()
        tracer.communicate()


def read_calls(log: Path) -> list[Call]:
    """The calls of a log, in the order in which they began."""
    seen: dict[tuple[int, str], int] = defaultdict(int)
    calls = []
    for line in log.read_text("utf-8", "replace").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        thread, name, rest = int(found["thread"]), found["name"], found["rest"]
        seen[thread, name] += 1
        path = (_OPEN if name in (*WRITES, *SYNCS, "ftruncate") else _NAMED).search(rest)
        calls.append(Call(thread, name, seen[thread, name], "" if path is None else path[1], rest))
    return calls


def points(calls: Sequence[Call], door: Door) -> list[Call]:
    """The call that each (name, N) meets: that of the thread which comes there first.

    From the start only those of the main thread count: what follows the first request is met through the other door.
    """
    main = calls[0].thread if calls else 0
    met: dict[tuple[str, int], Call] = {}
    for call in calls:
        met.setdefault((call.name, call.nth), call)
    return [
        call
        for call in met.values()
        if (door != "start" or call.thread == main) and (call.name != "openat" or "O_CREAT" in call.rest)
    ]
