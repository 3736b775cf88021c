import pytest
from registry_rig import POOL

from batchllm.limit.member import Member
from batchllm.limit.sharing import NOT_YET, Report, Standing

STANDING = Standing(0.5, 10.0, quiet_until_s=20.0, next_free_s=3.0, others=1)


@pytest.fixture
def wakes() -> list[bool]:
    return []


@pytest.fixture
def member(wakes: list[bool]) -> Member:
    return Member(POOL, Report(), lambda member, is_leaving: wakes.append(is_leaving))


def test_a_report_waits_for_the_next_beat_unless_it_brings_a_longer_silence(
    member: Member, wakes: list[bool]
) -> None:
    member.stand(STANDING)
    member.report(Report(demand=0.1, next_free_s=99.0, quiet_until_s=20.0))
    assert wakes == []
    member.report(Report(quiet_until_s=21.0))
    assert wakes == [False]
    member.report(Report(quiet_until_s=21.0))
    assert wakes == [False]
    assert member.reported == Report(quiet_until_s=21.0)


def test_who_leaves_leaves_once(member: Member, wakes: list[bool]) -> None:
    member.leave()
    member.leave()
    assert wakes == [True]


def test_a_share_is_lowered_alone_and_never_raised(member: Member) -> None:
    member.stand(STANDING)
    member.lower(0.7)
    assert member.standing is STANDING
    member.lower(0.2)
    assert member.standing == Standing(0.2, 10.0, quiet_until_s=20.0, next_free_s=3.0, others=1)


def test_a_longer_lease_is_no_change(member: Member) -> None:
    assert member.standing is NOT_YET
    assert member.stand(STANDING)
    assert not member.stand(STANDING)
    assert not member.stand(Standing(0.5, 11.0, quiet_until_s=20.0, next_free_s=3.0, others=1))
    assert member.standing.lease_until_s == 11.0
    assert member.stand(Standing(0.5, 11.0, quiet_until_s=21.0, next_free_s=3.0, others=1))
