"""A checksum for each line of the journal.

SQLite's pages have none: a flipped bit in a key or a number of tokens makes another one that is just as valid, and the
answer would be handed out under it. So each line has one over its columns, which is compared when the journal is
opened. Lines that come by the thousand get it as they are made; those of the small tables from triggers, so that no
statement can forget it. What an answer and its carried values are has a checksum of its own (`tables.checksum`), which
is compared when they are read.
"""

import marshal
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

_FUNCTION = "crc_of"
_SCHEMA_NOTE = "schema"
COLUMN = "line_crc"
#: Lines of older journals have none.
FIRST_FORMAT = 6
#: What the checksum of a line is over. `seq` is given by SQLite; it is a key, whose order the check of pages proves.
GATHERED: Mapping[str, str] = {
    "results": "row, slot, lane, key, finish_reason, model, prompt_tokens, completion_tokens, cost_usd, latency_ms,"
    " attempts, request_id, digest, body, crc",
    "failures": "row, slot, lane, key, class, message, status, attempts, digest, content, body",
    "attempts": "row, rows, lane, model, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,"
    " cost_usd, billed, status, class, latency_ms, started_at, request_id, ttft_ms",
    "skipped": "row, slot, key, digest",
}
SMALL: Mapping[str, str] = {
    "meta": "name, value",
    "runs": "run, started, ended, pid, host, version, exposed_calls, exit_code, clean, exposed_usd",
    "lanes": "lane, name, provider, model, simulated",
    "totals": "run, ok, failed, attempts, prompt_tokens, completion_tokens, cost_usd, unpriced, uncertain, skipped",
    "parts": "part, kind, name, state, hi_seq, rows, bytes, sha256, min_row, max_row",
}
_KEYS = {"meta": "name", "runs": "run", "lanes": "lane", "totals": "one", "parts": "part"}


def crc_of(*values: Any) -> int:
    """Of values as SQLite gives them back; marshal's second format is the same in all versions of Python."""
    try:
        return zlib.crc32(marshal.dumps(values, 2))
    except ValueError:  # a class of its own, such as an enumeration of texts
        return zlib.crc32(marshal.dumps(tuple(map(_plain, values)), 2))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def know_checksums(connection: sqlite3.Connection) -> None:
    """To be called for each connection that writes, as the triggers need it, or that compares."""
    connection.execute("PRAGMA trusted_schema = ON")
    connection.create_function(_FUNCTION, -1, crc_of, deterministic=True)


def triggers() -> list[str]:
    """That fill in the checksum of a line of the small tables, whoever writes it."""
    made = []
    for table, columns in SMALL.items():
        key = _KEYS[table]
        new = ", ".join(f"NEW.{name}" for name in columns.split(", "))
        update = f"UPDATE {table} SET {COLUMN} = {_FUNCTION}({new}) WHERE {key} = NEW.{key}"  # noqa: S608 - our names
        for event in ("INSERT", f"UPDATE OF {columns}"):
            name = f"{table}_{event.split()[0].lower()}"
            made.append(f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN {update}; END")
    return made


def additions() -> list[str]:
    """What gives the lines of a journal of the format before a checksum: of what they are now."""
    tables = {**GATHERED, **SMALL}
    added = [f"ALTER TABLE {table} ADD COLUMN {COLUMN} INTEGER" for table in tables]
    filled = [
        f"UPDATE {table} SET {COLUMN} = {_FUNCTION}({columns})"  # noqa: S608 - our own names
        for table, columns in tables.items()
    ]
    return [*added, *filled, *triggers()]


def note_schema(connection: sqlite3.Connection) -> None:
    """After each change of it: what the tables and triggers are is text in the file like any other."""
    values = (_SCHEMA_NOTE, str(_schema_crc(connection)))
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", values)


def has_its_schema(connection: sqlite3.Connection) -> bool:
    noted = connection.execute("SELECT value FROM meta WHERE name = ?", (_SCHEMA_NOTE,)).fetchone()
    return noted is not None and str(noted[0]) == str(_schema_crc(connection))


def _schema_crc(connection: sqlite3.Connection) -> int:
    texts = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()
    return crc_of(*(text for line in texts for text in line))


def wrong_lines(connection: sqlite3.Connection) -> Sequence[str]:
    """The tables that hold lines which are not what was written."""
    return [
        table
        for table, columns in {**GATHERED, **SMALL}.items()
        if connection.execute(
            f"SELECT 1 FROM {table} WHERE {COLUMN} IS NOT {_FUNCTION}({columns}) LIMIT 1"  # noqa: S608
        ).fetchone()
    ]
