"""What stands on the page, in which order: each section has a template and what that shows.

The page knows nothing of a section but these; a run's own report is more sections of the same kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from markupsafe import Markup

from batchllm.report.page import charts, matrices
from batchllm.report.page.contention import Contention
from batchllm.report.page.entries import Entry
from batchllm.report.page.figures import Figures, real
from batchllm.report.page.overview import overview
from batchllm.report.page.svg import Draw
from batchllm.report.page.text import clean, counted, number, percent
from batchllm.report.page.voters import verdicts, voter_table

#: Entries that stand in the page itself, for those who read it without its script.
PLAIN_ENTRIES = 100
_MOST_DIFFERENCES = 6
_SECRET = {"api_key", "headers"}
#: Confusion matrices that stand open: all when they are few and small, else the first.
_MOST_OPEN = 8
_OPEN_GRIDS = 2


@dataclass(frozen=True, slots=True)
class Section:
    """`name`: its id in the page; `template`: in templates/; `note`: the few characters beside it in the navigation."""

    name: str
    title: str
    template: str
    view: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as it stands in the page; `svg` is None where it could not be drawn, and `trouble` says why."""

    title: str
    words: str
    keys: tuple[tuple[str, str], ...]
    svg: Markup | None
    trouble: str = ""


def consensus_sections(figures: Figures, found: Contention, most_bytes: int, draw: Draw) -> list[Section]:
    pictures = _pictures(figures, found, draw)
    return [
        Section("overview", "Overview", "overview.html.j2", {
            "sums": overview(figures), "voters": len(figures.voters), "judge": _judge(figures), "notes": figures.notes,
            "charts": pictures["overview"],
        }),
        Section("voters", "Voters", "voters.html.j2", {
            "table": voter_table(figures), "charts": pictures["voters"],
        }, f"{len(figures.voters):,}"),
        Section("agreement", "Agreement", "agreement.html.j2", _agreement(figures)),
        Section("mistakes", "Mistakes", "mistakes.html.j2", {
            **_mistakes(figures), "differences": _differences(found, pictures["differences"]),
        }),
        Section("comparisons", "Comparisons", "comparisons.html.j2", _comparisons(figures)),
        Section("rows", "Disagreements", "rows.html.j2", _rows(found, most_bytes), f"{sum(found.found.values()):,}"),
        Section("about", "About", "about.html.j2", {"settings": _settings(figures), "created": figures.created}),
    ]  # fmt: skip


def _agreement(figures: Figures) -> Mapping[str, Any]:
    pairs = matrices.agreement(figures)
    return {
        "grid": pairs[0] if pairs else None,
        "kappa": pairs[1] if pairs else None,
        "why": figures.percent.why,
        "note": figures.agreement_note,
    }


def _mistakes(figures: Figures) -> dict[str, Any]:
    grids, more = matrices.confusions(figures)
    is_open = len(grids) <= _MOST_OPEN and not any(grid.is_dense for grid in grids)
    return {
        "grids": grids,
        "open": len(grids) if is_open else _OPEN_GRIDS,
        "more": more,
        "has_gold": figures.has_gold,
        "rates": matrices.error_rates(figures),
        "estimates": _estimates(figures),
    }


def _estimates(figures: Figures) -> Mapping[str, Any]:
    """Accuracy of each voter as Dawid-Skene has it, and what is to be said of the estimate."""
    said = figures.dawid_skene.get("accuracy")
    shares = said.items() if isinstance(said, Mapping) else []
    known = [
        (clean(str(name), 80), percent(share)) for name, raw in shares if (share := real(raw)) is not None
    ]
    return {"each": known, "why": clean(str(figures.dawid_skene.get("why") or ""), 200)}


def _comparisons(figures: Figures) -> Mapping[str, Any]:
    shown, more = verdicts(figures)
    return {"verdicts": shown, "more": more, "has_gold": figures.has_gold, "is_number": figures.is_number}


def _pictures(figures: Figures, found: Contention, draw: Draw) -> Mapping[str, list[Figure]]:
    """All drawings of the page, by the section that they are for; made at once, since the first costs the most."""
    differences = [] if found.differences is None else found.differences.result()[:_MOST_DIFFERENCES]
    reference = "" if found.differences is None else found.differences.reference
    wanted: Mapping[str, list[charts.Chart | None]] = {
        "overview": [charts.margins(found.margins, figures.has_gold)],
        "voters": [charts.accuracy_by_cost(figures), charts.accuracy_by_latency(figures)],
        "differences": [charts.bland_altman(one, at, reference) for at, one in enumerate(differences)],
    }
    placed = [(section, chart) for section, each in wanted.items() for chart in each if chart is not None]
    made: dict[str, list[Figure]] = {section: [] for section in wanted}
    for (section, chart), drawing in zip(placed, draw([chart for _, chart in placed]), strict=True):
        made[section].append(Figure(chart.title, chart.words, chart.keys, drawing.svg, drawing.trouble))
    return made


def _rows(found: Contention, most_bytes: int) -> Mapping[str, Any]:
    kept, data = _bounded(found.entries, most_bytes)
    total = sum(found.found.values())
    head = {
        "names": [clean(name, 80) for name in found.voters],
        "carried": [clean(name, 80) for name in found.columns.carried],
        "lead": _lead(kept, len(found.columns.carried)),
        "is_number": found.differences is not None,
    }
    return {
        **head,
        "head": Markup(embedded(head)),  # noqa: S704 - no <, > or & is left in it
        "plain": kept[:PLAIN_ENTRIES],
        "data": data,
        "total": total,
        "kept": len(kept),
        "left": total - len(kept),
        "found": found.found,
        "rows": found.rows,
        "has_gold": any("gold" in entry for entry in kept),
        "statuses": sorted({entry["status"] for entry in kept}),
        "plain_most": PLAIN_ENTRIES,
    }


def _bounded(entries: list[Entry], most_bytes: int) -> tuple[list[Entry], Markup]:
    """As many as fit, as JSON that may stand in a script element."""
    texts, size = [], 0
    for entry in entries:
        text = embedded(entry)
        size += len(text.encode()) + 1
        if size > most_bytes:
            break
        texts.append(text)
    return entries[: len(texts)], Markup(f"[{','.join(texts)}]")  # noqa: S704 - no <, > or & is left in it


def embedded(value: object) -> str:
    """JSON without a character that HTML or a script could take for its own."""
    text = orjson.dumps(value).decode()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _lead(entries: list[Entry], columns: int) -> int | None:
    """The carried column with the longest texts: the one that says what a row is about."""
    lengths = [sum(len(entry["carried"][at] or "") for entry in entries) for at in range(columns)]
    return lengths.index(max(lengths)) if any(lengths) else None


def _differences(found: Contention, drawings: list[Figure]) -> Mapping[str, Any] | None:
    if found.differences is None:
        return None
    left = len(found.differences.result()) - len(drawings)
    return {"reference": found.differences.reference, "charts": drawings, "left": left}


def _judge(figures: Figures) -> str:
    """What the judge did, as a sentence; empty where there was none."""
    asked, agreed = figures.judge.get("asked"), figures.judge.get("agreed")
    if not asked:
        return ""
    said = f"The judge was asked about {counted(int(asked), 'row')}"
    if agreed is not None:
        said += f" and gave the same verdict in both orders of the candidates on {int(agreed):,} of them"
    first = figures.judge.get("first_slot_wins")
    if first is not None:
        share = f"{first:.0%}".replace("%", " %") if first <= 1 else f"{int(first):,} times"
        said += f"; the candidate shown first won {share} (half is what no bias for a place would give)"
    return f"{said}."


def _settings(figures: Figures) -> list[tuple[str, str]]:
    return [
        (clean(str(name), 80), _said(value))
        for name, value in figures.settings.items()
        if value not in (None, [], {})
    ]


def _said(value: object) -> str:
    value = _open(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(real(value) or 0.0)
    return clean(value if isinstance(value, str) else orjson.dumps(value, default=str).decode(), 400)


def _open(value: object) -> object:
    """Without what may hold a key; none should be in it, and this page is sent around."""
    if isinstance(value, Mapping):
        return {name: _open(part) for name, part in value.items() if name not in _SECRET}
    return [_open(part) for part in value] if isinstance(value, list | tuple) else value
