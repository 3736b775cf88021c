"""What of a job decides an answer."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.spec.fingerprint import differences, fingerprint, semantic_sections
from batchllm.spec.models import Job

Data = dict[str, object]


def job(**changes: object) -> Job:
    return Job.model_validate({**_data(), **changes})


def _data() -> Data:
    return {
        "name": "a",
        "input": {"path": "x.jsonl", "key": "id", "columns": {"gold": "int64"}},
        "task": {"type": "chat", "prompt": "{{ x }}", "params": {"temperature": 0}},
        "providers": [_lane(), _lane(provider="simulator")],
        "output": {"carry": ["gold"]},
    }


def _lane(**changes: object) -> Data:
    return {"provider": "groq", "model": "fast", **changes}


def with_lane(**changes: object) -> Job:
    return job(providers=[_lane(**changes), _lane(provider="simulator")])


def with_simulation(**changes: object) -> Job:
    return job(providers=[_lane(), _lane(provider="simulator", simulate=changes)])


def changes(other: Job) -> list[str]:
    """And the fingerprint says the same as the lines."""
    old, new = semantic_sections(job()), semantic_sections(other)
    lines = differences(old, new)
    assert bool(lines) == (fingerprint(old) != fingerprint(new))
    return lines


def test_the_sections_are_these() -> None:
    assert semantic_sections(job()) == {
        "task": '{"params":{"temperature":0.0},"prompt":"{{ x }}","type":"chat"}',
        "lanes": '{"groq":{"model":"fast","provider":"groq"},'
        '"simulator":{"model":"fast","provider":"simulator",'
        '"simulate":{"answers":[],"dimensions":8,"seed":0}}}',
        "routing": '"one lane"',
        "key": '"id"',
        "carry": '["gold"]',
        "columns": '{"gold":"int64"}',
    }


@pytest.mark.parametrize(
    "other",
    [
        lambda: job(name="b"),
        lambda: job(
            input={"path": ["other.jsonl"], "key": "id", "columns": {"gold": "int64"}, "format": "jsonl"}
        ),
        lambda: job(output={"carry": ["gold"], "path": "/elsewhere"}),
        lambda: job(retry={"max_attempts": 9}),
        lambda: job(budget={"usd": 5}),
        lambda: job(drain_timeout_s=1),
        lambda: job(disk_wait_s=0),
        lambda: job(params_unsupported="drop"),
        lambda: with_lane(catalogue={}),
        lambda: with_simulation(profile=None),
        lambda: job(routing="fallback"),
        lambda: with_lane(limits={"rpm": 5}),
        lambda: with_lane(timeout_s=5, connect_timeout_s=1),
        lambda: job(stream=True),
        lambda: with_lane(stream=True, stall_timeout_s=1),
        lambda: with_lane(api="chat"),
        lambda: with_lane(api_key="${OTHER}", headers={"X-Key": "${OTHER}"}),
        lambda: with_lane(price={"input": 5}),
        lambda: with_lane(name="groq"),
        lambda: with_lane(extra_body={}, omit=[]),
        lambda: with_simulation(latency={"median_s": 1}, faults={"error_rate": 1}, limits={"rpm": 1}),
        lambda: job(providers=[_lane(provider="simulator"), _lane()]),
        lambda: job(task={"type": "chat", "prompt": "{{ x }}", "params": {"temperature": 0.0, "seed": None}}),
    ],
)
def test_what_is_operational_changes_nothing(other: Callable[[], Job]) -> None:
    assert changes(other()) == []


def test_how_vectors_travel_is_operational_for_an_embedding_and_a_field_like_others_for_a_chat() -> None:
    def lines(task: Data, form: str = "base64") -> list[str]:
        plain, coded = (
            semantic_sections(job(task=task, providers=[_lane(extra_body=extra)]))
            for extra in ({}, {"encoding_format": form})
        )
        return differences(plain, coded)

    embedding = {"type": "embedding", "text": "{{ x }}", "dimensions": 3}
    assert lines(embedding) == lines(embedding, "float") == []
    assert len(lines(embedding, "base64_int8")) == 1  # these are other numbers
    assert len(lines({"type": "chat", "prompt": "{{ x }}"})) == 1


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (lambda: with_lane(model="balanced"), "lanes.groq.model: fast → balanced"),
        (
            lambda: with_lane(catalogue={"dialect": "mistral"}),
            'lanes.groq.catalogue: (none) → {"dialect": "mistral"}',
        ),
        (
            lambda: with_simulation(profile="groq"),
            'lanes.simulator.simulate.profile: (none) → "groq"',
        ),
        (
            lambda: with_lane(base_url="https://${HOST}/v1"),
            'lanes.groq.base_url: (none) → "https://${HOST}/v1"',
        ),
        (lambda: with_lane(extra_body={"top_k": 5}), 'lanes.groq.extra_body: (none) → {"top_k": 5}'),
        (lambda: with_lane(api="responses"), 'lanes.groq.api: (none) → "responses"'),
        (lambda: with_lane(omit=["seed"]), 'lanes.groq.omit: (none) → ["seed"]'),
        (lambda: with_simulation(seed=7), "lanes.simulator.simulate.seed: 0 → 7"),
        (lambda: with_simulation(dimensions=3), "lanes.simulator.simulate.dimensions: 8 → 3"),
        (
            lambda: with_simulation(answers=[{"pattern": "a", "reply": "b"}]),
            'lanes.simulator.simulate.answers.0: (none) → {"pattern": "a", "reply": "b"}',
        ),
        (lambda: job(routing="all"), "routing: one lane → every lane"),
        (lambda: job(samples=3), "routing: one lane → one lane, 3 samples"),
        (lambda: job(routing="all", samples=2), "routing: one lane → every lane, 2 samples"),
        (lambda: job(output={}), 'carry.0: "gold" → (none)'),
        (lambda: job(output={"carry": "all"}), 'carry: ["gold"] → "all"'),
        (
            lambda: job(task={"type": "chat", "prompt": "{{ x }}", "params": {"temperature": 0.7}}),
            "task.params.temperature: 0 → 0.7",
        ),
        (
            lambda: job(task={"type": "chat", "prompt": "{{ y }}", "params": {"temperature": 0}}),
            "task.prompt: {{ x }} → {{ y }}",
        ),
        (lambda: job(input={"path": "x.jsonl", "columns": {"gold": "int64"}}), 'key: "id" → null'),
        (lambda: job(input={"path": "x.jsonl", "key": "id"}), 'columns.gold: "int64" → (none)'),
    ],
)
def test_what_changes_an_answer_is_a_line(other: Callable[[], Job], line: str) -> None:
    assert changes(other()) == [line]


def test_a_lane_that_came_and_one_that_went_are_lines() -> None:
    lines = changes(job(providers=[_lane(name="quick"), _lane(provider="simulator")]))
    assert lines == [
        'lanes.groq: {"model": "fast", "provider": "groq"} → (none)',
        'lanes.quick: (none) → {"model": "fast", "provider": "groq"}',
    ]


def test_the_order_of_omitted_fields_is_free() -> None:
    one, other = with_lane(omit=["seed", "user"]), with_lane(omit=["user", "seed", "user"])
    assert semantic_sections(one) == semantic_sections(other)


def test_no_key_or_header_is_in_the_text() -> None:
    sections = semantic_sections(with_lane(api_key="canary", headers={"X": "canary"}))
    assert "canary" not in "".join(sections.values())


def test_the_text_is_utf_8_and_not_escaped() -> None:
    other = job(task={"type": "chat", "prompt": "größer: 数"})
    assert "größer: 数" in semantic_sections(other)["task"]


def test_long_texts_are_cut_around_what_differs() -> None:
    start, end = "x" * 500, "y" * 500
    (line,) = differences({"task": json.dumps(start + "A" + end)}, {"task": json.dumps(start + "B" + end)})
    assert "A" in line
    assert "B" in line
    assert line.startswith("task: …xxx")
    assert len(line) < 200


def test_text_is_told_from_numbers_and_nothing_a_terminal_obeys_is_shown() -> None:
    assert differences({"a": '"1"'}, {"a": "1"}) == ['a: "1" → 1']
    assert differences({"a": "true"}, {"a": "1"}) == ["a: true → 1"]
    assert differences({"a": '"x"'}, {"a": '"\\u009b\\u001b[31m"'}) == ['a: "x" → "\\u009b\\u001b[31m"']
    assert differences({"a": '"数\\n"'}, {"a": '""'}) == ['a: "数\\n" → ""']


def test_a_section_that_only_one_side_has_is_a_line() -> None:
    assert differences({}, {"key": '"id"'}) == ['key: (none) → "id"']
    assert differences({"key": '"id"'}, {}) == ['key: "id" → (none)']


def test_text_that_is_no_json_is_compared_as_text() -> None:
    assert differences({"task": "{"}, {"task": "["}) == ["task: { → ["]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda tree: st.lists(tree, max_size=3) | st.dictionaries(st.text(), tree, max_size=3),
    max_leaves=8,
)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


@settings(deadline=None)
@given(_JSON, _JSON)
def test_there_is_a_line_exactly_where_something_differs(old: object, new: object) -> None:
    lines = differences({"a": _text(old)}, {"a": _text(new)})
    assert bool(lines) == (_text(old) != _text(new))
    assert all(line.isprintable() for line in lines)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text()))
def test_the_order_of_sections_is_free(sections: dict[str, str]) -> None:
    assert fingerprint(sections) == fingerprint(dict(reversed(sections.items())))
