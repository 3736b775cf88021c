"""The plot of docs/performance.md: requests a second over time against the limit, as the provider's ledger has them.

`python -m benchmarks.plot [--ledgers FOLDER] [--out FILE]` plays two scenarios (or reads the ledgers that
`python -m benchmarks.saturation --keep FOLDER` left) and writes docs/rate.svg. Needs the extra `bench`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ledgers import Call, accepted_times, rates
from benchmarks.saturation import play
from benchmarks.stage import read_ledger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Scenario, the lane whose ledger tells it, and what stands above its panel.
PANELS = (
    ("rpm_told", "told", "3,000 requests a minute, told"),
    ("halved_restored_headers", "halved", "the limit is halved, then restored; learned from headers"),
)
_WIDTH_S, _STEP_S = 1.0, 0.25
#: Grey and hues of middling lightness: each at least 3:1 on white and on GitHub's dark (#0d1117).
_INK, _ACCEPTED, _REFUSED = "#768390", "#2f81f7", "#e5534b"


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds since the first call; requests a second. `limit` are the corners of its steps."""

    at_s: list[float]
    accepted: list[float]
    refused: list[float]
    limit: list[tuple[float, float]]


def curve(calls: Sequence[Call], simulation: dict[str, object]) -> Curve:
    """`simulation`: the provider's configuration, for its limit and when that changes."""
    start_s, end_s = calls[0].at_s, calls[-1].at_s
    both = (accepted_times(calls), sorted(call.at_s for call in calls if not call.is_accepted))
    accepted, refused = (rates(times, start_s, end_s, width_s=_WIDTH_S, step_s=_STEP_S) for times in both)
    at_s = [number * _STEP_S for number in range(len(accepted))]
    return Curve(at_s, accepted, refused, limit_corners(simulation, end_s - start_s))


def limit_corners(simulation: dict[str, object], end_s: float) -> list[tuple[float, float]]:
    """(seconds since the first call, requests a second) from the start to `end_s`, two at each change."""
    changes = [{"at_s": 0.0, **simulation}, *json.loads(json.dumps(simulation.get("schedule", [])))]
    corners: list[tuple[float, float]] = []
    for change in changes:
        rpm = change.get("limits", {}).get("rpm")
        if rpm is not None and change["at_s"] <= end_s:
            corners += [(change["at_s"], corners[-1][1])] if corners else []
            corners.append((change["at_s"], rpm / 60))
    return [*corners, (end_s, corners[-1][1])]


def draw(curves: Sequence[Curve], titles: Sequence[str], path: Path) -> None:
    """Writes the panels one below the other. The background is transparent: the page's own shows through."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(
        {
            "svg.hashsalt": "batchllm",  # the same data make the same file
            "font.size": 9,
            "text.color": _INK,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    ):
        figure, panels = plt.subplots(len(curves), 1, figsize=(8, 2.5 * len(curves)), squeeze=False)
        for panel, one, title in zip(panels[:, 0], curves, titles, strict=True):
            _draw_panel(panel, one, title)
        panels[-1, 0].set_xlabel("seconds since the first request")
        figure.tight_layout()
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _draw_panel(panel: "Axes", one: Curve, title: str) -> None:
    panel.plot(*zip(*one.limit, strict=True), color=_INK, linewidth=1.2, linestyle=(0, (4, 2)), label="limit")
    panel.plot(one.at_s, one.accepted, color=_ACCEPTED, linewidth=1.6, label="accepted")
    panel.plot(one.at_s, one.refused, color=_REFUSED, linewidth=1.2, label="refused (429)")
    top = max(rate for _, rate in one.limit)
    panel.set_ylim(-0.03 * top, 1.25 * max(top, *one.accepted, *one.refused))
    panel.set_xlim(0, one.at_s[-1])
    panel.set_ylabel("requests a second")
    panel.set_title(title, loc="left", fontsize=10)
    panel.grid(axis="y", color=_INK, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.legend(loc="upper right", ncols=3, frameon=False, fontsize=8)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("--ledgers", type=Path, metavar="FOLDER", help="what saturation --keep left")
    parser.add_argument("--out", type=Path, default=Path("docs/rate.svg"), metavar="FILE")
    parsed = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="saturation-") as temporary:
        folder = parsed.ledgers or Path(temporary)
        curves = []
        for scenario, lane, _ in PANELS:
            if parsed.ledgers is None:
                play(scenario, is_quick=False, folder=folder)
            simulation = json.loads((folder / scenario / f"{lane}.yaml").read_text("utf-8"))
            curves.append(curve(read_ledger(folder / scenario / f"{lane}.ledger.jsonl"), simulation))
    draw(curves, [title for _, _, title in PANELS], parsed.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
