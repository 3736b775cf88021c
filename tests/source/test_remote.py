"""Object stores, by way of pyarrow's file systems; a folder stands in for a bucket."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from batchllm.errors import InputDataError, InputMissingError
from batchllm.source import open_source
from batchllm.source.remote import RemoteStore, expand_location, expand_uri, first_line, is_uri
from batchllm.spec.models import Input


def bucket(folder: Path, *names: str) -> fs.FileSystem:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"a":1}\n')
    return fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())


def names(filesystem: fs.FileSystem, location: str) -> list[str]:
    return [name for name, _ in expand_location(filesystem, location, "s3", None)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://b/a.jsonl", True),
        ("gs://b/a", True),
        ("abfs://c@acc/a", True),
        ("/data/a.jsonl", False),
        ("/data/a:/b", False),
        ("C:/data", False),
    ],
)
def test_a_uri_is_known_by_its_scheme(path: str, expected: bool) -> None:
    assert is_uri(path) is expected


def test_one_file(tmp_path: Path) -> None:
    assert names(bucket(tmp_path, "b/a.jsonl"), "b/a.jsonl") == ["s3://b/a.jsonl"]


def test_a_prefix_is_read_as_a_folder(tmp_path: Path) -> None:
    filesystem = bucket(tmp_path, "b/2.jsonl", "b/1.jsonl", "b/_SUCCESS", "b/deep/3.jsonl")
    assert names(filesystem, "b") == ["s3://b/1.jsonl", "s3://b/2.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("b/*.jsonl", ["1.jsonl", "2.jsonl"]),
        ("b/x/*.jsonl", ["x/3.jsonl"]),
        ("b/*/*.jsonl", ["x/3.jsonl"]),
        ("b/**/*.jsonl", ["1.jsonl", "2.jsonl", "x/3.jsonl", "x/y/4.jsonl"]),
        ("b/x/**/*.jsonl", ["x/3.jsonl", "x/y/4.jsonl"]),
        ("b/1*", ["1.jsonl"]),
    ],
)
def test_a_pattern_means_what_it_means_locally(tmp_path: Path, pattern: str, matched: list[str]) -> None:
    filesystem = bucket(
        tmp_path, "b/1.jsonl", "b/2.jsonl", "b/x/3.jsonl", "b/x/y/4.jsonl", "b/.h.jsonl", "c/5.jsonl"
    )
    assert names(filesystem, pattern) == [f"s3://b/{name}" for name in matched]
    local = sorted(tmp_path.glob(pattern))
    assert [
        str(path.relative_to(tmp_path / "b")) for path in local if path.is_file() and path.name[0] != "."
    ] == matched


@pytest.mark.parametrize("location", ["b/none.jsonl", "b/*.csv", "none/*.jsonl"])
def test_what_is_not_there_is_missing(tmp_path: Path, location: str) -> None:
    with pytest.raises(InputMissingError, match=r"s3://"):
        names(bucket(tmp_path, "b/a.jsonl"), location)


@pytest.mark.parametrize("uri", ["hf://datasets/a", "nosuch://user:secret@a", "nosuch://[x"])
def test_other_schemes_are_refused_without_saying_a_secret(uri: str) -> None:
    with pytest.raises(InputDataError, match="input is not supported") as caught:
        expand_uri(uri, None)
    assert "secret" not in str(caught.value)
    assert "s3://" in caught.value.remedy
    assert "copy" in caught.value.remedy


@pytest.mark.parametrize("uri", ["https://user:secret@host/a.jsonl", "HTTP://host/a.jsonl", "https://[x"])
def test_the_web_is_no_input(uri: str) -> None:
    with pytest.raises(InputDataError, match=r"https?:// input is not supported") as caught:
        expand_uri(uri, None)
    assert "secret" not in str(caught.value)
    assert "download" in caught.value.remedy


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://key:sec%2Fret@b/x?nosuch=hidden", "Unexpected query parameter in S3 URI"),
        ("abfs:///x", "valid account name"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(uri: str, reason: str) -> None:
    with pytest.raises(InputDataError, match="cannot be opened") as caught:
        expand_uri(uri, None)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert not [word for word in ("sec%2Fret", "sec/ret", "hidden") if word in str(caught.value)]
    assert "are read" not in str(caught.value)


def test_what_is_said_of_a_uri_holds_no_secret() -> None:
    uri = "s3://key:sec%2Fret@b/x?token=hidden"
    said = first_line(OSError(f"no {uri} for sec/ret or hidden\ntrace"), uri)
    assert said == "no s3://b/x for *** or ***"


class Unreachable:
    def get_file_info(self, _: object) -> object:
        raise OSError("AWS Error NETWORK_CONNECTION: could not connect\nat somewhere")


def test_a_store_that_does_not_answer_says_why_in_one_line() -> None:
    with pytest.raises(InputDataError) as caught:
        expand_location(Unreachable(), "b/a.jsonl", "s3", None)
    assert (
        caught.value.message
        == "s3://b/a.jsonl cannot be read: AWS Error NETWORK_CONNECTION: could not connect"
    )
    assert "credentials" in caught.value.remedy


def test_rows_come_from_a_uri(tmp_path: Path) -> None:
    bucket(tmp_path, "a.jsonl", "b.jsonl")
    source = open_source(Input(path=f"file://{tmp_path}/*.jsonl"), carry=(), needed=None)
    assert source.scan().rows == 2
    assert source.stamps()[0].path == f"file://{tmp_path}/a.jsonl"
    assert source.stamps()[0].inode == 0


def test_parquet_comes_from_a_uri(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": ["x", "y"]}), tmp_path / "a.parquet")
    source = open_source(Input(path=f"file://{tmp_path}/a.parquet"), carry=(), needed=None)
    assert [row.values for row in source.peek(5)] == [{"t": "x"}, {"t": "y"}]
    assert source.scan().rows == 2


def test_an_object_that_changed_is_noticed(tmp_path: Path) -> None:
    bucket(tmp_path, "a.jsonl")
    source = open_source(Input(path=f"file://{tmp_path}/a.jsonl"), carry=(), needed=None)
    (tmp_path / "a.jsonl").write_text('{"a":1}\n{"a":2}\n')
    with pytest.raises(InputDataError, match="changed while it was read"):
        source.scan()


def test_a_store_opens_at_any_place(tmp_path: Path) -> None:
    filesystem = bucket(tmp_path, "a.jsonl")
    store = RemoteStore("s3://a.jsonl", filesystem, "a.jsonl")
    with store.open_random() as source:
        assert source.read_at(3, 1) == b'"a"'
    with store.open() as stream:
        assert stream.read(2) == b'{"'
