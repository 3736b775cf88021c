"""A server without limits, in a process of its own, and rows to send to it."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEXT = (
    "the a kettle tent works great but slow really bad nice lid broke after two weeks would buy it again and"
    " my sister likes hers better than this one which is fine for the price I guess"
)


@contextmanager
def constant_server() -> Iterator[str]:
    """`batchllm simulate` without latency or limits; yields its base_url."""
    process = subprocess.Popen(
        [sys.executable, "-m", "batchllm", "simulate", "--port", "0", "--latency", "0", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe to the server")
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait(timeout=20)


def write_rows(path: Path, rows: int, seed: int = 1) -> None:
    """JSONL rows of 10 to 60 words, about 230 bytes each."""
    dice = random.Random(seed)
    words = _TEXT.split()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = " ".join(dice.choices(words, k=dice.randint(10, 60)))
            file.write(json.dumps({"id": f"r{number:08d}", "text": text, "gold": "positive"}) + "\n")


def write_job(path: Path, base_url: str, *, in_flight: int) -> None:
    job = {
        "name": "benchmark",
        "input": {"path": "rows.jsonl", "key": "id"},
        "task": {
            "type": "chat",
            "prompt": "Which sentiment has this review?\n\n{{ text }}",
            "params": {"max_tokens": 20},
        },
        "providers": [
            {
                "provider": "custom",
                "name": "local",
                "model": "sim",
                "base_url": base_url,
                "limits": {"concurrency": in_flight},
                "price": {"input": 0.1, "output": 0.4},
            }
        ],
        "output": {"path": "out", "carry": ["gold"]},
    }
    path.write_text(json.dumps(job), "utf-8")
