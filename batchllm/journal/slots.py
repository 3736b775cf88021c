"""The answers that each row gets, numbered: a slot is one of `lanes`, or one of `samples`, or one sample of a lane.

A unit of work is `row * count + slot`. Slots go lane by lane, the samples of a lane together; so do the lines of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

LANE, SAMPLE = "lane", "sample"


@dataclass(frozen=True, slots=True)
class Slots:
    """`lanes` that each answer each row, in their order; none where any one lane answers. `samples` of each."""

    lanes: tuple[str, ...] = ()
    samples: int = 1

    @classmethod
    def of(cls, lanes: Sequence[str], count: int) -> "Slots":
        """What a record means that has `count` answers a row, and these lanes to give them."""
        return cls(tuple(lanes), count // (len(lanes) or 1))

    @property
    def count(self) -> int:
        return (len(self.lanes) or 1) * self.samples

    @property
    def columns(self) -> list[str]:
        """What of a line says which unit it is of."""
        return ["row", *([LANE] if self.lanes else []), *([SAMPLE] if self.samples > 1 else [])]

    def units(self, table: pa.Table | pa.RecordBatch) -> pa.Array:
        """Of each line of an outcome; null where it speaks for the whole row, or of a strange lane."""
        units = table.column("row")
        if self.lanes:
            names = pa.array(self.lanes, pa.string())
            lanes = pc.index_in(table.column(LANE), names).cast(pa.int64())
            units = pc.add(pc.multiply(units, len(names)), lanes)
        if self.samples > 1:
            samples = pc.subtract(table.column(SAMPLE).cast(pa.int64()), 1)
            units = pc.add(pc.multiply(units, self.samples), samples)
        return units.combine_chunks() if isinstance(units, pa.ChunkedArray) else units

    def lane(self, slot: int) -> str | None:
        """Whose it is; None where any lane answers."""
        return self.lanes[slot // self.samples] if self.lanes else None

    def sample_column(self, slots: Sequence[int]) -> list[pa.Array]:
        """The column `sample`, from 1 on, where there is one; null for what is below zero: a whole row."""
        if self.samples == 1:
            return []
        return [pa.array([None if slot < 0 else slot % self.samples + 1 for slot in slots], pa.int32())]

    def named(self, slot: int) -> str:
        """Where in a row; empty where a row has one answer."""
        said = [f"lane {self.lane(slot)}"] if self.lanes else []
        said += [f"sample {slot % self.samples + 1}"] if self.samples > 1 else []
        return ", ".join(said)
