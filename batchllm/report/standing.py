"""How an output stands: from the lock, the last heartbeat and the manifest to one word, a reason and a remedy. Pure.

A lock that is held and a heartbeat that is young: the run is well, whatever it waits for, since each of its waits has
an end. Held and old, or young and of a loop that does not turn: stalled. Free, and the last heartbeat is that of a run
that had not ended: it was killed. Held by somebody else than who wrote the heartbeat: another command is at work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from batchllm.errors import ExitCode
from batchllm.journal.heartbeat import Beat, LaneBeat
from batchllm.journal.lock import Holder
from batchllm.journal.manifest import Manifest

#: Twelve heartbeats: a machine that is so busy is in trouble, too.
MAX_AGE_S = 60.0
ENDED = frozenset({"done", "stopped", "failed"})
#: The same command goes on where the run was, with nothing to be mended first.
_RESUMABLE = frozenset(
    {
        ExitCode.LIMIT_STOPPED,
        ExitCode.UNAVAILABLE,
        ExitCode.IO,
        ExitCode.TEMPFAIL,
        ExitCode.NO_PERMISSION,
        ExitCode.HANGUP,
        ExitCode.INTERRUPTED,
        ExitCode.TERMINATED,
    }
)
_GOES_ON = "`batchllm run` of the same job goes on where it was"
_ENDINGS = {
    ExitCode.LIMIT_STOPPED: "the budget was spent",
    ExitCode.DATA: "the input is wrong, or has changed",
    ExitCode.NO_INPUT: "there is no such input",
    ExitCode.UNAVAILABLE: "no provider was left that could answer",
    ExitCode.CANT_CREATE: "the output could not be written",
    ExitCode.IO: "the disk was full, or refused to read or write",
    ExitCode.NO_PERMISSION: "a provider rejected the key",
    ExitCode.CONFIG: "the job is wrong, or not the one that the output was made with",
    ExitCode.HANGUP: "stopped by SIGHUP",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C",
    ExitCode.TERMINATED: "stopped by SIGTERM",
}
_BUG = "it met a bug in batchllm"


class Now(NamedTuple):
    """Of whoever asks: both clocks, and on which start of which machine."""

    wall: float
    monotonic_s: float
    boot: str
    host: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies in an output folder. `process` is the letter that the system has for the holder's state, if any.

    `nested` are the outputs of lanes that a consensus asks beside the voters.
    """

    out: str
    holder: Holder | None
    beat: Beat | None
    manifest: Manifest | None
    process: str = ""
    notes: tuple[str, ...] = ()
    nested: tuple["Seen", ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """In units of one answer. `total` is None as long as nobody has counted the input."""

    total: int | None = None
    ok: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def finished(self) -> int:
        return self.ok + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class Standing:
    """`state` is that of the heartbeat, or one of stalled, killed, busy (another command is at work), idle (nobody is,
    and no run has said how it ended), new (no run was ever here). `started`, `since` and `until` are seconds since
    1970, `age_s` is of the last heartbeat, None without one. `code` is what `batchllm status` ends with, `ended_code`
    what the run ended with.
    """

    out: str
    state: str
    code: ExitCode
    reason: str = ""
    remedy: str = ""
    started: float | None = None
    since: float | None = None
    until: float | None = None
    age_s: float | None = None
    ended_code: int | None = None
    is_active: bool = False
    is_complete: bool = False
    is_simulated: bool = False
    job: str = ""
    pid: int | None = None
    host: str = ""
    updated: str = ""  # of the manifest
    slots: int = 1
    counts: Counts = Counts()
    rate: float | None = None
    left_s: float | None = None
    cost_usd: float | None = None
    spent_usd: float | None = None
    budget_usd: float | None = None
    reserved_usd: float | None = None
    in_flight: int = 0
    lanes: Sequence[LaneBeat] = ()
    more_lanes: int = 0
    notes: tuple[str, ...] = ()
    nested: tuple["Standing", ...] = ()


def standing(seen: Seen, now: Now, max_age_s: float = MAX_AGE_S) -> Standing:
    """Of the output with what is nested in it: as long as it is at work, it is no better than that."""
    found = _standing(seen, now, max_age_s)
    nested = tuple(_standing(one, now, max_age_s) for one in seen.nested)
    if found.is_active:
        nested = tuple(one for one in nested if one.is_active)
        stalled = next((one for one in nested if one.state == "stalled"), None)
        if stalled is not None:
            found = replace(
                found, state="stalled", code=stalled.code, reason=stalled.reason, remedy=stalled.remedy
            )
    else:
        nested = tuple(one for one in nested if one.state == "killed")
    return replace(found, nested=nested)


def _standing(seen: Seen, now: Now, max_age_s: float) -> Standing:
    beat, holder = seen.beat, seen.holder
    if holder is not None and (beat is None or not _is_by(beat, holder)):
        return _busy(seen, holder)
    if beat is None:
        return _unwatched(seen)
    if holder is None and beat.state in ENDED:
        return _ended(seen, beat)
    age_s = age_of(beat, now)
    found = _of_beat(seen, beat, age_s)
    is_elsewhere = beat.host != now.host and beat.boot != now.boot and age_s <= max_age_s
    if holder is None and not is_elsewhere:
        return _killed(found, beat, now)
    return _active(found, beat, seen.process, max_age_s)


def age_of(beat: Beat, now: Now) -> float:
    """Seconds since the heartbeat was written; a clock that was set changes nothing on the machine that wrote it."""
    if beat.boot and beat.boot == now.boot and now.monotonic_s >= beat.written_s:
        return now.monotonic_s - beat.written_s
    return max(0.0, now.wall - beat.written)


def _is_by(beat: Beat, holder: Holder) -> bool:
    return holder.pid == beat.pid and holder.started == beat.started


def _of_beat(seen: Seen, beat: Beat, age_s: float | None) -> Standing:
    is_complete = seen.manifest is not None and seen.manifest.complete
    return Standing(
        out=seen.out,
        state=beat.state,
        code=ExitCode.OK,
        reason=beat.reason,
        started=beat.started,
        since=beat.since,
        until=beat.until,
        age_s=age_s,
        ended_code=beat.code,
        is_complete=is_complete and beat.state in ENDED,
        is_simulated=beat.simulated,
        job=beat.job,
        pid=beat.pid,
        host=beat.host,
        slots=beat.slots,
        counts=Counts(beat.total or None, beat.ok, beat.failed, beat.skipped),
        rate=beat.rate,
        left_s=beat.left_s,
        cost_usd=beat.cost_usd,
        spent_usd=beat.spent_usd,
        budget_usd=beat.budget_usd,
        reserved_usd=beat.reserved_usd,
        in_flight=beat.in_flight,
        lanes=beat.lanes,
        more_lanes=beat.more_lanes,
        notes=seen.notes,
    )


def _active(found: Standing, beat: Beat, process: str, max_age_s: float) -> Standing:
    age_s = found.age_s or 0.0
    loop_s = 0.0 if beat.turned_s is None else beat.written_s - beat.turned_s + age_s
    if age_s > max_age_s:
        still_s, reason = age_s, f"its last heartbeat is {age_s:.0f} s old"
    elif loop_s > max_age_s:
        still_s, reason = loop_s, f"its event loop has not turned for {loop_s:.0f} s"
    elif beat.unsaved_s > max_age_s:
        still_s = beat.unsaved_s + age_s
        reason = f"{beat.unsaved:,} outcomes have waited for {still_s:.0f} s to be committed"
    else:
        return replace(found, is_active=True)
    why, remedy = _stall(beat, process, is_loop=age_s <= max_age_s < loop_s)
    reason += why
    return replace(
        found,
        state="stalled",
        code=ExitCode.BUG,
        reason=reason,
        remedy=remedy,
        since=beat.written + age_s - still_s,
        until=None,
        is_active=True,
    )


def _stall(beat: Beat, process: str, *, is_loop: bool) -> tuple[str, str]:
    """What else is known of it, and what to do."""
    if process in ("T", "t"):
        return ": the process is stopped (SIGSTOP)", f"`kill -CONT {beat.pid}` lets it go on"
    if process == "D":
        return ": the process waits for a disk", "look at the disk of the output"
    asks = f"`kill -QUIT {beat.pid}` on {beat.host} makes it say where it stands"
    return "", f"{asks}; killed, the next start goes on where it was" if is_loop else asks


def _killed(found: Standing, beat: Beat, now: Now) -> Standing:
    how = f"pid {beat.pid} ended without a word"
    if beat.boot and now.boot and beat.boot != now.boot and beat.host == now.host:
        how = "the machine was started anew"
    return replace(
        found,
        state="killed",
        code=ExitCode.TEMPFAIL,
        reason=f"{how} while it was {beat.state}",
        remedy=_GOES_ON,
        since=beat.written,
        until=None,
        rate=None,
        left_s=None,
        in_flight=0,
        lanes=(),
    )


def _ended(seen: Seen, beat: Beat) -> Standing:
    """What the run said last, with the counts of the manifest, which it wrote at its end."""
    found = _of_beat(seen, beat, None)
    found = replace(found, rate=None, left_s=None, reserved_usd=None, in_flight=0, lanes=(), more_lanes=0)
    if seen.manifest is not None and (beat.state != "failed" or not beat.total):
        found = _with_manifest(found, seen.manifest)
    code = _exit_code(beat.code)
    if beat.state == "done":
        return _done(found)
    is_resumable = code in _RESUMABLE
    return replace(
        found,
        code=ExitCode.TEMPFAIL if is_resumable else ExitCode.BUG,
        reason=_ENDINGS.get(code, _BUG),
        remedy=_GOES_ON if is_resumable else "mend what the run said when it ended, and start it again",
    )


def _exit_code(code: int | None) -> ExitCode:
    """One that this version does not know is like a bug: look for yourself."""
    return next((one for one in ExitCode if one == code), ExitCode.BUG)


def _done(found: Standing) -> Standing:
    """A run that did what was asked; more may be left (`--limit`)."""
    failed = found.counts.failed
    if failed:
        found = replace(
            found,
            reason=f"{failed:,} {'row' if failed == 1 else 'rows'} failed",
            remedy="see failures/; `batchllm run --retry-failed` asks them again",
        )
    total = found.counts.total
    if total is None or found.counts.finished >= total:
        return found
    return replace(found, code=ExitCode.TEMPFAIL, reason="more rows are left to be asked", remedy=_GOES_ON)


def _busy(seen: Seen, holder: Holder) -> Standing:
    started = holder.started if isinstance(holder.started, int | float) else None
    found = Standing(
        out=seen.out,
        state="busy",
        code=ExitCode.OK,
        reason="a command that keeps no heartbeat is at work here",
        started=started,
        since=started,
        pid=holder.pid,
        host=holder.host,
        is_active=True,
        notes=seen.notes,
    )
    return found if seen.manifest is None else _with_manifest(found, seen.manifest)


def _unwatched(seen: Seen) -> Standing:
    """No run has left word: it is the manifest that tells."""
    if seen.manifest is None:
        return Standing(
            seen.out,
            "new",
            ExitCode.TEMPFAIL,
            reason="no run has come to an end here",
            remedy="`batchllm run` of the job starts one, or goes on",
            notes=seen.notes,
        )
    found = Standing(seen.out, "idle", ExitCode.TEMPFAIL, notes=seen.notes)
    found = _with_manifest(found, seen.manifest)
    if not seen.manifest.complete:
        return replace(found, reason="it is not complete, and nobody is at work", remedy=_GOES_ON)
    return _done(replace(found, state="done", code=ExitCode.OK))


def _with_manifest(found: Standing, manifest: Manifest) -> Standing:
    total = None if manifest.rows is None else manifest.rows * manifest.slots
    return replace(
        found,
        job=found.job or manifest.job_name,
        slots=manifest.slots,
        is_complete=manifest.complete,
        is_simulated=manifest.simulated,
        counts=Counts(total, manifest.ok, manifest.failed, manifest.skipped),
        spent_usd=manifest.cost_usd if found.budget_usd is None else found.spent_usd,
        updated=manifest.updated,
    )
