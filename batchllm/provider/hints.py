"""What a reply says about limits: how long to wait, and how much is allowed.

There is no standard. Providers differ in names, in units (Go durations, seconds, epoch seconds and
milliseconds, RFC 3339) and in whether the window is named at all; captured values are in the tests. Everything
here takes any text and answers with None, or leaves a hint out, rather than raise or believe nonsense.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from batchllm.records import LimitHint, LimitScope

Kind: TypeAlias = Literal["requests", "tokens"]

DAY_S = 86_400.0
#: Longer waits are no rate limit; a lane that must rest longer than a day is parked by its owner.
LONGEST_WAIT_S = DAY_S
#: Windows in use. A name says which, or the refill rate does.
_WINDOWS_S = (1.0, 60.0, 3_600.0, DAY_S)
_NAMED_WINDOWS_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": DAY_S, "month": 30 * DAY_S}
#: Where neither tells. Groq's request headers count the day, Together's the second.
_USUAL_WINDOW_S = 60.0
_USUAL_WINDOWS_S: Mapping[tuple[str, Kind], float] = {
    ("groq", "requests"): DAY_S,
    ("together", "requests"): 1.0,
    ("together", "tokens"): 1.0,
}
#: A window that is inferred must come this near to one in use.
_SNAP_FACTOR = 3.0
#: A rounded reset tells nothing of the refill rate unless it is this many rounding steps long.
_ROUNDING_STEPS = 5
#: What stands for "no limit" in words.
_NO_LIMIT = ("", "inf", "infinite", "infinity", "none", "null", "unlimited")
#: Limits beyond this are no limits, but "unlimited" as a number.
_ABSURD = 1e13


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_GO_DURATION = re.compile(
    r"(?=[0-9.])(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?"
    r"(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)s)?(?:([0-9]+(?:\.[0-9]+)?)ms)?(?:([0-9]+(?:\.[0-9]+)?)(?:us|µs|μs))?",
    re.ASCII,
)
_GO_UNITS_S = (DAY_S, 3_600.0, 60.0, 1.0, 1e-3, 1e-6)
_EPOCH_S = 1e9
_EPOCH_MS = 1e12


def duration_s(text: str, *, now_wall_s: float | None = None) -> float | None:
    """Seconds, from a Go duration (`6m0s`), a number of seconds, or a point in time.

    Points in time (epoch seconds, epoch milliseconds, RFC 3339) need `now_wall_s`; those gone by are negative.
    """
    text = text.strip()[:100]
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number > _EPOCH_MS:
            return _from_now(number / 1e3, now_wall_s)
        return _from_now(number, now_wall_s) if number > _EPOCH_S else number
    parts = _GO_DURATION.fullmatch(text)
    if parts is not None:
        given = zip(parts.groups(), _GO_UNITS_S, strict=True)
        return sum(float(part) * unit_s for part, unit_s in given if part)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _from_now(_timestamp(moment), now_wall_s) if "T" in text or " " in text else None


def _from_now(moment_s: float, now_wall_s: float | None) -> float | None:
    return None if now_wall_s is None else moment_s - now_wall_s


def _timestamp(moment: datetime) -> float:
    """Without a zone, UTC is meant: HTTP knows no other."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@lru_cache(maxsize=16)
def _http_date_s(text: str | None) -> float | None:
    """An HTTP date as seconds since 1970. Kept, since all replies of a second carry the same one."""
    if not text:
        return None
    try:
        return _timestamp(parsedate_to_datetime(text[:100]))
    except (ValueError, OverflowError, TypeError, IndexError):  # parsedate lets all of these through
        return None


_WAIT_PHRASE = re.compile(
    r"\b(?:try again|retry|retrying|wait)(?: your request| this request)?(?: in| after| for)?:? "
    r"(?:about |at least )?([0-9][0-9.hmsdµu]{0,40})(?: ?(millisecond|second|sec|minute|min|hour|day)s?\b)?",
    re.IGNORECASE | re.ASCII,
)
_WORDS_S = {
    "millisecond": 1e-3,
    "second": 1.0,
    "sec": 1.0,
    "minute": 60.0,
    "min": 60.0,
    "hour": 3_600.0,
    "day": DAY_S,
}


def retry_after_s(
    headers: Mapping[str, str],
    body_error: Mapping[str, object] | str | None = None,
    *,
    now_wall_s: float | None = None,
) -> float | None:
    """How long the server asks to wait, within [0, a day]; None when it does not say. A floor, never a promise.

    Dates are measured against the reply's own `Date`, so that a wrong clock on either side does not matter;
    `now_wall_s` stands in where there is none. `body_error` is the error object, or its message.
    """
    date_s = _http_date_s(headers.get("date"))
    now_s = now_wall_s if date_s is None else date_s
    for wait_s in _waits(headers, body_error, now_s):
        if wait_s is not None and not math.isnan(wait_s):
            return min(max(wait_s, 0.0), LONGEST_WAIT_S)
    return None


def _waits(
    headers: Mapping[str, str], body_error: Mapping[str, object] | str | None, now_s: float | None
) -> Iterator[float | None]:
    """The places that may tell, the most precise first."""
    milliseconds = headers.get("retry-after-ms", "").strip()[:100]
    yield float(milliseconds) / 1e3 if _NUMBER.fullmatch(milliseconds) else None
    after = headers.get("retry-after", "")
    yield duration_s(after, now_wall_s=now_s)
    moment_s = _http_date_s(after)
    yield None if moment_s is None else _from_now(moment_s, now_s)
    yield from _waits_in_body(body_error, now_s)
    yield _exhausted_reset_s(_limits(headers, "", now_s))


def _waits_in_body(
    body_error: Mapping[str, object] | str | None, now_s: float | None
) -> Iterator[float | None]:
    if isinstance(body_error, str):
        yield _phrase_s(body_error)
    if not isinstance(body_error, Mapping):
        return
    availability = body_error.get("availability")
    if isinstance(availability, Mapping):
        yield _plain_s(availability.get("retry_after"), now_s)
    details = body_error.get("details")
    for item in details[:10] if isinstance(details, list) else ():
        if isinstance(item, Mapping):  # Gemini's RetryInfo
            yield _plain_s(item.get("retryDelay"), now_s)
    for name in ("message", "error", "detail"):
        text = body_error.get(name)
        if isinstance(text, str):
            yield _phrase_s(text)
    metadata = body_error.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if isinstance(inner, Mapping):  # OpenRouter repeats its limit headers in the body
        lower = {str(name).lower(): str(value) for name, value in list(inner.items())[:50]}
        yield _exhausted_reset_s(_limits(lower, "", now_s))


def _plain_s(value: object, now_s: float | None) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return duration_s(str(value), now_wall_s=now_s)


def _phrase_s(message: str) -> float | None:
    """The wait in "Please try again in 9m38.016s", "Please retry after 26 seconds" and their like."""
    phrase = _WAIT_PHRASE.search(message[:4_000])
    if phrase is None:
        return None
    amount, word = phrase[1].rstrip("."), phrase[2]
    if word is None:
        return duration_s(amount)
    return float(amount) * _WORDS_S[word.lower()] if _NUMBER.fullmatch(amount) else None


def _exhausted_reset_s(hints: Iterable[LimitHint]) -> float | None:
    resets = [hint.reset_s for hint in hints if hint.remaining == 0 and hint.reset_s is not None]
    return max(resets, default=None)


_COUNT = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?", re.ASCII)
_FIELD = "(?P<field>limit|remaining|reset)"
_WINDOW = "(?P<window>second|minute|hour|day|month)"
_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:x-)?ratelimit-{_FIELD}-(?P<kind>req|requests|tokens)(?:-{_WINDOW})?",
        rf"(?:x-)?ratelimit-{_FIELD}-(?P<scope>project)-(?P<kind>requests|tokens)",
        # Fireworks. Its third budget, of generated tokens, is left out: it is no bound on prompt and answer together.
        rf"x-ratelimit-{_FIELD}-(?P<kind>tokens)-(?P<scope>prompt|cache-adjusted-prompt)",
        rf"(?P<scope>anthropic)-ratelimit-(?P<kind>requests|tokens)-{_FIELD}",
        rf"x-(?P<kind>token)limit-{_FIELD}",
        rf"x-ratelimit(?P<kind>bysize)-{_FIELD}-{_WINDOW}",
        rf"(?:x-)?ratelimit-{_FIELD}",
        r"x-ratelimit-(?P<field>renewalperiod)-(?P<kind>requests|tokens)",
    )
)


class _Slot(NamedTuple):
    """Where a header belongs: `bucket` groups the fields of one budget."""

    bucket: tuple[Kind, str, str]
    field: str
    window_s: float | None


@lru_cache(maxsize=512)
def _slot(name: str) -> _Slot | None:
    for pattern in _NAMES:
        found = pattern.fullmatch(name)
        if found is not None:
            parts = found.groupdict()
            kind: Kind = "requests" if parts.get("kind") in (None, "req", "requests") else "tokens"
            window = parts.get("window") or ""
            bucket = (kind, parts.get("scope") or "", window)
            return _Slot(bucket, parts["field"], _NAMED_WINDOWS_S.get(window))
    return None


def limits(headers: Mapping[str, str], *, dialect: str) -> tuple[LimitHint, ...]:
    """The budgets that the headers speak of, one for each kind and window: where several do, the tightest."""
    return _limits(headers, dialect, None)


class Nonsense(NamedTuple):
    """A header that should state a limit and states none; `header` as `name: value`.

    `is_a_word`: it says in some way that there is no limit, as nothing, -1 and 0 do.
    """

    scope: LimitScope
    header: str
    is_a_word: bool


def nonsense(headers: Mapping[str, str]) -> list[Nonsense]:
    """-1 and 0 are usual for "none", and are left out."""
    found: list[Nonsense] = []
    for name, value in headers.items():
        slot = _slot(name) if "limit" in name else None
        if slot is not None and slot.field == "limit" and _count(value) is None:
            word = value.strip()[:40]
            is_a_word = word.lower() in _NO_LIMIT
            found.append(Nonsense(LimitScope(slot.bucket[0]), f"{name}: {word!r}", is_a_word))
    return found


def _limits(headers: Mapping[str, str], dialect: str, now_s: float | None) -> tuple[LimitHint, ...]:
    budgets: dict[tuple[Kind, str, str], dict[str, str]] = {}
    windows_s: dict[tuple[Kind, str, str], float | None] = {}
    for name, value in headers.items():
        if "limit" in name:  # cheap, and true of no more than a few of the thirty headers of a reply
            slot = _slot(name)
            if slot is not None:
                budgets.setdefault(slot.bucket, {})[slot.field] = value
                windows_s[slot.bucket] = slot.window_s
    if not budgets:
        return ()
    date_s = _http_date_s(headers.get("date"))
    now_s = now_s if date_s is None else date_s
    tightest: dict[tuple[LimitScope, float], LimitHint] = {}
    for bucket, fields in budgets.items():
        hint = _hint(bucket[0], fields, windows_s[bucket], dialect, now_s)
        if hint is not None:
            place = (hint.scope, hint.window_s)
            tightest[place] = _tighter(tightest.get(place), hint)
    return tuple(tightest.values())


def _hint(
    kind: Kind, fields: Mapping[str, str], named_s: float | None, dialect: str, now_s: float | None
) -> LimitHint | None:
    limit = _count(fields.get("limit"))
    if "limit" in fields and (limit is None or limit <= 0):
        return None  # 0 and -1 stand for "not counted here", and then so does the rest
    remaining = _count(fields.get("remaining"))
    remaining = None if remaining is None or remaining < 0 else remaining
    reset = fields.get("reset", "")
    reset_s = duration_s(reset, now_wall_s=now_s)
    if reset_s is not None and not 0 <= reset_s <= _NAMED_WINDOWS_S["month"] * 2:
        reset_s = None
    if limit is None and remaining is None:
        return None
    window_s = (
        named_s
        or _period_s(fields.get("renewalperiod"))
        or _inferred_window_s(limit, remaining, reset_s, _step_s(reset))
        or _usual_window_s(dialect, kind, reset_s)
    )
    return LimitHint(LimitScope(kind), limit, remaining, reset_s, window_s)


def _tighter(known: LimitHint | None, hint: LimitHint) -> LimitHint:
    """The lower limit of two; what remains is the least that either says."""
    if known is None:
        return hint
    tight, other = (hint, known) if (hint.limit or math.inf) < (known.limit or math.inf) else (known, hint)
    if other.remaining is not None and (tight.remaining is None or other.remaining < tight.remaining):
        return tight._replace(remaining=other.remaining, reset_s=other.reset_s)
    return tight


def _count(text: str | None) -> float | None:
    text = "" if text is None else text.strip()[:100]
    if _COUNT.fullmatch(text) is None:
        return None
    number = float(text.replace(",", ""))
    return number if abs(number) <= _ABSURD else None


def _period_s(text: str | None) -> float | None:
    period_s = None if text is None else duration_s(text)
    return period_s if period_s is not None and 0 < period_s <= _NAMED_WINDOWS_S["month"] else None


def _inferred_window_s(
    limit: float | None, remaining: float | None, reset_s: float | None, step_s: float
) -> float | None:
    """Limiters refill steadily, so what was taken and the time until all of it is back give the window away."""
    if limit is None or remaining is None or not reset_s:
        return None
    used = limit - remaining
    if used < 1 or reset_s < step_s * _ROUNDING_STEPS:
        return None
    window_s = limit * reset_s / used
    nearest = min(_WINDOWS_S, key=lambda known_s: abs(math.log(window_s / known_s)))
    return nearest if 1 / _SNAP_FACTOR <= window_s / nearest <= _SNAP_FACTOR else None


def _step_s(reset: str) -> float:
    """What a reset is rounded to: milliseconds with units, else as many places as are written."""
    if not _NUMBER.fullmatch(reset.strip()[:100]):
        return 1e-3
    return 10.0 ** -min(len(reset.strip().partition(".")[2]), 3)


def _usual_window_s(dialect: str, kind: Kind, reset_s: float | None) -> float:
    """A window is at least as long as the time until its reset."""
    usual_s = _USUAL_WINDOWS_S.get((dialect, kind), _USUAL_WINDOW_S)
    if reset_s is None or reset_s <= usual_s:
        return usual_s
    return next((known_s for known_s in _WINDOWS_S if known_s >= reset_s), _WINDOWS_S[-1])
