"""Keys that occur twice, found among ten million in 80 MB.

One 64-bit hash a key is kept. Equal hashes only raise a suspicion: the rows that have them are read again, and the
keys themselves decide. So the hash needs no more than speed, and Python's own has it (a keyed hash of 40 ns; blake2b
takes 700); whole numbers are kept as they are.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from batchllm.records import Key

Hash = Callable[[Key], int]

_MASK = 2**64 - 1
_SUSPECTS = 256


def hash_key(key: Key) -> int:
    return (key if isinstance(key, int) else hash(key)) & _MASK


class KeyIndex:
    def __init__(self, hash_one: Hash = hash_key) -> None:
        self._hash = hash_one
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
        import polars as pl
        import pyarrow as pa

        buffer = pa.py_buffer(self._hashes)
        hashes = pl.Series(pa.Array.from_buffers(pa.uint64(), len(self._hashes), [None, buffer])).sort()
        repeated = hashes.filter(hashes == hashes.shift(1)).unique().sort().rechunk().to_arrow()
        start = repeated.offset * 8
        found = array("Q")
        found.frombytes(memoryview(repeated.buffers()[1])[start : start + len(repeated) * 8])
        return found
