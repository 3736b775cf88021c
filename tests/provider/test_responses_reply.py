"""A Responses reply as a chat completion."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.provider.responses_reply import as_chat
from batchllm.records import Usage
from batchllm.task.usage import read_usage


def text(*texts: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": one, "annotations": [], "logprobs": []} for one in texts]
    return {"type": "message", "role": "assistant", "content": parts, **more}


def reply(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "model": "m-2026",
        "status": status,
        "error": None,
        "output": list(output),
        **more,
    }


def choice(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return as_chat(reply(*output, **more))["choices"][0]


def test_an_answer_becomes_the_chat_completion() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 17,
    }
    chat = as_chat(reply(text("a", "b"), text("c"), usage=usage))
    assert chat["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "abc"}, "finish_reason": "stop"}
    ]
    assert (chat["id"], chat["model"]) == ("resp_1", "m-2026")
    assert read_usage(chat) == Usage(10, 7, 4, 5)


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": {"reason": "odd"}}, "odd"),
        ({"status": "incomplete", "incomplete_details": None}, "incomplete"),
        ({"status": "requires_action"}, "tool_calls"),
        ({"status": None}, None),
    ],
)
def test_the_status_is_the_finish_reason(more: dict[str, Any], finish: str | None) -> None:
    assert choice(text("a"), **more)["finish_reason"] == finish


def test_a_refusal_stands_where_chat_has_it() -> None:
    said = {"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    assert choice(said)["message"] == {"role": "assistant", "content": None, "refusal": "I cannot."}


def test_calls_of_functions_are_tool_calls() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
    made = choice(call)
    assert made["finish_reason"] == "tool_calls"
    assert made["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_thoughts_are_the_reasoning_and_their_summary_where_they_are_hidden() -> None:
    shown = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}], "summary": []}
    hidden = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "y"}, {"text": "z"}]}
    assert choice(shown, hidden, text("a"))["message"]["reasoning"] == "x\n\ny\n\nz"
    assert "reasoning" not in choice({"type": "reasoning", "summary": []}, text("a"))["message"]


def test_log_probabilities_keep_their_place() -> None:
    said = text("a")
    said["content"][0]["logprobs"] = [{"token": "a", "logprob": -0.1, "top_logprobs": []}]
    assert choice(said)["logprobs"]["content"][0]["token"] == "a"


class TestSources:
    FOUND = (
        {"url": "https://one", "title": "One", "date": "2026-01-01", "snippet": "..."},
        {"url": "https://two", "title": "Two"},
    )

    @staticmethod
    def cited(*urls: str) -> dict[str, Any]:
        said = text("a")
        said["content"][0]["annotations"] = [
            {"type": "url_citation", "url": url, "title": url[-3:]} for url in urls
        ]
        return said

    def test_citations_are_the_marks_of_the_text_each_once(self) -> None:
        chat = as_chat(reply(self.cited("https://two", "https://one", "https://two")))
        assert chat["citations"] == ["https://two", "https://one"]
        assert chat["search_results"] == [
            {"title": "two", "url": "https://two"},
            {"title": "one", "url": "https://one"},
        ]

    def test_perplexity_s_results_are_kept_as_they_are(self) -> None:
        item = {"type": "search_results", "results": list(self.FOUND), "queries": ["q"]}
        read = {"type": "fetch_url_results", "contents": [{"url": "https://three", "title": "3"}]}
        chat = as_chat(reply(item, read, text("a [1]")))
        assert chat["search_results"] == [*self.FOUND, {"url": "https://three", "title": "3"}]
        assert chat["citations"] == ["https://one", "https://two", "https://three"]

    def test_an_answer_without_sources_has_none(self) -> None:
        assert not {"citations", "search_results"} & as_chat(reply(text("a"))).keys()


def test_perplexity_s_usage_is_read_with_its_cost() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_tokens_details": {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 1},
        "cost": {"currency": "USD", "input_cost": 0.1, "output_cost": 0.2, "total_cost": 0.35},
    }
    assert read_usage(as_chat(reply(text("a"), usage=usage))) == Usage(10, 5, 3, None, 0.35, 1)


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
def test_a_reply_that_is_none_is_an_error(status: str) -> None:
    assert status in as_chat(reply(status=status))["error"]["message"]


def test_a_stated_error_stays_and_the_text_beside_it() -> None:
    error = {"code": "server_error", "message": "sorry"}
    chat = as_chat(reply(text("half"), status="failed", error=error))
    assert chat["error"] == error
    assert chat["choices"][0]["message"]["content"] == "half"


def test_what_is_no_responses_reply_stays_as_it_is() -> None:
    for other in ([], None, "x", {"choices": []}, {"error": {"message": "no"}}):
        assert as_chat(other) is other


_WORDS = [
    "output",
    "status",
    "error",
    "type",
    "content",
    "text",
    "refusal",
    "annotations",
    "url",
    "results",
    "usage",
    "message",
    "summary",
    "incomplete_details",
    "reason",
    "function_call",
    "logprobs",
    "input_tokens_details",
]
_json = st.recursive(
    st.none() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_WORDS),
            inner
            | st.sampled_from(["message", "function_call", "reasoning", "search_results", "incomplete"]),
            max_size=4,
        )
    ),
    max_leaves=14,
)


@settings(max_examples=60)
@given(_json)
def test_nothing_raises(value: object) -> None:
    as_chat(value)
    as_chat({"output": value})
    as_chat({"output": [{"type": "message", "content": [value]}, value], "status": value, "usage": value})
