"""What the votes of each row decide.

A value *leads* when no other has more votes (more weight, where voters have weights). What the rule needs beyond that
is its bar. A row is

- `too_few`   fewer votes than `min_votes` were cast;
- `decided`   one value leads and reaches the bar;
- `tied`      several lead: of majority, plurality, weighted; of at_least when they reach its bar;
- `undecided` the bar is not reached; of unanimous whenever two votes differ.

Tied and undecided rows are *open*, and `ties` says what becomes of them: with `first` the leading value decides that
the voter first in priority (of those that voted for a leading one) voted for; else they stay open, with the leading
values beside them, and `break_ties` lets another voter choose between these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import Codes, Numbers, Votes

Floats = npt.NDArray[np.float64]


class Status(IntEnum):
    """Lower case names are what the table says. `PENDING` is for rows whose votes may still come: nothing here sets it."""

    DECIDED = 0
    TIED = 1
    UNDECIDED = 2
    TOO_FEW = 3
    PENDING = 4


class By(IntEnum):
    """What decided: the rule of the terms, or what broke the tie."""

    NOTHING = 0
    RULE = 1
    FIRST = 2
    ESCALATED = 3
    JUDGE = 4


@dataclass(frozen=True, slots=True)
class Decisions:
    """One line for each row of the votes; arrays of that length unless said otherwise.

    `winner` and `leading` are of the votes' own kind: codes (places in `votes.values`; -1 is none), or numbers (NaN is
    none). `leading` has the leading values of row r at offsets[r]:offsets[r+1], codes ascending; it is empty without
    votes. With median and trimmed_mean it is the winner, and `share`, `margin` and `entropy` are NaN.
    """

    status: npt.NDArray[np.int8]  # of Status
    winner: Codes | Numbers  # none unless decided
    offsets: npt.NDArray[np.int64]  # rows + 1
    leading: Codes | Numbers
    cast: npt.NDArray[np.int32]  # votes, whatever their weight
    share: Floats  # of the weight cast, for the winner or (all the same) for each that leads; NaN without votes
    margin: Floats  # share minus that of the next value; 0 with a tie, the share itself where there is no other
    entropy: Floats  # bits, of the shares; NaN without votes
    by: npt.NDArray[np.int8]  # of By
    confidence: Floats  # probability of the winner by Dawid-Skene; NaN without


def decide(votes: Votes, terms: Terms, weights: Sequence[float] | None = None) -> Decisions:
    """What the votes of each row decide on these terms.

    `weights`: one for each voter, 0 is no say at all; they count with majority, plurality and weighted. What
    Dawid-Skene estimated may stand in their place: then the most probable value leads. A million rows of five votes take
    a second, and no array is larger than rows × voters, whatever the number of values.
    """
    raise NotImplementedError


def break_ties(decisions: Decisions, column: Codes | Numbers, by: By = By.ESCALATED) -> Decisions:
    """Let one more voter choose in the rows that are open: `column` has its votes (codes or numbers; -1 or NaN is none).

    A vote for a value that leads decides the row; any other leaves it open. Rows that are not open stay as they are.
    """
    raise NotImplementedError
