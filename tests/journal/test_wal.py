"""What a disk did to the WAL of a killed run is told; what a power cut leaves of it is not mistaken for damage."""

import asyncio
import os
import random
import shutil
import sqlite3
import struct
from contextlib import closing, contextmanager

import pytest

from batchllm.errors import StorageError
from batchllm.journal.audit import audit
from batchllm.journal.files import Layout, wal_of
from batchllm.journal.rebuilding import Owner, rebuild
from batchllm.journal.space import DiskRules
from batchllm.journal.tuning import Tuning
from batchllm.journal.wal import check_wal, find_break, mend

ROWS = 24
BATCH = 4
FRAME = 24 + 8192


@pytest.fixture
def states(kit, out):
    """The folder as it lies there after each commit of four rows: what a kill leaves at that moment."""
    loop = asyncio.new_event_loop()
    journal = kit.open_journal(out, tuning=Tuning())
    copies = []
    try:
        journal.start(loop)
        for start in range(0, ROWS, BATCH):
            rows = range(start, start + BATCH)
            journal.put([record for row in rows for record in (kit.attempt(row), kit.done(row))])
            loop.run_until_complete(journal.flush())
            copies.append(out.with_name(f"after-{start + BATCH}"))
            shutil.copytree(out, copies[-1])
    finally:
        loop.run_until_complete(journal.close(clean=False, exit_code=0))
        loop.close()
    return copies


@pytest.fixture
def killed(states):
    return states[-1]


def database(out):
    return Layout(out).database


def opened(kit, out):
    """Rows that are known as finished, and what was said."""
    said = []
    journal = kit.open_journal(out, tuning=Tuning(disk=DiskRules(say=said.append)))
    found = [row for row in range(ROWS) if journal.finished.has(row)]
    asyncio.run(journal.close(clean=False, exit_code=0))
    return found, said


def rebuilt(kit, out):
    owner = Owner(kit.IDENTITY, kit.LANES, 1, kit.ChatTask(), kit.Shape())
    return rebuild(out, owner, clock=kit.Clock(), drops_missing=False)


def flipped(data, offset, mask):
    changed = bytearray(data)
    changed[offset] ^= mask
    return bytes(changed)


def spread(data, seed, count):
    """Bits of the header, of headers of frames early, late and between, and of anywhere."""
    dice = random.Random(seed)
    last = (len(data) - 32) // FRAME - 1
    frames = [32 + frame * FRAME + byte for frame in (0, last // 2, last) for byte in range(0, 24, 5)]
    offsets = [*range(0, 32, 5), *frames, *(dice.randrange(len(data)) for _ in range(count))]
    return [(offset, 1 << dice.randrange(8)) for offset in offsets]


def test_the_wal_of_a_killed_run_is_whole_whenever_it_is_killed(kit, states):
    for done, state in enumerate(states, 1):
        assert wal_of(database(state)).stat().st_size > FRAME
        assert find_break(database(state)) is None
        assert opened(kit, state) == (list(range(done * BATCH)), [])


def test_every_flipped_bit_is_named_and_what_was_committed_is_never_lost_in_silence(kit, killed):
    data = wal_of(database(killed)).read_bytes()
    mended = 0
    for number, (offset, mask) in enumerate(spread(data, 7, 30)):
        out = killed.with_name(f"flip-{number}")
        shutil.copytree(killed, out)
        wal = wal_of(database(out))
        wal.write_bytes(flipped(data, offset, mask))
        found = find_break(database(out))
        assert found.is_certain, (offset, mask)
        with pytest.raises(StorageError, match=r"journal\.db-wal .*: they were committed"):
            kit.open_journal(out)
        assert wal.read_bytes() == flipped(data, offset, mask)
        assert [finding.path for finding in audit(out).findings] == [wal]
        done = rebuilt(kit, out)
        assert done.is_new
        kept, _ = opened(kit, out)
        if found.is_mendable:
            mended += 1
            assert kept == list(range(ROWS)), (offset, mask)
        shutil.rmtree(out)
    assert mended >= 25


def test_two_flipped_bits_in_two_places_are_both_turned_back(killed):
    path = wal_of(database(killed))
    data = path.read_bytes()
    for offset in (32 + 24 + 100, 32 + 3 * FRAME + 24 + 4000):
        path.write_bytes(flipped(path.read_bytes(), offset, 1))
    found = find_break(database(killed))
    assert (len(found.flips), found.is_mendable) == (2, True)
    mend(path, found.flips)
    assert path.read_bytes() == data


def test_a_bit_that_may_be_one_of_several_is_not_turned_back(killed):
    path = wal_of(database(killed))
    path.write_bytes(flipped(path.read_bytes(), 32 + 24 + 103, 0x80))
    found = find_break(database(killed))
    assert (found.is_certain, found.is_mendable, found.flips) == (True, False, ())


@pytest.mark.parametrize("sector", range(0, 40, 3))
def test_a_lost_sector_early_in_the_wal_is_certain_damage(kit, killed, sector):
    path = wal_of(database(killed))
    data = bytearray(path.read_bytes())
    data[sector * 512 : (sector + 1) * 512] = os.urandom(512)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="batchllm rebuild JOB") as caught:
        kit.open_journal(killed)
    assert "copy it as it is" in caught.value.remedy


def test_what_stands_before_the_damage_is_kept_by_a_rebuild(kit, states):
    killed, before = states[-1], wal_of(database(states[2])).stat().st_size
    path = wal_of(database(killed))
    data = bytearray(path.read_bytes())
    data[before + 24 : before + 600] = bytes(576)
    path.write_bytes(data)
    with pytest.raises(StorageError):
        kit.open_journal(killed)
    done = rebuilt(kit, killed)
    assert done.ok == 3 * BATCH
    assert any(moved.name.startswith("journal.db-wal.damaged-") for moved in done.moved)
    assert opened(kit, killed)[0] == list(range(3 * BATCH))


@pytest.mark.parametrize("seed", range(30))
def test_a_power_cut_in_a_commit_loses_that_commit_alone_and_refuses_nothing(kit, states, seed):
    """Of the last transaction any sectors may be on the disk, in any order, and the note beside is older."""
    dice = random.Random(seed)
    before, after = states[-2:]
    old, new = wal_of(database(before)).read_bytes(), bytearray(wal_of(database(after)).read_bytes())
    for start in range(len(old) // 512 * 512, len(new), 512):
        if dice.random() < (0.02, 0.5, 0.98)[seed % 3]:
            first = max(start, len(old))
            new[first : start + 512] = bytes(len(new[first : start + 512]))
    wal_of(database(after)).write_bytes(new)
    shutil.copy(Layout(before).witness, Layout(after).witness)
    found, said = opened(kit, after)
    assert found[: ROWS - BATCH] == list(range(ROWS - BATCH))
    assert found in (list(range(ROWS)), list(range(ROWS - BATCH)))
    assert len(said) <= 1
    assert all("cut off" in text for text in said)


def test_the_end_of_a_wal_that_was_never_written_is_no_damage(kit, states):
    before, after = states[-2:]
    start, data = wal_of(database(before)).stat().st_size, wal_of(database(after)).read_bytes()
    for size in range(start, len(data), 512):
        wal_of(database(before)).write_bytes(data[:size])
        assert find_break(database(before)) is None
    assert opened(kit, before) == (list(range(ROWS - BATCH)), [])


@contextmanager
def plain_log(path):
    """A database of SQLite's own with a table, whose commits go to a WAL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("CREATE TABLE t (x)")
        yield connection


def test_frames_of_an_earlier_round_are_none_of_this_one(tmp_path):
    path = tmp_path / "journal.db"
    with plain_log(path) as connection:
        for _ in range(30):
            connection.execute("INSERT INTO t VALUES (randomblob(3000))")
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        size = wal_of(path).stat().st_size
        connection.execute("INSERT INTO t VALUES (1)")
        assert wal_of(path).stat().st_size == size
        assert find_break(path) is None


def test_a_power_cut_over_frames_of_an_earlier_round_is_no_damage(tmp_path):
    """What was not written is what stood there before."""
    path, other = tmp_path / "journal.db", tmp_path / "other.db"
    with plain_log(path) as connection:
        for _ in range(40):
            connection.execute("INSERT INTO t VALUES (randomblob(3000))")
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        connection.execute("INSERT INTO t VALUES (1)")
        before = wal_of(path).read_bytes()
        connection.execute("INSERT INTO t SELECT randomblob(3000) FROM t LIMIT 10")
        after = wal_of(path).read_bytes()
        shutil.copy(path, other)
        told = set()
        for seed in range(200):
            dice = random.Random(seed)
            sectors = range(0, len(after), 512)
            kept = [after if dice.random() < (0.1, 0.5, 0.95)[seed % 3] else before for _ in sectors]
            mixed = [data[start : start + 512] for data, start in zip(kept, sectors, strict=True)]
            wal_of(other).write_bytes(b"".join(mixed))
            found = find_break(other)
            told.add(None if found is None else found.is_certain)
    assert told == {None, False}


def test_what_was_rolled_back_leaves_frames_that_were_never_committed(tmp_path):
    path = tmp_path / "journal.db"
    with plain_log(path) as connection:
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("BEGIN")
        for _ in range(100):
            connection.execute("INSERT INTO t VALUES (randomblob(3000))")
        connection.execute("ROLLBACK")
        spilled = wal_of(path).stat().st_size
        connection.execute("INSERT INTO t VALUES (1)")
        assert wal_of(path).stat().st_size == spilled
        assert find_break(path) is None


def test_the_file_is_read_as_sqlite_reads_it_in_either_order_of_bytes(killed):
    """A WAL of a machine with the other order of bytes: each checksum is over words the other way round."""
    path = wal_of(database(killed))
    data = bytearray(path.read_bytes())
    data[3] |= 1
    sums = (0, 0)

    def summed(octets, sums):
        one, two = sums
        for first, second in struct.iter_unpack(">II", octets):
            one = (one + first + two) % 2**32
            two = (two + second + one) % 2**32
        return one, two

    sums = summed(data[:24], sums)
    data[24:32] = struct.pack(">II", *sums)
    for at in range(32, len(data), FRAME):
        sums = summed(data[at + 24 : at + FRAME], summed(data[at : at + 8], sums))
        data[at + 16 : at + 24] = struct.pack(">II", *sums)
    path.write_bytes(data)
    assert find_break(database(killed)) is None
    with closing(sqlite3.connect(database(killed))) as connection:
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (ROWS,)


def test_a_log_that_changes_under_the_look_is_somebody_elses(killed, monkeypatch):
    """A run whose lock was removed goes on writing, and what is half written is no damage."""
    wal_of(database(killed)).write_bytes(b"\0" * 32 + wal_of(database(killed)).read_bytes()[32:])
    with pytest.raises(StorageError, match="byte 0"):
        check_wal(database(killed), print)
    looks = iter((find_break(database(killed)), None))
    monkeypatch.setattr("batchllm.journal.wal.find_break", lambda _: next(looks))
    check_wal(database(killed), print)
