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


def clean(text: str, chars: int = 2_000) -> str:
    """`text` without what cannot be shown, at most `chars` long; what was cut is said."""
    kept = _UNSHOWABLE.sub(_shown, text[: chars + 1].replace("\r\n", "\n"))
    return kept if len(text) <= chars else f"{kept[: chars - 1]}…"


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
        return "> 99.9 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{share:.1%}".replace("%", " %")


def points(difference: float) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return f"{difference * 100:+.1f}".replace("-", "−")


def decimal(value: float) -> str:
    """A coefficient between -1 and 1."""
    return f"{value:.3f}".replace("-", "−")


def number(value: float) -> str:
    """Any number, to six significant digits."""
    if not math.isfinite(value):
        return "not a number"
    text = f"{value:,.6g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:.4g}"
    return text.replace("-", "−")


def p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def latency(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms < 1_000 else f"{ms / 1_000:,.1f} s"


def cost(usd: float | None) -> str:
    """As the summary says it; an amount below its last place is said to be below."""
    return "< $0.000001" if usd is not None and 0 < usd < 5e-7 else money(usd)


def span(low: str, high: str) -> str:
    return f"{low} to {high}" if low[:1] in "−+" or high[:1] in "−+" else f"{low} {_DASH} {high}"


def listed(names: list[str], most: int = 4) -> str:
    """`a, b and c`; of many the first few and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
