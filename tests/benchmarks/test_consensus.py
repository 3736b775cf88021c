"""The steps of the consensus benchmark do what they time, and its bounds are told."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.consensus import LABELS, STEPS, in_a_child, line, measured_here, write_job


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("voters", [1, 5])
def test_every_step_runs(step: str, voters: int) -> None:
    measured = measured_here(step, 60, voters)
    assert measured["wall_s"] > 0
    assert measured["peak_mb"] >= measured["before_mb"] > 0


def test_a_step_is_measured_in_a_process_of_its_own() -> None:
    assert in_a_child("majority", 100, 3).keys() == {"wall_s", "cpu_s", "before_mb", "peak_mb"}


@pytest.mark.parametrize(
    ("wall_s", "peak_mb", "verdict"), [(59.0, 1000.0, "yes"), (61.0, 9.0, "NO"), (1.0, 1100.0, "NO")]
)
def test_bounds_are_of_time_and_of_memory(wall_s: float, peak_mb: float, verdict: str) -> None:
    assert line("majority", 10, {"wall_s": wall_s, "peak_mb": peak_mb})["verdict"] == verdict


def test_the_job_has_a_file_of_votes_for_each_voter(tmp_path: Path) -> None:
    write_job(tmp_path, 100, 3)
    job = json.loads((tmp_path / "job.yaml").read_text("utf-8"))
    for name in job["consensus"]["votes"]:
        said = pq.read_table(tmp_path / name)["label"].to_pylist()
        assert len(said) == 100
        assert set(said) - {None} == set(LABELS)
    gold = pq.read_table(tmp_path / "rows.parquet")["gold"].to_pylist()
    assert 5 <= sum(label is not None for label in gold) <= 10
