"""Where a lane sends and with which key; a wrong one is told before anything is sent."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import Fault, JobError
from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked
from batchllm.spec.loading import load_mapping
from batchllm.spec.models import Params
from batchllm.wiring.entries import pinned
from batchllm.wiring.lanes import LanePlan, LanePlanner

CATALOGUE = load_catalogue()
CHAT = {"type": "chat", "prompt": "hi"}


def plan(
    lane: dict[str, Any], environ: dict[str, str] | None = None, asked: Asked | None = None, **more: Any
) -> tuple[LanePlan | None, LanePlanner]:
    mapping = {"name": "x", "input": {"path": "rows.jsonl"}, "task": CHAT, "providers": [lane], **more}
    loaded = load_mapping(mapping, folder=Path("/tmp"), environ=environ or {})
    planner = LanePlanner(loaded, catalogue=CATALOGUE, environ=environ or {}, wall_s=1.7e9)
    return planner.plan(0, asked or Asked("chat")), planner


def only_fault(
    lane: dict[str, Any], environ: dict[str, str] | None = None, asked: Asked | None = None
) -> Fault:
    planned, planner = plan(lane, environ, asked)
    assert planned is None
    (fault,) = planner.faults
    return fault


def planned(lane: dict[str, Any], environ: dict[str, str] | None = None, **more: Any) -> LanePlan:
    found, planner = plan(lane, environ, **more)
    assert found is not None, planner.faults
    return found


AZURE = {"provider": "azure", "model": "gpt-4.1-nano"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://res.openai.azure.com",
        "https://res.openai.azure.com/",
        "https://res.openai.azure.com/openai/v1/",
    ],
)
def test_azures_resource_is_read_from_the_environment(endpoint: str) -> None:
    lane = planned(AZURE, {"AZURE_OPENAI_ENDPOINT": endpoint, "AZURE_OPENAI_API_KEY": "az-key"})
    assert lane.base_url == "https://res.openai.azure.com/openai/v1"
    assert lane.headers == {"Authorization": "Bearer az-key"}


def test_azures_key_goes_to_azure_and_nowhere_else() -> None:
    environ = {"AZURE_OPENAI_API_KEY": "az-key"}
    own = planned({**AZURE, "base_url": "https://res.openai.azure.com/openai/v1"}, environ)
    assert own.headers == {"Authorization": "Bearer az-key"}
    found, planner = plan({**AZURE, "base_url": "https://gateway.example.com/openai/v1"}, environ)
    assert found is not None
    assert found.headers == {}
    assert "not sent to gateway.example.com" in planner.notes[0]


def test_azure_without_a_resource_says_which_variable_would_tell_it() -> None:
    fault = only_fault(AZURE, {"AZURE_OPENAI_API_KEY": "az-key"})
    assert fault.path == "providers.0.base_url"
    assert "AZURE_OPENAI_ENDPOINT" in fault.remedy


@pytest.mark.parametrize("endpoint", ["res.openai.azure.com", "http://res.openai.azure.com"])
def test_an_address_of_the_environment_is_checked_like_one_of_the_job(endpoint: str) -> None:
    fault = only_fault(AZURE, {"AZURE_OPENAI_ENDPOINT": endpoint, "AZURE_OPENAI_API_KEY": "k"})
    assert "AZURE_OPENAI_ENDPOINT" in fault.message
    assert "https" in fault.remedy


def test_a_servers_of_ones_own_needs_neither_address_nor_key() -> None:
    for provider, port in (("vllm", 8000), ("ollama", 11434), ("lmstudio", 1234)):
        lane = planned({"provider": provider, "model": "m"})
        assert lane.base_url == f"http://localhost:{port}/v1"
        assert lane.headers == {}
    assert planned({"provider": "ollama", "model": "m"}).window == 4


def test_another_host_of_the_same_service_gets_the_key() -> None:
    lane = {"provider": "mistral", "model": "fast", "base_url": "https://api.eu.mistral.ai/v1"}
    assert planned(lane, {"MISTRAL_API_KEY": "key"}).headers == {"Authorization": "Bearer key"}


@pytest.mark.parametrize(
    ("provider", "variable", "key", "owner"),
    [
        ("groq", "GROQ_API_KEY", "sk-ant-api03-secretsecret", "Anthropic"),
        ("openai", "OPENAI_API_KEY", "gsk_secretsecret", "Groq"),
        ("mistral", "MISTRAL_API_KEY", "sk-or-v1-secretsecret", "OpenRouter"),
    ],
)
def test_a_key_for_another_provider_is_told_and_not_sent(
    provider: str, variable: str, key: str, owner: str
) -> None:
    for lane, environ in (
        ({"provider": provider, "model": "fast"}, {variable: key}),
        ({"provider": provider, "model": "fast", "api_key": "${MY_KEY}"}, {"MY_KEY": key}),
    ):
        fault = only_fault(lane, environ)
        assert fault.path == "providers.0.api_key"
        assert owner in fault.message
        assert key not in f"{fault.message}{fault.remedy}"


def test_a_gateway_may_take_any_key() -> None:
    lane = {
        "provider": "custom",
        "model": "m",
        "base_url": "https://gw.example/v1",
        "api_key": "gsk_0123456789",
    }
    assert planned(lane).headers == {"Authorization": "Bearer gsk_0123456789"}


def test_a_model_that_is_gone_is_told_before_anything_is_sent() -> None:
    fault = only_fault({"provider": "deepseek", "model": "deepseek-chat"}, {"DEEPSEEK_API_KEY": "k"})
    assert fault.path == "providers.0.model"
    assert "deepseek-flash" in fault.remedy
    elsewhere = {"provider": "deepseek", "model": "deepseek-chat", "base_url": "https://gw.example/v1"}
    assert planned(elsewhere).info.model == "deepseek-chat"


@pytest.mark.parametrize(
    ("model", "asked", "words"),
    [
        ("text-embedding-3-small", Asked("chat"), "gpt-4.1-nano"),
        ("gpt-4.1-nano", Asked("embedding", dimensions=3), "text-embedding-3-small"),
        ("omni-moderation-latest", Asked("chat"), "gpt-4.1-nano"),
    ],
)
def test_a_model_of_another_kind_of_task_is_told_with_those_that_fit(
    model: str, asked: Asked, words: str
) -> None:
    fault = only_fault({"provider": "openai", "model": model, "api_key": "k"}, asked=asked)
    assert fault.path == "providers.0.model"
    assert words in fault.remedy


def test_a_model_that_nobody_knows_is_asked_for_as_it_is() -> None:
    assert planned({"provider": "openai", "model": "gpt-99", "api_key": "k"}).info.model == "gpt-99"


def test_a_refused_parameter_names_who_takes_it() -> None:
    lane = {"provider": "groq", "model": "fast", "api_key": "k"}
    fault = only_fault(lane, asked=Asked("chat", Params(presence_penalty=0.5)))
    assert fault.path == "task.params.presence_penalty"
    assert "mistral" in fault.remedy
    assert "omit" in fault.remedy


def test_a_kind_of_task_that_is_not_offered_names_who_offers_it() -> None:
    fault = only_fault({"provider": "groq", "model": "m", "api_key": "k"}, asked=Asked("moderation"))
    assert "openai, mistral" in fault.remedy


def test_what_is_not_taken_is_left_out_when_the_job_says_so() -> None:
    lane = {"provider": "groq", "model": "fast", "api_key": "k"}
    asked = Asked("chat", Params(presence_penalty=0.5, temperature=0))
    found, planner = plan(lane, asked=asked, params_unsupported="drop")
    assert found is not None
    assert found.translation.fields == {"temperature": 0}
    assert planner.notes == ["lane groq: presence_penalty is not sent: this provider does not know it"]


def test_a_lane_may_say_what_its_server_does_otherwise() -> None:
    lane = {
        "provider": "custom",
        "model": "m",
        "base_url": "https://gw.example/v1",
        "catalogue": {"dialect": "mistral", "endpoints": {"chat": "/mistral/chat"}},
    }
    found = planned(lane, asked=Asked("chat", Params(seed=7)))
    assert found.translation.fields == {"random_seed": 7}
    assert found.path == "/mistral/chat"


def test_a_fault_of_a_lane_s_catalogue_has_its_place() -> None:
    lane = {"provider": "groq", "model": "fast", "api_key": "k", "catalogue": {"dialect": "grok"}}
    assert only_fault(lane).path == "providers.0.catalogue.dialect"


def test_a_simulated_profile_speaks_the_dialect_of_its_provider() -> None:
    lane = {"provider": "simulator", "model": "fast", "simulate": {"profile": "mistral"}}
    found = planned(lane, asked=Asked("chat", Params(seed=7)))
    assert found.translation.fields == {"random_seed": 7}
    assert (found.info.model, found.info.is_simulated, found.base_url) == ("ministral-8b-latest", True, "")
    assert found.headers == {}


def test_what_a_users_file_decides_is_written_into_the_job(tmp_path: Path) -> None:
    from batchllm.provider.overlay import open_catalogue

    path = tmp_path / "providers.toml"
    path.write_text(
        '[providers.gw]\nextends = "custom"\nbase_url = "https://gw.example/v1"\nenv = []\n', "utf-8"
    )
    catalogue = open_catalogue({"BATCHLLM_PROVIDERS": str(path)})
    lanes = [
        {"provider": "gw", "model": "m"},
        {"provider": "custom", "model": "m", "base_url": "https://x.example"},
    ]
    mapping = {"name": "x", "input": {"path": "rows.jsonl"}, "task": CHAT, "providers": lanes}
    loaded = load_mapping(mapping, folder=tmp_path, environ={})
    planner = LanePlanner(loaded, catalogue=catalogue, environ={}, wall_s=0.0)
    plans = [plan for index in range(2) if (plan := planner.plan(index, Asked("chat"))) is not None]
    job = pinned(loaded, plans).job
    assert job.providers[0].catalogue["base_url"] == "https://gw.example/v1"
    assert job.providers[1] == loaded.job.providers[1]


@pytest.mark.parametrize("url", ["gw.example/v1", "http://gw.example/v1"])
def test_a_base_url_without_scheme_or_in_the_clear_is_refused(url: str) -> None:
    with pytest.raises(JobError) as caught:
        plan({"provider": "custom", "model": "m", "base_url": url})
    assert caught.value.faults[0].path == "providers.0.base_url"


def test_http_to_another_machine_is_for_those_who_ask_for_it() -> None:
    lane = {"provider": "vllm", "model": "m", "base_url": "http://gpu-box:8000/v1", "allow_http": True}
    assert planned(lane).base_url == "http://gpu-box:8000/v1"
    with pytest.raises(JobError) as caught:
        plan({**lane, "base_url": "http://169.254.169.254/v1"})
    assert "link-local" in caught.value.faults[0].message
    with pytest.raises(JobError) as caught:
        plan({**lane, "allow_http": False})
    assert "allow_http" in caught.value.faults[0].remedy


@pytest.mark.parametrize(
    ("model", "is_noted"), [("gpt-4.1-nanno", True), ("gpt-4.1-nano", False), ("my-own-deployment", False)]
)
def test_a_model_that_is_nearly_anothers_name_is_noted(model: str, is_noted: bool) -> None:
    _, planner = plan({"provider": "openai", "model": model, "api_key": "k"})
    assert any("is gpt-4.1-nano meant?" in note for note in planner.notes) is is_noted
