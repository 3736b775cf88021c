"""Peak memory of whole runs, small and large: it must not grow with the input.

`python -m benchmarks.memory [--share X] [--kind N] [--repeats N] [--quick] [--json FOLDER]`: JSONL rows, Parquet rows
of 2 KB of text each, and vectors of 1,536 numbers in base64, each at a tenth of the size and at the whole of it. A
million rows take some minutes.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import harness
from benchmarks.servers import Server, chat_reply, constant_server, write_job, write_rows
from benchmarks.tables import Column, Report
from benchmarks.vector_clients import DIMENSIONS, PACK
from benchmarks.vectors import reply, write_texts, write_vector_job

#: What holds for every run, and between the small and the large one of a kind.
MOST_MB, MOST_GROWTH = 350.0, 1.15
_TEXT_BYTES = 2048
#: Row groups of 200 MB: who reads one as a whole cannot stay within the bounds.
_GROUP_ROWS = 100_000
_LIMITS = {"concurrency": 64, "rpm": 6_000_000, "tpm": 6_000_000_000}
_COLUMNS = (
    Column("kind", "input"),
    Column("rows", "rows", ",.0f"),
    Column("peak_mb", "peak MB", ".0f"),
    Column("growth", "to the small one", ".2f"),
    Column("verdict", "within bounds"),
)


def write_large_texts(path: Path, rows: int) -> None:
    """Texts of about 2 KB, put together from random words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = random.Random(3)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(5000)]
    sentences = [" ".join(dice.choices(words, k=30)) for _ in range(5000)]
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("gold", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _GROUP_ROWS):
            ids = range(start, min(start + _GROUP_ROWS, rows))
            texts = [" ".join(dice.choices(sentences, k=12))[:_TEXT_BYTES] for _ in ids]
            table = pa.table([pa.array(ids), pa.array(texts), pa.array(["x"] * len(ids))], schema)
            writer.write_table(table, row_group_size=_GROUP_ROWS)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of input. `prepare` writes the job, and the input for so many rows, into a folder."""

    name: str
    rows: int
    prepare: Callable[[Path, str, int], None]


def _jsonl(folder: Path, url: str, rows: int) -> None:
    write_rows(folder / "rows.jsonl", rows)
    write_job(folder / "job.yaml", f"{url}/v1", limits=_LIMITS)


def _parquet(folder: Path, url: str, rows: int) -> None:
    write_large_texts(folder / "rows.parquet", rows)
    path = folder / "job.yaml"
    write_job(path, f"{url}/v1", limits=_LIMITS)
    job = json.loads(path.read_text("utf-8"))
    job["input"]["path"] = "rows.parquet"
    path.write_text(json.dumps(job), "utf-8")


def _vectors(folder: Path, url: str, rows: int) -> None:
    write_texts(folder / "texts.jsonl", rows)
    write_vector_job(folder / "job.yaml", f"{url}/base64/v1", "base64")


KINDS = (
    Kind("JSONL", 1_000_000, _jsonl),
    Kind("Parquet, texts of 2 KB", 1_000_000, _parquet),
    Kind(f"JSONL to vectors of {DIMENSIONS:,}", 200_192, _vectors),  # whole packs: every reply is the same
)


def sizes(kind: Kind, share: float) -> tuple[int, int]:
    """The small and the large number of rows, in whole packs."""
    large = max(PACK * 10, int(kind.rows * share) // PACK * PACK)
    return large // 10 // PACK * PACK, large


def peak_mb(kind: Kind, server: Server, rows: int, core: int | None) -> float:
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        kind.prepare(folder, server.url, rows)
        command = [sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet"]
        used = harness.measured(command, folder=folder, core=core, timeout_s=4 * 3600)
        shutil.rmtree(folder / "out", ignore_errors=True)
        return used.peak_mb


def lines(kind: str, peaks: Mapping[int, Sequence[float]]) -> list[dict[str, object]]:
    """`peaks` by number of rows, the small one first."""
    found: list[dict[str, object]] = []
    small = median(next(iter(peaks.values())))
    for rows, each in peaks.items():
        peak = median(each)
        growth = peak / small if found else None
        is_good = peak <= MOST_MB and (growth is None or growth <= MOST_GROWTH)
        found.append(
            {
                "kind": kind,
                "rows": rows,
                "peak_mb": peak,
                "growth": growth,
                "verdict": "yes" if is_good else "NO",
            }
        )
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument(
        "--share", type=float, help="of a million rows and 200,000 vectors (default 1; quick: 0.02)"
    )
    parser.add_argument("--repeats", type=int, help="turns (default 1)")
    parser.add_argument("--kind", type=int, choices=range(len(KINDS)), help="only this kind, counted from 0")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    share = parsed.share or (0.02 if chosen.is_quick else 1.0)
    repeats = parsed.repeats or 1
    cores = harness.cores()
    replies = {
        "/v1/chat/completions": chat_reply("positive, I should say"),
        "/base64/v1/embeddings": reply("base64", PACK, DIMENSIONS),
    }
    found: list[dict[str, object]] = []
    with constant_server(core=cores.server, replies=replies) as server:
        for kind in KINDS if parsed.kind is None else KINDS[parsed.kind : parsed.kind + 1]:
            peaks = {
                rows: [peak_mb(kind, server, rows, cores.client) for _ in range(repeats)]
                for rows in sizes(kind, share)
            }
            found += lines(kind.name, peaks)
    harness.publish(_report(found, repeats), chosen)


def _report(found: Sequence[Mapping[str, object]], repeats: int) -> Report:
    notes = (
        f"Largest resident set of a process, medians of {repeats} runs; Parquet has row groups of {_GROUP_ROWS:,}.",
        f"Bounds: {MOST_MB:.0f} MB, and {MOST_GROWTH} times the small run of the same kind.",
    )
    return Report("memory", "Peak memory of whole runs", harness.machine(), _COLUMNS, found, notes)


if __name__ == "__main__":
    main(sys.argv[1:])
