"""Votes out of a run's own output: its parts, as its manifest lists them, streamed.

What is no line of output/ is a line of failures/, or was not asked, or is still to come. Nothing of a row but its
votes is held in memory; key and carried columns are read again, a range of rows at a time, when the table is written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchllm.consensus.motion import voter_names
from batchllm.consensus.normalising import Vocabulary
from batchllm.consensus.poll import Ballots, Floats, Poll, State, Voter
from batchllm.consensus.similarity import grouped
from batchllm.consensus.votes import MISSING, LabelVotes
from batchllm.errors import InputMissingError
from batchllm.journal.files import Kind
from batchllm.journal.manifest import Manifest, read_manifest
from batchllm.journal.parts import damaged_part, open_part

_BATCH_ROWS = 1 << 16
_VECTOR_ROWS = 1 << 12
Rows = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Record:
    """An output folder, by its manifest. `lanes`: who votes, in their order; `samples`: answers of each to a row.

    Where each row is answered by one lane (`spreads`), its samples are the voters, whoever gave them.
    """

    out: Path
    manifest: Manifest
    lanes: tuple[str, ...]
    samples: int = 1
    spreads: bool = False

    @property
    def voters(self) -> tuple[str, ...]:
        return voter_names(() if self.spreads else self.lanes, self.samples)

    @property
    def voter_lanes(self) -> tuple[str | None, ...]:
        if self.spreads:
            return (self.lanes[0] if len(self.lanes) == 1 else None,) * self.samples
        return tuple(lane for lane in self.lanes for _ in range(self.samples))

    @cached_property
    def schema(self) -> pa.Schema:
        """Of output/. Raises StorageError, InputMissingError."""
        parts = self.paths("output")
        if not parts:
            raise InputMissingError(f"{self.out} lists no parts of output/: there are no answers to agree on")
        with open_part(parts[0]) as file:
            return file.schema_arrow

    @cached_property
    def rows(self) -> int:
        """Of the input; where that was not counted yet, as far as anything is known of them."""
        if self.manifest.rows is not None:
            return self.manifest.rows
        last = [
            pc.max(batch.column("row")).as_py()
            for kind in ("output", "failures")
            for batch in self._batches(kind, ["row"])
            if batch.num_rows
        ]
        return 1 + max(last, default=-1)

    def paths(self, kind: Kind) -> list[Path]:
        return [self.out / part.path for part in self.manifest.parts[kind]]

    def poll(self, over: str | None, vocabulary: Vocabulary, *, gold: str | None) -> Poll:
        """All votes in the column `over`; without it each is the name of its voter. Raises StorageError."""
        ballots = Ballots(self.rows, self.voters, vocabulary, has_gold=gold is not None)
        costs, names = _Costs(len(self.voters)), pa.array(self.voters, pa.string())
        for batch in self._batches("output", self._wanted(over, gold)):
            if gold is not None:
                ballots.note_gold(_whole(batch.column("row")), batch.column(gold))
            voters = self._voters_of(batch)
            ours = batch.filter(
                pa.array(voters >= 0)
            )  # an earlier version of the job may have had other lanes
            voters = voters[voters >= 0]
            values = ours.column(over) if over is not None else names.take(pa.array(voters))
            ballots.vote(_whole(ours.column("row")), voters, values)
            costs.add(voters, ours)
        self._add_failures(ballots)
        self._add_skipped(ballots)
        rest = State.NOT_ASKED if self.manifest.complete else State.OPEN
        told = zip(self.voters, self.voter_lanes, costs.usd(), costs.latencies(), strict=True)
        return ballots.poll(tuple(Voter(*one) for one in told), self._row_usd(), rest=rest)

    def first_value(self, over: str) -> object:
        """The first answer in this column that is no null; None where all are."""
        for batch in self._batches("output", [over]):
            found = batch.column(over).drop_null()
            if len(found):
                return found[0].as_py()
        return None

    def vector_poll(self, over: str, threshold: float) -> Poll:
        """Of votes that are vectors: a vote's value is the voter whose vector leads those that are close to it.

        A range of rows is compared at a time: all vectors at once would be too many numbers.
        """
        poll = self.poll(None, Vocabulary("label", self.voters), gold=None)
        codes = np.full(poll.states.shape, MISSING, np.int32)
        for first in range(0, self.rows, _VECTOR_ROWS):
            size = min(_VECTOR_ROWS, self.rows - first)
            tables = self._lines_of(first, size, self._wanted(over, None)[1:], ("output",))
            for vectors in self._vectors(tables, first, size, over):
                codes[first : first + size] = grouped(self.voters, vectors, threshold).codes
        states = np.where((codes == MISSING) & (poll.states == State.CAST), State.UNREADABLE, poll.states)
        votes = LabelVotes(self.voters, self.voters, codes)
        return replace(poll, kind="vector", votes=votes, states=states.astype(np.uint8))

    def _vectors(self, tables: list[pa.Table], first: int, size: int, over: str) -> Iterator[Numbers]:
        """Rows × voters × dimensions, NaN where there is none; nothing where no row has any."""
        found: Numbers | None = None
        for table in tables:
            rows, voters = _whole(table.column("row")) - first, self._voters_of(table)
            ours = (rows >= 0) & (rows < size) & (voters >= 0) & _is_there(table.column(over))
            lists = table.column(over).filter(pa.array(ours)).combine_chunks()
            if not len(lists):
                continue
            flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)
            flat = flat.reshape(len(lists), -1)
            if found is None:
                found = np.full((size, len(self.voters), flat.shape[1]), np.nan, np.float32)
            found[rows[ours], voters[ours]] = flat
        if found is not None:
            yield found

    def identities(self, fields: Sequence[pa.Field], step: int) -> Iterator[pa.Table]:
        """Key and carried columns of all rows in their order, `step` rows a table; null where no line tells them."""
        names = [field.name for field in fields]
        for first in range(0, self.rows, step):
            size = min(step, self.rows - first)
            yield _placed(self._lines_of(first, size, names), first, size, fields)

    def _lines_of(
        self, first: int, size: int, names: Sequence[str], kinds: Sequence[Kind] = ("output", "failures")
    ) -> list[pa.Table]:
        """Of output/ before failures/, which holds the key alone."""
        found = []
        for kind in kinds:
            for path in self.paths(kind):
                with open_part(path) as file:
                    there = [name for name in names if name in file.schema_arrow.names]
                    groups = _groups_with(file.metadata, first, first + size)
                    if groups:
                        found.append(_read_groups(file, path, groups, ["row", *there]))
        return found

    def _wanted(self, over: str | None, gold: str | None) -> list[str]:
        named = [
            "row",
            "lane",
            "cost_usd",
            "latency_ms",
            *(name for name in (over, gold) if name is not None),
        ]
        return [*dict.fromkeys(named), *(["sample"] if self._has_samples("output") else [])]

    def _has_samples(self, kind: Kind) -> bool:
        paths = self.paths(kind)
        if self.samples == 1 or not paths:
            return False
        with open_part(paths[0]) as file:
            return "sample" in file.schema_arrow.names

    def _voters_of(self, batch: pa.RecordBatch | pa.Table) -> Rows:
        """The place of each line's voter; below 0 where it is none of them."""
        if self.spreads:
            lanes = np.zeros(batch.num_rows, np.int64)
        else:
            found = pc.index_in(batch.column("lane"), pa.array(self.lanes, pa.string()))
            lanes = _whole(found.fill_null(-1))
        if "sample" not in batch.schema.names:
            return lanes
        samples = _whole(batch.column("sample").fill_null(0)) - 1
        return np.where((lanes < 0) | (samples < 0), -1, lanes * self.samples + samples)

    def _add_failures(self, ballots: Ballots) -> None:
        """A line without a lane or sample speaks for all of that row."""
        has_samples = self._has_samples("failures")
        names = ["row", "lane", "class", *(["sample"] if has_samples else [])]
        for batch in self._batches("failures", names):
            voters = self._voters_of(batch)
            rows, reasons = _whole(batch.column("row")), batch.column("class")
            one = voters >= 0
            ballots.fail(rows[one], voters[one], reasons.filter(pa.array(one)))
            for row, reason, lane in zip(
                rows[~one].tolist(),
                reasons.filter(pa.array(~one)).to_pylist(),
                batch.column("lane").filter(pa.array(~one)).to_pylist(),
                strict=True,
            ):
                everyone = np.array(self._all_of(lane), np.int64)
                ballots.fail(np.full(len(everyone), row), everyone, pa.array([reason] * len(everyone)))

    def _add_skipped(self, ballots: Ballots) -> None:
        """Votes that were not needed any more."""
        if "skipped" not in self.manifest.parts:
            return
        names = ["row", "lane", *(["sample"] if self._has_samples("skipped") else [])]
        for batch in self._batches("skipped", names):
            voters = self._voters_of(batch)
            ballots.skip(_whole(batch.column("row"))[voters >= 0], voters[voters >= 0])

    def _all_of(self, lane: str | None) -> list[int]:
        if lane is None or self.spreads:
            return list(range(len(self.voters)))
        return [at for at, name in enumerate(self.voter_lanes) if name == lane]

    def _row_usd(self) -> Floats:
        """What all calls of each row cost; of calls that several rows share, what their answers' lines say."""
        usd = np.zeros(self.rows)
        for batch in self._batches("usage", ["row", "rows", "cost_usd", "billed"]):
            if pc.any(pc.greater(batch.column("rows"), 1)).as_py():
                return self._answers_usd()
            _add_usd(usd, batch.column("row"), calls_usd(batch))
        return usd

    def _answers_usd(self) -> Floats:
        usd = np.zeros(self.rows)
        for batch in self._batches("output", ["row", "cost_usd"]):
            _add_usd(usd, batch.column("row"), _numbers(batch.column("cost_usd")))
        return usd

    def _batches(self, kind: Kind, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for path in self.paths(kind):
            with open_part(path) as file:
                try:
                    yield from file.iter_batches(_BATCH_ROWS, columns=list(names))
                except (OSError, pa.ArrowException) as error:
                    raise damaged_part(path, error) from error


class _Costs:
    """What the votes of each voter cost, and how long they took."""

    def __init__(self, voters: int) -> None:
        self._usd = np.zeros(voters)
        self._took: list[list[npt.NDArray[np.float32]]] = [[] for _ in range(voters)]

    def add(self, voters: Rows, batch: pa.RecordBatch) -> None:
        np.add.at(self._usd, voters, _numbers(batch.column("cost_usd")))
        took = _numbers(batch.column("latency_ms")).astype(np.float32)
        for voter in np.unique(voters):
            mine = took[voters == voter]
            self._took[voter].append(mine[np.isfinite(mine)])

    def usd(self) -> list[float | None]:
        return [None if np.isnan(usd) else float(usd) for usd in self._usd]

    def latencies(self) -> list[npt.NDArray[np.float32] | None]:
        return [np.concatenate(pieces) if pieces else None for pieces in self._took]


def open_record(out: Path) -> Manifest:
    """Raises InputMissingError where there is none."""
    manifest = read_manifest(out)
    if manifest is None:
        raise InputMissingError(
            f"{out} has no manifest: no run has come to an end there",
            remedy="run the job first; then `batchllm consensus` shows what its answers agree on",
        )
    return manifest


def calls_usd(usage: pa.RecordBatch | pa.Table) -> Floats:
    """What each call cost, as the totals of a run count it: NaN where it was charged at a price that is not known.

    A call that came to nothing and of which nobody knows whether it was charged has cost nothing so far.
    """
    known = pc.if_else(
        pc.equal(usage.column("billed"), "yes"),
        usage.column("cost_usd"),
        usage.column("cost_usd").fill_null(0.0),
    )
    return _numbers(known)


def _add_usd(usd: Floats, of: pa.Array, costs: Floats) -> None:
    """Calls for rows that have left the input have none."""
    rows = _whole(of.fill_null(-1))
    known = (rows >= 0) & (rows < len(usd))
    np.add.at(usd, rows[known], costs[known])


def _placed(tables: list[pa.Table], first: int, size: int, fields: Sequence[pa.Field]) -> pa.Table:
    """The lines of rows first to first + size - 1, each row once, in order."""
    where = np.full(size, -1, np.int64)
    start = 0
    for table in tables:
        rows = _whole(table.column("row")) - first
        lines = np.flatnonzero((rows >= 0) & (rows < size))
        new = lines[where[rows[lines]] < 0]
        where[rows[new[::-1]]] = new[::-1] + start
        start += table.num_rows
    take = pa.array(where, mask=where < 0)
    columns = []
    for field in fields:
        pieces = [_piece(table, field) for table in tables]
        whole = (
            pa.chunked_array(pieces, field.type) if pieces else pa.chunked_array([pa.nulls(0, field.type)])
        )
        columns.append(whole.take(take) if len(whole) else pa.nulls(size, field.type))
    rows = pa.array(np.arange(first, first + size))
    return pa.Table.from_arrays([rows, *columns], names=["row", *(field.name for field in fields)])


def _piece(table: pa.Table, field: pa.Field) -> pa.Array:
    if field.name not in table.schema.names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name).cast(field.type)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _groups_with(metadata: pq.FileMetaData, first: int, end: int) -> list[int]:
    """The row groups that may hold lines of these rows, by their statistics."""
    at = next(index for index in range(metadata.num_columns) if metadata.schema.column(index).path == "row")
    found = []
    for group in range(metadata.num_row_groups):
        told = metadata.row_group(group).column(at).statistics
        if told is None or not told.has_min_max or (told.max >= first and told.min < end):
            found.append(group)
    return found


def _read_groups(file: pq.ParquetFile, path: Path, groups: list[int], names: list[str]) -> pa.Table:
    try:
        return file.read_row_groups(groups, columns=names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise damaged_part(path, error) from error


def _whole(column: pa.Array | pa.ChunkedArray) -> Rows:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.int64)


def _is_there(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(), np.bool_)


def _numbers(column: pa.Array) -> Floats:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False), np.float64)
