"""A record whose journal is lost or damaged, or whose parts are, made whole from what is there.

Two cases, told apart by an audit of everything. The journal is whole and parts are not: those parts are given up, in
one transaction. Or the journal is not: a new one is made beside it, as one file, from parts that were all read; then
the old one steps aside under another name, and the new one takes its place. Cut off anywhere, the next attempt finds
one of these two cases again.

A part is given up only where the caller says so, since its rows are paid for again. Files are moved, never removed.
What only the lost journal held, answers that were in no part yet, cannot be known.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa

from batchllm.clock import Clock
from batchllm.errors import ChangedJobError, StorageError
from batchllm.journal.audit import audit_locked
from batchllm.journal.database import Counts, Database, store_meta
from batchllm.journal.files import (
    KINDS,
    Fault,
    Kind,
    Layout,
    is_on_network,
    mapped_faults,
    no_fault,
    sync_folder,
)
from batchllm.journal.findings import Audit, Finding
from batchllm.journal.gathering import Gathered, Reader, gather
from batchllm.journal.identity import Identity, changed_sections, meta_values, slot_lanes
from batchllm.journal.manifest import Manifest
from batchllm.journal.opening import make_database, open_database
from batchllm.journal.parts import PartInfo, Sizes, Store
from batchllm.journal.pending import NOTE
from batchllm.journal.recall import OUTCOMES
from batchllm.journal.recall import gather as recall_parts
from batchllm.journal.recovery import purge
from batchllm.journal.renewing import Renewing
from batchllm.journal.salvage import salvage
from batchllm.journal.sealing import renewals, save_manifest, section_digest
from batchllm.journal.slots import Slots
from batchllm.journal.snapshot import opened
from batchllm.journal.spending import copy_spending
from batchllm.journal.tables import Tables, table_schemas
from batchllm.ports import Shape, Task
from batchllm.records import LaneInfo

_MOST_NAMED = 5
#: Sums of money in another order differ by this much at most.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Owner:
    """The job that the record is to belong to, as it is now."""

    identity: Identity
    lanes: Sequence[LaneInfo]
    slots: int
    task: Task
    shape: Shape
    samples: int = 1

    @property
    def schemas(self) -> Mapping[Kind, pa.Schema]:
        return table_schemas(
            self.task, self.shape, samples=self.samples, keeps_bodies=self.identity.keeps_bodies
        )

    @property
    def of_row(self) -> Slots:
        return Slots(tuple(slot_lanes(self.lanes, self.slots, self.samples)), self.samples)

    def tables(self, lanes: Sequence[LaneInfo] = ()) -> Tables:
        """`lanes`: all that the journal knows, to write lines of them."""
        return Tables(
            self.task,
            self.shape,
            lanes,
            self.of_row.lanes,
            samples=self.samples,
            keeps_bodies=self.identity.keeps_bodies,
        )

    def meta_values(self) -> dict[str, str]:
        """What a record of this job says of whose it is."""
        return meta_values(
            self.identity, lanes=self.lanes, slots=self.slots, samples=self.samples, schemas=self.schemas
        )


@dataclass(slots=True)
class Rebuilt:
    """What was done. `dropped` parts are given up; `moved` files lie in the state folder now.

    `salvaged`: answers and failures out of a journal that could be read and did not fit. `unknown_answers`: so many
    that the last manifest counted were in the lost journal alone.
    """

    out: Path
    is_new: bool = False
    ok: int = 0
    failed: int = 0
    parts: int = 0
    dropped: list[PartInfo] = field(default_factory=list)
    dropped_rows: int = 0
    dropped_usd: float | None = None
    moved: list[Path] = field(default_factory=list)
    unknown_answers: int = 0
    salvaged: int = 0
    had_manifest: bool = True

    @property
    def did_something(self) -> bool:
        return self.is_new or bool(self.dropped)


def rebuild(
    out: Path,
    owner: Owner,
    *,
    clock: Clock,
    drops_missing: bool,
    check_rows: Callable[[Path], None] | None = None,
    fault: Fault = no_fault,
) -> Rebuilt:
    """To be called with the lock held.

    `check_rows` is asked where no manifest tells whose the parts are, and raises when they are another job's. Raises
    ChangedJobError (the record is another job's), StorageError (parts are missing and may not be given up, or rows
    are there twice), InputMissingError (nothing is there).
    """
    found = audit_locked(out)
    done = Rebuilt(out, had_manifest=found.manifest is not None)
    if not found.journal_faults:
        if found.row_faults:
            raise _refusal(found.row_faults)
        if found.part_faults:
            _Mending(found, owner, clock, done, fault).give_up(drops_missing=drops_missing)
        return done
    _refuse_other_job(found.manifest, owner, out)
    if found.manifest is None and check_rows is not None:
        check_rows(out)
    _Making(found, owner, clock, done, fault).make(drops_missing=drops_missing)
    return done


class _Mending:
    """The journal is whole; some parts are not."""

    def __init__(self, found: Audit, owner: Owner, clock: Clock, done: Rebuilt, fault: Fault) -> None:
        self._found, self._owner, self._clock, self._done, self._fault = found, owner, clock, done, fault
        self._layout = Layout(found.out)

    def give_up(self, *, drops_missing: bool) -> None:
        layout = self._layout
        with mapped_faults("write", layout.out):
            database = open_database(layout, is_network=is_on_network(layout))
            try:
                self._check_owner(database)
                self._note_loss(database.counts(), drops_missing=drops_missing)
                move_aside(layout, self._found.part_faults, self._done, self._fault)
                self._forget_parts(database)
            finally:
                database.close()

    def _check_owner(self, database: Database) -> None:
        stored = orjson.loads(database.meta("sections") or "{}")
        _refuse_sections(changed_sections(stored, self._owner.identity.sections), self._layout.out)

    def _note_loss(self, counts: Counts, *, drops_missing: bool) -> None:
        parts = [finding.part for finding in self._found.part_faults if finding.part is not None]
        note_loss(self._done, parts, counts)
        if not drops_missing:
            raise _must_be_told(self._found.part_faults, self._done)

    def _forget_parts(self, database: Database) -> None:
        store = Store(database, self._layout, self._owner.tables(), Sizes(), self._fault)
        take_over(database)
        renewing = Renewing(store, self._clock.wall_s)
        with database.transaction() as connection:
            for part in self._done.dropped:
                connection.execute("UPDATE parts SET state = 'retired' WHERE part = ?", (part.part,))
            store_meta(connection, "complete", "0")
            store_meta(connection, "renewals", str(renewals(database) + 1))
            before = database.counts()
            finished = recall_parts(store, {kind: store.parts(kind) for kind in OUTCOMES}, renewing.renewal)
            counts = before._replace(ok=finished.ok, failed=finished.failed, skipped=finished.skipped)
            if any(part.kind == "usage" for part in self._done.dropped):
                store_meta(connection, "lost_usage", usage_json(minus(before, self._found.usage)))
            database.store_counts(connection, counts)
        self._fault("after_drop")
        if renewing.renewal is None:
            save_manifest(store, self._clock.wall_s())
            purge(store)
        renewing.settle()
        self._done.ok, self._done.failed = counts.ok, counts.failed
        self._done.parts = sum(len(store.parts(kind)) for kind in KINDS)


class _Making:
    """The journal is lost, or what is there is not to be relied on."""

    def __init__(self, found: Audit, owner: Owner, clock: Clock, done: Rebuilt, fault: Fault) -> None:
        self._found, self._owner, self._clock, self._done, self._fault = found, owner, clock, done, fault
        self._layout = Layout(found.out)
        self._reader = Reader(self._layout, owner.schemas, owner.of_row, owner.lanes)

    def make(self, *, drops_missing: bool) -> None:
        layout, manifest, done = self._layout, self._found.manifest, self._done
        with mapped_faults("write", layout.out):
            gathered = gather(self._reader, manifest)
            self._settle_loss(gathered, drops_missing=drops_missing)
            in_parts = gathered.ok + gathered.failed
            make_database(
                layout,
                lambda connection: self._fill(connection, gathered),
                lambda: self._make_way(gathered),
            )
            self._fault("after_link")
            self._write_manifest()
        done.is_new = True
        done.ok, done.failed = gathered.ok, gathered.failed
        done.salvaged = gathered.ok + gathered.failed - in_parts
        done.parts = sum(len(parts) for parts in gathered.parts.values())
        if manifest is not None:
            known = manifest.ok - sum(part.rows for part in done.dropped if part.kind == "output")
            done.unknown_answers = max(0, known - gathered.ok)

    def _settle_loss(self, gathered: Gathered, *, drops_missing: bool) -> None:
        bad = gathered.bad
        parts = [finding.part for finding in bad if finding.part is not None]
        manifest = self._found.manifest
        counts = Counts() if manifest is None else _counts_of(manifest)
        note_loss(self._done, parts, counts)
        if bad and not drops_missing:
            raise _must_be_told(bad, self._done)

    def _fill(self, connection: sqlite3.Connection, gathered: Gathered) -> None:
        owner, manifest = self._owner, self._found.manifest
        values = owner.meta_values()
        values["created"] = repr(_created_s(manifest, self._clock))
        is_between = self._is_between_inputs()
        values["complete"] = "1" if self._is_complete(gathered) and not is_between else "0"
        if manifest is not None and manifest.input_digest is not None and not is_between:
            values["input_digest"] = manifest.input_digest
            values["input_rows"] = str(manifest.rows)
        if manifest is not None:
            values["renewals"] = str(manifest.renewals + 1)
            values["mixed"] = str(int(manifest.mixed))
        if manifest is not None and manifest.skip_terms is not None:
            values["skip_terms"] = manifest.skip_terms
        lanes = list(manifest.lanes) if manifest is not None else []
        lanes += [lane for lane in owner.lanes if lane not in lanes]
        usage = gathered.usage.plus(self._salvaged(connection, gathered, lanes))
        lost = Counts() if manifest is None else minus(_counts_of(manifest), usage)
        if lost != Counts():
            values["lost_usage"] = usage_json(lost)
        for name, value in values.items():
            store_meta(connection, name, value)
        self._keep_spending(connection)
        for number, lane in enumerate(lanes):
            connection.execute("INSERT INTO lanes VALUES (?, ?, ?, ?, ?, NULL)", (number, *lane))
        counts = usage.plus(lost)._replace(ok=gathered.ok, failed=gathered.failed, skipped=gathered.skipped)
        names = ", ".join(f"{name} = ?" for name in Counts._fields)
        connection.execute(f"UPDATE totals SET {names}", tuple(counts))  # noqa: S608 - our own names
        for part in sorted(part for parts in gathered.parts.values() for part in parts):
            connection.execute(
                "INSERT INTO parts (part, kind, name, state, hi_seq, rows, bytes, sha256, min_row, max_row)"
                " VALUES (?, ?, ?, 'committed', 0, ?, ?, ?, ?, ?)",
                tuple(part),
            )

    def _is_between_inputs(self) -> bool:
        """Whether the old journal's lines are of another input than the parts."""
        if not self._found.is_journal_readable:
            return False
        with opened(self._layout) as journal:
            return journal is not None and journal.meta(NOTE) is not None

    def _salvaged(self, connection: sqlite3.Connection, gathered: Gathered, lanes: list[LaneInfo]) -> Counts:
        """What the old journal holds in lines, where it can be read and is the same job's."""
        if not self._found.is_journal_readable:
            return Counts()
        with opened(self._layout) as journal:
            if journal is None or journal.of_row != self._owner.of_row:
                return Counts()
            if orjson.loads(journal.meta("sections") or "{}") != dict(self._owner.identity.sections):
                return Counts()
            if journal.meta(NOTE) is not None and self._owner.shape.key is None:
                return Counts()  # nothing would tell whose they are
            rows = self._found.manifest.rows if self._found.manifest is not None else None
            return salvage(journal, connection, gathered, self._reader, lanes, rows or 0)

    def _keep_spending(self, connection: sqlite3.Connection) -> None:
        """What the old journal alone knows of money; without it all counts as the present input's."""
        if not self._found.is_journal_readable:
            return
        with opened(self._layout) as journal:
            if journal is not None:
                copy_spending(journal, connection)

    def _is_complete(self, gathered: Gathered) -> bool:
        """Only where the manifest said so and its parts, all of them and no others, are what is there."""
        manifest = self._found.manifest
        if manifest is None or not manifest.complete or gathered.has_more or self._done.dropped:
            return False
        told = (manifest.ok, manifest.failed, manifest.skipped)
        return told == (gathered.ok, gathered.failed, gathered.skipped)

    def _make_way(self, gathered: Gathered) -> None:
        self._fault("before_aside")
        layout = self._layout
        stamp = datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y%m%dT%H%M%SZ")
        old = [layout.database.with_name(layout.database.name + tail) for tail in ("", "-wal", "-shm")]
        for path in (*old, layout.witness):
            if os.path.lexists(path):
                self._done.moved.append(renamed(path, path.with_name(f"{path.name}.damaged-{stamp}")))
        if self._found.manifest_faults and self._found.manifest is None:
            target = layout.state / f"manifest.json.damaged-{stamp}"
            self._done.moved.append(renamed(layout.manifest, target))
        move_aside(layout, gathered.bad, self._done, self._fault)
        for path in gathered.repeated:
            self._done.moved.append(renamed(path, layout.state / f"{path.name}.repeated"))
        tables = filter(Path.is_dir, map(layout.folder, KINDS))
        for folder in {layout.state, layout.out, *tables}:
            sync_folder(folder)
        self._fault("after_aside")

    def _write_manifest(self) -> None:
        layout = self._layout
        database = open_database(layout, is_network=is_on_network(layout))
        try:
            store = Store(database, layout, self._owner.tables(), Sizes(), self._fault)
            save_manifest(store, self._clock.wall_s())
        finally:
            database.close()


def take_over(database: Database) -> None:
    """Commit in the name of the last run: the line of that run stays, and says how it ended."""
    database.run = int(database.rows("SELECT run FROM totals")[0][0])


def note_loss(done: Rebuilt, parts: Sequence[PartInfo], counts: Counts) -> None:
    """What is given up with these parts, and about what it cost: the mean of what is known."""
    done.dropped = list(parts)
    done.dropped_rows = sum(part.rows for part in parts if part.kind in ("output", "failures"))
    units = counts.ok + counts.failed
    if units and not counts.unpriced:
        done.dropped_usd = counts.cost_usd / units * done.dropped_rows


def move_aside(layout: Layout, bad: Sequence[Finding], done: Rebuilt, fault: Fault) -> None:
    """Bad parts leave the folder that readers look into; what is left of them may be worth a look."""
    for finding in bad:
        if os.path.lexists(finding.path):
            target = layout.state / f"{finding.path.name}.damaged"
            done.moved.append(renamed(finding.path, target))
    for folder in {finding.path.parent for finding in bad if finding.path.parent.is_dir()}:
        sync_folder(folder)
    sync_folder(layout.state)
    fault("after_moving")


def renamed(path: Path, target: Path) -> Path:
    """Under a name that is free: nothing is replaced."""
    number = 2
    free = target
    while os.path.lexists(free):
        free = target.with_name(f"{target.name}.{number}")
        number += 1
    path.rename(free)
    return free


def usage_json(lost: Counts) -> str:
    return orjson.dumps(lost._asdict()).decode()


def minus(all_of_it: Counts, here: Counts) -> Counts:
    """What attempts the first knows more of; nothing below zero."""
    more = {name: max(0, getattr(all_of_it, name) - getattr(here, name)) for name in Counts._fields}
    cost = more["cost_usd"] if more["cost_usd"] > _ROUNDING * all_of_it.cost_usd else 0.0
    return Counts(**more)._replace(ok=0, failed=0, skipped=0, cost_usd=cost)


def _counts_of(manifest: Manifest) -> Counts:
    """A manifest tells no cost where one is unknown; then no more is known than usage/ tells."""
    return Counts(
        manifest.ok,
        manifest.failed,
        manifest.attempts,
        manifest.prompt_tokens,
        manifest.completion_tokens,
        manifest.cost_usd or 0.0,
        int(manifest.cost_usd is None),
        manifest.uncertain,
    )


def _created_s(manifest: Manifest | None, clock: Clock) -> float:
    if manifest is None:
        return clock.wall_s()
    try:
        return datetime.fromisoformat(manifest.created).timestamp()
    except ValueError:
        return clock.wall_s()


def _refuse_other_job(manifest: Manifest | None, owner: Owner, out: Path) -> None:
    if manifest is None:
        return
    now = {name: section_digest(text) for name, text in owner.identity.sections.items()}
    _refuse_sections(changed_sections(manifest.sections, now), out)
    if (manifest.slots, manifest.samples) != (owner.slots, owner.samples):
        raise ChangedJobError(
            f"the answers in {out} were made with {manifest.slots} answers a row, the job asks for {owner.slots}",
            remedy="with routing: all, lanes keep their number, and samples stay what they were; undo the change",
        )


def _refuse_sections(changed: Sequence[str], out: Path) -> None:
    if changed:
        raise ChangedJobError(
            f"the answers in {out} were made with another job: {', '.join(changed)} changed",
            remedy="undo the change and rebuild, then go on as for any changed job",
        )


def _must_be_told(bad: Sequence[Finding], done: Rebuilt) -> StorageError:
    named = "\n    ".join(f"{finding.path}: {finding.message}" for finding in bad[:_MOST_NAMED])
    more = f"\n    and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
    cost = "a price that is not known" if done.dropped_usd is None else f"about {done.dropped_usd:,.4g} USD"
    return StorageError(
        f"{len(bad)} parts cannot be used:\n    {named}{more}",
        remedy=f"put them back from a copy; or add --drop-missing: {done.dropped_rows:,} rows are then pending again,"
        f" and asking them again costs {cost}",
    )


def _refusal(findings: Sequence[Finding]) -> StorageError:
    first = findings[0]
    return StorageError(f"{first.path}: {first.message}", remedy=first.remedy)
