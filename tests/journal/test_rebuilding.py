"""A lost or damaged journal comes back from the parts; nothing is replaced, and nothing is given up unasked."""

import asyncio
import shutil
from contextlib import closing, suppress
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from batchllm.errors import ChangedJobError, InputMissingError, StorageError
from batchllm.journal.audit import audit
from batchllm.journal.files import Layout
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.records import Billed

ROWS = 40
FAILED = (3, 31)


class KilledError(Exception):
    pass


def records(kit, rows=range(ROWS)):
    return [
        record
        for row in rows
        for record in (kit.attempt(row), kit.failed(row, content="half") if row in FAILED else kit.done(row))
    ]


def complete(journal):
    journal.set_input(InputState("digest", ROWS, "[]"))
    return journal.complete(ROWS)


def stop(journal):
    journal.set_input(InputState("digest", ROWS, "[]"))
    return journal.seal()


@pytest.fixture
def whole(kit, out):
    asyncio.run(kit.run(out, [records(kit)], complete))
    return out


@pytest.fixture
def half(kit, out):
    """Stopped after 20 rows, and then drained on by a run that never wrote a manifest again."""
    asyncio.run(kit.run(out, [records(kit, range(19, -1, -1))], stop))
    manifest = (out / "manifest.json").read_bytes()
    asyncio.run(kit.run(out, [records(kit, range(20, 30))], stop))
    (out / "manifest.json").write_bytes(manifest)
    return out


def owner(kit, **changes):
    given = {
        "identity": kit.IDENTITY,
        "lanes": kit.LANES,
        "slots": 1,
        "task": kit.ChatTask(),
        "shape": kit.Shape(),
    }
    return Owner(**{**given, **changes})


def mend(kit, out, *, drops_missing=False, **changes):
    known = {name: changes.pop(name) for name in ("fault", "check_rows") if name in changes}
    return rebuild(out, owner(kit, **changes), clock=kit.Clock(), drops_missing=drops_missing, **known)


def lose(out):
    for path in Layout(out).state.glob("journal.db*"):
        path.unlink()


def damage(out):
    path = Layout(out).database
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * 8192 + data[16384:])


def finish(kit, out):
    """Go on as a run does; returns the rows that it asks."""
    journal = kit.open_journal(out)
    rows = [row for row in range(ROWS) if not journal.finished.has(row)]
    asyncio.run(journal.close(clean=True, exit_code=0))
    asyncio.run(kit.run(out, [records(kit, rows)], complete))
    assert kit.read(out, "output")["row"].to_pylist() == [row for row in range(ROWS) if row not in FAILED]
    assert kit.read(out, "output")["content"].to_pylist() == [
        kit.answer(row) for row in range(ROWS) if row not in FAILED
    ]
    assert kit.read(out, "failures")["row"].to_pylist() == list(FAILED)
    assert audit(out).is_whole
    return rows


def files(out):
    return {
        path: path.read_bytes() for kind in ("output", "failures", "usage") for path in (out / kind).iterdir()
    }


@pytest.mark.parametrize("break_it", [lose, damage])
def test_a_lost_journal_comes_back_with_all_that_it_knew(kit, whole, break_it):
    before, told = files(whole), read_manifest(whole)
    break_it(whole)
    done = mend(kit, whole)
    assert (done.is_new, done.ok, done.failed, done.dropped, done.unknown_answers) == (True, 38, 2, [], 0)
    assert files(whole) == before
    now = read_manifest(whole)
    assert now == replace(told, updated=now.updated, renewals=told.renewals + 1)
    assert audit(whole).is_whole
    assert finish(kit, whole) == []
    aside = list(Layout(whole).state.glob("journal.db.damaged-*"))
    assert len(aside) == (break_it is damage)


def test_a_run_refuses_and_names_the_way_out_until_then(kit, whole):
    lose(whole)
    with pytest.raises(Exception, match="batchllm rebuild JOB") as caught:
        kit.open_journal(whole)
    assert caught.value.exit_code == 73
    mend(kit, whole)
    finish(kit, whole)


def test_parts_that_no_manifest_lists_are_found(kit, half):
    lose(half)
    done = mend(kit, half)
    assert (done.ok, done.failed) == (29, 1)
    assert finish(kit, half) == list(range(30, ROWS))


def test_without_a_manifest_the_folders_tell(kit, half):
    lose(half)
    (half / "manifest.json").unlink()
    asked = []
    done = mend(kit, half, check_rows=asked.append)
    assert (done.ok, done.failed, done.had_manifest) == (29, 1, False)
    assert asked == [half]
    assert finish(kit, half) == list(range(30, ROWS))


def test_what_only_the_lost_journal_held_is_asked_again_and_said(kit, out):
    asyncio.run(kit.run(out, [records(kit, range(20))], stop))
    told = read_manifest(out)
    path = out / "manifest.json"
    path.write_bytes(
        path.read_bytes().replace(b'"ok": 19', b'"ok": 25').replace(b'"pending": 20', b'"pending": 14')
    )
    lose(out)
    done = mend(kit, out)
    assert told.ok == 19
    assert done.unknown_answers == 6
    assert finish(kit, out) == list(range(20, ROWS))


def test_money_that_only_the_manifest_knows_stays_spent(kit, out):
    asyncio.run(kit.run(out, [records(kit, range(20))], stop))
    for path in (out / "usage").iterdir():
        path.unlink()
    lose(out)
    with pytest.raises(StorageError, match="cannot be used"):
        mend(kit, out)
    mend(kit, out, drops_missing=True)
    journal = kit.open_journal(out)
    assert journal.counts.cost_usd == pytest.approx(0.25 * 20)
    assert journal.counts.attempts == 20
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert audit(out).is_whole


def test_sums_without_a_manifest_come_from_usage(kit, out):
    more = [
        kit.attempt(5, billed=Billed.UNKNOWN, cost_usd=None, started_at=kit.STARTED_S + 100),
        kit.attempt(6, cost_usd=None, started_at=kit.STARTED_S + 101),
    ]
    asyncio.run(kit.run(out, [[*records(kit, range(20)), *more]], stop))
    lose(out)
    (out / "manifest.json").unlink()
    mend(kit, out)
    journal = kit.open_journal(out)
    counts = journal.counts
    assert (counts.attempts, counts.unpriced, counts.uncertain, counts.prompt_tokens) == (22, 1, 1, 220)
    assert counts.cost_usd == pytest.approx(5.0)
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_a_whole_record_is_left_alone(kit, whole):
    before = Layout(whole).database.read_bytes()
    done = mend(kit, whole)
    assert not done.did_something
    assert Layout(whole).database.read_bytes() == before


def test_another_job_s_record_is_refused(kit, whole):
    lose(whole)
    changed = replace(kit.IDENTITY, sections={**kit.IDENTITY.sections, "task": "another prompt"})
    with pytest.raises(ChangedJobError, match="another job: task changed"):
        mend(kit, whole, identity=changed)
    assert not Layout(whole).database.exists()
    with pytest.raises(ChangedJobError, match="with 1 answers a row"):
        mend(kit, whole, slots=2)


def test_other_columns_are_refused(kit, whole):
    lose(whole)
    with pytest.raises(ChangedJobError, match=r"body \(string\) comes"):
        mend(kit, whole, identity=replace(kit.IDENTITY, keeps_bodies=True))


def test_without_a_manifest_other_models_are_refused(kit, whole):
    lose(whole)
    (whole / "manifest.json").unlink()
    lanes = [kit.LANES[0]._replace(model="another"), kit.LANES[1]]
    with pytest.raises(ChangedJobError, match="calls to model-a of openai"):
        mend(kit, whole, lanes=lanes)


@pytest.mark.parametrize("journal", ["kept", "lost"])
@pytest.mark.parametrize("how", ["missing", "edited"])
def test_a_bad_part_is_given_up_only_when_told_to(kit, whole, journal, how):
    path = min((whole / "output").iterdir())
    rows = pq.read_table(path)["row"].to_pylist()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    if journal == "lost":
        lose(whole)
    else:
        with pytest.raises(StorageError, match="drop-missing"):
            kit.open_journal(whole)
    with pytest.raises(StorageError, match=r"1 parts cannot be used") as caught:
        mend(kit, whole)
    assert (
        f"{len(rows)} rows are then pending again, and asking them again costs about" in caught.value.remedy
    )
    done = mend(kit, whole, drops_missing=True)
    assert (done.is_new, done.dropped_rows) == (journal == "lost", len(rows))
    assert done.dropped_usd == pytest.approx(0.25 * len(rows))
    aside = list(Layout(whole).state.glob("part-*.damaged"))
    assert len(aside) == (how == "edited")
    assert finish(kit, whole) == rows


def test_lines_in_the_journal_outlive_parts_that_are_given_up(kit, out):
    asyncio.run(kit.run(out, [records(kit, range(20))], stop))
    kit.fill(out, range(20, 30))
    path = min((out / "output").iterdir())
    lost = pq.read_table(path)["row"].to_pylist()
    path.unlink()
    done = mend(kit, out, drops_missing=True)
    assert not done.is_new
    assert finish(kit, out) == [*lost, *range(30, ROWS)]


def test_a_lost_part_of_usage_costs_nothing_and_its_sums_stay(kit, whole):
    for path in (whole / "usage").iterdir():
        path.unlink()
    done = mend(kit, whole, drops_missing=True)
    assert done.dropped_rows == 0
    assert audit(whole).is_whole
    assert read_manifest(whole).cost_usd == pytest.approx(10.0)
    assert finish(kit, whole) == []
    assert read_manifest(whole).cost_usd == pytest.approx(10.0)


def test_a_file_that_cannot_be_read_and_that_nobody_knows_is_told(kit, half):
    lose(half)
    (half / "manifest.json").unlink()
    path = max((half / "output").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * 20 + data[120:])
    with pytest.raises(StorageError, match=path.name):
        mend(kit, half)
    mend(kit, half, drops_missing=True)
    finish(kit, half)


@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("after_link", 1),
        ("after_link", 2),
        ("before_part_commit", 1),
        ("after_part_commit", 1),
        ("before_manifest", 1),
        ("before_unlink", 1),
        ("before_unlink", 3),
        ("before_unlink", 6),
    ],
)
def test_a_journal_that_is_lost_within_a_completion_comes_back(kit, out, crash, point, nth, has_manifest):
    """Old parts and new ones lie side by side then, some of either."""
    assert crash(out=str(out), phase="complete", point=point, nth=nth) == -9
    lose(out)
    if not has_manifest:
        (out / "manifest.json").unlink()
    done = mend(kit, out)
    assert (done.ok, done.failed) == (kit.ROWS - 2, 2)
    assert finish(kit, out) == []
    assert kit.read(out, "usage")["row"].to_pylist() == list(range(kit.ROWS))


POINTS = ["before_aside", "after_moving", "after_aside", "after_link", "before_manifest", "after_manifest"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("drops", [False, True])
def test_cut_off_anywhere_it_can_be_begun_again(kit, half, point, drops):
    def fault(reached):
        if reached == point:
            raise KilledError

    damage(half)
    if drops:
        min((half / "output").iterdir()).unlink()
    with pytest.raises(KilledError):
        mend(kit, half, drops_missing=drops, fault=fault)
    with suppress(StorageError):
        mend(kit, half)
    mend(kit, half, drops_missing=drops)
    asked = finish(kit, half)
    assert set(range(30, ROWS)) <= set(asked)
    assert (len(asked) > 10) == drops


@pytest.mark.parametrize("point", ["after_moving", "after_drop", "before_manifest", "after_manifest"])
def test_giving_up_parts_can_be_cut_off_anywhere(kit, whole, point):
    def fault(reached):
        if reached == point:
            raise KilledError

    path = min((whole / "output").iterdir())
    rows = pq.read_table(path)["row"].to_pylist()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(KilledError):
        mend(kit, whole, drops_missing=True, fault=fault)
    mend(kit, whole, drops_missing=True)
    assert finish(kit, whole) == rows


def test_nothing_at_all_is_nothing_to_rebuild(kit, out):
    with pytest.raises(InputMissingError):
        mend(kit, out)


def test_a_damaged_journal_without_parts_becomes_an_empty_one(kit, out):
    kit.fill(out, range(5))
    damage(out)
    done = mend(kit, out)
    assert (done.is_new, done.ok) == (True, 0)
    assert finish(kit, out) == list(range(ROWS))


def test_killed_between_two_files_of_the_old_journal_there_is_a_way_on(kit, out):
    """The database has stepped aside, its WAL has not yet, and there is no part that would tell of a record."""
    kit.fill(out, range(5))
    damage(out)
    Layout(out).database.rename(Layout(out).state / "journal.db.damaged-1")
    Layout(out).database.with_name("journal.db-wal").write_bytes(b"left")
    with pytest.raises(StorageError, match="batchllm rebuild"):
        kit.open_journal(out)
    assert mend(kit, out).is_new
    assert finish(kit, out) == list(range(ROWS))


def test_each_lane_s_answers_are_told_apart(kit, out):
    batch = [kit.done(0, 0), kit.done(0, 1), kit.done(1, 1), kit.failed(1, lane=0), kit.failed(2, lane=None)]
    asyncio.run(
        kit.run(
            out,
            [batch],
            lambda journal: (journal.set_input(InputState("d", 3, "[]")), journal.complete(6)),
            slots=2,
        )
    )
    lose(out)
    done = mend(kit, out, slots=2)
    assert (done.ok, done.failed) == (3, 3)
    journal = kit.open_journal(out, slots=2)
    assert all(journal.finished.has_row(row) for row in range(3))
    asyncio.run(journal.close(clean=True, exit_code=0))


def test_parts_keep_their_numbers_and_new_ones_come_after(kit, half):
    before = {path.name for path in (half / "output").iterdir()}
    lose(half)
    mend(kit, half)
    with closing(kit.raw(Layout(half).database)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM parts WHERE kind = 'output'")}
        assert names == before
        for part, name in connection.execute("SELECT part, name FROM parts"):
            assert name.startswith(f"part-{part:08d}-")
    finish(kit, half)


def test_a_copy_of_a_part_is_moved_aside(kit, whole):
    first = min((whole / "output").iterdir())
    shutil.copy(first, first.with_name("part-00000099-" + "0" * 32 + ".parquet"))
    lose(whole)
    done = mend(kit, whole)
    assert [path.name for path in done.moved] == ["part-00000099-" + "0" * 32 + ".parquet.repeated"]
    finish(kit, whole)


def killed_with_lines(kit, out):
    """Sealed with 20 rows, then killed with ten more in the journal."""
    asyncio.run(kit.run(out, [records(kit, range(20))], stop))
    kit.fill(out, range(20, 30))


@pytest.mark.parametrize("fault", ["totals", "older"])
def test_a_journal_that_does_not_fit_gives_up_its_lines_first(kit, out, fault):
    killed_with_lines(kit, out)
    with closing(kit.raw(Layout(out).database)) as connection:
        if fault == "totals":
            connection.execute("UPDATE totals SET ok = ok + 1")
        else:
            connection.execute("DELETE FROM parts WHERE part = (SELECT min(part) FROM parts)")
        connection.commit()
    with pytest.raises(StorageError, match="batchllm rebuild"):
        kit.open_journal(out)
    done = mend(kit, out)
    assert (done.is_new, done.ok, done.failed, done.salvaged) == (True, 29, 1, 10)
    assert audit(out).is_whole
    journal = kit.open_journal(out)
    assert journal.counts.attempts == 30
    assert journal.counts.cost_usd == pytest.approx(7.5)
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert finish(kit, out) == list(range(30, ROWS))


def test_an_older_journal_that_was_put_back_repeats_nothing(kit, out):
    """Its lines are in parts by now."""
    kit.fill(out, range(20))
    old = Layout(out).database.read_bytes()
    asyncio.run(kit.run(out, [], stop))
    Layout(out).database.write_bytes(old)
    done = mend(kit, out)
    assert (done.ok, done.salvaged) == (20, 0)
    journal = kit.open_journal(out)
    assert journal.counts.attempts == 20
    asyncio.run(journal.close(clean=True, exit_code=0))
    assert kit.read(out, "usage").num_rows == 20


def test_an_answer_that_rotted_is_not_salvaged(kit, out):
    killed_with_lines(kit, out)
    with closing(kit.raw(Layout(out).database)) as connection:
        connection.execute("UPDATE totals SET ok = ok + 1")
        connection.execute("UPDATE results SET answer = 'rotten' WHERE row = 22")
        connection.commit()
    mend(kit, out)
    assert finish(kit, out) == [22, *range(30, ROWS)]


def test_giving_up_parts_keeps_the_lines_wherever_it_is_cut_off(kit, out):
    """What a kill leaves is the folder as it lies there: a copy of it is taken at each point that is passed."""
    killed_with_lines(kit, out)
    min((out / "output").iterdir()).unlink()
    copies = []

    def fault(point):
        copies.append(out.with_name(f"copy-{len(copies)}-{point}"))
        shutil.copytree(out, copies[-1])

    mend(kit, out, drops_missing=True, fault=fault)
    assert len(copies) > 4
    for copy in [out, *copies]:
        mend(kit, copy, drops_missing=True)
        assert not set(finish(kit, copy)) & set(range(20, 30)), copy.name


def test_files_that_hold_some_rows_twice_are_refused_by_name(kit, out):
    asyncio.run(kit.run(out, [records(kit, range(20))], stop))
    other = out.with_name("other")
    asyncio.run(kit.run(other, [records(kit, range(5, 30))], stop))
    for path in (other / "output").iterdir():
        number = 100 + int(path.name.split("-")[1])
        shutil.copy(path, out / "output" / f"part-{number:08d}-{path.name.split('-')[2]}")
    lose(out)
    (out / "manifest.json").unlink()
    with pytest.raises(StorageError, match="nobody can tell which of them counts") as caught:
        mend(kit, out)
    assert str(out / "output") in str(caught.value)
    assert not Layout(out).database.exists()
