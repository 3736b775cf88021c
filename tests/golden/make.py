"""Makes the golden folders: small records in the journal's present format, which every later version must take up.

    python tests/golden/make.py FOLDER

runs each job below in FOLDER (its name goes into the records, so give a neutral one) and copies what came out to
`tests/golden/<format>/<name>/`: the job, its rows, and `out/` as the run left it. A format's folders are made once,
by the last version that writes it, and never again: made by the code that they test, they would prove nothing.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from batchllm.cli.main import main as batchllm
from batchllm.clock import SystemClock
from batchllm.engine.identity import identity_of
from batchllm.engine.intake import Intake
from batchllm.journal import Journal, OutputLock
from batchllm.journal.opening import FORMAT
from batchllm.provider.catalogue import load_catalogue
from batchllm.spec.loading import load_job
from batchllm.wiring import check, mark_simulated

HERE = Path(__file__).parent
ROWS = 24
KILLED_AFTER = 8
#: Rows of `renewed` that are in the place of others.
NEW = 3
_WAIT_S = 30.0
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["odd", "even"]}, "size": {"type": "integer"}},
    "required": ["label"],
}
ODD = r"number \d*[13579]\b"
ANSWERS = [
    {"pattern": ODD, "reply": {"label": "odd", "size": 1}},
    {"pattern": ".", "reply": {"label": "even", "size": 2}},
]
#: Numbers that end in 7 get an answer that is none.
SOME_WRONG = [{"pattern": r"number \d*7\b", "reply": {"label": "seven"}}, *ANSWERS]


def lane(name: str, answers: list[dict[str, Any]] | None = None, **simulate: Any) -> dict[str, Any]:
    return {
        "name": name,
        "provider": "simulator",
        "model": f"{name}-1",
        "price": {"input": 1.0, "output": 4.0},
        "simulate": {"seed": 7, "latency": {"median_s": 0.001}, "answers": answers or [], **simulate},
    }


def job(name: str, task: Mapping[str, Any], *lanes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "input": {"path": "rows.jsonl", "key": "id", "columns": {"stars": "int64"}},
        "task": dict(task),
        "providers": list(lanes),
        "retry": {"max_attempts": 2, "backoff_s": 0.01, "max_backoff_s": 0.02},
        "output": {"path": "out", "carry": ["stars"]},
        **more,
    }


CHAT = {"type": "chat", "prompt": "{{ text }}", "params": {"max_tokens": 40}, "schema": SCHEMA}
PLAIN = {"type": "chat", "prompt": "{{ text }}"}
JOBS = {
    "complete": job("complete", CHAT, lane("one", ANSWERS)),
    "failures": job("failures", CHAT, lane("one", SOME_WRONG)),
    "all": job("all", PLAIN, lane("one"), lane("two"), routing="all"),
    "embeddings": job(
        "embeddings",
        {"type": "embedding", "text": "{{ text }}", "dimensions": 8, "inputs_per_request": 5},
        lane("vectors", dimensions=8),
    ),
    "streams": job("streams", PLAIN, lane("one"), stream=True),
    "bodies": job("bodies", PLAIN, lane("one"), output={"path": "out", "carry": ["stars"], "keep": "bodies"}),
    "samples": job("samples", PLAIN, lane("one"), lane("two"), samples=3),
    "votes": job(
        "votes",
        {**CHAT, "params": {"max_tokens": 40, "temperature": 0}},
        *(lane(name, ANSWERS, noise=0.3, seed=seed) for seed, name in enumerate(("one", "two", "three"))),
        routing="all",
        consensus={"over": "label", "stop_early": True},
    ),
    "renewed": job("renewed", PLAIN, lane("one")),
    "interrupted": job(
        "interrupted",
        PLAIN,
        {**lane("one", latency={"median_s": 0.05}), "limits": {"concurrency": 2}},
    ),
}
#: Of what a run leaves: lock, ballast and shared memory are a process's own, the summary speaks of a machine.
_LEFT_OUT = shutil.ignore_patterns("lock", "status.json", "ballast", "*-shm", "summary.txt")


def write_job(folder: Path, spec: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    rows = [{"id": f"r{n}", "text": f"text number {n}", "stars": n % 5} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    path = folder / "job.yaml"
    path.write_text(json.dumps(spec, indent=2) + "\n", "utf-8")  # JSON is YAML
    return path


def run(path: Path) -> None:
    ended = subprocess.run([sys.executable, __file__, "--run", str(path)], check=False, timeout=120)
    if ended.returncode not in (0, 3):
        raise SystemExit(f"{path}: the run ended with {ended.returncode}")


def run_and_kill(path: Path) -> None:
    """Once some answers are in the journal: they are in no part yet."""
    database = path.parent / "out" / ".batchllm" / "journal.db"
    with subprocess.Popen([sys.executable, __file__, "--run", str(path)]) as process:
        last_s = time.monotonic() + _WAIT_S
        while answers_in(database) < KILLED_AFTER:
            if process.poll() is not None or time.monotonic() > last_s:
                raise SystemExit(f"{path}: the run was not caught half way")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)


def run_and_renew(path: Path) -> None:
    """A changed input is taken up, and its rows have not moved yet: as a kill leaves it before the first request."""
    run(path)
    table = (path.parent / "rows.jsonl").read_text("utf-8").splitlines()
    new = [json.dumps({"id": f"n{n}", "text": f"a new one, {n}", "stars": 3}) for n in range(NEW)]
    (path.parent / "rows.jsonl").write_text("\n".join([*new, *reversed(table[NEW:])]) + "\n", "utf-8")
    subprocess.run([sys.executable, __file__, "--take-in", str(path)], check=True, timeout=120)


def take_in(path: Path) -> None:
    checked = check(load_job(path, environ={}), catalogue=load_catalogue(), environ={}, clock=SystemClock())
    out = path.parent / "out"
    with OutputLock.acquire(out, about={}):
        journal = Journal.open(
            out,
            identity=identity_of(checked.job),
            lanes=[lane.info for lane in mark_simulated(checked.lanes)],
            slots=1,
            task=checked.task,
            shape=checked.source.shape,
            clock=SystemClock(),
        )
        Intake(checked.source, checked.task, out, only_missing=False).take_in(journal)
        asyncio.run(journal.close(clean=True, exit_code=0))


def answers_in(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])


def make(folder: Path) -> None:
    for name, spec in JOBS.items():
        target = HERE / str(FORMAT) / name
        if target.exists():
            raise SystemExit(f"{target} is there already")
        path = write_job(folder / name, spec)
        {"interrupted": run_and_kill, "renewed": run_and_renew}.get(name, run)(path)
        shutil.copytree(folder / name, target, ignore=_LEFT_OUT)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--run"], ["--take-in"]):
        socket.gethostname = lambda: "golden"
        os.environ["BATCHLLM_STATE_DIR"] = str(Path(sys.argv[2]).parent / "limits")
        if sys.argv[1] == "--run":
            batchllm(["run", sys.argv[2], "--quiet", "--progress", "none"])
        else:
            take_in(Path(sys.argv[2]))
    else:
        make(Path(sys.argv[1]).resolve())
