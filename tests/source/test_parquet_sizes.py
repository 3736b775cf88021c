"""How many rows are decoded at once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.source.parquet_sizes import first_page_bytes, rows_at_once


def at_once(path: Path, table: dict[str, object], columns: list[str] | None = None, **options: object) -> int:
    pq.write_table(pa.table(table), path, **options)
    with pa.OSFile(str(path), "rb") as source:
        parquet = pq.ParquetFile(source, pre_buffer=False)
        return rows_at_once("a.parquet", parquet, source, 0, columns or list(table))


def test_ordinary_rows_come_512_at_once(tmp_path: Path) -> None:
    table = {"id": [f"r-{at}" for at in range(200_000)], "n": list(range(200_000))}
    assert at_once(tmp_path / "a.parquet", table) == 512


def test_a_long_text_in_a_dictionary_lets_fewer_rows_in(tmp_path: Path) -> None:
    assert at_once(tmp_path / "a.parquet", {"t": ["x" * 1_000_000] * 200}) == 33


def test_a_column_that_is_not_read_does_not_count(tmp_path: Path) -> None:
    table = {"t": ["x" * 1_000_000] * 200, "n": [1] * 200}
    assert at_once(tmp_path / "a.parquet", table, ["n"]) == 512


def test_long_lists_let_fewer_rows_in(tmp_path: Path) -> None:
    lists = pa.ListArray.from_arrays(pa.array(range(0, 4_000_001, 100_000)), pa.repeat(0.0, 4_000_000))
    assert at_once(tmp_path / "a.parquet", {"v": lists}) == 41


def test_lists_of_texts_count_with_their_length(tmp_path: Path) -> None:
    assert at_once(tmp_path / "a.parquet", {"v": [["x" * 1_000_000] * 10] * 20}) == 3


def test_fixed_size_values_count_with_their_width(tmp_path: Path) -> None:
    column = pa.array([b"x" * 1_000_000] * 20, pa.binary(1_000_000))
    assert at_once(tmp_path / "a.parquet", {"b": column}) == 33


def test_plain_text_counts_with_its_mean(tmp_path: Path) -> None:
    texts = [f"{at}" * 200_000 for at in range(10, 40)]
    assert at_once(tmp_path / "a.parquet", {"t": texts}, use_dictionary=False) == 83


def test_at_least_one_row_is_read(tmp_path: Path) -> None:
    column = pa.array([b"x" * (40 << 20)], pa.binary(40 << 20))
    assert at_once(tmp_path / "a.parquet", {"b": column}, compression="none") == 1


def test_a_dictionary_in_the_second_version_of_pages_is_found(tmp_path: Path) -> None:
    table = {"t": ["x" * 1_000_000] * 200}
    assert at_once(tmp_path / "a.parquet", table, data_page_version="2.0") == 33


def zigzag(number: int) -> bytes:
    out = bytearray()
    number = (number << 1) ^ (number >> 31)
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 2**31 - 1), st.binary(max_size=8))
def test_a_page_header_states_its_size(kind: int, size: int, rest: bytes) -> None:
    assert first_page_bytes(b"\x15" + zigzag(kind) + b"\x15" + zigzag(size) + b"\x15" + rest) == size


@pytest.mark.parametrize(
    "header", [b"", b"\x15", b"\x15\x04", b"\x15\x04\x16\x04", b"PAR1", b"\x15\x04\x15\x03"]
)
def test_what_is_no_page_header_states_none(header: bytes) -> None:
    assert first_page_bytes(header) is None
