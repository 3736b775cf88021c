"""Arrow values → what a template sees.

    bool, ints, floats, text     as they are
    decimals                     Decimal, written without an exponent
    binary                       bytes
    dates                        datetime.date
    times, timestamps            datetime.time, datetime.datetime (with the column's time zone)
    durations                    datetime.timedelta
    lists, structs, maps         list, dict, dict (a repeated key: the last one)
    dictionaries                 their values
    UUIDs                        their usual text; other extension types: their storage

What Python's date types cannot hold (years outside 1 to 9999, fractions of a microsecond) becomes text in the form
that `str` gives the others, so that a column reads alike from row to row: `2024-05-06 07:08:09.000000001+02:00`.
pyarrow's own conversion is not used for nanoseconds: it raises, or returns pandas' types where pandas is installed,
and the same job would send other prompts on another machine.
"""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal

import pyarrow as pa
from pyarrow import types

from batchllm.carry import Form, is_extension, unfold

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NS = 1_000_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS_IN_400_YEARS = 146_097
_DAY_S = 86_400


class PlainDecimal(Decimal):
    """Reads as people write numbers: 0.00000000, not 0E-8."""

    __slots__ = ()

    def __str__(self) -> str:
        return format(self, "f")


def render(array: pa.Array) -> list[object]:
    """One value an element; null is None."""
    if is_extension(array.type) and array.type.extension_name == "arrow.uuid":
        return [None if raw is None else str(uuid.UUID(bytes=raw)) for raw in array.storage.to_pylist()]
    return unfold(array, _FORM)


def _leaf(array: pa.Array) -> list[object]:
    kind = array.type
    if types.is_decimal(kind):
        return [None if value is None else PlainDecimal(value) for value in array.to_pylist()]
    if not types.is_temporal(kind) or types.is_interval(kind):
        return list(array.to_pylist())
    if (quick := _in_bulk(array)) is not None:
        return quick
    counts = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    return [None if value is None else _temporal(value, kind) for value in counts]


def _in_bulk(array: pa.Array) -> list[object] | None:
    """pyarrow's conversion, where it is exact for all; None where each value needs a look."""
    kind = array.type
    try:
        if getattr(kind, "unit", None) == "ns":
            array = array.cast(_in_microseconds(kind))
        return list(array.to_pylist())
    except (pa.ArrowInvalid, ValueError, OverflowError):
        return None


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if types.is_time(kind) else pa.duration("us")


def _temporal(count: int, kind: pa.DataType) -> object:
    if types.is_date(kind):
        return _date(count if types.is_date32(kind) else count // (_DAY_S * 1000))
    per_second = _UNITS[kind.unit]
    seconds, rest = divmod(count, per_second)
    nanoseconds = rest * (_NS // per_second)
    if types.is_timestamp(kind):
        return _timestamp(seconds, nanoseconds, kind.tz)
    return _time(seconds, nanoseconds) if types.is_time(kind) else _duration(seconds, nanoseconds)


def _date(days: int) -> object:
    year, within = _civil(days)
    return within if year == within.year else f"{_year(year)}-{within:%m-%d}"


def _civil(days: int) -> tuple[int, date]:
    """The true year, and the day in a year that `date` holds: the calendar repeats every 400 years."""
    ordinal = days + _EPOCH_DAY
    if 1 <= ordinal <= date.max.toordinal():
        found = date.fromordinal(ordinal)
        return found.year, found
    cycles, within = divmod(ordinal - 1, _DAYS_IN_400_YEARS)
    shifted = date.fromordinal(within + 1 + _DAYS_IN_400_YEARS)
    return shifted.year - 400 + cycles * 400, shifted


def _year(year: int) -> str:
    return f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"


def _timestamp(seconds: int, nanoseconds: int, zone: str | None) -> object:
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
        moment = moment.replace(tzinfo=None) if zone is None else moment.astimezone(_zone(zone))
    except OverflowError:
        days, second = divmod(seconds, _DAY_S)
        year, within = _civil(days)
        day = f"{_year(year)}-{within:%m-%d}"
        return f"{day} {_clock(second, nanoseconds)}{'' if zone is None else '+00:00'}"
    if nanoseconds % 1000 == 0:
        return moment
    offset = "" if zone is None else str(moment)[-6:]
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds:09d}{offset}"


def _zone(name: str) -> tzinfo:
    return pa.lib.string_to_tzinfo(name)  # type: ignore[no-any-return]  # pyarrow has no annotations


def _clock(second: int, nanoseconds: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{_fraction(nanoseconds)}"


def _fraction(nanoseconds: int) -> str:
    if nanoseconds % 1000:
        return f".{nanoseconds:09d}"
    return f".{nanoseconds // 1000:06d}" if nanoseconds else ""


def _time(second: int, nanoseconds: int) -> object:
    if nanoseconds % 1000 or second >= _DAY_S:
        return _clock(second, nanoseconds)
    return time(second // 3600, second // 60 % 60, second % 60, nanoseconds // 1000)


def _duration(seconds: int, nanoseconds: int) -> object:
    days, second = divmod(seconds, _DAY_S)
    if nanoseconds % 1000 == 0 and abs(days) <= timedelta.max.days - 1:
        return timedelta(days=days, seconds=second, microseconds=nanoseconds // 1000)
    named = f"{days} day{'' if abs(days) == 1 else 's'}, " if days else ""
    return f"{named}{second // 3600}:{second // 60 % 60:02d}:{second % 60:02d}{_fraction(nanoseconds)}"


def _mapping(pairs: list[tuple[object, object]]) -> object:
    try:
        return dict(pairs)
    except TypeError:  # keys that are lists or structs
        return pairs


_FORM = Form(leaf=_leaf, struct=lambda names, values: dict(zip(names, values, strict=True)), mapping=_mapping)


def time_zones(kind: pa.DataType) -> Iterator[str]:
    """The names of the time zones in a type, at every depth."""
    if types.is_timestamp(kind) and kind.tz is not None:
        yield kind.tz
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        yield from time_zones(kind.value_type)
    for at in range(kind.num_fields):
        yield from time_zones(kind.field(at).type)


def is_known_zone(name: str) -> bool:
    try:
        _zone(name)
    except (pa.ArrowException, ValueError, LookupError):
        return False
    return True
