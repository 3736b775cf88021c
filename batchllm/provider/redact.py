"""Keys out of text, and foreign text into one line that is safe to print.

Servers echo what they were sent, proxies put URLs into their pages, exceptions carry both. Whatever of it is
kept or shown passes through here first. Known secrets are found in the forms in which they come back: plain,
URL-quoted, inside JSON, and inside base64 at each of its three alignments (`Basic` credentials). What merely
looks like a key is hidden as well, since the key of a proxy or of another lane is not among the known ones.
"""

import base64
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

import orjson

MASK = "[key]"
#: Shorter "secrets" (an empty string, "none", "x" for a local server) would cut ordinary words to pieces.
_SHORTEST = 6
#: Foreign text is looked at no further than this; a message is a few hundred characters.
_GLANCE = 8_192

_LIKE_KEYS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=*-]{6,}"), rf"\1 {MASK}"),
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|(?:x-)?api[-_]?key|access[-_]?token)"
            r"(\"?\s*[:=]\s*\"?)(?!bearer\b|basic\b|\[key\])[^\s\"',;&]{6,}"
        ),
        rf"\1\2{MASK}",
    ),
    (
        re.compile(r"\b(?:sk-|rk-|pk-|gsk_|xai-|pplx-|tgp_|fw_|hf_|csk-|nvapi-|r8_|AIza)[A-Za-z0-9_*-]{12,}"),
        MASK,
    ),
    (re.compile(r"://[^\s/@]{1,300}@"), f"://{MASK}@"),
)


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets and without anything that looks like one."""
    text = hide(text, secrets)
    for pattern, mask in _LIKE_KEYS:
        text = pattern.sub(mask, text)
    return text


def hide(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets; the rest stays as it is, which is what an answer that is kept needs."""
    for form in _forms(tuple(secrets)):
        if form in text:
            text = text.replace(form, MASK)
    return text


def one_line(text: str, secrets: Sequence[str] = (), limit: int = 300) -> str:
    """Foreign text as one printable line: redacted first, then escaped and cut, so that no part of a key is left."""
    line = redact(" ".join(text[:_GLANCE].split()), secrets)
    if len(text) > _GLANCE:
        # What was cut through may be a key: its first half is not found above, and goes with the end.
        line = line[: -max(map(len, _forms(tuple(secrets))), default=0) or None]
    if not line.isprintable():
        line = "".join(char if char.isprintable() else _escaped(char) for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


@lru_cache(maxsize=64)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Every spelling to look for, longest first, so that a secret within another leaves no rest."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            forms |= {secret, _in_url(secret), _in_json(secret), *_in_base64(secret)}
    return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True))


def _in_url(secret: str) -> str:
    return quote(secret, safe="", errors="surrogatepass")


def _in_json(secret: str) -> str:
    try:
        return orjson.dumps(secret).decode()[1:-1]
    except orjson.JSONEncodeError:  # a lone surrogate, from bytes in the environment that are no UTF-8
        return secret


def _in_base64(secret: str) -> set[str]:
    """The part of the base64 text that depends on the secret alone, whatever stands before and after it."""
    raw = secret.encode("utf-8", "surrogatepass")
    found = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw).decode("ascii")
        start = -(-before * 8 // 6)
        end = (before + len(raw)) * 8 // 6
        for spelling in (text, text.translate(str.maketrans("+/", "-_"))):
            found.add(spelling[start:end])
    return found
