"""Answers that no commit took: in a file of one's own, whole or refused, and taken in once."""

import asyncio
import os
import stat

import pytest

from batchllm.errors import StorageError
from batchllm.journal.space import DiskRules
from batchllm.journal.spill import Spilled, read_spill, spill_folder, write_spill
from batchllm.journal.tuning import Tuning

KEYS = ["k", 7, None, b"\x00\xff", 1.5]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spill" / "batchllm-spill-x"


def records(kit):
    done = [kit.done(row)._replace(row=kit.RowRef(row, key, b"[1]")) for row, key in enumerate(KEYS)]
    vector = kit.done(9, answer=b"\x00\x01\x02\x03")
    return [*done, vector, kit.failed(10, lane=None, content="half"), kit.attempt(0, cost_usd=None)]


def test_what_is_written_reads_back_as_it_was(kit, path):
    spilled = Spilled(4, 5, 6, [1, 0], 2, records(kit))
    write_spill(path, spilled)
    assert read_spill(path) == spilled
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_characters_are_kept_as_a_commit_would_keep_them(kit, path):
    write_spill(path, Spilled(1, 0, 0, [0], 0, [kit.done(0, answer="a\ud800b")]))
    assert read_spill(path).records[0].answer == "a\ufffdb"


def test_no_file_is_no_answers(path):
    assert read_spill(path) is None


def test_a_file_that_is_there_is_never_written_over(kit, path):
    write_spill(path, Spilled(1, 0, 0, [0], 0, [kit.done(0)]))
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_spill(path, Spilled(1, 0, 0, [0], 0, [kit.done(1)]))
    assert path.read_bytes() == before


def test_a_file_that_is_cut_anywhere_or_has_a_flipped_bit_is_refused(kit, path):
    write_spill(path, Spilled(1, 0, 0, [0], 0, [kit.done(0), kit.attempt(0)]))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        with pytest.raises(StorageError, match="is damaged"):
            read_spill(path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StorageError, match="is damaged"):
            read_spill(path)


@pytest.mark.parametrize("planted", ["link", "pipe"])
def test_what_somebody_planted_is_not_taken_in(path, tmp_path, planted):
    path.parent.mkdir()
    if planted == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    with pytest.raises(StorageError):
        read_spill(path)


def test_the_folder_is_the_users_choice(tmp_path):
    assert spill_folder({"BATCHLLM_SPILL_DIR": str(tmp_path)}) == tmp_path
    assert spill_folder({}).is_dir()


@pytest.mark.parametrize(
    ("ok", "attempts", "missing"), [(3, 3, 4), (4, 4, 2), (5, 5, 0)], ids=["none", "the unsure ones", "all"]
)
def test_the_totals_tell_what_the_journal_lacks(kit, ok, attempts, missing):
    both = [kit.done(0), kit.attempt(0), kit.done(1), kit.attempt(1)]
    spilled = Spilled(2, 3, 3, [0], 2, both)
    assert spilled.missing(2, ok, attempts) == both[4 - missing :]


def test_a_journal_that_went_on_without_them_is_told_so(kit):
    spilled = Spilled(2, 3, 3, [0], 1, [kit.done(0), kit.done(1)])
    assert spilled.missing(2, 9, 9) is None
    assert spilled.missing(3, 4, 3) is None
    assert spilled.missing(3, 5, 3) == []


async def fail_after_ten(kit, out, rules):
    """Ten rows are committed; the disk refuses the next ones, and three more come home after that."""
    journal = kit.open_journal(out, tuning=Tuning(sizes=kit.SMALL, disk=rules))
    journal.start(asyncio.get_running_loop())
    journal.put([record for row in range(10) for record in (kit.attempt(row), kit.done(row))])
    await journal.flush()
    journal._database.broken = StorageError("fsync failed")
    journal.put([kit.attempt(10), kit.done(10)])
    with pytest.raises(StorageError, match="fsync failed"):
        await journal.flush()
    journal.put([record for row in (11, 12, 13) for record in (kit.attempt(row), kit.done(row))])
    await journal.close(clean=False, exit_code=74)


def test_the_next_start_takes_them_in_once(kit, out, tmp_path):
    said = []
    rules = DiskRules(say=said.append, spill=tmp_path / "spill")
    asyncio.run(fail_after_ten(kit, out, rules))
    assert "4 answers that could not be committed are in" in said[-1]
    assert len(list(rules.spill.iterdir())) == 1
    journal = kit.open_journal(out, tuning=Tuning(sizes=kit.SMALL, disk=rules))
    assert "4 answers were taken in from" in said[-1]
    assert list(rules.spill.iterdir()) == []
    assert all(journal.finished.has(row) for row in range(14))
    assert (journal.counts.ok, journal.counts.attempts, journal.counts.cost_usd) == (14, 14, 3.5)
    assert journal.finished.ok == 14
    journal.complete(14)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert kit.read(out, "output")["content"].to_pylist() == [kit.answer(row) for row in range(14)]
    assert kit.read(out, "usage").num_rows == 14


def test_a_start_that_was_cut_off_before_it_removed_the_file_takes_nothing_in_twice(kit, out, tmp_path):
    rules = DiskRules(spill=tmp_path / "spill")
    asyncio.run(fail_after_ten(kit, out, rules))
    (file,) = rules.spill.iterdir()
    copy = file.read_bytes()
    asyncio.run(kit.open_journal(out, tuning=Tuning(disk=rules)).close(clean=True, exit_code=0))
    file.write_bytes(copy)
    journal = kit.open_journal(out, tuning=Tuning(disk=rules))
    assert (journal.counts.ok, journal.counts.attempts) == (14, 14)
    assert not file.exists()
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_file_that_comes_too_late_is_set_aside_and_said(kit, out, tmp_path):
    said = []
    rules = DiskRules(say=said.append, spill=tmp_path / "spill")
    asyncio.run(fail_after_ten(kit, out, rules))
    asyncio.run(kit.run(out, [[kit.attempt(20), kit.done(20)]]))
    journal = kit.open_journal(out, tuning=Tuning(disk=rules))
    assert journal.counts.ok == 11
    assert "came too late" in said[-1]
    assert [path.name.split("-")[-2] for path in rules.spill.iterdir()] == ["unused"]
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_where_nothing_can_be_written_that_is_said(kit, out, tmp_path):
    said = []
    (tmp_path / "file").touch()
    asyncio.run(fail_after_ten(kit, out, DiskRules(say=said.append, spill=tmp_path / "file" / "below")))
    assert "4 answers could not be kept, not even in" in said[-1]
