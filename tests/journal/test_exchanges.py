"""What exchanges parts after a run: another input, copied outcomes, a record put aside. Killed at each point."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batchllm.journal.aside import finish_putting_aside
from batchllm.journal.files import Layout
from batchllm.journal.manifest import read_manifest

FILE_POINTS = ("after_intent", "after_tmp", "after_fsync", "after_link")
COMMIT_POINTS = ("before_part_commit", "after_part_commit")
RENEW_KILLS = [
    ("before_renewal", 1),
    ("after_renewal", 1),
    *[(point, nth) for point in FILE_POINTS for nth in (1, 4, 7)],
    *[(point, 1) for point in (*COMMIT_POINTS, "before_manifest", "after_manifest")],
    *[("before_unlink", nth) for nth in (1, 4)],
]
COPY_KILLS = [
    *[(point, nth) for point in FILE_POINTS for nth in (1, 2)],
    *[(point, 1) for point in COMMIT_POINTS],
]

Crash = Callable[..., int]


def finished(kit, out: Path, crash: Crash) -> None:
    assert crash(out=str(out), phase="none", point="none", nth=0) == 0


def rows_of(kit, out: Path, kind: str) -> dict[int, str]:
    """Row → key; each row once."""
    table = kit.read(out, kind)
    rows = table["row"].to_pylist()
    assert len(set(rows)) == len(rows)
    return dict(zip(rows, table["id"].to_pylist(), strict=True))


def reopened(kit, out: Path) -> None:
    """A start repairs, and finds no file that it does not know."""
    journal = kit.open_journal(out)
    assert journal.unknown_files == []
    asyncio.run(journal.close(clean=True, exit_code=0))


def is_renewed(kit, out: Path) -> bool:
    """Either all of the old record, or all of the new one."""
    output, failures = rows_of(kit, out, "output"), rows_of(kit, out, "failures")
    old = {row: f"k{row}" for row in range(kit.ROWS)}
    new = {at: f"k{row}" for row, at in kit.MOVED.items()}
    both = {**output, **failures}
    assert both in (old, new)
    assert sorted(failures.values()) == ["k3", "k31"]
    assert len(output) + len(failures) == len(both)
    content = dict(
        zip(
            kit.read(out, "output")["row"].to_pylist(),
            kit.read(out, "output")["content"].to_pylist(),
            strict=True,
        )
    )
    assert content == {row: kit.answer(int(key[1:])) for row, key in output.items()}
    manifest = read_manifest(out)
    assert (manifest.ok, manifest.failed) == (len(output), len(failures))
    assert kit.read(out, "usage").num_rows == kit.ROWS
    return both == new


def test_another_input_moves_the_record(kit, out, crash):
    finished(kit, out, crash)
    assert not is_renewed(kit, out)
    assert crash(out=str(out), of="renew", point="none", nth=0) == 0
    assert is_renewed(kit, out)
    assert sorted(kit.read(out, "usage")["row"].to_pylist())[: len(kit.GONE)] == [-1] * len(kit.GONE)
    seen = json.loads(Path(f"{out}.seen").read_text())
    assert {f"renew:{point}" for point, _ in RENEW_KILLS} == set(seen) - {
        place for place in seen if "open" in place
    }
    assert read_manifest(out).complete is False


@pytest.mark.parametrize(("point", "nth"), RENEW_KILLS)
def test_a_kill_leaves_the_old_record_or_the_new_one(kit, out, crash, point, nth):
    finished(kit, out, crash)
    assert crash(out=str(out), of="renew", point=point, nth=nth) == -9
    reopened(kit, out)
    assert is_renewed(kit, out) == (point != "before_renewal")  # from its commit on a start carries it out
    if not is_renewed(kit, out):
        assert crash(out=str(out), of="renew", point="none", nth=0) == 0
        assert is_renewed(kit, out)
    reopened(kit, out)
    assert not [*(out / ".batchllm").glob("part-*"), *(out / ".batchllm").glob("renewal-*")]
    assert len(list((out / ".batchllm").glob("marks-*"))) <= 2  # one of them may be a killed start's


def copied(kit, out: Path) -> bool:
    output, failures = rows_of(kit, out, "output"), rows_of(kit, out, "failures")
    rows = {row for row in {**output, **failures} if row >= kit.ROWS}
    assert rows in (set(), set(kit.COPIES))
    table = kit.read(out, "output").filter(
        [row >= kit.ROWS for row in kit.read(out, "output")["row"].to_pylist()]
    )
    for line in table.to_pylist():
        original = kit.COPIES[line["row"]]
        assert (line["id"], line["content"]) == (f"k{line['row']}", kit.answer(original))
        assert (line["cost_usd"], line["prompt_tokens"], line["attempts"]) == (0.0, 0, 0)
    assert {row: kit.COPIES[row] for row in failures if row in rows} in ({}, {41: 3, 44: 31})
    return bool(rows)


@pytest.mark.parametrize(("point", "nth"), [("none", 0), *COPY_KILLS])
def test_copies_are_all_there_or_not_at_all(kit, out, crash, point, nth):
    finished(kit, out, crash)
    assert crash(out=str(out), of="copy", point=point, nth=nth) == (0 if point == "none" else -9)
    reopened(kit, out)
    copied(kit, out)
    assert crash(out=str(out), of="copy", point="none", nth=0) == 0
    assert copied(kit, out)
    assert crash(out=str(out), of="copy", point="none", nth=0) == 0
    assert copied(kit, out)
    reopened(kit, out)


@pytest.mark.parametrize(("point", "nth"), [("after_note", 1), *[("after_move", nth) for nth in range(1, 6)]])
def test_a_record_that_was_put_aside_halfway_is_put_aside_by_the_next_start(kit, out, crash, point, nth):
    finished(kit, out, crash)
    before = read_manifest(out)
    assert crash(out=str(out), of="aside", point=point, nth=nth) == -9
    earlier = finish_putting_aside(Layout(out))
    assert earlier is not None
    assert finish_putting_aside(Layout(out)) is None
    assert read_manifest(earlier) == before
    assert read_manifest(out) is None
    reopened(kit, earlier)
    assert len(rows_of(kit, earlier, "output")) == kit.ROWS - 2
    reopened(kit, out)
    assert kit.names(out / "output") == []


def test_two_records_of_one_second_have_two_names(kit, out, crash):
    for _ in range(2):
        finished(kit, out, crash)
        Path(f"{out}.ledger").unlink()
        assert crash(out=str(out), of="aside", point="none", nth=0) == 0
    assert len(kit.names(out / ".batchllm" / "earlier")) == 2


def test_a_note_that_names_another_place_is_not_followed(kit, out, crash):
    finished(kit, out, crash)
    (out / ".batchllm" / "putting-aside").write_text("../../elsewhere")
    with pytest.raises(Exception, match="names no folder"):
        finish_putting_aside(Layout(out))
