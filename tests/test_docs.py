"""What the documents say is true of the program."""

import json
import re
from pathlib import Path

import click
import pytest

from batchllm.cli.main import cli
from batchllm.errors import ExitCode
from batchllm.provider.catalogue import load_catalogue
from batchllm.spec.consensus import Consensus, Judge, Similarity
from batchllm.spec.lanes import LaneSpec
from batchllm.spec.loading import load_any, load_job
from batchllm.spec.models import Job, Retry
from batchllm.spec.schema import job_schema

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


def options() -> list[str]:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return [
        f"{name} {max(parameter.opts, key=len)}"
        for name, command in commands.items()
        for parameter in (command.params if command is not None else ())
        if isinstance(parameter, click.Option)
    ]


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_every_shipped_job_loads(job: Path) -> None:
    environ = {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}
    assert load_job(job, environ=environ).job.name


def test_the_shipped_schema_is_the_one_that_the_command_prints() -> None:
    assert json.loads((ROOT / "jobs" / "job.schema.json").read_text("utf-8")) == job_schema()


def test_the_readme_s_job_is_valid(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert text is not None
    path = tmp_path / "job.yaml"
    path.write_text(text[1], "utf-8")
    loaded = load_job(path, environ={"OPENAI_API_KEY": "k"})
    assert loaded.job.routing == "spread"


@pytest.mark.parametrize("option", options())
def test_every_option_is_in_the_documents(option: str) -> None:
    pages = ("simulator.md", "python.md", "check.md", "consensus.md")
    text = README + "".join((ROOT / "docs" / page).read_text("utf-8") for page in pages)
    assert option.split()[1] in text


@pytest.mark.parametrize("key", [*Job.model_fields, *LaneSpec.model_fields, *Retry.model_fields])
def test_every_key_of_a_job_is_in_the_readme(key: str) -> None:
    assert key in README


@pytest.mark.parametrize("key", [*Consensus.model_fields, *Judge.model_fields, *Similarity.model_fields])
def test_every_key_of_a_consensus_is_in_its_document(key: str) -> None:
    assert f"`{key}" in (ROOT / "docs" / "consensus.md").read_text("utf-8")


def test_the_jobs_in_the_document_of_consensus_are_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "consensus.md").read_text("utf-8")
    jobs = re.findall(r"```yaml\n(name:.*?)```", text, re.DOTALL)
    assert len(jobs) >= 3
    for at, job in enumerate(jobs):
        path = tmp_path / f"{at}.yaml"
        path.write_text(job, "utf-8")
        assert load_any(path, environ={"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}).job.consensus


def test_every_exit_code_is_in_the_readme() -> None:
    table = README[README.index("## Exit codes") :]
    for code in ExitCode:
        assert re.search(rf"\b{int(code)}\b", table), code


def test_every_provider_is_in_the_readme() -> None:
    for entry in load_catalogue():
        assert f"`{entry.name}`" in README or entry.name == "simulator"


def test_every_link_leads_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_two_commands_of_the_readme_are_whole() -> None:
    commands = re.findall(r"```sh\n(python3 -m venv.*?)\n```", README)
    assert len(commands) == 2
    assert commands[0].endswith("batchllm run jobs/classify.yaml")
    assert "[dev]" in commands[1]
    assert "pytest" in commands[1]
