"""A reply of the Responses API as the chat completion that it would have been.

So that one reading judges both. The text is all text of all messages; a refusal, calls of functions and the reasoning
stand where chat has them; sources come under the names that Perplexity's chat gave them: `citations` (addresses) and
`search_results`. Nothing here raises, and what is no Responses reply stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence

#: Of an answer that is not whole.
_CUT: Mapping[object, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
#: Perplexity's word for an answer that waits for the caller's functions.
_CALLING = "requires_action"
_UNDONE = ("cancelled", "failed", "in_progress", "queued")  # a tuple: a status need not be hashable
#: Of usage; what is in none of them travels as it is.
_USAGE_NAMES: Mapping[str, str] = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
_CACHE_NAMES: Mapping[str, str] = {  # Perplexity's
    "cache_read_input_tokens": "cached_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_KEPT = ("id", "model", "service_tier", "citations", "search_results")


def as_chat(reply: object) -> object:
    if not isinstance(reply, dict):
        return reply
    output, status, error = reply.get("output"), reply.get("status"), reply.get("error")
    if not isinstance(output, list):
        if status is None:
            return reply
        output = []
    items = [item for item in output if isinstance(item, dict)]
    chat: dict[str, object] = {name: reply[name] for name in _KEPT if reply.get(name) is not None}
    chat["choices"] = [_choice(reply, items)] if items else []
    usage = reply.get("usage")
    if isinstance(usage, dict):
        chat["usage"] = _usage(usage)
    if not error and status in _UNDONE:
        error = {"message": f"the provider says no more than that the response is {status}"}
    if error:
        chat["error"] = error
    _add_sources(chat, items)
    return chat


def _choice(reply: Mapping[str, object], items: Sequence[Mapping[str, object]]) -> dict[str, object]:
    parts = list(_parts(items))
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    calls = [_call(item) for item in items if item.get("type") == "function_call"]
    message: dict[str, object] = {"role": "assistant", "content": "".join(map(str, texts)) if texts else None}
    if refusals:
        message["refusal"] = "".join(map(str, refusals))
    if calls:
        message["tool_calls"] = calls
    if reasoning := _reasoning(items):
        message["reasoning"] = reasoning
    choice: dict[str, object] = {
        "index": 0,
        "message": message,
        "finish_reason": _finish_reason(reply, calls_tools=bool(calls)),
    }
    if logprobs := [entry for part in parts for entry in _dicts(part.get("logprobs"))]:
        choice["logprobs"] = {"content": logprobs}
    return choice


def _finish_reason(reply: Mapping[str, object], *, calls_tools: bool) -> str | None:
    status = reply.get("status")
    if status == "incomplete":
        details = reply.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        known = _CUT.get(reason) if isinstance(reason, str) else None
        return known or (reason if isinstance(reason, str) and reason else "incomplete")
    if calls_tools or status == _CALLING:
        return "tool_calls"
    return "stop" if status == "completed" else None


def _parts(items: Sequence[Mapping[str, object]]) -> Iterator[Mapping[str, object]]:
    """Of all messages, in order."""
    for item in items:
        if item.get("type") == "message":
            yield from _dicts(item.get("content"))


def _call(item: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": item.get("call_id") or item.get("id"),
        "type": "function",
        "function": {"name": item.get("name"), "arguments": item.get("arguments")},
    }


def _reasoning(items: Sequence[Mapping[str, object]]) -> str:
    """The text itself where it is shown, else its summary."""
    thoughts: list[str] = []
    for item in items:
        if item.get("type") != "reasoning":
            continue
        shown = _texts(item.get("content")) or _texts(item.get("summary"))
        thoughts += shown
    return "\n\n".join(thoughts)


def _texts(parts: object) -> list[str]:
    texts = [part.get("text") for part in _dicts(parts)]
    return [text for text in texts if isinstance(text, str) and text]


def _usage(usage: Mapping[str, object]) -> dict[str, object]:
    told = {_USAGE_NAMES.get(name, name): value for name, value in usage.items()}
    details = told.get("prompt_tokens_details")
    if isinstance(details, dict):
        told["prompt_tokens_details"] = {
            _CACHE_NAMES.get(name, name): value for name, value in details.items()
        }
    return told


def _add_sources(chat: dict[str, object], items: Sequence[Mapping[str, object]]) -> None:
    """Cited are the addresses that the text is marked with, in order; without marks, all that were found."""
    cited = [
        note
        for part in _parts(items)
        for note in _dicts(part.get("annotations"))
        if isinstance(note.get("url"), str)
    ]
    found = [result for item in items for result in _results(item)]
    if not cited and not found:
        return
    chat.setdefault("citations", list(dict.fromkeys(source["url"] for source in cited or found)))
    if not found:
        titles: dict[object, object] = {}
        for note in cited:
            titles.setdefault(note["url"], note.get("title"))
        found = [{"title": title, "url": url} for url, title in titles.items()]
    chat.setdefault("search_results", found)


def _results(item: Mapping[str, object]) -> list[dict[str, object]]:
    """Perplexity's items: what it searched, and what it read."""
    name = {"search_results": "results", "fetch_url_results": "contents"}.get(str(item.get("type")))
    found = [] if name is None else _dicts(item.get(name))
    return [result for result in found if isinstance(result.get("url"), str)]


def _dicts(value: object) -> list[dict[str, object]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
