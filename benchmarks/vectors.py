"""Vectors of 1,536 numbers: a whole run against the openai SDK and against the decoding alone.

`python -m benchmarks.vectors [--packs N] [--repeats N] [--quick] [--json FOLDER]`: requests of 256 texts each, the same
replies to all, as base64 and as numbers. The run reads rows, keeps the journal and writes Parquet; the other two keep
nothing.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from struct import pack

from benchmarks import harness
from benchmarks.harness import Cores, Usage
from benchmarks.servers import constant_server
from benchmarks.tables import Column, Report
from benchmarks.vector_clients import DIMENSIONS, IN_FLIGHT, MODEL, PACK, TEXT

FORMS = ("base64", "float")
#: What both sides need to start is measured with so many packs, and taken off.
_START_PACKS = 1
_COLUMNS = (
    Column("form", "reply as"),
    Column("vectors_s", "vectors/s", ",.0f"),
    Column("sdk_vectors_s", "SDK vectors/s", ",.0f"),
    Column("run_us", "CPU µs/vector", ",.0f"),
    Column("sdk_us", "SDK CPU µs", ",.0f"),
    Column("decode_us", "decoding µs", ",.0f"),
    Column("sdk_ratio", "run / SDK", ".2f"),
    Column("decode_ratio", "run / decoding", ".1f"),
    Column("peak_mb", "peak MB", ".0f"),
)


def reply(form: str, vectors: int, dimensions: int) -> str:
    """What OpenAI answers: unit-sized numbers, in full precision as text."""
    dice = random.Random(7)
    data: list[dict[str, object]] = []
    for index in range(vectors):
        numbers = [dice.gauss(0.0, dimensions**-0.5) for _ in range(dimensions)]
        packed = b64encode(pack(f"<{dimensions}f", *numbers)).decode()
        data.append(
            {"object": "embedding", "index": index, "embedding": packed if form == "base64" else numbers}
        )
    usage = {"prompt_tokens": 12 * vectors, "total_tokens": 12 * vectors}
    return json.dumps({"object": "list", "data": data, "model": MODEL, "usage": usage})


def write_texts(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps({"id": number, "text": TEXT.format(number)}) + "\n")


def write_vector_job(path: Path, base_url: str, form: str, *, dimensions: int = DIMENSIONS) -> None:
    """An embedding job over texts.jsonl beside it, in packs of `PACK`: rows must be a multiple of that."""
    lane = {
        "provider": "custom",
        "name": "local",
        "model": MODEL,
        "base_url": base_url,
        "omit": ["dimensions"],
        "extra_body": {"encoding_format": form},
        "limits": {"concurrency": IN_FLIGHT},
        "price": {"input": 0.02},
    }
    job = {
        "name": "vectors",
        "input": {"path": "texts.jsonl", "key": "id"},
        "task": {
            "type": "embedding",
            "text": "{{ text }}",
            "dimensions": dimensions,
            "inputs_per_request": PACK,
        },
        "providers": [lane],
        "output": {"path": "out"},
    }
    path.write_text(json.dumps(job), "utf-8")


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with the texts and a reply of each form, and the server that answers with them."""

    folder: Path
    url: str
    cores: Cores

    def run(self, form: str, packs: int) -> Usage:
        """One whole `batchllm run`."""
        write_vector_job(self.folder / "job.yaml", f"{self.url}/{form}/v1", form)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        command = [sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet"]
        return self._measured([*command, "--limit", str(packs * PACK)], self.folder)

    def client(self, what: str, form: str, packs: int) -> Usage:
        place = f"{self.url}/{form}/v1" if what == "sdk" else str(self.folder / f"{form}.json")
        command = [sys.executable, "-m", "benchmarks.vector_clients", what, place, str(packs), form]
        return self._measured(command, Path(__file__).parents[1])

    def _measured(self, command: list[str], folder: Path) -> Usage:
        return harness.measured(command, folder=folder, core=self.cores.client)


def compare(bench: Bench, form: str, packs: int, repeats: int) -> dict[str, object]:
    """One line of the table."""
    measures = {}
    for name, count in (("", packs), ("_start", _START_PACKS)):
        measures[f"run{name}"] = partial(bench.run, form, count)
        measures[f"sdk{name}"] = partial(bench.client, "sdk", form, count)
        measures[f"decode{name}"] = partial(bench.client, "decode", form, count)
    found = harness.in_turns(repeats, **measures)
    return {"form": form, "packs": packs, **figures(found, (packs - _START_PACKS) * PACK)}


def figures(found: Mapping[str, Sequence[Usage]], vectors: int) -> dict[str, object]:
    """Medians over the turns, each without what its side needs to start (`..._start`), for `vectors` vectors."""
    cpu = {
        side: [
            (one.cpu_s - start.cpu_s) / vectors * 1e6
            for one, start in zip(found[side], found[f"{side}_start"], strict=True)
        ]
        for side in ("run", "sdk", "decode")
    }
    return {
        "vectors_s": _speed(found, "run", vectors),
        "sdk_vectors_s": _speed(found, "sdk", vectors),
        **{f"{side}_us": median(each) for side, each in cpu.items()},
        "sdk_ratio": harness.paired_ratio(cpu["run"], cpu["sdk"]),
        "decode_ratio": harness.paired_ratio(cpu["run"], cpu["decode"]),
        "peak_mb": max(one.peak_mb for one in found["run"]),
    }


def _speed(found: Mapping[str, Sequence[Usage]], side: str, vectors: int) -> float:
    pairs = zip(found[side], found[f"{side}_start"], strict=True)
    return median(vectors / (one.wall_s - start.wall_s) for one, start in pairs)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vectors", description=__doc__)
    parser.add_argument("--packs", type=int, help="requests of 256 texts (default 120; quick: 12)")
    parser.add_argument("--repeats", type=int, help="turns (default 5; quick: 1)")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    chosen = harness.options(parsed)
    packs = parsed.packs or (12 if chosen.is_quick else 120)
    repeats = parsed.repeats or (1 if chosen.is_quick else 5)
    cores = harness.cores()
    replies = {form: reply(form, PACK, DIMENSIONS) for form in FORMS}
    with tempfile.TemporaryDirectory(prefix="vectors-") as name:
        folder = Path(name)
        write_texts(folder / "texts.jsonl", packs * PACK)
        for form, text in replies.items():
            (folder / f"{form}.json").write_text(text, "utf-8")
        served = {f"/{form}/v1/embeddings": text for form, text in replies.items()}
        with constant_server(core=cores.server, replies=served) as server:
            bench = Bench(folder, server.url, cores)
            lines = [compare(bench, form, packs, repeats) for form in FORMS]
    harness.publish(_report(lines, packs, repeats, cores), chosen)


def _report(lines: Sequence[Mapping[str, object]], packs: int, repeats: int, cores: Cores) -> Report:
    notes = (
        f"{packs:,} requests of {PACK} texts, {IN_FLIGHT} in flight, medians of {repeats} turns; {cores.text()}.",
        "Starting up is taken off on all sides. The run writes journal and Parquet, the other two keep nothing.",
    )
    title = f"Vectors of {DIMENSIONS:,} numbers: a whole run against the openai SDK and the decoding alone"
    return Report("vectors", title, harness.machine(), _COLUMNS, lines, notes)


if __name__ == "__main__":
    main(sys.argv[1:])
