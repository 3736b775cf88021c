"""What the lanes beside the voters cost, of which budget, and what of theirs has failed."""

import shutil
from pathlib import Path
from typing import Any

import job_rig
import polars as pl
import pytest
import voting_rig as rig

from batchllm.engine.beside import cost_beside, spent_beside
from batchllm.errors import ExitCode
from batchllm.journal import read_manifest
from batchllm.report.summary import trouble

TWO = [rig.letters("swift", 0), rig.letters("wide", 1)]
TIED = {f"r{n}": "+-+" for n in range(40)}


def run(folder: Path, consensus: dict[str, Any], texts: Any, lanes: Any = TWO, **more: Any) -> Any:
    options = {name: more.pop(name) for name in ("retries_failed", "new_run") if name in more}
    rig.rows(folder, texts)
    return job_rig.run(folder, rig.job(folder, lanes, consensus, **more), **options)


def settled_by(name: str) -> dict[str, Any]:
    return {"ties": {"escalate": rig.letters(name, 2)}}


def usd_of(folder: Path, role: str) -> float:
    manifest = read_manifest(folder / "out" / "consensus" / role)
    assert manifest is not None
    assert manifest.cost_usd is not None
    return manifest.cost_usd


def test_what_another_lane_has_cost_counts_against_the_budget(tmp_path: Path) -> None:
    """Its record is put aside, and the money is spent all the same."""
    first = run(tmp_path, settled_by("one"), TIED)
    one, voters = usd_of(tmp_path, "escalated"), read_manifest(tmp_path / "out")
    assert voters is not None
    assert voters.cost_usd is not None
    budget = {"usd": voters.cost_usd + 1.5 * one}
    stopped = run(tmp_path, settled_by("two"), TIED, budget=budget)
    assert stopped.exit_code == ExitCode.LIMIT_STOPPED
    assert first.spent_usd < stopped.spent_usd <= budget["usd"]
    done = run(tmp_path, settled_by("two"), TIED, budget={"usd": voters.cost_usd + 2.5 * one})
    assert done.exit_code == ExitCode.OK, done.ending
    assert done.spent_usd == pytest.approx(voters.cost_usd + one + usd_of(tmp_path, "escalated"))
    assert rig.told(tmp_path)["cost"]["usd"] == pytest.approx(done.spent_usd - one)


def test_a_record_that_is_removed_takes_its_own_money_along_and_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path, settled_by("one"), TIED)
    digest = rig_digest(out)
    run(tmp_path, settled_by("two"), TIED | {"new": "+-+"})
    two = usd_of(tmp_path, "escalated")
    assert spent_beside(out, rig_digest(out)) == pytest.approx(two)
    assert rig_digest(out) != digest
    shutil.rmtree(out / "consensus" / "escalated" / ".batchllm" / "earlier")
    assert spent_beside(out, rig_digest(out)) == pytest.approx(two)
    assert cost_beside(out) == pytest.approx(two)


def rig_digest(out: Path) -> str:
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.input_digest is not None
    return manifest.input_digest


def test_a_new_run_has_the_budget_for_itself(tmp_path: Path) -> None:
    """What was put aside as a whole is an output of its own, with all that lanes beside its voters cost."""
    whole = run(tmp_path, settled_by("one"), TIED).spent_usd
    again = run(tmp_path, settled_by("one"), TIED, budget={"usd": 1.2 * whole}, new_run=True)
    assert again.exit_code == ExitCode.OK, again.ending
    assert again.spent_usd == pytest.approx(whole)


FAILING = {"ties": {"escalate": rig.letters("arbiter", 2)}}
#: The second row has no vote of the lane asked in ties: as long as it is open.
TEXTS = {"even": "+-+", "lost": "+-?", "all": "+++"}
WEIGHED = {**FAILING, "rule": "weighted", "weights": {"swift": 2, "wide": 1}}


def test_what_failed_is_no_failure_once_no_row_is_open(tmp_path: Path) -> None:
    for _ in range(2):
        summary = run(tmp_path, FAILING, TEXTS)
        assert summary.exit_code == ExitCode.ROWS_FAILED
        assert "test-escalated: 1 row failed, see" in trouble(summary)
    for _ in range(2):
        summary = run(tmp_path, WEIGHED, TEXTS)
        assert summary.exit_code == ExitCode.OK
        assert "escalated" not in trouble(summary)
    assert run(tmp_path, FAILING, TEXTS).exit_code == ExitCode.ROWS_FAILED
    manifest = read_manifest(tmp_path / "out" / "consensus" / "escalated")
    assert manifest is not None
    assert manifest.attempts == 3  # an answer, and two calls for the row that has none


def test_retry_failed_asks_for_open_rows_alone(tmp_path: Path) -> None:
    """A row that has too few votes by other rules is not open: what failed of it need not be asked again."""
    lanes = [*TWO, rig.letters("deep", 2)]
    section = {"ties": {"escalate": rig.letters("arbiter", 3)}, "rule": "unanimous", "min_votes": 2}
    texts = {"hole": "+-??", "apart": "++-+"}
    run(tmp_path, section, texts, lanes)
    assert calls(tmp_path) == 3
    run(tmp_path, {**section, "min_votes": 3}, texts, lanes, retries_failed=True)
    assert calls(tmp_path) == 3
    assert rig.by_id(tmp_path, "rule")["apart"] == "escalated"
    run(tmp_path, section, texts, lanes, retries_failed=True)
    assert calls(tmp_path) == 5


def calls(folder: Path) -> int:
    manifest = read_manifest(folder / "out" / "consensus" / "escalated")
    assert manifest is not None
    return manifest.attempts


def test_a_row_costs_what_its_calls_cost_and_all_rows_what_the_whole_did(tmp_path: Path) -> None:
    """Calls that came to nothing count as the totals count them, also those of lanes beside the voters."""
    broken = rig.letters("swift", 0, seed=5, faults={"error_rate": 0.4})
    texts = {f"r{n}": "+-?" if n % 2 else "+-+" for n in range(8)}
    retry = {"max_attempts": 9, "backoff_s": 0.001, "max_backoff_s": 0.002}
    run(tmp_path, FAILING, texts, [broken, TWO[1]], retry=retry)
    usage = job_rig.table(tmp_path, "usage")
    assert usage.filter(pl.col("cost_usd").is_null()).height
    rows = rig.table(tmp_path).get_column("cost_usd")
    assert not rows.null_count()
    assert rows.sum() == pytest.approx(rig.told(tmp_path)["cost"]["usd"])


def test_a_row_whose_calls_have_no_price_has_no_cost(tmp_path: Path) -> None:
    unpriced = {**TWO[1], "price": None}
    run(tmp_path, {}, {"a": "++"}, [TWO[0], unpriced])
    assert rig.table(tmp_path).get_column("cost_usd").to_list() == [None]
    assert rig.told(tmp_path)["cost"]["usd"] is None
