from typing import Any

import pytest

from batchllm.records import Action, Failure, FailureCode, Request, RowRef
from batchllm.spec import models
from batchllm.task import reasking
from batchllm.task.reasking import Reasking
from batchllm.tokens import estimate

QUESTION = [{"role": "system", "content": "Label."}, {"role": "user", "content": "?"}]
FIRST = Request((RowRef(0, "k", b"[]"),), QUESTION, (10,), (b"d" * 16,), 60)
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}}


def chat(**spec: Any) -> models.ChatTask:
    return models.ChatTask.model_validate({"type": "chat", "prompt": "x", **spec})


def mismatch(content: str | None = '{"x": 1}') -> Failure:
    return Failure(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, "not by the schema: x", content=content)


def cut() -> Failure:
    return Failure(Action.GIVE_UP, FailureCode.TRUNCATED, "cut", content="so fa")


def test_a_wrong_answer_is_sent_back_once_and_then_the_question_is_as_at_first() -> None:
    wanted = Reasking.of(chat(schema=SCHEMA))
    second = wanted.next_request(FIRST, mismatch())
    assert isinstance(second.content, list)
    assert second.content[:2] == QUESTION
    assert second.content[2] == {"role": "assistant", "content": '{"x": 1}'}
    assert second.content[3]["role"] == "user"
    assert "not by the schema: x" in second.content[3]["content"]
    third = wanted.next_request(second, mismatch())
    assert third.content == QUESTION
    assert third.tokens == FIRST.tokens
    fourth = wanted.next_request(third, mismatch())
    assert fourth.content == QUESTION


def test_the_digest_stays_and_the_tokens_grow() -> None:
    second = Reasking(repairs=True).next_request(FIRST, mismatch("word " * 200))
    assert second.digests == FIRST.digests
    assert second.prompt_tokens >= FIRST.prompt_tokens + 2 * estimate("word " * 200)
    assert second.size > FIRST.size


@pytest.mark.parametrize("spec", [chat(), chat(schema=SCHEMA, repair=False)])
def test_without_repair_the_question_stays(spec: models.ChatTask) -> None:
    assert Reasking.of(spec).next_request(FIRST, mismatch()).content == QUESTION


def test_a_call_that_cannot_be_carried_out_is_sent_back_as_words() -> None:
    tools = [{"function": {"name": "f"}}]
    failure = Failure(Action.AGAIN, FailureCode.TOOL_CALL, "no tool 'g'", content='[{"id":null}]')
    second = Reasking.of(chat(tools=tools)).next_request(FIRST, failure)
    assert isinstance(second.content, list)
    assert second.content[2] == {"role": "assistant", "content": '[{"id":null}]'}
    assert "cannot be used: no tool 'g'" in second.content[3]["content"]
    third = Reasking.of(chat(tools=tools)).next_request(second, failure)
    assert third.content == QUESTION
    assert Reasking.of(chat(tools=tools, repair=False)).next_request(FIRST, failure).content == QUESTION


def test_an_answer_without_a_text_cannot_be_sent_back() -> None:
    assert Reasking(repairs=True).next_request(FIRST, mismatch(None)).content == QUESTION


def test_what_is_cut_gets_twice_the_limit_once() -> None:
    wanted = Reasking.of(chat(truncated="grow"))
    assert wanted.judged(cut(), FIRST).action is Action.AGAIN
    second = wanted.next_request(FIRST, cut())
    assert (second.growth, second.content) == (2, QUESTION)
    assert wanted.judged(cut(), second).action is Action.GIVE_UP


def test_a_larger_limit_stays_while_the_answer_is_mended() -> None:
    wanted = Reasking(repairs=True, grows=True)
    second = wanted.next_request(FIRST, cut())
    third = wanted.next_request(second, mismatch())
    fourth = wanted.next_request(third, mismatch())
    assert (third.growth, fourth.growth) == (2, 2)
    assert fourth.content == QUESTION


@pytest.mark.parametrize("truncated", [None, "fail", "keep"])
def test_otherwise_a_cut_answer_is_given_up(truncated: str | None) -> None:
    wanted = Reasking.of(chat(truncated=truncated))
    assert wanted.judged(cut(), FIRST).action is Action.GIVE_UP


def test_other_failures_change_nothing() -> None:
    failure = Failure(Action.AGAIN, FailureCode.SERVER, "500")
    wanted = Reasking(repairs=True, grows=True)
    assert wanted.judged(failure, FIRST) is failure
    assert wanted.next_request(FIRST, failure) is FIRST


def test_only_generated_texts_are_asked_for_otherwise() -> None:
    assert reasking(chat()) is not None
    assert reasking(models.CompletionTask(type="completion", prompt="x", truncated="grow")) is not None
    assert reasking(models.EmbeddingTask(type="embedding", text="x")) is None
