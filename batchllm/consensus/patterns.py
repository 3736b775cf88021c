"""Rows that are alike, counted once.

What a row adds to a statistic of agreement depends on its votes alone. A million rows of five votes for three labels
are at most 1,024 patterns, and all that is measured is measured on those.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchllm.consensus.votes import MISSING, Codes

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

#: Keys up to which counting into a table (32 MB) beats sorting: a million rows take 10 ms rather than 100 ms.
_TABLE_KEYS = 1 << 22
_MOST_KEYS = 1 << 62


@dataclass(frozen=True, slots=True)
class Patterns:
    """`codes`: patterns × voters, -1 missing, all below `values`. `counts`: how many rows are of each pattern."""

    codes: Codes
    counts: Floats
    values: int

    @property
    def cast(self) -> Floats:
        """Votes of a row of each pattern."""
        votes = np.zeros(len(self.codes))
        for column in self.codes.T:
            votes += column != MISSING
        return votes

    def with_votes(self, least: int) -> "Patterns":
        """Only what has so many votes. There are no more values than places for votes, in the same order."""
        kept = self.cast >= least
        is_all = bool(kept.all())
        codes, counts = (self.codes, self.counts) if is_all else (self.codes[kept], self.counts[kept])
        if self.values <= codes.size:
            return Patterns(codes, counts, self.values)
        places, values = renumbered(self.values, codes)
        return Patterns(places[codes], counts, values)

    def of(self, first: int, second: int) -> "Patterns":
        """The votes of two voters, each pattern once, unless there are about as many as rows."""
        pair = self.codes[:, [first, second]]
        if (self.values + 1) ** 2 > _TABLE_KEYS:
            return Patterns(pair, self.counts, self.values)
        return patterns_of(pair, self.values, self.counts)


def renumbered(values: int, *met: Codes) -> tuple[Codes, int]:
    """A new code for each old one (below `values`), without gaps and in the same order, and how many are met.

    The array's last is for -1. Codes that are not met have no new one.
    """
    is_met = np.zeros(values + 1, np.bool_)
    for codes in met:
        is_met[codes] = True
    is_met[MISSING] = False
    places = np.cumsum(is_met, dtype=np.int32) - np.int32(1)
    places[MISSING] = MISSING
    return places, int(np.count_nonzero(is_met))


def patterns_of(codes: Codes, values: int, counts: Floats | None = None) -> Patterns:
    """The different rows of `codes` (rows × voters, -1 missing, below `values`), in ascending order.

    `counts`: how often each row stands for itself (default: once). Rows come back as they are, alike or not, where so
    many votes of so many values do not fit into a number: that costs time and changes nothing that is measured.
    """
    rows, voters = codes.shape
    base = values + 1
    if base**voters > _MOST_KEYS:
        return Patterns(codes, np.ones(rows) if counts is None else counts, values)
    keys = np.zeros(rows, np.int64)
    for voter in range(voters):
        keys *= base
        keys += codes[:, voter]
        keys += 1
    found, found_counts = _counted(keys, base**voters, counts)
    patterns = np.empty((len(found), voters), np.int32)
    for voter in reversed(range(voters)):
        found, patterns[:, voter] = np.divmod(found, base)
    patterns += MISSING
    return Patterns(patterns, found_counts, values)


def _counted(
    keys: npt.NDArray[np.int64], space: int, counts: Floats | None
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The different keys (below `space`), ascending, and how often each occurs."""
    if space <= _TABLE_KEYS:
        table = np.bincount(keys, counts, space)
        met = np.flatnonzero(table)
        return met.astype(np.int64, copy=False), table[met].astype(np.float64, copy=False)
    if counts is None:
        found, times = np.unique(keys, return_counts=True)
        return found, times.astype(np.float64)
    found, places = np.unique(keys, return_inverse=True)
    return found, np.bincount(places, counts, len(found)).astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Tally:
    """How much of each value the patterns hold: vote v is `shares[v]` of `values[v]`, in pattern `patterns[v]`."""

    patterns: Places
    values: Codes
    shares: Floats
    sizes: tuple[int, int]

    def at(self, counts: Floats) -> Floats:
        """Resamples × patterns, how often each occurs → resamples × values, how much of each value that is."""
        return np.stack([self.of(one) for one in counts])

    def of(self, counts: Floats) -> Floats:
        """How much of each value, of patterns that occur so often. Of no votes numpy would count whole numbers."""
        found = np.bincount(self.values, counts[self.patterns] * self.shares, self.sizes[1])
        return found.astype(np.float64, copy=False)

    def back(self, by_value: Floats) -> Floats:
        """What is said of each value, added up over the votes of each pattern."""
        found = np.bincount(self.patterns, by_value[self.values] * self.shares, self.sizes[0])
        return found.astype(np.float64, copy=False)


def tally(codes: Codes, shares: Floats, values: int) -> Tally:
    """Of patterns × voters, where each vote of pattern p counts as `shares[p]`; a share of 0 leaves its votes out."""
    cast = np.not_equal(codes, MISSING) & np.not_equal(shares, 0)[:, None]
    patterns = np.nonzero(cast)[0]
    return Tally(patterns, codes[cast], shares[patterns], (len(codes), values))
