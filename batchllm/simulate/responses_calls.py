"""The body of a Responses call → what is asked, by way of the chat request that asks the same.

Strict where chat is not: OpenAI refuses a field that it does not know, and a body for another API is full of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import orjson

from batchllm.simulate.call import Call, Kind
from batchllm.simulate.calls import parse_call
from batchllm.simulate.fields import CallError, boolean, integer, missing, wrong_type, wrong_value

#: Of `CreateResponse` in OpenAI's OpenAPI document, version 2.3.0.
FIELDS: Final = frozenset(
    {
        "background", "context_management", "conversation", "include", "input", "instructions", "max_output_tokens",
        "max_tool_calls", "metadata", "model", "moderation", "parallel_tool_calls", "previous_response_id", "prompt",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier",
        "service_tier", "store", "stream", "stream_options", "temperature", "text", "tool_choice", "tools",
        "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
_SEARCHES: Final = (
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)
_TYPES: Final = ("message", "function_call", "function_call_output")
_SAME: Final = ("model", "stream", "parallel_tool_calls", "temperature")


def parse_responses(data: bytes) -> Call:
    """Raises CallError."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return parse_call(Kind.CHAT, data)  # says what is wrong with it
    _check_fields(body)
    tools = body.get("tools")
    call = parse_call(Kind.CHAT, orjson.dumps(_chat(body, tools if isinstance(tools, list) else [])))
    kinds = [tool.get("type") for tool in tools or () if isinstance(tool, dict)]
    return call._replace(is_response=True, searches=any(kind in _SEARCHES for kind in kinds))


def _check_fields(body: Mapping[str, object]) -> None:
    for name in body:
        if name not in FIELDS:
            raise CallError(f"Unknown parameter: '{name[:80]}'.", param=name, code="unknown_parameter")
    if body.get("input") is None:
        raise missing("input")
    if boolean(body, "background"):
        raise CallError(
            "Background responses are not simulated.", param="background", code="unsupported_parameter"
        )


def _chat(body: Mapping[str, object], tools: list[object]) -> dict[str, object]:
    chat: dict[str, object] = {name: body[name] for name in _SAME if name in body}
    chat["messages"] = list(_messages(body))
    chat["max_completion_tokens"] = integer(body, "max_output_tokens", 1)
    if tools:
        chat["tools"] = [_nested(tool) for tool in tools if _is_function(tool)]
    choice = body.get("tool_choice")
    chat["tool_choice"] = (
        {"type": "function", "function": {"name": choice.get("name")}} if isinstance(choice, dict) else choice
    )
    if form := _format(body):
        chat["response_format"] = form
    return chat


def _format(body: Mapping[str, object]) -> object:
    text = body.get("text")
    if text is None:
        return None
    if not isinstance(text, dict):
        raise wrong_type("text", "an object", text)
    form = text.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        for name in ("name", "schema"):
            if form.get(name) is None:
                raise missing(f"text.format.{name}")
        return {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type"}}
    return form


def _is_function(tool: object) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "function"


def _nested(tool: object) -> object:
    flat = tool if isinstance(tool, dict) else {}
    if "name" not in flat:
        raise missing("tools[0].name")
    return {"type": "function", "function": {name: value for name, value in flat.items() if name != "type"}}


def _messages(body: Mapping[str, object]) -> Iterator[object]:
    instructions, given = body.get("instructions"), body.get("input")
    if isinstance(instructions, str) and instructions:
        yield {"role": "system", "content": instructions}
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    if not isinstance(given, list):
        raise wrong_type("input", "a string or an array of objects", given)
    for place, item in enumerate(given):
        if not isinstance(item, dict):
            raise wrong_type(f"input[{place}]", "an object", item)
        yield _message(item, f"input[{place}]")


def _message(item: Mapping[str, object], place: str) -> object:
    kind = item.get("type", "message")
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise wrong_value(f"{place}.type", kind, _TYPES)
    return make(item)


def _said(item: Mapping[str, object]) -> object:
    content = item.get("content")
    parts = [_part(part) for part in content] if isinstance(content, list) else content
    return {"role": item.get("role"), "content": parts}


def _part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    match part.get("type"):
        case "output_text":
            return {**part, "type": "text"}
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
        case "input_file":
            return {**part, "type": "file"}
    return part


def _called(item: Mapping[str, object]) -> object:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _output(item: Mapping[str, object]) -> object:
    return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}


_MAKERS: Mapping[str, Callable[[Mapping[str, object]], object]] = {
    "message": _said,
    "function_call": _called,
    "function_call_output": _output,
}
