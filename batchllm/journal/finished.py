"""Which units of work are finished: a bit each, 1.25 MB for ten million rows.

A unit is `row * slots + slot`. The bitmap is what refuses a second outcome of a unit: the journal's own UNIQUE
constraint forgets a row once it is drained into a part, the bitmap does not.
"""

from collections.abc import Callable, Iterable
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

#: A multiple of eight, so that pieces end with whole bytes.
_PIECE_ROWS = 1 << 17
#: Units that are marked together lie no further apart.
_WINDOW = 1 << 20
#: With fewer than one in so many marked, one by one is quicker.
_SPARSE = 4096


class Finished:
    """Read by the loop's thread, written by the writer's after each commit.

    `ok`, `failed`, `skipped` and `spent_usd` are what earlier runs left: they do not change while this one goes on.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.ok = 0
        self.failed = 0
        self.skipped = 0
        self.spent_usd = 0.0
        self._bits = bytearray()

    def has(self, row: int, slot: int = 0) -> bool:
        """Whether this row (in this slot, where a row has several answers) has its outcome."""
        return self.has_unit(row * self.slots + slot if self.slots > 1 else row)

    def has_unit(self, unit: int) -> bool:
        place = unit >> 3
        return place < len(self._bits) and bool(self._bits[place] >> (unit & 7) & 1)

    def has_row(self, row: int) -> bool:
        """Whether nothing is left to ask for this row."""
        return self.has_unit(row) if self.slots == 1 else not self.open_slots(row)

    def has_some(self, row: int) -> bool:
        """Whether it has an outcome at least."""
        return len(self.open_slots(row)) < self.slots

    def bits(self) -> bytearray:
        """A copy: a bit for each unit, lowest first."""
        return bytearray(self._bits)

    def rows(self, count: int) -> bytearray:
        """A bit for each of the first `count` rows, lowest first: whether nothing is left to ask for it."""
        return self._rows(count, pc.and_)

    def begun(self, count: int) -> bytearray:
        """The same: whether the row has an outcome in any of its slots."""
        return self._rows(count, pc.or_)

    def _rows(self, count: int, joined: Callable[[pa.Array, pa.Array], pa.Array]) -> bytearray:
        size = -(-count // 8)
        if self.slots == 1:
            return bytearray(self._bits[:size].ljust(size, b"\0"))
        units = pa.py_buffer(self._bits.ljust(-(-count * self.slots // 8), b"\0"))
        bits = bytearray()
        for first in range(0, count, _PIECE_ROWS):
            rows = min(_PIECE_ROWS, count - first)
            piece = pa.Array.from_buffers(
                pa.bool_(), rows * self.slots, [None, units], offset=first * self.slots
            )
            of_slots = [
                piece.take(pa.arange(slot, rows * self.slots, self.slots)) for slot in range(self.slots)
            ]
            bits += reduce(joined, of_slots).buffers()[1].to_pybytes()[: -(-rows // 8)]
        return bits

    def open_slots(self, row: int) -> list[int]:
        """Units of this row without an outcome."""
        first = row * self.slots
        return [unit for unit in range(first, first + self.slots) if not self.has_unit(unit)]

    def mark(self, units: Iterable[int]) -> None:
        bits = self._bits
        for unit in units:
            place = unit >> 3
            if place >= len(bits):
                self._reserve(place + 1)
            bits[place] |= 1 << (unit & 7)

    def mark_all(self, units: pa.Array) -> None:
        """Many of them (int64, no nulls), in any order."""
        if not len(units):
            return
        first, last = (int(edge.as_py()) for edge in pc.min_max(units).values())
        if last - first > _SPARSE * len(units):
            self.mark(units.to_pylist())
            return
        for start in range(first, last + 1, _WINDOW):
            is_here = pc.and_(pc.greater_equal(units, start), pc.less(units, start + _WINDOW))
            self._mark_near(units if last - first < _WINDOW else units.filter(is_here))

    def _mark_near(self, units: pa.Array) -> None:
        """Those of one window: a scatter takes eight bytes for each place between the first and the last."""
        if not len(units):
            return
        first, last = (int(edge.as_py()) for edge in pc.min_max(units).values())
        first &= ~7
        places = pc.subtract(units, first)
        flags = pc.scatter(pa.repeat(True, len(units)), places, max_index=last - first)
        data = pc.fill_null(flags, False).buffers()[1].to_pybytes()[: (last - first >> 3) + 1]
        start, end = first >> 3, (last >> 3) + 1
        self._reserve(end)
        both = int.from_bytes(self._bits[start:end], "little") | int.from_bytes(data, "little")
        self._bits[start:end] = both.to_bytes(end - start, "little")

    def mark_bits(self, bits: bytes, end: int) -> None:
        """Those that are set in `bits`, lowest first, up to, not including, the unit `end`."""
        whole, rest = divmod(end, 8)
        data = bytearray(bits[: whole + 1 if rest else whole])
        if rest and len(data) > whole:
            data[whole] &= (1 << rest) - 1
        self._reserve(len(data))
        here = int.from_bytes(self._bits[: len(data)], "little") | int.from_bytes(data, "little")
        self._bits[: len(data)] = here.to_bytes(len(data), "little")

    def mark_range(self, first: int, end: int) -> None:
        """All units from `first` up to, not including, `end`."""
        if end <= first:
            return
        self._reserve(-(-end // 8))
        head, tail = -(-first // 8), end // 8
        if head > tail:
            self.mark(range(first, end))
            return
        self.mark(range(first, head * 8))
        self._bits[head:tail] = b"\xff" * (tail - head)
        self.mark(range(tail * 8, end))

    def marked(self) -> int:
        """How many units are marked."""
        return int.from_bytes(self._bits, "little").bit_count()

    def marked_in(self, first: int, end: int) -> int:
        """How many units from `first` up to, not including, `end` are marked."""
        if end - first < 64:
            return sum(1 for unit in range(first, end) if self.has_unit(unit))
        low = first >> 3
        bits = int.from_bytes(self._bits[low : -(-end // 8)], "little") >> (first & 7)
        return (bits & ((1 << (end - first)) - 1)).bit_count()

    def _reserve(self, size: int) -> None:
        if size > len(self._bits):
            # Growing by halves keeps appending cheap; bytearray grows in place, so readers never see a gap.
            self._bits.extend(bytes(max(size, len(self._bits) * 3 // 2) - len(self._bits)))
