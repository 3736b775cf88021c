"""The thread that writes the heartbeat of a run, and what a run hands it."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import job_rig as rig
import pytest
from process_rig import wait_until
from voting_rig import POSITIVE, SCHEMA

from batchllm.cli.main import _AskedToEnd
from batchllm.engine.heartbeat import beating
from batchllm.engine.vitals import Moment, Vitals
from batchllm.errors import ExitCode, JobError, StorageError
from batchllm.events import RunStats
from batchllm.journal.files import Layout
from batchllm.journal.heartbeat import Beat, read_beat


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    Layout(out).state.mkdir(parents=True)
    return out


def last(out: Path) -> Beat:
    beat = read_beat(out)
    assert beat is not None
    return beat


def heart(out: Path, say=print, every_s: float = 0.01):
    return beating(out, job="j", started=1.5, every_s=every_s, say=say)


def test_a_run_is_there_from_its_first_moment_and_its_end_is_the_last_word(out: Path) -> None:
    with heart(out, every_s=60) as beats:
        first = last(out)
        beats.ended(ExitCode.ROWS_FAILED)
    assert (first.state, first.pid, first.started, first.code) == ("starting", os.getpid(), 1.5, None)
    assert (last(out).state, last(out).code) == ("done", 3)


def test_what_the_run_does_is_looked_at_again_and_again(out: Path) -> None:
    seen: list[float] = []

    def look(now: Moment) -> Vitals:
        seen.append(now.monotonic_s)
        return Vitals(phase="running", total=100, ok=len(seen))

    with heart(out) as beats:
        beats.follow(look)
        wait_until(lambda: last(out).ok >= 5)
        assert last(out).state == "running"


def test_between_two_beats_only_what_is_news_is_written(out: Path) -> None:
    phases, seen = ["running"], []

    def look(_now: Moment) -> Vitals:
        seen.append(phases[-1])
        return Vitals(phase=phases[-1], ok=len(seen))

    with heart(out, every_s=60) as beats:
        beats.follow(look)
        wait_until(lambda: last(out).state == "running")
        count = last(out).ok
        wait_until(lambda: len(seen) > count)
        assert last(out).ok == count
        phases.append("draining")
        wait_until(lambda: last(out).state == "draining")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("full"), 74),
        (JobError("j", []), 78),
        (KeyboardInterrupt(), 130),
        (_AskedToEnd(signal.SIGTERM), 143),
        (OSError("no"), 74),
        (ValueError("bug"), 1),
    ],
)
def test_an_error_is_told_with_the_code_that_the_command_ends_with(
    out: Path, error: BaseException, code: int
) -> None:
    with pytest.raises(type(error)), heart(out):
        raise error
    assert last(out).code == code


def test_a_folder_that_vanishes_ends_nothing(out: Path) -> None:
    looks: list[Moment] = []

    def look(now: Moment) -> Vitals:
        looks.append(now)
        return Vitals(phase="running")

    with heart(out) as beats:
        shutil.rmtree(out)
        beats.follow(look)
        wait_until(lambda: len(looks) > 3)
    assert not out.exists()


def test_a_bug_in_what_it_looks_at_is_said_once_and_ends_nothing(out: Path) -> None:
    said: list[str] = []

    def look(_now: Moment) -> Vitals:
        raise ZeroDivisionError("no")

    with heart(out, said.append) as beats:
        beats.follow(look)
        wait_until(lambda: said)
    assert said == ["bug in batchllm: no heartbeat any more: ZeroDivisionError: no"]


@contextmanager
def peeking(out: Path, beats: list[Beat]) -> Iterator[None]:
    """At the moment at which the run is over and its loop still turns."""
    yield
    wait_until(lambda: last(out).total > 0)
    beats.append(last(out))


def test_a_run_hands_over_its_counts_its_money_and_its_lanes_and_nothing_that_was_asked(
    tmp_path: Path,
) -> None:
    from batchllm.engine.local import execute
    from batchllm.engine.options import Options
    from batchllm.spec.loading import load_mapping

    out, beats = tmp_path / "out", []
    rig.write_rows(tmp_path / "rows.jsonl", 30)
    right, wrong = ({"answers": [{"pattern": ".", "reply": reply}]} for reply in (POSITIVE, "canary answer"))
    with rig.served(right, wrong) as (urls, _):
        price = {"price": {"input": 1.0, "output": 1.0}}
        lanes = [
            rig.lane(url, name, api_key="canary-key", limits={"rpm": 6_000}, **price)
            for url, name in zip(urls, "ab", strict=True)
        ]
        task = {
            "type": "chat",
            "prompt": "canary {{ text }}",
            "params": {"max_tokens": 20},
            "schema": SCHEMA,
            "repair": False,
        }
        more = {"budget": {"usd": 2}, "routing": "all", "retry": {"max_attempts": 1}}
        spec = rig.job(tmp_path, lanes, task=task, **more)

        def watch(_stats: RunStats, _title: str):
            return peeking(out, beats)

        options = Options(beat_s=0.01, watch=watch, environ={"BATCHLLM_STATE_DIR": str(tmp_path / "state")})
        summary = execute(load_mapping(spec, folder=tmp_path, environ={}), options)
    (beat,) = beats
    assert (beat.job, beat.slots, beat.total, beat.budget_usd) == ("test", 2, 60, 2.0)
    assert [(lane.name, lane.rpm) for lane in beat.lanes] == [("a", 6_000), ("b", 6_000)]
    assert beat.turned_s is not None
    end = last(out)
    assert (end.state, end.code, end.ok, end.failed) == ("done", summary.exit_code, 30, 30)
    assert end.spent_usd is not None
    assert 0 < end.spent_usd < 1
    assert end.unsaved == 0
    text = (Layout(out).state / "status.json").read_text() + json.dumps([str(beat)])
    assert "canary" not in text
    assert "text number" not in text
