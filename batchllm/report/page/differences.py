"""Numbers against a reference, voter by voter: what a Bland-Altman plot shows. Fed in batches, bounded in memory.

The reference is gold where the table has it, else the consensus. Mean and spread are of all rows; points are thinned
by a scramble of the row's number, by half whenever there are too many: the same rows for the same table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: Points drawn for each voter: more only make the file heavy.
MOST_POINTS = 300
#: Knuth's multiplicative hash: rows in a regular pattern are spread evenly.
_SCRAMBLE = 2_654_435_761


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one voter: `n` votes with a reference, the mean of vote minus reference, and its standard deviation.

    `points`: (mean of vote and reference, vote minus reference).
    """

    voter: str
    n: int
    mean: float
    deviation: float
    points: tuple[tuple[float, float], ...]


class Differences:
    def __init__(self, has_gold: bool) -> None:
        self.reference = "gold" if has_gold else "consensus"
        self._sums: dict[int, npt.NDArray[np.float64]] = {}
        self._points: dict[int, npt.NDArray[np.float64]] = {}
        self._below: dict[int, int] = {}
        self._names: dict[int, str] = {}

    def add(self, batch: pa.RecordBatch, voters: Mapping[str, int], first_row: int) -> None:
        votes = batch.column("votes")
        flat = votes.flatten()
        lengths = pc.fill_null(pc.list_value_length(votes), 0).to_numpy(zero_copy_only=False)
        reference = batch.column(self.reference).cast(pa.float64()).to_numpy(zero_copy_only=False)
        against = np.repeat(reference, lengths)
        rows = np.repeat(np.arange(first_row, first_row + batch.num_rows), lengths)
        value = pc.struct_field(flat, "value").cast(pa.float64()).to_numpy(zero_copy_only=False)
        names = pc.struct_field(flat, "voter").cast(pa.string())
        cast = pc.equal(pc.struct_field(flat, "state").cast(pa.string()), "cast")
        usable = np.asarray(pc.fill_null(cast, False).to_numpy(zero_copy_only=False), np.bool_)
        usable &= np.isfinite(value) & np.isfinite(against)
        for name, place in voters.items():
            mine = usable & np.asarray(
                pc.fill_null(pc.equal(names, name), False).to_numpy(zero_copy_only=False)
            )
            if mine.any():
                self._names[place] = name
                self._count(place, rows[mine], value[mine], against[mine])

    def result(self) -> list[Difference]:
        return [self._of(place) for place in sorted(self._names)]

    def _of(self, place: int) -> Difference:
        n, total, squares = self._sums[place]
        mean = total / n
        variance = max(0.0, squares / n - mean * mean) * n / max(1.0, n - 1)
        points = self._points[place][:, 1:]
        return Difference(
            self._names[place], int(n), float(mean), float(variance**0.5), tuple(map(tuple, points.tolist()))
        )

    def _count(
        self,
        place: int,
        rows: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        against: npt.NDArray[np.float64],
    ) -> None:
        gap = value - against
        sums = np.array([len(gap), gap.sum(), (gap * gap).sum()])
        self._sums[place] = self._sums.get(place, np.zeros(3)) + sums
        below = self._below.get(place, 1 << 32)
        new = np.column_stack([rows * _SCRAMBLE % (1 << 32), (value + against) / 2, gap])
        points = np.concatenate([self._points.get(place, np.empty((0, 3))), new[new[:, 0] < below]])
        while len(points) > MOST_POINTS:
            below //= 2
            points = points[points[:, 0] < below]
        self._below[place], self._points[place] = below, points
