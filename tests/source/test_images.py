import os
from pathlib import Path

import pytest

from batchllm.errors import RowInputError
from batchllm.source.images import ImageFolder


def refusal(folder: Path, path: str, most_bytes: int = 10) -> str:
    with pytest.raises(RowInputError) as caught:
        ImageFolder(folder).read(path, most_bytes)
    return caught.value.message


def test_paths_begin_in_the_folder_or_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(b"0123456789")
    assert ImageFolder(tmp_path).read("a/b.png", 10) == b"0123456789"
    assert ImageFolder(tmp_path / "other").read(str(tmp_path / "a" / "b.png"), 10) == b"0123456789"


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # without taking space
    assert "larger than 1e-05 MB" in refusal(tmp_path, "large")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path, "missing")
    assert "cannot be opened" in refusal(tmp_path, "with\0zero")
    (tmp_path / "folder").mkdir()
    assert "'folder'" in refusal(tmp_path, "folder")


def test_a_pipe_that_nobody_writes_to_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(tmp_path, "pipe")
