import errno
import os
import re
from pathlib import Path

import pytest

from batchllm.errors import FullDiskError, OutputError, StorageError
from batchllm.journal.files import (
    Layout,
    ballast_bytes,
    cannot_create,
    cannot_link,
    floor_bytes,
    free_bytes,
    full_disk,
    is_network_folder,
    make_folders,
    mapped_faults,
    open_new,
    size_text,
    storage_fault,
    write_new,
)
from batchllm.journal.opening import create_database, open_database

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /home rw - nfs4 server:/home rw
31 30 0:31 / /home/local rw - xfs /dev/vdb rw
32 22 0:32 / /mnt/my\\040share rw - cifs //server/share rw
33 22 0:33 / /mnt/bucket rw - fuse.s3fs s3fs rw
34 22 0:34 / /mnt/disk rw - fuseblk /dev/sdc1 rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "is_network"),
    [
        ("/srv/out", False),
        ("/home/me/out", True),
        ("/home", True),
        ("/home/local/out", False),
        ("/homework/out", False),
        ("/mnt/my share/out", True),
        ("/mnt/bucket/out", True),
        ("/mnt/disk/out", False),
    ],
)
def test_the_nearest_mount_tells_whether_a_folder_is_on_the_network(path, is_network):
    assert is_network_folder(Path(path), MOUNTS) is is_network


def test_without_a_list_of_mounts_a_folder_counts_as_local():
    assert not is_network_folder(Path("/out"), "")


def test_folders_that_are_missing_are_made_with_all_above_them(tmp_path):
    layout = Layout(tmp_path / "a" / "b")
    make_folders(layout)
    make_folders(layout)
    assert sorted(path.name for path in layout.out.iterdir()) == [".batchllm", "failures", "output", "usage"]


def test_a_path_that_sqlite_cannot_open_is_refused_as_too_long_and_nothing_is_made(tmp_path):
    """SQLite takes 511 bytes, links taken out; the system takes 4,095."""
    room = 511 - len(os.fsencode(os.path.realpath(tmp_path))) - len("/x/.batchllm/journal.db-journal")
    levels, rest = divmod(room, 200)
    long = tmp_path.joinpath(*["a" * 199] * levels, "b" * max(0, rest - 1)) / "x"
    with pytest.raises(OutputError, match="too long for the journal in it, by 1 bytes") as error:
        make_folders(Layout(long.with_name("xx")))
    assert "shorter" in error.value.remedy
    assert list(tmp_path.iterdir()) == []
    make_folders(Layout(long))
    create_database(Layout(long))
    open_database(Layout(long), is_network=False).close()


def test_a_full_disk_at_the_start_is_no_wrong_path(tmp_path):
    assert isinstance(cannot_create(tmp_path, OSError(errno.ENOSPC, "full")), StorageError)
    assert isinstance(cannot_create(tmp_path, OSError(errno.EACCES, "no")), OutputError)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EEXIST, "remove it"),
        (errno.ENOTDIR, "remove it"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "disk"),
    ],
)
def test_each_cause_has_its_own_remedy(tmp_path, code, remedy):
    for error in (
        cannot_create(tmp_path, OSError(code, "words")),
        storage_fault("write", tmp_path, OSError(code, "words")),
    ):
        assert str(tmp_path) in error.message
        assert remedy in error.remedy
        assert "hard links" not in error.remedy


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_link_that_fails_is_told_as_one(tmp_path, code):
    assert "hard links" in cannot_link(tmp_path, OSError(code, "words")).remedy


def test_a_folder_of_parts_on_a_disk_of_its_own_is_told_as_one(tmp_path):
    told = cannot_link(tmp_path / "output" / ".probe", OSError(errno.EXDEV, "words"))
    assert f"{tmp_path / 'output'} is on another disk" in told.message
    assert "the whole output folder" in told.remedy


def test_a_disk_without_inodes_is_not_said_to_lack_bytes(tmp_path, monkeypatch):
    found = os.statvfs(tmp_path)
    spent = os.statvfs_result([*found[:7], 0, *found[8:]])
    monkeypatch.setattr(os, "statvfs", lambda _path: spent)
    error = storage_fault("create", tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert "all inodes" in error.message
    assert "remove files" in error.remedy
    assert "free at least" not in error.remedy


def test_a_link_on_a_read_only_disk_is_told_as_read_only(tmp_path):
    assert "read-only" in cannot_link(tmp_path, OSError(errno.EROFS, "words")).remedy


def test_an_error_of_the_system_is_ours_with_its_path(tmp_path):
    with pytest.raises(StorageError, match=r"cannot open .*none") as caught, mapped_faults("open", tmp_path):
        (tmp_path / "none").read_text()
    assert caught.value.remedy


def test_a_new_file_never_replaces_one_nor_follows_a_link(tmp_path):
    path = tmp_path / "file"
    write_new(path, b"first", 0o600)
    with pytest.raises(FileExistsError):
        write_new(path, b"second", 0o600)
    assert path.read_bytes() == b"first"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing")
    with pytest.raises(OSError):
        open_new(link, 0o600)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_is_free_and_how_much_is_needed(tmp_path, code):
    error = storage_fault("write", tmp_path / "x", OSError(code, "full"))
    assert isinstance(error, FullDiskError)
    needed = size_text(floor_bytes(tmp_path) + ballast_bytes(tmp_path))
    assert f"are free, {needed} are needed" in error.message
    assert "free at least" in error.remedy
    assert "raise the quota" in error.remedy


def test_what_is_said_to_be_missing_is_what_is_needed_less_what_is_free(tmp_path):
    free = free_bytes(tmp_path)
    error = full_disk(tmp_path, "full", free + (64 << 30))
    missing = int(re.search(r"free at least (\d+) GiB", error.remedy)[1])
    assert 62 <= missing <= 66


def test_a_file_that_may_not_grow_is_no_full_disk(tmp_path):
    error = storage_fault("write", tmp_path / "x", OSError(errno.EFBIG, "too large"))
    assert not isinstance(error, FullDiskError)
    assert "ulimit -f" in error.remedy


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (700, "700 bytes"),
        (10_240, "10 KiB"),
        (819_201, "801 KiB"),
        (80 << 20, "80 MiB"),
        ((11 << 30) + 1, "12 GiB"),
    ],
)
def test_sizes_are_rounded_up(size, text):
    assert size_text(size) == text


def test_free_space_of_a_folder_that_is_gone_is_that_of_the_one_above(tmp_path):
    assert free_bytes(tmp_path / "gone" / "deeper") == pytest.approx(free_bytes(tmp_path), rel=0.2)


def test_results_are_seen_by_their_names(tmp_path):
    layout = Layout(tmp_path)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "notes.txt").write_text("")
    assert not layout.has_results()
    (tmp_path / "output" / "part-1.parquet").write_text("")
    assert layout.has_results()
