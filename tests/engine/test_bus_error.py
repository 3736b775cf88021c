"""The file that SQLite maps is taken away under a run: the process ends, says where, and nothing is lost."""

import json
import os
import signal
from pathlib import Path

import job_rig as rig
from process_rig import BOUND_S, started, wait_for

ROWS = 300
IN_FLIGHT = 8


def test_a_run_that_is_ended_by_a_bus_error_says_where_and_the_next_one_goes_on(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.03, "p99_s": 0.1}}) as (urls, books):
        lane = rig.lane(urls[0], "one", limits={"concurrency": IN_FLIGHT})
        job = tmp_path / "job.yaml"
        job.write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")
        with started(job) as process:
            wait_for(books[0], 60)
            os.truncate(tmp_path / "out" / ".batchllm" / "journal.db-shm", 0)
            _, err = process.communicate(timeout=BOUND_S)
            assert process.returncode == -signal.SIGBUS
        assert "Bus error" in err
        assert "batchllm/journal/database.py" in err
        with started(job) as process:
            _, err = process.communicate(timeout=BOUND_S)
            assert process.returncode == 0, err
        assert rig.table(tmp_path, "output")["id"].to_list() == [f"r{n}" for n in range(ROWS)]
        assert books[0].ledger.accepted <= ROWS + 2 * IN_FLIGHT
