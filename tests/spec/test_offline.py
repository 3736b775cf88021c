"""Jobs whose votes are there already."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batchllm.errors import JobError
from batchllm.spec.loading import LoadedJob, LoadedVotes, load_any, load_any_mapping, load_mapping
from batchllm.spec.offline import ASKING_KEYS
from batchllm.spec.schema import job_schema

VOTES: dict[str, Any] = {"name": "v", "consensus": {"votes": ["a.parquet", "/b/*.parquet"]}}


def loaded(data: dict[str, Any], folder: Path = Path("/jobs")) -> LoadedJob | LoadedVotes:
    return load_any_mapping(data, folder=folder, environ={"HOME": "/home/me"})


def test_votes_make_another_job_with_paths_beside_its_file() -> None:
    job = loaded({**VOTES, "input": {"key": "id", "path": "~/rows.jsonl"}})
    assert isinstance(job, LoadedVotes)
    assert job.job.consensus.votes == ["/jobs/a.parquet", "/b/*.parquet"]
    assert job.job.input.path == "/home/me/rows.jsonl"
    assert job.job.output.path == "/jobs/out/v"


@pytest.mark.parametrize("key", ["task", "providers", "samples", "budget"])
def test_what_asks_has_no_place_beside_votes(key: str) -> None:
    with pytest.raises(JobError, match=f"{key}: nothing is asked with consensus.votes"):
        loaded({**VOTES, key: 1})


@pytest.mark.parametrize(
    "section",
    [
        {"judge": {"lane": {"provider": "simulator", "model": "m"}}},
        {"ties": {"escalate": {"provider": "simulator", "model": "m"}}},
        {"stop_early": True},
    ],
)
def test_nobody_is_asked(section: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=f"nothing is asked: leave {next(iter(section))}"):
        loaded({"name": "v", "consensus": {**VOTES["consensus"], **section}})


def test_commands_that_ask_say_what_carries_it_out() -> None:
    with pytest.raises(JobError, match="`batchllm run` and `batchllm consensus` carry it out"):
        load_mapping(VOTES, folder=Path("/jobs"), environ={})


def test_a_misspelt_key_is_told_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: v\nconsensus:\n  votes: [a.parquet]\n  rul: majority\n", "utf-8")
    with pytest.raises(JobError, match=r"job.yaml:4:3: consensus.rul: unknown key \(did you mean rule\?\)"):
        load_any(path, environ={})


def test_the_json_schema_takes_both_kinds_of_job() -> None:
    asking = {
        "name": "x",
        "input": {"path": "p"},
        "task": {"type": "completion", "prompt": "p"},
        "providers": [{"provider": "groq", "model": "m"}],
    }
    for job in (VOTES, asking):
        jsonschema.validate(json.loads(json.dumps(job)), job_schema())
    for key in ("input", "task", "providers"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in asking.items() if name != key}, job_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**asking, "input": {}}, job_schema())


def test_all_keys_but_those_of_votes_ask() -> None:
    assert {"task", "providers", "routing", "samples", "budget", "retry"} <= set(ASKING_KEYS)
    assert not {"name", "input", "consensus", "output"} & set(ASKING_KEYS)
