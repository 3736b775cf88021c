"""Answers that stray: how many, to what, and when the same ones again."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.simulate.answers import Model
from batchllm.simulate.call import Call, Kind
from batchllm.simulate.calls import parse_call
from batchllm.simulate.noise import strayed
from batchllm.simulate.responses_calls import parse_responses
from batchllm.simulate.schemas import Draws
from batchllm.spec.lanes import Simulation

LABELS = {"type": "object", "properties": {"label": {"enum": ["a", "b", "c"]}}}
A = {"pattern": ".", "reply": {"label": "a"}}


def model(noise: float, *rules: Mapping[str, object], seed: int = 0) -> Model:
    return Model(Simulation.model_validate({"noise": noise, "seed": seed, "answers": list(rules or (A,))}))


def said(made_by: Model, text: str = "x", temperature: float | None = 0, schema: Any = LABELS) -> Any:
    call = Call(Kind.CHAT, "m", text, (text,), 1, schema=schema, temperature=temperature)
    return json.loads(made_by.text_answers(call)[0].text)["label"]


def test_so_many_stray_and_to_each_of_the_others() -> None:
    made = model(0.3)
    found = Counter(said(made, f"text {n}") for n in range(2000))
    assert 0.66 < found["a"] / 2000 < 0.74
    assert min(found["b"], found["c"]) > 200


def test_at_temperature_0_the_same_text_has_the_same_answer_in_each_run() -> None:
    made = model(0.5)
    first = [said(made, f"text {n}") for n in range(50)]
    assert (
        first
        == [said(made, f"text {n}") for n in range(50)]
        == [said(model(0.5), f"text {n}") for n in range(50)]
    )
    assert first != [said(model(0.5, seed=1), f"text {n}") for n in range(50)]


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_at_any_other_it_may_be_another_one_when_it_is_asked_again(temperature: float | None) -> None:
    made = model(0.5)
    again = [said(made, "x", temperature) for _ in range(40)]
    assert set(again) > {"a"}
    other = model(0.5)
    assert again == [said(other, "x", temperature) for _ in range(40)]


def test_without_noise_nothing_strays() -> None:
    made = model(0.0)
    assert {said(made, f"text {n}", None) for n in range(200)} == {"a"}


def test_all_of_it_strays() -> None:
    made = model(1.0)
    assert "a" not in {said(made, f"text {n}") for n in range(200)}


def test_without_a_schema_it_is_another_rules_reply() -> None:
    rules = [{"pattern": "x", "reply": "yes"}, {"pattern": ".", "reply": "no"}]
    made = Model(Simulation.model_validate({"noise": 1.0, "answers": rules}))
    call = Call(Kind.CHAT, "m", "x", ("x",), 1)
    assert made.text_answers(call)[0].text == "no"


def test_what_no_rule_knows_strays_within_its_schema() -> None:
    plain, noisy = (Model(Simulation.model_validate({"noise": share})) for share in (0.0, 1.0))
    for n in range(30):
        before, after = said(plain, f"text {n}"), said(noisy, f"text {n}")
        assert before != after
        assert after in "abc"


@pytest.mark.parametrize(
    ("value", "schema", "others"),
    [
        (True, {"type": "boolean"}, {False}),
        (3, {"type": "integer"}, {2, 4}),
        (5, {"type": "integer", "minimum": 1, "maximum": 5}, {4}),
        (1, {"type": "integer", "minimum": 1, "maximum": 1}, {1}),
        ("only", {"enum": ["only"]}, {"only"}),
        ("text", {"type": "string"}, {"text"}),
    ],
)
def test_where_an_answer_may_stray_to(value: object, schema: dict[str, object], others: set[object]) -> None:
    found = {
        strayed({"v": value}, {"properties": {"v": schema}}, [], Draws(bytes([n]) * 32))["v"]  # type: ignore[index]
        for n in range(40)
    }
    assert found == others


def test_a_set_of_labels_gains_or_loses_one() -> None:
    schema = {"properties": {"v": {"type": "array", "items": {"enum": ["a", "b", "c"]}}}}
    found = [strayed({"v": ["a", "b"]}, schema, [], Draws(bytes([n]) * 32))["v"] for n in range(40)]  # type: ignore[index]
    assert {tuple(value) for value in found} == {("a",), ("b",), ("a", "b", "c")}


@settings(max_examples=100)
@given(st.integers(-1000, 1000), st.integers(0, 50), st.integers(0, 50), st.binary(min_size=32, max_size=32))
def test_a_number_strays_within_its_bounds(value: int, below: int, above: int, seed: bytes) -> None:
    bounds = {"type": "integer", "minimum": value - below, "maximum": value + above}
    moved = strayed({"v": value}, {"properties": {"v": bounds}}, [], Draws(seed))["v"]  # type: ignore[index]
    assert value - below <= moved <= value + above
    assert (moved == value) == (below == above == 0)


def test_the_temperature_is_read_from_each_kind_of_request() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0}
    assert parse_call(Kind.CHAT, orjson.dumps(chat)).temperature == 0
    assert (
        parse_call(Kind.COMPLETION, orjson.dumps({"model": "m", "prompt": "x", "temperature": 1})).temperature
        == 1
    )
    assert parse_responses(orjson.dumps({"model": "m", "input": "x", "temperature": 0.5})).temperature == 0.5
    assert parse_call(Kind.COMPLETION, orjson.dumps({"model": "m", "prompt": "x"})).temperature is None
