"""What holds for all tasks, whatever is thrown at them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.ports import Task
from batchllm.records import Failure, FailureCode, Reading, Request, RowRef
from batchllm.spec import models
from batchllm.task import build_task

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
TASKS: list[Task] = [
    build_task(models.ChatTask(type="chat", prompt="{{ text }}"), dimensions=None),
    build_task(
        models.ChatTask.model_validate({"type": "chat", "prompt": "x", "schema": SCHEMA}), dimensions=None
    ),
    build_task(models.CompletionTask(type="completion", prompt="{{ text }}"), dimensions=None),
    build_task(models.EmbeddingTask(type="embedding", text="{{ text }}"), dimensions=2),
    build_task(models.ModerationTask(type="moderation", text="{{ text }}"), dimensions=None),
]
KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "text",
        "type",
        "refusal",
        "tool_calls",
        "finish_reason",
        "index",
        "data",
        "embedding",
        "results",
        "flagged",
        "categories",
        "category_scores",
        "usage",
        "prompt_tokens",
        "model",
        "error",
    ]
)
WORDS = st.sampled_from(
    ["", "text", "stop", "length", "tool_calls", "content_filter", "error", '{"n": 1}', "AACAPwAAgD8="]
)
REPLIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=3),
    lambda part: st.lists(part, max_size=2) | st.dictionaries(KEYS, part, max_size=4),
    max_leaves=20,
)
CHOICE = st.fixed_dictionaries(
    {}, optional={"message": REPLIES, "text": REPLIES, "finish_reason": WORDS | REPLIES}
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICE, max_size=2),
        "data": st.lists(
            st.fixed_dictionaries({"index": st.integers(-1, 2), "embedding": REPLIES}), max_size=2
        ),
        "results": st.lists(
            st.fixed_dictionaries(
                {"categories": REPLIES}, optional={"flagged": REPLIES, "category_scores": REPLIES}
            ),
            max_size=2,
        ),
        "usage": REPLIES,
        "model": REPLIES,
    },
)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@given(reply=REPLIES | SHAPED, rows=st.integers(1, 2))
@settings(max_examples=120)
def test_every_reply_is_judged_and_what_is_accepted_fills_the_columns(
    task: Task, reply: Any, rows: int
) -> None:
    count = rows if task.is_packed else 1
    request = Request(
        tuple(RowRef(at, None, b"[]") for at in range(count)),
        ["x"] * count,
        (1,) * count,
        (bytes(16),) * count,
    )
    verdict = task.read(reply, request)
    if isinstance(verdict, Failure):
        assert verdict.code is not FailureCode.INTERNAL
        assert verdict.message
        assert len(verdict.message) <= 500
        return
    assert isinstance(verdict, Reading)
    assert len(verdict.answers) == count
    columns = task.columns([answer.value for answer in verdict.answers])
    assert [(column.type, len(column)) for column in columns] == [
        (field.type, count) for field in task.answer_fields
    ]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_no_answers_are_empty_columns_of_the_pinned_types(task: Task) -> None:
    assert [(column.type, len(column)) for column in task.columns([])] == [
        (f.type, 0) for f in task.answer_fields
    ]
