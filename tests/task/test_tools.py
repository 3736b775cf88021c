from typing import Any

import pytest

from batchllm.spec import models
from batchllm.spec.extras import CalledTool, Tool
from batchllm.task import ChatTask, ToolsError
from batchllm.task.tools import Functions, are_kept_calls, calls_of, kept_calls
from batchllm.tokens import Ruler

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: str = "f", **function: Any) -> Tool:
    return Tool.model_validate({"function": {"name": name, **function}})


def faults_of(*tools: Tool, choice: Any = None, **message: object) -> str | None:
    return Functions(tools or (tool(),), choice).fault(calls_of(message))


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
    assert faults_of(tool_calls=[call(arguments)]) is None


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
    assert fault in (faults_of(**message) or "")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ('{"city": "Rome", "days": 2}', None),
        ('{"city": 5}', 'f are not by its parameters: city: 5 is not of type "string"'),
        ('{"city": "Rome", "days": "two"}', 'days: "two" is not of type "integer"'),
        ('{"city": "Rome", "days": 0}', "days: 0 is less than the minimum"),
        ('{"city": "Rome", "unit": "C"}', "the arguments as a whole: Additional properties"),
        ("[]", 'the arguments as a whole: [] is not of type "object"'),
        ("", '"city" is a required property'),
        ('{"city": "Rome", "city": "Oslo"}', "'city' stands in it twice"),
        ("[" * 5000, "nested too deep"),
    ],
)
def test_arguments_are_held_to_the_parameters(arguments: str, fault: str | None) -> None:
    found = faults_of(tool(parameters=WEATHER), tool_calls=[call(arguments)])
    assert found is None if fault is None else fault in (found or "")


def test_a_tool_that_nobody_has_and_one_that_was_not_wanted_are_faults() -> None:
    named = CalledTool.model_validate({"function": {"name": "g"}})
    assert "there is no tool 'h' to call, only f" in (faults_of(tool_calls=[call(name="h")]) or "")
    assert "the job wants g" in (faults_of(tool(), tool("g"), choice=named, tool_calls=[call()]) or "")
    assert "tool_choice: none" in (faults_of(choice="none", tool_calls=[call()]) or "")
    assert faults_of(tool(), tool("g"), choice=named, tool_calls=[call(name="g")]) is None


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        (None, None),
        ("auto", None),
        ("none", None),
        ("required", "no tool was called"),
        (CalledTool.model_validate({"function": {"name": "f"}}), "wants a call (f: tool_choice)"),
    ],
)
def test_words_are_a_fault_where_a_call_must_come(choice: Any, fault: str | None) -> None:
    found = Functions([tool()], choice).absence()
    assert found is None if fault is None else fault in (found or "")


def test_calls_in_a_failure_are_known_again() -> None:
    text = kept_calls(calls_of({"tool_calls": [call("{")]})) or ""
    assert are_kept_calls(text)
    assert not are_kept_calls(text[:-1])
    assert not are_kept_calls('[{"id": 1}]')
    assert not are_kept_calls('{"label": "a"}')


def test_parameters_are_a_schema_of_an_object() -> None:
    Functions([tool(), tool("g", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})])
    with pytest.raises(ToolsError, match="type: object") as caught:
        Functions([tool(), tool("g", parameters={"type": "string"})])
    assert caught.value.path == (1, "function", "parameters")
    with pytest.raises(ToolsError) as caught:
        Functions([tool(parameters={"type": "object", "properties": {"a": {"type": "text"}}})])
    assert caught.value.path[:5] == (0, "function", "parameters", "properties", "a")
    with pytest.raises(ToolsError, match="nothing is fetched"):
        Functions([tool(parameters={"type": "object", "properties": {"a": {"$ref": "https://a.test/b"}}})])


def test_definitions_count_with_every_row() -> None:
    spec = {"type": "chat", "prompt": "x", "tools": [{"function": {"name": "f", "description": "d" * 250}}]}
    ruler = Ruler(("gpt-4o",))
    assert 60 < ChatTask(models.ChatTask.model_validate(spec)).fixed_tokens(ruler) < 200
    assert ChatTask(models.ChatTask(type="chat", prompt="x")).fixed_tokens(ruler) == 0
