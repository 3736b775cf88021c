"""What a task may ask for beside text, and what of it makes no sense."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import Fault, JobError
from batchllm.spec.fingerprint import differs_in_reading_only, semantic_sections
from batchllm.spec.loading import load_mapping
from batchllm.spec.models import Job

TOOL = {"function": {"name": "f"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def loaded(**task: Any) -> Job:
    lane = {"provider": "custom", "model": "m", "base_url": "https://x/v1"}
    asks = {"messages_column", "text"} & task.keys()
    given = {"type": "chat", **({} if asks else {"prompt": "x"}), **task}
    spec = {"name": "n", "input": {"path": "x"}, "task": given, "providers": [lane]}
    return load_mapping(spec, folder=Path("/jobs"), environ={}).job


def faults(**task: Any) -> list[Fault]:
    with pytest.raises(JobError) as caught:
        loaded(**task)
    return caught.value.faults


@pytest.mark.parametrize(
    ("task", "path", "words"),
    [
        ({"tool_choice": "auto"}, "task", "go with tools"),
        ({"parallel_tool_calls": False}, "task", "go with tools"),
        ({"tools": [TOOL, TOOL]}, "task", "two tools are called f"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "g"}}}, "task", "not among the tools"),
        (
            {"tools": [TOOL], "tool_choice": "f"},
            "task.tool_choice",
            "one of auto, none, required or a mapping",
        ),
        ({"tools": [{"function": {"name": "no name"}}]}, "task.tools.0.function.name", "at most 64 letters"),
        ({"tools": [{"name": "f"}]}, "task.tools.0.function", "missing"),
        ({"tools": []}, "task.tools", "a list"),
        ({"repair": True}, "task", "repair goes with schema"),
        ({"images": [{}]}, "task.images.0", "give one of url, path, column"),
        ({"images": [{"url": "x", "path": "y"}]}, "task.images.0", "give one of"),
        ({"images": [{"url": "x"}], "messages_column": "m"}, "task", "go with prompt or messages"),
        ({"include": ["thoughts"]}, "task.include.0", "one of reasoning"),
        ({"params": {"top_logprobs": 3}}, "task.params", "goes with logprobs"),
        ({"params": {"n": 0}}, "task.params.n", "from 1 to 128"),
        ({"truncated": "double"}, "task.truncated", "one of fail, keep, grow"),
        (
            {"type": "moderation", "text": "x", "images": [{"url": "u"}], "inputs_per_request": 2},
            "task",
            "a request of its own",
        ),
    ],
)
def test_what_makes_no_sense_has_its_place(task: dict[str, Any], path: str, words: str) -> None:
    found = faults(**task)
    assert any(path == fault.path and words in fault.message for fault in found), found


def test_all_that_a_task_may_ask_for_loads() -> None:
    job = loaded(
        schema=SCHEMA,
        repair=False,
        tools=[{"function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}],
        tool_choice={"function": {"name": "f"}},
        parallel_tool_calls=True,
        images=[{"url": "u", "detail": "low"}, {"path": "p", "max_mb": 1.5}, {"column": "c", "tokens": 85}],
        include=["reasoning", "citations", "search_results", "annotations"],
        params={"n": 2, "logprobs": True, "top_logprobs": 5},
        truncated="grow",
        filtered="keep",
    )
    assert job.task.type == "chat"


def test_each_changes_what_is_asked_and_none_of_them_a_job_without_it() -> None:
    plain = semantic_sections(loaded())
    assert plain["task"] == '{"params":{},"prompt":"x","type":"chat"}'
    for more in (
        {"tools": [TOOL]},
        {"images": [{"url": "u"}]},
        {"include": ["reasoning"]},
        {"params": {"n": 2}},
    ):
        changed = semantic_sections(loaded(**more))
        assert changed["task"] != plain["task"]
        assert not differs_in_reading_only(plain, changed)


@pytest.mark.parametrize("more", [{"filtered": "keep"}, {"truncated": "grow"}, {"schema": SCHEMA}])
def test_what_counts_as_an_answer_is_a_matter_of_reading(more: dict[str, Any]) -> None:
    assert differs_in_reading_only(semantic_sections(loaded()), semantic_sections(loaded(**more)))
