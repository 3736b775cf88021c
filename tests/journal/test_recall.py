import asyncio

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import StorageError
from batchllm.journal.recall import runs
from batchllm.journal.tuning import Tuning


@given(st.lists(st.integers(0, 200), unique=True))
def test_ranges_hold_exactly_the_numbers(numbers):
    ranges = list(runs(pa.array(numbers, pa.int64())))
    assert [number for first, end in ranges for number in range(first, end)] == numbers


def test_numbers_without_gaps_are_one_range():
    assert list(runs(pa.array(range(5, 5000), pa.int64()))) == [(5, 5000)]


def reopen(kit, out, **changes):
    journal = kit.open_journal(out, **changes)
    asyncio.run(journal.close(clean=True, exit_code=0))
    return journal


@pytest.mark.parametrize("end", ["flush", "seal", "complete"])
def test_what_was_finished_is_known_again(kit, out, end):
    rows, broken = [0, 1, 2, 5, 9, 11], [3, 10]
    records = [kit.done(row) for row in rows] + [kit.failed(row) for row in broken] + [kit.attempt(0)]
    ends = {"flush": None, "seal": lambda j: j.seal(), "complete": lambda j: j.complete(8)}
    asyncio.run(kit.run(out, [records], ends[end]))
    finished = reopen(kit, out).finished
    assert [row for row in range(20) if finished.has(row)] == sorted(rows + broken)
    assert (finished.ok, finished.failed, finished.spent_usd) == (6, 2, 0.25)


@pytest.mark.parametrize("end", ["flush", "seal"])
def test_units_of_each_lane_are_known_again(kit, out, end):
    records = [kit.done(0, 1), kit.failed(0, 0), kit.done(4, 0), kit.failed(2, None)]
    asyncio.run(kit.run(out, [records], (lambda j: j.seal()) if end == "seal" else None, slots=2))
    finished = reopen(kit, out, slots=2).finished
    found = {(row, lane) for row in range(6) for lane in (0, 1) if finished.has(row, lane)}
    assert found == {(0, 0), (0, 1), (4, 0), (2, 0), (2, 1)}
    assert (finished.ok, finished.failed) == (2, 3)


@pytest.mark.parametrize("lanes", [(0,), (1,), (0, 1)])
def test_rows_of_one_lane_do_not_pass_for_all_units_of_half_the_rows(kit, out, lanes):
    records = [kit.done(row, lane) for row in range(10) for lane in lanes]
    asyncio.run(kit.run(out, [records], lambda j: j.seal(), slots=2, tuning=Tuning()))
    finished = reopen(kit, out, slots=2).finished
    found = {(row, lane) for row in range(12) for lane in (0, 1) if finished.has(row, lane)}
    assert found == {(row, lane) for row in range(10) for lane in lanes}


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_answers_and_failures_among_the_first_rows_are_counted(kit, tmp_path_factory, data):
    slots = data.draw(st.sampled_from([1, 2]))
    units = [(row, lane) for row in range(12) for lane in range(slots)]
    picked = data.draw(st.lists(st.sampled_from(units), unique=True))
    ends = data.draw(st.lists(st.sampled_from([None, lambda journal: journal.seal()]), max_size=3))
    broken = {unit for unit in picked if sum(unit) % 3 == 0}
    records = [kit.failed(*unit) if unit in broken else kit.done(*unit) for unit in picked]
    out = tmp_path_factory.mktemp("among") / "out"
    for turn, end in enumerate(ends):
        asyncio.run(kit.run(out, [records[turn :: len(ends)]], end, slots=slots))
    journal = kit.open_journal(out, slots=slots)
    kept = picked if ends else []
    for rows in range(14):
        first = {unit for unit in kept if unit[0] < rows}
        assert journal.finished_among(rows) == (len(first - broken), len(first & broken), 0)
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_journal_whose_lines_were_removed_is_refused(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0), kit.done(1)]]))
    with kit.raw(out / ".batchllm" / "journal.db") as connection:
        connection.execute("DELETE FROM results WHERE row = 1")
    connection.close()
    with pytest.raises(StorageError, match="do not belong together: it counts 2 answers"):
        kit.open_journal(out)
