"""`keep: bodies`: the whole reply beside the answer, over real sockets."""

import json
from pathlib import Path
from typing import Any

import job_rig as rig
import pytest

from batchllm.errors import ChangedJobError, JobError

KEY = "sk-canary-0123456789abcdef"
FAST = {"latency": {"median_s": 0.001}}


def job(folder: Path, lanes: list[dict[str, Any]], *, keep: str = "bodies", **more: Any) -> dict[str, Any]:
    return rig.job(folder, lanes, **{"output": {"path": str(folder / "out"), "keep": keep}, **more})


def test_each_answer_has_the_reply_that_it_came_in(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 20)
    with rig.served(FAST) as (urls, _):
        rig.run(tmp_path, job(tmp_path, [rig.lane(urls[0], "one")]))
    output = rig.table(tmp_path, "output")
    assert output.columns[-1] == "body"
    for content, body in output.select("content", "body").iter_rows():
        assert json.loads(body)["choices"][0]["message"]["content"] == content
        assert json.loads(body)["object"] == "chat.completion"
    assert rig.table(tmp_path, "failures").columns[-1] == "body"


def test_without_the_key_there_is_no_such_column(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 2)
    with rig.served(FAST) as (urls, _):
        rig.run(tmp_path, rig.job(tmp_path, [rig.lane(urls[0], "one")]))
    assert "body" not in rig.table(tmp_path, "output").columns


def test_a_packed_request_has_its_body_once_at_its_first_row(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 12)
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 8, "inputs_per_request": 4}
    with rig.served({**FAST, "dimensions": 8}) as (urls, _):
        rig.run(tmp_path, job(tmp_path, [rig.lane(urls[0], "one")], task=task))
    bodies = rig.table(tmp_path, "output").sort("row")["body"].to_list()
    assert [at for at, body in enumerate(bodies) if body is not None] == [0, 4, 8]
    assert all(len(json.loads(body)["data"]) == 4 for body in bodies if body is not None)


def test_a_failure_has_the_last_reply(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 3)
    schema = {"type": "object", "properties": {"label": {"enum": ["a"]}}, "required": ["label"]}
    task = {"type": "chat", "prompt": "{{ text }}", "schema": schema}
    wrong = {**FAST, "answers": [{"pattern": ".", "reply": {"label": "z"}}]}
    with rig.served(wrong) as (urls, _):
        spec = job(tmp_path, [rig.lane(urls[0], "one")], task=task)
        summary = rig.run(tmp_path, {**spec, "retry": {**spec["retry"], "max_attempts": 2}})
    assert summary.failed == 3
    for content, body in rig.table(tmp_path, "failures").select("content", "body").iter_rows():
        assert json.loads(content) == {"label": "z"}
        assert json.loads(body)["choices"][0]["message"]["content"] == content


def test_a_key_that_a_server_repeats_is_not_kept(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 2)
    echo = {**FAST, "answers": [{"pattern": ".", "reply": f"your key is {KEY}"}]}
    with rig.served(echo) as (urls, _):
        rig.run(tmp_path, job(tmp_path, [rig.lane(urls[0], "one", api_key=KEY)]))
    bodies = rig.table(tmp_path, "output")["body"].to_list()
    assert ["your key is" in body for body in bodies] == [True, True]
    assert KEY not in "".join(bodies)


def test_a_record_without_bodies_does_not_become_one_with_them(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 2)
    with rig.served(FAST) as (urls, books):
        lanes = [rig.lane(urls[0], "one", price={"input": 1.0, "output": 1.0})]
        rig.run(tmp_path, job(tmp_path, lanes, keep="content"))
        with pytest.raises(ChangedJobError, match=r"body \(string\) comes") as caught:
            rig.run(tmp_path, job(tmp_path, lanes))
        assert "keep" in caught.value.remedy
        assert books[0].ledger.accepted == 2


def test_a_carried_column_of_that_name_is_refused(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 2, body="mine")
    lanes = [rig.lane("http://127.0.0.1:9/v1", "one")]
    output = {"path": str(tmp_path / "out"), "carry": ["body"], "keep": "bodies"}
    with pytest.raises(JobError, match="'body' has the name of a column of batchllm's own"):
        rig.run(tmp_path, job(tmp_path, lanes, output=output))
