"""The protocol of a part, its recovery, and drains that go wrong."""

import asyncio
import errno
import hashlib
import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.drain import Drains
from batchllm.journal.journal import Tuning
from batchllm.journal.parts import Draft, Sizes, publish


class FailAt:
    """An error at the nth time that a point is passed."""

    def __init__(self, point: str, error: BaseException, nth: int = 1) -> None:
        self.point, self.error, self.left = point, error, nth

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise self.error


def fill(kit, out, rows=range(30), **changes):
    """All rows in the journal, none in a part."""
    tuning = Tuning(sizes=replace(kit.SMALL, drain_rows=1000))
    records = [record for row in rows for record in (kit.attempt(row), kit.done(row))]
    asyncio.run(kit.run(out, [records], tuning=tuning, **changes))


def seal(kit, out, **changes):
    return asyncio.run(kit.run(out, [], lambda journal: journal.seal(), **changes))


def test_a_part_is_what_its_line_says(kit, out):
    fill(kit, out)
    manifest = seal(kit, out)
    for kind in ("output", "usage"):
        for entry in manifest.parts[kind]:
            data = (out / entry.path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
            assert pq.read_metadata(out / entry.path).num_rows == entry.rows
    assert sum(entry.rows for entry in manifest.parts["output"]) == 30


def test_rows_in_a_part_are_in_order_however_they_finished(kit, out):
    fill(kit, out, rows=[row * 7 % 30 for row in range(30)])
    seal(kit, out, tuning=Tuning(sizes=Sizes()))
    for kind in ("output", "usage"):
        assert kit.read(out, kind)["row"].to_pylist() == list(range(30))


def test_row_groups_are_bounded_compressed_and_checked(kit, out):
    fill(kit, out)
    manifest = seal(kit, out, tuning=Tuning(sizes=replace(kit.SMALL, drain_rows=1000)))
    metadata = pq.read_metadata(out / manifest.parts["output"][0].path)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    assert max(group.num_rows for group in groups) <= kit.SMALL.group_rows + kit.SMALL.slice_rows
    columns = {column.path_in_schema: column for column in map(groups[0].column, range(metadata.num_columns))}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["lane"].has_dictionary_page
    assert not columns["content"].has_dictionary_page


def test_drained_lines_leave_the_journal(kit, out):
    fill(kit, out)
    seal(kit, out)
    parts, lines = kit.stored(out)
    assert (len(parts), lines) == (30, [])


@pytest.mark.parametrize(
    "point", ["after_intent", "after_tmp", "after_fsync", "after_link", "before_part_commit"]
)
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["ENOSPC", "interrupt"]
)
def test_a_drain_that_fails_loses_no_row_and_can_be_done_again(kit, out, point, error):
    fill(kit, out)
    with pytest.raises(type(error)):
        seal(kit, out, tuning=Tuning(sizes=kit.SMALL, fault=FailAt(point, error, nth=2)))
    parts, lines = kit.stored(out)
    assert sorted(row for row, _ in parts + lines) == list(range(30))
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    manifest = journal.complete(30)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert manifest.complete
    assert kit.read(out, "output")["row"].to_pylist() == list(range(30))
    assert os.listdir(out / ".batchllm") == ["journal.db"]


def test_a_commit_of_a_part_that_fails_leaves_its_file_for_the_next_start_to_judge(kit, out):
    fill(kit, out)
    fault = FailAt("before_part_commit", StorageError("fsync failed"))
    with pytest.raises(StorageError, match="fsync failed"):
        seal(kit, out, tuning=Tuning(sizes=kit.SMALL, fault=fault))
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
        while True:
            await journal.flush()
    journal.put([kit.done(12)])
    with pytest.raises(StorageError):
        await journal.flush()
    assert journal.counts.ok == 13
    await journal.close(clean=False, exit_code=74)
    assert sorted(row for row, _ in kit.stored(out)[1]) == list(range(13))


def test_a_name_that_is_taken_is_never_written_over(kit, out):
    journal = kit.open_journal(out)
    store = journal._store
    intent = store.intend("output", 0)
    path = out / "output" / intent.name
    path.write_text("precious")
    draft = Draft(store, intent)
    sealed = draft.seal()
    draft.close()
    with pytest.raises(InvariantError, match="exists already"):
        publish(store, [sealed])
    assert path.read_text() == "precious"
    journal._database.close()


def test_a_draft_never_writes_through_a_link(kit, out):
    journal = kit.open_journal(out)
    intent = journal._store.intend("output", 0)
    target = out.parent / "precious"
    target.write_text("precious")
    (out / ".batchllm" / f"{intent.name}.tmp").symlink_to(target)
    with pytest.raises(StorageError, match="cannot create"):
        Draft(journal._store, intent)
    assert target.read_text() == "precious"
    journal._database.close()


def test_a_missing_part_is_named_with_its_rows_and_the_way_out(kit, out):
    fill(kit, out)
    entry = seal(kit, out).parts["output"][0]
    (out / entry.path).unlink()
    with pytest.raises(StorageError, match=rf"{entry.path} is missing: {entry.rows} finished rows") as caught:
        kit.open_journal(out)
    assert "put the file back" in caught.value.remedy


@pytest.mark.parametrize("how", ["shorter", "longer", "link"])
def test_a_part_that_is_not_what_was_written_is_refused(kit, out, how):
    fill(kit, out)
    path = out / seal(kit, out).parts["output"][0].path
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        elsewhere = out.parent / "elsewhere"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    else:
        path.write_bytes(data[:-1] if how == "shorter" else data + b"x")
    with pytest.raises(StorageError, match=path.name):
        kit.open_journal(out)


def test_files_that_nobody_knows_are_reported_and_left(kit, out):
    fill(kit, out)
    seal(kit, out)
    strangers = [
        out / "output" / "part-copy.parquet",
        out / "usage" / "notes",
        out / ".batchllm" / "part-x.tmp",
    ]
    for path in strangers:
        path.write_text("whose?")
    journal = kit.open_journal(out)
    journal.complete(30)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert journal.unknown_files == sorted(strangers)
    assert all(path.read_text() == "whose?" for path in strangers)


def test_a_temporary_name_that_outlived_its_part_goes(kit, out):
    fill(kit, out)
    entry = seal(kit, out).parts["output"][0]
    left = out / ".batchllm" / f"{entry.path.removeprefix('output/')}.tmp"
    os.link(out / entry.path, left)
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    assert not left.exists()
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_folder_that_vanished_is_a_storage_error_and_the_rows_stay(kit, out):
    fill(kit, out)
    journal = kit.open_journal(out)
    (out / "output").rmdir()
    with pytest.raises(StorageError, match="cannot create"):
        journal.seal()
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert len(kit.stored(out)[1]) == 30


def test_large_answers_are_read_a_few_at_a_time(kit, out):
    fill(kit, out, rows=range(200))
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
    fill(kit, out)
    journal = kit.open_journal(out)
    drains = journal._drains
    drains.step()
    drains.step()
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert sorted(row for row, _ in kit.stored(out)[1]) == list(range(30))
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    asyncio.run(journal.close(clean=True, exit_code=0))
