"""What `connect` takes, refuses, and makes of it: the words and rules of a job's lane."""

import pytest

import batchllm
from batchllm.client.settings import plan_call, read_settings
from batchllm.errors import CredentialsError, SettingsError
from batchllm.provider.catalogue import load_catalogue

CATALOGUE = load_catalogue()
KEY = "sk-canary-0123456789abcdef"
ENVIRON = {"GROQ_API_KEY": KEY, "OPENAI_API_KEY": KEY, "MISTRAL_API_KEY": KEY}


def settings(provider, environ=ENVIRON, **config):
    return read_settings(provider, config, catalogue=CATALOGUE, environ=environ)


def planned(provider, kind="chat", environ=ENVIRON, model=None, params=None, **config):
    return plan_call(settings(provider, environ, **config), kind, wall_s=1.8e9, model=model, params=params)


def test_the_key_of_the_provider_s_variable_goes_to_its_own_address() -> None:
    plan = planned("groq").plan
    assert plan.base_url == "https://api.groq.com/openai/v1"
    assert plan.headers == {"Authorization": f"Bearer {KEY}"}
    assert plan.path == "/chat/completions"


def test_the_variable_s_key_goes_to_no_other_host() -> None:
    found = planned("openai", base_url="https://elsewhere.example/v1", model="m")
    assert found.plan.headers == {}
    assert any("OPENAI_API_KEY is not sent to elsewhere.example" in note for note in found.notes)


def test_a_key_that_is_given_goes_where_it_is_told() -> None:
    found = planned("openai", base_url="https://elsewhere.example/v1", api_key="${GROQ_API_KEY}", model="m")
    assert found.plan.headers == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "form",
    [
        {"provider": "groq", "api_key": "${GROQ_API_KEY}", "default_model": "fast"},
        {
            "type": "openai_compatible",
            "config": {"provider": "groq", "api_key": "${GROQ_API_KEY}", "default_model": "fast"},
        },
        {"config": {"provider": "groq", "model": "fast"}},
    ],
)
def test_a_mapping_in_the_older_or_the_flat_form_is_taken(form) -> None:
    plan = planned(form).plan
    assert (plan.entry.name, plan.info.model) == ("groq", "openai/gpt-oss-20b")
    assert plan.headers == {"Authorization": f"Bearer {KEY}"}


def test_another_type_is_refused() -> None:
    with pytest.raises(SettingsError, match="openai_compatible"):
        settings({"type": "azure_ml", "config": {"provider": "openai"}})


@pytest.mark.parametrize(
    ("provider", "config", "said"),
    [
        ("grok", {}, "did you mean groq"),
        ("", {}, "name one: openai"),
        ("openai", {"api_ky": "x"}, "did you mean api_key"),
        ("openai", {"retries": -1}, "retries must be"),
        ("openai", {"retries": True}, "retries must be"),
        ("openai", {"max_wait_s": "soon"}, "max_wait_s must be"),
        ("openai", {"default_model": 5}, "default_model is no text"),
    ],
)
def test_wrong_settings_name_the_remedy(provider, config, said) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(provider, **config)
    assert said in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("provider", "config", "said"),
    [
        ("custom", {}, "base_url"),
        ("openai", {"base_url": "http://elsewhere.example/v1"}, "in the clear"),
        ("openai", {"headers": {"a b": "c"}}, "header"),
        ("openai", {"timeout_s": -1}, "timeout_s"),
        ("anyscale", {"api_key": "k"}, "closed on 2024-08-01"),
    ],
)
def test_what_a_job_refuses_is_refused_here_too(provider, config, said) -> None:
    with pytest.raises(SettingsError, match=said):
        planned(provider, model="m", **config)


def test_a_missing_key_is_named_without_words_of_jobs() -> None:
    with pytest.raises(CredentialsError) as caught:
        planned("groq", environ={})
    assert "export GROQ_API_KEY=" in str(caught.value)
    assert "lane" not in str(caught.value)
    assert caught.value.exit_code == 77


@pytest.mark.parametrize(
    ("kind", "config", "model", "expected"),
    [
        ("chat", {}, None, "gpt-4.1-nano"),
        ("chat", {}, "powerful", "gpt-5.6-sol"),
        ("chat", {"default_model": "balanced"}, None, "gpt-4.1-mini"),
        ("chat", {"default_model": "balanced"}, "o3", "o3"),
        ("completion", {}, None, "gpt-3.5-turbo-instruct"),
        ("embedding", {}, None, "text-embedding-3-small"),
        ("embedding", {"default_model": "text-embedding-3-large"}, None, "text-embedding-3-large"),
        ("moderation", {}, None, "omni-moderation-latest"),
    ],
)
def test_the_model_is_the_call_s_or_the_connection_s_or_the_catalogue_s(
    kind, config, model, expected
) -> None:
    assert planned("openai", kind, model=model, **config).plan.info.model == expected


def test_a_server_of_one_s_own_has_no_model_of_choice() -> None:
    with pytest.raises(SettingsError, match="model="):
        planned("custom", base_url="http://localhost:8000/v1")


def test_parameters_are_translated_for_the_provider() -> None:
    fields = planned("mistral", params={"seed": 7, "max_tokens": 9, "user": "u"}).plan.translation.fields
    assert fields == {"random_seed": 7, "max_tokens": 9}
    fields = planned("openai", params={"max_tokens": 9}).plan.translation.fields
    assert fields == {"max_completion_tokens": 9}


def test_what_the_translation_leaves_out_is_noted() -> None:
    assert planned("mistral", params={"user": "u"}).notes == ("user is not sent: Mistral answers 422 to it",)


def test_a_parameter_that_the_provider_refuses_is_refused_before_it_is_sent() -> None:
    with pytest.raises(SettingsError, match="logit_bias: Groq answers 400 to it"):
        planned("groq", params={"logit_bias": {"1": 5}})


def test_fields_that_no_dialect_knows_go_as_they_are() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    fields = planned("groq", params={"tools": tools, "extra_body": {"top_k": 3}}).plan.translation.fields
    assert fields == {"tools": tools, "top_k": 3}


def test_tools_are_held_against_what_the_provider_takes() -> None:
    many = [{"type": "function", "function": {"name": f"f{at}"}} for at in range(129)]
    with pytest.raises(SettingsError, match="tools: at most 128 here"):
        planned("groq", params={"tools": many})


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean temperature"):
        planned("groq", params={"temprature": 0})


def test_a_value_out_of_range_is_refused_with_the_range() -> None:
    with pytest.raises(SettingsError, match="temperature: expected a number from 0 to 2, found 9"):
        planned("groq", params={"temperature": 9})


def test_no_representation_shows_a_key() -> None:
    found = settings("groq", api_key=KEY)
    with batchllm.connect("groq", api_key=KEY) as client:
        for thing in (found, client, client._client, planned("groq"), planned("groq").plan):
            assert KEY not in repr(thing)
        assert repr(client) == "Client('groq', default_model='openai/gpt-oss-20b')"


@pytest.mark.parametrize("name", ["stream", "stall_timeout_s", "limits"])
def test_what_only_a_lane_says_is_no_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="is no setting"):
        batchllm.connect("simulator", **{name: 1})
