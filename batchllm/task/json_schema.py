"""A JSON Schema that a model's words are held to: an answer, or the arguments of a call.

The decision is jsonschema-rs's (Draft 2020-12), strictly, and so are the words for it: there is no second checker that
could disagree. It takes 0.2 µs where jsonschema takes 20, reckons with decimals (4.35 is a multiple of 0.01), and a
pattern can neither hang it (backtracking is bounded) nor mean something else than in JSON Schema (ECMA-262, not `re`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from batchllm.errors import InvariantError
from batchllm.prompt import well_formed

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

_FAULT_CHARS = 300
#: A long fault keeps its end, where the reason stands; before it comes the value.
_FAULT_START = 100
#: What is accepted here must read back in another thread, with another stack above it.
_DEPTH_LIMIT = 200
#: Keywords whose members are named by the author, so that a key in there is no keyword.
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_DATA = frozenset({"const", "default", "enum", "examples"})
#: Keywords whose schema, or list of schemas, holds for the same value, not for a part of it.
_FOR_THE_SAME_VALUE = ("not", "if", "then", "else")
_EACH_FOR_THE_SAME_VALUE = ("allOf", "anyOf", "oneOf")


class JsonSchemaError(ValueError):
    """A schema that cannot be used; `path` is the way to the place inside it."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(f"{_place(path)}: {message}" if path else message)


class JsonSchema:
    """Raises JsonSchemaError."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        # Takes 20 ms to load, and most jobs have no schema.
        from jsonschema_rs import Draft202012Validator, ValidationError

        _check_references(schema)
        try:
            self._validator = Draft202012Validator(dict(schema), offline=True)
        except ValidationError as error:
            _refuse(error.instance_path, clipped(error.message))
        except ValueError as error:  # a date, or half of a surrogate pair
            _refuse((), f"no JSON: {error}")

    def fault(self, value: object, name: str) -> str | None:
        """Why a parsed value does not fit, and where; `name` is what the value as a whole is called."""
        try:
            if self._validator.is_valid(value):
                return None
            errors = list(self._validator.iter_errors(value))
        except UnicodeEncodeError:  # half of a surrogate pair, which is kept as U+FFFD
            return self.fault(json.loads(well_formed(json.dumps(value, ensure_ascii=False))), name)
        if not errors:
            raise InvariantError(f"{name} does not fit its schema and has no fault")
        error = _nearest(errors)
        return clipped(f"{_place(error.instance_path) or name}: {error.message}")


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
    if len(text) <= _FAULT_CHARS:
        return text
    return text[:_FAULT_START] + "…" + text[_FAULT_START + 1 - _FAULT_CHARS :]


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


def _nearest(errors: Sequence["ValidationError"]) -> "ValidationError":
    """The error that says most: the outermost, and of a choice the one of the only branch that is meant."""
    error = min(errors, key=lambda error: (len(error.instance_path), hasattr(error.kind, "context")))
    branches = [branch for branch in getattr(error.kind, "context", ()) if branch]
    meant = [branch for branch in branches if _is_meant(branch, error)]
    return _nearest(meant[0]) if len(meant) == 1 else error


def _is_meant(branch: Sequence["ValidationError"], choice: "ValidationError") -> bool:
    """Whether the value is at least of the type that this branch of a choice wants."""
    return not any(
        error.kind.name == "type" and error.instance_path == choice.instance_path for error in branch
    )


def _check_references(root: Mapping[str, Any]) -> None:
    done: set[str] = set()
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
    for path, keyword, value in _keywords(root, ()):
        if keyword == "$ref" and isinstance(value, str) and _comes_back(value, root, (), done):
            _refuse(path, "a $ref leads back to itself without end")


def _comes_back(reference: str, root: Mapping[str, Any], chain: tuple[str, ...], done: set[str]) -> bool:
    """Whether what holds for one value leads round to itself; `done` holds references that do not."""
    if reference in chain or reference in done:
        return reference in chain
    found = any(
        _comes_back(inner, root, (*chain, reference), done) for inner in _same_value(target(reference, root))
    )
    if not found:
        done.add(reference)
    return found


def _same_value(schema: object) -> Iterator[str]:
    """The references of a schema that hold for the value itself, not for a part of it."""
    if not isinstance(schema, Mapping):
        return
    if isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    inner = [schema.get(word) for word in _FOR_THE_SAME_VALUE]
    for word in _EACH_FOR_THE_SAME_VALUE:
        choices = schema.get(word)
        inner += choices if isinstance(choices, list) else []
    dependent = schema.get("dependentSchemas")
    inner += dependent.values() if isinstance(dependent, Mapping) else []
    for part in inner:
        yield from _same_value(part)


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
