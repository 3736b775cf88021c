"""The catalogue is whole, answers by name, alias and near miss, and a broken file never loads."""

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml

from batchllm.errors import InvariantError
from batchllm.provider.catalogue import (
    TASK_KINDS,
    TIERS,
    NotFound,
    ProviderEntry,
    load_catalogue,
    parse_catalogue,
)
from batchllm.provider.dialect import Asked, translate
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.models import Params

CATALOGUE = load_catalogue()
NAMED = [entry for entry in CATALOGUE if entry.name != "simulator"]
TEXT = resources.files("batchllm.provider").joinpath("catalogue.toml").read_text("utf-8")
DOCS = Path(__file__).parents[2] / "docs" / "providers.md"


def broken(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_all_providers_and_the_simulator_are_known() -> None:
    assert CATALOGUE.names == (
        "openai",
        "together",
        "anyscale",
        "perplexity",
        "groq",
        "mistral",
        "deepseek",
        "xai",
        "fireworks",
        "openrouter",
        "azure",
        "gemini",
        "anthropic",
        "vllm",
        "sglang",
        "llamacpp",
        "lmstudio",
        "ollama",
        "tgi",
        "custom",
        "simulator",
    )


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_each_entry_says_how_sure_it_is(entry: ProviderEntry) -> None:
    assert entry.grades
    assert all(grade.source for grade in entry.grades.values())
    assert entry.checked == CATALOGUE.checked


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_what_is_graded_as_a_guess_is_marked_where_it_stands(entry: ProviderEntry) -> None:
    grade = entry.grades.get("embeddings")
    if grade is not None and grade.grade == "D":
        assert entry.embeddings
        assert all(model.guess for model in entry.embeddings)


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_each_kind_of_task_has_a_path_or_a_reason(entry: ProviderEntry) -> None:
    for kind in TASK_KINDS:
        if entry.supports(kind):
            assert entry.path(kind).startswith("/")
            assert entry.refusal(kind) == ""
        else:
            assert len(entry.refusal(kind)) > 10
            with pytest.raises(NotFound):
                entry.path(kind)


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_hosted_providers_resolve_each_tier_of_what_they_offer(entry: ProviderEntry) -> None:
    if not entry.tiers:
        assert not entry.env or entry.name in {"anyscale", "azure"}
        return
    for kind in TASK_KINDS:
        if entry.supports(kind):
            for tier in TIERS:
                assert entry.resolve_model(tier, kind) not in TIERS


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_embedding_tiers_are_models_whose_width_is_known(entry: ProviderEntry) -> None:
    for choice in entry.tiers.get("embedding", {}).values():
        assert entry.embedding_model(choice.model) is not None


def test_a_chat_task_is_asked_by_the_first_api_or_the_one_that_is_named() -> None:
    openai, perplexity = CATALOGUE.get("openai"), CATALOGUE.get("perplexity")
    assert perplexity.path("chat") == "/responses"
    assert "2026-09-27" in perplexity.endpoint_notes["chat"]
    assert (openai.path("chat"), openai.path("chat", "responses")) == ("/chat/completions", "/responses")
    assert openai.path("embedding", "responses") == "/embeddings"


LOCAL = ["vllm", "sglang", "llamacpp", "lmstudio", "ollama", "tgi"]


@pytest.mark.parametrize("name", LOCAL)
def test_a_server_of_ones_own_has_an_address_on_this_machine_and_wants_no_key(name: str) -> None:
    entry = CATALOGUE.get(name)
    assert (entry.base_url or "").startswith("http://localhost:")
    assert entry.env == ()


@pytest.mark.parametrize(
    ("name", "host", "is_home"),
    [
        ("mistral", "api.mistral.ai", True),
        ("mistral", "api.eu.mistral.ai", True),
        ("mistral", "mistral.ai.evil.example", False),
        ("together", "api.together.xyz", True),
        ("xai", "us.api.x.ai", True),
        ("xai", "api.x.ai.example", False),
        ("azure", "my-resource.openai.azure.com", True),
        ("azure", "openai.azure.com.example", False),
        ("azure", "", False),
        ("openai", "localhost:8080", False),
        ("custom", "anything.example", False),
    ],
)
def test_a_key_belongs_to_the_hosts_of_its_service(name: str, host: str, is_home: bool) -> None:
    assert CATALOGUE.get(name).owns_host(host) is is_home


def test_a_model_that_is_gone_says_what_to_do() -> None:
    entry = CATALOGUE.get("deepseek")
    assert "deepseek-flash" in (entry.retirement("deepseek-chat") or "")
    assert entry.retirement("deepseek-flash") is None


def test_kinds_of_a_model_are_those_that_the_catalogue_names() -> None:
    entry = CATALOGUE.get("openai")
    assert entry.kinds_of("text-embedding-3-small") == ["embedding"]
    assert entry.kinds_of("gpt-4.1-nano") == ["chat"]
    assert entry.kinds_of("gpt-unheard-of") == []


def test_no_two_providers_claim_one_beginning_of_a_key() -> None:
    claimed = [prefix for entry in CATALOGUE for prefix in entry.key_prefixes]
    assert len(claimed) == len(set(claimed)) >= 6
    assert not any(a != b and a.startswith(b) for a in claimed for b in claimed)


def test_anyscale_says_why_it_has_no_address() -> None:
    entry = CATALOGUE.get("anyscale")
    assert entry.base_url is None
    assert "2024-08-01" in entry.base_url_note


def test_another_path_is_told() -> None:
    assert CATALOGUE.get("deepseek").path("completion") == "/beta/completions"
    assert CATALOGUE.get("groq").path("chat") == "/chat/completions"


def test_key_variables_come_in_order() -> None:
    assert CATALOGUE.get("together").env == ("TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("together.ai", "together"),
        ("mistralai", "mistral"),
        ("x.ai", "xai"),
        ("fireworks.ai", "fireworks"),
        (" OpenAI ", "openai"),
        ("v-llm", "vllm"),
        ("llama.cpp", "llamacpp"),
        ("lm-studio", "lmstudio"),
        ("claude", "anthropic"),
        ("google", "gemini"),
        ("self-hosted", "custom"),
    ],
)
def test_aliases_lead_to_their_provider(alias: str, name: str) -> None:
    assert CATALOGUE.get(alias).name == name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("opnai", "openai"), ("fire-works", "fireworks"), ("mistal", "mistral"), ("simulater", "simulator")],
)
def test_a_near_miss_names_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(NotFound) as caught:
        CATALOGUE.get(typed)
    assert caught.value.nearest[0] == meant
    assert caught.value.name == typed


@pytest.mark.parametrize("typed", ["", "zzzzzz", "🚀"])
def test_what_resembles_nothing_has_no_nearest(typed: str) -> None:
    with pytest.raises(NotFound) as caught:
        CATALOGUE.get(typed)
    assert caught.value.nearest == []


def test_a_model_that_is_no_tier_is_taken_as_it_is() -> None:
    assert CATALOGUE.get("openai").resolve_model("gpt-9") == "gpt-9"
    assert CATALOGUE.get("openai").resolve_model("fast") == "gpt-4.1-nano"
    assert CATALOGUE.get("openai").resolve_model("fast", "embedding") == "text-embedding-3-small"
    assert CATALOGUE.get("openai").resolve_model("fast", "moderation") == "omni-moderation-latest"


def test_a_server_without_tiers_may_call_a_model_fast() -> None:
    assert CATALOGUE.get("custom").resolve_model("fast") == "fast"


def test_a_tier_that_a_provider_does_not_have_is_not_a_model() -> None:
    with pytest.raises(NotFound):
        CATALOGUE.get("groq").resolve_model("fast", "embedding")


def test_embedding_models_are_found_by_alias_too() -> None:
    model = CATALOGUE.get("mistral").embedding_model("codestral-embed-2505")
    assert model is not None
    assert (model.dimensions, model.max_dimensions) == (1536, 3072)
    assert CATALOGUE.get("mistral").embedding_model("mistral-embed-9") is None


@pytest.mark.parametrize(
    ("model", "is_reasoning"),
    [
        ("o3-mini", True),
        ("o4-mini-2025-04-16", True),
        ("gpt-5-nano", True),
        ("gpt-6.1-sol", True),
        ("GPT-5", True),
        ("ft:o4-mini:org", True),
        ("gpt-5-chat-latest", False),
        ("gpt-4.1-nano", False),
        ("gpt-4o", False),
        ("omni-moderation-latest", False),
    ],
)
def test_openais_reasoning_models_are_told_by_name(model: str, is_reasoning: bool) -> None:
    assert CATALOGUE.get("openai").is_reasoning(model) is is_reasoning


def test_xais_non_reasoning_model_is_not_one() -> None:
    entry = CATALOGUE.get("xai")
    assert entry.is_reasoning("grok-4.7")
    assert not entry.is_reasoning("grok-4.20-0309-non-reasoning")


def test_schema_support_differs_by_model() -> None:
    groq = CATALOGUE.get("groq")
    assert groq.schema_mode("openai/gpt-oss-20b") == "json_schema"
    assert groq.schema_mode("qwen/qwen3.6-27b") == "json_object"
    assert CATALOGUE.get("openai").schema_mode("gpt-3.5-turbo") == "json_object"
    assert CATALOGUE.get("openai").schema_mode("gpt-4.1") == "json_schema"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "checked = 2026-11-23",
        "checked = '2026-11-23'\nproviders = 3",
        "checked = '2026-11-23'\n[providers.x]\ntitle = 3",
        "not toml at all",
        broken('title = "OpenAI"', 'title = "OpenAI"\ncolour = "green"'),
        broken('grade = "A"', 'grade = "E"'),
        broken('limit_headers = "openai"', 'limit_headers = "opnai"'),
        broken("moderation = true\n", ""),
        broken("moderation = true\n", "moderation = true\nspeech = true\n"),
        broken("dimensions = 1536", "dimensions = '1536'"),
        broken("dimensions = 1536", "dimensions = -1"),
        broken("dimensions = 1536", "dimensions = 1536\nmin_dimensions = 1537"),
        broken('completion = "/beta/completions"', 'completion = "beta/completions"'),
        broken("concurrency = 64", "concurrency = 0"),
        broken("https://api.openai.com/v1", "http://api.openai.com/v1"),
        broken("https://api.openai.com/v1", "https://api.openai.com/v1/"),
        broken('"open-ai"', '"together"'),
        broken('"open-ai"', '"Open-AI"'),
        broken('fast = { model = "gpt-4.1-nano" }\n', ""),
    ],
)
def test_a_broken_file_is_a_broken_promise(text: str) -> None:
    with pytest.raises(InvariantError, match=r"catalogue\.toml"):
        parse_catalogue(text)


def test_no_fact_is_hidden_behind_a_repeated_key() -> None:
    assert set(tomllib.loads(TEXT)["providers"]) == {entry.name for entry in NAMED}


def test_the_page_for_users_names_each_provider_and_key_variable() -> None:
    page = DOCS.read_text("utf-8")
    for entry in CATALOGUE:
        assert f"`{entry.name}`" in page
        for variable in entry.env:
            assert re.search(rf"\b{variable}\b", page), variable
        if entry.base_url:
            assert entry.base_url in page


def test_the_page_for_users_names_the_tiers_models() -> None:
    page = DOCS.read_text("utf-8")
    for entry in NAMED:
        for choice in entry.tiers.get("chat", {}).values():
            assert choice.model in page, choice.model


def test_each_lane_that_the_page_shows_is_one_that_a_job_may_hold() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    parsed = [yaml.safe_load(block) for block in blocks]
    lanes = [lane for block in parsed for lane in (block["providers"] if isinstance(block, dict) else block)]
    assert len(lanes) >= 10
    for lane in lanes:
        spec = LaneSpec.model_validate(lane)
        asked = Asked("embedding" if "embed" in spec.model else "chat", Params(max_tokens=5))
        entry = CATALOGUE.get(spec.provider)
        translation = translate(
            asked, entry=entry, model=spec.model, omit=spec.omit, extra_body=spec.extra_body
        )
        assert translation.unsupported == ()
