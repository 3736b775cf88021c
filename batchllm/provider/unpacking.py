"""Compressed bodies, unpacked as they arrive and never further than there is room for.

Only what the standard library can do is asked for (`ACCEPTED`): brotli and zstd save little on replies of a few
kilobytes, and each is another parser of foreign bytes.
"""

import zlib

ACCEPTED = "gzip, deflate"
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's wbits
_GZIP_MAGIC = 0x1F


class UnpackingError(Exception):
    """The body is not what its content-encoding says, or that is unknown."""


class Unpacker:
    """One body. Fed piece by piece; `is_whole` once its stream has ended (or where there was nothing at all)."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream: zlib._Decompress | None = None
        self._is_over = False

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
        try:
            while data and room > 0 and not self._is_over:
                if self._stream is None:
                    self._stream = zlib.decompressobj(self._window(data[0]))
                piece = self._stream.decompress(data, room)
                pieces.append(piece)
                room -= len(piece)
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
