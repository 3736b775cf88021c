"""How near to a provider's limits a run comes, measured by the provider: `python -m benchmarks.saturation`.

Each scenario starts `batchllm simulate` with a ledger, sends `batchllm run` against it, and reads the ledger. Prints a
table; `--json FOLDER` writes every figure with its bounds. Ends with 1 when a bound was missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import harness
from benchmarks.outcomes import Check, Outcome
from benchmarks.scenarios import SCENARIOS
from benchmarks.stage import Stage
from benchmarks.tables import Column, Report


def play(name: str, *, is_quick: bool, folder: Path | None = None) -> Outcome:
    """`folder`, where given, keeps jobs and ledgers."""
    with tempfile.TemporaryDirectory(prefix="saturation-") as temporary:
        place = Path(temporary) if folder is None else folder / name
        place.mkdir(parents=True, exist_ok=True)
        stage = Stage(place, is_quick=is_quick)
        try:
            return SCENARIOS[name](stage)
        finally:
            stage.close()


def heading() -> str:
    return f"{'scenario':<24} {'answered':>13} {'share':>6} {'refused':>8} {'1 s':>5} {'60 s':>5}  figures (! missed)"


def line(name: str, outcome: Outcome) -> str:
    figures = ", ".join(figure(check) for check in outcome.checks if check.what != "answered")
    verdict = " " if outcome.is_met else "!"
    return (
        f"{verdict}{name:<23} {f'{outcome.answered:,}/{outcome.rows:,}':>13} {outcome.share:>6.3f}"
        f" {outcome.refused:>8.3%} {outcome.busiest_second:>5.2f} {outcome.busiest_minute:>5.2f}  {figures}"
    )


def figure(check: Check) -> str:
    value = "never" if check.value is None else f"{check.value:.4g}"
    bound = "".join(
        f" {sign} {limit:.4g}" for sign, limit in (("≥", check.low), ("≤", check.high)) if limit is not None
    )
    return f"{'' if check.is_met else '!'}{check.what} {value}{f' ({bound.strip()})' if bound else ''}"


_COLUMNS = (
    Column("scenario", "scenario"),
    Column("answered", "answered of rows"),
    Column("share", "share of the ideal", ".3f"),
    Column("refused", "refused", ".3%"),
    Column("busiest_second", "busiest 1 s", ".2f"),
    Column("busiest_minute", "busiest 60 s", ".2f"),
    Column("figures", "held to"),
)


def report(outcomes: dict[str, Outcome], *, is_quick: bool) -> Report:
    rows = [
        {
            "scenario": name,
            **asdict(outcome),
            "answered": f"{outcome.answered:,} of {outcome.rows:,}",
            "met": outcome.is_met,
            "figures": "; ".join(figure(check) for check in outcome.checks if check.what != "answered"),
        }
        for name, outcome in outcomes.items()
    ]
    notes = (
        "By the provider's ledger, first to last accepted request; where nothing is told, after the first 20 s.",
        "The busiest windows are shares of what the limit allows; `!` marks a bound that was missed.",
        *(("A third of the usual time.",) if is_quick else ()),
    )
    return Report("saturation", "Limits as the provider sees them", harness.machine(), _COLUMNS, rows, notes)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saturation", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="SCENARIO", help=f"all by default: {', '.join(SCENARIOS)}"
    )
    harness.add_options(parser)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave jobs and ledgers there")
    parsed = parser.parse_args(argv)
    if unknown := [name for name in parsed.names if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    print(heading(), flush=True)
    outcomes: dict[str, Outcome] = {}
    for name in parsed.names or SCENARIOS:
        outcomes[name] = play(name, is_quick=parsed.quick, folder=parsed.keep)
        print(line(name, outcomes[name]), flush=True)
    harness.keep(report(outcomes, is_quick=parsed.quick), harness.options(parsed))
    return 0 if all(outcome.is_met for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
