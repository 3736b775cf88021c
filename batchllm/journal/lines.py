"""Records as lines of the journal's tables, with what they add to the totals. Pure but for the bitmap it asks.

A unit that has its outcome already is left out and reported: the first answer stands, and the run stops, for
something was bought twice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from math import isfinite
from typing import Any

from batchllm.errors import InvariantError
from batchllm.journal.checksums import COLUMN, GATHERED, crc_of
from batchllm.journal.database import Counts
from batchllm.journal.finished import Finished
from batchllm.journal.tables import Line, checksum
from batchllm.records import AttemptRecord, JournalRecord, RowDone, RowFailed, RowSkipped

INSERTED = {
    "results": "row, slot, lane, key, carry, answer, finish_reason, model, prompt_tokens, completion_tokens,"
    " cost_usd, latency_ms, attempts, request_id, digest, body, crc",
    "failures": "row, slot, lane, key, class, message, status, attempts, digest, content, body",
    "attempts": "row, rows, lane, model, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,"
    " cost_usd, billed, status, class, latency_ms, started_at, request_id, ttft_ms",
    "skipped": "row, slot, key, digest",
}
#: Lines in one INSERT. Each statement gives up the interpreter lock once: with one line a statement, a busy event
#: loop holds the writer off for up to 5 ms a line (measured: 251 µs a line, with 64 together 21 µs). So many lines
#: stay below the 999 variables that SQLite takes before 3.32; by halves, 29 lines are two statements and not ten.
_TOGETHER = (52, 26, 13, 7, 4, 2, 1)
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)
#: A failure without a lane, where each lane has its own unit, stands for the whole row; so does one without a sample.
WHOLE_ROW = -1


def inserted(table: str) -> str:
    """The columns of a line, its checksum last."""
    return f"{INSERTED[table]}, {COLUMN}"


def insertable(table: str, line: Mapping[str, Any]) -> list[Any]:
    """The values of a line that was read, for `inserted`."""
    return [*line.values(), crc_of(*(line[name] for name in GATHERED[table].split(", ")))]


@cache
def statements(table: str) -> Sequence[tuple[int, str]]:
    """How many lines, and the INSERT for so many; largest first."""
    columns = inserted(table)
    holes = f"({', '.join('?' * len(columns.split(',')))})"
    return [
        (count, f"INSERT INTO {table} ({columns}) VALUES {', '.join([holes] * count)}")  # noqa: S608 - our names
        for count in _TOGETHER
    ]


@dataclass(slots=True)
class Harvest:
    """What one commit stores."""

    results: list[Line] = field(default_factory=list)
    failures: list[Line] = field(default_factory=list)
    attempts: list[Line] = field(default_factory=list)
    skipped: list[Line] = field(default_factory=list)
    units: set[int] = field(default_factory=set)
    added: Counts = field(default_factory=Counts)
    answer_bytes: int = 0
    failure_bytes: int = 0
    repeated: InvariantError | None = None

    def tables(self) -> list[tuple[str, list[Line]]]:
        return [
            ("results", self.results),
            ("failures", self.failures),
            ("attempts", self.attempts),
            ("skipped", self.skipped),
        ]


class Harvester:
    """`numbers` are the journal's numbers of this run's lanes; each gives a row so many `samples`."""

    def __init__(self, finished: Finished, numbers: Sequence[int], samples: int = 1) -> None:
        self._finished = finished
        self._slots = finished.slots
        self._numbers = numbers
        self._samples = samples
        self._has_lane_slots = finished.slots > samples

    def gather(self, records: Sequence[JournalRecord]) -> Harvest:
        """Raises UnicodeEncodeError for an answer with half characters in it: see `storable`."""
        harvest = Harvest()
        ok = failed = skipped = 0
        attempts: list[AttemptRecord] = []
        for record in records:
            if isinstance(record, RowDone):
                ok += self._add_done(harvest, record)
            elif isinstance(record, AttemptRecord):
                attempts.append(record)
            elif isinstance(record, RowFailed):
                failed += self._add_failed(harvest, record)
            else:
                skipped += self._add_skipped(harvest, record)
        added = self._add_attempts(harvest, attempts)
        harvest.added = added._replace(ok=ok, failed=failed, skipped=skipped)
        return harvest

    def _add_done(self, harvest: Harvest, record: RowDone) -> int:
        row, lane, answer, finish_reason, model, prompt, completion, cost, latency, *rest, sample = record
        ordinal, key, carry = row
        slot = self._slot(lane, sample) if self._slots > 1 else 0
        unit = ordinal * self._slots + slot
        if unit in harvest.units or self._finished.has_unit(unit):
            harvest.repeated = self._repeated("answer", ordinal, slot)
            return 0
        harvest.units.add(unit)
        told = (finish_reason, model, prompt, completion, _real(cost), _real(latency), *rest)
        crc, place = checksum(carry, answer), (ordinal, slot, self._number(lane), key)
        harvest.results.append((*place, carry, answer, *told, crc, crc_of(*place, *told, crc)))
        harvest.answer_bytes += len(answer) + len(carry) + len(record.body or "")
        return 1

    def _add_failed(self, harvest: Harvest, record: RowFailed) -> int:
        row, lane, code, message, status, attempts, digest, content, body, sample = record
        ordinal, key, _ = row
        if self._slots == 1:
            slot, units = 0, [ordinal]
        elif self._speaks_for_row(lane, sample):
            slot, units = WHOLE_ROW, self._finished.open_slots(ordinal)
        else:
            slot = self._slot(lane or 0, sample or 0)
            units = [ordinal * self._slots + slot]
        fresh = [unit for unit in units if unit not in harvest.units and not self._finished.has_unit(unit)]
        if not fresh:
            harvest.repeated = self._repeated("failure", ordinal, slot)
            return 0
        harvest.units.update(fresh)
        number = None if lane is None else self._number(lane)
        told = (str(code), message, _status(status), attempts, digest, content, body)
        harvest.failures.append(summed((ordinal, slot, number, key, *told)))
        harvest.failure_bytes += len(message) + len(content or "") + len(body or "")
        return len(fresh)

    def _add_skipped(self, harvest: Harvest, record: RowSkipped) -> int:
        (ordinal, key, _), slots, digest = record
        added = 0
        for slot in slots:
            unit = ordinal * self._slots + slot
            if unit in harvest.units or self._finished.has_unit(unit):
                harvest.repeated = self._repeated("outcome", ordinal, slot)
                continue
            harvest.units.add(unit)
            harvest.skipped.append(summed((ordinal, slot, key, digest)))
            added += 1
        return added

    def _add_attempts(self, harvest: Harvest, attempts: Sequence[AttemptRecord]) -> Counts:
        prompt = completion = unpriced = uncertain = 0
        cost = 0.0
        for record in attempts:
            # Exact text: sqlite3 looks for an adapter of every other class, enumerations included.
            billed, failure = str(record.billed), record.failure
            code = None if failure is None else str(failure)
            prompt += record.prompt_tokens or 0
            completion += record.completion_tokens or 0
            price = record.cost_usd
            if price is not None and isfinite(price):
                cost += price
            else:
                price = None
                unpriced += billed == "yes"
            if billed == "unknown":
                uncertain += 1
            lane = self._number(record.lane)
            latency, started, request_id, ttft = record[12:]
            told = (*record[:2], lane, *record[3:8], _real(price), billed, _status(record.status), code)
            harvest.attempts.append(summed((*told, _real(latency), _real(started), request_id, _real(ttft))))
        return Counts(0, 0, len(attempts), prompt, completion, cost, unpriced, uncertain)

    def _slot(self, lane: int, sample: int) -> int:
        return lane * self._samples + sample if self._has_lane_slots else sample

    def _speaks_for_row(self, lane: int | None, sample: int | None) -> bool:
        """Without samples it is the lane that is missing."""
        return (lane is None and self._has_lane_slots) or (sample is None and self._samples > 1)

    def _repeated(self, what: str, row: int, slot: int) -> InvariantError:
        lane, sample = divmod(slot, self._samples)
        place = f"row {row}"
        if slot != WHOLE_ROW and self._slots > 1:
            place += f", lane {lane}" if self._has_lane_slots else ""
            place += f", sample {sample + 1}" if self._samples > 1 else ""
        return InvariantError(
            f"{place} has its outcome already; a second {what} came in and was not stored",
            remedy="report this as a bug: a row was asked again that had been finished",
        )

    def _number(self, lane: int) -> int:
        if not 0 <= lane < len(self._numbers):
            raise InvariantError(f"a record names lane {lane}; this run has {len(self._numbers)}")
        return self._numbers[lane]


def _status(status: int | None) -> int | None:
    """Services put numbers of their own in place of a status; the column has 32 bits."""
    return status if status is None or -(2**31) <= status < 2**31 else None


def _real(value: float | None) -> float | None:
    """As a column of real numbers gives it back: SQLite knows no NaN, and no integers there."""
    return None if value is None or value != value else float(value)  # noqa: PLR0124 - only NaN differs from itself


def summed(line: Line) -> Line:
    """A line of failures, attempts or skipped with its checksum."""
    return (*line, crc_of(*line))


def flat(lines: Sequence[Line]) -> list[Any]:
    return list(chain.from_iterable(lines))


def storable(records: Sequence[JournalRecord]) -> list[JournalRecord]:
    """The records in what SQLite takes: no half characters, no integers beyond 64 bits.

    Half characters become U+FFFD. A key that is too long a number becomes text, any other one is unknown.
    """
    return [_storable_record(record) for record in records]


def _storable_record(record: JournalRecord) -> JournalRecord:
    if isinstance(record, AttemptRecord):
        return AttemptRecord(*(_storable(value) for value in record))
    row = record.row._replace(key=_storable(record.row.key, is_key=True))
    if isinstance(record, RowSkipped):
        return record._replace(row=row)
    values = (row, *(_storable(value) for value in record[1:]))
    return RowDone(*values) if isinstance(record, RowDone) else RowFailed(*values)


def _storable(value: Any, *, is_key: bool = False) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int) and value not in _INT64:
        return str(value) if is_key else None
    return value


def _clean(text: Any) -> Any:
    return _SURROGATE.sub("\ufffd", text)
