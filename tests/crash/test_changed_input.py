"""A kill and a changed input together: what was answered is known by what it was read from, and nothing is lost."""

import json
import random
from collections import Counter
from pathlib import Path

import job_rig as rig
import polars as pl
import pytest
import yaml
from process_rig import killed, started

from batchllm.errors import ExitCode

pytestmark = pytest.mark.timeout(120)
ROWS, IN_FLIGHT = 300, 8


def write(path: Path, table: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")


def test_a_killed_run_whose_input_changed_pays_for_what_is_new_and_for_what_was_in_flight(
    tmp_path: Path,
) -> None:
    table = [{"id": f"r{n}", "text": f"text number {n}."} for n in range(ROWS)]
    write(tmp_path / "rows.jsonl", table)
    with rig.served({"latency": {"median_s": 0.02, "p99_s": 0.05}}) as (urls, books):
        spec = rig.job(tmp_path, [rig.lane(urls[0], "one", limits={"concurrency": IN_FLIGHT})])
        job = tmp_path / "job.yaml"
        job.write_text(yaml.safe_dump(spec), "utf-8")
        assert killed(job, lambda: books[0].ledger.accepted >= ROWS // 2) is None
        before = books[0].ledger.accepted
        for row in table[3:100:20]:
            row["text"] = f"edited {row['text']}"
        edited = len(table[3:100:20])
        table += [{"id": f"n{n}", "text": f"a new one, {n}."} for n in range(4)]
        random.Random(4).shuffle(table)
        write(tmp_path / "rows.jsonl", table)
        with started(job) as last:
            last.communicate()
        accepted = books[0].ledger.accepted
    assert last.returncode == ExitCode.OK
    assert before < ROWS
    assert accepted <= ROWS + 4 + edited + IN_FLIGHT
    output = rig.table(tmp_path, "output")
    assert output["row"].to_list() == list(range(len(table)))
    assert output["id"].to_list() == [row["id"] for row in table]
    assert all(row["text"] in content for row, content in zip(table, output["content"], strict=True))
    usage = rig.table(tmp_path, "usage").filter(pl.col("billed") == "yes")
    assert min(Counter(usage["row"].to_list()).values()) >= 1
