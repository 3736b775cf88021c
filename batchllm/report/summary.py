"""What a run says at its end: counts, tokens, money, time, and how to read what came out.

Three forms of the same values: a dict for machines, one line for logs, a page for people. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from unicodedata import category

#: Of calls by stream, the shares whose time to the first token is told.
TTFT_SHARES = (0.5, 0.95, 0.99)
#: A lane's name or model in a table; the whole of it stands in the output.
_NAME_CHARS = 32


@dataclass(frozen=True, slots=True)
class LaneSummary:
    name: str
    provider: str
    model: str
    is_simulated: bool
    sent: int
    answered: int
    refused: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    mean_latency_s: float | None
    state: str
    reason: str
    #: Of streams: share of the calls → seconds until the first piece of an answer.
    ttft_s: Mapping[float, float] | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Figures of one start of a job. `ok` and `failed` are this run's, `reused` what earlier runs had finished.

    Tokens and cost are this run's; `spent_usd` is all that this output has cost so far. None: not known. `saved`:
    answers that it did without, since others settled the vote of their row; `saved_share` of all that were wanted.
    """

    job: str
    exit_code: int
    ending: str
    remedy: str
    is_complete: bool
    is_simulated: bool
    rows: int
    units: int
    ok: int
    failed: int
    reused: int
    failed_before: int
    pending: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    spent_usd: float | None
    seconds: float
    output: str
    python: str
    lanes: tuple[LaneSummary, ...] = ()
    failures_by_class: Mapping[str, int] = field(default_factory=dict)
    last_failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    #: Of an input that had changed: rows by what became of them (unchanged, new, changed, kept, removed).
    changes: Mapping[str, int] = field(default_factory=dict)
    #: Rows that took over the answer of another one that asks the same.
    copied: int = 0
    saved: int = 0
    saved_share: float = 0.0
    #: What the answers agree on: name and text of each line, and agreement.json as a mapping; nothing without one.
    agreement: tuple[tuple[str, str], ...] = ()
    figures: Mapping[str, object] | None = None


#: Where the page of the last start that did something is left, in the output folder.
SUMMARY_FILE = "summary.txt"
_CHANGES = {
    "new": "new",
    "changed": "changed",
    "kept": "changed but left as answered",
    "removed": "removed",
    "unchanged": "as before",
}
#: How the end of a start is called that found everything answered.
NOTHING_TO_DO = "nothing to do"


def line(summary: RunSummary) -> str:
    """One line, for a log or a cron mail."""
    is_offline = not summary.units and bool(summary.agreement)
    parts = [] if is_offline else [_counts(summary), _changes(summary), _saved(summary)]
    if not summary.exit_code and summary.ending != NOTHING_TO_DO:
        parts.append(summary.ending)
    if summary.lanes:
        cost = money(summary.cost_usd) + (" (simulated)" if summary.is_simulated else "")
        parts += [f"tokens {_tokens(summary)}", f"cost {cost}", _duration(summary.seconds)]
    parts += [text for name, text in summary.agreement if name == "consensus"]
    parts.append(f"see {summary.output}/{'report.html' if is_offline else SUMMARY_FILE}")
    return printable(f"{summary.job}: " + "; ".join(part for part in parts if part))


def trouble(summary: RunSummary) -> str:
    """What went wrong and where to look, for stderr."""
    failed = summary.failed + summary.failed_before
    said = [summary.ending] if summary.ending and summary.ending != NOTHING_TO_DO else []
    if failed:
        classes = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.failures_by_class.items()))
        said.append(
            f"{failed:,} {'row' if failed == 1 else 'rows'} failed{f' ({classes})' if classes else ''}"
        )
    rows = [f"{summary.job}: {'; '.join(said)}"]
    rows += [f"  {text}" for text in summary.last_failures[-1:]]
    if failed:
        rows.append(f"  see {summary.output}/failures/*.parquet")
    if summary.remedy:
        rows.append(f"  {summary.remedy}")
    return "\n".join(printable(row) for row in rows)


def page(summary: RunSummary) -> str:
    """The summary as a person reads it."""
    rows = [f"{_headline(summary)}", ""]
    rows += [f"  {name:<9} {text}" for name, text in _facts(summary) if text]
    if summary.lanes:
        rows += ["", *_lane_table(summary)]
    if summary.failures_by_class:
        rows += ["", *_failures(summary)]
    if summary.notes:
        rows += ["", *(f"  note: {note}" for note in summary.notes)]
    rows += ["", *_reading(summary)]
    return "\n".join(printable(row) for row in rows)


def as_mapping(summary: RunSummary) -> dict[str, object]:
    """The last line of `--json`: one object."""
    return {
        "type": "exit",
        "job": summary.job,
        "code": summary.exit_code,
        "reason": summary.ending,
        "remedy": summary.remedy,
        "complete": summary.is_complete,
        "simulated": summary.is_simulated,
        "resumable": not summary.is_complete,
        "rows": {
            "input": summary.rows,
            "units": summary.units,
            "ok": summary.ok,
            "failed": summary.failed,
            "reused": summary.reused,
            "failed_before": summary.failed_before,
            "pending": summary.pending,
            "copied": summary.copied,
            "skipped": summary.saved,
        },
        "calls_saved": {"calls": summary.saved, "share": round(summary.saved_share, 4)},
        "input_changes": dict(summary.changes),
        "tokens": {"prompt": summary.prompt_tokens, "completion": summary.completion_tokens},
        "cost_usd": summary.cost_usd,
        "spent_usd": summary.spent_usd,
        "seconds": round(summary.seconds, 3),
        "output": summary.output,
        "failures": dict(summary.failures_by_class),
        "consensus": None if summary.figures is None else _figures(summary.figures),
        "lanes": [
            {
                "lane": lane.name,
                "provider": lane.provider,
                "model": lane.model,
                "simulated": lane.is_simulated,
                "sent": lane.sent,
                "answered": lane.answered,
                "refused": lane.refused,
                "failed": lane.failed,
                "tokens": {"prompt": lane.prompt_tokens, "completion": lane.completion_tokens},
                "cost_usd": lane.cost_usd,
                "mean_latency_s": lane.mean_latency_s,
                "ttft_s": None
                if lane.ttft_s is None
                else {f"p{share * 100:g}": round(seconds, 4) for share, seconds in lane.ttft_s.items()},
                "state": lane.state,
                "reason": lane.reason,
            }
            for lane in summary.lanes
        ],
    }


def _figures(told: Mapping[str, object]) -> dict[str, object]:
    """Of agreement.json what fits into a line."""
    return {name: told.get(name) for name in ("rows", "counts", "consensus", "cost", "calls", "judge")}


def printable(text: str) -> str:
    """Foreign text (names, messages, paths) without what would move a terminal's cursor or turn its direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or category(char) == "Zs" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def clipped(text: str) -> str:
    """A name as short as a column of a table can bear."""
    return text if len(text) <= _NAME_CHARS else text[: _NAME_CHARS - 1] + "…"


def money(usd: float | None) -> str:
    """Dollars with as many places as the amount needs; unknown is said, never shown as zero."""
    if usd is None:
        return "unknown"
    if usd == 0:
        return "$0.00"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}" if usd >= 0.01 else f"${usd:.6f}"


def _headline(summary: RunSummary) -> str:
    what = "complete" if summary.is_complete else "stopped" if summary.exit_code else "done so far"
    mark = "  [answers of simulated providers]" if summary.is_simulated else ""
    reason = f": {summary.ending}" if summary.ending else ""
    return f"{summary.job}: {what}{reason}{mark}"


def _facts(summary: RunSummary) -> list[tuple[str, str]]:
    rate = ""
    finished = summary.ok + summary.failed
    if finished and summary.seconds > 0:
        rate = f", {finished / summary.seconds:,.1f} a second"
    if not summary.units and summary.agreement:  # nothing was to be asked
        return [*summary.agreement, ("remedy", summary.remedy)]
    return [
        ("answers", _counts(summary)),
        ("input", _changes(summary)),
        ("votes", _saved(summary)),
        ("tokens", _tokens(summary)),
        ("cost", _cost(summary)),
        *summary.agreement,
        ("time", f"{_duration(summary.seconds)}{rate}"),
        ("remedy", summary.remedy),
    ]


def _counts(summary: RunSummary) -> str:
    parts = [f"{summary.ok + summary.reused:,} of {summary.units:,} answered"]
    if summary.reused:
        parts[0] += f" ({summary.reused:,} of them by an earlier run)"
    failed = summary.failed + summary.failed_before
    parts.append(f"{failed:,} failed")
    if summary.pending:
        parts.append(f"{summary.pending:,} not asked yet")
    if summary.copied:
        parts.append(f"{summary.copied:,} of them like another row")
    return ", ".join(parts)


def _changes(summary: RunSummary) -> str:
    """What an input that changed has brought; empty when it did not."""
    said = [f"{count:,} {_CHANGES[name]}" for name, count in summary.changes.items() if count]
    return f"changed: {', '.join(said)}" if said else ""


def _saved(summary: RunSummary) -> str:
    """What stopping early was good for."""
    return f"calls saved: {summary.saved:,} ({100 * summary.saved_share:.1f} %)" if summary.saved else ""


def _tokens(summary: RunSummary) -> str:
    if not summary.prompt_tokens and not summary.completion_tokens:
        return "not told by the provider" if summary.ok else "none sent"
    return f"{summary.prompt_tokens:,} in, {summary.completion_tokens:,} out"


def _cost(summary: RunSummary) -> str:
    mark = " (simulated)" if summary.is_simulated else ""
    text = f"{money(summary.cost_usd)}{mark}"
    if summary.cost_usd is None:
        text += ": no price is known for a lane; set its price"
    elif summary.spent_usd is not None and summary.spent_usd > summary.cost_usd + 1e-9:
        text += f"; {money(summary.spent_usd)} over all runs"
    return text


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _lane_table(summary: RunSummary) -> list[str]:
    names = [clipped(printable(lane.name)) for lane in summary.lanes]
    models = [clipped(printable(lane.model)) for lane in summary.lanes]
    width, model = max(4, *map(len, names)), max(5, *map(len, models))
    head = f"  {'lane':<{width}}  {'model':<{model}}  {'answered':>8}  {'refused':>7}  {'failed':>6}"
    streams = any(lane.ttft_s is not None for lane in summary.lanes)
    first = "  first token: half  99 of 100" if streams else ""
    rows = [f"{head}  {'s a call':>8}{first}  cost"]
    for lane, name, model_name in zip(summary.lanes, names, models, strict=True):
        latency = "-" if lane.mean_latency_s is None else f"{lane.mean_latency_s:.2f}"
        cells = f"  {name:<{width}}  {model_name:<{model}}  {lane.answered:>8,}  {lane.refused:>7,}"
        state = f"  {lane.state}: {lane.reason}" if lane.state == "dead" else ""
        first = _first_token(lane) if streams else ""
        rows.append(f"{cells}  {lane.failed:>6,}  {latency:>8}{first}  {money(lane.cost_usd)}{state}")
    return rows


def _first_token(lane: LaneSummary) -> str:
    """Two cells."""
    half, most = ((lane.ttft_s or {}).get(share) for share in (0.5, 0.99))
    told = ["-" if seconds is None else f"{seconds:.2f}" for seconds in (half, most)]
    return f"  {told[0]:>17}  {told[1]:>9}"


def _failures(summary: RunSummary) -> list[str]:
    classes = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.failures_by_class.items()))
    rows = [f"  failed rows: {classes}"]
    rows += [f"    {text[:160]}" for text in summary.last_failures]
    return rows


def _reading(summary: RunSummary) -> list[str]:
    answers = f"{summary.output}/output/*.parquet"
    agreed = (
        [f"  consensus {summary.output}/consensus, {summary.output}/report.html"] if summary.agreement else []
    )
    if agreed and not summary.units:
        return agreed
    return [
        *agreed,
        f"  output    {summary.output}/output, failures/ and usage/ beside it, {summary.output}/manifest.json",
        f"""  polars    {summary.python} -c "import polars; print(polars.read_parquet('{answers}'))\"""",
        f"""  DuckDB    duckdb -c "FROM '{answers}'\"""",
    ]
