"""Journals of older formats are taken up, after a copy; what cannot be taken up stays as it is."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.files import Layout
from batchllm.journal.migrations import MIGRATIONS, newest
from batchllm.journal.opening import FORMAT, open_database

NEXT = {**MIGRATIONS, FORMAT: ("ALTER TABLE meta ADD COLUMN more TEXT", "UPDATE meta SET more = name")}


@pytest.fixture
def layout(kit, out):
    kit.fill(out, range(3))
    return Layout(out)


def version(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def opened(layout, **given):
    open_database(layout, is_network=False, **given).close()


def test_every_format_but_the_newest_has_its_step():
    assert list(MIGRATIONS) == list(range(1, FORMAT))
    assert newest({}) == 1


def test_an_older_journal_becomes_the_new_format_and_a_copy_stays(kit, layout):
    opened(layout, migrations=NEXT)
    assert version(layout.database) == FORMAT + 1
    with closing(sqlite3.connect(layout.database)) as connection:
        assert connection.execute("SELECT count(*) FROM meta WHERE more = name").fetchone()[0] > 5
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (3,)
    copy = layout.state / f"journal.db.format-{FORMAT}"
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.replace(layout.database)
    journal = kit.open_journal(layout.out)
    assert journal.finished.ok == 3
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_journal_of_the_present_format_is_not_copied(kit, layout):
    opened(layout)
    assert kit.names(layout.state) == ["journal.db"]


def test_what_is_only_in_the_wal_is_in_the_copy_too(kit, layout):
    with closing(kit.raw(layout.database)) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        writing.execute("INSERT INTO meta (name, value) VALUES ('late', 'yes')")
        writing.commit()
        opened(layout, migrations=NEXT)
        with closing(sqlite3.connect(layout.state / f"journal.db.format-{FORMAT}")) as copy:
            assert copy.execute("SELECT value FROM meta WHERE name = 'late'").fetchone() == ("yes",)


def test_a_step_that_fails_leaves_the_old_format(layout):
    broken = {**MIGRATIONS, FORMAT: ("ALTER TABLE meta ADD COLUMN more TEXT", "UPDATE nothing SET more = 1")}
    with pytest.raises(StorageError, match="cannot read or write"):
        opened(layout, migrations=broken)
    assert version(layout.database) == FORMAT
    opened(layout)
    opened(layout, migrations=NEXT)  # and tries again, beside the copy of the first time
    assert version(layout.state / f"journal.db.format-{FORMAT}.2") == FORMAT


def test_a_copy_that_is_there_is_never_replaced(layout):
    earlier = layout.state / f"journal.db.format-{FORMAT}"
    earlier.write_bytes(b"somebody's")
    opened(layout, migrations=NEXT)
    assert earlier.read_bytes() == b"somebody's"


def test_a_step_that_is_missing_is_a_bug_and_changes_nothing(layout):
    with pytest.raises(InvariantError, match="no way is known"):
        opened(layout, migrations={FORMAT + 1: ()})
    assert version(layout.database) == FORMAT
