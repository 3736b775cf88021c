"""Rows that ask the same are bought once; each has its line, with its own key and what it carries."""

import json
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pytest

from batchllm.engine import local
from batchllm.errors import ExitCode
from batchllm.journal import read_manifest

TEXTS = ["apple", "pear", "apple", "plum", "pear", "apple"]


def write(folder: Path, texts: list[str | None]) -> None:
    rows = [{"id": f"k{n}", "text": text, "gold": f"g{n}"} for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def embedding(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    return rig.job(
        folder,
        [rig.lane(url, "one", price={"input": 10.0})],
        task={"type": "embedding", "text": "{{ text }}", "inputs_per_request": 2, "dimensions": 8},
        output={"path": str(folder / "out"), "carry": ["gold"]},
        **more,
    )


def chat(folder: Path, url: str, **more: Any) -> dict[str, Any]:
    return rig.job(folder, [rig.lane(url, "one")], **{"dedupe": True, **more})


def paid(books: list[Any]) -> int:
    """Rows that were paid for, however they were packed."""
    return sum(books[0].ledger.billed.values())


def check(folder: Path, texts: list[str]) -> pl.DataFrame:
    output = rig.table(folder, "output")
    assert output["row"].to_list() == list(range(len(texts)))
    assert output["id"].to_list() == [f"k{n}" for n in range(len(texts))]
    answers: dict[str, Any] = {}
    column = "embedding" if "embedding" in output.columns else "content"
    for text, answer in zip(texts, output[column].to_list(), strict=True):
        assert answers.setdefault(text, answer) == answer
    assert len({str(answer) for answer in answers.values()}) == len(set(texts))
    return output


def test_vectors_are_bought_once_for_each_text(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        summary = rig.run(tmp_path, embedding(tmp_path, urls[0]))
        assert paid(books) == 3
    output = check(tmp_path, TEXTS)
    assert (summary.exit_code, summary.ok, summary.pending, summary.is_complete) == (ExitCode.OK, 6, 0, True)
    assert output["gold"].to_list() == [f"g{n}" for n in range(6)]
    free = output.filter(pl.col("attempts") == 0)
    assert free["row"].to_list() == [2, 4, 5]
    assert free["cost_usd"].to_list() == [0.0] * 3
    assert free["prompt_tokens"].to_list() == [0] * 3
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.cost_usd == pytest.approx(output["cost_usd"].sum())


def test_a_job_may_want_each_row_asked(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        rig.run(tmp_path, embedding(tmp_path, urls[0], dedupe=False))
        assert paid(books) == 6


def test_chats_are_asked_each_unless_the_job_says_otherwise(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        rig.run(tmp_path, rig.job(tmp_path, [rig.lane(urls[0], "one")]))
        assert books[0].ledger.accepted == 6
    check(tmp_path, TEXTS)


def test_chats_are_asked_once(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        rig.run(tmp_path, chat(tmp_path, urls[0]))
        assert books[0].ledger.accepted == 3
        assert rig.run(tmp_path, chat(tmp_path, urls[0])).ok == 0
        assert books[0].ledger.accepted == 3
    check(tmp_path, TEXTS)


def test_without_a_key_rows_are_known_by_their_place(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        rig.run(tmp_path, chat(tmp_path, urls[0], input={"path": "rows.jsonl"}))
        assert books[0].ledger.accepted == 3
    assert rig.table(tmp_path, "output")["row"].to_list() == list(range(6))


def test_an_answer_of_an_earlier_run_serves_new_rows(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({}) as (urls, books):
        rig.run(tmp_path, chat(tmp_path, urls[0]), limit=2)
        rig.run(tmp_path, chat(tmp_path, urls[0]))
        assert books[0].ledger.accepted == 3
        write(tmp_path, [*TEXTS, "plum", "fig", "fig"])
        summary = rig.run(tmp_path, chat(tmp_path, urls[0]))
        assert books[0].ledger.accepted == 4
    assert summary.ok == 3
    check(tmp_path, [*TEXTS, "plum", "fig", "fig"])


def test_a_failure_is_shared_and_tried_again_once(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({"faults": {"error_rate": 1.0}}) as (urls, books):
        spec = chat(tmp_path, urls[0], retry={"max_attempts": 1})
        first = rig.run(tmp_path, spec)
        assert books[0].ledger.accepted == 3
        assert (first.exit_code, first.failed, first.is_complete) == (ExitCode.ROWS_FAILED, 6, True)
        assert rig.table(tmp_path, "failures")["id"].to_list() == [f"k{n}" for n in range(6)]
        again = rig.run(tmp_path, spec, retries_failed=True)
        assert books[0].ledger.accepted == 6
        assert again.failed == 6


def test_rows_that_cannot_be_asked_are_no_copies_of_each_other(tmp_path: Path) -> None:
    write(tmp_path, ["apple", None, None, "apple"])
    with rig.served({}) as (urls, books):
        task = {"type": "chat", "prompt": "{{ text.upper() }}"}
        summary = rig.run(tmp_path, chat(tmp_path, urls[0], task=task))
        assert books[0].ledger.accepted == 1
    assert (summary.ok, summary.failed) == (2, 2)
    assert rig.table(tmp_path, "failures")["class"].to_list() == ["template", "template"]


def test_each_lane_answers_each_text_once(tmp_path: Path) -> None:
    write(tmp_path, TEXTS)
    with rig.served({"seed": 1}, {"seed": 2}) as (urls, books):
        lanes = [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)]
        summary = rig.run(tmp_path, rig.job(tmp_path, lanes, routing="all", dedupe=True))
        assert [book.ledger.accepted for book in books] == [3, 3]
    assert (summary.ok, summary.is_complete) == (12, True)
    output = rig.table(tmp_path, "output")
    assert output.select("row", "lane").rows() == [(n, f"lane{k}") for n in range(6) for k in range(2)]


def test_a_kill_before_the_copies_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TEXTS)

    def die(_run: object, _journal: object) -> None:
        raise KeyboardInterrupt

    with rig.served({}) as (urls, books):
        spec = chat(tmp_path, urls[0])
        with monkeypatch.context() as patched:
            patched.setattr(local._Run, "_finish", die)
            with pytest.raises(KeyboardInterrupt):
                rig.run(tmp_path, spec)
        summary = rig.run(tmp_path, spec)
        assert books[0].ledger.accepted == 3
    assert (summary.ok, summary.is_complete) == (3, True)
    check(tmp_path, TEXTS)


def test_a_lane_that_has_answered_a_row_itself_gets_no_copy(tmp_path: Path) -> None:
    write(tmp_path, ["apple", "apple"])
    with rig.served({"seed": 1}, {"seed": 2, "faults": {"error_rate": 1.0}}) as (urls, _):
        lanes = [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)]
        spec = rig.job(tmp_path, lanes, routing="all", dedupe=True, retry={"max_attempts": 1})
        rig.run(tmp_path, spec)
        again = rig.run(tmp_path, spec, retries_failed=True)
        assert again.is_complete
        assert rig.run(tmp_path, spec).is_complete
    both = [*rig.table(tmp_path, "output").select("row", "lane").rows()]
    both += rig.table(tmp_path, "failures").select("row", "lane").rows()
    assert sorted(both) == [(row, f"lane{lane}") for row in range(2) for lane in range(2)]


def test_answers_that_were_kept_serve_no_new_rows(tmp_path: Path) -> None:
    write(tmp_path, ["apple"])
    with rig.served({}) as (urls, books):
        spec = embedding(tmp_path, urls[0])
        rig.run(tmp_path, spec)
        write(tmp_path, ["apple", "apple"])
        changed = {**spec, "providers": [{**spec["providers"][0], "model": "another"}]}
        rig.run(tmp_path, changed, keep_old=True)
        assert paid(books) == 2
    assert rig.table(tmp_path, "output")["model"].to_list() == ["sim", "another"]
