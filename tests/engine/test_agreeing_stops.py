"""Runs that are killed or stopped while a lane is asked about ties: what was paid for there is not paid again."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import job_rig
import pytest
import voting_rig as rig
from process_rig import BOUND_S, started, wait_for

from batchllm.engine.beside import spent_beside
from batchllm.errors import ExitCode
from batchllm.journal import read_manifest
from batchllm.simulate import SimulatedProvider

ROWS, IN_FLIGHT = 16, 2
CHOICE = {"rationale": "r", "choice": "A"}


def says(reply: object, **more: Any) -> dict[str, Any]:
    return {"latency": {"median_s": 0.001}, "answers": [{"pattern": ".", "reply": reply}], **more}


@contextmanager
def job(folder: Path, role: str) -> Iterator[tuple[Path, list[SimulatedProvider]]]:
    """A job of two voters that agree on nothing, and a slow third lane that is asked about it; and all books."""
    rig.rows(folder, {f"r{n}": f"text {n}" for n in range(ROWS)})
    answer = CHOICE if role == "judged" else rig.POSITIVE
    slow = says(answer, latency={"median_s": 0.06})
    with job_rig.served(says(rig.POSITIVE), says(rig.NEGATIVE), slow) as (urls, books):
        price = {"price": {"input": 1.0, "output": 1.0}}
        first, second = (job_rig.lane(url, name, **price) for url, name in zip(urls, "ab", strict=False))
        third = job_rig.lane(urls[2], "third", limits={"concurrency": IN_FLIGHT}, **price)
        section = {"judge": {"lane": third}} if role == "judged" else {"ties": {"escalate": third}}
        path = folder / "job.yaml"
        path.write_text(json.dumps(rig.job(folder, [first, second], section)), "utf-8")
        yield path, books


def finish(path: Path) -> None:
    with started(path) as process:
        _, said = process.communicate(timeout=BOUND_S)
        assert process.returncode == ExitCode.OK, said


def counted_usd(out: Path) -> float:
    """What the budget takes for spent beside the voters."""
    manifest = read_manifest(out)
    assert manifest is not None
    return spent_beside(out, manifest.input_digest)


def billed_usd(book: SimulatedProvider) -> float:
    return (book.ledger.prompt_tokens + book.ledger.completion_tokens) / 1e6


def test_a_kill_pays_twice_at_most_for_what_was_in_flight(tmp_path: Path) -> None:
    with job(tmp_path, "judged") as (path, books):
        with started(path) as process:
            wait_for(books[2], 6)
            process.kill()
            process.wait()
        assert not (tmp_path / "out" / "consensus" / "agreement.json").exists()
        assert counted_usd(tmp_path / "out") >= billed_usd(books[2])
        finish(path)
        assert [sum(book.ledger.billed.values()) for book in books[:2]] == [ROWS, ROWS]
        assert 2 * ROWS <= sum(books[2].ledger.billed.values()) <= 2 * ROWS + IN_FLIGHT
    assert set(rig.by_id(tmp_path, "status").values()) == {"tied"}


@pytest.mark.parametrize(
    ("role", "number", "code", "asked"),
    [
        ("escalated", signal.SIGINT, ExitCode.INTERRUPTED, ROWS),
        ("judged", signal.SIGTERM, ExitCode.TERMINATED, 2 * ROWS),
    ],
)
def test_a_signal_there_ends_the_command_and_the_next_start_goes_on_there(
    tmp_path: Path, role: str, number: signal.Signals, code: ExitCode, asked: int
) -> None:
    """What was in flight is waited for: nothing is paid twice, and what comes out is that of an unbroken run."""
    with job(tmp_path, role) as (path, books):
        with started(path) as process:
            wait_for(books[2], 2)
            process.send_signal(number)
            process.communicate(timeout=BOUND_S)
            assert process.returncode == code
        assert not (tmp_path / "out" / "consensus" / "agreement.json").exists()
        finish(path)
        assert [sum(book.ledger.billed.values()) for book in books] == [ROWS, ROWS, asked]
        broken = rig.table(tmp_path)
        unbroken = tmp_path / "unbroken"
        unbroken.mkdir()
        rig.rows(unbroken, {f"r{n}": f"text {n}" for n in range(ROWS)})
        spec = json.loads(path.read_text("utf-8"))
        job_rig.run(unbroken, {**spec, "output": {"path": str(unbroken / "out")}})
        assert broken.equals(rig.table(unbroken))
    assert rig.told(tmp_path)["counts"]["tied" if role == "judged" else "decided"] == ROWS
