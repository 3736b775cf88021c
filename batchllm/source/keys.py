"""Keys that occur twice, found among ten million in 80 MB.

One 64-bit hash a key is kept. Equal hashes only raise a suspicion: the rows that have them are read again, and the
keys themselves decide. So the hash needs no more than speed, and Python's own has it (a keyed hash of 40 ns; blake2b
takes 700); whole numbers are kept as they are.

They are sorted by Arrow, which is there anyway: polars for this alone would cost a run 0.2 s and 40 MB.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.records import Key

Hash = Callable[[Key], int]

_MASK = 2**64 - 1
_SUSPECTS = 256
_BYTES = 8
_FILTERED_AT_ONCE = 1 << 16


def hash_key(key: Key) -> int:
    return (key if isinstance(key, int) else hash(key)) & _MASK


class KeyIndex:
    """`sorted_at_once` bounds the memory of the search for repeats, which holds each hash of a share three times."""

    def __init__(self, hash_one: Hash = hash_key, *, sorted_at_once: int = 1 << 18) -> None:
        self._hash = hash_one
        self._sorted_at_once = sorted_at_once
        self._hashes = array("Q")

    def add(self, keys: Iterable[Key]) -> None:
        self._hashes.extend(map(self._hash, keys))

    def suspects(self) -> Iterator[frozenset[int]]:
        """Hashes that occur more than once, in small sets: those that repeat first come first."""
        repeated = self._repeated()
        if not repeated:
            return
        seen = bytearray(len(repeated))
        batch: set[int] = set()
        for one in self._hashes:
            at = bisect_left(repeated, one)
            if at == len(repeated) or repeated[at] != one or seen[at] == 2:
                continue
            seen[at] += 1
            if seen[at] == 2:
                batch.add(one)
                if len(batch) == _SUSPECTS:
                    yield frozenset(batch)
                    batch = set()
        if batch:
            yield frozenset(batch)

    def is_suspect(self, key: Key, suspects: frozenset[int]) -> bool:
        return self._hash(key) in suspects

    def _repeated(self) -> "array[int]":
        """Each hash that occurs more than once, sorted."""
        hashes = _uint64(self._hashes)
        shares = 1 << max(0, (len(hashes) - 1) // self._sorted_at_once).bit_length()
        found = array("Q")
        for share in range(shares):
            ordered = _sorted(_share(hashes, share, shares))
            later = ordered.slice(1)
            again = later.filter(pc.equal(later, ordered.slice(0, len(later))))
            found.extend(_array(pc.unique(again)))
        return found if shares == 1 else _array(_sorted(_uint64(found)))


def _uint64(numbers: "array[int]") -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), len(numbers), [None, pa.py_buffer(numbers)])


def _share(hashes: pa.Array, share: int, shares: int) -> pa.Array:
    """Those whose lowest bits are `share`; not the highest, which are all the same in small numbers."""
    if shares == 1:
        return hashes
    low_bits = pa.scalar(shares - 1, pa.uint64())
    pieces = []
    for start in range(0, len(hashes), _FILTERED_AT_ONCE):
        piece = hashes.slice(start, _FILTERED_AT_ONCE)
        pieces.append(piece.filter(pc.equal(pc.bit_wise_and(piece, low_bits), share)))
    return pa.concat_arrays(pieces)


def _sorted(numbers: pa.Array) -> pa.Array:
    return numbers.take(pc.array_sort_indices(numbers))


def _array(numbers: pa.Array) -> "array[int]":
    start, buffer = numbers.offset * _BYTES, numbers.buffers()[1]
    found = array("Q")
    if buffer is not None:
        found.frombytes(memoryview(buffer)[start : start + len(numbers) * _BYTES])
    return found
