"""How long a command takes before it does something: `batchllm --help`, and ten rows until their first request.

`python -m benchmarks.startup [--repeats N] [--quick] [--json FOLDER]`. A server in this process notes when the first
request arrives, and what the run has used by then (from /proc, where there is one). Beside them stand an interpreter
that does nothing, and one that imports the three largest packages, for the same minute.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from benchmarks import harness
from benchmarks.servers import chat_reply, write_rows
from benchmarks.tables import Column, Report

_ROWS = 10
VECTOR_WIDTH = 8
_IMPORTS = "import pyarrow.parquet, aiohttp, pydantic"
_BATCHLLM = [sys.executable, "-m", "batchllm"]
_JOB = {
    "name": "startup",
    "input": {"path": "rows.jsonl", "key": "id"},
    "task": {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 20}},
    "output": {"path": "out"},
}
_COLUMNS = (
    Column("what", "command"),
    Column("cpu_s", "CPU s", ".2f"),
    Column("wall_s", "wall s", ".2f"),
    Column("ratio", "CPU / imports", ".2f"),
)


@dataclass(slots=True)
class Arrivals:
    """When the first call came (monotonic, the same in all processes), and the CPU its client had used by then."""

    client: int = 0
    first_s: float | None = None
    cpu_s: float | None = None
    known: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            if self.first_s is None:
                self.known.wait(10)  # the parent may not have been told the process's number yet
                self.first_s, self.cpu_s = now_s, _cpu_s(self.client)

    def forget(self) -> None:
        self.first_s = self.cpu_s = None
        self.known.clear()


def _cpu_s(process: int) -> float | None:
    stat = Path(f"/proc/{process}/stat")
    return cpu_of(stat.read_text("ascii"), os.sysconf("SC_CLK_TCK")) if stat.exists() else None


def cpu_of(stat: str, ticks_s: int) -> float:
    """User and system seconds in a line of /proc/PID/stat; the name in its parentheses may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_s


@contextmanager
def noting_server() -> Iterator[tuple[str, Arrivals]]:
    """Answers chat completions and embeddings of 8 numbers on a free port of loopback."""
    arrivals = Arrivals()
    reply = chat_reply("positive").encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            arrivals.note()
            asked = self.rfile.read(int(self.headers["content-length"]))
            self._answer(200, _vectors(asked) if self.path.endswith("/embeddings") else reply)

        def do_GET(self) -> None:
            self._answer(404, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", arrivals
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _vectors(asked: bytes) -> bytes:
    texts = json.loads(asked)["input"]
    items = [
        {"object": "embedding", "index": at, "embedding": [0.5] * VECTOR_WIDTH} for at in range(len(texts))
    ]
    usage = {"prompt_tokens": 9 * len(texts), "total_tokens": 9 * len(texts)}
    return json.dumps({"object": "list", "data": items, "model": "m", "usage": usage}).encode()


def jobs(url: str) -> Mapping[str, dict[str, object]]:
    """A lane of one's own, one whose tokens are counted, and a simulated one, whose first call nobody here can see."""
    own = {"provider": "custom", "model": "gpt-4.1-nano", "base_url": url}
    simulated = {"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.0}}}
    lanes = {
        "run, own server": own,
        "run, tpm limit": {**own, "limits": {"tpm": 1_000_000}},
        "run, simulator (to its end)": simulated,
    }
    return {name: {**_JOB, "providers": [lane]} for name, lane in lanes.items()}


@dataclass(frozen=True, slots=True)
class Start:
    """`cpu_s` None where the system does not tell what another process has used."""

    wall_s: float
    cpu_s: float | None


def until_first_call(folder: Path, arrivals: Arrivals) -> Start:
    """From the process's start to the arrival of its first call."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    arrivals.forget()
    start_s = time.monotonic()
    process = subprocess.Popen([*_BATCHLLM, "run", "job.yaml", "--quiet"], cwd=folder)
    arrivals.client = process.pid
    arrivals.known.set()
    code = process.wait(120)
    if code or arrivals.first_s is None:
        raise harness.CommandError(f"batchllm run ended with {code} and sent nothing that was seen")
    return Start(arrivals.first_s - start_s, arrivals.cpu_s)


def to_the_end(command: Sequence[str], folder: Path) -> Start:
    shutil.rmtree(folder / "out", ignore_errors=True)
    used = harness.measured(command, folder=folder)
    return Start(used.wall_s, used.cpu_s)


def turn(folder: Path, url: str, arrivals: Arrivals) -> dict[str, Start]:
    """Everything once, one after the other."""
    found = {
        "python, nothing": to_the_end([sys.executable, "-c", "pass"], folder),
        "python, imports": to_the_end([sys.executable, "-c", _IMPORTS], folder),
        "batchllm --help": to_the_end([*_BATCHLLM, "--help"], folder),
    }
    for name, spec in jobs(url).items():
        (folder / "job.yaml").write_text(json.dumps(spec), "utf-8")
        if "simulator" in name:
            found[name] = to_the_end([*_BATCHLLM, "run", "job.yaml", "--quiet"], folder)
        else:
            found[name] = until_first_call(folder, arrivals)
    return found


def lines(turns: Sequence[Mapping[str, Start]]) -> list[dict[str, object]]:
    """A line a command: medians, and CPU as a multiple of the imports' in the same turn."""
    found: list[dict[str, object]] = []
    for name in turns[0]:
        cpu = [one[name].cpu_s for one in turns]
        told = [one for one in cpu if one is not None]
        ratios = [
            own / imports
            for own, imports in zip(cpu, (one["python, imports"].cpu_s for one in turns), strict=True)
            if own is not None and imports
        ]
        found.append(
            {
                "what": name,
                "cpu_s": median(told) if told else None,
                "wall_s": median(one[name].wall_s for one in turns),
                "ratio": median(ratios) if ratios else None,
            }
        )
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, help="turns (default 7; quick: 1)")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    repeats = parsed.repeats or (1 if chosen.is_quick else 7)
    with tempfile.TemporaryDirectory(prefix="startup-") as name, noting_server() as (url, arrivals):
        folder = Path(name)
        write_rows(folder / "rows.jsonl", _ROWS)
        turns = [turn(folder, url, arrivals) for _ in range(repeats)]
    harness.publish(_report(lines(turns), repeats), chosen)


def _report(found: Sequence[Mapping[str, object]], repeats: int) -> Report:
    notes = (
        f"{_ROWS} rows; medians of {repeats} turns, ratios within a turn; runs are measured to their first request.",
        f"The imports are those that no run is without: {_IMPORTS}.",
    )
    title = "Start-up: --help, and ten rows until their first request"
    return Report("startup", title, harness.machine(), _COLUMNS, found, notes)


if __name__ == "__main__":
    main(sys.argv[1:])
