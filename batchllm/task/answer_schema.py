"""The JSON Schema of an answer: is a text such an answer, and which columns does it fill.

The decision is jsonschema's (Draft 2020-12), strictly: surrounding whitespace and one Markdown fence around the JSON
are taken off, nothing else is mended, since a mended answer is a guess. One enum costs about 6 µs a row, ten
properties 55 µs, so there is no second, faster checker that could disagree.

A property becomes a column of the type that its schema pins: text, integer, number, truth value, or a list of one of
these; all else is kept as JSON text. Null and a missing property are null. An integer beyond 64 bits fits no column
and is therefore no answer.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import pyarrow as pa

from batchllm.errors import InvariantError
from batchllm.prompt import well_formed

_FENCE = "```"
_FAULT_CHARS = 300
_INT64 = range(-(2**63), 2**63)
_REF_STEPS = 32
#: What is accepted here must read back in another thread, with another stack above it.
_DEPTH_LIMIT = 200
#: Keywords whose members are named by the author, so that a key in there is no keyword.
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_DATA = frozenset({"const", "default", "enum", "examples"})
_JSON_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
}
#: A value of each JSON type; a schema that refers to itself without end is met by one of them.
_PROBES: tuple[object, ...] = (None, True, 0, "", [], {})


class AnswerSchemaError(ValueError):
    """A schema that cannot be used; `path` is the way to the place inside it."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(f"{_place(path)}: {message}" if path else message)


class _Column(NamedTuple):
    name: str
    field: pa.Field
    convert: Callable[[Any], object]


class AnswerSchema:
    """Raises AnswerSchemaError."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        # Takes 70 ms to load, and most jobs have no schema.
        import jsonschema
        from referencing import Registry

        _check_shape(schema)
        check_schema(schema)
        _check_references(schema)
        # The empty registry keeps a reference from being fetched, whatever it says.
        self._validator = jsonschema.Draft202012Validator(schema, registry=Registry())
        self._explain = jsonschema.exceptions.best_match
        self._check_end(schema)
        self._columns = tuple(_column(name, part, schema) for name, part in schema["properties"].items())
        self.fields: tuple[pa.Field, ...] = tuple(column.field for column in self._columns)

    def fault(self, text: str) -> str | None:
        """Why `text` is no such answer, and where; None when it is one."""
        try:
            answer = _parse(text)
        except ValueError as error:
            return _cut(f"the answer is no JSON: {error}")
        except RecursionError:
            return "the answer is nested too deep"
        try:
            if not self._validator.is_valid(answer):
                return self._described(answer)
            self._values(answer)
        except RecursionError:
            return "the answer is nested too deep"
        except OverflowError as error:
            return str(error)
        return None

    def columns(self, texts: Sequence[str | None]) -> list[pa.Array]:
        """Texts without a fault → one array for each of `fields`; an answer that is no text has nulls."""
        nothing: list[object] = [None] * len(self._columns)
        rows = [nothing if text is None else self._values(self._accepted(text)) for text in texts]
        return [
            pa.array([row[at] for row in rows], column.field.type) for at, column in enumerate(self._columns)
        ]

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

    def _described(self, answer: object) -> str:
        error = self._explain(self._validator.iter_errors(answer))
        if error is None:
            raise InvariantError("an answer that does not fit its schema has no fault")
        return _cut(f"{_place(error.absolute_path) or 'the answer'}: {error.message}")

    def _check_end(self, schema: Mapping[str, Any]) -> None:
        for probe in _PROBES:
            try:
                self._validator.is_valid(dict.fromkeys(schema["properties"], probe))
            except RecursionError:
                _refuse((), "a $ref leads back to itself without end")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises AnswerSchemaError where it is no JSON Schema."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        _refuse(error.absolute_path, error.message)


def _parse(text: str) -> Any:
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE):
        language, _, inside = body[len(_FENCE) : -len(_FENCE)].partition("\n")
        if language.strip().lower() in {"", "json"}:
            body = inside.strip()
    answer = _DECODER.decode(body)
    if body.count("[") + body.count("{") > _DEPTH_LIMIT and _depth(answer) > _DEPTH_LIMIT:
        raise RecursionError
    return answer


def _depth(answer: object) -> int:
    depth, level = 0, [answer]
    while level:
        depth += 1
        members = [
            part.values() if isinstance(part, dict) else part
            for part in level
            if isinstance(part, dict | list)
        ]
        level = [inner for some in members for inner in some if isinstance(inner, dict | list)]
    return depth


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{digits} is no finite number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# Not orjson, which turns integers beyond 64 bits into floats, and of two equal keys silently takes the last.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _converted(column: _Column, value: object) -> object:
    try:
        return None if value is None else column.convert(value)
    except OverflowError:
        raise OverflowError(_cut(f"{column.name}: a number in it is too large for 64 bits")) from None


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
            schema = _target(schema["$ref"], root)
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


def _target(reference: str, root: Mapping[str, Any]) -> object:
    """What a JSON pointer inside the schema leads to. Raises KeyError, IndexError, ValueError, TypeError."""
    place: Any = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        place = place[int(name)] if isinstance(place, list) else place[name]
    return place


def _check_shape(schema: Mapping[str, Any]) -> None:
    if schema.get("type") != "object":
        _refuse((), "the answer must be an object: type: object")
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        _refuse((), "properties must name at least one property: each becomes a column")
    if "" in properties:
        _refuse(("properties",), "a property needs a name: it becomes a column")


def _check_references(root: Mapping[str, Any]) -> None:
    for path, keyword, value in _keywords(root, ()):
        if keyword in {"$dynamicRef", "$recursiveRef"} or (keyword == "$id" and len(path) > 1):
            _refuse(
                path,
                f"{keyword} is not supported; use $ref with a place in this schema, such as #/$defs/name",
            )
        if keyword == "$ref" and isinstance(value, str):
            if value != "#" and not value.startswith("#/"):
                _refuse(path, f"{value!r} is not in this schema; nothing is fetched: put it under $defs")
            try:
                _target(value, root)
            except (LookupError, TypeError, ValueError):
                _refuse(path, f"there is no {value!r} in this schema")


def _keywords(
    schema: object, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str, object]]:
    if isinstance(schema, list):
        for at, part in enumerate(schema):
            yield from _keywords(part, (*path, at))
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        here = (*path, keyword)
        yield here, keyword, value
        if keyword in _NAMED_SCHEMAS and isinstance(value, Mapping):
            for name, part in value.items():
                yield from _keywords(part, (*here, name))
        elif keyword not in _DATA:
            yield from _keywords(value, here)


def _refuse(path: Iterable[str | int], message: str) -> NoReturn:
    raise AnswerSchemaError(tuple(path), message)


def _place(path: Iterable[str | int]) -> str:
    return ".".join(map(str, path))


def _cut(text: str) -> str:
    return text if len(text) <= _FAULT_CHARS else text[: _FAULT_CHARS - 1] + "…"
