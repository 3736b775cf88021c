"""Runs that are killed while they publish what was agreed: an edition is whole, and nothing is asked again for it."""

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import job_rig
import polars as pl
import pytest
import voting_rig as rig
from kill_rig import killed_at

from batchllm.simulate import SimulatedProvider

#: What the three lanes say about each row, by the words in it.
ANSWERS = {"both": "pos pos neg", "apart": "pos neg pos", "alone": "neg pos neg", "none": "neg neg pos"}
NAMES = ("one", "two", "arbiter")
OLD, NEW = {"rule": "majority"}, {"rule": {"at_least": 2}, "ties": "fail"}


@dataclass(frozen=True)
class Bench:
    """A job that has come to its first edition, and what the second one is to be."""

    folder: Path
    urls: list[str]
    books: list[SimulatedProvider]
    old: pl.DataFrame
    new: pl.DataFrame

    def calls(self) -> list[int]:
        return [sum(book.ledger.billed.values()) for book in self.books]


def write_job(folder: Path, urls: list[str], section: dict[str, Any]) -> None:
    price = {"price": {"input": 1.0, "output": 1.0}}
    one, two, arbiter = (job_rig.lane(url, name, **price) for url, name in zip(urls, NAMES, strict=True))
    spec = rig.job(folder, [one, two], {"ties": {"escalate": arbiter}, **section}, output={"path": "out"})
    (folder / "job.yaml").write_text(json.dumps(spec), "utf-8")


def run(folder: Path) -> pl.DataFrame:
    job_rig.run(folder, json.loads((folder / "job.yaml").read_text("utf-8")))
    return published(folder)


def published(folder: Path) -> pl.DataFrame:
    """By what agreement.json lists, as a reader does who wants certainty."""
    parts = [folder / "out" / part["path"] for part in rig.told(folder)["parts"]]
    return pl.read_parquet(parts)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    rules = [
        [{"pattern": word, "reply": {"label": said.split()[at]}} for word, said in ANSWERS.items()]
        for at in range(3)
    ]
    folder = tmp_path_factory.mktemp("bench")
    rig.rows(folder, {word: word for word in ANSWERS})
    with job_rig.served(*({"latency": {"median_s": 0.001}, "answers": rule} for rule in rules)) as (
        urls,
        books,
    ):
        write_job(folder, urls, OLD)
        old = run(folder)
        other = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "unbroken")
        write_job(other, urls, NEW)
        new = run(other)
        assert not old.equals(new)
        yield Bench(folder, urls, books, old, new)


@pytest.mark.parametrize(
    ("event", "name", "is_new"),
    [
        ("os.rename", "part-*.parquet", False),
        ("os.rename", "agreement.json", False),
        ("os.remove", "part-*.parquet", True),
        ("os.rename", "report.html", True),
    ],
)
def test_a_kill_leaves_the_old_edition_or_the_new_one(
    bench: Bench, tmp_path: Path, event: str, name: str, is_new: bool
) -> None:
    folder = shutil.copytree(bench.folder, tmp_path / "job")
    write_job(folder, bench.urls, NEW)
    before = bench.calls()
    assert killed_at(folder, event, name) == -signal.SIGKILL
    assert published(folder).equals(bench.new if is_new else bench.old)
    assert run(folder).equals(bench.new)
    assert bench.calls() == before
    consensus = folder / "out" / "consensus"
    assert sorted(path.name for path in consensus.glob("*.parquet")) == [
        Path(part["path"]).name for part in rig.told(folder)["parts"]
    ]
    assert not (consensus / ".writing").exists()
    assert rig.told(folder)["created"] in (folder / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("time", [1, 2])
def test_a_kill_at_the_budget_s_note_costs_nothing_twice(bench: Bench, tmp_path: Path, time: int) -> None:
    """It is noted before the lane in ties is asked, and once there is a consensus."""
    shutil.copy(bench.folder / "rows.jsonl", tmp_path)
    write_job(tmp_path, bench.urls, OLD)
    before = bench.calls()
    assert killed_at(tmp_path, "os.rename", "spending.json", time) == -signal.SIGKILL
    assert not (tmp_path / "out" / "consensus" / "agreement.json").exists()
    assert run(tmp_path).equals(bench.old)
    assert [now - then for now, then in zip(bench.calls(), before, strict=True)] == [4, 4, 2]
