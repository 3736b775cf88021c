"""Tokens and money as the providers count them, brought to one form.

Each field is read on its own, from the first of its known places that holds a sane number: a field that is
missing, negative, text or absurd is unknown and harms no other. Nothing here raises, since a strange usage
block is no reason to lose the paid answer beside it.
"""

from collections.abc import Mapping

from batchllm.records import Usage

#: No reply holds a thousand million tokens, and none costs as many dollars.
_ABSURD = 1_000_000_000
#: xAI counts money in ticks of 1e-10 USD.
_USD_PER_TICK = 1e-10
_MOST_TICKS = _ABSURD / _USD_PER_TICK

_COSTS = frozenset({"cost", "cost_in_usd_ticks"})
_NOTHING: Mapping[str, object] = {}
#: Nothing was told.
UNKNOWN = Usage()


def read_usage(reply: Mapping[str, object]) -> Usage:
    """The `usage` of a parsed reply. `completion_tokens` is what is billed as output, reasoning included."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return UNKNOWN
    prompt = _tokens(usage.get("prompt_tokens"))
    completion = _tokens(usage.get("completion_tokens"))
    reasoning = _reasoning(usage)
    if completion is not None and reasoning and _is_reasoning_apart(usage, prompt, completion, reasoning):
        completion += reasoning
    cached = _cached(usage)
    if cached and prompt is not None and cached > prompt:
        cached = None
    return Usage(prompt, completion, cached, reasoning, _cost_usd(usage), _written(usage, prompt, cached))


def _is_reasoning_apart(
    usage: Mapping[str, object], prompt: int | None, completion: int, reasoning: int
) -> bool:
    """xAI's chat replies leave the reasoning out of `completion_tokens`; only the total tells."""
    total = _tokens(usage.get("total_tokens"))
    return prompt is not None and total == prompt + completion + reasoning


def _reasoning(usage: Mapping[str, object]) -> int | None:
    nested = _tokens(_part(usage, "completion_tokens_details").get("reasoning_tokens"))
    return _tokens(usage.get("reasoning_tokens")) if nested is None else nested


def _cached(usage: Mapping[str, object]) -> int | None:
    tokens = _tokens(_part(usage, "prompt_tokens_details").get("cached_tokens"))
    if tokens is not None:
        return tokens
    candidates = (
        usage.get("prompt_cache_hit_tokens"),  # DeepSeek
        usage.get("num_cached_tokens"),  # Mistral, and the misspelling below too
        _part(usage, "prompt_token_details").get("cached_tokens"),
    )
    return next((tokens for tokens in map(_tokens, candidates) if tokens is not None), None)


def _written(usage: Mapping[str, object], prompt: int | None, cached: int | None) -> int | None:
    """OpenAI from gpt-5.6 on, OpenRouter."""
    written = _tokens(_part(usage, "prompt_tokens_details").get("cache_write_tokens"))
    return None if written and written + (cached or 0) > (prompt or 0) else written


def _cost_usd(usage: Mapping[str, object]) -> float | None:
    """A float (OpenRouter), an object with a total (Perplexity), or ticks (xAI)."""
    if _COSTS.isdisjoint(usage):
        return None
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    stated = _number(cost)
    if stated is not None:
        return stated
    ticks = _number(usage.get("cost_in_usd_ticks"), _MOST_TICKS)
    return None if ticks is None else ticks * _USD_PER_TICK


def _part(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = usage.get(name)
    return part if isinstance(part, dict) else _NOTHING


def _tokens(value: object) -> int | None:
    if type(value) is int:
        return value if 0 <= value <= _ABSURD else None
    if isinstance(value, float) and 0 <= value <= _ABSURD and value.is_integer():
        return int(value)
    return None


def _number(value: object, most: float = _ABSURD) -> float | None:
    if type(value) is not float and type(value) is not int:
        return None
    return float(value) if 0 <= value <= most else None
