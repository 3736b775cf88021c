"""Several answers to a row from the same lane: each is bought once, and stands in its own line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import job_rig as rig
import pytest

from batchllm.engine.repair import Tools, rebuild_job, reparse_job
from batchllm.errors import ChangedJobError, ExitCode, JobError
from batchllm.journal import read_manifest
from batchllm.journal.audit import audit
from batchllm.spec.loading import load_mapping

ROWS = 20
FAST = {"latency": {"median_s": 0.001}}
LABELS = {"type": "object", "properties": {"label": {"enum": ["odd", "even"]}}, "required": ["label"]}
#: Answers that stray differ from one time of asking to the next.
STRAYING = {
    **FAST,
    "noise": 0.4,
    "answers": [
        {"pattern": r"number \d*[13579]\b", "reply": {"label": "odd"}},
        {"pattern": ".", "reply": {"label": "even"}},
    ],
}


def task(**more: Any) -> dict[str, Any]:
    return {"type": "chat", "prompt": "{{ text }}", "schema": LABELS, **more}


def job(folder: Path, urls: list[str], **more: Any) -> dict[str, Any]:
    lanes = [rig.lane(url, f"lane{at}") for at, url in enumerate(urls)]
    return rig.job(folder, lanes, **{"task": task(), "samples": 3, **more})


def lines(folder: Path, *names: str) -> list[tuple[Any, ...]]:
    return rig.table(folder, "output").select("row", *names).rows()


def test_each_row_has_its_samples_from_whichever_lane_has_room(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(STRAYING, FAST) as (urls, books):
        summary = rig.run(tmp_path, job(tmp_path, urls))
        again = rig.run(tmp_path, job(tmp_path, urls))
        assert sum(book.ledger.accepted for book in books) == 3 * ROWS
    assert (summary.exit_code, summary.units, summary.ok, summary.pending) == (ExitCode.OK, 60, 60, 0)
    assert (again.ok, again.reused) == (0, 60)
    assert lines(tmp_path, "sample") == [(row, sample) for row in range(ROWS) for sample in (1, 2, 3)]
    assert audit(tmp_path / "out").is_whole


def test_samples_differ_where_the_model_strays(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(STRAYING) as (urls, _):
        rig.run(tmp_path, job(tmp_path, urls))
    labels: dict[int, set[str]] = {}
    for row, label in lines(tmp_path, "label"):
        labels.setdefault(row, set()).add(label)
    assert {len(found) for found in labels.values()} == {1, 2}


def test_with_routing_all_each_lane_gives_so_many(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(FAST, FAST) as (urls, books):
        summary = rig.run(tmp_path, job(tmp_path, urls, routing="all", samples=2))
        assert [book.ledger.accepted for book in books] == [2 * ROWS, 2 * ROWS]
    assert summary.units == 4 * ROWS
    assert lines(tmp_path, "lane", "sample") == [
        (row, lane, sample) for row in range(ROWS) for lane in ("lane0", "lane1") for sample in (1, 2)
    ]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert (manifest.slots, manifest.samples, manifest.complete) == (4, 2, True)


def test_without_samples_nothing_tells_of_them(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 3)
    with rig.served(FAST) as (urls, _):
        rig.run(tmp_path, job(tmp_path, urls, samples=1))
    assert "sample" not in rig.table(tmp_path, "output").columns
    assert "sample" not in rig.table(tmp_path, "failures").columns


def test_a_run_that_ended_early_goes_on_with_the_samples_that_are_missing(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(FAST) as (urls, books):
        lane = rig.lane(urls[0], "lane0", price={"input": 0.0, "output": 1e5}, limits={"concurrency": 1})
        spec = {**job(tmp_path, urls, task=task(params={"max_tokens": 10})), "providers": [lane]}
        first = rig.run(tmp_path, {**spec, "budget": {"usd": 12.0}})
        second = rig.run(tmp_path, spec)
        assert books[0].ledger.accepted == 3 * ROWS
    assert (first.exit_code, 0 < first.ok < 60) == (ExitCode.LIMIT_STOPPED, True)
    assert first.ok % 3  # in the middle of a row
    assert (second.is_complete, second.ok + second.reused, second.failed) == (True, 60, 0)
    assert lines(tmp_path, "sample") == [(row, sample) for row in range(ROWS) for sample in (1, 2, 3)]
    assert audit(tmp_path / "out").is_whole


def test_failed_samples_alone_are_asked_again(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    wrong = {
        **FAST,
        "answers": [{"pattern": r"number \d*7\b", "reply": {"label": "seven"}}, *STRAYING["answers"]],
    }
    once = {"max_attempts": 1, "backoff_s": 0.01}
    with rig.served(wrong) as (urls, books):
        first = rig.run(tmp_path, job(tmp_path, urls, retry=once))
        before = books[0].ledger.accepted
        rig.run(tmp_path, job(tmp_path, urls, retry=once), retries_failed=True)
        assert books[0].ledger.accepted == before + 6
    assert (first.exit_code, first.ok, first.failed) == (ExitCode.ROWS_FAILED, 54, 6)
    failures = rig.table(tmp_path, "failures").select("row", "sample").sort("row", "sample").rows()
    assert failures == [(row, sample) for row in (7, 17) for sample in (1, 2, 3)]


def test_a_row_that_cannot_be_asked_fails_once_for_all_samples(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "x"}\nno JSON\n{"id": "c", "text": "z"}\n')
    with rig.served(FAST) as (urls, _):
        summary = rig.run(tmp_path, job(tmp_path, urls))
    assert (summary.ok, summary.failed, summary.pending) == (6, 3, 0)
    assert rig.table(tmp_path, "failures").select("row", "sample", "lane").rows() == [(1, None, None)]
    assert audit(tmp_path / "out").is_whole


def test_rows_that_ask_the_same_share_their_samples_one_by_one(tmp_path: Path) -> None:
    texts = ["apple", "pear", "apple", "apple"]
    rows = [{"id": f"r{n}", "text": text} for n, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with rig.served(STRAYING) as (urls, books):
        summary = rig.run(tmp_path, job(tmp_path, urls, dedupe=True, samples=8))
        assert books[0].ledger.accepted == 16
    assert (summary.ok, summary.is_complete) == (32, True)
    found = {
        row: [label for other, label in lines(tmp_path, "label") if other == row] for row in range(len(texts))
    }
    assert found[0] == found[2] == found[3]
    assert lines(tmp_path, "sample") == [(row, sample) for row in range(4) for sample in range(1, 9)]


def test_they_move_with_their_rows_to_another_input(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(STRAYING) as (urls, books):
        rig.run(tmp_path, job(tmp_path, urls))
        before = {(key, sample): label for key, sample, label in keyed(tmp_path)}
        rows = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
        new = json.dumps({"id": "new", "text": "text number 1000"})
        (tmp_path / "rows.jsonl").write_text("\n".join([new, *reversed(rows[2:])]) + "\n", "utf-8")
        rig.run(tmp_path, job(tmp_path, urls))
        assert books[0].ledger.accepted == 3 * ROWS + 3
    after = {(key, sample): label for key, sample, label in keyed(tmp_path)}
    assert Counter(key for key, _ in after) == {"new": 3, **{f"r{n}": 3 for n in range(2, ROWS)}}
    assert all(after[one] == before[one] for one in after if one[0] != "new")
    assert audit(tmp_path / "out").is_whole


def keyed(folder: Path) -> list[tuple[Any, ...]]:
    return rig.table(folder, "output").select("id", "sample", "label").rows()


def test_a_lost_journal_is_made_anew_from_them(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with rig.served(FAST) as (urls, books):
        spec = job(tmp_path, urls, routing="spread")
        rig.run(tmp_path, spec)
        for path in (tmp_path / "out" / ".batchllm").glob("journal.db*"):
            path.unlink()
        done = rebuild_job(load_mapping(spec, folder=tmp_path, environ={}), Tools(environ={}))
        assert (done.is_new, done.ok) == (True, 60)
        assert rig.run(tmp_path, spec).reused == 60
        assert books[0].ledger.accepted == 60
    assert audit(tmp_path / "out").is_whole


def test_they_are_read_again_by_another_schema(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    other = {"type": "object", "properties": {"label": {"enum": ["odd"]}}, "required": ["label"]}
    with rig.served({**STRAYING, "noise": 0.0}, {**STRAYING, "noise": 0.0}) as (urls, _):
        spec = job(tmp_path, urls, routing="all", samples=2)
        rig.run(tmp_path, spec)
        for schema, ok in ((other, ROWS // 2), (LABELS, ROWS)):
            changed = load_mapping({**spec, "task": task(schema=schema)}, folder=tmp_path, environ={})
            reparse_job(changed, Tools(environ={}))
            assert rig.table(tmp_path, "output").height == 4 * ok
            assert audit(tmp_path / "out").is_whole
    assert lines(tmp_path, "lane", "sample") == [
        (row, lane, sample) for row in range(ROWS) for lane in ("lane0", "lane1") for sample in (1, 2)
    ]


def test_their_number_belongs_to_the_record(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 3)
    with rig.served(FAST) as (urls, _):
        rig.run(tmp_path, job(tmp_path, urls))
        with pytest.raises(ChangedJobError, match="one lane, 3 samples → one lane, 2 samples"):
            rig.run(tmp_path, job(tmp_path, urls, samples=2))


def test_samples_of_vectors_are_refused(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 3)
    spec = job(
        tmp_path, ["http://127.0.0.1:1/v1"], task={"type": "embedding", "text": "{{ text }}", "dimensions": 8}
    )
    with pytest.raises(JobError, match="samples of an embedding would be the same vector"):
        rig.run(tmp_path, spec)


@pytest.mark.parametrize(
    ("params", "note"),
    [
        ({"temperature": 0}, "with temperature: 0 the 3 samples of a row are likely to be the same answer"),
        ({"seed": 7}, "with seed: 7 the 3 samples of a row are likely to be the same answer"),
        ({}, None),
        ({"temperature": 0.7}, None),
    ],
)
def test_samples_that_cannot_differ_are_told_of(
    tmp_path: Path, params: dict[str, Any], note: str | None
) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 1)
    with rig.served(FAST) as (urls, _):
        summary = rig.run(tmp_path, job(tmp_path, urls, task=task(params=params)))
    assert [text for text in summary.notes if "samples" in text] == ([] if note is None else [note])


def test_moderation_takes_samples_in_its_packs(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 10)
    with rig.served(FAST) as (urls, books):
        packed = {"type": "moderation", "text": "{{ text }}", "inputs_per_request": 4}
        summary = rig.run(tmp_path, job(tmp_path, urls, task=packed, samples=2))
        assert books[0].ledger.accepted == 6
    assert (summary.ok, summary.is_complete) == (20, True)
    assert lines(tmp_path, "sample") == [(row, sample) for row in range(10) for sample in (1, 2)]
