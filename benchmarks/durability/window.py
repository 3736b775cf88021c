"""How long an answer waits from its arrival to its commit, and what that costs: a run with a stop-watch at its record.

An answer's window is from `put`, in the turn of the loop in which its reply was read, until the loop has heard that it
is committed. `python -m benchmarks.durability.window FOLDER SLOWER_S` carries out FOLDER/job.yaml and prints what it
measured as JSON; it is a process of its own because its CPU is the figure.
"""

import asyncio
import json
import resource
import shutil
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import uvloop

from batchllm.clock import SystemClock
from batchllm.dispatch import Dispatcher, Lane
from batchllm.events import RunStats
from batchllm.journal import Identity, Journal, Tuning
from batchllm.limit.sharing import LoneMember
from batchllm.plan import Planner
from batchllm.provider.catalogue import load_catalogue
from batchllm.records import JournalRecord
from batchllm.retry import RetryPolicy
from batchllm.running import RunParts, Stop, carry_out
from batchllm.spec.fingerprint import fingerprint, semantic_sections
from batchllm.spec.loading import load_job
from batchllm.wiring import CheckedJob, Frame, build_lanes, check
from benchmarks import harness
from benchmarks.servers import CHAT, constant_server, limited_server, write_job, write_rows


class StopWatch:
    """A record that notes how long each batch of records waited for its commit, and how large the commits were."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._put = 0
        self._safe = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self.waits_s = array("d")
        self.most_waiting = 0
        self.commits = 0

    def put(self, records: Sequence[JournalRecord]) -> None:
        self._put += len(records)
        self._waiting.append((self._put, time.monotonic()))
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        self._journal.put(records)

    def watch(self, committed: Callable[[int], None]) -> None:
        def noted(records: int) -> None:
            now_s = time.monotonic()
            self.commits += records > self._safe
            self._safe = records
            while self._waiting and self._waiting[0][0] <= records:
                self.waits_s.append(now_s - self._waiting.popleft()[1])
            committed(records)

        self._journal.watch(noted)

    async def expose(self, calls: int, usd: float | None) -> None:
        await self._journal.expose(calls, usd)

    @property
    def has_room(self) -> bool:
        return self._journal.has_room

    async def room(self) -> None:
        await self._journal.room()


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU is that of the run alone, reading and HTTP included, without imports and sealing."""

    rows: int
    wall_s: float
    cpu_us: float
    rows_a_commit: float
    p50_ms: float
    p99_ms: float
    most_waiting: int
    peak_mb: float


def measured(folder: Path, slower_s: float) -> Measured:
    """Carry the job of `folder` out, in this process, on a disk that takes so much longer for each commit."""

    def fault(point: str) -> None:
        if slower_s and point == "after_commit":
            time.sleep(slower_s)

    clock = SystemClock()
    checked = check(
        load_job(folder / "job.yaml", environ={}), catalogue=load_catalogue(), environ={}, clock=clock
    )
    sections = semantic_sections(checked.job)
    journal = Journal.open(
        folder / "out",
        identity=Identity(checked.job.name, sections, fingerprint(sections), "0"),
        lanes=[lane.info for lane in checked.lanes],
        slots=1,
        task=checked.task,
        shape=checked.source.shape,
        clock=clock,
        tuning=Tuning(fault=fault),
    )
    watch = StopWatch(journal)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        wall_s, cpu_s = runner.run(_carried_out(checked, journal, watch))
    waits_ms = sorted(wait_s * 1e3 for wait_s in watch.waits_s)
    rows = len(waits_ms)
    return Measured(
        rows,
        wall_s,
        cpu_s / rows * 1e6,
        rows / watch.commits,
        median(waits_ms),
        waits_ms[int(0.99 * (rows - 1))],
        watch.most_waiting,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


async def _carried_out(checked: CheckedJob, journal: Journal, watch: StopWatch) -> tuple[float, float]:
    """Seconds that it took, and seconds of CPU."""
    clock, stats = SystemClock(), RunStats()
    lanes = _lanes(checked, clock)
    stats.lanes = [lane.stats for lane in lanes]
    planner = Planner(
        checked.task,
        checked.starting_counter(),
        max_inputs=checked.max_inputs,
        max_tokens=checked.max_tokens,
        max_request_tokens=None,
        is_finished=journal.finished.has_row,
    )
    parts = RunParts(
        batches=checked.source.batches,
        planner=planner,
        journal=journal,
        dispatcher=Dispatcher(lanes, recorder=watch, policy=RetryPolicy(), stats=stats, clock=clock),
        stats=stats,
        clock=clock,
        units=0,
        is_whole=False,  # it is sealed and not completed: what comes after the last commit is not of interest here
        drain_timeout_s=60.0,
    )
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    await carry_out(parts, Stop())
    took = time.monotonic() - start_s, time.process_time() - start_cpu_s
    for lane in lanes:
        await lane.provider.close()
    return took


def _lanes(checked: CheckedJob, clock: SystemClock) -> list[Lane]:
    frame = Frame(
        task=checked.task,
        retry=checked.job.retry,
        clock=clock,
        prompt_margin=checked.prompt_margin,
        say=lambda text: print(text, file=sys.stderr),
    )
    return build_lanes(checked.lanes, frame, base_urls={}, members=[LoneMember() for _ in checked.lanes])


@dataclass(frozen=True, slots=True)
class Setting:
    """`latency_s` None: the constant server, which answers at once."""

    what: str
    rows: int
    in_flight: int
    latency_s: float | None = None
    slower_s: float = 0.0


SETTINGS = (
    Setting("as fast as it goes", 30_000, 64),
    Setting("as fast as it goes", 30_000, 1_024),
    Setting("answers after 0.3 s", 3_000, 64, latency_s=0.3),
    Setting("each commit 50 ms longer", 10_000, 64, slower_s=0.05),
    Setting("each commit 50 ms longer", 30_000, 1_024, slower_s=0.05),
)


def measure(setting: Setting, folder: Path, *, is_quick: bool) -> Measured:
    """One setting, carried out by a process of its own on a core of its own."""
    cores = harness.cores()
    rows = setting.rows // 20 if is_quick else setting.rows
    write_rows(folder / "rows.jsonl", rows)
    with ExitStack() as stack:
        if setting.latency_s is None:
            url = stack.enter_context(constant_server(core=cores.server)).url + CHAT
        else:
            url = stack.enter_context(limited_server("--latency", str(setting.latency_s), core=cores.server))
        limits = {"rpm": 1e9, "tpm": 1e12, "concurrency": setting.in_flight}
        write_job(folder / "job.yaml", url, limits=limits)
        module = [sys.executable, "-m", "benchmarks.durability.window", str(folder), str(setting.slower_s)]
        done = harness.run_child(module, folder=Path.cwd(), core=cores.client)
    shutil.rmtree(folder / "out", ignore_errors=True)
    if done.code:
        raise harness.CommandError(f"{' '.join(module)} ended with {done.code}: {done.last_line}")
    found = Measured(**json.loads(done.stdout.splitlines()[-1]))
    if found.rows != rows:
        raise harness.BenchmarkError(f"{found.rows} of {rows} rows came to the record")
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(measured(Path(sys.argv[1]), float(sys.argv[2])))))
