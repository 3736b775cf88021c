"""One beat's transaction: read all lines, remove the dead, take what is due and free, add to what the pool knows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from batchllm.limit.limits_file import LimitsFile, Line, Opening, PoolFacts
from batchllm.limit.member import Member
from batchllm.limit.processes import Process, is_gone
from batchllm.limit.shares import Claim, Grant, next_grant, wanted_part
from batchllm.limit.sharing import Learned, Report, Standing

_DAY_S = 86_400.0
#: Nobody is asked for silence, and nobody has taken slots, for longer than a day: the longest window of a provider.
_FARTHEST_S = _DAY_S
#: A lease or an opening later than this was written before the machine last started, where no boot is named.
_LONGEST_LEASE_S = 60.0
_LEARNED_KEPT_S = _DAY_S
_POOL_KEPT_S = 30 * _DAY_S


@dataclass(frozen=True, slots=True)
class Moment:
    """When and where a beat happens. `now_s` was read inside the transaction, so no line is younger."""

    now_s: float
    wall_s: float
    process: Process
    lease_s: float


class Turn(NamedTuple):
    """What a beat brought for one member: valid once it is committed, in the file that everyone uses."""

    standing: Standing
    is_short: bool
    learned: Learned | None  # what the pool knew before, if that is fresh
    told: Learned | None  # what this beat added


@dataclass(slots=True)
class _Seat:
    """A member at the table. Its report is read once: the loop may replace it at any moment."""

    member: Member
    report: Report
    line: Line
    grant: Grant


def exchange(file: LimitsFile, members: Mapping[Member, bytes], moment: Moment) -> dict[Member, Turn]:
    """Within a transaction of `file`. `members` come with the names of their pools.

    A share that sinks is told to its member here, before the commit: after it others may take what is given up.
    """
    lines = _living(file, moment)
    seats = [_seat(file, lines, member, pool, moment) for member, pool in members.items()]
    is_closed = _is_closed(file, moment)
    for seat in seats:
        _take(seat, lines.values(), is_closed=is_closed)
        seat.member.lower(seat.grant.granted)
    file.store([seat.line for seat in seats])
    turns = {}
    for pool in set(members.values()):
        others = sum(line.pool == pool for line in lines.values()) - 1
        turns.update(_turns(file, pool, [seat for seat in seats if seat.line.pool == pool], others, moment))
    return turns


def _living(file: LimitsFile, moment: Moment) -> dict[int, Line]:
    """All lines but those of the dead, which are removed; one's own too, if its lease is over: it begins anew."""
    judged: dict[Process, bool] = {moment.process: False}
    living, dead = {}, []
    for line in file.lines():
        is_leased = moment.now_s < line.lease_until_s <= moment.now_s + _LONGEST_LEASE_S
        if not is_leased or _is_gone(line.process, moment.process, judged):
            dead.append(line.member)
        else:
            living[line.member] = line
    if dead:
        file.remove(dead)
    return living


def _is_gone(process: Process, here: Process, judged: dict[Process, bool]) -> bool:
    if process not in judged:
        judged[process] = is_gone(process, here)
    return judged[process]


def _seat(file: LimitsFile, lines: dict[int, Line], member: Member, pool: bytes, moment: Moment) -> _Seat:
    """With the member's line; a new one, that holds nothing yet, for who is new or was taken for dead."""
    report = member.reported
    if member.number is None or member.number not in lines:
        line = Line(0, pool, moment.process, moment.now_s, 0.0, 0.0)
        line.member = member.number = file.add(line)
        lines[line.member] = line
    line = lines[member.number]
    line.lease_until_s = moment.now_s + moment.lease_s
    line.wanted = wanted_part(report.demand, report.used)
    return _Seat(member, report, line, Grant(line.granted, line.granted))


def _take(seat: _Seat, lines: Iterable[Line], *, is_closed: bool) -> None:
    """One member after the other, each seeing what the one before it holds."""
    own = seat.line
    others = [Claim(line.wanted, line.granted) for line in lines if line.pool == own.pool and line is not own]
    grant = next_grant(own.wanted, others)
    seat.grant = grant._replace(granted=0.0) if is_closed else grant
    own.granted = seat.grant.granted


def _is_closed(file: LimitsFile, moment: Moment) -> bool:
    """Whether this file followed another whose last leases may not be over. The first to ask starts the wait."""
    if file.generation.number == 0:
        return False
    boot, now_s = moment.process.boot, moment.now_s
    opening = file.opening()
    if opening.opens_s is None:
        opening = Opening(boot, now_s + moment.lease_s)
        file.set_opening(opening)
    opens_s = opening.opens_s or 0.0
    return opening.boot == boot and now_s < opens_s <= now_s + _LONGEST_LEASE_S


def _turns(
    file: LimitsFile, pool: bytes, seats: Sequence[_Seat], others: int, moment: Moment
) -> dict[Member, Turn]:
    """Of the members of one pool; what they know is added to what the pool knows."""
    before = _facts(file, pool, moment)
    reports = [seat.report for seat in seats]
    after = before._replace(
        next_free_s=_latest([before.next_free_s, *(report.next_free_s for report in reports)], moment),
        quiet_until_s=_latest([before.quiet_until_s, *(report.quiet_until_s for report in reports)], moment),
        seen_wall_s=moment.wall_s,
    )
    for seat in seats:
        learned = seat.report.learned
        if learned is not None and learned != seat.member.stored_learned:
            after = after._replace(learned=_positive(learned), learned_wall_s=moment.wall_s)
    file.store_facts(pool, after)
    is_fresh = abs(moment.wall_s - before.learned_wall_s) < _LEARNED_KEPT_S and before.learned != Learned()
    learned = before.learned if is_fresh else None
    return {
        seat.member: Turn(
            Standing(
                seat.grant.granted, seat.line.lease_until_s, after.quiet_until_s, after.next_free_s, others
            ),
            seat.grant.is_short,
            learned,
            seat.report.learned,
        )
        for seat in seats
    }


def _facts(file: LimitsFile, pool: bytes, moment: Moment) -> PoolFacts:
    """What is known of a pool; moments from before the machine last started mean nothing any more."""
    boot = moment.process.boot
    found = file.facts(pool)
    if found is None:
        file.forget_pools(moment.wall_s - _POOL_KEPT_S)  # only now does the table grow
        return PoolFacts(boot, 0.0, 0.0, Learned(), 0.0, moment.wall_s)
    learned = _positive(found.learned)
    if found.boot != boot:
        return found._replace(boot=boot, next_free_s=0.0, quiet_until_s=0.0, learned=learned)
    farthest_s = moment.now_s + _FARTHEST_S  # later: from before a start that no boot names
    next_free_s = found.next_free_s if found.next_free_s <= farthest_s else 0.0
    quiet_until_s = found.quiet_until_s if found.quiet_until_s <= farthest_s else 0.0
    return found._replace(next_free_s=next_free_s, quiet_until_s=quiet_until_s, learned=learned)


def _latest(moments_s: Sequence[float], moment: Moment) -> float:
    """The latest of them within a day; no number is no moment."""
    latest_s = max((at_s for at_s in moments_s if not math.isnan(at_s)), default=0.0)
    return min(max(0.0, latest_s), moment.now_s + _FARTHEST_S)


def _positive(learned: Learned) -> Learned:
    """Without what is no limit: zero, below zero, infinite, no number."""
    return Learned(*(_maybe_positive(value) for value in (learned.rpm, learned.tpm, learned.concurrency)))


def _maybe_positive(value: float | None) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
