"""Whose record this is: the job's sections, the routing's slots, the lanes, the columns.

What was paid for under one job must never be handed out as the answer to another one, so a journal belongs to one
set of sections for good. Only an empty record, one that nothing has been asked for yet, takes a new identity.
"""

import base64
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson
import pyarrow as pa

from batchllm.errors import ChangedJobError, InvariantError
from batchllm.journal.database import Counts, Database, store_meta
from batchllm.journal.files import Kind, Layout, is_on_network, mapped_faults
from batchllm.journal.opening import open_database
from batchllm.records import LaneInfo


@dataclass(frozen=True, slots=True)
class Identity:
    """`sections` maps the name of each section that changes answers to its canonical text or digest.

    `keeps_bodies` changes no answer, but the columns beside it.
    """

    job_name: str
    sections: Mapping[str, str]
    fingerprint: str
    version: str
    keeps_bodies: bool = False


class StoredJob(NamedTuple):
    """What a record was made with, and what it holds."""

    sections: Mapping[str, str]
    counts: Counts


def stored_job(out: Path) -> StoredJob | None:
    """Of the record in `out`; None when there is none, or nothing worth keeping.

    To be called with the lock held. Raises StorageError for a damaged or foreign journal.
    """
    layout = Layout(out)
    with mapped_faults("read", layout.database):
        if not layout.database.exists():
            return None
        is_network = is_on_network(layout)
    database = open_database(layout, is_network=is_network)
    try:
        text = database.meta("sections")
        if text is None or not holds_value(database):
            return None
        return StoredJob(_sections(text), database.counts())
    finally:
        database.close()


def holds_value(database: Database) -> bool:
    """Whether anything was answered, paid for, or may have been paid for."""
    counts = database.counts()
    return bool(counts.ok or counts.cost_usd or counts.unpriced or counts.uncertain)


def changed_sections(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Names of the sections that differ, come or go."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def adopt(  # noqa: PLR0913 - whose a record is takes six things to say
    database: Database,
    identity: Identity,
    *,
    lanes: Sequence[LaneInfo],
    slots: int,
    samples: int = 1,
    schemas: Mapping[Kind, pa.Schema],
    created_s: float,
    keeps_old: bool = False,
) -> None:
    """Make the record this job's, or prove that it is. Raises ChangedJobError.

    `keeps_old`: answers of another job may stay, if slots and columns are the same; the record is then `mixed`.
    """
    values = meta_values(identity, lanes=lanes, slots=slots, samples=samples, schemas=schemas)
    changed = _change(database, identity, (values["slots"], values["slot_lanes"]), schemas, keeps_old)
    if changed is not None and holds_value(database):
        raise changed
    before = database.meta("fingerprint")
    is_mixed = keeps_old and before not in (None, identity.fingerprint)
    values["created"] = database.meta("created") or repr(created_s)
    with database.transaction() as connection:
        if changed is not None:
            _start_afresh(connection)
        for name, value in values.items():
            store_meta(connection, name, value)
        if is_mixed and holds_value(database):
            store_meta(connection, "mixed", "1")
            store_meta(connection, "kept_fingerprint", before or "")


def meta_values(
    identity: Identity,
    *,
    lanes: Sequence[LaneInfo],
    slots: int,
    samples: int = 1,
    schemas: Mapping[Kind, pa.Schema],
) -> dict[str, str]:
    """What the record says of whose it is. Raises InvariantError where slots and lanes do not fit.

    How many samples there are is what slots and lanes leave.
    """
    _check_slots(lanes, slots, samples)
    values = {
        "job_name": identity.job_name,
        "sections": orjson.dumps(dict(identity.sections), option=orjson.OPT_SORT_KEYS).decode(),
        "fingerprint": identity.fingerprint,
        "version": identity.version,
        "slots": str(slots),
        "slot_lanes": orjson.dumps(slot_lanes(lanes, slots, samples)).decode(),
    }
    for kind, schema in schemas.items():
        values[f"columns_{kind}"] = base64.b64encode(schema.serialize()).decode()
    return values


def _start_afresh(connection: sqlite3.Connection) -> None:
    """Forget the failures of another job; recovery removes the files of retired parts."""
    connection.execute("UPDATE parts SET state = 'retired' WHERE state = 'committed'")
    for table in ("failures", "attempts", "skipped", "lanes"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    connection.execute("DELETE FROM meta WHERE name LIKE 'input_%'")
    connection.execute(
        "UPDATE totals SET failed = 0, skipped = 0, attempts = 0, prompt_tokens = 0, completion_tokens = 0"
    )
    store_meta(connection, "complete", "0")


def register_lanes(database: Database, lanes: Sequence[LaneInfo]) -> tuple[list[int], list[LaneInfo]]:
    """The journal's number of each of `lanes`, and all lanes that it knows by number.

    Numbers are for good: a lane whose model or provider changed is another lane.
    """
    known = [
        LaneInfo(name, provider, model, bool(simulated))
        for name, provider, model, simulated in database.rows(
            "SELECT name, provider, model, simulated FROM lanes ORDER BY lane"
        )
    ]
    numbers: list[int] = []
    with database.transaction() as connection:
        for lane in lanes:
            if lane not in known:
                connection.execute("INSERT INTO lanes VALUES (?, ?, ?, ?, ?, NULL)", (len(known), *lane))
                known.append(lane)
            numbers.append(known.index(lane))
    return numbers, known


def slot_lanes(lanes: Sequence[LaneInfo], slots: int, samples: int) -> list[str]:
    """The lanes that each answer each row, by name; none where any one does."""
    return [lane.name for lane in lanes] if slots > samples else []


def _check_slots(lanes: Sequence[LaneInfo], slots: int, samples: int) -> None:
    if slots not in (samples, len(lanes) * samples):
        of_each = f", {samples} samples of each" if samples > 1 else ""
        raise InvariantError(
            f"{slots} slots for {len(lanes)} lanes{of_each}: neither one nor one for each lane"
        )
    if slots > samples and len({lane.name for lane in lanes}) != len(lanes):
        raise InvariantError("with an answer of each lane for each row, lanes need names of their own")


def _change(
    database: Database,
    identity: Identity,
    routing: tuple[str, str],
    schemas: Mapping[Kind, pa.Schema],
    keeps_old: bool,
) -> ChangedJobError | None:
    text = database.meta("sections")
    if text is None:
        return None
    return (
        (None if keeps_old else _section_change(database, identity, _sections(text)))
        or _routing_change(database, routing)
        or _column_change(database, schemas)
    )


def _section_change(database: Database, identity: Identity, old: Mapping[str, str]) -> ChangedJobError | None:
    changed = changed_sections(old, identity.sections)
    if not changed and database.meta("fingerprint") == identity.fingerprint:
        return None
    return ChangedJobError(
        f"the answers in {_out(database)} were made with another job:"
        f" {', '.join(changed) or 'its fingerprint'} changed",
        remedy="undo the change; or start with --new-run (all rows again, the old record is put aside) or --keep-old"
        " (the answers stay, the rest is asked with the changed job)",
    )


def _routing_change(database: Database, routing: tuple[str, str]) -> ChangedJobError | None:
    before = (database.meta("slots"), database.meta("slot_lanes"))
    if before == routing:
        return None
    return ChangedJobError(
        f"the answers in {_out(database)} were made with another routing"
        f" ({before[0]} a row, lanes {before[1]}; now {routing[0]} a row, lanes {routing[1]})",
        remedy="with routing: all, lanes keep their names, number and order; or start with --new-run: all rows again,"
        " the old record is put aside",
    )


def _column_change(database: Database, schemas: Mapping[Kind, pa.Schema]) -> ChangedJobError | None:
    for kind, schema in schemas.items():
        text = database.meta(f"columns_{kind}")
        if text is None:  # of a record that is older than the table
            continue
        old = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
        changes = column_changes(old, schema)
        if changes:
            return ChangedJobError(
                f"the columns of {_out(database) / kind} would change: {'; '.join(changes)}",
                remedy="undo the change of key, carry, keep, schema or input columns; or start with --new-run: all rows"
                " again, and the old record is put aside",
            )
    return None


def column_changes(old: pa.Schema, new: pa.Schema) -> list[str]:
    """In words; empty when both have the same names and types in the same order."""
    was = {field.name: field.type for field in old}
    now = {field.name: field.type for field in new}
    changes = [f"{name} goes" for name in was if name not in now]
    changes += [f"{name} ({now[name]}) comes" for name in now if name not in was]
    changes += [
        f"{name} was {was[name]}, would be {now[name]}"
        for name in was
        if name in now and was[name] != now[name]
    ]
    if not changes and old.names != new.names:
        changes = ["their order"]
    return changes


def _sections(text: str) -> Mapping[str, str]:
    return {str(name): str(value) for name, value in orjson.loads(text).items()}


def _out(database: Database) -> Path:
    return database.path.parent.parent
