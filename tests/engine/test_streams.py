"""Jobs whose answers come as streams."""

from pathlib import Path
from typing import Any

import pytest
from job_rig import job, lane, run, served, table, write_rows

TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": ({"type": "chat", "prompt": "{{ text }}"}, {}),
    "schema": (
        {
            "type": "chat",
            "prompt": "{{ text }}",
            "schema": {
                "type": "object",
                "properties": {"label": {"enum": ["a", "b"]}},
                "required": ["label"],
            },
        },
        {},
    ),
    "completion": ({"type": "completion", "prompt": "{{ text }}"}, {}),
    "responses": ({"type": "chat", "prompt": "{{ text }}", "system": "Be brief."}, {"api": "responses"}),
}
QUICK = {"latency": {"median_s": 0.002}}


def answers(folder: Path) -> list[dict[str, Any]]:
    columns = ["row", "content", "finish_reason", "model", "prompt_tokens", "completion_tokens"]
    return table(folder, "output").select(columns).to_dicts()


@pytest.mark.parametrize("name", TASKS)
def test_a_stream_answers_what_a_whole_reply_answers(name: str, tmp_path: Path) -> None:
    task, more = TASKS[name]
    found = []
    with served(QUICK) as (urls, _):
        for streams in (False, True):
            folder = tmp_path / str(streams)
            folder.mkdir()
            write_rows(folder / "rows.jsonl", 6)
            summary = run(folder, job(folder, [lane(urls[0], "one", **more)], task=task, stream=streams))
            assert summary.exit_code == 0
            found.append(answers(folder))
            (told_of_lane,) = summary.lanes
            assert (told_of_lane.ttft_s is not None) == streams
            told = table(folder, "usage")["ttft_ms"].drop_nulls()
            assert len(told) == (6 if streams else 0)
            assert all(first > 0 for first in told)
    assert found[0] == found[1]


def test_how_an_answer_comes_does_not_decide_which_it_is(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 4)
    with served(QUICK) as (urls, books):
        run(tmp_path, job(tmp_path, [lane(urls[0], "one")]))
        lanes = [lane(urls[0], "one", stream=True, stall_timeout_s=5.0)]
        summary = run(tmp_path, job(tmp_path, lanes, stream=True))
        assert summary.exit_code == 0
        assert books[0].ledger.accepted == 4


def test_a_lane_says_for_itself(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 4)
    with served(QUICK, QUICK) as (urls, _):
        lanes = [lane(urls[0], "whole", stream=False), lane(urls[1], "streamed")]
        run(tmp_path, job(tmp_path, lanes, stream=True, routing="all"))
    told = {
        name: rows["ttft_ms"].null_count()
        for (name,), rows in table(tmp_path, "usage").partition_by("lane", as_dict=True).items()
    }
    assert told == {"whole": 4, "streamed": 0}


def test_a_stream_that_stalls_is_asked_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 12)
    with served({**QUICK, "seed": 3, "faults": {"stall_rate": 0.3}}) as (urls, _):
        lanes = [lane(urls[0], "one", stall_timeout_s=0.2)]
        summary = run(tmp_path, job(tmp_path, lanes, stream=True))
    usage = table(tmp_path, "usage")
    failed = usage.filter(usage["class"].is_not_null())
    assert summary.exit_code == 0
    assert set(failed["class"]) == {"timeout"}
    assert set(failed["billed"]) == {"unknown"}
    assert failed["ttft_ms"].null_count() == 0
    assert table(tmp_path, "output").height == 12


def test_what_came_of_a_stream_that_broke_stands_with_its_failure(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    with served({**QUICK, "faults": {"cut_rate": 1.0}}) as (urls, _):
        spec = job(tmp_path, [lane(urls[0], "one")], stream=True, retry={"max_attempts": 1})
        assert run(tmp_path, spec).exit_code == 3
    failed = table(tmp_path, "failures").to_dicts()
    assert [(row["class"], row["content"][:5]) for row in failed] == [("connection", "echo ")]


def test_a_body_that_is_kept_is_the_reply_that_the_events_add_up_to(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 1)
    with served(QUICK) as (urls, _):
        output = {"path": str(tmp_path / "out"), "keep": "bodies"}
        run(tmp_path, job(tmp_path, [lane(urls[0], "one")], stream=True, output=output))
    (row,) = table(tmp_path, "output").to_dicts()
    assert row["body"].startswith('{"id":"chatcmpl-')
    assert row["content"] in row["body"]
