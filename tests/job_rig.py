"""Jobs over real sockets: simulated providers in a thread, reached as `custom` lanes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from batchllm.engine.local import execute
from batchllm.engine.options import Options
from batchllm.report.summary import RunSummary
from batchllm.simulate import EmbeddedProviders, SimulatedProvider
from batchllm.spec.lanes import Simulation
from batchllm.spec.loading import load_mapping


def write_rows(path: Path, count: int, **more: object) -> Path:
    """Rows whose answer is known from their text."""
    lines = [json.dumps({"id": f"r{n}", "text": f"text number {n}", **more}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@contextmanager
def served(*specs: Mapping[str, Any]) -> Iterator[tuple[list[str], list[SimulatedProvider]]]:
    """Simulated providers, with their addresses and their books; at once where a spec says nothing of latency."""
    simulations = [Simulation.model_validate({"latency": {"median_s": 0.001}, **spec}) for spec in specs]
    with EmbeddedProviders(simulations, keeps_details=True) as embedded:
        yield list(embedded.base_urls), list(embedded.providers)


def lane(url: str, name: str, **more: Any) -> dict[str, Any]:
    return {"provider": "custom", "name": name, "model": "sim", "base_url": url, **more}


def job(folder: Path, lanes: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "input": {"path": "rows.jsonl", "key": "id"},
        "task": {"type": "chat", "prompt": "{{ text }}"},
        "providers": list(lanes),
        "retry": {"backoff_s": 0.02, "max_backoff_s": 0.2},
        "output": {"path": str(folder / "out")},
        **more,
    }


def run(
    folder: Path,
    spec: Mapping[str, Any],
    *,
    limit: int | None = None,
    frame: object = None,
    retries_failed: bool = False,
    say: Callable[[str], None] = print,
    **options: bool,
) -> RunSummary:
    loaded = load_mapping(spec, folder=folder, environ={})
    return execute(
        loaded,
        Options(
            limit=limit,
            retries_failed=retries_failed,
            **options,
            environ={"BATCHLLM_STATE_DIR": str(folder / "state")},
            say=say,
        ),
        frame=frame,
    )


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "out" / name / "*.parquet")
