"""Whole jobs, from rows in a file to Parquet, over real sockets."""

import asyncio
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import job_rig as rig
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchllm
from batchllm.errors import (
    BatchllmError,
    ChangedJobError,
    ExitCode,
    InputDataError,
    InputMissingError,
    JobError,
    LockedError,
    OutputError,
)
from batchllm.journal import OutputLock, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_every_row_has_the_answer_that_was_sent_for_it(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 300, kind="a")
    with rig.served({"latency": {"median_s": 0.005}}) as (urls, books):
        summary = rig.run(
            folder,
            rig.job(
                folder, [rig.lane(urls[0], "one")], output={"path": str(folder / "out"), "carry": ["kind"]}
            ),
        )
        billed = books[0].ledger.billed
    output = rig.table(folder, "output")
    assert summary.exit_code == ExitCode.OK
    assert summary.is_complete
    assert output["row"].to_list() == list(range(300))
    assert output["id"].to_list() == [f"r{n}" for n in range(300)]
    assert output["kind"].unique().to_list() == ["a"]
    assert output["content"].n_unique() == 300
    assert all(f"text number {n}" in content for n, content in enumerate(output["content"]))
    assert sum(billed.values()) == 300
    assert rig.table(folder, "usage").height == 300
    assert rig.table(folder, "failures").height == 0


def test_three_lanes_with_errors_and_one_that_dies_answer_everything(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 600)
    spec = {"latency": {"median_s": 0.01, "p99_s": 0.05}, "faults": {"error_rate": 0.05}}
    with rig.served(
        {**spec, "seed": 1}, {**spec, "seed": 1}, {**spec, "seed": 1, "faults": {"die_after": 60}}
    ) as (urls, books):
        lanes = [rig.lane(url, f"lane{n}", limits={"concurrency": 8}) for n, url in enumerate(urls)]
        summary = rig.run(folder, rig.job(folder, lanes))
        calls = sum(book.ledger.accepted for book in books)
    output, usage = rig.table(folder, "output"), rig.table(folder, "usage")
    assert summary.exit_code == ExitCode.OK
    assert output["row"].to_list() == list(range(600))
    assert all(f"text number {n}" in content for n, content in enumerate(output["content"]))
    assert usage.height == calls
    assert usage.filter(pl.col("status") == 500).height > 0
    assert set(output["lane"].unique()) == {"lane0", "lane1", "lane2"}


def test_a_second_start_of_a_finished_job_sends_nothing(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 20)
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        rig.run(folder, spec)
        before = (folder / "out" / "manifest.json").read_bytes()
        again = rig.run(folder, spec)
        assert books[0].ledger.accepted == 20
    assert again.exit_code == ExitCode.OK
    assert again.reused == 20
    assert again.ok == 0
    assert (folder / "out" / "manifest.json").read_bytes() == before


def test_rows_of_a_limited_run_are_reused(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 50)
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        first = rig.run(folder, spec, limit=12)
        assert rig.table(folder, "output").height == 12
        second = rig.run(folder, spec)
        assert books[0].ledger.accepted == 50
    assert (first.exit_code, first.is_complete, first.ok) == (ExitCode.OK, False, 12)
    assert (second.is_complete, second.ok, second.reused) == (True, 38, 12)
    assert rig.table(folder, "output")["row"].to_list() == list(range(50))


def test_all_sends_each_row_to_each_lane(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 30)
    with rig.served({"seed": 1}, {"seed": 2}) as (urls, _):
        lanes = [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)]
        summary = rig.run(folder, rig.job(folder, lanes, routing="all"))
    output = rig.table(folder, "output")
    assert summary.exit_code == ExitCode.OK
    assert output.select("row", "lane").rows() == [(n, f"lane{k}") for n in range(30) for k in range(2)]


def test_fallback_answers_from_the_second_lane_when_the_first_is_down(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 40)
    with rig.served({"faults": {"die_after": 0}}, {}) as (urls, _):
        lanes = [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)]
        summary = rig.run(folder, rig.job(folder, lanes, routing="fallback"))
    assert summary.exit_code == ExitCode.OK
    assert rig.table(folder, "output")["lane"].unique().to_list() == ["lane1"]


def test_schema_answers_become_typed_columns(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 25)
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["a", "b"]},
            "score": {"type": "number"},
            "count": {"type": "integer"},
            "ok": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["label", "score", "count", "ok", "tags"],
    }
    with rig.served({}) as (urls, _):
        task = {"type": "chat", "prompt": "{{ text }}", "schema": schema, "params": {"max_tokens": 200}}
        summary = rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")], task=task))
    output = rig.table(folder, "output")
    assert summary.exit_code == ExitCode.OK
    assert dict(output.select("label", "score", "count", "ok", "tags").schema) == {
        "label": pl.String,
        "score": pl.Float64,
        "count": pl.Int64,
        "ok": pl.Boolean,
        "tags": pl.List(pl.String),
    }
    assert all(json.loads(c)["label"] == label for c, label in output.select("content", "label").iter_rows())


def test_embeddings_come_as_fixed_size_lists_in_their_own_rows(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 100)
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 16, "inputs_per_request": 7}
    with rig.served({"dimensions": 16}) as (urls, books):
        summary = rig.run(
            folder, rig.job(folder, [rig.lane(urls[0], "one", limits={"concurrency": 5})], task=task)
        )
        assert books[0].ledger.accepted == 15
    part = next((folder / "out" / "output").glob("*.parquet"))
    column = pq.read_schema(part).field("embedding").type
    assert summary.exit_code == ExitCode.OK
    assert column == pa.list_(pa.float32(), 16)
    output = rig.table(folder, "output")
    assert output["row"].to_list() == list(range(100))
    assert output["embedding"].n_unique() == 100
    assert output["prompt_tokens"].sum() == rig.table(folder, "usage")["prompt_tokens"].sum()


def test_moderation_of_parquet_rows_keeps_their_types(folder: Path) -> None:
    frame = pl.DataFrame({"id": [3, 1, 2], "text": ["fine", "I hate you", "nice"], "n": [1.5, None, 2.5]})
    frame.write_parquet(folder / "rows.parquet")
    rules = [{"pattern": "hate", "reply": {"harassment": 0.9}}]
    with rig.served({"answers": rules}) as (urls, _):
        summary = rig.run(
            folder,
            rig.job(
                folder,
                [rig.lane(urls[0], "one")],
                input={"path": "rows.parquet", "key": "id"},
                task={"type": "moderation", "text": "{{ text }}"},
                output={"path": str(folder / "out"), "carry": ["n"]},
            ),
        )
    output = rig.table(folder, "output")
    assert summary.exit_code == ExitCode.OK
    assert output["id"].to_list() == [3, 1, 2]
    assert output["flagged"].to_list() == [False, True, False]
    assert output["categories"].to_list() == [[], ["harassment"], []]
    assert output["n"].to_list() == [1.5, None, 2.5]


def test_completion_answers(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, _):
        spec = rig.job(
            folder, [rig.lane(urls[0], "one")], task={"type": "completion", "prompt": "{{ text }}"}
        )
        assert rig.run(folder, spec).exit_code == ExitCode.OK
    assert rig.table(folder, "output")["content"].n_unique() == 5


def test_bad_lines_become_failures_and_the_others_go_on(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(
        '{"id": "a", "text": "x"}\nnot json\n{"id": "c", "text": "z"}\n{"id": "d"}\n'
    )
    with rig.served({}) as (urls, _):
        summary = rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
    failures = rig.table(folder, "failures")
    assert summary.exit_code == ExitCode.ROWS_FAILED
    assert summary.is_complete
    assert rig.table(folder, "output")["id"].to_list() == ["a", "c"]
    assert failures.select("row", "id", "class").rows() == [(1, None, "input"), (3, "d", "template")]
    assert "rows.jsonl:2" in failures["message"][0]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_that_the_template_can_do_without_may_be_missing(folder: Path, kind: str) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "text": ["one", "two"]})
    path = folder / f"rows.{kind}"
    {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}[kind](path)
    task = {"type": "chat", "prompt": "{{ title | default('untitled') }}: {{ text }}"}
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")], task=task, input={"path": path.name, "key": "id"})
        assert rig.run(folder, spec).exit_code == ExitCode.OK
        assert set(books[0].ledger.billed) == {"untitled: one", "untitled: two"}


def test_a_second_start_does_not_pay_for_failures_again(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "x"}\nnot json\n')
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        first, second = rig.run(folder, spec), rig.run(folder, spec)
        assert books[0].ledger.accepted == 1
    assert first.exit_code == second.exit_code == ExitCode.ROWS_FAILED
    assert rig.table(folder, "failures").height == 1


def test_failed_rows_are_asked_again_when_that_is_wanted(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 30)
    with rig.served({"faults": {"error_rate": 0.4}}) as (urls, books):
        spec = rig.job(
            folder, [rig.lane(urls[0], "one", limits={"concurrency": 1})], retry={"max_attempts": 1}
        )
        first = rig.run(folder, spec)
        kept = rig.table(folder, "output")["content"].to_list()
        asked = books[0].ledger.accepted
        spec = {**spec, "retry": {"max_attempts": 9, "backoff_s": 0.01}}
        second = rig.run(folder, spec, retries_failed=True)
        again = sum(1 for count in books[0].ledger.billed.values() if count)
    output = rig.table(folder, "output")
    assert asked == 30
    assert first.failed > 0
    assert (second.exit_code, second.ok, second.reused) == (ExitCode.OK, first.failed, first.ok)
    assert output["row"].to_list() == list(range(30))
    assert set(kept) <= set(output["content"])
    assert rig.table(folder, "failures").height == 0
    assert again == 30


def test_failed_rows_that_a_stop_kept_from_being_asked_again_are_asked_the_next_time(folder: Path) -> None:
    """And no others: ten rows were never reached. What the run says leaves no doubt that they are open."""
    rig.write_rows(folder / "rows.jsonl", 40)
    with rig.served({"faults": {"error_rate": 0.4}}) as (urls, books):
        one = rig.lane(urls[0], "one", limits={"concurrency": 1}, price={"input": 1.0, "output": 1.0})
        spec = rig.job(folder, [one], retry={"max_attempts": 1, "backoff_s": 0.01})
        spec["task"]["params"] = {"max_tokens": 20}
        first = rig.run(folder, spec, limit=30)
        spec["retry"]["max_attempts"] = 20
        budget = {"usd": first.spent_usd + 0.0001}  # for some of them
        stopped = rig.run(folder, {**spec, "budget": budget}, retries_failed=True)
        failed_now = rig.table(folder, "failures").height
        last = rig.run(folder, spec, retries_failed=True)
    assert stopped.exit_code == ExitCode.LIMIT_STOPPED
    assert 0 < stopped.ok < first.failed - failed_now
    assert (last.exit_code, last.ok + stopped.ok, last.pending) == (ExitCode.OK, first.failed, 0)
    assert last.ending == "10 others are still to be asked: start without --retry-failed"
    assert sorted(rig.table(folder, "output")["row"]) == list(range(30))
    assert {f"text number {n}" for n in range(30)} == set(books[0].ledger.billed)


def test_counts_that_a_hand_has_written_into_the_manifest_are_not_believed(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 3)
    path = folder / "out" / "manifest.json"
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        rig.run(folder, spec)
        whole = json.loads(path.read_text("utf-8"))
        edited = {**whole, "counts": {**whole["counts"], "failed": 2}}
        path.write_text(json.dumps(edited), "utf-8")
        assert rig.run(folder, spec).exit_code == ExitCode.OK
        assert books[0].ledger.accepted == 3
    assert json.loads(path.read_text("utf-8"))["counts"] == whole["counts"]


def test_the_summary_is_not_written_through_a_link(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 3)
    precious = folder / "precious"
    precious.write_text("precious")
    with rig.served({}) as (urls, _):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        (folder / "out" / ".batchllm").mkdir(parents=True)
        (folder / "out" / ".batchllm" / "summary.new").symlink_to(precious)
        (folder / "out" / "summary.txt").symlink_to(precious)
        assert rig.run(folder, spec).exit_code == ExitCode.OK
    assert precious.read_text() == "precious"
    assert "complete" in (folder / "out" / "summary.txt").read_text()


def test_a_foreign_file_among_the_parts_is_said_and_left(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 3)
    said: list[str] = []
    with rig.served({}) as (urls, _):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        rig.run(folder, spec)
        foreign = folder / "out" / "output" / "foreign.parquet"
        pl.DataFrame({"a": [1]}).write_parquet(foreign)
        rig.run(folder, spec, say=said.append)
    assert "foreign.parquet" in said[0]
    assert foreign.exists()


def test_empty_input_is_said_and_leaves_complete_empty_tables(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("")
    said: list[str] = []
    with rig.served({}) as (urls, _):
        summary = rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]), say=said.append)
    assert "rows.jsonl has no rows" in said[0]
    assert summary.exit_code == ExitCode.OK
    assert summary.is_complete
    assert rig.table(folder, "output").height == 0
    assert "content" in rig.table(folder, "output").columns


def test_duckdb_reads_the_folder_as_it_is(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 10)
    with rig.served({}) as (urls, _):
        rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
    found = duckdb.read_parquet(f"{folder}/out/output/*.parquet")
    assert found.aggregate("count(*), count(DISTINCT content)").fetchall() == [(10, 10)]


def test_simulated_answers_are_marked_in_column_manifest_and_summary(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 10)
    lanes = [{"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.0}}}]
    summary = rig.run(folder, rig.job(folder, lanes))
    manifest = read_manifest(folder / "out")
    assert summary.is_simulated
    assert manifest is not None
    assert manifest.simulated
    assert rig.table(folder, "output")["simulated"].all()


def test_answers_of_a_simulator_behind_a_base_url_are_marked_too(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 3)
    with rig.served({}) as (urls, books):
        summary = rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
        assert books[0].ledger.accepted == 3
    assert summary.is_simulated
    assert rig.table(folder, "output")["simulated"].all()


def test_the_price_of_answers_does_not_matter_to_vectors(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 10)
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 8}
    with rig.served({}) as (urls, _):
        lane = rig.lane(urls[0], "one", price={"input": 1.0, "output": 2.0})
        summary = rig.run(folder, rig.job(folder, [lane], task=task))
    usage = rig.table(folder, "usage")
    assert summary.cost_usd == pytest.approx(usage["prompt_tokens"].sum() / 1e6)


def test_rows_given_as_dicts_take_their_declared_types(folder: Path) -> None:
    rows = [{"id": "a", "text": "one", "n": 3}]
    spec = {
        "name": "typed",
        "input": {"key": "id", "columns": {"n": "int64"}},
        "task": {"type": "chat", "prompt": "{{ text }}"},
        "providers": [{"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.0}}}],
        "output": {"path": "out", "carry": ["n"]},
    }
    assert batchllm.run(spec, rows=rows, folder=folder).output.collect()["n"].to_list() == [3]


def test_a_budget_stops_the_run_and_a_higher_one_goes_on(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 100)
    price = {"input": 10.0, "output": 10.0}
    task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 20}}
    with rig.served({}) as (urls, books):
        lanes = [rig.lane(urls[0], "one", price=price)]
        small = rig.job(folder, lanes, task=task, budget={"usd": 0.01})
        stopped = rig.run(folder, small)
        paid = rig.table(folder, "usage")["cost_usd"].sum()
        large = rig.run(folder, {**small, "budget": {"usd": 1.0}})
        assert books[0].ledger.accepted == 100
    assert stopped.exit_code == ExitCode.LIMIT_STOPPED
    assert 0 < paid <= 0.01
    assert large.is_complete
    assert large.spent_usd is not None
    assert large.spent_usd > 0.01


def test_keys_reach_the_provider_and_nothing_else(folder: Path) -> None:
    canary = "sk-canary-0123456789abcdef"
    rig.write_rows(folder / "rows.jsonl", 5)
    from batchllm.engine.local import execute
    from batchllm.engine.options import Options
    from batchllm.spec.loading import load_mapping

    with rig.served({"faults": {"error_rate": 0.3}}) as (urls, _):
        spec = rig.job(folder, [rig.lane(urls[0], "one", api_key="${CANARY}")])
        loaded = load_mapping(spec, folder=folder, environ={"CANARY": canary})
        summary = execute(loaded, Options(environ={"CANARY": canary}))
    assert summary.exit_code == ExitCode.OK
    assert canary not in repr(summary)
    assert canary not in repr(loaded)
    for path in (folder / "out").rglob("*"):
        assert not path.is_file() or canary.encode() not in path.read_bytes()


def test_a_rejected_key_stops_with_its_own_code(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)

    async def serve() -> tuple[Any, str]:
        from batchllm.simulate import SimulatedProvider
        from batchllm.spec.lanes import Simulation

        provider = SimulatedProvider(Simulation(), api_key="right")
        return provider, await provider.start()

    async def main() -> Any:
        provider, url = await serve()
        try:
            return await asyncio.to_thread(
                rig.run, folder, rig.job(folder, [rig.lane(url, "one", api_key="wrong-key")])
            )
        finally:
            await provider.stop()

    summary = asyncio.run(main())
    assert summary.exit_code == ExitCode.NO_PERMISSION
    assert summary.pending == 5
    assert rig.table(folder, "failures").height == 0


def test_nobody_there_is_unavailable_and_a_later_start_goes_on(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, _):
        gone = urls[0]
    summary = rig.run(
        folder, rig.job(folder, [rig.lane(gone, "one")], retry={"patience_s": 0.5, "backoff_s": 0.05})
    )
    assert summary.exit_code == ExitCode.UNAVAILABLE
    assert summary.pending == 5
    with rig.served({}) as (urls, books):
        again = rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
    assert (again.exit_code, again.is_complete, again.ok) == (ExitCode.OK, True, 5)
    assert books[0].ledger.accepted == 5


def test_another_run_holds_the_output(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, books), OutputLock.acquire(folder / "out", about={}):
        with pytest.raises(LockedError):
            rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
        assert books[0].ledger.accepted == 0


def test_a_changed_prompt_is_refused_with_what_changed(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        rig.run(folder, spec)
        with pytest.raises(ChangedJobError, match=r"task\.prompt"):
            rig.run(folder, {**spec, "task": {"type": "chat", "prompt": "Other: {{ text }}"}})
        assert books[0].ledger.accepted == 5


def test_changed_limits_are_no_change(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, books):
        rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
        rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one", limits={"rpm": 10})]))
        assert books[0].ledger.accepted == 5


def test_a_changed_input_without_a_key_is_refused(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, books):
        spec = rig.job(folder, [rig.lane(urls[0], "one")], input={"path": "rows.jsonl"})
        rig.run(folder, spec)
        rig.write_rows(folder / "rows.jsonl", 6)
        with pytest.raises(InputDataError, match="changed"):
            rig.run(folder, spec)
        assert books[0].ledger.accepted == 5


BAD_JOBS: dict[str, tuple[dict[str, Any], type[BatchllmError], str]] = {
    "missing input": ({"input": {"path": "nowhere.jsonl"}}, InputMissingError, r"nowhere\.jsonl"),
    "unknown key": ({"routign": "spread"}, JobError, "routing"),
    "unknown provider": ({"providers": [{"provider": "opnai", "model": "x"}]}, JobError, "openai"),
    "missing variable": (
        {
            "providers": [
                {
                    "provider": "custom",
                    "model": "x",
                    "base_url": "http://localhost:1/v1",
                    "api_key": "${NOPE}",
                }
            ]
        },
        JobError,
        "NOPE",
    ),
    "missing key": ({"providers": [{"provider": "groq", "model": "fast"}]}, JobError, "GROQ_API_KEY"),
    "missing column": ({"task": {"type": "chat", "prompt": "{{ txet }}"}}, JobError, "did you mean text"),
    "template syntax": ({"task": {"type": "chat", "prompt": "{{ text"}}, JobError, r"task\.prompt"),
    "bad schema": (
        {"task": {"type": "chat", "prompt": "x", "schema": {"type": "array"}}},
        JobError,
        r"task\.schema",
    ),
    "dead endpoint": (
        {
            "task": {"type": "completion", "prompt": "x"},
            "providers": [{"provider": "groq", "model": "x", "api_key": "k"}],
        },
        JobError,
        "completion",
    ),
    "budget without price": (
        {
            "providers": [{"provider": "custom", "model": "x", "base_url": "http://localhost:1/v1"}],
            "budget": {"usd": 1},
        },
        JobError,
        "price",
    ),
    "embedding models mixed": (
        {
            "task": {"type": "embedding", "text": "{{ text }}", "dimensions": 8},
            "providers": [
                {"provider": "custom", "name": "a", "model": "x", "base_url": "http://localhost:1/v1"},
                {"provider": "custom", "name": "b", "model": "y", "base_url": "http://localhost:1/v1"},
            ],
        },
        JobError,
        "do not mix",
    ),
}


@pytest.mark.parametrize("name", BAD_JOBS)
def test_a_bad_job_is_refused_before_the_output_is_touched(folder: Path, name: str) -> None:
    changes, error, pattern = BAD_JOBS[name]
    rig.write_rows(folder / "rows.jsonl", 5)
    spec = rig.job(
        folder, [{"provider": "custom", "model": "x", "base_url": "http://localhost:1/v1"}], **changes
    )
    with pytest.raises(error, match=pattern):
        rig.run(folder, spec)
    assert not (folder / "out").exists()


def test_a_missing_input_is_told_beside_the_faults_of_the_job(folder: Path) -> None:
    lanes = [{"provider": "opnai", "model": "x"}]
    with pytest.raises(JobError) as caught:
        rig.run(folder, rig.job(folder, lanes, input={"path": "nowhere.jsonl"}))
    assert "opnai" in str(caught.value)
    assert "nowhere.jsonl" in str(caught.value)


def test_duplicate_keys_are_refused_with_their_places(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(
        '{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n{"id": "a", "text": "z"}\n'
    )
    with rig.served({}) as (urls, books):
        with pytest.raises(InputDataError, match=r"rows\.jsonl:1.*rows\.jsonl:3"):
            rig.run(folder, rig.job(folder, [rig.lane(urls[0], "one")]))
        assert books[0].ledger.accepted == 0


def test_an_unreadable_parquet_is_refused(folder: Path) -> None:
    (folder / "rows.parquet").write_bytes(b"PAR1 this is not Parquet")
    with pytest.raises(InputDataError, match=r"rows\.parquet"):
        rig.run(
            folder,
            rig.job(folder, [rig.lane("http://localhost:1/v1", "one")], input={"path": "rows.parquet"}),
        )


def test_an_output_that_cannot_be_made_is_refused(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 5)
    (folder / "out").write_text("a file is in the way")
    with pytest.raises(OutputError):
        rig.run(folder, rig.job(folder, [rig.lane("http://localhost:1/v1", "one")]))


def test_python_runs_frames_and_returns_lazy_frames(folder: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "text": ["one", "two"]})
    spec = {
        "name": "frames",
        "input": {"key": "id"},
        "task": {"type": "chat", "prompt": "{{ text }}"},
        "providers": [{"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.0}}}],
        "output": {"path": "out"},
    }
    result = batchllm.run(spec, rows=frame, folder=folder)
    assert result.ok
    assert result.output.collect()["id"].to_list() == ["a", "b"]
    assert result.usage.collect().height == 2
    assert result.failures.collect().height == 0
    assert result.summary.ok == 2
    again = batchllm.run(spec, rows=frame, folder=folder)
    assert (again.summary.ok, again.summary.reused) == (0, 2)
    changed = batchllm.run(spec, rows=frame.with_columns(text=pl.lit("other")), folder=folder)
    assert (changed.summary.ok, changed.summary.reused) == (2, 0)


async def test_python_runs_inside_a_running_loop(folder: Path) -> None:
    rows = [{"id": "a", "text": "one"}]
    spec = {
        "name": "notebook",
        "input": {"key": "id"},
        "task": {"type": "chat", "prompt": "{{ text }}"},
        "providers": [{"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.0}}}],
        "output": {"path": "out"},
    }
    result = batchllm.run(spec, rows=rows, folder=folder)
    assert result.ok


def test_the_record_knows_how_a_run_ended_that_never_sent_anything(folder: Path) -> None:
    rows = rig.write_rows(folder / "rows.jsonl", 5)
    with rig.served({}) as (urls, _):
        spec = rig.job(folder, [rig.lane(urls[0], "one")])
        rig.run(folder, spec, limit=2)
        rows.write_text(rows.read_text("utf-8") * 2, "utf-8")
        with pytest.raises(InputDataError):
            rig.run(folder, spec)
    with sqlite3.connect(folder / "out" / ".batchllm" / "journal.db") as database:
        codes = [code for (code,) in database.execute("SELECT exit_code FROM runs ORDER BY run")]
    database.close()
    assert codes == [ExitCode.OK, ExitCode.DATA]


def test_all_is_resumed_with_what_each_lane_still_owes(folder: Path) -> None:
    """The second lane had finished more rows than the first when the run was stopped by its budget."""
    rig.write_rows(folder / "rows.jsonl", 60)
    dear = {"input": 100.0, "output": 100.0}
    with rig.served({"latency": {"median_s": 0.01}}, {"latency": {"median_s": 0.1}}) as (urls, books):
        lanes = [
            rig.lane(url, name, price=dear, limits={"concurrency": 2})
            for url, name in zip(urls, ("one", "two"), strict=True)
        ]
        spec = rig.job(
            folder,
            lanes,
            routing="all",
            task={"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 20}},
        )
        stopped = rig.run(folder, {**spec, "budget": {"usd": 0.05}})
        assert stopped.exit_code == ExitCode.LIMIT_STOPPED
        assert 0 < stopped.ok < 120
        done = rig.run(folder, spec)
        billed = [sum(book.ledger.billed.values()) for book in books]
    assert (done.exit_code, done.ok + done.reused, done.pending) == (ExitCode.OK, 120, 0)
    assert billed == [60, 60]
    output = rig.table(folder, "output")
    assert output.group_by("row").len()["len"].to_list() == [2] * 60


def test_with_all_a_bad_line_leaves_nothing_pending(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "x"}\nno JSON\n')
    with rig.served({}, {}) as (urls, _):
        lanes = [rig.lane(url, name) for url, name in zip(urls, ("one", "two"), strict=True)]
        summary = rig.run(folder, rig.job(folder, lanes, routing="all", input={"path": "rows.jsonl"}))
    assert (summary.exit_code, summary.ok, summary.failed, summary.pending) == (ExitCode.ROWS_FAILED, 2, 2, 0)


def test_python_runs_in_several_threads_at_once(folder: Path) -> None:
    def spec(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "input": {"key": "id"},
            "task": {"type": "chat", "prompt": "{{ text }}"},
            "providers": [
                {"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0.01}}}
            ],
            "output": {"path": name},
        }

    rows = [{"id": f"{n}", "text": f"text {n}"} for n in range(30)]
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(lambda name: batchllm.run(spec(name), rows=rows, folder=folder), ("a", "b", "c"))
        )
    assert [result.summary.ok for result in results] == [30, 30, 30]
    assert [thread.name for thread in threading.enumerate() if "batchllm" in thread.name] == []


def test_calls_that_may_have_been_paid_are_told_to_the_next_run_with_a_budget(folder: Path) -> None:
    rig.write_rows(folder / "rows.jsonl", 20)
    said: list[str] = []
    with rig.served({"faults": {"stall_rate": 0.4}}) as (urls, _):
        lane = rig.lane(urls[0], "one", timeout_s=0.2, price={"input": 1.0, "output": 1.0})
        task = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 20}}
        spec = rig.job(folder, [lane], task=task, budget={"usd": 5.0})
        rig.run(folder, spec, limit=10, say=said.append)
        assert said == []
        rig.run(folder, spec, say=said.append)
    unknown = rig.table(folder, "usage").filter(pl.col("billed") == "unknown").height
    assert unknown > 0
    assert any("may have been paid for without an answer" in text for text in said)
