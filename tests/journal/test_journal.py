"""The record as a whole: what is put in is what readers find, once, in order."""

import asyncio
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.inputs import InputState
from batchllm.journal.interrupted import Interrupted
from batchllm.journal.manifest import read_manifest
from batchllm.journal.parts import Sizes
from batchllm.journal.tuning import Tuning
from batchllm.journal.writer import QueueLimits


def complete(units):
    return lambda journal: journal.complete(units)


def close(journal, *, clean=True):
    asyncio.run(journal.close(clean=clean, exit_code=0))


def test_each_column_comes_back_as_it_was_put(kit, out):
    shape = kit.Shape(carry=(pa.field("gold", pa.string()),))
    record = kit.done(
        0,
        1,
        row=kit.RowRef(0, "k\u00e9y", '["g\u00f6ld"]'.encode()),
        answer="line\nbreak \x00 nul \u2028 😀",
        prompt_tokens=2**40,
        cost_usd=0.1 + 0.2,
        latency_ms=1 / 3,
        completion_tokens=None,
        request_id=None,
    )
    manifest = asyncio.run(kit.run(out, [[record, kit.attempt(0, 1)]], complete(1), shape=shape))
    assert kit.read(out, "output").to_pylist() == [
        {
            "id": "k\u00e9y", "row": 0, "gold": "g\u00f6ld", "content": "line\nbreak \x00 nul \u2028 😀",
            "finish_reason": "stop", "lane": "second", "provider": "groq", "model": "model-a-2025",
            "prompt_tokens": 2**40, "completion_tokens": None, "cost_usd": 0.1 + 0.2, "latency_ms": 1 / 3,
            "attempts": 1, "request_id": None, "request_hash": "00" * 16, "simulated": True,
        }
    ]  # fmt: skip
    assert manifest == read_manifest(out)


def test_vectors_come_back_bit_by_bit(kit, out):
    vector = pa.array([0.1, -0.0, 3.4e38], pa.float32())
    record = kit.done(0, answer=vector.buffers()[1].to_pybytes()[:12])
    asyncio.run(kit.run(out, [[record]], complete(1), task=kit.EmbeddingTask(3)))
    column = kit.read(out, "output")["embedding"].combine_chunks()
    assert column.type == pa.list_(pa.float32(), 3)
    assert column.flatten().equals(vector)


def test_a_second_answer_is_refused_loudly_and_the_first_one_stands(kit, out):
    async def run():
        journal = kit.open_journal(out)
        journal.start(asyncio.get_running_loop())
        journal.put([kit.done(1)])
        await journal.flush()
        journal.put([kit.done(0), kit.done(1, answer="another"), kit.done(2)])
        with pytest.raises(InvariantError, match="row 1 has its outcome already"):
            await journal.flush()
        with pytest.raises(InvariantError):
            await journal.room()
        await journal.close(clean=False, exit_code=70)

    asyncio.run(run())
    assert sorted(kit.stored(out)[1]) == [(row, kit.answer(row)) for row in (0, 1, 2)]


@pytest.mark.parametrize("end", ["seal", "complete"])
def test_an_answer_that_is_in_a_part_is_not_taken_a_second_time_either(kit, out, end):
    asyncio.run(kit.run(out, [[kit.done(0)]], lambda j: j.seal() if end == "seal" else j.complete(1)))
    with pytest.raises(InvariantError, match="row 0 has its outcome already"):
        asyncio.run(kit.run(out, [[kit.done(0)]]))
    assert kit.stored(out) == ([(0, kit.answer(0))], [])


def test_the_table_itself_refuses_a_second_answer(kit, out):
    journal = kit.open_journal(out)
    journal.work.commit([kit.done(0)])
    journal.finished._bits.clear()
    with pytest.raises(InvariantError, match="holds already"):
        journal.work.commit([kit.done(0)])
    assert journal.counts.ok == 1
    close(journal)


def test_an_error_that_nobody_heard_of_is_raised_by_close(kit, out):
    async def run():
        journal = kit.open_journal(out)
        journal.start(asyncio.get_running_loop())
        journal.put([kit.done(1), kit.done(1)])
        with pytest.raises(InvariantError):
            await journal.close(clean=True, exit_code=0)
        await journal.close(clean=True, exit_code=0)

    asyncio.run(run())
    assert kit.open_journal(out).interrupted is not None


def test_half_characters_and_huge_numbers_do_not_stop_the_writer(kit, out):
    shape = kit.Shape(key=pa.field("id", pa.uint64()))
    records = [
        kit.done(0, answer="half \ud83d", request_id="\udc00", row=kit.RowRef(0, 2**64 - 1, b"[]")),
        kit.failed(1, message="\ud800", row=kit.RowRef(1, 5, b"[]")),
        kit.attempt(0, prompt_tokens=2**70, request_id="\udfff", cost_usd=math.nan),
    ]
    asyncio.run(kit.run(out, [records], complete(2), shape=shape))
    line = kit.read(out, "output").to_pylist()[0]
    assert (line["id"], line["content"], line["request_id"]) == (2**64 - 1, "half \ufffd", "\ufffd")
    assert kit.read(out, "failures")["message"].to_pylist() == ["\ufffd"]
    usage = kit.read(out, "usage").to_pylist()[0]
    assert (usage["prompt_tokens"], usage["request_id"], usage["cost_usd"]) == (None, "\ufffd", None)
    assert read_manifest(out).cost_usd is None


def test_with_routing_all_each_row_has_a_line_for_each_lane_in_order(kit, out):
    units = [(row, lane) for lane in (1, 0) for row in range(20, -1, -1)]
    manifest = asyncio.run(
        kit.run(out, [[kit.done(row, lane) for row, lane in units]], complete(42), slots=2)
    )
    table = kit.read(out, "output")
    names = {"first": 0, "second": 1}
    found = [
        (row, names[lane])
        for row, lane in zip(table["row"].to_pylist(), table["lane"].to_pylist(), strict=True)
    ]
    assert found == sorted(units)
    assert table["content"].to_pylist() == [kit.answer(row, lane) for row, lane in sorted(units)]
    assert (manifest.slots, manifest.ok) == (2, 42)


def test_with_routing_all_a_failure_without_a_lane_counts_for_each_lane(kit, out):
    manifest = asyncio.run(
        kit.run(out, [[kit.done(0, 0), kit.done(0, 1), kit.failed(1, None)]], complete(4), slots=2)
    )
    assert (manifest.ok, manifest.failed) == (2, 2)
    assert kit.read(out, "failures")["row"].to_pylist() == [1]


def exposed(kit, out, *told, clean=False):
    """A run that says how many calls may be out and what they are worth."""
    journal = kit.open_journal(out, clock=kit.Clock(1000.5))
    for calls, usd in told:
        asyncio.run(journal.expose(calls, usd))
    close(journal, clean=clean)
    return journal.interrupted


def test_a_run_that_did_not_end_is_reported_with_the_most_that_was_in_flight(kit, out):
    assert exposed(kit, out, (40, 0.5), (25, 0.75)) is None
    assert exposed(kit, out, clean=True) == Interrupted(1000.5, 1, 40, 0.75)
    assert exposed(kit, out, clean=True) is None


def test_a_run_that_is_killed_at_its_start_does_not_hide_the_one_before_it(kit, out):
    exposed(kit, out, (40, 0.5))
    exposed(kit, out)
    exposed(kit, out, (4, 0.25))
    assert exposed(kit, out, clean=True) == Interrupted(1000.5, 3, 44, 0.75)


def test_once_all_calls_are_home_a_kill_has_cost_nothing(kit, out):
    journal = kit.open_journal(out, clock=kit.Clock(1000.5))
    asyncio.run(journal.expose(40, None))
    asyncio.run(journal.unexpose())
    close(journal, clean=False)
    assert exposed(kit, out, (4, 0.25)) == Interrupted(1000.5, 1, 0, 0.0)
    assert exposed(kit, out, clean=True) == Interrupted(1000.5, 2, 4, 0.25)


@pytest.mark.parametrize("told", [[(4, None)], [(4, 0.5), (4, None)], [(4, None), (8, 0.5)]])
def test_money_that_nobody_can_bound_stays_unknown(kit, out, told):
    exposed(kit, out, (40, 0.5))
    exposed(kit, out, *told)
    found = exposed(kit, out, clean=True)
    assert (found.calls, found.usd) == (40 + told[-1][0], None)


def test_the_input_is_remembered_once_something_of_it_is_finished(kit, out):
    journal = kit.open_journal(out)
    assert (journal.input_digest, journal.input_stamps) == (None, None)
    journal.set_input(InputState("d0", 9, "{}"))
    assert journal.input_digest is None
    journal.set_input(InputState("d1", 10, '{"size": 1}'))
    journal.put([kit.done(0)])
    close(journal)
    journal = kit.open_journal(out)
    assert (journal.input_digest, journal.input_stamps) == ("d1", '{"size": 1}')
    close(journal)


async def test_counts_are_those_of_committed_records_and_are_told_on_the_loop(kit, out):
    heard = []
    journal = kit.open_journal(out)
    journal.start(asyncio.get_running_loop(), heard.append)
    journal.put([kit.attempt(0), kit.done(0), kit.failed(1)])
    await journal.flush()
    await asyncio.sleep(0)
    assert heard[-1] == journal.counts
    assert (journal.counts.ok, journal.counts.failed, journal.counts.attempts) == (1, 1, 1)
    assert journal.counts.cost_usd == 0.25
    assert journal.finished.has(1)
    assert journal.finished.ok == 0
    await journal.close(clean=True, exit_code=0)


async def test_a_watcher_hears_how_many_records_are_safe(kit, out):
    heard = []
    journal = kit.open_journal(out)
    journal.watch(heard.append)
    journal.start(asyncio.get_running_loop())
    for row in range(3):
        journal.put([kit.attempt(row), kit.done(row)])
        await journal.flush()
    await asyncio.sleep(0)
    await journal.close(clean=True, exit_code=0)
    assert heard[-1] == 6
    assert heard == sorted(heard)


async def test_the_queue_has_room_again_after_a_commit(kit, out):
    tuning = Tuning(sizes=kit.SMALL, queue=QueueLimits(rows=3))
    journal = kit.open_journal(out, tuning=tuning)
    journal.start(asyncio.get_running_loop())
    for row in range(50):
        await journal.room()
        journal.put([kit.done(row)])
    await journal.close(clean=True, exit_code=0)
    parts, lines = kit.stored(out)
    assert len(parts) + len(lines) == 50


def test_a_full_journal_is_a_storage_error_and_what_was_committed_stays(kit, out):
    async def run():
        tuning = Tuning(sizes=Sizes(), max_page_count=40)
        journal = kit.open_journal(out, tuning=tuning)
        journal.start(asyncio.get_running_loop())
        committed = 0

        async def fill():
            nonlocal committed
            while True:
                journal.put([kit.done(row, answer="x" * 900) for row in range(committed, committed + 20)])
                await journal.flush()
                committed += 20

        with pytest.raises(StorageError, match="database or disk is full") as caught:
            await fill()
        assert "are free" in caught.value.message
        assert "free at least" in caught.value.remedy
        with pytest.raises(StorageError):
            await journal.room()
        await journal.close(clean=False, exit_code=74)
        return committed

    committed = asyncio.run(run())
    assert committed > 0
    assert sorted(row for row, _ in kit.stored(out)[1]) == list(range(committed))
    journal = kit.open_journal(out)
    assert journal.finished.ok == committed
    assert journal.interrupted is not None
    close(journal)


async def test_a_disk_that_gets_full_stops_the_run_while_there_is_room_for_what_is_in_flight(kit, out):
    free = [10**12]
    clock = kit.Clock()
    tuning = Tuning(sizes=kit.SMALL, free_bytes=lambda _: free[0])
    journal = kit.open_journal(out, tuning=tuning, clock=clock)
    journal.start(asyncio.get_running_loop())
    journal.put([kit.done(0)])
    await journal.flush()
    free[0] = 10
    clock.now_s += 1.0
    journal.put([kit.done(1)])
    with pytest.raises(StorageError, match="almost full"):
        await journal.flush()
    with pytest.raises(StorageError, match="almost full"):
        await journal.room()
    journal.put([kit.done(2)])
    await journal.close(clean=True, exit_code=74)
    assert len(kit.stored(out)[1]) == 3


def test_a_full_disk_is_refused_before_anything_is_asked(kit, out):
    with pytest.raises(StorageError, match="almost full"):
        kit.open_journal(out, tuning=Tuning(free_bytes=lambda _: 0))


def test_a_run_without_its_lock_is_fenced_off_before_a_second_start_reads_what_is_finished(kit, out):
    """A line that the first one commits after that would be asked, and paid for, again."""
    first = kit.open_journal(out)
    with kit.raw(out / ".batchllm" / "journal.db") as connection:
        connection.execute(
            "INSERT INTO parts (kind, name, state, hi_seq) VALUES ('output', 'part-x.parquet', 'retired', 0)"
        )
    connection.close()
    met = []

    def fault(point):
        if (
            point == "before_manifest"
        ):  # what a start does about retired parts, before it reads what is finished
            first.put([kit.done(0)])
            with pytest.raises(InvariantError, match="another run has taken over"):
                first.seal()
            met.append(point)

    second = kit.open_journal(out, tuning=Tuning(fault=fault))
    assert met
    assert not second.finished.has(0)
    asyncio.run(second.close(clean=True, exit_code=0))
    with pytest.raises(InvariantError, match="another run has taken over"):
        asyncio.run(first.close(clean=False, exit_code=70))


def test_rows_that_come_after_a_complete_drain_get_higher_numbers(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0)]], lambda journal: journal.seal()))
    asyncio.run(kit.run(out, [[kit.done(1)]]))
    with kit.raw(out / ".batchllm" / "journal.db") as connection:
        assert connection.execute("SELECT seq FROM results").fetchall() == [(2,)]
    connection.close()


READ_ONLY = """
import asyncio, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from batchllm.errors import BatchllmError
from batchllm.journal import lock, manifest
from batchllm.journal.files import Layout
from batchllm.journal.identity import stored_job
import kit
out = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", out], check=True)
made = kit.open_journal(out)
made.put([kit.done(0)])
sealed = made.seal()
asyncio.run(made.close(True, 0))
subprocess.run(["mount", "-o", "remount,ro", out], check=True)
for act in (
    lambda: lock.OutputLock.acquire(out, about={}),
    lambda: kit.open_journal(out),
    lambda: stored_job(out),
    lambda: manifest.write_manifest(Layout(out), sealed),
):
    try:
        act()
    except BatchllmError as error:
        print(type(error).__name__, int(error.exit_code), error.message, error.remedy, sep="|")
    else:
        print("nothing raised")
"""


def _has_namespaces():
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        ).returncode
    )


@pytest.mark.skipif(not _has_namespaces(), reason="needs a mount of its own")
def test_a_disk_that_became_read_only_is_said_with_path_and_remedy(out):
    out.mkdir(parents=True)
    here = Path(__file__).parent
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", READ_ONLY, str(out), str(here)],
        capture_output=True,
        text=True,
        check=False,
        cwd=here.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        kind, code, message, remedy = line.split("|")
        assert (kind, code) in (("OutputError", "73"), ("StorageError", "74"))
        assert str(out) in message
        assert "read-only" in remedy
