"""A user's own list of providers, and a lane's `catalogue`, laid over the shipped catalogue."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import ExitCode, Fault, JobError
from batchllm.provider.catalogue import Catalogue, load_catalogue
from batchllm.provider.overlay import LANE_KEYS, for_lane, open_catalogue, semantic_overlay, user_file

SHIPPED = load_catalogue()
GATEWAY = """
[providers.gateway]
extends = "custom"
base_url = "https://llm.example.com/v1/"
env = ["GATEWAY_KEY"]
aliases = ["gw"]
"""


def opened(folder: Path, text: str) -> Catalogue:
    path = folder / "providers.toml"
    path.write_text(text, "utf-8")
    return open_catalogue({"BATCHLLM_PROVIDERS": str(path)})


def faults(folder: Path, text: str) -> list[Fault]:
    with pytest.raises(JobError) as caught:
        opened(folder, text)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert caught.value.file == str(folder / "providers.toml")
    return caught.value.faults


def test_without_a_file_the_shipped_catalogue_holds(tmp_path: Path) -> None:
    assert open_catalogue({}) == SHIPPED
    assert open_catalogue({"HOME": str(tmp_path)}) == SHIPPED


def test_the_file_is_found_where_the_system_keeps_configuration(tmp_path: Path) -> None:
    for folder, environ in (
        (tmp_path / "home" / ".config", {"HOME": str(tmp_path / "home")}),
        (tmp_path / "xdg", {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}),
    ):
        assert user_file(environ) is None
        file = folder / "batchllm" / "providers.toml"
        file.parent.mkdir(parents=True)
        file.write_text(GATEWAY, "utf-8")
        assert user_file(environ) == file
        assert open_catalogue(environ).get("gw").name == "gateway"
    relative = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": "xdg"}
    assert user_file(relative) == tmp_path / "home" / ".config" / "batchllm" / "providers.toml"


def test_the_variable_wins_and_must_name_a_file(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        open_catalogue({"HOME": str(tmp_path), "BATCHLLM_PROVIDERS": str(tmp_path / "none.toml")})
    assert "cannot be read" in caught.value.faults[0].message
    assert "BATCHLLM_PROVIDERS" in caught.value.faults[0].remedy


def test_a_new_provider_is_like_the_one_that_it_extends(tmp_path: Path) -> None:
    catalogue = opened(tmp_path, GATEWAY)
    entry = catalogue.get("gateway")
    assert entry.base_url == "https://llm.example.com/v1"
    assert (entry.env, entry.dialect, entry.title) == (("GATEWAY_KEY",), "custom", "gateway")
    assert entry.overlaid_by == str(tmp_path / "providers.toml")
    assert entry.notes == ()
    assert catalogue.names[-2:] == ("gateway", "simulator")


def test_ones_own_network_may_do_without_https(tmp_path: Path) -> None:
    text = '[providers.lan]\nextends = "vllm"\nbase_url = "http://gpu-box:8000/v1"\nallow_http = true\n'
    assert opened(tmp_path, text).get("lan").base_url == "http://gpu-box:8000/v1"


def test_a_new_provider_takes_over_the_dialect_and_not_the_service(tmp_path: Path) -> None:
    text = """
    [providers.proxy]
    extends = "mistral"
    base_url = "https://proxy.example.com/mistral/v1"
    env = []
    """
    entry = opened(tmp_path, text).get("proxy")
    mistral = SHIPPED.get("mistral")
    assert (entry.dialect, entry.embeddings) == ("mistral", mistral.embeddings)
    assert (entry.aliases, entry.hosts, entry.price_provider, entry.tiers) == ((), (), None, {})


def test_a_shipped_entry_is_changed_key_by_key(tmp_path: Path) -> None:
    text = """
    [providers.groq]
    concurrency = 64
    [providers.groq.tiers.chat]
    powerful = { model = "qwen/qwen3.6-27b" }
    [providers.groq.schema]
    default = "json_schema"
    """
    entry = opened(tmp_path, text).get("groq")
    before = SHIPPED.get("groq")
    assert entry.concurrency == 64
    assert entry.resolve_model("powerful") == "qwen/qwen3.6-27b"
    assert entry.resolve_model("fast") == before.resolve_model("fast")
    assert entry.schema.json_schema == before.schema.json_schema
    assert (entry.base_url, entry.env, entry.grades) == (before.base_url, before.env, before.grades)
    assert entry.overlaid == ("concurrency", "schema", "tiers")


def test_embedding_models_are_added_and_changed_by_name(tmp_path: Path) -> None:
    text = """
    [[providers.openai.embeddings]]
    name = "text-embedding-3-small"
    max_inputs = 100
    [[providers.openai.embeddings]]
    name = "text-embedding-9"
    dimensions = 99
    max_inputs = 5
    sends_dimensions = false
    """
    entry = opened(tmp_path, text).get("openai")
    small, new = entry.embedding_model("text-embedding-3-small"), entry.embedding_model("text-embedding-9")
    assert small is not None
    assert (small.max_inputs, small.dimensions) == (100, 1536)
    assert new is not None
    assert new.dimensions == 99
    assert len(entry.embeddings) == 4


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("providers = 3", "providers", "tables"),
        ("[provider.x]\n", "provider", "unknown key"),
        ("[providers]\nx = 3", "providers.x", "expected a table"),
        ("[providers.gorq]\nconcurrency = 3", "providers.gorq", "did you mean groq"),
        ("[providers.mine]\nconcurrency = 3", "providers.mine", 'extends = "custom"'),
        ('[providers.mine]\nextends = "opnai"', "providers.mine.extends", "did you mean openai"),
        ('[providers.groq]\nextends = "custom"', "providers.groq.extends", "known already"),
        ("[providers.mistralai]\nconcurrency = 3", "providers.mistralai", "[providers.mistral]"),
        ("[providers.simulator]\nconcurrency = 3", "providers.simulator", "simulate"),
        ("[providers.groq]\nconcurency = 3", "providers.groq.concurency", "did you mean concurrency"),
        ("[providers.groq]\nconcurrency = 0", "providers.groq", "at least 1"),
        ("[providers.groq]\nconcurrency = '3'", "providers.groq.concurrency", "integer"),
        ("[providers.groq]\ndialect = 'grok'", "providers.groq.dialect", "groq"),
        ("[providers.groq.schema]\ndefalt = 'prompt'", "providers.groq.schema.defalt", "unknown key"),
        ("[providers.groq]\naliases = ['openai']", "providers.groq.aliases", "belongs to openai"),
        ("[providers.groq]\nbase_url = 'https://x.example/v1'", "providers.groq.env", "GROQ_API_KEY"),
        ('[providers.x]\nextends = "custom"', "providers.x", "no base_url"),
        ('[providers.x]\nextends = "custom"\nbase_url = "x.example/v1"', "providers.x", "no scheme"),
        (
            '[providers.x]\nextends = "custom"\nbase_url = "http://x.example/v1"',
            "providers.x",
            "in the clear",
        ),
        (
            '[providers.x]\nextends = "custom"\nbase_url = "http://169.254.169.254/"',
            "providers.x",
            "link-local",
        ),
    ],
)
def test_a_fault_names_its_key_and_what_to_do(tmp_path: Path, text: str, path: str, words: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert fault.path == path
    assert words in f"{fault.message} {fault.remedy}"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = "[providers.groq]\nconcurrency = 0\n[providers.gorq]\n[providers.xai]\nfoo = 1\n"
    assert {fault.path for fault in faults(tmp_path, text)} == {
        "providers.groq",
        "providers.gorq",
        "providers.xai.foo",
    }


def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "[providers.groq]\nconcurrency = = 3\n")
    assert (fault.line, "no TOML" in fault.message) == (2, True)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(JobError, match="no UTF-8"):
        open_catalogue({"BATCHLLM_PROVIDERS": str(tmp_path / "providers.toml")})


def test_what_a_file_decides_is_part_of_the_fingerprint_and_what_it_only_describes_is_not(
    tmp_path: Path,
) -> None:
    text = """
    [providers.openai]
    concurrency = 3
    notes = ["mine"]
    [providers.openai.schema]
    default = "json_object"
    [providers.openai.tiers.chat]
    fast = { model = "gpt-4o" }
    """
    entry = opened(tmp_path, text).get("openai")
    assert set(semantic_overlay(entry, "chat", "gpt-4o", names_tier=False)) == {"schema"}
    assert set(semantic_overlay(entry, "chat", "gpt-4o", names_tier=True)) == {"schema", "tiers"}
    assert semantic_overlay(entry, "embedding", "text-embedding-3-small", names_tier=False) == {}
    new = opened(tmp_path, GATEWAY).get("gateway")
    told = semantic_overlay(new, "moderation", "m", names_tier=False)
    assert told["base_url"] == "https://llm.example.com/v1"
    assert set(told) == {"base_url", "dialect", "endpoints"}


def test_of_embedding_models_only_the_one_in_use_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    text = '[[providers.openai.embeddings]]\nname = "text-embedding-3-small"\nmax_inputs = 100\n'
    entry = opened(tmp_path, text).get("openai")
    told = semantic_overlay(entry, "embedding", "text-embedding-3-small", names_tier=False)
    assert [model["name"] for model in told["embeddings"]] == ["text-embedding-3-small"]
    assert semantic_overlay(entry, "embedding", "another", names_tier=False) == {}


def test_a_lane_says_what_its_server_does_otherwise() -> None:
    own: dict[str, Any] = {
        "dialect": "mistral",
        "endpoints": {"chat": "/v2/chat"},
        "schema": {"default": "prompt"},
    }
    found = for_lane(SHIPPED.get("custom"), own)
    assert found.faults == ()
    assert found.entry.dialect == "mistral"
    assert (found.entry.path("chat"), found.entry.path("embedding")) == ("/v2/chat", "/embeddings")
    assert found.entry.schema_mode("m") == "prompt"
    assert for_lane(SHIPPED.get("custom"), {}).entry is SHIPPED.get("custom")


@pytest.mark.parametrize(
    ("own", "path", "words"),
    [
        ({"base_url": "https://x.example"}, "base_url", "on the lane itself"),
        ({"env": ["X"]}, "env", "api_key"),
        ({"notes": ["x"]}, "notes", "cannot change"),
        ({"dialekt": "groq"}, "dialekt", "did you mean dialect"),
        ({"dialect": "grok"}, "dialect", "groq"),
        ({"endpoints": {"chat": "chat"}}, "", "begins with /"),
        ({"endpoints": {"speech": True}}, "endpoints.speech", "chat"),
    ],
)
def test_a_fault_of_a_lane_s_catalogue_names_its_key(own: dict[str, Any], path: str, words: str) -> None:
    (fault,) = {fault.path: fault for fault in for_lane(SHIPPED.get("custom"), own).faults}.values()
    assert fault.path.startswith(path)
    assert words in f"{fault.message} {fault.remedy}"


def test_each_key_of_a_lane_s_catalogue_is_one_of_an_entry() -> None:
    assert all(hasattr(SHIPPED.get("custom"), key) for key in LANE_KEYS)
