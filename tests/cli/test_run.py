"""`batchllm run` loads what its job needs and nothing beside: start-up time is what a small job mostly is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from job_rig import job, lane, served, write_rows

#: Each takes a tenth of a second or more, or tens of megabytes. Not numpy: pyarrow loads it wherever it is installed.
HEAVY = {"polars", "openai", "genai_prices", "rich", "jsonschema_rs", "httpx2", "aiohttp.web", "pandas"}
HEAVY |= {"batchllm.consensus.rules", "batchllm.engine.agreeing", "batchllm.report.page"}


def loaded_by_run(folder: Path, spec: dict[str, Any]) -> set[str]:
    """The heavy modules, and our simulator, that a whole run of this job has imported when it ends."""
    (folder / "job.yaml").write_text(json.dumps(spec), "utf-8")
    probe = (
        "import json, sys; from batchllm.cli.main import invoke\n"
        "code = invoke(['run', 'job.yaml', '--quiet'])\n"
        "print(json.dumps(sorted(set(json.loads(sys.argv[1])) & set(sys.modules)))); sys.exit(code)"
    )
    names = json.dumps([*HEAVY, "batchllm.simulate"])
    done = subprocess.run(
        [sys.executable, "-c", probe, names],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_a_run_on_a_server_of_one_s_own_loads_nothing_heavy(tmp_path: Path, name: str) -> None:
    import polars as pl

    frame = pl.DataFrame({"id": [f"r{n}" for n in range(10)], "text": [f"text {n}" for n in range(10)]})
    writers = {".jsonl": frame.write_ndjson, ".csv": frame.write_csv, ".parquet": frame.write_parquet}
    writers[Path(name).suffix](tmp_path / name)
    with served({}) as (urls, providers):
        spec = job(tmp_path, [lane(urls[0], "one")], input={"path": name, "key": "id"})
        assert loaded_by_run(tmp_path, spec) == set()
        assert providers[0].ledger.accepted == 10


def test_a_schema_and_limits_and_vectors_load_nothing_heavy_but_what_checks_answers(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 10)
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    typed = {"type": "chat", "prompt": "{{ text }}", "schema": schema, "params": {"max_tokens": 200}}
    vectors = {"type": "embedding", "text": "{{ text }}", "dimensions": 8}
    with served({}) as (urls, _):
        limited = lane(urls[0], "one", limits={"rpm": 60_000, "tpm": 1_000_000})
        assert loaded_by_run(tmp_path, job(tmp_path, [limited], task=typed, output={"path": "typed"})) <= {
            "jsonschema_rs"
        }
        assert (
            loaded_by_run(tmp_path, job(tmp_path, [limited], task=vectors, output={"path": "vectors"}))
            == set()
        )


def test_only_a_simulated_provider_loads_the_simulator(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 10)
    simulated = {"provider": "simulator", "model": "m", "simulate": {"latency": {"median_s": 0}}}
    assert loaded_by_run(tmp_path, job(tmp_path, [simulated])) == {"batchllm.simulate"}
