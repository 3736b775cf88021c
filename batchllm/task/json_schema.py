"""A JSON Schema that a model's words are held to: an answer, or the arguments of a call.

The decision is jsonschema's (Draft 2020-12), strictly. One enum costs about 6 µs a row, ten properties 55 µs, so there
is no second, faster checker that could disagree.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote

from batchllm.errors import InvariantError

_FAULT_CHARS = 300
#: What is accepted here must read back in another thread, with another stack above it.
_DEPTH_LIMIT = 200
#: Keywords whose members are named by the author, so that a key in there is no keyword.
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_DATA = frozenset({"const", "default", "enum", "examples"})
#: A value of each JSON type; a schema that refers to itself without end is met by one of them.
_PROBES: tuple[object, ...] = (None, True, 0, "", [], {})


class JsonSchemaError(ValueError):
    """A schema that cannot be used; `path` is the way to the place inside it."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(f"{_place(path)}: {message}" if path else message)


class JsonSchema:
    """Raises JsonSchemaError."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        # Takes 70 ms to load, and most jobs have no schema.
        import jsonschema
        from referencing import Registry

        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            _refuse(error.absolute_path, error.message)
        _check_references(schema)
        # The empty registry keeps a reference from being fetched, whatever it says.
        self._validator = jsonschema.Draft202012Validator(schema, registry=Registry())
        self._explain = jsonschema.exceptions.best_match
        self._check_end(schema)

    def fault(self, value: object, name: str) -> str | None:
        """Why a parsed value does not fit, and where; `name` is what the value as a whole is called."""
        try:
            if self._validator.is_valid(value):
                return None
            error = self._explain(self._validator.iter_errors(value))
        except RecursionError:
            return f"{name} is nested too deep"
        if error is None:
            raise InvariantError(f"{name} does not fit its schema and has no fault")
        return clipped(f"{_place(error.absolute_path) or name}: {error.message}")

    def _check_end(self, schema: Mapping[str, Any]) -> None:
        for probe in _PROBES:
            try:
                self._validator.is_valid(dict.fromkeys(schema.get("properties", ()), probe))
            except RecursionError:
                _refuse((), "a $ref leads back to itself without end")


def parse(text: str) -> Any:
    """Strictly JSON. Raises ValueError, RecursionError where it is nested too deep."""
    value = _DECODER.decode(text)
    if text.count("[") + text.count("{") > _DEPTH_LIMIT and _depth(value) > _DEPTH_LIMIT:
        raise RecursionError
    return value


def target(reference: str, root: Mapping[str, Any]) -> object:
    """What a JSON pointer inside the schema leads to. Raises KeyError, IndexError, ValueError, TypeError."""
    place: Any = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        place = place[int(name)] if isinstance(place, list) else place[name]
    return place


def clipped(text: str) -> str:
    return text if len(text) <= _FAULT_CHARS else text[: _FAULT_CHARS - 1] + "…"


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
                target(value, root)
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
    raise JsonSchemaError(tuple(path), message)


def _place(path: Iterable[str | int]) -> str:
    return ".".join(map(str, path))
