import pytest

from batchllm.errors import FullDiskError, StorageError
from batchllm.journal.files import Layout, floor_bytes, make_folders
from batchllm.journal.space import LOOK_BYTES, LOOK_S, DiskRules, Space


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
    space = Space(Layout(tmp_path), disk, DiskRules())
    assert space.look(100.0) is None
    return space


class Patient:
    """A space that waits ten minutes, on a disk of which the test says what is free; `said` is what it tells."""

    ballast = 1 << 20

    def __init__(self, out):
        layout = Layout(out)
        make_folders(layout)
        self.path = layout.ballast
        self.disk = Disk(10**12)
        self.said = []
        self.floor = floor_bytes(out)
        self.space = Space(layout, self.disk, DiskRules(600.0, self.ballast, self.said.append))

    @property
    def held(self):
        return self.path.stat().st_size if self.path.exists() else 0


@pytest.fixture
def patient(out):
    return Patient(out)


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
    floor, layout = floor_bytes(tmp_path), Layout(tmp_path)
    assert Space(layout, lambda _: floor, DiskRules()).look(0.0) is None
    assert Space(layout, lambda _: floor - 1, DiskRules()).look(0.0) is not None


def test_where_nobody_knows_what_is_free_nothing_is_refused(tmp_path):
    assert Space(Layout(tmp_path), lambda _: None, DiskRules()).look(0.0) is None


def test_below_the_floor_the_run_pauses_and_says_once_what_is_needed(patient):
    space = patient.space
    space.start(100.0)
    patient.disk.free = patient.floor - 1
    for second in range(5):
        assert space.look(101.0 + second) is None
        assert space.is_short
    assert len(patient.said) == 1
    assert patient.said[0].startswith("paused: the disk of ")
    assert "are needed; nothing is sent until they are there, for 10 min at most" in patient.said[0]


def test_a_pause_ends_when_patience_is_over_counted_from_its_begin(patient):
    space = patient.space
    space.start(100.0)
    assert space.patient_until_s is None
    patient.disk.free = 0
    space.look(101.0)
    space.look(300.0)
    assert space.patient_until_s == 701.0
    patient.disk.free = 10**12
    space.look(302.0)
    assert space.patient_until_s is None


def test_it_goes_on_alone_with_a_quarter_more_than_the_floor_and_says_so(patient):
    space = patient.space
    space.start(100.0)
    patient.disk.free = patient.floor - 1
    space.look(101.0)
    patient.disk.free = patient.floor + 1
    assert space.look(102.0) is None
    assert space.is_short
    patient.disk.free = patient.floor * 5 // 4
    assert space.look(103.0) is None
    assert not space.is_short
    assert patient.said[1].endswith("free again: going on")
    assert len(patient.said) == 2


def test_patience_ends_with_an_error_that_names_the_bytes(patient):
    space = patient.space
    space.start(100.0)
    patient.disk.free = patient.floor - 1
    space.look(101.0)
    assert space.look(700.9) is None
    error = space.look(701.0)
    assert isinstance(error, FullDiskError)
    assert error.exit_code == 74
    assert "are needed" in error.message


def test_each_pause_has_its_own_patience(patient):
    space = patient.space
    space.start(100.0)
    for start in (101.0, 650.0):
        patient.disk.free = patient.floor - 1
        assert space.look(start) is None
        patient.disk.free = 10**12
        space.look(start + 1)
    patient.disk.free = patient.floor - 1
    assert space.look(800.0) is None
    assert space.look(1399.0) is None


def test_the_ballast_is_taken_at_the_start_and_given_back_at_the_end(patient):
    patient.space.start(100.0)
    assert patient.held == patient.ballast
    patient.space.stop()
    assert patient.held == 0


def test_what_a_killed_run_left_as_ballast_is_no_want_of_space(patient):
    patient.path.write_bytes(b"left over")
    patient.space.start(100.0)
    assert patient.held == patient.ballast


def test_a_link_in_place_of_the_ballast_is_removed_and_not_followed(patient, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    patient.path.symlink_to(precious)
    patient.space.start(100.0)
    assert precious.read_text() == "precious"
    assert not patient.path.is_symlink()


def test_a_small_rest_of_a_disk_is_not_taken_as_ballast(patient):
    patient.disk.free = patient.floor * 5 // 4 + patient.ballast - 1
    patient.space.start(100.0)
    assert patient.held == 0
    assert not patient.space.is_short


def test_a_start_below_the_floor_is_refused(patient):
    patient.disk.free = patient.floor - 1
    with pytest.raises(FullDiskError, match="almost full"):
        patient.space.start(100.0)
    assert patient.held == 0


def test_a_commit_that_finds_the_disk_full_gets_the_ballast_once(patient):
    space = patient.space
    space.start(100.0)
    assert space.meet_full(101.0, FullDiskError("full"))
    assert patient.held == 0
    assert space.is_short
    assert not space.meet_full(102.0, FullDiskError("full"))


def test_the_ballast_comes_back_before_the_run_goes_on_for_long(patient):
    space = patient.space
    space.start(100.0)
    space.meet_full(101.0, FullDiskError("full"))
    patient.disk.free = patient.floor * 5 // 4 + patient.ballast - 1
    space.note(102.0, 0)
    assert space.is_short
    patient.disk.free += 1
    space.look(103.0)
    assert not space.is_short
    assert patient.held == patient.ballast
    assert space.meet_full(104.0, FullDiskError("full"))


def test_free_space_that_a_quota_does_not_give_is_waited_for_until_a_commit_goes_through(patient):
    space = patient.space
    space.start(100.0)
    space.meet_full(101.0, FullDiskError("quota exceeded"))
    assert space.look(102.0) is None
    assert space.is_short
    assert space.note(103.0, 0) is None
    assert not space.is_short


def test_a_part_that_did_not_fit_is_not_tried_with_the_same_space_again(patient):
    space = patient.space
    space.start(100.0)
    patient.disk.free = 10 * patient.floor
    space.meet_full_part(101.0, FullDiskError("full"))
    assert patient.held == patient.ballast
    space.look(102.0)
    assert space.is_short
    patient.disk.free = 10 * patient.floor * 5 // 4
    space.look(103.0)
    assert not space.is_short


def test_where_no_file_can_be_created_the_run_waits_for_inodes_and_not_for_bytes(patient, monkeypatch):
    space = patient.space
    space.start(100.0)
    patient.disk.free = 10 * patient.floor
    monkeypatch.setattr("batchllm.journal.space.lacks_inodes", lambda _path: True)
    space.meet_full_part(101.0, FullDiskError("full"))
    assert "all inodes" in patient.said[0]
    space.look(102.0)
    assert space.is_short
    monkeypatch.setattr("batchllm.journal.space.lacks_inodes", lambda _path: False)
    space.look(103.0)
    assert not space.is_short


def test_what_completion_writes_has_to_be_free_before_it_begins(patient):
    space = patient.space
    space.start(100.0)
    patient.disk.free = 1 << 40
    space.demand(101.0, 1 << 40)
    with pytest.raises(FullDiskError, match="are needed"):
        space.demand(101.0, (1 << 40) + 1)
    assert space.is_short
