"""Votes as a matrix: rows × voters.

A voter is a lane, one of its samples (`lane#2`), an escalation lane, or a file of votes from elsewhere. Values of
nominal and ordinal votes are codes into `values`; numbers are themselves. A vote that is missing is -1 as a code and
NaN as a number: a failed call, a voter that was not asked, a row that a file does not have.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.float64]

MISSING = -1


@dataclass(frozen=True, slots=True)
class LabelVotes:
    """`codes`: rows × voters, places in `values`; the values are in their order where they have one."""

    voters: tuple[str, ...]
    values: tuple[str, ...]
    codes: Codes

    @property
    def cast(self) -> npt.NDArray[np.bool_]:
        """Rows × voters: who has voted."""
        return np.not_equal(self.codes, MISSING)


@dataclass(frozen=True, slots=True)
class NumberVotes:
    """`numbers`: rows × voters; NaN is no vote."""

    voters: tuple[str, ...]
    numbers: Numbers

    @property
    def cast(self) -> npt.NDArray[np.bool_]:
        """Rows × voters: who has voted."""
        return np.logical_not(np.isnan(self.numbers))


Votes = LabelVotes | NumberVotes
