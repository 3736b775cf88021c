"""Journals of older formats, brought up to the present one where they lie, after a copy of the file.

Each step is the SQL that makes one format the next. They run in one transaction with the new number, so a journal is
of the old format or of the new one, never between; the copy, `journal.db.format-N`, is for the version that wrote it.
A newer journal than this code knows is refused by `database`: what it says, nobody here can tell.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from types import MappingProxyType

from batchllm.errors import InvariantError
from batchllm.journal.checksums import additions, note_schema
from batchllm.journal.files import open_new, remove_files, sync_folder

_COPY_DRAFT = "journal.copy"
#: Format → what makes the next one of it. The golden folders of `tests/golden` hold a record of each.
MIGRATIONS: Mapping[int, Sequence[str]] = MappingProxyType(
    {
        1: (
            "ALTER TABLE results ADD COLUMN body TEXT",
            "ALTER TABLE failures ADD COLUMN body TEXT",
        ),
        2: (
            "ALTER TABLE runs RENAME COLUMN in_flight_max TO exposed_calls",
            "ALTER TABLE runs ADD COLUMN exposed_usd REAL",
        ),
        3: ("ALTER TABLE attempts ADD COLUMN ttft_ms REAL",),
        4: (
            (
                "CREATE TABLE skipped (seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL,"
                " slot INTEGER NOT NULL, key, digest BLOB NOT NULL, UNIQUE (row, slot))"
            ),
            "ALTER TABLE totals ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0",
        ),
        5: tuple(additions()),
        # Lines may be of another input than the parts (see `batchllm.journal.pending`), which nobody knew before.
        6: (),
    }
)


def newest(migrations: Mapping[int, Sequence[str]]) -> int:
    return max(migrations, default=0) + 1


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    version: int,
    migrations: Mapping[int, Sequence[str]],
) -> None:
    """From `version` to the newest format. Raises sqlite3.Error and OSError, with the journal as it was."""
    target = newest(migrations)
    if version == target:
        return
    if any(number not in migrations for number in range(version, target)):
        raise InvariantError(f"no way is known from journal format {version} to {target}")
    keep_copy(connection, path, version)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(version, target):
            for statement in migrations[number]:
                connection.execute(statement)
        note_schema(connection)
        connection.execute(f"PRAGMA user_version = {target:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def keep_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """The whole journal, what is only in its WAL included, under a name that is free."""
    draft = path.with_name(_COPY_DRAFT)
    remove_files([draft])
    os.close(open_new(draft, 0o600))
    with closing(sqlite3.connect(draft)) as target:
        target.execute("PRAGMA synchronous = FULL")
        connection.backup(target)
    for number in count(1):
        copy = path.with_name(f"{path.name}.format-{version}" + (f".{number}" if number > 1 else ""))
        try:
            os.link(draft, copy)
        except FileExistsError:
            continue  # of a migration that was cut off, or of another journal: it stays as it is
        break
    remove_files([draft])
    sync_folder(path.parent)
    return copy
