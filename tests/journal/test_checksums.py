"""Lines of the journal are what was written, or the journal is refused: SQLite itself would hand out a flipped bit."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.errors import BatchllmError, StorageError
from batchllm.journal.audit import audit
from batchllm.journal.checksums import GATHERED, SMALL, crc_of, has_its_schema, know_checksums, wrong_lines
from batchllm.journal.files import Layout
from batchllm.journal.lines import INSERTED
from batchllm.records import Billed, FailureCode


@pytest.fixture
def record(kit, out):
    """Lines in all tables."""
    records = [[kit.attempt(row), kit.done(row)] for row in range(4)]
    records += [[kit.failed(4, content="half"), kit.attempt(4, billed=Billed.UNKNOWN, cost_usd=None)]]
    asyncio.run(kit.run(out, [[kit.done(9)]], lambda journal: journal.seal()))
    asyncio.run(kit.run(out, records))
    return Layout(out)


def flip(record, before: bytes, after: bytes) -> None:
    data = record.database.read_bytes()
    assert data.count(before) == 1
    record.database.write_bytes(data.replace(before, after))


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("results", b"k2[]", b"k3[]"),  # the key, before what is carried
        ("results", b"req-2\0", b"req-3\0"),
        ("failures", b"half", b"hall"),
        ("meta", b"job_namejob", b"job_namejoc"),
        ("lanes", b"firstopenaimodel-a", b"furstopenaimodel-a"),
    ],
)
def test_a_flipped_bit_is_named_by_a_start_and_by_an_audit(kit, record, table, before, after):
    flip(record, before, after)
    data = record.database.read_bytes()
    with pytest.raises(StorageError, match=f"lines of {table} do not fit their checksums") as error:
        kit.open_journal(record.out)
    assert "batchllm rebuild JOB" in error.value.remedy
    assert record.database.read_bytes() == data
    assert f"lines of {table} do not fit" in audit(record.out).journal_faults[0].message


def test_no_flipped_bit_of_any_page_gives_another_record(kit, record):
    """A byte in thirty-seven, on all pages: named, or without consequence."""
    whole = record.database.read_bytes()
    with closing(kit.raw(record.database)) as connection:
        expected = dumped(connection)
    refused = 0
    for place in range(100, len(whole), 37):
        if not whole[place]:
            continue
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        record.database.write_bytes(data)
        with closing(kit.raw(record.database)) as connection:
            try:
                pages = connection.execute("PRAGMA quick_check(1)").fetchall()
                is_refused = pages != [("ok",)] or not has_its_schema(connection)
                is_refused = is_refused or wrong_lines(connection) != []
                now = None if is_refused else dumped(connection)
            except (sqlite3.Error, UnicodeDecodeError):
                is_refused = True
        refused += is_refused
        assert is_refused or now == expected or is_refused_by_crc(expected, now), place
    assert refused > 20


def dumped(connection) -> list[str]:
    """All lines. What the next number is, SQLite knows from the lines too; and it matters while a run goes on only."""
    return [line for line in connection.iterdump() if "sqlite_sequence" not in line]


def is_refused_by_crc(expected, now) -> bool:
    """What differs is an answer or what it carries, which have a checksum that is compared when they are read."""
    differing = [line for line in now if line not in expected]
    return all(line.startswith('INSERT INTO "results"') for line in differing) and len(differing) == 1


TEXT = st.text(max_size=8)
NUMBER = st.integers(-(2**70), 2**70)
REAL = st.floats() | st.integers(0, 3)


@given(
    key=TEXT | NUMBER,
    text=TEXT | st.none(),
    number=NUMBER | st.none(),
    real=REAL | st.none(),
    code=st.sampled_from(FailureCode),
)
def test_what_was_stored_fits_its_checksum_whatever_it_is(kit, key, text, number, real, code):
    from batchllm.journal.finished import Finished
    from batchllm.journal.lines import Harvester, statements, storable
    from batchllm.journal.opening import _make_tables

    records = [
        kit.done(
            1, finish_reason=text, prompt_tokens=number, cost_usd=real, latency_ms=real, request_id=text
        ),
        kit.failed(2, code=code, message=text or "", status=number, content=text),
        kit.attempt(3, model=text, prompt_tokens=number, cost_usd=real, latency_ms=real, failure=code),
    ]
    records[:2] = [one._replace(row=one.row._replace(key=key)) for one in records[:2]]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make_tables(connection, None)
        for table, lines in Harvester(Finished(1), [0, 1]).gather(storable(records)).tables():
            for line in lines:
                connection.execute(statements(table)[-1][1], line)
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (1,)
        assert wrong_lines(connection) == []


@pytest.mark.parametrize("table", SMALL)
def test_small_tables_have_theirs_whoever_writes(kit, record, table):
    columns = SMALL[table].split(", ")
    with closing(kit.raw(record.database)) as connection:
        name = columns[-1]
        connection.execute(f"UPDATE {table} SET {name} = {name}")  # noqa: S608
        connection.commit()
        assert wrong_lines(connection) == []
        connection.execute(f"UPDATE {table} SET line_crc = line_crc + 1")  # noqa: S608
        connection.commit()
        assert wrong_lines(connection) == [table]
    with pytest.raises(BatchllmError, match=f"lines of {table}"):
        kit.open_journal(record.out)


def test_an_older_journal_gets_its_checksums(kit, record):
    with closing(kit.raw(record.database)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in {**GATHERED, **SMALL}:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN line_crc")
        connection.execute("PRAGMA user_version = 5")
        connection.commit()
    journal = kit.open_journal(record.out)
    assert (journal.counts.ok, journal.counts.failed) == (5, 1)
    asyncio.run(journal.close(clean=True, exit_code=0))
    with closing(kit.raw(record.database)) as connection:
        assert wrong_lines(connection) == []


def test_all_that_is_inserted_is_covered():
    for table, columns in INSERTED.items():
        own = {"carry", "answer"} if table == "results" else set()
        assert set(columns.split(", ")) - own == set(GATHERED[table].split(", "))


def test_a_program_that_knows_no_checksums_cannot_write(record):
    with closing(sqlite3.connect(record.database)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such function"):
            connection.execute("UPDATE totals SET ok = ok + 1")
        know_checksums(connection)
        connection.execute("UPDATE totals SET ok = ok + 1")


def test_a_class_of_texts_counts_as_the_text():
    assert crc_of(FailureCode.MALFORMED, 1) == crc_of(str(FailureCode.MALFORMED), 1) != crc_of("x", 1)
