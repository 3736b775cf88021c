"""Heads of files as their formats describe them."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.tokens import picture_size
from batchllm.tokens.picture_size import size_in_url

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (640).to_bytes(4) + (480).to_bytes(4)
GIF = b"GIF89a" + (640).to_bytes(2, "little") + (480).to_bytes(2, "little")
#: Metadata (FFE1) before the frame (FFC2), a filling byte between them.
JPEG = (
    b"\xff\xd8\xff\xe1\x00\x06exif\xff\xff\xc2\x00\x11\x08" + (480).to_bytes(2) + (640).to_bytes(2) + b"\x03"
)
RIFF = b"RIFF\x00\x00\x00\x00WEBP"
VP8 = (
    RIFF + b"VP8 \x00\x00\x00\x00\x00\x00\x00\x9d\x01\x2a" + b"\x80\x42\xe0\x81"
)  # two bits of scale above each
VP8L = RIFF + b"VP8L\x00\x00\x00\x00\x2f" + (639 | 479 << 14).to_bytes(4, "little")
VP8X = (
    RIFF + b"VP8X\x0a\x00\x00\x00\x10\x00\x00\x00" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")
)
FORMATS = {"png": PNG, "gif": GIF, "jpeg": JPEG, "vp8": VP8, "vp8l": VP8L, "vp8x": VP8X}


@pytest.mark.parametrize("name", FORMATS)
def test_the_head_tells_the_size_and_a_cut_one_does_not(name: str) -> None:
    data = FORMATS[name]
    assert picture_size(data + b"more") == (640, 480)
    assert picture_size(data[:-5]) is None


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=40), st.integers(0, 40))
def test_nothing_breaks_it(name: str, noise: bytes, at: int) -> None:
    size = picture_size(FORMATS[name][:at] + noise)
    assert size is None or min(size) >= 1


def test_only_a_data_url_holds_a_picture() -> None:
    url = f"data:image/png;base64,{b64encode(PNG + bytes(100)).decode()}"
    assert size_in_url(url) == (640, 480)
    for other in (
        "https://a.test/b.png",
        "data:image/png,abc",
        "data:image/png;base64,!!!",
        "data:image/png;base64,",
    ):
        assert size_in_url(other) is None
