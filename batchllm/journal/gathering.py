"""Which of the files in the folders make up the record, when no journal says so.

The parts of the last manifest come first. Later ones may lie beside them: a drain commits parts that only the next
manifest lists, and a completion leaves old and new parts side by side until it has tidied up. Each such file is all
new, and belongs to the record; or all of it is there already, and it is left over. What is neither is refused: nobody
can tell which of two outcomes of a row is the one that was kept.

Without a manifest the files are tried in the order in which they were made, and else in the opposite one: after a
completion that was cut off while it removed the old parts, the new ones have to come first.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import ChangedJobError, StorageError
from batchllm.journal.database import Counts
from batchllm.journal.files import KINDS, Kind, Layout
from batchllm.journal.findings import Finding
from batchllm.journal.finished import Finished
from batchllm.journal.identity import column_changes
from batchllm.journal.inspection import check_bytes, usage_sums
from batchllm.journal.manifest import Manifest
from batchllm.journal.parts import PartInfo, open_part
from batchllm.journal.recall import runs
from batchllm.journal.slots import Slots
from batchllm.records import LaneInfo

_BATCH_ROWS = 1 << 16
_OURS = re.compile(r"part-(\d{8,18})-[0-9a-f]{32}\.parquet")
#: What tells one attempt from another.
_ATTEMPT = ["row", "lane", "started_at"]
_EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class _ConflictError(Exception):
    """A file that holds some outcomes that are there already, and some that are not."""


class _File(NamedTuple):
    number: int
    kind: Kind
    path: Path


@dataclass(slots=True)
class Gathered:
    """`parts` make up the record; `bad` ones of the manifest cannot be used; `repeated` files hold nothing new.

    `has_more`: parts that no manifest lists are among them.
    """

    parts: dict[Kind, list[PartInfo]] = field(default_factory=dict)
    bad: list[Finding] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    has_more: bool = False
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    usage: Counts = field(default_factory=Counts)
    met: Finished = field(default_factory=lambda: Finished(1))

    @property
    def rows_end(self) -> int:
        """One more than the last row that is in a part."""
        return 1 + max(
            (part.max_row for parts in self.parts.values() for part in parts if part.max_row is not None),
            default=-1,
        )


def gather(reader: "Reader", manifest: Manifest | None) -> Gathered:
    """Read and check everything. Raises StorageError, and ChangedJobError for parts of other columns or lanes."""
    listed, bad = reader.listed(manifest)
    others, more_bad = reader.others({part.name for part in listed} | {finding.path.name for finding in bad})
    try:
        found = _Choice(reader, listed).choose(others)
    except _ConflictError as conflict:
        try:
            found = _Choice(reader, listed).choose(list(reversed(others)))
        except _ConflictError:
            raise StorageError(
                f"{conflict}: nobody can tell which of them counts",
                remedy="move one of the files away, and rebuild again; or put the journal back from a copy",
            ) from None
    found.bad = [*bad, *more_bad]
    return found


class Reader:
    """Reads parts, and knows which columns and lanes they may have."""

    def __init__(
        self,
        layout: Layout,
        schemas: Mapping[Kind, pa.Schema],
        of_row: Slots,
        lanes: Sequence[LaneInfo],
    ) -> None:
        self.layout = layout
        self.of_row = of_row
        self._schemas = schemas
        self._lanes = {(lane.name, lane.provider, lane.model) for lane in lanes}

    def listed(self, manifest: Manifest | None) -> tuple[list[PartInfo], list[Finding]]:
        """The parts of the manifest, and those of them that cannot be used."""
        parts: list[PartInfo] = []
        bad: list[Finding] = []
        for kind in KINDS:
            for entry in () if manifest is None else manifest.parts[kind]:
                path = self.layout.out / entry.path
                told = PartInfo(
                    number_of(path.name), kind, path.name, entry.rows, entry.bytes, entry.sha256, None, None
                )
                try:
                    check_bytes(path, told)
                    parts.append(self._with_rows(path, told))
                except StorageError as error:
                    bad.append(Finding(path, error.message, error.remedy, told))
        return parts, bad

    def others(self, known: set[str]) -> tuple[list[PartInfo], list[Finding]]:
        """Further files of our making, by their numbers; and those that cannot be read."""
        files = sorted(
            _File(number_of(path.name), kind, path)
            for kind in KINDS
            if self.layout.folder(kind).is_dir()
            for path in self.layout.folder(kind).iterdir()
            if path.name not in known and _OURS.fullmatch(path.name) and not path.is_symlink()
        )
        parts: list[PartInfo] = []
        bad: list[Finding] = []
        for number, kind, path in files:
            told = PartInfo(number, kind, path.name, 0, path.stat().st_size, "", None, None)
            try:
                parts.append(self._read_whole(path, told))
            except StorageError as error:
                bad.append(Finding(path, error.message, error.remedy, told))
        return parts, bad

    def batches(self, part: PartInfo, columns: Sequence[str]) -> list[pa.RecordBatch]:
        with open_part(self.layout.part(part.kind, part.name)) as file:
            return list(file.iter_batches(_BATCH_ROWS, columns=list(columns)))

    def units(self, part: PartInfo) -> tuple[pa.Array, list[int]]:
        """The units with an outcome in it, and the rows whose failure speaks for all lanes."""
        table = pa.Table.from_batches(self.batches(part, self.of_row.columns))
        units = self.of_row.units(table)
        if not units.null_count:
            return units, []
        return units.drop_null(), table.filter(pc.is_null(units)).column("row").to_pylist()

    def usage(self, part: PartInfo) -> Counts:
        sums = Counts()
        for batch in self.batches(part, ["prompt_tokens", "completion_tokens", "cost_usd", "billed"]):
            sums = sums.plus(usage_sums(batch))
        return sums

    def attempts(self, parts: Sequence[PartInfo]) -> pa.Table:
        batches = [batch for part in parts for batch in self.batches(part, _ATTEMPT)]
        schema = pa.schema([self._schemas["usage"].field(name) for name in _ATTEMPT])
        return pa.Table.from_batches(batches, schema)

    def check_lanes(self, part: PartInfo) -> None:
        """Without a manifest, the calls tell at least which models were asked."""
        batches = self.batches(part, ["lane", "provider", "model_asked"])
        if not batches:
            return
        table = pa.Table.from_batches(batches).group_by(["lane", "provider", "model_asked"]).aggregate([])
        for line in table.to_pylist():
            if (line["lane"], line["provider"], line["model_asked"]) not in self._lanes:
                raise ChangedJobError(
                    f"{self.layout.part('usage', part.name)} tells of calls to {line['model_asked']} of"
                    f" {line['provider']} (lane {line['lane']}), which the job does not name",
                    remedy="undo the change of providers, and rebuild again",
                )

    def _with_rows(self, path: Path, told: PartInfo) -> PartInfo:
        with open_part(path) as file:
            changes = column_changes(file.schema_arrow.remove_metadata(), self._schemas[told.kind])
            if changes:
                raise ChangedJobError(
                    f"the columns of {path} are not those of the job: {'; '.join(changes)}",
                    remedy="undo the change of key, carry, keep, schema or input columns, and rebuild again",
                )
            if file.metadata.num_rows != told.rows:
                raise StorageError(f"it has {file.metadata.num_rows:,} rows instead of {told.rows:,}")
        rows = [batch.column("row") for batch in self.batches(told, ["row"]) if batch.num_rows]
        if not rows:
            return told
        return told._replace(min_row=rows[0][0].as_py(), max_row=rows[-1][-1].as_py())

    def _read_whole(self, path: Path, told: PartInfo) -> PartInfo:
        """No checksum is known of it, so every page is read, and its own is compared."""
        try:
            with open_part(path) as file:
                rows = sum(batch.num_rows for batch in file.iter_batches(4096))
            with path.open("rb") as raw:
                digest = hashlib.file_digest(raw, "sha256").hexdigest()
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"it cannot be read: {error}") from error
        part = self._with_rows(path, told._replace(rows=rows, sha256=digest))
        if part.kind == "usage":
            self.check_lanes(part)
        return part


class _Choice:
    """One attempt at it, in one order."""

    def __init__(self, reader: Reader, listed: Sequence[PartInfo]) -> None:
        self._reader = reader
        self._met = Finished(reader.of_row.count)
        self._found = Gathered({kind: [] for kind in KINDS}, met=self._met)
        self._whole_rows: list[int] = []
        self._spans: dict[PartInfo, tuple[datetime, datetime]] = {}
        for part in listed:
            self._take(part, is_listed=True)

    def choose(self, others: Sequence[PartInfo]) -> Gathered:
        found = self._found
        # What was skipped at one time may have been asked later, so that answers come first.
        for part in sorted(others, key=lambda part: part.kind == "skipped"):
            if self._take(part, is_listed=False):
                found.has_more = True
            else:
                found.repeated.append(self._reader.layout.part(part.kind, part.name))
        for row in dict.fromkeys(self._whole_rows):
            units = self._met.open_slots(row)
            self._met.mark(units)
            found.failed += len(units)
        for parts in found.parts.values():
            parts.sort()
        return found

    def _take(self, part: PartInfo, *, is_listed: bool) -> bool:
        """Whether it is part of the record. A part without rows is, as long as it is the only one of its table."""
        if not part.rows:
            is_new = is_listed or not self._found.parts[part.kind]
        elif part.kind == "usage":
            is_new = is_listed or self._has_new_attempts(part)
        else:
            is_new = self._has_new_units(part)
        if is_new:
            self._found.parts[part.kind].append(part)
            if part.kind == "usage" and part.rows:
                self._spans[part] = self._span(self._reader.attempts([part]))
                self._found.usage = self._found.usage.plus(self._reader.usage(part))
        return is_new

    def _has_new_units(self, part: PartInfo) -> bool:
        units, whole_rows = self._reader.units(part)
        ranges = list(runs(units))
        again = sum(self._met.marked_in(first, end) for first, end in ranges)
        known = set(self._whole_rows)
        again += sum(1 for row in whole_rows if row in known)
        if again == part.rows or (again and part.kind == "skipped"):  # nothing was paid for what is in there
            return False
        if again:
            path = self._reader.layout.part(part.kind, part.name)
            raise _ConflictError(f"{again:,} of the {part.rows:,} rows of {path} are in another part as well")
        for first, end in ranges:
            self._met.mark_range(first, end)
        self._whole_rows += whole_rows
        if part.kind == "output":
            self._found.ok += len(units)
        elif part.kind == "skipped":
            self._found.skipped += len(units)
        else:
            self._found.failed += len(units)
        return True

    def _has_new_attempts(self, part: PartInfo) -> bool:
        """Drains go on in time, so only what overlaps with it in time has to be compared."""
        mine = self._reader.attempts([part])
        span = self._span(mine)
        near = [other for other, (first, last) in self._spans.items() if first <= span[1] and span[0] <= last]
        known = self._reader.attempts(near)
        again = mine.join(known, _ATTEMPT, join_type="left semi").num_rows if near else 0
        if again and again < part.rows:
            path = self._reader.layout.part(part.kind, part.name)
            raise _ConflictError(
                f"{again:,} of the {part.rows:,} calls in {path} are in another part as well"
            )
        return not again

    @staticmethod
    def _span(attempts: pa.Table) -> tuple[datetime, datetime]:
        ends = pc.min_max(attempts.column("started_at")).as_py()
        return ends["min"] or _EVER[0], ends["max"] or _EVER[1]


def number_of(name: str) -> int:
    """By which parts are ordered; 0 for a name that is not ours."""
    found = _OURS.fullmatch(name)
    return int(found[1]) if found is not None else 0
