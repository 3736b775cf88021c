import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batchllm.errors import StorageError
from batchllm.limit.limits_file import (
    FORMAT,
    FileBusyError,
    FileDamagedError,
    LimitsFile,
    Line,
    Opening,
    PoolFacts,
    fill_limits_file,
    open_limits_file,
)
from batchllm.limit.processes import Process
from batchllm.limit.sharing import Learned
from batchllm.limit.state_folder import create, newest

PROCESS = Process("boot", "space", 42, "777")


def a_file(folder: Path) -> LimitsFile:
    if newest(folder) is None:
        create(folder, None, fill_limits_file)
    current = newest(folder)
    assert current is not None
    return open_limits_file(current)


def a_line(granted: float = 0.5) -> Line:
    return Line(0, b"pool", PROCESS, 10.0, 1.0, granted)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def test_what_is_written_reads_back_in_another_connection(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file, closing(a_file(tmp_path)) as other:
        facts = PoolFacts("boot", 1.0, 2.0, Learned(60.0, None, 8.0), 3.0, 4.0)
        with file.transaction():
            line = a_line()
            line.member = file.add(line)
            file.store_facts(b"pool", facts)
        with other.transaction():
            assert other.lines() == [line]
            assert other.facts(b"pool") == facts
            assert other.facts(b"another") is None
            line.granted = 0.25
            other.store([line])
        assert other.last_lease_s("boot") == 10.0
        assert other.last_lease_s("another") == 0.0
        with file.transaction():
            assert file.lines() == [line]
            file.remove([line.member])
            file.forget_pools(4.5)
            assert (file.lines(), file.facts(b"pool")) == ([], None)


def test_a_member_never_gets_the_number_of_one_that_was_removed(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file, file.transaction():
        first = file.add(a_line())
        file.remove([first])
        assert file.add(a_line()) > first


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file:
        with pytest.raises(ZeroDivisionError), file.transaction():  # noqa: PT012 - what fails comes after a change
            file.add(a_line())
            raise ZeroDivisionError
        with file.transaction():
            assert file.lines() == []


def test_a_grant_of_more_than_everything_is_not_stored(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file, pytest.raises(StorageError), file.transaction():
        file.add(a_line(granted=1.5))


def test_the_opening_starts_unasked_and_is_kept(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file:
        with file.transaction():
            assert file.opening().opens_s is None
            file.set_opening(Opening("boot", 5.0))
        with file.transaction():
            assert file.opening() == Opening("boot", 5.0)


def test_while_another_writes_the_file_is_busy_and_can_be_read(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file, closing(a_file(tmp_path)) as other:
        with file.transaction():
            file.add(a_line())
            with pytest.raises(FileBusyError), other.transaction():
                pass
            assert other.last_lease_s("boot") == 0.0
        with other.transaction():
            assert len(other.lines()) == 1


def test_a_file_that_was_followed_removed_or_exchanged_is_not_current(tmp_path: Path) -> None:
    with closing(a_file(tmp_path)) as file:
        assert file.is_current()
        create(tmp_path, file.generation, fill_limits_file)
        assert not file.is_current()
    with closing(a_file(tmp_path)) as file:
        fill_limits_file(tmp_path / "other")
        (tmp_path / "other").replace(file.path)
        assert not file.is_current()
        file.path.unlink()
        assert not file.is_current()


def test_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    a_file(tmp_path).close()
    execute(tmp_path / "limits.db", f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(StorageError, match=f"format {FORMAT + 1}"):
        a_file(tmp_path)


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("PRAGMA user_version = 0", "format 0"),
        ("PRAGMA application_id = 7", "another program"),
        ("PRAGMA journal_mode = DELETE", "journal mode"),
    ],
)
def test_what_is_not_a_file_of_this_program_is_damaged(tmp_path: Path, statement: str, how: str) -> None:
    a_file(tmp_path).close()
    execute(tmp_path / "limits.db", statement)
    with pytest.raises(FileDamagedError, match=how):
        a_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"no database " * 1_000])
def test_what_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "limits.db").write_bytes(content)
    with pytest.raises(FileDamagedError):
        a_file(tmp_path)


def test_a_torn_page_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    a_file(tmp_path).close()
    path = tmp_path / "limits.db"
    content = bytearray(path.read_bytes())
    content[4_096 : 4_096 * 2] = b"\xff" * 4_096
    path.write_bytes(content)
    with pytest.raises(FileDamagedError):
        a_file(tmp_path)


def test_a_missing_table_is_damage(tmp_path: Path) -> None:
    a_file(tmp_path).close()
    execute(tmp_path / "limits.db", "DROP TABLE members")
    with closing(a_file(tmp_path)) as file, pytest.raises(FileDamagedError), file.transaction():
        file.lines()


def test_a_link_or_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "limits.db").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b" / "limits.db").mkdir(parents=True)
    for folder in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(StorageError, match="not a file of its own"):
            a_file(folder)
