import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from registry_rig import PACE, POOL, Peer, a_process

from batchllm.limit.limits_file import FORMAT, fill_limits_file
from batchllm.limit.member import Member
from batchllm.limit.pool import Pool
from batchllm.limit.processes import Process
from batchllm.limit.registry import Pace
from batchllm.limit.shares import fair_shares, wanted_part
from batchllm.limit.sharing import Learned, Report
from batchllm.limit.state_folder import create, newest
from batchllm.testing import SteppedClock


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def shares(*members: Member) -> list[float]:
    return [member.standing.share for member in members]


def beat(*peers: Peer) -> None:
    for peer in peers:
        peer.registry.beat()


def test_who_is_alone_has_the_whole_limit_at_once(tmp_path: Path, clock: SteppedClock) -> None:
    member = Peer(tmp_path, clock, 1).join()
    assert member.standing.share_at(clock.monotonic_s()) == 1.0
    assert member.standing.others == 0


def test_a_newcomer_sends_nothing_before_the_others_have_made_room(
    tmp_path: Path, clock: SteppedClock
) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    assert shares(one, two) == [1.0, 0.0]
    assert second.registry.pause_s == PACE.hungry_s
    beat(second)
    assert shares(one, two) == [1.0, 0.0]
    beat(first, second)
    assert shares(one, two) == [0.5, 0.5]
    assert (one.standing.others, two.standing.others) == (1, 1)
    assert second.registry.pause_s == PACE.beat_s


def test_what_a_leaver_had_is_the_others_at_their_next_beat(tmp_path: Path, clock: SteppedClock) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    beat(first, second)
    one.leave()
    one.leave()
    assert one.standing.share == 0.0
    beat(second)
    assert two.standing.share == 1.0
    assert first.registry.pause_s == math.inf


def test_a_member_that_wants_little_gives_the_rest_and_gets_it_back(
    tmp_path: Path, clock: SteppedClock
) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    one.report(Report(demand=0.08))
    beat(first, second)
    assert shares(one, two) == pytest.approx([0.1, 0.9])
    one.report(Report(demand=math.inf, used=0.1))
    beat(first, second, first)
    assert shares(one, two) == pytest.approx([0.5, 0.5])


def test_lanes_of_one_process_share_as_well_and_other_pools_do_not_matter(
    tmp_path: Path, clock: SteppedClock
) -> None:
    peer = Peer(tmp_path, clock, 1)
    one, two, other = peer.join(), peer.join(), peer.join(pool=Pool(POOL.base_url, "m-2", POOL.api_key))
    beat(peer, peer)
    assert shares(one, two, other) == [0.5, 0.5, 1.0]
    assert other.standing.others == 0


def test_the_lease_of_who_does_not_beat_runs_out_and_the_others_take_its_share(
    tmp_path: Path, clock: SteppedClock
) -> None:
    stopped, running = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = stopped.join(), running.join()
    beat(stopped, running)
    clock.advance(PACE.lease_s - 0.001)
    beat(running)
    assert [one.standing.share_at(clock.now_s), two.standing.share] == [0.5, 0.5]
    clock.advance(0.001)
    beat(running)
    assert [one.standing.share_at(clock.now_s), two.standing.share] == [0.0, 1.0]
    beat(stopped)
    assert one.standing.share_at(clock.now_s) == 0.0
    beat(running, stopped)
    assert shares(one, two) == [0.5, 0.5]


def test_what_a_killed_process_had_is_free_at_the_next_beat(tmp_path: Path, clock: SteppedClock) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = Process("boot", "here", os.getpid(), "")
    killed = Peer(tmp_path, clock, 1, process=Process("boot", "here", child.pid, ""))
    running = Peer(tmp_path, clock, 2, process=here)
    killed.join()
    assert running.join().standing.share == 1.0


def test_lines_from_before_the_machine_started_mean_nothing(tmp_path: Path, clock: SteppedClock) -> None:
    before = Peer(tmp_path, clock, 1, process=Process("earlier", "", os.getpid(), ""))
    before.join().report(Report(quiet_until_s=clock.now_s + 60, next_free_s=clock.now_s + 5))
    beat(before)
    standing = Peer(tmp_path, clock, 2).join().standing
    assert (standing.share, standing.quiet_until_s, standing.next_free_s) == (1.0, 0.0, 0.0)


def test_where_no_boot_has_a_name_moments_that_cannot_be_mean_nothing(
    tmp_path: Path, clock: SteppedClock
) -> None:
    clock.advance(1e7)
    before = Peer(tmp_path, clock, 1, process=Process("", "", os.getpid(), "1"))
    before.join().report(Report(quiet_until_s=clock.now_s + 60, next_free_s=clock.now_s + 5))
    beat(before)
    clock.advance(-1e7)
    standing = Peer(tmp_path, clock, 2, process=Process("", "", os.getpid(), "2")).join().standing
    assert (standing.share, standing.quiet_until_s, standing.next_free_s) == (1.0, 0.0, 0.0)


def test_a_longer_silence_is_told_at_once_and_kept_for_all(tmp_path: Path, clock: SteppedClock) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    one.report(Report(quiet_until_s=clock.now_s + 7))
    assert first.is_asked
    first.is_asked = False
    one.report(Report(quiet_until_s=clock.now_s + 7))
    two.report(Report(quiet_until_s=clock.now_s + 3))
    beat(second, first)
    assert not first.is_asked
    assert one.standing.quiet_until_s == two.standing.quiet_until_s == clock.now_s + 7
    first.registry.close()
    second.registry.close()
    assert Peer(tmp_path, clock, 3).join().standing.quiet_until_s == clock.now_s + 7


def test_who_starts_again_begins_after_the_slots_that_were_taken(tmp_path: Path, clock: SteppedClock) -> None:
    peer = Peer(tmp_path, clock, 1)
    peer.join().report(Report(next_free_s=clock.now_s + 2.5))
    beat(peer)
    peer.registry.close()
    assert Peer(tmp_path, clock, 2).join().standing.next_free_s == clock.now_s + 2.5


@pytest.mark.parametrize("absurd", [math.nan, -1.0, -math.inf])
def test_a_moment_that_is_none_is_no_moment(tmp_path: Path, clock: SteppedClock, absurd: float) -> None:
    peer = Peer(tmp_path, clock, 1)
    member = peer.join()
    member.report(Report(next_free_s=absurd, quiet_until_s=absurd))
    beat(peer)
    assert (member.standing.next_free_s, member.standing.quiet_until_s) == (0.0, 0.0)


@pytest.mark.parametrize("absurd", [1e30, math.inf])
def test_no_silence_is_longer_than_a_day(tmp_path: Path, clock: SteppedClock, absurd: float) -> None:
    peer = Peer(tmp_path, clock, 1)
    member = peer.join()
    member.report(Report(next_free_s=absurd, quiet_until_s=absurd))
    beat(peer)
    assert member.standing.quiet_until_s == member.standing.next_free_s == clock.now_s + 86_400


def learn(folder: Path, clock: SteppedClock, learned: Learned) -> None:
    peer = Peer(folder, clock, 1)
    member = peer.join()
    member.report(Report(learned=learned))
    beat(peer)
    peer.registry.close()


def test_what_a_run_learned_is_known_to_the_next_for_a_day(tmp_path: Path, clock: SteppedClock) -> None:
    learned = Learned(rpm=3_000.0, tpm=None, concurrency=12.0)
    assert Peer(tmp_path, clock, 2).join().learned is None
    learn(tmp_path, clock, learned)
    clock.advance(86_399)
    assert Peer(tmp_path, clock, 2).join().learned == learned
    clock.advance(2)
    assert Peer(tmp_path, clock, 3).join().learned is None


def test_what_was_learned_does_not_stay_fresh_by_being_said_again(
    tmp_path: Path, clock: SteppedClock
) -> None:
    peer = Peer(tmp_path, clock, 1)
    peer.join().report(Report(learned=Learned(rpm=60.0)))
    for _ in range(3):
        beat(peer)
        clock.advance(43_200)
    assert Peer(tmp_path, clock, 2).join().learned is None


def test_what_is_no_limit_is_not_learned(tmp_path: Path, clock: SteppedClock) -> None:
    learn(tmp_path, clock, Learned(rpm=math.inf, tpm=-5.0, concurrency=math.nan))
    assert Peer(tmp_path, clock, 2).join().learned is None
    learn(tmp_path, clock, Learned(rpm=0.0, tpm=90_000.0))
    assert Peer(tmp_path, clock, 3).join().learned == Learned(tpm=90_000.0)


def test_the_loop_is_told_of_a_change_and_not_of_each_beat(tmp_path: Path, clock: SteppedClock) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one = first.join()
    heard: list[float] = []
    one.watch(lambda: heard.append(one.standing.share))
    clock.advance(0.5)
    beat(first)
    second.join()
    beat(first, first)
    assert heard == [0.5]
    assert one.standing.lease_until_s == clock.now_s + PACE.lease_s


def test_no_key_reaches_the_folder(tmp_path: Path, clock: SteppedClock) -> None:
    peer = Peer(tmp_path, clock, 1)
    peer.join().report(Report(learned=Learned(rpm=1.0)))
    beat(peer)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(content) > 4_096
    assert b"canary" not in content
    assert b"example" not in content


# What can be wrong with the file


def test_a_damaged_file_is_left_and_followed_and_that_is_said_once(
    tmp_path: Path, clock: SteppedClock
) -> None:
    (tmp_path / "limits.db").write_bytes(b"no database " * 1_000)
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    assert [text for text in first.said if "limits.db is damaged" in text] == first.said != []
    assert second.said == []
    assert shares(one, two) == [0.0, 0.0]  # whoever had the old one open may hold a lease
    for _ in range(2):
        clock.advance(PACE.lease_s / 2)
        beat(first, second)
    assert shares(one, two) == [0.5, 0.5]
    assert (tmp_path / "limits.db").read_bytes().startswith(b"no database")


def test_nobody_grants_in_a_new_file_before_the_leases_of_the_old_one_are_over(
    tmp_path: Path, clock: SteppedClock
) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one = first.join()
    create(tmp_path, newest(tmp_path), fill_limits_file)
    two = second.join()
    clock.advance(PACE.lease_s - 0.01)
    beat(second)
    assert [one.standing.share_at(clock.now_s), two.standing.share] == [1.0, 0.0]
    clock.advance(0.01)
    beat(second)
    assert [one.standing.share_at(clock.now_s), two.standing.share] == [0.0, 1.0]
    beat(first, second, first)
    assert shares(one, two) == [0.5, 0.5]
    assert second.said == []


def test_a_file_that_somebody_removed_is_made_anew(tmp_path: Path, clock: SteppedClock) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, two = first.join(), second.join()
    beat(first, second)
    for path in tmp_path.glob("limits.db*"):
        path.unlink()
    beat(first, second, first, second)
    assert shares(one, two) == [0.5, 0.5]
    assert first.said == second.said == []


def test_a_newer_file_is_left_alone_and_that_is_said_once(tmp_path: Path, clock: SteppedClock) -> None:
    Peer(tmp_path, clock, 1).join()
    with closing(sqlite3.connect(tmp_path / "limits.db")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    peer = Peer(tmp_path, clock, 2)
    member = peer.join()
    assert member.standing.share_at(clock.now_s + 1e9) == 1.0
    clock.advance(PACE.retry_s)
    beat(peer, peer)
    assert len(peer.said) == 1
    assert f"format {FORMAT + 1}" in peer.said[0]
    assert "use one version of batchllm" in peer.said[0]


def test_without_a_place_for_the_file_the_run_goes_on_and_tries_again_later(
    tmp_path: Path, clock: SteppedClock
) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")
    peer = Peer(folder, clock, 1)
    member = peer.join()
    assert member.standing.share_at(clock.now_s + 1e9) == 1.0
    assert len(peer.said) == 1
    assert "BATCHLLM_STATE_DIR" in peer.said[0]
    later = peer.join()
    assert later.standing.share_at(clock.now_s + 1e9) == 1.0, "who comes while it is unusable goes on, too"
    folder.unlink()
    beat(peer)
    assert not folder.exists()
    clock.advance(PACE.retry_s)
    beat(peer)
    assert member.standing.share_at(clock.now_s) == later.standing.share_at(clock.now_s) == 0.5
    assert member.standing.lease_until_s == clock.now_s + PACE.lease_s


def test_a_network_file_system_is_not_touched(tmp_path: Path, clock: SteppedClock) -> None:
    peer = Peer(tmp_path, clock, 1, is_network=lambda path: True)
    assert peer.join().standing.share == 1.0
    assert "network file system" in peer.said[0]
    assert list(tmp_path.iterdir()) == []


def test_whoever_loses_the_file_while_running_keeps_what_it_had(tmp_path: Path, clock: SteppedClock) -> None:
    first, second = Peer(tmp_path, clock, 1), Peer(tmp_path, clock, 2)
    one, _ = first.join(), second.join()
    beat(first, second)
    shutil.rmtree(tmp_path)
    tmp_path.write_text("in the way")
    beat(first)
    assert one.standing.share_at(clock.now_s + 1e9) == 0.5
    assert len(first.said) == 1


@pytest.fixture
def locked(tmp_path: Path, clock: SteppedClock) -> Iterator[tuple[Peer, Member, sqlite3.Connection]]:
    """A file whose lock another program has taken and keeps."""
    peer = Peer(tmp_path, clock, 1)
    member = peer.join()
    with closing(sqlite3.connect(tmp_path / "limits.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield peer, member, connection


def test_a_beat_that_finds_the_file_locked_is_skipped_and_made_up_for(
    locked: tuple[Peer, Member, sqlite3.Connection], clock: SteppedClock
) -> None:
    peer, member, connection = locked
    clock.advance(0.5)
    beat(peer)
    assert peer.registry.skipped == 1
    assert peer.registry.pause_s == PACE.hungry_s
    assert member.standing.lease_until_s == clock.now_s - 0.5 + PACE.lease_s
    connection.execute("ROLLBACK")
    beat(peer)
    assert member.standing.lease_until_s == clock.now_s + PACE.lease_s
    assert (peer.registry.pause_s, peer.said) == (PACE.beat_s, [])


def test_a_file_that_stays_locked_is_followed_when_all_its_leases_are_over(
    locked: tuple[Peer, Member, sqlite3.Connection], tmp_path: Path, clock: SteppedClock
) -> None:
    peer, member, _ = locked
    newcomer = Peer(tmp_path, clock, 2)
    late = newcomer.join()
    assert late.standing.share_at(clock.now_s) == 0.0
    beat(peer)
    clock.advance(PACE.lease_s - 0.01)
    beat(peer, newcomer)
    assert newest(tmp_path).number == 0  # type: ignore[union-attr]
    clock.advance(0.01)
    beat(newcomer)
    assert newest(tmp_path).number == 1  # type: ignore[union-attr]
    assert "is locked by a program that does not move" in newcomer.said[0]
    beat(peer, newcomer)
    assert [one.standing.share_at(clock.now_s) for one in (member, late)] == [0.0, 0.0]
    assert peer.said == []
    for _ in range(3):
        beat(peer, newcomer)
        clock.advance(PACE.lease_s / 2)
    beat(peer, newcomer)
    assert shares(member, late) == [0.5, 0.5]


def test_a_disk_that_damages_each_new_file_is_given_up(tmp_path: Path, clock: SteppedClock) -> None:
    peer = Peer(tmp_path, clock, 1)
    member = peer.join()
    for _ in range(10):
        if member.standing.lease_until_s == math.inf:
            break
        with closing(sqlite3.connect(newest(tmp_path).path)) as connection:  # type: ignore[union-attr]
            connection.execute("DROP TABLE members")
        beat(peer, peer)
    assert member.standing.lease_until_s == math.inf
    assert any("limits are not shared" in text for text in peer.said)


class Crowd(RuleBasedStateMachine):
    """Members come, go, die, stop and change their minds while their file is replaced under them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.clock = SteppedClock()
        self.count = 0
        self.members: list[tuple[Peer, Member]] = []

    def teardown(self) -> None:
        for peer, _ in self.members:
            peer.registry.close()
        shutil.rmtree(self.folder)

    @precondition(lambda self: len(self.members) < 6)
    @rule(demand=st.sampled_from([0.0, 0.1, 0.3, math.inf]))
    def join(self, demand: float) -> None:
        self.count += 1
        peer = Peer(self.folder, self.clock, self.count)
        self.members.append((peer, peer.join(demand)))

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.members))[0].registry.beat()

    @precondition(lambda self: self.members)
    @rule(data=st.data(), demand=st.sampled_from([0.0, 0.1, 0.3, math.inf]))
    def want(self, data: st.DataObject, demand: float) -> None:
        data.draw(st.sampled_from(self.members))[1].report(Report(demand=demand))

    @precondition(lambda self: self.members)
    @rule(data=st.data(), is_killed=st.booleans())
    def end(self, data: st.DataObject, is_killed: bool) -> None:
        index = data.draw(st.integers(0, len(self.members) - 1))
        _, member = self.members.pop(index)
        if not is_killed:
            member.leave()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.5, 3.1]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: newest(self.folder) is not None)
    @rule()
    def replace_file(self) -> None:
        create(self.folder, newest(self.folder), fill_limits_file)

    @rule()
    def settle(self) -> None:
        """A few rounds without disturbance end with a fair share for everybody."""
        for _ in range(8):
            self.clock.advance(0.5)
            beat(*(peer for peer, _ in self.members))
        beat(*(peer for peer, _ in self.members))
        due = fair_shares([wanted_part(member.reported.demand, 0.0) for _, member in self.members])
        assert shares(*(member for _, member in self.members)) == pytest.approx(due, abs=1e-6)
        assert all(share > 0 for share in due)

    @invariant()
    def together_they_never_have_more_than_the_limit(self) -> None:
        now_s = self.clock.monotonic_s()
        assert sum(member.standing.share_at(now_s) for _, member in self.members) <= 1.0 + 1e-9


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=25, stateful_step_count=30)


def test_the_pace_can_be_chosen(tmp_path: Path, clock: SteppedClock) -> None:
    member = Peer(tmp_path, clock, 1, pace=Pace(lease_s=1.0)).join()
    assert member.standing.lease_until_s == clock.now_s + 1.0


def test_processes_of_a_test_are_not_each_other() -> None:
    assert a_process(1) != a_process(2)
