"""A backfill over a large record: how long, and in how much memory, until the first new row is sent.

`python -m benchmarks.backfill [--rows N] [--kind jsonl|parquet] [--task chat|embedding] [--quick] [--json FOLDER]
[--keep FOLDER] [--change TEXT]`. The record of N answered rows is written as a run would leave it, without the calls;
with --keep it stays in FOLDER for the next time. Then the input changes: 1,000 more rows at its end, 1,000 more
anywhere with all rows in another order, or 1,000 of them changed. `batchllm run` is timed from its start to its first
request, where its memory is read, and to its end; what it sends is counted.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.clock import SystemClock
from batchllm.engine.identity import package_version
from batchllm.journal import Identity, InputState, Journal, OutputLock
from batchllm.plan import asked_digest
from batchllm.provider.catalogue import load_catalogue
from batchllm.records import AttemptRecord, Row, RowDone, RowRef
from batchllm.spec.fingerprint import fingerprint, semantic_sections
from batchllm.spec.loading import load_job
from batchllm.wiring import CheckedJob, check
from benchmarks import harness
from benchmarks.startup import VECTOR_WIDTH, Arrivals, noting_server
from benchmarks.tables import Column, Report

NEW_ROWS = 1_000
_URL = "BACKFILL_URL"
#: What a plan for ten million rows may take.
MOST_PLAN_S, MOST_PLAN_MB = 30.0, 400.0
_WORDS = (
    "one two better great bad late soon works broke kind slow fast very quite never again sister kettle".split()  # noqa: SIM905
)
_COLUMNS = (
    Column("change", "the input has"),
    Column("rows", "rows", ",.0f"),
    Column("plan_s", "s to the first request", ".1f"),
    Column("plan_cpu_s", "CPU s", ".1f"),
    Column("plan_mb", "peak MB until then", ".0f"),
    Column("wall_s", "s to the end", ".1f"),
    Column("peak_mb", "peak MB", ".0f"),
    Column("sent", "sent", ",.0f"),
    Column("verdict", "within bounds"),
)


def lines(rows: int) -> Iterator[bytes]:
    """JSONL lines of about 200 bytes."""
    dice = random.Random(5)
    texts = [" ".join(dice.choices(_WORDS, k=dice.randint(15, 45))) for _ in range(9_973)]
    for number in range(rows):
        text = texts[number % len(texts)]
        yield b'{"id": "r%09d", "text": "%b %d", "gold": "positive"}\n' % (number, text.encode(), number)


def _added() -> list[bytes]:
    return [b'{"id": "n%06d", "text": "a new one, %d", "gold": "x"}\n' % (n, n) for n in range(NEW_ROWS)]


def _more_at_the_end(old: list[bytes]) -> Iterable[bytes]:
    return [*old, *_added()]


def _shuffled_with_more(old: list[bytes]) -> Iterable[bytes]:
    mixed = [*old, *_added()]
    random.Random(6).shuffle(mixed)
    return mixed


def _edited(old: list[bytes]) -> Iterable[bytes]:
    step = len(old) // NEW_ROWS
    return [
        line.replace(b'"text": "', b'"text": "edited ') if at % step == 0 and at < step * NEW_ROWS else line
        for at, line in enumerate(old)
    ]


CHANGES = {
    "1,000 more at its end": _more_at_the_end,
    "1,000 more, all in another order": _shuffled_with_more,
    "1,000 changed": _edited,
}


def write_input(path: Path, table: Iterable[bytes]) -> None:
    if path.suffix == ".jsonl":
        with path.open("wb") as file:
            file.writelines(table)
        return
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("gold", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        group: list[Mapping[str, str]] = []
        for line in table:
            group.append(json.loads(line))
            if len(group) == 1 << 17:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema))


_TASKS: Mapping[str, Mapping[str, object]] = {
    "chat": {
        "type": "chat",
        "prompt": "Which sentiment has this?\n\n{{ text }}",
        "params": {"max_tokens": 20},
    },
    "embedding": {"type": "embedding", "text": "{{ text }}", "dimensions": VECTOR_WIDTH},
}


def write_job(path: Path, kind: str, task: str) -> None:
    """The address is the environment's, so that a record that is kept stays that of the job."""
    lane = {
        "provider": "custom",
        "model": "m",
        "base_url": f"${{{_URL}}}",
        "limits": {"rpm": 6_000_000, "concurrency": 64},
    }
    spec = {
        "name": "backfill",
        "input": {"path": f"rows.{kind}", "key": "id"},
        "task": _TASKS[task],
        "providers": [lane],
        "output": {"path": "out", "carry": ["gold"]},
    }
    path.write_text(json.dumps(spec), "utf-8")


def make_record(folder: Path) -> None:
    """As a run that answered every row would leave it."""
    environ = {_URL: "http://127.0.0.1:9/v1"}
    loaded = load_job(folder / "job.yaml", overrides=(), environ=environ)
    checked = check(loaded, catalogue=load_catalogue(), environ=environ, clock=SystemClock())
    with OutputLock.acquire(folder / "out", about={}):
        asyncio.run(_filled(checked, folder / "out"))


async def _filled(checked: CheckedJob, out: Path) -> None:
    sections, source = semantic_sections(checked.job), checked.source
    journal = Journal.open(
        out,
        identity=Identity(checked.job.name, sections, fingerprint(sections), package_version()),
        lanes=[lane.info for lane in checked.lanes],
        slots=1,
        task=checked.task,
        shape=source.shape,
        clock=SystemClock(),
    )
    marked = source.mark()
    stamps = json.dumps(source.stamps(), default=str)
    journal.set_input(InputState(marked.digest, marked.rows, stamps, marked.marks, marked.basis))
    journal.start(asyncio.get_running_loop())
    for batch in source.batches():
        await journal.room()
        for row in batch:
            if isinstance(row, Row):
                journal.put(_records(checked, row))
    await journal.flush()
    journal.note_input_read_whole()
    journal.complete(marked.rows)
    await journal.close(clean=True, exit_code=0)


def _records(checked: CheckedJob, row: Row) -> tuple[AttemptRecord, RowDone]:
    call = AttemptRecord(row.ordinal, 1, 0, "m", 60, 9, 0, 0, 1e-5, "yes", 200, None, 300.0, 1.7e9, None)
    digest = asked_digest(checked.task, row)
    ref = RowRef(row.ordinal, row.key, row.carry)
    is_vector = checked.job.task.type == "embedding"
    answer = bytes(4 * VECTOR_WIDTH) if is_vector else "positive, I should say"
    done = RowDone(ref, 0, answer, "stop", "m", 60, 9, 1e-5, 300.0, 1, None, digest)
    return call, done


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Times from the start of the command; memory is the largest resident set."""

    plan_s: float
    plan_cpu_s: float | None
    plan_mb: float
    wall_s: float
    peak_mb: float
    sent: int


def backfill(folder: Path, url: str, arrivals: Arrivals) -> Backfilled:
    """One run over the changed input."""
    arrivals.forget()
    start_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "batchllm", "run", "job.yaml", "--json", "--quiet"],
        cwd=folder,
        env={**os.environ, _URL: url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    arrivals.client = process.pid
    arrivals.known.set()
    plan_mb = peak_mb = 0.0
    while process.poll() is None:
        peak_mb = max(peak_mb, _peak_mb(process.pid))
        if arrivals.first_s is not None and not plan_mb:
            plan_mb = peak_mb
        time.sleep(0.02)
    wall_s = time.monotonic() - start_s
    stdout, stderr = process.communicate()
    if process.returncode or arrivals.first_s is None:
        raise harness.CommandError(f"batchllm run ended with {process.returncode}: {stderr.decode().strip()}")
    sent = int(json.loads(stdout)["rows"]["ok"])
    return Backfilled(arrivals.first_s - start_s, arrivals.cpu_s, plan_mb, wall_s, peak_mb, sent)


def _peak_mb(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text("ascii", "replace")
    except OSError:
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backfill", description=__doc__)
    parser.add_argument("--rows", type=int, help="of the record (default 10,000,000; quick: 20,000)")
    parser.add_argument("--kind", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--task", choices=tuple(_TASKS), default="chat")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the record is, or is to stay")
    parser.add_argument("--change", default="", metavar="TEXT", help="only changes with TEXT in their name")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    rows = parsed.rows or (20_000 if chosen.is_quick else 10_000_000)
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="backfill-") as name, noting_server() as (url, arrivals):
        folder = Path(name) if parsed.keep is None else parsed.keep / f"{parsed.kind}-{parsed.task}-{rows}"
        path = folder / f"rows.{parsed.kind}"
        if not (folder / "before").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_job(folder / "job.yaml", parsed.kind, parsed.task)
            write_input(path, lines(rows))
            make_record(folder)
            (folder / "out").rename(folder / "before")
        for change, make in CHANGES.items():
            if parsed.change not in change:
                continue
            shutil.rmtree(folder / "out", ignore_errors=True)
            shutil.copytree(folder / "before", folder / "out")
            write_input(path, make(list(lines(rows))))
            found.append(_line(change, rows, backfill(folder, url, arrivals)))
            print(json.dumps(found[-1]), file=sys.stderr)  # the table comes after half an hour
    harness.publish(_report(parsed.kind, parsed.task, found), chosen)


def _line(change: str, rows: int, used: Backfilled) -> dict[str, object]:
    is_good = used.plan_s <= MOST_PLAN_S and used.plan_mb <= MOST_PLAN_MB and used.sent == NEW_ROWS
    return {
        "change": change,
        "rows": rows,
        "plan_s": used.plan_s,
        "plan_cpu_s": used.plan_cpu_s,
        "plan_mb": used.plan_mb,
        "wall_s": used.wall_s,
        "peak_mb": used.peak_mb,
        "sent": used.sent,
        "verdict": "yes" if is_good else "NO",
    }


def _report(kind: str, task: str, found: Sequence[Mapping[str, object]]) -> Report:
    notes = (
        f"Bounds: {MOST_PLAN_S:.0f} s and {MOST_PLAN_MB:.0f} MB until the first of {NEW_ROWS:,} is sent; no other.",
        "The end includes the completion: where rows moved, all parts are written again in the new order.",
    )
    name = kind if task == "chat" else f"{kind}-{task}"
    return Report(
        f"backfill-{name}", f"Backfills ({kind}, {task})", harness.machine(), _COLUMNS, found, notes
    )


if __name__ == "__main__":
    harness.entry(main)
