"""Drains, and drains that go wrong."""

import asyncio
import errno
from dataclasses import replace

import pytest

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.drain import Drains
from batchllm.journal.parts import Sizes
from batchllm.journal.tuning import Tuning


class FailAt:
    """An error at the nth time that a point is passed."""

    def __init__(self, point: str, error: BaseException, nth: int = 1) -> None:
        self.point, self.error, self.left = point, error, nth

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise self.error


def test_rows_in_a_part_are_in_order_however_they_finished(kit, out):
    kit.fill(out, rows=[row * 7 % 30 for row in range(30)])
    kit.seal(out, tuning=Tuning(sizes=Sizes()))
    for kind in ("output", "usage"):
        assert kit.read(out, kind)["row"].to_pylist() == list(range(30))


def test_drained_lines_leave_the_journal(kit, out):
    kit.fill(out)
    kit.seal(out)
    parts, lines = kit.stored(out)
    assert (len(parts), lines) == (30, [])


@pytest.mark.parametrize(
    "point", ["after_intent", "after_tmp", "after_fsync", "after_link", "before_part_commit"]
)
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["ENOSPC", "interrupt"]
)
def test_a_drain_that_fails_loses_no_row_and_can_be_done_again(kit, out, point, error):
    kit.fill(out)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        kit.seal(out, tuning=Tuning(sizes=kit.SMALL, fault=FailAt(point, error, nth=2)))
    parts, lines = kit.stored(out)
    assert sorted(row for row, _ in parts + lines) == list(range(30))
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    manifest = journal.complete(30)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert manifest.complete
    assert kit.read(out, "output")["row"].to_pylist() == list(range(30))
    assert kit.names(out / ".batchllm") == ["journal.db"]


def test_a_commit_of_a_part_that_fails_leaves_its_file_for_the_next_start_to_judge(kit, out):
    kit.fill(out)
    fault = FailAt("before_part_commit", StorageError("fsync failed"))
    with pytest.raises(StorageError, match="fsync failed"):
        kit.seal(out, tuning=Tuning(sizes=kit.SMALL, fault=fault))
    assert len(list((out / "output").iterdir())) == 1
    assert kit.stored(out)[0] == []
    journal = kit.open_journal(out)
    assert list((out / "output").iterdir()) == []
    asyncio.run(journal.close(clean=True, exit_code=0))


@pytest.mark.parametrize("point", ["after_tmp", "after_link"])
async def test_a_drain_that_fails_while_the_run_goes_on_stops_the_run_and_keeps_committing(kit, out, point):
    fault = FailAt(point, OSError(errno.ENOSPC, "full"))
    journal = kit.open_journal(out, tuning=Tuning(sizes=kit.SMALL, fault=fault))
    journal.start(asyncio.get_running_loop())
    journal.put([kit.done(row) for row in range(12)])
    with pytest.raises(StorageError, match="full"):
        await kit.flush_until_it_fails(journal)
    journal.put([kit.done(12)])
    with pytest.raises(StorageError):
        await journal.flush()
    assert journal.counts.ok == 13
    await journal.close(clean=False, exit_code=74)
    assert sorted(row for row, _ in kit.stored(out)[1]) == list(range(13))


def test_a_folder_that_vanished_is_a_storage_error_and_the_rows_stay(kit, out):
    kit.fill(out)
    journal = kit.open_journal(out)
    (out / "output").rmdir()
    with pytest.raises(StorageError, match="cannot create"):
        journal.seal()
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert len(kit.stored(out)[1]) == 30


def test_large_answers_are_read_a_few_at_a_time(kit, out):
    kit.fill(out, rows=range(200))
    journal = kit.open_journal(out)
    drains = Drains(replace(journal._store, sizes=Sizes(slice_bytes=1, drain_rows=100)))
    steps = 0
    while drains.is_due:
        drains.step()
        steps += 1
    asyncio.run(journal.close(clean=True, exit_code=0))
    parts, lines = kit.stored(out)
    assert len(parts) >= 101
    assert len(parts) + len(lines) == 200
    assert steps > 4


def test_a_drain_waits_for_its_share_of_rows_or_bytes(kit, out):
    journal = kit.open_journal(out)
    drains = Drains(replace(journal._store, sizes=Sizes(drain_rows=10, drain_bytes=1000)))
    drains.note("output", 9, 999)
    assert not drains.is_due
    drains.note("output", 0, 1)
    assert drains.is_due
    other = Drains(replace(journal._store, sizes=Sizes(drain_rows=10, drain_bytes=1000)))
    other.note("usage", 10)
    assert other.is_due
    journal._database.close()


def test_a_drain_that_is_left_half_way_keeps_its_rows(kit, out):
    kit.fill(out)
    journal = kit.open_journal(out)
    drains = journal.work.drains
    drains.step()
    drains.step()
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert sorted(row for row, _ in kit.stored(out)[1]) == list(range(30))
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_lines_that_another_program_took_away_are_missed_with_a_way_on(kit, out):
    journal = kit.open_journal(out)
    drains = Drains(journal._store)
    drains.note("output", 30)
    with pytest.raises(InvariantError, match="30 lines of output are counted, and none is in") as caught:
        drains.step()
    assert "batchllm rebuild JOB" in caught.value.remedy
    journal._database.close()
