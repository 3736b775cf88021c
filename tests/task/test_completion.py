from typing import Any

import pyarrow as pa
import pytest

from batchllm.errors import InvariantError, RowError
from batchllm.ports import Task
from batchllm.records import Action, Failure, FailureCode, Reading, Request, Row, RowRef, Usage
from batchllm.spec import models
from batchllm.task import CompletionTask, build_task

REQUEST = Request((RowRef(0, None, b"[]"),), "Once", (1,), (bytes(16),))


def task(prompt: str = "{{ text }}") -> CompletionTask:
    return CompletionTask(models.CompletionTask(type="completion", prompt=prompt))


def read(choice: dict[str, Any]) -> Reading | Failure:
    return task().read({"model": "m", "usage": {"prompt_tokens": 1}, "choices": [choice]}, REQUEST)


def test_it_is_a_task() -> None:
    built: Task = build_task(models.CompletionTask(type="completion", prompt="x"), dimensions=None)
    assert isinstance(built, CompletionTask)
    assert (built.kind, built.path, built.content_field) == ("completion", "/completions", "prompt")
    assert not built.is_packed


def test_the_prompt_is_the_content() -> None:
    asked = task("{{ text }}:")
    content = asked.content(Row(0, None, {"text": "Once"}, b"[]"))
    assert content == "Once:"
    assert asked.texts(content) == ["Once:"]
    assert asked.template_columns == {"text"}


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_prompt_is_a_row_error(text: str) -> None:
    with pytest.raises(RowError, match="nothing to complete"):
        task().content(Row(0, None, {"text": text}, b"[]"))


def test_the_text_is_read_as_it_is() -> None:
    verdict = read({"text": "\n upon a time", "finish_reason": "stop"})
    assert isinstance(verdict, Reading)
    assert verdict.answers == (("\n upon a time", "stop"),)
    assert verdict.usage == Usage(1)
    assert verdict.model == "m"


def test_a_cut_text_is_an_answer_that_says_so() -> None:
    verdict = read({"text": "upon", "finish_reason": "length"})
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("choice", "action", "code"),
    [
        ({"finish_reason": "stop"}, Action.AGAIN, FailureCode.MALFORMED),
        ({"text": None, "finish_reason": "stop"}, Action.AGAIN, FailureCode.MALFORMED),
        ({"text": "", "finish_reason": "stop"}, Action.AGAIN, FailureCode.MALFORMED),
        ({"text": 5}, Action.AGAIN, FailureCode.MALFORMED),
        ({"text": ["a"]}, Action.AGAIN, FailureCode.MALFORMED),
        ({"text": "", "finish_reason": "length"}, Action.GIVE_UP, FailureCode.TRUNCATED),
        ({"text": "x", "finish_reason": "content_filter"}, Action.GIVE_UP, FailureCode.CONTENT_FILTER),
        ({"text": "x", "finish_reason": "error"}, Action.AGAIN, FailureCode.SERVER),
    ],
)
def test_what_is_no_answer_is_classified(choice: dict[str, Any], action: Action, code: FailureCode) -> None:
    verdict = read(choice)
    assert isinstance(verdict, Failure)
    assert (verdict.action, verdict.code) == (action, code)


@pytest.mark.parametrize("reply", [None, [], "text", {}, {"choices": []}, {"choices": ["text"]}])
def test_a_reply_without_choices_is_malformed(reply: object) -> None:
    verdict = task().read(reply, REQUEST)
    assert isinstance(verdict, Failure)
    assert verdict.code is FailureCode.MALFORMED


def test_choices_and_probabilities_are_columns_as_of_a_chat() -> None:
    spec = {"type": "completion", "prompt": "x", "params": {"n": 2, "logprobs": True}}
    asked = CompletionTask(models.CompletionTask.model_validate(spec))
    older = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.0}]}
    choices = [
        {"index": 1, "text": ""},
        {"index": 0, "text": "a", "logprobs": older, "finish_reason": "stop"},
    ]
    verdict = asked.read({"choices": choices}, REQUEST)
    assert isinstance(verdict, Reading)
    content, contents, logprobs = asked.columns([verdict.answers[0].value])
    assert content.to_pylist() == ["a"]
    assert contents.to_pylist() == [["a", None]]
    tops = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.0}]
    assert logprobs.to_pylist() == [[{"token": "a", "logprob": -0.5, "top": tops}]]
    assert [field.name for field in asked.answer_fields] == ["content", "contents", "logprobs"]
    too_few = asked.read({"choices": choices[1:]}, REQUEST)
    assert isinstance(too_few, Failure)
    assert too_few.code is FailureCode.CAPABILITY


def test_answers_are_one_column() -> None:
    asked = task()
    assert asked.answer_fields == (pa.field("content", pa.string()),)
    assert asked.columns(["a", "ä"]) == [pa.array(["a", "ä"])]
    with pytest.raises(InvariantError):
        asked.columns([b"a"])
