"""Which rows of an input were in the one before it: by their marks, ten million in seconds and within 100 MB.

A mark is 64 bits that stand for all of a row (see `batchllm.source.marks`). Rows that stayed where they were need one
comparison of memory: all of the old ones when rows were added at the end, all but a few when a few have changed. The
rest is looked up share by share, so that no more than half a million of each are sorted at a time. By numpy, which
Arrow brings along: its sort takes a quarter of the time of Arrow's.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PIECE_ROWS = 1 << 17
_NARROW_ROWS = 2**31 - 1
#: In the place of the ordinal of a row that is not there.
_NOWHERE = -1
Ordinals: TypeAlias = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of an input's rows: `read(first, end)` gives those as uint64, without nulls; 0 is like no other."""

    rows: int
    read: Callable[[int, int], pa.Array]

    def pieces(self, start: int) -> Iterator[tuple[int, pa.Array]]:
        """From `start` on, each with the ordinal of its first row."""
        for first in range(start, self.rows, PIECE_ROWS):
            yield first, self.read(first, min(self.rows, first + PIECE_ROWS))


@dataclass(frozen=True, slots=True)
class Matches:
    """Ordinals of the old rows that new rows are: `head` rows at the beginning are the same in both.

    `tail` has the old ordinal, or null, of each new row after them.
    """

    head: int
    tail: pa.Array

    @property
    def rows(self) -> int:
        """How many new rows were matched."""
        return self.head + len(self.tail) - int(self.tail.null_count)

    def unmatched(self) -> pa.Array:
        """The new rows that are nowhere in the old input, by ordinal."""
        return pc.add(pc.indices_nonzero(self.tail.is_null()).cast(pa.int64()), self.head)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of the old input stand in the new one: the first `head` where they were, the others by `tail`."""

    head: int
    tail: pa.Array

    @property
    def rows(self) -> int:
        """Of the old input."""
        return self.head + len(self.tail)

    def left(self, first: int, end: int) -> int:
        """How many of the rows from `first` up to `end` are somewhere."""
        start = min(max(first, self.head), end)
        return end - first - int(self.tail.slice(start - self.head, end - start).null_count)

    @property
    def end(self) -> int:
        """One more than the last new row that one of them is."""
        last = pc.max(self.tail).as_py()
        return self.head if last is None else max(self.head, int(last) + 1)

    def of(self, rows: pa.Array) -> pa.Array:
        """The new ordinals (int64) of old ones; null for a row that is gone."""
        is_head = pc.less(rows, self.head)
        at = pc.if_else(is_head, pa.scalar(None, rows.type), pc.subtract(rows, self.head))
        return pc.if_else(is_head, rows, self.tail.take(at).cast(pa.int64()))

    def keep(self, first: int, end: int) -> bool:
        """Whether the rows from `first` up to `end` all stay where they are."""
        if end <= self.head:
            return True
        start = max(first, self.head)
        piece = self.tail.slice(start - self.head, end - start)
        stay = pa.arange(start, end, 1).cast(piece.type)
        return len(piece) == len(stay) and bool(piece.equals(stay))

    def with_pairs(self, old: pa.Array, new: pa.Array) -> "Places":
        """As these, and each of `old`, which was nowhere and not in the head, is where `new` says."""
        if not len(old):
            return self
        at = pc.subtract(old, self.head).cast(self.tail.type)
        more = pc.scatter(new.cast(self.tail.type), at, max_index=len(self.tail) - 1)
        return Places(self.head, pc.coalesce(self.tail, more))

    def gone(self) -> pa.Array:
        """The old rows that are nowhere, by ordinal."""
        return pc.add(pc.indices_nonzero(self.tail.is_null()).cast(pa.int64()), self.head)


def places_of(matches: Matches, old_rows: int) -> Places:
    """`matches` the other way round."""
    tail, rest = matches.tail, old_rows - matches.head
    if not rest or not len(tail):
        return Places(matches.head, pa.nulls(rest, tail.type))
    if not matches.head:  # 80 MB less at ten million rows
        return Places(0, pc.inverse_permutation(tail, max_index=rest - 1))
    at = pc.subtract(tail, pa.scalar(matches.head, tail.type))
    inverse = pc.inverse_permutation(at, max_index=rest - 1)
    return Places(matches.head, pc.add(inverse, pa.scalar(matches.head, inverse.type)))


def match_marks(old: Marks, new: Marks, *, looked_up_at_once: int = 1 << 19) -> Matches:
    """Each new row with the old one that stood in its place and had its mark, else with the only one of its mark.

    Marks that occur twice among the rest match nothing.
    """
    head = _common_head(old, new)
    is_narrow = max(old.rows, new.rows) < _NARROW_ROWS
    found: Ordinals = np.full(new.rows - head, _NOWHERE, np.int32 if is_narrow else np.int64)
    stayed = _note_stayed(old, new, head, found)
    moved = old.rows - head - stayed
    if moved and stayed < len(found):
        shares = 1 << max(0, (moved - 1) // looked_up_at_once).bit_length()
        for share in range(shares):
            olds, news = _look_up(
                _share(_moved(old, head, found), share, shares),
                _share(_moved(new, head, found), share, shares),
            )
            found[news - head] = olds
    return Matches(head, _placed(found))


def _note_stayed(old: Marks, new: Marks, head: int, found: Ordinals) -> int:
    """The rows from `head` on that are where they were, into `found`; returns how many."""
    count = 0
    both = min(old.rows, new.rows)
    for first in range(head, both, PIECE_ROWS):
        end = min(both, first + PIECE_ROWS)
        at = np.flatnonzero(_same(old.read(first, end), new.read(first, end)))
        found[first - head + at] = first + at
        count += len(at)
    return count


def _moved(marks: Marks, head: int, found: Ordinals) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Marks in pieces, each with the ordinal of its first row; unknown those of rows that stayed where they were."""
    for first, piece in marks.pieces(head):
        values = _numbers(piece)
        here = found[first - head : first - head + len(values)]
        is_same = here == np.arange(first, first + len(here))
        if is_same.all() and len(here) == len(values):
            continue
        if is_same.any():
            values = values.copy()
            values[: len(here)][is_same] = 0
        yield first, values


def _placed(found: Ordinals) -> pa.Array:
    """As Arrow has it, without a copy."""
    kind = pa.from_numpy_dtype(found.dtype)
    is_valid = np.packbits(found != _NOWHERE, bitorder="little")
    return pa.Array.from_buffers(kind, len(found), [pa.py_buffer(is_valid), pa.py_buffer(found)])


def _common_head(old: Marks, new: Marks) -> int:
    most = min(old.rows, new.rows)
    for start in range(0, most, PIECE_ROWS):
        end = min(most, start + PIECE_ROWS)
        is_same = _same(old.read(start, end), new.read(start, end))
        if not is_same.all():
            return start + int(np.argmin(is_same))
    return most


def _same(old: pa.Array, new: pa.Array) -> NDArray[np.bool_]:
    one, other = _numbers(old), _numbers(new)
    is_same: NDArray[np.bool_] = np.logical_and(one == other, one != 0)
    return is_same


def _numbers(marks: pa.Array) -> NDArray[np.uint64]:
    return np.asarray(marks.to_numpy(zero_copy_only=True))


def _share(
    pieces: Iterable[tuple[int, NDArray[np.uint64]]], share: int, shares: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Marks whose lowest bits are `share`, and the ordinals of their rows; `pieces` each with the first one."""
    values, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for first, piece in pieces:
        is_here = (piece & np.uint64(shares - 1)) == share
        if not share:  # where the unknown ones are
            is_here &= piece != 0
        at = np.flatnonzero(is_here)
        values.append(piece[at])
        places.append(first + at)
    return np.concatenate(values), np.concatenate(places)


def _look_up(
    old: tuple[NDArray[np.uint64], NDArray[np.int64]], new: tuple[NDArray[np.uint64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Old and new ordinals of the pairs. By sorting: a hash table takes six times the memory of what is in it.

    Equal marks stand side by side then; a pair is a run of two, one of each.
    """
    marks = np.concatenate([old[0], new[0]])
    order = np.argsort(marks)
    marks = marks[order]
    is_next_same = np.zeros(
        len(marks) + 1, np.bool_
    )  # `[at]`: whether the marks before it and at it are the same
    is_next_same[1:-1] = marks[1:] == marks[:-1]
    is_two = is_next_same[1:-1] & ~is_next_same[:-2] & ~is_next_same[2:]
    first = np.flatnonzero(is_two)
    one, other = order[first], order[first + 1]
    is_pair = (one < len(old[0])) != (other < len(old[0]))
    one, other = one[is_pair], other[is_pair]
    return old[1][np.minimum(one, other)], new[1][np.maximum(one, other) - len(old[0])]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Positions, both int64: each of `later` has the mark of the one in `first`, which stands before all like it."""

    later: pa.Array
    first: pa.Array


def find_repeats(marks: Marks, *, looked_at_at_once: int = 1 << 19) -> Repeats:
    """Every mark after the first of its kind, in the order of its position."""
    laters, firsts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    shares = 1 << max(0, (marks.rows - 1) // looked_at_at_once).bit_length()
    for share in range(shares):
        values, places = _share(((at, _numbers(piece)) for at, piece in marks.pieces(0)), share, shares)
        if not len(values):
            continue
        order = np.argsort(values)
        values, places = values[order], places[order]
        is_other = np.concatenate([[True], values[1:] != values[:-1]])
        first = np.minimum.reduceat(places, np.flatnonzero(is_other))[np.cumsum(is_other) - 1]
        is_later = places != first
        laters.append(places[is_later])
        firsts.append(first[is_later])
    later, first = np.concatenate(laters), np.concatenate(firsts)
    order = np.argsort(later)
    return Repeats(pa.array(later[order]), pa.array(first[order]))
