from pathlib import Path

import pytest

from batchllm.errors import InputMissingError, JobError
from batchllm.spec.env import ExpansionError
from batchllm.spec.loading import load_any
from batchllm.spec.output import output_of

JOB = """\
name: tiny
input: {path: rows.jsonl}
task: {type: chat, prompt: "{{ text }}"}
providers: [{provider: groq, model: fast, api_key: "${GROQ_API_KEY}"}]
"""
ENVIRON = {"GROQ_API_KEY": "k", "HOME": "/home/me", "WHERE": "/disk"}


def job(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    "output",
    [
        "",
        "output: {}\n",
        "output: {path: made}\n",
        "output: {path: ../made/x/../y}\n",
        "output: {path: /abs/olute}\n",
        'output: {path: "${WHERE}/made"}\n',
        "output: {path: ~/made}\n",
        "output: {carry: all}\n",
    ],
)
def test_it_is_where_a_run_would_write(tmp_path: Path, output: str) -> None:
    path = job(tmp_path, JOB + output)
    assert str(output_of(path, ENVIRON)) == load_any(path, environ=ENVIRON).job.output.path


def test_no_key_is_needed(tmp_path: Path) -> None:
    assert output_of(job(tmp_path, JOB), {}) == tmp_path / "out" / "tiny"


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExpansionError, match="WHERE"):
        output_of(job(tmp_path, JOB + 'output: {path: "${WHERE}/made"}\n'), {})


@pytest.mark.parametrize(
    "text", ["- 1\n", "a: [\n", "name: {}\n", JOB.replace("tiny", "[x]"), JOB + "output: 3\n"]
)
def test_what_is_no_job_is_told_as_by_a_run(tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match=r"job\.yaml"):
        output_of(job(tmp_path, text), ENVIRON)


def test_a_job_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no job file"):
        output_of(tmp_path / "none.yaml", ENVIRON)
