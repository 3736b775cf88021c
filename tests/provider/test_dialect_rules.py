"""The parameter matrix, provider by provider, and what becomes of what a provider does not take."""

import pytest

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked, takers, translate
from batchllm.provider.dialect_rules import CHAT, MODELS, NEVER_DROPPED, PLAIN, REASONING, Rule, rules_for
from batchllm.spec.models import Params

CATALOGUE = load_catalogue()
GO, STAY = "goes", "refused"
MODEL = {
    "openai": "gpt-4.1-nano",
    "azure": "gpt-4.1-nano",
    "together": "Qwen/Qwen3.5-9B",
    "groq": "openai/gpt-oss-20b",
    "mistral": "mistral-small-latest",
    "deepseek": "deepseek-flash",
    "xai": "grok-4.20-0309-non-reasoning",
    "fireworks": "accounts/fireworks/models/gpt-oss-20b",
    "openrouter": "openai/gpt-oss-20b",
    "gemini": "gemini-3.5-flash",
    "anthropic": "claude-haiku-4-5",
    "vllm": "m",
    "ollama": "m",
}


def becomes(provider: str, param: str, model: str = "") -> str:
    rules = rules_for(CATALOGUE.get(provider), "chat", model or MODEL[provider])
    rule = rules.get(param, Rule())
    return STAY if rule.refused else GO


@pytest.mark.parametrize(
    ("param", "refusing"),
    [
        ("n", {"groq", "deepseek", "anthropic", "ollama"}),
        ("logprobs", {"groq", "mistral", "gemini", "anthropic", "ollama"}),
        ("top_logprobs", {"groq", "mistral", "gemini", "anthropic", "ollama"}),
        ("tools", set()),
        ("tool_choice", {"ollama"}),
        ("parallel_tool_calls", set()),
        ("presence_penalty", {"groq", "gemini", "anthropic"}),
        ("frequency_penalty", {"groq", "gemini", "anthropic"}),
    ],
)
def test_who_refuses_a_parameter(param: str, refusing: set[str]) -> None:
    assert {provider for provider in MODEL if becomes(provider, param) == STAY} == refusing


@pytest.mark.parametrize(
    ("provider", "model", "param"),
    [
        ("openai", "o3", "n"),
        ("openai", "o3-mini", "stop"),
        ("openai", "o4-mini-2025-04-16", "stop"),
        ("openai", "gpt-5-nano", "logprobs"),
        ("azure", "gpt-5-nano", "top_logprobs"),
        ("mistral", "mistral-large-2512", "n"),
        ("xai", "grok-4.7", "stop"),
    ],
)
def test_some_models_refuse_what_their_provider_takes(provider: str, model: str, param: str) -> None:
    assert becomes(provider, param) == GO
    assert becomes(provider, param, model) == STAY


def test_the_number_of_tools_is_bounded_where_it_is_documented() -> None:
    bounded = {provider for provider in MODEL if rules_for(CATALOGUE.get(provider), "chat", "m").get("tools")}
    assert bounded == {"groq", "mistral", "deepseek"}


def test_each_table_speaks_of_dialects_that_exist() -> None:
    assert {entry.dialect for entry in CATALOGUE} == set(CHAT)
    assert set(PLAIN) | set(REASONING) | set(MODELS) <= set(CHAT)


def translated(
    provider: str, *, drops: bool, model: str = "", **params: object
) -> tuple[dict[str, object], list[str]]:
    entry = CATALOGUE.get(provider)
    asked = Asked("chat", Params.model_validate(params))
    translation = translate(asked, entry=entry, model=model or MODEL[provider], drops=drops)
    return dict(translation.fields), [fault.param for fault in translation.unsupported]


@pytest.mark.parametrize(
    ("provider", "params"),
    [
        ("groq", {"presence_penalty": 0.5, "logit_bias": {"1": 1.0}}),
        ("mistral", {"temperature": 1.8}),
        ("xai", {"verbosity": "low"}),
        ("openai", {"stop": ["a", "b", "c", "d", "e"]}),
        ("gemini", {"frequency_penalty": 1.0}),
    ],
)
def test_a_job_may_ask_to_leave_out_what_is_not_taken(provider: str, params: dict[str, object]) -> None:
    assert translated(provider, drops=False, **params) == ({}, list(params))
    assert translated(provider, drops=True, **params) == ({}, [])
    entry = CATALOGUE.get(provider)
    asked = Asked("chat", Params.model_validate(params))
    notes = translate(asked, entry=entry, model=MODEL[provider], drops=True).notes
    assert [note.split()[0] for note in notes] == list(params)
    assert all("is not sent" in note for note in notes)


def test_what_would_change_the_kind_of_the_answers_is_never_left_out() -> None:
    assert {"n", "tools"} <= NEVER_DROPPED
    asked = Asked("embedding", dimensions=7)
    mistral = CATALOGUE.get("mistral")
    assert translate(asked, entry=mistral, model="mistral-embed", drops=True).unsupported
    assert translate(Asked("completion"), entry=CATALOGUE.get("groq"), model="m", drops=True).unsupported


def test_a_refusal_can_name_the_providers_that_take_the_parameter() -> None:
    asked = Asked("chat", Params(presence_penalty=0.5, seed=1))
    able = takers(asked, "presence_penalty", CATALOGUE)
    assert able == ["openai", "together", "mistral", "deepseek", "xai", "fireworks", "openrouter"]
    assert takers(Asked("embedding"), "task.type", CATALOGUE) == [
        "openai",
        "together",
        "perplexity",
        "mistral",
        "fireworks",
        "openrouter",
        "azure",
        "gemini",
    ]
    assert takers(Asked("moderation"), "task.type", CATALOGUE) == ["openai", "mistral"]
    assert takers(asked, "logit_bias", CATALOGUE) == []
