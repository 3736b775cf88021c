"""Chunks of chat and completion → the reply that would have come whole."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.provider.assembly import ChatAssembly, Events, error_of
from batchllm.task.usage import read_usage

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m-2026"}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def built(*events: dict[str, Any] | bytes) -> Events:
    made = Events(ChatAssembly())
    for event in events:
        made.take(event if isinstance(event, bytes) else orjson.dumps(event))
    return made


def message(*events: dict[str, Any] | bytes) -> dict[str, Any]:
    return built(*events).reply()["choices"][0]["message"]


def test_a_chat_becomes_what_would_have_come_whole() -> None:
    made = built(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        {**HEAD, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
        b"[DONE]",
    )
    assert made.is_whole
    assert made.reply() == {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_a_completion_becomes_one() -> None:
    head = {"id": "c", "object": "text_completion", "model": "m"}
    made = built(
        {**head, "choices": [{"index": 0, "text": "a", "finish_reason": None, "logprobs": None}]},
        {**head, "choices": [{"index": 0, "text": "b", "finish_reason": "length"}]},
    )
    assert made.is_whole
    assert made.assembly.has_begun
    assert made.reply() == {**head, "choices": [{"index": 0, "finish_reason": "length", "text": "ab"}]}


@pytest.mark.parametrize(
    "events",
    {
        "in a last chunk without choices": [{**HEAD, "choices": [], "usage": {"completion_tokens": 2}}],
        "in the last chunk with choices": [chunk({}, "stop", usage={"completion_tokens": 2})],
        "in each chunk, growing": [
            chunk({"content": "a"}, usage={"completion_tokens": 1}),
            chunk({"content": "b"}, usage={"completion_tokens": 2}),
            chunk({}, "stop", usage=None),
        ],
        "Groq's own": [chunk({}, "stop", x_groq={"id": "req", "usage": {"completion_tokens": 2}})],
        "Groq's own beside the usual": [
            chunk({}, "stop", x_groq={"usage": {"completion_tokens": 9}}),
            {**HEAD, "choices": [], "usage": {"completion_tokens": 2}},
        ],
    }.values(),
)
def test_usage_is_found_wherever_it_comes(events: list[dict[str, Any]]) -> None:
    assert read_usage(built(*events).reply()).completion_tokens == 2


class TestCalls:
    def test_pieces_of_the_same_index_belong_together(self) -> None:
        calls = message(
            chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]}),
            chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}, "tool_calls"),
        )["tool_calls"]
        assert calls == [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "function": {"name": "g", "arguments": "{}"}},
        ]

    def test_another_id_at_the_same_index_is_another_call(self) -> None:
        one = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
        calls = message(chunk({"tool_calls": [one]}), chunk({"tool_calls": [{**one, "id": "b"}]}))[
            "tool_calls"
        ]
        assert [call["id"] for call in calls] == ["a", "b"]

    def test_without_an_index_the_id_tells(self) -> None:
        calls = message(
            chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}),
            chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
            chunk({"tool_calls": [{"id": "b", "function": {"name": "f", "arguments": "{}"}}]}),
        )["tool_calls"]
        assert [call["function"]["arguments"] for call in calls] == ["{}", "{}"]

    def test_a_name_that_is_said_with_each_piece_is_one_name(self) -> None:
        piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}}
        calls = message(chunk({"tool_calls": [piece]}), chunk({"tool_calls": [piece]}))["tool_calls"]
        assert calls[0]["function"] == {"name": "f", "arguments": "11"}

    def test_the_older_form_is_put_together_too(self) -> None:
        made = message(
            chunk({"function_call": {"name": "f", "arguments": "{"}}),
            chunk({"function_call": {"arguments": "}"}}, "function_call"),
        )
        assert made["function_call"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_are_joined_and_are_not_the_answer(name: str) -> None:
    thinking = built(chunk({name: "hm"}), chunk({name: "m"}))
    assert thinking.assembly.has_token
    assert not thinking.assembly.has_begun
    assert thinking.reply()["choices"][0]["message"] == {"role": "assistant", "content": None, name: "hmm"}


def test_lists_of_parts_are_put_end_to_end() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    made = message(chunk({"content": ""}), chunk({"content": [thought]}), chunk({"content": "yes"}, "stop"))
    assert made["content"] == [thought, {"type": "text", "text": "yes"}]


def test_log_probabilities_are_put_end_to_end() -> None:
    def told(token: str) -> dict[str, Any]:
        event = chunk({"content": token})
        event["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1.0}], "refusal": None}
        return event

    choice = built(told("a"), told("b")).reply()["choices"][0]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b"]


def test_choices_keep_apart_and_all_must_have_ended() -> None:
    def of(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {
            **HEAD,
            "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}],
        }

    made = built(of(1, "b"), of(0, "a", "stop"))
    assert not made.is_whole
    made.take(orjson.dumps(of(1, "B", "length")))
    assert made.is_whole
    assert [choice["message"]["content"] for choice in made.reply()["choices"]] == ["a", "bB"]


def test_an_empty_finish_reason_says_nothing_and_takes_nothing_back() -> None:
    assert not built(chunk({"content": "a"}, "")).is_whole
    made = built(chunk({"content": "a"}, "stop"), chunk({}, ""))
    assert made.reply()["choices"][0]["finish_reason"] == "stop"


def test_what_stands_beside_the_choices_is_kept() -> None:
    reply = built(chunk({"content": "a"}, citations=["u"]), chunk({}, "stop", service_tier="flex")).reply()
    assert (reply["citations"], reply["service_tier"]) == (["u"], "flex")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"error": {"message": "no", "code": 502}}, {"message": "no", "code": 502}),
        ({**HEAD, "choices": [], "error": {"message": "no"}}, {"message": "no"}),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no", "code": "1300"}, {"message": "no", "code": "1300"}),
        (
            {"type": "error", "code": "server_error", "message": "no"},
            {"code": "server_error", "message": "no"},
        ),
        ({"type": "error", "error": {"message": "no"}}, {"message": "no"}),
        ({"detail": "no"}, {"detail": "no"}),
        ({**HEAD, "choices": [], "x_groq": {"error": "over capacity"}}, {"message": "over capacity"}),
        (chunk({"content": "a"}, error=None), None),
        ({"type": "response.failed", "error": {"message": "no"}}, None),
        ({**HEAD, "choices": []}, None),
    ],
)
def test_errors_among_the_events(event: dict[str, Any], error: object) -> None:
    assert error_of(event) == error


def test_an_error_ends_the_reply_and_what_had_come_stays() -> None:
    made = built(chunk({"content": "half"}), {"error": {"message": "overloaded"}})
    assert made.is_whole
    reply = made.reply()
    assert reply["error"] == {"message": "overloaded"}
    assert reply["choices"][0]["message"]["content"] == "half"


def test_an_event_that_is_no_json_is_an_error_and_no_gap_in_the_text() -> None:
    reply = built(chunk({"content": "a"}), b"<html>", chunk({"content": "b"}, "stop")).reply()
    assert "no JSON object: <html>" in reply["error"]["message"]


def test_half_a_character_is_mended() -> None:
    assert message(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}')["content"] == "\ufffd"


_WORDS = [
    "choices",
    "delta",
    "content",
    "index",
    "finish_reason",
    "tool_calls",
    "function",
    "id",
    "name",
    "arguments",
    "text",
    "usage",
    "x_groq",
    "logprobs",
    "error",
    "type",
    "object",
    "message",
    "function_call",
    "reasoning",
    "role",
]
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.lists(_json, max_size=5))
def test_nothing_raises(events: list[object]) -> None:
    made = Events(ChatAssembly())
    for event in events:
        made.take(orjson.dumps(event))
        made.take(orjson.dumps({"choices": [event]}))
        made.take(orjson.dumps({"choices": [{"delta": event}]}))
    orjson.dumps(made.reply())
