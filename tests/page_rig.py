"""A small consensus to make pages of: rows with given votes, and the figures that agreement.json would hold."""

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa

VOTERS = ("swift", "sage", "bolt")
VOTE = pa.struct([("voter", pa.string()), ("value", pa.string()), ("state", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("text", pa.string()),
        ("consensus", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("rule", pa.string()),
        ("votes", pa.list_(VOTE)),
        ("leading", pa.list_(pa.string())),
        ("votes_cast", pa.int32()),
        ("share", pa.float64()),
        ("margin", pa.float64()),
        ("entropy", pa.float64()),
        ("confidence", pa.float64()),
        ("cost_usd", pa.float64()),
        ("gold", pa.string()),
        ("correct", pa.bool_()),
    ]
)

#: Markup, a closed script, a line separator, a direction override, a NUL, an attribute's end, a template's braces.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "line\u2028separator",
    "\u202egnirts desrever",
    "nul\x00 and bell\x07",
    '" onmouseover="alert(3)" x=\'',
    "{{ 7 * 7 }} {% raw %}",
    "</style><!--<svg onload=alert(4)>",
    "]]>&lt;b&gt;&#x3c;",
)


def row(
    at: int, votes: Sequence[str | None], *, gold: str | None = "yes", text: str = "a text"
) -> dict[str, Any]:
    """Majority of `votes`, one a voter; None is a call that failed."""
    cast = [vote for vote in votes if vote is not None]
    counts = sorted(((cast.count(value), value) for value in set(cast)), reverse=True)
    top, second = (counts + [(0, "")] * 2)[:2]
    consensus = top[1] if top[0] * 2 > len(cast) else None
    return {
        "id": f"r-{at}",
        "row": at,
        "text": text,
        "consensus": consensus,
        "status": "decided" if consensus else "tied" if cast else "too_few",
        "reason": f"{top[0]} of {len(cast)} votes for {top[1]}",
        "rule": "majority" if consensus else None,
        "votes": [
            {"voter": voter, "value": vote, "state": "failed" if vote is None else "cast"}
            for voter, vote in zip(VOTERS, votes, strict=False)
        ],
        "leading": [value for count, value in counts if count == top[0]],
        "votes_cast": len(cast),
        "share": top[0] / len(cast) if cast else None,
        "margin": (top[0] - second[0]) / len(cast) if cast else None,
        "entropy": float(len(counts) > 1) if cast else None,
        "gold": gold,
        "correct": None if consensus is None or gold is None else consensus == gold,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SCHEMA)


def measure(value: float | None, n: int = 20) -> dict[str, Any]:
    if value is None:
        return {"value": None, "why": "nothing to measure"}
    return {"value": value, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1), "n": n}


def agreement(voters: Sequence[str] = VOTERS, labels: Sequence[str] = ("yes", "no")) -> dict[str, Any]:
    """What stands in agreement.json, of 20 rows."""
    square = {"labels": list(labels), "counts": [[7 if a == b else 1 for b in labels] for a in labels]}
    pairs = [(a, b) for at, a in enumerate(voters) for b in voters[at + 1 :]]
    return {
        "format": 1,
        "created": "2026-01-02T03:04:05Z",
        "settings": {"rule": "majority", "over": "label"},
        "rows": 20,
        "counts": {"decided": 16, "tied": 2, "undecided": 1, "too_few": 1, "pending": 0},
        "voters": [
            {
                "name": voter,
                "lane": voter,
                "votes": 20,
                "missing": 0,
                "accuracy": measure(0.9 - 0.01 * at),
                "macro_f1": measure(0.8),
                "against": "gold",
                "confusion": square,
                "cost_usd": 0.01 * (at + 1),
                "latency_ms": {"p50": 200.0, "p95": 900.0},
                "weight": None,
            }
            for at, voter in enumerate(voters)
        ],
        "agreement": {
            "percent": measure(0.85),
            "fleiss": measure(0.6),
            "alpha": {**measure(0.61), "scale": "nominal"},
            "cohen": [{"a": a, "b": b, **measure(0.6)} for a, b in pairs],
            "percent_pairs": [{"a": a, "b": b, "value": 0.8, "n": 20} for a, b in pairs],
        },
        "consensus": {"accuracy": measure(0.95), "macro_f1": measure(0.9), "confusion": square},
        "comparisons": [
            {
                "a": a,
                "b": b,
                "n": 20,
                "only_a": 1,
                "only_b": 9,
                "p_value": 0.0123,
                "difference": {"value": -0.4, "low": -0.6, "high": -0.1},
            }
            for a, b in pairs
        ],
        "cost": {"usd": 0.06, "per_decided_usd": 0.00375},
        "calls": {"made": 41, "saved": 19, "saved_share": 19 / 60},
        "judge": None,
        "dawid_skene": None,
    }


class Page(HTMLParser):
    """The elements of a page: (name, attributes); the text of each script; and all text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.shown: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]][-1] += data
        else:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def count(self, name: str, kind: str = "") -> int:
        classes = [(found.get("class") or "").split(" ") for tag, found in self.elements if tag == name]
        return sum(not kind or kind in found for found in classes)

    def with_id(self, name: str) -> dict[str, str | None] | None:
        return next((found for _, found in self.elements if found.get("id") == name), None)
