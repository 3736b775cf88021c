"""Foreign text made safe to show, and numbers as people read them. Pure.

Escaping for HTML is the template's; here goes what escaping leaves: controls, lone surrogates, and the marks that
turn the direction of everything after them.
"""

import math
import re

from batchllm.report.summary import money

#: Controls but tab and newline, surrogates, non-characters, and the bidi embeddings, overrides and isolates. The
#: joiners and the single marks (LRM, RLM) stay: Persian, Hebrew and emoji need them and they move nothing else.
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]"
)
_DASH = "–"
_ENDS = re.compile(r"^\s+|\s+$")


def clean(text: str, chars: int = 2_000) -> str:
    """`text` without what cannot be shown, at most `chars` long; what was cut is said."""
    kept = _UNSHOWABLE.sub(_shown, text[: chars + 1].replace("\r\n", "\n"))
    return kept if len(text) <= chars else f"{kept[: chars - 1]}…"


def with_ends(text: str) -> str:
    """`text` with marks for space at its ends, which nobody would see, and which makes another value of it."""
    return _ENDS.sub(lambda space: "␣" * min(4, len(space[0])), text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF or code >= 0xFDD0 else f"⟨U+{code:04X}⟩"


def count(number: float) -> str:
    return f"{round(number):,}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """One decimal; never 100 % or 0 % for what is only nearly so."""
    if 0.9995 <= share < 1:
        return ">\u00a099.9\u00a0%"
    if 0 < share < 0.0005:
        return "<\u00a00.1\u00a0%"
    return f"{share:.1%}".replace("%", "\u00a0%")


def points(difference: float) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return f"{difference * 100:+.1f}".replace("-", "−")


def decimal(value: float) -> str:
    """A coefficient between -1 and 1."""
    return f"{value:.3f}".replace("-", "−")


def number(value: float, digits: int = 4) -> str:
    """Any number, to so many significant digits."""
    if not math.isfinite(value):
        return "not a number"
    size = abs(value)
    text = f"{value:,.0f}" if 10**digits <= size < 1e15 else f"{value:,.{digits}g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    return number(value) if value < 0 else f"+{number(value)}"


def p_value(value: float) -> str:
    return "p\u00a0<\u00a00.001" if value < 0.001 else f"p\u00a0=\u00a0{value:.3f}"


def latency(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms < 1_000 else f"{ms / 1_000:,.1f} s"


def cost(usd: float | None) -> str:
    """Three significant digits below a dollar: what a row costs begins far behind the point."""
    if usd is None or usd >= 1 or usd <= 0:
        return money(usd)
    if usd < 1e-9:
        return "< $0.000000001"
    return f"${usd:.{2 - math.floor(math.log10(usd))}f}"


def span(low: str, high: str) -> str:
    return f"{low} to {high}" if low[:1] in "−+" or high[:1] in "−+" else f"{low} {_DASH} {high}"


def listed(names: list[str], most: int = 4) -> str:
    """`a, b and c`; of many the first few and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
