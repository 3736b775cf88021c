"""What the votes of each row decide.

A value *leads* when no other has more votes (more weight, where voters have weights and the rule weighs them). What the
rule needs beyond that is its bar. A row is

- `too_few`   fewer votes than `min_votes` were cast;
- `decided`   one value leads and reaches the bar;
- `tied`      several lead: with majority, plurality, weighted; with at_least when they reach its bar;
- `undecided` the bar is not reached; with unanimous whenever two votes differ.

Tied and undecided rows are *open*, and `ties` says what becomes of them: with `first` that leading value decides for
which the voter has voted that is first in priority; else they stay open, with the leading values beside them, and
`break_ties` lets another voter choose between these. Median and trimmed mean decide every row with enough votes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from batchllm.ballot import WEIGHED, in_units
from batchllm.consensus.alike import Bools, Ints, alike, distinct_rows, pieces
from batchllm.consensus.dawid_skene import Estimate
from batchllm.consensus.tallies import Floats, Tallies
from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import MISSING, Codes, Numbers, NumberVotes, Votes

Small = npt.NDArray[np.int8]


class Status(IntEnum):
    """In lower case they are what the table says. PENDING, for votes that may still come, is not decided here."""

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
    none). `leading` has the leading values of row r at offsets[r]:offsets[r+1], ascending; it is empty without votes.
    With median and trimmed_mean it is the winner, and `share`, `margin` and `entropy` are NaN.
    """

    status: Small  # of Status
    winner: Codes | Numbers  # none unless decided
    offsets: Ints  # rows + 1
    leading: Codes | Numbers
    cast: npt.NDArray[np.int32]  # votes, whatever their weight
    share: (
        Floats  # of the weight cast, for the winner or (all the same) for each that leads; NaN without votes
    )
    margin: (
        Floats  # share minus that of the next value; 0 with a tie, the share itself where there is no other
    )
    entropy: Floats  # bits, of the shares; NaN without votes
    by: Small  # of By
    confidence: Floats  # probability of the winner by Dawid-Skene; NaN without

    @property
    def is_open(self) -> Bools:
        """Rows that another voter may settle."""
        is_open: Bools = (self.status == Status.TIED) | (self.status == Status.UNDECIDED)
        return is_open

    def taken(self, lines: Ints) -> "Decisions":
        """The lines at these places: what was decided for a pattern, for each row that has it."""
        lengths = np.diff(self.offsets)[lines]
        offsets = _offsets(lengths)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        leading = self.leading[np.repeat(self.offsets[:-1][lines], lengths) + within]
        names = [name for name in Decisions.__slots__ if name not in ("offsets", "leading")]
        columns = {name: getattr(self, name)[lines] for name in names}
        return Decisions(offsets=offsets, leading=leading, **columns)

    @classmethod
    def joined(cls, parts: Sequence["Decisions"]) -> "Decisions":
        """The lines of one after those of the other."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        names = [name for name in cls.__slots__ if name != "offsets"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(offsets=_offsets(lengths), **columns)


def decide(votes: Votes, terms: Terms, weights: Sequence[float] | Estimate | None = None) -> Decisions:
    """What the votes of each row decide on these terms.

    `weights`: one for each voter, 0 is no say at all; they count with majority, plurality and weighted. What
    Dawid-Skene has estimated may stand in their place: then the most probable value leads, which with a voter that is
    wrong by habit may be one that nobody voted for; share, margin and entropy are still those of the votes, weighed by
    the estimate's weights. No array is larger than rows × voters, whatever the number of values.

    Raises ValueError for weights that are not as many as the voters, or no numbers of 0 or more, and TypeError for a
    rule of numbers over labels or an estimate of labels over numbers.
    """
    if terms.rule in ("median", "trimmed_mean"):
        if not isinstance(votes, NumberVotes):
            raise TypeError(f"{terms.rule} is of numbers, and the votes are labels")
        return _middle(votes, terms)
    matrix = votes.numbers if isinstance(votes, NumberVotes) else votes.codes
    known = weights if isinstance(weights, Estimate) else None
    units = _units(weights.weights if isinstance(weights, Estimate) else weights, len(votes.voters), terms)
    if known is not None and known.model != "none" and terms.rule in WEIGHED:
        return _by_estimate(votes, terms, units, known)
    found = distinct_rows(alike(matrix, votes.cast))
    return _valued(_counted(found.rows, terms, units).taken(found.of_row), matrix)


def break_ties(decisions: Decisions, column: Codes | Numbers, by: By = By.ESCALATED) -> Decisions:
    """Let one more voter choose in the rows that are open: `column` has its votes.

    They are codes or numbers; -1 or NaN is none. A vote for a value that leads decides the row; any other leaves it
    open.
    """
    row_of = np.repeat(np.arange(len(column)), np.diff(decisions.offsets))
    chosen = np.zeros(len(column), np.bool_)
    chosen[row_of[decisions.leading == column[row_of]]] = True
    return _settled(decisions, column, chosen & decisions.is_open, by)


def overrule(decisions: Decisions, column: Codes | Numbers, by: By = By.JUDGE) -> Decisions:
    """What `column` votes for decides each row in which it has a vote, whether or not that value leads.

    Share, margin and entropy stay what the votes said.
    """
    return _settled(decisions, column, _is_value(column), by)


def _settled(decisions: Decisions, column: Codes | Numbers, rows: Bools, by: By) -> Decisions:
    return replace(
        decisions,
        status=np.where(rows, np.int8(Status.DECIDED), decisions.status),
        winner=np.where(rows, column, decisions.winner),
        by=np.where(rows, np.int8(by), decisions.by),
        confidence=np.where(rows & (column != decisions.winner), np.nan, decisions.confidence),
    )


def _is_value(column: Codes | Numbers) -> Bools:
    is_value: Bools = column >= 0 if column.dtype.kind == "i" else ~np.isnan(column)
    return is_value


def _units(weights: Sequence[float] | None, voters: int, terms: Terms) -> list[int] | None:
    if weights is None:
        return None
    if len(weights) != voters:
        raise ValueError(f"{len(weights)} weights for {voters} voters")
    units = in_units(weights)
    return units if terms.rule in WEIGHED else None


def _counted(same: Codes, terms: Terms, units: list[int] | None) -> Decisions:
    """Of patterns of agreement; winner and leading are places of voters."""
    parts = [_counted_part(same[piece], terms, units) for piece in pieces(*same.shape)]
    return Decisions.joined(parts) if parts else _counted_part(same, terms, units)


def _counted_part(same: Codes, terms: Terms, units: list[int] | None) -> Decisions:
    tallies = Tallies.of(same, units)
    status = _status(tallies, terms)
    is_decided = status == Status.DECIDED
    winner = np.where(is_decided, np.argmax(tallies.is_leading, axis=1), MISSING).astype(np.int32)
    by = np.where(is_decided, By.RULE, By.NOTHING).astype(np.int8)
    if terms.ties == "first":
        first = _first(same, tallies.is_leading, terms)
        chosen = (first != MISSING) & ((status == Status.TIED) | (status == Status.UNDECIDED))
        status[chosen], winner[chosen], by[chosen] = Status.DECIDED, first[chosen], By.FIRST
    return Decisions(
        status=status,
        winner=winner,
        offsets=_offsets(tallies.leaders),
        leading=np.nonzero(tallies.is_leading)[1].astype(np.int32),
        cast=tallies.cast.astype(np.int32),
        share=tallies.share,
        margin=tallies.margin,
        entropy=tallies.entropy,
        by=by,
        confidence=np.full(len(same), np.nan),
    )


def _status(tallies: Tallies, terms: Terms) -> Small:
    lead, is_single = tallies.lead, tallies.leaders == 1
    several = np.where(tallies.leaders > 1, Status.TIED, Status.UNDECIDED)
    match terms.rule:
        case "majority":
            reached = 2 * lead > tallies.total
        case "at_least":
            reached = lead >= (terms.at_least or 0)
            several = np.where(reached, several, Status.UNDECIDED)
        case "unanimous":
            reached = lead == tallies.cast
            several = np.full(len(lead), Status.UNDECIDED)
        case _:
            reached = np.ones(len(lead), np.bool_)
    status = np.where(reached & is_single, Status.DECIDED, several)
    return np.where(tallies.cast < terms.min_votes, Status.TOO_FEW, status).astype(np.int8)


def _first(same: Codes, is_leading: Bools, terms: Terms) -> Codes:
    """Of each row the leading value, as a place, that the first voter in priority voted for; -1 where none leads."""
    rows, voters = same.shape
    first = np.full(rows, MISSING, np.int32)
    ranks = terms.ranks(voters)
    for voter in sorted(range(voters), key=ranks.__getitem__, reverse=True):
        place = same[:, voter]
        votes_so = np.flatnonzero((place != MISSING) & is_leading[np.arange(rows), place])
        first[votes_so] = place[votes_so]
    return first


def _by_estimate(votes: Votes, terms: Terms, units: list[int] | None, known: Estimate) -> Decisions:
    if isinstance(votes, NumberVotes):
        raise TypeError("an estimate by Dawid-Skene is of labels, and the votes are numbers")
    if votes.values != known.values:
        raise ValueError("the estimate by Dawid-Skene is of other values than the votes are")
    found = distinct_rows(votes.codes)
    width = len(votes.voters) if known.error_rates is None else len(votes.values)
    cuts = list(pieces(len(found.rows), width)) or [slice(0)]
    parts = [_most_probable(found.rows[cut], terms, units, known) for cut in cuts]
    return Decisions.joined(parts).taken(found.of_row)


def _most_probable(codes: Codes, terms: Terms, units: list[int] | None, known: Estimate) -> Decisions:
    """Of patterns of votes; winner and leading are codes."""
    counted = _valued(_counted(alike(codes, codes != MISSING), replace(terms, ties="keep"), units), codes)
    likely = known.probabilities(codes)
    offsets, leading = likely.leading()
    has_votes = counted.cast > 0
    row_of = np.repeat(np.arange(len(codes)), np.diff(offsets))
    leading = leading[has_votes[row_of]]
    offsets = _offsets(np.where(has_votes, np.diff(offsets), 0))
    leaders = np.diff(offsets)
    enough = has_votes & (counted.cast >= terms.min_votes)
    status = np.where(leaders > 1, Status.TIED, Status.DECIDED)
    status = np.where(enough, status, Status.TOO_FEW).astype(np.int8)
    best = np.full(len(codes), MISSING, np.int32)
    best[leaders > 0] = leading[offsets[:-1][leaders > 0]]
    is_decided = status == Status.DECIDED
    by = np.where(is_decided, By.RULE, By.NOTHING).astype(np.int8)
    winner = np.where(is_decided, best, np.int32(MISSING))
    if terms.ties == "first":
        tied = np.flatnonzero(status == Status.TIED)
        first = _first_of(codes[tied], [leading[offsets[row] : offsets[row + 1]] for row in tied], terms)
        chosen = tied[first != MISSING]
        status[chosen], winner[chosen], by[chosen] = Status.DECIDED, first[first != MISSING], By.FIRST
    share, margin = _shares_of(np.where(winner == MISSING, best, winner), codes, units, counted)
    return replace(
        counted,
        status=status,
        winner=winner,
        offsets=offsets,
        leading=leading,
        share=share,
        margin=margin,
        by=by,
        confidence=np.where(winner == MISSING, np.nan, likely.best),
    )


def _first_of(codes: Codes, leading: Sequence[Codes], terms: Terms) -> Codes:
    """As `_first`, of the few patterns of which several values are even."""
    ranks = terms.ranks(codes.shape[1])
    first = np.full(len(codes), MISSING, np.int32)
    for row, values in enumerate(leading):
        votes_so = [voter for voter, code in enumerate(codes[row]) if code in values]
        if votes_so:
            first[row] = codes[row, min(votes_so, key=ranks.__getitem__)]
    return first


def _shares_of(
    values: Codes, codes: Codes, units: list[int] | None, counted: Decisions
) -> tuple[Floats, Floats]:
    """Share of these values, and margin before the best other: less than 0 where more weight was cast for another."""
    weights = np.asarray(units if units is not None else [1] * codes.shape[1], np.float64)
    total = (codes != MISSING) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        share = ((codes == values[:, None]) & (codes != MISSING)) @ weights / total
    is_top = share >= counted.share - 1e-12
    margin = np.where(is_top, counted.margin, share - counted.share)
    return share, margin


def _middle(votes: NumberVotes, terms: Terms) -> Decisions:
    """Median or trimmed mean. A result that is no finite number, as of infinite votes, decides nothing."""
    middle = np.full(len(votes.numbers), np.nan)
    cast = np.zeros(len(votes.numbers), np.int32)
    for piece in pieces(*votes.numbers.shape):
        ranked = np.sort(votes.numbers[piece], axis=1)  # NaN comes last
        cast[piece] = np.count_nonzero(~np.isnan(ranked), axis=1)
        off = (cast[piece] - 1) // 2
        if terms.rule == "trimmed_mean":
            off = np.floor(terms.trim * cast[piece] + 1e-9).astype(np.int32)  # 0.29 × 100 is 29
        middle[piece] = _mean_within(ranked, off, cast[piece] - off)
    enough = cast >= terms.min_votes
    is_decided = enough & np.isfinite(middle)
    status = np.where(enough, Status.UNDECIDED, Status.TOO_FEW)
    winner = np.where(is_decided, middle, np.nan)
    nothing = np.full(len(middle), np.nan)
    return Decisions(
        status=np.where(is_decided, Status.DECIDED, status).astype(np.int8),
        winner=winner,
        offsets=_offsets(is_decided.astype(np.int64)),
        leading=winner[is_decided],
        cast=cast,
        share=nothing,
        margin=nothing,
        entropy=nothing,
        by=np.where(is_decided, By.RULE, By.NOTHING).astype(np.int8),
        confidence=nothing,
    )


def _mean_within(ranked: Numbers, low: npt.NDArray[np.int32], high: npt.NDArray[np.int32]) -> Floats:
    """Of each row, the mean of its places from `low` to before `high`; NaN where there are none."""
    places = np.arange(ranked.shape[1])
    within = (places >= low[:, None]) & (places < high[:, None])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mean: Floats = np.where(within, ranked, 0).sum(axis=1) / (high - low)
    return mean


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def _valued(decisions: Decisions, matrix: Codes | Numbers) -> Decisions:
    """With the values of the votes for the places of their voters; those that lead a row in ascending order."""
    none = MISSING if matrix.dtype.kind == "i" else np.nan
    place = decisions.winner.astype(np.int64)
    voted = matrix[np.arange(len(matrix)), np.maximum(place, 0)]
    lengths = np.diff(decisions.offsets)
    row_of = np.repeat(np.arange(len(matrix)), lengths)
    leading = matrix[row_of, decisions.leading.astype(np.int64)]
    several = np.flatnonzero(lengths[row_of] > 1)
    order = several[np.lexsort((leading[several], row_of[several]))]
    leading[several] = leading[order]
    voted[place == MISSING] = none
    return replace(decisions, winner=voted, leading=leading)
