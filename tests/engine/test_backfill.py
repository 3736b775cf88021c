"""A keyed input that changes between two runs: only what is new or changed is sent, and the output follows."""

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import job_rig as rig
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import ChangedJobError, ExitCode, InputDataError
from batchllm.journal import read_manifest
from batchllm.simulate import SimulatedProvider

Row = dict[str, Any]


def rows(*numbers: int, **more: Any) -> list[Row]:
    return [{"id": f"k{n}", "text": f"text number {n}", "gold": n, **more} for n in numbers]


def texts(values: Iterable[Any]) -> list[str | None]:
    """Carried columns of JSONL are text unless the job says otherwise."""
    return [None if value is None else str(value) for value in values]


@dataclass
class Job:
    """A job whose input is written anew before each run."""

    folder: Path
    url: str
    book: SimulatedProvider
    more: Mapping[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)

    def run(self, table: Sequence[Row], **options: Any) -> rig.RunSummary:
        text = "".join(json.dumps(row) + "\n" for row in table)
        (self.folder / "rows.jsonl").write_text(text, "utf-8")
        return self.start(**options)

    def start(self, **options: Any) -> rig.RunSummary:
        spec = rig.job(
            self.folder,
            [rig.lane(self.url, "one")],
            **{"output": {"path": str(self.folder / "out"), "carry": ["gold"]}, **self.more},
        )
        self.said.clear()
        self.before = self.book.ledger.accepted
        summary = rig.run(self.folder, spec, say=self.said.append, **options)
        self.changes = {name: count for name, count in summary.changes.items() if count}
        return summary

    @property
    def sent(self) -> int:
        """Calls of the last run."""
        return self.book.ledger.accepted - self.before

    def output(self) -> pl.DataFrame:
        return rig.table(self.folder, "output")

    def check(self, table: Sequence[Row]) -> None:
        """The output holds just the answers to these rows, in their order, with what they carry."""
        output = self.output()
        assert output["row"].to_list() == list(range(len(table)))
        assert output["id"].to_list() == [row["id"] for row in table]
        assert texts(output["gold"]) == texts([row["gold"] for row in table])
        for row, content in zip(table, output["content"], strict=True):
            assert row["text"] in content
        manifest = read_manifest(self.folder / "out")
        assert manifest is not None
        assert (manifest.complete, manifest.ok, manifest.pending) == (True, len(table), 0)
        assert manifest.attempts == self.book.ledger.accepted
        usage = rig.table(self.folder, "usage")
        assert usage.height == self.book.ledger.accepted
        assert set(usage["row"]) >= set(range(len(table)))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    with rig.served({}) as (urls, books):
        yield Job(tmp_path, urls[0], books[0])


def test_a_second_run_sends_nothing(job: Job) -> None:
    table = rows(*range(30))
    job.run(table)
    summary = job.run(table)
    assert (job.sent, job.changes, summary.reused) == (0, {}, 30)
    job.check(table)


def test_rows_that_were_added_are_all_that_is_sent(job: Job) -> None:
    job.run(rows(*range(30)))
    parts = {path: path.stat().st_mtime_ns for path in (job.folder / "out" / "output").iterdir()}
    table = rows(*range(37))
    summary = job.run(table)
    assert (job.sent, summary.exit_code, summary.reused, summary.ok) == (7, ExitCode.OK, 30, 7)
    assert job.changes == {"new": 7, "unchanged": 30}
    job.check(table)
    assert parts  # small ones are joined with the new ones, see the test of the journal for large ones


def test_everything_at_once(job: Job) -> None:
    job.run(rows(*range(40)))
    table = rows(*range(5, 50))
    for row in table[3:6]:
        row["text"] += " edited"
    random.Random(4).shuffle(table)
    summary = job.run(table)
    assert job.sent == 13
    assert (summary.ok, summary.reused) == (13, 32)
    assert job.changes == {"new": 10, "changed": 3, "removed": 5, "unchanged": 32}
    job.check(table)
    usage = rig.table(job.folder, "usage")
    assert usage.filter(pl.col("row") == -1).height == 5  # calls for rows that are gone
    assert job.run(table).ok == 0
    assert job.sent == 0


def test_rows_only_change_places(job: Job) -> None:
    table = rows(*range(25))
    job.run(table)
    table.reverse()
    job.run(table)
    assert job.sent == 0
    job.check(table)


def test_a_carried_value_follows_without_a_call(job: Job) -> None:
    table = rows(*range(20))
    job.run(table)
    table[7]["gold"], table[11]["gold"] = 700, None
    job.run(table)
    assert job.sent == 0
    assert job.changes == {"unchanged": 20}
    job.check(table)


def test_a_column_that_nobody_reads_changes_nothing(job: Job) -> None:
    job.run(rows(*range(20), note="a"))
    table = rows(*range(20), note="b")
    job.run(table)
    assert job.sent == 0
    job.check(table)


def test_rows_that_leave_and_come_back_are_asked_again(job: Job) -> None:
    job.run(rows(*range(10)))
    job.run(rows(*range(5)))
    assert (job.sent, job.output().height) == (0, 5)
    assert job.changes == {"removed": 5, "unchanged": 5}
    table = rows(*range(10))
    job.run(table)
    assert job.sent == 5
    job.check(table)


def test_an_input_that_becomes_empty_leaves_an_empty_output(job: Job) -> None:
    job.run(rows(*range(10)))
    summary = job.run([])
    assert (job.sent, summary.exit_code, summary.is_complete) == (0, ExitCode.OK, True)
    assert job.output().height == 0
    job.run(rows(*range(3)))
    assert job.sent == 3


def test_a_run_that_was_not_finished_takes_up_the_new_input(job: Job) -> None:
    job.run(rows(*range(40)), limit=15)
    table = [*rows(*range(100, 110)), *rows(*range(38))]
    job.run(table)
    assert job.sent == 33
    job.check(table)


def test_failed_rows_stay_failed_until_they_change(job: Job, tmp_path: Path) -> None:
    table = rows(*range(12))
    table[3]["text"] = None
    table[4]["text"] = {"no": "text"}
    job.more = {"task": {"type": "chat", "prompt": "{{ text.upper() }}"}}
    with pytest.MonkeyPatch.context():
        first = job.run(table)
    assert first.exit_code == ExitCode.ROWS_FAILED
    failed = rig.table(tmp_path, "failures").height
    assert failed > 0
    table.insert(0, rows(99)[0])
    job.run(table)
    assert job.sent == 1
    failures = rig.table(tmp_path, "failures")
    assert failures.height == failed
    assert failures["id"].to_list() == ["k3", "k4"][:failed]
    assert failures["row"].to_list() == [4, 5][:failed]
    table[4]["text"] = "text number 3"
    job.run(table)
    assert job.sent == 1
    assert rig.table(tmp_path, "failures").height == failed - 1


def test_bad_lines_move_and_go(job: Job, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in rows(*range(6))]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:2], "{broken", *lines[2:]]) + "\n", "utf-8")
    assert job.start().exit_code == ExitCode.ROWS_FAILED
    (tmp_path / "rows.jsonl").write_text("\n".join(["{broken", *lines]) + "\n", "utf-8")
    assert job.start().exit_code == ExitCode.ROWS_FAILED
    assert job.sent == 0
    assert rig.table(tmp_path, "failures")["row"].to_list() == [0]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    assert job.start().exit_code == ExitCode.OK
    job.check(rows(*range(6)))


def test_a_key_that_stands_twice_is_refused_wherever_it_hides(job: Job, tmp_path: Path) -> None:
    table = rows(*range(10))
    job.run(table)
    before = read_manifest(tmp_path / "out")
    for more in (rows(4), rows(4, text="another"), [*rows(50), *rows(50, text="x")]):
        with pytest.raises(InputDataError, match="several rows have the same key"):
            job.run([*table, *more])
        assert job.sent == 0
    with pytest.raises(InputDataError, match="without a key"):
        job.run([*table, {"text": "no key"}])
    assert read_manifest(tmp_path / "out") == before
    job.run(table)
    assert job.sent == 0


def test_a_pending_row_counts_when_keys_are_compared(job: Job) -> None:
    table = rows(*range(10))
    job.run(table, limit=4)
    with pytest.raises(InputDataError, match="several rows have the same key"):
        job.run([*table, *rows(8, text="another")])


def test_without_a_key_the_input_may_not_change(job: Job) -> None:
    job.more = {"input": {"path": "rows.jsonl"}}
    job.run(rows(*range(5)))
    with pytest.raises(InputDataError, match="cannot be told apart") as caught:
        job.run(rows(*range(6)))
    assert "input.key" in caught.value.remedy


def test_only_missing_keeps_the_answers_of_changed_rows(job: Job) -> None:
    table = rows(*range(10))
    job.run(table)
    changed = [{**row, "gold": 1000 + row["gold"]} for row in [*table, *rows(10, 11)]]
    changed[2]["text"] = changed[5]["text"] = "edited"
    job.run(changed, only_missing=True)
    assert job.sent == 2
    assert job.changes == {"new": 2, "kept": 2, "unchanged": 8}
    output = job.output()
    assert "text number 2" in output["content"][2]
    assert texts(output["gold"]) == texts([row["gold"] for row in changed])
    job.run(changed, only_missing=True)
    assert job.sent == 0
    job.run(changed)
    assert job.sent == 2
    job.check(changed)


def test_lost_marks_cost_time_and_nothing_else(job: Job, tmp_path: Path) -> None:
    table = rows(*range(30))
    job.run(table)
    for path in (tmp_path / "out" / ".batchllm").glob("marks-*"):
        path.unlink()
    table = [*rows(77), *table[4:]]
    job.run(table)
    assert job.sent == 1
    job.check(table)


def test_parquet_and_frames_are_compared_as_well(job: Job, tmp_path: Path) -> None:
    table = rows(*range(30))
    job.more = {"input": {"path": "rows.parquet", "key": "id"}}
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "rows.parquet")
    job.start()
    table = [*rows(50, 51), *table[5:]]
    table[3]["text"] = "edited"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "rows.parquet", row_group_size=7)
    job.start()
    assert job.sent == 3
    job.check(table)
    table = table[::-1]
    job.start(frame=pl.DataFrame([*table, *rows(60)]))
    assert job.sent == 1
    job.check([*table, *rows(60)])


def test_text_of_small_and_of_large_offsets_is_the_same_column(job: Job) -> None:
    """pyarrow writes the one, polars the other."""
    table = rows(*range(30))
    job.more = {
        "input": {"path": "rows.parquet", "key": "id"},
        "output": {"path": str(job.folder / "out"), "carry": "all"},
    }
    narrow = pa.Table.from_pylist(table)
    pq.write_table(narrow, job.folder / "rows.parquet")
    job.start()
    wide = pa.schema([("id", pa.large_string()), ("text", pa.large_string()), ("gold", pa.int64())])
    table += rows(30)
    pq.write_table(pa.Table.from_pylist(table, wide), job.folder / "rows.parquet")
    job.start()
    assert (job.sent, job.changes) == (1, {"new": 1, "unchanged": 30})
    job.check(table)
    job.start(frame=pl.DataFrame(table[::-1]))
    assert job.sent == 0
    job.check(table[::-1])
    part = next((job.folder / "out" / "output").iterdir())
    assert pq.read_schema(part).field("text").type == pa.string()


def test_calls_of_changed_rows_stay_theirs(job: Job) -> None:
    table = rows(*range(30))
    job.run(table)
    for row in table[::7]:
        row["text"] += " edited"
    job.run(table[1:] + table[:1])
    usage = rig.table(job.folder, "usage")
    counts = dict(usage["row"].value_counts().iter_rows())
    assert counts == {row: 2 if row in (29, 6, 13, 20, 27) else 1 for row in range(30)}


def test_each_lane_of_all_keeps_its_answers(tmp_path: Path) -> None:
    table = rows(*range(12))
    with rig.served({"seed": 1}, {"seed": 2}) as (urls, books):
        spec = rig.job(tmp_path, [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)], routing="all")
        for now in (table, [*rows(20), *table[3:], *rows(21)][::-1]):
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in now), "utf-8")
            rig.run(tmp_path, spec)
        assert [book.ledger.accepted for book in books] == [14, 14]
    output = rig.table(tmp_path, "output")
    assert output.select("row", "lane").rows() == [(n, f"lane{k}") for n in range(11) for k in range(2)]
    assert output["id"].to_list() == [row["id"] for row in now for _ in range(2)]


def test_each_input_has_the_budget_for_itself(job: Job) -> None:
    job.more = {
        "budget": {"usd": 0.0003},
        "providers": [rig.lane(job.url, "one", price={"input": 1.0, "output": 1.0})],
        "task": {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 50}},
    }
    spent = 0.0
    for day in range(4):
        summary = job.run(rows(*range(10 * (day + 1))))
        assert summary.exit_code == ExitCode.OK
        assert summary.spent_usd is not None
        assert summary.spent_usd > spent
        spent = summary.spent_usd
    assert spent > 0.0003


CHANGED = {"task": {"type": "chat", "prompt": "Say it: {{ text }}"}}


def test_a_changed_job_is_refused_with_its_price_and_the_two_ways(job: Job) -> None:
    price = {"input": 1000.0, "output": 1000.0}
    job.more = {"providers": [rig.lane(job.url, "one", price=price)]}
    job.run(rows(*range(20)))
    tokens = (
        rig.table(job.folder, "usage").select(pl.sum("prompt_tokens") + pl.sum("completion_tokens")).item()
    )
    job.more = {**job.more, **CHANGED}
    with pytest.raises(ChangedJobError, match=r"task.prompt: \{\{ text \}\} → Say it") as caught:
        job.run(rows(*range(20)))
    assert "--new-run" in caught.value.remedy
    assert "--keep-old" in caught.value.remedy
    said = re.search(r"about ([0-9.]+) USD", caught.value.remedy)
    assert said is not None
    assert float(said[1]) == pytest.approx(tokens / 1000, rel=0.1)
    assert job.sent == 0


def test_a_price_that_is_not_known_is_not_zero(job: Job) -> None:
    job.run(rows(*range(3)))
    job.more = CHANGED
    with pytest.raises(ChangedJobError) as caught:
        job.run(rows(*range(3)))
    assert "at a price that is not known" in caught.value.remedy


def test_a_new_run_asks_all_again_and_keeps_the_old_record_aside(job: Job) -> None:
    table = rows(*range(8))
    job.run(table)
    before = job.output()
    job.more = CHANGED
    summary = job.run(table, new_run=True)
    assert (job.sent, summary.ok, summary.exit_code) == (8, 8, ExitCode.OK)
    assert all("Say it" in content for content in job.output()["content"])
    (earlier,) = (job.folder / "out" / ".batchllm" / "earlier").iterdir()
    assert any(str(earlier) in text for text in job.said)
    assert pl.read_parquet(earlier / "output" / "*.parquet").equals(before)
    old = read_manifest(earlier)
    assert old is not None
    assert old.complete
    assert job.run(table).ok == 0


def test_a_new_run_that_was_cut_off_goes_on_with_the_same_command(job: Job) -> None:
    table = rows(*range(9))
    job.run(table)
    job.more = CHANGED
    job.run(table, new_run=True, limit=4)
    assert job.sent == 4
    job.run(table, new_run=True)
    assert job.sent == 5
    assert len(list((job.folder / "out" / ".batchllm" / "earlier").iterdir())) == 1
    job.run(table, new_run=True)
    assert job.sent == 9
    assert len(list((job.folder / "out" / ".batchllm" / "earlier").iterdir())) == 2


def test_old_answers_that_are_kept_stay_and_the_rest_is_asked_anew(job: Job) -> None:
    job.run(rows(*range(10)))
    job.more = CHANGED
    table = rows(*range(12))
    table[3]["text"] = "edited"
    job.run(table, keep_old=True)
    assert job.sent == 2  # nothing tells a row that was edited from one that was asked in other words
    content = job.output()["content"].to_list()
    assert [at for at, text in enumerate(content) if "Say it" in text] == [10, 11]
    manifest = read_manifest(job.folder / "out")
    assert manifest is not None
    assert manifest.mixed
    table = [*rows(12), *table]
    job.run(table)
    assert job.sent == 1


def test_kept_answers_stay_when_nothing_tells_what_changed(job: Job, tmp_path: Path) -> None:
    job.more = {"input": {"path": "rows.parquet", "key": "id"}}
    pq.write_table(pa.Table.from_pylist(rows(*range(10), note="n")), tmp_path / "rows.parquet")
    job.start()
    job.more = {**job.more, "task": {"type": "chat", "prompt": "{{ note }}: {{ text }}"}}
    pq.write_table(pa.Table.from_pylist(rows(*range(14), note="n")), tmp_path / "rows.parquet")
    job.start(keep_old=True)
    assert job.sent == 4
    table = rows(*range(14), note="n")
    table[2]["text"] = "edited"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "rows.parquet")
    job.start()
    assert (job.sent, job.changes) == (0, {"kept": 1, "unchanged": 13})


def test_columns_that_change_leave_only_the_new_run(job: Job) -> None:
    job.run(rows(*range(3)))
    job.more = {"output": {"path": str(job.folder / "out"), "carry": []}}
    with pytest.raises(ChangedJobError, match="columns") as caught:
        job.run(rows(*range(3)), keep_old=True)
    assert "--new-run" in caught.value.remedy
    assert "--keep-old" not in caught.value.remedy


def asked(folder: Path) -> Counter[int]:
    """How often each row was asked: several times where an outage cost it an attempt."""
    return Counter(rig.table(folder, "usage")["row"].to_list())


def failed(folder: Path) -> set[int]:
    return set(rig.table(folder, "failures")["row"].to_list())


def test_only_failed_rows_are_tried_again(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", 60)
    with rig.served({"seed": 3, "faults": {"error_rate": 0.4}}) as (urls, books):
        spec = rig.job(tmp_path, [rig.lane(urls[0], "one")], retry={"max_attempts": 1})
        first = rig.run(tmp_path, spec, limit=50)
        assert 5 < first.failed < 40
        before, wanted = asked(tmp_path), failed(tmp_path)
        second = rig.run(tmp_path, spec, retries_failed=True)
        assert set(asked(tmp_path) - before) == wanted
        assert second.ok + second.failed == first.failed
        assert (second.ok > 0, second.is_complete, second.reused) == (True, False, first.ok)
        third = rig.run(tmp_path, spec, only_missing=True)
        assert third.ok + third.failed == 10
        assert (third.is_complete, third.failed_before) == (True, second.failed)
        before, wanted = asked(tmp_path), failed(tmp_path)
        fourth = rig.run(tmp_path, spec, retries_failed=True)
        assert set(asked(tmp_path) - before) == wanted
        assert fourth.is_complete
        assert asked(tmp_path).total() == books[0].ledger.accepted
    rows_now = [rig.table(tmp_path, name)["row"].to_list() for name in ("output", "failures")]
    assert sorted(rows_now[0] + rows_now[1]) == list(range(60))


@pytest.mark.parametrize("key", ["id", None])
def test_calls_for_rows_that_are_gone_are_nobodys_even_where_none_was_answered(
    tmp_path: Path, key: str | None
) -> None:
    def write(table: Sequence[Row]) -> None:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")

    def calls() -> Counter[int]:
        return Counter(rig.table(tmp_path, "usage")["row"].to_list())

    with rig.served({"faults": {"error_rate": 1.0}}) as (urls, _):
        spec = rig.job(
            tmp_path,
            [rig.lane(urls[0], "one")],
            input={"path": "rows.jsonl", **({"key": key} if key else {})},
            retry={"max_attempts": 1},
        )
        write(rows(*range(5)))
        rig.run(tmp_path, spec)
        before = calls()
        assert before.keys() == set(range(5))
        # All of them are to be asked again, and none is.
        rig.run(tmp_path, spec, retries_failed=True, limit=0)
        write(rows(3, 50, 51))
        rig.run(tmp_path, spec)
        now, kept = calls(), before[3] if key else 0
        assert now.keys() == {-1, 0, 1, 2}
        assert now[-1] == before.total() - kept
        assert now[0] > kept


def test_kept_answers_survive_what_the_job_does_not_read(job: Job) -> None:
    job.run(rows(*range(8)))
    job.more = CHANGED
    table = rows(*range(8), note="a column that nobody reads")
    job.run(table, keep_old=True)
    assert job.sent == 0
    table[1]["gold"] = 111
    job.run(table)
    assert job.sent == 0
    assert texts(job.output()["gold"])[1] == "111"


def test_stale_rows_are_not_forgotten_with_their_marks(job: Job, tmp_path: Path) -> None:
    job.run(rows(*range(6)))
    table = rows(*range(6))
    table[2]["text"] = "edited"
    job.run(table, only_missing=True)
    for path in (tmp_path / "out" / ".batchllm").glob("marks-*"):
        path.unlink()
    job.run(table, only_missing=True)
    assert job.sent == 0
    job.run(table)
    assert job.sent == 1
    job.check(table)


def test_a_row_that_one_lane_was_asked_in_other_words_has_changed(tmp_path: Path) -> None:
    """The first lane keeps its answer to the old text, the other one is asked the new one: they do not fit together."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows(0)[0]) + "\n", "utf-8")
    with rig.served({}, {"faults": {"error_rate": 1.0}}) as (urls, books):
        lanes = [rig.lane(url, f"lane{n}") for n, url in enumerate(urls)]
        spec = rig.job(tmp_path, lanes, routing="all", retry={"max_attempts": 1})
        rig.run(tmp_path, spec)
        path.write_text(json.dumps({**rows(0)[0], "text": "edited"}) + "\n", "utf-8")
        rig.run(tmp_path, spec, only_missing=True)
        rig.run(tmp_path, spec, only_missing=True, retries_failed=True)
        assert [book.ledger.accepted for book in books] == [1, 2]
        assert rig.run(tmp_path, spec).changes["changed"] == 1
        assert [book.ledger.accepted for book in books] == [2, 3]


def test_an_input_that_was_rewritten_while_it_was_read_is_compared_by_key(job: Job, tmp_path: Path) -> None:
    table = rows(*range(800), note="x" * 3000)  # more than is read at a time
    path = tmp_path / "rows.jsonl"
    job.more = {"providers": [rig.lane(job.url, "one", limits={"concurrency": 16})]}

    def rewrite() -> None:
        while not job.book.ledger.accepted:
            time.sleep(0.001)
        shuffled = [*table[:10], *random.Random(1).sample(table[10:], len(table) - 10)]
        path.write_text("".join(json.dumps(row) + "\n" for row in shuffled), "utf-8")

    path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    threading.Thread(target=rewrite).start()
    with pytest.raises(InputDataError, match="changed while it was read"):
        job.start()
    calls = job.book.ledger.accepted
    assert calls > 0
    now = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    job.start()
    output = job.output()
    assert output["id"].to_list() == [row["id"] for row in now]
    assert all(row["text"] in content for row, content in zip(now, output["content"], strict=True))
    assert job.book.ledger.accepted - calls <= len(now)


def test_without_a_key_no_row_is_asked_in_other_words_than_the_input_had_at_the_start(
    job: Job, tmp_path: Path
) -> None:
    """The old file may come back, and its rows would have the answers of the other one."""
    table = [{"text": f"text number {n}", "note": "x" * 4000} for n in range(4000)]  # more than is read ahead
    path = tmp_path / "rows.jsonl"
    job.more = {
        "input": {"path": "rows.jsonl"},
        "output": {"path": "out"},
        "providers": [rig.lane(job.url, "one", limits={"concurrency": 16})],
    }

    def edit() -> None:
        while not job.book.ledger.accepted:
            time.sleep(0.001)
        data = path.read_bytes()
        path.write_bytes(data.replace(b"text number", b"TEXT NUMBER"))

    path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    threading.Thread(target=edit).start()
    with pytest.raises(InputDataError, match="changed while it was read"):
        job.start()
    assert job.book.ledger.accepted > 0
    assert [text for text in job.book.ledger.billed if "TEXT" in text] == []


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_without_a_key_rows_may_be_asked_that_read_no_column(job: Job, tmp_path: Path, ending: str) -> None:
    table = pl.DataFrame({"gold": [1, 2, 3]})
    path = tmp_path / f"rows.{ending}"
    {"jsonl": table.write_ndjson, "csv": table.write_csv, "parquet": table.write_parquet}[ending](path)
    job.more = {
        "input": {"path": path.name},
        "output": {"path": "out"},
        "task": {"type": "chat", "prompt": "Name a fruit."},
        "dedupe": False,
    }
    assert job.start().exit_code == ExitCode.OK
    assert job.start().reused == 3
    assert job.output()["row"].to_list() == [0, 1, 2]


def test_a_row_that_becomes_unreadable_is_a_failure_and_no_crash(job: Job, tmp_path: Path) -> None:
    job.more = {"input": {"path": "rows.jsonl", "key": "id", "columns": {"gold": "int64"}}}
    table = rows(*range(5))
    job.run(table)
    table[2]["gold"] = "bad"
    for option in ({"only_missing": True}, {}):
        assert job.run(table, **option).exit_code == ExitCode.ROWS_FAILED
    assert job.output()["id"].to_list() == ["k0", "k1", "k3", "k4"]
    assert rig.table(tmp_path, "failures")["class"].to_list() == ["input"]


def test_the_budget_of_an_input_does_not_suffer_from_a_limited_start(job: Job) -> None:
    job.more = {
        "budget": {"usd": 0.0003},
        "providers": [rig.lane(job.url, "one", price={"input": 1.0, "output": 1.0})],
        "task": {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 50}},
    }
    for day in range(4):
        table = rows(*range(10 * (day + 1)))
        assert job.run(table).exit_code == ExitCode.OK
        job.run(table, limit=2)
