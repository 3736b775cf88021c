"""Pinned column types: what a value must be to travel, and what is said when it is not.

A type comes from the job or from the file's own schema, never from the data: row 500,000 must not change what row 1
was. Text is the type of every JSONL and CSV column that the job does not declare; a JSON value that is no text
travels as its JSON text.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa

from batchllm.errors import InputDataError
from batchllm.records import Key
from batchllm.spec.models import ColumnType

ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
#: Whole floats up to here name one integer; beyond, neighbours share one float.
_EXACT = 2**53
_INT64 = range(-(2**63), 2**63)
_SHOWN_CHARS = 80
_LISTED_COLUMNS = 50
#: Types that a list of dicts may hold beside JSON's, and that have one usual text.
_WITH_TEXT = (date, time, Decimal, UUID)
_CSV_INT = re.compile(r"[+-]?0*[0-9]{1,19}", re.ASCII)
_CSV_FLOAT = re.compile(
    r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE
)
_CSV_BOOLS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Shape:
    """The pinned types of what travels from the input to the output (`batchllm.ports.Shape`)."""

    key: pa.Field | None
    carry: tuple[pa.Field, ...]


class RowFault(Exception):  # noqa: N818  # what it names is the row, not the program
    """This row cannot be used; the reader turns it into a BadRow. `key` is the row's, where it could be read."""

    key: Key = None


class KeyFault(RowFault):
    """This row has no key."""


class NumberFault(RowFault):
    """A number that cannot be held; `values` are the columns without one."""

    def __init__(self, message: str, values: dict[str, object]) -> None:
        super().__init__(message)
        self.values = values


class _Misfit(Exception):  # noqa: N818  # never leaves this module
    pass


def json_text(value: object) -> str | None:
    """The text of a JSON value: text as it is, null as None, all else as JSON.

    The standard library writes it: orjson would turn NaN into null and refuse integers beyond 64 bits.
    """
    if value is None or isinstance(value, str):
        return value
    try:
        if type(value) is int or isinstance(value, _WITH_TEXT):
            return str(value)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_text_within)
    except (TypeError, ValueError) as error:
        # Python tells of its own limit on digits in the words of its own remedy.
        reason = "a number of too many digits" if "int_max_str_digits" in str(error) else str(error)
        raise RowFault(f"holds a value that is no JSON: {reason}") from None
    except RecursionError:
        raise RowFault("holds a value that is nested too deeply to be written as text") from None


def _text_within(value: object) -> str:
    if isinstance(value, _WITH_TEXT):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")


def _json_int(value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise _Misfit
    return value


def _json_float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Misfit
    try:
        return float(value)
    except OverflowError:
        raise _Misfit from None


def _json_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Misfit
    return value


def _csv_int(text: str) -> int:
    if not _CSV_INT.fullmatch(text) or (number := int(text)) not in _INT64:
        raise _Misfit
    return number


def _csv_float(text: str) -> float:
    if not _CSV_FLOAT.fullmatch(text):
        raise _Misfit
    number = float(text)
    if math.isinf(number) and "inf" not in text.lower():
        raise RowFault(too_large(text))
    return number


def too_large(number: str) -> str:
    return f"the number {cut_short(number)} is too large"


def _csv_bool(text: str) -> bool:
    if text.lower() not in _CSV_BOOLS:
        raise _Misfit
    return _CSV_BOOLS[text.lower()]


_FROM_JSON: dict[ColumnType, Callable[[object], object]] = {
    "string": json_text,
    "int64": _json_int,
    "float64": _json_float,
    "bool": _json_bool,
}
_FROM_CSV: dict[ColumnType, Callable[[str], object]] = {
    "int64": _csv_int,
    "float64": _csv_float,
    "bool": _csv_bool,
}
_ALREADY: dict[ColumnType, frozenset[type]] = {
    "string": frozenset({str, type(None)}),
    "float64": frozenset({float, type(None)}),
    "bool": frozenset({bool, type(None)}),
    "int64": frozenset(),
}


def fit_column(name: str, kind: ColumnType, values: list[object]) -> list[object]:
    """JSON values of one column as its pinned type. Raises RowFault for the first that does not fit."""
    if _ALREADY[kind].issuperset(map(type, values)):
        return values
    return [fit_value(name, kind, value) for value in values]


def fit_value(name: str, kind: ColumnType, value: object) -> object:
    if value is None:
        return None
    try:
        return _FROM_JSON[kind](value)
    except _Misfit:
        raise _fault(name, kind, value) from None


def fit_text(name: str, kind: ColumnType, text: str) -> object:
    """A CSV field as its pinned type; an empty one is null, unless the column is text."""
    if kind == "string":
        return text
    stripped = text.strip(" \t")
    if not stripped:
        return None
    try:
        return _FROM_CSV[kind](stripped)
    except _Misfit:
        raise _fault(name, kind, text) from None
    except RowFault as fault:
        raise RowFault(f'column "{name}": {fault}') from None


def _fault(name: str, kind: ColumnType, value: object) -> RowFault:
    return RowFault(f'column "{name}" is declared {kind} and holds {shown(value)}')


def shown(value: object) -> str:
    """A value for a message: as JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    return cut_short(text)


def cut_short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def pin_text(
    key: str | None, carry: Iterable[str], declared: Mapping[str, ColumnType]
) -> tuple[Shape, dict[str, ColumnType]]:
    """The shape of JSONL and CSV rows, and the type of each column that has to fit one."""
    if key is not None and declared.get(key, "string") not in ("string", "int64"):
        raise InputDataError(
            f'the key column "{key}" is declared {declared[key]}; a key is text or a whole number',
            remedy=f"say string or int64 in input.columns.{key}",
        )
    carried = [name for name in dict.fromkeys(carry) if name != key]
    pinned: dict[str, ColumnType] = dict(declared)
    for name in (*carried, *([key] if key is not None else [])):
        pinned.setdefault(name, "string")
    fields = tuple(pa.field(name, ARROW_TYPES[pinned[name]]) for name in carried)
    return Shape(None if key is None else pa.field(key, ARROW_TYPES[pinned[key]]), fields), pinned


def pin_seen(
    where: str,
    seen: Sequence[str],
    key: str | None,
    carry: str | Sequence[str],
    declared: Mapping[str, ColumnType],
) -> tuple[Shape, dict[str, ColumnType]]:
    """`pin_text` for rows without a header: `seen` are the fields of the first ones, none if there are no rows."""
    if carry == "all":
        if not declared:
            raise InputDataError(
                f"{where} has no fixed columns, so output.carry: all does not tell which",
                remedy=f"name them in output.carry; seen so far: {', '.join(seen[:_LISTED_COLUMNS]) or 'none'}",
            )
        carry = list(declared)
    carry = [carry] if isinstance(carry, str) else carry
    if seen:
        check_columns(where, seen, key, carry, declared)
    return pin_text(key, carry, declared)


def check_columns(
    where: str, columns: Sequence[str], key: str | None, carry: Iterable[str], declared: Iterable[str]
) -> None:
    """Each column that the job names must be there."""
    named = (
        ("input.key", [] if key is None else [key]),
        ("output.carry", carry),
        ("input.columns", declared),
    )
    for role, names in named:
        for name in names:
            if name not in columns:
                raise unknown_column(where, name, role, columns)


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """The candidate that was most likely meant."""
    folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def unknown_column(where: str, name: str, role: str, columns: Sequence[str]) -> InputDataError:
    """`role` is the job's key that names the column, such as output.carry."""
    near = nearest(name, columns)
    listed = ", ".join(columns[:_LISTED_COLUMNS]) or "none"
    more = f" and {len(columns) - _LISTED_COLUMNS} more" if len(columns) > _LISTED_COLUMNS else ""
    guess = f'did you mean "{near}"? ' if near else ""
    return InputDataError(
        f'{where} has no column "{name}" ({role})', remedy=f"{guess}its columns: {listed}{more}"
    )
