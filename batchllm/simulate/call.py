"""What is asked of a simulated provider.

Tokens are counted as UTF-8 bytes / 4, rounded up: near enough to rehearse with, and free.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

BYTES_PER_TOKEN: Final = 4
#: Reserved for an answer whose size the request does not cap: the default of `max_tokens` in OpenAI's completions.
DEFAULT_ANSWER_TOKENS: Final = 16


class Kind(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    MODERATION = "moderation"


class Offer(NamedTuple):
    """A function that may be called, with the schema of its arguments."""

    name: str
    parameters: Mapping[str, object]


class LogprobsAsked(NamedTuple):
    """So many tokens at each place; asked for with a number, they come in the older form, as at Together."""

    top: int
    is_older: bool


class Call(NamedTuple):
    """What is asked.

    `text` is what answer rules search and what draws are made from. `subjects` are the texts asked about: each prompt
    or input; for chat the last text of the user. `extras` are the parts that are no text (images, tool calls), as
    JSON. `schema` and `tool` are what the answer must fit; of the tools in `offered` it may choose one. `reasons`: with
    thoughts; `searches`: with sources. `is_response`: chat that came by the Responses API.
    """

    kind: Kind
    model: str
    text: str
    subjects: tuple[str, ...]
    prompt_tokens: int
    extras: bytes = b""
    max_tokens: int | None = None
    choices: int = 1
    stop: tuple[str, ...] = ()
    streams: bool = False
    includes_usage: bool = False
    schema: Mapping[str, object] | bool | None = None
    wants_json: bool = False
    tool: str | None = None
    dimensions: int | None = None
    as_base64: bool = False
    offered: tuple["Offer", ...] = ()
    logprobs: "LogprobsAsked | None" = None
    reasons: bool = False
    is_response: bool = False
    searches: bool = False
    temperature: float | None = None

    @property
    def reserved_tokens(self) -> int:
        """What the call may use at most, as far as can be told before it is answered."""
        if self.kind in (Kind.EMBEDDING, Kind.MODERATION):
            return self.prompt_tokens
        answers = self.choices * (len(self.subjects) if self.kind is Kind.COMPLETION else 1)
        return self.prompt_tokens + answers * (self.max_tokens or DEFAULT_ANSWER_TOKENS)


def count_tokens(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode())
    return max(1, -(-size // BYTES_PER_TOKEN))
