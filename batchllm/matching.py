"""Which rows of an input were in the one before it: by their marks, ten million in seconds and within 100 MB.

A mark is 64 bits that stand for all of a row (see `batchllm.source.marks`). Rows that stayed where they were need one
comparison of memory: all of the old ones when rows were added at the end, all but a few when a few have changed. The
rest is looked up share by share, so that no more than half a million of each are sorted at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

PIECE_ROWS = 1 << 17
_UNKNOWN = pa.scalar(0, pa.uint64())
_NARROW_ROWS = 2**31 - 1


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


def match_marks(
    old: Marks,
    new: Marks,
    *,
    looked_up_at_once: int = 1 << 19,
    placed_at_once: int = 1 << 20,
    segment_rows: int = 1 << 21,
) -> Matches:
    """Each new row with the old one that stood in its place and had its mark, else with the only one of its mark.

    Marks that occur twice among the rest match nothing.
    """
    head = _common_head(old, new)
    kind = pa.int32() if max(old.rows, new.rows) < _NARROW_ROWS else pa.int64()
    stayed = [
        _stayed(old, new, first, min(segment_rows, new.rows - first))
        for first in range(head, new.rows, segment_rows)
    ]
    found = []
    first = head
    for flags in stayed:
        places = pa.arange(first, first + len(flags), 1).cast(kind)
        found.append(pc.if_else(flags, places, pa.scalar(None, kind)))
        first += len(flags)
    if found and head < old.rows:
        flags = pa.chunked_array(stayed, pa.bool_())
        moved = _Moved(old, head, flags), _Moved(new, head, flags)
        _match_moved(*moved, found, looked_up_at_once, placed_at_once)
    return Matches(head, pa.concat_arrays([pa.nulls(0, kind), *found]))


@dataclass(frozen=True, slots=True)
class _Moved:
    """The rows from `start` on that are not where they were; `stayed` tells of those from there on."""

    marks: Marks
    start: int
    stayed: pa.ChunkedArray

    @property
    def most(self) -> int:
        """No more than so many."""
        return self.marks.rows - self.start - (pc.sum(self.stayed).as_py() or 0)

    def share(self, share: int, shares: int, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
        """The marks whose lowest bits are `share`, and the ordinals of their rows."""
        return _share(self._pieces(), share, shares, kind)

    def _pieces(self) -> Iterator[tuple[int, pa.Array]]:
        for first, piece in self.marks.pieces(self.start):
            flags = _flat(self.stayed.slice(first - self.start, len(piece)))
            if flags.true_count:
                flags = pa.concat_arrays([flags, pa.repeat(False, len(piece) - len(flags))])
                if flags.true_count == len(piece):
                    continue
                yield first, pc.if_else(flags, _UNKNOWN, piece)
            else:
                yield first, piece


def _match_moved(
    old: _Moved,
    new: _Moved,
    found: list[pa.Array],
    looked_up_at_once: int,
    placed_at_once: int,
) -> None:
    """Those of each other's marks, into `found`."""
    kind = found[0].type
    shares = 1 << max(0, (old.most - 1) // looked_up_at_once).bit_length()
    pairs: list[tuple[pa.Array, pa.Array]] = []
    for share in range(shares):
        pairs.append(_look_up(old.share(share, shares, kind), new.share(share, shares, kind)))
        if sum(len(news) for _, news in pairs) >= placed_at_once:
            _place(found, old.start, pairs)
            pairs.clear()
        pa.default_memory_pool().release_unused()
    _place(found, old.start, pairs)


def _stayed(old: Marks, new: Marks, first: int, rows: int) -> pa.Array:
    """Of `rows` new ones from `first` on: whether the old one in the same place has the same mark."""
    pieces = [pa.nulls(0, pa.bool_())]
    both = max(0, min(first + rows, old.rows) - first)
    for start in range(first, first + both, PIECE_ROWS):
        end = min(first + both, start + PIECE_ROWS)
        pieces.append(_same(old.read(start, end), new.read(start, end)))
    return pa.concat_arrays([*pieces, pa.repeat(False, rows - both)])


def _same(one: pa.Array, other: pa.Array) -> pa.Array:
    return pc.and_(pc.equal(one, other), pc.not_equal(one, _UNKNOWN))


def _place(found: list[pa.Array], head: int, pairs: list[tuple[pa.Array, pa.Array]]) -> None:
    """Each old ordinal at its new one. It costs a look at all of `found`, so many pairs are placed together.

    `found` is in segments, for a scatter takes three times the memory of its result.
    """
    if not any(len(news) for _, news in pairs):
        return
    olds, news = (pa.concat_arrays(side) for side in zip(*pairs, strict=True))
    first = head
    for at, segment in enumerate(found):
        is_here = pc.and_(pc.greater_equal(news, first), pc.less(news, first + len(segment)))
        places = pc.subtract(news.filter(is_here), pa.scalar(first, segment.type))
        if len(places):
            more = pc.scatter(olds.filter(is_here), places, max_index=len(segment) - 1)
            found[at] = pc.coalesce(segment, more)
        first += len(segment)


def _common_head(old: Marks, new: Marks) -> int:
    most = min(old.rows, new.rows)
    for start in range(0, most, PIECE_ROWS):
        end = min(most, start + PIECE_ROWS)
        different = pc.index(_same(old.read(start, end), new.read(start, end)), False).as_py()
        if different >= 0:
            return start + int(different)
    return most


def _share(
    pieces: Iterable[tuple[int, pa.Array]], share: int, shares: int, kind: pa.DataType
) -> tuple[pa.Array, pa.Array]:
    """The marks whose lowest bits are `share`, and the ordinals of their rows; `pieces` each with the first one."""
    values, places = [pa.nulls(0, pa.uint64())], [pa.nulls(0, kind)]
    for first, piece in pieces:
        low_bits = pc.bit_wise_and(piece, pa.scalar(shares - 1, pa.uint64()))
        is_here = pc.equal(low_bits, pa.scalar(share, pa.uint64()))
        if not share:  # where the unknown ones are
            is_here = pc.and_(is_here, pc.not_equal(piece, _UNKNOWN))
        values.append(piece.filter(is_here))
        places.append(pc.add(pc.indices_nonzero(is_here).cast(kind), pa.scalar(first, kind)))
    return pa.concat_arrays(values), pa.concat_arrays(places)


def _flat(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def _look_up(old: tuple[pa.Array, pa.Array], new: tuple[pa.Array, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Old and new ordinals of the pairs. By sorting: Arrow's hash tables take six times the memory of what is in them.

    Equal marks stand side by side, old ones first, since the sort is stable; a pair is a run of two, one of each.
    """
    marks = pa.concat_arrays([old[0], new[0]])
    order = pc.array_sort_indices(marks)
    marks = marks.take(order)
    is_next_same = _padded(pc.equal(marks.slice(0, max(0, len(marks) - 1)), marks.slice(1)))
    borders, order = is_next_same.slice(1), order.cast(pa.int64())
    is_first_old = pc.less(order, len(old[0]))
    is_pair = pc.and_not(
        pc.and_(borders.slice(0, len(order)), pc.and_not(is_first_old, _shifted(is_first_old))),
        pc.or_(is_next_same.slice(0, len(order)), is_next_same.slice(2, len(order))),
    )
    first = pc.indices_nonzero(is_pair)
    news = pc.subtract(order.take(pc.add(first, pa.scalar(1, pa.uint64()))), len(old[0]))
    return old[1].take(order.take(first)), new[1].take(news)


def _padded(flags: pa.Array) -> pa.Array:
    """`[at + 1]` tells whether the marks at `at` and after it are the same; none are before the first."""
    return pa.concat_arrays([pa.array([False]), flags, pa.array([False, False])])


def _shifted(flags: pa.Array) -> pa.Array:
    """Each one's successor; the last one has none."""
    return pa.concat_arrays([flags.slice(1), pa.array([True])]) if len(flags) else flags


@dataclass(frozen=True, slots=True)
class Repeats:
    """Positions, both int64: each of `later` has the mark of the one in `first`, which stands before all like it."""

    later: pa.Array
    first: pa.Array


def find_repeats(marks: Marks, *, looked_at_at_once: int = 1 << 19) -> Repeats:
    """Every mark after the first of its kind, in the order of its position."""
    laters, firsts = [pa.nulls(0, pa.int64())], [pa.nulls(0, pa.int64())]
    shares = 1 << max(0, (marks.rows - 1) // looked_at_at_once).bit_length()
    for share in range(shares):
        values, places = _share(marks.pieces(0), share, shares, pa.int64())
        order = pc.array_sort_indices(values)
        values, places = values.take(order), places.take(order)
        is_later = pa.concat_arrays(
            [
                pa.array([False] * min(1, len(values))),
                pc.equal(values.slice(1), values.slice(0, len(values) - 1)),
            ]
            if len(values)
            else [pa.array([], pa.bool_())]
        )
        # The last beginning of a run, at or before each position.
        starts = pc.if_else(is_later, pa.scalar(0, pa.int64()), pa.arange(0, len(values), 1))
        starts = pc.cumulative_max(starts)
        laters.append(places.filter(is_later))
        firsts.append(places.take(starts.filter(is_later)))
    later, first = pa.concat_arrays(laters), pa.concat_arrays(firsts)
    order = pc.array_sort_indices(later)
    return Repeats(later.take(order), first.take(order))
