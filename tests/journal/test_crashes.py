"""Processes that are killed at each point of each protocol: what was acknowledged is there, once."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from batchllm.journal.manifest import read_manifest

FILE_POINTS = ("after_intent", "after_tmp", "after_fsync", "after_link")
COMMIT_POINTS = ("before_part_commit", "after_part_commit")
MANIFEST_POINTS = ("before_manifest", "after_manifest")
KILLS = [
    *[("run", "after_commit", nth) for nth in (1, 4, 8)],
    *[("run", point, 1) for point in (*FILE_POINTS, *COMMIT_POINTS)],
    *[("seal", point, nth) for point in (*FILE_POINTS, *COMMIT_POINTS) for nth in (1, 4)],
    *[("seal", point, 1) for point in MANIFEST_POINTS],
    *[("complete", point, nth) for point in FILE_POINTS for nth in (1, 3, 6)],
    *[("complete", point, 1) for point in (*COMMIT_POINTS, *MANIFEST_POINTS)],
    *[("complete", "before_unlink", nth) for nth in (1, 5)],
]


def acknowledged(out: Path) -> list[int]:
    ledger = Path(f"{out}.ledger")
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


def assert_whole(kit, out: Path) -> None:
    """By the files as the dead process left them: nothing lost, nothing twice, nothing changed."""
    parts, lines = kit.stored(out)
    rows = Counter(row for row, _ in parts + lines)
    assert set(rows.values()) <= {1}
    assert set(acknowledged(out)) - set(kit.FAILED) <= set(rows)
    assert all(text == kit.answer(row) for row, text in parts + lines)


def assert_finished(kit, out: Path) -> None:
    rows = [row for row in range(kit.ROWS) if row not in kit.FAILED]
    table = kit.read(out, "output")
    assert table["row"].to_pylist() == rows
    assert table["content"].to_pylist() == [kit.answer(row) for row in rows]
    assert kit.read(out, "failures")["row"].to_pylist() == list(kit.FAILED)
    assert kit.names(out / ".batchllm") == ["journal.db"]
    manifest = read_manifest(out)
    assert (manifest.complete, manifest.ok, manifest.failed) == (True, kit.ROWS - 2, 2)
    assert manifest.parts["skipped"] == ()
    for kind in kit.KINDS:
        parts = manifest.parts[kind]
        assert [f"{kind}/{name}" for name in kit.names(out / kind)] == [part.path for part in parts]


def test_a_whole_scenario_passes_every_point_of_the_kill_list(kit, out, crash):
    assert crash(out=str(out), phase="none", point="none", nth=0) == 0
    assert_finished(kit, out)
    seen = json.loads(Path(f"{out}.seen").read_text())
    assert {f"{phase}:{point}" for phase, point, _ in KILLS} == set(seen)


@pytest.mark.parametrize(("phase", "point", "nth"), KILLS)
def test_a_kill_loses_nothing_and_doubles_nothing(kit, out, crash, phase, point, nth):
    assert crash(out=str(out), phase=phase, point=point, nth=nth) == -9
    assert_whole(kit, out)
    journal = kit.open_journal(out)
    assert journal.interrupted is not None
    assert journal.unknown_files == []
    assert all(journal.finished.has(row) for row in acknowledged(out))
    asyncio.run(journal.close(clean=True, exit_code=0))
    before = set(acknowledged(out))
    assert crash(out=str(out), phase="none", point="none", nth=0) == 0
    assert_finished(kit, out)
    asked_again = Counter(acknowledged(out))
    assert all(asked_again[row] == 1 for row in before)


@pytest.mark.parametrize("point", ["before_manifest", "after_manifest", "before_unlink"])
def test_a_kill_while_a_start_repairs_leaves_a_record_that_the_next_start_repairs(kit, out, crash, point):
    assert crash(out=str(out), phase="complete", point="after_part_commit", nth=1) == -9
    assert crash(out=str(out), phase="open", point=point, nth=1) == -9
    assert_whole(kit, out)
    assert crash(out=str(out), phase="none", point="none", nth=0) == 0
    assert_finished(kit, out)


def test_usage_is_neither_lost_nor_doubled_by_kills(kit, out, crash):
    for phase, point in [("run", "after_commit"), ("seal", "after_link"), ("complete", "before_unlink")]:
        assert crash(out=str(out), phase=phase, point=point, nth=1) == -9
    assert crash(out=str(out), phase="none", point="none", nth=0) == 0
    assert kit.read(out, "usage")["row"].to_pylist() == list(range(kit.ROWS))


def test_a_file_that_may_not_grow_stops_with_a_storage_error_and_keeps_what_was_committed(kit, out, crash):
    assert crash(out=str(out), limit=1_000_000) == 0
    acknowledged_rows = int(Path(f"{out}.ledger").read_text())
    assert acknowledged_rows >= 50
    assert Path(f"{out}.error").read_text().startswith("StorageError cannot read or write")
    journal = kit.open_journal(out)
    assert journal.finished.ok >= acknowledged_rows
    assert all(journal.finished.has(row) for row in range(acknowledged_rows))
    asyncio.run(journal.close(clean=True, exit_code=0))
