"""The votes of each row counted: by value, by weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchllm.consensus.alike import Bools, Ints
from batchllm.consensus.votes import MISSING, Codes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tallies:
    """Of rows whose votes are written as the first voter with the same one. A value stands at that voter's place."""

    units: Ints  # rows × voters: the weight of the value
    heads: Ints  # rows × voters: who voted for it
    total: Ints  # of the weights cast
    cast: Ints
    lead: Ints  # the weight of what leads; 0 where nobody with weight has voted
    second: Ints  # that of the next; the same with a tie
    is_leading: Bools  # rows × voters
    leaders: Ints  # how many values lead

    @classmethod
    def of(cls, same: Codes, weights: Sequence[int] | None) -> "Tallies":
        """`same`: rows × voters; `weights`: units of each voter, or None for heads."""
        heads = _counted(same, [1] * same.shape[1])
        units = heads if weights is None else _counted(same, weights)
        lead = units.max(axis=1)
        is_leading = (units == lead[:, None]) & (units > 0)
        leaders = np.count_nonzero(is_leading, axis=1)
        rest = np.where(is_leading, 0, units).max(axis=1)
        second = np.where(leaders > 1, lead, rest)
        return cls(
            units,
            heads,
            units.sum(axis=1),
            heads.sum(axis=1),
            lead,
            second,
            is_leading,
            leaders.astype(np.int64),
        )

    @property
    def share(self) -> Floats:
        """Of each that leads."""
        return _shares(self.lead, self.total)

    @property
    def margin(self) -> Floats:
        return _shares(self.lead - self.second, self.total)

    @property
    def entropy(self) -> Floats:
        """Bits, of the shares."""
        shares = _shares(self.units, self.total[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.where(self.units > 0, shares * -np.log2(shares), 0.0).sum(axis=1)
        return np.where(self.total > 0, bits, np.nan)


def _counted(same: Codes, weights: Sequence[int]) -> Ints:
    counted = np.zeros(same.shape, np.int64)
    for voter, weight in enumerate(weights):
        voted = np.flatnonzero(same[:, voter] != MISSING)
        counted[voted, same[voted, voter]] += weight
    return counted


def _shares(part: Ints, total: Ints) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: Floats = part / total
    return shares
