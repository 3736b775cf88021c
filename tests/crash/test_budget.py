"""A budget holds over kills: what was cut off counts with the most that it can have cost."""

import json
from pathlib import Path

import job_rig as rig
import pytest
import yaml
from process_rig import killed, started

from batchllm.errors import ExitCode

pytestmark = pytest.mark.timeout(120)
ROWS, IN_FLIGHT = 400, 16
PRICE = {"input": 100.0, "output": 100.0}  # USD for a million tokens
MOST_KILLS = 6


def test_the_provider_is_never_owed_more_than_the_budget(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.05, "p99_s": 0.2}}) as (urls, books):
        lane = rig.lane(urls[0], "one", price=PRICE, limits={"concurrency": IN_FLIGHT})
        task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 40}}
        budget_usd = 0.5
        spec = rig.job(tmp_path, [lane], task=task, budget={"usd": budget_usd})
        job = tmp_path / "job.yaml"
        job.write_text(yaml.safe_dump(spec), "utf-8")
        codes = []
        for _ in range(MOST_KILLS):
            enough = books[0].ledger.accepted + 25
            codes.append(killed(job, lambda enough=enough: books[0].ledger.accepted >= enough))
        with started(job) as last:
            _, said = last.communicate()
        owed_usd = (books[0].ledger.prompt_tokens + books[0].ledger.completion_tokens) * 100e-6
    assert codes[0] is None
    assert last.returncode == ExitCode.LIMIT_STOPPED
    assert "calls that were cut off may have cost up to $" in said
    assert owed_usd <= budget_usd
    assert books[0].ledger.accepted > 25
    status = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert status["complete"] is False
