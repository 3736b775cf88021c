"""Sizes, verdicts, and inputs of the memory benchmark."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.memory import KINDS, lines, sizes, write_large_texts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("share", [1.0, 0.1, 1e-9])
def test_both_sizes_are_whole_packs_and_a_tenth_apart(kind: object, share: float) -> None:
    small, large = sizes(kind, share)  # type: ignore[arg-type]
    assert small % 256 == large % 256 == 0
    assert 0 < small <= large // 10


@pytest.mark.parametrize(
    ("small", "large", "verdicts"),
    [
        (300.0, 340.0, ["yes", "yes"]),
        (300.0, 346.0, ["yes", "NO"]),
        (349.0, 351.0, ["yes", "NO"]),
        (360.0, 360.0, ["NO", "NO"]),
    ],
)
def test_a_run_is_within_bounds_by_its_size_and_by_its_growth(
    small: float, large: float, verdicts: list[str]
) -> None:
    found = lines("x", {100: [small], 1000: [large]})
    assert [line["verdict"] for line in found] == verdicts
    assert [line["growth"] for line in found] == [None, large / small]


def test_large_texts_are_one_row_group_of_two_kilobytes_each(tmp_path: Path) -> None:
    write_large_texts(tmp_path / "rows.parquet", 25_000)
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (25_000, 1)
    assert file.metadata.row_group(0).column(1).total_uncompressed_size > 25_000 * 1900
