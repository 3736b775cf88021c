"""Which files an input is, and what is said when it is none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from batchllm.errors import BatchllmError, InputDataError, InputMissingError
from batchllm.source.files import Format
from batchllm.source.finding import find_files


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def found(path: str | list[str], declared: Format | None = None) -> list[str]:
    return [file.label for file in find_files(path, declared)[1]]


def refused(path: str | list[str], declared: Format | None = None) -> BatchllmError:
    with pytest.raises((InputDataError, InputMissingError)) as caught:
        find_files(path, declared)
    return caught.value


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("a.jsonl", "jsonl", None),
        ("a.NDJSON", "jsonl", None),
        ("a.csv", "csv", None),
        ("a.parquet", "parquet", None),
        ("a.pq", "parquet", None),
        ("a.jsonl.gz", "jsonl", "gzip"),
        ("a.csv.ZST", "csv", "zstd"),
    ],
)
def test_the_ending_tells_the_format(tmp_path: Path, name: str, kind: str, compression: str | None) -> None:
    make(tmp_path, name)
    told, (file,) = find_files(str(tmp_path / name), None)
    assert (told, file.compression, file.label) == (kind, compression, name)


def test_a_declared_format_is_believed(tmp_path: Path) -> None:
    make(tmp_path, "a.txt.gz")
    kind, (file,) = find_files(str(tmp_path / "a.txt.gz"), "csv")
    assert (kind, file.compression) == ("csv", "gzip")


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a", "a.gz"])
def test_an_ending_that_tells_nothing_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    error = refused(str(tmp_path / name))
    assert isinstance(error, InputDataError)
    assert name in error.message
    assert "input.format" in error.remedy


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b.jsonl",
        "a.jsonl",
        "c.ndjson",
        ".hidden.jsonl",
        "_SUCCESS",
        "_x.jsonl",
        "notes.md",
        "sub/d.jsonl",
    )
    assert found(str(tmp_path)) == ["a.jsonl", "b.jsonl", "c.ndjson"]


def test_a_folder_of_two_formats_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.csv")
    error = refused(str(tmp_path))
    assert "b.csv, a.jsonl" in error.message
    assert "*.csv" in error.remedy


def test_a_declared_format_picks_from_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.csv", "part-1", "part-2")
    assert found(str(tmp_path), "csv") == ["b.csv"]
    assert found(str(tmp_path), "parquet") == ["part-1", "part-2"]


def test_a_folder_without_any_known_file_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.json")
    assert "a.json" in refused(str(tmp_path)).message


@pytest.mark.parametrize(
    ("names", "declared"), [((), None), ((".a.jsonl", "_SUCCESS"), None), (("a.csv",), "jsonl"), ((), "csv")]
)
def test_a_folder_without_an_input_file_is_a_missing_input(
    tmp_path: Path, names: tuple[str, ...], declared: Format | None
) -> None:
    make(tmp_path, *names)
    with pytest.raises(InputMissingError) as caught:
        find_files(str(tmp_path), declared)
    assert str(tmp_path) in caught.value.message
    assert ".jsonl, .ndjson, .csv" in caught.value.remedy
    assert caught.value.exit_code == 66


def test_folders_within_a_folder_are_not_searched_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "year=2024/a.parquet")
    error = refused(str(tmp_path))
    assert isinstance(error, InputMissingError)
    assert "**" in error.remedy


def test_a_pattern_matches_files_in_order(tmp_path: Path) -> None:
    make(tmp_path, "x/b.jsonl", "x/a.jsonl", "y/c.jsonl", "x/deep/d.jsonl")
    assert found(str(tmp_path / "x/*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert found(str(tmp_path / "**/*.jsonl")) == ["a.jsonl", "b.jsonl", "d.jsonl", "c.jsonl"]
    assert found(str(tmp_path / "[xy]/?.jsonl")) == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_a_pattern_passes_over_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "sub/b.jsonl")
    assert found(str(tmp_path / "*")) == ["a.jsonl"]


def test_a_pattern_without_matches_names_what_is_there(tmp_path: Path) -> None:
    make(tmp_path, "reviews.jsonl")
    error = refused(str(tmp_path / "*.csv"))
    assert isinstance(error, InputMissingError)
    assert "matches no file" in error.message
    assert "reviews.jsonl" in error.remedy
    assert error.exit_code == 66


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    make(tmp_path, "data[1].jsonl", "data1.jsonl")
    assert found(str(tmp_path / "data[1].jsonl")) == ["data[1].jsonl"]


def test_a_list_is_read_in_its_order(tmp_path: Path) -> None:
    make(tmp_path, "b.jsonl", "a.jsonl", "more/c.jsonl")
    paths = [str(tmp_path / "b.jsonl"), str(tmp_path / "more"), str(tmp_path / "a*")]
    assert found(paths) == ["b.jsonl", "c.jsonl", "a.jsonl"]


def test_a_list_of_two_formats_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.parquet")
    assert "several formats" in refused([str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")]).message


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    assert "twice" in refused([str(tmp_path / "a.jsonl"), str(tmp_path / "*.jsonl")]).message


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    make(tmp_path, "x/1/a.jsonl", "x/2/a.jsonl", "x/2/b.jsonl")
    assert found(str(tmp_path / "x/*/*.jsonl")) == ["1/a.jsonl", "2/a.jsonl", "2/b.jsonl"]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("reviws.jsonl", 'did you mean "reviews.jsonl"?'),
        ("Reviews.JSONL", 'did you mean "reviews.jsonl"?'),
        ("zzz", "there is: other.csv, reviews.jsonl"),
        ("no/such/a.jsonl", "there is no folder"),
        ("reviews.jsonl/x", "there is no folder"),
    ],
)
def test_a_missing_file_is_told_with_what_is_near(tmp_path: Path, path: str, remedy: str) -> None:
    make(tmp_path, "reviews.jsonl", "other.csv")
    error = refused(str(tmp_path / path))
    assert isinstance(error, InputMissingError)
    assert remedy in error.remedy


def test_standard_input_is_no_input(tmp_path: Path) -> None:
    assert "standard input" in refused(str(tmp_path / "-")).message


@pytest.mark.parametrize("path", ["a\0b.jsonl", "x" * 5000])
def test_a_path_that_cannot_exist_is_refused(tmp_path: Path, path: str) -> None:
    refused(str(tmp_path / path))


def test_a_pipe_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    for path in ("a.jsonl", "*.jsonl"):
        error = refused(str(tmp_path / path))
        assert isinstance(error, InputDataError)
        assert "copy" in error.remedy


def test_a_device_is_refused() -> None:
    assert "no regular file" in refused("/dev/null", "jsonl").message


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert found(str(tmp_path / "b.jsonl")) == ["b.jsonl"]
    assert isinstance(refused(str(tmp_path / "dangling.jsonl")), InputMissingError)


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    try:
        make(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes text only")
    assert found(str(tmp_path)) == [r"caf\xe9.jsonl"]


FORBIDDEN = """
import os, sys
from batchllm.source.files import Format
from batchllm.source.finding import find_files
from batchllm.errors import BatchllmError
os.setgid(65534)
os.setuid(65534)
for path in sys.argv[1:]:
    try:
        find_files(path, None)
    except BatchllmError as error:
        print(type(error).__name__, error.message)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone who may not read")
def test_what_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which nobody else may enter
        folder = Path(name)
        folder.chmod(0o755)
        make(folder, "a.jsonl", "closed/b.jsonl")
        (folder / "a.jsonl").chmod(0)
        (folder / "closed").chmod(0)
        paths = [str(folder / name) for name in ("a.jsonl", "closed", "closed/b.jsonl", "closed/*.jsonl")]
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, *paths], capture_output=True, text=True, check=True
        )
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("InputDataError") and "may not be read" in line for line in lines)
    assert "a.jsonl" in lines[0]
    assert "closed" in lines[3]
