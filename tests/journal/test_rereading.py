"""Reading answers anew can be cut off anywhere: the record is the old job's or the new one's, and whole."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batchllm.errors import ChangedJobError, StorageError
from batchllm.journal.audit import audit
from batchllm.journal.identity import stored_job
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.journal.rebuilding import Owner
from batchllm.journal.rereading import reread
from batchllm.journal.tuning import Tuning
from batchllm.records import FailureCode

ROWS = 40
#: Answers that the old job takes, and the new one does not.
TURNED = set(range(5, 20))
#: Texts that the old job turned down; the new one takes those of the first two.
WAITING = (3, 21, 31)
TAKEN = (3, 21)
WORDLESS = 33
STAY = {31: "schema_mismatch", WORDLESS: "refusal"}


class Task:
    """Texts are `text N`; those with a number in `bad` are no answers."""

    kind = "chat"
    path = "/chat/completions"
    content_field = "messages"
    is_packed = False

    def __init__(self, bad: set[int], column: str) -> None:
        self.bad = bad
        self.typed_fields = (pa.field(column, pa.int64()),)
        self.answer_fields = (pa.field("content", pa.string()), *self.typed_fields)

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        number = int(text.split()[1])
        return (FailureCode.SCHEMA_MISMATCH, f"{number} is bad") if number in self.bad else None

    def judged_texts(self, lines):
        return lines.column("content").to_pylist()

    def typed_columns(self, texts):
        return self.columns(texts)[1:]

    def columns(self, values):
        numbers = [int(value.split()[1]) for value in values]
        assert not self.bad & set(numbers)
        return [pa.array(values, pa.string()), pa.array(numbers, pa.int64())]


OLD = Task(set(WAITING), "before")
NEW = Task(TURNED | {31}, "now")
CARRY = (pa.field("stars", pa.int64()),)


def records(kit, rows=range(ROWS)):
    found = []
    for row in rows:
        call = kit.attempt(row)
        if row in WAITING:
            text = {"code": "schema_mismatch", "message": "bad", "content": f"text {row}"}
            found += [call._replace(failure="schema_mismatch"), kit.failed(row, **text)]
        elif row == WORDLESS:
            found += [call._replace(failure="refusal"), kit.failed(row, content="no")]
        else:
            done = kit.done(row, answer=f"text {row}")
            found += [call, done._replace(row=done.row._replace(carry=b"[%d]" % row))]
    return found


def identity(kit, task):
    sections = {**kit.IDENTITY.sections, "task": task.answer_fields[1].name}
    return replace(kit.IDENTITY, sections=sections, fingerprint=sections["task"])


def changes(kit, task, fault: Callable[[str], None] | None = None):
    tuning = Tuning(sizes=kit.SMALL) if fault is None else Tuning(sizes=kit.SMALL, fault=fault)
    return {
        "identity": identity(kit, task),
        "task": task,
        "shape": kit.Shape(carry=CARRY),
        "tuning": tuning,
    }


def begin(kit, out, rows=range(ROWS)):
    def end(journal):
        journal.set_input(InputState("digest", ROWS, "[]"))
        return journal.complete(ROWS) if len(rows) == ROWS else None

    order = [(17 * step) % ROWS for step in range(ROWS) if (17 * step) % ROWS in rows]
    asyncio.run(kit.run(out, [records(kit, order)], end, **changes(kit, OLD)))


def carried(rows):
    assert list(rows) == sorted(rows)
    return [b"[%d]" % row for row in rows]


def read_anew(kit, out, fault=None, *, to=NEW, **given):
    before = OLD if stored_job(out).sections["task"] == "before" else NEW
    journal = kit.open_journal(out, **changes(kit, before, fault))
    owner = Owner(identity(kit, to), kit.LANES, 1, to, kit.Shape(carry=CARRY))
    owner = replace(owner, **given)
    try:
        return reread(journal, owner, to, carried=carried, clock=kit.Clock())
    finally:
        asyncio.run(journal.close(clean=True, exit_code=0))


def assert_new(kit, out, rows=range(ROWS)):
    assert audit(out).is_whole, audit(out).findings
    output, failures = kit.read(out, "output"), kit.read(out, "failures")
    answers = [row for row in rows if row not in TURNED and row not in STAY]
    assert sorted(output["row"].to_pylist()) == answers
    assert output.column_names[2:5] == ["stars", "content", "now"]
    by_row = {line["row"]: line for line in output.to_pylist()}
    assert all(
        (line["now"], line["stars"], line["id"]) == (row, row, f"k{row}") for row, line in by_row.items()
    )
    assert all(by_row[row]["request_id"] == f"req-{row}" for row in answers)
    assert all(by_row[row]["cost_usd"] == 0.25 for row in answers)
    found = {line["row"]: line["class"] for line in failures.to_pylist()}
    assert found == {row: STAY.get(row, "schema_mismatch") for row in rows if row in TURNED or row in STAY}


def test_a_complete_record_is_complete_again_and_in_order(kit, out):
    begin(kit, out)
    done = read_anew(kit, out)
    assert (done.answers, done.turned_down, done.became_answers, done.failures, done.complete) == (
        ROWS - len(TURNED) - len(STAY) - len(TAKEN),
        len(TURNED),
        len(TAKEN),
        len(STAY),
        True,
    )
    assert_new(kit, out)
    assert read_manifest(out).complete
    assert kit.read(out, "output")["row"].to_pylist() == sorted(kit.read(out, "output")["row"].to_pylist())
    assert kit.names(out / ".batchllm") == ["journal.db"]


def test_a_record_that_goes_on_stays_open(kit, out):
    begin(kit, out, range(25))
    done = read_anew(kit, out)
    assert not done.complete
    assert_new(kit, out, range(25))
    manifest = read_manifest(out)
    assert (manifest.complete, manifest.pending) == (False, 15)


def test_the_record_is_the_new_job_s_alone(kit, out):
    begin(kit, out)
    read_anew(kit, out)
    with pytest.raises(ChangedJobError):
        kit.open_journal(out, **changes(kit, OLD))
    journal = kit.open_journal(out, **changes(kit, NEW))
    assert journal.counts.ok == ROWS - len(TURNED) - len(STAY)
    asyncio.run(journal.close(clean=True, exit_code=0))


@pytest.mark.parametrize("rows", [range(ROWS), range(25)], ids=["complete", "open"])
def test_cut_off_anywhere_the_record_is_whole_and_can_be_read_anew(kit, out, rows):
    """What a kill leaves is the folder as it lies there: copies of it are taken at each point that is passed."""
    begin(kit, out, rows)
    copies: list[tuple[str, Path]] = []
    passed: Counter[str] = Counter()

    def fault(point):
        passed[point] += 1
        if passed[point] not in (1, 2, 5, 20):
            return
        copy = out.with_name(f"copy-{len(copies)}")
        shutil.copytree(out, copy)
        copies.append((point, copy))

    read_anew(kit, out, fault)
    points = {point for point, _ in copies}
    assert points >= {"after_intent", "after_tmp", "after_fsync", "after_link", "before_part_commit"}
    assert points >= {"after_part_commit", "before_manifest", "after_manifest", "before_unlink"}
    assert len(copies) > 20
    for point, copy in copies:
        found = audit(copy)
        assert found.is_whole, (point, found.findings)
        assert found.ok + found.failed == len(rows)
        read_anew(kit, copy)
        assert_new(kit, copy, rows)
        assert read_manifest(copy).complete == (len(rows) == ROWS)
        assert kit.names(copy / ".batchllm") == ["journal.db"]
        for kind in kit.KINDS:
            listed = [part.path for part in read_manifest(copy).parts[kind]]
            assert [f"{kind}/{name}" for name in kit.names(copy / kind)] == listed
        shutil.rmtree(copy)


def test_an_error_on_the_way_leaves_the_old_record(kit, out):
    begin(kit, out)
    before = {path: path.read_bytes() for kind in kit.KINDS for path in (out / kind).iterdir()}

    def fault(point):
        if point == "before_part_commit":
            raise StorageError("the disk is full")

    with pytest.raises(StorageError):
        read_anew(kit, out, fault)
    journal = kit.open_journal(out, **changes(kit, OLD))
    assert journal.unknown_files == []
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert {path: path.read_bytes() for kind in kit.KINDS for path in (out / kind).iterdir()} == before


def test_a_part_that_was_changed_is_not_read(kit, out):
    begin(kit, out)
    path = min((out / "output").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    with pytest.raises(StorageError, match="checksum"):
        read_anew(kit, out)


def test_other_columns_may_not_change(kit, out):
    begin(kit, out)
    with pytest.raises(ChangedJobError, match="stars was int64, would be string"):
        read_anew(kit, out, shape=kit.Shape(carry=(pa.field("stars", pa.string()),)))
    assert audit(out).is_whole
