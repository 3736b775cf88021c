"""A table of figures: as text for a terminal, as JSON, and as Markdown between the markers of a document.

`python -m benchmarks.tables FOLDER DOCUMENT` puts every table of FOLDER (as `--json FOLDER` writes them) in the
place that DOCUMENT has for it:

    <!-- table: throughput -->
    <!-- /table -->
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = str | float | int | None

#: What stands where there is no figure.
NOTHING = "–"
_MARKED = re.compile(r"(<!-- table: (?P<name>[a-z0-9-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """`format` is a format specification for numbers (`,.0f`); text is shown as it is, None as a dash."""

    key: str
    title: str
    format: str = ""

    def shown(self, value: Value) -> str:
        if value is None:
            return NOTHING
        return value if isinstance(value, str) else format(value, self.format)


@dataclass(frozen=True, slots=True)
class Report:
    """One table. `rows` map a column's key to its value; keys without a column are kept in the JSON only."""

    name: str
    title: str
    machine: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, object]]
    notes: tuple[str, ...] = ()


class DocumentError(Exception):
    """The document or a table's file is not as expected; the message names it and says what to do."""


def as_json(report: Report) -> str:
    return json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """The report that `as_json` wrote; raises KeyError or TypeError for another object."""
    found = json.loads(text)
    columns = tuple(Column(**column) for column in found.pop("columns"))
    return Report(columns=columns, notes=tuple(found.pop("notes")), **found)


def as_text(report: Report) -> str:
    """For a terminal: title, a header, right-aligned columns (the first to the left), notes."""
    titles = [column.title for column in report.columns]
    cells = [[column.shown(_value(row, column.key)) for column in report.columns] for row in report.rows]
    widths = [max(len(line[place]) for line in [titles, *cells]) for place in range(len(titles))]
    lines = [_line(line, widths) for line in [titles, *cells]]
    return "\n".join(
        [report.title, *lines, *(f"  {note}" for note in report.notes), f"  {report.machine}", ""]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()


def as_markdown(report: Report) -> str:
    """A table, the notes as a list, the machine; a bar in a cell is escaped."""
    titles = [column.title for column in report.columns]
    lines = [titles, [":--", *("--:" for _ in titles[1:])]]
    for row in report.rows:
        cells = (column.shown(_value(row, column.key)) for column in report.columns)
        lines.append([cell.replace("|", "\\|").replace("\n", " ") for cell in cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"- {note}\n" for note in (*report.notes, f"Machine: {report.machine}"))
    return f"{table}\n\n{notes}"


def _value(row: Mapping[str, object], key: str) -> Value:
    value = row.get(key)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"column {key}: expected text or a number, found {type(value).__name__}")


def filled(document: str, reports: Iterable[Report]) -> str:
    """`document` with each report between its markers; the rest of it stays as it is.

    Raises DocumentError for a report that has no markers: figures that nobody sees are a mistake.
    """
    waiting = {report.name: report for report in reports}
    placed = {found["name"] for found in _MARKED.finditer(document)}
    if missing := sorted(waiting.keys() - placed):
        raise DocumentError(
            f"no place for the table {', '.join(missing)}: add <!-- table: {missing[0]} --> and <!-- /table -->,"
            " each on a line of its own"
        )

    def fill(found: re.Match[str]) -> str:
        report = waiting.get(found["name"])
        return found[0] if report is None else f"{found[1]}{as_markdown(report)}{found[4]}"

    return _MARKED.sub(fill, document)


def main(argv: Sequence[str]) -> None:
    if len(argv) != 2:
        raise SystemExit("give the folder that --json wrote and the document: FOLDER docs/performance.md")
    folder, path = Path(argv[0]), Path(argv[1])
    files = sorted(folder.glob("*.json"))
    if not files:
        raise SystemExit(f"{folder}: no table here; run `python -m benchmarks --json {folder}` first")
    try:
        reports = [_read(file) for file in files]
        path.write_text(filled(path.read_text("utf-8"), reports), "utf-8")
    except DocumentError as error:
        raise SystemExit(f"{path}: {error}") from error
    print(f"{path}: {', '.join(report.name for report in reports)}")


def _read(file: Path) -> Report:
    try:
        return from_json(file.read_text("utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise DocumentError(f"{file} is no table that --json wrote ({error}); remove it") from error


if __name__ == "__main__":
    main(sys.argv[1:])
