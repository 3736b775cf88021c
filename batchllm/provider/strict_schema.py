"""A JSON Schema as strict mode wants it, as far as the meaning stays.

Strict mode enforces a schema while the answer is written, but understands a subset only, and refuses the whole
request for anything else. So a schema is changed where the change is invisible (annotations, closed objects, a type
that the enum tells anyway) and otherwise given back as it was, to be sent without being enforced; answers are
checked against the original schema in either case.
"""

from collections.abc import Iterator, Mapping

#: minLength and its like are left out on purpose: the guides contradict each other, and a refused schema fails every
#: row, while an unenforced one is still checked afterwards.
STRICT_KEYS = frozenset(
    (
        *("$defs", "$ref", "additionalProperties", "anyOf", "const", "definitions", "description", "enum"),
        *("exclusiveMaximum", "exclusiveMinimum", "format", "items", "maximum", "maxItems", "minimum"),
        *("minItems", "multipleOf", "pattern", "properties", "required", "title", "type"),
    )
)
#: Say nothing about which answers are valid, and strict mode refuses some of them.
ANNOTATIONS = frozenset(("$comment", "$schema", "default", "deprecated", "examples", "readOnly", "writeOnly"))
STRICT_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid")
)
WORDS = frozenset(("title", "description"))
TYPE_NAMES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


class OpenSchemaError(ValueError):
    """The schema cannot be closed without changing which answers it means; the text says why."""


def closed_schema(schema: Mapping[str, object]) -> dict[str, object]:
    """Every object closed, every property required. Raises OpenSchemaError.

    An object that does not speak of further properties is closed, and an optional property becomes required when it
    may be null.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        raise OpenSchemaError("its root is not a plain object")
    return _close(schema, "the root")


def _close(node: object, place: str) -> dict[str, object]:
    if not isinstance(node, Mapping):
        raise OpenSchemaError(f"{place} allows anything")
    kept = {key: value for key, value in node.items() if key not in ANNOTATIONS}
    unknown = sorted(kept.keys() - STRICT_KEYS)
    if unknown:
        raise OpenSchemaError(f"{place} uses {unknown[0]}")
    if str(kept.get("format", "date")) not in STRICT_FORMATS:
        raise OpenSchemaError(f"{place} has the format {kept['format']}")
    for key in ("$defs", "definitions"):
        if key in kept:
            kept[key] = dict(_close_each(kept[key], key))
    if "$ref" in kept:
        return _reference(kept, place)
    if "anyOf" in kept:
        return _union(kept, place)
    return _typed(kept, place)


def _close_each(nodes: object, place: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not isinstance(nodes, Mapping):
        raise OpenSchemaError(f"{place} is not a mapping")
    for name, node in nodes.items():
        yield name, _close(node, f"{place}.{name}")


def _reference(kept: dict[str, object], place: str) -> dict[str, object]:
    """A reference stands alone in strict mode; words beside it go around it."""
    reference = kept.pop("$ref")
    if not str(reference).startswith("#"):
        raise OpenSchemaError(f"{place} refers to another document")
    if not kept.keys() <= WORDS:
        raise OpenSchemaError(f"{place} has rules beside its reference")
    return {**kept, "anyOf": [{"$ref": reference}]} if kept else {"$ref": reference}


def _union(kept: dict[str, object], place: str) -> dict[str, object]:
    variants = kept["anyOf"]
    if not isinstance(variants, list) or not kept.keys() <= WORDS | {"anyOf"}:
        raise OpenSchemaError(f"{place} has rules beside anyOf")
    return {**kept, "anyOf": [_close(variant, f"{place}.anyOf") for variant in variants]}


def _typed(kept: dict[str, object], place: str) -> dict[str, object]:
    if "type" not in kept:
        kept["type"] = _type_of(kept, place)
    types = kept["type"] if isinstance(kept["type"], list) else [kept["type"]]
    if "object" in types:
        kept |= _closed_object(kept, place)
    if "array" in types:
        kept["items"] = _close(kept.get("items"), f"{place}.items")
    return kept


def _type_of(kept: Mapping[str, object], place: str) -> object:
    values = kept.get("enum", [kept["const"]] if "const" in kept else None)
    if not isinstance(values, list) or not values or any(type(value) not in TYPE_NAMES for value in values):
        raise OpenSchemaError(f"{place} has no type")
    types = list(dict.fromkeys(TYPE_NAMES[type(value)] for value in values))
    return types[0] if len(types) == 1 else types


def _closed_object(kept: Mapping[str, object], place: str) -> dict[str, object]:
    properties, required = kept.get("properties"), kept.get("required", [])
    if kept.get("additionalProperties", False) is not False or not properties:
        raise OpenSchemaError(f"{place} allows further properties")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise OpenSchemaError(f"{place} is not understood")
    if any(name not in list(properties) for name in required):
        raise OpenSchemaError(f"{place} requires a property that it does not describe")
    for name, node in properties.items():
        if name not in required and not _is_nullable(node):
            raise OpenSchemaError(f"{place}.{name} is optional and may not be null")
    return {
        "properties": dict(_close_each(properties, place)),
        "required": list(properties),
        "additionalProperties": False,
    }


def _is_nullable(node: object) -> bool:
    if not isinstance(node, Mapping):
        return False
    variants = node.get("anyOf")
    if isinstance(variants, list):
        return any(_is_nullable(variant) for variant in variants)
    values = node.get("enum")
    if isinstance(values, list) and None not in values:
        return False
    types = node.get("type", "null" if isinstance(values, list) else None)
    return types == "null" or (isinstance(types, list) and "null" in types)
