"""Damage is found, named and placed; a whole record is called whole; and looking at it changes nothing."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import sqlite3
from contextlib import closing

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import InputMissingError, LockedError, OutputError
from batchllm.journal.aside import put_aside
from batchllm.journal.audit import audit
from batchllm.journal.files import Layout
from batchllm.journal.inputs import InputState
from batchllm.journal.lock import OutputLock
from batchllm.records import Billed

ROWS = 40
FAILED = (3, 31)


def records(kit, rows=range(ROWS)):
    return [
        record
        for row in rows
        for record in (kit.attempt(row), kit.failed(row, content="half") if row in FAILED else kit.done(row))
    ]


def end(units):
    def complete(journal):
        journal.set_input(InputState("digest", units, "[]"))
        return journal.complete(units)

    return complete


@pytest.fixture
def whole(kit, out):
    """A complete record of several parts."""
    asyncio.run(kit.run(out, [records(kit)], end(ROWS)))
    return out


@pytest.fixture
def stopped(kit, out):
    """Sealed once, and then killed with lines in the journal that are in no part."""
    asyncio.run(
        kit.run(
            out,
            [records(kit, range(20))],
            lambda journal: (journal.set_input(InputState("d", ROWS, "[]")), journal.seal()),
        )
    )
    journal = kit.open_journal(out)
    loop = asyncio.new_event_loop()
    try:
        journal.start(loop)
        journal.put([*records(kit, range(20, 25)), kit.attempt(25, billed=Billed.UNKNOWN, cost_usd=None)])
        loop.run_until_complete(journal.flush())
        # What a kill leaves: a copy of the folder as it lies there while the run goes on.
        copy = out.with_name("copy")
        shutil.copytree(out, copy)
    finally:
        loop.run_until_complete(journal.close(clean=False, exit_code=0))
        loop.close()
    return copy


def messages(out):
    return [(str(finding.path.relative_to(out)), finding.message) for finding in audit(out).findings]


def only(out):
    found = audit(out).findings
    assert len(found) == 1, [finding.message for finding in found]
    return found[0]


def parts(out, kind="output"):
    return sorted((out / kind).iterdir())


def contents(out):
    return {
        path.relative_to(out): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in out.rglob("*")
    }


def manifest(out):
    return orjson.loads((out / "manifest.json").read_bytes())


def rewrite(out, change):
    told = manifest(out)
    change(told)
    (out / "manifest.json").write_bytes(orjson.dumps(told))


def test_a_complete_record_is_whole(whole):
    found = audit(whole)
    assert found.is_whole
    assert found.notes == []
    assert (found.ok, found.failed, found.in_journal) == (ROWS - 2, 2, 0)
    assert found.rows == {"output": ROWS - 2, "failures": 2, "usage": ROWS, "skipped": 0}
    assert found.files == len([*parts(whole), *parts(whole, "failures"), *parts(whole, "usage")])
    assert found.usage.cost_usd == pytest.approx(0.25 * ROWS)


def test_a_killed_record_is_whole_with_its_lines_in_the_journal(stopped):
    assert (stopped / ".batchllm" / "journal.db-wal").stat().st_size > 0
    found = audit(stopped)
    assert found.is_whole, found.findings
    assert (found.ok, found.failed, found.in_journal) == (24, 1, 5)
    assert (found.usage.attempts, found.usage.uncertain) == (26, 1)


@pytest.mark.parametrize("state", ["whole", "stopped"])
def test_nothing_is_written(request, state):
    out = request.getfixturevalue(state)
    before = contents(out)
    audit(out)
    assert contents(out) == before


def test_a_record_of_one_answer_a_lane_is_whole(kit, out):
    asyncio.run(
        kit.run(
            out,
            [
                [
                    kit.done(0, 0),
                    kit.done(0, 1),
                    kit.done(1, 1),
                    kit.failed(1, lane=None),
                    kit.failed(2, lane=None),
                ]
            ],
            lambda journal: (journal.set_input(InputState("d", 3, "[]")), journal.complete(6)),
            slots=2,
        )
    )
    found = audit(out)
    assert found.is_whole, found.findings
    assert (found.ok, found.failed) == (3, 3)


def test_there_is_nothing_in_an_empty_or_missing_folder(out):
    with pytest.raises(InputMissingError, match="does not exist"):
        audit(out)
    out.mkdir()
    with pytest.raises(InputMissingError, match="holds no output"):
        audit(out)


def test_a_record_that_is_half_put_aside_is_not_judged(whole):
    (Layout(whole).state / "putting-aside").write_text("20260101T000000Z")
    with pytest.raises(LockedError, match="being put aside"):
        audit(whole)


def test_no_record_is_put_aside_by_way_of_a_link(whole, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (whole / ".batchllm" / "earlier").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="symbolic link"):
        put_aside(Layout(whole), 0.0)
    assert list(elsewhere.iterdir()) == []
    assert (whole / "manifest.json").exists()


def test_a_record_that_was_put_aside_is_whole_in_its_new_place(whole):
    assert audit(put_aside(Layout(whole), 0.0)).is_whole


def test_while_a_run_holds_the_lock_nothing_is_said(whole):
    with OutputLock.acquire(whole, about={}), pytest.raises(LockedError, match="in use: held by pid"):
        audit(whole)
    assert audit(whole).is_whole


def test_a_run_that_starts_meanwhile_is_kept_out_and_told_why(whole):
    with OutputLock.acquire(whole, about={}):
        pass
    descriptor = os.open(Layout(whole).lock, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        assert audit(whole).is_whole  # several may look at once
        with pytest.raises(LockedError, match="is being verified"):
            OutputLock.acquire(whole, about={})
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["output", "failures", "usage"])
def test_a_missing_part_is_named(whole, kind):
    path = parts(whole, kind)[0]
    path.unlink()
    found = only(whole)
    assert found.path == path
    assert "it is missing" in found.message
    assert "--drop-missing" in found.remedy


def test_a_cut_part_is_named(whole):
    path = parts(whole)[0]
    path.write_bytes(path.read_bytes()[:-10])
    assert "bytes instead of" in only(whole).message


def test_a_flipped_bit_is_found_wherever_it_is(whole):
    path = parts(whole)[0]
    data = path.read_bytes()
    for place in range(4, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert only(whole).path == path
    path.write_bytes(data)
    assert audit(whole).is_whole


def test_a_part_that_was_written_anew_by_hand_is_told_from_a_damaged_one(whole):
    path = parts(whole)[0]
    size = path.stat().st_size
    table = pq.read_table(path)
    pq.write_table(table, path)
    with path.open("ab") as file:
        file.truncate(size)  # of the same size: only the checksum tells
    assert "are not those that were written" in only(whole).message
    pq.write_table(table, path)
    assert "bytes instead of" in only(whole).message


def test_a_link_is_no_part(whole):
    path = parts(whole)[0]
    path.symlink_to(path.replace(whole.with_name("elsewhere.parquet")))
    assert "symbolic link" in only(whole).message


def test_a_strange_file_that_readers_would_read_is_named(whole):
    stranger = whole / "output" / "mine.parquet"
    shutil.copy(parts(whole)[0], stranger)
    (whole / "output" / "notes.txt").write_text("no reader takes this for a part")
    assert only(whole).path == stranger


def test_a_missing_journal_is_named_with_the_way_out(whole):
    Layout(whole).database.unlink()
    found = only(whole)
    assert "missing" in found.message
    assert "batchllm rebuild" in found.remedy


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_journal_is_named_and_the_parts_are_still_looked_at(whole, damage):
    path = Layout(whole).database
    data = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(data[:8192] + b"\xff" * 8192 + data[16384:])
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.unlink()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE mine (x)")
    found = audit(whole)
    assert [finding.path for finding in found.findings] == [path]
    assert found.ok == ROWS - 2
    parts(whole)[0].unlink()
    assert len(audit(whole).findings) == 2


def test_an_answer_that_rotted_in_the_journal_is_named(kit, stopped):
    with closing(kit.raw(Layout(stopped).database)) as connection:
        connection.execute("UPDATE results SET answer = 'another' WHERE row = 22")
        connection.commit()
    assert "row 22: the answer does not fit its checksum" in only(stopped).message


def test_a_journal_without_its_wal_is_found_out(stopped):
    Layout(stopped).database.with_name("journal.db-wal").unlink()
    # What is left is an earlier state, whole in itself: only the note beside it tells of the last answers.
    assert "has lost what was committed to it" in only(stopped).message
    Layout(stopped).witness.unlink()
    found = audit(stopped)
    assert found.is_whole
    assert (found.ok, found.failed, found.in_journal) == (19, 1, 0)


def test_totals_that_do_not_fit_are_named(kit, whole):
    with closing(kit.raw(Layout(whole).database)) as connection:
        connection.execute("UPDATE totals SET prompt_tokens = prompt_tokens + 1")
        connection.commit()
    found = only(whole)
    assert "prompt tokens: 401 are counted, 400 are there" in found.message


def test_a_manifest_that_says_too_much_is_named(whole):
    rewrite(whole, lambda told: told["counts"].update(ok=ROWS, failed=0))
    assert "counts 40 answers and 0 failures; 38 and 2 are there" in only(whole).message


def test_counts_that_do_not_add_up_are_named(whole):
    rewrite(whole, lambda told: told["counts"].update(pending=1))
    assert "are not 40" in only(whole).message


def test_a_damaged_manifest_is_named(whole):
    (whole / "manifest.json").write_bytes(b"{")
    assert only(whole).path == whole / "manifest.json"


def test_a_checksum_that_the_manifest_tells_otherwise_is_named(whole):
    def change(told):
        told["parts"]["output"][0]["sha256"] = "0" * 64

    rewrite(whole, change)
    assert "than the journal" in only(whole).message


def test_rows_that_are_there_twice_are_named(kit, whole):
    """By a part that the journal was made to list by hand."""
    first = parts(whole)[0]
    twin = first.with_name("part-00000099-" + "0" * 32 + ".parquet")
    shutil.copy(first, twin)
    with closing(kit.raw(Layout(whole).database)) as connection:
        connection.execute(
            "INSERT INTO parts (kind, name, state, hi_seq, rows, bytes, sha256, min_row, max_row)"
            " SELECT kind, ?, state, hi_seq, rows, bytes, sha256, min_row, max_row FROM parts WHERE name = ?",
            (twin.name, first.name),
        )
        connection.execute("UPDATE meta SET value = '0' WHERE name = 'complete'")
        connection.commit()
    found = audit(whole)
    assert [finding.path for finding in found.row_faults] == [twin]
    assert "row 0 has an outcome already" in found.row_faults[0].message


def test_rows_out_of_order_are_named(kit, whole):
    """In a part that was made by hand, with a checksum to fit."""
    path = parts(whole)[0]
    table = pq.read_table(path)
    order = pa.array([1, 0, *range(2, table.num_rows)])
    pq.write_table(table.take(order), path, compression="zstd")
    with closing(kit.raw(Layout(whole).database)) as connection:
        connection.execute(
            "UPDATE parts SET bytes = ?, sha256 = ? WHERE name = ?",
            (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), path.name),
        )
        connection.commit()
    found = audit(whole)
    assert "row 0 stands behind a later one" in found.row_faults[0].message


def test_a_row_beyond_the_input_is_named(whole):
    rewrite(whole, lambda told: told["counts"].update(rows=39, pending=0))
    assert any("row 39 is beyond the input's last one" in message for _, message in messages(whole))


def test_what_a_killed_run_left_half_done_is_no_damage(kit, out, crash):
    for point in ("after_tmp", "after_link", "after_part_commit", "before_manifest", "before_unlink"):
        place = out / point
        assert crash(out=str(place), phase="complete", point=point, nth=1) == -9
        found = audit(place)
        assert found.is_whole, (point, found.findings)
        assert (found.ok, found.failed) == (kit.ROWS - 2, 2)
