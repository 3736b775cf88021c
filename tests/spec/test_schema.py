"""The JSON Schema of the job file, and the view that faults are worded from."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from batchllm.spec.models import Job
from batchllm.spec.schema import DIALECT, Shape, job_schema, job_shape, shape_at

JOB: dict[str, object] = {
    "name": "a",
    "input": {"path": ["x.jsonl"], "columns": {"gold": "int64"}},
    "task": {"type": "chat", "prompt": "{{ x }}", "params": {"stop": ["a"]}, "schema": {"type": "object"}},
    "providers": [{"provider": "groq", "model": "fast", "limits": {"rpm": 10}}],
}


def at(*parts: str | int) -> Shape:
    return shape_at(parts, JOB)


def test_it_is_a_valid_schema_of_the_dialect_that_it_names() -> None:
    assert job_schema()["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(job_schema())


def test_it_is_plain_json() -> None:
    assert json.loads(json.dumps(job_schema(), allow_nan=False)) == job_schema()


def test_a_good_job_is_valid() -> None:
    jsonschema.validate(JOB, job_schema())
    assert Job.model_validate(JOB).name == JOB["name"]


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"name": 5},
        {"name": "../x"},
        {"providers": []},
        {"routing": "random"},
        {"budget": {"usd": 0}},
        {"task": {"type": "chatt", "prompt": "x"}},
        {"task": {"type": "embedding"}},
        {"output": {"carry": "some"}},
    ],
)
def test_the_schema_and_the_models_refuse_the_same(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**JOB, **change}, job_schema())
    with pytest.raises(ValidationError):
        Job.model_validate({**JOB, **change})


def test_keys_carry_their_descriptions_and_no_repeated_titles() -> None:
    text = json.dumps(job_schema())
    assert "Requests a minute." in text
    assert '"title": "Rpm"' not in text


def test_a_default_of_several_keys_names_only_what_is_set() -> None:
    retry = job_schema()["properties"]
    assert isinstance(retry, dict)
    assert isinstance(retry["retry"], dict)
    assert retry["retry"]["default"] == {}


def test_references_and_nullability_are_looked_through() -> None:
    assert at("providers", 0, "limits", "rpm").kind == "number"
    assert at("providers", 0, "limits", "rpm").description == "Requests a minute."
    assert at("budget").keys == ["usd"]


def test_the_tag_in_the_data_decides_the_form_of_a_task() -> None:
    assert "prompt" in at("task").keys
    assert at("task", "params", "temperature").kind == "number"
    assert job_shape().child("task").tagged_by({"type": "embedding"}).keys[:2] == ["type", "text"]
    assert job_shape().child("task").tagged_by({"type": ["chat"]}).is_tagged


def test_the_type_of_the_value_decides_the_form_of_a_union() -> None:
    assert [branch.kind for branch in at("input", "path").branches] == ["string", "array"]
    assert at("input", "path", 0).kind == "string"


def test_a_mapping_of_free_keys_has_one_shape_for_all_of_them() -> None:
    assert at("input", "columns", "gold").choices == ["string", "int64", "float64", "bool"]


def test_nothing_is_said_of_what_may_be_anything() -> None:
    assert at("task", "schema", "type").node == {}
    assert at("nonsense", "deeper").keys == []
