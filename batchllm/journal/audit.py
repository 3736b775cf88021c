"""Is what lies in an output folder what was put there? Looked at from outside, and nothing is written.

    manifest and journal      readable, and they know of the same parts
    each part                 there, of its size, its bytes by SHA-256, its rows, the one schema of its table
    rows                      each unit of work once, in order, none outside the input
    counts and totals         what is counted is there, answer by answer, attempt by attempt

Every byte of the parts is read once for its checksum, which speaks for the pages too; of the columns only `row` (and
`lane` and `sample`, where a row has several answers) is read, and the tokens and money of usage/. Memory is a bit for
each unit of work.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchllm.errors import InputMissingError, LockedError, StorageError
from batchllm.journal import pending
from batchllm.journal.aside import is_putting_aside
from batchllm.journal.database import Counts
from batchllm.journal.files import BY_UNIT, KINDS, Kind, Layout, mapped_faults, wal_of
from batchllm.journal.findings import Audit, Finding
from batchllm.journal.finished import Finished
from batchllm.journal.inspection import inspected, same_schema, usage_sums
from batchllm.journal.lines import WHOLE_ROW
from batchllm.journal.lock import shared_lock
from batchllm.journal.manifest import Manifest, read_manifest
from batchllm.journal.parts import PartInfo
from batchllm.journal.recall import runs
from batchllm.journal.renewal import Renewal
from batchllm.journal.slots import Slots
from batchllm.journal.snapshot import Snapshot, opened, totals_differ
from batchllm.journal.wal import find_break

_BATCH_ROWS = 1 << 16
_USAGE_COLUMNS = ["row", "prompt_tokens", "completion_tokens", "cost_usd", "billed"]
_REBUILD = "run `batchllm rebuild JOB`, which makes the journal anew from the parts"
_DROP = (
    "put the file back from a copy, or run `batchllm rebuild JOB --drop-missing`: its rows are then asked,"
    " and paid for, again"
)


def audit(out: Path) -> Audit:
    """Raises LockedError while a run is at work, InputMissingError where there is nothing."""
    with shared_lock(out):
        return audit_locked(out)


def audit_locked(out: Path) -> Audit:
    """The same for a caller that holds the lock."""
    layout = Layout(out)
    found = Audit(out)
    _refuse_unsettled(layout)
    _read_manifest(found)
    try:
        with opened(layout) as journal:
            if journal is None:
                _note_missing_journal(found, layout)
                _audit_parts(found, layout, None)
                return found
            found.has_journal = found.is_journal_readable = True
            _look_for_losses(found, layout, journal)
            try:
                renewal = _pending(found, layout, journal)
            except StorageError as error:
                found.journal_faults.append(Finding(journal.path, error.message, error.remedy))
                _audit_parts(found, layout, None)
                return found
            _compare_parts(found, journal, is_moving=renewal is not None)
            _audit_parts(found, layout, journal, renewal)
    except StorageError as error:
        found.has_journal, found.is_journal_readable = True, False
        found.journal_faults.append(Finding(layout.database, error.message, error.remedy))
        _start_again(found)
        _audit_parts(found, layout, None)
    return found


def _look_for_losses(found: Audit, layout: Layout, journal: Snapshot) -> None:
    """What was committed and is not in what can be read, or would not be if SQLite played back the WAL."""
    with mapped_faults("read", layout.database):
        broken = find_break(layout.database)
    wal = wal_of(layout.database)
    if broken is not None and broken.is_certain:
        found.journal_faults.append(Finding(wal, f"{broken.text(wal)}: they were committed", broken.remedy))
        return
    if broken is not None:
        found.notes.append(
            f"{broken.text(wal)}: a transaction that was cut off; it counts as never committed"
        )
    try:
        journal.check_witness(layout)
    except StorageError as error:
        found.journal_faults.append(Finding(journal.path, error.message, error.remedy))


def _pending(found: Audit, layout: Layout, journal: Snapshot) -> Renewal | None:
    """A changed input that was taken up, and whose rows have not moved to their new places yet."""
    note = journal.meta(pending.NOTE)
    if note is None:
        return None
    renewal = pending.kept(layout, note)
    found.notes.append(
        "rows are on their way to other places: parts and manifest are still those of the input before; the next"
        " start goes on with it"
    )
    return renewal


def _start_again(found: Audit) -> None:
    """The journal turned out to be damaged on the way: what it said does not count."""
    found.part_faults, found.row_faults, found.strangers, found.notes = [], [], [], []
    found.files = found.bytes = found.ok = found.failed = found.skipped = found.in_journal = 0
    found.rows, found.usage = {}, Counts()


def _refuse_unsettled(layout: Layout) -> None:
    if is_putting_aside(layout):
        raise LockedError(
            f"an old record is being put aside in {layout.out}, and whoever did it was killed",
            remedy="start the job: that finishes the move; then verify again",
        )
    has_parts = any(any(layout.folder(kind).glob("*")) for kind in KINDS)
    traces = (layout.database, wal_of(layout.database), layout.witness, layout.manifest)
    if has_parts or any(path.exists() for path in traces):
        return
    what = "holds no output" if layout.out.is_dir() else "does not exist"
    raise InputMissingError(
        f"there is nothing to verify: {layout.out} {what}",
        remedy="name a job that has been run, or its output folder",
    )


def _read_manifest(found: Audit) -> None:
    try:
        found.manifest = read_manifest(found.out)
    except StorageError as error:
        found.manifest_faults.append(Finding(Layout(found.out).manifest, error.message, error.remedy))


def _note_missing_journal(found: Audit, layout: Layout) -> None:
    found.journal_faults.append(Finding(layout.database, "the journal is missing", _REBUILD))


def _compare_parts(found: Audit, journal: Snapshot, *, is_moving: bool) -> None:
    """What a manifest lists, the journal knows; the other way round holds once the next start has tidied up."""
    if found.manifest is None:
        if not found.manifest_faults:
            found.notes.append("there is no manifest: the next start writes it")
        return
    committed = {f"{part.kind}/{part.name}": part for kind in KINDS for part in journal.parts(kind)}
    listed = {entry.path: entry for entries in found.manifest.parts.values() for entry in entries}
    for path, entry in listed.items():
        part = committed.get(path)
        if part is not None and (part.rows, part.bytes, part.sha256) != (
            entry.rows,
            entry.bytes,
            entry.sha256,
        ):
            found.manifest_faults.append(
                Finding(
                    Layout(found.out).manifest,
                    f"it says other rows, bytes or checksum of {path} than the journal",
                    "remove the manifest and start the job again: it is written anew from the journal, at no cost",
                )
            )
    unknown = sorted(listed.keys() - journal.part_names())
    if unknown:
        found.journal_faults.append(
            Finding(
                journal.path,
                f"it does not know {unknown[0]}, which the manifest lists: it is older",
                _REBUILD,
            )
        )
    elif committed.keys() != listed.keys() or (
        found.manifest.complete and not journal.is_complete and not is_moving
    ):
        found.is_manifest_old = True
        found.notes.append("the manifest is older than the journal: the next start writes it anew")


def _audit_parts(
    found: Audit, layout: Layout, journal: Snapshot | None, renewal: Renewal | None = None
) -> None:
    known = _known_parts(found, journal)
    walk = _Walk(found, layout, journal, renewal)
    for kind in KINDS:
        walk.table(kind, known[kind])
    _find_strangers(found, layout, known, journal)
    if journal is not None:
        walk.lines(journal)
    walk.end()
    if not found.part_faults:
        _check_counts(found, journal, walk.before if renewal is not None else None)


def _known_parts(found: Audit, journal: Snapshot | None) -> Mapping[Kind, Sequence[PartInfo]]:
    if journal is not None:
        return {kind: journal.parts(kind) for kind in KINDS}
    if found.manifest is None:
        return {kind: [] for kind in KINDS}
    return {
        kind: [
            PartInfo(0, kind, Path(entry.path).name, entry.rows, entry.bytes, entry.sha256, None, None)
            for entry in found.manifest.parts[kind]
        ]
        for kind in KINDS
    }


def slots_of(manifest: Manifest | None, journal: Snapshot | None) -> Slots:
    """The answers that each row gets."""
    if journal is not None:
        return journal.of_row
    if manifest is None:
        return Slots()
    lanes = manifest.slots // manifest.samples
    names = dict.fromkeys(lane.name for lane in manifest.lanes) if lanes > 1 else ()
    return Slots(tuple(names)[:lanes], manifest.samples)


class _Walk:
    """One pass over all parts, table by table, with a bit for each unit that was met.

    With a `renewal` the parts are those of the input before; what counts is where their rows stand in the new one.
    `before` is what they held.
    """

    def __init__(
        self, found: Audit, layout: Layout, journal: Snapshot | None, renewal: Renewal | None
    ) -> None:
        self._found = found
        self._renewal = renewal
        self.before = Counts()
        self._layout = layout
        self._journal = journal
        manifest = found.manifest
        self._is_complete = (
            journal.is_complete if journal is not None else manifest is not None and manifest.complete
        )
        self._of_row = slots_of(manifest, journal)
        self._slots = self._of_row.count
        rows = manifest.rows if manifest is not None else None
        if found.is_manifest_old and journal is not None and renewal is None:
            rows = journal.input_rows
        self._units = None if rows is None else rows * self._slots
        self._met = Finished(self._slots)
        self._now = self._met if renewal is None else Finished(self._slots)
        self._whole_rows: list[int] = []
        self._last = -1

    def table(self, kind: Kind, parts: Sequence[PartInfo]) -> None:
        schema = self._journal.schema(kind) if self._journal is not None else None
        self._last = -1
        self._found.rows[kind] = 0
        for part in parts:
            path = self._layout.part(kind, part.name)
            if not self._is_complete:
                self._last = -1  # each part is in order for itself
            try:
                with inspected(path, part) as file:
                    schema = same_schema(file, schema)
                    self._rows(kind, path, file)
            except StorageError as error:
                self._found.part_faults.append(Finding(path, error.message, error.remedy or _DROP, part))
                continue
            self._found.files += 1
            self._found.bytes += part.bytes
            self._found.rows[kind] += part.rows

    def lines(self, journal: Snapshot) -> None:
        """What is in no part yet."""
        if self._renewal is not None:
            self._turn_to(self._renewal, journal)
        answers = 0
        for row, slot, is_sound in journal.answers():
            unit = row * self._slots + slot
            self._meet(journal.path, unit, unit + 1)
            answers += 1
            if not is_sound:
                message = f"{self._named(unit)}: the answer does not fit its checksum"
                self._found.journal_faults.append(Finding(journal.path, message, _REBUILD))
        failures = 0
        for row, slot in journal.failure_lines():
            if slot == WHOLE_ROW:
                self._whole_rows.append(row)
                continue
            self._meet(journal.path, row * self._slots + slot, row * self._slots + slot + 1)
            failures += 1
        skipped = journal.skipped_lines()
        for row, slot in skipped:
            self._meet(journal.path, row * self._slots + slot, row * self._slots + slot + 1)
        self._found.in_journal = answers + failures + len(skipped)
        self._found.skipped += len(skipped)
        self._found.ok += answers
        self._found.failed += failures
        self._found.usage = self._found.usage.plus(journal.usage())

    def end(self) -> None:
        """Failures that speak for a whole row take what no lane has answered."""
        for row in self._whole_rows:
            units = self._met.open_slots(row)
            self._met.mark(units)
            self._found.failed += len(units)

    def _turn_to(self, renewal: Renewal, journal: Snapshot) -> None:
        """The lines are of the new input."""
        rows = pa.array(self._whole_rows, pa.int64())
        for row, place in zip(self._whole_rows, renewal.places.of(rows).to_pylist(), strict=True):
            units = self._met.open_slots(row)
            self.before = self.before.plus(Counts(failed=len(units)))
            if place is not None:
                moved = [place * self._slots + unit % self._slots for unit in units]
                self._now.mark(moved)
                self._found.failed += len(moved)
        self._whole_rows = []
        self._met = self._now
        rows = journal.input_rows
        self._units = None if rows is None else rows * self._slots

    def _rows(self, kind: Kind, path: Path, file: pq.ParquetFile) -> None:
        columns = _USAGE_COLUMNS if kind == "usage" else self._of_row.columns
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            if kind == "usage":
                self._found.usage = self._found.usage.plus(usage_sums(batch))
                self._check_order(path, batch.column("row"), 0)
                continue
            units = self._of_row.units(batch)
            if kind in BY_UNIT:
                self._check_order(path, units, 1)
            else:
                self._check_order(path, batch.column("row"), 0)
            self._count(kind, path, batch, units)

    def _count(self, kind: Kind, path: Path, batch: pa.RecordBatch, units: pa.Array) -> None:
        if units.null_count:
            self._take_whole_rows(kind, path, batch.filter(pc.is_null(units)))
            units = units.drop_null()
        for first, end in runs(units):
            self._meet(path, first, end)
        now = units
        if self._renewal is not None:
            now = self._of_row.units(self._renewal.moved(batch)).drop_null()
            self._now.mark_all(now)
        self.before = self.before.plus(_counted(kind, len(units)))
        here = _counted(kind, len(now))
        self._found.ok += here.ok
        self._found.skipped += here.skipped
        self._found.failed += here.failed

    def _take_whole_rows(self, kind: Kind, path: Path, lines: pa.RecordBatch) -> None:
        name = self._of_row.columns[-1]  # lane, or sample: null where the whole row failed
        strange = lines.filter(pc.is_valid(lines.column(name)))
        if strange.num_rows or kind != "failures":
            row, *place = (lines.column(column)[0] for column in self._of_row.columns)
            named = zip(self._of_row.columns[1:], place, strict=True)
            said = ", ".join(f"{column} {value}" for column, value in named)
            self._complain(path, f"row {row}: the {said} is none of this job's")
        if kind == "failures":
            self._whole_rows += lines.filter(pc.is_null(lines.column(name))).column("row").to_pylist()

    def _meet(self, path: Path, first: int, end: int) -> None:
        if self._met.marked_in(first, end):
            unit = next(unit for unit in range(first, end) if self._met.has_unit(unit))
            self._complain(path, f"{self._named(unit)} has an outcome already, here is a second one")
        if self._units is not None and end > self._units:
            self._complain(path, f"{self._named(end - 1)} is beyond the input's last one")
        self._met.mark_range(first, end)

    def _check_order(self, path: Path, ranks: pa.Array, least: int) -> None:
        ranks = ranks.drop_null()
        if not len(ranks):
            return
        steps = pc.subtract(ranks.slice(1), ranks.slice(0, len(ranks) - 1))
        wrong = pc.index(pc.less(steps, least), True).as_py()
        if wrong >= 0 or ranks[0].as_py() - self._last < least:
            at = ranks[wrong + 1].as_py()
            shown = self._named(at) if least else f"row {at}"
            self._complain(path, f"{shown} stands behind a later one, or twice: the rows are not in order")
        self._last = ranks[-1].as_py()

    def _named(self, unit: int) -> str:
        row, slot = divmod(unit, self._slots)
        return ", ".join(filter(None, (f"row {row}", self._of_row.named(slot))))

    def _complain(self, path: Path, message: str) -> None:
        """Once a file: what follows is usually the same."""
        if all(finding.path != path for finding in self._found.row_faults):
            self._found.row_faults.append(
                Finding(path, message, "put the whole output folder back from a copy")
            )


def _counted(kind: Kind, units: int) -> Counts:
    if kind == "output":
        return Counts(ok=units)
    return Counts(skipped=units) if kind == "skipped" else Counts(failed=units)


def _find_strangers(
    found: Audit, layout: Layout, known: Mapping[Kind, Sequence[PartInfo]], journal: Snapshot | None
) -> None:
    paths = {layout.part(kind, part.name) for kind in KINDS for part in known[kind]}
    left = 0
    if journal is not None:
        unfinished = {layout.part(intent.kind, intent.name) for intent in journal.intents()}
        leaving = unfinished | {layout.out / path for path in journal.retired()}
        left = sum(1 for path in leaving - paths if path.exists())
        paths |= leaving
    for path in _present(layout):
        if path.suffix != ".parquet":
            continue  # readers of the folder pass it over
        if path not in paths:
            found.strangers.append(
                Finding(
                    path,
                    "nobody knows this file, and readers of the folder take it for a part",
                    "move it away",
                )
            )
    if left:
        found.notes.append(f"{left} files are left of a run that was killed: the next start removes them")


def _present(layout: Layout) -> Iterator[Path]:
    for kind in KINDS:
        if layout.folder(kind).is_dir():
            yield from sorted(layout.folder(kind).iterdir())


def _check_counts(found: Audit, journal: Snapshot | None, before: Counts | None) -> None:
    """`before`: what the parts hold of the manifest's input, where that is another one than the journal's."""
    here = found.usage._replace(ok=found.ok, failed=found.failed, skipped=found.skipped)
    if journal is not None:
        differs = totals_differ(journal.counts(), here.plus(journal.lost_usage))
        if differs is not None:
            found.journal_faults.append(
                Finding(journal.path, f"its totals do not fit the parts: {differs}", _REBUILD)
            )
    manifest = found.manifest
    if manifest is None or found.is_manifest_old:
        return
    for message in _manifest_faults(manifest, before or here, has_journal=journal is not None):
        found.manifest_faults.append(Finding(Layout(found.out).manifest, message, _REBUILD))


def _manifest_faults(manifest: Manifest, here: Counts, *, has_journal: bool) -> Iterator[str]:
    """A manifest may be older than the journal, never ahead of it; a complete one is exact."""
    told = Counts(manifest.ok, manifest.failed, skipped=manifest.skipped)
    if manifest.rows is not None:
        units = manifest.rows * manifest.slots
        pending = manifest.pending or 0
        if told.settled + pending != units:
            skipped = f", {told.skipped:,} skipped" if told.skipped else ""
            yield f"{told.ok:,} answers, {told.failed:,} failures{skipped} and {pending:,} pending are not {units:,}"
    if manifest.complete and told[:2] != here[:2]:
        yield (
            f"it counts {told.ok:,} answers and {told.failed:,} failures; {here.ok:,} and {here.failed:,} are there"
        )
    elif manifest.complete and told.skipped != here.skipped:
        yield f"it counts {told.skipped:,} skipped units; {here.skipped:,} are there"
    elif told.ok > here.ok:
        lost = "were in the journal, which is gone" if not has_journal else "are missing"
        yield f"it counts {told.ok:,} answers, {here.ok:,} are there: {told.ok - here.ok:,} {lost}"
