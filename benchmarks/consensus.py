"""What a million rows of five votes cost to decide: `python -m benchmarks.consensus`.

`[--rows N] [--voters N] [--step NAME ...] [--quick] [--json FOLDER]`. Each step is a process of its own: it makes the
votes, notes its memory, and times the step. The last one is all of it, from files to files: as many files of votes as
there are voters, a job over them, and `batchllm consensus` of its output, as a user would call it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.consensus.dawid_skene import estimate
from batchllm.consensus.label_sets import SetVotes, decide_sets
from batchllm.consensus.rules import decide
from batchllm.consensus.similarity import merged
from batchllm.consensus.terms import Rule, Terms, Ties, least_votes
from batchllm.consensus.votes import LabelVotes, NumberVotes
from benchmarks import harness
from benchmarks.tables import Column, Report

#: What all of it may take, from reading the votes to the last file written.
MOST_S, MOST_MB = 60.0, 1024.0
LABELS = ("negative", "neutral", "positive")
WHOLE = "votes in files, to the table and agreement.json"
_VECTOR_WIDTH = 256
_TEXTS = 2_000
_COLUMNS = (
    Column("step", "step"),
    Column("rows", "rows", ",.0f"),
    Column("wall_s", "s", ".2f"),
    Column("cpu_s", "CPU s", ".2f"),
    Column("before_mb", "MB of the votes", ".0f"),
    Column("peak_mb", "peak MB", ".0f"),
    Column("verdict", "within bounds"),
)


def label_votes(rows: int, voters: int) -> LabelVotes:
    """Three labels; the voters are right in 60 to 90 of 100 rows, and fail in two."""
    dice = np.random.default_rng(1)
    right = dice.integers(0, len(LABELS), rows, dtype=np.int32)
    codes = np.empty((rows, voters), np.int32)
    for voter in range(voters):
        is_right = dice.random(rows) < 0.9 - 0.3 * voter / max(1, voters - 1)
        codes[:, voter] = np.where(is_right, right, (right + dice.integers(1, 3, rows, dtype=np.int32)) % 3)
    codes[dice.random((rows, voters)) < 0.02] = -1
    return LabelVotes(_names(voters), LABELS, codes)


def text_votes(rows: int, voters: int) -> LabelVotes:
    """Free text: two of the voters say the same in every second row, and all others something of their own."""
    codes = np.arange(rows * voters, dtype=np.int32).reshape(rows, voters)
    codes[::2, -1] = codes[::2, 0]
    return LabelVotes(_names(voters), tuple(map(str, range(rows * voters))), codes)


def number_votes(rows: int, voters: int) -> NumberVotes:
    return NumberVotes(_names(voters), np.random.default_rng(2).normal(size=(rows, voters)))


def set_votes(rows: int, voters: int) -> SetVotes:
    """Sets of up to three of eight labels; most of a row are the same."""
    dice = np.random.default_rng(3)
    sets = tuple({tuple(sorted(set(dice.integers(0, 8, 3).tolist()))) for _ in range(400)})
    codes = np.repeat(dice.integers(0, len(sets), (rows, 1), dtype=np.int32), voters, axis=1)
    errs = dice.random((rows, voters)) < 0.3
    codes[errs] = dice.integers(0, len(sets), int(errs.sum()), dtype=np.int32)
    return SetVotes(_names(voters), tuple("abcdefgh"), sets, codes)


def _names(voters: int) -> tuple[str, ...]:
    return tuple(f"lane-{voter}" for voter in range(voters))


def _terms(rule: Rule, voters: int, ties: Ties = "fail") -> Terms:
    at_least = least_votes(voters) if rule == "at_least" else None
    return Terms(rule, voters, least_votes(voters), at_least=at_least, trim=0.2, ties=ties)


def _deciding(rule: Rule, ties: Ties = "fail") -> Callable[[LabelVotes | NumberVotes], object]:
    def step(votes: LabelVotes | NumberVotes) -> object:
        voters = len(votes.voters)
        weights = [1.0 + voter / 7 for voter in range(voters)] if rule == "weighted" else None
        return decide(votes, _terms(rule, voters, ties), weights)

    return step


def _by_dawid_skene(votes: LabelVotes) -> object:
    return decide(votes, _terms("weighted", len(votes.voters)), estimate(votes))


def _sets(votes: SetVotes) -> object:
    return decide_sets(votes, _terms("majority", len(votes.voters)))


def _similar(votes: LabelVotes) -> object:
    """Of two thousand texts, each near to one of a hundred others."""
    dice = np.random.default_rng(4)
    centres = dice.normal(size=(_TEXTS // 20, _VECTOR_WIDTH))
    vectors = np.repeat(centres, 20, axis=0) + 0.2 * dice.normal(size=(_TEXTS, _VECTOR_WIDTH))
    some = LabelVotes(votes.voters, tuple(map(str, range(_TEXTS))), votes.codes % _TEXTS)
    return decide(merged(some, vectors.astype(np.float32), 0.9), _terms("majority", len(votes.voters)))


@dataclass(frozen=True, slots=True)
class Step:
    """What makes the votes of so many rows and voters, what is timed, and of what share of the rows."""

    make: Callable[[int, int], Any]
    work: Callable[[Any], object]
    share: float = 1.0


STEPS = {
    "majority": Step(label_votes, _deciding("majority")),
    "majority, ties by priority": Step(label_votes, _deciding("majority", "first")),
    "plurality": Step(label_votes, _deciding("plurality")),
    "unanimous": Step(label_votes, _deciding("unanimous")),
    "at_least": Step(label_votes, _deciding("at_least")),
    "weighted": Step(label_votes, _deciding("weighted")),
    "dawid_skene": Step(label_votes, _by_dawid_skene),
    "median": Step(number_votes, _deciding("median")),
    "trimmed_mean": Step(number_votes, _deciding("trimmed_mean")),
    "sets of labels": Step(set_votes, _sets),
    "free text, plurality": Step(text_votes, _deciding("plurality")),
    "free text, dawid_skene": Step(text_votes, _by_dawid_skene),
    "similar texts": Step(text_votes, _similar, 0.1),
}


def measured_here(step: str, rows: int, voters: int) -> dict[str, float]:
    """For the child: seconds of the step, and the largest memory before it and in the end."""
    votes = STEPS[step].make(rows, voters)
    before_mb, start_s, start_cpu_s = _peak_mb(), time.perf_counter(), time.process_time()
    STEPS[step].work(votes)
    return {
        "wall_s": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
        "before_mb": before_mb,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def write_job(folder: Path, rows: int, voters: int) -> None:
    """A table of texts with the right label in every tenth row, a file of votes for each voter, and a job over them."""
    votes = label_votes(rows, voters)
    keys = pa.array([f"r{row:07d}" for row in range(rows)])
    labels = pa.array([*LABELS, None])
    gold = votes.codes[:, 0].copy()
    gold[np.arange(rows) % 10 != 0] = -1
    columns = {"id": keys, "text": keys, "gold": labels.take(pa.array(gold % 4))}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    for voter, name in enumerate(votes.voters):
        said = labels.take(pa.array(votes.codes[:, voter] % 4))
        pq.write_table(pa.table({"id": keys, "label": said}), folder / f"{name}.parquet")
    job = {
        "name": "consensus",
        "input": {"path": "rows.parquet", "key": "id"},
        "output": {"path": "out", "carry": ["gold"]},
        "consensus": {
            "over": "label",
            "labels": list(LABELS),
            "rule": "weighted",
            "weights": "dawid_skene",
            "gold": "gold",
            "votes": [f"{name}.parquet" for name in votes.voters],
        },
    }
    (folder / "job.yaml").write_text(json.dumps(job), "utf-8")


def recomputed(rows: int, voters: int) -> dict[str, Any]:
    """The job over files of votes, once, and then what it takes to decide again from its output."""
    with tempfile.TemporaryDirectory(prefix="consensus-") as name:
        folder = Path(name)
        write_job(folder, rows, voters)
        command = [sys.executable, "-m", "batchllm"]
        harness.measured([*command, "run", "job.yaml", "--quiet"], folder=folder)
        used = harness.measured([*command, "consensus", "out"], folder=folder)
    return {"wall_s": used.wall_s, "cpu_s": used.cpu_s, "before_mb": None, "peak_mb": used.peak_mb}


def in_a_child(step: str, rows: int, voters: int) -> dict[str, Any]:
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.consensus",
            "--child",
            step,
            "--rows",
            str(rows),
            "--voters",
            str(voters),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        last = (said.stderr.strip() or "it said nothing").splitlines()[-1]
        raise harness.CommandError(f"{step} ended with {said.returncode}: {last}")
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def line(step: str, rows: int, used: dict[str, Any]) -> dict[str, Any]:
    """The bounds are for all that is done; a step alone has to leave room for the others."""
    is_good = used["wall_s"] <= MOST_S and used["peak_mb"] <= MOST_MB
    return {"step": step, "rows": rows, **used, "verdict": "yes" if is_good else "NO"}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consensus", description=__doc__)
    parser.add_argument("--rows", type=int, help="default 1,000,000; quick: 20,000")
    parser.add_argument("--voters", type=int, default=5)
    parser.add_argument("--step", action="append", choices=[*STEPS, WHOLE], help="only this one (repeatable)")
    parser.add_argument("--child", choices=[*STEPS], help=argparse.SUPPRESS)
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    rows = parsed.rows or (20_000 if chosen.is_quick else 1_000_000)
    if parsed.child:
        print(json.dumps(measured_here(parsed.child, rows, parsed.voters)))
        return
    found: list[dict[str, Any]] = []
    for step in parsed.step or [*STEPS, WHOLE]:
        of_rows = int(rows * STEPS[step].share) if step in STEPS else rows
        measure = partial(in_a_child, step) if step in STEPS else recomputed
        found.append(line(step, of_rows, measure(of_rows, parsed.voters)))
        print(json.dumps(found[-1]), file=sys.stderr)
    harness.publish(_report(parsed.voters, found), chosen)


def _report(voters: int, found: Sequence[dict[str, Any]]) -> Report:
    notes = (
        f"{voters} votes a row. Bounds: {MOST_S:.0f} s and {MOST_MB:.0f} MB, of the last line above all.",
        "Memory is the largest resident set: when the votes are there, and in the end.",
    )
    return Report("consensus", "Consensus", harness.machine(), _COLUMNS, found, notes)


if __name__ == "__main__":
    harness.entry(main)
