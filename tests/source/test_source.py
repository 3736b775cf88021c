"""Opening a source, and what holds for every format."""

import gc
import random
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import InputDataError, InputMissingError
from batchllm.ports import Source
from batchllm.records import BadRow, Row
from batchllm.source import FileSource, frame_source, open_source
from batchllm.spec.models import Input

Table = list[dict[str, object]]


def write_jsonl(path: Path, table: Table) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in table))


def write_csv(path: Path, table: Table) -> None:
    lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path, table: Table) -> None:
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=100)


FORMATS = [("jsonl", write_jsonl), ("csv", write_csv), ("parquet", write_parquet)]
every_format = pytest.mark.parametrize(("ending", "write"), FORMATS, ids=[ending for ending, _ in FORMATS])
Write = Callable[[Path, Table], None]


def opened(path: Path, key: str | None = None, carry: tuple[str, ...] = ()) -> FileSource:
    return open_source(Input(path=str(path), key=key), carry=carry, needed=None)


def numbered(*names: str) -> Table:
    return [{"id": name, "t": f"text of {name}"} for name in names]


def as_port(source: Source) -> Source:
    return source


@every_format
def test_every_format_is_a_source(tmp_path: Path, ending: str, write: Write) -> None:
    write(tmp_path / f"a.{ending}", numbered("a", "b"))
    source = as_port(opened(tmp_path / f"a.{ending}", "id", ("t",)))
    assert [[row.key for row in batch if isinstance(row, Row)] for batch in source.batches()] == [["a", "b"]]
    assert [row.carry for row in source.peek(1)] == [b'["text of a"]']
    assert source.scan().rows == 2
    as_port(frame_source(numbered("a"), key=None, carry=(), needed=None))


@every_format
def test_a_repeated_key_is_told_with_both_files(tmp_path: Path, ending: str, write: Write) -> None:
    write(tmp_path / f"a.{ending}", numbered("x", "y", "z"))
    write(tmp_path / f"b.{ending}", numbered("u", "y", "v"))
    with pytest.raises(InputDataError) as caught:
        opened(tmp_path, "id").scan()
    places = {
        "jsonl": "a.jsonl:2 and b.jsonl:2",
        "csv": "a.csv:3 and b.csv:3",
        "parquet": "a.parquet: row 1, counted from 0 and b.parquet: row 1, counted from 0",
    }
    assert f'{places[ending]}: "y"' in caught.value.message


def test_blank_and_bad_lines_do_not_shift_the_places_of_repeats(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"id":"a"}\nbad\n\n{"id":1}\n{"id":"1"}\n')
    with pytest.raises(InputDataError) as caught:
        opened(tmp_path, "id").scan()
    assert 'a.jsonl:5 (1) and a.jsonl:6 ("1")' in caught.value.message


def test_bad_records_do_not_shift_the_places_of_repeats_in_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,t\n"a","x\ny"\n\nb\n"c"d,1\na,2\n')
    with pytest.raises(InputDataError, match=r'a\.csv:2 and a\.csv:7: "a"'):
        opened(tmp_path, "id").scan()


@every_format
def test_a_scan_says_what_each_file_was(tmp_path: Path, ending: str, write: Write) -> None:
    write(tmp_path / f"a.{ending}", numbered("a", "b"))
    write(tmp_path / f"b.{ending}", numbered("c"))
    source = opened(tmp_path, "id")
    scan = source.scan()
    assert [stamp.rows for stamp in scan.files] == [2, 1]
    for stamp, quick in zip(scan.files, source.stamps(), strict=True):
        assert stamp.sha256 == sha256(Path(stamp.path).read_bytes()).hexdigest()
        assert stamp.is_like(quick)
        assert quick.sha256 is None


@every_format
def test_the_digest_follows_bytes_and_order_but_no_names(tmp_path: Path, ending: str, write: Write) -> None:
    tables = {"one": numbered("a"), "two": numbered("b")}

    def digest(*order: str) -> str:
        folder = tmp_path / "-".join(order)
        folder.mkdir()
        for at, name in enumerate(order):
            write(folder / f"{at}{name}.{ending}", tables[name])
        first = opened(folder).scan().digest
        for path in list(folder.iterdir()):
            path.rename(path.with_name(f"renamed-{path.name}"))
        assert opened(folder).scan().digest == first
        return first

    assert len({digest("one", "two"), digest("two", "one"), digest("one")}) == 3


@every_format
def test_a_file_that_changes_during_the_scan_ends_it(tmp_path: Path, ending: str, write: Write) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, numbered("a"))
    source = opened(path)
    write(path, numbered("a", "b"))
    with pytest.raises(InputDataError, match="changed while it was read"):
        source.scan()


def test_a_file_that_grows_while_rows_are_read_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, numbered(*map(str, range(2000))))
    source = opened(path)
    reading = source.batches()
    next(reading)
    with path.open("a") as file:
        file.write('{"id":"late"}\n')
    with pytest.raises(InputDataError, match=r"a\.jsonl changed while it was read"):
        list(reading)


@every_format
def test_an_input_can_be_read_many_times_at_once(tmp_path: Path, ending: str, write: Write) -> None:
    write(tmp_path / f"a.{ending}", numbered(*map(str, range(1500))))
    source = opened(tmp_path / f"a.{ending}")
    one, two = source.batches(), source.batches()
    next(one)
    assert [row.ordinal for batch in two for row in batch] == list(range(1500))
    assert sum(len(batch) for batch in one) > 0


def test_a_file_without_rows_is_an_input_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    source = opened(tmp_path, "id", ("c",))
    scan = source.scan()
    assert (scan.rows, scan.bad_rows, len(scan.files), list(source.batches())) == (0, 0, 1, [])


def test_a_missing_input_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        opened(tmp_path / "none.jsonl")
    assert caught.value.exit_code == 66


def test_an_empty_file_beside_others_is_no_fault(tmp_path: Path) -> None:
    for ending, write in FORMATS[:2]:
        (tmp_path / f"a.{ending}").write_bytes(b"")
        write(tmp_path / f"b.{ending}", numbered("a"))
        source = opened(tmp_path / f"*.{ending}", "id", ("t",))
        assert [row.key for row in source.peek(9)] == ["a"]


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        dice = random.Random(rows)
        with path.open("wb") as file:
            for at in range(rows):
                file.write(b'{"id":%d,"t":"%s"}\n' % (at, b"x" * dice.randrange(150, 250)))
        source = opened(path)
        gc.collect()
        tracemalloc.start()
        source.scan()
        for _ in source.batches():
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60_000) < 1.2 * peak(15_000)


def test_places_and_messages_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{}\n{"a":"\xff"}\n\xed\xa0\x80\n{"a":"\\ud800"x}\n')
    found = [row for batch in opened(tmp_path).batches() for row in batch]
    assert len(found) == 4
    for row in found[1:]:
        assert isinstance(row, BadRow)
        (row.place + row.message).encode()
