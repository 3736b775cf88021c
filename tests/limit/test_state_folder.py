import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from batchllm.errors import StorageError
from batchllm.limit.state_folder import (
    SECRET_BYTES,
    Generation,
    create,
    newest,
    prepare_folder,
    read_secret,
    state_folder,
    tidy,
)

NOW_S = 1_700_000_000.0


def writes(text: str) -> Callable[[Path], None]:
    def fill(draft: Path) -> None:
        draft.write_text(text)

    return fill


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"BATCHLLM_STATE_DIR": "/a", "XDG_STATE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"BATCHLLM_STATE_DIR": "", "XDG_STATE_HOME": "/b", "HOME": "/c"}, "/b/batchllm"),
        ({"XDG_STATE_HOME": "b", "HOME": "/c"}, "/c/.local/state/batchllm"),
        ({"HOME": "/c"}, "/c/.local/state/batchllm"),
    ],
)
def test_the_folder_is_the_first_that_is_told(environ: dict[str, str], folder: str) -> None:
    assert state_folder(environ) == Path(folder)


def test_a_process_without_a_home_is_told_what_to_set() -> None:
    with pytest.raises(StorageError, match="BATCHLLM_STATE_DIR"):
        state_folder({})


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    prepare_folder(folder, lambda path: False)
    prepare_folder(folder, lambda path: False)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(StorageError, match="remove the file that is in the way"):
            prepare_folder(folder, lambda path: False)


def test_a_loop_of_links_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match="cannot use"):
        prepare_folder(tmp_path / "a", lambda path: False)


def test_a_network_file_system_is_refused_by_where_the_folder_really_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StorageError, match="network file system"):
        prepare_folder(tmp_path / "link", lambda path: path == (tmp_path / "real").resolve())


def test_the_first_file_has_the_plain_name_and_is_for_this_user_alone(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    create(tmp_path, None, writes("first"))
    found = newest(tmp_path)
    assert found == Generation(0, tmp_path / "limits.db")
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["limits.db"]


def test_what_takes_its_place_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    create(tmp_path, None, writes("first"))
    create(tmp_path, newest(tmp_path), writes("second"))
    assert newest(tmp_path) == Generation(1, tmp_path / "limits.1.db")
    assert (tmp_path / "limits.db").read_text() == "first"


def test_only_one_of_those_that_replace_a_file_does_it(tmp_path: Path) -> None:
    create(tmp_path, None, writes("first"))
    create(tmp_path, None, writes("also first"))
    current = newest(tmp_path)
    create(tmp_path, current, writes("second"))
    create(tmp_path, current, writes("also second"))
    assert newest(tmp_path) == Generation(1, tmp_path / "limits.1.db")
    assert (tmp_path / "limits.db").read_text() == "first"
    assert (tmp_path / "limits.1.db").read_text() == "second"


def test_who_is_overtaken_while_filling_gives_way(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        draft.write_text("slow")
        create(tmp_path, None, writes("fast"))

    create(tmp_path, None, fill)
    assert (tmp_path / "limits.db").read_text() == "fast"
    assert names(tmp_path) == ["limits.db"]


def test_the_log_of_a_file_that_was_removed_never_meets_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "limits.db-wal").write_text("old")
    create(tmp_path, None, writes("new"))
    assert newest(tmp_path) == Generation(1, tmp_path / "limits.1.db")


def test_a_draft_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fill(draft: Path) -> None:
        raise StorageError("no")

    with pytest.raises(StorageError):
        create(tmp_path, None, fill)
    assert names(tmp_path) == []


def test_the_secret_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    secret = read_secret(tmp_path)
    assert len(secret) == SECRET_BYTES
    assert read_secret(tmp_path) == secret
    assert names(tmp_path) == ["limits.key"]
    assert stat.S_IMODE((tmp_path / "limits.key").stat().st_mode) == 0o600


def test_another_folder_has_another_secret(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert read_secret(tmp_path) != read_secret(tmp_path / "a")


def test_a_secret_cut_short_is_said(tmp_path: Path) -> None:
    (tmp_path / "limits.key").write_bytes(b"short")
    with pytest.raises(StorageError, match=r"limits\.key has 5 bytes"):
        read_secret(tmp_path)


def test_leftovers_of_more_than_a_day_go_and_nothing_else(tmp_path: Path) -> None:
    old = ["limits.new-a", "limits.db", "limits.db-wal", "limits.2.db", "limits.key", "notes.txt"]
    for name in [*old, "limits.new-b", "limits.1.db"]:
        (tmp_path / name).write_text("")
        age_s = 90_000 if name in old else 3_600
        os.utime(tmp_path / name, (NOW_S - age_s, NOW_S - age_s))
    tidy(tmp_path, NOW_S)
    left = ["limits.1.db", "limits.2.db", "limits.key", "limits.new-b", "notes.txt"]
    assert names(tmp_path) == left
