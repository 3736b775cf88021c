"""Between two inputs: the new one is asked already, and the parts are still those of the one before."""

import asyncio
import threading
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pytest

from batchllm.errors import FullDiskError, StorageError
from batchllm.journal import pending
from batchllm.journal.aside import put_aside
from batchllm.journal.audit import audit
from batchllm.journal.files import Layout
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.journal.renewal import Renewal
from batchllm.journal.tuning import Tuning
from batchllm.matching import Places

#: A row of the new input that none of the old one is.
NEW = 35


@pytest.fixture
def record(kit, out):
    """Complete, of 40 rows, two of them failures; of another input there are 34, backwards, and one is new."""

    def end(journal):
        marks = array("Q", range(1, kit.ROWS + 1))
        journal.set_input(InputState("old", kit.ROWS, "[]", marks, "lines"))
        return journal.complete(kit.ROWS)

    asyncio.run(kit.run(out, kit.scenario_batches(kit.ORDER), end))
    return out


def renewed(kit, journal) -> None:
    places = Places(0, pa.array([kit.MOVED.get(row) for row in range(kit.ROWS)], pa.int32()))
    rows = len(kit.MOVED) + 2
    with closing(journal.carries()) as carries:
        marks = array("Q", range(1, rows + 1))
        journal.renew(Renewal(places, carries), InputState("new", rows, "[]", marks, "lines"))


def pended(kit, out) -> None:
    """Taken up, and nothing more."""
    journal = kit.open_journal(out)
    renewed(kit, journal)
    asyncio.run(journal.close(clean=True, exit_code=0))


def answered(kit, out, rows=(NEW,)) -> None:
    """The same, killed once these rows of the new input were answered: no part had moved."""
    held = Held()
    journal = kit.open_journal(out, tuning=Tuning(sizes=kit.SMALL, fault=held))

    async def go():
        renewed(kit, journal)
        held.begin()
        journal.start(asyncio.get_running_loop())
        journal.put([record for row in rows for record in (kit.attempt(row), kit.done(row))])
        await journal.flush()
        journal._renewing._mover._stopping.set()
        held.let_go.set()
        await journal.close(clean=False, exit_code=0)

    asyncio.run(go())


class Held:
    """Holds up whoever begins a part once `begin` was called, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.let_go.set()

    def begin(self) -> None:
        self.let_go.clear()

    def __call__(self, point: str) -> None:
        if point == "after_tmp":
            assert self.let_go.wait(30)


def is_pending(out) -> bool:
    return bool(list((out / ".batchllm").glob("renewal-*")))


def lines(out, kind="output"):
    paths = sorted((out / kind).iterdir())
    return [path.name for path in paths]


def now_of(kit, out) -> dict[int, str]:
    table = kit.read(out, "output")
    return dict(zip(table["row"].to_pylist(), table["content"].to_pylist(), strict=True))


def expected(kit) -> dict[int, str]:
    moved = {at: kit.answer(row) for row, at in kit.MOVED.items() if row not in kit.FAILED}
    return {**moved, NEW: kit.answer(NEW)}


def owner(kit) -> Owner:
    return Owner(kit.IDENTITY, kit.LANES, 1, kit.ChatTask(), kit.Shape())


def settled(kit, out) -> None:
    """A start carries out what is pending."""
    said: list[str] = []
    tuning = Tuning(sizes=kit.SMALL)
    journal = kit.open_journal(out, tuning=replace(tuning, disk=replace(tuning.disk, say=said.append)))
    assert said == ["rows are moved to their places in the changed input, which an earlier run had begun"]
    assert journal.unknown_files == []
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert not is_pending(out)


def test_parts_and_manifest_are_of_the_old_input_until_all_have_moved(kit, record):
    files, before = {kind: lines(record, kind) for kind in kit.KINDS}, read_manifest(record)
    held = Held()
    journal = kit.open_journal(record, tuning=Tuning(sizes=kit.SMALL, fault=held))

    async def go():
        renewed(kit, journal)
        assert not journal.finished.has(NEW)
        assert [journal.finished.has(row) for row in range(len(kit.MOVED) + 1)] == [True] * 34 + [False]
        assert (journal.counts.ok, journal.counts.failed) == (32, 2)
        held.begin()
        journal.start(asyncio.get_running_loop())
        # More than a drain waits for.
        for start in range(NEW, NEW + 24, 4):
            journal.put([kit.done(row) for row in range(start, start + 4)])
            await journal.flush()
        assert {kind: lines(record, kind) for kind in kit.KINDS} == files
        assert read_manifest(record) == before
        assert journal.has_lines
        assert journal.has_room
        journal.put([kit.done(row) for row in range(NEW + 24, NEW + 40)])
        await journal.flush()
        assert not journal.has_room  # four times a drain
        room = asyncio.create_task(journal.room())
        await asyncio.sleep(0)
        assert not room.done()
        held.let_go.set()
        await room
        assert journal.settle()
        assert not is_pending(record)
        journal.seal()
        await journal.close(clean=True, exit_code=0)

    asyncio.run(go())
    want = {**expected(kit), **{row: kit.answer(row) for row in range(NEW, NEW + 40)}}
    assert now_of(kit, record) == want
    now = read_manifest(record)
    assert (now.ok, now.failed, now.renewals) == (32 + 40, 2, before.renewals + 1)
    assert sorted(kit.read(record, "usage")["row"].to_pylist()) == [-1] * 6 + sorted(kit.MOVED.values())


def test_where_no_row_moves_nothing_is_pending(kit, record):
    files = lines(record)
    journal = kit.open_journal(record)
    with closing(journal.carries()) as carries:
        places = Places(kit.ROWS, pa.nulls(0, pa.int32()))
        journal.renew(Renewal(places, carries), InputState("new", kit.ROWS + 5, "[]"))
    assert not is_pending(record)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert lines(record) == files
    assert (read_manifest(record).rows, read_manifest(record).complete) == (kit.ROWS + 5, False)


def test_a_stop_that_is_late_leaves_it_to_the_next_start(kit, record):
    files, before = lines(record), read_manifest(record)
    held = Held()
    journal = kit.open_journal(record, tuning=Tuning(sizes=kit.SMALL, fault=held))

    async def go():
        renewed(kit, journal)
        held.begin()
        journal.start(asyncio.get_running_loop())
        journal.put([kit.done(NEW), kit.attempt(NEW)])
        await journal.flush()
        threading.Timer(0.1, held.let_go.set).start()
        assert not await asyncio.to_thread(journal.settle, lambda: True)
        told = journal.seal()
        assert (told.ok, told.failed, told.rows, told.complete) == (33, 2, len(kit.MOVED) + 2, False)
        assert journal.complete(kit.ROWS).complete is False
        await journal.close(clean=True, exit_code=130)

    asyncio.run(go())
    assert (lines(record), read_manifest(record)) == (files, before)
    assert not list((record / ".batchllm").glob("part-*"))
    settled(kit, record)
    kit.seal(record)
    assert now_of(kit, record) == expected(kit)


def test_what_reads_answers_meanwhile_sees_rows_where_they_stand_now(kit, record):
    journal = kit.open_journal(record)
    renewed(kit, journal)
    hashes = {
        row: text
        for batch in journal.known_hashes(None)
        for text, row in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    }
    assert hashes == {
        at: row.to_bytes(16, "big").hex() for row, at in kit.MOVED.items() if row not in kit.FAILED
    }
    answers = {
        unit: text
        for units, batch in journal.known_answers(["content"])
        for unit, text in zip(units.to_pylist(), batch.column(0).to_pylist(), strict=True)
    }
    assert {**answers, NEW: kit.answer(NEW)} == expected(kit)
    failed = sorted(kit.MOVED[row] for row in kit.FAILED)
    for rows in (0, 5, failed[0] + 1, 34, 100):
        ok = sum(row < rows for row in answers)
        assert journal.finished_among(rows) == (ok, sum(row < rows for row in failed), 0)
    assert is_pending(record)
    assert journal.forget_failures().units == 2  # for which the parts are needed
    assert not is_pending(record)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert now_of(kit, record) == answers


def test_verify_finds_it_whole_and_says_so(kit, record):
    answered(kit, record, (NEW, 34))
    found = audit(record)
    assert found.is_whole
    assert [note for note in found.notes if "on their way" in note]
    assert (found.ok, found.failed, found.in_journal) == (34, 2, 2)
    settled(kit, record)
    assert audit(record).is_whole


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_plan_that_is_lost_or_damaged_is_named_and_a_rebuild_keeps_what_was_answered(kit, record, harm):
    answered(kit, record, (NEW, 34))
    (path,) = (record / ".batchllm").glob("renewal-*")
    if harm == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StorageError, match=r"renewal-.* is (missing|damaged)") as caught:
        kit.open_journal(record)
    assert "batchllm rebuild JOB" in caught.value.remedy
    (fault,) = audit(record).findings
    assert str(path) in fault.message
    done = rebuild(record, owner(kit), clock=kit.Clock(), drops_missing=False)
    assert (done.is_new, done.ok, done.failed, done.salvaged) == (True, 40, 2, 2)
    assert audit(record).is_whole
    journal = kit.open_journal(record)
    assert not is_pending(record)
    assert (journal.input_digest, journal.input_rows) == ("", kit.ROWS + 2)
    # Its keys tell the next run whose they are.
    found = [
        line
        for batch in journal.known_rows(journal.key_column(["k34", f"k{NEW}"]))
        for line in batch.to_pylist()
    ]
    assert {(line["id"], line["row"] >= kit.ROWS) for line in found} == {
        ("k34", False),
        (f"k{NEW}", False),
        ("k34", True),
        (f"k{NEW}", True),
    }
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_journal_that_is_lost_meanwhile_is_rebuilt_as_that_of_the_old_input(kit, record):
    answered(kit, record)
    for path in (record / ".batchllm").glob("journal.db*"):
        path.unlink()
    done = rebuild(record, owner(kit), clock=kit.Clock(), drops_missing=False)
    assert (done.ok, done.failed) == (38, 2)
    journal = kit.open_journal(record)
    assert (journal.input_digest, journal.input_rows) == ("old", kit.ROWS)
    assert not is_pending(record)
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_part_that_is_lost_meanwhile_is_given_up_and_the_others_move(kit, record):
    answered(kit, record)
    name = lines(record)[-1]
    lost = kit.read_rows(record, name)
    (record / "output" / name).unlink()
    with pytest.raises(StorageError, match="is missing"):
        kit.open_journal(record)
    done = rebuild(record, owner(kit), clock=kit.Clock(), drops_missing=True)
    assert done.dropped_rows == len(lost)
    assert not is_pending(record)
    assert audit(record).is_whole
    kit.seal(record)
    gone = {kit.MOVED.get(row) for row in lost}
    assert now_of(kit, record) == {row: text for row, text in expected(kit).items() if row not in gone}


def test_a_part_that_is_damaged_ends_the_run_beside_which_it_should_move(kit, record):
    path = record / "output" / lines(record)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    journal = kit.open_journal(record)

    async def go():
        renewed(kit, journal)
        journal.start(asyncio.get_running_loop())
        with pytest.raises(StorageError, match=r"part-.* cannot be read"):
            await asyncio.wait_for(kit.flush_until_it_fails(journal), 10)
        with pytest.raises(StorageError, match="cannot be read"):
            journal.settle()
        await journal.close(clean=True, exit_code=74)

    asyncio.run(go())
    assert is_pending(record)
    assert audit(record).part_faults


def test_a_full_disk_holds_it_up_until_there_is_space(kit, record):
    class Full:
        left = 0

        def __call__(self, point: str) -> None:
            if point == "after_tmp" and self.left:
                self.left -= 1
                raise FullDiskError("no space for a part")

    full = Full()
    free = iter(1 << (30 + look) for look in range(1000))  # there is more at each look
    tuning = Tuning(sizes=kit.SMALL, fault=full, free_bytes=lambda _path: next(free))
    journal = kit.open_journal(record, tuning=replace(tuning, disk=replace(tuning.disk, wait_s=60.0)))

    async def go():
        renewed(kit, journal)
        full.left = 1
        journal.start(asyncio.get_running_loop())
        await asyncio.to_thread(until, journal.settle)
        await journal.close(clean=True, exit_code=0)

    asyncio.run(go())
    assert not is_pending(record)
    assert full.left == 0
    assert audit(record).is_whole


def test_an_input_is_not_taken_up_where_the_disk_has_no_room_for_the_parts_that_would_move(kit, record):
    needed = sum(path.stat().st_size for kind in kit.KINDS for path in (record / kind).iterdir())
    free = [1 << 40]
    tuning = Tuning(sizes=kit.SMALL, free_bytes=lambda _path: free[0])
    journal = kit.open_journal(record, tuning=tuning)
    free[0] = needed // 2
    with pytest.raises(FullDiskError, match="almost full"):
        renewed(kit, journal)
    assert (journal.input_digest, journal.counts.ok) == ("old", kit.ROWS - 2)
    assert not is_pending(record)
    asyncio.run(journal.close(clean=True, exit_code=74))
    assert audit(record).is_whole


def test_a_disk_that_is_full_at_the_start_is_told_and_nothing_is_lost(kit, record):
    answered(kit, record)

    def full(point: str) -> None:
        if point == "after_tmp":
            raise FullDiskError("no space for a part")

    with pytest.raises(FullDiskError):
        kit.open_journal(record, tuning=Tuning(sizes=kit.SMALL, fault=full))
    assert is_pending(record)
    assert audit(record).is_whole
    settled(kit, record)


def until(done: Callable[[], bool]) -> None:
    while True:
        try:
            assert done()
        except FullDiskError:
            continue
        return


def test_it_goes_aside_with_its_record(kit, record):
    answered(kit, record)
    earlier = put_aside(Layout(record), kit.STARTED_S)
    assert not is_pending(record)
    assert audit(earlier).is_whole
    settled(kit, earlier)


def test_files_of_renewals_that_nobody_knows_are_cleared_away(kit, record):
    for name in ("renewal-abc", "renewal-abc.carries"):
        (record / ".batchllm" / name).write_bytes(b"x")
    asyncio.run(kit.open_journal(record).close(clean=True, exit_code=0))
    assert not is_pending(record)


def test_what_is_kept_reads_back(kit, record):
    journal = kit.open_journal(record)
    tail = pa.array([3, None, 5, None, 9], pa.int64())
    with closing(journal.carries()) as carries:
        carries.add([])
        note = pending.keep(Layout(record), Renewal(Places(2, tail), carries))
    assert "carries" not in note
    back = pending.kept(Layout(record), note)
    assert (back.places.head, back.places.tail) == (2, tail)
    assert not back.carries.has(0, 100)
    asyncio.run(journal.close(clean=True, exit_code=0))
