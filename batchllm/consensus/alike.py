"""Rows that are alike are counted once: five votes a row have a few hundred patterns, however many rows there are.

What the rules decide hangs on who agrees with whom, and not on the value that they agree on. So a vote is written as
the place of the first voter with the same one, and what is decided for a pattern holds for all rows that have it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchllm.consensus.votes import MISSING, Codes, Numbers

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Cells of a matrix worked on at a time: what is needed beside it stays small.
CELLS = 1 << 20
#: With more voters than these, sorting finds equal votes faster than comparing each with each.
_MOST_COMPARED = 32
_MOST_KEYS = 1 << 62


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """The different rows of a matrix: `rows` (patterns × columns), the pattern of each row, and how many have it."""

    rows: Codes
    of_row: Ints
    counts: Ints


def pieces(rows: int, columns: int) -> Iterator[slice]:
    """Rows in runs of about `CELLS` cells."""
    step = max(1, CELLS // max(1, columns))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


def alike(values: Codes | Numbers, cast: Bools) -> Codes:
    """Each vote as the place of the first voter of its row that voted the same; -1 where none was cast."""
    same = np.full(values.shape, MISSING, np.int32)
    for piece in pieces(*values.shape):
        compare = _compared if values.shape[1] <= _MOST_COMPARED else _sorted
        compare(values[piece], cast[piece], same[piece])
    return same


def _compared(values: Codes | Numbers, cast: Bools, same: Codes) -> None:
    columns = np.ascontiguousarray(values.T)
    for voter, column in enumerate(columns):
        place = np.full(len(column), voter, np.int32)
        for earlier in range(voter - 1, -1, -1):  # the first one is written last
            place[columns[earlier] == column] = earlier
        same[:, voter] = np.where(cast[:, voter], place, MISSING)


def _sorted(values: Codes | Numbers, cast: Bools, same: Codes) -> None:
    order = np.argsort(values, axis=1, kind="stable")  # equal ones in the order of the voters
    ranked = np.take_along_axis(values, order, axis=1)
    starts = np.ones(ranked.shape, np.bool_)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    at = np.maximum.accumulate(np.where(starts, np.arange(ranked.shape[1]), 0), axis=1)
    np.put_along_axis(same, order, np.take_along_axis(order, at, axis=1).astype(np.int32), axis=1)
    same[~cast] = MISSING


def distinct_rows(codes: Codes) -> DistinctRows:
    """The different rows of a matrix of codes, of which -1 is the least."""
    rows = len(codes)
    key, span = np.zeros(rows, np.int64), 1
    for column in codes.T:
        width = int(column.max(initial=MISSING)) + 2
        if span * width > _MOST_KEYS:
            key, span = _closed_up(key, span)
        key *= width
        key += column
        key += 1
        span *= width
    of_row, found = _closed_up(key, span)
    one_each = np.zeros(found, np.int64)
    one_each[of_row] = np.arange(rows)
    return DistinctRows(codes[one_each], of_row, np.bincount(of_row, minlength=found))


def _closed_up(key: Ints, span: int) -> tuple[Ints, int]:
    """The keys, all below `span`, numbered from 0 without gaps in their order; and how many numbers there are."""
    if span > max(CELLS, 4 * len(key)):
        found, number = np.unique(key, return_inverse=True)
        return number.astype(np.int64, copy=False), len(found)
    is_there = np.zeros(span, np.bool_)
    is_there[key] = True
    number = np.cumsum(is_there) - 1
    return number[key], int(number[-1]) + 1 if len(number) else 0
