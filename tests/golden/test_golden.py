"""Records of every format that there ever was: each is taken up, and nothing of it is asked or paid again."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from batchllm.engine.local import execute
from batchllm.engine.options import Options
from batchllm.journal import read_manifest
from batchllm.journal.opening import FORMAT
from batchllm.spec.loading import load_job

HERE = Path(__file__).parent
FOLDERS = sorted(path.parent for path in HERE.glob("*/*/job.yaml"))
ROWS = 24
#: Answers to a row, where it gets several.
SLOTS = {"all": 2, "samples": 3, "votes": 3}
NAMES = {"all", "complete", "embeddings", "failures", "interrupted"}
#: Rows that came in the place of others in the input that `renewed` was about to be asked.
NEW = 3


def ident(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


@pytest.fixture(params=FOLDERS, ids=ident)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / request.param.parent.name / request.param.name))


def resume(folder: Path) -> None:
    loaded = load_job(folder / "job.yaml", environ={})
    execute(loaded, Options(environ={"BATCHLLM_STATE_DIR": str(folder / "limits")}))


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "out" / name / "*.parquet")


def answers(folder: Path) -> set[tuple[object, ...]]:
    """Row, lane, and how long it took: another call would have taken another time."""
    path = folder / "out" / ".batchllm" / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        lines = connection.execute(
            "SELECT row, name, latency_ms FROM results JOIN lanes USING (lane)"
        ).fetchall()
        parts = connection.execute(
            "SELECT name FROM parts WHERE kind = 'output' AND state = 'committed'"
        ).fetchall()
    found = set(lines)
    for (name,) in parts:
        frame = pl.read_parquet(folder / "out" / "output" / name, columns=["row", "lane", "latency_ms"])
        found |= set(frame.rows())
    return found


def skipped(folder: Path) -> int:
    """Units that need not be asked, by the lines of their table."""
    return sum(pl.read_parquet(path).height for path in (folder / "out").glob("skipped/*.parquet"))


def test_there_is_a_record_of_every_format() -> None:
    assert {int(path.name) for path in HERE.iterdir() if path.name.isdecimal()} == set(range(1, FORMAT + 1))
    for number in range(1, FORMAT + 1):
        assert {path.name for path in (HERE / str(number)).iterdir()} >= NAMES


def test_a_record_is_taken_up_and_nothing_of_it_is_asked_again(folder: Path) -> None:
    before = answers(folder)
    if folder.name == "renewed":
        rows = range(ROWS - 1, NEW - 1, -1)  # those that are left of them, backwards, behind the new ones
        before = {(NEW + rows.index(row), *rest) for row, *rest in before if row in rows}
    failed = ROWS // 10 if folder.name == "failures" else 0
    units = ROWS * SLOTS.get(folder.name, 1) - skipped(folder)
    assert before
    assert (len(before) < ROWS) == (folder.name in ("interrupted", "failures", "renewed"))
    assert bool(skipped(folder)) == (folder.name == "votes")
    resume(folder)
    after = answers(folder)
    assert before <= after
    assert len(after) == units - failed
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    assert (manifest.complete, manifest.ok, manifest.failed) == (True, units - failed, failed)
    assert manifest.skipped == skipped(folder)
    assert table(folder, "output")["row"].is_sorted()
    assert table(folder, "failures").height == failed


def test_an_old_journal_is_kept_as_a_copy(folder: Path) -> None:
    number = int(folder.parent.name)
    resume(folder)
    copies = [path.name for path in (folder / "out" / ".batchllm").glob("journal.db.format-*")]
    assert copies == ([f"journal.db.format-{number}"] if number < FORMAT else [])
