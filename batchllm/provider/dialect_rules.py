"""How each parameter travels to each provider, as tables; `dialect` reads them.

Keyed by the names of a job's `params`. How sure a table is stands in the catalogue (`grades.params`); single guesses
are marked where they stand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from batchllm.provider.catalogue import Dialect, ProviderEntry, TaskKind


@dataclass(frozen=True, slots=True)
class Rule:
    """How one parameter travels. Without a rule it goes as it is.

    `highest` and `most` bound a number and a list; past `highest` a `note` is enough where the bound is only
    documented. `instead` replaces single values by another field; what another parameter has put there stays.
    """

    wire: str = ""
    refused: str = ""
    dropped: str = ""
    note: str = ""
    highest: float | None = None
    most: int | None = None
    allowed: tuple[str, ...] = ()
    instead: Mapping[str | bool, tuple[str, object]] = field(default_factory=dict)


Rules: TypeAlias = Mapping[str, Rule]

_UNKNOWN = Rule(refused="this provider does not know it")
_STOP_4 = Rule(most=4)
_TOOLS_128 = Rule(most=128)
_FOR_REASONING = Rule(refused="only reasoning models take it")
_NOT_FOR_REASONING = Rule(refused="reasoning models refuse it")
_WHILE_THINKING = Rule(note="ignored while the model thinks; reasoning_effort: none turns thinking off")
_NOT_WHILE_THINKING = Rule(refused="not while the model thinks; reasoning_effort: none turns thinking off")
_UPSTREAM = Rule(note="whether it has an effect depends on the upstream that OpenRouter chooses")
_PASSED_OVER = Rule(refused="this layer takes it and passes it over")
_PENALTIES = ("presence_penalty", "frequency_penalty")
_LOGPROBS = ("logprobs", "top_logprobs")
_OPENAI: Rules = {"max_tokens": Rule("max_completion_tokens"), "stop": _STOP_4}
#: The older form of logprobs is their number. It stands in the field of the newer form's yes or no.
_COUNTED_LOGPROBS: Rules = {
    "logprobs": Rule(instead={True: ("logprobs", 1)}),
    "top_logprobs": Rule("logprobs", highest=20),
}

CHAT: Mapping[Dialect, Rules] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "together": {
        "temperature": Rule(highest=1.0, note="Together documents 0 to 1"),
        "stop": _STOP_4,
        "n": Rule(highest=128),
        **_COUNTED_LOGPROBS,
        "reasoning_effort": Rule(
            allowed=("low", "medium", "high"), instead={"none": ("reasoning", {"enabled": False})}
        ),
        "verbosity": _UNKNOWN,
        "service_tier": _UNKNOWN,
        "user": Rule(dropped="Together does not know it"),
    },
    "groq": {
        "max_tokens": Rule("max_completion_tokens"),
        "stop": _STOP_4,
        "n": Rule(refused="Groq answers 400 to any number but 1"),
        **dict.fromkeys((*_LOGPROBS, "logit_bias"), Rule(refused="Groq answers 400 to it")),
        **dict.fromkeys(_PENALTIES, _UNKNOWN),
        "tools": _TOOLS_128,
        "verbosity": _UNKNOWN,
    },
    "mistral": {
        "temperature": Rule(highest=1.5),
        "seed": Rule("random_seed"),
        **dict.fromkeys((*_LOGPROBS, "logit_bias"), Rule(refused="Mistral answers 422 to it")),
        "tools": _TOOLS_128,
        "reasoning_effort": Rule(allowed=("high", "none")),
        "verbosity": _UNKNOWN,
        "service_tier": _UNKNOWN,
        "user": Rule(dropped="Mistral answers 422 to it"),
    },
    "deepseek": {
        "stop": Rule(most=16),
        "seed": Rule(dropped="DeepSeek has none"),
        "n": Rule(refused="DeepSeek gives one answer"),
        "logit_bias": _UNKNOWN,
        "tools": _TOOLS_128,
        "reasoning_effort": Rule(
            allowed=("high", "max"), instead={"none": ("thinking", {"type": "disabled"})}
        ),
        "verbosity": _UNKNOWN,
        "service_tier": _UNKNOWN,
        "user": Rule("user_id"),
    },
    "xai": {
        "top_logprobs": Rule(highest=8),
        "logprobs": Rule(note="not every model of xAI gives them"),
        "verbosity": _UNKNOWN,
        "service_tier": _UNKNOWN,
    },
    "fireworks": {
        "stop": _STOP_4,
        "n": Rule(highest=128),
        "top_logprobs": Rule(highest=5, note="Fireworks gives at most 5 (a guess)"),
        "verbosity": _UNKNOWN,
    },
    "openrouter": {"stop": _STOP_4, "n": _UPSTREAM},
    "perplexity": {
        **dict.fromkeys(
            ("temperature", "top_p", "stop", *_PENALTIES, *_LOGPROBS, "logit_bias", "n", "verbosity"),
            Rule(refused="Perplexity's Responses API does not take it"),
        ),
        **dict.fromkeys(
            ("service_tier", "parallel_tool_calls"),
            Rule(refused="Perplexity's Responses API does not take it"),
        ),
        **dict.fromkeys(("seed", "user"), Rule(dropped="Perplexity's Responses API does not take it")),
    },
    "gemini": {
        "seed": Rule(dropped="Gemini's OpenAI layer answers 400 to it"),
        "user": Rule(dropped="Gemini's OpenAI layer answers 400 to it"),
        **dict.fromkeys(
            (*_PENALTIES, *_LOGPROBS, "logit_bias", "verbosity", "service_tier"),
            Rule(refused="Gemini's OpenAI layer answers 400 to it"),
        ),
    },
    "anthropic": {
        "temperature": Rule(highest=1.0, note="Anthropic counts it as 1 (a guess)"),
        "n": Rule(refused="Anthropic's OpenAI layer takes 1 only"),
        "seed": Rule(dropped="Anthropic's OpenAI layer passes it over"),
        "user": Rule(dropped="Anthropic's OpenAI layer passes it over"),
        **dict.fromkeys(
            (*_PENALTIES, *_LOGPROBS, "logit_bias", "reasoning_effort", "verbosity", "service_tier"),
            _PASSED_OVER,
        ),
    },
    "vllm": dict.fromkeys(("user", "parallel_tool_calls"), Rule(note="vLLM takes it and passes it over")),
    "ollama": {
        "user": Rule(dropped="Ollama has no use for it"),
        **dict.fromkeys(("n", *_LOGPROBS, "logit_bias", "tool_choice"), Rule(refused="Ollama has none")),
    },
    "tgi": {},
    "custom": {},
}
PLAIN: Mapping[Dialect, Rules] = {
    "openai": {"reasoning_effort": _FOR_REASONING, "verbosity": _FOR_REASONING},
}
_NO_SAMPLING: Rules = dict.fromkeys(
    ("temperature", "top_p", *_PENALTIES, "logit_bias", "n", *_LOGPROBS), _NOT_FOR_REASONING
)
REASONING: Mapping[Dialect, Rules] = {
    "openai": _NO_SAMPLING,
    "azure": _NO_SAMPLING,
    "xai": dict.fromkeys(("stop", *_PENALTIES), _NOT_FOR_REASONING),
}
_NO_STOP: Mapping[str, Rules] = {
    pattern: {"stop": Rule(refused="o3 and o4-mini refuse it")} for pattern in ("o3*", "o4-mini*")
}
#: What single models do not take, as patterns of their names.
MODELS: Mapping[Dialect, Mapping[str, Rules]] = {
    "openai": _NO_STOP,
    "azure": _NO_STOP,
    "mistral": {"mistral-large-*": {"n": Rule(refused="mistral-large gives one answer")}},
}
#: That DeepSeek gives no logprobs while it thinks is a guess.
THINKING: Rules = {
    **dict.fromkeys(("temperature", "top_p", *_PENALTIES), _WHILE_THINKING),
    **dict.fromkeys(_LOGPROBS, _NOT_WHILE_THINKING),
}
COMPLETION: Rules = {
    "max_tokens": Rule(),
    **_COUNTED_LOGPROBS,
    **dict.fromkeys(
        ("reasoning_effort", "verbosity", "service_tier", "tools", "tool_choice", "parallel_tool_calls"),
        Rule(refused="the completions endpoint does not take it"),
    ),
}
_AT_MOST_5: Rules = {"top_logprobs": Rule("logprobs", highest=5)}
#: Where the completions endpoint differs from that, which is OpenAI's.
COMPLETION_OF: Mapping[Dialect, Rules] = {
    "openai": _AT_MOST_5,
    "azure": _AT_MOST_5,
    "fireworks": _AT_MOST_5,
    "ollama": dict.fromkeys(_LOGPROBS, Rule(refused="Ollama has none")),
}
#: Without these the answers would be of another kind than the job's columns: they are never left out.
NEVER_DROPPED = frozenset({"n", "tools", "tool_choice"})
#: What an upstream must know for the answer to be what was asked; OpenRouter drops unknown fields without a word.
REQUIRED_UPSTREAM = frozenset({*_LOGPROBS, "tools", "tool_choice"})
#: Values that every provider assumes anyway: asking for them is no reason to refuse a job.
NEUTRAL: Mapping[str, float] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "n": 1,
    "logprobs": False,
}


def rules_for(entry: ProviderEntry, kind: TaskKind, model: str) -> Rules:
    """The rules that hold for a model of this provider."""
    dialect = entry.dialect
    if dialect == "custom":
        return _COUNTED_LOGPROBS if kind == "completion" else {}
    if kind == "completion":
        return {**CHAT[dialect], **COMPLETION, **COMPLETION_OF.get(dialect, {})}
    by_model = REASONING if entry.is_reasoning(model) else PLAIN
    rules = {**CHAT[dialect], **by_model.get(dialect, {})}
    for pattern, own in MODELS.get(dialect, {}).items():
        if fnmatchcase(model.lower(), pattern):
            rules |= own
    return rules
