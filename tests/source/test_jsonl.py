"""JSONL in: what is a row, what is a bad row, and what happens to JSON that is unusual."""

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_rows import bad, rows, values

from batchllm.errors import InputDataError
from batchllm.records import BadRow, Row
from batchllm.source import FileSource, open_source
from batchllm.source.columns import RowFault
from batchllm.source.jsonl import parse_line, repaired
from batchllm.spec.models import ColumnType, Input


def opened(
    folder: Path,
    data: bytes,
    *,
    key: str | None = None,
    carry: Sequence[str] = (),
    columns: dict[str, ColumnType] | None = None,
    name: str = "reviews.jsonl",
) -> FileSource:
    path = folder / name
    path.write_bytes(data)
    return open_source(Input(path=str(path), key=key, columns=columns or {}), carry=carry, needed=None)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1}\n{"a":2}\n',
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\r\n{"a":2}\r\n',
        b'\xef\xbb\xbf{"a":1}\n{"a":2}\n',
        b'\n  \n{"a":1}\n\t\r\n\n{"a":2}\n\n',
        b'\xef\xbb\xbf\n{"a":1}\n{"a":2}\n',
    ],
    ids=["plain", "no last newline", "crlf", "bom", "blank lines", "bom alone on a line"],
)
def test_line_ends_bom_and_blank_lines_make_no_difference(tmp_path: Path, data: bytes) -> None:
    source = opened(tmp_path, data)
    assert values(source) == [{"a": 1}, {"a": 2}]
    assert [row.ordinal for row in rows(source)] == [0, 1]
    assert source.scan().rows == 2


def test_separators_inside_text_do_not_cut_a_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\u2029four"
    line = json.dumps({"t": text}, ensure_ascii=False).encode() + b"\n"
    assert values(opened(tmp_path, line * 3)) == [{"t": text}] * 3


def test_a_form_feed_around_an_object_is_named(tmp_path: Path) -> None:
    assert "not valid JSON" in bad(opened(tmp_path, b'{"a":1}\n\x0c{"a":2}\n')).message


def test_a_bad_line_says_file_line_and_byte(tmp_path: Path) -> None:
    found = bad(opened(tmp_path, b'{"a":1}\n\n{"a":2\n{"a":3}\n'))
    assert found.ordinal == 1
    assert found.place == "reviews.jsonl:3 (byte 9)"
    assert "not valid JSON" in found.message
    assert "at character 7" in found.message


def test_rows_after_a_bad_line_keep_their_ordinals(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"a":1}\nno\n{"a":3}\n')
    assert [(row.ordinal, isinstance(row, Row)) for row in rows(source)] == [(0, True), (1, False), (2, True)]
    assert source.scan().bad_rows == 1


def test_a_torn_last_line_is_a_bad_row(tmp_path: Path) -> None:
    found = bad(opened(tmp_path, b'{"a":1}\n{"a":2,"b'))
    assert (found.ordinal, found.place) == (1, "reviews.jsonl:2 (byte 8)")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[1]", "a JSON array"),
        (b'"text"', "a JSON string"),
        (b"17", "a number"),
        (b"1.5", "a number"),
        (b"true", "true or false"),
        (b"null", "null"),
        (b"NaN", "a number"),
    ],
)
def test_a_line_that_holds_no_object_is_a_bad_row(tmp_path: Path, line: bytes, says: str) -> None:
    assert says in bad(opened(tmp_path, b'{"a":1}\n' + line)).message


def test_invalid_utf8_is_shown_escaped(tmp_path: Path) -> None:
    found = bad(opened(tmp_path, b'{"a":1}\n{"t":"caf\xe9"}\n'))
    assert found.message == r"""invalid UTF-8 at byte 10 of the line: {"t":"caf\xe9"}"""


def test_nul_bytes_are_a_bad_row(tmp_path: Path) -> None:
    assert "not valid JSON" in bad(opened(tmp_path, b'{"a":1}\n\x00\x00\x00\n')).message


def test_nan_and_infinities_are_kept_as_floats(tmp_path: Path) -> None:
    (row,) = rows(opened(tmp_path, b'{"n":NaN,"p":Infinity,"m":-Infinity,"in":[NaN]}\n'))
    assert isinstance(row, Row)
    assert math.isnan(row.values["n"])  # type: ignore[arg-type]
    assert (row.values["p"], row.values["m"]) == (math.inf, -math.inf)


def test_a_lone_surrogate_becomes_the_replacement_character(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"t":"a\\ud800b","\\udfff":["\\ud83d\\ude00\\ud83d"]}\n')
    assert values(source) == [{"t": "a\ufffdb", "\ufffd": ["\U0001f600\ufffd"]}]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 2**70, -(2**63) - 1, -(10**300), 10**400])
def test_integers_beyond_64_bits_are_exact(tmp_path: Path, number: int) -> None:
    data = f'{{"a":1}}\n{{"id":{number},"deep":[{{"x":{number}}}]}}\n{{"a":2}}\n'.encode()
    assert values(opened(tmp_path, data))[1] == {"id": number, "deep": [{"x": number}]}


def test_long_digits_in_text_and_large_floats_stay_what_they_are(tmp_path: Path) -> None:
    data = b'{"card":"12345678901234567890123","f":12345678901234567890123.5,"e":1e30,"n":9007199254740993}\n'
    assert values(opened(tmp_path, data)) == [
        {"card": "12345678901234567890123", "f": 12345678901234567890123.5, "e": 1e30, "n": 9007199254740993}
    ]


def test_an_integer_of_five_thousand_digits_is_a_bad_row(tmp_path: Path) -> None:
    assert (
        "the number has 5,000 digits"
        in bad(opened(tmp_path, b'{"a":1}\n{"n":' + b"9" * 5000 + b"}\n")).message
    )


@pytest.mark.parametrize("depth", [1_500, 200_000])
def test_nesting_without_end_is_a_bad_row(tmp_path: Path, depth: int) -> None:
    data = b'{"a":1}\n{"a":' + b"[" * depth + b"]" * depth + b"}\n"
    assert "nested too deeply" in bad(opened(tmp_path, data)).message


def test_the_last_of_two_equal_fields_counts(tmp_path: Path) -> None:
    assert values(opened(tmp_path, b'{"a":1,"a":2}\n')) == [{"a": 2}]


def test_a_line_beyond_64_mib_is_a_bad_row_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a":1}\n{"t":"')
        for _ in range(65):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"a":3}\n')
    source = open_source(Input(path=str(path)), carry=(), needed=None)
    found = rows(source)
    assert [row.ordinal for row in found] == [0, 1, 2]
    assert isinstance(found[1], BadRow)
    assert found[1].place == "long.jsonl:2 (byte 8)"
    assert "68,157,448 bytes" in found[1].message
    assert isinstance(found[2], Row)
    assert source.scan().bad_rows == 1


def test_a_batch_has_at_most_512_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"a":1}\n' * 1300)
    sizes = [len(batch) for batch in source.batches()]
    assert max(sizes) <= 512
    assert sum(sizes) == 1300
    assert [row.ordinal for row in rows(source)] == list(range(1300))


def test_a_batch_of_long_rows_stays_near_4_mib(tmp_path: Path) -> None:
    line = orjson.dumps({"t": "x" * 40_000}) + b"\n"
    source = opened(tmp_path, line * 300)
    assert max(len(batch) for batch in source.batches()) * len(line) <= 4 << 20


def test_places_are_right_past_the_first_block(tmp_path: Path) -> None:
    line = orjson.dumps({"t": "x" * 1000}) + b"\n"
    source = opened(tmp_path, line * 3000 + b"oops\n")
    found = bad(source)
    assert (found.ordinal, found.place) == (3000, f"reviews.jsonl:3001 (byte {len(line) * 3000})")


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packed_files_are_unpacked(tmp_path: Path, ending: str) -> None:
    data = b'{"a":1}\n' * 5000
    packed = gzip.compress(data) if ending == "gz" else pa.compress(data, "zstd", asbytes=True)
    source = opened(tmp_path, packed, name=f"a.jsonl.{ending}")
    assert len(rows(source)) == 5000
    assert source.scan().rows == 5000


def test_gzip_files_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n')
    assert values(opened(tmp_path, packed, name="a.jsonl.gz")) == [{"a": 1}, {"a": 2}]


def test_a_gzip_file_that_was_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(orjson.dumps({"a": at * 7919 % 1013}) + b"\n" for at in range(50_000)))
    with pytest.raises(InputDataError, match=r"a\.jsonl\.gz cannot be read"):
        opened(tmp_path, packed[: len(packed) // 2], name="a.jsonl.gz").scan()


def test_a_file_that_is_not_packed_as_its_name_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"a\.jsonl\.gz cannot be read"):
        opened(tmp_path, b'{"a":1}\n', name="a.jsonl.gz")


@pytest.mark.parametrize("head", [b"PAR1", b"\x1f\x8b\x08", b"\xff\xfe{"])
def test_a_file_of_another_kind_is_refused_when_it_is_opened(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(InputDataError, match="not lines of UTF-8 text"):
        opened(tmp_path, head + b"\n" * 20)


def test_undeclared_carried_values_travel_as_their_json_text(tmp_path: Path) -> None:
    lines = [b'{"c":"x"}', b'{"c":5}', b'{"c":1.50}', b'{"c":true}', b'{"c":[1, 2]}', b'{"c":{"k":null}}']
    lines += [b'{"c":null}', b"{}", b'{"c":NaN}', b'{"c":""}', b'{"c":"\\u00e9"}', b'{"c":[NaN]}']
    source = opened(tmp_path, b"\n".join(lines), carry=["c"])
    assert source.shape.carry == (pa.field("c", pa.string()),)
    carried = [orjson.loads(row.carry)[0] for row in rows(source) if isinstance(row, Row)]
    assert carried == ["x", "5", "1.5", "true", "[1,2]", '{"k":null}', None, None, "NaN", "", "é", "[NaN]"]


def test_declared_columns_travel_with_their_types(tmp_path: Path) -> None:
    data = b'{"i":5,"f":1,"b":true,"s":7}\n{"i":null,"f":NaN}\n{"i":3.0,"f":-1.5,"b":false,"s":"t"}\n'
    source = opened(
        tmp_path,
        data,
        carry=["i", "f", "b", "s"],
        columns={"i": "int64", "f": "float64", "b": "bool", "s": "string"},
    )
    assert [field.type for field in source.shape.carry] == [pa.int64(), pa.float64(), pa.bool_(), pa.string()]
    assert [row.carry for row in rows(source) if isinstance(row, Row)] == [
        b'[5,1.0,true,"7"]',
        b'[null,"nan",null,null]',
        b'[3,-1.5,false,"t"]',
    ]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("int64", b'"abc"', '"abc"'),
        ("int64", b"3.5", "3.5"),
        ("int64", b"9223372036854775808", "9223372036854775808"),
        ("int64", b"true", "true"),
        ("int64", b"1e300", "1e+300"),
        ("int64", b"[1]", "[1]"),
        ("float64", b'"1.5"', '"1.5"'),
        ("float64", b"true", "true"),
        ("bool", b"1", "1"),
        ("bool", b'"true"', '"true"'),
    ],
)
def test_a_value_that_does_not_fit_makes_a_bad_row(
    tmp_path: Path, kind: ColumnType, value: bytes, shown: str
) -> None:
    source = opened(
        tmp_path, b'{"c":null}\n{"c":' + value + b'}\n{"c":null}\n', carry=["c"], columns={"c": kind}
    )
    found = bad(source)
    assert found.message == f'column "c" is declared {kind} and holds {shown}'
    assert found.place == "reviews.jsonl:2 (byte 11)"
    assert source.scan().bad_rows == 1


def test_a_declared_column_is_checked_even_when_it_is_not_carried(tmp_path: Path) -> None:
    assert "declared int64" in bad(opened(tmp_path, b'{"c":1}\n{"c":"x"}', columns={"c": "int64"})).message


def test_a_key_is_text_unless_it_is_declared(tmp_path: Path) -> None:
    data = b'{"id":1}\n{"id":"b"}\n{"id":true}\n{"id":36893488147419103232}\n'
    source = opened(tmp_path, data, key="id")
    assert source.shape.key == pa.field("id", pa.string())
    assert [row.key for row in rows(source) if isinstance(row, Row)] == [
        "1",
        "b",
        "true",
        "36893488147419103232",
    ]


def test_a_declared_key_is_a_number(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"id":1}\n{"id":2}\n', key="id", columns={"id": "int64"})
    assert source.shape.key == pa.field("id", pa.int64())
    assert [row.key for row in rows(source) if isinstance(row, Row)] == [1, 2]


@pytest.mark.parametrize("kind", ["float64", "bool"])
def test_a_key_of_another_type_is_refused(tmp_path: Path, kind: ColumnType) -> None:
    with pytest.raises(InputDataError, match=f"declared {kind}"):
        opened(tmp_path, b'{"id":1}\n', key="id", columns={"id": kind})


@pytest.mark.parametrize("line", [b'{"id":null}', b"{}", b'{"id":""}'])
def test_a_row_without_a_key_is_a_bad_row_outside_the_scan(tmp_path: Path, line: bytes) -> None:
    source = opened(tmp_path, b'{"id":"a"}\n' + line, key="id")
    assert 'the key column "id"' in bad(source).message


def test_the_key_does_not_travel_twice(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"id":"a","c":"x"}\n', key="id", carry=["id", "c", "c"])
    assert [field.name for field in source.shape.carry] == ["c"]


def test_a_carried_column_that_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r'no column "Lable" \(output.carry\)') as caught:
        opened(tmp_path, b'{"label":"a","text":"b"}\n' * 3, carry=["Lable"])
    assert caught.value.remedy.startswith('did you mean "label"?')


def test_a_key_that_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r'no column "review" \(input.key\)') as caught:
        opened(tmp_path, b'{"review_id":"a"}\n', key="review")
    assert 'did you mean "review_id"?' in caught.value.remedy


def test_a_carried_column_that_comes_late_is_found_among_the_first_thousand_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"a":1}\n' * 999 + b'{"late":"x"}\n', carry=["late"])
    assert rows(source)[-1] == Row(999, None, {"late": "x"}, b'["x"]')
    with pytest.raises(InputDataError, match="late"):
        opened(tmp_path, b'{"a":1}\n' * 1000 + b'{"late":"x"}\n', carry=["late"])


def test_carry_all_needs_declared_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1,"b":2}\n')
    with pytest.raises(InputDataError, match="all does not tell which") as caught:
        open_source(Input(path=str(path)), carry="all", needed=None)
    assert "seen so far: a, b" in caught.value.remedy
    source = open_source(
        Input(path=str(path), key="a", columns={"a": "int64", "b": "int64"}), carry="all", needed=None
    )
    assert [field.name for field in source.shape.carry] == ["b"]


def test_the_columns_of_jsonl_are_not_known(tmp_path: Path) -> None:
    assert opened(tmp_path, b'{"a":1}\n').column_names is None


def test_peek_gives_the_first_readable_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, b'no\n{"a":1}\nno\n{"a":2}\n{"a":3}\n')
    assert [row.ordinal for row in source.peek(2)] == [1, 3]
    assert source.peek(0) == []
    assert len(source.peek(100)) == 3


def test_a_file_of_bad_rows_only_can_be_opened(tmp_path: Path) -> None:
    source = opened(tmp_path, b'{"n":1E400}\n' * 2, key="id", carry=["c"])
    scan = source.scan()
    assert (scan.rows, scan.bad_rows) == (2, 2)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, b"", key="id", carry=["c"])
    assert (source.scan().rows, rows(source), source.peek(5)) == (0, [], [])


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_an_empty_packed_file_has_no_rows(tmp_path: Path, ending: str) -> None:
    packed = gzip.compress(b"") if ending == "gz" else pa.compress(b"", "zstd", asbytes=True)
    assert opened(tmp_path, packed, name=f"a.jsonl.{ending}").scan().rows == 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_any_object_reads_as_the_standard_library_reads_it(value: dict[str, object]) -> None:
    line = json.dumps(value).encode()
    assert parse_line(line) == json.loads(line)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_row_fault(line: bytes) -> None:
    try:
        parse_line(line)
    except RowFault as fault:
        str(fault).encode()  # what is said is text itself


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(categories=["L", "Cs"])))
def test_repaired_text_can_be_written(text: str) -> None:
    fixed = repaired({text: [text]})
    assert orjson.loads(orjson.dumps(fixed)) == fixed


@pytest.mark.parametrize(
    ("data", "fault", "remedy"),
    [
        (b'[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]\n', "an array begins", "json.load(sys.stdin)"),
        (b'\n[\n{"a": 1},\n{"a": 2}\n]\n', "an array begins", "json.load(sys.stdin)"),
        (b'[{"a": 1}, {"a": 2}]', "the line holds a JSON array", "json.load(sys.stdin)"),
        (b"id,text\n1,good\n2,bad\n", "not valid JSON", "format: csv"),
        (b"just a text\nand more\n", "not valid JSON", "one JSON object a line"),
        (b'{"a":"caf\xe9"}\n' * 30, "invalid UTF-8", "convert it to UTF-8"),
        (b'{\n  "a": 1\n}\n', "not valid JSON", "one JSON object a line"),
    ],
    ids=["pretty", "object a line", "one line", "csv", "text", "latin-1", "pretty object"],
)
def test_a_file_that_is_no_jsonl_at_all_is_refused_as_one(
    tmp_path: Path, data: bytes, fault: str, remedy: str
) -> None:
    with pytest.raises(InputDataError) as caught:
        opened(tmp_path, data)
    assert str(tmp_path / "reviews.jsonl") in caught.value.message
    assert fault in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    "data",
    [
        b"[\n" + b"x\n" * 18 + b'{"a":1}\n',
        b'{"a":1}\nid,text\n',
        b'{"a":1E400}\n',
        b"\n \n",
        b"",
    ],
)
def test_a_file_with_an_object_among_its_first_lines_has_bad_rows(tmp_path: Path, data: bytes) -> None:
    assert opened(tmp_path, data).scan().rows == len([line for line in data.split(b"\n") if line.strip()])


@pytest.mark.parametrize("number", [b"1E400", b"-1e999", b"1" * 5000 + b".5"])
def test_a_number_that_no_float_holds_is_a_bad_row_of_its_column(tmp_path: Path, number: bytes) -> None:
    data = b'{"id":"k","a":{"n":[' + number + b"]}}\n"
    for carry in ((), ("a",)):
        message = bad(opened(tmp_path, data, key="id", carry=carry)).message
        assert message.startswith('column "a": the number ')
        assert message.endswith(" is too large")
        assert number[:20].decode() in message
        assert len(message) < 150


def test_a_number_of_too_many_digits_is_told_by_their_count(tmp_path: Path) -> None:
    message = bad(opened(tmp_path, b'{"n":-' + b"9" * 5000 + b"}\n")).message
    assert 'column "n": the number has 5,000 digits' in message
    assert "set_int_max" not in message


@pytest.mark.parametrize("value", [b"1E400", b"9" * 5000, b'"no number"'])
@pytest.mark.parametrize(("key", "expected"), [(b'"k"', "k"), (b"7", "7")])
def test_a_bad_row_tells_its_key(tmp_path: Path, value: bytes, key: bytes, expected: str) -> None:
    data = b'{"id":' + key + b',"n":' + value + b"}\n"
    assert bad(opened(tmp_path, data, key="id", columns={"n": "int64"})).key == expected


@pytest.mark.parametrize("line", [b'{"id":1E400,"n":1}', b'{"n":1E400}', b'{"id":"a","n"'])
def test_a_bad_row_whose_key_cannot_be_read_has_none(tmp_path: Path, line: bytes) -> None:
    data = b'{"id":"x","n":1}\n' + line + b"\n"
    assert bad(opened(tmp_path, data, key="id", columns={"n": "int64"})).key is None
