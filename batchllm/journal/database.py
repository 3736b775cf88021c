"""The SQLite file, once it is open: transactions, and what is counted.

WAL with `synchronous=FULL`: a transaction whose commit returned survives a power cut. An error of the disk is final.
After a failed fsync a second one may report success for pages that were dropped, so nothing is tried again: the
connection refuses every further transaction, and the next start reads what the disk really holds.

A disk without space is no such error. The write was refused before anything of it counted, the transaction is rolled
back, and what follows in the WAL is written over it.
"""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.faults import database_fault, no_space

WAL_PAGES = 1000
_CHUNK_LINES = 64
_MOST = 2**63 - 1


class Counts(NamedTuple):
    """What is committed. `ok`, `failed` and `skipped` count units of work; the rest counts attempts.

    `cost_usd` sums what is known; `unpriced` attempts were charged at an unknown price, `uncertain` ones may have
    been charged.
    """

    ok: int = 0
    failed: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    uncertain: int = 0
    skipped: int = 0

    @property
    def settled(self) -> int:
        """Units that nothing is left to ask of."""
        return self.ok + self.failed + self.skipped

    def plus(self, other: "Counts") -> "Counts":
        return Counts(
            self.ok + other.ok,
            self.failed + other.failed,
            self.attempts + other.attempts,
            min(self.prompt_tokens + other.prompt_tokens, _MOST),
            min(self.completion_tokens + other.completion_tokens, _MOST),
            self.cost_usd + other.cost_usd,
            self.unpriced + other.unpriced,
            self.uncertain + other.uncertain,
            self.skipped + other.skipped,
        )


class Database:
    """One connection. Made on one thread and then used by the writer's alone."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self.run = 0
        self.broken: StorageError | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. The first error of the database is the last thing that it says (see above).

        FullDiskError is none: the transaction did not happen, and another one may.
        """
        if self.broken is not None:
            raise self.broken
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._check_fence()
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            self._roll_back()
            raise InvariantError(
                f"{self.path} refuses a line that it holds already: {error}",
                remedy="report this as a bug; the first line was kept",
            ) from error
        except sqlite3.Error as error:
            fault = no_space(error, self.path)
            is_undone = self._roll_back()
            if fault is not None and is_undone:
                raise fault from error
            self.broken = database_fault(error, self.path)
            raise self.broken from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> bool:
        """Whether no transaction is open any more. SQLite undoes some by itself."""
        if self._connection.in_transaction:
            with suppress(
                sqlite3.Error
            ):  # a dead disk refuses this as well; recovery discards the transaction
                self._connection.execute("ROLLBACK")
        return not self._connection.in_transaction

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [line for chunk in self.chunks(sql, values) for line in chunk]

    def chunks(self, sql: str, values: Sequence[object]) -> Generator[list[tuple[Any, ...]]]:
        """Lines, a few at a time; to be closed when left early: an open read keeps the WAL from being reused."""
        try:
            with closing(self._connection.execute(sql, values)) as found:
                while lines := found.fetchmany(_CHUNK_LINES):
                    yield lines
        except sqlite3.Error as error:
            self.broken = database_fault(error, self.path)
            raise self.broken from error

    def meta(self, name: str) -> str | None:
        found = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return None if not found else str(found[0][0])

    def counts(self) -> Counts:
        names = ", ".join(Counts._fields)
        return Counts(*self.rows(f"SELECT {names} FROM totals")[0])  # noqa: S608 - our own names

    def _check_fence(self) -> None:
        """Of a run that has claimed the journal: nothing more is written once another one has, not even a part's line.

        A lock can be removed by hand; then two runs believe that they hold it, and the later one is right.
        """
        if self.run and self._connection.execute("SELECT run FROM totals").fetchone() != (self.run,):
            raise InvariantError(
                f"another run has taken over {self.path}",
                remedy="let one run at a time use an output folder; what this one could not commit is asked again",
            )

    def fence(self) -> None:
        """From here on a commit of any other run fails, so that what is read now stays true until `claim`."""
        with self.transaction() as connection:
            connection.execute("UPDATE totals SET run = 0")

    def claim(self, started_s: float, *, pid: int, host: str, version: str) -> None:
        """A line in `runs`; the journal is this run's until another one fences it off."""
        with self.transaction() as connection:
            run = connection.execute(
                "INSERT INTO runs (started, pid, host, version, exposed_usd) VALUES (?, ?, ?, ?, 0.0)",
                (started_s, pid, host, version),
            ).lastrowid
            connection.execute("UPDATE totals SET run = ?", (run,))
        self.run = run or 0

    def store_counts(self, connection: sqlite3.Connection, counts: Counts) -> None:
        """Inside a transaction."""
        fields = ", ".join(f"{name} = ?" for name in Counts._fields)
        connection.execute(f"UPDATE totals SET {fields}", counts)  # noqa: S608 - our own names

    def shrink(self) -> None:
        """Give back the space of rows that were drained, if there is much of it and little to copy for it."""
        free, pages = self.rows("PRAGMA freelist_count")[0][0], self.rows("PRAGMA page_count")[0][0]
        if free > WAL_PAGES > pages - free:
            with suppress(sqlite3.Error):  # a full disk, say: the file stays as large as it is
                self._connection.execute("VACUUM")

    def close(self) -> None:
        self._connection.close()


def store_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))
