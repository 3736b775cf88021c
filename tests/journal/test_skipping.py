"""Several answers to a row, some of which need not be asked: each unit has one outcome, and all that is kept tells."""

import asyncio
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import InvariantError
from batchllm.journal.audit import audit
from batchllm.journal.copies import CopyRequests
from batchllm.journal.files import Layout
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.journal.renewal import Renewal
from batchllm.journal.slots import Slots
from batchllm.journal.spill import Spilled, read_spill, write_spill
from batchllm.matching import Places

ROWS = 30
#: Of every third row the second lane is asked.
ASKED = [row for row in range(ROWS) if row % 3 == 0]
FAILED = 9  # on its first lane


def settled(kit, row):
    """What the record gets of a row: its second slot answered, or skipped along with the first one's answer."""
    if row == FAILED:
        return [kit.attempt(row), kit.failed(row, 0), kit.skipped(row, 1)]
    first = [kit.attempt(row), kit.done(row, 0)]
    return [*first, kit.attempt(row, 1), kit.done(row, 1)] if row in ASKED else [*first, kit.skipped(row, 1)]


def records(kit, rows=range(ROWS)):
    return [record for row in sorted(rows, key=lambda row: row * 17 % ROWS) for record in settled(kit, row)]


def complete(journal):
    journal.set_input(InputState("digest", ROWS, "[]"))
    return journal.complete(ROWS * 2)


def polled(kit, out, end=complete):
    return asyncio.run(kit.run(out, [records(kit)], end, slots=2))


def opened(kit, out, look, **changes):
    """What `look` says of the record, as a start finds it."""
    journal = kit.open_journal(out, slots=2, **changes)
    try:
        return look(journal)
    finally:
        asyncio.run(journal.close(clean=True, exit_code=0))


def skipped_rows(kit, out):
    return sorted(kit.read(out, "skipped")["row"].to_pylist()) if any((out / "skipped").iterdir()) else []


SKIPPED = [row for row in range(ROWS) if row not in ASKED or row == FAILED]


def test_skipped_units_are_counted_and_stand_in_a_table_of_their_own(kit, out):
    manifest = polled(kit, out)
    answers = ROWS - 1 + len(ASKED) - 1
    assert (manifest.ok, manifest.failed, manifest.skipped, manifest.pending) == (answers, 1, len(SKIPPED), 0)
    table = kit.read(out, "skipped")
    assert table.column_names == ["id", "row", "lane", "request_hash"]
    assert table["row"].to_pylist() == SKIPPED
    assert set(table["lane"].to_pylist()) == {"second"}
    assert kit.read(out, "failures")["row"].to_pylist() == [FAILED]
    assert kit.read(out, "output").num_rows == answers
    found = audit(out)
    assert (found.findings, found.skipped) == ([], len(SKIPPED))


def test_a_record_without_skipped_units_has_no_such_table(kit, out):
    asyncio.run(kit.run(out, [[kit.done(0)]], lambda journal: journal.complete(1)))
    assert kit.names(out) == [".batchllm", "failures", "manifest.json", "output", "usage"]
    assert "skipped" not in (out / "manifest.json").read_text().partition('"parts"')[2]


def test_what_is_in_no_part_yet_is_known_to_the_next_start(kit, out):
    polled(kit, out, lambda _journal: None)
    assert opened(kit, out, lambda journal: journal.counts.skipped) == len(SKIPPED)
    assert opened(kit, out, lambda journal: all(journal.finished.has_row(row) for row in range(ROWS)))
    assert audit(out).is_whole


def test_a_unit_is_not_skipped_once_it_has_an_outcome(kit, out):
    with pytest.raises(InvariantError, match="row 0, lane 1 has its outcome already"):
        asyncio.run(kit.run(out, [[kit.done(0, 1)], [kit.skipped(0, 1)]], slots=2))


def test_a_run_is_not_complete_while_a_unit_is_neither_asked_nor_skipped(kit, out):
    with pytest.raises(
        InvariantError, match=r"1 answers and 0 failures \(1 skipped\) for 4 .*: 2 have no outcome"
    ):
        asyncio.run(
            kit.run(out, [[kit.done(0), kit.skipped(0, 1)]], lambda journal: journal.complete(4), slots=2)
        )


@pytest.mark.parametrize("is_sealed", [True, False])
def test_reopened_units_are_pending_and_the_others_stay(kit, out, is_sealed):
    polled(kit, out, complete if is_sealed else None)
    assert opened(kit, out, lambda journal: journal.reopen_skipped(all_of_them=False)) == 0
    assert opened(kit, out, lambda journal: journal.counts.skipped) == len(SKIPPED)
    assert opened(kit, out, lambda journal: journal.reopen_skipped(all_of_them=True)) == len(SKIPPED)
    assert skipped_rows(kit, out) == []
    counts = opened(kit, out, lambda journal: journal.counts)
    assert (counts.skipped, counts.ok, counts.failed) == (0, ROWS - 1 + len(ASKED) - 1, 1)
    assert audit(out).is_whole
    assert not read_manifest(out).complete


def test_with_a_forgotten_failure_what_it_settled_is_open_again(kit, out):
    polled(kit, out)
    forgotten = opened(kit, out, lambda journal: journal.forget_failures())
    assert (forgotten.units, FAILED in forgotten) == (2, True)
    assert skipped_rows(kit, out) == [row for row in SKIPPED if row != FAILED]
    assert opened(kit, out, lambda journal: journal.finished.open_slots(FAILED)) == [
        2 * FAILED,
        2 * FAILED + 1,
    ]
    assert audit(out).is_whole


def owner(kit):
    return Owner(kit.IDENTITY, kit.LANES, 2, kit.ChatTask(), kit.Shape())


def lose_journal(out):
    for path in Layout(out).state.glob("journal.db*"):
        path.unlink()


def test_a_journal_that_is_made_anew_knows_what_was_skipped(kit, out):
    opened(kit, out, lambda journal: journal.set_skip_terms("majority"))
    polled(kit, out)
    lose_journal(out)
    done = rebuild(out, owner(kit), clock=kit.Clock(), drops_missing=False)
    assert (done.is_new, done.failed) == (True, 1)
    assert audit(out).is_whole
    manifest = read_manifest(out)
    assert (manifest.complete, manifest.skipped) == (True, len(SKIPPED))
    assert opened(kit, out, lambda journal: (journal.counts.skipped, journal.skip_terms)) == (
        len(SKIPPED),
        "majority",
    )


def test_lines_of_a_journal_that_does_not_fit_are_taken_over(kit, out):
    polled(kit, out, lambda _journal: None)
    with closing(kit.raw(Layout(out).database)) as connection:
        connection.execute("UPDATE totals SET ok = ok + 1")
        connection.commit()
    rebuild(out, owner(kit), clock=kit.Clock(), drops_missing=False)
    assert opened(kit, out, lambda journal: journal.counts.skipped) == len(SKIPPED)
    assert audit(out).is_whole


def test_where_a_part_is_given_up_its_rows_are_looked_at_again(kit, out):
    polled(kit, out)
    lost = min((out / "output").iterdir())
    gone = set(pq.read_table(lost)["row"].to_pylist())
    lost.unlink()
    rebuild(out, owner(kit), clock=kit.Clock(), drops_missing=True)
    assert audit(out).is_whole
    reopened = opened(kit, out, lambda journal: journal.reopen_skipped(all_of_them=False))
    assert reopened == len(gone & set(SKIPPED)) > 0
    assert skipped_rows(kit, out) == [row for row in SKIPPED if row not in gone]
    assert audit(out).is_whole


def test_a_lost_part_of_them_is_no_lost_money(kit, out):
    polled(kit, out)
    min((out / "skipped").iterdir()).unlink()
    done = rebuild(out, owner(kit), clock=kit.Clock(), drops_missing=True)
    assert (done.dropped_rows, len(done.dropped)) == (0, 1)
    assert audit(out).is_whole
    counts = opened(kit, out, lambda journal: journal.counts)
    assert counts.ok == ROWS - 1 + len(ASKED) - 1
    assert counts.skipped < len(SKIPPED)


def test_they_move_with_their_rows_and_leave_with_them(kit, out):
    polled(kit, out)
    places = {row: ROWS - 1 - row for row in range(ROWS) if row not in (1, 2)}

    def renew(journal):
        with closing(journal.carries()) as carries:
            moved = Places(0, pa.array([places.get(row) for row in range(ROWS)], pa.int32()))
            journal.renew(Renewal(moved, carries), InputState("new", ROWS, "[]"))
        assert journal.counts.skipped == len(SKIPPED) - 2
        journal.settle()
        return journal.counts.skipped

    assert opened(kit, out, renew) == len(SKIPPED) - 2
    assert sorted(skipped_rows(kit, out)) == sorted(places[row] for row in SKIPPED if row in places)
    assert audit(out).is_whole


def test_a_row_that_takes_over_answers_takes_over_what_was_skipped(kit, out):
    def copy(journal):
        digests = [(1).to_bytes(16, "big").hex(), FAILED.to_bytes(16, "big").hex()]
        return journal.copy_outcomes(
            CopyRequests([ROWS, ROWS + 1], [1, FAILED], ["a", "b"], [b"[]"] * 2, digests)
        )

    polled(kit, out, lambda journal: journal.seal())
    assert opened(kit, out, copy) == (1, 1, 2)
    assert opened(kit, out, lambda journal: journal.finished.open_slots(ROWS)) == []


def test_what_could_not_be_committed_is_kept_elsewhere_with_it(kit, tmp_path):
    path = tmp_path / "spill"
    write_spill(path, Spilled(1, 0, 0, [0, 1], 0, [kit.done(0), kit.skipped(0, 1, 2)]))
    (_, spilled) = read_spill(path).records
    assert (spilled.row, tuple(spilled.slots), spilled.digest) == kit.skipped(0, 1, 2)


@pytest.mark.parametrize(
    ("point", "nth"),
    [("before_part_commit", 1), ("after_part_commit", 1), ("before_manifest", 1), ("before_unlink", 1)],
)
def test_killed_while_they_are_reopened_all_are_or_none(kit, out, crash, point, nth):
    polled(kit, out)
    assert crash(out=str(out), of="reopen", point=point, nth=nth) == -9
    counts = opened(kit, out, lambda journal: journal.counts)
    assert counts.skipped == (len(SKIPPED) if point == "before_part_commit" else 0)
    assert audit(out).is_whole
    assert crash(out=str(out), of="reopen", point="none", nth=0) == 0
    assert opened(kit, out, lambda journal: journal.counts.skipped) == 0
    assert skipped_rows(kit, out) == []
    assert audit(out).is_whole


@pytest.mark.parametrize("is_pinned", [True, False])
def test_samples_are_units_with_a_number(kit, out, is_pinned):
    lanes, slots = (2, 6) if is_pinned else (1, 3)

    def made(row):
        lines = [
            kit.done(row, lane, sample=sample, answer=f"{row} {lane} {sample}")
            for sample in range(3)
            for lane in range(lanes)
            if (row, lane, sample) != (4, 0, 1)
        ]
        return lines if row != 4 else [*lines, kit.failed(4, 0 if is_pinned else None, sample=1)]

    batches = [[record for row in range(5, -1, -1) for record in made(row)], [kit.failed(6, None)]]
    finish = {"slots": slots, "samples": 3}
    manifest = asyncio.run(kit.run(out, batches, lambda journal: journal.complete(7 * slots), **finish))
    assert (manifest.slots, manifest.samples) == (slots, 3)
    assert (manifest.ok, manifest.failed) == (6 * slots - 1, 1 + slots)
    table = kit.read(out, "output")
    told = zip(table["row"].to_pylist(), table["lane"].to_pylist(), table["sample"].to_pylist(), strict=True)
    names = [lane.name for lane in kit.LANES[:lanes]]
    assert list(told) == [
        (row, name, sample)
        for row in range(6)
        for name in names
        for sample in (1, 2, 3)
        if (row, name, sample) != (4, "first", 2)
    ]
    failures = kit.read(out, "failures")
    assert failures["sample"].to_pylist() == [2, None]
    assert audit(out).is_whole
    lose_journal(out)
    made_anew = Owner(kit.IDENTITY, kit.LANES, slots, kit.ChatTask(), kit.Shape(), 3)
    done = rebuild(out, made_anew, clock=kit.Clock(), drops_missing=False)
    assert (done.ok, done.failed) == (6 * slots - 1, 1 + slots)
    assert audit(out).is_whole
    journal = kit.open_journal(out, **finish)
    assert all(journal.finished.has_row(row) for row in range(7))
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_slot_is_named_by_what_it_is():
    assert [Slots(("a", "b"), 2).named(slot) for slot in range(4)] == [
        "lane a, sample 1", "lane a, sample 2", "lane b, sample 1", "lane b, sample 2"
    ]  # fmt: skip
    assert (Slots().named(0), Slots((), 3).named(2), Slots(("a", "b")).named(1)) == ("", "sample 3", "lane b")
    assert Slots.of(["a", "b"], 6) == Slots(("a", "b"), 3)
    assert Slots.of([], 3) == Slots((), 3)
