"""How a fault is said: one for each path, in the words of the file, at its place."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batchllm.errors import Fault
from batchllm.spec.faults import (
    MAX_FAULTS,
    OverrideFault,
    Places,
    described,
    dotted,
    in_order,
    nearest,
    quoted,
    translate,
)
from batchllm.spec.models import Job

CHAT = {"type": "chat", "prompt": "p"}
GOOD: dict[str, object] = {
    "name": "a",
    "input": {"path": "x.jsonl"},
    "task": CHAT,
    "providers": [{"provider": "groq", "model": "fast"}],
}


def faults(**changes: object) -> list[Fault]:
    data = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(ValidationError) as caught:
        Job.model_validate(data)
    return translate(caught.value, data, Places())


def lines(**changes: object) -> list[str]:
    return [fault.text("job") for fault in faults(**changes)]


def lane(**changes: object) -> list[dict[str, object]]:
    return [{"provider": "groq", "model": "fast", **changes}]


NAME_WORDS = "a name of at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
PATH_WORDS = "File, glob or folder, relative to the job file; several are read one after the other"
TAGS = "chat, completion, embedding, moderation"
TYPES = "string, int64, float64, bool"


def only(**changes: object) -> tuple[str, str, str]:
    (fault,) = faults(**changes)
    return fault.path, fault.message, fault.remedy


@pytest.mark.parametrize(
    ("changes", "path", "remedy"),
    [
        ({"inputs": 1}, "inputs", "did you mean input?"),
        ({"prompt": "x"}, "prompt", "it goes under task"),
        ({"path": "x"}, "path", "it goes under input or task.images or output"),
        ({"model": "x"}, "model", "it goes under providers"),
        ({"budget": {"usd": 1, "zzz": 1}}, "budget.zzz", "keys here: usd"),
        ({"providers": lane(rpm=5)}, "providers.0.rpm", "it goes under limits"),
        ({"providers": lane(temperature=0)}, "providers.0.temperature", "it goes under task.params"),
        ({"providers": lane(seed=7)}, "providers.0.seed", "it goes under task.params"),
        ({"providers": lane(p99_s=7)}, "providers.0.p99_s", "it goes under simulate.latency"),
        ({"temperature": 0}, "temperature", "it goes under task.params"),
        ({"rpm": 5}, "rpm", "it goes under providers.limits"),
        (
            {"consensus": {"judge": {"lane": {"provider": "groq", "model": "m", "rpm": 5}}}},
            "consensus.judge.lane.rpm",
            "it goes under limits",
        ),
        ({"threshold": 0.9}, "threshold", "it goes under consensus.similarity"),
        ({"output": {"routing": "all"}}, "output.routing", "it goes under the top level"),
        ({"task": {**CHAT, "model": "x"}}, "task.model", "it goes under providers"),
        ({"providers": lane(Api_Key="x")}, "providers.0.Api_Key", "did you mean api_key?"),
        ({"providers": lane(limits={"rmp": 1})}, "providers.0.limits.rmp", "did you mean rpm?"),
        ({"task": {**CHAT, "temperature": 0}}, "task.temperature", "it goes under params"),
        (
            {"task": {"type": "embedding", "text": "p", "params": {}}},
            "task.params",
            "keys here: type, text, dimensions, inputs_per_request",
        ),
        (
            {"task": {**CHAT, "chat": 1}},
            "task.chat",
            (
                "keys here: type, system, prompt, messages, messages_column, params, schema, repair, tools,"
                " tool_choice, parallel_tool_calls, images, include, truncated, filtered"
            ),
        ),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(changes: dict[str, object], path: str, remedy: str) -> None:
    assert only(**changes) == (path, "unknown key", remedy)


@pytest.mark.parametrize(
    ("changes", "path", "remedy"),
    [
        ({"name": ...}, "name", NAME_WORDS),
        ({"input": ...}, "input", "keys there: path, format, key, columns"),
        ({"input": {}}, "input.path", PATH_WORDS),
        ({"providers": ...}, "providers", "a list of mappings"),
        ({"providers": [{"provider": "x"}]}, "providers.0.model", "text"),
        ({"task": {"prompt": "x"}}, "task.type", f"one of {TAGS}"),
        ({"task": {"type": "completion"}}, "task.prompt", "A template"),
    ],
)
def test_a_missing_key_is_told_what_it_takes(changes: dict[str, object], path: str, remedy: str) -> None:
    assert only(**changes) == (path, "this key is missing", remedy)


def test_a_key_that_is_only_misspelt_is_not_missing_as_well() -> None:
    assert lines(providers=[{"provider": "x", "modle": "y"}]) == [
        "job: providers.0.modle: unknown key (did you mean model?)"
    ]


@pytest.mark.parametrize(
    ("rpm", "found", "remedy"),
    [
        (-3, "-3", "Requests a minute"),
        ("abc", 'text "abc"', "Requests a minute"),
        ("1_000", 'text "1_000"', "write 1000, without quotes"),
        ("5", 'text "5"', "write 5, without quotes"),
        (
            "${RPM}",
            'text "${RPM}"',
            "${...} is read in api_key, base_url, headers and paths only; --set changes other keys",
        ),
        (True, "true", "Requests a minute"),
        ([], "an empty list", "Requests a minute"),
    ],
)
def test_a_wrong_number_is_told_what_it_is(rpm: object, found: str, remedy: str) -> None:
    message = f"expected a number of at least 0.01, found {found}"
    assert only(providers=lane(limits={"rpm": rpm})) == ("providers.0.limits.rpm", message, remedy)


@pytest.mark.parametrize(
    ("params", "expected", "found", "remedy"),
    [
        ({"temperature": 2.5}, "a number from 0 to 2", "2.5", ""),
        ({"top_p": 0}, "a number above 0 and at most 1", "0", ""),
        ({"seed": 1000.0}, "a whole number", "1000.0", "write 1000"),
        ({"max_tokens": 0}, "a whole number above 0", "0", "Most tokens of an answer"),
        ({"user": 5}, "text", "5", 'put it in quotes: "5"'),
        ({"user": True}, "text", "true", 'put it in quotes: "true"'),
        ({"user": ""}, "text", "empty text", ""),
        ({"logit_bias": []}, "a mapping", "an empty list", ""),
    ],
)
def test_a_wrong_param_is_told_its_range_or_type(
    params: dict[str, object], expected: str, found: str, remedy: str
) -> None:
    path = f"task.params.{next(iter(params))}"
    assert only(task={**CHAT, "params": params}) == (path, f"expected {expected}, found {found}", remedy)


@pytest.mark.parametrize(
    ("changes", "path", "message", "remedy"),
    [
        ({"name": "../x"}, "name", f'expected {NAME_WORDS}, found text "../x"', ""),
        (
            {"providers": lane(limits=None)},
            "providers.0.limits",
            "expected a mapping, found nothing",
            "fill it in, or remove the key",
        ),
        ({"budget": 5}, "budget", "expected a mapping, found 5", "keys there: usd"),
        (
            {"providers": {"groq": 1}},
            "providers",
            "expected a list of mappings, found a mapping",
            'begin each item with "- "',
        ),
        (
            {"providers": []},
            "providers",
            "expected a list of mappings (1 to 64 of them), found an empty list",
            "",
        ),
        (
            {"task": 5},
            "task",
            "expected a mapping, found 5",
            "a mapping with type: chat or completion or embedding or moderation",
        ),
        ({"task": None}, "task", "expected a mapping, found nothing", "fill it in, or remove the key"),
        (
            {"task": {"type": "chatt"}},
            "task.type",
            f'expected one of {TAGS}, found text "chatt"',
            "did you mean chat?",
        ),
        ({"task": {"type": ["chat"]}}, "task.type", f"expected one of {TAGS}, found a list of 1", ""),
        ({"task": {"type": None}}, "task.type", f"expected one of {TAGS}, found nothing", ""),
        (
            {"routing": "Spread"},
            "routing",
            'expected one of spread, fallback, all, found text "Spread"',
            "did you mean spread?",
        ),
        ({"routing": 5}, "routing", "expected one of spread, fallback, all, found 5", ""),
        (
            {"input": {"path": "x", "columns": {"a": "int"}}},
            "input.columns.a",
            f'expected one of {TYPES}, found text "int"',
            "did you mean int64?",
        ),
    ],
)
def test_a_wrong_value_is_told_what_was_expected_and_found(
    changes: dict[str, object], path: str, message: str, remedy: str
) -> None:
    assert only(**changes) == (path, message, remedy)


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"input": {"path": 3}}, "input.path", "text or a list of text, found 3"),
        ({"input": {"path": ["a", 3]}}, "input.path.1", "text, found 3"),
        ({"input": {"path": {"a": 1}}}, "input.path", "text or a list of text, found a mapping"),
        (
            {"input": {"path": []}},
            "input.path",
            "text or a list of text (at least 1 of them), found an empty list",
        ),
        ({"task": {**CHAT, "params": {"stop": [1]}}}, "task.params.stop.0", "text, found 1"),
        (
            {"task": {**CHAT, "params": {"stop": ["a"] * 17}}},
            "task.params.stop",
            "text or a list of text (1 to 16 of them), found a list of 17",
        ),
        ({"output": {"carry": "some"}}, "output.carry", 'all or a list of text, found text "some"'),
        ({"output": {"carry": [1]}}, "output.carry.0", "text, found 1"),
        (
            {"providers": lane(provider="simulator", simulate={"answers": [{"pattern": "a", "reply": 3}]})},
            "providers.0.simulate.answers.0.reply",
            "text or a mapping, found 3",
        ),
    ],
)
def test_a_key_of_several_forms_has_one_fault(changes: dict[str, object], path: str, message: str) -> None:
    assert only(**changes)[:2] == (path, f"expected {message}")


def test_a_rule_of_the_models_is_told_in_its_own_words() -> None:
    assert lines(task={"type": "chat"}) == [
        "job: task: give one of prompt, messages, messages_column (here: none of them)"
    ]
    assert lines(providers=lane(simulate={})) == [
        "job: providers.0: simulate goes with provider: simulator only"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"providers": lane(api_key=5551234)},
        {"providers": lane(api_key=["sk-5551234"])},
        {"providers": lane(headers="sk-5551234")},
        {"providers": lane(headers={"X": 5551234})},
        {"providers": lane(base_url=5551234)},
        {"providers": "api_key:sk-5551234"},
        {"providers": ["api_key:sk-5551234"]},
    ],
)
def test_what_may_be_a_key_is_not_repeated(changes: dict[str, object]) -> None:
    (line,) = lines(**changes)
    assert "5551234" not in line
    assert "found" in line


def test_all_faults_come_at_once() -> None:
    found = faults(name=1, input={"path": 1}, providers=lane(limits={"rpm": 0}, x=1), routing="x")
    assert {fault.path for fault in found} == {
        "name",
        "input.path",
        "providers.0.limits.rpm",
        "providers.0.x",
        "routing",
    }


PLACES = Places(
    {"": (1, 1), "a": (1, 1), "a.b": (2, 6)}, {"a": (1, 1), "a.b": (2, 3)}, frozenset({"s", "a.s", "a.s.t"})
)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a.b", (2, 6)),
        ("a.b.c.d", (2, 6)),
        ("a.x", (1, 1)),
        ("x", (1, 1)),
        ("", (1, 1)),
        ('a."x.y".z', (1, 1)),
    ],
)
def test_a_fault_has_the_place_of_the_nearest_thing_around_it(path: str, place: tuple[int, int]) -> None:
    fault = PLACES.fault(path, "m", "r")
    assert fault == Fault(path, "m", "r", *place)


def test_a_fault_of_a_key_has_the_place_of_the_key() -> None:
    assert PLACES.fault("a.b", "m", is_at_key=True).column == 3


@pytest.mark.parametrize("path", ["s", "a.s", "a.s.t", "a.s.x", "s.x.y"])
def test_what_the_command_line_set_has_no_place_in_the_file(path: str) -> None:
    for fault in (PLACES.fault(path, "m"), PLACES.fault(path, "m", is_at_key=True)):
        assert isinstance(fault, OverrideFault)
        assert fault.text("job.yaml") == f"--set: {path}: m"


def test_without_any_place_there_is_none() -> None:
    assert Places().fault("a.b", "m").text("<job>") == "<job>: a.b: m"


def test_faults_are_in_the_order_of_the_file_with_those_of_no_place_last() -> None:
    unsorted = [Fault("x", ""), Fault("c", "", "", 2, 1), Fault("b", "", "", 1, 9), Fault("a", "", "", 1, 2)]
    assert [fault.path for fault in in_order(unsorted)] == ["a", "b", "c", "x"]


def test_very_many_faults_are_counted_and_not_listed() -> None:
    listed = in_order(Fault(str(n), "", "", n, 1) for n in range(1, MAX_FAULTS + 8))
    assert len(listed) == MAX_FAULTS + 1
    assert listed[-1].message == "and 7 more faults"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (1.5, "1.5"),
        ("", "empty text"),
        ("é\x1b[31m", 'text "é\\u001b[31m"'),
        ("é\x9b", 'text "\\u00e9\\u009b"'),
        ("数\n", 'text "数\\n"'),
        ("x" * 100, f'text "{"x" * 59}…"'),
        ([], "an empty list"),
        ([1, 2], "a list of 2"),
        ({}, "a mapping"),
    ],
)
def test_what_was_found_is_said_in_the_words_of_the_file(value: object, words: str) -> None:
    assert described(value) == words


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("concurency", ["rpm", "concurrency"], "concurrency"),
        ("RPM", ["rpm", "tpm"], "rpm"),
        ("max-tokens", ["max_tokens"], "max_tokens"),
        ("x", ["rpm"], None),
        ("", ["rpm"], None),
        ("rpm", [], None),
    ],
)
def test_the_nearest_spelling_looks_past_case_and_dashes(
    word: str, known: list[str], near: str | None
) -> None:
    assert nearest(word, known) == near


@settings(deadline=None)
@given(st.text())
def test_nothing_that_a_terminal_obeys_is_ever_printed(text: str) -> None:
    assert quoted(text).isprintable()
    assert dotted((text, 0)).isprintable()
    assert json.loads(quoted(text, 10_000)) == text


_ODD = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(-2, 2)
    | st.sampled_from(["", "chat", "all", "x"])
)
_WORDS = """
    name input path columns task type prompt params stop schema messages role content providers provider model limits
    rpm simulate answers pattern reply headers output carry x
"""
_KEYS = st.sampled_from(_WORDS.split())
_TREES = st.recursive(
    _ODD, lambda tree: st.lists(tree, max_size=3) | st.dictionaries(_KEYS, tree, max_size=6), max_leaves=20
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _TREES, max_size=6))
def test_any_data_gives_one_fault_for_each_path(data: dict[str, object]) -> None:
    try:
        Job.model_validate(data)
    except ValidationError as error:
        found = translate(error, data, Places())
    else:
        return
    paths = [fault.path for fault in found]
    assert found
    assert len(set(paths)) == len(paths)
    assert not any("constrained" in path or "list[" in path or "dict[" in path for path in paths)
