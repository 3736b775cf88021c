"""One pass over the consensus table, in bounded memory: its most contentious rows, and what the charts need of all.

A row is listed when its votes differ, when it is tied or undecided, when it is wrong against gold, or when too few
voted. These are three shelves of bounded length: *split* (votes differ, or nothing could be decided), *wrong* (all
agree on what is not gold; those would never come up among the split ones), *gaps* (too few votes). Each shelf keeps
what has the least margin, then the most entropy (numbers: the widest spread), then the earliest row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchllm.report.page.differences import Differences
from batchllm.report.page.entries import Columns, Entry, entries

#: More voters than these are not listed one by one anywhere on the page.
MOST_VOTERS = 64
_SLICE_ROWS = 65_536
_BINS = 10
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Margins:
    """Rows by margin: ten bins of a tenth and an eleventh for 1, × right, wrong, decided (gold unknown), open."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((_BINS + 1, 4), np.int64))


@dataclass(frozen=True, slots=True)
class Contention:
    """`entries`: what is listed, most contentious first; `found`: how many there are to list, by shelf."""

    columns: Columns
    voters: tuple[str, ...]
    rows: int
    entries: list[Entry]
    found: Mapping[str, int]
    margins: Margins
    differences: Differences | None


class _Shelf:
    """The `places` foremost rows of what was offered."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._order: Floats = np.empty((0, 3))
        self.entries: list[Entry] = []
        self.found = 0

    def offer(
        self, batch: pa.RecordBatch, chosen: Flags, order: Floats, columns: Columns, voters: dict[str, int]
    ) -> None:
        """`order`: rows of the batch × (margin, -doubt, row)."""
        places = np.flatnonzero(chosen)
        self.found += len(places)
        places = places[_first(order[places], self._places)]
        both = np.concatenate([self._order, order[places]])
        kept = _first(both, self._places)
        new = places[kept[kept >= len(self.entries)] - len(self.entries)]
        if len(new):
            made = dict(zip(new.tolist(), entries(batch.take(pa.array(new)), columns, voters), strict=True))
            old = len(self.entries)
            self.entries = [self.entries[at] if at < old else made[int(places[at - old])] for at in kept]
            self._order = both[kept]


def sift(batches: Iterable[pa.RecordBatch], places: int, voters: Iterable[str] = ()) -> Contention:
    """`places`: most rows listed; `voters`: those known, in the order of the page (others follow as met)."""
    sieve: _Sieve | None = None
    for batch in batches:
        sieve = sieve or _Sieve(batch.schema, places, list(voters)[:MOST_VOTERS])
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            sieve.add(batch.slice(start, _SLICE_ROWS))
    sieve = sieve or _Sieve(pa.schema([]), places, list(voters)[:MOST_VOTERS])
    return sieve.result()


class _Sieve:
    def __init__(self, schema: pa.Schema, places: int, voters: list[str]) -> None:
        self._columns = Columns(schema.names)
        self._voters = {name: place for place, name in enumerate(voters)}
        self._places = places
        self._shelves = {name: _Shelf(places) for name in ("split", "wrong", "gaps")}
        self._margins = Margins()
        self._rows = 0
        is_number = "consensus" in schema.names and pa.types.is_floating(schema.field("consensus").type)
        self._differences = Differences("gold" in schema.names) if is_number else None

    def add(self, batch: pa.RecordBatch) -> None:
        self._meet(batch)
        status = _column(batch, "status")
        doubt = _doubt(batch)
        margin = _floats(batch, "margin", 0.0)
        wrong = _is(batch, "correct", False)
        is_open = _is_in(status, ["tied", "undecided"])
        split = is_open | (doubt > 1e-9)
        gap = _is_in(status, ["too_few"]) & ~split
        order = np.column_stack([margin, -doubt, np.arange(self._rows, self._rows + batch.num_rows)])
        for name, chosen in (("split", split), ("wrong", wrong & ~split & ~gap), ("gaps", gap)):
            self._shelves[name].offer(batch, chosen, order, self._columns, self._voters)
        self._bin(batch, status, wrong)
        if self._differences is not None:
            self._differences.add(batch, self._voters, self._rows)
        self._rows += batch.num_rows

    def result(self) -> Contention:
        return Contention(
            self._columns,
            tuple(self._voters),
            self._rows,
            _shared(self._shelves, self._places),
            {name: shelf.found for name, shelf in self._shelves.items()},
            self._margins,
            self._differences,
        )

    def _meet(self, batch: pa.RecordBatch) -> None:
        votes = _column(batch, "votes")
        if votes is None or len(self._voters) >= MOST_VOTERS:
            return
        for name in pc.unique(pc.struct_field(votes.flatten(), "voter")).to_pylist():
            if name is not None and len(self._voters) < MOST_VOTERS:
                self._voters.setdefault(name, len(self._voters))

    def _bin(self, batch: pa.RecordBatch, status: pa.Array | None, wrong: Flags) -> None:
        margin = _floats(batch, "margin", np.nan)
        known = ~np.isnan(margin)
        right, decided = _is(batch, "correct", True), _is_in(status, ["decided"])
        kind = np.select([right, wrong, decided], [0, 1, 2], 3)
        place = np.clip((margin[known] * _BINS + 1e-9).astype(np.int64), 0, _BINS)
        np.add.at(self._margins.counts, (place, kind[known]), 1)


def _shared(shelves: Mapping[str, _Shelf], places: int) -> list[Entry]:
    """Split rows first; wrong ones are sure of a quarter of the places, gaps of an eighth, if there are so many."""
    sure = {"wrong": places // 4, "gaps": places // 8}
    held = {name: min(len(shelves[name].entries), share) for name, share in sure.items()}
    split = shelves["split"].entries[: places - sum(held.values())]
    wrong = shelves["wrong"].entries[: places - len(split) - held["gaps"]]
    return [*split, *wrong, *shelves["gaps"].entries[: places - len(split) - len(wrong)]]


def _first(order: Floats, places: int) -> npt.NDArray[np.intp]:
    return np.lexsort(order.T[::-1])[:places]


def _doubt(batch: pa.RecordBatch) -> Floats:
    """Entropy of the votes in bits; of numbers, how far the outermost are apart."""
    doubt = _floats(batch, "entropy", np.nan)
    if not np.isnan(doubt).any():
        return doubt
    return np.where(np.isnan(doubt), _spread(batch), doubt)


def _spread(batch: pa.RecordBatch) -> Floats:
    votes = _column(batch, "votes")
    spread = np.zeros(batch.num_rows)
    if votes is None or not pa.types.is_floating(votes.type.value_type.field("value").type):
        return spread
    lengths = pc.fill_null(pc.list_value_length(votes), 0).to_numpy(zero_copy_only=False)
    values = pc.struct_field(votes.flatten(), "value").to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp)
    some = lengths > 0
    if some.any():
        least = np.fmin.reduceat(values, starts[some])
        spread[some] = np.nan_to_num(np.fmax.reduceat(values, starts[some]) - least)
    return spread


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    return batch.column(name) if name in batch.schema.names else None


def _floats(batch: pa.RecordBatch, name: str, missing: float) -> Floats:
    column = _column(batch, name)
    if column is None:
        return np.full(batch.num_rows, missing)
    return np.asarray(pc.fill_null(column.cast(pa.float64()), missing).to_numpy(zero_copy_only=False))


def _is(batch: pa.RecordBatch, name: str, wanted: bool) -> Flags:
    column = _column(batch, name)
    if column is None or pa.types.is_null(column.type):
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(pc.fill_null(pc.equal(column, wanted), False).to_numpy(zero_copy_only=False))


def _is_in(status: pa.Array | None, wanted: list[str]) -> Flags:
    if status is None:
        return np.zeros(0, np.bool_)
    found = pc.is_in(status.cast(pa.string()), value_set=pa.array(wanted))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)
