"""What is kept of a reply beside its text: read from wherever it stands, null where it is not told."""

from typing import Any

import orjson
import pyarrow as pa
import pytest

from batchllm.errors import InvariantError
from batchllm.records import Action, Failure, FailureCode, Reading, Request, RowRef
from batchllm.spec import models
from batchllm.task import ChatTask

REQUEST = Request((RowRef(0, "k", b"[]"),), [{"role": "user", "content": "?"}], (5,), (bytes(16),))
ALL = ["reasoning", "citations", "search_results", "annotations"]
TOOLS = [{"function": {"name": "f"}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def task(**spec: Any) -> ChatTask:
    return ChatTask(models.ChatTask.model_validate({"type": "chat", "prompt": "?", **spec}))


def verdict(
    asked: ChatTask, *messages: Any, finish: str = "stop", request: Request = REQUEST, **reply: Any
) -> Reading | Failure:
    choices = [{"index": at, "message": one, "finish_reason": finish} for at, one in enumerate(messages)]
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    return asked.read({"model": "m", "usage": usage, "choices": choices, **reply}, request)


def value(asked: ChatTask, *messages: Any, **how: Any) -> bytes:
    reading = verdict(asked, *messages, **how)
    assert isinstance(reading, Reading), reading
    kept = reading.answers[0].value
    assert isinstance(kept, bytes)
    return kept


def told(asked: ChatTask, *messages: Any, **how: Any) -> dict[str, Any]:
    """The columns of one answer."""
    arrays = asked.columns([value(asked, *messages, **how)])
    assert [array.type for array in arrays] == [field.type for field in asked.answer_fields]
    return {field.name: array[0].as_py() for field, array in zip(asked.answer_fields, arrays, strict=True)}


def test_without_extras_an_answer_is_its_text() -> None:
    reading = verdict(task(params={"n": 1, "logprobs": False}), {"content": "a", "reasoning": "b"})
    assert isinstance(reading, Reading)
    assert reading.answers[0].value == "a"


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a", "reasoning_content": "hm"},
        {"content": "a", "reasoning": "hm"},
        {"content": "a", "reasoning_content": None, "reasoning": "hm"},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
        {
            "content": [
                {
                    "type": "thinking",
                    "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
                },
                {"type": "text", "text": "a"},
            ]
        },
    ],
)
def test_thoughts_are_found_wherever_a_provider_puts_them(message: dict[str, Any]) -> None:
    assert told(task(include=["reasoning"]), message) == {"content": "a", "reasoning": "hm"}


def test_sources_are_read_tolerantly() -> None:
    columns = told(
        task(include=ALL),
        {"content": "a"},
        citations=["u1", {"url": "u2"}, 3],
        search_results=[{"title": "t", "url": "u", "date": None, "rank": 1}, "no object"],
    )
    assert columns["citations"] == ["u1", "u2"]
    assert columns["search_results"] == [{"title": "t", "url": "u", "date": None, "snippet": None}]
    assert columns["annotations"] is None


def test_addresses_come_from_annotations_where_there_is_no_list() -> None:
    notes = [
        {
            "type": "url_citation",
            "url_citation": {"url": "u", "title": "t", "start_index": 1, "end_index": 2},
        },
        {"type": "url_citation", "url": "v", "start_index": "x"},
        {"type": "url_citation", "url_citation": {"url": "u"}},
    ]
    columns = told(task(include=ALL), {"content": "a", "annotations": notes})
    assert columns["citations"] == ["u", "v"]
    assert columns["annotations"][0] == {
        "type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2,
    }  # fmt: skip
    assert columns["annotations"][1]["start_index"] is None


@pytest.mark.parametrize("odd", [None, 5, "x", {"a": 1}, [1, None, "x"]])
def test_whatever_a_reply_says_beside_its_answer_never_costs_it(odd: Any) -> None:
    asked = task(include=ALL, params={"logprobs": True, "n": 2}, tools=TOOLS)
    message = {"content": "a", "reasoning": odd if odd != "x" else 7, "annotations": odd}
    choices = [{"index": at, "message": message, "finish_reason": "stop", "logprobs": odd} for at in range(2)]
    columns = told(asked, choices=choices, citations=odd, search_results=odd)
    assert columns["content"] == "a"


def test_log_probabilities_of_both_forms_read_alike() -> None:
    asked = task(params={"logprobs": True, "top_logprobs": 1})
    message = {"content": "ab"}
    new = {
        "content": [
            {"token": "a", "logprob": -1, "top_logprobs": [{"token": "c", "logprob": -0.5}]},
            {"token": "b", "logprob": -2.5, "top_logprobs": []},
        ]
    }
    old = {"tokens": ["a", "b"], "token_logprobs": [-1, -2.5], "top_logprobs": [{"c": -0.5}, {}]}
    read = []
    for given in (new, old):
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": given}
        read.append(told(asked, choices=[choice])["logprobs"])
    assert (
        read[0]
        == read[1]
        == [
            {"token": "a", "logprob": -1.0, "top": [{"token": "c", "logprob": -0.5}]},
            {"token": "b", "logprob": -2.5, "top": []},
        ]
    )


@pytest.mark.parametrize(
    "more", [{}, {"top_logprobs": None}, {"top_logprobs": []}, {"top_logprobs": [{}, {}]}]
)
def test_the_older_form_may_lack_the_likeliest_tokens(more: dict[str, Any]) -> None:
    given = {"tokens": ["a"], "token_logprobs": [None], **more}
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "logprobs": given}
    columns = told(task(params={"logprobs": True}), choices=[choice])
    assert columns["logprobs"] == [{"token": "a", "logprob": None, "top": []}]


def test_choices_stand_in_the_order_of_their_index() -> None:
    choices = [
        {"index": 1, "message": {"content": "second"}, "finish_reason": "stop"},
        {"index": 0, "message": {"content": "first"}, "finish_reason": "stop"},
    ]
    columns = told(task(params={"n": 2}), choices=choices)
    assert (columns["content"], columns["contents"]) == ("first", ["first", "second"])
    unnumbered = [{key: given for key, given in one.items() if key != "index"} for one in choices]
    assert told(task(params={"n": 2}), choices=unnumbered)["contents"] == ["second", "first"]


def test_a_further_choice_without_a_text_is_null() -> None:
    columns = told(task(params={"n": 2}), {"content": "a"}, {"content": None, "refusal": "no"})
    assert columns["contents"] == ["a", None]


@pytest.mark.parametrize(
    ("indexes", "code", "action"),
    [
        ([0], FailureCode.CAPABILITY, Action.ELSEWHERE),
        ([0, 1, 2], FailureCode.CAPABILITY, Action.ELSEWHERE),
        ([0, 0], FailureCode.MALFORMED, Action.AGAIN),
        ([1, 2], FailureCode.MALFORMED, Action.AGAIN),
        ([0, None], FailureCode.MALFORMED, Action.AGAIN),
    ],
)
def test_choices_that_do_not_count_up_are_no_answer(
    indexes: list[int], code: FailureCode, action: Action
) -> None:
    choices = [{"index": at, "message": {"content": "a"}, "finish_reason": "stop"} for at in indexes]
    failure = verdict(task(params={"n": 2}), choices=choices)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.action, failure.content) == (code, action, "a")
    assert failure.usage is not None


def test_a_reply_that_only_calls_is_an_answer() -> None:
    columns = told(task(tools=TOOLS), {"content": None, "tool_calls": [CALL]}, finish="tool_calls")
    assert columns == {"content": None, "tool_calls": [{"id": "c1", "name": "f", "arguments": "{}"}]}


def test_a_call_may_have_words_beside_it_which_no_schema_judges() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["a"]}}, "required": ["label"]}
    asked = task(tools=TOOLS, schema=schema)
    columns = told(asked, {"content": "Let me see.", "tool_calls": [CALL]}, finish="stop")
    assert (columns["content"], columns["label"]) == ("Let me see.", None)
    assert told(asked, {"content": '{"label": "a"}'})["label"] == "a"
    failure = verdict(asked, {"content": "Let me see."})
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.SCHEMA_MISMATCH


def test_an_answer_in_words_calls_nothing() -> None:
    assert told(task(tools=TOOLS), {"content": "a", "tool_calls": []})["tool_calls"] == []
    assert told(task(tools=TOOLS), {"content": "a"}, finish="tool_calls")["tool_calls"] == []


def test_a_reply_without_words_or_calls_is_malformed() -> None:
    failure = verdict(task(tools=TOOLS), {"content": None}, finish="tool_calls")
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.MALFORMED


def test_a_call_that_cannot_be_read_is_asked_for_again() -> None:
    bad = {"content": None, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{a"}}]}
    first = verdict(task(tools=TOOLS), bad, finish="tool_calls")
    assert isinstance(first, Failure)
    assert (first.code, first.action) == (FailureCode.TOOL_CALL, Action.AGAIN)
    assert orjson.loads(first.content or "")[0]["arguments"] == "{a"


def test_words_in_place_of_a_call_that_must_come_are_none() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["a"]}}, "required": ["label"]}
    asked = task(tools=TOOLS, tool_choice="required", schema=schema)
    failure = verdict(asked, {"content": "I would rather not"})
    assert isinstance(failure, Failure)
    assert (failure.code, failure.action) == (FailureCode.TOOL_CALL, Action.AGAIN)
    assert failure.content == "I would rather not"
    assert asked.reread("I would rather not", "stop") is not None
    assert isinstance(verdict(asked, {"content": None, "tool_calls": [CALL]}, finish="tool_calls"), Reading)
    cut = verdict(asked, {"content": "I would"}, finish="length")
    assert isinstance(cut, Failure)
    assert cut.code is FailureCode.TRUNCATED


@pytest.mark.parametrize("truncated", ["keep", "fail", "grow"])
def test_a_call_that_the_limit_cut_is_cut_and_not_malformed(truncated: str) -> None:
    asked = task(tools=TOOLS, truncated=truncated)
    bad = {"content": None, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a'}}]}
    failure = verdict(asked, bad, finish="length")
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.TRUNCATED
    assert failure.action is (Action.AGAIN if truncated == "grow" else Action.GIVE_UP)
    assert '{\\"a' in (failure.content or "")
    assert asked.reread(failure.content or "", "length") is not None


def test_a_kept_answer_of_another_kind_is_not_read() -> None:
    with pytest.raises(InvariantError):
        task(tools=TOOLS).columns(["text"])
    with pytest.raises(InvariantError):
        task().columns([b"{}"])


def test_columns_have_the_same_types_without_rows() -> None:
    asked = task(tools=TOOLS, include=ALL, params={"n": 2, "logprobs": True})
    assert [column.type for column in asked.columns([])] == [field.type for field in asked.answer_fields]
    assert [field.name for field in asked.answer_fields] == [
        "content", "tool_calls", "contents", "logprobs", *ALL,
    ]  # fmt: skip


def test_calls_say_which_texts_were_judged() -> None:
    asked = task(tools=TOOLS)
    calls = pa.array([[], [CALL["function"] | {"id": "c"}], None], asked.answer_fields[1].type)
    lines = pa.RecordBatch.from_arrays([pa.array(["a", "b", "c"]), calls], ["content", "tool_calls"])
    assert asked.judged_texts(lines) == ["a", None, "c"]
    assert task().judged_texts(lines) == ["a", "b", "c"]
