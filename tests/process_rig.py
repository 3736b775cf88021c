"""The command as a process of its own, which a test watches, stops, kills, and starts again.

It is forked from a template that has imported all that a command needs: a fork costs milliseconds where a new
interpreter with Arrow and numpy costs a second. What is under strace, in a mount of its own, or about the start itself
is started from nothing; `started` does so where something is to stand `before` it.
"""

import atexit
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn, Self, TypeAlias

from batchllm.simulate import SimulatedProvider

ROOT = Path(__file__).parents[1]
#: A failed test, not a time to pass.
BOUND_S = 50
#: What commands import as late as they can.
_LATE = ("polars", "uvloop", "rich.live", "tiktoken", "openai")
#: Threads that tidy up in the background, and that an import begins.
_EXPENDABLE = {"jemalloc_bg_thd", "polars-ooc-clea"}
_MOST_BYTES = 1 << 17


class Command:
    """A forked command: what tests use of `subprocess.Popen`, by the same names."""

    def __init__(self, told: int, stdout: int, stderr: int) -> None:
        self._told, self.stdout, self.stderr = (os.fdopen(place) for place in (told, stdout, stderr))
        self.returncode: int | None = None
        self._readers: dict[str, threading.Thread] = {}
        self._said: dict[str, str] = {}
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        return self._heard(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._heard(timeout) is None:
            raise subprocess.TimeoutExpired("batchllm", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def _heard(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = int(self._told.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it says from now on, and its end."""
        for name, stream in (("out", self.stdout), ("err", self.stderr)):
            if name not in self._readers:
                self._readers[name] = threading.Thread(target=self._read, args=(name, stream), daemon=True)
                self._readers[name].start()
        self.wait(timeout)
        for reader in self._readers.values():
            reader.join()
        self._close()
        return self._said["out"], self._said["err"]

    def _read(self, name: str, stream: IO[str]) -> None:
        self._said[name] = stream.read()

    def _close(self) -> None:
        for stream in (self._told, self.stdout, self.stderr):
            stream.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        self._close()


Process: TypeAlias = "Command | subprocess.Popen[str]"


def fork(
    *args: str,
    cwd: Path = ROOT,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Command:
    """`batchllm ARGS` in `cwd`, with `environ` beside this process's own environment.

    What goes to a descriptor that is given is not read here.
    """
    asked = {"args": args, "cwd": str(cwd), "environ": {**os.environ, **(environ or {})}}
    pipes = [os.pipe() for _ in range(3)]
    told, *said = (write for _, write in pipes)
    given = [place if own is None else own for place, own in zip(said, (stdout, stderr), strict=True)]
    socket.send_fds(_template(), [json.dumps(asked).encode()], [told, *given])
    for _, write in pipes:
        os.close(write)
    return Command(*(read for read, _ in pipes))


def launched(words: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Command:
    return fork(*words, cwd=folder, environ=environ)


def called(*args: str, cwd: Path = ROOT, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command to its end."""
    with fork(*args, cwd=cwd, environ={"NO_COLOR": "1", **environ}) as process:
        out, err = process.communicate(timeout=BOUND_S)
        return subprocess.CompletedProcess(args, process.wait(), out, err)


@contextmanager
def started(
    job: Path, *args: str, before: Sequence[str] = (), cwd: Path = ROOT, **environ: str
) -> Iterator["Process"]:
    """A run of `job`, killed at the end if it is still there."""
    environ = {"NO_COLOR": "1", "BATCHLLM_STATE_DIR": str(job.parent / "state"), **environ}
    words = ("run", str(job), *args)
    if not before:
        with fork(*words, cwd=cwd, environ=environ) as command:
            yield command
        return
    with subprocess.Popen(
        [*before, sys.executable, "-m", "batchllm", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(job: Path, condition: Callable[[], object], *args: str) -> int | None:
    """Start a run, and kill it once `condition` holds; the exit code of one that ended before."""
    with started(job, *args) as process:
        while not condition():
            if process.poll() is not None:
                return process.returncode
            time.sleep(0.002)
        process.kill()
        process.wait()
    return None


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    for _ in range(BOUND_S * 200):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come about")


def wait_for(book: SimulatedProvider, accepted: int) -> None:
    """Until the provider has let in so many requests."""
    wait_until(lambda: book.ledger.accepted >= accepted, f"request number {accepted}")


@cache
def _template() -> socket.socket:
    """One for each test process; it ends with it, when nobody is left to ask it for anything."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )

    def end() -> None:
        ours.close()
        process.wait(BOUND_S)

    atexit.register(end)
    return ours


def _serve(number: int) -> None:
    """The template: forks for each request a keeper, which forks the command and tells its id, then its end."""
    _load()
    gc.freeze()  # a fork does not look through all of it once more when it ends
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=number) as requests:
        while True:
            asked, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES, 3)
            if not asked:
                return
            if os.fork() == 0:
                requests.close()
                _keep(json.loads(asked), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _load() -> None:
    import batchllm

    sys.modules["vl_convert"] = None  # type: ignore[assignment] # see conftest.py
    for module in pkgutil.walk_packages(batchllm.__path__, "batchllm."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in _LATE:
        import_module(name)
    others = [task for task in Path("/proc/self/task").glob("*") if task.name != str(os.getpid())]
    if left := {(task / "comm").read_text().strip() for task in others} - _EXPENDABLE:
        raise SystemExit(f"the template has threads that a fork would not take along: {left}")


def _keep(asked: dict[str, object], told: int, stdout: int, stderr: int) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become(asked, stdout, stderr)
    os.setpgid(pid, pid)
    os.close(stdout)
    os.close(stderr)
    os.write(told, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(asked: dict[str, object], stdout: int, stderr: int) -> NoReturn:
    from batchllm.cli.main import main

    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, max(stdout, stderr) + 1)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["environ"])  # type: ignore[arg-type, call-overload] # from JSON that this module made
    sys.argv = ["batchllm", *asked["args"]]  # type: ignore[misc, list-item]
    main()
    raise AssertionError("a command ends its process")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
