"""Parts that the tests of the record share, and the processes that they kill.

Run as a script it reads scenarios from stdin, one JSON object a line, and runs each in a forked child: a fork costs
milliseconds where a new interpreter with Arrow costs half a second.
"""

import asyncio
import json
import os
import resource
import signal
import sqlite3
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.engine.intake import Intake
from batchllm.errors import BatchllmError
from batchllm.journal.aside import put_aside
from batchllm.journal.checksums import know_checksums
from batchllm.journal.copies import CopyRequests
from batchllm.journal.files import Layout
from batchllm.journal.identity import Identity
from batchllm.journal.inputs import InputState
from batchllm.journal.journal import Journal
from batchllm.journal.parts import Sizes
from batchllm.journal.renewal import Renewal
from batchllm.journal.tuning import Tuning
from batchllm.matching import Places
from batchllm.plan import asked_digest
from batchllm.records import AttemptRecord, Billed, LaneInfo, RowDone, RowFailed, RowRef, RowSkipped
from batchllm.source import open_source
from batchllm.spec.models import Input, parse_task
from batchllm.task import build_task


def raw(path: Path, **options) -> sqlite3.Connection:
    """A journal as a table of lines, to write what it would not."""
    connection = sqlite3.connect(path, **options)
    know_checksums(connection)
    return connection


STARTED_S = 1_700_000_000.25
LANES = (LaneInfo("first", "openai", "model-a", False), LaneInfo("second", "groq", "model-b", True))
IDENTITY = Identity("job", {"task": "prompt", "params": "{}"}, "fingerprint", "0.1.0")
KINDS = ("output", "failures", "usage")
#: So small that a few dozen rows go through several drains, row groups and merged parts.
SMALL = Sizes(
    slice_rows=4,
    group_rows=5,
    part_rows=16,
    drain_rows=10,
    merge_bytes=1,
    merge_parts=3,
)


class ChatTask:
    kind = "chat"
    path = "/chat/completions"
    content_field = "messages"
    is_packed = False
    answer_fields = (pa.field("content", pa.string()),)

    def columns(self, values):
        return [pa.array(values, pa.string())]


class EmbeddingTask:
    kind = "embedding"
    path = "/embeddings"
    content_field = "input"
    is_packed = True

    def __init__(self, width: int) -> None:
        self.width = width
        self.answer_fields = (pa.field("embedding", pa.list_(pa.float32(), width)),)

    def columns(self, values):
        numbers = [struct.unpack(f"<{self.width}f", value) for value in values]
        return [pa.array(numbers, self.answer_fields[0].type)]


@dataclass(frozen=True)
class Shape:
    key: pa.Field | None = field(default_factory=lambda: pa.field("id", pa.string()))
    carry: tuple[pa.Field, ...] = ()


class Clock:
    def __init__(self, wall_s: float = STARTED_S) -> None:
        self.now_s = wall_s

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def open_journal(out: Path, **changes) -> Journal:
    given = {
        "identity": IDENTITY,
        "lanes": LANES,
        "slots": 1,
        "task": ChatTask(),
        "shape": Shape(),
        "clock": Clock(),
        "tuning": Tuning(sizes=SMALL),
    }
    return Journal.open(out, **{**given, **changes})


def answer(row: int, lane: int = 0) -> str:
    return f"answer of row {row} by lane {lane}"


def done(row: int, /, lane: int = 0, **changes) -> RowDone:
    record = RowDone(
        row=RowRef(row, f"k{row}", b"[]"),
        lane=lane,
        answer=answer(row, lane),
        finish_reason="stop",
        model="model-a-2025",
        prompt_tokens=10,
        completion_tokens=5,
        cost_usd=0.25,
        latency_ms=12.5,
        attempts=1,
        request_id=f"req-{row}",
        digest=row.to_bytes(16, "big"),
    )
    return record._replace(**changes)


def failed(row: int, /, lane: int | None = 0, **changes) -> RowFailed:
    record = RowFailed(
        row=RowRef(row, f"k{row}", b"[]"),
        lane=lane,
        code="refusal",
        message=f"row {row} was refused",
        status=200,
        attempts=2,
        digest=row.to_bytes(16, "big"),
    )
    return record._replace(**changes)


def skipped(row: int, /, *slots: int) -> RowSkipped:
    return RowSkipped(RowRef(row, f"k{row}", b"[]"), slots, row.to_bytes(16, "big"))


def attempt(row: int, /, lane: int = 0, **changes) -> AttemptRecord:
    record = AttemptRecord(
        row=row,
        rows=1,
        lane=lane,
        model="model-a-2025",
        prompt_tokens=10,
        completion_tokens=5,
        cached_tokens=2,
        reasoning_tokens=1,
        cost_usd=0.25,
        billed=Billed.YES,
        status=200,
        failure=None,
        latency_ms=12.5,
        started_at=STARTED_S + row,
        request_id=f"req-{row}",
    )
    return record._replace(**changes)


async def run(
    out: Path,
    batches: Sequence[Sequence[object]],
    end: Callable[[Journal], object] | None = None,
    **changes,
) -> object:
    """One run: open, put each batch and wait for its commit, end, close."""
    journal = open_journal(out, **changes)
    journal.start(asyncio.get_running_loop())
    try:
        for batch in batches:
            await journal.room()
            journal.put(batch)
            await journal.flush()
        return None if end is None else end(journal)
    finally:
        await journal.close(clean=True, exit_code=0)


def fill(out: Path, rows: Sequence[int] = range(30), **changes) -> None:
    """All rows in the journal, none in a part."""
    records = [record for row in rows for record in (attempt(row), done(row))]
    asyncio.run(run(out, [records], tuning=Tuning(sizes=replace(SMALL, drain_rows=1000)), **changes))


def seal(out: Path, **changes) -> object:
    """One run that only seals, without a thread that drains at the same time."""
    journal = open_journal(out, **changes)
    try:
        return journal.seal()
    finally:
        asyncio.run(journal.close(clean=True, exit_code=0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def flush_until_it_fails(recorder) -> None:
    while True:
        await recorder.flush()


def read(out: Path, kind: str) -> pa.Table:
    """A folder as readers see it: all its files by name."""
    paths = sorted((out / kind).iterdir())
    tables = [pq.read_table(path, page_checksum_verification=True) for path in paths]
    return pa.concat_tables(tables)


def read_rows(out: Path, name: str) -> list[int]:
    """The rows in one part of output/."""
    rows: list[int] = pq.read_table(out / "output" / name)["row"].to_pylist()
    return rows


def stored(out: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """(row, answer) in committed parts, and in the journal's table, by the file as it lies there."""
    with sqlite3.connect(out / ".batchllm" / "journal.db") as connection:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM parts WHERE kind = 'output' AND state = 'committed'"
            )
        ]
        lines = list(connection.execute("SELECT row, answer FROM results"))
    connection.close()
    parts = []
    for name in names:
        table = pq.read_table(out / "output" / name)
        parts += zip(table["row"].to_pylist(), table["content"].to_pylist(), strict=True)
    return parts, lines


#: The work of a scenario: 40 rows out of order, two of them failures, in commits of five.
ROWS = 40
ORDER = [(17 * step) % ROWS for step in range(ROWS)]
FAILED = (3, 31)


def scenario_batches(rows: Sequence[int]) -> list[list[object]]:
    records = [[attempt(row), failed(row, content="half") if row in FAILED else done(row)] for row in rows]
    return [
        [record for pair in records[start : start + 5] for record in pair]
        for start in range(0, len(records), 5)
    ]


class KillAt:
    """A fault that kills the process at the nth time that it passes a point in a phase."""

    def __init__(self, phase: str, point: str, nth: int) -> None:
        self.target = (phase, point, nth)
        self.phase = "open"
        self.seen: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        place = f"{self.phase}:{point}"
        self.seen[place] += 1
        if (self.phase, point, self.seen[place]) == self.target:
            os.kill(os.getpid(), signal.SIGKILL)


async def scenario(out: Path, phase: str, point: str, nth: int) -> Counter[str]:
    """Finish the job from wherever it stands; every row that was acknowledged is in `ledger` before the next one."""
    fault = KillAt(phase, point, nth)
    journal = open_journal(out, tuning=Tuning(sizes=SMALL, fault=fault))
    rows = [row for row in ORDER if not journal.finished.has(row)]
    fault.phase = "run"
    journal.start(asyncio.get_running_loop())
    ledger = os.open(f"{out}.ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for batch in scenario_batches(rows):
        journal.put(batch)
        await journal.flush()
        done_rows = [record.row.ordinal for record in batch if not isinstance(record, AttemptRecord)]
        os.write(ledger, "".join(f"{row}\n" for row in done_rows).encode())
    os.close(ledger)
    fault.phase = "seal"
    journal.seal()
    fault.phase = "complete"
    journal.complete(ROWS)
    await journal.close(clean=True, exit_code=0)
    return fault.seen


#: Another input after the scenario's: the rows backwards, five of them gone and one to be asked again.
GONE = (5, 6, 7, 8, 9, 10)
MOVED = {row: at for at, row in enumerate(row for row in reversed(range(ROWS)) if row not in GONE)}


async def renewal_scenario(out: Path, point: str, nth: int) -> Counter[str]:
    """The finished record for another input."""
    fault = KillAt("renew", point, nth)
    journal = open_journal(out, tuning=Tuning(sizes=SMALL, fault=fault))
    fault.phase = "renew"
    places = Places(0, pa.array([MOVED.get(row) for row in range(ROWS)], pa.int32()))
    with closing(journal.carries()) as carries:
        marks = array("Q", range(1, len(MOVED) + 1))
        journal.renew(Renewal(places, carries), InputState("new", len(MOVED), "[]", marks, "lines"))
    journal.settle()
    await journal.close(clean=True, exit_code=0)
    return fault.seen


class KillAfter:
    """A fault that kills the process at the nth point that it passes, in whatever thread; 0: never."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self, _point: str) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def said(key: str, text: str) -> str:
    return f"{text}, says {key}"


async def history_scenario(out: Path, path: Path, nth: int) -> None:
    """A run over the keyed rows in `path`, as the engine does it, whatever the record holds of earlier inputs.

    `ledger` has a line for each row before it is asked, and one for each that is committed.
    """
    source = open_source(Input(path=str(path), key="id"), carry=["gold"], needed=frozenset({"text"}))
    task = build_task(parse_task('{"type": "chat", "prompt": "{{ text }}"}'), dimensions=None)
    journal = open_journal(
        out, task=task, shape=source.shape, tuning=Tuning(sizes=SMALL, fault=KillAfter(nth))
    )
    table = Intake(source, task, out, only_missing=False).take_in(journal)
    journal.start(asyncio.get_running_loop())
    ledger = os.open(f"{out}.ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for batch in source.batches():
        for start in range(0, len(batch), 3):
            rows = [row for row in batch[start : start + 3] if not journal.finished.has(row.ordinal)]
            asked = [[row.key, row.values["text"]] for row in rows]
            os.write(ledger, "".join(json.dumps(["ask", *one]) + "\n" for one in asked).encode())
            await journal.room()
            for row, (key, text) in zip(rows, asked, strict=True):
                ref = RowRef(row.ordinal, key, row.carry)
                digest = asked_digest(task, row)
                journal.put(
                    [attempt(row.ordinal), done(row.ordinal, row=ref, answer=said(key, text), digest=digest)]
                )
            await journal.flush()
            os.write(ledger, "".join(json.dumps(["kept", *one]) + "\n" for one in asked).encode())
    journal.complete(table.rows)
    await journal.close(clean=True, exit_code=0)


#: Rows that take over the outcomes of others.
COPIES = {ROWS + at: original for at, original in enumerate((0, 3, 0, 11, 31))}


async def copies_scenario(out: Path, point: str, nth: int) -> Counter[str]:
    fault = KillAt("copy", point, nth)
    journal = open_journal(out, tuning=Tuning(sizes=SMALL, fault=fault))
    fault.phase = "copy"
    todo = {row: original for row, original in COPIES.items() if not journal.finished.has(row)}
    journal.copy_outcomes(
        CopyRequests(
            list(todo),
            list(todo.values()),
            [f"k{row}" for row in todo],
            [b"[]"] * len(todo),
            [original.to_bytes(16, "big").hex() for original in todo.values()],
        )
    )
    await journal.close(clean=True, exit_code=0)
    return fault.seen


async def reopen_scenario(out: Path, point: str, nth: int) -> Counter[str]:
    """The skipped units of a record of two lanes, asked after all."""
    fault = KillAt("reopen", point, nth)
    journal = open_journal(out, slots=2, tuning=Tuning(sizes=SMALL, fault=fault))
    fault.phase = "reopen"
    journal.reopen_skipped(all_of_them=True)
    await journal.close(clean=True, exit_code=0)
    return fault.seen


def aside_scenario(out: Path, point: str, nth: int) -> Counter[str]:
    fault = KillAt("open", point, nth)
    put_aside(Layout(out), STARTED_S, fault)
    return fault.seen


async def limited_scenario(out: Path, limit_bytes: int) -> tuple[int, str]:
    """Write until a file may not grow any more; returns the rows that were acknowledged before, and why."""
    journal = open_journal(out, tuning=replace(Tuning(), sizes=Sizes()))
    journal.start(asyncio.get_running_loop())
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    acknowledged = 0
    try:
        while True:
            journal.put([done(row, answer="x" * 1000) for row in range(acknowledged, acknowledged + 50)])
            await journal.flush()
            acknowledged += 50
    except BatchllmError as error:
        await journal.close(clean=False, exit_code=74)
        return acknowledged, f"{type(error).__name__} {error}"


def _child(work: dict) -> None:
    out = Path(work["out"])
    if "of" in work:
        point, nth = work["point"], work["nth"]
        match work["of"]:
            case "renew":
                seen = asyncio.run(renewal_scenario(out, point, nth))
            case "copy":
                seen = asyncio.run(copies_scenario(out, point, nth))
            case "reopen":
                seen = asyncio.run(reopen_scenario(out, point, nth))
            case _:
                seen = aside_scenario(out, point, nth)
        Path(f"{out}.seen").write_text(json.dumps(seen))
    elif "path" in work:
        asyncio.run(history_scenario(out, Path(work["path"]), work["nth"]))
    elif "limit" in work:
        acknowledged, error = asyncio.run(limited_scenario(out, work["limit"]))
        Path(f"{out}.ledger").write_text(str(acknowledged))
        Path(f"{out}.error").write_text(error)
    else:
        seen = asyncio.run(scenario(out, work["phase"], work["point"], work["nth"]))
        Path(f"{out}.seen").write_text(json.dumps(seen))


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _child(json.loads(line))
            except BaseException as error:  # noqa: BLE001 - a child must not fall back into the parent's loop
                sys.stderr.write(f"{line}: {type(error).__name__}: {error}\n")
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
