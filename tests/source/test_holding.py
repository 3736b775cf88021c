"""Rows are held to their marks as they are read: another one is refused before it is given out."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputDataError
from batchllm.matching import Marks
from batchllm.source import FileSource, open_source
from batchllm.spec.models import Input

ROWS = 1500
KINDS = ["jsonl", "csv", "parquet", "nested"]


def marks_of(source: FileSource, *, unknown: int | None = None) -> Marks:
    marks = source.mark().marks
    if unknown is not None:
        marks[unknown] = 0
    values = pa.array(marks, pa.uint64())
    return Marks(len(marks), lambda first, end: values.slice(first, end - first))


def write(path: Path, edited: int | None = None, rows: int = ROWS) -> None:
    """With the texts of `edited` in other words, of the same length."""
    table = [
        {"id": f"k{n}", "text": f"{'TEXT' if n == edited else 'text'} {n}", "more": {"x": [n]}}
        for n in range(rows)
    ]
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
        case ".csv":
            path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in table), "utf-8")
        case _:
            pq.write_table(pa.Table.from_pylist(table), path, row_group_size=400, compression=None)


def opened(folder: Path, kind: str) -> FileSource:
    path = folder / f"rows.{'parquet' if kind == 'nested' else kind}"
    if not path.exists():
        write(path)
    column = "more" if kind == "nested" else "text"
    return open_source(Input(path=str(path), key="id"), carry=[], needed=frozenset({column, "text"}))


def unnoticed(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file in such a way that the file system cannot tell."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_stay_as_they_are_are_given_out(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    every = [row for batch in source.batches() for row in batch]
    source.hold_to(marks_of(source))
    assert [row for batch in source.batches() for row in batch] == every
    wanted = bytearray(row % 3 == 0 for row in range(ROWS))
    assert [row for batch in source.chosen(wanted, (ROWS,)) for row in batch] == every[::3]
    assert source.scan().rows == source.mark().rows == ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_another_is_refused_when_it_is_read(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    source.hold_to(marks_of(source))
    (path,) = tmp_path.iterdir()
    unnoticed(path, lambda path: write(path, edited=700))
    with pytest.raises(InputDataError, match="changed while it was read"):
        list(source.batches())
    wanted = bytearray(ROWS)
    wanted[3] = wanted[1200] = 1
    assert [row.ordinal for batch in source.chosen(wanted, (ROWS,)) for row in batch] == [3, 1200]
    wanted[700] = 1
    with pytest.raises(InputDataError, match="changed while it was read"):
        list(source.chosen(wanted, (ROWS,)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_that_is_not_known_tells_nothing(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    source.hold_to(marks_of(source, unknown=700))
    (path,) = tmp_path.iterdir()
    unnoticed(path, lambda path: write(path, edited=700))
    assert sum(len(batch) for batch in source.batches()) == ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_rows_beyond_the_last_mark_are_others(tmp_path: Path, kind: str) -> None:
    first = opened(tmp_path, kind)
    marks = marks_of(first)
    (path,) = tmp_path.iterdir()
    write(path, rows=ROWS + 1)
    source = opened(tmp_path, kind)
    source.hold_to(marks)
    with pytest.raises(InputDataError, match="changed while it was read"):
        list(source.batches())


LINE = st.sampled_from(
    [b'{"id": "%d", "text": "%s"}', b"", b"  ", b"{broken %d %s", b'{"id": "%d", "text": "%s"}\r']
)


@settings(deadline=None, max_examples=20)
@given(st.lists(LINE, min_size=1, max_size=60), st.data())
def test_blocks_that_were_met_once_are_found_again(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[bytes], data: st.DataObject
) -> None:
    """Lines of 60 KB, so that there are several blocks; what is wanted of them is what a whole reading gives."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [kind % (n, b"x" * 60_000) if b"%" in kind else kind for n, kind in enumerate(kinds)]
    path.write_bytes(b'{"id": "first", "text": "y"}\n' + b"\n".join(lines))
    source = open_source(Input(path=str(path), key="id"), carry=[], needed=frozenset({"text"}))
    every = [row for batch in source.batches() for row in batch]
    source.hold_to(marks_of(source))
    rows = data.draw(st.sets(st.integers(0, len(every) - 1)))
    wanted = bytearray(row in rows for row in range(len(every)))
    assert [row for batch in source.chosen(wanted, (len(every),)) for row in batch] == [
        every[row] for row in sorted(rows)
    ]


def test_blocks_without_a_wanted_row_are_not_read(tmp_path: Path) -> None:
    """The bytes of the others are lost, and nobody notices."""
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"id": "k%04d", "text": "x" * 3000}) + "\n"
    path.write_text("".join(line % n for n in range(ROWS)), "utf-8")
    source = open_source(Input(path=str(path), key="id"), carry=[], needed=frozenset({"text"}))
    source.mark()
    size = path.stat().st_size
    unnoticed(path, lambda path: path.write_bytes(bytes(size // 2) + path.read_bytes()[size // 2 :]))
    wanted = bytearray(ROWS)
    wanted[ROWS - 1] = 1
    assert [row.key for batch in source.chosen(wanted, (ROWS,)) for row in batch] == [f"k{ROWS - 1}"]
