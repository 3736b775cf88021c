"""One file: its bytes, and that it stays as it is."""

import gzip
import os
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest

from batchllm.errors import InputDataError, InputMissingError
from batchllm.source.files import InputFile, LocalStore, named_faults
from batchllm.source.finding import find_files


def opened(path: Path) -> InputFile:
    return find_files(str(path), None)[1][0]


def test_a_stamp_says_what_the_file_system_says(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    stamp = opened(path).stamp
    found = path.stat()
    assert (stamp.path, stamp.bytes, stamp.mtime_ns, stamp.inode) == (
        str(path),
        3,
        found.st_mtime_ns,
        found.st_ino,
    )
    assert (stamp.sha256, stamp.rows) == (None, None)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("{}\n")


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [append, replace, touch])
def test_a_changed_file_is_noticed(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    file = opened(path)
    file.check_unchanged()
    change(path)
    with pytest.raises(InputDataError, match=r"a\.jsonl changed while it was read"):
        file.check_unchanged()


def test_a_file_that_vanished_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    file = opened(path)
    path.unlink()
    with pytest.raises(InputMissingError, match="not there any more"):
        file.check_unchanged()


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_tap_sees_every_byte_on_disk_once(tmp_path: Path, is_packed: bool) -> None:
    data = b"".join(b"%d\n" % (at * 7919) for at in range(100_000))
    path = tmp_path / ("a.jsonl.gz" if is_packed else "a.jsonl")
    path.write_bytes(gzip.compress(data) if is_packed else data)
    seen = sha256()
    with opened(path).text_stream(seen.update) as stream:
        read = b"".join(iter(lambda: stream.read(1 << 16), b""))
    assert read == data
    assert seen.hexdigest() == sha256(path.read_bytes()).hexdigest()


def test_the_file_is_closed_when_reading_stops_early(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with opened(path).text_stream() as stream:
        stream.read(1)
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


@pytest.mark.parametrize(
    ("raised", "made", "says"),
    [
        (FileNotFoundError(2, "No such file"), InputMissingError, "not there any more"),
        (PermissionError(13, "Permission denied"), InputDataError, "may not be read"),
        (OSError(5, "Input/output error"), InputDataError, "cannot be read: Input/output error"),
        (pa.ArrowInvalid("Parquet magic bytes not found"), InputDataError, "cannot be read: Parquet magic"),
        (OSError("zlib inflate failed"), InputDataError, "cannot be read: zlib inflate failed"),
    ],
)
def test_what_goes_wrong_below_is_said_with_the_file(
    raised: Exception, made: type[Exception], says: str
) -> None:
    with pytest.raises(made, match=f"/data/a {says}|/data/a is {says}") as caught, named_faults("/data/a"):
        raise raised
    assert caught.value.remedy  # type: ignore[attr-defined]


def test_a_local_file_can_be_read_at_any_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    with LocalStore(str(tmp_path / "a")).open_random() as source:
        assert source.read_at(3, 4) == b"456"
