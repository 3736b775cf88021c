"""A disk on which each commit takes long: the calls wait for it, and memory does not grow."""

import json
from pathlib import Path

import job_rig as rig

from benchmarks.durability import window

ROWS, IN_FLIGHT = 120, 8


def test_no_more_answers_wait_for_their_commit_than_calls_may_be_in_flight(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.0}}) as (urls, books):
        lane = rig.lane(urls[0], "one", limits={"rpm": 1e9, "concurrency": IN_FLIGHT})
        (tmp_path / "job.yaml").write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")
        found = window.measured(tmp_path, slower_s=0.05)
    assert books[0].ledger.accepted == found.rows == ROWS
    assert found.most_waiting <= IN_FLIGHT
    assert found.rows_a_commit <= IN_FLIGHT
    assert rig.table(tmp_path, "output")["row"].to_list() == list(range(ROWS))
