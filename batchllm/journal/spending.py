"""What of all the money in a record the present input has cost, and may have cost.

The totals are of all inputs that the record has had. When one of them is complete its sums are noted, and when another
takes its place what was noted is no more the present one's. A run that did not end by itself may have paid for calls
whose answers nobody has: as much as was exposed counts, since a budget must hold whatever came of them.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from batchllm.journal.database import Database, store_meta
from batchllm.journal.files import Layout
from batchllm.journal.manifest import instant, read_manifest
from batchllm.journal.snapshot import Snapshot, opened

_COMPLETE, _BEFORE = "complete_usd", "before_usd"
_KINDS = ("spent", "exposed")
_RUN_COLUMNS = (
    "run",
    "started",
    "ended",
    "pid",
    "host",
    "version",
    "exposed_calls",
    "exit_code",
    "clean",
    "exposed_usd",
)
_NAMES = tuple(f"{kind}_{name}" for kind in _KINDS for name in (_COMPLETE, _BEFORE))


class Spending(NamedTuple):
    """USD. `exposed_usd`: at most so much more for calls that kills cut off; None when nobody can bound it."""

    usd: float
    exposed_usd: float | None

    @property
    def most_usd(self) -> float:
        """As far as it is known."""
        return self.usd + (self.exposed_usd or 0.0)


def spending(database: Database) -> Spending:
    exposed_usd = _exposed_usd(database)
    if exposed_usd is not None:
        exposed_usd = max(0.0, exposed_usd - _noted(database, "exposed", _BEFORE))
    return Spending(database.counts().cost_usd - _noted(database, "spent", _BEFORE), exposed_usd)


def note_complete(connection: sqlite3.Connection, database: Database) -> None:
    store_meta(connection, f"spent_{_COMPLETE}", repr(database.counts().cost_usd))
    store_meta(connection, f"exposed_{_COMPLETE}", repr(_exposed_usd(database) or 0.0))


def leave_input(connection: sqlite3.Connection, database: Database) -> None:
    """Another input comes. One that was never complete goes on to count: its rows may be the next one's."""
    for kind in _KINDS:
        noted = database.meta(f"{kind}_{_COMPLETE}")
        if noted is not None:
            store_meta(connection, f"{kind}_{_BEFORE}", noted)
            connection.execute("DELETE FROM meta WHERE name = ?", (f"{kind}_{_COMPLETE}",))


def copy_spending(journal: Snapshot, connection: sqlite3.Connection) -> None:
    """From a journal that is given up into the one that takes its place, the runs with what they had exposed too."""
    for name in _NAMES:
        value = journal.meta(name)
        if value is not None:
            store_meta(connection, name, value)
    there = {name for _, name, *_ in journal.rows("PRAGMA table_info(runs)")}
    names = [name for name in _RUN_COLUMNS if name in there]  # a journal of an older format may lack some
    places = ", ".join("?" * len(names))
    for run in journal.rows(f"SELECT {', '.join(names)} FROM runs ORDER BY run"):  # noqa: S608 - our own names
        connection.execute(f"INSERT INTO runs ({', '.join(names)}) VALUES ({places})", run)  # noqa: S608


class EverSpent(NamedTuple):
    """Of a record over all its inputs. `created`: by which it is known wherever it lies.

    `cost_usd` sums what is known, `is_priced` tells whether that is all; `exposed_usd`: at most so much more for calls
    that kills cut off, as far as it is known.
    """

    created: str
    cost_usd: float
    is_priced: bool
    exposed_usd: float = 0.0


def ever_spent(out: Path) -> EverSpent | None:
    """By its journal, which a kill leaves behind its manifest; None where there is no record. Raises StorageError."""
    with opened(Layout(out)) as journal:
        if journal is not None:
            counts = journal.counts()
            created = instant(float(journal.meta("created") or 0.0))
            return EverSpent(created, counts.cost_usd, not counts.unpriced, _exposed_in(journal))
    manifest = read_manifest(out)
    if manifest is None:
        return None
    return EverSpent(manifest.created, manifest.cost_usd or 0.0, manifest.cost_usd is not None)


def _exposed_in(journal: Snapshot) -> float:
    """A journal of an older format tells nothing of it."""
    there = {name for _, name, *_ in journal.rows("PRAGMA table_info(runs)")}
    if "exposed_usd" not in there:
        return 0.0
    return float(journal.rows("SELECT total(exposed_usd) FROM runs WHERE NOT clean")[0][0])


def _exposed_usd(database: Database) -> float | None:
    """Over all runs before this one that did not end by themselves."""
    usd, unpriced = database.rows(
        "SELECT total(exposed_usd), total(exposed_calls > 0 AND exposed_usd IS NULL) FROM runs"
        " WHERE NOT clean AND run <> ?",
        (database.run,),
    )[0]
    return None if unpriced else float(usd)


def _noted(database: Database, kind: str, name: str) -> float:
    return float(database.meta(f"{kind}_{name}") or 0.0)
