"""SQLite's write-ahead log, as a kill leaves it: would anything that was committed be left out when it is played back?

SQLite takes frames for as long as their checksums fit, each of which counts on from the one before; behind the first
that does not, all is as if it had never been written. After a power cut that is right: the last transaction may be on
the disk in part. It is wrong where the disk changed something later, for what stands behind it had been promised. The
order in which SQLite writes tells the two apart (`synchronous=FULL`: the header is on the disk before the first frame,
a transaction before the next one begins):

    a frame that counts on from the end of a transaction    that transaction was on the disk
    one bit turned makes a transaction whole                nothing was missing, a bit was flipped
    no right header, and frames that hang together          it was right once
    frames of another salt                                  of an earlier round, in the tables long ago
    no end of a transaction behind the damage               it was never committed
    anything else                                           cut off or damaged, nobody can tell

The checksum weighs the words of a frame with Fibonacci numbers, modulo 2^32: a sum that numpy does at the speed of the
disk. A single wrong bit shows in it for certain, and in two cases of three also which one it is: the higher a bit
stands in its word, the more words there are whose bit would make the same difference.
"""

import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from batchllm.errors import StorageError
from batchllm.journal.files import wal_of

Words: TypeAlias = npt.NDArray[np.uint32]
Octets: TypeAlias = npt.NDArray[np.uint8]

_HEADER = 32
_FRAME_HEADER = 24
_MAGIC = 0x377F0682  # with the last bit set, the words of checksums have their highest byte first
_VERSION = 3007000
_PAGE_SIZE_AT = 16  # in the file of the tables
_BLOCK_BYTES = 1 << 20
#: With more of them it is no matter of single bits.
_MOST_FLIPS = 64


class Flip(NamedTuple):
    """A bit that was turned: in which byte of the file, and which of it."""

    offset: int
    mask: int


class Break(NamedTuple):
    """Where SQLite would end too early, and how many `frames` it would leave out.

    `is_certain`: something that was committed is among them. `flips`, turned back, bring frames back;
    `is_mendable`: all of them that were committed.
    """

    offset: int
    frames: int
    is_certain: bool
    flips: tuple[Flip, ...] = ()
    is_mendable: bool = False

    def text(self, path: Path) -> str:
        return f"{path} does not fit its checksums from byte {self.offset:,} on, with {self.frames:,} frames behind it"

    @property
    def remedy(self) -> str:
        if self.is_mendable:
            return (
                "copy the whole .batchllm folder, then run `batchllm rebuild JOB`: a bit was flipped, it is turned back"
                " in what the rebuild reads, and nothing is asked again; nothing was changed"
            )
        return (
            "put back a copy of the whole .batchllm folder; or copy it as it is, then run `batchllm rebuild JOB`: it"
            " keeps what stands before the damage, and what was committed behind it is asked, and paid for, again;"
            " nothing was changed"
        )


def check_wal(database: Path, say: Callable[[str], None]) -> None:
    """To be called before SQLite opens it. Raises StorageError where SQLite would drop what was committed."""
    found = find_break(database)
    if found is None or found != find_break(database):  # a run whose lock was removed goes on writing
        return
    path = wal_of(database)
    if found.is_certain:
        raise StorageError(f"{found.text(path)}: they were committed", remedy=found.remedy)
    say(
        f"{found.text(path)}: a transaction that was cut off, as by a power cut; it counts as never committed"
    )


def find_break(database: Path) -> Break | None:
    """In the WAL of `database`, which nobody has open; None where all that was committed comes back. Raises OSError."""
    path = wal_of(database)
    if not path.is_file() or path.stat().st_size < _HEADER + _FRAME_HEADER:
        return None
    with path.open("rb") as file, database.open("rb") as tables:
        raw = file.read(_HEADER)
        head = _head_of(raw)
        if head is not None:
            return _Search(_Frames(file, head.page_bytes, head.order), head).found()
        page_bytes = _page_bytes(tables)
        if not page_bytes:
            return None
        frames = _Frames(file, page_bytes, "<u4" if sys.byteorder == "little" else ">u4")
        for flip, mended in _mended_heads(raw):
            search = _Search(frames, mended, (flip,))
            if search.fits_first:
                return search.found()
        return _without_head(frames)


def mend(path: Path, flips: Sequence[Flip]) -> None:
    """Turn bits back, in a copy."""
    with path.open("r+b") as file:
        for flip in flips:
            file.seek(flip.offset)
            byte = file.read(1)[0]
            file.seek(flip.offset)
            file.write(bytes([byte ^ flip.mask]))


class _Head(NamedTuple):
    page_bytes: int
    order: str  # of the bytes of a word in checksums, in numpy's words
    salts: tuple[int, int]
    sums: tuple[int, int]


def _head_of(raw: bytes) -> _Head | None:
    """None where SQLite would not go on, and play back nothing."""
    magic, version, page_bytes, _, *rest = struct.unpack(">8I", raw)
    if magic & ~1 != _MAGIC or version != _VERSION or not _is_page_size(page_bytes):
        return None
    order = ">u4" if magic & 1 else "<u4"
    first = second = 0
    for one, other in np.frombuffer(raw[:24], order).reshape(-1, 2).tolist():
        first = (first + one + second) % 2**32
        second = (second + other + first) % 2**32
    return (
        _Head(page_bytes, order, (rest[0], rest[1]), (first, second)) if [first, second] == rest[2:] else None
    )


def _mended_heads(raw: bytes) -> Iterator[tuple[Flip, _Head]]:
    """Those that are right with one bit turned; the frames behind tell which one it was."""
    for offset in range(len(raw)):
        for bit in range(8):
            other = bytearray(raw)
            other[offset] ^= 1 << bit
            head = _head_of(bytes(other))
            if head is not None:
                yield Flip(offset, 1 << bit), head


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 1 << 16 and size & (size - 1) == 0


def _page_bytes(tables: BinaryIO) -> int:
    """0 where the file is none of SQLite's, which it will say."""
    tables.seek(_PAGE_SIZE_AT)
    size = int.from_bytes(tables.read(2), "big")
    size = 1 << 16 if size == 1 else size
    return size if _is_page_size(size) else 0


class _Frames:
    """Of each frame its end (0 but for the last of a transaction), salts, checksum, and what it adds to one."""

    def __init__(self, file: BinaryIO, page_bytes: int, order: str) -> None:
        self._file = file
        self._order = order
        self.size = _FRAME_HEADER + page_bytes
        self.count = (os.fstat(file.fileno()).st_size - _HEADER) // self.size
        words = 2 + page_bytes // 4
        numbers = _fibonacci(words + 2)
        self.weights = np.stack([numbers[:words][::-1], numbers[1 : words + 1][::-1]])
        self._onward = numbers[[words - 1, words, words, words + 1]].reshape(2, 2)
        self.ends, self.salts, self.stored, self._adds = (
            np.empty((self.count, *shape), np.uint32) for shape in ((), (2,), (2,), (2,))
        )
        for at, block in self._blocks():
            self._take(at, block)

    def offset(self, frame: int) -> int:
        return _HEADER + frame * self.size

    def bytes_of(self, frame: int) -> Octets:
        self._file.seek(self.offset(frame))
        return np.frombuffer(self._file.read(self.size), np.uint8).copy()

    def replace(self, frame: int, octets: Octets) -> None:
        """What a frame is taken to be from now on."""
        self._take(frame, octets.reshape(1, -1))

    def words_of(self, octets: Octets) -> Words:
        """Those that the checksum is over."""
        words = octets.view(self._order).astype(np.uint32)
        return np.concatenate([words[:2], words[_FRAME_HEADER // 4 :]])

    def place_of(self, word: int, bit: int) -> Flip:
        """In a frame."""
        byte = bit // 8 if self._order == "<u4" else 3 - bit // 8
        return Flip(4 * word + byte + (_FRAME_HEADER - 8 if word >= 2 else 0), 1 << bit % 8)

    def expected(self, first: tuple[int, int]) -> Words:
        """The checksums that frames should have, by those that stand in the frames before them."""
        before = np.concatenate([np.array([first], np.uint32), self.stored[:-1]])
        return before @ self._onward + self._adds

    def _blocks(self) -> Iterator[tuple[int, Octets]]:
        together = max(1, _BLOCK_BYTES // self.size)
        self._file.seek(_HEADER)
        for at in range(0, self.count, together):
            read = self._file.read(min(together, self.count - at) * self.size)
            yield at, np.frombuffer(read, np.uint8).reshape(-1, self.size)

    def _take(self, at: int, block: Octets) -> None:
        till = at + len(block)
        head = np.ascontiguousarray(block[:, :_FRAME_HEADER]).view(">u4")
        self.ends[at:till] = head[:, 1]
        self.salts[at:till] = head[:, 2:4]
        self.stored[at:till] = head[:, 4:]
        words = block.view(self._order).astype(np.uint32, copy=False)
        for column, weights in enumerate(self.weights):
            page = np.einsum("ij,j->i", words[:, _FRAME_HEADER // 4 :], weights[2:])
            self._adds[at:till, column] = page + words[:, :2] @ weights[:2]


def _fibonacci(count: int) -> Words:
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append((numbers[-1] + numbers[-2]) % 2**32)
    return np.array(numbers, np.uint32)


class _Search:
    """`flips`: such as were found in the header."""

    def __init__(self, frames: _Frames, head: _Head, flips: tuple[Flip, ...] = ()) -> None:
        self._frames = frames
        self._head = head
        self._flips = list(flips)
        self._are_known = True  # which bits they are, and not only that there are any

    @property
    def fits_first(self) -> bool:
        """Whether the first frame is one of this header's."""
        return bool(self._is_ours()[0]) and (bool(self._fits()[0]) or bool(self._flips_of(0)))

    def found(self) -> Break | None:
        """`first` is where SQLite ends, `end` where it would with all flips turned back."""
        frames = self._frames
        first, end = self._turned_back()
        is_ours = self._is_ours()
        is_end = is_ours & (frames.ends != 0)
        is_next = is_ours & self._fits()
        is_certain = bool((is_end[end:-1] & is_next[end + 1 :]).any())
        is_whole = bool(is_end[first:end].any())
        if not is_whole and not is_end[end:].any():
            return None
        offset = self._flips[0].offset if self._flips else frames.offset(end)
        return Break(
            offset,
            int(is_ours[first:].sum()),
            is_certain or is_whole,
            tuple(self._flips) if self._are_known else (),
            is_mendable=is_whole and not is_certain and self._are_known,
        )

    def _turned_back(self) -> tuple[int, int]:
        first = 0 if self._flips else None
        while True:
            fits = self._is_ours() & self._fits()
            end = self._frames.count if fits.all() else int(fits.argmin())
            flips = self._flips_of(end) if end < self._frames.count else []
            if not flips or len(self._flips) == _MOST_FLIPS:
                return (end if first is None else first), end
            first = end if first is None else first
            self._are_known = self._are_known and len(flips) == 1
            flip = flips[-1]
            octets = self._frames.bytes_of(end)
            octets[flip.offset] ^= flip.mask
            self._frames.replace(end, octets)
            self._flips.append(Flip(self._frames.offset(end) + flip.offset, flip.mask))

    def _is_ours(self) -> npt.NDArray[np.bool_]:
        salts = np.array(self._head.salts, np.uint32)
        return np.asarray((self._frames.salts == salts).all(axis=1))

    def _fits(self) -> npt.NDArray[np.bool_]:
        return np.asarray((self._frames.expected(self._head.sums) == self._frames.stored).all(axis=1))

    def _flips_of(self, frame: int) -> list[Flip]:
        """The bits of a frame, each of which may be the one that is wrong; offsets count from the frame's beginning."""
        octets = self._frames.bytes_of(frame)
        expected = self._frames.expected(self._head.sums)[frame]
        wanted = np.array([*self._head.salts, *expected], ">u4").view(np.uint8)
        wrong = octets[8:_FRAME_HEADER] ^ wanted
        found = []
        if np.unpackbits(wrong).sum() == 1:
            at = int(wrong.argmax())
            found.append(Flip(8 + at, int(wrong[at])))
        if not wrong[:8].any():
            found += self._flips_in_words(octets, self._frames.stored[frame] - expected)
        return found

    def _flips_in_words(self, octets: Octets, missing: Words) -> Iterator[Flip]:
        words = self._frames.words_of(octets)
        for bit in range(32):
            mask, less = np.uint32(1 << bit), np.uint32(2**32 - (1 << bit))
            added = np.where(words & mask, less, mask)  # what turning it would add to the word
            is_it = (self._frames.weights * added == missing[:, None]).all(axis=0)
            for word in is_it.nonzero()[0].tolist():
                yield self._frames.place_of(word, bit)


def _without_head(frames: _Frames) -> Break | None:
    """Whether frames hang together that a header must have stood before."""
    is_next = (frames.expected((0, 0)) == frames.stored).all(axis=1)[1:]
    is_next &= (frames.salts[1:] == frames.salts[:-1]).all(axis=1)
    is_end = frames.ends != 0
    if not is_end.any():
        return None
    return Break(0, frames.count, is_certain=bool((is_next & is_end[1:]).any()))
