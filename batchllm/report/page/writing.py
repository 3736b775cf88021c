"""agreement.json and the consensus table → OUT/report.html."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchllm.journal.files import Layout, mapped_faults, sync_folder, write_new
from batchllm.report.page.contention import sift
from batchllm.report.page.figures import read
from batchllm.report.page.rendering import rendered
from batchllm.report.page.sections import Section, consensus_sections
from batchllm.report.page.svg import Draw, draw
from batchllm.report.page.text import clean

REPORT_FILE = "report.html"
#: Rows listed at most, and how much of the file they may be: what a browser opens at once and a mail still carries.
MOST_ENTRIES = 3_000
MOST_BYTES = 2_000_000


def write_report(
    agreement: Mapping[str, Any],
    table: pa.Table | Iterable[pa.RecordBatch],
    out: Path,
    *,
    job: str = "",
    is_simulated: bool = False,
    more: Sequence[Section] = (),
    draw: Draw = draw,
) -> Path:
    """Replace OUT/report.html at once or not at all, and return its path. Raises StorageError.

    `table` is read once, a batch after the other; `more` sections stand before the last, `draw` makes the drawings.
    The same values give the same bytes: there is no clock in it.
    """
    figures = read(agreement)
    batches = table.to_batches() if isinstance(table, pa.Table) else table
    found = sift(batches, MOST_ENTRIES, [voter.name for voter in figures.voters])
    *first, last = consensus_sections(figures, found, MOST_BYTES, draw)
    page = rendered(
        clean(job, 120), [*first, *more, last], is_simulated=is_simulated, created=figures.created
    )
    return _replaced(Layout(out), page)


def _replaced(layout: Layout, page: str) -> Path:
    """By way of a draft in the state folder, or beside it in a folder that has none."""
    path = layout.out / REPORT_FILE
    draft = (layout.state if layout.state.is_dir() else layout.out) / f".{REPORT_FILE}.new"
    with mapped_faults("write", path):
        draft.unlink(missing_ok=True)
        write_new(draft, page.encode(), 0o644)
        draft.replace(path)
    sync_folder(layout.out)
    return path
