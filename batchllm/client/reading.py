"""A reply that was accepted → what the caller gets."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batchllm.client.results import Moderation, TextAnswer, ToolCall
from batchllm.pricing import Price, cost_usd
from batchllm.prompt import well_formed
from batchllm.provider.mended_json import mended
from batchllm.records import Answer, Failure, Reading, Request, RowRef, Usage
from batchllm.spec import models
from batchllm.task import EmbeddingTask, ModerationTask
from batchllm.task.reply import finish_reason, first_choice, open_envelope

_TEXT_PARTS = ("output_text", "text")
_REASONING_FIELDS = ("reasoning_content", "reasoning")


def request_of(content: object, rows: int = 1, tokens: int = 0) -> Request:
    """A call as the verdict and the encoder know it."""
    refs = tuple(RowRef(at, None, b"") for at in range(rows))
    return Request(refs, content, (tokens, *([0] * (rows - 1))), ())


class TextReader:
    """Is there a first choice that holds an answer? Whether it is a good one, the caller sees."""

    kind = "chat"

    def read(self, reply: object, request: Request) -> Reading | Failure:  # noqa: ARG002 - the task's signature
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        choice = first_choice(envelope)
        if isinstance(choice, Failure):
            return choice
        message = choice.get("message")
        message = choice if message is None else message
        if not isinstance(message, dict):
            return envelope.malformed("the first choice has no message")
        if not isinstance(message.get("content", message.get("text")), str | list | None):
            return envelope.malformed("the message's content is neither text nor a list of parts")
        return envelope.accept((Answer(""),))


class VectorReader:
    """As the embedding task reads, for a width that may not be known before the first reply."""

    kind = "embedding"

    def __init__(self, dimensions: int | None, *, of_signed_bytes: bool = False) -> None:
        self.dimensions = dimensions
        self._of_signed_bytes = of_signed_bytes

    def read(self, reply: object, request: Request) -> Reading | Failure:
        width = self.dimensions or _width(reply, 1 if self._of_signed_bytes else 4)
        task = EmbeddingTask(models.EmbeddingTask(type="embedding", text="-"), width or 1)
        verdict = (task.of_signed_bytes() if self._of_signed_bytes else task).read(reply, request)
        if isinstance(verdict, Reading):
            self.dimensions = width
        return verdict


def moderation_reader() -> ModerationTask:
    return ModerationTask(models.ModerationTask(type="moderation", text="-"))


def _width(reply: object, number_bytes: int) -> int | None:
    """Of the first vector in a reply: numbers, or base64 of numbers of so many bytes."""
    data = reply.get("data") if isinstance(reply, dict) else None
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if isinstance(vector, str):
        return (len(vector) * 3 // 4 - vector[-2:].count("=")) // number_bytes
    return len(vector) if isinstance(vector, list) else None


def parsed(body: bytes) -> dict[str, Any]:
    """A body that the verdict has accepted, read as the verdict reads it."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        reply = mended(body)
    return reply if isinstance(reply, dict) else {}


def text_answer(
    reply: Mapping[str, Any], reading: Reading, *, price: Price | None, wall_s: float, notes: tuple[str, ...]
) -> TextAnswer:
    choice = reply["choices"][0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    return TextAnswer(
        content=text_of(message.get("content")),
        tool_calls=tool_calls(message.get("tool_calls")),
        finish_reason=finish_reason(choice),
        usage=reading.usage,
        cost_usd=cost_usd(price, reading.usage, wall_s=wall_s),
        model=reading.model,
        request_id=reading.request_id,
        reasoning=reasoning_of(message),
        refusal=text_of(message.get("refusal")),
        notes=notes,
        raw=reply,
    )


def text_of(content: object) -> str:
    """Text, or the text parts of a list of parts."""
    if isinstance(content, str):
        return well_formed(content)
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS]
    return "".join(well_formed(part["text"]) for part in parts if isinstance(part.get("text"), str))


def reasoning_of(message: Mapping[str, Any]) -> str:
    return next((text for name in _REASONING_FIELDS if (text := text_of(message.get(name)))), "")


def tool_calls(given: object) -> tuple[ToolCall, ...]:
    calls = given if isinstance(given, list) else []
    return tuple(_tool_call(call) for call in calls if isinstance(call, dict))


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return ToolCall(
        *(_word(value) for value in (call.get("id"), function.get("name"), function.get("arguments")))
    )


def _word(value: object) -> str:
    """Some servers send the arguments as an object instead of its text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def moderations(answers: Sequence[Answer]) -> tuple[Moderation, ...]:
    results = [orjson.loads(answer.value) for answer in answers]
    return tuple(
        Moderation(
            bool(result["flagged"]),
            tuple(sorted(name for name, is_true in result["categories"].items() if is_true)),
            dict(result["category_scores"]),
        )
        for result in results
    )


def summed(usages: Sequence[Usage]) -> Usage:
    """Of several calls; what one of them did not tell is not known of all."""
    return Usage(*(_sum(values) for values in zip(*usages, strict=True))) if usages else Usage()


def _sum(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)
