"""Width and height of a picture, from the head of its file: PNG, JPEG, GIF, WebP.

Nothing is decoded. What cannot be read, or is cut, has no size.
"""

import binascii
from typing import Literal

#: Of base64, so much is looked at: a JPEG's size may stand behind its metadata.
_HEAD_CHARS = 128 * 1024
_PNG, _JPEG, _GIF, _RIFF, _WEBP = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    (b"GIF87a", b"GIF89a"),
    b"RIFF",
    b"WEBP",
)
#: Markers of a JPEG that are followed by the size of the picture.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Those that stand alone.
_BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
#: Of WebP's three kinds, so many bytes tell the size.
_WEBP_HEAD = {b"VP8 ": 30, b"VP8L": 25, b"VP8X": 30}


def size_in_url(url: str) -> tuple[int, int] | None:
    """Of the picture that a data URL holds; None for any other address."""
    if not url.startswith("data:"):
        return None
    head, _, body = url.partition(",")
    if not head.endswith(";base64"):
        return None
    try:
        return picture_size(binascii.a2b_base64(body[:_HEAD_CHARS]))
    except (ValueError, binascii.Error):
        return None


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, both at least 1."""
    size = None
    if data.startswith(_PNG):
        size = _number(data, 16, 4), _number(data, 20, 4)
    elif data.startswith(_GIF):
        size = _number(data, 6, 2, "little"), _number(data, 8, 2, "little")
    elif data.startswith(_JPEG):
        size = _of_jpeg(data)
    elif data[:4] == _RIFF and data[8:12] == _WEBP:
        size = _of_webp(data)
    return None if size is None or min(size) < 1 else size


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return _number(data, at + 7, 2), _number(data, at + 5, 2)
        at += 1 if marker == 0xFF else 2 if marker in _BARE else 2 + _number(data, at + 2, 2)
    return None


def _of_webp(data: bytes) -> tuple[int, int] | None:
    if len(data) < _WEBP_HEAD.get(data[12:16], 0):
        return None
    match data[12:16]:
        case b"VP8 ":
            return _number(data, 26, 2, "little") & 0x3FFF, _number(data, 28, 2, "little") & 0x3FFF
        case b"VP8L":
            bits = _number(data, 21, 4, "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return _number(data, 24, 3, "little") + 1, _number(data, 27, 3, "little") + 1
    return None


def _number(data: bytes, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
    """0 where the data ends before it."""
    part = data[at : at + size]
    return int.from_bytes(part, order) if len(part) == size else 0
