"""What a start says about runs before it that were killed."""

import json
import signal
from pathlib import Path

import job_rig as rig
import pytest
from kill_rig import killed_at

from batchllm.dispatch import Out
from batchllm.engine.interruption import shown_up, told_calls, told_interruption
from batchllm.journal import Interrupted


def test_calls_and_money_that_may_be_paid_twice_are_told() -> None:
    assert told_interruption(Interrupted(0.0, 1, 1_024, 1.005)) == (
        "the last run did not end by itself: up to 1,024 calls were in flight and may be paid twice, for at most $1.01"
    )


@pytest.mark.parametrize("moment", [("os.link", "part-*"), ("os.rename", "manifest.json")])
def test_a_run_that_is_killed_once_all_is_answered_puts_no_money_at_risk(
    tmp_path: Path, moment: tuple[str, str]
) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 20)
    price = {"price": {"input": 1.0, "output": 1.0}}
    said: list[str] = []
    with rig.served({}) as (urls, books):
        spec = rig.job(tmp_path, [rig.lane(urls[0], "one", **price)], budget={"usd": 1.0})
        spec["task"]["params"] = {"max_tokens": 50}
        (tmp_path / "job.yaml").write_text(json.dumps(spec), "utf-8")
        assert killed_at(tmp_path, *moment) == -signal.SIGKILL
        summary = rig.run(tmp_path, spec, say=said.append)
        assert books[0].ledger.accepted == 20
    assert summary.exit_code == 0
    assert said == []


def test_several_runs_are_told_together() -> None:
    assert "the last 3 runs did not end by themselves" in told_interruption(Interrupted(0.0, 3, 64, 0.0))


def test_an_unknown_price_is_not_shown_as_nothing() -> None:
    told = told_interruption(Interrupted(0.0, 1, 64, None))
    assert "$" not in told
    assert "not known (no price, or no max_tokens)" in told


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (0.0, "0.000000"),
        (1e-9, "0.000001"),
        (0.0123451, "0.012346"),
        (1.001, "1.01"),
        (12_345.0, "12,345.00"),
    ],
)
def test_money_is_never_rounded_down(usd: float, shown: str) -> None:
    assert shown_up(usd) == shown


def test_calls_in_flight_are_told_by_lane_and_the_oldest_one_by_one() -> None:
    calls = [Out("b", 7, 3, 9.96), *(Out("a", row, 1, 1.0) for row in range(11))]
    lines = told_calls(calls).splitlines()
    assert lines[:2] == ["12 calls in flight (b: 1, a: 11)", "  for 10.0 s: b, row 7 and 2 more"]
    assert lines[-1] == "  and 2 younger ones"
    assert len(lines) == 12
    assert told_calls([]) == "0 calls in flight"
