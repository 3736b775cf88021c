"""The environment that templates run in: what they may call, and how much of it.

A template is written by the job's author, but job files are passed around and rows come from anywhere; neither may
reach into the interpreter or stall it. Jinja's own sandbox keeps a template from private attributes and from
changing values. What it leaves open is closed here:

    calls    only methods named in `_METHODS`; nothing that draws lots or reads a clock
    size     a value that the template builds has at most `SIZE_LIMIT` characters, with all inside it
    work     rounds of loops, and the length of what filters, tests, comparisons and methods go over: `WORK_LIMIT`
             units of 256 characters or 16 members
    text     what is printed, at most the template's limit

The usual bombs end within half a second. There is no limit in seconds, because a decision has no clock: a template
made for it can still waste minutes on a row of many megabytes, and hold some hundred MB before it meets a bound.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from html import escape
from string import Formatter
from types import BuiltinMethodType, FunctionType
from typing import Any

from jinja2 import (
    Environment,
    StrictUndefined,
    Undefined,
    UndefinedError,
    filters,
    pass_context,
    pass_environment,
)
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from batchllm.prompt.text import check_present, to_json, to_text

TEXT_LIMIT = 4 * 1024 * 1024
SIZE_LIMIT = 4 * 1024 * 1024
WORK_LIMIT = 1_000_000
RANGE_LIMIT = 10_000
_WIDTH_DIGITS = 4
_POWER_BITS = 4096
_INDENT_LIMIT = 8
_PRECISION_LIMIT = 100


class MissingColumnError(UndefinedError):
    """The message is the column's name."""


class _Absent(StrictUndefined):
    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = UndefinedError
    ) -> None:
        if hint is None and obj is missing and name is not None:
            hint, exc = name, MissingColumnError
        super().__init__(hint, obj, name, exc)


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > RANGE_LIMIT:
        raise ValueError(f"range() gives at most {RANGE_LIMIT:,} numbers")
    return numbers


class Rendering(Context):
    """One rendering: the row's values and what is left of the allowances."""

    def __init__(self, environment: Environment, row: Mapping[str, object], room: int) -> None:
        super().__init__(environment, {**row, "range": _bounded_range}, None, {})
        self.row = row
        self.room = room
        self.work = WORK_LIMIT

    def charge(self, value: object, rounds: int = 1) -> None:
        if isinstance(value, str):
            rounds += len(value) >> 8
        elif isinstance(value, list | tuple | dict | range):
            rounds += len(value) >> 4
        self.work -= rounds
        if self.work < 0:
            raise ValueError("the template does too much work for one row (loops over very many values?)")


def size_of(value: object) -> int:
    """Characters of a value with all inside it, a member counted as 16; counted no further than the limit."""
    total, rest = 0, [value]
    while rest and total <= SIZE_LIMIT:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, list | tuple | dict | range):
            total += len(item) << 4
        if isinstance(item, list | tuple):
            rest.extend(item)
        elif isinstance(item, dict):
            rest.extend(item.values())
    return total


def _check_size(size: int) -> None:
    if size > SIZE_LIMIT:
        raise ValueError(f"the template builds a value that is too large (limit: {SIZE_LIMIT:,} characters)")


def _multiply(left: Any, right: Any) -> object:
    for some, times in ((left, right), (right, left)):
        if isinstance(some, str | list | tuple) and isinstance(times, int):
            _check_size((size_of(some) + 1) * times)
    _check_bits(left, right, 1)
    return left * right


def _power(left: Any, right: Any) -> object:
    _check_bits(left, right, right)
    return left**right


def _check_bits(left: object, right: object, times: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * times > _POWER_BITS:
        raise ValueError("a number in the template grows too large")


def _add(left: Any, right: Any) -> object:
    if isinstance(left, str | list | tuple):
        _check_size(size_of(left) + size_of(right))
    return left + right


def _modulo(left: Any, right: Any) -> object:
    return _format_percent(left, right) if isinstance(left, str) else left % right


def _format_percent(template: str, values: object) -> str:
    found = re.findall(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?", template)
    held = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else (values,)
    _check_format(template, [width for pair in found for width in pair], len(found), held)
    return template % values


def _format_braces(template: str, render: Callable[..., str], *values: object, **named: object) -> str:
    found = [spec or "" for _, field, spec, _ in Formatter().parse(template) if field is not None]
    widths = [width for spec in found for width in re.findall(r"\d+|[{}]", spec)]
    _check_format(template, widths, len(found), (*values, *named.values()))
    return render(*values, **named)


def _check_format(template: str, widths: list[str], fields: int, values: Iterable[object]) -> None:
    if any(len(width) > _WIDTH_DIGITS or width in {"*", "{", "}"} for width in widths):
        raise ValueError("a width in a format is written out, with at most four digits")
    held = 0
    for value in values:
        check_present(value)
        held += size_of(value)
    _check_size(len(template) + sum(int(width) for width in widths if width) + fields * held)


def _replace(text: object, old: str, new: str, count: int | None = None) -> str:
    whole, most = to_text(text), -1 if count is None else count
    found = whole.count(old)
    _check_size(len(whole) + len(new) * (found if most < 0 else min(most, found)))
    return whole.replace(old, new, most)


def _join(separator: str, values: Iterable[object]) -> str:
    texts = [to_text(value) for value in values]
    _check_size(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


_CHECKED: dict[str, Callable[..., str]] = {"join": _join, "replace": _replace}


def _guard(value: Any) -> Any:
    """Methods of text that can blow up are handed out with a check in front."""
    if isinstance(value, BuiltinMethodType) and isinstance(value.__self__, str):
        checked = _CHECKED.get(value.__name__)
        return value if checked is None else partial(checked, value.__self__)
    if isinstance(value, FunctionType):  # Jinja's own guard around format()
        return partial(_format_braces, inspect.unwrap(value).__self__, value)
    return value


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Without the optimizer nothing of a template runs while it is compiled.
        super().__init__(undefined=_Absent, keep_trailing_newline=True, optimized=False, autoescape=False)
        self.globals = {"range": _bounded_range}
        self.filters = {**FILTERS, **STEPS}
        self.binop_table.update({"+": _add, "*": _multiply, "**": _power, "%": _modulo})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_allowed = not callable(value) or attr in _METHODS.get(type(obj), ())
        return is_allowed and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _guard(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _guard(super().getitem(obj, argument))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        _metered(
            context,
            function.args[0] if isinstance(function, partial) else getattr(function, "__self__", None),
        )
        return _metered(context, super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return _metered(context, super().call_binop(context, operator, left, right))

    def call_filter(
        self,
        name: str,
        value: Any,
        args: Any = None,
        kwargs: Any = None,
        context: Any = None,
        eval_ctx: Any = None,
    ) -> Any:
        if name not in FILTERS:
            raise ValueError(f"no filter named {name!r}")
        given = _operand(context, value, name)
        return _metered(context, super().call_filter(name, given, args, kwargs, context, eval_ctx))

    def call_test(
        self,
        name: str,
        value: Any,
        args: Any = None,
        kwargs: Any = None,
        context: Any = None,
        eval_ctx: Any = None,
    ) -> Any:
        for part in (value, *(args or ())):
            _metered(context, part)
        return super().call_test(name, value, args, kwargs, context, eval_ctx)


# What the rewriter puts into a template, under names that no template can spell.


@pass_context
def _printed(rendering: Rendering, value: object, name: str) -> str:
    text = value if type(value) is str else to_text(value, name)
    rendering.room -= len(text)
    if rendering.room < 0:
        raise ValueError("the text grows too long")
    return text


@pass_context
def _metered(rendering: Any, value: Any) -> Any:
    rendering.charge(value)
    return value


@pass_context
def _operand(rendering: Any, value: Any, filter_name: str, name: str = "") -> Any:
    if filter_name not in _TAKE_NULL:
        check_present(value, name)
    rendering.charge(value)
    return value


@pass_context
def _built(rendering: Rendering, value: object) -> object:
    size = size_of(value)
    _check_size(size)
    rendering.charge(None, 1 + (size >> 4))
    return value


@pass_context
def _round(rendering: Rendering, _: object, literals: int) -> bool:
    rendering.charge(None, 1 + (literals >> 8))
    return True


@pass_context
def _column(rendering: Rendering, name: str) -> object:
    return rendering.row[name] if name in rendering.row else rendering.environment.undefined(name=name)


STEPS: dict[str, Callable[..., Any]] = {
    "~printed": _printed,
    "~metered": _metered,
    "~operand": _operand,
    "~built": _built,
    "~round": _round,
    "~column": _column,
    "~joined": partial(_join, ""),
}


@pass_environment
def _join_filter(
    environment: Sandbox, values: Iterable[Any], separator: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        values = map(filters.make_attrgetter(environment, attribute), values)
    return _join(separator, values)


@pass_environment
def _sum(environment: Sandbox, values: Iterable[Any], attribute: str | int | None = None) -> object:
    return filters.do_sum(environment, values, attribute)


@pass_environment
def _truncate(environment: Sandbox, text: object, length: int = 255, *options: Any, **named: Any) -> str:
    return filters.do_truncate(environment, to_text(text), length, *options, **named)


def _default(value: Any, instead: Any = "", boolean: bool = False) -> Any:
    if isinstance(value, Undefined):
        return instead
    try:
        check_present(value)
    except ValueError:
        return instead
    return instead if boolean and not value else value


def _indent(text: object, width: int | str = 4, *options: Any, **named: Any) -> str:
    whole, steps = to_text(text), width if isinstance(width, int) else len(width)
    _check_size(len(whole) + (whole.count("\n") + 1) * steps)
    return filters.do_indent(whole, width, *options, **named)


def _round_number(value: float, precision: int = 0, method: Any = "common") -> float:
    if not -_PRECISION_LIMIT <= precision <= _PRECISION_LIMIT:
        raise ValueError(f"round() takes a precision of at most {_PRECISION_LIMIT} places")
    return filters.do_round(value, precision, method)


def _json_filter(value: object, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= _INDENT_LIMIT:
        raise ValueError(f"tojson takes an indent from 0 to {_INDENT_LIMIT}")
    return to_json(value, indent)


_KEPT = (
    "abs", "count", "dictsort", "first", "float", "groupby", "int", "items", "last", "length", "list", "map", "max",
    "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "unique", "urlencode",
)  # fmt: skip

FILTERS: dict[str, Callable[..., Any]] = {
    **{name: filters.FILTERS[name] for name in _KEPT},
    "capitalize": lambda text: to_text(text).capitalize(),
    "d": _default,
    "default": _default,
    "e": lambda text: escape(to_text(text)),
    "escape": lambda text: escape(to_text(text)),
    "format": lambda template, *values, **named: _format_percent(template, named or values),
    "indent": _indent,
    "join": _join_filter,
    "lower": lambda text: to_text(text).lower(),
    "replace": _replace,
    "round": _round_number,
    "string": to_text,
    "sum": _sum,
    "title": lambda text: filters.do_title(to_text(text)),
    "tojson": _json_filter,
    "trim": lambda text, characters=None: to_text(text).strip(characters),
    "truncate": _truncate,
    "upper": lambda text: to_text(text).upper(),
    "wordcount": lambda text: len(to_text(text).split()),
}
_TAKE_NULL = frozenset({"d", "default", "tojson", *STEPS})

_MOMENT = frozenset(
    {"date", "isocalendar", "isoformat", "isoweekday", "strftime", "time", "toordinal", "weekday"}
)
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    }),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    float: frozenset({"is_integer"}),
    date: _MOMENT,
    datetime: _MOMENT,
    time: _MOMENT,
    timedelta: frozenset({"total_seconds"}),
    LoopContext: frozenset({"changed", "cycle"}),
}  # fmt: skip
