"""CSV in: headers, quoting, ragged rows, and damage."""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_rows import bad, rows, values

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source import FileSource, open_source
from batchllm.source.csv import MAX_FIELD_CHARS
from batchllm.spec.models import ColumnType, Input


def opened(
    folder: Path,
    data: str | bytes,
    *,
    key: str | None = None,
    carry: Sequence[str] = (),
    needed: frozenset[str] | None = None,
    columns: dict[str, ColumnType] | None = None,
    name: str = "reviews.csv",
) -> FileSource:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    spec = Input(path=str(path), key=key, columns=columns or {})
    return open_source(spec, carry=carry, needed=needed)


@pytest.mark.parametrize(
    "data",
    [
        "a,b\n1,x\n2,y\n",
        "a,b\n1,x\n2,y",
        "a,b\r\n1,x\r\n2,y\r\n",
        "\ufeffa,b\n1,x\n2,y\n",
        "\n\na,b\n\n1,x\n\r\n2,y\n\n",
        '"a","b"\n"1","x"\n2,y\n',
    ],
    ids=["plain", "no last newline", "crlf", "bom", "blank lines", "quoted"],
)
def test_line_ends_bom_blank_lines_and_quotes_make_no_difference(tmp_path: Path, data: str) -> None:
    source = opened(tmp_path, data)
    assert values(source) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
    assert source.column_names == ("a", "b")
    assert source.scan().rows == 2


def test_quoted_fields_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n"x, ""y""\nz",2\n"crlf\r\nkept",3\n')
    assert values(source) == [{"a": 'x, "y"\nz', "b": "2"}, {"a": "crlf\r\nkept", "b": "3"}]


def test_separators_inside_text_do_not_cut_a_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0cfour"
    assert values(opened(tmp_path, f"a,b\n{text},2\n")) == [{"a": text, "b": "2"}]


def test_only_needed_columns_are_in_a_row(tmp_path: Path) -> None:
    source = opened(tmp_path, "id,a,b,c\n7,1,2,3\n", key="id", carry=["b"], needed=frozenset({"a", "other"}))
    assert rows(source) == [Row(0, "7", {"id": "7", "a": "1", "b": "2"}, b'["2"]')]
    assert source.column_names == ("id", "a", "b", "c")


def test_no_needed_column_makes_empty_rows(tmp_path: Path) -> None:
    assert rows(opened(tmp_path, "a,b\n1,2\n", needed=frozenset())) == [Row(0, None, {}, b"[]")]


def test_declared_columns_are_parsed(tmp_path: Path) -> None:
    data = "i,f,b,s\n 007 ,1e3,TRUE,9\n,,,\n-5,.5,0,x\n+9223372036854775807,-inf,false,\n"
    source = opened(
        tmp_path,
        data,
        carry=["i", "f", "b", "s"],
        columns={"i": "int64", "f": "float64", "b": "bool", "s": "string"},
    )
    assert [list(row.values.values()) for row in rows(source) if isinstance(row, Row)] == [
        [7, 1000.0, True, "9"],
        [None, None, None, ""],
        [-5, 0.5, False, "x"],
        [2**63 - 1, float("-inf"), False, ""],
    ]
    assert [field.type for field in source.shape.carry] == [pa.int64(), pa.float64(), pa.bool_(), pa.string()]
    assert [row.carry for row in source.peek(2)] == [b'[7,1000.0,true,"9"]', b'[null,null,null,""]']


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int64", "abc"),
        ("int64", "3.5"),
        ("int64", "1_000"),
        ("int64", "\u0663"),
        ("int64", "9223372036854775808"),
        ("int64", "9" * 5000),
        ("float64", "1,5"),
        ("float64", "1_0.0"),
        ("float64", "0x10"),
        ("bool", "yes"),
    ],
)
def test_a_field_that_does_not_fit_makes_a_bad_row(tmp_path: Path, kind: ColumnType, text: str) -> None:
    found = bad(opened(tmp_path, f'c,d\n,1\n"{text}",2\n', columns={"c": kind}))
    assert f'column "c" is declared {kind} and holds "{text[:70]}' in found.message
    assert (found.ordinal, found.place) == (1, "reviews.csv:3")


def test_an_empty_field_is_empty_text(tmp_path: Path) -> None:
    assert opened(tmp_path, "a,b\n,x\n", carry=["a"]).peek(1)[0].carry == b'[""]'


@pytest.mark.parametrize(("line", "count"), [("1", 1), ("1,2,3", 3)])
def test_a_ragged_row_is_a_bad_row(tmp_path: Path, line: str, count: int) -> None:
    source = opened(tmp_path, f"a,b\n1,2\n{line}\n3,4\n")
    assert f"{count} field" in bad(source).message
    assert bad(source).place == "reviews.csv:3"
    assert [row.ordinal for row in rows(source)] == [0, 1, 2]
    assert source.scan().bad_rows == 1


def test_the_place_is_the_line_that_the_record_begins_in(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n"x\ny\nz",1\n\n1,2,3\n')
    assert (bad(source).ordinal, bad(source).place) == (1, "reviews.csv:6")


def test_a_stray_quote_costs_one_row(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n"x"y,1\n3,4\n')
    assert "not valid CSV" in bad(source).message
    assert values(source)[1] == {"a": "3", "b": "4"}


def test_a_record_that_swallowed_lines_says_which(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n"x,1\n2,"y",z\n3,4\n')
    assert "lines 2 to 3" in bad(source).message
    assert values(source)[1] == {"a": "3", "b": "4"}


def test_a_quote_that_is_never_closed_refuses_the_file(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n1,2\n"3,4\n5,6\n7,8\n')
    with pytest.raises(InputDataError, match=r"a quote opened in line 3 is never closed; all lines to 5"):
        source.scan()


def test_a_torn_last_line_is_a_bad_row(tmp_path: Path) -> None:
    source = opened(tmp_path, 'a,b\n1,2\n3,"fo')
    assert (bad(source).ordinal, bad(source).place) == (1, "reviews.csv:3")


def test_invalid_utf8_spoils_its_row_only(tmp_path: Path) -> None:
    source = opened(tmp_path, b"a,b\n1,2\ncaf\xe9,4\n5,6\n")
    assert bad(source).message == r"invalid UTF-8 at byte 4 of line 3: caf\xe9,4"
    assert [row.ordinal for row in rows(source)] == [0, 1, 2]


def test_invalid_utf8_within_a_quoted_record_spoils_the_record(tmp_path: Path) -> None:
    source = opened(tmp_path, b'a,b\n"x\n\xff\ny",4\n5,6\n')
    assert "of line 3" in bad(source).message
    assert bad(source).place == "reviews.csv:2"
    assert len(rows(source)) == 2


def test_a_nul_byte_spoils_its_row_only(tmp_path: Path) -> None:
    source = opened(tmp_path, b"a,b\n1,\x00\n5,6\n")
    assert bad(source).message == "a NUL byte in line 2"
    assert values(source)[1] == {"a": "5", "b": "6"}


def test_damage_in_a_blank_looking_record_is_not_forgotten(tmp_path: Path) -> None:
    source = opened(tmp_path, b"a,b\n\x00\n5,6\n")
    assert [type(row) for row in rows(source)] == [BadRow, Row]


def test_a_field_beyond_16_mib_is_a_bad_row_and_reading_goes_on(tmp_path: Path) -> None:
    large = "x" * (MAX_FIELD_CHARS + 1)
    source = opened(tmp_path, f'a,b\n1,{large}\n2,"{large}\nmore ""quoted"" text\nand more"\n3,4\n')
    found = rows(source)
    assert [row.place for row in found if isinstance(row, BadRow)] == ["reviews.csv:2", "reviews.csv:3"]
    assert all("larger than 16 MiB" in row.message for row in found if isinstance(row, BadRow))
    assert isinstance(found[2], Row)
    assert found[2].values == {"a": "3", "b": "4"}


def test_a_field_of_16_mib_is_read(tmp_path: Path) -> None:
    source = opened(tmp_path, f"a,b\n1,{'x' * MAX_FIELD_CHARS}\n")
    assert len(str(source.peek(1)[0].values["b"])) == MAX_FIELD_CHARS


def test_a_line_beyond_64_mib_is_a_bad_row_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write(b'a,b\n1,"')
        for _ in range(65):
            file.write(b"x" * (1 << 20))
        file.write(b'\nlast line of the record"\n3,4\n')
    source = open_source(Input(path=str(path)), carry=(), needed=None)
    assert "longer than 64 MiB" in bad(source).message
    assert values(source)[1] == {"a": "3", "b": "4"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a,,c\n1,2,3\n", "column 2 of the header has no name"),
        ("a,b, \n1,2,3\n", "column 3 of the header has no name"),
        ("a,b,a\n1,2,3\n", 'two columns "a"'),
        (b"a,b\xff\n1,2\n", "header cannot be read: invalid UTF-8"),
        ('a,"b\n1,2\n', "never closed"),
        ("a,b\r1,2\r3,4", "carriage returns alone"),
        (b"PAR1\n", "a Parquet file, not lines of UTF-8 text"),
    ],
)
def test_a_faulty_header_refuses_the_file(tmp_path: Path, data: str | bytes, says: str) -> None:
    with pytest.raises(InputDataError, match=says):
        opened(tmp_path, data)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, "a,b\n", key="a", carry="all")
    assert (source.scan().rows, source.column_names) == (0, ("a", "b"))
    assert [field.name for field in source.shape.carry] == ["b"]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, "", key="id", carry=["c"])
    assert (source.scan().rows, source.column_names) == (0, None)
    assert [field.name for field in source.shape.carry] == ["c"]


@pytest.mark.parametrize(
    ("role", "key", "carry", "columns"),
    [
        ("input.key", "lable", [], {}),
        ("output.carry", None, ["Label"], {}),
        ("input.columns", None, [], {"labels": "int64"}),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_the_nearest_name(
    tmp_path: Path, role: str, key: str | None, carry: list[str], columns: dict[str, ColumnType]
) -> None:
    with pytest.raises(InputDataError, match=role) as caught:
        opened(tmp_path, "text,label\nx,y\n", key=key, carry=carry, columns=columns)
    assert caught.value.remedy == 'did you mean "label"? its columns: text, label'


def test_files_may_order_their_columns_differently(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,only\n1,2,3\n")
    (tmp_path / "b.csv").write_text("y,x\n4,5\n")
    source = open_source(Input(path=str(tmp_path)), carry=["y"], needed=frozenset({"x"}))
    assert values(source) == [{"x": "1", "y": "2"}, {"y": "4", "x": "5"}]
    assert source.column_names == ("x", "y")


def test_a_needed_column_that_one_file_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("x\n4\n")
    with pytest.raises(InputDataError, match=r'b\.csv has no column "y"'):
        open_source(Input(path=str(tmp_path)), carry=(), needed=frozenset({"y"}))


def test_ordinals_count_over_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2,2\n")
    (tmp_path / "b.csv").write_text("x\n3\n")
    source = open_source(Input(path=str(tmp_path)), carry=(), needed=None)
    assert [row.ordinal for row in rows(source)] == [0, 1, 2]


def test_a_batch_has_at_most_512_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, "a\n" + "1\n" * 1300 + "1,2\n" + "1\n" * 700)
    sizes = [len(batch) for batch in source.batches()]
    assert max(sizes) == 512
    assert sum(sizes) == 2001
    assert bad(source).place == "reviews.csv:1302"


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    assert values(opened(tmp_path, gzip.compress(b"a\n1\n"), name="a.csv.gz")) == [{"a": "1"}]


def test_a_key_may_be_declared_a_number(tmp_path: Path) -> None:
    source = opened(tmp_path, "id\n1\n2\n", key="id", columns={"id": "int64"})
    assert [row.key for row in source.peek(5)] == [1, 2]


def test_an_empty_key_is_missing(tmp_path: Path) -> None:
    assert 'key column "id" is empty' in bad(opened(tmp_path, "id,a\n,1\n", key="id")).message


FIELDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=6))
def test_what_the_standard_library_wrote_comes_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    writer.writerows(table)
    source = opened(tmp_path_factory.mktemp("csv"), out.getvalue())
    assert values(source) == [{"a": a, "b": b} for a, b in table]


@pytest.mark.parametrize("number", ["1e400", "-1E400"])
def test_a_number_that_no_float_holds_is_a_bad_row(tmp_path: Path, number: str) -> None:
    source = opened(tmp_path, f"id,n\na,{number}\n", key="id", columns={"n": "float64"})
    assert bad(source).message == f'column "n": the number {number} is too large'


@pytest.mark.parametrize("header", ["n,id,m", "id,n,m"])
@pytest.mark.parametrize(("kind", "expected"), [("string", "7"), ("int64", 7)])
def test_a_bad_row_tells_its_key(tmp_path: Path, header: str, kind: ColumnType, expected: object) -> None:
    fields = {"n": "x", "id": "7", "m": "y"}
    record = ",".join(fields[name] for name in header.split(","))
    source = opened(
        tmp_path, f"{header}\n{record}\n", key="id", columns={"n": "int64", "m": "int64", "id": kind}
    )
    assert bad(source).key == expected
    assert 'column "n"' in bad(source).message
