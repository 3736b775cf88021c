"""Bodies in OpenAI's shapes."""

import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final, NamedTuple

import orjson

from batchllm.simulate.answers import FLAGGED_FROM, ModelAnswer, first_words
from batchllm.simulate.call import Call, Kind, LogprobsAsked, count_tokens
from batchllm.simulate.wire import render_event

Headers = list[tuple[str, str]]
#: A stream has at most so many pieces of text a choice: enough to look like one.
MOST_PIECES: Final = 32
HTML_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>"
    b"<body><h1>502 Bad Gateway</h1><p>A simulated gateway's page, sent with status 200.</p></body></html>\n"
)
_DONE: Final = b"data: [DONE]\n\n"
_WORD: Final = re.compile(r"\S+\s*|\s+")
_FINGERPRINT: Final = "fp_simulated"
_SOURCE: Final = "https://example.com/simulated"


class Stamp(NamedTuple):
    """What makes one reply differ from the next: its number, and when it was made."""

    number: str
    created: int


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models_body(models: Sequence[str]) -> bytes:
    return orjson.dumps({"object": "list", "data": [_model_entry(model) for model in models]})


def model_body(model: str) -> bytes:
    return orjson.dumps(_model_entry(model))


def _model_entry(model: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "batchllm-simulator"}


def usage(call: Call, completion_tokens: int, reasoning_tokens: int = 0) -> dict[str, object]:
    """Chat and completion; embeddings have no completion tokens in OpenAI's replies."""
    counts: dict[str, object] = {"prompt_tokens": call.prompt_tokens}
    if call.kind is not Kind.EMBEDDING:
        counts["completion_tokens"] = completion_tokens
    counts["total_tokens"] = call.prompt_tokens + completion_tokens
    if call.kind is Kind.CHAT:
        counts["prompt_tokens_details"] = {"cached_tokens": 0}
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts


def text_body(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> bytes:
    """A chat completion or a completion."""
    make = _chat_choice if call.kind is Kind.CHAT else _completion_choice
    choices = [make(call, answer, index, stamp) for index, answer in enumerate(answers)]
    counts = _total(call, answers)
    sources = _sources(call) if call.searches else {}
    return orjson.dumps({**_envelope(call, stamp), "choices": choices, "usage": counts, **sources})


def _total(call: Call, answers: Sequence[ModelAnswer]) -> dict[str, object]:
    thought = sum(count_tokens(answer.thought) for answer in answers if answer.thought)
    return usage(call, sum(answer.tokens for answer in answers), thought)


def text_events(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> tuple[bytes, ...]:
    """The same as server-sent events, ending in [DONE]."""
    envelope = _envelope(call, stamp, is_chunk=True)
    if call.includes_usage:
        envelope["usage"] = None
    make = _chat_deltas if call.kind is Kind.CHAT else _completion_deltas
    events = [
        render_event(orjson.dumps({**envelope, "choices": [choice]}))
        for index, answer in enumerate(answers)
        for choice in make(call, answer, index, stamp)
    ]
    if call.includes_usage:
        counts = _total(call, answers)
        events.append(render_event(orjson.dumps({**envelope, "choices": [], "usage": counts})))
    return (*events, _DONE)


def embedding_body(call: Call, vectors: Sequence[bytes]) -> bytes:
    """`vectors` are JSON already."""
    data = [
        {"object": "embedding", "index": index, "embedding": orjson.Fragment(vector)}
        for index, vector in enumerate(vectors)
    ]
    return orjson.dumps({"object": "list", "data": data, "model": call.model, "usage": usage(call, 0)})


def moderation_body(call: Call, scores: Sequence[dict[str, float]], stamp: Stamp) -> bytes:
    results = []
    for score_of in scores:
        categories = {name: score >= FLAGGED_FROM for name, score in score_of.items()}
        results.append(
            {
                "flagged": any(categories.values()),
                "categories": categories,
                "category_scores": score_of,
                "category_applied_input_types": {name: ["text"] for name in score_of},
            }
        )
    return orjson.dumps({"id": f"modr-{stamp.number}", "model": call.model, "results": results})


def _envelope(call: Call, stamp: Stamp, *, is_chunk: bool = False) -> dict[str, object]:
    if call.kind is Kind.CHAT:
        name = "chat.completion.chunk" if is_chunk else "chat.completion"
        prefix = "chatcmpl"
    else:
        name, prefix = "text_completion", "cmpl"
    return {
        "id": f"{prefix}-{stamp.number}",
        "object": name,
        "created": stamp.created,
        "model": call.model,
        "system_fingerprint": _FINGERPRINT,
    }


def _chat_choice(call: Call, answer: ModelAnswer, index: int, stamp: Stamp) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_call(answer.tool, answer.text, index, stamp)]
    if answer.thought:
        message["reasoning"] = answer.thought
    if call.searches:
        message["annotations"] = [_annotation(call, answer)]
    told = None if call.logprobs is None else _logprobs(answer.text, call.logprobs)
    return {"index": index, "message": message, "logprobs": told, "finish_reason": answer.finish_reason}


def _sources(call: Call) -> dict[str, object]:
    """As Perplexity tells them: addresses, and what was found there."""
    title = first_words(call.subjects[-1])
    result = {"title": title, "url": _SOURCE, "date": "2026-01-01", "snippet": f"What is told of {title}"}
    return {"citations": [_SOURCE], "search_results": [result]}


def _annotation(call: Call, answer: ModelAnswer) -> dict[str, object]:
    """As OpenAI tells them."""
    cited = {
        "url": _SOURCE,
        "title": first_words(call.subjects[-1]),
        "start_index": 0,
        "end_index": len(answer.text),
    }
    return {"type": "url_citation", "url_citation": cited}


def _logprobs(text: str, asked: LogprobsAsked) -> dict[str, object]:
    """A word with the space behind it is a token; the longer one is, the less likely."""
    tokens = _WORD.findall(text)
    tops = [
        {f"{token}{'?' * rank}": _likelihood(token, rank) for rank in range(asked.top)} for token in tokens
    ]
    if asked.is_older:
        return {
            "tokens": tokens,
            "token_logprobs": [_likelihood(token) for token in tokens],
            "top_logprobs": tops,
        }
    content = [
        {
            **_token(token, _likelihood(token)),
            "top_logprobs": [_token(other, number) for other, number in top.items()],
        }
        for token, top in zip(tokens, tops, strict=True)
    ]
    return {"content": content, "refusal": None}


def _likelihood(token: str, rank: int = 0) -> float:
    return -0.125 * len(token) * (rank + 1)


def _token(token: str, logprob: float) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _tool_call(name: str, arguments: str, index: int, stamp: Stamp) -> dict[str, object]:
    return {
        "id": f"call_{stamp.number}_{index}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _completion_choice(call: Call, answer: ModelAnswer, index: int, _stamp: Stamp) -> dict[str, object]:
    told = None if call.logprobs is None else _logprobs(answer.text, call.logprobs)
    return {"index": index, "text": answer.text, "logprobs": told, "finish_reason": answer.finish_reason}


def _chat_deltas(_call: Call, answer: ModelAnswer, index: int, stamp: Stamp) -> Iterator[dict[str, object]]:
    first: dict[str, object] = {"role": "assistant", "content": "", "refusal": None}
    if answer.tool is not None:
        first["content"] = None
        first["tool_calls"] = [{"index": 0, **_tool_call(answer.tool, "", index, stamp)}]
    yield _delta(index, first)
    for piece in pieces(answer.text):
        if answer.tool is not None:
            yield _delta(index, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        else:
            yield _delta(index, {"content": piece})
    yield _delta(index, {}, answer.finish_reason)


def _delta(index: int, delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _completion_deltas(
    call: Call, answer: ModelAnswer, index: int, stamp: Stamp
) -> Iterator[dict[str, object]]:
    for piece in pieces(answer.text):
        yield _completion_choice(call, ModelAnswer(piece, "", 0), index, stamp) | {"finish_reason": None}
    yield _completion_choice(call, answer._replace(text=""), index, stamp)


def pieces(text: str) -> list[str]:
    """Words with the space after them, several in one piece when there are many."""
    words = _WORD.findall(text)
    size = max(1, ceil(len(words) / MOST_PIECES))
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)]
