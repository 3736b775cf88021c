"""Kept answers, read again: by another schema, or by a parser that has changed. Nothing is asked for it.

Each part of output/ becomes a new one with the columns that the answers have now; texts that are no answers any more
go to failures/. Texts in failures/ that are answers now go to output/: what they cost is looked up in usage/, and
their carried columns in the input. New parts in and old ones out, counts and identity are one transaction; whatever
is cut off before it leaves the record as it was, and what is cut off after it the next start finishes.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.carry import CarryCodec
from batchllm.clock import Clock
from batchllm.errors import ChangedJobError
from batchllm.journal.database import store_meta
from batchllm.journal.files import Kind
from batchllm.journal.identity import column_changes
from batchllm.journal.journal import Journal
from batchllm.journal.merge import in_order
from batchllm.journal.parts import (
    Draft,
    Intent,
    PartInfo,
    Sealed,
    Store,
    abandon_all,
    damaged_part,
    open_part,
    publish,
    verify_part,
)
from batchllm.journal.rebuilding import Owner
from batchllm.journal.recovery import purge
from batchllm.journal.sealing import (
    add_empty_parts,
    complete_parts,
    is_complete,
    renewals,
    save_manifest,
)
from batchllm.records import FailureCode, LaneInfo

_BATCH_ROWS = 4096
#: Failures whose text was judged and turned down; of the others it is no answer, or not all of one.
_JUDGED = (FailureCode.SCHEMA_MISMATCH, FailureCode.TRUNCATED, FailureCode.CONTENT_FILTER)
#: Classes of the calls that brought such a text; none: it was an answer at the time.
_TEXT_CAME = (None, *_JUDGED)
#: How an answer ended whose failure has this class, as far as that tells it.
_ENDS: Mapping[str, str] = {
    FailureCode.TRUNCATED.value: "length",
    FailureCode.CONTENT_FILTER.value: "content_filter",
}
_OK_STATUS = 200


class Judge(Protocol):
    """A task that keeps texts."""

    answer_fields: tuple[pa.Field, ...]
    typed_fields: tuple[pa.Field, ...]  # those that are read out of the text

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        """Why the text is no answer; None when it is one."""

    def judged_texts(self, lines: pa.RecordBatch) -> list[str | None]:
        """The text of each line of output/; None where the answer is another one than its text."""

    def typed_columns(self, texts: Sequence[str | None]) -> list[pa.Array]:
        """One array for each of `typed_fields`."""


#: Carried values of these rows, ascending, also from one call to the next.
Carried = Callable[[Sequence[int]], list[bytes]]


@dataclass(slots=True)
class Reread:
    """`answers` that are answers still, `turned_down` that are none any more, failures that `became_answers`."""

    answers: int = 0
    turned_down: int = 0
    became_answers: int = 0
    failures: int = 0
    complete: bool = False


def reread(journal: Journal, owner: Owner, judge: Judge, *, carried: Carried, clock: Clock) -> Reread:
    """`journal` is open as the job was; afterwards the record is `owner`'s, and `journal` is good for `close` only.

    Raises ChangedJobError when other columns than the answers' would change.
    """
    if journal.has_lines:
        journal.seal()
    return journal.rewrite(lambda store: _Rewriting(store, owner, judge, carried, clock).run())


class _Rewriting:
    def __init__(self, old: Store, owner: Owner, judge: Judge, carried: Carried, clock: Clock) -> None:
        self._old = old
        self._owner = owner
        self._judge = judge
        self._carried = carried
        self._clock = clock
        self._lanes = _lanes(old)
        tables = owner.tables(self._lanes)
        self._new = replace(old, tables=tables)
        self._codec = CarryCodec(owner.shape.carry)
        self._typed = [field.name for field in judge.typed_fields]
        #: What was kept beside a text, of which failures/ knows nothing.
        self._beside = [field for field in judge.answer_fields if field.name not in {"content", *self._typed}]
        self._done = Reread()
        _refuse_other_columns(old, tables.schemas, {*tables.answer_names, *old.tables.answer_names})

    def run(self) -> Reread:
        was_complete = self._was_complete()
        parts = {kind: self._old.parts(kind) for kind in ("output", "failures")}
        drafts = _Drafts(self._new)
        try:
            for part in parts["output"]:
                self._reread_answers(part, drafts)
            self._reread_failures(parts["failures"], drafts)
            sealed = drafts.seal_all()
            publish(self._new, sealed)
        except BaseException:
            drafts.abandon()
            raise
        self._new.commit(sealed, retired=[*parts["output"], *parts["failures"]], along=self._adopt)
        add_empty_parts(self._new)
        if was_complete:
            complete_parts(self._new, self._clock.wall_s())
        save_manifest(self._new, self._clock.wall_s())
        purge(self._new)
        self._done.complete = was_complete
        return self._done

    def _was_complete(self) -> bool:
        """Also of a record that only lacked the last step: all units have their outcome."""
        database = self._old.database
        counts, rows = database.counts(), database.meta("input_rows")
        return is_complete(database) or (
            rows is not None and counts.settled == int(rows) * self._old.tables.slots
        )

    def _adopt(self, connection: sqlite3.Connection) -> None:
        owner, done = self._owner, self._done
        values = owner.meta_values() | {"complete": "0", "renewals": str(renewals(self._old.database) + 1)}
        if self._old.database.counts().skipped:  # by votes that may be others now
            values["skip_terms"] = ""
        for name, value in values.items():
            store_meta(connection, name, value)
        change = done.became_answers - done.turned_down
        counts = self._old.database.counts()
        self._old.database.store_counts(
            connection, counts._replace(ok=counts.ok + change, failed=counts.failed - change)
        )

    def _reread_answers(self, part: PartInfo, drafts: "_Drafts") -> None:
        for batch in _batches(self._old, part):
            texts = self._judge.judged_texts(batch)
            reasons = batch.column("finish_reason").to_pylist()
            verdicts = [
                None if text is None else self._judge.reread(text, reason)
                for text, reason in zip(texts, reasons, strict=True)
            ]
            fits = pa.array([verdict is None for verdict in verdicts], pa.bool_())
            self._done.answers += pc.sum(fits).as_py() or 0
            self._done.turned_down += len(verdicts) - (pc.sum(fits).as_py() or 0)
            fitting = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict is None]
            drafts.add("output", part.name, self._as_output(batch.filter(fits), fitting))
            causes = [verdict for verdict in verdicts if verdict is not None]
            drafts.add("failures", part.name, self._as_failures(batch.filter(pc.invert(fits)), causes))
        drafts.seal(part.name)

    def _as_output(self, batch: pa.RecordBatch, texts: Sequence[str | None]) -> pa.RecordBatch:
        """Lines of output/ with the columns that their texts have now."""
        typed = dict(zip(self._typed, self._judge.typed_columns(texts), strict=True))
        schema = self._new.tables.schemas["output"]
        arrays = [typed[name] if name in typed else batch.column(name) for name in schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _as_failures(
        self, batch: pa.RecordBatch, causes: Sequence[tuple[FailureCode, str]]
    ) -> pa.RecordBatch:
        schema = self._new.tables.schemas["failures"]
        made = {
            "class": pa.array([str(code) for code, _ in causes], pa.string()),
            "message": pa.array([message for _, message in causes], pa.string()),
            "status": pa.array([_OK_STATUS] * len(causes), pa.int32()),
        }
        arrays = [made[name] if name in made else batch.column(name) for name in schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _reread_failures(self, parts: Sequence[PartInfo], drafts: "_Drafts") -> None:
        usage = _Usage(in_order(self._old, "usage", self._old.parts("usage")))
        for batch in in_order(self._old, "failures", parts):
            verdicts = self._failure_verdicts(batch)
            fits = pa.array([verdict == _FITS for verdict in verdicts], pa.bool_())
            staying = self._renamed(batch, verdicts).filter(pc.invert(fits))
            self._done.failures += staying.num_rows
            drafts.add("failures", "failures", staying)
            recovered = batch.filter(fits)
            self._done.became_answers += recovered.num_rows
            if recovered.num_rows:
                self._recover(recovered, usage, drafts)
        drafts.seal_all()

    def _failure_verdicts(self, batch: pa.RecordBatch) -> list[tuple[str, str] | None]:
        """Class and message as they are now; None where nothing was judged anew, `_FITS` for an answer."""
        verdicts: list[tuple[str, str] | None] = []
        columns = [batch.column(name).to_pylist() for name in ("class", "content", "lane")]
        for code, text, lane in zip(*columns, strict=True):
            if text is None or lane is None or code not in _JUDGED:
                verdicts.append(None)
                continue
            found = self._judge.reread(text, _ENDS.get(code))
            verdicts.append(_FITS if found is None else (str(found[0]), found[1]))
        return verdicts

    def _renamed(self, batch: pa.RecordBatch, verdicts: Sequence[tuple[str, str] | None]) -> pa.RecordBatch:
        """Failures with the reason that they have now."""
        columns = {name: batch.column(name) for name in batch.schema.names}
        for at, name in enumerate(("class", "message")):
            before = columns[name].to_pylist()
            now = [
                old if verdict is None else verdict[at] for old, verdict in zip(before, verdicts, strict=True)
            ]
            columns[name] = pa.array(now, pa.string())
        schema = self._new.tables.schemas["failures"]
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _recover(self, batch: pa.RecordBatch, usage: "_Usage", drafts: "_Drafts") -> None:
        rows = batch.column("row").to_pylist()
        lanes = batch.column("lane").to_pylist()
        calls = [
            call if attempts else _NO_CALL
            for call, attempts in zip(
                usage.of(rows, lanes), batch.column("attempts").to_pylist(), strict=True
            )
        ]
        made = self._made_columns(lanes, calls)
        ends = [_ENDS.get(code) for code in batch.column("class").to_pylist()]
        made["finish_reason"] = pa.array(ends, pa.string())
        made |= {field.name: pa.nulls(batch.num_rows, field.type) for field in self._beside}
        carried = self._carried(rows) if self._codec.fields else [b"[]"] * len(rows)
        fields = [field.name for field in self._codec.fields]
        made |= dict(zip(fields, self._codec.decode(carried), strict=True))
        schema = self._new.tables.schemas["output"]
        plain = pa.RecordBatch.from_arrays(
            [
                made[name] if name in made else batch.column(name)
                for name in schema.names
                if name not in self._typed
            ],
            schema=pa.schema([field for field in schema if field.name not in self._typed]),
        )
        output = self._as_output(plain, batch.column("content").to_pylist())
        if self._new.tables.slots == 1:
            drafts.add("output", "recovered", output)
            return
        # Failures are in the order of their rows; of each slot alone, so are the units.
        slots = [unit % self._new.tables.slots for unit in self._new.tables.units(output).to_pylist()]
        for slot in dict.fromkeys(slots):
            of_slot = pa.array([other == slot for other in slots], pa.bool_())
            drafts.add("output", f"recovered {slot}", output.filter(of_slot))

    def _made_columns(self, lanes: Sequence[str], calls: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
        """What output/ tells and failures/ does not: from the call that brought the text, and from its lane."""
        schema = self._new.tables.schemas["output"]
        by_name = {lane.name: lane for lane in self._lanes}
        infos = [by_name[lane] for lane in lanes]
        values: dict[str, list[Any]] = {
            name: [call.get(name) for call in calls]
            for name in ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms", "request_id")
        }
        values["provider"] = [info.provider for info in infos]
        values["model"] = [
            call.get("model") or call.get("model_asked") or info.model
            for call, info in zip(calls, infos, strict=True)
        ]
        values["simulated"] = [info.is_simulated for info in infos]
        return {name: pa.array(column, schema.field(name).type) for name, column in values.items()}


_FITS = ("", "")
#: Of a row that was not asked, because another one had asked the same: free, and of no tokens.
_NO_CALL: Mapping[str, Any] = dict.fromkeys(
    ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms"), 0
)


class _Drafts:
    """New parts that are being written: one for each table and source, since each part is in order for itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[tuple[Kind, str], Draft] = {}
        self._sealed: list[Sealed] = []
        self._intents: list[Intent] = []

    def add(self, kind: Kind, source: str, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        draft = self._open.get((kind, source))
        sizes = self._store.sizes
        if draft is not None and (draft.rows >= sizes.part_rows or draft.bytes >= sizes.part_bytes):
            self._sealed.append(draft.seal())
            draft = None
        if draft is None:
            intent = self._store.intend(kind, 0)
            self._intents.append(intent)
            draft = self._open[kind, source] = Draft(self._store, intent)
        draft.add(batch)

    def seal(self, source: str) -> None:
        for key in [key for key in self._open if key[1] == source]:
            self._sealed.append(self._open.pop(key).seal())

    def seal_all(self) -> list[Sealed]:
        for source in dict.fromkeys(source for _, source in self._open):
            self.seal(source)
        return self._sealed

    def abandon(self) -> None:
        for draft in self._open.values():
            draft.close()
        abandon_all(self._store, self._intents)


class _Usage:
    """Lines of usage/, in the order of their rows, asked for rows in that order."""

    _COLUMNS = (
        "row",
        "lane",
        "class",
        "model",
        "model_asked",
        "prompt_tokens",
        "completion_tokens",
        "cost_usd",
        "latency_ms",
        "request_id",
        "started_at",
    )

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._ahead: list[pa.RecordBatch] = []
        self._is_over = False

    def of(self, rows: Sequence[int], lanes: Sequence[str]) -> list[Mapping[str, Any]]:
        """The last call of each row and lane that brought a text; empty where no line tells of one."""
        last = rows[-1]
        while not self._is_over and (not self._ahead or self._ahead[-1].column("row")[-1].as_py() <= last):
            batch = next(self._batches, None)
            if batch is None:
                self._is_over = True
            elif batch.num_rows:
                self._ahead.append(batch.select(list(self._COLUMNS)))
        found: dict[tuple[int, str], Mapping[str, Any]] = {}
        for batch in self._ahead:
            for line in batch.filter(pc.is_in(batch.column("row"), pa.array(rows, pa.int64()))).to_pylist():
                key = (line["row"], line["lane"])
                if line["class"] in _TEXT_CAME and _is_later(line, found.get(key)):
                    found[key] = line
        # Lines of the last row may be wanted once more, with another lane.
        self._ahead = [batch for batch in self._ahead if batch.column("row")[-1].as_py() >= last]
        return [found.get(key, {}) for key in zip(rows, lanes, strict=True)]


def _is_later(line: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is None or other["started_at"] is None or line["started_at"] >= other["started_at"]


def _batches(store: Store, part: PartInfo) -> Iterator[pa.RecordBatch]:
    path = store.layout.part(part.kind, part.name)
    verify_part(path, part)  # it will be deleted for what is read here
    with open_part(path) as file:
        try:
            yield from file.iter_batches(_BATCH_ROWS)
        except (OSError, pa.ArrowException) as error:
            raise damaged_part(path, error) from error


def _lanes(store: Store) -> list[LaneInfo]:
    found = store.database.rows("SELECT name, provider, model, simulated FROM lanes ORDER BY lane")
    return [LaneInfo(name, provider, model, bool(flag)) for name, provider, model, flag in found]


def _refuse_other_columns(store: Store, schemas: Mapping[Kind, pa.Schema], answers: set[str]) -> None:
    for kind, schema in schemas.items():
        old = store.tables.schemas[kind]
        changes = column_changes(_without(old, answers), _without(schema, answers))
        if changes:
            raise ChangedJobError(
                f"the columns of {store.layout.folder(kind)} would change: {'; '.join(changes)}",
                remedy="choose another output path, or undo the change of key, carry, keep or input columns",
            )


def _without(schema: pa.Schema, names: set[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in names])
