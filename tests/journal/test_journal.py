"""The record as a whole: what is put in is what readers find, once, in order."""

import asyncio
import math
import sqlite3
from collections import Counter
from dataclasses import replace

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.journal import Interrupted, Tuning
from batchllm.journal.manifest import read_manifest
from batchllm.journal.parts import Sizes
from batchllm.journal.writer import QueueLimits
from batchllm.records import Billed


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


def test_polars_and_duckdb_read_the_folders_in_input_order(kit, out):
    records = [[record for row in range(39, -1, -1) for record in (kit.attempt(row), kit.done(row))]]
    asyncio.run(kit.run(out, records, complete(40)))
    frame = pl.scan_parquet(out / "output").collect()
    assert frame["row"].to_list() == list(range(40))
    assert frame.schema["lane"] == pl.String
    found = duckdb.sql(f"SELECT row, lane FROM read_parquet('{out}/output/*.parquet')").fetchall()
    assert found == [(row, "first") for row in range(40)]
    assert len(list((out / "output").iterdir())) > 1
    assert pl.scan_parquet(out / "failures").collect().height == 0
    assert duckdb.sql(f"SELECT sum(cost_usd) FROM '{out}/usage/*.parquet'").fetchall() == [(10.0,)]


def test_an_empty_run_has_tables_without_rows(kit, out):
    manifest = asyncio.run(kit.run(out, [], complete(0)))
    assert manifest.complete
    assert {kind: [part.rows for part in parts] for kind, parts in manifest.parts.items()} == {
        "output": [0], "failures": [0], "usage": [0]
    }  # fmt: skip
    assert pl.read_parquet(out / "output").columns[:3] == ["id", "row", "content"]
    again = asyncio.run(kit.run(out, [[kit.done(0)]], complete(1)))
    assert [part.rows for part in again.parts["output"]] == [1]
    assert kit.read(out, "output").num_rows == 1


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
    journal.commit([kit.done(0)])
    journal.finished._bits.clear()
    with pytest.raises(InvariantError, match="holds already"):
        journal.commit([kit.done(0)])
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


@pytest.mark.parametrize(("expected", "side"), [(3, "1 have no outcome"), (1, "1 outcomes are too many")])
def test_a_run_is_not_complete_with_a_unit_too_few_or_too_many(kit, out, expected, side):
    with pytest.raises(InvariantError, match=side) as caught:
        asyncio.run(kit.run(out, [[kit.done(0), kit.failed(1)]], complete(expected)))
    assert caught.value.exit_code == 70
    assert read_manifest(out) is None
    asyncio.run(kit.run(out, [], complete(2)))
    assert read_manifest(out).complete


def test_a_stopped_run_says_what_is_pending_and_what_it_cost(kit, out):
    def end(journal):
        journal.set_input("digest", 5, "{}")
        return journal.seal()

    records = [
        kit.attempt(0),
        kit.attempt(0, cost_usd=None, billed=Billed.UNKNOWN),
        kit.done(0),
        kit.failed(3),
    ]
    manifest = asyncio.run(kit.run(out, [records], end))
    assert (manifest.complete, manifest.rows, manifest.ok, manifest.failed, manifest.pending) == (
        False,
        5,
        1,
        1,
        3,
    )
    assert (manifest.cost_usd, manifest.uncertain, manifest.attempts) == (0.25, 1, 2)
    assert (manifest.prompt_tokens, manifest.completion_tokens) == (20, 10)
    assert manifest.simulated
    assert manifest.created == "2023-11-14T22:13:20.250Z"
    assert set(manifest.sections) == {"task", "params"}
    assert "prompt" not in manifest.sections.values()


def test_a_price_that_nobody_knows_makes_the_cost_unknown(kit, out):
    manifest = asyncio.run(kit.run(out, [[kit.attempt(0, cost_usd=None), kit.done(0)]], complete(1)))
    assert manifest.cost_usd is None


def test_a_complete_run_that_gets_more_rows_is_open_until_it_is_complete_again(kit, out):
    asyncio.run(kit.run(out, [[kit.done(row) for row in range(20)]], complete(20)))
    before = read_manifest(out).parts["output"]
    asyncio.run(kit.run(out, [[kit.done(20)]]))
    assert not read_manifest(out).complete
    manifest = asyncio.run(kit.run(out, [[kit.done(21)]], complete(22)))
    assert manifest.complete
    assert manifest.parts["output"][0] == before[0]
    assert kit.read(out, "output")["row"].to_pylist() == list(range(22))


def test_completing_a_complete_record_changes_no_part(kit, out):
    asyncio.run(kit.run(out, [[kit.done(row) for row in range(20)]], complete(20)))
    before = read_manifest(out).parts
    assert asyncio.run(kit.run(out, [], complete(20))).parts == before


def test_failures_can_be_forgotten_and_tried_again(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0), kit.failed(1), kit.failed(2), kit.attempt(1)]], complete(3)))
    asyncio.run(kit.run(out, [], lambda journal: journal.seal()))
    journal = kit.open_journal(out)
    assert journal.forget_failures() == 2
    assert [journal.finished.has(row) for row in range(3)] == [True, False, False]
    assert journal.counts.failed == 0
    assert not read_manifest(out).complete
    close(journal)
    manifest = asyncio.run(kit.run(out, [[kit.done(1), kit.failed(2, message="again")]], complete(3)))
    assert (manifest.ok, manifest.failed, manifest.attempts) == (2, 1, 1)
    assert kit.read(out, "failures")["message"].to_pylist() == ["again"]


def test_forgotten_failures_can_be_put_again_in_the_same_run(kit, out):
    asyncio.run(kit.run(out, [[kit.failed(1)]]))

    async def run():
        journal = kit.open_journal(out)
        journal.forget_failures()
        journal.start(asyncio.get_running_loop())
        journal.put([kit.done(1)])
        await journal.flush()
        await journal.close(clean=True, exit_code=0)

    asyncio.run(run())
    assert kit.stored(out)[1] == [(1, kit.answer(1))]


def test_a_run_that_did_not_end_is_reported_with_what_was_in_flight(kit, out):
    journal = kit.open_journal(out, clock=kit.Clock(1000.5))
    assert journal.interrupted is None
    journal.note_in_flight(40)
    journal.note_in_flight(25)
    close(journal, clean=False)
    journal = kit.open_journal(out)
    assert journal.interrupted == Interrupted(1000.5, 40)
    close(journal)
    journal = kit.open_journal(out)
    assert journal.interrupted is None
    close(journal)


def test_the_input_is_remembered(kit, out):
    journal = kit.open_journal(out)
    assert (journal.input_digest, journal.input_stamps) == (None, None)
    journal.set_input("d1", 10, '{"size": 1}')
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
    assert journal.spent_usd == 0.25
    assert journal.finished.has(1)
    assert journal.finished.ok == 0
    await journal.close(clean=True, exit_code=0)


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
        with pytest.raises(StorageError, match="database or disk is full") as caught:
            while True:
                journal.put([kit.done(row, answer="x" * 900) for row in range(committed, committed + 20)])
                await journal.flush()
                committed += 20
        assert "MiB are free" in caught.value.message
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
    journal = kit.open_journal(out, tuning=Tuning(sizes=kit.SMALL, free_bytes=lambda _: free[0]))
    journal.start(asyncio.get_running_loop())
    journal.put([kit.done(0)])
    await journal.flush()
    free[0] = 10
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


def test_the_journal_gives_its_space_back_once_it_is_drained(kit, out):
    records = [kit.done(row, answer="x" * 100_000) for row in range(200)]
    tuning = Tuning(sizes=Sizes())
    asyncio.run(kit.run(out, [records], tuning=tuning))
    database = out / ".batchllm" / "journal.db"
    assert database.stat().st_size > 15_000_000
    asyncio.run(kit.run(out, [], complete(200), tuning=tuning))
    assert database.stat().st_size < 500_000
    assert kit.read(out, "output").num_rows == 200


def test_rows_that_come_after_a_complete_drain_get_higher_numbers(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0)]], lambda journal: journal.seal()))
    asyncio.run(kit.run(out, [[kit.done(1)]]))
    with sqlite3.connect(out / ".batchllm" / "journal.db") as connection:
        assert connection.execute("SELECT seq FROM results").fetchall() == [(2,)]
    connection.close()


STEPS = st.lists(st.sampled_from(["commit", "commit", "seal", "step", "reopen"]), max_size=25)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(24)), st.sets(st.integers(0, 23)), STEPS, st.integers(1, 5))
def test_however_rows_finish_and_drain_each_is_there_once_and_in_order(
    tmp_path_factory, kit, order, broken, steps, together
):
    out = tmp_path_factory.mktemp("out")
    journal = kit.open_journal(out)
    rows = list(order)
    for step in [*steps, *["commit"] * 24]:
        match step:
            case "commit" if rows:
                taken, rows = rows[:together], rows[together:]
                journal.put([kit.failed(row) if row in broken else kit.done(row) for row in taken])
                journal.put([kit.attempt(row) for row in taken])
            case "seal":
                journal.seal()
            case "step":
                journal.step()
            case "reopen":
                close(journal)
                journal = kit.open_journal(out)
    manifest = journal.complete(24)
    close(journal)
    table = kit.read(out, "output")
    assert table["row"].to_pylist() == [row for row in range(24) if row not in broken]
    assert table["content"].to_pylist() == [kit.answer(row) for row in range(24) if row not in broken]
    assert kit.read(out, "failures")["row"].to_pylist() == sorted(broken)
    assert Counter(kit.read(out, "usage")["row"].to_pylist()) == Counter(range(24))
    assert (manifest.ok, manifest.failed) == (24 - len(broken), len(broken))


def test_parts_of_many_sizes_are_listed_as_they_are(kit, out):
    tuning = Tuning(sizes=replace(kit.SMALL, part_rows=7))
    records = [kit.done(row) for row in range(19, -1, -1)]
    manifest = asyncio.run(kit.run(out, [records[:10], records[10:]], complete(20), tuning=tuning))
    assert [part.rows for part in manifest.parts["output"]] == [7, 7, 6]
    assert sorted(path.name for path in (out / "output").iterdir()) == [
        part.path.removeprefix("output/") for part in manifest.parts["output"]
    ]
