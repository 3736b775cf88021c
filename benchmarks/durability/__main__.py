"""Whether what was paid for is kept, and how soon.

`python -m benchmarks.durability [PART ...] [--every N] [--quick] [--json FOLDER]`; PART: matrix (a break at each
write-class system call), moments (200 kills at random), field (one kill in 1,000 rows, as other runners were measured),
window (how long an answer waits for its commit). The first three are held to this: after a resume nothing is lost or
doubled, no more is bought again than was in flight, and the resume has said so. It ends with an error if one case was
not so.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks import harness
from benchmarks.durability import matrix, moments, tracing, window
from benchmarks.durability.matrix import SCENES, SHAPE, Bench, Outcome, Scene
from benchmarks.durability.tracing import SYNCS, Fault
from benchmarks.harness import BenchmarkError
from benchmarks.tables import Column, Report

PARTS = ("matrix", "moments", "field", "window")
_WORKERS = 2
_TRIES = 3
_SEED = 4
#: Kills in one job's life, and such jobs: a life ends sooner when its job does, and 200 kills are wanted.
_KILLS, _LIVES = 8, 40
_FIELD_KILLS = 9
_FSYNCS, _FSYNC_BYTES = 200, 32 << 10
_QUICK_STEP = 40
T = TypeVar("T")
R = TypeVar("R")

_COLUMNS = (
    Column("fault", "fault"),
    Column("at", "at"),
    Column("scene", "job"),
    Column("points", "points", ",d"),
    Column("met", "met", ",d"),
    Column("lost", "lost", ",d"),
    Column("again", "bought again, most", ",d"),
    Column("mean", "mean", ".1f"),
    Column("told", "told, most", ",d"),
    Column("hung", "hung", ",d"),
    Column("wrong", "not as held to", ",d"),
)
_FIELD_COLUMNS = (
    Column("rows", "rows", ",d"),
    Column("in_flight", "in flight", ",d"),
    Column("kills", "kills", ",d"),
    Column("answered", "answered, bought again: median", ".0f"),
    Column("answered_most", "most", ",d"),
    Column("bought", "with calls in flight: median", ".0f"),
    Column("out", "in flight at the kill: median", ".0f"),
    Column("told", "told, most", ",d"),
    Column("lost", "lost", ",d"),
)
_WINDOW_COLUMNS = (
    Column("what", "load"),
    Column("in_flight", "in flight", ",d"),
    Column("rate", "rows/s", ",.0f"),
    Column("cpu_us", "CPU µs/row", ".0f"),
    Column("rows_a_commit", "rows a commit", ".0f"),
    Column("p50_ms", "window p50 ms", ".1f"),
    Column("p99_ms", "p99 ms", ".1f"),
    Column("most_waiting", "most rows waiting", ",d"),
    Column("peak_mb", "peak MB", ".0f"),
)


class Wrong:
    """What was not as it is held to be, said at once and kept."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._lock = threading.Lock()

    def note(self, what: str, outcome: Outcome) -> None:
        for sentence in outcome.wrong:
            with self._lock:
                self.found.append(f"{what}: {sentence}")
                print(f"WRONG {what}: {sentence}", file=sys.stderr, flush=True)


def over(
    work: Sequence[T],
    made: Callable[[Path], AbstractContextManager[R]],
    one: Callable[[R, T], Outcome],
    wrong: Wrong,
) -> list[Outcome]:
    """`one` for each piece of work, a bench a worker; what each gave, in the order of `work`."""
    left: Iterator[tuple[int, T]] = iter(enumerate(work))
    lock = threading.Lock()
    found: dict[int, Outcome] = {}

    def worker(number: int, folder: Path) -> None:
        with made(folder / f"bench-{number}") as bench:
            while True:
                with lock:
                    at, piece = next(left, (None, None))
                if at is None or piece is None:
                    return
                found[at] = one(bench, piece)
                wrong.note(str(piece), found[at])
                if len(found) % 50 == 0:
                    print(f"{len(found)} of {len(work)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="durability-") as name, ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(worker, number, Path(name)) for number in range(_WORKERS)]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            with lock:  # told to stop, or a worker has failed: the others end after what they are at
                left = iter(())
    return [found[at] for at in range(len(work))]


def break_points(bench: Bench) -> Iterator[tuple[Scene, Fault]]:
    """Every point of the long matrix."""
    for scene in SCENES.values():
        for call in bench.calls(scene):
            yield scene, Fault(call.name, call.nth)
        for call in bench.own_calls(scene, SYNCS):
            yield scene, Fault(call.name, call.nth, "EIO")
        for call in bench.full_disk_calls(scene):
            # A disk that is full stays full; later ones of `write` may be for a socket, so there it is this one call.
            yield scene, Fault(call.name, call.nth, "ENOSPC", lasts=call.name != "write")


def run_matrix(chosen: harness.Options, wrong: Wrong, every: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="durability-") as name,
        matrix.bench(Path(name) / "bench") as bench,
    ):
        work = list(break_points(bench))
    total = len(work)
    work = work[:: _QUICK_STEP if chosen.is_quick else every]
    found = over(work, matrix.bench, _broken, wrong)
    groups: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    for (scene, fault), outcome in zip(work, found, strict=True):
        groups[fault.error or "SIGKILL", fault.name, scene.name].append(outcome)
    lines = [_line(*key, outcomes) for key, outcomes in sorted(groups.items())]
    lines.append(_line("all", "", "", found))
    notes = (
        f"A job of {SHAPE.rows} rows, {SHAPE.in_flight} calls in flight: new, resumed with a third done, or finished.",
        "SIGKILL as each write-class call is entered, EIO from each fsync, a disk that is full from each write on.",
        f"Points are {len(work)} of the {total} calls of an unbroken run; met are those that the broken run came to.",
        "Hung: killed after two minutes; not as held to, unless the break met no file but what wakes the loop up.",
        "Bought again is held to what was in flight or not yet committed, which the resume has to have told.",
    )
    title = "Breaks at system calls: what was lost and what was paid twice"
    harness.publish(Report("durability", title, harness.machine(), _COLUMNS, lines, notes), chosen)


def _broken(bench: Bench, point: tuple[Scene, Fault]) -> Outcome:
    """A break that could not be brought about, such as on a machine that is too busy, was not met."""
    for _ in range(_TRIES):
        try:
            return bench.broken(*point)
        except BenchmarkError as error:
            print(f"NOT MADE {point}: {error}", file=sys.stderr, flush=True)
    return matrix.not_judged(0)


def _line(fault: str, at: str, scene: str, outcomes: Sequence[Outcome]) -> dict[str, object]:
    agains = [outcome.bill.again for outcome in outcomes]
    return {
        "fault": fault,
        "at": at,
        "scene": scene,
        "points": len(outcomes),
        "met": sum(outcome.was_hit for outcome in outcomes),
        "lost": sum(outcome.bill.lost for outcome in outcomes),
        "again": max(agains),
        "mean": sum(agains) / len(agains),
        "told": max(outcome.told.calls for outcome in outcomes),
        "hung": sum(outcome.is_hung for outcome in outcomes),
        "wrong": sum(bool(outcome.wrong) for outcome in outcomes),
    }


def run_moments(chosen: harness.Options, wrong: Wrong, every: int) -> None:
    seeds = [f"{_SEED}-{life}" for life in range(0, 1 if chosen.is_quick else _LIVES, every)]
    met: list[int] = []

    def one(made: tuple[Bench, float], seed: str) -> Outcome:
        outcome, kills = moments.life(*made, _KILLS, random.Random(seed))
        met.append(kills)
        return outcome

    found = over(seeds, moments.busy, one, wrong)
    line = {**_line("SIGKILL", "random moments", "", found), "points": len(seeds) * _KILLS, "met": sum(met)}
    shape = moments.BUSY
    notes = (
        f"{len(seeds)} jobs of {shape.rows:,} rows, {shape.in_flight} in flight, each killed up to {_KILLS} times.",
        "Bought again and told are of a whole job.",
    )
    title = "Kills at random moments"
    harness.publish(Report("durability-moments", title, harness.machine(), _COLUMNS, [line], notes), chosen)


def run_field(chosen: harness.Options, wrong: Wrong, _every: int) -> None:
    kills: list[moments.Again] = []

    def one(bench: Bench, seed: str) -> Outcome:
        kills.append(moments.one_kill(bench, random.Random(seed)))
        return kills[-1].outcome

    seeds = [f"{_SEED}-{kill}" for kill in range(1 if chosen.is_quick else _FIELD_KILLS)]
    over(seeds, moments.field, one, wrong)
    line = {
        "rows": moments.FIELD.rows,
        "in_flight": moments.FIELD.in_flight,
        "kills": sum(kill.outcome.was_hit for kill in kills),
        "answered": median(kill.answered for kill in kills),
        "answered_most": max(kill.answered for kill in kills),
        "bought": median(kill.bought for kill in kills),
        "out": median(kill.in_flight for kill in kills),
        "told": max(kill.outcome.told.calls for kill in kills),
        "lost": sum(kill.outcome.bill.lost for kill in kills),
    }
    notes = (
        "Answers after 0.3 s. Answered: the answer was sent before the kill, and its row was bought again.",
        "The provider here bills a call when it lets it in: those that were in flight are bought again by any runner.",
    )
    title = "One kill in 1,000 rows"
    harness.publish(
        Report("durability-field", title, harness.machine(), _FIELD_COLUMNS, [line], notes), chosen
    )


def run_window(chosen: harness.Options, _wrong: Wrong, _every: int) -> None:
    lines: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="durability-") as name:
        p50_ms, p99_ms = fsync_ms(Path(name) / "file")
        for setting in window.SETTINGS:
            found = window.measure(setting, Path(name), is_quick=chosen.is_quick)
            lines.append(
                {
                    **asdict(found),
                    "what": setting.what,
                    "in_flight": setting.in_flight,
                    "rate": found.rows / found.wall_s,
                }
            )
    size = f"{_FSYNC_BYTES >> 10} KiB"
    notes = (
        f"One write of {size} and its fsync on this disk: {p50_ms:.1f} ms in the median, {p99_ms:.1f} ms at p99.",
        "From the reply's reading to the loop's hearing of the commit. No timer holds a commit back.",
    )
    title = "From an answer's arrival to its commit"
    harness.publish(
        Report("durability-window", title, harness.machine(), _WINDOW_COLUMNS, lines, notes), chosen
    )


def fsync_ms(path: Path) -> tuple[float, float]:
    """Median and p99 of appending as much as a commit of some dozen rows does."""
    took_ms = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            start_s = time.monotonic()
            file.write(bytes(_FSYNC_BYTES))
            os.fsync(file.fileno())
            took_ms.append((time.monotonic() - start_s) * 1e3)
    return median(took_ms), sorted(took_ms)[int(0.99 * (_FSYNCS - 1))]


_RUNS = {"matrix": run_matrix, "moments": run_moments, "field": run_field, "window": run_window}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without it all")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of the points and of the jobs every Nth (default: all)",
    )
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    parts = parsed.parts or PARTS
    if unknown := [part for part in parts if part not in _RUNS]:
        raise BenchmarkError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    if "matrix" in parts and (reason := tracing.why_not()) is not None:
        raise BenchmarkError(reason)
    wrong = Wrong()
    for part in parts:
        _RUNS[part](harness.options(parsed), wrong, parsed.every)
    if wrong.found:
        raise BenchmarkError(
            f"{len(wrong.found)} cases are not as they are held to be; the first: {wrong.found[0]}"
        )


if __name__ == "__main__":
    harness.entry(main)
