"""The JSON Schema of an answer: is a text such an answer, and which columns does it fill.

A property becomes a column of the type that its schema pins: text, integer, number, truth value, or a list of one of
these; all else is kept as JSON text. Null and a missing property are null. An integer beyond 64 bits fits no column
and is therefore no answer.

Classification brings the same few texts over and over: what was found of a short text is remembered.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from batchllm.errors import InvariantError
from batchllm.prompt import well_formed
from batchllm.task.json_schema import JsonSchema, JsonSchemaError, clipped, parse, target

_FENCE = "```"
_INT64 = range(-(2**63), 2**63)
_REF_STEPS = 32
_TOO_DEEP = "the answer is nested too deep"
#: Characters of a text whose verdict and values are remembered, and how many such texts; a megabyte or two at most.
_SHORT, _REMEMBERED = 128, 2_048
_JSON_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
}


class _Column(NamedTuple):
    name: str
    field: pa.Field
    convert: Callable[[Any], object]


class AnswerSchema:
    """Raises JsonSchemaError."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        _check_shape(schema)
        self._schema = JsonSchema(schema)
        self._columns = tuple(_column(name, part, schema) for name, part in schema["properties"].items())
        self.fields: tuple[pa.Field, ...] = tuple(column.field for column in self._columns)
        self._remembered_fault = lru_cache(_REMEMBERED)(self._fault)
        self._remembered_row = lru_cache(_REMEMBERED)(self._row)

    def fault(self, text: str) -> str | None:
        """Why `text` is no such answer, and where; None when it is one."""
        return self._remembered_fault(text) if len(text) <= _SHORT else self._fault(text)

    def _fault(self, text: str) -> str | None:
        try:
            answer = _parse(text)
        except ValueError as error:
            return clipped(f"the answer is no JSON: {error}")
        except RecursionError:
            return _TOO_DEEP
        fault = self._schema.fault(answer, "the answer")
        if fault is not None:
            return fault
        try:
            self._values(answer)
        except RecursionError:
            return _TOO_DEEP
        except OverflowError as error:
            return str(error)
        return None

    def columns(self, texts: Sequence[str | None]) -> list[pa.Array]:
        """Texts without a fault → one array for each of `fields`; an answer that is no text has nulls."""
        nothing: list[object] = [None] * len(self._columns)
        rows = [
            nothing
            if text is None
            else self._remembered_row(text)
            if len(text) <= _SHORT
            else self._row(text)
            for text in texts
        ]
        return [
            pa.array([row[at] for row in rows], column.field.type) for at, column in enumerate(self._columns)
        ]

    def _row(self, text: str) -> list[object]:
        return self._values(self._accepted(text))

    def _accepted(self, text: str) -> Mapping[str, object]:
        try:
            answer = _parse(text)
        except ValueError as error:
            raise InvariantError(f"a kept answer is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise InvariantError("a kept answer is no JSON object")
        return answer

    def _values(self, answer: Mapping[str, object]) -> list[object]:
        return [_converted(column, answer.get(column.name)) for column in self._columns]


def _parse(text: str) -> Any:
    """Surrounding whitespace and one Markdown fence are taken off, nothing else is mended: that would be a guess."""
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE):
        language, _, inside = body[len(_FENCE) : -len(_FENCE)].partition("\n")
        if language.strip().lower() in {"", "json"}:
            body = inside.strip()
    return parse(body)


def _converted(column: _Column, value: object) -> object:
    try:
        return None if value is None else column.convert(value)
    except OverflowError:
        raise OverflowError(clipped(f"{column.name}: a number in it is too large for 64 bits")) from None


def _to_int64(value: float) -> int:
    whole = int(value)
    if whole not in _INT64:
        raise OverflowError
    return whole


def _to_json(value: object) -> str:
    return well_formed(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _each(convert: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda values: [None if value is None else convert(value) for value in values]


_SCALARS: dict[str, tuple[pa.DataType, Callable[[Any], object]]] = {
    "string": (pa.string(), well_formed),
    "integer": (pa.int64(), _to_int64),
    "number": (pa.float64(), float),
    "boolean": (pa.bool_(), bool),
}


def _column(name: str, schema: object, root: Mapping[str, Any]) -> _Column:
    kind, part = _kind(schema, root)
    arrow_type, convert = _SCALARS.get(kind, (pa.string(), _to_json))
    if kind == "array" and "prefixItems" not in part:
        item, _ = _kind(part.get("items"), root)
        if item in _SCALARS:
            item_type, convert_item = _SCALARS[item]
            arrow_type, convert = pa.list_(item_type), _each(convert_item)
    return _Column(name, pa.field(name, arrow_type), convert)


def _kind(schema: object, root: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The one JSON type beside null that a value may have, or "" for several; and the schema that says so."""
    part = _resolved(schema, root)
    kinds = _kinds(part) - {"null"}
    if kinds == {"integer", "number"}:
        return "number", part
    return (kinds.pop() if len(kinds) == 1 else ""), part


def _kinds(part: Mapping[str, Any]) -> set[str]:
    if "const" in part:
        return {_JSON_TYPES.get(type(part["const"]), "object")}
    if "enum" in part:
        return {_JSON_TYPES.get(type(value), "object") for value in part["enum"]}
    stated = part.get("type", [])
    return {stated} if isinstance(stated, str) else set(stated)


def _resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Past references, and past a choice between null and one other schema."""
    for _ in range(_REF_STEPS):
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(schema.get("$ref"), str):
            schema = target(schema["$ref"], root)
            continue
        if {"type", "enum", "const"} & schema.keys():
            return schema
        choices: list[object] = next(
            (schema[word] for word in ("anyOf", "oneOf", "allOf") if word in schema), []
        )
        others = [choice for choice in choices if choice != {"type": "null"}]
        if len(others) != 1:
            return {}
        schema = others[0]
    return {}


def _check_shape(schema: Mapping[str, Any]) -> None:
    if schema.get("type") != "object":
        raise JsonSchemaError((), "the answer must be an object: type: object")
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        raise JsonSchemaError((), "properties must name at least one property: each becomes a column")
    if "" in properties:
        raise JsonSchemaError(("properties",), "a property needs a name: it becomes a column")
