"""OUT/consensus/part-*.parquet: a line for each row of the input, in its order, whatever became of it.

The schema is pinned by the job: the kind of the votes, the key and the carried columns. A range of rows is made and
written at a time, so that memory does not grow with what rows carry. A table takes the place of an earlier one as a
whole: its parts are written beside it, then shown, and the old ones go once `agreement.json` lists the new.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.consensus.kinds import value_type
from batchllm.consensus.poll import Poll, State
from batchllm.consensus.rules import By, Decisions, Status
from batchllm.consensus.telling import Telling
from batchllm.consensus.terms import Terms
from batchllm.consensus.values import Values
from batchllm.consensus.votes import LabelVotes
from batchllm.journal.files import make_folder, mapped_faults, sync_folder

#: Rows made at a time, which are a row group.
STEP_ROWS = 1 << 16
_PART_ROWS = 1 << 21
_WRITING = ".writing"
_STATES = pa.array([state.name.lower() for state in State])
_STATUSES = pa.array([status.name.lower() for status in Status])
#: Of the table itself; a carried column cannot have one of these names.
COLUMNS = (
    "row", "consensus", "status", "reason", "rule", "votes", "leading", "votes_cast", "share", "margin", "entropy",
    "confidence", "cost_usd", "gold", "correct",
)  # fmt: skip


class Identities(Protocol):
    """Where key and carried columns of the rows come from."""

    def identities(self, fields: Sequence[pa.Field], step: int) -> Iterator[pa.Table]:
        """`row` and `fields` of all rows in their order, `step` rows a table."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written: the votes, on which terms they decided, and what."""

    poll: Poll
    terms: Terms
    decisions: Decisions

    @property
    def rows(self) -> int:
        return self.poll.rows


@dataclass(frozen=True, slots=True)
class TablePart:
    """`path` is relative to the output folder."""

    path: str
    rows: int
    bytes: int


def table_schema(outcome: Outcome, key: pa.Field | None, carried: Sequence[pa.Field]) -> pa.Schema:
    value = value_type(outcome.poll.kind)
    vote = pa.struct(
        [pa.field("voter", pa.string()), pa.field("value", value), pa.field("state", pa.string())]
    )
    fields = [
        *([] if key is None else [key]),
        pa.field("row", pa.int64()),
        *carried,
        pa.field("consensus", value),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("votes", pa.list_(vote)),
        pa.field("leading", pa.list_(value)),
        pa.field("votes_cast", pa.int32()),
        *(pa.field(name, pa.float64()) for name in ("share", "margin", "entropy", "confidence", "cost_usd")),
    ]
    if outcome.poll.gold is not None:
        fields += [pa.field("gold", value), pa.field("correct", pa.bool_())]
    return pa.schema(fields)


def write_table(
    out: Path,
    outcome: Outcome,
    rows: Identities,
    *,
    key: pa.Field | None,
    carried: Sequence[pa.Field],
    part_rows: int = _PART_ROWS,
) -> list[TablePart]:
    """Write the parts where no reader looks for them; `show_table` puts them in their place. Raises StorageError."""
    folder = out / "consensus"
    hidden = folder / _WRITING
    schema = table_schema(outcome, key, carried)
    named = [*([] if key is None else [key]), *carried]
    lines = _Lines(outcome, schema)
    with mapped_faults("write", folder):
        make_folder(folder, 0o777)
        make_folder(hidden, 0o777)
        for leftover in hidden.iterdir():
            leftover.unlink()
        parts: list[TablePart] = []
        writer = _Parts(hidden, schema, part_rows)
        try:
            first = 0
            for table in rows.identities(named, STEP_ROWS):
                writer.write(lines.of(first, table))
                first += table.num_rows
        finally:
            parts = writer.close()
        sync_folder(hidden)
    return parts


def show_table(out: Path, parts: Sequence[TablePart]) -> None:
    folder = out / "consensus"
    with mapped_faults("write", folder):
        for part in parts:
            (folder / _WRITING / Path(part.path).name).rename(out / part.path)
        sync_folder(folder)


def remove_others(out: Path, parts: Sequence[str]) -> None:
    """Parts of earlier tables, or of one that a kill cut off: all that are not of these paths."""
    folder = out / "consensus"
    with mapped_faults("remove", folder):
        make_folder(folder, 0o777)
        for path in sorted(folder.glob("part-*.parquet")):
            if f"consensus/{path.name}" not in parts:
                path.unlink()
        if (folder / _WRITING).is_dir():
            make_folder(folder / _WRITING, 0o777)
            for path in (folder / _WRITING).iterdir():
                path.unlink()
            (folder / _WRITING).rmdir()


class _Parts:
    """Files one after the other, each of so many rows; one at least, so that an empty table has its schema."""

    def __init__(self, folder: Path, schema: pa.Schema, most_rows: int) -> None:
        self._folder = folder
        self._schema = schema
        self._most_rows = most_rows
        self._generation = uuid.uuid4().hex[:12]
        self._rows = 0
        self._path = Path()
        self._writer: pq.ParquetWriter | None = None
        self._parts: list[TablePart] = []

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._open()
        if self._writer is not None:
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._rows += table.num_rows
        if self._rows >= self._most_rows:
            self._end()

    def close(self) -> list[TablePart]:
        if not self._parts and self._writer is None:
            self._open()
        self._end()
        return self._parts

    def _open(self) -> None:
        self._path = self._folder / f"part-{len(self._parts):05d}-{self._generation}.parquet"
        self._rows = 0
        self._writer = pq.ParquetWriter(
            self._path,
            self._schema,
            compression="zstd",
            use_dictionary=[name for name in _FEW_VALUED if name.partition(".")[0] in self._schema.names],
            write_page_checksum=True,
        )

    def _end(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        size = self._path.stat().st_size
        self._parts.append(TablePart(f"consensus/{self._path.name}", self._rows, size))


#: Columns that are worth a dictionary: words of ours, and values of votes.
_FEW_VALUED = [
    "status",
    "reason",
    "rule",
    "consensus",
    "gold",
    "votes.list.element.voter",
    "votes.list.element.value",
    "votes.list.element.state",
    "leading.list.element",
]


class _Lines:
    """Makes the lines of a range of rows."""

    def __init__(self, outcome: Outcome, schema: pa.Schema) -> None:
        self._outcome = outcome
        self._schema = schema
        self._values = Values(outcome.poll)
        self._telling = Telling(outcome.poll, outcome.decisions, outcome.terms, self._values)
        names = {By.NOTHING: None, By.RULE: outcome.terms.rule}
        self._rules = pa.array([names.get(by, by.name.lower()) for by in By], pa.string())
        self._voters = pa.array([voter.name for voter in outcome.poll.voters], pa.string())

    def of(self, first: int, identity: pa.Table) -> pa.Table:
        """`identity`: key and carried columns of these rows."""
        rows = slice(first, first + identity.num_rows)
        columns = self._decided(rows)
        arrays = [
            (columns[field.name] if field.name in columns else identity.column(field.name)).cast(field.type)
            for field in self._schema
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _decided(self, rows: slice) -> dict[str, pa.Array]:
        poll, made, values = self._outcome.poll, self._outcome.decisions, self._values
        winner = made.winner[rows]
        columns = {
            "consensus": values.array(winner),
            "status": _STATUSES.take(pa.array(made.status[rows])),
            "reason": self._telling.reasons(rows),
            "rule": self._rules.take(pa.array(made.by[rows])),
            "votes": self._votes(rows),
            "leading": self._leading(rows),
            "votes_cast": pa.array(made.cast[rows]),
            "share": _finite(made.share[rows]),
            "margin": _finite(made.margin[rows]),
            "entropy": _finite(made.entropy[rows]),
            "confidence": _finite(made.confidence[rows]),
            "cost_usd": _finite(poll.row_usd[rows]),
        }
        if poll.gold is not None:
            gold = poll.gold.values[rows]
            columns["gold"] = values.array(gold)
            columns["correct"] = pa.array(gold == winner, mask=_is_none(gold) | _is_none(winner))
        return columns

    def _votes(self, rows: slice) -> pa.Array:
        poll = self._outcome.poll
        states = poll.states[rows]
        count, voters = states.shape
        cells = poll.votes.codes if isinstance(poll.votes, LabelVotes) else poll.votes.numbers
        struct = pa.StructArray.from_arrays(
            [
                self._voters.take(pa.array(np.tile(np.arange(voters), count))),
                self._values.array(cells[rows].reshape(-1)),
                _STATES.take(pa.array(states.reshape(-1))),
            ],
            names=["voter", "value", "state"],
        )
        return pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * voters, struct)

    def _leading(self, rows: slice) -> pa.Array:
        made = self._outcome.decisions
        offsets = made.offsets[rows.start : rows.stop + 1]
        values = self._values.array(made.leading[offsets[0] : offsets[-1]])
        return pa.ListArray.from_arrays((offsets - offsets[0]).astype(np.int32), values)


def _is_none(cells: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of codes or numbers."""
    none: npt.NDArray[np.bool_] = np.isnan(cells) if cells.dtype.kind == "f" else cells < 0
    return none


def _finite(values: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))
