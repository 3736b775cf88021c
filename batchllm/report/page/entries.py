"""One row of the consensus table as the page lists it: short texts, small numbers, nothing that cannot be shown.

An entry is a dict, since it is both rendered by the template and written as JSON for the page's script; what is null
is left out. `groups` holds the votes that are alike: [value, [voters], is consensus, is gold, leads]. Values are
compared as they are, and not as they are shown: texts may differ after what is shown of them, numbers after six digits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchllm.report.page.figures import real
from batchllm.report.page.text import clean, cost, number, with_ends

#: Longest text of a carried column, a vote, a reason, in characters: enough to judge a row by.
TEXT_CHARS = 1_200
VOTE_CHARS = 240
REASON_CHARS = 400
#: The small numbers of an entry: their field, and what they are called.
_FACTS = (("margin", "margin"), ("entropy", "entropy"), ("share", "share"), ("confidence", "confidence"))

#: Columns that are held against the votes, as a whole.
_COMPARED = frozenset({"consensus", "gold"})

Entry = dict[str, Any]


def entries(rows: pa.RecordBatch, columns: "Columns", voters: Mapping[str, int]) -> list[Entry]:
    """Of some rows of the table; `voters`: name → place in the page's list."""
    cut = [
        _cut(column) if _is_text(column.type) and name not in _COMPARED else column
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    ]
    return [
        _entry(row, columns, voters)
        for row in pa.RecordBatch.from_arrays(cut, names=rows.schema.names).to_pylist()
    ]


class Columns:
    """Which column is which: the key stands before `row`, the carried ones between it and `consensus`."""

    def __init__(self, names: Sequence[str]) -> None:
        row = names.index("row") if "row" in names else -1
        end = names.index("consensus") if "consensus" in names else len(names)
        self.key = names[0] if row > 0 else None
        self.carried = tuple(names[row + 1 : end])


def shown(value: object, chars: int = VOTE_CHARS) -> str | None:  # noqa: PLR0911 - a line a type
    """A value of any type as text: numbers as people read them, sets in alphabetical order."""
    match value:
        case None:
            return None
        case str():
            return clean(value, chars)
        case bool():
            return str(value).lower()
        case int():
            return f"{value}"
        case float():
            return number(value, 6)
        case bytes():
            return f"{len(value):,} bytes"
        case list() if all(isinstance(part, str) and "," not in part for part in value):
            return clean(", ".join(sorted(value)) or "none of them", chars)
        case list() | dict():
            return clean(orjson.dumps(value, default=str).decode(), chars)
        case _:
            return clean(str(value), chars)


def _entry(row: dict[str, Any], columns: Columns, voters: Mapping[str, int]) -> Entry:
    consensus, gold = row.get("consensus"), row.get("gold")
    leading = {_same(value) for value in row.get("leading") or ()}
    groups, absent = _votes(row.get("votes") or (), voters)
    made = {
        "row": row.get("row"),
        "key": shown(row.get(columns.key)) if columns.key else None,
        "status": row.get("status") or "undecided",
        "consensus": _vote(consensus),
        "gold": _vote(gold),
        "correct": row.get("correct"),
        "reason": shown(row.get("reason"), REASON_CHARS),
        "carried": [shown(row.get(name), TEXT_CHARS) for name in columns.carried],
        "groups": [
            [
                _vote(value),
                who,
                _same(value) == _same(consensus),
                _same(value) == _same(gold) if gold is not None else None,
                _same(value) in leading,
            ]
            for value, who in groups
        ],
        "absent": absent,
        "margin": _rounded(row.get("margin")),
        "entropy": _rounded(row.get("entropy")),
        "facts": _facts(row),
    }
    return {name: value for name, value in made.items() if value is not None}


def _votes(
    votes: Sequence[Mapping[str, Any]], voters: Mapping[str, int]
) -> tuple[list[tuple[object, list[int]]], list[list[Any]]]:
    """Votes that are alike together, most voters first; and who has no vote, by state."""
    alike: dict[object, tuple[object, list[int]]] = {}
    absent: dict[str, list[int]] = {}
    for vote in votes:
        place = voters.get(str(vote.get("voter")))
        if place is None:
            continue
        value, state = vote.get("value"), str(vote.get("state") or "cast")
        if value is None or state != "cast":
            absent.setdefault("unreadable" if state == "cast" else clean(state, 20), []).append(place)
        else:
            alike.setdefault(_same(value), (value, []))[1].append(place)
    return sorted(alike.values(), key=lambda group: -len(group[1])), [[*group] for group in absent.items()]


def _same(value: object) -> object:
    """Equal for values that are the same vote: sets have no order."""
    return tuple(sorted(map(str, value))) if isinstance(value, list) else value


def _vote(value: object) -> str | None:
    return shown(with_ends(value) if isinstance(value, str) else value)


def _facts(row: Mapping[str, Any]) -> str:
    """The small numbers of a row, as one line."""
    said = [f"row {row.get('row')}"]
    said += [
        f"{name} {number(value)}" for field, name in _FACTS if (value := real(row.get(field))) is not None
    ]
    usd = real(row.get("cost_usd"))
    said += [] if usd is None else [f"cost {cost(usd)}"]
    said += [f"by {shown(row['rule'])}"] if row.get("rule") else []
    return " · ".join(said)


def _rounded(value: object) -> float | None:
    found = real(value)
    return None if found is None else float(f"{found:.6g}")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _cut(column: pa.Array) -> pa.Array:
    """One character more than is kept, so that a cut is seen; a row may carry a text of megabytes."""
    return pc.utf8_slice_codeunits(column, 0, TEXT_CHARS + 1)
