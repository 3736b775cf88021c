"""What the documents show can be used as it stands."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_rig import job, lane, run, served, write_rows

from batchllm.clock import SystemClock
from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.overlay import open_catalogue
from batchllm.spec.loading import load_mapping
from batchllm.wiring import check

DOCS = Path(__file__).parents[1] / "docs"
KEYS = ("OPENAI", "GROQ", "TOGETHER", "AZURE_OPENAI", "GEMINI", "ANTHROPIC", "PERPLEXITY")
ENVIRON = {**{f"{name}_API_KEY": "k" for name in KEYS}, "GATEWAY_KEY": "k"}


def snippets(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    ("page", "at"),
    [(page, at) for page in ("answers.md", "providers.md") for at in range(len(snippets(page, "yaml")))],
)
def test_a_part_of_a_job_is_one(page: str, at: int, tmp_path: Path) -> None:
    """Lanes, or keys of a job; a lane of vectors is tried in a job of vectors."""
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"text": "a", "question": "b", "id": 1, "thumbnail": "", "link": "x"}) + "\n"
    )
    shown = yaml.safe_load(snippets(page, "yaml")[at])
    shown = {"providers": [shown] if isinstance(shown, dict) else shown} if _is_lanes(shown) else shown
    lanes = list(shown.pop("providers", [lane("http://localhost:1/v1", "one")]))
    for one in lanes:
        embeds = "embed" in one["model"]
        task = (
            {"type": "embedding", "text": "{{ text }}"}
            if embeds
            else {"type": "chat", "prompt": "{{ text }}"}
        )
        loaded = load_mapping(
            {**job(tmp_path, [one]), "task": task, **shown}, folder=tmp_path, environ=ENVIRON
        )
        check(loaded, catalogue=load_catalogue(), environ=ENVIRON, clock=SystemClock())


def _is_lanes(shown: Any) -> bool:
    return isinstance(shown, list) or "provider" in shown


def test_entries_of_one_s_own_are_taken(tmp_path: Path) -> None:
    (text,) = snippets("providers.md", "toml")
    (tmp_path / "providers.toml").write_text(text)
    catalogue = open_catalogue({"BATCHLLM_PROVIDERS": str(tmp_path / "providers.toml")})
    assert catalogue.get("gateway").env == ("GATEWAY_KEY",)
    assert catalogue.get("groq").concurrency == 64


def test_the_calls_from_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served({}) as (urls, _):
        file = tmp_path / "providers.toml"
        file.write_text(f'[providers.groq]\nbase_url = "{urls[0]}"\nenv = ["GROQ_API_KEY"]\n')
        monkeypatch.setenv("BATCHLLM_PROVIDERS", str(file))
        monkeypatch.setenv("GROQ_API_KEY", "k")
        for code in snippets("python.md", "python"):
            if "consensus" not in code:
                executed(code)
    assert "echo" in capsys.readouterr().out


def executed(code: str) -> dict[str, Any]:
    """What it leaves behind."""
    names: dict[str, Any] = {"batchllm": __import__("batchllm")}
    exec(compile(code, "python.md", "exec"), names)  # noqa: S102 - our own
    return names


def test_a_job_from_python_runs_and_its_consensus_is_read_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHLLM_STATE_DIR", str(tmp_path / "state"))
    (code,) = (code for code in snippets("python.md", "python") if "consensus" in code)
    names = executed(code)
    assert names["result"].ok
    assert names["labels"].get_column("row").to_list() == [0, 1]
    assert set(names["labels"].get_column("status")) <= {"decided", "tied"}
    assert names["alpha"]["n"] == 2
    assert set(names["accuracy"]) == {"swift", "nano", "mini"}
    votes = names["result"].consensus.explode("votes").unnest("votes").collect()
    assert votes.get_column("voter").to_list() == ["swift", "nano", "mini"] * 2


def test_an_output_is_read_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = {
        "type": "chat",
        "prompt": "{{ text }}",
        "tools": [{"function": {"name": "f"}}],
        "params": {"logprobs": True},
    }
    write_rows(tmp_path / "rows.jsonl", 4)
    with served({}) as (urls, _):
        out = {"path": str(tmp_path / "out" / "agent")}
        run(tmp_path, job(tmp_path, [lane(urls[0], "one")], task=task, output=out))
    monkeypatch.chdir(tmp_path)
    (code,) = snippets("answers.md", "python")
    exec(code, {})  # noqa: S102 - our own
