import shutil

import pytest

from batchllm.errors import StorageError
from batchllm.journal.files import Layout, make_folders
from batchllm.journal.watch import Watch


@pytest.fixture
def layout(out):
    layout = Layout(out)
    make_folders(layout)
    layout.database.touch()
    return layout


@pytest.fixture
def said():
    return []


@pytest.fixture
def watch(layout, said):
    return Watch(layout, said.append)


def test_a_healthy_disk_is_not_spoken_of(watch, said):
    assert all(watch.note(float(second), 0.01) is None for second in range(10))
    assert said == []


def test_a_slow_disk_is_said_once(watch, said):
    for second in range(10):
        assert watch.note(float(second), 5.0) is None
    assert len(said) == 1
    assert "is slow: a commit took 5 s" in said[0]


@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
def test_a_journal_that_is_taken_away_is_an_error(layout, watch, how):
    assert watch.note(1.0, 0.0) is None
    if how == "removed":
        shutil.rmtree(layout.out)
    elif how == "moved":
        layout.out.rename(layout.out.with_name("elsewhere"))
    else:
        kept = layout.database.open()  # or the new file may get the old one's number
        layout.database.unlink()
        layout.database.touch()
    error = watch.note(2.0, 0.0)
    assert isinstance(error, StorageError)
    assert str(layout.database) in error.message
    if how == "replaced":
        kept.close()


def test_a_wal_that_a_reader_keeps_from_being_reused_is_said_once(layout, watch, said):
    with layout.database.with_name("journal.db-wal").open("wb") as wal:
        wal.truncate((1 << 30) - 1)
        assert watch.note(1.0, 0.0) is None
        assert said == []
        wal.truncate(1 << 30)
    for second in range(2, 5):
        assert watch.note(float(second), 0.0) is None
    assert len(said) == 1
    assert "another program has the journal open" in said[0]
