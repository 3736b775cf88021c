"""A record that has been through changed inputs and repeated rows is looked after like any other."""

import json
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest

from batchllm.engine.repair import Tools, rebuild_job, reparse_job
from batchllm.journal import read_manifest
from batchllm.journal.audit import audit
from batchllm.spec.loading import load_mapping

ROWS = 30
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
ANSWERS = [{"pattern": r"number \d*7\b", "reply": {"label": "b"}}, {"pattern": ".", "reply": {"label": "a"}}]
SPEC = {"latency": {"median_s": 0.001}, "answers": ANSWERS}


def write(folder: Path, numbers: list[int]) -> None:
    lines = [json.dumps({"id": f"r{n}", "text": f"text number {n}", "stars": n}) for n in numbers]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def job(folder: Path, url: str, **task: Any) -> dict[str, Any]:
    return rig.job(
        folder,
        [rig.lane(url, "one", price={"input": 1.0, "output": 1.0})],
        task={"type": "chat", "prompt": "{{ text }}", "schema": SCHEMA, **task},
        output={"path": str(folder / "out"), "carry": ["stars"]},
    )


def loaded(folder: Path, spec: dict[str, Any]) -> Any:
    return load_mapping(spec, folder=folder, environ={})


@pytest.fixture
def tools() -> Tools:
    return Tools(environ={})


def test_after_a_changed_input_a_lost_journal_comes_back(tmp_path: Path, tools: Tools) -> None:
    with rig.served(SPEC) as (urls, books):
        spec = job(tmp_path, urls[0])
        write(tmp_path, list(range(ROWS)))
        rig.run(tmp_path, spec)
        write(tmp_path, [40, *range(25, 5, -1), 41])  # some are gone, some new, all at other places
        rig.run(tmp_path, spec)
        assert audit(tmp_path / "out").is_whole
        assert min(rig.table(tmp_path, "usage")["row"]) == -1
        sent, output = books[0].ledger.accepted, rig.table(tmp_path, "output")
        (tmp_path / "out" / ".batchllm" / "journal.db").unlink()
        done = rebuild_job(loaded(tmp_path, spec), tools)
        assert (done.ok, done.failed) == (22, 0)
        assert audit(tmp_path / "out").is_whole
        assert rig.run(tmp_path, spec).is_complete
        assert rig.table(tmp_path, "output").equals(output)
        write(tmp_path, [42, *range(25, 5, -1), 41])  # and backfills go on
        rig.run(tmp_path, spec)
        assert books[0].ledger.accepted == sent + 1
    assert audit(tmp_path / "out").is_whole
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert (manifest.ok, manifest.complete, manifest.attempts) == (22, True, sent + 1)


def test_after_a_changed_input_answers_are_read_anew(tmp_path: Path, tools: Tools) -> None:
    with rig.served(SPEC) as (urls, books):
        write(tmp_path, list(range(ROWS)))
        rig.run(tmp_path, job(tmp_path, urls[0]))
        write(tmp_path, list(range(ROWS - 1, 4, -1)))
        rig.run(tmp_path, job(tmp_path, urls[0]))
        narrow = {**SCHEMA, "properties": {"label": {"enum": ["a"]}}}
        done = reparse_job(loaded(tmp_path, job(tmp_path, urls[0], schema=narrow)), tools)
        assert (done.answers, done.turned_down) == (22, 3)
        reparse_job(loaded(tmp_path, job(tmp_path, urls[0])), tools)
        assert rig.run(tmp_path, job(tmp_path, urls[0])).is_complete
        assert books[0].ledger.accepted == ROWS
    output = rig.table(tmp_path, "output")
    assert list(output["id"]) == [f"r{n}" for n in range(ROWS - 1, 4, -1)]
    assert list(output["stars"]) == [str(n) for n in range(ROWS - 1, 4, -1)]
    assert output["cost_usd"].null_count() == 0
    assert audit(tmp_path / "out").is_whole


def test_copies_of_failures_that_are_answers_now_cost_nothing(tmp_path: Path, tools: Tools) -> None:
    with rig.served(SPEC) as (urls, _):
        narrow = {**SCHEMA, "properties": {"label": {"enum": ["a"]}}}
        spec = {**job(tmp_path, urls[0], schema=narrow), "dedupe": True}
        spec["retry"] = {**spec["retry"], "max_attempts": 1}
        lines = [json.dumps({"id": f"r{n}", "text": f"text number {n % 10}", "stars": n}) for n in range(20)]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        assert rig.run(tmp_path, spec).failed == 2
        done = reparse_job(loaded(tmp_path, {**spec, "task": {**spec["task"], "schema": SCHEMA}}), tools)
    assert done.became_answers == 2
    output = rig.table(tmp_path, "output").filter(pl.col("id").is_in(["r7", "r17"]))
    assert list(output["cost_usd"] > 0) == [True, False]
    assert list(output["prompt_tokens"] > 0) == [True, False]
    assert list(output["stars"]) == ["7", "17"]
    assert audit(tmp_path / "out").is_whole


def test_rows_that_were_bought_once_are_whole_and_come_back(tmp_path: Path, tools: Tools) -> None:
    with rig.served(SPEC) as (urls, books):
        spec = {**job(tmp_path, urls[0]), "dedupe": True}
        spec["output"] = {**spec["output"], "keep": "bodies"}
        lines = [
            json.dumps({"id": f"r{n}", "text": f"text number {n % 10}", "stars": n}) for n in range(ROWS)
        ]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        rig.run(tmp_path, spec)
        assert audit(tmp_path / "out").is_whole
        output = rig.table(tmp_path, "output")
        assert output["body"].null_count() == ROWS - 10
        (tmp_path / "out" / ".batchllm" / "journal.db").unlink()
        assert rebuild_job(loaded(tmp_path, spec), tools).ok == ROWS
        assert rig.run(tmp_path, spec).is_complete
        assert books[0].ledger.accepted == 10
    assert rig.table(tmp_path, "output").equals(output)
    assert audit(tmp_path / "out").is_whole
