"""The live panel: one bar for the run, one line a lane. It polls the counters four times a second."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from batchllm.events import LaneStats, Rates, RunStats
from batchllm.report.summary import clipped, money, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REFRESH_S = 0.25


@contextmanager
def panel(
    stats: RunStats, title: str, *, console: "Console | None" = None, refresh_s: float = _REFRESH_S
) -> Iterator[Callable[[str], None]]:
    """Show `stats` on stderr until the block ends; yields what prints a line above it.

    A terminal that goes away takes the panel along, not the run.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    view = _View(stats, title)
    done = threading.Event()
    live = Live(console=console or Console(stderr=True), auto_refresh=False, transient=True)

    def refresh() -> None:
        with suppress(OSError):
            while not done.wait(refresh_s):
                live.update(view.draw(time.monotonic()), refresh=True)

    def say(text: str) -> None:
        with suppress(OSError):
            live.console.print(Text(text), soft_wrap=True)

    thread = threading.Thread(target=refresh, name="batchllm-panel", daemon=True)
    with suppress(OSError):
        live.start()
        thread.start()
    try:
        yield say
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()
        with suppress(OSError):
            live.stop()


class _View:
    def __init__(self, stats: RunStats, title: str) -> None:
        self._stats = stats
        self._title = title
        self._total = Rates()
        self._lanes = [Rates() for _ in range(64)]

    def draw(self, now_s: float) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        stats = self._stats
        rate = self._total.note(now_s, stats.ok + stats.failed)
        left = max(0, stats.total - stats.finished)
        head = Text.assemble(
            (self._title, "bold"),
            f"  {stats.phase}  {stats.finished:,} of {stats.total:,}  {rate:,.1f}/s",
            f"  {remaining_time(left, rate)}  {money(_cost(stats.lanes))}",
            (f"  {stats.failed:,} failed" if stats.failed else "", "red"),
        )
        table = Table(box=None, pad_edge=False)
        for name, justify in (
            ("lane", "left"),
            ("model", "left"),
            ("rate/min", "right"),
            ("limit", "right"),
            ("in flight", "right"),
            ("answered", "right"),
            ("refused", "right"),
            ("failed", "right"),
            ("state", "left"),
        ):
            table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type] # rich's literal
        for lane, rates in zip(stats.lanes, self._lanes, strict=False):
            table.add_row(
                *(Text(printable(cell)) for cell in _lane_cells(lane, rates.note(now_s, lane.answered)))
            )
        bar = Table.grid(expand=True)  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=max(1, stats.total), completed=stats.finished))
        rows: list[RenderableType] = [head, bar, table]
        rows += [
            Text(printable(f"  {text}"[:200]), style="dim", overflow="ellipsis", no_wrap=True)
            for text in stats.last_failures[-2:]
        ]
        return Group(*rows)


def remaining_time(left: int, rate: float) -> str:
    """How long `left` answers take at `rate` a second, as people say it."""
    if left == 0:
        return "done"
    if rate <= 0:
        return "waiting"
    seconds = left / rate
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


def _lane_cells(lane: LaneStats, rate: float) -> list[str]:
    limit = "-" if lane.rpm is None else f"{lane.rpm:,.0f}"
    state = lane.state if not lane.reason else f"{lane.state}: {lane.reason}"
    return [
        clipped(printable(lane.name)),
        clipped(printable(lane.model)),
        f"{rate * 60:,.0f}",
        limit,
        f"{lane.in_flight:,}",
        f"{lane.answered:,}",
        f"{lane.refused:,}",
        f"{lane.failed:,}",
        state[:60],
    ]


def _cost(lanes: list[LaneStats]) -> float | None:
    costs = [lane.cost_usd for lane in lanes]
    return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)
