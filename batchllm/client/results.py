"""What the client gives back: small values, the reply itself as `raw`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from batchllm.records import Usage


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for; `arguments` is JSON text, as it was written."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> object:
        """The arguments as values. Raises ValueError where the model wrote no JSON."""
        return json.loads(self.arguments)


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """Of a chat or a completion.

    `finish_reason` is the provider's word: stop, length (cut at max_tokens), tool_calls, content_filter. `refusal` is
    what the model said instead of an answer. `cost_usd` is None where no price is known. `notes` tell what of the call
    was not sent as it was asked.
    """

    content: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str | None
    usage: Usage
    cost_usd: float | None
    model: str | None
    request_id: str | None = None
    reasoning: str = ""
    refusal: str = ""
    notes: tuple[str, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors`: a fixed-size list of float32 for each text, in the texts' order, as in the Parquet of a run.

    polars, DuckDB and pyarrow take it as it is; `vectors.flatten().to_numpy().reshape(len(vectors), -1)` is the
    matrix, without a copy. `raw` holds each reply, of which there are several where the texts did not fit into one.
    """

    vectors: pa.FixedSizeListArray
    usage: Usage
    cost_usd: float | None
    model: str | None
    notes: tuple[str, ...] = ()
    raw: tuple[Mapping[str, object], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimensions(self) -> int:
        width: int = self.vectors.type.list_size
        return width

    def to_list(self) -> list[list[float]]:
        found: list[list[float]] = self.vectors.to_pylist()
        return found


@dataclass(frozen=True, slots=True)
class Moderation:
    """The judgement on one text. `categories` are those that apply; `scores` are of all, where the provider has any."""

    flagged: bool
    categories: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moderations:
    """One judgement for each text, in the texts' order."""

    results: tuple[Moderation, ...]
    usage: Usage
    cost_usd: float | None
    model: str | None
    notes: tuple[str, ...] = ()
    raw: tuple[Mapping[str, object], ...] = field(default=(), repr=False)

    @property
    def flagged(self) -> bool:
        return any(result.flagged for result in self.results)
