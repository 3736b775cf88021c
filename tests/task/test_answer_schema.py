import datetime as dt
import json
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InvariantError
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.json_schema import JsonSchema, JsonSchemaError


def schema(**properties: Any) -> AnswerSchema:
    return AnswerSchema({"type": "object", "properties": properties})


LABEL = AnswerSchema(
    {
        "type": "object",
        "properties": {"label": {"enum": ["positive", "negative"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "positive"}',
        ' \n{"label":"positive"}\t',
        '```json\n{"label": "positive"}\n```',
        '```\n{"label": "positive"}```',
        '\n``` JSON \r\n  {"label": "positive"}  \r\n```\n',
    ],
)
def test_json_is_found_in_whitespace_and_one_fence(text: str) -> None:
    assert LABEL.fault(text) is None
    assert LABEL.columns([text])[0].to_pylist() == ["positive"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "positive",
        'Here you go: {"label": "positive"}',
        '{"label": "positive"} Hope this helps!',
        '{"label": "positive"',
        "{'label': 'positive'}",
        '{"label": "positive",}',
        '```python\n{"label": "positive"}\n```',
        '```json\n{"label": "positive"}\n```\ntext',
        '```json\n```json\n{"label": "positive"}\n```\n```',
        "```",
        "``````",
        '{"label": NaN}',
        '{"label": Infinity}',
        '{"label": 1e999}',
        '{"label": "positive", "label": "negative"}',
        '{"label": "positive"}{"label": "positive"}',
        "[" * 100_000,
        '{"label": ' + "9" * 5000 + "}",
        '{"' + "x" * 5000 + '": 1, "' + "x" * 5000 + '": 2}',
    ],
)
def test_what_is_not_strictly_json_is_no_answer(text: str) -> None:
    fault = LABEL.fault(text)
    assert fault is not None
    assert len(fault) < 500


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"label": "postive"}', 'label: "postive" is not one of "positive" or "negative"'),
        ("{}", 'the answer: "label" is a required property'),
        (
            '{"label": "positive", "x": 1}',
            "the answer: Additional properties are not allowed ('x' was unexpected)",
        ),
        ("[]", 'the answer: [] is not of type "object"'),
        ("null", 'the answer: null is not of type "object"'),
    ],
)
def test_a_fault_says_where_and_what(text: str, fault: str) -> None:
    assert LABEL.fault(text) == fault


def test_a_fault_inside_a_list_is_placed() -> None:
    tags = schema(tags={"type": "array", "items": {"type": "string", "maxLength": 3}})
    assert tags.fault('{"tags": ["a", "long"]}') == 'tags.1: "long" is longer than 3 characters'


CHOICE = {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"n": {"maximum": 9}}}]}


@pytest.mark.parametrize(
    ("part", "value", "fault"),
    [
        ({"type": "string", "maxLength": 10}, "long" * 100, "is longer than 10 characters"),
        (CHOICE, {"n": 10}, "x.n: 10 is greater than the maximum of 9"),
        (CHOICE, "text", "x: \"text\" is not valid under any of the schemas listed in the 'anyOf' keyword"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 3, "valid under more than one"),
        ({"enum": ["a"]}, "b\ud800", 'x: "b\ufffd" is not one of "a"'),
        ({"type": "array", "uniqueItems": True}, [1, 1.0], "has non-unique elements"),
    ],
)
def test_a_fault_names_what_matters(part: Any, value: object, fault: str) -> None:
    said = str(schema(x=part).fault(json.dumps({"x": value})))
    assert fault in said
    assert len(said) <= 300


def test_of_several_faults_the_outermost_is_told() -> None:
    both = {
        "type": "object",
        "properties": {"x": {"properties": {"n": {"maximum": 9}}}, "y": {"type": "null"}},
    }
    assert AnswerSchema(both).fault('{"x": {"n": 10}, "y": 1}') == 'y: 1 is not of type "null"'


@pytest.mark.parametrize(
    ("part", "value", "fits"),
    [
        ({"multipleOf": 0.01}, "4.35", True),
        ({"multipleOf": 0.01}, "4.355", False),
        ({"type": "integer"}, "3.0", True),
        ({"enum": [1]}, "true", False),
        ({"const": False}, "0", False),
        ({"pattern": r"^\p{Lu}\d$"}, '"Ä1"', True),
        ({"pattern": r"^\d$"}, '"\u0663"', False),
        ({"pattern": "^(a+)+$"}, '"' + "a" * 60 + 'b"', False),
        ({"minLength": 2}, '"\U0001f600"', False),
        ({"maximum": 2**80}, str(2**81), False),
        ({"format": "email"}, '"no address"', True),
    ],
)
def test_the_decision_is_of_json_schema_not_of_python(part: Any, value: str, fits: bool) -> None:
    assert (schema(x=part).fault('{"x": ' + value + "}") is None) == fits


def test_a_duplicate_key_is_named() -> None:
    assert "'label' stands in it twice" in str(LABEL.fault('{"label": "positive", "label": "positive"}'))


@pytest.mark.parametrize(
    ("part", "arrow_type"),
    [
        ({"type": "string"}, pa.string()),
        ({"type": "string", "format": "date"}, pa.string()),
        ({"enum": ["a", "b"]}, pa.string()),
        ({"enum": ["a", None]}, pa.string()),
        ({"const": "a"}, pa.string()),
        ({"type": ["string", "null"]}, pa.string()),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, pa.string()),
        ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, pa.int64()),
        ({"allOf": [{"$ref": "#/$defs/count"}]}, pa.int64()),
        ({"$ref": "#/$defs/count"}, pa.int64()),
        ({"type": "integer"}, pa.int64()),
        ({"enum": [1, 2]}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"enum": [1, 2.5]}, pa.float64()),
        ({"type": "boolean"}, pa.bool_()),
        ({"const": True}, pa.bool_()),
        ({"type": "array", "items": {"type": "string"}}, pa.list_(pa.string())),
        ({"type": "array", "items": {"type": ["integer", "null"]}}, pa.list_(pa.int64())),
        ({"type": ["array", "null"], "items": {"$ref": "#/$defs/count"}}, pa.list_(pa.int64())),
        ({"type": "array"}, pa.string()),
        ({"type": "array", "items": {"type": "object"}}, pa.string()),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, pa.string()),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, pa.string()),
        ({"type": "object"}, pa.string()),
        ({"type": ["string", "integer"]}, pa.string()),
        ({"enum": ["a", 1]}, pa.string()),
        ({"enum": [True, 1]}, pa.string()),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, pa.string()),
        ({"$ref": "#"}, pa.string()),
        ({}, pa.string()),
        (True, pa.string()),
    ],
)
def test_a_property_has_the_column_that_its_schema_pins(part: Any, arrow_type: pa.DataType) -> None:
    answer = AnswerSchema(
        {"type": "object", "properties": {"x": part}, "$defs": {"count": {"type": "integer"}}}
    )
    assert answer.fields == (pa.field("x", arrow_type),)


@pytest.mark.parametrize(
    ("part", "value", "kept"),
    [
        ({"type": "string"}, "a\u0000ä", "a\u0000ä"),
        ({"type": "string"}, "\ud800", "\ufffd"),
        ({"type": "integer"}, 2**63 - 1, 2**63 - 1),
        ({"type": "integer"}, -(2**63), -(2**63)),
        ({"type": "integer"}, 3.0, 3),
        ({"type": "number"}, 3, 3.0),
        ({"type": "boolean"}, False, False),
        ({"type": ["string", "null"]}, None, None),
        ({"type": "array", "items": {"type": ["number", "null"]}}, [1, None, 2.5], [1.0, None, 2.5]),
        ({"type": "array", "items": {"type": "string"}}, [], []),
        ({"type": "object"}, {"a": [1, "ä"], "b": None}, '{"a":[1,"ä"],"b":null}'),
        ({"type": "object"}, {"n": 2**70}, '{"n":1180591620717411303424}'),
        ({}, "text", '"text"'),
        ({}, None, None),
        ({}, "\ud800", '"\ufffd"'),
    ],
)
def test_a_value_becomes_what_its_column_holds(part: Any, value: object, kept: object) -> None:
    answer = schema(x=part)
    text = json.dumps({"x": value})
    assert answer.fault(text) is None
    assert answer.columns([text, "{}"])[0].to_pylist() == [kept, None]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "integer"}, 2**63),
        ({"type": "integer"}, -(2**63) - 1),
        ({"type": "integer"}, 1e300),
        ({"type": "number"}, 10**400),
        ({"type": "array", "items": {"type": "integer"}}, [1, 2**64]),
    ],
)
def test_a_number_that_fits_no_column_is_no_answer(part: Any, value: object) -> None:
    assert schema(x=part).fault(json.dumps({"x": value})) == "x: a number in it is too large for 64 bits"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, "type: object"),
        ({"type": "array", "properties": {"a": {}}}, "type: object"),
        ({"type": ["object", "null"], "properties": {"a": {}}}, "type: object"),
        ({"type": "object"}, "at least one property"),
        ({"type": "object", "properties": {}}, "at least one property"),
        ({"type": "object", "properties": [1]}, "at least one property"),
        ({"type": "object", "properties": {"": {}}}, "needs a name"),
        ({"type": "object", "properties": {"a": {"type": "strnig"}}}, "properties.a.type"),
        ({"type": "object", "properties": {"a": {"enum": "x"}}}, "properties.a.enum"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "properties.a.pattern"),
        ({"type": "object", "properties": {"a": 5}}, "properties.a"),
        (
            {"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}},
            "nothing is fetched",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
        (
            {"type": "object", "properties": {"a": {"items": {"$ref": "other.json"}}}},
            "properties.a.items.$ref",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "#anchor"}}}, "nothing is fetched"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}, "there is no '#/$defs/gone'"),
        ({"type": "object", "properties": {"a": {"$ref": "#/required/x"}}, "required": ["a"]}, "there is no"),
        ({"type": "object", "properties": {"a": {"$dynamicRef": "#a"}}}, "not supported"),
        ({"type": "object", "properties": {"a": {"$id": "https://example.com/"}}}, "not supported"),
        ({"type": "object", "properties": {"a": {"const": dt.date(2026, 1, 1)}}}, "no JSON"),
        ({"type": "object", "properties": {"a": {"const": "\ud800"}}}, "no JSON"),
        ({"type": "object", "properties": {"a": {"$ref": "#/required"}}, "required": ["a"]}, "not of types"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "without end"),
        ({"type": "object", "properties": {"a": {}}, "$ref": "#"}, "$ref"),
        ({"type": "object", "properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, "without end"),
        ({"type": "object", "properties": {"a": {"then": {"$ref": "#/properties/a"}}}}, "without end"),
        (
            {"type": "object", "properties": {"a": {"dependentSchemas": {"b": {"$ref": "#/properties/a"}}}}},
            "without end",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/b"}},
                "$defs": {
                    "b": {"allOf": [{}, {"$ref": "#/$defs/c"}]},
                    "c": {"oneOf": [{"$ref": "#/$defs/b"}]},
                },
            },
            "without end",
        ),
        ({"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}}, "without end"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_place(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(JsonSchemaError) as caught:
        AnswerSchema(broken)
    assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_names_and_data_that_look_like_keywords_are_none() -> None:
    odd = {
        "$ref": {"type": "string"},
        "$id": {"const": {"$ref": "https://example.com/"}},
        "enum": {"type": "integer"},
    }
    assert [field.name for field in schema(**odd).fields] == ["$ref", "$id", "enum"]


def test_a_schema_that_recurses_through_data_is_fine() -> None:
    tree = AnswerSchema(
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["name"],
        }
    )
    assert tree.fault('{"name": "a", "children": [{"name": "b", "children": []}]}') is None
    assert "required" in str(tree.fault('{"name": "a", "children": [{}]}'))


@pytest.mark.parametrize(("lists", "fault"), [(199, None), (200, "the answer is nested too deep")])
def test_nesting_is_bounded_so_that_what_is_accepted_reads_back(lists: int, fault: str | None) -> None:
    text = '{"x": ' + "[" * lists + "1" + "]" * lists + "}"
    assert schema(x={}).fault(text) == fault
    assert schema(x={}).fault('{"x": "' + "[" * 300 + '"}') is None


def test_a_schema_that_recurses_deeper_than_the_checker_is_no_crash() -> None:
    tree = schema(children={"type": "array", "items": {"$ref": "#"}})
    assert tree.fault('{"children": [' * 90 + "]}" * 90) in {None, "the answer is nested too deep"}


def test_a_kept_answer_that_does_not_read_is_a_broken_promise() -> None:
    for text in ("no json", "[1]"):
        with pytest.raises(InvariantError):
            LABEL.columns([text])


def test_no_answers_are_empty_columns_of_the_right_type() -> None:
    assert LABEL.columns([]) == [pa.array([], pa.string())]


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    "boolean": st.booleans(),
    "null": st.none(),
}


@st.composite
def leaves(draw: st.DrawFn) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    shape = draw(st.sampled_from(["any", "enum", "ref", *SCALARS]))
    if shape == "enum":
        values = draw(st.lists(st.one_of(*SCALARS.values()), min_size=1, max_size=4))
        return {"enum": values}, st.sampled_from(values)
    if shape == "any":
        return {}, st.one_of(*SCALARS.values())
    return (
        ({"$ref": "#/$defs/count"}, SCALARS["integer"])
        if shape == "ref"
        else ({"type": shape}, SCALARS[shape])
    )


@st.composite
def parts(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """A schema, and a strategy for values that it accepts."""
    shape = draw(st.sampled_from(["leaf", "union", "array", "object"])) if depth else "leaf"
    if shape == "leaf":
        return draw(leaves())
    inner, values = draw(parts(depth - 1))
    if shape == "union":
        other, more = draw(parts(depth - 1))
        return {"anyOf": [inner, other]}, values | more
    if shape == "array":
        return {"type": ["array", "null"], "items": inner}, st.none() | st.lists(values, max_size=3)
    return {"type": "object", "properties": {"in": inner}}, st.fixed_dictionaries({}, optional={"in": values})


@given(st.data())
@settings(max_examples=60)
def test_every_accepted_answer_has_its_place_in_every_column(data: st.DataObject) -> None:
    properties = data.draw(st.dictionaries(st.text(min_size=1, max_size=3), parts(), min_size=1, max_size=4))
    answer = AnswerSchema(
        {
            "type": "object",
            "properties": {name: part for name, (part, _) in properties.items()},
            "$defs": {"count": {"type": "integer"}},
        }
    )
    instances = st.fixed_dictionaries({}, optional={name: values for name, (_, values) in properties.items()})
    texts = [json.dumps(instance) for instance in data.draw(st.lists(instances, max_size=4))]
    assert [answer.fault(text) for text in texts] == [None] * len(texts)
    columns = answer.columns(texts)
    assert [column.type for column in columns] == [field.type for field in answer.fields]
    assert [len(column) for column in columns] == [len(texts)] * len(columns)
    for column in columns:
        column.validate(full=True)


JSON = st.recursive(
    st.one_of(*SCALARS.values()),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
)


KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*SCALARS, "array", "object", ["string", "null"]]),
        "enum": st.lists(st.one_of(*SCALARS.values()), min_size=1, max_size=3),
        "const": JSON,
        "minimum": SCALARS["integer"],
        "exclusiveMaximum": SCALARS["number"],
        "multipleOf": st.integers(1, 9),
        "minLength": st.integers(0, 5),
        "pattern": st.sampled_from(["^a", "b$", "[0-9]+"]),
        "required": st.lists(st.sampled_from("ab"), unique=True),
        "minItems": st.integers(0, 2),
        "uniqueItems": st.booleans(),
        "additionalProperties": st.booleans(),
        "dependentRequired": st.just({"a": ["b"]}),
    },
)
SCHEMAS = st.recursive(
    KEYWORDS,
    lambda part: st.builds(
        lambda words, more: words | more,
        KEYWORDS,
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("abc"), part),
                "items": part,
                "prefixItems": st.lists(part, min_size=1, max_size=2),
                "contains": part,
                "not": part,
                "if": part,
                "then": part,
                "anyOf": st.lists(part, min_size=1, max_size=2),
                "oneOf": st.lists(part, min_size=1, max_size=2),
                "unevaluatedProperties": st.just(False),
            },
        ),
    ),
    max_leaves=6,
)


@given(SCHEMAS, JSON | st.dictionaries(st.sampled_from("abc"), JSON))
def test_the_decision_is_the_same_as_the_one_of_jsonschema(words: dict[str, Any], value: object) -> None:
    found = JsonSchema(words).fault(value, "the value")
    assert (found is None) == jsonschema.Draft202012Validator(words).is_valid(value)


@given(st.text() | JSON.map(json.dumps) | st.builds("```json\n{}\n```".format, JSON.map(json.dumps)))
def test_any_text_is_an_answer_or_has_a_fault_and_never_breaks_the_columns(text: str) -> None:
    answer = schema(x={"type": "integer"}, y={"type": "array", "items": {"type": "number"}}, z={})
    if answer.fault(text) is None:
        assert all(len(column) == 1 for column in answer.columns([text]))


def test_what_was_found_of_a_short_text_is_remembered_and_of_a_long_one_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[str] = []

    def parse(text: str) -> Any:
        parsed.append(text)
        return json.loads(text)

    monkeypatch.setattr("batchllm.task.answer_schema.parse", parse)
    answers = schema(label={"type": "string"})
    short, wrong, long = '{"label": "a"}', '{"label": 1}', json.dumps({"label": "a" * 200})
    for _ in range(3):
        assert answers.fault(short) is None
        assert answers.fault(wrong) == 'label: 1 is not of type "string"'
        assert answers.fault(long) is None
        assert answers.columns([short, None, long])[0].to_pylist() == ["a", None, "a" * 200]
    assert (parsed.count(short), parsed.count(wrong), parsed.count(long)) == (2, 1, 6)
