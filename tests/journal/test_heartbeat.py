import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from batchllm.errors import StorageError
from batchllm.journal.files import Layout
from batchllm.journal.heartbeat import FILE, Beat, BeatFile, LaneBeat, boot_id, encoded, read_beat

BEAT = Beat(
    job="classify",
    version="0.1.0",
    pid=7,
    host="here",
    boot="b",
    started=1_700_000_000.25,
    state="running",
    since=1_700_000_001.5,
    written=1_700_000_002.0,
    written_s=12.5,
    total=10,
    ok=3,
    lanes=(LaneBeat("one", "waiting", "silence", 1_700_000_060.0, 2, 4, 60.0, None, 3, 1, 0),),
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    Layout(out).state.mkdir(parents=True)
    return out


def path_of(out: Path) -> Path:
    return Layout(out).state / FILE


def test_what_is_written_reads_back(out: Path) -> None:
    with BeatFile(out) as file:
        assert file.write(BEAT)
        assert read_beat(out) == BEAT
        later = replace(BEAT, state="done", code=3, lanes=(), rate=0.5, turned_s=11.0)
        assert file.write(later)
    assert read_beat(out) == later


def test_it_is_its_owner_s_alone_and_leaves_no_draft(out: Path) -> None:
    before = os.umask(0)
    try:
        with BeatFile(out) as file:
            file.write(BEAT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(out).stat().st_mode) == 0o600
    assert [path.name for path in Layout(out).state.iterdir()] == [FILE]


def test_it_is_one_object_that_fills_whole_blocks(out: Path) -> None:
    for lanes in range(0, 24, 5):
        data = encoded(replace(BEAT, lanes=BEAT.lanes * lanes))
        assert len(data) % 4096 == 0
        assert len(json.loads(data)["lanes"]) == lanes


def test_a_reader_finds_the_old_one_or_the_new_one_and_no_file_changes_under_it(out: Path) -> None:
    with BeatFile(out) as file:
        file.write(BEAT)
        with path_of(out).open("rb") as reader:
            file.write(replace(BEAT, ok=4))
            assert json.loads(reader.read())["ok"] == 3
    found = read_beat(out)
    assert found is not None
    assert found.ok == 4


def test_a_folder_that_is_moved_takes_its_file_along_and_its_successor_gets_none(
    out: Path, tmp_path: Path
) -> None:
    with BeatFile(out) as file:
        out.rename(tmp_path / "moved")
        Layout(out).state.mkdir(parents=True)
        assert file.write(BEAT)
    assert read_beat(out) is None
    assert read_beat(tmp_path / "moved") == BEAT


def test_a_folder_that_is_gone_is_nobody_s_trouble(out: Path) -> None:
    with BeatFile(out) as file:
        Layout(out).state.rmdir()
        assert file.write(BEAT) is False


def test_no_link_is_followed(out: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(encoded(replace(BEAT, job="theirs")))
    before = theirs.read_bytes()
    for name in (FILE, "status.new"):
        (Layout(out).state / name).symlink_to(theirs)
    with pytest.raises(StorageError):
        read_beat(out)
    with BeatFile(out) as file:
        assert file.write(BEAT)
    assert read_beat(out) == BEAT
    assert theirs.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        encoded(replace(BEAT, format=2)).decode(),
        encoded(BEAT).decode().replace('"pid":7', '"pid":"7"'),
        encoded(BEAT).decode().replace('"pid":7', '"pid":7,"more":1'),
        encoded(BEAT).decode().replace('"ok":3', '"ok":null'),
        encoded(BEAT).decode().replace('"in_flight":2', '"in_flight":{}'),
    ],
)
def test_what_is_damaged_or_of_another_version_is_refused_with_its_path(out: Path, text: str) -> None:
    path_of(out).write_text(text)
    with pytest.raises(StorageError, match=r"status\.json") as caught:
        read_beat(out)
    assert caught.value.remedy


def test_a_machine_that_was_not_started_anew_is_the_same_one() -> None:
    assert boot_id() == boot_id()
