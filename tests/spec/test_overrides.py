"""`--set key.path=value`."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import Fault
from batchllm.spec.overrides import Overridden, apply_overrides


def job() -> dict[str, object]:
    return {
        "name": "a",
        "input": {"path": ["x.jsonl", "y.jsonl"]},
        "task": {"type": "chat", "prompt": "p", "params": None},
        "providers": [
            {"provider": "groq", "model": "fast"},
            {"provider": "openai", "model": "m", "name": "gpt-4.1"},
            {"provider": "openai", "model": "n", "name": "other"},
        ],
    }


def changed(*overrides: str) -> dict[str, object]:
    result = apply_overrides(job(), overrides)
    assert result.faults == ()
    return result.data


def refused(override: str) -> Fault:
    result = apply_overrides(job(), [override])
    assert (result.data, result.paths) == (job(), frozenset())
    (fault,) = result.faults
    assert fault.text("job.yaml").startswith("--set:")
    return fault


def value(text: str) -> object:
    return changed(f"name={text}")["name"]


def lanes(*overrides: str) -> list[dict[str, object]]:
    listed = changed(*overrides)["providers"]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("abc", "abc"),
        ("5", 5),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("no", "no"),
        ("null", None),
        ("", None),
        ("  x  ", "x"),
        ('"5"', "5"),
        ("'a: b'", "a: b"),
        ("[1, a, {b: c}]", [1, "a", {"b": "c"}]),
        ("{a: 1}", {"a": 1}),
        ("a=b=c", "a=b=c"),
        ("*.jsonl", "*.jsonl"),
        ("!x", "!x"),
        ("&x", "&x"),
        ("Label this: {{ text }} # now", "Label this: {{ text }} # now"),
        ("{{ text }}", "{{ text }}"),
        ("- x", "- x"),
        ("a\nb", "a\nb"),
        ("${KEY}", "${KEY}"),
    ],
)
def test_a_value_is_a_scalar_a_flow_collection_or_the_text_itself(text: str, meaning: object) -> None:
    found = value(text)
    assert found == meaning
    assert type(found) is type(meaning)


def test_a_key_is_set_at_any_depth() -> None:
    assert lanes("providers.1.model=x")[1] == {"provider": "openai", "model": "x", "name": "gpt-4.1"}
    assert changed("input.path.1=z.jsonl")["input"] == {"path": ["x.jsonl", "z.jsonl"]}
    assert changed("input.path=z.jsonl")["input"] == {"path": "z.jsonl"}


def test_missing_mappings_are_made() -> None:
    assert lanes("providers.0.limits.rpm=5")[0]["limits"] == {"rpm": 5}
    assert changed("budget.usd=2")["budget"] == {"usd": 2}


def test_a_mapping_left_empty_is_filled() -> None:
    result = apply_overrides(job(), ["task.params.temperature=0"])
    assert result.data["task"] == {"type": "chat", "prompt": "p", "params": {"temperature": 0}}
    assert result.paths == {"task.params", "task.params.temperature"}


def test_only_what_was_set_or_made_counts_as_set() -> None:
    assert apply_overrides(job(), ["providers.0.limits.rpm=5"]).paths == {
        "providers.0.limits",
        "providers.0.limits.rpm",
    }
    assert apply_overrides(job(), ["providers.groq.model=5"]).paths == {"providers.0.model"}


def test_a_digit_is_a_key_of_a_mapping() -> None:
    assert changed("task.params.logit_bias.50256=-100")["task"] == {
        "type": "chat",
        "prompt": "p",
        "params": {"logit_bias": {"50256": -100}},
    }


def test_a_lane_is_called_by_its_name_or_its_provider() -> None:
    assert lanes("providers.groq.model=x")[0]["model"] == "x"
    assert lanes("providers.other.model=x")[2]["model"] == "x"
    assert lanes('providers."gpt-4.1".model=x')[1]["model"] == "x"


def test_a_provider_of_two_lanes_does_not_say_which() -> None:
    fault = refused("providers.openai.model=x")
    assert "providers.1 and providers.2" in fault.message


def test_an_unknown_lane_is_told_the_nearest() -> None:
    assert refused("providers.grok.model=x").remedy == "did you mean groq?"
    assert refused("providers.zzz.model=x").remedy == "lanes here: gpt-4.1, other, groq, openai"


def test_the_last_of_two_wins() -> None:
    assert changed("name=x", "name=y")["name"] == "y"


def test_each_builds_on_those_before_it() -> None:
    assert changed("budget={usd: 1}", "budget.usd=2")["budget"] == {"usd": 2}


def test_the_data_given_is_left_as_it_is() -> None:
    data = job()
    apply_overrides(data, ["providers.0.model=x", "input.path.0=z"])
    assert data == job()


@pytest.mark.parametrize(
    "override", ["", "name", "=x", "a..b=x", ".a=x", "a.=x", 'a."b=x', 'a."\\q"=x', "  =x"]
)
def test_what_is_no_assignment_is_told_its_form(override: str) -> None:
    assert "--set key.path=value" in refused(override).remedy


@pytest.mark.parametrize(
    ("override", "path", "said"),
    [
        ("providers.3.model=x", "providers.3", "providers has no item 3; it has 3 (0 to 2)"),
        ("providers.99999999.model=x", "providers.99999999", "no lane has this name"),
        ("providers.-1.model=x", "providers.-1", "no lane has this name"),
        ("input.path.2=x", "input.path.2", "it has 2 (0 to 1)"),
        ("input.path.x=x", "input.path.x", "input.path is a list"),
        ("name.x=1", "name.x", "name is a single value"),
        ("task.prompt.x.y=1", "task.prompt.x", "task.prompt is a single value"),
        ("task.prompt=[1", "task.prompt", "never closed"),
        ("task.prompt='x' y", "task.prompt", ""),
        ("task.schema={a: !!python/object x}", "task.schema.a", "tags"),
        ("task.schema={a: 1, a: 2}", "task.schema.a", "given twice"),
        ("budget.usd=.inf", "budget.usd", "JSON"),
        ("budget.usd=1e999", "budget.usd", "JSON"),
        ("budget.usd=" + "9" * 5000, "budget.usd", "64 bits"),
        ("task.prompt=\udcff", "task.prompt", "UTF-8"),
        ("task.prompt=[\udcff]", "task.prompt", "UTF-8"),
        ("a." * 70 + "b=1", "", "64 levels"),
        ("task.schema=" + "[" * 5000, "task.schema", "64 levels"),
    ],
)
def test_a_bad_path_or_value_is_named(override: str, path: str, said: str) -> None:
    fault = refused(override)
    assert fault.path.startswith(path)
    assert said in fault.message


def test_a_job_without_providers_has_none_to_change() -> None:
    result = apply_overrides({}, ["providers.0.model=x"])
    assert [fault.path for fault in result.faults] == ["providers"]


def test_a_value_is_never_repeated_in_a_fault() -> None:
    for override in (
        "providers.0.api_key=[sk-secret",
        "providers.0.api_key='sk-secret' x",
        "name.x=sk-secret",
    ):
        assert "sk-secret" not in refused(override).text("job.yaml")


_KEYS = st.text('ab."\\= é', min_size=1, max_size=4)
_VALUES = st.none() | st.booleans() | st.integers(-99, 99) | st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(_KEYS, min_size=1, max_size=4), _VALUES | st.lists(_VALUES) | st.dictionaries(_KEYS, _VALUES))
def test_what_is_set_is_found_there(keys: list[str], value: object) -> None:
    path = ".".join(json.dumps(key) for key in keys)
    result = apply_overrides({}, [f"{path}={json.dumps(value)}"])
    assert result.faults == ()
    found: object = result.data
    for key in keys:
        assert isinstance(found, dict)
        found = found[key]
    assert found == value


@settings(deadline=None)
@given(st.lists(st.text() | st.text('providersgroq0123.=[]{}"\\ab,', max_size=30), max_size=3))
def test_any_text_is_applied_or_refused(overrides: list[str]) -> None:
    data = job()
    result = apply_overrides(data, overrides)
    assert isinstance(result, Overridden)
    assert data == copy.deepcopy(job())
