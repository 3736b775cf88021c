"""A schema is closed where that is invisible, and left alone where it is not."""

import copy

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.provider.strict_schema import STRICT_KEYS, OpenSchemaError, closed_schema


def object_of(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_objects_are_closed_at_every_depth() -> None:
    closed = closed_schema(object_of(a={"type": "array", "items": object_of(b={"type": "string"})}))
    assert closed["additionalProperties"] is False
    inner = closed["properties"]["a"]["items"]  # type: ignore[index]
    assert inner["additionalProperties"] is False


def test_an_optional_property_that_may_be_null_becomes_required() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"]},
            "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "c": {"enum": ["x", None]},
        },
    }
    closed = closed_schema(schema)
    assert closed["required"] == ["a", "b", "c"]
    assert closed["properties"]["c"] == {"enum": ["x", None], "type": ["string", "null"]}  # type: ignore[index]


def test_what_says_nothing_about_answers_is_taken_out() -> None:
    schema = {**object_of(a={"type": "string", "default": "x", "examples": ["y"]}), "$schema": "draft"}
    assert closed_schema(schema)["properties"] == {"a": {"type": "string"}}
    assert "$schema" not in closed_schema(schema)


def test_words_beside_a_reference_go_around_it() -> None:
    schema = {
        **object_of(a={"$ref": "#/$defs/A", "description": "the first"}, b={"$ref": "#/$defs/A"}),
        "$defs": {"A": object_of(x={"type": "integer"})},
    }
    closed = closed_schema(schema)
    assert closed["properties"] == {
        "a": {"description": "the first", "anyOf": [{"$ref": "#/$defs/A"}]},
        "b": {"$ref": "#/$defs/A"},
    }
    assert closed["$defs"]["A"]["additionalProperties"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({}, "root"),
        ({"type": "array", "items": {"type": "string"}}, "root"),
        ({**object_of(a={"type": "string"}), "anyOf": []}, "root"),
        ({"type": "object"}, "further properties"),
        ({"type": "object", "properties": {}}, "further properties"),
        ({**object_of(a={"type": "string"}), "additionalProperties": True}, "further properties"),
        ({**object_of(a={"type": "string"}), "additionalProperties": {"type": "string"}}, "further"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "a is optional"),
        (
            {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["x"]}}},
            "a is optional",
        ),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]}, "describe"),
        (object_of(a={}), "has no type"),
        (object_of(a=True), "allows anything"),
        (object_of(a={"type": "array"}), "allows anything"),
        (object_of(a={"enum": []}), "has no type"),
        (object_of(a={"enum": [[1]]}), "has no type"),
        (object_of(a={"type": "string", "minLength": 1}), "uses minLength"),
        (object_of(a={"type": "string", "format": "iri"}), "format iri"),
        (object_of(a={"oneOf": [{"type": "string"}]}), "uses oneOf"),
        (object_of(a={"allOf": [{"type": "string"}]}), "uses allOf"),
        (object_of(a={"anyOf": [{"type": "string"}], "type": "string"}), "beside anyOf"),
        (object_of(a={"$ref": "https://example.com/x"}), "another document"),
        (object_of(a={"$ref": "#/$defs/A", "type": "string"}), "beside its reference"),
        ({**object_of(a={"type": "string"}), "$defs": []}, "mapping"),
        ({"type": "object", "properties": ["a"], "required": []}, "not understood"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": [["a"]]}, "describe"),
    ],
)
def test_what_would_change_the_meaning_is_left_open(schema: dict[str, object], reason: str) -> None:
    with pytest.raises(OpenSchemaError, match=reason):
        closed_schema(schema)


LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": ["string", "null"]},
        {"enum": ["a", "b"]},
        {"type": "integer", "minimum": 0},
        {"type": "string", "minLength": 2},
        {"const": 4},
    ]
)
NAMES = st.sampled_from(["a", "b", "c"])


def objects(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    return st.builds(
        lambda properties, required: {
            "type": "object",
            "properties": properties,
            "required": sorted(required),
        },
        st.dictionaries(NAMES, inner, min_size=1),
        st.sets(NAMES),
    )


NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda variants: {"anyOf": variants}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(st.none(), st.sampled_from(["a", "b", "xyz"]), st.integers(-2, 5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner)),
    max_leaves=5,
)


@settings(deadline=None)
@given(objects(NODES), st.dictionaries(NAMES, VALUES))
def test_every_answer_that_the_closed_schema_allows_is_valid_in_the_original(
    schema: dict[str, object], answer: dict[str, object]
) -> None:
    before = copy.deepcopy(schema)
    try:
        closed = closed_schema(schema)
    except OpenSchemaError:
        assert schema == before
        return
    assert schema == before
    jsonschema.Draft202012Validator.check_schema(closed)
    if jsonschema.Draft202012Validator(closed).is_valid(answer):
        assert jsonschema.Draft202012Validator(schema).is_valid(answer)


@settings(deadline=None)
@given(objects(NODES))
def test_a_closed_schema_speaks_strict_only(schema: dict[str, object]) -> None:
    try:
        closed = closed_schema(schema)
    except OpenSchemaError:
        return
    nodes: list[object] = [closed]
    while nodes:
        node = nodes.pop()
        assert isinstance(node, dict)
        assert set(node) <= STRICT_KEYS
        if node.get("type") == "object":
            assert sorted(node["required"]) == sorted(node["properties"])
            assert node["additionalProperties"] is False
            nodes += node["properties"].values()
        nodes += [node["items"]] if "items" in node else []
        nodes += node.get("anyOf", [])
