"""Parquet in: columns, types over several files, damage, and files that expand."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.carry import CarryCodec
from batchllm.engine.backfill import marks_of
from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source import FileSource, open_source
from batchllm.spec.models import Input


def opened(
    path: Path,
    *,
    key: str | None = None,
    carry: Sequence[str] = (),
    needed: frozenset[str] | None = None,
) -> FileSource:
    return open_source(Input(path=str(path), key=key), carry=carry, needed=needed)


def written(path: Path, table: dict[str, object] | pa.Table, **options: object) -> Path:
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def rows(source: FileSource) -> list[Row | BadRow]:
    return [row for batch in source.batches() for row in batch]


def test_rows_hold_what_templates_need(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"id": ["x", "y"], "t": ["a", None], "n": [1, 2], "other": [0, 0]})
    source = opened(path, key="id", carry=["n"], needed=frozenset({"t", "missing"}))
    assert rows(source) == [
        Row(0, "x", {"t": "a", "id": "x"}, b"[1]"),
        Row(1, "y", {"t": None, "id": "y"}, b"[2]"),
    ]
    assert source.column_names == ("id", "t", "n", "other")
    assert source.shape.key == pa.field("id", pa.string())
    assert source.shape.carry == (pa.field("n", pa.int64()),)


def test_no_needed_column_makes_empty_rows(tmp_path: Path) -> None:
    source = opened(written(tmp_path / "a.parquet", {"a": [1, 2, 3]}), needed=frozenset())
    assert rows(source) == [Row(at, None, {}, b"[]") for at in range(3)]
    assert source.scan().rows == 3


def test_a_nested_column_is_a_dict(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"m": [{"a": {"b": [1, 2]}}], "m.a": ["dotted"]})
    assert opened(path, needed=frozenset({"m"})).peek(1)[0].values == {"m": {"a": {"b": [1, 2]}}}
    assert opened(path, needed=frozenset({"m.a"})).peek(1)[0].values == {"m.a": "dotted"}


ZOO = pa.table(
    {
        "decimal": pa.array([Decimal("0.00000001")], pa.decimal128(20, 8)),
        "stamp_ns": pa.array([1], pa.timestamp("ns", "UTC")),
        "stamp_far": pa.array([2**61], pa.timestamp("us")),
        "date": pa.array([20_000], pa.date32()),
        "time": pa.array([1], pa.time64("ns")),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "list": pa.array([[1, None]], pa.list_(pa.int32())),
        "category": pa.array(["c"]).dictionary_encode(),
        "binary": pa.array([b"\x00\xff"]),
        "fixed": pa.array([b"abc"], pa.binary(3)),
        "uint64": pa.array([2**64 - 1], pa.uint64()),
        "struct": pa.array([{"a": {"b": 1}}]),
        "null": pa.array([None], pa.null()),
        "nan": pa.array([float("nan")]),
        "half": pa.array([1.5], pa.float16()),
        "large": pa.array(["x"], pa.large_string()),
    }
)


def test_every_type_is_read_and_travels_as_it_is(tmp_path: Path) -> None:
    source = open_source(Input(path=str(written(tmp_path / "zoo.parquet", ZOO))), carry="all", needed=None)
    (row,) = rows(source)
    assert isinstance(row, Row)
    assert {name: str(value) for name, value in row.values.items()} == {
        "decimal": "0.00000001",
        "stamp_ns": "1970-01-01 00:00:00.000000001+00:00",
        "stamp_far": "+75041-06-19 14:24:52.213694",
        "date": "2024-10-04",
        "time": "00:00:00.000000001",
        "map": "{'k': 1}",
        "list": "[1, None]",
        "category": "c",
        "binary": r"b'\x00\xff'",
        "fixed": "b'abc'",
        "uint64": "18446744073709551615",
        "struct": "{'a': {'b': 1}}",
        "null": "None",
        "nan": "nan",
        "half": "1.5",
        "large": "x",
    } | {"stamp_far": str(row.values["stamp_far"])}
    assert str(row.values["stamp_far"]).startswith("+")
    back = CarryCodec(source.shape.carry).decode([row.carry])
    for field, column in zip(source.shape.carry, back, strict=True):
        before = ZOO.column(field.name).combine_chunks()
        assert column.type == (pa.string() if field.name in ("category", "large") else before.type)
        assert str(column) == str(before.cast(column.type))


def test_a_time_zone_is_the_columns_own(tmp_path: Path) -> None:
    at = pa.array([0], pa.timestamp("us", "Asia/Kolkata"))
    moment = opened(written(tmp_path / "a.parquet", {"at": at})).peek(1)[0].values["at"]
    assert isinstance(moment, datetime)
    assert str(moment) == "1970-01-01 05:30:00+05:30"


def test_text_that_is_no_utf8_is_a_bad_row(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"caf\xe9", b"c"])
    bad = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    source = opened(written(tmp_path / "a.parquet", {"t": bad}))
    first, second, third = rows(source)
    assert second == BadRow(
        1, "a.parquet: row 1, counted from 0", r'column "t" holds text that is no UTF-8: caf\xe9'
    )
    assert (first.ordinal, third.ordinal) == (0, 2)
    assert source.scan().bad_rows == 1


def test_a_bad_row_of_a_later_file_is_counted_in_its_file(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"id": ["a"] * 700}, row_group_size=100)
    written(tmp_path / "b.parquet", {"id": ["b"] * 600 + [None]}, row_group_size=250)
    found = rows(opened(tmp_path, key="id"))[-1]
    assert (found.ordinal, found.place) == (1300, "b.parquet: row 600, counted from 0")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"PAR1",
        lambda whole: b"no parquet at all, only text\n" * 9,
        lambda whole: whole[:-5],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-40] + b"\xff" * 32 + whole[-8:],
    ],
    ids=["empty", "magic only", "text", "tail cut", "half", "footer overwritten"],
)
def test_a_damaged_file_is_refused_by_name_before_anything_is_read(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path / "a.parquet", {"t": ["x" * 100] * 10})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputDataError, match=r"a\.parquet cannot be read"):
        opened(path)


def test_damage_inside_is_found_by_the_scan(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.parquet", {"t": [f"text {at * 7919}" for at in range(20_000)]}, compression="zstd"
    )
    data = bytearray(path.read_bytes())
    data[2000:3000] = bytes(1000)
    path.write_bytes(data)
    source = opened(path)
    with pytest.raises(InputDataError, match=r"a\.parquet cannot be read"):
        source.scan()


def test_a_page_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.parquet",
        {"n": list(range(1000))},
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    source = opened(path)
    with pytest.raises(InputDataError, match="CRC"):
        source.scan()


def test_columns_that_differ_in_type_are_refused_with_both_files(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"t": ["x"], "n": [1]})
    written(tmp_path / "b.parquet", {"t": ["x"], "n": [1.5]})
    with pytest.raises(
        InputDataError, match=r'column "n" is int64 in .*a\.parquet and double in .*b\.parquet'
    ):
        opened(tmp_path, carry=["n"], needed=frozenset({"t"}))
    assert len(rows(opened(tmp_path, needed=frozenset({"t"})))) == 2


def test_a_column_that_one_file_lacks_is_refused_with_both_files(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"t": ["x"]})
    written(tmp_path / "b.parquet", {"t": ["x"], "n": [1.5]})
    with pytest.raises(InputDataError, match=r'a\.parquet has no column "n", which .*b\.parquet has'):
        opened(tmp_path, needed=frozenset({"n"}))
    assert opened(tmp_path, needed=frozenset({"t"})).column_names == ("t",)


def test_text_columns_of_different_width_agree(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"t": pa.array(["x"], pa.string())})
    written(tmp_path / "b.parquet", {"t": pa.array(["y"], pa.large_string())})
    written(tmp_path / "c.parquet", {"t": pa.array(["z"]).dictionary_encode()})
    source = opened(tmp_path, key="t", carry=["t"])
    assert [row.key for row in rows(source) if isinstance(row, Row)] == ["x", "y", "z"]


def test_a_column_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"label": ["x"]})
    with pytest.raises(InputDataError, match=r'no column "Lable" \(output.carry\)') as caught:
        opened(path, carry=["Lable"])
    assert caught.value.remedy == 'did you mean "label"? its columns: label'


def test_declared_types_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"n": [1]})
    with pytest.raises(InputDataError, match=r"input\.columns") as caught:
        open_source(Input(path=str(path), columns={"n": "string"}), carry=(), needed=None)
    assert "remove input.columns" in caught.value.remedy


def test_a_packed_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(InputDataError, match="packed Parquet"):
        opened(tmp_path / "a.parquet.gz")


def test_a_file_without_rows_is_an_empty_input(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", pa.table({"t": pa.array([], pa.string())}))
    source = opened(path, key="t")
    assert (source.scan().rows, rows(source)) == (0, [])


def test_large_batches_are_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"t": [f"{at}" * 5000 for at in range(10_000, 13_000)]})
    source = opened(path, carry=["t"])
    sizes = [len(batch) for batch in source.batches()]
    assert max(sizes) * 25_000 < 5 << 20
    assert [row.ordinal for row in rows(source)] == list(range(3000))


def test_an_interrupted_reading_leaves_nothing_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"t": ["x"] * 5000})
    reading = iter(opened(path).batches())
    next(reading)
    assert path in open_files()
    reading.close()  # type: ignore[attr-defined]  # `batches` is a generator
    assert path not in open_files()


def open_files() -> set[Path]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very listing
            found.add(link.readlink())
    return found


BOMB = """
import sys
from pathlib import Path
from batchllm.source import open_source
from batchllm.spec.models import Input

def peak_mib():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024

source = open_source(Input(path=sys.argv[1]), carry=(), needed=None)
before = peak_mib()
rows = sum(len(batch) for batch in source.batches())
print(rows, peak_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("texts_a_row", [1, 4])
def test_a_file_that_expands_a_million_times_is_read_in_little_memory(
    tmp_path: Path, texts_a_row: int
) -> None:
    text = "x" * 1_000_000
    column = pa.array([text] * 400 if texts_a_row == 1 else [[text] * texts_a_row] * (400 // texts_a_row))
    path = written(tmp_path / "bomb.parquet", {"t": column}, compression="zstd")
    assert path.stat().st_size < 1000
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True, timeout=50
    )
    count, grown_mib = map(int, done.stdout.split())
    assert count == 400 // texts_a_row
    assert grown_mib < 250


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_row_group_of_many_long_texts_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Of 100 MB here, which its dictionary page, full after 1 MB, must not cost either."""
    texts = pa.array([f"{at:08d}" * 256 for at in range(50_000)])
    path = written(tmp_path / "long.parquet", {"t": texts}, compression="none", row_group_size=1 << 20)
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).column(0).has_dictionary_page
    assert path.stat().st_size > 100_000_000
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True, timeout=50
    )
    count, grown_mib = map(int, done.stdout.split())
    assert count == 50_000
    assert grown_mib < 70


def test_a_page_that_claims_to_expand_a_thousand_times_is_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.parquet", {"t": ["x" * (1 << 20)] * 300}, compression="zstd", use_dictionary=False
    )
    source = opened(path)
    with pytest.raises(InputDataError, match=r"unpacks to 314,.* bytes, more than 1000 times its size"):
        source.scan()


def test_the_digest_is_of_all_bytes(tmp_path: Path) -> None:
    first = opened(
        written(tmp_path / "a.parquet", {"t": ["x"], "unused": [1]}), needed=frozenset({"t"})
    ).scan()
    other = opened(
        written(tmp_path / "b.parquet", {"t": ["x"], "unused": [2]}), needed=frozenset({"t"})
    ).scan()
    assert first.digest != other.digest


def test_blobs_hold_values_of_a_dictionary_column(tmp_path: Path) -> None:
    column = pa.array(["a", None, "a"]).dictionary_encode()
    source = opened(written(tmp_path / "a.parquet", {"c": column}), carry=["c"])
    assert source.shape.carry == (pa.field("c", pa.string()),)
    assert [orjson.loads(row.carry) for row in rows(source) if isinstance(row, Row)] == [["a"], [None], ["a"]]


@pytest.mark.parametrize("group_rows", [3_000, 20_000])
def test_rows_that_are_chosen_keep_their_places_however_many_are_passed_over(
    tmp_path: Path, group_rows: int
) -> None:
    texts: list[bytes] = [b"t%d" % at for at in range(10_000)]
    texts[9_001] = b"\xff"
    column = pa.array(texts).view(pa.string())
    source = opened(
        written(
            tmp_path / "a.parquet", pa.table({"t": column, "n": range(10_000)}), row_group_size=group_rows
        ),
        carry=["n"],
    )
    wanted = bytearray(10_000)
    for at in (5, 4_500, 9_000, 9_001, 9_999):
        wanted[at] = 1
    source.hold_to(marks_of(source.mark().marks))
    found = [row for batch in source.chosen(wanted, (10_000,)) for row in batch]
    assert [row.ordinal for row in found] == [5, 4_500, 9_000, 9_001, 9_999]
    assert [row.carry for row in found if isinstance(row, Row)] == [b"[5]", b"[4500]", b"[9000]", b"[9999]"]
    assert [row.place.split(": ")[1] for row in found if isinstance(row, BadRow)] == [
        "row 9001, counted from 0"
    ]
