"""JSON that is strictly none, for its text alone."""

import re

import orjson

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mended(body: bytes) -> object | None:
    """A reply that is strictly no JSON for its text alone: a BOM, halves of surrogate pairs, broken UTF-8.

    Models cut in the middle of a character cause these. The answer is paid for, so U+FFFD stands where the damage is.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").encode()
    try:
        whole: object = orjson.loads(_ESCAPE.sub(_whole_or_replaced, text))
    except orjson.JSONDecodeError:
        return None
    return whole


def _whole_or_replaced(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]
