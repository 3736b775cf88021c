"""`batchllm status` beside runs that work, wait, stall, are killed, and end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import disk_rig
import job_rig as rig
import polars as pl
import pytest
import voting_rig
from process_rig import BOUND_S, ROOT, called, started, wait_for, wait_until
from server_rig import Say, scripted

ROWS = 400
#: A run whose heart beats so fast that a second without a beat tells.
_QUICK = """
import asyncio, sys, time
from contextlib import contextmanager
from pathlib import Path
from batchllm.engine.local import execute
from batchllm.engine.options import Options
from batchllm.spec.loading import load_job

@contextmanager
def watch(stats, title):
    if sys.argv[2:]:
        asyncio.get_running_loop().call_later(0.5, time.sleep, float(sys.argv[2]))
    yield

execute(load_job(Path(sys.argv[1]), environ={}), Options(beat_s=0.05, watch=watch))
"""
SLOW = {"latency": {"median_s": 0.1}}

needs_mounts = pytest.mark.skipif(not disk_rig.has_namespaces(), reason="needs a mount of its own")


def write_job(folder: Path, lanes: Sequence[Mapping[str, Any]], rows: int = ROWS, **more: Any) -> Path:
    rig.write_rows(folder / "rows.jsonl", rows)
    path = folder / "job.yaml"
    path.write_text(json.dumps(rig.job(folder, lanes, **more)), "utf-8")
    return path


def status(target: Path, *args: str) -> tuple[int, dict[str, Any]]:
    done = called("status", str(target), "--json", *args)
    assert done.stderr == "", done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["code"] == done.returncode
    return done.returncode, said


def comes_to(target: Path, state: str, *args: str) -> dict[str, Any]:
    """What is said once it is so."""
    told: list[dict[str, Any]] = []

    def is_so() -> bool:
        told[:] = [status(target, *args)[1]]
        return bool(told[0]["state"] == state)

    wait_until(is_so, state)
    return told[0]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    with rig.served(SLOW) as (urls, books):
        yield write_job(tmp_path, [rig.lane(urls[0], "one", limits={"concurrency": 4})]), books[0]


def test_before_during_and_after_a_kill_and_after_the_end(tmp_path: Path) -> None:
    with rig.served({"latency": {"median_s": 0.02}}) as (urls, books):
        path = write_job(tmp_path, [rig.lane(urls[0], "one", limits={"concurrency": 4})])
        code, said = status(path)
        assert (code, said["state"]) == (75, "new")
        with started(path) as run:
            wait_for(books[0], 20)
            said = comes_to(path, "running")
            assert (said["healthy"], said["pid"], said["rows"]["total"]) == (True, run.pid, ROWS)
            assert said["heartbeat_age_s"] < 30
            assert [lane["name"] for lane in said["lanes"]] == ["one"]
            assert status(tmp_path / "out")[1]["pid"] == run.pid
            run.kill()
            run.wait()
        code, said = status(path)
        assert (code, said["state"], said["active"]) == (75, "killed", False)
        with started(path, "--quiet") as run:
            assert run.wait(BOUND_S) == 0
        code, said = status(path)
        assert (code, said["state"], said["complete"], said["exit_code"]) == (0, "done", True, 0)
        assert said["rows"]["ok"] == ROWS
        (tmp_path / "out" / ".batchllm" / "status.json").unlink()
        code, said = status(path)  # as of an output that an older version made, or of a copy
        assert (code, said["state"], said["rows"]["ok"]) == (0, "done", ROWS)


def test_a_run_that_is_stopped_says_so(job: tuple[Path, Any]) -> None:
    path, book = job
    with started(path) as run:
        wait_for(book, 8)
        run.send_signal(signal.SIGTERM)
        run.communicate(BOUND_S)
    code, said = status(path)
    assert (code, said["state"], said["exit_code"]) == (75, "stopped", 143)
    assert 0 < said["rows"]["ok"] < ROWS


def test_a_start_that_is_refused_is_told_and_the_next_one_heals_it(tmp_path: Path) -> None:
    with rig.served({}) as (urls, _):
        lanes = [rig.lane(urls[0], "one")]
        path = write_job(tmp_path, lanes, rows=3)
        assert called("run", str(path)).returncode == 0
        write_job(tmp_path, lanes, rows=3, task={"type": "chat", "prompt": "other {{ text }}"})
        assert called("run", str(path)).returncode == 78
        code, said = status(path)
        assert (code, said["state"], said["exit_code"], said["rows"]["ok"]) == (1, "failed", 78, 3)
        write_job(tmp_path, lanes, rows=3)
        assert called("run", str(path)).returncode == 0
        assert status(path)[0] == 0


def test_a_long_silence_that_the_provider_asked_for_is_healthy_and_says_until_when(tmp_path: Path) -> None:
    refused = Say(429, {"error": {"message": "slow down"}}, {"Retry-After": "3600"})
    with scripted(refused) as server:
        path = write_job(tmp_path, [rig.lane(server.base_url, "one", limits={"concurrency": 2})])
        with started(path):
            said = comes_to(path, "waiting")
            code, said = status(path)
            assert (code, said["healthy"]) == (0, True)
            assert said["reason"] == "one: the provider asked for silence"
            (lane,) = said["lanes"]
            assert (lane["state"], lane["refused"] > 0, lane["until"]) == ("waiting", True, said["until"])
            page = called("status", str(path)).stdout
            assert "UTC, in 60 min" in page


@contextmanager
def quick(path: Path, *args: str) -> Iterator["subprocess.Popen[bytes]"]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "BATCHLLM_STATE_DIR": str(path.parent / "state")}
    with subprocess.Popen([sys.executable, "-c", _QUICK, str(path), *args], env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_that_is_stopped_is_stalled_and_well_again_when_it_goes_on(job: tuple[Path, Any]) -> None:
    path, book = job
    with quick(path) as run:
        wait_for(book, 8)
        comes_to(path, "running", "--max-age", "2")
        run.send_signal(signal.SIGSTOP)
        said = comes_to(path, "stalled", "--max-age", "2")
        assert (said["code"], said["healthy"], said["active"]) == (1, False, True)
        assert f"kill -CONT {run.pid}" in said["remedy"]
        run.send_signal(signal.SIGCONT)
        comes_to(path, "running", "--max-age", "2")


def test_a_loop_that_is_held_up_is_stalled_although_the_heart_beats(job: tuple[Path, Any]) -> None:
    path, _ = job
    with quick(path, "30"):
        said = comes_to(path, "stalled", "--max-age", "2")
        assert said["code"] == 1
        assert "has not turned" in said["reason"]
        assert said["heartbeat_age_s"] < 2


def test_a_lane_that_is_asked_about_ties_is_told_beneath_its_run(tmp_path: Path) -> None:
    voting_rig.rows(tmp_path, {f"r{n}": f"text {n}" for n in range(40)})
    answers = [voting_rig.POSITIVE, voting_rig.NEGATIVE, voting_rig.POSITIVE]
    specs = [{"answers": [{"pattern": ".", "reply": reply}]} for reply in answers]
    specs[2]["latency"] = {"median_s": 0.3}
    with rig.served(*specs) as (urls, books):
        first, second = (rig.lane(url, name) for url, name in zip(urls, "ab", strict=False))
        third = rig.lane(urls[2], "third", limits={"concurrency": 2})
        path = tmp_path / "job.yaml"
        section = {"ties": {"escalate": third}}
        path.write_text(json.dumps(voting_rig.job(tmp_path, [first, second], section)), "utf-8")
        with started(path) as run:
            wait_for(books[2], 2)
            wait_until(lambda: [one["state"] for one in status(path)[1]["nested"]] == ["running"])
            code, said = status(path)
            assert (code, said["state"]) == (0, "agreeing")
            told = json.loads((tmp_path / "out" / ".batchllm" / "status.json").read_text())
            assert told["turned_s"] is None  # the loop of the voters turns no more, and is not missed
            (nested,) = said["nested"]
            assert (nested["job"], nested["rows"]["total"]) == ("test-escalated", 40)
            assert status(tmp_path / "out" / "consensus" / "escalated")[0] == 0
            run.kill()
            run.wait()
        code, said = status(path)
        assert (code, said["state"], [one["state"] for one in said["nested"]]) == (75, "killed", ["killed"])
        with started(path) as run:
            assert run.wait(BOUND_S) == 0
        code, said = status(path)
        assert (code, said["state"], said["exit_code"], said["nested"]) == (0, "done", 0, [])


def test_a_consensus_of_votes_that_are_there_already_ends_well(tmp_path: Path) -> None:
    for name in "ab":
        ids = [f"r{n}" for n in range(5)]
        pl.DataFrame({"id": ids, "label": ["pos"] * 5}).write_parquet(tmp_path / f"{name}.parquet")
    path = tmp_path / "job.yaml"
    consensus = {"votes": ["a.parquet", "b.parquet"], "over": "label"}
    path.write_text(json.dumps({"name": "offline", "input": {"key": "id"}, "consensus": consensus}))
    done = called("run", str(path))
    assert done.returncode == 0, done.stderr
    code, said = status(path)
    assert (code, said["state"], said["job"], said["rows"]["ok"]) == (0, "done", "offline", 5)


def test_no_key_is_needed_to_ask(tmp_path: Path) -> None:
    path = write_job(tmp_path, [{"provider": "groq", "model": "fast", "api_key": "${NOT_SET_HERE}"}])
    assert status(path)[1]["state"] == "new"


@pytest.mark.parametrize("name", ["", "none", "none.yaml"])
def test_what_is_no_output_is_refused_with_what_to_name(tmp_path: Path, name: str) -> None:
    done = called("status", str(tmp_path / name))
    assert done.returncode == 66
    assert done.stdout == ""
    assert "job" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_age_that_is_none_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert called("status", str(tmp_path), "--max-age", "0").returncode == 2


@pytest.fixture
def small(tmp_path: Path) -> Iterator[disk_rig.SmallDisk]:
    with disk_rig.small_disk(tmp_path / "disk", 16) as disk:
        yield disk


@contextmanager
def on(disk: disk_rig.SmallDisk, *args: str, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    process = disk.batchllm(*args, **environ)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@needs_mounts
def test_on_a_full_disk_the_run_is_paused_and_healthy_and_its_heart_goes_on(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    answer = "an answer of some length " * 100
    spec = {"latency": {"median_s": 0.03}, "answers": [{"pattern": "text", "reply": answer}]}
    with rig.served(spec) as (urls, books):
        path = tmp_path / "job.yaml"
        lane = rig.lane(urls[0], "one", limits={"concurrency": 32})
        path.write_text(json.dumps(rig.job(small.place, [lane])), "utf-8")

        def told() -> dict[str, Any]:
            with on(small, "status", str(path), "--json") as asked:
                said, error = asked.communicate(timeout=BOUND_S)
            assert error == ""
            return {"exit": asked.returncode, **json.loads(said)}

        with on(small, "run", str(path), BATCHLLM_SPILL_DIR=str(tmp_path / "spill")) as run:
            wait_for(books[0], 60)
            small.fill()
            wait_until(lambda: told()["state"] == "paused")
            small.fill()  # what the run gave up of its reserve
            said = told()
            assert (said["exit"], said["healthy"], said["reason"]) == (0, True, "the disk is full")
            assert said["until"] is not None
            first = beat_at(small)
            wait_until(lambda: beat_at(small) > first, "another heartbeat on the full disk")
            assert small.free_bytes == 0
            small.clear()
            run.communicate(timeout=BOUND_S)
            assert run.returncode == 0
        assert told()["state"] == "done"


def beat_at(disk: disk_rig.SmallDisk) -> float:
    written: float = json.loads((disk.seen / "out" / ".batchllm" / "status.json").read_text())["written"]
    return written


@needs_mounts
def test_on_a_read_only_disk_the_last_word_is_told(tmp_path: Path, small: disk_rig.SmallDisk) -> None:
    with rig.served({}) as (urls, _):
        rig.write_rows(tmp_path / "rows.jsonl", 3)
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(rig.job(small.place, [rig.lane(urls[0], "one")])), "utf-8")
        with on(small, "run", str(path)) as run:
            run.communicate(timeout=BOUND_S)
            assert run.returncode == 0
    small.remount("ro")
    with on(small, "status", str(small.place / "out")) as asked:
        said, error = asked.communicate(timeout=BOUND_S)
    assert (asked.returncode, error) == (0, "")
    assert said.startswith("test: complete")


def test_it_loads_little(tmp_path: Path) -> None:
    path = write_job(tmp_path, [{"provider": "simulator", "model": "m"}], rows=2)
    assert called("run", str(path)).returncode == 0
    probe = (
        "import sys; from batchllm.cli.main import invoke; code = invoke(['status', sys.argv[1]]);"
        "heavy = {'pyarrow', 'polars', 'numpy', 'openai', 'aiohttp', 'pydantic', 'jinja2', 'rich', 'asyncio',"
        " 'uvloop', 'sqlite3'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
