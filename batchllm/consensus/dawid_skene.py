"""Which values are right, and how each voter errs, from the votes alone (Dawid and Skene 1979).

Each row has one right value; each voter gives one that depends on the right one and on nothing else. Expectation
maximisation finds the error rates and the prior that best explain the votes, and with them how probable each value of
a row is. It starts from the shares of the votes, so that what most say is what is meant; the same votes give the same
estimate. Rows with the same votes are one pattern with a count, so that rows cost nothing.

Two models:

- `confusion`, the paper's: for each voter what it says of each right value;
- `one_coin`: for each voter how often it is right, errors spread evenly over the other values, all equally frequent.
  It takes the place of the first with many values (free text), where a table of values × values would be empty cells.

With one voter there is nothing to compare (model `none`); with two the split of their errors is arbitrary, and `why`
says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from batchllm.consensus.alike import DistinctRows, Ints, alike, distinct_rows, pieces
from batchllm.consensus.tallies import Floats, Tallies
from batchllm.consensus.votes import MISSING, Codes, LabelVotes
from batchllm.consensus.weighting import log_odds

#: With more values than these the model is one_coin.
MOST_VALUES = 50
#: Votes times values of an iteration. What has more patterns than that is estimated on some of its rows.
MOST_WORK = 10_000_000
MOST_ITERATIONS = 200
#: It has converged when no estimated probability moves by more than this in an iteration.
STILL = 1e-6
#: Votes added to each cell of an error table, and rows to each value: no probability is 0 for want of votes.
SMOOTHING = 0.01
#: Values of which the probabilities differ by less than this are equally probable.
EVEN = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """What best explains the votes. Voters that are samples of one lane share its error rates.

    `error_rates`: voters × right value × value said, each row of them adds up to 1; None without the model confusion.
    `accuracy`: how often a voter is right, over all rows. `weights`: its log-odds (see weighting), one for each voter.
    `why`: what is to be said against it; empty when nothing is.
    """

    values: tuple[str, ...]
    model: Literal["confusion", "one_coin", "none"]
    prior: Floats
    error_rates: Floats | None
    accuracy: Floats
    weights: tuple[float, ...]
    iterations: int
    converged: bool
    why: str = ""

    def probabilities(self, codes: Codes) -> "Probabilities":
        """Of each row of votes (codes of these voters)."""
        if self.error_rates is not None:
            return Probabilities(_explained(codes, self.prior, self.error_rates), None)
        same = alike(codes, codes != MISSING)
        return Probabilities(_by_coins(same, self.accuracy, len(self.values)), codes)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Rows × values; or, where `codes` are given, rows × voters: of the value that voter was the first to vote for."""

    table: Floats
    codes: Codes | None

    @property
    def best(self) -> Floats:
        """Of the most probable value; NaN where there are no votes."""
        best: Floats = self.table.max(axis=1)
        return best

    def leading(self) -> tuple[Ints, Codes]:
        """Offsets (rows + 1) and codes of the most probable values: more than one where they are even."""
        rows, places = np.nonzero((self.table >= (self.best - EVEN)[:, None]) & (self.table > 0))
        codes = places if self.codes is None else self.codes[rows, places]
        if self.codes is not None:
            codes = codes[np.lexsort((codes, rows))]
        offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(self.table)))))
        return offsets, codes.astype(np.int32)


def estimate(votes: LabelVotes, lanes: Sequence[int] | None = None, smoothing: float = SMOOTHING) -> Estimate:
    """The estimate for these votes. `lanes`: the lane of each voter, where several are samples of one.

    A million rows of five votes over three labels have a thousand patterns. Where they are more than `MOST_WORK`
    allows, the estimate is made on some of the rows, drawn at random, always the same ones, and `why` tells how many.
    At most `MOST_ITERATIONS` are made; `converged` tells whether that was enough.

    Raises ValueError for a code that is no place in the values, and for lanes that are not as many as the voters.
    """
    if lanes is not None and len(lanes) != len(votes.voters):
        raise ValueError(f"{len(votes.voters)} voters, and the lanes of {len(lanes)}")
    if votes.codes.max(initial=MISSING) >= len(votes.values):
        raise ValueError(f"a vote has the code {votes.codes.max()}, and there are {len(votes.values)} values")
    lane_of = np.arange(len(votes.voters)) if lanes is None else np.unique(lanes, return_inverse=True)[1]
    heard = len(np.unique(lane_of[votes.cast.any(axis=0)]))
    if heard < 2 or len(votes.values) < 2:
        why = "there is one value alone" if heard >= 2 else _ALONE[heard]
        return _nothing_to_compare(votes, f"Dawid-Skene: {why}")
    why = "Dawid-Skene: between two voters it cannot tell who errs" if heard == 2 else ""
    is_confusion = len(votes.values) <= MOST_VALUES
    matrix = _in_lane_order(votes.codes, lane_of) if is_confusion else alike(votes.codes, votes.cast)
    matrix = matrix[(matrix != MISSING).any(axis=1)]  # a row without votes says nothing of anybody
    found = distinct_rows(matrix)
    work = found.rows.size * (len(votes.values) if is_confusion else 1)
    if work > MOST_WORK:
        some = np.random.default_rng(0).choice(len(matrix), len(matrix) * MOST_WORK // work, replace=False)
        found = distinct_rows(matrix[np.sort(some)])
        told = f"Dawid-Skene: estimated on {len(some):,} of {len(matrix):,} rows"
        why = f"{why}; {told}" if why else told
    model = _confusion if is_confusion else _one_coin
    return model(votes, found, lane_of, smoothing, why)


_ALONE = ("nobody has voted", "one voter alone has nobody to be compared with")


def _nothing_to_compare(votes: LabelVotes, why: str) -> Estimate:
    voters, values = len(votes.voters), len(votes.values)
    prior = np.full(values, 1 / max(1, values))
    nobody = np.full(voters, np.nan)
    return Estimate(votes.values, "none", prior, None, nobody, (1.0,) * voters, 0, converged=True, why=why)


def _in_lane_order(codes: Codes, lane_of: Ints) -> Codes:
    """The samples of a lane in the order of their values: which of them said what makes no difference."""
    ordered = codes.copy()
    for lane, size in enumerate(np.bincount(lane_of)):
        if size > 1:
            ordered[:, lane_of == lane] = np.sort(codes[:, lane_of == lane], axis=1)
    return ordered


def _confusion(votes: LabelVotes, found: DistinctRows, lane_of: Ints, smoothing: float, why: str) -> Estimate:
    values = len(votes.values)
    explained = _vote_shares(found.rows, values)
    prior, rates = _errors(found, explained, lane_of, smoothing)
    iterations, converged = 0, False
    while not converged and iterations < MOST_ITERATIONS:
        explained = _explained(found.rows, prior, rates[lane_of])
        new_prior, new_rates = _errors(found, explained, lane_of, smoothing)
        moved = max(np.abs(new_prior - prior).max(), np.abs(new_rates - rates).max())
        prior, rates = new_prior, new_rates
        iterations, converged = iterations + 1, bool(moved <= STILL)
    why = _unsettled(why, converged)
    by_voter = rates[lane_of]
    accuracy = np.einsum("k,vkk->v", prior, by_voter)
    weights = tuple(float(weight) for weight in log_odds(accuracy, values))
    return Estimate(votes.values, "confusion", prior, by_voter, accuracy, weights, iterations, converged, why)


def _unsettled(why: str, converged: bool) -> str:
    """What moves still after so many iterations may come to rest elsewhere: random votes, or a voter that is wrong."""
    told = f"Dawid-Skene: it has not come to rest after {MOST_ITERATIONS} iterations, so do not build on it"
    return why if converged else "; ".join(filter(None, (why, told)))


def _vote_shares(codes: Codes, values: int) -> Floats:
    shares = np.zeros((len(codes), values))
    for column in codes.T:
        voted = np.flatnonzero(column != MISSING)
        shares[voted, column[voted]] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _errors(found: DistinctRows, explained: Floats, lane_of: Ints, smoothing: float) -> tuple[Floats, Floats]:
    """The prior, and lanes × right value × value said, that explain the votes best if these are the right values."""
    values = explained.shape[1]
    counted = explained * found.counts[:, None]
    prior = counted.sum(axis=0) + smoothing
    rates = np.full((int(lane_of.max()) + 1, values, values), float(smoothing))
    for lane, column in zip(lane_of, found.rows.T, strict=True):
        said = column + 1  # 0 is no vote
        for right in range(values):
            rates[lane, right] += np.bincount(said, counted[:, right], values + 1)[1:]
    total = rates.sum(axis=2, keepdims=True)
    # A value that is never right, unsmoothed, has no rates: any will do.
    rates = np.divide(rates, total, out=np.full_like(rates, 1 / values), where=total > 0)
    return prior / prior.sum(), rates


def _explained(codes: Codes, prior: Floats, rates: Floats) -> Floats:
    """Rows × values: how probable each is, given the votes and the rates of each voter."""
    with np.errstate(divide="ignore"):
        logs, start = np.log(rates), np.log(prior)
    table = np.empty((len(codes), len(prior)))
    for piece in pieces(len(codes), len(prior)):
        likely = np.tile(start, (len(codes[piece]), 1))
        for voter, column in enumerate(codes[piece].T):
            voted = np.flatnonzero(column != MISSING)
            likely[voted] += logs[voter].T[column[voted]]
        likely -= likely.max(axis=1, keepdims=True)
        np.exp(likely, out=likely)
        table[piece] = likely / likely.sum(axis=1, keepdims=True)
    return table


def _one_coin(votes: LabelVotes, found: DistinctRows, lane_of: Ints, smoothing: float, why: str) -> Estimate:
    """Who agrees with whom is all that it needs: the patterns are those of agreement, few even for free text."""
    values = len(votes.values)
    accuracy, iterations, converged = _agreeing(found, lane_of, smoothing, None, values), 0, False
    while not converged and iterations < MOST_ITERATIONS:
        new = _agreeing(found, lane_of, smoothing, accuracy, values)
        moved = np.abs(new - accuracy).max()
        accuracy, iterations, converged = new, iterations + 1, bool(moved <= STILL)
    why = _unsettled(why, converged)
    prior = np.full(values, 1 / values)
    weights = tuple(float(weight) for weight in log_odds(accuracy, values))
    return Estimate(votes.values, "one_coin", prior, None, accuracy, weights, iterations, converged, why)


def _agreeing(
    found: DistinctRows, lane_of: Ints, smoothing: float, accuracy: Floats | None, values: int
) -> Floats:
    """How often each voter is right if the values are as probable as `accuracy` says (None: as their votes' shares)."""
    right, seen = np.zeros(len(lane_of)), np.zeros(len(lane_of))
    for same, counts in _portions(found):
        if accuracy is None:
            tallies = Tallies.of(same, None)
            table = tallies.heads / tallies.cast[:, None]
        else:
            table = _by_coins(same, accuracy, values)
        for voter, place in enumerate(same.T):
            voted = np.flatnonzero(place != MISSING)
            right[voter] += float(counts[voted] @ table[voted, place[voted]])
            seen[voter] += float(counts[voted].sum())
    by_lane = np.bincount(lane_of, right) + smoothing / values  # who has never voted is at chance
    new: Floats = by_lane / (np.bincount(lane_of, seen) + smoothing)
    return np.clip(new, 1e-9, 1 - 1e-9)[lane_of]


def _portions(found: DistinctRows) -> Iterator[tuple[Codes, Ints]]:
    for piece in pieces(*found.rows.shape):
        yield found.rows[piece], found.counts[piece]


def _by_coins(same: Codes, accuracy: Floats, values: int) -> Floats:
    """Rows × voters: how probable the value is that this voter was the first to vote for; 0 elsewhere.

    What is left to 1 is for the values that nobody voted for.
    """
    gain = np.log(accuracy * (values - 1) / (1 - accuracy))
    table = np.empty(same.shape)
    for piece in pieces(*same.shape):
        part = same[piece]
        likely, is_named = np.zeros(part.shape), np.zeros(part.shape, np.bool_)
        for voter, place in enumerate(part.T):
            voted = np.flatnonzero(place != MISSING)
            likely[voted, place[voted]] += gain[voter]
            is_named[voted, place[voted]] = True
        top = np.maximum(likely.max(axis=1, keepdims=True), 0)
        odds = np.where(is_named, np.exp(likely - top), 0)
        unnamed = (values - is_named.sum(axis=1, keepdims=True)) * np.exp(-top)
        table[piece] = odds / (odds.sum(axis=1, keepdims=True) + unnamed)
    return table
