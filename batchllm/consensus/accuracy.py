"""How good the votes for labels are, against the right values: accuracy, macro F1, confusion, and figures by label.

The right value is gold where there is any, else what was agreed on; against the latter a voter that follows the others
looks good. Rows where either is missing say nothing. Votes that are numbers are in `deviation`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchllm.consensus.bootstrap import Estimate, Resampling, variance
from batchllm.consensus.patterns import Floats, Tally, patterns_of, renumbered, tally
from batchllm.consensus.sums import ratio
from batchllm.consensus.votes import Codes

#: The code of a right value that is none of the labels: no vote could have been right, so the row says nothing.
OUTSIDE = -2

NOTHING_TO_COMPARE = "no row has both a vote and a right value"


@dataclass(frozen=True, slots=True)
class ByLabel:
    """Figures of one label; precision None: never voted for, recall None: never right."""

    label: int
    precision: float | None
    recall: float | None
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Each different (right value, vote) met, and its rows; codes below `values`."""

    right: Codes
    voted: Codes
    counts: Floats
    values: int

    def labels(self) -> npt.NDArray[np.intp]:
        """Codes met on either side, ascending."""
        is_met = np.zeros(self.values, np.bool_)
        is_met[self.right] = is_met[self.voted] = True
        return np.flatnonzero(is_met)

    def accuracy(self, resampling: Resampling) -> Estimate:
        """Share of the rows where the vote is the right value."""
        hits = float(self.counts[self.right == self.voted].sum())
        misses = float(self.counts.sum()) - hits
        statistic = ratio(np.array([1.0, 0.0]), np.ones(2), np.array([hits, misses]), (0.0, 1.0))
        return resampling.estimate(statistic, NOTHING_TO_COMPARE)

    def macro_f1(self, resampling: Resampling) -> Estimate:
        """Mean F1 of the labels that are right or voted for somewhere, each counting the same."""
        places, labels = renumbered(self.values, self.right, self.voted)
        right, voted = places[self.right], places[self.voted]
        hits = tally(right[:, None], (right == voted).astype(np.float64), labels)
        sides = tally(np.column_stack([right, voted]), np.ones(len(right)), labels)
        statistic = _MacroF1(self.counts, hits, sides)
        return resampling.estimate(statistic, NOTHING_TO_COMPARE)

    def by_label(self) -> list[ByLabel]:
        """Of `labels()`."""
        hit = self.right == self.voted
        hits = np.bincount(self.right[hit], self.counts[hit], self.values)
        support = np.bincount(self.right, self.counts, self.values)
        votes = np.bincount(self.voted, self.counts, self.values)
        return [
            ByLabel(
                label=int(label),
                precision=float(hits[label] / votes[label]) if votes[label] else None,
                recall=float(hits[label] / support[label]) if support[label] else None,
                f1=float(2 * hits[label] / (support[label] + votes[label])),
                support=int(support[label]),
            )
            for label in self.labels()
        ]

    def table(self, labels: npt.NDArray[np.intp]) -> list[list[int]]:
        """Rows by (right value, vote), for these codes (ascending, all of `labels()` among them)."""
        table = np.zeros((len(labels), len(labels)), np.int64)
        table[np.searchsorted(labels, self.right), np.searchsorted(labels, self.voted)] = self.counts
        counts: list[list[int]] = table.tolist()
        return counts


def confusion(right: Codes, voted: Codes, values: int) -> Confusion:
    """Of the rows that have both; any negative code is none."""
    both = (right >= 0) & (voted >= 0)
    pairs = patterns_of(np.column_stack([right[both], voted[both]]), values)
    return Confusion(pairs.codes[:, 0], pairs.codes[:, 1], pairs.counts, values)


@dataclass(frozen=True, slots=True)
class _MacroF1:
    counts: Floats
    hits: Tally
    sides: Tally  # a row is on the side of its right value and on that of its vote
    bounds: tuple[float, float] = (0.0, 1.0)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        """Labels that a resample does not have do not count in it."""
        hits, sides = self.hits.at(counts), self.sides.at(counts)
        scores = np.divide(2 * hits, sides, out=np.zeros_like(hits), where=sides > 0)
        means: Floats = scores.sum(axis=1) / np.count_nonzero(sides, axis=1)
        return means

    def variance(self) -> float:
        hits, sides = self.hits.of(self.counts), self.sides.of(self.counts)
        by_row = self.hits.back(2 / sides) - self.sides.back(2 * hits / sides**2)
        return variance(by_row / len(sides), self.counts)
