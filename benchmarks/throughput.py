"""CPU a row of a whole run against the bare loop: JSONL in, Parquet and journal out.

`python -m benchmarks.throughput [--rows N] [--repeats N] [--quick] [--json FOLDER]`

Everything is on that a run has: limits are told (so high that they never bind, so that pacing, token counting and
settling all happen), each answer gets its verdict, usage and attempts are kept. The bare loop sends the same
prompts to the same server. Both are pinned to one core, nginx to another; they take turns, and the ratio is taken
within each turn. Starting up (measured by a run of ten rows) is a constant that a long run forgets: `net` is the
ratio without it.

What is found of a short answer is remembered, since classification brings the same few; the answers of one setting
are all different, so that its figure is without that.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import harness
from benchmarks.harness import Cores, Usage
from benchmarks.servers import (
    CHAT,
    QUOTING,
    SCHEMA,
    TYPED,
    VARIED,
    Server,
    constant_server,
    write_job,
    write_rows,
)
from benchmarks.tables import Column, Report

_IN_FLIGHT = (64, 1024)
_START_ROWS = 10
#: Per minute; the fastest run here sends a hundredth of it.
_NEVER_BINDS = {"rpm": 100_000_000.0, "tpm": 100_000_000_000.0}

_COLUMNS = (
    Column("setting", "setting"),
    Column("in_flight", "in flight", ",d"),
    Column("ratio", "CPU × bare", ".2f"),
    Column("net_ratio", "net", ".2f"),
    Column("cpu_us", "CPU µs/row", ".0f"),
    Column("bare_us", "bare µs/call", ".0f"),
    Column("rows_s", "rows/s on one core", ",.0f"),
    Column("core_share", "got of the core", ".0%"),
    Column("bare_s", "bare calls/s", ",.0f"),
    Column("start_s", "start CPU s", ".2f"),
    Column("bare_start_s", "bare start CPU s", ".2f"),
    Column("peak_mb", "peak MB", ".0f"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run: what it is called, where the answers are, and what the job asks for."""

    name: str
    path: str = CHAT
    schema: Mapping[str, object] | None = None
    is_tls: bool = False


SETTINGS = (
    Setting("text"),
    Setting("schema, a typed column", path=TYPED, schema=SCHEMA),
    Setting("schema, two columns, no answer twice", path=VARIED, schema=QUOTING),
    Setting("text, TLS", is_tls=True),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with rows of both lengths, a server, and where both sides run."""

    folder: Path
    server: Server
    cores: Cores
    rows: int

    def run(self, setting: Setting, in_flight: int, rows: int) -> Usage:
        """One whole `batchllm run` over the first `rows` rows."""
        job = self.folder / "job.yaml"
        limits = {**_NEVER_BINDS, "concurrency": in_flight}
        write_job(job, self.server.url + setting.path, limits=limits, schema=setting.schema)
        if (self.folder / "out").exists():
            shutil.rmtree(self.folder / "out")
        command = [sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet", "--limit", str(rows)]
        return self._measured(command, self.folder)

    def bare(self, setting: Setting, in_flight: int, calls: int) -> Usage:
        url = self.server.url + setting.path
        where = [url, str(self.folder / "rows.jsonl"), str(calls), str(in_flight)]
        return self._measured([sys.executable, "-m", "benchmarks.bare", *where], Path(__file__).parents[1])

    def _measured(self, command: list[str], folder: Path) -> Usage:
        return harness.measured(command, folder=folder, core=self.cores.client, environ=self.server.environ)


def compare(bench: Bench, setting: Setting, in_flight: int, repeats: int) -> dict[str, object]:
    """One line of the table."""
    found = harness.in_turns(
        repeats,
        run=partial(bench.run, setting, in_flight, bench.rows),
        bare=partial(bench.bare, setting, in_flight, bench.rows),
        start=partial(bench.run, setting, in_flight, _START_ROWS),
        bare_start=partial(bench.bare, setting, in_flight, _START_ROWS),
    )
    return {"setting": setting.name, "in_flight": in_flight, **figures(bench.rows, **found)}


def figures(
    rows: int, *, run: list[Usage], bare: list[Usage], start: list[Usage], bare_start: list[Usage]
) -> dict[str, object]:
    """Medians over the turns. `net_ratio` leaves out what `start` took, for both sides."""
    rows_s = median(rows / one.wall_s for one in run)
    cpu_us = median(one.cpu_us(rows) for one in run)
    return {
        "rows": rows,
        "ratio": harness.paired_ratio([one.cpu_s for one in run], [one.cpu_s for one in bare]),
        "net_ratio": harness.paired_ratio(_net(run, start), _net(bare, bare_start)),
        "ratios": [one.cpu_s / other.cpu_s for one, other in zip(run, bare, strict=True)],
        "cpu_us": cpu_us,
        "bare_us": median(one.cpu_us(rows) for one in bare),
        "rows_s": rows_s,
        "core_share": rows_s * cpu_us / 1e6,
        "bare_s": median(rows / one.wall_s for one in bare),
        "start_s": median(one.cpu_s for one in start),
        "bare_start_s": median(one.cpu_s for one in bare_start),
        "peak_mb": max(one.peak_mb for one in run),
    }


def _net(whole: Sequence[Usage], start: Sequence[Usage]) -> list[float]:
    """CPU seconds without starting up, each turn less the median start, which varies less than one start does."""
    constant = median(one.cpu_s for one in start)
    return [one.cpu_s - constant for one in whole]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--rows", type=int, help="rows of each run (default 50,000; quick: 5,000)")
    parser.add_argument("--repeats", type=int, help="turns (default 5; quick: 1)")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    rows = parsed.rows or (5_000 if chosen.is_quick else 50_000)
    repeats = parsed.repeats or (1 if chosen.is_quick else 5)
    harness.allow_open_files()
    cores = harness.cores()
    lines: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        write_rows(Path(name) / "rows.jsonl", rows)
        for setting in SETTINGS:
            with constant_server(core=cores.server, is_tls=setting.is_tls) as server:
                bench = Bench(Path(name), server, cores, rows)
                lines += [compare(bench, setting, in_flight, repeats) for in_flight in _IN_FLIGHT]
    harness.publish(_report(lines, rows, repeats, cores), chosen)


def _report(lines: Sequence[Mapping[str, object]], rows: int, repeats: int, cores: Cores) -> Report:
    notes = (
        f"{rows:,} rows, medians of {repeats} turns; {cores.text()}.",
        "CPU is user and system of the whole process, start-up included; net is the ratio without it.",
        harness.CORE_NOTE,
    )
    title = "CPU a row of a whole run against the bare loop"
    return Report("throughput", title, harness.machine(), _COLUMNS, lines, notes)


if __name__ == "__main__":
    harness.entry(main)
