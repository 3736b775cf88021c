"""The three tables as readers see them: pinned Arrow schemas, and journal lines turned into their columns.

A schema comes from the job (key, carried columns, task) and never from data, so every part of a table has the same
one, also a part without rows. Strings of few values are dictionary-encoded inside Parquet and plain strings to
readers. A line whose checksum no longer fits is never handed out.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.carry import CarryCodec
from batchllm.errors import BatchllmError, InvariantError, StorageError
from batchllm.journal.files import BY_UNIT, Kind
from batchllm.journal.slots import LANE, SAMPLE, Slots
from batchllm.ports import Shape, Task
from batchllm.records import AnswerValue, LaneInfo

Line: TypeAlias = tuple[Any, ...]

_OUTPUT_TAIL = (
    pa.field("finish_reason", pa.string()),
    pa.field("lane", pa.string()),
    pa.field("provider", pa.string()),
    pa.field("model", pa.string()),
    pa.field("prompt_tokens", pa.int64()),
    pa.field("completion_tokens", pa.int64()),
    pa.field("cost_usd", pa.float64()),
    pa.field("latency_ms", pa.float64()),
    pa.field("attempts", pa.int32()),
    pa.field("request_id", pa.string()),
    pa.field("request_hash", pa.string()),
    pa.field("simulated", pa.bool_()),
)
_FAILURES_TAIL = (
    pa.field("class", pa.string()),
    pa.field("message", pa.string()),
    pa.field("lane", pa.string()),
    pa.field("status", pa.int32()),
    pa.field("attempts", pa.int32()),
    pa.field("request_hash", pa.string()),
    pa.field("content", pa.string()),
)
_ROW = pa.field("row", pa.int64())
#: Behind the lane in output/ and failures/, where each lane answers more than once: from 1 on.
_SAMPLE = pa.field(SAMPLE, pa.int32())
#: Last in output/ and failures/, where the job keeps it.
_BODY = pa.field("body", pa.string())
_USAGE = pa.schema(
    [
        _ROW,
        pa.field("rows", pa.int32()),
        pa.field("lane", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("model_asked", pa.string()),
        pa.field("model", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("cached_tokens", pa.int64()),
        pa.field("reasoning_tokens", pa.int64()),
        pa.field("cost_usd", pa.float64()),
        pa.field("billed", pa.string()),
        pa.field("status", pa.int32()),
        pa.field("class", pa.string()),
        pa.field("latency_ms", pa.float64()),
        pa.field("ttft_ms", pa.float64()),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("request_id", pa.string()),
    ]
)
_SKIPPED_TAIL = (pa.field(LANE, pa.string()), pa.field("request_hash", pa.string()))
#: Text that differs on each line: a dictionary of it is only hashed, filled and thrown away.
_UNIQUE_TEXT = frozenset({"body", "content", "message", "reasoning", "request_id", "request_hash"})

#: What a line of output/ says of its call, and of no copy.
_NOT_COPIED = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms")

#: What each table reads of its journal table, in the order that `Tables` takes it. Seq, row and slot lead.
SELECTED: Mapping[Kind, str] = {
    "output": "seq, row, slot, lane, key, carry, answer, finish_reason, model, prompt_tokens, completion_tokens,"
    " cost_usd, latency_ms, attempts, request_id, digest, body, crc",
    "failures": "seq, row, slot, lane, key, class, message, status, attempts, digest, content, body",
    "usage": "seq, row, rows, lane, model, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,"
    " cost_usd, billed, status, class, latency_ms, started_at, request_id, ttft_ms",
    "skipped": "seq, row, slot, key, digest",
}


#: Who has named a column.
Named = Literal["key", "answer", "carried"]


def check_names(
    key: str | None,
    carry: Sequence[str],
    answers: Sequence[str],
    *,
    keeps_bodies: bool = False,
    has_samples: bool = False,
) -> list[tuple[Named, str]]:
    """Whose column has a name that is taken, and by what, in output/ and failures/; empty when all differ.

    Case does not count: Spark and DuckDB take `Model` and `model` for the same column.
    """
    faults: list[tuple[Named, str]] = []
    kept = (*((_SAMPLE,) if has_samples else ()), *((_BODY,) if keeps_bodies else ()))
    ours = {field.name: "a column of batchllm's own" for field in (_ROW, *_OUTPUT_TAIL, *kept)}
    if key is not None:
        failures = {field.name: "a column of failures/" for field in _FAILURES_TAIL}
        if key.casefold() in {**failures, **ours}:
            holder = {**failures, **ours}[key.casefold()]
            faults.append(("key", f"the key column {key!r} has the name of {holder}"))
        ours[key.casefold()] = "the key"
    roles: tuple[tuple[Named, Sequence[str]], ...] = (("answer", answers), ("carried", carry))
    for role, names in roles:
        for name in names:
            if name.casefold() in ours:
                faults.append((role, f"the {role} column {name!r} has the name of {ours[name.casefold()]}"))
            else:
                ours[name.casefold()] = f"another {role} column"
    return faults


def checksum(carry: bytes, answer: AnswerValue) -> int:
    """Over what was paid for. SQLite's pages carry no checksum of their own."""
    data = answer.encode() if isinstance(answer, str) else answer
    return zlib.crc32(data, zlib.crc32(carry))


class Tables:
    """Journal lines → record batches of the pinned schemas.

    `lanes` are all that the journal knows, by number; `slot_lanes` the names of the lanes that each answer each row
    (empty where any one lane answers), each so many times.
    """

    def __init__(
        self,
        task: Task,
        shape: Shape,
        lanes: Sequence[LaneInfo],
        slot_lanes: Sequence[str] = (),
        *,
        samples: int = 1,
        keeps_bodies: bool = False,
    ) -> None:
        self._task = task
        self._key = _key_field(shape)
        self._codec = CarryCodec(shape.carry)
        self._keeps_bodies = keeps_bodies
        self.schemas = table_schemas(task, shape, samples=samples, keeps_bodies=keeps_bodies)
        self.of_row = Slots(tuple(slot_lanes), samples)
        self.slots = self.of_row.count
        self._names = pa.array([lane.name for lane in lanes], pa.string())
        self._providers = pa.array([lane.provider for lane in lanes], pa.string())
        self._models = pa.array([lane.model for lane in lanes], pa.string())
        self._simulated = pa.array([lane.is_simulated for lane in lanes], pa.bool_())

    @property
    def key_name(self) -> str:
        """Raises InvariantError without a key."""
        if self._key is None:
            raise InvariantError("rows without a key are looked up by their key")
        return str(self._key.name)

    @property
    def carried(self) -> list[str]:
        return [field.name for field in self._codec.fields]

    def encode_carried(self, batch: pa.RecordBatch) -> list[bytes]:
        """What each row carries, as the journal's lines hold it."""
        return self._codec.encode_batch(batch)

    def with_carried(
        self, batch: pa.RecordBatch, rows: Sequence[int], blobs: Sequence[bytes]
    ) -> pa.RecordBatch:
        """The batch, where the lines of `rows` carry what `blobs` hold."""
        if not rows:
            return batch
        at = pc.index_in(batch.column("row"), value_set=pa.array(rows, pa.int64()))
        lines = pa.arange(0, batch.num_rows, 1)
        source = pc.if_else(at.is_valid(), pc.add(at.cast(pa.int64()), batch.num_rows), lines)
        for field, new in zip(self._codec.fields, self._codec.decode(blobs), strict=True):
            index = batch.schema.get_field_index(field.name)
            both = pa.chunked_array([batch.column(index), new.cast(batch.schema.field(index).type)])
            batch = batch.set_column(index, batch.schema.field(index), _flat(both.take(source)))
        return batch

    def copied(
        self,
        kind: Kind,
        batch: pa.RecordBatch,
        *,
        rows: Sequence[int],
        keys: Sequence[Any],
        carries: Sequence[bytes],
    ) -> pa.RecordBatch:
        """The lines of output/ or failures/ for other rows, which were not called for: free, and of no tokens."""
        new: dict[str, pa.Array] = {"row": pa.array(rows, pa.int64())}
        if self._key is not None:
            new[self._key.name] = self._key_column(keys)[0]
        if kind == "output":
            new.update(zip(self.carried, self._codec.decode(carries), strict=True))
            new.update({name: pa.array([0] * len(rows), pa.int64()) for name in _NOT_COPIED})
        new["attempts"] = pa.array([0] * len(rows), pa.int32())
        if self._keeps_bodies:  # it stands at the row that was asked
            new[_BODY.name] = pa.nulls(len(rows), _BODY.type)
        arrays = [
            new[field.name].cast(field.type) if field.name in new else batch.column(at)
            for at, field in enumerate(batch.schema)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)

    def keys(self, keys: Sequence[Any]) -> pa.Array:
        """Keys of rows in the type of their column."""
        return self._key_column(keys)[0]

    @property
    def answer_names(self) -> list[str]:
        return [field.name for field in self._task.answer_fields]

    def batch(self, kind: Kind, lines: Sequence[Line]) -> pa.RecordBatch:
        """`lines` as selected by `SELECTED[kind]`. Raises StorageError, InvariantError."""
        schema = self.schemas[kind]
        if not lines:
            return pa.RecordBatch.from_pylist([], schema=schema)
        columns = list(zip(*lines, strict=True))
        try:
            match kind:
                case "output":
                    arrays = self._output(columns)
                case "failures":
                    arrays = self._failures(columns)
                case "usage":
                    arrays = self._usage(columns)
                case "skipped":
                    arrays = self._skipped(columns)
        except BatchllmError:
            raise
        except Exception as error:
            raise InvariantError(f"lines of {kind} do not fit their columns: {error}") from error
        return pa.RecordBatch.from_arrays(
            [_fitted(array, field, len(lines)) for array, field in zip(arrays, schema, strict=True)],
            schema=schema,
        )

    def units(self, table: pa.Table | pa.RecordBatch) -> pa.Array:
        """Row × slot of each line (usage/ has none); null where a failure speaks for the whole row."""
        return self.of_row.units(table)

    def ranks(self, kind: Kind, table: pa.Table | pa.RecordBatch) -> pa.Array:
        """What a part is sorted by: the unit in output/ and skipped/, the row elsewhere."""
        return self.units(table) if kind in BY_UNIT else _flat(table.column("row"))

    def lowest_rank(self, kind: Kind, row: int) -> int:
        return row * self.slots if kind in BY_UNIT else row

    def dictionary_columns(self, kind: Kind) -> list[str]:
        """Columns that are worth a dictionary. Vectors, rows and keys are not: no two are the same."""
        passed = _UNIQUE_TEXT | {"row", None if self._key is None else self._key.name}
        return [
            field.name
            for field in self.schemas[kind]
            if field.name not in passed and not pa.types.is_nested(field.type)
        ]

    def _output(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        _, row, slot, lane, key, carry, answer, finish, model, *numbers, request_id, digest, body, crc = (
            columns
        )
        for number, kept, value, expected in zip(row, carry, answer, crc, strict=True):
            if checksum(kept, value) != expected:
                raise _rotten(number)
        prompt, completion, cost, latency, attempts = numbers
        lanes = pa.array(lane, pa.int32())
        echoed = pa.array(model, pa.string())
        return [
            *self._key_column(key),
            pa.array(row, pa.int64()),
            *_checked(self._codec.decode(carry), self._codec.fields, "carried values"),
            *_checked(self._task.columns(answer), self._task.answer_fields, "answers"),
            pa.array(finish, pa.string()),
            self._names.take(lanes),
            *self.of_row.sample_column(slot),
            self._providers.take(lanes),
            pc.coalesce(echoed, self._models.take(lanes)),
            pa.array(prompt, pa.int64()),
            pa.array(completion, pa.int64()),
            pa.array(cost, pa.float64()),
            pa.array(latency, pa.float64()),
            pa.array(attempts, pa.int32()),
            pa.array(request_id, pa.string()),
            pa.array([value.hex() for value in digest], pa.string()),
            self._simulated.take(lanes),
            *self._body_column(body),
        ]

    def _failures(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        _, row, slot, lane, key, code, message, status, attempts, digest, content, body = columns
        return [
            *self._key_column(key),
            pa.array(row, pa.int64()),
            pa.array(code, pa.string()),
            pa.array(message, pa.string()),
            self._names.take(pa.array(lane, pa.int32())),
            *self.of_row.sample_column(slot),
            pa.array(status, pa.int32()),
            pa.array(attempts, pa.int32()),
            pa.array([value.hex() for value in digest], pa.string()),
            pa.array(content, pa.string()),
            *self._body_column(body),
        ]

    def _skipped(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        _, row, slot, key, digest = columns
        return [
            *self._key_column(key),
            pa.array(row, pa.int64()),
            pa.array([self.of_row.lane(one) for one in slot], pa.string()),
            *self.of_row.sample_column(slot),
            pa.array([value.hex() for value in digest], pa.string()),
        ]

    def _usage(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        _, row, rows, lane, model, *rest = columns
        *tokens, cost, billed, status, code, latency, started, request_id, ttft = rest
        lanes = pa.array(lane, pa.int32())
        return [
            pa.array(row, pa.int64()),
            pa.array(rows, pa.int32()),
            self._names.take(lanes),
            self._providers.take(lanes),
            self._models.take(lanes),
            pa.array(model, pa.string()),
            *(pa.array(values, pa.int64()) for values in tokens),
            pa.array(cost, pa.float64()),
            pa.array(billed, pa.string()),
            pa.array(status, pa.int32()),
            pa.array(code, pa.string()),
            pa.array(latency, pa.float64()),
            pa.array(ttft, pa.float64()),
            _instants(started),
            pa.array(request_id, pa.string()),
        ]

    def _body_column(self, bodies: Sequence[Any]) -> list[pa.Array]:
        return [pa.array(bodies, pa.string())] if self._keeps_bodies else []

    def _key_column(self, keys: Sequence[Any]) -> list[pa.Array]:
        if self._key is None:
            return []
        try:
            return [pa.array(keys, self._key.type)]
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # Keys beyond SQLite's 64 bits are kept as text; numbers under a text column become text.
            turn = int if pa.types.is_integer(self._key.type) else str
            return [pa.array([None if key is None else turn(key) for key in keys], self._key.type)]


def table_schemas(
    task: Task, shape: Shape, *, samples: int = 1, keeps_bodies: bool = False
) -> dict[Kind, pa.Schema]:
    key_field = _key_field(shape)
    key = () if key_field is None else (key_field,)
    carry = CarryCodec(shape.carry).fields
    body = (_BODY,) if keeps_bodies else ()
    return {
        "output": pa.schema(
            [*key, _ROW, *carry, *task.answer_fields, *_sampled(_OUTPUT_TAIL, samples), *body]
        ),
        "failures": pa.schema([*key, _ROW, *_sampled(_FAILURES_TAIL, samples), *body]),
        "usage": _USAGE,
        "skipped": pa.schema([*key, _ROW, *_sampled(_SKIPPED_TAIL, samples)]),
    }


def _sampled(fields: Sequence[pa.Field], samples: int) -> list[pa.Field]:
    """With the number of the sample behind the lane, where there are several."""
    if samples == 1:
        return list(fields)
    at = 1 + [field.name for field in fields].index(LANE)
    return [*fields[:at], _SAMPLE, *fields[at:]]


def _key_field(shape: Shape) -> pa.Field | None:
    """Plain like a carried column: a dictionary is an encoding, not a type."""
    return None if shape.key is None else CarryCodec((shape.key,)).fields[0]


def _instants(seconds: Sequence[float | None]) -> pa.Array:
    """Seconds since 1970 as timestamps."""
    micros = pc.round(pc.multiply(pa.array(seconds, pa.float64()), 1e6))
    return micros.cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _checked(arrays: Sequence[pa.Array], fields: Sequence[pa.Field], what: str) -> Sequence[pa.Array]:
    if len(arrays) != len(fields):
        raise InvariantError(f"{len(arrays)} columns of {what} for {len(fields)} fields")
    return arrays


def _fitted(array: pa.Array, field: pa.Field, rows: int) -> pa.Array:
    if len(array) != rows:
        raise InvariantError(f"the column {field.name} has {len(array)} values for {rows} rows")
    if array.type == field.type:
        return array
    try:
        return array.cast(field.type)
    except pa.ArrowException as error:
        raise InvariantError(f"the column {field.name}: {array.type} is not {field.type}") from error


def _rotten(row: int) -> StorageError:
    return StorageError(
        f"the journal's answer for row {row} is damaged: its checksum does not fit",
        remedy="check the disk; put back a copy of the .batchllm folder, or move the output folder away",
    )
