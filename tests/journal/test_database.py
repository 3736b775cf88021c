"""A journal that is damaged, foreign or gone is named and refused, and left as it is."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from batchllm.errors import BatchllmError, ChangedJobError, InvariantError, OutputError, StorageError
from batchllm.journal.checksums import know_checksums
from batchllm.journal.database import Counts, store_meta
from batchllm.journal.faults import database_fault
from batchllm.journal.files import Layout, make_folders
from batchllm.journal.opening import FORMAT, create_database, open_database


@pytest.fixture
def record(kit, out):
    """An output folder with thirty finished rows, some in parts."""
    asyncio.run(kit.run(out, [[kit.done(row) for row in range(start, start + 10)] for start in (0, 10, 20)]))
    return Layout(out)


@pytest.fixture
def layout(out):
    layout = Layout(out)
    make_folders(layout)
    create_database(layout)
    return layout


def raw(layout):
    connection = sqlite3.connect(layout.database, isolation_level=None)
    know_checksums(connection)
    return connection


def test_the_journal_is_private_and_survives_power_cuts_by_its_settings(layout):
    database = open_database(layout, is_network=False)
    assert stat.S_IMODE(layout.database.stat().st_mode) == 0o600
    wal = layout.database.with_name("journal.db-wal")
    assert not wal.exists() or stat.S_IMODE(wal.stat().st_mode) == 0o600
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert database.rows("PRAGMA synchronous") == [(2,)]
    database.close()


def test_on_a_network_disk_the_journal_needs_no_shared_memory(layout):
    database = open_database(layout, is_network=True)
    with database.transaction() as connection:
        store_meta(connection, "a", "1")
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert not layout.database.with_name("journal.db-shm").exists()
    database.close()
    again = open_database(layout, is_network=False)
    assert again.meta("a") == "1"
    again.close()


def test_numbers_never_come_back(layout):
    database = open_database(layout, is_network=False)
    with database.transaction() as connection:
        for _ in range(2):
            connection.execute(
                "INSERT INTO failures VALUES (NULL, 1, 0, NULL, 'k', 'c', 'm', 1, 1, x'00', NULL, NULL, NULL)"
            )
            connection.execute("DELETE FROM failures")
        connection.execute(
            "INSERT INTO failures VALUES (NULL, 1, 0, NULL, 'k', 'c', 'm', 1, 1, x'00', NULL, NULL, NULL)"
        )
    assert database.rows("SELECT seq FROM failures") == [(3,)]
    database.close()


@pytest.mark.parametrize("cut", ["all", "header", "half", "last page"])
def test_a_truncated_journal_is_refused_and_left_as_it_is(kit, record, cut):
    size = record.database.stat().st_size
    data = record.database.read_bytes()[
        : {"all": 0, "header": 60, "half": size // 2, "last page": size - 8192}[cut]
    ]
    record.database.write_bytes(data)
    with pytest.raises(StorageError, match=r"journal\.db is damaged") as caught:
        kit.open_journal(record.out)
    assert "put back a copy" in caught.value.remedy
    assert record.database.read_bytes() == data


def test_any_flipped_byte_of_the_header_is_refused_or_harmless(kit, record):
    whole = record.database.read_bytes()
    refused = 0
    for place in range(100):
        data = bytearray(whole)
        data[place] ^= 0xFF
        record.database.write_bytes(data)
        try:
            journal = kit.open_journal(record.out)
        except BatchllmError:
            refused += 1
        else:
            assert journal.finished.ok == 30
            asyncio.run(journal.close(clean=True, exit_code=0))
    assert refused > 40


def test_a_flipped_bit_in_an_answer_is_found_when_it_is_drained(kit, out):
    asyncio.run(kit.run(out, [[kit.done(1), kit.done(2)]]))
    database = Layout(out).database
    data = database.read_bytes()
    assert data.count(b"answer of row 1 ") == 1
    database.write_bytes(data.replace(b"answer of row 1 ", b"answer of row 7 "))
    journal = kit.open_journal(out)
    with pytest.raises(StorageError, match="answer for row 1 is damaged"):
        journal.seal()
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_sqlite_file_of_another_program_is_refused_and_left_as_it_is(kit, out):
    layout = Layout(out)
    make_folders(layout)
    with raw(layout) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    data = layout.database.read_bytes()
    with pytest.raises(StorageError, match="is not a journal of batchllm"):
        kit.open_journal(out)
    assert layout.database.read_bytes() == data


def test_a_file_that_is_no_database_is_refused(kit, out):
    layout = Layout(out)
    make_folders(layout)
    layout.database.write_text("precious " * 1000)
    with pytest.raises(StorageError, match="is damaged"):
        kit.open_journal(out)
    assert layout.database.read_text() == "precious " * 1000


def test_a_journal_of_a_newer_version_is_refused(kit, record):
    with raw(record) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    with pytest.raises(ChangedJobError, match=f"has journal format {FORMAT + 1}") as caught:
        kit.open_journal(record.out)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("kept", ["output", "manifest"])
def test_results_without_their_journal_are_never_started_over(kit, record, kept):
    asyncio.run(kit.run(record.out, [], lambda journal: journal.seal()))
    record.database.unlink()
    if kept == "output":
        record.manifest.unlink()
    else:
        for part in (record.out / "output").iterdir():
            part.unlink()
    with pytest.raises(OutputError, match=r"their journal .* is missing"):
        kit.open_journal(record.out)
    assert not record.database.exists()


def test_a_write_ahead_log_without_its_journal_is_refused(kit, out):
    layout = Layout(out)
    make_folders(layout)
    layout.database.with_name("journal.db-wal").write_bytes(b"answers")
    with pytest.raises(StorageError, match=r"journal\.db-wal is there"):
        kit.open_journal(out)


def test_a_journal_older_than_its_manifest_is_refused(kit, record):
    old = record.database.read_bytes()
    asyncio.run(kit.run(record.out, [[kit.done(30)]], lambda journal: journal.seal()))
    record.database.write_bytes(old)
    with pytest.raises(StorageError, match=r"journal\.db is older than .*manifest\.json"):
        kit.open_journal(record.out)


def test_a_symbolic_link_in_place_of_the_journal_is_refused(kit, record):
    elsewhere = record.out.parent / "elsewhere.db"
    record.database.rename(elsewhere)
    record.database.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="not a file of its own"):
        kit.open_journal(record.out)


def test_what_a_killed_creation_left_is_cleared_away(kit, out):
    layout = Layout(out)
    make_folders(layout)
    (layout.state / "journal.new").write_bytes(b"half")
    (layout.state / "journal.new-journal").write_bytes(b"half")
    journal = kit.open_journal(out)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert [path.name for path in layout.state.iterdir()] == ["journal.db"]


def test_a_creation_that_was_killed_after_the_last_step_leaves_nothing_either(kit, record):
    (record.state / "journal.new").hardlink_to(record.database)
    journal = kit.open_journal(record.out)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert kit.names(record.state) == ["journal.db"]
    assert journal.finished.ok == 30


@pytest.mark.parametrize("table", ["results", "failures"])
def test_a_slice_is_read_by_the_index_of_rows_and_not_sorted(layout, table):
    database = open_database(layout, is_network=False)
    plan = database.rows(
        f"EXPLAIN QUERY PLAN SELECT key FROM {table}"  # noqa: S608
        " WHERE +seq <= 1000000 AND (row, slot) > (5, 0) ORDER BY row, slot LIMIT 100"
    )
    text = " ".join(str(line[3]) for line in plan)
    assert f"USING INDEX sqlite_autoindex_{table}_1" in text
    assert "TEMP B-TREE" not in text
    database.close()


def test_another_program_that_keeps_the_journal_locked_is_named():
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert "/j is locked by another program" in str(database_fault(error, Path("/j")))


def _store_and(database, then):
    with database.transaction() as connection:
        store_meta(connection, "a", "1")
        then(connection)


def test_after_its_first_error_the_database_writes_nothing_more(layout):
    database = open_database(layout, is_network=False)
    with pytest.raises(StorageError):
        _store_and(database, lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(StorageError), database.transaction() as connection:
        store_meta(connection, "b", "1")
    assert database.meta("a") is None
    assert database.meta("b") is None
    database.close()


def test_an_error_of_ours_inside_a_transaction_leaves_nothing_of_it(layout):
    database = open_database(layout, is_network=False)
    with pytest.raises(ZeroDivisionError):
        _store_and(database, lambda connection: 1 / 0)
    with database.transaction() as connection:
        store_meta(connection, "b", "1")
    assert (database.meta("a"), database.meta("b")) == (None, "1")
    database.close()


def test_a_run_that_was_taken_over_cannot_commit(layout):
    loser, winner = open_database(layout, is_network=False), open_database(layout, is_network=False)
    for number, database in enumerate((loser, winner)):
        database.claim(0.0, pid=number, host="h", version="v")
    with pytest.raises(InvariantError, match="another run has taken over"), loser.transaction() as connection:
        loser.store_counts(connection, Counts(ok=5))
    with winner.transaction() as connection:
        winner.store_counts(connection, Counts(ok=1))
    assert winner.counts().ok == 1
    loser.close()
    winner.close()


def test_a_reader_sees_the_journal_while_it_is_written(kit, record):
    journal = kit.open_journal(record.out)
    with raw(record) as reader:
        assert reader.execute("SELECT ok FROM totals").fetchone() == (30,)
    reader.close()
    asyncio.run(journal.close(clean=True, exit_code=0))
