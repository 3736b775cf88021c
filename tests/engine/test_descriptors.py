"""A process that may have few files open: `ulimit -n`."""

import json
from collections.abc import Iterator
from pathlib import Path

import job_rig as rig
import pytest
from process_rig import BOUND_S, started

from batchllm.simulate import SimulatedProvider

ROWS = 120


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, SimulatedProvider]]:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.2}}) as (urls, books):
        lane = rig.lane(urls[0], "one", limits={"concurrency": 100})
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")
        yield path, books[0]


def limited(job: Path, files: int) -> tuple[int, str]:
    """Exit code and stderr of a run that may have so many files open, and cannot raise that."""
    with started(job, before=("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")) as process:
        _, err = process.communicate(timeout=BOUND_S)
        return process.wait(), err


def test_a_run_that_could_not_open_its_own_files_is_refused_before_it_asks(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    code, err = limited(path, 24)
    assert code == 74
    assert "24 files and connections" in err
    assert "ulimit -n" in err
    assert "Traceback" not in err
    assert book.ledger.accepted == 0
    assert not (path.parent / "out").exists()


def test_calls_in_flight_are_as_many_as_may_be_open_also_where_the_job_says_more(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    code, err = limited(path, 64)
    assert code == 0, err
    assert "keeps one to 24 calls in flight" in err
    usage = rig.table(path.parent, "usage")
    assert usage["billed"].to_list() == ["yes"] * ROWS  # none failed for want of a connection
    assert book.ledger.accepted == ROWS
