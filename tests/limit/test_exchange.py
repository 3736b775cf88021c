"""The transaction by itself, cut from what follows it: the loop may read the standing at any moment between."""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from registry_rig import POOL, a_process

from batchllm.limit.exchange import Moment, Turn, exchange
from batchllm.limit.limits_file import LimitsFile, fill_limits_file, open_limits_file
from batchllm.limit.member import Member
from batchllm.limit.processes import Process
from batchllm.limit.shares import wanted_part
from batchllm.limit.sharing import Learned, Report
from batchllm.limit.state_folder import create, newest

LEASE_S = 3.0
NAME = b"pool"


def a_file(folder: Path) -> LimitsFile:
    create(folder, None, fill_limits_file)
    current = newest(folder)
    assert current is not None
    return open_limits_file(current)


def a_member(demand: float = math.inf) -> Member:
    return Member(POOL, Report(demand=demand), lambda member, is_leaving: None)


@dataclass
class Seat:
    member: Member
    process: Process
    unheard: list[Turn] = field(default_factory=list)


def commit(file: LimitsFile, seat: Seat, now_s: float, wall_s: float = 0.0) -> Turn:
    with file.transaction():
        turns = exchange(file, {seat.member: NAME}, Moment(now_s, wall_s, seat.process, LEASE_S))
    return turns[seat.member]


class Interleaved(RuleBasedStateMachine):
    """Commits, and the moments when their members hear of them, in any order that one thread each allows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.file = a_file(self.folder)
        self.now_s = 100.0
        self.seats: list[Seat] = []
        self.count = 0

    def teardown(self) -> None:
        self.file.close()
        shutil.rmtree(self.folder)

    @precondition(lambda self: len(self.seats) < 3)
    @rule()
    def join(self) -> None:
        self.count += 1
        self.seats.append(Seat(a_member(), a_process(self.count)))

    @precondition(lambda self: any(not seat.unheard for seat in self.seats))
    @rule(data=st.data(), demand=st.sampled_from([0.0, 0.2, math.inf]))
    def commit(self, data: st.DataObject, demand: float) -> None:
        seat = data.draw(st.sampled_from([seat for seat in self.seats if not seat.unheard]))
        seat.member.report(Report(demand=demand))
        seat.unheard.append(commit(self.file, seat, self.now_s))

    @precondition(lambda self: any(seat.unheard for seat in self.seats))
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from([seat for seat in self.seats if seat.unheard]))
        seat.member.stand(seat.unheard.pop().standing)

    @rule(seconds=st.sampled_from([0.5, 1.6, 3.1]))
    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def together_they_never_have_more_than_the_limit(self) -> None:
        assert sum(seat.member.standing.share_at(self.now_s) for seat in self.seats) <= 1.0 + 1e-9

    @invariant()
    def the_table_never_promises_more_than_the_limit(self) -> None:
        with self.file.transaction():
            assert sum(line.granted for line in self.file.lines()) <= 1.0 + 1e-9


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_share_that_sinks_has_sunk_when_the_commit_returns_and_one_that_rises_has_not(
    tmp_path: Path,
) -> None:
    file = a_file(tmp_path)
    one, two = Seat(a_member(), a_process(1)), Seat(a_member(), a_process(2))
    one.member.stand(commit(file, one, 100.0).standing)
    two.member.stand(commit(file, two, 100.0).standing)
    commit(file, one, 101.0)
    risen = commit(file, two, 101.0).standing
    assert (one.member.standing.share, one.member.standing.lease_until_s) == (0.5, 100.0 + LEASE_S)
    assert (two.member.standing.share, risen.share) == (0.0, 0.5)
    file.close()


def test_what_was_learned_is_told_once_and_known_to_who_comes_next(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    seat = Seat(a_member(), a_process(1))
    assert commit(file, seat, 100.0).told is None
    seat.member.report(Report(learned=Learned(rpm=5.0)))
    seat.member.stored_learned = commit(file, seat, 100.5, wall_s=50.0).told
    assert seat.member.stored_learned == Learned(rpm=5.0)
    assert commit(file, seat, 101.0, wall_s=80_000.0).learned == Learned(rpm=5.0)
    assert commit(file, seat, 101.5, wall_s=50.0 + 86_400.0).learned is None
    file.close()


def test_the_line_says_what_is_wanted_and_until_when(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    commit(file, Seat(a_member(0.1), a_process(1)), 100.0)
    (line,) = file.lines()
    assert (line.pool, line.process, line.lease_until_s) == (NAME, a_process(1), 100.0 + LEASE_S)
    assert line.wanted == wanted_part(0.1, 0.0)
    file.close()
