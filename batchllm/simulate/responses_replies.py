"""Responses bodies in OpenAI's shape, whole and as events."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson

from batchllm.simulate.answers import ModelAnswer
from batchllm.simulate.call import Call
from batchllm.simulate.replies import Stamp, pieces
from batchllm.simulate.wire import render_event

#: What a simulated search finds.
SOURCES: Final = (
    ("https://example.com/one", "The first source"),
    ("https://example.com/two", "The second source"),
)
Event = dict[str, object]


def response_body(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> bytes:
    return orjson.dumps(_response(call, answers, stamp))


def response_events(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> tuple[bytes, ...]:
    """Each with its name, as OpenAI sends them; there is no [DONE]."""
    events = _events(call, answers, stamp)
    return tuple(
        b"event: %b\n" % str(event["type"]).encode()
        + render_event(orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    )


def _response(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> Event:
    is_cut = any(answer.finish_reason == "length" for answer in answers)
    return {
        **_envelope(call, stamp),
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": [item for answer in answers for item in _items(call, answer, stamp)],
        "usage": _usage(call, sum(answer.tokens for answer in answers)),
    }


def _envelope(call: Call, stamp: Stamp) -> Event:
    return {
        "id": f"resp_{stamp.number}",
        "object": "response",
        "created_at": stamp.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": call.max_tokens,
        "model": call.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "metadata": {},
    }


def _usage(call: Call, output_tokens: int) -> dict[str, object]:
    return {
        "input_tokens": call.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": call.prompt_tokens + output_tokens,
    }


def _items(call: Call, answer: ModelAnswer, stamp: Stamp) -> Iterator[Event]:
    if call.searches:
        yield {
            "id": f"ws_{stamp.number}",
            "type": "web_search_call",
            "status": "completed",
            "action": {"type": "search", "query": call.subjects[0][:200]},
        }
    status = "incomplete" if answer.finish_reason == "length" else "completed"
    if answer.tool is not None:
        yield {
            "id": f"fc_{stamp.number}",
            "type": "function_call",
            "call_id": f"call_{stamp.number}",
            "name": answer.tool,
            "arguments": answer.text,
            "status": status,
        }
        return
    yield {
        "id": f"msg_{stamp.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [_part(call, answer.text)],
    }


def _part(call: Call, text: str) -> Event:
    notes = [
        {"type": "url_citation", "url": url, "title": title, "start_index": 0, "end_index": len(text)}
        for url, title in (SOURCES if call.searches else ())
    ]
    return {"type": "output_text", "text": text, "annotations": notes, "logprobs": []}


def _events(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> Iterator[Event]:
    opened = _envelope(call, stamp)
    yield {"type": "response.created", "response": opened}
    yield {"type": "response.in_progress", "response": opened}
    items = [item for answer in answers for item in _items(call, answer, stamp)]
    for at, item in enumerate(items):
        place = {"output_index": at}
        yield {"type": "response.output_item.added", **place, "item": {**item, **_blank(item)}}
        yield from _growth(item, {**place, "item_id": item["id"]})
        yield {"type": "response.output_item.done", **place, "item": item}
    whole = _response(call, answers, stamp)
    yield {"type": f"response.{whole['status']}", "response": whole}


def _blank(item: Mapping[str, object]) -> Event:
    match item["type"]:
        case "message":
            return {"content": [], "status": "in_progress"}
        case "function_call":
            return {"arguments": "", "status": "in_progress"}
    return {"status": "in_progress"}


def _growth(item: Mapping[str, object], place: Event) -> Iterator[Event]:
    if item["type"] == "function_call":
        for piece in pieces(str(item["arguments"])):
            yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **place, **done}
        return
    content = item.get("content")
    for part in content if isinstance(content, list) else ():
        where = {**place, "content_index": 0}
        yield {
            "type": "response.content_part.added",
            **where,
            "part": {**part, "text": "", "annotations": []},
        }
        for piece in pieces(part["text"]):
            yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
