"""The command as a process that is killed, stopped, and started again. The simulator's books are the bill."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import job_rig as rig
import polars as pl
import pytest
from process_rig import BOUND_S, started, wait_for, wait_until

from batchllm.simulate import SimulatedProvider

ROWS = 240
IN_FLIGHT = 16


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, SimulatedProvider]]:
    """A job file over one slow simulated provider, and the provider's books."""
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.03, "p99_s": 0.1}}) as (urls, books):
        lane = rig.lane(urls[0], "one", limits={"concurrency": IN_FLIGHT})
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")
        yield path, books[0]


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def delayed(call: str, seconds: float) -> tuple[str, ...]:
    """Strace, apart from the process that it holds up: the first `call` of each thread takes so long."""
    inject = f"inject={call}:delay_enter={int(seconds * 1_000_000)}:when=1"
    return ("strace", "-D", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject)


def finish(job: Path) -> str:
    with started(job) as process:
        out, err = process.communicate(timeout=BOUND_S)
        assert process.returncode == 0, err
        return out + err


def assert_whole(folder: Path) -> pl.DataFrame:
    """Every row once, in order, with its own answer."""
    output = rig.table(folder, "output")
    assert output["row"].to_list() == list(range(ROWS))
    assert output["id"].to_list() == [f"r{n}" for n in range(ROWS)]
    assert all(f"text number {n}" in content for n, content in enumerate(output["content"]))
    assert json.loads((folder / "out" / "manifest.json").read_text())["complete"] is True
    return output


def test_three_kills_lose_nothing_and_pay_twice_only_for_what_was_in_flight(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    dice = random.Random(7)
    for kill in range(3):
        with started(path) as process:
            wait_for(book, 40 + kill * 50 + dice.randrange(30))
            process.kill()
            process.wait()
    said = finish(path)
    assert_whole(path.parent)
    bought_again = sum(book.ledger.billed.values()) - ROWS
    assert 0 <= bought_again <= 3 * IN_FLIGHT
    assert "may be paid twice" in said


def test_the_first_ctrl_c_drains_and_the_next_start_goes_on(job: tuple[Path, SimulatedProvider]) -> None:
    path, book = job
    with started(path) as process:
        wait_for(book, 80)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    assert "waiting for" in err
    assert "Traceback" not in err
    kept = rig.table(path.parent, "output").height
    assert kept == sum(book.ledger.billed.values())
    finish(path)
    assert_whole(path.parent)
    assert sum(book.ledger.billed.values()) == ROWS


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_drain_too(
    job: tuple[Path, SimulatedProvider], number: signal.Signals, code: int
) -> None:
    path, book = job
    with started(path) as process:
        wait_for(book, 60)
        process.send_signal(number)
        process.communicate(timeout=BOUND_S)
    assert process.returncode == code
    finish(path)
    assert_whole(path.parent)
    assert sum(book.ledger.billed.values()) == ROWS


def test_the_second_ctrl_c_abandons_stalled_calls_and_keeps_what_came(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served({"latency": {"median_s": 0.01}, "faults": {"stall_rate": 0.1}}) as (urls, books):
        path = tmp_path / "job.yaml"
        lane = rig.lane(urls[0], "one", limits={"concurrency": 4})
        path.write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")
        with started(path) as process:
            wait_until(lambda: books[0].ledger.faults["stall"] >= 4)
            process.send_signal(signal.SIGINT)
            while "waiting for" not in (process.stderr.readline() if process.stderr else ""):
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    usage = rig.table(tmp_path, "usage")
    assert usage.filter(pl.col("billed") == "unknown").height == 4
    assert rig.table(tmp_path, "output").height == usage.height - 4


@needs_strace
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_a_run_starts_ends_it_with_nothing_asked(
    job: tuple[Path, SimulatedProvider], number: signal.Signals, code: int
) -> None:
    path, book = job
    journal = path.parent / "out" / ".batchllm" / "journal.new"
    with started(path, before=delayed("fdatasync", 1)) as process:
        wait_until(journal.exists)
        process.send_signal(number)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert book.ledger.accepted == 0
    finish(path)
    assert_whole(path.parent)


@needs_strace
def test_a_signal_while_the_parts_are_written_leaves_them_to_be_finished(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    with started(path, before=delayed("linkat", 1.5)) as process:
        wait_until(lambda: any((path.parent / "out" / ".batchllm").glob("part-*.tmp")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err
    assert "their files are being written" in err
    assert_whole(path.parent)
    assert sum(book.ledger.billed.values()) == ROWS


@needs_strace
def test_a_signal_while_the_parts_are_written_is_not_waited_for_longer_than_for_calls(
    job: tuple[Path, SimulatedProvider],
) -> None:
    """A row that comes amid rows that have moved makes parts overlap, so that they are to be merged."""
    path, book = job
    rows = path.parent / "rows.jsonl"
    finish(path)
    old = rows.read_text("utf-8").splitlines()[::-1]
    rows.write_text("\n".join([*old[:200], '{"id": "new", "text": "a new one"}', *old[200:]]) + "\n", "utf-8")
    spec = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**spec, "drain_timeout_s": 0.1}), "utf-8")
    with started(path, before=delayed("linkat", 1.5)) as process:
        wait_for(book, ROWS + 1)
        time.sleep(0.5)  # the answer comes home; the first moved part is not in its place before 1.5 s
        wait_until(lambda: any((path.parent / "out" / ".batchllm").glob("part-*.tmp")))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=BOUND_S)
    assert "their files are being written" in err
    assert process.returncode == 143, err
    manifest = json.loads((path.parent / "out" / "manifest.json").read_text("utf-8"))
    assert (manifest["complete"], manifest["counts"]["ok"]) == (False, ROWS + 1)
    finish(path)
    assert rig.table(path.parent, "output")["row"].to_list() == list(range(ROWS + 1))
    assert sum(book.ledger.billed.values()) == ROWS + 1


@needs_strace
def test_insisting_while_the_parts_are_written_leaves_at_once_and_the_next_start_pays_nothing(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    with started(path, before=delayed("linkat", 4)) as process:
        wait_until(lambda: any((path.parent / "out" / ".batchllm").glob("part-*.tmp")))
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        assert process.wait(timeout=BOUND_S) == 143
    assert list((path.parent / "out" / "output").iterdir()) == []
    finish(path)
    assert_whole(path.parent)
    assert sum(book.ledger.billed.values()) == ROWS


def test_sigquit_shows_where_each_thread_stands_and_the_run_goes_on(
    job: tuple[Path, SimulatedProvider],
) -> None:
    path, book = job
    with started(path) as process:
        wait_for(book, 60)
        process.send_signal(signal.SIGQUIT)
        _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err
    assert "most recent call first" in err
    assert "journal/writer.py" in err
    assert re.search(r"(\d+) calls in flight \(one: \1\)\n  for \d+\.\d s: one, row \d+\n", err)
    assert_whole(path.parent)


def test_a_run_whose_lock_was_removed_is_fenced_off_by_the_next_one(tmp_path: Path) -> None:
    """The first one is slow, and would go on for long."""
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "job.yaml"

    def write(in_flight: int) -> None:
        lane = rig.lane(urls[0], "one", limits={"concurrency": in_flight})
        path.write_text(json.dumps(rig.job(tmp_path, [lane])), "utf-8")

    with rig.served({"latency": {"median_s": 0.4}}) as (urls, books):
        write(8)
        with started(path) as first:
            wait_for(books[0], 10)
            write(ROWS)
            (path.parent / "out" / ".batchllm" / "lock").unlink()
            with started(path) as second:
                _, said = second.communicate(timeout=BOUND_S)
            _, err = first.communicate(timeout=BOUND_S)
    assert second.returncode == 0, said
    assert first.returncode == 70, err
    assert "another run has taken over" in err
    assert_whole(path.parent)


@pytest.mark.parametrize("turn", range(3))
def test_of_two_that_start_at_once_one_runs_and_one_leaves(
    job: tuple[Path, SimulatedProvider], turn: int
) -> None:
    path, book = job
    with started(path) as first, started(path) as second:
        said = [process.communicate(timeout=BOUND_S)[1] for process in (first, second)]
    assert sorted([first.returncode, second.returncode]) == [0, 75], said
    assert_whole(path.parent)
    assert sum(book.ledger.billed.values()) == ROWS


def test_a_second_run_leaves_at_once_while_the_first_goes_on(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 1)
    with rig.served({"latency": {"median_s": 600.0}}) as (urls, books):
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(rig.job(tmp_path, [rig.lane(urls[0], "one")])), "utf-8")
        with started(path) as first:
            wait_for(books[0], 1)
            with started(path) as second:
                _, err = second.communicate(timeout=BOUND_S)
            assert second.returncode == 75
            assert str(first.pid) in err
            assert first.poll() is None
        assert books[0].ledger.accepted == 1
