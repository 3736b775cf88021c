from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batchllm.simulate.schemas import Draws, SchemaError, make_instance


def digest(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "parent"],
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = [
    {"type": "object", "properties": {"label": {"enum": ["a", "b", "c"]}}, "required": ["label"]},
    {"enum": [1, "two", None, [3]]},
    {"const": {"a": 1}},
    {"type": "string"},
    {"type": "string", "minLength": 60, "maxLength": 61},
    {"type": "string", "maxLength": 3},
    {"type": "string", "maxLength": 0},
    *(
        {"type": "string", "format": form}
        for form in ("date", "date-time", "time", "uuid", "email", "uri", "ipv4")
    ),
    {"type": "integer"},
    {"type": "integer", "minimum": 3, "maximum": 4},
    {"type": "integer", "minimum": -3, "maximum": -3},
    {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 3},
    {"type": "integer", "exclusiveMinimum": 1.5, "exclusiveMaximum": 2.5},
    {"type": "integer", "minimum": 7, "multipleOf": 5},
    {"type": "integer", "minimum": 1, "multipleOf": 1.5},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "minimum": 0.1, "maximum": 0.1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-6},
    {"type": "number", "minimum": 0, "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.25},
    {"type": "number", "minimum": 0.1, "maximum": 0.9, "multipleOf": 0.1},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 4},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    {"type": "array", "minItems": 2, "maxItems": 2},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"type": "object"},
    {"type": "object", "required": ["x"]},
    {"properties": {"a": {"minimum": 3}, "b": {"items": {"type": "boolean"}}}, "required": ["a", "b"]},
    {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    {"type": "object", "oneOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}], "required": ["b"]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ],
        "required": ["c"],
    },
    {"$defs": {"x/y": {"type": "integer"}}, "$ref": "#/$defs/x~1y"},
    {"$ref": "#/prefixItems/1", "prefixItems": [True, {"type": "integer"}]},
    TREE,
    {"type": "array", "items": {"$ref": "#"}},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_what_is_made_fits(schema: dict[str, object]) -> None:
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for number in range(60):
        validator.validate(make_instance(schema, digest(number)))


def test_anything_fits_true() -> None:
    assert isinstance(make_instance(True, digest(0)), str)


@pytest.mark.parametrize("schema", [SCHEMAS[0], TREE], ids=["flat", "tree"])
def test_the_same_digest_makes_the_same(schema: dict[str, object]) -> None:
    assert make_instance(schema, digest(7)) == make_instance(schema, digest(7))


def test_other_digests_make_all_of_an_enum() -> None:
    made = {str(make_instance({"enum": ["a", "b", "c"]}, digest(number))) for number in range(60)}
    assert made == {"a", "b", "c"}


def test_all_properties_are_made_not_only_the_required() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    made = make_instance(schema, digest(0))
    assert isinstance(made, dict)
    assert list(made) == ["a", "b"]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (False, "false fits nothing"),
        ({"enum": []}, "enum is empty"),
        ({"type": "strin"}, "type 'strin' is unknown"),
        ({"type": "array", "items": 5, "minItems": 1}, "no object"),
        ({"$ref": "#/nowhere"}, "points to nothing"),
        ({"$ref": "https://example.com/s.json"}, "points out of the schema"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"allOf": [{"$ref": "#"}]}, "requires itself without end"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "requires itself without end",
        ),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no integer"),
        ({"type": "number", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 5}, "no number"),
        ({"type": "number", "multipleOf": 0}, "multipleOf"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength is below"),
        ({"type": "string", "minLength": 10**9}, "minLength is above"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems is below"),
        ({"type": "array", "minItems": 10**9, "items": {"type": "null"}}, "more than"),
        (
            {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"type": "boolean"}},
            "different values",
        ),
    ],
    ids=str,
)
def test_what_nothing_fits_is_refused_with_its_reason(schema: dict[str, object] | bool, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        make_instance(schema, digest(0))


@given(st.integers(1, 1000), st.integers(0, 50))
def test_draws_stay_below_their_count(count: int, number: int) -> None:
    draws = Draws(digest(number))
    assert all(0 <= draws.below(count) < count for _ in range(20))
