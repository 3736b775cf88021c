"""Votes that mean the same are one vote: those of a row whose vectors are close.

Grouped by complete linkage: every two votes of a group have at least the threshold's cosine, so that a chain of small
steps never joins what is far apart. The closest groups are joined first. What a group is counted as is its leader, the
member closest to the centre of all of them (a text that was given twice counts twice). Cosines are compared in
millionths, and equal ones in an order that comes from the votes: who gave which vote makes no difference.
"""

import numpy as np
import numpy.typing as npt

from batchllm.consensus.alike import Bools, Ints
from batchllm.consensus.tallies import Floats
from batchllm.consensus.votes import MISSING, LabelVotes

#: Numbers of vectors held at a time.
_NUMBERS = 1 << 22
_DECIMALS = 6
Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def merged(votes: LabelVotes, vectors: Vectors, threshold: float) -> LabelVotes:
    """The same votes, each as the leader of its group. `vectors`: values × dimensions, one for each of the values.

    Of members equally close to the centre that one leads that comes first in `values`. Raises ValueError for vectors
    that are not as many as the values, or not finite.
    """
    if len(vectors) != len(votes.values):
        raise ValueError(f"{len(votes.values)} values need as many vectors, and there are {len(vectors)}")
    unfit = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(unfit):
        raise ValueError(f"the vector of {votes.values[unfit[0]]!r} is not finite")
    codes = votes.codes.copy()
    lengths = _lengths(vectors)
    differ = np.flatnonzero((codes.max(axis=1, initial=MISSING)[:, None] != codes).any(axis=1))
    for piece in _pieces(len(differ), codes.shape[1] * vectors.shape[1]):
        rows = differ[piece]
        ranked = np.sort(codes[rows], axis=1)
        order = np.argsort(codes[rows], axis=1, kind="stable")
        is_same = np.equal(ranked[:, :, None], ranked[:, None, :])
        cosines = np.where(is_same, 1.0, _cosines(vectors[ranked], lengths[ranked]))
        leader = np.take_along_axis(ranked, _leaders(cosines, ranked != MISSING, threshold), axis=1)
        ranked = np.where(ranked == MISSING, ranked, leader)
        part = np.empty_like(ranked)
        np.put_along_axis(part, order, ranked, axis=1)
        codes[rows] = part
    return LabelVotes(votes.voters, votes.values, codes)


def grouped(voters: tuple[str, ...], vectors: Vectors, threshold: float) -> LabelVotes:
    """Votes that are vectors themselves: rows × voters × dimensions; one with a number that is not finite is no vote.

    A vote's value is the name of the voter whose vector leads its group.
    """
    rows, count, dimensions = vectors.shape
    codes = np.full((rows, count), MISSING, np.int32)
    # A direction that no vector is likely to be orthogonal to: it puts the votes of a row in an order of their own.
    probe = np.cos(np.arange(1, dimensions + 1, dtype=np.float64) ** 2)
    for piece in _pieces(rows, count * dimensions):
        cast = np.asarray(np.isfinite(vectors[piece]).all(axis=2))
        part = np.where(cast[:, :, None], vectors[piece], 0)
        lengths = _lengths(part)
        order = np.argsort(np.round(part @ probe / lengths, _DECIMALS), axis=1, kind="stable")
        part = np.take_along_axis(part, order[:, :, None], axis=1)
        present = np.take_along_axis(cast, order, axis=1)
        cosines = _cosines(part, np.take_along_axis(lengths, order, axis=1))
        leader = np.take_along_axis(order, _leaders(cosines, present, threshold), axis=1)
        np.put_along_axis(codes[piece], order, np.where(present, leader, MISSING).astype(np.int32), axis=1)
    return LabelVotes(voters, voters, codes)


def _pieces(rows: int, width: int) -> list[slice]:
    step = max(1, _NUMBERS // max(1, width))
    return [slice(first, min(rows, first + step)) for first in range(0, rows, step)]


def _lengths(vectors: Vectors) -> Floats:
    """Of a vector of zeros, which is close to none, it is 1."""
    lengths: Floats = np.sqrt(np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64))
    return np.where(lengths > 0, lengths, 1)


def _cosines(vectors: Vectors, lengths: Floats) -> Floats:
    """Rows × members × members."""
    wide = vectors.astype(np.float64, copy=False)
    cosines = wide @ wide.transpose(0, 2, 1) / (lengths[:, :, None] * lengths[:, None, :])
    return np.round(cosines, _DECIMALS)


def _leaders(cosines: Floats, present: Bools, threshold: float) -> Ints:
    """Rows × members: the place of each one's leader; `present` tells which there are."""
    group = _groups(cosines, present, threshold)
    in_group = (group[:, :, None] == group[:, None, :]) & present[:, :, None] & present[:, None, :]
    nearness = np.round(np.where(in_group, cosines, 0).sum(axis=2), _DECIMALS)
    # Of each member, the nearest to the centre of its group: the first of several.
    leader: Ints = np.argmax(np.where(in_group, nearness[:, None, :], -np.inf), axis=2)
    return leader


def _groups(cosines: Floats, present: Bools, threshold: float) -> Ints:
    """Rows × members: the place of the first member of each one's group."""
    rows, members = present.shape
    group = np.tile(np.arange(members), (rows, 1))
    apart = ~present[:, :, None] | ~present[:, None, :] | ~np.tri(members, k=-1, dtype=np.bool_).T
    link = np.where(
        apart, -np.inf, cosines
    )  # of two groups at the places of their first members, the farther second
    least = np.round(threshold, _DECIMALS)
    active = np.arange(rows)
    while True:
        flat = link[active].reshape(len(active), -1)
        pair = np.argmax(flat, axis=1)
        is_close = flat[np.arange(len(active)), pair] >= least
        active, pair = active[is_close], pair[is_close]
        if not len(active):
            return group
        first, second = np.divmod(pair, members)
        part = group[active]
        group[active] = np.where(part == second[:, None], first[:, None], part)
        _join(link, active, first, second)


def _join(link: Floats, rows: Ints, first: Ints, second: Ints) -> None:
    """The second group of each row into the first; a link is at the lower place × the higher one."""
    members = link.shape[1]
    others = np.arange(members)
    one = link[rows[:, None], np.minimum(first[:, None], others), np.maximum(first[:, None], others)]
    two = link[rows[:, None], np.minimum(second[:, None], others), np.maximum(second[:, None], others)]
    farther = np.minimum(one, two)
    link[rows[:, None], np.minimum(first[:, None], others), np.maximum(first[:, None], others)] = farther
    link[rows, second, :] = -np.inf
    link[rows, :, second] = -np.inf
