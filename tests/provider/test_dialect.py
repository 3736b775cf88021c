"""Each provider is asked in its own words, and what it cannot do is refused before anything is sent."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked, Translation, translate
from batchllm.spec.models import Params

CATALOGUE = load_catalogue()
#: Who sends vectors as base64; all others are asked for floats.
FORMS = {"openai": "base64", "simulator": "base64", "perplexity": "base64_int8"}
HOSTED_CHAT = [
    "openai",
    "together",
    "groq",
    "mistral",
    "deepseek",
    "xai",
    "fireworks",
    "openrouter",
    "azure",
    "gemini",
    "anthropic",
]
OWN = ["vllm", "sglang", "llamacpp", "lmstudio", "ollama", "tgi", "custom", "anyscale", "simulator"]
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative"]}},
    "required": ["label"],
}


def chat(provider: str, model: str = "", *, omit: list[str] | None = None, **params: object) -> Translation:
    entry = CATALOGUE.get(provider)
    asked = Asked("chat", Params.model_validate(params))
    return translate(asked, entry=entry, model=model or entry.resolve_model("fast"), omit=omit or [])


def refused(translation: Translation) -> list[str]:
    return [fault.param for fault in translation.unsupported]


@pytest.mark.parametrize("provider", [*HOSTED_CHAT, *OWN])
def test_nothing_asked_is_nothing_sent(provider: str) -> None:
    assert chat(provider) == Translation({})


@pytest.mark.parametrize(
    ("provider", "field"),
    [
        ("openai", "max_completion_tokens"),
        ("groq", "max_completion_tokens"),
        ("together", "max_tokens"),
        ("mistral", "max_tokens"),
        ("deepseek", "max_tokens"),
        ("xai", "max_tokens"),
        ("fireworks", "max_tokens"),
        ("openrouter", "max_tokens"),
        ("azure", "max_completion_tokens"),
        ("gemini", "max_tokens"),
        ("anthropic", "max_tokens"),
        ("vllm", "max_tokens"),
        ("ollama", "max_tokens"),
        ("custom", "max_tokens"),
    ],
)
def test_the_output_cap_has_each_providers_name(provider: str, field: str) -> None:
    translation = chat(provider, max_tokens=40)
    assert translation.fields == {field: 40}
    assert translation.max_output_tokens == 40


def test_the_completions_endpoint_knows_the_old_name_of_the_cap() -> None:
    asked = Asked("completion", Params(max_tokens=9))
    entry = CATALOGUE.get("openai")
    assert translate(asked, entry=entry, model="gpt-3.5-turbo-instruct").fields == {"max_tokens": 9}


@pytest.mark.parametrize("provider", ["openai", "together", "custom", "vllm"])
def test_the_completions_endpoint_counts_log_probabilities(provider: str) -> None:
    def fields(**params: Any) -> Mapping[str, object]:
        asked = Asked("completion", Params(**params))
        return translate(asked, entry=CATALOGUE.get(provider), model="m").fields

    assert fields(logprobs=True) == {"logprobs": 1}
    assert fields(logprobs=True, top_logprobs=5) == {"logprobs": 5}
    assert fields(logprobs=False) == {}
    assert fields(n=2) == {"n": 2}


@pytest.mark.parametrize(
    ("provider", "params", "wrong"),
    [
        ("openai", {"logprobs": True, "top_logprobs": 6}, ["top_logprobs"]),
        ("ollama", {"logprobs": True}, ["logprobs"]),
        ("ollama", {"n": 2}, ["n"]),
        ("deepseek", {"n": 2}, ["n"]),
    ],
)
def test_some_completions_endpoints_take_less(provider: str, params: Any, wrong: list[str]) -> None:
    asked = Asked("completion", Params(**params))
    assert refused(translate(asked, entry=CATALOGUE.get(provider), model="m")) == wrong


@pytest.mark.parametrize("param", ["reasoning_effort", "verbosity", "service_tier"])
def test_the_completions_endpoint_refuses_what_only_chat_knows(param: str) -> None:
    asked = Asked("completion", Params.model_validate({param: "low"}))
    assert refused(translate(asked, entry=CATALOGUE.get("together"), model="m")) == [param]
    assert translate(asked, entry=CATALOGUE.get("custom"), model="m").fields == {param: "low"}


def test_seed_is_renamed_left_out_or_sent() -> None:
    assert chat("mistral", seed=7).fields == {"random_seed": 7}
    assert chat("openai", seed=7).fields == {"seed": 7}
    left_out = chat("deepseek", seed=7)
    assert left_out.fields == {}
    assert left_out.unsupported == ()
    assert "seed" in left_out.notes[0]


def test_user_is_renamed_left_out_or_sent() -> None:
    assert chat("deepseek", user="u").fields == {"user_id": "u"}
    assert chat("mistral", user="u").fields == {}
    assert chat("together", user="u").fields == {}
    assert chat("groq", user="u").fields == {"user": "u"}
    assert chat("ollama", user="u").fields == {}
    assert chat("gemini", user="u", seed=1).fields == {}


@pytest.mark.parametrize(
    ("provider", "model", "params", "expected"),
    [
        ("openai", "gpt-5-nano", {"temperature": 0.0}, ["temperature"]),
        ("openai", "o3", {"top_p": 0.5, "presence_penalty": 1.0}, ["top_p", "presence_penalty"]),
        ("openai", "gpt-6-luna", {"logit_bias": {"50256": -100.0}}, ["logit_bias"]),
        ("openai", "gpt-4.1-nano", {"reasoning_effort": "low"}, ["reasoning_effort"]),
        ("openai", "gpt-4o", {"verbosity": "low"}, ["verbosity"]),
        ("openai", "gpt-4o", {"stop": ["a", "b", "c", "d", "e"]}, ["stop"]),
        ("groq", "openai/gpt-oss-20b", {"frequency_penalty": 0.5}, ["frequency_penalty"]),
        ("groq", "openai/gpt-oss-20b", {"logit_bias": {"1": 1.0}}, ["logit_bias"]),
        ("mistral", "mistral-small-latest", {"temperature": 1.6}, ["temperature"]),
        ("mistral", "mistral-small-latest", {"service_tier": "flex"}, ["service_tier"]),
        ("mistral", "mistral-small-latest", {"reasoning_effort": "low"}, ["reasoning_effort"]),
        ("deepseek", "deepseek-flash", {"reasoning_effort": "medium"}, ["reasoning_effort"]),
        ("deepseek", "deepseek-flash", {"logit_bias": {"1": 1.0}}, ["logit_bias"]),
        ("xai", "grok-4.7", {"stop": "END"}, ["stop"]),
        ("xai", "grok-4.7", {"presence_penalty": 0.1}, ["presence_penalty"]),
        ("together", "m", {"reasoning_effort": "xhigh"}, ["reasoning_effort"]),
        ("azure", "gpt-5-nano", {"temperature": 0.0}, ["temperature"]),
        ("gemini", "gemini-3.5-flash", {"frequency_penalty": 0.5}, ["frequency_penalty"]),
        ("anthropic", "claude-haiku-4-5", {"presence_penalty": 0.5}, ["presence_penalty"]),
        ("anthropic", "claude-haiku-4-5", {"reasoning_effort": "low"}, ["reasoning_effort"]),
        ("ollama", "llama3.2", {"logit_bias": {"1": 1.0}}, ["logit_bias"]),
    ],
)
def test_a_parameter_that_the_model_cannot_take_refuses_the_job(
    provider: str, model: str, params: dict[str, object], expected: list[str]
) -> None:
    translation = chat(provider, model, **params)
    assert refused(translation) == expected
    assert translation.fields == {}
    assert all(fault.reason and fault.remedy for fault in translation.unsupported)


@pytest.mark.parametrize(
    ("provider", "model", "params"),
    [
        ("openai", "gpt-5-nano", {"reasoning_effort": "low", "verbosity": "low", "seed": 1}),
        ("openai", "gpt-4.1-nano", {"temperature": 0.0, "top_p": 0.5, "presence_penalty": 1.0}),
        ("openai", "gpt-4.1-nano", {"stop": "one"}),
        ("openai", "gpt-4.1-nano", {"stop": ["a", "b", "c", "d"]}),
        ("groq", "openai/gpt-oss-20b", {"temperature": 0.0, "seed": 3}),
        ("mistral", "mistral-small-latest", {"temperature": 1.5, "reasoning_effort": "none"}),
        ("xai", "grok-4.20-0309-non-reasoning", {"stop": "END", "presence_penalty": 0.1}),
        ("openrouter", "openai/gpt-oss-20b", {"temperature": 2.0, "reasoning_effort": "high"}),
        ("azure", "my-deployment", {"temperature": 0.0, "reasoning_effort": "low", "seed": 1}),
        ("vllm", "m", {"logit_bias": {"1": 1.5}, "reasoning_effort": "low", "seed": 1}),
        ("ollama", "m", {"seed": 1, "stop": "x", "reasoning_effort": "none", "presence_penalty": 0.5}),
        ("gemini", "gemini-3.5-flash", {"reasoning_effort": "none", "temperature": 2.0}),
        ("custom", "m", {"stop": ["a"] * 16, "verbosity": "low", "user": "u", "service_tier": "x"}),
    ],
)
def test_what_a_model_takes_goes_as_it_is(provider: str, model: str, params: dict[str, object]) -> None:
    translation = chat(provider, model, **params)
    assert dict(translation.fields) == params
    assert translation.unsupported == ()


def test_the_value_that_is_assumed_anyway_refuses_nothing() -> None:
    translation = chat("openai", "gpt-5", temperature=1.0, top_p=1.0, presence_penalty=0.0)
    assert translation.unsupported == ()
    assert translation.fields == {}


def test_a_bound_that_is_only_documented_is_a_note() -> None:
    translation = chat("together", temperature=1.2)
    assert translation.fields == {"temperature": 1.2}
    assert "0 to 1" in translation.notes[0]
    assert chat("together", temperature=1.0).notes == ()


def test_deepseek_says_what_thinking_ignores() -> None:
    assert "thinks" in chat("deepseek", temperature=0.0).notes[0]
    assert chat("deepseek", temperature=1.0).notes == ()
    assert chat("deepseek", omit=["reasoning_effort"], temperature=0.0, reasoning_effort="none").notes


def test_deepseeks_thinking_is_turned_off_by_the_effort_none() -> None:
    translation = chat("deepseek", temperature=0.0, reasoning_effort="none")
    assert translation.fields == {"temperature": 0.0, "thinking": {"type": "disabled"}}
    assert translation.notes == ()


def test_togethers_thinking_is_turned_off_by_the_effort_none() -> None:
    assert chat("together", reasoning_effort="none").fields == {"reasoning": {"enabled": False}}
    assert chat("together", reasoning_effort="low").fields == {"reasoning_effort": "low"}


def test_deepseeks_thinking_may_be_set_on_the_lane() -> None:
    asked = Asked("chat", Params(temperature=0.0, reasoning_effort="high"))
    entry = CATALOGUE.get("deepseek")
    off = {"thinking": {"type": "disabled"}}
    translation = translate(asked, entry=entry, model="deepseek-flash", extra_body=off)
    assert translation.notes == ()
    assert translation.fields["thinking"] == {"type": "disabled"}


def test_whole_biases_are_sent_as_whole_numbers() -> None:
    body = json.dumps(chat("openai", logit_bias={"1": 5.0, "2": -0.5}).fields)
    assert json.loads(body) == {"logit_bias": {"1": 5, "2": -0.5}}
    assert '"1": 5,' in body


@pytest.mark.parametrize("provider", HOSTED_CHAT)
@settings(deadline=None)
@given(data=st.data())
def test_what_is_omitted_is_never_sent_and_never_refused(provider: str, data: st.DataObject) -> None:
    given_params = {
        "temperature": 2.0,
        "top_p": 0.1,
        "max_tokens": 5,
        "stop": ["a"] * 16,
        "seed": 1,
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "logit_bias": {"1": 1.0},
        "reasoning_effort": "odd",
        "verbosity": "low",
        "service_tier": "flex",
        "user": "u",
    }
    omit = data.draw(st.lists(st.sampled_from(sorted(given_params)), unique=True))
    translation = chat(provider, "openai/gpt-oss-20b", omit=omit, **given_params)
    assert not set(refused(translation)) & set(omit)
    assert not set(translation.fields) & set(omit)
    told = len(translation.unsupported) + len(translation.fields) + len(translation.notes)
    assert told >= len(given_params) - len(omit)


def test_a_field_may_be_omitted_under_its_name_on_the_wire() -> None:
    assert chat("openai", omit=["max_completion_tokens"], max_tokens=9).fields == {}
    assert chat("mistral", omit=["random_seed"], seed=9).fields == {}


def test_extra_body_is_merged_last_and_wins() -> None:
    asked = Asked("chat", Params(temperature=0.0, seed=1))
    entry = CATALOGUE.get("openai")
    extra = {"temperature": 1, "top_k": 5}
    translation = translate(asked, entry=entry, model="gpt-5", extra_body=extra)
    assert translation.fields == {"seed": 1, "temperature": 1, "top_k": 5}
    assert translation.unsupported == ()


def test_the_output_cap_of_extra_body_replaces_the_jobs() -> None:
    asked = Asked("chat", Params(max_tokens=10))
    translation = translate(
        asked, entry=CATALOGUE.get("custom"), model="m", extra_body={"max_completion_tokens": 50}
    )
    assert translation.fields == {"max_completion_tokens": 50}
    assert translation.max_output_tokens == 50


def test_without_a_cap_none_is_claimed() -> None:
    assert chat("openai").max_output_tokens is None
    assert chat("openai", omit=["max_tokens"], max_tokens=5).max_output_tokens is None


@pytest.mark.parametrize(
    "extra",
    [{"model": "x"}, {"messages": []}, {"prompt": "x"}, {"input": "x"}, {"stream": True}, {"n": 2}],
)
def test_extra_body_cannot_change_what_is_read(extra: dict[str, object]) -> None:
    translation = translate(Asked("chat"), entry=CATALOGUE.get("custom"), model="m", extra_body=extra)
    assert refused(translation) == [f"extra_body.{next(iter(extra))}"]


def test_extra_body_may_say_what_holds_anyway() -> None:
    extra = {"stream": False, "n": 1}
    assert (
        translate(Asked("chat"), entry=CATALOGUE.get("custom"), model="m", extra_body=extra).unsupported == ()
    )


TOOL_FIELDS = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}


def tooled(provider: str, count: int = 1, omit: list[str] | None = None) -> Translation:
    entry = CATALOGUE.get(provider)
    fields = {**TOOL_FIELDS, "tools": TOOL_FIELDS["tools"] * count}  # type: ignore[operator] # a list
    return translate(
        Asked("chat", tools=fields), entry=entry, model=entry.resolve_model("fast"), omit=omit or []
    )


@pytest.mark.parametrize("provider", HOSTED_CHAT)
def test_tools_go_as_they_are(provider: str) -> None:
    translation = tooled(provider)
    assert {**translation.fields, **TOOL_FIELDS} == dict(translation.fields)
    assert translation.unsupported == ()


def test_a_server_without_the_choice_of_a_tool_is_not_told() -> None:
    assert dict(tooled("custom", omit=["tool_choice", "parallel_tool_calls"]).fields) == {
        "tools": TOOL_FIELDS["tools"]
    }


@pytest.mark.parametrize("provider", ["groq", "mistral", "deepseek"])
def test_so_many_tools_at_most(provider: str) -> None:
    assert refused(tooled(provider, 129)) == ["tools"]


@pytest.mark.parametrize(
    ("provider", "model", "params", "expected"),
    [
        ("openai", "gpt-5-nano", {"n": 2}, ["n"]),
        ("openai", "o3", {"logprobs": True, "top_logprobs": 1}, ["logprobs", "top_logprobs"]),
        ("groq", "", {"n": 2}, ["n"]),
        ("groq", "", {"logprobs": True}, ["logprobs"]),
        ("mistral", "", {"logprobs": True}, ["logprobs"]),
        ("deepseek", "", {"n": 2}, ["n"]),
        ("deepseek", "", {"logprobs": True}, ["logprobs"]),
        ("xai", "", {"logprobs": True, "top_logprobs": 9}, ["top_logprobs"]),
    ],
)
def test_choices_and_log_probabilities_are_refused_where_they_are_not_given(
    provider: str, model: str, params: dict[str, object], expected: list[str]
) -> None:
    translation = chat(provider, model, **params)
    assert refused(translation) == expected


@pytest.mark.parametrize("provider", ["openai", "groq", "mistral", "deepseek", "custom"])
def test_one_answer_without_log_probabilities_refuses_nothing(provider: str) -> None:
    assert chat(provider, n=1, logprobs=False).unsupported == ()


def test_log_probabilities_are_a_number_at_together() -> None:
    assert chat("together", logprobs=True).fields == {"logprobs": 1}
    assert chat("together", logprobs=True, top_logprobs=0).fields == {"logprobs": 1}
    assert chat("together", logprobs=True, top_logprobs=5).fields == {"logprobs": 5}
    assert chat("together", logprobs=False).fields == {}


def test_deepseek_gives_log_probabilities_once_it_does_not_think() -> None:
    translation = chat("deepseek", logprobs=True, top_logprobs=3, reasoning_effort="none")
    assert translation.unsupported == ()
    assert translation.fields["top_logprobs"] == 3


def test_openrouter_is_held_to_upstreams_that_know_what_is_asked() -> None:
    held = {"require_parameters": True}
    assert chat("openrouter", logprobs=True).fields == {"logprobs": True, "provider": held}
    assert tooled("openrouter").fields["provider"] == held
    assert chat("openrouter", n=1).fields == {"n": 1}


def test_a_lane_that_leaves_n_out_would_answer_once() -> None:
    assert refused(chat("custom", n=2, omit=["n"])) == ["n"]
    assert chat("custom", n=3).choices == 3
    assert chat("custom").choices == 1


def test_images_are_not_moderated_by_mistral() -> None:
    asked = Asked("moderation", has_images=True)
    assert refused(translate(asked, entry=CATALOGUE.get("mistral"), model="m")) == ["task.images"]
    assert translate(asked, entry=CATALOGUE.get("openai"), model="m").unsupported == ()


def test_a_kind_of_task_that_is_not_offered_is_refused_with_its_reason() -> None:
    translation = translate(Asked("completion"), entry=CATALOGUE.get("mistral"), model="m")
    assert refused(translation) == ["task.type"]
    assert "completion" in translation.unsupported[0].reason
    assert refused(translate(Asked("moderation"), entry=CATALOGUE.get("groq"), model="m")) == ["task.type"]


def test_a_moderation_sends_nothing_beside_its_input() -> None:
    translation = translate(
        Asked("moderation"), entry=CATALOGUE.get("mistral"), model="mistral-moderation-2603"
    )
    assert translation == Translation({})


def with_schema(provider: str, model: str = "", schema: object = LABEL, **lane: object) -> Translation:
    entry = CATALOGUE.get(provider)
    asked = Asked("chat", schema=schema, schema_name="classify reviews!")  # type: ignore[arg-type] # bad on purpose
    return translate(asked, entry=entry, model=model or entry.resolve_model("fast"), **lane)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "provider", ["openai", "together", "groq", "mistral", "xai", "fireworks", "openrouter", "custom"]
)
def test_a_schema_is_enforced_where_it_can_be(provider: str) -> None:
    translation = with_schema(provider)
    assert translation.fields["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "classify_reviews_",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"label": {"enum": ["positive", "negative"], "type": "string"}},
                "required": ["label"],
                "additionalProperties": False,
            },
        },
    }
    assert translation.instruction == ""


@pytest.mark.parametrize(
    ("provider", "model"),
    [("deepseek", "deepseek-flash"), ("groq", "qwen/qwen3.6-27b"), ("openai", "gpt-3.5-turbo")],
)
def test_elsewhere_the_prompt_carries_the_schema(provider: str, model: str) -> None:
    translation = with_schema(provider, model)
    assert translation.fields == {"response_format": {"type": "json_object"}}
    assert "JSON" in translation.instruction
    assert json.loads(translation.instruction.split("\n", 1)[1]) == LABEL


def test_a_server_that_holds_nothing_to_a_schema_gets_the_instruction_alone() -> None:
    translation = with_schema("anthropic")
    assert translation.fields == {}
    assert json.loads(translation.instruction.split("\n", 1)[1]) == LABEL


def test_a_server_without_response_format_gets_the_instruction_alone() -> None:
    translation = with_schema("custom", omit=["response_format"])
    assert translation.fields == {}
    assert "JSON" in translation.instruction


def test_the_lanes_own_response_format_is_left_alone() -> None:
    own = {"response_format": {"type": "text"}}
    assert with_schema("openai", extra_body=own) == Translation(own)
    assert with_schema("deepseek", extra_body=own) == Translation(own)


def test_a_schema_that_cannot_be_closed_goes_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    translation = with_schema("openai", schema=schema)
    shape = translation.fields["response_format"]
    assert isinstance(shape, dict)
    assert shape["json_schema"]["strict"] is False
    assert shape["json_schema"]["schema"] == schema
    assert "a is optional" in translation.notes[0]


def test_openrouter_is_held_to_upstreams_that_know_schemas() -> None:
    assert with_schema("openrouter").fields["provider"] == {"require_parameters": True}
    own = {"provider": {"order": ["x"]}}
    assert with_schema("openrouter", extra_body=own).fields["provider"] == {"order": ["x"]}
    assert "provider" not in chat("openrouter", temperature=0.0).fields


def test_a_schema_name_is_made_fit() -> None:
    long = Asked("chat", schema=LABEL, schema_name="ü" + "a" * 200)
    shape = translate(long, entry=CATALOGUE.get("openai"), model="gpt-4o").fields["response_format"]
    assert isinstance(shape, dict)
    jsonschema.validate(shape["json_schema"]["name"], {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})


def embedding(provider: str, model: str, dimensions: int | None = None, **lane: object) -> Translation:
    asked = Asked("embedding", dimensions=dimensions)
    return translate(asked, entry=CATALOGUE.get(provider), model=model, **lane)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("provider", "model", "dimensions", "sent"),
    [
        ("openai", "text-embedding-3-small", None, {}),
        ("openai", "text-embedding-3-small", 1536, {}),
        ("openai", "text-embedding-3-small", 256, {"dimensions": 256}),
        ("openai", "text-embedding-ada-002", 1536, {}),
        ("openai", "text-embedding-9", 99, {"dimensions": 99}),
        ("mistral", "mistral-embed", 1024, {}),
        ("mistral", "codestral-embed", 3072, {"output_dimension": 3072}),
        ("mistral", "mistral-embed-9", 99, {}),
        ("together", "some/new-model", 99, {}),
        ("openrouter", "some/new-model", 99, {"dimensions": 99}),
        ("custom", "m", 99, {"dimensions": 99}),
    ],
)
def test_a_width_is_sent_only_where_it_changes_something(
    provider: str, model: str, dimensions: int | None, sent: dict[str, int]
) -> None:
    translation = embedding(provider, model, dimensions)
    assert translation.fields == {"encoding_format": FORMS.get(provider, "float"), **sent}
    assert translation.unsupported == ()


@pytest.mark.parametrize(
    ("provider", "model", "dimensions"),
    [
        ("openai", "text-embedding-3-small", 1537),
        ("openai", "text-embedding-ada-002", 256),
        ("mistral", "mistral-embed", 256),
        ("mistral", "codestral-embed", 3073),
        ("together", "BAAI/bge-base-en-v1.5", 256),
    ],
)
def test_a_width_that_a_model_does_not_have_refuses_the_job(
    provider: str, model: str, dimensions: int
) -> None:
    translation = embedding(provider, model, dimensions)
    assert refused(translation) == ["dimensions"]
    assert translation.fields == {"encoding_format": FORMS.get(provider, "float")}


def test_a_server_that_knows_no_dimensions_is_not_told() -> None:
    assert embedding("custom", "m", 768, omit=["dimensions"]).fields == {"encoding_format": "float"}
    assert embedding("custom", "m", 768, omit=["dimensions", "encoding_format"]).fields == {}
    assert "omit: [dimensions]" in embedding("custom", "m", 768).notes[0]
    assert embedding("simulator", "m", 768).notes == ()


def test_perplexitys_vectors_are_asked_for_as_signed_bytes() -> None:
    assert embedding("perplexity", "pplx-embed-v1-4b").fields == {"encoding_format": "base64_int8"}
    assert embedding("perplexity", "pplx-embed-v1-4b", 512).fields["dimensions"] == 512
    assert refused(embedding("perplexity", "pplx-embed-v1-4b", 127)) == ["dimensions"]
    assert refused(embedding("perplexity", "pplx-embed-v1-0.6b", 1025)) == ["dimensions"]


def test_base64_is_asked_for_only_where_the_provider_is_known_to_send_it() -> None:
    asked = {
        entry.name: translate(Asked("embedding"), entry=entry, model="m").fields["encoding_format"]
        for entry in CATALOGUE
    }
    assert {name: form for name, form in asked.items() if form != "float"} == FORMS


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize("provider", ["openai", "custom"])
def test_a_lane_chooses_the_form_of_its_vectors(provider: str, form: str) -> None:
    translation = embedding(provider, "m", extra_body={"encoding_format": form})
    assert translation.unsupported == ()
    assert translation.fields == {"encoding_format": form}


@pytest.mark.parametrize("form", ["base64_binary", "ubinary", "", None, 1])
def test_a_form_that_cannot_be_read_is_refused(form: object) -> None:
    translation = embedding("custom", "m", extra_body={"encoding_format": form})
    assert refused(translation) == ["extra_body.encoding_format"]
    assert "float or base64" in translation.unsupported[0].reason
