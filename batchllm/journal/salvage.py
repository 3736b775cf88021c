"""Lines of a journal that can be read but does not fit what lies beside it: what they hold was paid for.

Where a renewal was pending (see `batchllm.journal.pending`) the lines are of another input than the parts, and nobody
knows their places in it: they go behind its end, from where the next run fetches them by their keys.

Only a journal whose pages are whole is read: of a damaged page nobody knows which row an answer belongs to. What is in
a part already is left out, and so is an answer whose checksum does not fit.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.journal import pending
from batchllm.journal.database import Counts
from batchllm.journal.gathering import Gathered, Reader
from batchllm.journal.lines import INSERTED, WHOLE_ROW, insertable, inserted
from batchllm.journal.renewal import GONE
from batchllm.journal.snapshot import Snapshot
from batchllm.journal.tables import checksum
from batchllm.records import LaneInfo


def salvage(
    journal: Snapshot,
    connection: sqlite3.Connection,
    gathered: Gathered,
    reader: Reader,
    lanes: list[LaneInfo],
    rows: int,
) -> Counts:
    """Copy lines into the new journal's tables, and count them in `gathered`; returns the sums of their attempts.

    `lanes` are the new journal's, by number; those that only the old one knows are added. `rows` of the input.
    """
    numbers = _numbers(journal, lanes)
    lines = _Lines(journal, connection, numbers)
    if journal.meta(pending.NOTE) is not None:
        lines.rows = _Behind(max(rows, gathered.rows_end))
    for line in lines.of("results"):
        if checksum(line["carry"], line["answer"]) == line["crc"] and _is_new(gathered, line):
            gathered.ok += 1
            lines.insert("results", line)
    for line in lines.of("failures"):
        if line["slot"] == WHOLE_ROW:
            units = gathered.met.open_slots(line["row"])
            gathered.met.mark(units)
            if units:
                gathered.failed += len(units)
                lines.insert("failures", line)
        elif _is_new(gathered, line):
            gathered.failed += 1
            lines.insert("failures", line)
    for line in lines.of("skipped"):
        if _is_new(gathered, line):
            gathered.skipped += 1
            lines.insert("skipped", line)
    return _salvage_attempts(lines, gathered, reader)


def _salvage_attempts(lines: "_Lines", gathered: Gathered, reader: Reader) -> Counts:
    found = list(lines.of("attempts"))
    rows = pa.array([line["row"] for line in found], pa.int64())
    known: set[tuple[int, int]] = set()
    for part in gathered.parts["usage"] if found else ():
        attempts = reader.attempts([part])
        wanted = pc.is_in(attempts.column("row"), value_set=rows)
        for line in attempts.filter(wanted).to_pylist():
            known.add((line["row"], round(line["started_at"].timestamp() * 1e6)))
    sums = Counts()
    for line in found:
        if lines.rows is None and (line["row"], round((line["started_at"] or 0.0) * 1e6)) in known:
            continue
        lines.insert("attempts", line)
        sums = sums.plus(
            Counts(
                attempts=1,
                prompt_tokens=line["prompt_tokens"] or 0,
                completion_tokens=line["completion_tokens"] or 0,
                cost_usd=line["cost_usd"] or 0.0,
                unpriced=int(line["cost_usd"] is None and line["billed"] == "yes"),
                uncertain=int(line["billed"] == "unknown"),
            )
        )
    return sums


def _is_new(gathered: Gathered, line: dict[str, Any]) -> bool:
    unit = line["row"] * gathered.met.slots + line["slot"]
    if gathered.met.has_unit(unit):
        return False
    gathered.met.mark([unit])
    return True


def _numbers(journal: Snapshot, lanes: list[LaneInfo]) -> dict[int | None, int | None]:
    """Numbers of lanes in the old journal → in the new one."""
    numbers: dict[int | None, int | None] = {None: None}
    for number, lane in enumerate(journal.lanes):
        if lane not in lanes:
            lanes.append(lane)
        numbers[number] = lanes.index(lane)
    return numbers


class _Behind:
    """Rows that get new places from `end` on, in the order in which they come."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._places: dict[int, int] = {}

    def of(self, row: int, table: str) -> int:
        """Calls come last, and of a row that has no outcome they are nobody's."""
        if table == "attempts":
            return self._places.get(row, GONE)
        return self._places.setdefault(row, self._end + len(self._places))


class _Lines:
    """`rows`: where those of the old journal stand in the new one; None for where they stood."""

    def __init__(
        self, journal: Snapshot, connection: sqlite3.Connection, numbers: dict[int | None, int | None]
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._numbers = numbers
        self.rows: _Behind | None = None

    def of(self, table: str) -> Iterator[dict[str, Any]]:
        """All lines of a table, which its format may not have had yet; columns that it had not are None."""
        if not self._journal.has_table(table):
            return
        wanted = INSERTED[table].split(", ")
        there = {name for _, name, *_ in self._journal.rows(f"PRAGMA table_info({table})")}
        names = [name for name in wanted if name in there]
        for values in self._journal.stream(f"SELECT {', '.join(names)} FROM {table} ORDER BY seq"):  # noqa: S608
            line = dict(zip(names, values, strict=True))
            if self.rows is not None:
                line["row"] = self.rows.of(line["row"], table)
            yield {name: line.get(name) for name in wanted}

    def insert(self, table: str, line: dict[str, Any]) -> None:
        new = {"lane": self._numbers[line["lane"]]} if "lane" in line else {}
        values = insertable(table, {**line, **new})
        holes = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO {table} ({inserted(table)}) VALUES ({holes})", values)  # noqa: S608
