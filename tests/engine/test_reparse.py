"""Kept answers read by another schema: nothing is sent, nothing is lost, and the record is the new job's."""

import json
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest

from batchllm.engine.repair import Tools, reparse_job
from batchllm.errors import ChangedJobError, InputDataError, InputMissingError, JobError, OutputError
from batchllm.journal import read_manifest
from batchllm.journal.audit import audit
from batchllm.journal.rereading import Reread
from batchllm.spec.loading import load_mapping

ROWS = 30
FAST = {"latency": {"median_s": 0.001}}
#: Numbers that end in 7 get a label that the first schema does not know.
ANSWERS = [
    {"pattern": r"number \d*7\b", "reply": {"label": "seven", "size": 7}},
    {"pattern": r"number \d*[13]\b", "reply": {"label": "odd", "size": 1}},
    {"pattern": ".", "reply": {"label": "other", "size": 2}},
]
OLD = {"type": "object", "properties": {"label": {"enum": ["odd", "other"]}}, "required": ["label"]}
NEW = {
    "type": "object",
    "properties": {"label": {"enum": ["other", "seven"]}, "size": {"type": "integer"}},
    "required": ["label"],
}
SEVENS = [7, 17, 27]
ODD = [row for row in range(ROWS) if row % 10 in (1, 3)]


def job(folder: Path, url: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    task = {"type": "chat", "prompt": "{{ text }}", **({} if schema is None else {"schema": schema})}
    lane = rig.lane(url, "one", price={"input": 1.0, "output": 2.0})
    given = {
        "task": task,
        "retry": {"max_attempts": 1, "backoff_s": 0.01},
        "output": {"path": str(folder / "out"), "carry": ["stars"]},
        "input": {"path": "rows.jsonl", "key": "id", "columns": {"stars": "int64"}},
        **more,
    }
    return rig.job(folder, [lane], **given)


def reparse(folder: Path, spec: dict[str, Any]) -> Reread:
    return reparse_job(load_mapping(spec, folder=folder, environ={}), Tools(environ={}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS, stars=4)
    return tmp_path


def rows(folder: Path, name: str) -> list[int]:
    return list(rig.table(folder, name)["row"])


def test_a_changed_schema_reads_the_kept_answers_anew(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, books):
        first = rig.run(folder, job(folder, urls[0], OLD))
        assert (first.ok, first.failed) == (ROWS - 3, 3)
        before = rig.table(folder, "output")
        usage = rig.table(folder, "usage").filter(pl.col("row").is_in(SEVENS)).sort("row")
        changed = job(folder, urls[0], NEW)
        with pytest.raises(ChangedJobError, match=r"task\.schema") as refused:
            rig.run(folder, changed)
        assert "batchllm reparse" in refused.value.remedy
        sent = books[0].ledger.accepted
        done = reparse(folder, changed)
        assert (done.answers, done.became_answers, done.turned_down, done.failures, done.complete) == (
            ROWS - 3 - len(ODD),
            3,
            len(ODD),
            0,
            True,
        )
        after = rig.run(folder, changed)
        assert books[0].ledger.accepted == sent
    assert (after.ok, after.reused, after.is_complete) == (0, ROWS - len(ODD), True)
    assert audit(folder / "out").is_whole
    output = rig.table(folder, "output")
    assert rows(folder, "output") == [row for row in range(ROWS) if row not in ODD]
    assert output.schema["size"] == pl.Int64
    assert set(output.filter(pl.col("row").is_in(SEVENS))["label"]) == {"seven"}
    kept = [name for name in before.columns if name not in ("label", "size")]
    same = [row for row in range(ROWS) if row not in (*ODD, *SEVENS)]
    assert (
        output.filter(pl.col("row").is_in(same))
        .select(kept)
        .equals(before.filter(pl.col("row").is_in(same)).select(kept))
    )
    recovered = output.filter(pl.col("row").is_in(SEVENS))
    for name in ("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms", "request_id", "model"):
        assert list(recovered[name]) == list(usage[name])
    assert list(recovered["stars"]) == [4] * 3
    assert list(recovered["id"]) == [f"r{row}" for row in SEVENS]
    failures = rig.table(folder, "failures")
    assert rows(folder, "failures") == ODD
    assert set(failures["class"]) == {"schema_mismatch"}
    assert all("odd" in text for text in failures["content"])
    assert all("not by the schema: label" in text for text in failures["message"])


def test_there_and_back_is_what_it_was(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], OLD))
        output, failures = rig.table(folder, "output"), rig.table(folder, "failures")
        reparse(folder, job(folder, urls[0], NEW))
        reparse(folder, job(folder, urls[0], OLD))
    # How the model ended is not told in failures/, so of what was there once it is not known any more.
    assert rig.table(folder, "output").drop("finish_reason").equals(output.drop("finish_reason"))
    assert rig.table(folder, "failures").equals(failures)


def test_a_schema_may_come_and_go(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], None))
        assert "label" not in rig.table(folder, "output").columns
        done = reparse(folder, job(folder, urls[0], OLD))
        assert (done.answers, done.turned_down) == (ROWS - 3, 3)
        assert "label" in rig.table(folder, "output").columns
        done = reparse(folder, job(folder, urls[0], None))
        assert (done.answers, done.became_answers) == (ROWS - 3, 3)
    assert rows(folder, "output") == list(range(ROWS))
    assert audit(folder / "out").is_whole


def test_a_run_that_was_stopped_goes_on_by_the_new_schema(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, books):
        rig.run(folder, job(folder, urls[0], OLD), limit=12)
        done = reparse(folder, job(folder, urls[0], NEW))
        assert (done.answers + done.became_answers + done.turned_down, done.complete) == (12, False)
        assert audit(folder / "out").is_whole
        rig.run(folder, job(folder, urls[0], NEW))
        assert books[0].ledger.accepted == ROWS
    assert rows(folder, "output") == [row for row in range(ROWS) if row not in ODD]
    assert audit(folder / "out").is_whole


def test_what_no_longer_fits_is_asked_again_with_retry_failed(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, books):
        rig.run(folder, job(folder, urls[0], OLD))
        reparse(folder, job(folder, urls[0], NEW))
        rig.run(folder, job(folder, urls[0], NEW), retries_failed=True)
        assert books[0].ledger.accepted == ROWS + len(ODD)


def test_the_same_schema_changes_nothing(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], OLD))
        output, failures = rig.table(folder, "output"), rig.table(folder, "failures")
        done = reparse(folder, job(folder, urls[0], OLD))
    assert (done.answers, done.failures, done.turned_down, done.became_answers) == (ROWS - 3, 3, 0, 0)
    assert rig.table(folder, "output").equals(output)
    assert rig.table(folder, "failures").equals(failures)


def test_each_lane_s_answers_are_read_anew(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}, {**FAST, "answers": ANSWERS}) as (urls, _):
        spec = job(folder, urls[0], OLD, routing="all")
        spec["providers"] = [*spec["providers"], rig.lane(urls[1], "two")]
        rig.run(folder, spec)
        changed = {**spec, "task": {**spec["task"], "schema": NEW}}
        done = reparse(folder, changed)
        assert (done.answers, done.became_answers, done.turned_down) == (
            2 * (ROWS - 3 - len(ODD)),
            6,
            2 * len(ODD),
        )
    assert audit(folder / "out").is_whole
    sevens = rig.table(folder, "output").filter(pl.col("row").is_in(SEVENS))
    assert sevens.select("row", "lane").rows() == [(row, name) for row in SEVENS for name in ("one", "two")]


def test_bodies_go_along(folder: Path) -> None:
    output = {"path": str(folder / "out"), "keep": "bodies"}
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], OLD, output=output))
        reparse(folder, job(folder, urls[0], NEW, output=output))
    kept = [rig.table(folder, name).select("content", "body").rows() for name in ("output", "failures")]
    assert all(len(lines) > 0 for lines in kept)
    for content, body in kept[0] + kept[1]:
        assert json.loads(body)["choices"][0]["message"]["content"] == content


def test_cut_answers_become_failures_and_answers_again(folder: Path) -> None:
    def task(**more: Any) -> dict[str, Any]:
        return {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 2}, **more}

    with rig.served({**FAST, "answers": [{"pattern": ".", "reply": "one two three four five six"}]}) as (
        urls,
        books,
    ):
        rig.run(folder, job(folder, urls[0], None, task=task()))
        assert set(rig.table(folder, "output")["finish_reason"]) == {"length"}
        done = reparse(folder, job(folder, urls[0], None, task=task(truncated="fail")))
        assert (done.answers, done.turned_down) == (0, ROWS)
        assert set(rig.table(folder, "failures")["class"]) == {"truncated"}
        done = reparse(folder, job(folder, urls[0], None, task=task(truncated="keep")))
        assert (done.answers, done.became_answers) == (0, ROWS)
        assert set(rig.table(folder, "output")["finish_reason"]) == {"length"}
        assert books[0].ledger.accepted == ROWS


@pytest.mark.parametrize(
    "more", [{"task": {"type": "chat", "prompt": "Say: {{ text }}"}}, {"routing": "all"}]
)
def test_any_other_change_is_refused(folder: Path, more: dict[str, Any]) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], OLD))
        before = rig.table(folder, "output")
        with pytest.raises(ChangedJobError, match="another job") as caught:
            reparse(folder, job(folder, urls[0], NEW, **more))
    assert "task.schema and task.truncated" in caught.value.remedy
    assert rig.table(folder, "output").equals(before)
    assert audit(folder / "out").is_whole


def test_vectors_are_not_read_again(folder: Path) -> None:
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 8}
    (folder / "out").mkdir()
    with pytest.raises(JobError, match="are no texts"):
        reparse(folder, job(folder, "http://127.0.0.1:9/v1", None, task=task))


def test_there_must_be_a_record(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        spec = job(folder, urls[0], OLD)
        with pytest.raises(InputMissingError, match="there is no output"):
            reparse(folder, spec)
        rig.run(folder, spec)
        (folder / "out" / ".batchllm" / "journal.db").unlink()
        with pytest.raises(OutputError, match="batchllm rebuild"):
            reparse(folder, spec)


def test_carried_columns_come_from_the_input_that_was_asked(folder: Path) -> None:
    with rig.served({**FAST, "answers": ANSWERS}) as (urls, _):
        rig.run(folder, job(folder, urls[0], OLD))
        rig.write_rows(folder / "rows.jsonl", ROWS, stars=5)
        with pytest.raises(InputDataError, match="carried columns"):
            reparse(folder, job(folder, urls[0], NEW))
        assert audit(folder / "out").is_whole
        rig.write_rows(folder / "rows.jsonl", ROWS, stars=4)
        reparse(folder, job(folder, urls[0], NEW))
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert manifest.complete
