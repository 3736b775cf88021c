"""The ends of a run: what a stop leaves, what a complete run is, and what a later run may add."""

import asyncio
from collections import Counter
from contextlib import closing
from dataclasses import replace

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InvariantError
from batchllm.journal import merge
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.journal.parts import Sizes
from batchllm.journal.renewal import Renewal
from batchllm.journal.tuning import Tuning
from batchllm.matching import Places
from batchllm.records import Billed


def complete(units):
    return lambda journal: journal.complete(units)


def close(journal, *, clean=True):
    asyncio.run(journal.close(clean=clean, exit_code=0))


def test_polars_and_duckdb_read_the_folders_in_input_order(kit, out):
    records = [[record for row in range(39, -1, -1) for record in (kit.attempt(row), kit.done(row))]]
    asyncio.run(kit.run(out, records, complete(40)))
    frame = pl.scan_parquet(out / "output").collect()
    assert frame["row"].to_list() == list(range(40))
    assert frame.schema["lane"] == pl.String
    found = duckdb.read_parquet(f"{out}/output/*.parquet").project("row, lane").fetchall()
    assert found == [(row, "first") for row in range(40)]
    assert len(list((out / "output").iterdir())) > 1
    assert pl.scan_parquet(out / "failures").collect().height == 0
    assert duckdb.read_parquet(f"{out}/usage/*.parquet").sum("cost_usd").fetchall() == [(10.0,)]


def test_an_empty_run_has_tables_without_rows(kit, out):
    manifest = asyncio.run(kit.run(out, [], complete(0)))
    assert manifest.complete
    assert {kind: [part.rows for part in parts] for kind, parts in manifest.parts.items()} == {
        "output": [0], "failures": [0], "usage": [0], "skipped": []
    }  # fmt: skip
    assert pl.read_parquet(out / "output").columns[:3] == ["id", "row", "content"]
    again = asyncio.run(kit.run(out, [[kit.done(0)]], complete(1)))
    assert [part.rows for part in again.parts["output"]] == [1]
    assert kit.read(out, "output").num_rows == 1


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_completion_that_nobody_waits_for_leaves_all_rows_and_the_next_one_orders_them(kit, out, batches):
    left = iter(range(batches))
    records = [[kit.attempt(row), kit.done(row)] for row in reversed(range(40))]
    manifest = asyncio.run(
        kit.run(out, records, lambda journal: journal.complete(40, lambda: next(left, None) is None))
    )
    assert (manifest.complete, manifest.ok) == (False, 40)
    assert read_manifest(out) == manifest
    assert sorted(kit.read(out, "output")["row"].to_pylist()) == list(range(40))
    assert not list((out / ".batchllm").glob("part-*"))
    assert asyncio.run(kit.run(out, [], complete(40))).complete
    for kind in ("output", "usage"):
        assert kit.read(out, kind)["row"].to_pylist() == list(range(40))


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
        journal.set_input(InputState("digest", 5, "{}"))
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
    forgotten = journal.forget_failures()
    assert forgotten.units == 2
    assert [row for row in range(-1, 60) if row in forgotten] == [1, 2]
    assert [journal.finished.has(row) for row in range(3)] == [True, False, False]
    assert journal.counts.failed == 0
    assert not read_manifest(out).complete
    close(journal)
    manifest = asyncio.run(kit.run(out, [[kit.done(1), kit.failed(2, message="again")]], complete(3)))
    assert (manifest.ok, manifest.failed, manifest.attempts) == (2, 1, 1)
    assert kit.read(out, "failures")["message"].to_pylist() == ["again"]


def test_what_was_forgotten_and_not_asked_again_is_remembered(kit, out):
    """A start that is cut off does not turn failed rows into rows that were never reached."""
    asyncio.run(kit.run(out, [[kit.done(0), kit.failed(1), kit.failed(2), kit.failed(9)]]))
    close(forgetting(kit, out, [1, 2, 9]))
    asyncio.run(kit.run(out, [[kit.done(2), kit.failed(4)]]))
    journal = forgetting(kit, out, [1, 4, 9])
    close(journal)
    asyncio.run(kit.run(out, [[kit.failed(row) for row in (1, 3, 4, 5, 6, 7, 8, 9)]], complete(10)))
    asyncio.run(kit.run(out, [], lambda journal: journal.seal()))
    close(forgetting(kit, out, [1, *range(3, 10)]))


def test_what_is_remembered_moves_with_the_rows(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0), kit.failed(1), kit.failed(2)]], complete(3)))
    journal = forgetting(kit, out, [1, 2])
    with closing(journal.carries()) as carries:
        places = Places(0, pa.array([None, 5, None], pa.int64()))
        journal.renew(Renewal(places, carries), InputState("other", 6, "[]"))
    close(journal)
    close(forgetting(kit, out, [5]))


def forgetting(kit, out, expected):
    journal = kit.open_journal(out)
    forgotten = journal.forget_failures()
    assert [row for row in range(-1, 60) if row in forgotten] == expected
    assert forgotten.units == len(expected)
    return journal


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


def test_the_journal_gives_its_space_back_once_it_is_drained(kit, out):
    records = [kit.done(row, answer="x" * 60_000) for row in range(200)]
    tuning = Tuning(sizes=Sizes())
    asyncio.run(kit.run(out, [records], tuning=tuning))
    database = out / ".batchllm" / "journal.db"
    assert database.stat().st_size > 10_000_000
    asyncio.run(kit.run(out, [], complete(200), tuning=tuning))
    assert database.stat().st_size < 500_000
    assert kit.read(out, "output").num_rows == 200


STEPS = st.lists(st.sampled_from(["commit", "commit", "seal", "step", "reopen"]), max_size=25)


@settings(max_examples=25, deadline=None)
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
                journal.work.step()
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


def test_parts_that_all_overlap_are_merged_a_few_at_a_time(kit, out, monkeypatch):
    """Rows that moved all over the place, as after a shuffled input: each part reaches from the first to the last."""
    parts = 11
    open_now: set[int] = set()
    most_open = 0

    class Counted(merge._Cursor):
        def __init__(self, *values):
            nonlocal most_open
            super().__init__(*values)
            open_now.add(id(self))
            most_open = max(most_open, len(open_now))

        def refill(self):
            is_open = super().refill()
            if not is_open:
                open_now.discard(id(self))
            return is_open

    for first in range(parts):
        asyncio.run(
            kit.run(out, [[kit.done(first + parts * step) for step in range(8)]], lambda one: one.seal())
        )
    assert len(kit.names(out / "output")) == parts
    monkeypatch.setattr(merge, "_Cursor", Counted)
    manifest = asyncio.run(kit.run(out, [], complete(parts * 8)))
    assert manifest.complete
    assert most_open <= kit.SMALL.merge_parts
    table = kit.read(out, "output")
    assert table["row"].to_pylist() == list(range(parts * 8))
    assert table["content"].to_pylist() == [kit.answer(row) for row in range(parts * 8)]


def test_a_job_that_is_stopped_a_hundred_times_is_not_a_hundred_files(kit, out):
    for first in range(0, 200, 2):
        rows = [record for row in (first, first + 1) for record in (kit.attempt(row), kit.done(row))]
        asyncio.run(kit.run(out, [rows], lambda one: one.seal(), tuning=Tuning()))
        assert all(len(kit.names(out / kind)) <= 16 for kind in kit.KINDS)
    assert sorted(kit.read(out, "output")["row"].to_pylist()) == list(range(200))
    assert kit.read(out, "usage").num_rows == 200
    assert read_manifest(out).ok == 200
    asyncio.run(kit.run(out, [], complete(200), tuning=Tuning()))
    assert kit.read(out, "output")["row"].to_pylist() == list(range(200))
    assert [len(kit.names(out / kind)) for kind in kit.KINDS] == [1, 1, 1]


def test_calls_whose_rows_are_gone_do_not_keep_a_completion_for_ever(kit, out):
    """More of them than parts that may be open together: all are of the same row, -1."""
    for first in range(0, 120, 20):
        calls = [kit.attempt(-1) for _ in range(16)] + [kit.attempt(row) for row in range(first, first + 20)]
        asyncio.run(
            kit.run(
                out, [[*calls, *[kit.done(row) for row in range(first, first + 20)]]], lambda one: one.seal()
            )
        )
    manifest = asyncio.run(kit.run(out, [], complete(120)))
    assert manifest.complete
    rows = kit.read(out, "usage")["row"].to_pylist()
    assert rows == sorted(rows)
    assert len(rows) == 6 * 36
