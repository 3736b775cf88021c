"""Marks tell rows apart by all that is read of them, and `chosen` gives just the rows that are asked for."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.records import BadRow
from batchllm.source import FileSource, frame_source, open_source
from batchllm.source.marks import is_plain, marks_of_arrow
from batchllm.spec.models import Input

LINES = [
    b'{"id": "a", "text": "one"}',
    b"",
    b'{"id": "b", "text": "two"}',
    b"   \t",
    b"{broken",
    b'  {"id": "c", "text": "three"}',
    b'{"id": "d", "text": "one"}\r',
]


def source(path: Path, key: str | None = "id") -> FileSource:
    return open_source(Input(path=str(path), key=key), carry=[], needed=frozenset({"text"}))


def write(path: Path) -> FileSource:
    rows = [{"id": f"k{n}", "text": f"text {n % 7}", "other": n} for n in range(1500)]
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        case ".csv":
            path.write_text(
                "id,text,other\n" + "".join(f"k{n},text {n % 7},{n}\n" for n in range(1500)), "utf-8"
            )
        case _:
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=400)
    return source(path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_mark_for_each_row_and_the_scans_digest(tmp_path: Path, kind: str) -> None:
    opened = write(tmp_path / f"rows.{kind}")
    marked, scan = opened.mark(), opened.scan()
    assert (marked.digest, marked.rows, marked.file_rows) == (scan.digest, 1500, (1500,))
    assert len(set(marked.marks)) == 1500
    assert opened.mark() == marked


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("rows", [[], [0], [1499], [3, 4, 5, 511, 512, 513, 1200], list(range(1500))])
def test_chosen_rows_are_those_of_the_batches(tmp_path: Path, kind: str, rows: list[int]) -> None:
    opened = write(tmp_path / f"rows.{kind}")
    wanted = bytearray(1500)
    for row in rows:
        wanted[row] = 1
    chosen = [row for batch in opened.chosen(wanted, (1500,)) for row in batch]
    assert chosen == [row for batch in opened.batches() for row in batch if row.ordinal in set(rows)]


def test_several_files_count_on(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 3)):
        rows = "".join(json.dumps({"id": f"k{n}", "text": "x"}) + "\n" for n in range(first, first + 3))
        (tmp_path / f"{name}.jsonl").write_text(rows, "utf-8")
    opened = source(tmp_path / "*.jsonl")
    marked = opened.mark()
    assert marked.file_rows == (3, 3)
    wanted = bytearray([0, 0, 1, 1, 0, 1])
    assert [row.key for batch in opened.chosen(wanted, marked.file_rows) for row in batch] == [
        "k2",
        "k3",
        "k5",
    ]


def test_blank_lines_are_no_rows_and_bad_ones_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(LINES))
    opened = source(path)
    marked = opened.mark()
    assert marked.rows == 5
    every = [row for batch in opened.batches() for row in batch]
    chosen = [row for batch in opened.chosen(bytearray(b"\1" * 5), (5,)) for row in batch]
    assert chosen == every
    assert [isinstance(row, BadRow) for row in chosen] == [False, False, True, False, False]
    assert ":5 " in chosen[2].place


def arrow_marks(values: list[Any], kind: pa.DataType) -> list[bytes]:
    batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["x"])
    (told,) = marks_of_arrow([batch])
    return [told[at : at + 8] for at in range(0, len(told), 8)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, "", "-", "1", "1:", "a\0b", "null", "None"], pa.string()),
        ([None, b"", b"\xff", b"-"], pa.binary()),
        ([None, 0, -1, 1, 2**63 - 1], pa.int64()),
        ([None, 0.0, -0.0, 0.1, 1e300, float("inf"), float("nan")], pa.float64()),
        ([None, True, False], pa.bool_()),
        ([None, Decimal("1.10"), Decimal("1.11")], pa.decimal128(9, 2)),
        ([None, 1, 1_000_000_001], pa.timestamp("ns", tz="Europe/Berlin")),
        ([None, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)], pa.date32()),
        ([None, "a", "b"], pa.dictionary(pa.int8(), pa.large_string())),
    ],
)
def test_values_that_differ_have_marks_that_differ(values: list[Any], kind: pa.DataType) -> None:
    assert is_plain(kind)
    assert len(set(arrow_marks(values, kind))) == len(values)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text("a:1-\0", max_size=4) | st.none(), st.text("a:1-\0", max_size=4) | st.none()),
        min_size=1,
        max_size=20,
    )
)
def test_no_two_pairs_of_texts_look_alike(pairs: list[tuple[str | None, str | None]]) -> None:
    columns = [pa.array(column, pa.string()) for column in zip(*pairs, strict=True)]
    (told,) = marks_of_arrow([pa.RecordBatch.from_arrays(columns, names=["x", "y"])])
    marks = [told[at : at + 8] for at in range(0, len(told), 8)]
    for one, mark in zip(pairs, marks, strict=True):
        for other, its in zip(pairs, marks, strict=True):
            assert (one == other) == (mark == its)


def test_nested_columns_are_marked_by_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = [
        {"id": "a", "text": {"x": [1]}},
        {"id": "b", "text": {"x": [1]}},
        {"id": "c", "text": {"x": [2]}},
    ]
    pq.write_table(pa.Table.from_pylist(table), path)
    assert len(set(source(path).mark().marks)) == 3


def test_a_type_that_changes_is_another_basis(tmp_path: Path) -> None:
    bases = set()
    for kind in (pa.int64(), pa.float64()):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"id": ["a"], "text": pa.array([1], kind)}), path)
        bases.add(source(path).mark().basis)
    assert len(bases) == 2


def test_frames_have_marks_too() -> None:
    rows = [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "a2", "text": "y", "big": 2**70}]
    opened = frame_source(rows, key="id", carry=[], needed=None)
    assert len(set(opened.mark().marks)) == 3
    assert [row.key for batch in opened.chosen(bytearray([0, 1, 1]), ()) for row in batch] == ["b", "a2"]
