"""The consensus table: its types, its parts, and how one takes the place of another."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Ballots, Poll, State, Voter
from batchllm.consensus.rules import decide
from batchllm.consensus.table import Outcome, remove_others, show_table, write_table
from batchllm.consensus.terms import Terms
from batchllm.errors import OutputError

KEY, CARRIED = pa.field("id", pa.string()), [pa.field("text", pa.string())]


class Rows:
    """Keys and carried columns by their place."""

    def __init__(self, count: int) -> None:
        self.count = count

    def identities(self, fields: Sequence[pa.Field], step: int) -> Iterator[pa.Table]:
        del step
        for first in range(0, self.count, 2):
            numbers = list(range(first, min(self.count, first + 2)))
            columns = [pa.array([f"{one.name}{n}" for n in numbers], one.type) for one in fields]
            yield pa.table([pa.array(numbers), *columns], names=["row", *(one.name for one in fields)])


def poll(rows: int, kind: str = "label") -> Poll:
    """Two voters that agree on even rows."""
    ballots = Ballots(rows, ("a", "b"), vocabulary(kind, None, None), has_gold=True)  # type: ignore[arg-type]
    places = np.arange(rows)
    ballots.vote(places, np.zeros(rows, np.int64), pa.array(["1"] * rows, pa.string()))
    ballots.vote(
        places, np.ones(rows, np.int64), pa.array([str(n % 2 + 1) for n in range(rows)], pa.string())
    )
    ballots.note_gold(places, pa.array(["1"] * rows, pa.string()))
    return ballots.poll((Voter("a"), Voter("b")), np.zeros(rows), rest=State.NOT_ASKED)


def written(out: Path, found: Poll, part_rows: int = 4) -> list[str]:
    terms = Terms("majority", 2, 2)
    outcome = Outcome(found, terms, decide(found.votes, terms))
    rows = Rows(found.rows)
    parts = write_table(out, outcome, rows, key=KEY, carried=CARRIED, part_rows=part_rows)
    show_table(out, parts)
    assert sum(part.rows for part in parts) == found.rows
    return [part.path for part in parts]


def read(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "consensus" / "*.parquet")


def test_parts_read_as_one_table_in_the_order_of_the_rows(tmp_path: Path) -> None:
    paths = written(tmp_path, poll(9))
    assert len(paths) == 3
    table = read(tmp_path)
    assert table.get_column("row").to_list() == list(range(9))
    assert table.get_column("text").to_list() == [f"text{n}" for n in range(9)]
    assert table.get_column("consensus").to_list() == [None if n % 2 else "1" for n in range(9)]
    assert table.get_column("correct").to_list() == [None if n % 2 else True for n in range(9)]


@pytest.mark.parametrize(("kind", "dtype"), [("label", pl.String), ("number", pl.Float64)])
def test_a_table_without_rows_has_its_columns(tmp_path: Path, kind: str, dtype: type[pl.DataType]) -> None:
    written(tmp_path, poll(0, kind))
    table = read(tmp_path)
    assert table.height == 0
    assert table.columns[:3] == ["id", "row", "text"]
    assert table.schema["consensus"] == dtype
    assert table.schema["leading"] == pl.List(dtype)


def test_an_old_table_goes_as_a_whole_once_the_new_one_is_there(tmp_path: Path) -> None:
    old = written(tmp_path, poll(9))
    new = written(tmp_path, poll(3))
    assert read(tmp_path).height == 12  # for a moment both are there
    remove_others(tmp_path, new)
    assert read(tmp_path).height == 3
    assert not any((tmp_path / path).exists() for path in old)


def test_what_a_kill_left_is_written_over_and_removed(tmp_path: Path) -> None:
    hidden = tmp_path / "consensus" / ".writing"
    hidden.mkdir(parents=True)
    (hidden / "part-00000-dead.parquet").write_bytes(b"half")
    (tmp_path / "consensus" / "part-00000-dead.parquet").write_bytes(b"nobody's")
    new = written(tmp_path, poll(3))
    remove_others(tmp_path, new)
    assert read(tmp_path).height == 3
    assert not hidden.exists()


@pytest.mark.parametrize("name", ["consensus", "consensus/.writing"])
def test_what_is_behind_a_link_is_neither_written_nor_removed(tmp_path: Path, name: str) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    precious = [elsewhere / "notes", elsewhere / "part-00000-mine.parquet"]
    for path in precious:
        path.write_text("precious")
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(elsewhere)
    with pytest.raises(OutputError, match="symbolic link"):
        written(out, poll(3))
    with pytest.raises(OutputError, match="symbolic link"):
        remove_others(out, [])
    assert sorted(elsewhere.iterdir()) == precious


def test_sets_are_held_against_gold_without_regard_to_order(tmp_path: Path) -> None:
    ballots = Ballots(3, ("a", "b"), vocabulary("labels", None, None), has_gold=True)
    rows, kind = np.arange(3), pa.list_(pa.string())
    for voter in (0, 1):
        ballots.vote(rows, np.full(3, voter), pa.array([["x", "y"], ["x"], []], kind))
    ballots.note_gold(rows, pa.array([["y", "x", "y"], [], None], kind))
    written(tmp_path, ballots.poll((Voter("a"), Voter("b")), np.zeros(3), rest=State.NOT_ASKED))
    found = read(tmp_path).select("consensus", "gold", "correct").rows()
    assert found == [(["x", "y"], ["x", "y"], True), (["x"], [], False), ([], None, None)]
