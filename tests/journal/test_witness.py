"""A journal that lost its end, whole as it looks, is not gone on with as if nothing had been paid for."""

import asyncio
import shutil

import pytest

from batchllm.errors import StorageError
from batchllm.journal.audit import audit
from batchllm.journal.files import Layout, wal_of
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.journal.tuning import Tuning
from batchllm.journal.witness import Witness, lines_seen

ROWS = 12


@pytest.fixture
def killed(kit, out):
    """Before its first manifest and its first part, with all that it knows in the WAL."""
    loop = asyncio.new_event_loop()
    journal = kit.open_journal(out, tuning=Tuning())
    copy = out.with_name("copy")
    try:
        journal.start(loop)
        for row in range(ROWS):
            journal.put([kit.attempt(row), kit.done(row)])
            loop.run_until_complete(journal.flush())
        shutil.copytree(out, copy)
    finally:
        loop.run_until_complete(journal.close(clean=True, exit_code=0))
        loop.close()
    return copy


def rebuilt(kit, out):
    owner = Owner(kit.IDENTITY, kit.LANES, 1, kit.ChatTask(), kit.Shape())
    return rebuild(out, owner, clock=kit.Clock(), drops_missing=False)


def finished(kit, out):
    journal = kit.open_journal(out)
    found = [row for row in range(ROWS) if journal.finished.has(row)]
    asyncio.run(journal.close(clean=True, exit_code=0))
    return found


def remove(out, *tails):
    for tail in tails:
        Layout(out).database.with_name(f"journal.db{tail}").unlink()


@pytest.mark.parametrize("tails", [("-wal",), ("-wal", "-shm")])
def test_a_wal_that_was_removed_is_missed(kit, killed, tails):
    remove(killed, *tails)
    with pytest.raises(StorageError, match=r"has lost what was committed to it, \d+ lines") as caught:
        kit.open_journal(killed)
    assert caught.value.exit_code == 74
    assert "batchllm rebuild JOB" in caught.value.remedy
    assert [finding.path for finding in audit(killed).findings] == [Layout(killed).database]
    rebuilt(kit, killed)
    assert finished(kit, killed) == []


def test_a_journal_that_was_removed_with_all_its_files_is_missed(kit, killed):
    remove(killed, "", "-wal", "-shm")
    with pytest.raises(StorageError, match=r"it is missing, with \d+ lines"):
        kit.open_journal(killed)
    rebuilt(kit, killed)
    assert finished(kit, killed) == []


def test_a_wal_cut_anywhere_is_missed_unless_nothing_is_lost(kit, killed):
    data = wal_of(Layout(killed).database).read_bytes()
    for size in range(0, len(data), 8216 * 2 + 512):
        out = killed.with_name(str(size))
        shutil.copytree(killed, out)
        wal = wal_of(Layout(out).database)
        wal.write_bytes(data[:size])
        with pytest.raises(StorageError, match="has lost what was committed"):
            kit.open_journal(out)
        assert wal.read_bytes() == data[:size]
        shutil.rmtree(out)


def test_after_a_power_cut_that_kept_no_note_a_shorter_wal_is_gone_on_with(kit, killed):
    wal = wal_of(Layout(killed).database)
    wal.write_bytes(wal.read_bytes()[: -3 * 8216])
    Layout(killed).witness.write_bytes(b"")
    assert 0 < len(finished(kit, killed)) < ROWS


def test_whoever_looks_into_a_killed_journal_with_another_program_does_no_harm(kit, killed):
    with_another = kit.raw(Layout(killed).database)
    assert with_another.execute("SELECT count(*) FROM results").fetchone() == (ROWS,)
    with_another.close()
    assert not wal_of(Layout(killed).database).exists()
    assert finished(kit, killed) == list(range(ROWS))


def test_a_clean_end_leaves_no_note(kit, killed, out):
    assert lines_seen(Layout(killed).witness) >= 2 * ROWS
    assert not Layout(out).witness.exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"\xff" * 12, b"longer than a note is"])
def test_a_note_that_cannot_be_read_says_nothing(kit, killed, content):
    Layout(killed).witness.write_bytes(content)
    assert lines_seen(Layout(killed).witness) == 0
    assert finished(kit, killed) == list(range(ROWS))


def test_a_note_is_written_over_the_last_one_and_through_no_link(tmp_path):
    layout = Layout(tmp_path)
    layout.state.mkdir()
    witness = Witness(layout)
    for lines in (300, 7):
        witness.note(lines)
        assert lines_seen(layout.witness) == lines
    witness.remove()
    assert not layout.witness.exists()
    witness.note(9)
    assert lines_seen(layout.witness) == 9
    witness.remove()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    layout.witness.symlink_to(elsewhere)
    witness.note(8)
    assert elsewhere.read_bytes() == b"mine"
