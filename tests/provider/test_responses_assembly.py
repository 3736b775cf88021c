"""Events of the Responses API → the reply that would have come whole."""

from typing import Any

import orjson

from batchllm.provider.assembly import Events
from batchllm.provider.responses_assembly import ResponsesAssembly
from batchllm.provider.responses_reply import as_chat

OPENED = {"id": "resp_1", "model": "m", "status": "in_progress", "output": [], "usage": None}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
WHOLE = {
    **OPENED,
    "status": "completed",
    "output": [{**MESSAGE, "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {"input_tokens": 1, "output_tokens": 2},
}


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


BEGUN = (
    event("created", response=OPENED),
    event("in_progress", response=OPENED),
    event("output_item.added", output_index=0, item=MESSAGE),
    event("content_part.added", output_index=0, content_index=0, part={"type": "output_text", "text": ""}),
    event("output_text.delta", output_index=0, content_index=0, delta="Hel"),
    event("output_text.delta", output_index=0, content_index=0, delta="lo"),
)


def built(*events: dict[str, Any]) -> Events:
    made = Events(ResponsesAssembly())
    for one in events:
        made.take(orjson.dumps(one))
    return made


def message(made: Events) -> dict[str, Any]:
    return as_chat(made.reply())["choices"][0]["message"]


def test_the_last_event_is_the_reply() -> None:
    made = built(*BEGUN, event("completed", response=WHOLE))
    assert made.is_whole
    assert made.reply() == WHOLE


def test_before_the_last_event_nothing_is_whole_and_what_came_is_kept() -> None:
    made = built(*BEGUN)
    assert not made.is_whole
    assert message(made)["content"] == "Hello"
    assert as_chat(made.reply())["model"] == "m"


def test_thoughts_are_a_token_but_no_beginning() -> None:
    made = built(event("reasoning_summary_text.delta", output_index=0, delta="hm"))
    assert made.assembly.has_token
    assert not made.assembly.has_begun
    assert built(*BEGUN).assembly.has_begun
    assert not built(*BEGUN[:4]).assembly.has_token


def test_calls_that_are_cut_keep_their_pieces() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    made = built(
        event("output_item.added", output_index=1, item=item),
        event("function_call_arguments.delta", output_index=1, delta='{"x"'),
    )
    assert message(made)["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x"'}
    done = event("output_item.done", output_index=1, item={**item, "arguments": '{"x":1}'})
    made.take(orjson.dumps(done))
    assert message(made)["tool_calls"][0]["function"]["arguments"] == '{"x":1}'


def test_an_end_without_the_reply_is_filled_from_what_came() -> None:
    """As Perplexity's may: the response is optional there, and its results are events of their own."""
    found = [{"url": "https://one", "title": "One"}]
    made = built(*BEGUN, event("reasoning.search_results", results=found), event("completed"))
    chat = as_chat(made.reply())
    assert made.is_whole
    assert chat["choices"][0]["finish_reason"] == "stop"
    assert chat["choices"][0]["message"]["content"] == "Hello"
    assert chat["search_results"] == found


def test_failures_say_why_in_either_form() -> None:
    error = {"code": "server_error", "message": "sorry"}
    nested = built(*BEGUN, event("failed", response={**OPENED, "status": "failed", "error": error}))
    flat = built(*BEGUN, event("failed", error=error))
    bare = built(*BEGUN, {"type": "error", **error, "param": None, "sequence_number": 3})
    for made in (nested, flat, bare):
        assert made.is_whole
        assert as_chat(made.reply())["error"]["message"] == "sorry"


def test_nothing_raises() -> None:
    odd: list[Any] = [None, 3, "x", [], {}, {"type": []}]
    kinds = ("completed", "output_item.added", "output_text.delta", "reasoning.search_results", "failed")
    for kind in kinds:
        for value in odd:
            made = built(
                event(kind, response=value, item=value, delta=value, output_index=value, results=value),
                {"type": value},
                {},
            )
            orjson.dumps(as_chat(made.reply()))
