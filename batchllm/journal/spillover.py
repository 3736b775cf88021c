"""Which spill file is this record's, and what of it the journal lacks (see `batchllm.journal.spill`)."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from batchllm.journal.database import Counts, Database, store_meta
from batchllm.journal.files import remove_files
from batchllm.journal.spill import Spilled, read_spill, spill_path, write_spill
from batchllm.records import JournalRecord, RowDone


class Spillover:
    """`folder` None: nothing is ever spilled. To be used once this run has claimed the database."""

    def __init__(self, database: Database, folder: Path | None, say: Callable[[str], None]) -> None:
        self._database = database
        self._folder = folder
        self._say = say
        self._path: Path | None = (
            None  # this run's own: when it is needed the database may not answer any more
        )

    def found(
        self, counts: Callable[[], Counts]
    ) -> Iterator[tuple[Path, Sequence[int], Sequence[JournalRecord]]]:
        """Files of earlier runs, each with its lanes' numbers and the records that are not in the journal.

        `counts` are asked anew for each, since what was found is to be taken in, and then its file to be removed.
        """
        for path in self._paths():
            spilled = read_spill(path)
            if spilled is None:
                continue
            now = counts()
            missing = spilled.missing(self._last_settled_run(), now.ok, now.attempts)
            if missing is None:
                self._put_aside(path)
            else:
                yield path, spilled.numbers, missing

    def settle(self) -> None:
        """Everything that was there is taken in; from now on this run may spill."""
        if self._folder is not None:
            self._path = spill_path(self._folder, self._name("fingerprint"))
        with self._database.transaction() as connection:
            store_meta(connection, "settled_run", str(self._database.run))

    def save(
        self, records: Sequence[JournalRecord], totals: Counts, numbers: Sequence[int], unsure: int
    ) -> None:
        path = self._path
        if path is None or not records:
            return
        answers = sum(isinstance(record, RowDone) for record in records)
        try:
            write_spill(
                path, Spilled(self._database.run, totals.ok, totals.attempts, numbers, unsure, records)
            )
        except OSError as error:
            self._say(f"{answers:,} answers could not be kept, not even in {path}: {error.strerror or error}")
            return
        self._say(
            f"{answers:,} answers that could not be committed are in {path}: the next start takes them in"
        )

    def remove(self, path: Path, answers: int) -> None:
        remove_files([path])
        self._say(f"{answers:,} answers were taken in from {path}")

    def _paths(self) -> list[Path]:
        """First that of the job as it was, whose answers are to be kept."""
        if self._folder is None:
            return []
        kinds = ["kept_fingerprint", "fingerprint"]
        return [
            spill_path(self._folder, self._name(kind))
            for kind in kinds
            if kind == "fingerprint" or self._database.meta(kind) is not None
        ]

    def _name(self, kind: str) -> str:
        """By record and job, so that a file in another folder belongs to this record and to no other one."""
        owner = self._database.meta("journal_id") or self._new_id()
        return f"{owner}-{(self._database.meta(kind) or '')[:16]}"

    def _new_id(self) -> str:
        journal_id = uuid.uuid4().hex
        with self._database.transaction() as connection:
            store_meta(connection, "journal_id", journal_id)
        return journal_id

    def _put_aside(self, path: Path) -> None:
        aside = path.with_name(f"{path.name}-unused-{self._database.run}")
        path.rename(aside)
        self._say(f"{path} came too late: its rows were asked again; it is {aside.name} now, remove it")

    def _last_settled_run(self) -> int:
        """The last run that got as far as taking in what was spilled before it: only such a one can have spilled."""
        told = self._database.meta("settled_run")
        if told is not None:
            return int(told)
        last = self._database.rows("SELECT max(run) FROM runs WHERE run < ?", (self._database.run,))
        return int(last[0][0] or 0)
