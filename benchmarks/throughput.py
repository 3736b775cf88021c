"""CPU a row of a whole run (JSONL in, Parquet and journal out) against the bare loop; peak memory.

`python -m benchmarks.throughput [ROWS] [REPEATS]`: prints a table, medians over the repeats.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import constant_server, write_job, write_rows

_IN_FLIGHT = (64, 1024)


@dataclass(frozen=True, slots=True)
class Measured:
    rows: int
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.rows * 1e6


def run_once(folder: Path, base_url: str, rows: int, in_flight: int) -> Measured:
    write_job(folder / "job.yaml", base_url, in_flight=in_flight)
    subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
    return _measured([sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet"], folder, rows)


def bare_once(base_url: str, calls: int, in_flight: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.bare", base_url, str(calls), str(in_flight)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Measured(calls, said["wall_s"], said["cpu_s"], said["peak_mb"])


def _measured(command: list[str], folder: Path, rows: int) -> Measured:
    """CPU and peak memory of one child, by the operating system's account of it alone."""
    report = folder / "usage.json"
    wrapper = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[2:])\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "json.dump([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], open(sys.argv[1], 'w'))\n"
    )
    start_s = time.monotonic()
    subprocess.run([sys.executable, "-c", wrapper, str(report), *command], cwd=folder, check=True)
    wall_s = time.monotonic() - start_s
    code, cpu_s, peak_mb = json.loads(report.read_text())
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return Measured(rows, wall_s, cpu_s, peak_mb)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with tempfile.TemporaryDirectory() as name, constant_server() as base_url:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", rows)
        print(f"{'in flight':>9} {'rows/s':>8} {'CPU us/row':>10} {'bare us':>8} {'ratio':>6} {'peak MB':>8}")
        for in_flight in _IN_FLIGHT:
            runs, bares = [], []
            for _ in range(repeats):
                runs.append(run_once(folder, base_url, rows, in_flight))
                bares.append(bare_once(base_url, rows, in_flight))
            ratio = statistics.median(run.cpu_us / bare.cpu_us for run, bare in zip(runs, bares, strict=True))
            print(
                f"{in_flight:>9} {statistics.median(run.rows / run.wall_s for run in runs):>8,.0f}"
                f" {statistics.median(run.cpu_us for run in runs):>10.0f}"
                f" {statistics.median(bare.cpu_us for bare in bares):>8.0f} {ratio:>6.2f}"
                f" {max(run.peak_mb for run in runs):>8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
