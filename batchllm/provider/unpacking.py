"""Compressed bodies, unpacked as they arrive and never further than there is room for.

Only what the standard library can do is asked for (`ACCEPTED`): brotli and zstd save little on replies of a few
kilobytes, and each is another parser of foreign bytes.
"""

import zlib

ACCEPTED = "gzip, deflate"
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's wbits
_GZIP_MAGIC = 0x1F
#: JSON shrinks to a tenth or a thirtieth; deflate can do 1,032. Beyond the first 8 MB, what swells more is a bomb:
#: unpacked at once, a megabyte of it would hold the loop for a second and take half a gigabyte.
_STEP_BYTES, _FREE_BYTES, _MOST_RATIO = 1 << 20, 8 << 20, 200


class UnpackingError(Exception):
    """The body is not what its content-encoding says, or that is unknown."""


class Unpacker:
    """One body. Fed piece by piece; `is_whole` once its stream has ended (or where there was nothing at all)."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None
        self._is_over = False
        self._fed = self._made = 0

    @classmethod
    def of(cls, coding: str) -> "Unpacker | None":
        """What undoes this content-encoding; None where nothing is to be done. Raises UnpackingError."""
        match coding.strip().lower():
            case "" | "identity":
                return None
            case "gzip" | "x-gzip":
                return cls(is_gzip=True)
            case "deflate":
                return cls(is_gzip=False)
            case other:
                raise UnpackingError(f"its content-encoding is {other!r}, which was not asked for")

    @property
    def is_whole(self) -> bool:
        return self._stream is None or self._stream.eof

    def feed(self, data: bytes, room: int) -> bytes:
        """At most `room` bytes of what `data` holds; a caller that gets them all has no use for the rest."""
        pieces = []
        self._fed += len(data)
        try:
            while data and room > 0 and not self._is_over:
                if self._stream is None:
                    self._stream = zlib.decompressobj(self._window(data[0]))
                piece = self._stream.decompress(data, min(room, _STEP_BYTES))
                pieces.append(piece)
                room -= len(piece)
                self._made += len(piece)
                if self._made > _FREE_BYTES and self._made > _MOST_RATIO * self._fed:
                    raise UnpackingError("its compressed body swells beyond any text")
                data = self._stream.unconsumed_tail
                if self._stream.eof:
                    data = self._next_member(self._stream.unused_data)
        except zlib.error as error:
            raise UnpackingError(f"its compressed body is damaged: {error}") from error
        return b"".join(pieces)

    def _window(self, first: int) -> int:
        """`deflate` means zlib's format and is often sent without its header, which starts with an 8."""
        if self._is_gzip:
            return _GZIP
        return _ZLIB if first & 0x0F == 8 else _RAW

    def _next_member(self, rest: bytes) -> bytes:
        """A gzip body may have several members; whatever else follows (padding) is passed over, as browsers do."""
        if not rest:
            return b""
        if self._is_gzip and rest[0] == _GZIP_MAGIC:
            self._stream = None
            return rest
        self._is_over = True
        return b""
