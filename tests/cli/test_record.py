"""The commands that look after a record, on the golden ones: what they say, and their exit codes."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchllm.cli.main import invoke
from batchllm.journal import OutputLock, read_manifest
from batchllm.journal.opening import FORMAT

GOLDEN = Path(__file__).parents[1] / "golden" / str(FORMAT)
ROWS = 24


def taken(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return taken("complete", tmp_path)


@pytest.fixture
def failures(tmp_path: Path) -> Path:
    return taken("failures", tmp_path)


def change(folder: Path, **task: Any) -> None:
    path = folder / "job.yaml"
    spec = json.loads(path.read_text("utf-8"))
    spec["task"].update(task)
    path.write_text(json.dumps(spec), "utf-8")


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def called(command: str, folder: Path, *more: str) -> int:
    return invoke([command, str(folder / "job.yaml"), *more])


def lose_journal(folder: Path) -> None:
    (folder / "out" / ".batchllm" / "journal.db").unlink()


def first_part(folder: Path) -> Path:
    return min((folder / "out" / "output").iterdir())


def test_verify_takes_a_job_or_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("verify", folder) == 0
    of_job = capsys.readouterr().out
    assert invoke(["verify", str(folder / "out")]) == 0
    assert capsys.readouterr().out == of_job
    assert of_job.startswith(f"{folder / 'out'}: whole\n")
    assert "24 answers, 0 failures, each once and in its place" in of_job


def test_verify_speaks_to_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("verify", folder, "--json") == 0
    told = said(capsys)
    assert (told["whole"], told["complete"], told["ok"], told["failed"]) == (True, True, ROWS, 0)
    first_part(folder).unlink()
    assert called("verify", folder, "--json") == 74
    told = said(capsys)
    assert not told["whole"]
    assert [fault["file"] for fault in told["faults"]] == [str(first_part_of(told))]
    assert "--drop-missing" in told["faults"][0]["remedy"]


def first_part_of(told: dict[str, Any]) -> str:
    manifest = read_manifest(Path(told["out"]))
    assert manifest is not None
    return str(Path(told["out"]) / manifest.parts["output"][0].path)


def test_verify_names_each_fault_with_its_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = first_part(folder)
    data = part.read_bytes()
    part.write_bytes(data[:60] + bytes([data[60] ^ 4]) + data[61:])
    lose_journal(folder)
    assert called("verify", folder) == 74
    told = capsys.readouterr().out
    assert "2 faults" in told
    assert f"fault: {part}\n    its bytes are not those that were written (row group 0" in told
    assert "the journal is missing\n    run `batchllm rebuild JOB`" in told


def test_verify_has_codes_for_nothing_and_for_a_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert invoke(["verify", str(tmp_path / "empty")]) == 66
    assert invoke(["verify", str(tmp_path / "no.yaml")]) == 66
    with OutputLock.acquire(folder / "out", about={}):
        assert called("verify", folder) == 75
        assert called("rebuild", folder) == 75
        assert called("reparse", folder) == 75


def test_a_run_that_finds_no_journal_names_rebuild_and_goes_on_after_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_journal(folder)
    assert called("run", folder) == 73
    assert "batchllm rebuild JOB" in capsys.readouterr().err
    assert called("rebuild", folder) == 0
    told = capsys.readouterr().out
    assert "a new journal was made: 24 answers and 0 failures in 3 parts" in told
    assert "cannot be known" in told
    before = pl.read_parquet(folder / "out" / "output" / "*.parquet")
    assert called("run", folder) == 0
    assert pl.read_parquet(folder / "out" / "output" / "*.parquet").equals(before)
    assert called("verify", folder) == 0


def test_a_whole_record_has_nothing_to_rebuild(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("rebuild", folder) == 0
    assert "nothing to rebuild" in capsys.readouterr().out
    assert called("rebuild", folder, "--json") == 0
    assert said(capsys)["did"] == "nothing"


def test_missing_parts_are_given_up_only_when_told_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_part(folder).unlink()
    assert called("run", folder) == 74
    assert "batchllm rebuild JOB --drop-missing" in capsys.readouterr().err
    assert called("rebuild", folder) == 74
    assert "24 rows are then pending again, and asking them again costs about 0.00072 USD" in (
        capsys.readouterr().err
    )
    assert called("rebuild", folder, "--drop-missing", "--json") == 0
    assert said(capsys)["dropped_rows"] == ROWS
    assert called("run", folder) == 0
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert (manifest.ok, manifest.attempts, manifest.complete) == (ROWS, 2 * ROWS, True)


def test_another_job_s_parts_are_not_taken_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose_journal(folder)
    change(folder, prompt="{{ text }}!")
    assert called("rebuild", folder) == 78
    assert "task changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("prompt", "was asked something else"),
        ("rows", "was asked something else"),
        ("fewer", "the input ends before it"),
    ],
)
def test_without_a_manifest_the_prompts_are_compared(
    folder: Path, what: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_journal(folder)
    (folder / "out" / "manifest.json").unlink()
    rows = folder / "rows.jsonl"
    if what == "prompt":
        change(folder, prompt="{{ text }}!")
    elif what == "rows":
        rows.write_text("\n".join(reversed(rows.read_text("utf-8").splitlines())) + "\n", "utf-8")
    else:
        rows.write_text("\n".join(rows.read_text("utf-8").splitlines()[:20]) + "\n", "utf-8")
    assert called("rebuild", folder) == 78
    assert told in capsys.readouterr().err
    assert not (folder / "out" / ".batchllm" / "journal.db").exists()


def test_without_a_manifest_the_same_job_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose_journal(folder)
    (folder / "out" / "manifest.json").unlink()
    assert called("rebuild", folder) == 0
    assert "without a manifest" in capsys.readouterr().out
    assert called("run", folder) == 0
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert (manifest.complete, manifest.attempts) == (True, ROWS)


def test_a_changed_schema_names_reparse_which_makes_answers_of_failures(
    failures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    change(failures, schema=schema)
    assert called("run", failures) == 78
    assert "batchllm reparse JOB" in capsys.readouterr().err
    assert called("reparse", failures) == 0
    assert "22 answers fit, 2 failures became answers, 0 answers became failures" in capsys.readouterr().out
    assert called("reparse", failures, "--json") == 0
    told = said(capsys)
    assert (told["answers"], told["complete"]) == (ROWS, True)
    assert called("run", failures) == 0
    assert called("verify", failures) == 0


def test_a_schema_that_takes_less_says_how_to_ask_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["odd"]}}, "required": ["label"]}
    change(folder, schema=schema)
    assert called("reparse", folder) == 0
    told = capsys.readouterr().out
    assert "12 answers became failures" in told
    assert "--retry-failed" in told
    assert called("run", folder) == 3


def test_reparse_of_a_killed_run_goes_on_after_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = taken("interrupted", tmp_path)
    change(folder, truncated="fail")
    assert called("reparse", folder) == 0
    told = capsys.readouterr()
    assert "may be paid twice" in told.err
    assert "rows are pending still" in told.out
    assert called("run", folder) == 0
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert (manifest.complete, manifest.ok) == (True, ROWS)
