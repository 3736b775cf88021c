import pytest

from batchllm.errors import StorageError
from batchllm.journal.files import floor_bytes
from batchllm.journal.space import LOOK_BYTES, LOOK_S, Space


class Disk:
    """`free` bytes are left on it; counts how often it was asked."""

    def __init__(self, free):
        self.free = free
        self.looks = 0

    def __call__(self, path):
        self.looks += 1
        return self.free


@pytest.fixture
def disk():
    return Disk(10**12)


@pytest.fixture
def space(tmp_path, disk):
    space = Space(tmp_path, disk)
    assert space.look(100.0) is None
    return space


def test_commits_in_quick_succession_do_not_ask_the_system(space, disk):
    for turn in range(100):
        assert space.note(100.0 + turn * LOOK_S / 101, 1000) is None
    assert disk.looks == 1


def test_the_disk_is_looked_at_again_after_a_while(space, disk):
    disk.free = 10
    assert isinstance(space.note(100.0 + LOOK_S, 0), StorageError)


def test_many_bytes_are_a_reason_to_look_however_little_time_has_passed(space, disk):
    disk.free = 10
    assert space.note(100.0, LOOK_BYTES // 2) is None
    assert isinstance(space.note(100.0, LOOK_BYTES // 2), StorageError)


def test_each_look_starts_the_count_of_bytes_anew(space, disk):
    assert space.note(100.0, LOOK_BYTES) is None
    assert space.note(100.0, LOOK_BYTES // 2) is None
    assert disk.looks == 2


def test_a_disk_that_stays_almost_full_is_said_at_the_next_look_too(space, disk):
    disk.free = 10
    assert space.look(100.0) is not None
    assert space.note(100.0 + LOOK_S, 0) is not None


def test_exactly_the_floor_is_enough_and_a_byte_less_is_not(tmp_path):
    floor = floor_bytes(tmp_path)
    assert Space(tmp_path, lambda _: floor).look(0.0) is None
    assert Space(tmp_path, lambda _: floor - 1).look(0.0) is not None


def test_where_nobody_knows_what_is_free_nothing_is_refused(tmp_path):
    assert Space(tmp_path, lambda _: None).look(0.0) is None
