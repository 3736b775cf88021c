"""What the text of a refusal says of the limit that was met: which one it is, and how much it allows.

`Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 1500`
is how OpenAI, Groq and those who copy them word it. Only what is named is believed; a bare "Too many requests" says
nothing, and what was limited is then found out by its behaviour.
"""

import re
from typing import NamedTuple

from batchllm.records import LimitHint, LimitScope


class RefusedLimit(NamedTuple):
    """Both None where the refusal does not say."""

    scope: LimitScope | None
    hint: LimitHint | None


_WINDOWS_S = {"sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
_CONCURRENCY = re.compile(
    r"\bconcurren(?:t|cy)\b|\b(?:parallel|simultaneous) (?:requests|connections|calls)\b|\bin flight\b",
    re.IGNORECASE | re.ASCII,
)
_RATE = re.compile(
    r"\b(?P<what>tokens|requests)[ -](?:usage )?per[ -](?P<window>second|sec|minute|min|hour|day)\b"
    r"|\((?P<short>TPM|RPM|TPD|RPD)\)",
    re.IGNORECASE | re.ASCII,
)
_LIMIT = re.compile(r"\blimit:? ?(?P<limit>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,12})\b", re.IGNORECASE | re.ASCII)
_SHORT = {
    "TPM": ("tokens", "minute"),
    "RPM": ("requests", "minute"),
    "TPD": ("tokens", "day"),
    "RPD": ("requests", "day"),
}
_READ_CHARS = 2_000


def refused_limit(message: str) -> RefusedLimit:
    """From the message of a refusal, in any wording."""
    message = message[:_READ_CHARS]
    number = _LIMIT.search(message)
    limit = None if number is None else float(number["limit"].replace(",", ""))
    limit = limit or None  # a limit of 0 is a plan without this model, and no rate
    rate = _RATE.search(message)
    if rate is not None:
        what, window = _SHORT.get((rate["short"] or "").upper(), (rate["what"], rate["window"]))
        scope, window_s = LimitScope(what.lower()), _WINDOWS_S[window.lower()]
        return RefusedLimit(scope, None if limit is None else LimitHint(scope, limit, None, None, window_s))
    if _CONCURRENCY.search(message):
        scope = LimitScope.CONCURRENCY
        return RefusedLimit(scope, None if limit is None else LimitHint(scope, limit, None, None, 1.0))
    return RefusedLimit(None, None)
