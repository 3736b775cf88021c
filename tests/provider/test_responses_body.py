"""Chat in the words of the Responses API."""

from typing import Any

import orjson
import pytest

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked, Translation, translate
from batchllm.provider.responses_body import InputWriter, as_responses, form_of, input_items, model_field
from batchllm.spec.models import Params

CATALOGUE = load_catalogue()
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
CLOSED = {**SCHEMA, "additionalProperties": False}


def made(
    provider: str,
    model: str,
    params: dict[str, Any] | None = None,
    *,
    schema: dict[str, Any] | None = None,
    omit: tuple[str, ...] = (),
    extra_body: dict[str, Any] | None = None,
) -> Translation:
    entry = CATALOGUE.get(provider)
    asked = Asked("chat", Params.model_validate(params or {}), schema)
    chat = translate(asked, entry=entry, model=model, omit=omit, extra_body=extra_body)
    return as_responses(chat, form_of(entry.dialect), omit=omit, extra_body=extra_body)


def refused(translation: Translation) -> list[str]:
    return [item.param for item in translation.unsupported]


def test_each_parameter_has_its_place() -> None:
    params = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 40, "service_tier": "flex", "user": "u"}
    assert made("openai", "gpt-4.1-nano", params) == Translation(
        {
            "temperature": 0.5,
            "top_p": 0.9,
            "max_output_tokens": 40,
            "service_tier": "flex",
            "user": "u",
            "store": False,
        }
    )


def test_reasoning_and_verbosity_are_nested_and_go_beside_the_schema() -> None:
    fields = made(
        "openai", "gpt-5-nano", {"reasoning_effort": "low", "verbosity": "low"}, schema=SCHEMA
    ).fields
    assert fields["reasoning"] == {"effort": "low"}
    assert fields["text"] == {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True},
    }


def test_the_output_cap_is_known_to_budgets() -> None:
    assert made("openai", "gpt-4.1-nano", {"max_tokens": 40}).max_output_tokens == 40


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"stop": "x"}, "stop"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"max_tokens": 15}, "max_tokens"),
    ],
)
def test_what_has_no_place_refuses_the_job(params: dict[str, Any], param: str) -> None:
    assert refused(made("openai", "gpt-4.1-nano", params)) == [param]
    if param == "max_tokens":
        assert refused(made("custom", "m", params)) == []  # a bound of OpenAI's own
    else:
        assert "api: chat" in made("custom", "m", params).unsupported[0].remedy


def test_values_that_hold_anyway_are_not_sent() -> None:
    assert made("openai", "gpt-4.1-nano", {"presence_penalty": 0}).fields == {"store": False}
    assert refused(made("perplexity", "perplexity/sonar", {"temperature": 1, "top_p": 1})) == []


def test_a_seed_is_a_hint_and_is_said_to_be_left_out() -> None:
    translation = made("openai", "gpt-4.1-nano", {"seed": 7})
    assert translation.unsupported == ()
    assert "seed is not sent" in translation.notes[0]
    assert "seed" not in translation.fields


def test_what_a_model_refuses_in_chat_it_refuses_here() -> None:
    assert refused(made("openai", "gpt-5-nano", {"temperature": 0})) == ["temperature"]


def test_the_lane_has_the_last_word() -> None:
    extra = {"store": True, "reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}}
    fields = made("openai", "gpt-5-nano", {"reasoning_effort": "low"}, schema=SCHEMA, extra_body=extra).fields
    assert fields["store"] is True
    assert fields["reasoning"] == {"effort": "low", "summary": "auto"}
    assert set(fields["text"]) == {"format", "verbosity"}
    assert made("openai", "gpt-4.1-nano", omit=("store",)).fields == {}
    assert made("openai", "gpt-4.1-nano", {"stop": "x"}, omit=("stop",)).unsupported == ()


@pytest.mark.parametrize("name", ["background", "conversation"])
def test_replies_that_go_elsewhere_are_refused(name: str) -> None:
    assert refused(made("openai", "gpt-4.1-nano", extra_body={name: True})) == [f"extra_body.{name}"]


def test_tools_are_laid_flat_and_are_as_strict_as_in_chat() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    chat = Translation(
        {
            "tools": [
                {"type": "function", "function": function},
                {"type": "function", "function": {"name": "g", "strict": True}},
                {"type": "web_search"},
            ],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        }
    )
    assert as_responses(chat, form_of("openai")).fields == {
        "tools": [
            {"type": "function", "strict": False, **function},
            {
                "type": "function",
                "name": "g",
                "strict": True,
                "parameters": {"type": "object", "properties": {}},
            },
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "store": False,
    }


def test_log_probabilities_are_included_by_name() -> None:
    chat = Translation({"logprobs": True, "top_logprobs": 3, "n": 1})
    assert as_responses(chat, form_of("openai")).fields == {
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 3,
        "store": False,
    }
    assert refused(as_responses(Translation({"n": 2}), form_of("openai"))) == ["n"]


class TestPerplexity:
    def test_only_what_its_closed_list_has_is_sent(self) -> None:
        translation = made("perplexity", "perplexity/sonar", {"max_tokens": 9}, schema=SCHEMA)
        shape = {"name": "answer", "schema": CLOSED, "strict": True}
        assert translation.fields == {
            "max_output_tokens": 9,
            "response_format": {"type": "json_schema", "json_schema": shape},
        }

    def test_the_rest_is_refused_and_the_user_left_out(self) -> None:
        translation = made("perplexity", "perplexity/sonar", {"temperature": 0, "top_p": 0.5, "user": "u"})
        assert refused(translation) == ["temperature", "top_p"]
        assert "user is not sent" in translation.notes[0]
        assert "api: chat" not in translation.unsupported[0].remedy  # it has none

    def test_a_name_without_a_maker_is_a_preset(self) -> None:
        form = form_of("perplexity")
        assert model_field("perplexity/sonar", form) == "model"
        assert model_field("low", form) == "preset"
        assert model_field("gpt-4.1-nano", form_of("openai")) == "model"

    def test_the_system_message_is_the_instructions(self) -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
        written = InputWriter(form_of("perplexity"))(messages)
        assert orjson.loads(b'{"input":' + written + b"}") == {
            "input": [{"type": "message", "role": "user", "content": "Why?"}],
            "instructions": "Be brief.",
        }
        kept = InputWriter(form_of("perplexity"), may_instruct=False)(messages)
        assert [item["role"] for item in orjson.loads(kept)] == ["system", "user"]

    def test_images_have_no_detail(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
        (item,) = input_items([{"role": "user", "content": [part]}], form_of("perplexity"))
        assert item["content"] == [{"type": "input_image", "image_url": "https://x/y.png"}]


@pytest.mark.parametrize(
    ("message", "items"),
    {
        "text": (
            {"role": "user", "content": "hi"},
            [{"type": "message", "role": "user", "content": "hi"}],
        ),
        "a system message stays one, where it stands": (
            {"role": "system", "content": "s"},
            [{"type": "message", "role": "system", "content": "s"}],
        ),
        "parts": (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "u"}},
                    {"type": "file", "file": {"file_id": "f"}},
                ],
            },
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "hi"},
                        {"type": "input_image", "image_url": "u", "detail": "auto"},
                        {"type": "input_file", "file_id": "f"},
                    ],
                }
            ],
        ),
        "an assistant's parts are one text": (
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            [{"type": "message", "role": "assistant", "content": "ab"}],
        ),
        "calls": (
            {
                "role": "assistant",
                "content": "wait",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            [
                {"type": "message", "role": "assistant", "content": "wait"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            ],
        ),
        "what a tool said": (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "42"}]},
            [{"type": "function_call_output", "call_id": "c", "output": "42"}],
        ),
        "what is unknown is handed on": (
            {"role": "user", "name": "ann", "content": [{"type": "input_audio", "input_audio": {}}]},
            [
                {
                    "type": "message",
                    "role": "user",
                    "name": "ann",
                    "content": [{"type": "input_audio", "input_audio": {}}],
                }
            ],
        ),
    }.values(),
)
def test_messages_become_input_items(message: dict[str, Any], items: list[dict[str, Any]]) -> None:
    assert input_items([message]) == items
