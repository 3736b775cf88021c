"""YAML text → data and places: what a scalar means, what is refused, and where it stands."""

import json
import sys
from collections.abc import Callable

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchllm.errors import Fault, JobError
from batchllm.spec.yaml_source import MAX_BYTES, MAX_VALUES, Document, parse


def read(text: str | bytes) -> Document:
    return parse(text if isinstance(text, bytes) else text.encode(), "job.yaml")


def data(text: str) -> object:
    document = read(text)
    assert document.faults == ()
    return document.data


def refused(text: str | bytes) -> Fault:
    """The only fault of a text, whether the rest could be read or not."""
    try:
        faults = list(read(text).faults)
    except JobError as error:
        faults = error.faults
    assert len(faults) == 1, faults
    return faults[0]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("0123", 123),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("+12", 12),
        ("-007", -7),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e-3", -0.0005),
        ("1.5e", "1.5e"),
        ("true", True),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-02", "2024-01-02"),
        ("=", "="),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"\\ud83d\\ude00"', "😀"),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(scalar: str, value: object) -> None:
    found = data(f"a: {scalar}\n")
    assert isinstance(found, dict)
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_words_that_yaml_1_1_takes_for_booleans_are_keys() -> None:
    assert data("on: 1\nno: 2\n") == {"on": 1, "no": 2}


@pytest.mark.parametrize("scalar", [".inf", "-.INF", ".nan", "1e999", "-1e999"])
def test_a_number_that_json_cannot_hold_is_refused_where_it_stands(scalar: str) -> None:
    fault = refused(f"a:\n  b: {scalar}\n")
    assert (fault.path, fault.line, fault.column) == ("a.b", 2, 6)
    assert "JSON can hold" in fault.message


@pytest.mark.parametrize(
    "scalar", [str(2**64), str(-(2**63) - 1), "9" * 5000, "0x" + "f" * 17, "0o" + "7" * 30]
)
def test_a_whole_number_beyond_64_bits_is_refused(scalar: str) -> None:
    assert "64 bits" in refused(f"a: {scalar}\n").message


@pytest.mark.parametrize("scalar", ['"\\ud800"', '"\\ude00\\ud83d"'])
def test_half_a_character_is_refused(scalar: str) -> None:
    assert "surrogate" in refused(f"a: {scalar}\n").message


def test_places_point_at_values_and_at_the_keys_that_hold_blocks() -> None:
    document = read("a: 1\nproviders:\n  - provider: groq\n    limits: {rpm: -3}\n    x:\n")
    assert document.places == {
        "": (1, 1),
        "a": (1, 4),
        "providers": (2, 1),
        "providers.0": (3, 5),
        "providers.0.provider": (3, 15),
        "providers.0.limits": (4, 5),
        "providers.0.limits.rpm": (4, 19),
        "providers.0.x": (5, 7),
    }
    assert document.key_places["providers.0.limits.rpm"] == (4, 14)


def test_a_key_with_a_dot_stands_in_quotes_in_its_path() -> None:
    document = read('extra_body: {"a.b": 1, a: {b: 2}}\n')
    assert document.places['extra_body."a.b"'] == (1, 21)
    assert document.places["extra_body.a.b"] == (1, 31)


def test_a_key_with_control_characters_is_escaped_in_its_path() -> None:
    assert '"\\u001b[31m"' in read('"\\e[31m": 1\n').places


@pytest.mark.parametrize(
    "tag", ["!!python/object:os.system", "!!str", "!anything", "!", "!<tag:x.org,2000:y>"]
)
@pytest.mark.parametrize("value", ["x", "[1]", "{b: 1}"])
def test_tags_are_refused_at_their_key(tag: str, value: str) -> None:
    fault = refused(f"a: {tag} {value}\n")
    assert (fault.path, fault.line) == ("a", 1)
    assert "tags" in fault.message


def test_an_unknown_tag_handle_is_refused_as_a_tag() -> None:
    assert "tags" in refused("a: !x!y z\n").message


def test_a_key_given_twice_names_both_places() -> None:
    fault = refused("limits:\n  rpm: 1\n  tpm: 2\n  rpm: 3\n")
    assert (fault.path, fault.line, fault.column) == ("limits.rpm", 4, 3)
    assert "first at line 2, column 3" in fault.message


def test_the_same_key_in_quotes_is_the_same_key() -> None:
    assert "given twice" in refused('a: 1\n"a": 2\n').message


def test_all_local_faults_are_told_at_once() -> None:
    faults = read("a: !x 1\nb: .nan\nb: 2\n3: c\n<<: {d: 1}\n").faults
    assert [fault.line for fault in faults] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~"])
def test_a_key_that_is_not_text_is_refused_with_its_spelling(key: str) -> None:
    fault = refused(f"a: 1\nlogit_bias:\n  {key}: 5\n")
    assert (fault.path, fault.line, fault.column) == ("logit_bias", 3, 3)
    assert "not text" in fault.message
    assert "in quotes" in fault.remedy


def test_a_template_without_quotes_is_told_to_take_them() -> None:
    fault = refused("task:\n  prompt: {{ text }}\n")
    assert (fault.path, fault.line) == ("task.prompt", 2)
    assert fault.remedy == 'a template goes into quotes: "{{ column }}"'


def test_a_template_without_quotes_that_goes_on_is_told_to_take_them() -> None:
    fault = refused("task:\n  prompt: {{ text }} Which?\n")
    assert fault.line == 2
    assert fault.remedy == 'a template goes into quotes: "{{ column }}"'


def test_a_variable_inside_brackets_is_told_to_take_quotes() -> None:
    assert '"${NAME}"' in refused("lane: {provider: groq, api_key: ${KEY}}\n").remedy


def test_merge_keys_are_refused_with_what_to_do() -> None:
    fault = refused("a: &x {b: 1}\nc:\n  <<: *x\n")
    assert (fault.path, fault.line) == ("c", 3)
    assert fault.remedy == "write the keys out"
    assert data("'<<': 1\n") == {"<<": 1}


def test_an_alias_is_a_copy_of_its_own() -> None:
    found = data("a: &x {b: [1]}\nc: *x\n")
    assert isinstance(found, dict)
    assert found["a"] == found["c"] == {"b": [1]}
    assert found["a"] is not found["c"]
    assert found["a"]["b"] is not found["c"]["b"]


def test_the_place_of_an_alias_is_where_it_stands() -> None:
    assert read("a: &x 1\nb: *x\n").places["b"] == (2, 4)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    fault = refused("\n".join(lines))
    assert f"{MAX_VALUES:,}" in fault.message


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: *x}\n"])
def test_an_alias_inside_itself_is_refused(text: str) -> None:
    assert "inside what it names" in refused(text).message


def test_an_unknown_alias_is_refused_as_unquoted_text() -> None:
    fault = refused("path: *data\n")
    assert "names nothing" in fault.message
    assert "quotes" in fault.remedy


@pytest.mark.parametrize("text", ["*.jsonl", "**/x", "&.x"])
def test_text_that_begins_like_an_alias_is_told_to_take_quotes(text: str) -> None:
    fault = refused(f"path: {text}\n")
    assert fault.line == 1
    assert fault.remedy == "put it in quotes"


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a: " + "[" * 65 + "]" * 65])
def test_a_deep_file_is_refused(text: str) -> None:
    assert "64 levels" in refused(text).message


def test_aliases_do_not_lead_deeper_than_the_bound() -> None:
    text = f"a: &x {'[' * 40}{']' * 40}\nb: {'[' * 40}*x{']' * 40}\n"
    assert "64 levels" in refused(text).message


def test_as_deep_as_allowed_is_read() -> None:
    assert read("[" * 63 + "1" + "]" * 63).faults == ()


def test_a_file_larger_than_a_megabyte_is_refused() -> None:
    assert "larger than" in refused(b"a" * (MAX_BYTES + 1)).message


def test_too_many_values_are_refused() -> None:
    assert f"{MAX_VALUES:,}" in refused("- a\n" * (MAX_VALUES + 1)).message


@pytest.mark.parametrize("text", ["", "\n \n", "# only this\n", "\ufeff"])
def test_an_empty_file_is_named_so(text: str) -> None:
    assert refused(text).message == "the file is empty"


def test_a_second_document_is_refused_where_it_begins() -> None:
    fault = refused("---\na: 1\n---\nb: 2\n")
    assert (fault.line, fault.message) == (3, "a second document begins here")


def test_one_document_may_have_its_marks() -> None:
    assert data("%YAML 1.2\n---\na: 1\n...\n") == {"a": 1}


def test_a_byte_order_mark_moves_no_place() -> None:
    document = read("\ufeffa: 1\n")
    assert document.data == {"a": 1}
    assert document.places["a"] == (1, 4)


def test_windows_line_ends_move_no_place() -> None:
    assert read("a: 1\r\nb: 2\r\n").places["b"] == (2, 4)


def test_bytes_that_are_not_utf_8_are_named_by_offset_and_place() -> None:
    fault = refused("a: é\nb: x".encode() + b"\xff\n")
    assert (fault.line, fault.column) == (2, 5)
    assert "0xff at offset 10" in fault.message


def test_utf_16_is_recognized() -> None:
    assert "UTF-16" in refused("a: 1\n".encode("utf-16")).remedy


def test_a_control_character_is_named_with_its_place() -> None:
    fault = refused("a: 1\nb: x\x07\n")
    assert (fault.line, fault.column) == (2, 5)
    assert "U+0007" in fault.message


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_breaks_of_old_yaml_are_ordinary_characters(mark: str) -> None:
    document = read(f'a: |\n  x{mark}y\nb: "x {mark} y"\nc: x{mark}y \ue000\n')
    assert document.data == {"a": f"x{mark}y\n", "b": f"x {mark} y", "c": f"x{mark}y \ue000"}
    assert document.places["c"] == (4, 4)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: 1\nb: x: y\n", 2, 5, "colon"),
        ("a:\n\t- 1\n", 2, 1, "tab"),
        ("a: 1\nb: 'x\nc: 1\n", 2, 4, "quote is never closed"),
        ("a: 1\nb: [x\n", 2, 4, "bracket is never closed"),
        ("b: {x: 1\n", 1, 4, "bracket is never closed"),
        ("b: [x y: 1 z: 2]\n", 1, 13, "comma"),
        ("a: 1\n  b: 2\n", 2, 4, "colon"),
        ("a:\n  b: 1\n c: 2\n", 3, 2, "block that begins on line"),
        ("a: 1\nb\nc: 2\n", 3, 1, "key: value"),
        ("a: @x\n", 1, 4, "cannot begin with"),
        ("a: `x`\n", 1, 4, "cannot begin with"),
        ('a: "\\d"\n', 1, 6, "escape"),
        ('a: "\\UFFFFFFFF"\n', 1, 7, "no character"),
        ("%YAML " + "1" * 5000 + ".1\n---\na\n", 1, 7, "no character"),
        ("%YAML 2.0\n---\na: 1\n", 1, 1, "incompatible"),
        ("a: - b\n", 1, 4, "list cannot begin"),
    ],
)
def test_a_syntax_error_is_one_fault_with_its_place(text: str, line: int, column: int, said: str) -> None:
    fault = refused(text)
    assert said in fault.message
    assert (fault.line, fault.column) == (line, column)


def test_very_many_faults_are_cut_short() -> None:
    with pytest.raises(JobError) as caught:
        read("- !x 1\n" * 5000 + "}")
    assert len(caught.value.faults) == 101
    assert caught.value.faults[-1].message == "and 4901 more faults"


class _QuotingDumper(yaml.SafeDumper):
    """Quotes all text: PyYAML's dumper knows only which words YAML 1.1 would take for something else."""


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"')
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_TREES = st.recursive(
    _SCALARS,
    lambda tree: st.lists(tree, max_size=4) | st.dictionaries(_TEXT, tree, max_size=4),
    max_leaves=12,
)
_MAPPINGS = st.dictionaries(_TEXT, _TREES, max_size=5)


def _yaml_blocks(value: object) -> str:
    return yaml.dump(value, Dumper=_QuotingDumper, default_flow_style=False, sort_keys=False)


def _yaml_flow(value: object) -> str:
    return yaml.dump(value, Dumper=_QuotingDumper, default_flow_style=True, allow_unicode=True)


@pytest.mark.parametrize("dump", [_yaml_blocks, _yaml_flow, json.dumps])
@settings(deadline=None)
@given(_MAPPINGS)
@example({"a": "\x85\u2028 \ue000\ue001\ue002", "😀": -0.0})
def test_what_is_dumped_reads_back_equal(dump: Callable[[object], str], value: dict[str, object]) -> None:
    assert data(dump(value)) == value


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("{}[]:,-?&*!|>'\"%@ \n\tab1.<~#\\u", max_size=40).map(str.encode))
def test_any_bytes_give_data_or_an_error_of_ours(raw: bytes) -> None:
    try:
        document = parse(raw, "job.yaml")
    except JobError:
        return
    json.dumps(document.data, allow_nan=False).encode()


@settings(deadline=None)
@given(_TREES)
def test_every_value_has_a_place(value: object) -> None:
    document = read(json.dumps({"root": value}))
    assert set(document.key_places) < set(document.places)
    assert all(line == 1 and 1 <= column <= sys.maxsize for line, column in document.places.values())
