"""What one row costs on its way, stage by stage, beside the cost of one bare call to the same server.

`python -m benchmarks.stages [--rows N] [--repeats N] [--quick] [--json FOLDER]`: medians over the repeats. Each stage
runs by itself over the same rows, with what it needs made beforehand and set apart from the garbage collector, since
a run never holds all of its rows at once. CPU is that of the whole process, so that the threads of Arrow and the
kernel's share of SQLite's writing count as well.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchllm.clock import SystemClock
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.outcomes import CallFacts, cost_of, done_records
from batchllm.journal.finished import Finished
from batchllm.journal.identity import Identity
from batchllm.journal.journal import Journal
from batchllm.journal.parts import Sizes
from batchllm.journal.tuning import Tuning
from batchllm.limit.sharing import LoneMember
from batchllm.plan import Planner, digest_of
from batchllm.provider.catalogue import load_catalogue
from batchllm.records import BadRow, JournalRecord, Reading, Request, Response, Row, RowFailed
from batchllm.spec.fingerprint import fingerprint, semantic_sections
from batchllm.spec.loading import load_job
from batchllm.tokens import TokenCounter, counter_for
from batchllm.wiring import CheckedJob, Frame, build_lanes, check
from benchmarks import harness, moving
from benchmarks.servers import constant_server, write_job, write_rows
from benchmarks.tables import Column, Report

ROWS, REPEATS = 50_000, 5
#: Rows a commit, as a run has them that is busy with 64 calls in flight.
_GROUP_ROWS = 32
_BARE_CALLS = 10_000
_BARE_IN_FLIGHT = 64
_HEADERS = {"content-type": "application/json", "x-request-id": "req_4f2b1c"}
_STARTED_S = 1_764_000_000.0

Batch = Sequence[Row | BadRow]


@dataclass(frozen=True, slots=True)
class Reply:
    request: Request
    response: Response
    reading: Reading


class Rig:
    """A job's parts as a run has them, and what each stage leaves for the next one."""

    def __init__(self, folder: Path, rows: int) -> None:
        write_rows(folder / "rows.jsonl", rows)
        write_job(folder / "job.yaml", "http://127.0.0.1:9/v1", limits={"concurrency": 64})
        self.rows = rows
        self.folder = folder
        self.clock = SystemClock()
        self.checked: CheckedJob = check(
            load_job(folder / "job.yaml", environ={}),
            catalogue=load_catalogue(),
            environ={},
            clock=self.clock,
        )
        self.vocabulary = counter_for("gpt-4.1-nano")
        self.lane: Lane = build_lanes(
            self.checked.lanes,
            Frame(
                task=self.checked.task,
                retry=self.checked.job.retry,
                clock=self.clock,
                prompt_margin=self.checked.prompt_margin,
                say=print,
            ),
            base_urls={},
            members=[LoneMember()],
        )[0]
        self.batches: list[Batch] = list(self.checked.source.batches())
        good = [row for batch in self.batches for row in batch if isinstance(row, Row)]
        self.contents = [self.checked.task.content(row) for row in good]
        self.texts = [list(self.checked.task.texts(content)) for content in self.contents]
        self.requests = [one for batch in self.batches for one in self._planned(self.planner(), batch)]
        self.replies = [self._reply(at, request) for at, request in enumerate(self.requests)]

    def planner(self) -> Planner:
        checked = self.checked
        return Planner(
            checked.task,
            checked.counter,
            max_inputs=checked.max_inputs,
            max_tokens=checked.max_tokens,
            max_request_tokens=None,
            is_finished=Finished(1).has_row,
        )

    def records(self, reply: Reply) -> Sequence[JournalRecord]:
        cost = cost_of(self.lane, reply.reading, _STARTED_S)
        return done_records(self.lane, reply.request, reply.reading, CallFacts(_STARTED_S, 0.31, cost), 1)

    @contextmanager
    def journal(self, name: str, sizes: Sizes) -> Iterator[Journal]:
        """A new record in a folder of its own."""
        sections = semantic_sections(self.checked.job)
        journal = Journal.open(
            self.folder / name,
            identity=Identity("benchmark", sections, fingerprint(sections), "0"),
            lanes=[self.lane.info],
            slots=1,
            task=self.checked.task,
            shape=self.checked.source.shape,
            clock=self.clock,
            tuning=Tuning(sizes=sizes),
        )
        try:
            yield journal
        finally:
            asyncio.run(journal.close(clean=True, exit_code=0))

    def _planned(self, planner: Planner, batch: Batch) -> Iterator[Request]:
        for item in planner.requests(batch):
            if isinstance(item, RowFailed):
                raise SystemExit(f"row {item.row.ordinal} cannot be asked: {item.message}")
            yield item

    def _reply(self, at: int, request: Request) -> Reply:
        response = Response(200, dict(_HEADERS), _body(at), 0.31)
        verdict = self.lane.judge(response, request)
        if not isinstance(verdict, Reading):
            raise SystemExit(f"the reply is no answer: {verdict.message}")
        return Reply(request, response, verdict)


def _body(number: int) -> bytes:
    """A chat reply as OpenAI sends it, with the details of its usage."""
    reply = {
        "id": f"chatcmpl-{number:024d}",
        "object": "chat.completion",
        "created": 1_764_000_000,
        "model": "sim-2026-01-01",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "positive, I should say",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 60,
            "completion_tokens": 6,
            "total_tokens": 66,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }
    return json.dumps(reply).encode()


def _cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    gc.freeze()
    start_s = time.process_time()
    work()
    used_s = time.process_time() - start_s
    gc.unfreeze()
    return used_s


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def measure_once(rig: Rig, turn: int) -> dict[str, float]:
    """CPU in seconds of each stage over all rows."""
    checked, lane = rig.checked, rig.lane
    planner, counter = rig.planner(), checked.counter or TokenCounter("bytes")
    used = {
        "scan": _cpu_s(checked.source.scan),
        "read": _cpu_s(lambda: _exhaust(checked.source.batches())),
        "render": _cpu_s(
            lambda: _exhaust(checked.task.content(row) for batch in rig.batches for row in batch)
        ),
        "digest": _cpu_s(lambda: _exhaust(digest_of("chat", content) for content in rig.contents)),
        "count": _cpu_s(lambda: _exhaust(map(counter.count_many, rig.texts))),
        "vocabulary": _cpu_s(lambda: _exhaust(map(rig.vocabulary.count_many, rig.texts))),
        "plan": _cpu_s(lambda: _exhaust(planner.requests(batch) for batch in rig.batches)),
        "encode": _cpu_s(lambda: _exhaust(map(lane.encode, rig.requests))),
        "verdict": _cpu_s(lambda: _exhaust(lane.judge(one.response, one.request) for one in rig.replies)),
        "records": _cpu_s(lambda: _exhaust(map(rig.records, rig.replies))),
    }
    return used | _measure_journal(rig, turn)


def _measure_journal(rig: Rig, turn: int) -> dict[str, float]:
    """Commits, and between them the drains that are due, as the writer does it; four parts of each table."""
    groups = list(_groups([list(rig.records(reply)) for reply in rig.replies]))
    commits_s = drains_s = 0.0
    with rig.journal(f"out-{turn}", Sizes(drain_rows=rig.rows // 4 + 1)) as journal:
        gc.collect()
        gc.freeze()
        for group in groups:
            start_s = time.process_time()
            journal.work.commit(group)
            committed_s = time.process_time()
            if journal.work.is_due:
                journal.work.step()
            commits_s += committed_s - start_s
            drains_s += time.process_time() - committed_s
        gc.unfreeze()
        groups.clear()
        drains_s += _cpu_s(journal.seal)
        merge_s = _cpu_s(lambda: journal.complete(rig.rows))
    return {"journal": commits_s, "parts": drains_s, "merge": merge_s}


def _groups(records: Sequence[Sequence[JournalRecord]]) -> Iterator[list[JournalRecord]]:
    """Of some rows each, in the order in which calls come home: somewhere among those that are in flight."""
    dice = random.Random(1)
    order = sorted(range(len(records)), key=lambda at: at + dice.random() * _BARE_IN_FLIGHT)
    for start in range(0, len(order), _GROUP_ROWS):
        yield [record for at in order[start : start + _GROUP_ROWS] for record in records[at]]


#: Stages in the order of a row's way; what another stage contains is set off and not added up.
_WHAT = {
    "scan": "the pass before the run: digest of the bytes, rows, keys",
    "read": "JSONL to rows",
    "plan": "rows to requests, all of it",
    "- render": "template to messages",
    "- digest": "what identifies the content",
    "- count": "tokens, by bytes",
    "- vocabulary": "tokens, for a model whose vocabulary is known; not part of this job",
    "encode": "request to body",
    "limit": "pace, tokens, window",
    "dispatch": "the loop around a call, without its limits",
    "HTTP": "one exchange over a kept connection",
    "verdict": "reply to answer",
    "records": "answer to lines, with its cost",
    "journal": "lines to SQLite, committed",
    "parts": "SQLite to Parquet, fsynced",
    "merge": "parts to input order",
}


_COLUMNS = (
    Column("stage", "stage"),
    Column("cpu_us", "CPU µs/row", ",.1f"),
    Column("of_bare", "of a bare call", ".3f"),
    Column("what", "what it is"),
)


def table(stages: dict[str, float], bare_us: float) -> list[dict[str, object]]:
    """`stages`: microseconds a row."""
    found = [(name, stages[name.removeprefix("- ")], what) for name, what in _WHAT.items()]
    total = sum(cpu_us for name, cpu_us, _ in found if not name.startswith("-"))
    found += [("together", total, ""), ("bare call", bare_us, "aiohttp, uvloop, orjson alone")]
    return [
        {"stage": name, "cpu_us": cpu_us, "of_bare": cpu_us / bare_us, "what": what}
        for name, cpu_us, what in found
    ]


def _moved(url: str, rows: int) -> dict[str, float]:
    """Microseconds a row."""
    limit_us = moving.limits_us(rows)
    return {
        "limit": limit_us,
        "dispatch": moving.dispatch_us(rows) - limit_us,
        "HTTP": moving.exchange_us(url, rows),
    }


def _bare_us(url: str, rows: Path) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.bare",
        url,
        str(rows),
        str(_BARE_CALLS),
        str(_BARE_IN_FLIGHT),
    ]
    short = [*command[:-2], str(_BARE_IN_FLIGHT), str(_BARE_IN_FLIGHT)]
    folder = Path(__file__).parents[1]
    whole, start = harness.measured(command, folder=folder), harness.measured(short, folder=folder)
    return (whole.cpu_s - start.cpu_s) / (_BARE_CALLS - _BARE_IN_FLIGHT) * 1e6


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    harness.add_options(parser)
    asked = parser.parse_args(argv)
    chosen = harness.options(asked)
    rows, repeats = (5_000, 1) if chosen.is_quick else (asked.rows, asked.repeats)
    harness.allow_open_files()
    runs: list[dict[str, float]] = []
    bare_us: list[float] = []
    with tempfile.TemporaryDirectory() as name, constant_server() as server:
        folder, url = Path(name), f"{server.url}/v1"
        rig = Rig(folder, rows)
        for turn in range(repeats):
            own = {stage: cpu_s / rows * 1e6 for stage, cpu_s in measure_once(rig, turn).items()}
            runs.append({**own, **_moved(url, rows)})
            bare_us.append(_bare_us(url, folder / "rows.jsonl"))
    medians = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    lines = table(medians, statistics.median(bare_us))
    notes = (f"{rows:,} rows, medians of {repeats} turns; each stage by itself.",)
    harness.publish(
        Report("stages", "CPU of one row by stage", harness.machine(), _COLUMNS, lines, notes), chosen
    )


if __name__ == "__main__":
    main(sys.argv[1:])
