"""What a start makes of the files that it finds."""

import asyncio
import os

import pytest

from batchllm.errors import StorageError
from batchllm.journal.manifest import read_manifest


@pytest.mark.parametrize(
    ("kind", "lost", "way_out"),
    [
        ("output", "finished rows", "its rows are asked, and paid for, again"),
        ("failures", "finished rows", "its rows are asked, and paid for, again"),
        ("usage", "calls", "nothing is asked again"),
    ],
)
def test_a_missing_part_is_named_with_what_it_held_and_the_way_out(kit, out, kind, lost, way_out):
    asyncio.run(kit.run(out, [[kit.done(1), kit.attempt(1), kit.failed(2)]], lambda journal: journal.seal()))
    entry = read_manifest(out).parts[kind][0]
    (out / entry.path).unlink()
    with pytest.raises(StorageError, match=rf"{entry.path} is missing: {entry.rows} {lost}") as caught:
        kit.open_journal(out)
    assert "put the file back" in caught.value.remedy
    assert way_out in caught.value.remedy


@pytest.mark.parametrize("how", ["shorter", "longer", "link"])
def test_a_part_that_is_not_what_was_written_is_refused(kit, out, how):
    kit.fill(out)
    path = out / kit.seal(out).parts["output"][0].path
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        elsewhere = out.parent / "elsewhere"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    else:
        path.write_bytes(data[:-1] if how == "shorter" else data + b"x")
    with pytest.raises(StorageError, match=path.name):
        kit.open_journal(out)


def test_files_that_nobody_knows_are_reported_and_left(kit, out):
    kit.fill(out)
    kit.seal(out)
    strangers = [
        out / "output" / "part-copy.parquet",
        out / "usage" / "notes",
        out / ".batchllm" / "part-x.tmp",
    ]
    for path in strangers:
        path.write_text("whose?")
    journal = kit.open_journal(out)
    journal.complete(30)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert journal.unknown_files == sorted(strangers)
    assert all(path.read_text() == "whose?" for path in strangers)


def test_a_temporary_name_that_outlived_its_part_goes(kit, out):
    kit.fill(out)
    entry = kit.seal(out).parts["output"][0]
    left = out / ".batchllm" / f"{entry.path.removeprefix('output/')}.tmp"
    os.link(out / entry.path, left)
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    assert not left.exists()
    asyncio.run(journal.close(clean=True, exit_code=0))
