"""How an output stands, for people and for machines. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from batchllm.journal.heartbeat import LaneBeat
from batchllm.journal.manifest import instant
from batchllm.report.standing import Now, Standing
from batchllm.report.summary import clipped, money, printable

_WORDS = {
    "killed": "was killed",
    "busy": "in use",
    "idle": "nobody is at work",
    "new": "no finished run",
    "paused": "paused",
    "writing": "writing the parts",
    "agreeing": "working out what the answers agree on",
}


#: While calls are sent, or might be.
_AT_WORK = ("running", "waiting", "paused", "draining", "stalled")


def as_text(found: Standing, now: Now) -> str:
    """A page, as a person reads it."""
    rows = [_headline(found, now)]
    rows += [f"  {name:<9} {text}" for name, text in _facts(found, now) if text]
    rows += _lane_rows(found, now)
    for one in found.nested:
        rows += ["", *(f"  {row}" for row in as_text(one, now).splitlines())]
    return "\n".join(printable(row) for row in rows)


def as_mapping(found: Standing, now: Now) -> dict[str, object]:
    """One object. Times are in UTC, spans in seconds, money in USD; what is not known is null."""
    return {
        "type": "status",
        "out": found.out,
        "job": found.job or None,
        "state": found.state,
        "healthy": not found.code,
        "code": int(found.code),
        "reason": found.reason,
        "remedy": found.remedy,
        "active": found.is_active,
        "started": _instant(found.started),
        "since": _instant(found.since),
        "until": _instant(found.until),
        "heartbeat_age_s": _rounded(found.age_s),
        "pid": found.pid,
        "host": found.host or None,
        "exit_code": found.ended_code,
        "complete": found.is_complete,
        "simulated": found.is_simulated,
        "rows": {
            "total": found.counts.total,
            "done": found.counts.finished,
            "ok": found.counts.ok,
            "failed": found.counts.failed,
            "skipped": found.counts.skipped,
            "answers_per_row": found.slots,
        },
        "rate_per_s": _rounded(found.rate),
        "left_s": _rounded(found.left_s),
        "in_flight": found.in_flight,
        "cost_usd": {
            "this_run": found.cost_usd,
            "spent": found.spent_usd,
            "budget": found.budget_usd,
            "reserved": found.reserved_usd,
        },
        "lanes": [_lane_mapping(lane) for lane in found.lanes],
        "more_lanes": found.more_lanes,
        "manifest_updated": found.updated or None,
        "notes": list(found.notes),
        "nested": [as_mapping(one, now) for one in found.nested],
    }


def _lane_mapping(lane: LaneBeat) -> Mapping[str, object]:
    return {
        "name": lane.name,
        "state": lane.state,
        "reason": lane.reason,
        "until": _instant(lane.until),
        "in_flight": lane.in_flight,
        "at_once": lane.at_once,
        "rpm": lane.rpm,
        "tpm": lane.tpm,
        "answered": lane.answered,
        "refused": lane.refused,
        "failed": lane.failed,
    }


def _headline(found: Standing, now: Now) -> str:
    state = _WORDS.get(found.state, found.state)
    if found.state == "done" and found.is_complete:
        state = "complete"
    mark = "  [answers of simulated providers]" if found.is_simulated else ""
    return f"{found.job or found.out}: {state}{_since(found, now)}{mark}"


def _since(found: Standing, now: Now) -> str:
    if found.since is None:
        return f", last written {found.updated}" if found.updated else ""
    if found.is_active:
        return f" for {span(now.wall - found.since)}"
    most = "at most " if found.state == "killed" else ""
    return f" {most}{span(now.wall - found.since)} ago"


def _facts(found: Standing, now: Now) -> list[tuple[str, str]]:
    until = "" if found.until is None else f", {_until(found.until, now)}"
    age = "" if found.age_s is None else f", last heartbeat {span(found.age_s)} ago"
    since = "" if found.started is None else f" since {instant(found.started)[:16].replace('T', ' ')} UTC"
    by = f"pid {found.pid} on {found.host or 'this host'}{since}{age}" if found.pid is not None else ""
    return [
        ("why", f"{found.reason}{until}" if found.reason else until.removeprefix(", ")),
        ("do", found.remedy),
        ("answers" if found.slots > 1 else "rows", _rows(found)),
        ("rate", _rate(found)),
        ("money", _money(found)),
        ("process", by if found.is_active or found.state == "killed" else ""),
        *(("note", note) for note in found.notes),
        ("output", found.out if found.job else ""),
    ]


def _rows(found: Standing) -> str:
    counts = found.counts
    if counts.total is None and not counts.finished:
        return ""
    total = "an input that is not counted yet" if counts.total is None else f"{counts.total:,}"
    share = f" ({counts.finished / counts.total:.1%})" if counts.total else ""
    kinds = [
        f"{count:,} {name}"
        for count, name in (
            (counts.ok, "answered"),
            (counts.failed, "failed"),
            (counts.skipped, "skipped"),
        )
        if count
    ]
    return f"{counts.finished:,} of {total}{share}{': ' if kinds else ''}{', '.join(kinds)}"


def _rate(found: Standing) -> str:
    if not found.is_active or found.state not in _AT_WORK:
        return ""
    left = "" if found.left_s is None else f", {span(found.left_s)} left"
    return f"{found.rate or 0.0:,.1f}/s in the last minute{left}; {found.in_flight:,} calls in flight"


def _money(found: Standing) -> str:
    if found.budget_usd is not None:
        is_held = found.is_active and found.reserved_usd
        reserved = f", {money(found.reserved_usd)} reserved for calls in flight" if is_held else ""
        return f"{money(found.spent_usd)} of {money(found.budget_usd)} spent{reserved}"
    if found.is_active and found.state in _AT_WORK:
        known = found.cost_usd is not None
        return f"{money(found.cost_usd)} in this run" if known else "not known: there is no price"
    return f"{money(found.spent_usd)} in all" if found.spent_usd is not None else ""


def _lane_rows(found: Standing, now: Now) -> list[str]:
    """A lane a line, in columns."""
    if not found.lanes:
        return []
    cells = [_lane_cells(lane, now) for lane in found.lanes]
    heads = ("lane", "in flight", "rpm", "tpm", "answered", "refused", "failed", "state")
    widths = [max(len(row[at]) for row in (heads, *cells)) for at in range(len(heads))]
    rows = ["", *(_aligned(row, widths) for row in (heads, *cells))]
    return [*rows, f"  and {found.more_lanes} more lanes"] if found.more_lanes else rows


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """Names and states to the left, figures to the right."""
    last = len(cells) - 1
    told = [
        cell.ljust(width) if at in (0, last) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"  {'  '.join(told)}".rstrip()


def _lane_cells(lane: LaneBeat, now: Now) -> tuple[str, ...]:
    state = lane.state + (f": {lane.reason}" if lane.reason else "")
    if lane.until is not None:
        state += f", {_until(lane.until, now)}"
    return (
        clipped(printable(lane.name)),
        f"{lane.in_flight:,}/{lane.at_once:,}",
        _limit(lane.rpm),
        _limit(lane.tpm),
        f"{lane.answered:,}",
        f"{lane.refused:,}",
        f"{lane.failed:,}",
        printable(state),
    )


def _limit(per_minute: float | None) -> str:
    return "-" if per_minute is None else f"{per_minute:,.0f}"


def _until(wall: float, now: Now) -> str:
    """By the clock on the wall, in UTC as everywhere, and how long that is."""
    left_s = wall - now.wall
    if left_s <= 0:
        return "any moment now"
    shape = "%H:%M:%S" if left_s < 86_400 else "%Y-%m-%d %H:%M:%S"
    return f"until {datetime.fromtimestamp(wall, UTC):{shape}} UTC, in {span(left_s)}"


def span(seconds: float) -> str:
    """How long, to two figures or so."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _instant(wall: float | None) -> str | None:
    return None if wall is None else instant(wall)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
