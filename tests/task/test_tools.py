from typing import Any

import pytest

from batchllm.spec import models
from batchllm.spec.extras import Tool
from batchllm.task import ChatTask, ToolsError
from batchllm.task.tools import (
    are_kept_calls,
    calls_fault,
    calls_of,
    check_tools,
    definition_tokens,
    kept_calls,
)


def tool(name: str = "f", **function: Any) -> Tool:
    return Tool.model_validate({"function": {"name": name, **function}})


def call(arguments: object = "{}", **more: object) -> dict[str, object]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments, **more}}


def test_calls_are_kept_as_they_came() -> None:
    message = {"content": None, "tool_calls": [call('{"a": 1}'), call("not JSON")]}
    assert calls_of(message) == [
        {"id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"id": "c1", "name": "f", "arguments": "not JSON"},
    ]


@pytest.mark.parametrize("message", [{}, {"tool_calls": []}, {"tool_calls": None}, {"tool_calls": "f"}])
def test_a_message_may_hold_none(message: dict[str, object]) -> None:
    assert calls_of(message) == []


def test_the_older_form_and_arguments_that_are_no_text_are_understood() -> None:
    assert calls_of({"function_call": {"name": "f", "arguments": "{}"}}) == [
        {"id": None, "name": "f", "arguments": "{}"}
    ]
    assert calls_of({"tool_calls": [call({"a": [1]})]})[0]["arguments"] == '{"a":[1]}'


@pytest.mark.parametrize("arguments", ["{}", "[]", "", "  ", None])
def test_arguments_may_be_any_json_or_none(arguments: str | None) -> None:
    assert calls_fault(calls_of({"tool_calls": [call(arguments)]})) is None


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"tool_calls": [call("{a: 1}")]}, "the arguments of the call of f are no JSON"),
        ({"tool_calls": [call('{"a": 1'), call()]}, "no JSON"),
        ({"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "g"}}]}, "has no name"),
        ({"tool_calls": ["f"]}, "unknown form"),
    ],
)
def test_what_cannot_be_read_is_said(message: dict[str, object], fault: str) -> None:
    assert fault in (calls_fault(calls_of(message)) or "")


def test_calls_in_a_failure_are_known_again() -> None:
    text = kept_calls(calls_of({"tool_calls": [call("{")]})) or ""
    assert are_kept_calls(text)
    assert not are_kept_calls(text[:-1])
    assert not are_kept_calls('[{"id": 1}]')
    assert not are_kept_calls('{"label": "a"}')


def test_parameters_are_a_schema_of_an_object() -> None:
    check_tools([tool(), tool(parameters={"type": "object", "properties": {"a": {"type": "integer"}}})])
    with pytest.raises(ToolsError, match="type: object") as caught:
        check_tools([tool(), tool("g", parameters={"type": "string"})])
    assert caught.value.path == (1, "function", "parameters")
    with pytest.raises(ToolsError) as caught:
        check_tools([tool(parameters={"type": "object", "properties": {"a": {"type": "text"}}})])
    assert caught.value.path[:5] == (0, "function", "parameters", "properties", "a")


def test_definitions_count_with_every_row() -> None:
    spec = {"type": "chat", "prompt": "x", "tools": [{"function": {"name": "f", "description": "d" * 250}}]}
    assert ChatTask(models.ChatTask.model_validate(spec)).fixed_tokens > 100
    assert definition_tokens([]) == 0
