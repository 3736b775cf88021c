"""Tokens of a text, or of a chat: messages with their frame, tools and images.

The frame of a chat is three tokens a message, one more for a name, and three to begin the answer. OpenAI publishes
these numbers, with the API's own counts beside them, for gpt-3.5-turbo, gpt-4 and gpt-4o; tools likewise. For its other
models the same numbers are used, and the count is not called exact.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from batchllm.tokens.counting import TOKENS_PER_MESSAGE, TOKENS_PER_REPLY, TokenCounter, counter_for, is_long
from batchllm.tokens.families import Family, family_of
from batchllm.tokens.images import image_tokens
from batchllm.tokens.picture_size import size_in_url

Chat: TypeAlias = str | Sequence[Mapping[str, Any]]
TOKENS_PER_NAME = 1
#: How an unknown vocabulary's text is counted first.
_MEASURE = "gpt-4o"
#: Models whose frame is published with the API's counts beside it.
_KNOWN_FRAME = re.compile(r"(ft:)?(gpt-3\.5-turbo|gpt-4o|gpt-4|chatgpt-4o)(?!\.)")
#: What tools and a frame that is not published may be off: a guess.
_UNSURE = 0.15
#: The size that is assumed of a picture whose size is not known: what costs most of all that is made smaller.
LARGEST = 2048
_TEXT_PARTS = ("input_text", "output_text", "text")


@dataclass(frozen=True, slots=True)
class TokenCount:
    """`low` and `high` hold nine counts of ten; equal to `tokens` where the count is exact. `note` says why not."""

    tokens: int
    low: int
    high: int
    method: str
    note: str = ""

    @property
    def is_exact(self) -> bool:
        return self.low == self.high

    def __int__(self) -> int:
        return self.tokens


class _Parts(NamedTuple):
    """Tokens by how sure they are: `text` is counted, `frame` is known or not, `other` is worked out from rules."""

    text: int
    frame: int = 0
    other: int = 0


def count_tokens(chat: Chat, model: str, *, tools: Sequence[Mapping[str, Any]] = ()) -> TokenCount:
    """Of a text as it is, or of a chat as the prompt of a request.

    Nothing is fetched, and any text takes bounded time: over 256 KiB it is estimated.
    """
    counter = counter_for(model)
    is_own = counter.encoding is not None
    measure = counter if is_own else counter_for(_MEASURE)
    parts = _Parts(measure.count(chat)) if isinstance(chat, str) else _of_messages(chat, model, measure)
    if tools:
        parts = parts._replace(other=parts.other + tool_tokens(tools, model, counter=measure))
    if not is_own:
        return _scaled(parts, family_of(model), counter.note)
    return _own(parts, model, counter, is_chat=not isinstance(chat, str), has_long=_has_long(chat))


def tool_tokens(
    tools: Sequence[Mapping[str, Any]], model: str = _MEASURE, *, counter: TokenCounter | None = None
) -> int:
    """What the definitions of functions add to a prompt.

    As OpenAI publishes it, for objects one level deep; a deeper schema adds its own JSON. Elsewhere the definitions go
    into the prompt as JSON, by the model's template: that JSON is counted.
    """
    if not tools:
        return 0
    counter = counter or counter_for(model)
    functions = [
        tool.get("function", tool) for tool in tools if isinstance(tool.get("function", tool), Mapping)
    ]
    if counter_for(model).encoding is None:
        return sum(counter.count(_json(function)) for function in functions)
    is_old = re.match(r"gpt-3\.5|gpt-4(-|$)", model) is not None
    start = 10 if is_old else 7
    return sum(start + _of_function(function, counter) for function in functions) + 12


def _of_function(function: Mapping[str, Any], counter: TokenCounter) -> int:
    tokens = counter.count(f"{function.get('name', '')}:{_told(function)}")
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping) or not properties:
        return tokens
    return tokens + 3 + sum(_of_property(name, part, counter) for name, part in properties.items())


def _of_property(name: str, part: object, counter: TokenCounter) -> int:
    part = part if isinstance(part, Mapping) else {}
    tokens = 3 + counter.count(f"{name}:{part.get('type', '')}:{_told(part)}")
    choices = part.get("enum")
    if isinstance(choices, list):
        tokens += -3 + sum(3 + counter.count(str(choice)) for choice in choices)
    inner = [part[key] for key in ("properties", "items", "anyOf", "oneOf") if key in part]
    return tokens + sum(counter.count(_json(deeper)) for deeper in inner)


def _told(part: Mapping[str, Any]) -> str:
    return str(part.get("description") or "").removesuffix(".")


def _of_messages(chat: Sequence[Mapping[str, Any]], model: str, counter: TokenCounter) -> _Parts:
    text, frame, other = 0, TOKENS_PER_REPLY, 0
    for message in chat:
        frame += TOKENS_PER_MESSAGE + counter.count(str(message.get("role", "")))
        name = message.get("name")
        if isinstance(name, str):
            frame += TOKENS_PER_NAME + counter.count(name)
        content = message.get("content")
        if isinstance(content, str):
            text += counter.count(content)
        for part in content if isinstance(content, list) else ():
            told = part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else None
            if isinstance(told, str):
                text += counter.count(told)
            elif isinstance(part, Mapping):
                other += _of_part(part, model, counter)
        if message.get("tool_calls"):
            other += counter.count(_json(message["tool_calls"]))
    return _Parts(text, frame, other)


def _of_part(part: Mapping[str, Any], model: str, counter: TokenCounter) -> int:
    """A picture by its size, which a data URL tells; something else by its JSON."""
    if part.get("type") not in ("image_url", "input_image"):
        return counter.count(_json(part))
    image = part.get("image_url")
    told = image if isinstance(image, Mapping) else {**part, "url": image}
    url = told.get("url")
    width, height = (size_in_url(url) if isinstance(url, str) else None) or (LARGEST, LARGEST)
    return image_tokens(width, height, "low" if told.get("detail") == "low" else "high", model)


def _own(parts: _Parts, model: str, counter: TokenCounter, *, is_chat: bool, has_long: bool) -> TokenCount:
    """Counted with the model's own vocabulary, or the newest of its family."""
    total = sum(parts)
    knows_frame = not is_chat or _KNOWN_FRAME.match(model) is not None
    unsure = parts.other * _UNSURE + (0 if knows_frame else parts.frame)
    notes = [counter.note] if counter.note else []
    if not knows_frame:
        notes.append("the frame of this model's chats is not published: counted as gpt-4o's")
    if parts.other:
        notes.append("tools and images follow published rules, within 15 % by our guess")
    if has_long:
        notes.append("a text over 256 KiB is estimated by its bytes")
        unsure += parts.text
    if not counter.is_exact:
        unsure += 0.1 * parts.text
    low = max(0, math.floor(total - unsure))
    return TokenCount(total, low, math.ceil(total + unsure), counter.name, "; ".join(notes))


def _scaled(parts: _Parts, family: Family, note: str) -> TokenCount:
    """Counted with o200k, brought to the family's measure."""
    total = sum(parts)
    slack = parts.other * _UNSURE
    return TokenCount(
        math.ceil(total * family.typical),
        math.floor(max(0.0, total - slack) * family.low),
        math.ceil((total + slack) * family.high),
        f"o200k_base × {family.typical:g}",
        f"{note}; nine texts of ten lie between low and high, as measured with {family.name}",
    )


def _has_long(chat: Chat) -> bool:
    texts = [chat] if isinstance(chat, str) else [str(message.get("content", "")) for message in chat]
    return any(is_long(text) for text in texts)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except ValueError:  # a cycle
        return ""
