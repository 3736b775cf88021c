"""`batchllm providers` reads well in 80 columns, pipes as whole lines, and never shows a key."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.table import Table

from batchllm.cli.providers import UnknownProviderError, details, overview, providers_command
from batchllm.errors import JobError
from batchllm.provider.catalogue import ProviderEntry, load_catalogue

CATALOGUE = load_catalogue()
SECRET = "sk-never-shown"


def call(*args: str, file: str = "") -> Result:
    environ = {"GROQ_API_KEY": SECRET, "OPENAI_API_KEY": "", "BATCHLLM_PROVIDERS": file, "HOME": "/nowhere"}
    return CliRunner().invoke(providers_command, args, env={**environ, "XDG_CONFIG_HOME": ""})


def rendered(table: Table, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=True, color_system=None).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_pipe_gets_one_whole_line_for_each_provider() -> None:
    result = call()
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[0] for line in lines] == ["name", *CATALOGUE.names]
    for line, entry in zip(lines[1:], CATALOGUE, strict=True):
        cells = line.split()
        assert len(cells) == 8
        assert cells[1] == (entry.base_url or "-")
    assert "\x1b" not in result.stdout


def test_whether_a_key_is_set_is_shown_and_the_key_is_not() -> None:
    for args in ((), ("groq",), ("--json",), ("groq", "--json")):
        assert SECRET not in call(*args).output
    lines = {line.split()[0]: line.split()[3] for line in call().stdout.splitlines()[1:]}
    assert lines["groq"] == "yes"
    assert lines["openai"] == "no"
    assert "key: GROQ_API_KEY (set)" in call("groq").stdout


def test_one_provider_is_described_with_notes_and_sources() -> None:
    text = call("Mistral.AI").stdout
    for part in ("MISTRAL_API_KEY", "random_seed", "codestral-embed", "checked: 2026-11-23", "limits: B"):
        assert part in text


def test_an_endpoint_that_is_gone_says_so() -> None:
    assert "2026-09-27" in call("perplexity").stdout


def test_both_apis_of_a_provider_are_shown() -> None:
    assert "endpoint: chat: /chat/completions, or /responses with api: responses" in call("openai").stdout
    assert "endpoint: chat: /responses (" in call("perplexity").stdout


def test_json_is_a_list_or_one_object() -> None:
    everything = json.loads(call("--json").stdout)
    assert [entry["name"] for entry in everything] == list(CATALOGUE.names)
    one = json.loads(call("groq", "--json").stdout)
    assert one["key_is_set"] is True
    assert one["tiers"]["chat"]["fast"] == {"model": "openai/gpt-oss-20b", "guess": False}
    assert one["checked"] == "2026-11-23"


def test_ones_own_file_is_shown_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text('[providers.mine]\nextends = "custom"\nbase_url = "https://x.example/v1"\n', "utf-8")
    assert f"changed: base_url, extends by {file}" in call("mine", file=str(file)).stdout
    assert "https://x.example/v1" in call(file=str(file)).stdout
    assert json.loads(call("mine", "--json", file=str(file)).stdout)["overlaid_by"] == str(file)
    file.write_text("[providers.mine]\n", "utf-8")
    result = call(file=str(file))
    assert isinstance(result.exception, JobError)
    assert result.exception.exit_code == 78


def test_a_server_of_ones_own_needs_no_key() -> None:
    text = call("ollama").stdout
    assert "key: none needed" in text
    assert "http://localhost:11434/v1" in text


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    result = call("opnai")
    assert isinstance(result.exception, UnknownProviderError)
    assert result.exception.exit_code == 78
    assert "openai" in result.exception.remedy
    assert "custom" in result.exception.remedy


def test_a_name_like_no_other_is_answered_with_all() -> None:
    result = call("zzzz")
    assert isinstance(result.exception, UnknownProviderError)
    assert all(name in result.exception.remedy for name in CATALOGUE.names)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_on_a_terminal_nothing_is_cut_and_nothing_overflows(width: int) -> None:
    lines = rendered(overview(CATALOGUE, {}), width)
    text = "\n".join(lines)
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    unfolded = "".join(text.split())
    for entry in CATALOGUE:
        assert entry.name in text
        assert (entry.base_url or "") in unfolded
        assert all(choice.model in text for choice in entry.tiers.get("chat", {}).values())


@pytest.mark.parametrize("entry", list(CATALOGUE), ids=lambda entry: entry.name)
def test_a_description_fits_80_columns(entry: ProviderEntry) -> None:
    lines = rendered(details(entry, {}), 80)
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)


def test_square_brackets_in_notes_are_not_taken_for_markup() -> None:
    assert "[dimensions]" in " ".join(" ".join(rendered(details(CATALOGUE.get("custom"), {}), 200)).split())
