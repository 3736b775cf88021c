"""A run that gets no more memory ends with a code and a way out of its own, and what was paid for is kept."""

import itertools
from pathlib import Path

import job_rig as rig
import pytest

from batchllm.errors import OutOfMemoryError
from batchllm.journal.committing import Committing
from batchllm.task.chat import ChatTask

ROWS = 120
IN_FLIGHT = 8


@pytest.mark.parametrize(("owner", "name", "at"), [(ChatTask, "read", 60), (Committing, "commit", 5)])
def test_a_run_without_memory_ends_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int
) -> None:
    """Where a reply is read, and in the thread that writes: what that held goes to the spill folder."""
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    real, calls = getattr(owner, name), itertools.count(1)

    def short(*given: object) -> object:
        if next(calls) == at:
            raise MemoryError
        return real(*given)

    with rig.served({"latency": {"median_s": 0.01, "p99_s": 0.02}}) as (urls, books):
        job = rig.job(tmp_path, [rig.lane(urls[0], "one", limits={"concurrency": IN_FLIGHT})])
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, short)
            with pytest.raises(OutOfMemoryError, match=r"limits\.concurrency") as caught:
                rig.run(tmp_path, job)
        assert caught.value.exit_code == 71
        assert rig.run(tmp_path, job).exit_code == 0
        assert rig.table(tmp_path, "output")["id"].to_list() == [f"r{n}" for n in range(ROWS)]
        assert rig.table(tmp_path, "usage")["class"].null_count() == ROWS
        assert books[0].ledger.accepted <= ROWS + (1 if owner is ChatTask else 0)
