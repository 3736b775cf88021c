import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from batchllm.errors import InvariantError, RowError
from batchllm.ports import Task
from batchllm.prompt import TemplateError
from batchllm.records import Action, Failure, FailureCode, Reading, Request, Row, RowRef, Usage
from batchllm.spec import models
from batchllm.task import ChatTask, JsonSchemaError, build_task

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "score": {"type": ["number", "null"]}},
    "required": ["label"],
}
REQUEST = Request((RowRef(0, "k", b"[]"),), [{"role": "user", "content": "?"}], (5,), (bytes(16),))


def task(**spec: Any) -> ChatTask:
    return ChatTask(models.ChatTask.model_validate({"type": "chat", **spec}))


def row(**values: object) -> Row:
    return Row(0, "k", values, b"[]")


def read(
    message: object, *, schema: bool = False, finish: object = "stop", **reply: object
) -> Reading | Failure:
    body = {
        "model": "m-1",
        "usage": {"prompt_tokens": 4, "completion_tokens": 2},
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **reply,
    }
    asked = task(prompt="?", schema=SCHEMA) if schema else task(prompt="?")
    return asked.read(body, REQUEST)


def accepted(message: object, **how: Any) -> str:
    verdict = read(message, **how)
    assert isinstance(verdict, Reading), verdict
    assert len(verdict.answers) == 1
    value = verdict.answers[0].value
    assert isinstance(value, str)
    return value


def turned_down(message: object, **how: Any) -> Failure:
    verdict = read(message, **how)
    assert isinstance(verdict, Failure), verdict
    return verdict


def refusal(messages: object) -> str:
    with pytest.raises(RowError) as caught:
        task(messages_column="talk").content(row(talk=messages))
    return caught.value.message


def test_it_is_a_task() -> None:
    built: Task = build_task(models.ChatTask.model_validate({"type": "chat", "prompt": "x"}), dimensions=None)
    assert isinstance(built, ChatTask)
    assert (built.kind, built.path, built.content_field) == ("chat", "/chat/completions", "messages")
    assert not built.is_packed


def test_system_and_prompt_become_two_messages() -> None:
    asked = task(system="Label {{ what }}.", prompt="{{ text }}")
    assert asked.content(row(what="reviews", text="ok")) == [
        {"role": "system", "content": "Label reviews."},
        {"role": "user", "content": "ok"},
    ]
    assert asked.template_columns == {"what", "text"}


def test_a_prompt_alone_is_one_message() -> None:
    assert task(prompt="{{ text }}").content(row(text="ok")) == [{"role": "user", "content": "ok"}]


def test_messages_are_templates() -> None:
    asked = task(
        messages=[
            {"role": "developer", "content": "{{ a }}"},
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "y"},
            {"role": "user", "content": "{{ b }}"},
        ]
    )
    content = asked.content(row(a="1", b="2"))
    assert isinstance(content, list)
    assert [(m["role"], m["content"]) for m in content] == [
        ("developer", "1"),
        ("user", "x"),
        ("assistant", "y"),
        ("user", "2"),
    ]
    assert asked.template_columns == {"a", "b"}


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_row_without_a_question_is_not_asked(text: str) -> None:
    with pytest.raises(RowError, match="nothing to ask"):
        task(system="Label.", prompt="{{ text }}").content(row(text=text))


def test_the_last_message_is_what_is_asked() -> None:
    shots = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    asked = task(messages=[*shots, {"role": "user", "content": "{{ text }}"}])
    assert asked.content(row(text="z"))
    with pytest.raises(RowError, match="nothing to ask"):
        asked.content(row(text=" "))


def test_a_missing_column_is_a_row_error() -> None:
    with pytest.raises(RowError, match=r"task\.prompt: the row has no column 'text'"):
        task(prompt="{{ text }}").content(row(txt="x"))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"prompt": "{{ a"}, "task.prompt"),
        ({"system": "{% x %}", "prompt": "a"}, "task.system"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "{{"}]},
            "task.messages.1.content",
        ),
    ],
)
def test_a_faulty_template_says_its_place_in_the_job(spec: dict[str, Any], where: str) -> None:
    with pytest.raises(TemplateError) as caught:
        task(**spec)
    assert caught.value.where == where


def test_a_faulty_schema_is_refused_when_the_task_is_built() -> None:
    with pytest.raises(JsonSchemaError):
        task(prompt="a", schema={"type": "string"})


TALK: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": "ü"}]


@pytest.mark.parametrize("given", [TALK, json.dumps(TALK), json.dumps(TALK, ensure_ascii=False)])
def test_a_column_may_hold_the_messages_or_their_json(given: object) -> None:
    asked = task(messages_column="talk")
    assert asked.content(row(talk=given)) == TALK
    assert asked.template_columns == {"talk"}


def test_messages_of_a_column_are_not_templates() -> None:
    talk = [{"role": "user", "content": "{{ 7 * 7 }}"}]
    assert task(messages_column="talk").content(row(talk=talk)) == talk


def test_parts_tool_calls_and_tool_results_pass_as_they_are() -> None:
    talk: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "user", "name": "eve", "content": "so?"},
    ]
    asked = task(messages_column="talk")
    content = asked.content(row(talk=talk))
    assert content == talk
    assert asked.texts(content) == ["see", "42", "so?"]


def test_the_empty_fields_of_a_parquet_struct_are_left_out() -> None:
    talk = [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}], "name": None}]
    assert task(messages_column="talk").content(row(talk=talk)) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}]}
    ]


def test_nor_do_they_stay_in_a_struct_within_a_part() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://a.test/b", "detail": None}}
    talk = [{"role": "user", "content": [image]}]
    assert task(messages_column="talk").content(row(talk=talk)) == [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.test/b"}}]}
    ]


def test_lone_surrogates_in_messages_are_replaced() -> None:
    talk = [
        {"role": "user", "content": "a\ud800"},
        {"role": "user", "content": [{"type": "text", "text": "\udc00"}]},
    ]
    content = task(messages_column="talk").content(row(talk=talk))
    assert content == [
        {"role": "user", "content": "a\ufffd"},
        {"role": "user", "content": [{"type": "text", "text": "\ufffd"}]},
    ]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (None, "list of messages"),
        ([], "list of messages"),
        ({}, "list of messages"),
        (5, "list of messages"),
        ("[]", "list of messages"),
        ("no json", "no JSON"),
        ('{"role": "user"}', "list of messages"),
        (["hi"], "message 1: not an object"),
        ([{"role": "user", "content": "a"}, {"content": "x"}], "message 2: role must be one of"),
        ([{"role": "robot", "content": "x"}], "robot"),
        ([{"role": ["user"], "content": "x"}], "role must be one of"),
        ([{"role": "user"}], "content must be text"),
        ([{"role": "user", "content": 5}], "content must be text"),
        ([{"role": "user", "content": []}], "content must be text"),
        ([{"role": "user", "content": ["a"]}], "object with a type"),
        ([{"role": "user", "content": [{"text": "a"}]}], "object with a type"),
        ([{"role": "user", "tool_calls": [{}]}], "content must be text"),
        ([{"role": "user", "content": " "}], "nothing to ask"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": ""}], "nothing to ask"),
    ],
)
def test_messages_that_are_none_are_a_row_error(messages: object, said: str) -> None:
    assert said in refusal(messages)


def test_a_messages_column_that_is_missing_is_named() -> None:
    with pytest.raises(RowError, match="did you mean 'talks'"):
        task(messages_column="talk").content(row(talks=TALK))


def test_all_texts_count() -> None:
    asked = task(system="s", prompt="{{ text }}")
    assert asked.texts(asked.content(row(text="t"))) == ["s", "t"]


def test_an_answer_is_read_whole() -> None:
    verdict = read({"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []})
    assert isinstance(verdict, Reading)
    assert verdict.answers[0] == ("yes", "stop")
    assert verdict.usage == Usage(4, 2)
    assert verdict.model == "m-1"


def test_a_list_of_chunks_is_its_text_without_the_thinking() -> None:
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "ye"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "s"},
    ]
    assert accepted({"content": chunks}) == "yes"


def test_reasoning_beside_the_content_is_no_answer() -> None:
    failure = turned_down({"content": None, "reasoning_content": "hm"})
    assert failure.code is FailureCode.MALFORMED


@pytest.mark.parametrize("message", [None, "text", [], 5])
def test_a_choice_without_a_message_is_malformed(message: object) -> None:
    assert turned_down(message).code is FailureCode.MALFORMED


@pytest.mark.parametrize("content", [5, True, {"text": "x"}])
def test_content_of_another_type_is_malformed(content: object) -> None:
    failure = turned_down({"content": content})
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.MALFORMED)


@pytest.mark.parametrize("content", [None, "", [], [{"type": "thinking", "thinking": "x"}]])
def test_reasoning_that_ate_the_budget_is_truncation(content: object) -> None:
    failure = turned_down({"content": content}, finish="length")
    assert (failure.action, failure.code) == (Action.GIVE_UP, FailureCode.TRUNCATED)
    assert failure.usage == Usage(4, 2)


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}]},
    ],
)
def test_a_refusal_is_found_wherever_it_stands(message: object) -> None:
    failure = turned_down(message)
    assert (failure.action, failure.code, failure.content) == (Action.GIVE_UP, FailureCode.REFUSAL, "No.")


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"content": None, "function_call": {"name": "f"}},
    ],
)
def test_a_tool_call_in_place_of_text_is_told_apart(message: object) -> None:
    assert turned_down(message).code is FailureCode.CAPABILITY


def test_further_choices_and_fields_are_ignored() -> None:
    choices = [{"message": {"content": "a"}, "finish_reason": "stop"}, {"message": {"content": "b"}}]
    assert accepted(None, choices=choices, citations=["x"], x_groq={}) == "a"


@pytest.mark.parametrize("finish", [None, 5, ""])
def test_a_finish_reason_that_is_none_is_unknown(finish: object) -> None:
    verdict = read({"content": "yes"}, finish=finish)
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].finish_reason is None


@pytest.mark.parametrize(
    "reply", [None, [], "<html>", {"choices": None}, {"choices": []}, {"error": {"code": 429}}, {}]
)
def test_a_reply_without_choices_is_malformed(reply: object) -> None:
    verdict = task(prompt="x").read(reply, REQUEST)
    assert isinstance(verdict, Failure)
    assert (verdict.action, verdict.code) == (Action.AGAIN, FailureCode.MALFORMED)


def test_with_a_schema_each_property_is_a_column() -> None:
    asked = task(prompt="x", schema=SCHEMA)
    assert asked.answer_fields == (
        pa.field("content", pa.string()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float64()),
    )
    texts = ['{"label": "a"}', '```json\n{"label": "b", "score": 1}\n```']
    content, label, score = asked.columns(texts)
    assert content.to_pylist() == texts
    assert label.to_pylist() == ["a", "b"]
    assert score.to_pylist() == [None, 1.0]


def test_with_a_schema_another_text_is_asked_again() -> None:
    failure = turned_down({"content": "positive"}, schema=True)
    assert (failure.action, failure.code, failure.content) == (
        Action.AGAIN,
        FailureCode.SCHEMA_MISMATCH,
        "positive",
    )
    assert accepted({"content": '{"label": "a"}'}, schema=True) == '{"label": "a"}'


def test_without_a_schema_the_text_is_the_only_column() -> None:
    asked = task(prompt="x")
    assert asked.answer_fields == (pa.field("content", pa.string()),)
    assert asked.columns(["a", "b"]) == [pa.array(["a", "b"])]
    assert asked.columns([]) == [pa.array([], pa.string())]
    with pytest.raises(InvariantError):
        asked.columns([b"x"])


def test_a_request_is_the_same_whatever_the_mapping_s_kind() -> None:
    values: Mapping[str, object] = {"text": "x"}
    assert task(prompt="{{ text }}").content(Row(1, None, values, b"[]")) == [
        {"role": "user", "content": "x"}
    ]


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_conversation_may_hold_calls_of_tools_and_what_they_brought() -> None:
    talk = [
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]
    content = task(messages_column="talk").content(row(talk=json.dumps(talk)))
    assert content == [talk[0], {"role": "assistant", "tool_calls": [CALL]}, talk[2]]
    assert task(messages_column="talk").texts(content) == ["How warm is it?", "21 degrees"]


def test_nulls_of_a_struct_column_are_no_part_of_a_call() -> None:
    padded = {**CALL, "index": None, "function": {**CALL["function"], "parsed": None}}
    talk = [
        {"role": "user", "content": "?", "tool_calls": None, "tool_call_id": None},
        {"role": "assistant", "content": "", "tool_calls": [padded], "tool_call_id": None},
        {"role": "assistant", "content": "done", "tool_calls": [], "tool_call_id": None},
    ]
    content = task(messages_column="talk").content(row(talk=talk))
    assert content == [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": "done"},
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "tool", "content": "21"}, "needs tool_call_id"),
        ({"role": "assistant", "tool_calls": ["f"]}, "a list of calls with a function"),
        ({"role": "assistant", "tool_calls": {"f": 1}}, "a list of calls with a function"),
        ({"role": "assistant", "tool_calls": [{"name": "f"}]}, "a list of calls with a function"),
        ({"role": "assistant", "tool_calls": []}, "content must be text"),
    ],
)
def test_a_turn_of_tools_that_makes_no_sense_is_said(message: dict[str, object], words: str) -> None:
    assert words in refusal([{"role": "user", "content": "?"}, message])


@pytest.mark.parametrize("finish", ["content_filter", "content_filtered", "SAFETY"])
def test_what_a_content_filter_left_counts_only_if_the_job_says_so(finish: str) -> None:
    body = {"choices": [{"message": {"content": "so far"}, "finish_reason": finish}]}
    kept = task(prompt="?", filtered="keep").read(body, REQUEST)
    assert isinstance(kept, Reading)
    failed = task(prompt="?").read(body, REQUEST)
    assert isinstance(failed, Failure)
    assert (failed.code, failed.content) == (FailureCode.CONTENT_FILTER, "so far")
    by_schema = task(prompt="?", filtered="keep", schema=SCHEMA).read(body, REQUEST)
    assert isinstance(by_schema, Failure)
    assert by_schema.code is FailureCode.CONTENT_FILTER
