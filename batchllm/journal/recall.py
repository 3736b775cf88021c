"""What earlier runs finished, read back from the parts and the journal, and held against the totals.

Of a part only its row and lane columns are read, and not even these when its rows are known to be all of a range:
a complete record of ten million rows opens without reading any of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.database import Counts
from batchllm.journal.files import Kind
from batchllm.journal.finished import Finished
from batchllm.journal.lines import WHOLE_ROW
from batchllm.journal.parts import SOURCE_TABLE, PartInfo, Store, damaged_part, open_part
from batchllm.journal.renewal import Renewal, lines_left, moved_units

#: Tables whose lines are outcomes of units.
OUTCOMES: tuple[Kind, ...] = ("output", "failures", "skipped")
_BATCH_ROWS = 1 << 16
#: Units all over the input, as after a change of its order, cost a look at all of the bits between them.
_MARKED_AT_ONCE = 1 << 20


def recall(store: Store, counts: Counts) -> Finished:
    """Raises StorageError when parts and journal do not hold what the totals say."""
    finished = gather(store, {kind: store.parts(kind) for kind in OUTCOMES})
    finished.spent_usd = counts.cost_usd
    there = (finished.ok, finished.failed, finished.skipped)
    if (*there, finished.marked()) != (counts.ok, counts.failed, counts.skipped, counts.settled):
        skipped = (
            (f" and {counts.skipped} skipped units", f" ({there[2]})")
            if counts.skipped or there[2]
            else ("", "")
        )
        raise StorageError(
            f"the journal {store.database.path} and the parts beside it do not belong together: it counts"
            f" {counts.ok} answers and {counts.failed} failures{skipped[0]}; {there[0]} and {there[1]}{skipped[1]} are"
            f" there, for {finished.marked()} different units of work",
            remedy="put back the whole output folder, .batchllm included, as one run left it; or run"
            " `batchllm rebuild JOB`, which makes the journal anew from the parts",
        )
    return finished


def gather(
    store: Store, parts: Mapping[Kind, Sequence[PartInfo]], renewal: Renewal | None = None
) -> Finished:
    """What these parts and the journal's lines hold of outcomes. `renewal`: one that they have yet to go through."""
    finished = Finished(store.tables.slots)
    finished.ok = _mark_parts(store, parts["output"], finished)
    finished.failed = _mark_parts(store, parts["failures"], finished)
    finished.skipped = _mark_parts(store, parts["skipped"], finished)
    rows = _rows_without_lane(store, parts["failures"])
    if renewal is not None:
        _mark_failed_rows(finished, rows)
        finished, rows = renewed(store, parts, finished, renewal), []
    finished.ok += _mark_lines(store, "results", finished)
    finished.failed += _mark_lines(store, "failures", finished)
    finished.skipped += _mark_lines(store, "skipped", finished)
    _mark_failed_rows(finished, [*rows, *_lines_without_lane(store)])
    return finished


def renewed(
    store: Store, parts: Mapping[Kind, Sequence[PartInfo]], finished: Finished, renewal: Renewal
) -> Finished:
    """What of `finished`, which these parts hold, is left in the new input. Raises InvariantError, see `check_units`.

    Few parts are read: those of a record that was complete hold a line for each unit of a range.
    """
    now = moved_units(finished, renewal.places)
    now.ok = sum(_left(store, renewal, part) for part in parts["output"])
    now.skipped = sum(_left(store, renewal, part) for part in parts["skipped"])
    now.failed = finished.failed and now.marked() - now.ok - now.skipped
    now.spent_usd = finished.spent_usd
    if not 0 <= now.failed <= finished.failed:
        raise InvariantError(
            f"{finished.failed} failures would become {now.failed}; the record was left as it was"
        )
    check_units(now)
    return now


def _left(store: Store, renewal: Renewal, part: PartInfo) -> int:
    """How many lines of it."""
    left = lines_left(renewal.places, part, store.tables.slots)
    if left is None:
        return sum(renewal.moved(batch).num_rows for batch in _read(store, part))
    return left


def _mark_failed_rows(finished: Finished, rows: Iterable[int]) -> None:
    """Failures that speak for all that a row still owed."""
    for row in rows:
        units = finished.open_slots(row)
        finished.mark(units)
        finished.failed += len(units)


def failed_rows(store: Store) -> bytearray:
    """A bit for each row with a line in failures/, lowest first."""
    failed = Finished(1)
    for part in store.parts("failures"):
        for batch in _read(store, part):
            failed.mark(batch.column("row").to_pylist())
    failed.mark(row for (row,) in store.database.rows("SELECT row FROM failures"))
    return failed.bits()


def lines_among(store: Store, kind: Kind, rows: int, renewal: Renewal | None = None) -> int:
    """How many lines of output/ or skipped/ the first `rows` rows have. A part is read only where they end in it.

    `renewal`: one that the parts are yet to go through.
    """
    count: int = store.database.rows(
        f"SELECT count(*) FROM {SOURCE_TABLE[kind]} WHERE row < ?",  # noqa: S608 - our own names
        (rows,),
    )[0][0]
    for part in store.parts(kind):
        if renewal is not None and renewal.touches(part):
            for batch in _read(store, part):
                count += pc.sum(pc.less(renewal.moved(batch).column("row"), rows)).as_py() or 0
            continue
        if part.min_row is None or part.max_row is None or part.min_row >= rows:
            continue
        if part.max_row < rows:
            count += part.rows
            continue
        for batch in _read(store, part):
            count += pc.sum(pc.less(batch.column("row"), rows)).as_py() or 0
    return count


def rows_end(store: Store) -> int:
    """One more than the last row that has an outcome."""
    found = store.database.rows(
        "SELECT max(max_row) FROM parts WHERE state = 'committed' AND kind <> 'usage' UNION ALL"
        " SELECT max(row) FROM results UNION ALL SELECT max(row) FROM failures"
    )
    return 1 + max((row for (row,) in found if row is not None), default=-1)


def check_units(finished: Finished) -> None:
    """No unit of work may have two outcomes. Before a commit that would say so. Raises InvariantError."""
    outcomes, units = finished.ok + finished.failed + finished.skipped, finished.marked()
    if outcomes != units:
        raise InvariantError(
            f"{outcomes} outcomes for {units} units of work would be the record; it was left as it is",
            remedy="report this as a bug; nothing is lost",
        )


def runs(ranks: pa.Array) -> Iterator[tuple[int, int]]:
    """Numbers as ranges (end not included); few when they are nearly gapless and in order."""
    if not len(ranks):
        return
    steps = pc.subtract(ranks.slice(1), ranks.slice(0, len(ranks) - 1))
    breaks = pc.indices_nonzero(pc.not_equal(steps, 1)).to_pylist()
    firsts = ranks.take(pa.array([0, *(index + 1 for index in breaks)], pa.int64())).to_pylist()
    lasts = ranks.take(pa.array([*breaks, len(ranks) - 1], pa.int64())).to_pylist()
    for first, last in zip(firsts, lasts, strict=True):
        yield first, last + 1


def _mark_parts(store: Store, parts: Sequence[PartInfo], finished: Finished) -> int:
    count = waiting = 0
    together: list[pa.Array] = []
    for part in parts:
        if part.min_row is None or part.max_row is None:
            continue
        first, end = part.min_row * finished.slots, (part.max_row + 1) * finished.slots
        if part.rows == end - first and part.kind == "output":
            finished.mark_range(first, end)
            count += part.rows
            continue
        for batch in _read(store, part):
            units = store.tables.units(batch).drop_null()
            count += len(units)
            waiting += len(units)
            together.append(units)
            if waiting >= _MARKED_AT_ONCE:
                finished.mark_all(pa.concat_arrays(together))
                together, waiting = [], 0
    if together:
        finished.mark_all(pa.concat_arrays(together))
    return count


def _rows_without_lane(store: Store, failures: Sequence[PartInfo]) -> list[int]:
    """Rows of failures/ that failed for all lanes at once."""
    if store.tables.slots == 1:
        return []
    return [
        row
        for part in failures
        for batch in _read(store, part)
        for row in batch.filter(pc.is_null(store.tables.units(batch))).column("row").to_pylist()
    ]


def _read(store: Store, part: PartInfo) -> Iterator[pa.RecordBatch]:
    path = store.layout.part(part.kind, part.name)
    rows = 0
    with open_part(path) as file:
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=store.tables.of_row.columns):
                rows += batch.num_rows
                yield batch
        except (OSError, pa.ArrowException) as error:
            raise damaged_part(path, error) from error
    if rows != part.rows:
        raise damaged_part(path, ValueError(f"{rows} rows instead of {part.rows}"))


def _mark_lines(store: Store, table: str, finished: Finished) -> int:
    sql = f"SELECT row * ? + slot FROM {table} WHERE slot <> ?"  # noqa: S608 - our own names
    units = [unit for (unit,) in store.database.rows(sql, (finished.slots, WHOLE_ROW))]
    finished.mark(units)
    return len(units)


def _lines_without_lane(store: Store) -> list[int]:
    return [row for (row,) in store.database.rows("SELECT row FROM failures WHERE slot = ?", (WHOLE_ROW,))]
