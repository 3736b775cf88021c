"""A job that is broken and taken up again: its folder, its provider's books, and the runs, each a process of its own.

The provider is `batchllm simulate` in a process that lives on, with a ledger that has each request in the kernel's
hands before it is answered. Its answers follow from the text, so that an answer at the wrong row, or another one than
an unbroken run gives, shows. The lane is told a price and how many calls it may have in flight.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from benchmarks.durability.checker import Purchase, read_purchases
from benchmarks.harness import BenchmarkError
from benchmarks.servers import limited_server

#: Dollars for a million tokens.
INPUT_USD, OUTPUT_USD = 1.0, 2.0
FINISHED = (0, 3)
_MAX_TOKENS = 30
LONGEST_S = 120.0


@dataclass(frozen=True, slots=True)
class Shape:
    """`rows`, of which each `bad_every`th has no text and fails without being sent."""

    rows: int
    in_flight: int
    bad_every: int = 13


@dataclass(frozen=True, slots=True)
class Ended:
    """`is_hung`: it did not end by itself and was killed."""

    code: int
    stderr: str
    is_hung: bool = False

    @property
    def how(self) -> str:
        """For a sentence about a run that should have ended in another way."""
        end = f"hung for {LONGEST_S:.0f} s" if self.is_hung else f"ended with {self.code}"
        return f"{end}: {self.stderr.strip()}"


#: Starts the command with these words, in this folder, with this environment beside one's own, in a group of its own.
Launch: TypeAlias = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.Popen[str]"]


def from_nothing(
    words: Sequence[str], folder: Path, environ: Mapping[str, str], *, prefix: Sequence[str] = ()
) -> "subprocess.Popen[str]":
    """By an interpreter of its own, or by what `prefix` makes of it."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "batchllm", *words],
        cwd=folder,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Site:
    """One job, of which one run goes on at a time, and states of it to begin from."""

    def __init__(self, folder: Path, shape: Shape, base_url: str, ledger: Path, launch: Launch) -> None:
        self.folder, self.shape, self.ledger, self._launch = folder, shape, ledger, launch
        self._start = 0
        self._before: dict[str, list[Purchase]] = {}
        self._state = ""
        write_texts(folder / "rows.jsonl", shape)
        (folder / "job.yaml").write_text(json.dumps(_job(base_url, shape.in_flight)), "utf-8")

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def reset(self, state: str = "") -> None:
        """The job as it was when `state` was kept; as if it had never run, without one."""
        shutil.rmtree(self.out, ignore_errors=True)
        if state:
            shutil.copytree(self._kept(state), self.out)
        self._state, self._start = state, self.ledger_bytes

    def keep(self, state: str) -> None:
        """A copy of the output as it is, to begin from."""
        shutil.copytree(self.out, self._kept(state))
        self._before[state] = self.purchases

    def _kept(self, state: str) -> Path:
        return self.folder / f"kept-{state}"

    @property
    def ledger_bytes(self) -> int:
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    @property
    def has_bought(self) -> bool:
        """Whether anything was bought since the last `reset`."""
        return self.ledger_bytes > self._start

    @property
    def purchases(self) -> list[Purchase]:
        """All that was bought for the output as it is."""
        return self._before.get(self._state, []) + read_purchases(self.ledger, self._start)

    @contextmanager
    def started(
        self, *, prefix: Sequence[str] = (), more: Sequence[str] = ()
    ) -> Iterator["subprocess.Popen[str]"]:
        """A run, or what `prefix` makes of it; killed at the end if it is still there."""
        launch = partial(from_nothing, prefix=prefix) if prefix else self._launch
        process = launch(
            ["run", "job.yaml", "--progress", "none", *more],
            self.folder,
            {"NO_COLOR": "1", "BATCHLLM_STATE_DIR": str(self.folder / "state")},
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def run(self, *, prefix: Sequence[str] = (), more: Sequence[str] = ()) -> Ended:
        """One run to its end, whatever that is."""
        with self.started(prefix=prefix, more=more) as process:
            return ended(process)


def ended(process: "subprocess.Popen[str]", longest_s: float = LONGEST_S) -> Ended:
    """A run that hangs is killed, with what traces it."""
    try:
        _, stderr = process.communicate(timeout=longest_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
        return Ended(process.returncode, stderr, is_hung=True)
    return Ended(process.returncode, stderr)


def expect_code(run: Ended, codes: Sequence[int]) -> Ended:
    """The run, if it ended like this. Raises BenchmarkError with what it said."""
    if run.code not in codes:
        raise BenchmarkError(f"a run that was to end with {' or '.join(map(str, codes))} {run.how}")
    return run


@contextmanager
def site(
    folder: Path, shape: Shape, *, median_s: float, p99_s: float, launch: Launch = from_nothing
) -> Iterator[Site]:
    """A job in `folder` (new) with a provider of its own."""
    folder.mkdir(parents=True)
    ledger = folder / "ledger.jsonl"
    options = ["--latency", str(median_s), "--p99", str(p99_s), "--ledger", str(ledger)]
    with limited_server(*options) as base_url:
        yield Site(folder, shape, base_url, ledger, launch)


def write_texts(path: Path, shape: Shape) -> None:
    lines = []
    for number in range(shape.rows):
        row = {"id": f"r{number}", "text": f"text number {number}", "gold": number % 3}
        if number % shape.bad_every == shape.bad_every - 1:
            del row["text"]
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _job(base_url: str, in_flight: int) -> dict[str, object]:
    lane = {
        "provider": "custom",
        "name": "local",
        "model": "sim",
        "base_url": base_url,
        "limits": {"rpm": 1e6, "concurrency": in_flight},
        "price": {"input": INPUT_USD, "output": OUTPUT_USD},
    }
    return {
        "name": "broken",
        "input": {"path": "rows.jsonl", "key": "id"},
        "task": {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": _MAX_TOKENS}},
        "providers": [lane],
        "retry": {"backoff_s": 0.02, "max_backoff_s": 0.2},
        "disk_wait_s": 0,  # a disk that is said to be full stays so
        "output": {"path": "out", "carry": ["gold"]},
    }
