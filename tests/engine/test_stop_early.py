"""`stop_early`: no more is asked than the vote needs, and no label is another one for it, whatever befalls the run."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest
import voting_rig
import yaml
from process_rig import BOUND_S, killed, started

from batchllm.engine.repair import Tools, rebuild_job, reparse_job
from batchllm.errors import ExitCode, JobError
from batchllm.journal import read_manifest
from batchllm.journal.audit import audit
from batchllm.report.summary import as_mapping
from batchllm.simulate import SimulatedProvider
from batchllm.spec.loading import load_mapping

ROWS = 60
LABELS = {"type": "object", "properties": {"label": {"enum": ["odd", "even", "none"]}}, "required": ["label"]}
RULES = [
    {"pattern": r"number \d*[13579]\b", "reply": {"label": "odd"}},
    {"pattern": ".", "reply": {"label": "even"}},
]
NAMES = ("one", "two", "three")


@contextmanager
def served(noise: float = 0.2, **more: Any) -> Iterator[tuple[list[str], list[SimulatedProvider]]]:
    """Three providers that read alike and stray each in its own way."""
    given = {"latency": {"median_s": 0.001}, "noise": noise, "answers": RULES, **more}
    with rig.served(*({"seed": seed, **given} for seed in (1, 2, 3))) as found:
        yield found


def job(folder: Path, urls: list[str], *, name: str = "out", **consensus: Any) -> dict[str, Any]:
    lanes = [rig.lane(url, lane) for url, lane in zip(urls, NAMES, strict=True)]
    task = {"type": "chat", "prompt": "{{ text }}", "schema": LABELS, "params": {"temperature": 0}}
    return rig.job(
        folder,
        lanes,
        task=task,
        routing="all",
        consensus={"over": "label", "stop_early": True, **consensus},
        output={"path": str(folder / name)},
        retry={"max_attempts": 2, "backoff_s": 0.01, "max_backoff_s": 0.02},
    )


def votes(out: Path) -> dict[int, list[str]]:
    """Row → labels in the order of the lanes."""
    found: dict[int, list[str]] = {}
    for row, label in pl.read_parquet(out / "output" / "*.parquet").select("row", "label").rows():
        found.setdefault(row, []).append(label)
    return found


def agreed(labels: list[str]) -> str | None:
    """By majority of three, at least two."""
    value, count = Counter(labels).most_common(1)[0]
    return value if len(labels) >= 2 and 2 * count > len(labels) else None


def labels(out: Path) -> dict[int, str | None]:
    return {row: agreed(said) for row, said in votes(out).items()}


def read_skipped(out: Path) -> list[tuple[Any, ...]]:
    files = sorted((out / "skipped").glob("*.parquet"))
    return [] if not files else pl.read_parquet(files).select("row", "lane").sort("row").rows()


def check(out: Path, rows: int = ROWS, *, by_majority: bool = True) -> None:
    """Whole, complete, and each unit counted once; nobody was skipped whose vote could have decided."""
    if by_majority:
        found_labels = labels(out)
        assert [row for row, _ in read_skipped(out) if found_labels.get(row) is None] == []
    found = audit(out)
    assert found.findings == []
    manifest = read_manifest(out)
    assert manifest is not None
    assert (manifest.complete, manifest.pending) == (True, 0)
    assert (
        manifest.ok + manifest.failed + manifest.skipped
        == rows * 3
        == found.ok + found.failed + found.skipped
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def test_the_labels_are_those_of_asking_everyone(folder: Path) -> None:
    with served() as (urls, books):
        early = rig.run(folder, job(folder, urls))
        calls = [book.ledger.accepted for book in books]
        rig.run(folder, job(folder, urls, name="all", stop_early=False))
    assert labels(folder / "out") == labels(folder / "all")
    assert calls[:2] == [ROWS, ROWS]
    assert 0 < calls[2] < ROWS // 2
    assert (early.ok, early.saved, early.pending) == (sum(calls), 3 * ROWS - sum(calls), 0)
    assert early.saved_share == pytest.approx(early.saved / (3 * ROWS))
    assert {len(said) for said in votes(folder / "out").values()} == {2, 3}
    check(folder / "out")


def test_the_saving_is_told(folder: Path) -> None:
    with served(noise=0.0) as (urls, _):
        summary = rig.run(folder, job(folder, urls))
        again = rig.run(folder, job(folder, urls))
    assert "calls saved: 60 (33.3 %)" in (folder / "out" / "summary.txt").read_text("utf-8")
    assert as_mapping(summary)["calls_saved"] == {"calls": 60, "share": 0.3333}
    assert (again.ok, again.pending, again.saved) == (0, 0, 60)


def test_other_terms_ask_what_they_need_and_nothing_more(folder: Path) -> None:
    with served() as (urls, books):
        rig.run(folder, job(folder, urls))
        asked = sum(book.ledger.accepted for book in books)
        differing = sum(len(set(said)) > 1 for said in votes(folder / "out").values())
        rig.run(folder, job(folder, urls, rule="unanimous"))
        assert sum(book.ledger.accepted for book in books) == 3 * ROWS  # all have to agree, and all do so far
        check(folder / "out", by_majority=False)
        assert differing == asked - 2 * ROWS
        rig.run(folder, job(folder, urls))
        assert sum(book.ledger.accepted for book in books) == 3 * ROWS
    assert read_skipped(folder / "out") == []


def test_fewer_wanted_votes_skip_again_what_they_do_not_need(folder: Path) -> None:
    """Terms that the kept votes settle cost nothing."""
    with served() as (urls, books):
        rig.run(folder, job(folder, urls))
        before, skipped = sum(book.ledger.accepted for book in books), read_skipped(folder / "out")
        summary = rig.run(folder, job(folder, urls, ties="first"))
        assert sum(book.ledger.accepted for book in books) == before
    assert (summary.saved, read_skipped(folder / "out")) == (len(skipped), skipped)
    check(folder / "out")


def test_switched_off_everyone_is_asked(folder: Path) -> None:
    with served() as (urls, books):
        rig.run(folder, job(folder, urls))
        rig.run(folder, job(folder, urls, stop_early=False))
        assert [book.ledger.accepted for book in books] == [ROWS] * 3
    check(folder / "out")
    assert read_skipped(folder / "out") == []


def test_a_lane_that_fails_rows_brings_in_the_third_and_a_retry_asks_what_is_open(folder: Path) -> None:
    """Each third row fails on the first lane. Settled by the other two, it need not be asked again."""
    wrong = [{"pattern": r"number \d*[369]\b", "reply": {"label": "what?"}}, *RULES]
    specs = [{"latency": {"median_s": 0.001}, "answers": rules} for rules in (wrong, RULES, RULES)]
    with rig.served(*specs) as (urls, books):
        first = rig.run(folder, job(folder, urls))
        failed = [row for row in range(ROWS) if row % 10 in (3, 6, 9)]
        assert (first.exit_code, first.failed) == (ExitCode.ROWS_FAILED, len(failed))
        assert books[2].ledger.accepted == len(failed)
        check(folder / "out")
        before = sum(book.ledger.accepted for book in books)
        second = rig.run(folder, job(folder, urls), retries_failed=True)
        assert sum(book.ledger.accepted for book in books) == before
    assert (second.failed, second.exit_code) == (0, ExitCode.OK)
    assert [row for row, lane in read_skipped(folder / "out") if lane == "one"] == failed
    check(folder / "out")


def test_a_failure_whose_vote_would_decide_is_asked_again(folder: Path) -> None:
    """The first lane fails, and the others differ."""
    wrong = [{"pattern": r"number \d*3\b", "reply": {"label": "what?"}}, *RULES]
    other = [{"pattern": r"number \d*3\b", "reply": {"label": "none"}}, *RULES]
    specs = [{"latency": {"median_s": 0.001}, "answers": rules} for rules in (wrong, RULES, other)]
    with rig.served(*specs) as (urls, books):
        rig.run(folder, job(folder, urls))
        before = [book.ledger.accepted for book in books]
        rig.run(folder, job(folder, urls), retries_failed=True)
        after = [book.ledger.accepted for book in books]
    assert [b - a for a, b in zip(before, after, strict=True)] == [12, 0, 0]
    check(folder / "out")


def test_a_lane_that_is_gone_leaves_open_only_what_its_vote_would_decide(folder: Path) -> None:
    with served() as (urls, _):
        spec = job(folder, urls)
        gone = json.loads(json.dumps(spec))
        gone["providers"][0]["base_url"] = "http://127.0.0.1:9/v1"
        gone["retry"] |= {"patience_s": 0.01}
        first = rig.run(folder, gone)
    differ = [row for row, said in votes(folder / "out").items() if len(set(said)) == 2]
    assert (first.pending, first.failed) == (len(differ), 0)
    assert not first.is_complete
    assert 0 < len(differ) < ROWS // 2
    assert audit(folder / "out").is_whole


def test_new_rows_are_polled_and_old_ones_keep_what_was_skipped(folder: Path) -> None:
    with served() as (urls, books):
        rig.run(folder, job(folder, urls))
        rows = (folder / "rows.jsonl").read_text("utf-8").splitlines()
        changed = json.dumps({"id": "r0", "text": "text number 1001"})
        new = json.dumps({"id": "new", "text": "text number 1000"})
        (folder / "rows.jsonl").write_text("\n".join([new, changed, *reversed(rows[2:])]) + "\n", "utf-8")
        before = sum(book.ledger.accepted for book in books)
        rig.run(folder, job(folder, urls))
        assert 4 <= sum(book.ledger.accepted for book in books) - before <= 6
        rig.run(folder, job(folder, urls, name="all", stop_early=False))
    check(folder / "out")
    assert labels(folder / "out") == labels(folder / "all")


def test_a_lost_journal_is_made_anew_with_what_was_skipped(folder: Path) -> None:
    with served() as (urls, books):
        spec = job(folder, urls)
        rig.run(folder, spec)
        before, skipped = sum(book.ledger.accepted for book in books), read_skipped(folder / "out")
        for path in (folder / "out" / ".batchllm").glob("journal.db*"):
            path.unlink()
        rebuild_job(load_mapping(spec, folder=folder, environ={}), Tools(environ={}))
        check(folder / "out")
        again = rig.run(folder, spec)
        assert sum(book.ledger.accepted for book in books) == before
    assert (again.ok, again.is_complete, read_skipped(folder / "out")) == (0, True, skipped)


def test_of_a_lost_part_the_rows_are_polled_again(folder: Path) -> None:
    """Asked once more the lanes may say something else, and who was skipped is needed after all."""
    with served(noise=0.4) as (urls, _):
        spec = job(folder, urls)
        del spec["task"]["params"]
        rig.run(folder, spec)
        min((folder / "out" / "output").iterdir()).unlink()
        rebuild_job(load_mapping(spec, folder=folder, environ={}), Tools(environ={}), drops_missing=True)
        rig.run(folder, spec)
    check(folder / "out")


def test_rows_that_ask_the_same_share_what_was_skipped(folder: Path) -> None:
    rows = [{"id": f"r{n}", "text": f"text number {n % 20}"} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with served() as (urls, books):
        rig.run(folder, {**job(folder, urls), "dedupe": True})
        assert 40 <= sum(book.ledger.accepted for book in books) < 60
    check(folder / "out")
    found = labels(folder / "out")
    assert all(found[row] == found[row % 20] for row in range(ROWS))


def test_answers_read_by_another_schema_are_voted_on_again(folder: Path) -> None:
    """Two say what was no label: enough to skip the third one. As labels they differ, and it has to decide."""
    sevens = [row for row in range(ROWS) if row % 10 == 7]
    rules = [
        [{"pattern": r"number \d*7\b", "reply": {"label": label}}, *RULES]
        for label in ("seven", "7", "seven")
    ]
    specs = [{"latency": {"median_s": 0.001}, "answers": answers} for answers in rules]
    with rig.served(*specs) as (urls, books):
        spec = job(folder, urls)
        rig.run(folder, spec)
        assert books[2].ledger.accepted == 0
        spec["task"]["schema"] = {**LABELS, "properties": {"label": {"enum": ["odd", "even", "seven", "7"]}}}
        reparse_job(load_mapping(spec, folder=folder, environ={}), Tools(environ={}))
        rig.run(folder, spec)
        assert books[2].ledger.accepted == len(sevens)
    check(folder / "out")
    found = labels(folder / "out")
    assert [row for row in range(ROWS) if found[row] == "seven"] == sevens


def test_retry_failed_asks_for_failures_alone_once_all_are_to_be_asked(tmp_path: Path) -> None:
    """What was skipped is open again with stop_early switched off, and is no failure."""
    voting_rig.rows(tmp_path, {"lost": "?++", "kept": "+++"})
    lanes = [voting_rig.letters(name, at) for at, name in enumerate(NAMES)]

    def calls(**options: Any) -> dict[str, int]:
        weights = {"one": 1, "two": 9, "three": 1}
        section = {
            "rule": "weighted",
            "weights": weights,
            "min_votes": 1,
            "stop_early": options.pop("stop_early"),
        }
        rig.run(tmp_path, voting_rig.job(tmp_path, lanes, section), **options)
        return dict(rig.table(tmp_path, "usage").group_by("lane").len().iter_rows())

    assert calls(stop_early=True) == {"one": 3, "two": 2}
    assert calls(stop_early=False, retries_failed=True) == {"one": 5, "two": 2}
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert (manifest.complete, manifest.failed, manifest.pending) == (False, 1, 2)
    assert calls(stop_early=False) == {"one": 5, "two": 2, "three": 2}


def test_retry_failed_leaves_a_record_open_where_every_row_had_failed(tmp_path: Path) -> None:
    """With stop_early switched off meanwhile: what was skipped is not asked, so this is not the end of it."""
    voting_rig.rows(tmp_path, {"lost": "?++"})
    lanes = [voting_rig.letters(name, at) for at, name in enumerate(NAMES)]
    section = {"rule": "weighted", "weights": {"one": 1, "two": 9, "three": 1}, "min_votes": 1}
    rig.run(tmp_path, voting_rig.job(tmp_path, lanes, {**section, "stop_early": True}))
    summary = rig.run(tmp_path, voting_rig.job(tmp_path, lanes, section), retries_failed=True)
    assert (summary.exit_code, summary.is_complete, summary.pending) == (ExitCode.ROWS_FAILED, False, 0)
    assert voting_rig.by_id(tmp_path, "status") == {"lost": "pending"}
    done = rig.run(tmp_path, voting_rig.job(tmp_path, lanes, section))
    assert (done.ok, done.is_complete) == (1, True)


def test_samples_stop_early_too(folder: Path) -> None:
    with served() as (urls, books):
        spec = {**job(folder, urls), "routing": "spread", "samples": 5}
        summary = rig.run(folder, spec)
        asked = sum(book.ledger.accepted for book in books)
    assert (summary.saved, summary.is_complete) == (5 * ROWS - asked, True)
    assert 3 * ROWS <= asked < 4.5 * ROWS
    assert audit(folder / "out").is_whole


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"routing": "spread"}, "stop_early needs several answers to a row"),
        ({"task": {"type": "moderation", "text": "{{ text }}"}}, "stop_early asks row by row"),
        ({"consensus": {"over": "lable", "stop_early": True}}, "no column 'lable'"),
    ],
)
def test_where_it_means_nothing_it_is_refused(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        rig.run(folder, {**job(folder, ["http://127.0.0.1:1/v1"] * 3), **more})


KILL_AFTER = (7, 31, 64, 118)


@pytest.mark.timeout(120)
def test_kills_lose_no_answer_and_change_no_label(folder: Path) -> None:
    in_flight = 4
    with served(latency={"median_s": 0.02, "p99_s": 0.08}) as (urls, books):
        spec = job(folder, urls)
        for lane in spec["providers"]:
            lane["limits"] = {"concurrency": in_flight}
        path = folder / "job.yaml"
        path.write_text(yaml.safe_dump(spec), "utf-8")

        def answered(calls: int) -> Callable[[], bool]:
            return lambda: sum(book.ledger.answered for book in books) >= calls

        kills = sum(killed(path, answered(calls)) is None for calls in KILL_AFTER)
        assert audit(folder / "out").findings == []
        with started(path) as last:
            _, said = last.communicate(timeout=BOUND_S)
            assert last.returncode == ExitCode.OK, said
        bought = sum(book.ledger.accepted for book in books)
        rig.run(folder, job(folder, urls, name="all", stop_early=False))
    assert kills >= 3
    check(folder / "out")
    assert labels(folder / "out") == labels(folder / "all")
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert manifest.skipped > ROWS // 2
    #: What was in flight at a kill is bought again, and nothing else.
    assert bought <= manifest.ok + kills * in_flight * 3
