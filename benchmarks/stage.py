"""Where a scenario plays: simulated providers and runs of batchllm, each in a process of its own, all of them bounded.

A scenario sees the run as the provider does: through the ledgers, once the servers have stopped.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from benchmarks.ledgers import Call, call_of

#: How long a run that was told to stop may take before it is killed: it waits for calls in flight.
_STOPPING_S = 30.0
_TEXT = (
    "the a kettle tent works great but slow really bad nice lid broke after two weeks would buy it again and my"
    " sister likes hers better than this one which is fine for the price I guess"
)
_KEY_VARIABLE = "BENCHMARK_KEY"


@dataclass(frozen=True, slots=True)
class Lane:
    """A simulated provider (`simulation`: the keys of a job's simulate section), and what the run is told of it."""

    name: str
    simulation: Mapping[str, object]
    limits: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float | None = None


@dataclass(slots=True)
class Server:
    process: "subprocess.Popen[str]"
    base_url: str
    ledger: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is None for a run that had to be killed; `ok` counts the rows that it says are answered, in all starts."""

    code: int | None
    ok: int
    at_s: float


class Run:
    """One start of a job in a process of its own."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "batchllm", "run", "job.yaml", "--json", "--progress", "none"]
        self._errors = (folder / "stderr.txt").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def stop(self) -> None:
        """SIGTERM: a shell starts what runs behind its back with SIGINT ignored, and that is inherited."""
        self._process.terminate()

    def kill(self) -> float:
        """When it was killed."""
        self._process.kill()
        at_s = time.monotonic()
        self._process.wait()
        return at_s

    def wait(self, most_s: float) -> Ended:
        """Lets it end by itself; after `most_s` it is told to stop, and killed if it does not."""
        for patience_s, then in ((most_s, self.stop), (_STOPPING_S, self._process.kill)):
            try:
                return self._ended(self._process.communicate(timeout=patience_s)[0])
            except subprocess.TimeoutExpired:
                then()
        self._process.wait()
        return Ended(None, 0, time.monotonic())

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _ended(self, stdout: str) -> Ended:
        at_s = time.monotonic()
        said = json.loads(stdout.splitlines()[-1]) if stdout.strip() else {}
        rows = said.get("rows", {})
        return Ended(self._process.returncode, rows.get("ok", 0) + rows.get("reused", 0), at_s)


class Stage:
    """Servers and runs of one scenario. `is_quick`: a third of the time, for a look and not for a figure."""

    def __init__(self, folder: Path, *, is_quick: bool) -> None:
        self._folder = folder
        self._is_quick = is_quick
        self._open = ExitStack()
        self._servers: dict[str, Server] = {}
        self._environ = {_KEY_VARIABLE: f"benchmark-{token_hex(8)}"}

    def seconds(self, usual_s: float) -> float:
        return usual_s / 3 if self._is_quick else usual_s

    def serve(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._servers[lane.name] = self._open.enter_context(_served(self._folder, lane))

    def write_job(
        self, name: str, lanes: Sequence[Lane], rows: int, *, tokens: tuple[int, int] = (20, 60)
    ) -> None:
        """A job whose rows begin with `name` and their number; `tokens`: least and most of a prompt, spread by size."""
        folder = self._folder / name
        folder.mkdir()
        _write_rows(folder / "rows.jsonl", name, rows, tokens)
        job = {
            "name": name,
            "input": {"path": "rows.jsonl", "key": "id"},
            "task": {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 20}},
            "providers": [self._entry(lane) for lane in lanes],
            "output": {"path": "out"},
        }
        (folder / "job.yaml").write_text(json.dumps(job), "utf-8")

    def start(self, name: str) -> Run:
        run = Run(self._folder / name, self._environ)
        self._open.callback(run.close)
        return run

    def calls(self, lane: str) -> list[Call]:
        """All that the lane's provider saw, in order of arrival. Stops its server."""
        server = self._servers[lane]
        if server.process.poll() is None:
            server.process.terminate()
            server.process.wait(timeout=20)
        return read_ledger(server.ledger)

    def close(self) -> None:
        self._open.close()

    def _entry(self, lane: Lane) -> dict[str, object]:
        entry: dict[str, object] = {
            "provider": "custom",
            "name": lane.name,
            "model": "simulated",
            "base_url": self._servers[lane.name].base_url,
            "api_key": f"${{{_KEY_VARIABLE}}}",
            "limits": dict(lane.limits),
        }
        return entry if lane.timeout_s is None else {**entry, "timeout_s": lane.timeout_s}


def read_ledger(path: Path) -> list[Call]:
    """The calls for rows, in order of arrival."""
    with path.open("rb") as lines:
        found = [call_of(json.loads(line)) for line in lines]
    return [call for call in found if call is not None]


@contextmanager
def _served(folder: Path, lane: Lane) -> Iterator[Server]:
    config, ledger = folder / f"{lane.name}.yaml", folder / f"{lane.name}.ledger.jsonl"
    config.write_text(json.dumps(lane.simulation), "utf-8")
    command = [sys.executable, "-m", "batchllm", "simulate", "--port", "0", "--quiet"]
    process = subprocess.Popen(
        [*command, "--config", str(config), "--ledger", str(ledger)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(f"the simulated provider {lane.name} did not start: see above")
            yield Server(process, line.strip(), ledger)
        finally:
            process.terminate()


def _write_rows(path: Path, name: str, rows: int, tokens: tuple[int, int]) -> None:
    """As many prompts of each doubling of the size. A token is four bytes here, as in the ledger."""
    dice = random.Random(rows)
    least, most = tokens
    words = _TEXT.split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            size = 4 * least * (most / least) ** dice.random()
            text = f"{name} {number}"
            while len(text) < size:
                text += " " + " ".join(dice.choices(words, k=max(1, int((size - len(text)) / 10))))
            file.write(json.dumps({"id": f"{name}{number:07d}", "text": text}) + "\n")
