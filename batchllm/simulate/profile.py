"""What a profile may say of a provider: the shape of `profiles`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from batchllm.simulate import wording
from batchllm.simulate.call import Kind
from batchllm.simulate.wording import Layout, Reason, Said
from batchllm.spec.lanes import HeaderStyle

UsageWords = Literal[
    "openai", "plain", "groq", "together", "mistral", "deepseek", "xai", "openrouter", "perplexity"
]
_UNKNOWN: Final = Said(400, code="unknown_parameter", message="Unknown parameter: '{param}'.")
_TOO_MANY: Final = Said(400, code="array_above_max_length")


@dataclass(frozen=True, slots=True)
class Fields:
    """What a body may hold. `known` None: anything.

    `unknown` is what is said of any other field, `refused` of these; `highest` and `choices` bound values. `renamed`
    are OpenAI's names of fields that are called otherwise here.
    """

    known: frozenset[str] | None = None
    unknown: Said = _UNKNOWN
    refused: Mapping[str, Said] = field(default_factory=dict)
    highest: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider. `reasons` are patterns of models that think, `thought_tokens` how much for each answer.

    `responses`: what a body of the Responses API may hold; None: it has no such API.

    `thinking_models` refuse the fields of `thinking_refuses`. `widths` are those of its embedding models; one request
    holds at most `most_inputs` texts and `most_tokens` tokens. `blank_lines` come before a reply.
    """

    grade: Literal["A", "B", "C", "D"]
    source: str
    kinds: frozenset[Kind]
    headers: HeaderStyle = "none"
    retry_after: Literal["exact", "seconds", "none"] = "none"
    counts_refused: bool = False
    layout: Layout = wording.nested
    words: Mapping[Reason, Said] = field(default_factory=dict)
    fields: Mapping[Kind, Fields] = field(default_factory=dict)
    responses: Fields | None = None
    usage: UsageWords = "plain"
    reasons: tuple[str, ...] = ()
    reasons_not: tuple[str, ...] = ()
    thought_tokens: int = 0
    thought_field: str = ""
    thinking_refuses: Mapping[str, Said] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    most_inputs: int | None = None
    most_tokens: int | None = None
    too_many: Said = _TOO_MANY
    has_int8_vectors: bool = False
    counts_logprobs: bool = False
    models: Literal["object", "list", "none"] = "object"
    blank_lines: int = 0
    finish: str = "stop"
